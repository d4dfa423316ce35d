"""The hardening suite: `make test-hard`, apart from CI. It writes RESULTS.md, a row for each test."""

from pathlib import Path

import pytest

from support_results import write_row


class Cases:
    """What a test has tried, for its row: `cases.add()` after each case that held; `cases.note` is printed beside."""

    def __init__(self):
        self.held, self.note = 0, ""

    def add(self, n: int = 1) -> None:
        self.held += n


_cases = pytest.StashKey[Cases]()


@pytest.fixture
def cases(request) -> Cases:
    return request.node.stash.setdefault(_cases, Cases())


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.hard)


_rows: dict[str, list] = {}  # of this session: cases, failures, seconds, note, parameters
_whole: dict[str, int] = {}  # number of parameters of each test, also if only some were selected


def _what(item) -> str:
    """What a test tries, the first line of its docstring."""
    return (item.obj.__doc__ or item.originalname).strip().splitlines()[0].rstrip(".")


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem(collector, name, obj):
    """Count the parameters of each test before any selection."""
    items = yield
    for item in items if isinstance(items, list) else ():
        if isinstance(item, pytest.Function):
            _whole[_what(item)] = _whole.get(_what(item), 0) + 1
    return items


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """After each test, write its row: the sums over its parameters."""
    report = yield
    if call.when == "call" and not report.skipped and item.get_closest_marker("hard"):
        tried = item.stash.get(_cases, None)
        held, note = (tried.held, tried.note) if tried else (int(report.passed), "")
        what = _what(item)
        row = _rows.setdefault(what, [0, 0, 0.0, "", 0])
        row[:] = row[0] + held, row[1] + report.failed, row[2] + call.duration, note or row[3], row[4] + 1
        part = "" if row[4] == _whole[what] else f"{row[4]} of {_whole[what]}"
        write_row(what, *row[:4], part=part)
    return report
