"""Two processes do what one does: losses, weights, checkpoints, samples; copies (DDP) and shares (FSDP), on a CPU.

Run as a script, by torchrun or accelerate, this file is one of the processes; run by pytest, it compares.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dit_nb import Diffusion, DiT, DiTConfig, distributed, training
from dit_nb import checkpoint as runs
from dit_nb.data import digits
from dit_nb.pretrained import digit_model, sample_batches, sample_images
from dit_nb.step_noise import Batches, draw
from dit_nb.training import TrainConfig, Trainer
from dit_nb.utils import randn, seeded

pytestmark = pytest.mark.xdist_group("processes")  # what one worker has started, another need not start again
ROOT = Path(__file__).resolve().parents[2]
SHAPE = DiTConfig(8, 2, 1, 32, 2, 2, num_classes=10, init="scaled")
TRAIN = TrainConfig(
    steps=4, batch_size=8, lr=5e-4, ema_decay=0.9, precision="fp32", flip=True, grad_clip=1.0, save_every=2
)
HALFWAY = replace(TRAIN, steps=2)


@dataclass
class Latents:
    """Means and spreads of latents, and what `sample_latents` must make of them, told here once more."""

    class_names = tuple("0123456789")
    vae = {"id": "a", "scale": 0.5}

    def __len__(self):
        return 12

    def __getitems__(self, indices):
        moments = torch.randn(12, 2, 2, 1, 8, 8, generator=seeded(9)).abs()
        return moments[indices], torch.arange(12)[indices] % 10

    def sample_latents(self, moments, flip, noise):
        rows = [m[int(f), 0] + m[int(f), 1] * n for m, f, n in zip(moments, flip, noise)]
        return torch.stack(rows)


class Broken(Latents):
    """A data set with a picture that one process alone comes across, in the second update."""

    def __getitems__(self, indices):
        self.asked = getattr(self, "asked", 0) + 1
        if distributed.processes().process_index == 1 and self.asked == 2:
            raise ValueError("image 5.jpg cannot be read.")
        return super().__getitems__(indices)


CASES = {
    "plain": {},
    "pieces": {"config": {"grad_accum_steps": 2}},
    "one by one": {"config": {"grad_accum_steps": 4}},
    "activations again": {"config": {"gradient_checkpointing": True, "grad_accum_steps": 2}},
    "in_context": {"shape": {"block": "in_context"}},
    "cross_attention": {"shape": {"block": "cross_attention"}},
    "adaln": {"shape": {"block": "adaln", "learn_sigma": False}},
    "no classes": {"shape": {"num_classes": 0}},
    "latents": {"data": Latents()},
    "bf16": {"config": {"precision": "bf16", "grad_accum_steps": 2}},
}
SHARED_CASES = ("plain", "pieces", "activations again", "bf16")  # by FSDP


def make_trainer(config=TRAIN, shape=SHAPE, data=None, out=None) -> Trainer:
    """Always from the same start, with no weight at zero."""
    torch.manual_seed(0)
    model = DiT(shape)
    for weight in model.parameters():
        weight.data += 0.02 * torch.randn(weight.shape)
    process = Diffusion(bins=17, variance="learned" if shape.learn_sigma else "fixed_small")
    config = config if out else replace(config, save_every=None)
    return Trainer(model, process, data or digits().train, config, out)


def result(trainer: Trainer) -> dict:
    """Losses, weights and averaged weights, after a run."""
    average = {k: v.clone() for k, v in trainer.fit(progress=False).state_dict().items()}
    whole = {k: getattr(v, "full_tensor", v.clone)() for k, v in trainer.raw.state_dict().items()}
    return {"losses": torch.tensor(trainer.progress.history), "weights": whole, "average": average}


def run_case(name: str, pieces: bool = True) -> dict:
    """One of the cases, in as many processes as there are."""
    case = CASES[name]
    config = replace(TRAIN, **case.get("config", {}))
    if not pieces:
        config = replace(config, grad_accum_steps=1)
    return result(make_trainer(config, replace(SHAPE, **case.get("shape", {})), case.get("data")))


def go_on(out: Path) -> dict:
    """Resume a run that stopped halfway."""
    trainer = make_trainer(out=out)
    trainer.resume()
    assert trainer.progress.step == 2
    return result(trainer)


# What each of the processes does


def failures(out: Path) -> list[str]:
    """The sentences with which runs end where one process has failed."""
    said = []
    for config, data in ((TRAIN, Broken()), (replace(TRAIN, batch_size=7), None), (HALFWAY, None)):
        if config is HALFWAY:
            runs.write_checkpoint = lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        try:
            make_trainer(config, data=data, out=out / "broken").fit(progress=False)
        except ValueError as error:
            said.append(str(error))
    return said


def watch_writing(folder: Path) -> list[str]:
    """What this process writes in a folder from now on."""
    written = []

    def hook(event, arguments):
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wxa+")
        if (writes or event in ("os.mkdir", "os.rename", "os.rmdir", "os.remove")) and str(folder) in str(
            arguments[0]
        ):
            written.append(f"{event} {arguments[0]}")

    sys.addaudithook(hook)
    return written


def work(out: Path, cases: list[str]) -> None:
    """Everything that several processes are asked for, in one go: starting them is what takes time."""
    from accelerate import Accelerator

    real = Accelerator.end_training
    Accelerator.end_training = lambda self: None  # which ends the processes' connection; we train again
    state, written = distributed.processes(), watch_writing(out)
    results = {name: run_case(name) for name in cases}
    results["one, then two"] = go_on(out / "one")
    drawn = []
    start = make_trainer(replace(HALFWAY, sample_every=1), out=out / "two")
    start.fit(lambda model: drawn.append(model) or torch.zeros(4, 4, 3, dtype=torch.uint8).numpy(), True)
    facts = {
        "pictures": len(drawn),
        "whole": all(type(p).__name__ == "Parameter" for m in drawn for p in m.parameters()),
    }
    facts["share"] = sum(training.local(p).numel() for p in start.ema.model.parameters())
    facts |= {"failures": failures(out), "written": written if state.process_index else []}
    if state.is_main_process:
        torch.save(results, out / "results.pt")
    (out.parent / f"facts{state.process_index}.json").write_text(json.dumps(facts))
    Accelerator.end_training = real
    distributed.part_ways(start.accelerator)


def split_by_fsdp() -> None:
    """Let Accelerate take this CPU for a GPU: it cuts models into shares on accelerators alone."""
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    distributed.processes()
    real = Trainer.__init__

    def init(self, *args, **options):
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        real(self, *args, **options)

    Trainer.__init__ = init


if __name__ == "__main__":
    if sys.argv[2] == "shares":
        split_by_fsdp()
    work(Path(sys.argv[1]), sys.argv[3:])
    sys.exit()


# What is compared


def launch(*words: str) -> str:
    """Start several processes, wait for them, return what they said."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, timeout=400, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def fsdp_config(folder: Path) -> str:
    """The file that the guide Many processes shows, for two processes."""
    lesson = json.loads((ROOT / "nbs" / "guides" / "many_processes.ipynb").read_text())
    text = "\n".join("".join(cell["source"]) for cell in lesson["cells"])
    config = re.search(r"```yaml\n(.*?)```", text, re.S)[1]
    assert "num_processes: 8" in config
    path = folder / "fsdp.yaml"
    path.write_text(config.replace("num_processes: 8", "num_processes: 2"))
    return str(path)


def both(kind: str, folder: Path, *words: str) -> dict:
    """Let two processes do their work; what came of it."""
    out = folder / "out"
    result(make_trainer(HALFWAY, out=out / "one"))
    said = launch(*words, __file__, str(out), kind, *(SHARED_CASES if kind == "shares" else CASES))
    facts = [json.loads((folder / f"facts{rank}.json").read_text()) for rank in (0, 1)]
    return {"results": torch.load(out / "results.pt"), "said": said, "facts": facts, "out": out}


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    return both("copies", tmp_path_factory.mktemp("copies"), tool("torchrun"), "--nproc_per_node", "2")


@pytest.fixture(scope="module")
def shares(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shares")
    return both("shares", folder, tool("accelerate"), "launch", "--config_file", fsdp_config(folder))


@pytest.fixture(scope="module")
def alone():
    """Each case in one process, in one piece."""
    made = {}
    return lambda name: made.setdefault(name, run_case(name, pieces=False))


def distance(a: dict, b: dict, part: str) -> float:
    """The largest difference between two results."""
    if part == "losses":
        return (a[part] - b[part]).abs().max().item()
    assert a[part].keys() == b[part].keys()
    return max(matters(k, (a[part][k] - b[part][k]).abs()).max().item() for k in a[part])


def matters(name: str, values: torch.Tensor) -> torch.Tensor:
    """All but the bias of the keys, which has no influence: its gradient is a rounding error, by which Adam steps."""
    if name.endswith("qkv.bias"):
        query, _, value = values.chunk(3)
        return torch.cat([query, value])
    return values.chunk(2)[1] if name.endswith("kv.bias") else values


def test_the_bias_of_the_keys_has_no_influence():
    model = make_trainer().raw.eval()
    x, t, y = torch.randn(3, 1, 8, 8), torch.tensor([1, 500, 900]), torch.tensor([0, 5, 9])
    before = model(x, t, y)
    for block in model.blocks:
        block.attn.qkv.bias.data[32:64] += 1
    assert torch.allclose(model(x, t, y), before, atol=1e-5)


def assert_same(a: dict, b: dict, tolerance: float = 2e-6):
    for part in ("losses", "weights", "average"):
        assert distance(a, b, part) < tolerance, part


def assert_moved(a: dict):
    """So that equal weights mean something."""
    torch.manual_seed(0)
    start = run_start()
    assert max((a["weights"][k] - start[k]).abs().max().item() for k in start) > 1e-3


def run_start() -> dict:
    return {k: v.clone() for k, v in make_trainer().raw.state_dict().items()}


@pytest.mark.parametrize("name", [name for name in CASES if name != "bf16"])
def test_two_copies_reach_what_one_process_reaches(copies, alone, name):
    assert_same(copies["results"][name], alone(name))


@pytest.mark.parametrize("name", [name for name in SHARED_CASES if name != "bf16"])
def test_two_shares_reach_what_one_process_reaches(shares, alone, name):
    assert_same(shares["results"][name], alone(name))


@pytest.mark.parametrize("name", ["pieces", "one by one", "activations again"])
def test_pieces_reach_what_the_whole_batch_reaches(alone, name):
    assert_same(run_case(name), alone(name))
    assert_same(run_case(name), alone("plain"))
    assert_moved(alone("plain"))


def gradients(config: TrainConfig) -> dict:
    """Of the first update; neither clipped nor scaled, as AdamW would hide a factor."""
    trainer, found = make_trainer(config), {}
    trainer.update = lambda: found.update({k: p.grad for k, p in trainer.raw.named_parameters()})
    trainer.train_step(*next(trainer.batches()))
    return {k: grad for k, grad in found.items() if grad is not None}


@pytest.mark.parametrize("pieces", [2, 8])
def test_pieces_add_up_to_the_gradient_of_the_batch(pieces):
    whole, parts = gradients(TRAIN), gradients(replace(TRAIN, grad_accum_steps=pieces))
    assert whole.keys() == parts.keys()
    length = sum(grad.square().sum() for grad in whole.values()).sqrt()
    assert sum((whole[k] - parts[k]).square().sum() for k in whole).sqrt() < 1e-6 * length


def test_bf16_is_near(copies, shares, alone):
    """8 bits of precision: losses to a few thousandths, whoever works."""
    for results in (copies["results"], shares["results"]):
        assert 0 < distance(results["bf16"], alone("plain"), "losses") < 5e-3
    weights = alone("bf16")["weights"] | alone("bf16")["average"]
    assert {w.dtype for w in weights.values()} == {torch.float32}


@pytest.mark.parametrize("kind", ["copies", "shares"])
def test_resuming_with_another_number_of_processes(kind, request, alone):
    done = request.getfixturevalue(kind)
    assert_same(done["results"]["one, then two"], alone("plain"))
    assert_same(go_on(done["out"] / "two"), alone("plain"))


@pytest.mark.parametrize("kind", ["copies", "shares"])
def test_a_checkpoint_says_nothing_of_processes(kind, request):
    folder = request.getfixturevalue(kind)["out"] / "two" / "checkpoints" / "step-00000002"
    names = ["ema.safetensors", "model.safetensors", "run.json", "training.pt"]
    assert sorted(path.name for path in folder.iterdir()) == names
    shapes = {k: v.shape for k, v in DiT(SHAPE).state_dict().items()}
    for name in names[:2]:
        assert {k: v.shape for k, v in load_file(folder / name).items()} == shapes


def test_only_one_process_writes_draws_and_talks(copies, shares):
    for done in (copies, shares):
        first, second = done["facts"]
        assert second["written"] == []
        assert first["pictures"] == 2 and second["pictures"] == 0 and first["whole"]
        assert len(list((done["out"] / "two" / "samples").iterdir())) == 2
        assert len(re.findall(r"epoch 0  step 2 ", done["said"])) == 1
        assert not list(done["out"].rglob("random_states*"))


def test_shares_are_shares(copies, shares):
    whole = sum(p.numel() for p in DiT(SHAPE).parameters())
    assert [facts["share"] for facts in copies["facts"]] == [whole, whole]
    parts = [facts["share"] for facts in shares["facts"]]
    assert sum(parts) == whole and max(parts) < 0.6 * whole


def test_an_error_in_one_process_ends_all_with_its_sentence(copies):
    for facts in copies["facts"]:
        unreadable, uneven, full = facts["failures"]
        assert unreadable == "image 5.jpg cannot be read."
        assert "batch_size is 7" in uneven and "2 processes" in uneven
        assert "No space left on device" in full


COMMAND = """train --data digits --batch-size 8 --hidden-size 32 --depth 2 --num-heads 2 --lr 5e-4 --save-every 3
--sample-every 1000 --precision fp32 --ema-decay 0.9 --seed 3""".split()


def test_the_command_under_torchrun_and_accelerate(tmp_path):
    """Begun by one launcher, taken over by the other, compared with one process that did it all."""
    from dit_nb.cli import main

    words = ["-m", "dit_nb.cli", *COMMAND, "--out", str(tmp_path / "two")]
    launch(tool("torchrun"), "--nproc_per_node", "2", *words, "--steps", "3", "--grad-accum-steps", "2")
    by_accelerate = [tool("accelerate"), "launch", "--cpu", "--num_processes", "2"]
    said = launch(*by_accelerate, *words, "--steps", "6", "--resume")
    assert said.count("samples in") == 1
    assert main([*COMMAND, "--out", str(tmp_path / "one"), "--steps", "6"]) == 0
    for place in ("model/model.safetensors", "checkpoints/step-00000006/model.safetensors"):
        two, one = (load_file(tmp_path / name / place) for name in ("two", "one"))
        assert max(matters(k, (two[k] - one[k]).abs()).max() for k in one) < 2e-6
    histories = [
        torch.load(tmp_path / name / "checkpoints/step-00000006/training.pt")["progress"]["history"]
        for name in ("two", "one")
    ]
    assert torch.allclose(*map(torch.tensor, histories), atol=1e-5)


def test_the_sample_command_shares_its_work(tmp_path):
    """The same images in the same order from one process or two, one of which has nothing to do in the last round."""
    from dit_nb.cli import main

    words = ["sample", str(ROOT / "dit_nb/models/digits"), "--n", "7", "--batch-size", "3", "--steps", "3"]
    assert main([*words, "--out", str(tmp_path / "one.npz")]) == 0
    by_two = [tool("accelerate"), "launch", "--cpu", "--num_processes", "2", "-m", "dit_nb.cli"]
    said = launch(*by_two, *words, "--out", str(tmp_path / "two.npz"))
    assert said.count("7 samples in") == 1
    one, two = (np.load(tmp_path / f"{name}.npz") for name in ("one", "two"))
    assert one["arr_1"].tolist() == two["arr_1"].tolist()
    assert abs(one["arr_0"].astype(int) - two["arr_0"]).max() <= 1


# In one process


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("pieces", [1, 2])
def test_shares_and_pieces_of_the_luck_are_all_of_it(world, pieces):
    whole = draw(3, 5, (8, 1, 4, 4), 1000, 0.5, posterior=True)
    parts = []
    for rank in range(world):
        mine = whole.part(Batches(20, 8, 3, 5, rank, world).part)
        size = len(mine.t) // pieces
        parts += [mine.part(slice(i * size, (i + 1) * size)) for i in range(pieces)]
    for field in whole._fields:
        assert torch.equal(torch.cat([getattr(part, field) for part in parts]), getattr(whole, field))


def test_latents_do_not_change_the_other_draws():
    pixels, latents = (draw(0, 4, (6, 1, 4, 4), 1000, 0.5, posterior) for posterior in (False, True))
    assert pixels.posterior is None
    assert all(torch.equal(getattr(pixels, f), getattr(latents, f)) for f in pixels._fields[:-1])
    assert not torch.equal(latents.posterior, latents.noise)


@pytest.mark.parametrize("flip", [False, True])
def test_latents_are_drawn_anew_in_each_step(flip):
    """What reaches the model is mean plus spread times fresh noise, of the image or of its mirror image."""
    trainer, seen = make_trainer(replace(TRAIN, flip=flip, grad_accum_steps=2), data=Latents()), []
    real = trainer.diffusion.training_losses

    def losses(model, x0, t, y, noise):
        seen.append(x0)
        return real(model, x0, t, y, noise=noise)

    trainer.diffusion.training_losses = losses
    trainer.fit(progress=False)
    order = iter(Batches(12, 8, 0))
    for step in range(4):
        (moments, _), luck = Latents().__getitems__(next(order)), draw(0, step, (8, 1, 8, 8), 1000, 0.1, True)
        side = luck.flip.long() if flip else torch.zeros(8, dtype=torch.long)
        mean, std = moments[torch.arange(8), side].unbind(1)
        assert torch.allclose(torch.cat(seen[2 * step : 2 * step + 2]), mean + std * luck.posterior)


def test_another_autoencoder_is_named(tmp_path):
    result(make_trainer(HALFWAY, data=Latents(), out=tmp_path))
    other = Latents()
    for vae, words in (
        ({"id": "b", "scale": 0.5}, "vae.id is b.*made with a"),
        (None, "vae is None.*'id': 'a'"),
    ):
        other.vae = vae
        with pytest.raises(ValueError, match=words):
            make_trainer(data=other, out=tmp_path).resume()


def test_accumulation_that_does_not_fit():
    for config in (dict(grad_accum_steps=3), dict(grad_accum_steps=16)):
        with pytest.raises(ValueError, match="batch_size is 8.*1 processes times grad_accum_steps"):
            make_trainer(replace(TRAIN, **config))
    for wrong in (0, -1, 1.5):
        with pytest.raises(ValueError, match=f"grad_accum_steps.*{wrong}"):
            replace(TRAIN, grad_accum_steps=wrong)


def test_a_worker_s_error_is_one_sentence():
    class Bad(Latents):
        def __getitems__(self, indices):
            raise ValueError("image 5.jpg cannot be read.")

    with pytest.raises(ValueError) as error:
        make_trainer(replace(TRAIN, workers=1), data=Bad()).fit(progress=False)
    assert str(error.value) == "image 5.jpg cannot be read."


# Samples


def test_an_image_s_noise_is_its_own():
    images = randn((5, 2, 3, 7), [seeded(4, i) for i in range(5)])
    for i in range(5):
        again = torch.randn(2, 3, 7, generator=seeded(4, i))
        assert torch.equal(images[i], again)
    assert images.flatten(1).corrcoef().fill_diagonal_(0).abs().max() < 0.5
    with pytest.raises(ValueError, match="generator has 4.*5 images"):
        randn((5, 1), [seeded(i) for i in range(4)])


def test_images_have_the_statistics_of_noise():
    """One number from each of many generators: they must be independent of each other, too."""
    first = torch.cat([torch.randn(16, generator=seeded(0, 2, i))[:1] for i in range(4000)])
    assert abs(first.mean()) < 0.06 and abs(first.std() - 1) < 0.05
    assert abs((first[1:] * first[:-1]).mean()) < 0.06


@pytest.fixture(scope="module")
def seven():
    model, process = digit_model()
    labels = torch.arange(7) + 2
    noise = []
    options = {"steps": "4", "cfg_scale": 2.0, "progress": False}
    keep = lambda step: noise.append(step.x_t) if step.i == 0 else None  # noqa: E731
    images = sample_images(model, process, labels, 7, 5, callback=keep, **options)
    return model, process, labels, options, images, noise[0]


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
@pytest.mark.parametrize("batch_size,world", [(1, 1), (3, 1), (7, 1), (2, 2), (3, 4), (5, 9)])
def test_the_same_images_whoever_draws_them(seven, batch_size, world, sampler):
    model, process, labels, options, images, noise = seven
    if sampler == "ddim":
        images = sample_images(model, process, labels, 7, 5, sampler=sampler, **options)
    got, start, order = torch.zeros_like(images), torch.zeros_like(images), []
    for rank in range(world):
        seen = []
        keep = lambda step: seen.append(step.x_t) if step.i == 0 else None  # noqa: B023, E731
        share = {"batch_size": batch_size, "rank": rank, "world": world, "sampler": sampler, "callback": keep}
        for indices, drawn in sample_batches(model, process, labels, 7, 5, **share, **options):
            assert 0 < len(indices) <= batch_size
            got[indices], start[indices] = drawn, seen.pop()
            order += indices.tolist()
    assert sorted(order) == list(range(7))
    assert torch.equal(start, noise)
    assert torch.allclose(got, images, atol=1e-4)


def test_images_and_seeds_differ(seven):
    model, process, _, options, images, _ = seven
    same = torch.full((3,), 4)
    a = sample_images(model, process, same, 3, 5, first=2, **options)
    assert torch.allclose(a[0], images[2], atol=1e-4), "image 2 of seed 5 is a 4 in both"
    assert (a[0] - a[1]).abs().max() > 0.1
    assert (a - sample_images(model, process, same, 3, 6, first=2, **options)).abs().amax(
        (1, 2, 3)
    ).min() > 0.1


def test_samples_that_cannot_be(seven):
    model, process, labels, options, *_ = seven
    for change, words in (
        (dict(seed=-1), "seed is -1"),
        (dict(first=-3), "first -3"),
    ):
        with pytest.raises(ValueError, match=words):
            sample_images(model, process, labels, 7, **change, **options)
    for change, words in (
        (dict(n=6), "labels has 7.*6"),
        (dict(batch_size=0), "batch_size is 0"),
        (dict(rank=2, world=2), r"rank is 2.*\[0, 1\]"),
    ):
        with pytest.raises(ValueError, match=words):
            sample_batches(model, process, labels, **{"n": 7, **change})
