"""The table of the hardening suite, tests/hard/RESULTS.md: a row for each test, with date and machine."""

import os
import platform
from datetime import date
from pathlib import Path

RESULTS = Path(__file__).parent / "hard" / "RESULTS.md"
HEAD = """# Results of the hardening suite

Written by `make test-hard`. A test keeps its row until it runs again.

| what is tried | cases | failures | minutes | note | date | machine |
|---|--:|--:|--:|---|---|---|
"""


def machine() -> str:
    """The processor of this machine, and its number of cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {platform.system()}"


def write_row(what: str, cases: int, failures: int, seconds: float, note: str = "", part: str = "") -> None:
    """Replace the row of a test in the table, or append it.

    Args:
        what: what is tried
        cases: number of cases that held
        failures: number of cases that did not
        seconds: time of the test
        note: printed beside
        part: how much of the test was run, such as "3 of 36", if not all: the row says so, and one
            of a whole test, or of a larger part, stays
    """
    note = f"partial: {part}{'; ' * bool(note)}{note}" if part else note
    cells = [what, cases, failures, f"{seconds / 60:.1f}", note, date.today().isoformat(), machine()]
    text = RESULTS.read_text() if RESULTS.exists() else HEAD
    rows = [line for line in text[text.index("|--") :].splitlines()[1:] if line.startswith("| ")]
    kept = {line.split(" | ")[0]: line for line in rows}
    before = kept.get(f"| {what}", "| | 0 | partial: ").split(" | ")
    if part and (not any(cell.startswith("partial: ") for cell in before) or int(before[1]) > cases):
        return
    kept[f"| {what}"] = "| " + " | ".join(map(str, cells)) + " |"
    RESULTS.write_text(HEAD + "\n".join(kept.values()) + "\n")
