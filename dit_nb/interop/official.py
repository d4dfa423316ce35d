"""Official DiT checkpoints: read them without running their code, infer the model's shape, and write them."""

import argparse
import math
import pickle
import re
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dit_nb.config import _MODEL_NAMES, SIZES, DiTConfig, SamplingConfig
from dit_nb.errors import UserError, _check_choice, _check_flag, _check_path, _check_type
from dit_nb.hub import _kind
from dit_nb.model import DiT
from dit_nb.pretrained import _default_sampling
from dit_nb.utils import _atomic_write
from dit_nb.weight_files import _save_object

__all__ = ["load_official", "save_official"]

_SHAPE_FIELDS = ("patch_size", "hidden_size", "depth", "num_heads")  # fixed by a name such as DiT-XL/2
_NUM_HEADS = {size["hidden_size"]: size["num_heads"] for size in SIZES.values()}  # width -> number of heads
_REQUIRED_TENSORS = {  # tensors from which the shape is read, and their numbers of dimensions
    "pos_embed": 3,
    "x_embedder.proj.weight": 4,
    "y_embedder.embedding_table.weight": 2,
    "blocks.0.mlp.fc1.weight": 2,
    "blocks.0.adaLN_modulation.1.weight": 2,
    "final_layer.linear.weight": 2,
}


def _infer_config(
    state: dict[str, Tensor],
    source: str | Path = "the state dict",
    num_heads: int | None = None,
    num_classes: int | None = None,
) -> DiTConfig:
    """Infer the configuration of a model from the shapes of its tensors."""
    for name, ndim in _REQUIRED_TENSORS.items():
        if name not in state or state[name].ndim != ndim:
            raise UserError(f"{source} is not an official DiT: it must have {name} with {ndim} dimensions.")
    tokens = state["pos_embed"].shape[1]
    width, channels, patch, _ = state["x_embedder.proj.weight"].shape
    rows, hidden = (len(state[name]) for name in list(_REQUIRED_TENSORS)[2:4])
    side, outputs = math.isqrt(tokens), len(state["final_layer.linear.weight"]) / patch**2
    if side**2 != tokens or outputs not in (channels, 2 * channels):
        raise UserError(
            f"{source} has {tokens} positions and {outputs:g} output channels: not an official DiT."
        )
    heads = num_heads or _NUM_HEADS.get(width)
    if heads is None:
        raise UserError(
            f"{source} has width {width}, which is not one of S, B, L and XL: pass num_heads "
            "(dit-nb convert: --num-heads)."
        )
    classes = max(rows - 1, 1) if num_classes is None else num_classes
    if rows - classes not in (0, 1):
        raise UserError(f"num_classes is {classes}, but the label table of {source} has {rows} rows.")
    return DiTConfig(
        input_size=side * patch,
        patch_size=patch,
        in_channels=channels,
        hidden_size=width,
        depth=len({name.split(".")[1] for name in state if name.startswith("blocks.")}),
        num_heads=heads,
        mlp_ratio=hidden / width,
        num_classes=classes,
        class_dropout_prob=0.1 if rows > classes else 0.0,
        learn_sigma=outputs == 2 * channels,
    )


def _read_pt_file(path: str | Path) -> object:
    "Read tensors and plain values from a .pt file. Any other code in it is refused, never run."
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file.")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged file can fail in any way
        name = re.search(r"GLOBAL ([\w.]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and name:
            raise UserError(
                f"{path} would call {name[1]} when it is read: refused, nothing was run."
            ) from None
        raise UserError(
            f"{path} is not a PyTorch checkpoint, or is truncated ({type(error).__name__})."
        ) from None


def _select_state_dict(content: object, path: str | Path, weights: str) -> tuple[dict[str, Tensor], dict]:
    "Find the state dict in a checkpoint of either form, and the arguments of the training run, if it has them."
    _check_choice("weights", weights, ("ema", "model"))
    args = {}
    if isinstance(content, dict) and not all(isinstance(v, Tensor) for v in content.values()):
        if isinstance(content.get("args"), argparse.Namespace):
            args = vars(content["args"])
        content = content.get(weights)
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise UserError(f"{path} is not a state dict, and has none under the key {weights!r}.")
    return content, args


def _load_strict(model: nn.Module, state: dict[str, Tensor], source: str | Path) -> None:
    "Load a state dict, or raise UserError unless all names and shapes are those of the model."
    wanted = model.state_dict()
    both = wanted.keys() & state.keys()
    for what, names in (
        ("lacks {} tensors of the model", wanted.keys() - both),
        ("has {} unknown tensors", state.keys() - both),
        ("has {} tensors of another shape", {k for k in both if wanted[k].shape != state[k].shape}),
    ):
        if names:
            raise UserError(f"{source} {what.format(len(names))}, the first is {min(names)}.")
    model.load_state_dict(state, strict=True)


def load_official(
    path: str | Path, num_heads: int | None = None, num_classes: int | None = None, weights: str = "ema"
) -> tuple[DiT, SamplingConfig]:
    """Load an official checkpoint: the model in eval() mode, and its sampling settings.

    Args:
        path: a .pt file
        num_heads: number of heads, needed if the width is not one of S, B, L and XL
        num_classes: number of classes, needed if the label table has no row for the null class
        weights: "ema" or "model", if the file has both

    Raises:
        FileNotFoundError: if there is no such file
        UserError: if the file is damaged, contains other code, or is not an official DiT
    """
    state, args = _select_state_dict(_read_pt_file(path), path, weights)
    heads, classes = (v if type(v) is int else None for v in map(args.get, ("num_heads", "num_classes")))
    config = _infer_config(state, path, num_heads or heads, classes if num_classes is None else num_classes)
    model, kept = DiT(config), args.get("sampling")
    _load_strict(model, state, path)
    sampling = _default_sampling(config)
    try:
        return model.eval(), replace(sampling, **kept) if isinstance(kept, dict) else sampling
    except TypeError as error:
        raise UserError(f"{path} must hold the fields of a SamplingConfig: {error}.") from None


def _check_format(model: DiT, target: str) -> None:
    "Raise UserError unless the official code and diffusers have such a model."
    config, kind = model.config, _kind(model)
    if kind != "DiT":
        raise UserError(f"model is of the class {kind}, but must be a DiT for {target}.")
    if config.block != "adaln_zero":
        raise UserError(f"block is {config.block}, but must be adaln_zero for {target}.")
    _, height, width = config.image_shape
    if height != width:
        raise UserError(f"input_size is {height}x{width}, but must be square for {target}.")


def _official_state(model: DiT) -> dict[str, Tensor]:
    "The state dict on the CPU. A model without classes gets a single class with a zero embedding."
    _check_format(model, "the official format")
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    if not model.config.num_classes:
        state["y_embedder.embedding_table.weight"] = torch.zeros(1, model.config.hidden_size)
    return state


def save_official(
    model: DiT,
    path: str | Path,
    sampling: SamplingConfig | None = None,
    training: bool = False,
    ema: DiT | None = None,
) -> None:
    """Write an official checkpoint, atomically.

    Args:
        model: a model with adaLN-Zero blocks and a square input
        path: a .pt file
        sampling: sampling settings, kept in the training form only
        training: whether to write the training form (model, ema, opt, args), not a bare state dict
        ema: the averaged model; None writes the model's own weights

    Raises:
        UserError: if the official format cannot hold the model
    """
    _check_type("model", model, DiT)
    _check_path("path", path)
    _check_flag("training", training)
    for name, value, kind in (("sampling", sampling, SamplingConfig), ("ema", ema, DiT)):
        if value is not None:
            _check_type(name, value, kind)
    content = _official_state(model)
    if sampling is not None and sampling.objective != "diffusion" and not training:
        raise UserError(
            f"objective is {sampling.objective}, which a bare state dict does not tell: pass training, which keeps it."
        )
    if training:
        content = {
            "model": content,
            "ema": content if ema is None else _official_state(ema),
            "opt": torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0).state_dict(),
            "args": _training_args(model.config, sampling),
        }
    with _atomic_write(path) as draft:
        _save_object(content, draft)


def _training_args(config: DiTConfig, sampling: SamplingConfig | None) -> argparse.Namespace:
    "The arguments of the official training script, with two of our own: num_heads and sampling."
    shape = {field: getattr(config, field) for field in _SHAPE_FIELDS}
    sizes = {name: DiTConfig.named(name) for name in _MODEL_NAMES}
    names = [n for n, size in sizes.items() if all(getattr(size, k) == v for k, v in shape.items())]
    return argparse.Namespace(
        model=names[0] if names else None,
        image_size=8 * config.image_shape[1],  # pixels of the image, for a latent model
        num_classes=config.num_classes or 1,
        num_heads=config.num_heads,
        sampling=None if sampling is None else asdict(sampling),
    )
