"""The exponential midpoint rule: exact where the tangent kernel does not change.

Hochbruck & Ostermann, Exponential integrators, Acta Numerica 19 (2010) 209, sections 2.1 and 5.1.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from flowsim.steppers.kernel_filtered import KernelFiltered


class Exponential(KernelFiltered):
    """theta - h M Phi phi_1(-h H K/n) g/n, phi_1(x) = (exp(x) - 1)/x, Phi and K half way.

    Two passes and one K a step, of order 2 for the square loss (see `KernelFiltered`). In the lazy
    limit, where K is constant, one step reaches any time.
    """

    name: ClassVar[str] = "exponential"
    order = 2
    change_at_1e3 = 0.02
    distance_at_1e3 = 0.04

    def _filter(self, z: np.ndarray) -> np.ndarray:
        return np.divide(-np.expm1(-z), z, out=np.ones_like(z), where=z > 0.0)
