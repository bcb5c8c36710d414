"""What all kinds of networks have in common."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from flowsim.kernels.activations import Activation


class Network(Protocol):
    """What is asked of a network, of any kind, before it is bound to data."""

    @property
    def width(self) -> int:
        """m."""

    @property
    def activation(self) -> Activation:
        """sigma."""

    @property
    def seed(self) -> int:
        """Of the initial values."""

    @property
    def antisymmetric(self) -> bool:
        """Whether there is a second copy with the opposite output weights."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Groups of weights, from the inputs on."""

    @property
    def numbers(self) -> dict[str, Any]:
        """The scaling at this width, as files have it among their attributes."""

    def state_bytes(self, n_inputs: int, dtype: str | np.dtype) -> int:
        """Bytes of one copy of the state."""
