"""An autograder for Gradescope: the same checks and sentences, without nbgrader."""

import argparse
import json
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import dit_nb
from dit_nb.errors import UserError
from dit_nb.teach.classroom.assignments import _dumps
from dit_nb.teach.classroom.checking import Checked, check_notebook
from dit_nb.teach.classroom.choice import _choose
from dit_nb.teach.classroom.intake import _files, _Received
from dit_nb.teach.classroom.kernels import Limits
from dit_nb.teach.classroom.nbgrader_source import _release_notebook, source_notebook
from dit_nb.teach.classroom.notebooks import _read_notebook
from dit_nb.teach.graders.framework.report import _escape
from dit_nb.utils import _atomic_write

__all__ = []

_NEEDED = ("torch", "numpy", "einops", "tqdm", "safetensors", "filelock")
_NEEDED += ("nbformat", "ipykernel", "jupyter_client", "matplotlib", "scikit-learn", "ipywidgets", "pillow")
_SETUP = """#!/usr/bin/env bash
# Runs once, when Gradescope builds the image: Python {python}, with which these versions were tested, and the CPU
# build of torch, in an environment of its own. uv downloads this Python if the image has another one.
# AUTOGRADER is other than Gradescope's in tests only.
set -euo pipefail
ROOT="${{AUTOGRADER:-/autograder}}"
export DEBIAN_FRONTEND=noninteractive UV_NO_CACHE=1 UV_PYTHON_INSTALL_DIR="$ROOT/python"
apt-get update -qq
apt-get install -y -qq python3 python3-venv
python3 -m venv "$ROOT/tools"
"$ROOT/tools/bin/pip" install -q --no-cache-dir --upgrade pip uv
"$ROOT/tools/bin/uv" venv -q --python {python} "$ROOT/venv"
install() {{ "$ROOT/tools/bin/pip" --python "$ROOT/venv/bin/python" install -q --no-cache-dir "$@"; }}
install --index-url https://download.pytorch.org/whl/cpu "{torch}"
install -r "$ROOT/source/requirements.txt"
"""
_RUN = """#!/usr/bin/env bash
# Grades one submission. AUTOGRADER and PYTHON are other than Gradescope's in tests only.
set -uo pipefail
ROOT="${{AUTOGRADER:-/autograder}}"
export PYTHONPATH="$ROOT/source" OMP_NUM_THREADS=1
"${{PYTHON:-$ROOT/venv/bin/python}}" -m dit_nb.teach.classroom.gradescope "$ROOT" {name} --seconds {seconds:g}
"""


def _write_autograder(name: str, out: Path, seconds: float = 60.0, source: Path | None = None) -> None:
    """Write the zip file that Gradescope takes as an autograder.

    Args:
        name: the assignment, such as a1
        out: zip file to write
        seconds: time limit of a cell
        source: nbgrader's source of the assignment in a course, if that was edited; None: that of the package

    Raises:
        UserError: if the file exists, or there is no such assignment
    """
    if out.exists():
        raise UserError(f"out is {out}, which already exists: choose another name.")
    text = _dumps(_read_notebook(source) if source else source_notebook(name))
    pins = {package: _pin(package) for package in _NEEDED}
    package, python = Path(dit_nb.__file__).parent, ".".join(map(str, sys.version_info[:2]))
    with _atomic_write(out) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as archive:
        _add_program(archive, "setup.sh", _SETUP.format(torch=pins["torch"], python=python))
        _add_program(archive, "run_autograder", _RUN.format(name=name, seconds=seconds))
        archive.writestr("requirements.txt", "\n".join(pins.values()) + "\n")
        archive.writestr("assignment.ipynb", text)
        for path in sorted(package.rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                archive.write(path, f"dit_nb/{path.relative_to(package).as_posix()}")
        archive.writestr(f"dit_nb-{version('dit_nb')}.dist-info/METADATA", _metadata())


def _add_program(archive: zipfile.ZipFile, name: str, text: str) -> None:
    entry = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
    entry.external_attr = 0o755 << 16
    archive.writestr(entry, text)


def _metadata() -> str:
    return f"Metadata-Version: 2.1\nName: dit_nb\nVersion: {version('dit_nb')}\n"


def _pin(package: str) -> str:
    """Return a package with the version that is installed here, or alone if it is not."""
    try:
        return f"{package}=={version(package).split('+')[0]}"
    except PackageNotFoundError:
        return package


def _write_results(root: Path, name: str, seconds: float = 60.0) -> None:
    """Grade root/submission, and write root/results/results.json.

    Args:
        root: folder as Gradescope lays it out: source, submission, results
        name: the assignment
        seconds: time limit of a cell
    """
    source = json.loads((root / "source" / "assignment.ipynb").read_text(encoding="utf-8"))
    folder = root / "submission"
    one = _Received("student", files=[*_files(folder)] if folder.is_dir() else [], root=folder)
    path, remarks, files = _choose(one, name, _release_notebook(source))
    try:
        if path is None:
            raise UserError(remarks[0])
        beside = tuple(file for file in files if file.is_relative_to(path.parent))
        results = _results(check_notebook(path, name, source, Limits(seconds=seconds), beside), remarks)
    except UserError as error:
        results = {
            "score": 0,
            "output": f"Not graded: {error}",
            "output_format": "text",
            "visibility": "visible",
        }
    (root / "results").mkdir(exist_ok=True)
    with _atomic_write(root / "results" / "results.json") as draft:
        draft.write_text(json.dumps(results, indent=1), encoding="utf-8")


def _results(checked: Checked, remarks: list[str]) -> dict:
    """Return results in Gradescope's form; hidden checks are shown once grades are published."""
    tests = [
        {
            "name": f"{line.exercise} ({'hidden' if line.hidden else 'open'} check)",
            "score": line.points,
            "max_score": line.max_points,
            "status": "passed" if line.points >= line.max_points else "failed",
            "output": _escape(line.sentence),
            "output_format": "md",
            "visibility": "after_published" if line.hidden else "visible",
        }
        for line in checked.lines
    ]
    notes = [*remarks, *checked.notes]
    waits = [f"Graded by a person: {', '.join(checked.by_hand)}."] if checked.by_hand else []
    return {
        "tests": tests,
        "execution_time": round(checked.seconds),
        "output": "\n".join([*waits, *notes]),
        "output_format": "text",
        "stdout_visibility": "hidden",
        "extra_data": {"remarks": list(checked.remarks)},
    }


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("name")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    _write_results(options.root, options.name, options.seconds)


if __name__ == "__main__":
    _main()
