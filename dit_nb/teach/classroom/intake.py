"""Submissions taken in: folders, and the downloads of Moodle and Canvas."""

import os
import re
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dit_nb.errors import UserError
from dit_nb.teach.classroom.assignments import assignments

__all__ = []

_NOTEBOOK = re.compile(r"\.ipynb(\.txt|\.json)?$", re.IGNORECASE)
_JUNK = re.compile(r"(\.|__|~\$)|(thumbs\.db|desktop\.ini)$", re.IGNORECASE)
_MOODLE = re.compile(
    r"(?P<name>.+?)_(?P<number>\d+)_assignsubmission_(?P<kind>file|onlinetext)_?(?P<file>.*)"
)
_CANVAS = re.compile(r"(?P<name>[^_]+)(?P<late>_LATE)?_(?P<number>\d+)_(?P<attempt>\d+)_(?P<file>.+)")
_ATTEMPT = re.compile(r"-(\d+)(?=\.[A-Za-z]+(\.txt)?$)")
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ArithmeticError,
    ValueError,
    RuntimeError,
    OSError,
)
_MAX_BYTES = 2**29  # of one file in a download, unpacked


@dataclass
class _Received:
    """What one student submitted."""

    key: str  # name of the student, as the folder or the platform has it
    number: str = ""  # number of the student on the platform: Moodle's participant, Canvas's user
    origin: str = ""  # folder, or start of the file names, in the download
    late: bool = False  # whether the platform says so
    files: list[Path] = field(default_factory=list)
    root: Path = Path(".")  # folder to which the names of the files are relative
    attempts: dict[Path, tuple[int, ...]] = field(default_factory=dict)  # file -> number of the attempt


def _receive(source: Path, kind: str, name: str, scratch: Path) -> list[_Received]:
    """Return what each student submitted, in the order of their names.

    Args:
        source: folder of the class, or a zip file
        kind: folder, moodle or canvas: how the files are named
        name: the assignment, such as a1
        scratch: folder to unpack to

    Raises:
        UserError: if there is no such folder or zip file, or no file is named as the platform names them
    """
    packed = not source.is_dir()
    if packed:
        source = _unpack(source, scratch / "in")
    if kind == "folder":
        found = _from_folder(_class_folder(source) if packed else source, name)
    else:
        found = (_from_moodle if kind == "moodle" else _from_canvas)(_with_files(source, kind))
        if not found and any(source.iterdir()):
            raise UserError(
                f"submissions is {source.name}, but must be a download of {kind.title()}: no file has such a name."
            )
    for i, one in enumerate(found.values()):
        _unpack_nested(one, scratch / f"zip{i}")
    return [found[key] for key in sorted(found)]


def _unpack(path: Path, into: Path) -> Path:
    """Unpack a zip file, with the times of its files; names cannot lead out of the folder."""
    if not path.exists():
        raise UserError(f"submissions is {path}, but there is no such folder or zip file.")
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                parts = [
                    p for p in PurePosixPath(entry.filename.replace("\\", "/")).parts if p not in ("/", "..")
                ]
                if entry.is_dir() or not parts or any(_JUNK.match(part) for part in parts):
                    continue
                if entry.file_size > _MAX_BYTES:
                    continue
                target = into.joinpath(*parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(entry))
                when = time.mktime((*entry.date_time, 0, 0, -1))
                os.utime(target, (when, when))
    except _DAMAGED as error:
        raise UserError(f"submissions is {path}, but must be a folder or a zip file ({error}).") from None
    into.mkdir(parents=True, exist_ok=True)
    return into


def _unpack_nested(one: _Received, into: Path) -> None:
    """Unpack the zip file of a student who submitted one instead of a notebook."""
    zips = [path for path in one.files if path.suffix.lower() == ".zip"]
    if len(zips) != 1 or any(_NOTEBOOK.search(path.name) for path in one.files):
        return
    try:
        inside = _unpack(zips[0], into)
    except UserError:
        return
    one.root, one.files = inside, [*_files(inside)]


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder, and those below, without what no student submitted."""
    for path in sorted(folder.iterdir()):
        if _JUNK.match(path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _files(path)
        elif path.is_file():
            yield path


def _class_folder(folder: Path) -> Path:
    """Return the folder of the class: that of the zip file may hold it as its only entry."""
    inside = [path for path in folder.iterdir() if not _JUNK.match(path.name)]
    if len(inside) == 1 and inside[0].is_dir():
        below = [path for path in inside[0].iterdir() if not _JUNK.match(path.name)]
        folders = [path for path in below if path.is_dir() and path.name not in assignments()]
        if folders or sum(bool(_NOTEBOOK.search(path.name)) for path in below) > 1:
            return inside[0]
    return folder


def _from_folder(folder: Path, name: str) -> dict[str, _Received]:
    """Read a folder with a notebook or a folder for each student."""
    found: dict[str, _Received] = {}

    def add(key: str, root: Path, files: list[Path]) -> None:
        one = found.setdefault(key, _Received(key, root=root, origin=key))
        one.root = one.root if root.is_relative_to(one.root) else root
        one.files += files

    loose = []
    for path in sorted(folder.iterdir()):
        if _JUNK.match(path.name):
            continue
        if path.is_dir():
            own = path / name
            if own.is_dir():
                add(path.name, own, [*_files(own)])
            elif not any((path / other).is_dir() for other in assignments()):
                add(path.name, path, [*_files(path)])
        elif path.suffix.lower() != ".csv":
            loose.append(path)
    for path in sorted(loose, key=lambda path: not _NOTEBOOK.search(path.name)):
        student = _student_of(path.name, name)
        if student:
            add(student, folder, [path])
    return found


def _student_of(file: str, name: str) -> str:
    """Return the student of a file such as anna_a1.ipynb; empty if it is of another assignment."""
    stem = _NOTEBOOK.sub("", file) if _NOTEBOOK.search(file) else PurePosixPath(file).stem
    part = re.fullmatch(r"(?P<a>.*?)(?:[-_ .]+(?P<b>[^-_ .]+?)(?:[ _-]?\(\d+\)|-\d+)?)?", stem)
    first, last = re.split(r"[-_ .]", stem, maxsplit=1)[0], part["b"] if part else None
    for other in assignments():
        if stem.lower() != other and other in ((last or "").lower(), first.lower()):
            if other != name:
                return ""
            rest = part["a"] if last and last.lower() == other else re.split(r"[-_ .]+", stem, maxsplit=1)[1]
            return rest if re.search(r"[^\W\d_]", rest) else stem
    return stem


def _with_files(folder: Path, kind: str) -> list[Path]:
    """Return the entries of a download, which may lie one folder deeper."""
    pattern = _MOODLE if kind == "moodle" else _CANVAS
    inside = [path for path in sorted(folder.iterdir()) if not _JUNK.match(path.name)]
    if len(inside) == 1 and inside[0].is_dir() and not pattern.fullmatch(inside[0].name):
        return _with_files(inside[0], kind)
    return inside


def _from_moodle(entries: list[Path]) -> dict[str, _Received]:
    """Read folders `First Last_12345_assignsubmission_file_`, or files whose names begin so."""
    found: dict[tuple[str, str], _Received] = {}
    for path in entries:
        parts = _MOODLE.fullmatch(path.name)
        if not parts:
            continue
        one = found.setdefault((parts["name"], parts["number"]), _Received(parts["name"], parts["number"]))
        if parts["kind"] == "onlinetext":
            continue
        one.origin = path.name.removesuffix(parts["file"]) if parts["file"] else path.name
        one.root = path if path.is_dir() else path.parent
        one.files += [*_files(path)] if path.is_dir() else [path]
    names = [name for name, _ in found]
    for (name, number), one in found.items():
        one.key = name if names.count(name) == 1 else f"{name} ({number})"
        one.origin = one.origin or f"{name}_{number}_assignsubmission_file_"
    return {one.key: one for one in found.values()}


def _from_canvas(entries: list[Path]) -> dict[str, _Received]:
    """Read files `lastfirst_USER_ATTEMPT_a1-1.ipynb`, some with LATE."""
    found: dict[str, _Received] = {}
    for path in entries:
        parts = _CANVAS.fullmatch(path.name)
        if not parts or not path.is_file():
            continue
        key = f"{parts['name']} {parts['number']}"
        one = found.setdefault(key, _Received(key, parts["number"], root=path.parent))
        one.origin = f"{parts['name']}_{parts['number']}"
        one.late = one.late or bool(parts["late"])
        one.files.append(path)
        again = _ATTEMPT.search(parts["file"])
        one.attempts[path] = (int(parts["attempt"]), int(again[1]) if again else 0)
    return found
