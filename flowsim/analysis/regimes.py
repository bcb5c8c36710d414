"""The regime of every layer at every point of a sweep, read off run files."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from flowsim.analysis.classification import (
    DEEP_AXES,
    TWO_LAYER_AXES,
    Classification,
    LayerVerdict,
    Point,
)
from flowsim.analysis.collect import (
    RunRecord,
    Source,
    flatten,
    nothing_read,
    read_record,
    read_runs,
    varying_keys,
)
from flowsim.analysis.phase_file import is_phase_file, read_phase_file, write_phase_file
from flowsim.analysis.slopes import SlopeFit, fit_slope
from flowsim.analysis.zero_line import ZeroPoint, zero_line
from flowsim.deep_predictions import regime_of
from flowsim.errors import ConfigError
from flowsim.scaling import LAYERS, predicted_regime, predicted_slope

HOMOGENEOUS = ("relu", "leaky_relu", "linear")
# Neither the seed nor the width makes a new point; the rest of these never changes a number.
_SAME_POINT = ("network.width", "network.seed", "integrate.threads", "integrate.max_seconds")
_FILES_NAMED = 3


def classify(source: Source, *, margin: float = 0.05, confidence: float = 0.95) -> Classification:
    """Classify every layer at every point of a sweep.

    Runs are one point when their resolved experiments agree in all but width and seed, and in what
    never changes a number (threads, wall-time budget, save schedules). An interval of the slope
    above ``margin`` means condensed, below ``-margin`` linear, between the two critical; an
    interval that contains ``margin`` or ``-margin`` decides nothing. Nor does a slope that still
    changes with the width (see `flowsim.analysis.curvature`), if at the largest width it says
    something else.

    Parameters
    ----------
    source : path, RunFile, or list of these
        A folder is searched through all its subfolders for ``*.h5``; a phase file (see
        `flowsim.analysis.phase_file`) stands for the runs that were collected in it.
    margin : float
        Half-width of the band of slopes that count as 0.
    confidence : float
        Coverage of the intervals.

    Raises
    ------
    ConfigError
        ``margin`` or ``confidence`` out of range.
    FlowsimError
        ``source`` does not exist, holds no run file, or none that can be read.
    """
    problems = []
    if not (math.isfinite(margin) and margin >= 0.0):
        problems.append(f"margin = {margin}: must be a finite number, 0 or larger; try 0.05")
    if not 0.0 < confidence < 1.0:
        problems.append(f"confidence = {confidence}: must lie between 0 and 1; try 0.95")
    if problems:
        raise ConfigError(problems)
    records, skipped = records_of(source)
    return classify_records(records, skipped, margin, confidence)


def records_of(source: Source) -> tuple[list[RunRecord], dict[str, str]]:
    """Return the numbers of all runs of a source, and why others were left out."""
    if is_phase_file(source):
        return read_phase_file(cast("str", source)), {}
    records, skipped = read_runs(source, read_record)
    if skipped and not records:
        raise nothing_read(skipped)
    return records, skipped


def collect_runs(source: Source, output: str | os.PathLike[str]) -> dict[str, str]:
    """Write all runs of a source to one phase file (see `flowsim.analysis.phase_file`).

    Parameters
    ----------
    source : see `classify`
    output : path

    Returns
    -------
    dict of str to str
        Files that were left out, with the reason.

    Raises
    ------
    ConfigError
        If the runs have no place on one grid of exponents.
    FlowsimError
        See `classify`.
    """
    records, skipped = records_of(source)
    write_phase_file(output, records, classify_records(records, skipped, 0.05, 0.95))
    return skipped


def classify_records(
    records: Sequence[RunRecord], skipped: dict[str, str], margin: float, confidence: float
) -> Classification:
    """Classify every layer at every point that these runs are at; see `classify`."""
    groups: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[_point_key(record)].append(record)
    settings = {key: _settings(group[0]) for key, group in groups.items()}
    exponents = [f"scaling.{name}" for name in (*TWO_LAYER_AXES, *DEEP_AXES)]
    varying = [key for key in varying_keys(settings.values()) if key not in exponents]
    points = []
    for key, group in groups.items():
        other = {name: settings[key].get(name) for name in varying}
        points.append(_point(_without_copies(group, skipped), other, margin, confidence))
    points.sort(key=lambda p: (json.dumps(p.other, default=str), p.gamma_prime, p.gamma))
    return Classification(tuple(points), _zeros(points), skipped, margin, confidence)


def _settings(record: RunRecord) -> dict[str, Any]:
    # Save schedules never change the steps, and wide runs are often saved less densely.
    return {
        key: value
        for key, value in flatten(record.config).items()
        if key not in _SAME_POINT and not key.startswith("record.")
    }


def _point_key(record: RunRecord) -> str:
    return json.dumps(_settings(record), sort_keys=True, default=str)


def _without_copies(group: Sequence[RunRecord], skipped: dict[str, str]) -> list[RunRecord]:
    """Drop runs that repeat another bit by bit: copied files would feign more seeds."""
    kept: dict[tuple[Any, ...], RunRecord] = {}
    for record in group:
        key = (record.width, record.seed, *record.relative_change.values())
        if record.relative_change and key in kept:
            skipped[record.name] = f"repeats {kept[key].name}"
        else:
            kept[key if record.relative_change else (record.name,)] = record
    return list(kept.values())


def _point(
    records: Sequence[RunRecord], other: dict[str, Any], margin: float, confidence: float
) -> Point:
    by_width: dict[int, list[RunRecord]] = defaultdict(list)
    for record in sorted(records, key=lambda r: (r.width, r.seed, r.name)):
        by_width[record.width].append(record)
    widths = tuple(by_width)
    counts = tuple(len(group) for group in by_width.values())
    largest = by_width[widths[-1]][0]
    not_converged = tuple(f"{r.name} ({_word(r.ending)})" for r in records if not r.reached)
    predicted, note = _predictions(by_width)
    layers = {
        layer: _verdict(layer, by_width, slope, regime, not_converged, margin, confidence)
        for layer, (slope, regime) in predicted.items()
    }
    return Point(
        gamma=largest.gamma,
        gamma_prime=largest.gamma_prime,
        other=other,
        widths=widths,
        seeds=min(counts),
        runs_per_width=counts,
        layers=layers,
        not_converged=tuple(r.name for r in records if not r.reached),
        note=note,
        axes=DEEP_AXES if largest.predicted else TWO_LAYER_AXES,
        gamma_1=largest.gamma_1,
    )


def _predictions(
    by_width: Mapping[int, Sequence[RunRecord]],
) -> tuple[dict[str, tuple[float, str]], str]:
    """Return the predicted slope and regime of each layer, and what to note about them."""
    record = by_width[max(by_width)][0]
    if record.predicted:
        slopes = {name: (slope, regime_of(slope)) for name, slope in record.predicted.items()}
        activation = record.config["network"].get("activation", "relu")
        known = activation in HOMOGENEOUS
        return slopes, "" if known else _for_relu(activation)
    at, note = _exponents(by_width)
    return {
        layer: (float(predicted_slope(*at, layer)), predicted_regime(*at, layer))
        for layer in LAYERS
    }, note


def _for_relu(activation: str) -> str:
    return f"the prediction is for ReLU, the activation is {activation}"


def _exponents(by_width: Mapping[int, Sequence[RunRecord]]) -> tuple[tuple[float, float], str]:
    """Return the exponents that the prediction is made for, and what to note about them."""
    largest = max(by_width)
    record = by_width[largest][0]
    at = (record.gamma, record.gamma_prime)
    notes = []
    if "gamma" not in record.config["scaling"]:
        notes.append(f"gamma and gamma_prime depend on the width and are those of m = {largest}")
        if len(by_width) > 1:
            # S compares widths, so its prediction needs how kappa changes between the widths:
            # constant factors such as powers of d shift gamma but not S.
            log_width = np.log(list(by_width))
            log_kappa = [np.log([g[0].kappa, g[0].kappa_prime]) for g in by_width.values()]
            gradient = np.polyfit(log_width, np.array(log_kappa), 1)[0]
            at = (round(-float(gradient[0]), 12), round(-float(gradient[1]), 12))
            notes.append(
                f"the prediction uses -dlog(kappa)/dlog(m) = {at[0]:.4g} and "
                f"-dlog(kappa_prime)/dlog(m) = {at[1]:.4g}"
            )
    activation = record.config["network"].get("activation", "relu")
    if activation not in HOMOGENEOUS:
        notes.append(_for_relu(activation))
    return at, "; ".join(notes)


def _verdict(
    layer: str,
    by_width: Mapping[int, Sequence[RunRecord]],
    predicted: float,
    regime_predicted: str,
    not_converged: Sequence[str],
    margin: float,
    confidence: float,
) -> LayerVerdict:
    usable = {
        width: [r for r in group if r.reached and layer in r.relative_change]
        for width, group in by_width.items()
    }
    changes = {width: [r.relative_change[layer] for r in group] for width, group in usable.items()}
    sup = [[r.sup_relative_change.get(layer, math.nan) for r in g] for g in usable.values()]
    flat = [(width, change) for width, values in changes.items() for change in values]
    fit = None
    reason = ""
    if len({width for width, _ in flat}) < 2:
        reason = _too_few_widths(by_width, usable)
    elif not all(math.isfinite(change) and change > 0.0 for _, change in flat):
        reason = (
            "the relative change is 0 or not a number, so it has no logarithm; "
            "a layer with mobility 0 stays where it is"
        )
    else:
        width, change = zip(*flat, strict=True)
        fit = fit_slope(width, change, confidence=confidence)
    if not_converged:
        total = sum(len(group) for group in by_width.values())
        reason = _not_converged(not_converged, total)
        regime = "undetermined"
    elif fit is None:
        regime = "undetermined"
    else:
        regime, reason = _regime(fit, margin)
    return LayerVerdict(
        slope=None if fit is None else fit.slope,
        ci=None if fit is None else fit.interval,
        regime=regime,
        reason=reason,
        predicted_slope=predicted,
        predicted_regime=regime_predicted,
        relative_change=tuple(_mean(values) for values in changes.values()),
        sup_relative_change=tuple(_mean(values) for values in sup),
        spread=tuple(
            float(np.std(values, ddof=1)) if len(values) > 1 else None
            for values in changes.values()
        ),
        fit=fit,
        probabilities={} if fit is None or fit.interval is None else _probabilities(fit, margin),
    )


def _probabilities(fit: SlopeFit, margin: float) -> dict[str, float]:
    """Return how probable each regime is, by the distribution of the slope."""
    return {
        "linear": fit.probability(-math.inf, -margin),
        "critical": fit.probability(-margin, margin),
        "condensed": fit.probability(margin, math.inf),
    }


def _regime(fit: SlopeFit, margin: float) -> tuple[str, str]:
    """Return the regime that a slope's interval shows, and the reason."""
    if fit.interval is None:
        return "undetermined", (
            f"slope {fit.slope:.3f} without an interval: {fit.n_runs} runs at "
            f"{len(fit.widths)} widths determine a line exactly; add a second seed a width or a "
            "third width"
        )
    regime, reason = _straight_regime(fit, fit.interval, margin)
    bend = fit.curvature
    if regime == "undetermined" or bend is None or not bend.is_significant:
        return regime, reason
    last = bend.last_slope
    at_last = "condensed" if last > margin else "linear" if last < -margin else "critical"
    if at_last == regime:
        return regime, reason
    local = ", ".join(f"{slope:.3f}" for slope in fit.local_slopes)
    return "undetermined", (
        f"slope {fit.slope:.3f} is not the asymptotic one: it changes by {bend.change:.3f} a "
        f"decade of widths (local slopes {local}) and would be {at_last} at m = "
        f"{fit.widths[-1]}; add larger widths"
    )


def _straight_regime(
    fit: SlopeFit, interval: tuple[float, float], margin: float
) -> tuple[str, str]:
    low, high = interval
    said = f"slope {fit.slope:.3f}, interval [{low:.3f}, {high:.3f}]"
    if low > margin:
        return "condensed", f"{said} lies above the margin {margin:g}"
    if high < -margin:
        return "linear", f"{said} lies below the margin -{margin:g}"
    if -margin <= low and high <= margin:
        return "critical", f"{said} lies within the margin {margin:g} of 0"
    crossed = [f"{edge:g}" for edge in (-margin, margin) if low <= edge <= high]
    return "undetermined", (
        f"{said} contains {' and '.join(crossed)}; "
        + (
            "add seeds (they narrow the interval) or larger widths"
            if fit.method == "bootstrap"
            else "add seeds (two or more a width) or more widths"
        )
    )


def _too_few_widths(
    by_width: Mapping[int, Sequence[RunRecord]], usable: Mapping[int, Sequence[RunRecord]]
) -> str:
    named = ", ".join(str(width) for width, group in usable.items() if group)
    if len(by_width) < 2:
        return f"one width only (m = {min(by_width)}): a slope needs two; add larger widths"
    return f"fewer than two widths have a usable run (m = {named or 'none'})"


def _not_converged(names: Sequence[str], total: int) -> str:
    listed = ", ".join(names[:_FILES_NAMED])
    if len(names) > _FILES_NAMED:
        listed += f" and {len(names) - _FILES_NAMED} more"
    return (
        f"{len(names)} of {total} runs reached neither stop_loss nor a steady state: {listed}; "
        "run these longer"
    )


def _zeros(points: Sequence[Point]) -> tuple[ZeroPoint, ...]:
    groups: dict[str, list[Point]] = defaultdict(list)
    for point in points:
        # The slope of runs that stopped early is not the slope at the end.
        if point.layers["input"].slope is not None and not point.not_converged:
            groups[json.dumps([point.other, point.axes], sort_keys=True, default=str)].append(point)
    zeros: tuple[ZeroPoint, ...] = ()
    for group in groups.values():
        zeros += zero_line(
            [p.gamma for p in group],
            [p.gamma_prime for p in group],
            [p.layers["input"].slope or 0.0 for p in group],
            reach=[p.layers["input"].reach for p in group],
            other=group[0].other,
            axes=group[0].axes,
        )
    return zeros


def _word(ending: str) -> str:
    return ending.split(":", 1)[0].strip()


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values and np.all(np.isfinite(values)) else None
