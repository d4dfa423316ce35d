"""The explorer of the guide Checkpoints and many processes, against the batches and the noise of a single process."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from dit_nb.batches import Batches
from dit_nb.step_noise import sample_step_noise
from dit_nb.teach.explore.ranks import explore_ranks
from dit_nb.visual import COLORS
from support_explorers import axes, is_wrong


@pytest.fixture(scope="module")
def shared():
    return explore_ranks()


@pytest.fixture
def explorer(shared):
    """The explorer, reset to its defaults."""
    return shared.reset()


def pairs(explorer) -> dict[int, tuple[int, int]]:
    """Position in the batch -> image and timestep, as the figure says."""
    found = {}
    for text in axes(explorer)[0].texts:
        image, t = text.get_text().split("\nt ")
        found[int(text.get_position()[0])] = int(image), int(t)
    return found


def ranks(explorer) -> list[int]:
    """The row of each position."""
    boxes = axes(explorer)[0].patches
    return [int(box.get_y()) for box in sorted(boxes, key=lambda box: box.get_x())]


def reds(explorer) -> list[int]:
    """The positions in the color of mistakes."""
    boxes = axes(explorer)[0].patches
    return sorted(int(b.get_x()) for b in boxes if b.get_facecolor()[:3] == to_rgb(COLORS["wrong"]))


def of_one_process(step: int) -> dict[int, tuple[int, int]]:
    """Images and timesteps of a run with one process."""
    images = next(iter(Batches(1437, 16, 0, step)))
    return dict(enumerate(zip(images, sample_step_noise(0, step, (16, 1, 8, 8), 1000, 0.1).t.tolist())))


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
@pytest.mark.parametrize("step", [0, 7])
def test_every_number_of_processes_takes_the_same_pairs(explorer, world_size, step):
    explorer.set(world_size=world_size, step=step)
    assert pairs(explorer) == of_one_process(step) and not reds(explorer)
    assert ranks(explorer) == [i // (16 // world_size) for i in range(16)]
    assert "16 of 16" in axes(explorer)[0].get_title() and not is_wrong(axes(explorer)[0].title)


def test_each_update_has_its_own_pairs(explorer):
    first = pairs(explorer)
    assert pairs(explorer.set(step=1)) != first


@pytest.mark.parametrize("world_size, cuts", [(1, {8}), (2, {4, 12}), (8, set(range(1, 16, 2)))])
def test_dotted_lines_are_between_micro_batches(explorer, world_size, cuts):
    explorer.set(world_size=world_size, micro_batches=2)
    lines = [path.vertices[0, 0] for part in axes(explorer)[0].collections for path in part.get_paths()]
    assert {round(x) for x in lines} == cuts and np.abs(np.array(lines) - np.rint(lines)).max() < 0.05


def test_with_a_seed_by_rank_only_rank_0_keeps_its_noise(explorer):
    explorer.set(wrong=True)
    got, wanted = pairs(explorer), of_one_process(0)
    assert all(got[i] == wanted[i] for i in range(4)) and reds(explorer) == list(range(4, 16))
    assert all(got[i][0] == wanted[i][0] and got[i][1] != wanted[i][1] for i in range(4, 16))
    assert "4 of 16" in axes(explorer)[0].get_title() and is_wrong(axes(explorer)[0].title)
