import contextlib
import json
import shutil

import h5py
import numpy as np
import pytest
from synthetic_runs import make_sweep, put_together, write_run

from flowsim.analysis import classify
from flowsim.analysis.collect import find_runs
from flowsim.errors import ConfigError, FlowsimError
from flowsim.recording.reader import open_run, open_runs
from flowsim.scaling import LAYERS, predicted_regime, predicted_slope


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return make_sweep(tmp_path_factory.mktemp("regimes") / "sweep", scatter=0.01)


def points_by_gamma(classification):
    return {point.gamma: point for point in classification.points}


def test_the_three_regimes_are_told_apart(sweep):
    result = classify(sweep)
    points = points_by_gamma(result)
    assert list(points) == [0.5, 1.0, 1.75]
    for gamma, regime in ((0.5, "linear"), (1.0, "critical"), (1.75, "condensed")):
        point = points[gamma]
        assert point.widths == (100, 200, 400)
        assert (point.seeds, point.runs_per_width) == (3, (3, 3, 3))
        for layer in LAYERS:
            verdict = point.layers[layer]
            assert verdict.regime == regime == verdict.predicted_regime
            assert verdict.slope == pytest.approx(verdict.predicted_slope, abs=0.03)
            assert verdict.ci[0] < verdict.slope < verdict.ci[1]
            assert len(verdict.relative_change) == 3
            assert verdict.sup_relative_change[0] == pytest.approx(1.1 * verdict.relative_change[0])
    assert result.skipped == {}


def test_the_zero_line_is_interpolated(sweep):
    (zero,) = classify(sweep).zero_line
    assert (zero.layer, zero.gamma_prime) == ("input", 0.0)
    assert zero.gamma == pytest.approx(1.0, abs=0.05)


def test_the_dictionary_is_the_json_that_was_promised(sweep):
    plain = classify(sweep).to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert set(plain) >= {"points", "zero_line"}
    point = plain["points"][0]
    assert set(point) >= {"gamma", "gamma_prime", "widths", "seeds", "layers"}
    assert set(point["layers"]) == {"input", "output", "all"}
    keys = {"slope", "ci", "regime", "predicted_regime", "relative_change"}
    assert all(set(verdict) >= keys for verdict in point["layers"].values())
    assert plain["zero_line"][0]["layer"] == "input"
    assert set(plain["zero_line"][0]) == {"gamma", "gamma_prime", "layer", "band"}


def test_folder_paths_and_open_runs_give_the_same(sweep):
    paths = sorted((sweep / "runs").glob("*.h5"))
    expected = classify(sweep)
    assert classify([str(path) for path in paths]).points == expected.points
    runs = [open_run(path) for path in reversed(paths)]
    try:
        assert classify(runs).points == expected.points
    finally:
        for run in runs:
            run.close()


def test_ensembles_and_single_runs_give_the_same(sweep, tmp_path):
    ensembles = put_together(sweep, tmp_path / "ensembles")
    result = classify(ensembles)
    assert result.to_dict() == classify(sweep).to_dict()
    files = sorted((ensembles / "runs").glob("*.h5"))
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_runs(file)) for file in files]
        assert classify(opened).to_dict() == result.to_dict()


def test_runs_of_an_ensemble_are_named_by_their_position(tmp_path):
    sweep = make_sweep(tmp_path / "s", gammas=[1.0], widths=[100, 200], stop_reason="t_max: 1")
    ensembles = put_together(sweep, tmp_path / "e")
    (point,) = classify(ensembles).points
    assert point.not_converged[:2] == ("runs/g1.0_p0.0_m100.h5[0]", "runs/g1.0_p0.0_m100.h5[1]")
    assert len(point.not_converged) == 6
    with open_runs(ensembles / "runs" / "g1.0_p0.0_m100.h5") as runs:
        assert classify(runs).points[0].not_converged[2].endswith("m100.h5[2]")


def test_nothing_but_damaged_files(tmp_path):
    (tmp_path / "a.h5").write_text("no run")
    with pytest.raises(FlowsimError, match=r"a\.h5: not a run file"):
        classify(tmp_path)


def test_runs_in_memory_have_names_of_their_own(tmp_path):
    images = []
    for m in (100, 200):
        path = write_run(tmp_path / f"{m}.h5", width=m, stop_reason="t_max: 1", seed=m)
        with open_run(path) as run:
            images.append(run.contents())
    (point,) = classify([open_run(contents) for contents in images]).points
    assert point.not_converged == ("run 0", "run 1")


def test_prediction_is_that_of_the_scaling(tmp_path):
    folder = make_sweep(tmp_path / "s", gammas=[1.2], gamma_primes=[-0.3, 0.1], seeds=2)
    for point in classify(folder).points:
        for layer, verdict in point.layers.items():
            at = (point.gamma, point.gamma_prime, layer)
            assert verdict.predicted_slope == predicted_slope(*at)
            assert verdict.predicted_regime == predicted_regime(*at)


@pytest.mark.parametrize(
    ("slope", "scatter", "regime"),
    [(0.3, 0.01, "condensed"), (-0.3, 0.01, "linear"), (0.0, 0.005, "critical")],
)
def test_the_margin_decides(tmp_path, slope, scatter, regime):
    folder = make_sweep(
        tmp_path / "s", gammas=[1.0], slope=lambda g, p, layer: slope, scatter=scatter
    )
    assert classify(folder).points[0].layers["input"].regime == regime
    assert classify(folder, margin=1.0).points[0].layers["input"].regime == "critical"
    undecided = classify(folder, margin=abs(slope)).points[0].layers["input"]
    assert undecided.regime == "undetermined"
    assert "seeds" in undecided.reason and "contains" in undecided.reason


def test_one_width_is_undetermined(tmp_path):
    folder = make_sweep(tmp_path / "s", gammas=[1.0], widths=[100])
    point = classify(folder).points[0]
    verdict = point.layers["input"]
    assert (verdict.regime, verdict.slope, verdict.ci) == ("undetermined", None, None)
    assert "m = 100" in verdict.reason
    assert verdict.relative_change[0] == pytest.approx(0.3, rel=0.1)
    json.dumps(point.to_dict(), allow_nan=False)


def test_two_runs_have_no_interval(tmp_path):
    folder = make_sweep(tmp_path / "s", gammas=[1.75], widths=[100, 400], seeds=1)
    verdict = classify(folder).points[0].layers["input"]
    assert verdict.slope == pytest.approx(0.375, abs=0.1)
    assert (verdict.regime, verdict.ci) == ("undetermined", None)
    assert "seed" in verdict.reason


def test_one_seed_a_width_uses_least_squares(tmp_path):
    folder = make_sweep(tmp_path / "s", gammas=[1.75], seeds=1, scatter=1e-3)
    verdict = classify(folder).points[0].layers["input"]
    assert verdict.fit.method == "student-t"
    assert verdict.regime == "condensed"


@pytest.mark.parametrize("ending", ["t_max: reached 1e4", "max_steps: 100", ""])
def test_runs_that_did_not_end_are_named(tmp_path, ending):
    folder = make_sweep(tmp_path / "s", gammas=[0.5, 1.75])
    write_run(
        folder / "runs" / "late.h5",
        width=400,
        gamma=1.75,
        seed=17,
        stop_reason=ending,
        status="complete" if ending else "running",
        final=bool(ending),
    )
    result = classify(folder)
    point = points_by_gamma(result)[1.75]
    assert point.not_converged == ("runs/late.h5",)
    for verdict in point.layers.values():
        assert verdict.regime == "undetermined"
        assert "runs/late.h5" in verdict.reason and "1 of 10" in verdict.reason
        assert verdict.slope is not None
    assert points_by_gamma(result)[0.5].layers["input"].regime == "linear"
    # Its slope says nothing about the end, so it makes no zero either.
    assert result.zero_line == ()


def test_steady_state_counts_as_an_end(tmp_path):
    folder = make_sweep(tmp_path / "s", gammas=[1.75], stop_reason="steady_state: slope 1e-5")
    assert classify(folder).points[0].layers["input"].regime == "condensed"


def test_a_frozen_layer_is_undetermined(tmp_path):
    for width in (100, 200, 400):
        write_run(tmp_path / f"{width}.h5", width=width, relative_change=[0.0, 0.2, 0.1])
    layers = classify(tmp_path).points[0].layers
    assert layers["input"].regime == "undetermined"
    assert "mobility" in layers["input"].reason
    assert layers["output"].slope == pytest.approx(0.0, abs=1e-12)


def test_damaged_and_foreign_files_are_skipped_and_named(tmp_path):
    folder = make_sweep(tmp_path / "s", gammas=[1.75])
    runs = folder / "runs"
    whole = next(iter(sorted(runs.glob("*.h5"))))
    (runs / "cut.h5").write_bytes(whole.read_bytes()[:3000])
    (runs / "empty.h5").write_bytes(b"")
    (runs / "text.h5").write_text("not a run")
    with h5py.File(runs / "foreign.h5", "w") as file:
        file["x"] = np.arange(3)
    result = classify(folder)
    names = {f"runs/{name}.h5" for name in ("cut", "empty", "text", "foreign")}
    assert set(result.skipped) == names
    assert all(reason and "\n" not in reason for reason in result.skipped.values())
    assert result.points[0].layers["input"].regime == "condensed"
    json.dumps(result.to_dict(), allow_nan=False)


def test_copies_do_not_count_as_seeds(tmp_path):
    folder = make_sweep(tmp_path / "s", gammas=[1.0], widths=[100, 200], seeds=1)
    for path in sorted((folder / "runs").glob("*.h5")):
        shutil.copy(path, path.with_name(f"z_{path.name}"))
    result = classify(folder)
    assert result.points[0].seeds == 1
    assert len(result.skipped) == 2
    assert all(reason.startswith("repeats runs/g") for reason in result.skipped.values())


def test_settings_that_vary_make_points_of_their_own(tmp_path):
    for activation in ("relu", "tanh"):
        make_sweep(
            tmp_path / activation,
            gammas=[0.5, 1.75],
            overrides={"network.activation": activation},
        )
    result = classify(tmp_path)
    assert len(result.points) == 4
    assert {p.other["network.activation"] for p in result.points} == {"relu", "tanh"}
    assert all(list(p.other) == ["network.activation"] for p in result.points)
    assert [bool(p.note) for p in result.points] == [False, False, True, True]
    assert len(result.zero_line) == 2
    assert {z.other["network.activation"] for z in result.zero_line} == {"relu", "tanh"}


def test_threads_and_save_schedules_make_no_points(tmp_path):
    for width in (100, 200, 400):
        write_run(
            tmp_path / f"{width}.h5",
            width=width,
            overrides={
                "integrate.threads": width // 100,
                "record.observables": {"schedule": "steps", "every": width},
            },
        )
    (point,) = classify(tmp_path).points
    assert point.widths == (100, 200, 400)
    assert point.other == {}


def test_a_scheme_reports_the_largest_width_and_says_so(tmp_path):
    for width in (100, 400, 1600):
        for seed in range(2):
            write_run(
                tmp_path / f"{width}_{seed}.h5",
                width=width,
                seed=seed,
                scaling={"scheme": "ntk"},
                kappa=0.5 * width**-0.5,
                kappa_prime=2.0,
                relative_change=(np.array([1.0, 1.0, 1.0]) * width**-0.5 * (1 + 0.01 * seed)),
            )
    (point,) = classify(tmp_path).points
    assert point.gamma == pytest.approx(0.5 + np.log(2.0) / np.log(1600))
    assert "m = 1600" in point.note
    # Constant factors shift gamma, not the slope: the prediction is that of gamma = 1/2.
    verdict = point.layers["input"]
    assert verdict.predicted_slope == pytest.approx(-0.5)
    assert (verdict.regime, verdict.predicted_regime) == ("linear", "linear")


def test_bad_arguments_are_reported_together(sweep):
    with pytest.raises(ConfigError) as caught:
        classify(sweep, margin=-1.0, confidence=1.5)
    assert [p.split(" ")[0] for p in caught.value.problems] == ["margin", "confidence"]


@pytest.mark.parametrize("source", ["missing", "hollow", [], 3, [4]])
def test_sources_without_runs_are_refused(tmp_path, source):
    (tmp_path / "hollow").mkdir()
    with pytest.raises(FlowsimError) as caught:
        classify(tmp_path / source if isinstance(source, str) else source)
    assert "\n" not in str(caught.value)


def test_runs_are_found_in_sorted_order_at_any_depth(sweep):
    names = [name for name, _ in find_runs(sweep)]
    assert names == sorted(names)
    assert names[0].startswith("runs/")
