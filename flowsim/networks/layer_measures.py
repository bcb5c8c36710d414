"""What the weights of one layer, or of one layer of neurons, look like: ranks and orientations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import eigvalsh


def singular_values(weights: np.ndarray) -> np.ndarray:
    """Singular values (min(p, q),) of a matrix (p, q), ascending.

    From the Gram matrix of its shorter side: p q min(p, q) multiplications (4 s at p = q = 4,000
    on one core), those below 1e-8 of the largest are lost in rounding.
    """
    gram = _shorter_gram(np.asarray(weights, np.float64))
    if not np.isfinite(gram).all():
        return np.full(len(gram), np.nan)
    return np.sqrt(np.maximum(eigvalsh(gram), 0.0))


def effective_rank(values: np.ndarray) -> float:
    """exp of the entropy of singular values over their sum; 0 if all are 0.

    Roy & Vetterli, The effective rank, EUSIPCO 2007. It is k if k of them are equal and the others
    0, and changes continuously between.
    """
    values = values[values != 0.0]
    if not len(values):
        return 0.0
    shares = values / values.sum()
    return float(np.exp(-np.sum(shares * np.log(shares))))


def effective_ranks(matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Effective ranks of some matrices and, last, of the block-diagonal one of them all."""
    values = [singular_values(matrix) for matrix in matrices]
    return np.array([effective_rank(own) for own in (*values, np.concatenate(values))])


def mean_cosines(inwards: np.ndarray, outwards: np.ndarray, power: int) -> float:
    """Mean of cos(w_k, w_l)^power over all pairs of neurons, weighted with A_k A_l.

    A_k = |w_k| |a_k| is a neuron's amplitude. Of all neurons in one direction the mean is 1, of
    directions that have nothing to do with each other it is 0 for power 1 and 1/d for power 2.

    Parameters
    ----------
    inwards : (d, m) array
        Input weights w_k as columns.
    outwards : (m, q) array
        Output weights a_k as rows.
    power : {1, 2}
        2 counts opposite directions as one.

    Returns
    -------
    float
        0 if no neuron has an amplitude.
    """
    inwards, outwards = np.asarray(inwards, np.float64), np.asarray(outwards, np.float64)
    lengths = np.sqrt(np.einsum("dm,dm->m", inwards, inwards))
    levers = np.sqrt(np.einsum("mq,mq->m", outwards, outwards))
    total = float(lengths @ levers)
    if total == 0.0:
        return 0.0
    if power == 1:
        # A_k times the unit vector of w_k is |a_k| w_k.
        mean = inwards @ levers
        return float(mean @ mean) / total**2
    with np.errstate(divide="ignore", invalid="ignore"):
        scales = np.where(lengths > 0.0, np.sqrt(levers / lengths), 0.0)
    gram = _shorter_gram(inwards * scales)
    return float(np.sum(gram * gram)) / total**2


def _shorter_gram(matrix: np.ndarray) -> np.ndarray:
    """M M^T or M^T M, whichever is smaller; they share all eigenvalues but zeros."""
    rows, columns = matrix.shape
    return matrix @ matrix.T if rows <= columns else matrix.T @ matrix
