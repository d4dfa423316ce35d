"""Fixtures of the explorers' tests: noise schedules in numpy, and a figure with some settings."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def abar():
    """Function from a schedule's name to its signal power, by the formulas, written again in numpy."""

    def signal_power(name="linear"):
        if name == "linear":
            return np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
        angle = (np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2
        share = np.cos(angle) ** 2
        return np.cumprod(1 - np.minimum(1 - share[1:] / share[:-1], 0.999))

    return signal_power


@pytest.fixture(scope="session")
def at():
    """Function from an explorer and some settings to its axes; the other settings have their defaults."""

    def axes(explorer, **values):
        figure = explorer.set(**{**explorer.defaults, **values}).figure
        assert explorer.error.value == "" and explorer.figure.alt_text
        return figure.axes

    return axes
