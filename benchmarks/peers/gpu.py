"""The right-hand side in JAX and PyTorch on a GPU: the CPU's peers, on the card."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from . import Problem

# JAX would take three quarters of the card at once.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


@dataclass(frozen=True)
class GpuContestant:
    """One way of computing the residual and the gradient on the card.

    Attributes
    ----------
    program, way : str
    call : callable
        Returns dR/da and dR/dw when they are done.
    gradient : callable
        The same as arrays of CuPy, w (d, m).
    """

    program: str
    way: str
    call: Callable[[], Any]
    gradient: Callable[[], tuple[Any, Any]]


def contestants(problem: Problem, theta: Any, compiled: bool) -> Iterator[GpuContestant]:
    """Every way, one after the other; what one holds is freed before the next begins.

    Parameters
    ----------
    problem : Problem
        Its ``theta`` is not looked at.
    theta : (1 + d, m) array of CuPy
    compiled : bool
        Whether ``torch.compile`` takes part, which is long in compiling.
    """
    for make in (_jax, partial(_torch, compiled=compiled)):
        try:
            yield from make(problem, theta)
        except ImportError as error:
            print(f"left out: {error}", flush=True)


def _jax(problem: Problem, theta: Any) -> Iterator[GpuContestant]:
    import cupy
    import jax
    import jax.numpy as jnp

    from .jax_peer import _ways

    if jax.default_backend() != "gpu":
        raise ImportError(f"JAX runs on {jax.default_backend()} only")
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")  # float32, not TF32
    x, y = (jnp.asarray(v, np.dtype(problem.dtype)) for v in (problem.x, problem.y))
    for way, gradient in _ways(x, y, float(problem.kappa)).items():
        if way == "by hand, neurons first":
            continue  # nowhere the fastest here, and long in compiling
        first = "first" in way
        a = jnp.from_dlpack(theta[0].copy())
        w = jnp.from_dlpack(cupy.ascontiguousarray(theta[1:].T if first else theta[1:]))
        function = jax.jit(gradient)

        def call(function: Any = function, a: Any = a, w: Any = w) -> Any:
            return jax.block_until_ready(function(a, w))

        def result(call: Any = call, first: bool = first) -> tuple[Any, Any]:
            da, dw = (cupy.from_dlpack(part) for part in call())
            return da, dw.T if first else dw

        yield GpuContestant("JAX jit", way, call, result)
        del a, w, function, call, result


def _torch(problem: Problem, theta: Any, compiled: bool) -> Iterator[GpuContestant]:
    import cupy
    import torch

    from .torch_peer import _autograd, _Ways

    torch.backends.cuda.matmul.allow_tf32 = False
    with torch.device("cuda"):
        ways = _Ways(problem)
    compiler = partial(torch.compile, dynamic=False, fullgraph=True)
    table: list[tuple[str, str, Any]] = [
        ("PyTorch eager", "by hand, neurons last", ways.last),
        ("PyTorch eager", "autograd, neurons first", _autograd(ways.loss)),
    ]
    if compiled:
        torch._dynamo.reset()
        table.append(("torch.compile", "a sum for each input", compiler(ways.sums)))
    for program, way, gradient in table:
        first, autograd = "first" in way, "autograd" in way
        a = torch.from_dlpack(theta[0].copy())
        w = torch.from_dlpack(cupy.ascontiguousarray(theta[1:].T if first else theta[1:]))
        if autograd:
            a, w = a.requires_grad_(), w.requires_grad_()

        def call(gradient: Any = gradient, a: Any = a, w: Any = w, grad: bool = autograd) -> Any:
            with torch.set_grad_enabled(grad):
                found = gradient(a, w)
            torch.cuda.synchronize()
            return found

        def result(call: Any = call, first: bool = first) -> tuple[Any, Any]:
            da, dw = (cupy.from_dlpack(part.detach()) for part in call())
            return da, dw.T if first else dw

        yield GpuContestant(program, way, call, result)
        del a, w, call, result
        torch.cuda.empty_cache()
