"""What a check has to say: a sentence, where to look, and a small table; never the answer."""

from dataclasses import dataclass
from typing import NamedTuple

SPECIAL = set("\\`*_$|<>&[]~#")


def plain(text: str) -> str:
    "Text that Markdown shows as it is."
    return "".join(f"&#{ord(c)};" if c in SPECIAL else c for c in text)


class Row(NamedTuple):
    "How one case went. The numbers are sizes and distances; no line tells an answer."

    case: str
    expected: float | None  # mean size of the expected numbers
    got: float | None  # mean size of yours; None where there is nothing to compare
    difference: float | None  # the largest
    right: bool

    def cells(self) -> list[str]:
        "For a table."
        numbers = ["-" if n is None else f"{n:.3g}" for n in self[1:4]]
        return [plain(self.case), *numbers, "✓" if self.right else "✗"]


class NotPassed(AssertionError):
    "What `require` raises."

    def _render_traceback_(self) -> list[str]:
        "As Jupyter shows it: the sentence alone."
        return [str(self)]


@dataclass(frozen=True)
class Report:
    "What a check has to say."

    name: str  # the exercise, and the variant if there is one
    passed: bool
    points: float
    max_points: float
    reason: str  # one sentence
    hint: str = ""  # where to look
    table: tuple[Row, ...] = ()

    @property
    def difference(self) -> float | None:
        "The largest difference in all cases that could be compared."
        return max((row.difference for row in self.table if row.difference is not None), default=None)

    def row(self) -> dict:
        "A line of a gradebook; JSON can hold it."
        names = ("name", "passed", "points", "max_points", "reason", "hint")
        finite = self.difference is not None and self.difference < float("inf")
        return {**{n: getattr(self, n) for n in names}, "difference": self.difference if finite else None}

    def require(self) -> "Report":
        "Raise AssertionError, with the sentence, if the check did not pass; for graded cells."
        if not self.passed:
            raise NotPassed(str(self))
        return self

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        mark, score = "✓" if self.passed else "✗", f"{self.points:g} of {self.max_points:g}"
        look = f" Where to look: {self.hint}" if self.hint else ""
        return f"{mark} {self.name} ({score} points): {self.reason}{look}"

    def _repr_markdown_(self) -> str:
        "As Jupyter shows it."
        mark, score = "✓" if self.passed else "✗", f"{self.points:g} of {self.max_points:g} points"
        text = f"**{mark} {plain(self.name)}** · {score}\n\n{plain(self.reason)}\n"
        if self.passed:
            return text
        text += f"\n**Where to look:** {plain(self.hint)}\n" if self.hint else ""
        if self.difference is not None:
            text += f"\n**Largest difference:** {self.difference:.3g}\n"
        if self.table:
            lines = [["case", "size expected", "size of yours", "largest difference", ""], ["---"] * 5]
            lines += [row.cells() for row in self.table]
            text += "\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
        return text
