"""Threads that share a loop: all is done once, errors come back, idle and forked crews work."""

import os
import signal
import time
from queue import SimpleQueue
from threading import Thread, current_thread

import numba
import numpy as np
import pytest

from flowsim.kernels.cpu import teams, threads


def count_up(first, last, done):
    done[first:last] += 1


@numba.njit(nogil=True)
def count_up_compiled(first, last, done):
    for block in range(first, last):
        done[block] += 1


@numba.njit(nogil=True, error_model="numpy")
def mix(first, last, values, sums):
    """Some microseconds a block, and bits that would show any other order."""
    for block in range(first, last):
        total = 0.0
        for k in range(values.shape[1]):
            values[block, k] = 3.9 * values[block, k] * (1.0 - values[block, k])
            total += values[block, k]
        sums[block] = total


WORK = 1e6
"""Of a block: so much that each is worth being taken by itself."""


@pytest.mark.parametrize("number", [1, 2, 3, 7])
@pytest.mark.parametrize("function", [count_up, count_up_compiled])
def test_every_block_is_done_once_however_often_and_late(function, number):
    done = np.zeros(50, np.int64)
    for turn in range(60):
        if turn % 20 == 10:
            time.sleep(0.01)  # long enough for everyone to fall asleep
        threads.run_blocks(function, 50, number, WORK, done)
    assert (done == 60).all()


def test_bits_of_many_short_loops_do_not_depend_on_threads():
    start = np.random.default_rng(0).uniform(0.1, 0.9, (37, 100))
    found = []
    for number in (1, 2, 3, 4):
        values, history = start.copy(), np.empty((1000, 37))
        for sums in history:
            threads.run_blocks(mix, 37, number, WORK, values, sums)
        found.append((values.tobytes(), history.tobytes()))
    assert len(set(found)) == 1


def test_compiled_and_python_functions_take_turns():
    done = np.zeros(50, np.int64)
    for turn in range(300):
        function = count_up if turn % 3 == 1 else count_up_compiled
        threads.run_blocks(function, 50, 3, WORK, done)
    assert (done == 300).all()


def test_members_that_wait_in_compiled_code_take_part():
    """A thread alone could do it all, and nobody would miss the other."""

    @numba.njit(nogil=True)
    def meet(first, last, here):
        for _ in range(first, last):
            teams.add_to_word(here, 0, 0, 1)
            for _ in range(100_000):  # some milliseconds
                if teams.load_word(here, 0, 0) == 2:
                    teams.add_to_word(here, 0, 1, 1)
                    break
                teams.pause()

    for _ in range(1000):
        here = np.zeros((1, 2), np.int64)
        threads.run_blocks(meet, 2, 2, WORK, here)
        if here[0, 1] == 2:
            break
    else:
        pytest.fail("the other member never came")


def test_an_error_of_any_part_is_raised_and_leaves_a_crew_that_works():
    def fail(first, last, bad):
        if first <= bad < last:
            raise ValueError(str(bad))

    for bad in (0, 49):
        with pytest.raises(ValueError, match=str(bad)):
            threads.run_blocks(fail, 50, 3, WORK, bad)
    test_every_block_is_done_once_however_often_and_late(count_up, 3)


def test_an_error_in_compiled_code_is_raised_when_all_have_ended():
    @numba.njit(nogil=True)
    def fail(first, last, bad, done):
        for block in range(first, last):
            done[block] += 1
            if block == bad:
                raise ValueError("too bad")

    for bad in (0, 25, 49):
        done = np.zeros(50, np.int64)
        with pytest.raises(ValueError, match="too bad"):
            threads.run_blocks(fail, 50, 3, WORK, bad, done)
        seen = done.copy()
        time.sleep(0.002)
        assert (done == seen).all() and done[bad] == 1 and done.max() == 1
    test_every_block_is_done_once_however_often_and_late(count_up_compiled, 3)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers that interrupt")
def test_an_interrupt_leaves_whole_loops_and_nobody_at_work():
    class Interrupted(BaseException):
        pass

    def interrupt(number, frame):
        raise Interrupted

    values, sums, interrupts = np.full((37, 2000), 0.3), np.empty(37), 0
    threads.run_blocks(mix, 37, 2, WORK, values, sums)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for turn in range(40):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-3 + 3e-5 * turn)
                while True:
                    threads.run_blocks(mix, 37, 2, WORK, values, sums)
            except Interrupted:
                interrupts += 1
            seen = values.copy()
            time.sleep(0.001)
            assert (values == seen).all() and (values == values[0, 0]).all()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    assert interrupts == 40
    test_every_block_is_done_once_however_often_and_late(count_up_compiled, 2)


def test_a_crew_in_use_leaves_others_to_themselves():
    done = np.zeros(50, np.int64)
    threads.run_blocks(count_up_compiled, 50, 2, WORK, done)
    with threads._crews[2].lock:
        threads.run_blocks(count_up_compiled, 50, 2, WORK, done)
    assert (done == 2).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("function", [count_up, count_up_compiled])
def test_a_forked_child_has_a_crew_of_its_own(function):
    done = np.zeros(20, np.int64)
    threads.run_blocks(function, 20, 2, WORK, done)
    child = os.fork()
    if child == 0:
        mine = np.zeros(20, np.int64)
        for _ in range(100):
            threads.run_blocks(function, 20, 2, WORK, mine)
        os._exit(0 if (mine == 100).all() else 1)
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
