"""Tsitouras 5(4): Comput. Math. Appl. 62 (2011) 770, with its free order-4 extension."""

import numpy as np

from flowsim.steppers.tableau import ButcherTableau, lower

_B = [
    0.09646076681806523,
    0.01,
    0.4798896504144996,
    1.379008574103742,
    -3.290069515436081,
    2.324710524099774,
]


def _from_roots(factor: float, *divisors: list[float]) -> np.ndarray:
    """Coefficients of x, x^2, x^3, x^4 of factor times a product of polynomials in x."""
    polynomial = np.array([factor])
    for divisor in divisors:
        polynomial = np.polymul(polynomial, divisor)
    ascending = polynomial[::-1]
    return np.append(ascending, np.zeros(5 - len(ascending)))[1:]


_X = [1.0, 0.0]
_DENSE = np.array(
    [
        _from_roots(
            -1.0530884977290216,
            _X,
            [1.0, -1.3299890189751412],
            [1.0, -1.4364028541716351, 0.7139816917074209],
        ),
        _from_roots(0.1017, _X, _X, [1.0, -2.1966568338249754, 1.2949852507374631]),
        _from_roots(2.490627285651253, _X, _X, [1.0, -2.3853564547206166, 1.5780346820809248]),
        _from_roots(
            -16.548102889244902, _X, _X, [1.0, -1.2171292729553325], [1.0, -0.61620406037800089]
        ),
        _from_roots(
            47.37952196281928, _X, _X, [1.0, -1.2030712083723626], [1.0, -0.65804729265354738]
        ),
        _from_roots(-34.87065786149661, _X, _X, [1.0, -1.2], [1.0, -2 / 3]),
        _from_roots(2.5, _X, _X, [1.0, -1.0], [1.0, -0.6]),
    ]
)

TSIT54 = ButcherTableau(
    name="tsit54",
    order=5,
    a=lower(
        [
            [],
            [0.161],
            [-0.008480655492356989, 0.33548065549235699],
            [2.8971530571054935, -6.359448489975075, 4.3622954328695814],
            [5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525],
            [
                5.86145544294642,
                -12.92096931784711,
                8.159367898576159,
                -0.071584973281401,
                -0.028269050394068383,
            ],
            _B,
        ]
    ),
    b=np.array([*_B, 0.0]),
    c=np.array([0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0]),
    embedded=(
        (
            np.array(
                [
                    0.09468075576583946,
                    0.009183565540343254,
                    0.4877705284247616,
                    1.2342975669304790,
                    -2.7077123499835255,
                    1.8666284181705870,
                    1 / 66,
                ]
            ),
            4,
        ),
    ),
    dense=_DENSE,
    dense_order=4,
)
