"""Time limits: endless loops end, and nothing of the limit remains."""

import signal
import sys
import threading
import time

import pytest

from answers import RIGHT
from dit_nb.teach.graders.framework.core import all_exercises
from dit_nb.teach.graders.framework.limits import (
    _call_in_worker,
    _call_with_alarm,
    _call_with_limit,
    _OutOfTime,
)
from dit_nb.teach.graders.patchify import check_patchify
from support import student_function

ORACLE = all_exercises()["patchify"].oracle
LOOPS = {
    "plain": "    while True: pass",
    "bare except": "    while True:\n        try:\n            x = 1\n        except: x = 2",
    "except Exception": "    while True:\n        try:\n            x = 1\n        except Exception: pass",
    "sleep": "    import time\n    while True:\n        try:\n            time.sleep(0.01)\n        except: pass",
}
needs_alarm = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no alarm signal here")


def _process_state():
    """What a time limit could leave behind on this thread."""
    timer = signal.getitimer(signal.ITIMER_REAL) if hasattr(signal, "getitimer") else None
    handler = signal.getsignal(signal.SIGALRM) if hasattr(signal, "SIGALRM") else None
    return sys.gettrace(), threading.gettrace(), sys.getprofile(), timer, handler


@pytest.fixture(autouse=True)
def nothing_remains():
    before = _process_state()
    yield
    assert _process_state() == before


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_an_endless_loop_ends(loop):
    report = check_patchify(student_function(ORACLE, loop), seconds=0.2)
    assert "did not return within 0.2 seconds" in report.reason


@pytest.mark.parametrize("limit", [pytest.param(_call_with_alarm, marks=needs_alarm), _call_in_worker])
def test_values_and_errors_pass_through(limit):
    assert limit(lambda: 7, 5) == 7
    with pytest.raises(KeyError):
        limit(lambda: {}["x"], 5)
    with pytest.raises(_OutOfTime):
        limit(lambda: [time.sleep(0.01) for _ in range(500)], 0.1)


def swallow():
    try:
        time.sleep(0.01)
    except:  # noqa: E722
        pass


@needs_alarm
def test_nested_loops_that_swallow_everything_end():
    def loop():
        while True:
            try:
                swallow()
            except:  # noqa: E722
                pass

    with pytest.raises(_OutOfTime):
        _call_with_alarm(loop, 0.1)


@needs_alarm
def test_with_blocks_are_closed():
    closed = []

    class Block:
        def __enter__(self):
            pass

        def __exit__(self, *_):
            closed.append(True)

    def loop():
        with Block():
            while True:
                pass

    with pytest.raises(_OutOfTime):
        _call_with_alarm(loop, 0.1)
    assert closed == [True]


@needs_alarm
def test_the_callers_alarm_is_restored():
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(True))
    signal.setitimer(signal.ITIMER_REAL, 60)
    try:
        with pytest.raises(_OutOfTime):
            _call_with_limit(lambda: time.sleep(10), 0.05)
        assert _call_with_limit(lambda: 7, 5) == 7
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 60
        signal.raise_signal(signal.SIGALRM)
        assert rung == [True]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@needs_alarm
def test_a_call_that_ends_at_its_limit_is_not_interrupted_later():
    for _ in range(200):
        try:
            _call_with_limit(lambda: sum(range(2000)), 3e-5)
        except _OutOfTime:
            pass
    time.sleep(0.05)  # an alarm left behind would ring now


def test_a_check_works_in_another_thread():
    reports = []

    def work():
        reports.append(check_patchify(student_function(ORACLE, LOOPS["plain"]), seconds=0.2))
        reports.append(check_patchify(RIGHT["patchify"][0]))

    _call_in_worker(work, 20)
    assert "did not return" in reports[0].reason and reports[1].passed


def test_a_stopped_worker_ends():
    before = set(threading.enumerate())
    with pytest.raises(_OutOfTime):
        _call_in_worker(lambda: [time.sleep(0.01) for _ in range(10**6)], 0.05)
    (worker,) = set(threading.enumerate()) - before or {threading.Thread()}
    if worker.ident is not None:
        worker.join(20)
    assert not worker.is_alive()


def test_a_person_may_interrupt():
    def interrupted(images, patch_size):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_patchify(interrupted)


def test_a_long_call_into_c_is_noticed_afterwards():
    def long(images, patch_size):
        return sum(range(10**7)) and RIGHT["patchify"][0](images, patch_size)

    assert "did not return" in check_patchify(long, seconds=0.01).reason
