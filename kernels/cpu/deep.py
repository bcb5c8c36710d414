"""Deep networks on the CPU with all rates written out: the way where n is comparable with m."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from flowsim.kernels.interface import DeepField, DeepLayout

from . import flat, layers
from .dense_rates import Combination, in_one_pass, write_rate
from .layers import Pass
from .streams import empty_in_lines
from .threads import one_blas_thread


class RowWeights:
    """Weights that lie in one row of a state (see `flowsim.kernels.interface.DeepLayout`)."""

    def __init__(self, layout: DeepLayout, row: np.ndarray, threads: int) -> None:
        self._layout, self._row, self._threads = layout, row, threads

    def times(self, layer: int, signal: np.ndarray, out: np.ndarray) -> None:
        layers.times(signal, self._layout.weights(self._row, layer), out, self._threads)

    def pull(self, layer: int, back: np.ndarray, out: np.ndarray) -> None:
        layers.pull(back, self._layout.weights(self._row, layer), out, self._threads)

    def bias(self, layer: int) -> np.ndarray | None:
        return self._layout.bias(self._row, layer)


def _recipe(
    base: np.ndarray, slopes: np.ndarray, weights: np.ndarray, velocity: np.ndarray | None
) -> tuple:
    """What tells a combination from another one, of the same arrays as they are now."""
    used = len(weights) - (velocity is not None)
    addresses = [base.ctypes.data, *(slopes[j].ctypes.data for j in range(used))]
    if velocity is not None:
        addresses.append(velocity.ctypes.data)
    return (*addresses, weights.tobytes())


class DeepCpuKernels:
    """`flowsim.kernels.interface.FlowKernels` of a deep network: BLAS, and loops around it.

    A state is an array (copies, parameters). What a pass has computed at a state is kept with a
    checksum of the state: a rate where the outputs have just been computed goes backward only.

    Parameters
    ----------
    field : DeepField
    dtype : numpy.dtype
        float64 or float32, also of the arithmetic but for f, e and norms.
    threads : int
    """

    turns = False
    begins_errors = False
    most_retraced = 0

    def __init__(self, field: DeepField, dtype: np.dtype, threads: int = 1) -> None:
        self.field = field
        self.layout = field.layout
        self.dtype = np.dtype(dtype)
        self.n_samples = len(field.x)
        self.threads = threads
        self._passes = [Pass(field, self.dtype, threads) for _ in range(field.copies)]
        self._seen: np.ndarray | int | None = None
        self._pulled = False
        self._f = np.empty(0)
        self._spare: np.ndarray | None = None
        self._made: tuple | None = None
        self._writings = 0

    def array(self, values: np.ndarray) -> np.ndarray:
        return np.array(values, dtype=self.dtype, order="C")

    def host(self, theta: np.ndarray) -> np.ndarray:
        return theta

    def empty(self, n: int | None = None) -> np.ndarray:
        shape = (self.field.copies, self.layout.length)
        return empty_in_lines(shape if n is None else (n, *shape), self.dtype)

    def weights(self, theta: np.ndarray, copy: int, layer: int) -> np.ndarray:
        """Weights (fan_in, fan_out) of a layer, read only."""
        return self.layout.weights(theta[copy], layer)

    def _scratch(self) -> np.ndarray:
        """A state for what is wanted nowhere, to be written; made when it is first needed."""
        self._made = None
        self._writings += 1
        if self._spare is None:
            self._spare = self.empty()
        return self._spare

    def _combine(
        self,
        base: np.ndarray,
        slopes: np.ndarray,
        weights: np.ndarray,
        velocity: np.ndarray | None,
        out: np.ndarray | None,
    ) -> np.ndarray:
        """Base plus combination into ``out`` or the scratch state, which is made once only.

        A stage ends with a state that the next one begins with. Whatever else is asked for in
        between voids it: slopes and base are known to be the same only from one call to the next.
        """
        if out is not None:
            self._made = None
            flat.combine(base, slopes, weights, velocity, out, self.threads)
            return out
        made = _recipe(base, slopes, weights, velocity)
        if made == self._made:
            assert self._spare is not None
            return self._spare
        out = self._scratch()
        flat.combine(base, slopes, weights, velocity, out, self.threads)
        self._made = made
        return out

    def _contents(self, theta: np.ndarray) -> np.ndarray | int:
        """Something that changes with a state's contents.

        The scratch state is written here alone, so that counting is enough.
        """
        return self._writings if theta is self._spare else flat.checksums(theta, self.threads)

    def _forward(self, theta: np.ndarray) -> np.ndarray:
        seen = self._contents(theta)
        if not (type(seen) is type(self._seen) and np.array_equal(seen, self._seen)):
            self._seen, self._pulled = None, False
            with one_blas_thread():
                parts = [
                    pass_.forward(RowWeights(self.layout, row, self.threads))
                    for pass_, row in zip(self._passes, theta, strict=True)
                ]
            self._f = np.sum(parts, axis=0)
            self._seen = seen
        return self._f.copy()

    def outputs(self, theta: np.ndarray) -> np.ndarray:
        return self._forward(theta)

    def _backward(self, theta: np.ndarray, cotangent: np.ndarray | None) -> None:
        self._forward(theta)
        # A single output's derivatives do not depend on what is pulled back.
        if not self._pulled:
            for pass_, row in zip(self._passes, theta, strict=True):
                pass_.backward(RowWeights(self.layout, row, self.threads), cotangent)
            self._pulled = self.field.n_outputs == 1

    def rate(self, theta: np.ndarray, residual: np.ndarray, out: np.ndarray) -> None:
        self.vjp(theta, residual * (-1.0 / self.n_samples), out)

    def jvp(self, theta: np.ndarray, direction: np.ndarray) -> np.ndarray:
        with one_blas_thread():
            self._prepare(theta)
            views = [
                [RowWeights(self.layout, row, self.threads) for row in rows]
                for rows in (theta, direction)
            ]
            several = zip(self._passes, *views, strict=True)
            return np.sum([pass_.tangent(view, moving) for pass_, view, moving in several], axis=0)

    def _prepare(self, theta: np.ndarray) -> None:
        """What tangents and Gram matrices need: of one output the derivatives, else the signals."""
        if self.field.n_outputs == 1:
            self._backward(theta, None)
        else:
            self._forward(theta)

    def vjp(
        self, theta: np.ndarray, cotangent: np.ndarray, out: np.ndarray, mobilities: bool = True
    ) -> None:
        self._made = None
        with one_blas_thread():
            self._backward(theta, cotangent)
            self._write_rates(cotangent, out, mobilities)

    def _write_rates(
        self,
        cotangent: np.ndarray,
        out: np.ndarray,
        mobilities: bool = True,
        combination: Combination | None = None,
        kept: bool = True,
    ) -> dict[tuple[int, int], float]:
        """Write Phi v, v = ``cotangent``, into ``out``, after `_backward`.

        What is made of it, a combination, is made at once where that is the faster way. Those
        hidden matrices' rates are written only if they are to be ``kept``. Returns what
        `write_rate` does, by copy and layer, for where that has been done.
        """
        field, layout, done = self.field, self.layout, {}
        factors = field.mobilities if mobilities else np.ones_like(field.mobilities)
        slopes = out.reshape(-1) if kept or combination is None else None
        for copy, (pass_, target) in enumerate(zip(self._passes, out, strict=True)):
            for layer, mobility in enumerate(factors):
                pulled = pass_.pulled(layer, cotangent)
                bias = layout.bias(target, layer)
                if bias is not None:
                    assert field.bias_multipliers is not None
                    factor = mobility * field.bias_multipliers[layer]
                    bias[...] = factor * np.add.reduce(pulled, axis=0)
                factor, weights = mobility * field.multipliers[layer], layout.weights(target, layer)
                signal = pass_.signals[layer]
                if not in_one_pass(self.n_samples, *weights.shape):
                    pulled *= self.dtype.type(factor)
                    layers.outer(signal, pulled, weights, self.threads)
                    continue
                begin = copy * layout.length + layout.bounds[layer]
                done[copy, layer] = write_rate(
                    signal, pulled, factor, slopes, begin, combination, self.threads
                )
        return done

    def combine(
        self,
        base: np.ndarray,
        slopes: np.ndarray,
        weights: np.ndarray,
        step: float,
        out: np.ndarray | None,
    ) -> np.ndarray:
        return self._forward(self._combine(base, slopes, step * weights, None, out))

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
        if here is not None:
            theta = self._combine(base, slopes, step * here, None, None)
        assert theta is not None
        # Without a place of its own the velocity is written where the new state is going to be.
        free = out is not None and out is not theta and out is not base
        velocity = slope if slope is not None else (out if free else self.empty())
        assert velocity is not None
        cotangent = residual * (-1.0 / self.n_samples)
        with one_blas_thread():
            self._backward(theta, cotangent)
            new = self._scratch() if out is None else out
            rows = slopes.reshape(len(slopes), base.size)
            combination = Combination(base.reshape(-1), rows, step * weights, new.reshape(-1))
            done = self._write_rates(
                cotangent, velocity, combination=combination, kept=slope is not None
            )
        self._made = None
        for begin, end in self._rest(done):
            flat.combine(base, slopes, step * weights, velocity, new, self.threads, begin, end)
        if out is None and slope is not None:
            self._made = _recipe(base, slopes, step * weights, velocity)
        return self._forward(new)

    def _rest(self, done: Collection[tuple[int, int]]) -> list[tuple[int, int]]:
        """Ranges of a state, flat, without the weights of some layers of some copies."""
        ends = [0]
        for copy, layer in sorted(done):
            begin = copy * self.layout.length + self.layout.bounds[layer]
            rows, columns = self.layout.sizes[layer : layer + 2]
            ends += [begin, begin + rows * columns]
        ends.append(self.field.copies * self.layout.length)
        return list(zip(ends[::2], ends[1::2], strict=True))

    def rate_and_errors(
        self,
        theta: np.ndarray,
        residual: np.ndarray,
        slopes: np.ndarray,
        weights: np.ndarray,
        step: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        cotangent = residual * (-1.0 / self.n_samples)
        with one_blas_thread():
            self._backward(theta, cotangent)
            without = self._scratch()
            combination = Combination(
                theta.reshape(-1), slopes.reshape(len(slopes), -1), step * weights[0],
                without.reshape(-1), error=True,
            )  # fmt: skip
            done = self._write_rates(cotangent, slopes[-1], combination=combination)
        squares = [self._combined_squares(slopes, step * weights[0], theta, without, done)]
        f = [self._forward(without)]
        for row in weights[1:]:
            without = self._scratch()
            squares.append(self._combined_squares(slopes, step * row, theta, without))
            f.append(self._forward(without))
        squares.append(self.squared_norms(theta, None, self.field.copies))
        return np.array(f), np.array(squares)

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
        velocity = self._scratch()
        self.rate(theta, residual, velocity)
        flat.move_registers(velocity, theta, memory, base, error, factors, fresh, self.threads)
        return self._forward(theta)

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
        velocity = self._scratch()
        self.rate(theta, residual, velocity)
        flat.move_recurrence(velocity, theta, previous, base, first, factors, out, self.threads)
        return self._forward(out)

    def squared_norms(
        self, theta: np.ndarray, reference: np.ndarray | None, first: int
    ) -> np.ndarray:
        totals = np.zeros(len(self.field.multipliers))
        for copy in range(first):
            for layer in range(len(totals)):
                part = slice(*self.layout.bounds[layer : layer + 2])
                other = None if reference is None else reference[copy, part]
                totals[layer] += flat.sum_of_squares(theta[copy, part], other, self.threads)
        return totals

    def squared_combination(self, slopes: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return self._combined_squares(slopes, weights)

    def _combined_squares(
        self,
        slopes: np.ndarray,
        weights: np.ndarray,
        base: np.ndarray | None = None,
        out: np.ndarray | None = None,
        done: Mapping[tuple[int, int], float] | None = None,
    ) -> np.ndarray:
        """`squared_combination`; the base minus the combination goes into ``out`` on the way.

        Of the weights of some layers of some copies the sums are ``done`` already, and ``out`` too.
        """
        rows = slopes[: len(weights)].reshape(len(weights), -1)
        base, out = (None if array is None else array.reshape(-1) for array in (base, out))
        layout, known = self.layout, done or {}
        totals = np.zeros(len(self.field.multipliers))
        for copy in range(self.field.copies):
            for layer in range(len(totals)):
                begin, end = (
                    copy * layout.length + bound for bound in layout.bounds[layer : layer + 2]
                )
                if (copy, layer) in known:
                    totals[layer] += known[copy, layer]
                    begin += layout.sizes[layer] * layout.sizes[layer + 1]
                totals[layer] += flat.sum_of_combined_squares(
                    rows, weights, begin, end, self.threads, base, out
                )
        return totals

    def grams(self, theta: np.ndarray) -> np.ndarray:
        with one_blas_thread():
            self._prepare(theta)
            parts = [
                pass_.grams(RowWeights(self.layout, row, self.threads))
                for pass_, row in zip(self._passes, theta, strict=True)
            ]
            return np.sum(parts, axis=0)
