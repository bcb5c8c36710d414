"""A finished run that is asked for more: it stays what it was until it has come to its new end."""

import os
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest

import flowsim as fs
from benchmarks import killing
from benchmarks.killing import same_run
from flowsim import execution
from flowsim.cli import main
from flowsim.recording.places import RunPlaces

EAGER = {"flush": {"seconds": 0.0}, "checkpoint": {"seconds": 0.0}}
RECORDS = pytest.mark.parametrize("record", [EAGER, {}], ids=["long", "short"])
MORE = {"stop_loss": 1e-5}


@pytest.fixture
def experiment(experiment):
    experiment["network"] |= {"width": 60, "antisymmetric": True}
    experiment["integrate"]["stop_loss"] = 1e-2
    experiment["record"] = dict(EAGER)
    return experiment


def simulate(experiment, output, integrate=(), **options):
    integrate = {**experiment["integrate"], **dict(integrate)}
    return fs.simulate({**experiment, "integrate": integrate}, output=output, **options)


def beside(output):
    return sorted(file.name for file in output.parent.iterdir() if file.name != output.name)


class Killed(BaseException):
    """In the place of SIGKILL: nothing is done any more."""


def killed(*_):
    raise Killed


def test_killed_before_anything_was_computed_it_goes_on(experiment, tmp_path, monkeypatch):
    output = tmp_path / "run.h5"
    simulate(experiment, tmp_path / "whole.h5", MORE)
    simulate(experiment, output)
    before = output.read_bytes()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(execution._Execution, "run", killed)
        simulate(experiment, output, MORE)
    part = RunPlaces(output).part
    with fs.open(part) as run:
        assert (run.status, run.state, len(run.final)) == ("running", "killed", 0)
        assert not run.verify()
    # The command that the finished run was made with has what it asked for.
    assert simulate(experiment, output).status == "complete"
    assert output.read_bytes() == before and part.exists()
    assert simulate(experiment, output, MORE).status == "complete"
    assert not same_run(output, tmp_path / "whole.h5")
    assert not part.exists()


def test_killed_by_the_system_it_goes_on(tmp_path):
    short, long = (killing.configuration(**{"integrate.max_steps": n}) for n in (150, 300))
    whole, output = tmp_path / "whole.h5", tmp_path / "run.h5"
    assert killing.carry_out(long, whole) == 0
    assert killing.carry_out(short, output) == 0
    before = output.read_bytes()
    for rows in (160, 220):
        child = killing.Child(long, output)
        while child.committed.rows.get("observables", 0) < rows:
            assert child._take()
        child.kill()
        assert output.read_bytes() == before
        with fs.open(RunPlaces(output).part) as run:
            assert run.state == "killed"
        assert killing.carry_out(short, output) == 0
        assert output.read_bytes() == before
    assert killing.carry_out(long, output) == 0
    assert not same_run(output, whole)


@pytest.mark.parametrize("content", [b"", b"no HDF5 file"])
def test_a_growing_file_that_cannot_be_read_gives_way_to_the_finished_run(
    experiment, tmp_path, content
):
    output = tmp_path / "run.h5"
    simulate(experiment, tmp_path / "whole.h5", MORE)
    simulate(experiment, output)
    part = RunPlaces(output).part
    asked = {}
    for number, more in (("", {"stop_loss": 1e-3}), ("2", MORE)):
        part.write_bytes(content)
        assert simulate(experiment, output, asked).status == "complete"
        with pytest.raises(fs.ConfigError, match="run.h5.part is beside it"):
            simulate({**experiment, "network": {"width": 61}}, output, MORE)
        simulate(experiment, output, more)
        asked = more
        assert (tmp_path / f"run.h5.part.damaged{number}").read_bytes() == content
    assert not same_run(output, tmp_path / "whole.h5")


def test_a_checkpoint_beyond_the_end_of_the_file_is_of_no_use(experiment, tmp_path):
    """The row of that end is where the longer run has another one."""
    output = tmp_path / "run.h5"
    places = RunPlaces(output)
    experiment["record"]["observables"] = {"schedule": "steps", "every": 2}
    limits = {"stop_loss": 0.0, "max_steps": 40}
    simulate(experiment, tmp_path / "whole.h5", limits)
    simulate(experiment, output, {**limits, "max_steps": 11})
    finished = output.read_bytes()
    simulate(experiment, output, {**limits, "max_steps": 14})
    places.previous.unlink()
    output.write_bytes(finished)
    simulate(experiment, output, limits)
    assert not same_run(output, tmp_path / "whole.h5")


@RECORDS
@pytest.mark.parametrize("scratch", [False, True])
def test_a_finished_run_stays_until_the_longer_one_has_ended(
    experiment, tmp_path, record, scratch, capsys
):
    experiment["record"] = record
    options = {}
    if scratch:
        (tmp_path / "scratch").mkdir()
        options["scratch"] = tmp_path / "scratch"
    whole, output = tmp_path / "whole.h5", tmp_path / "out" / "run.h5"
    output.parent.mkdir()
    simulate(experiment, whole, MORE)
    simulate(experiment, output, **options)
    before = output.read_bytes()
    rounds = 0
    while True:
        run = simulate(experiment, output, {**MORE, "max_seconds": 1e-6}, **options)
        if run.status == "complete":
            break
        rounds += 1
        assert run.status == "preempted" and run.path == f"{output}.part"
        assert output.read_bytes() == before
        with fs.open(output) as finished:
            assert finished.status == "complete"
        again = simulate(experiment, output, **options)
        assert again.status == "complete" and again.path == str(output)
        if rounds == 1:
            assert main(["info", str(output)]) == 0
            said = capsys.readouterr().out
            assert "run.h5.part: this run, asked for more, preempted" in said
    assert rounds > 2
    assert run.path == str(output)
    assert not same_run(output, whole)
    assert not [name for name in beside(output) if name.endswith(".part")]


def test_the_command_line_says_that_the_finished_run_is_still_there(
    experiment_file, tmp_path, capsys
):
    output = str(tmp_path / "run.h5")
    command = ["run", str(experiment_file), "-o", output]
    assert main(command) == 0
    more = [*command, "--set", "integrate.stop_loss=1e-6"]
    capsys.readouterr()
    assert main([*more, "--max-hours", "1e-9"]) == 75
    out, err = capsys.readouterr()
    assert out.startswith(f"{output}.part: preempted")
    assert err == f"{output}: still the run as it ended before\n"
    assert main(command) == 0
    assert main(more) == 0
    assert capsys.readouterr().err == ""


@RECORDS
def test_an_estimate_of_the_error_may_be_asked_for_later_and_no_longer(
    experiment, tmp_path, record
):
    experiment["record"] = record
    output, whole, plain = (tmp_path / f"{name}.h5" for name in ("run", "whole", "plain"))
    simulate(experiment, whole, {**MORE, "estimate_error": True})
    simulate(experiment, plain, {"stop_loss": 1e-6})
    simulate(experiment, output, MORE)
    run = simulate(experiment, output, {**MORE, "estimate_error": True})
    assert run.final["error_relative_change"].shape == (3,)
    assert not same_run(output, whole) and not run.verify()
    run = simulate(experiment, output, {"stop_loss": 1e-6})
    assert "error_outputs" not in run.final
    assert not same_run(output, plain) and not run.verify()
    with h5py.File(output, locking=False) as file:  # no axis is attached to what is gone
        layer = file["final/layer"]
        assert len(layer.attrs["REFERENCE_LIST"]) == 2


def test_files_are_readable_after_many_changes_of_their_texts(experiment, tmp_path):
    """HDF5 leaves bytes of replaced texts behind; those are no damage."""
    output = tmp_path / "run.h5"
    x = np.linspace(-1.0, 1.0, 400)
    del experiment["data"]
    for k in range(8):
        rules = {"stop_loss": 0.0, "max_steps": 5 + k, "estimate_error": k % 2 == 1}
        # A text of another length each time, some of which do not fit where others have been.
        limits = {"max_seconds": float(f"1e{k + 3}"), "steady_min_time": 10.0 ** (4 + k)}
        run = simulate(experiment, output, {**rules, **limits}, x=x, y=x**2)
        assert run.status == "complete" and not run.verify()


def test_a_run_that_was_continued_and_killed_can_be_repaired(experiment, tmp_path, monkeypatch):
    """What /final held before does not count any more, nor do its checksums."""
    output = tmp_path / "run.h5"
    run = simulate(experiment, output, {"max_seconds": 1e-6})
    assert run.status == "preempted" and len(run.final)
    child = os.fork()
    if child == 0:
        from flowsim.recording.recorder import Recorder

        Recorder.step = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        simulate(experiment, output)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    part = RunPlaces(output).part
    with fs.open(part) as run:
        assert run.state == "killed" and not len(run.final) and not run.verify()
    assert main(["repair", str(part)]) == 0
    with fs.open(output) as run:
        assert run.status == "preempted" and not run.verify()


@pytest.mark.parametrize(
    "name",
    ["run.h5.part", "run.h5.checkpoint", "run.h5.checkpoint.previous", "run.h5.lock", "run.h5~",
     "run.h5.part.damaged", "run.h5.damaged2"],
)  # fmt: skip
def test_names_of_files_beside_a_run_are_refused(experiment, tmp_path, name, capsys):
    with pytest.raises(fs.ConfigError, match=r"kept beside a run; name run\.h5$"):
        simulate(experiment, tmp_path / name)
    simulate(experiment, tmp_path / "other.h5", {"max_seconds": 1e-6})
    assert main(["repair", str(tmp_path / "other.h5"), "-o", str(tmp_path / name)]) == 2
    assert "kept beside a run" in capsys.readouterr().err


@pytest.mark.parametrize("lost", ["lock", "part"])
def test_not_a_byte_goes_into_a_file_that_is_somebody_elses(tmp_path, lost):
    """Neither then, nor when the process ends and HDF5 closes what is open."""
    script = f"""
import os, shutil, sys, flowsim as fs
output = {str(tmp_path / "run.h5")!r}
lost = {lost!r}

def steal(frame):
    if frame.step == 7:
        if lost == "lock":  # another process takes over, and writes to the very same file
            os.unlink(output + ".lock")
            open(output + ".lock", "w").close()
            with open(output + ".part", "r+b") as file:
                file.seek(100_000)
                file.write(b"mine" * 200_000)
            shutil.copy(output + ".part", output + ".seen")
        else:
            os.rename(output + ".part", output + ".moved")
            shutil.copy(output + ".moved", output + ".seen")
    return 0.0

try:
    fs.simulate(
        network={{"width": 50}}, scaling={{"gamma": 1.0, "gamma_prime": 0.0}},
        x=[[-0.5], [0.5]], y=[0.25, 0.5],
        record={{"observables": {{"schedule": "steps", "every": 1}},
                "flush": {{"seconds": 0.0}}, "checkpoint": {{"seconds": 0.0}}}},
        observables={{"own": steal}},
        output=output,
    )
except fs.StorageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr
    assert ("lock is lost" if lost == "lock" else "has vanished") in done.stdout
    left = tmp_path / ("run.h5.part" if lost == "lock" else "run.h5.moved")
    assert left.read_bytes() == (tmp_path / "run.h5.seen").read_bytes()
    assert not (tmp_path / "run.h5").exists()
    assert (tmp_path / "run.h5.lock").exists() == (lost == "lock")


def test_a_write_that_fails_is_answered_like_a_full_disk(experiment_file, tmp_path, capsys):
    from flowsim.recording.stream import RunStream

    write = RunStream._write
    calls = []

    def failing(dataset, start, values):
        calls.append(dataset)
        if len(calls) > 100:
            raise OSError("Can't synchronously write data (errno = 5), buf = 0x0")
        write(dataset, start, values)

    settings = ["record.flush.seconds=0.0", "record.checkpoint.seconds=0.0"]
    more = [word for setting in settings for word in ("--set", setting)]
    output = tmp_path / "run.h5"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunStream, "_write", staticmethod(failing))
        assert main(["run", str(experiment_file), "-o", str(output), *more]) == 74
    assert "cannot be written (Can't synchronously write data" in capsys.readouterr().err
    assert not output.exists()
    with fs.open(output) as run:
        assert (run.path, run.state) == (f"{output}.part", "killed")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("abc", "'abc': not numbers"),
        (None, "None: not numbers"),
        (1j, "1j: not numbers"),
        ([[1.0], [1.0, 2.0]], "not numbers"),
        (np.zeros(2), r"has shape \(2,\) where it had \(3,\)"),
        (np.zeros((1, 3)), r"has shape \(1, 3\) where it had \(3,\)"),
        (0.0, r"has shape \(\) where it had \(3,\)"),
    ],
)
@RECORDS
def test_an_observable_that_changes_its_mind_costs_no_rows(experiment, tmp_path, record, bad, said):
    experiment["record"] = {**record, "observables": {"schedule": "steps", "every": 1}}
    observables = {"own": lambda frame: bad if frame.step == 6 else np.full(3, frame.step)}
    with pytest.raises(fs.ConfigError, match=f"observables.own = .*{said}") as raised:
        simulate(experiment, tmp_path / "run.h5", observables=observables)
    assert "\n" not in str(raised.value)
    with fs.open(tmp_path / "run.h5") as run:
        assert run.observables["own"][:, 0].tolist() == [0, 1, 2, 3, 4, 5]
        assert len(run.loss) == len(run.observables["residual"]) == 6
        assert not run.verify()
