"""Answers to the exercises of lessons 19 and 20."""

import math

import numpy as np
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from . import right, wrong

# ---- training_step


@right("training_step")
def training_step_zero_first(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    optimizer.zero_grad()
    loss = diffusion.training_losses(model, x0, t, y, noise=noise)["loss"].mean()
    loss.backward()
    clip_grad_norm_(model.parameters(), max_norm=1.0)
    optimizer.step()
    scheduler.step()
    return loss.item()


@right("training_step")
def training_step_zero_last(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    losses = diffusion.training_losses(model, x0, t, y, noise)
    losses["loss"].mean().backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1)
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    scheduler.step()
    return losses["loss"].mean().item()


@right("training_step")
def training_step_accumulated(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    model.zero_grad()
    total = 0.0
    for i in range(len(x0)):
        rows = slice(i, i + 1)
        loss = diffusion.training_losses(model, x0[rows], t[rows], y[rows], noise[rows])["loss"].sum() / len(
            x0
        )
        loss.backward()
        total += float(loss)
    gradients = [p.grad for p in model.parameters()]
    norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients]))
    if norm > 1:
        for g in gradients:
            g.div_(norm)
    optimizer.step()
    scheduler.step()
    return total


@wrong("training_step", "never cleared")
def training_step_no_zero(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    loss = diffusion.training_losses(model, x0, t, y, noise)["loss"].mean()
    loss.backward()
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    return loss.item()


@wrong("training_step", "never cleared")
def training_step_clears_the_images(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    loss = diffusion.training_losses(model, x0, t, y, noise)["loss"].mean()
    x0.grad = None
    loss.backward()
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    return loss.item()


@wrong("training_step", "do not change")
def training_step_zero_between(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    loss = diffusion.training_losses(model, x0, t, y, noise)["loss"].mean()
    loss.backward()
    optimizer.zero_grad()
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    return loss.item()


@wrong("training_step", "do not change")
def training_step_step_first(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    optimizer.zero_grad()
    loss = diffusion.training_losses(model, x0, t, y, noise)["loss"].mean()
    optimizer.step()
    loss.backward()
    clip_grad_norm_(model.parameters(), 1.0)
    scheduler.step()
    return loss.item()


@wrong("training_step", "do not change")
def training_step_no_optimizer(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    optimizer.zero_grad()
    loss = diffusion.training_losses(model, x0, t, y, noise)["loss"].mean()
    loss.backward()
    clip_grad_norm_(model.parameters(), 1.0)
    scheduler.step()
    return loss.item()


@wrong("training_step", "gradient of the step before")
def training_step_one_late(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    loss = diffusion.training_losses(model, x0, t, y, noise)["loss"].mean()
    optimizer.step()
    optimizer.zero_grad()
    loss.backward()
    clip_grad_norm_(model.parameters(), 1.0)
    scheduler.step()
    return loss.item()


@wrong("training_step", "not clipped when the optimizer uses it")
def training_step_clip_after(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    optimizer.zero_grad()
    loss = diffusion.training_losses(model, x0, t, y, noise)["loss"].mean()
    loss.backward()
    optimizer.step()
    clip_grad_norm_(model.parameters(), 1.0)
    scheduler.step()
    return loss.item()


@wrong("training_step", "not clipped when the optimizer uses it")
def training_step_no_clip(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    loss = diffusion.training_losses(model, x0, t, y, noise)["loss"].mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    scheduler.step()
    return loss.item()


@wrong("training_step", "not clipped when the optimizer uses it")
def training_step_clip_before(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    optimizer.zero_grad()
    clip_grad_norm_(model.parameters(), 1.0)
    loss = diffusion.training_losses(model, x0, t, y, noise)["loss"].mean()
    loss.backward()
    optimizer.step()
    scheduler.step()
    return loss.item()


@wrong("training_step", "clipped by its own norm")
def training_step_clip_each(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    optimizer.zero_grad()
    loss = diffusion.training_losses(model, x0, t, y, noise)["loss"].mean()
    loss.backward()
    for p in model.parameters():
        clip_grad_norm_(p, 1.0)
    optimizer.step()
    scheduler.step()
    return loss.item()


@wrong("training_step", "Single values are clipped")
def training_step_clip_values(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    optimizer.zero_grad()
    loss = diffusion.training_losses(model, x0, t, y, noise)["loss"].mean()
    loss.backward()
    clip_grad_value_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    return loss.item()


@wrong("training_step", "always gets norm 1")
def training_step_normalized(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    optimizer.zero_grad()
    loss = diffusion.training_losses(model, x0, t, y, noise)["loss"].mean()
    loss.backward()
    norm = sum(p.grad.square().sum() for p in model.parameters()).sqrt()
    for p in model.parameters():
        p.grad = p.grad / norm
    optimizer.step()
    scheduler.step()
    return loss.item()


@wrong("training_step", "are added; take their mean, or the step grows")
def training_step_sum(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    optimizer.zero_grad()
    loss = diffusion.training_losses(model, x0, t, y, noise)["loss"].sum()
    loss.backward()
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    return loss.item()


@wrong("training_step", "in the backward pass")
def training_step_sum_backward(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    optimizer.zero_grad()
    losses = diffusion.training_losses(model, x0, t, y, noise)["loss"]
    losses.backward(torch.ones_like(losses))
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    return losses.mean().item()


@wrong("training_step", "called before the optimizer")
def training_step_scheduler_first(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    scheduler.step()
    optimizer.zero_grad()
    loss = diffusion.training_losses(model, x0, t, y, noise)["loss"].mean()
    loss.backward()
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


@wrong("training_step", "scheduler is not called")
def training_step_no_scheduler(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    loss = diffusion.training_losses(model, x0, t, y, noise)["loss"].mean()
    optimizer.zero_grad()
    loss.backward()
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


@wrong("training_step", "Only the squared error")
def training_step_mse(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    optimizer.zero_grad()
    loss = diffusion.training_losses(model, x0, t, y, noise)["mse"].mean()
    loss.backward()
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    return loss.item()


@wrong("training_step", "Only the bound")
def training_step_vb(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    optimizer.zero_grad()
    loss = diffusion.training_losses(model, x0, t, y, noise)["vb"].mean()
    loss.backward()
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    return loss.item()


@wrong("training_step", "once more")
def training_step_mean_of_means(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    optimizer.zero_grad()
    loss = diffusion.training_losses(model, x0, t, y, noise)["loss"].mean() / x0.shape[0]
    loss.backward()
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    return loss.item()


@wrong("training_step", "The optimizer is called twice")
def training_step_twice(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    optimizer.zero_grad()
    loss = diffusion.training_losses(model, x0, t, y, noise)["loss"].mean()
    loss.backward()
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.step()
    scheduler.step()
    return loss.item()


@wrong("training_step", "given noise is not used")
def training_step_own_noise(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    optimizer.zero_grad()
    loss = diffusion.training_losses(model, x0, t, y)["loss"].mean()
    loss.backward()
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    return loss.item()


@wrong("training_step", "given timesteps are not used")
def training_step_own_t(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    optimizer.zero_grad()
    t = torch.randint(0, diffusion.num_timesteps, (x0.shape[0],))
    loss = diffusion.training_losses(model, x0, t, y, noise)["loss"].mean()
    loss.backward()
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    return loss.item()


@wrong("training_step", "holds the graph")
def training_step_graph(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    optimizer.zero_grad()
    loss = diffusion.training_losses(model, x0, t, y, noise)["loss"].mean()
    loss.backward()
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    return loss


@wrong("training_step", "loss of each image")
def training_step_losses(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    optimizer.zero_grad()
    losses = diffusion.training_losses(model, x0, t, y, noise)["loss"]
    losses.mean().backward()
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    return losses.detach()


@wrong("training_step", "returns a dict")
def training_step_dict(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    optimizer.zero_grad()
    losses = diffusion.training_losses(model, x0, t, y, noise)
    losses["loss"].mean().backward()
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    return losses


@wrong("training_step", "grad can be implicitly created only for scalar outputs")
def training_step_no_mean(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    optimizer.zero_grad()
    loss = diffusion.training_losses(model, x0, t, y, noise)["loss"]
    loss.backward()
    optimizer.step()
    return loss.mean().item()


# ---- update_ema


def warm(decay, step):
    return min(decay, (1 + step) / (10 + step))


@right("update_ema")
def update_ema_in_place(average, model, decay, step):
    d = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for old, new in zip(average.parameters(), model.parameters()):
            old.mul_(d).add_(new, alpha=1 - d)
    return d


@right("update_ema")
def update_ema_data(average, model, decay, step):
    d = torch.tensor([decay, (step + 1) / (step + 10)], dtype=torch.float64).min()
    for old, new in zip(average.parameters(), model.parameters()):
        old.data = d * old.data + (1 - d) * new.data
    return d


@right("update_ema")
def update_ema_state_dict(average, model, decay, step):
    d = 1 - max(1 - decay, 9 / (10 + step))
    mine, theirs = average.state_dict(), model.state_dict()
    average.load_state_dict({name: theirs[name].lerp(mine[name], d) for name in mine})
    return d


@wrong("update_ema", "wrong side")
def update_ema_swapped(average, model, decay, step):
    d = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for old, new in zip(average.parameters(), model.parameters()):
            old.copy_((1 - d) * old + d * new)
    return d


@wrong("update_ema", "wrong side")
def update_ema_lerp(average, model, decay, step):
    d = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for old, new in zip(average.parameters(), model.parameters()):
            old.lerp_(new, d)
    return d


@wrong("update_ema", "no warm-up")
def update_ema_constant(average, model, decay, step):
    for old, new in zip(average.parameters(), model.parameters()):
        old.data.mul_(decay).add_(new.data, alpha=1 - decay)
    return decay


@wrong("update_ema", "no warm-up")
def update_ema_upside_down(average, model, decay, step):
    return update_ema_in_place(average, model, min(decay, (10 + step) / (1 + step)), 10**12)


@wrong("update_ema", "one update ahead")
def update_ema_from_one(average, model, decay, step):
    step += 1
    return update_ema_in_place(average, model, decay, step)


@wrong("update_ema", "one update behind")
def update_ema_behind(average, model, decay, step):
    d = min(decay, step / (9 + step))
    with torch.no_grad():
        for old, new in zip(average.parameters(), model.parameters()):
            old.lerp_(new, 1 - d)
    return d


@wrong("update_ema", "is a parenthesis missing")
def update_ema_parenthesis(average, model, decay, step):
    d = min(decay, (1 + step) / 10 + step)
    with torch.no_grad():
        for old, new in zip(average.parameters(), model.parameters()):
            old.lerp_(new, 1 - d)
    return d


@wrong("update_ema", "larger of both")
def update_ema_max(average, model, decay, step):
    d = max(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for old, new in zip(average.parameters(), model.parameters()):
            old.lerp_(new, 1 - d)
    return d


@wrong("update_ema", "goes on toward 1")
def update_ema_no_limit(average, model, decay, step):
    d = (1 + step) / (10 + step)
    with torch.no_grad():
        for old, new in zip(average.parameters(), model.parameters()):
            old.lerp_(new, 1 - d)
    return d


@wrong("update_ema", "The warm-up starts at 0")
def update_ema_k_over_10_k(average, model, decay, step):
    d = min(decay, step / (10 + step))
    with torch.no_grad():
        for old, new in zip(average.parameters(), model.parameters()):
            old.lerp_(new, 1 - d)
    return d


@wrong("update_ema", "are multiplied")
def update_ema_product(average, model, decay, step):
    d = decay * (1 + step) / (10 + step)
    with torch.no_grad():
        for old, new in zip(average.parameters(), model.parameters()):
            old.lerp_(new, 1 - d)
    return d


@wrong("update_ema", "model in training is changed")
def update_ema_live(average, model, decay, step):
    d = warm(decay, step)
    with torch.no_grad():
        for old, new in zip(average.parameters(), model.parameters()):
            new.mul_(1 - d).add_(old, alpha=d)
    return d


@wrong("update_ema", "replaces the weights of the model in training")
def update_ema_arguments(average, model, decay, step):
    return update_ema_in_place(model, average, decay, step)


@wrong("update_ema", "nothing is averaged")
def update_ema_copy(average, model, decay, step):
    average.load_state_dict(model.state_dict())
    return warm(decay, step)


@wrong("update_ema", "does not change")
def update_ema_rebound(average, model, decay, step):
    d = warm(decay, step)
    for old, new in zip(average.parameters(), model.parameters()):
        old = d * old + (1 - d) * new
    return d


@wrong("update_ema", "does not change")
def update_ema_not_in_place(average, model, decay, step):
    d = warm(decay, step)
    with torch.no_grad():
        for old, new in zip(average.parameters(), model.parameters()):
            old.lerp(new, 1 - d)
    return d


@wrong("update_ema", "holds the graph")
def update_ema_graph(average, model, decay, step):
    d = warm(decay, step)
    for old, new in zip(average.parameters(), model.parameters()):
        old.lerp_(new, 1 - d)
    return d


@wrong("update_ema", "share of the new weights")
def update_ema_one_minus(average, model, decay, step):
    share = 1 - warm(decay, step)
    with torch.no_grad():
        for old, new in zip(average.parameters(), model.parameters()):
            old.lerp_(new, share)
    return share


@wrong("update_ema", "asked for")
def update_ema_returns_decay(average, model, decay, step):
    update_ema_data(average, model, decay, step)
    return decay


@wrong("update_ema", "nothing is returned")
def update_ema_no_return(average, model, decay, step):
    update_ema_data(average, model, decay, step)


@wrong("update_ema", "Only the weight is averaged")
def update_ema_weight_only(average, model, decay, step):
    d = warm(decay, step)
    average.weight.data.lerp_(model.weight.data, 1 - d)
    return d


# ---- overfit


@right("overfit")
def overfit_loop(step, x0, y, steps, generator):
    losses = []
    for _ in range(steps):
        t = torch.randint(0, 1000, (len(x0),), generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        losses.append(step(x0, y, t, noise))
    return losses


@right("overfit")
def overfit_tensor(step, x0, y, steps, generator):
    losses = torch.empty(steps)
    losses = losses.double()
    for k in range(steps):
        t = torch.randint(1000, (x0.shape[0],), generator=generator)
        losses[k] = step(x0, y, t, torch.empty_like(x0).normal_(generator=generator))
    return losses


@wrong("overfit", "the same timesteps and the same noise")
def overfit_all_frozen(step, x0, y, steps, generator):
    t = torch.randint(0, 1000, (len(x0),), generator=generator)
    noise = torch.randn(x0.shape, generator=generator)
    return [step(x0, y, t, noise) for _ in range(steps)]


@wrong("overfit", "the same timesteps and the same noise")
def overfit_reseeded(step, x0, y, steps, generator):
    losses, seed = [], generator.initial_seed()
    for _ in range(steps):
        generator = torch.Generator().manual_seed(seed)
        t = torch.randint(0, 1000, (len(x0),), generator=generator)
        losses.append(step(x0, y, t, torch.randn(x0.shape, generator=generator)))
    return losses


@wrong("overfit", "All steps have the same noise")
def overfit_frozen_noise(step, x0, y, steps, generator):
    t, noise = (
        torch.randint(0, 1000, (len(x0),), generator=generator),
        torch.randn(x0.shape, generator=generator),
    )
    losses = [step(x0, y, t, noise)]
    for _ in range(1, steps):
        t = torch.randint(0, 1000, (len(x0),), generator=generator)
        losses.append(step(x0, y, t, noise))
    return losses


@wrong("overfit", "The noise is sampled once")
def overfit_noise_before_the_loop(step, x0, y, steps, generator):
    noise = torch.randn(x0.shape, generator=generator)
    losses = []
    for _ in range(steps):
        t = torch.randint(0, 1000, (len(x0),), generator=generator)
        losses.append(step(x0, y, t, noise))
    return losses


@wrong("overfit", "All steps have the same timesteps")
def overfit_frozen_t(step, x0, y, steps, generator):
    t = torch.randint(0, 1000, (len(x0),), generator=generator)
    return [step(x0, y, t, torch.randn(x0.shape, generator=generator)) for _ in range(steps)]


@wrong("overfit", "The generator is not used")
def overfit_global(step, x0, y, steps, generator):
    losses = []
    for _ in range(steps):
        t = torch.randint(0, 1000, (len(x0),))
        losses.append(step(x0, y, t, torch.randn_like(x0)))
    return losses


@wrong("overfit", "but not for the noise")
def overfit_randn_like(step, x0, y, steps, generator):
    losses = []
    for _ in range(steps):
        t = torch.randint(0, 1000, (len(x0),), generator=generator)
        losses.append(step(x0, y, t, torch.randn_like(x0)))
    return losses


@wrong("overfit", "share one timestep")
def overfit_one_t(step, x0, y, steps, generator):
    losses = []
    for _ in range(steps):
        t = torch.randint(0, 1000, (1,), generator=generator).repeat(len(x0))
        losses.append(step(x0, y, t, torch.randn(x0.shape, generator=generator)))
    return losses


@wrong("overfit", "of shape (1,)")
def overfit_t_of_one(step, x0, y, steps, generator):
    losses = []
    for _ in range(steps):
        t = torch.randint(0, 1000, (1,), generator=generator)
        losses.append(step(x0, y, t, torch.randn(x0.shape, generator=generator)))
    return losses


def overfit_between(step, x0, y, steps, generator, low, high):
    losses = []
    for _ in range(steps):
        t = torch.randint(low, high, (len(x0),), generator=generator)
        losses.append(step(x0, y, t, torch.randn(x0.shape, generator=generator)))
    return losses


@wrong("overfit", "The last timestep, 999")
def overfit_to_998(step, x0, y, steps, generator):
    return overfit_between(step, x0, y, steps, generator, 0, 999)


@wrong("overfit", "Timestep 0 never occurs")
def overfit_from_1(step, x0, y, steps, generator):
    return overfit_between(step, x0, y, steps, generator, 1, 1000)


@wrong("overfit", "counted from 1 to 1000")
def overfit_to_1000(step, x0, y, steps, generator):
    return overfit_between(step, x0, y, steps, generator, 1, 1000 + 1)


@wrong("overfit", "The noise is uniform")
def overfit_uniform(step, x0, y, steps, generator):
    losses = []
    for _ in range(steps):
        t = torch.randint(0, 1000, (len(x0),), generator=generator)
        losses.append(step(x0, y, t, torch.rand(x0.shape, generator=generator)))
    return losses


@wrong("overfit", "sampled before the timesteps")
def overfit_noise_first(step, x0, y, steps, generator):
    losses = []
    for _ in range(steps):
        noise = torch.randn(x0.shape, generator=generator)
        t = torch.randint(0, 1000, (len(x0),), generator=generator)
        losses.append(step(x0, y, t, noise))
    return losses


@wrong("overfit", "One step is missing")
def overfit_short(step, x0, y, steps, generator):
    return [overfit_loop(step, x0, y, 1, generator)[0] for _ in range(1, steps)]


@wrong("overfit", "the last loss alone")
def overfit_last(step, x0, y, steps, generator):
    return overfit_loop(step, x0, y, steps, generator)[-1:]


@wrong("overfit", "Timesteps and noise are passed in the wrong order")
def overfit_arguments(step, x0, y, steps, generator):
    losses = []
    for _ in range(steps):
        t = torch.randint(0, 1000, (len(x0),), generator=generator)
        losses.append(step(x0, y, torch.randn(x0.shape, generator=generator), t))
    return losses


@wrong("overfit", "wrong numbers")
def overfit_noised(step, x0, y, steps, generator):
    losses = []
    for _ in range(steps):
        t = torch.randint(0, 1000, (len(x0),), generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        losses.append(step(0.5 * x0 + 0.5 * noise, y, t, noise))
    return losses


@wrong("overfit", "last loss alone")
def overfit_last_number(step, x0, y, steps, generator):
    return overfit_loop(step, x0, y, steps, generator)[-1]


# ---- to_latents


@right("to_latents")
def to_latents_exp(mean, log_variance, noise, scale, shift):
    std = torch.exp(0.5 * log_variance)
    return (mean + std * noise - shift) * scale


@right("to_latents")
def to_latents_moments(mean, log_variance, noise, scale, shift):
    mean, std = (mean - shift) * scale, log_variance.exp().sqrt() * scale
    return mean + std * noise


@right("to_latents")
def to_latents_power(mean, log_variance, noise, scale, shift):
    return scale * torch.addcmul(mean, math.e ** (log_variance / 2), noise) - scale * shift


def sample(mean, log_variance, noise):
    return mean + torch.exp(log_variance / 2) * noise


@wrong("to_latents", "subtracted after scaling")
def to_latents_scale_first(mean, log_variance, noise, scale, shift):
    return sample(mean, log_variance, noise) * scale - shift


@wrong("to_latents", "The shift is added")
def to_latents_shift_added(mean, log_variance, noise, scale, shift):
    return (sample(mean, log_variance, noise) + shift) * scale


@wrong("to_latents", "divided by the scale")
def to_latents_divided(mean, log_variance, noise, scale, shift):
    return (sample(mean, log_variance, noise) - shift) / scale


@wrong("to_latents", "The shift is given, but not used")
def to_latents_no_shift(mean, log_variance, noise, scale, shift):
    return scale * sample(mean, log_variance, noise)


@wrong("to_latents", "The scale is forgotten")
def to_latents_no_scale(mean, log_variance, noise, scale, shift):
    return sample(mean, log_variance, noise) - shift


@wrong("to_latents", "applied twice")
def to_latents_twice(mean, log_variance, noise, scale, shift):
    mean, std = (mean - shift) * scale, torch.exp(log_variance / 2) * scale
    return (mean + std * noise) * scale


@wrong("to_latents", "The mean is scaled, but not the noise")
def to_latents_noise_unscaled(mean, log_variance, noise, scale, shift):
    return sample((mean - shift) * scale, log_variance, noise)


@wrong("to_latents", "subtracted from the noise, too")
def to_latents_noise_shifted(mean, log_variance, noise, scale, shift):
    mean, noise = mean - shift, noise - shift
    return sample(mean, log_variance, noise) * scale


@wrong("to_latents", "The variance is used")
def to_latents_variance(mean, log_variance, noise, scale, shift):
    return (mean + torch.exp(log_variance) * noise - shift) * scale


@wrong("to_latents", "The logarithm of the variance is used")
def to_latents_log(mean, log_variance, noise, scale, shift):
    return (mean + log_variance * noise - shift) * scale


@wrong("to_latents", "The root of the logarithm")
def to_latents_root_of_log(mean, log_variance, noise, scale, shift):
    return (mean + log_variance**0.5 * noise - shift) * scale


@wrong("to_latents", "The mean is returned")
def to_latents_mean(mean, log_variance, noise, scale, shift):
    return (mean - shift) * scale


@wrong("to_latents", "takes its own random numbers")
def to_latents_own_noise(mean, log_variance, noise, scale, shift):
    return sample(mean, log_variance, torch.randn_like(mean)) * scale - shift * scale


@wrong("to_latents", "wrong numbers")
def to_latents_scale_inside(mean, log_variance, noise, scale, shift):
    return (mean + torch.exp(log_variance / 2) * noise) * scale - shift / scale


# ---- generate


@right("generate")
@torch.no_grad()
def generate_decorated(step, decode, z, y, num_steps, scale, shift):
    for t in reversed(range(num_steps)):
        z = step(z, torch.full_like(y, t), y)
    return decode(z / scale + shift).clamp(-1, 1)


@right("generate")
def generate_while(step, decode, z, y, num_steps, scale, shift):
    with torch.inference_mode():
        t = torch.full((z.shape[0],), num_steps - 1, dtype=torch.long)
        while (t >= 0).all():
            z, t = step(z, t, y), t - 1
        return torch.clip(decode((z + shift * scale) / scale), min=-1.0, max=1.0)


@torch.no_grad()
def latents_after(step, z, y, times):
    for t in times:
        z = step(z, torch.full((len(z),), t), y)
    return z


def all_steps(step, z, y, num_steps):
    return latents_after(step, z, y, range(num_steps - 1, -1, -1))


@torch.no_grad()
def images_of(decode, raw):
    return decode(raw).clamp(-1, 1)


@wrong("generate", "run upward")
def generate_upward(step, decode, z, y, num_steps, scale, shift):
    z = latents_after(step, z, y, range(num_steps))
    return images_of(decode, z / scale + shift)


@wrong("generate", "The last step, t = 0, is missing")
def generate_no_last(step, decode, z, y, num_steps, scale, shift):
    z = latents_after(step, z, y, range(num_steps - 1, 0, -1))
    return images_of(decode, z / scale + shift)


@wrong("generate", "counted from 1")
def generate_from_t(step, decode, z, y, num_steps, scale, shift):
    z = latents_after(step, z, y, range(num_steps, 0, -1))
    return images_of(decode, z / scale + shift)


@wrong("generate", "one step too many")
def generate_one_more(step, decode, z, y, num_steps, scale, shift):
    z = latents_after(step, z, y, range(num_steps, -1, -1))
    return images_of(decode, z / scale + shift)


@wrong("generate", "are not kept")
def generate_unassigned(step, decode, z, y, num_steps, scale, shift):
    with torch.no_grad():
        for t in range(num_steps - 1, -1, -1):
            step(z, torch.full((len(z),), t), y)
    return images_of(decode, z / scale + shift)


@wrong("generate", "starts from the noise again")
def generate_restarted(step, decode, z, y, num_steps, scale, shift):
    with torch.no_grad():
        for t in range(num_steps - 1, -1, -1):
            sample = step(z, torch.full((len(z),), t), y)
    return images_of(decode, sample / scale + shift)


@wrong("generate", "receives scaled latents")
def generate_scaled(step, decode, z, y, num_steps, scale, shift):
    return images_of(decode, all_steps(step, z, y, num_steps))


@wrong("generate", "multiplied by the scale on the way back")
def generate_times(step, decode, z, y, num_steps, scale, shift):
    return images_of(decode, all_steps(step, z, y, num_steps) * scale + shift)


@wrong("generate", "The shift is subtracted on the way back")
def generate_minus(step, decode, z, y, num_steps, scale, shift):
    return images_of(decode, all_steps(step, z, y, num_steps) / scale - shift)


@wrong("generate", "before the scale is undone")
def generate_shift_first(step, decode, z, y, num_steps, scale, shift):
    return images_of(decode, (all_steps(step, z, y, num_steps) + shift) / scale)


@wrong("generate", "The shift is given, but not used")
def generate_no_shift(step, decode, z, y, num_steps, scale, shift):
    return images_of(decode, all_steps(step, z, y, num_steps) / scale)


@wrong("generate", "The scale is given, but not used")
def generate_no_scale(step, decode, z, y, num_steps, scale, shift):
    return images_of(decode, all_steps(step, z, y, num_steps) + shift)


@wrong("generate", "encoded a second time")
def generate_encoded(step, decode, z, y, num_steps, scale, shift):
    return images_of(decode, scale * (all_steps(step, z, y, num_steps) - shift))


@wrong("generate", "clipped to [-1, 1] in the loop")
def generate_clipped_loop(step, decode, z, y, num_steps, scale, shift):
    with torch.no_grad():
        for t in range(num_steps - 1, -1, -1):
            z = step(z, torch.full((len(z),), t), y).clamp(-1, 1)
    return images_of(decode, z / scale + shift)


@wrong("generate", "before decoding")
def generate_clipped_latents(step, decode, z, y, num_steps, scale, shift):
    return images_of(decode, (all_steps(step, z, y, num_steps) / scale + shift).clamp(-1, 1))


@wrong("generate", "are not clipped")
def generate_unclipped(step, decode, z, y, num_steps, scale, shift):
    with torch.no_grad():
        return decode(all_steps(step, z, y, num_steps) / scale + shift)


@wrong("generate", "in [0, 1]; return them")
def generate_unit(step, decode, z, y, num_steps, scale, shift):
    return images_of(decode, all_steps(step, z, y, num_steps) / scale + shift) / 2 + 0.5


@wrong("generate", "clipped to [0, 1]")
def generate_clip_unit(step, decode, z, y, num_steps, scale, shift):
    with torch.no_grad():
        return decode(all_steps(step, z, y, num_steps) / scale + shift).clamp(0, 1)


@wrong("generate", "The latents are returned")
def generate_latents(step, decode, z, y, num_steps, scale, shift):
    return all_steps(step, z, y, num_steps) / scale + shift


@wrong("generate", "hold the graph")
def generate_graph(step, decode, z, y, num_steps, scale, shift):
    for t in range(num_steps - 1, -1, -1):
        z = step(z, torch.full((len(z),), t), y)
    return decode(z / scale + shift).clamp(-1, 1)


@wrong("generate", "t is 2, but must be integers of shape (N,)")
def generate_int(step, decode, z, y, num_steps, scale, shift):
    with torch.no_grad():
        for t in range(num_steps - 1, -1, -1):
            z = step(z, t, y)
        return decode(z / scale + shift).clamp(-1, 1)


@wrong("generate", "but must be integers of shape (N,)")
def generate_scalar_t(step, decode, z, y, num_steps, scale, shift):
    with torch.no_grad():
        for t in range(num_steps - 1, -1, -1):
            z = step(z, torch.tensor([t]), y)
        return decode(z / scale + shift).clamp(-1, 1)


@wrong("to_latents", "added to the standard deviation")
def to_latents_noise_plus_std(mean, log_variance, noise, scale, shift):
    return scale * (mean + torch.exp(log_variance / 2) + noise - shift)


@wrong("to_latents", "mean is multiplied by the standard deviation")
def to_latents_sum_times_std(mean, log_variance, noise, scale, shift):
    return scale * ((mean + noise) * torch.exp(log_variance / 2) - shift)


@wrong("to_latents", "noise has variance 1")
def to_latents_unit_noise(mean, log_variance, noise, scale, shift):
    return scale * (mean + noise - shift)


@wrong("to_latents", "half is outside of exp")
def to_latents_half_variance(mean, log_variance, noise, scale, shift):
    return scale * (mean + 0.5 * torch.exp(log_variance) * noise - shift)


@wrong("to_latents", "one over the standard deviation")
def to_latents_precision(mean, log_variance, noise, scale, shift):
    return scale * (mean + torch.exp(-0.5 * log_variance) * noise - shift)


@wrong("to_latents", "doubled instead of halved")
def to_latents_doubled(mean, log_variance, noise, scale, shift):
    return scale * (mean + torch.exp(2 * log_variance) * noise - shift)


@wrong("to_latents", "The noise is subtracted")
def to_latents_minus_noise(mean, log_variance, noise, scale, shift):
    return scale * (mean - torch.exp(log_variance / 2) * noise - shift)


@wrong("to_latents", "This is the way out")
def to_latents_inverse(mean, log_variance, noise, scale, shift):
    return sample(mean, log_variance, noise) / scale + shift


@wrong("to_latents", "but then the shift is added")
def to_latents_scale_then_plus(mean, log_variance, noise, scale, shift):
    return scale * sample(mean, log_variance, noise) + shift


@wrong("to_latents", "noise alone is scaled")
def to_latents_scaled_noise(mean, log_variance, noise, scale, shift):
    return mean - shift + scale * torch.exp(log_variance / 2) * noise


def _clipped_update(model, optimizer, scheduler, losses):
    optimizer.zero_grad()
    losses.mean().backward()
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()


@wrong("training_step", "nothing is returned")
def training_step_no_return(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    losses = diffusion.training_losses(model, x0, t, y, noise=noise)
    _clipped_update(model, optimizer, scheduler, losses["loss"])


@wrong("training_step", "returns the sum of the losses")
def training_step_returns_sum(model, optimizer, scheduler, diffusion, x0, y, t, noise):
    losses = diffusion.training_losses(model, x0, t, y, noise=noise)["loss"]
    _clipped_update(model, optimizer, scheduler, losses)
    return losses.sum().item()


@wrong("update_ema", "Without its parentheses")
@torch.no_grad()
def update_ema_no_parentheses(average, model, decay, step):
    decay = min(decay, 1 + step / 10 + step)
    for old, new in zip(average.parameters(), model.parameters()):
        old.lerp_(new, 1 - decay)
    return decay


# ---- ema_shares


@right("ema_shares")
def ema_shares_loop(decays):
    shares = [1.0]
    for d in decays.tolist():
        shares = [d * share for share in shares] + [1 - d]
    return shares


@right("ema_shares")
def ema_shares_cumprod(decays):
    after = torch.cat(
        [decays.flip(0).cumprod(0).flip(0), torch.ones(1)]
    )  # after[j]: of updates j, j + 1, ...
    return torch.cat([after[:1], (1 - decays) * after[1:]])


@right("ema_shares")
def ema_shares_float32(decays):
    shares = torch.zeros(len(decays) + 1)
    shares[0] = 1
    for k in range(len(decays)):
        shares *= decays[k]
        shares[k + 1] = 1 - decays[k]
    return shares


@right("ema_shares")
def ema_shares_numpy(decays):
    decays = decays.numpy()
    products = [np.prod(decays[k:]) for k in range(len(decays) + 1)]
    return np.append(products[0], np.diff(products))


@right("ema_shares")
def ema_shares_one_hot(decays):
    average, *weights = torch.eye(len(decays) + 1, dtype=torch.float64)
    for decay, weight in zip(decays, weights):
        average = torch.lerp(average, weight, 1 - decay)
    return average


def products_after(decays):
    return [math.prod(decays[j + 1 :].tolist()) for j in range(len(decays))]


@wrong("ema_shares", "in the wrong order")
def ema_shares_newest_first(decays):
    return ema_shares_cumprod(decays).flip(0)


@wrong("ema_shares", "initial weights is missing")
def ema_shares_without_initial(decays):
    return [(1 - d) * after for d, after in zip(decays.tolist(), products_after(decays))]


@wrong("ema_shares", "as if the average started at 0")
def ema_shares_from_zero(decays):
    shares = [0.0]
    for d in decays.tolist():
        shares = [d * share for share in shares] + [1 - d]
    return shares


@wrong("ema_shares", "Adam's bias correction")
def ema_shares_adam(decays):
    shares = torch.tensor(ema_shares_from_zero(decays), dtype=torch.float64)
    return shares / (1 - decays.prod())


@wrong("ema_shares", "starts with the weights after the first step")
def ema_shares_from_first(decays):
    shares = [1.0]
    for d in decays[1:].tolist():
        shares = [d * share for share in shares] + [1 - d]
    return torch.tensor(shares)


@wrong("ema_shares", "decay of their own update, too")
def ema_shares_scaled_last(decays):
    shares = torch.zeros(len(decays) + 1, dtype=torch.float64)
    shares[0] = 1
    for k, d in enumerate(decays):
        shares[k + 1] = 1 - d
        shares *= d
    return shares


@wrong("ema_shares", "decays of earlier updates are multiplied")
def ema_shares_forward(decays):
    before = [math.prod(decays[:j].tolist()) for j in range(len(decays))]
    return [decays.prod(), *((1 - d) * b for d, b in zip(decays, before))]


@wrong("ema_shares", "next update is left out")
def ema_shares_off_by_one(decays):
    k = len(decays)
    return [decays.prod().item()] + [(1 - decays[j].item()) * decays[j + 2 :].prod().item() for j in range(k)]


@wrong("ema_shares", "new weights enter with share 1; the decay")
def ema_shares_products(decays):
    return [decays.prod().item(), *products_after(decays)]


@wrong("ema_shares", "enter with the decay as their share")
def ema_shares_decay_enters(decays):
    return [decays.prod().item(), *(d * after for d, after in zip(decays.tolist(), products_after(decays)))]


@wrong("ema_shares", "stay what they were")
def ema_shares_not_shrunk(decays):
    return torch.cat([decays.prod()[None], 1 - decays])


@wrong("ema_shares", "Old and new are exchanged")
def ema_shares_exchanged(decays):
    shares = [1.0]
    for d in decays.tolist():
        shares = [(1 - d) * share for share in shares] + [d]
    return shares


@wrong("ema_shares", "The first decay is used")
def ema_shares_first_power(decays):
    d, k = decays[0], len(decays)
    return torch.stack([d**k, *((1 - d) * d ** (k - 1 - j) for j in range(k))])


@wrong("ema_shares", "The last decay is used")
def ema_shares_last_power(decays):
    d, k = decays[-1].item(), len(decays)
    return [d**k] + [(1 - d) * d ** (k - j) for j in range(1, k + 1)]


@wrong("ema_shares", "lose a share in the first update only")
def ema_shares_initial_once(decays):
    return [decays[0], *((1 - d) * after for d, after in zip(decays, products_after(decays)))]


@wrong("ema_shares", "shares of the initial weights after each update")
def ema_shares_of_initial(decays):
    return torch.cat([torch.ones(1), decays.cumprod(0)])


@wrong("ema_shares", "All weights get the same share")
def ema_shares_plain_mean(decays):
    return torch.full((len(decays) + 1,), 1 / (len(decays) + 1))


@wrong("ema_shares", "were divided by their sum")
def ema_shares_normalized(decays):
    shares = torch.tensor([decays.prod().item(), *products_after(decays)])
    return shares / shares.sum()


@wrong("ema_shares", "It is right until a decay is 0")
def ema_shares_by_division(decays):
    return torch.cat([decays.prod()[None], (1 - decays) * decays.prod() / decays.cumprod(0)])


@wrong("ema_shares", "it has no logarithm")
def ema_shares_by_logarithms(decays):
    logs = decays.log()
    return torch.cat([logs.sum().exp()[None], (1 - decays) * (logs.sum() - logs.cumsum(0)).exp()])


@wrong("ema_shares", "comes last; it is the first number")
def ema_shares_initial_last(decays):
    initial, *others = ema_shares_loop(decays)
    return [*others, initial]


@wrong("ema_shares", "steps are in reverse order")
def ema_shares_steps_reversed(decays):
    shares, after = [], 1.0
    for d in decays.flip(0):
        shares.append((1 - d) * after)
        after = after * d
    return [after, *shares]


@wrong("ema_shares", "not flipped back")
def ema_shares_not_flipped_back(decays):
    after = torch.cat([torch.ones(1), decays.flip(0).cumprod(0)])
    return torch.cat([after[-1:], (1 - decays) * after[:-1]])


@wrong("ema_shares", "starts at the first update")
def ema_shares_not_flipped(decays):
    after = torch.cat([decays.cumprod(0)[1:], torch.ones(1)])
    return torch.cat([decays.prod()[None], (1 - decays) * after])


@wrong("ema_shares", "next update alone")
def ema_shares_next_decay(decays):
    following = decays.tolist()[1:] + [1.0]
    return [decays.prod(), *((1 - d) * after for d, after in zip(decays, following))]


@wrong("ema_shares", "get what is left of 1")
def ema_shares_rest(decays):
    steps = [(1 - decays[k].item()) * decays[k:].prod().item() for k in range(len(decays))]
    return [1 - sum(steps), *steps]


@wrong("ema_shares", "first update copies the weights")
def ema_shares_first_copies(decays):
    shares = [0.0, 1.0]
    for d in decays[1:].tolist():
        shares = [d * share for share in shares] + [1 - d]
    return shares


@wrong("ema_shares", "weights before each step")
def ema_shares_weights_before(decays):
    weights = torch.eye(len(decays) + 1, dtype=torch.float64)
    average = weights[0]
    for k, d in enumerate(decays):
        average = d * average + (1 - d) * weights[k]
    return average


@wrong("ema_shares", "last update is missing")
def ema_shares_without_last(decays):
    return ema_shares_loop(decays[:-1]) + [0.0]


@wrong("ema_shares", "warm-up is applied")
def ema_shares_warm_up(decays):
    shares = [1.0]
    for k, d in enumerate(decays.tolist()):
        d = min(d, (1 + k) / (10 + k))
        shares = [d * share for share in shares] + [1 - d]
    return shares


@wrong("ema_shares", "mean of the decays")
def ema_shares_mean_decay(decays):
    d, k = decays.mean().item(), len(decays)
    return [d**k] + [(1 - d) * d ** (k - j) for j in range(1, k + 1)]


@wrong("ema_shares", "all of them are 100 times")
def ema_shares_percent(decays):
    return [100 * share for share in ema_shares_loop(decays)]


@wrong("ema_shares", "changes its input decays")
def ema_shares_in_place(decays):
    shares, decays[0] = ema_shares_cumprod(decays), 0
    return shares


@wrong("ema_shares", "must return a tensor")
def ema_shares_pair(decays):
    shares = ema_shares_cumprod(decays)
    return shares[0], shares[1:]
