"""Graders of lesson 10: modulation, its fields from the condition, and the layers that absorb it."""

import math
from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn

from dit_nb.blocks.adaln import modulate
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_absorb", "check_adaln_fields", "check_modulate"]


def _modulate_loops(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for n in range(len(x)):
        for i in range(x.shape[1]):
            for j in range(x.shape[2]):
                out[n, i, j] = x[n, i, j] + scale[n, 0, j] * x[n, i, j] + shift[n, 0, j]
    return out


def _modulate_cases(rng: RandomInputs) -> list[Case]:
    """As many tokens as images, more, and fewer."""
    sizes = [(3, 3, 4), (2, 5, 3), (4, 2, 2), (rng.choice(2, 3), rng.choice(6, 7), 4)]
    return [
        Case(f"{n} x {t} tokens, D = {d}", (rng.normal(n, t, d), rng.normal(n, 1, d), rng.normal(n, 1, d)))
        for n, t, d in sizes
    ]


_SCALE_WITHOUT_ONE = "A scale of 0 sets the tokens to zero; it must leave them as they are."

_MODULATE = Exercise(
    "modulate",
    _modulate_loops,
    _modulate_cases,
    {
        _SCALE_WITHOUT_ONE: (lambda x, shift, scale: x * scale + shift, "lesson 10, 'Why 1 + scale'."),
        "Shift and scale are exchanged.": lambda x, shift, scale: x + x * shift + scale,
        "The shift is scaled too: it must be added last.": lambda x, shift, scale: (x + shift) * (1 + scale),
        "Shift and scale lack the axis of the tokens: if T = N, a token gets another image's numbers.": (
            lambda x, shift, scale: torch.addcmul(x + shift[:, 0], x, scale[:, 0]),
            "lesson 10, 'The trap that raises no error'.",
        ),
        "All images get the first image's condition.": lambda x, shift, scale: torch.addcmul(
            x + shift[:1], x, scale[:1]
        ),
        "The tokens are added to their modulated copy; return the modulated copy alone.": lambda x, shift, scale: (
            torch.addcmul(2 * x + shift, x, scale)
        ),
        "The shift is missing.": lambda x, shift, scale: torch.addcmul(x, x, scale),
        "The scale is missing.": lambda x, shift, scale: x + shift,
        "The shift is subtracted; it must be added.": lambda x, shift, scale: torch.addcmul(
            x - shift, x, scale
        ),
        "The tokens are divided by 1 + scale; they must be multiplied by it.": lambda x, shift, scale: (
            x / (1 + scale) + shift
        ),
        "The scale is subtracted from 1; it must be added to 1.": lambda x, shift, scale: (
            x * (1 - scale) + shift
        ),
        "The factor is the exponential of the scale; it must be 1 + scale.": (
            lambda x, shift, scale: x * scale.exp() + shift,
            "lesson 10, 'Why 1 + scale'.",
        ),
        "The shift is multiplied by the scale: it must be added as it is.": lambda x, shift, scale: (
            torch.addcmul(x, x, scale) + shift * scale
        ),
        "The tokens are normalized again, with 1e-6 as in DiT; they come normalized.": lambda x, shift, scale: (
            nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
        ),
        "The tokens are normalized again; they come normalized.": lambda x, shift, scale: (
            nn.functional.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift
        ),
        "Shift and scale are averaged over the images; each image has its own.": lambda x, shift, scale: (
            x * (1 + scale.mean(0, keepdim=True)) + shift.mean(0, keepdim=True)
        ),
        "The 1 is added to the tokens; it belongs to the scale.": (
            lambda x, shift, scale: (1 + x) * scale + shift,
            "lesson 10, 'Why 1 + scale'.",
        ),
        "The 1 is added to the shift too: a shift of 0 must change nothing.": (
            lambda x, shift, scale: torch.addcmul(x + 1 + shift, x, scale),
            "lesson 10, 'Why 1 + scale'.",
        ),
        "The scale is added to the tokens, not multiplied: the parentheses around 1 + scale are missing.": (
            lambda x, shift, scale: x + scale + shift,
            "lesson 10, 'Why 1 + scale'.",
        ),
        "The 1 is added to the result: without parentheses the product comes before the sum.": (
            lambda x, shift, scale: 1 + scale * x + shift,
            "lesson 10, 'Why 1 + scale'.",
        ),
        "The shift is in the factor: it multiplies the tokens, and must be added to them.": lambda x, shift, scale: (
            x * (1 + scale + shift)
        ),
        "The shift multiplies the scaled tokens; it must be added.": lambda x, shift, scale: (
            x * (1 + scale) * shift
        ),
        "The scale goes through a tanh: it must be used as it is.": lambda x, shift, scale: (
            x * (1 + scale.tanh()) + shift
        ),
        "The scale goes through a sigmoid: a scale of 0 would halve the tokens.": lambda x, shift, scale: (
            x * scale.sigmoid() + shift
        ),
        "1 is subtracted from the scale; it must be added.": lambda x, shift, scale: x * (scale - 1) + shift,
        "The factor 1 + scale is used twice.": lambda x, shift, scale: x * (1 + scale) ** 2 + shift,
        "Shift and scale come from the images in reverse order; each image has its own.": lambda x, shift, scale: (
            x * (1 + scale.flip(0)) + shift.flip(0)
        ),
        "Shift and scale are averaged over the channels; each channel has its own.": lambda x, shift, scale: (
            x * (1 + scale.mean(-1, keepdim=True)) + shift.mean(-1, keepdim=True)
        ),
    },
    "lesson 10, 'Modulate'.",
    reference=modulate,
    precisions=(torch.float32,),
)


def check_modulate(fn: Callable, **grade_options) -> Report:
    """Check fn(x (N, T, D), shift (N, 1, D), scale (N, 1, D)) -> (N, T, D)."""
    return grade(_MODULATE, fn, **grade_options)


def _fields_loops(c: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    width = c.shape[1]
    images = []
    for one in c.tolist():
        hidden = [value / (1 + math.exp(-value)) for value in one]
        pairs = zip(weight.tolist(), bias.tolist())
        images.append([sum((a * b for a, b in zip(line, hidden)), start) for line, start in pairs])
    table = c.new_tensor(images)
    return tuple(table[:, None, i : i + width] for i in range(0, len(weight), width))


def _field_cases(rng: RandomInputs) -> list[Case]:
    """Four fields (adaLN), six (adaLN-Zero) and two (final layer)."""
    sizes = [(3, 3, 4), (6, 4, 6), (2, 5, 4), (rng.choice(4, 5), 6, 2)]
    return [
        Case(f"N = {n}, D = {d}, {f} fields", (rng.normal(n, d), rng.normal(f * d, d), rng.normal(f * d)))
        for n, d, f in sizes
    ]


def _linear(c: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return nn.functional.linear(c, weight, bias)


def _cut(numbers: Tensor, count: int, shape: str = "n (f d) -> f n 1 d") -> tuple[Tensor, ...]:
    return tuple(rearrange(numbers, shape, f=count))


def _fields(activation: Callable = nn.functional.silu, shape: str = "n (f d) -> f n 1 d") -> Callable:
    """All fields, with another activation or cut."""
    return lambda c, w, b: _cut(_linear(activation(c), w, b), len(w) // c.shape[1], shape)


def _reordered(order: Callable) -> Callable:
    """All fields in another order: `order(count)` lists them."""

    def fields(c, weight, bias):
        parts = _fields()(c, weight, bias)
        return tuple(parts[i] for i in order(len(parts)))

    return fields


def _branch_by_branch(count: int, swap: tuple[int, ...]) -> list[int]:
    """The fields of each branch in another order."""
    each = count // 2 if count > 2 else 2
    order = [i for i in swap if i < each]
    return [branch * each + i for branch in range(count // each) for i in order]


def _apart(fn: Callable, c: Tensor, weight: Tensor, bias: Tensor):
    """The fields; one tensor with another first axis stands for each of them, so that its shape is named."""
    value, count = fn(c, weight, bias), len(weight) // c.shape[1]
    if not isinstance(value, Tensor) or value.layout != torch.strided or not value.ndim:
        return value
    return value.unbind(0) if len(value) == count else (value,) * count


_CUT = "lesson 10, 'From t and y to shift and scale'."

_ADALN_FIELDS = Exercise(
    "adaln_fields",
    _fields_loops,
    _field_cases,
    {
        "The condition goes into the linear layer as it is; a SiLU comes before it.": _fields(lambda c: c),
        "The SiLU comes after the linear layer; it must come before it.": lambda c, w, b: _cut(
            nn.functional.silu(_linear(c, w, b)), len(w) // c.shape[1]
        ),
        "There is a SiLU before the linear layer and one after it; only the first is right.": lambda c, w, b: (
            _cut(nn.functional.silu(_linear(nn.functional.silu(c), w, b)), len(w) // c.shape[1])
        ),
        "The condition goes through a ReLU; it must go through a SiLU.": _fields(torch.relu),
        "The condition goes through a GELU, as in the MLP; here it must go through a SiLU.": _fields(
            nn.functional.gelu
        ),
        "The condition is replaced by its sigmoid; a SiLU multiplies it by its sigmoid.": _fields(
            torch.sigmoid
        ),
        "The condition goes through a tanh; it must go through a SiLU.": _fields(torch.tanh),
        "The condition is added to its SiLU; the SiLU replaces it.": _fields(
            lambda c: c + nn.functional.silu(c)
        ),
        "The fields come in reverse order; they must stay in the order of the weight's rows.": (
            _reordered(lambda count: list(range(count))[::-1]),
            _CUT,
        ),
        "The bias is missing.": lambda c, w, b: _fields()(c, w, 0 * b),
        "Scale comes before shift; in the checkpoints of DiT, shift comes first.": (
            _reordered(lambda count: _branch_by_branch(count, (1, 0, 2))),
            _CUT,
        ),
        "The branches alternate; all fields of the attention must come first, then those of the MLP.": (
            _reordered(lambda count: [*range(0, count, 2), *range(1, count, 2)]),
            _CUT,
        ),
        "The fields of the MLP come before those of the attention.": (
            _reordered(lambda count: [*range(count // 2, count), *range(count // 2)]),
            _CUT,
        ),
        "The numbers of a field are taken in steps; a field must take D neighboring numbers.": (
            _fields(shape="n (d f) -> f n 1 d"),
            "how the result of the linear layer is split.",
        ),
        "Images and fields are mixed: a reshape alone does not bring the axis of the fields to the front.": (
            lambda c, w, b: tuple(_linear(nn.functional.silu(c), w, b).reshape(-1, len(c), 1, c.shape[1])),
            "how the result of the linear layer is split.",
        ),
        "The fields have no axis for the tokens: if T = N, they broadcast wrongly, without an error.": (
            _fields(shape="n (f d) -> f n d"),
            "lesson 10, 'The trap that raises no error'.",
        ),
        "The first two fields have changed places; all stay in the order of the weight's rows.": (
            _reordered(lambda count: [1, 0, *range(2, count)]),
            _CUT,
        ),
        "All fields are the first one: each must get a slice of its own.": (
            _reordered(lambda count: [0] * count),
            "how the result of the linear layer is split.",
        ),
        "The condition goes through a softplus; it must go through a SiLU.": _fields(nn.functional.softplus),
        "The condition goes through a leaky ReLU; it must go through a SiLU.": _fields(
            nn.functional.leaky_relu
        ),
        "The condition goes through an ELU; it must go through a SiLU.": _fields(nn.functional.elu),
        "All fields are the last one: each must get a slice of its own.": _reordered(
            lambda count: [count - 1] * count
        ),
        "1 is added to every field; only a scale gets it, and later, in the modulation.": lambda c, w, b: (
            tuple(1 + field for field in _fields()(c, w, b))
        ),
        "The first field comes last; all stay in the order of the weight's rows.": _reordered(
            lambda count: [*range(1, count), 0]
        ),
        "The axes of images and tokens are exchanged: a field must be (N, 1, D).": _fields(
            shape="n (f d) -> f 1 n d"
        ),
        "The axis for the tokens is at the end: a field must be (N, 1, D).": _fields(
            shape="n (f d) -> f n d 1"
        ),
        "It is one tensor (N, F, D); it must be (F, N, 1, D), or F tensors (N, 1, D).": lambda c, w, b: (
            torch.stack(_fields(shape="n (f d) -> f n d")(c, w, b), 1)
        ),
        "It is one tensor (N, F, 1, D); it must be (F, N, 1, D), or F tensors (N, 1, D).": lambda c, w, b: (
            torch.stack(_fields()(c, w, b), 1)
        ),
        "It is one tensor (N, 1, F, D); it must be (F, N, 1, D), or F tensors (N, 1, D).": lambda c, w, b: (
            torch.stack(_fields()(c, w, b), 2)
        ),
        "The numbers are not cut into fields: this is what the linear layer returns, (N, FD).": lambda c, w, b: (
            _linear(nn.functional.silu(c), w, b)
        ),
        "The numbers are not cut into fields: this is what the linear layer returns, with an axis for the tokens.": (
            lambda c, w, b: _linear(nn.functional.silu(c), w, b)[:, None]
        ),
        "The bias is added twice.": lambda c, w, b: _fields()(c, w, 2 * b),
        "The condition is normalized, as tokens are, and the SiLU is missing.": _fields(
            lambda c: nn.functional.layer_norm(c, c.shape[-1:])
        ),
    },
    _CUT,
    result_names=("first field", "second field", "third field", "fourth field", "fifth field", "sixth field"),
    returns="F tensors (N, 1, D), or one (F, N, 1, D)",
    probe=_apart,
    reference=_fields(),
)


def check_adaln_fields(fn: Callable, **grade_options) -> Report:
    """Check fn(c (N, D), weight (FD, D), bias (FD,)) -> F tensors (N, 1, D)."""
    return grade(_ADALN_FIELDS, fn, **grade_options)


def _absorb_loops(weight: Tensor, bias: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Each image's layer, read off by its effect on the tokens 0, (1, 0, ...), (0, 1, 0, ...) and so on."""
    weights, biases = [], []
    for add, factor in zip(shift[:, 0].tolist(), scale[:, 0].tolist()):

        def layer(h, add=add, factor=factor):
            modulated = [value + value * f + a for value, f, a in zip(h, factor, add)]
            return [
                sum((w * z for w, z in zip(row, modulated)), b)
                for row, b in zip(weight.tolist(), bias.tolist())
            ]

        at_zero, width = layer([0.0] * len(add)), len(add)
        columns = [layer([float(i == j) for j in range(width)]) for i in range(width)]
        weights.append([[column[k] - at_zero[k] for column in columns] for k in range(len(at_zero))])
        biases.append(at_zero)
    return weight.new_tensor(weights), weight.new_tensor(biases)


def _absorb_cases(rng: RandomInputs) -> list[Case]:
    """As many outputs as channels and images; all sizes different."""
    sizes = [(3, 3, 3), (2, 4, 3), (4, 3, 5), (rng.choice(2, 3), 6, rng.choice(4, 5))]
    return [
        Case(
            f"{n} images, K = {k}, D = {d}",
            (rng.normal(k, d), rng.normal(k), rng.normal(n, 1, d), rng.normal(n, 1, d)),
        )
        for n, k, d in sizes
    ]


def _absorbed(
    factor: Callable = lambda scale: 1 + scale,
    offset: Callable = lambda w, b, shift, scale: b + shift[:, 0] @ w.T,
) -> Callable:
    """The layers, with another factor of the weights or other biases."""
    return lambda w, b, shift, scale: (w * factor(scale), offset(w, b, shift, scale))


def _one_after_the_other(weight: Tensor, bias: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Each image's layer absorbs the modulations of the images before, too."""
    layers = []
    for add, factor in zip(shift[:, 0], scale[:, 0]):
        weight, bias = weight * (1 + factor), bias + weight @ add
        layers.append((weight, bias))
    weights, biases = zip(*layers)
    return torch.stack(weights), torch.stack(biases)


_START = "what a name stands for in the next round of a loop."
_FIXED = "lesson 10, 'Fixed shift and scale do nothing'."

_ABSORB = Exercise(
    "absorb",
    _absorb_loops,
    _absorb_cases,
    {
        "The weights are multiplied by the scale; a scale of 0 must leave them as they are.": (
            _absorbed(lambda scale: scale),
            "lesson 10, 'Why 1 + scale'.",
        ),
        "The shift is multiplied by 1 + scale: in a modulation the shift is added last.": (
            _absorbed(offset=lambda w, b, shift, scale: b + (shift * (1 + scale))[:, 0] @ w.T),
            "lesson 10, 'Modulate'.",
        ),
        "The scale acts on the rows of the weight; it belongs to the columns, one for each channel that comes in.": (
            lambda w, b, shift, scale: (w * (1 + scale).mT, b + shift[:, 0] @ w.T),
            _FIXED,
        ),
        "The weights are divided by 1 + scale; they must be multiplied by it.": (
            _absorbed(lambda scale: 1 / (1 + scale)),
            "lesson 10, 'Modulate'.",
        ),
        "The scale is added to the weights; it must multiply them.": (
            lambda w, b, shift, scale: (w + scale, b + shift[:, 0] @ w.T),
            _FIXED,
        ),
        "The weights are not modulated: the scale belongs to them.": (
            lambda w, b, shift, scale: (w.expand(len(scale), -1, -1), b + shift[:, 0] @ w.T),
            _FIXED,
        ),
        "The shift is added to the weights; a summand of the tokens is a summand of the result.": (
            lambda w, b, shift, scale: (w * (1 + scale) + shift, b.expand(len(shift), -1)),
            _FIXED,
        ),
        "The shift is subtracted from the biases; it must be added.": (
            _absorbed(offset=lambda w, b, shift, scale: b - shift[:, 0] @ w.T),
            "lesson 10, 'Modulate'.",
        ),
        "The shift is multiplied by the scale: in a modulation the shift is added last.": (
            _absorbed(offset=lambda w, b, shift, scale: b + (shift * scale)[:, 0] @ w.T),
            "lesson 10, 'Modulate'.",
        ),
        "The layer's own bias is missing.": (
            _absorbed(offset=lambda w, b, shift, scale: shift[:, 0] @ w.T),
            _FIXED,
        ),
        "The biases ignore the shift.": (
            _absorbed(offset=lambda w, b, shift, scale: b.expand(len(shift), -1)),
            _FIXED,
        ),
        "The shift is added to the bias as it is; it goes through the layer like every token.": (
            _absorbed(offset=lambda w, b, shift, scale: b + shift[:, 0]),
            _FIXED,
        ),
        "The shift needs the transposed weight: weight times shift is `shift @ weight.T`.": (
            _absorbed(offset=lambda w, b, shift, scale: b + shift[:, 0] @ w),
            _FIXED,
        ),
        "The bias is scaled too; it is added after the modulated tokens went through the weight.": (
            _absorbed(offset=lambda w, b, shift, scale: b * (1 + scale[:, 0]) + shift[:, 0] @ w.T),
            _FIXED,
        ),
        "Shift and scale are exchanged.": lambda w, b, shift, scale: _absorbed()(w, b, scale, shift),
        "All images get the first image's layer.": lambda w, b, shift, scale: _absorbed()(
            w, b, shift[:1].expand_as(shift), scale[:1].expand_as(scale)
        ),
        "The weights are transposed: a layer's weight is (K, D), outputs before inputs.": lambda w, b, shift, scale: (
            (w * (1 + scale)).mT,
            b + shift[:, 0] @ w.T,
        ),
        "The biases have an axis too many: they must be (N, K).": lambda w, b, shift, scale: (
            w * (1 + scale),
            b + shift @ w.T,
        ),
        "The shift is added up over the channels; each channel is multiplied by its own column of the weight.": (
            _absorbed(offset=lambda w, b, shift, scale: b + shift[:, 0].sum(-1, keepdim=True)),
            _FIXED,
        ),
        "What the shift adds to the biases is averaged over the channels; it must be summed.": (
            _absorbed(offset=lambda w, b, shift, scale: b + (shift * w).mean(-1)),
            _FIXED,
        ),
        "This undoes a modulation: the weights are divided, and the shift is subtracted.": (
            _absorbed(lambda scale: 1 / (1 + scale), lambda w, b, shift, scale: b - shift[:, 0] @ w.T),
            "lesson 10, 'Modulate'.",
        ),
        "The scale is subtracted from 1; it must be added to 1.": (
            _absorbed(lambda scale: 1 - scale),
            "lesson 10, 'Why 1 + scale'.",
        ),
        "The factor is the exponential of the scale; it must be 1 + scale.": (
            lambda w, b, shift, scale: (w * scale.exp(), b + shift[:, 0] @ w.T),
            _FIXED,
        ),
        "The 1 is added to the weights; it belongs to the scale.": (
            lambda w, b, shift, scale: ((1 + w) * scale, b + shift[:, 0] @ w.T),
            _FIXED,
        ),
        "The 1 is added to the scaled weights: without parentheses the product comes before the sum.": (
            lambda w, b, shift, scale: (1 + w * scale, b + shift[:, 0] @ w.T),
            _FIXED,
        ),
        "Each image's weight is made from that of the image before: each must start from the layer's weight.": (
            _absorbed(lambda scale: (1 + scale).cumprod(0)),
            _START,
        ),
        "Each image's bias is made from that of the image before: each must start from the layer's bias.": (
            _absorbed(offset=lambda w, b, shift, scale: b + shift.cumsum(0)[:, 0] @ w.T),
            _START,
        ),
        "Each image's layer is made from that of the image before: each must start from the layer's weight and bias.": (
            _one_after_the_other,
            _START,
        ),
        "The layer's own bias is added twice.": (
            lambda w, b, shift, scale: (w * (1 + scale), 2 * b + shift[:, 0] @ w.T),
            _FIXED,
        ),
        "The 1 is added to the shift too: a shift of 0 must leave the biases as they are.": (
            lambda w, b, shift, scale: (w * (1 + scale), b + (1 + shift[:, 0]) @ w.T),
            _FIXED,
        ),
        "The shift's part multiplies the bias; it must be added.": (
            lambda w, b, shift, scale: (w * (1 + scale), b * (shift[:, 0] @ w.T)),
            _FIXED,
        ),
        "The scale goes through the layer to the biases; that is the shift's way.": (
            lambda w, b, shift, scale: (w * (1 + scale), b + scale[:, 0] @ w.T),
            _FIXED,
        ),
        "Neither scale nor shift is used: this is the layer as it was.": (
            lambda w, b, shift, scale: (w.expand(len(shift), -1, -1), b.expand(len(shift), -1)),
            _FIXED,
        ),
        "The scale is averaged over the channels; each column has its own.": (
            lambda w, b, shift, scale: (w * (1 + scale.mean(-1, keepdim=True)), b + shift[:, 0] @ w.T),
            _FIXED,
        ),
        "1 is subtracted from the scale; it must be added.": (
            lambda w, b, shift, scale: (w * (scale - 1), b + shift[:, 0] @ w.T),
            _FIXED,
        ),
        "The factor 1 + scale is used twice.": (
            lambda w, b, shift, scale: (w * (1 + scale) ** 2, b + shift[:, 0] @ w.T),
            _FIXED,
        ),
    },
    _FIXED,
    result_names=("weight", "bias"),
    reference=_absorbed(),
    precisions=(torch.float32,),
)


def check_absorb(fn: Callable, **grade_options) -> Report:
    """Check fn(weight (K, D), bias (K,), shift (N, 1, D), scale (N, 1, D)) -> weights (N, K, D), biases (N, K)."""
    return grade(_ABSORB, fn, **grade_options)
