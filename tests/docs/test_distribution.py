"""The wheel and the source distribution hold what they should, and the plain install is small."""

import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from check_sync import copy_tree, working_files
from dit_nb.cli import _EXTRAS
from oldest import SETTINGS, oldest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Names in the wheel and in the source distribution, and the metadata; built from a copy of the working tree."""
    folder, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    copy_tree(folder, working_files())
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(folder)]
    subprocess.run(build, check=True, capture_output=True)
    with zipfile.ZipFile(next(out.glob("*.whl"))) as wheel:
        inside = wheel.namelist()
        text = wheel.read(next(n for n in inside if n.endswith("METADATA"))).decode()
    with tarfile.open(next(out.glob("*.tar.gz"))) as sdist:
        source = [name.partition("/")[2] for name in sdist.getnames()]
    return inside, source, message_from_string(text)


def test_the_wheel_holds_modules_and_data(built):
    wheel, _, _ = built
    models = ("models/digits/sampling.json", "models/blocks/adaln/model.safetensors")
    models += ("emoji_files/emoji.npy.xz", "emoji_files/emoji.csv", "models/emoji_features/model.safetensors")
    bundled = ("emoji", "text_emoji", "few_step_emoji", "digits_early", "meanflow_digits")
    models += tuple(
        f"models/{name}/{file}"
        for name in bundled
        for file in ("config.json", "model.safetensors", "sampling.json")
    )
    for name in ("py.typed", *models, "lab/results/bench.json"):
        assert f"dit_nb/{name}" in wheel
    course = [name for name in wheel if name.startswith("dit_nb/teach/classroom/course/")]
    assert sorted(Path(name).suffix for name in course) == 5 * [".ipynb"] + 3 * [".md"]
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "dit_nb").rglob("*.py")}
    assert modules <= set(wheel)
    assert {name.split("/")[0] for name in wheel if ".dist-info/" not in name} == {"dit_nb"}


def test_the_source_distribution_holds_the_course(built):
    _, source, _ = built
    notebooks = {str(p.relative_to(ROOT)) for p in (ROOT / "nbs").glob("*/*.ipynb")}
    assert notebooks | {"index.ipynb", "settings.ini", "tests/support.py", "CHANGELOG.md"} <= set(source)


def test_a_plain_install_brings_no_notebook_tools(built):
    needs = [need for need in built[2].get_all("Requires-Dist") if "extra ==" not in need]
    names = {need.split(";")[0].split(">")[0].strip().lower() for need in needs}
    assert {"torch", "numpy", "einops", "accelerate", "safetensors"} <= names
    assert not names & {
        "matplotlib",
        "ipywidgets",
        "jupyterlab",
        "nbdev",
        "scikit-learn",
        "nbgrader",
        "scipy",
    }
    extras = {"lab", "school", "measure", "studies", "finetune", "export", "trackers", "site", "dev"}
    assert extras == set(built[2].get_all("Provides-Extra"))
    assert set(_EXTRAS.values()) <= extras  # what a message on a missing package names
    for package in ("onnx", "onnxscript"):
        assert f'{package}; extra == "export"' in built[2].get_all("Requires-Dist")


def test_the_oldest_versions_are_the_lower_bounds(built):
    pins = dict(line.split("==") for line in oldest(SETTINGS.read_text(), ["einops==0.8.1"]))
    assert pins.pop("einops") == "0.8.1"  # as asked
    needs = [Requirement(need) for need in built[2].get_all("Requires-Dist")]
    bounds = {need.name: need.specifier for need in needs if need.specifier and need.name in pins}
    assert set(pins) == set(bounds) and len(pins) > 10
    for name, specifier in bounds.items():
        assert {Version(each.version) for each in specifier if each.operator == ">="} == {Version(pins[name])}
