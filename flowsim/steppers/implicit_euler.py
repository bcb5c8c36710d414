"""Linearly implicit Euler: one fused pass and one n x n solve a step, for stiff ReLU networks."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from flowsim.steppers.kernel_filtered import KernelFiltered


class ImplicitEuler(KernelFiltered):
    """theta - h M Phi (I + h H K/n)^(-1) g/n (see `KernelFiltered`).

    Where the weights go is controlled, and when they get there is not: of a constant K any step is
    as good as its prediction, which decays as 1/(1 + z) and not as exp(-z).
    """

    name: ClassVar[str] = "implicit-euler"
    order = 1
    change_at_1e3 = 0.01
    distance_at_1e3 = 0.03

    def _filter(self, z: np.ndarray) -> np.ndarray:
        return 1.0 / (1.0 + z)
