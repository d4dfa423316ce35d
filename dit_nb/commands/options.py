"""Command-line options made from dataclasses, and output folders in which only finished files are replaced."""

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from dit_nb.utils import _field_comments

__all__ = []


@contextmanager
def _staged_output(out: Path) -> Iterator[Path]:
    "Yield a temporary folder, whose files are moved to `out` if the block succeeds, and deleted if it fails."
    work = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=out))
    try:
        yield work
        for path in sorted(work.rglob("*")):
            target = out / path.relative_to(work)
            if path.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                os.replace(path, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _add_fields(
    parser: argparse.ArgumentParser,
    config,  # a dataclass, or an instance that holds the defaults
    title: str,  # heading in --help
    only: tuple[str, ...] | None = None,
    skip: tuple[str, ...] = (),
    defaults: dict | None = None,  # field -> default shown in --help, if it is not the one of `config`
    choices: dict | None = None,  # field -> allowed values
) -> None:
    "Add an option for each field, with its comment as help. Options that are not given stay out of the namespace."
    group = parser.add_argument_group(title)
    comments = _field_comments(config if isinstance(config, type) else type(config))
    for field in fields(config):
        name = field.name
        if name in skip or (only and name not in only):
            continue
        default = _shown({**vars(config), **(defaults or {})}[name])
        options = {"help": f"{comments.get(name, name)} (default: {default})".replace("%", "%%")}
        if field.type is bool or field.type == bool | None:
            options["action"] = argparse.BooleanOptionalAction
        elif name in (choices or {}):
            options["choices"] = choices[name]
        else:
            options.update(type=_parser_of(field.type), metavar=name.split("_")[-1].upper())
        group.add_argument("--" + name.replace("_", "-"), default=argparse.SUPPRESS, **options)


def _shown(default) -> str:
    "A default as --help shows it."
    return {"None": "none", "True": "on", "False": "off"}.get(str(default), str(default))


def _parser_of(annotation):
    "A function that reads a field's value from text; `none` is None if the field allows it."
    kinds = getattr(annotation, "__args__", (annotation,))
    kind = next((kind for kind in (int, float, str) if kind in kinds), str)

    def parse(text: str):
        return None if text.lower() == "none" and type(None) in kinds else kind(text)

    parse.__name__ = kind.__name__  # for argparse's messages
    return parse


def _given(args: argparse.Namespace, cls: type) -> dict:
    "The fields of a dataclass that were given on the command line."
    return {f.name: getattr(args, f.name) for f in fields(cls) if hasattr(args, f.name)}
