"""Graders of lesson 33: one attention over two streams with padding, and the update of a stream."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_two_stream_attention", "check_stream_update"]

# ---- two_stream_attention


def _two_stream_loops(image: Tensor, text: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """One query after the other."""
    _, n_images, heads, tokens, width = image.shape
    found = torch.zeros(n_images, heads, tokens + text.shape[3], width, dtype=image.dtype)
    for n in range(n_images):
        for h in range(heads):
            q, k, v = ([*image[i, n, h], *text[i, n, h]] for i in range(3))
            kept = [*range(tokens), *(tokens + s for s, there in enumerate(keep[n].tolist()) if there)]
            for i, query in enumerate(q):
                weights = [math.exp(float(query @ k[j]) / math.sqrt(width)) for j in kept]
                for j, weight in zip(kept, weights):
                    found[n, h, i] += weight / sum(weights) * v[j]
    return found[:, :, :tokens], found[:, :, tokens:]


def _joint_cases(rng: RandomInputs) -> list[Case]:
    """More image tokens than words, as many, fewer; with and without padding."""
    sizes = [(2, 2, 5, 3, 4), (2, 3, 4, 4, 2), (1, 1, 3, 5, 3), (3, 2, rng.choice(4, 6), 2, 5)]
    words = [[1, 3], [2, 3], [2], [1, 2, 1]]
    cases = []
    for (n, h, t, s, d), lengths in zip(sizes, words):
        image, text = (1.5 * rng.normal(3, n, h, m, d) for m in (t, s))
        keep = torch.arange(s) < torch.tensor(lengths)[:, None]
        cases.append(
            Case(f"{n} x {h} heads, {t} image tokens, {s} words, {lengths} kept", (image, text, keep))
        )
    return cases


def _scores(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.mT / q.shape[-1] ** 0.5


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    return scores.masked_fill(~mask[:, None, None, :], -math.inf)


def _joint(
    scores: Callable = _scores,
    mask: Callable = _masked,
    weights: Callable = lambda s, m: s.softmax(-1),
    make_mask: Callable = lambda image, keep: F.pad(keep, (image.shape[3], 0), value=True),
) -> Callable:
    """Joint attention with other scores, another mask, or other weights."""

    def attend(image, text, keep):
        q, k, v = torch.cat([image, text], 3)
        m = make_mask(image, keep)
        found = weights(mask(scores(q, k), m), m) @ v
        return found[:, :, : image.shape[3]], found[:, :, image.shape[3] :]

    return attend


def _text_first(image, text, keep):
    q, k, v = torch.cat([text, image], 3)
    s = _masked(_scores(q, k), F.pad(keep, (0, image.shape[3]), value=True))
    found = s.softmax(-1) @ v
    return found[:, :, : image.shape[3]], found[:, :, image.shape[3] :]


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    s = _scores(q, k)
    return (s if mask is None else _masked(s, mask)).softmax(-1) @ v


def _apart(image, text, keep):
    return _attend(*image), _attend(*text, keep)


def _crossed(image, text, keep):
    return _attend(image[0], *text[1:], keep), _attend(text[0], *image[1:])


def _image_self_text_both(image, text, keep):
    return _attend(*image), _joint()(image, text, keep)[1]


def _text_self_image_both(image, text, keep):
    return _joint()(image, text, keep)[0], _attend(*text, keep)


def _two_softmaxes(share: float) -> Callable:
    def attend(image, text, keep):
        parts = ((image[1], image[2], None), (text[1], text[2], keep))
        return tuple(share * sum(_attend(q, k, v, m) for k, v, m in parts) for q in (image[0], text[0]))

    return attend


def _padding_for_text(image, text, keep):
    return _joint()(image, text, keep)[0], _joint(mask=lambda s, m: s)(image, text, keep)[1]


def _padding_for_image(image, text, keep):
    return _joint(mask=lambda s, m: s)(image, text, keep)[0], _joint()(image, text, keep)[1]


def _zero_padding(*parts: int) -> Callable:
    """No mask, but zeros in queries, keys or values."""

    def attend(image, text, keep):
        chosen = torch.tensor(parts, dtype=torch.bool).view(3, 1, 1, 1, 1)
        return _joint(mask=lambda s, m: s)(image, text * (keep[None, :, None, :, None] | ~chosen), keep)

    return attend


def _no_result_for_padding(image, text, keep):
    found = _joint()(image, text, keep)
    return found[0], found[1] * keep[:, None, :, None]


def _added(number: float) -> Callable:
    """A number that is added to the scores of padding."""
    return _joint(mask=lambda s, m: s + number * ~m[:, None, None])


def _filled(number: float) -> Callable:
    """A number that replaces the scores of padding."""
    return _joint(mask=lambda s, m: s.masked_fill(~m[:, None, None], number))


def _sequence(text_first: bool, mask_text_first: bool, split: Callable) -> Callable:
    """Attention over one sequence whose mask and split may assume another order."""

    def attend(image, text, keep):
        q, k, v = torch.cat([text, image] if text_first else [image, text], 3)
        beside = (0, image.shape[3]) if mask_text_first else (image.shape[3], 0)
        found = _masked(_scores(q, k), F.pad(keep, beside, value=True)).softmax(-1) @ v
        return split(found, image.shape[3], text.shape[3])

    return attend


def _at_image_tokens(found: Tensor, tokens: int, words: int) -> tuple[Tensor, Tensor]:
    return found[:, :, :tokens], found[:, :, tokens:]


def _behind_words(found: Tensor, tokens: int, words: int) -> tuple[Tensor, Tensor]:
    return found[:, :, words:], found[:, :, :words]


def _other_scale(size: Callable) -> Callable:
    """Joint attention with scores over the root of another number."""
    return _joint(lambda q, k: q @ k.mT / size(q) ** 0.5)


def _mask_of_both(s: Tensor, m: Tensor) -> Tensor:
    return s.masked_fill(~(m[:, None, None, :] & m[:, None, :, None]), -math.inf)


_MASK_HINT = "lesson 33, 'Padding and its mask'."
_JOINT_HINT = "lesson 33, 'One attention for two streams'."

_ORDER_HINT = "the order of the streams before and after the attention."

_FINITE = {
    f"The score of padding {told}; its weight is then small, not 0.": (make(number), _MASK_HINT)
    for told, make, number in (
        ("is set to -10", _filled, -10.0),
        ("is set to -5", _filled, -5.0),
        ("is set to -1", _filled, -1.0),
        ("is lowered by 10", _added, -10.0),
    )
}

_ORDERS = {
    "The text stands first in the sequence, but mask and split take the image to be first.": _sequence(
        True, False, _at_image_tokens
    ),
    "The text stands first in the sequence, but the mask takes the image to be first: it hides image "
    "tokens.": (_sequence(True, False, _behind_words)),
    "The image stands first in the sequence, but the result is split as if the text did.": _sequence(
        False, False, _behind_words
    ),
    "The image stands first in the sequence, but mask and split take the text to be first.": _sequence(
        False, True, _behind_words
    ),
    "The result is split at the number of words; the image comes first, and has its own number of tokens.": (
        _sequence(False, False, lambda found, tokens, words: (found[:, :, :words], found[:, :, words:]))
    ),
    "The result is split in two equal parts; each stream has its own number of tokens.": _sequence(
        False, False, lambda found, tokens, words: found.chunk(2, 2)
    ),
}

_TWO_STREAM = Exercise(
    "two_stream_attention",
    _two_stream_loops,
    _joint_cases,
    {
        "Padding is attended: `keep` is not used.": (_joint(mask=lambda s, m: s), _MASK_HINT),
        "The mask is inverted: only padding and the image are attended.": (
            _joint(make_mask=lambda image, keep: F.pad(~keep, (image.shape[3], 0), value=True)),
            _MASK_HINT,
        ),
        "The mask lies on the wrong tokens: `keep` describes the text, and here it hides image tokens.": (
            _joint(make_mask=lambda image, keep: F.pad(keep, (0, image.shape[3]), value=True)),
            "which stream comes first in the sequence.",
        ),
        "The score of padding is set to 0: its weight is then exp(0), not 0.": (
            _joint(mask=lambda s, m: s * m[:, None, None]),
            _MASK_HINT,
        ),
        **_FINITE,
        "Padding may attend to no key, so that its result is nan; the mask must lie on the keys alone.": (
            _joint(mask=_mask_of_both),
            "which axis of the scores is that of the keys.",
        ),
        "Queries, keys and values of padding are set to zero: its weight is then exp(0), not 0.": (
            _zero_padding(1, 1, 1),
            _MASK_HINT,
        ),
        "Keys and values of padding are set to zero: its weight is then exp(0), not 0.": (
            _zero_padding(0, 1, 1),
            _MASK_HINT,
        ),
        "The result for padding is set to zero; it attends as all others do.": (
            _no_result_for_padding,
            _JOINT_HINT,
        ),
        "The weights of padding are removed after the softmax: those that are left no longer sum to 1.": (
            _joint(mask=lambda s, m: s, weights=lambda s, m: s.softmax(-1) * m[:, None, None]),
            _MASK_HINT,
        ),
        "The mask is added as 0 and 1; to leave a key out, its score must become minus infinity.": (
            _joint(mask=lambda s, m: s + m[:, None, None].to(s.dtype)),
            _MASK_HINT,
        ),
        "The mask lies on the queries; it must lie on the keys.": (
            _joint(mask=lambda s, m: s, weights=lambda s, m: s.softmax(-1) * m[:, None, :, None]),
            "which axis of the scores is that of the keys.",
        ),
        "Image tokens leave padding out, and text tokens still attend to it.": (
            _padding_for_text,
            _MASK_HINT,
        ),
        "Text tokens leave padding out, and image tokens still attend to it.": (
            _padding_for_image,
            _MASK_HINT,
        ),
        "All images get the mask of the first one.": _joint(
            make_mask=lambda image, keep: F.pad(keep[:1].expand_as(keep), (image.shape[3], 0), value=True)
        ),
        "The two results are exchanged: the image's comes first.": (
            lambda image, text, keep: _joint()(image, text, keep)[::-1],
            "the order of the results.",
        ),
        "The text stands first in the sequence, and the result is split as if the image did.": (
            _text_first,
            _ORDER_HINT,
        ),
        **{message: (function, _ORDER_HINT) for message, function in _ORDERS.items()},
        "Each stream attends to itself alone; both must attend to both.": (_apart, _JOINT_HINT),
        "Each stream attends to the other alone; both must attend to both.": (_crossed, _JOINT_HINT),
        "The image attends to itself alone; it must attend to the text, too.": (
            _image_self_text_both,
            _JOINT_HINT,
        ),
        "The text attends to itself alone; it must attend to the image, too.": (
            _text_self_image_both,
            _JOINT_HINT,
        ),
        "Each stream has a softmax of its own, and the two results are added: the weights sum to 2.": (
            _two_softmaxes(1.0),
            _JOINT_HINT,
        ),
        "Each stream has a softmax of its own, and the mean is taken: there must be one softmax over all keys.": (
            _two_softmaxes(0.5),
            _JOINT_HINT,
        ),
        "The scores are not divided by the square root of the width of a head.": _joint(
            lambda q, k: q @ k.mT
        ),
        "The scores are divided by the width of a head; it must be its square root.": _joint(
            lambda q, k: q @ k.mT / q.shape[-1]
        ),
        "The scale comes from the width of all heads; it must come from the width of one.": _other_scale(
            lambda q: q.shape[1] * q.shape[-1]
        ),
        "The scale comes from the number of heads; it must come from the width of one.": _other_scale(
            lambda q: q.shape[1]
        ),
        "The scores are multiplied by the square root of the width of a head; they must be divided.": _joint(
            lambda q, k: q @ k.mT * q.shape[-1] ** 0.5
        ),
        "Keys and values are exchanged.": lambda image, text, keep: _joint()(
            image[[0, 2, 1]], text[[0, 2, 1]], keep
        ),
        "The softmax runs over the heads; it must run over the keys.": _joint(
            weights=lambda s, m: s.softmax(1).nan_to_num(0)
        ),
        "The scale comes from the number of tokens; it must come from the width of a head.": _joint(
            lambda q, k: q @ k.mT / k.shape[-2] ** 0.5
        ),
        "The softmax runs over the queries; it must run over the keys.": _joint(
            weights=lambda s, m: s.softmax(-2).nan_to_num(0)
        ),
        "Queries and keys are exchanged.": _joint(lambda q, k: _scores(k, q)),
    },
    _JOINT_HINT,
    result_names=("image", "text"),
    reference=_joint(),
)


def check_two_stream_attention(fn: Callable, **grade_options) -> Report:
    """Check fn(image (3, N, h, T, d), text (3, N, h, S, d), keep (N, S)) -> image (N, h, T, d), text (N, h, S, d)."""
    return grade(_TWO_STREAM, fn, **grade_options)


# ---- stream_update


def _stream_update_loops(x: Tensor, attended: Tensor, vectors: Tensor, w_in: Tensor, w_out: Tensor) -> Tensor:
    """Token by token, with the layer norm and the GELU written out."""
    found = torch.empty_like(x)
    for n in range(len(x)):
        gate_attention, shift, scale, gate = (vectors[n, i] for i in (2, 3, 4, 5))
        for t in range(x.shape[1]):
            token = x[n, t] + gate_attention * attended[n, t]
            centered = token - token.sum() / len(token)
            normed = centered / math.sqrt(float((centered**2).sum()) / len(token) + 1e-6)
            hidden = [float(value) for value in (normed + normed * scale + shift) @ w_in]
            active = [h / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3))) for h in hidden]
            found[n, t] = token + gate * (x.new_tensor(active) @ w_out)
    return found


def _stream_cases(rng: RandomInputs) -> list[Case]:
    """As many tokens as images, as channels, as vectors; one image; and numbers so small that eps counts."""
    sizes = [(2, 2, 4, 6, 1), (3, 6, 6, 5, 1), (1, 4, 3, 8, 1), (2, rng.choice(3, 5), 8, 4, 0.02)]
    return [
        Case(
            f"{n} x {t} tokens, D = {d}, {h} hidden" + ", small numbers" * (size < 1),
            (
                size * rng.normal(n, t, d),
                size * rng.normal(n, t, d),
                rng.normal(n, 6, d),
                rng.normal(d, h),
                rng.normal(h, d) / h**0.5,
            ),
        )
        for n, t, d, h, size in sizes
    ]


def _norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def _gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _update(
    order: tuple[int, ...] = (0, 1, 2, 3, 4, 5),
    stream: Callable = lambda x, a, gate: x + gate * a,
    prepare: Callable = lambda x, old, shift, scale: _norm(x) * (1 + scale) + shift,
    act: Callable = _gelu,
    finish: Callable = lambda x, old, gate, out: x + gate * out,
) -> Callable:
    """The update with another order of the vectors, or another part."""

    def update(x, attended, vectors, w_in, w_out):
        m = [vectors[:, i, None] for i in order]
        new = stream(x, attended, m[2])
        out = act(prepare(new, x, m[3], m[4]) @ w_in) @ w_out
        return finish(new, x, m[5], out)

    return update


def _whole_batch(x: Tensor, old: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-2:], eps=1e-6) * (1 + scale) + shift


def _halves(first: Callable, second: Callable) -> Callable:
    """The update by two formulas: (x, attended, m) -> tokens, and (those, attended, m, mlp) -> tokens."""

    def update(x, attended, vectors, w_in, w_out):
        m = vectors[:, :, None].unbind(1)
        return second(first(x, attended, m), attended, m, lambda inside: _gelu(inside @ w_in) @ w_out)

    return update


def _sum(x: Tensor, attended: Tensor, m: tuple) -> Tensor:
    return x + m[2] * attended


def _inside(x: Tensor, m: tuple) -> Tensor:
    return _norm(x) * (1 + m[4]) + m[3]


def _branch(x: Tensor, attended: Tensor, m: tuple, mlp: Callable) -> Tensor:
    return x + m[5] * mlp(_inside(x, m))


_UPDATE_HINT = "lesson 33, 'The block'."
_VECTORS_HINT = "the order of the six vectors."

_READ_AS = {
    "The attention's three vectors are used again for the MLP, which has its own: the last three.": (
        0,
        1,
        2,
        0,
        1,
        2,
    ),
    "Both branches have the attention's gate; the MLP has its own.": (0, 1, 2, 3, 4, 2),
    "Both branches have the MLP's gate; the attention has its own.": (0, 1, 5, 3, 4, 5),
    "The vectors are read as gate, scale, shift; the order is shift, scale, gate.": (2, 1, 0, 5, 4, 3),
    "The vectors are read as shift, gate, scale; the order is shift, scale, gate.": (0, 2, 1, 3, 5, 4),
    "The vectors are read as scale, gate, shift; the order is shift, scale, gate.": (2, 0, 1, 5, 3, 4),
    "The attention's gate is read first of its three vectors; it is the last.": (1, 2, 0, 3, 4, 5),
    "The MLP's gate is read first of its three vectors; it is the last.": (0, 1, 2, 4, 5, 3),
    "The vectors are read with both gates first, then shift and scale, twice; they are shift, scale, "
    "gate, twice.": ((2, 3, 0, 4, 5, 1)),
    "The vectors are read with both gates last, after shift and scale, twice; they are shift, scale, "
    "gate, twice.": ((0, 1, 4, 2, 3, 5)),
    "The vectors are read as two gates, two shifts, two scales; they are shift, scale, gate, twice.": (
        (2, 4, 0, 3, 5, 1)
    ),
    "The vectors are read as two scales, two shifts, two gates; they are shift, scale, gate, twice.": (
        (2, 0, 4, 3, 1, 5)
    ),
}

_BRANCHES = {
    "The MLP receives the attention's result alone; it must receive the stream after it.": _halves(
        _sum, lambda x, attended, m, mlp: x + m[5] * mlp(_inside(attended, m))
    ),
    "The attention's result is normalized before it is added; only the MLP's input is.": _halves(
        lambda x, attended, m: x + m[2] * _norm(attended), _branch
    ),
    "The attention's result is normalized and modulated before it is added; only the MLP's input "
    "is.": _halves(lambda x, attended, m: x + m[2] * (_norm(attended) * (1 + m[1]) + m[0]), _branch),
    "The first gate multiplies the whole stream; it belongs to the attention's result alone.": _halves(
        lambda x, attended, m: m[2] * (x + attended), _branch
    ),
    "The attention's result is added twice.": _halves(
        _sum, lambda x, attended, m, mlp: _branch(x, attended, m, mlp) + m[2] * attended
    ),
    "Neither branch has a gate.": _halves(
        lambda x, attended, m: x + attended, lambda x, attended, m, mlp: x + mlp(_inside(x, m))
    ),
    "The second gate multiplies the MLP's input; it must multiply its result.": _halves(
        _sum, lambda x, attended, m, mlp: x + mlp(m[5] * _inside(x, m))
    ),
    "The second sum begins with the normalized tokens; it must begin with the stream itself.": _halves(
        _sum, lambda x, attended, m, mlp: _norm(x) + m[5] * mlp(_inside(x, m))
    ),
    "The second sum begins with the MLP's input; it must begin with the stream itself.": _halves(
        _sum, lambda x, attended, m, mlp: _inside(x, m) + m[5] * mlp(_inside(x, m))
    ),
    "The norm before the MLP is an RMS norm; it must be a layer norm, which removes the mean.": _update(
        prepare=lambda x, old, shift, scale: F.rms_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
    ),
    "The layer norm divides by the deviation with D - 1 in it, and eps outside the root; the variance "
    "has D.": (
        _update(
            prepare=lambda x, old, shift, scale: (
                (x - x.mean(-1, True)) / (x.std(-1, keepdim=True) + 1e-6) * (1 + scale) + shift
            )
        )
    ),
    "The eps of the layer norm is 1e-5, PyTorch's; here it is 1e-6.": _update(
        prepare=lambda x, old, shift, scale: F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift
    ),
    "The layer norm runs over the tokens; it must run over the channels of each token.": _update(
        prepare=lambda x, old, shift, scale: _norm(x.mT).mT * (1 + scale) + shift
    ),
    "The activation comes after both matrices; it belongs between them.": _update(
        act=lambda h: h, finish=lambda x, old, gate, out: x + gate * _gelu(out)
    ),
    "All images have the vectors of the first one.": lambda x, attended, vectors, w_in, w_out: _update()(
        x, attended, vectors[:1], w_in, w_out
    ),
}

_STREAM_UPDATE = Exercise(
    "stream_update",
    _stream_update_loops,
    _stream_cases,
    {
        "The MLP is added to the tokens from before the attention: the result of the attention is lost to the stream.": (
            _update(finish=lambda x, old, gate, out: old + gate * out),
            "what the second sum begins with.",
        ),
        "The MLP receives the tokens from before the attention; it must receive those after it.": _update(
            prepare=lambda x, old, shift, scale: _norm(old) * (1 + scale) + shift
        ),
        "The two gates are exchanged.": _update((0, 1, 5, 3, 4, 2)),
        "Shift and scale are exchanged: the order is shift, scale, gate.": (
            _update((1, 0, 2, 4, 3, 5)),
            _VECTORS_HINT,
        ),
        "The MLP is modulated by the attention's shift and scale.": _update((3, 4, 2, 0, 1, 5)),
        "Shift and scale of the attention are applied to its result; they have been used already.": (
            lambda x, attended, vectors, w_in, w_out: _update()(
                x, attended * (1 + vectors[:, 1, None]) + vectors[:, 0, None], vectors, w_in, w_out
            )
        ),
        "The first three vectors are the attention's, the last three the MLP's; here they are exchanged.": (
            _update((3, 4, 5, 0, 1, 2)),
            _VECTORS_HINT,
        ),
        "The vectors are read as two shifts, two scales, two gates; they are shift, scale, gate, twice.": (
            _update((0, 2, 4, 1, 3, 5)),
            _VECTORS_HINT,
        ),
        "The vectors are read with the gate first; the order is shift, scale, gate.": (
            _update((1, 2, 0, 4, 5, 3)),
            _VECTORS_HINT,
        ),
        **{message: (_update(order), _VECTORS_HINT) for message, order in _READ_AS.items()},
        **_BRANCHES,
        "The result of the attention has no gate.": _update(stream=lambda x, a, gate: x + a),
        "The result of the MLP has no gate.": _update(finish=lambda x, old, gate, out: x + out),
        "The gates are used as 1 + gate; a gate of 0 must close the branch.": _update(
            stream=lambda x, a, gate: x + (1 + gate) * a,
            finish=lambda x, old, gate, out: x + (1 + gate) * out,
        ),
        "The scale is used without 1 +: a scale of 0 must change nothing.": _update(
            prepare=lambda x, old, shift, scale: _norm(x) * scale + shift
        ),
        "The layer norm before the MLP is missing.": _update(
            prepare=lambda x, old, shift, scale: x * (1 + scale) + shift
        ),
        "The layer norm comes after the modulation, and undoes a part of it.": _update(
            prepare=lambda x, old, shift, scale: _norm(x * (1 + scale) + shift)
        ),
        "The MLP's input is not modulated: shift and scale are not used.": _update(
            prepare=lambda x, old, shift, scale: _norm(x)
        ),
        "The shift is missing in the MLP's input.": _update(
            prepare=lambda x, old, shift, scale: _norm(x) * (1 + scale)
        ),
        "The scale is missing in the MLP's input.": _update(
            prepare=lambda x, old, shift, scale: _norm(x) + shift
        ),
        "The shift is scaled, too: scale first, then shift.": _update(
            prepare=lambda x, old, shift, scale: (_norm(x) + shift) * (1 + scale)
        ),
        "The second residual connection is missing: the result is the MLP's alone.": _update(
            finish=lambda x, old, gate, out: gate * out
        ),
        "The first residual connection is missing: the stream begins with the attention's result.": _update(
            stream=lambda x, a, gate: gate * a
        ),
        "The attention's result is not used.": _update(stream=lambda x, a, gate: x),
        "The second gate multiplies the whole stream; it belongs to the MLP's result alone.": _update(
            finish=lambda x, old, gate, out: gate * (x + out)
        ),
        "The gate is a sigmoid of the vector; it must be the vector itself.": _update(
            stream=lambda x, a, gate: x + gate.sigmoid() * a,
            finish=lambda x, old, gate, out: x + gate.sigmoid() * out,
        ),
        "The layer norm runs over all tokens of an image; each token has its own mean and deviation.": _update(
            prepare=_whole_batch
        ),
        "The MLP has no activation between its two matrices.": _update(act=lambda h: h),
        "The activation is a ReLU; it must be the GELU.": _update(act=torch.relu),
        "The activation is the exact GELU, with erf; here it must be its tanh form.": _update(act=F.gelu),
        "The activation is a SiLU; it must be the GELU.": _update(act=F.silu),
    },
    _UPDATE_HINT,
    reference=_update(),
)


def check_stream_update(fn: Callable, **grade_options) -> Report:
    """Check fn(x, attended (N, T, D), vectors (N, 6, D), w_in (D, H), w_out (H, D)) -> tokens (N, T, D)."""
    return grade(_STREAM_UPDATE, fn, **grade_options)
