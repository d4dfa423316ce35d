"""A sandbox for each kernel: no network, no home folder, no course; Linux with bubblewrap."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

from dit_nb.errors import UserError

__all__ = []

_SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/lib32", "/sbin", "/etc/ld.so.cache", "/etc/alternatives")
_SYSTEM += ("/etc/fonts", "/etc/localtime", "/etc/ssl", "/sys/devices/system/cpu")


def _sandbox_command(folder: Path) -> list[str]:
    """Return the start of a command that runs in a sandbox: it can write to a folder, and read Python alone."""
    binds = [word for path in _readable() for word in ("--ro-bind-try", path, path)]
    return [
        # The empty folders first: Python itself may lie in one of them.
        *("bwrap", "--tmpfs", "/tmp", "--tmpfs", "/home/student", *binds, "--proc", "/proc", "--dev", "/dev"),
        *("--bind", str(folder), str(folder), "--chdir", str(folder)),
        *("--setenv", "HOME", "/home/student", "--setenv", "TMPDIR", "/tmp", "--unsetenv", "JPY_PARENT_PID"),
        *("--unshare-all", "--die-with-parent", "--new-session", "--hostname", "sandbox"),
    ]


def _readable() -> list[str]:
    """Return what Python needs: the system, Python itself, its environment, and this package."""
    package = importlib.util.find_spec("dit_nb")
    ours = [str(Path(package.origin).parent)] if package and package.origin else []
    python = {sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parents[1])}
    return [*_SYSTEM, *sorted(python - {"/usr", "/"}), *ours]


def _check_sandbox() -> None:
    """Raise a UserError if there is no sandbox on this machine."""
    if shutil.which("bwrap") is None:
        raise UserError(
            "--sandbox needs bubblewrap, which is missing: install it (Linux: apt install bubblewrap), "
            "or grade in a container, as the guide Teaching a class shows."
        )
    words = ["bwrap", "--ro-bind", "/", "/", "--unshare-all", "--proc", "/proc", "--dev", "/dev", "true"]
    tried = subprocess.run(words, capture_output=True, text=True)
    if tried.returncode:
        raise UserError(
            f"--sandbox needs bubblewrap, which cannot run here ({tried.stderr.strip()[:200]}): "
            "grade in a container, as the guide Teaching a class shows."
        )
