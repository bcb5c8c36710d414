import csv
import subprocess
import sys

import h5py
import numpy as np
import pytest
from synthetic_runs import make_sweep, put_together, write_run

from flowsim.analysis import FIGURES, classify, plot
from flowsim.analysis.figures import features, function, loss, phase, rd, style, theory
from flowsim.errors import ConfigError, FlowsimError
from flowsim.recording.reader import open_run, open_runs
from flowsim.scaling import predicted_regime


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return make_sweep(
        tmp_path_factory.mktemp("figures") / "sweep",
        gammas=[0.5, 1.0, 1.5],
        gamma_primes=[-0.3, 0.0, 0.3],
        widths=[100, 300],
        seeds=2,
    )


@pytest.fixture(scope="module")
def run_file(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("figures") / "run.h5", gamma=1.75)


def square(x):
    return x[:, 0] ** 2


def draw(kind, sweep, run_file, output, data=None, **options):
    source = sweep if FIGURES[kind].source == "sweep folder" else run_file
    if kind == "function":
        options["predict"] = square
    return plot(kind, source, output, data=data, **options)


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", FIGURES)
@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_every_figure_is_written_and_reproducible(kind, suffix, sweep, run_file, tmp_path):
    first = draw(kind, sweep, run_file, tmp_path / f"a{suffix}", data=tmp_path / "a.csv")
    second = draw(kind, sweep, run_file, tmp_path / f"b{suffix}", data=tmp_path / "b.csv")
    content = first.read_bytes()
    start = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix]
    assert content.startswith(start)
    assert content == second.read_bytes()
    assert b"CreationDate" not in content
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert read(tmp_path / "a.csv")
    # An existing figure is drawn anew.
    first.write_bytes(b"old")
    draw(kind, sweep, run_file, first)
    assert first.read_bytes() == content


def test_phase_table_holds_the_classification(sweep, tmp_path):
    draw("phase", sweep, None, tmp_path / "p.png", data=tmp_path / "p.csv")
    rows = read(tmp_path / "p.csv")
    result = classify(sweep)
    points = [row for row in rows if row["kind"] == "point"]
    assert [float(row["slope"]) for row in points] == [
        p.layers["input"].slope for p in result.points
    ]
    assert [row["regime"] for row in points] == [p.layers["input"].regime for p in result.points]
    zeros = [float(row["gamma"]) for row in rows if row["kind"] == "zero"]
    assert zeros == [zero.gamma for zero in result.zero_line]
    schemes = {row["name"]: float(row["gamma"]) for row in rows if row["kind"] == "scheme"}
    assert schemes["NTK"] == 0.5
    assert any("LeCun" in name and "He" in name for name in schemes)
    assert any("Xavier" in name and "mean field" in name for name in schemes)


@pytest.mark.parametrize("layer", ["input", "output", "all"])
def test_the_drawn_boundary_is_where_the_prediction_is_critical(layer):
    line = theory.boundary(layer, -0.5, 0.5)
    for start, end in zip(line[:-1], line[1:], strict=True):
        for share in (0.25, 0.5, 0.75):
            gamma, prime = start + share * (end - start)
            assert predicted_regime(gamma, prime, layer) == "critical"
            assert predicted_regime(gamma - 0.01, prime, layer) == "linear"
            assert predicted_regime(gamma + 0.01, prime, layer) == "condensed"


@pytest.mark.parametrize("layer", ["input", "output", "all"])
def test_labels_of_the_map_do_not_overlap(sweep, layer):
    figure = phase.make_phase_figure(classify(sweep), layer=layer)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 3
    for k, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:k])
        assert axes.get_window_extent().contains(box.x0, box.y0)
        assert axes.get_window_extent().contains(box.x1, box.y1)
    assert axes.get_xlabel() == r"$\gamma$"
    low, high = figure.axes[0].collections[0].get_clim()
    assert low == -high


def test_phase_of_scattered_points_and_of_one_row(tmp_path):
    for k, (gamma, prime) in enumerate([(0.5, 0.0), (1.3, 0.13), (0.9, 0.31), (1.6, -0.2)]):
        make_sweep(tmp_path / "odd" / str(k), gammas=[gamma], gamma_primes=[prime], seeds=1)
    make_sweep(tmp_path / "row", seeds=1)
    for name in ("odd", "row"):
        assert plot("phase", tmp_path / name, tmp_path / f"{name}.png").exists()
    figure = phase.make_phase_figure(classify(tmp_path / "odd"), schemes=False)
    assert not figure.axes[0].texts


def test_phase_without_any_slope_is_still_drawn(tmp_path):
    folder = make_sweep(tmp_path / "s", widths=[100])
    assert plot("phase", folder, tmp_path / "p.png").exists()


def test_phase_of_points_that_coincide_asks_which(tmp_path):
    for activation in ("relu", "tanh"):
        make_sweep(tmp_path / "s" / activation, overrides={"network.activation": activation})
    with pytest.raises(ConfigError, match="network.activation=tanh"):
        plot("phase", tmp_path / "s", tmp_path / "p.png")
    output = tmp_path / "p.png"
    plot("phase", tmp_path / "s", output, data=tmp_path / "p.csv", where="network.activation=tanh")
    assert len([row for row in read(tmp_path / "p.csv") if row["kind"] == "point"]) == 3
    with pytest.raises(ConfigError, match="selects no point"):
        plot("phase", tmp_path / "s", output, where="network.activation=elu")


def test_rd_table_and_legend(tmp_path):
    folder = make_sweep(tmp_path / "s", widths=[100, 300, 1000], seeds=3)
    figure = rd.make_rd_figure(classify(folder))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [label.split(",")[0] for label in labels] == [
        r"$\gamma$ = 1.75",
        r"$\gamma$ = 1",
        r"$\gamma$ = 0.5",
    ]
    rows = rd.rd_rows(classify(folder), layer="output")
    assert len(rows) == 9
    assert {row["layer"] for row in rows} == {"output"}
    assert all(0 < row["standard_deviation"] < row["relative_change"] for row in rows)
    assert all(row["line"] == pytest.approx(row["relative_change"], rel=0.1) for row in rows)


def test_rd_leaves_out_what_did_not_end(tmp_path):
    folder = make_sweep(tmp_path / "s", gammas=[1.0])
    write_run(folder / "late.h5", width=800, stop_reason="t_max: reached", seed=9)
    rows = rd.rd_rows(classify(folder))
    assert [row["relative_change"] is None for row in rows] == [False, False, False, True]
    assert plot("rd", folder, tmp_path / "rd.png").exists()
    with pytest.raises(ConfigError, match="no run reached"):
        plot("rd", folder / "late.h5", tmp_path / "rd.png")


@pytest.mark.parametrize(("time", "factor"), [("tau", 1.0), ("t", 1e4), ("t_bar", 1e4)])
def test_loss_in_three_times(time, factor, tmp_path):
    # At gamma = 2, gamma_prime = 0, m = 100: alpha = 1/kappa = 1e4.
    path = write_run(tmp_path / "run.h5", width=100, gamma=2.0)
    plot("loss", path, tmp_path / "l.png", data=tmp_path / "l.csv", time=time)
    rows = read(tmp_path / "l.csv")
    assert len(rows) == 40
    assert float(rows[-1][time]) == pytest.approx(100.0 * factor)
    assert float(rows[-1]["loss"]) == pytest.approx(0.97e-5)


def test_loss_of_several_runs_names_what_varies(tmp_path):
    paths = [write_run(tmp_path / f"{w}.h5", width=w, seed=w) for w in (100, 200)]
    runs = [open_run(path) for path in paths]
    try:
        curves = [loss.read_loss(str(run.path), run) for run in runs]
    finally:
        for run in runs:
            run.close()
    figure = loss.make_loss_figure(curves, scale="linear")
    legend = figure.axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["$m$ = 100", "$m$ = 200"]


def test_loss_with_a_schedule_of_its_own_and_without(tmp_path):
    path = write_run(tmp_path / "run.h5")
    with h5py.File(path, "a") as file:
        file.move("observables/loss", "series_loss/loss")
        file["series_loss/time"] = 2.0 * file["observables/time"][...]
    plot("loss", path, tmp_path / "l.png", data=tmp_path / "l.csv")
    assert float(read(tmp_path / "l.csv")[-1]["tau"]) == 200.0
    with h5py.File(path, "a") as file:
        del file["series_loss"]
    with pytest.raises(ConfigError, match="recorded no loss"):
        plot("loss", path, tmp_path / "l.png")


def test_skipped_files_are_warned_about(sweep, tmp_path):
    (tmp_path / "bad.h5").write_text("nothing")
    good = write_run(tmp_path / "good.h5")
    with pytest.warns(UserWarning, match="left out of the figure: .*bad.h5"):
        plot("loss", [good, tmp_path / "bad.h5"], tmp_path / "l.png")
    with pytest.raises(ConfigError, match="bad.h5"):
        plot("loss", tmp_path / "bad.h5", tmp_path / "l.png")


def test_orientation_is_the_angle_for_one_input():
    w = np.array([[1.0, 0.0, -1.0, 0.0, 3.0], [0.0, 2.0, 0.0, 0.0, -3.0]])
    a = np.array([2.0, -1.0, 1.0, 5.0, 1.0])
    found = features.features(a, w, angle=True)
    assert found.neuron.tolist() == [0, 1, 2, 4]
    assert found.orientation == pytest.approx([0.0, np.pi / 2, np.pi, -np.pi / 4])
    assert found.amplitude == pytest.approx([2.0, 2.0, 1.0, np.sqrt(18.0)])


def test_orientation_is_the_projection_for_several_inputs():
    w = np.array([[1.0, -2.0, 1.0], [1.0, -2.0, -1.0], [1.0, -2.0, 0.0]])
    found = features.features(np.ones((2, 3)), w, angle=False)
    assert found.orientation == pytest.approx([1.0, -1.0, 0.0])
    assert found.amplitude == pytest.approx(np.sqrt(2.0) * np.linalg.norm(w, axis=0))


def test_features_keep_at_most_the_neurons_asked_for(tmp_path):
    path = write_run(tmp_path / "wide.h5", width=1000, antisymmetric=True)
    with open_run(path) as run:
        states = features.read_features(run, max_neurons=300)
        assert features.is_angle(run)
    assert list(states) == ["initial", "final"]
    assert states["initial"].neuron.size <= 300
    assert states["initial"].neuron[-1] > 1900
    plot("features", path, tmp_path / "f.png", scale="log")


def test_figures_of_one_run_out_of_an_ensemble(sweep, tmp_path):
    (ensembles := tmp_path / "e").mkdir()
    file = put_together(sweep, ensembles / "e") / "runs" / "g1.0_p0.0_m100.h5"
    single = sweep / "runs" / "g1.0_p0.0_m100_s1.h5"
    for kind, options in (("features", {}), ("function", {"predict": square})):
        plot(kind, single, tmp_path / "a.png", data=tmp_path / "a.csv", **options)
        plot(kind, file, tmp_path / "b.png", data=tmp_path / "b.csv", member=1, **options)
        assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
        with open_runs(file) as runs:
            plot(kind, runs, tmp_path / "c.png", member=1, **options)
        assert (tmp_path / "b.png").read_bytes() == (tmp_path / "c.png").read_bytes()
        with pytest.raises(ConfigError, match=r"2 runs.*--set member=0"):
            plot(kind, file, tmp_path / "d.png", **options)
        with pytest.raises(ConfigError, match="member = 2: no such run; choose from 0 to 1"):
            plot(kind, file, tmp_path / "d.png", member=2, **options)


def test_features_without_snapshots_or_without_an_end(tmp_path):
    bare = write_run(tmp_path / "bare.h5", n_snapshots=0)
    killed = write_run(tmp_path / "killed.h5", final=False, status="running", stop_reason="")
    with open_run(bare) as run:
        assert list(features.read_features(run)) == ["final"]
    with open_run(killed) as run:
        assert list(features.read_features(run)) == ["initial", "final"]
    neither = write_run(tmp_path / "neither.h5", n_snapshots=0, final=False)
    for path in (bare, killed):
        assert plot("features", path, tmp_path / "f.png").exists()
    with pytest.raises(FlowsimError, match="no weights"):
        plot("features", neither, tmp_path / "f.png")


def test_several_inputs_use_the_projection(tmp_path):
    x = np.random.default_rng(0).normal(size=(4, 3)).tolist()
    path = write_run(tmp_path / "run.h5", x=x, y=[0.0, 1.0, 2.0, 3.0])
    plot("features", path, tmp_path / "f.png", data=tmp_path / "f.csv")
    assert all(abs(float(row["orientation"])) <= 1.0 for row in read(tmp_path / "f.csv"))
    with pytest.raises(ConfigError, match="3 inputs"):
        plot("function", path, tmp_path / "g.png", predict=square)


def test_function_goes_through_predict(run_file):
    with open_run(run_file) as run:
        rows = function.function_rows(run, square, points=11)
        assert len(function.make_function_figure(run, square).axes) == 1
    samples = [(row["x"], row["value"]) for row in rows if row["kind"] == "sample"]
    curve = {row["x"]: row["value"] for row in rows if row["kind"] == "function"}
    assert samples[0] == (-0.5, 0.25)
    assert all(value == pytest.approx(x**2) for x, value in curve.items())
    assert all(x in curve for x, _ in samples)
    assert min(curve) < -0.5 and max(curve) > 0.5


def test_function_of_several_outputs_and_of_one_sample(tmp_path):
    path = write_run(tmp_path / "run.h5", x=[[0.3]], y=[1.0], bias=False)
    with open_run(path) as run:
        rows = function.function_rows(run, np.cos)
        assert function.make_function_figure(run, np.cos).axes
    assert min(row["x"] for row in rows) == pytest.approx(-0.7)


def test_function_without_a_way_to_predict_says_what_to_do(tmp_path):
    path = write_run(tmp_path / "run.h5")
    with pytest.raises(ConfigError, match="flowsim.open"):
        plot("function", path, tmp_path / "f.png")
    # What flowsim.open gives brings its own.
    with open_run(path) as run:
        run.predict = square
        assert plot("function", run, tmp_path / "f.png").exists()


@pytest.mark.parametrize(
    ("kind", "name", "options", "words"),
    [
        ("fase", "a.png", {}, ["kind", "'fase'", "'phase'"]),
        ("rd", "a.jpg", {}, ["output", "'.jpg'", ".pdf"]),
        ("rd", "a", {}, ["output", ".png"]),
        ("rd", "a.png", {"layr": "input"}, ["layr", "'input'", "'layer'"]),
        ("rd", "a.png", {"layer": "bias"}, ["layer", "'bias'", "output"]),
        ("phase", "a.png", {"layer": "bias"}, ["layer", "'bias'", "output"]),
        ("loss", "a.png", {"time": "s"}, ["time", "'s'", "t_bar"]),
        ("loss", "a.png", {"scale": "cubic"}, ["scale", "'cubic'", "linear"]),
        ("features", "a.png", {"scale": "cubic"}, ["scale", "'cubic'", "linear"]),
        ("features", "a.png", {"max_neurons": 0}, ["max_neurons", "0", "1"]),
        ("features", "a.png", {}, ["path", "36 files", "one run file"]),
    ],
)
def test_bad_requests_name_key_value_and_remedy(kind, name, options, words, sweep, tmp_path):
    with pytest.raises(ConfigError) as caught:
        plot(kind, sweep, tmp_path / name, **options)
    assert len(caught.value.problems) == 1
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words)
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written_are_told_before_the_work(tmp_path, run_file):
    (tmp_path / "folder.png").mkdir()
    for output in (tmp_path / "no" / "a.png", tmp_path / "folder.png"):
        with pytest.raises(FlowsimError) as caught:
            plot("loss", run_file, output)
        assert str(output) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(FlowsimError, match="does not exist"):
        plot("loss", run_file, tmp_path / "a.png", data=tmp_path / "no" / "a.csv")
    assert not (tmp_path / "a.png").exists()


def test_a_failing_write_is_one_line(tmp_path, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(FlowsimError, match="No space left"):
        style.write_csv([{"a": 1}], tmp_path / "a.csv")


def test_the_users_matplotlib_settings_survive(run_file, tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    plot("loss", run_file, tmp_path / "a.png")
    assert dict(matplotlib.rcParams) == before


def test_numbers_are_written_as_people_write_them():
    assert style.number(-0.4) == "\N{MINUS SIGN}0.4"
    assert style.number(1e-5) == "$10^{-5}$"
    assert style.number(2.5e-7) == r"$2.5 \times 10^{-7}$"
    assert style.signed(-0.001) == "0.00"
    assert style.signed(-0.5) == "\N{MINUS SIGN}0.50"


def test_asking_for_a_slope_loads_no_plotting():
    code = (
        "import sys, flowsim.analysis, flowsim.analysis.figures; "
        "from flowsim.analysis import FIGURES, fit_slope, plot; "
        "sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
