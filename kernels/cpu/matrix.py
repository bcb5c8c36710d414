"""Passes for many inputs: two matrix products a panel of neurons.

z = x w and the pull x^T (e sigma'(z)) are matrix products whose middle, n x neurons, is made and
used up for a few vectors of neurons at a time, and stays in the cache. The products are compiled
with everything around them (`tiles`, `panel_passes`). Those of a BLAS are as fast, but put x in
order anew for every block of neurons, and what comes between two of them comes through memory.

For piecewise linear activations an output pass leaves the signs of z behind, one bit each, with a
checksum of the weights they belong to. A rate at the same weights then needs one product instead
of two: the pass finds out by itself whether the signs are those of the weights it is given.
"""

from __future__ import annotations

import numpy as np

from flowsim.kernels.interface import TwoLayerField

from . import measures, panel_passes, panels, tangents
from .activations import compile_activation
from .lanes import LANE_BYTES
from .passes import GRAM_GROUP, Passes
from .threads import run_blocks
from .tiles import PANEL_VECTORS, packed, panel_width


class MatrixPasses(Passes):
    """Any activation; the work is in matrix products."""

    block = panels.BLOCK

    def __init__(self, field: TwoLayerField, neurons: int, dtype: np.dtype, threads: int) -> None:
        super().__init__(field, neurons, dtype, threads)
        self._activation = compile_activation(field.activation, dtype)
        self._scale = dtype.type(field.activation_scale)
        leak = field.activation.leak
        self._fixed = panels.Fixed(
            packed(self.x), packed(self.x.T),
            -np.array([field.output_mobility, field.input_mobility], dtype),
            self._activation.value, self._activation.both, self._scale,
            dtype.type(0.0 if leak is None else leak), leak is not None,
            panels.strip_length(self.x),
        )  # fmt: skip
        count = 0 if leak is None else -(-neurons // panel_width(dtype.itemsize))
        lanes = LANE_BYTES // dtype.itemsize
        self._signs = panels.Signs(
            np.empty((count, self.n_samples, PANEL_VECTORS), f"u{lanes // 8}"),
            np.empty(count, np.uint64),
            np.zeros(count, np.bool_),
        )
        # Zeros: a sweep without outputs adds up what is there, and memory may hold anything.
        self._partial = np.zeros((self.n_blocks, self.n_samples))
        self._nothing = np.empty(0, dtype)

    def sweep(
        self, theta, residual=None, base=None, slopes=None, here=None, weights=None, slope=None,
        out=None, outputs=True,
    ):  # fmt: skip
        n_slopes = 0 if weights is None else len(weights) - (residual is not None)
        run_blocks(
            panel_passes.sweep, self.n_blocks, self.threads, self.work,
            self._fixed, self._signs,
            self._nothing if residual is None else self._scaled(residual),
            base if theta is None else theta, theta if base is None else base,
            self.no_slopes if slopes is None else slopes, n_slopes,
            self._nothing if here is None else here.astype(self.dtype),
            self._nothing if weights is None else weights.astype(self.dtype),
            self._or_none(slope), self._or_none(out), self._partial,
            here is not None, residual is not None, slope is not None, weights is not None,
            out is not None, outputs,
        )  # fmt: skip
        return np.add.reduce(self._partial, axis=0)

    def registers(self, theta, residual, memory, base, error, stage, fresh):
        run_blocks(
            panel_passes.register_sweep, self.n_blocks, self.threads, self.work,
            self._fixed, self._signs, self._scaled(residual),
            theta, memory, base, error, stage.astype(self.dtype), fresh, self._partial,
        )  # fmt: skip
        return np.add.reduce(self._partial, axis=0)

    def recurrence(self, theta, residual, previous, base, first, stage, out):
        run_blocks(
            panel_passes.recurrence_sweep, self.n_blocks, self.threads, self.work,
            self._fixed, self._signs, self._scaled(residual),
            theta, previous, base, first, stage.astype(self.dtype), out, self._partial,
        )  # fmt: skip
        return np.add.reduce(self._partial, axis=0)

    def tangent(self, theta, direction):
        run_blocks(
            tangents.matrix, self.n_blocks, self.threads, self.work,
            self._fixed, theta, direction, self._partial,
        )  # fmt: skip
        return np.add.reduce(self._partial, axis=0)

    def _run_grams(self, n_groups, work, theta, partial):
        run_blocks(
            measures.grams, n_groups, self.threads, work,
            GRAM_GROUP, self._activation.both, self._scale, self.x, theta, partial,
        )  # fmt: skip
