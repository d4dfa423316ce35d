"""Answers to the exercises of lesson 34: CFG-Zero* and projected guidance."""

import torch
from einops import einsum

from . import right, wrong


def inner(a, b):
    """Inner product of each image with its partner, (N, 1, 1, 1)."""
    return einsum(a, b, "n c h w, n c h w -> n")[:, None, None, None]


# ---- cfg_zero_star


@right("cfg_zero_star")
def cfg_zero_star_einsum(cond, uncond, cfg_scale):
    start = inner(cond, uncond) / inner(uncond, uncond) * uncond
    return (1 - cfg_scale) * start + cfg_scale * cond


@right("cfg_zero_star")
def cfg_zero_star_flat(cond, uncond, cfg_scale):
    results = []
    for c, u in zip(cond.flatten(1), uncond.flatten(1)):
        s = torch.dot(c, u) / torch.dot(u, u)
        results.append(torch.lerp(s * u, c, cfg_scale))
    return torch.stack(results).view_as(cond)


@wrong("cfg_zero_star", "plain guidance")
def cfg_zero_star_plain(cond, uncond, cfg_scale):
    return uncond + cfg_scale * (cond - uncond)


@wrong("cfg_zero_star", "All images share one factor")
def cfg_zero_star_batch(cond, uncond, cfg_scale):
    s = torch.sum(cond * uncond) / torch.sum(uncond**2)
    return s * uncond + cfg_scale * (cond - s * uncond)


@wrong("cfg_zero_star", "Each channel has a factor")
def cfg_zero_star_channels(cond, uncond, cfg_scale):
    s = (cond * uncond).mean((-1, -2), True) / (uncond**2).mean((-1, -2), True)
    return s * uncond + cfg_scale * (cond - s * uncond)


@wrong("cfg_zero_star", "Each pixel has a factor")
def cfg_zero_star_pixels(cond, uncond, cfg_scale):
    s = cond * uncond / uncond**2
    return s * uncond + cfg_scale * (cond - s * uncond)


@wrong("cfg_zero_star", "divided by the norm")
def cfg_zero_star_norm(cond, uncond, cfg_scale):
    s = inner(cond, uncond) / uncond.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return s * uncond + cfg_scale * (cond - s * uncond)


@wrong("cfg_zero_star", "squared norm of the wrong prediction")
def cfg_zero_star_wrong_norm(cond, uncond, cfg_scale):
    s = inner(cond, uncond) / inner(cond, cond)
    return s * uncond + cfg_scale * (cond - s * uncond)


@wrong("cfg_zero_star", "cosine")
def cfg_zero_star_cosine(cond, uncond, cfg_scale):
    s = torch.cosine_similarity(cond.flatten(1), uncond.flatten(1)).view(-1, 1, 1, 1)
    return s * uncond + cfg_scale * (cond - s * uncond)


@wrong("cfg_zero_star", "ratio of the two norms")
def cfg_zero_star_ratio(cond, uncond, cfg_scale):
    s = (cond.flatten(1).norm(dim=1) / uncond.flatten(1).norm(dim=1)).view(-1, 1, 1, 1)
    return s * uncond + cfg_scale * (cond - s * uncond)


@wrong("cfg_zero_star", "upside down")
def cfg_zero_star_upside_down(cond, uncond, cfg_scale):
    s = inner(uncond, uncond) / inner(cond, uncond)
    return s * uncond + cfg_scale * (cond - s * uncond)


@wrong("cfg_zero_star", "inner product alone")
def cfg_zero_star_undivided(cond, uncond, cfg_scale):
    s = inner(cond, uncond)
    return s * uncond + cfg_scale * (cond - s * uncond)


@wrong("cfg_zero_star", "a mean above and a sum below")
def cfg_zero_star_mean(cond, uncond, cfg_scale):
    s = (cond * uncond).mean((1, 2, 3), keepdim=True) / (uncond**2).sum((1, 2, 3), keepdim=True)
    return s * uncond + cfg_scale * (cond - s * uncond)


@wrong("cfg_zero_star", "limited to 1")
def cfg_zero_star_limited(cond, uncond, cfg_scale):
    s = (inner(cond, uncond) / inner(uncond, uncond)).clamp(max=1.0)
    return s * uncond + cfg_scale * (cond - s * uncond)


@wrong("cfg_zero_star", "factor is squared")
def cfg_zero_star_squared(cond, uncond, cfg_scale):
    s = (inner(cond, uncond) / inner(uncond, uncond)).square()
    return s * uncond + cfg_scale * (cond - s * uncond)


@wrong("cfg_zero_star", "the start must have it")
def cfg_zero_star_difference_only(cond, uncond, cfg_scale):
    s = inner(cond, uncond) / inner(uncond, uncond)
    return uncond + cfg_scale * (cond - s * uncond)


@wrong("cfg_zero_star", "the difference must have it")
def cfg_zero_star_start_only(cond, uncond, cfg_scale):
    s = inner(cond, uncond) / inner(uncond, uncond)
    return s * uncond + cfg_scale * (cond - uncond)


@wrong("cfg_zero_star", "on the prediction with the label")
def cfg_zero_star_on_cond(cond, uncond, cfg_scale):
    s = inner(cond, uncond) / inner(uncond, uncond)
    return uncond + cfg_scale * (s * cond - uncond)


@wrong("cfg_zero_star", "starts at the prediction with the label")
def cfg_zero_star_from_cond(cond, uncond, cfg_scale):
    s = inner(cond, uncond) / inner(uncond, uncond)
    return cond + cfg_scale * (cond - s * uncond)


@wrong("cfg_zero_star", "The start is missing")
def cfg_zero_star_no_start(cond, uncond, cfg_scale):
    s = inner(cond, uncond) / inner(uncond, uncond)
    return cfg_scale * (cond - s * uncond)


@wrong("cfg_zero_star", "leads away from the label")
def cfg_zero_star_exchanged(cond, uncond, cfg_scale):
    start = inner(cond, uncond) / inner(uncond, uncond) * uncond
    return cond + cfg_scale * (start - cond)


@wrong("cfg_zero_star", "Both predictions are scaled")
def cfg_zero_star_both(cond, uncond, cfg_scale):
    s = inner(cond, uncond) / inner(uncond, uncond)
    return s * (uncond + cfg_scale * (cond - uncond))


# ---- projected_guidance


def limited(d, threshold):
    """The difference with its norm limited."""
    norm = d.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return torch.where(norm > threshold, d * threshold / norm, d)


def parts(d, onto):
    """The parts of a difference along and across an image."""
    unit = onto / onto.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    along = inner(d, unit) * unit
    return along, d - along


@right("projected_guidance")
def projected_guidance_units(cond, uncond, cfg_scale, eta, threshold):
    along, across = parts(limited(cond - uncond, threshold), cond)
    return cond + (cfg_scale - 1) * (across + eta * along)


@right("projected_guidance")
def projected_guidance_images(cond, uncond, cfg_scale, eta, threshold):
    results = []
    for c, u in zip(cond.flatten(1), uncond.flatten(1)):
        d = c - u
        if d.norm() > threshold:
            d = d / d.norm() * threshold
        results.append(c + (cfg_scale - 1) * (d - (1 - eta) * (d @ c) / (c @ c) * c))
    return torch.stack(results).view_as(cond)


@wrong("projected_guidance", "starts at the prediction without the label")
def projected_guidance_diffusers(cond, uncond, cfg_scale, eta, threshold):
    along, across = parts(limited(cond - uncond, threshold), cond)
    return uncond + cfg_scale * (across + eta * along)


@wrong("projected_guidance", "counted from 0")
def projected_guidance_original(cond, uncond, cfg_scale, eta, threshold):
    along, across = parts(limited(cond - uncond, threshold), cond)
    return cond + cfg_scale * (across + eta * along)


@wrong("projected_guidance", "added to the prediction without the label")
def projected_guidance_from_uncond(cond, uncond, cfg_scale, eta, threshold):
    along, across = parts(limited(cond - uncond, threshold), cond)
    return uncond + (cfg_scale - 1) * (across + eta * along)


@wrong("projected_guidance", "onto the prediction without the label")
def projected_guidance_onto_uncond(cond, uncond, cfg_scale, eta, threshold):
    along, across = parts(limited(cond - uncond, threshold), uncond)
    return cond + (cfg_scale - 1) * (across + eta * along)


@wrong("projected_guidance", "projected onto itself")
def projected_guidance_onto_itself(cond, uncond, cfg_scale, eta, threshold):
    d = limited(cond - uncond, threshold)
    return cond + (cfg_scale - 1) * eta * d


@wrong("projected_guidance", "they are exchanged")
def projected_guidance_exchanged(cond, uncond, cfg_scale, eta, threshold):
    across, along = parts(limited(cond - uncond, threshold), cond)
    return cond + (cfg_scale - 1) * (across + eta * along)


@wrong("projected_guidance", "1 - eta is kept")
def projected_guidance_one_minus_eta(cond, uncond, cfg_scale, eta, threshold):
    d = limited(cond - uncond, threshold)
    return cond + (cfg_scale - 1) * (d - eta * parts(d, cond)[0])


@wrong("projected_guidance", "dropped whatever eta is")
def projected_guidance_no_eta(cond, uncond, cfg_scale, eta, threshold):
    return cond + (cfg_scale - 1) * parts(limited(cond - uncond, threshold), cond)[1]


@wrong("projected_guidance", "the projection has no effect")
def projected_guidance_no_projection(cond, uncond, cfg_scale, eta, threshold):
    return cond + (cfg_scale - 1) * limited(cond - uncond, threshold)


@wrong("projected_guidance", "eta of the parallel part is added to it")
def projected_guidance_added(cond, uncond, cfg_scale, eta, threshold):
    d = limited(cond - uncond, threshold)
    return cond + (cfg_scale - 1) * (d + eta * parts(d, cond)[0])


@wrong("projected_guidance", "subtracted twice")
def projected_guidance_twice(cond, uncond, cfg_scale, eta, threshold):
    along, across = parts(limited(cond - uncond, threshold), cond)
    return cond + (cfg_scale - 1) * (across - (1 - eta) * along)


@wrong("projected_guidance", "sums over the whole batch")
def projected_guidance_batch(cond, uncond, cfg_scale, eta, threshold):
    d = limited(cond - uncond, threshold)
    along = torch.sum(d * cond) / torch.sum(cond**2) * cond
    return cond + (cfg_scale - 1) * (d - along + eta * along)


@wrong("projected_guidance", "Each channel is projected")
def projected_guidance_channels(cond, uncond, cfg_scale, eta, threshold):
    d = limited(cond - uncond, threshold)
    along = (d * cond).sum((-1, -2), True) / cond.square().sum((-1, -2), True) * cond
    return cond + (cfg_scale - 1) * (d - along + eta * along)


@wrong("projected_guidance", "divides by the norm")
def projected_guidance_norm(cond, uncond, cfg_scale, eta, threshold):
    d = limited(cond - uncond, threshold)
    along = inner(d, cond) / inner(cond, cond).sqrt() * cond
    return cond + (cfg_scale - 1) * (d - along + eta * along)


@wrong("projected_guidance", "The threshold has no effect")
def projected_guidance_unlimited(cond, uncond, cfg_scale, eta, threshold):
    along, across = parts(cond - uncond, cond)
    return cond + (cfg_scale - 1) * (across + eta * along)


@wrong("projected_guidance", "always that of the threshold")
def projected_guidance_normalized(cond, uncond, cfg_scale, eta, threshold):
    d = cond - uncond
    along, across = parts(d / inner(d, d).sqrt() * threshold, cond)
    return cond + (cfg_scale - 1) * (across + eta * along)


@wrong("projected_guidance", "Short differences are stretched")
def projected_guidance_max(cond, uncond, cfg_scale, eta, threshold):
    d = cond - uncond
    d = d * torch.clamp(threshold / inner(d, d).sqrt(), min=1.0)
    along, across = parts(d, cond)
    return cond + (cfg_scale - 1) * (across + eta * along)


@wrong("projected_guidance", "Each pixel of the difference is limited")
def projected_guidance_pixels(cond, uncond, cfg_scale, eta, threshold):
    along, across = parts((cond - uncond).clamp(-threshold, threshold), cond)
    return cond + (cfg_scale - 1) * (across + eta * along)


@wrong("projected_guidance", "norm of the whole batch is limited")
def projected_guidance_batch_norm(cond, uncond, cfg_scale, eta, threshold):
    d = cond - uncond
    along, across = parts(d * min(1.0, threshold / float(d.norm())), cond)
    return cond + (cfg_scale - 1) * (across + eta * along)


@wrong("projected_guidance", "The square of the norm is compared")
def projected_guidance_square(cond, uncond, cfg_scale, eta, threshold):
    d = cond - uncond
    along, across = parts(d * (threshold / inner(d, d)).clamp(max=1.0), cond)
    return cond + (cfg_scale - 1) * (across + eta * along)


@wrong("projected_guidance", "limited after the projection")
def projected_guidance_late(cond, uncond, cfg_scale, eta, threshold):
    along, across = parts(cond - uncond, cond)
    return cond + (cfg_scale - 1) * limited(across + eta * along, threshold)


@wrong("projected_guidance", "has the wrong sign")
def projected_guidance_sign(cond, uncond, cfg_scale, eta, threshold):
    along, across = parts(limited(uncond - cond, threshold), cond)
    return cond + (cfg_scale - 1) * (across + eta * along)
