"""Mini-batches: which samples each step of gradient descent looks at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Batches:
    """All samples once an epoch, in an order that is drawn anew for every epoch.

    Which samples a batch has depends on its number only: a run continues from any of them.

    Parameters
    ----------
    size : int
        Samples of a batch; the last one of an epoch has those that are left.
    seed : int
    """

    size: int
    seed: int = 0

    def an_epoch(self, n_samples: int) -> int:
        """Batches an epoch.

        Parameters
        ----------
        n_samples : int
            n.
        """
        return -(-n_samples // self.size)

    def rows(self, number: int, n_samples: int) -> np.ndarray:
        """Samples of a batch (at most size,) int64.

        Parameters
        ----------
        number : int
            Counted from 0 over all epochs.
        n_samples : int
            n.
        """
        epoch, place = divmod(number, self.an_epoch(n_samples))
        # A stream of its own: the seed by itself is that of the initial weights.
        stream = np.random.SeedSequence(self.seed, spawn_key=(epoch,))
        order = np.random.default_rng(stream).permutation(n_samples)
        return order[place * self.size : (place + 1) * self.size]
