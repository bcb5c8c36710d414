"""Gradient descent at a fixed step, as networks are trained: on all samples or on mini-batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from flowsim.steppers.base import Attempt, Flow, Point, State, Stepper, UnseenPoint
from flowsim.steppers.batches import Batches

_ONE = np.array([1.0])


class GradientDescent(Stepper):
    """theta += step v, v = momentum v + rate: Polyak's heavy ball; without momentum, Euler.

    Full batches without momentum have the papers' rule: when the loss rises, halve the step and
    restart. Mini-batches never do; with them the loss on all samples is looked at once an epoch,
    by the rules that end a run, and wherever a row is recorded.

    Parameters
    ----------
    step : float, optional
        Step in tau: the learning rate in units of the scheme's. By default 0.5 /
        lambda_max(K/n) at t = 0, of the first batch, with the bound of the loss's Hessian there.
    momentum : float
        From 0 to below 1. Needs rates that are states: dense ones.
    batches : Batches, optional
        Mini-batches; by default all samples.
    restart : bool, optional
        Whether to follow the papers' rule; by default where it makes sense, see above.
    """

    name: ClassVar[str] = "gradient-descent"

    def __init__(
        self,
        step: float | None = None,
        momentum: float = 0.0,
        batches: Batches | None = None,
        restart: bool | None = None,
    ) -> None:
        self.step, self.momentum, self.batches = step, momentum, batches
        self.plain = batches is None and momentum == 0.0
        self.restart = self.plain if restart is None else restart
        self.states = 3 if self.plain else 4 + 2 * (momentum > 0.0)

    def refined(self) -> GradientDescent:
        # The step that the rule ended with, halved: not the one it began with.
        step = None if self.step is None else 0.5 * self.step
        return GradientDescent(step, self.momentum, self.batches, self.restart)

    def start(self, flow: Flow, point: Point) -> None:
        self._allocate(flow)
        self._number = 0
        self._batch = self._batch_of(flow, 0)
        self._residual = (
            point.residual if self._batch is flow else self._batch.residual(point.theta)
        )
        if self.momentum > 0.0:
            self._velocity = flow.empty(1)
            self._velocity[...] = 0.0
        if self.step is None:
            curvature = self._batch.curvature(self._residual)
            rate = self._batch.tangent_kernel(point.theta).rate_bound(curvature)
            self.step = 0.5 / rate if 0.0 < rate < np.inf else 1.0

    def _allocate(self, flow: Flow) -> None:
        self._new, self._dense = flow.empty(), flow.empty()

    def _batch_of(self, flow: Flow, number: int) -> Flow:
        """The flow on the samples of a batch."""
        if self.batches is None:
            return flow
        return flow.batch(self.batches.rows(number, flow.n_samples))

    def memory(self) -> dict[str, Any]:
        memory: dict[str, Any] = {"step": self.step}
        if self.batches is not None:
            memory |= {"number": self._number, "residual": self._residual}
        if self.momentum > 0.0:
            memory["velocity"] = self._velocity
        return memory

    def resume(self, flow: Flow, point: Point, memory: Mapping[str, Any]) -> None:
        self._allocate(flow)
        self.step, self._number = memory["step"], memory.get("number", 0)
        self._batch = self._batch_of(flow, self._number)
        self._residual = memory.get("residual", point.residual)
        if self.momentum > 0.0:
            self._velocity = flow.empty(1)
            self._velocity[0][...] = flow.state(memory["velocity"][0])

    def attempt(self, flow: Flow, point: Point, limit: float) -> Attempt:
        assert self.step is not None  # set by start
        step = min(self.step, limit)
        return (self._fused if self.plain else self._by_parts)(flow, point, step)

    def _fused(self, flow: Flow, point: Point, step: float) -> Attempt:
        """Rate, step and the new residual in one pass."""
        residual = _descend(flow, point, step, self._new)
        new = Point.of(flow, point.time + step, self._new, residual)
        if rejection := self._rejection(new, point):
            return Attempt(step, rejection=rejection)
        self._new = point.theta

        def interpolate(fraction: float) -> tuple[State, np.ndarray]:
            return self._dense, _descend(flow, point, fraction * step, self._dense)

        return Attempt(step, point=new, interpolate=interpolate)

    def _by_parts(self, flow: Flow, point: Point, step: float) -> Attempt:
        """Rate on one batch, then the step and the residual on the next one."""
        slopes = self._batch.empty(1)
        self._batch.rate(point.theta, self._residual, slopes[0])
        if self.momentum > 0.0:
            slopes = flow.accumulate(self._velocity, self.momentum, slopes[0])
        number = self._number + 1
        following = self._batch_of(flow, number)
        residual = following.combine(point.theta, slopes, _ONE, step, self._new)
        if self.batches is None:
            new = Point.of(flow, point.time + step, self._new, residual)
        else:
            flow.n_rhs, flow.n_passes = flow.n_rhs + 1, flow.n_passes + 2
            epoch_over = number % self.batches.an_epoch(flow.n_samples) == 0
            new = UnseenPoint(point.time + step, self._new, flow, watched=epoch_over)
        if rejection := self._rejection(new, point, residual):
            return Attempt(step, rejection=rejection)
        self._new, self._number, self._batch = point.theta, number, following
        self._residual, self._velocity = residual, slopes

        def interpolate(fraction: float) -> tuple[State, np.ndarray]:
            dense = self._dense
            return dense, flow.combine(point.theta, slopes, _ONE, fraction * step, dense)

        return Attempt(step, point=new, interpolate=interpolate)

    def _rejection(self, new: Point, old: Point, residual: np.ndarray | None = None) -> str:
        """Why a step is not to be taken; with restarts its step is halved."""
        finite = bool(np.isfinite(new.residual if residual is None else residual).all())
        if not self.restart:
            return "" if finite else "diverged"
        if finite and new.loss <= old.loss:
            return ""
        assert self.step is not None
        self.step *= 0.5
        return "restart"


def _descend(flow: Flow, point: Point, step: float, out: State) -> np.ndarray:
    return flow.advance(point.theta, point.residual, point.theta, None, _ONE, step, out)
