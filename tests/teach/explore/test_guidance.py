"""The explorer of lesson 18, against samples of the library."""

import numpy as np
import pytest
import torch

from dit_nb.data import digits
from dit_nb.guidance import Guided
from dit_nb.pretrained import digit_model, make_diffusion
from dit_nb.sampling import ddim_sample
from dit_nb.teach.explore.guidance import _SCALES, explore_guidance
from dit_nb.visual import COLORS


@pytest.fixture(scope="module")
def guidance():
    return explore_guidance()


def at(explorer, **values):
    """The axes with some settings, the others at their defaults."""
    figure = explorer.set(**{**explorer.defaults, **values}).figure
    assert explorer.error.value == "" and explorer.figure.alt_text
    return figure.axes


def tiles(ax):
    """The sixteen samples in a panel, and which have a red frame."""
    grid = (
        np.asarray(ax.images[0].get_array())
        .reshape(4, 10, 4, 10, 3)
        .transpose(0, 2, 1, 3, 4)
        .reshape(16, 10, 10, 3)
    )
    return torch.from_numpy(grid[:, 1:9, 1:9, 0] * 2 - 1).float(), grid[:, 0, 0, 1] < 0.9


def sample(w, label, null=10):
    """Guided samples by the library's own wrapper."""
    model, sampling = digit_model()
    start = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    guided, labels = Guided(model, w, null_class=null), torch.full((16,), label)
    options = dict(x_T=start, clip_x0=True, progress=False)
    return ddim_sample(make_diffusion(sampling).respaced("ddim20"), guided, start.shape, labels, **options)[
        :, 0
    ]


def nearest_labels(images):
    """The label of the nearest training digit."""
    train = digits().train
    return train.labels[torch.cdist(images.flatten(1), train.images.flatten(1)).argmin(1)].numpy()


@pytest.mark.parametrize("w", [0.0, 1.0, 4.0])
def test_samples_equal_the_library(guidance, w):
    axes = at(guidance, w=w)
    images, wrong = tiles(axes[1])
    assert (images - sample(w, 3)).abs().max() < 1e-3
    assert (wrong == (nearest_labels(images) != 3)).all()
    assert axes[2].get_title().startswith(f"{int((nearest_labels(images) == 3).sum())} of 16")
    assert (tiles(axes[0])[0] - sample(1.0, 3)).abs().max() < 1e-3
    here = np.array([float(a[0]) for a in axes[2].lines[-1].get_data()])
    assert here[0] == pytest.approx(float(torch.pdist(images.flatten(1)).mean()), abs=1e-3)


@pytest.mark.parametrize("bug, same", [("1 + w", lambda w: w + 1), ("swapped", lambda w: 1 - w)])
def test_confused_conventions(guidance, bug, same):
    for w in (0.0, 2.0):
        axes = at(guidance, w=w, bug=bug)
        assert (tiles(axes[1])[0] - sample(same(w), 3)).abs().max() < 1e-2
        assert bug in axes[1].get_title() and axes[1].title.get_color() == COLORS["wrong"]
    assert (tiles(axes[1])[0] - sample(2.0, 3)).abs().max() > 0.5


def test_null_label_0(guidance):
    away_from_0 = tiles(at(guidance, w=4.0, bug="null is 0")[1])[0]
    assert (away_from_0 - sample(4.0, 3, null=0)).abs().max() < 1e-3
    assert (away_from_0 - sample(4.0, 3)).abs().max() > 0.5


def test_experiments(guidance):
    distance, typical = at(guidance)[2].lines[1].get_data()
    counts = [int(at(guidance, w=w)[2].get_title().split()[0]) for w in (0.0, 1.0, 4.0)]
    assert counts[0] <= 4 and min(counts[1:]) >= 15
    at_4, at_8 = _SCALES.index(4.0), _SCALES.index(8.0)
    assert typical[at_4] > typical[2] > typical[0] and distance[at_4] < distance[2] < distance[0]
    assert typical[at_8] < typical[at_4] and distance[at_8] > distance[at_4]  # too much
    assert at(guidance, bug="swapped")[2].get_title().startswith("0 of 16")
    images = [tiles(at(guidance, label=0, bug="null is 0", w=w)[1])[0] for w in (1.0, 8.0)]
    assert (images[0] - images[1]).abs().max() < 1e-3 and (
        tiles(at(guidance, label=0, w=8.0)[1])[0] - images[0]
    ).abs().max() > 0.5


def test_own_formula():
    unguided = explore_guidance(lambda cond, uncond, w: cond)
    assert (tiles(at(unguided, w=8.0)[1])[0] - tiles(at(unguided, w=0.0)[1])[0]).abs().max() == 0
