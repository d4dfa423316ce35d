"""Graders of lesson 11: a gated branch, and a layer that is initialized to zero."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dit_nb.teach.graders.adaln import _SCALE_WITHOUT_ONE
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report
from dit_nb.teach.graders.in_context import _random_mixer
from dit_nb.teach.graders.layer_norm import _layer_norm, _normalize_token

__all__ = ["check_adaln_zero", "check_zero_init"]


def _adaln_zero_loops(x: Tensor, branch: Callable, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
    modulated = torch.zeros_like(x)
    for n in range(len(x)):
        for i, token in enumerate(x[n].tolist()):
            normal = x.new_tensor(_normalize_token(token, 1e-6))
            modulated[n, i] = normal + normal * scale[n, 0] + shift[n, 0]
    out = branch(modulated)
    return torch.stack([a + b * g[0] for a, b, g in zip(x, out, gate)])


def _gate_cases(rng: RandomInputs) -> list[Case]:
    """As many tokens as images; a gate of 0; tokens so small that eps of the norm matters."""
    cases = []
    sizes = [(3, 3, 4, 1, 1), (2, 5, 6, 1, 0), (4, 2, 5, 0.01, 1), (2, 4, rng.choice(3, 8), 3, 1)]
    for n, t, d, std, on in sizes:
        x = std * rng.normal(n, t, d) + 0.5 * std
        shift, scale, gate = (rng.normal(n, 1, d) for _ in range(3))
        label = f"{n} x {t} tokens, D = {d}" + ", gate 0" * (not on) + ", small numbers" * (std < 1)
        cases.append(Case(label, (x, _random_mixer(rng, d), shift, scale, on * gate)))
    return cases


def _adaln_zero(
    norm: Callable = _layer_norm,
    modulate: Callable = lambda h, shift, scale: torch.addcmul(h + shift, h, scale),
    residual: Callable = lambda x, out, gate: torch.addcmul(x, gate, out),
) -> Callable:
    """The gated branch with parameters for known mistakes."""
    return lambda x, branch, shift, scale, gate: residual(x, branch(modulate(norm(x), shift, scale)), gate)


_ADALN_ZERO = Exercise(
    "adaln_zero",
    _adaln_zero_loops,
    _gate_cases,
    {
        "The gate is on the tokens, not on the branch: with a gate of 0 the tokens are lost.": _adaln_zero(
            residual=lambda x, out, gate: gate * x + out
        ),
        "The gate is on tokens and branch together: with a gate of 0 the result is 0.": _adaln_zero(
            residual=lambda x, out, gate: gate * (x + out)
        ),
        "The tokens are not added: only the branch is returned.": (
            _adaln_zero(residual=lambda x, out, gate: gate * out),
            "lesson 11, 'The gate': the residual.",
        ),
        "There is no gate: the branch has its full effect from the start.": _adaln_zero(
            residual=lambda x, out, gate: x + out
        ),
        "The gate goes through a sigmoid: a gate of 0 would be half open.": (
            _adaln_zero(residual=lambda x, out, gate: x + gate.sigmoid() * out),
            "lesson 11, 'The identity, to the last bit'.",
        ),
        "A gate of 0 is fully open: the gate is used like a scale, around 1.": (
            _adaln_zero(residual=lambda x, out, gate: x + out + gate * out),
            "lesson 11, 'The identity, to the last bit'.",
        ),
        _SCALE_WITHOUT_ONE: (
            _adaln_zero(modulate=lambda h, shift, scale: h * scale + shift),
            "lesson 10, 'Why 1 + scale'.",
        ),
        "The tokens are modulated without a norm; they must be normalized first.": (
            _adaln_zero(norm=lambda x: x),
            "lesson 10, 'The block'.",
        ),
        "The small constant of the norm is 1e-5; DiT has 1e-6, which matters for small tokens.": (
            _adaln_zero(norm=lambda x: _layer_norm(x, 1e-5)),
            "lesson 10, 'LayerNorm by hand'.",
        ),
        "The norm divides by D - 1; a layer norm divides by D.": (
            _adaln_zero(norm=lambda x: _layer_norm(x, unbiased=True)),
            "lesson 10, 'LayerNorm by hand'.",
        ),
        "The norm runs over the tokens; it must run over the channels of each token.": (
            _adaln_zero(norm=lambda x: _layer_norm(x, axis=1)),
            "lesson 10, 'Whose mean?'.",
        ),
        "The normalized tokens are added at the end; the input tokens must be added.": (
            lambda x, branch, shift, scale, gate: (
                _adaln_zero()(x, branch, shift, scale, gate) - x + _layer_norm(x)
            ),
            "lesson 11, 'The gate': the residual.",
        ),
    },
    "lesson 11, 'The gate'.",
    reference=_adaln_zero(),
)


def check_adaln_zero(fn: Callable, **grade_options) -> Report:
    """Check fn(x (N, T, D), branch: callable, shift, scale, gate: each (N, 1, D)) -> (N, T, D)."""
    return grade(_ADALN_ZERO, fn, **grade_options)


def _parameters_after(fn: Callable, linear: nn.Linear):
    """Return the layer's parameters, and whether they can learn."""
    fn(linear)
    learns = [float(p.requires_grad) for p in (linear.weight, linear.bias)]
    return linear.weight.detach().clone(), linear.bias.detach().clone(), torch.tensor(learns)


def _zero_loops(linear: nn.Linear) -> None:
    with torch.no_grad():
        for parameter in linear.parameters():
            for index in range(parameter.numel()):
                parameter.view(-1)[index] = 0.0


def _linear_cases(rng: RandomInputs) -> list[Case]:
    cases = []
    for width, out in [(4, 4), (2, 6), (3, rng.choice(5, 9))]:
        linear = nn.Linear(width, out, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(rng.normal(out, width))
            linear.bias.copy_(rng.normal(out))
        cases.append(Case(f"{width} to {out}", (linear,)))
    return cases


def _in_sequence(*steps: Callable) -> Callable:
    return lambda linear: [step(linear) for step in steps]


def _zero_weight(linear: nn.Linear) -> None:
    nn.init.zeros_(linear.weight)


def _zero_bias(linear: nn.Linear) -> None:
    nn.init.zeros_(linear.bias)


_ZERO_INIT = Exercise(
    "zero_init",
    _zero_loops,
    _linear_cases,
    {
        "Only the bias is zero; the weight must be zero, too.": (
            _zero_bias,
            "lesson 11, 'Five ways to break it'.",
        ),
        "Only the weight is zero; the bias must be zero, too.": _zero_weight,
        "The layer is unchanged: are the zeros in a copy? Change the layer that is given.": (
            lambda linear: None,
            "what the functions of nn.init do.",
        ),
        "The layer is frozen; it should start at zero and learn.": (
            _in_sequence(_zero_weight, _zero_bias, lambda linear: linear.requires_grad_(False)),
            "lesson 11, 'With all those zeros, how can it learn?'.",
        ),
        "The usual random numbers are written again after the zeros: the order matters.": (
            _in_sequence(_zero_bias, lambda linear: nn.init.xavier_uniform_(linear.weight)),
            "lesson 11, 'Five ways to break it'.",
        ),
        "The numbers are ones.": lambda linear: [nn.init.ones_(p) for p in linear.parameters()],
    },
    "lesson 11, 'The gate'.",
    result_names=("weight", "bias", "flag whether weight and bias can learn"),
    tolerance=1e-15,
    probe=_parameters_after,
    in_place=True,
    reference=_in_sequence(_zero_weight, _zero_bias),
)


def check_zero_init(fn: Callable, **grade_options) -> Report:
    """Check fn(linear: nn.Linear), which sets the layer to zero in place; it must still be able to learn."""
    return grade(_ZERO_INIT, fn, **grade_options)
