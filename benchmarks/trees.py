"""Butcher's order conditions by rooted trees, for the tableaux of `flowsim.steppers.tableaux`.

A tree is the sorted tuple of its root's subtrees. A method has order p when for every tree t with
up to p vertices  b . Phi(t) = 1 / density(t)  (Hairer, Norsett & Wanner I, II.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

Tree = tuple


@cache
def trees(vertices: int) -> tuple[Tree, ...]:
    """All rooted trees with that many vertices."""
    return tuple(sorted(set(_forests(vertices - 1, vertices - 1))))


def _forests(vertices: int, largest: int) -> Iterator[Tree]:
    """Multisets of trees, none with more than ``largest`` vertices."""
    if vertices == 0:
        yield ()
    for size in range(1, min(vertices, largest) + 1):
        for tree in trees(size):
            for rest in _forests(vertices - size, size):
                yield tuple(sorted((tree, *rest)))


def _size_and_density(tree: Tree) -> tuple[int, int]:
    parts = [_size_and_density(subtree) for subtree in tree]
    size = 1 + sum(part[0] for part in parts)
    density = size
    for part in parts:
        density *= part[1]
    return size, density


def _stages(tree: Tree, a: np.ndarray) -> np.ndarray:
    """Phi(t), one entry a stage."""
    product = np.ones(len(a))
    for subtree in tree:
        product = product * (a @ _stages(subtree, a))
    return product


def defect(b: np.ndarray, a: np.ndarray, vertices: int) -> float:
    """Largest |b . Phi(t) - 1 / density(t)| over the trees with exactly that many vertices."""
    return max(
        abs(float(b @ _stages(tree, a)) - 1.0 / _size_and_density(tree)[1])
        for tree in trees(vertices)
    )
