"""Grader of lesson 13: the multiply-adds of an adaLN-Zero block."""

from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_block_macs"]


def _count_products(tokens: Tensor, width: int, mlp_ratio: int) -> Tensor:
    totals = []
    for T in tokens.tolist():
        products = [(1, width, 6 * width)]  # rows, inner, columns: the modulation
        products += [(T, width, width)] * 4  # queries, keys, values, output
        products += [(T, width, T), (T, T, width)]  # scores, weighted values
        products += [(T, width, mlp_ratio * width), (T, mlp_ratio * width, width)]
        totals.append(sum(rows * inner * columns for rows, inner, columns in products))
    return torch.tensor(totals)


def _macs_cases(rng: RandomInputs) -> list[Case]:
    """A single token, more tokens than channels and fewer; MLPs of several widths."""
    label = "T = {}, D = {}, mlp_ratio = {}"
    sizes = [([1, rng.choice(15, 16, 17), 64, 256], 8, 4), ([5, 300], 12, 2), ([256, 1024], 1152, 4)]
    sizes.append(([rng.choice(3, 7), rng.choice(30, 50), 400], rng.choice(20, 24), rng.choice(3, 5)))
    return [Case(label.format(*s), (torch.tensor(s[0]), *s[1:])) for s in sizes]


def _numbers_of(fn: Callable, *args):
    """Return the result in float64, whatever its type; what is no tensor stays as it is."""
    result = fn(*args)
    return result.double() if type(result) is Tensor else result


def _block_macs(
    modulation: Callable = lambda T, D: 6 * D * D,
    linear: Callable = lambda T, D: 4 * D * D * T,
    mlp: Callable = lambda T, D, r: 2 * r * D * D * T,
    pairs: Callable = lambda T, D: 2 * D * T * T,
) -> Callable:
    """The sum of four parts, each a parameter for known mistakes."""
    return lambda tokens, D, r: (
        modulation(tokens, D) + linear(tokens, D) + mlp(tokens, D, r) + pairs(tokens, D) + 0 * tokens
    )


def _biases(T: Tensor, D: int, r: int) -> Tensor:
    return T * (5 * D + r * D) + 6 * D


_PAIRS = "lesson 13, 'When pairs dominate'."
_ONCE = "lesson 13, 'A block': the last term."

_BLOCK_MACS = Exercise(
    "block_macs",
    _count_products,
    _macs_cases,
    {
        "The modulation is counted for every token; it is computed once for an image.": (
            _block_macs(modulation=lambda T, D: 6 * D * D * T),
            _ONCE,
        ),
        "The modulation is missing: six vectors of width D from one.": (
            _block_macs(modulation=lambda T, D: 0),
            _ONCE,
        ),
        "The modulation has four vectors, as in plain adaLN; with the two gates there are six.": (
            _block_macs(modulation=lambda T, D: 4 * D * D),
            _ONCE,
        ),
        "The modulation counts 6 D; it is a matrix from D numbers to 6 D.": (
            _block_macs(modulation=lambda T, D: 6 * D),
            _ONCE,
        ),
        "The pairs of tokens are counted once; there are two products, for the scores and for the values.": (
            _block_macs(pairs=lambda T, D: D * T * T),
            _PAIRS,
        ),
        "The pairs of tokens are missing: the two products of attention that have no weights.": (
            _block_macs(pairs=lambda T, D: 0),
            _PAIRS,
        ),
        "Each pair of tokens costs one multiply-add; it takes one for each of D channels.": (
            _block_macs(pairs=lambda T, D: 2 * T * T),
            _PAIRS,
        ),
        "Only half of the pairs are counted, as with a causal mask; here all tokens attend to all.": (
            _block_macs(pairs=lambda T, D: D * T * (T + 1)),
            _PAIRS,
        ),
        "The linear layers are counted once for an image; each token goes through them.": (
            _block_macs(linear=lambda T, D: 4 * D * D, mlp=lambda T, D, r: 2 * r * D * D),
            "lesson 13, 'One multiply-add': work = weights × tokens.",
        ),
        "The linear layers of attention are missing: only its pairs are counted.": _block_macs(
            linear=lambda T, D: 0
        ),
        "The output projection of attention is missing: after q, k and v there is a fourth matrix.": (
            _block_macs(linear=lambda T, D: 3 * D * D * T),
            "lesson 13, 'A block': the first term.",
        ),
        "Queries, keys and values are counted as one square matrix; they are three.": (
            _block_macs(linear=lambda T, D: 2 * D * D * T),
            "lesson 13, 'A block': the first term.",
        ),
        "One layer of the MLP is missing: it goes up and comes down again.": (
            _block_macs(mlp=lambda T, D, r: r * D * D * T),
            "lesson 13, 'A block': the second term.",
        ),
        "The argument mlp_ratio is not used: the MLP is always four times as wide.": _block_macs(
            mlp=lambda T, D, r: 8 * D * D * T
        ),
        "The hidden layer of the MLP is counted as mlp_ratio numbers; it is mlp_ratio times D.": (
            _block_macs(mlp=lambda T, D, r: 2 * r * D * T),
            "lesson 13, 'A block': the second term.",
        ),
        "These are the weights of the block, the same for every image; work depends on the tokens.": (
            _block_macs(
                linear=lambda T, D: 4 * D * D, mlp=lambda T, D, r: 2 * r * D * D, pairs=lambda T, D: 0
            ),
            "lesson 13, 'One multiply-add': work = weights × tokens.",
        ),
        "These are flops, twice the number asked for: a multiply-add counts once.": (
            lambda T, D, r: 2 * _block_macs()(T, D, r),
            "lesson 13, 'One multiply-add'.",
        ),
        "The biases are counted; an addition alone is no multiply-add.": (
            lambda T, D, r: _block_macs()(T, D, r) + _biases(T, D, r),
            "lesson 13, 'One multiply-add': what is not counted.",
        ),
        "The ratio is squared; only one side of each matrix of the MLP is wider.": (
            _block_macs(mlp=lambda T, D, r: 2 * r * r * D * D * T),
            "lesson 13, 'A block': the second term.",
        ),
        "Both sides of a matrix of the MLP are as wide as the hidden layer; only one is, the other has D channels.": (
            _block_macs(mlp=lambda T, D, r: (r + r * r) * D * D * T),
            "lesson 13, 'A block': the second term.",
        ),
        "The pairs of a token with itself are left out; a token attends to itself, too.": (
            _block_macs(pairs=lambda T, D: 2 * D * T * (T - 1)),
            _PAIRS,
        ),
        "Each two tokens are counted once, and no token with itself; here all tokens attend to all.": (
            _block_macs(pairs=lambda T, D: D * T * (T - 1)),
            _PAIRS,
        ),
        "The pairs of tokens cost D squared each; they take one multiply-add for each of D channels.": (
            _block_macs(pairs=lambda T, D: 2 * D * D * T * T),
            _PAIRS,
        ),
        "Attention grows with the number of tokens; there are as many pairs as its square.": (
            _block_macs(pairs=lambda T, D: 2 * D * T),
            _PAIRS,
        ),
        "The modulation has three vectors, those of one branch; there are two branches.": (
            _block_macs(modulation=lambda T, D: 3 * D * D),
            _ONCE,
        ),
        "The modulation is counted for both branches, but its six vectors are those of both.": (
            _block_macs(modulation=lambda T, D: 12 * D * D),
            _ONCE,
        ),
        "The modulation has two vectors; there are shift, scale and gate for each branch.": (
            _block_macs(modulation=lambda T, D: 2 * D * D),
            _ONCE,
        ),
        "It returns the sum over all images; each has a number of its own.": lambda T, D, r: _block_macs()(
            T, D, r
        ).sum(),
        "The modulation has five vectors; shift, scale and gate belong to each of two branches.": _block_macs(
            modulation=lambda T, D: 5 * D * D
        ),
        "The modulation has one vector; there are shift, scale and gate for each of two branches.": _block_macs(
            modulation=lambda T, D: D * D
        ),
        "The modulation has five vectors, and they are counted for every token: two mistakes at once.": _block_macs(
            modulation=lambda T, D: 5 * D * D * T
        ),
        "The modulation has four vectors, and they are counted for every token: two mistakes at once.": _block_macs(
            modulation=lambda T, D: 4 * D * D * T
        ),
        "The pairs are counted with the full width for each of 16 heads; the heads share the width.": _block_macs(
            pairs=lambda T, D: 32 * D * T * T
        ),
        "The pairs are counted for one head of 16; the work of all heads counts.": _block_macs(
            pairs=lambda T, D: D * T * T / 8
        ),
        "The linear layers of attention are counted once for an image; each token goes through them.": _block_macs(
            linear=lambda T, D: 4 * D * D
        ),
        "The MLP is counted once for an image; each token goes through it.": _block_macs(
            mlp=lambda T, D, r: 2 * r * D * D
        ),
        "The output projection of attention is counted once for an image; each token goes through it.": _block_macs(
            linear=lambda T, D: 3 * D * D * T + D * D
        ),
        "One layer of the MLP is counted once for an image; each token goes through both.": _block_macs(
            mlp=lambda T, D, r: r * D * D * T + r * D * D
        ),
        "The argument mlp_ratio is not used: the MLP is always twice as wide.": _block_macs(
            mlp=lambda T, D, r: 4 * D * D * T
        ),
        "The linear layers of attention are counted as five matrices; there are q, k, v and the output.": _block_macs(
            linear=lambda T, D: 5 * D * D * T
        ),
        "Only one of the four matrices of attention is counted.": _block_macs(linear=lambda T, D: D * D * T),
        "The MLP is missing.": _block_macs(mlp=lambda T, D, r: 0),
        "The pairs of tokens are counted in flops, the rest in multiply-adds: a multiply-add counts once.": _block_macs(
            pairs=lambda T, D: 4 * D * T * T
        ),
    },
    "lesson 13, 'A block'.",
    result_names=("number of multiply-adds",),
    tolerance=1e-6,  # of a sum in float32
    probe=_numbers_of,
    reference=_block_macs(),
)


def check_block_macs(fn: Callable, **grade_options) -> Report:
    """Check fn(tokens (S,), width, mlp_ratio) -> multiply-adds (S,) of an adaLN-Zero block."""
    return grade(_BLOCK_MACS, fn, **grade_options)
