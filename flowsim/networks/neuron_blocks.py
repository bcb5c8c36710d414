"""Each neuron's own block of a flow's Jacobian, as steppers use it: counted, and with a kernel."""

from __future__ import annotations

import numpy as np

from flowsim.kernels.activations import Activation
from flowsim.kernels.interface import Array, NeuronBlocks
from flowsim.networks.flow import NetworkFlow
from flowsim.networks.tangent_kernel import TangentKernel

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
    """`flowsim.kernels.interface.NeuronBlocks` whose passes are the flow's.

    Parameters
    ----------
    flow : NetworkFlow
    blocks : NeuronBlocks

    Attributes
    ----------
    states : float
        Copies of the state that they take up.
    """

    def __init__(self, flow: NetworkFlow, blocks: NeuronBlocks) -> None:
        self._flow, self._blocks = flow, blocks
        self.states = 0.5 * (2 + flow.field.x.shape[1])

    def prepare(self, theta: Array, gradient: np.ndarray, size: float) -> TangentKernel:
        """Factorise A = I - ``size`` D at ``theta`` and n dR/df; return Phi^T A^(-1) M Phi."""
        self._flow.n_passes += 1
        self._flow.n_grams += 1
        return TangentKernel(self._blocks.prepare(theta, gradient, size)[None], np.ones(1))

    def solve(self, theta: Array, slopes: Array, weights: np.ndarray, out: Array) -> np.ndarray:
        """Write w = A^(-1) sum_j weights[j] slopes[j] into ``out``; return Phi^T w (n,)."""
        self._flow.n_passes += 1
        return self._blocks.solve(theta, slopes, weights, out)

    def push(self, theta: Array, gradient: np.ndarray, out: Array) -> None:
        """Write -A^(-1) M Phi g/n, g = ``gradient``, into ``out``: a rate, filtered."""
        self._flow.n_rhs += 1
        self._flow.n_passes += 1
        self._blocks.subtract(theta, gradient / self._flow.n_samples, out, fresh=True)

    def subtract(self, theta: Array, cotangent: np.ndarray, out: Array) -> None:
        """Take A^(-1) M Phi v, v = ``cotangent``, from ``out``."""
        self._flow.n_passes += 1
        self._blocks.subtract(theta, cotangent, out)
