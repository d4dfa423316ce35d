"""Shared by the tests: the recorded official numbers, and models with the weights that their README describes."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from dit_nb import DiT, DiTConfig

GOLDEN = Path(__file__).parent / "golden"
CASES = ("tiny_p2", "tiny_p4", "tiny_p8", "digits_p1")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


def synthetic_weights(shapes: dict[str, tuple], seed: int, scale: float) -> dict[str, torch.Tensor]:
    """The weights of the recorded models: a function of each tensor's name alone."""

    def draw(key, shape):
        rng = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32)
        return torch.from_numpy((rng.standard_normal(shape) * scale).astype(np.float32))

    return {key: draw(key, shape) for key, shape in shapes.items() if key != "pos_embed"}


def randomise(model: torch.nn.Module, seed: int = 0, scale: float = 0.05) -> torch.nn.Module:
    """Fill a model with weights that hide nothing: zero-initialised ones would."""
    weights = synthetic_weights({k: v.shape for k, v in model.state_dict().items()}, seed, scale)
    model.load_state_dict(weights, strict=False)
    return model


def relative(got, want) -> float:
    """The largest difference, relative to the largest number wanted."""
    got, want = (torch.as_tensor(a).detach().cpu().double() for a in (got, want))
    assert got.shape == want.shape, (got.shape, want.shape)
    return ((got - want).abs().max() / want.abs().max().clamp(min=1e-30)).item()


class Golden:
    """One recorded case: its arrays by attribute, and our model with the same weights."""

    def __init__(self, name: str, device: str = "cpu"):
        arrays = np.load(GOLDEN / f"{name}.npz")
        self.config = json.loads(str(arrays["config"]))
        for key in arrays.files:
            if key != "config":
                setattr(self, key, torch.from_numpy(np.asarray(arrays[key])).to(device))
        self.t, self.y = self.t.long(), self.y.long()
        self.model = golden_model(self.config).to(device).eval()


def golden_model(config: dict) -> DiT:
    """A DiT as a recorded configuration describes it, with its synthetic weights, loaded strictly."""
    fields = {k: v for k, v in config.items() if k in DiTConfig.__dataclass_fields__}
    model = DiT(DiTConfig(**fields))
    shapes = {k: v.shape for k, v in model.state_dict().items()}
    weights = synthetic_weights(shapes, config["seed"], config["weight_scale"])
    model.load_state_dict({**weights, "pos_embed": model.pos_embed}, strict=True)
    return model
