"""Scales, schemes and the predicted phase diagram."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowsim.errors import ConfigError
from flowsim.scaling import LAYERS, SCHEMES, Scaling, predicted_regime, predicted_slope

EXPONENTS = st.floats(-2.0, 3.0)


@pytest.mark.parametrize("width", [1, 7, 1000, 40000])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.75])
def test_exponents_are_exact(width, gamma):
    scaling = Scaling.from_exponents(width, gamma, -0.3)
    assert scaling.kappa == float(width) ** -gamma
    assert scaling.kappa_prime == float(width) ** 0.3


@given(st.integers(2, 10**6), EXPONENTS, EXPONENTS, st.floats(0.01, 100.0))
def test_definitions_and_round_trip(width, gamma, gamma_prime, beta2):
    scaling = Scaling(width, gamma, gamma_prime, beta2)
    alpha, beta1 = scaling.alpha, scaling.beta1
    assert beta1 * beta2 / alpha == pytest.approx(scaling.kappa, rel=1e-13)
    assert beta1 / beta2 == pytest.approx(scaling.kappa_prime, rel=1e-13)
    back = Scaling.from_standard_deviations(width, alpha, beta1, beta2)
    assert back.gamma == pytest.approx(gamma, abs=1e-11)
    assert back.gamma_prime == pytest.approx(gamma_prime, abs=1e-11)
    assert back.beta2 == beta2


M, D, BETA = 1000, 3, 0.2
TEXTBOOK = {
    # scheme: alpha, variance of a, variance of w
    "lecun": (1.0, 1 / M, 1 / D),
    "he": (1.0, 2 / M, 2 / D),
    "xavier": (1.0, 2 / (M + 1), 2 / (M + D)),
    "ntk": (math.sqrt(M), 1.0, 1.0),
    "mean-field": (M, 1.0, 1.0),
    "e": (1.0, BETA**2, 1.0),
}


def test_every_scheme_has_a_textbook_entry():
    assert set(TEXTBOOK) == set(SCHEMES)


@pytest.mark.parametrize("name", TEXTBOOK)
def test_schemes_have_textbook_standard_deviations(name):
    alpha, variance_a, variance_w = TEXTBOOK[name]
    scaling = Scaling.from_scheme(name, M, D, BETA if name == "e" else None)
    assert scaling.alpha == pytest.approx(alpha, rel=1e-12)
    assert scaling.beta1**2 == pytest.approx(variance_a, rel=1e-12)
    assert scaling.beta2**2 == pytest.approx(variance_w, rel=1e-12)


@pytest.mark.parametrize("name", [name for name in SCHEMES if name != "e"])
def test_positions_are_the_slopes_of_the_scales(name):
    small, large = (Scaling.from_scheme(name, m, D) for m in (10**6, 10**9))
    log_m = math.log(large.width / small.width)
    gamma = -math.log(large.kappa / small.kappa) / log_m
    gamma_prime = -math.log(large.kappa_prime / small.kappa_prime) / log_m
    assert (gamma, gamma_prime) == pytest.approx(SCHEMES[name].position, abs=1e-5)


def test_scheme_e_lies_on_the_diagonal():
    scaling = Scaling.from_scheme("e", M, D, BETA)
    assert scaling.gamma == pytest.approx(math.log(1 / BETA) / math.log(M), rel=1e-14)
    assert scaling.gamma_prime == pytest.approx(scaling.gamma, rel=1e-14)


def test_width_one_has_exponents_only_where_the_scales_are_one():
    assert Scaling.from_exponents(1, 0.7, 0.2).kappa == 1.0
    assert Scaling.from_scheme("ntk", 1, 2).gamma == 0.0
    assert Scaling.from_standard_deviations(1, 9.0, 3.0, 3.0).alpha == pytest.approx(9.0)
    with pytest.raises(ConfigError, match="width = 1: log m = 0.*at least 2"):
        Scaling.from_standard_deviations(1, 2.0, 1.0, 1.0)
    with pytest.raises(ConfigError, match="width = 1"):
        Scaling.from_scheme("he", 1, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Scaling(0, 1.0, 0.0), "width = 0: must be a whole number"),
        (lambda: Scaling(10, math.nan, 0.0), "gamma = nan: must be finite"),
        (lambda: Scaling(10, 1.0, math.inf), "gamma_prime = inf: must be finite"),
        (lambda: Scaling(10, 1.0, 0.0, -1.0), "beta2 = -1.0: must be finite and larger than 0"),
        (lambda: Scaling(10, 400.0, 0.0), "gamma = 400: kappa leaves the range"),
        (lambda: Scaling(10, -400.0, 0.0), "gamma = -400: kappa leaves the range"),
        (lambda: Scaling(10, 0.0, 0.0, 1e200), "beta2 = 1e\\+200: alpha leaves the range"),
        (lambda: Scaling.from_standard_deviations(10, -1.0, 1.0, 1.0), "alpha = -1.0: must be"),
        (lambda: Scaling.from_scheme("nkt", 10, 2), 'scheme = "nkt": unknown; choose from lecun'),
        (lambda: Scaling.from_scheme("e", 10, 2), "beta: missing; .* for example beta = 0.1"),
        (lambda: Scaling.from_scheme("ntk", 10, 2, 0.1), "beta = 0.1: .*; remove it"),
        (lambda: Scaling.from_scheme("ntk", 10, 0), "n_inputs = 0: must be at least 1"),
        (lambda: predicted_slope(1.0, 0.0, "hidden"), 'layer = "hidden": unknown; choose from'),
    ],
)
def test_errors_name_key_value_and_remedy(make, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make()
    assert all("\n" not in problem for problem in caught.value.problems)


def test_all_errors_at_once():
    with pytest.raises(ConfigError) as caught:
        Scaling(-3, math.nan, math.inf, 0.0)
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize(
    ("gamma", "gamma_prime", "slope"),
    [
        (0.5, 0.0, -0.5),
        (1.0, 0.0, 0.0),
        (1.75, 0.0, 0.375),
        (1.2, -0.4, 0.2),
        (1.8, -0.4, 0.6),
        (0.8, 0.3, -0.8),
        (1.2, 0.3, -0.2),
        (1.5, 0.3, 0.1),
    ],
)
def test_predicted_slopes_of_input_weights(gamma, gamma_prime, slope):
    assert predicted_slope(gamma, gamma_prime) == pytest.approx(slope)


@given(EXPONENTS, EXPONENTS)
def test_output_weights_mirror_input_weights_and_all_is_the_larger(gamma, gamma_prime):
    input_slope = predicted_slope(gamma, gamma_prime, "input")
    output_slope = predicted_slope(gamma, gamma_prime, "output")
    assert output_slope == predicted_slope(gamma, -gamma_prime, "input")
    assert predicted_slope(gamma, gamma_prime, "all") == max(input_slope, output_slope)


@given(EXPONENTS, EXPONENTS, st.sampled_from(LAYERS))
def test_slope_is_continuous(gamma, gamma_prime, layer):
    step = 1e-7
    here = predicted_slope(gamma, gamma_prime, layer)
    for shift in ((step, 0.0), (0.0, step)):
        there = predicted_slope(gamma + shift[0], gamma_prime + shift[1], layer)
        assert abs(there - here) <= 2.1 * step


@given(EXPONENTS, EXPONENTS)
def test_regimes_are_those_of_the_paper(gamma, gamma_prime):
    regime = predicted_regime(gamma, gamma_prime)
    margin = 1e-6
    if gamma < 1 - margin or gamma_prime > gamma - 1 + margin:
        assert regime == "linear"
    elif gamma > 1 + margin and gamma_prime < gamma - 1 - margin:
        assert regime == "condensed"


@pytest.mark.parametrize(
    ("gamma", "gamma_prime", "layer"),
    [(1.0, -0.4, "input"), (1.4, 0.4, "input"), (1.2, 0.2, "input"), (1.1, -0.1, "output"),
     (1.0, 0.3, "all"), (1.0, -0.3, "all")],
)  # fmt: skip
def test_critical_lines_survive_rounding(gamma, gamma_prime, layer):
    assert predicted_regime(gamma, gamma_prime, layer) == "critical"
