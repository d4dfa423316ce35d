"""What a stream is read from: WebDataset shards, Parquet files, or the Hub, as an IterableDataset of `datasets`."""

import glob
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dit_nb.errors import UserError
from dit_nb.image_check import _cache_folder
from dit_nb.image_folders import _SPLITS, _split_of
from dit_nb.image_sources import _short
from dit_nb.image_tables import _label_column

__all__ = []


@dataclass(frozen=True)
class _Stream:
    "Rows that are read in order, and which of their columns are used."

    rows: Any  # datasets.IterableDataset, images undecoded
    image: str  # column of the images
    label_path: tuple[str, ...]  # column of the labels, and keys inside it; empty if there are none
    place: str  # where they come from, for people
    fingerprint: str  # hash of the files
    declared: tuple[str, ...] = ()  # class names, if the column is declared as classes
    known: int | None = None  # number of images, if the description has it
    notes: list[str] = field(default_factory=list)

    def label(self, row: dict):
        "The class of a row, None if there are no classes."
        value: Any = row if self.label_path else None
        for key in self.label_path:
            value = value[key] if isinstance(value, dict) else json.loads(value)[key]
        return value


def _open_rows(source: str, split: str | None, label_column: str | None) -> _Stream:
    "Open a stream by its name."
    import datasets

    name, _, own = source.partition("@")
    split = own or split
    shards = _find_shards(name)
    try:
        if shards:
            files, used, notes = _shards_of_split(name, shards, split)
            rows = datasets.load_dataset(
                "webdataset", data_files={"train": files}, split="train", streaming=True
            )
            identity = repr([(Path(file).name, Path(file).stat().st_size) for file in files])
        else:
            rows, used, notes = _hub_rows(name, split)
            sums = sorted(rows.info.download_checksums or ())
            identity = f"{name} {used} {rows.info.version} {sums}"
    except ConnectionError:
        raise UserError(
            f"data stream:{source} is not on this machine, and the Hub cannot be reached."
        ) from None
    except UserError:
        raise
    except (datasets.exceptions.DatasetsError, ValueError, OSError, RuntimeError) as error:
        raise UserError(f"data stream:{source} cannot be opened: {_short(error)}.") from None
    place = f"stream:{name}, split {used}" if used else f"stream:{name}"
    identity = hashlib.sha256(f"{identity} {label_column}".encode()).hexdigest()[:16]
    return _choose_columns(rows, place, used, identity, notes, label_column)


def _find_shards(name: str) -> list[str]:
    "The .tar files of a folder, or of a pattern."
    if Path(name).is_dir():
        return sorted(map(str, Path(name).resolve().rglob("*.tar")))
    return sorted(glob.glob(name)) if re.search(r"[*?\\[]", name) or name.endswith(".tar") else []


def _shards_of_split(
    name: str, shards: list[str], split: str | None
) -> tuple[list[str], str | None, list[str]]:
    "The shards of a split, by words such as train or val in their paths; the name of the split; notes on the others."
    root = Path(name).resolve() if Path(name).is_dir() else Path(shards[0]).parent
    inside = [
        str(Path(shard).relative_to(root)) if root in Path(shard).parents else shard for shard in shards
    ]
    splits = [
        next((_SPLITS[w] for w in re.findall("[a-z]+", text.lower()) if w in _SPLITS), None)
        for text in inside
    ]
    kinds = sorted({kind or "none" for kind in splits})
    if kinds == ["none"]:
        if split is not None:
            raise UserError(f"split is {split}, but the names of the shards in {name} have no splits.")
        return shards, None, []
    wanted = (_split_of(split) or split) if split else "train" if "train" in kinds else kinds[0]
    chosen = [shard for shard, kind in zip(shards, splits) if kind == wanted]
    if not chosen or (split is None and "train" not in kinds and len(kinds) > 1):
        raise UserError(
            f"data stream:{name} has no split {split or 'train'}: choose one of {', '.join(kinds)}."
        )
    rest = len(shards) - len(chosen)
    return chosen, wanted, [f"{rest:,} shards of other splits"] if rest else []


def _hub_rows(name: str, split: str | None) -> tuple[Any, str, list[str]]:
    import datasets

    path, _, config = name.partition(":")
    found: Any = datasets.load_dataset(path, config or None, streaming=True)
    used = split or ("train" if "train" in found else next(iter(found)))
    if used not in found or (split is None and used != "train" and len(found) > 1):
        raise UserError(
            f"data stream:{name} has no split {split or 'train'}: choose one of {', '.join(found)}."
        )
    rest = [other for other in found if other != used]
    return found[used], used, [f"split {other}" for other in rest]


def _choose_columns(
    rows, place: str, used: str | None, identity: str, notes: list[str], wanted: str | None
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
    kept = [column for column in features if column in own or column == "__key__"]
    rows = rows.select_columns(kept).cast_column(image, datasets.Image(decode=False))
    kind = features[path[0]] if len(path) == 1 else None
    declared = tuple(kind.names) if isinstance(kind, datasets.ClassLabel) else ()
    splits = rows.info.splits or {}
    known = splits[used].num_examples or None if used in splits else None
    return _Stream(rows, image, path, place, identity, declared, known, notes)


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


def _load_cached(fingerprint: str) -> dict | None:
    "What was counted before; None if nothing was, or if the file is damaged."
    try:
        found = json.loads((_cache_folder() / f"stream-{fingerprint}.json").read_text())
        return found if {"images", "values", "class_names", "counts"} <= set(found) else None
    except (OSError, ValueError, TypeError):
        return None


def _save_cached(fingerprint: str, found: dict) -> None:
    "Keep what was counted, if the disk allows."
    from dit_nb.utils import _atomic_write

    try:
        _cache_folder().mkdir(parents=True, exist_ok=True)
        with _atomic_write(_cache_folder() / f"stream-{fingerprint}.json") as draft:
            draft.write_text(json.dumps(found))
    except OSError:
        pass
