"""The section ``[data]``: one model for every kind, images together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from flowsim import data
from flowsim.config.fields import (
    Count,
    CountOrZero,
    Label,
    Name,
    NonNegative,
    Numbers,
    Section,
    Seed,
    one_of,
)
from flowsim.data.disk import file_digest
from flowsim.data.generated import BOX_SAMPLINGS, DISTRIBUTIONS, RANDOM_TARGETS
from flowsim.data.images import IMAGE_SETS, digest_of_images
from flowsim.data.labelled import ENCODINGS
from flowsim.data.normalisation import NORMALISATIONS
from flowsim.errors import ConfigError
from flowsim.expression import Expression
from flowsim.kernels.activations import ACTIVATIONS

_OF_LABELS = ("classes", "n_samples", "n_test", "balanced", "seed", "positive_class")
"""Keys of a file that have a meaning where its targets are labels."""


class DataSection(Section):
    """``[data]`` of one kind."""

    kind: str
    bias: bool = True

    def make(self) -> data.Dataset:
        """Return the data set."""
        raise NotImplementedError  # pragma: no cover - every kind has its own

    def content(self) -> dict[str, str]:
        """Return what stands for the paths of files in hashes, by key: their content.

        Raises
        ------
        ConfigError
            If a file cannot be read.
        """
        return {}

    def options(self, *left_out: str) -> dict[str, Any]:
        """Return the keys that have values."""
        return self.model_dump(exclude={"kind", *left_out}, exclude_none=True)


class Samples(DataSection):
    """``[data]`` of which the samples can be made."""

    # As every key that a kind got later: None is in no configuration, so that runs from before
    # keep their hash.
    normalise: Annotated[str, one_of(NORMALISATIONS)] | None = None


class Points(Samples):
    """``[data]`` with the samples written out."""

    kind: Literal["points"]
    x: Annotated[Numbers, Field(examples=[[[-0.5], [0.5]]])]
    y: Annotated[Numbers, Field(examples=[[0.25, 0.25]])]
    x_test: Numbers | None = None
    y_test: Numbers | None = None

    def make(self) -> data.Dataset:
        """See `DataSection.make`."""
        return data.from_arrays(**self.options(), kind=self.kind)


class Function(Samples):
    """``[data]`` sampled from a function."""

    kind: Literal["function"]
    n_inputs: Count = 1
    function: Annotated[str, Field(examples=["x**2"])]
    n_samples: Annotated[Count, Field(examples=[10])]
    sampling: Annotated[
        str, Field(validate_default=True), one_of((*BOX_SAMPLINGS, *DISTRIBUTIONS))
    ] = "grid"
    low: Annotated[float | None, Field(validate_default=True, examples=[-1.0])] = None
    high: Annotated[float | None, Field(validate_default=True, examples=[1.0])] = None
    seed: Seed = 0
    noise: NonNegative = 0.0
    n_test: CountOrZero = 0

    @field_validator("function")
    @classmethod
    def _is_expression(cls, function: str, info: ValidationInfo) -> str:
        if "n_inputs" in info.data:
            Expression(function, info.data["n_inputs"])
        return function

    @field_validator("sampling")
    @classmethod
    def _grid_is_for_one_input(cls, sampling: str, info: ValidationInfo) -> str:
        if sampling == "grid" and info.data.get("n_inputs", 1) != 1:
            raise ValueError('"grid" is for n_inputs = 1 only; set sampling = "random"')
        return sampling

    @field_validator("low", "high")
    @classmethod
    def _has_an_interval(cls, end: float | None, info: ValidationInfo) -> float | None:
        sampling = info.data.get("sampling")
        if sampling is None:  # which has been complained of
            return end
        if end is None and sampling in BOX_SAMPLINGS:
            example = -1.0 if info.field_name == "low" else 1.0
            raise ValueError(f"missing; add {info.field_name} = {example}")
        if end is not None and sampling not in BOX_SAMPLINGS:
            raise ValueError(f'has no meaning with sampling = "{sampling}"; remove it')
        return end

    @field_validator("high")
    @classmethod
    def _above_low(cls, high: float | None, info: ValidationInfo) -> float | None:
        low = info.data.get("low")
        if high is not None and low is not None and high <= low:
            raise ValueError(f"must be larger than low = {low:g}; exchange them")
        return high

    def make(self) -> data.Dataset:
        """See `DataSection.make`."""
        return data.from_function(**self.options())


class Teacher(Samples):
    """``[data]`` sampled from a random network."""

    kind: Literal["teacher"]
    width: Annotated[Count, Field(examples=[5])]
    activation: Annotated[str, one_of(ACTIVATIONS)] = "relu"
    n_samples: Annotated[Count, Field(examples=[100])]
    n_inputs: Annotated[Count, Field(examples=[10])]
    input_distribution: Annotated[str, one_of(DISTRIBUTIONS)] = "gaussian"
    depth: Annotated[Count | None, Field(examples=[2])] = None
    n_outputs: Annotated[Count | None, Field(examples=[2])] = None
    noise: Annotated[NonNegative | None, Field(examples=[0.1])] = None
    seed: Seed = 0
    n_test: CountOrZero = 0

    def make(self) -> data.Dataset:
        """See `DataSection.make`."""
        return data.from_teacher(ACTIVATIONS[self.activation].value, **self.options("activation"))


class Random(Samples):
    """``[data]`` with targets that do not depend on the inputs."""

    kind: Literal["random"]
    n_samples: Annotated[Count, Field(examples=[100])]
    n_inputs: Annotated[Count, Field(examples=[10])]
    input_distribution: Annotated[str, one_of(DISTRIBUTIONS)] = "gaussian"
    target: Annotated[str, one_of(RANDOM_TARGETS)] = "sign"
    n_outputs: Annotated[Count | None, Field(examples=[2])] = None
    seed: Seed = 0
    n_test: CountOrZero = 0

    def make(self) -> data.Dataset:
        """See `DataSection.make`."""
        return data.from_random(**self.options())


class File(Samples):
    """``[data]`` read from an npz or HDF5 file."""

    kind: Literal["file"]
    path: Annotated[Name, Field(max_length=4096, examples=["data.npz"])]
    x: Name = "x"
    y: Name = "y"
    x_test: Name | None = None
    y_test: Name | None = None
    target: Annotated[str, one_of(ENCODINGS)] | None = None
    classes: Annotated[list[Label] | None, Field(examples=[[0, 1]])] = None
    n_samples: Annotated[Count | None, Field(examples=[100])] = None
    n_test: Annotated[CountOrZero | None, Field(examples=[100])] = None
    balanced: bool | None = None
    seed: Annotated[Seed | None, Field(examples=[0])] = None
    positive_class: Annotated[Label | None, Field(examples=[3])] = None

    @field_validator(*_OF_LABELS)
    @classmethod
    def _of_labels(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and info.data.get("target", "") is None:
            raise ValueError(
                'is for labels; say what stands for them, target = "sign", or remove it'
            )
        return value

    def make(self) -> data.Dataset:
        """See `DataSection.make`."""
        choice = None
        if self.target is not None:
            chosen = self.model_dump(include={"target", *_OF_LABELS}, exclude_none=True)
            choice = data.Choice(**chosen)
        return data.from_file(**self.options("target", *_OF_LABELS), choice=choice)

    def content(self) -> dict[str, str]:
        """See `DataSection.content`."""
        return {"path": file_digest(Path(self.path))}


class Images(Samples):
    """``[data]`` of a set of images, `flowsim.data.images.IMAGE_SETS`."""

    kind: Annotated[str, one_of(IMAGE_SETS)]
    path: Annotated[
        Annotated[Name, Field(max_length=4096)] | None, Field(validate_default=True)
    ] = None
    classes: Annotated[list[Label] | None, Field(examples=[[0, 1]])] = None
    n_samples: Annotated[Count | None, Field(examples=[100])] = None
    n_test: CountOrZero = 0
    balanced: bool = False
    seed: Seed = 0
    target: Annotated[str, one_of(ENCODINGS)] = "sign"
    positive_class: Annotated[Label | None, Field(examples=[3])] = None
    grey: bool = False

    @field_validator("path")
    @classmethod
    def _of_a_set_on_disk(cls, path: str | None, info: ValidationInfo) -> str | None:
        images = IMAGE_SETS.get(info.data.get("kind", ""))
        if images is not None and images.locate is not None and path is None:
            raise ValueError('missing; add path = "folder", the one with the files of this set')
        if images is not None and images.locate is None and path is not None:
            raise ValueError(f'has no meaning for "{info.data["kind"]}"; remove it')
        return path

    @field_validator("grey")
    @classmethod
    def _of_colours(cls, grey: bool, info: ValidationInfo) -> bool:
        images = IMAGE_SETS.get(info.data.get("kind", ""))
        if grey and images is not None and not images.colour:
            raise ValueError(f'"{info.data["kind"]}" has no colours; remove it')
        return grey

    def make(self) -> data.Dataset:
        """See `DataSection.make`."""
        return data.from_images(self.kind, **self.options())

    def content(self) -> dict[str, str]:
        """See `DataSection.content`."""
        if self.path is None:
            return {}
        return {"path": digest_of_images(self.kind, self.path, self.n_test)}


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
    "random": Random,
    "file": File,
    **dict.fromkeys(IMAGE_SETS, Images),
    "arrays": Arrays,
}
"""Models of ``[data]`` by its key ``kind``."""
