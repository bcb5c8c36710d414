"""Each neuron's own block of a flow's Jacobian, as steppers use it: counted, residuals for f."""

from __future__ import annotations

import numpy as np

from flowsim.kernels.activations import Activation
from flowsim.kernels.interface import Array, NeuronBlocks
from flowsim.kernels.losses import SQUARE
from flowsim.networks.flow import NetworkFlow

_MOST_INPUTS = 8
"""A block is (1 + d) x (1 + d): with more inputs it would cost more than the step that it saves."""


def worth_it(n_inputs: int, activation: Activation) -> bool:
    """Whether the blocks of all neurons are known and small, and make steps longer.

    The part with sigma'' is what counts: a smooth activation without it takes as many steps as with
    no block at all (``tail`` and ``condensed`` of ``benchmarks/problems.py``). So do kinked ones,
    whose kinks hold the step (``relu``, ``relu-lazy``).

    Parameters
    ----------
    n_inputs : int
        d, the bias coordinate included.
    activation : Activation
    """
    known = activation.second_derivative is not None or activation.leak is not None
    return n_inputs <= _MOST_INPUTS and known and not activation.kinked


class FlowBlocks:
    """`flowsim.kernels.block_interface.NeuronBlocks` whose passes are the flow's.

    Parameters
    ----------
    flow : NetworkFlow
    blocks : NeuronBlocks

    Attributes
    ----------
    states : float
        Copies of the state that they take up.
    takes_steps : bool
        Whether `take` is there.
    """

    def __init__(self, flow: NetworkFlow, blocks: NeuronBlocks) -> None:
        self._flow, self._blocks = flow, blocks
        self.states = 0.5 * (2 + flow.field.x.shape[1])
        self.takes_steps = blocks.takes_steps and flow.loss_function.name == SQUARE

    def prepare(self, theta: Array, gradient: np.ndarray, size: float) -> np.ndarray:
        """Factorise A = I - ``size`` D at ``theta`` and n dR/df; return Phi^T A^(-1) M Phi."""
        self._flow.n_passes += 1
        self._flow.n_grams += 1
        return self._blocks.prepare(theta, gradient, size)

    def rate(
        self, theta: Array, at: Array, residual: np.ndarray, slopes: Array, weights: np.ndarray
    ) -> np.ndarray:
        """Write w = A^(-1) (rate at ``at`` + sum_j weights[j] slopes[j]) into the next slope.

        Returns Phi^T w (n,).
        """
        flow = self._flow
        flow.n_rhs += 1
        flow.n_passes += 1
        return self._blocks.rate(theta, at, flow.gradient(residual), slopes, weights)

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
        """Take A^(-1) M Phi v, v = ``cotangent``, from the last slope, or from 0 if ``fresh``.

        Then write theta + step sum_j weights[j] slopes[j] into ``out``; return e (n,) there.
        """
        flow = self._flow
        flow.n_rhs += fresh  # from 0 it is a rate, filtered
        flow.n_passes += 1
        return self._blocks.advance(theta, cotangent, slopes, weights, step, out, fresh) - flow.y

    def take(
        self,
        theta: Array,
        residual: np.ndarray,
        slopes: Array,
        rows: np.ndarray,
        mixing: np.ndarray,
        size: float,
        step: float,
        work: Array,
        out: Array,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Take a whole step for the square loss; return e (n,) at ``out`` and the images (s, n)."""
        flow = self._flow
        flow.n_grams += 1
        flow.n_rhs += len(rows)
        flow.n_passes += 2 * len(rows)
        return self._blocks.take(
            theta, residual, flow.y, slopes, rows, mixing, size, step, work, out
        )
