"""Ensembles: a run in one of them is the run by itself; how they look to others."""

from __future__ import annotations

import errno
import os
import warnings

import h5py
import numpy as np
import pytest
from comparing import assert_same

import flowsim as fs
from flowsim.errors import FileFormatError, FlowsimError, StorageError
from flowsim.recording import ensemble as ensemble_module
from flowsim.recording.contents import Array, GroupContents, RunContents
from flowsim.recording.ensemble import ensemble_contents, write_ensemble
from flowsim.recording.reader import open_run, open_runs

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def members():
    """Three runs with different numbers of rows, and every kind of group."""
    sections = {
        "network": {"width": 40},
        "scaling": {"gamma": 1.0, "gamma_prime": 0.0},
        "data": {"kind": "points", "x": [[-0.5], [0.5]], "y": [0.25, 0.5]},
        "integrate": {"stop_loss": 1e-3, "threads": 1},
        "record": {
            "observables": {"schedule": "steps", "every": 1},
            "kernel": {"schedule": "log", "per_decade": 5},
            "separate": {"loss": {"schedule": "steps", "every": 2}},
        },
    }
    runs = [fs.simulate(sections | {"network": {"width": 40, "seed": seed}}) for seed in SEEDS]
    contents = [run.contents() for run in runs]
    assert len({len(run.time) for run in runs}) > 1
    return contents


@pytest.fixture
def path(members, tmp_path):
    path = tmp_path / "ensemble.h5"
    write_ensemble(path, members)
    return path


def test_a_run_by_itself_and_in_an_ensemble_are_the_same(members, path, tmp_path):
    for position, contents in enumerate(members):
        single = tmp_path / f"{position}.h5"
        fs.Run(contents).save(single)
        with fs.Run(path, position) as run:
            assert run.member == position
            assert_same(fs.Run(contents), run)
            with fs.Run(single) as alone:
                assert_same(alone, run)
                np.testing.assert_array_equal(
                    alone.predict([0.1], t=1.0), run.predict([0.1], t=1.0)
                )


@pytest.mark.parametrize("count", [1, 2])
def test_an_ensemble_read_back_and_written_again_is_the_same(members, tmp_path, count):
    first, second = tmp_path / "first.h5", tmp_path / "second.h5"
    write_ensemble(first, members[:count])
    with open_runs(first) as runs:
        write_ensemble(second, [run.contents() for run in runs])
    with open_runs(first) as runs, open_runs(second) as again:
        assert len(runs) == len(again) == count
        for one, other in zip(runs, again, strict=True):
            assert_same(one, other)


def test_opening_an_ensemble(members, path):
    with fs.open(path) as runs:
        assert len(runs) == len(SEEDS) and runs.seeds == SEEDS
        assert [run.seed for run in runs] == list(SEEDS)
        assert isinstance(runs[-1], fs.Run) and runs[-1].seed == SEEDS[-1]
        assert runs[0].status == "complete" and runs[0].stop_reason.startswith("stop_loss")
    with pytest.raises(FileFormatError, match=r"ensemble of 3 runs.*flowsim\.open"):
        open_run(path)
    write_ensemble(path, members[:1])
    with open_run(path) as run:
        assert run.seed == SEEDS[0]


def test_what_is_beyond_the_rows_of_a_run_is_marked(members, path):
    with h5py.File(path) as file:
        assert file.attrs["layout"] == "ensemble"
        assert file["status"].asstr()[...].tolist() == ["complete"] * 3
        assert file["seed"][...].tolist() == list(SEEDS)
        for name in ("observables", "snapshots", "kernel", "series_loss"):
            group = file[name]
            time = group[next(key for key in group if key.startswith("time"))]
            rows = group["n_rows"][...]
            assert rows.max() == time.shape[1] and len(set(rows)) > 1
            assert [dim[0].name for dim in time.dims] == ["/run", f"/{name}/row"]
            for k, n in enumerate(rows):
                assert np.isfinite(time[k, :n]).all() and np.isnan(time[k, n:]).all()
        step, rows = file["observables/step"], file["observables/n_rows"][...]
        assert step.attrs["_FillValue"] == -1
        for k, n in enumerate(rows):
            assert (step[k, :n] >= 0).all() and (step[k, n:] == -1).all()
        assert file["final/input_weights"].shape[0] == len(SEEDS)
        assert file["data/x"].shape == (2, 2)


def test_xarray_opens_it_without_warnings(path):
    xarray = pytest.importorskip("xarray", reason="an extra")
    pytest.importorskip("h5netcdf", reason="an extra")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xarray.open_datatree(path, engine="h5netcdf") as tree:
            observables = tree["observables"]
            assert observables["residual"].dims == ("run", "row", "sample")
            assert observables["time"].dims == ("run", "row")
            assert tree["snapshots/input_weights"].dims == ("run", "row", "input", "neuron")
            assert tree["final/relative_change"].dims == ("run", "layer")
            assert tree["seed"].values.tolist() == list(SEEDS)
            assert float(tree["observables/step"].max()) > 0
            last = int(observables["n_rows"][0]) - 1
            assert observables["time"].values[0, last] == tree["final/time"].values[0]


def test_a_large_ensemble_is_the_same(members, path, tmp_path, monkeypatch):
    monkeypatch.setattr(ensemble_module, "_LARGEST_IMAGE", 0)
    large = tmp_path / "large.h5"
    write_ensemble(large, members)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["ensemble.h5", "large.h5"]
    with open_runs(path) as runs, open_runs(large) as again:
        for one, other in zip(runs, again, strict=True):
            assert_same(one, other)


@pytest.mark.parametrize("largest_image", [0, 1 << 28])
def test_a_write_that_fails_leaves_what_was_there(members, path, monkeypatch, largest_image):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = path.read_bytes()
    monkeypatch.setattr(ensemble_module, "_LARGEST_IMAGE", largest_image)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        write_ensemble(path, members[:2])
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("compression", ["lzf", "gzip"])
def test_compressed(members, path, tmp_path, compression):
    other = tmp_path / "compressed.h5"
    write_ensemble(other, members, compression)
    with open_runs(path) as runs, open_runs(other) as again:
        for one, two in zip(runs, again, strict=True):
            assert_same(one, two)


def test_data_that_are_not_bit_by_bit_the_same_are_kept_apart(members, tmp_path):
    x = members[1].groups["data"].arrays["x"]
    moved = Array(np.nextafter(x.values, 9.0), x.dims, x.long_name, x.units)
    data = GroupContents({**members[1].groups["data"].arrays, "x": moved})
    data.attributes = members[1].groups["data"].attributes
    other = RunContents(members[1].attributes, {**members[1].groups, "data": data})
    path = tmp_path / "ensemble.h5"
    write_ensemble(path, [members[0], other])
    with open_runs(path) as runs:
        assert_same(fs.Run(members[0]), runs[0])
        assert_same(fs.Run(other), runs[1])


def test_a_run_without_an_end(members, path):
    without = {name: group for name, group in members[1].groups.items() if name != "final"}
    running = RunContents({**members[1].attributes, "status": "preempted"}, without)
    write_ensemble(path, [members[0], running])
    with open_runs(path) as runs:
        assert runs[0].final["n_steps"] > 0
        assert not runs[1].final and runs[1].status == "preempted"
        assert_same(fs.Run(running), runs[1])


def test_what_does_not_go_together_is_refused(members):
    with pytest.raises(FlowsimError, match="at least one run"):
        ensemble_contents([])
    wider = fs.simulate(
        network={"width": 41},
        scaling={"gamma": 1.0, "gamma_prime": 0.0},
        data={"kind": "points", "x": [[-0.5], [0.5]], "y": [0.25, 0.5]},
        integrate={"stop_loss": 1e-3, "threads": 1},
    ).contents()
    with pytest.raises(FlowsimError, match="weights has different shapes.*seed"):
        ensemble_contents([members[0], wider])
