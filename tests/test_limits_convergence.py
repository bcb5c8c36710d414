"""Convergence to the limits: the measure itself, and the command."""

import json

import numpy as np
import pytest
from flows import PUBLISHED_X, PUBLISHED_Y

from flowsim.cli import main
from flowsim.errors import ConfigError
from flowsim.limits.convergence import converge

EXPERIMENT = {
    "network": {"width": 100, "antisymmetric": True},
    "scaling": {"gamma": 0.5, "gamma_prime": 0.0},
    "data": {"kind": "points", "x": PUBLISHED_X[:, :1].tolist(), "y": PUBLISHED_Y.tolist()},
    "integrate": {"threads": 1, "stop_loss": 1e-4},
}
GRID = np.linspace(-0.7, 0.7, 4)
CRITICAL = EXPERIMENT | {
    "scaling": {"gamma": 1.0, "gamma_prime": 0.0},
    "integrate": {"threads": 1, "stop_loss": 0.0, "t_max": 20.0},
}


def test_lazy_networks_approach_their_kernel_limit():
    found = converge(EXPERIMENT | {"integrate": {"method": "exponential", "stop_loss": 1e-4}},
                     [100, 1600], 6, inputs=GRID)  # fmt: skip
    assert (found.limit, len(found.rows)) == ("linear", 12)
    # -1/2, measured with a few networks at two widths.
    for name in ("function", "distribution"):
        assert -0.75 < found.rates[name].slope < -0.35


def test_critical_networks_approach_the_mean_field_limit():
    drawn = converge(CRITICAL, [100, 1600], 6, particles=10_000, inputs=GRID)
    assert drawn.limit == "mean-field"
    assert -0.9 < drawn.rates["function"].slope < -0.3
    assert -0.7 < drawn.rates["distribution"].slope < -0.3
    placed = converge(CRITICAL, [100, 1600], initial="quadrature", particles=10_000, inputs=GRID)
    typical = np.median([row.distances["function"] for row in drawn.rows if row.width == 1600])
    assert placed.rows[-1].distances["function"] < 0.2 * typical


def test_a_network_of_the_limit_itself_is_at_no_distance():
    found = converge(CRITICAL, [1000, 10_000], initial="quadrature", particles=10_000, inputs=GRID)
    assert found.rows[-1].distances == pytest.approx(
        {"function": 0.0, "distribution": 0.0, "relative_change": 0.0}, abs=1e-12
    )


@pytest.mark.parametrize(
    ("change", "options", "match"),
    [
        ({"scaling": {"gamma": 1.75, "gamma_prime": 0.0}}, {}, "condensed"),
        ({}, {"limit": "infinite"}, "choose from"),
        ({}, {"initial": "even"}, "choose from"),
        ({}, {"initial": "quadrature"}, "mean-field"),
        ({}, {"widths": [100]}, "two or more"),
        (
            {},
            {"limit": "mean-field", "initial": "quadrature", "particles": 20, "widths": [20, 40]},
            "particles for all",
        ),
        ({}, {"inputs": np.zeros((3, 2))}, "coordinates"),
        ({"network": {"kind": "deep", "width": 5}, "scaling": {"scheme": "ntk"}}, {}, "deep"),
    ],
)
def test_errors_name_the_key(change, options, match):
    with pytest.raises(ConfigError, match=match):
        converge(EXPERIMENT | change, **({"widths": [10, 20]} | options))


def test_the_command_prints_rates_and_writes_them(experiment_file, tmp_path, capsys):
    output = tmp_path / "converge.json"
    arguments = ["--widths", "20,80", "--seeds", "2", "--particles", "500", "-o", str(output)]
    assert main(["converge", str(experiment_file), *arguments]) == 0
    shown = capsys.readouterr().out
    assert "mean-field" in shown
    assert "sliced Wasserstein" in shown
    written = json.loads(output.read_text(encoding="utf-8"))
    assert len(written["rows"]) == 4
    assert written["rates"]["function"]["interval"][0] < written["rates"]["function"]["slope"]
    assert main(["converge", str(experiment_file), "--widths", "20;80"]) == 2
    assert "widths" in capsys.readouterr().err
