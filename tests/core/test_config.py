"""DiTConfig: the paper's sizes, and an error for each field that cannot be built."""

import dataclasses
import json
from functools import partial

import pytest

from dit_nb import DiTConfig, SamplingConfig, TrainConfig
from dit_nb.config import _MODEL_NAMES, BLOCK_NAMES
from dit_nb.model import BLOCKS
from support import error_cases, raises_input_error, tiny_config


def test_block_names_are_the_keys_of_the_block_classes():
    assert BLOCK_NAMES == [*BLOCKS, "modern"]


def test_named_sizes_are_table_1():
    table = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}
    assert len(_MODEL_NAMES) == 12
    for size, fields in table.items():
        for patch in (2, 4, 8):
            config = DiTConfig.named(f"DiT-{size}/{patch}", num_classes=7)
            assert f"DiT-{size}/{patch}" in _MODEL_NAMES
            assert (config.depth, config.hidden_size, config.num_heads) == fields
            assert (config.patch_size, config.num_classes, config.block) == (patch, 7, "adaln_zero")


def test_defaults_are_xl_2_for_latents_of_256_pixels():
    assert DiTConfig() == DiTConfig.named("DiT-XL/2") and DiTConfig().grid == (16, 16)
    assert DiTConfig().out_channels == 8 and DiTConfig(learn_sigma=False).out_channels == 4


def test_grid_of_images_that_are_not_square_survives_json():
    config = DiTConfig.named("DiT-S/4", input_size=(24, 40))
    assert config.grid == (6, 10)
    assert DiTConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny_config().depth = 3


def test_help_lists_every_field_with_its_comment():
    _, attributes = DiTConfig.__doc__.split("Attributes:\n")
    lines = [line.strip().split(": ", 1) for line in attributes.splitlines()]
    assert [name for name, _ in lines] == list(DiTConfig.__dataclass_fields__)
    assert all(len(comment) > 10 for _, comment in lines)


FIELDS = [
    (dict(input_size=10, patch_size=4), "input_size.*10.*patch_size.*4"),
    (dict(input_size=(8, 10), patch_size=4), "input_size.*8.*10.*patch_size.*4"),
    (dict(input_size=0), "input_size.*0"),
    (dict(input_size=-4), "input_size.*-4"),
    (dict(input_size="32"), "input_size.*'32'"),
    (dict(input_size=(4, 4, 4)), r"input_size.*\(4, 4, 4\)"),
    (dict(patch_size=0), "patch_size.*0"),
    (dict(in_channels=0), "in_channels.*0"),
    (dict(depth=0), "depth.*0"),
    (dict(depth=True), "depth.*True"),
    (dict(num_heads=0), "num_heads.*0"),
    (dict(num_heads=3), "hidden_size.*16.*num_heads.*3"),
    (dict(hidden_size=18), "hidden_size.*18.*4"),
    (dict(hidden_size=16.0), "hidden_size.*16.0"),
    (dict(num_classes=-1), "num_classes.*-1"),
    (dict(mlp_ratio=0), "mlp_ratio.*0"),
    (dict(mlp_ratio=float("nan")), "mlp_ratio.*nan"),
    (dict(class_dropout_prob=1.0), "class_dropout_prob.*1.0"),
    (dict(class_dropout_prob=-0.1), "class_dropout_prob.*-0.1"),
    (dict(learn_sigma="yes"), "learn_sigma.*'yes'.*True or False"),
    (dict(block="adaLN"), "block.*'adaLN'.*in_context.*cross_attention.*adaln.*adaln_zero"),
    (dict(init="zeros"), "init.*'zeros'.*paper.*scaled"),
]


@pytest.mark.parametrize("fields,pattern", FIELDS, ids=[pattern for _, pattern in FIELDS])
def test_invalid_fields(fields, pattern):
    with raises_input_error(pattern):
        tiny_config(**{"input_size": 4, **fields})


@error_cases(
    (partial(DiTConfig.named, "DiT-M/2"), "name.*'DiT-M/2'.*DiT-S/2.*DiT-XL/8"),
    (partial(DiTConfig.named, "XL/2"), "name.*'XL/2'.*DiT-XL/2"),
    (partial(DiTConfig.named, "DiT-S/8", input_size=20), "input_size.*20.*patch_size.*8"),
)
def test_invalid_names_and_overrides(call, pattern):
    with raises_input_error(pattern):
        call()


@pytest.mark.parametrize("config", [DiTConfig, TrainConfig, SamplingConfig])
def test_help_tells_every_field(config):
    lines = config.__doc__.splitlines()
    for name in config.__dataclass_fields__:
        assert any(line.startswith(f"    {name}: ") and len(line.split()) > 2 for line in lines), name


@pytest.mark.parametrize("change", [dict(compile="yes"), dict(flip=1), dict(gradient_checkpointing=None)])
def test_switches_of_training(change):
    (name,) = change
    with raises_input_error(f"{name} is .*True or False"):
        TrainConfig(steps=1, **change)
