"""One stage for the whole play: pick a digit, a seed, a sampler, a guidance; scrub through time; see what the model sees, thinks and doubts."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dit_nb.model import DiT
from dit_nb.pretrained import digit_model, make_diffusion, sample_images
from dit_nb.sampling import Step
from dit_nb.schedule import extract
from dit_nb.teach.explore.core import Explorer, choice, slider, stops
from dit_nb.visual import COLORS, figure


class Frames(NamedTuple):
    "A sampling run of one image, S steps."

    t: Tensor  # (S,) original timesteps, from noise to image
    x_t: Tensor  # (S, 1, H, W)
    x0: Tensor  # (S, 1, H, W) predicted
    eps: Tensor  # (S, 1, H, W) predicted
    fraction: Tensor  # (S, 1, H, W) of the way from the posterior variance (0) to beta (1)
    bits: Tensor  # (S,) terms of the bound, bits per dimension
    final: Tensor  # (1, H, W)


def record_run(
    model: DiT,
    sampling: dict,  # see `dit_nb.pretrained`
    digit: int,  # class; the null class where it is K
    seed: int,
    steps: int,
    sampler: str,  # ddpm, ddim
    guidance: float,  # cfg_scale
    variance: str,  # learned, fixed_small, fixed_large
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Frames:
    "Sample one image and keep all that happened."
    seen: list[Step] = []

    def keep(step: Step) -> None:
        seen.append(step)
        progress(step.i + 1, steps)

    label = torch.tensor([digit])
    options = {"sampler": sampler, "steps": str(steps), "variance": variance, "callback": keep}
    final = sample_images(model, sampling, label, 1, seed, guidance, progress=False, **options)
    return frames_of(seen, final, make_diffusion(sampling).respaced(str(steps)))


def frames_of(
    seen: list[Step],
    final: Tensor,  # (1, 1, H, W)
    diffusion,  # the respaced process
) -> Frames:
    "From steps to pictures, all at once: a step is a row of the batch."
    k = torch.arange(len(seen) - 1, -1, -1)  # steps of the respaced process
    x_t = torch.cat([step.x_t for step in seen]).cpu()
    columns = zip(*(step.prediction for step in seen))
    prediction = type(seen[0].prediction)(*(torch.cat(column).cpu() for column in columns))
    low = extract(diffusion.posterior_log_variance_clipped, k, x_t)
    high = extract(diffusion.log_betas, k, x_t)
    fraction = (prediction.log_variance - low) / (high - low)
    levels = diffusion.bins - 1
    picture = (
        (final.cpu().clamp(-1, 1) + 1) / 2 * levels
    ).round() / levels * 2 - 1  # values that pixels have
    bits = diffusion.vb_terms(prediction, picture.expand_as(x_t), x_t, k)
    t = torch.tensor([step.t for step in seen])
    return Frames(t, x_t, prediction.x0, prediction.eps, fraction, bits, final[0].cpu())


def draw_panels(
    ax,  # matplotlib axes
    panels: list[tuple[Tensor, str, str, float, float]],  # (H, W) data, title, colour map, lowest, highest
) -> None:
    "Pictures in a row; under those in colour a strip says what the colours mean."
    ax.set(xlim=(0, 1.12 * len(panels) - 0.12), ylim=(-0.2, 1.15), aspect="equal")
    ax.axis("off")
    for i, (data, title, cmap, low, high) in enumerate(panels):
        left, colours = 1.12 * i, {"cmap": cmap, "vmin": low, "vmax": high}
        ax.imshow(data, extent=(left, left + 1, 0, 1), **colours)
        ax.text(left + 0.5, 1.03, title, ha="center", fontsize=10)
        if cmap == "gray":
            continue
        ramp = torch.linspace(low, high, 64)[None]
        ax.imshow(ramp, extent=(left + 0.15, left + 0.85, -0.1, -0.05), **colours)
        for x, value, side in ((left + 0.13, low, "right"), (left + 0.87, high, "left")):
            ax.text(x, -0.075, f"{value:g}", ha=side, va="center", fontsize=9)


def plot_theatre(
    frames: Frames,
    through: int,  # per cent of the run, 0 for the first step
    **_,  # what the run was made with
) -> Figure:
    "One moment of a run: four pictures, and the bound below."
    i = round(through / 100 * (len(frames.t) - 1))
    fig, axes = figure(2, 1, (9, 3.9), height_ratios=[2.6, 1])
    panels = [
        (frames.x_t[i, 0], f"$x_t$ at t = {frames.t[i]}", "gray", -1, 1),
        (frames.x0[i, 0], "predicted $x_0$", "gray", -1, 1),
        (frames.eps[i, 0], "predicted noise", "RdBu_r", -3, 3),
        (frames.fraction[i, 0], "variance: small to large", "viridis", 0, 1),
    ]
    draw_panels(axes[0, 0], panels)
    draw_bits(axes[1, 0], frames, i)
    fig.words = (
        f"Step {i + 1} of {len(frames.t)}, t = {frames.t[i]}: the noisy digit, the digit that the model predicts, the "
        f"noise, the variance of each pixel, and this step's term of the bound, {frames.bits[i]:.2g} bits per dimension."
    )
    return fig


def draw_bits(
    ax,  # matplotlib axes
    frames: Frames,
    i: int,  # the step that is marked
) -> None:
    "The bound, step by step; time runs to the right, from noise to image."
    total = float(frames.bits.sum())
    ax.plot(frames.t, frames.bits.clamp(1e-5), ".-", color=COLORS["x_t"], lw=1, ms=4)
    ax.plot(frames.t[i], frames.bits[i].clamp(1e-5), "o", color=COLORS["eps"], ms=9)
    ax.set(xlim=(1010, -10), ylim=(1e-5, 3), yscale="log", xlabel="timestep t", ylabel="bits / dim")
    ax.set(xticks=[999, 500, 0], yticks=[1e-4, 1e-2, 1])
    ax.minorticks_off()
    ax.set_title(
        f"surprise of this step: {frames.bits[i]:.2g} bits per dimension; of all steps: {total:.2f}",
        fontsize=10,
    )


def explore_denoising(
    model: DiT | None = None,  # the digit model of the package by default
    sampling: dict | None = None,  # of that model
) -> Explorer:
    "Watch a sample come about; change the class, the seed, the sampler, the guidance, the variance."
    if model is None:
        model, sampling = digit_model()
    names = sampling["class_names"]
    classes = [*((name, k) for k, name in enumerate(names)), ("no label", len(names))]
    return Explorer(
        plot_theatre,
        "the denoising theatre",
        [
            (
                "Scrub from 0 to 100 %.",
                "After a fifth of the steps the bet (predicted x₀) reads as a 3, blurred; its details change to the very end.",
            ),
            (
                "Stay at 60 % and set guidance to 0, then 1, then 6.",
                "Without the label the bet is another digit; at 6 it is driven to pure black and white.",
            ),
            (
                "At 100 %, take 10, 25 and 100 steps with ddpm, then with ddim.",
                "ddpm ends in a new digit each time; ddim, from the same start, in nearly the same one.",
            ),
        ],
        partial(record_run, model, sampling),
        digit=choice("class", classes, 3),
        seed=slider("seed", 0, 20, 0),
        steps=stops("steps", [10, 25, 50, 100, 250], 50),
        sampler=choice("sampler", ["ddpm", "ddim"], "ddpm"),
        guidance=stops("guidance", [0.0, 1.0, 1.5, 2.0, 4.0, 6.0], 1.5),
        variance=choice("variance", ["learned", "fixed_small", "fixed_large"], "learned"),
        through=slider("time, % of the run", 0, 100, 60, 2),
    )
