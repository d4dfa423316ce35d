"""Output folders in which only finished files are replaced, and what a model card says of a training."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

__all__ = []


_PACKAGES = ("dit_nb", "torch", "accelerate")  # whose versions a card tells


def _training_card(data: str, command: str) -> dict[str, str]:
    "What the model card says of the training: data, command line and versions."
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return {"data": data, "command": f"{command}  # {versions}".strip()}


@contextmanager
def _staged_output(out: Path) -> Iterator[Path]:
    "Yield a temporary folder, whose files are moved to `out` if the block succeeds, and deleted if it fails."
    for left in out.glob(".unfinished-*"):  # by a run that was killed
        shutil.rmtree(left, ignore_errors=True)
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
