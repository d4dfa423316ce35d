"""Graders of lesson 11: a gated branch, a layer that is initialized to zero, and two zeros in one product."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dit_nb.blocks.adaln_zero import AdaLNZeroBlock
from dit_nb.teach.graders.adaln import _SCALE_WITHOUT_ONE
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report
from dit_nb.teach.graders.in_context import _random_mixer
from dit_nb.teach.graders.layer_norm import _layer_norm, _normalize_token

__all__ = ["check_adaln_zero", "check_stop_attention", "check_zero_init"]


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
            "lesson 07, 'LayerNorm by hand'.",
        ),
        "The norm divides by D - 1; a layer norm divides by D.": (
            _adaln_zero(norm=lambda x: _layer_norm(x, unbiased=True)),
            "lesson 07, 'LayerNorm by hand'.",
        ),
        "The norm runs over the tokens; it must run over the channels of each token.": (
            _adaln_zero(norm=lambda x: _layer_norm(x, axis=1)),
            "lesson 07, 'Whose mean?'.",
        ),
        "Shift and scale are exchanged.": (
            _adaln_zero(modulate=lambda h, shift, scale: h * (1 + shift) + scale),
            "the order of the arguments: shift, then scale.",
        ),
        "The shift is scaled too: scale first, then shift.": _adaln_zero(
            modulate=lambda h, shift, scale: (h + shift) * (1 + scale)
        ),
        "The scale is missing.": _adaln_zero(modulate=lambda h, shift, scale: h + shift),
        "The shift is missing.": _adaln_zero(modulate=lambda h, shift, scale: h * (1 + scale)),
        "The branch gets normalized tokens without shift and scale.": _adaln_zero(
            modulate=lambda h, shift, scale: h
        ),
        "Shift and scale come after the branch; they belong between norm and branch.": (
            lambda x, branch, shift, scale, gate: x + gate * (branch(_layer_norm(x)) * (1 + scale) + shift)
        ),
        "The gate multiplies what goes into the branch; it must multiply what comes out.": (
            lambda x, branch, shift, scale, gate: x + branch(gate * (_layer_norm(x) * (1 + scale) + shift))
        ),
        "The norm comes last, over the sum (post-norm): a gate of 0 changes the tokens.": (
            lambda x, branch, shift, scale, gate: _layer_norm(x + gate * branch(x * (1 + scale) + shift))
        ),
        "Norm and modulation come last, over the sum (post-norm): a gate of 0 changes the tokens.": (
            lambda x, branch, shift, scale, gate: _layer_norm(x + gate * branch(x)) * (1 + scale) + shift
        ),
        "There is a second norm, over the sum: a gate of 0 changes the tokens.": (
            lambda x, branch, shift, scale, gate: _layer_norm(_adaln_zero()(x, branch, shift, scale, gate))
        ),
        "The norm comes after the branch; the tokens must be normalized before it.": (
            lambda x, branch, shift, scale, gate: x + gate * _layer_norm(branch(x * (1 + scale) + shift))
        ),
        "Norm and modulation come after the branch; they must come before it.": (
            lambda x, branch, shift, scale, gate: x + gate * (_layer_norm(branch(x)) * (1 + scale) + shift)
        ),
        "The modulated tokens are added at the end; the input tokens must be added.": (
            lambda x, branch, shift, scale, gate: (
                _adaln_zero(residual=lambda x, out, gate: gate * out)(x, branch, shift, scale, gate)
                + _layer_norm(x) * (1 + scale)
                + shift
            ),
            "lesson 11, 'The gate': the residual.",
        ),
        "The gate mixes tokens and branch, (1 - gate) of one and gate of the other; the tokens stay whole.": (
            _adaln_zero(residual=lambda x, out, gate: (1 - gate) * x + gate * out)
        ),
        "The gate goes through a tanh: it must be used as it is.": _adaln_zero(
            residual=lambda x, out, gate: x + gate.tanh() * out
        ),
        "The first image's gate is used for all images.": _adaln_zero(
            residual=lambda x, out, gate: x + gate[:1] * out
        ),
        "The tokens are not centered: this norm divides by the root mean square (RMSNorm).": _adaln_zero(
            norm=lambda x: x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        ),
        "The small constant is added to the standard deviation; it belongs under the root.": _adaln_zero(
            norm=lambda x: (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, unbiased=False) + 1e-6)
        ),
        "The normalized tokens are added at the end; the input tokens must be added.": (
            lambda x, branch, shift, scale, gate: (
                _adaln_zero()(x, branch, shift, scale, gate) - x + _layer_norm(x)
            ),
            "lesson 11, 'The gate': the residual.",
        ),
        "The norm comes after the modulation, and undoes part of it: normalize first.": (
            lambda x, branch, shift, scale, gate: x + gate * branch(_layer_norm(x * (1 + scale) + shift))
        ),
        "There is one mean for each image; each token needs its own.": (
            _adaln_zero(norm=lambda x: _layer_norm(x, axis=(1, 2))),
            "lesson 07, 'Whose mean?'.",
        ),
        "The norm runs over the images of the batch, so that each depends on its neighbors.": (
            _adaln_zero(norm=lambda x: _layer_norm(x, axis=0)),
            "lesson 07, 'Whose mean?'.",
        ),
        "The norm divides by D - 1, and the small constant is added to the standard deviation: two mistakes at once.": (
            _adaln_zero(norm=lambda x: (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6)),
            "lesson 07, 'LayerNorm by hand'.",
        ),
        "The norm has no small constant; DiT has 1e-6, which matters for small tokens.": (
            _adaln_zero(norm=lambda x: _layer_norm(x, 0.0)),
            "lesson 07, 'LayerNorm by hand'.",
        ),
        "The scale is subtracted from 1; it must be added to 1.": (
            _adaln_zero(modulate=lambda h, shift, scale: h * (1 - scale) + shift),
            "lesson 10, 'Why 1 + scale'.",
        ),
        "The gate is added to the branch; it must multiply it.": _adaln_zero(
            residual=lambda x, out, gate: x + out + gate
        ),
        "The branch is never called: its result is what the gate multiplies.": (
            lambda x, branch, shift, scale, gate: x + gate * (_layer_norm(x) * (1 + scale) + shift)
        ),
        "Shift and scale come after the branch, outside the gate; they belong between norm and branch.": (
            lambda x, branch, shift, scale, gate: x + gate * branch(_layer_norm(x)) * (1 + scale) + shift
        ),
        "The gate multiplies the normalized tokens before they are modulated; it must multiply what the branch returns.": lambda x, branch, shift, scale, gate: (
            x + branch(gate * _layer_norm(x) * (1 + scale) + shift)
        ),
        "Gate and scale are exchanged.": lambda x, branch, shift, scale, gate: (
            x + scale * branch(_layer_norm(x) * (1 + gate) + shift)
        ),
        "Gate and shift are exchanged.": lambda x, branch, shift, scale, gate: (
            x + shift * branch(_layer_norm(x) * (1 + scale) + gate)
        ),
        "The three fields are taken in the order gate, shift, scale; they come as shift, scale, gate.": lambda x, branch, shift, scale, gate: (
            x + shift * branch(_layer_norm(x) * (1 + gate) + scale)
        ),
        "The three fields are taken in the order scale, gate, shift; they come as shift, scale, gate.": lambda x, branch, shift, scale, gate: (
            x + scale * branch(_layer_norm(x) * (1 + shift) + gate)
        ),
        "The gate is subtracted from 1, so that a gate of 0 is fully open.": lambda x, branch, shift, scale, gate: (
            x + (1 - gate) * branch(_layer_norm(x) * (1 + scale) + shift)
        ),
        "The gate multiplies shift and scale; it must multiply what the branch returns.": lambda x, branch, shift, scale, gate: (
            x + branch(_layer_norm(x) * (1 + gate * scale) + gate * shift)
        ),
        "The gate multiplies the input tokens as well; they must be added as they are.": lambda x, branch, shift, scale, gate: (
            x + gate * (x + branch(_layer_norm(x) * (1 + scale) + shift))
        ),
        "The gate is used twice, as if it were squared.": lambda x, branch, shift, scale, gate: (
            x + gate**2 * branch(_layer_norm(x) * (1 + scale) + shift)
        ),
        "The gate is used before and after the branch; only what comes out is gated.": lambda x, branch, shift, scale, gate: (
            x + gate * branch(gate * (_layer_norm(x) * (1 + scale) + shift))
        ),
        "The gated branch is subtracted; it must be added.": lambda x, branch, shift, scale, gate: (
            x - gate * branch(_layer_norm(x) * (1 + scale) + shift)
        ),
        "The scale is used where the gate belongs: the gate itself is not used.": lambda x, branch, shift, scale, gate: (
            x + scale * branch(_layer_norm(x) * (1 + scale) + shift)
        ),
        "The shift is used where the gate belongs: the gate itself is not used.": lambda x, branch, shift, scale, gate: (
            x + shift * branch(_layer_norm(x) * (1 + scale) + shift)
        ),
        "The gate is averaged to one number; each image and channel has its own.": lambda x, branch, shift, scale, gate: (
            x + gate.mean() * branch(_layer_norm(x) * (1 + scale) + shift)
        ),
    },
    "lesson 11, 'The gate'.",
    reference=_adaln_zero(),
    precisions=(torch.float32,),
)


def check_adaln_zero(fn: Callable, **grade_options) -> Report:
    """Check fn(x (N, T, D), branch: callable, shift, scale, gate: each (N, 1, D)) -> (N, T, D)."""
    return grade(_ADALN_ZERO, fn, **grade_options)


def _numbers_of(parameter: nn.Parameter) -> Tensor:
    """The numbers of a parameter; all small ones count as one thousandth, since any of them is one mistake."""
    numbers = parameter.detach().clone()
    small = numbers.numel() and 0 < numbers.abs().max() < 0.1
    return torch.full_like(numbers, 1e-3) if small else numbers


def _parameters_after(fn: Callable, linear: nn.Linear):
    """Return the layer's parameters, and whether they can learn; a bias that is gone is empty.

    Zeros that can learn, but are not the tensors that the layer had, count as a half.
    """
    before = linear.weight, linear.bias
    fn(linear)
    parts = [torch.zeros(0) if p is None else p for p in (linear.weight, linear.bias)]
    new = [p is not old and not p.any() for p, old in zip(parts, before)]
    learns = [p.requires_grad / (1 + is_new) for p, is_new in zip(parts, new)]
    return *map(_numbers_of, parts), torch.tensor(learns)


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


def _renew(*names: str) -> Callable:
    """Replace parameters by new ones of zeros."""

    def change(linear: nn.Linear) -> None:
        for name in names:
            setattr(linear, name, nn.Parameter(torch.zeros_like(getattr(linear, name))))

    return change


_OLD_TENSORS = "what an optimizer holds that was made before: tensors, or names?"
_PLACE = "write zeros into the numbers that the layer has, since an optimizer may hold these already."

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
        "The weight has the usual random numbers: are they written after the zeros, or instead of them?": (
            _in_sequence(_zero_bias, lambda linear: nn.init.xavier_uniform_(linear.weight)),
            "lesson 11, 'Five ways to break it'.",
        ),
        "The numbers are ones.": lambda linear: [nn.init.ones_(p) for p in linear.parameters()],
        "The layer is zero, but the bias is frozen; both must learn.": _in_sequence(
            _zero_weight, _zero_bias, lambda linear: linear.bias.requires_grad_(False)
        ),
        "The layer is zero, but the weight is frozen; both must learn.": _in_sequence(
            _zero_weight, _zero_bias, lambda linear: linear.weight.requires_grad_(False)
        ),
        "The weight is small, but not zero.": _in_sequence(
            lambda linear: nn.init.normal_(linear.weight, std=0.02), _zero_bias
        ),
        "The bias is zero, the weight PyTorch's own random numbers.": _in_sequence(
            nn.Linear.reset_parameters, _zero_bias
        ),
        "Weight and bias are small, but not zero.": _in_sequence(
            lambda linear: nn.init.normal_(linear.weight, std=0.02),
            lambda linear: nn.init.normal_(linear.bias, std=0.02),
        ),
        "The weight is zero, the bias small: it must be zero, too.": _in_sequence(
            _zero_weight, lambda linear: nn.init.normal_(linear.bias, std=0.02)
        ),
        "The bias is removed; it must stay, with zeros that can learn.": _in_sequence(
            _zero_weight, lambda linear: setattr(linear, "bias", None)
        ),
        f"Weight and bias are new tensors; {_PLACE}": (_renew("weight", "bias"), _OLD_TENSORS),
        f"The weight is a new tensor; {_PLACE}": (_in_sequence(_renew("weight"), _zero_bias), _OLD_TENSORS),
        f"The bias is a new tensor; {_PLACE}": (_in_sequence(_zero_weight, _renew("bias")), _OLD_TENSORS),
        "The weight is a new tensor of zeros, and the bias is not zero.": (_renew("weight"), _OLD_TENSORS),
        "The weight is zero, the bias ones.": _in_sequence(
            _zero_weight, lambda linear: nn.init.ones_(linear.bias)
        ),
    },
    "lesson 11, 'The gate'.",
    result_names=("weight", "bias", "flag whether weight and bias can learn"),
    tolerance=1e-15,
    same_dtype=True,
    probe=_parameters_after,
    in_place=True,
    reference=_in_sequence(_zero_weight, _zero_bias),
)


def check_zero_init(fn: Callable, **grade_options) -> Report:
    """Check fn(linear: nn.Linear), which sets the layer to zero in place; it must still be able to learn."""
    return grade(_ZERO_INIT, fn, **grade_options)


_STEPS = 5  # training steps that are watched


def _received(parameter: nn.Parameter, parts: int = 1) -> list[float]:
    """For each part of a parameter: 1 if it has a gradient, 0 if it is exactly zero, -1 if it is frozen."""
    if not parameter.requires_grad or parameter.grad is None:
        return [-1.0] * parts
    return [float(part.any()) for part in parameter.grad.chunk(parts)]


def _gradients_of(block: nn.Module) -> tuple[list[float], list[float]]:
    """Which tensors of the attention's and of the MLP's branch have a gradient."""
    fields = _received(block.adaLN_modulation[-1].weight, 6)  # shift, scale, gate; shift, scale, gate
    layers = (block.attn.qkv, block.attn.proj), (block.mlp.fc1, block.mlp.fc2)
    attention, mlp = (
        [r for layer in pair for p in layer.parameters() for r in _received(p)] for pair in layers
    )
    return fields[:3] + attention, fields[3:] + mlp


_REPLACED = torch.tensor([-2.0])  # stands for all results of a block with other parameters than before


def _watch_training(fn: Callable, block: nn.Module):
    """Change the block, train it a little, and record at which step which tensor had a gradient."""
    before = list(map(id, block.parameters()))
    fn(block)
    if before != list(map(id, block.parameters())):
        return _REPLACED, _REPLACED, _REPLACED
    width = block.adaLN_modulation[-1].in_features
    x, target = torch.randn(2, 4, 5, width, dtype=torch.float64).unbind()
    c = torch.randn(4, width, dtype=torch.float64)
    identity = torch.tensor([float(torch.equal(block(x, c), x))])
    optimizer, records = torch.optim.SGD(block.parameters(), lr=0.1), []
    for _ in range(_STEPS):
        optimizer.zero_grad()
        loss = (block(x, c) - target).square().mean()
        if loss.requires_grad:
            loss.backward()
        records.append(_gradients_of(block))
        optimizer.step()
    attention, mlp = (torch.tensor(rows) for rows in zip(*records))
    return identity, attention, mlp


def _stop_loops(block: nn.Module) -> None:
    for name, parameter in block.named_parameters():
        if name.startswith("attn.proj"):
            _zero_loops(nn.ParameterList([parameter]))


def _block_cases(rng: RandomInputs) -> list[Case]:
    cases = []
    for width, heads in [(4, 2), (rng.choice(6, 9, 12), 3), (rng.choice(8, 12, 16), rng.choice(1, 2, 4))]:
        block = AdaLNZeroBlock(width, heads, 2.0).double()
        with torch.no_grad():
            for name, parameter in block.named_parameters():
                if "adaLN" not in name:
                    parameter.copy_(rng.normal(*parameter.shape) / 2)
        cases.append(Case(f"width {width}, {heads} heads", (block,)))
    return cases


def _set(value: float, *layers: str) -> Callable:
    """Fill all parameters whose names begin with one of `layers`."""

    def change(block: nn.Module) -> None:
        for name, parameter in block.named_parameters():
            if name.startswith(layers):
                nn.init.constant_(parameter, value)

    return change


def _freeze(block: nn.Module) -> None:
    block.attn.requires_grad_(False)


def _open_gate(block: nn.Module) -> None:
    with torch.no_grad():
        block.adaLN_modulation[-1].bias.view(6, -1)[2] = 1


_STOP_ATTENTION = Exercise(
    "stop_attention",
    _stop_loops,
    _block_cases,
    {
        "The attention still learns as it always does: is it the weight of the layer whose result its gate multiplies that is zero, and in this block?": (
            lambda block: None,
            "lesson 11, 'With all those zeros, how can it learn?'.",
        ),
        "The attention still learns: only the weight of the last layer is zero, so that its bias opens the gate.": (
            _set(0.0, "attn.proj.weight"),
            "lesson 11, 'Five ways to break it': weight and bias.",
        ),
        "The attention still learns: the values are zero, but the last layer's bias opens the gate.": (
            _set(0.0, "attn.qkv"),
            "which number the gate is multiplied with.",
        ),
        "The attention still learns: the values have no weights, but biases that reach the gate.": (
            _set(0.0, "attn.qkv.weight"),
            "which number the gate is multiplied with.",
        ),
        "The MLP is stopped, the attention learns: it should be the other way round.": _set(0.0, "mlp.fc2"),
        "Both branches are stopped; the MLP should learn.": _set(0.0, "attn.proj", "mlp.fc2"),
        "The attention is frozen, so that it has no gradient at all; stop it by its first numbers alone.": _freeze,
        "The whole block is frozen.": lambda block: block.requires_grad_(False),
        "The last layer is frozen as well as zero; it should be able to learn, but never get a gradient.": (
            _in_sequence(_set(0.0, "attn.proj"), lambda block: block.attn.proj.requires_grad_(False))
        ),
        "The modulation is frozen: then the MLP cannot learn either.": lambda block: (
            block.adaLN_modulation.requires_grad_(False)
        ),
        "The gate is open at the start, so that the attention learns.": (
            _open_gate,
            "lesson 11, 'The identity, to the last bit'.",
        ),
        "The gate is open and the last layer zero: one zero, so that the attention learns.": (
            _in_sequence(_set(0.0, "attn.proj"), _open_gate),
            "lesson 11, 'With all those zeros, how can it learn?'.",
        ),
        "Parameters of the block are replaced or removed; change the numbers that they hold, and leave layers and tensors.": (
            lambda block: setattr(block.attn, "proj", nn.Linear(*block.attn.proj.weight.shape)),
            _OLD_TENSORS,
        ),
        "The layer that makes the gates is not zero: the block is not the identity.": _set(
            0.1, "adaLN_modulation"
        ),
        "The attention still learns: the weights of all its layers are zero, but the last layer's bias opens the gate.": (
            _set(0.0, "attn.qkv.weight", "attn.proj.weight"),
            "lesson 11, 'Five ways to break it': weight and bias.",
        ),
    },
    "lesson 11, 'With all those zeros, how can it learn?': two zeros in one product.",
    result_names=(
        "flag whether the block starts as the identity",
        "list of gradients in the branch of the attention, step by step",
        "list of gradients in the branch of the MLP, step by step",
    ),
    probe=_watch_training,
    in_place=True,
    reference=lambda block: _zero_loops(block.attn.proj),
)


def check_stop_attention(fn: Callable, **grade_options) -> Report:
    """Check fn(block: AdaLNZeroBlock), which changes numbers in place so that the attention never gets a gradient."""
    return grade(_STOP_ATTENTION, fn, **grade_options)
