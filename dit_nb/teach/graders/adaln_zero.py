"""A gate of zero must give back exactly what came in."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dit_nb.teach.graders.adaln import NO_ONE
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Draw, Exercise, Mistake
from dit_nb.teach.graders.framework.report import Report
from dit_nb.teach.graders.in_context import mixer
from dit_nb.teach.graders.layer_norm import normal_by_hand, normed


def gated_by_hand(x: Tensor, branch: Callable, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
    "One token at a time up to the branch."
    inside = torch.zeros_like(x)
    for n in range(len(x)):
        for i, token in enumerate(x[n].tolist()):
            normal = x.new_tensor(normal_by_hand(token, 1e-6))
            inside[n, i] = normal + normal * scale[n, 0] + shift[n, 0]
    out = branch(inside)
    return torch.stack([a + b * g[0] for a, b, g in zip(x, out, gate)])


def gate_cases(draw: Draw) -> list[Case]:
    "As many tokens as images; a closed gate; tokens so quiet that the norm's small constant is heard."
    cases = []
    for n, t, d, loud, opened in [
        (3, 3, 4, 1, 1),
        (2, 5, 6, 1, 0),
        (4, 2, 5, 0.01, 1),
        (2, 4, draw.pick(3, 8), 3, 1),
    ]:
        x, (shift, scale, gate) = (
            loud * draw.normal(n, t, d) + 0.5 * loud,
            (draw.normal(n, 1, d) for _ in range(3)),
        )
        label = f"{n} x {t} tokens, D = {d}" + ", gate 0" * (not opened) + ", quiet" * (loud < 1)
        cases.append(Case(label, (x, mixer(draw, d), shift, scale, opened * gate)))
    return cases


def gated(
    norm: Callable = normed,
    bend: Callable = lambda h, shift, scale: torch.addcmul(h + shift, h, scale),
    join: Callable = lambda x, out, gate: torch.addcmul(x, gate, out),
) -> Callable:
    "The branch with knobs for everything that can go wrong."
    return lambda x, branch, shift, scale, gate: join(x, branch(bend(norm(x), shift, scale)), gate)


ADALN_ZERO = Exercise(
    "adaln_zero",
    gated_by_hand,
    gate_cases,
    (
        Mistake(
            "The gate is on the tokens, not on the branch: with a gate of 0 the tokens are lost.",
            "lesson 11, 'The gate'.",
            gated(join=lambda x, out, gate: gate * x + out),
        ),
        Mistake(
            "The gate is on tokens and branch together: with a gate of 0 nothing is left.",
            "lesson 11, 'The gate'.",
            gated(join=lambda x, out, gate: gate * (x + out)),
        ),
        Mistake(
            "The tokens are not added: only the branch is returned.",
            "lesson 11, 'The gate': the residual.",
            gated(join=lambda x, out, gate: gate * out),
        ),
        Mistake(
            "There is no gate: the branch is heard in full from the start.",
            "lesson 11, 'The gate'.",
            gated(join=lambda x, out, gate: x + out),
        ),
        Mistake(
            "The gate goes through a sigmoid: a gate of 0 would be half open.",
            "lesson 11, 'The identity, to the last bit'.",
            gated(join=lambda x, out, gate: x + gate.sigmoid() * out),
        ),
        Mistake(
            "A gate of 0 is fully open: the gate is used like a scale, around 1.",
            "lesson 11, 'The identity, to the last bit'.",
            gated(join=lambda x, out, gate: x + out + gate * out),
        ),
        Mistake(NO_ONE, "lesson 10, 'Why 1 + scale'.", gated(bend=lambda h, shift, scale: h * scale + shift)),
        Mistake(
            "The tokens are modulated as they come; they must be normalised first.",
            "lesson 10, 'The block'.",
            gated(norm=lambda x: x),
        ),
        Mistake(
            "The small constant of the norm is 1e-5; DiT has 1e-6, and quiet tokens hear the difference.",
            "lesson 10, 'LayerNorm by hand'.",
            gated(norm=lambda x: normed(x, 1e-5)),
        ),
        Mistake(
            "The norm divides by D - 1; a layer norm divides by D.",
            "lesson 10, 'LayerNorm by hand'.",
            gated(norm=lambda x: normed(x, unbiased=True)),
        ),
        Mistake(
            "The norm runs over the tokens; it must run over the channels of each token.",
            "lesson 10, 'Whose mean?'.",
            gated(norm=lambda x: normed(x, axis=1)),
        ),
        Mistake(
            "The normalised tokens are added at the end; those that came in must be.",
            "lesson 11, 'The gate': the residual.",
            lambda x, branch, shift, scale, gate: gated()(x, branch, shift, scale, gate) - x + normed(x),
        ),
    ),
    "lesson 11, 'The gate'.",
    reference=gated(),
)


def check_adaln_zero(
    fn: Callable,  # (x (N, T, D), branch, a callable, shift, scale, gate, each (N, 1, D)) -> (N, T, D)
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`adaln_zero(x, branch, shift, scale, gate)`: norm (eps 1e-6, no affine), modulate, branch, gate, residual."
    return grade(ADALN_ZERO, fn, **options)


def after(fn: Callable, linear: nn.Linear):
    "The layer's numbers, and whether they can learn."
    fn(linear)
    learns = [float(p.requires_grad) for p in (linear.weight, linear.bias)]
    return linear.weight.detach().clone(), linear.bias.detach().clone(), torch.tensor(learns)


def zero_by_hand(linear: nn.Linear) -> None:
    "Number by number."
    with torch.no_grad():
        for parameter in linear.parameters():
            for index in range(parameter.numel()):
                parameter.view(-1)[index] = 0.0


def linear_cases(draw: Draw) -> list[Case]:
    "Layers with random weights and biases."
    cases = []
    for inside, out in [(4, 4), (2, 6), (3, draw.pick(5, 9))]:
        linear = nn.Linear(inside, out, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(draw.normal(out, inside))
            linear.bias.copy_(draw.normal(out))
        cases.append(Case(f"{inside} to {out}", (linear,)))
    return cases


def and_then(*steps: Callable) -> Callable:
    "One step after the other, on the layer."
    return lambda linear: [step(linear) for step in steps]


def zero_weight(linear: nn.Linear) -> None:
    "Half of the job."
    nn.init.zeros_(linear.weight)


def zero_bias(linear: nn.Linear) -> None:
    "The other half."
    nn.init.zeros_(linear.bias)


ZERO_INIT = Exercise(
    "zero_init",
    zero_by_hand,
    linear_cases,
    (
        Mistake(
            "Only the bias is zero; the weight must be, too.",
            "lesson 11, 'Five ways to break it'.",
            zero_bias,
        ),
        Mistake(
            "Only the weight is zero; the bias must be, too.", "what else a linear layer holds.", zero_weight
        ),
        Mistake(
            "The layer is what it was: are the zeros in a new layer, or in a copy? Change the one that you are given.",
            "what the functions of nn.init do.",
            lambda linear: None,
        ),
        Mistake(
            "The layer is frozen: it is zero and can never become anything else. It is to start at zero and to learn.",
            "lesson 11, 'With all those zeros, how can it learn?'.",
            and_then(zero_weight, zero_bias, lambda linear: linear.requires_grad_(False)),
        ),
        Mistake(
            "After the zeros, the usual random numbers were drawn again: the order matters.",
            "lesson 11, 'Five ways to break it'.",
            and_then(zero_bias, lambda linear: nn.init.xavier_uniform_(linear.weight)),
        ),
        Mistake(
            "The numbers are ones.",
            "lesson 11, 'The gate'.",
            lambda linear: [nn.init.ones_(p) for p in linear.parameters()],
        ),
    ),
    "lesson 11, 'The gate'.",
    parts=("weight", "bias", "flag whether weight and bias can learn"),
    tolerance=1e-15,
    probe=after,
    in_place=True,
    reference=and_then(zero_weight, zero_bias),
)


def check_zero_init(
    fn: Callable,  # (linear, an nn.Linear), which is changed in place
    **options,  # points, seed, seconds, variant: as for `grade`
) -> Report:
    "`zero_init(linear)`: make the layer say nothing at the start, but able to learn."
    return grade(ZERO_INIT, fn, **options)
