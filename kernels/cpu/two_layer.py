"""The CPU backend: two-layer kernels in Numba, parallel over blocks of neurons."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from flowsim.kernels.interface import TwoLayerField

from . import measures
from .choice import make_passes
from .kinks import CpuKinks
from .neuron_blocks import CpuNeuronBlocks
from .passes import Passes
from .streams import empty_in_lines
from .threads import run_blocks


class CpuKernels:
    """`flowsim.kernels.interface.TwoLayerKernels` compiled by Numba.

    Results do not depend on ``threads``, bit for bit.

    Parameters
    ----------
    field : TwoLayerField
    neurons : int
    dtype : numpy.dtype
        float64 or float32: of the state and of each neuron's own arithmetic. Sums over the blocks
        of neurons are float64.
    threads : int
        At most this many threads; small networks use one.
    passes : str
        Way of passing over the neurons, see `flowsim.kernels.cpu.choice`.
    device : int
        Ignored.
    """

    has_blocks = True

    def __init__(
        self,
        field: TwoLayerField,
        neurons: int,
        dtype: np.dtype,
        threads: int = 1,
        passes: str = "auto",
        device: int = 0,
    ) -> None:
        self.field = field
        self.neurons = neurons
        self.dtype = np.dtype(dtype)
        self.n_samples, self.n_inputs = field.x.shape
        self.passes = make_passes(field, neurons, self.dtype, threads, passes)
        self._made = threads, passes
        self.turns = self.passes.turns
        self.begins_errors = self.passes.begins_errors
        self.most_retraced = 0
        self._inner = field.x @ field.x.T

    def array(self, values: np.ndarray) -> np.ndarray:
        return np.array(values, dtype=self.dtype, order="C")

    def host(self, theta: np.ndarray) -> np.ndarray:
        return theta

    def empty(self, n: int | None = None) -> np.ndarray:
        shape = (1 + self.n_inputs, self.neurons)
        return empty_in_lines(shape if n is None else (n, *shape), self.dtype)

    def outputs(self, theta: np.ndarray) -> np.ndarray:
        return self.field.multiplier * self.passes.sweep(theta)

    def rate(self, theta: np.ndarray, residual: np.ndarray, out: np.ndarray) -> None:
        self.passes.sweep(theta, residual, slope=out, outputs=False)

    @cached_property
    def _plain(self) -> Passes:
        """Passes with both mobilities 1."""
        field = replace(self.field, output_mobility=1.0, input_mobility=1.0)
        threads, passes = self._made
        return make_passes(field, self.neurons, self.dtype, threads, passes)

    def vjp(
        self, theta: np.ndarray, cotangent: np.ndarray, out: np.ndarray, mobilities: bool = True
    ) -> None:
        passes = self.passes if mobilities else self._plain
        # The rate for a residual e is this for the cotangent -e/n.
        passes.sweep(theta, -self.n_samples * cotangent, slope=out, outputs=False)

    def jvp(self, theta: np.ndarray, direction: np.ndarray) -> np.ndarray:
        return self.field.multiplier * self.passes.tangent(theta, direction)

    def combine(
        self,
        base: np.ndarray,
        slopes: np.ndarray,
        weights: np.ndarray,
        step: float,
        out: np.ndarray | None,
    ) -> np.ndarray:
        sums = self.passes.sweep(None, base=base, slopes=slopes, weights=weights * step, out=out)
        return self.field.multiplier * sums

    def advance(
        self,
        theta: np.ndarray | None,
        residual: np.ndarray,
        base: np.ndarray,
        slopes: np.ndarray,
        weights: np.ndarray,
        step: float,
        out: np.ndarray | None,
        slope: np.ndarray | None = None,
        here: np.ndarray | None = None,
        others: np.ndarray | None = None,
        other: np.ndarray | None = None,
    ) -> np.ndarray:
        where = None if here is None else here * step
        if others is None:
            more: dict[str, Any] = {}
        else:
            more = {"others": others * step, "other": other}
        sums = self.passes.sweep(
            theta, residual, base, slopes, where, weights * step, slope, out, **more
        )
        return self.field.multiplier * sums

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
        sums = self.passes.registers(theta, residual, memory, base, error, factors, fresh)
        return self.field.multiplier * sums

    def advance_recurrence(
        self,
        theta: np.ndarray,
        residual: np.ndarray,
        previous: np.ndarray,
        base: np.ndarray,
        first: np.ndarray,
        factors: np.ndarray,
        out: np.ndarray,
    ) -> np.ndarray:
        sums = self.passes.recurrence(theta, residual, previous, base, first, factors, out)
        return self.field.multiplier * sums

    def rate_and_errors(
        self,
        theta: np.ndarray,
        residual: np.ndarray,
        slopes: np.ndarray,
        weights: np.ndarray,
        step: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        sums, squares = self.passes.errors(theta, residual, slopes, weights * step)
        return self.field.multiplier * sums, squares

    def end_error(
        self,
        theta: np.ndarray,
        residual: np.ndarray,
        slope: np.ndarray,
        weight: float,
        step: float,
        begun: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        sums, squares = self.passes.end_error(theta, residual, slope, weight * step, begun)
        return self.field.multiplier * sums, squares

    def squared_norms(
        self, theta: np.ndarray, reference: np.ndarray | None, neurons: int
    ) -> np.ndarray:
        return self.passes.squared_norms(theta, reference, neurons)

    def squared_combination(self, slopes: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return self.passes.squared_combination(slopes, weights)

    def grams(self, theta: np.ndarray) -> np.ndarray:
        both = self.passes.grams(theta)
        both *= self.field.multiplier**2
        both[1] *= self._inner
        return both

    def neuron_blocks(self) -> CpuNeuronBlocks:
        return CpuNeuronBlocks(self.field, self.neurons, self.dtype, self.passes.threads)

    def kinks(self) -> CpuKinks:
        if self.dtype != np.float64:
            raise ValueError(f"kinks of {self.dtype} states are not known, of float64 only")
        return CpuKinks(self.field, self.neurons, self.passes.threads)

    def invariant_drift(self, initial: np.ndarray, theta: np.ndarray) -> float:
        mobilities = self.field.output_mobility, self.field.input_mobility
        return float(measures.invariant_drift(initial, theta, *mobilities))

    def activity(self, theta: np.ndarray) -> tuple[int, int]:
        n_blocks = -(-self.neurons // measures.BLOCK)
        partial = np.empty((n_blocks, 2), np.int64)
        run_blocks(
            measures.activity, n_blocks, self.passes.threads, self.passes.work,
            self.passes.x, theta, self.neurons, partial,
        )  # fmt: skip
        everywhere, nowhere = partial.sum(axis=0)
        return int(everywhere), int(nowhere)
