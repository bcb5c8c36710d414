"""The mean-field limit: the flow of the distribution of neurons, without sampling noise.

As m grows with kappa m = c fixed, f(x) = c E[a sigma(w.x)] over neurons that start normal and move
by da/dtau, dw/dtau of the two-layer flow (Chizat & Bach; Mei, Montanari & Nguyen; Rotskoff &
Vanden-Eijnden; Sirignano & Spiliopoulos, 2018). Here the mean is a sum over particles of weight
p_k, sum p = 1, placed by a rule instead of drawn, and the steppers integrate it as a network:

* For a 1-homogeneous sigma a weight is a size. With (a, w) multiplied by (M p_k)^(1/2) the neuron
  counts M p_k times in f = (c/M) sum_k a_k sigma(w_k.x), and its equations, linear in (a, w)
  together, are unchanged: da/dtau is proportional to |w|, dw/dtau to a. So are relative changes,
  which become weighted sums of squares.
* For the same reason a neuron's path is its length at t = 0 times that of its direction, and the
  length of a normal vector does not depend on the direction: particles on the sphere |(a, w)|^2 =
  1 + d are exact in the radius. Up to d = 3 inputs (bias included) a product rule covers the
  sphere: Gauss-Legendre on short pieces, equal angles where the circle is whole.
* Otherwise particles of equal weights: Sobol points, with the opposite a besides so that f = 0 at
  t = 0 as it is at infinite width.

At a finite width m the same particles with c = kappa m give what networks of that width fluctuate
about to leading order, also where kappa m depends on m. Antisymmetric initial values only double
c: the distribution has both signs of a anyway.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.special import chdtri, ndtri

from flowsim.api import simulate
from flowsim.config import Experiment, load_experiment
from flowsim.data import Dataset
from flowsim.errors import ConfigError
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.preparation import Source
from flowsim.result import Run
from flowsim.scaling import Scaling

PRODUCT_INPUTS = 3
"""Inputs d, bias included, up to which a product rule covers the sphere."""

_GOLDEN = 0.5 * (math.sqrt(5.0) - 1.0)
_NODES = 8
"""Of a piece of the product rule."""


@dataclass(frozen=True)
class Particles:
    """Weighted points in the space of a neuron's weights, normalised variables.

    Attributes
    ----------
    output_weights : (M,) float64 array
        a.
    input_weights : (d, M) float64 array
        w.
    weights : (M,) float64 array
        p, of sum 1.
    spherical : bool
        Whether all have one length |(a, w)|, for all lengths in their direction.
    """

    output_weights: np.ndarray
    input_weights: np.ndarray
    weights: np.ndarray
    spherical: bool = False

    def __len__(self) -> int:
        return len(self.weights)

    def as_initial(self) -> dict[str, np.ndarray]:
        """The weights as sizes: initial values for a 1-homogeneous activation, or equal weights."""
        size = np.sqrt(len(self) * self.weights)
        return {
            "output_weights": size * self.output_weights,
            "input_weights": size * self.input_weights,
        }

    def neurons(self, output_weights: np.ndarray, input_weights: np.ndarray) -> np.ndarray:
        """What has become of them, as neurons (1 + d, M) of weights p.

        Parameters
        ----------
        output_weights, input_weights : (M,), (d, M) arrays
            Of a network that began with `as_initial`.
        """
        found = np.concatenate([output_weights[None], input_weights])
        found /= np.sqrt(len(self) * self.weights)
        if not self.spherical:
            return found
        # Lengths of normal vectors, spread evenly over the particles by the golden ratio.
        evenly = (_GOLDEN * np.arange(1, len(self) + 1)) % 1.0
        return found * np.sqrt(chdtri(len(found), 1.0 - evenly) / len(found))


def normal_particles(x: np.ndarray, size: int, homogeneous: bool) -> Particles:
    """About ``size`` particles that stand for unit-normal a and w.

    Parameters
    ----------
    x : (n, d) array
        Inputs, bias coordinate included. With d = 2 and a 1-homogeneous sigma the rule is broken
        up where w.x_i = 0 and where a = 0: a neuron's path jumps where it starts at a kink that
        pushes away to either side.
    size : int
        At least 16; the number is rounded to what the rule allows.
    homogeneous : bool
        Whether sigma is 1-homogeneous, so that the sphere is enough.

    Raises
    ------
    ConfigError
        If ``size`` is too small.
    """
    if size < 16:
        raise ConfigError(f"particles = {size}: must be at least 16; try 100000")
    d = x.shape[1]
    if homogeneous and d <= PRODUCT_INPUTS:
        return _on_the_sphere(x, size)
    return _sobol(d, size, homogeneous)


def _on_the_sphere(x: np.ndarray, size: int) -> Particles:
    """Product rule: latitude, sin = a/r, with the density cos^(d-1), and the direction of w."""
    d = x.shape[1]
    # As far apart along the latitude as along the angle of w, which goes all the way round.
    each = (size / 2) ** (1.0 / d) if d > 1 else 0.5 * size
    latitude, shares = _panels(np.array([-0.5, 0.0, 0.5]) * math.pi, each)
    shares = shares * np.cos(latitude) ** (d - 1)
    directions, portions = _directions(x, each)
    radius = math.sqrt(1.0 + d)
    weights = np.outer(shares, portions).reshape(-1)
    return Particles(
        np.repeat(radius * np.sin(latitude), len(portions)),
        (radius * np.cos(latitude)[:, None] * directions[:, None, :]).reshape(d, -1),
        weights / weights.sum(),
        spherical=True,
    )


def _panels(ends: np.ndarray, count: float) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on short pieces between ``ends``, about ``count`` in all."""
    node, weight = np.polynomial.legendre.leggauss(_NODES)
    pieces = []
    for low, high in pairwise(ends):
        share = count * (high - low) / (ends[-1] - ends[0])
        pieces.append(np.linspace(low, high, 1 + max(1, round(share / _NODES)))[:-1])
    starts = np.append(np.concatenate(pieces), ends[-1])
    half = 0.5 * np.diff(starts)
    at = starts[:-1, None] + half[:, None] * (1.0 + node)
    return at.reshape(-1), np.outer(half, weight).reshape(-1)


def _directions(x: np.ndarray, each: float) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (d, k) and their weights (k,), for d = 1, 2, 3."""
    if x.shape[1] == 1:
        return np.array([[1.0, -1.0]]), np.full(2, 0.5)
    if x.shape[1] == 2:
        angle, share = _panels(kinks(x), 2.0 * each)
        return np.stack([np.cos(angle), np.sin(angle)]), share
    count = 2 * max(2, round(each))
    angle = 2.0 * math.pi * (np.arange(count) + 0.5) / count
    latitude, share = _panels(np.array([-0.5, 0.5]) * math.pi, each)
    level = np.cos(latitude)
    circle = [np.multiply.outer(level, part).reshape(-1) for part in (np.cos(angle), np.sin(angle))]
    return np.stack([*circle, np.repeat(np.sin(latitude), count)]), np.repeat(share * level, count)


def kinks(x: np.ndarray) -> np.ndarray:
    """Angles of w at which some w.x_i = 0, ascending, once round."""
    x = x[np.any(x != 0.0, axis=1)]
    across = (np.arctan2(x[:, 1], x[:, 0]) + 0.5 * math.pi) % math.pi
    across = np.unique(np.concatenate([[0.0], across]).round(14))
    return np.concatenate([across, across + math.pi, [across[0] + 2.0 * math.pi]])


def _sobol(d: int, size: int, homogeneous: bool) -> Particles:
    """Equal weights: a power of two of Sobol points, each with both signs of a."""
    # Loading it takes longer than a small run, and the product rules have no use for it.
    from scipy.stats.qmc import Sobol

    exponent = max(1, round(math.log2(size)) - 1)
    # Scrambled with a seed of its own: the first points of the plain sequence lie on the axes.
    points = Sobol(1 + d, seed=2018).random_base2(exponent)
    normal = ndtri(np.clip(points, 0.5**53, 1.0 - 0.5**53)).T
    if homogeneous:
        normal *= math.sqrt(1.0 + d) / np.linalg.norm(normal, axis=0)
    count = 2 * normal.shape[1]
    return Particles(
        np.concatenate([normal[0], -normal[0]]),
        np.tile(normal[1:], 2),
        np.full(count, 1.0 / count),
        spherical=homogeneous,
    )


def mean_field_limit(
    experiment: Source,
    particles: int | Particles = 100_000,
    *,
    dataset: Dataset | None = None,
    **options: Any,
) -> Run:
    """Integrate the limit of an experiment's networks.

    Parameters
    ----------
    experiment : path, mapping or Experiment
        Of two layers. Its kappa m (twice that with antisymmetric initial values) and kappa' are
        those of the limit; its width and seed do not matter else.
    particles : int or Particles
        How many, or which.
    dataset : Dataset, optional
        Data in place of the experiment's.
    **options
        Of `flowsim.simulate`: ``output``, ``observables``, ``progress`` and others.

    Returns
    -------
    Run
        Its width is the number of particles; what it says of f, R and relative changes is that of
        the limit, and of the weights that of particles with their weights as sizes.

    Raises
    ------
    ConfigError
        If the network is deep, or the particles have unequal weights and sigma is not
        1-homogeneous.
    """
    resolved = load_experiment(experiment)
    data = dataset or resolved.make_dataset()
    scaling = resolved.make_scaling(data.n_inputs)
    if not isinstance(scaling, Scaling):
        raise ConfigError('network.kind = "deep": the mean-field limit is for two layers')
    homogeneous = ACTIVATIONS[resolved.network.activation].homogeneous
    if isinstance(particles, int):
        particles = normal_particles(data.x, particles, homogeneous)
    if not homogeneous and np.ptp(particles.weights) > 1e-12 * np.max(particles.weights):
        raise ConfigError(
            f"particles: unequal weights, which are sizes only where sigma is 1-homogeneous, and "
            f'"{resolved.network.activation}" is not; take equal ones'
        )
    return simulate(
        _as_network(resolved, scaling, len(particles)),
        dataset=dataset,
        initial=particles.as_initial(),
        **options,
    )


def _as_network(experiment: Experiment, scaling: Scaling, count: int) -> dict[str, Any]:
    """The experiment with so many particles for neurons: kappa m / M, the same kappa'."""
    sections: dict[str, Any] = experiment.to_dict()
    copies = 2 if experiment.network.antisymmetric else 1
    sections["network"] |= {"width": count, "antisymmetric": False}
    kappa = copies * scaling.width * scaling.kappa / count
    sections["scaling"] = {
        "alpha": scaling.beta1 * scaling.beta2 / kappa,
        "beta1": scaling.beta1,
        "beta2": scaling.beta2,
    }
    return sections
