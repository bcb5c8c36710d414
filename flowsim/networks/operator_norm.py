"""The operator norm of a matrix, or of how much it has changed, without forming the difference."""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigvalsh
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

_SMALL = 128
"""Rows or columns up to which the Gram matrix is diagonalised."""

_TOLERANCE = 1e-5
"""Relative accuracy of the squared norm of large matrices."""


def difference_norm(weights: np.ndarray, reference: np.ndarray | None = None) -> float:
    """Largest singular value of ``weights - reference``.

    Parameters
    ----------
    weights : (p, q) array
    reference : (p, q) array, optional
        0 if absent.

    Returns
    -------
    float
        To a relative 1e-5; exact up to rounding if p or q is at most 128.
    """
    rows, columns = weights.shape
    if min(rows, columns) <= _SMALL:
        difference = weights.astype(np.float64)
        if reference is not None:
            difference -= reference
        gram = difference @ difference.T if rows <= columns else difference.T @ difference
        return float(np.sqrt(max(eigvalsh(gram)[-1], 0.0)))

    def times(vector: np.ndarray) -> np.ndarray:
        product = weights @ vector
        return product if reference is None else product - reference @ vector

    def square(vector: np.ndarray) -> np.ndarray:
        image = times(vector)
        back = weights.T @ image
        return back if reference is None else back - reference.T @ image

    # A start that is the same every time, and orthogonal to nothing in particular.
    start = np.cos(np.arange(columns, dtype=np.float64) ** 1.5)
    if not np.any(square(start)):
        return 0.0
    operator = LinearOperator((columns, columns), matvec=square, dtype=np.float64)
    try:
        values = eigsh(
            operator, k=1, v0=start, tol=_TOLERANCE, maxiter=300, return_eigenvectors=False
        )
    except ArpackNoConvergence as error:  # pragma: no cover - 300 restarts suffice for a norm
        values = error.eigenvalues if len(error.eigenvalues) else np.array([np.nan])
    return float(np.sqrt(max(float(values[-1]), 0.0)))
