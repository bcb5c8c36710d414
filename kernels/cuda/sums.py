"""Sums over all neurons, brought to the host in an order that is always the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .compiler import Kernel, by_value, kernel, real

THREADS = 256
"""A block."""

_MOST_BLOCKS = 1024
_MOST_GROUPS = 32


def _kernel(name: str, dtype: str, vector: int = 1, terms: int = 1) -> Kernel:
    macros = {
        "REAL": real(np.dtype(dtype)), "THREADS": THREADS, "VECTOR": vector, "TERMS": terms,
    }  # fmt: skip
    return kernel(name, ["sums"], macros)


class Sums:
    """Adds up what each block has found: a kernel that goes in order, and one small copy.

    Parameters
    ----------
    cupy : module
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._partial, self._total = cupy.empty(0, np.float64), cupy.empty(0, np.float64)
        self._add = _kernel("add_partials", "float64")

    def room(self, rows: int, width: int) -> Any:
        """Room for partial sums (rows, width) float64; what it held before is void."""
        if self._partial.size < rows * width:
            self._partial = self._cupy.empty(rows * width, np.float64)
        return self._partial

    def total(self, rows: int, width: int) -> np.ndarray:
        """Sums over the rows (width,) on the host. Waits for all that has been launched."""
        self._hold(width)
        self._add(width, THREADS, self._partial, rows, width, self._total)
        return self._read(width)

    def runs(self, lengths: Sequence[int]) -> np.ndarray:
        """Sums of so many partial sums each, one run after the other."""
        self._hold(len(lengths))
        first = 0
        for place, length in enumerate(lengths):
            own = self._partial[first : first + length]
            self._add(1, THREADS, own, length, 1, self._total[place:])
            first += length
        return self._read(len(lengths))

    def largest(self, count: int) -> float:
        """The largest of so many partial results; NaN if one is."""
        return float(np.max(self._partial[:count].get()))

    def _hold(self, width: int) -> None:
        if self._total.size < width:
            self._total = self._cupy.empty(width, np.float64)
            self._memory = self._cupy.cuda.alloc_pinned_memory(8 * width)
            self._pinned = np.frombuffer(self._memory, np.float64, width)

    def _read(self, width: int) -> np.ndarray:
        runtime, stream = self._cupy.cuda.runtime, self._cupy.cuda.get_current_stream()
        runtime.memcpyAsync(
            self._pinned.ctypes.data, self._total.data.ptr, 8 * width,
            runtime.memcpyDeviceToHost, stream.ptr,
        )  # fmt: skip
        stream.synchronize()
        return self._pinned[:width].copy()


def squares(
    sums: Sums,
    stack: Any,
    weights: np.ndarray,
    stride: int | None = None,
    width: int | None = None,
) -> np.ndarray:
    """Sums of squares (2,) of each layer of sum_j weights[j] stack[j].

    Parameters
    ----------
    sums : Sums
    stack : stack of states
        Or the first of them alone, with a ``stride``.
    weights : (terms,) array
    stride : int, optional
        Elements from one term to the next; that of the stack by default.
    width : int, optional
        Neurons that count, from the first on; all by default.
    """
    dtype, neurons, rows = stack.dtype, stack.shape[-1], stack.shape[-2]
    width = neurons if width is None else width
    if stride is None:
        stride = stack.strides[0] // dtype.itemsize
    vector = 16 // dtype.itemsize
    while neurons % vector or width % vector or stride % vector:
        vector //= 2
    blocks = max(1, min(-(-width // (THREADS * vector)), _MOST_BLOCKS))
    groups = min(rows - 1, _MOST_GROUPS)
    given = np.asarray(weights, dtype)
    partial = sums.room(blocks * (1 + groups), 1)
    _kernel("squares", dtype.name, vector, len(weights))(
        (blocks, 1 + groups), THREADS, by_value(given),
        stack, stride, width, neurons, np.int32(rows), partial,
    )  # fmt: skip
    return sums.runs([blocks, blocks * groups])


def invariant_drift(
    sums: Sums, initial: Any, theta: Any, output_mobility: float, input_mobility: float
) -> float:
    """See `flowsim.kernels.interface.TwoLayerKernels.invariant_drift`."""
    rows, neurons = theta.shape
    blocks = max(1, min(-(-neurons // THREADS), _MOST_BLOCKS))
    _kernel("invariant_drift", theta.dtype.name)(
        blocks, THREADS, initial, theta, np.float64(output_mobility), np.float64(input_mobility),
        np.int32(rows), neurons, sums.room(blocks, 1),
    )  # fmt: skip
    return sums.largest(blocks)
