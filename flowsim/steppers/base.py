"""The parts every method is made of: a point of the trajectory, an attempt, the method itself.

A stepper only proposes: ``attempt(flow, point, limit)`` tries one step and says whether it was
accepted, where it led, and how to read off the states in between. The loop around it, with its
events and its recording, is the same for all (`flowsim.steppers.driver`).

A stepper sees a network as a *flow* whose states are opaque: it may allocate them, combine them
with slopes, ask for residuals, rates, norms and the tangent kernel, and nothing else. What it
remembers from one step to the next it gives away as `Stepper.memory`: from the point and that, a
run continues to the same bits.

What a stepper carries of the outputs is the residual e = f - y, (n,), or (n, o) with o > 1 outputs.
Only the flow knows the loss: it makes of e the loss R, its gradient by the outputs and bounds.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np

from flowsim.kernels.cpu.samples import all_finite
from flowsim.steppers.flow import Flow as Flow
from flowsim.steppers.flow import Kernel as Kernel
from flowsim.steppers.flow import NeuronBlocks as NeuronBlocks
from flowsim.steppers.flow import State as State


@dataclass
class Point:
    """A point of the trajectory: tau, the state, its residual e and its loss R."""

    time: float
    theta: State
    residual: np.ndarray
    loss: float
    watched: bool = True
    """Whether the rules that end a run look at R here."""

    @classmethod
    def of(cls, flow: Flow, time: float, theta: State, residual: np.ndarray) -> Self:
        """The point with the loss that the flow makes of its residual."""
        return cls(time, theta, residual, flow.loss(residual))

    @property
    def finite(self) -> bool:
        """Whether every residual is a finite number."""
        return all_finite(self.residual.reshape(-1))


class UnseenPoint(Point):
    """A point of a method that does not look at all samples: e is computed if it is asked for.

    Its state must then still be valid. Looking counts for nothing: it is not what the method costs.

    Parameters
    ----------
    time : float
    theta : State
    flow : Flow
        On all samples.
    watched : bool
        Whether the rules that end a run look at R here.
    """

    def __init__(self, time: float, theta: State, flow: Flow, watched: bool) -> None:
        self.time, self.theta, self._flow, self.watched = time, theta, flow, watched
        self._seen: np.ndarray | None = None

    @property
    def residual(self) -> np.ndarray:  # type: ignore[override] # computed, not a field
        """e (n,)."""
        if self._seen is None:
            flow, counts = self._flow, (self._flow.n_rhs, self._flow.n_passes)
            self._seen = flow.residual(self.theta)
            flow.n_rhs, flow.n_passes = counts
        return self._seen

    @property
    def loss(self) -> float:  # type: ignore[override] # computed, not a field
        """R."""
        return self._flow.loss(self.residual)


@dataclass
class Attempt:
    """One try at a step.

    Attributes
    ----------
    step : float
        Its size in tau.
    point : Point or None
        Where it led; None if it was rejected.
    rejection : str
        Why it was rejected: ``error``, ``loss``, ``non-finite``, ``diverged`` (not finite after
        a step that cannot be taken otherwise), ``at rest`` (the loss falls in no step, however
        small) or ``restart`` (begin anew from t = 0); empty if it was not.
    interpolate : callable or None
        ``interpolate(fraction)`` returns the state at ``time + fraction step`` and e there. The
        state is a buffer of the stepper's: valid until the next call or the next attempt.
    end : float
        Fraction of the step at which the run ends within it; 1 if it does not.
    method : str
        Which one took it, of a method that is made of several.
    stiffness : float
        Of such a method: its step at the last look, over the longest stable explicit one.
    tally : mapping
        What else a method counts, up to this step: see `flowsim.steppers.TALLIES`.
    """

    step: float
    point: Point | None = None
    rejection: str = ""
    interpolate: Callable[[float], tuple[State, np.ndarray]] | None = None
    end: float = 1.0
    method: str = ""
    stiffness: float = math.nan
    tally: Mapping[str, int] = field(default_factory=dict)


class Stepper(ABC):
    """A method of integration with its own control of the step size.

    A stepper owns the states it works with, the point's included: once a step from a point has
    been accepted, the next attempt may overwrite that point's state.

    Attributes
    ----------
    states : int
        Copies of the state that it works with, the point's included and the initial one not.
    """

    name: ClassVar[str]
    states: int

    @abstractmethod
    def start(self, flow: Flow, point: Point) -> None:
        """Get ready to leave ``point``: buffers, first step. Also called after a restart."""

    @abstractmethod
    def memory(self) -> dict[str, Any]:
        """What the next step depends on besides the point it leaves from.

        Numbers, text and arrays by name; valid after `start` and after an accepted attempt. The
        arrays are never written to afterwards: the loop keeps this from step to step.
        """

    @abstractmethod
    def resume(self, flow: Flow, point: Point, memory: Mapping[str, Any]) -> None:
        """Get ready to leave ``point`` like the stepper that had ``memory`` there.

        What can be computed from the point to the same bits need not be in the memory, like the
        rate of a first-same-as-last pair.
        """

    @abstractmethod
    def attempt(self, flow: Flow, point: Point, limit: float) -> Attempt:
        """Try one step from ``point``, no longer than ``limit``.

        ``point`` is what the last accepted attempt returned, or where the stepper was started.
        Its state is kept at least until the attempt after the one that is accepted.
        """

    def refined(self) -> Stepper:
        """The same method at half the step or a tenth of rtol, for an estimate of its error."""
        raise TypeError(f"method {self.name!r} has no refined form")  # pragma: no cover
