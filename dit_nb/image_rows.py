"""Rows of tables and their images: the class or caption of each image, and the split by a column."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from dit_nb.errors import UserError
from dit_nb.image_folders import _File, _Found
from dit_nb.image_splits import _names_of_split, _split_of
from dit_nb.image_tables import _file_column, _ImageLookup, _label_column, _read_table

__all__ = []

_SPLIT_COLUMNS = ("split", "subset", "partition", "set", "phase", "usage")


def _classes_by_table(
    root: Path, tables: list[_File], found: _Found, column: str | None, split: str | None = None
) -> list | None:
    "Class of each image by tables, None without such a column."
    pick = lambda names, table: _label_column(names, column, table)  # noqa: E731
    return _values_by_table(root, tables, found, pick, lambda row, label, _: row.get(label), split)


def _values_by_table(
    root: Path,
    tables: list[_File],
    found: _Found,
    pick: Callable[[list[str], str], str | None],
    read: Callable[[dict, str, str], object],
    split: str | None = None,
) -> list | None:
    """Class or caption of each image by tables, None without such a column.

    Images without a row are left out and noted. A row whose image is missing stays as an image of size -1, which the
    check names; one whose image belongs to another split is passed over.

    Args:
        root: the folder
        tables: tables in it
        found: its files; the images that have a row are kept
        pick: function of the columns' names and the name of the table: the column to read, or None
        read: function of a row, that column and the name of the table: the value
        split: the split that is asked for, by which rows are chosen if the table has a column split
    """
    placed, has_values, by_column = _Placed(found), False, found.split is None
    for table in tables:
        rows, place = list(_read_table(root / table.path)), f"table {root / table.path}"
        columns = list(rows[0]) if rows else []
        if (files := _file_column(columns)) is None:
            has = f"the columns {', '.join(map(str, columns))}" if rows else "no rows"
            raise UserError(f"{place} has {has}, but must have file_name, for the images.")
        label = pick([name for name in columns if name != files], place)
        has_values = has_values or label is not None
        of_split = _split_column(rows, (files, label)) if by_column else None
        _note_columns(found, table, [c for c in columns if c not in (files, label, of_split)], label)
        if any(files not in row for row in rows):
            raise UserError(f"{place} has a row without {files}.")
        if of_split is not None:
            placed.passed |= {placed.lookup(table.folder, str(row[files])) for row in rows}
            rows = _rows_of_split(rows, of_split, root, table, found, split or found.split)
        for row in rows:
            placed.add(table, str(row[files]), None if label is None else read(row, label, place), place)
    values = placed.keep(tables[0].path)
    return values if has_values else None


def _note_columns(found: _Found, table: _File, unused: list[str], label: str | None) -> None:
    if unused:
        without = "" if label else ", so that there are no classes"
        found.notes.append(f"columns {', '.join(map(str, unused))} of {table.path}{without}")


# Rows and images


class _Placed:
    "Images that have a row, with the value of each; and those whose rows are of another split."

    def __init__(self, found: _Found):
        self.found, self.values, self.passed, self.missing = found, {}, set(), []
        self.lookup, self.unused = _ImageLookup(found.images), _ImageLookup(found.unused)

    def add(self, table: _File, name: str, value, place: str) -> None:
        "Give an image its value. A row whose image lies in another split is passed over."
        i = self.lookup(table.folder, name)
        if i is None:
            if self.unused(table.folder, name) is not None:
                return
            i = len(self.found.images) + len(self.missing)
            self.missing.append(_File(table.folder, name, -1, 0))
        if i in self.values:
            raise UserError(f"{place} names {name} twice, but must name it once.")
        self.values[i] = value

    def keep(self, table: str) -> list:
        "Keep the images that have a row, and the rows that have no image; return their values."
        images = self.found.images
        bare = [i for i in range(len(images)) if i not in self.values and i not in self.passed]
        if bare:
            self.found.notes.append(
                f"{len(bare):,} images without a row in {table}, such as {images[bare[0]].path}"
            )
        images = images + self.missing
        kept = sorted(self.values)
        self.found.images = [images[i] for i in kept]
        return [self.values[i] for i in kept]


# Splits by a column


def _split_column(rows: list[dict], used: tuple[str | None, ...]) -> str | None:
    "The column that tells the split of each row: split; or subset and the like, if all its values are splits."
    names = {str(name).lower(): name for name in next(iter(rows), {}) if name not in used}
    for name in _SPLIT_COLUMNS:
        values = {str(row.get(names[name])) for row in rows} if name in names else set()
        if values and (name == "split" or all(map(_split_of, values))):
            return names[name]
    return None


def _rows_of_split(
    rows: list[dict], column: str, root: Path, table: _File, found: _Found, split: str | None
) -> list[dict]:
    "The rows of the split that is asked for, or of train; the number of the others is noted."
    counts = Counter(str(row.get(column)) for row in rows)
    place = f"column {column} of table {root / table.path}"
    names = _names_of_split(place, sorted(counts), split, "value")
    found.split = found.split or names[0]
    rest = [name for name in sorted(counts) if name not in names]
    found.notes += [f"{counts[name]:,} rows of {table.path}, {column} {name}" for name in rest]
    return [row for row in rows if str(row.get(column)) in names]
