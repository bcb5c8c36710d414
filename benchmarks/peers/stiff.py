"""The problems of `benchmarks.problems` by other solvers: SciPy, extensisq, diffrax.

SciPy's and extensisq's methods call the gradient that flowsim has compiled, diffrax's their own in
JAX, in normalised variables too. Gradients are counted call by call, those for Jacobians by finite
differences among them. All arithmetic is float64.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..problems import Problem


@dataclass
class Solved:
    """Residuals at the problem's times, gradients (None if nobody counts), seconds, a remark."""

    residuals: list[np.ndarray]
    n_rhs: int | None
    seconds: float
    remark: str = ""


class _OutOfTime(Exception):
    pass


class _Gradient:
    """The rate of a problem for solvers of flat states; counts, and looks at the clock."""

    def __init__(self, problem: Problem, limit: float) -> None:
        self.flow = problem.flow(threads=2, **({"passes": "dense"} if problem.scheme else {}))
        self.initial = np.asarray(self.flow.initial, np.float64).ravel()
        self._out, self._theta = self.flow.empty(), self.flow.empty()
        self.calls, self._end = 0, time.perf_counter() + limit

    def residual(self, flat: np.ndarray) -> np.ndarray:
        self._theta[...] = flat.reshape(self._theta.shape)
        return self.flow.residual(self._theta)

    def __call__(self, _: float, flat: np.ndarray) -> np.ndarray:
        self.calls += 1
        if self.calls % 64 == 0 and time.perf_counter() > self._end:
            raise _OutOfTime
        residual = self.residual(flat)
        self.flow.rate(self._theta, residual, self._out)
        return self._out.ravel().copy()


def by_scipy(method: Any, problem: Problem, rtol: float, limit: float) -> Solved:
    """A method of `scipy.integrate.solve_ivp`: a name, or a class as extensisq's."""
    from scipy.integrate import solve_ivp

    gradient = _Gradient(problem, limit)
    started = time.perf_counter()
    try:
        with np.errstate(all="ignore"):
            solution = solve_ivp(
                gradient, (0.0, problem.end), gradient.initial, method=method,
                rtol=rtol, atol=1e-3 * rtol, t_eval=problem.times,
            )  # fmt: skip
    except _OutOfTime:
        return Solved([], gradient.calls, time.perf_counter() - started, f"over {limit:g} s")
    seconds = time.perf_counter() - started
    if not solution.success:
        return Solved([], gradient.calls, seconds, "failed")
    residuals = [gradient.residual(np.ascontiguousarray(flat)) for flat in solution.y.T]
    return Solved(residuals, gradient.calls, seconds)


def by_extensisq(problem: Problem, rtol: float, limit: float) -> Solved:
    """SSV2stab, the Runge-Kutta-Chebyshev program of Sommeijer, Shampine and Verwer."""
    from extensisq import SSV2stab

    return by_scipy(SSV2stab, problem, rtol, limit)


def by_diffrax(solver: str, problem: Problem, rtol: float, max_steps: int) -> Solved:
    """A solver of diffrax with its PID controller; compiled before the clock runs."""
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    method = getattr(diffrax, solver)()
    rate, residual, initial = _in_jax(problem)
    times = jnp.asarray(problem.times)

    @jax.jit
    def solve(state: Any) -> Any:
        return diffrax.diffeqsolve(
            diffrax.ODETerm(rate), method, 0.0, problem.end, None, state,
            saveat=diffrax.SaveAt(ts=times), max_steps=max_steps, throw=False,
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=1e-3 * rtol),
        )  # fmt: skip

    compiled = solve.lower(initial).compile()
    started = time.perf_counter()
    solution = jax.block_until_ready(compiled(initial))
    seconds = time.perf_counter() - started
    steps = int(solution.stats["num_steps"])
    # Tsitouras' pair has six gradients a step; those of implicit stages nobody counts.
    n_rhs = 6 * steps + 1 if solver == "Tsit5" else None
    if solution.result != diffrax.RESULTS.successful:
        return Solved([], n_rhs, seconds, f"over {max_steps} steps")
    residuals = [np.asarray(residual(state)) for state in solution.ys]
    return Solved(residuals, n_rhs, seconds, f"{steps} steps")


def _in_jax(problem: Problem) -> tuple[Callable, Callable, Any]:
    """Rate, residual and initial state of a two-layer problem with a smooth activation."""
    import jax.numpy as jnp

    assert problem.activation == "tanh" and not problem.scheme
    flow = problem.flow()
    field = flow.field
    x, y, n = jnp.asarray(field.x), jnp.asarray(problem.y), len(problem.y)
    mobilities = field.output_mobility, field.input_mobility

    def residual(theta: Any) -> Any:
        return field.multiplier * (jnp.tanh(x @ theta[1:]) @ theta[0]) - y

    def rate(t: Any, theta: Any, args: Any) -> Any:
        h = jnp.tanh(x @ theta[1:])
        e = (field.multiplier / n) * (field.multiplier * (h @ theta[0]) - y)
        da = mobilities[0] * (e @ h)
        dw = mobilities[1] * (x.T @ (e[:, None] * (1.0 - h * h))) * theta[0]
        return -jnp.concatenate([da[None], dw])

    return rate, residual, jnp.asarray(np.asarray(flow.initial))
