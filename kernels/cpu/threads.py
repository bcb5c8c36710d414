"""Loops over blocks, shared out to a few threads.

The compiled functions release the interpreter lock, so ordinary threads run them side by side.
That keeps one compiled version for any number of threads, survives ``fork`` and nested use from
a user's own threads, and costs nothing where one thread is the right number.

Compiled loops that follow each other closely are handed over without Python (`teams`); threads
that have waited too long for one, or that are to call a Python function, are woken by a queue.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from queue import SimpleQueue
from threading import Lock, Thread
from types import FunctionType
from typing import Any

import numba
import numpy as np
from numba.core.dispatcher import Dispatcher

from . import teams
from .atomics import part_of

_WORK_IN_A_SLICE = 1e8
"""Multiply-adds: a few hundredths of a second, or some tenths with the slowest activation."""

_WORK_TO_DIVIDE = 2e4
"""Multiply-adds: some microseconds, against the tenths of one that taking and calling cost."""

_PATIENCE = 5e-4
"""Seconds for which a thread waits in compiled code for the next loop: the queue takes 1e-4."""

_OFFER = 5e-5
"""Seconds after which a waiting thread offers its core to others."""

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
    least = int(_WORK_TO_DIVIDE / work) + 1
    for first in range(0, n_blocks, slice_):
        _run_slice(function, first, min(first + slice_, n_blocks), threads, least, arguments)
    return False


def _run_slice(
    function: Callable[..., None], first: int, last: int, threads: int, least: int, arguments: tuple
) -> None:
    threads = min(threads, last - first)
    if threads <= 1:
        function(first, last, *arguments)
        return
    if threads not in _crews:
        _crews[threads] = _Crew(threads - 1)
    crew = _crews[threads]
    if crew.lock.locked():
        # Another caller has the crew, and with it the cores.
        function(first, last, *arguments)
        return
    with crew.lock:  # no interrupt comes between taking it and having to give it back
        if isinstance(function, Dispatcher):
            crew.share(function, first, last, least, arguments)
        else:
            bounds = [first + (last - first) * part // threads for part in range(threads + 1)]
            crew.run(function, list(zip(bounds, bounds[1:], strict=False)), arguments)


@cache
def _shared(function: Dispatcher) -> Dispatcher:
    """``function`` for a team: compiled, and kept on disk, beside it."""
    kernel = function.py_func
    code = _share.__code__.replace(
        co_filename=kernel.__code__.co_filename, co_firstlineno=kernel.__code__.co_firstlineno
    )
    names = {
        "__name__": kernel.__module__, "function": function, "part_of": part_of,
        "share": teams.share,
    }  # fmt: skip
    made = FunctionType(code, names, f"{kernel.__name__}_shared")
    made.__qualname__ = made.__name__  # the file on disk is called by it
    kept = function.stats.cache_path is not None
    return numba.njit(nogil=True, cache=kept, error_model="numpy", no_cfunc_wrapper=True)(made)


def _share(team, number, least, first, last, *arguments):
    """Compiled once for every ``function``, in which it is a global name."""
    part = part_of(function, arguments)  # type: ignore[name-defined]  # noqa: F821
    share(team, number, part, least, first, last)  # type: ignore[name-defined]  # noqa: F821


@cache
def _offering() -> int:
    """Address of the system's function that offers a core to other threads, or 0."""
    if os.name != "posix":
        return 0
    return ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value or 0


@cache
def _pauses_a_second() -> float:
    durations = []
    for _ in range(4):  # the first compiles, or loads what was compiled
        started = time.perf_counter()
        teams.spend(2000)
        durations.append(time.perf_counter() - started)
    return 2000 / min(durations)


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
        self.lock = Lock()
        self._number = 0
        self._team = teams.new_team(
            size + 1,
            # With more threads than cores the next to work may be waiting for this one's core.
            _PATIENCE * _pauses_a_second() if size < usable_cores() else 0.0,
            _OFFER * _pauses_a_second(),
            _offering(),
        )
        # Nobody compiles, or loads what was compiled, while others wait for help.
        teams.send_home(self._team)
        teams.serve(self._team, 0)
        for number, queue in enumerate(self._waiting):
            name = f"flowsim-kernel-{number}"
            arguments = (queue, self._team, number + 1)
            Thread(target=_work, args=arguments, name=name, daemon=True).start()

    def share(
        self, function: Dispatcher, first: int, last: int, least: int, arguments: tuple
    ) -> None:
        """Call a compiled ``function`` for all blocks, with those threads that come in time.

        From the first block taken to the last one done there is no Python, and so no interrupt.
        """
        teams.call_in(self._team)
        for member, queue in enumerate(self._waiting, 1):
            if teams.wake(self._team, member):
                queue.put(None)
        self._number += 1
        _shared(function)(self._team, self._number, least, first, last, *arguments)

    def run(
        self, function: Callable[..., None], parts: list[tuple[int, int]], arguments: tuple
    ) -> None:
        """Call ``function(first, last, *arguments)`` for all parts at once."""
        done: SimpleQueue[None] = SimpleQueue()
        finished: list[BaseException | None] = []
        given, errors = 0, []
        teams.send_home(self._team)
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
        errors += [error for error in finished if error is not None]
        if errors:
            raise errors[0]


def _work(queue: SimpleQueue[Any], team: np.ndarray, member: int) -> None:
    while True:
        task = queue.get()
        if task is None:
            teams.serve(team, member)
            continue
        function, part, arguments, finished, done = task
        error: BaseException | None = None
        try:
            function(*part, *arguments)
        except BaseException as raised:
            error = raised
        # Nothing of the work may outlive it here: its arrays can be large.
        del task, function, part, arguments
        finished.append(error)
        done.put(None)
        del finished, done, error
