"""Evaluation of emoji: the bundled classifier, metrics of real emoji and of noise, and the composition scores."""

import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from dit_nb.data import emoji
from dit_nb.emoji import Emoji, EmojiSet, EmojiSplit
from dit_nb.emoji_features import (
    _composition_scores,
    _EmojiExtractor,
    _nearest_in_class,
    _rows_of_classes,
    emoji_classifier,
    evaluate_emoji,
)
from dit_nb.pretrained import emoji_model, sample_images
from support import raises_input_error


@pytest.fixture(scope="module")
def split():
    return emoji()


def test_the_classifier_is_as_accurate_as_its_card_says(split):
    card = (files("dit_nb") / "models" / "emoji_features" / "README.md").read_text()
    guess = emoji_classifier()(split.held_out.images).argmax(1)
    y = split.held_out.labels
    hits = [guess // 2 == y // 2, guess % 2 == y % 2, guess == y]
    stated = [float(p) for p in re.findall(r"([\d.]+)%", card)]
    assert stated == pytest.approx([100 * float(hit.float().mean()) for hit in hits], abs=0.3)
    assert stated[0] > 60 and stated[1] > 90


def test_extractor_gives_features_and_probabilities(split):
    found = _EmojiExtractor()(split.held_out.images[:5])
    assert found.pooled.shape == (5, 64) and found.probs.shape == (5, 16)
    assert found.probs.sum(1) == pytest.approx([1] * 5)
    with raises_input_error("images are 1x8x8, but must be 3x32x32"):
        _EmojiExtractor()(torch.zeros(2, 1, 8, 8))


def test_real_emoji_score_better_than_shuffled_pixels(split):
    real, y = split.train.images[::5], split.train.labels[::5]
    order = torch.randperm(1024, generator=torch.Generator().manual_seed(0))
    shuffled = real.flatten(2)[..., order].view_as(real)
    good, bad = (evaluate_emoji(x, y, split) for x in (real, shuffled))
    assert good["frechet"] < bad["frechet"] / 3
    assert good["category_accuracy"] > 0.6 > 0.4 > bad["category_accuracy"]
    assert good["nearest_train"] == 0 and bad["nearest_train"] > bad["nearest_train_real"] > 0.1


def test_nearest_in_class_is_the_smallest_rms_difference(split):
    x, y = split.held_out.images[::40], split.held_out.labels[::40]
    distance, index = _nearest_in_class(x, y, split.train)
    for k in range(len(x)):
        known = split.train.images[split.train.labels == y[k]]
        rms = (known - x[k]).square().mean((1, 2, 3)).sqrt()
        assert distance[k] == pytest.approx(float(rms.min()), rel=1e-4)
        assert split.train.labels[index[k]] == y[k]


def black_and_white() -> EmojiSplit:
    """Held out: two black emoji that are trained on in the other style, and two white ones of unseen names."""

    def emoji_set(rows):
        entries = tuple(Emoji(name, style, "food", "fruit") for name, style, _ in rows)
        images = torch.stack([torch.full((3, 32, 32), value) for *_, value in rows])
        labels = torch.tensor([("flat", "3d").index(e.style) for e in entries])
        return EmojiSet(images, labels, ("food-flat", "food-3d"), entries)

    train = emoji_set([("a", "flat", -1.0), ("c", "3d", -1.0)])
    held_out = [("a", "3d", -1.0), ("b", "3d", 1.0), ("c", "flat", -1.0), ("d", "flat", 1.0)]
    return EmojiSplit(train, emoji_set(held_out))


@pytest.mark.parametrize("value,expected", [(-0.9, 1.0), (0.9, 0.0)])
def test_composition_score_of_half_seen_names(value, expected):
    """Black samples are closer to the half-seen emoji of their class, white ones to the unseen emoji."""
    samples, labels = torch.full((4, 3, 32, 32), value), torch.tensor([0, 0, 1, 1])
    found = _composition_scores(samples, labels, black_and_white())["half_seen"]
    assert (found["value"], found["low"], found["high"]) == (expected, expected, expected)


def test_style_score_is_one_for_copies_and_half_for_noise(split):
    held_out = split.held_out
    copies = _composition_scores(held_out.images, held_out.labels, split)
    assert copies["style"]["value"] == 1
    noise = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = _composition_scores(noise, torch.arange(16).repeat(4), split)
    assert found["style"]["low"] < 0.5 < found["style"]["high"] + 0.1


def test_the_bundled_model_is_small_and_samples_on_white(split):
    """In float16 on disk, in float32 in memory; its classes are those of the data set."""
    path = Path(str(files("dit_nb") / "models" / "emoji" / "model.safetensors"))
    assert path.stat().st_size < 12e6
    model, sampling = emoji_model()
    assert sampling.class_names == split.train.class_names
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    labels = torch.arange(16)
    images = sample_images(model, replace(sampling, steps="10"), labels, seed=0, progress=False).cpu()
    assert images.shape == (16, 3, 32, 32) and torch.isfinite(images).all()
    corners = images[:, :, ::31, ::31].clamp(-1, 1)
    assert corners.mean() > 0.5, "on white, like most emoji"


def test_real_emoji_to_compare_with_are_as_many_of_each_class_as_the_samples(split):
    wanted = torch.tensor([0, 0, 3, 3, 3, 5])
    rows = _rows_of_classes(split.train.labels, wanted)
    assert split.train.labels[rows].tolist() == wanted.tolist() and len(set(rows.tolist())) == 6
    many = _rows_of_classes(split.train.labels, torch.zeros(10_000, dtype=torch.long))
    assert len(many) == int((split.train.labels == 0).sum()), "no more than there are"


def test_a_mirrored_copy_counts_as_a_copy(split):
    mirrored = split.train.with_mirror_images().images[len(split.train) :][:40]
    labels = split.train.with_mirror_images().labels[len(split.train) :][:40]
    assert evaluate_emoji(mirrored, labels, split)["nearest_train"] == pytest.approx(0, abs=1e-3)
