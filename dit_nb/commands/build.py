"""Build the model that `dit-nb train` trains: a new one, or a trained one that is fitted to the data."""

from dataclasses import replace

from dit_nb.commands.captions import _Texts
from dit_nb.commands.digits import _DIGITS_MODEL
from dit_nb.commands.options import Emoji, Train
from dit_nb.config import DiTConfig, SamplingConfig
from dit_nb.distributed import _process_state
from dit_nb.errors import UserError
from dit_nb.finetune import LORA_TARGETS, add_lora, fit_model, freeze
from dit_nb.interop.convert import load_any
from dit_nb.model import DiT

__all__ = []


def _input_shape(data) -> dict:
    "The fields of DiTConfig that follow from the shape of an image."
    channels, height, width = data[0][0].shape[-3:]
    return {"input_size": height if height == width else (height, width), "in_channels": channels}


def _class_names(data) -> tuple[str, ...]:
    return tuple(getattr(data, "class_names", None) or ())


def _model_config(options: Train, data) -> DiTConfig:
    fields = {**_input_shape(data), **options.shape, "num_classes": len(_class_names(data))}
    if options.diffusion.get("objective") == "flow":  # a velocity has no variance
        fields["learn_sigma"] = options.shape.get("learn_sigma", False)
    if "block" in fields:  # all parts of a modern block, if not given
        fields.setdefault("switches", None)
    small = {"digits": _DIGITS_MODEL, "emoji": DiTConfig(**vars(Emoji.model))}
    if options.data in small and options.model is None:
        return replace(small[options.data], **fields)
    return DiTConfig.named(options.model or "DiT-S/4", **fields)


def _init_from(options: Train, data) -> tuple[DiT, SamplingConfig]:
    "Load a trained model and fit it to size and classes of the data."
    model, sampling = load_any(options.init_from, weights=options.init_weights)
    shape, channels = _input_shape(data), model.config.in_channels
    if shape["in_channels"] != channels:
        raise UserError(f"data has {shape['in_channels']} channels, but must have the model's {channels}.")
    fitted, news = fit_model(model, shape["input_size"], _class_names(data), sampling.class_names)
    if news and _process_state().is_main_process:
        print("\n".join(f"{options.init_from}: {text}" for text in news))
    return fitted, sampling


def _select_trained(model: DiT, options: Train, new_classes: bool) -> None:
    "Freeze parameters, or add adapters, as the options say. Beside adapters, embeddings of new classes are trained."
    chosen = options.finetuning
    if chosen.lora_rank is None and (chosen.lora_alpha is not None or chosen.lora_targets != LORA_TARGETS):
        raise UserError("lora_rank is missing, but must be given with lora_alpha or lora_targets.")
    if chosen.lora_rank is not None:
        if options.init_from is None or chosen.freeze:
            given = "with freeze" if chosen.freeze else "without init_from"
            raise UserError(f"lora_rank is {chosen.lora_rank}, but must not be given {given}.")
        add_lora(model, chosen.lora_rank, chosen.lora_alpha, chosen.lora_targets)
        if new_classes and model.y_embedder is not None:
            model.y_embedder.requires_grad_(True)
    freeze(model, chosen.freeze, chosen.unfreeze)


_IGNORED = {  # objective -> options that it would ignore
    "diffusion": ("time_density", "time_shift", "predicts"),
    "flow": ("schedule", "num_timesteps", "bins"),
}


def _build_model(options: Train, data, texts: _Texts | None = None) -> tuple[DiT, SamplingConfig]:
    "Build or load the model to train, of classes or of texts, and its sampling settings."
    shape = {"model": options.model} if options.model else options.shape
    if options.init_from is None:
        sampling = SamplingConfig(bins=17 if options.data == "digits" else 256)
        config = _model_config(options, data)
        model = DiT(config) if texts is None else texts.build_model(config)
    elif shape:
        name, value = next(iter(shape.items()))
        raise UserError(
            f"{name} is {value}, but must not be given: init_from {options.init_from} fixes the model."
        )
    else:
        model, sampling = _init_from(options, data)
    _select_trained(model, options, new_classes=sampling.class_names != (_class_names(data) or None))
    objective = options.diffusion.get("objective", sampling.objective)
    if objective == "mean_flow":
        raise UserError(
            "objective is mean_flow, but must be diffusion or flow: lesson 35 trains a MeanFlow model in Python."
        )
    for name in (name for name in options.diffusion if name in _IGNORED[objective]):
        raise UserError(
            f"{name} is {options.diffusion[name]}, but must not be given: the objective is {objective}."
        )
    if objective != sampling.objective:
        sampling = replace(sampling, objective=objective, sampler="")
    if texts is not None and model.null_class is not None:  # those of the bundled model
        sampling = replace(sampling, steps="25", cfg_scale=3.0)
    return model, replace(
        sampling,
        **options.diffusion,
        class_names=_class_names(data) or None,
        clip_x0=options.latents is None,
        variance="learned" if model.config.learn_sigma else options.variance,
        vae=None if options.latents is None else data.vae,
        card={},  # what is known of the model that training started from does not hold for the new one
    )
