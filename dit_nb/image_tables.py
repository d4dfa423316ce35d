"""Tables of images: which tables of a folder are used, their columns, and the numbering of classes."""

import csv
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dit_nb.errors import UserError
from dit_nb.image_folders import _File, _Found
from dit_nb.image_splits import _split_of

__all__ = []

_FILE_COLUMNS = ("file_name", "filename", "file", "image", "image_path", "path", "img", "image_id", "id")
_LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target")


# Classes


def _number_classes(values: list) -> tuple[list[int], tuple[str, ...]]:
    "Labels and class names, in alphabetical or numerical order, from the class of each image."
    if missing := [i for i, value in enumerate(values) if _is_missing(value)]:
        raise UserError(f"label of image {missing[0]} is missing, but either all images need one, or none.")
    if fractions := [value for value in values if _is_fraction(value)]:
        raise UserError(f"label {fractions[0]} is a fraction, but labels must be classes: names or integers.")
    kinds = {type(value) for value in values}
    if odd := [value for value in values if not isinstance(value, str | int | float)]:
        raise UserError(
            f"label {odd[0]!r} is a {type(odd[0]).__name__}, but must be one class for each image."
        )
    if kinds == {str}:
        values = _as_numbers(values)
    elif str in kinds:
        values = [str(value) for value in values]
    values = [int(value) if isinstance(value, float) else value for value in values]
    names = sorted(set(values))
    number = {name: k for k, name in enumerate(names)}
    return [number[value] for value in values], tuple(str(name) for name in names)


def _is_missing(value) -> bool:
    "Whether a label is missing: empty, or not a number, as pandas writes what it has not."
    return (
        value is None or value != value or (isinstance(value, str) and value.strip().lower() in ("", "nan"))
    )


def _is_fraction(value) -> bool:
    "Whether a label is a number that is no integer, also as text and with a decimal comma. Infinity is one."
    if isinstance(value, str):
        if re.fullmatch(r"\s*[+-]?[1-9]\d{0,2}(,\d{3})+\s*", value):  # 1,000
            return False
        try:
            value = float(value.replace(",", ".")) if re.search(r"\d", value) and "_" not in value else 0.0
        except ValueError:
            return False
    return isinstance(value, float) and not value.is_integer()


def _as_numbers(values: list[str]) -> list:
    "Numbers, if all texts are numbers, as in a CSV file; otherwise the texts themselves."
    for kind in (int, float):
        try:
            numbers = [kind(value) for value in values]
        except ValueError:
            continue
        if kind is float or all(str(a) == b for a, b in zip(numbers, values)):  # not 007: that is a name
            return numbers
        return values
    return values


def _label_column(names: list[str], wanted: str | None, place: str) -> str | None:
    "The column that holds the classes: the one that is asked for, the usual one, or the only one named like a label."
    if wanted is not None:
        if wanted not in names:
            raise UserError(f"label_column is {wanted}, but {place} has the columns {', '.join(names)}.")
        return wanted
    for name in _LABEL_COLUMNS:
        if name in names:
            return name
    like = [name for name in names if any(word in name.lower() for word in ("label", "class", "category"))]
    if len(like) > 1:
        raise UserError(f"{place} has the columns {' and '.join(like)}: choose one with label_column.")
    return like[0] if like else None


# Files


def _find_tables(
    root: Path,
    found: _Found,
    split: str | None,
    by_folder: bool = False,
    columns: tuple[str, ...] | None = None,
    label_column: str | None = None,
) -> list[_File]:
    """The tables to take classes from: metadata.*; else the one that names the images, if folders give no classes.

    With `columns`, it is captions that are wanted, and each table must have one of these columns. With
    `label_column`, a table must have that one. The other tables are noted.
    """
    asked = columns or ((label_column,) if label_column else None)
    named, why = [table for table in found.tables if table.name.startswith("metadata.")], {}
    if found.tables and (asked or not (named or by_folder)):
        lookup = _ImageLookup(found.images + found.unused)
        why = {table: _why_unused(root, table, lookup, asked) for table in found.tables}
    fit = [table for table in found.tables if why.get(table) == ""]
    chosen = [table for table in fit if table in named] if asked else named
    chosen = chosen or _tables_of_split(found, fit, split) or (named if label_column else [])
    if len({table.folder for table in chosen}) < len(chosen):
        both = " and ".join(table.path for table in chosen[:2])
        raise UserError(
            f"data folder {root} has the tables {both}: name one of them metadata.csv, or remove one."
        )
    usual = "which is not metadata.csv" if named else "which is of another split"
    usual = "as folders give the classes" if by_folder and not chosen else usual
    rest = [table for table in found.tables if table not in chosen]
    found.notes += [f"table {table.path}, {why.get(table) or usual}" for table in rest]
    return chosen


def _tables_of_split(found: _Found, tables: list[_File], split: str | None) -> list[_File]:
    "Those of some tables that are named after the split that is used, such as train.csv; else those of no split."
    split, kinds = split or found.split, {table: _split_of(Path(table.name).stem) for table in tables}
    if split is None:
        return tables
    own = [table for table in tables if kinds[table] and kinds[table] == _split_of(split)]
    if own:
        found.split = found.split or split
    return own or [table for table in tables if not kinds[table]]


def _why_unused(root: Path, table: _File, lookup: "_ImageLookup", asked: tuple[str, ...] | None) -> str:
    "Why a table is not used, as a clause; empty if it names images and has a column that is wanted."
    rows = _read_table(root / table.path)
    first = next(rows, {})
    files = _file_column(first)
    named = table.name.startswith("metadata.")  # then a name without an image is an error
    found = lambda row: named or lookup(table.folder, str(row.get(files))) is not None  # noqa: E731
    if files is None or not any(map(found, itertools.chain([first], rows))):
        return "which names no images"
    if any(name in first for name in asked or _LABEL_COLUMNS):
        return ""
    columns = ", ".join(str(name) for name in first if name != files) or "no other column"
    if asked:
        return f"which has no column {' or '.join(asked)}, but {columns}"
    return f"which has {columns}: choose a column of classes with label_column"


def _file_column(columns) -> str | None:
    return next((name for name in _FILE_COLUMNS if name in columns), None)


def _read_table(path: Path) -> Iterator[dict]:
    "Rows of a table."
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            yield from pyarrow.parquet.read_table(path).to_pylist()
            return
        with open(path, newline="", encoding="utf-8-sig") as file:
            if path.suffix == ".jsonl":
                rows = [dict(json.loads(line)) for line in file if line.strip()]
                names = dict.fromkeys(name for row in rows for name in row)  # a row may leave some out
                yield from ({name: row.get(name) for name in names} for row in rows)
            else:
                yield from csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
    except Exception as error:  # csv, json and pyarrow raise many kinds
        why = " ".join(str(error).split())[:200].strip(".") or type(error).__name__
        raise UserError(f"table {path} cannot be read: {why}.") from None


class _ImageLookup:
    "Finds images by the names in a table: by path, else by name or by name without suffix, if only one image fits."

    def __init__(self, images: list[_File]):
        self.by_path = {image.path: i for i, image in enumerate(images)}
        self.by_name: dict[str, int | None] = {}
        for i, image in enumerate(images):
            for key in {image.name, image.name.rpartition(".")[0]}:
                self.by_name[key] = None if key in self.by_name else i

    def __call__(self, folder: tuple[str, ...], name: str) -> int | None:
        path = PurePosixPath(*folder, name.replace("\\", "/"))
        exact = self.by_path.get(str(path), self.by_path.get(name))
        return self.by_name.get(path.name) if exact is None else exact
