"""Normalisation of inputs: found on the training samples, applied alike to every other sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowsim.data.checks import Array
from flowsim.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Normalisation:
    """x -> (x - shift)/scale, or every sample divided by its own norm.

    Attributes
    ----------
    name : str
        A key of `NORMALISATIONS`.
    shift, scale : (d,) float64 arrays or None
        Without the bias coordinate; None if no such numbers are common to all samples.
    """

    name: str
    shift: Array | None = None
    scale: Array | None = None

    def apply(self, x: npt.ArrayLike) -> Array:
        """Return normalised inputs.

        Parameters
        ----------
        x : (k, d) array
            Without the bias coordinate.

        Returns
        -------
        (k, d) float64 array
        """
        x = np.asarray(x, np.float64)
        if self.name == "unit-norm":
            # First by the largest entry, since the square of 1e200 is infinite.
            largest = np.abs(x).max(axis=1, keepdims=True)
            x = x / np.where(largest > 0.0, largest, 1.0)
            norms = np.linalg.norm(x, axis=1, keepdims=True)
            return x / np.where(norms > 0.0, norms, 1.0)
        if self.shift is None or self.scale is None:
            return x
        return (x - self.shift) / self.scale


def _none(x: Array, full_scale: float | None) -> Normalisation:
    return Normalisation("none")


def _unit_scale(x: Array, full_scale: float | None) -> Normalisation:
    if full_scale is None:
        raise ConfigError(
            'normalise = "unit-scale": is for images of bytes, whose largest value is known; take '
            '"standardise"'
        )
    d = x.shape[1]
    return Normalisation("unit-scale", np.zeros(d), np.full(d, full_scale))


def _standardise(x: Array, full_scale: float | None) -> Normalisation:
    return _by_moments("standardise", x.mean(axis=0), x.std(axis=0), np.abs(x).max(axis=0))


def _standardise_global(x: Array, full_scale: float | None) -> Normalisation:
    d = x.shape[1]
    moments = (np.full(d, value) for value in (x.mean(), x.std(), np.abs(x).max()))
    return _by_moments("standardise-global", *moments)


def _by_moments(name: str, mean: Array, std: Array, largest: Array) -> Normalisation:
    if not (np.isfinite(mean).all() and np.isfinite(std).all()):
        raise ConfigError(f'normalise = "{name}": the variance is beyond float64; scale the data')
    # An input that never changes, such as the corner of an image, has no scale; what it seems to
    # have is the rounding of its mean.
    constant = std <= 1e-14 * largest
    return Normalisation(name, mean, np.where(constant, 1.0, std))


def _unit_norm(x: Array, full_scale: float | None) -> Normalisation:
    return Normalisation("unit-norm")


NORMALISATIONS: dict[str, Callable[[Array, float | None], Normalisation]] = {
    "none": _none,
    "unit-scale": _unit_scale,
    "standardise": _standardise,
    "standardise-global": _standardise_global,
    "unit-norm": _unit_norm,
}
"""From training inputs (n, d) and the largest value they could have, if known, by name."""


def find_normalisation(name: str, x: Array, full_scale: float | None = None) -> Normalisation:
    """Find the numbers that a normalisation needs.

    Parameters
    ----------
    name : str
        ``"none"``; ``"unit-scale"``, divided by the largest value a pixel can have;
        ``"standardise"``, mean 0 and variance 1 of every input; ``"standardise-global"``, of all
        inputs together; ``"unit-norm"``, every sample of Euclidean norm 1 (a zero one stays zero).
    x : (n, d) float64 array
        Training inputs without the bias coordinate.
    full_scale : float, optional
        Largest value a pixel can have.

    Raises
    ------
    ConfigError
        If the name is unknown or does not fit the data.
    """
    if not isinstance(name, str) or name not in NORMALISATIONS:
        choices = ", ".join(f'"{choice}"' for choice in NORMALISATIONS)
        raise ConfigError(f'normalise = "{name}": unknown; choose from {choices}')
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused
        return NORMALISATIONS[name](x, full_scale)
