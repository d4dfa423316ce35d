"""Captions of images: a column of a table or of a data set of the Hub, or a text file beside each image."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dit_nb.errors import UserError, _shown
from dit_nb.image_folders import _Found
from dit_nb.image_rows import _values_by_table
from dit_nb.image_tables import _find_tables

__all__ = []

_CAPTION_COLUMNS = ("text", "caption", "captions", "prompt")


def _captions_of_each(
    root: Path, found: _Found, split: str | None, column: str | None
) -> tuple[list[str], str]:
    """Caption of each image, and where it was found. Images without one are left out and noted.

    Args:
        root: the folder
        found: its files; the images that have a caption are kept
        split: name of the split, by which a table may be named
        column: column of the table; by default one of _CAPTION_COLUMNS
    """
    columns = _CAPTION_COLUMNS if column is None else (column,)
    tables = _find_tables(root, found, split, columns=columns)
    if tables:
        pick = lambda names, _: next((name for name in columns if name in names), None)  # noqa: E731
        captions = _values_by_table(root, tables, found, pick, _read_cell, split) or []
        return _keep_captioned(root, found, captions), tables[0].path
    if column is not None:
        raise UserError(
            f"captions is {column}, but data folder {root} has no table with the columns "
            f"file_name and {column}."
        )
    return _keep_captioned(root, found, _captions_by_file(root, found)), "text files"


def _captions_of_rows(
    rows, place: str, column: str | None
) -> tuple:  # datasets.Dataset, column, captions, notes
    "The rows of a data set of Hugging Face that have a caption, its column, the captions, what was left out."
    columns = _CAPTION_COLUMNS if column is None else (column,)
    column = next((name for name in columns if name in rows.features), None)
    if column is None:
        raise UserError(
            f"{place} has the columns {', '.join(rows.features)}, but must have one for captions: "
            f"{', '.join(columns)}."
        )
    captions = [_read_cell({column: value}, column, place) for value in rows[column][:]]
    kept = [i for i, text in enumerate(captions) if text]
    if not kept:
        raise UserError(f"{place} has no captions in the column {column}, but must have some.")
    notes = (f"{len(rows) - len(kept):,} images without a caption",) if len(kept) < len(rows) else ()
    return rows.select(kept), column, tuple(captions[i] for i in kept), notes


def _read_cell(row: dict, column: str, table: str) -> str | None:
    "The caption in a row of a table; None if it is missing or blank."
    value = row.get(column)
    if any(row.get(None) or ()):  # what csv.DictReader has left over
        raise UserError(
            f"{table} has a row with more fields than columns, after {_shown(value)}: "
            "put texts with commas in quotes."
        )
    if value is None or value != value:  # NaN, of Parquet
        return None
    if not isinstance(value, str):
        raise UserError(f"{table} has the caption {_shown(value)}, but must have one text for each image.")
    return " ".join(value.split()) or None


def _captions_by_file(root: Path, found: _Found) -> list[str | None]:
    "The text of a.txt for each image a.png, None without such a file. These are no other files any more."
    files = [Path(root, *image.folder, image.name).with_suffix(".txt") for image in found.images]
    with ThreadPoolExecutor(16) as pool:
        captions = list(pool.map(_read_text, files))
    found.others.subtract({".txt": len({file for file, text in zip(files, captions) if text is not None})})
    found.others = +found.others  # without counts of zero
    return captions


def _read_text(file: Path) -> str | None:
    "The text of a file, in one line; None if there is no such file."
    try:
        return " ".join(file.read_text(encoding="utf-8-sig").split())
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise UserError(f"caption file {file} cannot be read: it must be text in UTF-8.") from None
    except OSError as error:
        raise UserError(f"caption file {file} cannot be read: {error.strerror}.") from None


def _keep_captioned(root: Path, found: _Found, captions: list[str | None]) -> list[str]:
    "The captions of the images that have one; the others are left out and noted."
    bare = [image for image, text in zip(found.images, captions) if not text]
    if len(bare) == len(captions):
        raise UserError(
            f"data folder {root} has no captions: add a table metadata.csv with the columns file_name "
            "and text, or a text file beside each image, such as cat.txt beside cat.png."
        )
    if bare:
        found.notes.append(f"{len(bare):,} images without a caption, such as {bare[0].path}")
    found.images = [image for image, text in zip(found.images, captions) if text]
    return [text for text in captions if text]
