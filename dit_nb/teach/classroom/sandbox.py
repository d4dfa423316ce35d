"""A sandbox for each kernel, and for the command that grades: no network, no home folder; Linux with bubblewrap."""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from dit_nb.errors import UserError

__all__ = []

_INSIDE = "DIT_NB_SANDBOX"  # set in the environment of a command that runs in a sandbox
_START = "import sys; from dit_nb.cli import main; sys.exit(main(sys.argv[1:]))"
_PROCESSES = 300  # processes and threads of a notebook
_SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/lib32", "/sbin", "/etc/ld.so.cache", "/etc/alternatives")
_SYSTEM += ("/etc/fonts", "/etc/localtime", "/etc/ssl", "/sys/devices/system/cpu")
# What programs need of the environment on Linux, macOS and Windows.
_NEEDED = {"PATH", "HOME", "TMPDIR", "TEMP", "TMP", "TZ", "LANG", "LANGUAGE", "MPLCONFIGDIR", "VIRTUAL_ENV"}
_NEEDED |= {
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONUTF8",
    "LD_LIBRARY_PATH",
    "CONDA_PREFIX",
    "CUDA_VISIBLE_DEVICES",
}
_NEEDED |= {"SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "USERPROFILE", "APPDATA"}
_NEEDED |= {"LOCALAPPDATA", "PROGRAMDATA", "NUMBER_OF_PROCESSORS"}
_PREFIXES = ("LC_", "DYLD_", "OMP_", "MKL_", "KMP_", "OPENBLAS_")


def _needed_environment() -> dict[str, str]:
    """Return what a program needs of the environment, without the rest, which may be secret."""
    return {k: v for k, v in os.environ.items() if k.upper() in _NEEDED or k.startswith(_PREFIXES)}


def _sandbox_command(folder: Path) -> list[str]:
    """Return the start of a command that runs in a sandbox: it can write to a folder, and read Python alone.

    The environment must be that of `_needed_environment`: what bubblewrap is given can be read in the sandbox.
    """
    return [
        *("bwrap", "--tmpfs", "/tmp", "--tmpfs", "/home/student", *_readable(), "--proc", "/proc"),
        *("--bind", str(folder), str(folder), "--chdir", str(folder)),
        *("--setenv", "HOME", "/home/student", "--setenv", "TMPDIR", "/tmp", "--unsetenv", "JPY_PARENT_PID"),
        *("--unshare-all", "--die-with-parent", "--new-session", "--hostname", "sandbox"),
    ]


def _readable() -> list[str]:
    """Return options that give a sandbox what Python needs: system, Python, its packages, and this package.

    Empty folders must come first: Python itself may lie in one of them.
    """
    package = importlib.util.find_spec("dit_nb")
    ours = [str(Path(package.origin).parent)] if package and package.origin else []
    python = {sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parents[1])}
    python |= {path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")}
    paths = [*_SYSTEM, *sorted(python - {"/usr", "/"}), *ours]
    binds = [word for path in paths for word in ("--ro-bind-try", path, path)]
    return [*binds, "--dev", "/dev"]


def _max_processes() -> int:
    """Return the limit of processes: since version 5.14, Linux counts those of a sandbox apart from the user's."""
    version = [int(part) for part in re.findall(r"\d+", platform.release())[:2]]
    return _PROCESSES + (0 if version >= [5, 14] else _threads_of_user())


def _threads_of_user() -> int:
    """Return the number of threads that this user has."""
    count = 0
    for tasks in Path("/proc").glob("[0-9]*/task"):
        try:
            count += len(os.listdir(tasks)) if tasks.stat().st_uid == os.getuid() else 0
        except OSError:  # it has ended
            continue
    return count


def _check_sandbox() -> None:
    """Raise a UserError if there is no sandbox on this machine."""
    if shutil.which("bwrap") is None:
        raise UserError(
            "--sandbox needs bubblewrap, which is missing: install it (Linux: apt install bubblewrap), "
            "or grade in a container, as the guide Teaching a class shows."
        )
    with tempfile.TemporaryDirectory() as folder:
        tried = _try([*_sandbox_command(Path(folder)), "true"])
    if tried.returncode:
        raise UserError(
            f"--sandbox needs bubblewrap, which cannot run here ({tried.stderr.strip()[:200]}): "
            "grade in a container, as the guide Teaching a class shows."
        )


def _try(words: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(words, capture_output=True, text=True, env=_needed_environment())


def _outer_command(
    temporary: Path, read: list[Path], write: list[Path], keep: list[Path]
) -> list[str] | None:
    """Return the start of a command that runs in a sandbox in which `_sandbox_command` can run.

    Args:
        temporary: folder for temporary files, outside
        read: files and folders that the command can read
        write: folders that it can write to
        keep: what it can only read in these folders

    Returns:
        None if bubblewrap cannot run in bubblewrap here
    """
    binds = []
    for option, paths in (("--ro-bind-try", read), ("--bind", write), ("--ro-bind-try", keep)):
        binds += [word for path in paths for word in (option, str(path.absolute()), str(path.absolute()))]
    here = str(Path.cwd())
    for processes in (
        ("--unshare-pid", "--proc", "/proc"),
        ("--bind", "/proc", "/proc"),
    ):  # root needs the second
        words = [
            *("bwrap", "--bind", str(temporary), "/tmp", *_readable(), *processes, *binds),
            *("--dir", here, "--chdir", here),
            *("--unshare-user", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--die-with-parent"),
            *("--setenv", "HOME", "/tmp", "--setenv", "TMPDIR", "/tmp", "--setenv", _INSIDE, "1"),
        ]
        if _try([*words, *_sandbox_command(Path("/tmp")), "true"]).returncode == 0:
            return words
    return None


def _run_in_sandbox(words: list[str], read: list[Path], write: list[Path], keep: list[Path]) -> int | None:
    """Run dit-nb in a sandbox and return its exit status; None if it cannot run there.

    Args:
        words: arguments of dit-nb
        read: files and folders that it can read, besides Python
        write: folders that it can write to
        keep: what it can only read in these folders
    """
    with tempfile.TemporaryDirectory(prefix="dit") as temporary:
        outer = _outer_command(Path(temporary), read, write, keep)
        if outer is None:
            return None
        done = subprocess.run([*outer, sys.executable, "-c", _START, *words], env=_needed_environment())
    return done.returncode if done.returncode >= 0 else 128 - done.returncode
