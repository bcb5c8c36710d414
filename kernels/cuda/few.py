"""Passes for few inputs: a thread takes some neurons, and all that they are in registers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from flowsim.kernels.interface import TwoLayerField

from .activations import CHEAP
from .compiler import Kernel, by_value, kernel, real
from .sums import Sums

THREADS = 128
"""A block."""

MOST_BLOCKS = 2112
"""Of a grid, whatever the card: bits must not depend on it. A multiple of 132, which is how many
multiprocessors the cards have that this is meant for."""

MOST_GRAM_SAMPLES = 8
"""n up to which a thread holds all pairs of samples in registers."""

_IN_REGISTERS = {True: 16, False: 8}
"""Sums over neurons up to which they stay in registers, for activations that are cheap, or not."""

_MOST_RETRACED, _MOST_RETRACED_WORK = 7, 16
"""Slopes that are made again in registers, and n d up to which that takes less time than reading
them; for activations that are cheap."""

_CHUNK = {True: 16, False: 8}
"""Samples of a chunk where there are more."""

_STATE_BYTES = 440
"""Of a thread's registers, 1,020 bytes, for the rows of its neurons."""

_PARAMETER_BYTES = 3000
"""Inputs up to which they travel with the kernel's other parameters, 4 KB in all."""

MOST_SHARED_BYTES = 90 * 1024
"""Shared memory of a block for inputs and sums: two of them fit everywhere."""


@dataclass(frozen=True)
class Layout:
    """How a kernel goes through the samples.

    Attributes
    ----------
    samples, chunks : int
        Of a chunk, and how many there are.
    one_chunk : bool
        Inputs are parameters, sums are in registers.
    """

    samples: int
    chunks: int
    one_chunk: bool

    @property
    def padded(self) -> int:
        """n, or more."""
        return self.samples * self.chunks


def layout_for(n: int, d: int, itemsize: int, cheap: bool, moves: int = 1) -> Layout:
    """The layout for n samples of d inputs, in a kernel that adds up ``moves`` sums a sample."""
    if n * moves <= _IN_REGISTERS[cheap] and (n * (d + 1)) * itemsize <= _PARAMETER_BYTES:
        return Layout(n, 1, True)
    samples = _CHUNK[cheap]
    return Layout(samples, -(-n // samples), False)


def shared_bytes(layout: Layout, d: int, itemsize: int, moves: int = 1) -> int:
    """Dynamic shared memory of a block."""
    if layout.one_chunk:
        return 0
    warps = THREADS // 32
    return layout.padded * (8 * warps * moves + itemsize * (d + 1))


def vector_for(neurons: int, d: int, itemsize: int, arrays: int) -> int:
    """Neurons a thread takes at a time: 16 bytes of each row where registers allow.

    Parameters
    ----------
    neurons, d, itemsize : int
    arrays : int
        Copies of a neuron that the kernel works with at a time.
    """
    wanted = 16 // itemsize
    while wanted > 1 and arrays * (1 + d) * wanted * itemsize > _STATE_BYTES:
        wanted //= 2
    while neurons % wanted:
        wanted //= 2
    return wanted


class FewPasses:
    """Passes of `flowsim.kernels.cuda.two_layer.CudaKernels` for few inputs.

    Parameters
    ----------
    field : TwoLayerField
    neurons : int
    dtype : numpy.dtype
    cupy : module
    sums : Sums
    """

    def __init__(
        self, field: TwoLayerField, neurons: int, dtype: np.dtype, cupy: Any, sums: Sums
    ) -> None:
        self.field, self.neurons, self.dtype = field, neurons, dtype
        self._cupy, self._sums = cupy, sums
        self._n, self._d = field.x.shape
        self._cheap = field.activation.name in CHEAP
        self._vector_of = cache(partial(vector_for, neurons, self._d, dtype.itemsize))
        scale = field.activation_scale
        self._mobilities = field.output_mobility / scale, field.input_mobility
        self._pull_factor = -field.multiplier / self._n
        # f is the multiplier times what the passes sum.
        self.output_factor = field.multiplier / scale
        self._layout = cache(partial(layout_for, self._n, self._d, dtype.itemsize, self._cheap))
        self._x: dict[int, Any] = {}
        self._kernels: dict[tuple[Any, ...], Kernel] = {}

    @property
    def most_retraced(self) -> int:
        """See `flowsim.kernels.interface.FlowKernels.most_retraced`."""
        few = self._cheap and self._n * self._d <= _MOST_RETRACED_WORK
        return _MOST_RETRACED if few and self._layout().one_chunk else 0

    def _blocks(self, vector: int) -> int:
        """Of the grid."""
        return min(-(-self.neurons // (THREADS * vector)), MOST_BLOCKS)

    # What kernels are given.

    def _kernel(
        self, name: str, file: str, layout: Layout, vector: int, moves: int = 1, **macros: int
    ) -> Kernel:
        # Looked up by what differs from pass to pass: to put a source together takes as long as a
        # pass over some hundred thousand neurons.
        key = name, layout, moves, vector, *macros.values()
        if key in self._kernels:
            return self._kernels[key]
        given = {
            "REAL": real(self.dtype), "INPUTS": self._d, "SAMPLES": layout.samples,
            "ONE_CHUNK": layout.one_chunk, "VECTOR": vector, "THREADS": THREADS,
            "SLOPES": 0, "ERRORS": moves, "BEGIN": False, "RETRACED": 0, **macros,
        }  # fmt: skip
        shared = shared_bytes(layout, self._d, self.dtype.itemsize, moves)
        self._kernels[key] = kernel(name, ["neurons", file], given, self.field.activation, shared)
        return self._kernels[key]

    def _parameters(
        self,
        layout: Layout,
        residuals: np.ndarray | None = None,
        here: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        slopes: int = 0,
        mobilities: bool = True,
        more: np.ndarray | None = None,
    ) -> Any:
        """The kernels' ``Parameters``, which are REALs one after the other."""
        parts = []
        if layout.one_chunk:
            parts.append(self.field.x.reshape(-1))
            pulls = np.zeros(self._n) if residuals is None else self._pull_factor * residuals
            parts.append(pulls.reshape(-1))
        given = np.zeros((1 if weights is None else len(np.atleast_2d(weights)), slopes + 1))
        if weights is not None:
            given[:, : np.shape(weights)[-1]] = weights
        at = np.zeros(slopes + 1)
        if here is not None:
            at[: len(here)] = here
        parts += [at, given.reshape(-1)]
        if more is not None:
            parts.append(more.reshape(-1))
        scale = self.field.activation_scale
        own = self._mobilities if mobilities else (1.0 / scale, 1.0)
        parts.append(np.array([scale, *own]))
        return by_value(np.concatenate(parts).astype(self.dtype))

    def _samples(self, layout: Layout, residual: np.ndarray | None = None) -> tuple[Any, Any]:
        """Inputs and pulls on the device, padded with zeros; None where they are parameters."""
        if layout.one_chunk:
            return None, None
        if layout.padded not in self._x:
            x = np.zeros((layout.padded, self._d), self.dtype)
            x[: self._n] = self.field.x
            self._x[layout.padded] = self._cupy.asarray(x)
        if residual is None:
            return self._x[layout.padded], None
        pull = np.zeros(layout.padded, self.dtype)
        pull[: self._n] = self._pull_factor * residual
        return self._x[layout.padded], self._cupy.asarray(pull)

    def _stack(self, slopes: Any) -> tuple[Any, int]:
        """Where the first of the slopes is, and how far it is from one to the next."""
        if slopes is None or not len(slopes):
            return None, 0
        return slopes, slopes.strides[0] // self.dtype.itemsize

    # The passes.

    def sweep(
        self, theta=None, residual=None, base=None, slopes=None, here=None, weights=None,
        slope=None, out=None, outputs=True, mobilities=True, others=None, other=None,
    ):  # fmt: skip
        """Rate at theta, or at base + sum here_j slopes_j; then base + sum weights_j slopes_j.

        Weights have the step in them, their last one is for the rate if there is a residual; with
        ``other`` that receives sum others_j slopes_j.
        Returns the sums that `output_factor` makes f there, (n,); None without ``outputs``.
        """
        rate = residual is not None
        move = weights is not None or outputs
        if weights is None and not rate:
            base, weights = theta, np.empty(0)
        n_slopes = 0 if weights is None else len(weights) - rate
        arrays = rate + move + (here is not None or rate and move) + (other is not None)
        layout, vector = self._layout(), self._vector_of(max(arrays, 2))
        launch = self._kernel(
            "stage", "stage", layout, vector, SLOPES=n_slopes, HERE=here is not None, RATE=rate,
            MOVE=move, OUTPUTS=outputs, BEGIN=other is not None,
        )  # fmt: skip
        parameters = self._parameters(layout, residual, here, weights, n_slopes, mobilities, others)
        x, pull = self._samples(layout, residual)
        stack, stride = self._stack(slopes)
        blocks = self._blocks(vector)
        partial = self._sums.room(blocks, layout.padded) if outputs else None
        launch(
            blocks, THREADS, parameters, x, pull, np.int32(layout.chunks),
            theta, base, stack, stride, slope, out, other, self.neurons, partial,
        )  # fmt: skip
        return self._sums.total(blocks, layout.padded)[: self._n] if outputs else None

    def registers(self, theta, residual, memory, base, error, factors, fresh):
        """See `flowsim.kernels.interface.FlowKernels.advance_registers`; sums (n,)."""
        arrays = theta, memory, base, error, np.int32(fresh)
        return self._staged("registers", residual, factors, *arrays)

    def recurrence(self, theta, residual, previous, base, first, factors, out):
        """See `flowsim.kernels.interface.FlowKernels.advance_recurrence`; sums (n,)."""
        return self._staged("recurrence", residual, factors, theta, previous, base, first, out)

    def _staged(self, name, residual, factors, *arrays):
        layout, vector = self._layout(), self._vector_of(5)
        launch = self._kernel(name, "registers", layout, vector, SLOPES=4)
        parameters = self._parameters(layout, residual, weights=factors, slopes=4)
        x, pull = self._samples(layout, residual)
        blocks = self._blocks(vector)
        partial = self._sums.room(blocks, layout.padded)
        launch(
            blocks, THREADS, parameters, x, pull, np.int32(layout.chunks), *arrays,
            self.neurons, partial,
        )  # fmt: skip
        return self._sums.total(blocks, layout.padded)[: self._n]

    def errors(self, theta, residual, slopes, weights, slope):
        """Rate into ``slope``, which is the last; sums (e, n), squares (e + 1, 2).

        Weights (e, slopes + 1) have the step in them.
        """
        moves, stages = weights.shape
        layout, vector = self._layout(moves), self._vector_of(3 + moves)
        launch = self._kernel("errors", "errors", layout, vector, moves, SLOPES=stages - 1)
        blocks = self._blocks(vector)
        parameters = self._parameters(layout, residual, weights=weights, slopes=stages - 1)
        x, pull = self._samples(layout, residual)
        stack, stride = self._stack(slopes)
        width = moves * layout.padded + 2 * moves + 2
        partial = self._sums.room(blocks, width)
        launch(
            blocks, THREADS, parameters, x, pull, np.int32(layout.chunks), theta, stack, stride,
            slope, self.neurons, partial,
        )  # fmt: skip
        return self._parted(self._sums.total(blocks, width), moves, layout)

    def _parted(self, total, moves, layout):
        """Sums (e, n) and squares (e + 1, 2) of what an `errors` kernel has summed."""
        outputs = total[: moves * layout.padded].reshape(moves, layout.padded)
        return outputs[:, : self._n], total[moves * layout.padded :].reshape(-1, 2)

    def retrace(self, base, residuals, rows, out):
        """See `flowsim.kernels.interface.FlowKernels.retrace`; sums (n,). Rows have the step."""
        layout, vector, stages = self._layout(), self._vector_of(3), len(rows)
        launch = self._kernel("retrace", "retrace", layout, vector, RETRACED=stages, MOVE=True)
        blocks = self._blocks(vector)
        parameters = self._parameters(layout, residuals, more=rows)
        partial = self._sums.room(blocks, layout.padded)
        launch(blocks, THREADS, parameters, base, out, self.neurons, partial)
        return self._sums.total(blocks, layout.padded)[: self._n]

    def retrace_errors(self, base, residuals, rows, weights):
        """See `flowsim.kernels.interface.FlowKernels.retrace_errors`; as `errors`."""
        moves, stages = weights.shape
        layout, vector = self._layout(moves), self._vector_of(3)
        blocks = self._blocks(vector)
        launch = self._kernel(
            "retrace_errors", "retrace", layout, vector, moves, RETRACED=stages, SLOPES=stages - 1,
            MOVE=False,
        )  # fmt: skip
        whole = np.zeros((stages, stages))
        whole[: stages - 1, : stages - 1] = rows
        parameters = self._parameters(
            layout, residuals, weights=weights, slopes=stages - 1, more=whole
        )
        width = moves * layout.padded + 2 * moves + 2
        partial = self._sums.room(blocks, width)
        launch(blocks, THREADS, parameters, base, self.neurons, partial)
        return self._parted(self._sums.total(blocks, width), moves, layout)

    def tangent(self, theta, direction):
        """Sums (n,) of the outputs' derivative along a slope."""
        layout, vector = self._layout(), self._vector_of(2)
        launch, blocks = self._kernel("tangent", "products", layout, vector), self._blocks(vector)
        partial = self._sums.room(blocks, layout.padded)
        launch(
            blocks, THREADS, self._parameters(layout), self._samples(layout)[0],
            np.int32(layout.chunks), theta, direction, self.neurons, partial,
        )  # fmt: skip
        return self._sums.total(blocks, layout.padded)[: self._n]

    def activity(self, theta):
        """Neurons that are active on every sample, and on none."""
        layout, vector = self._layout(), self._vector_of(2)
        launch, blocks = self._kernel("activity", "products", layout, vector), self._blocks(vector)
        partial = self._sums.room(blocks, 2)
        launch(
            blocks, THREADS, self._parameters(layout), self._samples(layout)[0],
            np.int32(layout.chunks), np.int32(self._n), theta, self.neurons, partial,
        )  # fmt: skip
        return self._sums.total(blocks, 2)

    def grams(self, theta):
        """Gram matrices (2, n, n) of sigma and of a sigma', without x_i . x_k; few samples."""
        layout, blocks = Layout(self._n, 1, True), self._blocks(1)
        launch = self._kernel("grams", "grams", layout, 1)
        pairs = self._n * (self._n + 1) // 2
        partial = self._sums.room(blocks, 2 * pairs)
        launch(blocks, THREADS, self._parameters(layout), theta, self.neurons, partial)
        found = np.empty((2, self._n, self._n))
        rows, columns = np.tril_indices(self._n)
        for own, values in zip(
            found, self._sums.total(blocks, 2 * pairs).reshape(2, pairs), strict=True
        ):
            own[rows, columns] = own[columns, rows] = values
        return found
