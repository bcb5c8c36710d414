"""Compiled loops over blocks, shared out to a few threads.

The compiled functions release the interpreter lock, so ordinary threads run them side by side.
That keeps one compiled version for any number of threads, survives ``fork`` and nested use from
a user's own threads, and costs nothing where one thread is the right number.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

_WORK_IN_A_SLICE = 1e8
"""Multiply-adds: a few hundredths of a second, or some tenths with the slowest activation."""

_crews: dict[int, _Crew] = {}
# A forked child has none of its parent's threads: it must not wait for them.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_crews.clear)


def usable_cores() -> int:
    """Number of cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _libraries() -> Any:
    # Looking for the loaded libraries takes milliseconds: once a process is enough.
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def one_blas_thread() -> AbstractContextManager[Any]:
    """Hold linear algebra to one thread within a ``with`` block.

    Its rounding depends on the number of threads, and results must not; and n x n problems are
    too small to gain from more.
    """
    return _libraries().limit(limits=1, user_api="blas")


def run_blocks(
    function: Callable[..., None], n_blocks: int, threads: int, work: float, *arguments
) -> bool:
    """Call ``function(first, last, *arguments)`` so that all blocks are covered once.

    Long work is handed out in slices of some tenths of a second, between which Python can attend
    to signals.

    Parameters
    ----------
    function : callable
        Compiled with ``nogil``; works on the blocks first to last (exclusive).
    n_blocks, threads : int
    work : float
        Multiply-adds a block.
    arguments
        Passed on as they are.

    Returns
    -------
    bool
        Whether one call has covered them all.
    """
    if threads == 1 and n_blocks * work <= _WORK_IN_A_SLICE:
        function(0, n_blocks, *arguments)  # at once: a small network's pass takes microseconds
        return True
    slice_ = max(threads, int(threads * _WORK_IN_A_SLICE / work))
    for first in range(0, n_blocks, slice_):
        _run_slice(function, first, min(first + slice_, n_blocks), threads, arguments)
    return False


def _run_slice(
    function: Callable[..., None], first: int, last: int, threads: int, arguments: tuple
) -> None:
    threads = min(threads, last - first)
    if threads <= 1:
        function(first, last, *arguments)
        return
    if threads not in _crews:
        _crews[threads] = _Crew(threads - 1)
    bounds = [first + (last - first) * part // threads for part in range(threads + 1)]
    parts = list(zip(bounds, bounds[1:], strict=False))
    _crews[threads].run(function, parts, arguments)


class _Crew:
    """Threads that wait for parts of a loop.

    Plain queues: a thread pool's futures cost more than a short pass over the neurons.

    Parameters
    ----------
    size : int
        Threads besides the one that calls.
    """

    def __init__(self, size: int) -> None:
        self._waiting: list[SimpleQueue[Any]] = [SimpleQueue() for _ in range(size)]
        self._lock = Lock()
        for number, queue in enumerate(self._waiting):
            name = f"flowsim-kernel-{number}"
            Thread(target=_work, args=(queue,), name=name, daemon=True).start()

    def run(
        self, function: Callable[..., None], parts: list[tuple[int, int]], arguments: tuple
    ) -> None:
        """Call ``function(first, last, *arguments)`` for all parts at once."""
        if not self._lock.acquire(blocking=False):
            # Another caller has the crew, and with it the cores.
            function(parts[0][0], parts[-1][1], *arguments)
            return
        done: SimpleQueue[None] = SimpleQueue()
        finished: list[BaseException | None] = []
        given, errors = 0, []
        try:
            try:
                for queue, part in zip(self._waiting, parts[1:], strict=True):
                    given += 1
                    queue.put((function, part, arguments, finished, done))
                function(*parts[0], *arguments)
            finally:
                # Even when interrupted: no thread may still write into arrays that the caller
                # thinks are his. An interrupt while waiting comes again at the end. It may have
                # taken what `get` had returned already: what is counted is in `finished`.
                waiting = True
                while waiting:
                    try:
                        while len(finished) < given:
                            done.get()
                        waiting = False
                    except BaseException as interrupt:
                        errors.append(interrupt)
        finally:
            self._lock.release()
        errors += [error for error in finished if error is not None]
        if errors:
            raise errors[0]


def _work(queue: SimpleQueue[Any]) -> None:
    while True:
        function, part, arguments, finished, done = queue.get()
        error: BaseException | None = None
        try:
            function(*part, *arguments)
        except BaseException as raised:
            error = raised
        # Nothing of the work may outlive it here: its arrays can be large.
        del function, part, arguments
        finished.append(error)
        done.put(None)
        del finished, done, error
