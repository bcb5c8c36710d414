"""The kinds of values that experiment files hold, and the base class of their sections."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from flowsim.config.problems import unknown_choice

MAX_INT = 2**63 - 1
"""Largest integer of TOML and of HDF5 attributes."""


class Section(BaseModel):
    """A table of an experiment file: no unknown keys, no conversions but from int to float."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def one_of(names: Collection[str]) -> AfterValidator:
    """Return a validator that lets only ``names`` pass."""

    def check(value: str) -> str:
        if value not in names:
            raise ValueError(unknown_choice(value, names))
        return value

    return AfterValidator(check)


def _numbers(value: Any) -> Any:
    """Make integers in (nested) lists floats; refuse what is no number."""
    if not isinstance(value, list):
        raise ValueError("must be a list of numbers, or a list of such lists")
    rows = [_numbers(row) if isinstance(row, list) else row for row in value]
    for index, entry in enumerate(rows):
        if isinstance(entry, list):
            continue
        if isinstance(entry, bool) or not isinstance(entry, int | float):
            raise ValueError(f"entry {index} is not a number; write numbers such as 0.5")
        try:
            rows[index] = float(entry)
        except OverflowError:
            raise ValueError(f"entry {index} is beyond float64; scale the data") from None
    return rows


Number = Annotated[float, Field()]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1, le=MAX_INT)]
CountOrZero = Annotated[int, Field(ge=0, le=MAX_INT)]
Seed = CountOrZero
Label = Annotated[int, Field(ge=-MAX_INT, le=MAX_INT)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Numbers = Annotated[list[Any], BeforeValidator(_numbers)]
"""A list of numbers or of rows of numbers, as floats; its shape is checked with the data."""
