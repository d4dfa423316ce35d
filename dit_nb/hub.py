"""Saving and loading a DiT or MM-DiT: config.json, model.safetensors and a model card, in a folder or on the Hub."""

import json
import os
import re
import stat
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dit_nb.config import DiTConfig, SamplingConfig
from dit_nb.errors import UserError, _check_choice, _check_path, _check_type, _shown
from dit_nb.finetune import _ADAPTER, _add_saved_adapters, merge_lora
from dit_nb.model import DiT
from dit_nb.utils import _atomic_write, _check_device, _check_dtype, _read_json_object, _write_text

__all__ = []  # used through `DiT.save_pretrained` and `DiT.from_pretrained`

_CARD = (files("dit_nb") / "models" / "card.md").read_text(encoding="utf-8")  # a Jinja template

_CONFIG, _WEIGHTS, _AVERAGE = "config.json", "model.safetensors", "ema.safetensors"
_KIND = "model"  # field of config.json: the class of a model that is not a DiT
_KINDS = {  # class -> its module, and the objective of a model that was saved without sampling settings
    "DiT": ("dit_nb.model", "diffusion"),
    "MMDiT": ("dit_nb.since.mmdit", "flow"),
    "MeanFlowDiT": ("dit_nb.since.meanflow", "mean_flow"),
}
_DOWNLOAD = ("revision", "token", "cache_dir", "force_download", "local_files_only")  # options for the Hub
_CARD_ENTRIES = ("data", "command", "metrics", "source", "model_id", "prompt", "objective", "predicts")
_OTHER_NAMES = {"torch_dtype": "dtype", "device_map": "device", "map_location": "device"}
_PAPER_URL = "https://arxiv.org/abs/2212.09748"


# Writing


def _save(model: nn.Module, folder: str | Path, sampling: SamplingConfig | None = None, **card) -> None:
    "See `DiT.save_pretrained`."
    _check_path("folder", folder)
    _check_card(card)
    if sampling is not None:
        _check_type("sampling", sampling, SamplingConfig)
        save_model = import_module("dit_nb.pretrained").save_model  # a layer above
        return save_model(model, folder, replace(sampling, card={**sampling.card, **card}))
    folder, model = Path(folder), merge_lora(model)
    if folder.is_file():
        raise UserError(f"folder is {folder}, but must not be a file.")
    folder.mkdir(parents=True, exist_ok=True)
    _write_text(folder / _CONFIG, json.dumps(_config_fields(model), indent=2))
    _write_weights(model.state_dict(), folder / _WEIGHTS)
    with _atomic_write(folder / "README.md") as draft:
        _model_card(model, **card).save(draft)


def _check_card(card: dict[str, Any]) -> None:
    "Raise a UserError for an entry that the model card does not have: most likely an option of another library."
    for name in card.keys() - set(_CARD_ENTRIES):
        hint = ": use push_model" if name == "push_to_hub" else f": there are {', '.join(_CARD_ENTRIES)}"
        raise UserError(f"{name} is {_shown(card[name])}, but no such option or entry exists{hint}.")


def _config_fields(model: nn.Module) -> dict[str, Any]:
    "What config.json holds: the fields, and the class of the model if it is not a DiT."
    kind = _kind(model)
    return {**({} if kind == "DiT" else {_KIND: kind}), **asdict(model.config)}


def _kind(model: nn.Module) -> str:
    "The name of the model's class in `_KINDS`; that of its base for a class of the user's own."
    return next((name for name in (c.__name__ for c in type(model).__mro__) if name in _KINDS), "DiT")


def _write_weights(weights: dict[str, Tensor], path: Path) -> None:
    "Write a .safetensors file with the permissions of any new file; safetensors makes it private."
    with _atomic_write(path) as draft:
        draft.touch()
        mode = stat.S_IMODE(draft.stat().st_mode)
        try:
            save_file({k: v.contiguous() for k, v in weights.items()}, draft, metadata={"format": "pt"})
        except SafetensorError as error:  # most likely a full disk
            raise UserError(f"{path} cannot be written: {error}.") from None
        os.chmod(draft, mode)


def _write_float16(weights: dict[str, Tensor], path: Path) -> None:
    "Write weights at half their size, as the bundled models are; fixed positions stay exact."
    _write_weights({k: v if k == "pos_embed" else v.half() for k, v in weights.items()}, path)


def _model_card(model: nn.Module, **card) -> ModelCard:
    data = ModelCardData(library_name="dit_nb", tags=["dit", "diffusion"])
    parameters = sum(p.numel() for name, p in model.named_parameters() if name != "pos_embed")  # it is fixed
    kind = _kind(model)
    card.setdefault("objective", _KINDS[kind][1])
    card = {"config": model.config, "kind": kind, "parameters": parameters, "paper_url": _PAPER_URL, **card}
    return ModelCard.from_template(data, template_str=_CARD, **card)


# Reading


def _load(
    model_class: type[DiT],
    source: str | Path,
    y_embedder: nn.Module | None = None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    weights: str = "ema",
    **download,
):
    "See `DiT.from_pretrained`."
    _check_choice("weights", weights, ("ema", "model"))
    _check_device(device)
    _check_dtype(dtype)
    _check_download(download)
    source = _model_folder(source)
    found_class, config = _read_config(_saved_file(source, _CONFIG, **download))
    # A class of your own, or the same one, defined again in the notebook of lesson 12.
    if issubclass(model_class, found_class) or model_class.__name__ == found_class.__name__:
        found_class = model_class
    elif not issubclass(found_class, model_class):
        raise UserError(f"{source} holds a {found_class.__name__}, but must hold a {model_class.__name__}.")
    average = Path(source) / _AVERAGE  # of a checkpoint
    name = _AVERAGE if weights == "ema" and average.is_file() else _WEIGHTS

    def build() -> nn.Module:
        model = found_class(config, y_embedder)
        if (Path(source) / _ADAPTER).is_file():  # a checkpoint with low-rank adapters
            _add_saved_adapters(model, Path(source))
        return model

    state = _read_weights(_saved_file(source, name, **download), build, config.depth)
    model = build()
    model.load_state_dict(state)
    return merge_lora(model).to(device=device, dtype=dtype).eval()


def _check_download(options: dict[str, Any]) -> None:
    "Raise a UserError for an option that would be ignored, or that another library has."
    for name in options.keys() - set(_DOWNLOAD):
        hint = (
            f": use {_OTHER_NAMES[name]}" if name in _OTHER_NAMES else f": there are {', '.join(_DOWNLOAD)}"
        )
        raise UserError(f"{name} is {_shown(options[name])}, but no such option exists{hint}.")


def _model_folder(source: str | Path) -> str | Path:
    "The folder of a model: `source` itself, or for the folder of a run its last checkpoint, or its model."
    _check_path("source", source)
    folder = Path(source)
    if not folder.is_dir() or (folder / _CONFIG).is_file():
        return source
    found = sorted(parent for parent in folder.glob("checkpoints/step-[0-9]*") if parent.is_dir())
    found += sorted(folder.glob("step-[0-9]*")) if folder.name == "checkpoints" else []
    candidates = [*found[-1:], folder / "model"]
    return next((path for path in candidates if (path / _CONFIG).is_file()), source)


def _saved_file(source: str | Path, name: str, **download) -> Path:
    "Find a file of a saved model in a folder, or download it from the Hub if `source` reads 'user/name'."
    folder = Path(source)
    if isinstance(source, str) and re.fullmatch(r"\w[\w.-]*/[\w.-]+", source) and not folder.is_dir():
        try:
            return Path(hf_hub_download(source, name, **_without_retries(source, name, download)))
        except (OSError, ValueError) as error:
            raise FileNotFoundError(
                f"{source} is not a folder, and {name} could not be downloaded from the Hub "
                f"({type(error).__name__})."
            ) from None
    if not (folder / name).is_file():
        raise FileNotFoundError(f"{source} {f'has no {name}' if folder.is_dir() else 'is not a folder'}.")
    return folder / name


def _without_retries(repo_id: str, name: str, download: dict) -> dict:
    "Options for a download that looks at the cache alone if the Hub does not answer: it would try for a minute."
    if download.get("local_files_only"):
        return download
    address = hf_hub_url(repo_id, name, revision=download.get("revision"))
    try:
        get_hf_file_metadata(address, token=download.get("token"))
    except HfHubHTTPError:  # an answer, which the download explains
        return download
    except Exception:  # no network; of which class the error is depends on the client's version
        return {**download, "local_files_only": True}
    return download


def _read_config(path: Path) -> tuple[type[DiT], DiTConfig]:
    "Read a config.json: class and configuration of a model, or UserError if a field is missing, unknown or wrong."
    fields = _read_json_object(path)
    if theirs := fields.get("_class_name"):  # of diffusers
        raise UserError(
            f"{path} is of the class {theirs} of diffusers, but must be of dit_nb: use `load_any` of "
            "dit_nb.interop.convert, which opens DiT, and Stable Diffusion 3 by `from_sd3`."
        )
    model_class, config_class = _classes(path, fields.pop(_KIND, "DiT"))
    optional = {"init", "switches"}  # loading needs no `init`; older files have no `switches`
    wrong = (fields.keys() | optional) ^ config_class.__dataclass_fields__.keys()
    if wrong:
        raise UserError(
            f"{path} has missing or unknown fields of a {config_class.__name__}: {', '.join(sorted(wrong))}."
        )
    try:
        return model_class, config_class(**fields)
    except UserError as error:
        raise UserError(f"{path} cannot be used: {error}") from None


def _classes(path: Path, kind) -> tuple[type[DiT], type[DiTConfig]]:
    "Classes of the model and of its configuration, by their name in config.json."
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UserError(f"{path} has model {_shown(kind)}, but must have one of {', '.join(_KINDS)}.")
    module = import_module(_KINDS[kind][0])
    return getattr(module, kind), getattr(module, f"{kind}Config", DiTConfig)


def _read_weights(path: Path, build: Callable[[], nn.Module], depth: int) -> dict[str, Tensor]:
    "Read the weights of a model, or raise UserError unless all names, shapes and types are those of the model."
    try:
        with safe_open(path, framework="pt") as file:
            got = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
        _check_tensors(path, got, build, depth)
        weights = load_file(path)
    except (SafetensorError, OSError, RuntimeError, OverflowError) as error:
        raise UserError(f"{path} cannot be read: {_first_line(error)}.") from None
    for name, weight in weights.items():
        if not weight.is_floating_point():
            raise UserError(f"{path} has {name} of {weight.dtype}, but must have floating point numbers.")
    return weights


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200]


def _check_tensors(path: Path, got: dict, build: Callable[[], nn.Module], depth: int) -> None:
    "Raise UserError unless the model has tensors of these names and shapes."
    found = len({name.split(".")[1] for name in got if name.startswith("blocks.")})
    if depth > max(found, 1):  # before a model is built: a damaged number may be huge
        raise UserError(
            f"{path} does not fit its config.json: depth is {depth}, but blocks.{found} is missing."
        )
    with torch.device("meta"):  # no memory is needed
        wanted = {name: tuple(weight.shape) for name, weight in build().state_dict().items()}
    wrong = sorted(k for k in got.keys() | wanted.keys() if got.get(k) != wanted.get(k))
    if wrong:
        raise UserError(
            f"{path} does not fit its config.json: {len(wrong)} tensors are missing, unknown or of another shape, "
            f"the first is {wrong[0]}{_hint(wrong[0])}."
        )


def _hint(name: str) -> str:
    "What to do about a wrong tensor, if that is likely."
    return (
        ": pass a y_embedder of the kind that the model was made with"
        if name.startswith("y_embedder")
        else ""
    )
