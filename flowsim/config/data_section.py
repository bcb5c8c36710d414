"""The section ``[data]``: one model for every kind."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from flowsim import data
from flowsim.config.fields import (
    Count,
    CountOrZero,
    Name,
    NonNegative,
    Numbers,
    Section,
    Seed,
    one_of,
)
from flowsim.errors import ConfigError
from flowsim.expression import Expression
from flowsim.kernels.activations import ACTIVATIONS


class DataSection(Section):
    """``[data]`` of one kind."""

    kind: str
    bias: bool = True

    def make(self) -> data.Dataset:
        """Return the data set."""
        raise NotImplementedError  # pragma: no cover - every kind has its own


class Points(DataSection):
    """``[data]`` with the samples written out."""

    kind: Literal["points"]
    x: Annotated[Numbers, Field(examples=[[[-0.5], [0.5]]])]
    y: Annotated[Numbers, Field(examples=[[0.25, 0.25]])]
    x_test: Numbers | None = None
    y_test: Numbers | None = None

    def make(self) -> data.Dataset:
        """See `DataSection.make`."""
        return data.from_arrays(self.x, self.y, self.x_test, self.y_test, self.bias, kind=self.kind)


class Function(DataSection):
    """``[data]`` sampled from a function."""

    kind: Literal["function"]
    n_inputs: Count = 1
    function: Annotated[str, Field(examples=["x**2"])]
    n_samples: Annotated[Count, Field(examples=[10])]
    low: Annotated[float, Field(examples=[-1.0])]
    high: Annotated[float, Field(examples=[1.0])]
    sampling: Annotated[str, Field(validate_default=True), one_of(("grid", "random"))] = "grid"
    seed: Seed = 0
    noise: NonNegative = 0.0
    n_test: CountOrZero = 0

    @field_validator("function")
    @classmethod
    def _is_expression(cls, function: str, info: ValidationInfo) -> str:
        if "n_inputs" in info.data:
            Expression(function, info.data["n_inputs"])
        return function

    @field_validator("high")
    @classmethod
    def _above_low(cls, high: float, info: ValidationInfo) -> float:
        if high <= info.data.get("low", -float("inf")):
            raise ValueError(f"must be larger than low = {info.data['low']:g}; exchange them")
        return high

    @field_validator("sampling")
    @classmethod
    def _grid_is_for_one_input(cls, sampling: str, info: ValidationInfo) -> str:
        if sampling == "grid" and info.data.get("n_inputs", 1) != 1:
            raise ValueError('"grid" is for n_inputs = 1 only; set sampling = "random"')
        return sampling

    def make(self) -> data.Dataset:
        """See `DataSection.make`."""
        return data.from_function(**self.model_dump(exclude={"kind"}))


class Teacher(DataSection):
    """``[data]`` sampled from a random two-layer network."""

    kind: Literal["teacher"]
    width: Annotated[Count, Field(examples=[5])]
    activation: Annotated[str, one_of(ACTIVATIONS)] = "relu"
    n_samples: Annotated[Count, Field(examples=[100])]
    n_inputs: Annotated[Count, Field(examples=[10])]
    input_distribution: Annotated[str, one_of(("gaussian", "sphere"))] = "gaussian"
    seed: Seed = 0
    n_test: CountOrZero = 0

    def make(self) -> data.Dataset:
        """See `DataSection.make`."""
        options = self.model_dump(exclude={"kind", "activation"})
        return data.from_teacher(ACTIVATIONS[self.activation].value, **options)


class File(DataSection):
    """``[data]`` read from an npz or HDF5 file."""

    kind: Literal["file"]
    path: Annotated[Name, Field(max_length=4096, examples=["data.npz"])]
    x: Name = "x"
    y: Name = "y"
    x_test: Name | None = None
    y_test: Name | None = None

    def make(self) -> data.Dataset:
        """See `DataSection.make`."""
        return data.from_file(**self.model_dump(exclude={"kind"}))


class Arrays(DataSection):
    """``[data]`` that a script passed: what is known of them, so that runs can be told apart."""

    kind: Literal["arrays"]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    n_samples: Count

    def make(self) -> data.Dataset:
        """Raise: the samples themselves are not in the experiment."""
        raise ConfigError('kind = "arrays": the samples are not in here; pass them as x and y')


DATA_KINDS: dict[str, type[DataSection]] = {
    "points": Points,
    "function": Function,
    "teacher": Teacher,
    "file": File,
    "arrays": Arrays,
}
"""Models of ``[data]`` by its key ``kind``."""
