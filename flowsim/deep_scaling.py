"""Scales of networks with several hidden layers: three numbers a layer.

Layer l (1 is the input layer, L + 1 the output layer) is W_l = m^-a_l w_l with w_l(0) of standard
deviation m^-b_l and learning rate m^-c_l: its multiplier, initial standard deviation and rate. A
shift a += s, b -= s, c -= 2 s changes nothing (Yang and Hu, arXiv 2011.14522).

Three layers, f = (1/alpha) a^T sigma(W_2 sigma(W_1 x)) with standard deviations s_1, s_2, s_3 and
one learning rate, have three exponents instead:

    kappa = s_1 s_2 s_3 / alpha = m^-gamma_3,  s_3/s_2 = m^-gamma_1,  s_3/s_1 = m^-gamma_2.

Sign and pairing of gamma_1 and gamma_2 are flowsim's own choice. A common factor of the s_l
changes the unit of time only (for a 1-homogeneous sigma); here s_2 = m^-1/2, the textbooks' scale
of a hidden layer, and time is tau = t/alpha as for two layers.

Some schemes begin with a step of gradient descent at learning rates of its own, without which the
layers of a network with small initial outputs would never learn (Hajjar, Chizat and Giraud): a
`FirstStep` says what is different in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from flowsim.errors import ConfigError

_SMALLEST, _LARGEST = 1e-300, 1e300

Triple = tuple[float, float, float]


def layer_names(hidden_layers: int) -> tuple[str, ...]:
    """Names of the layers of weights: input, hidden_2, ..., hidden_L, output.

    Parameters
    ----------
    hidden_layers : int
        L.
    """
    return ("input", *(f"hidden_{number}" for number in range(2, hidden_layers + 1)), "output")


@dataclass(frozen=True)
class LayerScale:
    """Forward multiplier, initial standard deviation and learning rate of a layer's weights."""

    multiplier: float
    std: float
    rate: float

    @property
    def normalised(self) -> LayerScale:
        """The same layer in variables of unit variance at t = 0."""
        return LayerScale(self.multiplier * self.std, 1.0, self.rate / self.std / self.std)


@dataclass(frozen=True)
class FirstStep:
    """A first step of gradient descent with learning rates of its own, from the input layer on.

    Parameters
    ----------
    rates : tuple of float
        Learning rates of each layer's weights, m^-c.
    bias_rates : tuple of float
        Of each layer's biases, where these count with the multiplier 1.
    kept : tuple of float
        What each layer's initial weights are multiplied by after the step: 1, or less where they
        are to count less from then on.
    size : float
        Learning rate in units of these, and how long the step lasts in tau.
    calibrate : bool
        Choose the learning rates layer by layer by the change that they make, see
        `flowsim.networks.first_step`.
    """

    rates: tuple[float, ...]
    bias_rates: tuple[float, ...]
    kept: tuple[float, ...]
    size: float = 1.0
    calibrate: bool = False


@dataclass(frozen=True)
class DeepScaling:
    """The scales of a deep network at one width.

    Parameters
    ----------
    width : int
        m.
    scales : tuple of LayerScale
        From the input layer to the output layer.
    exponents : tuple of (float, float, float)
        (a_l, b_l, c_l) of each layer: exact if the scales were given by exponents, and those of
        this width otherwise.
    alpha : float
        Divisor of the output; t = alpha tau. 1 for scales that say everything in the layers.
    gammas : tuple of float
        (gamma_1, gamma_2, gamma_3) for three layers, else empty.
    means : tuple of float
        Means of the initial normalised weights of each layer.
    bias_std : float
        Standard deviation of the initial biases from the second layer on, where these count with
        the multiplier 1. 0 in schemes without biases of their own.
    first : FirstStep or None
        What is different in the first step; None if nothing is.

    Raises
    ------
    ConfigError
        If a scale leaves the range of float64.
    """

    width: int
    scales: tuple[LayerScale, ...]
    exponents: tuple[tuple[float, float, float], ...]
    alpha: float = 1.0
    gammas: tuple[float, ...] = ()
    means: tuple[float, ...] = ()
    bias_std: float = 0.0
    first: FirstStep | None = None

    def __post_init__(self) -> None:
        for name, scale in zip(layer_names(self.hidden_layers), self.scales, strict=True):
            normal = scale.normalised
            for value in (normal.multiplier, normal.rate):
                if not _SMALLEST <= value <= _LARGEST:
                    raise ConfigError(
                        f"scales of layer {name}: leave the range of float64 at width "
                        f"{self.width}; take exponents nearer to 0"
                    )

    @property
    def hidden_layers(self) -> int:
        """L."""
        return len(self.scales) - 1

    @property
    def kappa(self) -> float:
        """Product of all multipliers and initial standard deviations."""
        return math.prod(scale.multiplier * scale.std for scale in self.scales)

    @classmethod
    def from_gammas(cls, width: int, gamma_1: float, gamma_2: float, gamma_3: float) -> DeepScaling:
        """Three layers by exact exponents.

        Parameters
        ----------
        width : int
        gamma_1, gamma_2, gamma_3 : float
        """
        gammas = (float(gamma_1), float(gamma_2), float(gamma_3))
        # Exponents of s_1, s_2, s_3 and alpha in m.
        s2 = -0.5
        s3 = s2 - gammas[0]
        s1 = s3 + gammas[1]
        log_alpha = s1 + s2 + s3 + gammas[2]
        # All layers learn at one rate; 1/alpha is the output layer's multiplier.
        exponents = (
            (0.0, -s1, -log_alpha),
            (0.0, -s2, -log_alpha),
            (log_alpha, -s3, -log_alpha),
        )
        scales = _from_exponents(width, exponents)
        return cls(width, scales, exponents, alpha=_power(width, log_alpha), gammas=gammas)

    @classmethod
    def from_exponents(
        cls,
        width: int,
        exponents: Sequence[Sequence[float]],
        init_scale: float = 1.0,
        means: Sequence[float] = (),
    ) -> DeepScaling:
        """Layers by their exponents (a_l, b_l, c_l).

        Parameters
        ----------
        width : int
        exponents : sequence of (float, float, float)
        init_scale : float
            Factor of the initial standard deviations up to the last hidden layer.
        means : sequence of float
            Of the initial normalised weights of each layer.
        """
        exact = tuple((float(a), float(b), float(c)) for a, b, c in exponents)
        scales = tuple(
            LayerScale(one.multiplier, init_scale * one.std if inner else one.std, one.rate)
            for one, inner in zip(
                _from_exponents(width, exact), [True] * (len(exact) - 1) + [False], strict=True
            )
        )
        gammas = _gammas_of(exact) if len(exact) == 3 else ()
        return cls(width, scales, exact, gammas=gammas, means=tuple(means))

    @classmethod
    def from_numbers(
        cls,
        width: int,
        multiplier: Sequence[float],
        init_std: Sequence[float],
        learning_rate: Sequence[float],
    ) -> DeepScaling:
        """Layers by their numbers at this width.

        Parameters
        ----------
        width : int
        multiplier, init_std, learning_rate : sequence of float
            One a layer.

        Raises
        ------
        ConfigError
            At width 1, where numbers have no exponents, unless all are 1.
        """
        rows = list(zip(multiplier, init_std, learning_rate, strict=True))
        if width == 1 and any(value != 1.0 for row in rows for value in row):
            raise ConfigError(
                "width = 1: log m = 0, so that multiplier, init_std and learning_rate have no "
                "exponents; take a width of at least 2"
            )
        log_m = math.log(width) if width > 1 else 1.0
        exponents = tuple((*(-math.log(value) / log_m for value in row),) for row in rows)
        scales = tuple(LayerScale(*map(float, row)) for row in rows)
        exact = tuple((a, b, c) for a, b, c in exponents)
        return cls(width, scales, exact, gammas=_gammas_of(exact) if len(exact) == 3 else ())

    @classmethod
    def from_scheme(
        cls,
        name: str,
        width: int,
        hidden_layers: int,
        init_scale: float = 1.0,
        first_step: float = 1.0,
        calibrate: bool = False,
    ) -> DeepScaling:
        """Layers of a named scheme.

        Parameters
        ----------
        name : str
            A key of `DEEP_SCHEMES`.
        width, hidden_layers : int
        init_scale : float
            See `from_exponents`.
        first_step, calibrate
            ``size`` and ``calibrate`` of the `FirstStep`, if the scheme has one.

        Raises
        ------
        ConfigError
            If the scheme is not defined at this depth.
        """
        scheme = DEEP_SCHEMES[name]
        if not scheme.shallowest <= hidden_layers <= scheme.deepest:
            raise ConfigError(
                f'scheme = "{name}": is for {scheme.depths}; set network.hidden_layers'
            )
        exponents = scheme.exponents(hidden_layers)
        means = scheme.means(hidden_layers) if scheme.means else ()
        plain = cls.from_exponents(width, exponents, init_scale, means)
        if scheme.first is None:
            return plain
        rows = [[_power(width, -value) for value in row] for row in scheme.first(hidden_layers)]
        rates, bias_rates, kept = zip(*rows, strict=True)
        first = FirstStep(rates, bias_rates, kept, first_step, calibrate)
        return replace(plain, bias_std=1.0 if scheme.needs_biases else 0.0, first=first)


@dataclass(frozen=True)
class DeepScheme:
    """A named parametrisation.

    Attributes
    ----------
    exponents : callable
        From L to the (a, b, c) of the L + 1 layers.
    means : callable or None
        From L to the means of the layers' initial normalised weights, where they are not 0.
    first : callable or None
        From L to the exponents of the first step in each layer, (c of the weights, c of the
        biases, k): after it the initial weights count m^-k times. Biases count with the
        multiplier 1, and those of the input layer are weights.
    needs_biases : bool
        Whether biases of unit variance keep the hidden layers from vanishing at t = 0.
    shallowest, deepest : int
        L for which it is defined.
    """

    exponents: Callable[[int], list[tuple[float, float, float]]]
    means: Callable[[int], list[float]] | None = None
    first: Callable[[int], list[Triple]] | None = None
    needs_biases: bool = False
    shallowest: int = 1
    deepest: int = 64

    @property
    def depths(self) -> str:
        """Depths for which it is defined, in words."""
        if self.deepest == self.shallowest:
            return f"{self.deepest} hidden layer"
        return f"{self.shallowest} to {self.deepest} hidden layers"


def _stacked(first: Triple, inner: Triple, last: Triple) -> Callable[[int], list[Triple]]:
    return lambda hidden: [first, *[inner] * (hidden - 1), last]


def _large(hidden: int) -> list[Triple]:
    """The least rates at which the first step from IP's initial values changes every layer."""
    inner = [(-(hidden + 2) / 2, -(hidden - layer) / 2, 0.0) for layer in range(hidden - 1)]
    return [(-(hidden + 1) / 2, -(hidden + 1) / 2, 0.0), *inner, (-(hidden + 1) / 2, 0.0, 0.0)]


def _large_with_biases(hidden: int) -> list[Triple]:
    """The same where biases of order 1 make all layers of order 1."""
    back = [-(hidden - layer) / 2 for layer in range(hidden - 1)]
    return [(*(-(hidden + 1) / 2,) * 2, 0.0), *[(c - 1.0, c, 0.0) for c in back], (-1.0, 0.0, 0.0)]


def _keeping(exponent: float) -> Callable[[int], list[Triple]]:
    """A first step of muP after which the hidden matrices' initial values count m^-k times."""
    return _stacked((0, -1, 0), (0, -1, exponent), (0, 0, 0))


_IP = _stacked((0, 0, -1), (1, 0, -2), (1, 0, -1))
_MUP = _stacked((-0.5, 0.5, 0), (0, 0.5, 0), (0.5, 0.5, 0))

DEEP_SCHEMES: dict[str, DeepScheme] = {
    "sp": DeepScheme(_stacked((0, 0, 1), (0, 0.5, 1), (0, 0.5, 1))),
    "ntk": DeepScheme(_stacked((0, 0, 0), (0.5, 0, 0), (0.5, 0, 0))),
    "mean-field": DeepScheme(_stacked((0, 0, -1), (1, 0, -1), (1, 0, -1)), deepest=1),
    "mup": DeepScheme(_MUP),
    "ip": DeepScheme(_IP),
    "ip-llr": DeepScheme(_IP, first=_large),
    "ip-bias": DeepScheme(_IP, first=_large_with_biases, needs_biases=True),
    "ip-non-centred": DeepScheme(_IP, means=lambda hidden: [0.0, *[1.0] * hidden]),
    "hp": DeepScheme(_MUP, first=_keeping(0.5)),
    "hpz": DeepScheme(_MUP, first=_keeping(math.inf)),
}
"""Named parametrisations (a, b, c): SP at learning rate 1/m, NTK, mean field (one hidden layer),
muP; the integrable one (IP), with a first step at large learning rates (IP-LLR), with biases, not
centred (Hajjar, Chizat and Giraud, arXiv 2110.15596); and muP in which the hidden matrices' initial
values count as in IP after the first step (HP, hybrid), or not at all (HPZ)."""


def _from_exponents(width: int, exponents: Sequence[Triple]) -> tuple[LayerScale, ...]:
    return tuple(LayerScale(*(_power(width, -value) for value in row)) for row in exponents)


def equal_rates(exponents: Sequence[Triple]) -> tuple[list[float], float]:
    """Exponents of s_l and alpha in variables in which all layers learn at rate 1.

    With theta = sqrt(rate) theta' layer l has the standard deviation s_l / sqrt(rate) and the
    multiplier M_l sqrt(rate); of a 1-homogeneous network only their product counts.
    """
    stds = [-b + 0.5 * c for _, b, c in exponents]
    alpha = sum(a + 0.5 * c for a, _, c in exponents)
    return stds, alpha


def _gammas_of(exponents: Sequence[Triple]) -> tuple[float, float, float]:
    (s1, s2, s3), alpha = equal_rates(exponents)
    return (s2 - s3, s1 - s3, alpha - s1 - s2 - s3)


def _power(base: int, exponent: float) -> float:
    try:
        return float(base) ** exponent
    except OverflowError:
        return math.inf
