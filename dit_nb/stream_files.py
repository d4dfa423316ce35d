"""What a stream is read from: WebDataset shards, Parquet files, or the Hub, as an IterableDataset of `datasets`."""

import glob
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dit_nb.errors import UserError
from dit_nb.image_sources import _short
from dit_nb.image_splits import _names_of_split, _split_of
from dit_nb.image_tables import _label_column
from dit_nb.shard_files import _check_shards, _content_of, _files_below, _short_hash, _state_of

__all__ = []


@dataclass(frozen=True)
class _Stream:
    "Rows that are read in order, and which of their columns are used."

    rows: Any  # datasets.IterableDataset, images undecoded
    image: str  # column of the images
    label_path: tuple[str, ...]  # column of the labels, and keys inside it; empty if there are none
    place: str  # where they come from, for people
    state: str  # hash of the files as they are on this machine: what was counted before belongs to it
    fingerprint: str  # hash of the content, the same for a copy
    declared: tuple[str, ...] = ()  # class names, if the column is declared as classes
    known: int | None = None  # number of images, if the description has it
    notes: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)  # on this machine; empty for the Hub

    def label(self, row: dict):
        "The class of a row, None if there are no classes, or if the row has none."
        value: Any = row if self.label_path else None
        for key in self.label_path:
            try:
                value = (value if isinstance(value, dict) else json.loads(value)).get(key)
            except (AttributeError, TypeError, ValueError):  # no JSON object
                return None
        return value

    def name(self, row: dict) -> str:
        "The name of a row's image for a message: member and shard, if they are known."
        member = (row.get(self.image) or {}).get("path") or row.get("__key__")
        shard = os.path.basename(row.get("__url__") or "")
        return " of ".join(filter(None, (member, shard or (None if member else self.place))))

    def read(self, rows) -> Iterator[dict]:
        "Iterate over rows; a UserError names the file that cannot be read, or the last image before it."
        row = None
        try:
            for row in rows:
                yield row
        except Exception as error:  # tarfile, pyarrow, JSON and the network raise many kinds
            _check_shards(self.files, whole=True)
            where = f"after image {self.name(row)}" if row else "at its start"
            raise UserError(f"data {self.place} cannot be read {where}: {_short(error)}.") from None


def _open_rows(source: str, split: str | None, label_column: str | None) -> _Stream:
    "Open a stream by its name."
    name, _, own = source.partition("@")
    files = _find_shards(name)
    try:
        open_rows = _shard_rows if files else _hub_rows
        rows, used, found, notes = open_rows(name, files, own or split)
        place = f"stream:{name}, split {used}" if used else f"stream:{name}"
        return _choose_columns(rows, place, used, found, notes, label_column)
    except ConnectionError:
        raise UserError(
            f"data stream:{source} is not on this machine, and the Hub cannot be reached."
        ) from None
    except UserError:
        raise
    except Exception as error:  # datasets, tarfile and pyarrow raise many kinds
        _check_shards(files or _files_below(name))
        raise UserError(f"data stream:{source} cannot be opened: {_short(error)}.") from None


def _shard_rows(
    name: str, shards: list[str], split: str | None
) -> tuple[Any, str | None, list[str] | str, list[str]]:
    "Rows of the shards of a split, its name, these shards, and notes on the others."
    import datasets

    files, used, notes = _shards_of_split(name, shards, split)
    rows = datasets.load_dataset("webdataset", data_files={"train": files}, split="train", streaming=True)
    return rows, used, files, notes


def _find_shards(name: str) -> list[str]:
    "The .tar files of a folder, or of a pattern."
    if Path(name).is_dir():
        return _files_below(name, ".tar")
    return sorted(glob.glob(name)) if re.search(r"[*?\\[]", name) or name.endswith(".tar") else []


def _shards_of_split(
    name: str, shards: list[str], split: str | None
) -> tuple[list[str], str | None, list[str]]:
    "The shards of a split, by words such as train or val in their paths; the name of the split; notes on the others."
    root = os.path.realpath(name) if os.path.isdir(name) else os.path.commonpath(map(os.path.dirname, shards))
    labels = [_split_label(os.path.relpath(shard, root)) for shard in shards]
    if not any(map(_split_of, labels)):
        if split is not None:
            raise UserError(f"split is {split}, but the names of the shards in {name} have no splits.")
        return shards, None, []
    used = _names_of_split(f"data stream:{name}", sorted(set(labels)), split, "shard", several=True)
    chosen = [shard for shard, label in zip(shards, labels) if label in used]
    rest = len(shards) - len(chosen)
    return chosen, ", ".join(used), [f"{rest:,} shards of other splits"] if rest else []


def _split_label(path: str) -> str:
    "The part of a shard's path that looks like a split, else its name, without numbers: train of train/a-0001.tar."
    parts = [
        re.sub(r"([\W_]*\d+|[\W_]*of)+$", "", part) or part for part in path[: -len(".tar")].split(os.sep)
    ]
    return next(filter(_split_of, parts), parts[-1])


def _hub_rows(name: str, _, split: str | None) -> tuple[Any, str, list[str] | str, list[str]]:
    "The same for a data set of the Hub, with its revision, or for a folder of other files."
    import datasets

    path, _, config = name.partition(":")
    builder = datasets.load_dataset_builder(path, config or None)
    found: Any = builder.as_streaming_dataset()
    used = split or ("train" if "train" in found else next(iter(found)))
    if used not in found or (split is None and used != "train" and len(found) > 1):
        raise UserError(
            f"data stream:{name} has no split {split or 'train'}: choose one of {', '.join(found)}."
        )
    notes = [f"split {other}" for other in found if other != used]
    return found[used], used, _files_below(path) or str(builder.hash), notes


def _choose_columns(
    rows, place: str, used: str | None, source: list[str] | str, notes: list[str], wanted: str | None
) -> _Stream:
    "Choose the columns of images and labels."
    import datasets

    features = rows.features or rows._resolve_features().features
    images = [column for column, kind in features.items() if isinstance(kind, datasets.Image)]
    if not images:
        raise UserError(f"data {place} has no column of images; the columns are {', '.join(features)}.")
    image = "image" if "image" in images else images[0]
    path = _label_path(features, place, wanted)
    own = {image, *path[:1]}
    unused = [column for column in features if column not in own and not column.startswith("__")]
    notes = notes + ([f"columns {', '.join(unused)}"] if unused else [])
    kept = [column for column in features if column in own or column in ("__key__", "__url__")]
    rows = rows.select_columns(kept).cast_column(image, datasets.Image(decode=False))
    kind = features[path[0]] if len(path) == 1 else None
    declared = tuple(kind.names) if isinstance(kind, datasets.ClassLabel) else ()
    splits = rows.info.splits or {}
    known = splits[used].num_examples or None if used in splits else None
    files = [] if isinstance(source, str) else source
    hashes = (_state_of(files), _content_of(files)) if files else ((place, source),) * 2
    state, content = (_short_hash(one, used, path) for one in hashes)
    return _Stream(rows, image, path, place, state, content, declared, known, notes, files)


def _label_path(features, place: str, wanted: str | None) -> tuple[str, ...]:
    "The column of the labels, and the keys inside it."
    if wanted is not None and "." in wanted and wanted.partition(".")[0] in features:
        return tuple(wanted.split("."))
    if wanted is None and "cls" in features:
        return ("cls",)
    plain = [c for c, kind in features.items() if not isinstance(kind, dict) and not c.startswith("__")]
    column = _label_column(plain, wanted, f"data {place}")
    inside = [c for c, kind in features.items() if isinstance(kind, dict) and "label" in kind]
    return (column,) if column else (inside[0], "label") if inside and wanted is None else ()
