"""dit-nb convert: through all formats and back, and what it refuses."""

import os
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL

from dit_nb.cli import main
from dit_nb.config import SamplingConfig
from dit_nb.interop.convert import load_any
from dit_nb.pretrained import save_model
from support import latent_model, same_weights

PAPER_SAMPLING = SamplingConfig(clip_x0=False)  # of the paper's models, which are latent models


@pytest.fixture
def folder(tmp_path):
    """A folder with one model in all formats."""
    save_model(latent_model(), tmp_path / "home", replace(PAPER_SAMPLING, class_names=tuple("abcdefghij")))
    sizes = dict(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    AutoencoderKL(**sizes).save_pretrained(tmp_path / "vae")
    for source, target, to, *words in (
        ("home", "a.pt", "official", "--training"),
        ("a.pt", "b", "diffusers", "--vae", str(tmp_path / "vae")),
        ("b", "c", "dit_nb"),
        ("c", "d.pt", "official"),
    ):
        assert main(["convert", str(tmp_path / source), str(tmp_path / target), "--to", to, *words]) == 0
    return tmp_path


def test_round_trip(folder):
    model, sampling = load_any(folder / "c")
    assert same_weights(model, latent_model()) and sampling.class_names == tuple("abcdefghij")
    assert same_weights(load_any(folder / "d.pt", num_heads=2)[0], latent_model())
    assert torch.load(folder / "d.pt", weights_only=True).keys() == latent_model().state_dict().keys()
    assert sorted(os.listdir(folder)) == ["a.pt", "b", "c", "d.pt", "home", "vae"]
    assert "Converted from" in (folder / "c" / "README.md").read_text()


def test_refused(folder, error_of):
    for (source, target, *words), part in (
        (["d.pt", "e", "--to", "dit_nb"], "num_heads"),
        (["home", "c", "--to", "diffusers"], f"target is {folder / 'c'}"),
        (["home", "e", "--to", "diffusers", "--vae", "nowhere"], "vae nowhere"),
        (["home", "e.pt", "--to", "official", "--vae", "nowhere"], "vae is nowhere"),
    ):
        assert part in error_of("convert", folder / source, folder / target, *words)
    assert sorted(os.listdir(folder)) == ["a.pt", "b", "c", "d.pt", "home", "vae"]
