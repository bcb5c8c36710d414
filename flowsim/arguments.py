"""What a script gives beside sections: arguments that no experiment file can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowsim.config.problems import show
from flowsim.data import Dataset
from flowsim.errors import ConfigError
from flowsim.kernels.activations import Activation

_OF_ARRAYS = ("bias", "normalise")
"""Keys of ``data`` that say something of arrays, and so may stand beside them."""


def argument_problems(
    sections: Mapping[str, Any],
    dataset: Any,
    arrays: Mapping[str, Any],
    activation: Any,
) -> list[str]:
    """Check what no section can: arguments of a wrong kind, and data that are given twice.

    What is given beside other data must not be passed over in silence: the run would be of
    other samples than its caller believes.

    Parameters
    ----------
    sections, dataset, arrays, activation
        See `flowsim.simulate`; of the arrays those that were given.

    Returns
    -------
    list of str
        One line each; empty if nothing is wrong.
    """
    problems = [
        f"{name} = {section!r:.60}: wanted a section; give a dictionary"
        for name, section in sections.items()
        if not isinstance(section, Mapping)
    ]
    if dataset is not None and not isinstance(dataset, Dataset):
        problems.append(
            f"dataset: is a {type(dataset).__name__}; give a flowsim.data.Dataset, or x and y"
        )
    elif dataset is not None:
        beside = [*arrays, *(["data"] if "data" in sections else [])]
        problems += [f"{name}: given beside dataset; keep one of the two" for name in beside]
    elif arrays and isinstance(sections.get("data"), Mapping):
        problems += [
            f"data.{key} = {show(value)}: unknown beside x and y, which replace the section; "
            f"the keys there are {', '.join(_OF_ARRAYS)}"
            for key, value in sections["data"].items()
            if key not in _OF_ARRAYS
        ]
    if activation is not None and not isinstance(activation, Activation):
        problems.append(
            f"activation = {activation!r:.60}: is no fs.Activation; give one, or name a built-in "
            'one with network = {"activation": "relu"}'
        )
    return problems


def check_observables(observables: Any) -> None:
    """Check that a script's observables are functions by name.

    Parameters
    ----------
    observables : object
        What the script gave.

    Raises
    ------
    ConfigError
        If they are not.
    """
    if not isinstance(observables, Mapping):
        raise ConfigError(
            f"observables = {observables!r:.60}: wanted a dictionary of functions by name; name "
            'built-in ones in record = {"observables": {"names": [...]}}'
        )
    if wrong := [name for name, function in observables.items() if not callable(function)]:
        raise ConfigError(
            f"observables.{wrong[0]} = {observables[wrong[0]]!r:.60}: is no function; give one of "
            "a frame, such as lambda frame: frame.loss"
        )
