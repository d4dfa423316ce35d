"""Linear layers for sampling in bfloat16 on a CPU: weights packed once, GELU in the same pass as the product."""

import torch
from torch import Tensor, nn

from dit_nb.attention import Attention, CrossAttention
from dit_nb.blocks.base import Mlp
from dit_nb.model import DiT
from dit_nb.processors import _device_policy

__all__ = []


def _can_pack(device: torch.device) -> bool:
    return _device_policy(device).packed_weights and torch.backends.mkldnn.is_available()


class _PackedLinear(nn.Module):
    "A linear layer in bfloat16 on a CPU: its weight lies as oneDNN reads it, and GELU is applied in the same pass."

    def __init__(self, linear: nn.Linear, gelu: bool):
        super().__init__()
        weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.register_buffer("weight", weight, persistent=False)
        self.bias, self.after = linear.bias, ("gelu", [], "tanh") if gelu else ("none", [], "")

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x.bfloat16(), self.weight, self.bias, *self.after)


def _pack_linear_layers(model: DiT) -> None:
    "Replace the linear layers of attention and MLP by packed ones, and the GELU between those of an MLP."
    for part in model.modules():
        if type(part) not in (Attention, CrossAttention, Mlp):
            continue
        gelu = type(part) is Mlp and type(part.act) is nn.GELU and part.act.approximate == "tanh"
        for name, layer in [*part.named_children()]:
            if type(layer) is nn.Linear:
                setattr(part, name, _PackedLinear(layer, gelu and name == "fc1"))
        if gelu and type(part.fc1) is _PackedLinear:
            part.act = nn.Identity()
