"""The configuration of a DiT, and the sizes of the paper."""

from dataclasses import dataclass

from dit_nb.attention import check_heads
from dit_nb.patchify import grid_size
from dit_nb.utils import check_choice

SIZES = {  # Table 1 of the paper: depth, width, heads
    "S": dict(depth=12, hidden_size=384, num_heads=6),
    "B": dict(depth=12, hidden_size=768, num_heads=12),
    "L": dict(depth=24, hidden_size=1024, num_heads=16),
    "XL": dict(depth=28, hidden_size=1152, num_heads=16),
}


BLOCK_NAMES = ("in_context", "cross_attention", "adaln", "adaln_zero")  # classes in `dit_nb.model.BLOCKS`
NAMES = [f"DiT-{size}/{patch}" for size in SIZES for patch in (2, 4, 8)]


@dataclass(frozen=True)
class DiTConfig:
    "Everything that fixes the shape of a DiT. The defaults are DiT-XL/2 for 256-pixel ImageNet latents."

    input_size: int | tuple[int, int] = 32  # pixels or latent cells: one number, or (height, width)
    patch_size: int = 2  # side of a patch, p
    in_channels: int = 4  # channels of the input, C
    hidden_size: int = 1152  # width of a token, D
    depth: int = 28  # number of blocks
    num_heads: int = 16  # attention heads, h
    mlp_ratio: float = 4.0  # how much wider the middle of an MLP is
    num_classes: int = 1000  # labels, K; 0 makes a model that takes no label
    class_dropout_prob: float = 0.1  # share of labels hidden in training; 0: no null class, no guidance
    learn_sigma: bool = True  # also put out C channels that say how large the variance is
    block: str = "adaln_zero"  # in_context, cross_attention, adaln or adaln_zero
    init: str = "paper"  # paper, or scaled: for small widths and short runs (lesson 19)

    def __post_init__(self):
        if isinstance(self.input_size, list | tuple):  # JSON gives lists back
            object.__setattr__(self, "input_size", tuple(self.input_size))
        check_config(self)

    @classmethod
    def named(
        cls,
        name: str,  # "DiT-XL/2", "DiT-S/8", ...
        **overrides,  # any field of the configuration
    ) -> "DiTConfig":
        "One of the paper's twelve sizes (Table 1)."
        check_choice("name", name, NAMES)
        size, patch = name.removeprefix("DiT-").split("/")
        return cls(**{"patch_size": int(patch), **SIZES[size], **overrides})

    @property
    def out_channels(self) -> int:
        "C for the noise, and C more for the variance where it is learned."
        return self.in_channels * (2 if self.learn_sigma else 1)

    @property
    def grid(self) -> tuple[int, int]:
        "Rows and columns of patches."
        return grid_size(self.input_size, self.patch_size)


def check_config(config: DiTConfig) -> None:
    "Raise ValueError where no model can be built from these fields."

    def whole(value, least=1) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= least

    def number(value) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    size, ratio, share = config.input_size, config.mlp_ratio, config.class_dropout_prob
    sides = size if isinstance(size, tuple) else (size, size)
    counts = ("patch_size", "in_channels", "hidden_size", "depth", "num_heads")
    for name, good, wanted in (
        (
            "input_size",
            len(sides) == 2 and all(map(whole, sides)),
            "a whole number or (height, width), 1 or more",
        ),
        *((name, whole(getattr(config, name)), "a whole number, 1 or more") for name in counts),
        ("num_classes", whole(config.num_classes, 0), "a whole number, 0 or more"),
        ("mlp_ratio", number(ratio) and 0 < ratio < float("inf"), "a number above 0"),
        ("class_dropout_prob", number(share) and 0 <= share < 1, "a number in [0, 1)"),
        ("learn_sigma", isinstance(config.learn_sigma, bool), "True or False"),
    ):
        if not good:
            raise ValueError(f"{name} is {getattr(config, name)!r}, but must be {wanted}.")
    grid_size(size, config.patch_size)
    check_heads(config.hidden_size, config.num_heads)
    if config.hidden_size % 4:
        raise ValueError(
            f"hidden_size is {config.hidden_size}, but 2-D sin-cos positions need a multiple of 4."
        )
    check_choice("block", config.block, BLOCK_NAMES)
    check_choice("init", config.init, ("paper", "scaled"))
