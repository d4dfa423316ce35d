"""All that a check needs to know: inputs to try, an oracle, mistakes, and other conventions."""

import hashlib
import inspect
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from typing import NamedTuple

import torch
from torch import Tensor


class Case(NamedTuple):
    "Inputs to try."

    label: str  # what they are, in a few words
    args: tuple
    note: str = ""  # what is wrong with a function that fails in such cases only


class Mistake(NamedTuple):
    "Something that people get wrong."

    says: str  # what is wrong, and the likely cause
    look: str  # where to look
    wrong: Callable  # gives what the mistake would give


def same(*args):
    "The arguments as they are."
    return args


class Variant(NamedTuple):
    "The same exercise in another convention."

    asks: str  # the convention in a few words: "this course asks for ..."
    says: str  # to students: what is different, exactly and completely
    solution: str  # Python source of a right answer, under the exercise's own name
    turn: Callable  # a function of the usual convention -> one of this; turns the oracle and the mistakes
    leave: tuple[str, ...] = ()  # words of named mistakes that are none here, or have no meaning
    keep: tuple[str, ...] = ()  # words of named mistakes that are not turned: they know no convention
    inputs: Callable = same  # *usual inputs -> inputs of this convention
    also: tuple[Mistake, ...] = ()  # mistakes of this convention
    parts: tuple[str, ...] = ()  # names of the results, if they are others


@dataclass(frozen=True)
class Exercise:
    "A function to write, and all that is needed to judge it."

    name: str
    oracle: Callable  # what is right; its arguments have the names that students see
    cases: Callable  # Draw -> list of `Case`
    mistakes: tuple[Mistake, ...]
    look: str  # where to look if no mistake has a name
    parts: tuple[str, ...] = ("result",)  # names of the results
    tolerance: float = 1e-9  # largest difference, relative to the largest number (or to 1)
    same_dtype: bool = False  # the result must have exactly the oracle's dtype
    probe: Callable | None = None  # (fn, *args) -> what to compare, if it is not simply fn(*args)
    in_place: bool = False  # the function may change its inputs
    reference: Callable | None = None  # a faster right answer, to go on with
    asks: str = ""  # the convention in a few words, if it is not the usual one

    def run(self, fn: Callable, args: tuple):
        "What is compared: the result of fn, or what a probe finds out about it."
        return fn(*args) if self.probe is None else self.probe(fn, *args)

    @property
    def variants(self) -> tuple[Variant, ...]:
        "Other conventions for the same exercise, if there are any."
        return conventions().get(self.name, ("", ()))[1]

    def variant(
        self,
        seed: int,  # of a course
    ) -> Variant:
        "One of the variants; exercises that belong together get those that fit each other."
        return self.variants[self.number(seed)]

    def number(self, seed: int) -> int:
        "Which of the variants a course gets."
        if not self.variants:
            raise ValueError(f"variant is {seed!r}, but {self.name} has no variants.")
        kin, variants = conventions()[self.name]
        return int(hashlib.sha256(f"{kin} {seed}".encode()).hexdigest(), 16) % len(variants)

    def varied(self, seed: int) -> "Exercise":
        "The exercise in the convention that a course gets."
        return in_convention(self, self.number(seed))


class Draw:
    "Random numbers for the cases of an exercise."

    def __init__(self, *seed):  # anything that can be printed
        self.generator = torch.Generator().manual_seed(zlib.crc32(repr(seed).encode()))

    def normal(self, *shape: int) -> Tensor:
        "Standard normal numbers, float64."
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        "Numbers between low and high, float64."
        return low + (high - low) * torch.rand(shape, generator=self.generator, dtype=torch.float64)

    def whole(self, low: int, high: int, *shape: int) -> Tensor:
        "Whole numbers from low to high - 1."
        return torch.randint(low, high, shape, generator=self.generator)

    def pick(self, *options):
        "One of them."
        return options[int(self.whole(0, len(options)))]


VARIANT_ROOMS = tuple(
    f"variants_{room}" for room in ("tokens", "attention", "modulation", "process", "loss", "steps")
)


@lru_cache(1)
def conventions() -> dict[str, tuple[str, tuple[Variant, ...]]]:
    "Exercise -> its kin, and its variants."
    rooms = [import_module(f"dit_nb.checks.{room}") for room in VARIANT_ROOMS]
    return {
        name: (kin, found)
        for room in rooms
        for kin, names in room.VARIANTS.items()
        for name, found in names.items()
    }


@lru_cache(256)
def in_convention(exercise: Exercise, number: int) -> Exercise:
    "The exercise as its variant has it. The first of its mistakes is the usual convention."
    variant = exercise.variants[number]

    def turned(fn):
        other = variant.turn(fn)
        other.__signature__ = inspect.signature(exercise.oracle)
        return other

    def cases(draw):
        return [case._replace(args=variant.inputs(*case.args)) for case in exercise.cases(draw)]

    says = f"This is the usual convention; this course asks for {variant.asks}."
    usual = Mistake(says, "the words of the exercise, where they speak of this course.", exercise.oracle)

    def among(words, mistake):
        return any(each in mistake.says for each in words)

    left = [m for m in exercise.mistakes if not among(variant.leave, m)]
    others = [m if among(variant.keep, m) else m._replace(wrong=turned(m.wrong)) for m in left]
    return replace(
        exercise,
        name=f"{exercise.name} (variant {number + 1})",
        oracle=turned(exercise.oracle),
        cases=cases,
        mistakes=(usual, *others, *variant.also),
        parts=variant.parts or exercise.parts,
        reference=written(variant.solution, exercise.name),
        asks=variant.asks,
    )


def written(source: str, name: str) -> Callable:
    "The function of this name that the source defines."
    space = {}
    exec(source, space)
    return space[name]
