"""Graders of lesson 20: encoding with scale and shift, and sampling through an autoencoder."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dit_nb.teach.graders.framework.core import grade
from dit_nb.teach.graders.framework.exercise import Case, Exercise, RandomInputs
from dit_nb.teach.graders.framework.report import Report

__all__ = ["check_to_latents", "check_generate"]


def _latents_by_hand(mean: Tensor, log_variance: Tensor, noise: Tensor, scale: float, shift: float) -> Tensor:
    """Number by number."""
    numbers = zip(*(part.flatten().tolist() for part in (mean, log_variance, noise)))
    latents = [scale * (m - shift + math.sqrt(math.exp(v)) * e) for m, v, e in numbers]
    return torch.tensor(latents, dtype=mean.dtype).view_as(mean)


def _posterior_cases(rng: RandomInputs) -> list[Case]:
    """The scale of Stable Diffusion, with no shift; a shift; a scale above 1 and a negative shift."""
    settings = [(0.18215, 0.0), (rng.choice(0.3, 0.4), 1.2), (1.5, -0.7)]
    cases = []
    for (scale, shift), n in zip(settings, (2, 1, 3)):
        shape = n, 4, 2, 3
        args = rng.normal(*shape), rng.uniform(-3, 1, *shape), rng.normal(*shape), scale, shift
        cases.append(Case(f"scale {scale}, shift {shift}, N = {n}", args))
    return cases


def _encode(
    std: Callable = lambda v: (v / 2).exp(),
    scaled: Callable = lambda z, scale, shift: (z - shift) * scale,
    noise_of: Callable = lambda e: e,
) -> Callable:
    """The encoding with another standard deviation, scaling or noise."""
    return lambda mean, log_variance, noise, scale, shift: scaled(
        mean + std(log_variance) * noise_of(noise), scale, shift
    )


_CODEC_HINT = "lesson 20, 'How wide they are'."
_POSTERIOR_HINT = "lesson 20, 'An autoencoder of our own': the posterior."

_TO_LATENTS = Exercise(
    "to_latents",
    _latents_by_hand,
    _posterior_cases,
    {
        "The shift is subtracted after scaling; it belongs to the raw latents, so subtract it first.": (
            _encode(scaled=lambda z, scale, shift: z * scale - shift),
            _CODEC_HINT,
        ),
        "The shift is added; encoding subtracts it, and decoding adds it again.": (
            _encode(scaled=lambda z, scale, shift: (z + shift) * scale),
            _CODEC_HINT,
        ),
        "The latents are divided by the scale; encoding multiplies, and decoding divides.": (
            _encode(scaled=lambda z, scale, shift: (z - shift) / scale),
            _CODEC_HINT,
        ),
        "The shift is given, but not used.": (_encode(scaled=lambda z, scale, shift: z * scale), _CODEC_HINT),
        "The scale is forgotten: to the model these latents have the wrong width.": (
            _encode(scaled=lambda z, scale, shift: z - shift),
            "lesson 20, 'A forgotten scale'.",
        ),
        "The scale is applied twice.": (
            _encode(scaled=lambda z, scale, shift: (z - shift) * scale**2),
            "lesson 20, 'A forgotten scale'.",
        ),
        "The mean is scaled, but not the noise: sample first, then scale.": lambda m, v, e, scale, shift: (
            (m - shift) * scale + (v / 2).exp() * e
        ),
        "The shift is subtracted from the noise, too; it must be subtracted once.": lambda m, v, e, scale, shift: (
            (m - shift + (v / 2).exp() * (e - shift)) * scale
        ),
        "The variance is used instead of the standard deviation.": (_encode(torch.exp), _POSTERIOR_HINT),
        "The logarithm of the variance is used instead of the standard deviation.": (
            _encode(lambda v: v),
            _POSTERIOR_HINT,
        ),
        "The root of the logarithm is taken; first undo the logarithm, then take the root.": (
            _encode(torch.sqrt),
            _POSTERIOR_HINT,
        ),
        "The mean is returned, not a sample: the noise is not used.": (
            _encode(lambda v: 0 * v),
            _POSTERIOR_HINT,
        ),
        "The given noise is not used: it takes its own random numbers.": (
            _encode(noise_of=torch.randn_like),
            "the argument noise.",
        ),
        "The noise is added to the standard deviation; it must be multiplied by it.": (
            lambda m, v, e, scale, shift: (m + (v / 2).exp() + e - shift) * scale,
            _POSTERIOR_HINT,
        ),
        "The mean is multiplied by the standard deviation, too; only the noise is.": (
            lambda m, v, e, scale, shift: ((m + e) * (v / 2).exp() - shift) * scale,
            _POSTERIOR_HINT,
        ),
        "The noise has variance 1: the log variance is not used.": (
            _encode(torch.ones_like),
            _POSTERIOR_HINT,
        ),
        "The half is outside of exp: the variance is halved, where its root is needed.": (
            _encode(lambda v: v.exp() / 2),
            _POSTERIOR_HINT,
        ),
        "The sign of the logarithm is wrong: this is one over the standard deviation.": (
            _encode(lambda v: (-v / 2).exp()),
            _POSTERIOR_HINT,
        ),
        "The logarithm is doubled instead of halved.": (_encode(lambda v: (2 * v).exp()), _POSTERIOR_HINT),
        "The noise is subtracted; it is added.": (_encode(lambda v: -(v / 2).exp()), _POSTERIOR_HINT),
        "This is the way out: the scale divides, and the shift is added.": (
            _encode(scaled=lambda z, scale, shift: z / scale + shift),
            _CODEC_HINT,
        ),
        "The latents are multiplied by the scale, but then the shift is added: encoding subtracts it first.": (
            _encode(scaled=lambda z, scale, shift: z * scale + shift),
            _CODEC_HINT,
        ),
        "The noise alone is scaled: sample first, then scale the sum.": lambda m, v, e, scale, shift: (
            m - shift + scale * (v / 2).exp() * e
        ),
        "The mean is scaled and shifted after it, and the noise is not scaled: sample first, then subtract and scale.": (
            lambda m, v, e, scale, shift: m * scale - shift + (v / 2).exp() * e,
            _CODEC_HINT,
        ),
        "The noise is scaled twice: sample first, then scale the sum once.": (
            lambda m, v, e, scale, shift: (m + scale * (v / 2).exp() * e - shift) * scale,
            _CODEC_HINT,
        ),
        "The scale comes before and after the shift; it belongs after it, once.": (
            lambda m, v, e, scale, shift: ((m + (v / 2).exp() * e) * scale - shift) * scale,
            _CODEC_HINT,
        ),
        "The logarithm of the standard deviation is used instead of the standard deviation.": (
            lambda m, v, e, scale, shift: (m + v / 2 * e - shift) * scale,
            _POSTERIOR_HINT,
        ),
        "The mean multiplies the noise; they are added.": (
            lambda m, v, e, scale, shift: (m * (1 + (v / 2).exp() * e) - shift) * scale,
            _POSTERIOR_HINT,
        ),
        "Mean and noise are exchanged: the noise is multiplied by the standard deviation.": (
            lambda m, v, e, scale, shift: (e + (v / 2).exp() * m - shift) * scale,
            _POSTERIOR_HINT,
        ),
        "The mean is missing: this is noise of the right width.": (
            lambda m, v, e, scale, shift: ((v / 2).exp() * e - shift) * scale,
            _POSTERIOR_HINT,
        ),
        "The standard deviation is a softplus of the logarithm; undo the logarithm of the variance.": (
            lambda m, v, e, scale, shift: (m + torch.nn.functional.softplus(v) * e - shift) * scale,
            _POSTERIOR_HINT,
        ),
        "The latents are clipped to [-1, 1]; only pixels are.": (
            lambda m, v, e, scale, shift: (m + (v / 2).exp() * e - shift).clamp(-1, 1) * scale,
            _CODEC_HINT,
        ),
        "The noise is added unscaled after the mean is encoded.": (
            lambda m, v, e, scale, shift: (m - shift) * scale + e,
            _POSTERIOR_HINT,
        ),
    },
    "lesson 20, 'The codec'.",
    reference=_encode(),
)


def check_to_latents(fn: Callable, **grade_options) -> Report:
    """Check fn(mean, log_variance, noise: each (N, C, h, w), scale, shift) -> scaled sample (N, C, h, w)."""
    return grade(_TO_LATENTS, fn, **grade_options)


_WEIGHT = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
_DECODER_WEIGHT = nn.Parameter(torch.tensor(0.25, dtype=torch.float64))


def _toy_step(z: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """A step of a sampler whose result depends on the order of the timesteps, and holds the graph of a weight."""
    if not isinstance(t, Tensor) or t.shape != (len(z),) or t.is_floating_point():
        kind = f"{t.dtype} of shape {tuple(t.shape)}" if isinstance(t, Tensor) else f"{t!r}"
        raise ValueError(f"t is {kind}, but must be integers of shape (N,), here ({len(z)},)")
    fraction = ((t + 1) / (t + 4)).view(-1, 1, 1, 1)
    label = y.view(-1, 1, 1, 1) + 1
    return z * (0.75 + _WEIGHT * fraction) + 0.1 * label * (1 - fraction)


def _toy_decode(z: Tensor) -> Tensor:
    """Latents (N, 4, h, w) to images (N, 3, 2h, 2w) that leave [-1, 1] here and there, and hold the graph of a weight."""
    images = torch.stack([z[:, 0] + z[:, 3], z[:, 1] - 0.5 * z[:, 3], z[:, 2] + _DECODER_WEIGHT], dim=1)
    return images.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def _generate_one_by_one(
    step: Callable, decode: Callable, z: Tensor, y: Tensor, num_steps: int, scale: float, shift: float
) -> Tensor:
    """Image by image, by recursion."""

    def clean(latent: Tensor, label: Tensor, t: int) -> Tensor:
        if t < 0:
            return latent
        return clean(step(latent, torch.full((1,), t), label), label, t - 1)

    with torch.no_grad():
        latents = [clean(z[i : i + 1], y[i : i + 1], num_steps - 1) for i in range(len(z))]
        return torch.cat([decode(latent / scale + shift).clamp(-1, 1) for latent in latents])


def _watch_generate(fn: Callable, *args):
    """Return the images, and a flag: 1 if latents hold a graph, plus 2 if the images do."""
    step, decode, *rest = args
    latents = []

    def watched(call: Callable) -> Callable:
        def watch(z, *others, **named):
            latents.append(getattr(z, "requires_grad", False))
            return call(z, *others, **named)

        return watch

    images = fn(watched(step), watched(decode), *rest)
    if not isinstance(images, Tensor):
        return images
    return images, torch.tensor(float(any(latents) + 2 * images.requires_grad))


def _generate_cases(rng: RandomInputs) -> list[Case]:
    cases = []
    for n, num_steps, scale, shift in [(2, 3, 0.8, 0.0), (3, 5, 2.0, 0.4), (1, rng.choice(4, 6), 1.6, -0.3)]:
        z, y = 0.7 * rng.normal(n, 4, 2, 3), rng.integers(0, 3, n)
        label = f"{num_steps} steps, scale {scale}, shift {shift}, N = {n}"
        cases.append(Case(label, (_toy_step, _toy_decode, z, y, num_steps, scale, shift)))
    return cases


def _generate(
    times: Callable = lambda n: range(n - 1, -1, -1),
    raw: Callable = lambda z, scale, shift: z / scale + shift,
    after_step: Callable = lambda z, start: z,
    images_of: Callable = lambda decode, z: decode(z).clamp(-1, 1),
    graph_of: str = "",
) -> Callable:
    """The loop with other timesteps, another way back to images, or gradients ("steps", "decoder", or both)."""

    def generate(step, decode, z, y, num_steps, scale, shift):
        with torch.set_grad_enabled("steps" in graph_of):
            start = z
            for t in times(num_steps):
                z = after_step(step(z, torch.full((len(z),), t), y), start)
        with torch.set_grad_enabled("decoder" in graph_of):
            return images_of(decode, raw(z, scale, shift))

    return generate


def _from_the_start(step, decode, z, y, num_steps, scale, shift):
    with torch.no_grad():
        last = step(z, torch.zeros(len(z), dtype=torch.long), y)
        return decode(last / scale + shift).clamp(-1, 1)


_LOOP_HINT = "lesson 20, 'A DiT on latents', and the loop of lesson 16, 'The right way'."

_GENERATE = Exercise(
    "generate",
    _generate_one_by_one,
    _generate_cases,
    {
        "The timesteps run upward; sampling starts with the noisiest and ends at 0.": (
            _generate(lambda n: range(n)),
            _LOOP_HINT,
        ),
        "The last step, t = 0, is missing.": (_generate(lambda n: range(n - 1, 0, -1)), "the end of range."),
        "The timesteps are counted from 1; here they run from num_steps - 1 to 0.": (
            _generate(lambda n: range(n, 0, -1)),
            "the start and the end of range.",
        ),
        "There is one step too many: the first must be num_steps - 1.": (
            _generate(lambda n: range(n, -1, -1)),
            "the start of range.",
        ),
        "The results of the steps are not kept: what is decoded is still the noise.": (
            _generate(after_step=lambda z, start: start),
            "what the loop does with the result of step.",
        ),
        "Every step starts from the noise again; it must start from the result of the step before.": (
            _from_the_start,
            "what the loop does with the result of step.",
        ),
        "The decoder receives scaled latents: undo the scale and the shift first.": (
            _generate(raw=lambda z, scale, shift: z),
            "lesson 20, 'The codec'.",
        ),
        "The latents are multiplied by the scale on the way back; they must be divided by it.": (
            _generate(raw=lambda z, scale, shift: z * scale + shift),
            "lesson 20, 'The codec'.",
        ),
        "The shift is subtracted on the way back; it must be added again.": (
            _generate(raw=lambda z, scale, shift: z / scale - shift),
            "lesson 20, 'The codec'.",
        ),
        "The shift is added before the scale is undone; undo them in the reverse order of encoding.": (
            _generate(raw=lambda z, scale, shift: (z + shift) / scale),
            "lesson 20, 'The codec'.",
        ),
        "The shift is given, but not used.": (
            _generate(raw=lambda z, scale, shift: z / scale),
            "lesson 20, 'The codec'.",
        ),
        "The scale is given, but not used.": (
            _generate(raw=lambda z, scale, shift: z + shift),
            "lesson 20, 'The codec'.",
        ),
        "Latents are encoded a second time on the way back: decoding is the inverse of encoding.": (
            _generate(raw=lambda z, scale, shift: (z - shift) * scale),
            "lesson 20, 'The codec'.",
        ),
        "The latents are clipped to [-1, 1] in the loop; that is for pixels only.": (
            _generate(after_step=lambda z, start: z.clamp(-1, 1)),
            "lesson 20, 'A DiT on latents': no clipping.",
        ),
        "The latents are clipped to [-1, 1] before decoding; clip the decoded images.": (
            _generate(raw=lambda z, scale, shift: (z / scale + shift).clamp(-1, 1)),
            "lesson 20, 'A DiT on latents': no clipping.",
        ),
        "The decoded images are not clipped to [-1, 1].": _generate(images_of=lambda decode, z: decode(z)),
        "The images are in [0, 1]; return them in [-1, 1].": _generate(
            images_of=lambda decode, z: (decode(z).clamp(-1, 1) + 1) / 2
        ),
        "The decoded images are clipped to [0, 1]; here images are in [-1, 1].": _generate(
            images_of=lambda decode, z: decode(z).clamp(0, 1)
        ),
        "The latents are returned; decode them to images.": (
            _generate(images_of=lambda decode, z: z),
            "the last step: from latents to images.",
        ),
        "The images hold the graph of all steps, and memory grows with each: sample without gradients.": (
            _generate(graph_of="steps, decoder"),
            "torch.no_grad.",
        ),
        "The images hold the graph of the decoder: decode without gradients, as the steps are.": (
            _generate(graph_of="decoder"),
            "where the block of torch.no_grad ends.",
        ),
        "The images hold no graph, but the steps do, and memory grows with each: sample without gradients.": (
            _generate(graph_of="steps"),
            "where the block of torch.no_grad begins.",
        ),
        "The latents are clipped to [-1, 1] before the scale is undone; clip the decoded images.": (
            _generate(raw=lambda z, scale, shift: z.clamp(-1, 1) / scale + shift),
            "lesson 20, 'The codec'.",
        ),
        "The clipping comes before decoding instead of after it.": (
            _generate(
                raw=lambda z, scale, shift: (z / scale + shift).clamp(-1, 1),
                images_of=lambda decode, z: decode(z),
            ),
            "lesson 20, 'The codec'.",
        ),
        "The latents are clipped before the scale is undone, and the images are not clipped.": (
            _generate(
                raw=lambda z, scale, shift: z.clamp(-1, 1) / scale + shift,
                images_of=lambda decode, z: decode(z),
            ),
            "lesson 20, 'The codec'.",
        ),
        "Scale and shift are undone twice.": (
            _generate(raw=lambda z, scale, shift: (z / scale + shift) / scale + shift),
            "lesson 20, 'The codec'.",
        ),
        "The images are divided by their largest number; clip them to [-1, 1].": (
            _generate(images_of=lambda decode, z: decode(z) / decode(z).abs().max()),
            "lesson 20, 'The codec'.",
        ),
        "The step receives label and timestep in the wrong order; it takes z, t, y.": (
            lambda step, decode, *rest: _generate()(lambda z, t, y: step(z, y, t), decode, *rest),
            _LOOP_HINT,
        ),
        "The images go through a tanh; clip them.": (
            _generate(images_of=lambda decode, z: decode(z).tanh()),
            "lesson 20, 'The codec'.",
        ),
        "Scale and shift are undone after every step; undo them once, after the last.": (
            lambda step, decode, z, y, n, scale, shift: _generate(raw=lambda z, *_: z)(
                lambda *a: step(*a) / scale + shift, decode, z, y, n, scale, shift
            ),
            "lesson 20, 'The codec'.",
        ),
        "Scale and shift are undone in the images; they belong to the latents, before decoding.": (
            lambda step, decode, z, y, n, scale, shift: _generate(raw=lambda z, *_: z)(
                step, lambda z: decode(z) / scale + shift, z, y, n, scale, shift
            ),
            "lesson 20, 'The codec'.",
        ),
        "Scale and shift are undone in the noise; undo them after the last step.": (
            lambda step, decode, z, y, n, scale, shift: _generate(raw=lambda z, *_: z)(
                step, decode, z / scale + shift, y, n, scale, shift
            ),
            "lesson 20, 'The codec'.",
        ),
        "The noise is scaled like an encoded image; the sampler starts at the noise as it is.": (
            lambda step, decode, z, y, n, scale, shift: _generate()(
                step, decode, (z - shift) * scale, y, n, scale, shift
            ),
            "lesson 20, 'The codec'.",
        ),
    },
    _LOOP_HINT,
    result_names=("batch of images", "flag whether the images hold a graph"),
    probe=_watch_generate,
    reference=_generate(),
)


def check_generate(fn: Callable, **grade_options) -> Report:
    """Check fn(step, decode, z (N, C, h, w), y (N,), num_steps, scale, shift) -> images (N, 3, H, W) in [-1, 1]."""
    return grade(_GENERATE, fn, **grade_options)
