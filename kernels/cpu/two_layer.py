"""The CPU backend: two-layer kernels in Numba, parallel over blocks of neurons."""

from __future__ import annotations

import numpy as np

from flowsim.kernels.interface import TwoLayerField

from . import measures
from .activations import compile_activation
from .registers import advance_registers
from .sweep import BLOCK, sweep
from .threads import run_blocks

_WORK_FOR_THREADS = 400_000
"""Multiply-adds under which a pass ends sooner on one thread than it takes to wake a second."""

_SAMPLES_FOR_BLAS = 64
"""Samples from which on a Gram matrix is faster by BLAS than by compiled loops."""

_FEATURES = 1 << 20
"""Numbers in the n x block arrays that BLAS multiplies: some 8 MB."""

_GRAM_GROUP = 64
"""Blocks that share one partial Gram matrix: bounds the memory, and fixes the order of the sum."""


class CpuKernels:
    """`flowsim.kernels.interface.TwoLayerKernels` compiled by Numba.

    Results do not depend on ``threads``, bit for bit.

    Parameters
    ----------
    field : TwoLayerField
    neurons : int
    dtype : numpy.dtype
        float64 or float32: of the state and of each neuron's own arithmetic. Sums over neurons
        are float64.
    threads : int
        At most this many threads; small networks use one.
    """

    def __init__(
        self, field: TwoLayerField, neurons: int, dtype: np.dtype, threads: int = 1
    ) -> None:
        self.field = field
        self.neurons = neurons
        self.dtype = np.dtype(dtype)
        self.n_samples, self.n_inputs = field.x.shape
        self._x = np.ascontiguousarray(field.x, self.dtype)
        self._inner = field.x @ field.x.T
        self._activation = compile_activation(field.activation, self.dtype)
        self._scale = self.dtype.type(field.activation_scale)
        mobilities = [field.output_mobility] + [field.input_mobility] * self.n_inputs
        self._mobility = np.array(mobilities, self.dtype) * self.dtype.type(-1)
        self._n_blocks = -(-neurons // BLOCK)
        self._work = float(BLOCK * self.n_samples * (2 * self.n_inputs + 4))
        self._threads = threads if self._n_blocks * self._work > _WORK_FOR_THREADS else 1
        self._partial = np.empty((self._n_blocks, self.n_samples))
        self._row_partial = np.empty((self._n_blocks, 1 + self.n_inputs))
        self._no_slopes = np.empty((0, 1 + self.n_inputs, neurons), self.dtype)
        self._no_state = np.empty((1 + self.n_inputs, 0), self.dtype)
        self._no_residual = np.empty(0, self.dtype)

    def array(self, values: np.ndarray) -> np.ndarray:
        return np.array(values, dtype=self.dtype, order="C")

    def empty(self, n: int | None = None) -> np.ndarray:
        shape = (1 + self.n_inputs, self.neurons)
        return np.empty(shape if n is None else (n, *shape), self.dtype)

    def _sweep(
        self, theta, residual=None, base=None, slopes=None, weights=None, slope=None, out=None,
        outputs=True,
    ) -> np.ndarray:  # fmt: skip
        """Run the compiled sweep with the parts whose arguments are given; return f (n,)."""
        scaled = self._no_residual if residual is None else self._scaled(residual)
        weights = self._no_residual if weights is None else weights.astype(self.dtype)
        n_slopes = len(weights) - (residual is not None) if out is not None else 0
        run_blocks(
            sweep, self._n_blocks, self._threads, self._work,
            self._activation.value, self._activation.both, self._scale,
            self._x, self._mobility, scaled, theta,
            self._no_state if base is None else base,
            self._no_slopes if slopes is None else slopes,
            n_slopes, weights,
            self._no_state if slope is None else slope,
            self._no_state if out is None else out,
            self._partial,
            residual is not None, slope is not None, out is not None, outputs,
        )  # fmt: skip
        return self.field.multiplier * np.add.reduce(self._partial, axis=0)

    def _scaled(self, residual: np.ndarray) -> np.ndarray:
        # n and kappa go into the residual: the per-neuron loop has one factor less.
        return (residual * (self.field.multiplier / self.n_samples)).astype(self.dtype)

    def outputs(self, theta: np.ndarray) -> np.ndarray:
        return self._sweep(theta)

    def rate(self, theta: np.ndarray, residual: np.ndarray, out: np.ndarray) -> None:
        self._sweep(theta, residual, slope=out, outputs=False)

    def combine(
        self,
        base: np.ndarray,
        slopes: np.ndarray,
        weights: np.ndarray,
        step: float,
        out: np.ndarray,
    ) -> np.ndarray:
        return self._sweep(base, base=base, slopes=slopes, weights=weights * step, out=out)

    def advance(
        self,
        theta: np.ndarray,
        residual: np.ndarray,
        base: np.ndarray,
        slopes: np.ndarray,
        weights: np.ndarray,
        step: float,
        out: np.ndarray,
        slope: np.ndarray | None = None,
    ) -> np.ndarray:
        return self._sweep(theta, residual, base, slopes, weights * step, slope, out)

    def advance_registers(
        self,
        theta: np.ndarray,
        residual: np.ndarray,
        memory: np.ndarray,
        base: np.ndarray,
        error: np.ndarray,
        factors: np.ndarray,
        fresh: bool = False,
    ) -> np.ndarray:
        run_blocks(
            advance_registers, self._n_blocks, self._threads, self._work,
            self._activation.value, self._activation.both, self._scale,
            self._x, self._mobility, self._scaled(residual),
            tuple(factors.astype(self.dtype)), fresh, theta, memory, base, error, self._partial,
        )  # fmt: skip
        return self.field.multiplier * np.add.reduce(self._partial, axis=0)

    def _by_layer(self, n_blocks: int) -> np.ndarray:
        """Add the row sums of the blocks, in block order, into (output, input)."""
        rows = np.add.reduce(self._row_partial[:n_blocks], axis=0)
        return np.array([rows[0], np.add.reduce(rows[1:])])

    def squared_norms(
        self, theta: np.ndarray, reference: np.ndarray | None, neurons: int
    ) -> np.ndarray:
        n_blocks = -(-neurons // BLOCK)
        run_blocks(
            measures.squared_norms, n_blocks, self._threads, self._work,
            theta, self._no_state if reference is None else reference, reference is not None,
            neurons, self._row_partial,
        )  # fmt: skip
        return self._by_layer(n_blocks)

    def squared_combination(self, slopes: np.ndarray, weights: np.ndarray) -> np.ndarray:
        run_blocks(
            measures.squared_combination, self._n_blocks, self._threads,
            float(BLOCK * slopes.shape[1] * len(weights)),
            slopes, weights, len(weights), self._row_partial,
        )  # fmt: skip
        return self._by_layer(self._n_blocks)

    def grams(self, theta: np.ndarray) -> np.ndarray:
        loops = self.n_samples < _SAMPLES_FOR_BLAS
        both = self._grams_by_loops(theta) if loops else self._grams_by_blas(theta)
        both *= self.field.multiplier**2
        both[1] *= self._inner
        return both

    def _grams_by_loops(self, theta: np.ndarray) -> np.ndarray:
        n = self.n_samples
        n_groups = -(-self._n_blocks // _GRAM_GROUP)
        partial = np.empty((n_groups, 2, n, n))
        run_blocks(
            measures.grams, n_groups, self._threads, float(_GRAM_GROUP * BLOCK * n * n),
            _GRAM_GROUP, self._activation.both, self._scale, self._x, theta, partial,
        )  # fmt: skip
        lower = np.add.reduce(partial, axis=0)
        return np.tril(lower) + np.swapaxes(np.tril(lower, -1), 1, 2)

    def _grams_by_blas(self, theta: np.ndarray) -> np.ndarray:
        """Symmetric rank-k updates, one for each group of neurons, in order."""
        n = self.n_samples
        blocks = max(1, _FEATURES // (n * BLOCK))
        values, slopes = np.empty((2, n, blocks * BLOCK))
        both = np.zeros((2, n, n))
        for first in range(0, self._n_blocks, blocks):
            here = min(blocks, self._n_blocks - first)
            size = min(here * BLOCK, self.neurons - first * BLOCK)
            run_blocks(
                measures.features, here, self._threads, self._work,
                first * BLOCK, self._activation.both, self._scale, self._x, theta, values, slopes,
            )  # fmt: skip
            both[0] += values[:, :size] @ values[:, :size].T
            both[1] += slopes[:, :size] @ slopes[:, :size].T
        return both

    def activity(self, theta: np.ndarray) -> tuple[int, int]:
        partial = np.empty((self._n_blocks, 2), np.int64)
        run_blocks(
            measures.activity, self._n_blocks, self._threads, self._work, self._x, theta, partial
        )
        everywhere, nowhere = partial.sum(axis=0)
        return int(everywhere), int(nowhere)
