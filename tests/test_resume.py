"""Runs that go on where they were: what is continued, what is returned, what is refused."""

import os
import random
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import flowsim as fs
from benchmarks.killing import same_run
from flowsim import backends
from flowsim.cli import main
from flowsim.recording.checkpoint import load_checkpoint, load_checkpoints
from flowsim.recording.lock import RunLock, holder
from flowsim.recording.places import RunPlaces

FLOWSIM = [sys.executable, "-c", "import sys; from flowsim.cli import main; sys.exit(main())"]

EAGER = {"flush": {"seconds": 0.0}, "checkpoint": {"seconds": 0.0}}
"""Everything is saved at every step."""

PAIR = {"method": "tsit54", "atol": 1e-9}
OTHERS = (
    "tsit54", "bs32", "rdpk35", "rkc2", "ros2", "ros34pw2", "exponential", "implicit-euler",
    "switching", "kinks",
)  # fmt: skip


@pytest.fixture
def experiment(experiment):
    experiment["network"] |= {"width": 60, "antisymmetric": True}
    experiment["record"] = dict(EAGER)
    return experiment


def simulate(experiment, output, integrate=(), **options):
    integrate = {**experiment["integrate"], **dict(integrate)}
    return fs.simulate({**experiment, "integrate": integrate}, output=output, **options)


def stop_at(step):
    """An observable that ends the run with Ctrl-C."""
    here = os.getpid()

    def ctrl_c(frame):
        if frame.step == step:
            os.kill(here, signal.SIGINT)
        return 0.0

    return ctrl_c


@pytest.mark.parametrize("record", [EAGER, {}], ids=["long", "short"])
def test_a_time_limit_preempts_and_the_same_call_continues(experiment, tmp_path, record):
    experiment["record"] = record
    whole = simulate(experiment, tmp_path / "whole.h5")
    output = tmp_path / "run.h5"
    rounds = 0
    while True:
        run = simulate(experiment, output, {"max_seconds": 1e-6})
        rounds += 1
        if run.status == "complete":
            break
        assert run.status == "preempted"
        assert run.stop_reason.startswith("max_seconds")
        assert (tmp_path / "run.h5.checkpoint").exists()
    assert rounds > 10
    assert not same_run(output, tmp_path / "whole.h5")
    assert whole.status == "complete"


def test_ctrl_c_and_again(experiment, tmp_path):
    observables = {"mark": lambda frame: float(frame.step)}
    whole = simulate(experiment, tmp_path / "whole.h5", observables=observables)
    steps = int(whole.final["n_steps"])

    def interrupting(frame):
        if frame.step == steps // 2 and not interrupted:
            interrupted.append(True)
            os.kill(os.getpid(), signal.SIGINT)
        return float(frame.step)

    interrupted = []
    observables = {"mark": interrupting}
    experiment["record"]["observables"] = {"schedule": "steps", "every": 1}
    run = simulate(experiment, tmp_path / "run.h5", observables=observables)
    assert run.stop_reason.startswith("interrupted: SIGINT")
    assert len(run.time) == steps // 2 + 1
    again = simulate(experiment, tmp_path / "run.h5", observables=observables)
    assert again.status == "complete"
    assert again.final["output_weights"].tobytes() == whole.final["output_weights"].tobytes()


def test_a_finished_run_is_returned_as_it_is(experiment, tmp_path):
    output = tmp_path / "run.h5"
    simulate(experiment, output)
    before = output.read_bytes()
    run = simulate(experiment, output)
    assert run.status == "complete"
    assert output.read_bytes() == before


@pytest.mark.parametrize("record", [EAGER, {}], ids=["long", "short"])
@pytest.mark.parametrize(
    "integrate",
    [{}, PAIR, *({"method": name} for name in OTHERS)],
    ids=["heun", "tsit54 with atol", *OTHERS],
)
@pytest.mark.parametrize(
    ("first", "then"),
    [({"stop_loss": 1e-2}, {"stop_loss": 1e-4}), ({"t_max": 3.0}, {"t_max": 20.0})],
    ids=["stop_loss", "t_max"],
)
def test_a_finished_run_can_be_asked_for_more(experiment, tmp_path, record, integrate, first, then):
    experiment["record"] = record
    rules = {"stop_loss": 1e-6, **integrate}
    simulate(experiment, tmp_path / "whole.h5", {**rules, **then})
    output = tmp_path / "run.h5"
    assert simulate(experiment, output, {**rules, **first}).status == "complete"
    more = simulate(experiment, output, {**rules, **then})
    assert more.status == "complete"
    assert more.config["integrate"]["stop_loss"] == {**rules, **then}["stop_loss"]
    assert not same_run(output, tmp_path / "whole.h5")
    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".part"] == []


@pytest.mark.parametrize("method", ["ros2", "ros34pw2", "switching"])
def test_smooth_networks_go_on_to_the_same_bits_with_their_exact_jacobian(
    experiment, tmp_path, method
):
    experiment["network"]["activation"] = "tanh"
    way = {"method": method, "stop_loss": 1e-9}
    whole = simulate(experiment, tmp_path / "whole.h5", way)
    assert whole.observables["n_passes"][-1] > 100
    output, rounds = tmp_path / "run.h5", 1
    while simulate(experiment, output, {**way, "max_seconds": 1e-6}).status == "preempted":
        rounds += 1
    assert rounds > 10
    assert not same_run(output, tmp_path / "whole.h5")


def test_what_went_further_is_not_taken_back(experiment, tmp_path):
    output = tmp_path / "run.h5"
    simulate(experiment, output)
    with pytest.raises(fs.ConfigError, match="was to go further .integrate.stop_loss"):
        simulate(experiment, output, {"stop_loss": 0.1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": {"width": 61}}, "network.width differs"),
        ({"integrate": {"rtol": 1e-4}}, "integrate.rtol differs"),
        ({"record": {"snapshots": {"schedule": "none"}}}, "record.snapshots"),
    ],
)
def test_another_run_is_not_touched(experiment, tmp_path, change, message):
    output = tmp_path / "run.h5"
    simulate(experiment, output)
    before = output.read_bytes()
    with pytest.raises(fs.ConfigError, match=message):
        fs.simulate(
            {name: {**section, **change.get(name, {})} for name, section in experiment.items()},
            output=output,
        )
    assert output.read_bytes() == before


def test_other_weights_and_functions_are_another_run(experiment, tmp_path):
    output = tmp_path / "run.h5"
    weights = {"output_weights": np.ones(60), "input_weights": np.ones((2, 60))}
    simulate(experiment, output, initial=weights, observables={"own": lambda frame: 1.0})
    simulate(experiment, output, initial=weights, observables={"own": lambda frame: 1.0})
    with pytest.raises(fs.ConfigError, match="initial weights or functions differ"):
        simulate(experiment, output, initial=weights, observables={"own": lambda frame: 2.0})
    weights["output_weights"][0] = 2.0
    with pytest.raises(fs.ConfigError, match="initial weights or functions differ"):
        simulate(experiment, output, initial=weights, observables={"own": lambda frame: 1.0})


def test_never_and_must(experiment, tmp_path):
    output = tmp_path / "run.h5"
    with pytest.raises(fs.ConfigError, match="no run to continue"):
        simulate(experiment, output, resume="must")
    simulate(experiment, output, resume="never")
    with pytest.raises(fs.ConfigError, match="exists already"):
        simulate(experiment, output, resume="never")
    with pytest.raises(fs.ConfigError, match="resume = 'sometimes': unknown"):
        simulate(experiment, output, resume="sometimes")
    assert simulate(experiment, output, resume="must").status == "complete"


def test_a_second_process_is_refused(experiment, experiment_file, tmp_path):
    output = tmp_path / "run.h5"
    with RunLock(output):
        assert holder(output) == f"process {os.getpid()} on {os.uname().nodename}"
        command = [*FLOWSIM, "run", experiment_file, "-o", output]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2
        assert "is writing this run" in done.stderr
        done = subprocess.run([*command, "--no-lock"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert holder(output) is None
    assert not RunPlaces(output).lock.exists()


def test_a_lost_lock_and_a_vanished_file_end_the_run(experiment, tmp_path):
    output = tmp_path / "run.h5"
    places = RunPlaces(output)

    def removing(path, at):
        def observable(frame):
            if frame.step == at:
                path.unlink()
            return 0.0

        return observable

    experiment["record"]["observables"] = {"schedule": "steps", "every": 1}
    with pytest.raises(fs.StorageError, match="lock is lost"):
        simulate(experiment, output, observables={"own": removing(places.lock, 5)})
    with fs.open(output) as run:  # as a killed process would have left it
        assert (run.path, run.state) == (str(places.part), "killed")
        assert len(run.time) >= 5 and not run.verify()
    assert not output.exists()
    with pytest.raises(fs.StorageError, match="has vanished"):
        simulate(experiment, output, overwrite=True, observables={"own": removing(places.part, 5)})


def test_a_scratch_disk_is_copied_at_checkpoints_and_at_the_end(experiment, tmp_path):
    whole = tmp_path / "whole.h5"
    simulate(experiment, whole)
    scratch, output = tmp_path / "scratch", tmp_path / "run.h5"
    scratch.mkdir()
    experiment["record"]["observables"] = {"schedule": "log", "per_decade": 20}
    run = simulate(experiment, output, {"max_seconds": 1e-6}, scratch=scratch)
    assert run.status == "preempted"
    assert list(scratch.iterdir()) == []

    def looking(frame):
        seen.extend(file.name for file in scratch.iterdir())
        return 0.0

    seen = []
    simulate(experiment, tmp_path / "other.h5", scratch=scratch, observables={"own": looking})
    assert any(name.startswith("other.h5-") for name in seen)
    run = simulate(experiment, output, scratch=scratch)
    assert run.status == "complete"
    assert not same_run(output, whole)
    assert list(scratch.iterdir()) == []
    with pytest.raises(fs.ConfigError, match="scratch = .*no folder"):
        simulate(experiment, tmp_path / "new.h5", scratch=tmp_path / "nowhere")


def test_a_damaged_checkpoint_gives_way_to_the_one_before(experiment, tmp_path):
    simulate(experiment, tmp_path / "whole.h5")
    output = tmp_path / "run.h5"
    for _ in range(4):
        simulate(experiment, output, {"max_seconds": 1e-6})
    places = RunPlaces(output)
    assert len(load_checkpoints(places)) == 2
    content = places.checkpoint.read_bytes()
    places.checkpoint.write_bytes(content[:-200])
    assert load_checkpoint(places.checkpoint) is None
    assert len(load_checkpoints(places)) == 1
    assert simulate(experiment, output).status == "complete"
    assert not same_run(output, tmp_path / "whole.h5")
    # Without any checkpoint the run begins anew, and comes to the same file.
    simulate(experiment, output, {"max_seconds": 1e-6}, overwrite=True)
    places.checkpoint.unlink()
    places.previous.unlink(missing_ok=True)
    assert simulate(experiment, output).status == "complete"
    assert not same_run(output, tmp_path / "whole.h5")


def test_no_damage_of_a_checkpoint_is_more_than_damage(experiment, tmp_path):
    output = tmp_path / "run.h5"
    for _ in range(4):
        simulate(experiment, output, {"max_seconds": 1e-6})
    places = RunPlaces(output)
    content = places.checkpoint.read_bytes()
    generator = random.Random(0)
    for _ in range(400):
        damaged = bytearray(content)
        for _ in range(generator.choice([1, 3])):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        places.checkpoint.write_bytes(damaged)
        read = load_checkpoint(places.checkpoint)
        assert read is None or read.rows
        assert load_checkpoints(places)
    # The method by which a member of the archive is packed, one that nobody knows.
    at = content.index(b"PK\1\2") + 10
    places.checkpoint.write_bytes(content[:at] + b"\x63\0" + content[at + 2 :])
    assert load_checkpoint(places.checkpoint) is None
    # The header of an array that is no Python, and one that never ends.
    for header in (b"{'descr': ", b"(" * 5000):
        array = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header
        with zipfile.ZipFile(places.checkpoint, "w") as archive:
            archive.writestr("checkpoint.json.npy", array)
        assert load_checkpoint(places.checkpoint) is None
    assert simulate(experiment, output).status == "complete"


def test_a_fault_in_an_observable_keeps_what_was_saved(experiment, tmp_path):
    def faulty(frame):
        return 1.0 / (frame.step - 6)

    experiment["record"]["observables"] = {"schedule": "steps", "every": 1}
    with pytest.raises(ZeroDivisionError):
        simulate(experiment, tmp_path / "run.h5", observables={"own": faulty})
    with fs.open(tmp_path / "run.h5") as run:
        assert len(run.time) == 6


def test_gradient_descent_that_begins_anew_has_no_rows_from_before(experiment, tmp_path):
    options = {"method": "gradient-descent", "step": 40.0, "max_steps": 30}
    run = simulate(experiment, tmp_path / "run.h5", options)
    assert int(run.final["n_restarts"]) > 0
    assert np.all(np.diff(run.time) > 0.0)
    experiment["record"] = {}
    simulate(experiment, tmp_path / "short.h5", options)
    assert not same_run(tmp_path / "run.h5", tmp_path / "short.h5")


@pytest.mark.parametrize("checkpoint", [True, False])
def test_a_run_keeps_its_method_on_a_machine_with_less_memory(
    experiment, tmp_path, monkeypatch, checkpoint
):
    simulate(experiment, tmp_path / "whole.h5")
    output = tmp_path / "run.h5"
    run = simulate(experiment, output, {"max_seconds": 1e-6})
    assert run.attributes["method"] == "heun"
    if not checkpoint:
        RunPlaces(output).checkpoint.unlink()
        RunPlaces(output).previous.unlink(missing_ok=True)
    state = 3 * 8 * 2 * experiment["network"]["width"]
    monkeypatch.setattr(backends, "machine_memory", lambda: 5.5 * state)
    with pytest.raises(fs.FlowsimError, match='with integrate.method = "heun"'):
        simulate(experiment, output)
    monkeypatch.setattr(backends, "machine_memory", lambda: 6.5 * state)
    assert simulate(experiment, tmp_path / "new.h5").attributes["method"] == "rdpk35"
    run = simulate(experiment, output)
    assert run.attributes["method"] == "heun"
    assert not same_run(output, tmp_path / "whole.h5")


def test_exit_codes_of_the_command_line(experiment_file, tmp_path, capsys):
    output = str(tmp_path / "run.h5")
    command = ["run", str(experiment_file), "-o", output]
    assert main([*command, "--max-hours", "1e-9"]) == 75
    assert "preempted, max_seconds" in capsys.readouterr().out
    assert main(command) == 0
    assert main(command) == 0
    assert main([*command, "--resume", "never"]) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_script_that_is_terminated_ends_by_the_signal_with_its_run_saved(tmp_path):
    script = f"""
import os, signal, flowsim as fs
stop = lambda frame: os.kill(os.getpid(), signal.SIGTERM) if frame.step == 5 else None
fs.simulate(
    network={{"width": 50}}, scaling={{"gamma": 1.0, "gamma_prime": 0.0}},
    x=[[-0.5], [0.5]], y=[0.25, 0.5],
    record={{"observables": {{"schedule": "steps", "every": 1}}}},
    observables={{"own": lambda frame: stop(frame) or 0.0}},
    output={str(tmp_path / "run.h5")!r},
)
print("not reached")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM
    assert done.stdout == ""
    with fs.open(tmp_path / "run.h5") as run:
        assert run.stop_reason.startswith("interrupted: SIGTERM")
