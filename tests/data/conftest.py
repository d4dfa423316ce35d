"""Fixtures of the tests of data: a folder to fill, and caches of its own."""

import datasets
import pytest


@pytest.fixture(autouse=True)
def own_caches(tmp_path, monkeypatch):
    """Caches of its own for what was read before, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    return tmp_path / "images"
