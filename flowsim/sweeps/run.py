"""The sweep itself: expand, check, look what is finished, and carry out the rest."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowsim.config import load_grid
from flowsim.config.source import Overrides
from flowsim.data import Dataset, from_arrays
from flowsim.errors import ConfigError, DataWarning
from flowsim.kernels.cpu.threads import usable_cores
from flowsim.sweeps.folder import SweepFolder
from flowsim.sweeps.grid import Point, Unit, cut, expand
from flowsim.sweeps.pool import carry_out
from flowsim.sweeps.progress import SweepProgress
from flowsim.sweeps.result import RunList, SweepResult

if TYPE_CHECKING:
    from flowsim.config import Experiment
    from flowsim.kernels.activations import Activation
    from flowsim.recording.observables import Frame


@dataclass(frozen=True)
class Outcome:
    """What a worker reports of one run.

    Attributes
    ----------
    id : str
        The point's.
    status, reason : str
        Of the run; status ``"failed"`` also when there is no run at all.
    image : bytes or None
        The run's file, when it is kept in memory.
    """

    id: str
    status: str
    reason: str
    image: bytes | None = None


@dataclass
class _Ledger:
    """What is known of every run so far."""

    images: dict[str, bytes] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    n_run: int = 0


def sweep(
    experiment: str | os.PathLike[str] | Mapping[str, Any] | Experiment,
    output: str | os.PathLike[str] | None = None,
    *,
    grid: Mapping[str, Any] | None = None,
    workers: int | None = None,
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
        Folder that gets ``grid.toml`` and ``runs/<id>.h5``. A run that is finished there is not
        carried out again, so that a sweep which was stopped continues, and values may be added
        to the grid. Without a folder the runs stay in memory.
    grid : dict, optional
        Lists of values by dotted key, ``{"scaling.gamma": [0.5, 1.0], "seeds": 5}``.
    workers : int, optional
        Number of processes, each with one thread; by default one a usable core. With 1 everything
        happens in this process, with the experiment's own number of threads. A script needs no
        ``if __name__ == "__main__"`` around its sweeps.
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
        If another sweep is writing to the folder.
    KeyboardInterrupt
        After the workers have been stopped; finished runs are kept.
    """
    workers = _check_workers(workers)
    base, axes = _base_and_grid(experiment, grid, overrides)
    arrays = {"x": x, "y": y, "x_test": x_test, "y_test": y_test}
    dataset = _given_data(dataset, arrays, base)
    if dataset is not None:
        base["data"] = dataset.section()
    own = tuple(getattr(experiment, "activations", ()))
    if activation is not None:
        own += (activation.name,)
        base, _ = load_grid(base, {"network.activation": activation.name})
    options = {"dataset": dataset, "activation": activation, "observables": observables}
    points = expand(base, axes, None if dataset is None else dataset.n_samples, own)
    if output is None:
        ledger = _Ledger()
        _execute(points, None, workers, progress, len(points), options, ledger)
        return _result(None, points, 0, ledger)
    if isinstance(experiment, str | os.PathLike) and Path(experiment).resolve() == (
        Path(output).resolve() / "grid.toml"
    ):
        raise ConfigError(
            f"output = {os.fspath(output)}: the sweep would write its own grid.toml over "
            f"{os.fspath(experiment)}; choose another folder"
        )
    folder = SweepFolder(output)
    if not overwrite:
        folder.check(points, own)
    with ExitStack() as stack:
        stack.enter_context(folder.lock())
        folder.prepare(base, axes, overwrite)
        stack.callback(folder.remove_parts)
        ledger = _Ledger()
        missing = _missing(points, folder, ledger)
        _execute(missing, folder, workers, progress, len(points), options, ledger)
        return _result(folder, points, len(points) - len(missing), ledger)


def _check_workers(workers: int | None) -> int:
    if workers is None:
        return usable_cores()
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ConfigError(
            f"workers = {workers!r}: must be a positive number of processes, or left out for one "
            f"a core ({usable_cores()} here)"
        )
    return workers


def _base_and_grid(
    experiment: Any, grid: Mapping[str, Any] | None, overrides: Overrides
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what all points have in common, and the grid."""
    base, inside = load_grid(experiment, overrides)
    if grid is None:
        return base, inside
    if inside:
        raise ConfigError("grid: given in the experiment and beside it; keep one of the two")
    return base, load_grid({"grid": grid})[1]


def _given_data(
    dataset: Dataset | None, arrays: Mapping[str, np.ndarray | None], base: Mapping[str, Any]
) -> Dataset | None:
    """Return the data that do not come from the experiment."""
    x, y = arrays["x"], arrays["y"]
    if dataset is not None or all(values is None for values in arrays.values()):
        return dataset
    if x is None or y is None:
        raise ConfigError(f"{'x' if x is None else 'y'}: missing; x and y go together")
    section = base.get("data", {})
    bias = section.get("bias", True) if isinstance(section, Mapping) else True
    return from_arrays(x, y, arrays["x_test"], arrays["y_test"], bias=bias)


def _missing(points: list[Point], folder: SweepFolder, ledger: _Ledger) -> list[Point]:
    """Return the points that are not finished; note the reasons of those that failed."""
    missing = []
    for point in points:
        status = folder.finished(point)
        if status is None:
            missing.append(point)
        elif status == "failed":
            ledger.failed[point.id] = folder.stop_reason(point)
    return missing


def _execute(
    points: list[Point],
    folder: SweepFolder | None,
    workers: int,
    progress: bool,
    n_points: int,
    options: dict[str, Any],
    ledger: _Ledger,
) -> None:
    """Carry out ``points`` and enter what became of them into ``ledger``."""
    if not points:
        return
    workers = min(workers, len(points))
    units = cut(points, workers)
    call = partial(
        run_unit,
        runs=None if folder is None else folder.runs,
        options={key: value for key, value in options.items() if value is not None},
        threads=None if workers == 1 else 1,
    )
    with SweepProgress(progress, len(points), n_points, sum(u.cost for u in units)) as bar:

        def note(unit: Unit, outcomes: list[Outcome]) -> None:
            for outcome in outcomes:
                ledger.n_run += 1
                if outcome.image is not None:
                    ledger.images[outcome.id] = outcome.image
                if outcome.status != "complete":
                    ledger.failed[outcome.id] = outcome.reason
            bar.advance(len(unit.points), unit.cost, len(ledger.failed))

        def give_up(unit: Unit, reason: str) -> None:
            note(unit, [Outcome(point.id, "failed", reason) for point in unit.points])

        carry_out(units, call, workers, note, give_up)


def run_unit(
    unit: Unit, runs: Path | None, options: dict[str, Any], threads: int | None
) -> list[Outcome]:
    """Carry out one unit of work; the function that worker processes call.

    Parameters
    ----------
    unit : Unit
    runs : Path or None
        Folder for the files; None returns their images.
    options : dict
        Further arguments of `flowsim.simulate`.
    threads : int or None
        Threads for each run, in place of the experiment's.
    """
    with warnings.catch_warnings():
        # The parent has made the same data, and has shown these.
        warnings.simplefilter("ignore", DataWarning)
        return [_run_point(point, runs, options, threads) for point in unit.points]


def _run_point(
    point: Point, runs: Path | None, options: dict[str, Any], threads: int | None
) -> Outcome:
    """Carry out one run. What goes wrong with it goes into the outcome, not up."""
    from flowsim.api import simulate

    experiment = point.experiment
    if threads is not None:
        experiment = experiment.with_overrides({"integrate.threads": threads})
    file = None if runs is None else runs / f"{point.id}.h5"
    try:
        run = simulate(experiment, output=file, overwrite=True, **options)
        with run:
            status, reason = run.status, run.stop_reason
            image = run.file_image() if file is None else None
        if status == "preempted" and reason.startswith("interrupted"):
            # Ctrl-C in a sweep that runs in its own process: pass it on, keep finished runs only.
            if file is not None:
                file.unlink(missing_ok=True)
            raise KeyboardInterrupt
    except Exception as error:
        # Whatever it is: one run must not take the others down, and its reason is reported.
        return Outcome(point.id, "failed", f"{type(error).__name__}: {error}")
    return Outcome(point.id, status, reason, image)


def _result(
    folder: SweepFolder | None, points: list[Point], n_skipped: int, ledger: _Ledger
) -> SweepResult:
    """Collect the runs in the order of the grid."""
    kept: list[Point] = []
    sources: list[Path | bytes] = []
    for point in points:
        source = ledger.images.get(point.id) if folder is None else folder.file(point)
        if source is None or (isinstance(source, Path) and not source.exists()):
            continue
        kept.append(point)
        sources.append(source)
    return SweepResult(
        folder=None if folder is None else folder.path,
        runs=RunList(sources),
        values=[point.values for point in kept],
        n_run=ledger.n_run,
        n_skipped=n_skipped,
        failed=[
            (point.id, ledger.failed[point.id]) for point in points if point.id in ledger.failed
        ],
    )
