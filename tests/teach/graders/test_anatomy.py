"""Grader of mean ablation: images that are all alike do not notice it, and the model is left as it was."""

import torch

from dit_nb.teach.graders.anatomy import _Fails, _Stream
from dit_nb.teach.graders.framework.core import reference_solution
from support import relative


def lets_errors_through(fn, model, layer, x):
    """Whether the function raises the error of a model that fails."""
    parts = [part for part in model.modules() if isinstance(part, _Fails)]
    for part in parts:
        part.broken = True
    try:
        fn(model, layer, x)
        return not parts
    except RuntimeError:
        return True
    finally:
        for part in parts:
            part.broken = False


def test_equal_images_do_not_notice(check_identity):
    def holds(fn, model, layer, x):
        before, same = model(x), x[:1].expand_as(x)
        hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
        kept = []
        with layer.register_forward_hook(lambda m, args, out: kept.append(out.detach().clone())):
            model(x)
        out, of_same = fn(model, layer, x), fn(model, layer, same)
        after = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
        if hooks != after or relative(model(x), before) > 1e-9:
            return False
        with (
            torch.no_grad(),
            layer.register_forward_hook(lambda m, args, o: torch.stack([kept[0].mean(0)] * len(x))),
        ):
            expected = model(x)
        if not lets_errors_through(fn, model, layer, x):
            return False
        return relative(out, expected) < 1e-9 and relative(of_same, model(same)) < 1e-9

    check_identity("mean_ablation", holds)


def test_the_reference_removes_its_hook_after_an_error():
    fails = _Fails()
    model = _Stream(torch.nn.Linear(3, 3), fails)
    fails.broken = True
    try:
        reference_solution("mean_ablation")(model, model.parts[0], torch.ones(2, 1, 3))
    except RuntimeError:
        pass
    assert not model.parts[0]._forward_hooks
