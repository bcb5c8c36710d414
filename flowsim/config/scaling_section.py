"""The section ``[scaling]``, in one of three forms."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from flowsim.config.fields import Positive, Section, one_of
from flowsim.scaling import SCHEMES, Scaling


class ScalingSection(Section):
    """``[scaling]`` in one of its three forms."""

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
