"""Four windows into the digit model: where its heads look, what its condition says, what breaks when a part falls silent, and how an answer comes up through the blocks."""

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

from dit_nb.anatomy import ablate, decode, modulation_map, record
from dit_nb.data import digits
from dit_nb.model import DiT
from dit_nb.objective import Diffusion
from dit_nb.pretrained import digit_model, make_diffusion, sample_images
from dit_nb.teach.explore.core import Explorer, PatchGrid, choice, mistake, slider, stops
from dit_nb.visual import COLORS, figure, show_matrix


class Scene(NamedTuple):
    "A trained model of digits, and what it is shown."

    model: DiT
    sampling: dict  # see `dit_nb.pretrained.SAMPLING`
    diffusion: Diffusion
    images: Tensor  # (10, 1, 8, 8) one held-out digit of each class
    noise: Tensor  # (10, 1, 8, 8)

    def noised(self, t: int, digit: int) -> tuple[Tensor, Tensor, Tensor]:
        "What a DiT is called with: x_t (1, 1, 8, 8), t (1,), y (1,)."
        x0, noise, device = self.images[digit, None], self.noise[digit, None], self.images.device
        times, labels = torch.tensor([t], device=device), torch.tensor([digit], device=device)
        return self.diffusion.q_sample(x0, times, noise), times, labels


def make_scene(
    model: DiT | None = None,  # of 8x8 digits; the one of the package if not given
    sampling: dict | None = None,  # how it was trained
) -> Scene:
    "The package's digit model, or yours."
    model, sampling = (model, sampling) if model is not None else digit_model()
    held_out, device = digits().held_out, next(model.parameters()).device
    firsts = [int((held_out.labels == k).nonzero()[0]) for k in range(10)]
    noise = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images = held_out.images[firsts]
    return Scene(model, sampling, make_diffusion(sampling).to(device), images.to(device), noise.to(device))


def sheet(
    images: Tensor,  # (rows, columns, H, W)
    gap: int = 1,  # empty pixels between them
) -> np.ndarray:  # (rows * (H + gap) - gap, columns * (W + gap) - gap), NaN in the gaps
    "Small pictures side by side, as one."
    padded = pad(images.detach().cpu().double(), (0, gap, 0, gap), value=torch.nan)
    joined = rearrange(padded, "r c h w -> (r h) (c w)")
    return joined[: joined.shape[0] - gap, : joined.shape[1] - gap].numpy()


def frame(ax, left: float, top: float, width: float, height: float, color: str) -> None:
    "A frame around some pixels."
    ax.add_patch(Rectangle((left - 0.5, top - 0.5), width, height, fill=False, ec=color, lw=2.5))


class Look(NamedTuple):
    "One noised digit, and how all heads look at it."

    x_t: Tensor  # (8, 8)
    maps: Tensor  # (depth, h, T, T)


def plot_attention_maps(
    look: Look,
    patch: int,  # the one that looks
    head: tuple[int, int],  # block and head
    column: bool = False,  # the mistake: read who looks at the patch instead
    **_,  # t and digit are in `look` already
) -> Figure:
    "The noised digit, what one head looks at from one patch, and the same for all heads."
    maps = look.maps[..., patch] if column else look.maps[..., patch, :]  # (depth, h, T)
    side = int(maps.shape[-1] ** 0.5)
    p, place, total = look.x_t.shape[-1] // side, divmod(patch, side), float(maps[head].sum())
    maps = maps.unflatten(-1, (side, side))
    fig, axes = figure(1, 3, (9, 2.9), width_ratios=[1, 1, 1.7])
    axes[0, 0].imshow(look.x_t, cmap="gray", vmin=-1, vmax=1)
    axes[0, 0].set_title(f"patch {patch} of the noised digit", fontsize=10)
    weights = {"aspect": "equal", "vmin": 0, "vmax": 0.5, "cmap": "magma", "colorbar": None}
    title = f"looked at by (sum {total:.2f})" if column else f"looks at (sum {total:.2f})"
    show_matrix(axes[0, 1], maps[head], title, **weights)
    axes[0, 1].title.set_color(COLORS["wrong" if column else "x_t"])
    artist = show_matrix(axes[0, 2], sheet(maps.transpose(0, 1)), "all heads, for the same patch", **weights)
    bar = fig.colorbar(artist, ax=axes, label="attention weight", shrink=0.9)
    bar.set_ticks([0, 0.25, 0.5], labels=["0", "0.25", "0.5 or more"])
    for ax, size in ((axes[0, 0], p), (axes[0, 1], 1)):
        frame(ax, place[1] * size, place[0] * size, size, size, COLORS["x_t"])
        ax.set(xticks=[], yticks=[])
    frame(axes[0, 2], head[0] * (side + 1), head[1] * (side + 1), side, side, COLORS["cond"])
    depth, heads = maps.shape[:2]
    axes[0, 2].set(xlabel=f"block 0 to {depth - 1}", ylabel=f"head {heads - 1} to 0", xticks=[], yticks=[])
    row, col = divmod(int(maps[head].argmax()), side)
    fig.words = (
        f"Block {head[0]}, head {head[1]}: the patch in row {place[0]}, column {place[1]} "
        f"{'is looked at most by' if column else 'looks most at'} row {row}, column {col}, "
        f"with weight {float(maps[head].max()):.2f}. Beside it the maps of all {depth * heads} heads."
    )
    return fig


def explore_attention_maps(
    model: DiT | None = None,  # of 8x8 digits; the one of the package if not given
    sampling: dict | None = None,  # how it was trained
    record: Callable = record,  # or your own
) -> Explorer:
    "Click a patch, and see where every head of the model looks."
    scene = make_scene(model, sampling)
    depth, heads, side = scene.model.config.depth, scene.model.config.num_heads, scene.model.config.grid[0]
    grid = PatchGrid("the patch that looks", side, side, 5)

    def prepare(t: int, digit: int) -> Look:
        x_t, *condition = scene.noised(t, digit)
        return Look(x_t[0, 0].cpu(), record(scene.model, x_t, *condition).attention[:, 0].cpu())

    def plot(look: Look, **values) -> Figure:
        shades = avg_pool2d(look.x_t[None], len(look.x_t) // side).clamp(-1, 1) / 2 + 0.5
        grid.paint(shades.flatten().tolist())
        return plot_attention_maps(look, **values)

    pairs = [(f"block {b}, head {h}", (b, h)) for b in range(depth) for h in range(heads)]
    return Explorer(
        plot,
        "where the heads look",
        [
            (
                "Click patches, and step through block 0 head 2, block 1 head 0, block 2 head 3, block 3 head 3.",
                "They look right, left, down and up, whatever is there: from nearly every patch that has such a neighbour.",
            ),
            (
                "Set t to 999.",
                "Nothing can be seen in x_t, and most heads spread their weight over all patches.",
            ),
            (
                "Back at the start, switch the mistake on.",
                "Left and right are swapped: a column tells who looks here. It need not sum to 1.",
            ),
        ],
        prepare,
        patch=grid,
        head=stops("looks with", pairs, (0, min(2, heads - 1))),
        t=slider("timestep t", 0, 999, 100),
        digit=choice("digit", list(range(10)), 3),
        column=mistake("read the column instead of the row"),
    )


class Said(NamedTuple):
    "One quantity over depth and time, by class."

    maps: dict[str, Tensor]  # branch -> (K+1, depth, M, D), the null class last
    times: Tensor  # (M,)


def plot_modulation(
    said: Said,
    quantity: str,  # shift, scale, gate
    branch: str,  # attention, mlp
    digit: int,  # -1 is the null class
    signs: bool = False,  # the mistake: signed numbers are averaged
) -> Figure:
    "How strong a modulation is in every block at every timestep, and how much of it is the label's."
    own = said.maps[branch][digit]  # (depth, M, D)
    label = own - said.maps[branch][:-1].mean(dim=0)
    name = "no label" if digit < 0 else f"digit {digit}"
    titles = (f"{quantity} of the {branch}, {name}", "its difference from the mean of all digits")
    limit = max(
        float(m.abs().mean(dim=-1).max()) for m in said.maps.values()
    )  # for all classes, both branches
    half, last = float(said.times[1]) / 2, float(said.times[-1])
    options = {"vmin": 0, "vmax": limit, "extent": (-half, last + half, len(own) - 0.5, -0.5)}
    fig, axes = figure(1, 2, (8.6, 2.9))
    for ax, values, title in zip(axes[0], (own, label), titles):
        strength = (values if signs else values.abs()).mean(dim=-1)  # (depth, M)
        artist = show_matrix(ax, strength, title, "timestep t", colorbar=None, **options)
        ax.set(xticks=[0, 500, 999], yticks=[])
        ax.title.set_color(COLORS["wrong"] if signs else "black")
    axes[0, 0].set(ylabel="block", yticks=range(len(own)))
    text = "mean: + and - cancel" if signs else "mean size over channels"
    fig.colorbar(artist, ax=axes, label=text, ticks=[0, round(limit - 0.005, 2)])
    size, share = own.abs().mean(), label.abs().mean()
    fig.words = f"Depth by time, {titles[0]}: mean size {size:.2f}; it differs from the mean of all digits by {share:.2f}."
    return fig


def explore_modulation(
    model: DiT | None = None,  # with classes and a null class; the one of the package if not given
    modulation_map: Callable = modulation_map,  # or your own
) -> Explorer:
    "Shift, scale and gate over depth and time, and the label's part in them."
    model = digit_model()[0] if model is None else model
    times = torch.arange(0, 1000, 37, device=next(model.parameters()).device)  # 0 to 999

    def prepare(quantity: str) -> Said:
        def whole(branch):
            classes = [torch.full_like(times, k) for k in range(model.config.num_classes + 1)]
            return torch.stack([modulation_map(model, quantity, branch, times, y) for y in classes]).cpu()

        return Said({branch: whole(branch) for branch in ("attention", "mlp")}, times.cpu())

    return Explorer(
        plot_modulation,
        "what t and y say to the blocks",
        [
            (
                "Read the left map from right to left.",
                "As the noise goes, the gates open: at t = 0 they are at least twice as wide as at t = 999.",
            ),
            (
                "Choose scale, and look at the last block.",
                "It goes the other way: the MLP's input is stretched more at t = 600 than at t = 50.",
            ),
            (
                "Go through the digits and watch the right map.",
                "Each says something of its own: most of it below t = 500, and less again at t = 0.",
            ),
        ],
        prepare,
        quantity=choice("quantity", ["shift", "scale", "gate"], "gate"),
        branch=choice("branch", ["attention", "mlp"], "mlp"),
        digit=choice("digit", [*((str(k), k) for k in range(model.config.num_classes)), ("none", -1)], 1),
        signs=mistake("average signed numbers"),
    )


class Silenced(NamedTuple):
    "What became of samples, and of the denoising error, when a branch was turned down."

    whole: Tensor  # (n, 1, 8, 8) samples of the whole model
    part: Tensor  # (n, 1, 8, 8) samples of the changed one
    error: float  # the changed model's
    errors: list[float]  # the whole model's, then for each block that of the model without it


def plot_ablation(
    silenced: Silenced,
    block: int,
    branch: str,  # attention, mlp, all
    keep: float,  # what the gates are multiplied by
    digit: int,
    reseed: bool = False,  # the mistake: samples of different seeds are compared
) -> Figure:
    "Samples of the whole model above those of the changed one, and what removing each block costs."
    change = float((silenced.part - silenced.whole).abs().mean())
    fig, axes = figure(1, 2, (9, 2.6), width_ratios=[2, 1])
    axes[0, 0].imshow(
        sheet(torch.stack([silenced.whole, silenced.part])[:, :, 0]), cmap="gray", vmin=-1, vmax=1
    )
    title = f"below: block {block} times {keep:g}{', another seed' * reseed}. Pixels change by {change:.2f}"
    axes[0, 0].set_title(title, fontsize=10, color=COLORS["wrong" if reseed else "gate"])
    axes[0, 0].set(xticks=[], yticks=[3.5, 12.5], yticklabels=["whole", "changed"])
    base, *removed = silenced.errors
    colors = [COLORS["gate" if k == block else "grey"] for k in range(len(removed))]
    axes[0, 1].bar(range(len(removed)), removed, color=colors, alpha=0.5)
    axes[0, 1].axhline(base, color="black", lw=1, ls="--")
    axes[0, 1].plot([block], [silenced.error], "o", color=COLORS["gate"])
    axes[0, 1].set(xlabel="block", ylabel="error of the noise", ylim=(0, 0.35), yticks=[0, 0.1, 0.2, 0.3])
    axes[0, 1].set_xticks(range(len(removed)))
    axes[0, 1].set_title(
        f"bars: without {'the block' if branch == 'all' else branch}; dot: yours", fontsize=10
    )
    fig.words = (
        f"Samples of digit {digit}, whole and with block {block} ({branch}) times {keep:g}: pixels change by "
        f"{change:.2f}. Denoising error {silenced.error:.3f}, whole model {base:.3f}."
    )
    return fig


@torch.no_grad()
def denoising_error(
    scene: Scene,
    repeats: int = 20,  # timesteps for each of the scene's ten digits
) -> float:
    "Mean squared error of the predicted noise, timesteps spread evenly; always the same noise."
    device, n = scene.images.device, 10 * repeats
    x0, y = scene.images.repeat(repeats, 1, 1, 1), torch.arange(10, device=device).repeat(repeats)
    t = torch.linspace(0, 999, n, device=device).round().long()
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1)).to(device)
    eps = scene.model(scene.diffusion.q_sample(x0, t, noise), t, y)[:, :1]
    return float((eps - noise).square().mean())


def explore_ablation(
    model: DiT | None = None,  # of 8x8 digits; the one of the package if not given
    sampling: dict | None = None,  # how it was trained
    ablate: Callable = ablate,  # or your own
) -> Explorer:
    "Turn a branch down, and see what the model draws without it."
    scene = make_scene(model, sampling)
    depth = scene.model.config.depth

    def error(block: int, branch: str, keep: float) -> float:
        with ablate(scene.model, block, branch, keep):
            return denoising_error(scene)

    @cache
    def errors(branch: str) -> list[float]:
        return [denoising_error(scene), *(error(k, branch, 0.0) for k in range(depth))]

    def draw(digit: int, seed: int, callback: Callable | None = None) -> Tensor:
        options = {"seed": seed, "progress": False, "callback": callback}
        return sample_images(scene.model, scene.sampling, torch.full((6,), digit), 6, **options).cpu()

    whole = cache(draw)

    def prepare(block, branch, keep, digit, reseed, progress) -> Silenced:
        start = whole(digit, 0)
        with ablate(scene.model, block, branch, keep):
            part = draw(digit, int(reseed), lambda step: progress(step.i + 1, 50))
        return Silenced(start, part, error(block, branch, keep), errors(branch))

    return Explorer(
        plot_ablation,
        "what breaks when a part falls silent",
        [
            (
                "Go through the blocks.",
                "None is missed like block 0. Without the MLP of block 4 or 5 the error rises, yet the digits stay.",
            ),
            (
                "Choose attention, and go through the blocks again.",
                "No bar leaves the dashed line by more than 0.02: the others make up for any one of them.",
            ),
            (
                "Set gates x 1, then switch the mistake on.",
                "Nothing was changed, and the rows are equal; with another seed they differ all the same.",
            ),
        ],
        prepare,
        block=slider("block", 0, depth - 1, 0),
        branch=choice("branch", ["attention", "mlp", ("both", "all")], "mlp"),
        keep=stops("gates x", [0.0, 0.25, 0.5, 0.75, 1.0], 0.0),
        digit=choice("digit", list(range(10)), 3),
        reseed=mistake("compare samples of different seeds"),
    )


class Answers(NamedTuple):
    "What a model would say after each block."

    x_t: Tensor  # (1, 8, 8) what it was shown
    x0: Tensor  # (1, 8, 8) the truth
    right: Tensor  # (depth+1, 1, 8, 8) predicted clean images in [-1, 1]
    wrong: Tensor  # (depth+1, 1, 8, 8) without the final layer's shift and scale
    errors: Tensor  # (2, depth+1) of the predicted noise: right, wrong


def plot_lens(
    answers: Answers,
    k: int,  # blocks passed
    bare: bool = False,  # the mistake: leave out the final layer's shift and scale
    **_,  # t and digit are in `answers` already
) -> Figure:
    "After each block: the predicted clean image, what the block changed in it, and the error of the noise."
    shown, errors = (answers.wrong, answers.errors[1]) if bare else (answers.right, answers.errors[0])
    color, n = COLORS["wrong" if bare else "x_t"], len(shown)
    centre = [9 * i + 3.5 for i in range(n + 2)]  # of each column, in pixels
    blank = torch.full_like(shown[:1], torch.nan)
    changes = torch.cat([blank, blank, shown.diff(dim=0), blank])
    fig, axes = figure(3, 1, (9, 3.9), height_ratios=[1, 1, 1.3])
    strip = torch.cat([answers.x_t[None].clamp(-1, 1), shown, answers.x0[None]])
    axes[0, 0].imshow(sheet(strip[None, :, 0]), cmap="gray", vmin=-1, vmax=1, aspect="auto")
    axes[1, 0].imshow(sheet(changes[None, :, 0]), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    frame(axes[0, 0], 9 * (k + 1), 0, 8, 8, color)
    title = f"clean image predicted after {k} blocks{', final shift and scale left out' * bare}"
    axes[0, 0].set_title(f"{title}: error {errors[k]:.3f}", fontsize=10, color=color)
    axes[0, 0].set(xticks=[], yticks=[], ylabel="predicted")
    axes[1, 0].set(xticks=[], yticks=[], ylabel="change\nred: up")
    axes[2, 0].plot(centre[1:-1], answers.errors[0], color=COLORS["grey"], lw=1)
    axes[2, 0].plot(centre[1:-1], errors, "o-", color=color)
    axes[2, 0].plot(centre[k + 1], errors[k], "o", color=color, ms=11)
    axes[2, 0].set(ylabel="error", yscale="log", ylim=(1e-5, 10), xlim=(-0.5, 9 * (n + 2) - 1.5))
    axes[2, 0].set_yticks([1e-4, 1e-2, 1], ["0.0001", "0.01", "1"])
    axes[2, 0].minorticks_off()
    axes[2, 0].set_xticks(centre, ["noised", *range(n), "truth"])
    axes[2, 0].set_xlabel("blocks passed")
    fig.words = f"After {k} of {n - 1} blocks the predicted noise has an error of {errors[k]:.3f}; at the end {errors[-1]:.3f}."
    return fig


def explore_lens(
    model: DiT | None = None,  # of 8x8 digits; the one of the package if not given
    sampling: dict | None = None,  # how it was trained
    decode: Callable = decode,  # or your own
) -> Explorer:
    "What the model would answer if it stopped after k blocks."
    scene = make_scene(model, sampling)

    @torch.no_grad()
    def prepare(t: int, digit: int) -> Answers:
        x_t, times, labels = scene.noised(t, digit)
        inside, x0s, errors = record(scene.model, x_t, times, labels), [], []
        for cond in (inside.cond[-1], None):
            eps = torch.cat([decode(scene.model, tokens, cond)[:, :1] for tokens in inside.stream])
            n = len(eps)
            x0 = scene.diffusion.eps_to_x0(x_t.expand(n, -1, -1, -1), times.expand(n), eps)
            x0s.append(x0.clamp(-1, 1).cpu())
            errors.append((eps - scene.noise[digit]).square().mean(dim=(1, 2, 3)).cpu())
        return Answers(x_t[0].cpu(), scene.images[digit].cpu(), *x0s, torch.stack(errors))

    return Explorer(
        plot_lens,
        "the answer after each block",
        [
            ("Move k from 0 to 6.", "Out of noise comes the 3. The error falls with every block."),
            (
                "Set t to 700.",
                "Blocks 1 to 3 change little. The last two do the work: the error falls a hundredfold.",
            ),
            (
                "Switch the mistake on.",
                "The curve ends higher: what comes after 6 blocks is no longer the model's answer.",
            ),
        ],
        prepare,
        t=slider("timestep t", 0, 999, 300),
        digit=choice("digit", list(range(10)), 3),
        k=slider("blocks passed, k", 0, scene.model.config.depth, 3),
        bare=mistake("leave out the final layer's shift and scale"),
    )
