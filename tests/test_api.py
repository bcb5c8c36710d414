"""`simulate` and `open` as a script uses them, and the file they leave behind."""

import json
import math
import pickle

import h5py
import numpy as np
import pytest
from flows import PUBLISHED_X, PUBLISHED_Y

import flowsim as fs
from flowsim import backends
from flowsim.data import from_arrays
from flowsim.errors import ConfigError, DataWarning, FileFormatError, FlowsimError
from flowsim.kernels.activations import ACTIVATIONS, Activation, erf

X = PUBLISHED_X[:, 0]


def simulate(x=X, y=PUBLISHED_Y, width=100, gamma=1.0, antisymmetric=True, seed=0, **options):
    sections = {
        "network": {"width": width, "antisymmetric": antisymmetric, "seed": seed},
        "scaling": {"gamma": gamma, "gamma_prime": 0.0},
        "integrate": {"stop_loss": 1e-4, "threads": 1},
    }
    for name in ("network", "scaling", "integrate", "record"):
        if name in options:
            sections[name] = sections.get(name, {}) | options.pop(name)
    if "kind" not in options.get("data", {}):
        options |= {"x": x, "y": y}
    return fs.simulate(**sections, **options)


def test_a_run_from_arrays():
    with simulate() as run:
        assert run.status == "complete"
        assert run.stop_reason.startswith("stop_loss")
        assert run.loss[0] == pytest.approx(0.5 * np.mean(PUBLISHED_Y**2))
        assert run.loss[-1] < 1e-4
        assert np.all(np.diff(run.time) > 0.0)
        assert run.relative_change["input"] == pytest.approx(
            run.observables["relative_change"][-1, 0]
        )
        np.testing.assert_allclose(
            run.predict(X) - PUBLISHED_Y, run.final["residual"], rtol=0, atol=1e-13
        )
        assert np.array_equal(run.data["x"], PUBLISHED_X)


def test_file_and_memory_hold_the_same(tmp_path):
    path = tmp_path / "run.h5"
    on_disk, in_memory = simulate(output=path), simulate()
    for group in ("observables", "snapshots", "data", "final"):
        first, second = getattr(on_disk, group), getattr(in_memory, group)
        assert set(first) == set(second)
        for name in set(first) - {"wall_seconds"}:
            assert np.array_equal(first[name], second[name]), name
    in_memory.save(tmp_path / "saved.h5")
    assert fs.open(tmp_path / "saved.h5").final["loss"] == on_disk.final["loss"]
    with pytest.raises(ConfigError, match="exists already"):
        in_memory.save(tmp_path / "saved.h5")
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("method", "activation"),
    [
        *((name, "relu") for name in ("heun", "ros2", "ros34pw2", "exponential", "implicit-euler")),
        *((name, "tanh") for name in ("ros2", "ros34pw2")),
    ],
)
def test_results_are_bit_identical_from_run_to_run_and_for_any_threads(method, activation):
    problem = {"width": 30_000, "gamma": 0.5, "network": {"activation": activation}}
    finals = [
        simulate(**problem, integrate={"method": method, "threads": threads}).final["input_weights"]
        for threads in (1, 1, 2, 3)
    ]
    assert all(np.array_equal(finals[0], final) for final in finals[1:])


@pytest.mark.parametrize(
    "method", ["euler", "heun", "tsit54", "dop853", "ros2", "ros34pw2", "exponential"]
)
def test_saving_never_changes_the_steps(method):
    rare = {"observables": {"schedule": "none"}, "snapshots": {"schedule": "none"}}
    often = {
        "observables": {"schedule": "linear", "every": 0.01},
        "snapshots": {"schedule": "log", "per_decade": 30},
        "kernel": {"schedule": "steps", "every": 1},
        "separate": {"norm": {"schedule": "steps", "every": 3}},
    }
    runs = [
        simulate(gamma=0.6, record=record, integrate={"method": method}) for record in (rare, often)
    ]
    assert len(runs[1].time) > 100 > len(runs[0].time)
    for name in runs[0].final:
        if name != "sup_relative_change":
            assert np.array_equal(runs[0].final[name], runs[1].final[name]), name
    for name in ("n_rhs", "n_passes"):
        assert runs[0].observables[name][-1] == runs[1].observables[name][-1]


def test_rows_are_exact_moments_of_the_flow():
    """A recorded row is what a run that ends at that moment ends with."""
    sparse = {"observables": {"schedule": "linear", "every": 1.0}}
    options = {"method": "dop853", "rtol": 1e-9}
    run = simulate(network={"activation": "tanh"}, gamma=0.7, record=sparse, integrate=options)
    short = simulate(network={"activation": "tanh"}, gamma=0.7, integrate=options | {"t_max": 2.0})
    assert run.time[2] == 2.0
    np.testing.assert_allclose(
        run.observables["residual"][2], short.final["residual"], rtol=1e-7, atol=1e-10
    )


def test_schedules_share_their_times_between_runs():
    runs = [simulate(seed=seed, record={"observables": {"per_decade": 5}}) for seed in (0, 1)]
    inner = [set(run.time[1:-1]) for run in runs]
    last = min(run.time[-1] for run in runs)
    first = max(min(times) for times in inner)
    common = [{t for t in times if first <= t < last} for times in inner]
    assert common[0] == common[1] != set()
    assert all(math.isclose(5 * math.log10(t), round(5 * math.log10(t))) for t in common[0])


def test_a_restarted_run_keeps_only_its_last_start():
    run = simulate(
        gamma=0.5,
        integrate={"method": "gradient-descent", "step": 5.0},
        record={"observables": {"schedule": "steps", "every": 1}},
    )
    assert run.final["n_restarts"] >= 2
    assert run.observables["step"].tolist() == list(range(int(run.final["n_steps"]) + 1))
    assert np.all(np.diff(run.time) > 0.0)
    assert np.all(np.diff(run.loss) <= 0.0)


def test_groups_and_attributes_of_the_file(tmp_path):
    path = tmp_path / "run.h5"
    record = {
        "kernel": {"schedule": "log", "per_decade": 2},
        "separate": {"dead_neurons": {"schedule": "steps", "every": 10}},
        "snapshots": {"schedule": "log", "per_decade": 1, "dtype": "float64"},
    }
    simulate(output=path, record=record, x_test=[0.0, 0.1], y_test=[0.0, 0.01])
    with h5py.File(path) as file:
        assert file.attrs["format"] == "flowsim/1"
        assert file.attrs["status"] == b"complete"  # of a fixed size: rewritten in place
        assert json.loads(file.attrs["versions"])["flowsim"] == fs.__version__
        assert file["observables/relative_change"].dims[1].label in ("", "layer")
        rows = len(file["observables/time"])
        for name in ("loss", "residual", "norm", "dt", "n_rhs", "test_loss", "invariant_drift"):
            assert len(file["observables"][name]) == rows
        assert "dead_neurons" not in file["observables"]
        assert len(file["series_dead_neurons/dead_neurons"]) == len(
            file["series_dead_neurons/time"]
        )
        assert file["snapshots/input_weights"].shape[1:] == (2, 200)
        assert file["snapshots/input_weights"].dtype == np.float64
        assert file["kernel/eigenvalues"].shape[1:] == (4,)
        assert file["kernel/distance"][0] == 0.0 < file["kernel/distance"][-1]
        assert file["data/x_test"].shape == (2, 2)
        for group in ("observables", "snapshots", "kernel", "final"):
            for dataset in file[group].values():
                if not dataset.is_scale:
                    assert all(len(dim) == 1 for dim in dataset.dims), dataset.name
    assert fs.load_experiment(
        fs.open(path).config | {"data": {"kind": "points", "x": [[1]], "y": [1]}}
    )


def test_xarray_opens_the_file(tmp_path):
    xarray = pytest.importorskip("xarray")
    path = tmp_path / "run.h5"
    simulate(output=path, record={"kernel": {"schedule": "log"}})
    with xarray.open_datatree(path, engine="h5netcdf") as tree:
        loss = tree["observables/loss"]
        assert loss.dims == ("time",)
        assert loss.attrs["units"] == "y^2"
        assert list(tree["observables/layer"].values) == ["input", "output", "all"]
        assert tree["snapshots/input_weights"].dims == ("time_snapshot", "input", "neuron")
        assert tree["observables/residual"].dims == ("time", "sample")
        change = tree["observables/relative_change"].sel(layer="input")
        assert float(change[-1]) == pytest.approx(float(tree["final/relative_change"][0]))
    with xarray.open_dataset(path, group="observables", engine="h5netcdf") as data:
        assert data.loss.size == data.time.size


def test_both_normalisations_of_the_results():
    run = simulate(scaling={"gamma": 0.7, "gamma_prime": 0.4})
    scaling = run.scaling
    a, w = run.weights()
    original_a, original_w = run.weights(normalisation="original")
    np.testing.assert_allclose(original_a, scaling.beta1 * a)
    np.testing.assert_allclose(original_w, scaling.beta2 * w)
    f = original_a @ np.maximum(original_w.T @ PUBLISHED_X.T, 0) / scaling.alpha
    np.testing.assert_allclose(f, run.predict(X), atol=1e-12)
    np.testing.assert_allclose(run.time_original, scaling.alpha * run.time)
    np.testing.assert_allclose(run.time_bar, run.time / scaling.kappa)
    with pytest.raises(ConfigError, match="normalised"):
        run.weights(normalisation="other")


def test_predict_in_time():
    run = simulate(record={"snapshots": {"schedule": "log", "per_decade": 4, "dtype": "float64"}})
    times = run.snapshots["time_snapshot"]
    assert np.max(np.abs(run.predict(X, t=0.0))) < 1e-14
    middle = 0.5 * (times[3] + times[4])
    low, high = sorted([run.predict([0.4], t=times[3])[0], run.predict([0.4], t=times[4])[0]])
    assert low - 1e-3 <= run.predict([0.4], t=middle)[0] <= high + 1e-3
    with pytest.raises(ConfigError, match="outside the run"):
        run.predict(X, t=2 * times[-1])
    with pytest.raises(ConfigError, match="input coordinates"):
        run.predict(np.ones((3, 2)))
    bare = simulate(record={"snapshots": {"schedule": "none"}})
    with pytest.raises(ConfigError, match="no snapshots"):
        bare.predict(X, t=1.0)


@pytest.mark.parametrize("scheme", ["ntk", "lecun", "he", "xavier", "mean-field"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_named_schemes_run(scheme, activation):
    run = fs.simulate(
        network={"width": 50, "activation": activation},
        scaling={"scheme": scheme},
        integrate={"stop_loss": 1e-3},
        x=X,
        y=PUBLISHED_Y,
    )
    assert run.status == "complete"
    np.testing.assert_allclose(run.predict(X) - PUBLISHED_Y, run.final["residual"], atol=1e-12)


def test_three_ways_to_give_the_same_scaling():
    scaling = fs.Scaling(100, 0.8, 0.3, 0.5)
    by_exponents = {"gamma": 0.8, "gamma_prime": 0.3, "beta2": 0.5}
    by_deviations = {
        "alpha": scaling.alpha,
        "beta1": scaling.beta1,
        "beta2": scaling.beta2,
    }
    runs = [
        fs.simulate(
            network={"width": 100, "activation": "tanh"},
            scaling=section,
            integrate={"stop_loss": 1e-3},
            x=X,
            y=PUBLISHED_Y,
        )
        for section in (by_exponents, by_deviations)
    ]
    np.testing.assert_allclose(
        runs[0].final["input_weights"], runs[1].final["input_weights"], rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: simulate(resume="must"), 'resume = "must": without output there is no run to go'),
        (lambda: simulate(lock="no"), "lock = 'no': wanted True or False"),
        (lambda: simulate(integrate={"max_steps": 1}).save(3), "path = 3: not a path; give the"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(call, problem):
    with pytest.raises(ConfigError) as refused:
        call()
    assert str(refused.value).startswith(problem)


def test_initial_weights_from_arrays_and_from_a_run(tmp_path):
    first = simulate(output=tmp_path / "first.h5", antisymmetric=False)
    a, w = first.weights()
    by_arrays = simulate(
        initial={"output_weights": a, "input_weights": w},
        antisymmetric=False,
        integrate={"stop_loss": 1e-6},
    )
    by_path = simulate(
        initial=tmp_path / "first.h5", antisymmetric=False, integrate={"stop_loss": 1e-6}
    )
    by_run = simulate(initial=first, antisymmetric=False, integrate={"stop_loss": 1e-6})
    assert by_arrays.loss[0] == pytest.approx(float(first.final["loss"]))
    for other in (by_path, by_run):
        assert np.array_equal(by_arrays.final["input_weights"], other.final["input_weights"])
    ones = {"output_weights": np.ones(100), "input_weights": np.ones((2, 100))}
    half = simulate(initial=ones, integrate={"t_max": 1.0})
    assert half.final["output_weights"].shape == (200,)
    assert half.loss[0] == pytest.approx(0.5 * np.mean(PUBLISHED_Y**2))


@pytest.mark.parametrize(
    ("initial", "message"),
    [
        ({"output_weights": np.ones(100)}, "wanted the two arrays"),
        ({"output_weights": np.ones(7), "input_weights": np.ones((2, 7))}, r"wanted \(100,\)"),
        ({"output_weights": np.ones(100), "input_weights": np.full((2, 100), np.nan)}, "finite"),
        ("nowhere.h5", "no such file"),
    ],
)
def test_bad_initial_weights(initial, message):
    with pytest.raises((ConfigError, FileFormatError), match=message):
        simulate(initial=initial)


def test_a_frozen_layer_stays():
    run = simulate(gamma=0.5, network={"mobility": {"input": 0.0}})
    assert run.relative_change["input"] == 0.0 < run.relative_change["output"]
    assert run.status == "complete"


def test_a_users_own_activation_and_observable(tmp_path):
    own = Activation(
        "erf_squared",
        lambda z: erf(z) ** 2,
        lambda z: 4.0 / math.sqrt(math.pi) * erf(z) * np.exp(-z * z),
    )
    path = tmp_path / "run.h5"

    def largest_weight(frame):
        return np.max(np.abs(frame.parameters["input_weights"]))

    run = simulate(
        activation=own,
        gamma=0.5,
        antisymmetric=False,
        output=path,
        observables={"largest_weight": largest_weight, "mean": lambda f: f.residual[:2]},
    )
    assert run.observables["largest_weight"][-1] == np.max(np.abs(run.final["input_weights"]))
    assert run.observables["mean"].shape == (len(run.time), 2)
    with pytest.raises(ConfigError, match="pass activation="):
        run.predict(X)
    np.testing.assert_allclose(
        run.predict(X, activation=own) - PUBLISHED_Y, run.final["residual"], atol=1e-12
    )


def test_an_activation_that_does_not_compile_is_named():
    own = Activation("dictionary", lambda z: {"z": z}["z"].real_part, lambda z: z)
    with pytest.raises(ConfigError, match="activation = 'dictionary': does not compile"):
        simulate(activation=own)


def test_bad_observables_are_named():
    with pytest.raises(ConfigError, match="one of flowsim's own"):
        simulate(observables={"loss": lambda frame: 1.0})
    with pytest.raises(ConfigError, match="return a number"):
        simulate(observables={"word": lambda frame: "text"})
    with pytest.raises(ConfigError, match="did you mean 'residual'"):
        simulate(record={"observables": {"names": ["loss", "residuals"]}})
    with pytest.raises(ConfigError, match="no such observable"):
        simulate(record={"observables": {"names": ["test_loss"]}})


@pytest.mark.parametrize("method", ["auto", "euler", "tsit54", "gradient-descent"])
def test_the_error_estimate_bounds_the_error(method):
    """Against a much finer run: the estimate is of the size of the true error."""
    options = {"network": {"activation": "tanh"}, "gamma": 0.8}
    run = simulate(integrate={"method": method, "estimate_error": True}, **options)
    fine = simulate(integrate={"method": "dop853", "rtol": 1e-10}, **options)
    error = abs(run.relative_change["input"] / fine.relative_change["input"] - 1)
    estimate = float(run.final["error_relative_change"][0])
    assert error < 4 * estimate + 1e-9
    assert float(run.final["error_outputs"]) < 1e-2


def test_float32_is_close_to_float64():
    double = simulate(gamma=0.7)
    single = simulate(gamma=0.7, integrate={"dtype": "float32"})
    assert single.attributes["dtype"] == "float32"
    assert single.relative_change["input"] == pytest.approx(
        double.relative_change["input"], rel=1e-3
    )


def test_backends_agree():
    runs = [simulate(integrate={"backend": name, "t_max": 5.0}) for name in ("cpu", "reference")]
    np.testing.assert_allclose(
        runs[0].final["input_weights"], runs[1].final["input_weights"], rtol=1e-10, atol=1e-12
    )


def test_the_output_is_checked_first(tmp_path):
    simulate(output=tmp_path / "run.h5")
    before = (tmp_path / "run.h5").read_bytes()
    with pytest.raises(
        ConfigError, match=r"run.h5: holds another run .network.seed differs.*--over"
    ):
        simulate(output=tmp_path / "run.h5", seed=1)
    assert (tmp_path / "run.h5").read_bytes() == before
    simulate(output=tmp_path / "run.h5", overwrite=True, seed=1)
    other = tmp_path / "experiment.toml"
    other.write_text("[network]")
    with pytest.raises(ConfigError, match="exists and is no run file"):
        simulate(output=other, overwrite=True)
    with pytest.raises(ConfigError, match="there is no folder"):
        simulate(output=tmp_path / "none" / "run.h5")
    with pytest.raises(ConfigError, match="is a folder"):
        simulate(output=tmp_path)


def test_a_network_that_cannot_fit_is_refused_at_once():
    with pytest.raises(FlowsimError, match=r"network.width = 10000000000: needs at least"):
        simulate(width=10_000_000_000)


@pytest.mark.parametrize(
    ("copies", "estimate", "expected"),
    [(7.6, False, "heun"), (7.4, False, "rdpk35"), (5.1, False, "rdpk35"), (4.9, False, None)]
    + [(10.1, True, "heun"), (9.9, True, "rdpk35"), (7.1, True, "rdpk35"), (6.9, True, None)],
)
def test_auto_takes_what_the_machine_has_room_for(monkeypatch, copies, estimate, expected):
    """Heun works in 5 copies of the state, rdpk35 in 4; one more, or three, are the run's."""
    monkeypatch.setattr(backends, "machine_memory", lambda: copies * 3 * 8 * 2 * 100)
    integrate = {"estimate_error": estimate, "max_steps": 2}
    if expected is None:
        with pytest.raises(FlowsimError, match='needs .* with integrate.method = "rdpk35"'):
            simulate(integrate=integrate)
    else:
        assert simulate(integrate=integrate).attributes["method"] == expected


def test_sections_that_are_none_are_named():
    with pytest.raises(ConfigError, match="network = 'relu': wanted a section"):
        fs.simulate(network="relu")


def test_vector_targets_are_refused_for_now():
    with pytest.raises(ConfigError, match="one output"):
        simulate(y=np.ones((4, 2)))


def test_nothing_is_left_behind_by_a_bad_observable(tmp_path):
    def bad(frame):
        return 1.0 / 0.0

    with pytest.raises(ZeroDivisionError):
        simulate(output=tmp_path / "run.h5", observables={"bad": bad})
    assert list(tmp_path.iterdir()) == []


def test_parallel_inputs_without_bias_warn():
    with pytest.warns(DataWarning, match="loss cannot reach 0"):
        simulate(
            x=np.array([1.0, 2.0]),
            y=np.array([1.0, 1.0]),
            data={"bias": False},
            integrate={"t_max": 1.0},
        )


@pytest.mark.parametrize("content", [b"", b"not HDF5", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_files_that_are_no_runs(tmp_path, content):
    path = tmp_path / "bad.h5"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="not a run file"):
        fs.open(path)


def test_foreign_and_newer_files(tmp_path):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["x"] = 1.0
    with pytest.raises(FileFormatError, match="not a flowsim run"):
        fs.open(path)
    newer = tmp_path / "newer.h5"
    simulate(output=newer)
    with h5py.File(newer, "r+") as file:
        file.attrs["format_version"] = 7
    with pytest.raises(FileFormatError, match="format version 7 is newer"):
        fs.open(newer)
    with pytest.raises(FileFormatError, match="no such file"):
        fs.open(tmp_path / "none.h5")


def test_links_out_of_the_file_are_not_followed(tmp_path):
    secret, path = tmp_path / "secret.h5", tmp_path / "run.h5"
    with h5py.File(secret, "w") as file:
        file["loss"] = np.ones(3)
    simulate(output=path)
    with h5py.File(path, "r+") as file:
        file["observables/stolen"] = h5py.ExternalLink(str(secret), "loss")
    run = fs.open(path)
    assert "stolen" not in run.observables
    with pytest.raises(KeyError):
        run.observables["stolen"]


def test_config_errors_survive_the_way_between_processes():
    error = pickle.loads(pickle.dumps(ConfigError(["one", "two"])))
    assert error.problems == ["one", "two"]


def test_every_activation_trains():
    for name in sorted(ACTIVATIONS):
        run = simulate(network={"activation": name}, gamma=0.5, integrate={"t_max": 0.5})
        assert run.status == "complete"
        assert run.loss[-1] < run.loss[0], name


@pytest.mark.parametrize("method", ["bs32", "tsit54", "dop853", "rdpk35", "rkc2"])
@pytest.mark.parametrize(("dtype", "lowest"), [("float64", 1e-16), ("float32", 1e-9)])
def test_the_steps_do_not_depend_on_where_the_run_is_to_end(method, dtype, lowest):
    """And low losses are reached: the residual keeps its relative accuracy down to rounding."""
    runs = [
        fs.simulate(
            network={"width": 100, "activation": "tanh", "antisymmetric": True},
            scaling={"gamma": 1.0, "gamma_prime": 0.0},
            integrate={"method": method, "stop_loss": stop, "dtype": dtype, "max_steps": 2000},
            record={"observables": {"schedule": "steps", "every": 1}},
            x=X,
            y=PUBLISHED_Y,
        )
        for stop in (1e-5, lowest)
    ]
    assert runs[1].stop_reason.startswith("stop_loss")
    common = len(runs[0].time) - 1
    assert runs[0].loss[:common].tobytes() == runs[1].loss[:common].tobytes()
    assert runs[0].time[:common].tobytes() == runs[1].time[:common].tobytes()


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"dataset": (X, PUBLISHED_Y)}, "dataset: is a tuple; give"),
        ({"dataset": from_arrays(X, PUBLISHED_Y)}, "x: given beside dataset; keep one"),
        ({"data": {"biass": False}}, "data.biass = false: unknown beside x and y"),
        ({"data": {"bias": False, "n_samples": 2}}, "data.n_samples = 2: unknown beside x and y"),
        ({"activation": "relu"}, "activation = 'relu': is no fs.Activation; give one"),
        ({"observables": ["loss"]}, r"observables = \['loss'\]: wanted a dictionary of functions"),
        ({"observables": {"a": 3}}, "observables.a = 3: is no function; give one"),
        ({"initial": 3}, "initial = 3: wanted a dictionary of arrays, a run or its file"),
        ({"seeds": 10**12}, "seeds = 1000000000000: more than 1000000 at once"),
    ],
)
def test_arguments_that_are_wrong_or_would_be_ignored(given, wrong):
    with pytest.raises(ConfigError, match=f"^{wrong}"):
        simulate(**given)


def test_an_experiment_of_a_wrong_type():
    with pytest.raises(ConfigError, match="^experiment = 3: is no experiment; give a file"):
        fs.simulate(3)


def test_a_list_shares_arrays_and_what_is_said_of_them():
    network = {"width": 5, "activation": "tanh"}
    experiment = {"network": network, "scaling": {"gamma": 1.0, "gamma_prime": 0.0}}
    options = {"x": X, "y": PUBLISHED_Y, "data": {"bias": False}, "integrate": {"max_steps": 1}}
    runs = fs.simulate([experiment, experiment], **options)
    assert [run.data["x"].shape[1] for run in runs] == [1, 1]
