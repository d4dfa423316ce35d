"""Diffusion transformers, from patchify to samples: the lessons in nbs/ are the source of this package."""

__version__ = "0.1.0"

from dit_nb.config import DiTConfig
from dit_nb.model import DiT
from dit_nb.objective import Diffusion

__all__ = ["DiT", "DiTConfig", "Diffusion"]
