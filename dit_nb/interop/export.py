"""Export of a model to ONNX, and to one small file for the JavaScript of the page `site/live`."""

import json
import stat
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from dit_nb.config import SamplingConfig
from dit_nb.errors import UserError, _check_choice
from dit_nb.model import DiT
from dit_nb.since.meanflow import MeanFlowDiT
from dit_nb.utils import _atomic_write
from dit_nb.weight_files import _system_errors

__all__ = ["export_model"]


def export_model(model: DiT, sampling: SamplingConfig, target: str | Path, format: str = "onnx") -> None:
    """Write a model in a format for other programs than PyTorch.

    Args:
        model: the model, in eval() mode
        sampling: its sampling settings; ONNX keeps the network alone
        target: file to write; must not exist yet
        format: "onnx" or "browser"

    Raises:
        UserError: if the file exists, or the model has a part that the format cannot hold
    """
    _check_choice("format", format, ("onnx", "browser"))
    if Path(target).exists():
        raise UserError(f"target is {target}, but must not exist yet: choose another name.")
    if format == "onnx":
        _export_onnx(model, target, torch.long if sampling.objective == "diffusion" else torch.float32)
    else:
        _export_browser(model, sampling, target)


def _export_onnx(model: DiT, target: str | Path, time: torch.dtype = torch.long) -> None:
    """Write the network as ONNX: inputs x (N, C, H, W), t (N,) and y (N,) int64, output (N, out_channels, H, W).

    A MeanFlowDiT has the input r (N,) after t; its times are in [0, 1]. The size N of a batch is free. Needs the package onnxscript.

    Args:
        model: the model, in eval() mode
        target: file to write
        time: number format of t: torch.float32 for a flow, whose 1000 t are no integers
    """
    c, (channels, height, width) = model.config, model.image_shape
    if model.takes_y and not c.num_classes:
        raise UserError(
            "model has a y_embedder of its own, but must have class labels or no condition for ONNX."
        )
    x, t = torch.zeros(2, channels, height, width), torch.zeros(2, dtype=time)
    y = torch.zeros(2, dtype=torch.long)
    given = {"x": x, "t": t}
    if isinstance(model, MeanFlowDiT):
        given["r"] = t.clone()  # the same tensor twice would be exported as one input
    given |= {"y": y} if model.takes_y else {}
    inputs, names = tuple(given.values()), list(given)
    batch = torch.export.Dim("N", min=1)
    program = torch.onnx.export(
        model.cpu().eval(),
        inputs,
        input_names=names,
        output_names=["out"],
        dynamic_shapes=tuple({0: batch} for _ in inputs),
        dynamo=True,
        verbose=False,
    )
    program.save(target)


def _export_browser(model: DiT, sampling: SamplingConfig, target: str | Path) -> None:
    """Write weights, configuration and sampling settings as one safetensors file of two bytes per weight.

    A matrix is stored as 16-bit integers with a float32 scale for each row, `name.scale`: about a tenth of the error
    of float16. Vectors are stored in float32.

    Args:
        model: an adaLN-Zero model of square images with class labels: a DiT with learned variance, or a MeanFlowDiT
        sampling: its sampling settings: diffusion with the linear schedule, or mean_flow
        target: file to write
    """
    _check_browser(model, sampling)
    tensors = {}
    for name, w in model.state_dict().items():
        w = w.detach().float().cpu()
        tensors |= (
            {name: w} if w.ndim == 1 else _quantize(name, w.flatten(0, -2) if w.ndim == 3 else w.flatten(1))
        )
    settings = {k: v for k, v in asdict(sampling).items() if k != "card"}
    scale = {"time_scale": model.time_scale} if isinstance(model, MeanFlowDiT) else {}
    facts = {"config": json.dumps(asdict(model.config) | scale), "sampling": json.dumps(settings)}
    with _system_errors(Path(target)), _atomic_write(target) as draft:
        draft.touch()
        mode = stat.S_IMODE(draft.stat().st_mode)
        save_file({name: w.contiguous() for name, w in tensors.items()}, draft, facts)
        draft.chmod(mode)  # safetensors makes it private, and a web server could not read it


def _quantize(name: str, w: Tensor) -> dict[str, Tensor]:  # w: (rows, columns)
    "Round a matrix to 16-bit integers, with one scale for each row."
    scale = w.abs().amax(1).clamp(min=1e-30) / 32767
    return {name: (w / scale[:, None]).round().to(torch.int16), f"{name}.scale": scale}


def _check_browser(model: DiT, sampling: SamplingConfig) -> None:
    "Raise a UserError that names the first setting that the JavaScript does not know."
    c = model.config
    wanted = {
        "block": (c.block, c.block == "adaln_zero", "adaln_zero"),
        "input_size": (c.input_size, isinstance(c.input_size, int), "one number, a square"),
        "num_classes": (c.num_classes, c.num_classes > 0, "at least 1"),
        "clip_x0": (sampling.clip_x0, sampling.clip_x0, "True, a model of pixels"),
    }
    if isinstance(model, MeanFlowDiT):
        wanted["objective"] = (sampling.objective, sampling.objective == "mean_flow", "mean_flow")
    else:
        wanted |= {
            "class_dropout_prob": (c.class_dropout_prob, c.class_dropout_prob > 0, "above 0, for guidance"),
            "learn_sigma": (c.learn_sigma, c.learn_sigma, "True"),
            "objective": (sampling.objective, sampling.objective == "diffusion", "diffusion"),
            "schedule": (sampling.schedule, sampling.schedule == "linear", "linear"),
        }
    for name, (value, fits, needed) in wanted.items():
        if not fits:
            raise UserError(
                f"{name} is {value!r}, but must be {needed}: the page's JavaScript knows no other."
            )
