"""Options that are written once, and results that appear whole."""

import argparse
import inspect
import os
import re
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path


def publish(
    source: Path,  # a finished folder
    target: Path,  # where its files go
) -> None:
    "Move files into place one by one, each whole: an unfinished run replaces nothing."
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            os.replace(path, place)
    shutil.rmtree(source)


@contextmanager
def published(
    out: Path,  # where the files go, if all goes well
):
    "A hidden folder to write into; what it holds is published at the end, or thrown away after an error."
    work = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=out))
    try:
        yield work
        publish(work, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def field_help(
    cls: type,  # a dataclass with one field and its comment on each line
) -> dict[str, str]:  # field -> comment
    "The comments beside a dataclass's fields: written once, read in the source and in --help."
    pattern = r"^    (\w+): [^#\n]*#\s*(.*)$"
    return dict(re.findall(pattern, inspect.getsource(cls), flags=re.M))


def add_fields(
    parser: argparse.ArgumentParser,
    cls,  # a dataclass, or one of its kind that holds the defaults
    title: str,  # heading in --help
    skip: tuple[str, ...] = (),  # fields that are set another way
    defaults: dict | None = None,  # field -> what to tell in place of the default of `cls`
) -> None:
    "An option for each field; what is not given stays out of the namespace."
    group = parser.add_argument_group(title)
    comments = field_help(cls if isinstance(cls, type) else type(cls))
    for field in fields(cls):
        if field.name in skip:
            continue
        default = (defaults or {}).get(field.name, getattr(cls, field.name))
        text = f"{comments.get(field.name, '')} (default: {default})".replace("%", "%%")
        options = {"help": text, "default": argparse.SUPPRESS}
        if field.type is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options.update(type=parse_type(field.type), metavar=field.name.split("_")[-1].upper())
        group.add_argument("--" + field.name.replace("_", "-"), **options)


def parse_type(
    annotation,  # a field's type
):  # a function that reads it from text
    "From a type to its reader."
    for kind in (int, float, str):
        if annotation is kind or kind in getattr(annotation, "__args__", ()):
            return kind
    return str


def given(
    args: argparse.Namespace,
    cls: type,  # a dataclass
) -> dict:  # field -> value
    "The fields that the command line named."
    return {f.name: getattr(args, f.name) for f in fields(cls) if hasattr(args, f.name)}
