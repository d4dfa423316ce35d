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


@right("cfg_zero_star")
def cfg_zero_star_small_number(cond, uncond, cfg_scale):
    c, u = cond.flatten(1), uncond.flatten(1)
    s = (c * u).sum(1, keepdim=True) / (u.square().sum(1, keepdim=True) + 1e-8)  # as in the paper's code
    return ((1 - cfg_scale) * s * u + cfg_scale * c).view_as(cond)


def write_factor(words, factor):
    """Register CFG-Zero* with another factor, (cond, uncond) -> factor."""

    def answer(cond, uncond, cfg_scale):
        s = factor(cond, uncond)
        return s * uncond + cfg_scale * (cond - s * uncond)

    answer.__name__ = f"cfg_zero_star_{'_'.join(words.split())}"
    wrong("cfg_zero_star", words)(answer)


def ratio(c, u, axes):
    return (c * u).sum(axes, keepdim=True) / (u * u).sum(axes, keepdim=True)


def average(x):
    return x.mean((1, 2, 3), keepdim=True)


write_factor("the factor of the first one", lambda c, u: float(inner(c, u)[0] / inner(u, u)[0]))
write_factor("the mean factor", lambda c, u: (inner(c, u) / inner(u, u)).mean())
write_factor("The squared norm is that of the whole batch", lambda c, u: inner(c, u) / torch.norm(u) ** 2)
write_factor("The inner product is that of the whole batch", lambda c, u: torch.sum(c * u) / inner(u, u))
write_factor("from sums over the channels", lambda c, u: ratio(c, u, 1))
write_factor("Each row of pixels has a factor", lambda c, u: ratio(c, u, -1))
write_factor("The sums run over the images", lambda c, u: ratio(c, u, 0))
write_factor("Each column of pixels has a factor", lambda c, u: ratio(c, u, (1, 2)))
write_factor("squared ratio of the two norms", lambda c, u: inner(c, c) / inner(u, u))
write_factor("The inner product stands below", lambda c, u: inner(c, c) / inner(u, c))
write_factor(
    "ratio of the two standard deviations",
    lambda c, u: (c.flatten(1).std(1) / u.flatten(1).std(1)).view(-1, 1, 1, 1),
)
write_factor("a cosine over the channels", lambda c, u: torch.cosine_similarity(c, u).unsqueeze(1))
write_factor("squared norms of both", lambda c, u: inner(c, u) / inner(u, u) / inner(c, c))
write_factor("a sum above and a mean below", lambda c, u: inner(c, u) / average(u**2))
write_factor("the ratio of two sums", lambda c, u: average(c) / average(u))
write_factor("1 less than it should be", lambda c, u: inner(c - u, u) / inner(u, u))
write_factor("The factor has the wrong sign", lambda c, u: -inner(c, u) / inner(u, u))
write_factor(
    "The means are removed",
    lambda c, u: inner(c - average(c), u - average(u)) / inner(u - average(u), u - average(u)),
)


def write_guidance(words, combine):
    """Register another rule of cond, uncond, cfg_scale and the right factor."""

    def answer(cond, uncond, cfg_scale):
        return combine(cond, uncond, cfg_scale, inner(cond, uncond) / inner(uncond, uncond))

    answer.__name__ = f"cfg_zero_star_{'_'.join(words.split())}"
    wrong("cfg_zero_star", words)(answer)


write_guidance("The scale is counted from 0", lambda c, u, w, s: s * u + (w - 1) * (c - s * u))
write_guidance("The difference has the wrong sign", lambda c, u, w, s: s * u + w * (s * u - c))
write_guidance("multiplies the difference of plain guidance", lambda c, u, w, s: u + w * (s * (c - u)))
write_guidance("as the scale of plain guidance", lambda c, u, w, s: u + s * (c - u))
write_guidance("also multiplies the difference", lambda c, u, w, s: s * (u + w * (c - s * u)))
write_guidance("is divided by the factor", lambda c, u, w, s: u + w * (c / s - u))
write_guidance("are brackets missing", lambda c, u, w, s: w * c - s * u)
write_guidance("The guidance scale is not used", lambda c, u, w, s: c + s * u)


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


def write_projection(words, coefficient):
    """Register another coefficient of the parallel part, (difference, cond) -> number."""

    def answer(cond, uncond, cfg_scale, eta, threshold):
        d = limited(cond - uncond, threshold)
        along = coefficient(d, cond) * cond
        return cond + (cfg_scale - 1) * (d - along + eta * along)

    answer.__name__ = f"projected_guidance_{'_'.join(words.split())}"
    wrong("projected_guidance", words)(answer)


write_projection("the squared norm of the difference", lambda d, c: inner(d, c) / inner(d, d))
write_projection("The parallel part is not divided", inner)
write_projection("a mean above and a sum below", lambda d, c: average(d * c) / inner(c, c))
write_projection(
    "The cosine is used",
    lambda d, c: torch.cosine_similarity(d.flatten(1), c.flatten(1)).view(-1, 1, 1, 1),
)
write_projection("The coefficient alone", lambda d, c: inner(d, c) / inner(c, c) / c)
write_projection("Each pixel is projected", lambda d, c: ratio(d, c, 1))
write_projection("Each row of pixels is projected", lambda d, c: ratio(d, c, -1))


def write_parts(words, keep):
    """Register another sum of the parts, (along, across, eta) -> images."""

    def answer(cond, uncond, cfg_scale, eta, threshold):
        along, across = parts(limited(cond - uncond, threshold), cond)
        return cond + (cfg_scale - 1) * keep(along, across, eta)

    answer.__name__ = f"projected_guidance_{'_'.join(words.split())}"
    wrong("projected_guidance", words)(answer)


write_parts("weights eta and 1 - eta", lambda along, across, eta: eta * along + (1 - eta) * across)
write_parts("weights 1 - eta and eta", lambda along, across, eta: torch.lerp(along, across, eta))
write_parts("The part eta of the parallel part", lambda along, across, eta: across - eta * along)
write_parts("The orthogonal part is missing", lambda along, across, eta: along * eta)
write_parts("The parallel part is kept alone", lambda along, across, eta: along)


def write_limit(words, limit):
    """Register another limit, (difference, threshold) -> difference."""

    def answer(cond, uncond, cfg_scale, eta, threshold):
        along, across = parts(limit(cond - uncond, threshold), cond)
        return cond + (cfg_scale - 1) * (across + eta * along)

    answer.__name__ = f"projected_guidance_{'_'.join(words.split())}"
    wrong("projected_guidance", words)(answer)


def shortened(d, threshold, size):
    return d * torch.clamp(threshold / size, max=1)


write_limit("The root mean square of the difference", lambda d, r: shortened(d, r, average(d * d) ** 0.5))
write_limit("The sum of absolute values", lambda d, r: shortened(d, r, d.abs().sum((1, 2, 3), True)))
write_limit("The norm of each channel", lambda d, r: shortened(d, r, d.norm(dim=(2, 3), keepdim=True)))
write_limit("The norm of each pixel", lambda d, r: shortened(d, r, d.norm(dim=1, keepdim=True)))
write_limit("The norm of each row", lambda d, r: shortened(d, r, d.norm(dim=-1, keepdim=True)))
write_limit("The ratio is upside down", lambda d, r: d * torch.clamp(inner(d, d).sqrt() / r, max=1))
write_limit("Numbers above the threshold", lambda d, r: torch.clamp(d, max=r))
write_limit("gets the norm 1", lambda d, r: torch.where(inner(d, d) > r**2, d / inner(d, d) ** 0.5, d))
write_limit("too long becomes 0", lambda d, r: d * (inner(d, d) <= r**2))
write_limit("multiplied by the threshold", lambda d, r: r * d)


def kept(cond, uncond, eta, threshold):
    along, across = parts(limited(cond - uncond, threshold), cond)
    return across + eta * along


@wrong("projected_guidance", "This is plain guidance")
def projected_guidance_plain(cond, uncond, cfg_scale, eta, threshold):
    return uncond + cfg_scale * (cond - uncond)


@wrong("projected_guidance", "The guidance scale is not used")
def projected_guidance_unscaled(cond, uncond, cfg_scale, eta, threshold):
    return cond + kept(cond, uncond, eta, threshold)


@wrong("projected_guidance", "This is the step alone")
def projected_guidance_step(cond, uncond, cfg_scale, eta, threshold):
    return (cfg_scale - 1) * kept(cond, uncond, eta, threshold)


@wrong("projected_guidance", "The two predictions are exchanged")
def projected_guidance_swapped(cond, uncond, cfg_scale, eta, threshold):
    return projected_guidance_units(uncond, cond, cfg_scale, eta, threshold)


@wrong("projected_guidance", "counted from -1")
def projected_guidance_plus_one(cond, uncond, cfg_scale, eta, threshold):
    return cond + (1 + cfg_scale) * kept(cond, uncond, eta, threshold)


@wrong("projected_guidance", "Only the orthogonal part is limited")
def projected_guidance_limited_across(cond, uncond, cfg_scale, eta, threshold):
    along, across = parts(cond - uncond, cond)
    return cond + (cfg_scale - 1) * (limited(across, threshold) + eta * along)


@wrong("projected_guidance", "limited after it was scaled")
def projected_guidance_limited_step(cond, uncond, cfg_scale, eta, threshold):
    along, across = parts(cond - uncond, cond)
    return cond + limited((cfg_scale - 1) * (across + eta * along), threshold)


@wrong("projected_guidance", "scaled before it is limited")
def projected_guidance_scaled_first(cond, uncond, cfg_scale, eta, threshold):
    along, across = parts(limited((cfg_scale - 1) * (cond - uncond), threshold), cond)
    return cond + across + eta * along


@wrong("projected_guidance", "before it was limited")
def projected_guidance_parallel_of_all(cond, uncond, cfg_scale, eta, threshold):
    d = cond - uncond
    along, _ = parts(d, cond)
    return cond + (cfg_scale - 1) * (limited(d, threshold) - along + eta * along)
