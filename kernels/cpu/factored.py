"""Deep networks on the CPU with the rates of hidden matrices kept as factors: for n well below m.

A stage of a Runge-Kutta method reads every hidden matrix twice, forward and backward, and writes
none. A step writes them once. Two copies are held: the initial one and the present one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flowsim.kernels.interface import DeepField

from .factors import FactoredState, Rate, Rates, RateWeights, Shape, StateWeights
from .layers import Pass
from .rank_updates import squared_change
from .threads import one_blas_thread


class FactoredKernels:
    """`flowsim.kernels.interface.FlowKernels` of a deep network with factored rates.

    Its states are `FactoredState`, its stacks of slopes `Rates`. Registers of low-storage methods
    are states, not rates, so that these methods need `flowsim.kernels.cpu.deep`.

    Parameters
    ----------
    field : DeepField
        With at least one hidden matrix.
    dtype : numpy.dtype
    threads : int
    """

    turns = False
    begins_errors = False
    most_retraced = 0

    def __init__(self, field: DeepField, dtype: np.dtype, threads: int = 1) -> None:
        self.field = field
        self.dtype = np.dtype(dtype)
        self.n_samples = len(field.x)
        self.threads = threads
        self._shape = Shape(field.layout, field.copies, self.n_samples, self.dtype, threads)
        self._passes = [Pass(field, self.dtype, threads) for _ in range(field.copies)]
        spare = Rate(self._shape)
        self._products, self._later = spare.products, spare.later
        self._seen: tuple[tuple, np.ndarray] | None = None
        self._pulled = False
        self._f = np.empty(0)
        self._scratch = FactoredState(self._shape)

    def array(self, values: np.ndarray | FactoredState) -> FactoredState:
        if isinstance(values, FactoredState):
            return values  # of another flow of the same network, which reads it too
        state = FactoredState(self._shape)
        state.fill(np.asarray(values))
        return state

    def host(self, theta: FactoredState) -> np.ndarray:
        return np.asarray(theta)

    def empty(self, n: int | None = None) -> FactoredState | Rates:
        if n is None:
            return FactoredState(self._shape)
        return Rates([Rate(self._shape) for _ in range(n)])

    def settle(self, theta: FactoredState) -> None:
        """Write a state's matrices, before a step from it: the states before it are void."""
        with one_blas_thread():
            theta.settle()

    def weights(self, theta: FactoredState, copy: int, layer: int) -> np.ndarray:
        """Weights (fan_in, fan_out) of a layer, read only."""
        if layer in self._shape.hidden:
            return theta.hidden(copy, layer - 1)
        rows, columns = self._shape.matrix_shape(layer)
        part = theta.small[copy, self._shape.places[layer]]
        return part[: rows * columns].reshape(rows, columns)

    def pack(self, rate: Rate) -> np.ndarray:
        """What a rate was made of; computed anew at the settled state it would differ by bits."""
        return rate.pack()

    def unpack(self, packed: np.ndarray, theta: FactoredState, rate: Rate) -> None:
        """Make the rate at a state, which has been settled since, what was packed."""
        assert theta.matrices is not None
        rate.unpack(packed, theta.matrices.version - 1)

    def _views(self, theta: FactoredState) -> list[StateWeights]:
        return [
            StateWeights(self._shape, theta, copy, self._products[copy], self._later[copy])
            for copy in range(self.field.copies)
        ]

    def _forward(self, theta: FactoredState) -> np.ndarray:
        key = theta.key()
        known = self._seen is not None and self._seen[0] == key
        if not (known and np.array_equal(self._seen[1], theta.small)):  # type: ignore[index]
            self._seen, self._pulled = None, False
            pairs = zip(self._passes, self._views(theta), strict=True)
            self._f = np.sum([pass_.forward(view) for pass_, view in pairs], axis=0)
            self._seen = key, theta.small.copy()
        return self._f.copy()

    def _backward(self, theta: FactoredState, cotangent: np.ndarray | None) -> None:
        self._forward(theta)
        # A single output's derivatives do not depend on what is pulled back.
        if not self._pulled:
            for pass_, view in zip(self._passes, self._views(theta), strict=True):
                pass_.backward(view, cotangent)
            self._pulled = self.field.n_outputs == 1

    def outputs(self, theta: FactoredState) -> np.ndarray:
        with one_blas_thread():
            return self._forward(theta)

    def rate(self, theta: FactoredState, residual: np.ndarray, out: Rate) -> None:
        self.vjp(theta, residual * (-1.0 / self.n_samples), out)

    def jvp(self, theta: FactoredState, direction: Rate) -> np.ndarray:
        with one_blas_thread():
            self._prepare(theta)
            views = [RateWeights(self._shape, direction, c) for c in range(self.field.copies)]
            several = zip(self._passes, self._views(theta), views, strict=True)
            parts = [pass_.tangent(view, moving) for pass_, view, moving in several]
        if self.field.n_outputs > 1:
            self._seen = None  # the products that a rate takes over are those of the tangents now
        return np.sum(parts, axis=0)

    def _prepare(self, theta: FactoredState) -> None:
        """What tangents and Gram matrices need: of one output the derivatives, else the signals."""
        if self.field.n_outputs == 1:
            self._backward(theta, None)
        else:
            self._forward(theta)

    def vjp(
        self, theta: FactoredState, cotangent: np.ndarray, out: Rate, mobilities: bool = True
    ) -> None:
        field, shape = self.field, self._shape
        factors = field.mobilities if mobilities else np.ones_like(field.mobilities)
        with one_blas_thread():
            self._backward(theta, cotangent)
        assert theta.matrices is not None
        out.version, out.taken = out.version + 1, theta.matrices.version
        for copy, pass_ in enumerate(self._passes):
            for layer, mobility in enumerate(factors):
                pulled = pass_.pulled(layer, cotangent)
                place = out.small[copy, shape.places[layer]]
                if shape.layout.biases and layer > 0:
                    assert field.bias_multipliers is not None
                    factor = mobility * field.bias_multipliers[layer]
                    biases = place[len(place) - shape.layout.sizes[layer + 1] :]
                    biases[...] = factor * np.add.reduce(pulled, axis=0)
                pulled *= self.dtype.type(mobility * field.multipliers[layer])
                signal = pass_.signals[layer]
                if layer in shape.hidden:
                    out.p[copy][layer - 1][...] = pulled
                    out.q[copy][layer - 1][...] = signal
                    out.products[copy][layer - 1][...] = self._products[copy][layer - 1]
                    out.later[copy][layer - 1][...] = self._later[copy][layer - 1]
                else:
                    rows, columns = shape.matrix_shape(layer)
                    weights = place[: rows * columns].reshape(rows, columns)
                    np.matmul(signal.T, pulled, out=weights)

    def combine(
        self,
        base: FactoredState,
        slopes: Rates,
        weights: np.ndarray,
        step: float,
        out: FactoredState | None,
    ) -> np.ndarray:
        out = self._scratch if out is None else out
        out.become(base, list(zip(step * weights, slopes, strict=False)))
        return self.outputs(out)

    def advance(
        self,
        theta: FactoredState | None,
        residual: np.ndarray,
        base: FactoredState,
        slopes: Rates,
        weights: np.ndarray,
        step: float,
        out: FactoredState | None,
        slope: Rate | None = None,
        here: np.ndarray | None = None,
        others: np.ndarray | None = None,
        other: np.ndarray | None = None,
    ) -> np.ndarray:
        out = self._scratch if out is None else out
        if here is not None:
            theta = self._scratch
            theta.become(base, list(zip(step * here, slopes, strict=False)))
        assert theta is not None
        rate = out.own if slope is None else slope
        self.rate(theta, residual, rate)
        used = [*slopes[: len(weights) - 1], rate]
        out.become(base, list(zip(step * weights, used, strict=True)))
        return self.outputs(out)

    def rate_and_errors(
        self,
        theta: FactoredState,
        residual: np.ndarray,
        slopes: Rates,
        weights: np.ndarray,
        step: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        self.rate(theta, residual, slopes[-1])
        f = np.array([self.combine(theta, slopes, -row, step, None) for row in weights])
        squares = [self.squared_combination(slopes, step * row) for row in weights]
        return f, np.array([*squares, self.squared_norms(theta, None, self.field.copies)])

    def advance_registers(
        self,
        theta: FactoredState,
        residual: np.ndarray,
        memory: Rate,
        base: FactoredState,
        error: Rate,
        factors: np.ndarray,
        fresh: bool = False,
    ) -> np.ndarray:
        raise RuntimeError("low-storage methods need dense rates (passes = dense)")

    def advance_recurrence(
        self,
        theta: FactoredState,
        residual: np.ndarray,
        previous: FactoredState,
        base: FactoredState,
        first: Rate,
        factors: np.ndarray,
        out: FactoredState,
    ) -> np.ndarray:
        raise RuntimeError("stabilised methods need dense rates (passes = dense)")

    def _small_squares(self, values: np.ndarray, first: int) -> np.ndarray:
        """Sums of squares of each layer's small parameters (copies, small), in float64."""
        return np.array(
            [np.sum(values[:first, place].astype(np.float64) ** 2) for place in self._shape.places]
        )

    def squared_norms(
        self, theta: FactoredState, reference: FactoredState | None, first: int
    ) -> np.ndarray:
        small = theta.small.astype(np.float64)
        totals = self._small_squares(small if reference is None else small - reference.small, first)
        theta.check()
        assert theta.matrices is not None
        for copy in range(first):
            for number, layer in enumerate(self._shape.hidden):
                if reference is None:
                    totals[layer] += self._matrix_square(theta, copy, number)
                    continue
                assert reference.matrices is not None and not reference.terms
                with one_blas_thread():
                    totals[layer] += squared_change(
                        theta.matrices.array(copy, number),
                        theta.factors(copy, number) if theta.terms else None,
                        reference.matrices.array(copy, number),
                        self.threads,
                    )
        return totals

    def _matrix_square(self, theta: FactoredState, copy: int, number: int) -> float:
        """|W + D|^2 = |W|^2 + 2 <W, D> + |D|^2 without reading W: <W, Q^T P> = <Q W, P>."""
        assert theta.matrices is not None
        total = theta.matrices.square(copy, number)
        for weight, rate in theta.terms:
            product = rate.product(copy, number, theta.matrices.version)
            p = rate.p[copy][number]
            total += 2.0 * weight * float(np.sum(product * p, dtype=np.float64))
        weights = [weight for weight, _ in theta.terms]
        rates = [rate for _, rate in theta.terms]
        return total + _combined_square(weights, rates, copy, number)

    def squared_combination(self, slopes: Rates, weights: np.ndarray) -> np.ndarray:
        small = np.zeros(slopes[0].small.shape)
        for weight, rate in zip(weights, slopes, strict=False):
            small += weight * rate.small
        totals = self._small_squares(small, self.field.copies)
        rates = list(slopes[: len(weights)])
        with one_blas_thread():
            for copy in range(self.field.copies):
                for number, layer in enumerate(self._shape.hidden):
                    totals[layer] += _combined_square(list(weights), rates, copy, number)
        return totals

    def grams(self, theta: FactoredState) -> np.ndarray:
        with one_blas_thread():
            self._prepare(theta)
            pairs = zip(self._passes, self._views(theta), strict=True)
            return np.sum([pass_.grams(view) for pass_, view in pairs], axis=0)


def _combined_square(
    weights: Sequence[float], rates: Sequence[Rate], copy: int, number: int
) -> float:
    """|sum_j w_j Q_j^T P_j|^2 by n x n products.

    The rates of one step are nearly the same, and an error nearly cancels them. So they are taken
    relative to the first one: with Q_j = Q + q_j and P_j = P + p_j the sum is

        Q^T (sum_j w_j P_j) + (sum_j w_j q_j)^T P + sum_j w_j q_j^T p_j,

    in which nothing large is left to cancel.
    """
    if not rates:
        return 0.0
    first_p, first_q = rates[0].p[copy][number], rates[0].q[copy][number]
    n = len(first_p)
    # Written where they are multiplied: fresh memory costs more than the products.
    left, right = (np.empty(((1 + len(rates)) * n, array.shape[1])) for array in (first_q, first_p))
    left[:n], right[n : 2 * n] = first_q, first_p
    turned, total = left[n : 2 * n], right[:n]
    turned[...] = 0.0
    np.multiply(first_p, weights[0], out=total, dtype=np.float64)
    for place, (weight, rate) in enumerate(zip(weights[1:], rates[1:], strict=True), start=2):
        rows = slice(place * n, (place + 1) * n)
        p, q = rate.p[copy][number], rate.q[copy][number]
        np.subtract(q, first_q, out=left[rows], dtype=np.float64)
        turned += weight * left[rows]
        np.subtract(p, first_p, out=right[rows], dtype=np.float64)
        right[rows] *= weight
        total += weight * p.astype(np.float64, copy=False)
    return max(float(np.sum((left @ left.T) * (right @ right.T))), 0.0)
