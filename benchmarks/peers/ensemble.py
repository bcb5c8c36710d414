"""Many small networks by other solvers: diffrax over batches, SciPy over processes.

The flow is flowsim's own in normalised variables with gamma = 1, gamma' = 0 (kappa = 1/m, both
mobilities m), from the same initial states; each network ends where R falls below the limit, found
on the method's interpolant as flowsim does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

RTOL, ATOL = 1e-3, 1e-6
HORIZON = 1e6
BATCHES = (20, 100, 1000)
"""Sizes tried under `vmap`; a batch of 1 is a contestant of its own."""
TRIED = 40
"""Networks on which ways of writing and sizes of a batch are tried."""


@dataclass(frozen=True)
class Ensemble:
    """Initial states (networks, 1 + d, neurons), data x (n, d), y (n,), kappa and the limit."""

    initial: np.ndarray
    x: np.ndarray
    y: np.ndarray
    kappa: float
    stop_loss: float


@dataclass(frozen=True)
class Solved:
    """Final states, seconds for all of them, and what a reader must know."""

    final: np.ndarray
    seconds: float
    evaluations: float
    remark: str


# SciPy


def _rate(problem: Ensemble, _: float, flat: np.ndarray) -> np.ndarray:
    theta = flat.reshape(problem.initial.shape[1:])
    n = len(problem.y)
    z = problem.x @ theta[1:]
    h = np.maximum(z, 0.0)
    e = (problem.kappa * (h @ theta[0]) - problem.y) / n
    out = np.empty_like(theta)
    np.matmul(e, h, out=out[0])
    np.multiply(problem.x.T @ np.where(z > 0.0, e[:, None], 0.0), theta[0], out=out[1:])
    return -out.ravel()


def _excess(problem: Ensemble, _: float, flat: np.ndarray) -> float:
    theta = flat.reshape(problem.initial.shape[1:])
    e = problem.kappa * (np.maximum(problem.x @ theta[1:], 0.0) @ theta[0]) - problem.y
    return float(0.5 * np.mean(e**2) - problem.stop_loss)


def _by_scipy(problem: Ensemble, chosen: range) -> tuple[np.ndarray, int]:
    """One share of the networks, in a process of its own with one thread."""
    from scipy.integrate import solve_ivp
    from threadpoolctl import threadpool_limits

    event = partial(_excess, problem)
    event.terminal = True  # type: ignore[attr-defined]
    rate = partial(_rate, problem)
    final, evaluations = [], 0
    with threadpool_limits(1):
        for k in chosen:
            solution = solve_ivp(
                rate, (0.0, HORIZON), problem.initial[k].ravel(), method="RK45",
                rtol=RTOL, atol=ATOL, events=event, t_eval=[],
            )  # fmt: skip
            final.append(solution.y_events[0][0].reshape(problem.initial.shape[1:]))
            evaluations += solution.nfev
    return np.array(final), evaluations


def scipy_pool(problem: Ensemble, workers: int) -> Callable[[], Solved]:
    """RK45 with a terminal event, over a pool of processes that is already warm."""
    from loky import ProcessPoolExecutor

    pool = ProcessPoolExecutor(workers)
    count = len(problem.initial)
    shares = [range(k, count, 4 * workers) for k in range(min(count, 4 * workers))]
    list(pool.map(partial(_by_scipy, problem), [range(0, 1)] * workers))

    def solve() -> Solved:
        started = time.perf_counter()
        parts = list(pool.map(partial(_by_scipy, problem), shares))
        seconds = time.perf_counter() - started
        final = np.empty_like(problem.initial)
        for share, (states, _) in zip(shares, parts, strict=True):
            final[share] = states
        evaluations = sum(found for _, found in parts) / count
        return Solved(final, seconds, evaluations, f"{workers} processes of one thread")

    return solve


# diffrax


def _flow(problem: Ensemble, products: bool) -> tuple[Callable, Callable]:
    """The vector field and R - limit in JAX, with matrix products or with sums written out."""
    import jax
    import jax.numpy as jnp

    x, targets = jnp.asarray(problem.x), jnp.asarray(problem.y)
    n, d = problem.x.shape

    def hidden(theta: Any) -> tuple[Any, Any, Any]:
        z = x @ theta[1:] if products else sum(x[:, j, None] * theta[1 + j] for j in range(d))
        h = jax.nn.relu(z)
        f = h @ theta[0] if products else (h * theta[0]).sum(1)
        return z, h, problem.kappa * f - targets

    def rate(t: Any, theta: Any, args: Any) -> Any:
        z, h, e = hidden(theta)
        g = jnp.where(z > 0, e[:, None] / n, 0)
        if products:
            da, dw = (e / n) @ h, x.T @ g
        else:
            da = ((e / n)[:, None] * h).sum(0)
            dw = jnp.stack([(x[:, j, None] * g).sum(0) for j in range(d)])
        return -jnp.concatenate([da[None], dw * theta[0]])

    def excess(t: Any, y: Any, args: Any, **_: Any) -> Any:
        return 0.5 * jnp.mean(hidden(y)[2] ** 2) - problem.stop_loss

    return rate, excess


def _diffrax_solver(problem: Ensemble, products: bool) -> Callable[[Any], Any]:
    """States to final states and numbers of steps, vectorised and compiled."""
    import diffrax
    import jax
    import optimistix

    rate, excess = _flow(problem, products)

    def one(theta: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(rate), diffrax.Tsit5(), 0.0, HORIZON, None, theta,
            stepsize_controller=diffrax.PIDController(rtol=RTOL, atol=ATOL),
            event=diffrax.Event(excess, optimistix.Newton(1e-6, 1e-6)),
            saveat=diffrax.SaveAt(t1=True), max_steps=100_000,
        )  # fmt: skip
        return solution.ys[0], solution.stats["num_steps"]

    return jax.jit(jax.vmap(one))


def _run(solver: Callable, states: np.ndarray, batch: int, threads: int) -> tuple[Any, Any, float]:
    import jax

    # The last batch is filled up: another size would be compiled anew.
    full = np.concatenate([states, states[: -len(states) % batch]])
    batches = np.split(full, len(full) // batch)
    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(lambda part: jax.block_until_ready(solver(part)), batches))
    seconds = time.perf_counter() - started
    final, steps = (np.concatenate([np.asarray(part[k]) for part in parts]) for k in (0, 1))
    return final[: len(states)], steps[: len(states)], seconds


def diffrax_batches(
    problem: Ensemble, threads: int, batches: tuple[int, ...] = BATCHES, dtype: str = "float64"
) -> Callable[[], Solved]:
    """Tsit5 with a terminal event under vmap and jit, in batches of the size that is fastest."""
    import jax

    jax.config.update("jax_enable_x64", dtype == "float64")
    arrays = {name: getattr(problem, name).astype(dtype) for name in ("initial", "x", "y")}
    problem = replace(problem, **arrays)
    trials = []
    states = problem.initial[:TRIED]
    for products in (True, False):
        solver = _diffrax_solver(problem, products)
        for batch in (size for size in batches if size <= len(problem.initial)):
            started = time.perf_counter()
            jax.block_until_ready(solver(problem.initial[:batch]))
            first = time.perf_counter() - started
            sample = problem.initial[:batch] if batch > len(states) else states
            for count in {1, threads}:
                spent = _run(solver, sample, batch, count)[2] / len(sample)
                trials.append((spent, batch, count, products, solver, first))
    _, batch, count, products, solver, first = min(trials, key=lambda trial: trial[0])
    way = "matrix products" if products else "sums written out"
    remark = f"batches of {batch}, {count} threads, {way}; first call {first:.1f} s, not counted"

    def solve() -> Solved:
        jax.config.update("jax_enable_x64", dtype == "float64")
        final, steps, seconds = _run(solver, problem.initial, batch, count)
        return Solved(np.float64(final), seconds, 6.0 * float(steps.mean()), remark)

    return solve
