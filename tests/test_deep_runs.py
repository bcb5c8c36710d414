"""Deep networks through everything that two-layer networks go through: files, resume, sweeps."""

import json

import numpy as np
import pytest
from comparing import assert_same

import flowsim as fs
from flowsim.analysis import plot
from flowsim.cli import main
from flowsim.errors import ConfigError

X = np.array([-0.5, -1 / 6, 1 / 6, 0.5])
Y = X**2
EAGER = {"flush": {"seconds": 0.0}, "checkpoint": {"seconds": 0.0}}
CLOCK = (("created",), ("wall_seconds",))


def simulate(network=(), scaling=None, integrate=(), x=X, y=Y, **options):
    return fs.simulate(
        network={"kind": "deep", "width": 30, **dict(network)},
        scaling=scaling or {"gamma_3": 1.5},
        integrate={"threads": 1, "stop_loss": 1e-4, **dict(integrate)},
        x=x,
        y=y,
        **options,
    )


@pytest.mark.parametrize("antisymmetric", [False, True])
def test_a_run_and_its_file(antisymmetric, tmp_path):
    network = {
        "hidden_layers": 3, "relative_widths": [1.0, 0.5, 2.0], "biases": True,
        "antisymmetric": antisymmetric, "activation": "tanh",
    }  # fmt: skip
    path = tmp_path / "run.h5"
    scaling = {"scheme": "ntk"}
    simulate(network, scaling, record={"kernel": {"schedule": "log"}}, output=path)
    with fs.open(path) as run:
        assert (run.status, run.state, run.verify()) == ("complete", "complete", [])
        assert run.layers == ("input", "hidden_2", "hidden_3", "output", "all")
        assert set(run.relative_change) == set(run.layers)
        assert run.final.shape("hidden_weights_3") == (15, 60)
        assert run.final.shape("hidden_biases_2") == (15,)
        assert run.final.shape("output_biases") == ()
        assert ("second_input_weights" in run.final) == antisymmetric
        rd = run.observables["relative_change"]
        assert rd.shape == (len(run.time), 5)
        np.testing.assert_array_equal(rd[-1], run.final["relative_change"])
        assert np.all(run.final["operator_change"][[0, 1, 2, 3]] > 0.0)
        np.testing.assert_allclose(run.predict(X) - Y, run.final["residual"], atol=1e-12)
        start = run.predict(X, t=0.0) - Y  # snapshots are float32
        np.testing.assert_allclose(start, run.observables["residual"][0], atol=1e-5)
        assert run.kernel["distance"][0] == 0.0 < run.kernel["distance"][-1]
        assert np.isnan(run.observables["balance_drift"]).all()
        with pytest.raises(ConfigError, match=r"^weights: .*parameters$"):
            run.weights()
    again = simulate(network, scaling, initial=path, integrate={"max_steps": 1, "stop_loss": 0})
    np.testing.assert_allclose(
        again.observables["residual"][0], fs.open(path).final["residual"], atol=1e-12
    )


@pytest.mark.parametrize(
    ("method", "passes"),
    [
        *(("heun", "dense"), ("heun", "factored"), ("tsit54", "dense"), ("tsit54", "factored")),
        *(("euler", "factored"), ("gradient-descent", "factored"), ("rdpk35", "auto")),
        ("rkc2", "auto"),
        *(("ros34pw2", "dense"), ("ros34pw2", "factored"), ("exponential", "dense")),
        *(("exponential", "factored"), ("implicit-euler", "factored")),
    ],
)
def test_a_run_goes_on_to_the_same_bits(method, passes, tmp_path):
    smooth = ("tsit54", "rdpk35", "rkc2", "ros34pw2")
    network = {"activation": "tanh" if method in smooth else "relu"}
    options = {"method": method, "stop_loss": 0.0, "passes": passes}
    whole, output = tmp_path / "whole.h5", tmp_path / "run.h5"
    simulate(network, integrate={**options, "max_steps": 40}, output=whole)
    for steps in (9, 23, 40):
        simulate(
            network, integrate={**options, "max_steps": steps}, output=output, record=dict(EAGER)
        )
    eager = tmp_path / "eager.h5"
    simulate(network, integrate={**options, "max_steps": 40}, output=eager, record=dict(EAGER))
    with fs.open(whole) as one, fs.open(output) as two, fs.open(eager) as three:
        assert_same(three, two, *CLOCK)
        assert one.final["residual"].tobytes() == two.final["residual"].tobytes()
        weights = [run.final["hidden_weights_2"].tobytes() for run in (one, two)]
        assert weights[0] == weights[1]


@pytest.mark.parametrize("passes", ["dense", "factored"])
@pytest.mark.parametrize(("scheme", "method"), [("ip-llr", "heun"), ("hpz", "tsit54")])
def test_a_first_step_of_its_own_is_taken_once(scheme, method, passes, tmp_path, capsys):
    """Recorded, and not again when the run goes on from behind it, or from before it."""
    network, output = {"activation": "gelu", "width": 80}, tmp_path / "run.h5"
    scaling = {"scheme": scheme, "first_step": 0.5, "calibrate": True}
    options = {"method": method, "stop_loss": 0.0, "passes": passes}
    record = {"observables": {"schedule": "linear", "every": 0.25}}
    whole = simulate(network, scaling, {**options, "max_steps": 12}, record=record)
    for steps in (1, 2, 12):
        simulate(
            network, scaling, {**options, "max_steps": steps}, output=output, record=EAGER | record
        )
    with fs.open(output) as run:
        assert run.final["hidden_weights_2"].tobytes() == whole.final["hidden_weights_2"].tobytes()
        about = json.loads(run.attributes["first_step"])
        assert about["kept"][1] == (1.0 if scheme == "ip-llr" else 0.0)
        assert len(about["mobilities"]) == 3 and max(about["learning_rates"]) <= 500.0
        residual = run.observables["residual"]
        assert run.time[2] == 0.5
        for name in ("residual", "step"):
            np.testing.assert_array_equal(
                run.observables[name], whole.observables[name][: len(run.time)]
            )
        assert np.all(residual[1] != residual[0])
        counts = run.observables["n_rhs"]
        np.testing.assert_array_equal(counts, whole.observables["n_rhs"])
    assert main(["info", str(output)]) == 0
    assert '"learning_rates": [' in capsys.readouterr().out


@pytest.mark.parametrize(("method", "activation"), [("heun", "relu"), ("tsit54", "gelu")])
def test_factors_are_the_same_flow(method, activation):
    network = {"width": 60, "hidden_layers": 3, "activation": activation, "biases": True}
    runs = [
        simulate(network, {"scheme": "mup"}, integrate={"method": method, "passes": passes})
        for passes in ("dense", "factored")
    ]
    for name in ("time", "n_steps", "relative_change", "operator_change", "hidden_weights_2"):
        np.testing.assert_allclose(runs[1].final[name], runs[0].final[name], rtol=1e-5, atol=1e-9)
    counts = [run.observables["n_rhs"][-1] for run in runs]
    assert counts[0] == counts[1]


def test_runs_are_the_same_whenever_and_with_however_many_threads():
    first = simulate({"width": 300}, integrate={"max_steps": 12})
    for threads in (1, 2):
        again = simulate({"width": 300}, integrate={"max_steps": 12, "threads": threads})
        for name in first.final:
            assert first.final[name].tobytes() == again.final[name].tobytes(), name


def test_methods_come_to_the_same_end():
    network = {"activation": "gelu", "biases": True}
    runs = [
        simulate(network, integrate={"method": method, "rtol": 1e-6, "t_max": 3.0, "stop_loss": 0})
        for method in ("tsit54", "dop853", "bs32", "rdpk35", "heun")
    ]
    for run in runs[1:]:
        for layer, change in runs[0].relative_change.items():
            assert run.relative_change[layer] == pytest.approx(change, rel=2e-5), layer


def test_a_frozen_layer_stays_where_it_is():
    run = simulate({"mobility": {"hidden_2": 0.0}, "biases": True}, integrate={"max_steps": 20})
    assert run.relative_change["hidden_2"] == 0.0 < run.relative_change["input"]


def test_estimated_errors_have_the_networks_layers(tmp_path):
    path = tmp_path / "run.h5"
    simulate(integrate={"estimate_error": True}, output=path, record=dict(EAGER))
    with fs.open(path) as run:
        assert run.final["error_relative_change"].shape == (4,)
        assert np.all(run.final["error_relative_change"] < 0.02)


def test_sweeps_are_classified_by_the_operator_norm(tmp_path):
    result = fs.sweep(
        {"network": {"kind": "deep", "width": 20}, "integrate": {"threads": 1, "stop_loss": 1e-4}},
        tmp_path / "sweep",
        grid={
            "scaling.gamma_3": [1.0, 2.0], "scaling.gamma_2": [0.0, 0.5],
            "network.width": [20, 60], "seeds": 2,
        },
        x=X,
        y=Y,
    )  # fmt: skip
    assert not result.failed
    found = fs.classify(tmp_path / "sweep")
    assert [(point.gamma, point.gamma_prime) for point in found.points] == [
        (1.0, 0.0), (2.0, 0.0), (1.0, 0.5), (2.0, 0.5)
    ]  # fmt: skip
    names = ["input", "hidden_2", "hidden_2_frobenius", "output", "all"]
    for point in found.points:
        assert list(point.layers) == names
        plain = point.to_dict()
        assert plain["gamma_3"] == point.gamma and plain["gamma_2"] == point.gamma_prime
        gap = point.layers["hidden_2"].slope - point.layers["hidden_2_frobenius"].slope
        assert gap == pytest.approx(0.5, abs=0.25)
        assert point.layers["hidden_2"].predicted_slope == pytest.approx(
            point.layers["hidden_2_frobenius"].predicted_slope + 0.5
        )
    slopes = [point.layers["hidden_2"].slope for point in found.points]
    assert max(slopes[0], slopes[2]) < -0.2 and min(slopes[1], slopes[3]) > 0.1
    for kind, layer in (("phase", "hidden_2"), ("rd", "hidden_2_frobenius"), ("phase", "all")):
        assert plot(kind, tmp_path / "sweep", tmp_path / "figure.png", layer=layer).stat().st_size
    with pytest.raises(ConfigError, match=r"^layer = 'hidden_3': .*hidden_2_frobenius"):
        plot("rd", tmp_path / "sweep", tmp_path / "figure.png", layer="hidden_3")


def test_the_commands_know_deep_networks(tmp_path, capsys):
    file, run = tmp_path / "deep.toml", tmp_path / "run.h5"
    file.write_text(
        '[network]\nkind = "deep"\nwidth = 20\n[scaling]\nscheme = "mup"\n[data]\n'
        'kind = "points"\nx = [[-0.5], [0.5]]\ny = [0.25, 0.5]\n[integrate]\nthreads = 1\n'
    )
    assert main(["run", str(file), "-o", str(run)]) == 0
    assert "hidden_2" in capsys.readouterr().out
    assert main(["info", str(run)]) == 0
    text = capsys.readouterr().out
    for word in ("deep", "in operator norm", "gamma_3 = 1.5", "mobilities", "checksums match"):
        assert word in text
    assert main(["classify", "--json", str(run)]) == 0
    point = json.loads(capsys.readouterr().out)["points"][0]
    assert (point["gamma_3"], point["gamma_2"]) == (1.5, 0.0)
    assert main(["export", str(run), "--to", "csv"]) == 0
    header = run.with_suffix(".csv").read_text().partition("\n")[0].split(",")
    assert {"relative_change_hidden_2", "norm_all"} <= set(header)
    assert main(["export", str(run), "--to", "h5md"]) == 2
    assert "export it to npz or csv" in capsys.readouterr().err
    for kind in ("loss", "function"):
        assert main(["plot", kind, str(run), "-o", str(tmp_path / "figure.png"), "-q"]) == 0
    assert main(["plot", "features", str(run), "-o", str(tmp_path / "figure.png")]) == 2
    assert "two-layer run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("network", "scaling", "message"),
    [
        ({"hidden_layers": 3}, {"gamma_3": 1.5}, "scaling.gamma_3 = 1.5: is for .* abc_a"),
        ({}, {"gamma_3": 1.0, "gamma": 1.0}, "scaling.gamma = 1.0: unknown key; did you mean"),
        ({}, {"gamma_3": 1.0, "scheme": "ip"}, "scaling: has both gamma_3 = 1.0 and scheme"),
        ({}, {"scheme": "lecun"}, 'scaling.scheme = "lecun": unknown; choose from "sp"'),
        ({}, {"scheme": "mean-field"}, 'scaling.scheme = "mean-field": is for 1 hidden layer'),
        (
            {},
            {"abc_a": [0.0], "abc_b": [0.0] * 3, "abc_c": [0.0] * 3},
            r"scaling.abc_a = \[0.0\]: has 1 entries; give 3",
        ),
        ({}, {"scheme": "ip-bias"}, 'scaling.scheme = "ip-bias": needs network.biases = true'),
        ({}, {"scheme": "mup", "first_step": 0.1}, "scaling.first_step = .* no first step of its"),
        (
            {},
            {"scheme": "ip", "calibrate": True},
            "scaling.calibrate = .* no first step of",
        ),
        ({"relative_widths": [1.0]}, {"gamma_3": 1.5}, "network.relative_widths = .* give one for"),
        ({"mobility": {"hidden": 1.0}}, {"gamma_3": 1.5}, "network.mobility = .* unknown; choose"),
        ({"kind": "two-layer"}, {"gamma": 1.0}, "scaling.gamma_prime: missing"),
        ({}, {"gamma_3": 1e4}, "scaling.*leave the range of float64"),
    ],
)
def test_mistakes_are_one_line_each(network, scaling, message):
    with pytest.raises(ConfigError, match=f"^{message}") as error:
        simulate(network, scaling)
    assert "\n" not in str(error.value)


def test_the_end_lies_behind_the_first_step():
    with pytest.raises(ConfigError, match=r"^integrate.t_max = 0.5: .*first_step = 1 long"):
        simulate({}, {"scheme": "ip-llr"}, {"t_max": 0.5})


@pytest.mark.parametrize(
    ("network", "integrate", "message"),
    [
        ({}, {"passes": "matrix"}, "not for a deep network; choose from auto, dense, factored"),
        ({}, {"passes": "factored", "method": "rdpk35"}, 'needs dense rates; set passes = "dense"'),
        ({"hidden_layers": 1}, {"passes": "factored"}, "needs network.hidden_layers of at least 2"),
        ({}, {"passes": "factored", "backend": "reference"}, 'is for backend = "cpu"'),
    ],
)
def test_passes_that_do_not_fit_are_refused(network, integrate, message):
    with pytest.raises(ConfigError, match=f"^integrate.passes = .*{message}"):
        simulate(network, {"scheme": "mup"}, integrate)
