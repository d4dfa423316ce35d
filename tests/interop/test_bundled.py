"""Every model that comes with the package opens by its folder, and samples."""

from importlib.resources import files
from pathlib import Path

import pytest

from dit_nb.cli import main
from dit_nb.interop.convert import convert, load_any
from dit_nb.pretrained import _check_sampling_fits, sample_images

MODELS = Path(str(files("dit_nb") / "models"))
FOLDERS = sorted(str(path.parent.relative_to(MODELS)) for path in MODELS.rglob("config.json"))
FEW_STEPS = "meanflow_digits"


def test_all_folders_are_found():
    assert {"digits", "emoji", "text_emoji", "few_step_emoji", FEW_STEPS, "blocks/adaln"} <= set(FOLDERS)


@pytest.mark.parametrize("name", FOLDERS)
def test_each_folder_of_a_model_opens_and_samples(name):
    assert (MODELS / name / "sampling.json").is_file()
    model, sampling = load_any(MODELS / name, device="cpu")
    _check_sampling_fits(sampling, model)
    prompts = ["3d green apple"] if hasattr(model, "encode_text") else [0]
    images = sample_images(model, sampling, prompts, seed=1, progress=False)
    assert images.shape == (1, *model.image_shape) and images.isfinite().all() and images.std() > 0.1


def test_the_few_step_digits_are_converted_and_sampled_by_commands(tmp_path):
    convert(MODELS / FEW_STEPS, tmp_path / "copy", "dit_nb")
    for folder in (MODELS / FEW_STEPS, tmp_path / "copy"):
        out = tmp_path / f"{folder.name}.png"
        assert main(["sample", str(folder), "--num-samples", "10", "--out", str(out)]) == 0
    names = [tmp_path / f"{name}.png" for name in (FEW_STEPS, "copy")]
    assert names[0].read_bytes() == names[1].read_bytes()
