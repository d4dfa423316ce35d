"""nbgrader's converters, run with settings that are checked first: build, record grades, write feedback."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from dit_nb.errors import UserError

__all__ = []

# Folders, and what decides about points: settings of a course and of the machine have no effect on these.
_FIXED = {
    "CourseDirectory": {
        "source_directory": "source",
        "release_directory": "release",
        "autograded_directory": "autograded",
        "feedback_directory": "feedback",
        "directory_structure": os.path.join("{nbgrader_step}", "{student_id}", "{assignment_id}"),
        "student_id": "*",
        "student_id_exclude": "",
        "notebook_id": "*",
    },
    "Execute": {"enabled": False},  # the notebooks have run before
    "ClearOutput": {"enabled": False},
    "IgnorePattern": {"enabled": False},
    "OverwriteCells": {"add_missing_cells": True},
    "SaveAutoGrades": {"enabled": True},
    "AssignLatePenalties": {"enabled": True},
    "BaseConverter": {"pre_convert_hook": None, "post_convert_hook": None},
}
_LISTS = ("sanitize_preprocessors", "autograde_preprocessors", "preprocessors", "exclude_overwriting")


def _require_nbgrader() -> None:
    if find_spec("nbgrader") is None:
        raise ImportError("nbgrader is missing: pip install 'dit_nb[school]'.", name="nbgrader")


def _read_config(course: Path):
    """Read nbgrader_config.py of a course, and of the course alone.

    Raises:
        UserError: if the file is missing or has an error
    """
    from traitlets.config import Config
    from traitlets.config.loader import PyFileConfigLoader

    path = course / "nbgrader_config.py"
    if not path.is_file():
        raise UserError(f"{path} is missing: build an assignment in this course, which writes it again.")
    try:
        config = PyFileConfigLoader(path.name, path=str(course)).load_config()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        where = f" in line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise UserError(
            f"{path} has an error{where} ({type(error).__name__}: {str(error)[:200]}): correct it, then run this again."
        ) from None
    return Config(config)


def _settings(course: Path):
    """Return the settings of a course, with those that decide about points fixed.

    Raises:
        UserError: if nbgrader refuses the course's settings
    """
    config = _read_config(course)
    for section, values in _FIXED.items():
        config[section].update(values)
    for section in [config[name] for name in list(config) if name[0].isupper()]:
        for name in _LISTS:
            section.pop(name, None)
    config.CourseDirectory.root = str(course)
    return config


def _course_directory(course: Path, name: str):
    """Return nbgrader's object for the folders of a course."""
    from nbgrader.coursedir import CourseDirectory
    from traitlets import TraitError

    config = _settings(course)
    try:
        return CourseDirectory(config=config, root=str(course), assignment_id=name, log=_log(course))
    except TraitError as error:
        raise UserError(f"{course / 'nbgrader_config.py'} has a wrong setting: {error}.") from None


def _log(course: Path) -> logging.Logger:
    """Return a logger that writes nbgrader.log of a course, without warnings that are none."""
    log = logging.getLogger(f"dit_nb.nbgrader.{course}")
    if not log.handlers:
        handler = logging.FileHandler(course / "nbgrader.log", encoding="utf-8", delay=True)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        handler.addFilter(lambda record: "hecksum" not in record.getMessage())
        log.addHandler(handler)
        log.propagate = False
        log.setLevel(logging.INFO)
    return log


@contextmanager
def _environment(course: Path) -> Iterator[None]:
    """Let nbgrader find alembic beside this Python, and come back to the present folder."""
    before, here = os.environ.get("PATH", os.defpath), os.getcwd()
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before
        os.chdir(here)


def _convert(kind: str, course: Path, name: str, students: list[str], submitted: str = "submitted") -> bool:
    """Run one of nbgrader's converters; return whether all succeeded.

    Args:
        kind: GenerateAssignment, Autograde or GenerateFeedback
        course: folder of the course, absolute
        name: the assignment
        students: names, which may have any characters; "." for the source
        submitted: folder in the course with the students' notebooks
    """
    from nbgrader import converters

    class Converter(getattr(converters, kind)):
        def init_notebooks(self):
            folders = [self._format_source(name, student) for student in students]
            self.assignments = {folder: [os.path.join(folder, f"{name}.ipynb")] for folder in folders}

    with _environment(course), warnings.catch_warnings():
        directory = _course_directory(course, name)
        directory.submitted_directory = submitted
        if kind == "GenerateAssignment":
            directory.student_id = "."
        log = _log(course)
        log.info("%s %s: %s", kind, name, ", ".join(students))
        try:
            warnings.simplefilter("ignore")  # of SQLAlchemy, about nbgrader
            Converter(coursedir=directory, config=directory.config, log=log, force=True).start()
        except Exception as error:  # of any kind: nbgrader, the database, its settings
            log.exception("%s: %s", type(error).__name__, error)
            return False
        return True


def _database(course: Path) -> str:
    """Return the address of the gradebook: that of the course's settings, or gradebook.db."""
    return _course_directory(course, "").db_url
