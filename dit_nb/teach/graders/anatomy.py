"""Grader of lesson 23: ablation by the mean, with a hook."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_mean_ablation"]


class _Stream(nn.Module):
    """A residual stream: each part adds its output to the tokens."""

    def __init__(self, *parts: nn.Module):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = x + part(x)
        return x


class _Gain(nn.Module):
    """A part that returns more in training than in evaluation, as dropout does on average."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (2.5 if self.training else 0.5)


class _Fails(nn.Module):
    """A part that raises an error while `broken` is set."""

    broken = False

    def forward(self, x: Tensor) -> Tensor:
        if self.broken:
            raise RuntimeError("a part of the model failed")
        return torch.tanh(x)


def _replaced(model: nn.Module, layer: nn.Module, x: Tensor, replace: Callable) -> Tensor:
    """The model's output, computed part by part without hooks."""
    residual = isinstance(model, _Stream)
    for part in model.parts if residual else model.children():
        out = part(x)
        out = replace(out) if part is layer else out
        x = x + out if residual else out
    return x


def _mean_of_batch(out: Tensor) -> Tensor:
    return torch.stack([sum(out) / len(out)] * len(out))


def _mean_ablation_by_parts(model: nn.Module, layer: nn.Module, x: Tensor) -> Tensor:
    return _replaced(model, layer, x, _mean_of_batch)


_LEFT_AFTER_ERROR = (
    "It is right until the model raises an error: then what was changed stays, such as a hook, and all "
    "later calls are wrong. Undo it in a finally."
)
_FOREIGN_HOOK = "It is right until the layer has a hook of somebody else, which must stay as it is."
_MODE = (
    "It is right until a part differs in training and in evaluation: it changes the mode of the model, "
    "which must stay as it is."
)
_IN_PLACE = (
    "It is right until the layer returns its own input: the hook changes that tensor in place, and with it "
    "the residual stream. Return a new tensor."
)


def _double(module: nn.Module, args: tuple, out: Tensor) -> Tensor:
    return 2 * out


def _linear(rng: RandomInputs, width: int) -> nn.Linear:
    layer = nn.Linear(width, width).double()
    layer.weight.data, layer.bias.data = rng.normal(width, width) / width**0.5, rng.normal(width)
    return layer


def _model_cases(rng: RandomInputs) -> list[Case]:
    """A stream, a chain, a layer that returns its input, a foreign hook, a mode, and a model that fails."""
    cases = []
    for n, t, d, which in [(4, 3, 5, 1), (3, 3, 4, 0)]:
        parts = [nn.Sequential(_linear(rng, d), nn.Tanh()) for _ in range(3)]
        cases.append(
            Case(f"{n} images, part {which} of 3", (_Stream(*parts), parts[which], rng.normal(n, t, d)))
        )
    chain = nn.Sequential(_linear(rng, 4), nn.Tanh(), _linear(rng, 4))
    cases.append(Case("a chain without a residual stream", (chain, chain[1], rng.normal(3, 2, 4))))
    same = nn.Identity()
    parts = _linear(rng, 3), same, _linear(rng, 3)
    cases.append(Case("the layer returns its input", (_Stream(*parts), same, rng.normal(4, 2, 3)), _IN_PLACE))
    parts = _linear(rng, 3), _linear(rng, 3)
    parts[0].register_forward_hook(_double)
    cases.append(
        Case("a hook is there already", (_Stream(*parts), parts[0], rng.normal(3, 2, 3)), _FOREIGN_HOOK)
    )
    parts = _linear(rng, 3), _Gain()
    cases.append(Case("a part differs in training", (_Stream(*parts), parts[0], rng.normal(3, 2, 3)), _MODE))
    parts = _linear(rng, 3), _Fails()
    cases.append(Case("the model fails", (_Stream(*parts), parts[0], rng.normal(3, 2, 3)), _LEFT_AFTER_ERROR))
    return cases


def _output_and_next(fn: Callable, model: nn.Module, layer: nn.Module, x: Tensor):
    """The function's output, and the model's own output afterwards; for a model that fails, the second alone."""
    failing = [part for part in model.modules() if isinstance(part, _Fails)]
    for part in failing:
        part.broken = True
    try:
        output = fn(model, layer, x)
        output = torch.ones(1, dtype=x.dtype) if failing else output  # the error did not get through
    except RuntimeError as error:
        if not failing or "a part of the model failed" not in str(error):
            raise
        output = torch.zeros(1, dtype=x.dtype)
    finally:
        for part in failing:
            part.broken = False
    if not isinstance(output, Tensor):
        return output
    return output, model(x)


def _with_hook(
    replace: Callable = lambda out: out.mean(0, keepdim=True).expand_as(out),
    at: Callable = lambda model, layer: layer,
    pre: bool = False,
    remove: str = "finally",
    result: Callable = lambda output, kept: output,
) -> Callable:
    """Mean ablation by a hook, with another step in one place; `replace` may return None."""

    def ablation(model, layer, x):
        kept = []

        def hook(module, args, out=None):
            new = replace(args[0] if out is None else out)
            kept.append(new)
            return new

        module = at(model, layer)
        register = module.register_forward_pre_hook if pre else module.register_forward_hook
        handle = register(hook)
        if remove == "before":
            handle.remove()
        try:
            output = model(x)
        finally:
            if remove == "finally":
                handle.remove()
        if remove == "without error":
            handle.remove()
        return result(output, kept)

    return ablation


def _swallowing(remove: str) -> Callable:
    """Return the input if the model raises an error."""

    def ablation(model, layer, x):
        try:
            return _with_hook(remove=remove)(model, layer, x)
        except RuntimeError:
            return x

    return ablation


def _mean_outside(model: nn.Module, layer: nn.Module, x: Tensor) -> Tensor:
    """Mean ablation with the mean of the layer applied to the model's input."""
    mean = layer(x).mean(0, keepdim=True)
    return _with_hook(replace=lambda out: mean.expand_as(out))(model, layer, x)


def _mean_of_input(model: nn.Module, layer: nn.Module, x: Tensor) -> Tensor:
    """The layer's output replaced by the mean of its input."""
    handle = layer.register_forward_hook(
        lambda module, args, out: args[0].mean(0, keepdim=True).expand_as(out)
    )
    try:
        return model(x)
    finally:
        handle.remove()


_AXIS = "The mean runs over the wrong axis: it must run over the images, the first one"

_MEAN_ABLATION = Exercise(
    "mean_ablation",
    _mean_ablation_by_parts,
    _model_cases,
    {
        "The output is the model's own: nothing was replaced. Does the hook return a value, "
        "and is it still there when the model is called?": _with_hook(replace=lambda out: None),
        "The hook is never removed: the next call of the model is changed as well.": _with_hook(
            remove="never"
        ),
        "It swallows the error of the model: the caller must see it. A finally removes the hook and lets it through.": (
            _swallowing("finally")
        ),
        "It swallows the error of the model, and leaves the hook there. A finally removes the hook and lets the error "
        "through.": _swallowing("without error"),
        "The output is replaced by 0; it should be replaced by its mean.": _with_hook(
            replace=lambda out: torch.zeros_like(out)
        ),
        "There is one mean for all numbers; each token and channel needs its own.": _with_hook(
            replace=lambda out: out.mean() + torch.zeros_like(out)
        ),
        f"{_AXIS}, not over the tokens.": _with_hook(
            replace=lambda out: out.mean(1, keepdim=True).expand_as(out)
        ),
        f"{_AXIS}, not over the channels.": _with_hook(
            replace=lambda out: out.mean(-1, keepdim=True).expand_as(out)
        ),
        "There is one mean for each channel; each token needs its own, only images are averaged.": _with_hook(
            replace=lambda out: out.mean((0, 1), keepdim=True).expand_as(out)
        ),
        "The mean has lost the axis of the images: what replaces an output must have its shape.": _with_hook(
            replace=lambda out: out.mean(0)
        ),
        "The mean has only one image: what replaces an output must have its shape.": _with_hook(
            replace=lambda out: out.mean(0, keepdim=True)
        ),
        "The mean is subtracted; it should take the output's place.": _with_hook(
            replace=lambda out: out - out.mean(0, keepdim=True)
        ),
        "The hook replaces the layer's input; it must replace its output.": _with_hook(pre=True),
        "The mean is that of the layer's input; it must be that of its output.": _mean_of_input,
        "This is what the layer returned, averaged; return the output of the model.": _with_hook(
            result=lambda output, kept: kept[0]
        ),
        "The input of the model is averaged; only the layer's output should be.": lambda model, layer, x: (
            model(x.mean(0, keepdim=True).expand_as(x))
        ),
        "The output of the whole model is averaged; only that of the layer should be. Which module has the hook?": (
            lambda model, layer, x: _mean_of_batch(model(x))
        ),
        "The mean is that of the layer applied to the model's input; it must be that of what the layer returns inside "
        "the model.": _mean_outside,
        "The output of one image takes the place of all; it should be the mean over the images.": _with_hook(
            replace=lambda out: out[:1].expand_as(out)
        ),
    },
    "lesson 23, 'Ablation'.",
    result_names=("output", "model's output afterwards"),
    tolerance=1e-8,
    probe=_output_and_next,
    reference=_with_hook(),
)


def check_mean_ablation(fn: Callable, **grade_options) -> Report:
    """Check fn(model, layer, x (N, T, D)) -> output of the model, the layer's output replaced by its mean."""
    return grade(_MEAN_ABLATION, fn, **grade_options)
