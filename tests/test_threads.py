"""Threads that share a loop: all is done once, errors come back, idle and forked crews work."""

import os
import time
from queue import SimpleQueue
from threading import Thread, current_thread

import numpy as np
import pytest

from flowsim.kernels.cpu import threads


def count_up(first, last, done):
    done[first:last] += 1


@pytest.mark.parametrize("number", [1, 2, 3, 7])
def test_every_block_is_done_once_however_often_and_late(number):
    done = np.zeros(50, np.int64)
    for turn in range(60):
        if turn % 20 == 10:
            time.sleep(0.01)  # long enough for everyone to fall asleep
        threads.run_blocks(count_up, 50, number, 1.0, done)
    assert (done == 60).all()


def test_an_error_of_any_part_is_raised_and_leaves_a_crew_that_works():
    def fail(first, last, bad):
        if first <= bad < last:
            raise ValueError(str(bad))

    for bad in (0, 49):
        with pytest.raises(ValueError, match=str(bad)):
            threads.run_blocks(fail, 50, 3, 1.0, bad)
    test_every_block_is_done_once_however_often_and_late(3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_a_crew_of_its_own():
    done = np.zeros(20, np.int64)
    threads.run_blocks(count_up, 20, 2, 1.0, done)
    child = os.fork()
    if child == 0:
        mine = np.zeros(20, np.int64)
        threads.run_blocks(count_up, 20, 2, 1.0, mine)
        os._exit(0 if (mine == 1).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_an_interrupt_that_comes_as_a_thread_reports_does_not_hang(monkeypatch):
    """Python raises it after the call of get has returned: what it returned is lost."""
    lost = []

    class Interrupted(BaseException):
        pass

    class Losing(SimpleQueue):
        def get(self, *options):
            item = super().get(*options)
            if current_thread() is caller and not lost:
                lost.append(item)
                raise Interrupted
            return item

    def carry_out():
        try:
            crew.run(lambda first, last: covered.append((first, last)), [(0, 1), (1, 2)], ())
        except Interrupted:
            covered.append("interrupted")

    crew, covered = threads._Crew(1), []
    caller = Thread(target=carry_out, daemon=True)
    monkeypatch.setattr(threads, "SimpleQueue", Losing)
    caller.start()
    caller.join(60.0)
    assert not caller.is_alive()
    assert lost and set(covered) == {(0, 1), (1, 2), "interrupted"}
