"""The sandbox: what a notebook and the command that grades can reach, and its limits."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support_classroom import RIGHT, put, submitted

from dit_nb.cli import main
from dit_nb.errors import UserError
from dit_nb.teach.classroom import assignments, sandbox
from dit_nb.teach.classroom.course import build
from dit_nb.teach.classroom.sandbox import (
    _check_sandbox,
    _max_processes,
    _needed_environment,
    _outer_command,
    _sandbox_command,
    _threads_of_user,
)


def runs():
    try:
        _check_sandbox()
    except UserError:
        return False
    return True


needs_sandbox = pytest.mark.skipif(not runs(), reason="bubblewrap is missing, or cannot run here")
LIMITED = """import json, resource, sys
from dit_nb.teach.classroom.kernel import _limit_resources
_limit_resources(4, int(sys.argv[1]))
"""


def inside(folder, source, *arguments):
    """Run Python code in the sandbox of a kernel; return what it prints as JSON."""
    words = [*_sandbox_command(folder), sys.executable, "-c", source, *arguments]
    done = subprocess.run(words, capture_output=True, text=True, env=_needed_environment(), timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_sandbox
def test_the_environment_of_the_teacher_cannot_be_read(tmp_path, monkeypatch):
    """Not of the process, and not of bubblewrap, which is the first process inside."""
    monkeypatch.setenv("SECRET_TOKEN", "very secret")
    looks = """import glob, json, os
texts = [str(dict(os.environ))]
for path in glob.glob("/proc/[0-9]*/environ"):
    texts.append(open(path).read())
print(json.dumps(texts))"""
    texts = inside(tmp_path, looks)
    assert len(texts) > 1 and "very secret" not in str(texts) and "SECRET_TOKEN" not in str(texts)


@needs_sandbox
def test_a_file_cannot_be_larger_than_a_gibibyte(tmp_path):
    tries = """sizes = []
for size in (2**29, 2**30 + 1):
    with open("big", "wb") as file:
        try:
            file.truncate(size)  # without data: nothing is written to the disk
        except OSError:
            size = 0
    sizes.append(size)
print(json.dumps(sizes))"""
    assert inside(tmp_path, LIMITED + tries, "300") == [2**29, 0]


@needs_sandbox
def test_memory_is_limited(tmp_path):
    tries = """try:
    bytearray(5 * 2**30)
    print("true")
except MemoryError:
    print("false")"""
    assert inside(tmp_path, LIMITED + tries, "300") is False


@needs_sandbox
def test_the_limit_of_processes_is_set(tmp_path):
    shown = "print(json.dumps(resource.getrlimit(resource.RLIMIT_NPROC)))"
    assert inside(tmp_path, LIMITED + shown, "300") == [300, 300]


@needs_sandbox
@pytest.mark.skipif(os.getuid() == 0, reason="the system does not limit the processes of root")
def test_processes_are_limited(tmp_path):
    tries = """import subprocess
started = []
try:
    while len(started) < 400:
        started.append(subprocess.Popen(["sleep", "60"]))
except OSError:
    pass
for process in started:
    process.kill()
print(json.dumps(len(started)))"""
    most = _max_processes()
    assert 0 < inside(tmp_path, LIMITED + tries, str(most)) < most


def test_old_systems_count_all_processes_of_the_user(monkeypatch):
    monkeypatch.setattr(sandbox.platform, "release", lambda: "6.1.0-9-amd64")
    assert _max_processes() == 300
    monkeypatch.setattr(sandbox.platform, "release", lambda: "5.4.0-150-generic")
    monkeypatch.setattr(sandbox, "_threads_of_user", lambda: 1000)
    assert _max_processes() == 1300


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="there is no /proc")
def test_own_threads_are_counted():
    assert _threads_of_user() >= len(os.listdir("/proc/self/task"))


def outer(tmp_path):
    """The start of a command in the sandbox of the command, with two folders and a file."""
    for name in ("temporary", "course", "course/source", "mail"):
        (tmp_path / name).mkdir()
    (tmp_path / "secret").write_text("secret")
    words = _outer_command(
        tmp_path / "temporary", [tmp_path / "mail"], [tmp_path / "course"], [tmp_path / "course" / "source"]
    )
    if words is None:
        pytest.skip("bubblewrap cannot run in bubblewrap here")
    return words


@needs_sandbox
def test_the_command_writes_to_the_course_alone(tmp_path):
    words = outer(tmp_path)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        looks = f"""import json, os, socket
def can(path):
    try:
        open(path, "a").close()
    except OSError:
        return False
    return True
found = [can(os.path.join({str(tmp_path)!r}, name, "x")) for name in ("course", "course/source", "mail")]
found += [can(os.__file__), os.path.exists({str(tmp_path / "secret")!r}), os.path.exists({str(Path.home() / ".profile")!r})]
try:
    socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), 5)
    found.append(True)
except OSError:
    found.append(False)
print(json.dumps(found))"""
        words = [*words, sys.executable, "-c", looks]
        done = subprocess.run(words, capture_output=True, text=True, env=_needed_environment())
    assert json.loads(done.stdout) == [True, False, False, False, False, False, False], done.stderr
    assert (tmp_path / "course" / "x").exists()


@needs_sandbox
def test_a_notebook_in_the_command_sees_less(tmp_path):
    words = outer(tmp_path)
    (tmp_path / "temporary" / "k").mkdir()
    looks = f"import os; print([os.path.exists({str(tmp_path)!r} + name) for name in ('/course', '/mail')])"
    words = [*words, *_sandbox_command(Path("/tmp/k")), sys.executable, "-c", looks]
    done = subprocess.run(words, capture_output=True, text=True, env=_needed_environment())
    assert done.stdout == "[False, False]\n", done.stderr


@needs_sandbox
@pytest.mark.slow
@pytest.mark.xdist_group("classroom-sandbox")
def test_a_class_is_graded_in_the_sandbox(small_course_file, tmp_path, monkeypatch, capfd):
    """The whole command, with its exit status; a submission finds neither the course nor other submissions."""
    monkeypatch.setattr(assignments, "_COURSE", small_course_file.parent)
    release = json.loads(build("a1", tmp_path / "course").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET_TOKEN", "very secret")
    seen = f"""import os
assert not os.path.exists({str(tmp_path / "course")!r}) and not os.path.exists({str(tmp_path / "mail")!r})
assert "very secret" not in str(dict(os.environ))
"""
    put(tmp_path / "mail" / "ann.ipynb", submitted(release, RIGHT | {"patchify": seen + RIGHT["patchify"]}))
    put(tmp_path / "mail" / "ben.ipynb", "Dear teacher")
    words = [
        "assignment",
        "grade",
        "a1",
        "--course",
        "course",
        "--submissions",
        "mail",
        "--jobs",
        "1",
        "--sandbox",
    ]
    status = main(words)
    out, err = capfd.readouterr()
    if "outside of the sandbox" in err:
        pytest.skip("bubblewrap cannot run in bubblewrap here")
    assert status == 3, err
    assert re.search(r"^ann +9/13", out, re.MULTILINE), out + err
    assert (
        "1 of 2 graded now" in out and (tmp_path / "course" / "feedback" / "ann" / "a1" / "a1.html").exists()
    )
