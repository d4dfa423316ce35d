"""Answers to the exercises of lesson 31."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange

from . import right, wrong

# ---- axial_rotation


def place_of(x, rows, columns):
    """Row and column of each token, (T,)."""
    r, c = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return r.reshape(-1).to(x.dtype), c.reshape(-1).to(x.dtype)


def omegas(x, theta):
    half = x.shape[-1] // 2
    return torch.tensor([theta ** (-2 * k / half) for k in range(half // 2)], dtype=x.dtype)


def spun(x, angle):
    """Pairs of neighbors as complex numbers, times one of length 1."""
    pairs = torch.view_as_complex(rearrange(x, "... (k two) -> ... k two", two=2).contiguous())
    return rearrange(
        torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)), "... k two -> ... (k two)"
    )


@right("axial_rotation")
def rotation_complex(x, rows, columns, theta):
    r, c = place_of(x, rows, columns)
    w = omegas(x, theta)
    return spun(x, torch.cat([torch.outer(r, w), torch.outer(c, w)], dim=1))


@right("axial_rotation")
def rotation_matrices(x, rows, columns, theta):
    out = x.clone()
    half = x.shape[-1] // 2
    for axis, place in enumerate(place_of(x, rows, columns)):
        for k, w in enumerate(omegas(x, theta)):
            i = axis * half + 2 * k
            a, b, c, s = x[..., i], x[..., i + 1], (place * w).cos(), (place * w).sin()
            out[..., i], out[..., i + 1] = a * c - b * s, b * c + a * s
    return out


@wrong("axial_rotation", "Row and column are exchanged")
def rotation_columns_first(x, rows, columns, theta):
    r, c = place_of(x, rows, columns)
    return spun(x, torch.cat([torch.outer(c, omegas(x, theta)), torch.outer(r, omegas(x, theta))], dim=1))


@wrong("axial_rotation", "read column by column")
def rotation_column_by_column(x, rows, columns, theta):
    c, r = torch.meshgrid(torch.arange(columns), torch.arange(rows), indexing="ij")
    places = r.flatten().to(x.dtype), c.flatten().to(x.dtype)
    return spun(x, torch.cat([torch.outer(p, omegas(x, theta)) for p in places], dim=1))


@wrong("axial_rotation", "All channels are rotated by the row")
def rotation_rows_only(x, rows, columns, theta):
    r, _ = place_of(x, rows, columns)
    return spun(x, torch.outer(r, omegas(x, theta)).repeat(1, 2))


@wrong("axial_rotation", "All channels are rotated by the column")
def rotation_columns_only(x, rows, columns, theta):
    _, c = place_of(x, rows, columns)
    return spun(x, torch.outer(c, omegas(x, theta)).repeat(1, 2))


@wrong("axial_rotation", "RoPE with one axis")
def rotation_flat(x, rows, columns, theta):
    d = x.shape[-1]
    w = theta ** (-torch.arange(0, d, 2, dtype=x.dtype) / d)
    return spun(x, torch.outer(torch.arange(rows * columns, dtype=x.dtype), w))


@wrong("axial_rotation", "of the two axes alternate")
def rotation_alternating(x, rows, columns, theta):
    r, c = place_of(x, rows, columns)
    w = omegas(x, theta)
    angle = torch.zeros(rows * columns, x.shape[-1] // 2, dtype=x.dtype)
    angle[:, 0::2], angle[:, 1::2] = torch.outer(r, w), torch.outer(c, w)
    return spun(x, angle)


def turned_halves(x, angle):
    """As in many language models: the second half, negated, comes first."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = (torch.cat([f, f], dim=-1) for f in (angle.cos(), angle.sin()))
    return x * cos + torch.cat([-b, a], dim=-1) * sin


@wrong("axial_rotation", "Channel k is paired with channel k + d/2")
def rotation_rotate_half(x, rows, columns, theta):
    return turned_halves(
        x, torch.cat([torch.outer(p, omegas(x, theta)) for p in place_of(x, rows, columns)], dim=1)
    )


@wrong("axial_rotation", "channel k is paired with channel k + d/4")
def rotation_rotate_half_by_axis(x, rows, columns, theta):
    halves = zip(x.chunk(2, dim=-1), place_of(x, rows, columns))
    return torch.cat([turned_halves(part, torch.outer(p, omegas(x, theta))) for part, p in halves], dim=-1)


@wrong("axial_rotation", "are in another order")
def rotation_concatenated(x, rows, columns, theta):
    angle = torch.cat([torch.outer(p, omegas(x, theta)) for p in place_of(x, rows, columns)], dim=1)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], dim=-1)


@wrong("axial_rotation", "rotated backwards")
def rotation_backwards(x, rows, columns, theta):
    angle = torch.cat([torch.outer(p, omegas(x, theta)) for p in place_of(x, rows, columns)], dim=1)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * angle.cos() + b * angle.sin(), b * angle.cos() - a * angle.sin()], -1).flatten(-2)


@wrong("axial_rotation", "The pairs are reflected")
def rotation_reflected(x, rows, columns, theta):
    angle = torch.cat([torch.outer(p, omegas(x, theta)) for p in place_of(x, rows, columns)], dim=1)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * angle.cos() + b * angle.sin(), a * angle.sin() - b * angle.cos()], -1).flatten(-2)


@wrong("axial_rotation", "after it was rotated")
def rotation_in_place(x, rows, columns, theta):
    angle = torch.cat([torch.outer(p, omegas(x, theta)) for p in place_of(x, rows, columns)], dim=1)
    out = x.clone()
    out[..., 0::2] = out[..., 0::2] * angle.cos() - out[..., 1::2] * angle.sin()
    out[..., 1::2] = out[..., 0::2] * angle.sin() + out[..., 1::2] * angle.cos()
    return out


@wrong("axial_rotation", "are added, as in lesson 04")
def rotation_added(x, rows, columns, theta):
    angle = torch.cat([torch.outer(p, omegas(x, theta)) for p in place_of(x, rows, columns)], dim=1)
    waves = torch.zeros(rows * columns, x.shape[-1], dtype=x.dtype)
    waves[:, 0::2], waves[:, 1::2] = angle.sin(), angle.cos()
    return x + waves


def with_frequencies(exponent):
    """The right rotation with theta to another power, for each k."""

    def rotation(x, rows, columns, theta):
        d = x.shape[-1]
        w = torch.tensor([theta ** exponent(k, d) for k in range(d // 4)], dtype=x.dtype)
        return spun(x, torch.cat([torch.outer(p, w) for p in place_of(x, rows, columns)], dim=1))

    return rotation


@wrong("axial_rotation", "divided by the width of the head")
def rotation_slow(x, rows, columns, theta):
    return with_frequencies(lambda k, d: -2 * k / d)(x, rows, columns, theta)


@wrong("axial_rotation", "the factor 2 of the exponent is missing")
def rotation_slower(x, rows, columns, theta):
    return with_frequencies(lambda k, d: -k / d)(x, rows, columns, theta)


@wrong("axial_rotation", "One list of frequencies is divided")
def rotation_one_list(x, rows, columns, theta):
    d, (r, c) = x.shape[-1], place_of(x, rows, columns)
    w = theta ** (-torch.arange(0, d, 2, dtype=x.dtype) / d)
    return spun(x, torch.cat([torch.outer(r, w[: d // 4]), torch.outer(c, w[d // 4 :])], dim=1))


@wrong("axial_rotation", "All pairs have frequency 1")
def rotation_one_frequency(x, rows, columns, theta):
    return with_frequencies(lambda k, d: 0.0)(x, rows, columns, theta)


@wrong("axial_rotation", "The frequencies rise")
def rotation_rising(x, rows, columns, theta):
    return with_frequencies(lambda k, d: 4 * k / d)(x, rows, columns, theta)


@wrong("axial_rotation", "counted from 1")
def rotation_from_one(x, rows, columns, theta):
    w = omegas(x, theta)
    return spun(x, torch.cat([torch.outer(p + 1, w) for p in place_of(x, rows, columns)], dim=1))


@wrong("axial_rotation", "divided by the size of the grid")
def rotation_relative(x, rows, columns, theta):
    w, (r, c) = omegas(x, theta), place_of(x, rows, columns)
    return spun(x, torch.cat([torch.outer(r / rows, w), torch.outer(c / columns, w)], dim=1))


def write_places(words, places):
    """Register the rotation with other places, (token, rows, columns) -> row and column."""

    def rotation(x, rows, columns, theta):
        found = places(torch.arange(rows * columns), rows, columns)
        angle = [torch.outer(place.to(x.dtype), omegas(x, theta)) for place in found]
        return spun(x, torch.cat(angle, dim=1))

    rotation.__name__ = f"rotation_{'_'.join(words.split())}"
    wrong("axial_rotation", words)(rotation)


write_places("its row is the number over the columns", lambda i, rows, columns: (i // rows, i % columns))
write_places("The column is the remainder over the rows", lambda i, rows, columns: (i // columns, i % rows))
write_places("exchanged, and the token's number", lambda i, rows, columns: (i % columns, i // rows))
write_places("exchanged, and the remainder", lambda i, rows, columns: (i % rows, i // columns))
write_places("The row has fractions", lambda i, rows, columns: (i / columns, i % columns))
write_places(
    "from the center",
    lambda i, rows, columns: (i // columns - (rows - 1) / 2, i % columns - (columns - 1) / 2),
)
write_places(
    "run from 0 to 1", lambda i, rows, columns: (i // columns / (rows - 1), i % columns / (columns - 1))
)
write_places("Row and column are added", lambda i, rows, columns: [i // columns + i % columns] * 2)
write_places("The second half of the channels is not", lambda i, rows, columns: (i // columns, 0 * i))
write_places("The first half of the channels is not", lambda i, rows, columns: (0 * i, i % columns))


def write_frequencies(words, exponent, scale=1.0, base=None):
    """Register the rotation with other frequencies."""

    def rotation(x, rows, columns, theta):
        d = x.shape[-1]
        w = [scale * (base or theta) ** exponent(k, d) for k in range(d // 4)]
        angle = [torch.outer(p, torch.tensor(w, dtype=x.dtype)) for p in place_of(x, rows, columns)]
        return spun(x, torch.cat(angle, dim=1))

    rotation.__name__ = f"rotation_{'_'.join(words.split())}"
    wrong("axial_rotation", words)(rotation)


write_frequencies("twice as fast", lambda k, d: -2 * k / (d // 4))
write_frequencies("The last frequency is 1 over theta", lambda k, d: -k / (d // 4 - 1))
write_frequencies("counted from k = 1", lambda k, d: -2 * (k + 1) / (d // 2))
write_frequencies("in reverse order", lambda k, d: -2 * (d // 4 - 1 - k) / (d // 2))
write_frequencies("Theta is always 10000", lambda k, d: -2 * k / (d // 2), base=10000)
write_frequencies("multiplied by 2 pi", lambda k, d: -4 * k / d, scale=2 * math.pi)


def write_turn(words, turn):
    """Register another way to rotate, (x, angle (T, d/2)) -> x."""

    def rotation(x, rows, columns, theta):
        w = omegas(x, theta)
        return turn(x, torch.cat([torch.outer(p, w) for p in place_of(x, rows, columns)], dim=1))

    rotation.__name__ = f"rotation_{'_'.join(words.split())}"
    wrong("axial_rotation", words)(rotation)


def write_lines(words, lines):
    """Register a rotation of neighbors by other lines, (a, b, cos, sin) -> two channels."""
    write_turn(
        words,
        lambda x, angle: torch.stack(lines(x[..., 0::2], x[..., 1::2], angle.cos(), angle.sin()), -1).flatten(
            -2
        ),
    )


write_lines("Sine and cosine are exchanged", lambda a, b, cos, sin: (a * sin - b * cos, a * cos + b * sin))
write_lines(
    "Both lines of the rotation have a plus", lambda a, b, cos, sin: (a * cos + b * sin, a * sin + b * cos)
)
write_lines("the second before the cosine", lambda a, b, cos, sin: (a * cos - b * sin, a * sin - b * cos))
write_lines("the second before the sine", lambda a, b, cos, sin: (a * cos - b * sin, -a * sin + b * cos))
write_lines(
    "of each pair are returned in the wrong order",
    lambda a, b, cos, sin: (b * cos + a * sin, a * cos - b * sin),
)


def rotated_half(x):
    a, b = x.chunk(2, dim=-1)
    return torch.cat([-b, a], dim=-1)


def repeated(angle, neighbors):
    return angle.repeat_interleave(2, dim=-1) if neighbors else torch.cat([angle, angle], dim=-1)


write_turn(
    "the results stand next to each other",
    lambda x, angle: rearrange(turned_halves(x, angle), "... (two k) -> ... (k two)", two=2),
)
write_turn(
    "In each half, the rotated channels",
    lambda x, angle: rearrange(spun(x, angle), "... (half k two) -> ... (half two k)", half=2, two=2),
)
write_turn(
    "the angles are those of pairs of neighbors",
    lambda x, angle: x * repeated(angle, True).cos() + rotated_half(x) * repeated(angle, True).sin(),
)
write_turn(
    "the angles are those of the pairs k and k + d/2",
    lambda x, angle: (
        x * repeated(angle, False).cos()
        + spun(x, torch.full_like(angle, math.pi / 2)) * repeated(angle, False).sin()
    ),
)


# ---- normalized_scores


def rms(x, eps):
    return torch.sqrt(torch.mean(x * x, dim=-1, keepdim=True) + eps)


@right("normalized_scores")
def scores_builtin(q, k, q_scale, k_scale, eps):
    d = q.shape[-1:]
    return torch.einsum(
        "nhtd,nhsd->nhts", F.rms_norm(q, d, q_scale, eps), F.rms_norm(k, d, k_scale, eps)
    ) / math.sqrt(*d)


@right("normalized_scores")
def scores_divided_last(q, k, q_scale, k_scale, eps):
    raw = (q * q_scale * k_scale) @ k.transpose(-1, -2)
    return raw / (rms(q, eps) * rms(k, eps).transpose(-1, -2) * q.shape[-1] ** 0.5)


def scores_of(a, b):
    return a @ b.transpose(-2, -1) / math.sqrt(a.shape[-1])


@wrong("normalized_scores", "The mean is removed first")
def scores_layer_norm(q, k, q_scale, k_scale, eps):
    d = q.shape[-1:]
    return scores_of(F.layer_norm(q, d, q_scale, eps=eps), F.layer_norm(k, d, k_scale, eps=eps))


@wrong("normalized_scores", "divided by their standard deviation")
def scores_deviation(q, k, q_scale, k_scale, eps):
    a, b = (x / (x.var(-1, keepdim=True, correction=0) + eps).sqrt() for x in (q, k))
    return scores_of(a * q_scale, b * k_scale)


@wrong("normalized_scores", "The vectors have length 1")
def scores_unit_length(q, k, q_scale, k_scale, eps):
    a, b = (x * ((x**2).sum(-1, keepdim=True) + eps).rsqrt() for x in (q, k))
    return scores_of(a * q_scale, b * k_scale)


@wrong("normalized_scores", "The square root is missing")
def scores_mean_square(q, k, q_scale, k_scale, eps):
    return scores_of(q / rms(q, eps) ** 2 * q_scale, k / rms(k, eps) ** 2 * k_scale)


@wrong("normalized_scores", "eps is added to the root")
def scores_eps_outside(q, k, q_scale, k_scale, eps):
    return scores_of(q / (rms(q, 0) + eps) * q_scale, k / (rms(k, 0) + eps) * k_scale)


@wrong("normalized_scores", "eps is not used")
def scores_no_eps(q, k, q_scale, k_scale, eps):
    return scores_of(q / rms(q, 0) * q_scale, k / rms(k, 0) * k_scale)


@wrong("normalized_scores", "mean absolute value")
def scores_absolute(q, k, q_scale, k_scale, eps):
    a, b = (x / (x.abs().mean(-1, True) + eps) for x in (q, k))
    return scores_of(a * q_scale, b * k_scale)


@wrong("normalized_scores", "All heads of a token share one norm")
def scores_across_heads(q, k, q_scale, k_scale, eps):
    a, b = (x / (x.pow(2).mean(dim=(1, 3), keepdim=True) + eps).sqrt() for x in (q, k))
    return scores_of(a * q_scale, b * k_scale)


@wrong("normalized_scores", "The mean runs over the tokens")
def scores_over_tokens(q, k, q_scale, k_scale, eps):
    a, b = (x / (x.pow(2).mean(dim=-2, keepdim=True) + eps).sqrt() for x in (q, k))
    return scores_of(a * q_scale, b * k_scale)


@wrong("normalized_scores", "The keys are not normalized")
def scores_raw_keys(q, k, q_scale, k_scale, eps):
    return scores_of(q / rms(q, eps) * q_scale, k * k_scale)


@wrong("normalized_scores", "The queries are not normalized")
def scores_raw_queries(q, k, q_scale, k_scale, eps):
    return scores_of(q * q_scale, k / rms(k, eps) * k_scale)


@wrong("normalized_scores", "The learned scales are not used")
def scores_no_scales(q, k, q_scale, k_scale, eps):
    return scores_of(q / rms(q, eps), k / rms(k, eps))


@wrong("normalized_scores", "The scale of the keys is not used")
def scores_query_scale(q, k, q_scale, k_scale, eps):
    return scores_of(q / rms(q, eps) * q_scale, k / rms(k, eps))


@wrong("normalized_scores", "The scale of the queries is not used")
def scores_key_scale(q, k, q_scale, k_scale, eps):
    return scores_of(q / rms(q, eps), k / rms(k, eps) * k_scale)


@wrong("normalized_scores", "The learned scale is 1 + w")
def scores_one_plus(q, k, q_scale, k_scale, eps):
    return scores_of(q / rms(q, eps) * (q_scale + 1), k / rms(k, eps) * (k_scale + 1))


@wrong("normalized_scores", "The learned scales come before the norm")
def scores_scaled_first(q, k, q_scale, k_scale, eps):
    q, k = q * q_scale, k * k_scale
    return scores_of(q / rms(q, eps), k / rms(k, eps))


@wrong("normalized_scores", "not divided by the square root of the width")
def scores_undivided(q, k, q_scale, k_scale, eps):
    return (q / rms(q, eps) * q_scale) @ (k / rms(k, eps) * k_scale).transpose(2, 3)


@wrong("normalized_scores", "The scores are divided by the width of a head")
def scores_over_width(q, k, q_scale, k_scale, eps):
    return (q / rms(q, eps) * q_scale) @ (k / rms(k, eps) * k_scale).transpose(2, 3) / q.shape[3]


@wrong("normalized_scores", "These are the weights after the softmax")
def scores_weights(q, k, q_scale, k_scale, eps):
    return torch.softmax(scores_of(q / rms(q, eps) * q_scale, k / rms(k, eps) * k_scale), dim=-1)


def write_norm(words, norm, score=scores_of):
    """Register scores with another norm, (x, eps) -> x, or other scores of the scaled vectors."""

    def answer(q, k, q_scale, k_scale, eps):
        return score(norm(q, eps) * q_scale, norm(k, eps) * k_scale)

    answer.__name__ = f"scores_{'_'.join(words.split())}"
    wrong("normalized_scores", words)(answer)


def centered(x):
    return x - x.mean(-1, keepdim=True)


def undivided(a, b):
    return a @ b.transpose(-2, -1)


write_norm(
    "The vectors are divided by their standard deviation, with eps",
    lambda x, eps: x / (x.std(-1, keepdim=True, correction=0) + eps),
)
write_norm(
    "The vectors are divided by their standard deviation, with d - 1; it",
    lambda x, eps: x / (x.var(-1, keepdim=True) + eps).sqrt(),
)
write_norm(
    "The vectors are divided by their standard deviation, with d - 1, and",
    lambda x, eps: x / (x.std(-1, keepdim=True) + eps),
)
write_norm(
    "the vectors are divided by their standard deviation, with eps",
    lambda x, eps: centered(x) / (x.std(-1, keepdim=True, correction=0) + eps),
)
write_norm(
    "the vectors are divided by their standard deviation, with d - 1; it",
    lambda x, eps: centered(x) / (x.var(-1, keepdim=True) + eps).sqrt(),
)
write_norm(
    "the vectors are divided by their standard deviation, with d - 1, and",
    lambda x, eps: centered(x) / (x.std(-1, keepdim=True) + eps),
)
write_norm("eps is added to the length; divided", lambda x, eps: x / (x.norm(dim=-1, keepdim=True) + eps))
write_norm("eps only limits the length", lambda x, eps: F.normalize(x, dim=-1, eps=eps))
write_norm(
    "These are cosines: the vectors have length 1",
    lambda x, eps: x * (x.square().sum(-1, keepdim=True) + eps) ** -0.5,
    undivided,
)
write_norm(
    "with eps added to the lengths", lambda x, eps: x / (x.norm(dim=-1, keepdim=True) + eps), undivided
)
write_norm("with eps as the smallest length", lambda x, eps: F.normalize(x, dim=-1, eps=eps), undivided)
write_norm("multiplied by their root mean square", lambda x, eps: x * rms(x, eps))
write_norm("The square of the mean", lambda x, eps: x / (x.mean(-1, keepdim=True) ** 2 + eps) ** 0.5)
write_norm("eps is added to each channel", lambda x, eps: x / rms(x + eps, 0))
write_norm(
    "The mean runs over the heads;", lambda x, eps: x / (x.square().mean(1, keepdim=True) + eps).sqrt()
)
write_norm(
    "The mean runs over the images", lambda x, eps: x / (x.square().mean(0, keepdim=True) + eps).sqrt()
)
write_norm("normalized twice", lambda x, eps: x / rms(x, eps) / rms(x / rms(x, eps), eps))
write_norm("Neither queries nor keys are normalized", lambda x, eps: x)
write_norm(
    "of the number of queries",
    lambda x, eps: x / rms(x, eps),
    lambda a, b: undivided(a, b) / a.shape[2] ** 0.5,
)
write_norm(
    "of the number of keys", lambda x, eps: x / rms(x, eps), lambda a, b: undivided(a, b) / b.shape[2] ** 0.5
)
write_norm(
    "the width of all heads",
    lambda x, eps: x / rms(x, eps),
    lambda a, b: undivided(a, b) / math.sqrt(a.shape[1] * a.shape[3]),
)
write_norm(
    "multiplied by the square root of the width",
    lambda x, eps: x / rms(x, eps),
    lambda a, b: undivided(a, b) * math.sqrt(a.shape[3]),
)
write_norm("each key with each query", lambda x, eps: x / rms(x, eps), lambda a, b: scores_of(b, a))


@wrong("normalized_scores", "The learned scales are added")
def scores_added_scales(q, k, q_scale, k_scale, eps):
    return scores_of(q / rms(q, eps) + q_scale, k / rms(k, eps) + k_scale)


@wrong("normalized_scores", "divided by the learned scales")
def scores_divided_by_scales(q, k, q_scale, k_scale, eps):
    return scores_of(q / (rms(q, eps) * q_scale), k / (rms(k, eps) * k_scale))


@wrong("normalized_scores", "the mean of the learned scales")
def scores_mean_scale(q, k, q_scale, k_scale, eps):
    return scores_of(q / rms(q, eps), k / rms(k, eps)) * torch.mean(q_scale * k_scale)


@wrong("normalized_scores", "The learned scales are used twice")
def scores_scaled_twice(q, k, q_scale, k_scale, eps):
    q, k = q * q_scale, k * k_scale
    return scores_of(q / rms(q, eps) * q_scale, k / rms(k, eps) * k_scale)


@wrong("normalized_scores", "the scores of plain attention")
def scores_plain(q, k, q_scale, k_scale, eps):
    return scores_of(q, k)


@wrong("normalized_scores", "The scores are normalized")
def scores_normalized_late(q, k, q_scale, k_scale, eps):
    scores = scores_of(q * q_scale, k * k_scale)
    return scores / rms(scores, eps)
