"""The environment of a kernel, and the limits that it is started with."""

import re

from dit_nb.teach.classroom.kernels import Limits, _command, _environment


def test_the_environment_has_nothing_secret(monkeypatch, tmp_path):
    for name in ("GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD", "JUPYTER_TOKEN", "SSH_AUTH_SOCK"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    found = _environment(tmp_path)
    assert "secret" not in found.values()
    assert found["PYTHONPATH"] == "/somewhere" and found["LC_ALL"] == "C.UTF-8" and found["PATH"]
    assert found["NBGRADER_EXECUTION"] == "autograde" and found["OMP_NUM_THREADS"] == "1"


def test_limits_are_those_of_the_options(tmp_path):
    def prepared(limits):
        (call,) = re.findall(r"_prepare_kernel(\(.*\))", " ".join(_command(tmp_path, limits)))
        return eval(call)

    assert prepared(Limits(seconds=7)) == (7,)
    seconds, memory, processes = prepared(Limits(seconds=7, sandbox=True, memory=3))
    assert (seconds, memory) == (7, 3) and processes >= 300
