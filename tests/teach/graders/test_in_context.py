"""Graders of in-context conditioning: condition tokens are tokens like all others; a mask that cuts off the label."""

import functools

import torch

from dit_nb.teach.graders.framework.core import all_exercises, reference_solution
from support import relative


def test_condition_tokens_change_places_with_image_tokens(check_identity):
    """Blocks that treat all tokens alike give the other tokens the same results."""

    def exchange(fn, x, c, blocks):
        out = fn(x, c, blocks)
        exchanged = fn(torch.cat([c, x[:, 2:]], 1), x[:, :2], blocks)
        return out.shape == x.shape and relative(out[:, 2:], exchanged[:, 2:]) < 1e-9

    def compose(fn, x, c, blocks):
        """All blocks are one block, their composition; and a block that doubles all tokens doubles the result."""
        chain = [lambda tokens: functools.reduce(lambda s, block: block(s), blocks, tokens)]
        doubled = fn(x, c, [*blocks, lambda tokens: 2 * tokens])
        out = fn(x, c, blocks)
        return relative(fn(x, c, chain), out) < 1e-9 and relative(doubled, 2 * out) < 1e-9

    def holds(fn, x, c, blocks):
        return compose(fn, x, c, blocks) and (x.shape[1] == 2 or exchange(fn, x, c, blocks))

    check_identity("in_context", holds)


def test_without_blocks_the_image_tokens_come_back():
    x, c = torch.randn(2, 5, 3), torch.randn(2, 2, 3)
    for fn in (all_exercises()["in_context"].oracle, reference_solution("in_context")):
        assert torch.equal(fn(x, c, []), x)


def depends_on(mask, blocks):
    """Which tokens may depend on which, through any number of blocks with residual streams."""
    one = mask.double() + torch.eye(len(mask), dtype=torch.float64)
    return torch.linalg.matrix_power(one, blocks) > 0


def test_the_mask_cuts_off_the_label_and_nothing_else(check_identity):
    def holds(fn, T):
        mask = fn(T)
        after = depends_on(mask, 4)
        cut_off = not after[: T + 1, T + 1].any()
        rest = bool(after[:, : T + 1].all() and after[T + 1].all())
        for i, j in (~mask).nonzero().tolist():  # each closed entry is needed
            opened = mask.clone()
            opened[i, j] = True
            cut_off = cut_off and bool(depends_on(opened, 4)[:T, T + 1].any())
        return cut_off and rest

    check_identity("label_mask", holds)


def test_a_mask_for_the_image_alone_leaks():
    mask = torch.ones(6, 6, dtype=torch.bool)
    mask[:4, 5] = False
    assert not depends_on(mask, 1)[:4, 5].any() and depends_on(mask, 2)[:4, 5].all()
