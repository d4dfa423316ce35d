"""Fine-tuning a trained model: other classes, frozen parameters, and low-rank adapters (LoRA) by PEFT."""

import copy
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from torch import nn

from dit_nb.conditioning import LabelEmbedder
from dit_nb.errors import UserError, _check_names, _check_number, _check_type, _shown
from dit_nb.model import DiT
from dit_nb.utils import _atomic_write, _read_json_object

__all__ = ["add_lora", "fit_model", "freeze", "merge_lora", "save_lora"]

LORA_TARGETS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")  # the linear layers of attention and MLP
_BACKBONE = (
    "*adaLN_modulation*",
    "*shared_modulation*",
    "blocks.*.table",
    "*bias",
    "y_embedder*",
)  # what `freeze("backbone")` still trains
_ADAPTER = "adapter_config.json"  # PEFT's name


def fit_model(
    model: DiT,
    input_size: int | tuple[int, int] | None = None,
    class_names: Sequence[str] | None = None,
    known: Sequence[str] | None = None,
) -> tuple[DiT, list[str]]:
    """Make a copy of a trained model for other images or other classes.

    The embedding of a class that the model knows by name is kept, and so is that of the null class; a new class gets a
    new one. Position embeddings do not depend on training: for another size they are computed again.

    Args:
        model: the trained model
        input_size: side of the new images or latents, or (height, width); that of the model by default
        class_names: names of the new classes, K of them; those of the model by default
        known: names of the model's own classes; without them only the same number of classes can be kept, in order

    Returns:
        the fitted model, in eval() mode, and sentences about what is new in it

    Raises:
        UserError: if `model` is another kind of model, or names or size do not fit it
    """
    _check_type("model", model, DiT)
    if hasattr(model, "encode_text") or hasattr(model, "span_embedder"):
        raise UserError(f"model is a {type(model).__name__}, but must be a DiT.")
    for name, value in {"class_names": class_names, "known": known}.items():
        if value is not None:
            _check_names(name, value)
    if known is not None and len(known) != model.config.num_classes:
        raise UserError(
            f"known has {len(known)} names, but must have the model's {model.config.num_classes}."
        )
    names = class_names if class_names is not None else known
    old, size = model.config, model.config.input_size if input_size is None else input_size
    config = replace(old, input_size=size, num_classes=old.num_classes if names is None else len(names))
    own = (
        None if model.y_embedder is None or isinstance(model.y_embedder, LabelEmbedder) else model.y_embedder
    )
    fitted, news = DiT(config, own), []
    weights = model.state_dict()
    if config.image_shape != old.image_shape:
        news.append(
            f"input_size is {size} instead of {old.input_size}: the position embeddings are computed again"
        )
        del weights["pos_embed"]
    if names is not None and own is None:
        news += _fit_table(weights, model, fitted, tuple(names), None if known is None else tuple(known))
    fitted.load_state_dict(weights, strict=False)
    return fitted.eval(), news


_TABLE = "y_embedder.embedding_table.weight"


def _fit_table(weights: dict, model: DiT, fitted: DiT, names: tuple, known: tuple | None) -> list[str]:
    "Replace the label table (K + 1, D) in `weights` by one for the new classes; tell what is new in it."
    old = weights.pop(_TABLE, None)
    if not names:
        return [] if old is None else ["data has no classes: the label embeddings are left out"]
    rows = {} if old is None else _known_rows(names, known, model.config.num_classes)
    table = fitted.state_dict()[_TABLE].clone()  # new embeddings
    for i, row in rows.items():
        table[i] = old[row]
    if old is not None and model.null_class is not None and fitted.null_class is not None:
        table[fitted.null_class] = old[model.null_class]
    weights[_TABLE] = table
    new = [name for i, name in enumerate(names) if i not in rows]
    if not new and known is None:
        return [f"the model's classes have no names: its {len(names)} label embeddings are kept in order"]
    if not new:
        return []
    some = ", ".join(new[:5]) + (", ..." if len(new) > 5 else "")
    return [f"{len(new)} of {len(names)} classes are new and get new label embeddings: {some}"]


def _known_rows(names: tuple, known: tuple | None, num_classes: int) -> dict[int, int]:
    "The row of the old table for each class that the model knows."
    if known is not None:
        return {i: known.index(name) for i, name in enumerate(names) if name in known}
    return {i: i for i in range(num_classes)} if num_classes == len(names) else {}


def freeze(model: nn.Module, patterns: str | Sequence[str], unfreeze: str | Sequence[str] = ()) -> int:
    """Exclude parameters from training, by name.

    Args:
        model: the model, changed in place
        patterns: patterns of parameter names, such as "blocks.*.attn.*"; "backbone" stands for all parameters but
            modulations, biases and label embeddings (BitFit and DiffFit train such a set)
        unfreeze: patterns of parameters to train all the same

    Returns:
        number of parameters (single numbers) that are trained

    Raises:
        UserError: if a pattern fits no parameter, or nothing is left to train
    """
    _check_type("model", model, nn.Module)
    patterns, unfreeze = ([p] if isinstance(p, str) else p for p in (patterns, unfreeze))
    _check_names("freeze", patterns)
    _check_names("unfreeze", unfreeze)
    patterns, unfreeze = tuple(patterns), tuple(unfreeze)
    if "backbone" in patterns:
        patterns = tuple("*" if pattern == "backbone" else pattern for pattern in patterns)
        unfreeze += tuple(p for p in _BACKBONE if _matches(model, p))
    for kind, group in (("freeze", patterns), ("unfreeze", unfreeze)):
        for pattern in group:
            if not _matches(model, pattern):
                known = ", ".join(list(dict(model.named_parameters()))[:3])
                raise UserError(f"{kind} is {pattern!r}, but must fit a parameter, such as {known}.")
    for group, trained in ((patterns, False), (unfreeze, True)):
        for pattern in group:
            for name in _matches(model, pattern):
                model.get_parameter(name).requires_grad_(
                    trained and name != "pos_embed"
                )  # it is never trained
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if not count:
        raise UserError(f"freeze is {' '.join(patterns)}, but must leave a parameter to train.")
    return count


def _matches(model: nn.Module, pattern: str) -> list[str]:
    return [name for name, _ in model.named_parameters() if fnmatchcase(name, pattern)]


def _peft():
    try:
        import peft
    except ImportError as error:
        raise ImportError(
            f"LoRA needs the package peft: pip install 'dit_nb[finetune]' ({error}).", name="peft"
        ) from None
    return peft


def add_lora(
    model: DiT, rank: int = 8, alpha: float | None = None, targets: Sequence[str] = LORA_TARGETS
) -> int:
    """Add low-rank adapters W + (alpha / rank) B A to linear layers (Hu et al. 2021); all else is frozen.

    B starts at zero, so that the model is unchanged at first.

    Args:
        model: a trained model, changed in place
        rank: rows of A and columns of B
        alpha: numerator of the scale; the rank by default
        targets: ends of the names of layers that get adapters

    Returns:
        number of parameters (single numbers) that are trained

    Raises:
        UserError: if a name is none of a linear layer
        ImportError: if PEFT is missing
    """
    _check_number("rank", rank, int)
    _check_number("alpha", rank if alpha is None else alpha)
    if isinstance(targets, str) or not targets:
        raise UserError(f"targets is {_shown(targets)}, but must be a list of names of layers.")
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            raise UserError(
                f"targets is {target!r}, but must be a linear layer, such as {', '.join(linear[-3:])}."
            )
    peft = _peft()
    config = peft.LoraConfig(
        r=rank, lora_alpha=rank if alpha is None else alpha, target_modules=list(targets)
    )
    peft.inject_adapter_in_model(config, model)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def merge_lora(model: DiT) -> DiT:
    """Add adapters to the weights that they adapt: a plain model, which computes the same.

    Args:
        model: a model with adapters, which keeps them; one without is returned as it is
    """
    if not hasattr(model, "peft_config"):
        return model
    from peft.tuners.tuners_utils import BaseTunerLayer

    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            model.set_submodule(name, module.get_base_layer())
    del model.peft_config
    model.requires_grad_(True).pos_embed.requires_grad_(False)
    return model.eval()


def save_lora(model: DiT, folder: str | Path) -> None:
    """Write the adapters of a model as PEFT does: adapter_config.json and adapter_model.safetensors.

    `peft.PeftModel.from_pretrained(base, folder)` adds them to the base model again.

    Args:
        model: a model with adapters
        folder: output folder, created if missing

    Raises:
        UserError: if the model has no adapters
    """
    from dit_nb.weight_files import _save_tensors

    folder = Path(folder)
    if not hasattr(model, "peft_config"):
        raise UserError("model has no adapters, but must have been given some by add_lora.")
    folder.mkdir(parents=True, exist_ok=True)
    weights = _peft().get_peft_model_state_dict(model, adapter_name="default")
    with _atomic_write(folder / "adapter_model.safetensors") as draft:
        _save_tensors({f"base_model.model.{k}": v for k, v in weights.items()}, draft)
    _save_adapter_config(model, folder)


def _save_adapter_config(model: nn.Module, folder: Path) -> None:
    "Write what `_add_saved_adapters` reads, if a model has adapters: beside a checkpoint's weights."
    if not hasattr(model, "peft_config"):
        return
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder) as work:
        model.peft_config["default"].save_pretrained(work)
        os.replace(Path(work) / _ADAPTER, folder / _ADAPTER)


def _add_saved_adapters(model: nn.Module, folder: Path) -> None:
    "Add the adapters that a checkpoint was saved with; their weights are in the checkpoint."
    peft = _peft()
    try:
        _read_json_object(folder / _ADAPTER)  # PEFT would look on the Hub for a file that it cannot read
        config = peft.LoraConfig.from_pretrained(folder)
        peft.inject_adapter_in_model(config, model)
    except Exception as error:  # a damaged file can fail in any way
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
        raise UserError(f"{folder / _ADAPTER} cannot be used: {reason}.") from None
