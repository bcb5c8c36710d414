"""What a backend knows of two-layer networks' own curvature: `interface` without these passes."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

Array = Any
"""An array of the backend, as in `flowsim.kernels.interface`."""


class NeuronBlocks(Protocol):
    """A = I - s D of a two-layer network at one state, D being its weights' own curvature.

    D is the derivative of the rate by theta at fixed n dR/df, one (1 + d) x (1 + d) block a
    neuron; with it the flow's Jacobian is D - (1/n) M Phi H Phi^T. D is taken for 0 where a
    neuron's block of A, in its symmetric form, is not safely positive definite.
    """

    takes_steps: bool
    """Whether `take` is there: where calling takes longer than passing."""

    def prepare(self, theta: Array, residual: np.ndarray, size: float) -> np.ndarray:
        """Factorise A at ``theta`` for s = ``size``; return Phi^T A^(-1) M Phi (n, n). One pass.

        All that follows is at this theta, which must stay as it is.
        """

    def rate(
        self, theta: Array, at: Array, residual: np.ndarray, slopes: Array, weights: np.ndarray
    ) -> np.ndarray:
        """Write w = A^(-1) (rate at ``at`` + sum_j weights[j] slopes[j]) into the next slope.

        That is ``slopes[len(weights)]``; ``at`` is the state that `advance` has written last.
        Returns Phi^T w (n,). One pass.
        """

    def advance(
        self,
        theta: Array,
        cotangent: np.ndarray,
        slopes: Array,
        weights: np.ndarray,
        step: float,
        out: Array,
        fresh: bool = False,
    ) -> np.ndarray:
        """Take A^(-1) M Phi v, v = ``cotangent``, from the last slope that weights are given for.

        With ``fresh`` from 0: that slope, ``slopes[len(weights) - 1]``, is written, not read. Then
        write theta + step sum_j weights[j] slopes[j] into ``out``; return f (n,) there. One pass.
        """

    def take(
        self,
        theta: Array,
        residual: np.ndarray,
        targets: np.ndarray,
        slopes: Array,
        rows: np.ndarray,
        mixing: np.ndarray,
        size: float,
        step: float,
        work: Array,
        out: Array,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Take a whole linearly implicit step for the square loss: one call instead of a dozen.

        With s stages, ``rows`` and ``mixing`` (s, s), and e = ``residual`` at theta it is ::

            matrix = prepare(theta, e, size)
            for i in range(s):
                image = rate(theta, work, e, slopes, mixing[i, :i]) if i else -matrix @ e / n
                images[i] = solve(1 + size / n * matrix, image)
                push = size / n * images[i] + (0 if i else e / n)
                at = out if i == s - 1 else work
                f = advance(theta, push, slopes, rows[i, : i + 1], step, at, fresh=i == 0)
                e = f - targets

        Returns
        -------
        residual : (n,) array
            e at ``out``.
        images : (s, n) array

        Raises
        ------
        numpy.linalg.LinAlgError
            If the n x n system is not positive definite.
        """
