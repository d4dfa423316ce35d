"""Shared by the tests: the recorded official numbers, and models with the weights that their README describes."""

import ast
import inspect
import json
import re
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from dit_nb import DiT, DiTConfig
from dit_nb.errors import UserError

GOLDEN = Path(__file__).parent / "golden"
CASES = ("tiny_p2", "tiny_p4", "tiny_p8", "digits_p1")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


def synthetic_weights(shapes: dict[str, tuple], seed: int, scale: float) -> dict[str, torch.Tensor]:
    """The weights of the recorded models: a function of each tensor's name alone."""

    def draw(key, shape):
        rng = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32)
        return torch.from_numpy((rng.standard_normal(shape) * scale).astype(np.float32))

    return {key: draw(key, shape) for key, shape in shapes.items() if key != "pos_embed"}


def randomize(model: torch.nn.Module, seed: int = 0, scale: float = 0.05) -> torch.nn.Module:
    """Fill a model with weights that hide nothing: zero-initialized ones would."""
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


def tiny_config(block: str = "adaln_zero", **fields) -> DiTConfig:
    """A configuration whose sizes all differ."""
    defaults = dict(input_size=(4, 6), patch_size=2, in_channels=3, hidden_size=16, depth=2, num_heads=2)
    return DiTConfig(**{**defaults, "num_classes": 5, "block": block, **fields})


def tiny_model(block: str = "adaln_zero", scale: float = 0.3, **fields) -> DiT:
    """A model in eval() mode whose weights hide nothing."""
    return randomize(DiT(tiny_config(block, **fields)), scale=scale).eval()


def model_inputs(model: DiT, n: int = 3, seed: int = 0) -> tuple:
    """x, t and y for a model, different for each image."""
    config, generator = model.config, torch.Generator().manual_seed(seed)
    height, width = (size * config.patch_size for size in config.grid)
    x = torch.randn(n, config.in_channels, height, width, generator=generator)
    y = torch.arange(n) % config.num_classes if config.num_classes else None
    return x, torch.arange(n) * 90 + 7, y


@contextmanager
def raises_input_error(pattern: str):
    """Expect an error that the user can fix and whose message matches: one or two sentences on one line."""
    with pytest.raises((UserError, FileNotFoundError), match=pattern) as caught:
        yield
    message = str(caught.value)
    assert caught.type in (UserError, FileNotFoundError), caught.type
    assert message.endswith(".") and "\n" not in message, message
    assert len(re.findall(r"[.!?](?=\s|$)", message)) <= 2, message


def error_cases(*rows):
    """Parametrize a test by (what is called, pattern of its error)."""
    return pytest.mark.parametrize("call,pattern", rows, ids=[pattern for _, pattern in rows])


def latent_model(seed: int = 0, **fields) -> DiT:
    """A tiny model of latents in eval() mode, in a form that the official code and diffusers have too."""
    sizes = dict(input_size=8, patch_size=2, in_channels=4, hidden_size=32, depth=2, num_heads=2)
    return randomize(DiT(DiTConfig(**{**sizes, "num_classes": 10, **fields})), seed, 0.2).eval()


def latent_inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x, t and y for `latent_model`, some with the null class 10."""
    x = torch.randn(6, 4, 8, 8, generator=torch.manual_seed(0))
    return x, torch.tensor([0, 1, 10, 300, 700, 999]), torch.tensor([0, 9, 3, 10, 10, 5])


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    """Whether two models have the same weights, to the last bit."""
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k].cpu(), b[k].cpu()) for k in a)


def student_function(oracle, body: str):
    """A function with the arguments of an oracle, defined as in a student's notebook."""
    space = {}
    exec(f"def student({', '.join(inspect.signature(oracle).parameters)}):\n{body}", space)
    return space["student"]


def public_names(path: Path) -> list[str]:
    """The names in a module's `__all__`, also those that are added to it with +=; read, not imported."""
    names = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(getattr(target, "id", "") == "__all__" for target in targets):
            names += ast.literal_eval(node.value)
    return names
