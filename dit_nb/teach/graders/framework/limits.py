"""How to call a stranger's function and stay unharmed."""

import ctypes
import inspect
import linecache
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from itertools import count, takewhile

import torch
from torch import Tensor, nn


class OutOfTime(BaseException):
    "A call took too long. Not an Exception, so that `except Exception` does not swallow it."


def limited(
    call: Callable,  # without arguments
    seconds: float,  # how long it may take
):
    "What call() returns, or OutOfTime."
    main = threading.current_thread() is threading.main_thread()
    return (by_alarm if main and hasattr(signal, "setitimer") else by_worker)(call, seconds)


def bell(
    ours: Callable,  # which of the calls that run are to be stopped, from the innermost one
    *words: str,  # of the exception
) -> Callable:  # a handler of signals
    "Stop code where it is; where an `except:` swallows that, also a few lines later."
    rings = count()

    def ring(_, frame):
        calls = ours(frame) if frame else []
        again = next(rings) if calls else 0  # not the first time, so that each `with` can close
        lines = count(1)

        def step(_, event, __):
            if event == "line" and next(lines) > again % 10:
                raise OutOfTime(*words)
            return step

        for call in calls if again else []:
            call.f_trace = step
            sys.settrace(lambda *_: None)
        if calls:
            raise OutOfTime(*words)

    return ring


def by_alarm(call: Callable, seconds: float):
    "`limited` by the clock of the operating system."
    here, on, tracer = sys._getframe().f_code, True, sys.gettrace()

    def ours(frame):
        calls = (f for f, _ in traceback.walk_stack(frame))
        return list(takewhile(lambda f: f.f_code is not here, calls)) if on else []

    before = signal.signal(signal.SIGALRM, bell(ours))
    others = signal.setitimer(signal.ITIMER_REAL, seconds, 0.02)
    try:
        return call()
    finally:
        on = False
        signal.setitimer(signal.ITIMER_REAL, *others)
        signal.signal(signal.SIGALRM, before)
        sys.settrace(tracer)


def by_worker(call: Callable, seconds: float):
    "`limited` by another thread, which is told to stop but not waited for."
    box = {}

    def work():
        try:
            box["value"] = call()
        except BaseException as error:
            box["error"] = error

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(seconds)
    if not box:
        for _ in range(50):  # a bare except can swallow one, too
            stop, ident = ctypes.pythonapi.PyThreadState_SetAsyncExc, ctypes.c_ulong(worker.ident)
            stop(ident, ctypes.py_object(OutOfTime))
            worker.join(0.01)
        raise OutOfTime
    if "error" in box:
        raise box["error"]
    return box["value"]


def leaves(value) -> Iterator:
    "What an argument is made of: tensors and other things, in tuples, lists and modules."
    if isinstance(value, nn.Module):
        yield from [*value.parameters(), *value.buffers()]
    elif isinstance(value, tuple | list):
        yield len(value)
        for part in value:
            yield from leaves(part)
    else:
        yield value


def alike(a, b) -> bool:
    "Whether two leaves hold the same."
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.equal(a, b)
    return a == b if isinstance(a, int | float | str | bool) else type(a) is type(b)


def changed(before, after) -> bool:
    "Whether an argument is no longer what it was."
    ours, theirs = list(leaves(before)), list(leaves(after))
    return len(ours) != len(theirs) or not all(map(alike, ours, theirs))


def apart(call: Callable):
    "What call() returns; it leaves no trace in PyTorch's settings, and finds the same ones each time."
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
            torch.default_generator.manual_seed(0)
            settle(torch.float32, torch.device("cpu"))
            return call()
    finally:
        settle(dtype, device)


def settle(dtype: torch.dtype, device: torch.device) -> None:
    "Set the defaults, if they are others: a default device slows down every call."
    if torch.get_default_dtype() != dtype:
        torch.set_default_dtype(dtype)
    if torch.get_default_device() != device:
        torch.set_default_device(None if device.type == "cpu" else device)


SPACES = (torch, nn.functional, Tensor)


def inventory() -> list[dict]:
    "What PyTorch's names stand for."
    return [dict(vars(space)) for space in SPACES]


def put_back(
    before: list[dict],  # an inventory
) -> list[str]:  # names whose meaning had changed
    "Undo what was done to PyTorch's own functions."
    found = []
    for space, old in zip(SPACES, before):
        now = dict(vars(space))
        if now == old:  # a glance, since nearly always nothing was done
            continue
        replaced = [name for name in now.keys() & old.keys() if now[name] is not old[name]]
        replaced = [name for name in replaced if callable(old[name]) or callable(now[name])]
        added = sorted(now.keys() - old.keys()) if space is Tensor else []  # modules load parts of themselves
        for name in replaced:
            setattr(space, name, old[name])
        for name in added:
            delattr(space, name)
        found += [f"{space.__name__}.{name}" for name in sorted(replaced) + added]
    return found


def file_of(fn: Callable) -> str | None:
    "Where a function is written, if it is written in Python."
    fn = inspect.unwrap(fn)
    fn = getattr(fn, "func", fn)  # of a partial
    fn = fn if hasattr(fn, "__code__") or hasattr(fn, "__func__") else getattr(fn, "forward", fn)
    code = getattr(fn, "__code__", None) or getattr(type(fn).__call__, "__code__", None)
    return code.co_filename if code is not None else None


def message_of(error: BaseException) -> str:
    "The first line; of einops, which explains at length, the last one too."
    try:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    except Exception:  # a message can be code, too
        return ""
    lines = lines[:1] + lines[1:][-1:] if type(error).__name__ == "EinopsError" else lines[:1]
    return f": {' '.join(lines)[:240]}" if lines else ""


def told(
    error: BaseException,
    fn: Callable,  # the student's function
) -> str:
    "An exception in one sentence."
    file = file_of(fn)
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = ""
    if own:
        source = linecache.getline(own[-1].filename, own[-1].lineno).strip()
        where = f", in line {own[-1].lineno}" + (f": {source[:120]}" if source else "")
    return f"it stopped with {type(error).__name__}{message_of(error)}{where}"
