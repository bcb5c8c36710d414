"""The kernels in plain NumPy: the oracle that every other backend is tested against.

Written to be read beside the equations, not to be fast: it stores the n x neurons activations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from flowsim.kernels.interface import TwoLayerField
from flowsim.kernels.kink_reference import ReferenceKinks
from flowsim.kernels.reference_blocks import ReferenceNeuronBlocks


class ReferenceSteps(ABC):
    """What every oracle makes of its outputs and its rate, step by step.

    Attributes
    ----------
    dtype : numpy.dtype
        Of the state; all arithmetic is float64.
    n_samples : int
    shape : (int, int)
        Of a state.
    whole : int
        What `squared_norms` calls all of it.
    """

    dtype: np.dtype
    n_samples: int
    shape: tuple[int, int]
    whole: int
    begins_errors = True
    most_retraced = 0

    @abstractmethod
    def outputs(self, theta: np.ndarray) -> np.ndarray:
        """f (n,) at ``theta``."""

    @abstractmethod
    def vjp(
        self, theta: np.ndarray, cotangent: np.ndarray, out: np.ndarray, mobilities: bool = True
    ) -> None:
        """Write M Phi v, or without mobilities Phi v, into ``out``."""

    @abstractmethod
    def jvp(self, theta: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Phi^T w, shaped like f."""

    def rate(self, theta: np.ndarray, residual: np.ndarray, out: np.ndarray) -> None:
        self.vjp(theta, -residual / self.n_samples, out)

    @abstractmethod
    def squared_norms(
        self, theta: np.ndarray, reference: np.ndarray | None, first: int
    ) -> np.ndarray:
        """Sums of squares of each layer over the first copy, or the whole."""

    @abstractmethod
    def squared_combination(self, slopes: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Sums of squares of each layer of sum_j weights[j] slopes[j]."""

    def array(self, values: np.ndarray) -> np.ndarray:
        return np.array(values, dtype=self.dtype, order="C")

    def host(self, theta: np.ndarray) -> np.ndarray:
        return theta

    def empty(self, n: int | None = None) -> np.ndarray:
        return np.empty(self.shape if n is None else (n, *self.shape), self.dtype)

    def combine(
        self,
        base: np.ndarray,
        slopes: np.ndarray,
        weights: np.ndarray,
        step: float,
        out: np.ndarray | None,
    ) -> np.ndarray:
        used = np.asarray(slopes[: len(weights)], np.float64)
        new = np.asarray(base + step * np.einsum("j,jrk->rk", weights, used), self.dtype)
        if out is not None:
            out[...] = new
        return self.outputs(new)

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
            theta = np.empty_like(base)
            self.combine(base, slopes, here, step, theta)
        assert theta is not None
        velocity = np.empty_like(theta) if slope is None else slope
        self.rate(theta, residual, velocity)
        used = np.concatenate([slopes[: len(weights) - 1], velocity[None]])
        if others is not None and other is not None:
            other[...] = step * np.einsum("j,jrk->rk", others, np.asarray(used, np.float64))
        return self.combine(base, used, weights, step, out)

    def rate_and_errors(
        self,
        theta: np.ndarray,
        residual: np.ndarray,
        slopes: np.ndarray,
        weights: np.ndarray,
        step: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        self.rate(theta, residual, slopes[-1])
        f = np.array([self.combine(theta, slopes, -row, step, None) for row in weights])
        squares = [self.squared_combination(slopes, step * row) for row in weights]
        return f, np.array([*squares, self.squared_norms(theta, None, self.whole)])

    def end_error(
        self,
        theta: np.ndarray,
        residual: np.ndarray,
        slope: np.ndarray,
        weight: float,
        step: float,
        begun: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        self.rate(theta, residual, slope)
        parts, weights = np.stack([begun, slope]), np.array([1.0, step * weight])
        f = self.combine(theta, parts, -weights, 1.0, None)
        squares = self.squared_combination(parts, weights)
        return f, np.array([squares, self.squared_norms(theta, None, self.whole)])

    def _retraced(
        self, base: np.ndarray, residuals: np.ndarray, rows: np.ndarray, step: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """All slopes, and the state that the last of them is the velocity at."""
        slopes, theta = self.empty(len(residuals)), base
        for j, residual in enumerate(residuals):
            self.rate(theta, residual, slopes[j])
            if j + 1 < len(residuals):
                theta = np.empty_like(base)
                self.combine(base, slopes, rows[j, : j + 1], step, theta)
        return slopes, theta

    def retrace(
        self,
        base: np.ndarray,
        residuals: np.ndarray,
        rows: np.ndarray,
        step: float,
        out: np.ndarray | None,
    ) -> np.ndarray:
        slopes, _ = self._retraced(base, residuals, rows, step)
        return self.combine(base, slopes, rows[-1], step, out)

    def retrace_errors(
        self,
        base: np.ndarray,
        residuals: np.ndarray,
        rows: np.ndarray,
        weights: np.ndarray,
        step: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        slopes, theta = self._retraced(base, residuals, rows, step)
        return self.rate_and_errors(theta, residuals[-1], slopes, weights, step)

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
        delta, gamma1, gamma2, beta, error_weight = factors
        velocity = np.empty_like(theta)
        self.rate(theta, residual, velocity)
        difference = np.asarray(theta, np.float64) - base
        memory[...] = delta * difference + (0.0 if fresh else memory)
        error[...] = error + error_weight * velocity
        theta[...] = base + (gamma1 * difference + gamma2 * memory + beta * velocity)
        return self.outputs(theta)

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
        mu, nu, beta, delta = factors
        velocity = np.empty_like(theta)
        self.rate(theta, residual, velocity)
        here, past = (np.asarray(state, np.float64) - base for state in (theta, previous))
        out[...] = base + (mu * here + nu * past + beta * velocity + delta * first)
        return self.outputs(out)


class ReferenceKernels(ReferenceSteps):
    """`flowsim.kernels.interface.TwoLayerKernels` in NumPy.

    Parameters
    ----------
    field : TwoLayerField
    neurons : int
    dtype : numpy.dtype
        Of the state; all arithmetic is float64.
    threads, passes, device
        Ignored.
    """

    turns = True
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
        self.shape, self.whole = (1 + self.n_inputs, neurons), neurons

    def _sigma(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Output weights (neurons,), sigma and sigma' at all w_k . x_i (n, neurons)."""
        theta = np.asarray(theta, np.float64)
        scale = self.field.activation_scale
        z = scale * (self.field.x @ theta[1:])
        value = np.asarray(self.field.activation.value(z), np.float64) / scale
        return theta[0], value, np.asarray(self.field.activation.derivative(z), np.float64)

    def outputs(self, theta: np.ndarray) -> np.ndarray:
        a, s, _ = self._sigma(theta)
        return self.field.multiplier * (s @ a)

    def vjp(
        self, theta: np.ndarray, cotangent: np.ndarray, out: np.ndarray, mobilities: bool = True
    ) -> None:
        field = self.field
        own = (field.output_mobility, field.input_mobility) if mobilities else (1.0, 1.0)
        a, s, ds = self._sigma(theta)
        weighted = field.multiplier * cotangent
        out[0] = own[0] * (weighted @ s)
        out[1:] = own[1] * ((field.x * weighted[:, None]).T @ (ds * a))

    def jvp(self, theta: np.ndarray, direction: np.ndarray) -> np.ndarray:
        a, s, ds = self._sigma(theta)
        moving = np.asarray(direction, np.float64)
        return self.field.multiplier * (s @ moving[0] + (ds * (self.field.x @ moving[1:])) @ a)

    def squared_norms(
        self, theta: np.ndarray, reference: np.ndarray | None, first: int
    ) -> np.ndarray:
        difference = np.asarray(theta[:, :first], np.float64)
        if reference is not None:
            difference = difference - reference[:, :first]
        return np.array([np.sum(difference[0] ** 2), np.sum(difference[1:] ** 2)])

    def squared_combination(self, slopes: np.ndarray, weights: np.ndarray) -> np.ndarray:
        used = np.asarray(slopes[: len(weights)], np.float64)
        combined = np.einsum("j,jrk->rk", weights, used)
        return np.array([np.sum(combined[0] ** 2), np.sum(combined[1:] ** 2)])

    def grams(self, theta: np.ndarray) -> np.ndarray:
        a, s, ds = self._sigma(theta)
        signal = ds * a
        both = np.stack([s @ s.T, (signal @ signal.T) * (self.field.x @ self.field.x.T)])
        return self.field.multiplier**2 * both

    def kinks(self) -> ReferenceKinks:
        return ReferenceKinks(self.field)

    def neuron_blocks(self) -> ReferenceNeuronBlocks:
        return ReferenceNeuronBlocks(self.field)

    def invariant_drift(self, initial: np.ndarray, theta: np.ndarray) -> float:
        field, terms = self.field, []
        for state in (np.asarray(initial, np.float64), np.asarray(theta, np.float64)):
            outputs = field.input_mobility * state[0] ** 2
            terms.append((outputs, field.output_mobility * np.sum(state[1:] ** 2, axis=0)))
        (a, w), (b, v) = terms
        size = np.maximum(a + w, b + v)
        drift = np.abs((b - v) - (a - w))
        return float(np.max(np.divide(drift, size, out=np.zeros_like(size), where=size != 0.0)))

    def activity(self, theta: np.ndarray) -> tuple[int, int]:
        active = np.sum(self.field.x @ np.asarray(theta[1:], np.float64) > 0.0, axis=0)
        return int(np.sum(active == self.n_samples)), int(np.sum(active == 0))
