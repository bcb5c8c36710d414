"""Sweeps that share a folder: claims, shards, states, batch scripts, a Dask cluster."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from comparing import assert_same_files

import flowsim as fs
from flowsim.cli import main
from flowsim.errors import ConfigError
from flowsim.sweeps.claims import Claimant, Claims, claim_file, living_claims, read_claim
from flowsim.sweeps.costs import CostModel
from flowsim.sweeps.failures import write_failure
from flowsim.sweeps.given import in_shard, parse_shard
from flowsim.sweeps.grid import expand
from flowsim.sweeps.pool import LATER, carry_out
from flowsim.sweeps.status import sweep_status

POINT = "0123456789abcdef"


def dead_process() -> Claimant:
    """A process of this machine that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return replace(Claimant.here(), pid=process.pid, started="1", token="of the dead")


def put_claim(folder: Path, claimant: Claimant, point: str = POINT) -> Path:
    path = claim_file(folder, point)
    path.write_text(json.dumps(asdict(claimant)))
    return path


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    """A folder with the runs of the quick grid, and the grid file beside it."""
    import conftest

    folder = tmp_path_factory.mktemp("swept")
    (folder / "grid.toml").write_text(conftest.QUICK_TOML + conftest.QUICK_GRID)
    fs.sweep(folder / "grid.toml", folder / "out", workers=1)
    return folder / "out"


# --- claims ------------------------------------------------------------------------------------


def test_a_point_is_claimed_by_one(tmp_path):
    with Claims(tmp_path) as one, Claims(tmp_path) as other:
        assert one.take(POINT) and one.take(POINT) and not other.take(POINT)
        assert living_claims(tmp_path) == {POINT: read_claim(claim_file(tmp_path, POINT))}
        other.release(POINT)
        assert not other.take(POINT), "what is not one's own is not released"
        one.release(POINT)
        assert other.take(POINT) and not one.take(POINT)
    assert not list(tmp_path.iterdir()), "nothing is left"


def test_claims_of_the_dead_are_taken_over_by_one(tmp_path):
    for _ in range(20):
        put_claim(tmp_path, dead_process() if _ == 0 else replace(Claimant.here(), started="1"))
        assert not living_claims(tmp_path)
        rivals = [Claims(tmp_path) for _ in range(4)]
        barrier, got = threading.Barrier(4), []

        def try_it(claims, barrier=barrier, got=got):
            barrier.wait()
            got.append(claims.take(POINT))

        threads = [threading.Thread(target=try_it, args=(claims,)) for claims in rivals]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(got) <= 1
        assert sum(got) or any(claims.take(POINT) for claims in rivals)
        for claims in rivals:
            claims.release(POINT)
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", [None, "", "{}", "no claim"])
def test_claims_that_do_not_beat_are_taken_over(tmp_path, text):
    """Of another machine nobody knows whether its process lives, but beats can be missed."""
    now = 0.0
    far = replace(Claimant.here(), machine="another", pid=1, started="1")
    path = put_claim(tmp_path, far)
    if text is not None:
        path.write_text(text)
    claims = Claims(tmp_path, beat=1.0, clock=lambda: now)
    assert not claims.take(POINT)
    now = 5.0
    assert not claims.take(POINT)
    os.utime(path, ns=(0, 0))  # a beat, whatever that machine takes for the time
    assert not claims.take(POINT)
    now = 10.9
    assert not claims.take(POINT)
    now = 11.1
    assert claims.take(POINT)
    os.utime(path, ns=(0, 0))
    claims.beat()
    assert path.stat().st_mtime > time.time() - 60
    put_claim(tmp_path, far)  # this process has slept too long itself
    os.utime(path, ns=(0, 0))
    claims.beat()
    claims.release(POINT)
    assert path.stat().st_mtime_ns == 0 and read_claim(path) == far


def test_what_others_are_at_comes_later():
    asked: list[int] = []

    def admit(number):
        asked.append(number)
        if number == 2:
            return None
        return LATER if number == 0 and asked.count(0) < 2 else number

    answers: list[tuple[int, int]] = []
    carry_out(
        range(4),
        lambda number: -number,
        1,
        lambda *both: answers.append(both),
        lambda *_: None,
        admit=admit,
    )
    assert answers == [(1, -1), (3, -3), (0, 0)] and asked == [0, 1, 2, 3, 0]


def test_two_sweeps_share_a_folder(swept, tmp_path):
    """Each point is carried out by one of them, and both end with everything."""
    results = {}

    def work(name: str) -> None:
        results[name] = fs.sweep(swept.parent / "grid.toml", tmp_path / "out", workers=1)

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(result.n_run for result in results.values()) == 8
    assert [len(result) for result in results.values()] == [8, 8]
    assert all(result.n_run + result.n_skipped == 8 for result in results.values())
    assert_same_files(tmp_path / "out", swept)
    times = (tmp_path / "out" / "times.csv").read_text().splitlines()
    assert len({line.split(",")[0] for line in times}) == len(times) == 4


# --- shards ------------------------------------------------------------------------------------


def test_shards_are_parts_of_the_whole(experiment):
    grid = {"network.width": [10, 20, 30, 40, 50], "seeds": 3}
    members = expand(experiment, grid)
    parts = [in_shard(members, (number, 3)) for number in (1, 2, 3)]
    assert sorted(m.id for part in parts for m in part) == sorted(m.id for m in members)
    points = [{m.point for m in part} for part in parts]
    assert [len(some) for some in points] == [2, 2, 1] and not points[0] & points[1]


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "a/b", "1/0", "-1/2", "1/2/3", "²/3"])
def test_shards_that_are_none(experiment, text):
    with pytest.raises(ConfigError, match="shard = .*i/N"):
        in_shard(expand(experiment, {"seeds": 1}), parse_shard(text))


def test_shards_together_are_the_sweep(swept, tmp_path, capsys):
    grid, out = str(swept.parent / "grid.toml"), str(tmp_path / "out")
    command = ["sweep", grid, "-o", out, "--workers", "1"]
    assert main([*command, "--shard", "1/2"]) == 0
    assert "4 runs carried out, 0 finished before" in capsys.readouterr().out
    assert main(["sweep", "status", out, "--json"]) == 75
    found = json.loads(capsys.readouterr().out)
    assert found["counts"] == {"done": 4, "failed": 0, "running": 0, "open": 4}
    assert {run["state"] for run in found["runs"]} == {"done", "open"}
    assert found["core_seconds_spent"] > 0 and found["core_seconds_left"] > 0
    assert main([*command, "--shard", "2/2"]) == 0
    assert main(["sweep", "status", out]) == 0
    assert "8 done, 0 failed, 0 running, 0 open" in capsys.readouterr().out
    assert_same_files(tmp_path / "out", swept)


# --- states ------------------------------------------------------------------------------------


def test_status_needs_a_sweep(tmp_path, capsys):
    assert main(["sweep", "status", str(tmp_path)]) == 2
    assert "holds no sweep" in capsys.readouterr().err


def test_runs_that_were_given_up_are_listed_and_not_tried_again(experiment, tmp_path, capsys):
    grid = {"network.width": [10, 20]}
    first, second = expand(experiment, grid)
    (tmp_path / "runs").mkdir()
    write_failure(tmp_path / "runs", first.id, "its worker died")
    result = fs.sweep(experiment, tmp_path, grid=grid, workers=1)
    assert result.n_run == 1 and result.failed == [(first.id, "its worker died")]
    put_claim(tmp_path / "runs", Claimant.here(), second.point)
    assert main(["sweep", "status", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "1 done, 1 failed, 0 running" in out and "its worker died" in out
    (tmp_path / "runs" / f"{second.point}.h5").unlink()
    assert sweep_status(tmp_path).counts["running"] == 1
    claim_file(tmp_path / "runs", second.point).unlink()
    again = fs.sweep(experiment, tmp_path, grid=grid, workers=1, retry_failed=True)
    assert again.n_run == 2 and again.failed == []
    assert not list(tmp_path.glob("runs/*.failed"))


def test_what_cannot_be_begun_is_given_up(experiment, tmp_path):
    def fault(frame):
        raise ZeroDivisionError("mine")

    grid = {"seeds": 1}
    for n_run in (1, 0):
        result = fs.sweep(experiment, tmp_path, grid=grid, workers=1, observables={"f": fault})
        assert result.n_run == n_run and "ZeroDivisionError: mine" in result.failed[0][1]


# --- costs -------------------------------------------------------------------------------------


def test_measured_times_correct_the_estimate(experiment, tmp_path):
    members = expand(experiment, {"network.width": [100, 1000]})
    small, large = members
    assert large.cost > 2 * small.cost
    path = tmp_path / "times.csv"
    before = CostModel(path)
    assert before.seconds_for(members) == pytest.approx(small.cost + large.cost)
    before.note([small], 3 * small.cost)
    before.note([large], 3 * large.cost)
    with open(path, "a") as file:
        file.write("cut,off")
    after = CostModel(path)
    assert after.n_runs == 2
    assert after.seconds_for([large]) == pytest.approx(3 * large.cost, rel=1e-4)


def test_dry_run_writes_nothing(swept, tmp_path, capsys):
    grid = str(swept.parent / "grid.toml")
    assert main(["sweep", grid, "--dry-run", "--workers", "2"]) == 0
    out = capsys.readouterr().out
    assert "4 points, 8 runs" in out and "MiB" in out and "core hours" in out
    assert "alone" in out
    assert main(["sweep", grid, "-o", str(swept), "--dry-run", "--shard", "1/2"]) == 0
    assert "4 runs of 8 (shard 1/2)" in (out := capsys.readouterr().out)
    assert "8 measured runs" in out
    assert main(["sweep", grid]) == 2
    assert "--output" in capsys.readouterr().err


# --- batch systems -----------------------------------------------------------------------------


def test_the_batch_script_carries_out_the_sweep(swept, tmp_path, capsys):
    out = tmp_path / "out with 'quotes'"
    command = ["sweep", "submit", str(swept.parent / "grid.toml"), "-o", str(out)]
    assert main([*command, "--shards", "1", "--hours", "1.5", "--partition", "long"]) == 0
    script = capsys.readouterr().out
    for line in ("--array=1-1", "--time=01:30:00", "--partition=long", "--signal=B:USR1@120"):
        assert f"#SBATCH {line}\n" in script
    places = [str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | {"SLURM_ARRAY_TASK_ID": "1", "PATH": os.pathsep.join(places)}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same_files(out, swept)
    assert main([*command, "--partition", "a\n#SBATCH --x"]) == 2


# --- Dask --------------------------------------------------------------------------------------

CLUSTER = """
import os
from pathlib import Path
import flowsim as fs


def fatal(frame):
    mark = Path({folder!r}) / "killed"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), 9)
    return 1.0


if __name__ == "__main__":
    mine = {{"fatal": fatal}}
    result = fs.sweep({grid!r}, {output!r}, workers=1, dask="local", observables=mine)
    print(result.n_run, result.n_skipped, result.failed)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None,
    reason="Dask is not installed; pip install 'flowsim[dask]'",
)
def test_a_cluster_whose_worker_is_killed(swept, tmp_path):
    script, out = tmp_path / "script.py", tmp_path / "out"
    grid = str(swept.parent / "grid.toml")
    script.write_text(CLUSTER.format(folder=str(tmp_path), grid=grid, output=str(out)))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert (tmp_path / "killed").exists(), done.stderr
    assert done.stdout.split() == ["8", "0", "[]"], done.stderr
    assert sweep_status(out).counts["done"] == 8
    assert len({run.attributes["config_hash"] for run in fs.sweep(grid, out, workers=1)}) == 8


def test_without_a_cluster(experiment):
    if importlib.util.find_spec("distributed") is None:
        with pytest.raises(ConfigError, match="pip install"):
            fs.sweep(experiment, grid={"seeds": 1}, dask="tcp://127.0.0.1:9")
    else:
        with pytest.raises(fs.FlowsimError, match="no cluster"):
            fs.sweep(experiment, grid={"seeds": 1}, dask="nonsense://127.0.0.1:9")
