"""Observables: one entry a quantity, computed from a frame of the trajectory.

An observable knows nothing of networks' insides: it asks the flow (relative changes, norms,
activity) and reads the counters. A new one is one new entry in `OBSERVABLES`; a script's own is a
function of a `Frame`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from flowsim.errors import ConfigError


@dataclass(frozen=True)
class Frame:
    """One moment of a run.

    Attributes
    ----------
    time : float
        tau.
    step, n_rejected : int
        Accepted steps and rejected attempts so far.
    dt : float
        Size in tau of the step this moment lies in.
    residual : (n,) or (n, o) float64 array
        e.
    theta : state
        The state, in the flow's layout; `parameters` has the arrays by name.
    flow : object
        The network bound to its data, e.g. `flowsim.networks.two_layer.TwoLayerFlow`.
    seconds : float
        Wall-clock seconds since the start.
    test_flow : object or None
        The same network bound to the test set, where there is one.
    steps_of : mapping
        Steps so far of each method that the run's is made of; empty if it is one by itself.
    method : str
        Which of them took the step this moment lies in; empty at first.
    stiffness : float
        Their step at the last look, over the longest stable one of the explicit method.
    tally : mapping
        What the method counts of itself, at the end of the last step.
    """

    time: float
    step: int
    n_rejected: int
    dt: float
    residual: np.ndarray
    theta: Any
    flow: Any
    seconds: float
    test_flow: Any = None
    steps_of: Mapping[str, int] = field(default_factory=dict)
    method: str = ""
    stiffness: float = math.nan
    tally: Mapping[str, int] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """R."""
        return self.flow.loss(self.residual)

    @cached_property
    def test_residual(self) -> np.ndarray:
        """f(x) - y on the test set."""
        return self.test_flow.residual(self.theta)

    @cached_property
    def tangent_kernel(self) -> Any:
        """K, `flowsim.networks.tangent_kernel.TangentKernel`; computed once a frame."""
        return self.flow.tangent_kernel(self.theta)

    @cached_property
    def parameters(self) -> dict[str, np.ndarray]:
        """Parameter arrays by name, normalised: ``output_weights``, ``input_weights``, ...

        Where the arrays have to be put together from factors that is done once a frame.
        """
        return self.flow.parameters(self.theta)


@dataclass(frozen=True)
class Observable:
    """A quantity that is saved along a run.

    Parameters
    ----------
    name : str
        Of its dataset.
    compute : callable
        From a `Frame` to a number or an array of fixed shape.
    long_name, units : str
        For the file.
    dims : tuple of str
        Names of the array's own axes; NAME_0, NAME_1, ... by default.
    dtype : str
        In the file.
    needs : str
        Capability of the flow without which it is left out; empty if none.
    asked_for : bool
        Costs more than a pass over the neurons: saved only if it is named.
    of_test_set : bool
        Left out where there is none.
    of_parts : bool
        Left out where the run's method is not made of several.
    of_tally : bool
        Left out where the run's method does not count it.
    about : callable, optional
        From the flow to what depends on it of the others: fields by name.
    """

    name: str
    compute: Callable[[Frame], Any]
    long_name: str
    units: str = "1"
    dims: tuple[str, ...] = ()
    dtype: str = "float64"
    needs: str = ""
    asked_for: bool = False
    of_test_set: bool = False
    of_parts: bool = False
    of_tally: bool = False
    about: Callable[[Any], Mapping[str, Any]] | None = None

    def of(self, flow: Any) -> Observable:
        """The same as a flow has it: its axes, its formula."""
        return self if self.about is None else replace(self, **self.about(flow))

    def sample(self, frame: Frame) -> np.ndarray:
        """Compute it once, to learn its shape.

        Raises
        ------
        ConfigError
            If it gives neither a number nor an array of numbers.
        """
        return self.checked(self.compute(frame))

    def checked(self, value: Any, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """What was computed, as it is saved.

        Parameters
        ----------
        value : object
            Copied.
        shape : tuple, optional
            That it must have.

        Raises
        ------
        ConfigError
            If it is neither a number nor an array of numbers, or has another shape.
        """
        try:
            values = np.asarray(value)
        except (TypeError, ValueError):  # rows of different lengths
            values = np.array(None)
        if values.dtype.kind not in "fiub":
            raise ConfigError(
                f"observables.{self.name} = {_shown(value)}: not numbers; return a number or an "
                "array of numbers"
            )
        if shape is not None and values.shape != shape:
            raise ConfigError(
                f"observables.{self.name} = {_shown(value)}: has shape {values.shape} where it had "
                f"{shape} at first; return the same shape every time"
            )
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite there
            return np.array(values, dtype=self.dtype)


def _shown(value: Any) -> str:
    """A value in one short line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


def _counted(name: str, frame: Frame) -> int:
    return frame.tally.get(name, 0)


def _of_loss(flow: Any) -> dict[str, str]:
    return {"long_name": flow.loss_function.formula, "units": flow.loss_function.units}


def _units_of_loss(flow: Any) -> dict[str, str]:
    return {"units": flow.loss_function.units}


def _axes_of_outputs(flow: Any) -> dict[str, tuple[str, ...]]:
    return {"dims": flow.output_dims}


OBSERVABLES: dict[str, Observable] = {
    entry.name: entry
    for entry in (
        Observable("step", lambda f: f.step, "accepted steps so far", dtype="int64"),
        Observable("loss", lambda f: f.loss, "R", about=_of_loss),
        Observable(
            "residual", lambda f: f.residual, "e_i = f(x_i) - y_i", "y", about=_axes_of_outputs
        ),
        Observable(
            "accuracy",
            lambda f: f.flow.accuracy(f.residual),
            "share of the samples that are classified correctly",
            needs="accuracy",
        ),
        Observable(
            "relative_change",
            lambda f: f.flow.relative_change(f.theta),
            "RD = |theta(t) - theta(0)| / |theta(0)| of each group of weights",
            dims=("layer",),
        ),
        Observable(
            "norm",
            lambda f: f.flow.norms(f.theta),
            "norm of each group of weights, normalised variables",
            dims=("layer",),
        ),
        Observable(
            "invariant_drift",
            lambda f: f.flow.invariant_drift(f.theta),
            "largest relative drift of a neuron's kappa'^2 a^2 - |w|^2",
            needs="invariant_drift",
        ),
        Observable(
            "balance_drift",
            lambda f: f.flow.balance_drift(f.theta),
            "largest relative drift between the layers of |theta_l|^2 / mobility_l",
            needs="balance_drift",
        ),
        Observable(
            "operator_change",
            lambda f: f.flow.operator_change(f.theta),
            "RD of each group of weights in operator norm",
            dims=("layer",),
            needs="operator_change",
            asked_for=True,
        ),
        Observable(
            "effective_rank",
            lambda f: f.flow.effective_ranks(f.theta),
            "exp of the entropy of each group's singular values over their sum",
            dims=("layer",),
            needs="effective_ranks",
            asked_for=True,
        ),
        Observable(
            "mean_cosine",
            lambda f: f.flow.mean_cosines(f.theta, 1),
            "cosines between neurons' input weights, mean weighted with amplitudes |w| |a|",
            dims=("hidden_layer",),
            needs="mean_cosines",
            asked_for=True,
        ),
        Observable(
            "mean_squared_cosine",
            lambda f: f.flow.mean_cosines(f.theta, 2),
            "squared cosines between neurons' input weights, mean weighted with amplitudes",
            dims=("hidden_layer",),
            needs="mean_cosines",
            asked_for=True,
        ),
        Observable(
            "kernel_alignment",
            lambda f: f.tangent_kernel.alignments(f.flow.y),
            "y.K y / (|K| |y|^2) of each layer's K",
            dims=("layer",),
            needs="tangent_kernel",
            asked_for=True,
        ),
        Observable(
            "centred_kernel_alignment",
            lambda f: f.tangent_kernel.alignments(f.flow.y, centred=True),
            "the same of K and y without their means over the samples",
            dims=("layer",),
            needs="tangent_kernel",
            asked_for=True,
        ),
        Observable(
            "kernel_distance",
            lambda f: f.tangent_kernel.distances(f.flow.initial_kernel),
            "|K - K(0)| / |K(0)| of each layer's K, Frobenius norm",
            dims=("layer",),
            needs="tangent_kernel",
            asked_for=True,
        ),
        Observable(
            "active_neurons",
            lambda f: f.flow.activity(f.theta)[0],
            "neurons with w.x_i > 0 for some sample",
            dtype="int64",
            needs="activity",
        ),
        Observable(
            "dead_neurons",
            lambda f: f.flow.activity(f.theta)[1],
            "neurons with w.x_i <= 0 for every sample",
            dtype="int64",
            needs="activity",
        ),
        Observable("dt", lambda f: f.dt, "size of the step this row lies in", "tau"),
        Observable(
            "n_rhs", lambda f: f.flow.n_rhs, "residuals with gradient so far", dtype="int64"
        ),
        Observable(
            "n_passes", lambda f: f.flow.n_passes, "sweeps over the neurons so far", dtype="int64"
        ),
        Observable("n_rejected", lambda f: f.n_rejected, "rejected steps so far", dtype="int64"),
        Observable(
            "method",
            lambda f: list(f.steps_of).index(f.method) if f.method else 0,
            "method of the step this row lies in, counted from 0 in the attribute methods",
            dtype="int64",
            of_parts=True,
        ),
        Observable(
            "steps_of_method",
            lambda f: list(f.steps_of.values()),
            "accepted steps so far of each of the methods",
            dims=("part",),
            dtype="int64",
            of_parts=True,
        ),
        Observable(
            "stiffness",
            lambda f: f.stiffness,
            "step over the longest stable one of the explicit method, at the last look",
            of_parts=True,
        ),
        *(
            Observable(name, partial(_counted, name), long_name, dtype="int64", of_tally=True)
            for name, long_name in (
                ("kink_crossings", "times so far that a neuron came to a sample's hyperplane"),
                ("newton_iterations", "iterations so far for the paths of e, a pass each"),
                ("pinned_neurons", "neurons held on some hyperplane at the end of the last step"),
            )
        ),
        Observable("wall_seconds", lambda f: f.seconds, "wall-clock time since the start", "s"),
        Observable(
            "test_loss",
            lambda f: f.test_flow.loss(f.test_residual),
            "R on the test set",
            of_test_set=True,
            about=_units_of_loss,
        ),
        Observable(
            "test_accuracy",
            lambda f: f.test_flow.accuracy(f.test_residual),
            "share of the test set that is classified correctly",
            needs="accuracy",
            of_test_set=True,
        ),
    )
}
"""Observables by name; all that the flow and the data allow are saved unless names are given, but
for those that wait to be asked for."""


def possible_names(
    flow: Any, test_set: bool, parts: bool = False, tally: Sequence[str] = ()
) -> list[str]:
    """Names of the observables that a flow can supply.

    Parameters
    ----------
    flow : object
    test_set : bool
        Whether there is one.
    parts : bool
        Whether the run's method is made of several.
    tally : sequence of str
        What the method counts of itself.
    """
    return [
        name
        for name, entry in OBSERVABLES.items()
        if (not entry.needs or hasattr(flow, entry.needs))
        and (test_set or not entry.of_test_set)
        and (parts or not entry.of_parts)
        and (name in tally or not entry.of_tally)
    ]
