"""Bogacki & Shampine 3(2): Appl. Math. Lett. 2 (1989) 321."""

import numpy as np

from flowsim.steppers.tableau import ButcherTableau, lower

BS32 = ButcherTableau(
    name="bs32",
    order=3,
    a=lower([[], [1 / 2], [0, 3 / 4], [2 / 9, 1 / 3, 4 / 9]]),
    b=np.array([2 / 9, 1 / 3, 4 / 9, 0]),
    c=np.array([0, 1 / 2, 3 / 4, 1]),
    embedded=((np.array([7 / 24, 1 / 4, 1 / 3, 1 / 8]), 2),),
    # The cubic Hermite interpolant through both ends.
    dense=np.array([[1, -4 / 3, 5 / 9], [0, 1, -2 / 3], [0, 4 / 3, -8 / 9], [0, -1, 1]]),
    dense_order=3,
)
