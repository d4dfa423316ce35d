"""The study of composition: which captions are half seen, and how often samples are nearer to the wanted picture."""

import csv

import pytest
import torch

from dit_nb.data import emoji
from dit_nb.lab.text_study import _COLUMNS, RESULTS, _other_style, _seen_emoji, _wins, half_seen_emoji


@pytest.fixture(scope="module")
def split():
    return emoji(["smileys", "animals", "food"])


def pairs(data) -> set:
    """Name and style of each picture."""
    return {(entry.name, entry.style) for entry in data.entries}


def test_half_seen_emoji_have_a_name_that_is_known_in_the_other_style(split):
    known, found = pairs(split.train), half_seen_emoji(split)
    other = {"flat": "3d", "3d": "flat"}
    assert pairs(found) and all(pair not in known for pair in pairs(found))
    assert all((name, other[style]) in known for name, style in pairs(found))
    unknown = pairs(split.held_out) - pairs(found)
    assert not {name for name, _ in unknown} & {name for name, _ in known}


def test_as_many_seen_emoji_of_each_class_are_compared(split):
    unseen = half_seen_emoji(split)
    seen = _seen_emoji(split, unseen)
    assert torch.equal(seen.labels.sort().values, unseen.labels.sort().values)
    assert len(pairs(seen)) == len(seen) and pairs(seen) <= pairs(split.train)


def test_pictures_of_the_other_style(split):
    unseen = half_seen_emoji(split)
    found = _other_style(unseen.entries[:5], split.train)
    rows = {(entry.name, entry.style): i for i, entry in enumerate(split.train.entries)}
    for picture, entry in zip(found, unseen.entries):
        row = rows[entry.name, "3d" if entry.style == "flat" else "flat"]
        assert torch.equal(picture, split.train.images[row])
    assert _other_style(split.held_out.entries, unseen) is None


def test_wins_on_known_distances():
    wanted = torch.tensor([[0.0], [1.0], [5.0], [9.0]])
    labels = torch.tensor([0, 0, 0, 1])
    samples = torch.stack([wanted, wanted + 0.7], 1)  # (4, 2, 1): the first's second is nearer to 1
    got = _wins(samples, wanted, labels)
    torch.testing.assert_close(got[:3], torch.tensor([0.75, 1.0, 1.0]))
    assert got[3].isnan()  # no other of its class


def test_the_recorded_captions_are_those_of_the_study(split):
    with RESULTS.open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == _COLUMNS
    unseen = half_seen_emoji(split)
    for kind, data in {"unseen": unseen, "seen": _seen_emoji(split, unseen)}.items():
        assert {(row["name"], row["style"]) for row in rows if row["kind"] == kind} == pairs(data)
