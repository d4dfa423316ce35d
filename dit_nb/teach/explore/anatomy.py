"""Explorers of lesson 23: attention maps, modulation, ablation and logit lens of the digit model."""

import copy
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from dit_nb.anatomy import _decode_tokens, ablate, modulation_map, record_activations
from dit_nb.blocks.adaln_zero import zero_
from dit_nb.config import SamplingConfig
from dit_nb.data import digits
from dit_nb.model import DiT
from dit_nb.objective import Diffusion
from dit_nb.pretrained import digit_model, make_diffusion, sample_images
from dit_nb.teach.explore.core import Explorer, _PatchGrid, choice, mistake, slider, stops
from dit_nb.visual import COLORS, figure, show_matrix

__all__ = ["explore_ablation", "explore_attention_maps", "explore_lens", "explore_modulation"]


class _Scene(NamedTuple):
    """A trained model of digits and its inputs."""

    model: DiT
    sampling: SamplingConfig
    diffusion: Diffusion
    images: Tensor  # (10, 1, 8, 8) one held-out digit of each class
    noise: Tensor  # (10, 1, 8, 8)

    def noised(self, t: int, digit: int) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs of a DiT: x_t (1, 1, 8, 8), t (1,), y (1,)."""
        x0, noise, device = self.images[digit, None], self.noise[digit, None], self.images.device
        times, labels = torch.tensor([t], device=device), torch.tensor([digit], device=device)
        return self.diffusion.q_sample(x0, times, noise), times, labels


def _make_scene(model: DiT | None = None, sampling: SamplingConfig | None = None) -> _Scene:
    model, sampling = (model, sampling) if model is not None else digit_model()
    held_out, device = digits().held_out, next(model.parameters()).device
    firsts = [int((held_out.labels == k).nonzero()[0]) for k in range(10)]
    noise = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images = held_out.images[firsts]
    return _Scene(model, sampling, make_diffusion(sampling).to(device), images.to(device), noise.to(device))


def _tile(images: Tensor, gap: int = 1) -> np.ndarray:
    """Images (rows, columns, H, W) side by side as one, with NaN in the gaps."""
    padded = pad(images.detach().cpu().double(), (0, gap, 0, gap), value=torch.nan)
    joined = rearrange(padded, "r c h w -> (r h) (c w)")
    return joined[: joined.shape[0] - gap, : joined.shape[1] - gap].numpy()


def _frame(ax, left: float, top: float, width: float, height: float, color: str) -> None:
    ax.add_patch(Rectangle((left - 0.5, top - 0.5), width, height, fill=False, ec=color, lw=2.5))


class _AttentionMaps(NamedTuple):
    """A noised digit, and the attention weights of all heads."""

    x_t: Tensor  # (8, 8)
    weights: Tensor  # (depth, h, T, T)


def _plot_attention_maps(
    maps: _AttentionMaps, patch: int, head: tuple[int, int], column: bool = False, **_
) -> Figure:
    """Show the noised digit, the attention weights of one query in one head, and the same for all heads."""
    weights = maps.weights[..., patch] if column else maps.weights[..., patch, :]  # (depth, h, T)
    side = int(weights.shape[-1] ** 0.5)
    p, position, total = maps.x_t.shape[-1] // side, divmod(patch, side), float(weights[head].sum())
    weights = weights.unflatten(-1, (side, side))
    fig, axes = figure(1, 3, (9, 2.9), width_ratios=[1, 1, 1.7])
    axes[0, 0].imshow(maps.x_t, cmap="gray", vmin=-1, vmax=1)
    axes[0, 0].set_title(f"patch {patch} of the noised digit", fontsize=10)
    options = {"aspect": "equal", "vmin": 0, "vmax": 0.5, "colorbar": None}
    title = f"attended by (sum {total:.2f})" if column else f"attends to (sum {total:.2f})"
    show_matrix(axes[0, 1], weights[head], title, **options)
    axes[0, 1].title.set_color(COLORS["wrong"] if column else "black")
    every = _tile(weights.transpose(0, 1))
    artist = show_matrix(axes[0, 2], every, "all heads, for the same patch", **options)
    bar = fig.colorbar(artist, ax=axes, label="attention weight", shrink=0.9)
    bar.set_ticks([0, 0.25, 0.5], labels=["0", "0.25", "0.5 or more"])
    for ax, size in ((axes[0, 0], p), (axes[0, 1], 1)):
        _frame(ax, position[1] * size, position[0] * size, size, size, COLORS["x_t"])
        ax.set(xticks=[], yticks=[])
    _frame(axes[0, 2], head[0] * (side + 1), head[1] * (side + 1), side, side, COLORS["gray"])
    depth, heads = weights.shape[:2]
    centers = [[n * (side + 1) + (side - 1) / 2 for n in range(count)] for count in (depth, heads)]
    axes[0, 2].set(xlabel="block", ylabel="head", xticks=centers[0], yticks=centers[1])
    axes[0, 2].set(xticklabels=range(depth), yticklabels=range(heads))
    axes[0, 2].tick_params(length=0)
    row, col = divmod(int(weights[head].argmax()), side)
    verb = "gets most attention from" if column else "attends most to"
    fig.alt_text = (
        f"Block {head[0]}, head {head[1]}: the patch in row {position[0]}, column {position[1]} {verb} row {row}, "
        f"column {col}, with weight {float(weights[head].max()):.2f}. Beside it the maps of all {depth * heads} heads."
    )
    return fig


def explore_attention_maps(
    model: DiT | None = None,
    sampling: SamplingConfig | None = None,
    record_activations: Callable = record_activations,
) -> Explorer:
    """Explore what every head attends to from a patch.

    Args:
        model: model of 8x8 digits; the package's by default
        sampling: sampling settings of that model
        record_activations: function that records attention; the library's by default
    """
    scene = _make_scene(model, sampling)
    depth, heads, side = scene.model.config.depth, scene.model.config.num_heads, scene.model.config.grid[0]
    grid = _PatchGrid("query patch", side, side, 5)

    def prepare(t: int, digit: int) -> _AttentionMaps:
        x_t, *condition = scene.noised(t, digit)
        attention = record_activations(scene.model, x_t, *condition).attention
        return _AttentionMaps(x_t[0, 0].cpu(), attention[:, 0].cpu())

    def plot(maps: _AttentionMaps, **values) -> Figure:
        grays = avg_pool2d(maps.x_t[None], len(maps.x_t) // side).clamp(-1, 1) / 2 + 0.5
        grid.paint(grays.flatten().tolist())
        return _plot_attention_maps(maps, **values)

    pairs = [(f"block {b}, head {h}", (b, h)) for b in range(depth) for h in range(heads)]
    return Explorer(
        plot,
        "what the heads attend to",
        """
        1. *Click patches, and step through block 0 head 2, block 1 head 0, block 2 head 3, block 3 head 3.*
           They attend to the right, left, lower and upper neighbor, whatever is there: from nearly every
           patch that has such a neighbor.
        2. *Set t to 999.* x_t is pure noise, and most heads spread their weight over all patches.
        3. *Back at the start, switch the mistake on.* Left and right are swapped: a column holds the weights
           that others give to this patch. It need not sum to 1.
        """,
        prepare,
        patch=grid,
        head=stops("head", pairs, (0, min(2, heads - 1))),
        t=slider("timestep t", 0, 999, 100),
        digit=choice("digit", list(range(10)), 3),
        column=mistake("read the column instead of the row"),
    )


class _ModulationMaps(NamedTuple):
    """Shift, scale or gate by depth, time and class."""

    maps: dict[str, Tensor]  # branch -> (K+1, depth, M, D), the null class last
    times: Tensor  # (M,)


def _plot_modulation(
    modulation: _ModulationMaps, quantity: str, branch: str, digit: int, signed: bool = False
) -> Figure:
    """Show the magnitude of a modulation in every block at every timestep, and the part that depends on the label."""
    own = modulation.maps[branch][digit]  # (depth, M, D)
    label = own - modulation.maps[branch][:-1].mean(dim=0)
    name = "no label" if digit < 0 else f"digit {digit}"
    titles = (f"{quantity} of the {branch}, {name}", "difference from the mean of all digits")
    limit = max(
        float(m.abs().mean(dim=-1).max()) for m in modulation.maps.values()
    )  # the same for all classes
    half, last = float(modulation.times[1]) / 2, float(modulation.times[-1])
    options = {"vmin": 0, "vmax": limit, "extent": (-half, last + half, len(own) - 0.5, -0.5)}
    fig, axes = figure(1, 2, (8.6, 2.9))
    for ax, values, title in zip(axes[0], (own, label), titles):
        size = (values if signed else values.abs()).mean(dim=-1)  # (depth, M)
        artist = show_matrix(ax, size, title, "timestep t", colorbar=None, **options)
        ax.set(xticks=[0, 500, 999], yticks=[])
        ax.title.set_color(COLORS["wrong"] if signed else "black")
    axes[0, 0].set(ylabel="block", yticks=range(len(own)))
    text = "mean: + and - cancel" if signed else "mean absolute value"
    fig.colorbar(artist, ax=axes, label=text, ticks=[0, round(limit - 0.005, 2)])
    size, difference = own.abs().mean(), label.abs().mean()
    fig.alt_text = (
        f"Depth by time, {titles[0]}: mean absolute value {size:.2f}; difference from the mean of all digits "
        f"{difference:.2f}."
    )
    return fig


def explore_modulation(model: DiT | None = None, modulation_map: Callable = modulation_map) -> Explorer:
    """Explore shift, scale and gate over depth and time, and the part that depends on the label.

    Args:
        model: model with classes and a null class; the package's digit model by default
        modulation_map: function (model, quantity, branch, t, y) -> (depth, N, D); the library's by default
    """
    model = digit_model()[0] if model is None else model
    times = torch.arange(0, 1000, 37, device=next(model.parameters()).device)  # 0 to 999

    def prepare(quantity: str) -> _ModulationMaps:
        def all_classes(branch):
            classes = [torch.full_like(times, k) for k in range(model.config.num_classes + 1)]
            return torch.stack([modulation_map(model, quantity, branch, times, y) for y in classes]).cpu()

        return _ModulationMaps({branch: all_classes(branch) for branch in ("attention", "mlp")}, times.cpu())

    return Explorer(
        _plot_modulation,
        "modulation by t and y",
        """
        1. *Read the left map from right to left.* The MLP's gates are at least twice as large at t = 0 as at
           t = 999.
        2. *Choose scale, and look at the last block.* It goes the other way: the MLP's input is scaled more
           at t = 600 than at t = 50.
        3. *Go through the digits and watch the right map.* Each has its own modulation: most of it below t =
           500, and less again at t = 0.
        """,
        prepare,
        quantity=choice("quantity", ["shift", "scale", "gate"], "gate"),
        branch=choice("branch", ["attention", "mlp"], "mlp"),
        digit=choice("digit", [*((str(k), k) for k in range(model.config.num_classes)), ("none", -1)], 1),
        signed=mistake("average signed values"),
    )


class _AblationResult(NamedTuple):
    """Samples and denoising errors of a model, and of the model with a branch scaled down."""

    full: Tensor  # (n, 1, 8, 8) samples of the full model
    ablated: Tensor  # (n, 1, 8, 8) samples of the ablated one
    error: float  # of the ablated model
    errors: list[float]  # of the full model, then of the model without each block


def _plot_ablation(
    result: _AblationResult, block: int, branch: str, keep: float, digit: int, reseed: bool = False
) -> Figure:
    """Show samples of the full model above those of the ablated one, and the error without each block."""
    change = float((result.ablated - result.full).abs().mean())
    fig, axes = figure(1, 2, (9, 2.6), width_ratios=[2, 1])
    rows = torch.stack([result.full, result.ablated])[:, :, 0]
    axes[0, 0].imshow(_tile(rows), cmap="gray", vmin=-1, vmax=1)
    title = f"below: block {block} times {keep:g}{', another seed' * reseed}. Mean pixel change {change:.2f}"
    axes[0, 0].set_title(title, fontsize=10, color=COLORS["wrong" if reseed else "gate"])
    axes[0, 0].set(xticks=[], yticks=[3.5, 12.5], yticklabels=["full", "ablated"])
    base, *removed = result.errors
    colors = [COLORS["gate" if k == block else "gray"] for k in range(len(removed))]
    axes[0, 1].bar(range(len(removed)), removed, color=colors, alpha=0.5)
    axes[0, 1].axhline(base, color="black", lw=1, ls="--")
    axes[0, 1].plot([block], [result.error], "o", color=COLORS["gate"])
    axes[0, 1].set(xlabel="block", ylabel="error of the noise", ylim=(0, 0.35), yticks=[0, 0.1, 0.2, 0.3])
    axes[0, 1].set_xticks(range(len(removed)))
    title = f"bars: without {'the block' if branch == 'all' else branch}; dot: yours"
    axes[0, 1].set_title(title, fontsize=10)
    fig.alt_text = (
        f"Samples of digit {digit}, full model and block {block} ({branch}) times {keep:g}: mean pixel change "
        f"{change:.2f}. Denoising error {result.error:.3f}, full model {base:.3f}."
    )
    return fig


@torch.no_grad()
def _denoising_error(scene: _Scene, repeats: int = 20) -> float:
    """Mean squared error of the predicted noise at `repeats` timesteps for each digit, with fixed noise."""
    device, n = scene.images.device, 10 * repeats
    x0, y = scene.images.repeat(repeats, 1, 1, 1), torch.arange(10, device=device).repeat(repeats)
    t = torch.linspace(0, 999, n, device=device).round().long()
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1)).to(device)
    eps = scene.model(scene.diffusion.q_sample(x0, t, noise), t, y)[:, :1]
    return float((eps - noise).square().mean())


def explore_ablation(
    model: DiT | None = None, sampling: SamplingConfig | None = None, ablate: Callable = ablate
) -> Explorer:
    """Explore what a model samples when a branch is scaled down or removed.

    Args:
        model: model of 8x8 digits; the package's by default
        sampling: sampling settings of that model
        ablate: context manager (model, block, branch, keep); the library's by default
    """
    scene = _make_scene(model, sampling)
    depth = scene.model.config.depth

    def error(block: int, branch: str, keep: float) -> float:
        with ablate(scene.model, block, branch, keep):
            return _denoising_error(scene)

    @cache
    def errors(branch: str) -> list[float]:
        return [_denoising_error(scene), *(error(k, branch, 0.0) for k in range(depth))]

    def sample(digit: int, seed: int, callback: Callable | None = None) -> Tensor:
        options = {"seed": seed, "progress": False, "callback": callback}
        return sample_images(scene.model, scene.sampling, torch.full((6,), digit), **options).cpu()

    sample_full = cache(sample)

    def prepare(block, branch, keep, digit, reseed, progress) -> _AblationResult:
        full = sample_full(digit, 0)
        with ablate(scene.model, block, branch, keep):
            ablated = sample(digit, int(reseed), lambda step: progress(step.i + 1, 50))
        return _AblationResult(full, ablated, error(block, branch, keep), errors(branch))

    return Explorer(
        _plot_ablation,
        "ablation of a branch",
        """
        1. *Go through the blocks.* Block 0 matters most. Without the MLP of block 4 or 5 the error rises, yet
           the digits stay.
        2. *Choose attention, and go through the blocks again.* No bar differs from the dashed line by more
           than 0.02: the error hardly rises.
        3. *Set gates x 1, then switch the mistake on.* Nothing was ablated, and the rows are equal; with
           another seed they differ all the same.
        """,
        prepare,
        block=slider("block", 0, depth - 1, 0),
        branch=choice("branch", ["attention", "mlp", ("both", "all")], "mlp"),
        keep=stops("gates x", [0.0, 0.25, 0.5, 0.75, 1.0], 0.0),
        digit=choice("digit", list(range(10)), 3),
        reseed=mistake("compare samples of different seeds"),
    )


class _LensResult(NamedTuple):
    """Predictions decoded after each block."""

    x_t: Tensor  # (1, 8, 8) input
    x0: Tensor  # (1, 8, 8) true image
    right: Tensor  # (depth+1, 1, 8, 8) predicted x0 in [-1, 1]
    wrong: Tensor  # (depth+1, 1, 8, 8) without the final layer's shift and scale
    errors: Tensor  # (2, depth+1) of the predicted noise: right, wrong


def _plot_lens(result: _LensResult, k: int, bare: bool = False, **_) -> Figure:
    """Show the predicted x0 after each block, its change, and the error of the predicted noise."""
    shown, errors = (result.wrong, result.errors[1]) if bare else (result.right, result.errors[0])
    color, n = COLORS["wrong" if bare else "x_t"], len(shown)
    of_noise = COLORS["wrong" if bare else "eps"]
    center = [9 * i + 3.5 for i in range(n + 2)]  # of each column, in pixels
    blank = torch.full_like(shown[:1], torch.nan)
    changes = torch.cat([blank, blank, shown.diff(dim=0), blank])
    fig, axes = figure(3, 1, (9, 3.9), height_ratios=[1, 1, 1.3])
    strip = torch.cat([result.x_t[None].clamp(-1, 1), shown, result.x0[None]])
    axes[0, 0].imshow(_tile(strip[None, :, 0]), cmap="gray", vmin=-1, vmax=1, aspect="auto")
    axes[1, 0].imshow(_tile(changes[None, :, 0]), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    _frame(axes[0, 0], 9 * (k + 1), 0, 8, 8, color)
    title = f"predicted x0 after {k} blocks{', final shift and scale left out' * bare}"
    axes[0, 0].set_title(f"{title}; error of the noise {errors[k]:.3f}", fontsize=10, color=color)
    axes[0, 0].set(xticks=[], yticks=[], ylabel="predicted")
    axes[1, 0].set(xticks=[], yticks=[], ylabel="change\nred: up")
    axes[2, 0].plot(center[1:-1], result.errors[0], color=COLORS["gray"], lw=1)
    axes[2, 0].plot(center[1:-1], errors, "o-", color=of_noise)
    axes[2, 0].plot(center[k + 1], errors[k], "o", color=of_noise, ms=11)
    axes[2, 0].set(
        ylabel="error of\nthe noise", yscale="log", ylim=(1e-5, 10), xlim=(-0.5, 9 * (n + 2) - 1.5)
    )
    axes[2, 0].set_yticks([1e-4, 1e-2, 1], ["0.0001", "0.01", "1"])
    axes[2, 0].minorticks_off()
    axes[2, 0].set_xticks(center, ["noised", *range(n), "true"])
    axes[2, 0].set_xlabel("blocks passed")
    last = f"after all blocks {errors[-1]:.3f}"
    fig.alt_text = f"After {k} of {n - 1} blocks the predicted noise has an error of {errors[k]:.3f}; {last}."
    return fig


def explore_lens(
    model: DiT | None = None,
    sampling: SamplingConfig | None = None,
    _decode_tokens: Callable = _decode_tokens,
) -> Explorer:
    """Explore what a model would predict after k blocks: the logit lens.

    Args:
        model: model of 8x8 digits; the package's by default
        sampling: sampling settings of that model
        decode_tokens: function (model, tokens, c) -> output; the library's by default
    """
    scene = _make_scene(model, sampling)
    bare = copy.deepcopy(scene.model)
    zero_(bare.final_layer.adaLN_modulation[-1])  # no shift and no scale

    @torch.no_grad()
    def prepare(t: int, digit: int) -> _LensResult:
        x_t, times, labels = scene.noised(t, digit)
        inside, x0s, errors = record_activations(scene.model, x_t, times, labels), [], []
        for decoder in (scene.model, bare):
            eps = torch.cat([_decode_tokens(decoder, tokens, inside.c)[:, :1] for tokens in inside.stream])
            n = len(eps)
            x0 = scene.diffusion.eps_to_x0(x_t.expand(n, -1, -1, -1), times.expand(n), eps)
            x0s.append(x0.clamp(-1, 1).cpu())
            errors.append((eps - scene.noise[digit]).square().mean(dim=(1, 2, 3)).cpu())
        return _LensResult(x_t[0].cpu(), scene.images[digit].cpu(), *x0s, torch.stack(errors))

    return Explorer(
        _plot_lens,
        "predictions after each block",
        """
        1. *Move k from 0 to 6.* The 3 emerges from noise. The error falls with every block.
        2. *Set t to 700.* Blocks 1 to 3 change little. The last two matter most: the error falls a
           hundredfold.
        3. *Switch the mistake on.* The curve ends higher: after 6 blocks it is no longer the model's output.
        """,
        prepare,
        t=slider("timestep t", 0, 999, 300),
        digit=choice("digit", list(range(10)), 3),
        k=slider("blocks passed, k", 0, scene.model.config.depth, 3),
        bare=mistake("leave out the final layer's shift and scale"),
    )
