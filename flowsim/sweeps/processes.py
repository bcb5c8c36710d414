"""The local engine: a pool of worker processes, by loky, that outlives its workers."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, TypeVar

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


class Processes:
    """A pool of worker processes that starts when needed and can be started again.

    Parameters
    ----------
    size : int
        Number of processes.
    """

    deaths_to_give_up = MAX_DEATHS
    one_death_is_all = True

    def __init__(self, size: int) -> None:
        from concurrent.futures.process import BrokenProcessPool

        from loky.process_executor import ShutdownExecutorError

        self.size = size
        self.death: tuple[type[BaseException], ...] = (BrokenProcessPool, ShutdownExecutorError)
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> Processes:
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

    def obituary(self, error: BaseException) -> str:
        """Say why a unit was given up."""
        from loky.process_executor import TerminatedWorkerError

        if isinstance(error, TerminatedWorkerError):
            return (
                f"its worker process died {MAX_DEATHS} times (killed, or out of memory); "
                "fewer workers leave more memory to each"
            )
        return (str(error).splitlines() or [type(error).__name__])[0]

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
