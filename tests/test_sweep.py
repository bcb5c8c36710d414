"""Sweeps: expansion, resuming, workers that die, Ctrl-C, memory only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import tomllib
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import flowsim as fs
from flowsim.config import load_grid
from flowsim.errors import ConfigError, FlowsimError
from flowsim.sweeps.folder import SweepFolder
from flowsim.sweeps.grid import cut, expand
from flowsim.sweeps.pool import MAX_DEATHS, carry_out

GRID = {"scaling.gamma": [0.75, 1.25], "network.width": [20, 40], "seeds": 2}


def files(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted((folder / "runs").iterdir())}


# --- expansion ---------------------------------------------------------------------------------


def test_expansion_keeps_the_order_of_keys(experiment):
    points = expand(experiment, GRID)
    assert len(points) == len({point.id for point in points}) == 8
    assert [tuple(point.values.values()) for point in points[:3]] == [
        (0.75, 20, 0),
        (0.75, 20, 1),
        (0.75, 40, 0),
    ]
    last = points[-1].experiment
    assert (last.scaling.gamma, last.network.width, last.network.seed) == (1.25, 40, 1)
    assert all(point.id == point.experiment.hash()[:16] for point in points)


def test_seeds_are_counted_from_the_base_or_listed(experiment):
    experiment["network"]["seed"] = 7
    seeds = [p.experiment.network.seed for p in expand(experiment, {"seeds": 3})]
    assert seeds == [7, 8, 9]
    seeds = [p.experiment.network.seed for p in expand(experiment, {"seeds": [5, 2]})]
    assert seeds == [5, 2]
    with pytest.raises(ConfigError, match="network.seed"):
        expand(experiment, {"seeds": 3, "network.seed": [1]})


def test_equal_points_are_one_run(experiment):
    assert len(expand(experiment, {"scaling.gamma": [1, 1.0], "seeds": [0, 0]})) == 1


def test_a_grid_may_complete_an_experiment(experiment):
    del experiment["network"]["width"]
    assert len(expand(experiment, {"network.width": [3, 5]})) == 2
    experiment["scaling"] = {}
    assert len(expand(experiment, {"network.width": [3], "scaling.scheme": ["ntk", "he"]})) == 2


def test_grid_file_and_dictionaries_mean_the_same(grid_file, experiment):
    from_file = expand(*load_grid(grid_file))
    from_dict = expand(experiment, GRID)
    assert [point.id for point in from_file] == [point.id for point in from_dict]


def test_unit_of_work_is_a_point_at_a_width_with_its_seeds(experiment):
    units = cut(expand(experiment, GRID), workers=2)
    assert [len(unit.points) for unit in units] == [2, 2, 2, 2]
    widths = [{point.values["network.width"] for point in unit.points} for unit in units]
    assert widths == [{40}, {40}, {20}, {20}], "largest first"


def test_seeds_are_shared_out_when_there_is_nothing_else(experiment):
    points = expand(experiment, {"seeds": 5})
    assert [len(unit.points) for unit in cut(points, workers=1)] == [5]
    units = cut(points, workers=3)
    assert len(units) == 3
    assert sorted(p.id for u in units for p in u.points) == sorted(p.id for p in points)
    assert len(cut(points, workers=50)) == 5


# --- folders -----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_folder(grid_file, tmp_path, workers):
    result = fs.sweep(grid_file, tmp_path / "out", workers=workers)
    assert (result.n_run, result.n_skipped, result.failed) == (8, 0, [])
    assert len(result) == len(result.runs) == len(files(tmp_path / "out")) == 8
    widths = []
    for run, values in zip(result, result.values, strict=True):
        with run:
            assert run.status == "complete"
            assert run.attributes["width"] == values["network.width"]
            assert run.attributes["seed"] == values["network.seed"]
            widths.append(int(run.attributes["width"]))
    assert widths == [20, 20, 40, 40] * 2
    assert len(result.select({"network.width": 20})) == 4
    with pytest.raises(KeyError):
        result.select({"network.witdh": 20})
    stored = tomllib.loads((tmp_path / "out" / "grid.toml").read_text())
    assert stored["grid"] == GRID


def test_finished_runs_are_not_run_again(grid_file, tmp_path):
    out = tmp_path / "out"
    fs.sweep(grid_file, out, workers=1)
    before = files(out)
    again = fs.sweep(grid_file, out, workers=1)
    assert (again.n_run, again.n_skipped, len(again)) == (0, 8, 8)
    assert files(out) == before


def test_what_is_missing_or_damaged_is_run(grid_file, tmp_path):
    out = tmp_path / "out"
    fs.sweep(grid_file, out, workers=1)
    names = sorted(files(out))
    (out / "runs" / names[0]).unlink()
    (out / "runs" / names[1]).write_bytes(b"")
    damaged = out / "runs" / names[2]
    damaged.write_bytes(damaged.read_bytes()[:500])
    (out / "runs" / names[3]).write_bytes((out / "runs" / names[4]).read_bytes())
    (out / "runs" / "0123456789abcdef.1234.part").write_bytes(b"of a killed sweep")
    again = fs.sweep(grid_file, out, workers=1)
    assert (again.n_run, again.n_skipped, again.failed) == (4, 4, [])
    assert sorted(files(out)) == names


def test_values_may_be_added(experiment, tmp_path):
    fs.sweep(experiment, tmp_path, grid={"network.width": [20], "seeds": 2}, workers=1)
    wider = {"network.width": [20, 30], "scaling.gamma": [1.0, 1.25], "seeds": 3}
    result = fs.sweep(experiment, tmp_path, grid=wider, workers=1)
    assert (result.n_run, result.n_skipped) == (10, 2)


def test_another_grid_is_refused(experiment, tmp_path):
    grid = {"network.width": [10, 20]}
    fs.sweep(experiment, tmp_path, grid=grid, workers=1)
    before = files(tmp_path)
    experiment["integrate"]["stop_loss"] = 2e-3
    with pytest.raises(ConfigError, match=r"integrate\.stop_loss.*--overwrite"):
        fs.sweep(experiment, tmp_path, grid=grid, workers=1)
    assert files(tmp_path) == before
    result = fs.sweep(experiment, tmp_path, grid=grid, workers=1, overwrite=True)
    assert result.n_run == 2 and not set(files(tmp_path)) & set(before)


def test_overwrite_touches_nothing_but_runs(experiment, tmp_path):
    grid = {"network.width": [10]}
    fs.sweep(experiment, tmp_path, grid=grid, workers=1)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "runs" / "mine.h5").write_text("mine")
    assert fs.sweep(experiment, tmp_path, grid=grid, workers=1, overwrite=True).n_run == 1
    assert (tmp_path / "notes.txt").exists() and (tmp_path / "runs" / "mine.h5").exists()


def test_everything_is_checked_before_anything_is_written(experiment, tmp_path):
    grid = {"network.width": [10, -1], "scaling.gamma": [0.5, float("nan")]}
    with pytest.raises(ConfigError) as caught:
        fs.sweep(experiment, tmp_path / "out", grid=grid)
    assert len(caught.value.problems) == 2
    assert not (tmp_path / "out").exists()


def test_two_sweeps_do_not_share_a_folder(experiment, tmp_path):
    with (
        SweepFolder(tmp_path).lock(),
        pytest.raises(FlowsimError, match="another sweep"),
    ):
        fs.sweep(experiment, tmp_path, grid={"seeds": 1}, workers=1)


@pytest.mark.parametrize("workers", [0, -1, 1.5, "two", True])
def test_workers_must_be_a_number(experiment, workers):
    with pytest.raises(ConfigError, match="workers"):
        fs.sweep(experiment, grid={"seeds": 1}, workers=workers)


def test_failed_numerics_are_reported_and_kept(experiment, tmp_path):
    experiment["integrate"] |= {"method": "gradient-descent", "step": 1e3, "stop_loss": 1e-300}
    experiment["integrate"] |= {"max_steps": 50}
    experiment["network"]["activation"] = "x2_tanh_x"
    result = fs.sweep(experiment, tmp_path, grid={"seeds": 2}, workers=1)
    statuses = []
    for run in result:
        with run:
            statuses.append(run.status)
    assert len(result.failed) == statuses.count("failed")
    again = fs.sweep(experiment, tmp_path, grid={"seeds": 2}, workers=1)
    assert again.n_run == 0 and again.failed == result.failed


# --- memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_sweep_in_memory(experiment, tmp_path, monkeypatch, workers):
    monkeypatch.chdir(tmp_path)
    result = fs.sweep({**experiment, "grid": GRID}, workers=workers)
    assert result.folder is None and len(result) == 8
    losses = [float(run.final["loss"]) for run in result.runs[2:4]]
    assert all(loss < 1e-3 for loss in losses)
    assert not list(tmp_path.iterdir())
    classified = fs.classify(result)
    assert [point.gamma for point in classified.points] == [0.75, 1.25]
    assert classified.points[0].widths == (20, 40)


def test_numbers_do_not_depend_on_workers(experiment):
    one, two = (fs.sweep(experiment, grid=GRID, workers=workers) for workers in (1, 2))
    for here, there in zip(one, two, strict=True):
        for name in ("input_weights", "output_weights"):
            np.testing.assert_array_equal(here.final[name], there.final[name])


def test_numbers_do_not_depend_on_the_threads_of_linear_algebra(experiment):
    """Workers have one thread for BLAS, a run in this process may have many."""
    experiment["data"] = {"kind": "teacher", "width": 3, "n_samples": 300, "n_inputs": 10}
    experiment["integrate"] |= {"max_steps": 60}
    experiment["network"]["width"] = 500
    one, two = (fs.sweep(experiment, grid={"seeds": 2}, workers=workers) for workers in (1, 2))
    for here, there in zip(one, two, strict=True):
        np.testing.assert_array_equal(here.final["input_weights"], there.final["input_weights"])


def test_activation_and_data_from_a_script_reach_the_workers(experiment):
    import flowsim.kernels.activations as activations

    cube = activations.Activation("cube", lambda z: z * z * z, lambda z: 3.0 * z * z)
    dataset = fs.Dataset(
        x=np.array([[0.5, 1.0], [-0.5, 1.0], [1.0, 1.0]]), y=np.array([0.1, 0.2, 0.0])
    )
    experiment["integrate"] |= {"t_max": 0.1}
    result = fs.sweep(experiment, grid={"seeds": 2}, workers=2, dataset=dataset, activation=cube)
    assert not result.failed
    for run in result:
        assert run.attributes["activation"] == "cube"
        assert run.attributes["n_samples"] == 3


# --- the pool ----------------------------------------------------------------------------------


def _double(number: int, folder: Path, fatal: int, once: int) -> int:
    if number == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    mark = folder / "killed"
    if number == once and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def test_dead_workers_are_replaced_and_their_work_done_again(tmp_path):
    answers: dict[int, int] = {}
    lost: dict[int, str] = {}
    call = partial(_double, folder=tmp_path, fatal=3, once=5)
    carry_out(range(8), call, 2, answers.__setitem__, lost.__setitem__)
    assert answers == {number: 2 * number for number in range(8) if number != 3}
    assert list(lost) == [3] and f"died {MAX_DEATHS} times" in lost[3]


def test_workers_have_one_thread_and_ignore_ctrl_c():
    def look(_: int) -> tuple[str, bool]:
        handler = signal.getsignal(signal.SIGINT)
        return os.environ["OMP_NUM_THREADS"], handler is signal.SIG_IGN

    answers: dict[int, tuple[str, bool]] = {}
    carry_out([0], look, 2, answers.__setitem__, lambda *_: None)
    assert answers == {0: ("1", True)}


def test_what_cannot_be_sent_is_refused():
    lock = threading.Lock()
    with pytest.raises(FlowsimError, match="workers=1"):
        carry_out([0], lambda _: lock.locked(), 2, lambda *_: None, lambda *_: None)


# --- whole processes ---------------------------------------------------------------------------

SCRIPT = """
import flowsim as fs
result = fs.sweep({grid!r}, {output!r}, workers=2)
print(result.n_run, len(result.failed))
"""


def test_a_script_needs_no_main_guard(grid_file, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(grid=str(grid_file), output=str(tmp_path / "out")))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.stdout.split() == ["8", "0"], done.stderr
    assert not done.stderr


def long_sweep(grid_file: Path, tmp_path: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a sweep of some quick runs and many that never end; wait for the quick ones."""
    text = grid_file.read_text().split("[grid]")[0]
    text += '[grid]\n"integrate.step" = [0.1, 1e-9]\nseeds = 2\n'
    text = text.replace("stop_loss = 1e-3", 'stop_loss = 1e-3\nmethod = "gradient-descent"')
    path = tmp_path / "long.toml"
    path.write_text(text)
    out = tmp_path / "out"
    code = "import sys; from flowsim.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "sweep", str(path), "-o", str(out), "--workers", "2"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while len(list(out.glob("runs/*.h5"))) < 2 or not list(out.glob("runs/*.part")):
        assert time.monotonic() < deadline and process.poll() is None, "nothing was finished"
        time.sleep(0.05)
    return process, out


def running(group: int) -> list[str]:
    """Return the processes of a group; dead ones that nobody has collected do not count."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = file.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state not in "ZX":
            found.append(file.parent.name)
    return found


def gone(group: int, seconds: float) -> bool:
    """Tell whether every process of a group ends within some seconds."""
    deadline = time.monotonic() + seconds
    while running(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not running(group)


@pytest.mark.slow
def test_ctrl_c_stops_promptly_and_keeps_what_is_finished(grid_file, tmp_path):
    process, out = long_sweep(grid_file, tmp_path)
    start = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to parent and workers
    stdout, stderr = process.communicate(timeout=30)
    assert time.monotonic() - start < 5
    assert process.returncode == 130
    assert not stdout and len(stderr.splitlines()) == 1 and "continues" in stderr, stderr
    assert len(list(out.glob("runs/*.h5"))) == 2 and not list(out.glob("runs/*.part"))
    assert gone(process.pid, 5)


@pytest.mark.slow
def test_a_killed_sweep_leaves_no_workers_and_continues(grid_file, tmp_path):
    process, out = long_sweep(grid_file, tmp_path)
    process.kill()
    process.communicate(timeout=30)
    assert gone(process.pid, 10), "workers outlive their parent"
    text = (tmp_path / "long.toml").read_text().replace("1e-9]", "0.05]")
    (tmp_path / "long.toml").write_text(text)
    result = fs.sweep(tmp_path / "long.toml", out, workers=1)
    assert (result.n_run, result.n_skipped) == (2, 2)
    assert not list(out.glob("runs/*.part"))
