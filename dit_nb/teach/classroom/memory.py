"""What a course remembers beside nbgrader's gradebook: marks given by hand with their text, reports, a lock."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dit_nb.errors import UserError
from dit_nb.utils import _atomic_write

__all__ = []


@contextmanager
def _locked(course: Path) -> Iterator[None]:
    """Keep other graders out of a course.

    Raises:
        UserError: if another one is at work
    """
    from filelock import FileLock, Timeout

    folder = course / ".grading"
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"course is {course}, which another dit-nb grades at this moment: wait until it has ended."
        ) from None
    try:
        for old in folder.glob("run-*"):  # of a grader that was killed
            shutil.rmtree(old, ignore_errors=True)
        yield
    finally:
        lock.release()


def _read_memory(course: Path, name: str) -> dict:
    """Return what is remembered of an assignment: student -> marks, points, reports, notes, trees."""
    path = course / ".grading" / f"{name}.json"
    try:
        memory = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    whole = isinstance(memory, dict) and all(isinstance(own, dict) for own in memory.values())
    return memory if whole else {}


def _write_memory(course: Path, name: str, memory: dict) -> None:
    with _atomic_write(course / ".grading" / f"{name}.json") as draft:
        draft.write_text(json.dumps(memory, indent=1, ensure_ascii=False, sort_keys=True), encoding="utf-8")
