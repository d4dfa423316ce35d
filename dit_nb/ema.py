"""One readable loop: draw luck, predict, step, average."""

import copy

import torch
from torch import nn

from dit_nb.distributed import local


class EMA:
    "A running average of a model's weights, in float32; what the paper samples with."

    def __init__(
        self,
        model: nn.Module,
        decay: float,  # share of the old average that each update keeps, once warmed up
    ):
        self.model = copy.deepcopy(model).float().eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    def update(
        self,
        model: nn.Module,  # the model in training
    ) -> None:
        "Move the average a little towards the model; in the beginning, a lot."
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        pairs = [
            (local(e), local(p.detach()).float())
            for e, p in zip(self.model.parameters(), model.parameters())
            if p.requires_grad
        ]
        averages, weights = map(list, zip(*pairs))
        torch._foreach_lerp_(averages, weights, 1 - decay)  # one call for all tensors: e.lerp_(p, 1 - decay)

    def split(
        self,
        model: nn.Module,  # the model in training, which FSDP has cut into shares
    ) -> None:
        "Keep of the average, as of the model, this process's share alone. Before the first update."
        shares = {name: share.detach().clone() for name, share in model.state_dict().items()}
        self.model.load_state_dict(shares, assign=True)

    def whole(self) -> nn.Module:
        "The averaged model, complete, to sample from. Where it is cut into shares, all processes must ask."
        if not any(hasattr(p, "full_tensor") for p in self.model.parameters()):
            return self.model
        model = copy.deepcopy(self.model)
        shares = model.state_dict().items()
        model.load_state_dict({name: share.full_tensor() for name, share in shares}, assign=True)
        return model
