"""Carry out units of work one by one, or by an engine that outlives its workers.

The pool holds no more units than it has workers, so that a dead worker (killed, out of memory)
costs only what was running. Such units are tried again; from their second death on each runs
alone, so that one which kills its worker every time takes no other unit down with it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass
from enum import Enum
from typing import Generic, Protocol, TypeVar

from flowsim.errors import FlowsimError
from flowsim.sweeps.processes import MAX_DEATHS, Processes

Work = TypeVar("Work")
Answer = TypeVar("Answer")

STOPPED = f"its worker process was asked to stop {MAX_DEATHS} times; nothing else is wrong with it"
_POLL_SECONDS = 0.2
_ASK_AGAIN_SECONDS = 1.0
_LAST_WORDS_SECONDS = 10.0
"""Within which a worker that is asked to stop saves its work; after that it is killed."""


class Later(Enum):
    """The answer to a unit that has to wait, because somebody else is at it."""

    LATER = "later"


LATER = Later.LATER


class Engine(Protocol):
    """Who carries out units of work; a context manager.

    Attributes
    ----------
    size : int
        Units that it is given at a time.
    death : exceptions
        What stands for the death of a worker.
    deaths_to_give_up : int
        A unit that has met so many is given up.
    one_death_is_all : bool
        Whether one of them ends everything that is running.
    """

    size: int
    death: tuple[type[BaseException], ...]
    deaths_to_give_up: int
    one_death_is_all: bool

    def __enter__(self) -> Engine: ...
    def __exit__(self, *_: object) -> None: ...
    def submit(self, call: Callable[[Work], Answer], work: Work) -> Future[Answer]:
        """Hand one unit over."""

    def ask_to_stop(self) -> None:
        """Let what is running come to a stop where it can be continued."""

    def restart(self) -> None:
        """Get rid of all workers; the next unit finds new ones."""

    def obituary(self, error: BaseException) -> str:
        """Say why a unit was given up."""


@dataclass
class _Attempt(Generic[Work]):
    """A unit of work, how many workers it has lost and why the last one."""

    work: Work
    deaths: int = 0
    obituary: str = ""


def carry_out(
    units: Sequence[Work],
    call: Callable[[Work], Answer],
    workers: int,
    on_answer: Callable[[Work, Answer], Work | None],
    on_death: Callable[[Work, str], None],
    stop: Callable[[], bool] = lambda: False,
    admit: Callable[[Work], Work | Later | None] = lambda unit: unit,
    engine: Engine | None = None,
) -> None:
    """Call ``call(unit)`` for every unit, in this process or in ``workers`` others.

    Parameters
    ----------
    units : sequence
        In the order in which they are to be started.
    call : callable
        Must not raise: a fault that a retry would repeat belongs into its answer. With several
        workers it is sent to them by cloudpickle, so it may come from a script or a notebook.
    workers : int
        1 works in this process.
    on_answer : callable
        Called in this process as soon as a unit is done. What it returns is left of the unit and
        done again, because somebody has stopped the worker.
    on_death : callable
        Called instead, with the reason, for a unit that is given up.
    stop : callable
        Asked several times a second, between units at the least. Once it returns True the workers
        are asked to stop, what they answer is taken, and nothing more is done.
    admit : callable
        Asked before a unit is started: what is to be done of it, None if nothing is, `LATER` if
        somebody else is at it; then it is asked again after the others, and every now and then.
    engine : Engine, optional
        Who carries the work out in place of ``workers`` processes on this machine.

    Raises
    ------
    FlowsimError
        If ``call`` cannot be sent to another process.
    """
    if engine is None and workers <= 1:
        _one_by_one(units, call, on_answer, stop, admit)
        return
    from loky.process_executor import PicklingError

    try:
        with engine or Processes(workers) as pool:
            _feed(pool, _Queue(units, admit), call, on_answer, on_death, stop)
    except PicklingError as error:
        raise FlowsimError(
            f"workers = {workers}: what was passed to sweep() cannot be sent to other processes "
            f"({error}); use workers=1"
        ) from error


class _Queue(Generic[Work]):
    """Units that wait to be started, first those that nobody else is at."""

    def __init__(self, units: Sequence[Work], admit: Callable[[Work], Work | Later | None]) -> None:
        self._fresh = deque(_Attempt(unit) for unit in units)
        self._taken: deque[_Attempt[Work]] = deque()
        self._admit = admit
        self._asked_at = time.monotonic()

    def __bool__(self) -> bool:
        return bool(self._fresh or self._taken)

    def put_back(self, attempt: _Attempt[Work]) -> None:
        """Let a unit be the next."""
        self._fresh.appendleft(attempt)

    def next(self) -> _Attempt[Work] | None:
        """Return a unit to start; None while there is none."""
        if self._taken and time.monotonic() - self._asked_at > _ASK_AGAIN_SECONDS:
            self._asked_at = time.monotonic()
            self._fresh.extend(self._taken)
            self._taken.clear()
        while self._fresh:
            attempt = self._fresh.popleft()
            admitted = self._admit(attempt.work)
            if isinstance(admitted, Later):
                self._taken.append(attempt)
            elif admitted is not None:
                attempt.work = admitted
                return attempt
        return None


def _one_by_one(
    units: Sequence[Work],
    call: Callable[[Work], Answer],
    on_answer: Callable[[Work, Answer], Work | None],
    stop: Callable[[], bool],
    admit: Callable[[Work], Work | Later | None],
) -> None:
    """Do everything in this process."""
    queue = _Queue(units, admit)
    while queue and not stop():
        attempt = queue.next()
        if attempt is None:
            time.sleep(_POLL_SECONDS)
        else:
            on_answer(attempt.work, call(attempt.work))


def _feed(
    pool: Engine,
    fresh: _Queue[Work],
    call: Callable[[Work], Answer],
    on_answer: Callable[[Work, Answer], Work | None],
    on_death: Callable[[Work, str], None],
    stop: Callable[[], bool],
) -> None:
    """Keep the pool full until every unit is answered or given up."""
    alone: deque[_Attempt[Work]] = deque()
    running: dict[Future[Answer], _Attempt[Work]] = {}
    while fresh or alone or running:
        if stop():
            _hear_out(pool, running, on_answer)
            return
        while len(running) < pool.size and (attempt := fresh.next()) is not None:
            running[pool.submit(call, attempt.work)] = attempt
        if alone and not running:
            attempt = alone.popleft()
            running[pool.submit(call, attempt.work)] = attempt
        if not running:
            time.sleep(_POLL_SECONDS)
            continue
        done, _ = wait(running, _POLL_SECONDS, return_when=FIRST_COMPLETED)
        again: list[_Attempt[Work]] = []
        broken = any(isinstance(_error_of(future), pool.death) for future in done)
        # Where one death breaks the whole pool, everything that was running has to run again.
        for future in list(running) if broken and pool.one_death_is_all else done:
            attempt = running.pop(future)
            error = _error_of(future)
            if broken and error is not None:
                attempt.obituary = pool.obituary(error)
                again.append(attempt)
                continue
            left = on_answer(attempt.work, future.result())
            if left is not None:
                again.append(_Attempt(left, attempt.deaths, STOPPED))
        if broken:
            pool.restart()
        for attempt in again:
            attempt.deaths += 1
            if attempt.deaths >= pool.deaths_to_give_up:
                on_death(attempt.work, attempt.obituary)
            elif attempt.deaths > 1:
                alone.append(attempt)
            else:
                fresh.put_back(attempt)


def _error_of(future: Future[Answer]) -> BaseException | None:
    """What went wrong with a unit that is done, or because it never will be."""
    try:
        return future.exception()
    except CancelledError as error:
        raise FlowsimError(
            "the workers are gone, and what they were doing; the same command goes on from there"
        ) from error


def _hear_out(
    pool: Engine,
    running: dict[Future[Answer], _Attempt[Work]],
    on_answer: Callable[[Work, Answer], Work | None],
) -> None:
    """Ask the workers to stop, and take what they have got so far."""
    deadline = time.monotonic() + _LAST_WORDS_SECONDS
    waiting = {future for future in running if not future.cancel()}
    while waiting and time.monotonic() < deadline:
        pool.ask_to_stop()  # again and again: one may just have begun
        done, waiting = wait(waiting, _POLL_SECONDS)
        for future in done:
            if not future.cancelled() and future.exception() is None:
                on_answer(running[future].work, future.result())
