"""Graders of latents: the encoding, undone; and the loop of a linear sampler, in closed form."""

import numpy as np
import torch

from dit_nb.teach.graders.latents import _toy_decode, _watch_generate


def test_the_encoding_can_be_undone(check_identity):
    """What is left of z / scale + shift, without the mean, is noise of the variance that was given."""

    def holds(fn, mean, log_variance, noise, scale, shift):
        std = (fn(mean, log_variance, noise, scale, shift) / scale + shift - mean) / noise
        return bool((std > 0).all()) and torch.allclose(2 * std.log(), log_variance, atol=1e-6)

    check_identity("to_latents", holds)


def test_a_linear_sampler_in_closed_form(check_identity):
    """The product of all factors times the noise, plus what each step adds, multiplied by all later factors."""

    def holds(fn, step, decode, z, y, num_steps, scale, shift):
        images, graph = _watch_generate(fn, step, decode, z, y, num_steps, scale, shift)
        fraction = np.array([(t + 1) / (t + 4) for t in range(num_steps)])
        factors = np.concatenate([[1.0], (0.75 + 0.5 * fraction).cumprod()])  # [t]: product of those below t
        added = 0.1 * ((1 - fraction) * factors[:-1]).sum()
        clean = factors[-1] * z + added * (y + 1).view(-1, 1, 1, 1)
        expected = _toy_decode(clean / scale + shift).clamp(-1, 1)
        return images.shape == expected.shape and torch.allclose(images, expected) and not graph

    check_identity("generate", holds)
