"""The CUDA backend: two-layer kernels, one pass over the neurons of a state that stays there."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowsim.kernels.interface import NeuronBlocks, TwoLayerField

from .choice import choose_way
from .device import use_device
from .few import MOST_GRAM_SAMPLES, FewPasses
from .matrix import MatrixPasses
from .sums import Sums, invariant_drift, squares

State = Any
"""An array of CuPy."""


class CudaKernels:
    """`flowsim.kernels.interface.TwoLayerKernels` in CUDA C++.

    Bits do not depend on the card where a neuron is all in registers; matrix products are those of
    its cuBLAS.

    Parameters
    ----------
    field : TwoLayerField
    neurons : int
    dtype : numpy.dtype
        float64 or float32: of the state and of each neuron's own arithmetic. Sums over neurons
        are float64.
    threads : int
        Ignored.
    passes : str
        See `flowsim.kernels.cuda.choice`.
    device : int
        Its number; from now on the present one of this thread.
    """

    turns = True
    has_blocks = False

    def __init__(
        self,
        field: TwoLayerField,
        neurons: int,
        dtype: np.dtype,
        threads: int = 1,
        passes: str = "auto",
        device: int = 0,
    ) -> None:
        self.field, self.neurons, self.dtype = field, neurons, np.dtype(dtype)
        self.n_samples, self.n_inputs = field.x.shape
        self._cupy = use_device(device)
        self._sums = Sums(self._cupy)
        self.way = choose_way(field, self.dtype, passes)
        made = self.field, neurons, self.dtype, self._cupy, self._sums
        # Few samples have all their pairs in registers; for more, K is a matrix product.
        matrix: Any = None
        if self.way == "matrix" or self.n_samples > MOST_GRAM_SAMPLES:
            matrix = MatrixPasses(*made)
        self.passes: Any = FewPasses(*made) if self.way == "few" else matrix
        self.begins_errors = self.way == "few"
        self.most_retraced = self.passes.most_retraced
        self._grams: Any = matrix or self.passes
        self._factor = self.passes.output_factor
        self._inner = field.x @ field.x.T

    def array(self, values: Any) -> State:
        return self._cupy.array(values, dtype=self.dtype, order="C")

    def host(self, theta: State) -> np.ndarray:
        return np.asarray(theta.get())

    def empty(self, n: int | None = None) -> State:
        shape = (1 + self.n_inputs, self.neurons)
        return self._cupy.empty(shape if n is None else (n, *shape), self.dtype)

    def outputs(self, theta: State) -> np.ndarray:
        return self._factor * self.passes.sweep(theta)

    def rate(self, theta: State, residual: np.ndarray, out: State) -> None:
        self.passes.sweep(theta, residual, slope=out, outputs=False)

    def vjp(self, theta: State, cotangent: np.ndarray, out: State, mobilities: bool = True) -> None:
        # The rate for a residual e is this for the cotangent -e/n.
        residual = -self.n_samples * cotangent
        self.passes.sweep(theta, residual, slope=out, outputs=False, mobilities=mobilities)

    def jvp(self, theta: State, direction: State) -> np.ndarray:
        return self._factor * self.passes.tangent(theta, direction)

    def combine(
        self, base: State, slopes: State, weights: np.ndarray, step: float, out: State | None
    ) -> np.ndarray:
        sums = self.passes.sweep(None, base=base, slopes=slopes, weights=weights * step, out=out)
        return self._factor * sums

    def advance(
        self,
        theta: State | None,
        residual: np.ndarray,
        base: State,
        slopes: State,
        weights: np.ndarray,
        step: float,
        out: State | None,
        slope: State | None = None,
        here: np.ndarray | None = None,
        others: np.ndarray | None = None,
        other: State | None = None,
    ) -> np.ndarray:
        where = None if here is None else here * step
        more = {} if others is None else {"others": others * step, "other": other}
        sums = self.passes.sweep(
            theta, residual, base, slopes, where, weights * step, slope, out, **more
        )
        return self._factor * sums

    def end_error(
        self,
        theta: State,
        residual: np.ndarray,
        slope: State,
        weight: float,
        step: float,
        begun: State,
    ) -> tuple[np.ndarray, np.ndarray]:
        weights = np.array([[1.0, step * weight]])
        sums, found = self.passes.errors(theta, residual, begun[None], weights, slope)
        return self._factor * sums[0], found

    def retrace(
        self,
        base: State,
        residuals: np.ndarray,
        rows: np.ndarray,
        step: float,
        out: State | None,
    ) -> np.ndarray:
        return self._factor * self.passes.retrace(base, residuals, rows * step, out)

    def retrace_errors(
        self, base: State, residuals: np.ndarray, rows: np.ndarray, weights: np.ndarray, step: float
    ) -> tuple[np.ndarray, np.ndarray]:
        sums, found = self.passes.retrace_errors(base, residuals, rows * step, weights * step)
        return self._factor * sums, found

    def advance_registers(
        self,
        theta: State,
        residual: np.ndarray,
        memory: State,
        base: State,
        error: State,
        factors: np.ndarray,
        fresh: bool = False,
    ) -> np.ndarray:
        sums = self.passes.registers(theta, residual, memory, base, error, factors, fresh)
        return self._factor * sums

    def advance_recurrence(
        self,
        theta: State,
        residual: np.ndarray,
        previous: State,
        base: State,
        first: State,
        factors: np.ndarray,
        out: State,
    ) -> np.ndarray:
        sums = self.passes.recurrence(theta, residual, previous, base, first, factors, out)
        return self._factor * sums

    def rate_and_errors(
        self, theta: State, residual: np.ndarray, slopes: State, weights: np.ndarray, step: float
    ) -> tuple[np.ndarray, np.ndarray]:
        slope = slopes[weights.shape[1] - 1]
        sums, found = self.passes.errors(theta, residual, slopes, weights * step, slope)
        return self._factor * sums, found

    def squared_norms(self, theta: State, reference: State | None, first: int) -> np.ndarray:
        if reference is None:
            return squares(self._sums, theta, np.ones(1), stride=0, width=first)
        # Two states are terms that lie as far apart as they happen to do.
        stride = (reference.data.ptr - theta.data.ptr) // self.dtype.itemsize
        return squares(self._sums, theta, np.array([1.0, -1.0]), stride, first)

    def squared_combination(self, slopes: State, weights: np.ndarray) -> np.ndarray:
        return squares(self._sums, slopes, weights)

    def grams(self, theta: State) -> np.ndarray:
        both = self._grams.grams(theta) * self.field.multiplier**2
        both[0] /= self.field.activation_scale**2
        both[1] *= self._inner
        return both

    def kinks(self) -> Any:
        raise ValueError("kinks are passed one by one on the CPU only")

    def neuron_blocks(self) -> NeuronBlocks:
        raise ValueError("neurons' own blocks are known on the CPU only, see has_blocks")

    def invariant_drift(self, initial: State, theta: State) -> float:
        mobilities = self.field.output_mobility, self.field.input_mobility
        return invariant_drift(self._sums, initial, theta, *mobilities)

    def activity(self, theta: State) -> tuple[int, int]:
        everywhere, nowhere = self.passes.activity(theta)
        return int(everywhere), int(nowhere)
