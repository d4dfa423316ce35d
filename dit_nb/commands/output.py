"""Output folders in which only finished files are replaced."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = []


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
