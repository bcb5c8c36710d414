"""NumPy: matrix products around a mask, into arrays that are allocated once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from . import Contestant, Problem, gradient_from

BLOCK = 4096
"""Neurons at a time, for the way that keeps its arrays in the cache."""


def _neurons_last(problem: Problem) -> Callable[[], tuple[Any, Any]]:
    """Arrays over samples and neurons are (n, m)."""
    x, y, theta = (np.ascontiguousarray(v, problem.dtype) for v in _arrays(problem))
    kappa, n = x.dtype.type(problem.kappa), len(x)
    a, w = theta[0].copy(), theta[1:].copy()
    z, h = np.empty((2, n, len(a)), x.dtype)
    da, dw = np.empty_like(a), np.empty_like(w)

    def call() -> tuple[Any, Any]:
        np.matmul(x, w, out=z)
        np.maximum(z, 0, out=h)
        e = (kappa * (h @ a) - y) * (kappa / n)
        np.matmul(e, h, out=da)
        np.multiply(e[:, None], z > 0, out=h)
        np.matmul(x.T, h, out=dw)
        np.multiply(dw, a, out=dw)
        return da, dw

    return call


def _neurons_first(problem: Problem) -> Callable[[], tuple[Any, Any]]:
    """Arrays over neurons and samples are (m, n), weights (m, d), as in most libraries."""
    x, y, theta = (np.ascontiguousarray(v, problem.dtype) for v in _arrays(problem))
    kappa, n = x.dtype.type(problem.kappa), len(x)
    a, w = theta[0].copy(), np.ascontiguousarray(theta[1:].T)
    z, h = np.empty((2, len(a), n), x.dtype)
    da, dw = np.empty_like(a), np.empty_like(w)

    def call() -> tuple[Any, Any]:
        np.matmul(w, x.T, out=z)
        np.maximum(z, 0, out=h)
        e = (kappa * (a @ h) - y) * (kappa / n)
        np.matmul(h, e, out=da)
        np.multiply(z > 0, e, out=h)
        np.matmul(h, x, out=dw)
        np.multiply(dw, a[:, None], out=dw)
        return da, dw

    return call


def _blocks(problem: Problem) -> Callable[[], tuple[Any, Any]]:
    """Neurons last, a block at a time: h of a block is computed twice, and stays in the cache."""
    x, y, theta = (np.ascontiguousarray(v, problem.dtype) for v in _arrays(problem))
    kappa, n = x.dtype.type(problem.kappa), len(x)
    rate = np.empty_like(theta)
    cuts = [slice(first, first + BLOCK) for first in range(0, theta.shape[1], BLOCK)]
    z, h = np.empty((2, n, BLOCK), x.dtype)

    def hidden(cut: slice) -> tuple[Any, Any]:
        w = theta[1:, cut]
        zs, hs = z[:, : w.shape[1]], h[:, : w.shape[1]]
        np.matmul(x, w, out=zs)
        return zs, np.maximum(zs, 0, out=hs)

    def call() -> tuple[Any, Any]:
        f = np.zeros(n, x.dtype)
        for cut in cuts:
            f += hidden(cut)[1] @ theta[0, cut]
        e = (kappa * f - y) * (kappa / n)
        for cut in cuts:
            zs, hs = hidden(cut)
            rate[0, cut] = e @ hs
            np.multiply(e[:, None], zs > 0, out=hs)
            np.multiply(x.T @ hs, theta[0, cut], out=rate[1:, cut])
        return rate[0], rate[1:]

    return call


def _arrays(problem: Problem) -> tuple[np.ndarray, ...]:
    return problem.x, problem.y, problem.theta


def contestants(problem: Problem) -> list[Contestant]:
    """NumPy's ways."""
    found = []
    for program, way, make in (
        ("NumPy", "neurons last", _neurons_last),
        ("NumPy", "neurons first", _neurons_first),
        ("NumPy in blocks", f"{BLOCK} neurons at a time", _blocks),
    ):
        call = make(problem)
        gradient = partial(_gradient, call, "first" in way)
        found.append(Contestant(program, way, call, gradient))
    return found


def _gradient(call: Callable[[], tuple[Any, Any]], neurons_first: bool) -> np.ndarray:
    return gradient_from(call(), neurons_first)
