"""Timings that can be compared: contestants take turns, in several rounds of one process.

What else a machine does comes and goes in seconds. A ratio is therefore taken within a round, and
its median over the rounds is what is reported.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from flowsim.kernels.cpu.threads import usable_cores

Call = Callable[[], Any]

PAUSE = 0.03
"""Seconds between contestants: threads of a library spin for a while after their last work."""


def seconds(call: Call, budget: float, least: int = 3) -> float:
    """Median duration of a call, repeated for a budget of seconds after one call to warm up."""
    call()
    spent: list[float] = []
    while len(spent) < least or sum(spent) < budget:
        started = time.perf_counter()
        call()
        spent.append(time.perf_counter() - started)
    return statistics.median(spent)


def take_turns(
    calls: Mapping[str, Call], rounds: int, budget: float, least: int = 3
) -> dict[str, np.ndarray]:
    """Durations (rounds,) of every call; each round begins with another contestant."""
    names = list(calls)
    found: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(PAUSE)
            found[name].append(seconds(calls[name], budget, least))
    return {name: np.array(values) for name, values in found.items()}


def ratio(above: np.ndarray, below: np.ndarray) -> float:
    """Median over the rounds of one duration over another."""
    return float(np.median(above / below))


class Copy:
    """Copying memory on some threads: the fastest way to read and to write every byte once.

    Parameters
    ----------
    n_bytes : int
        Size of the array; far larger than the caches for the bandwidth of the memory.
    threads : int, optional
        By default one a usable core.
    """

    def __init__(self, n_bytes: int, threads: int | None = None) -> None:
        self.threads = threads or usable_cores()
        # Written once, since untouched pages of zeros are one and the same page of memory.
        source = np.full(n_bytes // 8, 0.5)
        target = source.copy()
        self.moved = 2 * source.nbytes
        self._pool = ThreadPoolExecutor(self.threads)
        self._parts = list(
            zip(
                np.array_split(target, self.threads),
                np.array_split(source, self.threads),
                strict=True,
            )
        )

    def __call__(self) -> None:
        """Copy once; NumPy lets go of the interpreter lock meanwhile."""
        if self.threads == 1:
            np.copyto(*self._parts[0])
            return
        list(self._pool.map(np.copyto, *zip(*self._parts, strict=True)))


def gemm(dtype: str, size: int = 1536) -> tuple[Call, float]:
    """A product of square matrices by NumPy's BLAS with all its threads, and its operations."""
    a, b = np.random.default_rng(0).normal(size=(2, size, size)).astype(dtype)
    out = np.empty_like(a)
    return lambda: np.matmul(a, b, out=out), 2.0 * size**3


def torch_gemm(dtype: str, size: int = 1536) -> tuple[Call, float]:
    """The same by PyTorch's BLAS, which may be another one."""
    import torch

    a, b = torch.randn(2, size, size, dtype=getattr(torch, dtype))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out), 2.0 * size**3
