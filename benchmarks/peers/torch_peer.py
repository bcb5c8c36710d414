"""PyTorch on the CPU, eager and through ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from . import TUNED, Contestant, Problem, gradient_from

Gradient = Callable[[Any, Any], tuple[Any, Any]]

SMALL = 32
"""n d up to which sums over samples and inputs are also written out instead of multiplied as
matrices, so that the compiler fuses all into a few loops over the neurons. Beyond, products win."""


class _Ways:
    """Gradients as functions of a and w, for one data set."""

    def __init__(self, problem: Problem) -> None:
        self.dtype = getattr(torch, problem.dtype)
        self.x, self.y = (torch.tensor(v, dtype=self.dtype) for v in (problem.x, problem.y))
        self.kappa, self.n = float(problem.kappa), len(problem.y)

    def last(self, a: Any, w: Any) -> tuple[Any, Any]:
        """By hand; arrays over samples and neurons are (n, m)."""
        z = self.x @ w
        h = z.relu()
        e = (self.kappa * (h @ a) - self.y) * (self.kappa / self.n)
        g = torch.where(z > 0, e[:, None], 0.0)
        return e @ h, (self.x.T @ g) * a

    def first(self, a: Any, w: Any) -> tuple[Any, Any]:
        """By hand; (m, n), as in ``torch.nn.Linear``."""
        z = w @ self.x.T
        h = z.relu()
        e = (self.kappa * (a @ h) - self.y) * (self.kappa / self.n)
        g = torch.where(z > 0, e, 0.0)
        return h @ e, (g @ self.x) * a[:, None]

    def sums(self, a: Any, w: Any) -> tuple[Any, Any]:
        """By hand, the products written as sums that a compiler can fuse."""
        z = (self.x[:, :, None] * w).sum(1)
        h = z.relu()
        e = (self.kappa * (h * a).sum(1) - self.y) * (self.kappa / self.n)
        g = torch.where(z > 0, e[:, None], 0.0)
        da = (e[:, None] * h).sum(0)
        return da, (self.x[:, :, None] * g[:, None, :]).sum(0) * a

    def loss(self, a: Any, w: Any) -> Any:
        """R, for the gradient by autograd."""
        f = self.kappa * (a @ (w @ self.x.T).relu())
        return 0.5 * ((f - self.y) ** 2).mean()


def _autograd(loss: Callable[[Any, Any], Any]) -> Gradient:
    def gradient(a: Any, w: Any) -> tuple[Any, Any]:
        return torch.autograd.grad(loss(a, w), (a, w))

    return gradient


def contestants(problem: Problem) -> list[Contestant]:
    """Eager and compiled, each by hand and by autograd."""
    torch.set_num_threads(problem.threads)
    torch._dynamo.reset()
    ways = _Ways(problem)
    last = torch.tensor(problem.theta[1:], dtype=ways.dtype)
    first = torch.tensor(np.ascontiguousarray(problem.theta[1:].T), dtype=ways.dtype)
    a = torch.tensor(problem.theta[0], dtype=ways.dtype)
    compiled = partial(torch.compile, dynamic=False, fullgraph=True)
    table: list[tuple[str, str, Gradient, Any]] = [
        ("PyTorch eager", "by hand, neurons last", ways.last, last),
        ("PyTorch eager", "by hand, neurons first", ways.first, first),
        ("PyTorch eager", "autograd, neurons first", _autograd(ways.loss), first),
        ("torch.compile", "by hand, neurons last", compiled(ways.last), last),
        ("torch.compile", "by hand, neurons first", compiled(ways.first), first),
        ("torch.compile", "autograd, neurons first", _autograd(compiled(ways.loss)), first),
    ]
    if problem.x.size <= SMALL:
        table.append((TUNED[1], "a sum for each input and sample", compiled(ways.sums), last))
    return [_contestant(*row, a) for row in table]


def _contestant(program: str, way: str, gradient: Gradient, w: Any, a: Any) -> Contestant:
    if "autograd" in way:
        a, w = a.clone().requires_grad_(), w.clone().requires_grad_()

        def call() -> tuple[Any, Any]:
            return gradient(a, w)
    else:

        def call() -> tuple[Any, Any]:
            with torch.no_grad():
                return gradient(a, w)

    def result() -> np.ndarray:
        return gradient_from(tuple(part.numpy() for part in call()), "first" in way)

    return Contestant(program, way, call, result)
