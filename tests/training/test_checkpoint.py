"""Checkpoints: a run that is killed with SIGKILL, anywhere, ends with identical weights; other runs are refused."""

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dit_nb import DiT
from dit_nb.checkpoint import Checkpointer, checkpoints
from dit_nb.config import SamplingConfig
from dit_nb.data import ImageSet, digits
from dit_nb.pretrained import load_model, make_diffusion
from dit_nb.since.flow import RectifiedFlow
from dit_nb.since.targets import TargetFlow
from dit_nb.training import Trainer, learning_rate
from support import raises_input_error
from support_training import HALFWAY, SHAPE, TRAIN, Latents, fit, make_trainer

STEPS = 24
COMMAND = f"""train --data digits --steps {STEPS} --save-every 4 --keep 2 --sample-every 1000 --batch-size 16
--hidden-size 32 --depth 2 --num-heads 2 --lr 0.002 --lr-schedule cosine --warmup-steps 5 --ema-decay 0.9
--precision fp32 --grad-clip 1.0 --flip --seed 3""".split()
# `python -c KILLED WHERE:N ...` runs dit-nb and sends itself SIGKILL when the N-th call of WHERE has returned.
KILLED = """
import os, signal, sys
from dit_nb import checkpoint
from dit_nb.cli import main
from dit_nb.training import Trainer
where, n = sys.argv.pop(1).split(":")
owner, calls = (Trainer if where == "step" else checkpoint), []
real = getattr(owner, where)
def killing(*args, **options):
    result = real(*args, **options)
    calls.append(1)
    if len(calls) == int(n):
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(owner, where, killing)
sys.exit(main(sys.argv[1:]))
"""
# After the 6th step: checkpoint 4 is there. Two files are saved by `_save_tensors` for each checkpoint, so that
# "_save_tensors:3" leaves checkpoint 8 half written, and "_write_checkpoint:3" leaves checkpoint 12 and those before it.
KILLS = {
    "after a step": (["step:6"], [4], []),
    "while the first checkpoint is written": (["_save_tensors:1"], [], [4]),
    "while another checkpoint is written": (["_save_tensors:3"], [4], [8]),
    "before the oldest checkpoint is removed": (["_write_checkpoint:3"], [4, 8, 12], []),
    "after a step, then while a checkpoint is written": (["step:10", "_save_tensors:1"], [4, 8], [12]),
}


def train(out: Path, *more: str, kill: str = "step:0") -> int:
    """Train in a process of its own, and return its exit status."""
    words = [sys.executable, "-c", KILLED, kill, *COMMAND, "--out", str(out), *more]
    done = subprocess.run(
        words, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stdout + done.stderr
    return done.returncode


def hashes(out: Path) -> dict[str, str]:
    """Hashes of the last weights and of their average."""
    last, average = checkpoints(out)[-1] / "model.safetensors", out / "model" / "model.safetensors"
    tensors = {(path.name, key): value for path in (last, average) for key, value in load_file(path).items()}
    return {str(key): hashlib.sha256(value.numpy().tobytes()).hexdigest() for key, value in tensors.items()}


def steps_of(paths) -> list[int]:
    return sorted(int(path.name.split("-")[1].split(".")[0]) for path in paths)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Hashes of a run that was not interrupted."""
    out = tmp_path_factory.mktemp("uninterrupted")
    assert train(out) == 0
    return hashes(out)


@pytest.mark.slow
@pytest.mark.parametrize("kills, complete, unfinished", KILLS.values(), ids=KILLS)
def test_killed_and_resumed(uninterrupted, tmp_path, kills, complete, unfinished):
    for kill in kills:
        resume = ["--resume"] if checkpoints(tmp_path) else []
        assert train(tmp_path, *resume, kill=kill) == -signal.SIGKILL
    assert steps_of(checkpoints(tmp_path)) == complete
    assert steps_of((tmp_path / "checkpoints").glob(".step-*")) == unfinished
    assert train(tmp_path, *(["--resume"] if checkpoints(tmp_path) else [])) == 0
    assert hashes(tmp_path) == uninterrupted
    assert steps_of(checkpoints(tmp_path)) == [STEPS - 4, STEPS], "`keep` checkpoints are kept"
    assert not list((tmp_path / "checkpoints").glob(".*")), "an unfinished checkpoint is removed"


def test_resuming_without_a_checkpoint(tmp_path):
    with raises_input_error(f"out.*{tmp_path}.*no checkpoint"):
        make_trainer(out=tmp_path).resume()
    with raises_input_error("out.*None"):
        make_trainer().resume()


def fewer_images() -> ImageSet:
    train = digits().train
    return ImageSet(train.images[:500], train.labels[:500], train.class_names)


def test_resuming_with_other_settings(tmp_path):
    fit(make_trainer(HALFWAY, out=tmp_path))
    (checkpoint,) = checkpoints(tmp_path)
    for config, shape, pattern in (
        (replace(TRAIN, lr=0.5), SHAPE, f"lr is 0.5.*0.0005.*{checkpoint}"),
        (replace(TRAIN, batch_size=3), SHAPE, f"batch_size is 3.*8.*{checkpoint}"),
        (TRAIN, replace(SHAPE, hidden_size=16), f"hidden_size is 16.*32.*{checkpoint}"),
    ):
        with raises_input_error(pattern):
            make_trainer(config, shape, out=tmp_path).resume()
    with raises_input_error(f"data has other images than {checkpoint}"):
        make_trainer(data=fewer_images(), out=tmp_path).resume()
    longer = make_trainer(replace(TRAIN, grad_accum_steps=2, keep=1, num_workers=1), out=tmp_path)
    longer.resume()
    assert longer.progress.step == 2


def test_a_checkpoint_older_than_a_setting_resumes(tmp_path):
    """As if it were written before the fields existed; the run's values are their defaults."""
    fit(make_trainer(HALFWAY, out=tmp_path))
    path = checkpoints(tmp_path)[0] / "run.json"
    settings = json.loads(path.read_text())
    del settings["model"]["switches"], settings["training"]["weight_decay"]
    path.write_text(json.dumps(settings))
    trainer = make_trainer(out=tmp_path)
    trainer.resume()
    assert trainer.progress.step == 2
    with raises_input_error("weight_decay is 0.5.*0.0"):
        make_trainer(replace(TRAIN, weight_decay=0.5), out=tmp_path).resume()


def test_resuming_with_other_frozen_weights(tmp_path):
    fit(make_trainer(HALFWAY, out=tmp_path))
    trainer = make_trainer(out=tmp_path)
    trainer.raw_model.x_embedder.requires_grad_(False)
    with raises_input_error(f"trained parameters is .*{checkpoints(tmp_path)[0]}"):
        trainer.resume()


def test_resuming_with_another_autoencoder(tmp_path):
    fit(make_trainer(HALFWAY, data=Latents(), out=tmp_path))
    other = Latents()
    for vae, pattern in (({"id": "b", "scale": 0.5}, "vae.id is b.* a,"), (None, "vae is None.*'id': 'a'")):
        other.vae = vae
        with raises_input_error(pattern):
            make_trainer(data=other, out=tmp_path).resume()


@pytest.mark.parametrize("name", ["model.safetensors", "ema.safetensors", "training.pt", "run.json"])
def test_a_damaged_checkpoint(tmp_path, name):
    fit(make_trainer(HALFWAY, out=tmp_path))
    (checkpoint,) = checkpoints(tmp_path)
    (checkpoint / name).write_bytes(b"damaged")
    with raises_input_error(f"(?i)checkpoint {checkpoint}"):
        make_trainer(out=tmp_path).resume()


def change_object(path, change):
    """Change what is in a file of PyTorch, or in a JSON file."""
    if path.suffix == ".json":
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
    else:
        torch.save(change(torch.load(path, weights_only=True)), path)


def without(*keys):
    """A function that removes an entry of nested dicts."""

    def remove(content):
        *above, last = keys
        inner = content
        for key in above:
            inner = inner[key]
        del inner[last]
        return content

    return remove


def replaced(key, **values):
    return lambda content: {**content, key: {**content[key], **values}}


DAMAGED = {  # what whole files of the right format must not lack
    "run.json is a list": ("run.json", lambda content: [1, 2]),
    "run.json is null": ("run.json", lambda content: None),
    "no settings of the data": ("run.json", without("data")),
    "a model that is text": ("run.json", lambda content: {**content, "model": "text"}),
    "settings that are text": ("run.json", lambda content: {**content, "training": "text"}),
    "training.pt is a list": ("training.pt", lambda content: [1, 2]),
    "no progress": ("training.pt", without("progress")),
    "no step": ("training.pt", without("progress", "step")),
    "another step": ("training.pt", replaced("progress", step=3)),
    "a step that is text": ("training.pt", replaced("progress", step="2")),
    "a history of text": ("training.pt", replaced("progress", history={"loss": ["a", "b"]})),
    "no optimizer": ("training.pt", without("optimizer")),
    "an optimizer that is empty": ("training.pt", lambda content: {**content, "optimizer": {}}),
    "no moments": ("training.pt", lambda content: {**content, "optimizer": {"state": 0, "param_groups": 0}}),
}


@pytest.mark.parametrize("name, change", DAMAGED.values(), ids=DAMAGED)
def test_a_checkpoint_with_other_contents(tmp_path, name, change):
    fit(make_trainer(HALFWAY, out=tmp_path))
    (checkpoint,) = checkpoints(tmp_path)
    change_object(checkpoint / name, change)
    with raises_input_error(f"Checkpoint {checkpoint} is damaged"):
        make_trainer(out=tmp_path).resume()


@pytest.mark.parametrize("name", ["model", "ema"])
def test_a_checkpoint_with_weights_of_another_model(tmp_path, name):
    fit(make_trainer(HALFWAY, out=tmp_path))
    (checkpoint,) = checkpoints(tmp_path)
    weights = load_file(checkpoint / f"{name}.safetensors")
    first = min(weights)
    for other in ({k: v for k, v in weights.items() if k != first}, {**weights, first: torch.zeros(1)}):
        save_file(other, checkpoint / f"{name}.safetensors")
        with raises_input_error(f"Checkpoint {checkpoint} is damaged"):
            make_trainer(out=tmp_path).resume()


def test_a_folder_with_checkpoints_is_refused_unless_the_run_is_resumed(tmp_path):
    make_trainer(out=tmp_path).fit(progress=False)
    before = sorted(path.name for path in checkpoints(tmp_path))
    with raises_input_error("out is .*no checkpoints.*resume"):
        make_trainer(out=tmp_path).fit(progress=False)
    assert sorted(path.name for path in checkpoints(tmp_path)) == before
    longer = make_trainer(replace(TRAIN, steps=6), out=tmp_path)
    longer.resume()
    longer.fit(progress=False)
    assert longer.progress.step == 6


def test_a_run_is_not_resumed_with_fewer_steps(tmp_path):
    make_trainer(out=tmp_path).fit(progress=False)
    shorter = make_trainer(HALFWAY, out=tmp_path)
    with raises_input_error("steps is 2.*4"):
        shorter.resume()
    assert shorter.progress.step == 0


def test_a_checkpoint_is_a_model(tmp_path):
    """The files that `load_model` reads; without options, the sampling settings are those of the diffusion."""
    trainer = make_trainer(HALFWAY, out=tmp_path)
    trainer.fit(progress=False)
    (checkpoint,) = checkpoints(tmp_path)
    model, sampling = load_model(checkpoint)  # the average
    weights = {k: v.to("cpu") for k, v in model.state_dict().items()}
    assert all(torch.equal(weights[k], v.cpu()) for k, v in trainer.ema.model.state_dict().items())
    assert make_diffusion(sampling).betas.tolist() == trainer.diffusion.betas.tolist()
    assert (sampling.bins, sampling.variance, sampling.class_names) == (17, "learned", tuple("0123456789"))
    assert sampling.clip_x0 and sampling.vae is None


@pytest.mark.parametrize(
    "flow",
    [
        RectifiedFlow("uniform", 2.0),
        RectifiedFlow((-0.4, 1.0)),
        TargetFlow("image", density=(-0.8, 0.8)),
        TargetFlow("noise", shift=3.0),
    ],
)
def test_a_checkpoint_of_a_flow_knows_density_shift_and_target(flow, tmp_path):
    config = replace(HALFWAY, steps=2)
    fit(Trainer(DiT(SHAPE), flow, digits().train, config, tmp_path))
    loaded = make_diffusion(load_model(checkpoints(tmp_path)[0])[1])
    assert type(loaded) is type(flow)
    for name in ("density", "shift", "predicts", "least"):
        assert getattr(loaded, name, None) == getattr(flow, name, None)


def test_a_flow_that_settings_cannot_describe_is_not_taken_for_another(tmp_path):
    fit(Trainer(DiT(SHAPE), TargetFlow("image", 0.1), digits().train, HALFWAY, tmp_path))
    with pytest.warns(UserWarning, match="has no sampling.json"):
        load_model(checkpoints(tmp_path)[0])


def test_sampling_settings_of_a_checkpoint_can_be_given(tmp_path):
    sampling = SamplingConfig(bins=17, cfg_scale=2.0)
    parts = {"checkpointer": Checkpointer(tmp_path, sampling=sampling)}
    make_trainer(HALFWAY, out=tmp_path, **parts).fit(progress=False)
    assert load_model(checkpoints(tmp_path)[0])[1] == sampling


# Other settings, when a run is resumed


def resumed(out, config, change=(), **parts):
    trainer = make_trainer(config, out=out, **parts)
    trainer.resume(change)
    return trainer


def test_settings_are_changed_only_if_they_are_named(tmp_path):
    fit(make_trainer(HALFWAY, out=tmp_path))
    other = replace(TRAIN, lr=1e-5, grad_clip=0.5, lr_schedule="cosine", weight_decay=0.1)
    for change in ((), ("lr",), ("lr", "grad_clip", "lr_schedule")):
        with raises_input_error("is .* must be .*, as in checkpoint .* unless change names it"):
            resumed(tmp_path, other, change)
    with raises_input_error("change is 'batch_size', but must be one of lr, "):
        resumed(tmp_path, replace(TRAIN, batch_size=4), ["batch_size"])
    names = ["lr", "grad_clip", "lr_schedule", "weight_decay", "steps"]
    trainer = resumed(tmp_path, other, names)
    (group,) = trainer.optimizer.param_groups
    assert group["weight_decay"] == 0.1
    trainer.fit(progress=False)
    assert group["lr"] == pytest.approx(learning_rate(other, 3, 0.75))
    wanted = {
        "lr is 1e-05 instead of 0.0005",
        "grad_clip is 0.5 instead of 1.0",
        "weight_decay is 0.1 instead of 0.0",
    }
    assert {f"from step 2: {text}" for text in wanted} <= set(trainer.progress.changes)
    again = resumed(tmp_path, other)
    assert again.progress.changes == trainer.progress.changes, "told in later checkpoints, too"


def test_another_ema_decay_is_used_from_then_on(tmp_path):
    fit(make_trainer(HALFWAY, out=tmp_path))
    trainer = resumed(tmp_path, replace(TRAIN, ema_decay=0.0), ["ema_decay"])
    trainer.fit(progress=False)
    pairs = zip(trainer.ema.model.parameters(), trainer.raw_model.parameters())
    assert all(torch.equal(average, weight) for average, weight in pairs)


def test_other_images_are_noticed(tmp_path):
    """As many, of the same classes, with the same names."""
    train = digits().train
    brighter = ImageSet((train.images + 0.3).clamp(-1, 1), train.labels, train.class_names)
    fit(make_trainer(HALFWAY, data=train, out=tmp_path))
    with raises_input_error(
        "data has other images than .*, but must have the same, unless change names data"
    ):
        resumed(tmp_path, TRAIN, data=brighter)
    trainer = resumed(tmp_path, TRAIN, ["data"], data=brighter)
    assert trainer.progress.changes == ["from step 2: data has other images"]


class RandomCrops(Latents):
    """Another image each time: nothing to compare."""

    sample_latents = None

    def get_batch(self, indices):
        return torch.rand(len(indices), 1, 8, 8) - 0.5, torch.arange(12)[indices] % 10


def test_images_that_are_random_are_not_compared(tmp_path):
    fit(make_trainer(HALFWAY, data=RandomCrops(), out=tmp_path))
    assert resumed(tmp_path, TRAIN, data=RandomCrops()).progress.changes == []


# Which checkpoints are kept, and what is never written


def test_milestones_are_kept(tmp_path):
    config = replace(TRAIN, steps=9, save_every=1, keep=2, keep_every=3)
    make_trainer(config, out=tmp_path).fit(progress=False)
    assert steps_of(checkpoints(tmp_path)) == [3, 6, 8, 9]


def test_files_have_the_permissions_of_other_files(tmp_path):
    fit(make_trainer(HALFWAY, out=tmp_path))
    (tmp_path / "other").touch()
    modes = {path.stat().st_mode for path in [tmp_path / "other", *checkpoints(tmp_path)[0].iterdir()]}
    assert len(modes) == 1


@pytest.mark.parametrize("part", ["raw_model", "ema"])
def test_weights_that_are_not_finite_are_not_saved(tmp_path, part):
    """They arise in the update before a checkpoint, after a loss that is finite."""

    def spoil(trainer, losses):
        if trainer.progress.step == 4:
            model = trainer.raw_model if part == "raw_model" else trainer.ema.model
            model.final_layer.linear.bias.data[0] = float("nan")

    trainer = make_trainer(out=tmp_path, on_step=[spoil])
    with raises_input_error("weights are not finite after step 4.*lr 0.0005.*smaller lr.*change"):
        trainer.fit(progress=False)
    assert steps_of(checkpoints(tmp_path)) == [2]
    slower = resumed(tmp_path, replace(TRAIN, lr=1e-5), ["lr"])
    slower.fit(progress=False)
    assert steps_of(checkpoints(tmp_path)) == [2, 4]


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_moments_that_are_not_finite_are_not_saved(tmp_path, background, value):
    """The second moment of AdamW overflows first: its weight is finite, but never changes again."""

    def spoil(trainer, losses):
        if trainer.progress.step == 4:
            bias = trainer.raw_model.final_layer.linear.bias
            trainer.optimizer.state[bias]["exp_avg_sq"][0] = value

    trainer = make_trainer(replace(TRAIN, background_save=background), out=tmp_path, on_step=[spoil])
    with raises_input_error("moments of AdamW are not finite after step 4.*lr 0.0005.*smaller lr"):
        trainer.fit(progress=False)
    assert all(weight.isfinite().all() for weight in trainer.raw_model.parameters())
    assert 4 not in steps_of(checkpoints(tmp_path))


def test_a_checkpoint_before_the_first_step_has_no_moments(tmp_path):
    trainer = make_trainer(out=tmp_path)
    assert trainer.checkpointer.save(trainer).name == "step-00000000"


def test_a_model_that_is_not_finite_is_not_returned():
    trainer = make_trainer()
    trainer.on_step = (lambda run, losses: run.ema.model.final_layer.linear.bias.data.fill_(float("inf")),)
    with raises_input_error("weights are not finite after step 4"):
        trainer.fit(progress=False)


# A full disk: files that may not grow beyond a size fail as on a full disk, at each write in turn


@contextmanager
def largest_file(size: int):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 100, 1000, 20_000, 100_000, 150_000])
def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path, size):
    trainer = make_trainer(out=tmp_path)
    with raises_input_error("cannot be .*written: File too large"), largest_file(size):
        trainer.fit(progress=False)
    assert not checkpoints(tmp_path)
    folder = tmp_path / "checkpoints"
    assert not folder.exists() or not list(folder.iterdir())


# Checkpoints that are written in the background


def test_a_checkpoint_in_the_background_resumes_like_any_other(tmp_path):
    """Written in shards, resumed by a run of either kind; the state is that of its step, not of a later one."""
    config = replace(TRAIN, steps=8, save_every=4, background_save=True)
    whole = fit(make_trainer(config, out=tmp_path / "a"))
    assert steps_of(checkpoints(tmp_path / "a")) == [4, 8]
    shutil.rmtree(checkpoints(tmp_path / "a")[-1])
    for kind in (True, False):
        shutil.copytree(tmp_path / "a", tmp_path / f"{kind}")
        trainer = resumed(tmp_path / f"{kind}", replace(config, background_save=kind))
        assert trainer.progress.step == 4
        again = fit(trainer)
        for part in ("weights", "average"):
            assert all(torch.equal(again[part][name], value) for name, value in whole[part].items())
        assert torch.equal(again["losses"], whole["losses"])
    assert load_model(checkpoints(tmp_path / "a")[0])[1].bins == 17, "it is a model, too"


def test_a_damaged_shard(tmp_path):
    fit(make_trainer(replace(HALFWAY, background_save=True), out=tmp_path))
    (checkpoint,) = checkpoints(tmp_path)
    for path in (checkpoint / "optimizer").glob("*.distcp"):
        path.write_bytes(path.read_bytes()[:100])
    with raises_input_error(f"Checkpoint {checkpoint} is damaged"):
        resumed(tmp_path, TRAIN)


@pytest.mark.parametrize("size", [0, 1000, 100_000, 150_000])
def test_a_full_disk_in_the_background(tmp_path, size):
    """Told at the latest at the end of the run; no checkpoint appears."""
    trainer = make_trainer(replace(TRAIN, background_save=True), out=tmp_path)
    with raises_input_error("cannot be .*written"), largest_file(size):
        trainer.fit(progress=False)
    assert not checkpoints(tmp_path)
