"""Files of a stream on this machine: what identifies them, here and in a copy, and which of them is damaged."""

import hashlib
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor

from dit_nb.errors import UserError

__all__ = []

_EDGE = 64 * 1024  # bytes at the start and at the end of a file that belong to its fingerprint
_BLOCK = 512  # bytes of a block of a tar file


# Identity


def _files_below(folder: str, suffix: str = "") -> list[str]:
    "All files of a folder, through links, without hidden ones. Empty if there is no such folder."
    found, known = [], set()
    for place, folders, names in os.walk(os.path.realpath(folder), followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in known else [name for name in folders if not name.startswith(".")]
        if real not in known:
            found += [os.path.join(place, name) for name in names if not name.startswith(".")]
        known.add(real)
    return sorted(file for file in found if file.endswith(suffix) and os.path.isfile(file))


def _state_of(files: list[str]) -> str:
    "What identifies files on this machine as they are now: path, size and time of change of each."
    states = [(os.path.realpath(file), os.stat(file)) for file in files]
    return _short_hash([(path, state.st_size, state.st_mtime_ns) for path, state in states])


def _content_of(files: list[str]) -> str:
    "What identifies files wherever they are copied to: name, size, start and end of each."
    with ThreadPoolExecutor(16) as pool:
        return _short_hash(list(pool.map(_edges, files)))


def _edges(path: str) -> tuple[str, int, str]:
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        content = file.read(_EDGE)
        file.seek(max(0, size - _EDGE))
        return os.path.basename(path), size, hashlib.sha256(content + file.read(_EDGE)).hexdigest()


def _short_hash(*parts) -> str:
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


# Damage


def _check_shards(files: list[str], whole: bool = False) -> list[str]:
    """Raise a UserError that names the first file that is cut or damaged; return notes on doubtful ones.

    The library `datasets` passes over the rest of a tar file after a damaged header.

    Args:
        files: .tar and .parquet files; others are not checked
        whole: read Parquet files completely, and not only their description
    """
    with ThreadPoolExecutor(8) as pool:
        notes = pool.map(lambda file: _check_shard(file, whole), files)
        return [note for note in notes if note]


def _check_shard(file: str, whole: bool) -> str | None:
    kind = os.path.splitext(file)[1].lower()
    try:
        if kind == ".tar":
            return _check_tar(file)
        if kind == ".parquet":
            _check_parquet(file, whole)
    except Exception as error:  # tarfile, zlib and pyarrow raise many kinds
        why = " ".join(str(error).split())[:200].strip(".") or type(error).__name__
        raise UserError(
            f"shard {file} cannot be read: {why}; it is cut or damaged, so copy or pack it again."
        ) from None
    return None


def _check_tar(file: str) -> str | None:
    "Go from header to header: what follows the last member must be a block of zeros."
    with tarfile.open(file) as tar:
        for _ in tar:
            tar.members = []  # or else all headers stay in memory
        tar.fileobj.seek(tar.offset)
        block = tar.fileobj.read(_BLOCK)
    if any(block) or 0 < len(block) < _BLOCK:
        raise tarfile.ReadError(f"no header at byte {tar.offset:,}")
    return None if block else f"what may have followed in {os.path.basename(file)}, which has no end mark"


def _check_parquet(file: str, whole: bool) -> None:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file) as table:
        for _ in table.iter_batches(64) if whole else ():
            pass
