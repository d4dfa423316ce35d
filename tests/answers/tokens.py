"""Answers to the exercises of lessons 01 to 05."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat

from . import right, wrong

# ---- to_model_range


@right("to_model_range")
def to_model_range_einops(images):
    return rearrange(images.float(), "n h w c -> n c h w") / 127.5 - 1


@right("to_model_range")
def to_model_range_two_steps(images):
    x = images.double() / 255
    return (2 * x - 1).moveaxis(-1, 1)


@wrong("to_model_range", "from 0 to 1; they")
def to_model_range_unit(images):
    return images.permute(0, 3, 1, 2) / 255


@wrong("to_model_range", "must become exactly 1")
def to_model_range_over_128(images):
    return images.permute(0, 3, 1, 2).float() / 128 - 1


@wrong("to_model_range", "divided by 256")
def to_model_range_over_256_unit(images):
    return images.permute(0, 3, 1, 2) / 256


@wrong("to_model_range", "from -0.5 to 0.5")
def to_model_range_half(images):
    return images.permute(0, 3, 1, 2) / 255 - 0.5


@wrong("to_model_range", "from 0 to 2")
def to_model_range_zero_to_two(images):
    return images.permute(0, 3, 1, 2) / 127.5


@wrong("to_model_range", "not scaled")
def to_model_range_centered(images):
    return images.permute(0, 3, 1, 2) - 127.5


@wrong("to_model_range", "applied to bytes")
def to_model_range_two_x(images):
    return images.permute(0, 3, 1, 2).float() * 2 - 1


@wrong("to_model_range", "before the division")
def to_model_range_minus_first(images):
    return (images.permute(0, 3, 1, 2).float() - 1) / 127.5


@wrong("to_model_range", "Black and white")
def to_model_range_negative(images):
    return 1 - 2 * (images.permute(0, 3, 1, 2) / 255)


@wrong("to_model_range", "only moved")
def to_model_range_float_only(images):
    return images.permute(0, 3, 1, 2).float()


@wrong("to_model_range", "its own darkest")
def to_model_range_min_max(images):
    x = images.permute(0, 3, 1, 2).float()
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    return 2 * (x - low) / (high - low) - 1


@wrong("to_model_range", "largest byte that occurs")
def to_model_range_over_max(images):
    return images.permute(0, 3, 1, 2) / images.max() * 2 - 1


@wrong("to_model_range", "mean 0 and variance 1")
def to_model_range_standardized(images):
    x = images.permute(0, 3, 1, 2).double()
    flat = x.flatten(1)
    return (x - flat.mean(1).view(-1, 1, 1, 1)) / flat.std(1).view(-1, 1, 1, 1)


@wrong("to_model_range", "ImageNet's means")
def to_model_range_imagenet(images):
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((images.double() / 255 - mean.double()) / std.double()).permute(0, 3, 1, 2)


@wrong("to_model_range", "whole-number division")
def to_model_range_floor(images):
    return images.permute(0, 3, 1, 2).float() // 127.5 - 1


@wrong("to_model_range", "start again at 0")
def to_model_range_uint8_twice(images):
    return (images * 2).permute(0, 3, 1, 2) / 255 - 1


@wrong("to_model_range", "no negative numbers")
def to_model_range_uint8_minus(images):
    return (images.permute(0, 3, 1, 2) - 128) / 127.5


@wrong("to_model_range", "reshape does not move")
def to_model_range_reshape(images):
    n, h, w, c = images.shape
    return images.reshape(n, c, h, w).float() / 127.5 - 1


@wrong("to_model_range", "Height and width")
def to_model_range_turned(images):
    return images.permute(0, 3, 2, 1).float() / 127.5 - 1


@wrong("to_model_range", "shape (2, 3, 4, 3)")
def to_model_range_channels_last(images):
    return images.float() / 127.5 - 1


@wrong("to_model_range", "All numbers get mean 0")
def to_model_range_standardized_batch(images):
    x = images.permute(0, 3, 1, 2).float()
    return (x - x.mean()) / x.std()


@wrong("to_model_range", "Each channel gets mean 0")
def to_model_range_standardized_channels(images):
    x = images.float()
    return ((x - x.mean((0, 1, 2))) / x.std((0, 1, 2))).permute(0, 3, 1, 2)


# ---- normalize_range


@right("normalize_range")
def normalize_range_ifs(images):
    if images.max() > 2:
        return images / 127.5 - 1
    if images.min() < -0.5:
        return images
    return images * 2 - 1


@right("normalize_range")
def normalize_range_by_width(images):
    width = images.max() - images.min()
    if width > 10:
        return images / 255 * 2 - 1
    return images if width > 1.5 else (images - 0.5) / 0.5


@right("normalize_range")
def normalize_range_nearest(images):
    ends = torch.stack([images.min(), images.max()])
    ranges = torch.tensor([[0.0, 1.0], [-1.0, 1.0], [0.0, 255.0]], dtype=images.dtype)
    low, high = ranges[(ranges - ends).abs().sum(1).argmin()]
    return (images - (low + high) / 2) / ((high - low) / 2)


@right("normalize_range")
def normalize_range_two_steps(images):
    x = images.clone()
    if x.abs().max() > 1.5:
        x /= 255
    if x.min() > -0.5:
        x = 2 * x - 1
    return x


@wrong("normalize_range", "of each image is decided by that image alone")
def normalize_range_per_image(images):
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return torch.where(high > 2, images / 127.5 - 1, torch.where(low < -0.5, images, 2 * images - 1))


@wrong("normalize_range", "The first image decides for all")
def normalize_range_first_image(images):
    low, high = images[0].min(), images[0].max()
    return images / 127.5 - 1 if high > 1.1 else images if low < -0.1 else 2 * images - 1


@wrong("normalize_range", "of each channel is decided by that channel alone")
def normalize_range_per_channel(images):
    result = torch.empty_like(images)
    for channel in range(images.shape[1]):
        result[:, channel] = normalize_range_ifs(images[:, channel])
    return result


@wrong("normalize_range", "of each channel of each image is decided by it alone")
def normalize_range_per_image_and_channel(images):
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(high > 10, images / 127.5 - 1, torch.where(low < -0.1, images, 2 * images - 1))


@wrong("normalize_range", "Each number decides for itself, with limits")
def normalize_range_per_number_with_limits(images):
    return torch.where(images > 2, images / 127.5 - 1, torch.where(images < -0.5, images, images * 2 - 1))


@wrong("normalize_range", "of each number is decided by that number alone")
def normalize_range_per_number(images):
    x = 2 * images - 1
    x[images < 0] = images[images < 0]
    x[images > 1] = images[images > 1] / 127.5 - 1
    return x


@wrong("normalize_range", "The mean decides")
def normalize_range_by_mean(images):
    mean = images.mean()
    return images / 127.5 - 1 if mean > 1 else images if mean < 0 else 2 * images - 1


@wrong("normalize_range", "as a sign of bytes, and one a little below 0")
def normalize_range_strict(images):
    low, high = images.min(), images.max()
    if low >= 0 and high <= 1:
        return 2 * images - 1
    if low >= -1 and high <= 1:
        return images
    return images / 127.5 - 1


@wrong("normalize_range", "white may lie there in the other ranges")
def normalize_range_strict_white(images):
    if images.max() > 1:
        return images / 127.5 - 1
    return images if images.min() < -0.5 else 2 * images - 1


@wrong("normalize_range", "black may lie there in the other two ranges")
def normalize_range_negative_first(images):
    if (images < 0).any():
        return images
    return images / 127.5 - 1 if (images > 1).any() else 2 * images - 1


@wrong("normalize_range", "the black of [0, 1] may lie there")
def normalize_range_strict_black(images):
    if images.max() > 2:
        return images / 127.5 - 1
    return images if images.min() < 0 else 2 * images - 1


@wrong("normalize_range", "2 % of 255 is more than 1")
def normalize_range_black_first(images):
    if images.min() < -0.5:
        return images
    return images / 127.5 - 1 if images.max() > 2 else 2 * images - 1


@wrong("normalize_range", "only if 255 or -1 occur exactly")
def normalize_range_equal(images):
    if torch.isclose(images.max(), torch.tensor(255.0, dtype=images.dtype)):
        return images / 127.5 - 1
    one = torch.tensor(-1.0, dtype=images.dtype)
    return images if torch.isclose(images.min(), one) else 2 * images - 1


@wrong("normalize_range", "right if black and white lie exactly at the ends")
def normalize_range_table(images):
    key = float(images.min()), float(images.max())
    low, high = {(0.0, 1.0): (0, 1), (-1.0, 1.0): (-1, 1), (0.0, 255.0): (0, 255)}[key]
    return 2 * (images - low) / (high - low) - 1


@wrong("normalize_range", "The batch is stretched")
def normalize_range_min_max(images):
    return 2 * (images - images.min()) / (images.max() - images.min()) - 1


@wrong("normalize_range", "Each image is stretched")
def normalize_range_min_max_per_image(images):
    flat = images.flatten(1)
    low, high = flat.min(1).values, flat.max(1).values
    return (2 * (flat - low[:, None]) / (high - low)[:, None] - 1).view_as(images)


@wrong("normalize_range", "Each channel is stretched")
def normalize_range_min_max_per_channel(images):
    low, high = images.amin((0, 2, 3), keepdim=True), images.amax((0, 2, 3), keepdim=True)
    return (images - low) / (high - low) * 2 - 1


@wrong("normalize_range", "mean 0 and variance 1")
def normalize_range_standardized(images):
    return (images - images.mean()) / images.std()


@wrong("normalize_range", "run from -3 to 1")
def normalize_range_two_ranges(images):
    x = images / 255 if images.max() > 2 else images
    return 2 * x - 1


@wrong("normalize_range", "All images are taken as values from 0 to 1")
def normalize_range_all_unit(images):
    return (images - 0.5) / 0.5


@wrong("normalize_range", "The images are unchanged")
def normalize_range_unchanged(images):
    return images.clone()


@wrong("normalize_range", "and the other images are unchanged")
def normalize_range_over_255(images):
    return images / 255 if images.max() > 1.5 else images


@wrong("normalize_range", "All images are taken as bytes")
def normalize_range_all_bytes(images):
    return images / 127.5 - 1


@wrong("normalize_range", "in [-1, 1] are taken as bytes, and come out nearly constant")
def normalize_range_wide_is_bytes(images):
    return images / 127.5 - 1 if images.max() - images.min() > 1.5 else images * 2 - 1


@wrong("normalize_range", "moved by a half, but not doubled")
def normalize_range_moved(images):
    if images.max() > 2:
        return images / 127.5 - 1
    return images.clone() if images.min() < -0.5 else images - 0.5


@wrong("normalize_range", "Black and white are exchanged in images in [0, 1]")
def normalize_range_exchanged(images):
    if images.max() > 2:
        return images / 127.5 - 1
    return images.clone() if images.min() < -0.5 else 1 - 2 * images


@wrong("normalize_range", "Bytes are rounded to whole numbers")
def normalize_range_rounded(images):
    return images.round() / 127.5 - 1 if images.max() > 2 else normalize_range_ifs(images)


@wrong("normalize_range", "left as they are, half as wide")
def normalize_range_unit_left(images):
    return images / 127.5 - 1 if images.max() > 2 else images


@wrong("normalize_range", "white becomes 509")
def normalize_range_no_bytes(images):
    return images if images.min() < -0.5 else 2 * images - 1


@wrong("normalize_range", "Bytes are not recognized, and a number a little below 0")
def normalize_range_no_bytes_strict(images):
    return images if images.min() < 0 else 2 * images - 1


@wrong("normalize_range", "a step more to [-1, 1]")
def normalize_range_bytes_to_unit(images):
    if images.max() > 2:
        return images / 255
    return images if images.min() < -0.5 else 2 * images - 1


@wrong("normalize_range", "divided by 128")
def normalize_range_over_128(images):
    if images.max() > 2:
        return images / 128 - 1
    return images if images.min() < -0.5 else 2 * images - 1


@wrong("normalize_range", "doubled and not shifted")
def normalize_range_doubled(images):
    if images.max() > 2:
        return images / 127.5 - 1
    return images if images.min() < -0.5 else 2 * images


@wrong("normalize_range", "runs from 0 to 1; it should")
def normalize_range_to_unit(images):
    if images.max() > 2:
        return images / 255
    return (images + 1) / 2 if images.min() < -0.5 else images


@wrong("normalize_range", "is clipped")
def normalize_range_clipped(images):
    return normalize_range_ifs(images).clamp(-1, 1)


@wrong("normalize_range", "changes its input images")
def normalize_range_in_place(images):
    if images.max() > 2:
        images /= 255
    if images.min() > -0.5:
        images.mul_(2).sub_(1)
    return images


@wrong("normalize_range", "torch.float32, but must be torch.float64")
def normalize_range_float32(images):
    return normalize_range_ifs(images).float()


# ---- posterior_weights


@right("posterior_weights")
def posterior_weights_cdist(x_t, alpha_bar, images):
    scaled = x_t.flatten(1) / alpha_bar.sqrt()[:, None]
    snr = (alpha_bar / (1 - alpha_bar))[:, None]
    return torch.softmax(-snr / 2 * torch.cdist(scaled, images.flatten(1)) ** 2, dim=-1)


@right("posterior_weights")
def posterior_weights_loop(x_t, alpha_bar, images):
    rows = []
    for x, bar in zip(x_t, alpha_bar):
        d = ((x - bar.sqrt() * images) ** 2).sum(dim=(1, 2, 3))
        rows.append(torch.softmax(-d / (2 * (1 - bar)), dim=0))
    return torch.stack(rows)


@right("posterior_weights")
def posterior_weights_normal(x_t, alpha_bar, images):
    shape = (-1, 1, 1, 1, 1)
    law = torch.distributions.Normal(
        alpha_bar.sqrt().view(shape) * images, (1 - alpha_bar).sqrt().view(shape)
    )
    return law.log_prob(x_t[:, None]).flatten(2).sum(2).softmax(1)


@wrong("posterior_weights", "at full strength")
def posterior_weights_unscaled(x_t, alpha_bar, images):
    d = ((x_t[:, None] - images) ** 2).flatten(2).sum(2)
    return (-d / (2 * (1 - alpha_bar))[:, None]).softmax(1)


@wrong("posterior_weights", "its square root")
def posterior_weights_no_root(x_t, alpha_bar, images):
    d = ((x_t[:, None] - alpha_bar.view(-1, 1, 1, 1, 1) * images) ** 2).flatten(2).sum(2)
    return (-d / (2 * (1 - alpha_bar))[:, None]).softmax(1)


def _squared_distances(x_t, alpha_bar, images):
    return ((x_t[:, None] - alpha_bar.sqrt()[:, None, None, None, None] * images) ** 2).sum((2, 3, 4))


@wrong("posterior_weights", "a 2 is missing")
def posterior_weights_no_two(x_t, alpha_bar, images):
    return (-_squared_distances(x_t, alpha_bar, images) / (1 - alpha_bar)[:, None]).softmax(1)


@wrong("posterior_weights", "a standard deviation")
def posterior_weights_deviation(x_t, alpha_bar, images):
    sigma = (1 - alpha_bar).sqrt()
    return (-_squared_distances(x_t, alpha_bar, images) / (2 * sigma)[:, None]).softmax(1)


@wrong("posterior_weights", "not divided by the variance")
def posterior_weights_no_variance(x_t, alpha_bar, images):
    return (-_squared_distances(x_t, alpha_bar, images)).softmax(1)


@wrong("posterior_weights", "are halved, but not divided")
def posterior_weights_half(x_t, alpha_bar, images):
    return (-0.5 * _squared_distances(x_t, alpha_bar, images)).softmax(1)


@wrong("posterior_weights", "variance of the signal")
def posterior_weights_signal_variance(x_t, alpha_bar, images):
    return (-_squared_distances(x_t, alpha_bar, images) / (2 * alpha_bar)[:, None]).softmax(1)


@wrong("posterior_weights", "not squared")
def posterior_weights_norm(x_t, alpha_bar, images):
    gaps = x_t[:, None] - alpha_bar.sqrt().view(-1, 1, 1, 1, 1) * images
    return (-gaps.flatten(2).norm(dim=2) / (2 * (1 - alpha_bar))[:, None]).softmax(1)


@wrong("posterior_weights", "Absolute differences")
def posterior_weights_absolute(x_t, alpha_bar, images):
    gaps = x_t[:, None] - alpha_bar.sqrt().view(-1, 1, 1, 1, 1) * images
    return (-gaps.abs().flatten(2).sum(2) / (2 * (1 - alpha_bar))[:, None]).softmax(1)


@wrong("posterior_weights", "averaged over the pixels")
def posterior_weights_pixel_mean(x_t, alpha_bar, images):
    gaps = x_t[:, None] - alpha_bar.sqrt().view(-1, 1, 1, 1, 1) * images
    return (-gaps.pow(2).mean((2, 3, 4)) / (2 * (1 - alpha_bar))[:, None]).softmax(1)


@wrong("posterior_weights", "a sign is wrong")
def posterior_weights_farthest(x_t, alpha_bar, images):
    return (_squared_distances(x_t, alpha_bar, images) / (2 * (1 - alpha_bar))[:, None]).softmax(1)


@wrong("posterior_weights", "0 / 0 is nan")
def posterior_weights_underflow(x_t, alpha_bar, images):
    w = torch.exp(-_squared_distances(x_t, alpha_bar, images) / (2 * (1 - alpha_bar))[:, None])
    return w / w.sum(1, keepdim=True)


@wrong("posterior_weights", "The first alpha_bar")
def posterior_weights_first_bar(x_t, alpha_bar, images):
    bar = alpha_bar[0]
    return (-((x_t[:, None] - bar.sqrt() * images) ** 2).flatten(2).sum(2) / (2 * (1 - bar))).softmax(1)


@wrong("posterior_weights", "applied to the columns")
def posterior_weights_columns(x_t, alpha_bar, images):
    gaps = x_t[:, None] - alpha_bar.sqrt() * images
    return (-gaps.pow(2).flatten(2).sum(2) / (2 * (1 - alpha_bar))[:, None]).softmax(1)


@wrong("posterior_weights", "Each column sums to 1")
def posterior_weights_axis(x_t, alpha_bar, images):
    return (-_squared_distances(x_t, alpha_bar, images) / (2 * (1 - alpha_bar))[:, None]).softmax(0)


@wrong("posterior_weights", "not divided by their sum")
def posterior_weights_density(x_t, alpha_bar, images):
    return torch.exp(-_squared_distances(x_t, alpha_bar, images) / (2 * (1 - alpha_bar))[:, None])


@wrong("posterior_weights", "logarithms of probabilities")
def posterior_weights_log(x_t, alpha_bar, images):
    return (-_squared_distances(x_t, alpha_bar, images) / (2 * (1 - alpha_bar))[:, None]).log_softmax(1)


@wrong("posterior_weights", "a softmax is missing")
def posterior_weights_logits(x_t, alpha_bar, images):
    return -_squared_distances(x_t, alpha_bar, images) / (2 * (1 - alpha_bar))[:, None]


@wrong("posterior_weights", "on the nearest image")
def posterior_weights_nearest(x_t, alpha_bar, images):
    d = _squared_distances(x_t, alpha_bar, images)
    return F.one_hot(d.argmin(1), len(images)).double()


@wrong("posterior_weights", "shape (5, 3)")
def posterior_weights_transposed(x_t, alpha_bar, images):
    return posterior_weights_loop(x_t, alpha_bar, images).T


@wrong("posterior_weights", "for the standard deviation of the noise")
def posterior_weights_normal_variance(x_t, alpha_bar, images):
    shape = (-1, 1, 1, 1, 1)
    law = torch.distributions.Normal(alpha_bar.sqrt().view(shape) * images, (1 - alpha_bar).view(shape))
    return law.log_prob(x_t[:, None]).flatten(2).sum(2).softmax(1)


@wrong("posterior_weights", "makes their noise larger")
def posterior_weights_rescaled(x_t, alpha_bar, images):
    x0 = x_t / alpha_bar.sqrt().view(-1, 1, 1, 1)
    return (-(x0[:, None] - images).pow(2).flatten(2).sum(2) / (2 * (1 - alpha_bar))[:, None]).softmax(1)


@wrong("posterior_weights", "coefficient of the noise")
def posterior_weights_exchanged(x_t, alpha_bar, images):
    gaps = x_t[:, None] - (1 - alpha_bar).sqrt().view(-1, 1, 1, 1, 1) * images
    return (-gaps.pow(2).flatten(2).sum(2) / (2 * (1 - alpha_bar))[:, None]).softmax(1)


@wrong("posterior_weights", "are multiplied by the variance of the noise")
def posterior_weights_precedence(x_t, alpha_bar, images):
    d = _squared_distances(x_t, alpha_bar, images)
    return (-d / 2 * (1 - alpha_bar)[:, None]).softmax(1)


@wrong("posterior_weights", "1 minus the root of alpha_bar")
def posterior_weights_one_minus_root(x_t, alpha_bar, images):
    d = _squared_distances(x_t, alpha_bar, images)
    return (-d / (2 * (1 - alpha_bar.sqrt()))[:, None]).softmax(1)


# ---- label_posterior


@right("label_posterior")
def label_posterior_loop(x_t, alpha_bar, images, labels, num_classes):
    w = posterior_weights_loop(x_t, alpha_bar, images)
    return torch.stack([w[:, labels == k].sum(1) for k in range(num_classes)], dim=1)


@right("label_posterior")
def label_posterior_index_add(x_t, alpha_bar, images, labels, num_classes):
    w = posterior_weights_cdist(x_t, alpha_bar, images)
    return torch.zeros(len(x_t), num_classes, dtype=w.dtype).index_add_(1, labels, w)


@wrong("label_posterior", "are averaged; add them up")
def label_posterior_mean(x_t, alpha_bar, images, labels, num_classes):
    w = posterior_weights_loop(x_t, alpha_bar, images)
    counts = torch.bincount(labels, minlength=num_classes).clamp(min=1)
    return label_posterior_loop(x_t, alpha_bar, images, labels, num_classes) / counts.to(w)


@wrong("label_posterior", "averaged and divided by their sum")
def label_posterior_balanced(x_t, alpha_bar, images, labels, num_classes):
    p = label_posterior_mean(x_t, alpha_bar, images, labels, num_classes)
    return p / p.sum(1, keepdim=True)


@wrong("label_posterior", "most probable image only.")
def label_posterior_max(x_t, alpha_bar, images, labels, num_classes):
    w = posterior_weights_loop(x_t, alpha_bar, images)
    best = [
        w[:, labels == k].max(1).values if (labels == k).any() else 0 * w[:, 0] for k in range(num_classes)
    ]
    return torch.stack(best, 1)


@wrong("label_posterior", "only, divided by the sum")
def label_posterior_max_normalized(x_t, alpha_bar, images, labels, num_classes):
    p = label_posterior_max(x_t, alpha_bar, images, labels, num_classes)
    return p / p.sum(1, keepdim=True)


@wrong("label_posterior", "class of the most probable image")
def label_posterior_nearest(x_t, alpha_bar, images, labels, num_classes):
    w = posterior_weights_loop(x_t, alpha_bar, images)
    return F.one_hot(labels[w.argmax(1)], num_classes).double()


@wrong("label_posterior", "return the probabilities")
def label_posterior_hard(x_t, alpha_bar, images, labels, num_classes):
    p = label_posterior_loop(x_t, alpha_bar, images, labels, num_classes)
    return (p == p.amax(1, keepdim=True)).double()


@wrong("label_posterior", "an index that repeats")
def label_posterior_plus_equals(x_t, alpha_bar, images, labels, num_classes):
    w = posterior_weights_loop(x_t, alpha_bar, images)
    p = torch.zeros(len(x_t), num_classes, dtype=w.dtype)
    p[:, labels] += w
    return p


@wrong("label_posterior", "softmax once more")
def label_posterior_softmax_again(x_t, alpha_bar, images, labels, num_classes):
    return label_posterior_loop(x_t, alpha_bar, images, labels, num_classes).softmax(-1)


@wrong("label_posterior", "mean image of each class")
def label_posterior_class_means(x_t, alpha_bar, images, labels, num_classes):
    found = [k for k in range(num_classes) if (labels == k).any()]
    means = torch.stack([images[labels == k].mean(0) for k in found])
    p = torch.zeros(len(x_t), num_classes, dtype=x_t.dtype)
    p[:, found] = posterior_weights_loop(x_t, alpha_bar, means)
    return p


@wrong("label_posterior", "how frequent each class is")
def label_posterior_prior(x_t, alpha_bar, images, labels, num_classes):
    return (torch.bincount(labels, minlength=num_classes) / len(labels)).double().repeat(len(x_t), 1)


@wrong("label_posterior", "Only classes with images")
def label_posterior_classes_found(x_t, alpha_bar, images, labels, num_classes):
    w = posterior_weights_loop(x_t, alpha_bar, images)
    return torch.stack([w[:, labels == k].sum(1) for k in labels.unique()], 1)


@wrong("label_posterior", "at full strength")
def label_posterior_unscaled(x_t, alpha_bar, images, labels, num_classes):
    return posterior_weights_unscaled(x_t, alpha_bar, images) @ F.one_hot(labels, num_classes).double()


@wrong("label_posterior", "its square root")
def label_posterior_no_root(x_t, alpha_bar, images, labels, num_classes):
    return posterior_weights_no_root(x_t, alpha_bar, images) @ F.one_hot(labels, num_classes).double()


@wrong("label_posterior", "a 2 is missing")
def label_posterior_no_two(x_t, alpha_bar, images, labels, num_classes):
    return posterior_weights_no_two(x_t, alpha_bar, images) @ F.one_hot(labels, num_classes).double()


@wrong("label_posterior", "a standard deviation")
def label_posterior_deviation(x_t, alpha_bar, images, labels, num_classes):
    return posterior_weights_deviation(x_t, alpha_bar, images) @ F.one_hot(labels, num_classes).double()


@wrong("label_posterior", "not divided by the variance")
def label_posterior_no_variance(x_t, alpha_bar, images, labels, num_classes):
    return posterior_weights_no_variance(x_t, alpha_bar, images) @ F.one_hot(labels, num_classes).double()


@wrong("label_posterior", "are halved, but not divided")
def label_posterior_half(x_t, alpha_bar, images, labels, num_classes):
    return posterior_weights_half(x_t, alpha_bar, images) @ F.one_hot(labels, num_classes).double()


@wrong("label_posterior", "variance of the signal")
def label_posterior_signal_variance(x_t, alpha_bar, images, labels, num_classes):
    return posterior_weights_signal_variance(x_t, alpha_bar, images) @ F.one_hot(labels, num_classes).double()


@wrong("label_posterior", "not squared")
def label_posterior_norm(x_t, alpha_bar, images, labels, num_classes):
    return posterior_weights_norm(x_t, alpha_bar, images) @ F.one_hot(labels, num_classes).double()


@wrong("label_posterior", "Absolute differences")
def label_posterior_absolute(x_t, alpha_bar, images, labels, num_classes):
    return posterior_weights_absolute(x_t, alpha_bar, images) @ F.one_hot(labels, num_classes).double()


@wrong("label_posterior", "averaged over the pixels")
def label_posterior_pixel_mean(x_t, alpha_bar, images, labels, num_classes):
    return posterior_weights_pixel_mean(x_t, alpha_bar, images) @ F.one_hot(labels, num_classes).double()


@wrong("label_posterior", "a sign is wrong")
def label_posterior_farthest(x_t, alpha_bar, images, labels, num_classes):
    return posterior_weights_farthest(x_t, alpha_bar, images) @ F.one_hot(labels, num_classes).double()


@wrong("label_posterior", "0 / 0 is nan")
def label_posterior_underflow(x_t, alpha_bar, images, labels, num_classes):
    return posterior_weights_underflow(x_t, alpha_bar, images) @ F.one_hot(labels, num_classes).double()


@wrong("label_posterior", "The first alpha_bar")
def label_posterior_first_bar(x_t, alpha_bar, images, labels, num_classes):
    return posterior_weights_first_bar(x_t, alpha_bar, images) @ F.one_hot(labels, num_classes).double()


@wrong("label_posterior", "normalized by itself")
def label_posterior_softmax_in_class(x_t, alpha_bar, images, labels, num_classes):
    d = _squared_distances(x_t, alpha_bar, images) / (2 * (1 - alpha_bar))[:, None]
    columns = [(-d[:, labels == k]).softmax(1).sum(1) for k in range(num_classes)]
    return torch.stack(columns, 1)


@wrong("label_posterior", "for the standard deviation of the noise")
def label_posterior_normal_variance(x_t, alpha_bar, images, labels, num_classes):
    return posterior_weights_normal_variance(x_t, alpha_bar, images) @ F.one_hot(labels, num_classes).double()


@wrong("label_posterior", "makes their noise larger")
def label_posterior_rescaled(x_t, alpha_bar, images, labels, num_classes):
    return posterior_weights_rescaled(x_t, alpha_bar, images) @ F.one_hot(labels, num_classes).double()


@wrong("label_posterior", "coefficient of the noise")
def label_posterior_exchanged(x_t, alpha_bar, images, labels, num_classes):
    return posterior_weights_exchanged(x_t, alpha_bar, images) @ F.one_hot(labels, num_classes).double()


@wrong("label_posterior", "are multiplied by the variance of the noise")
def label_posterior_precedence(x_t, alpha_bar, images, labels, num_classes):
    d = _squared_distances(x_t, alpha_bar, images)
    return (-d / 2 * (1 - alpha_bar)[:, None]).softmax(1) @ F.one_hot(labels, num_classes).double()


@wrong("label_posterior", "1 minus the root of alpha_bar")
def label_posterior_one_minus_root(x_t, alpha_bar, images, labels, num_classes):
    d = _squared_distances(x_t, alpha_bar, images)
    return (-d / (2 * (1 - alpha_bar.sqrt()))[:, None]).softmax(1) @ F.one_hot(labels, num_classes).double()


@wrong("label_posterior", "which is nan for a class without images")
def label_posterior_nan_means(x_t, alpha_bar, images, labels, num_classes):
    means = torch.stack([images[labels == k].mean(dim=0) for k in range(num_classes)])
    return posterior_weights_loop(x_t, alpha_bar, means)


@wrong("label_posterior", "a last class without images is lost")
def label_posterior_one_hot_guess(x_t, alpha_bar, images, labels, num_classes):
    return posterior_weights_loop(x_t, alpha_bar, images) @ F.one_hot(labels).double()


@wrong("label_posterior", "a class without images gets nan")
def label_posterior_mean_of_none(x_t, alpha_bar, images, labels, num_classes):
    w = posterior_weights_loop(x_t, alpha_bar, images)
    return torch.stack([w[:, labels == k].mean(dim=1) for k in range(num_classes)], dim=1)


# ---- patchify


@right("patchify")
def patchify_einops(images, patch_size):
    return rearrange(images, "b c (gh ph) (gw pw) -> b (gh gw) (ph pw c)", ph=patch_size, pw=patch_size)


@right("patchify")
def patchify_reshape_permute(images, patch_size):
    n, c, h, w = images.shape
    p = patch_size
    x = images.reshape(n, c, h // p, p, w // p, p)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(n, (h // p) * (w // p), p * p * c)


@right("patchify")
def patchify_unfold(images, patch_size):
    n, c = images.shape[:2]
    columns = F.unfold(images, patch_size, stride=patch_size)  # channel first
    columns = columns.transpose(1, 2)
    return columns.reshape(n, columns.shape[1], c, -1).transpose(2, 3).flatten(2)


@right("patchify")
def patchify_slices(images, patch_size):
    tokens = []
    for top in range(0, images.shape[2], patch_size):
        for left in range(0, images.shape[3], patch_size):
            patch = images[:, :, top : top + patch_size, left : left + patch_size]
            tokens.append(patch.permute(0, 2, 3, 1).reshape(len(images), -1))
    return torch.stack(tokens, 1)


@wrong("patchify", "never moved")
def patchify_view_only(images, patch_size):
    n, c, h, w = images.shape
    return images.view(n, h * w // patch_size**2, patch_size * patch_size * c)


@wrong("patchify", "all pixels of one channel come first")
def patchify_unfold_as_it_comes(images, patch_size):
    return F.unfold(images, patch_size, stride=patch_size).transpose(1, 2)


@wrong("patchify", "column by column, not row by row")
def patchify_inside_turned(images, patch_size):
    n, c, h, w = images.shape
    p = patch_size
    x = images.reshape(n, c, h // p, p, w // p, p)
    return x.permute(0, 2, 4, 5, 3, 1).reshape(n, -1, p * p * c)


@wrong("patchify", "patches are laid out column by column")
def patchify_grid_turned(images, patch_size):
    return (
        patchify_slices(images.transpose(2, 3), patch_size)
        .reshape(len(images), -1, patch_size, patch_size, images.shape[1])
        .transpose(2, 3)
        .flatten(2)
    )


@wrong("patchify", "every p-th pixel")
def patchify_strided(images, patch_size):
    n, c, h, w = images.shape
    p = patch_size
    x = images.reshape(n, c, p, h // p, p, w // p)
    return rearrange(x, "n c p h q w -> n (h w) (p q c)")


@wrong("patchify", "grid is taken as a square")
def patchify_square(images, patch_size):
    n, c, h, _ = images.shape
    g = h // patch_size
    x = images.reshape(n, c, g, patch_size, g, patch_size)
    return torch.einsum("nchpwq->nhwpqc", x).reshape(n, g * g, -1)


@wrong("patchify", "must return a tensor")
def patchify_numpy(images, patch_size):
    return np.asarray(patchify_einops(images, patch_size))


@wrong("patchify", "torch.float32, but must be torch.float64")
def patchify_float32(images, patch_size):
    return patchify_einops(images, patch_size).float()


@wrong("patchify", "The image is mirrored")
def patchify_flipped(images, patch_size):
    return patchify_einops(images.flip(-1), patch_size)


@wrong("patchify", "separate tokens")
def patchify_channels_are_tokens(images, patch_size):
    return rearrange(images, "n c (h p) (w q) -> n (c h w) (p q)", p=patch_size, q=patch_size)


@wrong("patchify", "The grid of patches is still there")
def patchify_keeps_the_grid(images, patch_size):
    return rearrange(images, "n c (h p) (w q) -> n h w (p q c)", p=patch_size, q=patch_size)


@wrong("patchify", "still a square of pixels")
def patchify_keeps_the_squares(images, patch_size):
    return rearrange(images, "n c (h p) (w q) -> n (h w) p q c", p=patch_size, q=patch_size)


@wrong("patchify", "between row and column")
def patchify_channel_between(images, patch_size):
    p = patch_size
    n, c, h, w = images.shape
    x = images.reshape(n, c, h // p, p, w // p, p).permute(0, 2, 4, 3, 1, 5)
    return x.reshape(n, -1, p * p * c)


@wrong("patchify", "a strip of a row")
def patchify_channels_last_strip(images, patch_size):
    n, c, h, w = images.shape
    t = (h // patch_size) * (w // patch_size)
    return images.permute(0, 2, 3, 1).reshape(n, t, patch_size**2 * c)


@wrong("patchify", "a strip of a row")
def patchify_not_transposed(images, patch_size):
    p = patch_size
    n, c, h, w = images.shape
    x = images.reshape(n, c, h // p, p, w // p, p).permute(0, 2, 3, 4, 5, 1)
    return x.reshape(n, (h // p) * (w // p), p * p * c)


@wrong("patchify", "the channels are never moved")
def patchify_unfolded_twice(images, patch_size):
    n, _, h, w = images.shape
    x = images.unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)
    return x.reshape(n, (h // patch_size) * (w // patch_size), -1)


@wrong("patchify", "patch_size rows and columns of patches")
def patchify_number_of_patches(images, patch_size):
    return rearrange(images, "n c (h p) (w q) -> n (h w) (p q c)", h=patch_size, w=patch_size)


# ---- unpatchify


@right("unpatchify")
def unpatchify_einops(tokens, grid, patch_size):
    return rearrange(
        tokens, "b (gh gw) (ph pw c) -> b c (gh ph) (gw pw)", gh=grid[0], ph=patch_size, pw=patch_size
    )


@right("unpatchify")
def unpatchify_einsum(tokens, grid, patch_size):
    h, w = grid
    x = tokens.reshape(len(tokens), h, w, patch_size, patch_size, -1)
    x = torch.einsum("nhwpqc->nchpwq", x)
    return x.reshape(len(tokens), -1, h * patch_size, w * patch_size)


@right("unpatchify")
def unpatchify_fold(tokens, grid, patch_size):
    n, t, _ = tokens.shape
    columns = tokens.reshape(n, t, patch_size**2, -1).transpose(2, 3).flatten(2).transpose(1, 2)
    size = (grid[0] * patch_size, grid[1] * patch_size)
    return F.fold(columns, size, patch_size, stride=patch_size)


@right("unpatchify")
def unpatchify_paste(tokens, grid, patch_size):
    p = patch_size
    c = tokens.shape[-1] // p**2
    images = torch.empty(len(tokens), c, grid[0] * p, grid[1] * p, dtype=tokens.dtype)
    for k in range(tokens.shape[1]):
        r, s = divmod(k, grid[1])
        patch = tokens[:, k].reshape(-1, p, p, c).permute(0, 3, 1, 2)
        images[:, :, r * p : (r + 1) * p, s * p : (s + 1) * p] = patch
    return images


@wrong("unpatchify", "stripe")
def unpatchify_view_only(tokens, grid, patch_size):
    p = patch_size
    return tokens.reshape(len(tokens), tokens.shape[2] // p**2, grid[0] * p, grid[1] * p)


@wrong("unpatchify", "channels last")
def unpatchify_nhwc(tokens, grid, patch_size):
    return unpatchify_paste(tokens, grid, patch_size).permute(0, 2, 3, 1)


@wrong("unpatchify", "the channel changes fastest")
def unpatchify_fold_as_it_comes(tokens, grid, patch_size):
    size = [side * patch_size for side in grid]
    return F.fold(tokens.transpose(1, 2), size, patch_size, stride=patch_size)


@wrong("unpatchify", "mirrored at its diagonal")
def unpatchify_patch_turned(tokens, grid, patch_size):
    h, w = grid
    x = tokens.reshape(len(tokens), h, w, patch_size, patch_size, -1)
    return torch.einsum("nhwpqc->nchqwp", x).reshape(len(tokens), -1, h * patch_size, w * patch_size)


@wrong("unpatchify", "column by column")
def unpatchify_columns_first(tokens, grid, patch_size):
    h, w = grid
    x = tokens.reshape(len(tokens), w, h, patch_size, patch_size, -1)
    return torch.einsum("nwhpqc->nchpwq", x).reshape(len(tokens), -1, h * patch_size, w * patch_size)


@wrong("unpatchify", "rows and columns are exchanged")
def unpatchify_grid_exchanged(tokens, grid, patch_size):
    return unpatchify_einsum(tokens, (grid[1], grid[0]), patch_size)


@wrong("unpatchify", "grid is taken as a square")
def unpatchify_official_square(tokens, grid, patch_size):
    side = int(tokens.shape[1] ** 0.5)
    assert side * side == tokens.shape[1]
    return unpatchify_einsum(tokens, (side, side), patch_size)


@wrong("unpatchify", "grid is taken as a square")
def unpatchify_root_of_tokens(tokens, grid, patch_size):
    h = w = int(tokens.shape[1] ** 0.5)
    return rearrange(tokens, "n (h w) (p q c) -> n c (h p) (w q)", h=h, w=w, p=patch_size, q=patch_size)


@wrong("unpatchify", "root of the number of tokens")
def unpatchify_rows_by_root(tokens, grid, patch_size):
    h = int(tokens.shape[1] ** 0.5)
    return rearrange(tokens, "n (h w) (p q c) -> n c (h p) (w q)", h=h, p=patch_size, q=patch_size)


@wrong("unpatchify", "spread over the whole image")
def unpatchify_spread(tokens, grid, patch_size):
    h, w = grid
    return rearrange(tokens, "n (h w) (p q c) -> n c (p h) (q w)", h=h, w=w, p=patch_size, q=patch_size)


@wrong("unpatchify", "keep their order")
def unpatchify_strips(tokens, grid, patch_size):
    (h, w), p = grid, patch_size
    x = tokens.reshape(len(tokens), h, w, p, p, -1).permute(0, 5, 1, 2, 3, 4)
    return x.reshape(len(tokens), -1, h * p, w * p)


@wrong("unpatchify", "from between row and column")
def unpatchify_channel_between(tokens, grid, patch_size):
    (h, w), p = grid, patch_size
    x = tokens.reshape(len(tokens), h, w, p, -1, p).permute(0, 4, 1, 3, 2, 5)
    return x.reshape(len(tokens), -1, h * p, w * p)


# ---- conv_to_linear


@right("conv_to_linear")
def conv_to_linear_permute(weight):
    return weight.permute(0, 2, 3, 1).flatten(1)


@right("conv_to_linear")
def conv_to_linear_probe(weight):
    d, c, p, _ = weight.shape
    basis = torch.eye(p * p * c, dtype=weight.dtype).reshape(-1, p, p, c).permute(0, 3, 1, 2)
    return F.conv2d(basis, weight)[:, :, 0, 0].T


@wrong("conv_to_linear", "channel slowest")
def conv_to_linear_flatten(weight):
    return weight.reshape(weight.shape[0], -1)


@wrong("conv_to_linear", "Rows and columns of the patch are exchanged")
def conv_to_linear_turned(weight):
    return weight.permute(0, 3, 2, 1).flatten(1)


@wrong("conv_to_linear", "transposed")
def conv_to_linear_transposed(weight):
    return conv_to_linear_permute(weight).T


@wrong("conv_to_linear", "mix")
def conv_to_linear_channels_last_view(weight):
    return weight.permute(2, 3, 1, 0).reshape(weight.shape[0], -1)


@wrong("conv_to_linear", "between row and column")
def conv_to_linear_channel_between(weight):
    return rearrange(weight, "d c p q -> d (p c q)")


@wrong("conv_to_linear", "turned around")
def conv_to_linear_flipped(weight):
    return weight.flip(-1).flip(-2).permute(0, 2, 3, 1).flatten(1)


@wrong("conv_to_linear", "Outputs and channels are exchanged")
def conv_to_linear_by_channel(weight):
    return weight.permute(1, 2, 3, 0).flatten(1)


# ---- undo_cut


@right("undo_cut")
def undo_cut_assign(cut, tokens, shape):
    size = math.prod(shape)
    origin = cut(torch.arange(size, dtype=torch.float64).view(1, *shape)).flatten().long()
    images = torch.empty(len(tokens), size, dtype=tokens.dtype)
    images[:, origin] = tokens.flatten(1)
    return images.view(len(tokens), *shape)


@right("undo_cut")
def undo_cut_argsort(cut, tokens, shape):
    order = cut(torch.arange(math.prod(shape)).reshape(1, *shape)).flatten().argsort()
    return tokens.flatten(1)[:, order].unflatten(1, shape)


@right("undo_cut")
def undo_cut_gradient(cut, tokens, shape):
    images = torch.zeros(len(tokens), *shape, dtype=tokens.dtype, requires_grad=True)
    cut(images).backward(tokens)
    return images.grad


@right("undo_cut")
def undo_cut_matrix(cut, tokens, shape):
    size = math.prod(shape)
    basis = torch.eye(size, dtype=tokens.dtype).view(size, *shape)
    return (tokens.flatten(1) @ cut(basis).flatten(1).T).view(-1, *shape)


@right("undo_cut")
def undo_cut_whole_batch(cut, tokens, shape):
    numbers = torch.arange(tokens.numel()).view(len(tokens), *shape)
    images = torch.zeros_like(tokens).flatten()
    images[cut(numbers).flatten()] = tokens.flatten()
    return images.view(numbers.shape)


@right("undo_cut")
def undo_cut_loop(cut, tokens, shape):
    origin = cut(torch.arange(math.prod(shape)).float().view(1, *shape))[0]
    images = [[0.0] * math.prod(shape) for _ in tokens]
    for n, sequence in enumerate(tokens.tolist()):
        for places, values in zip(origin.tolist(), sequence):
            for place, value in zip(places, values):
                images[n][int(place)] = value
    return torch.tensor(images, dtype=tokens.dtype).view(-1, *shape)


@wrong("undo_cut", "applied a second time")
def undo_cut_forward_again(cut, tokens, shape):
    return cut(tokens.reshape(-1, *shape)).reshape(-1, *shape)


@wrong("undo_cut", "applied a second time")
def undo_cut_looks_up_origin(cut, tokens, shape):
    origin = cut(torch.arange(math.prod(shape)).view(1, *shape)).flatten()
    return tokens.flatten(1)[:, origin].view(-1, *shape)


@wrong("undo_cut", "only the shape has changed")
def undo_cut_reshape(cut, tokens, shape):
    return tokens.reshape(len(tokens), *shape)


@wrong("undo_cut", "order of our `patchify`; which order")
def undo_cut_unpatchify(cut, tokens, shape):
    channels, height, width = shape
    p = int((tokens.shape[2] / channels) ** 0.5)
    return unpatchify_einsum(tokens, (height // p, width // p), p)


@wrong("undo_cut", "for the order of our `patchify` and for no other")
def undo_cut_own_loops(cut, tokens, shape):
    channels, height, width = shape
    p = int((tokens.shape[2] / channels) ** 0.5)
    numbers = torch.arange(math.prod(shape)).view(1, *shape)
    if not torch.equal(cut(numbers), patchify_einops(numbers, p)):
        raise ValueError("another order")
    return unpatchify_einsum(tokens, (height // p, width // p), p)


@wrong("undo_cut", "together with the channel slowest")
def undo_cut_fold(cut, tokens, shape):
    return F.fold(tokens.mT, shape[1:], 2, stride=2)


@wrong("undo_cut", "if the channels of a pixel are neighbors")
def undo_cut_whole_pixels(cut, tokens, shape):
    channels, height, width = shape
    numbers = torch.arange(height * width).view(1, 1, height, width).expand(1, *shape)
    pixels = cut(numbers).flatten()[::channels]
    images = tokens.new_zeros(len(tokens), channels, height * width)
    images[:, :, pixels] = tokens.reshape(len(tokens), -1, channels).mT
    return images.view(-1, *shape)


@wrong("undo_cut", "All images of the result are the first one")
def undo_cut_first_for_all(cut, tokens, shape):
    return undo_cut_assign(cut, tokens[:1], shape).repeat(len(tokens), 1, 1, 1)


@wrong("undo_cut", "The images of the batch are added up")
def undo_cut_summed(cut, tokens, shape):
    images = torch.zeros(1, *shape, dtype=tokens.dtype, requires_grad=True)
    (cut(images) * tokens).sum().backward()
    return images.grad


@wrong("undo_cut", "There is one image in the result")
def undo_cut_one_image(cut, tokens, shape):
    return undo_cut_argsort(cut, tokens[:1], shape)


@wrong("undo_cut", "Height and width of the result are exchanged")
def undo_cut_tall(cut, tokens, shape):
    channels, height, width = shape
    return undo_cut_argsort(cut, tokens, shape).reshape(-1, channels, width, height)


@wrong("undo_cut", "as if the channels came last")
def undo_cut_channels_last(cut, tokens, shape):
    channels, height, width = shape
    flat = undo_cut_assign(cut, tokens, shape).flatten(1)
    return flat.view(-1, height, width, channels).permute(0, 3, 1, 2)


@wrong("undo_cut", "All numbers are 1")
def undo_cut_gradient_of_sum(cut, tokens, shape):
    images = torch.zeros(len(tokens), *shape, dtype=tokens.dtype, requires_grad=True)
    cut(images).sum().backward()
    return images.grad


@wrong("undo_cut", "divided by their count")
def undo_cut_gradient_of_mean(cut, tokens, shape):
    images = torch.zeros(len(tokens), *shape, dtype=tokens.dtype, requires_grad=True)
    (cut(images) * tokens).mean().backward()
    return images.grad


@wrong("undo_cut", "Only the order of the tokens is undone")
def undo_cut_tokens_only(cut, tokens, shape):
    first = cut(torch.arange(math.prod(shape)).view(1, *shape))[0, :, 0]
    return tokens[:, first.argsort()].reshape(-1, *shape)


@wrong("undo_cut", "so the channels are mixed up")
def undo_cut_counted_pixels(cut, tokens, shape):
    numbers = torch.arange(shape[1] * shape[2]).view(1, 1, *shape[1:]).repeat(1, shape[0], 1, 1)
    return tokens.flatten(1)[:, cut(numbers).flatten().argsort()].view(-1, *shape)


@wrong("undo_cut", "all is written into the first channel")
def undo_cut_counted_pixels_assigned(cut, tokens, shape):
    numbers = torch.arange(shape[1] * shape[2]).view(1, 1, *shape[1:]).expand(1, *shape)
    images = torch.zeros(len(tokens), math.prod(shape), dtype=tokens.dtype)
    images[:, cut(numbers).flatten()] = tokens.flatten(1)
    return images.view(-1, *shape)


def undo_cut_looked_up(cut, tokens, probe):
    """Take each number from where the probe image's number is found first."""
    after = cut(probe).flatten()
    places = [int((after == value).nonzero()[0]) for value in probe.flatten()]
    return tokens.flatten(1)[:, places].view(-1, *probe.shape[1:])


@wrong("undo_cut", "The probe image is rounded")
def undo_cut_rounded_probe(cut, tokens, shape):
    return undo_cut_looked_up(cut, tokens, torch.rand(1, *shape).round(decimals=2))


@wrong("undo_cut", "The probe image has random bytes")
def undo_cut_byte_probe(cut, tokens, shape):
    return undo_cut_looked_up(cut, tokens, torch.randint(256, (1, *shape)))


@wrong("undo_cut", "for small images and wrong for large ones")
def undo_cut_counts_in_bytes(cut, tokens, shape):
    origin = cut(torch.arange(math.prod(shape)).byte().view(1, *shape)).flatten().long()
    images = torch.zeros_like(tokens).flatten(1)
    images[:, origin] = tokens.flatten(1)
    return images.view(-1, *shape)


@wrong("undo_cut", "for small images and wrong for large ones")
def undo_cut_counts_in_bfloat16(cut, tokens, shape):
    order = cut(torch.arange(math.prod(shape)).bfloat16().view(1, *shape)).flatten().argsort()
    return tokens.flatten(1)[:, order].view(-1, *shape)


@wrong("undo_cut", "which rounds whole numbers above 2048")
def undo_cut_counts_in_their_dtype(cut, tokens, shape):
    numbers = torch.arange(math.prod(shape), dtype=tokens.dtype).view(1, *shape)
    return tokens.flatten(1)[:, cut(numbers).flatten().argsort()].view(-1, *shape)


@wrong("undo_cut", "wrong for those in float16: has the result their dtype?")
def undo_cut_in_float64(cut, tokens, shape):
    return undo_cut_argsort(cut, tokens.double(), shape)


@wrong("undo_cut", "These are the places of the numbers of one image")
def undo_cut_places_of_one(cut, tokens, shape):
    return cut(torch.arange(math.prod(shape)).view(1, *shape)).flatten().argsort().view(1, *shape)


@wrong("undo_cut", "These are the places of the numbers in the tokens")
def undo_cut_places(cut, tokens, shape):
    order = cut(torch.arange(math.prod(shape)).view(1, *shape)).flatten().argsort()
    return order.view(1, *shape).repeat(len(tokens), 1, 1, 1)


@wrong("undo_cut", "The images are still flat")
def undo_cut_flat(cut, tokens, shape):
    return undo_cut_assign(cut, tokens, shape).flatten(1)


@wrong("undo_cut", "torch.float32, but must be torch.float64")
def undo_cut_float32(cut, tokens, shape):
    return undo_cut_argsort(cut, tokens.float(), shape)


@wrong("undo_cut", "for one image and wrong for several")
def undo_cut_counts_on(cut, tokens, shape):
    origin = cut(torch.arange(tokens.numel()).view(-1, *shape)).flatten(1)
    images = torch.zeros_like(tokens).flatten(1)
    for image, places, values in zip(images, origin, tokens):
        image[places] = values.flatten()
    return images.view(-1, *shape)


@wrong("undo_cut", "Height and width are exchanged in the counting image")
def undo_cut_transposed(cut, tokens, shape):
    channels, width, height = shape
    order = cut(torch.arange(math.prod(shape)).view(1, channels, height, width)).flatten().argsort()
    return tokens.flatten(1)[:, order].view(-1, channels, height, width).transpose(2, 3)


@wrong("undo_cut", "It is right for square images")
def undo_cut_width_first(cut, tokens, shape):
    channels, width, height = shape
    order = cut(torch.arange(math.prod(shape)).view(1, channels, height, width)).flatten().argsort()
    return tokens.flatten(1)[:, order].view(-1, channels, height, width)


@wrong("undo_cut", "stopped with IndexError")
def undo_cut_one_channel(cut, tokens, shape):
    _, height, width = shape
    order = cut(torch.arange(height * width).view(1, 1, height, width)).flatten().argsort()
    return tokens.flatten(1)[:, order].view(-1, *shape)


@wrong("undo_cut", "one place too far, and the last one is lost")
def undo_cut_counts_from_one(cut, tokens, shape):
    size = math.prod(shape)
    order = cut(torch.arange(1, size + 1).view(1, *shape)).flatten()
    out = tokens.new_zeros(len(tokens), size + 1)
    out[:, order] = tokens.flatten(1)
    return out[:, :size].view(-1, *shape)


@wrong("undo_cut", "one place too far, and the last one comes first")
def undo_cut_counts_from_one_to_zero(cut, tokens, shape):
    size = math.prod(shape)
    order = cut(torch.arange(1, size + 1).view(1, *shape)).flatten() % size
    out = torch.empty_like(tokens.flatten(1))
    out[:, order] = tokens.flatten(1)
    return out.view(-1, *shape)


# ---- sincos_1d


@right("sincos_1d")
def sincos_1d_outer(positions, dim):
    omega = 1.0 / 10000 ** (torch.arange(dim // 2).double() / (dim / 2))
    out = torch.einsum("m,d->md", positions.double(), omega)
    return torch.cat([torch.sin(out), torch.cos(out)], 1)


@right("sincos_1d")
def sincos_1d_loops(positions, dim):
    table = torch.zeros(len(positions), dim)
    for i, x in enumerate(positions):
        for j in range(dim // 2):
            angle = float(x) * math.exp(-math.log(10000.0) * j / (dim // 2))
            table[i, j], table[i, j + dim // 2] = math.sin(angle), math.cos(angle)
    return table


@right("sincos_1d")
def sincos_1d_numpy_inside(positions, dim):
    omega = np.arange(dim // 2) / (dim / 2.0)
    angles = np.outer(positions.numpy().astype(np.float64), 1 / 10000**omega)
    return torch.from_numpy(np.concatenate([np.sin(angles), np.cos(angles)], axis=1))


@wrong("sincos_1d", "cosines come first")
def sincos_1d_cos_first(positions, dim):
    return sincos_1d_outer(positions, dim).roll(dim // 2, 1)


@wrong("sincos_1d", "alternate")
def sincos_1d_interleaved(positions, dim):
    table = torch.zeros(len(positions), dim, dtype=torch.float64)
    straight = sincos_1d_outer(positions, dim)
    table[:, 0::2], table[:, 1::2] = straight[:, : dim // 2], straight[:, dim // 2 :]
    return table


@wrong("sincos_1d", "one frequency too early")
def sincos_1d_linspace(positions, dim):
    omega = 10000 ** -torch.linspace(0, 1, dim // 2, dtype=torch.float64)
    angles = positions[:, None] * omega
    return torch.cat([angles.sin(), angles.cos()], -1)


@wrong("sincos_1d", "half as fast")
def sincos_1d_dim_for_half(positions, dim):
    omega = 10000 ** (-torch.arange(dim // 2).double() / dim)
    angles = positions[:, None] * omega
    return torch.cat([angles.sin(), angles.cos()], -1)


@wrong("sincos_1d", "twice as fast")
def sincos_1d_two_i(positions, dim):
    omega = 10000 ** (-2 * torch.arange(dim // 2).double() / (dim // 2))
    angles = positions[:, None] * omega
    return torch.cat([angles.sin(), angles.cos()], -1)


@wrong("sincos_1d", "become higher")
def sincos_1d_times(positions, dim):
    omega = 10000 ** (torch.arange(dim // 2).double() / (dim // 2))
    angles = positions[:, None] * omega
    return torch.cat([angles.sin(), angles.cos()], -1)


@wrong("sincos_1d", "2 pi too much")
def sincos_1d_turns(positions, dim):
    return sincos_1d_outer(2 * math.pi * positions.double(), dim)


@wrong("sincos_1d", "rounded to whole numbers")
def sincos_1d_whole_positions(positions, dim):
    return sincos_1d_outer(positions.long(), dim)


def _sines_then_cosines(positions, omega):
    angles = torch.outer(positions.double(), omega)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


@wrong("sincos_1d", "counted from 1")
def sincos_1d_from_one(positions, dim):
    i = torch.arange(1, dim // 2 + 1, dtype=torch.float64)
    return _sines_then_cosines(positions, 10000 ** (-i / (dim // 2)))


@wrong("sincos_1d", "Each of the dim channels")
def sincos_1d_all_channels(positions, dim):
    angles = positions.double()[:, None] / 10000 ** (torch.arange(dim, dtype=torch.float64) / dim)
    half = dim // 2
    return torch.cat([angles[:, :half].sin(), angles[:, half:].cos()], dim=1)


@wrong("sincos_1d", "counts the rows")
def sincos_1d_row_numbers(positions, dim):
    i = torch.arange(dim // 2, dtype=torch.float64)
    return _sines_then_cosines(torch.arange(len(positions)), 10000 ** (-2 * i / dim))


@wrong("sincos_1d", "reverse order")
def sincos_1d_reversed(positions, dim):
    i = torch.arange(dim // 2, dtype=torch.float64)
    return _sines_then_cosines(positions, (10000 ** (-2 * i / dim)).flip(0))


# ---- sincos_2d


@right("sincos_2d")
def sincos_2d_meshgrid(grid, dim):
    w, h = np.meshgrid(np.arange(grid[1]), np.arange(grid[0]))  # w goes first
    parts = [sincos_1d_numpy_inside(torch.from_numpy(a.reshape(-1)), dim // 2) for a in (w, h)]
    return torch.cat(parts, 1)


@right("sincos_2d")
def sincos_2d_repeat(grid, dim):
    column = repeat(sincos_1d_outer(torch.arange(grid[1]), dim // 2), "w d -> (h w) d", h=grid[0])
    row = repeat(sincos_1d_outer(torch.arange(grid[0]), dim // 2), "h d -> (h w) d", w=grid[1])
    return torch.cat([column, row], -1)


@right("sincos_2d")
def sincos_2d_divmod(grid, dim):
    k = torch.arange(grid[0] * grid[1])
    parts = [sincos_1d_outer(k % grid[1], dim // 2), sincos_1d_outer(k // grid[1], dim // 2)]
    return torch.hstack(parts).float()


@wrong("sincos_2d", "first half encodes the row")
def sincos_2d_row_first(grid, dim):
    k = torch.arange(grid[0] * grid[1])
    return torch.cat([sincos_1d_outer(k // grid[1], dim // 2), sincos_1d_outer(k % grid[1], dim // 2)], -1)


@wrong("sincos_2d", "column by column")
def sincos_2d_columns_first(grid, dim):
    lines = []
    for column in range(grid[1]):
        for row in range(grid[0]):
            halves = [sincos_1d_outer(torch.tensor([v]), dim // 2) for v in (column, row)]
            lines.append(torch.cat(halves, 1))
    return torch.cat(lines)


@wrong("sincos_2d", "added up")
def sincos_2d_sum(grid, dim):
    k = torch.arange(grid[0] * grid[1])
    return sincos_1d_outer(k % grid[1], dim) + sincos_1d_outer(k // grid[1], dim)


@wrong("sincos_2d", "twice as wide")
def sincos_2d_full_width(grid, dim):
    return sincos_2d_meshgrid(grid, 2 * dim)


@wrong("sincos_2d", "cosines come first")
def sincos_2d_cos_first(grid, dim):
    k = torch.arange(grid[0] * grid[1])
    parts = [sincos_1d_cos_first(axis, dim // 2) for axis in (k % grid[1], k // grid[1])]
    return torch.cat(parts, -1)


@wrong("sincos_2d", "index of the patch")
def sincos_2d_one_counter(grid, dim):
    return sincos_1d_outer(torch.arange(grid[0] * grid[1]), dim)


@wrong("sincos_2d", "right for square grids")
def sincos_2d_square(grid, dim):
    k = torch.arange(grid[0] * grid[1])
    parts = [sincos_1d_outer(k % grid[0], dim // 2), sincos_1d_outer(k // grid[0], dim // 2)]
    return torch.cat(parts, -1)


@wrong("sincos_2d", "sines and cosines in turn")
def sincos_2d_interleaved(grid, dim):
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    omega = 10000 ** (-torch.arange(dim // 4).double() / (dim // 4))
    halves = []
    for axis in (columns, rows):
        angles = axis.reshape(-1, 1) * omega
        halves.append(torch.stack([angles.sin(), angles.cos()], -1).flatten(1))
    return torch.cat(halves, -1)


@wrong("sincos_2d", "All sines come first, then all cosines")
def sincos_2d_sin_sin_cos_cos(grid, dim):
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    omega = 10000 ** (-torch.arange(dim // 4).double() / (dim // 4))
    across, down = columns.reshape(-1, 1) * omega, rows.reshape(-1, 1) * omega
    return torch.cat([across.sin(), down.sin(), across.cos(), down.cos()], -1)


@wrong("sincos_2d", "one frequency too early")
def sincos_2d_linspace(grid, dim):
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    omega = 10000 ** -torch.linspace(0, 1, dim // 4, dtype=torch.float64)
    parts = []
    for axis in (columns, rows):
        angles = axis.reshape(-1, 1) * omega
        parts += [angles.sin(), angles.cos()]
    return torch.cat(parts, -1)


@wrong("sincos_2d", "counted from 1")
def sincos_2d_from_one(grid, dim):
    rows, columns = torch.meshgrid(torch.arange(1, grid[0] + 1), torch.arange(1, grid[1] + 1), indexing="ij")
    omega = 10000 ** (-torch.arange(dim // 4).double() / (dim // 4))
    parts = []
    for axis in (columns, rows):
        angles = axis.reshape(-1, 1) * omega
        parts += [angles.sin(), angles.cos()]
    return torch.cat(parts, -1)


@wrong("sincos_2d", "frequencies are those of the whole width")
def sincos_2d_frequencies_of_dim(grid, dim):
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    omega = 10000 ** (-torch.arange(dim // 4).double() / (dim // 2))
    parts = []
    for axis in (columns, rows):
        angles = axis.reshape(-1, 1) * omega
        parts += [angles.sin(), angles.cos()]
    return torch.cat(parts, -1)


def _wave_table(rows, columns, dim, omega):
    halves = [torch.outer(axis.double(), omega) for axis in (columns, rows)]
    return torch.cat([part for angles in halves for part in (angles.sin(), angles.cos())], dim=-1)


@wrong("sincos_2d", "counted from 1, so that the first frequency")
def sincos_2d_channels_from_one(grid, dim):
    k = torch.arange(grid[0] * grid[1])
    i = torch.arange(1, dim // 4 + 1, dtype=torch.float64)
    return _wave_table(k // grid[1], k % grid[1], dim, 10000 ** (-i / (dim // 4)))


@wrong("sincos_2d", "from the bottom")
def sincos_2d_from_the_bottom(grid, dim):
    k = torch.arange(grid[0] * grid[1])
    i = torch.arange(dim // 4, dtype=torch.float64)
    rows = torch.arange(grid[0]).flip(0).repeat_interleave(grid[1])
    return _wave_table(rows, k % grid[1], dim, 10000 ** (-i / (dim // 4)))


@wrong("sincos_2d", "The second half encodes the index of the patch")
def sincos_2d_index_for_row(grid, dim):
    index = torch.arange(grid[0] * grid[1])
    return torch.cat([sincos_1d_outer(index % grid[1], dim // 2), sincos_1d_outer(index, dim // 2)], dim=1)


@wrong("sincos_2d", "The first half encodes the index of the patch")
def sincos_2d_index_for_column(grid, dim):
    index = torch.arange(grid[0] * grid[1])
    return torch.cat([sincos_1d_outer(index, dim // 2), sincos_1d_outer(index // grid[1], dim // 2)], dim=1)


# ---- shift_positions


def _angles(codes, steps):
    half = codes.shape[1] // 2
    return steps * 10000 ** (-torch.arange(half, dtype=torch.float64) / half)


@right("shift_positions")
def shift_by_complex_numbers(codes, steps):
    sines, cosines = codes.chunk(2, dim=-1)
    turned = torch.complex(cosines, sines) * torch.polar(torch.ones(()).double(), _angles(codes, steps))
    return torch.cat([turned.imag, turned.real], dim=-1)


@right("shift_positions")
def shift_by_a_matrix(codes, steps):
    a = _angles(codes, steps)
    top = torch.cat([torch.diag(a.cos()), torch.diag(a.sin())], dim=1)
    bottom = torch.cat([-torch.diag(a.sin()), torch.diag(a.cos())], dim=1)
    return codes @ torch.cat([top, bottom]).T


@wrong("shift_positions", "move the other way")
def shift_backwards(codes, steps):
    a = _angles(codes, steps)
    s, c = codes.chunk(2, dim=-1)
    return torch.cat([s * a.cos() - c * a.sin(), c * a.cos() + s * a.sin()], dim=-1)


@wrong("shift_positions", "is added")
def shift_by_adding(codes, steps):
    a = _angles(codes, steps)
    return codes + torch.cat([a.sin(), a.cos()])


@wrong("shift_positions", "multiplied entry by entry")
def shift_by_multiplying(codes, steps):
    a = _angles(codes, steps)
    return codes * torch.cat([a.sin(), a.cos()])


@wrong("shift_positions", "by the same angle")
def shift_all_alike(codes, steps):
    s, c = codes.chunk(2, dim=-1)
    return torch.cat(
        [s * math.cos(steps) + c * math.sin(steps), c * math.cos(steps) - s * math.sin(steps)], dim=-1
    )


@wrong("shift_positions", "next to its cosine")
def shift_interleaved(codes, steps):
    a = _angles(codes, steps)
    s, c = codes[:, 0::2], codes[:, 1::2]
    moved = torch.stack([s * a.cos() + c * a.sin(), c * a.cos() - s * a.sin()], dim=-1)
    return moved.flatten(1)


@wrong("shift_positions", "new sines are used")
def shift_in_a_row(codes, steps):
    a = _angles(codes, steps)
    s, c = codes.chunk(2, dim=-1)
    s = s * a.cos() + c * a.sin()
    c = c * a.cos() - s * a.sin()
    return torch.cat([s, c], dim=-1)


@wrong("shift_positions", "Only the sines are moved")
def shift_sines(codes, steps):
    a = _angles(codes, steps)
    s, c = codes.chunk(2, dim=-1)
    return torch.cat([s * a.cos() + c * a.sin(), c], dim=-1)


@wrong("shift_positions", "exchanged in the result")
def shift_exchanged(codes, steps):
    a = _angles(codes, steps)
    s, c = codes.chunk(2, dim=-1)
    return torch.cat([c * a.cos() - s * a.sin(), s * a.cos() + c * a.sin()], dim=-1)


@wrong("shift_positions", "recovered from one wave")
def shift_by_position(codes, steps):
    half = codes.shape[1] // 2
    k = torch.atan2(codes[:, 0], codes[:, half]) + steps
    a = torch.outer(k, 10000 ** (-torch.arange(half, dtype=torch.float64) / half))
    return torch.cat([a.sin(), a.cos()], dim=-1)


@wrong("shift_positions", "one frequency too early")
def shift_linspace(codes, steps):
    half = codes.shape[1] // 2
    a = steps * 10000 ** -torch.linspace(0, 1, half, dtype=torch.float64)
    s, c = codes.chunk(2, dim=-1)
    return torch.cat([s * a.cos() + c * a.sin(), c * a.cos() - s * a.sin()], dim=-1)


@wrong("shift_positions", "Nothing has moved")
def shift_nothing(codes, steps):
    return codes


def _angles_of_steps(codes, steps, divisor=None):
    half = codes.shape[1] // 2
    return steps * 10000 ** (-torch.arange(half, dtype=torch.float64) / (divisor or half))


@wrong("shift_positions", "a plus where the cosine")
def shift_positions_two_plus(codes, steps):
    a, (sines, cosines) = _angles_of_steps(codes, steps), codes.chunk(2, dim=-1)
    return torch.cat([sines * a.cos() + cosines * a.sin(), cosines * a.cos() + sines * a.sin()], dim=-1)


@wrong("shift_positions", "a minus where the sine")
def shift_positions_two_minus(codes, steps):
    a, (sines, cosines) = _angles_of_steps(codes, steps), codes.chunk(2, dim=-1)
    return torch.cat([sines * a.cos() - cosines * a.sin(), cosines * a.cos() - sines * a.sin()], dim=-1)


@wrong("shift_positions", "have changed places")
def shift_positions_sin_for_cos(codes, steps):
    a, (sines, cosines) = _angles_of_steps(codes, steps), codes.chunk(2, dim=-1)
    return torch.cat([sines * a.sin() + cosines * a.cos(), cosines * a.sin() - sines * a.cos()], dim=-1)


@wrong("shift_positions", "along the axis of the positions")
def shift_positions_roll(codes, steps):
    return torch.roll(codes, shifts=-int(steps), dims=0)


def _turned(codes, a):
    sines, cosines = codes.chunk(2, dim=-1)
    return torch.cat([sines * a.cos() + cosines * a.sin(), cosines * a.cos() - sines * a.sin()], dim=-1)


@wrong("shift_positions", "half as fast")
def shift_positions_slow(codes, steps):
    return _turned(codes, _angles_of_steps(codes, steps, codes.shape[1]))


@wrong("shift_positions", "twice as fast")
def shift_positions_fast(codes, steps):
    return _turned(codes, _angles_of_steps(codes, steps, codes.shape[1] / 4))


@wrong("shift_positions", "rounded to a whole number")
def shift_positions_whole_steps(codes, steps):
    return _turned(codes, _angles_of_steps(codes, int(steps)))


def _embedded(positions, dim):
    angles = torch.outer(positions, 10000 ** (-torch.arange(dim // 2, dtype=torch.float64) / (dim // 2)))
    return torch.cat([angles.sin(), angles.cos()], dim=1)


@wrong("shift_positions", "Even the slowest repeats")
def shift_positions_slowest(codes, steps):
    half = codes.shape[1] // 2
    angle = torch.atan2(codes[:, half - 1], codes[:, -1])
    return _embedded(angle * 10000 ** ((half - 1) / half) + steps, 2 * half)


@wrong("shift_positions", "as if none were below 0")
def shift_positions_slowest_modulo(codes, steps):
    half = codes.shape[1] // 2
    angle = torch.atan2(codes[:, half - 1], codes[:, -1]) % (2 * torch.pi)
    return _embedded(angle / 10000 ** (-(half - 1) / half) + steps, 2 * half)


@wrong("shift_positions", "the slowest cosine")
def shift_positions_slowest_acos(codes, steps):
    half = codes.shape[1] // 2
    return _embedded(codes[:, -1].acos() * 10000 ** ((half - 1) / half) + steps, 2 * half)


@wrong("shift_positions", "Even the slowest repeats")
def shift_positions_slowest_asin(codes, steps):
    half = codes.shape[1] // 2
    return _embedded(codes[:, half - 1].asin() * 10000 ** ((half - 1) / half) + steps, 2 * half)


@wrong("shift_positions", "from the first sine")
def shift_positions_first_asin(codes, steps):
    return _embedded(torch.asin(codes[:, 0].clamp(-1, 1)) + steps, codes.shape[1])


@wrong("shift_positions", "from the first cosine")
def shift_positions_first_acos(codes, steps):
    return _embedded(torch.acos(codes[:, codes.shape[1] // 2]) + steps, codes.shape[1])


@wrong("shift_positions", "from the sines alone")
def shift_positions_asin(codes, steps):
    angles = codes.chunk(2, dim=1)[0].asin() + _angles(codes, steps)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


@wrong("shift_positions", "from the cosines alone")
def shift_positions_acos(codes, steps):
    angles = codes.chunk(2, dim=1)[1].acos() + _angles(codes, steps)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


@wrong("shift_positions", "arc tangent of a quotient")
def shift_positions_atan(codes, steps):
    sines, cosines = codes.chunk(2, dim=1)
    angles = torch.atan(sines / cosines) + _angles(codes, steps)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


@right("shift_positions")
def shift_positions_atan2(codes, steps):
    angles = torch.atan2(*codes.chunk(2, dim=1)) + _angles(codes, steps)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


@wrong("shift_positions", "is taken for the cosines")
def shift_positions_cosines_first(codes, steps):
    a, (cosines, sines) = _angles(codes, steps), codes.chunk(2, dim=1)
    new_sines = sines * a.cos() + cosines * a.sin()
    return torch.cat([new_sines, cosines * a.cos() - sines * a.sin()], dim=1)


@wrong("shift_positions", "and forward; each row")
def shift_positions_roll_forward(codes, steps):
    return torch.roll(codes, int(steps), dims=0)


# ---- timestep_embedding


@right("timestep_embedding")
def timestep_embedding_float32(t, dim, max_period):
    half = dim // 2
    freqs = torch.exp(-math.log(max_period) * torch.arange(0, half, dtype=torch.float32) / half)
    args = t[:, None].float() * freqs[None]
    return torch.cat([torch.cos(args), torch.sin(args)], dim=-1)


@right("timestep_embedding")
def timestep_embedding_polar(t, dim, max_period):
    omega = torch.logspace(0, -1, dim // 2 + 1, base=max_period, dtype=torch.float64)[:-1]
    wave = torch.polar(torch.ones(1, dtype=torch.float64), t[:, None] * omega)
    return torch.cat([wave.real, wave.imag], -1)


@right("timestep_embedding")
def timestep_embedding_loops(t, dim, max_period):
    half = dim // 2
    columns = [torch.cos(t.double() * max_period ** (-i / half)) for i in range(half)]
    columns += [torch.sin(t.double() * max_period ** (-i / half)) for i in range(half)]
    return torch.stack(columns, 1)


@wrong("timestep_embedding", "sines come first")
def timestep_embedding_sin_first(t, dim, max_period):
    return timestep_embedding_float32(t, dim, max_period).roll(dim // 2, -1)


@wrong("timestep_embedding", "one frequency too early")
def timestep_embedding_127(t, dim, max_period):
    half = dim // 2
    freqs = torch.exp(-math.log(max_period) * torch.arange(half) / (half - 1))
    args = t[:, None] * freqs
    return torch.cat([args.cos(), args.sin()], -1)


@wrong("timestep_embedding", "squeezed into [0, 1]")
def timestep_embedding_unit_t(t, dim, max_period):
    return timestep_embedding_float32(t / 1000, dim, max_period)


@wrong("timestep_embedding", "alternate")
def timestep_embedding_interleaved(t, dim, max_period):
    cos, sin = timestep_embedding_loops(t, dim, max_period).chunk(2, -1)
    return torch.stack([cos, sin], -1).flatten(1)


@wrong("timestep_embedding", "half as fast")
def timestep_embedding_over_dim(t, dim, max_period):
    freqs = max_period ** (-torch.arange(dim // 2) / dim)
    args = t[:, None] * freqs
    return torch.cat([args.cos(), args.sin()], -1)


@wrong("timestep_embedding", "become higher")
def timestep_embedding_sign(t, dim, max_period):
    half = dim // 2
    freqs = torch.exp(math.log(max_period) * torch.arange(half, dtype=torch.float64) / half)
    args = t[:, None] * freqs
    return torch.cat([args.cos(), args.sin()], -1)


@wrong("timestep_embedding", "counted from 1")
def timestep_embedding_from_one(t, dim, max_period):
    return timestep_embedding_loops(t + 1, dim, max_period)


@wrong("timestep_embedding", "max_period is given, but not used")
def timestep_embedding_fixed_period(t, dim, max_period):
    return timestep_embedding_loops(t, dim, 10000)


@wrong("timestep_embedding", "All frequencies are 1")
def timestep_embedding_floor_division(t, dim, max_period):
    freqs = max_period ** -(torch.arange(dim // 2) // (dim // 2)).double()
    args = t[:, None] * freqs
    return torch.cat([args.cos(), args.sin()], -1)


@wrong("timestep_embedding", "rounded down to -1")
def timestep_embedding_floor_of_minus(t, dim, max_period):
    half = dim // 2
    freqs = torch.tensor([max_period ** (-i // half) for i in range(half)], dtype=torch.float64)
    args = t[:, None] * freqs
    return torch.cat([args.cos(), args.sin()], -1)


@wrong("timestep_embedding", "rounded down to whole numbers")
def timestep_embedding_floor_of_log(t, dim, max_period):
    half = dim // 2
    freqs = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float64) // half)
    args = t[:, None] * freqs
    return torch.cat([args.cos(), args.sin()], -1)


@wrong("timestep_embedding", "twice as fast")
def timestep_embedding_two_i(t, dim, max_period):
    freqs = max_period ** (-2 * torch.arange(dim // 2).double() / (dim // 2))
    args = t[:, None] * freqs
    return torch.cat([args.cos(), args.sin()], -1)


@wrong("timestep_embedding", "2 pi too much")
def timestep_embedding_turns(t, dim, max_period):
    freqs = max_period ** (-torch.arange(dim // 2).double() / (dim // 2))
    args = 2 * math.pi * t[:, None] * freqs
    return torch.cat([args.cos(), args.sin()], -1)


@wrong("timestep_embedding", "divided by an index")
def timestep_embedding_harmonics(t, dim, max_period):
    args = t[:, None].double() / torch.arange(1, dim // 2 + 1)
    return torch.cat([args.cos(), args.sin()], -1)


@wrong("timestep_embedding", "straight line")
def timestep_embedding_linspace(t, dim, max_period):
    args = t[:, None] * torch.linspace(1, 1 / max_period, dim // 2, dtype=torch.float64)
    return torch.cat([args.cos(), args.sin()], -1)


def _cosines_then_sines(t, omega):
    angles = t.double()[:, None] * omega
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


@wrong("timestep_embedding", "to the base 10")
def timestep_embedding_log10(t, dim, max_period):
    i = torch.arange(dim // 2, dtype=torch.float64)
    return _cosines_then_sines(t, torch.exp(-math.log10(max_period) * i / (dim // 2)))


@wrong("timestep_embedding", "The channels are counted from 1")
def timestep_embedding_channels_from_one(t, dim, max_period):
    i = torch.arange(1, dim // 2 + 1, dtype=torch.float64)
    return _cosines_then_sines(t, max_period ** (-2 * i / dim))


@wrong("timestep_embedding", "Each of the dim channels")
def timestep_embedding_all_channels(t, dim, max_period):
    angles = t.double()[:, None] / max_period ** (torch.arange(dim, dtype=torch.float64) / dim)
    return torch.cat([angles[:, : dim // 2].cos(), angles[:, dim // 2 :].sin()], dim=1)


@wrong("timestep_embedding", "reverse order")
def timestep_embedding_reversed(t, dim, max_period):
    i = torch.arange(dim // 2, dtype=torch.float64)
    return _cosines_then_sines(t, (max_period ** (-2 * i / dim)).flip(0))


@wrong("timestep_embedding", "divided by max_period, so that")
def timestep_embedding_over_period(t, dim, max_period):
    frequencies = max_period ** (-torch.arange(dim // 2) / (dim // 2))
    angles = (t / max_period)[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


# ---- label_dropout


@right("label_dropout")
def label_dropout_where(y, coins, dropout_prob, num_classes, training):
    if not training:
        return y
    return torch.where(coins < dropout_prob, num_classes, y)


@right("label_dropout")
def label_dropout_fill(y, coins, dropout_prob, num_classes, training):
    drop = (coins < dropout_prob) & training
    return y.masked_fill(drop, num_classes)


@right("label_dropout")
def label_dropout_loop(y, coins, dropout_prob, num_classes, training):
    labels = y.clone()
    for i in range(len(y)):
        if training and coins[i] < dropout_prob:
            labels[i] = num_classes
    return labels


@wrong("label_dropout", "0 is a real class")
def label_dropout_zero(y, coins, dropout_prob, num_classes, training):
    return y * ~((coins < dropout_prob) & training)


@wrong("label_dropout", "last real class")
def label_dropout_last_class(y, coins, dropout_prob, num_classes, training):
    return torch.where((coins < dropout_prob) & training, num_classes - 1, y)


@wrong("label_dropout", "no row -1")
def label_dropout_minus_one(y, coins, dropout_prob, num_classes, training):
    return y.masked_fill((coins < dropout_prob) & training, -1)


@wrong("label_dropout", "ImageNet only")
def label_dropout_imagenet(y, coins, dropout_prob, num_classes, training):
    return torch.where(coins < dropout_prob, 1000, y) if training else y


@wrong("label_dropout", "One random number decides")
def label_dropout_one_coin(y, coins, dropout_prob, num_classes, training):
    if training and coins[0] < dropout_prob:
        return torch.full_like(y, num_classes)
    return y


@wrong("label_dropout", "in eval mode too")
def label_dropout_always(y, coins, dropout_prob, num_classes, training):
    return torch.where(coins < dropout_prob, num_classes, y)


@wrong("label_dropout", "drops the labels that it should keep")
def label_dropout_inverted(y, coins, dropout_prob, num_classes, training):
    return torch.where(coins < dropout_prob, y, num_classes) if training else y


@wrong("label_dropout", "wrong way round")
def label_dropout_mode(y, coins, dropout_prob, num_classes, training):
    return y if training else torch.where(coins < dropout_prob, num_classes, y)


@wrong("label_dropout", "ever dropped")
def label_dropout_never(y, coins, dropout_prob, num_classes, training):
    return y


@wrong("label_dropout", "changes its input y")
def label_dropout_in_place(y, coins, dropout_prob, num_classes, training):
    if training:
        y[coins < dropout_prob] = num_classes
    return y


@wrong("label_dropout", "those above")
def label_dropout_greater(y, coins, dropout_prob, num_classes, training):
    return torch.where(coins > dropout_prob, num_classes, y) if training else y


@wrong("label_dropout", "only those below")
def label_dropout_or_equal(y, coins, dropout_prob, num_classes, training):
    return y.masked_fill((coins <= dropout_prob) & training, num_classes)


@wrong("label_dropout", "random numbers of its own")
def label_dropout_own_rand(y, coins, dropout_prob, num_classes, training):
    if not training:
        return y
    return torch.where(torch.rand(len(y)) < dropout_prob, num_classes, y)


@wrong("label_dropout", "random numbers of its own")
def label_dropout_bernoulli(y, coins, dropout_prob, num_classes, training):
    drop = torch.bernoulli(torch.full(y.shape, dropout_prob)).bool()
    return y.masked_fill(drop & training, num_classes)


@wrong("label_dropout", "random numbers of its own")
def label_dropout_numpy(y, coins, dropout_prob, num_classes, training):
    drop = torch.from_numpy(np.random.default_rng().random(len(y)) < dropout_prob)
    return torch.where(drop & training, num_classes, y)


@wrong("label_dropout", "row K + 1 does not exist")
def label_dropout_row_after(y, coins, dropout_prob, num_classes, training):
    return y.masked_fill((coins < dropout_prob) & training, num_classes + 1)


@wrong("label_dropout", "mean of the random numbers")
def label_dropout_mean(y, coins, dropout_prob, num_classes, training):
    return torch.where((coins.mean() < dropout_prob) & torch.tensor(training), num_classes, y)


@wrong("label_dropout", "all are; each image decides")
def label_dropout_any(y, coins, dropout_prob, num_classes, training):
    if training and (coins < dropout_prob).any():
        return torch.full_like(y, num_classes)
    return y


@wrong("label_dropout", "All labels are dropped")
def label_dropout_all(y, coins, dropout_prob, num_classes, training):
    return torch.full_like(y, num_classes) if training else y


@wrong("label_dropout", "plus K")
def label_dropout_added(y, coins, dropout_prob, num_classes, training):
    return y + num_classes * ((coins < dropout_prob) & training)


@wrong("label_dropout", "The first labels of the batch")
def label_dropout_first(y, uniform, dropout_prob, num_classes, training):
    y = y.clone()
    if training:
        y[: int(len(y) * dropout_prob)] = num_classes
    return y


@wrong("label_dropout", "A fixed number of labels")
def label_dropout_smallest(y, uniform, dropout_prob, num_classes, training):
    y = y.clone()
    if training:
        y[uniform.argsort()[: int(len(y) * dropout_prob)]] = num_classes
    return y


@wrong("label_dropout", "returns nothing in eval mode")
def label_dropout_return_in_training(y, uniform, dropout_prob, num_classes, training):
    if training:
        return torch.where(uniform < dropout_prob, num_classes, y)


@wrong("label_dropout", "returns nothing in eval mode")
def label_dropout_bare_return(y, uniform, dropout_prob, num_classes, training):
    if not training:
        return
    return y.masked_fill(uniform < dropout_prob, num_classes)


# ---- split_condition


@right("split_condition")
def split_condition_all_pairs(c, t_table, y_table):
    gaps = (c[:, None, None] - t_table[None, :, None] - y_table[None, None]).pow(2).sum(-1)
    best = gaps.flatten(1).argmin(1)
    return torch.unravel_index(best, gaps.shape[1:])


@right("split_condition")
def split_condition_by_label(c, t_table, y_table):
    per_label = torch.stack([torch.cdist(c - row, t_table) for row in y_table], 1)
    labels = per_label.amin(2).argmin(1)
    return per_label[torch.arange(len(c)), labels].argmin(1), labels


@wrong("split_condition", "without each other")
def split_condition_alone(c, t_table, y_table):
    return torch.cdist(c, t_table).argmin(1), torch.cdist(c, y_table).argmin(1)


@wrong("split_condition", "The timestep is searched first")
def split_condition_t_first(c, t_table, y_table):
    t = torch.cdist(c, t_table).argmin(1)
    return t, torch.cdist(c - t_table[t], y_table).argmin(1)


@wrong("split_condition", "The label is searched first")
def split_condition_y_first(c, t_table, y_table):
    y = torch.cdist(c, y_table).argmin(1)
    return torch.cdist(c - y_table[y], t_table).argmin(1), y


@wrong("split_condition", "largest dot product")
def split_condition_dot(c, t_table, y_table):
    sums = (t_table[:, None] + y_table[None]).reshape(-1, c.shape[1])
    best = (c @ sums.T).argmax(1)
    return best // len(y_table), best % len(y_table)


@wrong("split_condition", "largest cosine")
def split_condition_cosine(c, t_table, y_table):
    sums = (t_table[:, None] + y_table[None]).reshape(-1, c.shape[1])
    best = F.cosine_similarity(c[:, None], sums[None], dim=-1).argmax(1)
    return best // len(y_table), best % len(y_table)


@wrong("split_condition", "The farthest sum")
def split_condition_argmax(c, t_table, y_table):
    best = torch.cdist(c, (t_table[:, None] + y_table).flatten(0, 1)).argmax(1)
    return best // len(y_table), best % len(y_table)


@wrong("split_condition", "divided by the number of timesteps")
def split_condition_wrong_divisor(c, t_table, y_table):
    best = torch.cdist(c, (t_table[:, None] + y_table).flatten(0, 1)).argmin(1)
    return best // len(t_table), best % len(t_table)


@wrong("split_condition", "in the wrong order")
def split_condition_exchanged(c, t_table, y_table):
    t, y = split_condition_all_pairs(c, t_table, y_table)
    return y, t


@wrong("split_condition", "null class is never found")
def split_condition_no_null(c, t_table, y_table):
    return split_condition_all_pairs(c, t_table, y_table[:-1])


@wrong("split_condition", "counted from 1")
def split_condition_from_one(c, t_table, y_table):
    t, y = split_condition_all_pairs(c, t_table, y_table)
    return t + 1, y


@wrong("split_condition", "not their numbers")
def split_condition_rows(c, t_table, y_table):
    t, y = split_condition_all_pairs(c, t_table, y_table)
    return t_table[t], y_table[y]


@wrong("split_condition", "must be split into two")
def split_condition_one_index(c, t_table, y_table):
    best = torch.cdist(c, (t_table[:, None] + y_table).flatten(0, 1)).argmin(1)
    return best, best


@wrong("split_condition", "always finds the first row of both tables")
def split_condition_equal(c, t_table, y_table):
    sums = (t_table[:, None] + y_table).flatten(0, 1)
    index = (c[:, None] == sums).all(dim=-1).int().argmax(dim=1)
    return index // len(y_table), index % len(y_table)


@wrong("split_condition", "the timestep changes fastest")
def split_condition_other_table(c, t_table, y_table):
    sums = (y_table[:, None] + t_table).flatten(0, 1)
    index = torch.cdist(c, sums).argmin(dim=1)
    return index // len(y_table), index % len(y_table)
