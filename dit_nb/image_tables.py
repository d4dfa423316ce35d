"""Tables of images: metadata.csv and the like in a folder, and the classes or captions in a column."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from dit_nb.errors import UserError
from dit_nb.image_folders import _File, _Found, _split_of

__all__ = []

_FILE_COLUMNS = ("file_name", "filename", "file", "image", "image_path", "path", "img", "image_id", "id")
_LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target")


# Classes


def _number_classes(values: list) -> tuple[list[int], tuple[str, ...]]:
    "Labels and class names, in alphabetical or numerical order, from the class of each image."
    if missing := [i for i, value in enumerate(values) if value is None or value != value or value == ""]:
        raise UserError(f"label of image {missing[0]} is missing, but either all images need one, or none.")
    kinds = {type(value) for value in values}
    if odd := [value for value in values if not isinstance(value, str | int | float)]:
        raise UserError(
            f"label {odd[0]!r} is a {type(odd[0]).__name__}, but must be one class for each image."
        )
    if kinds == {str}:
        values = _as_numbers(values)
    elif str in kinds:
        values = [str(value) for value in values]
    if fractions := [value for value in values if isinstance(value, float) and not value.is_integer()]:
        raise UserError(
            f"label {fractions[0]:g} is a fraction, but labels must be classes: names or integers."
        )
    values = [int(value) if isinstance(value, float) else value for value in values]
    names = sorted(set(values))
    number = {name: k for k, name in enumerate(names)}
    return [number[value] for value in values], tuple(str(name) for name in names)


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
) -> list[_File]:
    """The tables to take classes from: metadata.*; else the one that names the images, if folders give no classes.

    With `columns`, it is captions that are wanted, and each table must have one of these columns. The other
    tables are noted.
    """
    named = [table for table in found.tables if table.name.startswith("metadata.")]
    if columns is not None:
        named = [table for table in named if _names_images(root, table, columns)]
    chosen = named
    if not named and not by_folder:
        chosen = [table for table in found.tables if _names_images(root, table, columns or _LABEL_COLUMNS)]
        own = [table for table in chosen if split and _split_of(Path(table.name).stem) == _split_of(split)]
        chosen = own or [table for table in chosen if split is None or not _split_of(Path(table.name).stem)]
    if len({table.folder for table in chosen}) < len(chosen):
        both = " and ".join(table.path for table in chosen[:2])
        raise UserError(
            f"data folder {root} has the tables {both}: name one of them metadata.csv, or remove one."
        )
    why = "which names no images" if columns is None else "which has no captions of images"
    why = "which is not metadata.csv" if by_folder or named else why
    found.notes += [f"table {table.path}, {why}" for table in found.tables if table not in chosen]
    return chosen


def _names_images(root: Path, table: _File, wanted: tuple[str, ...]) -> bool:
    "Whether a table has a column of file names, and one of those that are wanted: classes, or captions."
    columns = next(iter(_read_table(root / table.path)), {})
    return _file_column(columns) is not None and any(name in columns for name in wanted)


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
    except (OSError, TypeError, ValueError, RecursionError, csv.Error) as error:
        raise UserError(f"table {path} cannot be read: {' '.join(str(error).split()).strip('.')}.") from None


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


def _classes_by_table(root: Path, tables: list[_File], found: _Found, column: str | None) -> list | None:
    "Class of each image by tables, None without such a column."
    pick = lambda names, table: _label_column(names, column, table)  # noqa: E731
    return _values_by_table(root, tables, found, pick, lambda row, label, _: row.get(label))


def _values_by_table(
    root: Path,
    tables: list[_File],
    found: _Found,
    pick: Callable[[list[str], str], str | None],
    read: Callable[[dict, str, str], object],
) -> list | None:
    """Class or caption of each image by tables, None without such a column.

    Images without a row are left out and noted. A row whose image is missing stays as an image of size -1, which the check names.

    Args:
        root: the folder
        tables: tables in it
        found: its files; the images that have a row are kept
        pick: function of the columns' names and the name of the table: the column to read, or None
        read: function of a row, that column and the name of the table: the value
    """
    lookup, labels, missing = _ImageLookup(found.images), {}, []
    has_values = False
    for table in tables:
        rows = list(_read_table(root / table.path))
        columns = list(rows[0]) if rows else []
        if (files := _file_column(columns)) is None:
            has = f"the columns {', '.join(map(str, columns))}" if rows else "no rows"
            raise UserError(f"table {root / table.path} has {has}, but must have file_name, for the images.")
        place = f"table {root / table.path}"
        label = pick([name for name in columns if name != files], place)
        has_values = has_values or label is not None
        _note_columns(found, table, [name for name in columns if name not in (files, label)], label)
        for row in rows:
            if files not in row:
                raise UserError(f"table {root / table.path} has a row without {files}.")
            i = lookup(table.folder, str(row[files]))
            if i is None:
                i = len(found.images) + len(missing)
                missing.append(_File(table.folder, str(row[files]), -1, 0))
            if i in labels:
                raise UserError(f"table {root / table.path} names {row[files]} twice, but must name it once.")
            labels[i] = None if label is None else read(row, label, place)
    _keep_rows(found, missing, labels, tables[0].path)
    return [labels[i] for i in sorted(labels)] if has_values else None


def _note_columns(found: _Found, table: _File, unused: list[str], label: str | None) -> None:
    if unused:
        without = "" if label else ", so that there are no classes"
        found.notes.append(f"columns {', '.join(map(str, unused))} of {table.path}{without}")


def _keep_rows(found: _Found, missing: list[_File], labels: dict, table: str) -> None:
    "Keep the images that have a row, and the rows that have no image."
    bare = [i for i in range(len(found.images)) if i not in labels]
    if bare:
        found.notes.append(
            f"{len(bare):,} images without a row in {table}, such as {found.images[bare[0]].path}"
        )
    images = found.images + missing
    found.images = [images[i] for i in sorted(labels)]
