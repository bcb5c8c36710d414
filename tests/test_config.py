"""Experiment files: what they become, defaults, overrides, round trips, hashes, grids."""

import math
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from flowsim.config import SECTIONS, Experiment, load_experiment, load_grid
from flowsim.errors import ConfigError, DataWarning
from flowsim.scaling import Scaling
from flowsim.steppers import METHOD_NAMES

ISSUE_EXAMPLE = """
[network]
kind = "two-layer"
width = 1000
activation = "relu"
antisymmetric = true
seed = 0

[scaling]                      # or scheme = "ntk"; or alpha, beta1, beta2
gamma = 1.0
gamma_prime = 0.0

[data]
kind = "points"
x = [[-0.5], [-0.16666666666666666], [0.16666666666666666], [0.5]]
y = [0.25, 0.027777777777777776, 0.027777777777777776, 0.25]

[integrate]
method = "auto"
rtol = 1e-3
stop_loss = 1e-5

[record]
observables = {schedule = "log", per_decade = 20}
snapshots = {schedule = "log", per_decade = 2}
"""


def minimal(**sections):
    base = {
        "network": {"width": 10},
        "scaling": {"gamma": 1.0, "gamma_prime": 0.0},
        "data": {"kind": "points", "x": [0.0, 1.0], "y": [1.0, 2.0]},
    }
    return {**base, **sections}


@pytest.fixture
def example(tmp_path):
    path = tmp_path / "experiment.toml"
    path.write_text(ISSUE_EXAMPLE)
    return path


def test_example_of_an_experiment_file(example):
    experiment = load_experiment(example)
    assert experiment.network.width == 1000 and experiment.network.antisymmetric
    assert experiment.network.mobility.model_dump() == {"input": 1.0, "output": 1.0}
    assert experiment.make_scaling(2) == Scaling(1000, 1.0, 0.0)
    dataset = experiment.make_dataset()
    assert dataset.x.shape == (4, 2) and dataset.kind == "points"
    assert experiment.record.observables.per_decade == 20
    assert experiment.record.snapshots.per_decade == 2
    assert load_experiment(str(example)) == experiment


def test_defaults():
    experiment = load_experiment(minimal())
    assert experiment.to_dict() == {
        "network": {
            "kind": "two-layer", "width": 10, "activation": "relu", "antisymmetric": False,
            "seed": 0, "mobility": {"input": 1.0, "output": 1.0},
        },
        "scaling": {"gamma": 1.0, "gamma_prime": 0.0, "beta2": 1.0},
        "data": {"kind": "points", "bias": True, "x": [0.0, 1.0], "y": [1.0, 2.0]},
        "integrate": {
            "method": "auto", "rtol": 1e-3, "stop_loss": 1e-5, "steady_slope": 1e-4,
            "steady_min_time": 1e4, "dtype": "float64", "backend": "cpu",
            "passes": "auto", "estimate_error": False,
        },
        "record": {
            "observables": {"schedule": "log", "per_decade": 20.0},
            "snapshots": {"schedule": "log", "per_decade": 2.0, "dtype": "float32"},
            "kernel": {"schedule": "none"},
            "separate": {},
            "flush": {"seconds": 10.0, "rows": 4096},
            "checkpoint": {"seconds": 60.0},
            "compression": "none",
        },
    }  # fmt: skip


FILLED = [
    minimal(),
    minimal(network={"width": 7, "activation": "tanh", "seed": 3, "mobility": {"input": 0.0}}),
    minimal(scaling={"alpha": 2, "beta1": 1, "beta2": 0.5}),
    minimal(scaling={"scheme": "he"}),
    minimal(scaling={"scheme": "e", "beta": 0.1}),
    minimal(data={"kind": "function", "function": "-x", "n_samples": 4, "low": -1, "high": 1}),
    minimal(data={"kind": "teacher", "width": 3, "n_samples": 5, "n_inputs": 2, "n_test": 4}),
    minimal(data={"kind": "file", "path": "data \\ \"x\".npz", "x": "train/x"}),
    minimal(integrate={"method": "gradient-descent", "step": 1, "t_max": 10, "max_steps": 5}),
    minimal(integrate={"method": "dp54", "atol": 0, "first_step": 1e-3, "dtype": "float32",
                       "threads": 2, "max_seconds": 3, "backend": "reference"}),
    minimal(record={"observables": {"schedule": "steps", "every": 10, "names": ["loss"]},
                    "snapshots": {"schedule": "none"},
                    "kernel": {"schedule": "linear", "every": 0.5},
                    "separate": {"residual": {"schedule": "log", "start": 0.1}}}),
]  # fmt: skip


@pytest.mark.parametrize("sections", FILLED)
def test_resolved_file_gives_the_same_experiment(sections, tmp_path):
    experiment = load_experiment(sections)
    path = tmp_path / "resolved.toml"
    path.write_text(experiment.to_toml(), encoding="utf-8")
    again = load_experiment(path)
    assert again == experiment
    assert again.to_toml() == experiment.to_toml()
    if experiment.data.kind != "file":
        assert again.hash() == experiment.hash()


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_every_method_is_accepted(method):
    assert load_experiment(minimal(integrate={"method": method})).integrate.method == method


def test_python_values_are_welcome():
    experiment = load_experiment(
        {
            "network": {"width": np.int64(10), "seed": None},
            "scaling": {"gamma": np.float32(0.5), "gamma_prime": 0, "alpha": None},
            "data": {"kind": "points", "x": np.arange(4.0).reshape(2, 2), "y": (1, 2)},
        }
    )
    assert experiment.make_dataset().x.shape == (2, 3)
    assert experiment.to_dict()["scaling"] == {"gamma": 0.5, "gamma_prime": 0.0, "beta2": 1.0}
    tomllib.loads(experiment.to_toml())


def test_source_is_not_changed_and_not_shared():
    sections = minimal()
    experiment = load_experiment(sections, ["network.width=20"])
    assert sections == minimal()
    sections["data"]["x"].append(3.0)
    assert experiment.make_dataset().n_samples == 2


def test_own_activation():
    with pytest.raises(ConfigError, match="unknown; choose from"):
        load_experiment(minimal(network={"width": 5, "activation": "my_own"}))
    experiment = load_experiment(
        minimal(network={"width": 5, "activation": "my_own"}), activations=["my_own"]
    )
    assert experiment.network.activation == "my_own"
    experiment.make_dataset()
    assert experiment.with_overrides(["network.width=6"]).network.activation == "my_own"


# Scaling and data


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"gamma": 0.5, "gamma_prime": 0.25, "beta2": 2}, Scaling(10, 0.5, 0.25, 2.0)),
        ({"alpha": 3, "beta1": 2, "beta2": 1}, Scaling.from_standard_deviations(10, 3, 2, 1)),
        ({"scheme": "xavier"}, Scaling.from_scheme("xavier", 10, 2)),
        ({"scheme": "e", "beta": 0.2}, Scaling.from_scheme("e", 10, 2, 0.2)),
    ],
)
def test_forms_of_scaling(section, expected):
    assert load_experiment(minimal(scaling=section)).make_scaling(2) == expected


def test_kinds_of_data(tmp_path):
    function = load_experiment(
        minimal(data={"kind": "function", "function": "x0-x1", "n_samples": 6, "low": 0, "high": 1,
                      "n_inputs": 2, "sampling": "random", "seed": 1, "n_test": 2})
    ).make_dataset()  # fmt: skip
    assert function.x.shape == (6, 3) and function.y_test.shape == (2,)
    teacher = load_experiment(
        minimal(data={"kind": "teacher", "width": 3, "activation": "erf", "n_samples": 5,
                      "n_inputs": 4, "input_distribution": "sphere", "bias": False})
    ).make_dataset()  # fmt: skip
    assert teacher.x.shape == (5, 4)
    np.savez(tmp_path / "d.npz", a=[1.0, 2.0], b=[3.0, 4.0])
    file = load_experiment(
        minimal(data={"kind": "file", "path": tmp_path / "d.npz", "x": "a", "y": "b"})
    ).make_dataset()
    np.testing.assert_array_equal(file.y, [3.0, 4.0])


def test_data_path_is_relative_to_the_experiment_file(tmp_path, monkeypatch):
    folder = tmp_path / "study"
    folder.mkdir()
    np.savez(folder / "d.npz", x=[1.0, 2.0], y=[3.0, 4.0])
    (folder / "e.toml").write_text(
        '[network]\nwidth = 10\n[scaling]\nscheme = "ntk"\n[data]\nkind = "file"\npath = "d.npz"\n'
    )
    monkeypatch.chdir(tmp_path)
    for source in ("study/e.toml", Path("study/e.toml"), folder / "e.toml"):
        experiment = load_experiment(source)
        assert experiment.data.path == str(folder / "d.npz")
        assert experiment.make_dataset().n_samples == 2
    overridden = load_experiment("study/e.toml", ["data.path=other.npz"])
    assert overridden.data.path == str(tmp_path / "other.npz")


def test_experiment_can_be_loaded_without_its_data_file(tmp_path):
    experiment = load_experiment(minimal(data={"kind": "file", "path": str(tmp_path / "no.npz")}))
    for call in (experiment.make_dataset, experiment.hash):
        with pytest.raises(ConfigError, match="data.path = .*no.npz"):
            call()


def test_arrays_of_a_script_are_known_by_their_digest():
    dataset = load_experiment(minimal()).make_dataset()
    experiment = load_experiment(minimal(data=dataset.section()))
    assert experiment.data.sha256 == dataset.digest()
    with pytest.raises(ConfigError, match='data.kind = "arrays": .*pass them as x and y'):
        experiment.make_dataset()


def test_contradicting_targets_warn_when_the_data_are_made():
    experiment = load_experiment(minimal(data={"kind": "points", "x": [1, 1], "y": [1, 2]}))
    with pytest.warns(DataWarning, match="samples 0 and 1 have the same input"):
        experiment.make_dataset()


def test_parallel_inputs_warn_with_homogeneous_activations_only():
    data = {"kind": "points", "x": [1, 2], "y": [1, 1], "bias": False}
    load_experiment(minimal(data=data, network={"width": 5, "activation": "tanh"})).make_dataset()
    with pytest.warns(DataWarning, match="samples 0 and 1 are parallel"):
        load_experiment(minimal(data=data)).make_dataset()


# Overrides


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("scaling.gamma=1.2", "scaling", "gamma", 1.2),
        ("scaling.gamma = 2", "scaling", "gamma", 2.0),
        ("network.activation=tanh", "network", "activation", "tanh"),
        ('network.activation="tanh"', "network", "activation", "tanh"),
        ("network.antisymmetric=true", "network", "antisymmetric", True),
        ("network.mobility.output=0", "network", "mobility", {"input": 1.0, "output": 0.0}),
        ("network.mobility={input=0}", "network", "mobility", {"input": 0.0, "output": 1.0}),
        ("data.y=[3, 4]", "data", "y", [3.0, 4.0]),
        ("integrate.method=gradient-descent", "integrate", "method", "gradient-descent"),
    ],
)
def test_overrides(override, section, key, value):
    for experiment in (
        load_experiment(minimal(), [override]),
        load_experiment(minimal()).with_overrides([override]),
        load_experiment(minimal()).with_overrides(override),
    ):
        assert experiment.to_dict()[section][key] == value


def test_override_of_a_formula():
    data = {"kind": "function", "function": "x", "n_samples": 4, "low": -1, "high": 1}
    experiment = load_experiment(minimal(data=data), ["data.function=x**2 - 1"])
    assert experiment.data.function == "x**2 - 1"


def test_overrides_as_a_mapping_and_none_takes_a_key_out():
    experiment = load_experiment(minimal())
    changed = experiment.with_overrides(
        {"scaling.gamma": None, "scaling.gamma_prime": None, "scaling.scheme": "ntk",
         "network.width": np.int32(30)}
    )  # fmt: skip
    assert changed.make_scaling(2) == Scaling.from_scheme("ntk", 30, 2)
    assert experiment.network.width == 10
    assert changed.with_overrides({"integrate.t_max": None}) == changed


def test_part_of_a_schedule_can_be_overridden():
    experiment = load_experiment(minimal(), ["record.observables.per_decade=5"])
    assert experiment.record.observables.per_decade == 5
    linear = load_experiment(
        minimal(), ["record.snapshots.schedule=linear", "record.snapshots.every=0.5"]
    )
    assert linear.to_dict()["record"]["snapshots"] == {
        "schedule": "linear", "every": 0.5, "dtype": "float32",
    }  # fmt: skip


# Hash


def test_hash_is_of_what_determines_the_numbers():
    base = load_experiment(minimal())
    same = ["integrate.threads=3", "integrate.max_seconds=5", "scaling.gamma=1", "network.seed=0"]
    other = ["network.seed=1", "scaling.gamma=1.1", "data.y=[1, 3]", "integrate.rtol=1e-4"]
    assert {base.with_overrides([text]).hash() for text in same} == {base.hash()}
    assert len({base.hash(), *(base.with_overrides([text]).hash() for text in other)}) == 5
    assert len(base.hash()) == 64


def test_hash_follows_the_content_of_a_data_file_not_its_path(tmp_path):
    def hash_of(name, y):
        np.savez(tmp_path / name, x=[1.0, 2.0], y=y)
        return load_experiment(minimal(data={"kind": "file", "path": str(tmp_path / name)})).hash()

    first = hash_of("a.npz", [3.0, 4.0])
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes())
    moved = load_experiment(minimal(data={"kind": "file", "path": str(tmp_path / "b.npz")}))
    assert moved.hash() == first
    assert hash_of("c.npz", [3.0, 5.0]) != first


# Grids


def test_grid(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(
        ISSUE_EXAMPLE
        + """
[grid]
"network.width" = [1000, 5000]
scaling.gamma = [0.5, 1.0, 1.75]
seeds = 5
"""
    )
    base, grid = load_grid(path)
    assert list(grid.items()) == [
        ("network.width", [1000, 5000]), ("scaling.gamma", [0.5, 1.0, 1.75]), ("seeds", 5),
    ]  # fmt: skip
    assert load_experiment(base) == load_experiment(_without_grid(path))
    assert load_grid(path, ["grid.seeds=2"])[1]["seeds"] == 2
    with pytest.raises(ConfigError, match="grid: this is a grid.*flowsim sweep"):
        load_experiment(path)


def _without_grid(path):
    sections = tomllib.loads(path.read_text())
    del sections["grid"]
    return sections


def test_grid_need_not_be_complete_and_may_be_empty():
    base, grid = load_grid({"scaling": {"scheme": "ntk"}, "grid": {"network.width": (1, 2)}})
    assert base == {"scaling": {"scheme": "ntk"}} and grid == {"network.width": [1, 2]}
    assert load_grid(minimal())[1] == {}
    assert load_grid(load_experiment(minimal()))[0] == minimal()


def test_grid_of_data_files(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text('data.kind = "file"\ndata.path = "a.npz"\n[grid]\n"data.path" = ["b.npz"]\n')
    base, grid = load_grid(path)
    assert base["data"]["path"] == str(tmp_path / "a.npz")
    assert grid["data.path"] == [str(tmp_path / "b.npz")]


def test_grid_must_be_a_table():
    with pytest.raises(ConfigError, match="grid = 3: must be a table"):
        load_grid(minimal(grid=3))


# What it costs


def test_checking_a_file_compiles_and_draws_nothing():
    script = (
        "import sys; from flowsim.config import load_experiment;"
        f"load_experiment({minimal()!r});"
        "print([name for name in ('numba', 'matplotlib', 'scipy', 'h5py') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_experiment_is_frozen_and_finite():
    experiment = load_experiment(minimal())
    assert isinstance(experiment, Experiment) and set(SECTIONS) == set(experiment.to_dict())
    with pytest.raises(ValueError, match="frozen"):
        experiment.network.width = 3
    assert math.isfinite(experiment.integrate.steady_min_time)


def test_what_says_when_a_file_is_written_changes_no_hash():
    plain = load_experiment(minimal())
    for key, value in {
        "record.flush.seconds": 1.0,
        "record.checkpoint.seconds": 1.0,
        "record.compression": "gzip",
        "integrate.threads": 1,
        "integrate.max_seconds": 1.0,
    }.items():
        assert plain.with_overrides({key: value}).hash() == plain.hash()
    longer = plain.with_overrides({"integrate.stop_loss": 1e-7, "integrate.t_max": 10.0})
    assert longer.hash() != plain.hash()
    assert longer.trajectory_hash() == plain.trajectory_hash()
    assert plain.with_overrides({"network.seed": 1}).trajectory_hash() != plain.trajectory_hash()


def test_the_names_of_compressions_are_those_of_the_file_layout():
    from flowsim.config.sections import COMPRESSIONS
    from flowsim.recording import hdf5

    assert tuple(hdf5.COMPRESSIONS) == COMPRESSIONS
