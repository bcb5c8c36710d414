"""Sweeps that are stopped or killed, parent or worker, and go on to the same result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest
from comparing import assert_same, assert_same_files

import flowsim as fs
from flowsim.recording.places import RunPlaces
from flowsim.recording.reader import RunFile
from flowsim.sweeps import store, work
from flowsim.sweeps.store import Stored

LONG = 15_000
"""Steps of a run of a second or more, on an idle machine too: signals are to find it at work."""

GRID_TEXT = """\
[network]
width = 40

[scaling]
gamma = 1.0
gamma_prime = 0.0

[data]
kind = "points"
x = [[-0.5], [0.5]]
y = [0.25, 0.5]

[integrate]
stop_loss = 1e-3
threads = 1
method = "gradient-descent"
max_steps = {steps}

[record]
flush = {{seconds = 0.02}}
checkpoint = {{seconds = 0.1}}

[grid]
"integrate.step" = [0.1, 1e-6]
seeds = 3
"""
COMMAND = "import sys; from flowsim.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Path:
    """Three quick runs at one point, three of a second or more at another."""
    path = tmp_path_factory.mktemp("grid") / "grid.toml"
    path.write_text(GRID_TEXT.format(steps=LONG))
    return path


@pytest.fixture(scope="module")
def undisturbed(grid) -> Path:
    fs.sweep(grid, grid.parent / "out", workers=2)
    return grid.parent / "out"


@pytest.fixture(scope="module")
def endless_grid(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("endless") / "grid.toml"
    path.write_text(GRID_TEXT.format(steps=10**9))
    return path


def start(grid: Path, out: Path, workers: int = 2) -> subprocess.Popen[str]:
    """Start a sweep and wait until one point is finished and a long run is growing."""
    command = [sys.executable, "-c", COMMAND, "sweep", str(grid), "-o", str(out)]
    process = subprocess.Popen(
        [*command, "--workers", str(workers)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (finished(out) and growing(out)):
        assert time.monotonic() < deadline and process.poll() is None, "nothing has happened"
        time.sleep(0.01)
    return process


def finished(out: Path) -> list[Path]:
    """Files of points."""
    return [path for path in out.glob("runs/*.h5") if "-" not in path.name]


def growing(out: Path) -> list[Path]:
    """Checkpoints of runs at points that have no file yet."""
    there = {path.stem for path in finished(out)}
    checkpoints = out.glob("runs/*.checkpoint")
    return [path for path in checkpoints if path.name.partition("-")[0] not in there]


def unfinished(out: Path) -> set[str]:
    """Runs that have files of their own."""
    return {path.name.partition(".")[0] for path in out.glob("runs/*-*")}


def processes(group: int) -> list[int]:
    """Return the processes of a group; dead ones that nobody has collected do not count."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = file.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state not in "ZX":
            found.append(int(file.parent.name))
    return found


def worker(out: Path) -> int:
    """Return the process that writes a growing run."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for checkpoint in growing(out):
            lock = checkpoint.with_suffix(".lock")
            try:
                return int(json.loads(lock.read_text())["pid"])
            except (OSError, ValueError):
                continue
    raise AssertionError("nobody is working")


def gone(group: int, seconds: float) -> bool:
    """Tell whether every process of a group ends within some seconds."""
    deadline = time.monotonic() + seconds
    while processes(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not processes(group)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "to_all", "workers"),
    [
        (signal.SIGINT, 130, True, 2),  # as a terminal does: to parent and workers
        (signal.SIGTERM, 75, False, 2),
        (signal.SIGTERM, 75, True, 2),  # as batch systems do
        (signal.SIGINT, 130, False, 1),
        (signal.SIGTERM, 75, False, 1),
    ],
)
def test_signals_stop_a_sweep_promptly_and_it_continues(
    endless_grid, grid, undisturbed, tmp_path, number, code, to_all, workers
):
    process = start(endless_grid, tmp_path / "endless", workers)
    began = time.monotonic()
    (os.killpg if to_all else os.kill)(process.pid, number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert time.monotonic() - began < 20
    assert not stdout and len(stderr.splitlines()) == 1 and "continues" in stderr, stderr
    assert gone(process.pid, 5)
    out = tmp_path / "endless"
    assert len(finished(out)) == 1 and not list(out.glob("runs/*.lock"))
    stopped = [path for path in out.glob("runs/*-*.h5")]
    assert stopped and not list(out.glob("runs/*.part")), sorted((out / "runs").iterdir())
    for path in stopped:
        assert RunPlaces(path).checkpoint.exists()
        with RunFile(path) as run:
            assert run.status == "preempted" and run.attributes["n_samples"] == 2
            steps = int(run.final["n_steps"])
            assert steps > 0
    if to_all:
        return
    # The same, but with an end: the runs go on from where they were, to the same bits.
    out = stopped_on_the_way(grid, tmp_path, workers, number)
    result = fs.sweep(grid, out, workers=2)
    assert result.n_skipped >= 3 and result.failed == []
    assert_same_files(out, undisturbed)


def stopped_on_the_way(grid: Path, folder: Path, workers: int, number: int) -> Path:
    """A sweep that a signal has stopped before its end: on a busy machine it may come too late."""
    for attempt in range(8):
        out = folder / f"out-{attempt}"
        process = start(grid, out, workers)
        process.send_signal(number)
        process.communicate(timeout=60)
        if unfinished(out):
            return out
    raise AssertionError("every sweep had come to its end before the signal came")


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.1, 0.3])
def test_a_killed_sweep_leaves_no_workers_and_continues(grid, undisturbed, tmp_path, delay):
    out = tmp_path / "out"
    process = start(grid, out)
    time.sleep(delay)
    process.kill()
    process.communicate(timeout=30)
    began = time.monotonic()
    left = finished(out)
    before = {path.name: path.stat().st_mtime_ns for path in left}
    result = fs.sweep(grid, out, workers=1)
    assert time.monotonic() - began < 60 and gone(process.pid, 10), "workers outlive their parent"
    assert result.failed == [] and result.n_skipped >= 3 and result.n_run == 6 - result.n_skipped
    assert {p.name: p.stat().st_mtime_ns for p in left if p.name in before} == before
    assert_same_files(out, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_is_killed_is_replaced(grid, undisturbed, tmp_path, number):
    process = start(grid, tmp_path / "out")
    os.kill(worker(tmp_path / "out"), number)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert "6 runs carried out" in stdout or "0 failed" in stdout
    assert_same_files(tmp_path / "out", undisturbed)


def test_runs_wait_in_files_of_their_own_for_the_others(grid, experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(work, "SAVE_SECONDS", 0.0)
    fs.sweep(experiment, tmp_path / "one", grid={"seeds": 3}, workers=1)
    monkeypatch.undo()
    fs.sweep(experiment, tmp_path / "two", grid={"seeds": 3}, workers=1)
    assert_same_files(tmp_path / "one", tmp_path / "two")


def test_what_a_killed_sweep_has_left_is_taken_or_tidied_up(experiment, tmp_path):
    grid = {"network.width": [10, 20, 30], "seeds": 2}
    fs.sweep(experiment, tmp_path / "one", grid=grid, workers=1)
    result = fs.sweep(experiment, tmp_path / "two", grid=grid, workers=1)
    own = {}
    for run, source in zip(result, result.runs._sources, strict=True):
        assert isinstance(source, Stored)
        own[source.path, run.seed] = source.path.with_name(f"{source.path.stem}-{run.seed}.h5")
        run.save(own[source.path, run.seed])
    first, second, third = dict.fromkeys(path for path, _ in own)
    first.unlink()  # killed before the runs, all finished, were put together
    second.unlink()
    own[second, 1].write_bytes(b"whatever")
    RunPlaces(own[third, 0]).lock.write_text("of a process that is dead")
    result = fs.sweep(experiment, tmp_path / "two", grid=grid, workers=1)
    assert (result.n_run, result.n_skipped, result.failed) == (1, 5, [])
    aside = own[second, 1].with_name(own[second, 1].name + ".damaged")
    assert aside.read_bytes() == b"whatever"
    aside.unlink()
    RunPlaces(own[third, 0]).lock.unlink(missing_ok=True)
    assert_same_files(tmp_path / "one", tmp_path / "two")


def test_runs_that_ran_out_of_time_go_on(experiment, tmp_path):
    experiment["record"] = {"flush": {"seconds": 0.0}, "checkpoint": {"seconds": 0.0}}
    experiment["integrate"]["max_steps"] = 6
    whole = fs.sweep(experiment, tmp_path / "whole", grid={"seeds": 2}, workers=1)
    experiment["integrate"]["max_seconds"] = 1e-6
    limited = fs.sweep(experiment, tmp_path / "out", grid={"seeds": 2}, workers=1)
    assert len(limited) == 2 and len(limited.failed) == 2
    assert all("max_seconds" in reason for _, reason in limited.failed)
    assert {run.status for run in limited} == {"preempted"}
    rounds = 0
    while limited.failed:
        limited = fs.sweep(experiment, tmp_path / "out", grid={"seeds": 2}, workers=1)
        rounds += 1
    assert rounds > 2 and not unfinished(tmp_path / "out")
    for run, wanted in zip(limited, whole, strict=True):
        assert_same(run, wanted, ("created", "config"), ("wall_seconds",))


def damaged_twice(experiment, out):
    """A sweep of one point whose file is damaged, and repeated, two times."""
    for _ in range(2):
        fs.sweep(experiment, out, grid={"seeds": 2}, workers=1)
        (file,) = (out / "runs").glob("*.h5")
        file.write_bytes(file.read_bytes()[:700] + os.urandom(100))
    fs.sweep(experiment, out, grid={"seeds": 2}, workers=1)
    return file


def test_what_is_set_aside_does_not_take_the_place_of_what_was_before(experiment, tmp_path):
    file = damaged_twice(experiment, tmp_path / "out")
    names = {path.name for path in file.parent.iterdir()}
    assert names == {file.name, f"{file.name}.damaged", f"{file.name}.damaged2"}
    contents = {(file.parent / name).read_bytes() for name in names}
    assert len(contents) == 3
    fs.sweep(experiment, tmp_path / "out", grid={"seeds": 2}, workers=1, overwrite=True)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("own", [False, True])
def test_files_of_a_later_version_are_refused_and_left_alone(experiment, tmp_path, own):
    out = tmp_path / "out"
    fs.sweep(experiment, out, grid={"seeds": 1}, workers=1)
    (file,) = (out / "runs").glob("*.h5")
    if own:
        file = file.rename(file.with_name(f"{file.stem}-0.h5"))
    with h5py.File(file, "r+") as changed:
        changed.attrs.modify("format_version", 99)
    before = file.read_bytes()
    with pytest.raises(fs.FileFormatError, match="is newer than"):
        fs.sweep(experiment, out, grid={"seeds": 1}, workers=1)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    if own:
        with pytest.raises(fs.FileFormatError, match="is newer than"):
            fs.simulate(experiment, output=file)


def test_locks_that_a_killed_sweep_has_left_go(experiment, tmp_path):
    out = tmp_path / "out"
    fs.sweep(experiment, out, grid={"seeds": 2}, workers=1)
    (file,) = (out / "runs").glob("*.h5")
    for seed in range(2):
        file.with_name(f"{file.stem}-{seed}.h5.lock").write_text("{}")
    fs.sweep(experiment, out, grid={"seeds": 2}, workers=1)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_on_a_full_disk_what_fits_is_saved(experiment, tmp_path, monkeypatch):
    """The file of one point does not fit; those of the other point, and single runs, do."""

    def full(path, members, compression="none"):
        if len(members) > 1 and members[0].attributes["width"] == 40:
            raise fs.StorageError(f"{path}: cannot be written (No space left on device)")
        return write(path, members, compression)

    write = store.write_ensemble
    grid = {"network.width": [40, 20], "seeds": 2}
    whole, out = tmp_path / "whole", tmp_path / "out"
    fs.sweep(experiment, whole, grid=grid, workers=1)
    with monkeypatch.context() as patch, pytest.raises(fs.StorageError, match="No space"):
        patch.setattr(store, "write_ensemble", full)
        fs.sweep(experiment, out, grid=grid, workers=1)
    names = sorted(path.name for path in (out / "runs").iterdir())
    assert [name.count("-") for name in names].count(1) == 2
    again = fs.sweep(experiment, out, grid=grid, workers=1)
    assert again.n_skipped >= 2
    assert_same_files(out, whole)
