"""Fail if generated files are stale. Nothing in the working tree is changed: the tools run in a copy.

Checked: `dit_nb/` against the lessons (nbdev_export), clean and folded notebooks (nbdev_clean, tools/fold.py), README.md against index.ipynb,
and the assignments in the package against the lessons and the frames in `nbs/assignments/`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIX = "make sync"


def working_files() -> list[str]:
    """Files that git knows or would add, as they are in the working tree."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return [name for name in names if name and (ROOT / name).is_file()]


def copy_tree(target: Path, names: list[str]) -> None:
    """Copy files, with their folders."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target / name)


def regenerate(folder: Path) -> None:
    """Run every tool that writes files of the repository."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    commands = [
        [sys.executable, "tools/fold.py"],
        ["nbdev_clean"],
        ["nbdev_clean", "--fname", "index.ipynb"],
        ["nbdev_export"],
        [sys.executable, "-m", "dit_nb.teach.classroom.assignments"],
        [sys.executable, "tools/readme.py"],
    ]
    for command in commands:
        subprocess.run(command, cwd=folder, check=True, env=environment, stdout=subprocess.DEVNULL)


def generated(folder: Path) -> dict[str, bytes]:
    """Every file that a tool may write."""
    patterns = (
        "dit_nb/**/*.py",
        "dit_nb/**/*.ipynb",
        "nbs/**/*.ipynb",
        "nbs/images/**/*",
        "*.ipynb",
        "README.md",
    )
    paths = [path for pattern in patterns for path in folder.glob(pattern) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def main() -> int:
    """Regenerate in a copy, and compare. With --write, in the working tree."""
    if "--write" in sys.argv:
        regenerate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_tree(folder, working_files())
        before = generated(folder)
        regenerate(folder)
        after = generated(folder)
    stale = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    for name in stale:
        print(f"{name} is stale: run `{FIX}`, look at the difference, and commit it")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
