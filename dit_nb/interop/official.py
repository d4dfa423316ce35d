"""Names and tensors in a zip file: what they tell of a model, what they keep to themselves, and what may hide between them."""

import argparse
import math
import pickle
import re
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from dit_nb.config import NAMES, SIZES, DiTConfig
from dit_nb.model import DiT
from dit_nb.patchify import pair
from dit_nb.pretrained import SAMPLING, draws_pixels
from dit_nb.utils import check_choice, whole_file

HEADS = {size["hidden_size"]: size["num_heads"] for size in SIZES.values()}  # by width: 384 -> 6, ...


NEEDED = {  # tensors that tell the shape of a model, and how many dimensions they have
    "pos_embed": 3,
    "x_embedder.proj.weight": 4,
    "y_embedder.embedding_table.weight": 2,
    "blocks.0.mlp.fc1.weight": 2,
    "blocks.0.adaLN_modulation.1.weight": 2,
    "final_layer.linear.weight": 2,
}


def infer_config(
    state: dict[str, Tensor],  # an official state dict
    source: str | Path = "the state dict",  # how to call it in a complaint
    num_heads: int | None = None,  # not in the tensors: needed where the width is none of the paper's
    num_classes: int | None = None,  # one less than the label table has rows, if not given
) -> DiTConfig:
    "The shape of a model, read from its tensors. Raises ValueError where that cannot be done."
    for name, dimensions in NEEDED.items():
        if name not in state or state[name].ndim != dimensions:
            raise ValueError(f"{source} is no official DiT: there is no {name}, or not as it should be.")
    tokens = state["pos_embed"].shape[1]
    width, channels, patch, _ = state["x_embedder.proj.weight"].shape
    rows, hidden = (len(state[name]) for name in list(NEEDED)[2:4])
    side, outputs = math.isqrt(tokens), len(state["final_layer.linear.weight"]) / patch**2
    if side**2 != tokens or outputs not in (channels, 2 * channels):
        raise ValueError(f"{source} has {tokens} positions and {outputs:g} output channels: no official DiT.")
    heads = num_heads or HEADS.get(width)
    if heads is None:
        raise ValueError(
            f"{source} has width {width}, which is none of the paper's: pass num_heads (or use dit-nb convert, with --num-heads)."
        )
    classes = max(rows - 1, 1) if num_classes is None else num_classes
    if rows - classes not in (0, 1):
        raise ValueError(f"num_classes is {classes}, but the label table of {source} has {rows} rows.")
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


def read_checkpoint(
    path: str | Path,  # a .pt file
) -> object:  # mostly a dict
    "What a checkpoint holds: tensors and plain values. Code in it is refused, never run."
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is not a file.")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged file can fail in any way
        name = re.search(r"GLOBAL ([\w.]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and name:
            raise ValueError(
                f"{path} wants {name[1]} to be called when it is opened: refused, nothing of it was run."
            ) from None
        kind = type(error).__name__
        raise ValueError(f"{path} is no PyTorch checkpoint, or was cut short ({kind}).") from None


def choose_weights(
    checkpoint: object,  # what `read_checkpoint` gave
    path: str | Path,  # for complaints
    weights: str = "ema",  # ema or model, where there are both
) -> tuple[dict[str, Tensor], dict]:  # a state dict, and the settings of the run where they are known
    "The state dict in a checkpoint of either kind."
    check_choice("weights", weights, ("ema", "model"))
    settings = {}
    if isinstance(checkpoint, dict) and not all(isinstance(v, Tensor) for v in checkpoint.values()):
        if isinstance(checkpoint.get("args"), argparse.Namespace):
            settings = vars(checkpoint["args"])
        checkpoint = checkpoint.get(weights)
    if not isinstance(checkpoint, dict) or not all(isinstance(v, Tensor) for v in checkpoint.values()):
        raise ValueError(f"{path} holds neither a state dict nor one under the name {weights!r}.")
    return checkpoint, settings


def fill(
    model: nn.Module,  # changed in place
    state: dict[str, Tensor],
    source: str | Path,  # for complaints
) -> None:
    "Load every tensor. Raises ValueError unless names and shapes are the model's own, all of them."
    wanted = model.state_dict()
    both = wanted.keys() & state.keys()
    for what, names in (
        ("lacks {} tensors of the model", wanted.keys() - both),
        ("holds {} tensors that the model has not", state.keys() - both),
        ("holds {} tensors of another shape", {k for k in both if wanted[k].shape != state[k].shape}),
    ):
        if names:
            raise ValueError(f"{source} {what.format(len(names))}, the first is {min(names)}.")
    model.load_state_dict(state, strict=True)


LATENTS = {**SAMPLING, "clip_x0": False}  # how the paper's models were trained


def process_of(config: DiTConfig) -> dict:
    "The process of a model that says nothing of its own: the paper's."
    clip = draws_pixels(config)  # as they were trained
    return {**LATENTS, "clip_x0": clip, "variance": "learned" if config.learn_sigma else "fixed_large"}


def load_official(
    path: str | Path,  # a .pt file
    num_heads: int | None = None,  # where the width is none of the paper's
    num_classes: int | None = None,  # where the label table has no row for the null class
    weights: str = "ema",  # ema or model
) -> tuple[DiT, dict]:
    "A model from an official checkpoint, in eval() mode, and its process."
    state, settings = choose_weights(read_checkpoint(path), path, weights)
    known = {name: settings.get(name) for name in ("num_heads", "num_classes", "process")}
    heads, classes = (v if type(v) is int else None for v in (known["num_heads"], known["num_classes"]))
    config = infer_config(state, path, num_heads or heads, classes if num_classes is None else num_classes)
    model = DiT(config)
    fill(model, state, path)
    return model.eval(), {
        **process_of(config),
        **(known["process"] if isinstance(known["process"], dict) else {}),
    }


def check_form(
    config: DiTConfig,
    form: str,  # how to call the other format
) -> None:
    "Raise ValueError where the official code and diffusers have no such model."
    if config.block != "adaln_zero":
        raise ValueError(f"{form} knows adaLN-Zero blocks alone, but this model's are {config.block}.")
    height, width = pair(config.input_size)
    if height != width:
        raise ValueError(f"{form} knows square inputs alone, but this model's are {height}x{width}.")


def official_state(model: DiT) -> dict[str, Tensor]:
    "The weights by their official names, on the CPU."
    check_form(model.config, "the official format")
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    if not model.config.num_classes:
        state["y_embedder.embedding_table.weight"] = torch.zeros(1, model.config.hidden_size)
    return state


def save_official(
    model: DiT,
    path: str | Path,  # a .pt file
    sampling: dict | None = None,  # kept with the training form
    training: bool = False,  # as the training script writes it: model, ema, opt and args
    ema: DiT | None = None,  # averaged weights; the model's own if not given
) -> None:
    "Write an official checkpoint, whole or not at all."
    content, path = official_state(model), Path(path)
    if training:
        c = model.config
        named = [n for n in NAMES if all(getattr(DiTConfig.named(n), k) == getattr(c, k) for k in SHAPE)]
        args = argparse.Namespace(
            model=named[0] if named else None,
            image_size=8 * pair(c.input_size)[0],  # of the pictures, where the inputs are latents
            num_classes=c.num_classes or 1,
            num_heads=c.num_heads,
            sampling=sampling,
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0)
        averaged = content if ema is None else official_state(ema)
        content = {"model": content, "ema": averaged, "opt": optimizer.state_dict(), "args": args}
    with whole_file(path) as draft:
        torch.save(content, draft)


SHAPE = ("patch_size", "hidden_size", "depth", "num_heads")  # what a name like DiT-XL/2 says
