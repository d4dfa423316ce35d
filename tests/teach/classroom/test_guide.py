"""The guide Teaching a class: every command that it shows runs, in its order, in a teacher's folder."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support_classroom import RIGHT, put, submitted

from dit_nb.cli import main
from dit_nb.errors import UserError
from dit_nb.teach.classroom import assignments
from dit_nb.teach.classroom.nbgrader_source import _release_notebook, source_notebook
from dit_nb.teach.classroom.sandbox import _check_sandbox

GUIDE = Path(__file__).resolve().parents[3] / "nbs" / "guides" / "teaching_a_class.ipynb"


def guide():
    """The text of the guide."""
    cells = json.loads(GUIDE.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def commands():
    """The lines of all blocks of commands."""
    lines = "\n".join(re.findall(r"```bash\n(.*?)```", guide(), re.DOTALL)).split("\n")
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def test_the_guide_shows_the_whole_command_line():
    assert all(words[0] == "dit-nb" for words in commands())
    actions = {words[2] for words in commands() if words[1] == "assignment"}
    assert actions == {"preview", "build", "release", "grade", "publish", "solution", "gradescope"}


@pytest.fixture
def teacher(small, tmp_path, monkeypatch):
    """A folder with what students have submitted; the package has two small assignments."""
    names = tmp_path / "package"
    names.mkdir()
    nb = (assignments._COURSE / "a1.ipynb").read_text(encoding="utf-8")
    put(names / "a1.ipynb", nb)
    put(names / "a2.ipynb", nb.replace('"assignment": "a1"', '"assignment": "a2"'))
    monkeypatch.setattr(assignments, "_COURSE", names)
    release = _release_notebook(source_notebook(small))
    right = submitted(release, RIGHT)
    folder = tmp_path / "teacher"
    put(folder / "mail" / "anna.ipynb", right)
    put(folder / "mail" / "ben" / "a1.ipynb", release)
    put(folder / "a1.ipynb", right)
    put(folder / "roster.csv", "id,name\nann,Ann Li\nbo,Bo\n")
    for file, name in [
        ("moodle.zip", "Ann Li_123_assignsubmission_file_/a1.ipynb"),
        ("canvas.zip", "liann_7_900_a1.ipynb"),
    ]:
        with zipfile.ZipFile(folder / file, "w") as archive:
            archive.writestr(name, json.dumps(right))
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.slow
@pytest.mark.xdist_group("classroom-guide")
def test_each_command_runs(teacher, capsys):
    for words in commands():
        if "--sandbox" in words:
            try:
                _check_sandbox()
            except UserError:
                continue
        assert main(words[1:]) == 0, f"{' '.join(words)}: {capsys.readouterr().err}"
    names = {path.name for path in [*teacher.iterdir(), *(teacher / "course").iterdir()]}
    assert {"a1.html", "a1-solution.ipynb", "a1.zip", "grades-a1.csv", "class-a1.html"} <= names
    assert {"grades-a1-moodle.csv", "grades-a1-canvas.csv", "feedback-a1.zip"} <= names
    assert "a1,ann,Ann Li,graded,9,0,9,13," in (teacher / "course" / "grades-a1.csv").read_text(
        encoding="utf-8-sig"
    )


def jupyterhub_commands():
    """The commands of the guide's paragraph on JupyterHub, in their order."""
    (paragraph,) = re.findall(r"- \*\*JupyterHub\.\*\*(.*)", guide())
    return [shlex.split(words) for words in re.findall(r"`((?:nbgrader|dit-nb) [^`]+)`", paragraph)]


NBGRADER = "import sys; from nbgrader.apps import NbGraderApp; NbGraderApp.launch_instance(sys.argv[1:])"


@pytest.mark.slow
@pytest.mark.xdist_group("classroom-guide")
def test_the_commands_for_jupyterhub_run(teacher, tmp_path, monkeypatch):
    """From `nbgrader release_assignment` to the student who fetches feedback, all as one user."""
    course, student, exchange = teacher / "course", tmp_path / "student", tmp_path / "exchange"
    for folder in (student, exchange):
        folder.mkdir()
    exchange.chmod(0o777)
    for name in ("CONFIG", "DATA", "RUNTIME"):
        monkeypatch.setenv(f"JUPYTER_{name}_DIR", str(tmp_path / name))

    def nbgrader(folder, *words):
        done = subprocess.run(
            [sys.executable, "-c", NBGRADER, *words], cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr[-800:]}"

    assert main(["assignment", "build", "a1", "--out", "course"]) == 0
    config = course / "nbgrader_config.py"
    config.write_text(f"{config.read_text()}\nc.Exchange.root = {str(exchange)!r}\n")
    monkeypatch.chdir(course)
    first, *rest = jupyterhub_commands()
    assert first == ["nbgrader", "release_assignment", "a1"]
    assert [words[1] for words in rest] == ["collect", "assignment", "release_feedback"]
    nbgrader(course, *first[1:])
    shared = [f"--Exchange.root={exchange}", "--course=dit"]
    nbgrader(student, "fetch_assignment", "a1", *shared)
    shutil.copy(teacher / "a1.ipynb", student / "a1" / "a1.ipynb")
    nbgrader(student, "submit", "a1", *shared)
    for words in rest:
        if words[0] == "nbgrader":
            nbgrader(course, *words[1:])
        else:
            assert main(words[1:]) == 0
    assert ",graded,9,0,9,13," in (course / "grades-a1.csv").read_text(encoding="utf-8-sig")
    nbgrader(student, "fetch_feedback", "a1", *shared)
    assert list((student / "a1" / "feedback").rglob("a1.html")), os.listdir(student / "a1")


def test_the_container_is_built_and_run_under_one_name():
    """Not run here: docker needs a service. The names and options fit each other."""
    text = guide()
    (built,) = re.findall(r"`docker build -t (\S+) \.`", text)
    (run,) = re.findall(r"`docker run ([^`]+)`", text)
    assert f" {built} grade a1 --course /course" in run and "--network none" in run and "--pids-limit" in run
    assert 'ENTRYPOINT ["dit-nb", "assignment"]' in text
