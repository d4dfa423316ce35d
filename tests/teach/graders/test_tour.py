"""Grader of two labels: equal labels change nothing, and no label reaches the other half."""

import torch

from dit_nb.teach.graders.framework.exercise import RandomInputs
from dit_nb.teach.graders.tour import _TWO_LABELS
from support import relative


def test_equal_labels_give_the_model_and_no_label_reaches_the_other_half(check_identity):
    def holds(fn, model, x, t, top, bottom):
        half = x.shape[2] // 2
        out, above, below = (fn(model, x, t, *pair) for pair in ((top, bottom), (top, top), (bottom, bottom)))
        own = relative(above, model(x, t, top)) + relative(below, model(x, t, bottom))
        upper = relative(out[:, :, :half], above[:, :, :half])
        return own + upper + relative(out[:, :, half:], below[:, :, half:]) < 1e-12

    check_identity("two_labels", holds)


def influence(model, x, t, y):
    """Derivative of each output number by each pixel: (2C, H, W, 1, C, H, W) for one image."""
    return torch.autograd.functional.jacobian(lambda image: model(image, t, y)[0], x)


def test_each_number_of_the_toy_depends_on_the_whole_image_on_t_and_on_y():
    for case in _TWO_LABELS.cases(RandomInputs("two_labels", 0)):
        model, x, t, top, bottom = case.args
        assert not {*top.tolist()} & {*bottom.tolist()} and len(set(t.tolist())) == len(x)
        assert influence(model, x[:1], t[:1], top[:1]).abs().min() > 0
        for other in (model(x, t, bottom), model(x, t + 100, top)):
            assert (other - model(x, t, top)).abs().min() > 0
