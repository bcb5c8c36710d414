"""Runs killed, stopped and starved; the long form is ``python -m benchmarks durability``."""

import re
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

import flowsim as fs
from benchmarks import durability, killing
from flowsim.api import run_experiment
from flowsim.errors import FileFormatError
from flowsim.recording.aligned import make_growing
from flowsim.recording.stream import RunStream
from flowsim.recording.superblock import PAGE, clear_flags, lookup3

SHORT = {"integrate.max_steps": 250}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """An experiment, the same run undisturbed, and its seconds: in all, from the first step on."""

    def carry_out(**overrides):
        experiment = killing.configuration(**SHORT, **overrides)
        whole = tmp_path_factory.mktemp("whole") / "run.h5"
        return experiment, whole, durability.undisturbed(experiment, whole)

    return carry_out


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_killed_anywhere_nothing_committed_is_lost_and_it_continues(
    undisturbed, tmp_path, compression
):
    experiment, whole, (seconds, _) = undisturbed(**{"record.compression": compression})
    for moment in killing.vary(7, 0.1 * seconds, seconds, 2):
        tally = durability.kill(experiment, whole, tmp_path, moment, small=compression == "gzip")
        assert not tally.problems


def test_sigterm_is_answered_and_the_run_continues(undisturbed, tmp_path):
    experiment, whole, (_, stepping) = undisturbed()
    # Early enough for the run not to have ended, should it be faster this time.
    for moment in killing.vary(8, 0.0, 0.3 * stepping, 2):
        tally = durability.stop(experiment, whole, tmp_path, moment)
        assert not tally.problems


def test_a_full_disk_costs_nothing_that_was_committed(undisturbed, tmp_path):
    experiment, whole, _ = undisturbed(**{"record.snapshots.every": 2})
    limited, fed = tmp_path / "limited", tmp_path / "fed"
    limited.mkdir()
    fed.mkdir()
    for share in (0.3, 0.7):
        size = int(share * whole.stat().st_size)
        tally = durability.starve(experiment, whole, fed, limited, file_size=size)
        assert not tally.problems


def test_the_comparison_sees_a_difference(undisturbed, tmp_path):
    _, whole, _ = undisturbed()
    _, other, _ = undisturbed(**{"network.seed": 1})
    assert "observables/loss" in killing.same_run(whole, other)
    assert "attribute seed" in killing.same_run(whole, other)


def test_the_end_of_a_killed_file_is_where_it_ends(tmp_path):
    path = tmp_path / "killed.h5"
    with h5py.File(path, "w", libver="v110") as file:
        file["x"] = np.arange(10.0)
    head = bytearray(path.read_bytes())
    head[11] = 5  # open for writing, and for reading meanwhile
    head[44:48] = lookup3(bytes(head[:44])).to_bytes(4, "little")
    path.write_bytes(head + b"what an index may lead to")
    clear_flags(path)
    with h5py.File(path, "r+") as file:
        assert file.id.get_filesize() == path.stat().st_size == PAGE * (len(head) // PAGE + 1)
        np.testing.assert_array_equal(file["x"], np.arange(10.0))


RECORD = re.compile(rb"OHDR|OCHK|EAHD|EAIB|EASB|EADB|FRHP|FHDB|FHIB|BTHD|BTLF|BTIN|FSHD|FSSE")
"""Signatures of HDF5's records with a checksum."""


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory):
    """The growing file of a run just before it ends: as a killed process leaves it."""
    folder = tmp_path_factory.mktemp("left")
    experiment = killing.configuration(**SHORT, **{"record.compression": "gzip"})
    with pytest.MonkeyPatch.context() as patch:
        finish = RunStream.finish

        def leave(stream, *arguments):
            shutil.copy(stream.path, folder / "left.h5.part")
            finish(stream, *arguments)

        patch.setattr(RunStream, "finish", leave)
        run_experiment(experiment, output=folder / "run.h5")
    return folder / "left.h5.part"


def records(content: bytes) -> list[int]:
    """Where HDF5's records begin."""
    return [found.start() for found in RECORD.finditer(content)]


def header(file: h5py.File, group: str, array: str) -> int:
    """Where the header of an array is."""
    home = file[group]
    return home.id.links.get_info(array.encode()).u


def test_a_kill_cannot_cut_a_record_in_two(left_behind, tmp_path):
    # A write in which its process is killed ends where a page of the system's does.
    places = records(left_behind.read_bytes())
    assert len(places) > 100 and not any(place % PAGE for place in places)
    short = tmp_path / "short.h5"
    run_experiment(killing.configuration(**{"integrate.max_steps": 5}), output=short)
    with h5py.File(short) as file:
        assert header(file, "observables", "time") % PAGE  # written in one go, it takes less room
    grows, renamed = tmp_path / "grows.h5", tmp_path / "renamed.h5"
    make_growing(short, grows)
    assert not any(place % PAGE for place in records(grows.read_bytes()))
    assert killing.same_run(short, grows) == []
    # What is laid out so already need not be written again.
    same = grows.stat().st_ino
    make_growing(grows, renamed, keep=False)
    assert not grows.exists() and renamed.stat().st_ino == same
    make_growing(short, grows, keep=False)
    assert not short.exists() and killing.same_run(renamed, grows) == []


@pytest.mark.parametrize("name", ["observables/residual", "snapshots/input_weights"])
def test_half_a_record_is_an_error_at_once(left_behind, tmp_path, name):
    # HDF5 would read it again and again, as if somebody were about to write the other half.
    group, array = name.split("/")
    with fs.open(left_behind) as run:
        whole = np.asarray(run.group(group)[array])
    content = bytearray(left_behind.read_bytes())
    with h5py.File(left_behind, "r", swmr=True) as file:
        place = header(file, group, array)
    content[place + 64 : place + 128] = bytes(64)
    path = tmp_path / "torn.h5.part"
    path.write_bytes(content)
    assert whole.size
    with pytest.raises(FileFormatError, match=r"torn.h5.part.*damaged"), fs.open(path) as run:
        np.asarray(run.group(group)[array])
    assert path.read_bytes() == content


def test_a_killed_run_may_stay_open_to_the_end_of_the_process(left_behind):
    # HDF5 closes what is open when there is no interpreter any more to read it through.
    code = "import sys, flowsim; run = flowsim.open(sys.argv[1]); print(run.status)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(left_behind)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "running\n" and not done.stderr
