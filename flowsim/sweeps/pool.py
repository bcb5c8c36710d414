"""Carry out units of work one by one, or in a pool of processes that outlives its workers.

The pool holds no more units than it has workers, so that a dead worker (killed, out of memory)
costs only what was running. Such units are tried again; from their second death on each runs
alone, so that one which kills its worker every time takes no other unit down with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Generic, TypeVar

from flowsim.errors import FlowsimError

if TYPE_CHECKING:
    from loky import ProcessPoolExecutor

Work = TypeVar("Work")
Answer = TypeVar("Answer")

MAX_DEATHS = 3
"""A unit of work whose worker has died this often is given up."""

STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
)
"""Signals that workers ignore while they have no work; work listens to them itself."""

_STOPPED = f"its worker process was asked to stop {MAX_DEATHS} times; nothing else is wrong with it"
_POLL_SECONDS = 0.2
_LAST_WORDS_SECONDS = 10.0
"""Within which a worker that is asked to stop saves its work; after that it is killed."""

_TRACKER_FILTER = "ignore:resource_tracker:UserWarning"
_ONE_THREAD = {
    name: "1"
    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "BLIS_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NUMBA_NUM_THREADS",
    )
}


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

    Raises
    ------
    FlowsimError
        If ``call`` cannot be sent to another process.
    """
    if workers <= 1:
        for unit in units:
            if stop():
                return
            on_answer(unit, call(unit))
        return
    from loky.process_executor import PicklingError

    try:
        with _Workers(workers) as pool:
            _feed(pool, units, call, on_answer, on_death, stop)
    except PicklingError as error:
        raise FlowsimError(
            f"workers = {workers}: what was passed to sweep() cannot be sent to other processes "
            f"({error}); use workers=1"
        ) from error


def _feed(
    pool: _Workers,
    units: Sequence[Work],
    call: Callable[[Work], Answer],
    on_answer: Callable[[Work, Answer], Work | None],
    on_death: Callable[[Work, str], None],
    stop: Callable[[], bool],
) -> None:
    """Keep the pool full until every unit is answered or given up."""
    fresh = deque(_Attempt(unit) for unit in units)
    alone: deque[_Attempt[Work]] = deque()
    running: dict[Future[Answer], _Attempt[Work]] = {}
    while fresh or alone or running:
        if stop():
            _hear_out(pool, running, on_answer)
            return
        while fresh and len(running) < pool.size:
            attempt = fresh.popleft()
            running[pool.submit(call, attempt.work)] = attempt
        if alone and not running:
            attempt = alone.popleft()
            running[pool.submit(call, attempt.work)] = attempt
        done, _ = wait(running, _POLL_SECONDS, return_when=FIRST_COMPLETED)
        again: list[_Attempt[Work]] = []
        broken = any(isinstance(future.exception(), pool.death) for future in done)
        # One dead worker breaks the whole pool: everything that was running has to run again.
        for future in list(running) if broken else done:
            attempt = running.pop(future)
            error = future.exception()
            if broken and error is not None:
                attempt.obituary = _obituary(error)
                again.append(attempt)
                continue
            left = on_answer(attempt.work, future.result())
            if left is not None:
                again.append(_Attempt(left, attempt.deaths, _STOPPED))
        if broken:
            pool.restart()
        for attempt in again:
            attempt.deaths += 1
            if attempt.deaths >= MAX_DEATHS:
                on_death(attempt.work, attempt.obituary)
            elif attempt.deaths > 1:
                alone.append(attempt)
            else:
                fresh.appendleft(attempt)


def _hear_out(
    pool: _Workers,
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
            if future.exception() is None:
                on_answer(running[future].work, future.result())


def _obituary(error: BaseException) -> str:
    from loky.process_executor import TerminatedWorkerError

    if isinstance(error, TerminatedWorkerError):
        return (
            f"its worker process died {MAX_DEATHS} times (killed, or out of memory); "
            "fewer workers leave more memory to each"
        )
    return (str(error).splitlines() or [type(error).__name__])[0]


class _Workers:
    """A pool of worker processes that starts when needed and can be started again."""

    def __init__(self, size: int) -> None:
        from concurrent.futures.process import BrokenProcessPool

        from loky.process_executor import ShutdownExecutorError

        self.size = size
        self.death = (BrokenProcessPool, ShutdownExecutorError)
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.restart()

    def submit(self, call: Callable[[Work], Answer], work: Work) -> Future[Answer]:
        """Hand one unit to the pool."""
        with _interrupts_held_back():
            if self._executor is None:
                self._executor = self._start()
            try:
                return self._executor.submit(call, work)
            except self.death as error:
                # A worker died while nothing was running: the next round starts a new pool.
                future: Future[Answer] = Future()
                future.set_exception(error)
                return future

    def ask_to_stop(self) -> None:
        """Send SIGTERM to the workers: those that have no work ignore it."""
        processes = getattr(self._executor, "_processes", None) or {}
        for number in list(processes):
            with contextlib.suppress(OSError):
                os.kill(number, signal.SIGTERM)

    def restart(self) -> None:
        """Stop all workers at once; the next unit starts new ones."""
        if self._executor is None:
            return
        executor, self._executor = self._executor, None
        # loky looks for the workers' own children with a program that small systems lack; these
        # workers have none.
        warnings.filterwarnings("ignore", message="Failed to kill subprocesses")
        executor.shutdown(wait=True, kill_workers=True)

    def _start(self) -> ProcessPoolExecutor:
        from loky import ProcessPoolExecutor

        # loky's own tracker cleans up after an interrupt and says so on the terminal; it reads
        # its warning filters from the environment.
        filters = os.environ.get("PYTHONWARNINGS", "")
        if _TRACKER_FILTER not in filters:
            os.environ["PYTHONWARNINGS"] = f"{filters},{_TRACKER_FILTER}".lstrip(",")
        return ProcessPoolExecutor(
            self.size, initializer=_enter_worker, initargs=(os.getpid(),), env=_ONE_THREAD
        )


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Start processes in which Ctrl-C is blocked from their first instruction on.

    A terminal sends it to the whole group of processes, but only the parent is to act on it; the
    blocked set is inherited.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # It lifts the block when it starts, and would do so in the middle of starting the workers.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _enter_worker(parent: int) -> None:
    """Prepare a worker: deaf to Ctrl-C, and gone soon after its parent is."""
    for number in (signal.SIGINT, *STOP_SIGNALS):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: int) -> None:
    """End this process when its parent has ended, even in the middle of a run."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
