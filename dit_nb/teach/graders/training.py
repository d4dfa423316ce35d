"""Graders of lesson 19: a training step, an average of the weights, its composition, and overfitting one batch."""

import math
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, parameters_to_vector

from dit_nb.objective import Diffusion
from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_training_step", "check_update_ema", "check_overfit", "check_ema_shares"]


class _TinyModel(nn.Module):
    """A model (x, t, y) -> eps and variance values, linear in x, in float64."""

    def __init__(self, start: Tensor, gain: float):
        super().__init__()
        self.gain, (mix, time, labels) = gain, start.split([2, 2, 6])
        self.mix, self.time = nn.Parameter(mix.clone()), nn.Parameter(time.clone())
        self.labels = nn.Parameter(labels.view(3, 2).clone())

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        bias = self.time * t[:, None] / 1000 + self.labels[y]  # (N, 2)
        return self.gain * (self.mix.view(1, 2, 1, 1) * x + bias[:, :, None, None])  # (N, 2, H, W)


def _step_by_hand(
    model: nn.Module,
    optimizer,
    scheduler,
    diffusion: Diffusion,
    x0: Tensor,
    y: Tensor,
    t: Tensor,
    noise: Tensor,
) -> float:
    """Add up the losses of single images, and clip the gradient by hand."""
    images, parameters = zip(x0, y, t, noise), list(model.parameters())
    losses = [
        diffusion.training_losses(model, x[None], s[None], label[None], noise=e[None])["loss"].sum()
        for x, label, s, e in images
    ]
    loss = sum(losses[1:], losses[0]) / len(losses)
    gradients = torch.autograd.grad(loss, parameters)
    norm = math.sqrt(sum(g.square().sum().item() for g in gradients))
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = gradient / max(1.0, norm)
    optimizer.step()
    scheduler.step()
    return loss.item()


def _watch_steps(fn: Callable, start: Tensor, gain: float, kind: str, diffusion: Diffusion, *batches: Tensor):
    """Return weights and losses of some steps, and for each loss 0: a number, 1: a tensor, 2: one with the graph."""
    model = _TinyModel(start, gain)
    optimizer = {"SGD": torch.optim.SGD, "AdamW": torch.optim.AdamW}[kind](model.parameters(), lr=0.25)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 1 / (1 + k))
    weights, losses = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, about the order of scheduler and optimizer
        for batch in zip(*batches):
            before = parameters_to_vector(model.parameters()).detach().clone()
            loss = fn(model, optimizer, scheduler, diffusion, *batch)
            if loss is None and not torch.equal(before, parameters_to_vector(model.parameters())):
                loss = math.inf  # it did something, and only its loss is missing
            if not isinstance(loss, Tensor | np.floating | float | int):
                return loss
            losses.append(loss)
            weights.append(parameters_to_vector(model.parameters()).detach().clone())
    kinds = [2.0 * loss.requires_grad or 1.0 if isinstance(loss, Tensor) else 0.0 for loss in losses]
    record = torch.stack([torch.as_tensor(loss, dtype=torch.float64).detach() for loss in losses])
    return torch.stack(weights), record, torch.tensor(kinds)


def _step_cases(rng: RandomInputs) -> list[Case]:
    """Gradients shorter and longer than 1, and two optimizers; four steps each, at t > 0."""
    cases, diffusion = [], Diffusion()
    for kind, gain, n in [
        ("SGD", 0.1, 3),
        ("SGD", 3.0, 2),
        ("AdamW", 0.1, 2),
        ("AdamW", 2.0, rng.choice(3, 4)),
    ]:
        shape, size = (4, n, 1, 2, 3), "small" if gain < 1 else "large"
        start = rng.normal(10)
        x0, noise = rng.uniform(-1, 1, *shape), rng.normal(*shape)
        y, t = rng.integers(0, 3, 4, n), rng.integers(100, 1000, 4, n)
        cases.append(
            Case(f"{kind}, {size} gradient, N = {n}", (start, gain, kind, diffusion, x0, y, t, noise))
        )
    return cases


def _clip_norm(model: nn.Module) -> None:
    clip_grad_norm_(model.parameters(), 1.0)


def _clip_each(model: nn.Module) -> None:
    for parameter in model.parameters():
        clip_grad_norm_([parameter], 1.0)


def _clip_values(model: nn.Module) -> None:
    clip_grad_value_(model.parameters(), 1.0)


def _normalize(model: nn.Module) -> None:
    norm = clip_grad_norm_(model.parameters(), math.inf)
    for parameter in model.parameters():
        parameter.grad /= norm


def _step(
    order: str = "zero backward clip optimizer scheduler",
    loss_of: Callable = lambda losses: losses["loss"].mean(),
    clip: Callable = _clip_norm,
    returned: Callable = lambda loss, losses: loss.item(),
    inputs: Callable = lambda x0, t, y, noise: (x0, t, y, noise),
) -> Callable:
    """The step with actions in another order, or another loss, clipping or inputs."""

    def step(model, optimizer, scheduler, diffusion, x0, y, t, noise):
        losses = diffusion.training_losses(model, *inputs(x0, t, y, noise))
        loss = loss_of(losses)
        actions = {
            "zero": optimizer.zero_grad,
            "backward": loss.backward,
            "clip": lambda: clip(model),
            "optimizer": optimizer.step,
            "scheduler": scheduler.step,
        }
        for name in order.split():
            actions[name]()
        return returned(loss, losses)

    return step


_ORDER_HINT = "lesson 19, 'The step, by hand'."

_TRAINING_STEP = Exercise(
    "training_step",
    _step_by_hand,
    _step_cases,
    {
        "The gradients are never cleared: each step adds its own to all before it.": (
            _step("backward clip optimizer scheduler"),
            "what a backward pass does with a gradient that is already there.",
        ),
        "The weights do not change: the optimizer finds no gradient (it is cleared too early, or comes too late), "
        "or is never called.": (_step("backward zero optimizer scheduler"), _ORDER_HINT),
        "Each update uses the gradient of the step before: the optimizer is called too early.": (
            _step("optimizer zero backward clip scheduler"),
            _ORDER_HINT,
        ),
        "The gradient is not clipped when the optimizer uses it: clip after the backward pass and before the update.": (
            _step("zero backward optimizer clip scheduler"),
            _ORDER_HINT,
        ),
        "The gradient of each parameter is clipped by its own norm; the limit is for the norm of all together.": _step(
            clip=_clip_each
        ),
        "Single values are clipped; clip the norm of the whole gradient, which keeps its direction.": _step(
            clip=_clip_values
        ),
        "The gradient always gets norm 1; a shorter one must stay as it is.": _step(clip=_normalize),
        "The losses of the images are added; take their mean, or the step grows with the batch.": (
            _step(loss_of=lambda losses: losses["loss"].sum()),
            "how the losses (N,) become one number.",
        ),
        "The losses of the images are added in the backward pass; take their mean there, too.": (
            _step(
                loss_of=lambda losses: losses["loss"].sum(),
                returned=lambda loss, losses: losses["loss"].mean().item(),
            ),
            "how the losses (N,) become one number.",
        ),
        "The scheduler is called before the optimizer, so the first learning rate is never used.": (
            _step("zero backward clip scheduler optimizer"),
            "what the scheduler changes, and who reads it.",
        ),
        "The scheduler is not called: the learning rate stays at its first value.": _step(
            "zero backward clip optimizer"
        ),
        "Only the squared error is trained; the variance learns from the other part of the loss.": (
            _step(loss_of=lambda losses: losses["mse"].mean()),
            "which entry of the losses is the whole objective.",
        ),
        "Only the bound is trained; the noise learns from the other part of the loss.": (
            _step(loss_of=lambda losses: losses["vb"].mean()),
            "which entry of the losses is the whole objective.",
        ),
        "All entries of the losses are added up; one of them is the sum of the others already.": (
            _step(loss_of=lambda losses: sum(value.mean() for value in losses.values())),
            "which entry of the losses is the whole objective.",
        ),
        "The squared error is added once more; the whole objective holds it already.": (
            _step(loss_of=lambda losses: (losses["loss"] + losses["mse"]).mean()),
            "which entry of the losses is the whole objective.",
        ),
        "The bound is added once more; the whole objective holds it already.": (
            _step(loss_of=lambda losses: (losses["loss"] + losses["vb"]).mean()),
            "which entry of the losses is the whole objective.",
        ),
        "The mean of the losses is divided by the number of images once more.": _step(
            loss_of=lambda losses: losses["loss"].mean() / len(losses["loss"]),
        ),
        "The given noise is not used: training_losses makes its own if it gets none.": _step(
            inputs=lambda x0, t, y, noise: (x0, t, y)
        ),
        "The given timesteps are not used: it takes its own.": _step(
            inputs=lambda x0, t, y, noise: (x0, torch.randint(0, 1000, (len(x0),)), y, noise)
        ),
        "The returned loss holds the graph of the whole step in memory: return a plain number.": (
            _step(returned=lambda loss, losses: loss),
            "what .item() does.",
        ),
        "The returned loss is a tensor; return a plain number.": (
            _step(returned=lambda loss, losses: loss.detach()),
            "what .item() does.",
        ),
        "It returns the loss of each image; return their mean.": _step(
            returned=lambda loss, losses: losses["loss"].detach()
        ),
        "The weights are updated, but nothing is returned: return the mean loss as a number.": (
            _step(returned=lambda loss, losses: None),
            "the last line of the task.",
        ),
        "It returns the sum of the losses, though it trains their mean: return the mean.": _step(
            returned=lambda loss, losses: losses["loss"].sum().item()
        ),
        "The scheduler is called twice: the learning rate falls too fast.": _step(
            "zero backward clip optimizer scheduler scheduler"
        ),
        "The scheduler is called before and after the optimizer: once is enough.": _step(
            "zero backward clip scheduler optimizer scheduler"
        ),
        "The optimizer is called twice: each gradient is for one update.": _step(
            "zero backward clip optimizer optimizer scheduler"
        ),
        "The gradient is clipped at another norm than 1.": _step(
            clip=lambda model: clip_grad_norm_(model.parameters(), 10.0)
        ),
    },
    _ORDER_HINT,
    result_names=("record of the weights", "record of the losses", "flag whether the loss is a tensor"),
    returns="the mean loss, a plain number",
    tolerance=1e-5,
    probe=_watch_steps,
    reference=_step(),
)


def check_training_step(fn: Callable, **grade_options) -> Report:
    """Check fn(model, optimizer, scheduler, diffusion, x0, y, t, noise) -> mean loss; it updates the weights once."""
    return grade(_TRAINING_STEP, fn, **grade_options)


def _linear(numbers: Tensor) -> nn.Linear:
    """A layer of 3 inputs and 2 outputs with the given numbers (8,), in float64."""
    layer = nn.Linear(3, 2, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(numbers[:6].view(2, 3))
        layer.bias.copy_(numbers[6:])
    return layer


def _update_by_hand(average: nn.Module, model: nn.Module, decay: float, step: int) -> float:
    """Average number by number."""
    warm = (step + 1.0) / (step + 10.0)
    decay = warm if warm < decay else decay
    with torch.no_grad():
        for old, new in zip(average.parameters(), model.parameters()):
            numbers = zip(old.flatten().tolist(), new.flatten().tolist())
            mixed = [decay * a + (1 - decay) * b for a, b in numbers]
            old.copy_(torch.tensor(mixed, dtype=old.dtype).view_as(old))
    return decay


def _watch_average(fn: Callable, start: Tensor, weights: Tensor, decay: float, first: int):
    """Return the average and the weights after each of some updates, the decays, and flags of graphs."""
    average, averages, models, decays, graphs = _linear(start).requires_grad_(False), [], [], [], []
    for k, numbers in enumerate(weights):
        model = _linear(numbers)
        before = parameters_to_vector(average.parameters()).detach().clone()
        used = fn(average, model, decay, first + k)
        if used is None and not torch.equal(before, parameters_to_vector(average.parameters())):
            used = math.inf  # it did something, and only the decay is missing
        if not isinstance(used, Tensor | float | int):
            return used
        averages.append(parameters_to_vector(average.parameters()).detach().clone())
        models.append(parameters_to_vector(model.parameters()).detach().clone())
        decays.append(float(used))
        graphs.append(float(any(p.requires_grad for p in average.parameters())))
    return torch.stack(averages), torch.stack(models), torch.tensor(decays).double(), torch.tensor(graphs)


def _ema_cases(rng: RandomInputs) -> list[Case]:
    """From the first update; into the region where the warm-up ends; and long after it."""
    settings = [(0.9999, 0, 4), (0.5, 0, 12), (rng.choice(0.9, 0.99), 100_000, 3), (0.0, 0, 2)]
    return [
        Case(
            f"decay {decay}, updates {first} to {first + n - 1}",
            (rng.normal(8), rng.normal(n, 8), decay, first),
        )
        for decay, first, n in settings
    ]


def _warm(decay: float, step: int) -> float:
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def _lerp(average: nn.Module, model: nn.Module, decay: float) -> None:
    for old, new in zip(average.parameters(), model.parameters()):
        old.lerp_(new, 1 - decay)


@torch.no_grad()
def _mix(average: nn.Module, model: nn.Module, kept: float, share: float) -> None:
    for old, new in zip(average.parameters(), model.parameters()):
        old.copy_(kept * old + share * new)


def _lerp_with_graph(average: nn.Module, model: nn.Module, decay: float) -> None:
    for old, new in zip(average.parameters(), model.parameters()):
        old.mul_(decay).add_(new, alpha=1 - decay)


@torch.no_grad()
def _lerp_and_change(average: nn.Module, model: nn.Module, decay: float, change: Callable) -> None:
    """Average, and replace the weights of the model by change(new, old average)."""
    for old, new in zip(average.parameters(), model.parameters()):
        before = old.clone()
        old.lerp_(new, 1 - decay)
        new.copy_(change(new, before))


def _update(
    decay_of: Callable = _warm, move: Callable = _lerp, returned: Callable = lambda decay: decay
) -> Callable:
    """The update with another decay, or another way to average."""

    def update(average, model, decay, step):
        decay = decay_of(decay, step)
        move(average, model, decay)
        return returned(decay)

    return update


_WARMUP_HINT = "the warm-up of lesson 19, 'The average that is sampled from'."

_UPDATE_EMA = Exercise(
    "update_ema",
    _update_by_hand,
    _ema_cases,
    {
        "The decay is on the wrong side: it is the share of the old average that is kept.": (
            _update(move=lambda average, model, decay: _lerp(average, model, 1 - decay)),
            "the formula of lesson 19, 'The average that is sampled from'.",
        ),
        "There is no warm-up: the decay is the same from the first update on. Without its parentheses the fraction is "
        "never below 1, and has no effect.": (
            _update(lambda decay, step: decay),
            _WARMUP_HINT,
        ),
        "The warm-up is one update ahead: at step 0 the decay must be 1/10.": (
            _update(lambda decay, step: min(decay, (2 + step) / (11 + step))),
            _WARMUP_HINT,
        ),
        "The warm-up is one update behind: at step 0 the decay must be 1/10, not 0.": (
            _update(lambda decay, step: min(decay, step / (9 + step))),
            _WARMUP_HINT,
        ),
        "In the warm-up the whole of 10 + k is below the line: is a parenthesis missing?": (
            _update(lambda decay, step: min(decay, (1 + step) / 10 + step)),
            _WARMUP_HINT,
        ),
        "The larger of both decays is used; the warm-up may only lower it.": (
            _update(lambda decay, step: max(decay, (1 + step) / (10 + step))),
            _WARMUP_HINT,
        ),
        "The decay that was asked for is not used: the warm-up goes on toward 1.": (
            _update(lambda decay, step: (1 + step) / (10 + step)),
            _WARMUP_HINT,
        ),
        "The two decays are multiplied; take the smaller one.": (
            _update(lambda decay, step: decay * (1 + step) / (10 + step)),
            _WARMUP_HINT,
        ),
        "The model in training is changed: its weights become the average, and training goes on from there.": (
            _update(move=lambda average, model, decay: _lerp(model, average, 1 - decay)),
            "which of the two the loop writes to.",
        ),
        "The average replaces the weights of the model in training.": (
            _update(move=lambda average, model, decay: _lerp(model, average, decay)),
            "which of the two the loop writes to.",
        ),
        "The average is right, but the weights of the model in training are scaled: an operation that ends in _ changes "
        "its tensor.": (
            _update(
                move=lambda average, model, decay: _lerp_and_change(
                    average, model, decay, lambda new, old: (1 - decay) * new
                )
            ),
            "which tensors the loop writes to.",
        ),
        "The average is right, but the weights of the model in training become their distance from the old average: an "
        "operation that ends in _ changes its tensor.": (
            _update(
                move=lambda average, model, decay: _lerp_and_change(
                    average, model, decay, lambda new, old: new - old
                )
            ),
            "which tensors the loop writes to.",
        ),
        "The average is right, but the weights of the model in training become their scaled distance from the old "
        "average: an operation that ends in _ changes its tensor.": (
            _update(
                move=lambda average, model, decay: _lerp_and_change(
                    average, model, decay, lambda new, old: (1 - decay) * (new - old)
                )
            ),
            "which tensors the loop writes to.",
        ),
        "The average is a copy of the last weights: nothing is averaged.": _update(
            move=lambda average, model, decay: _lerp(average, model, 0.0)
        ),
        "The average does not change: a new tensor with the same name is not the parameter. Work in place.": (
            _update(move=lambda average, model, decay: None),
            "what an assignment to the loop's variable does.",
        ),
        "The average holds the graph of every model that it has seen, and memory grows: work without gradients.": (
            _update(move=_lerp_with_graph),
            "torch.no_grad.",
        ),
        "Only the weight is averaged; every parameter must be, the bias, too.": _update(
            move=lambda average, model, decay: average.weight.data.lerp_(model.weight.data, 1 - decay)
        ),
        "It returns the share of the new weights; return the decay, the share of the old average.": _update(
            returned=lambda decay: 1 - decay
        ),
        "It returns the decay that was asked for; return the one that was used.": lambda average, model, decay, step: (
            max(decay, _update()(average, model, decay, step))
        ),
        "The average is updated, but nothing is returned: return the decay that was used.": _update(
            returned=lambda decay: None
        ),
        "The decay that is returned is right, but the average was mixed with the one that was asked for.": lambda average, model, decay, step: (
            (_lerp(average, model, decay), _warm(decay, step))[1]
        ),
        "The old average is not scaled: its share is the decay.": _update(
            move=lambda average, model, decay: _mix(average, model, 1, 1 - decay)
        ),
        "The new weights are not scaled: their share is what the decay leaves of 1.": _update(
            move=lambda average, model, decay: _mix(average, model, decay, 1)
        ),
        "Old and new are averaged half and half; the decay says how much each counts.": _update(
            move=lambda average, model, decay: _mix(average, model, 0.5, 0.5)
        ),
        "The new weights are subtracted; they must be added.": _update(
            move=lambda average, model, decay: _mix(average, model, 1, decay - 1)
        ),
        "The average moves away from the new weights: a sign is wrong.": _update(
            move=lambda average, model, decay: _mix(average, model, 2 - decay, decay - 1)
        ),
        "The new weights are never added: the average only decays.": _update(
            move=lambda average, model, decay: _mix(average, model, decay, 0)
        ),
        "The average is right, but it returns the value of the warm-up even where the decay is smaller.": lambda average, model, decay, step: (
            (_update()(average, model, decay, step), (1 + step) / (10 + step))[1]
        ),
        "The warm-up is nearly 1/10 for long: k is multiplied by 10 below the line; it must be added to 10.": _update(
            lambda decay, step: min(decay, (1 + step) / (1 + 10 * step))
        ),
        "The warm-up starts at 0: the 1 above the line is missing.": _update(
            lambda decay, step: min(decay, step / (10 + step))
        ),
    },
    "lesson 19, 'The average that is sampled from'.",
    result_names=("average", "model in training", "decay", "flag whether the average holds a graph"),
    tolerance=1e-8,
    probe=_watch_average,
    reference=_update(),
)


def check_update_ema(fn: Callable, **grade_options) -> Report:
    """Check fn(average, model, decay, step) -> decay used; it changes the average in place."""
    return grade(_UPDATE_EMA, fn, **grade_options)


def _overfit_by_hand(
    step: Callable, x0: Tensor, y: Tensor, steps: int, generator: torch.Generator
) -> list[float]:
    """Take all random numbers first."""
    numbers = [
        (
            torch.empty(len(x0), dtype=torch.long).random_(0, 1000, generator=generator),
            torch.empty(x0.shape).normal_(generator=generator),
        )
        for _ in range(steps)
    ]
    return [float(step(x0, y, t, noise)) for t, noise in numbers]


def _watch_overfit(fn: Callable, factor: float, x0: Tensor, y: Tensor, steps: int, seed: int):
    """Return the losses, and the timesteps and noise that the steps received."""
    seen = [], []

    def step(x0, y, t, noise):
        for kept, value in zip(seen, (t, noise)):
            kept.append(torch.as_tensor(value).detach().clone())
        return factor * float(
            x0.mean() + noise.double().mean() + y.sum() + seen[0][-1].double().mean() / 1000
        )

    losses = fn(step, x0, y, steps, torch.Generator().manual_seed(seed))
    losses = [losses] if isinstance(losses, float) else losses
    if not isinstance(losses, Tensor | list | tuple):
        return losses
    t, noise = (torch.stack(kept) if kept else torch.empty(0) for kept in seen)
    return torch.tensor([float(loss) for loss in losses]).double(), t, noise


def _overfit_cases(rng: RandomInputs) -> list[Case]:
    cases = []
    for n, steps in [(4, 5), (3, 1), (2, rng.choice(3, 4))]:
        x0, y = rng.uniform(-1, 1, n, 1, 4, 3).float(), rng.integers(0, 10, n)
        label = f"{n} images, {steps} step{'s' * (steps > 1)}"
        cases.append(Case(label, (1.5, x0, y, steps, int(rng.integers(0, 1000)))))
    return cases


def _randint(x0: Tensor, generator: torch.Generator | None, low: int = 0, high: int = 1000) -> Tensor:
    return torch.randint(low, high, (len(x0),), generator=generator)


def _randn(x0: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(x0.shape, generator=generator)


def _overfit(draw_t: Callable = _randint, draw_noise: Callable = _randn, swapped: bool = False) -> Callable:
    """The loop with other random numbers."""

    def overfit(step, x0, y, steps, generator):
        losses = []
        for _ in range(steps):
            if swapped:
                noise, t = draw_noise(x0, generator), draw_t(x0, generator)
            else:
                t, noise = draw_t(x0, generator), draw_noise(x0, generator)
            losses.append(step(x0, y, t, noise))
        return losses

    return overfit


def _frozen(keep_t: bool, keep_noise: bool) -> Callable:
    """The loop with timesteps or noise from before the loop."""

    def overfit(step, x0, y, steps, generator):
        t, noise = _randint(x0, generator), _randn(x0, generator)
        losses = []
        for k in range(steps):
            if k and not keep_t:
                t = _randint(x0, generator)
            if k and not keep_noise:
                noise = _randn(x0, generator)
            losses.append(step(x0, y, t, noise))
        return losses

    return overfit


def _overfit_noise_first(step, x0, y, steps, generator):
    noise = _randn(x0, generator)
    return [step(x0, y, _randint(x0, generator), noise) for _ in range(steps)]


def _overfit_seeded(step, x0, y, steps, generator):
    return [_overfit()(step, x0, y, 1, generator.manual_seed(0))[0] for _ in range(steps)]


_FRESH_HINT = "what must stay the same in this test, and what must not."

_OVERFIT = Exercise(
    "overfit",
    _overfit_by_hand,
    _overfit_cases,
    {
        "All steps have the same timesteps and the same noise: the model may learn this noise by heart, and the loss "
        "falls although it learned no image.": (_frozen(True, True), _FRESH_HINT),
        "The generator is seeded again in every step, so all steps have the same timesteps and the same noise.": (
            _overfit_seeded,
            _FRESH_HINT,
        ),
        "All steps have the same noise: only the images may stay the same.": (
            _frozen(False, True),
            _FRESH_HINT,
        ),
        "The noise is sampled once, before the loop: only the images may stay the same.": (
            _overfit_noise_first,
            _FRESH_HINT,
        ),
        "All steps have the same timesteps: only the images may stay the same.": (
            _frozen(True, False),
            _FRESH_HINT,
        ),
        "The generator is not used, so the run cannot be repeated.": (
            _overfit(lambda x0, _: _randint(x0, None), lambda x0, _: _randn(x0, None)),
            "the argument generator of torch.randint and torch.randn.",
        ),
        "The generator is used for the timesteps, but not for the noise.": (
            _overfit(draw_noise=lambda x0, _: _randn(x0, None)),
            "torch.randn takes a generator; torch.randn_like does not.",
        ),
        "All images of a batch share one timestep; each needs its own.": (
            _overfit(
                lambda x0, generator: (
                    torch.randint(0, 1000, (1,), generator=generator).expand(len(x0)).clone()
                )
            ),
            "lesson 19, 'Noise that repeats': the trap.",
        ),
        "There is one timestep for the batch, of shape (1,); each image needs its own.": (
            _overfit(lambda x0, generator: torch.randint(0, 1000, (1,), generator=generator)),
            "lesson 19, 'Noise that repeats': the trap.",
        ),
        "The last timestep, 999, never occurs: the end of randint is not included.": _overfit(
            lambda x0, generator: _randint(x0, generator, high=999)
        ),
        "Timestep 0 never occurs: here timesteps are counted from 0.": _overfit(
            lambda x0, generator: _randint(x0, generator, low=1)
        ),
        "Timesteps are counted from 1 to 1000; here they are counted from 0.": _overfit(
            lambda x0, generator: _randint(x0, generator, 1, 1001)
        ),
        "The noise is uniform; it must be normal.": _overfit(
            draw_noise=lambda x0, generator: torch.rand(x0.shape, generator=generator)
        ),
        "The noise is sampled before the timesteps; the order asked for is timesteps, then noise.": _overfit(
            swapped=True
        ),
        "One step is missing, or its loss is.": lambda step, x0, y, steps, generator: _overfit()(
            step, x0, y, steps - 1, generator
        ),
        "It returns the last loss alone; return those of all steps.": lambda *args: _overfit()(*args)[-1:],
        "Timesteps and labels are passed in the wrong order.": lambda step, *rest: _overfit()(
            lambda x0, y, t, noise: step(x0, t, y, noise), *rest
        ),
        "Timesteps and noise are passed in the wrong order.": lambda step, *rest: _overfit()(
            lambda x0, y, t, noise: step(x0, y, noise, t), *rest
        ),
        "Images and noise are passed in the wrong order.": lambda step, *rest: _overfit()(
            lambda x0, y, t, noise: step(noise, y, t, x0), *rest
        ),
        "The noise is added to the images; the step does that itself.": lambda step, *rest: _overfit()(
            lambda x0, y, t, noise: step(x0 + noise, y, t, noise), *rest
        ),
        "The timesteps are divided by 1000; they stay whole numbers.": lambda step, *rest: _overfit()(
            lambda x0, y, t, noise: step(x0, y, t / 1000, noise), *rest
        ),
    },
    "lesson 19, 'Overfit one batch'.",
    result_names=("list of losses", "record of the timesteps", "record of the noise"),
    probe=_watch_overfit,
    reference=_overfit(),
)


def check_overfit(fn: Callable, **grade_options) -> Report:
    """Check fn(step, x0, y, steps, generator) -> losses of all steps, where step(x0, y, t, noise) -> loss."""
    return grade(_OVERFIT, fn, **grade_options)


def _shares_by_impulses(decays: Tensor) -> Tensor:
    """Average numbers of which one is 1 and all others are 0, one after another."""
    count, shares = len(decays) + 1, []
    for one in range(count):
        average, *weights = [float(k == one) for k in range(count)]
        for decay, weight in zip(decays.tolist(), weights):
            average = decay * average + (1 - decay) * weight
        shares.append(average)
    return decays.new_tensor(shares)


def _one_tensor(value):
    """A list or array of numbers as a tensor; anything else as it is."""
    numbers = isinstance(value, tuple | list) and all(
        isinstance(v, int | float | np.generic) or (isinstance(v, Tensor) and v.numel() == 1) for v in value
    )
    if numbers and value:
        return torch.tensor([float(v) for v in value], dtype=torch.float64)
    return torch.as_tensor(value) if type(value) is np.ndarray else value


_ZERO_DECAY = "It is right until a decay is 0: nothing can be divided by a product of decays then, and it has no logarithm."


def _share_cases(rng: RandomInputs) -> list[Case]:
    """Different decays; a warm-up; a single update; and a decay of 0, after which nothing older is left."""
    cases = [Case("5 updates", (rng.uniform(0.2, 0.95, 5),))]
    first = int(rng.integers(0, 9))
    warm = [min(0.7, (1 + k) / (10 + k)) for k in range(first, first + 8)]
    cases.append(Case(f"8 updates of a warm-up, from step {first}", (torch.tensor(warm).double(),)))
    cases.append(Case("1 update", (rng.uniform(0.6, 0.9, 1),)))
    with_zero = rng.uniform(0.2, 0.95, 4)
    with_zero[1] = 0
    return [*cases, Case("4 updates, the second with decay 0", (with_zero,), _ZERO_DECAY)]


def _products(factors: Tensor) -> Tensor:
    """Products of all factors before each one; 1 for the first."""
    return torch.cat([factors.new_ones(1), factors[:-1].cumprod(0)])


def _later_products(decays: Tensor) -> Tensor:
    return _products(decays.flip(0)).flip(0)


def _with_own_decay(decays: Tensor) -> Tensor:
    return decays * _later_products(decays)


def _one_before(shares: Tensor) -> Tensor:
    """Shares if the weights before each step enter, those of the first step being the initial ones."""
    return torch.cat([shares[:2].sum().view(1), shares[2:], shares.new_zeros(1)])


def _warm_again(decays: Tensor) -> Tensor:
    step = torch.arange(len(decays))
    return decays.minimum((1 + step) / (10 + step).double())


def _shares(
    initial: Callable = lambda d: d.prod(),
    entering: Callable = lambda d: 1 - d,
    kept: Callable = _later_products,
    finish: Callable = lambda shares: shares,
) -> Callable:
    """Shares with another factor in one place."""
    return lambda d: finish(torch.cat([initial(d).view(1), entering(d) * kept(d)]))


_ENTER_HINT = "by what factor the weights enter, and what later updates do to them."

_EMA_SHARES = Exercise(
    "ema_shares",
    _shares_by_impulses,
    _share_cases,
    {
        "The shares are in the wrong order: those of the initial weights come first, the newest last.": _shares(
            finish=lambda shares: shares.flip(0)
        ),
        "The share of the initial weights is missing; it is the first number.": _shares(
            finish=lambda shares: shares[1:]
        ),
        "The initial weights get no share, as if the average started at 0; it starts as a copy of them.": _shares(
            initial=lambda d: 0 * d[0]
        ),
        "The shares of the initial weights are removed, and the others scaled to sum to 1: this is Adam's bias "
        "correction, and this average has none.": _shares(
            initial=lambda d: 0 * d[0], finish=lambda shares: shares / shares.sum()
        ),
        "The average starts with the weights after the first step; it starts with the initial weights, so the first "
        "decay counts, too.": lambda d: torch.cat([d[1:].prod().view(1), _shares()(d)[2:]]),
        "The weights of each step are scaled by the decay of their own update, too; only later updates shrink them.": (
            _shares(kept=_with_own_decay),
            _ENTER_HINT,
        ),
        "The decays of earlier updates are multiplied; later updates shrink what is already in the average.": (
            _shares(kept=_products),
            _ENTER_HINT,
        ),
        "The next update is left out of the product; each later one shrinks the share.": (
            _shares(kept=lambda d: _later_products(torch.cat([d[1:], d.new_ones(1)]))),
            _ENTER_HINT,
        ),
        "The new weights enter with share 1; the decay leaves them less.": (
            _shares(entering=torch.ones_like),
            _ENTER_HINT,
        ),
        "The new weights enter with the decay as their share; the decay is the share of the old average.": (
            _shares(entering=lambda d: d),
            _ENTER_HINT,
        ),
        "The shares stay what they were when the weights entered; each later update shrinks them.": (
            _shares(kept=torch.ones_like),
            _ENTER_HINT,
        ),
        "Old and new are exchanged everywhere: the decay is the share of the old average that is kept.": lambda d: (
            _shares()(1 - d)
        ),
        "The first decay is used for all updates; each has its own.": lambda d: _shares()(
            d[:1].expand(len(d))
        ),
        "The last decay is used for all updates; each has its own.": lambda d: _shares()(
            d[-1:].expand(len(d))
        ),
        "The initial weights lose a share in the first update only; each update shrinks what is left of them.": _shares(
            initial=lambda d: d[0]
        ),
        "These are the shares of the initial weights after each update; asked are the shares of all weights after the "
        "last.": lambda d: torch.cat([d.new_ones(1), d.cumprod(0)]),
        "The share of the initial weights comes last; it is the first number.": _shares(
            finish=lambda shares: shares.roll(-1)
        ),
        "The shares of the steps are in reverse order: after that of the initial weights comes the first step.": _shares(
            finish=lambda shares: torch.cat([shares[:1], shares[1:].flip(0)])
        ),
        "The products of the decays are in reverse order, as if they were not flipped back.": _shares(
            kept=lambda d: _products(d.flip(0))
        ),
        "Each product of decays starts at the first update; it must start at the next update and end at the last.": (
            _shares(kept=lambda d: torch.cat([d.cumprod(0)[1:], d.new_ones(1)])),
            _ENTER_HINT,
        ),
        "The share shrinks by the decay of the next update alone; all later updates shrink it.": (
            _shares(kept=lambda d: torch.cat([d[1:], d.new_ones(1)])),
            _ENTER_HINT,
        ),
        "The weights of each step are scaled by the decay of their own update, too, and the initial weights get what "
        "is left of 1.": (
            _shares(kept=_with_own_decay, finish=lambda s: torch.cat([1 - s[1:].sum().view(1), s[1:]])),
            _ENTER_HINT,
        ),
        "The first update copies the weights instead of averaging them, so that nothing is left of the initial "
        "ones.": lambda d: torch.cat([d.new_zeros(1), d[1:].prod().view(1), _shares()(d)[2:]]),
        "The weights before each step enter the average; it must be those after the step.": _shares(
            finish=_one_before
        ),
        "The last update is missing.": lambda d: torch.cat([_shares()(d[:-1]), d.new_zeros(1)]),
        "The warm-up is applied to the decays; they are given as each update uses them.": lambda d: _shares()(
            _warm_again(d)
        ),
        "The mean of the decays is used for all updates; each has its own.": lambda d: _shares()(
            d.mean().expand(len(d))
        ),
        "All weights get the same share; an exponential average forgets the older ones.": lambda d: (
            torch.full((len(d) + 1,), 1 / (len(d) + 1)).double()
        ),
        "The shares do not sum to 1 by themselves, so they were divided by their sum: the new weights enter with the "
        "wrong share.": _shares(entering=torch.ones_like, finish=lambda shares: shares / shares.sum()),
    },
    "lesson 19, 'The average that is sampled from'.",
    tolerance=1e-6,
    probe=lambda fn, decays: _one_tensor(fn(decays)),
    reference=_shares(),
)


def check_ema_shares(fn: Callable, **grade_options) -> Report:
    """Check fn(decays (K,)) -> (K + 1,) shares of the initial weights and of those after each step."""
    return grade(_EMA_SHARES, fn, **grade_options)
