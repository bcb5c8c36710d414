"""Passes for piecewise linear activations and few inputs, in vector registers."""

from __future__ import annotations

import numpy as np

from flowsim.kernels.interface import TwoLayerField

from . import errors, fused, pairs, registers, samples, tangents
from .passes import GRAM_GROUP, Passes
from .threads import run_blocks


class FusedPasses(Passes):
    """sigma(z) = z where z > 0 and leak z elsewhere; see `flowsim.kernels.cpu.fused`."""

    block = fused.BLOCK
    work_for_threads = 1e6
    turns = True
    begins_errors = True

    def __init__(self, field: TwoLayerField, neurons: int, dtype: np.dtype, threads: int) -> None:
        super().__init__(field, neurons, dtype, threads)
        leak = field.activation.leak
        assert leak is not None  # see `flowsim.kernels.cpu.choice`
        self._leak, self._leaky = float(leak), leak != 0.0
        self._factors = -np.array([field.output_mobility, field.input_mobility], dtype)
        self._width = self.n_samples + (self.n_inputs if self._leaky else 0)
        self._partial = np.empty((self.n_blocks, self._width))
        self._sums = np.empty(self._width)
        self._nothing = np.empty(0, dtype)
        self._no_outputs = np.empty(0)
        self._factor = field.multiplier / self.n_samples
        self._like = (dtype.type(0),) * self.n_inputs

    def _pull(self, residual: np.ndarray) -> np.ndarray:
        pull = np.empty((self.n_samples + 1, self.n_inputs), self.dtype)
        samples.make_pull(residual, self._factor, self.field.x, self._leak, pull)
        return pull

    def _add_outputs(self, partial: np.ndarray, f: np.ndarray) -> None:
        """f / kappa (n,) from the blocks' sums (blocks, n or n + d)."""
        samples.outputs_of_blocks(partial, self._sums, self.field.x, self._leak, self._leaky, f)

    def _outputs(self, partial: np.ndarray) -> np.ndarray:
        f = np.empty(self.n_samples)
        self._add_outputs(partial, f)
        return f

    def _stack(self, slopes: np.ndarray | None) -> tuple[np.ndarray, int]:
        """Slopes as they lie in memory, and the ``turn`` of `fused.move`."""
        if slopes is None:
            return self.no_slopes, 0
        return (slopes[::-1], len(slopes) - 1) if slopes.strides[0] < 0 else (slopes, 0)

    def sweep(
        self, theta, residual=None, base=None, slopes=None, here=None, weights=None, slope=None,
        out=None, outputs=True, others=None, other=None,
    ):  # fmt: skip
        n_slopes = 0 if weights is None else len(weights) - (residual is not None)
        stack, turn = self._stack(slopes)
        f = np.empty(self.n_samples) if outputs else self._no_outputs
        at_once = run_blocks(
            fused.sweep, self.n_blocks, self.threads, self.work,
            self.x, self._no_outputs if residual is None else residual, self._factor,
            self.field.x, self._leak, self._like, self._factors,
            self._or_none(theta), theta if base is None else base,
            stack, n_slopes,
            self._nothing if here is None else here.astype(self.dtype, copy=False),
            self._nothing if weights is None else weights.astype(self.dtype, copy=False),
            self._nothing if others is None else others.astype(self.dtype, copy=False),
            self._or_none(slope), self._or_none(out), self._or_none(other), self._partial, f,
            here is not None, residual is not None, slope is not None, weights is not None,
            out is not None, other is not None, outputs, turn,
        )  # fmt: skip
        if outputs and not at_once:
            self._add_outputs(self._partial, f)
        return f

    def errors(self, theta, residual, slopes, weights):
        stack, turn = self._stack(slopes)
        partial = np.empty((self.n_blocks, len(weights), self._width))
        squares = np.empty((self.n_blocks, 2 * len(weights) + 2))
        run_blocks(
            errors.error_sweep, self.n_blocks, self.threads, self.work,
            self.x, self._pull(residual), self._like, self._factors,
            theta, stack, weights.shape[1],
            weights.astype(self.dtype), self._leaky, partial, squares, turn,
        )  # fmt: skip
        outputs = np.array(
            [self._outputs(np.ascontiguousarray(partial[:, e])) for e in range(len(weights))]
        )
        total = np.empty(squares.shape[1])
        samples.add_blocks(squares, total)
        return outputs, total.reshape(-1, 2)

    def end_error(self, theta, residual, slope, weight, begun):
        squares, total = np.empty((self.n_blocks, 4)), np.empty(4)
        run_blocks(
            errors.end_sweep, self.n_blocks, self.threads, self.work,
            self.x, self._pull(residual), self._like, self._factors, theta, begun,
            self.dtype.type(weight), slope, self._leaky, self._partial, squares,
        )  # fmt: skip
        samples.add_blocks(squares, total)
        return self._outputs(self._partial), total.reshape(-1, 2)

    def registers(self, theta, residual, memory, base, error, stage, fresh):
        run_blocks(
            registers.register_sweep, self.n_blocks, self.threads, self.work,
            self.x, self._pull(residual), self._like, self._factors, theta, memory, base, error,
            stage.astype(self.dtype), fresh, self._leaky, self._partial,
        )  # fmt: skip
        return self._outputs(self._partial)

    def recurrence(self, theta, residual, previous, base, first, stage, out):
        run_blocks(
            registers.recurrence_sweep, self.n_blocks, self.threads, self.work,
            self.x, self._pull(residual), self._like, self._factors, theta, previous, base, first,
            stage.astype(self.dtype), out, self._leaky, self._partial,
        )  # fmt: skip
        return self._outputs(self._partial)

    def tangent(self, theta, direction):
        partial = np.empty((self.n_blocks, self.n_samples))
        run_blocks(
            tangents.piecewise, self.n_blocks, self.threads, self.work,
            self.x, self._like, self._leak, theta, direction, partial,
        )  # fmt: skip
        return np.add.reduce(partial, axis=0)

    def _run_grams(self, n_groups, work, theta, partial):
        run_blocks(
            pairs.grams, n_groups, self.threads, work,
            GRAM_GROUP, self.x, self._like, self.dtype.type(self._leak), theta, partial,
        )  # fmt: skip
