"""Graders of the model's range: back to bytes, and one straight line for a batch of unknown range."""

import torch


def test_values_are_the_bytes_again(check_identity):
    """Rounding back gives the bytes; the ends are exact, in all images alike."""

    def holds(fn, images):
        x = fn(images)
        back = ((x.double() + 1) * 127.5).permute(0, 2, 3, 1)
        ends = fn(torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 2, 1).expand(1, 1, 2, images.shape[3]))
        return (back - images.double()).abs().max() < 1e-4 and ends.flatten(2)[0].double().sub(
            torch.tensor([-1.0, 1.0])
        ).abs().max() < 1e-6

    check_identity("to_model_range", holds)


def test_a_batch_of_unknown_range_is_changed_by_one_of_three_lines(check_identity):
    """The slope is that of one of the ranges, the same for all numbers, and black and white become -1 and 1."""

    def holds(fn, images):
        x = fn(images)
        slope = (x.max() - x.min()) / (images.max() - images.min())
        known = min(abs(slope - s) for s in (2.0, 1.0, 2 / 255))
        line = x.min() + slope * (images - images.min())
        ends = max(abs(x.min() + 1), abs(x.max() - 1))
        return known < 1e-12 and torch.allclose(x, line, rtol=0, atol=1e-9) and ends <= 0.04

    check_identity("normalize_range", holds)
