"""Methods by name: one entry a method, and the choice that ``auto`` makes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from flowsim.steppers import METHOD_NAMES, PARTS
from flowsim.steppers.base import Stepper
from flowsim.steppers.batches import Batches
from flowsim.steppers.euler import Euler
from flowsim.steppers.exponential import Exponential
from flowsim.steppers.gradient_descent import GradientDescent
from flowsim.steppers.heun import Heun
from flowsim.steppers.implicit_euler import ImplicitEuler
from flowsim.steppers.kinks import Kinks
from flowsim.steppers.low_storage import LowStoragePair
from flowsim.steppers.low_storage_tableau import LowStorageTableau
from flowsim.steppers.rosenbrock import RosenbrockW
from flowsim.steppers.rosenbrock_tableau import RosenbrockTableau
from flowsim.steppers.runge_kutta import EmbeddedPair
from flowsim.steppers.stabilised import Stabilised
from flowsim.steppers.switching import Switching
from flowsim.steppers.tableau import ButcherTableau
from flowsim.steppers.tableaux.bs32 import BS32
from flowsim.steppers.tableaux.dop853 import DOP853
from flowsim.steppers.tableaux.dp54 import DP54
from flowsim.steppers.tableaux.rdpk35 import RDPK35
from flowsim.steppers.tableaux.ros2 import ROS2
from flowsim.steppers.tableaux.ros34pw2 import ROS34PW2
from flowsim.steppers.tableaux.tsit54 import TSIT54


@dataclass(frozen=True)
class MethodOptions:
    """What the methods may ask of ``[integrate]``."""

    rtol: float = 1e-3
    atol: float = 0.0
    first_step: float | None = None
    step: float | None = None
    step_fraction: float | None = None
    max_relative_change: float | None = None
    late_step_fraction: float | None = None
    batch_size: int | None = None
    momentum: float = 0.0
    restart: bool | None = None
    seed: int = 0
    """Of the order of the samples in mini-batches."""


def _pair(tableau: ButcherTableau, options: MethodOptions) -> Stepper:
    return EmbeddedPair(tableau, options.rtol, options.atol, options.first_step)


def _low_storage(scheme: LowStorageTableau, options: MethodOptions) -> Stepper:
    return LowStoragePair(scheme, options.rtol, options.atol, options.first_step)


def _stabilised(options: MethodOptions) -> Stepper:
    return Stabilised(options.rtol, options.atol, options.first_step)


def _rosenbrock(tableau: RosenbrockTableau, options: MethodOptions) -> Stepper:
    return RosenbrockW(tableau, options.rtol, options.atol, options.first_step)


def _bounded(method: type[Euler] | type[Heun], options: MethodOptions) -> Stepper:
    return method.from_rtol(
        options.rtol,
        options.step_fraction,
        options.max_relative_change,
        options.late_step_fraction,
    )


def _filtered(method: type[ImplicitEuler] | type[Exponential], options: MethodOptions) -> Stepper:
    bounds = options.step_fraction, options.max_relative_change
    return method.from_rtol(options.rtol, *bounds, options.atol)


def _kinks(options: MethodOptions) -> Stepper:
    return Kinks(options.rtol, options.first_step)


def _descent(options: MethodOptions) -> Stepper:
    size = options.batch_size
    batches = None if size is None else Batches(size, options.seed)
    return GradientDescent(options.step, options.momentum, batches, options.restart)


def _switching(options: MethodOptions) -> Stepper:
    parts: dict[str, Any] = {name: partial(METHODS[name], options) for name in PARTS["switching"]}
    # At the same rtol its errors would be some twenty times as large (``lazy`` of the benchmarks).
    tighter = replace(options, rtol=0.05 * options.rtol)
    parts["exponential"] = partial(METHODS["exponential"], tighter)
    return Switching(parts)


METHODS: dict[str, Callable[[MethodOptions], Stepper]] = {
    "euler": partial(_bounded, Euler),
    "heun": partial(_bounded, Heun),
    "bs32": partial(_pair, BS32),
    "dp54": partial(_pair, DP54),
    "tsit54": partial(_pair, TSIT54),
    "dop853": partial(_pair, DOP853),
    "rdpk35": partial(_low_storage, RDPK35),
    "rkc2": _stabilised,
    "ros2": partial(_rosenbrock, ROS2),
    "ros34pw2": partial(_rosenbrock, ROS34PW2),
    "implicit-euler": partial(_filtered, ImplicitEuler),
    "exponential": partial(_filtered, Exponential),
    "switching": _switching,
    "kinks": _kinks,
    "gradient-descent": _descent,
}
"""Constructors by name; with ``auto`` they are `METHOD_NAMES`."""

if set(METHODS) | {"auto"} != set(METHOD_NAMES):  # pragma: no cover
    raise RuntimeError("flowsim.steppers.METHOD_NAMES and METHODS differ")


_FRUGAL = "rdpk35"
"""What ``auto`` falls back on where memory is short."""


def states_of(name: str, options: MethodOptions | None = None) -> int:
    """Copies of the state that a method works with, the initial one not counted.

    Parameters
    ----------
    name : str
        A key of `METHODS`.
    options : MethodOptions, optional
    """
    return METHODS[name](options or MethodOptions()).states


def choose_method(kinked: bool, rtol: float, room: float = math.inf, stiff: bool = True) -> str:
    """The method that ``auto`` stands for (measured in ``benchmarks/work_precision.py``).

    Parameters
    ----------
    kinked : bool
        Whether sigma' jumps: embedded pairs would spend their steps on kinks.
    rtol : float
    room : float
        Copies of the state that memory has room for, see `states_of`.
    stiff : bool
        Whether K is small enough for looking whether the flow is.
    """
    explicit = "tsit54" if rtol > 1e-7 else "dop853"
    smooth = "switching" if stiff and explicit in PARTS["switching"] else explicit
    name = "heun" if kinked else smooth
    return name if states_of(name) <= room else _FRUGAL


def make_stepper(name: str, options: MethodOptions, kinked: bool) -> tuple[str, Stepper]:
    """Build a stepper.

    Parameters
    ----------
    name : str
        One of `METHOD_NAMES`.
    options : MethodOptions
    kinked : bool
        See `choose_method`.

    Returns
    -------
    str, Stepper
        The name with ``auto`` resolved, and the stepper.
    """
    if name == "auto":
        name = choose_method(kinked, options.rtol)
    return name, METHODS[name](options)
