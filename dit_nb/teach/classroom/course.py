"""Courses of nbgrader: build assignments, preview what students get, write solutions."""

import shutil
import tempfile
from pathlib import Path

from dit_nb.errors import UserError
from dit_nb.teach.classroom.assignments import _dumps
from dit_nb.teach.classroom.engine import _convert, _require_nbgrader
from dit_nb.teach.classroom.nbgrader_source import STUB, _without_hidden, source_notebook
from dit_nb.utils import _write_text

__all__ = ["build", "release_source"]

_CONFIG = f'''"""Settings of nbgrader for this course; change them here. `nbgrader generate_config` lists all.

`dit-nb assignment grade` reads this file and no other; what decides about points, it sets itself.
"""

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "dit"

# With JupyterHub, a folder that the whole class can reach:
# c.Exchange.root = "/srv/nbgrader/exchange"

# Late submissions: "none" or "zero" points.
# c.LateSubmissionPlugin.penalty_method = "zero"

c.ClearSolutions.code_stub = {{"python": {STUB!r}}}

# For `nbgrader autograde`, which `dit-nb assignment grade` does not need: limits of a cell.
limit = "__import__('importlib').import_module('dit_nb.teach.classroom.kernel')._prepare_kernel(60.0)"
c.Execute.extra_arguments = ["--HistoryManager.hist_file=:memory:", f"--IPKernelApp.exec_lines={{limit}}"]
c.Execute.timeout = 90
c.IgnorePattern.enabled = True
c.IgnorePattern.pattern = r"[\\s\\S]"  # a warning in a check costs no points
c.OverwriteCells.add_missing_cells = True
'''


def build(name: str, course: str | Path, install: str | None = None, colab: str | None = None) -> Path:
    """Put an assignment into an nbgrader course; return the notebook for the students.

    Args:
        name: the assignment, such as a1
        course: folder of the course; created if it does not exist
        install: URL of a version of this package, which the notebook installs where it is missing
        colab: address on GitHub where the notebook will be, for a button that opens it in Colab

    Raises:
        UserError: if the course has another source of that name, or nbgrader fails
    """
    text, course = _dumps(source_notebook(name, install, colab)), Path(course).absolute()
    source, release = (course / part / name / f"{name}.ipynb" for part in ("source", "release"))
    if source.exists() and source.read_bytes().decode("utf-8", "replace").replace("\r\n", "\n") != text:
        raise UserError(
            f"{source} already exists and is different: move it, or choose another folder; "
            f"to release a source that you have edited, use dit-nb assignment release {name}."
        )
    new = not source.exists()
    try:
        source.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"course is {course}, but no folder can be created there: {error.strerror}."
        ) from None
    config = course / "nbgrader_config.py"
    if not config.exists():
        _write_text(config, _CONFIG)
    _write_text(source, text)
    try:
        return release_source(name, course)
    except UserError:
        if new:
            shutil.rmtree(source.parent)
        raise


def release_source(name: str, course: str | Path) -> Path:
    """Make the notebook for students from the source in a course, also if that was edited; return it.

    Raises:
        UserError: if there is no source, or nbgrader fails
    """
    _require_nbgrader()
    course = Path(course).absolute()
    source, release = (course / part / name / f"{name}.ipynb" for part in ("source", "release"))
    if not source.exists():
        raise UserError(f"course is {course}, but there is no {source}: build the assignment first.")
    if not _convert("GenerateAssignment", course, name, ["."]) or not release.exists():
        raise UserError(f"nbgrader could not write {release}: see {course / 'nbgrader.log'}.")
    return release


def _preview(name: str, out: Path) -> None:
    """Write what a student gets.

    Args:
        name: the assignment, such as a1
        out: file to write, .ipynb or .html

    Raises:
        UserError: if the file exists, or as `build`
    """
    with tempfile.TemporaryDirectory() as folder:
        _write_notebook(out, lambda: build(name, folder).read_text(encoding="utf-8"))


def _solution(name: str, out: Path) -> None:
    """Write an assignment with its solutions, to hand out after the deadline.

    Args:
        name: the assignment, such as a1
        out: file to write, .ipynb or .html

    Raises:
        UserError: if the file exists, or there is no such assignment
    """
    _write_notebook(out, lambda: _dumps(_without_hidden(source_notebook(name))))


def _write_notebook(out: Path, make) -> None:
    """Write a notebook, or its page if the name ends in .html."""
    if out.exists():
        raise UserError(f"out is {out}, which already exists: choose another name.")
    content = make()
    if out.suffix == ".html":
        import nbformat
        from nbconvert import HTMLExporter

        content, _ = HTMLExporter().from_notebook_node(nbformat.reads(content, as_version=4))
    _write_text(out, content)
