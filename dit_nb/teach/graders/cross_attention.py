"""Graders of lesson 09: cross-attention from patches to the condition, and to sentences with padding."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dit_nb.teach.graders.attention import (
    _NO_SCALE,
    _OVER_QUERIES,
    _RESHAPED_KEYS,
    _attention,
    _attention_loops,
    _reshaped_keys,
)
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_cross_attention", "check_padded_attention"]


def _cross_attention_loops(x: Tensor, context: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor) -> Tensor:
    q, k, v = (torch.einsum("ntd,de->nte", a, w) for a, w in ((x, w_q), (context, w_k), (context, w_v)))
    return _attention_loops(q[:, None], k[:, None], v[:, None])[:, 0]


def _context_cases(rng: RandomInputs) -> list[Case]:
    """As many tokens as context tokens, as many as images, and more."""
    sizes = [(2, 2, 3), (3, 3, 4), (2, 5, 2), (rng.choice(2, 3), rng.choice(4, 6), 5)]
    return [
        Case(
            f"{n} x {t} tokens, D = {d}",
            (rng.normal(n, t, d), rng.normal(n, 2, d), *(rng.normal(d, d) / d**0.5 for _ in range(3))),
        )
        for n, t, d in sizes
    ]


def _cross_attention(
    q: Callable = lambda x, c: x,
    k: Callable = lambda x, c: c,
    v: Callable = lambda x, c: c,
    attention: Callable | None = None,
) -> Callable:
    """Cross-attention with other sources of queries, keys and values."""
    attend = _attention() if attention is None else attention
    return lambda x, c, w_q, w_k, w_v: attend(q(x, c) @ w_q, k(x, c) @ w_k, v(x, c) @ w_v)


def _image(x, c):
    return x


def _condition(x, c):
    return c


def _summed_condition(x, c):
    return c.sum(1, keepdim=True)


def _both(x, c):
    return torch.cat([x, c], 1)


_ONE_CONTEXT = "what a name stands for when the next line uses it."

_CROSS_ATTENTION = Exercise(
    "cross_attention",
    _cross_attention_loops,
    _context_cases,
    {
        "Keys and values come from the image: that is self-attention, and the condition is not used.": (
            _cross_attention(k=_image, v=_image),
            "lesson 09, 'Where queries, keys and values come from'.",
        ),
        "The condition gives the queries, the image keys and values; it must be the other way round.": (
            _cross_attention(q=_condition, k=_image, v=_image),
            "lesson 09, 'Where queries, keys and values come from'.",
        ),
        "The queries come from the condition; they must come from the patches.": (
            _cross_attention(q=_condition),
            "lesson 09, 'Where queries, keys and values come from'.",
        ),
        "Timestep and label are added up to one token: with a single key all weights are 1.": (
            _cross_attention(k=_summed_condition, v=_summed_condition),
            "lesson 09, 'A context of one'.",
        ),
        "The weights are transposed: tokens are multiplied with a matrix from the right, without a transpose.": (
            lambda x, c, w_q, w_k, w_v: _cross_attention()(x, c, w_q.mT, w_k.mT, w_v.mT),
            "nn.functional.linear(x, w) multiplies with the transpose of w.",
        ),
        "The context lacks the label: keys and values come from t alone, and all weights are 1.": _cross_attention(
            k=lambda x, c: c[:, :1], v=lambda x, c: c[:, :1]
        ),
        "Keys and values come from image and condition together; that would be in-context conditioning.": (
            _cross_attention(k=_both, v=_both),
            "lesson 09, 'Where queries, keys and values come from'.",
        ),
        "The image tokens are queries as they are: multiply them with w_q first.": (
            lambda x, c, w_q, w_k, w_v: _attention()(x, c @ w_k, c @ w_v)
        ),
        "The context is used as keys as it is: multiply it with w_k first.": (
            lambda x, c, w_q, w_k, w_v: _attention()(x @ w_q, c, c @ w_v)
        ),
        "The context is used as values as it is: multiply it with w_v first.": (
            lambda x, c, w_q, w_k, w_v: _attention()(x @ w_q, c @ w_k, c)
        ),
        "The matrices of queries and keys are exchanged.": lambda x, c, w_q, w_k, w_v: _cross_attention()(
            x, c, w_k, w_q, w_v
        ),
        "The scores are divided by D; they must be divided by its square root.": _cross_attention(
            attention=_attention(lambda q, k: 1 / q.shape[-1])
        ),
        "The scale comes from the number of keys; it must come from the width of the tokens.": _cross_attention(
            attention=_attention(lambda q, k: k.shape[-2] ** -0.5)
        ),
        "The scale comes from the number of image tokens; it must come from their width.": _cross_attention(
            attention=_attention(lambda q, k: q.shape[-2] ** -0.5)
        ),
        "There is no softmax: the weights do not sum to 1.": _cross_attention(
            attention=_attention(weights=lambda s: s)
        ),
        "Each weight is a sigmoid of its own; a softmax makes the two sum to 1.": _cross_attention(
            attention=_attention(weights=lambda s: s.sigmoid())
        ),
        "The matrices of keys and values are exchanged.": lambda x, c, w_q, w_k, w_v: _cross_attention()(
            x, c, w_q, w_v, w_k
        ),
        _OVER_QUERIES: _cross_attention(attention=_attention(weights=lambda s: s.softmax(-2))),
        _NO_SCALE: (
            _cross_attention(attention=_attention(lambda q, k: 1)),
            "lesson 06, 'Why divide by √d?'.",
        ),
        "The image is added to the result; that is the block's business, not the attention's.": lambda x, *rest: (
            x + _cross_attention()(x, *rest)
        ),
        "The values are made with w_k, the matrix of the keys; they have their own.": (
            lambda x, c, w_q, w_k, w_v: _cross_attention()(x, c, w_q, w_k, w_k)
        ),
        "The keys are made with w_q, the matrix of the queries; they have their own.": (
            lambda x, c, w_q, w_k, w_v: _cross_attention()(x, c, w_q, w_q, w_v)
        ),
        "The keys are made with w_v, the matrix of the values; they have their own.": (
            lambda x, c, w_q, w_k, w_v: _cross_attention()(x, c, w_q, w_v, w_v)
        ),
        "The values are made from the keys, with both matrices; they must be made from the context.": (
            lambda x, c, w_q, w_k, w_v: _attention()(x @ w_q, c @ w_k, c @ w_k @ w_v),
            _ONE_CONTEXT,
        ),
        "The keys are made from the values, with both matrices; they must be made from the context.": (
            lambda x, c, w_q, w_k, w_v: _attention()(x @ w_q, c @ w_v @ w_k, c @ w_v),
            _ONE_CONTEXT,
        ),
        _RESHAPED_KEYS: _cross_attention(attention=lambda q, k, v: _attention()(q, _reshaped_keys(k), v)),
        "The queries are added to the result; there is no residual connection here.": lambda x, c, w_q, *rest: (
            x @ w_q + _cross_attention()(x, c, w_q, *rest)
        ),
        "The softmax comes twice: weights are no scores.": _cross_attention(
            attention=_attention(weights=lambda s: s.softmax(-1).softmax(-1))
        ),
        "Both condition tokens get the same weight: the scores are not used.": _cross_attention(
            attention=_attention(weights=lambda s: torch.full_like(s, 1 / s.shape[-1]))
        ),
        "The scores have the wrong sign: the worst key gets most weight.": _cross_attention(
            attention=_attention(lambda q, k: -(q.shape[-1] ** -0.5))
        ),
        "All weight goes to the better key; the other one counts too.": _cross_attention(
            attention=_attention(weights=lambda s: (s == s.amax(-1, keepdim=True)).to(s.dtype))
        ),
        "The exponentials are not divided by their sum, so the weights do not sum to 1.": _cross_attention(
            attention=_attention(weights=torch.exp)
        ),
        "The softmax runs over the images of the batch; each image weights its own keys.": _cross_attention(
            attention=_attention(weights=lambda s: s.softmax(0))
        ),
        "The scores are multiplied by the square root of the width; they should be divided by it.": _cross_attention(
            attention=_attention(lambda q, k: q.shape[-1] ** 0.5)
        ),
        "The scale comes after the softmax, so the weights no longer sum to 1.": lambda x, c, *w: (
            _cross_attention(attention=_attention(lambda q, k: 1))(x, c, *w) / x.shape[-1] ** 0.5
        ),
    },
    "lesson 09, 'The block'.",
    tolerance=1e-8,
    reference=_cross_attention(),
)


def check_cross_attention(fn: Callable, **grade_options) -> Report:
    """Check fn(x (N, T, D), context (N, 2, D), w_q, w_k, w_v: each (D, D)) -> (N, T, D), one head."""
    return grade(_CROSS_ATTENTION, fn, **grade_options)


def _padded_loops(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor) -> Tensor:
    rows = []
    for n, length in enumerate(lengths.tolist()):
        rows.append(_attention_loops(*(a[n, None, None] for a in (q, k[:, :length], v[:, :length])))[0, 0])
    return torch.stack(rows)


def _sentence_cases(rng: RandomInputs) -> list[Case]:
    """Sentences of other lengths in each batch; one of a single word, one without padding."""
    sizes = [(3, 4, 5, 3, [2, 5, 4]), (2, 3, 4, 2, [3, 1]), (4, 2, 6, 4, [6, 3, 1, 5])]
    lengths = [int(rng.integers(2, 7)), int(rng.integers(1, 7)), 7]
    sizes.append((3, 5, 8, 3, lengths))
    return [
        Case(
            f"{n} x {t} patches, sentences of {', '.join(map(str, words))} (padded to {s})",
            (rng.normal(n, t, d), rng.normal(n, s, d), rng.normal(n, s, d), torch.tensor(words)),
        )
        for n, t, s, d, words in sizes
    ]


def _padded(
    real: Callable = lambda places, lengths: places < lengths,
    weigh: Callable = lambda scores, real: scores.masked_fill(~real, -math.inf).softmax(-1),
    scale: Callable = lambda q, k: q.shape[-1] ** -0.5,
) -> Callable:
    """Attention to real words, with another idea of which they are, or other weights."""

    def attend(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor) -> Tensor:
        places = torch.arange(k.shape[1])
        return (
            weigh(q @ k.mT * scale(q, k), real(places, lengths[:, None])[:, None].expand(len(q), -1, -1)) @ v
        )

    return attend


def _zeroed(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor) -> Tensor:
    """Attention with keys and values of the padding set to zero."""
    real = (torch.arange(k.shape[1]) < lengths[:, None])[..., None]
    return _attention()(q, k * real, v * real)


def _filled(number: float) -> Callable:
    return _padded(weigh=lambda s, real: s.masked_fill(~real, number).softmax(-1))


_PADDING = "lesson 09, 'From two tokens to a sentence'."

_PADDED_ATTENTION = Exercise(
    "padded_attention",
    _padded_loops,
    _sentence_cases,
    {
        "The padding takes part as if it were words: lengths is not used.": (
            _padded(weigh=lambda s, real: s.softmax(-1)),
            _PADDING,
        ),
        "The padding is removed after the softmax: the weights of the words no longer sum to 1.": (
            _padded(weigh=lambda s, real: s.softmax(-1) * real),
            _PADDING,
        ),
        "The scores of the padding are 0, which is no small score: exp(0) is 1.": (
            _padded(weigh=lambda s, real: (s * real).softmax(-1)),
            _PADDING,
        ),
        "Keys and values of the padding are zero, but it still gets weight: exp(0) is 1.": (
            _zeroed,
            _PADDING,
        ),
        "One place too many: the first token of the padding takes part.": _padded(lambda p, n: p <= n),
        "One word too few: the last word of each sentence is masked.": _padded(lambda p, n: p < n - 1),
        "The first word of each sentence is masked; places count from 0.": _padded(
            lambda p, n: (p > 0) & (p <= n - 1)
        ),
        "The first sentence's length is used for all; each image has a sentence of its own.": _padded(
            lambda p, n: p < n[:1].expand_as(n)
        ),
        "All sentences are cut to the longest; shorter ones still attend to padding.": _padded(
            lambda p, n: p < n.max().expand_as(n)
        ),
        "All sentences are cut to the shortest: words are lost.": _padded(
            lambda p, n: p < n.min().expand_as(n)
        ),
        "Words and padding are exchanged: only the padding gets weight.": _padded(lambda p, n: p >= n),
        "Words and padding are exchanged: the mask is True at the padding, where attention takes True for a place that "
        "counts.": _padded(
            lambda p, n: p >= n, lambda s, real: s.masked_fill(~real, -math.inf).softmax(-1).nan_to_num(0)
        ),
        "Words and padding are exchanged: the words get scores far below those of the padding.": _padded(
            lambda p, n: p >= n, lambda s, real: s.masked_fill(~real, -1e9).softmax(-1)
        ),
        "All words have the same weight: the scores are not used.": _padded(
            weigh=lambda s, real: real / real.sum(-1, keepdim=True) + 0 * s
        ),
        _NO_SCALE: (_padded(scale=lambda q, k: 1), "lesson 06, 'Why divide by √d?'."),
        "The scores are divided by D; they must be divided by its square root.": _padded(
            scale=lambda q, k: 1 / q.shape[-1]
        ),
        _OVER_QUERIES: (_padded(weigh=lambda s, real: s.softmax(-2) * real), _PADDING),
        "The last places of each sentence are taken for its words; the padding stands at the end.": (
            lambda q, k, v, lengths: _padded(lambda p, n: p >= k.shape[1] - n)(q, k, v, lengths)
        ),
        "The scores of the padding are plus infinity, which makes nan of the weights.": _filled(math.inf),
        "The scores of the padding are -10: its weight is small, and it must be exactly 0.": _filled(-10.0),
        "The scores of the padding are -1, a score like any other.": _filled(-1.0),
        "The mask is made of numbers, so that it is added to the scores: 1 for a word, 0 for padding.": _padded(
            weigh=lambda s, real: (s + real).softmax(-1)
        ),
        "The mask of minus infinities is multiplied with the scores; add it, or fill it in.": _padded(
            weigh=lambda s, real: (s * torch.where(real, 1.0, -math.inf)).softmax(-1)
        ),
        "The softmax comes twice: weights are no scores, and the padding gets weight again.": _padded(
            weigh=lambda s, real: s.masked_fill(~real, -math.inf).softmax(-1).softmax(-1)
        ),
        "The weighted mean is divided by the number of words once more: the weights sum to 1 already.": _padded(
            weigh=lambda s, real: s.masked_fill(~real, -math.inf).softmax(-1) / real.sum(-1, keepdim=True)
        ),
        "The scores have the wrong sign: the worst word gets most weight.": _padded(
            weigh=lambda s, real: (-s).masked_fill(~real, -math.inf).softmax(-1)
        ),
        "The exponentials are not divided by their sum, so the weights do not sum to 1.": _padded(
            weigh=lambda s, real: s.exp() * real
        ),
        "Each weight is a sigmoid of its own; a softmax makes those of all words sum to 1.": _padded(
            weigh=lambda s, real: s.sigmoid() * real
        ),
        "All weight goes to the best word; the others count too.": _padded(
            weigh=lambda s, real: (s == s.masked_fill(~real, -math.inf).amax(-1, keepdim=True)).to(s.dtype)
        ),
        _RESHAPED_KEYS: lambda q, k, v, lengths: _padded()(q, _reshaped_keys(k), v, lengths),
        "There is no softmax: the weights do not sum to 1.": _padded(weigh=lambda s, real: s * real),
    },
    _PADDING,
    tolerance=1e-8,
    reference=_padded(),
)


def check_padded_attention(fn: Callable, **grade_options) -> Report:
    """Check fn(q (N, T, D), k (N, S, D), v (N, S, D), lengths (N,)) -> (N, T, D), one head."""
    return grade(_PADDED_ATTENTION, fn, **grade_options)
