"""The Python interface to single runs: `simulate` and `open`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np

from flowsim.arguments import check_observables
from flowsim.backends import resolve_backend
from flowsim.config import Experiment
from flowsim.continuing import RESUME
from flowsim.data import Dataset
from flowsim.errors import ConfigError, FileFormatError
from flowsim.execution import Job, carry_out
from flowsim.kernels.activations import ACTIVATIONS, Activation, ActivationError
from flowsim.preparation import (
    Initial,
    Source,
    check_memory,
    check_output,
    initial_state,
    make_network,
    resolve,
    resolve_method,
)
from flowsim.recording.observables import Frame
from flowsim.recording.reader import Ensemble, is_ensemble
from flowsim.result import Run
from flowsim.steppers.interruption import Interruption

if TYPE_CHECKING:
    from flowsim.many import Runs


def open(path: str | Path) -> Run | Ensemble[Run]:  # noqa: A001 - it reads flowsim.open
    """Open a run file: finished, growing or killed. It is only ever read.

    Parameters
    ----------
    path : path
        ``run.h5`` stands for ``run.h5.part`` too, while there is nothing else.

    Returns
    -------
    Run or Ensemble
        One run, or the runs of an ensemble. Arrays are read when they are asked for; of a growing
        run each time anew.

    Raises
    ------
    FileFormatError
        If it is not a run file, damaged, or of a newer format version.
    """
    if not isinstance(path, str | os.PathLike):
        raise FileFormatError(f"path = {path!r}: not a path; give the name of a run file")
    return Ensemble(path, Run) if is_ensemble(path) else Run(path)


@overload
def simulate(experiment: Sequence[Source], **options: Any) -> Runs: ...
@overload
def simulate(experiment: Source | None = None, **options: Any) -> Run: ...
def simulate(
    experiment: Source | Sequence[Source] | None = None,
    *,
    seeds: int | Sequence[int] | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    resume: str = "auto",
    lock: bool = True,
    scratch: str | Path | None = None,
    dataset: Dataset | None = None,
    x: np.ndarray | None = None,
    y: np.ndarray | None = None,
    x_test: np.ndarray | None = None,
    y_test: np.ndarray | None = None,
    initial: Initial | None = None,
    activation: Activation | None = None,
    observables: Mapping[str, Callable[[Frame], Any]] | None = None,
    progress: bool = False,
    **sections: Mapping[str, Any],
) -> Run | Runs:
    """Integrate one network's flow and return the run, or those of a list.

    Parameters
    ----------
    experiment : path, mapping or Experiment, or a list of these, optional
        An experiment file, or the same as Python objects. A list's small networks run together,
        in compiled code (see `flowsim.ensembles`); its runs are kept in memory.
    seeds : int or sequence of int, optional
        The experiment with so many seeds, from its own on, or with these: a list of runs.
    output : path, optional
        The run file; without it the run is kept in memory. While it grows it is ``run.h5.part``,
        with its checkpoint beside it.
    overwrite : bool
        Replace an existing output, finished or not.
    resume : {"auto", "never", "must"}
        What to do where the output holds this very run already: go on from its checkpoint, or
        return it if it is finished (``auto``); refuse (``never``); refuse unless there is
        something to continue (``must``). A finished run goes on if it is asked for more: a lower
        ``stop_loss``, a larger ``t_max``.
    lock : bool
        Keep other processes away from the output; file systems without locks need False.
    scratch : path, optional
        Folder on a local disk in which the run grows, for an output on a network file system; it
        is copied at each checkpoint.
    dataset, x, y, x_test, y_test : Dataset or arrays, optional
        Data in place of the ``data`` section: x (n, inputs) without the bias coordinate, which is
        added unless ``data={"bias": False}``; y (n,), or (n, outputs) for a deep network.
        ``data={"normalise": "standardise"}`` does to arrays what it does in the section.
    initial : mapping, path or Run, optional
        Initial weights in place of random ones, normalised: ``output_weights`` (m,) and
        ``input_weights`` (d, m), bias weights last (with antisymmetric initial values the second
        copy is added, unless both are given); or a run, whose final weights are taken.
    activation : Activation, optional
        A script's own activation.
    observables : mapping, optional
        Names to functions of a `flowsim.recording.observables.Frame`; saved with the others.
    progress : bool
        Show a progress bar if standard error is a terminal.
    **sections : mapping
        Sections of the experiment, e.g. ``network={"width": 1000}``; they add to ``experiment``
        and override it.

    Returns
    -------
    Run, or for a list Runs
        Whatever the ending: ``status`` and ``stop_reason`` tell. Ctrl-C ends the run like a time
        limit, with everything saved; the same call continues it. So do SIGTERM, SIGHUP and
        SIGUSR1, which then end the script.

    Raises
    ------
    ConfigError
        With all that is wrong with the experiment, before anything is computed or written.
    StorageError
        If the run cannot be written. Where only the last rows do not fit on the disk the run is
        preempted instead, and ``stop_reason`` says so.
    FlowsimError
        If another process is writing the output, or the network does not fit into memory.
    """
    arrays = dict(x=x, y=y, x_test=x_test, y_test=y_test)
    if isinstance(experiment, list | tuple) or seeds is not None:
        alone = {
            "output": output, "scratch": scratch, "initial": initial, "observables": observables
        }  # fmt: skip
        sources: Sequence[Any] = (
            experiment if isinstance(experiment, list | tuple) else [experiment]
        )
        return _simulate_list(sources, seeds, sections, dataset, arrays, activation, alone)
    single = cast("Source | None", experiment)
    job = _job(
        single, sections, dataset, arrays, initial, activation, observables or {},
        output=output, overwrite=overwrite, resume=resume, lock=lock, scratch=scratch,
        progress=progress,
    )  # fmt: skip
    run, name = _carry_out(job)
    if name not in ("", "SIGINT"):
        # Whoever sent it meant the process; now that everything is saved it may have its way.
        signal.raise_signal(signal.Signals[name])
    return run


def _simulate_list(
    sources: Sequence[Source | None],
    seeds: int | Sequence[int] | None,
    sections: Mapping[str, Mapping[str, Any]],
    dataset: Dataset | None,
    arrays: Mapping[str, np.ndarray | None],
    activation: Activation | None,
    alone: Mapping[str, Any],
) -> Runs:
    """Check a list and carry it out."""
    from flowsim.many import simulate_list

    if wrong := [name for name, value in alone.items() if value is not None]:
        raise ConfigError(
            f"{wrong[0]}: for a single run only; simulate the experiments one by one, or save the "
            "runs of the list with save()"
        )
    given = {name: value for name, value in arrays.items() if value is not None}
    plain = not sections and not given and dataset is None and activation is None
    resolved = []
    for source in sources:
        if plain and isinstance(source, Experiment):
            resolved.append(source)
            continue
        experiment, own = resolve(source, sections, dataset, given, activation)
        if dataset is not None or given:
            dataset, given = own, {}
            sections = {name: section for name, section in sections.items() if name != "data"}
        resolved.append(experiment)
    if seeds is not None:
        resolved = [one.with_seed(seed) for one in resolved for seed in _seeds_of(one, seeds)]
    interruption = Interruption()
    runs = simulate_list(resolved, dataset, activation, interruption)
    if interruption.name not in ("", "SIGINT"):
        signal.raise_signal(signal.Signals[interruption.name])
    return runs


_MOST_SEEDS = 10**6
"""Runs of one list at the most: all are in memory, where larger numbers are typing mistakes."""


def _seeds_of(experiment: Experiment, seeds: int | Sequence[int]) -> Sequence[int]:
    if isinstance(seeds, list | tuple | range | np.ndarray):
        return seeds
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise ConfigError(f"seeds = {seeds!r}: must be how many seeds (at least 1) or a list")
    if seeds > _MOST_SEEDS:
        raise ConfigError(f"seeds = {seeds}: more than {_MOST_SEEDS} at once; simulate in parts")
    first = experiment.network.seed
    return range(first, first + seeds)


def run_experiment(experiment: Experiment, output: Path, **options: Any) -> tuple[Run, str]:
    """Carry out one run like `simulate`, but leave it to the caller to obey a signal.

    Parameters
    ----------
    experiment : Experiment
    output : Path
    **options
        ``overwrite``, ``resume``, ``lock``, ``scratch``, ``progress`` of `simulate`.

    Returns
    -------
    Run
    str
        Name of the signal that stopped it; empty if none did.
    """
    return _carry_out(_job(experiment, {}, None, {}, None, None, {}, output=output, **options))


def simulate_member(
    experiment: Experiment,
    path: Path | None,
    *,
    interruption: Interruption | None = None,
    dataset: Dataset | None = None,
    activation: Activation | None = None,
    observables: Mapping[str, Callable[[Frame], Any]] | None = None,
) -> tuple[Run, str]:
    """Carry out one run of a sweep.

    Parameters
    ----------
    experiment : Experiment
    path : Path or None
        Where the run grows, and from where it is continued, if it lasts longer than until its
        first commit. A shorter one stays in memory; nothing is written.
    interruption : Interruption, optional
        Listens for signals on behalf of several runs.
    dataset, activation, observables
        See `simulate`.

    Returns
    -------
    Run
    str
        Name of the signal that stopped it; empty if none did.
    """
    job = _job(
        experiment, {}, dataset, {}, None, activation, observables or {},
        output=path, write_short=False,
    )  # fmt: skip
    return _carry_out(job, interruption)


def _job(
    experiment: Source | None,
    sections: Mapping[str, Mapping[str, Any]],
    dataset: Dataset | None,
    arrays: Mapping[str, np.ndarray | None],
    initial: Initial | None,
    activation: Activation | None,
    observables: Mapping[str, Callable[[Frame], Any]],
    *,
    output: str | Path | None,
    overwrite: bool = False,
    resume: str = "auto",
    lock: bool = True,
    scratch: str | Path | None = None,
    **options: Any,
) -> Job:
    """Check everything and put it together."""
    if resume not in RESUME:
        raise ConfigError(f"resume = {resume!r}: unknown; choose from {', '.join(RESUME)}")
    if resume == "must" and output is None:
        raise ConfigError('resume = "must": without output there is no run to go on with; name it')
    if not isinstance(lock, bool):
        raise ConfigError(f"lock = {lock!r}: wanted True or False; give one of them")
    given = {name: value for name, value in arrays.items() if value is not None}
    check_observables(observables)
    resolved, dataset = resolve(experiment, sections, dataset, given, activation)
    places = check_output(output, overwrite, scratch)
    activation = activation or ACTIVATIONS[resolved.network.activation]
    network = make_network(resolved, dataset, activation)
    resolved = resolve_backend(resolved, network, dataset)
    method = resolve_method(resolved, network, dataset)
    check_memory(resolved, network, dataset, method)
    return Job(
        experiment=resolved,
        dataset=dataset,
        network=network,
        method=method,
        initial=None if initial is None else initial_state(network, dataset, initial),
        observables=observables,
        places=places,
        overwrite=overwrite,
        resume=resume,
        lock=lock,
        **options,
    )


def _carry_out(job: Job, interruption: Interruption | None = None) -> tuple[Run, str]:
    try:
        return carry_out(job, interruption)
    except ActivationError as error:
        raise ConfigError(str(error)) from error
