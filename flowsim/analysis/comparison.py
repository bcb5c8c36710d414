"""Measured slopes beside others: a published table, and the theory.

The table is a CSV file. Lines that begin with ``#`` and empty ones do not count; the first other
line names the columns, in any order:

==============  ========================================================================
``gamma``       the exponents of the point (of three layers ``gamma_3`` and ``gamma_2``),
``gamma_prime`` matched to 1e-9
``slope``       S
``layer``       input, output, all, hidden_2, ...; may be left out, then it is input
==============  ========================================================================

Further columns are left alone.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flowsim.analysis.classification import DEEP_AXES, TWO_LAYER_AXES, Classification
from flowsim.errors import ConfigError

_CLOSE = 1e-9
_LARGEST_TABLE = 1 << 26
_PROBLEMS_SHOWN = 20


@dataclass(frozen=True)
class ComparedSlope:
    """A slope of the table and what was measured there.

    Attributes
    ----------
    gamma, gamma_prime : float
    layer : str
    published, measured, predicted : float
        ``predicted`` by the scaling argument.
    """

    gamma: float
    gamma_prime: float
    layer: str
    published: float
    measured: float
    predicted: float

    @property
    def difference(self) -> float:
        """Measured minus published."""
        return self.measured - self.published


@dataclass(frozen=True)
class Comparison:
    """Measured slopes beside those of a table.

    Attributes
    ----------
    rows : tuple of ComparedSlope
    missing : int
        Lines of the table for which there is no measured slope.
    """

    rows: tuple[ComparedSlope, ...]
    missing: int

    @property
    def largest(self) -> ComparedSlope:
        """Where measured and published differ most."""
        return max(self.rows, key=lambda row: abs(row.difference))

    @property
    def rms(self) -> float:
        """Root of the mean square of the differences."""
        return _rms([row.difference for row in self.rows])

    @property
    def rms_to_theory(self) -> float:
        """The same of measured minus predicted."""
        return _rms([row.measured - row.predicted for row in self.rows])

    @property
    def largest_to_theory(self) -> float:
        """Largest distance of measured from predicted slopes."""
        return max(abs(row.measured - row.predicted) for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "compared": len(self.rows),
            "missing": self.missing,
            "max_difference": abs(self.largest.difference),
            "rms_difference": self.rms,
            "max_difference_to_theory": self.largest_to_theory,
            "rms_difference_to_theory": self.rms_to_theory,
            "rows": [
                {
                    "gamma": row.gamma,
                    "gamma_prime": row.gamma_prime,
                    "layer": row.layer,
                    "published": row.published,
                    "measured": row.measured,
                    "predicted": row.predicted,
                }
                for row in self.rows
            ],
        }


def compare(classification: Classification, table: str | os.PathLike[str]) -> Comparison:
    """Compare the slopes of a sweep with those of a table.

    Parameters
    ----------
    classification : Classification
        From `flowsim.analysis.classify`.
    table : path
        CSV file, see above.

    Raises
    ------
    ConfigError
        With everything wrong in the table, or if the sweep has none of its points.
    """
    lines = read_table(table)
    rows = []
    for gamma, gamma_prime, layer, published in lines:
        for point in classification.points:
            verdict = point.layers.get(layer)
            near = math.isclose(point.gamma, gamma, rel_tol=0.0, abs_tol=_CLOSE) and math.isclose(
                point.gamma_prime, gamma_prime, rel_tol=0.0, abs_tol=_CLOSE
            )
            if near and verdict is not None and verdict.slope is not None:
                rows.append(
                    ComparedSlope(
                        gamma, gamma_prime, layer, published, verdict.slope, verdict.predicted_slope
                    )
                )
                break
    if not rows:
        raise ConfigError(
            f"{os.fspath(table)}: the sweep has a slope at none of its {len(lines)} points; "
            "compare a sweep with the same gamma and gamma_prime"
        )
    return Comparison(tuple(rows), len(lines) - len(rows))


def read_table(path: str | os.PathLike[str]) -> list[tuple[float, float, str, float]]:
    """Return (gamma, gamma_prime, layer, slope) for every line of a table.

    Raises
    ------
    ConfigError
        With everything that is wrong in it.
    """
    name = os.fspath(path)
    try:
        if os.path.getsize(path) > _LARGEST_TABLE:
            raise ConfigError(f"{name}: larger than a table of slopes can be; give a CSV file")
        with open(path, newline="", encoding="utf-8") as file:
            lines = list(enumerate(file, 1))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"{name}: cannot be read ({reason}); give a CSV file") from error
    lines = [(at, line) for at, line in lines if line.strip() and not line.startswith("#")]
    try:
        cells = [row for row in csv.reader(line for _, line in lines)]
    except csv.Error as error:
        raise ConfigError(f"{name}: not CSV ({error}); give a CSV file") from error
    header = [cell.strip() for cell in cells[0]] if cells else []
    axes = next((a for a in (TWO_LAYER_AXES, DEEP_AXES) if {*a, "slope"} <= set(header)), None)
    if axes is None:
        raise ConfigError(
            f"{name}: columns {', '.join(header)[:100] or 'missing'}; the first line must name "
            "gamma, gamma_prime and slope (and layer)"
        )
    problems: list[str] = []
    rows = []
    for (at, _), row in zip(lines[1:], cells[1:], strict=False):
        values = dict(zip(header, row, strict=False))
        numbers = [_number(f"{name}: line {at}", key, values, problems) for key in (*axes, "slope")]
        rows.append((numbers[0], numbers[1], values.get("layer", "input").strip(), numbers[2]))
    if problems:
        raise ConfigError(problems[:_PROBLEMS_SHOWN])
    if not rows:
        raise ConfigError(f"{name}: no line below the first; list some slopes")
    return rows


def _number(where: str, key: str, values: dict[str, str], problems: list[str]) -> float:
    text = values.get(key, "")
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        problems.append(f"{where}: {key} = {text[:40]!r}: must be a finite number")
    return number


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(sum(value * value for value in values) / len(values))
