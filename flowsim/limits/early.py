"""Condensation from small weights: what neurons do before f is of any size.

While f << y the residual is -y, neurons do not feel each other, and a smooth sigma is its first
term, sigma(z) = c_p z^p + ..., p the multiplicity: the order of the first derivative that is not 0
at 0. With H(u) = (1/n) sum_i y_i (u.x_i)^p

    da/dtau = (1/kappa') c_p H(w),    dw/dtau = kappa' c_p a grad H(w),

so that directions turn to where |H| is largest on the unit sphere, locally; in two dimensions
these are at most 2 p (Zhou, Zhou, Luo & Xu, Towards understanding the condensation of neural
networks at initial training, NeurIPS 2022, arXiv 2105.11686). For p = 1 the equations are linear:
w turns to +-z/|z|, z = (1/n) sum_i y_i x_i, and grows at the rate |c_1| |z| in tau.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flowsim.errors import ConfigError
from flowsim.kernels.activations import Activation
from flowsim.networks.two_layer import TwoLayerNetwork

_PROBE = 2.0**-20
"""Where sigma is compared with its first term; twice its square, 2e-12, is left out."""

_HIGHEST = 8
_STARTS = 200
_ITERATIONS = 4000
_SAME = 1e-6
_OWN_STEP, _OWN_STEPS = 0.1, 4_000
"""Of `grow`: turn of a direction in a step at the most, and how many."""


def multiplicity(activation: Activation) -> tuple[int, float]:
    """The multiplicity p, and c_p of sigma(z) = c_p z^p + ...

    Parameters
    ----------
    activation : Activation

    Raises
    ------
    ConfigError
        If sigma has a kink at 0, or does not vanish there.
    """
    if activation.kinked:
        raise ConfigError(
            f'activation = "{activation.name}": has a kink at 0 and so no first term; take a '
            "smooth one such as tanh"
        )
    at = _PROBE * np.array([0.0, 1.0, 2.0])
    zero, one, two = np.asarray(activation.value(at), np.float64)
    if abs(zero) > 1e-12 or one == 0.0:
        raise ConfigError(
            f'activation = "{activation.name}": is {zero:.3g} at 0, so that f is not small for '
            "small weights; take one that is 0 there, such as tanh"
        )
    p = round(math.log2(abs(two / one)))
    if not 1 <= p <= _HIGHEST:
        raise ConfigError(
            f'activation = "{activation.name}": multiplicity {p} at 0; wanted 1 to {_HIGHEST}'
        )
    # The next term is taken off by Richardson's rule: sigma(z)/z^p = c_p + c z + ... at z, 2 z.
    ratios = one / at[1] ** p, two / at[2] ** p
    return p, float(2.0 * ratios[0] - ratios[1])


@dataclass(frozen=True)
class Orientations:
    """Where directions of input weights turn to.

    Attributes
    ----------
    directions : (d, k) float64 array
        Unit vectors, by |H| descending; opposite ones, which lie on one line, next to each other.
    heights : (k,) float64 array
        H there.
    multiplicity : int
        p.
    """

    directions: np.ndarray
    heights: np.ndarray
    multiplicity: int

    @property
    def lines(self) -> int:
        """Lines through 0 that the directions lie on."""
        return len(self.heights) // 2


def orientations(x: np.ndarray, y: np.ndarray, p: int) -> Orientations:
    """All local maxima of |H| on the unit sphere.

    Parameters
    ----------
    x, y : (n, d), (n,) arrays
        Inputs, bias coordinate included, and targets.
    p : int
        Multiplicity. For 1 and 2 they are known in closed form, z and the outermost eigenvectors
        of (1/n) sum_i y_i x_i x_i^T; above they are looked for from 200 places.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if p == 1:
        z = y @ x / len(y)
        found = z[:, None] / np.linalg.norm(z)
    elif p == 2:
        values, vectors = np.linalg.eigh((x.T * y) @ x / len(y))
        # The least eigenvalue is a maximum of |H| if it is negative, and the largest if positive.
        found = vectors[:, [0, -1]][:, [values[0] < 0.0, values[-1] > 0.0]]
    else:
        found = _ascents(x, y, p)
    heights = _height(x, y, p, found)
    order = np.argsort(-np.abs(heights), kind="stable")
    both = np.repeat(found[:, order], 2, axis=1) * np.tile([1.0, -1.0], found.shape[1])
    return Orientations(both, _height(x, y, p, both), p)


def _height(x: np.ndarray, y: np.ndarray, p: int, u: np.ndarray) -> np.ndarray:
    return y @ (x @ u) ** p / len(y)


def _ascents(x: np.ndarray, y: np.ndarray, p: int) -> np.ndarray:
    """Lines (d, k) to which a shifted power iteration comes from many places.

    Kolda & Mayo, SIAM J. Matrix Anal. Appl. 32 (2011) 1095: with a shift that is large enough |H|
    never falls. It is doubled, place by place, wherever it does.
    """
    u = np.random.default_rng(0).normal(size=(x.shape[1], _STARTS))
    u /= np.linalg.norm(u, axis=0)
    lift = np.full(_STARTS, np.abs(_height(x, y, p, u)).max())
    for _ in range(_ITERATIONS):
        height = _height(x, y, p, u)
        new = np.sign(height) * (x.T @ (y[:, None] * (x @ u) ** (p - 1))) / len(y) + lift * u
        new /= np.linalg.norm(new, axis=0)
        fallen = np.abs(_height(x, y, p, new)) < (1.0 - 1e-14) * np.abs(height)
        lift[fallen] *= 2.0
        moved = np.max(np.abs(new - u)[:, ~fallen], initial=0.0)
        u = np.where(fallen, u, new)
        if not fallen.any() and moved < 1e-12:
            break
    lines: list[np.ndarray] = []
    for column in u.T:
        if all(abs(column @ line) < 1.0 - _SAME for line in lines):
            lines.append(column)
    return np.stack(lines, axis=1)


@dataclass(frozen=True)
class Grown:
    """Neurons, each at the moment at which it has grown enough, if it does.

    Attributes
    ----------
    output_weights, input_weights : (m,), (d, m) float64 arrays
        Normalised, as they were at the start.
    time : (m,) float64 array
        tau; infinity for a neuron that had not grown enough when the steps were used up.
    """

    output_weights: np.ndarray
    input_weights: np.ndarray
    time: np.ndarray


def grow(
    network: TwoLayerNetwork,
    x: np.ndarray,
    y: np.ndarray,
    output_weights: np.ndarray,
    input_weights: np.ndarray,
    factor: float = 1000.0,
) -> Grown:
    """Follow every neuron by itself until |(kappa' a, w)| has grown by ``factor``.

    Above multiplicity 1 each neuron blows up at a time of its own, and in a network the first ones
    change the residual before others have moved; here it stays -y for all of them. Lengths are
    taken out of the equations, homogeneous of degree p, and with them the blow-up: directions move
    in steps of the classical Runge-Kutta method, in a time of each neuron's own.

    Parameters
    ----------
    network : TwoLayerNetwork
        Its activation, kappa' and beta_2 are used.
    x, y : (n, d), (n,) arrays
        Inputs, bias coordinate included, and targets.
    output_weights, input_weights : (m,), (d, m) arrays
        Initial values, normalised.
    factor : float
        Above 1.

    Raises
    ------
    ConfigError
        If the activation has no multiplicity.
    """
    p, slope = multiplicity(network.activation)
    scaling = network.scaling
    # sigma(beta_2 z)/beta_2, of which the first term is this.
    slope *= scaling.beta2 ** (p - 1)

    def force(unit: np.ndarray) -> np.ndarray:
        z = x @ unit[1:]
        pulls = slope * y[:, None] / len(y) * z ** (p - 1)
        return np.concatenate([np.sum(pulls * z, axis=0)[None], p * unit[0] * (x.T @ pulls)])

    unit = np.concatenate([scaling.kappa_prime * output_weights[None], input_weights])
    first = np.linalg.norm(unit, axis=0)
    unit = unit / first
    # The largest force there is, for a step that resolves how directions turn.
    most = p * abs(slope) * np.abs(y) @ np.linalg.norm(x, axis=1) ** p / len(y)
    seen = np.linalg.norm(force(unit), axis=0).max()
    step = _OWN_STEP / max(min(4.0 * seen, most), 1e-300)
    growth, time = np.zeros(len(first)), np.zeros(len(first))
    active = np.ones(len(first), bool)
    for _ in range(_OWN_STEPS):
        if not active.any():
            break
        own, gained = _own_step(force, unit[:, active], step)
        # d tau = |(kappa' a, w)|^(1-p) d(own time), by the trapezoidal rule in the logarithm.
        size = first[active] * np.exp(growth[active])
        time[active] += 0.5 * step * size ** (1 - p) * (1.0 + np.exp((1 - p) * gained))
        unit[:, active], growth[active] = own, growth[active] + gained
        active &= growth < math.log(factor)
    time[active] = np.inf
    grown = unit * first * np.exp(growth)
    return Grown(grown[0] / scaling.kappa_prime, grown[1:], time)


def _own_step(
    force: Callable[[np.ndarray], np.ndarray], unit: np.ndarray, step: float
) -> tuple[np.ndarray, np.ndarray]:
    """One step of directions (1 + d, k), and by how much the logarithms of lengths grow."""

    def slopes(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pull = force(at / np.linalg.norm(at, axis=0))
        along = np.sum(pull * at, axis=0)
        return pull - along * at, along

    one, first = slopes(unit)
    two, second = slopes(unit + 0.5 * step * one)
    three, third = slopes(unit + 0.5 * step * two)
    four, fourth = slopes(unit + step * three)
    new = unit + step / 6.0 * (one + 2.0 * two + 2.0 * three + four)
    gained = step / 6.0 * (first + 2.0 * second + 2.0 * third + fourth)
    return new / np.linalg.norm(new, axis=0), gained


@dataclass(frozen=True)
class LinearGrowth:
    """The early flow for multiplicity 1, exact as long as f << y and sigma is linear.

    Attributes
    ----------
    direction : (d,) float64 array
        z/|z|.
    rate : float
        |c_1| |z|, in 1/tau.
    sign : float
        Of c_1.
    kappa_prime : float
    """

    direction: np.ndarray
    rate: float
    sign: float
    kappa_prime: float

    @classmethod
    def of(cls, network: TwoLayerNetwork, x: np.ndarray, y: np.ndarray) -> LinearGrowth:
        """Of a network on its data.

        Parameters
        ----------
        network : TwoLayerNetwork
        x, y : (n, d), (n,) arrays
            Inputs, bias coordinate included, and targets.

        Raises
        ------
        ConfigError
            If the multiplicity is not 1.
        """
        p, slope = multiplicity(network.activation)
        if p != 1:
            raise ConfigError(
                f'activation = "{network.activation.name}": multiplicity {p}; weights grow '
                "exponentially for 1 only"
            )
        z = np.asarray(y, np.float64) @ np.asarray(x, np.float64) / len(y)
        size = float(np.linalg.norm(z))
        kappa_prime = network.scaling.kappa_prime
        return cls(z / size, abs(slope) * size, math.copysign(1.0, slope), kappa_prime)

    def weights(
        self, output_weights: np.ndarray, input_weights: np.ndarray, time: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Weights a (m,), w (d, m) at tau = ``time``, from those at 0; normalised variables."""
        grown, mixed = math.cosh(self.rate * time), self.sign * math.sinh(self.rate * time)
        along = self.direction @ input_weights
        a = grown * output_weights + mixed / self.kappa_prime * along
        change = (grown - 1.0) * along + mixed * self.kappa_prime * output_weights
        return a, input_weights + self.direction[:, None] * change
