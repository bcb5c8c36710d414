"""The frozen problems that methods are compared on: what they say of themselves is so."""

import numpy as np
import pytest

from benchmarks.problems import PROBLEMS
from benchmarks.stiff_reference import UNMADE, difference, load, run

SMALL = [name for name, problem in PROBLEMS.items() if problem.width <= 10_000]


@pytest.mark.parametrize("name", SMALL)
def test_the_condition_number_is_what_it_says(name):
    problem = PROBLEMS[name]
    flow = problem.flow()
    eigenvalues = flow.tangent_kernel(flow.initial).eigenvalues
    # A condition number of 1e10 is itself accurate to a millionth only.
    assert eigenvalues[-1] / eigenvalues[0] == pytest.approx(problem.condition[0], rel=0.03)


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_ends_at_a_time_or_at_a_loss(name):
    problem = PROBLEMS[name]
    assert bool(problem.times) != (problem.stop_loss > 0.0)
    assert list(problem.times) == sorted(problem.times)
    assert problem.name == name
    assert len(problem.x) == len(problem.y)


def test_what_must_be_stiff_is_stiff():
    for name in ("relu", "relu-lazy", "stiff", "lazy", "three-layers"):
        assert min(PROBLEMS[name].condition) > 1e3
        assert max(PROBLEMS[name].condition) >= 1e5
    # RK45 is stable up to h rate = 3.3, at six gradients a step: over 1e5 gradients to T.
    flow = PROBLEMS["stiff"].flow()
    rate = flow.tangent_kernel(flow.initial).largest_rate
    assert 6.0 * rate * PROBLEMS["stiff"].end / 3.3 > 1e5


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name not in UNMADE])
def test_a_reference_is_far_more_accurate_than_what_is_compared_with_it(name):
    reference, problem = load(name), PROBLEMS[name]
    if problem.times:
        assert reference["times"] == list(problem.times)
        assert np.shape(reference["residuals"]) == (len(problem.times), len(problem.y))
        assert max(reference["differences"]) < 1e-6
    else:
        assert reference["stop_loss"] == problem.stop_loss
        assert max(reference["differences"]) < 3e-3


@pytest.mark.parametrize("name", ["transient", "three-layers"])
def test_a_run_comes_to_the_reference(name):
    """Also on the way, where residuals are interpolated."""
    problem = PROBLEMS[name]
    _, outcome, residuals = run(problem, "rkc2", rtol=1e-4, atol=1e-8)
    assert outcome.stop_reason.startswith("t_max")
    errors = difference(load(name)["residuals"], residuals, problem)
    assert len(errors) == len(problem.times)
    assert 1e-9 < max(errors) < 2e-3
