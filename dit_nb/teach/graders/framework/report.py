"""Reports of graders: one sentence, where to look, and a small table; never the answer."""

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Report"]

_MARKUP = set("\\`*_$|<>&[]~#")


def _escape(text: str) -> str:
    """Escape text so that Markdown shows it as it is."""
    return "".join(f"&#{ord(c)};" if c in _MARKUP else c for c in text)


class _Row(NamedTuple):
    """Result of one case: magnitudes and differences, from which no answer can be read."""

    case: str  # label of the case
    expected: float | None  # mean magnitude of the expected numbers
    got: float | None  # mean magnitude of the student's numbers; None if nothing can be compared
    difference: float | None  # largest difference
    right: bool  # whether the case passed

    def cells(self) -> list[str]:
        """Return the cells of a line of the table."""
        numbers = ["-" if n is None else f"{n:.3g}" for n in self[1:4]]
        return [_escape(self.case), *numbers, "✓" if self.right else "✗"]


class _NotPassed(AssertionError):
    """Raised by `Report.require`."""

    def _render_traceback_(self) -> list[str]:
        """Return what Jupyter shows: the sentence alone."""
        return [str(self)]


@dataclass(frozen=True)
class Report:
    """Result of a check. It is true if the check passed, and Jupyter shows it as text with a table."""

    name: str  # name of the exercise
    passed: bool  # whether all cases are right
    points: float  # points earned
    max_points: float  # points of a right answer
    reason: str  # one sentence: what is wrong, or that all is right
    hint: str = ""  # where to look
    table: tuple[_Row, ...] = ()  # one row for each case

    @property
    def difference(self) -> float | None:
        """Largest difference in the cases that failed, or in all if none did; None if nothing can be compared."""
        rows = [row for row in self.table if not row.right] or self.table
        return max((row.difference for row in rows if row.difference is not None), default=None)

    def row(self) -> dict:
        """Return a row of a gradebook, without the table; JSON can hold it."""
        names = ("name", "passed", "points", "max_points", "reason", "hint")
        finite = self.difference is not None and self.difference < float("inf")
        return {**{n: getattr(self, n) for n in names}, "difference": self.difference if finite else None}

    def require(self) -> "Report":
        """Return the report if the check passed; for graded cells.

        Raises:
            AssertionError: if it did not pass
        """
        if not self.passed:
            raise _NotPassed(str(self))
        return self

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        mark, score = "✓" if self.passed else "✗", f"{self.points:g} of {self.max_points:g}"
        hint = f" Where to look: {self.hint}" if self.hint else ""
        return f"{mark} {self.name} ({score} points): {self.reason}{hint}"

    def _repr_markdown_(self) -> str:
        mark, score = "✓" if self.passed else "✗", f"{self.points:g} of {self.max_points:g} points"
        text = f"**{mark} {_escape(self.name)}** · {score}\n\n{_escape(self.reason)}\n"
        if self.passed:
            return text
        text += f"\n**Where to look:** {_escape(self.hint)}\n" if self.hint else ""
        if self.difference is not None:
            text += f"\n**Largest difference:** {self.difference:.3g}\n"
        if self.table:
            head = ["case", "typical value expected", "typical value of yours", "largest difference", ""]
            lines = [head, ["---"] * 5, *(row.cells() for row in self.table)]
            text += "\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
        return text
