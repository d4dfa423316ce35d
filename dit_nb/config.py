"""Settings as frozen dataclasses: DiTConfig with the paper's twelve sizes, TrainConfig, SamplingConfig. Imports no torch."""

import inspect
import math
import re
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from dit_nb.errors import UserError, _check_choice, _check_names, _check_number, _is_int, _is_number, _shown

__all__ = ["BLOCK_NAMES", "SIZES", "DiTConfig", "SamplingConfig", "TrainConfig"]


_Class = TypeVar("_Class", bound=type)


def _document_fields(cls: _Class) -> _Class:
    """Class decorator: append a dataclass's fields, with the comments beside them, to its docstring."""
    lines = [f"    {name}: {comment}" for name, comment in _field_comments(cls).items()]
    if lines:
        cls.__doc__ = "\n".join([inspect.cleandoc(cls.__doc__ or ""), "", "Attributes:", *lines])
    return cls


def _field_comments(cls: type) -> dict[str, str]:
    "The comment beside each field of a dataclass that has one field on each line; {} if there is no source."
    try:
        found = re.findall(r"^    (\w+): [^#\n]*#\s*(.*)$", inspect.getsource(cls), flags=re.M)
    except (OSError, TypeError):  # TypeError: a class that is defined in a notebook
        return {}
    return {name: comment for name, comment in found if name in cls.__dataclass_fields__}


SIZES = {  # Table 1 of the paper: depth, width, heads
    "S": dict(depth=12, hidden_size=384, num_heads=6),
    "B": dict(depth=12, hidden_size=768, num_heads=12),
    "L": dict(depth=24, hidden_size=1024, num_heads=16),
    "XL": dict(depth=28, hidden_size=1152, num_heads=16),
}
# `register_block` adds to the names of blocks.
BLOCK_NAMES = ["in_context", "cross_attention", "adaln", "adaln_zero", "modern"]
_SWITCHES = ("rms_norm", "swiglu", "qk_norm", "rope", "shared_modulation")  # of the modern block (lesson 31)
_MODEL_NAMES = [f"DiT-{size}/{patch}" for size in SIZES for patch in (2, 4, 8)]


@_document_fields
@dataclass(frozen=True)
class DiTConfig:
    "Settings that fix the shape of a DiT. The defaults are DiT-XL/2 for the latents of 256-pixel images."

    input_size: int | tuple[int, int] = 32  # side of a square image or latent, or (height, width)
    patch_size: int = 2  # side of a patch, p
    in_channels: int = 4  # channels of the image or latent, C
    hidden_size: int = 1152  # width of a token, D; a multiple of num_heads and of 4
    depth: int = 28  # number of blocks
    num_heads: int = 16  # attention heads, h
    mlp_ratio: float = 4.0  # hidden width of an MLP, in units of hidden_size
    num_classes: int = 1000  # number of classes, K; 0 for a model without labels
    class_dropout_prob: float = 0.1  # probability of the null class in training; 0: no null class or guidance
    learn_sigma: bool = True  # predict the variance too, in C more output channels
    block: str = "adaln_zero"  # conditioning block: in_context, cross_attention, adaln, adaln_zero or modern
    init: Literal["paper", "scaled"] = "paper"  # initialization; scaled: small widths, short runs (lesson 19)
    switches: tuple[str, ...] | None = None  # parts of the modern block that are on; none: all (lesson 31)

    def __post_init__(self):
        for name in ("input_size", "switches"):
            if isinstance(getattr(self, name), list | tuple):  # JSON gives lists back
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.switches is None:
            object.__setattr__(self, "switches", _SWITCHES if self.block == "modern" else ())
        _check(self)

    @classmethod
    def named(cls, name: str, **overrides) -> "DiTConfig":
        """Make the configuration of one of the paper's twelve models (Table 1).

        Args:
            name: size and patch size, "DiT-S/8" to "DiT-XL/2"
            **overrides: values of any other fields

        Raises:
            UserError: if the name is unknown or a field is invalid
        """
        _check_choice("name", name, _MODEL_NAMES)
        size, patch = name.removeprefix("DiT-").split("/")
        return cls(**{"patch_size": int(patch), **SIZES[size], **overrides})

    @property
    def out_channels(self) -> int:
        "Channels of the output: C for the noise, and C more for the variance if it is learned."
        return self.in_channels * (2 if self.learn_sigma else 1)

    @property
    def grid(self) -> tuple[int, int]:
        "Rows and columns of patches."
        _, height, width = self.image_shape
        return height // self.patch_size, width // self.patch_size

    @property
    def image_shape(self) -> tuple[int, int, int]:
        "Shape of an image or latent, (C, H, W)."
        size = self.input_size
        return (self.in_channels, *(size if isinstance(size, tuple) else (size, size)))


_MOST = 2**20  # of each size: a file with a larger one is damaged


def _check(config: DiTConfig) -> None:
    "Raise UserError if no model can be built from these fields."
    size, ratio, probability = config.input_size, config.mlp_ratio, config.class_dropout_prob
    sides = size if isinstance(size, tuple) else (size, size)
    in_range = lambda value, least: _is_int(value, least) and value <= _MOST  # noqa: E731
    counts = ("patch_size", "in_channels", "hidden_size", "depth", "num_heads")
    rules = {
        "input_size": (
            len(sides) == 2 and all(in_range(side, 1) for side in sides),
            f"an integer from 1 to {_MOST} or (height, width)",
        ),
        **{name: (in_range(getattr(config, name), 1), f"an integer from 1 to {_MOST}") for name in counts},
        "num_classes": (in_range(config.num_classes, 0), f"an integer from 0 to {_MOST}"),
        "mlp_ratio": (_is_number(ratio) and 0 < ratio < 1000, "a number above 0, such as 4"),
        "class_dropout_prob": (_is_number(probability) and 0 <= probability < 1, "a number in [0, 1)"),
        "learn_sigma": (isinstance(config.learn_sigma, bool), "True or False"),
    }
    for name, (valid, wanted) in rules.items():
        if not valid:
            raise UserError(f"{name} is {_shown(getattr(config, name))}, but must be {wanted}.")
    if any(side % config.patch_size for side in sides):
        raise UserError(f"input_size is {size}, but must be a multiple of patch_size {config.patch_size}.")
    if config.hidden_size % config.num_heads:
        raise UserError(
            f"hidden_size is {config.hidden_size}, but must be a multiple of num_heads {config.num_heads}."
        )
    if config.hidden_size % 4:
        raise UserError(
            f"hidden_size is {config.hidden_size}, but must be a multiple of 4 (sin-cos positions)."
        )
    _check_choice("block", config.block, BLOCK_NAMES)
    _check_choice("init", config.init, ("paper", "scaled"))
    _check_switches(config)


def _check_switches(config: DiTConfig) -> None:
    "Raise UserError for a part that the block does not have, or that its heads are too narrow for."
    switches, known = config.switches, _SWITCHES if config.block == "modern" else ()
    is_tuple = isinstance(switches, tuple) and all(name in known for name in switches)
    if not is_tuple or len(set(switches)) < len(switches):
        wanted = f"different names out of {', '.join(known)}" if known else f"empty for {config.block} blocks"
        raise UserError(f"switches is {_shown(switches)}, but must be {wanted}.")
    width = config.hidden_size // config.num_heads
    if "rope" in switches and width % 4:
        raise UserError(
            f"hidden_size / num_heads is {width}, but must be a multiple of 4 with rope (two axes)."
        )


_POSITIVE = {  # field -> type; None is allowed if it is the default
    **dict.fromkeys(
        ("steps", "batch_size", "grad_accum_steps", "save_every", "keep", "keep_every", "sample_every"), int
    ),
    **dict.fromkeys(("validate_every", "log_every"), int),
    **dict.fromkeys(("seconds", "lr", "grad_clip"), float),
}
_NON_NEGATIVE = {**dict.fromkeys(("warmup_steps", "num_workers", "seed"), int), "weight_decay": float}


@_document_fields
@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run. Batch size, learning rate, weight decay and EMA decay default to the paper's (section 4), which also flips.

    Raises:
        UserError: if a setting is out of its range, or if not exactly one of `steps` and `seconds` is given
    """

    steps: int | None = None  # number of updates (or give seconds)
    seconds: float | None = None  # training time in seconds (or give steps)
    batch_size: int = 256  # images per update, over all processes
    grad_accum_steps: int = 1  # micro-batches per process and update: less memory, the same result
    lr: float = 1e-4  # learning rate of AdamW
    lr_schedule: Literal["constant", "cosine"] = "constant"  # learning rate; cosine falls to 2 %
    warmup_steps: int = 0  # updates over which the learning rate rises from 0
    beta2: float = 0.999  # decay of AdamW's second moment
    weight_decay: float = 0.0  # weight decay of AdamW
    grad_clip: float | None = None  # largest norm of the gradient; none: no clipping
    ema_decay: float = 0.9999  # decay of the averaged weights (EMA), after its warm-up
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # number format; auto: what is fast here
    flip: bool = False  # mirror half of the images
    compile: bool = False  # use torch.compile: slow to start, then faster
    gradient_checkpointing: bool = False  # recompute activations: less memory, a third more work
    seed: int = 0  # seed of the data order and of all noise
    save_every: int | None = None  # updates between checkpoints; none: no checkpoints
    keep: int = 3  # number of checkpoints to keep, the newest
    keep_every: int | None = None  # also keep each checkpoint whose step is a multiple of this; none: no more
    background_save: bool = False  # write checkpoints while training goes on, in shards; for large models
    sample_every: int | None = None  # updates between images of samples; none: no images
    validate_every: int | None = None  # updates between losses on held-out images; none: never
    log_every: int = 10  # updates between readings of the losses, which make the CPU wait for a GPU
    tracker: Literal["tensorboard", "wandb"] | None = None  # experiment tracker, beside the CSV files
    num_workers: int = 0  # processes that load data

    def __post_init__(self):
        if (self.steps is None) == (self.seconds is None):
            raise UserError(
                f"steps is {_shown(self.steps)} and seconds {_shown(self.seconds)}, but exactly one must be given."
            )
        for fields, positive in ((_POSITIVE, True), (_NON_NEGATIVE, False)):
            for name, kind in fields.items():
                value, default = getattr(self, name), type(self).__dataclass_fields__[name].default
                if value is not None or default is not None:
                    _check_number(name, value, kind, positive)
        for name in ("flip", "compile", "gradient_checkpointing", "background_save"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"{name} is {_shown(getattr(self, name))}, but must be True or False.")
        for name in ("ema_decay", "beta2"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value < 1:
                raise UserError(f"{name} is {_shown(value)}, but must be a number in [0, 1).")
        _check_choice("lr_schedule", self.lr_schedule, ("constant", "cosine"))
        _check_choice("precision", self.precision, ("auto", "fp32", "bf16", "fp16"))
        if self.tracker is not None:
            _check_choice("tracker", self.tracker, ("tensorboard", "wandb"))
        if self.keep_every and self.keep_every % (self.save_every or self.keep_every):
            raise UserError(
                f"keep_every is {self.keep_every}, but must be a multiple of save_every, {self.save_every}."
            )


@_document_fields
@dataclass(frozen=True)
class SamplingConfig:
    """How to sample from a model: the diffusion it was trained with, and the sampler. Saved as sampling.json.

    Raises:
        UserError: if a setting is out of its range
    """

    schedule: str | tuple[float, ...] = "linear"  # noise schedule of training: linear, cosine, or the betas
    num_timesteps: int = 1000  # timesteps of training, T
    variance: str = "learned"  # variance of a DDPM step: learned, fixed_small or fixed_large
    bins: int = 256  # number of values that a pixel can take, for the likelihood; 17 for the digits
    clip_x0: bool = True  # clip the predicted clean image to [-1, 1]: for pixels, not for latents
    objective: str = "diffusion"  # diffusion (noise), flow (velocity) or mean_flow (its average, lesson 35)
    time_density: str | tuple[float, float] = "logit_normal"  # name, or mean and std of the logit
    time_shift: float = 1.0  # factor of noise over signal at each flow time, in training and sampling
    predicts: str = "velocity"  # what the network of a flow predicts: velocity, image or noise (lesson 32)
    sampler: str = ""  # ddpm, ddim; of a flow euler, heun, stochastic; of mean_flow jumps; empty: the first
    steps: str = "50"  # sampling steps: 250, 10,15,20 for three sections of the schedule, or ddim50
    cfg_scale: float = 1.0  # guidance scale; 1 is no guidance
    guided_channels: int | None = None  # number of eps channels to guide; none: all of them
    class_names: tuple[str, ...] | None = None  # names of the classes, in the order of the labels
    vae: dict | None = None  # description of the autoencoder of a latent model, if it is known
    card: dict = field(default_factory=dict)  # facts for the model card: data, command, metrics, source

    def __post_init__(self):
        for name in ("schedule", "time_density", "class_names"):  # JSON gives lists back
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if _is_int(self.steps):
            object.__setattr__(self, "steps", str(self.steps))
        _check_choice("objective", self.objective, tuple(_SAMPLERS))
        if self.sampler == "":
            object.__setattr__(self, "sampler", _SAMPLERS[self.objective][0])
        _check_sampling(self)


_SAMPLERS = {
    "diffusion": ("ddpm", "ddim"),
    "flow": ("euler", "heun", "stochastic"),
    "mean_flow": ("jumps",),
}


def _check_sampler(name, objective: str) -> None:
    "Raise a UserError unless the objective has this sampler; it says for which models the sampler is."
    known = _SAMPLERS[objective]
    owner = next(
        (other for other, names in _SAMPLERS.items() if isinstance(name, str) and name in names), None
    )
    if owner in (None, objective):
        _check_choice("sampler", name, known)
        return
    bridge = (objective, owner) == ("diffusion", "flow")
    way = ", or for this one by `NoiseAsVelocity` from Python (lesson 30)" if bridge else ""
    raise UserError(
        f"sampler is {name!r}, but must be one of {', '.join(known)}: {name} is for a {owner} model{way}."
    )


_TARGETS = ("velocity", "image", "noise")


def _check_density(name: str, density: str | tuple[float, float]) -> None:
    "Raise a UserError unless a density of flow times is a known name, or mean and std of a normal logit."
    if isinstance(density, str):
        return _check_choice(name, density, ("logit_normal", "uniform"))
    is_pair = isinstance(density, tuple | list) and len(density) == 2
    if not is_pair or not all(_is_number(n) and math.isfinite(n) for n in density) or density[1] <= 0:
        wanted = "'uniform', 'logit_normal', or mean and std of the logit"
        raise UserError(f"{name} is {_shown(density)}, but must be {wanted}.")


def _check_sampling(config: SamplingConfig) -> None:
    betas = config.schedule if isinstance(config.schedule, tuple) else ()
    if not betas:
        _check_choice("schedule", config.schedule, ("linear", "cosine"))
    if not all(_is_number(beta) for beta in betas):
        raise UserError(f"schedule is {_shown(betas)}, but must be a name or a tuple of betas.")
    _check_choice("variance", config.variance, ("learned", "fixed_small", "fixed_large"))
    _check_density("time_density", config.time_density)
    _check_choice("predicts", config.predicts, _TARGETS if config.objective == "flow" else _TARGETS[:1])
    _check_sampler(config.sampler, config.objective)
    _check_number("time_shift", config.time_shift, float)
    _check_number("num_timesteps", config.num_timesteps, int)
    if config.num_timesteps > 10**6:
        raise UserError(f"num_timesteps is {config.num_timesteps}, but must be at most 1000000.")
    if not _is_int(config.bins, 2):
        raise UserError(f"bins is {_shown(config.bins)}, but must be an integer of at least 2.")
    if not isinstance(config.clip_x0, bool):
        raise UserError(f"clip_x0 is {_shown(config.clip_x0)}, but must be True or False.")
    if config.class_names is not None:
        _check_names("class_names", config.class_names)
    if not isinstance(config.steps, str) or not re.fullmatch(r"(ddim)?\d+|\d+(,\d+)+", config.steps):
        raise UserError(f"steps is {_shown(config.steps)}, but must be like '250', '10,15,20' or 'ddim50'.")
    if config.objective != "diffusion" and not config.steps.isdecimal():
        raise UserError(f"steps is {_shown(config.steps)}, but must be an integer for a flow.")
    if config.objective == "mean_flow" and config.time_shift != 1:
        raise UserError(
            f"time_shift is {config.time_shift}, but must be 1: a mean_flow model has equal steps."
        )
    if config.objective == "mean_flow" and config.cfg_scale != 1:
        raise UserError(
            f"cfg_scale is {config.cfg_scale}, but must be 1: a mean_flow model has learned its guidance."
        )
    if not _is_number(config.cfg_scale) or not math.isfinite(config.cfg_scale):
        raise UserError(f"cfg_scale is {_shown(config.cfg_scale)}, but must be a finite number.")
    if config.guided_channels is not None and not _is_int(config.guided_channels):
        raise UserError(
            f"guided_channels is {_shown(config.guided_channels)}, but must be an integer above 0, or None."
        )
    for name in ("vae", "card"):
        value = getattr(config, name)
        if not isinstance(value, dict) and not (name == "vae" and value is None):
            raise UserError(f"{name} is {_shown(value)}, but must be a dictionary.")
