"""What every way to pass over the neurons on the CPU has in common.

The ways: `piecewise` for piecewise linear activations and few inputs, `general` for any
activation and few inputs, `matrix` for many inputs. Which one a problem gets says `choice`. Sums
over neurons are over blocks of fixed size in the order of the blocks, for any number of threads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from flowsim.kernels.interface import TwoLayerField

from . import measures
from .activations import compile_activation
from .threads import run_blocks

_SAMPLES_FOR_BLAS = 64
"""Samples from which on a Gram matrix is faster by BLAS than by compiled loops."""

_FEATURES = 1 << 20
"""Numbers in the n x block arrays that BLAS multiplies: some 8 MB."""

GRAM_GROUP = 64
"""Blocks that share one partial Gram matrix: bounds the memory, and fixes the order of the sum."""


class Passes(ABC):
    """Passes over the neurons of one network; arrays as in `TwoLayerKernels`.

    Sums for f come without the factor ``field.multiplier``.

    Parameters
    ----------
    field : TwoLayerField
    neurons : int
    dtype : numpy.dtype
    threads : int
        At most this many; small networks use one.
    """

    block: ClassVar[int]
    """Neurons in a block."""
    turns: ClassVar[bool] = False
    """See `TwoLayerKernels.turns`."""
    begins_errors: ClassVar[bool] = False
    """See `TwoLayerKernels.begins_errors`; then `sweep` takes ``others`` and ``other``."""
    work_for_threads: ClassVar[float] = 4e5
    """Multiply-adds, some 15 microseconds, under which a second thread gains a pass nothing."""

    def __init__(self, field: TwoLayerField, neurons: int, dtype: np.dtype, threads: int) -> None:
        self.field, self.neurons, self.dtype = field, neurons, dtype
        self.n_samples, self.n_inputs = field.x.shape
        self.x = np.ascontiguousarray(field.x, dtype)
        self.n_blocks = -(-neurons // self.block)
        self.work = float(self.block * self.n_samples * (2 * self.n_inputs + 4))
        self.threads = threads if self.n_blocks * self.work > self.work_for_threads else 1
        self.no_slopes = np.empty((0, 1 + self.n_inputs, neurons), dtype)
        self.no_state = np.empty((1 + self.n_inputs, 0), dtype)

    def _scaled(self, residual: np.ndarray) -> np.ndarray:
        """e kappa / n in the state's dtype: the loop over neurons has one factor less."""
        return (residual * (self.field.multiplier / self.n_samples)).astype(self.dtype)

    def _or_none(self, state: np.ndarray | None) -> np.ndarray:
        return self.no_state if state is None else state

    @abstractmethod
    def sweep(
        self,
        theta: np.ndarray | None,
        residual: np.ndarray | None = None,
        base: np.ndarray | None = None,
        slopes: np.ndarray | None = None,
        here: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        slope: np.ndarray | None = None,
        out: np.ndarray | None = None,
        outputs: bool = True,
    ) -> np.ndarray:
        """Rate where there is a ``residual``, combination where there are ``weights``; outputs.

        The weights include the step, and with a residual one more for the velocity. With ``here``
        the rate is taken at base + sum_j here[j] slopes[j] in the place of ``theta``.
        """

    @abstractmethod
    def registers(
        self,
        theta: np.ndarray,
        residual: np.ndarray,
        memory: np.ndarray,
        base: np.ndarray,
        error: np.ndarray,
        stage: np.ndarray,
        fresh: bool,
    ) -> np.ndarray:
        """Stage of a low-storage method, as `TwoLayerKernels.advance_registers`."""

    @abstractmethod
    def recurrence(
        self,
        theta: np.ndarray,
        residual: np.ndarray,
        previous: np.ndarray,
        base: np.ndarray,
        first: np.ndarray,
        stage: np.ndarray,
        out: np.ndarray,
    ) -> np.ndarray:
        """Stage of a three-term recurrence, as `TwoLayerKernels.advance_recurrence`."""

    @abstractmethod
    def tangent(self, theta: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Derivative of the sums along a slope, see `flowsim.kernels.cpu.tangents`."""

    def errors(
        self, theta: np.ndarray, residual: np.ndarray, slopes: np.ndarray, weights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rate into the last slope, then the errors ``weights`` (e, stages) give.

        Returns the sums for f at theta minus each error (e, n), and the squares of the errors and
        of theta (e + 1, 2), each as (output, input).
        """
        self.sweep(theta, residual, slope=slopes[-1], outputs=False)
        sums = [self.sweep(None, base=theta, slopes=slopes, weights=-row) for row in weights]
        squares = [self.squared_combination(slopes, row) for row in weights]
        squares.append(self.squared_norms(theta, None, self.neurons))
        return np.array(sums), np.array(squares)

    def end_error(
        self,
        theta: np.ndarray,
        residual: np.ndarray,
        slope: np.ndarray,
        weight: float,
        begun: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rate into ``slope``, then the error begun + weight slope, as `errors` of one solution."""
        raise NotImplementedError  # unless it `begins_errors`

    def squared_norms(
        self, theta: np.ndarray, reference: np.ndarray | None, neurons: int
    ) -> np.ndarray:
        """Sums of (theta - reference)^2 over the first ``neurons`` neurons: (output, input)."""
        n_blocks = -(-neurons // measures.BLOCK)
        partial = np.empty((n_blocks, 1 + self.n_inputs))
        run_blocks(
            measures.squared_norms, n_blocks, self.threads, self.work,
            theta, self._or_none(reference), neurons, partial,
        )  # fmt: skip
        return _by_layer(partial)

    def squared_combination(self, slopes: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Sums of (sum_j weights[j] slopes[j])^2 over all neurons: (output, input)."""
        n_blocks = -(-self.neurons // measures.BLOCK)
        partial = np.empty((n_blocks, 1 + self.n_inputs))
        run_blocks(
            measures.squared_combination, n_blocks, self.threads,
            float(measures.BLOCK * slopes.shape[1] * len(weights)),
            slopes, weights, len(weights), partial,
        )  # fmt: skip
        return _by_layer(partial)

    def grams(self, theta: np.ndarray) -> np.ndarray:
        """Gram matrices (2, n, n) of the layers' derivatives of f / kappa, without x_i . x_j."""
        if self.n_samples < _SAMPLES_FOR_BLAS:
            return self._grams_by_loops(theta)
        return self._grams_by_blas(theta)

    def _grams_by_loops(self, theta: np.ndarray) -> np.ndarray:
        n_groups = -(-self.n_blocks // GRAM_GROUP)
        partial = np.empty((n_groups, 2, self.n_samples, self.n_samples))
        self._run_grams(
            n_groups, float(GRAM_GROUP * self.block * self.n_samples**2), theta, partial
        )
        lower = np.add.reduce(partial, axis=0)
        return np.tril(lower) + np.swapaxes(np.tril(lower, -1), 1, 2)

    @abstractmethod
    def _run_grams(
        self, n_groups: int, work: float, theta: np.ndarray, partial: np.ndarray
    ) -> None:
        """Lower triangles for each group of blocks."""

    def _grams_by_blas(self, theta: np.ndarray) -> np.ndarray:
        """Symmetric rank-k updates, one for each group of neurons, in order."""
        n, size = self.n_samples, measures.BLOCK
        activation = compile_activation(self.field.activation, self.dtype)
        scale = self.dtype.type(self.field.activation_scale)
        n_blocks = -(-self.neurons // size)
        blocks = max(1, _FEATURES // (n * size))
        values, slopes = np.empty((2, n, blocks * size))
        both = np.zeros((2, n, n))
        for first in range(0, n_blocks, blocks):
            here = min(blocks, n_blocks - first)
            count = min(here * size, self.neurons - first * size)
            run_blocks(
                measures.features, here, self.threads, self.work,
                first * size, activation.both, scale, self.x, theta, values, slopes,
            )  # fmt: skip
            both[0] += values[:, :count] @ values[:, :count].T
            both[1] += slopes[:, :count] @ slopes[:, :count].T
        return both


def _by_layer(partial: np.ndarray) -> np.ndarray:
    """Add the row sums of the blocks, in block order, into (output, input)."""
    layers = np.empty(2)
    measures.add_by_layer(partial, layers)
    return layers
