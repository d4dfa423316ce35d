"""Grader of in-context conditioning: condition tokens are tokens like all others, until they are removed."""

import torch

from dit_nb.teach.graders.framework.core import all_exercises, reference_solution
from support import relative


def test_condition_tokens_change_places_with_image_tokens(check_identity):
    """Blocks that treat all tokens alike give the other tokens the same results."""

    def holds(fn, x, c, blocks):
        out = fn(x, c, blocks)
        exchanged = fn(torch.cat([c, x[:, 2:]], 1), x[:, :2], blocks)
        return out.shape == x.shape and relative(out[:, 2:], exchanged[:, 2:]) < 1e-9

    check_identity("in_context", lambda fn, x, c, blocks: x.shape[1] == 2 or holds(fn, x, c, blocks))


def test_without_blocks_the_image_tokens_come_back():
    x, c = torch.randn(2, 5, 3), torch.randn(2, 2, 3)
    for fn in (all_exercises()["in_context"].oracle, reference_solution("in_context")):
        assert torch.equal(fn(x, c, []), x)
