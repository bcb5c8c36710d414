"""ROS34PW2 of Rang & Angermann, order 3(2), L-stable: BIT Numer. Math. 45 (2005) 761.

It is stiffly accurate: the last stage is the new state.
"""

import numpy as np

from flowsim.steppers.rosenbrock_tableau import RosenbrockTableau, extension
from flowsim.steppers.tableau import lower

_GAMMA = 4.3586652150845900e-1

_A = lower(
    [
        [],
        [8.7173304301691801e-1],
        [8.4457060015369423e-1, -1.1299064236484185e-1],
        [0.0, 0.0, 1.0],
    ]
)
_GAMMAS = lower(
    [
        [_GAMMA],
        [-8.7173304301691801e-1, _GAMMA],
        [-9.0338057013044082e-1, 5.4180672388095326e-2, _GAMMA],
        [2.4212380706095346e-1, -1.2232505839045147, 5.4526025533510214e-1, _GAMMA],
    ]
)

ROS34PW2 = RosenbrockTableau(
    name="ros34pw2",
    order=3,
    a=_A,
    gammas=_GAMMAS,
    b=np.array([2.4212380706095346e-1, -1.2232505839045147, 1.5452602553351020, _GAMMA]),
    embedded=(
        np.array([3.7810903145819369e-1, -9.6042292212423178e-2, 0.5, 2.1793326075422950e-1]),
        2,
    ),
    dense=extension(_A, _GAMMAS),
    dense_order=2,
)
