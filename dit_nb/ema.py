"""Exponential moving average (EMA) of a model's weights."""

import copy

import torch
from torch import nn

__all__ = ["EMA"]


class EMA:
    """Exponential moving average of a model's weights, in float32. The paper samples with it (section 4).

    Args:
        model: the model in training; its initial weights start the average
        decay: share of the old average that an update keeps, in [0, 1); the first updates keep less
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model = copy.deepcopy(model).float().eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average toward the model in training. The decay is at most (1 + k) / (10 + k) after k updates.

        Args:
            model: the model in training
        """
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        pairs = zip(self.model.parameters(), model.parameters())
        averages, weights = zip(*((e, p.float()) for e, p in pairs if p.requires_grad))
        torch._foreach_lerp_(averages, weights, 1 - decay)  # e.lerp_(p, 1 - decay), for all tensors at once
