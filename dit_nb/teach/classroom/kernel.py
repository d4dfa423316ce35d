"""What runs inside the kernel of a graded notebook: limits of time, output and memory, and results of checks."""

import json
import os
import signal
import sys
import traceback

from dit_nb.teach.classroom.snapshot import _remember_graders
from dit_nb.teach.graders.framework.limits import _ALARM, _alarm_handler
from dit_nb.teach.graders.framework.report import Report

__all__ = ["show_and_grade"]

_MAX_CHARACTERS = 200_000  # printed by one cell; the rest is dropped
_results: list[dict] = []  # the report of the last check, until `_take_result` reads it


def show_and_grade(report: Report, points: float) -> float | None:
    """Show the report of a check; the last line of a check cell.

    In a student's own run it only shows the report. While nbgrader grades, a check that earns nothing raises an
    error, one that earns a part returns its points, and one that earns all returns nothing: with that,
    nbgrader gives the points of the cell.

    Args:
        report: report of the check
        points: points of the cell
    """
    from IPython.display import display

    _results[:] = [report.row()]
    display(report)
    if "NBGRADER_EXECUTION" not in os.environ or report.points >= report.max_points:
        return None
    return points * report.points / report.max_points if report.points > 0 else report.require().points


def _take_result() -> str:
    """Return the last report as JSON, once; empty if there is none."""
    return json.dumps(_results.pop()) if _results else ""


def _prepare_kernel(seconds: float, memory: float = 0, processes: int = 0) -> None:
    """Limit the cells of this kernel.

    Args:
        seconds: time limit of a cell
        memory: limit of the kernel's memory, in GiB, and 1 GiB of a file; 0: none
        processes: limit of processes and threads, of which the system counts all of a user, or of the sandbox
    """
    from IPython import get_ipython

    _remember_graders()
    sys.path.append(os.getcwd())
    shell = get_ipython()
    shell.ask_exit = lambda: None  # exit() would end the grading, too
    shell.events.register("pre_run_cell", lambda _: _limit_output())
    if _ALARM:  # without it, the time limit of the process that grades must do
        _limit_time(shell, seconds)
    if memory:
        _limit_resources(memory, processes)


def _limit_time(shell, seconds: float) -> None:
    """Stop every cell that takes longer than some seconds."""
    message = f"This cell took more than {seconds:g} seconds: is there an endless loop?"

    def runs_cell(frame):
        return any(f.f_globals is shell.user_global_ns for f, _ in traceback.walk_stack(frame))

    def start(_):
        shell.ast_node_interactivity = "last_expr"  # the points of a check are the value of its last line
        signal.signal(signal.SIGALRM, _alarm_handler(runs_cell, message))
        signal.setitimer(signal.ITIMER_REAL, seconds, 0.02)

    shell.events.register("pre_run_cell", start)
    shell.events.register("post_run_cell", lambda _: signal.setitimer(signal.ITIMER_REAL, 0))


def _limit_output() -> None:
    """Drop what a cell prints beyond some length: floods make a kernel slow, and lose other messages."""
    for stream in (sys.stdout, sys.stderr):
        _limit_stream(stream, type(stream))


def _limit_stream(stream, cls: type) -> None:
    left = _MAX_CHARACTERS

    def write(text):
        nonlocal left
        left -= len(text)
        return cls.write(stream, text) if left > 0 else len(text)

    stream.write, stream.flush = write, lambda: cls.flush(stream) if left > 0 else None


def _limit_resources(memory: float, processes: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (int(memory * 2**30),) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**30,) * 2)
    resource.setrlimit(resource.RLIMIT_NPROC, (processes,) * 2)
