"""DiTConfig, the settings that fix the shape of a DiT, and the twelve sizes of the paper."""

from dataclasses import dataclass

from dit_nb.attention import _check_heads
from dit_nb.patchify import grid_size
from dit_nb.utils import _check_choice, _document_fields

__all__ = ["BLOCK_NAMES", "SIZES", "DiTConfig"]

SIZES = {  # Table 1 of the paper: depth, width, heads
    "S": dict(depth=12, hidden_size=384, num_heads=6),
    "B": dict(depth=12, hidden_size=768, num_heads=12),
    "L": dict(depth=24, hidden_size=1024, num_heads=16),
    "XL": dict(depth=28, hidden_size=1152, num_heads=16),
}
BLOCK_NAMES = ("in_context", "cross_attention", "adaln", "adaln_zero")  # keys of `dit_nb.model.BLOCKS`
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
    block: str = "adaln_zero"  # conditioning block: in_context, cross_attention, adaln or adaln_zero
    init: str = "paper"  # initialization: paper, or scaled for small widths and short runs (lesson 19)

    def __post_init__(self):
        if isinstance(self.input_size, list | tuple):  # JSON gives lists back
            object.__setattr__(self, "input_size", tuple(self.input_size))
        _check(self)

    @classmethod
    def named(cls, name: str, **overrides) -> "DiTConfig":
        """Make the configuration of one of the paper's twelve models (Table 1).

        Args:
            name: size and patch size, "DiT-S/8" to "DiT-XL/2"
            **overrides: values of any other fields

        Raises:
            ValueError: if the name is unknown or a field is invalid
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
        return grid_size(self.input_size, self.patch_size)


def _is_int(value, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check(config: DiTConfig) -> None:
    "Raise ValueError if no model can be built from these fields."
    size, ratio, probability = config.input_size, config.mlp_ratio, config.class_dropout_prob
    sides = size if isinstance(size, tuple) else (size, size)
    counts = ("patch_size", "in_channels", "hidden_size", "depth", "num_heads")
    rules = {
        "input_size": (
            len(sides) == 2 and all(map(_is_int, sides)),
            "an integer from 1 up or (height, width)",
        ),
        **{name: (_is_int(getattr(config, name)), "an integer from 1 up") for name in counts},
        "num_classes": (_is_int(config.num_classes, 0), "an integer from 0 up"),
        "mlp_ratio": (_is_number(ratio) and 0 < ratio < float("inf"), "a number above 0"),
        "class_dropout_prob": (_is_number(probability) and 0 <= probability < 1, "a number in [0, 1)"),
        "learn_sigma": (isinstance(config.learn_sigma, bool), "True or False"),
    }
    for name, (valid, wanted) in rules.items():
        if not valid:
            raise ValueError(f"{name} is {getattr(config, name)!r}, but must be {wanted}.")
    grid_size(size, config.patch_size)
    _check_heads(config.hidden_size, config.num_heads)
    if config.hidden_size % 4:
        raise ValueError(
            f"hidden_size is {config.hidden_size}, but must be a multiple of 4 (sin-cos positions)."
        )
    _check_choice("block", config.block, BLOCK_NAMES)
    _check_choice("init", config.init, ("paper", "scaled"))
