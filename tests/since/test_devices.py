"""Every network of the lessons since DiT on every device: float32 there, against float64 on the CPU."""

import copy

import pytest
import torch

from dit_nb import DiT, DiTConfig
from dit_nb.guidance import Guided
from dit_nb.since.flow import RectifiedFlow, flow_sample
from dit_nb.since.meanflow import MeanFlowDiT, mean_flow_losses, mean_flow_sample
from dit_nb.since.mmdit import MMDiT, MMDiTConfig
from support import DEVICES, randomize, relative

SHAPE = dict(input_size=8, patch_size=2, in_channels=3, hidden_size=32, depth=2, num_heads=2)
CLASSES = dict(num_classes=5, learn_sigma=False)
TEXT = dict(vocabulary=("red", "apple", "fox"), text_length=4, text_width=32, pooled_width=32)
NETWORKS = {
    "flow": lambda: DiT(DiTConfig(**SHAPE, **CLASSES)),
    "modern": lambda: DiT(DiTConfig(**SHAPE, **CLASSES, block="modern")),
    "text": lambda: MMDiT(MMDiTConfig(**SHAPE, **TEXT)),
    "MeanFlow": lambda: MeanFlowDiT(DiTConfig(**SHAPE, **CLASSES)),
}


def networks(kind: str, device: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The same weights in float32 on a device and in float64 on the CPU."""
    torch.manual_seed(0)
    model = randomize(NETWORKS[kind](), scale=0.2).eval()
    return copy.deepcopy(model).to(device), model.double()


def inputs(kind: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images, noise and conditions, in float64."""
    x0, noise = torch.randn(2, 3, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = (
        torch.tensor([[2, 3, 0, 0], [4, 0, 0, 0], [1, 2, 3, 4]])
        if kind == "text"
        else torch.tensor([0, 4, 2])
    )
    return x0, noise, y


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", NETWORKS)
def test_losses_and_gradients(kind, device):
    x0, noise, y = inputs(kind)
    t, r = torch.tensor([0.2, 0.6, 0.9]).double(), torch.tensor([0.2, 0.3, 0.0]).double()
    results = []
    for model, place in zip(networks(kind, device), ({"device": device, "dtype": torch.float32}, {})):
        args = [a.to(**place) for a in (x0, t)]
        if kind == "MeanFlow":
            losses = mean_flow_losses(
                model, *args, r.to(**place), y.to(device if place else "cpu"), noise.to(**place)
            )
        else:
            conditions = y.to(device if place else "cpu")
            losses = RectifiedFlow().training_losses(model, *args, conditions, noise.to(**place))
        losses["loss"].sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        results.append((losses["loss"], gradient))
    (loss, gradient), (wanted, wanted_gradient) = results
    assert loss.device.type == device and relative(loss, wanted) < 1e-3
    assert relative(gradient, wanted_gradient) < 1e-3


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", NETWORKS)
def test_samples(kind, device):
    _, noise, y = inputs(kind)
    results = []
    for model, place in zip(networks(kind, device), ({"device": device, "dtype": torch.float32}, {})):
        x_T, labels = noise.to(**place), y.to(device if place else "cpu")
        if kind == "MeanFlow":
            images = mean_flow_sample(model, x_T.shape, labels, 2, x_T=x_T)
        else:
            flow = RectifiedFlow().respaced(3)
            guided = Guided(model, 2.0)
            images = flow_sample(flow, guided, x_T.shape, labels, step="heun", x_T=x_T, progress=False)
        results.append(images)
    assert results[0].device.type == device and relative(*results) < 1e-3
