"""Saving and loading a DiT: config.json, model.safetensors and a model card, in a folder or on the Hub."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData, hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from dit_nb.config import DiTConfig
from dit_nb.errors import UserError

__all__ = []  # used through `DiT.save_pretrained` and `DiT.from_pretrained`

_CARD = (files("dit_nb") / "models" / "card.md").read_text(encoding="utf-8")  # a Jinja template

_FILES = ("config.json", "model.safetensors")  # what `_save` writes, beside README.md
_PAPER_URL = "https://arxiv.org/abs/2212.09748"


def _save(model: nn.Module, folder: str | Path, **card) -> None:
    "See `DiT.save_pretrained`."
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _FILES[0]).write_text(json.dumps(asdict(model.config), indent=2), encoding="utf-8")
    weights = {name: weight.contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, folder / _FILES[1], metadata={"format": "pt"})
    _model_card(model, **card).save(folder / "README.md")


def _load(model_class: Callable, source: str | Path, y_embedder: nn.Module | None = None, **download):
    "See `DiT.from_pretrained`."
    config, weights = (_saved_file(source, name, **download) for name in _FILES)
    model = model_class(_read_config(config), y_embedder)
    _load_weights(model, weights)
    return model.eval()


def _model_card(model: nn.Module, **card) -> ModelCard:
    data = ModelCardData(library_name="dit_nb", tags=["dit", "diffusion"])
    parameters = sum(p.numel() for name, p in model.named_parameters() if name != "pos_embed")  # it is fixed
    card = {"config": model.config, "parameters": parameters, "paper_url": _PAPER_URL, **card}
    return ModelCard.from_template(data, template_str=_CARD, **card)


def _saved_file(source: str | Path, name: str, **download) -> Path:
    "Find a file of a saved model in a folder, or download it from the Hub if `source` reads 'user/name'."
    folder = Path(source)
    if isinstance(source, str) and re.fullmatch(r"\w[\w.-]*/[\w.-]+", source) and not folder.is_dir():
        try:
            return Path(hf_hub_download(source, name, **download))
        except (OSError, ValueError) as error:
            raise FileNotFoundError(
                f"{source} is not a folder, and {name} could not be downloaded from the Hub "
                f"({type(error).__name__})."
            ) from None
    if not (folder / name).is_file():
        raise FileNotFoundError(f"{source} {f'has no {name}' if folder.is_dir() else 'is not a folder'}.")
    return folder / name


def _read_config(path: Path) -> DiTConfig:
    "Read a config.json, or raise UserError if a field is missing or unknown."
    try:
        fields = dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError):
        raise UserError(f"{path} is not a JSON object.") from None
    wrong = (fields.keys() | {"init"}) ^ DiTConfig.__dataclass_fields__.keys()  # loading needs no `init`
    if wrong:
        raise UserError(f"{path} has missing or unknown fields of a DiTConfig: {', '.join(sorted(wrong))}.")
    return DiTConfig(**fields)


def _load_weights(model: nn.Module, path: Path) -> None:
    "Fill a model from a file, or raise UserError unless all names and shapes are those of the model."
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    got, wanted = ({k: v.shape for k, v in w.items()} for w in (weights, model.state_dict()))
    wrong = sorted(k for k in got.keys() | wanted.keys() if got.get(k) != wanted.get(k))
    if wrong:
        raise UserError(
            f"{path} does not fit its config.json: {len(wrong)} tensors are missing, unknown or of another shape, "
            f"the first is {wrong[0]}{_hint(wrong[0])}."
        )
    model.load_state_dict(weights)


def _hint(name: str) -> str:
    "What to do about a wrong tensor, if that is likely."
    return (
        ": pass a y_embedder of the kind that the model was made with"
        if name.startswith("y_embedder")
        else ""
    )
