"""How the initial scales depend on the width: exponents, named schemes, predicted regimes.

A two-layer network f(x) = (1/alpha) sum_k a_k sigma(w_k . x) starts from a_k ~ N(0, beta1^2) and
w_k ~ N(0, beta2^2 I). Up to a rescaling of time only two combinations matter for a 1-homogeneous
sigma, and their exponents in the width m are the coordinates of the phase diagram:

    kappa  = beta1 beta2 / alpha = m^-gamma
    kappa' = beta1 / beta2       = m^-gamma'

After Luo, Xu, Ma and Zhang, "Phase diagram for two-layer ReLU neural networks at infinite-width
limit", JMLR 22(71), 2021.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from flowsim.errors import ConfigError

LAYERS = ("input", "output", "all")
"""Groups of weights for which changes, slopes and regimes are reported."""

REGIMES = ("linear", "critical", "condensed")
"""Regimes in the order of a growing slope."""

_ON_THE_LINE = 1e-9
"""Slopes below this count as 0: exponents such as 1.4 - 1 - 0.4 are not exact in binary."""


@dataclass(frozen=True)
class Scaling:
    """The initial scales of a two-layer network of one width.

    Parameters
    ----------
    width : int
        Neurons m of the hidden layer (of one copy, with antisymmetric initial values).
    gamma, gamma_prime : float
        Exponents, taken as exact: kappa = m^-gamma, kappa' = m^-gamma_prime.
    beta2 : float
        Standard deviation of the input weights; matters if sigma is not 1-homogeneous.

    Raises
    ------
    ConfigError
        With every parameter that is out of range, or if a scale leaves the range of float64.
    """

    width: int
    gamma: float
    gamma_prime: float
    beta2: float = 1.0

    def __post_init__(self) -> None:
        problems = _width_problems(self.width)
        for name in ("gamma", "gamma_prime"):
            if not math.isfinite(getattr(self, name)):
                problems.append(f"{name} = {getattr(self, name)}: must be finite; try {name} = 1.0")
        problems += _positive_problems(beta2=self.beta2)
        _raise_if_any(problems or self._range_problems())

    @property
    def kappa(self) -> float:
        """Prefactor of the normalised network, beta1 beta2 / alpha = m^-gamma."""
        return _power(self.width, -self.gamma)

    @property
    def kappa_prime(self) -> float:
        """Ratio of the initial scales, beta1 / beta2 = m^-gamma_prime."""
        return _power(self.width, -self.gamma_prime)

    @property
    def beta1(self) -> float:
        """Initial standard deviation of the output weights, kappa' beta2."""
        return self.kappa_prime * self.beta2

    @property
    def alpha(self) -> float:
        """Output divisor, kappa' beta2^2 / kappa."""
        return self.beta1 * (self.beta2 / self.kappa)

    @classmethod
    def from_exponents(
        cls, width: int, gamma: float, gamma_prime: float, beta2: float = 1.0
    ) -> Scaling:
        """Scales of exponents that are taken as exact.

        Parameters
        ----------
        width : int
        gamma, gamma_prime : float
        beta2 : float
        """
        return cls(width, float(gamma), float(gamma_prime), float(beta2))

    @classmethod
    def from_standard_deviations(
        cls, width: int, alpha: float, beta1: float, beta2: float
    ) -> Scaling:
        """Scales of a network whose divisor and standard deviations are given at this width.

        Parameters
        ----------
        width : int
        alpha : float
            Output divisor.
        beta1, beta2 : float
            Standard deviations of the output and of the input weights.

        Raises
        ------
        ConfigError
            If a number is not positive; or at width 1, where log m = 0, unless kappa and kappa'
            are 1.
        """
        _raise_if_any(
            _width_problems(width) + _positive_problems(alpha=alpha, beta1=beta1, beta2=beta2)
        )
        # Sums of logarithms, since a product such as beta1 * beta2 may under- or overflow.
        log_alpha, log_beta1, log_beta2 = math.log(alpha), math.log(beta1), math.log(beta2)
        log_kappa, log_kappa_prime = log_beta1 + log_beta2 - log_alpha, log_beta1 - log_beta2
        if width == 1:
            if max(abs(log_kappa), abs(log_kappa_prime)) > 1e-12:
                raise ConfigError(
                    f"width = 1: log m = 0, so that alpha = {alpha:g}, beta1 = {beta1:g}, "
                    f"beta2 = {beta2:g} have no exponents; take a width of at least 2"
                )
            return cls(1, 0.0, 0.0, float(beta2))
        log_m = math.log(width)
        return cls(width, -log_kappa / log_m, -log_kappa_prime / log_m, float(beta2))

    @classmethod
    def from_scheme(
        cls, name: str, width: int, n_inputs: int, beta: float | None = None
    ) -> Scaling:
        """Scales of a named scheme, with all its factors of d.

        Parameters
        ----------
        name : str
            A key of `SCHEMES`.
        width : int
        n_inputs : int
            Inputs d, the constant-1 bias coordinate included.
        beta : float, optional
            Standard deviation of the output weights; for the scheme ``e`` only, which needs it.

        Raises
        ------
        ConfigError
            If there is no such scheme, or ``beta`` is missing or out of place.
        """
        if name not in SCHEMES:
            raise ConfigError(f'scheme = "{name}": unknown; choose from {", ".join(SCHEMES)}')
        scheme = SCHEMES[name]
        problems = _width_problems(width)
        if n_inputs < 1:
            problems.append(f"n_inputs = {n_inputs}: must be at least 1; add an input or the bias")
        if scheme.needs_beta and beta is None:
            problems.append(f'beta: missing; scheme "{name}" needs it, for example beta = 0.1')
        if beta is not None and not scheme.needs_beta:
            problems.append(f'beta = {beta:g}: scheme "{name}" has no such parameter; remove it')
        _raise_if_any(problems)
        stds = scheme.standard_deviations(width, n_inputs, 1.0 if beta is None else beta)
        return cls.from_standard_deviations(width, *stds)

    def _range_problems(self) -> list[str]:
        """Name the exponent that drives a derived scale out of the range of float64."""
        causes = {
            "kappa": ("gamma", self.gamma),
            "kappa_prime": ("gamma_prime", self.gamma_prime),
            "beta1": ("beta2", self.beta2),
            "alpha": ("beta2", self.beta2),
        }
        for scale, (name, value) in causes.items():
            if not _is_normal(getattr(self, scale)):
                return [
                    f"{name} = {value:g}: {scale} leaves the range of float64 at width "
                    f"{self.width}; take exponents nearer to 0 and beta2 nearer to 1"
                ]
        return []


@dataclass(frozen=True)
class Scheme:
    """A named initialisation of two-layer networks.

    Attributes
    ----------
    standard_deviations : callable
        ``(m, d, beta) -> (alpha, beta1, beta2)``; d counts the bias coordinate.
    position : (float, float) or None
        Its (gamma, gamma_prime) as m -> infinity at fixed d; None if that depends on beta.
    needs_beta : bool
        Whether the user chooses beta.
    """

    standard_deviations: Callable[[int, int, float], tuple[float, float, float]]
    position: tuple[float, float] | None
    needs_beta: bool = False


SCHEMES: dict[str, Scheme] = {
    "lecun": Scheme(lambda m, d, beta: (1.0, m**-0.5, d**-0.5), (0.5, 0.5)),
    "he": Scheme(lambda m, d, beta: (1.0, (2 / m) ** 0.5, (2 / d) ** 0.5), (0.5, 0.5)),
    "xavier": Scheme(
        lambda m, d, beta: (1.0, (2 / (m + 1)) ** 0.5, (2 / (m + d)) ** 0.5), (1.0, 0.0)
    ),
    "ntk": Scheme(lambda m, d, beta: (m**0.5, 1.0, 1.0), (0.5, 0.0)),
    "mean-field": Scheme(lambda m, d, beta: (float(m), 1.0, 1.0), (1.0, 0.0)),
    # E, Ma and Wu (2020): gamma = gamma_prime = log(1/beta) / log m.
    "e": Scheme(lambda m, d, beta: (1.0, beta, 1.0), None, needs_beta=True),
}
"""Named schemes: (alpha, beta1, beta2), beta1 being the standard deviation of the OUTPUT weights.

Every weight has the textbook variance of a layer with fan-in and fan-out: 1/fan_in (LeCun),
2/fan_in (He), 2/(fan_in + fan_out) (Xavier), with d inputs, m neurons, one output.
"""


def predicted_slope(gamma: float, gamma_prime: float, layer: str = "input") -> float:
    """Return the predicted S = lim log RD / log m of a layer (scaling argument, ReLU).

    Parameters
    ----------
    gamma, gamma_prime : float
    layer : {"input", "output", "all"}
        ``all`` is the larger of the two layers' slopes: normalised, both begin at equal norms.
    """
    if layer == "all":
        return max(predicted_slope(gamma, gamma_prime, one) for one in ("input", "output"))
    if layer not in LAYERS:
        raise ConfigError(f'layer = "{layer}": unknown; choose from {", ".join(LAYERS)}')
    # Exchanging a and w mirrors the diagram.
    prime = gamma_prime if layer == "input" else -gamma_prime
    excess = gamma - 1.0
    if prime <= 0.0:
        return excess if excess <= -prime else 0.5 * (excess - prime)
    if excess <= 0.0:
        return excess - 2.0 * prime
    return 2.0 * (excess - prime) if excess <= prime else 0.5 * (excess - prime)


def predicted_regime(gamma: float, gamma_prime: float, layer: str = "input") -> str:
    """Return the predicted regime of a layer: the sign of `predicted_slope`.

    Parameters
    ----------
    gamma, gamma_prime : float
    layer : {"input", "output", "all"}

    Returns
    -------
    {"linear", "critical", "condensed"}
    """
    slope = predicted_slope(gamma, gamma_prime, layer)
    if abs(slope) <= _ON_THE_LINE:
        return "critical"
    return "condensed" if slope > 0.0 else "linear"


def _raise_if_any(problems: list[str]) -> None:
    """Raise ConfigError if there is anything in the list."""
    if problems:
        raise ConfigError(problems)


def _width_problems(width: int) -> list[str]:
    if width >= 1 and width == int(width):
        return []
    return [f"width = {width}: must be a whole number, 1 or larger; try width = 1000"]


def _positive_problems(**values: float) -> list[str]:
    return [
        f"{name} = {value}: must be finite and larger than 0; try {name} = 1.0"
        for name, value in values.items()
        if not (math.isfinite(value) and value > 0.0)
    ]


def _power(base: int, exponent: float) -> float:
    try:
        return float(base) ** exponent
    except OverflowError:
        return math.inf


def _is_normal(value: float) -> bool:
    """Whether a scale and its inverse are neither 0 nor infinite."""
    return 1e-300 <= value <= 1e300
