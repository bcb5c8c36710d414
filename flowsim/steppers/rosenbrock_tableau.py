"""Rosenbrock-W methods as data that checks itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class RosenbrockTableau:
    """A Rosenbrock-W method: linearly implicit, of its order with any matrix for the Jacobian J.

    k_i = f(u + h sum_j a[i, j] k_j) + h J sum_j gammas[i, j] k_j, and u + h sum_i b[i] k_i is the
    new state (Hairer & Wanner II, IV.7).

    Parameters
    ----------
    name : str
    order : int
        Of the solution that is carried on, as a W-method.
    a : (s, s) array
        Strictly lower triangular.
    gammas : (s, s) array
        Lower triangular with one number on the diagonal: a step has one matrix to factorise.
    b : (s,) array
    embedded : tuple of ((s,) array, int)
        Weights and order of the embedded solution.
    dense : (s, p) array
        Continuous extension: the weight of stage j at the fraction theta of a step is
        sum_k dense[j, k] theta^(k + 1).
    dense_order : int
        Of that extension, as a W-method.

    Raises
    ------
    ValueError
        If shapes do not fit, a matrix has not its form, weights do not sum to 1, or the extension
        does not end in ``b``.
    """

    name: str
    order: int
    a: np.ndarray
    gammas: np.ndarray
    b: np.ndarray
    embedded: tuple[np.ndarray, int]
    dense: np.ndarray
    dense_order: int

    def __post_init__(self) -> None:
        s = len(self.b)
        shapes = self.a.shape, self.gammas.shape, self.embedded[0].shape, self.dense.shape[:1]
        if shapes != ((s, s), (s, s), (s,), (s,)):
            raise ValueError(f"tableau {self.name}: different stage counts")
        problems = []
        if np.triu(self.a).any():
            problems.append("a is not strictly lower triangular")
        if np.triu(self.gammas, 1).any() or np.ptp(np.diag(self.gammas)) > 0.0:
            problems.append("gammas is not lower triangular with one number on its diagonal")
        if any(abs(weights.sum() - 1.0) > 1e-13 for weights in (self.b, self.embedded[0])):
            problems.append("weights do not sum to 1")
        if np.abs(self.dense.sum(axis=1) - self.b).max() > 1e-12:
            problems.append("the continuous extension does not end in b")
        if problems:
            raise ValueError(f"tableau {self.name}: {'; '.join(problems)}")

    @property
    def stages(self) -> int:
        """s."""
        return len(self.b)

    @property
    def gamma(self) -> float:
        """The number on the diagonal."""
        return float(self.gammas[0, 0])

    @property
    def error_weights(self) -> np.ndarray:
        """b minus the weights of the embedded solution."""
        return self.b - self.embedded[0]

    @property
    def error_order(self) -> int:
        """Exponent of the step size in the estimated error of one step."""
        return self.embedded[1] + 1

    def dense_weights(self, fraction: float) -> np.ndarray:
        """Weights (s,) of the stages at ``fraction`` of a step."""
        return self.dense @ fraction ** np.arange(1.0, self.dense.shape[1] + 1.0)


def extension(a: np.ndarray, gammas: np.ndarray) -> np.ndarray:
    """Continuous extension (4, 3) of order 2 of a method of order 3 with 4 stages.

    Its weights b(theta) fulfil the conditions sum b = theta, b.(a 1) = theta^2/2, b.(gammas 1) = 0
    of order 2 with any J, and b.(a 1)^2 = theta^3/3 of order 3; at theta = 1 there are no others.
    """
    c = a.sum(axis=1)
    conditions = np.array([np.ones(len(c)), c, gammas.sum(axis=1), c**2])
    powers = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0 / 3.0]])
    return np.linalg.solve(conditions, powers)
