"""Problems that methods are compared on, frozen: data, scaling, seed, where they end, how stiff.

Nothing is drawn or chosen elsewhere. A problem that ends at a time has reference residuals there
and on the way, one that ends at a loss a reference RD, under ``benchmarks/reference/`` (`load` of
`benchmarks.stiff_reference`). The condition numbers of K were measured; a test measures those at
t = 0 again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flowsim.deep_scaling import DeepScaling
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.networks.deep import DeepFlow, DeepNetwork
from flowsim.networks.flow import NetworkFlow
from flowsim.networks.two_layer import TwoLayerFlow, TwoLayerNetwork
from flowsim.scaling import Scaling


@dataclass(frozen=True, eq=False)
class Problem:
    """A network on its data, and where its run ends.

    Parameters
    ----------
    name : str
    about : str
        What the problem stands for.
    activation : str
    width : int
    x : (n, d) array
        Inputs, bias coordinate included.
    y : (n,) array
    condition : (float, float)
        Condition number of K at t = 0 and at the end, as measured.
    gamma, gamma_prime : float
        Of two layers, with beta_2 = 1.
    scheme : str
        Of three layers (two hidden ones); empty for two.
    times : tuple of float
        Ascending, in tau: where residuals are compared; the last is T, the end.
    stop_loss : float
        R that ends a problem without times.
    seed : int
        Of the initial weights, which are not antisymmetric.
    """

    name: str
    about: str
    activation: str
    width: int
    x: np.ndarray
    y: np.ndarray
    condition: tuple[float, float]
    gamma: float = 1.0
    gamma_prime: float = 0.0
    scheme: str = ""
    times: tuple[float, ...] = ()
    stop_loss: float = 0.0
    seed: int = 0

    @property
    def end(self) -> float:
        """T; infinity for a problem that ends at a loss."""
        return self.times[-1] if self.times else np.inf

    def flow(self, **options: Any) -> NetworkFlow:
        """The flow; ``options`` as threads, dtype and passes are those of its kernels."""
        sigma = ACTIVATIONS[self.activation]
        if self.scheme:
            scaling = DeepScaling.from_scheme(self.scheme, self.width, hidden_layers=2)
            deep = DeepNetwork(scaling, sigma, seed=self.seed)
            return DeepFlow(deep, self.x, self.y, **options)
        network = TwoLayerNetwork(
            Scaling(self.width, self.gamma, self.gamma_prime, 1.0), sigma, seed=self.seed
        )
        return TwoLayerFlow(network, self.x, self.y, **options)


def _with_bias(points: np.ndarray) -> np.ndarray:
    return np.column_stack([points, np.ones(len(points))])


_SIXTEEN = np.linspace(-1.0, 1.0, 16)
_WAVES = np.sin(3.0 * _SIXTEEN) + 0.3 * np.sin(9.0 * _SIXTEEN)
_SMOOTH: dict[str, Any] = dict(activation="tanh", x=_with_bias(_SIXTEEN), y=_WAVES)

_PUBLISHED = np.array([-1 / 2, -1 / 6, 1 / 6, 1 / 2])

_PLANE = np.random.default_rng(1).uniform(-0.5, 0.5, size=(32, 2))
_BENT: dict[str, Any] = dict(
    activation="relu",
    x=_with_bias(_PLANE),
    y=np.sin(2.0 * _PLANE[:, 0]) + 0.5 * _PLANE[:, 1] ** 2,
    stop_loss=1e-6,
)

_LIST = [
    Problem(
        "stiff", "smooth and stiff: explicit pairs need over 1e5 gradients",
        width=200, times=(1e2, 1e3, 1e4, 1.3e5), condition=(2.2e10, 1.5e3), **_SMOOTH,
    ),
    Problem(
        "stiff-wide", "the same at a width where only passes count",
        width=100_000, times=(1e2, 1e3, 1e4, 1.3e5), condition=(3.0e9, 1.2e3), **_SMOOTH,
    ),
    Problem(
        "transient", "not stiff: the beginning, where accuracy limits the step",
        width=1_000, times=(1.0, 10.0), condition=(1.2e10, 3.0e9), **_SMOOTH,
    ),
    Problem(
        "tail", "the end, where stability alone limits an explicit step",
        width=1_000, times=(1e2, 1e3, 1e4), condition=(1.2e10, 1.2e3), **_SMOOTH,
    ),
    Problem(
        "lazy", "linear regime: K hardly changes",
        width=10_000, gamma=0.5, times=(1.0, 1e1, 1e2, 1e3), condition=(2.4e9, 6.0e6), **_SMOOTH,
    ),
    Problem(
        "lazy-million", "linear regime, a million neurons, to R = 1e-8",
        activation="tanh", width=1_000_000, gamma=0.5, x=_with_bias(_PUBLISHED), y=_PUBLISHED**2,
        stop_loss=1e-8, condition=(1.3e3, 1.3e3),
    ),
    Problem(
        "mean-field", "critical regime, wide",
        width=10_000, times=(1e1, 1e2, 1e3), condition=(2.4e9, 1.9e6), **_SMOOTH,
    ),
    Problem(
        "condensed", "from small weights: a plateau, then few neurons do all the work",
        width=1_000, gamma=1.5, times=(1e1, 1e2, 1e3, 3e3), condition=(1.2e10, 1.0e11), **_SMOOTH,
    ),
    Problem(
        "relu", "stiff, and kinks leave no method its order",
        width=500, condition=(1.8e5, 7.6e5), **_BENT,
    ),
    Problem(
        "relu-lazy", "the same in the linear regime",
        width=500, gamma=0.5, condition=(1.8e5, 1.5e5), **_BENT,
    ),
    Problem(
        "three-layers", "two hidden layers, muP",
        width=300, scheme="mup", times=(1e1, 1e2, 1e3, 3e3), condition=(1.3e10, 2.0e3), **_SMOOTH,
    ),
]  # fmt: skip

PROBLEMS = {problem.name: problem for problem in _LIST}
"""By name."""
