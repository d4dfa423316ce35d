"""Graders of lesson 05: timestep embedding, label dropout, and the sum of two embeddings."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dit_nb.conditioning import timestep_embedding
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report
from dit_nb.teach.graders.positions import (
    _EACH_ITS_OWN,
    _FROM_ONE,
    _INTERLEAVED,
    _LOG_10,
    _LOG_10_HINT,
    _NO_LOG,
    _RISING,
    _TOO_EARLY,
    _TOO_FAST,
    _TOO_SLOW,
    _waves,
    _waves_of_all,
)

__all__ = ["check_label_dropout", "check_split_condition", "check_timestep_embedding"]


def _timestep_embedding_loops(t: Tensor, dim: int, max_period: float) -> Tensor:
    half = dim // 2
    rows = []
    for step in t.tolist():
        angles = [step * math.exp(-math.log(max_period) * i / half) for i in range(half)]
        rows.append([math.cos(a) for a in angles] + [math.sin(a) for a in angles])
    return torch.tensor(rows, dtype=torch.float64)


def _timestep_cases(rng: RandomInputs) -> list[Case]:
    """Early and late timesteps, as many as dim, another period."""
    t = torch.tensor([999, 0, 1, 500])  # not 0 first: it hides wrong frequencies
    cases = [Case("t = 999, 0, 1, 500", (t, 8, 10000.0)), Case("as many timesteps as dim", (t, 4, 10000.0))]
    cases.append(Case("random t, dim 16", (rng.integers(0, 1000, 5), 16, 10000.0)))
    cases.append(Case("max_period = 100", (rng.integers(1, 1000, 3), 12, 100.0), _PERIOD_UNUSED))
    return cases


_DIVISION = "the difference between / and //."


def _waves_of(angles: Tensor) -> Tensor:
    return torch.cat([angles.double().cos(), angles.double().sin()], -1)


def _rounded_exponents(t: Tensor, dim: int, max_period: float) -> Tensor:
    half = dim // 2
    exponents = -math.log(max_period) * torch.arange(half, dtype=torch.float64) // half
    return _waves_of(t[:, None] * exponents.exp())


def _straight_line(dim: int, max_period: float) -> Tensor:
    return torch.linspace(1, 1 / max_period, dim // 2, dtype=torch.float64)


_PERIOD_UNUSED = "It is right for the default period only: max_period is given, but not used."
_COS_SIN = (torch.cos, torch.sin)


def _embedding(power: Callable = lambda i, half: -i / half, scale: float = 1.0, **options) -> Callable:
    """Timestep embedding with the parameters of `_waves`."""
    return lambda t, d, period: _waves(t.double() * scale, d, power, period, **{"order": _COS_SIN, **options})


_TIMESTEP_EMBEDDING = Exercise(
    "timestep_embedding",
    _timestep_embedding_loops,
    _timestep_cases,
    {
        "The sines come first; the cosines must (only the position table starts with sines).": _embedding(
            order=_COS_SIN[::-1]
        ),
        _TOO_EARLY: (_embedding(lambda i, h: -i / max(h - 1, 1)), "lesson 05, 'Trap: 127 instead of 128'."),
        "The timesteps are squeezed into [0, 1]: all embeddings are nearly equal.": (
            _embedding(scale=1 / 1000),
            "lesson 05, 'Trap: t between 0 and 1'.",
        ),
        _INTERLEAVED: _embedding(interleave=True),
        "All frequencies are 1: i / (dim/2) is rounded down to 0 by //.": (
            _embedding(lambda i, h: -(i // h)),
            _DIVISION,
        ),
        "All frequencies but the first are 1 / max_period: -i / (dim/2) is rounded down to -1 by //.": (
            _embedding(lambda i, h: (-i) // h),
            _DIVISION,
        ),
        "The exponents are rounded down to whole numbers by //.": (
            lambda t, d, period: _rounded_exponents(t, d, period),
            _DIVISION,
        ),
        _TOO_FAST: _embedding(lambda i, h: -2 * i / h),
        "The angles are full turns: there is a factor of 2 pi too much.": _embedding(scale=2 * math.pi),
        "The angles are the timesteps divided by an index, not times a frequency that falls like a power.": (
            lambda t, d, period: _waves_of(t[:, None] / (1 + torch.arange(d // 2)))
        ),
        "The frequencies fall on a straight line; they must fall like a power of max_period.": (
            lambda t, d, period: _waves_of(t[:, None] * _straight_line(d, period))
        ),
        _TOO_SLOW: (
            _embedding(lambda i, h: -i / (2 * h)),
            "what the exponent is divided by.",
        ),
        _RISING: (_embedding(lambda i, h: i / h), "the sign of the exponent."),
        "The timesteps are divided by max_period, so that all embeddings are nearly equal; use them as they are.": (
            lambda t, d, period: _embedding()(t / period, d, period),
            "lesson 05, 'Trap: t between 0 and 1'.",
        ),
        "The timesteps are counted from 1; they must be counted from 0, so t = 0 gives cosines of 1.": (
            lambda t, d, period: _embedding()(t + 1, d, period),
            "what happens to t before the waves.",
        ),
        _LOG_10: (
            lambda t, d, period: _embedding()(t, d, math.exp(math.log10(period))),
            _LOG_10_HINT,
        ),
        _NO_LOG: lambda t, d, period: _embedding(lambda i, h: -period * i / h)(t, d, math.e),
        _FROM_ONE: _embedding(lambda i, h: -(i + 1) / h),
        _EACH_ITS_OWN: lambda t, d, period: _waves_of_all(t, d, period, _COS_SIN),
        "The frequencies come in reverse order, the lowest first; the first is 1.": _embedding(
            lambda i, h: -(h - 1 - i) / h
        ),
        "The angles are converted as if they were degrees; t times a frequency is an angle already.": _embedding(
            scale=math.pi / 180
        ),
        "The angles are half turns: there is a factor of pi too much.": _embedding(scale=math.pi),
        "The sines go on counting where the cosines stop, so their frequencies are lower; a sine and its cosine share one.": (
            lambda t, d, period: torch.cat(
                [
                    _embedding()(t, d, period).chunk(2, -1)[0],
                    _embedding(lambda i, h: -(h + i) / h)(t, d, period).chunk(2, -1)[1],
                ],
                -1,
            )
        ),
    },
    "lesson 05, 'A timestep as waves'.",
    tolerance=1e-3,  # float32 is fine: at t = 999 it costs about 6e-5, and seven times that in full turns
    reference=timestep_embedding,
)


def check_timestep_embedding(fn: Callable, **grade_options) -> Report:
    """Check fn(t (N,) long, dim, max_period) -> (N, dim): dim/2 cosines, then dim/2 sines."""
    return grade(_TIMESTEP_EMBEDDING, fn, **grade_options)


def _label_dropout_loops(
    y: Tensor, uniform: Tensor, dropout_prob: float, num_classes: int, training: bool
) -> Tensor:
    dropped = [training and u < dropout_prob for u in uniform.tolist()]
    return torch.tensor([num_classes if drop else label for drop, label in zip(dropped, y.tolist())])


def _label_cases(rng: RandomInputs) -> list[Case]:
    """Training with high and low dropout, a batch in which no label is dropped, and eval mode."""
    settings = [(12, 3, 0.3, True), (6, 10, 0.1, True), (9, 5, 0.9, True), (8, 4, 0.3, False)]
    cases = []
    for i, (n, k, p, training) in enumerate(settings):
        uniform = rng.uniform(0, 1, n)
        fixed = torch.tensor([p / 2, (1 + p) / 2, p], dtype=uniform.dtype)  # equal to p: stays
        uniform[:3] = fixed.roll(i % 2)
        where = "in training" if training else "in eval mode"
        y = 1 + rng.integers(0, k - 2, n)  # not the first or the last class, which hide known mistakes
        cases.append(Case(f"{n} labels, K = {k}, p = {p}, {where}", (y, uniform, p, k, training)))
    y, high = 1 + rng.integers(0, 4, 5), rng.uniform(0.5, 1, 5)
    return [*cases, Case("5 labels, none of them dropped", (y, high, 0.2, 6, True))]


def _certain_cases(rng: RandomInputs) -> list[Case]:
    """Probabilities 0 and 1; one of the random numbers is 0, and none is 1."""
    cases = []
    for p in (0.0, 1.0):
        uniform = rng.uniform(0, 1, 6)
        uniform[0] = 0
        cases.append(Case(f"6 labels, p = {p:g}", (rng.integers(1, 4, 6), uniform, p, 5, True), _CERTAIN[p]))
    return cases


_CERTAIN = {
    0.0: "It is right except for a dropout_prob of 0, with which no label is dropped.",
    1.0: "It is right except for a dropout_prob of 1, with which every label is dropped.",
}


_NOTHING = -98  # stands for the labels of a function that returns nothing in eval mode


def _repeat(fn: Callable, y: Tensor, *args) -> Tensor | None:
    """Call a function often with the same inputs; if it returns other labels, return none that exist."""
    labels = fn(y, *args)
    if labels is None and not args[-1]:
        return torch.full_like(y, _NOTHING)
    if isinstance(labels, Tensor) and labels.shape == y.shape:
        calls = (fn(y, *args) for _ in range(40))
        if any(isinstance(again, Tensor) and not torch.equal(again, labels) for again in calls):
            return torch.full_like(y, -99)
    return labels


def _label_dropout(
    null: Callable = lambda k: k,
    which: Callable = lambda u, p, on: (u < p) & on,
    kept: Callable = lambda y: y,
) -> Callable:
    """label_dropout with parameters for known mistakes."""
    return lambda y, u, p, k, on: torch.where(which(u, p, on), null(k), kept(y))


def _first(u: Tensor, p: float, whole: Callable = int) -> Tensor:
    return torch.arange(len(u)) < whole(p * len(u))


def _smallest(u: Tensor, p: float, whole: Callable = int) -> Tensor:
    return _first(u, p, whole)[u.argsort().argsort()]


def _fixed_share(which: Callable, whole: Callable) -> tuple[Callable, str]:
    return _label_dropout(which=lambda u, p, on: which(u, p, whole) & on), _EACH


_NULL_CLASS = "The null class must be a class of its own, after all the others: "
_EACH = "which random numbers are compared, and with what."
_OWN_NUMBERS = "It makes random numbers of its own; use those that are given, one for each image."
_ONE_FOR_ALL = "One random number decides for the whole batch; each image has its own."

_LABEL_DROPOUT = Exercise(
    "label_dropout",
    _label_dropout_loops,
    _label_cases,
    {
        _NULL_CLASS + "0 is a real class.": _label_dropout(lambda k: 0),
        _NULL_CLASS + "this one is the last real class.": (
            _label_dropout(lambda k: k - 1),
            "how many rows the table has.",
        ),
        _NULL_CLASS + "a table has no row -1.": (
            _label_dropout(lambda k: -1),
            "how many rows the table has.",
        ),
        _NULL_CLASS + "1000 is right for ImageNet only.": _label_dropout(lambda k: 1000),
        _NULL_CLASS + "row K + 1 does not exist.": (
            _label_dropout(lambda k: k + 1),
            "how many rows the table has, and from which number they are counted.",
        ),
        _ONE_FOR_ALL: (
            _label_dropout(which=lambda u, p, on: (u[:1] < p) & on),
            "which random numbers are compared.",
        ),
        "The mean of the random numbers decides for the whole batch; each image has its own.": (
            _label_dropout(which=lambda u, p, on: (u.mean() < p) & on),
            "which random numbers are compared.",
        ),
        "If one label of the batch is dropped, all are; each image decides for itself.": (
            _label_dropout(which=lambda u, p, on: (u < p).any() & on),
            "which random numbers are compared.",
        ),
        _OWN_NUMBERS: (
            _label_dropout(which=lambda u, p, on: (torch.rand_like(u) < p) & on),
            "the argument uniform.",
        ),
        "Labels are dropped in eval mode too: a sampler would lose its labels.": _label_dropout(
            which=lambda u, p, on: u < p
        ),
        "It drops the labels that it should keep, and keeps those that it should drop.": (
            _label_dropout(which=lambda u, p, on: (u >= p) & on),
            "the direction of the comparison.",
        ),
        "It keeps the labels below dropout_prob and drops those above.": (
            _label_dropout(which=lambda u, p, on: (u > p) & on),
            "the direction of the comparison.",
        ),
        "It drops a label whose random number equals dropout_prob: only those below are dropped.": (
            _label_dropout(which=lambda u, p, on: (u <= p) & on),
            "the comparison: with probability 0 no label may be dropped.",
        ),
        "Labels are dropped in eval mode and kept in training: that is the wrong way round.": _label_dropout(
            which=lambda u, p, on: (u < p) & (not on)
        ),
        "It is right in training and returns nothing in eval mode, in which the labels stay as they are.": (
            lambda y, u, p, k, on: torch.where(u < p, k, y) if on else torch.full_like(y, _NOTHING),
            "what is returned if training is false.",
        ),
        "No label is ever dropped.": _label_dropout(which=lambda u, p, on: u < -1),
        "All labels are dropped in training.": _label_dropout(which=lambda u, p, on: (u < 2) & on),
        "The label becomes a number of its own plus K; all dropped labels become the same class, K.": (
            lambda y, u, p, k, on: y + k * ((u < p) & on)
        ),
        "The first labels of the batch are dropped, as many as dropout_prob says; the random numbers decide.": (
            _label_dropout(which=lambda u, p, on: _first(u, p) & on),
            "the argument uniform.",
        ),
        "A fixed number of labels is dropped, those with the smallest random numbers; each image decides for itself.": (
            _fixed_share(_smallest, int)
        ),
        "A fixed share of the batch is dropped, rounded to the nearest number, those with the smallest random numbers; "
        "each image decides for itself.": _fixed_share(_smallest, round),
        "A fixed share of the batch is dropped, rounded up, those with the smallest random numbers; "
        "each image decides for itself.": _fixed_share(_smallest, math.ceil),
        "The first labels of the batch are dropped, a fixed share of it, rounded to the nearest number; "
        "the random numbers decide.": _fixed_share(_first, round),
        "The first labels of the batch are dropped, a fixed share of it, rounded up; "
        "the random numbers decide.": _fixed_share(_first, math.ceil),
        "It drops the labels with large random numbers, as many as it should on average; the small ones must be dropped.": (
            _label_dropout(which=lambda u, p, on: (u > 1 - p) & on),
            "the direction of the comparison.",
        ),
    },
    "lesson 05, 'Labels, and no label'.",
    probe=_repeat,
    reference=_label_dropout(),
    edge_cases=_certain_cases,
    same_dtype=True,
)


def check_label_dropout(fn: Callable, **grade_options) -> Report:
    """Check fn(y (N,), uniform (N,), dropout_prob, num_classes, training) -> labels (N,)."""
    return grade(_LABEL_DROPOUT, fn, **grade_options)


def _split_condition_loops(c: Tensor, t_table: Tensor, y_table: Tensor) -> tuple[Tensor, Tensor]:
    found, timesteps, labels = [], t_table.tolist(), y_table.tolist()
    for row in c.tolist():
        pairs = [(t, y) for t in range(len(t_table)) for y in range(len(y_table))]
        gaps = [sum((s - a - b) ** 2 for s, a, b in zip(row, timesteps[t], labels[y])) for t, y in pairs]
        found.append(pairs[gaps.index(min(gaps))])
    return torch.tensor([t for t, _ in found]), torch.tensor([y for _, y in found])


def _split_cases(rng: RandomInputs) -> list[Case]:
    """Labels as large as timesteps, larger, and smaller; both tables far from zero; the null class occurs.

    The sums are rounded, so that none is exactly equal to a sum of two rows.
    """
    rounded = 1 + 1e-12
    cases = []
    sizes = [(20, 4, 6, 1.0, 8), (12, 6, 5, 3.0, 6), (30, 3, 8, 0.3, 9), (9, 9, 6, 1.0, 12)]
    for steps, rows, width, scale, n in sizes:
        t_table = rng.normal(steps, width) + 2
        y_table = scale * rng.normal(rows, width) - 1
        t, y = rng.integers(0, steps, n), rng.integers(0, rows, n)
        y[0], y[1], t[0] = rows - 1, 0, steps - 1
        label = f"{steps} timesteps, {rows - 1} labels and the null class, D = {width}"
        cases.append(Case(label, ((t_table[t] + y_table[y]) * rounded, t_table, y_table)))
    t_table, y_table = 5.0 * torch.arange(2, 10)[:, None].double(), 1 + torch.arange(4)[:, None].double()
    t, y = rng.integers(1, 8, 6), rng.integers(1, 4, 6)
    cases.append(Case("numbers: D = 1", ((t_table[t] + y_table[y]) * rounded, t_table, y_table)))
    t_table = 5.0 * torch.arange(-4, 5)[:, None].double()
    y_table = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]], dtype=torch.float64)
    t, y = rng.integers(0, 9, 6), rng.integers(0, 4, 6)
    t[0], t[1] = 0, 8
    cases.append(Case("of equal lengths", ((t_table[t] + y_table[y]) * rounded, t_table, y_table)))
    middle = rng.integers(-40, 40, 6, 2).double()
    t_table = torch.cat([0 * middle[:, :1], middle, -middle.sum(1, keepdim=True)], 1)
    y_table = rng.integers(-40, 40, 4, 4).double()
    y_table[:, 0] = 1000 * torch.arange(4)  # labels are told apart by each mistake, timesteps by none
    t, y = torch.arange(6), rng.integers(0, 4, 6)
    return [*cases, Case("of equal totals", ((t_table[t] + y_table[y]) * rounded, t_table, y_table))]


def _nearest(rows: Tensor, table: Tensor) -> Tensor:
    return torch.cdist(rows, table).argmin(1)


def _joint(
    c: Tensor,
    t_table: Tensor,
    y_table: Tensor,
    distance: Callable = torch.cdist,
    split: Callable = lambda i, k, n: (i // k, i % k),  # of the index, K + 1 and T
) -> tuple[Tensor, Tensor]:
    """Search all sums, with parameters for known mistakes."""
    best = distance(c, (t_table[:, None] + y_table).flatten(0, 1)).argmin(1)
    return split(best, len(y_table), len(t_table))


def _each_alone(c: Tensor, t_table: Tensor, y_table: Tensor) -> tuple[Tensor, Tensor]:
    return _nearest(c, t_table), _nearest(c, y_table)


def _timestep_first(c: Tensor, t_table: Tensor, y_table: Tensor) -> tuple[Tensor, Tensor]:
    t = _nearest(c, t_table)
    return t, _nearest(c - t_table[t], y_table)


def _label_first(c: Tensor, t_table: Tensor, y_table: Tensor) -> tuple[Tensor, Tensor]:
    y = _nearest(c, y_table)
    return _nearest(c - y_table[y], t_table), y


def _from_middle(c: Tensor, t_table: Tensor, y_table: Tensor) -> tuple[Tensor, Tensor]:
    return _nearest(c - y_table.mean(0), t_table), _nearest(c - t_table.mean(0), y_table)


def _timestep_from_middle(c: Tensor, t_table: Tensor, y_table: Tensor) -> tuple[Tensor, Tensor]:
    t = _nearest(c - y_table.mean(0), t_table)
    return t, _nearest(c - t_table[t], y_table)


def _label_from_middle(c: Tensor, t_table: Tensor, y_table: Tensor) -> tuple[Tensor, Tensor]:
    y = _nearest(c - t_table.mean(0), y_table)
    return _nearest(c - y_table[y], t_table), y


_JOINT_HINT = "the first hint of the exercise: how many sums are there?"

_SPLIT_CONDITION = Exercise(
    "split_condition",
    _split_condition_loops,
    _split_cases,
    {
        "Timestep and label are searched without each other; c is the sum of both.": (
            _each_alone,
            _JOINT_HINT,
        ),
        "The timestep is searched first, as if there were no label: the label pulls it aside.": (
            _timestep_first,
            _JOINT_HINT,
        ),
        "The label is searched first, as if there were no timestep: the timestep pulls it aside.": (
            _label_first,
            _JOINT_HINT,
        ),
        "The timestep is searched first, with the mean label taken away: what a label differs from the mean pulls it aside.": (
            _timestep_from_middle,
            _JOINT_HINT,
        ),
        "The label is searched first, with the mean timestep taken away: what a timestep differs from the mean pulls it "
        "aside.": (_label_from_middle, _JOINT_HINT),
        "Timestep and label are searched without each other, with the mean of the other taken away; c is the sum of two "
        "rows.": (_from_middle, _JOINT_HINT),
        "The largest dot product wins; a long sum has a large one without being near.": (
            lambda c, a, b: _joint(c, a, b, lambda x, s: -x @ s.T),
            "what 'is equal to' means for vectors.",
        ),
        "The largest cosine wins; a sum of another length may have the same direction.": (
            lambda c, a, b: _joint(c, a, b, lambda x, s: -F.normalize(x, dim=1) @ F.normalize(s, dim=1).T),
            "what 'is equal to' means for vectors.",
        ),
        "The farthest sum wins.": lambda c, a, b: _joint(c, a, b, lambda x, s: -torch.cdist(x, s)),
        "The index is divided by the number of timesteps; the label changes fastest in it.": (
            lambda c, a, b: _joint(c, a, b, split=lambda i, k, n: (i // n, i % n)),
            "the order of the axes in the table of sums.",
        ),
        "Timesteps and labels are returned in the wrong order.": lambda c, a, b: _joint(c, a, b)[::-1],
        "The null class is never found: the last row of y_table is left out.": lambda c, a, b: _joint(
            c, a, b[:-1]
        ),
        "Timesteps are counted from 1; rows are counted from 0.": lambda c, a, b: (
            _joint(c, a, b)[0] + 1,
            _joint(c, a, b)[1],
        ),
        "It returns the rows of the tables, not their numbers.": lambda c, a, b: (
            a[_joint(c, a, b)[0]],
            b[_joint(c, a, b)[1]],
        ),
        "Both are the index of the sum; it must be split into two.": (
            lambda c, a, b: _joint(c, a, b, split=lambda i, k, n: (i, i)),
            "the second hint of the exercise.",
        ),
        "It always finds the first row of both tables: the sums are compared with == (c is a sum only up to rounding, so "
        "look for the nearest), or the smallest distance is split, not its place.": lambda c, a, b: _joint(
            c, a, b, lambda x, s: 1.0 - (x[:, None] == s).all(2).double()
        ),
        "In the table of sums the timestep changes fastest, but the index is split as if the label did.": (
            lambda c, a, b: _joint(
                c, a, b, split=lambda i, k, n: ((i % k * n + i // k) // k, (i % k * n + i // k) % k)
            ),
            "the order of the axes in the table of sums.",
        ),
        "Only the lengths are compared; two different sums may be equally long.": lambda c, a, b: _joint(
            c, a, b, lambda x, s: (x.norm(dim=1, keepdim=True) - s.norm(dim=1)).abs()
        ),
        "Only the totals of the channels, or a single channel, are compared; two different sums may share them.": lambda c, a, b: (
            _joint(c, a, b, lambda x, s: (x.sum(1, keepdim=True) - s.sum(1)).abs())
        ),
    },
    "lesson 05, 'One vector, or two'.",
    result_names=("timesteps", "labels"),
)


def check_split_condition(fn: Callable, **grade_options) -> Report:
    """Check fn(c (N, D), t_table (T, D), y_table (K + 1, D)) -> timesteps (N,), labels (N,)."""
    return grade(_SPLIT_CONDITION, fn, **grade_options)
