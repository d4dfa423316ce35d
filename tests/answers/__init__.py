"""Answers that students might give: right ones in several styles, and wrong ones with words of their message.

Each wrong answer is something that a person could write and believe to be right. `cd tests; python -m answers`
prints the result of every check.
"""

from collections import defaultdict

RIGHT, WRONG = (
    defaultdict(list),
    defaultdict(list),
)  # exercise -> answers; wrong ones with words of their message


def right(exercise):
    """Register a right answer."""

    def keep(fn):
        RIGHT[exercise].append(fn)
        return fn

    return keep


def wrong(exercise, words):
    """Register a wrong answer, and words that its message must contain."""

    def keep(fn):
        WRONG[exercise].append((fn, words))
        return fn

    return keep


from . import blocks, diffusion, model, practice, samplers, tokens, training  # noqa: E402, F401, I001  (they fill the registry)
from . import minidit, model_shapes, tour  # noqa: E402, F401, I001
from . import flow, guidance_today, meanflow, mmdit, modern_blocks, targets  # noqa: E402, F401, I001
from . import slips  # noqa: E402, F401  (last: tests use the first answers)
