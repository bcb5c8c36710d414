"""Each neuron's own block of the Jacobian in plain NumPy: the oracle of `cpu.neuron_blocks`."""

from __future__ import annotations

import numpy as np

from flowsim.kernels.interface import LEAST_PIVOT, TwoLayerField


class ReferenceNeuronBlocks:
    """`flowsim.kernels.interface.NeuronBlocks` in NumPy.

    Parameters
    ----------
    field : TwoLayerField
    """

    def __init__(self, field: TwoLayerField) -> None:
        self._field = field
        d = field.x.shape[1]
        self._mobilities = np.array([field.output_mobility, *[field.input_mobility] * d])

    def _phi(self, theta: np.ndarray) -> np.ndarray:
        """Phi (n, neurons, 1 + d)."""
        field, theta = self._field, np.asarray(theta, np.float64)
        z = field.activation_scale * (field.x @ theta[1:])
        value = np.asarray(field.activation.value(z), np.float64) / field.activation_scale
        slope = theta[0] * np.asarray(field.activation.derivative(z), np.float64)
        inputs = slope[:, :, None] * field.x[:, None, :]
        return field.multiplier * np.concatenate([value[:, :, None], inputs], axis=2)

    def derivatives(self, theta: np.ndarray, residual: np.ndarray) -> np.ndarray:
        """D (neurons, 1 + d, 1 + d): of each neuron's rate by its weights, at fixed n dR/df."""
        field, theta = self._field, np.asarray(theta, np.float64)
        (n, d), scale = field.x.shape, field.activation_scale
        z = scale * (field.x @ theta[1:])
        pull = -field.multiplier * residual / n
        blocks = np.zeros((theta.shape[1], 1 + d, 1 + d))
        slope = np.asarray(field.activation.derivative(z), np.float64)
        blocks[:, 0, 1:] = np.einsum("i,ik,ij->kj", pull, slope, field.x)
        blocks[:, 1:, 0] = blocks[:, 0, 1:]
        if field.activation.second_derivative is not None:
            second = scale * np.asarray(field.activation.second_derivative(z), np.float64)
            bent = pull[:, None] * second * theta[0]
            blocks[:, 1:, 1:] = np.einsum("ik,ij,il->kjl", bent, field.x, field.x)
        return self._mobilities[:, None] * blocks

    def prepare(self, theta: np.ndarray, residual: np.ndarray, size: float) -> np.ndarray:
        own = size * self.derivatives(theta, residual)
        # B, the symmetric form of I - s D: where a mobility is 0 nothing is coupled to it.
        roots = np.sqrt(self._mobilities)
        inverses = np.divide(1.0, roots, out=np.zeros_like(roots), where=roots > 0.0)
        unit = np.eye(len(roots))
        symmetric = unit - inverses[:, None] * own * roots
        straight = np.array([_least_pivot(matrix) < LEAST_PIVOT for matrix in symmetric])
        own[straight] = 0.0
        self._inverse = np.linalg.inv(unit - own)
        phi = self._phi(theta)
        solved = np.einsum("kab,b,ikb->ika", self._inverse, self._mobilities, phi)
        return np.asarray(np.einsum("ika,jka->ij", phi, solved))

    def solve(
        self, theta: np.ndarray, slopes: np.ndarray, weights: np.ndarray, out: np.ndarray
    ) -> np.ndarray:
        used = np.asarray(slopes[: len(weights)], np.float64)
        out[...] = np.einsum("kab,j,jbk->ak", self._inverse, weights, used)
        return np.asarray(np.einsum("ika,ak->i", self._phi(theta), np.asarray(out, np.float64)))

    def subtract(
        self, theta: np.ndarray, cotangent: np.ndarray, out: np.ndarray, fresh: bool = False
    ) -> None:
        phi = self._phi(theta)
        taken = np.einsum("kab,b,i,ikb->ak", self._inverse, self._mobilities, cotangent, phi)
        out[...] = (0.0 if fresh else np.asarray(out, np.float64)) - taken


def _least_pivot(matrix: np.ndarray) -> float:
    """Of the elimination of a symmetric matrix, up to the first that is not positive."""
    left, least = matrix.copy(), np.inf
    for row in range(len(left)):
        least = min(least, left[row, row])
        if not least > 0.0:
            break
        left[row + 1 :, row:] -= np.outer(left[row + 1 :, row] / left[row, row], left[row, row:])
    return float(least)
