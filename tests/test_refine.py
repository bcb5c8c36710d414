"""Sweeps that look for the zero line: what is asked, and what is found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flowsim as fs
from flowsim.errors import ConfigError
from flowsim.sweeps.grid import Member
from flowsim.sweeps.refine import exponent_of, refine

GAMMAS = [round(0.6 + 0.02 * k, 2) for k in range(41)]
KEY = "scaling.gamma"


def members(gammas, rows=(0.0,), widths=(1, 2)) -> list[Member]:
    values = [
        {KEY: gamma, "scaling.gamma_prime": row, "network.width": width, "network.seed": 0}
        for gamma in gammas
        for row in rows
        for width in widths
    ]
    return [Member(str(k), None, str(k), value, 1.0) for k, value in enumerate(values)]


@settings(max_examples=60, deadline=None)
@given(
    zeros=st.lists(st.floats(0.61, 1.39), min_size=1, max_size=3),
    bend=st.floats(-0.6, 0.6),
)
def test_every_zero_lies_between_neighbours(zeros, bend):
    """With less than a quarter of the runs, for slopes as bent as those of phase diagrams."""
    rows = range(len(zeros))
    grid = members(GAMMAS, rows)
    known: dict[tuple[int, float], float] = {}

    def slope(runs):
        row, gamma = runs[0].values["scaling.gamma_prime"], runs[0].values[KEY]
        away = gamma - zeros[row]
        known[row, gamma] = away + bend * away**2
        return known[row, gamma]

    done = refine(grid, KEY, lambda runs: None, slope)
    assert len(done) == len({run.hash for run in done}) < len(grid) / 4
    for row, zero in enumerate(zeros):
        low = max(g for g in GAMMAS if g <= zero)
        high = min(g for g in GAMMAS if g > zero)
        assert {(row, low), (row, high)} <= set(known) or zero in GAMMAS


def test_what_has_no_zero_and_no_slope_ends():
    grid = members(GAMMAS)
    assert len(refine(grid, KEY, lambda runs: None, lambda runs: 0.1)) == 6
    assert len(refine(grid, KEY, lambda runs: None, lambda runs: None)) == 6
    halves = [0.6, 0.61, 0.62]
    assert len(refine(members(halves), KEY, lambda runs: None, lambda runs: None)) == 6


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"refine": "yes", KEY: GAMMAS}, "true or false"),
        ({"refine": True, KEY: GAMMAS[:2]}, "three values"),
        ({"refine": True, "seeds": 3}, "three values"),
    ],
)
def test_what_cannot_be_refined(experiment, axes, words):
    with pytest.raises(ConfigError, match=words):
        fs.sweep(experiment, grid=axes, workers=1)
    assert exponent_of({KEY: GAMMAS}) is None and exponent_of({"refine": False}) is None


def test_a_refined_sweep_finds_the_zero_of_the_whole_one(experiment, tmp_path):
    experiment["network"]["antisymmetric"] = True
    axes = {KEY: [round(0.7 + 0.05 * k, 2) for k in range(13)], "network.width": [50, 200]}
    axes |= {"seeds": 2}
    whole = fs.sweep(experiment, grid=axes, workers=1)
    some = fs.sweep(experiment, tmp_path, grid=axes | {"refine": True}, workers=1)
    assert 4 * 3 < len(some) == some.n_run < len(whole) / 1.5
    zeros = [[zero.gamma for zero in fs.classify(result).zero_line] for result in (whole, some)]
    np.testing.assert_allclose(zeros[1], zeros[0][: len(zeros[1])])
    again = fs.sweep(experiment, tmp_path, grid=axes | {"refine": True}, workers=1)
    assert (again.n_run, len(again)) == (0, len(some))
    with pytest.raises(ConfigError, match="shard"):
        fs.sweep(experiment, tmp_path, grid=axes | {"refine": True}, workers=1, shard=(1, 2))
