"""Time limits: calls that take too long are stopped."""

import ctypes
import signal
import threading
from collections.abc import Callable
from itertools import chain, count

__all__ = []

_ALARM = hasattr(signal, "setitimer")  # not on Windows


class _OutOfTime(BaseException):
    """A call took too long. Not an `Exception`, so `except Exception` does not swallow it."""


def _call_with_limit(call: Callable, seconds: float):
    """Return call(), or raise `_OutOfTime` after some seconds.

    On the main thread an alarm signal interrupts the call. Elsewhere, and on Windows, the call runs in a
    worker thread, which is asked to stop and not waited for.
    """
    main = threading.current_thread() is threading.main_thread()
    return (_call_with_alarm if main and _ALARM else _call_in_worker)(call, seconds)


def _alarm_handler(may_stop: Callable, *message: str) -> Callable:
    """Return a handler of SIGALRM that raises `_OutOfTime` if may_stop(frame).

    A bare `except:` can swallow the exception, so the alarm rings again: after 20 ms, in which `with` and
    `finally` can end, then at short, varying intervals, until it rings at a line that is in no `try`.
    """
    delays = chain([0.02], (1e-6 + 1e-4 * (0.618034 * k % 1) for k in count()))

    def handler(_, frame):
        if frame and may_stop(frame):
            signal.setitimer(signal.ITIMER_REAL, next(delays), 0.02)
            raise _OutOfTime(*message)

    return handler


def _call_with_alarm(call: Callable, seconds: float):
    here = _call_with_alarm.__code__  # its own lines are never interrupted, so it always cleans up
    handler = signal.signal(signal.SIGALRM, _alarm_handler(lambda frame: frame.f_code is not here))
    timer = signal.setitimer(signal.ITIMER_REAL, seconds, 0.02)
    try:
        return call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)


def _call_in_worker(call: Callable, seconds: float):
    box = {}

    def work():
        try:
            box["value"] = call()
        except BaseException as error:
            box["error"] = error

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(seconds)
    if worker.is_alive():
        stop = ctypes.pythonapi.PyThreadState_SetAsyncExc
        stop(ctypes.c_ulong(worker.ident), ctypes.py_object(_OutOfTime))
        raise _OutOfTime
    if "error" in box:
        raise box["error"]
    return box["value"]
