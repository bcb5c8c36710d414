"""Sweeps: expansion, folders, memory, the pool. Interrupted ones are in test_sweep_resume."""

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
from comparing import assert_same, assert_same_files

import flowsim as fs
from flowsim.config import load_grid
from flowsim.errors import ConfigError, FlowsimError
from flowsim.sweeps.folder import SweepFolder
from flowsim.sweeps.grid import cut, expand
from flowsim.sweeps.pool import carry_out
from flowsim.sweeps.processes import MAX_DEATHS

GRID = {"scaling.gamma": [0.75, 1.25], "network.width": [20, 40], "seeds": 2}


def files(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted((folder / "runs").iterdir())}


# --- expansion ---------------------------------------------------------------------------------


def test_expansion_keeps_the_order_of_keys(experiment):
    members = expand(experiment, GRID)
    assert len(members) == len({member.id for member in members}) == 8
    assert [tuple(member.values.values()) for member in members[:3]] == [
        (0.75, 20, 0),
        (0.75, 20, 1),
        (0.75, 40, 0),
    ]
    last = members[-1].experiment
    assert (last.scaling.gamma, last.network.width, last.network.seed) == (1.25, 40, 1)
    assert all(member.hash == member.experiment.hash() for member in members)
    assert [member.seed for member in members] == [0, 1] * 4


def test_runs_of_a_point_differ_in_their_seed_only(experiment):
    members = expand(experiment, GRID)
    assert len({member.point for member in members}) == 4
    for one, other in zip(members[::2], members[1::2], strict=True):
        assert one.point == other.point and one.values | {"network.seed": 1} == other.values
    again = expand(experiment, {"network.seed": [5, 0], "network.width": [20, 40]})
    assert [m.point for m in again[:2]] == [m.point for m in again[2:]]
    assert (
        expand(experiment, {"seeds": [3]})[0].point == expand(experiment, {"seeds": [4]})[0].point
    )


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
    assert [member.id for member in from_file] == [member.id for member in from_dict]


@pytest.mark.parametrize("seeds", [10**8, 1e8, [0] * 4000])
def test_more_runs_than_anybody_can_carry_out_are_refused_at_once(experiment, seeds):
    grid = {"seeds": seeds, "network.width": list(range(1, 3000))}
    with pytest.raises(ConfigError, match=r"runs, more than 1e\+07"):
        expand(experiment, grid)


def test_without_a_grid_everything_else_is_told_too(experiment):
    experiment["network"]["width"] = -1
    experiment["integrate"]["rtol"] = "small"
    with pytest.raises(ConfigError) as caught:
        expand(experiment, {})
    text = str(caught.value)
    assert len(caught.value.problems) == 3
    assert "[grid]" in text and "network.width" in text and "integrate.rtol" in text


@pytest.mark.parametrize(
    "key", ['grid."network.width"', "grid.'network.width'", "grid.network.width"]
)
def test_lists_of_a_grid_can_be_overridden(grid_file, key):
    members = expand(*load_grid(grid_file, [f"{key}=[30]", "grid.seeds=1"]))
    assert [member.values["network.width"] for member in members] == [30, 30]


@pytest.mark.parametrize(
    ("override", "remedy"),
    [
        ("network.width=50", """--set 'grid."network.width"=\\[50\\]'"""),
        ("network.seed=5", "--set 'grid.seeds="),
    ],
)
def test_overrides_without_effect_are_refused(grid_file, experiment, override, remedy):
    with pytest.raises(ConfigError, match=remedy):
        load_grid(grid_file, ["grid.seeds=[1,2]", override])
    with pytest.raises(ConfigError, match=remedy):
        fs.sweep(experiment, grid=GRID | {"seeds": [1, 2]}, overrides=[override])


def test_unit_of_work_is_a_point_with_its_seeds(experiment):
    units = cut(expand(experiment, GRID), workers=2)
    assert [len(unit.members) for unit in units] == [2, 2, 2, 2]
    widths = [{member.values["network.width"] for member in unit.members} for unit in units]
    assert widths == [{40}, {40}, {20}, {20}], "largest first"


def test_seeds_are_shared_out_when_there_is_nothing_else(experiment):
    members = expand(experiment, {"seeds": 5})
    assert [len(unit.members) for unit in cut(members, workers=1)] == [5]
    units = cut(members, workers=3)
    assert len(units) == 3
    assert sorted(m.id for u in units for m in u.members) == sorted(m.id for m in members)
    assert len(cut(members, workers=50)) == 5


# --- folders -----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_folder(grid_file, tmp_path, workers):
    result = fs.sweep(grid_file, tmp_path / "out", workers=workers)
    assert (result.n_run, result.n_skipped, result.failed) == (8, 0, [])
    assert len(result) == len(result.runs) == 8
    points = {member.point for member in expand(*load_grid(grid_file))}
    assert set(files(tmp_path / "out")) == {f"{point}.h5" for point in points}
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


def test_one_seed_is_an_ensemble_too(experiment, tmp_path):
    result = fs.sweep(experiment, tmp_path, grid={"network.width": [20]}, workers=1)
    (name,) = files(tmp_path)
    with fs.open(tmp_path / "runs" / name) as runs:
        assert runs.seeds == (0,)
    with result.runs[0] as run, fs.simulate(experiment, network={"width": 20}) as alone:
        assert_same(alone, run, ("created", "hardware", "config"), ("wall_seconds",))


def test_figures_of_one_run_of_a_point(experiment, tmp_path):
    result = fs.sweep(experiment, tmp_path, grid={"seeds": 2}, workers=1)
    with result.runs[1] as run:
        fs.plot("function", run, tmp_path / "a.png", data=tmp_path / "a.csv")
        fs.plot("function", run.path, tmp_path / "b.png", data=tmp_path / "b.csv", member=1)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    fs.plot("loss", run.path, tmp_path / "c.png")
    assert len(fs.classify(result).points) == 1


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
    for left_over in ("0123456789abcdef.h5~", "0123456789abcdef-3.h5.part~"):
        (out / "runs" / left_over).write_bytes(b"of a killed sweep")
    (out / "runs" / "mine.h5~").write_bytes(b"of somebody else")
    again = fs.sweep(grid_file, out, workers=1)
    assert (again.n_run, again.n_skipped, again.failed) == (6, 2, [])
    aside = [f"{name}.damaged" for name in names[1:3]]
    assert sorted(files(out)) == sorted([*names, *aside, "mine.h5~"])


def test_what_is_in_another_points_file_does_not_count(grid_file, tmp_path):
    out = tmp_path / "out"
    fs.sweep(grid_file, out, workers=1)
    names = sorted(files(out))
    (out / "runs" / names[0]).write_bytes((out / "runs" / names[1]).read_bytes())
    again = fs.sweep(grid_file, out, workers=1)
    assert (again.n_run, again.n_skipped, again.failed) == (2, 6, [])
    for run, values in zip(again, again.values, strict=True):
        with run:
            assert run.attributes["width"] == values["network.width"]


def test_values_and_seeds_may_be_added(experiment, tmp_path):
    first = fs.sweep(experiment, tmp_path, grid={"network.width": [20], "seeds": [3, 1]}, workers=1)
    created = {run.seed: run.attributes["created"] for run in first}
    time.sleep(1.1)  # as much as the date tells
    wider = {"network.width": [20, 30], "scaling.gamma": [1.0, 1.25], "seeds": 4}
    result = fs.sweep(experiment, tmp_path, grid=wider, workers=1)
    assert (result.n_run, result.n_skipped, result.failed) == (14, 2, [])
    assert len(files(tmp_path)) == 4
    for run in result.select({"network.width": 20, "scaling.gamma": 1.0}):
        with run:
            assert (run.attributes["created"] == created.get(run.seed)) == (run.seed in created)
    fewer = fs.sweep(experiment, tmp_path, grid={"network.width": [20], "seeds": [9]}, workers=1)
    assert (fewer.n_run, fewer.n_skipped) == (1, 0)
    with fs.open(next(iter(fewer)).path) as runs:
        assert runs.seeds == (0, 1, 2, 3, 9)
    assert [run.seed for run in first] == [3, 1], "runs are found wherever they are by now"


def test_an_ensemble_does_not_depend_on_how_it_came_about(experiment, tmp_path):
    grid = {"scaling.gamma": [0.75, 1.25], "seeds": 4}
    fs.sweep(experiment, tmp_path / "one", grid=grid, workers=1)
    for seeds in ([2], [3, 1]):
        fs.sweep(experiment, tmp_path / "two", grid=grid | {"seeds": seeds}, workers=1)
    fs.sweep(experiment, tmp_path / "two", grid=grid, workers=1)
    assert_same_files(tmp_path / "one", tmp_path / "two")


def test_a_run_whose_part_of_the_file_is_damaged(experiment, tmp_path):
    grid = {"seeds": 2}
    fs.sweep(experiment, tmp_path, grid=grid, workers=1)
    (file,) = (tmp_path / "runs").iterdir()
    image = bytearray(file.read_bytes())
    with fs.open(file) as runs:
        loss = runs[1].observables["loss"]
    place = image.find(loss[:2].tobytes())
    image[place] ^= 1
    file.write_bytes(image)
    result = fs.sweep(experiment, tmp_path, grid={"seeds": 3}, workers=1)
    assert result.n_run == 1 and len(result.failed) == 2
    assert all("checksum" in reason for _, reason in result.failed)
    assert fs.sweep(experiment, tmp_path, grid={"seeds": 3}, workers=1).n_run == 2
    assert fs.sweep(experiment, tmp_path, grid={"seeds": 3}, workers=1).failed == []


def test_runs_of_an_earlier_version_are_refused(experiment, tmp_path):
    grid = {"network.width": [20]}
    fs.sweep(experiment, tmp_path, grid=grid, workers=1)
    (file,) = (tmp_path / "runs").iterdir()
    with fs.open(file) as runs:
        runs[0].save(file, overwrite=True)
    before = files(tmp_path)
    with pytest.raises(ConfigError, match="earlier version.*one in a file.*--overwrite"):
        fs.sweep(experiment, tmp_path, grid=grid, workers=1)
    assert files(tmp_path) == before
    assert len(fs.classify(tmp_path).points) == 1
    assert fs.sweep(experiment, tmp_path, grid=grid, workers=1, overwrite=True).n_run == 1


def test_runs_that_do_not_go_into_one_file_are_told(experiment, tmp_path):
    grid = {"seeds": 1}
    fs.sweep(experiment, tmp_path, grid=grid, workers=1, observables={"mine": lambda frame: 1.0})
    wider = {"mine": lambda frame: np.ones(3)}
    result = fs.sweep(experiment, tmp_path, grid={"seeds": 2}, workers=1, observables=wider)
    assert len(result) == 1 and len(result.failed) == 1
    assert "mine has different shapes" in result.failed[0][1]


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
    (tmp_path / "runs" / "0123456789abcdef-3.h5.checkpoint.previous").write_text("of a sweep")
    assert fs.sweep(experiment, tmp_path, grid=grid, workers=1, overwrite=True).n_run == 1
    assert (tmp_path / "notes.txt").exists() and (tmp_path / "runs" / "mine.h5").exists()
    assert len(files(tmp_path)) == 2


def test_everything_is_checked_before_anything_is_written(experiment, tmp_path):
    grid = {"network.width": [10, -1], "scaling.gamma": [0.5, float("nan")]}
    with pytest.raises(ConfigError) as caught:
        fs.sweep(experiment, tmp_path / "out", grid=grid)
    assert len(caught.value.problems) == 2
    assert not (tmp_path / "out").exists()


def test_a_folder_at_which_another_sweep_works_is_not_overwritten(experiment, tmp_path):
    with (
        SweepFolder(tmp_path).opened(experiment, {"seeds": 1}, overwrite=False),
        pytest.raises(FlowsimError, match="another sweep.*--overwrite"),
    ):
        fs.sweep(experiment, tmp_path, grid={"seeds": 1}, workers=1, overwrite=True)


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
