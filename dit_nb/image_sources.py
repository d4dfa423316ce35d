"""What images are read from: files in a folder, or a data set of the Hub; with their classes and what was left out."""

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from dit_nb.errors import UserError, _check_choice
from dit_nb.image_captions import _captions_of_each, _captions_of_rows
from dit_nb.image_check import _combined, _hash
from dit_nb.image_folders import (
    _CLASS_FOLDERS,
    _check_links,
    _classes_by_folder,
    _File,
    _Found,
    _note_empty,
    _select_split,
    _walk,
)
from dit_nb.image_rows import _classes_by_table
from dit_nb.image_tables import _find_tables, _label_column, _number_classes

__all__ = []


class _Files:
    "Image files: `files[i]` is a cell, a dict of path and bytes (None)."

    def __init__(self, root: Path, files: list[_File]):
        paths = [os.fsencode(file.path) for file in files]
        self.place = str(root)
        # One array is shared with the workers of a DataLoader; the memory of many strings would be copied.
        self._text, self._ends = np.frombuffer(b"".join(paths), np.uint8), np.cumsum([0, *map(len, paths)])
        self._keys = np.array([_hash(file.path, file.size, file.mtime) for file in files], np.uint64)
        self._names = np.array([_hash(file.path, file.size) for file in files], np.uint64)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, i: int) -> dict:
        path = self._text[self._ends[i] : self._ends[i + 1]].tobytes()
        return {"path": os.path.join(self.place, os.fsdecode(path)), "bytes": None}

    def keys(self) -> np.ndarray:
        "What identifies each file as it is now, (N,) uint64."
        return self._keys

    def name(self) -> str:
        "What identifies the files wherever the folder is copied to: their names and sizes."
        return _combined(self._names)


class _Rows:
    "Images inside a data set of Hugging Face."

    def __init__(self, rows):  # datasets.Dataset with the undecoded column image
        self.rows, self.place = rows, f"rows {rows._fingerprint}"

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict:
        return self.rows[i]["image"]

    def keys(self) -> np.ndarray:
        "What identifies each image, (N,) uint64."
        return np.uint64(_hash(self.place)) + np.arange(len(self), dtype=np.uint64)

    def name(self) -> str:
        "Nothing but their number: other copies of the same rows have another fingerprint."
        return str(len(self))


@dataclass(frozen=True)
class _Table:
    "Images that were found, and their classes or captions."

    cells: _Files | _Rows
    labels: list[int] | None  # None if there are no classes
    class_names: tuple[str, ...]
    place: str  # where they were found, for people
    notes: tuple[str, ...] = field(default=())  # what was left out
    captions: tuple[str, ...] | None = None  # None if they were not asked for


# Folders


def _folder_table(
    folder: str | Path,
    split: str | None = None,
    class_folder: str | None = None,
    label_column: str | None = None,
    captions: bool | str = False,
) -> _Table:
    """Find the images in a folder, with classes by metadata.csv, metadata.jsonl, another table, or subfolders.

    With `captions`, which may be the name of a column, find captions instead, by such a table or by text files.
    """
    root = Path(folder).resolve()
    if not root.is_dir():
        raise UserError(f"data folder {folder} {'is a file' if root.exists() else 'does not exist'}.")
    if class_folder is not None:
        _check_choice("class_folder", class_folder, _CLASS_FOLDERS)
    found = _walk(root)
    _check_links(root, found)
    if not found.images:
        tables = Counter(Path(table.name).suffix for table in found.tables)
        raise UserError(_why_empty(root, found.others + tables))
    level = _select_split(root, found, split, class_folder, bool(captions))
    _note_empty(found)
    names, texts = None, None
    if captions:
        texts, table = _captions_of_each(root, found, split, captions if isinstance(captions, str) else None)
    else:
        names, table = _class_of_each(root, found, level, split, class_folder, label_column)
    if split is not None and found.split is None:
        raise UserError(f"split is {split}, but data folder {root} has no folders of splits.")
    if found.others:
        hint = "; --captions reads .txt files" if ".txt" in found.others and not captions else ""
        found.notes.append(
            f"{sum(found.others.values()):,} other files ({_list_suffixes(found.others)}{hint})"
        )
    place = (
        str(folder)
        + (f", split {found.split}" if found.split else "")
        + (f", classes by {table}" if names and table else "")
        + (f", captions by {table}" if texts else "")
    )
    labels, class_names = _number_classes(names) if names else (None, ())
    texts = None if texts is None else tuple(texts)
    return _Table(_Files(root, found.images), labels, class_names, place, tuple(found.notes), texts)


def _class_of_each(
    root: Path, found: _Found, level, split, class_folder, label_column
) -> tuple[list | None, str | None]:
    "Class of each image, by a table if there is one (its name), else by folder; None if there are no classes."
    folders = [f.folder if level is None else f.folder[:level] + f.folder[level + 1 :] for f in found.images]
    tables = _find_tables(root, found, split, by_folder=any(folders), label_column=label_column)
    if tables:
        return _classes_by_table(root, tables, found, label_column, split), tables[0].path
    if label_column is not None:
        raise UserError(
            f"label_column is {label_column}, but data folder {root} has no table of images with this column."
        )
    return _classes_by_folder(root, found.images, folders, class_folder), None


def _list_suffixes(others: Counter) -> str:
    return ", ".join(suffix for suffix, _ in others.most_common(4)) + (", ..." if len(others) > 4 else "")


def _why_empty(root: Path, others: Counter) -> str:
    "Sentence on a folder without images."
    cures = {".zip": "unpack it", ".npy": "save them as PNG files", ".npz": "save them as PNG files"}
    cures |= {".parquet": f"name it hub:{root}", ".arrow": "of latents, pass it as latents"}
    cures |= {".tar": f"name it stream:{root}, or unpack it"}
    for suffix, cure in cures.items():
        if suffix in others:
            return f"data folder {root} holds no images, but {others[suffix]} {suffix} files: {cure}."
    has = f"only other files ({_list_suffixes(others)})" if others else "no files"
    return f"data folder {root} holds no images, {has}."


# Data sets of the Hub


def _hub_table(
    name: str, split: str | None = None, label_column: str | None = None, captions: bool | str = False
) -> _Table:
    "Table of a data set: NAME, NAME:CONFIG, NAME@SPLIT or NAME:CONFIG@SPLIT; the split is train by default."
    start, _, own = name.partition("@")
    split = own or split
    path, _, config = start.partition(":")
    rows, used = _load_rows(name, path, config or None, split)
    table = _tabulate(rows, f"hub:{name}", label_column, captions)
    return replace(table, place=f"hub:{start}, split {used}")


def _load_rows(name: str, path: str, config: str | None, split: str | None):  # datasets.Dataset, str
    import datasets

    try:
        found = datasets.load_dataset(path, config, split=split)
    except ConnectionError:
        raise UserError(f"data hub:{name} is not on this machine, and the Hub cannot be reached.") from None
    except (datasets.exceptions.DatasetsError, ValueError, OSError, RuntimeError) as error:
        raise UserError(f"data hub:{name} cannot be loaded: {_short(error)}.") from None
    if split:
        return found, split
    if "train" not in found and len(found) > 1:
        raise UserError(f"data hub:{name} has no split train: add @ and one of {', '.join(found)}.")
    used = "train" if "train" in found else next(iter(found))
    return found[used], used


def _tabulate(rows, place: str, label_column: str | None = None, captions: bool | str = False) -> _Table:
    "Find the images and the classes, or the captions, among the columns of a datasets.Dataset."
    import datasets

    columns = [name for name, kind in rows.features.items() if isinstance(kind, datasets.Image)]
    if not columns:
        raise UserError(f"no column holds images; the columns are {', '.join(rows.features)}.")
    column = "image" if "image" in columns else columns[0]
    texts, notes = None, ()
    if captions:
        labels, names, wanted = None, (), captions if isinstance(captions, str) else None
        rows, label, texts, notes = _captions_of_rows(rows, f"data {place}", wanted)
    else:
        label, labels, names = _read_labels(rows, place, label_column)
    undecoded = rows.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    unused = [name for name in rows.features if name not in (column, label)]
    notes += (f"columns {', '.join(unused)}",) if unused else ()
    cells = _Rows(undecoded.rename_columns({column: "image"}))
    return _Table(cells, labels, names, place, notes, texts)


def _read_labels(
    rows, place: str, wanted: str | None
) -> tuple[str | None, list[int] | None, tuple[str, ...]]:
    "Column, labels and class names: of the column that is declared as classes, else of the one named like a label."
    from datasets import ClassLabel, Value

    kinds = {name: kind for name, kind in rows.features.items() if isinstance(kind, ClassLabel | Value)}
    classes = [name for name, kind in kinds.items() if isinstance(kind, ClassLabel)]
    usual = "label" if "label" in classes else next(iter(classes), None)
    column = usual if wanted is None and usual else _label_column(list(kinds), wanted, f"data {place}")
    if column is None:
        return None, None, ()
    labels = rows[column][:]
    if column not in classes:
        return column, *_number_classes(labels)
    if None in labels or -1 in labels:  # the Hub's mark for test splits whose labels are withheld
        raise UserError(f"column {column} has images without a label: choose another split, with @SPLIT.")
    return column, labels, tuple(rows.features[column].names)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200].strip(".")
