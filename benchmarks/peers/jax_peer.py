"""JAX on the CPU, compiled by ``jax.jit``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import Contestant, Problem, gradient_from

Gradient = Callable[[Any, Any], tuple[Any, Any]]


def _ways(x: Any, y: Any, kappa: float) -> dict[str, Gradient]:
    """Gradients as functions of a and w: w (d, m), or (m, d) where neurons are first."""
    n = len(y)
    factor = kappa / n

    def last(a: Any, w: Any) -> tuple[Any, Any]:
        z = x @ w
        h = jax.nn.relu(z)
        e = (kappa * (h @ a) - y) * factor
        g = jnp.where(z > 0, e[:, None], 0)
        return e @ h, (x.T @ g) * a

    def first(a: Any, w: Any) -> tuple[Any, Any]:
        z = w @ x.T
        h = jax.nn.relu(z)
        e = (kappa * (a @ h) - y) * factor
        g = jnp.where(z > 0, e, 0)
        return h @ e, (g @ x) * a[:, None]

    def loss(parameters: tuple[Any, Any]) -> Any:
        a, w = parameters
        return 0.5 * jnp.mean((kappa * (a @ jax.nn.relu(w @ x.T)) - y) ** 2)

    def autodiff(a: Any, w: Any) -> tuple[Any, Any]:
        return jax.value_and_grad(loss)((a, w))[1]

    # Sums written out, which torch.compile fuses well, take XLA five times as long as products.
    return {
        "by hand, neurons last": last,
        "by hand, neurons first": first,
        "value_and_grad, neurons first": autodiff,
    }


def contestants(problem: Problem) -> list[Contestant]:
    """Compiled by hand and by automatic differentiation."""
    jax.config.update("jax_enable_x64", True)
    dtype = np.dtype(problem.dtype)
    x, y = (jnp.asarray(v, dtype) for v in (problem.x, problem.y))
    a, last = jnp.asarray(problem.theta[0], dtype), jnp.asarray(problem.theta[1:], dtype)
    first = jnp.asarray(problem.theta[1:].T, dtype)
    return [
        _contestant(way, jax.jit(gradient), a, first if "first" in way else last)
        for way, gradient in _ways(x, y, float(problem.kappa)).items()
    ]


def _contestant(way: str, gradient: Gradient, a: Any, w: Any) -> Contestant:
    def call() -> tuple[Any, Any]:
        return jax.block_until_ready(gradient(a, w))

    return Contestant("JAX jit", way, call, lambda: gradient_from(call(), "first" in way))
