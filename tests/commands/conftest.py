"""Fixtures of the tests of commands: a short digits run, a folder of photographs, and how a command refuses."""

import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from dit_nb.cli import main


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """The output folder of a digits run of 12 steps."""
    out = tmp_path_factory.mktemp("digits")
    assert main(["digits", "--steps", "12", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of two classes of six crops of real photographs."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("china", "flower"):
        (folder / name).mkdir()
        photo = Image.fromarray(load_sample_image(f"{name}.jpg"))
        for i in range(6):
            photo.crop((i * 40, 0, i * 40 + 300, 260)).save(folder / name / f"{i}.jpg")
    return folder


@pytest.fixture
def error_of(capsys):
    """Run a command that must fail because of its input, and return the error message."""

    def run(*words) -> str:
        capsys.readouterr()
        assert main([str(word) for word in words]) == 2
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert message.startswith("dit-nb: error: ") and "Traceback" not in message
        return message

    return run
