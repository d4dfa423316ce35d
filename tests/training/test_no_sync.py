"""A training step must not wait for the GPU: on the device "meta", reading a value raises an error."""

import copy

import pytest
import torch

from dit_nb import Diffusion, DiT, DiTConfig
from dit_nb.ema import EMA
from dit_nb.since.flow import RectifiedFlow

PROCESSES = {
    "diffusion": lambda: Diffusion(bins=17),
    "fixed variance": lambda: Diffusion(variance="fixed_small"),
    "flow": RectifiedFlow,
}


@pytest.mark.parametrize("block", ["adaln_zero", "in_context", "cross_attention", "modern"])
@pytest.mark.parametrize("name", PROCESSES)
def test_a_step_reads_no_value(name, block):
    process = PROCESSES[name]().to("meta")
    config = DiTConfig(8, 2, 3, 32, 2, 2, num_classes=10, learn_sigma=name == "diffusion", block=block)
    model = DiT(config).to("meta").train()
    ema = EMA(copy.deepcopy(model), 0.99)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, 1e-3)
    x, y = torch.randn(4, 3, 8, 8, device="meta"), torch.randint(0, 10, (4,), device="meta")
    t = torch.rand(4, device="meta") if name == "flow" else torch.randint(0, 1000, (4,), device="meta")
    losses = process.training_losses(model, x, t, y)
    losses["loss"].mean().backward()
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    optimizer.step()
    ema.update(model)
    assert losses["loss"].shape == (4,)


def test_a_read_would_be_seen():
    with pytest.raises(RuntimeError):
        bool(torch.zeros(1, device="meta").any())
