"""Mistakes in experiment files, each as one line: key, value, what is wrong, remedy."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from inspect import isclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

Path = tuple[str | int, ...]

_MESSAGES = {
    "bool_type": "must be true or false",
    "dict_type": "must be a table, such as {{key = value}}",
    "finite_number": "must be finite",
    "float_type": "must be a number",
    "greater_than": "must be larger than {gt:g}",
    "greater_than_equal": "must be {ge:g} or larger",
    "int_type": "must be a whole number",
    "less_than": "must be smaller than {lt:g}",
    "less_than_equal": "must be {le:g} or smaller",
    "list_type": "must be a list",
    "literal_error": "must be {expected} beside these keys",
    "model_type": "must be a table, such as {{key = value}}",
    "string_type": "must be text in quotes",
}
"""Messages by pydantic's name of the error, with its context."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST_VALUE = 60
_LONGEST_LIST = 100
_LONGEST_WORD = 64


def show(value: object, longest: int = _LONGEST_VALUE) -> str:
    """Return a value as it would stand in a TOML file, shortened, on one line."""
    match value:
        case bool():
            text = "true" if value else "false"
        case str():
            text = json.dumps(value[: longest + 1], ensure_ascii=True)
        case int() if abs(value) >= 10**20:
            text = "an integer of more than 20 digits"  # str() refuses very long ones
        case float() | int() | datetime.date() | datetime.time():
            text = str(value)
        case Mapping():
            pairs = [f"{show_key((str(k),))} = {show(v)}" for k, v in list(value.items())[:8]]
            text = "{" + ", ".join(pairs) + "}"
        case Sequence():
            text = "[" + ", ".join(show(entry) for entry in value[:16]) + "]"
        case _:
            text = f"a {type(value).__name__}"
    return text if len(text) <= longest else text[: longest - 3] + "..."


def show_key(path: Sequence[str | int]) -> str:
    """Return a dotted key, ``data.x[2]``, with quotes where TOML needs them."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            part = part[:_LONGEST_WORD]
            text += "." if text else ""
            text += part if _BARE_KEY.fullmatch(part) else json.dumps(part)
    return text


def closest(word: str, names: Collection[str]) -> str | None:
    """Return the name that was probably meant, if there is one."""
    close = get_close_matches(word[:_LONGEST_WORD].lower(), names, n=1)
    return close[0] if close else None


def unknown_choice(value: str, names: Collection[str]) -> str:
    """Say what a text that is none of ``names`` should have been."""
    listed = ", ".join(f'"{name}"' for name in names)
    close = closest(value, names)
    if close is None or len(listed) <= _LONGEST_LIST:
        return f"unknown; choose from {listed}"
    return f'unknown; did you mean "{close}"?'


def unknown_key(key: str, names: Collection[str], elsewhere: Mapping[str, Collection[str]]) -> str:
    """Say what an unknown key should have been.

    Parameters
    ----------
    key : str
    names : collection of str
        Keys that are known here.
    elsewhere : mapping
        Keys that are known in other sections, by section.
    """
    for section, others in elsewhere.items():
        if key in others:
            return f"unknown key here; it belongs into [{section}]"
    close = closest(key, names)
    if close:
        return f"unknown key; did you mean `{close}`?"
    known = f"the keys here are {', '.join(names)}" if names else "remove it"
    return f"unknown key; {known}"


def section_problems(
    section: str,
    values: Mapping[str, Any],
    model: type[BaseModel],
    error: ValidationError,
    elsewhere: Mapping[str, Collection[str]],
) -> Iterator[str]:
    """Put pydantic's account of one section into lines of ours.

    Parameters
    ----------
    section : str
    values : mapping
        What was validated.
    model : type
        What it was validated as.
    error : ValidationError
    elsewhere : mapping
        See `unknown_key`.
    """
    for details in error.errors(include_url=False):
        path: Path = tuple(details["loc"])
        key = show_key((section, *path))
        text = _explain(details, model, path, elsewhere)
        present, value = _look_up(values, path)
        yield f"{key} = {show(value)}: {text}" if present else f"{key}: {text}"


def _explain(
    details: ErrorDetails,
    model: type[BaseModel],
    path: Path,
    elsewhere: Mapping[str, Collection[str]],
) -> str:
    """Say what is wrong, and the remedy."""
    kind = details["type"]
    if kind == "value_error":  # raised by a validator of ours, which names its remedy
        return str(details["ctx"]["error"])
    while path and isinstance(path[-1], int):  # an entry of a list: the key is what has a name
        path = path[:-1]
    fields = _fields(model, path[:-1])
    name = str(path[-1]) if path else ""
    if kind == "extra_forbidden":
        return unknown_key(name, list(fields), elsewhere if len(path) == 1 else {})
    text = "missing" if kind == "missing" else _message(details)
    remedy = _remedy(name, fields.get(name), missing=kind == "missing")
    return f"{text}; {remedy}" if remedy else text


def _message(details: ErrorDetails) -> str:
    template = _MESSAGES.get(details["type"])
    return details["msg"] if template is None else template.format(**details.get("ctx", {}))


def _remedy(name: str, field: FieldInfo | None, missing: bool) -> str:
    if field is None:
        return ""
    if field.examples:
        return f"{'add' if missing else 'for example'} {name} = {show(field.examples[0])}"
    default = field.get_default(call_default_factory=False)
    if isinstance(default, bool | int | float | str):
        return f"the default is {show(default)}"
    return ""


def _fields(model: type[BaseModel], path: Path) -> Mapping[str, FieldInfo]:
    """Fields of the table at ``path`` below a model; none if there is no table."""
    kind: Any = model
    for part in path:
        if isclass(kind) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(part))
            kind = field.annotation if field else None
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
        else:
            return {}
    return kind.model_fields if isclass(kind) and issubclass(kind, BaseModel) else {}


def _look_up(values: Any, path: Path) -> tuple[bool, Any]:
    """Find the value at ``path``; whether there is one, and it."""
    for part in path:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return False, None
    return True, values
