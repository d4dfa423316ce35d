"""A photograph in four channels: mute one, drown them all in noise, forget the scale, and see what comes out of the decoder."""

import math
from types import SimpleNamespace

import torch
from einops import rearrange
from matplotlib.figure import Figure
from torch import Tensor, nn

from dit_nb.data import sample_photo
from dit_nb.latents import LatentCodec
from dit_nb.schedule import Schedule, linear_betas
from dit_nb.teach.explore.core import Explorer, choice, mistake, slider
from dit_nb.utils import randn
from dit_nb.visual import COLORS, figure, show_image, show_matrix

PATCH = 4  # side of a patch, the downsampling


class PatchVAE(nn.Module):
    "The first four principal components of the patches of a photograph, as an autoencoder."

    def __init__(
        self,
        photo: Tensor,  # (1, 3, H, W) in [-1, 1]
        channels: int = 4,
        scaling_factor: float = 0.18215,  # latents are made 1 / scaling_factor wide
    ):
        super().__init__()
        patches = self.cut(photo).flatten(0, 2)  # (patches, 3 * PATCH * PATCH)
        self.middle = nn.Parameter(patches.mean(0))
        directions = torch.linalg.svd(patches - self.middle, full_matrices=False).Vh[:channels]
        directions = directions * directions.sum(1, keepdim=True).sign()  # more is brighter
        spread = ((patches - self.middle) @ directions.T).std(0)
        self.gain = nn.Parameter(1 / (scaling_factor * spread))  # (C,)
        self.directions = nn.Parameter(directions)  # (C, 3 * PATCH * PATCH), orthonormal
        self.config = SimpleNamespace(
            scaling_factor=scaling_factor,
            in_channels=3,
            latent_channels=channels,
            block_out_channels=(0, 0, 0),
        )

    def cut(self, images: Tensor) -> Tensor:  # (N, h, w, 3 * PATCH * PATCH)
        "Images in patches."
        return rearrange(images, "n c (h p) (w q) -> n h w (c p q)", p=PATCH, q=PATCH)

    def encode(self, images: Tensor) -> SimpleNamespace:
        "Each patch by its components: the mean of a posterior of no width."
        mean = ((self.cut(images) - self.middle) @ self.directions.T * self.gain).permute(0, 3, 1, 2)
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean, std=torch.zeros_like(mean)))

    def decode(self, latents: Tensor) -> SimpleNamespace:
        "Components back to patches."
        patches = latents.permute(0, 2, 3, 1) / self.gain @ self.directions + self.middle
        images = rearrange(patches, "n h w (c p q) -> n c (h p) (w q)", c=3, p=PATCH, q=PATCH)
        return SimpleNamespace(sample=images)


def plot_latents(
    state: tuple,  # codec, image (1, 3, H, W), its latents (1, C, h, w), noise (1, C, h, w), schedule
    t: int,  # timestep
    mute: int,  # number of a channel that is set to its mean; 0: none
    lost: bool,  # show what is missing from the image, in place of the image
    forgotten: bool,  # latents are not scaled
) -> Figure:
    "Noisy latents, what the decoder makes of them, and the signal in the noise."
    codec, image, latents, noise, schedule = state
    z = latents / codec.scale if forgotten else latents
    x_t = mute_channel(schedule.q_sample(z, torch.tensor([t]), noise), mute)
    decoded = codec.decode(x_t * codec.scale if forgotten else x_t)
    fig, axes = figure(1, 3, (9, 3), width_ratios=(1.25, 1.25, 1))
    draw_decoded(axes[0, 0], decoded, image, lost)
    names = f"latents at t = {t}" + (f", channel {mute} muted" if mute else "")
    sheet = rearrange(x_t[0], "(r k) h w -> (r h) (k w)", k=(len(x_t[0]) + 1) // 2)
    show_matrix(axes[0, 1], sheet, names, signed=True, limit=3, aspect="equal", colorbar=None)
    axes[0, 1].set(xticks=[], yticks=[], xlabel="from -3 (blue) to 3 (red)")
    ratio = draw_ratios(axes[0, 2], latents.var().item(), codec.scale, schedule, t, forgotten)
    fig.words = (
        f"{'What is lost of a' if lost else 'A'} photograph decoded from its latents at t = {t}"
        f"{f', channel {mute} muted' if mute else ''}{', the scale forgotten' if forgotten else ''}: "
        f"signal to noise {ratio:.2g}."
    )
    return fig


def mute_channel(
    x: Tensor,  # (1, C, h, w)
    number: int,  # from 1; 0: none
) -> Tensor:  # (1, C, h, w)
    "One channel replaced by its mean."
    x = x.clone()
    if number:
        x[:, number - 1] = x[:, number - 1].mean()
    return x


def draw_decoded(ax, decoded: Tensor, image: Tensor, lost: bool) -> None:
    "The decoded image, or what is missing from it."
    if lost:
        missing = (image - decoded).mean(1)  # over the colours
        show_image(ax, missing, "original minus decoded", signed=True, limit=0.5)
    else:
        show_image(ax, decoded[0], "decoded")


def draw_ratios(ax, variance: float, scale: float, schedule: Schedule, t: int, forgotten: bool) -> float:
    "Signal to noise by timestep, for scaled latents and for raw ones; returns the one at t."
    bar = schedule.alphas_cumprod
    steps = (torch.linspace(0, 999**0.5, 40) ** 2).round().long()  # more of them where the curve is steep
    curve = (bar / (1 - bar))[steps].log10()  # drawn on a plain axis, which is faster
    raw = variance / scale**2
    ratio = float((raw if forgotten else variance) * bar[t] / (1 - bar[t]))
    for signal, color, name, bold, up in (
        (variance, "x_t", "scaled", not forgotten, -1.7),
        (raw, "wrong", "not scaled", forgotten, 0.9),
    ):
        height = curve + math.log10(signal)
        ax.plot(steps, height, color=COLORS[color], lw=2.5 if bold else 1, alpha=1 if bold else 0.5)
        ax.text(500, height[28] + up, name, ha="right" if up < 0 else "left", color=COLORS[color])
    ax.plot(t, math.log10(ratio), "o", color=COLORS["wrong" if forgotten else "x_t"], ms=9)
    ax.set(xlabel="timestep t", xticks=(0, 500, 999), ylim=(-5, 6.2))
    ax.set_yticks((-4, 0, 4), ("0.0001", "1", "10,000"))
    shown = f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"
    ax.set_title(f"signal : noise = {shown}", fontsize=10, color=COLORS["wrong"] if forgotten else "black")
    return ratio


def explore_latents(
    codec: LatentCodec | None = None,  # yours; by default a linear one, made from the photograph at once
    image: Tensor | None = None,  # (1, 3, H, W) in [-1, 1]; by default the photograph
) -> Explorer:
    "What latents hold, and what becomes of them in noise."
    image = sample_photo("china.jpg") if image is None else image
    codec = LatentCodec(PatchVAE(image)) if codec is None else codec
    latents = codec.encode(image, sample=False)
    noise = randn(latents.shape, torch.Generator().manual_seed(0))
    state = codec, image, latents, noise, Schedule(linear_betas(1000))
    return Explorer(
        lambda **controls: plot_latents(state, **controls),
        "a photograph in four channels",
        [
            (
                "Switch the mistake on.",
                "The photograph rises from the noise: at every t, signal to noise is the square of 1/scale too high.",
            ),
            (
                "Reset, set t to 0, and mute one channel after the other.",
                "Each carries something of its own; without the first, what is left has hardly any light and dark.",
            ),
            (
                "Reset, set t to 0, and look at what is lost.",
                "Edges and texture: what is smaller than a patch has no place in four numbers.",
            ),
        ],
        t=slider("timestep t", 0, 999, 300),
        mute=choice("mute channel", [("none", 0), *((str(i + 1), i + 1) for i in range(codec.channels))], 0),
        lost=choice("show", [("decoded", False), ("what is lost", True)], False),
        forgotten=mistake("the scale is forgotten"),
    )
