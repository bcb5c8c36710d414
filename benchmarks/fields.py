"""ReLU networks on random data, bound to the CPU kernels, for the benchmarks of passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowsim.kernels import two_layer_kernels
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.kernels.cpu.threads import usable_cores
from flowsim.kernels.interface import TwoLayerField

STEP = 1e-6
"""Of the passes that change the state: so short that it stays what it was."""


@dataclass
class Passes:
    """The passes of one network, ready to be called.

    Parameters
    ----------
    shape : tuple
        (m, n, d).
    dtype : str
    threads : int, optional
        By default one a usable core.
    """

    shape: tuple[int, int, int]
    dtype: str = "float64"
    threads: int | None = None

    def __post_init__(self) -> None:
        m, n, d = self.shape
        generator = np.random.default_rng(0)
        field = TwoLayerField(
            generator.normal(size=(n, d)), ACTIVATIONS["relu"], 1.0, 1.0 / m, 1.0, 1.0
        )
        dtype = np.dtype(self.dtype)
        self.kernels = two_layer_kernels("cpu", field, m, dtype, self.threads or usable_cores())
        self.theta = self.kernels.empty()
        # In pieces: a large network has no room for its weights in another dtype beside it.
        for row in self.theta:
            for first in range(0, m, 1 << 20):
                part = row[first : first + (1 << 20)]
                part[...] = generator.normal(size=len(part))
        self._residual = generator.normal(size=n)
        self._none, self._one = self.kernels.empty(0), np.ones(1)

    @property
    def nbytes(self) -> int:
        """Size of the state."""
        return self.theta.nbytes

    def outputs(self) -> Any:
        """f."""
        return self.kernels.outputs(self.theta)

    def rate_into(self, out: Any) -> Callable[[], Any]:
        """A call that writes the rate into an array."""
        return lambda: self.kernels.rate(self.theta, self._residual, out)

    def euler(self) -> Any:
        """An Euler step in place: rate, update and the new outputs in one pass."""
        return self.kernels.advance(
            self.theta, self._residual, self.theta, self._none, self._one, STEP, self.theta
        )
