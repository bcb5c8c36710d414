"""Runs killed, stopped and starved; the long form is ``python -m benchmarks durability``."""

import h5py
import numpy as np
import pytest

from benchmarks import durability, killing
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
