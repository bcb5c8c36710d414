"""Forward and backward through the layers of a deep network, whatever its weights are kept as.

A matrix product is cut into blocks of rows or columns of the weights, each one BLAS call of one
thread: no rounding depends on the number of threads. For few samples the weights are only read,
and BLAS, which copies them first, loses to a plain loop (`thin`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numba
import numpy as np

from flowsim.kernels.interface import DeepField

from .activations import call_both, compile_activation
from .thin import COLUMNS, ROWS, THIN, thin_pull, thin_times
from .threads import run_blocks

_LEAST, _MOST = 256, 1024
"""Rows or columns of a matrix that one thread works on at a time."""

_ALONE = 1 << 17
"""Numbers of a layer's signals that one thread multiplies before another has woken up."""


def block_of(length: int) -> int:
    """Rows or columns in a block of a matrix with so many. Part of the results.

    BLAS puts both factors in order anew for every block: the larger the better, as long as there
    is one for every thread, and all take equally long.
    """
    most = min(max(_LEAST, -(-length // 256) * 64), _MOST)
    return -(-length // (-(-length // most) * 8)) * 8


compiled = numba.njit(nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True)


class Forward(Protocol):
    """What goes forward through the layers of one copy: weights, or a direction of theirs."""

    def times(self, layer: int, signal: np.ndarray, out: np.ndarray) -> None:
        """signal (n, fan_in) W into ``out`` (n, fan_out)."""

    def bias(self, layer: int) -> np.ndarray | None:
        """Biases (fan_out,)."""


class Weights(Forward, Protocol):
    """The weights of one copy of the network."""

    def pull(self, layer: int, back: np.ndarray, out: np.ndarray) -> None:
        """back (n, fan_out) W^T into ``out`` (n, fan_in)."""


def times(signal: np.ndarray, weights: np.ndarray, out: np.ndarray, threads: int) -> None:
    """signal (n, p) weights (p, q) into ``out`` (n, q), all C-contiguous."""
    n, (rows, columns) = len(signal), weights.shape
    function, block = (thin_times, COLUMNS) if n <= THIN else (_times, block_of(columns))
    run_blocks(
        function, -(-columns // block), threads, float(n * rows * block), signal, weights, out
    )


def _times(first: int, last: int, signal: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    size = block_of(weights.shape[1])
    for block in range(first, last):
        columns = slice(block * size, (block + 1) * size)
        np.matmul(signal, weights[:, columns], out=out[:, columns])


def pull(back: np.ndarray, weights: np.ndarray, out: np.ndarray, threads: int) -> None:
    """back (n, q) weights^T (q, p) into ``out`` (n, p), all C-contiguous."""
    n, (rows, columns) = len(back), weights.shape
    function, block = (thin_pull, ROWS) if n <= THIN else (_pull, block_of(rows))
    run_blocks(function, -(-rows // block), threads, float(n * columns * block), back, weights, out)


def _pull(first: int, last: int, back: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    size = block_of(len(weights))
    for block in range(first, last):
        rows = slice(block * size, (block + 1) * size)
        np.matmul(back, weights[rows].T, out=out[:, rows])


def outer(signal: np.ndarray, back: np.ndarray, out: np.ndarray, threads: int) -> None:
    """signal^T (p, n) back (n, q) into ``out`` (p, q)."""
    n, rows = signal.shape
    size = block_of(rows)
    run_blocks(
        _outer, -(-rows // size), threads, float(n * size * back.shape[1]), signal, back, out
    )


def _outer(first: int, last: int, signal: np.ndarray, back: np.ndarray, out: np.ndarray) -> None:
    size = block_of(signal.shape[1])
    for block in range(first, last):
        rows = slice(block * size, (block + 1) * size)
        np.matmul(signal[:, rows].T, back, out=out[rows])


@compiled
def _activate(first, last, both, z, multiplier, bias, use_bias, bias_multiplier, s, ds):
    size = z.shape[1]
    for i in range(first, last):
        row = z[i]
        for k in range(size):
            row[k] *= multiplier
        if use_bias:
            for k in range(size):
                row[k] += bias_multiplier * bias[k]
        call_both(both, row, s[i], ds[i], size, row.dtype.type(1.0))


@compiled
def _scale_back(first, last, back, multiplier, slopes):
    for i in range(first, last):
        for k in range(back.shape[1]):
            back[i, k] = (back[i, k] * multiplier) * slopes[i, k]


@compiled
def _scale_samples(first, last, factors, back, out):
    for i in range(first, last):
        for k in range(back.shape[1]):
            out[i, k] = factors[i, 0] * back[i, k]


class Pass:
    """What one copy of the network computes on its samples; its arrays are made once.

    Attributes
    ----------
    signals : list of (n, m_l) arrays
        A_0, ..., A_L of the last `forward`.
    slopes : list of (n, m_l) arrays
        sigma'(z_1), ..., sigma'(z_L).
    back : list of (n, m_l) arrays
        df/dz_1, ..., df/dz_L of the last `backward`, that of the output being 1; with several
        outputs the same of sum_k s_k f_k, for the s that it was given.
    """

    def __init__(self, field: DeepField, dtype: np.dtype, threads: int) -> None:
        self.field, self.dtype, self.threads = field, dtype, threads
        n = len(field.x)
        self._both = compile_activation(field.activation, dtype).both
        self._multipliers = field.multipliers.astype(dtype)
        biases = field.bias_multipliers
        self._bias_multipliers = None if biases is None else biases.astype(dtype)
        self._nothing = np.zeros(1, dtype)
        self.signals = [np.ascontiguousarray(field.x, dtype)]
        self.signals += [np.empty((n, width), dtype) for width in field.widths]
        self.slopes = [np.empty((n, width), dtype) for width in field.widths]
        self.back = [np.empty((n, width), dtype) for width in field.widths]
        self._pulled = [np.empty((n, width), dtype) for width in field.widths]
        self._z = [np.empty((n, width), dtype) for width in field.widths]
        self._output = np.empty((n, field.n_outputs), dtype)
        self._one = np.ones((n, 1), dtype)

    def forward(self, weights: Weights) -> np.ndarray:
        """f (n,) or (n, o) in float64 at these weights; keeps `signals` and `slopes`."""
        n, last = len(self.field.x), len(self.field.widths)
        for layer in range(last):
            z = self._z[layer]
            weights.times(layer, self.signals[layer], z)
            bias = weights.bias(layer)
            factor = self.dtype.type(0.0)
            if bias is not None:
                assert self._bias_multipliers is not None
                factor = self._bias_multipliers[layer]
            run_blocks(
                _activate, n, self.threads, 16.0 * z.shape[1], self._both, z,
                self._multipliers[layer], self._nothing if bias is None else bias,
                bias is not None, factor, self.signals[layer + 1], self.slopes[layer],
            )  # fmt: skip
        weights.times(last, self.signals[last], self._output)
        output = self._output if self.field.n_outputs > 1 else self._output[:, 0]
        f = float(self.field.multipliers[last]) * output.astype(np.float64)
        bias = weights.bias(last)
        if bias is not None:
            assert self.field.bias_multipliers is not None
            f += float(self.field.bias_multipliers[last]) * bias.astype(np.float64)
        return f

    def _columns(self, cotangent: np.ndarray) -> np.ndarray:
        """(n,) or (n, o) as (n, o) in the dtype of the arithmetic."""
        return cotangent.astype(self.dtype).reshape(len(cotangent), -1)

    def backward(self, weights: Weights, cotangent: np.ndarray | None) -> None:
        """Fill `back`, after a `forward` at the same weights.

        A single output's derivatives are those of f, whatever the cotangent v: a step needs them
        for several samples, each scaled by its own v_i. Of several outputs the sum is pulled back
        that v makes of them: one pass, and rates of rank n still.
        """
        if self.field.n_outputs == 1:
            self._pull_back(weights, self._one)
        else:
            assert cotangent is not None
            self._pull_back(weights, self._columns(cotangent))

    def _pull_back(self, weights: Weights, signal: np.ndarray) -> None:
        for layer in range(len(self.field.widths), 0, -1):
            out = self.back[layer - 1]
            weights.pull(layer, signal, out)
            self._run(_scale_back, out, self._multipliers[layer], self.slopes[layer - 1])
            signal = out

    def _run(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a loop over samples, by several threads where that is worth waking them."""
        n, size = arguments[-1].shape
        threads = self.threads if n * size > _ALONE else 1
        run_blocks(function, n, threads, float(size), *arguments)

    def pulled(self, layer: int, cotangent: np.ndarray) -> np.ndarray:
        """sum_k v_ik df_ik/dz of a layer (n, fan_out), after `backward` with v.

        The array is the caller's until the next call for this layer.
        """
        if layer == len(self.field.widths):
            return self._columns(cotangent)
        one = self.field.n_outputs == 1
        factors = self._columns(cotangent) if one else self._one
        # Written where it was before: fresh memory costs more than the product.
        self._run(_scale_samples, factors, self.back[layer], self._pulled[layer])
        return self._pulled[layer]

    def tangent(self, weights: Forward, direction: Forward) -> np.ndarray:
        """Derivative of f (n,) or (n, o) in float64 along ``direction``, at ``weights``.

        After `backward` for one output, after `forward` for several.
        """
        if self.field.n_outputs == 1:
            return self._tangent_by_back(direction)
        n, last = len(self.field.x), len(self.field.widths)
        change: np.ndarray | None = None
        for layer in range(last + 1):
            size = self.field.n_outputs if layer == last else self.field.widths[layer]
            out = np.empty((n, size), self.dtype)
            direction.times(layer, self.signals[layer], out)
            if change is not None:
                passed_on = np.empty_like(out)
                weights.times(layer, change, passed_on)
                out += passed_on
            self._scale(layer, direction, out)
            if layer < last:
                out *= self.slopes[layer]
            change = out
        assert change is not None
        return change.astype(np.float64)

    def _scale(self, layer: int, direction: Forward, out: np.ndarray) -> None:
        """Multiply by a layer's multiplier and add its biases."""
        out *= self._multipliers[layer]
        bias = direction.bias(layer)
        if bias is not None:
            assert self._bias_multipliers is not None
            out += self._bias_multipliers[layer] * bias

    def _tangent_by_back(self, direction: Forward) -> np.ndarray:
        """With B_l = df/dz_l: sum_l B_l . (M_l A_(l-1) dW_l + N_l db_l). No weights are read."""
        last, total = len(self.field.widths), np.zeros(len(self.field.x))
        for layer in range(last + 1):
            # What a forward pass needs for itself only is free by now.
            out = self._output if layer == last else self._z[layer]
            direction.times(layer, self.signals[layer], out)
            self._scale(layer, direction, out)
            if layer < last:
                out *= self.back[layer]
            total += np.sum(out, axis=1, dtype=np.float64)
        return total

    def grams(self, weights: Weights) -> np.ndarray:
        """Gram matrices (layers, n o, n o) of this copy, at the same weights.

        After `backward` for one output, after `forward` for several.
        """
        field, n, o = self.field, len(self.field.x), self.field.n_outputs
        last = len(field.widths)
        backs: list[list[np.ndarray]] = []
        for output in range(o):
            if o > 1:  # of a single one they are there
                signal = np.zeros((n, o), self.dtype)
                signal[:, output] = 1.0
                self._pull_back(weights, signal)
            backs.append([back.astype(np.float64) for back in self.back])
        grams = np.empty((last + 1, n * o, n * o))
        for layer in range(last + 1):
            signal = self.signals[layer].astype(np.float64)
            inner = field.multipliers[layer] ** 2 * (signal @ signal.T)
            if field.bias_multipliers is not None and layer > 0:
                inner += field.bias_multipliers[layer] ** 2
            if layer == last:
                grams[layer] = np.kron(inner, np.eye(o))  # an output has weights of its own
                continue
            back = np.stack([of_one[layer] for of_one in backs], axis=1).reshape(n * o, -1)
            products = (back @ back.T).reshape(n, o, n, o)
            products *= inner[:, None, :, None]
            grams[layer] = products.reshape(n * o, n * o)
        return grams
