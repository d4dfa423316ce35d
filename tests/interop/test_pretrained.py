"""Saved and shared models with their sampling settings; samples that depend on seed and index alone."""

import argparse
import os
import re

import pytest
import torch

from dit_nb import DiT
from dit_nb.pretrained import (
    SAMPLING,
    digit_model,
    load_model,
    push_model,
    sample_batches,
    sample_images,
    save_model,
)
from support import latent_model, raises_input_error, same_weights


def test_revisions_of_a_hub_repository(tmp_path):
    """The Hub's own client, on a cache with its layout; nothing is downloaded."""
    cache, models = tmp_path / "models--user--name", {"main": latent_model(0), "v1": latent_model(1)}
    for revision, commit in (("main", "a" * 40), ("v1", "b" * 40)):
        save_model(models[revision], cache / "snapshots" / commit, {**SAMPLING, "bins": len(revision)})
        (cache / "refs").mkdir(exist_ok=True)
        (cache / "refs" / revision).write_text(commit)
    offline = dict(cache_dir=tmp_path, local_files_only=True)
    for revision, wanted in ((None, "main"), ("v1", "v1"), ("b" * 40, "v1")):
        assert same_weights(DiT.from_pretrained("user/name", revision=revision, **offline), models[wanted])
        model, sampling = load_model("user/name", revision=revision, **offline)
        assert same_weights(model, models[wanted]) and sampling["bins"] == len(wanted)
    with raises_input_error("user/name.*Hub"):
        DiT.from_pretrained("user/name", revision="v2", **offline)


def test_model_without_sampling_settings(tmp_path):
    latent_model().save_pretrained(tmp_path)
    assert load_model(tmp_path)[1] == {**SAMPLING, "clip_x0": False}


def test_truncated_weights(tmp_path):
    save_model(latent_model(), tmp_path, SAMPLING)
    content = (tmp_path / "model.safetensors").read_bytes()
    for kept in (0, 5, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "model.safetensors").write_bytes(content[:kept])
        with raises_input_error("model.safetensors"):
            load_model(str(tmp_path))


def test_model_card(tmp_path):
    facts = {"command": "dit-nb digits --steps 7", "data": "real digits"}
    save_model(latent_model(), tmp_path / "a", {**SAMPLING, **facts, "metrics": {"accuracy": 0.993}})
    latent_model(num_classes=0).save_pretrained(tmp_path / "b")
    card, plain = ((tmp_path / name / "README.md").read_text() for name in "ab")
    shape = "Blocks: adaln_zero, depth 2, width 32, heads 2"
    for text in ("arxiv.org/abs/2212.09748", shape, "Classes: 10", "| accuracy | 0.993 |", *facts.values()):
        assert text in card
    assert "Classes: none" in plain and "not recorded" in plain
    for text in (card, plain):
        assert not re.search("More Information|{{|%}|apache", text)
        assert text.startswith("---\nlibrary_name: dit_nb")


def test_push_uploads_everything_that_sampling_needs(monkeypatch):
    sent = {}

    class Api:
        def __init__(self, token=None):
            sent["token"] = token

        def create_repo(self, repo_id, **options):
            return argparse.Namespace(repo_id=repo_id)

        def upload_folder(self, repo_id, folder_path, **options):
            sent.update(options, repo=repo_id, files=sorted(os.listdir(folder_path)))
            sent["card"] = (folder_path / "README.md").read_text()
            return "https://a.hub/commit"

    monkeypatch.setattr("dit_nb.pretrained.HfApi", Api)
    sampling = {**SAMPLING, "command": "x"}
    commit = push_model(latent_model(), "user/name", sampling, token="t", revision="v2")
    assert commit == "https://a.hub/commit"
    assert sent["files"] == ["README.md", "config.json", "model.safetensors", "sampling.json"]
    assert (sent["repo"], sent["token"], sent["revision"]) == ("user/name", "t", "v2")
    assert 'load_model("user/name")' in sent["card"]


@pytest.fixture(scope="module")
def seven():
    """Seven images of the digit model, and the noise that they start from."""
    model, sampling = digit_model()
    labels, noise = torch.arange(7) + 2, []
    options = {"steps": "4", "cfg_scale": 2.0, "progress": False}
    record = lambda step: noise.append(step.x_t) if step.i == 0 else None  # noqa: E731
    images = sample_images(model, sampling, labels, 7, 5, callback=record, **options)
    return model, sampling, labels, options, images, noise[0]


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
@pytest.mark.parametrize("batch_size,world_size", [(1, 1), (3, 1), (7, 1), (2, 2), (3, 4), (5, 9)])
def test_images_do_not_depend_on_batches_and_processes(seven, batch_size, world_size, sampler):
    model, sampling, labels, options, images, noise = seven
    if sampler == "ddim":
        images = sample_images(model, sampling, labels, 7, 5, sampler=sampler, **options)
    got, start, order = torch.zeros_like(images), torch.zeros_like(images), []
    options = {**options, "batch_size": batch_size, "world_size": world_size, "sampler": sampler}
    for rank in range(world_size):
        seen = []
        record = lambda step: seen.append(step.x_t) if step.i == 0 else None  # noqa: B023, E731
        batches = sample_batches(model, sampling, labels, 7, 5, rank=rank, callback=record, **options)
        for indices, samples in batches:
            assert 0 < len(indices) <= batch_size
            got[indices], start[indices] = samples, seen.pop()
            order += indices.tolist()
    assert sorted(order) == list(range(7))
    assert torch.equal(start, noise)
    assert torch.allclose(got, images, atol=1e-4)


def test_images_and_seeds_differ(seven):
    model, sampling, _, options, images, _ = seven
    labels = torch.full((3,), 4)
    a = sample_images(model, sampling, labels, 3, 5, first=2, **options)
    b = sample_images(model, sampling, labels, 3, 6, first=2, **options)
    assert torch.allclose(a[0], images[2], atol=1e-4), "image 2 of seed 5 is a 4 in both"
    assert (a[0] - a[1]).abs().max() > 0.1
    assert (a - b).abs().amax((1, 2, 3)).min() > 0.1


def test_wrong_input(seven):
    model, sampling, labels, options, *_ = seven
    for change, pattern in ((dict(seed=-1), "seed is -1"), (dict(first=-3), "first.*-3")):
        with raises_input_error(pattern):
            sample_images(model, sampling, labels, 7, **change, **options)
    for change, pattern in (
        (dict(n=6), "labels has.*7.*6"),
        (dict(batch_size=0), "batch_size is 0"),
        (dict(rank=2, world_size=2), r"rank is 2.*\[0, 1\]"),
    ):
        with raises_input_error(pattern):
            sample_batches(model, sampling, labels, **{"n": 7, **change})
