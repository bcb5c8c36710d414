"""Lists of experiments: those that fit run together in compiled code, the others one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np

from flowsim.backends import resolve_backend
from flowsim.config import Experiment
from flowsim.data import Dataset
from flowsim.ensemble_plans import plan_members
from flowsim.ensembles import Finished, run_members
from flowsim.errors import ConfigError
from flowsim.execution import Job, carry_out
from flowsim.kernels.activations import ACTIVATIONS, Activation
from flowsim.kernels.cpu.threads import usable_cores
from flowsim.preparation import check_memory, make_network, resolve_method
from flowsim.recording.ensemble import write_ensemble
from flowsim.recording.format import LAYERS
from flowsim.recording.places import as_path
from flowsim.result import Run
from flowsim.steppers.interruption import Interruption


class Runs(Sequence[Run]):
    """Runs of a list of experiments, in its order, in memory.

    A run is put together when it is asked for; `relative_change` and `time` need none of that.
    """

    def __init__(self, places: Sequence[Run | tuple[Finished, int]]) -> None:
        self._places = list(places)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: int | slice) -> Run | Runs:
        if isinstance(index, slice):
            return Runs(self._places[index])
        place = self._places[index]
        if isinstance(place, tuple):
            finished, member = place
            place = self._places[index] = Run(finished.contents(member))
        return place

    def __iter__(self) -> Iterator[Run]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"Runs({len(self)})"

    @property
    def relative_change(self) -> dict[str, np.ndarray]:
        """RD at the end by layer: ``input``, ..., ``output``, ``all``; (runs,) arrays.

        Raises
        ------
        ConfigError
            If the runs do not all have the same layers.
        """
        first = self._places[0] if self._places else None
        names = first.layers if isinstance(first, Run) else LAYERS
        rows = [self._change(place) for place in self._places]
        if any(len(row) != len(names) for row in rows):
            raise ConfigError("runs: have different layers; ask each for its relative_change")
        return dict(zip(names, np.array(rows).reshape(-1, len(names)).T.copy(), strict=True))

    @staticmethod
    def _change(place: Run | tuple[Finished, int]) -> np.ndarray:
        if isinstance(place, tuple):
            return place[0].results.change[place[1]]
        return np.asarray(place.final["relative_change"])

    def save(self, path: str | Path, compression: str = "none") -> None:
        """Write the runs to one ensemble file.

        Raises
        ------
        ConfigError
            If ``path`` is none.
        FlowsimError
            If they are not alike in everything but seed and scaling.
        StorageError
            If it cannot be written.
        """
        write_ensemble(as_path(path), [run.contents() for run in self], compression)


@dataclass
class _Group:
    """Experiments of a list that differ in seed and scaling only."""

    dataset: Dataset
    experiments: list[Experiment] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)


def simulate_list(
    experiments: Sequence[Experiment],
    dataset: Dataset | None,
    activation: Activation | None,
    interruption: Interruption,
) -> Runs:
    """Carry out a list of experiments; what a signal cuts short is preempted.

    Parameters
    ----------
    experiments : sequence of Experiment
    dataset : Dataset or None
        In place of the experiments' own data.
    activation : Activation or None
        In place of the experiments' own.
    interruption : Interruption
        Listens for signals on behalf of all.
    """
    places: list[Run | tuple[Finished, int]] = []
    with interruption.listening():
        together = run_together(experiments, dataset, activation, interruption)
        for experiment, place in zip(experiments, together, strict=True):
            if place is None:
                job = _job(experiment, dataset or experiment.make_dataset(), activation)
                places.append(carry_out(job, interruption)[0])
            else:
                places.append(place)
    return Runs(places)


def run_together(
    experiments: Sequence[Experiment],
    dataset: Dataset | None,
    activation: Activation | None,
    interruption: Interruption,
) -> list[tuple[Finished, int] | None]:
    """Carry out those of a list that can be in compiled code.

    Parameters
    ----------
    experiments, dataset, activation, interruption
        See `simulate_list`.

    Returns
    -------
    list
        For each experiment the `Finished` that holds it and its place there; None if it has to
        go the ordinary way, or a signal came first.
    """
    places: list[tuple[Finished, int] | None] = [None] * len(experiments)
    for group in _groups(experiments, dataset):
        if not interruption.name:
            _run_group(group, activation, interruption, places)
    return places


def _groups(experiments: Sequence[Experiment], dataset: Dataset | None) -> list[_Group]:
    """Sort experiments by all but seed and scaling."""
    groups: dict[tuple[str, ...], _Group] = {}
    known: dict[int, str] = {}

    def text(section: Any) -> str:
        # Sections are shared by experiments that come from one another.
        if id(section) not in known:
            known[id(section)] = section.model_dump_json()
        return known[id(section)]

    for position, experiment in enumerate(experiments):
        key = (
            experiment.network.model_dump_json(exclude={"seed"}),
            text(experiment.data),
            text(experiment.integrate),
            text(experiment.record),
        )
        if key not in groups:
            groups[key] = _Group(dataset or experiment.make_dataset())
        groups[key].experiments.append(experiment)
        groups[key].positions.append(position)
    return list(groups.values())


def _run_group(
    group: _Group,
    activation: Activation | None,
    interruption: Interruption,
    places: list[tuple[Finished, int] | None],
) -> None:
    first = group.experiments[0]
    own = activation or ACTIVATIONS[first.network.activation]
    plan = plan_members(first, group.dataset, own)
    if plan is None:
        return
    threads = first.integrate.threads or usable_cores()
    positions = iter(group.positions)
    for finished in run_members(plan, group.experiments, threads, interruption):
        for member, done in enumerate(finished.done):
            position = next(positions)
            if done:
                places[position] = finished, member


def _job(experiment: Experiment, dataset: Dataset, activation: Activation | None) -> Job:
    activation = activation or ACTIVATIONS[experiment.network.activation]
    network = make_network(experiment, dataset, activation)
    experiment.check_targets(dataset)
    experiment = resolve_backend(experiment, network, dataset)
    method = resolve_method(experiment, network, dataset)
    check_memory(experiment, network, dataset, method)
    return Job(experiment, dataset, network, method)
