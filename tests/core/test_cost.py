"""Counted parameters and multiply-adds, against the paper's Table 4, and against a real model."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dit_nb import DiT, DiTConfig
from dit_nb.cost import cost
from dit_nb.model import BLOCKS
from support import raises_input_error, tiny_config

# Table 4: trainable parameters and GMACs to all digits, the paper's numbers as it prints them
TABLE = [  # name, block, paper Gflops, GMACs, paper params in millions, trainable, with positions
    ("S/8", "adaln_zero", 0.36, 0.3580, 33, 33_142_016, 33_148_160),
    ("S/4", "adaln_zero", 1.41, 1.4126, 33, 32_920_448, 32_945_024),
    ("S/2", "adaln_zero", 6.06, 6.0557, 33, 32_865_056, 32_963_360),
    ("B/8", "adaln_zero", 1.42, 1.4175, 131, 130_869_248, 130_881_536),
    ("B/4", "adaln_zero", 5.56, 5.5652, 130, 130_426_496, 130_475_648),
    ("B/2", "adaln_zero", 23.01, 23.0051, 130, 130_315_808, 130_512_416),
    ("L/8", "adaln_zero", 5.01, 5.0114, 459, 458_578_432, 458_594_816),
    ("L/4", "adaln_zero", 19.70, 19.6957, 458, 457_988_224, 458_053_760),
    ("L/2", "adaln_zero", 80.71, 80.6976, 458, 457_840_672, 458_102_816),
    ("XL/8", "adaln_zero", 7.39, 7.3924, 676, 675_664_640, 675_683_072),
    ("XL/4", "adaln_zero", 29.05, 29.0437, 675, 675_000_704, 675_074_432),
    ("XL/2", "adaln_zero", 118.64, 118.6214, 675, 674_834_720, 675_129_632),
    ("XL/2", "in_context", 119.37, 119.3539, 449, 449_162_528, 449_457_440),
    ("XL/2", "cross_attention", 137.62, 137.6028, 598, 597_991_712, 598_286_624),
    ("XL/2", "adaln", 118.56, 118.5471, 600, 600_452_384, 600_747_296),
]
WIDE = ("XL/2", "adaln_zero", 524.60, 524.5383, 675, 674_834_720, 676_014_368)  # 512 pixels


@pytest.mark.parametrize("row,size", [*((row, 32) for row in TABLE), (WIDE, 64)], ids=str)
def test_cost_of_table_4(row, size):
    name, block, gflops, gmacs, millions, trainable, with_positions = row
    config = DiTConfig.named(f"DiT-{name}", block=block, input_size=size)
    counted = cost(config)
    assert counted.total_params == trainable
    assert round(counted.total_params / 1e6) == millions
    assert counted.total_macs / 1e9 == pytest.approx(gmacs, abs=0.51e-4)
    assert counted.total_macs / 1e9 == pytest.approx(gflops, rel=1e-3 if gflops > 5 else 1e-2)
    positions = config.grid[0] * config.grid[1] * config.hidden_size
    assert counted.total_params + positions == with_positions


def measured(config):
    """Trainable parameters, and multiply-adds as PyTorch counts them, of a model on the meta device."""
    with torch.device("meta"):
        model = DiT(config).eval()
        zero = torch.zeros(1, dtype=torch.long)
        x = torch.zeros(1, config.in_channels, *(size * config.patch_size for size in config.grid))
        with FlopCounterMode(display=False) as counter:
            model(x, zero, zero if config.num_classes else None)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return trainable, counter.get_total_flops() / 2


CONFIGS = {
    **{block: tiny_config(block) for block in BLOCKS},
    "S/8": DiTConfig.named("DiT-S/8"),
    **{f"XL/2 {block}": DiTConfig.named("DiT-XL/2", block=block, depth=1) for block in BLOCKS},
    **{f"{block} without classes": tiny_config(block, num_classes=0) for block in BLOCKS},
    "without null class": tiny_config(class_dropout_prob=0.0),
    "fixed variance": tiny_config("adaln", learn_sigma=False, mlp_ratio=2.5),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_cost_is_what_a_real_model_has_and_does(name):
    counted = cost(CONFIGS[name])
    assert (counted.total_params, counted.total_macs) == measured(CONFIGS[name])
    assert counted.params.keys() == counted.macs.keys()


def test_the_cost_of_an_own_block_is_unknown():
    own = tiny_config()
    object.__setattr__(own, "block", "own")  # as a registered block of one's own
    with raises_input_error("block.*'own'.*in_context, cross_attention, adaln, adaln_zero"):
        cost(own)
