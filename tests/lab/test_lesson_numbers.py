"""Numbers that lessons load: the recorded rows, and the function that measures one of them."""

import math

import lesson_numbers as tool
from dit_nb.data import digits
from dit_nb.lab.benchmark_report import load_results


def test_the_recorded_bound_has_a_number_for_each_digit():
    rows = load_results("digit_bound")
    assert [(row["steps"], row["digits"]) for row in rows] == [
        (steps, name) for steps in (250, 1000) for name in ("unseen", "training")
    ]
    for row in rows:
        assert len(row["bits"]) == 100 and all(0 < bits < math.log2(17) + 4 for bits in row["bits"])
        finest = row.get("bits_of_t_1_to_9", [0.0] * 100)
        assert all(part < whole for part, whole in zip(finest, row["bits"]))
        assert ("bits_of_t_1_to_9" in row) == (row["steps"] == 1000)


def test_an_influence_is_measured_after_training():
    found = tool._influence_after(digits().train, "scaled", 16, 3, 0.1)
    assert 0 < found < 10 and found == tool._influence_after(digits().train, "scaled", 16, 3, 0.1)
    assert found != tool._influence_after(digits().train, "paper", 16, 3, 0.1)
