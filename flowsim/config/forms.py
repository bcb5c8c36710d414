"""The sections an experiment is made of, and which model each is checked as."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from flowsim.config.data_section import DATA_KINDS
from flowsim.config.fields import Section
from flowsim.config.problems import closest, section_problems, show, unknown_choice
from flowsim.config.scaling_section import (
    DeepNamedScheme,
    Exponents,
    LayerExponents,
    LayerNumbers,
    NamedScheme,
    StandardDeviations,
    ThreeLayerExponents,
)
from flowsim.config.sections import DeepNetworkSection, Integrate, Network, Record
from flowsim.errors import ConfigError

SECTIONS: dict[str, tuple[type[Section], ...]] = {
    "network": (Network, DeepNetworkSection),
    "scaling": (
        Exponents,
        StandardDeviations,
        NamedScheme,
        ThreeLayerExponents,
        LayerExponents,
        LayerNumbers,
        DeepNamedScheme,
    ),
    "data": tuple(DATA_KINDS.values()),
    "integrate": (Integrate,),
    "record": (Record,),
}
"""Sections of an experiment, with the models that each may be."""

_FROM_FILES = [kind for kind in DATA_KINDS if kind != "arrays"]

_SCALING_FORMS: dict[str, dict[str, type[Section]]] = {
    "two-layer": {
        "gamma": Exponents,
        "gamma_prime": Exponents,
        "alpha": StandardDeviations,
        "beta1": StandardDeviations,
        "scheme": NamedScheme,
        "beta": NamedScheme,
    },
    "deep": {
        "gamma_1": ThreeLayerExponents,
        "gamma_2": ThreeLayerExponents,
        "gamma_3": ThreeLayerExponents,
        "abc_a": LayerExponents,
        "abc_b": LayerExponents,
        "abc_c": LayerExponents,
        "multiplier": LayerNumbers,
        "init_std": LayerNumbers,
        "learning_rate": LayerNumbers,
        "scheme": DeepNamedScheme,
    },
}
"""Keys that tell the form of ``[scaling]``, by kind of network; others are in several forms."""

_SCALING_CHOICE = {
    "two-layer": "(gamma, gamma_prime), (alpha, beta1, beta2) or scheme",
    "deep": "gamma_3, (abc_a, abc_b, abc_c), (multiplier, init_std, learning_rate) or scheme",
}


def keys_of(section: str) -> list[str]:
    """Return every key that some form of a section knows."""
    return list(dict.fromkeys(key for model in SECTIONS[section] for key in model.model_fields))


def check_section(
    section: str, values: Any, activations: tuple[str, ...], kind: str = "two-layer"
) -> Section:
    """Check one section and return its model.

    Parameters
    ----------
    section : str
        A key of `SECTIONS`.
    values : object
        What the file has there.
    activations : tuple of str
        Names of activations that are known beside the built-in ones.
    kind : str
        Of the network, ``two-layer`` or ``deep``.

    Raises
    ------
    ConfigError
        With everything that is wrong in this section.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"{section} = {show(values)}: must be a table; write [{section}] and its keys below it"
        )
    model = _choose_model(section, values, kind)
    try:
        return model.model_validate(values, context={"activations": activations})
    except ValidationError as error:
        elsewhere = {other: keys_of(other) for other in SECTIONS if other != section}
        raise ConfigError(section_problems(section, values, model, error, elsewhere)) from None


def _choose_model(section: str, values: Mapping[str, Any], kind: str) -> type[Section]:
    if section == "data":
        return _data_model(values)
    if section == "scaling":
        return _scaling_model(values, kind)
    if section == "network" and kind == "deep":
        return DeepNetworkSection
    return SECTIONS[section][0]


def _data_model(values: Mapping[str, Any]) -> type[Section]:
    kind = values.get("kind")
    if kind is None:
        choices = ", ".join(f'"{name}"' for name in _FROM_FILES[1:])
        raise ConfigError(f'data.kind: missing; add kind = "points" to [data] (or {choices})')
    if not isinstance(kind, str) or kind not in DATA_KINDS:
        raise ConfigError(f"data.kind = {show(kind)}: {unknown_choice(str(kind), _FROM_FILES)}")
    return DATA_KINDS[kind]


def _scaling_model(values: Mapping[str, Any], kind: str) -> type[Section]:
    forms, choice = _SCALING_FORMS[kind], _SCALING_CHOICE[kind]
    if not values:
        raise ConfigError(f"scaling: missing; give {choice} in [scaling]")
    known = {key for form in forms.values() for key in form.model_fields}
    first_of: dict[type[Section], str] = {}
    for key in values:
        # A misspelt key tells the form too: its own error then says what was meant.
        meant = key if key in known else closest(key, list(forms))
        if meant in forms:
            first_of.setdefault(forms[meant], key)
    if len(first_of) > 1:
        given = " and ".join(f"{key} = {show(values[key])}" for key in first_of.values())
        raise ConfigError(f"scaling: has both {given}; keep one of {choice}")
    return next(iter(first_of), next(iter(forms.values())))
