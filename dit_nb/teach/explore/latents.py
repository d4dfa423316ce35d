"""Explorer of lesson 20: latents of a picture, their channels, their scale, and noise."""

import math
from types import SimpleNamespace

import torch
from einops import rearrange
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import pad

from dit_nb.data import sample_photo
from dit_nb.latents import LatentCodec
from dit_nb.schedule import Schedule, linear_betas
from dit_nb.teach.explore.core import Explorer, choice, mistake, slider
from dit_nb.utils import randn
from dit_nb.visual import COLORS, figure, show_image, show_matrix

__all__ = ["explore_latents"]

_PATCH = 4  # side of a patch: the downsampling factor


class _PatchVAE(nn.Module):
    """A linear autoencoder with the interface of diffusers' VAE: the first principal components of patches."""

    def __init__(self, photo: Tensor, channels: int = 4, scaling_factor: float = 0.18215):
        super().__init__()
        patches = self._cut(photo).flatten(0, 2)  # (patches, 3 * _PATCH * _PATCH)
        self.mean = nn.Parameter(patches.mean(0))
        directions = torch.linalg.svd(patches - self.mean, full_matrices=False).Vh[:channels]
        directions = directions * directions.sum(1, keepdim=True).sign()  # larger is brighter
        std = ((patches - self.mean) @ directions.T).std(0)
        self.gain = nn.Parameter(1 / (scaling_factor * std))  # (C,): latents have std 1 / scaling_factor
        self.directions = nn.Parameter(directions)  # (C, 3 * _PATCH * _PATCH), orthonormal
        self.config = SimpleNamespace(
            scaling_factor=scaling_factor,
            in_channels=3,
            latent_channels=channels,
            block_out_channels=(0, 0, 0),
        )

    def _cut(self, images: Tensor) -> Tensor:  # (N, h, w, 3 * _PATCH * _PATCH)
        return rearrange(images, "n c (h p) (w q) -> n h w (c p q)", p=_PATCH, q=_PATCH)

    def encode(self, images: Tensor) -> SimpleNamespace:
        """Each patch's components, as the mean of a posterior of variance 0."""
        mean = ((self._cut(images) - self.mean) @ self.directions.T * self.gain).permute(0, 3, 1, 2)
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean, std=torch.zeros_like(mean)))

    def decode(self, latents: Tensor) -> SimpleNamespace:
        patches = latents.permute(0, 2, 3, 1) / self.gain @ self.directions + self.mean
        images = rearrange(patches, "n h w (c p q) -> n c (h p) (w q)", c=3, p=_PATCH, q=_PATCH)
        return SimpleNamespace(sample=images)


def _plot_latents(state: tuple, t: int, ablated: int, residual: bool, unscaled: bool) -> Figure:
    """Show a decoded image, its noisy latents, and the signal-to-noise ratio."""
    codec, image, latents, noise, schedule = state
    z = latents / codec.scale if unscaled else latents
    x_t = _ablate_channel(schedule.q_sample(z, torch.tensor([t]), noise), ablated)
    decoded = codec.decode(x_t * codec.scale if unscaled else x_t)
    fig, axes = figure(1, 3, (9, 3), width_ratios=(1.25, 1.25, 1))
    _draw_decoded(axes[0, 0], decoded, image, residual)
    title = f"{len(x_t[0])} channels at t = {t}" + (f", {ablated} ablated" if ablated else "")
    gaps = pad(x_t[0], (0, 1, 0, 1), value=torch.nan)
    sheet = rearrange(gaps, "(r k) h w -> (r h) (k w)", k=(len(x_t[0]) + 1) // 2)[:-1, :-1]
    show_matrix(axes[0, 1], sheet, title, signed=True, limit=3, aspect="equal", colorbar=None)
    axes[0, 1].set(xticks=[], yticks=[], xlabel="from −3 (blue) to 3 (red)")
    ratio = _draw_snr(axes[0, 2], latents.var().item(), codec.scale, schedule, t, unscaled)
    fig.alt_text = (
        f"{'Residual of a' if residual else 'A'} picture decoded from its latents at t = {t}"
        f"{f', channel {ablated} ablated' if ablated else ''}{', without the scaling factor' if unscaled else ''}: "
        f"signal-to-noise ratio {ratio:.2g}."
    )
    return fig


def _ablate_channel(x: Tensor, number: int) -> Tensor:
    """x (1, C, h, w) with one channel, counted from 1, replaced by its mean; 0 for none."""
    x = x.clone()
    if number:
        x[:, number - 1] = x[:, number - 1].mean()
    return x


def _draw_decoded(ax, decoded: Tensor, image: Tensor, residual: bool) -> None:
    if residual:
        missing = (image - decoded).mean(1)  # over the colors
        show_image(ax, missing, "original minus decoded", signed=True, limit=0.5)
    else:
        show_image(ax, decoded[0], "decoded")


def _draw_snr(ax, variance: float, scale: float, schedule: Schedule, t: int, unscaled: bool) -> float:
    """Signal-to-noise ratio by timestep, for scaled and for raw latents; returns the one at t."""
    bar = schedule.alphas_cumprod
    steps = (torch.linspace(0, 999**0.5, 40) ** 2).round().long()  # denser where the curve is steep
    curve = (bar / (1 - bar))[steps].log10()  # on a linear axis, which is drawn faster
    raw = variance / scale**2
    ratio = float((raw if unscaled else variance) * bar[t] / (1 - bar[t]))
    for signal, color, name, bold, up in (
        (variance, "x_t", "scaled", not unscaled, -1.7),
        (raw, "wrong", "not scaled", unscaled, 0.9),
    ):
        height = curve + math.log10(signal)
        ax.plot(steps, height, color=COLORS[color], lw=2.5 if bold else 1, alpha=1 if bold else 0.5)
        ax.text(500, height[28] + up, name, ha="right" if up < 0 else "left", color=COLORS[color])
    ax.plot(t, math.log10(ratio), "o", color=COLORS["wrong" if unscaled else "x_t"], ms=9)
    ax.set(xlabel="timestep t", xticks=(0, 500, 999), ylim=(-5, 6.2))
    ax.set_yticks((-4, 0, 4), ("0.0001", "1", "10,000"))
    shown = f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"
    ax.set_title(
        f"signal-to-noise ratio {shown}", fontsize=10, color=COLORS["wrong"] if unscaled else "black"
    )
    return ratio


def explore_latents(codec: LatentCodec | None = None, image: Tensor | None = None) -> Explorer:
    """Explore what latents contain, and what noise does to them.

    Args:
        codec: codec; a linear one fitted to the image by default
        image: image (1, 3, H, W) in [-1, 1]; a bundled photograph by default
    """
    image = sample_photo("china.jpg") if image is None else image
    codec = LatentCodec(_PatchVAE(image)) if codec is None else codec
    latents = codec.encode(image, sample=False)
    noise = randn(latents.shape, torch.Generator().manual_seed(0))
    state = codec, image, latents, noise, Schedule(linear_betas(1000))
    channels = [("none", 0), *((str(i + 1), i + 1) for i in range(codec.channels))]
    return Explorer(
        lambda **controls: _plot_latents(state, **controls),
        "a picture in four channels",
        """
        1. *Switch the mistake on.* The picture emerges from the noise: at every t, the signal-to-noise
           ratio is too high by the square of 1/scale.
        2. *Reset, set t to 0, and ablate one channel after the other.* Each carries something of its own;
           find the one without which hardly any light and dark is left.
        3. *Reset, set t to 0, and show the residual.* Edges and texture: four numbers cannot hold what is
           smaller than a patch.
        """,
        t=slider("timestep t", 0, 999, 300),
        ablated=choice("ablate channel", channels, 0),
        residual=choice("show", [("decoded", False), ("residual", True)], False),
        unscaled=mistake("no scaling factor"),
    )
