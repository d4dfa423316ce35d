"""Fail where dit_nb/ is not what nbs/ exports, where a notebook is not clean, or where README.md is not index.ipynb.

The assignments in dit_nb/teach/classroom/course/ must be what the lessons and the frames in nbs/assignments/ say.

What is out of step is put right on the way, so that the second run passes: look at the difference and commit it.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def snapshot() -> dict[str, bytes]:
    """Every file that the tools may rewrite."""
    paths = [*ROOT.glob("dit_nb/**/*.py"), *ROOT.glob("nbs/**/*.ipynb"), ROOT / "index.ipynb"]
    paths += [
        *ROOT.glob("dit_nb/teach/classroom/course/*.ipynb"),
        ROOT / "README.md",
        *ROOT.glob("nbs/images/readme/*"),
    ]
    return {str(p.relative_to(ROOT)): p.read_bytes() for p in paths if p.is_file()}


def run(*command: str) -> None:
    """One tool, from the top level."""
    subprocess.run(command, cwd=ROOT, check=True)


def main() -> int:
    """Compare before and after."""
    before = snapshot()
    run("nbdev_clean")
    run("nbdev_clean", "--fname", "index.ipynb")
    run("nbdev_export")
    run(sys.executable, "-m", "dit_nb.teach.classroom.assignments")
    run(sys.executable, "tools/readme.py")
    after = snapshot()
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    for name in changed:
        print(f"{name} was out of step (now put right)")
    return bool(changed)


if __name__ == "__main__":
    sys.exit(main())
