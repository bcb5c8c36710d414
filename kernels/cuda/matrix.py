"""Passes for many inputs: two matrix products a block of neurons, by cuBLAS.

z = x w of a block (n, columns) is made, used up and forgotten before the next block: with all
neurons it would be n x neurons. Blocks are of a fixed size, so that the bits depend on none but
the network.

Where samples are at most half as many as inputs, so that all z are no more than half a state, those
of the state whose outputs came last are kept: its rate then takes one product instead of two. They
are void once a pass writes to that state; nothing else may.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import cache
from typing import Any
from weakref import ref

import numpy as np

from flowsim.kernels.interface import TwoLayerField

from .compiler import Kernel, by_value, kernel, real
from .device import Products
from .sums import Sums, squares

THREADS = 256
"""A block."""

_Z_BYTES = 1 << 25
"""Of z: it stays in the second-level cache for the most part."""

_LEAST_COLUMNS, _MOST_COLUMNS = 1 << 10, 1 << 16
_SEGMENT = 4096
"""Neurons that a block of threads sums for one sample."""

_WARP = 32
_ALIGNED = 32
"""Numbers that a row of x is padded to."""

_ROWS = 64
"""Blocks of threads side by side for the rows of a state."""


def columns_for(n: int, itemsize: int) -> int:
    """Neurons of a block."""
    columns = _MOST_COLUMNS
    while columns > _LEAST_COLUMNS and columns * n * itemsize > _Z_BYTES:
        columns //= 2
    return columns


Rows = tuple[int, int]
"""Rows of a block of neurons: address of the first one, and elements from one to the next."""


@cache
def terms_type(count: int, double: bool) -> type[ctypes.Structure]:
    """The structure ``Terms`` of ``matrix.cu`` with so many places."""
    number = ctypes.c_double if double else ctypes.c_float
    fields = [
        ("at", ctypes.c_void_p * count), ("ld", ctypes.c_int64 * count),
        ("weight", number * count), ("shift", number * count),
        ("base", ctypes.c_void_p), ("base_ld", ctypes.c_int64),
    ]  # fmt: skip
    return type("Terms", (ctypes.Structure,), {"_fields_": fields})


class MatrixPasses:
    """Passes of `flowsim.kernels.cuda.two_layer.CudaKernels` for many inputs.

    Parameters
    ----------
    field : TwoLayerField
    neurons : int
    dtype : numpy.dtype
    cupy : module
    sums : Sums
    """

    most_retraced = 0

    def __init__(
        self, field: TwoLayerField, neurons: int, dtype: np.dtype, cupy: Any, sums: Sums
    ) -> None:
        self.field, self.neurons, self.dtype = field, neurons, dtype
        self._cupy, self._sums = cupy, sums
        self._products = Products(cupy, dtype)
        self._n, self._d = field.x.shape
        # Rows that begin at multiples of 128 bytes: products are slower with odd ones.
        self._x = cupy.zeros((self._n, -(-self._d // _ALIGNED) * _ALIGNED), dtype)
        self._x[:, : self._d] = cupy.asarray(field.x, dtype)
        scale = field.activation_scale
        self._mobilities = field.output_mobility / scale, field.input_mobility
        self._pull_factor = -field.multiplier / self._n
        self.output_factor = field.multiplier / scale
        self._columns = min(columns_for(self._n, dtype.itemsize), neurons)
        self._segments = -(-self._columns // _SEGMENT)
        self._n_blocks = -(-neurons // self._columns)
        self._room: dict[str, Any] = {}
        self._kernels: dict[tuple[str, int], Kernel] = {}
        self._keeps = 2 * self._n <= self._d
        self._kept_of: Any = None  # a weak reference to the state whose z are kept

    # Blocks of neurons.

    def _blocks(self) -> Iterator[tuple[int, int, int]]:
        """Number, first neuron and number of neurons of each block."""
        for block in range(self._n_blocks):
            first = block * self._columns
            yield block, first, min(self._columns, self.neurons - first)

    def _rows(self, state: Any, first: int) -> Rows:
        """A block of a state's neurons."""
        return state.data.ptr + first * self.dtype.itemsize, self.neurons

    def _own(self, name: str, rows: int | None = None) -> Rows:
        """Room for a block: all rows of a state, or so many."""
        return self._array(name, 1 + self._d if rows is None else rows).data.ptr, self._columns

    def _array(self, name: str, rows: int, dtype: Any = None) -> Any:
        if name not in self._room:
            self._room[name] = self._cupy.empty((rows, self._columns), dtype or self.dtype)
        return self._room[name]

    def _below(self, rows: Rows, row: int = 1) -> Rows:
        """The same without the rows above one: by default the input weights."""
        return rows[0] + row * rows[1] * self.dtype.itemsize, rows[1]

    # Kernels.

    def _kernel(self, name: str, terms: int = 0) -> Kernel:
        if (name, terms) not in self._kernels:
            macros = {"REAL": real(self.dtype), "THREADS": THREADS, "TERMS": terms}
            made = kernel(name, ["matrix"], macros, self.field.activation)
            self._kernels[name, terms] = made
        return self._kernels[name, terms]

    def _scales(self, mobilities: bool = True) -> Any:
        scale = self.field.activation_scale
        own = self._mobilities[0] if mobilities else 1.0 / scale
        values = np.array([scale, own], self.dtype)
        return by_value(values)

    def _grid(self, columns: int) -> int:
        return -(-columns // THREADS)

    def _blend(
        self,
        terms: list[tuple[float, Rows, bool]],
        base: Rows | None,
        out: Rows,
        columns: int,
        add_base: bool = True,
    ) -> None:
        """out = base + sum_j weight_j (term_j - base or 0), for all rows of a block."""
        given = terms_type(len(terms) + 1, self.dtype == np.float64)()
        for j, (weight, (address, ld), shifted) in enumerate(terms):
            given.at[j], given.ld[j] = address, ld
            given.weight[j], given.shift[j] = weight, float(shifted)
        given.base, given.base_ld = base or (None, 0)
        rows = 1 + self._d
        self._kernel("blend", len(terms))(
            (self._grid(columns), min(rows, _ROWS)), THREADS, given, np.int32(add_base),
            np.int32(rows), columns, out[0], out[1],
        )  # fmt: skip

    def _preactivations(self, at: Rows, columns: int, name: str = "z") -> Any:
        z = self._array(name, self._n)
        self._products.forward(self._x, self._d, *self._below(at), columns, z)
        return z

    def _kept(self, block: int) -> Any:
        """Room for the z of a block that is kept."""
        if "kept" not in self._room:
            self._room["kept"] = self._cupy.empty(self._n * self.neurons, self.dtype)
        return self._room["kept"][block * self._columns * self._n :]

    def _is_kept(self, theta: Any) -> bool:
        """Whether the z of a state are there."""
        return theta is not None and self._kept_of is not None and self._kept_of() is theta

    def _keep(self, theta: Any) -> None:
        """Note whose z have been made, if they were."""
        self._kept_of = ref(theta) if self._keeps and theta is not None else None

    def _written(self, *states: Any) -> None:
        """Forget the z of a state that a pass is going to write to."""
        own = None if self._kept_of is None else self._kept_of()
        if own is None:
            return
        first, last = own.data.ptr, own.data.ptr + own.nbytes
        for state in states:
            if state is None:
                continue
            if state.data.ptr < last and first < state.data.ptr + state.nbytes:
                self._kept_of = None

    def _rate(
        self, at: Rows, pull: Any, out: Rows, columns: int, mobilities: bool = True, z: Any = None
    ) -> None:
        """d theta / d time of a block; ``z`` are its preactivations where they are known."""
        g = self._array("z", self._n)
        if z is None:
            z = self._preactivations(at, columns)
        self._kernel("pull")(
            -(-columns // _WARP), THREADS, self._scales(mobilities), z, g, pull, np.int32(self._n),
            at[0], columns, out[0],
        )  # fmt: skip
        factor = self._mobilities[1] if mobilities else 1.0
        self._products.backward(self._x, self._d, g, columns, factor, *self._below(out))

    def _pull(self, residual: np.ndarray) -> Any:
        return self._cupy.asarray((self._pull_factor * residual).astype(self.dtype))

    def _outputs(self, at: Rows, columns: int, block: int, partial: Any, keep: bool) -> None:
        """Sums of a block into its rows of the partial sums."""
        z, place = self._kept(block) if keep else self._array("z", self._n), self._place(block)
        self._products.forward(self._x, self._d, *self._below(at), columns, z)
        segments = -(-columns // _SEGMENT)
        self._kernel("outputs")(
            (self._n, segments), THREADS, self._scales(), z, at[0], columns,
            _SEGMENT, partial.data.ptr + 8 * place,
        )  # fmt: skip

    def _partial(self, moves: int = 1) -> Any:
        """Room for sums of all blocks: rows of n, one after the other for each move."""
        self._n_rows = sum(-(-columns // _SEGMENT) for _, _, columns in self._blocks())
        return self._sums.room(moves * self._n_rows, self._n)

    def _place(self, block: int) -> int:
        """Where the sums of a block begin."""
        return block * self._segments * self._n

    def _total(self) -> np.ndarray:
        return self._sums.total(self._n_rows, self._n)

    # The passes.

    def sweep(
        self, theta=None, residual=None, base=None, slopes=None, here=None, weights=None,
        slope=None, out=None, outputs=True, mobilities=True,
    ):  # fmt: skip
        """See `flowsim.kernels.cuda.few.FewPasses.sweep`."""
        rate = residual is not None
        n_slopes = 0 if weights is None else len(weights) - rate
        pull = self._pull(residual) if rate else None
        partial = self._partial() if outputs else None
        known = rate and here is None and self._is_kept(theta)
        moves = weights is not None and (len(weights) > 0 or out is not None)
        new = out if moves else base if theta is None else theta  # whose outputs are asked for
        keep = outputs and self._keeps and new is not None
        self._written(slope, out)
        for block, first, columns in self._blocks():
            at = base if theta is None else theta
            point = self._rows(at, first)
            origin = point if base is None else self._rows(base, first)
            read = [self._rows(slopes[j], first) for j in range(n_slopes)]
            if here is not None:
                terms = [(w, rows, False) for w, rows in zip(here, read, strict=False)]
                point = self._own("point")
                self._blend(terms, origin, point, columns)
            if rate:
                own = self._own("rate") if slope is None else self._rows(slope, first)
                z = self._kept(block) if known else None
                self._rate(point, pull, own, columns, mobilities, z)
                read = [*read, own]
            if moves:
                terms = [(w, rows, False) for w, rows in zip(weights, read, strict=True)]
                point = self._own("next") if out is None else self._rows(out, first)
                self._blend(terms, origin, point, columns)
            if outputs:
                self._outputs(point, columns, block, partial, keep)
        if keep:
            self._keep(new)
        return self._total() if outputs else None

    def registers(self, theta, residual, memory, base, error, factors, fresh):
        """See `flowsim.kernels.interface.FlowKernels.advance_registers`; sums (n,)."""
        delta, gamma1, gamma2, beta, error_weight = factors
        pull, partial, rate = self._pull(residual), self._partial(), self._own("rate")
        known = self._is_kept(theta)
        self._written(theta, memory, error)
        for block, first, columns in self._blocks():
            here, kept, origin, wrong = (
                self._rows(state, first) for state in (theta, memory, base, error)
            )
            self._rate(here, pull, rate, columns, z=self._kept(block) if known else None)
            terms = [(delta, here, True)] + ([] if fresh else [(1.0, kept, False)])
            self._blend(terms, origin, kept, columns, add_base=False)
            self._blend([(error_weight, rate, False)], wrong, wrong, columns)
            terms = [(gamma1, here, True), (gamma2, kept, False), (beta, rate, False)]
            self._blend(terms, origin, here, columns)
            self._outputs(here, columns, block, partial, self._keeps)
        self._keep(theta)
        return self._total()

    def recurrence(self, theta, residual, previous, base, first, factors, out):
        """See `flowsim.kernels.interface.FlowKernels.advance_recurrence`; sums (n,)."""
        mu, nu, beta, delta = factors
        pull, partial, rate = self._pull(residual), self._partial(), self._own("rate")
        known = self._is_kept(theta)
        self._written(out)
        for block, start, columns in self._blocks():
            here, past, origin, slope, new = (
                self._rows(state, start) for state in (theta, previous, base, first, out)
            )
            self._rate(here, pull, rate, columns, z=self._kept(block) if known else None)
            terms = [
                (mu, here, True), (nu, past, True), (beta, rate, False), (delta, slope, False),
            ]  # fmt: skip
            self._blend(terms, origin, new, columns)
            self._outputs(new, columns, block, partial, self._keeps)
        self._keep(out)
        return self._total()

    def errors(self, theta, residual, slopes, weights, slope):
        """See `flowsim.kernels.cuda.few.FewPasses.errors`; ``slopes`` has the last one too."""
        self.sweep(theta, residual, slope=slope, outputs=False)
        found = [self.sweep(None, base=theta, slopes=slopes, weights=-row) for row in weights]
        squares = [self._sums_of_squares(slopes, row) for row in weights]
        return np.array(found), np.array([*squares, self._sums_of_squares(theta[None], np.ones(1))])

    def _sums_of_squares(self, stack: Any, weights: np.ndarray) -> np.ndarray:
        return squares(self._sums, stack, weights)

    def tangent(self, theta, direction):
        """Sums (n,) of the outputs' derivative along a slope."""
        partial = self._partial()
        for block, first, columns in self._blocks():
            at, along = self._rows(theta, first), self._rows(direction, first)
            z, y = self._preactivations(at, columns), self._preactivations(along, columns, "y")
            self._kernel("tangent")(
                (self._n, -(-columns // _SEGMENT)), THREADS, self._scales(), z, y,
                at[0], along[0], columns, _SEGMENT,
                partial.data.ptr + 8 * self._place(block),
            )  # fmt: skip
        return self._total()

    def activity(self, theta):
        """Neurons that are active on every sample, and on none."""
        rows = sum(self._grid(columns) for _, _, columns in self._blocks())
        partial, place = self._sums.room(rows, 2), 0
        for _, first, columns in self._blocks():
            z = self._preactivations(self._rows(theta, first), columns)
            self._kernel("activity")(
                self._grid(columns), THREADS, z, np.int32(self._n), columns,
                partial.data.ptr + 8 * place,
            )  # fmt: skip
            place += 2 * self._grid(columns)
        return self._sums.total(rows, 2)

    def grams(self, theta):
        """Gram matrices (2, n, n) of sigma and of a sigma', without x_i . x_k."""
        found = self._cupy.zeros((2, self._n, self._n), np.float64)
        values = self._array("values", self._n, np.float64)
        signals = self._array("signals", self._n, np.float64)
        products = Products(self._cupy, np.dtype(np.float64))
        for _, first, columns in self._blocks():
            at = self._rows(theta, first)
            z = self._preactivations(at, columns)
            self._kernel("features")(
                (self._grid(columns), min(self._n, _ROWS)), THREADS, self._scales(), z,
                at[0], np.int32(self._n), columns, values, signals,
            )  # fmt: skip
            products.add_gram(values, columns, found[0])
            products.add_gram(signals, columns, found[1])
        return found.get()
