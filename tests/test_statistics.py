"""Statistics of sweeps: curvature, confidence, bands of the zero line, published tables."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats
from synthetic_runs import make_sweep

from flowsim.analysis import classify, compare, fit_slope
from flowsim.analysis.comparison import read_table
from flowsim.analysis.curvature import curvature_of, local_slopes
from flowsim.analysis.zero_line import zero_line
from flowsim.cli import main
from flowsim.errors import ConfigError

WIDTHS = np.array([1000, 2000, 4000, 8000, 16000])


def test_local_slopes_are_those_between_consecutive_widths():
    width = np.repeat([100, 200, 800], 2)
    change = np.array([1.0, 1.0, 2.0, 8.0, 4.0, 4.0])
    fit = fit_slope(width, change)
    assert fit.local_slopes == pytest.approx((2.0, 0.0))
    assert local_slopes(np.log(width), np.log(change)) == fit.local_slopes


def test_curvature_is_that_of_the_parabola():
    """Against numpy's fit, and the textbook's error of its coefficient."""
    generator = np.random.default_rng(1)
    x = np.log(WIDTHS)
    y = 0.3 * x + 0.05 * (x - 8.0) ** 2 + 0.02 * generator.standard_normal(x.size)
    bend = curvature_of(x, y, 0.9)
    (second, first, _), covariance = np.polyfit(x, y, 2, cov=True)
    decade = np.log(10.0)
    assert bend.change == pytest.approx(2 * second * decade)
    assert bend.last_slope == pytest.approx(first + 2 * second * x[-1])
    reach = stats.t.ppf(0.95, 2) * np.sqrt(covariance[0, 0]) * 2 * decade
    assert bend.interval == pytest.approx((bend.change - reach, bend.change + reach))
    assert curvature_of(x[:2], y[:2], 0.9) is None
    assert curvature_of(x[:3], y[:3], 0.9).interval is None


@pytest.mark.parametrize("seeds", [1, 3])
def test_straight_lines_are_called_bent_as_often_as_promised(seeds):
    generator = np.random.default_rng(seeds)
    x = np.log(np.repeat(WIDTHS, seeds))
    bent = sum(
        curvature_of(x, 0.2 * x + 0.1 * generator.standard_normal(x.size), 0.9).is_significant
        for _ in range(400)
    )
    assert 40 - 18 <= bent <= 40 + 18, "a tenth, within three standard deviations"


def test_probabilities_are_students(tmp_path):
    generator = np.random.default_rng(3)
    change = WIDTHS**0.1 * np.exp(0.05 * generator.standard_normal(5))
    fit = fit_slope(WIDTHS, change)
    line = stats.linregress(np.log(WIDTHS), np.log(change))
    above = stats.t.sf((0.05 - line.slope) / line.stderr, 3)
    assert fit.probability(0.05, np.inf) == pytest.approx(above)
    assert fit.probability(-np.inf, np.inf) == pytest.approx(1.0)
    exact = fit_slope(np.repeat([100, 200], 2), np.repeat([1.0, 1.0], 2))
    assert (exact.probability(-0.05, 0.05), exact.probability(0.05, 1.0)) == (1.0, 0.0)
    assert np.isnan(fit_slope([100, 200], [1.0, 2.0]).probability(-1, 1))


def test_a_slope_that_is_not_the_asymptotic_one_decides_nothing():
    from flowsim.analysis.regimes import _regime

    generator = np.random.default_rng(5)
    width = np.repeat(WIDTHS, 3)
    x = np.log(width / 1000.0)
    noise = 0.002 * generator.standard_normal(x.size)
    straight = fit_slope(width, np.exp(0.15 * x + noise))
    bent = fit_slope(width, np.exp(0.2 * x - 0.02 * x**2 + noise))
    assert _regime(straight, 0.1)[0] == "condensed"
    assert _regime(bent, 0.05)[0] == "condensed", "bent, but not so much that it matters"
    regime, reason = _regime(bent, 0.1)
    assert bent.curvature.is_significant and regime == "undetermined"
    assert "not the asymptotic one" in reason and "larger widths" in reason


def test_the_band_of_a_zero_covers_as_promised():
    """The zero of two measured slopes lies in its band as often as the slopes in theirs."""
    generator = np.random.default_rng(4)
    gammas, true, error = [0.9, 1.1], np.array([-0.08, 0.12]), 0.01
    reach = [stats.norm.ppf(0.95) * error] * 2
    hits = 0
    for _ in range(400):
        slopes = true + error * generator.standard_normal(2)
        (zero,) = zero_line(gammas, [0.0, 0.0], slopes, reach=reach)
        low, high = zero.band
        hits += low <= 0.98 <= high
    assert 360 - 18 <= hits <= 360 + 18, "0.9, within three standard deviations"
    assert zero_line(gammas, [0.0, 0.0], true, reach=[0.1, None])[0].band is None


# --- tables ------------------------------------------------------------------------------------


@pytest.fixture
def sweep(tmp_path):
    return make_sweep(tmp_path / "sweep", gammas=[0.5, 1.75], widths=[100, 400], seeds=2)


def test_slopes_are_compared_with_a_table(sweep, tmp_path, capsys):
    result = classify(sweep)
    points = [p for p in result.points if p.layers["input"].slope is not None]
    first, second = points[:2]
    table = tmp_path / "table.csv"
    rows = [
        ("slope", "gamma", "layer", "gamma_prime", "note"),
        (first.layers["input"].slope + 0.03, first.gamma, "input", first.gamma_prime, "x"),
        (second.layers["output"].slope - 0.04, second.gamma, "output", second.gamma_prime, ""),
        (0.5, 77.0, "input", 0.0, "nowhere"),
    ]
    text = "\n".join(",".join(map(str, row)) for row in rows)
    table.write_text(f"# a comment\n\n{text}\n")
    found = compare(result, table)
    assert (len(found.rows), found.missing) == (2, 1)
    assert found.largest.difference == pytest.approx(0.04)
    assert found.rms == pytest.approx(np.sqrt((0.03**2 + 0.04**2) / 2))
    theory = [first.layers["input"], second.layers["output"]]
    away = [v.slope - v.predicted_slope for v in theory]
    assert found.rms_to_theory == pytest.approx(np.sqrt(np.mean(np.square(away))))
    assert main(["compare", str(sweep), str(table), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found.to_dict()
    assert main(["compare", str(sweep), str(table)]) == 0
    assert "largest difference 0.0400" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must name gamma"),
        ("gamma,slope\n1,2\n", "must name gamma"),
        ("gamma,gamma_prime,slope\n", "no line below"),
        ("gamma,gamma_prime,slope\n1,0,x\n1,,2\n", "line 2: slope = 'x'"),
        ("gamma,gamma_prime,slope\n1,0,inf\n", "finite"),
        ("gamma,gamma_prime,slope\n1\n", "line 2: slope = ''"),
        ("\0\1", "first line must name"),
        (b"\xff\xfe", "not text"),
        (None, "cannot be read"),
    ],
)
def test_tables_that_are_none_are_refused(tmp_path, text, words):
    table = tmp_path / "table.csv"
    if text is not None:
        table.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=words) as caught:
        read_table(table)
    assert all("\n" not in problem and str(table) in problem for problem in caught.value.problems)


def test_a_table_of_other_points_is_refused(sweep, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("gamma,gamma_prime,slope\n55,0,1\n")
    with pytest.raises(ConfigError, match="at none of its 1 points"):
        compare(classify(sweep), table)
