"""Explorer of the guide Checkpoints and many processes: which rank takes which images, with which timesteps."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dit_nb.batches import Batches
from dit_nb.step_noise import sample_step_noise
from dit_nb.teach.explore.core import Explorer, choice, mistake, slider
from dit_nb.visual import COLORS, figure

__all__ = ["explore_ranks"]

_SHADES = ("#333333", "#777777", "#A6A6A6", "#CCCCCC") * 2  # of ranks: neighbors differ
_IMAGES = 16  # in a batch over all processes


def _timesteps(seed: int, step: int) -> list[int]:
    """The timesteps of all images of a batch."""
    return sample_step_noise(seed, step, (_IMAGES, 1, 8, 8), 1000, 0.1).t.tolist()


def _draw_rank(ax: Axes, rank: int, world_size: int, micro_batches: int, step: int, wrong: bool) -> int:
    """Draw the pairs of image and timestep of one rank, and count those that a single process has too."""
    single, own = _timesteps(0, step), _timesteps(rank if wrong else 0, step)
    batches = Batches(1437, _IMAGES, 0, step, rank, world_size)
    rows = range(_IMAGES)[batches.rank_slice]
    for i, image in zip(rows, next(iter(batches))):
        color = _SHADES[rank] if own[i] == single[i] else COLORS["wrong"]
        ax.add_patch(Rectangle((i, rank), 0.94, 0.9, color=color, alpha=0.35))
        ax.text(i + 0.47, rank + 0.45, f"{image}\nt {own[i]}", ha="center", va="center", fontsize=8)
    cuts = rows[:: len(rows) // micro_batches][1:]
    ax.vlines([cut - 0.03 for cut in cuts], rank, rank + 0.9, color="black", ls=":")
    return sum(own[i] == single[i] for i in rows)


def _plot_ranks(world_size: int, micro_batches: int, step: int, wrong: bool = False) -> Figure:
    """Show images and timesteps of a batch of 16 by rank, and whether a single process would use the same."""
    fig, axes = figure(1, 1, (9, 0.4 * world_size + 1))
    ax, ranks = axes[0, 0], range(world_size)
    same = sum(_draw_rank(ax, rank, world_size, micro_batches, step, wrong) for rank in ranks)
    ax.set(xlim=(0, _IMAGES), ylim=(world_size, 0), xticks=[])
    ax.set_yticks([rank + 0.45 for rank in ranks], [f"rank {rank}" for rank in ranks])
    ax.set_xlabel("position in the batch: index of the image, and its timestep")
    title = f"update {step}: {same} of {_IMAGES} pairs equal those of a single process"
    ax.set_title(title, fontsize=11, color=COLORS["wrong"] if wrong else "black")
    parts = "1 micro-batch" if micro_batches == 1 else f"{micro_batches} micro-batches"
    fig.alt_text = f"{world_size} ranks in rows, {parts} each, {title}."
    return fig


def explore_ranks() -> Explorer:
    """Explore how the images and the noise of a batch are split among processes."""
    return Explorer(
        _plot_ranks,
        "which rank takes which images, with which timesteps",
        """
        1. *Go from 1 process to 2, 4 and 8.* The rows change; image and timestep at each position do not.
        2. *Choose 2 processes and 2 micro-batches.* Dotted lines: each process splits its part.
        3. *Switch the mistake on.* Only rank 0 keeps the noise of a single process: results depend on the machine.
        """,
        world_size=choice("processes", [1, 2, 4, 8], 4),
        micro_batches=choice("micro-batches", [1, 2], 1),
        step=slider("update", 0, 20, 0),
        wrong=mistake("each process seeds with its rank"),
    )
