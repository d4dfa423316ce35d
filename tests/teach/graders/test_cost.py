"""Grader of a block's multiply-adds, against PyTorch's own counter."""

from functools import cache

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dit_nb.blocks.adaln_zero import AdaLNZeroBlock


@cache
def measured(tokens, width, mlp_ratio):
    """Multiply-adds of a real block for one image, as PyTorch counts them."""
    with torch.device("meta"):
        block = AdaLNZeroBlock(width, 1, mlp_ratio)
        x, c = torch.zeros(1, tokens, width), torch.zeros(1, width)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            block(x, c)
    return counter.get_total_flops() // 2


def test_multiply_adds_are_those_of_a_real_block(check_identity):
    def holds(fn, tokens, width, mlp_ratio):
        found = fn(tokens, width, mlp_ratio).tolist()
        return found == [measured(T, width, mlp_ratio) for T in tokens.tolist()]

    check_identity("block_macs", holds)
