"""The hardening suite: `make test-hard`, apart from CI. It writes RESULTS.md, a row for each test."""

import os
import platform
from datetime import date
from pathlib import Path

import pytest

RESULTS = Path(__file__).with_name("RESULTS.md")
HEAD = """# Results of the hardening suite

Written by `make test-hard`. A test keeps its row until it runs again.

| what is tried | cases | failures | minutes | date | machine |
|---|--:|--:|--:|---|---|
"""
_cases = pytest.StashKey[dict]()


class Cases:
    """How many cases a test has tried: `cases.add()` after each one that held."""

    def __init__(self):
        self.held = 0

    def add(self, n: int = 1) -> None:
        self.held += n


@pytest.fixture
def cases(request) -> Cases:
    return request.node.stash.setdefault(_cases, Cases())


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.hard)


def machine() -> str:
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {platform.system()}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "call" and not report.skipped and item.get_closest_marker("hard"):
        held = item.stash[_cases].held if _cases in item.stash else int(report.passed)
        what = (item.obj.__doc__ or item.name).strip().splitlines()[0]
        parameters = getattr(item, "callspec", None)
        what += f" [{parameters.id}]" if parameters else ""
        minutes = f"{call.duration / 60:.1f}"
        write_row(what, [held, int(report.failed), minutes, date.today().isoformat(), machine()])
    return report


def write_row(what: str, values: list) -> None:
    """Replace the row of a test in the table, or append it."""
    text = RESULTS.read_text() if RESULTS.exists() else HEAD
    row = f"| {what} | " + " | ".join(map(str, values)) + " |"
    rows = [line for line in text[text.index("|--") :].splitlines()[1:] if line.startswith("| ")]
    kept = {line.split(" | ")[0]: line for line in rows}
    kept[f"| {what}"] = row
    RESULTS.write_text(HEAD + "\n".join(kept.values()) + "\n")
