"""Graders of the posterior: odds of two images, and the sum over classes."""

import torch


def test_odds_of_two_images_depend_on_their_distances(check_identity):
    """The log odds of any two images are linear in x_t, so they can be read off the images alone."""

    def holds(fn, x_t, alpha_bar, images):
        weights, bar = fn(x_t, alpha_bar, images), alpha_bar[:, None]
        if not torch.allclose(weights.sum(1), torch.ones_like(alpha_bar)):
            return False
        flat, noisy = images.flatten(1), x_t.flatten(1)
        # minus |x - a k|^2 / (2 s^2), without |x|^2: a x.k / s^2 - a^2 |k|^2 / (2 s^2)
        logs = (bar.sqrt() * (noisy @ flat.T) - bar * flat.square().sum(1) / 2) / (1 - bar)
        return torch.allclose(weights, (logs - logs.logsumexp(1, keepdim=True)).exp(), atol=1e-6)

    check_identity("posterior_weights", holds)


def test_a_class_of_copies_has_the_odds_of_their_number(check_identity):
    """If all images are equal, nothing is learned from x_t: a class has its frequency."""

    def holds(fn, x_t, alpha_bar, images, labels, num_classes):
        frequency = torch.bincount(labels, minlength=num_classes).double() / len(labels)
        same = fn(x_t, alpha_bar, images[:1].expand_as(images), labels, num_classes)
        if not torch.allclose(same, frequency.expand(len(x_t), num_classes)):
            return False
        one_each = fn(x_t, alpha_bar, images, torch.arange(len(images)), len(images))
        logs = torch.distributions.Normal(
            alpha_bar.sqrt().reshape(-1, 1, 1, 1, 1) * images, (1 - alpha_bar).sqrt().reshape(-1, 1, 1, 1, 1)
        ).log_prob(x_t[:, None])
        if not torch.allclose(one_each, logs.flatten(2).sum(2).softmax(1), atol=1e-6):
            return False
        merged = fn(x_t, alpha_bar, images, labels, num_classes)
        sums = torch.stack([one_each[:, labels == k].sum(1) for k in range(num_classes)], 1)
        return torch.allclose(merged, sums, atol=1e-6)

    check_identity("label_posterior", holds)
