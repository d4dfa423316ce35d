"""The study of guidance: its methods are those of the library, and its table keeps other models' rows."""

import csv

import pytest
import torch

from dit_nb.lab.guidance_study import _COLUMNS, METHODS, _write, early_digit_model, guided_by_method
from dit_nb.since.guidance import GuidedBy
from support import relative


class Model:
    """A velocity model: x times the label."""

    null_class = 9

    def __call__(self, x, t, y):
        return x * y.view(-1, 1, 1, 1)


def row(model, seed, frechet):
    return dict(zip(_COLUMNS, (model, "CFG", 2.0, seed, frechet, 1.0, 0.9, 0.8, 0.5)))


def test_the_rows_of_one_model_are_replaced(tmp_path):
    path = tmp_path / "rows.csv"
    _write("digits", [row("digits", 0, 1.0), row("digits", 1, 2.0)], path)
    _write("emoji", [row("emoji", 0, 9.0)], path)
    _write("digits", [row("digits", 0, 3.0)], path)
    with path.open(newline="") as file:
        found = [(r["model"], r["seed"], float(r["frechet"])) for r in csv.DictReader(file)]
    assert found == [("emoji", "0", 9.0), ("digits", "0", 3.0)]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_none_at_scale_1_and_guides_beyond(method):
    worse = {"autoguidance": lambda x, t, y: 0.5 * x, "autoguidance, early": lambda x, t, y: 0 * x}
    x, y = torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 2])
    t = torch.full((2,), 400.0)
    same, more = (guided_by_method(method, scale, Model(), worse, 2.0)(x, t, y) for scale in (1.0, 3.0))
    assert relative(same, Model()(x, t, y)) < 1e-5
    parallel = method in ("CFG-Zero*", "APG")  # here all predictions are multiples of x
    assert (relative(more, same) < 1e-5) == parallel
    assert isinstance(guided_by_method(method, 3.0, Model(), worse, 2.0), GuidedBy)


def test_the_first_step_of_cfg_zero_star_waits():
    x, y = torch.ones(1, 1, 2, 2), torch.tensor([1])
    guided = guided_by_method("CFG-Zero*", 2.0, Model(), {}, 2.0, steps=4)
    first, second = (guided(x, torch.tensor([t]), y) for t in (1000.0, 750.0))
    assert first.abs().max() == 0 and second.abs().max() > 0


def test_the_early_model_is_small():
    assert sum(p.numel() for p in early_digit_model().parameters() if p.requires_grad) == 189_320
