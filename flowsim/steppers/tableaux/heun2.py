"""Heun's second-order method, with the quadratic through its two slopes."""

import numpy as np

from flowsim.steppers.tableau import ButcherTableau, lower

HEUN2 = ButcherTableau(
    name="heun2",
    order=2,
    a=lower([[], [1.0]]),
    b=np.array([0.5, 0.5]),
    c=np.array([0.0, 1.0]),
    dense=np.array([[1.0, -0.5], [0.0, 0.5]]),
    dense_order=2,
)
