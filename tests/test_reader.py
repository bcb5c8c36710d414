"""Reading while a run grows, after it was killed, from memory, and what repair and export make."""

import csv
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

import flowsim as fs
from benchmarks import killing
from flowsim.cli import main
from flowsim.recording.hdf5 import file_image
from flowsim.recording.reader import RunFile
from flowsim.recording.superblock import clear_flags, lookup3, read_flags

FAST = {"integrate.max_steps": 300}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of many rows, undisturbed."""
    path = tmp_path_factory.mktemp("whole") / "run.h5"
    assert killing.carry_out(killing.configuration(**FAST), path) == 0
    return path


@pytest.fixture
def killed(tmp_path):
    """The same run, killed in the middle."""
    path = tmp_path / "run.h5"
    child = killing.Child(killing.configuration(**FAST), path)
    while child.committed.rows.get("observables", 0) < 100:
        assert child._take()
    child.kill()
    assert not path.exists()
    return path, child.committed.rows["observables"]


def test_lookup3_is_the_checksum_of_hdf5(tmp_path):
    assert lookup3(b"") == 0xDEADBEEF
    assert lookup3(b"Four score and seven years ago") == 0x17770551
    path = tmp_path / "file.h5"
    h5py.File(path, "w", libver=("v110", "v110")).close()
    head = path.read_bytes()[:48]
    assert lookup3(head[:44]) == int.from_bytes(head[44:], "little")
    assert read_flags(path) == 0
    path.write_text("no HDF5 file")
    assert read_flags(path) is None


def test_a_growing_run_is_read_while_it_grows(tmp_path, whole):
    output = tmp_path / "run.h5"
    child = killing.Child(killing.configuration(**FAST), output)
    seen = []
    with fs.open(whole) as run:
        expected = run.loss
    while child._take():
        reported = child.committed.rows.get("observables", 0)
        if reported < 2 or (seen and reported < seen[-1] + 60):
            continue
        with fs.open(output) as run:
            first, loss = run.time, run.loss
            if run.status == "running":
                assert run.state == "running" and f"process {child.pid}" in run.writer
                assert main(["info", str(output)]) == 0
        assert len(loss) >= len(first) >= reported
        assert loss.tobytes() == expected[: len(loss)].tobytes()
        seen.append(len(loss))
    os.waitpid(child.pid, 0)
    assert len(seen) >= 3 and seen == sorted(seen)


def test_one_reader_sees_the_rows_come(tmp_path):
    output = tmp_path / "run.h5"
    child = killing.Child(killing.configuration(**FAST), output)
    while "observables" not in child.committed.rows:
        assert child._take()
    with fs.open(output) as run:
        counts = [len(run.time)]
        while child._take():
            if child.committed.rows["observables"] > counts[-1]:
                counts.append(len(run.time))
                assert len(run.loss) >= counts[-1] >= child.committed.rows["observables"]
    os.waitpid(child.pid, 0)
    assert counts[-1] > counts[0]


def test_a_killed_run_is_read_and_repaired_and_continued(killed, whole, tmp_path, capsys):
    path, rows = killed
    with fs.open(path) as run:
        assert (run.status, run.state) == ("running", "killed")
        assert len(run.final) == 0
        assert len(run.time) >= rows
        kept = {name: run.observables[name] for name in run.observables}
    before = (path.parent / "run.h5.part").read_bytes()
    assert main(["info", str(path)]) == 0
    assert "killed; `flowsim run` continues it" in capsys.readouterr().out
    assert main(["repair", str(path), "-o", str(tmp_path / "copy.h5")]) == 0
    assert (path.parent / "run.h5.part").read_bytes() == before
    assert main(["repair", f"{path}.part"]) == 0
    assert not (path.parent / "run.h5.part").exists()
    with h5py.File(path) as file:  # an ordinary file
        assert len(file["observables/loss"]) == len(kept["loss"])
    with fs.open(path) as run:
        assert run.status == "preempted" and run.stop_reason.startswith("killed: ")
        assert {name: run.observables[name].tobytes() for name in kept} == {
            name: values.tobytes() for name, values in kept.items()
        }
        assert not run.verify()
    assert main(["repair", str(path)]) == 2
    assert "nothing to repair" in capsys.readouterr().err
    assert killing.carry_out(killing.configuration(**FAST), path) == 0
    assert not killing.same_run(path, whole)


def test_only_a_writer_or_repair_clears_the_flag(killed):
    path, _ = killed
    part = path.parent / "run.h5.part"
    assert read_flags(part)
    with fs.open(path) as run:
        run.verify()
    assert read_flags(part)
    clear_flags(part)
    assert read_flags(part) == 0
    with fs.open(path) as run:
        assert run.state == "killed"


def test_repair_is_refused_while_the_run_is_written(tmp_path, capsys):
    output = tmp_path / "run.h5"
    child = killing.Child(killing.configuration(), output)
    while "observables" not in child.committed.rows:
        assert child._take()
    assert main(["repair", str(output)]) == 2
    assert "is writing this run" in capsys.readouterr().err
    child.kill()


def test_a_run_in_memory_is_read_as_from_its_file(whole, tmp_path):
    with fs.open(whole) as run:
        contents = run.contents()
        memory = fs.Run(contents)
        assert memory.config == run.config and memory.seed == run.seed
        for name in run.groups:
            assert list(memory.group(name)) == list(run.group(name))
            for key in run.group(name):
                assert memory.group(name)[key].tobytes() == run.group(name)[key].tobytes()
        assert memory.snapshots.row("output_weights", 3).shape == (4000,)
    memory.save(tmp_path / "saved.h5")
    assert not killing.same_run(tmp_path / "saved.h5", whole)
    with pytest.raises(fs.ConfigError, match="exists already"):
        memory.save(tmp_path / "saved.h5")
    assert len(file_image(contents, "gzip")) < len(file_image(contents))


def test_names_that_do_not_exist(whole):
    with fs.open(whole) as run:
        with pytest.raises(KeyError, match="los; did you mean 'loss'"):
            run.observables["los"]
        loss = run.loss
    with pytest.raises(fs.FlowsimError, match="is closed; open it again"):
        run.observables["loss"]
    assert len(loss) == 301


def test_files_of_version_1_are_read(whole, tmp_path):
    """Those had variable-length texts, no checksums, and no end before they had ended."""
    old = tmp_path / "old.h5"
    with RunFile(whole) as run, h5py.File(old, "w") as file:
        for name, value in run.attributes.items():
            if name not in ("fingerprint", "attributes_checksum"):
                file.attrs[name] = value
        file.attrs["format_version"] = 1
        file.create_group("data").attrs["bias"] = True
        for name in run.groups:
            for key in run.group(name):
                values = run.group(name)[key]
                grows = name != "final" and run.group(name).time_name
                shape = (None, *values.shape[1:]) if grows else None
                file.create_dataset(f"{name}/{key}", data=values, maxshape=shape)
    with fs.open(old) as run, fs.open(whole) as new:
        assert run.status == "complete" and run.attributes["format_version"] == 1
        assert run.relative_change == new.relative_change
        assert run.loss.tobytes() == new.loss.tobytes()
        assert run.predict([0.1]).shape == (1,)


def test_export(whole, tmp_path, capsys):
    with fs.open(whole) as run:
        loss, residual = run.loss, run.observables["residual"]
        snapshots = run.snapshots["input_weights"]
    for to in ("npz", "csv", "h5md"):
        assert main(["export", str(whole), "--to", to, "-o", str(tmp_path / to)]) == 0
    with np.load(tmp_path / "npz", allow_pickle=False) as arrays:
        assert arrays["observables/loss"].tobytes() == loss.tobytes()
        assert str(arrays["attributes/status"]) == "complete"
    with open(tmp_path / "csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == loss.tolist()
    assert float(rows[-1]["residual_3"]) == residual[-1, 3]
    assert "relative_change_input" in rows[0]
    with h5py.File(tmp_path / "h5md") as file:
        assert file["h5md"].attrs["version"].tolist() == [1, 1]
        position = file["particles/neurons/position"]
        assert position["value"].shape == (len(snapshots), 4000, 2)
        assert (
            position["value"][2].T.tobytes() == np.ascontiguousarray(snapshots[2]).tobytes()
            or (position["value"][2] == snapshots[2].T).all()
        )
        assert len(position["time"]) == len(position["step"]) == len(snapshots)
        assert file["particles/neurons/box"].attrs["dimension"] == 2
        assert file["observables/loss/value"][:].tobytes() == loss.tobytes()
    capsys.readouterr()
    assert main(["export", str(whole), "--to", "pickle"]) == 2
    assert "choose from npz, csv, h5md" in capsys.readouterr().err
    assert main(["export", str(whole), "--to", "csv", "-o", str(tmp_path / "csv")]) == 2
    assert "exists already" in capsys.readouterr().err
    options = ["--to", "csv", "--overwrite", "--group", "final", "-o", str(tmp_path / "csv")]
    assert main(["export", str(whole), *options]) == 2
    assert "choose from observables, snapshots" in capsys.readouterr().err


def test_xarray_opens_a_run_without_warnings(whole):
    code = f"""
import warnings
warnings.simplefilter("error")
import xarray as xr
tree = xr.open_datatree({str(whole)!r}, engine="h5netcdf")
for name in ("observables", "snapshots", "data", "final"):
    for key, values in tree[name].data_vars.items():
        assert values.attrs["units"] and values.attrs["long_name"], (name, key)
assert tree["observables/residual"].dims == ("time", "sample")
assert tree["snapshots/input_weights"].dims == ("time_snapshot", "input", "neuron")
assert tree["observables"]["time"].attrs["units"] == "tau"
with xr.open_dataset({str(whole)!r}, engine="h5netcdf", group="observables") as observables:
    print(float(observables["loss"][-1]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with fs.open(whole) as run:
        assert float(done.stdout) == run.loss[-1]
