"""ROS2 of Verwer, Spee, Blom & Hundsdorfer, 2(1), L-stable: SIAM J. Sci. Comput. 20 (1999) 1456."""

import numpy as np

from flowsim.steppers.rosenbrock_tableau import RosenbrockTableau
from flowsim.steppers.tableau import lower

_GAMMA = 1.0 - 1.0 / np.sqrt(2.0)

ROS2 = RosenbrockTableau(
    name="ros2",
    order=2,
    a=lower([[], [1.0]]),
    gammas=lower([[_GAMMA], [-2.0 * _GAMMA, _GAMMA]]),
    b=np.array([0.5, 0.5]),
    embedded=(np.array([1.0, 0.0]), 1),
    dense=np.array([[1.0, -0.5], [0.0, 0.5]]),
    dense_order=1,
)
