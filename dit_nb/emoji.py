"""The emoji data set: 3235 color pictures of 32x32 pixels in two styles, with names and categories.

Flat pictures are from Noto Emoji (Google, Apache License 2.0), 3D ones from Fluent Emoji (Microsoft, MIT license); see
NOTICE. `tools/build_emoji.py` made the packed files from two npm packages and can make them again, byte for byte.
"""

import csv
import hashlib
import io
import lzma
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
import torch

from dit_nb.data import ImageSet
from dit_nb.errors import UserError

__all__ = ["CATEGORIES", "STYLES", "Emoji", "EmojiSet", "EmojiSplit", "load_emoji"]

CATEGORIES = ("smileys", "people", "animals", "food", "travel", "activities", "objects", "symbols")
STYLES = ("flat", "3d")
_COLUMNS = ("name", "style", "category", "subcategory")
_SHA256 = {
    "emoji.npy.xz": "202c7b0c6d51db394b9da4ce1e8da81e4cd5c7bfe7dbeaaf092ca6856caad485",
    "emoji.csv": "afd9f3273a01b9f4c7c9673d23b5862253f15f43ba1375aee9ee3d70ac579181",
}
_FOLDER = files("dit_nb") / "emoji_files"


class Emoji(NamedTuple):
    "What is known of a picture."

    name: str  # Unicode name in lower case, such as "unicorn face"
    style: str  # flat or 3d
    category: str  # one of CATEGORIES
    subcategory: str  # such as face-smiling; 95 of them


@dataclass(frozen=True)
class EmojiSet(ImageSet):
    "Emoji (N, 3, 32, 32) in [-1, 1], their labels, and an entry for each."

    entries: tuple[Emoji, ...]  # N entries, in the order of the images

    def __post_init__(self):
        pass  # pictures of the package are in [-1, 1], also if the selected ones are all light

    def select(self, **values: str) -> "EmojiSet":
        """Take the emoji with the given name, style, category or subcategory, in the order of this set.

        Args:
            **values: columns and their values, such as `name="unicorn face", style="3d"`

        Raises:
            UserError: if a value does not occur in the data set, or if no emoji of this set has all of them
        """
        values = {
            k: v.lower() if isinstance(v, str) else v for k, v in values.items()
        }  # all names are lower case
        for column, value in values.items():
            _check_value(column, value)
        wanted = values.items()
        rows = [i for i, e in enumerate(self.entries) if all(getattr(e, k) == v for k, v in wanted)]
        if not rows:
            asked = ", ".join(f"{column} {value!r}" for column, value in wanted)
            raise UserError(f"{asked} selects nothing in this part of the data set: look in the other part.")
        return self._take(rows)

    def with_mirror_images(self) -> "EmojiSet":
        "Append the mirror image of each emoji that has no direction and shows no letters, to train on."
        rows = [i for i, entry in enumerate(self.entries) if _has_no_direction(entry)]
        images = torch.cat([self.images, self.images[rows].flip(-1)])
        entries = self.entries + tuple(self.entries[i] for i in rows)
        return EmojiSet(images, torch.cat([self.labels, self.labels[rows]]), self.class_names, entries)

    def _take(self, rows: list[int]) -> "EmojiSet":
        entries = tuple(self.entries[i] for i in rows)
        return EmojiSet(self.images[rows], self.labels[rows], self.class_names, entries)


# Words of names whose pictures have a direction, or show letters, numbers or a map.
_DIRECTED = set(
    "left right leftwards rightwards quarter crescent gibbous clock watch stopwatch compass musical globe map japan "
    "calendar chart letter letters mail dvd stop medal bank banknote coin money card taxi police ambulance hospital "
    "hotel store newspaper billiards slot mahjong".split()
)


def _has_no_direction(entry: Emoji) -> bool:
    if entry.category == "symbols" and entry.subcategory != "geometric":
        return False
    return _DIRECTED.isdisjoint(re.split("[ -]", entry.name))


class EmojiSplit(NamedTuple):
    "Emoji to train on, and held-out ones for evaluation."

    train: EmojiSet
    held_out: EmojiSet


def load_emoji(
    categories: Sequence[str] | None = None,
    styles: Sequence[str] | None = None,
    classes: Sequence[str] = ("category", "style"),
) -> EmojiSplit:
    """Load the emoji, as `dit_nb.data.emoji` does.

    Args:
        categories: some of `CATEGORIES`; all by default
        styles: some of `STYLES`, flat or 3d; both by default
        classes: what makes a class: some of category, style, subcategory, name

    Returns:
        emoji to train on and held-out ones, images (N, 3, 32, 32) in [-1, 1]

    Raises:
        FileNotFoundError: if a data file of the package is missing
        UserError: if a name is unknown, or a data file is damaged
    """
    categories, styles = (
        CATEGORIES if categories is None else categories,
        STYLES if styles is None else styles,
    )
    _check_values("categories", "category", categories)
    _check_values("styles", "style", styles)
    if not isinstance(classes, list | tuple) or not classes or not all(c in _COLUMNS for c in classes):
        raise UserError(f"classes is {classes!r}, but must be a list of some of {', '.join(_COLUMNS)}.")
    pixels, entries, held_out = _read_files()
    rows = [i for i, e in enumerate(entries) if e.category in categories and e.style in styles]
    images = torch.from_numpy(pixels[rows]).permute(0, 3, 1, 2).float() / 127.5 - 1  # (N, 3, 32, 32)
    names = ["-".join(getattr(entries[i], column) for column in classes) for i in rows]
    class_names = tuple(sorted(set(names), key=_class_order(entries, classes).index))
    labels = torch.tensor([class_names.index(name) for name in names])
    chosen = EmojiSet(images.contiguous(), labels, class_names, tuple(entries[i] for i in rows))
    parts = ([k for k, i in enumerate(rows) if held_out[i] == part] for part in (False, True))
    return EmojiSplit(*(chosen._take(part) for part in parts))


def _class_order(entries: tuple[Emoji, ...], classes: Sequence[str]) -> list[str]:
    "Every class name of the whole data set, in the order of the Unicode charts; flat before 3d."
    keys = {tuple(getattr(e, column) for column in classes): None for e in entries}
    if "style" in classes:
        rest = [k for k, column in enumerate(classes) if column != "style"]
        first = {tuple(key[k] for k in rest): None for key in keys}
        place = {key: i for i, key in enumerate(first)}
        style = list(classes).index("style")
        keys = sorted(keys, key=lambda key: (place[tuple(key[k] for k in rest)], STYLES.index(key[style])))
    return ["-".join(key) for key in keys]


@lru_cache(maxsize=1)
def _read_files() -> tuple[np.ndarray, tuple[Emoji, ...], tuple[bool, ...]]:
    "All pictures (N, 32, 32, 3) uint8, their entries, and whether each is held out."
    table = io.StringIO(_read_checked("emoji.csv").decode(), newline="")
    rows = list(csv.DictReader(table))
    entries = tuple(Emoji(*(row[column] for column in _COLUMNS)) for row in rows)
    pixels = np.load(io.BytesIO(lzma.decompress(_read_checked("emoji.npy.xz"))), allow_pickle=False)
    return pixels, entries, tuple(row["split"] == "held_out" for row in rows)


def _read_checked(name: str) -> bytes:
    "Content of a packed file, if it is the one that this version was made with."
    path = _FOLDER / name
    if not path.is_file():
        raise FileNotFoundError(f"data file {path} is missing: install dit_nb again.")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != _SHA256[name]:
        raise UserError(f"data file {path} is damaged (its SHA-256 differs): install dit_nb again.")
    return content


def _check_values(argument: str, column: str, chosen: Sequence[str]) -> None:
    if not isinstance(chosen, list | tuple) or not chosen:
        raise UserError(f"{argument} is {chosen!r}, but must be a list of names, at least one.")
    for value in chosen:
        _check_value(column, value)


def _check_value(column: str, value: str) -> None:
    "Raise a UserError that lists near matches if a value does not occur in a column."
    if column not in _COLUMNS:
        raise UserError(f"{column} is no column of the data set; the columns are {', '.join(_COLUMNS)}.")
    known = list({getattr(entry, column): None for entry in _read_files()[1]})
    if value in known:
        return
    near, few = _near_matches(str(value), known) or known[:5], len(known) <= 10
    wanted = f"one of {', '.join(known)}" if few else f"a {column} of the data set, such as {', '.join(near)}"
    raise UserError(f"{column} is {value!r}, but must be {wanted}.")


def _near_matches(value: str, known: list[str], limit: int = 5) -> list[str]:
    "Names that contain the value, then names that are spelled alike, then names with a word that is."
    value = value.lower()
    inside, alike = [name for name in known if value in name], get_close_matches(value, known, n=limit)
    words = get_close_matches(value, {word for name in known for word in re.split("[ -]", name)})
    by_word = [name for name in known if set(words) & set(re.split("[ -]", name))]
    return list(dict.fromkeys(inside + alike + by_word))[:limit]
