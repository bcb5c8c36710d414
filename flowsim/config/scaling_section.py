"""The section ``[scaling]``, in one of its forms: three for two layers, four for deep networks."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from flowsim.config.fields import Number, Positive, Section, one_of
from flowsim.deep_scaling import DEEP_SCHEMES, DeepScaling
from flowsim.errors import ConfigError
from flowsim.scaling import SCHEMES, Scaling


class ScalingSection(Section):
    """``[scaling]`` of a two-layer network, in one of its three forms."""

    def make(self, width: int, n_inputs: int) -> Scaling:
        """Return the scales at a width, for inputs d = ``n_inputs`` (bias included)."""
        raise NotImplementedError  # pragma: no cover - every form has its own


class Exponents(ScalingSection):
    """``[scaling]`` by exact exponents."""

    gamma: Annotated[float, Field(examples=[1.0])]
    gamma_prime: Annotated[float, Field(examples=[0.0])]
    beta2: Positive = 1.0

    def make(self, width: int, n_inputs: int) -> Scaling:
        """See `ScalingSection.make`."""
        return Scaling.from_exponents(width, self.gamma, self.gamma_prime, self.beta2)


class StandardDeviations(ScalingSection):
    """``[scaling]`` by the output divisor and the standard deviations."""

    alpha: Annotated[Positive, Field(examples=[1.0])]
    beta1: Annotated[Positive, Field(examples=[1.0])]
    beta2: Annotated[Positive, Field(examples=[1.0])]

    def make(self, width: int, n_inputs: int) -> Scaling:
        """See `ScalingSection.make`."""
        return Scaling.from_standard_deviations(width, self.alpha, self.beta1, self.beta2)


class NamedScheme(ScalingSection):
    """``[scaling]`` by name."""

    scheme: Annotated[str, Field(examples=["ntk"]), one_of(SCHEMES)]
    beta: Positive | None = Field(default=None, validate_default=True, examples=[0.1])

    @field_validator("beta")
    @classmethod
    def _belongs_to_scheme(cls, beta: float | None, info: ValidationInfo) -> float | None:
        scheme = info.data.get("scheme")
        if scheme is not None and SCHEMES[scheme].needs_beta != (beta is not None):
            raise ValueError(
                f'missing; scheme "{scheme}" needs it, for example beta = 0.1'
                if beta is None
                else f'scheme "{scheme}" has no such parameter; remove it'
            )
        return beta

    def make(self, width: int, n_inputs: int) -> Scaling:
        """See `ScalingSection.make`."""
        return Scaling.from_scheme(self.scheme, width, n_inputs, self.beta)


class DeepScalingSection(Section):
    """``[scaling]`` of a deep network, in one of its four forms."""

    def make(self, width: int, hidden_layers: int) -> DeepScaling:
        """Return the scales at a width, for L = ``hidden_layers``."""
        raise NotImplementedError  # pragma: no cover - every form has its own


class ThreeLayerExponents(DeepScalingSection):
    """``[scaling]`` of three layers by exact exponents."""

    gamma_1: float = 0.0
    gamma_2: float = 0.0
    gamma_3: Annotated[float, Field(examples=[1.5])]

    def make(self, width: int, hidden_layers: int) -> DeepScaling:
        """See `DeepScalingSection.make`."""
        if hidden_layers != 2:
            raise ConfigError(
                f"gamma_3 = {self.gamma_3:g}: is for network.hidden_layers = 2, which is "
                f"{hidden_layers} here; give abc_a, abc_b, abc_c or a scheme"
            )
        return DeepScaling.from_gammas(width, self.gamma_1, self.gamma_2, self.gamma_3)


class LayerExponents(DeepScalingSection):
    """``[scaling]`` by the exponents of multiplier, standard deviation and rate of each layer."""

    abc_a: Annotated[list[Number], Field(examples=[[-0.5, 0.0, 0.5]])]
    abc_b: Annotated[list[Number], Field(examples=[[0.5, 0.5, 0.5]])]
    abc_c: Annotated[list[Number], Field(examples=[[0.0, 0.0, 0.0]])]
    init_scale: Positive = 1.0

    def make(self, width: int, hidden_layers: int) -> DeepScaling:
        """See `DeepScalingSection.make`."""
        rows = {"abc_a": self.abc_a, "abc_b": self.abc_b, "abc_c": self.abc_c}
        _check_lengths(rows, hidden_layers)
        return DeepScaling.from_exponents(
            width, list(zip(*rows.values(), strict=True)), self.init_scale
        )


class LayerNumbers(DeepScalingSection):
    """``[scaling]`` by the numbers of each layer at this width."""

    multiplier: Annotated[list[Positive], Field(examples=[[1.0, 0.1, 0.1]])]
    init_std: Annotated[list[Positive], Field(examples=[[1.0, 1.0, 1.0]])]
    learning_rate: Annotated[list[Positive], Field(examples=[[1.0, 1.0, 1.0]])]

    def make(self, width: int, hidden_layers: int) -> DeepScaling:
        """See `DeepScalingSection.make`."""
        rows = {
            "multiplier": self.multiplier,
            "init_std": self.init_std,
            "learning_rate": self.learning_rate,
        }
        _check_lengths(rows, hidden_layers)
        return DeepScaling.from_numbers(width, **rows)


class DeepNamedScheme(DeepScalingSection):
    """``[scaling]`` of a deep network by name.

    ``first_step`` and ``calibrate`` are for schemes whose first step has learning rates of its own.
    """

    scheme: Annotated[str, Field(examples=["mup"]), one_of(DEEP_SCHEMES)]
    init_scale: Positive = 1.0
    first_step: Positive | None = Field(default=None, validate_default=True, examples=[1.0])
    calibrate: bool | None = Field(default=None, validate_default=True, examples=[True])

    @field_validator("first_step", "calibrate")
    @classmethod
    def _scheme_has_one(cls, value: float | None, info: ValidationInfo) -> float | None:
        scheme, name = info.data.get("scheme"), info.field_name
        if scheme is None:
            return value
        if DEEP_SCHEMES[scheme].first is None and value is not None:
            raise ValueError(f'scheme "{scheme}" has no first step of its own; remove it')
        if DEEP_SCHEMES[scheme].first is not None and value is None:
            return False if name == "calibrate" else 1.0
        return value

    def make(self, width: int, hidden_layers: int) -> DeepScaling:
        """See `DeepScalingSection.make`."""
        first = self.first_step or 1.0, bool(self.calibrate)
        return DeepScaling.from_scheme(self.scheme, width, hidden_layers, self.init_scale, *first)


def _check_lengths(rows: dict[str, list[float]], hidden_layers: int) -> None:
    problems = [
        f"{name} = {values}: has {len(values)} entries; give {hidden_layers + 1}, one a layer from "
        "the input to the output"
        for name, values in rows.items()
        if len(values) != hidden_layers + 1
    ]
    if problems:
        raise ConfigError(problems)
