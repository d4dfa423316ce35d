"""Saved and shared models with their sampling settings; samples that depend on seed and index alone."""

import argparse
import json
import os
import re
import warnings
from dataclasses import replace
from functools import partial
from importlib.resources import files

import numpy as np
import pytest
import torch

from dit_nb import Diffusion, DiT, DiTConfig, SamplingConfig
from dit_nb.data import digits
from dit_nb.evaluation import DigitClassifier, evaluate_digits
from dit_nb.guidance import Guided
from dit_nb.pretrained import (
    block_model,
    digit_model,
    load_model,
    make_diffusion,
    push_model,
    sample_batches,
    sample_images,
    save_model,
)
from dit_nb.schedule import linear_betas
from dit_nb.since.flow import flow_sample
from dit_nb.since.meanflow import MeanFlowDiT
from dit_nb.since.mmdit import MMDiT, MMDiTConfig
from dit_nb.since.targets import TargetFlow
from dit_nb.speed import InferenceModel
from dit_nb.utils import seeded_generator
from support import latent_model, raises_input_error, randomize, same_weights

SAMPLING = SamplingConfig()


def test_revisions_of_a_hub_repository(tmp_path):
    """The Hub's own client, on a cache with its layout; nothing is downloaded."""
    cache, models = tmp_path / "models--user--name", {"main": latent_model(0), "v1": latent_model(1)}
    for revision, commit in (("main", "a" * 40), ("v1", "b" * 40)):
        save_model(models[revision], cache / "snapshots" / commit, replace(SAMPLING, bins=len(revision)))
        (cache / "refs").mkdir(exist_ok=True)
        (cache / "refs" / revision).write_text(commit)
    offline = dict(cache_dir=tmp_path, local_files_only=True)
    for revision, wanted in ((None, "main"), ("v1", "v1"), ("b" * 40, "v1")):
        assert same_weights(DiT.from_pretrained("user/name", revision=revision, **offline), models[wanted])
        model, sampling = load_model("user/name", revision=revision, **offline)
        assert same_weights(model, models[wanted]) and sampling.bins == len(wanted)
    with raises_input_error("user/name.*Hub"):
        DiT.from_pretrained("user/name", revision="v2", **offline)


def test_model_without_sampling_settings(tmp_path):
    latent_model().save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="has no sampling.json: the objective.*assumed") as caught:
        assert load_model(tmp_path)[1] == replace(SAMPLING, clip_x0=False)
    assert len(caught) == 1


def test_save_pretrained_with_sampling_settings(tmp_path):
    """What `save_model` writes; a model of rectified flow does not come back as one of diffusion."""
    sampling = SamplingConfig(objective="flow", steps="10", clip_x0=False)
    latent_model().save_pretrained(tmp_path / "a", sampling, data="real digits")
    save_model(latent_model(), tmp_path / "b", replace(sampling, card={"data": "real digits"}))
    for name in ("sampling.json", "README.md", "config.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_model(tmp_path / "a")[1].objective == "flow"


@pytest.mark.parametrize(
    "options, pattern",
    [
        ({"push_to_hub": True}, "push_to_hub is True, but no such option.*push_model"),
        ({"safe_serialization": False}, "safe_serialization is False, but no such option.*data, command"),
        ({"sampling": "cosine"}, "sampling is 'cosine', but must be of the class SamplingConfig"),
    ],
)
def test_unknown_options_of_save_pretrained(options, pattern, tmp_path):
    with raises_input_error(pattern):
        latent_model().save_pretrained(tmp_path / "a", **options)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "kind", [torch.uint8, torch.int16, torch.int32, np.uint8, np.int64, "list of np.int64"]
)
def test_labels_of_any_integer_type(kind):
    model, sampling = latent_model(), replace(SAMPLING, steps="2", sampler="ddim", class_names=None)
    numbers = [3, 0, 9]
    if isinstance(kind, torch.dtype):
        labels = torch.tensor(numbers, dtype=kind)
    else:
        labels = list(np.array(numbers)) if isinstance(kind, str) else np.array(numbers, dtype=kind)
    want = sample_images(model, sampling, numbers, progress=False)
    got = sample_images(model, sampling, labels, n=np.int64(3), seed=np.int64(0), progress=False)
    assert torch.equal(got, want)
    with raises_input_error("n is True, but must be an integer"):
        sample_images(model, sampling, labels, n=True, progress=False)
    with raises_input_error("labels is"):
        sample_images(model, sampling, np.array([0.5, 1.0]), progress=False)


def test_truncated_weights(tmp_path):
    save_model(latent_model(), tmp_path, SAMPLING)
    content = (tmp_path / "model.safetensors").read_bytes()
    for kept in (0, 5, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "model.safetensors").write_bytes(content[:kept])
        with raises_input_error("model.safetensors"):
            load_model(str(tmp_path))


def test_model_card(tmp_path):
    facts = {"command": "dit-nb digits --steps 7", "data": "real digits"}
    card = {**facts, "metrics": {"accuracy": 0.993}}
    save_model(latent_model(), tmp_path / "a", replace(SAMPLING, card=card))
    latent_model(num_classes=0).save_pretrained(tmp_path / "b")
    card, plain = ((tmp_path / name / "README.md").read_text() for name in "ab")
    shape = "Blocks: adaln_zero, depth 2, width 32, heads 2"
    for text in ("arxiv.org/abs/2212.09748", shape, "Classes: 10", "| accuracy | 0.993 |", *facts.values()):
        assert text in card
    assert "Classes: none" in plain and "not recorded" in plain
    for text in (card, plain):
        assert not re.search("More Information|{{|%}|apache", text)
        assert text.startswith("---\nlibrary_name: dit_nb")


_SMALL = dict(input_size=8, patch_size=2, in_channels=3, hidden_size=32, depth=1, num_heads=2)
_FLOW = SamplingConfig(steps="2", objective="flow")


@pytest.mark.parametrize(
    "make, sampling, says",
    [
        (
            lambda: DiT(DiTConfig(**_SMALL, num_classes=3)),
            SamplingConfig(steps="2"),
            "the noise; variance learned",
        ),
        (
            lambda: DiT(DiTConfig(**_SMALL, num_classes=0, block="modern", switches=("rope", "qk_norm"))),
            replace(_FLOW, predicts="image"),
            "Blocks: modern (rope, qk_norm).*the image of straight paths",
        ),
        (lambda: MMDiT(MMDiTConfig(**_SMALL, vocabulary=("pear",))), _FLOW, "MM-DiT.*texts of 1 words.*pear"),
        (lambda: MMDiT(MMDiTConfig(**_SMALL)), _FLOW, "MM-DiT.*encoded texts.*the velocity"),
        (
            lambda: MeanFlowDiT(DiTConfig(**_SMALL, num_classes=3, learn_sigma=False)),
            SamplingConfig(steps="2", objective="mean_flow"),
            "average velocity",
        ),
    ],
)
def test_what_a_card_says_of_a_model_and_the_code_that_it_shows_runs(make, sampling, says, tmp_path):
    save_model(make(), tmp_path, sampling)
    card = (tmp_path / "README.md").read_text()
    assert re.search(says.replace("(", "\\(").replace(")", "\\)"), card, re.DOTALL)
    use = card[card.index("## Use") : card.index("## Training")].replace("this folder", str(tmp_path))
    names = {}
    exec("\n".join(line[4:] for line in use.splitlines() if line.startswith("    ")), names)
    assert names["images"].shape == (1, 3, 8, 8) and names["images"].isfinite().all()


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
    sampling = replace(SAMPLING, card={"command": "x"})
    commit = push_model(latent_model(), "user/name", sampling, token="t", revision="v2")
    assert commit == "https://a.hub/commit"
    assert sent["files"] == ["README.md", "config.json", "model.safetensors", "sampling.json"]
    assert (sent["repo"], sent["token"], sent["revision"]) == ("user/name", "t", "v2")
    assert 'load_model("user/name")' in sent["card"]
    assert sampling.card == {"command": "x"}  # the settings passed in stay as they are


# Sampling settings

BETAS = tuple(linear_betas(7).tolist())
OTHER = SamplingConfig(  # every field differs from its default
    schedule=BETAS,
    num_timesteps=7,
    variance="fixed_small",
    bins=17,
    clip_x0=False,
    time_density="uniform",
    time_shift=3.0,
    sampler="ddim",
    steps=5,
    cfg_scale=1.5,
    guided_channels=3,
    class_names=tuple("abcdefghij"),
    vae={"name": "user/vae", "scale": 0.18215},
    card={"data": "animals", "metrics": {"accuracy": 0.5}},
)


@pytest.mark.parametrize("sampling", [SAMPLING, OTHER], ids=["defaults", "all changed"])
def test_settings_are_the_same_after_loading(tmp_path, sampling):
    save_model(latent_model(), tmp_path, sampling)
    again = load_model(tmp_path)[1]
    assert again == sampling and isinstance(again, SamplingConfig)
    assert torch.equal(make_diffusion(again).betas, make_diffusion(sampling).betas)


FLOW = SamplingConfig(objective="flow", time_density=(0.5, 2.0), time_shift=3.0, predicts="image", steps="20")


def test_settings_of_a_flow_are_the_same_after_loading(tmp_path):
    model = latent_model(learn_sigma=False)
    save_model(model, tmp_path, FLOW)
    again = load_model(tmp_path)[1]
    assert again == FLOW and again.sampler == "euler"
    flow = make_diffusion(again)
    assert isinstance(flow, TargetFlow) and flow.predicts == "image"
    assert (flow.density, flow.shift) == ((0.5, 2.0), 3.0)


@pytest.mark.parametrize("sampler", ["euler", "heun", "stochastic"])
def test_flow_samples_are_those_of_flow_sample(sampler):
    """Each image by its own noise, with guidance, in shifted steps."""
    model = randomize(latent_model(learn_sigma=False)).eval()
    sampling = replace(FLOW, sampler=sampler, steps="3", cfg_scale=1.7, clip_x0=False)
    images = sample_images(model, sampling, [1, 4], seed=5, progress=False)
    generators = [seeded_generator(5, 2, i) for i in range(2)]
    wanted = flow_sample(
        TargetFlow("image", shift=3.0).respaced(3),
        Guided(model, 1.7),
        images.shape,
        torch.tensor([1, 4]),
        step=sampler,
        generator=generators,
        progress=False,
    )
    torch.testing.assert_close(images, wanted)
    assert not torch.allclose(
        images, sample_images(model, replace(sampling, time_shift=1.0), [1, 4], seed=5, progress=False)
    )


@pytest.mark.parametrize(
    "fields, word",
    [
        ({"objective": "flow", "sampler": "ddpm"}, "sampler"),
        ({"sampler": "heun"}, "sampler"),
        ({"objective": "flow", "steps": "10,20"}, "steps"),
        ({"objective": "flows"}, "objective"),
        ({"objective": "flow", "time_shift": 0}, "time_shift"),
        ({"objective": "flow", "time_density": "normal"}, "time_density"),
    ],
)
def test_settings_that_no_flow_can_have(fields, word):
    with raises_input_error(word):
        SamplingConfig(**fields)


def test_all_fields_were_changed():
    for name in SamplingConfig.__dataclass_fields__.keys() - {"objective", "predicts"}:  # FLOW has others
        assert getattr(OTHER, name) != getattr(SAMPLING, name), name
    assert OTHER.steps == "5"  # given as a number


def test_betas_of_the_settings_are_those_of_the_process():
    """In float64, as the named schedule has them."""
    assert torch.equal(make_diffusion(OTHER).alphas_cumprod, Diffusion("linear", 7).alphas_cumprod)
    assert make_diffusion(OTHER).variance == "fixed_small" and make_diffusion(OTHER).bins == 17


@pytest.mark.parametrize(
    "field,value",
    [
        ("schedule", "quadratic"),
        ("variance", "small"),
        ("sampler", "euler"),
        ("num_timesteps", 0),
        ("num_timesteps", 1000.0),
        ("bins", 1),
        ("bins", True),
        ("clip_x0", "yes"),
        ("steps", 0),
        ("steps", 2.5),
        ("cfg_scale", "1"),
        ("cfg_scale", float("nan")),
        ("cfg_scale", float("inf")),
        ("guided_channels", 0),
        ("guided_channels", 1.5),
    ],
)
def test_wrong_settings_are_named(tmp_path, field, value):
    with raises_input_error(f"{field} is {value!r}"):
        SamplingConfig(**{field: value})
    with raises_input_error(f"{field} is {value!r}"):
        replace(SAMPLING, **{field: value})
    save_model(latent_model(), tmp_path, SAMPLING)
    path = tmp_path / "sampling.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with raises_input_error(f"{field} is {value!r}"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "content,pattern",
    [
        (json.dumps({"process": "linear"}), "'process'"),
        ("[1, 2]", "SamplingConfig"),
        ("{", "SamplingConfig"),
        (b"\xff\xfe\xfa", "SamplingConfig"),
    ],
    ids=["unknown field", "list", "truncated", "bytes"],
)
def test_damaged_settings(tmp_path, content, pattern):
    save_model(latent_model(), tmp_path, SAMPLING)
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "sampling.json").write_bytes(content)
    with raises_input_error(f"sampling.json.*{pattern}"):
        load_model(tmp_path)


def test_impossible_betas_are_refused_when_they_are_used():
    with raises_input_error(r"betas.*\(2,\).*\(0, 1\)"):
        make_diffusion(replace(SAMPLING, schedule=(0.1, 1.5)))


def test_save_model_takes_no_dict(tmp_path):
    with raises_input_error("sampling is dict.*SamplingConfig"):
        save_model(latent_model(), tmp_path, {"bins": 17})


def test_missing_models(tmp_path):
    for source in (tmp_path, tmp_path / "nowhere", str(tmp_path / "nowhere")):
        with pytest.raises(FileNotFoundError, match=re.escape(str(source))):
            load_model(source)


def test_each_digit_model_is_a_copy():
    first, sampling = digit_model()
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    second, again = digit_model()
    assert not same_weights(first, second) and again == sampling and not second.training


# Four models that differ in the block

FOUR_BLOCKS = ("in_context", "cross_attention", "adaln", "adaln_zero")


@pytest.fixture(scope="module")
def classifier():
    return DigitClassifier(digits())


@pytest.mark.parametrize("block", FOUR_BLOCKS)
def test_block_models_differ_in_the_block_alone(block):
    model, sampling = block_model(block)
    first, first_sampling = block_model(FOUR_BLOCKS[0])
    assert model.config == replace(first.config, block=block) and not model.training
    card, first_card = sampling.card, first_sampling.card
    assert card["command"] == first_card["command"].replace(FOUR_BLOCKS[0], block)
    assert all(card["metrics"][k] == first_card["metrics"][k] for k in ("steps", "seed", "samples"))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == card["metrics"]["parameters"]
    assert replace(sampling, card={}) == replace(first_sampling, card={})


@pytest.mark.parametrize("block", FOUR_BLOCKS)
def test_block_models_are_small_files_and_float32_copies(block):
    path = files("dit_nb") / "models" / "blocks" / block / "model.safetensors"
    assert path.stat().st_size < 1_000_000
    model = block_model(block)[0]
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert torch.equal(model.pos_embed.cpu(), DiT(model.config).pos_embed)  # not rounded
    with torch.no_grad():
        model.pos_embed.zero_()
    assert block_model(block)[0].pos_embed.any()


@pytest.mark.parametrize("block", FOUR_BLOCKS)
def test_block_models_write_digits(block, classifier):
    """100 of the 1000 recorded samples: their accuracy is that of all, within 4 standard deviations of a share."""
    model, sampling = block_model(block)
    sample = partial(sample_images, InferenceModel(model), sampling, progress=False)
    images = torch.cat([sample(labels=[k] * 10, first=100 * k) for k in range(10)])
    labels = torch.arange(10).repeat_interleave(10)
    accuracy = classifier.accuracy(images.cpu(), labels)
    recorded = sampling.card["metrics"]["accuracy"]
    assert abs(accuracy - recorded) < 4 * (recorded * (1 - recorded) / 100) ** 0.5 + 0.01
    assert accuracy > 0.3  # by chance 0.1, with a standard deviation of 0.03


@pytest.mark.slow
@pytest.mark.parametrize("block", FOUR_BLOCKS)
def test_recorded_metrics_of_block_models(block, classifier):
    """Recorded before rounding to float16: which moved one digit in a thousand at most, and Fréchet by 0.02 %."""
    model, sampling = block_model(block)
    labels = torch.arange(10).repeat_interleave(100)
    images = sample_images(InferenceModel(model), sampling, labels, progress=False).cpu()
    got, recorded = evaluate_digits(images, labels, digits(), classifier), sampling.card["metrics"]
    assert abs(got["accuracy"] - recorded["accuracy"]) <= 0.01
    assert got["frechet"] == pytest.approx(recorded["frechet"], rel=0.02)


def test_unknown_block_models():
    with raises_input_error("block is 'unet'.*in_context"):
        block_model("unet")


# Samples


@pytest.fixture(scope="module")
def seven():
    """Seven images of the digit model, and the noise that they start from."""
    model, sampling = digit_model()
    labels, noise = torch.arange(7) + 2, []
    sampling = replace(sampling, steps=4, cfg_scale=2.0)
    record = lambda step: noise.append(step.x_t) if step.i == 0 else None  # noqa: E731
    images = sample_images(model, sampling, labels, seed=5, callback=record, progress=False)
    return model, sampling, labels, images, noise[0]


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
@pytest.mark.parametrize("batch_size,world_size", [(1, 1), (3, 1), (7, 1), (2, 2), (3, 4), (5, 9)])
def test_images_do_not_depend_on_batches_and_processes(seven, batch_size, world_size, sampler):
    model, sampling, labels, images, noise = seven
    if sampler == "ddim":
        sampling = replace(sampling, sampler="ddim")
        images = sample_images(model, sampling, labels, seed=5, progress=False)
    got, start, order, seen = torch.zeros_like(images), torch.zeros_like(images), [], []
    record = lambda step: seen.append(step.x_t) if step.i == 0 else None  # noqa: E731
    sample = partial(sample_images, callback=record, progress=False)
    options = {"seed": 5, "batch_size": batch_size, "world_size": world_size, "sample": sample}
    for rank in range(world_size):
        for indices, samples in sample_batches(model, sampling, labels, 7, rank=rank, **options):
            assert 0 < len(indices) <= batch_size
            got[indices], start[indices] = samples, seen.pop()
            order += indices.tolist()
    assert sorted(order) == list(range(7))
    assert torch.equal(start, noise)
    assert torch.allclose(got, images, atol=1e-4)


def test_images_and_seeds_differ(seven):
    model, sampling, _, images, _ = seven
    a, b = (sample_images(model, sampling, [4] * 3, seed=s, first=2, progress=False) for s in (5, 6))
    assert torch.allclose(a[0], images[2], atol=1e-4), "image 2 of seed 5 is a 4 in both"
    assert (a[0] - a[1]).abs().max() > 0.1
    assert (a - b).abs().amax((1, 2, 3)).min() > 0.1


def test_wrong_input(seven):
    model, sampling, labels, *_ = seven
    for change, pattern in (
        (dict(seed=-1), "seed is -1"),
        (dict(first=-3), "first.*-3"),
        (dict(labels=["three", "12"]), "labels is .*three.*names"),
        (dict(labels=torch.tensor(3)), r"labels has shape \(\)"),
        (dict(labels=[3, 12]), r"labels.*12.*\[0, 9\]"),
        (dict(labels=[1.5]), "labels is torch.float32.*integers"),
        (dict(labels=None), "n is missing"),
        (dict(labels=None, n=2), "y is missing"),
        (dict(labels=None, n=-1), "n is -1"),
        (dict(n=6), "n is 6.*7"),
        (dict(sampling={"steps": "4"}), "sampling is dict.*SamplingConfig"),
        (dict(sampling=replace(sampling, steps="2000")), "steps is '2000'"),
        (dict(sampling={"steps": "4"}, steps=3), "sampling is .*SamplingConfig"),
        (dict(steps=2000), "steps is '2000'"),
        (dict(cfg_scale="4"), "cfg_scale is '4'"),
        (dict(step=3), "setting is 'step', but must be one of .*steps"),
    ):
        for one in (model, InferenceModel(model)):
            arguments = {"sampling": sampling, "labels": labels, "progress": False, **change}
            with raises_input_error(pattern):
                sample_images(one, **arguments)
    for change, pattern in (
        (dict(n=6), "n is 6.*labels, 7"),
        (dict(batch_size=0), "batch_size is 0"),
        (dict(rank=2, world_size=2), r"rank is 2.*\[0, 1\]"),
    ):
        with raises_input_error(pattern):
            sample_batches(model, sampling, labels, **{"n": 7, **change})


def test_labels_are_a_list_or_a_tensor(seven):
    model, sampling, labels, images, _ = seven
    options = dict(seed=5, progress=False)
    assert torch.equal(sample_images(model, sampling, labels.tolist(), **options), images)
    assert torch.equal(sample_images(model, sampling, labels, 7, **options), images)
    named = replace(sampling, class_names=tuple("abcdefghij"))
    names = ["abcdefghij"[k] for k in labels.tolist()]
    assert torch.equal(sample_images(model, named, names, **options), images)
    animals = replace(sampling, class_names=("cat", "dog", *(f"kind-{k}" for k in range(8))))
    with raises_input_error("labels is .*dgo.*such as dog[.]"):
        sample_images(model, animals, ["cat", "dgo"], progress=False)
    with raises_input_error("labels is .*whale.*such as cat, dog, kind-0"):
        sample_images(model, animals, ["whale"], progress=False)
    sample = partial(sample_images, progress=False)
    ((_, batch),) = sample_batches(model, sampling, labels.tolist(), 7, seed=5, sample=sample)
    assert torch.equal(batch, images)


def test_a_model_without_classes_needs_a_number():
    model, sampling = latent_model(num_classes=0), replace(SAMPLING, clip_x0=False, steps=2)
    images = sample_images(model, sampling, n=3, progress=False)
    assert images.shape == (3, 4, 8, 8) and images.std() > 0.1
    for one in (model, InferenceModel(model)):
        with raises_input_error("y is given.*no classes"):
            sample_images(one, sampling, [1, 2], progress=False)
        with raises_input_error("cfg_scale is 2.*null class"):
            sample_images(one, replace(sampling, cfg_scale=2.0), n=2, progress=False)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_an_inference_model_gives_the_same_images(seven, sampler):
    model, sampling, labels, *_ = seven
    sampling = replace(sampling, sampler=sampler)
    plain, fast = (
        sample_images(one, sampling, labels, seed=5, progress=False) for one in (model, InferenceModel(model))
    )
    assert (plain - fast).abs().max() < 1e-5 and plain.std() > 0.5


@pytest.mark.parametrize(
    "field,value", [("sampler", "ddim"), ("steps", 6), ("variance", "fixed_large"), ("clip_x0", False)]
)
def test_settings_reach_the_sampler(seven, field, value):
    model, sampling, labels, images, _ = seven
    other = sample_images(model, replace(sampling, **{field: value}), labels, seed=5, progress=False)
    assert (other - images).abs().max() > 0.01
    changed = sample_images(model, sampling, labels, seed=5, progress=False, **{field: value})
    assert torch.equal(changed, other)


def test_class_names_fit_the_model(tmp_path):
    with raises_input_error("class_names has 2.*10"):
        save_model(latent_model(), tmp_path, replace(SAMPLING, class_names=("cat", "dog")))


def test_settings_of_a_model_saved_without_them(tmp_path):
    for channels, clip in ((4, False), (3, True)):  # latents and pixels
        latent_model(in_channels=channels, learn_sigma=False).save_pretrained(tmp_path / str(channels))
        sampling = load_model(tmp_path / str(channels))[1]
        assert sampling == SamplingConfig(clip_x0=clip, variance="fixed_large")


def test_a_model_with_its_own_y_embedder_from_the_hub(tmp_path, monkeypatch):
    class Embedder(torch.nn.Linear):
        def forward(self, y, drop=None):
            return super().forward(y[:, None])

    model = DiT(DiTConfig(8, 2, 4, 32, 1, 2, num_classes=0), y_embedder=Embedder(1, 32))
    save_model(model, tmp_path, SAMPLING)
    with raises_input_error("y_embedder"):
        load_model(tmp_path)
    monkeypatch.setattr("dit_nb.hub.hf_hub_download", lambda repo, name, **_: str(tmp_path / name))
    loaded, _ = load_model("user/name", y_embedder=Embedder(1, 32), revision="main")
    assert torch.equal(loaded.y_embedder.weight.cpu(), model.y_embedder.weight)


# Checkpoints and runs, devices, permissions


@pytest.fixture
def run(tmp_path):
    """A run of two checkpoints: weights, and their average, in the layout that a `Checkpointer` writes."""
    for step in (5, 10):
        folder = tmp_path / "run" / "checkpoints" / f"step-{step:08d}"
        save_model(latent_model(step), folder, replace(SAMPLING, bins=step))
        latent_model(step + 1).save_pretrained(tmp_path / "average")
        (tmp_path / "average" / "model.safetensors").rename(folder / "ema.safetensors")
    return tmp_path / "run"


def test_a_checkpoint_is_a_model_and_a_run_its_last(run):
    for source, step in ((run, 10), (run / "checkpoints", 10), (run / "checkpoints/step-00000005", 5)):
        model, sampling = load_model(source)
        assert same_weights(model, latent_model(step + 1)) and sampling.bins == step
        assert same_weights(load_model(str(source), weights="model")[0], latent_model(step))
        assert same_weights(DiT.from_pretrained(source), latent_model(step + 1))
    save_model(latent_model(0), run / "model", SAMPLING)
    assert same_weights(load_model(run)[0], latent_model(11))
    for folder in run.glob("checkpoints/*"):
        folder.rename(run / folder.name)  # no checkpoints any more: the model at the end of the run
    assert same_weights(load_model(run)[0], latent_model(0))
    with raises_input_error("weights is 'raw'.*ema, model"):
        load_model(run, weights="raw")


def test_devices_and_number_formats(tmp_path):
    save_model(latent_model(), tmp_path, SAMPLING)
    for model, _ in (
        load_model(tmp_path, device="meta", dtype=torch.bfloat16),
        digit_model("meta", torch.bfloat16),
        block_model("adaln", "meta", torch.bfloat16),
    ):
        assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.bfloat16)}
    assert next(DiT.from_pretrained(tmp_path).parameters()).device.type == "cpu"
    for options, pattern in (
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"device": 1.5}, "device is 1.5"),
        ({"dtype": torch.int8}, "dtype is torch.int8.*floating point"),
        ({"dtype": "fp16"}, "dtype is 'fp16'.*floating point"),
        ({"torch_dtype": torch.float16}, "torch_dtype.*use dtype"),
        ({"device_map": "auto"}, "device_map is 'auto'.*use device"),
        ({"strict": False}, "strict is False.*revision"),
    ):
        with raises_input_error(pattern):
            load_model(tmp_path, **options)
        with raises_input_error(pattern):
            DiT.from_pretrained(tmp_path, **options)


def test_everybody_who_may_read_a_file_may_read_the_weights(tmp_path):
    save_model(latent_model(), tmp_path, SAMPLING)
    modes = {path.name: path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 4 and len(set(modes.values())) == 1, modes


def test_fields_that_a_file_of_settings_leaves_out_follow_from_the_model(tmp_path):
    save_model(latent_model(learn_sigma=False), tmp_path, SAMPLING)
    (tmp_path / "sampling.json").write_text("{}")
    assert load_model(tmp_path)[1] == SamplingConfig(variance="fixed_large", clip_x0=False)
    (tmp_path / "sampling.json").write_text('{"class_names": ["cat"]}')
    with raises_input_error("sampling.json.*class_names has 1.*10"):
        load_model(tmp_path)


def test_weights_of_whole_numbers(tmp_path):
    save_model(latent_model(), tmp_path, SAMPLING)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"I32"', 1))
    with raises_input_error("model.safetensors.*int32.*floating point"):
        load_model(tmp_path)


def test_a_configuration_of_a_huge_model_costs_no_memory(tmp_path):
    save_model(latent_model(), tmp_path, SAMPLING)
    path, text = tmp_path / "config.json", (tmp_path / "config.json").read_text()
    too_large, other = "must be an integer from 1 to 1048576", "does not fit its config.json"
    for old, new, message in (
        ('"depth": 2', '"depth": 999999999', too_large),
        ('"depth": 2', '"depth": 999999', other),
        ('"hidden_size": 32', '"hidden_size": 3200000', too_large),
        ('"hidden_size": 32', '"hidden_size": 320000', other),
    ):
        path.write_text(text.replace(old, new))
        with raises_input_error(message):
            load_model(tmp_path)


def test_without_a_network_a_hub_id_is_refused_at_once(monkeypatch):
    asked = []
    monkeypatch.setattr("dit_nb.hub.get_hf_file_metadata", lambda *_, **__: 1 / 0)
    monkeypatch.setattr("time.sleep", asked.append)  # the Hub's client waits between its attempts
    with raises_input_error("runs/typo is not a folder.*Hub"):
        load_model("runs/typo")
    assert not asked
