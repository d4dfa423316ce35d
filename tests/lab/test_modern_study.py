"""The study of modern blocks: the recorded rows, the error on a larger canvas, and the table that is added."""

import pytest
import torch

from dit_nb import DiT, DiTConfig
from dit_nb.config import _SWITCHES
from dit_nb.lab.modern_study import PUBLISHED, RUNGS, _noise_error, _on_canvas, _set_table, read_rows


def small(**settings) -> DiT:
    """A new model of digits."""
    return DiT(DiTConfig(8, 2, 1, 32, 1, 2, num_classes=10, **settings)).eval()


def test_the_recorded_ladder_is_complete():
    rows = read_rows()
    assert sorted((row["rung"], row["seed"]) for row in rows) == sorted((r, s) for r in RUNGS for s in "012")
    for row in rows:
        model = DiT(DiTConfig(8, 2, 1, 32, 3, 2, num_classes=10, **RUNGS[row["rung"]]))
        assert int(row["parameters"]) == sum(p.numel() for p in model.parameters()) - model.pos_embed.numel()


def test_each_rung_but_the_last_adds_one_switch():
    switches = [rung.get("switches", ()) for rung in RUNGS.values()]
    assert switches[:-1] == [_SWITCHES[:n] for n in range(len(_SWITCHES) + 1)]
    assert list(PUBLISHED.values()) == sorted(PUBLISHED.values(), reverse=True)


def test_a_canvas_keeps_the_digit_and_its_noise_in_place():
    digit, noise = torch.rand(2, 1, 8, 8), torch.randn(2, 1, 16, 16)
    for side in (8, 12, 16):
        image, cut = _on_canvas(digit, noise, side)
        start = (side - 8) // 2
        inside = (..., slice(start, start + 8), slice(start, start + 8))
        assert image.shape == cut.shape == (2, 1, side, side)
        assert torch.equal(image[inside], digit) and torch.equal(cut[inside], noise[..., 4:12, 4:12])
        image[inside] = -1
        assert (image == -1).all(), "empty"


@pytest.mark.parametrize("side", [8, 12, 16])
def test_the_error_of_a_new_model_is_the_power_of_the_noise(side):
    """It predicts zero, and the noise at the pixels of the digit is the same on each canvas."""
    noise = torch.randn(360, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    wanted = float(noise[..., 4:12, 4:12].square().mean())
    assert _noise_error(small(), side) == pytest.approx(wanted, rel=1e-5)


def test_the_table_that_is_added_is_that_of_other_models():
    model = small(**RUNGS["RoPE and table"])
    assert not model.pos_embed.any(), "rotary positions have none"
    _set_table(model)
    assert torch.equal(model.pos_embed, small().pos_embed)
