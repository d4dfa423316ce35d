"""Processes that share work, as threads of this one: they gather as real ones do, but need no launcher."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from dit_nb.image_check import _Ranks


def in_ranks(world_size: int, work: Callable[[_Ranks], object]) -> list:
    """What `work(ranks)` returns in each of some threads, or the error that it raises there."""
    slots, barrier = [None] * world_size, threading.Barrier(world_size, timeout=60)

    def run(rank: int):
        def gather(value) -> list:
            slots[rank] = value
            barrier.wait()
            found = list(slots)
            barrier.wait()
            return found

        @contextmanager
        def on_all_ranks():
            error = None
            try:
                yield
            except Exception as raised:
                error = raised
            if errors := [each for each in gather(error) if each is not None]:
                raise errors[0]

        try:
            return work(_Ranks(rank, world_size, gather, on_all_ranks))
        except Exception as error:
            barrier.abort()
            return error

    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(run, range(world_size)))
