import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsim.analysis import fit_slope, zero_crossings
from flowsim.analysis.zero_line import zero_line
from flowsim.errors import FlowsimError

PUBLISHED = {
    0.5: ([8.85e-3, 3.76e-3, 2.74e-3, 1.92e-3, 1.36e-3], -0.506),
    1.0: ([0.262, 0.270, 0.269, 0.263, 0.272], 0.007),
    1.75: ([7.98, 13.4, 18.4, 23.9, 31.0], 0.372),
}
WIDTHS = [1000, 5000, 10000, 20000, 40000]


@pytest.mark.parametrize("gamma", PUBLISHED)
def test_published_slopes_are_reproduced(gamma):
    change, slope = PUBLISHED[gamma]
    fit = fit_slope(WIDTHS, change)
    assert fit.slope == pytest.approx(slope, abs=5e-3)
    assert fit.method == "student-t"
    assert fit.interval[0] < fit.slope < fit.interval[1]


def test_an_exact_power_law_is_found():
    width = np.repeat([100, 200, 800], 2)
    fit = fit_slope(width, 3.0 * width**-0.7)
    assert fit.slope == pytest.approx(-0.7, abs=1e-13)
    assert fit(400) == pytest.approx(3.0 * 400**-0.7)
    assert fit.interval == pytest.approx((-0.7, -0.7), abs=1e-13)
    assert (fit.method, fit.widths, fit.n_runs) == ("bootstrap", (100, 200, 800), 6)


def test_student_interval_is_the_textbook_one():
    from scipy import stats

    generator = np.random.default_rng(3)
    width = np.array([100, 300, 1000, 3000])
    change = width**0.4 * np.exp(0.1 * generator.standard_normal(4))
    line = stats.linregress(np.log(width), np.log(change))
    reach = stats.t.ppf(0.95, 2) * line.stderr
    fit = fit_slope(width, change, confidence=0.9)
    assert fit.slope == pytest.approx(line.slope)
    assert fit.intercept == pytest.approx(line.intercept)
    assert fit.interval == pytest.approx((line.slope - reach, line.slope + reach))


@pytest.mark.parametrize("seeds", [2, 5])
def test_bootstrap_interval_covers_as_promised(seeds):
    generator = np.random.default_rng(seeds)
    width = np.repeat([100, 300, 1000, 3000, 10000], seeds)
    hits = 0
    for _ in range(200):
        change = width**0.2 * np.exp(0.1 * generator.standard_normal(width.size))
        low, high = fit_slope(width, change, confidence=0.9, resamples=500).interval
        hits += low <= 0.2 <= high
    # 0.9, within three standard deviations of 200 trials.
    assert 0.83 * 200 <= hits <= 0.97 * 200


def test_order_of_runs_changes_nothing():
    generator = np.random.default_rng(0)
    width = np.repeat([100, 300, 1000], 4)
    change = np.exp(generator.standard_normal(width.size))
    order = generator.permutation(width.size)
    assert fit_slope(width, change) == fit_slope(width[order], change[order])


def test_two_runs_give_a_slope_without_interval():
    fit = fit_slope([100, 400], [1.0, 2.0])
    assert fit.slope == pytest.approx(0.5)
    assert (fit.interval, fit.method) == (None, "none")


def test_one_seed_at_one_width_falls_back_to_student():
    assert fit_slope([100, 100, 400], [1.0, 1.1, 2.0]).method == "student-t"


@pytest.mark.parametrize(
    ("width", "change", "word"),
    [
        ([100, 100], [1.0, 2.0], "two widths"),
        ([100, 200], [1.0, 0.0], "positive"),
        ([100, 200], [1.0, np.nan], "finite"),
        ([0, 200], [1.0, 1.0], "positive"),
        ([100, 200], [1.0], "entries"),
    ],
)
def test_what_has_no_slope_is_refused_in_one_line(width, change, word):
    with pytest.raises(FlowsimError, match=word) as caught:
        fit_slope(width, change)
    assert "\n" not in str(caught.value)


def test_every_crossing_is_found():
    assert zero_crossings([0.0, 1.0, 2.0, 3.0], [-1.0, 1.0, -3.0, 0.0]) == [0.5, 1.25, 3.0]
    assert zero_crossings([1.0, 0.5], [0.1, -0.3]) == pytest.approx([0.875])
    assert zero_crossings([1.0], [0.0]) == []
    assert zero_crossings([0.0, 1.0, 2.0], [-1.0, np.nan, 1.0]) == [1.0]
    assert zero_crossings([0.0, 1.0], [0.5, 0.7]) == []


@given(
    # A slope that underflows to 0 would be a zero of its own.
    zero=st.floats(-5, 5, allow_subnormal=False),
    gradient=st.floats(0.01, 100),
    gammas=st.lists(st.floats(-6, 6, allow_subnormal=False), min_size=2, max_size=8, unique=True),
)
@settings(max_examples=50, deadline=None)
def test_the_zero_of_a_straight_line_is_exact(zero, gradient, gammas):
    slopes = [gradient * (gamma - zero) for gamma in gammas]
    found = zero_crossings(gammas, slopes)
    if min(gammas) <= zero <= max(gammas):
        assert len(found) == 1
        assert found[0] == pytest.approx(zero, abs=1e-9)
    else:
        assert found == []


def test_zero_line_goes_row_by_row():
    zeros = zero_line([0.5, 1.5, 0.5, 1.5, 1.0], [0.0, 0.0, 0.2, 0.2, 0.4], [-1, 1, -3, 1, 0])
    assert [(z.gamma, z.gamma_prime) for z in zeros] == [(1.0, 0.0), (1.25, 0.2)]
    plain = {"gamma": 1.0, "gamma_prime": 0.0, "layer": "input", "band": None}
    assert zeros[0].to_dict() == plain
