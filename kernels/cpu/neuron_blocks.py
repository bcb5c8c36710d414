"""The weights' own curvature in two-layer networks: a small symmetric matrix a neuron, factorised.

At fixed g = n dR/df a neuron's velocity depends on its own weights alone, so that the derivative D
of the rate is one (1 + d) x (1 + d) block a neuron, D = M S with S symmetric,

    S = -(kappa/n) sum_i g_i [ 0              sigma'(z_i) x_i^T         ]
                             [ sigma'(z_i) x_i  a sigma''(z_i) x_i x_i^T ].

What implicit methods solve with is A = I - s D = M^(1/2) B M^(-1/2), B = I - s M^(1/2) S M^(1/2),
and B = L L^T is what is kept: in packed rows, the inverse of each pivot's root in its place. So
A^(-1) M = M^(1/2) B^(-1) M^(1/2) is symmetric and Phi^T A^(-1) M Phi = G G^T, the columns of G^T
being L^(-1) M^(1/2) Phi. A neuron whose B is not safely positive definite counts as straight,
B = I: any approximation of the Jacobian leaves a W-method its order.

Of all but wide networks G is kept, as are the activations of the state that was made last: a step
then evaluates each activation once a state, not once a pass, and takes half the time. A wide one
would keep as much as n states. The loops are in `block_code`.
"""

from __future__ import annotations

import numpy as np

from flowsim.kernels.interface import TwoLayerField

from . import block_code
from .activations import compile_activation, compile_derivatives
from .block_code import BLOCK
from .streams import empty_in_lines
from .threads import run_blocks

_FEATURES = 1 << 14
"""Numbers of G that are multiplied at once, for the cache: fixes the order of the sum. A network
that has no more takes its steps in one call."""

_KEPT = 1 << 18
"""Numbers of G up to which a network keeps them: 2 MB, which is nothing beside the interpreter."""

_SAMPLES = 32
"""Up to which n x n systems are solved in compiled loops as fast as by LAPACK."""


class CpuNeuronBlocks:
    """`flowsim.kernels.block_interface.NeuronBlocks` in compiled loops.

    Parameters
    ----------
    field : TwoLayerField
    neurons : int
    dtype : numpy.dtype
        Of the state and the factors; a neuron's own matrix is worked out in float64.
    threads : int
    """

    def __init__(self, field: TwoLayerField, neurons: int, dtype: np.dtype, threads: int) -> None:
        self._field, self._neurons, self._threads = field, neurons, threads
        n, d = field.x.shape
        self._x = np.ascontiguousarray(field.x, dtype)
        self._both = compile_activation(field.activation, dtype)
        self._derivatives, self._keep = compile_derivatives(field.activation, dtype)
        self._scale = dtype.type(field.activation_scale)
        # Square roots of the mobilities of each row of a state.
        self._roots = np.sqrt(np.array([field.output_mobility, *[field.input_mobility] * d]))
        self._factors = empty_in_lines(((1 + d) * (2 + d) // 2, neurons), dtype)
        self._kept = n * (1 + d) * neurons <= _KEPT
        self.takes_steps = n * (1 + d) * neurons <= _FEATURES and n <= _SAMPLES
        columns = neurons if self._kept else 0
        self._features = np.empty((n, 1 + d, columns))
        self._stage = np.empty((2, n, columns), dtype)
        self._n_blocks = -(-neurons // BLOCK)
        self._partial = np.empty((self._n_blocks, n))
        self._work = float(BLOCK * n * (2 * d + 6))

    def prepare(self, theta: np.ndarray, residual: np.ndarray, size: float) -> np.ndarray:
        n, d = self._field.x.shape
        pull = residual * (size * self._field.multiplier / n)
        if self._kept:
            return self._gram(theta, pull, 0, self._features)
        blocks = max(4, _FEATURES // (n * (1 + d) * BLOCK))
        features = np.empty((n, 1 + d, min(blocks * BLOCK, self._neurons)))
        gram = np.zeros((n, n))
        for first in range(0, self._n_blocks, blocks):
            gram += self._gram(theta, pull, first * BLOCK, features)
        return gram

    def _gram(
        self, theta: np.ndarray, pull: np.ndarray, first: int, features: np.ndarray
    ) -> np.ndarray:
        """The part of G G^T of the neurons from ``first`` on that ``features`` has room for."""
        count = min(features.shape[2], self._neurons - first)
        run_blocks(
            block_code.prepare, -(-count // BLOCK), self._threads, features.shape[1] * self._work,
            first, self._both.both, self._derivatives, self._scale, self._x, theta, pull,
            self._roots, self._field.multiplier, self._factors, features,
        )  # fmt: skip
        features[:, :, count:] = 0.0
        flat = features.reshape(len(features), -1)
        return np.asarray(flat @ flat.T)

    def rate(
        self,
        theta: np.ndarray,
        at: np.ndarray,
        residual: np.ndarray,
        slopes: np.ndarray,
        weights: np.ndarray,
    ) -> np.ndarray:
        run_blocks(
            block_code.rate, self._n_blocks, self._threads, 2.0 * self._work,
            self._both.both, self._scale, self._x, theta, at, residual, slopes, weights,
            self._roots, self._field.multiplier, self._factors, self._features, self._stage,
            self._kept, self._partial,
        )  # fmt: skip
        return np.asarray(np.add.reduce(self._partial, axis=0))

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
        run_blocks(
            block_code.advance, self._n_blocks, self._threads, 2.0 * self._work,
            self._both.value, self._both.both, self._scale, self._x, theta, cotangent, slopes,
            np.asarray(step * weights, theta.dtype), fresh, self._roots, self._field.multiplier,
            self._factors, self._features, self._stage, self._kept, out, self._partial,
        )  # fmt: skip
        return np.asarray(np.add.reduce(self._partial, axis=0))

    def take(
        self,
        theta: np.ndarray,
        residual: np.ndarray,
        y: np.ndarray,
        slopes: np.ndarray,
        rows: np.ndarray,
        mixing: np.ndarray,
        size: float,
        step: float,
        work: np.ndarray,
        out: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        images, moved = np.empty((len(rows), len(y))), residual.copy()
        done = block_code.take(
            self._both.value, self._both.both, self._derivatives, self._scale, self._x, y, theta,
            moved, rows, mixing, size, step, slopes, work, out, self._roots,
            self._field.multiplier, self._factors, self._features, self._stage, self._partial,
            images,
        )  # fmt: skip
        if not done:
            raise np.linalg.LinAlgError("I + s K/n is not positive definite")
        return moved, images
