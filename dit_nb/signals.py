"""Signals that end a run: after SIGTERM or SIGUSR1 it saves a checkpoint, says so, and exits.

Where a command has no step to finish (it reads data, or samples at the end), it says so and exits at once.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

__all__ = ["StopSignals", "Stopped"]

_NUMBERS = [signal.SIGTERM, signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []  # none on Windows


class Stopped(SystemExit):
    """A signal ended a run, and its checkpoint is written. The exit status is 128 plus the number of the signal.

    Args:
        number: number of the signal
    """

    def __init__(self, number: int):
        super().__init__(128 + number)


class StopSignals:
    """Remembers SIGTERM and SIGUSR1, so that a run can end after its step. `received` is the number, 0 for none."""

    def __init__(self):
        self.received, self._pid, self._replaced = 0, os.getpid(), {}

    @contextmanager
    def caught(self, enabled: bool = True) -> Iterator[None]:
        """Catch the signals inside a `with` block. Handlers of your own are left alone.

        Args:
            enabled: whether to catch them; outside of the main thread Python cannot
        """
        enabled = enabled and threading.current_thread() is threading.main_thread()
        unused = signal.SIG_DFL, _end_at_once
        free = [number for number in _NUMBERS if enabled and signal.getsignal(number) in unused]
        self._replaced = {number: signal.signal(number, self._receive) for number in free}
        try:
            yield
        finally:
            for number, handler in self._replaced.items():
                signal.signal(number, handler)

    def stop(self, step: int, shown: bool) -> NoReturn:
        """Raise `Stopped`, after a sentence on stderr.

        Args:
            step: updates done
            shown: whether to print the sentence
        """
        if shown:
            name = signal.Signals(self.received).name
            text = f"stopped by {name} after step {step}, which is saved: resume the run to continue"
            print(text, file=sys.stderr, flush=True)
        raise Stopped(self.received)

    def _receive(self, number: int, frame) -> None:
        if os.getpid() == self._pid:
            self.received = number
            if signal.getsignal(signal.SIGCHLD) not in (None, signal.SIG_DFL):
                # A DataLoader would raise an error, wherever this process is, if one of its workers ends now.
                self._replaced[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        else:
            _end_fork(number)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    "Inside a `with` block, SIGTERM and SIGUSR1 end the program by `Stopped`, after a sentence on stderr."
    main = threading.current_thread() is threading.main_thread()
    free = [number for number in _NUMBERS if main and signal.getsignal(number) is signal.SIG_DFL]
    _owner.append(os.getpid())
    for number in free:
        signal.signal(number, _end_at_once)
    try:
        yield
    finally:
        _owner.pop()
        for number in free:
            signal.signal(number, signal.SIG_DFL)


_owner: list[int] = []  # ids of the processes that are inside `_ended_by_signals`


def _end_at_once(number: int, frame) -> None:
    if os.getpid() not in _owner:
        _end_fork(number)
    name = signal.Signals(number).name
    text = f"stopped by {name} outside of the training loop; checkpoints that were written are whole"
    print(text, file=sys.stderr, flush=True)
    raise Stopped(number)


def _end_fork(number: int) -> None:
    "End a process that a run has forked, as the signal does by default."
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _delay_in_worker(_: int) -> None:
    "`worker_init_fn` of a DataLoader: a signal to all processes must not end a worker before the run has it, too."
    for number in _NUMBERS:
        signal.signal(number, lambda *_: signal.alarm(5))  # the alarm ends the worker
