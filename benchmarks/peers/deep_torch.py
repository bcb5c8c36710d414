"""Steps of a three-layer network in PyTorch on the CPU, eager and through ``torch.compile``."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from .deep import DeepProblem, Stepping


def _both(z: Any) -> tuple[Any, Any]:
    """gelu(z) and its derivative."""
    below = 0.5 * (1.0 + torch.erf(z * math.sqrt(0.5)))
    return z * below, below + z * torch.exp(-0.5 * z * z) * (1.0 / math.sqrt(2.0 * math.pi))


class _Flow:
    """The rates, for one data set."""

    def __init__(self, problem: DeepProblem) -> None:
        self.x, self.y = torch.tensor(problem.x), torch.tensor(problem.y)
        self.m = [float(value) for value in problem.multipliers]
        self.c = [float(value) for value in problem.mobilities]
        self.n = len(problem.y)

    def signals(self, w1: Any, w2: Any, a: Any) -> tuple[Any, ...]:
        """Both layers' signals, and what each rate is the product with."""
        h1, d1 = _both(self.m[0] * (self.x @ w1))
        h2, d2 = _both(self.m[1] * (h1 @ w2))
        e = (self.m[2] * (h2 @ a) - self.y) * (-self.m[2] / self.n)
        b2 = (e[:, None] * a) * d2 * self.m[1]
        b1 = (b2 @ w2.T) * d1 * self.m[0]
        return h1, h2, e, b1, b2

    def rate(self, w1: Any, w2: Any, a: Any) -> tuple[Any, Any, Any]:
        """By hand."""
        h1, h2, e, b1, b2 = self.signals(w1, w2, a)
        c = self.c
        return self.x.T @ (c[0] * b1), h1.T @ (c[1] * b2), (c[2] * e) @ h2

    def rate_into(self, weights: list[Any], out: list[Any]) -> None:
        """By hand, without new arrays of the size of the weights."""
        h1, h2, e, b1, b2 = self.signals(*weights)
        torch.mm(self.x.T, self.c[0] * b1, out=out[0])
        torch.mm(h1.T, self.c[1] * b2, out=out[1])
        torch.mv(h2.T, self.c[2] * e, out=out[2])

    def rate_by_autograd(self, w1: Any, w2: Any, a: Any) -> tuple[Any, ...]:
        """From the loss."""
        leaves = [one.detach().requires_grad_() for one in (w1, w2, a)]
        with torch.enable_grad():
            gelu = torch.nn.functional.gelu
            h = gelu(self.m[1] * (gelu(self.m[0] * (self.x @ leaves[0])) @ leaves[1]))
            loss = 0.5 * ((self.m[2] * (h @ leaves[2]) - self.y) ** 2).mean()
            gradient = torch.autograd.grad(loss, leaves)
        return tuple(-c * part for c, part in zip(self.c, gradient, strict=True))


def _step(rate: Callable[..., Any], rows: list[list[float]], errors: list[float]) -> Any:
    """A step of lists of weights and first slopes."""

    def step(weights: list[Any], first: list[Any]) -> tuple[list[Any], list[Any], Any]:
        slopes, new = [first], weights
        for row in rows:
            new = [
                w + sum(factor * slope[place] for factor, slope in zip(row, slopes, strict=True))
                for place, w in enumerate(weights)
            ]
            slopes.append(list(rate(*new)))
        sizes = []
        for place, w in enumerate(new):
            error = sum(factor * slope[place] for factor, slope in zip(errors, slopes, strict=True))
            sizes.append(torch.linalg.vector_norm(error) / torch.linalg.vector_norm(w))
        return new, slopes[-1], torch.stack(sizes).max()

    return step


def _of_lists(problem: DeepProblem, program: str, way: str) -> Stepping:
    flow = _Flow(problem)
    rate = flow.rate_by_autograd if way == "autograd" else flow.rate
    step = _step(rate, problem.rows(), problem.errors())
    if program == "torch.compile":
        step = torch.compile(step, dynamic=False, fullgraph=True)
    weights = [torch.tensor(one) for one in problem.weights]
    state = [weights, list(rate(*weights))]

    def call() -> float:
        with torch.no_grad():
            *state[:], error = step(*state)
            return float(error)

    return Stepping(program, way, call, lambda: [one.numpy() for one in state[0]])


def _of_rows(problem: DeepProblem) -> Stepping:
    """All weights in one row and the slopes below each other: a stage is one product."""
    flow, bounds = _Flow(problem), np.cumsum([0, *(one.size for one in problem.weights)])
    shapes = [one.shape for one in problem.weights]

    def parts(row: Any) -> list[Any]:
        pieces = [row[bounds[k] : bounds[k + 1]] for k in range(3)]
        return [one.reshape(shape) for one, shape in zip(pieces, shapes, strict=True)]

    rows = [torch.tensor(np.concatenate([one.ravel() for one in problem.weights]))]
    rows += [torch.empty_like(rows[0]) for _ in range(2)]
    slopes = torch.empty((7, len(rows[0])), dtype=torch.float64)
    factors = [torch.tensor(row, dtype=torch.float64) for row in problem.rows()]
    errors = torch.tensor(problem.errors(), dtype=torch.float64)
    flow.rate_into(parts(rows[0]), parts(slopes[0]))

    def call() -> float:
        with torch.no_grad():
            for stage, row in enumerate(factors, start=1):
                torch.addmv(rows[0], slopes[:stage].T, row, out=rows[1])
                flow.rate_into(parts(rows[1]), parts(slopes[stage]))
            torch.mv(slopes.T, errors, out=rows[2])
            pairs = zip(parts(rows[2]), parts(rows[1]), strict=True)
            sizes = [float(torch.linalg.norm(e)) / float(torch.linalg.norm(w)) for e, w in pairs]
            slopes[0].copy_(slopes[6])
            rows[0], rows[1] = rows[1], rows[0]
            return max(sizes)

    return Stepping(
        "PyTorch eager", "by hand, in one row", call, lambda: [w.numpy() for w in parts(rows[0])]
    )


def contestants(problem: DeepProblem) -> list[Callable[[], Stepping]]:
    """Eager by hand and by autograd, and compiled as a whole step."""
    torch.set_num_threads(problem.threads)
    torch._dynamo.reset()
    return [
        partial(_of_rows, problem),
        partial(_of_lists, problem, "PyTorch eager", "autograd"),
        partial(_of_lists, problem, "torch.compile", "by hand"),
    ]
