"""Shared by the tests of the explorers: set controls as a user does, and read what a figure shows."""

import numpy as np
from matplotlib.colors import to_hex

from dit_nb.visual import COLORS


def turn(explorer, **values):
    """Set controls one after the other as a user does; none may fail. Returns the figure."""
    for name, value in values.items():
        explorer.controls[name].value = value
        assert not explorer.error.value
    return explorer.figure


def axes(explorer):
    """The axes of the figure, which must have been drawn without an error."""
    assert explorer.error.value == ""
    return explorer.figure.axes


def pixels(ax, which=0):
    """The numbers of an image on given axes."""
    return np.asarray(ax.images[which].get_array(), dtype=float)


def is_wrong(title):
    """Whether a title has the color of mistakes."""
    return to_hex(title.get_color()).upper() == COLORS["wrong"]
