"""Each neuron's own block of the Jacobian in plain NumPy: the oracle of `cpu.neuron_blocks`."""

from __future__ import annotations

import numpy as np

from flowsim.kernels.interface import LEAST_PIVOT, TwoLayerField


class ReferenceNeuronBlocks:
    """`flowsim.kernels.block_interface.NeuronBlocks` in NumPy.

    Parameters
    ----------
    field : TwoLayerField
    """

    takes_steps = True

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

    def rate(
        self,
        theta: np.ndarray,
        at: np.ndarray,
        residual: np.ndarray,
        slopes: np.ndarray,
        weights: np.ndarray,
    ) -> np.ndarray:
        used = np.asarray(slopes[: len(weights)], np.float64)
        right = np.einsum("j,jbk->bk", weights, used)
        right -= self._pushed(self._phi(at), residual / len(residual))
        own = slopes[len(weights)]
        own[...] = np.einsum("kab,bk->ak", self._inverse, right)
        return np.asarray(np.einsum("ika,ak->i", self._phi(theta), np.asarray(own, np.float64)))

    def advance(
        self,
        theta: np.ndarray,
        cotangent: np.ndarray,
        slopes: np.ndarray,
        weights: np.ndarray,
        step: float,
        out: np.ndarray,
        fresh: bool = False,
    ) -> np.ndarray:
        taken = np.einsum("kab,bk->ak", self._inverse, self._pushed(self._phi(theta), cotangent))
        own = slopes[len(weights) - 1]
        own[...] = (0.0 if fresh else np.asarray(own, np.float64)) - taken
        used = np.asarray(slopes[: len(weights)], np.float64)
        out[...] = np.asarray(theta, np.float64) + step * np.einsum("j,jak->ak", weights, used)
        return self._outputs(out)

    def take(
        self,
        theta: np.ndarray,
        residual: np.ndarray,
        targets: np.ndarray,
        slopes: np.ndarray,
        rows: np.ndarray,
        mixing: np.ndarray,
        size: float,
        step: float,
        work: np.ndarray,
        out: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        n, e = len(targets), residual
        matrix = self.prepare(theta, e, size)
        system, images = np.eye(n) + size / n * matrix, np.empty((len(rows), n))
        np.linalg.cholesky(system)  # positive definite, or an error
        if not np.isfinite(system).all():
            raise np.linalg.LinAlgError("I + s K/n is not finite")
        for i, row in enumerate(rows):
            image = self.rate(theta, work, e, slopes, mixing[i, :i]) if i else -matrix @ e / n
            images[i] = np.linalg.solve(system, image)
            push = size / n * images[i] + (0.0 if i else e / n)
            at = out if i == len(rows) - 1 else work
            e = self.advance(theta, push, slopes, row[: i + 1], step, at, fresh=i == 0) - targets
        return e, images

    def _pushed(self, phi: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
        """M Phi v (1 + d, neurons)."""
        return np.asarray(np.einsum("b,i,ikb->bk", self._mobilities, cotangent, phi))

    def _outputs(self, theta: np.ndarray) -> np.ndarray:
        """f (n,): the part of Phi that belongs to the output weights, times these."""
        return np.asarray(self._phi(theta)[:, :, 0] @ np.asarray(theta[0], np.float64))


def _least_pivot(matrix: np.ndarray) -> float:
    """Of the elimination of a symmetric matrix, up to the first that is not positive."""
    left, least = matrix.copy(), np.inf
    for row in range(len(left)):
        least = min(least, left[row, row])
        if not least > 0.0:
            break
        left[row + 1 :, row:] -= np.outer(left[row + 1 :, row] / left[row, row], left[row, row:])
    return float(least)
