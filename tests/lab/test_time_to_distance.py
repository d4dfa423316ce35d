"""Time to a distance: the moments that are measured, a clock that stands still meanwhile, and the table."""

from dataclasses import replace

import pytest
import torch

import time_to_distance as tool
from dit_nb.data import digits
from dit_nb.progress import Progress


def tiny_recipe(name, distance):
    config, sampling, data, settings, labels, _ = tool.RECIPES[name][0](20 if name == "digits" else 16)
    config = replace(config, hidden_size=16, depth=1, num_heads=2, patch_size=config.input_size // 2)
    sampling = replace(sampling, steps="2")
    return config, sampling, data, settings, labels, distance


@pytest.mark.parametrize("name", ["digits", "emoji"])
def test_each_moment_is_measured_once_while_the_clock_stands_still(name, monkeypatch):
    seen, starts, start = [], [], Progress.start
    monkeypatch.setattr(Progress, "start", lambda self: (starts.append(len(seen)), start(self)))

    def distance(images):
        seen.append(images)
        return float(len(seen))

    recipe = tiny_recipe(name, distance)
    rows = tool.distances(recipe, {"steps": 5, "batch_size": 4}, [2, 3.5, 4], 7, "step")
    assert [(r["steps"], r["frechet"], r["seed"]) for r in rows] == [(2, 1.0, 7), (4, 2.0, 7)]
    assert seen[0].shape == (len(recipe[4]), *recipe[2].images.shape[1:]) and not torch.equal(*seen)
    assert starts == [0, 1, 2]  # the clock starts with the run, and again after each measurement


def test_the_recipes_measure_the_distance_of_their_commands():
    *_, distance = tool.digits_recipe(20)
    real = digits().held_out.images
    assert distance(real) < 1e-3


def test_the_table_names_the_first_moment_below_a_limit():
    rows = [
        {"seed": s, "seconds": t, "steps": 9, "frechet": f}
        for s in (0, 1)
        for t, f in ((60, 2.0), (120, 1.0 + s))
    ]
    text = tool.table(rows, [1.0, 0.5])
    assert "| 0 | 120 | 9 | 1.000 |" in text
    assert "Until a distance of 1: 120 s, never." in text and "Until a distance of 0.5: never, never." in text
