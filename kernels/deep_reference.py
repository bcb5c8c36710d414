"""Deep networks in plain NumPy: the oracle that every other backend is tested against.

Written to be read beside the equations of `flowsim.kernels.interface.DeepField`, not to be fast.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from flowsim.kernels.interface import DeepField
from flowsim.kernels.reference import ReferenceSteps


class DeepReferenceKernels(ReferenceSteps):
    """`flowsim.kernels.interface.FlowKernels` of a deep network in NumPy.

    Parameters
    ----------
    field : DeepField
    dtype : numpy.dtype
        Of the state; all arithmetic is float64.
    threads : int
        Ignored.
    """

    turns = False

    def __init__(self, field: DeepField, dtype: np.dtype, threads: int = 1) -> None:
        self.field = field
        self.layout = field.layout
        self.dtype = np.dtype(dtype)
        self.n_samples = len(field.x)
        self.shape, self.whole = (field.copies, self.layout.length), field.copies
        self._layers = len(field.multipliers)

    def weights(self, theta: np.ndarray, copy: int, layer: int) -> np.ndarray:
        """Weights (fan_in, fan_out) of a layer, read only."""
        return self.layout.weights(theta[copy], layer)

    def _forward(self, row: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """A_0, ..., A_L and the outputs (n, o); sigma'(z_1), ..., sigma'(z_L)."""
        field, activation = self.field, self.field.activation
        signals, derivatives = [field.x], []
        for layer in range(self._layers):
            z = field.multipliers[layer] * (signals[-1] @ self.layout.weights(row, layer))
            bias = self.layout.bias(row, layer)
            if bias is not None:
                assert field.bias_multipliers is not None
                z = z + field.bias_multipliers[layer] * bias
            if layer < self._layers - 1:
                derivatives.append(np.asarray(activation.derivative(z), np.float64))
                z = np.asarray(activation.value(z), np.float64)
            signals.append(z)
        return signals, derivatives

    def _backward(
        self, row: np.ndarray, derivatives: list[np.ndarray], of_outputs: np.ndarray
    ) -> list[np.ndarray]:
        """Derivatives by z_1, ..., z_(L+1), each (n, m_l), of what has these (n, o) by f."""
        back = [of_outputs]
        for layer in range(self._layers - 1, 0, -1):
            weights = self.layout.weights(row, layer)
            pulled = self.field.multipliers[layer] * (back[0] @ weights.T)
            back.insert(0, pulled * derivatives[layer - 1])
        return back

    def outputs(self, theta: np.ndarray) -> np.ndarray:
        rows = np.asarray(theta, np.float64)
        f = np.sum([self._forward(row)[0][-1] for row in rows], axis=0)
        return f[:, 0] if self.field.n_outputs == 1 else f

    def vjp(
        self, theta: np.ndarray, cotangent: np.ndarray, out: np.ndarray, mobilities: bool = True
    ) -> None:
        field = self.field
        pull = cotangent.reshape(self.n_samples, -1)
        for row, target in zip(np.asarray(theta, np.float64), out, strict=True):
            signals, derivatives = self._forward(row)
            for layer, back in enumerate(self._backward(row, derivatives, pull)):
                mobility = field.mobilities[layer] if mobilities else 1.0
                rate = mobility * field.multipliers[layer] * (signals[layer].T @ back)
                self.layout.weights(target, layer)[...] = rate
                bias = self.layout.bias(target, layer)
                if bias is not None:
                    assert field.bias_multipliers is not None
                    bias[...] = mobility * field.bias_multipliers[layer] * back.sum(axis=0)

    def jvp(self, theta: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Forward, layer by layer, what changes beside what is there."""
        field, total = self.field, np.zeros((self.n_samples, self.field.n_outputs))
        rows = (np.asarray(array, np.float64) for array in (theta, direction))
        for row, moving in zip(*rows, strict=True):
            signals, derivatives = self._forward(row)
            change = np.zeros_like(field.x)
            for layer in range(self._layers):
                change = field.multipliers[layer] * (
                    change @ self.layout.weights(row, layer)
                    + signals[layer] @ self.layout.weights(moving, layer)
                )
                bias = self.layout.bias(moving, layer)
                if bias is not None:
                    assert field.bias_multipliers is not None
                    change = change + field.bias_multipliers[layer] * bias
                if layer < self._layers - 1:
                    change = change * derivatives[layer]
            total += change
        return total[:, 0] if field.n_outputs == 1 else total

    def _squares(self, values: np.ndarray) -> np.ndarray:
        """Sums of squares of each layer of an array (copies, parameters)."""
        bounds = pairwise(self.layout.bounds)
        return np.array([np.sum(values[:, first:last] ** 2) for first, last in bounds])

    def squared_norms(
        self, theta: np.ndarray, reference: np.ndarray | None, first: int
    ) -> np.ndarray:
        difference = np.asarray(theta[:first], np.float64)
        return self._squares(difference if reference is None else difference - reference[:first])

    def squared_combination(self, slopes: np.ndarray, weights: np.ndarray) -> np.ndarray:
        used = np.asarray(slopes[: len(weights)], np.float64)
        return self._squares(np.einsum("j,jcp->cp", weights, used))

    def grams(self, theta: np.ndarray) -> np.ndarray:
        """(B_l B_l^T) * (A_(l-1) A_(l-1)^T), entry by entry, summed over the copies."""
        field, n, o = self.field, self.n_samples, self.field.n_outputs
        grams = np.zeros((self._layers, n, o, n, o))
        for row in np.asarray(theta, np.float64):
            signals, derivatives = self._forward(row)
            each = np.eye(o)[:, None] * np.ones((n, 1))
            backs = [self._backward(row, derivatives, of_outputs) for of_outputs in each]
            for layer, signal in enumerate(signals[:-1]):
                inner = field.multipliers[layer] ** 2 * (signal @ signal.T)
                if field.bias_multipliers is not None and layer > 0:
                    inner = inner + field.bias_multipliers[layer] ** 2
                back = np.stack([of_one[layer] for of_one in backs], axis=1)  # (n, o, m_l)
                grams[layer] += np.tensordot(back, back, axes=(2, 2)) * inner[:, None, :, None]
        return grams.reshape(self._layers, n * o, n * o)
