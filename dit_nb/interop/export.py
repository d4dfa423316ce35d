"""Export of a model to ONNX, and to one small file for the JavaScript of the page `site/live`."""

import copy
import json
import logging
import os
import shutil
import stat
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from dit_nb.config import SamplingConfig
from dit_nb.errors import UserError, _check_choice, _check_path, _check_type, _shown
from dit_nb.finetune import merge_lora
from dit_nb.model import DiT
from dit_nb.pretrained import _check_sampling_fits
from dit_nb.since.meanflow import MeanFlowDiT
from dit_nb.utils import _check_eval
from dit_nb.weight_files import _system_errors

__all__ = ["export_model"]


def export_model(model: DiT, sampling: SamplingConfig, target: str | Path, format: str = "onnx") -> None:
    """Write a model in a format for other programs than PyTorch.

    Args:
        model: the model, in eval() mode; LoRA adapters are merged
        sampling: its sampling settings; ONNX keeps the network alone
        target: file to write; must not exist yet
        format: "onnx" (needs the extra `export`) or "browser"

    Raises:
        UserError: if the file exists or cannot be written, or the model has a part that the format cannot hold
        ImportError: if the packages onnx and onnxscript are missing
    """
    _check_request(target, format)
    _check_type("model", model, DiT)
    _check_sampling_fits(sampling, model)
    _check_eval(model)
    if format == "onnx":
        _export_onnx(model, target, torch.long if sampling.objective == "diffusion" else torch.float32)
    else:
        _export_browser(model, sampling, target)


def _check_request(target: str | Path, format: str) -> None:
    "Check, before any work, that a file can be written, and that the packages of its format are installed."
    _check_choice("format", format, ("onnx", "browser"))
    with _draft(target):
        pass
    for name in ("onnx", "onnxscript") if format == "onnx" else ():
        try:
            import_module(name)
        except ImportError as error:
            if error.name != name:  # it is there, but damaged
                raise
            raise ImportError(f"{name} is missing: pip install 'dit_nb[export]'.", name=name) from None


def _is_there(path: Path) -> bool:
    "Whether a file, a folder or a link exists. Raises OSError for an impossible name."
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


@contextmanager
def _draft(target: str | Path) -> Iterator[Path]:
    "Give a file of the same name in a new folder beside it. What was written there is moved if the block succeeds."
    _check_path("target", target)
    target = Path(target)
    try:
        if _is_there(target):
            raise UserError(f"target is {target}, but must not exist yet: choose another name.")
        if not target.parent.is_dir():
            raise UserError(f"target is {target}, but must be in a folder that exists: make {target.parent}.")
        folder = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=target.parent))
    except OSError as error:
        raise UserError(f"target is {_shown(str(target))}, but must be writable: {error.strerror}.") from None
    try:
        yield folder / target.name
        for file in sorted(folder.iterdir(), reverse=True):  # x.onnx.data, large weights, before x.onnx
            os.replace(file, target.with_name(file.name))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ONNX


def _export_onnx(model: DiT, target: str | Path, time: torch.dtype = torch.long) -> None:
    """Write the network as ONNX: inputs x (N, C, H, W), t (N,) and y (N,) int64, output (N, out_channels, H, W).

    A MeanFlowDiT has the input r (N,) after t; its times are in [0, 1]. The size N of a batch is free.
    The weights are float16 if those of the model are, else float32: onnxruntime has no bfloat16 on a CPU.

    Args:
        model: the model, in eval() mode
        target: file to write
        time: number format of t: torch.float32 for a flow, whose 1000 t are no integers
    """
    if hasattr(model, "encode_text"):
        raise UserError(f"model is {type(model).__name__}, but must be a DiT or a MeanFlowDiT for ONNX.")
    if model.takes_y and not model.config.num_classes:
        raise UserError(
            "model has a y_embedder of its own, but must have class labels or no condition for ONNX."
        )
    model = merge_lora(model)
    dtype = torch.float16 if model.pos_embed.dtype == torch.float16 else torch.float32
    if (model.pos_embed.device.type, model.pos_embed.dtype) != ("cpu", dtype):
        model = copy.deepcopy(model).to("cpu", dtype)  # the caller's stays as it is
    with _draft(target) as draft, _without_notes():
        try:
            program = _trace(model, _example_inputs(model, time))
        except torch.onnx.OnnxExporterError as error:
            reason = (str(error.__cause__ or error).splitlines() or ["unknown"])[0].rstrip(".")
            raise UserError(f"model cannot be written as ONNX: {reason}.") from error
        program.save(draft)


def _trace(model: DiT, inputs: dict[str, Tensor]):
    "The network as a program of ONNX, with a batch of any size N."
    batch = torch.export.Dim("N", min=1)
    return torch.onnx.export(
        model,
        tuple(inputs.values()),
        input_names=list(inputs),
        output_names=["out"],
        dynamic_shapes=tuple({0: batch} for _ in inputs),
        dynamo=True,
        verbose=False,
    )


def _example_inputs(model: DiT, time: torch.dtype) -> dict[str, Tensor]:
    "A batch of two, in the order of `forward`."
    inputs = {"x": torch.zeros(2, *model.image_shape), "t": torch.zeros(2, dtype=time)}
    if isinstance(model, MeanFlowDiT):
        inputs["r"] = torch.zeros(2, dtype=time)  # the same tensor twice would be exported as one input
    return inputs | ({"y": torch.zeros(2, dtype=torch.long)} if model.takes_y else {})


@contextmanager
def _without_notes() -> Iterator[None]:
    "Silence notes of PyTorch's exporter to its developers: torchvision, which is not needed, and deprecations."
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for kind in (FutureWarning, DeprecationWarning):
                warnings.simplefilter("ignore", kind)
            warnings.filterwarnings("ignore", "# The axis name")
            yield
    finally:
        log.setLevel(level)


# Browser


def _export_browser(model: DiT, sampling: SamplingConfig, target: str | Path) -> None:
    """Write weights, configuration and sampling settings as one safetensors file of two bytes per weight.

    A matrix is stored as 16-bit integers with a float32 scale for each row, `name.scale`. Over 100 images of noise this
    changes the output of the digit model by 2.0e-4 at most; float16, of the same two bytes, would change it by 2.1e-3,
    more than the 1e-3 that the page may differ from PyTorch. Vectors are stored in float32.

    Args:
        model: an adaLN-Zero model of square images with class labels: a DiT with learned variance, or a MeanFlowDiT
        sampling: its sampling settings: diffusion with the linear schedule, or mean_flow
        target: file to write
    """
    model = merge_lora(model)
    _check_browser(model, sampling)
    tensors = {}
    for name, w in model.state_dict().items():
        w = w.detach().float().cpu()
        _check_finite(name, w)
        tensors |= (
            {name: w} if w.ndim == 1 else _quantize(name, w.flatten(0, -2) if w.ndim == 3 else w.flatten(1))
        )
    settings = {k: v for k, v in asdict(sampling).items() if k != "card"}
    scale = {"time_scale": model.time_scale} if isinstance(model, MeanFlowDiT) else {}
    facts = {"config": json.dumps(asdict(model.config) | scale), "sampling": json.dumps(settings)}
    with _draft(target) as draft, _system_errors(draft):
        draft.touch()
        mode = stat.S_IMODE(draft.stat().st_mode)
        save_file({name: w.contiguous() for name, w in tensors.items()}, draft, facts)
        draft.chmod(mode)  # safetensors makes it private, and a web server could not read it


def _check_finite(name: str, w: Tensor) -> None:
    bad = int((~w.isfinite()).sum())
    if bad:
        raise UserError(f"{name} has {bad} numbers that are NaN or infinite, but must be finite in float32.")


def _quantize(name: str, w: Tensor) -> dict[str, Tensor]:  # w: (rows, columns)
    "Round a matrix to 16-bit integers, with one scale for each row."
    scale = w.abs().amax(1).clamp(min=1e-30) / 32767
    return {name: (w / scale[:, None]).round().to(torch.int16), f"{name}.scale": scale}


def _check_browser(model: DiT, sampling: SamplingConfig) -> None:
    "Raise a UserError that names the first setting or part of the model that the JavaScript does not know."
    c = model.config
    wanted = {
        "model": (type(model).__name__, type(model) in (DiT, MeanFlowDiT), "a plain DiT or MeanFlowDiT"),
        "block": (c.block, c.block == "adaln_zero", "adaln_zero"),
        "input_size": (c.input_size, isinstance(c.input_size, int), "one number, a square"),
        "num_classes": (c.num_classes, c.num_classes > 0, "at least 1"),
        "clip_x0": (sampling.clip_x0, sampling.clip_x0, "True, a model of pixels"),
        "vae": (sampling.vae, not sampling.vae, "None, a model of pixels"),
        **(_mean_flow_rules if isinstance(model, MeanFlowDiT) else _diffusion_rules)(model, sampling),
    }
    for name, (value, fits, needed) in wanted.items():
        if not fits:
            raise UserError(
                f"{name} is {_shown(value)}, but must be {needed}: the page's JavaScript knows no other."
            )
    _check_parts(model)


def _mean_flow_rules(model: DiT, sampling: SamplingConfig) -> dict[str, tuple]:
    return {"objective": (sampling.objective, sampling.objective == "mean_flow", "mean_flow")}


def _diffusion_rules(model: DiT, sampling: SamplingConfig) -> dict[str, tuple]:
    "Name -> value, whether it fits, and what the sampler in JavaScript needs."
    c, s = model.config, sampling
    counts = s.steps.isdecimal() and 1 <= int(s.steps) <= s.num_timesteps
    guided = s.guided_channels in (None, c.in_channels)
    return {
        "objective": (s.objective, s.objective == "diffusion", "diffusion"),
        "class_dropout_prob": (c.class_dropout_prob, c.class_dropout_prob > 0, "above 0, for guidance"),
        "learn_sigma": (c.learn_sigma, c.learn_sigma, "True"),
        "schedule": (s.schedule, s.schedule == "linear", "linear"),
        "variance": (s.variance, s.variance == "learned", "learned"),
        "guided_channels": (s.guided_channels, guided, f"None, all {c.in_channels} channels"),
        "steps": (s.steps, counts, f"a number from 1 to num_timesteps, {s.num_timesteps}"),
    }


def _check_parts(model: DiT) -> None:
    "Raise a UserError if a module or a weight is not that of the model's configuration, such as a y_embedder."
    with torch.device("meta"):
        plain = type(model)(model.config)
    kinds = [{name: type(m).__name__ for name, m in one.named_modules()} for one in (model, plain)]
    shapes = [{name: tuple(w.shape) for name, w in one.state_dict().items()} for one in (model, plain)]
    for found, wanted in (kinds, shapes):
        for name in wanted | found:
            if found.get(name) != wanted.get(name):
                raise UserError(
                    f"{name} is {found.get(name, 'missing')}, but must be {wanted.get(name, 'left out')}: "
                    "the page's JavaScript knows no other."
                )
