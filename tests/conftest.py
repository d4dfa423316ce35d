"""Fixtures of all tests."""

import pytest
import torch

from support import CASES, Golden


def pytest_collection_modifyitems(items):
    """Skip what needs a CUDA device where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if "cuda" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


@pytest.fixture(params=CASES)
def golden(request):
    """Each recorded case in turn."""
    return Golden(request.param)
