"""Folders and Hub repositories of diffusers: the class of the model, and its weights, complete or an error."""

from pathlib import Path
from typing import Any

from torch import nn

from dit_nb.errors import UserError
from dit_nb.hub import _saved_file
from dit_nb.utils import _read_json_object

__all__ = []

_DIT_CLASSES = ("DiTTransformer2DModel", "Transformer2DModel")  # its name, and the one that older files have
_SD3_CLASS = "SD3Transformer2DModel"


def _is_diffusers(source: str | Path, download: dict) -> bool:
    "Whether a folder or a repository on the Hub is a model or a pipeline of diffusers."
    if Path(source).is_dir():
        return _is_diffusers_folder(Path(source))
    try:
        _saved_file(source, "model_index.json", **download)
        return True
    except FileNotFoundError:
        return False


def _is_diffusers_folder(path: Path) -> bool:
    config = path / "config.json"
    named = config.is_file() and "_class_name" in config.read_text(encoding="utf-8", errors="replace")
    return named or (path / "model_index.json").is_file()


def _class_name(source: str | Path, **download) -> str | None:
    "The class of the transformer, or of the model or pipeline without one; None if no file names one."
    for name in ("transformer/config.json", "config.json", "model_index.json"):
        try:
            return _read_json_object(_saved_file(source, name, **download)).get("_class_name")
        except FileNotFoundError:
            continue
    return None


def _check_class(source: str | Path, **download) -> None:
    "Raise a UserError if a file names a class that is not a DiT."
    name = _class_name(source, **download)
    if name not in (None, *_DIT_CLASSES):
        raise UserError(
            f"{source} holds the class {name} of diffusers, but must hold {_DIT_CLASSES[0]}, "
            f"or {_SD3_CLASS}, which `load_any` opens by `from_sd3`."
        )


def _load_transformer(transformer_class: Any, source: str | Path, **download) -> nn.Module:
    "Load a transformer of diffusers from its folder or that of its pipeline, or raise a UserError."
    folder = None if _is_alone(source) else "transformer"
    try:
        transformer, report = transformer_class.from_pretrained(
            source, subfolder=folder, output_loading_info=True, **download
        )
    except Exception as error:  # a damaged folder can fail in any way
        reason = (str(error).strip().splitlines() or [""])[0].rstrip(".")[:200]
        raise UserError(
            f"{source} cannot be loaded as {transformer_class.__name__} of diffusers "
            f"({type(error).__name__}: {reason})."
        ) from None
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    if wrong := [name for kind in kinds for name in report.get(kind, ())]:
        raise UserError(
            f"{source} does not fit its config.json: {len(wrong)} tensors are missing, unknown or of "
            f"another shape, the first is {wrong[0]}."
        )
    return transformer


def _is_alone(source: str | Path) -> bool:
    "Whether this is the folder of a transformer, not that of a pipeline."
    return Path(source).is_dir() and not (Path(source) / "transformer").is_dir()
