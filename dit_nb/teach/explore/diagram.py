"""Block diagrams of the lessons on DiT blocks."""

from matplotlib.patches import Circle, FancyBboxPatch

from dit_nb.visual import COLORS

__all__ = []


def _show_block(ax, steps: list[tuple], title: str = "") -> None:
    """Draw a block as boxes and arrows, from the bottom up."""
    black, below, fork = {"arrowstyle": "-|>", "color": "black", "shrinkA": 0, "shrinkB": 0}, 0, 0
    for y, (text, color, *side) in enumerate(steps):
        small = text in ("", "+", "x")
        half, tint = 0.12 if small else 0.3, COLORS["gate" if color == "gate" else "cond"]
        if y:
            ax.annotate("", (0, y - half), (0, y - 1 + below), arrowprops=black)
        for label in side:
            ax.text(1.75, y, label, va="center", color=tint, fontsize=9)
            ax.annotate("", (half if small else 1.2, y), (1.72, y), arrowprops=black | {"color": tint})
        if text == "+":
            ax.plot([0, -1.5, -1.5], [fork, fork, y], color="black", lw=1)
            ax.annotate("", (-half, y), (-1.5, y), arrowprops=black)
        fork, below = fork if text else y, half
        box = FancyBboxPatch((-1.15, y - 0.25), 2.3, 0.5, "round,pad=0.05")
        shape = ax.add_patch(Circle((0, y), half if text else 0.05) if small else box)
        shape.set(facecolor="white" if text else "black", edgecolor=COLORS[color], lw=2, zorder=3)
        ax.text(0, y - 0.02, text, ha="center", va="center", fontsize=10, zorder=4)
    top = max(len(steps) - 0.4, ax.get_ylim()[1])  # two diagrams may share their axis
    ax.set(xlim=(-1.8, 3.6), ylim=(-0.5, top), aspect="equal", title=title)
    ax.axis("off")
