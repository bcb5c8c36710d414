"""Butcher tableaux as data that checks itself."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class ButcherTableau:
    """An explicit Runge-Kutta method.

    Parameters
    ----------
    name : str
    order : int
        Of the solution that is carried on.
    a : (s, s) array
        Strictly lower triangular.
    b, c : (s,) arrays
    embedded : tuple of ((s,) array, int)
        Weights and order of each embedded solution; the first is the one that is mainly trusted.
    extra_a : (e, s + e) array
        Further stages that only the dense output needs.
    dense : (s + e, p) array, optional
        Continuous extension: the weight of stage j at the fraction theta of a step is
        sum_k dense[j, k] theta^(k + 1).
    dense_order : int
        Of that extension.

    Raises
    ------
    ValueError
        If shapes do not fit, ``a`` is not strictly lower triangular, rows do not sum to ``c``,
        weights do not sum to 1, or the extension does not end in ``b``.
    """

    name: str
    order: int
    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    embedded: tuple[tuple[np.ndarray, int], ...] = ()
    extra_a: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    dense: np.ndarray | None = None
    dense_order: int = 0

    def __post_init__(self) -> None:
        s = len(self.b)
        problems = []
        if self.a.shape != (s, s) or self.c.shape != (s,):
            raise ValueError(f"tableau {self.name}: a, b and c have different stage counts")
        if np.triu(self.a).any():
            problems.append("a is not strictly lower triangular")
        if np.abs(self.a.sum(axis=1) - self.c).max() > 1e-13:
            problems.append("a row of a does not sum to c")
        for weights in (self.b, *(weights for weights, _ in self.embedded)):
            if weights.shape != (s,) or abs(weights.sum() - 1.0) > 1e-13:
                problems.append("weights do not sum to 1")
        if self.dense is not None:
            end = np.zeros(len(self.dense))
            end[:s] = self.b
            if np.abs(self.dense.sum(axis=1) - end).max() > 1e-12:
                problems.append("the continuous extension does not end in b")
        if problems:
            raise ValueError(f"tableau {self.name}: {'; '.join(problems)}")

    @property
    def stages(self) -> int:
        """s."""
        return len(self.b)

    @property
    def fsal(self) -> bool:
        """First same as last: the last stage is the rate at the new state."""
        return bool(np.array_equal(self.a[-1], self.b))

    @property
    def error_weights(self) -> tuple[np.ndarray, ...]:
        """b minus the weights of each embedded solution."""
        return tuple(self.b - weights for weights, _ in self.embedded)

    @property
    def error_order(self) -> int:
        """Exponent of the step size in the estimated error of one step.

        Two embedded solutions are merged as e_1^2 / e_2 (see `EmbeddedPair`).
        """
        exponents = [order + 1 for _, order in self.embedded]
        return 2 * exponents[0] - exponents[1] if len(exponents) == 2 else exponents[0]

    def dense_weights(self, fraction: float) -> np.ndarray:
        """Weights (s + e,) of the stages at ``fraction`` of a step."""
        if self.dense is None:
            raise ValueError(f"tableau {self.name} has no continuous extension")
        weights = np.zeros(len(self.dense))
        for column in self.dense.T[::-1]:
            weights = (weights + column) * fraction
        return weights


def lower(rows: list[list[float]]) -> np.ndarray:
    """Fill a square array from the rows below its diagonal (row i has i entries)."""
    a = np.zeros((len(rows), len(rows)))
    for i, row in enumerate(rows):
        a[i, : len(row)] = row
    return a
