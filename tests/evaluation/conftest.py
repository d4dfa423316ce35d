"""Fixtures of the tests of evaluation."""

import sys
import types
from importlib.machinery import ModuleSpec

import pytest

from dit_nb.data import digits
from dit_nb.features import DigitExtractor


@pytest.fixture(scope="session")
def split():
    """The real digits."""
    return digits()


@pytest.fixture(scope="session")
def extractor(split):
    """The extractor of digits, trained once."""
    return DigitExtractor(split)


@pytest.fixture
def vision(monkeypatch):
    """A torchvision that torchmetrics and torch-fidelity can import; neither needs it for what is tested here."""
    try:
        import torchvision  # noqa: F401
    except Exception:  # not there, or made for another build of torch
        for name in ("", ".transforms", ".transforms.functional", ".datasets", ".models", ".ops"):
            fake = types.ModuleType(f"torchvision{name}")
            fake.__spec__ = ModuleSpec(fake.__name__, None)
            fake.__getattr__ = lambda attribute: type(attribute, (), {})
            monkeypatch.setitem(sys.modules, fake.__name__, fake)
            if name:
                parent, _, child = fake.__name__.rpartition(".")
                setattr(sys.modules[parent], child, fake)
