"""Time the callbacks of every explorer: python tools/time_explorers.py

Each control is set to some of its values, with the others at their defaults. The limit is 200 ms.
"""

from collections.abc import Iterator
from statistics import median

from dit_nb.teach.explore.core import Explorer, _all_explorers, _some_values

LIMIT = 0.2  # seconds


def seconds_by_setting(explorer: Explorer) -> dict[tuple, float]:
    """Map (control, value) to the seconds of its callback."""
    counts_prepare = explorer.prepare and "progress" not in explorer._prepare_args
    seconds = {}
    for name, control in explorer.controls.items():
        for value in _some_values(control):
            explorer.set(**{name: value})
            waited = explorer.prepare_seconds if counts_prepare else 0.0
            seconds[name, value] = waited + min(seconds_to_draw(explorer) for _ in range(3))
        explorer.reset()
    return seconds


def seconds_to_draw(explorer: Explorer) -> float:
    """Seconds of one redraw."""
    explorer._update()
    return explorer.seconds


def table() -> Iterator[str]:
    """The table, line by line: number of settings and callback times of each explorer."""
    yield f"{'explorer':<26}{'settings':>9}{'median ms':>11}{'worst ms':>10}  at"
    for name, make in _all_explorers().items():
        seconds = seconds_by_setting(make())
        slowest = max(seconds, key=seconds.get)
        over = "  OVER 200 ms" if seconds[slowest] > LIMIT else ""
        middle, worst = 1000 * median(seconds.values()), 1000 * seconds[slowest]
        yield f"{name:<26}{len(seconds):>9}{middle:>11.0f}{worst:>10.0f}  {slowest[0]} = {slowest[1]}{over}"


if __name__ == "__main__":
    for line in table():
        print(line, flush=True)
