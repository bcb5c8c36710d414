"""Order of every tableau, proved by all rooted trees (Butcher), not sampled."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from flowsim.steppers.low_storage_tableau import LowStorageTableau
from flowsim.steppers.tableau import ButcherTableau, lower
from flowsim.steppers.tableaux.bs32 import BS32
from flowsim.steppers.tableaux.dop853 import DOP853
from flowsim.steppers.tableaux.dp54 import DP54
from flowsim.steppers.tableaux.heun2 import HEUN2
from flowsim.steppers.tableaux.rdpk35 import RDPK35
from flowsim.steppers.tableaux.tsit54 import TSIT54

TABLEAUX = [HEUN2, BS32, DP54, TSIT54, DOP853, RDPK35.butcher]


@cache
def rooted_trees(order):
    """All rooted trees with ``order`` vertices, as sorted tuples of their subtrees."""
    return [tuple(forest) for forest in forests(order - 1, order - 1)]


def forests(vertices, largest):
    """Multisets of trees of at most ``largest`` vertices each, with ``vertices`` in all."""
    if vertices == 0:
        return [()]
    found = set()
    for size in range(1, min(vertices, largest) + 1):
        for tree in rooted_trees(size):
            for rest in forests(vertices - size, size):
                found.add(tuple(sorted((tree, *rest))))
    return sorted(found)


def size(tree):
    return 1 + sum(size(subtree) for subtree in tree)


def density(tree):
    product = size(tree)
    for subtree in tree:
        product *= density(subtree)
    return product


def stage_weights(tree, a):
    """The vector of a tree's inner weights, one a stage."""
    weights = np.ones(len(a))
    for subtree in tree:
        weights = weights * (a @ stage_weights(subtree, a))
    return weights


def defect(weights, a, order, fraction=1.0):
    """Largest violation of the order conditions up to ``order``."""
    return max(
        abs(weights @ stage_weights(tree, a) - fraction**n / density(tree))
        for n in range(1, order + 1)
        for tree in rooted_trees(n)
    )


def test_number_of_rooted_trees():
    assert [len(rooted_trees(n)) for n in range(1, 9)] == [1, 1, 2, 4, 9, 20, 48, 115]


@pytest.mark.parametrize("tableau", TABLEAUX, ids=lambda t: t.name)
def test_main_weights_have_their_order_and_no_more(tableau):
    assert defect(tableau.b, tableau.a, tableau.order) < 1e-13
    assert defect(tableau.b, tableau.a, tableau.order + 1) > 1e-6


@pytest.mark.parametrize("tableau", [t for t in TABLEAUX if t.embedded], ids=lambda t: t.name)
def test_embedded_weights_have_their_order_and_no_more(tableau):
    for weights, order in tableau.embedded:
        assert defect(weights, tableau.a, order) < 1e-13
        assert defect(weights, tableau.a, order + 1) > 1e-6


@pytest.mark.parametrize("tableau", TABLEAUX, ids=lambda t: t.name)
@pytest.mark.parametrize("fraction", [0.1, 0.37, 0.5, 0.9, 1.0])
def test_dense_output_has_its_order(tableau, fraction):
    stages = tableau.stages + len(tableau.extra_a)
    a = np.zeros((stages, stages))
    a[: tableau.stages, : tableau.stages] = tableau.a
    if len(tableau.extra_a):
        a[tableau.stages :, : tableau.extra_a.shape[1]] = tableau.extra_a
    weights = tableau.dense_weights(fraction)
    # Powers with large coefficients of both signs: a rounding of each, and no more.
    rounding = 2.3e-16 * np.abs(tableau.dense).sum()
    assert defect(weights, a, tableau.dense_order, fraction) < 1e-14 + rounding


def test_pairs_that_keep_their_rates_are_first_same_as_last():
    assert [tableau.fsal for tableau in TABLEAUX] == [False, True, True, True, True, False]


def valid():
    return {
        "name": "t",
        "order": 2,
        "a": lower([[], [1.0]]),
        "b": np.array([0.5, 0.5]),
        "c": np.array([0.0, 1.0]),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": np.array([[0.0, 1.0], [0.0, 0.0]])}, "strictly lower triangular"),
        ({"c": np.array([0.0, 0.9])}, "sum to c"),
        ({"b": np.array([0.5, 0.4])}, "sum to 1"),
        ({"embedded": ((np.array([1.0, 0.1]), 1),)}, "sum to 1"),
        ({"dense": np.array([[1.0, -0.4], [0.0, 0.5]])}, "does not end in b"),
        ({"c": np.array([0.0])}, "different stage counts"),
    ],
)
def test_a_wrong_tableau_is_refused(change, message):
    ButcherTableau(**valid())
    with pytest.raises(ValueError, match=message):
        ButcherTableau(**(valid() | change))


def test_a_low_storage_tableau_gives_the_tableau_of_its_registers():
    """u = u_n + h k1/2, then u_(n+1) = u/4 + (u_n + u)/2 - u_n/4 + 5/8 h k2, worked out by hand."""
    scheme = LowStorageTableau(
        name="t",
        order=1,
        gamma1=np.array([0.0, 0.25]),
        gamma2=np.array([1.0, 0.5]),
        gamma3=np.array([0.0, -0.25]),
        beta=np.array([0.5, 0.625]),
        delta=np.array([1.0, 1.0]),
        embedded=np.array([0.5, 0.5]),
        embedded_order=1,
    )
    assert scheme.butcher.a.tolist() == [[0.0, 0.0], [0.5, 0.0]]
    assert scheme.butcher.b.tolist() == [0.375, 0.625]
    assert scheme.factors(1, 0.1).tolist() == [1.0, 0.25, 0.5, 0.0625, -1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma3": RDPK35.gamma3 + 1e-9}, "do not add up to one"),
        ({"delta": RDPK35.delta[:-1]}, "different stage counts"),
        ({"beta": 1.001 * RDPK35.beta}, "sum to 1"),
        ({"embedded": RDPK35.butcher.b}, "no part in the error"),
    ],
)
def test_a_wrong_low_storage_tableau_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(RDPK35, **change)
