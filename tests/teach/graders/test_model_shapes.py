"""Grader of the shapes of a DiT, against the library's models and an identity without an oracle."""

import pytest
import torch

from dit_nb import DiT, DiTConfig
from dit_nb.teach.graders.framework.core import reference_solution
from dit_nb.teach.graders.framework.exercise import RandomInputs
from dit_nb.teach.graders.model_shapes import _weight_cases, check_read_shapes
from support import tiny_config


def shapes_of(weights):
    return {name: tuple(w.shape) for name, w in weights.items()}


def model_on_meta(config):
    with torch.device("meta"):  # shapes without memory
        return DiT(config)


CONFIGS = [
    tiny_config(),
    tiny_config(depth=13, in_channels=1, patch_size=1, mlp_ratio=2.5),
    *map(DiTConfig.named, ("DiT-XL/2", "DiT-S/8")),
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_the_reference_reads_the_models_of_the_library(config):
    numbers = reference_solution("read_shapes")(model_on_meta(config).state_dict())
    rows, columns = config.grid
    expected = config.depth, config.hidden_size, config.patch_size, config.in_channels, rows * columns
    assert numbers == (*expected, config.num_classes)


def test_a_model_of_these_numbers_has_the_same_names_and_shapes(check_identity):
    def holds(fn, weights):
        before = shapes_of(weights)
        depth, width, p, channels, tokens, classes = fn(weights)
        config = DiTConfig(
            input_size=(p, p * tokens),
            patch_size=p,
            in_channels=channels,
            hidden_size=width,
            depth=depth,
            num_heads=1,
            mlp_ratio=before["blocks.0.mlp.fc1.bias"][0] / before["pos_embed"][2],
            num_classes=classes,
        )
        return shapes_of(model_on_meta(config).state_dict()) == before == shapes_of(weights)

    check_identity("read_shapes", holds)


@pytest.mark.parametrize("seed", range(20))
def test_the_shuffled_case_has_the_same_weights_in_other_places(seed):
    """The first names are those of the final layer, and the last ones those of the first block."""
    usual, _, many, shuffled, alone, *_ = (
        case.args[0] for case in _weight_cases(RandomInputs("read_shapes", seed))
    )
    assert shapes_of(usual) == shapes_of(shuffled) and list(usual) != list(shuffled)
    names = list(shuffled)
    assert all(name.startswith("final_layer.") for name in names[:4])
    assert all(name.startswith("blocks.0.") for name in names[-10:])
    assert "blocks.10.mlp.fc1.bias" in many and not any(name.startswith("blocks.1.") for name in alone)


def test_an_error_for_one_block_is_shown_with_its_cause():
    def second_block(weights):
        numbers = reference_solution("read_shapes")(weights)
        return numbers[0], weights["blocks.1.attn.qkv.weight"].shape[1], *numbers[2:]

    report = check_read_shapes(second_block)
    assert not report and "wrong for one" in report.reason and "KeyError" in report.reason
