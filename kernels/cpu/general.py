"""Passes for any activation, called by address for a block of neurons at a time."""

from __future__ import annotations

import numpy as np

from flowsim.kernels.interface import TwoLayerField

from . import measures, sweep, tangents
from .activations import compile_activation
from .passes import GRAM_GROUP, Passes
from .threads import run_blocks


class BlockPasses(Passes):
    """Any activation, called by address for a block of neurons at a time."""

    block = sweep.BLOCK
    work_for_threads = 1e5

    def __init__(self, field: TwoLayerField, neurons: int, dtype: np.dtype, threads: int) -> None:
        super().__init__(field, neurons, dtype, threads)
        self._activation = compile_activation(field.activation, dtype)
        self._scale = dtype.type(field.activation_scale)
        mobilities = [field.output_mobility] + [field.input_mobility] * self.n_inputs
        self._mobility = -np.array(mobilities, dtype)
        # Zeros: a sweep without outputs adds up what is there, and memory may hold anything.
        self._partial = np.zeros((self.n_blocks, self.n_samples))
        self._nothing = np.empty(0, dtype)

    def sweep(
        self, theta, residual=None, base=None, slopes=None, here=None, weights=None, slope=None,
        out=None, outputs=True,
    ):  # fmt: skip
        n_slopes = 0 if weights is None else len(weights) - (residual is not None)
        run_blocks(
            sweep.sweep, self.n_blocks, self.threads, self.work,
            self._activation.value, self._activation.both, self._scale,
            self.x, self._mobility,
            self._nothing if residual is None else self._scaled(residual), self._or_none(theta),
            self._or_none(base), self.no_slopes if slopes is None else slopes, n_slopes,
            self._nothing if here is None else here.astype(self.dtype),
            self._nothing if weights is None else weights.astype(self.dtype),
            self._or_none(slope), self._or_none(out), self._partial,
            here is not None, residual is not None, slope is not None, weights is not None,
            out is not None, outputs,
        )  # fmt: skip
        return np.add.reduce(self._partial, axis=0)

    def registers(self, theta, residual, memory, base, error, stage, fresh):
        run_blocks(
            sweep.register_sweep, self.n_blocks, self.threads, self.work,
            self._activation.value, self._activation.both, self._scale,
            self.x, self._mobility, self._scaled(residual),
            theta, memory, base, error, stage.astype(self.dtype), fresh, self._partial,
        )  # fmt: skip
        return np.add.reduce(self._partial, axis=0)

    def recurrence(self, theta, residual, previous, base, first, stage, out):
        run_blocks(
            sweep.recurrence_sweep, self.n_blocks, self.threads, self.work,
            self._activation.value, self._activation.both, self._scale,
            self.x, self._mobility, self._scaled(residual),
            theta, previous, base, first, stage.astype(self.dtype), out, self._partial,
        )  # fmt: skip
        return np.add.reduce(self._partial, axis=0)

    def tangent(self, theta, direction):
        run_blocks(
            tangents.general, self.n_blocks, self.threads, self.work,
            self._activation.both, self._scale, self.x, theta, direction, self._partial,
        )  # fmt: skip
        return np.add.reduce(self._partial, axis=0)

    def _run_grams(self, n_groups, work, theta, partial):
        run_blocks(
            measures.grams, n_groups, self.threads, work,
            GRAM_GROUP, self._activation.both, self._scale, self.x, theta, partial,
        )  # fmt: skip
