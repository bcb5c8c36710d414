"""Whole runs of small networks on the device: one block a member of an ensemble.

`flowsim.kernels.cpu.members` with the same data in and the same results out. Steps, rows and
endings are decided on the device; a launch takes every member that still runs some steps on, and
between two launches the host looks which have ended and whether it is asked to stop. A member's
bits depend neither on the launches nor on its company nor on the card: blocks have the same threads
everywhere, and sums over neurons a fixed order.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from flowsim.errors import FlowsimError
from flowsim.kernels.cpu.member_data import (
    ENDING,
    FIXED_COLUMNS,
    N_ROWS,
    N_SNAPSHOTS,
    Control,
    Problem,
    Results,
    Rules,
    Schedule,
)

from . import member_data
from .compiler import Kernel, kernel, real
from .device import free_memory, free_pool, use_device

SOURCES = ("member_data", "member_samples", "member_passes", "member_rows", "members")
"""Files of this folder that make the kernel ``run_members``."""

SLICE = 4096
"""Members that are handed over at a time, while others are drawn."""

_NEURONS_A_THREAD = 8
_THREADS = (32, 256)
"""Least and most threads of a block. Part of the results: bits depend on them."""

_FIRST_STEPS = 64
_SHORT, _LONG = 0.05, 0.3
"""Seconds between which a launch should last, for signals to be heard."""

_SHARE = 0.5
"""Of the free memory of the device, what members may take."""


def threads_of(neurons: int) -> int:
    """Threads of a block: a power of two."""
    least, most = _THREADS
    wanted = -(-neurons // _NEURONS_A_THREAD)
    return min(most, max(least, 1 << (wanted - 1).bit_length()))


def static_bytes(n: int) -> int:
    """Shared memory that a block needs besides the states, at most."""
    return 6144 + 8 * n * (3 * n + 40)


def macros(problem: Problem, stages: int, neurons: int, in_shared: bool) -> dict[str, object]:
    """What the kernel of a problem is compiled with.

    Parameters
    ----------
    problem : Problem
    stages : int
        Of the method.
    neurons : int
    in_shared : bool
        Whether the states of a member are in shared memory.
    """
    n, d = problem.x.shape
    return {
        "REAL": real(problem.x.dtype),
        "N_SAMPLES": n,
        "N_INPUTS": d,
        "LEAKY": problem.leak != 0.0,
        "STAGES": stages,
        "THREADS": threads_of(neurons),
        "IN_SHARED": in_shared,
    }


def run_members(
    first: int,
    last: int,
    problem: Problem,
    rules: Rules,
    control: Control,
    schedules: tuple[Schedule, Schedule],
    scales: np.ndarray,
    stop: np.ndarray,
    results: Results,
    device: int = 0,
) -> None:
    """Run members ``first`` to ``last`` (exclusive) from their initial values to their ends.

    Parameters
    ----------
    first, last, problem, rules, control, schedules, scales, stop, results
        See `flowsim.kernels.cpu.members.run_members`.
    device : int
        Number of the GPU.
    """
    cupy = use_device(device)
    n, d = problem.x.shape
    if n > member_data.MOST_SAMPLES or d > member_data.MOST_INPUTS:
        raise ValueError(f"no code for {n} samples with {d} inputs")
    state = results.theta[0].nbytes
    available = cupy.cuda.Device(device).attributes["MaxSharedMemoryPerBlockOptin"]
    in_shared = 2 * state + static_bytes(n) <= available
    neurons = results.theta.shape[2]
    program = kernel(
        "run_members",
        SOURCES,
        macros(problem, len(control.b), neurons, in_shared),
        shared=2 * state if in_shared else 0,
    )
    common = _Common(cupy, problem, neurons, rules, control, schedules)
    for portion in _portions(first, last, results, in_shared, device):
        try:
            members = _Members(cupy, portion, scales, results, in_shared)
        except MemoryError as error:  # what was free is not any more
            raise FlowsimError(
                f"GPU {device}: others take the memory for {portion.stop - portion.start} networks "
                'meanwhile; try again, or set integrate.backend = "cpu"'
            ) from error
        _run(cupy, program, threads_of(neurons), common, members, stop)
        members.fetch()
        del members
    free_pool()


def _portions(
    first: int, last: int, results: Results, in_shared: bool, device: int
) -> Iterator[slice]:
    """Members that find room on the device together."""
    copies = 1 if in_shared else 2
    each = sum(field[0].nbytes for field in (*results, *copies * (results.theta,)))
    size = max(1, int(_SHARE * free_memory(device) / each))
    for start in range(first, last, size):
        yield slice(start, min(start + size, last))


class _Common:
    """What a launch is given besides the members."""

    def __init__(
        self,
        cupy: Any,
        problem: Problem,
        neurons: int,
        rules: Rules,
        control: Control,
        schedules: tuple[Schedule, Schedule],
    ) -> None:
        held = [cupy.asarray(one) for one in (problem.x64, problem.y, problem.inner)]
        moments = [cupy.asarray(schedule.moments) for schedule in schedules]
        series = (
            member_data.make_schedule(schedule, one)
            for schedule, one in zip(schedules, moments, strict=True)
        )
        self.arguments = (
            member_data.make_problem(problem, neurons, *held),
            member_data.Rules(*rules),
            member_data.make_control(control),
            member_data.Schedules((member_data.Schedule * 2)(*series)),
        )
        self._held = held, moments


class _Members:
    """Some members on the device."""

    def __init__(
        self, cupy: Any, portion: slice, scales: np.ndarray, results: Results, in_shared: bool
    ) -> None:
        self.portion, self.results = portion, results
        states = results.theta[portion]
        theta = cupy.empty(states.shape, states.dtype)
        theta.set(states)  # straight from where they are, with no copy of them in pinned memory
        count, n = len(theta), results.residual.shape[1]
        room, snapshot_room = results.rows.shape[1], results.snapshots.shape[1]
        arrays = {
            "theta": theta,
            "initial": theta.copy(),
            "spare": cupy.empty((0 if in_shared else count, *theta.shape[1:]), theta.dtype),
            "scales": cupy.asarray(scales[portion]),
            "residual": cupy.zeros((count, n)),
            "numbers": cupy.zeros((count, results.numbers.shape[1])),
            "counters": cupy.zeros((count, results.counters.shape[1]), np.int64),
            "change": cupy.zeros((count, 3)),
            "sup_change": cupy.zeros((count, 3)),
            # Moments first: those that were reached are one piece of memory.
            "rows": cupy.empty((room, count, FIXED_COLUMNS + n)),
            "snapshot_times": cupy.empty((snapshot_room, count)),
            "snapshots": cupy.empty((snapshot_room, *theta.shape), theta.dtype),
            "kept": cupy.zeros((count, member_data.kept_words(n))),
        }
        self.arrays, self.count = arrays, count
        pointers = (arrays[name].data.ptr for name in member_data.ARRAYS)
        self.argument = member_data.Members(*pointers, count, room, snapshot_room)
        self.counters = results.counters[portion]

    def running(self) -> np.ndarray:
        """Those without an ending, once the launch is over."""
        self.arrays["counters"].get(out=self.counters)
        return np.flatnonzero(self.counters[:, ENDING] == 0)

    def fetch(self) -> None:
        """Bring the results to the host."""
        for name in ("theta", "residual", "numbers", "change", "sup_change"):
            self.arrays[name].get(out=getattr(self.results, name)[self.portion])
        for column, names in ((N_ROWS, ("rows",)), (N_SNAPSHOTS, ("snapshot_times", "snapshots"))):
            most = int(self.counters[:, column].max())
            for name in names:
                found = self.arrays[name][:most].get()
                getattr(self.results, name)[self.portion, :most] = np.swapaxes(found, 0, 1)


def _run(
    cupy: Any, program: Kernel, threads: int, common: _Common, members: _Members, stop: np.ndarray
) -> None:
    """Launch after launch, until all have ended or a stop is asked for."""
    running, steps = np.arange(members.count), _FIRST_STEPS
    while len(running) and stop[0] == 0:
        started = time.perf_counter()
        _launch(cupy, program, threads, common, members, running, steps)
        running = members.running()
        seconds = time.perf_counter() - started
        if seconds < _SHORT:
            steps *= 2
        elif seconds > _LONG:
            steps = max(1, steps // 2)


def _launch(
    cupy: Any,
    program: Kernel,
    threads: int,
    common: _Common,
    members: _Members,
    running: np.ndarray,
    steps: int,
) -> None:
    """Take the running members on by so many steps each, and wait for them."""
    active = cupy.asarray(running)
    program(len(running), threads, *common.arguments, members.argument, active, steps)
    cupy.cuda.get_current_stream().synchronize()
