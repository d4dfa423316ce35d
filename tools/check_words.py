"""Fail on private words: the project says things as the field says them.

Usage: python tools/check_words.py [PATH ...]   (package, tests, docs and notebooks if none is named)

EVERYWHERE holds for code (names, docstrings, comments, messages) and docs; LESSONS holds for the prose of notebooks, where
a figure of speech may introduce a term once: there a word counts from its second use in one notebook on.
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

EVERYWHERE = {  # word (a regular expression) -> what to say instead
    r"rooms?|doorkeepers?": "module",
    r"roads?": "code path, backend, residual stream",
    r"luck|dice": "random numbers, RNG state, noise",
    r"loud(ly|ness|er)?|quiet(ly|er)?|whispers?|shouts?": "scale, RMS",
    r"asleep|awake|waking": "zero gradient, receives a gradient",
    r"crowds?": "sample set, feature statistics",
    r"judges?|judged": "feature extractor, classifier, evaluate",
    r"contestants?": "configuration, variant",
    r"doors?": "boundary, input validation",
    r"hand-?ins?": "submission",
    r"mend(s|ed|ing)?": "fix, repair",
    r"anew": "again",
    r"in place of": "instead of",
    r"gone on with|goes on with|go on with": "resumed, continued",
    r"theat(re|er)": "viewer",
    r"knobs?": "parameter, control, slider",
    r"dye": "perturbation",
    r"realis(e|es|ed)": "sample, realize",
    r"optimis(e|er|ers|ed|ing)|initialis(e|es|ed|ing|ation)|normalis(e|es|ed|ing|ation)|randomis(e|ed|es)|recognis(e|ed|es|able)": "American spelling: -ize",
    r"colou(r|rs|red)|grey|behaviour|neighbours?|centres?|licences?": "American spelling",
    r"whoever": "a plain subject",
    r"crews?|desks?|vessels?": "process, input, container",
    r"shadows?": "gradient, influence",
    r"parts? ways": "differ, diverge",
    r"mains? first": "main process first",
}
LESSONS = {
    r"bets?": "predicted x0",
    r"bell|bells": "Gaussian",
    r"hears?|heard|listens?": "receives, is conditioned on",
    r"is told|are told|was told": "receives, is conditioned on",
    r"glass|paper white": "transparency",
    r"peers?": "baseline",
    r"arms?": "configuration, variant",
}
ALLOWED = {  # files in which a word means what it says
    "tools/check_words.py": r".*",
    "tests/docs/test_words.py": r".*",
}
PATHS = (
    "dit_nb",
    "tests",
    "tools",
    "nbs",
    "site",
    "index.ipynb",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "Makefile",
)
GENERATED = ("dit_nb/_modidx.py", "dit_nb/teach/classroom/course", "tests/golden")


def pattern(words: dict[str, str]) -> re.Pattern:
    """All words as one expression, whole words only; an underscore in a name separates words."""
    return re.compile(rf"(?<![A-Za-z])(?:{'|'.join(words)})(?![A-Za-z])", re.IGNORECASE)


def advice(word: str, words: dict[str, str]) -> str:
    """What to say instead of a word."""
    return next(text for key, text in words.items() if re.fullmatch(key, word, re.IGNORECASE))


def text_lines(path: Path) -> list[tuple[str, str, bool]]:
    """Place, text and whether it is prose of a notebook, for each line of a file."""
    if path.suffix != ".ipynb":
        return [
            (str(i), line, False) for i, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        ]
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    rows = [(cell, line) for cell in cells for line in "".join(cell["source"]).splitlines()]
    return [(cell["id"], line, cell["cell_type"] == "markdown") for cell, line in rows]


def name_of(path: Path) -> str:
    """The path from the top of the repository, if it lies inside."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def problems(path: Path) -> list[str]:
    """One line for each listed word in a file."""
    name = name_of(path)
    found, seen, allowed = [], Counter(), ALLOWED.get(name, r"(?!)")
    for place, line, prose in text_lines(path):
        tables = [(EVERYWHERE, 1)] + [(LESSONS, 2)] * prose
        for words, first in tables:
            for match in pattern(words).finditer(line):
                word = match[0].lower()
                seen[word] += 1
                if seen[word] >= first and not re.fullmatch(allowed, word):
                    found.append(f"{name}:{place}: {word!r}: say {advice(word, words)}")
    return found


def main() -> int:
    """Print every problem."""
    given = [Path(a).resolve() for a in sys.argv[1:]] or [ROOT / name for name in PATHS]
    kinds = {".py", ".ipynb", ".md", ""}
    files = [p for path in given for p in ([path] if path.is_file() else sorted(path.rglob("*")))]
    files = [p for p in files if p.is_file() and p.suffix in kinds and "checkpoints" not in str(p)]
    files = [p for p in files if not name_of(p).startswith(GENERATED)]
    found = [line for path in files for line in problems(path)]
    print(*found, sep="\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
