"""Diffusion Transformers (DiT): the model, the diffusion process, training, sampling, and a course about them.

Most used: `DiT`, `DiTConfig`, `Diffusion`, `Guided`, `load_model`, `sample_images`. Everything else is imported from its
module, for example `dit_nb.training.Trainer`.
"""

__version__ = "0.1.0"

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dit_nb.config import DiTConfig, SamplingConfig, TrainConfig
    from dit_nb.guidance import Guided
    from dit_nb.model import DiT
    from dit_nb.objective import Diffusion
    from dit_nb.pretrained import load_model, sample_images

__all__ = [
    "DiT",
    "DiTConfig",
    "Diffusion",
    "Guided",
    "SamplingConfig",
    "TrainConfig",
    "load_model",
    "sample_images",
]

_HOME = {
    "DiT": "model",
    "DiTConfig": "config",
    "Diffusion": "objective",
    "Guided": "guidance",
    "SamplingConfig": "config",
    "TrainConfig": "config",
    "load_model": "pretrained",
    "sample_images": "pretrained",
}


def __getattr__(name: str):  # on first use: `dit-nb --help` imports no torch
    if name in _HOME:
        return getattr(import_module(f"dit_nb.{_HOME[name]}"), name)
    raise AttributeError(f"module 'dit_nb' has no attribute {name!r}")
