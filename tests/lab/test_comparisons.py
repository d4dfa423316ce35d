"""Comparisons of lesson 22: they pair the same seeds, and say which were chosen beforehand."""

import numpy as np
import pytest

from dit_nb.lab.comparisons import _QUESTIONS, compare
from dit_nb.lab.studies import load_study


@pytest.mark.parametrize("question", _QUESTIONS)
def test_pairs_have_the_same_seeds(question):
    panels = compare(question)
    assert panels
    for rows in panels.values():
        assert len({row.label for row in rows}) == len(rows)
        for row in rows:
            assert row.first.shape == row.second.shape and len(row.first) >= 2
            assert np.isfinite(row.difference).all()


def test_a_difference_by_hand():
    rows = {(r["block"], r["seed"]): r["frechet"] for r in load_study("blocks")}
    gaps = [rows["adaln", seed] - rows["adaln_zero", seed] for seed in range(5)]
    found = compare("blocks")["same steps"][0]
    assert found.label == "adaLN − Zero" and found.planned
    assert np.allclose(np.sort(found.second - found.first), np.sort(gaps))


def test_comparisons_without_the_first_variant_were_chosen_later():
    for rows in compare("blocks").values():
        assert [row.planned for row in rows] == [True] * 3 + [False] * 3
    assert not any(row.planned for rows in compare("patches").values() for row in rows)
    assert [row.planned for row in compare("zero")["Fréchet distance"]] == [True] * 3 + [False] * 3


def test_unknown_question():
    with pytest.raises(ValueError, match="question.*'colors'"):
        compare("colors")
