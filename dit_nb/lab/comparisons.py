"""Comparisons of the studies' variants, question by question, as lesson 22 draws them."""

from itertools import combinations
from typing import NamedTuple

import numpy as np

from dit_nb.errors import _check_choice
from dit_nb.lab.studies import STUDIES, load_study
from dit_nb.lab.sweep import Difference, by_variant, paired_difference

__all__ = ["Comparison", "compare"]


class Comparison(NamedTuple):
    """Two variants with the same seeds, and their difference: second minus first."""

    label: str
    first: np.ndarray  # (seeds,) values of a metric
    second: np.ndarray  # (seeds,)
    planned: bool = True  # whether it was chosen before the results were seen

    @property
    def difference(self) -> Difference:
        """Mean of second minus first, taken within each seed, with its interval."""
        return paired_difference(self.first, self.second)


def _values(study: str, metric: str = "frechet") -> list[np.ndarray]:
    """A metric of each variant of a study, in the order of its definition: (seeds,) each."""
    return list(by_variant(load_study(study), STUDIES[study], metric).values())


def _against_first(study: str, labels: str, metric: str = "frechet") -> list[Comparison]:
    """Each variant minus the first: what a study says beforehand that it compares."""
    first, *others = _values(study, metric)
    return [Comparison(name, first, other) for name, other in zip(labels.split(", "), others)]


def _all_pairs(study: str) -> list[Comparison]:
    """All pairs of blocks; those without adaLN-Zero were added after the results were seen."""
    names, values = ("Zero", "adaLN", "cross", "in-context"), _values(study)
    pairs = combinations(range(4), 2)
    return [Comparison(f"{names[j]} − {names[i]}", values[i], values[j], i == 0) for i, j in pairs]


def _patches() -> dict[str, list[Comparison]]:
    """A smaller patch at fixed width and depth, as a share of the mean with patch 4."""
    scores = {
        key[:3]: v for key, v in by_variant(load_study("scaling"), STUDIES["scaling"], "frechet").items()
    }
    shapes = [(width, depth) for width, depth, patch in scores if patch == "4"]

    def minus_patch_4(patch: str) -> list[Comparison]:
        rows = [(w, d, scores[w, d, "4"], scores[w, d, patch]) for w, d in shapes]
        return [
            Comparison(f"width {w}, depth {d}", coarse / coarse.mean(), fine / coarse.mean(), False)
            for w, d, coarse, fine in rows
        ]

    return {f"patch {patch} − patch 4": minus_patch_4(patch) for patch in ("2", "1")}


def _initializations() -> dict[str, list[Comparison]]:
    """Parts of the zero initialization; the combination that `zero` lacks comes from a study added later."""
    labels = "only gates at 0 − all at 0, nothing at 0 − all at 0, sigmoid gates − all at 0"
    zero, gates_only, random, _ = _values("zero")
    (shift_scale,) = _values("zero_gates")
    n = len(shift_scale)  # seeds 0 to n - 1
    added = [
        Comparison("only shift, scale at 0 − all at 0", zero[:n], shift_scale, False),
        Comparison("nothing at 0 − only gates at 0", gates_only, random, False),
        Comparison("nothing at 0 − only shift, scale at 0", shift_scale, random[:n], False),
    ]
    return {
        "Fréchet distance": [*_against_first("zero", labels), *added],
        "squared error, last tenth of training": _against_first("zero", labels, "mse_10"),
    }


def _embeddings() -> dict[str, list[Comparison]]:
    _, _, label, both = _values("init")
    first = _against_first("init", "t − neither, y − neither, t and y − neither")
    return {"Fréchet distance": [*first, Comparison("t and y − y", label, both, False)]}


def _variances(metric: str) -> list[Comparison]:
    """Fixed variances minus the learned one, at equal numbers of steps."""
    values = _values("variance", metric)
    return [
        Comparison(f"{name}, {steps} steps", values[3 * i], values[3 * i + j])
        for j, name in ((1, "smaller fixed"), (2, "larger fixed"))
        for i, steps in enumerate((10, 50, 250, 1000))
    ]


def _guidance_scales() -> dict[str, list[Comparison]]:
    labels = "scale 0 − 1, scale 1.5 − 1, scale 2 − 1, scale 4 − 1"
    names = {"Fréchet distance": "frechet", "precision": "precision", "recall": "recall"}
    return {title: _against_first("guidance", labels, metric) for title, metric in names.items()}


def _channels() -> dict[str, list[Comparison]]:
    none, four, three = _values("channels")
    return {
        "Fréchet distance": [
            Comparison("four channels − no guidance", none, four),
            Comparison("three channels − no guidance", none, three),
            Comparison("three channels − four", four, three),
        ]
    }


def _sampling_steps() -> dict[str, list[Comparison]]:
    """More steps of one model, and many steps of a small one against few of a larger one."""
    few, many = _values("sampling", "frechet_25"), _values("sampling", "frechet_250")
    names = ("width 32", "width 64", "width 128")
    rows = [Comparison(f"{n}: 250 steps − 25", a, b, False) for n, a, b in zip(names, few, many)]
    ten = _values("sampling", "frechet_10")[2]
    five = _values("sampling", "frechet_5")[1]
    rows.append(Comparison("width 64, 250 steps − width 128, 10 steps", ten, many[1], False))
    return {
        "Fréchet distance": [
            *rows,
            Comparison("width 32, 250 steps − width 64, 5 steps", five, many[0], False),
        ]
    }


def _networks() -> dict[str, list[Comparison]]:
    dit, unet, dit_timed, unet_timed = _values("unet")
    rows = ("U-Net − DiT, 1500 steps", dit, unet), ("U-Net − DiT, 30 seconds", dit_timed, unet_timed)
    return {"Fréchet distance": [Comparison(*row) for row in rows]}


def _averages() -> dict[str, list[Comparison]]:
    """An EMA of the paper's decay minus none, for runs of 300, 1000 and 3000 steps."""
    none = _values("ema", "frechet_0w")
    panels = {"with warm-up": "frechet_0.9999w", "without": "frechet_0.9999c"}
    return {
        title: [
            Comparison(f"{steps} steps", a, b, False)
            for steps, a, b in zip((300, 1000, 3000), none, _values("ema", metric))
        ]
        for title, metric in panels.items()
    }


_QUESTIONS = {
    "blocks": lambda: {
        "same steps": _all_pairs("blocks"),
        "same multiply-adds": _all_pairs("blocks_compute"),
        "MNIST, same steps": _all_pairs("blocks_mnist"),
    },
    "patches": _patches,
    "zero": _initializations,
    "embeddings": _embeddings,
    "variance": lambda: {"Fréchet distance": _variances("frechet")},
    "bits": lambda: {"bits per dimension": _variances("bits")},
    "guidance": _guidance_scales,
    "channels": _channels,
    "sampling": _sampling_steps,
    "unet": _networks,
    "ema": _averages,
}


def compare(question: str) -> dict[str, list[Comparison]]:
    """All comparisons of a question: title of a panel -> its comparisons.

    Args:
        question: blocks, patches, zero, embeddings, variance, bits, guidance, channels, sampling, unet or ema

    Raises:
        UserError: if the question is unknown
    """
    _check_choice("question", question, _QUESTIONS)
    return _QUESTIONS[question]()
