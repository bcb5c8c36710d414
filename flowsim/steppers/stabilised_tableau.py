"""Stabilised Runge-Kutta methods of any number of stages, as three-term recurrences."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from flowsim.steppers.tableau import ButcherTableau


@dataclass(frozen=True, eq=False)
class StabilisedTableau:
    """An explicit Runge-Kutta method whose stages follow a three-term recurrence.

    However many stages it has, it works in the base u_n = Y_0, the rate F_0 there and the last two
    stages. With D_j = Y_j - u_n and h the step,

        D_1 = beta_1 h F_0,
        D_j = mu_j D_(j-1) + nu_j D_(j-2) + beta_j h F_(j-1) + delta_j h F_0,   j = 2, ..., s,

    and u_(n+1) = Y_s. The step's error is estimated as

        error_change (u_n - u_(n+1)) + error_rate h (F_0 + F_s).

    Parameters
    ----------
    name : str
    order : int
    mu, nu, beta, delta : (s,) arrays
        Entry 0 belongs to stage 1, of which only beta counts.
    extent : float
        The method is stable for eigenvalues of the step times the Jacobian in [-extent, 0].
    error_change, error_rate : float

    Raises
    ------
    ValueError
        If shapes do not fit, or the error of a constant rate would not be 0.
    """

    name: str
    order: int
    mu: np.ndarray
    nu: np.ndarray
    beta: np.ndarray
    delta: np.ndarray
    extent: float
    error_change: float
    error_rate: float

    def __post_init__(self) -> None:
        s = len(self.beta)
        if any(array.shape != (s,) for array in (self.mu, self.nu, self.delta)):
            raise ValueError(f"tableau {self.name}: the arrays have different stage counts")
        if abs(2.0 * self.error_rate - self.error_change) > 1e-15:
            raise ValueError(f"tableau {self.name}: the error of a constant rate is not 0")

    @property
    def stages(self) -> int:
        """s."""
        return len(self.beta)

    @cached_property
    def butcher(self) -> ButcherTableau:
        """The same method as a Butcher tableau, whose last stage is the rate at u_(n+1).

        Its embedded solution is u_(n+1) less the estimated error, its continuous extension the
        cubic through both ends with the rates there (Hermite).
        """
        s = self.stages
        a = np.zeros((s + 1, s + 1))
        a[1, 0] = self.beta[0]
        for j in range(2, s + 1):
            a[j] = self.mu[j - 1] * a[j - 1] + self.nu[j - 1] * a[j - 2]
            a[j, j - 1] += self.beta[j - 1]
            a[j, 0] += self.delta[j - 1]
        b = a[s]
        first, last = np.eye(s + 1)[[0, s]]
        error = self.error_rate * (first + last) - self.error_change * b
        dense = np.column_stack([first, -2 * first - last, first + last])
        dense += np.outer(b, [0.0, 3.0, -2.0])
        return ButcherTableau(
            name=self.name,
            order=self.order,
            a=a,
            b=b,
            c=a.sum(axis=1),
            embedded=((b - error, self.order),),
            dense=dense,
            dense_order=3,
        )

    def factors(self, stage: int, step: float) -> np.ndarray:
        """Factors of `flowsim.kernels.interface.FlowKernels.advance_recurrence` in a stage.

        Parameters
        ----------
        stage : int
            From 2 on: stage 1 is a step along F_0.
        step : float

        Returns
        -------
        (4,) array
            mu, nu, step beta and step delta.
        """
        j = stage - 1
        return np.array([self.mu[j], self.nu[j], step * self.beta[j], step * self.delta[j]])
