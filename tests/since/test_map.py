"""The guide that maps today's models: the numbers of its tables against the installed diffusers."""

import inspect
import json
import re
from pathlib import Path

import pytest

MAP = Path(__file__).resolve().parents[2] / "nbs" / "guides" / "the_map.ipynb"
PIPELINES = {
    "DiT": "DiTPipeline",
    "PixArt": "PixArtAlphaPipeline",
    "SD3": "StableDiffusion3Pipeline",
    "FLUX.1": "FluxPipeline",
    "Sana": "SanaPipeline",
    "Wan 2.1": "WanPipeline",
    "Qwen-Image": "QwenImagePipeline",
    "Z-Image": "ZImagePipeline",
    "FLUX.2": "Flux2Pipeline",
}


def table_with(heading: str) -> dict[str, dict[str, str]]:
    "Rows of the table that has a column of this name: model -> column -> text."
    cells = json.loads(MAP.read_text(encoding="utf-8"))["cells"]
    lines = "".join("".join(c["source"]) + "\n\n" for c in cells if c["cell_type"] == "markdown").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| model") and heading in line)
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in lines[start:]]
    end = next(i for i, row in enumerate(rows) if row == [""])
    return {row[0]: dict(zip(rows[0], row)) for row in rows[2:end]}


@pytest.mark.parametrize("model", PIPELINES)
def test_guidance_is_the_default_of_the_pipeline(model):
    diffusers = pytest.importorskip("diffusers")
    if diffusers.__version__ != "0.42.1":
        pytest.skip("the tables were read from diffusers 0.42.1")
    text = table_with("guidance of its pipeline")[model]["guidance of its pipeline"]
    defaults = inspect.signature(getattr(diffusers, PIPELINES[model]).__call__).parameters
    name = "true_cfg_scale" if model == "Qwen-Image" else "guidance_scale"
    assert float(re.search(r"\d+\.\d", text)[0]) == defaults[name].default
    assert text.startswith("plain") == (model not in ("FLUX.1", "FLUX.2"))


def test_all_tables_have_the_same_models():
    tables = [table_with(name) for name in ("objective", "positions", "guidance of its pipeline")]
    names = [[name.removesuffix(" (video)").replace("DiT-XL/2", "DiT") for name in table] for table in tables]
    assert names == [list(PIPELINES)] * 3


def test_classes_exist():
    diffusers = pytest.importorskip("diffusers")
    for row in table_with("objective").values():
        assert hasattr(diffusers, row["diffusers' class"].strip("`")), row
