"""The denoising viewer: one sample at every step, with the model's predictions."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dit_nb.config import SamplingConfig
from dit_nb.guidance import Guided
from dit_nb.model import DiT
from dit_nb.objective import Diffusion
from dit_nb.pretrained import digit_model, make_diffusion
from dit_nb.sampling import Step, ddim_step, ddpm_step, sample_loop
from dit_nb.schedule import extract
from dit_nb.teach.explore.core import Explorer, choice, slider, stops
from dit_nb.utils import seeded_generator
from dit_nb.visual import COLORS, _to_pixels, figure

__all__ = ["explore_denoising", "plot_denoising"]


class _DenoisingRun(NamedTuple):
    """A sampling run of one image, S steps."""

    t: Tensor  # (S,) timesteps of the full process, from noise to image
    x_t: Tensor  # (S, C, H, W), C is 1 or 3
    x0: Tensor  # (S, C, H, W) predicted
    eps: Tensor  # (S, C, H, W) predicted
    fraction: Tensor  # (S, C, H, W) log variance, from the posterior variance (0) to beta (1)
    bits: Tensor  # (S,) terms of the bound, bits per dimension
    final: Tensor  # (C, H, W)


def _record_run(
    model: DiT,
    sampling: SamplingConfig,
    digit: int,
    seed: int,
    steps: int,
    sampler: str,
    guidance: float,
    variance: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> _DenoisingRun:
    """Sample one image and record every step."""
    recorded: list[Step] = []

    def record(step: Step) -> None:
        recorded.append(step)
        progress(step.i + 1, steps)

    diffusion = make_diffusion(replace(sampling, variance=variance)).respaced(str(steps))
    final = sample_loop(
        {"ddpm": ddpm_step, "ddim": ddim_step}[sampler],
        diffusion,
        Guided(model, guidance) if guidance != 1 else model,
        (1, *model.config.image_shape),
        torch.tensor([digit]),
        generator=[seeded_generator(seed, 2, 0)],  # as `sample_images`
        clip_x0=sampling.clip_x0,
        callback=record,
        progress=False,
    )
    return _stack(recorded, final, diffusion)


def _stack(steps: list[Step], final: Tensor, diffusion: Diffusion) -> _DenoisingRun:
    """Steps as rows of one batch, with their terms of the bound; `diffusion` is respaced."""
    k = torch.arange(len(steps) - 1, -1, -1)  # steps of the respaced process
    x_t = torch.cat([step.x_t for step in steps]).cpu()
    columns = zip(*(step.prediction for step in steps))
    prediction = type(steps[0].prediction)(*(torch.cat(column).cpu() for column in columns))
    low = extract(diffusion.posterior_log_variance_clipped, k, x_t)
    high = extract(diffusion.log_betas, k, x_t)
    fraction = (prediction.log_variance - low) / (high - low)
    top = diffusion.bins - 1
    image = ((final.cpu().clamp(-1, 1) + 1) / 2 * top).round() / top * 2 - 1  # values that pixels can have
    bits = diffusion.vb_terms(prediction, image.expand_as(x_t), x_t, k)
    t = torch.tensor([step.t for step in steps])
    return _DenoisingRun(t, x_t, prediction.x0, prediction.eps, fraction, bits, final[0].cpu())


def _picture(image: Tensor):
    """What matplotlib shows of an image (C, H, W): gray values (H, W), or colors (H, W, 3) in [0, 1]."""
    return image[0] if len(image) == 1 else _to_pixels(image)


def _draw_panels(ax, panels: list[tuple]) -> None:
    """Images (data, title, color map, lowest, highest) in a row on one pair of axes, which is drawn faster.

    Those in color have a color bar below.
    """
    ax.set(xlim=(0, 1.12 * len(panels) - 0.12), ylim=(-0.2, 1.15), aspect="equal")
    ax.axis("off")
    for i, (data, title, cmap, low, high) in enumerate(panels):
        left, colors = 1.12 * i, {"cmap": cmap, "vmin": low, "vmax": high}
        ax.imshow(data, extent=(left, left + 1, 0, 1), **colors)
        ax.text(left + 0.5, 1.03, title, ha="center", fontsize=10)
        if cmap == "gray":
            continue
        ramp = torch.linspace(low, high, 64)[None]
        ax.imshow(ramp, extent=(left + 0.15, left + 0.85, -0.1, -0.05), **colors)
        for x, value, side in ((left + 0.13, low, "right"), (left + 0.87, high, "left")):
            ax.text(x, -0.075, f"{value:g}", ha=side, va="center", fontsize=9)


def plot_denoising(run: _DenoisingRun, percent: int, **_) -> Figure:
    """Show one step of a run: x_t, predicted x0, predicted noise, variance; and the bound of all steps.

    Of an image in color, noise and variance are shown as their mean over the three channels.

    Args:
        run: recorded run
        percent: position in the run, 0 for the first step, 100 for the last
        **_: other controls, not used
    """
    i = round(percent / 100 * (len(run.t) - 1))
    fig, axes = figure(2, 1, (9, 3.9), height_ratios=[2.6, 1])
    panels = [
        (_picture(run.x_t[i]), f"$x_t$ at t = {run.t[i]}", "gray", -1, 1),
        (_picture(run.x0[i]), "predicted $x_0$", "gray", -1, 1),
        (run.eps[i].mean(0), "predicted noise", "RdBu_r", -3, 3),
        (run.fraction[i].mean(0), "variance: small to large", "Greys", 0, 1),
    ]
    _draw_panels(axes[0, 0], panels)
    _draw_bits(axes[1, 0], run, i)
    fig.alt_text = (
        f"Step {i + 1} of {len(run.t)}, t = {run.t[i]}: the noisy image, the predicted image, the predicted noise, "
        f"the variance of each pixel, and this step's term of the bound, {run.bits[i]:.2g} bits per dimension."
    )
    return fig


def _draw_bits(ax, run: _DenoisingRun, i: int) -> None:
    """The terms of the bound, from noise (left) to image, with step i highlighted."""
    ax.plot(run.t, run.bits.clamp(1e-5), ".-", color=COLORS["gray"], lw=1, ms=4)
    ax.plot(run.t[i], run.bits[i].clamp(1e-5), "o", color=COLORS["x_t"], ms=9)
    ax.set(xlim=(1010, -10), ylim=(1e-5, 3), yscale="log", xlabel="timestep t", ylabel="bits / dim")
    ax.set(xticks=[999, 500, 0], yticks=[1e-4, 1e-2, 1])
    ax.minorticks_off()
    one, total = f"{run.bits[i]:.2g}", f"{float(run.bits.sum()):.2f}"
    ax.set_title(f"bound: this step {one} bits per dimension, all steps {total}", fontsize=10)


def explore_denoising(model: DiT | None = None, sampling: SamplingConfig | None = None) -> Explorer:
    """Watch one sample at every step; change class, seed, sampler, guidance and variance.

    Args:
        model: class-conditional model of images with one channel or three; the package's digit model by default
        sampling: sampling settings of that model, with `class_names`
    """
    if model is None:
        model, sampling = digit_model()
    names = sampling.class_names
    classes = [*((name, k) for k, name in enumerate(names)), ("no label", len(names))]
    return Explorer(
        plot_denoising,
        "the denoising viewer",
        """
        1. *Move the position from 0 to 100 %.* After a fifth of the steps the predicted x₀ is a blurred 3;
           its details change to the very end.
        2. *Stay at 60 % and set guidance to 0, then 1, then 6.* Without the label the predicted x₀ is another
           digit; at 6 it saturates to black and white.
        3. *At 100 %, take 10, 25 and 100 steps with ddpm, then with ddim.* ddpm ends in a new digit each
           time; ddim, from the same start, in nearly the same one.
        """,
        partial(_record_run, model, sampling),
        digit=choice("class", classes, 3),
        seed=slider("seed", 0, 20, 0),
        steps=stops("steps", [10, 25, 50, 100, 250], 50),
        sampler=choice("sampler", ["ddpm", "ddim"], "ddpm"),
        guidance=stops("guidance", [0.0, 1.0, 1.5, 2.0, 4.0, 6.0], 1.5),
        variance=choice("variance", ["learned", "fixed_small", "fixed_large"], "learned"),
        percent=slider("position in the run, %", 0, 100, 60, 2),
    )
