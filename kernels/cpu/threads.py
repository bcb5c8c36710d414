"""Compiled loops over blocks, shared out to a few threads.

The compiled functions release the interpreter lock, so ordinary threads run them side by side.
That keeps one compiled version for any number of threads, survives ``fork`` and nested use from
a user's own threads, and costs nothing where one thread is the right number.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

_WORK_IN_A_SLICE = 1e8
"""Multiply-adds: a few hundredths of a second, or some tenths with the slowest activation."""

_pools: dict[int, ThreadPoolExecutor] = {}
# A forked child has none of its parent's threads: it must not wait for them.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)


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
) -> None:
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
    """
    slice_ = max(threads, int(threads * _WORK_IN_A_SLICE / work))
    for first in range(0, n_blocks, slice_):
        _run_slice(function, first, min(first + slice_, n_blocks), threads, arguments)


def _run_slice(
    function: Callable[..., None], first: int, last: int, threads: int, arguments: tuple
) -> None:
    threads = min(threads, last - first)
    if threads <= 1:
        function(first, last, *arguments)
        return
    if threads not in _pools:
        _pools[threads] = ThreadPoolExecutor(threads - 1, thread_name_prefix="flowsim-kernel")
    bounds = [first + (last - first) * part // threads for part in range(threads + 1)]
    waiting: list[Future[None]] = [
        _pools[threads].submit(function, bounds[part], bounds[part + 1], *arguments)
        for part in range(1, threads)
    ]
    try:
        function(first, bounds[1], *arguments)
    finally:
        # Even when interrupted: no thread may still write into arrays the caller thinks are his.
        for future in waiting:
            future.result()
