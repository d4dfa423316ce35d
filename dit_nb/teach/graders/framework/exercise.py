"""Exercises: the cases that a grader tries, the function that knows the right results, and named mistakes."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Case", "Exercise", "RandomInputs"]


class Case(NamedTuple):
    """Inputs that a grader tries."""

    label: str  # short description of the inputs, shown in the report
    args: tuple  # positional arguments of the function
    note: str | tuple[str, ...] = (
        ""  # messages, each for a function that fails in all cases with it and no others
    )

    @property
    def notes(self) -> tuple[str, ...]:
        """All notes of the case."""
        notes = (self.note,) if isinstance(self.note, str) else self.note
        return tuple(note for note in notes if note)


class _Mistake(NamedTuple):
    """A known mistake: a function that makes it, and what to tell the student."""

    message: str  # what is wrong, and the likely cause
    function: Callable  # returns what the mistake would return
    hint: str = ""  # where to look; default: the exercise's hint


@dataclass(frozen=True, eq=False)
class Exercise:
    """A function to write, and all that is needed to grade it."""

    name: str  # name of the function
    oracle: Callable  # slow, independent right answer; its argument names are those that students use
    cases: Callable  # (`RandomInputs`) -> list of `Case`
    mistakes: dict[
        str, Callable | tuple[Callable, str]
    ]  # message -> function with the mistake, or it and a hint
    hint: str  # where to look if the mistake is not a known one
    result_names: tuple[str, ...] = ("result",)  # names of the returned tensors
    tolerance: float = 1e-9  # largest difference, relative to the largest expected number (at least 1)
    same_dtype: bool = False  # whether the result must have exactly the oracle's dtype
    edge_cases: Callable | None = None  # as `cases`; tried if all others are right, so each needs a note
    precisions: tuple[
        torch.dtype, ...
    ] = ()  # the result must have the input's precision; tried if all is right
    returns: str = ""  # what it must return, in words; default: a tensor, or the names of several
    half_points: tuple[
        str, ...
    ] = ()  # notes: a function that fails in these cases alone gets half of the points
    half_results: tuple[
        Callable, ...
    ] = ()  # results -> a part of them: a function with one of these right in all cases gets half of the points
    probe: Callable | None = None  # (function, *args) -> what is compared; default: function(*args)
    in_place: bool = False  # whether the function may change its inputs
    reference: Callable | None = None  # fast right answer; default: the oracle

    def known_mistakes(self) -> tuple[_Mistake, ...]:
        """Return the mistakes that get a message of their own."""
        pairs = {
            message: made if isinstance(made, tuple) else (made,) for message, made in self.mistakes.items()
        }
        return tuple(_Mistake(message, *made) for message, made in pairs.items())

    def run(self, fn: Callable, args: tuple):
        """Return what is compared: the result of `fn(*args)`, or what the probe measures."""
        return fn(*args) if self.probe is None else self.probe(fn, *args)


class RandomInputs:
    """Random numbers for the cases of an exercise; equal seeds give equal numbers."""

    def __init__(self, *seed):
        self.generator = torch.Generator().manual_seed(zlib.crc32(repr(seed).encode()))

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal numbers, float64."""
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Return uniform numbers from low to high, float64."""
        return low + (high - low) * torch.rand(shape, generator=self.generator, dtype=torch.float64)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Return integers from low to high - 1."""
        return torch.randint(low, high, shape, generator=self.generator)

    def choice(self, *options):
        """Return one of the options."""
        return options[int(self.integers(0, len(options)))]
