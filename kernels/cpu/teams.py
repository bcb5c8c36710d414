"""Loops over blocks that threads share in compiled code, without the interpreter and its lock.

To wake a thread that waits in Python takes a tenth of a millisecond: as long as a whole pass over
a hundred thousand neurons. Threads of a team therefore wait in compiled code for a while after each
loop, and look for the next one.

Nobody waits for a thread that is late. Each member begins with a range of blocks of its own, and
takes the larger part of it, then the larger part of what is left, and so on; who has none left
takes from the end of another's. So the same blocks stay with the same core and its caches, and a
thread that sleeps, or that the system has taken off its core, costs only its help.

A team is an array of words, a line of the caches apart from each other:

- row 0: the loop, written by the leader before it opens it: function, frame, least number of
  blocks to take, then code and address of what a part has raised;
- row 1: the gate. Odd while a loop is open, another number for each; even between loops; -1 sends
  all members home, to Python;
- row 2: members at work. Who has opened a loop closes it and waits until they are none;
- row 3: pauses that a member waits for work, and between two offers of its core to others; address
  of the system's function for that, or 0;
- row 4 + k: what is left of member k's range, first and last in one word, and whether it waits.
"""

from __future__ import annotations

import numba
import numpy as np

from .atomics import (
    add_to_word,
    call_address,
    call_part,
    exchange_word,
    load_word,
    pause,
    raise_again,
    store_word,
)

WORDS = 16
"""Of a row: two lines of a cache, since some processors fetch them in pairs."""

LOOP, GATE, WORKING, WAITING, MEMBERS = range(5)
FUNCTION, FRAME, LEAST, CODE, RAISED = range(5)
PATIENCE, OFFER, OFFERING = range(3)
RANGE, AWAKE = range(2)

HOME = -1

_HALF = 32
"""Bits of the first and of the last block in a range."""

compiled = numba.njit(nogil=True, cache=True, error_model="numpy", no_cfunc_wrapper=True)


@compiled
def take(team, owner, from_end):
    """Blocks (first, last) out of a member's range; none are left if they are equal."""
    least = team[LOOP, LEAST]
    while True:
        word = load_word(team, MEMBERS + owner, RANGE)
        first, last = word >> _HALF, word & ((1 << _HALF) - 1)
        if first >= last:
            return first, first
        count = min(last - first, max(least, (last - first + 1) // 2))
        if from_end:
            rest, mine = (first, last - count), (last - count, last)
        else:
            rest, mine = (first + count, last), (first, first + count)
        if exchange_word(team, MEMBERS + owner, RANGE, word, rest[0] << _HALF | rest[1]):
            return mine


@compiled
def carry_out(team, first, last):
    """Call the loop's function; keep what the first to fail has raised."""
    code, raised = call_part(team[LOOP, FUNCTION], team[LOOP, FRAME], first, last)
    if code != 0 and exchange_word(team, LOOP, CODE, 0, code):
        store_word(team, LOOP, RAISED, raised)


@compiled
def take_part(team, member):
    """Work on the open loop until nothing is left: the own range first, then those of others."""
    members = team.shape[0] - MEMBERS
    for k in range(members):
        owner = (member + k) % members
        while True:
            first, last = take(team, owner, k > 0)
            if first == last:
                break
            carry_out(team, first, last)


@compiled
def wait_a_little(team, turns):
    """Pause; now and then offer the core to whoever else wants it."""
    pause()
    if (turns + 1) % team[WAITING, OFFER] == 0 and team[WAITING, OFFERING] != 0:
        call_address(team[WAITING, OFFERING])


@compiled
def serve(team, member):
    """Take part in loops until none has been open for a while, or until sent home."""
    store_word(team, MEMBERS + member, AWAKE, 1)
    seen, turns = 0, 0
    while True:
        gate = load_word(team, GATE, 0)
        if gate % 2 == 1 and gate > 0 and gate != seen:
            # It may be closed by now: it is not looked into before the gate, seen from inside,
            # is open. Then it stays as it is until this member has left.
            add_to_word(team, WORKING, 0, 1)
            gate = load_word(team, GATE, 0)
            if gate % 2 == 1 and gate > 0:
                take_part(team, member)
                seen = gate
            add_to_word(team, WORKING, 0, -1)
            turns = 0
        elif gate == HOME or turns >= team[WAITING, PATIENCE]:
            break
        else:
            wait_a_little(team, turns)
            turns += 1
    store_word(team, MEMBERS + member, AWAKE, 0)


@compiled
def share(team, number, part, least, first, last):
    """Carry out a loop over the blocks ``first`` to ``last`` together with who is awake.

    Parameters
    ----------
    team : (4 + members, words) int64 array
        This thread leads it and is its member 0.
    number : int
        Of the loop; no two in a row may have the same.
    part : (int, int)
        See `flowsim.kernels.cpu.atomics.part_of`.
    least : int
        Blocks that are too little to be divided.
    """
    members = team.shape[0] - MEMBERS
    team[LOOP, FUNCTION], team[LOOP, FRAME] = part
    team[LOOP, LEAST] = least
    team[LOOP, CODE] = 0
    begin = first
    for k in range(members):
        end = first + (last - first) * (k + 1) // members
        store_word(team, MEMBERS + k, RANGE, begin << _HALF | end)
        begin = end
    store_word(team, GATE, 0, 2 * number + 1)
    take_part(team, 0)
    store_word(team, GATE, 0, 2 * number)
    turns = 0
    while load_word(team, WORKING, 0) != 0:
        wait_a_little(team, turns)
        turns += 1
    if team[LOOP, CODE] != 0:
        raise_again(team[LOOP, CODE], team[LOOP, RAISED])


@compiled
def send_home(team):
    """Make members that wait for loops return to Python."""
    store_word(team, GATE, 0, HOME)


@compiled
def spend(pauses):
    """Pause so many times, to find out how long it takes."""
    for _ in range(pauses):
        pause()


def new_team(members: int, patience: float, offer: float, offering: int) -> np.ndarray:
    """Words of a team; see the head of this file for what they are.

    Parameters
    ----------
    members : int
        With the leader.
    patience, offer : float
        Pauses.
    offering : int
        Address.
    """
    room = np.zeros((MEMBERS + members + 1, WORDS), np.int64)
    # A row begins with a line of the caches.
    shift = -room.ctypes.data % (8 * WORDS) // 8
    team = room.reshape(-1)[shift : shift + (MEMBERS + members) * WORDS].reshape(-1, WORDS)
    team[WAITING, [PATIENCE, OFFER, OFFERING]] = int(patience), int(offer) + 1, offering
    return team


def call_in(team: np.ndarray) -> None:
    """Let members wait for a loop again after they were sent home."""
    if team[GATE, 0] == HOME:
        team[GATE, 0] = 0


def wake(team: np.ndarray, member: int) -> bool:
    """Whether a member sleeps and nobody has called it yet; now the caller does."""
    if team[MEMBERS + member, AWAKE]:
        return False
    team[MEMBERS + member, AWAKE] = 1
    return True
