"""Steps of a three-layer network in JAX on the CPU, a whole step compiled by ``jax.jit``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .deep import DeepProblem, Stepping


def _gelu(z: Any) -> Any:
    return jax.nn.gelu(z, approximate=False)


def _rate_by_hand(problem: DeepProblem) -> Callable[..., Any]:
    x, y = jnp.asarray(problem.x), jnp.asarray(problem.y)
    m, c, n = problem.multipliers, problem.mobilities, len(problem.y)

    def both(z: Any) -> tuple[Any, Any]:
        below = jax.scipy.stats.norm.cdf(z)
        return z * below, below + z * jax.scipy.stats.norm.pdf(z)

    def rate(w1: Any, w2: Any, a: Any) -> tuple[Any, Any, Any]:
        h1, d1 = both(m[0] * (x @ w1))
        h2, d2 = both(m[1] * (h1 @ w2))
        e = (m[2] * (h2 @ a) - y) * (-m[2] / n)
        b2 = (e[:, None] * a) * d2 * m[1]
        b1 = (b2 @ w2.T) * d1 * m[0]
        return x.T @ (c[0] * b1), h1.T @ (c[1] * b2), (c[2] * e) @ h2

    return rate


def _rate_by_grad(problem: DeepProblem) -> Callable[..., Any]:
    x, y = jnp.asarray(problem.x), jnp.asarray(problem.y)
    m, c = problem.multipliers, problem.mobilities

    def loss(weights: tuple[Any, Any, Any]) -> Any:
        w1, w2, a = weights
        f = m[2] * (_gelu(m[1] * (_gelu(m[0] * (x @ w1)) @ w2)) @ a)
        return 0.5 * jnp.mean((f - y) ** 2)

    def rate(*weights: Any) -> tuple[Any, ...]:
        return tuple(-f * part for f, part in zip(c, jax.grad(loss)(weights), strict=True))

    return rate


def _make(problem: DeepProblem, way: str) -> Stepping:
    rate = _rate_by_hand(problem) if way == "by hand" else _rate_by_grad(problem)
    rows, errors = problem.rows(), problem.errors()

    def combine(factors: list[float], slopes: list[Any], place: int) -> Any:
        return sum(f * slope[place] for f, slope in zip(factors, slopes, strict=True))

    def step(weights: Any, first: Any) -> tuple[Any, Any, Any]:
        slopes, new = [first], weights
        for row in rows:
            new = tuple(w + combine(row, slopes, place) for place, w in enumerate(weights))
            slopes.append(rate(*new))
        sizes = [
            jnp.linalg.norm(combine(errors, slopes, place)) / jnp.linalg.norm(w)
            for place, w in enumerate(new)
        ]
        return new, slopes[-1], jnp.max(jnp.stack(sizes))

    compiled = jax.jit(step, donate_argnums=(0, 1))
    weights = tuple(jnp.array(one) for one in problem.weights)
    state = [weights, jax.jit(rate)(*weights)]

    def call() -> float:
        *state[:], error = compiled(*state)
        jax.block_until_ready(state)
        return float(error)

    return Stepping("JAX jit", way, call, lambda: [np.asarray(one) for one in state[0]])


def contestants(problem: DeepProblem) -> list[Callable[[], Stepping]]:
    """By hand and by automatic differentiation."""
    jax.config.update("jax_enable_x64", True)
    return [partial(_make, problem, way) for way in ("by hand", "grad")]
