"""Diffusion Transformers (DiT): the model, the diffusion process, training, sampling, and a course about them.

Most used: `DiT`, `DiTConfig`, `Diffusion`, `Guided`, `load_model`, `sample_images`. Everything else is imported from its
module, for example `dit_nb.training.Trainer`.
"""

__version__ = "0.1.0"

from typing import TYPE_CHECKING

from dit_nb.config import DiTConfig
from dit_nb.guidance import Guided
from dit_nb.model import DiT
from dit_nb.objective import Diffusion

if TYPE_CHECKING:
    from dit_nb.pretrained import load_model, sample_images

__all__ = ["DiT", "DiTConfig", "Diffusion", "Guided", "load_model", "sample_images"]


def __getattr__(name: str):
    if name in (
        "load_model",
        "sample_images",
    ):  # they need safetensors and huggingface_hub: on first use only
        from dit_nb import pretrained

        return getattr(pretrained, name)
    raise AttributeError(f"module 'dit_nb' has no attribute {name!r}")
