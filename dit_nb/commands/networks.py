"""What the commands print about a network: parameters, precision, device, and number of processes."""

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = []

_NAMES = {torch.float32: "fp32", torch.float64: "fp64", torch.bfloat16: "bf16", torch.float16: "fp16"}


def _describe_network(weights: Iterable[Tensor], state, dtype: torch.dtype | None = None) -> str:
    """Parameters, precision and device of a network, and the number of processes if there are several, as text.

    Args:
        weights: its parameters
        state: the processes at hand, from `dit_nb.distributed._process_state`
        dtype: number format that it computes in; that of the weights by default
    """
    weights = list(weights)
    count, first = sum(weight.numel() for weight in weights), weights[0]
    precision = _NAMES.get(dtype or first.dtype, str(dtype or first.dtype))
    processes = f", {state.num_processes} processes" if state.num_processes > 1 else ""
    return f"{count:,} parameters, {precision} on {first.device.type}{processes}"
