"""Low-storage Runge-Kutta methods as data that checks itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from flowsim.steppers.tableau import ButcherTableau


@dataclass(frozen=True, eq=False)
class LowStorageTableau:
    """An explicit Runge-Kutta pair of Ketcheson's class 3S*, with a register for its error.

    However many stages it has, it works in four copies of the state: the base u_n, the stage u, a
    memory S and the error. In stage i, with k_i the rate at the old u,

        S <- S + delta_i u,    u <- gamma1_i u + gamma2_i S + gamma3_i u_n + beta_i h k_i,

    from u = u_n, S = 0; the last u is u_(n+1) (Ketcheson, J. Comput. Phys. 229 (2010) 1763).

    Parameters
    ----------
    name : str
    order : int
        Of the solution that is carried on.
    gamma1, gamma2, gamma3, beta, delta : (s,) arrays
    embedded : (s,) array
        Weights of the embedded solution.
    embedded_order : int

    Raises
    ------
    ValueError
        If shapes do not fit, the parts of u_n in a stage do not add up to one, the first stage
        does not begin from u_n, or the first rate has no part in the error.
    """

    name: str
    order: int
    gamma1: np.ndarray
    gamma2: np.ndarray
    gamma3: np.ndarray
    beta: np.ndarray
    delta: np.ndarray
    embedded: np.ndarray
    embedded_order: int

    def __post_init__(self) -> None:
        s = len(self.beta)
        arrays = (self.gamma1, self.gamma2, self.gamma3, self.delta, self.embedded)
        if any(array.shape != (s,) for array in arrays):
            raise ValueError(f"tableau {self.name}: the arrays have different stage counts")
        parts_of_base = self.gamma1 + self.gamma2 * np.cumsum(self.delta) + self.gamma3
        if np.abs(parts_of_base - 1.0).max() > 1e-13:
            raise ValueError(f"tableau {self.name}: the parts of u_n do not add up to one")
        if self.error_weights[0] == 0.0:
            raise ValueError(f"tableau {self.name}: the first rate has no part in the error")

    @property
    def stages(self) -> int:
        """s."""
        return len(self.beta)

    @cached_property
    def butcher(self) -> ButcherTableau:
        """The same method as a Butcher tableau, with the Hermite interpolant of its steps.

        Registers are followed as combinations of the rates, u_n apart. The interpolant is the
        cubic through both ends with the rates there; that at u_(n+1) is a further stage.
        """
        s = self.stages
        a = np.zeros((s, s))
        stage, memory = np.zeros(s), np.zeros(s)
        for i in range(s):
            a[i] = stage
            memory = memory + self.delta[i] * stage
            stage = self.gamma1[i] * stage + self.gamma2[i] * memory
            stage[i] += self.beta[i]
        first, last = np.eye(s + 1)[[0, s]]
        dense = np.column_stack([first, -2 * first - last, first + last])
        dense[:s] += np.outer(stage, [0.0, 3.0, -2.0])
        return ButcherTableau(
            name=self.name,
            order=self.order,
            a=a,
            b=stage,
            c=a.sum(axis=1),
            embedded=((self.embedded, self.embedded_order),),
            extra_a=np.append(stage, 0.0)[None],
            dense=dense,
            dense_order=3,
        )

    @cached_property
    def error_weights(self) -> np.ndarray:
        """b minus the embedded weights (s,)."""
        return self.butcher.error_weights[0]

    def factors(self, stage: int, step: float) -> np.ndarray:
        """Factors of `flowsim.kernels.interface.TwoLayerKernels.advance_registers` in a stage.

        The error is measured in units of the first rate's part in it.

        Parameters
        ----------
        stage : int
            From 1 on: in stage 0 all registers hold the base.
        step : float

        Returns
        -------
        (5,) array
            delta, gamma1, gamma2, step beta and the relative weight of the error.
        """
        return np.array(
            [
                self.delta[stage],
                self.gamma1[stage],
                self.gamma2[stage],
                step * self.beta[stage],
                self.error_weights[stage] / self.error_weights[0],
            ]
        )
