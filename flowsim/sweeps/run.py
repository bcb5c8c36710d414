"""The sweep itself: expand, check, look what is finished, and carry out the rest."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowsim.config import load_grid
from flowsim.config.source import Overrides
from flowsim.data import Dataset
from flowsim.errors import ConfigError, FlowsimError
from flowsim.steppers.interruption import Interruption
from flowsim.sweeps.claims import Claims
from flowsim.sweeps.cluster import Cluster
from flowsim.sweeps.costs import CostModel
from flowsim.sweeps.failures import forget_failures
from flowsim.sweeps.folder import SweepFolder
from flowsim.sweeps.given import base_and_grid, check_workers, given_data, in_shard
from flowsim.sweeps.grid import Member, Unit, cut, expand
from flowsim.sweeps.pool import STOPPED, Later, carry_out
from flowsim.sweeps.progress import SweepProgress
from flowsim.sweeps.refine import exponent_of, refine
from flowsim.sweeps.result import RunList, SweepResult
from flowsim.sweeps.store import Source, Store
from flowsim.sweeps.work import Answer, Outcome, run_unit

if TYPE_CHECKING:
    from flowsim.config import Experiment
    from flowsim.kernels.activations import Activation
    from flowsim.recording.observables import Frame


class SweepStopped(KeyboardInterrupt):
    """A signal has stopped a sweep; what is finished is saved, the rest continues from there.

    Attributes
    ----------
    signal : str
        Its name, such as ``SIGINT`` for Ctrl-C.
    """

    def __init__(self, signal: str) -> None:
        super().__init__(signal)
        self.signal = signal


@dataclass
class _Ledger:
    """What has become of the runs so far.

    Attributes
    ----------
    members : dict
        All runs of the grid, by identity.
    store : Store or None
        None for a sweep in memory.
    costs : CostModel
        Learns from what is finished.
    memory : dict
        The runs of a sweep in memory.
    """

    members: Mapping[str, Member]
    store: Store | None = None
    costs: CostModel = field(default_factory=CostModel)
    memory: dict[str, Source] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    ran: set[str] = field(default_factory=set)

    @property
    def n_run(self) -> int:
        """Runs carried out here."""
        return len(self.ran)

    @property
    def n_skipped(self) -> int:
        """Runs that were finished without this process."""
        if self.store is None:
            return 0
        return sum(
            self.store.is_finished(member) and identity not in self.ran
            for identity, member in self.members.items()
        )

    def enter(self, outcome: Outcome) -> None:
        """Take one run from its worker."""
        self.ran.add(outcome.id)
        if outcome.status != "complete":
            self.failed[outcome.id] = outcome.reason
        hopeless = outcome.status == "failed" and outcome.source is None
        if hopeless and self.store is not None and outcome.reason != STOPPED:
            self.store.give_up(self.members[outcome.id], outcome.reason)
        if self.store is not None:
            self.store.add(self.members[outcome.id], outcome.source, outcome.status)
        elif outcome.source is not None:
            self.memory[outcome.id] = outcome.source

    def source(self, member: Member) -> Source | None:
        """Where a run is."""
        return self.memory.get(member.id) if self.store is None else self.store.source(member)


def sweep(
    experiment: str | os.PathLike[str] | Mapping[str, Any] | Experiment,
    output: str | os.PathLike[str] | None = None,
    *,
    grid: Mapping[str, Any] | None = None,
    workers: int | None = None,
    dask: str | None = None,
    shard: tuple[int, int] | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    overrides: Overrides = (),
    dataset: Dataset | None = None,
    x: np.ndarray | None = None,
    y: np.ndarray | None = None,
    x_test: np.ndarray | None = None,
    y_test: np.ndarray | None = None,
    activation: Activation | None = None,
    observables: Mapping[str, Callable[[Frame], Any]] | None = None,
) -> SweepResult:
    """Carry out every experiment of a grid, each once.

    Parameters
    ----------
    experiment : path, dict or Experiment
        A grid file; the same as nested dictionaries with a section ``grid``; or an experiment,
        with ``grid`` given beside it.
    output : path, optional
        Folder that gets ``grid.toml`` and ``runs/<id>.h5``, one file a grid point with all its
        seeds. A run that is finished there is not carried out again, and one that was stopped
        goes on where it was: the same call continues a sweep, however it ended. Values and seeds
        may be added to the grid. Several sweeps may share a folder, on any machines that see it:
        each point is carried out by one of them, and all wait for all of it. Without a folder
        the runs stay in memory.
    grid : dict, optional
        Lists of values by dotted key, ``{"scaling.gamma": [0.5, 1.0], "seeds": 5}``. With
        ``"refine": True`` only those values of gamma are carried out that narrow down where S of
        the input weights changes sign (see `flowsim.sweeps.refine`).
    workers : int, optional
        Number of processes, each with one thread; by default one a usable core. With 1 everything
        happens in this process, with the experiment's own number of threads. A script needs no
        ``if __name__ == "__main__"`` around its sweeps.
    dask : str, optional
        Address of the scheduler of a Dask cluster, whose workers see the folder; or "local".
    shard : (int, int), optional
        ``(i, N)`` carries out the i-th of N parts of the grid, counted from 1, of whole points.
    retry_failed : bool
        Try again also the runs that were given up, because they killed their worker several times
        or could not be begun.
    overwrite : bool
        Delete the runs that are in the folder first, also those of another grid.
    progress : bool
        Show a bar with the time left, if standard error is a terminal.
    overrides : mapping or iterable of str
        Changes to what all points have in common, ``{"integrate.stop_loss": 1e-4}`` or
        ``["integrate.stop_loss=1e-4"]``.
    dataset : Dataset, optional
        Used at every point in place of the section ``data``.
    x, y, x_test, y_test : arrays, optional
        The same as arrays, without the bias coordinate (see `flowsim.simulate`).
    activation : Activation, optional
        The user's own, in place of ``network.activation``.
    observables : mapping, optional
        The user's own (see `flowsim.simulate`).

    Returns
    -------
    SweepResult
        What `flowsim.classify` takes. Runs that fail do not stop a sweep.

    Raises
    ------
    ConfigError
        With everything wrong at any point of the grid, before anything is run or written.
    FlowsimError
        If the folder is to be overwritten and another sweep is writing there.
    StorageError
        If finished runs cannot be saved.
    SweepStopped
        A KeyboardInterrupt, after Ctrl-C or another signal to stop (``signal`` names it).
        Finished runs are kept, the others continue where they are.
    """
    workers = check_workers(workers)
    base, axes = base_and_grid(experiment, grid, overrides)
    arrays = {"x": x, "y": y, "x_test": x_test, "y_test": y_test}
    dataset = given_data(dataset, arrays, base)
    if dataset is not None:
        base["data"] = dataset.section()
    own = tuple(getattr(experiment, "activations", ()))
    if activation is not None:
        own += (activation.name,)
        base, _ = load_grid(base, {"network.activation": activation.name})
    options = {"dataset": dataset, "activation": activation, "observables": observables}
    members = expand(base, axes, None if dataset is None else dataset.x.shape, own)
    job = partial(_execute, workers=workers, dask=dask, progress=progress, options=options)
    ledger = _Ledger({member.id: member for member in members})
    chosen, exponent = in_shard(members, shard), exponent_of(axes)
    if exponent is not None and shard is not None:
        raise ConfigError(
            "shard: a grid that is refined has no parts; start the same sweep several times, they "
            "share the work"
        )
    if output is None:
        _carry_out(chosen, exponent, lambda some: job(some, None, ledger), ledger)
        return _result(None, members, ledger)
    if isinstance(experiment, str | os.PathLike) and Path(experiment).resolve() == (
        Path(output).resolve() / "grid.toml"
    ):
        raise ConfigError(
            f"output = {os.fspath(output)}: the sweep would write its own grid.toml over "
            f"{os.fspath(experiment)}; choose another folder"
        )
    folder = SweepFolder(output)
    if not overwrite:
        folder.check(members, own)
    with folder.opened(base, axes, overwrite), Claims(folder.runs) as claims:
        if retry_failed:
            forget_failures(folder.runs)
        ledger.store = Store(folder, members, claims)
        ledger.costs = CostModel(folder.times_file)
        store = ledger.store
        missing = {member.id for member in store.missing()}

        def do(some: list[Member]) -> None:
            try:
                job([member for member in some if member.id in missing], folder.runs, ledger)
            finally:
                store.save()

        _carry_out(chosen, exponent, do, ledger)
        ledger.failed = ledger.store.failed | ledger.failed
        return _result(folder, members, ledger)


def _carry_out(
    members: list[Member],
    exponent: str | None,
    do: Callable[[list[Member]], None],
    ledger: _Ledger,
) -> None:
    """Carry all of them out, or those that show where S changes sign."""
    if exponent is None:
        do(members)
    else:
        refine(members, exponent, do, partial(_slope, ledger=ledger))


def _slope(members: list[Member], ledger: _Ledger) -> float | None:
    """S of the input weights from the runs of one point of the phase diagram."""
    from flowsim.analysis import classify

    sources = [source for member in members if (source := ledger.source(member)) is not None]
    if not sources:
        return None
    points = classify(RunList(sources)).points
    verdict = points[0].layers["input"]
    return None if len(points) > 1 or points[0].not_converged else verdict.slope


def _execute(
    members: list[Member],
    runs: Path | None,
    ledger: _Ledger,
    *,
    workers: int,
    dask: str | None,
    progress: bool,
    options: dict[str, Any],
) -> None:
    """Carry out ``members`` and enter what became of them into ``ledger``."""
    if not members:
        return
    workers = min(workers, len(members))
    engine = None if dask is None else Cluster(dask, workers)
    elsewhere = engine is not None or workers > 1
    if elsewhere:
        _compile_once(members[0], options)
    units = cut(members, workers if engine is None else engine.size)
    interruption = Interruption()
    call = partial(
        run_unit,
        runs=runs,
        options={key: value for key, value in options.items() if value is not None},
        threads=1 if elsewhere else None,
        interruption=None if elsewhere else interruption,
    )
    cost = sum(unit.cost for unit in units)
    n_members = len(ledger.members)
    with (
        interruption.listening(),
        SweepProgress(progress, len(members), n_members, cost) as bar,
    ):

        def note(unit: Unit, answer: Answer) -> Unit | None:
            ended = {outcome.id for outcome in answer.outcomes}
            for outcome in answer.outcomes:
                ledger.enter(outcome)
            done = [member for member in unit.members if member.id in ended]
            ledger.costs.note(done, answer.seconds)
            bar.advance(len(done), sum(m.cost for m in done), len(ledger.failed))
            left = tuple(member for member in unit.members if member.id not in ended)
            return Unit(left) if left else None

        def give_up(unit: Unit, reason: str) -> None:
            for member in unit.members:
                ledger.enter(Outcome(member.id, "failed", reason))
            bar.advance(len(unit.members), unit.cost, len(ledger.failed))

        def admit(unit: Unit) -> Unit | Later | None:
            if ledger.store is None:
                return unit
            left = ledger.store.admit(unit)
            if not isinstance(left, Later):
                kept = {member.id for member in left.members} if left else set()
                gone = [member for member in unit.members if member.id not in kept]
                bar.advance(len(gone), sum(m.cost for m in gone), len(ledger.failed))
            return left

        def stop() -> bool:
            if ledger.store is not None:
                ledger.store.save(if_due=True)
            return bool(interruption.name)

        carry_out(units, call, workers, note, give_up, stop, admit, engine)
    if interruption.name:
        raise SweepStopped(interruption.name)


def _compile_once(member: Member, options: dict[str, Any]) -> None:
    """Compile here what all workers would otherwise compile side by side; they find it on disk."""
    from flowsim.ensemble_plans import plan_members
    from flowsim.ensembles import warm_up
    from flowsim.kernels.activations import ACTIVATIONS

    with contextlib.suppress(FlowsimError):
        experiment = member.experiment
        dataset = options.get("dataset") or experiment.make_dataset()
        activation = options.get("activation") or ACTIVATIONS[experiment.network.activation]
        plan = plan_members(experiment, dataset, activation)
        if plan is not None:
            warm_up(plan)


def _result(folder: SweepFolder | None, members: list[Member], ledger: _Ledger) -> SweepResult:
    """Collect the runs in the order of the grid."""
    found = [(member, ledger.source(member)) for member in members]
    kept = [(member, source) for member, source in found if source is not None]
    return SweepResult(
        folder=None if folder is None else folder.path,
        runs=RunList([source for _, source in kept]),
        values=[member.values for member, _ in kept],
        n_run=ledger.n_run,
        n_skipped=ledger.n_skipped,
        failed=[
            (member.id, ledger.failed[member.id])
            for member in members
            if member.id in ledger.failed
        ],
    )
