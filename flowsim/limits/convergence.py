"""How fast networks of width m approach their limit: in function, in distribution, in RD.

`converge` runs an experiment at several widths and seeds, follows f on a grid of inputs, and
compares with the limit of the regime that its exponents are in:

* ``linear``: kernel gradient flow (`flowsim.limits.linear`) with each width's own kappa m, from the
  network's own f at t = 0; the neurons stay normal.
* ``mean-field``: the flow of particles placed by a rule (`flowsim.limits.mean_field`), integrated
  by the same method to the same times.

Initial values may be drawn, with or without antisymmetry, or placed by the rule too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from flowsim.analysis.slopes import SlopeFit, fit_slope
from flowsim.api import simulate
from flowsim.config import load_experiment
from flowsim.data import Dataset
from flowsim.errors import ConfigError
from flowsim.kernels.activations import ACTIVATIONS, Activation
from flowsim.limits.linear import LinearLimit
from flowsim.limits.mean_field import Particles, mean_field_limit, normal_particles
from flowsim.limits.sliced_wasserstein import sliced_from_normal, sliced_wasserstein
from flowsim.networks.two_layer import TwoLayerNetwork
from flowsim.preparation import Source, make_network
from flowsim.result import Run
from flowsim.scaling import Scaling, predicted_regime

LIMITS = ("auto", "linear", "mean-field")
INITIAL = ("random", "quadrature")
MEASURES = {
    "function": "sup over tau and the grid of |f_m - f|",
    "distribution": "sliced Wasserstein distance of (a, w) at the end",
    "relative_change": "|RD_m - RD| of the input weights at the end",
}
"""What is measured, and what it is."""

_GRID = 41
_OUTPUTS = "outputs_on_grid"
_KEPT = {_OUTPUTS: lambda frame: frame.test_residual}


@dataclass(frozen=True)
class Row:
    """One network beside its limit.

    Attributes
    ----------
    width, seed : int
    distances : dict of str to float
        By the names of `MEASURES`.
    relative_change : float
        RD of its input weights at the end.
    """

    width: int
    seed: int
    distances: dict[str, float]
    relative_change: float


@dataclass(frozen=True)
class Convergence:
    """Distances from the limit, and the powers of m by which they fall.

    Attributes
    ----------
    limit, initial : str
        One of `LIMITS` but ``auto``, and one of `INITIAL`.
    rows : tuple of Row
    rates : dict of str to SlopeFit
        Fitted powers of m by the names of `MEASURES`, with intervals.
    relative_change : float
        RD of the limit's input weights at the end; NaN for ``linear``.
    """

    limit: str
    initial: str
    rows: tuple[Row, ...]
    rates: dict[str, SlopeFit]
    relative_change: float

    def to_dict(self) -> dict[str, Any]:
        """Everything as nested dictionaries of plain values."""
        return {
            "limit": self.limit,
            "initial": self.initial,
            "relative_change": self.relative_change,
            "rows": [vars(row) for row in self.rows],
            "rates": {
                name: {"slope": fit.slope, "interval": fit.interval, "method": fit.method}
                for name, fit in self.rates.items()
            },
        }


class _Limit(Protocol):
    """What networks are compared with."""

    def compare(
        self, run: Run, network: TwoLayerNetwork, placed: Particles | None
    ) -> dict[str, float]:
        """Distances of a run, by name; of drawn weights, or of particles."""

    @property
    def relative_change(self) -> float:
        """RD of the input weights at the end."""

    def options(self) -> dict[str, Any]:
        """Keys of ``integrate`` and ``record`` that networks to be compared want."""


def converge(
    experiment: Source,
    widths: Iterable[int],
    seeds: int = 5,
    *,
    limit: str = "auto",
    initial: str = "random",
    particles: int | Particles = 100_000,
    inputs: np.ndarray | None = None,
    dataset: Dataset | None = None,
) -> Convergence:
    """Measure how fast an experiment's networks approach their limit as the width grows.

    Parameters
    ----------
    experiment : path, mapping or Experiment
        Of two layers. Its ``record`` section is not used. For ``mean-field`` networks are followed
        to the time at which the limit ends.
    widths : iterable of int
        At least two.
    seeds : int
        Networks a width, from the experiment's seed on; 1 for ``quadrature``, where nothing is
        drawn.
    limit : {"auto", "linear", "mean-field"}
        ``auto`` goes by the predicted regime of the exponents.
    initial : {"random", "quadrature"}
        How the networks' weights are placed. ``quadrature`` takes about m particles of the
        mean-field rule, with their weights.
    particles : int or Particles
        Of the mean-field limit.
    inputs : (k, inputs) array, optional
        Where functions are compared, without bias coordinate; by default for one input 41 points
        over half as much again as the samples' range, else the samples and the test set.
    dataset : Dataset, optional
        Data in place of the experiment's.

    Raises
    ------
    ConfigError
        With the key that does not fit.
    """
    resolved = load_experiment(experiment)
    widths = sorted({int(width) for width in widths})
    data = dataset or resolved.make_dataset()
    scaling = resolved.make_scaling(data.n_inputs)
    if not isinstance(scaling, Scaling):
        raise ConfigError('network.kind = "deep": limits of deep networks are not followed in time')
    limit = _chosen(limit, initial, scaling)
    if len(widths) < 2 or widths[0] < 2:
        raise ConfigError(f"widths = {widths}: wanted two or more, of at least 2; try 100 and 1000")
    grid = _grid(data, inputs)
    data = replace(data, x_test=grid, y_test=np.zeros(len(grid)))
    sections: dict[str, Any] = resolved.to_dict()
    sections["record"] = {"snapshots": {"schedule": "none"}, "kernel": {"schedule": "none"}}
    sigma = ACTIVATIONS[resolved.network.activation]
    reference: _Limit = (
        _Linear(data) if limit == "linear" else _MeanField(sections, data, particles, sigma)
    )
    rows = [
        _row(sections, data, width, seed, initial, reference)
        for width in widths
        for seed in range(1 if initial == "quadrature" else seeds)
    ]
    if len({row.width for row in rows}) < 2:
        raise ConfigError(
            f"widths = {widths}: the rule has {rows[0].width} particles for all of them; take "
            "larger ones"
        )
    rates = {
        name: fit_slope([row.width for row in rows], [row.distances[name] for row in rows])
        for name in rows[0].distances
        # Of two that are the same there is no rate.
        if all(row.distances[name] > 0.0 for row in rows)
    }
    return Convergence(limit, initial, tuple(rows), rates, reference.relative_change)


def _chosen(limit: str, initial: str, scaling: Scaling) -> str:
    if limit not in LIMITS:
        raise ConfigError(f'limit = "{limit}": unknown; choose from {", ".join(LIMITS)}')
    if initial not in INITIAL:
        raise ConfigError(f'initial = "{initial}": unknown; choose from {", ".join(INITIAL)}')
    regime = predicted_regime(scaling.gamma, scaling.gamma_prime, "all")
    if limit == "auto":
        if regime == "condensed":
            raise ConfigError(
                f"scaling.gamma = {scaling.gamma:g}: condensed, where no limit of f is known; take "
                "gamma = 1 or less, or name the limit"
            )
        limit = "linear" if regime == "linear" else "mean-field"
    if limit == "linear" and initial == "quadrature":
        raise ConfigError('initial = "quadrature": for the limit "mean-field"; take "random"')
    return limit


def _grid(data: Dataset, inputs: np.ndarray | None) -> np.ndarray:
    """Where functions are compared (k, d): a test set with 0 for targets, so that f is e."""
    if inputs is not None:
        grid = np.asarray(inputs, np.float64)
        grid = grid.reshape(-1, 1) if grid.ndim == 1 else grid
        if data.bias:
            grid = np.column_stack([grid, np.ones(len(grid))])
        if grid.shape[1] != data.n_inputs:
            raise ConfigError(
                f"inputs: {grid.shape[1]} coordinates, bias included; wanted {data.n_inputs}"
            )
    elif data.n_inputs - data.bias == 1:
        low, high = float(data.x[:, 0].min()), float(data.x[:, 0].max())
        reach = 0.25 * (high - low) or 1.0
        grid = np.linspace(low - reach, high + reach, _GRID)[:, None]
        grid = np.column_stack([grid, np.ones(_GRID)]) if data.bias else grid
    else:
        grid = data.x if data.x_test is None else np.concatenate([data.x, data.x_test])
    return np.ascontiguousarray(grid)


def _row(
    sections: dict[str, Any],
    data: Dataset,
    width: int,
    seed: int,
    initial: str,
    reference: _Limit,
) -> Row:
    own = {**sections, "network": {**sections["network"], "width": width}}
    own["network"]["seed"] += seed
    for name, keys in reference.options().items():
        own[name] = {**own[name], **keys}
    network = make_network(
        load_experiment(own), data, ACTIVATIONS[sections["network"]["activation"]]
    )
    assert isinstance(network, TwoLayerNetwork)
    placed = None
    if initial == "random":
        run = simulate(own, dataset=data, observables=_KEPT)
    else:
        placed = normal_particles(data.x, width, network.activation.homogeneous)
        run = mean_field_limit(own, placed, dataset=data, observables=_KEPT)
        width = len(placed)
    change = float(run.relative_change["input"])
    distances = reference.compare(run, network, placed)
    return Row(width, sections["network"]["seed"] + seed, distances, change)


class _Linear:
    """Kernel gradient flow at each width's own scale, beside every step of a network."""

    relative_change = float("nan")

    def __init__(self, data: Dataset) -> None:
        self.data = data

    def options(self) -> dict[str, Any]:
        # Between steps a row would be the interpolant's, which is not as accurate.
        return {"record": {"observables": {"schedule": "steps", "every": 1}}}

    def compare(
        self, run: Run, network: TwoLayerNetwork, placed: Particles | None
    ) -> dict[str, float]:
        outputs = run.observables[_OUTPUTS]
        first = run.observables["residual"][0] + self.data.y
        limit = LinearLimit(network, self.data.x, self.data.y, first)
        assert self.data.x_test is not None
        expected = limit.predict(self.data.x_test, run.time, outputs[0])
        a, w = run.weights()
        own = np.concatenate([a[None], w])[:, : network.width]
        return {
            "function": float(np.max(np.abs(outputs - expected))),
            "distribution": sliced_from_normal(own),
        }


class _MeanField:
    """The particles' flow, followed to its own end."""

    def __init__(
        self, sections: dict[str, Any], data: Dataset, particles: int | Particles, sigma: Activation
    ) -> None:
        if isinstance(particles, int):
            particles = normal_particles(data.x, particles, sigma.homogeneous)
        run = mean_field_limit(sections, particles, dataset=data, observables=_KEPT)
        self.end = float(run.final["time"])
        self.relative_change = float(run.relative_change["input"])
        self.times, self.outputs = run.time, run.observables[_OUTPUTS]
        self.neurons, self.weights = particles.neurons(*run.weights()), particles.weights

    def options(self) -> dict[str, Any]:
        return {"integrate": {"stop_loss": 0.0, "t_max": self.end, "steady_slope": 0.0}}

    def compare(
        self, run: Run, network: TwoLayerNetwork, placed: Particles | None
    ) -> dict[str, float]:
        _, here, there = np.intersect1d(run.time, self.times, return_indices=True)
        gap = run.observables[_OUTPUTS][here] - self.outputs[there]
        a, w = run.weights()
        if placed is None:
            neurons, weights = np.concatenate([a[None], w])[:, : network.width], None
        else:
            neurons, weights = placed.neurons(a, w), placed.weights
        return {
            "function": float(np.max(np.abs(gap))),
            "distribution": sliced_wasserstein(neurons, self.neurons, weights, self.weights),
            "relative_change": abs(run.relative_change["input"] - self.relative_change),
        }
