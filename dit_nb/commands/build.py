"""Build the model that `dit-nb train` trains: a new one, or a trained one that is fitted to the data."""

from dataclasses import replace

from dit_nb.commands.digits import _DIGITS_MODEL
from dit_nb.commands.options import Train
from dit_nb.config import DiTConfig, SamplingConfig
from dit_nb.distributed import _process_state
from dit_nb.errors import UserError
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
    if options.data == "digits" and options.model is None:
        return replace(_DIGITS_MODEL, **fields)
    return DiTConfig.named(options.model or "DiT-S/4", **fields)


def _init_from(source: str, weights: str, data) -> tuple[DiT, SamplingConfig]:
    "Load a trained model and fit it to the data: another input size, and a new label table for other classes."
    model, sampling = load_any(source, weights=weights)
    shape, channels = _input_shape(data), model.config.in_channels
    if shape["in_channels"] != channels:
        raise UserError(f"data has {shape['in_channels']} channels, but must have the model's {channels}.")
    names, known = _class_names(data), sampling.class_names
    fitted = DiT(replace(model.config, num_classes=len(names), **shape))
    weights = model.state_dict()
    del weights["pos_embed"]  # depends on the input size alone
    if len(names) != model.config.num_classes or (known and names != known):
        if _process_state().is_main_process:
            print(f"the classes are not those of {source}: the label embeddings are initialized again")
        weights = {key: value for key, value in weights.items() if not key.startswith("y_embedder.")}
    fitted.load_state_dict(weights, strict=False)
    return fitted, sampling


def _build_model(options: Train, data) -> tuple[DiT, SamplingConfig]:
    "Build or load the model to train, and its sampling settings."
    shape = {"model": options.model} if options.model else options.shape
    if options.init_from is None:
        sampling = SamplingConfig(bins=17 if options.data == "digits" else 256)
        model = DiT(_model_config(options, data))
    elif shape:
        name, value = next(iter(shape.items()))
        raise UserError(
            f"{name} is {value}, but must not be given: init_from {options.init_from} fixes the model."
        )
    else:
        model, sampling = _init_from(options.init_from, options.init_weights, data)
    return model, replace(
        sampling,
        **options.diffusion,
        class_names=_class_names(data) or None,
        clip_x0=options.latents is None,
        variance="learned" if model.config.learn_sigma else options.variance,
        vae=None if options.latents is None else data.vae,
        card={},  # what is known of the model that training started from does not hold for the new one
    )
