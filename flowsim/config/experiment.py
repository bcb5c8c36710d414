"""Experiments: everything that determines a run, checked."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import tomli_w

from flowsim.config.data_section import DataSection, File, Function, Images, Points
from flowsim.config.fields import Section
from flowsim.config.forms import SECTIONS, check_section, keys_of
from flowsim.config.joint_checks import (
    backend_problems,
    floor_problems,
    kinks_problems,
    passes_problems,
    scheme_problems,
)
from flowsim.config.problems import closest, show, show_key
from flowsim.config.scaling_section import DeepNamedScheme, DeepScalingSection, ScalingSection
from flowsim.config.sections import DeepNetworkSection, Integrate, Network, Record
from flowsim.config.source import Overrides, read_sections
from flowsim.data import Dataset
from flowsim.deep_scaling import DeepScaling
from flowsim.errors import ConfigError, DataWarning
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.kernels.losses import LOSSES, SQUARE
from flowsim.scaling import Scaling

NOT_HASHED = (
    "integrate.threads",
    "integrate.max_seconds",
    "record.flush",
    "record.checkpoint",
    "record.compression",
)
"""Keys that never change a number."""

STOP_RULES = {
    "stop_loss": -1,
    "t_max": 1,
    "max_steps": 1,
    "steady_slope": -1,
    "steady_min_time": 1,
}
"""Keys of ``[integrate]`` that end a run without changing its path, with the direction in which
the run goes on for longer: 1 up, -1 down. Left out means no limit."""


@dataclass(frozen=True)
class Experiment:
    """A checked experiment; made by `load_experiment`.

    Attributes
    ----------
    network, scaling, data, integrate, record
        The sections, with all defaults.
    given : dict
        The sections as they were given, before defaults.
    activations : tuple of str
        Names of the user's own activations.
    """

    network: Network | DeepNetworkSection
    scaling: ScalingSection | DeepScalingSection
    data: DataSection
    integrate: Integrate
    record: Record
    given: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    activations: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return the sections as nested dictionaries, defaults filled in, without None."""
        return {name: getattr(self, name).model_dump(exclude_none=True) for name in SECTIONS}

    def to_toml(self) -> str:
        """Return the text of an experiment file with all defaults written out."""
        return tomli_w.dumps(self.to_dict())

    def hash(self) -> str:
        """Return the SHA-256 (hexadecimal) of all that determines the numbers of a run.

        Threads and the wall-time budget do not, nor when and how a file is written. Data files
        enter with their content, not their path.

        Raises
        ------
        ConfigError
            If the data file cannot be read.
        """
        return self._hash(NOT_HASHED)

    def trajectory_hash(self) -> str:
        """Return the same without what says when the run ends: a run can be asked for more.

        Raises
        ------
        ConfigError
            If the data file cannot be read.
        """
        ends = [f"integrate.{key}" for key in (*STOP_RULES, "estimate_error")]
        return self._hash((*NOT_HASHED, *ends))

    def _hash(self, left_out: Iterable[str]) -> str:
        sections = self.to_dict()
        for key in left_out:
            section, _, name = key.partition(".")
            sections[section].pop(name, None)
        try:
            sections["data"] |= self.data.content()
        except ConfigError as error:
            raise ConfigError(_in_section("data", error.problems)) from None
        text = json.dumps(sections, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def make_scaling(self, n_inputs: int) -> Scaling | DeepScaling:
        """Return the scales at this width.

        Parameters
        ----------
        n_inputs : int
            Inputs d, the bias coordinate included: `Dataset.n_inputs`.

        Raises
        ------
        ConfigError
            If they are out of range, or have no exponents at width 1.
        """
        try:
            return _make_scaling(self.network, self.scaling, n_inputs)
        except ConfigError as error:
            raise ConfigError(_in_section("scaling", error.problems)) from None

    def make_dataset(self) -> Dataset:
        """Return the data set.

        Raises
        ------
        ConfigError
            If a file cannot be read, or the samples do not fit together or to the network.

        Warns
        -----
        DataWarning
            If the targets contradict each other, so that the loss cannot reach 0.
        """
        dataset = _make_samples(self.data)
        self.check_targets(dataset)
        activation = ACTIVATIONS.get(self.network.activation)
        square = self.integrate.loss in (None, SQUARE)
        if activation is not None and activation.homogeneous and square:
            dataset.warn_of_parallel_inputs()  # outputs in ratio may well be of one class
        return dataset

    def check_targets(self, dataset: Dataset) -> None:
        """Check that the network has outputs, and the loss a value, for these targets.

        Parameters
        ----------
        dataset : Dataset
            That of the experiment, or what a script gives in its place.

        Raises
        ------
        ConfigError
            If they do not.
        """
        if problems := _target_problems(dataset, self.network, self.integrate):
            raise ConfigError(problems)

    def with_overrides(self, overrides: Overrides) -> Experiment:
        """Return another experiment, with some keys changed.

        Parameters
        ----------
        overrides : mapping or iterable of str
            ``{"scaling.gamma": 1.2}`` or ``["scaling.gamma=1.2"]``. A value None takes a key out.

        Raises
        ------
        ConfigError
            As `load_experiment`.
        """
        return load_experiment(self, overrides)

    def with_backend(self, backend: str) -> Experiment:
        """Return the same experiment on another backend, without checking all of it again."""
        integrate = self.integrate.model_copy(update={"backend": backend})
        return replace(self, integrate=integrate)

    def with_seed(self, seed: int) -> Experiment:
        """Return the same experiment with another seed, without checking all of it again.

        Raises
        ------
        ConfigError
            If ``seed`` is not a whole number from 0 on.
        """
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise ConfigError(f"network.seed = {seed!r}: must be a whole number, 0 or larger")
        own = {**self.given.get("network", {}), "seed": int(seed)}
        return replace(
            self,
            network=self.network.model_copy(update={"seed": int(seed)}),
            given={**self.given, "network": own},
        )


def load_experiment(
    source: Any, overrides: Overrides = (), activations: Iterable[str] = ()
) -> Experiment:
    """Read and check an experiment.

    Parameters
    ----------
    source : path, mapping or Experiment
        A TOML file; or its sections as nested dictionaries, in which NumPy values, tuples, paths
        and None (as if left out) are welcome. A relative path of a data file is relative to the
        folder of the experiment file, else to the working directory.
    overrides : mapping or iterable of str
        Values by dotted key, or texts ``"key=value"`` with a TOML value.
    activations : iterable of str
        Names that ``network.activation`` may have beside the built-in ones.

    Returns
    -------
    Experiment

    Raises
    ------
    ConfigError
        With everything that is wrong, one line each.
    """
    given, problems = read_sections(source, overrides)
    names = (*getattr(source, "activations", ()), *activations)
    problems += [_unknown_section(key, given[key]) for key in given if key not in SECTIONS]
    checked: dict[str, Section] = {}
    for name in SECTIONS:
        try:
            checked[name] = check_section(name, given.get(name, {}), names, _kind_of(given))
        except ConfigError as error:
            problems += error.problems
    problems += _joint_problems(checked, bool(problems))
    if problems:
        raise ConfigError(dict.fromkeys(problems))
    return Experiment(
        network=cast(Network | DeepNetworkSection, checked["network"]),
        scaling=cast(ScalingSection | DeepScalingSection, checked["scaling"]),
        data=cast(DataSection, checked["data"]),
        integrate=cast(Integrate, checked["integrate"]),
        record=cast(Record, checked["record"]),
        given=given,
        activations=names,
    )


def _joint_problems(checked: Mapping[str, Section], others: bool) -> list[str]:
    """Check what no section can check by itself: scales at the width, and the samples.

    Samples that have to be computed or read are left for `Experiment.make_dataset`; but if there
    are ``others``, the user is to see those of the data at the same time.
    """
    network, scaling, data = (checked.get(name) for name in ("network", "scaling", "data"))
    problems = []
    if isinstance(network, Network | DeepNetworkSection) and isinstance(
        scaling, ScalingSection | DeepScalingSection
    ):
        try:
            _make_scaling(network, scaling, n_inputs=1)
        except ConfigError as error:
            problems += _in_section("scaling", error.problems)
    integrate = checked.get("integrate")
    if isinstance(network, Network | DeepNetworkSection) and isinstance(integrate, Integrate):
        problems += backend_problems(network, integrate)
        problems += passes_problems(network, integrate)
        problems += kinks_problems(network, integrate)
        if isinstance(network, DeepNetworkSection) and isinstance(scaling, DeepNamedScheme):
            problems += scheme_problems(network, scaling, integrate)
    now = Points if not (others or problems) else Points | Function | File | Images
    if isinstance(data, now):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DataWarning)  # comes with make_dataset
                problems += _target_problems(_make_samples(data), network, integrate)
        except ConfigError as error:
            problems += error.problems
    return problems


def _kind_of(given: Mapping[str, Any]) -> str:
    """Kind of the network, which decides what ``[network]`` and ``[scaling]`` may hold.

    Where it was forgotten or misspelt, keys tell it that only one kind has: the user is to hear of
    the kind, not of every key that would be unknown to the other.
    """
    network = given.get("network")
    if not isinstance(network, Mapping):
        return "two-layer"
    kind = network.get("kind")
    if kind in ("deep", "two-layer"):
        return str(kind)
    own = {*DeepNetworkSection.model_fields} - {*Network.model_fields}
    return "deep" if own & {*network} else "two-layer"


def _make_scaling(
    network: Network | DeepNetworkSection,
    scaling: ScalingSection | DeepScalingSection,
    n_inputs: int,
) -> Scaling | DeepScaling:
    if isinstance(scaling, DeepScalingSection):
        assert isinstance(network, DeepNetworkSection)
        return scaling.make(network.width, network.hidden_layers)
    return scaling.make(network.width, n_inputs)


def _make_samples(section: DataSection) -> Dataset:
    """Make the data set of a section."""
    try:
        return section.make()
    except ConfigError as error:
        raise ConfigError(_in_section("data", error.problems)) from None


def _target_problems(
    dataset: Dataset, network: Section | None, integrate: Section | None
) -> list[str]:
    """Check the targets against those sections that are valid."""
    if dataset.n_outputs > 1 and isinstance(network, Network):
        return [
            f"data.y: has {dataset.n_outputs} columns, but the network has one output; give one "
            'target for every sample, or set network.kind = "deep", which has as many outputs'
        ]
    if not isinstance(integrate, Integrate):
        return []
    problems = floor_problems(dataset, integrate)
    if integrate.loss is None:
        return problems
    loss = LOSSES[integrate.loss]
    for name, y in (("y", dataset.y), ("y_test", dataset.y_test)):
        if y is not None and (problem := loss.problem(y)):
            problems.append(f'data.{name}: {problem} (integrate.loss = "{loss.name}")')
    return problems


def _unknown_section(key: str, value: Any) -> str:
    shown = show_key((key,)) if isinstance(value, dict) else f"{show_key((key,))} = {show(value)}"
    if key == "grid":
        return "grid: this is a grid, not a single experiment; use `flowsim sweep`, or remove it"
    homes = [f"[{section}]" for section in SECTIONS if key in keys_of(section)]
    if homes and not isinstance(value, dict):
        return f"{shown}: outside of any section; move it into {' or '.join(homes)}"
    close = closest(key, list(SECTIONS))
    remedy = f"did you mean `{close}`?" if close else f"the sections are {', '.join(SECTIONS)}"
    return f"{shown}: unknown section; {remedy}"


def _in_section(section: str, problems: Iterable[str]) -> list[str]:
    """Complete the keys that problems begin with."""
    # Scales complain of the width too, but its key is the network's.
    homes = {"scaling": {"width": "network"}}.get(section, {})
    return [f"{homes.get(problem.split(' ')[0], section)}.{problem}" for problem in problems]
