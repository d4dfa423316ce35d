"""Splits: what the names of folders, shards and cells of a table mean, such as train or val, and which are used."""

import re

from dit_nb.errors import UserError

__all__ = []

_SPLITS = dict.fromkeys(("train", "training", "trn"), "train")
_SPLITS |= dict.fromkeys(("test", "tests", "testing", "tst", "holdout", "heldout"), "test")
_SPLITS |= dict.fromkeys(
    ("val", "vals", "valid", "validation", "validate", "dev", "eval", "evaluation"), "validation"
)
_SPLITS |= dict.fromkeys(("unlabeled", "unlabelled"), "unlabeled")
_SHORT = {"Tr": "train", "Ts": "test", "Te": "test", "Va": "validation"}  # of imagesTr, imagesTs
_FILLERS = ("dataset", "images", "image", "split", "imgs", "data", "img", "set")  # of train_set, valimages
_MANY = (
    8  # so many folders are classes, even if the name of one of them, such as test tube, looks like a split
)


# Names


def _split_of(name: str) -> str | None:
    """The split that a name looks like: train, test, validation, unlabeled; or None.

    In any spelling, alone or beside other words: Train, val2017, testimages, trainval, seg_train, hold-out, imagesTr.
    """
    kinds = {_SPLITS[part] for word in _words(name) for part in _parts(word) if part in _SPLITS}
    if short := re.search(r"[a-z](Tr|Ts|Te|Va)\d*$", name):
        kinds.add(_SHORT[short[1]])
    return next((kind for kind in ("unlabeled", "train", "test", "validation") if kind in kinds), None)


def _is_split_alone(name: str) -> bool:
    "Whether a name holds no other words than those of a split: train_images, but not bullet_train."
    return _split_of(name) is not None and all(map(_parts, _words(name)))


def _words(name: str) -> list[str]:
    text = re.sub("(?<=[a-z])(?=[A-Z])", " ", name).lower()
    return re.findall(r"[^\W\d_]+", re.sub(r"(held|hold)[\W_]*out", "holdout", text))


def _parts(word: str) -> list[str]:
    "The parts of a word such as trainset, if it consists of words of splits and fillers; otherwise nothing."
    for part in (*_SPLITS, *_FILLERS):
        rest = word.removeprefix(part)
        if rest != word and (not rest or _parts(rest)):
            return [part, *_parts(rest)] if rest else [part]
    return []


# Choice


def _same_split(name: str, split: str) -> bool:
    return name.lower() == split.lower() or (_split_of(name) or "") == _split_of(split)


def _is_clear(names: list[str]) -> bool:
    "Whether one name looks like training, and all others like other splits."
    kinds = [_split_of(name) for name in {name.lower(): name for name in names}.values()]
    return None not in kinds and kinds.count("train") == 1


def _may_be_classes(names: list[str]) -> bool:
    "Whether names that are no clear splits may be classes: not if two of them are nothing but different splits."
    return not _is_clear(names) and len({_split_of(name) for name in names if _is_split_alone(name)}) < 2


def _are_classes(names: list[str]) -> bool:
    "Whether names are classes although a few of them look like splits: because there are so many."
    others = [name for name in names if _split_of(name) is None]
    few = len(names) - len(others)
    return _may_be_classes(names) and len(others) >= max(_MANY, 4 * few)


def _names_of_split(
    place: str,
    names: list[str],
    split: str | None,
    what: str = "folder",
    hint: str = "",
    several: bool = False,
) -> list[str]:
    """The names to use: those of the split that is asked for, of train, or the only one.

    Args:
        place: what has these names, for messages
        names: names of folders, shards or cells, sorted
        split: the split that is asked for; None: train, if it is clear
        what: folder, shard or value, for messages
        hint: how else to choose, for messages
        several: whether several names may be used for a split that is asked for
    """
    if split is None:
        _check_names_of_splits(place, names, what, hint)
        chosen = [name for name in names if _split_of(name) == "train"]
        chosen = chosen or (names if len(set(map(_split_of, names))) == 1 else [])
    else:
        same = [name for name in names if name.lower() == split.lower()]
        chosen = [name for name in same if name == split] or same
        chosen = chosen or [name for name in names if _same_split(name, split)]
    if not chosen:
        raise UserError(f"{place} has no split {split or 'train'}: choose one with split, of {_list(names)}.")
    if len({name.lower() for name in chosen}) > 1 and not (several and split):
        raise UserError(
            f"{place} has the {what}s {_list(chosen, ' and ')} for one split: choose one with split{hint}."
        )
    return chosen


def _check_names_of_splits(place: str, names: list[str], what: str, hint: str) -> None:
    like, others = ([name for name in names if (_split_of(name) is None) == kind] for kind in (False, True))
    if like and others:
        looks, s = ("looks like a split", "") if len(like) == 1 else ("look like splits", "s")
        seen = f"{place} has the {what}{s} {_list(like, ' and ')}, which {looks}"
        does = "does" if len(others) == 1 else "do"
        raise UserError(
            f"{seen}, beside {_list(others, ' and ')}, which {does} not: choose one with split{hint}."
        )


def _list(names: list[str], last: str = ", ") -> str:
    "Up to four names, for a message."
    if len(names) > 4:
        return f"{', '.join(names[:3])} and {len(names) - 3} more"
    return last.join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


# Levels of folders


def _split_level(folders: set[tuple[str, ...]], split: str | None, rule: str | None) -> int | None:
    "The first level of folders some of which look like splits, and are no classes; None if there is none."
    levels = range(max(map(len, folders)))
    found = [level for level in levels if _has_splits(folders, level, rule, split)]
    if split is None:
        return next(iter(found), None)
    asked = [n for n in levels if any(_same_split(folder[n], split) for folder in folders if len(folder) > n)]
    return next(iter([n for n in asked if n in found] or asked or found), None)


def _has_splits(folders: set[tuple[str, ...]], level: int, rule: str | None, split: str | None) -> bool:
    "Whether the folders at a level are splits, or unclear."
    names = sorted({folder[level] for folder in folders if len(folder) > level})
    like = [name for name in names if _split_of(name)]
    if len(names) == 1:
        return all(map(_is_split_alone, names)) and all(len(folder) > level for folder in folders)
    with_split = {folder[:level] for folder in folders if folder[level : level + 1] and folder[level] in like}
    if not like or with_split != {folder[:level] for folder in folders}:  # classes have the same splits
        return False
    named = split is None and _names_class(rule, level, folders)
    return not (_are_classes(names) or (named and _may_be_classes(names)))


def _names_class(rule: str | None, level: int, folders: set[tuple[str, ...]]) -> bool:
    "Whether the folders at a level are part of the class by the rule that was asked for."
    if rule == "first":
        return len({folder[:level] for folder in folders}) == 1
    return rule == "path" or (rule == "last" and {len(folder) for folder in folders} == {level + 1})
