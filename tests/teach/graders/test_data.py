"""Grader of the model's range: back to bytes."""

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
