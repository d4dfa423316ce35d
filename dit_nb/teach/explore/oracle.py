"""Explorer of lesson 02: a noisy digit, the ideal denoiser's prediction, and the posterior of its class."""

from functools import partial
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dit_nb.data import ImageSet, digits
from dit_nb.objective import Diffusion
from dit_nb.oracle import IdealDenoiser
from dit_nb.teach.explore.core import Explorer, mistake, slider
from dit_nb.utils import randn
from dit_nb.visual import COLORS, figure, show_image

__all__ = ["explore_ideal_denoiser"]


class _State(NamedTuple):
    """All images, one of each class, and the ideal denoiser of all."""

    data: ImageSet
    examples: Tensor  # (10, 1, 8, 8), the first image of each digit
    diffusion: Diffusion
    ideal: IdealDenoiser


def _make_state() -> _State:
    data, diffusion = digits().train, Diffusion()
    firsts = [int((data.labels == k).nonzero()[0]) for k in range(10)]
    return _State(data, data.images[firsts], diffusion, IdealDenoiser(data, diffusion.alphas_cumprod))


def _mix(state: _State, digit: int, t: int, seed: int, no_roots: bool) -> Tensor:
    """Mix a digit with noise, (1, 1, 8, 8), with or without the square roots of the coefficients."""
    clean = state.examples[digit : digit + 1]
    noise = randn(clean.shape, torch.Generator().manual_seed(seed))
    bar = float(state.diffusion.alphas_cumprod[t])
    if no_roots:
        return bar * clean + (1 - bar) * noise
    return state.diffusion.q_sample(clean, torch.tensor([t]), noise)


def _class_posterior(state: _State, noisy: Tensor, t: int) -> list[float]:
    """Probability of each of the ten digits, given the noisy image."""
    weights = state.ideal.posterior(noisy, torch.tensor([t]))[0]  # (1437,)
    return [float(weights[state.data.labels == k].sum()) for k in range(10)]


def _plot_ideal_denoiser(state: _State, digit: int, t: int, seed: int, wrong: bool) -> Figure:
    """Show x_t, the predicted x_0, and the posterior of the class as bars."""
    noisy = _mix(state, digit, t, seed, wrong)
    predicted = state.ideal.expected_x0(noisy, torch.tensor([t]))
    posterior = _class_posterior(state, noisy, t)
    fig, (axes,) = figure(1, 4, (9, 2.6), width_ratios=[1, 1, 1, 1.9])
    rms = float(noisy.square().mean().sqrt())
    show_image(axes[0], state.examples[digit], "clean $x_0$")
    show_image(axes[1], noisy[0], f"$x_t$, t = {t}, RMS {rms:.2f}")
    axes[1].title.set_color(COLORS["wrong"] if wrong else "black")
    show_image(axes[2], predicted[0], "predicted $x_0$")
    bars = axes[3].bar(range(10), [100 * p for p in posterior], color=COLORS["gray"])
    bars[digit].set_color(COLORS["cond"])
    axes[3].set(xticks=range(10), ylim=(0, 100), yticks=[0, 50, 100], xlabel="digit", ylabel="%")
    axes[3].set_title(f"posterior: a {digit} with {100 * posterior[digit]:.0f} %", fontsize=10)
    fig.alt_text = (
        f"The digit {digit} clean and with the noise of t = {t}, the predicted x_0, and the posterior "
        f"probabilities of all digits: {100 * posterior[digit]:.0f} % for {digit}."
    )
    return fig


def explore_ideal_denoiser() -> Explorer:
    """Explore what may be behind a noisy digit, and the best prediction of it."""
    return Explorer(
        partial(_plot_ideal_denoiser, _make_state()),
        "the best prediction of a noisy digit",
        """
        1. *Move t from 999 down.* A mean of all digits turns into a blend of some, then into one digit.
        2. *Set noise to 10, then move it.* The digit and t stay, but the posterior changes a lot.
        3. *Set t = 400 and switch the mistake on.* Without the roots x_t is too small and holds less of the
           image: the 3 falls from 45 % to 24 %.
        """,
        t=slider("t", 0, 999, 300),
        digit=slider("digit", 0, 9, 3),
        seed=slider("noise", 0, 20, 0),
        wrong=mistake("coefficients without square roots"),
    )
