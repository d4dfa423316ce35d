"""Small training runs, shared by the tests of training and by the processes that they start."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dit_nb import Diffusion, DiT, DiTConfig, TrainConfig
from dit_nb.data import digits
from dit_nb.training import Trainer
from dit_nb.utils import seeded_generator

SHAPE = DiTConfig(8, 2, 1, 32, 2, 2, num_classes=10, init="scaled")
TRAIN = TrainConfig(
    steps=4, batch_size=8, lr=5e-4, ema_decay=0.9, precision="fp32", flip=True, grad_clip=1.0, save_every=2
)
HALFWAY = replace(TRAIN, steps=2)


@dataclass
class Latents:
    """Mean and std of 12 latents and their mirror images, with an independent `sample_latents`."""

    class_names = tuple("0123456789")
    vae = {"id": "a", "scale": 0.5}

    def __len__(self):
        return 12

    def __getitem__(self, i):
        moments, labels = self.get_batch([i])
        return moments[0], labels[0]

    def get_batch(self, indices):
        moments = torch.randn(12, 2, 2, 1, 8, 8, generator=seeded_generator(9)).abs()
        return moments[indices], torch.arange(12)[indices] % 10

    def sample_latents(self, moments, flip, noise):
        rows = [m[int(f), 0] + m[int(f), 1] * n for m, f, n in zip(moments, flip, noise)]
        return torch.stack(rows)


CASES = {
    "plain": {},
    "two micro-batches": {"config": {"grad_accum_steps": 2}},
    "one image per micro-batch": {"config": {"grad_accum_steps": 4}},
    "gradient checkpointing": {"config": {"gradient_checkpointing": True, "grad_accum_steps": 2}},
    "in_context": {"shape": {"block": "in_context"}},
    "cross_attention": {"shape": {"block": "cross_attention"}},
    "adaln": {"shape": {"block": "adaln", "learn_sigma": False}},
    "no classes": {"shape": {"num_classes": 0}},
    "latents": {"data": Latents()},
    "bf16": {"config": {"precision": "bf16", "grad_accum_steps": 2}},
}


def make_trainer(config=TRAIN, shape=SHAPE, data=None, out=None, **parts) -> Trainer:
    """A trainer that always starts from the same weights, none of them zero."""
    torch.manual_seed(0)
    model = DiT(shape)
    for weight in model.parameters():
        weight.data += 0.02 * torch.randn(weight.shape)
    diffusion = Diffusion(bins=17, variance="learned" if shape.learn_sigma else "fixed_small")
    config = config if out else replace(config, save_every=None)
    return Trainer(model, diffusion, digits().train if data is None else data, config, out, **parts)


def fit(trainer: Trainer) -> dict:
    """Train, and return losses, weights and averaged weights."""
    average = {k: v.clone() for k, v in trainer.fit(progress=False).state_dict().items()}
    weights = {k: getattr(v, "full_tensor", v.clone)() for k, v in trainer.raw_model.state_dict().items()}
    losses = torch.tensor(list(trainer.progress.history.values()))  # (losses, steps)
    return {"losses": losses, "weights": weights, "average": average}


def fit_case(name: str, accumulate: bool = True) -> dict:
    """Train one of the cases, in as many processes as there are."""
    case = CASES[name]
    config = replace(TRAIN, **case.get("config", {}))
    if not accumulate:
        config = replace(config, grad_accum_steps=1)
    return fit(make_trainer(config, replace(SHAPE, **case.get("shape", {})), case.get("data")))


def fit_second_half(out: Path) -> dict:
    """Resume a run that stopped halfway."""
    trainer = make_trainer(out=out)
    trainer.resume()
    assert trainer.progress.step == 2
    return fit(trainer)


def distance(a: dict, b: dict, part: str) -> float:
    """The largest difference between two results of `fit`."""
    if part == "losses":
        return (a[part] - b[part]).abs().max().item()
    assert a[part].keys() == b[part].keys()
    return max(without_key_bias(k, (a[part][k] - b[part][k]).abs()).max().item() for k in a[part])


def without_key_bias(name: str, values: torch.Tensor) -> torch.Tensor:
    """Leave out the bias of the keys: it has no influence, and Adam amplifies the rounding error of its gradient."""
    if name.endswith("qkv.bias"):
        query, _, value = values.chunk(3)
        return torch.cat([query, value])
    return values.chunk(2)[1] if name.endswith("kv.bias") else values


def assert_same(a: dict, b: dict, tolerance: float = 2e-6):
    for part in ("losses", "weights", "average"):
        assert distance(a, b, part) < tolerance, part
