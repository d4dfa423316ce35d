"""The bundled text-to-emoji model: its files, its card, and that it reads its prompt."""

import csv
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
import torch

from dit_nb.data import emoji
from dit_nb.errors import UserError
from dit_nb.lab.text_study import RESULTS, half_seen_emoji
from dit_nb.pretrained import sample_images, text_emoji_model
from dit_nb.since.flow import RectifiedFlow
from dit_nb.since.mmdit import MMDiT
from dit_nb.since.text import Vocabulary, caption
from support import DEVICES, relative

FOLDER = files("dit_nb") / "models" / "text_emoji"
CATEGORIES = ["smileys", "animals", "food"]


@pytest.fixture(scope="module")
def bundled():
    return text_emoji_model(device="cpu")


def test_it_is_small_and_knows_every_training_word(bundled):
    model, sampling = bundled
    assert type(model) is MMDiT and sampling.objective == "flow" and not model.training
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 15e6
    captions = [caption(entry) for entry in emoji(CATEGORIES).train.entries]
    assert set(model.config.vocabulary) == set(Vocabulary.of(captions).words)
    assert (model.encode_text(captions) > 1).any(1).all()


def test_prompts_are_sampled(bundled):
    model, sampling = bundled
    few = replace(sampling, steps="2")
    images = sample_images(model, few, ["3d green apple", "flat cat face"], progress=False)
    assert images.shape == (2, 3, 32, 32) and images.isfinite().all()
    one = sample_images(model, few, ["flat cat face"], first=1, progress=False)
    torch.testing.assert_close(images[1:], one, atol=1e-4, rtol=1e-4)
    with pytest.raises(UserError, match="'grean'.*; green, .* spelled alike"):
        sample_images(model, few, ["3d grean apple"], progress=False)


@torch.no_grad()
@pytest.mark.parametrize("device", DEVICES)
def test_a_padded_caption_gives_the_same_picture_on_each_device(bundled, device):
    model, x = text_emoji_model(device=device)[0], torch.randn(2, 3, 32, 32, device=device)
    t, y = torch.tensor([300.0, 900.0], device=device), model.encode_text(["3d green apple", "flat cat face"])
    padded, cut = model(x, t, y), model(x, t, y[:, :3])
    assert y.shape[1] > 3 and padded.device.type == device and relative(cut, padded) < 1e-4
    on_cpu = bundled[0](x.cpu(), t.cpu(), y.cpu())
    assert relative(padded.cpu(), on_cpu) < 1e-2  # a convolution may use TF32


@pytest.mark.cuda
def test_samples_on_cuda_are_those_of_the_cpu(bundled):
    few, prompts = replace(bundled[1], sampler="euler", steps="5"), ["3d green apple", "flat cat face"]
    there = text_emoji_model(device="cuda")[0]
    on_cpu, on_cuda = (sample_images(m, few, prompts, progress=False) for m in (bundled[0], there))
    difference = on_cuda.cpu() - on_cpu
    assert on_cuda.is_cuda and difference.abs().max() < 0.05 and difference.square().mean().sqrt() < 1e-3


@torch.no_grad()
def test_the_right_caption_has_a_lower_loss_than_another_of_its_class(bundled):
    model, flow, g = bundled[0], RectifiedFlow(), torch.Generator().manual_seed(0)
    split = emoji(CATEGORIES)
    found = {}
    for name, data in {
        "trained": split.train._take(list(range(0, 766, 12))),
        "held out": half_seen_emoji(split),
    }.items():
        x0, y = data.images, model.encode_text([caption(e) for e in data.entries])
        other = _next_of_class(data.labels)
        t, noise = torch.full((len(x0),), 0.8), torch.randn(x0.shape, generator=g)
        right, wrong = (flow.training_losses(model, x0, t, ids, noise)["loss"] for ids in (y, y[other]))
        found[name] = float((right < wrong).float().mean())
    assert found["trained"] > 0.9 and found["held out"] > 0.6, found


def _next_of_class(labels):
    "Index of the next picture with the same label."
    found = torch.empty_like(labels)
    for label in labels.unique():
        mine = (labels == label).nonzero()[:, 0]
        found[mine] = mine.roll(-1)
    return found


def test_the_card_states_what_was_measured():
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    with RESULTS.open() as file:
        rows = list(csv.DictReader(file))
    for kind in ("unseen", "seen"):
        for column in ("pixels", "features", "style_right"):
            mean = np.mean([float(row[column]) for row in rows if row["kind"] == kind])
            assert f"{mean:.3f} (" in card
