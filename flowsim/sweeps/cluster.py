"""The engine for many machines: a Dask cluster, one that is there or one on this machine.

Dask gives the work of a dead worker to another one by itself, and gives up what has killed several.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from flowsim.errors import ConfigError, FlowsimError

Work = TypeVar("Work")
Answer = TypeVar("Answer")

LOCAL = "local"
_CONNECT_SECONDS = 20
_WORKER_SECONDS = 60.0
_AHEAD = 2
"""Units a thread of a worker: one to do, and the next to begin at once."""


class Cluster:
    """The workers of a Dask cluster.

    Parameters
    ----------
    address : str
        Of its scheduler, ``tcp://host:8786``; or ``local`` for one on this machine, which lasts as
        long as the sweep. A script that starts that one needs ``if __name__ == "__main__"``.
    workers : int
        Processes of a cluster on this machine.

    Raises
    ------
    ConfigError
        If Dask is not installed.
    FlowsimError
        If nobody answers at the address.
    """

    deaths_to_give_up = 1
    one_death_is_all = False

    def __init__(self, address: str, workers: int) -> None:
        try:
            import distributed
        except ImportError as error:
            raise ConfigError(
                f"dask = {address}: Dask is not installed; pip install 'flowsim[dask]'"
            ) from error
        self.death: tuple[type[BaseException], ...] = (distributed.scheduler.KilledWorker,)
        self._cluster: Any = None
        if address == LOCAL:
            self._cluster = distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=None
            )
        try:
            self._client = distributed.Client(self._cluster or address, timeout=_CONNECT_SECONDS)
            self._client.wait_for_workers(1, timeout=_WORKER_SECONDS)
        except (OSError, ValueError, TimeoutError) as error:
            reason = (str(error).splitlines() or ["no answer"])[0]
            raise FlowsimError(
                f"dask = {address}: no cluster with workers there ({reason}); give the address of "
                "its scheduler, tcp://host:8786, or local"
            ) from error
        self._executor = self._client.get_executor(pure=False)
        self.size = _AHEAD * sum(self._client.nthreads().values())

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(wait=False)
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()

    def submit(self, call: Callable[[Work], Answer], work: Work) -> Future[Answer]:
        """Hand one unit over."""
        future: Future[Answer] = self._executor.submit(call, work)
        return future

    def ask_to_stop(self) -> None:
        """Do nothing: what is running goes on in its files where it is continued."""

    def restart(self) -> None:
        """Do nothing: dead workers are replaced without us."""

    def obituary(self, error: BaseException) -> str:
        """Say why a unit was given up."""
        return (
            "it has killed several workers of the Dask cluster (out of memory?); give each worker "
            "more memory"
        )
