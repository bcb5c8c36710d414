"""A network bound to its data and a backend: what steppers and recorders work with.

All that is said here holds for networks of any depth. What a network adds is its vector field, the
kernels that pass over it, and the names of its layers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from itertools import pairwise
from typing import Any, Self

import numpy as np

from flowsim.kernels.interface import Array, FlowKernels
from flowsim.kernels.losses import SQUARE
from flowsim.networks.layer_measures import effective_ranks, mean_cosines
from flowsim.networks.network import Network
from flowsim.networks.passes import FlowPasses
from flowsim.networks.tangent_kernel import TangentKernel


class NetworkFlow(FlowPasses, ABC):
    """The flow of a network on its data, on one backend.

    Parameters
    ----------
    kernels : FlowKernels
        Bound to the network's vector field.
    y : (n,) or (n, o) array
        Targets; with o > 1 outputs all that is said to be (n,) is (n, o).
    initial : state
        In the kernels' layout.
    mobilities : (layers,) array
        Of the layers, in the order of `layers`.
    one, whole : int
        What the kernels call the first copy of the network, and all copies.
    kinked : bool
        Whether sigma' jumps.
    loss : str
        A key of `flowsim.kernels.losses.LOSSES`.
    backend, dtype, threads, passes, device
        How the kernels were made.

    Attributes
    ----------
    layers : tuple of str
        Groups of weights that steppers look at one by one.
    parameter_dims : dict of str to tuple of str
        Parameter arrays with the names of their axes, as in files.
    """

    network: Network
    field: Any
    layers: tuple[str, ...]
    parameter_dims: dict[str, tuple[str, ...]]
    first_step: Any = None
    """The first step of schemes in which it has learning rates of its own; else None."""

    def __init__(
        self,
        kernels: FlowKernels,
        y: np.ndarray,
        initial: Array,
        mobilities: np.ndarray,
        one: int,
        whole: int,
        *,
        kinked: bool,
        loss: str = SQUARE,
        backend: str,
        dtype: str | np.dtype,
        threads: int,
        passes: str,
        device: int = 0,
    ) -> None:
        super().__init__(kernels, y, loss, mobilities, whole)
        self.initial = initial
        self.kinked = kinked
        self.backend, self.dtype, self.threads, self.passes = (
            backend, np.dtype(dtype), threads, passes
        )  # fmt: skip
        self.device = device
        self.dense_rates = passes != "factored"
        self._one = one

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups of weights that relative changes are given for: the layers, and all of them."""
        return (*self.layers, "all")

    def batch(self, rows: np.ndarray) -> Self:
        """The same network, with the same states, on the samples ``rows`` (k,)."""
        return self.on(self.field.x[rows], self.y[rows])

    # What recorders use.

    @cached_property
    def _initial_norms(self) -> np.ndarray:
        return self._squared(self.initial, None)

    def _squared(self, theta: Array, reference: Array | None) -> np.ndarray:
        """Squared norms of the `groups` on the first copy."""
        squares = self.kernels.squared_norms(theta, reference, self._one)[self._order]
        return np.append(squares, np.sum(squares))

    def relative_change(self, theta: Array) -> np.ndarray:
        """RD of the `groups` on the first copy; 0/0 counts as 0.

        ``all`` is taken in the variables of the state, where all weights weigh alike if they are
        normalised.
        """
        change = np.sqrt(self._squared(theta, self.initial))
        initial = np.sqrt(self._initial_norms)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(change == 0.0, 0.0, change / initial)

    def norms(self, theta: Array) -> np.ndarray:
        """Norms of the `groups` of weights on the first copy."""
        return np.sqrt(self._squared(theta, None))

    @abstractmethod
    def layer_weights(self, theta: Array) -> list[np.ndarray]:
        """Weights (fan_in, fan_out) of the `layers`, first copy, read only; without biases."""

    def effective_ranks(self, theta: Array) -> np.ndarray:
        """Effective ranks of the `groups`; for ``all`` of the block-diagonal matrix of all layers.

        See `flowsim.networks.layer_measures` for what it is and what it costs.
        """
        return effective_ranks(self.layer_weights(theta))

    def mean_cosines(self, theta: Array, power: int) -> np.ndarray:
        """Means of cosines between neurons of each hidden layer, weighted with amplitudes.

        A neuron's amplitude is the norm of its input weights times that of its output weights. See
        `flowsim.networks.layer_measures.mean_cosines`.
        """
        pairs = pairwise(self.layer_weights(theta))
        return np.array([mean_cosines(inwards, outwards, power) for inwards, outwards in pairs])

    @cached_property
    def initial_kernel(self) -> TangentKernel:
        """K at t = 0."""
        return self.tangent_kernel(self.initial)

    @abstractmethod
    def parameters(self, theta: Array) -> dict[str, np.ndarray]:
        """The parameter arrays of a state by name on the host, as views where that allows."""

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the same arrays."""
        return {name: values.shape for name, values in self.parameters(self.initial).items()}

    def on(self, x: np.ndarray, y: np.ndarray) -> Self:
        """The same network, in the same state layout, on other data x (k, d), y (k,)."""
        make: Any = type(self)  # flows are made of a network and data, not of kernels
        flow: Self = make(
            self.network,
            x,
            y,
            initial=self.initial,
            loss=self.loss_function.name,
            backend=self.backend,
            dtype=self.dtype,
            threads=self.threads,
            passes=self.passes,
            device=self.device,
        )
        return flow
