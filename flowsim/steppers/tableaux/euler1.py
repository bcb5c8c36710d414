"""Euler's method, with its straight line."""

import numpy as np

from flowsim.steppers.tableau import ButcherTableau, lower

EULER1 = ButcherTableau(
    name="euler1",
    order=1,
    a=lower([[]]),
    b=np.array([1.0]),
    c=np.array([0.0]),
    dense=np.array([[1.0]]),
    dense_order=1,
)
