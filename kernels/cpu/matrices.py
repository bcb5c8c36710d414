"""The matrices that the states of a deep network share, and how a step is added to them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import numpy as np

from . import layers
from .rank_updates import add_and_square, add_square_and_multiply, can_multiply

NUMBERS = count()
"""Told to everything that a pass may be remembered by."""

Factors = tuple[np.ndarray, np.ndarray]
"""Q (k, fan_in) and P (k, fan_out) of a change Q^T P."""


class Matrices:
    """The hidden matrices of all copies, which several states may share.

    What is to be added to them waits for the first product with them, if nobody looks at them
    earlier: of few samples, that product and the addition then read them once.

    Parameters
    ----------
    arrays : list of list of (fan_in, fan_out) arrays
        By copy and hidden matrix.
    threads : int

    Attributes
    ----------
    version : int
        Changes whenever they do.
    """

    def __init__(self, arrays: list[list[np.ndarray]], threads: int) -> None:
        self._arrays, self._threads, self.version = arrays, threads, 0
        self._squares = [[add_and_square(w, None, w, threads) for w in one] for one in arrays]
        self._waiting: dict[tuple[int, int], Factors] = {}
        # Not the object's own place, which another one may have once this is gone.
        self.number = next(NUMBERS)

    def update(self, factors: Sequence[Sequence[Factors]]) -> None:
        """Add Q^T P to each matrix, by copy and hidden matrix; the arrays are kept until then."""
        for copy, of_copy in enumerate(factors):
            for number, pair in enumerate(of_copy):
                self._add(copy, number)
                self._waiting[copy, number] = pair
        self.version += 1

    def _add(self, copy: int, number: int) -> None:
        factors = self._waiting.pop((copy, number), None)
        if factors is not None:
            matrix = self._arrays[copy][number]
            self._squares[copy][number] = add_and_square(matrix, factors, matrix, self._threads)

    def array(self, copy: int, number: int) -> np.ndarray:
        """A matrix (fan_in, fan_out), read only."""
        self._add(copy, number)
        return self._arrays[copy][number]

    def square(self, copy: int, number: int) -> float:
        """Sum of squares of a matrix."""
        self._add(copy, number)
        return self._squares[copy][number]

    def times(self, copy: int, number: int, signal: np.ndarray, out: np.ndarray) -> None:
        """signal (n, fan_in) times a matrix into ``out`` (n, fan_out)."""
        factors = self._waiting.get((copy, number))
        if factors is None or not can_multiply(factors, signal):
            layers.times(signal, self.array(copy, number), out, self._threads)
            return
        del self._waiting[copy, number]
        matrix = self._arrays[copy][number]
        self._squares[copy][number] = add_square_and_multiply(
            matrix, factors, signal, out, self._threads
        )
