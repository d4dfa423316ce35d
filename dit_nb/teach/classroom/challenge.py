"""A challenge with a fixed budget: measure the digits of trained models, and keep a leaderboard."""

import argparse
import csv
import json
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from dit_nb.errors import UserError
from dit_nb.utils import _atomic_write

__all__ = []

_MAX_STEPS = 500  # updates in training
_MAX_PARAMETERS = 700_000  # trainable parameters


@dataclass(frozen=True)
class _Entry:
    """One line of the leaderboard."""

    name: str  # who made it
    distance: float  # Fréchet distance to the held-out digits, mean over the sample sets; smaller is better
    spread: float  # largest minus smallest distance of the sample sets
    recognized: float  # share of the samples that a classifier reads as the label that was asked for
    parameters: int  # trainable parameters
    steps: int  # updates in training, as the run reports them

    @property
    def within_budget(self) -> bool:
        """Whether it has a rank."""
        return self.steps <= _MAX_STEPS and self.parameters <= _MAX_PARAMETERS


def _measure(folder: str | Path, seed: int = 0, sets: int = 4, per_class: int = 100) -> _Entry:
    """Measure a run on the digits: load its model, sample several sets, compare each with held-out digits.

    Args:
        folder: what `dit-nb digits` wrote, with model/ and metrics.json; its name is that of the entry
        seed: seed of the first sample set
        sets: number of sample sets
        per_class: samples of each digit in a set

    Raises:
        FileNotFoundError: if there is no such run
        UserError: if its metrics cannot be read
    """
    from dit_nb.data import digits
    from dit_nb.evaluation import DigitClassifier
    from dit_nb.pretrained import load_model, sample_images

    folder = Path(folder)
    steps = _steps(folder / "metrics.json")
    model, sampling = load_model(folder / "model")
    split = digits()
    classifier, labels = DigitClassifier(split), torch.arange(10).repeat_interleave(per_class)
    distances, right = [], []
    for k in range(sets):
        images = sample_images(model, sampling, labels, seed=seed + k, progress=False).cpu()
        distances.append(classifier.distance(images, split.held_out))
        right.append(classifier.accuracy(images, labels))
    parameters = sum(p.numel() for p in model.parameters() if p.numel() and not _is_table(model, p))
    spread = max(distances) - min(distances)
    return _Entry(folder.resolve().name, sum(distances) / sets, spread, sum(right) / sets, parameters, steps)


def _is_table(model: torch.nn.Module, parameter: torch.Tensor) -> bool:
    """Whether it is the position table, which is not trained."""
    return parameter is getattr(model, "pos_embed", None)


def _steps(path: Path) -> int:
    """Read how many updates a run made."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: an entry is a folder that dit-nb digits wrote.")
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["steps"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read as metrics of a run ({type(error).__name__}).") from None


def _update_leaderboard(path: str | Path, entries: list[_Entry]) -> list[_Entry]:
    """Put entries into a leaderboard (CSV), the best first; return all of them.

    An entry replaces an older one of the same name; those over the budget come last, without a rank.
    """
    path = Path(path)
    known = {entry.name: entry for entry in [*_read(path), *entries]}
    ranked = sorted(known.values(), key=lambda entry: (not entry.within_budget, entry.distance))
    names = [field.name for field in fields(_Entry)]
    with _atomic_write(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["rank", *names])
        for rank, entry in enumerate(ranked, 1):
            row = [getattr(entry, name) for name in names]
            cells = [f"{x:.4f}" if isinstance(x, float) else x for x in row]
            table.writerow([rank if entry.within_budget else "over budget", *cells])
    return ranked


def _read(path: Path) -> list[_Entry]:
    if not path.exists():
        return []
    kinds: dict = {field.name: field.type for field in fields(_Entry)}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_Entry(**{n: kind(row[n]) for n, kind in kinds.items()}) for row in csv.DictReader(file)]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a leaderboard ({type(error).__name__}).") from None


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m dit_nb.teach.classroom.challenge")
    parser.add_argument("runs", nargs="+", help="folders of runs, one for each entry")
    parser.add_argument("--leaderboard", default="leaderboard.csv", help="file of the leaderboard")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first sample set")
    options = parser.parse_args()
    try:
        entries = [_measure(run, options.seed) for run in options.runs]
        ranked = _update_leaderboard(options.leaderboard, entries)
    except (UserError, FileNotFoundError) as error:
        raise SystemExit(f"challenge: {error}") from None
    for rank, entry in enumerate(ranked, 1):
        place = f"{rank}." if entry.within_budget else "over budget"
        print(
            f"{place:12}{entry.name:20}{entry.distance:8.3f} ± {entry.spread / 2:.3f}  {entry.parameters:,}"
        )
    print(f"leaderboard in {options.leaderboard}")


if __name__ == "__main__":
    _main()
