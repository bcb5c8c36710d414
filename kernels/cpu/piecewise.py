"""Passes for piecewise linear activations and few inputs, in vector registers."""

from __future__ import annotations

import numpy as np

from flowsim.kernels.interface import TwoLayerField

from . import fused
from .passes import GRAM_GROUP, Passes
from .threads import run_blocks


class FusedPasses(Passes):
    """sigma(z) = z where z > 0 and leak z elsewhere; see `flowsim.kernels.cpu.fused`."""

    block = fused.BLOCK

    def __init__(self, field: TwoLayerField, neurons: int, dtype: np.dtype, threads: int) -> None:
        super().__init__(field, neurons, dtype, threads)
        leak = field.activation.leak
        assert leak is not None  # see `flowsim.kernels.cpu.choice`
        self._leak, self._leaky = leak, leak != 0.0
        self._factors = -np.array([field.output_mobility, field.input_mobility], dtype)
        self._width = self.n_samples + (self.n_inputs if self._leaky else 0)
        self._partial = np.empty((self.n_blocks, self._width))
        self._nothing = np.empty(0, dtype)
        self._no_pull = np.empty((0, self.n_inputs), dtype)
        self._at_rest = (dtype.type(0),) * self.n_inputs

    def _pull(self, residual: np.ndarray | None) -> tuple[np.ndarray, tuple]:
        """What an active sample adds to a neuron's pull, and the pull on an inactive neuron."""
        if residual is None:
            return self._no_pull, self._at_rest
        each = (residual * (self.field.multiplier / self.n_samples))[:, None] * self.field.x
        pull = ((1.0 - self._leak) * each).astype(self.dtype)
        if not self._leaky:
            return pull, self._at_rest
        origin = self._leak * np.add.reduce(each, axis=0)
        return pull, tuple(origin.astype(self.dtype))

    def _outputs(self, partial: np.ndarray) -> np.ndarray:
        """f / kappa from the blocks' sums (blocks, ..., n or n + d)."""
        sums = np.add.reduce(partial, axis=0)
        if not self._leaky:
            return sums
        active, linear = sums[..., : self.n_samples], sums[..., self.n_samples :]
        # Not by BLAS: an n x d product is small, and its rounding must not depend on threads.
        straight = np.add.reduce(linear[..., None, :] * self.field.x, axis=-1)
        return (1.0 - self._leak) * active + self._leak * straight

    def sweep(
        self, theta, residual=None, base=None, slopes=None, here=None, weights=None, slope=None,
        out=None, outputs=True,
    ):  # fmt: skip
        pull, origin = self._pull(residual)
        n_slopes = 0 if weights is None else len(weights) - (residual is not None)
        run_blocks(
            fused.sweep, self.n_blocks, self.threads, self.work,
            self.x, pull, origin, self._factors, self._or_none(theta), self._or_none(base),
            self.no_slopes if slopes is None else slopes, n_slopes,
            self._nothing if here is None else here.astype(self.dtype),
            self._nothing if weights is None else weights.astype(self.dtype),
            self._or_none(slope), self._or_none(out), self._leaky, self._partial,
            here is not None, residual is not None, slope is not None, weights is not None,
            out is not None, outputs,
        )  # fmt: skip
        return self._outputs(self._partial)

    def errors(self, theta, residual, slopes, weights):
        pull, origin = self._pull(residual)
        partial = np.empty((self.n_blocks, len(weights), self._width))
        squares = np.empty((self.n_blocks, 2 * len(weights) + 2))
        run_blocks(
            fused.error_sweep, self.n_blocks, self.threads, self.work,
            self.x, pull, origin, self._factors, theta, slopes, weights.shape[1],
            weights.astype(self.dtype), self._leaky, partial, squares,
        )  # fmt: skip
        return self._outputs(partial), np.add.reduce(squares, axis=0).reshape(-1, 2)

    def registers(self, theta, residual, memory, base, error, stage, fresh):
        pull, origin = self._pull(residual)
        run_blocks(
            fused.register_sweep, self.n_blocks, self.threads, self.work,
            self.x, pull, origin, self._factors, theta, memory, base, error,
            stage.astype(self.dtype), fresh, self._leaky, self._partial,
        )  # fmt: skip
        return self._outputs(self._partial)

    def _run_grams(self, n_groups, work, theta, partial):
        run_blocks(
            fused.grams, n_groups, self.threads, work,
            GRAM_GROUP, self.x, self._at_rest, self.dtype.type(self._leak), theta, partial,
        )  # fmt: skip
