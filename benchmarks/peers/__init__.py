"""Other programs on the same two-layer ReLU network, each as well as it lets a user write it.

A peer is a module with ``contestants(problem)``: a list of `Contestant`, one for each way of
writing the residual and its gradient (by hand or by automatic differentiation, neurons last or
first). A program is judged by its fastest way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.common import version

PEERS = {
    "NumPy": ("benchmarks.peers.numpy_peer", "numpy"),
    "PyTorch": ("benchmarks.peers.torch_peer", "torch"),
    "JAX": ("benchmarks.peers.jax_peer", "jax"),
}
"""Peers by name: their module here, and what must be installed."""

REMEDY = "pip install 'flowsim[bench]'"
PROGRAMS = ("NumPy", "PyTorch eager", "torch.compile", "JAX jit")
"""What a user of these libraries writes."""
TUNED = ("NumPy in blocks", "torch.compile, sums written out")
"""What takes part beside them: written for the machine, no longer as the formulas are."""


@dataclass(frozen=True)
class Problem:
    """f(x_i) = kappa sum_k a_k relu(w_k . x_i), e = f - y, and dR/d theta with R = sum e^2 / 2n.

    ``theta`` (1 + d, m) has a in its first row and w in the others. All arrays are float64; a
    peer works in ``dtype``.
    """

    x: np.ndarray
    y: np.ndarray
    theta: np.ndarray
    kappa: float
    dtype: str
    threads: int

    @classmethod
    def random(cls, shape: tuple[int, int, int], dtype: str, threads: int) -> Problem:
        """Unit-normal weights, inputs and targets; kappa = 1 / sqrt(m), so that f is of order 1."""
        m, n, d = shape
        generator = np.random.default_rng(0)
        return cls(
            x=generator.normal(size=(n, d)) / np.sqrt(d),
            y=generator.normal(size=n),
            theta=generator.normal(size=(1 + d, m)),
            kappa=1.0 / np.sqrt(m),
            dtype=dtype,
            threads=threads,
        )


@dataclass(frozen=True)
class Contestant:
    """One way of computing the residual and the gradient.

    Attributes
    ----------
    program, way : str
        Such as "JAX jit", "by hand, neurons last".
    call : callable
        Computes both from arrays that lie ready, and returns when it is done.
    gradient : callable
        Calls it and returns dR/d theta (1 + d, m) as float64.
    """

    program: str
    way: str
    call: Callable[[], Any]
    gradient: Callable[[], np.ndarray]


def missing() -> list[str]:
    """What to say about each peer that is not installed."""
    return [
        f"{name}: not installed, left out; {REMEDY} installs it"
        for name, (_, package) in PEERS.items()
        if version(package) is None
    ]


def contestants(problem: Problem) -> list[Contestant]:
    """Every way of every installed peer."""
    found = []
    for module, package in PEERS.values():
        if version(package) is not None:
            found += import_module(module).contestants(problem)
    return found


def gradient_from(parts: tuple[Any, Any], neurons_first: bool) -> np.ndarray:
    """dR/d theta as float64 from a peer's gradients of a (m,) and w (d, m), or (m, d)."""
    a, w = (np.asarray(part, np.float64) for part in parts)
    return np.vstack([a[None], w.T if neurons_first else w])
