"""The limits themselves, and how fast they are approached: ``python -m benchmarks limits``.

Kernels of infinite width against Monte Carlo and closed forms; lazy networks against kernel
gradient flow; critical ones against the mean-field limit, itself at several resolutions; lines at
the birth of condensation; orientations of a condensed network. The published problem (Luo et al.
2021) throughout, but for the lines, which have five inputs.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import flowsim as fs
from flowsim.analysis.condensation import condensation, find_orientations
from flowsim.analysis.slopes import fit_slope
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.limits.convergence import Row, converge
from flowsim.limits.dual import _by_quadrature, dual
from flowsim.limits.early import grow, multiplicity, orientations
from flowsim.limits.mean_field import mean_field_limit
from flowsim.networks.two_layer import TwoLayerNetwork
from flowsim.scaling import Scaling

from .common import INPUTS, RESULTS, TARGETS, Table, X, report

CLOSED = ("relu", "leaky_relu", "linear", "erf")
DRAWS = 1_000_000
LAZY = (((1_000, 10_000, 100_000), 6), ((100_000, 1_000_000), 2))
"""Widths and seeds, the last width with fewer."""
LAZY_FITTED = 10_000
"""Width from which on a power is fitted: below, the slowest modes are late by their own time."""
CRITICAL, CRITICAL_SEEDS, PLACED = (100, 1_000, 10_000), 5, (2_000, 8_000, 32_000)
RESOLUTIONS = (1_000_000, 4_000_000, 16_000_000)
PUBLISHED = {1000: 0.262, 5000: 0.270, 10000: 0.269, 20000: 0.263, 40000: 0.272}
"""RD of the input weights at gamma = 1, read off a figure to about 1 %."""
READING = 0.01
SEEDS = 24
GRID = np.linspace(-0.75, 0.75, 41)
LINES = {"tanh": 1, "x_tanh_x": 2, "x2_tanh_x": 3}
LINES_SEED = 1
"""Of the samples and of the neurons."""


def experiment(gamma: float, antisymmetric: bool = True, **integrate: Any) -> dict[str, Any]:
    """The published problem at one exponent, ends only."""
    return {
        "network": {"width": 1000, "antisymmetric": antisymmetric},
        "scaling": {"gamma": gamma, "gamma_prime": 0.0},
        "data": {"kind": "points", "x": X[:, None].tolist(), "y": TARGETS.tolist()},
        "integrate": {"stop_loss": 1e-5} | integrate,
        "record": {"observables": {"schedule": "none"}, "snapshots": {"schedule": "none"}},
    }


def kernels(draws: int) -> list[dict[str, Any]]:
    """Dual activations at the samples: standard errors from Monte Carlo, and from closed forms."""
    gram = INPUTS @ INPUTS.T
    covariances = np.broadcast_arrays(np.diag(gram)[:, None], np.diag(gram)[None], gram)
    z = INPUTS @ np.random.default_rng(0).normal(size=(2, draws))
    found = []
    for name, sigma in ACTIVATIONS.items():
        pair = dual(sigma, *covariances)
        deviations = []
        for function, mean in zip((sigma.value, sigma.derivative), pair, strict=True):
            values = np.asarray(function(z), np.float64)
            products = values[:, None] * values[None]
            error = products.std(axis=-1) / np.sqrt(draws)
            gap = np.abs(products.mean(axis=-1) - mean)
            deviations.append(float(np.max(gap / np.maximum(error, 1e-13))))
        other = _by_quadrature(*covariances, sigma) if name in CLOSED else pair
        closed = max(float(np.abs(one - two).max()) for one, two in zip(pair, other, strict=True))
        found.append(
            {
                "activation": name,
                "standard_errors": max(deviations),
                "closed_form": closed if name in CLOSED else None,
            }
        )
    return found


def lazy_networks(parts: Any) -> dict[str, Any]:
    """Distances of lazy networks from the linear limit, and the powers of m of the wide ones."""
    accurate = experiment(0.5, method="tsit54", rtol=1e-4)
    rows: dict[tuple[int, int], Row] = {}
    for widths, seeds in parts:
        found = converge(accurate, widths, seeds, inputs=GRID)
        rows |= {(row.width, row.seed): row for row in found.rows}
    return lazy_rates([rows[key] for key in sorted(rows)])


def lazy_rates(rows: list[Row]) -> dict[str, Any]:
    """The fit, apart from the measurement."""
    largest = max(row.width for row in rows)
    wide = [row for row in rows if row.width >= min(LAZY_FITTED, largest // 10)]
    rates = {}
    for name in rows[0].distances:
        fit = fit_slope([row.width for row in wide], [row.distances[name] for row in wide])
        rates[name] = {"slope": fit.slope, "interval": fit.interval, "method": fit.method}
    return {"rows": [vars(row) for row in rows], "rates": rates}


def resolved_limit(sizes: tuple[int, ...], rtol: float) -> list[dict[str, Any]]:
    """The mean-field limit at growing numbers of particles: RD, and f on samples and grid."""
    found: list[dict[str, Any]] = []
    for size in sizes:
        started = time.perf_counter()
        run = mean_field_limit(experiment(1.0, rtol=rtol), size)
        on_samples, on_grid = run.predict(X[:, None]), run.predict(GRID[:, None])
        line = {
            "particles": int(run.attributes["width"]),
            "rtol": rtol,
            "relative_change": float(run.relative_change["input"]),
            "seconds": time.perf_counter() - started,
            "on_samples": on_samples.tolist(),
            "on_grid": on_grid.tolist(),
        }
        if found:
            before = found[-1]
            line["change_of_f"] = max(
                float(np.max(np.abs(line[key] - np.array(before[key]))))
                for key in ("on_samples", "on_grid")
            )
            line["change_of_rd"] = abs(line["relative_change"] - before["relative_change"])
        found.append(line)
        print({key: value for key, value in line.items() if not key.startswith("on_")}, flush=True)
    return found


def sampling(limit: float, seeds: int, widths: tuple[int, ...]) -> dict[str, Any]:
    """RD of drawn networks around the limit: scatter a width, its power, the published values."""
    rows = []
    for width in widths:
        runs = fs.simulate(experiment(1.0) | {"network": {"width": width, "antisymmetric": True}},
                           seeds=seeds)  # fmt: skip
        changes = np.asarray(runs.relative_change["input"])
        error = float(np.sqrt(np.mean((changes - limit) ** 2)))
        allowed = np.hypot(error, READING * PUBLISHED[width])
        rows.append(
            {
                "width": width,
                "mean": float(changes.mean()),
                "sampling_error": error,
                "published": PUBLISHED[width],
                "deviations": float((PUBLISHED[width] - limit) / allowed),
                "changes": changes.tolist(),
            }
        )
    flat = [(row["width"], abs(change - limit)) for row in rows for change in row["changes"]]
    fit = fit_slope(*zip(*flat, strict=True))
    root = np.polyfit(np.log(widths), np.log([row["sampling_error"] for row in rows]), 1)[0]
    return {"rows": rows, "slope": fit.slope, "interval": fit.interval, "slope_of_rms": float(root)}


def lines() -> list[dict[str, Any]]:
    """Lines that 50 neurons of five inputs turn to, each until it has grown a thousandfold."""
    random = np.random.default_rng(LINES_SEED)
    points = random.uniform(-4.0, 2.0, size=(80, 5))
    y = np.sum(3.5 * np.sin(5.0 * points + 1.0), axis=1)
    x = np.column_stack([points, np.ones(80)])
    found = []
    for name, wanted in LINES.items():
        sigma = ACTIVATIONS[name]
        scaling = Scaling.from_standard_deviations(50, 1.0, 0.005, 0.005)
        network = TwoLayerNetwork(scaling, sigma, seed=LINES_SEED)
        start = network.initial_values(6)
        grown = grow(network, x, y, start[0], start[1:])
        arrived = np.isfinite(grown.time)
        units = grown.input_weights[:, arrived]
        units = units / np.linalg.norm(units, axis=0)
        counted = find_orientations(units, np.ones(arrived.sum()), lines=True)
        predicted = orientations(x, y, multiplicity(sigma)[0])
        nearest = np.abs(predicted.directions.T @ units).max(axis=0)
        found.append(
            {
                "activation": name,
                "multiplicity": wanted,
                "lines": counted.number,
                "shares": counted.shares.tolist(),
                "predicted": predicted.lines,
                "neurons": int(arrived.sum()),
                "least_cosine": float(nearest.min()),
                "median_cosine": float(np.median(nearest)),
                "cosines": (units.T @ units).tolist(),
            }
        )
    return found


def condensed(width: int) -> dict[str, Any]:
    """Orientations at gamma = 1.75, start and end."""
    sections = experiment(1.75) | {"record": {"snapshots": {"schedule": "log", "per_decade": 4}}}
    sections["network"]["width"] = width
    found = condensation(fs.simulate(sections))
    first, last = found[0], found[-1]
    return {
        "width": width,
        "start": {"number": first.number, "two_leading": first.leading[1]},
        "number": last.number,
        "two_leading": last.leading[1],
        "effective_number": last.effective_number,
        "pinned": last.pinned,
        "time": [one.time for one in found],
        "leading": [one.leading for one in found],
    }


def main(quick: bool = False) -> None:
    """Measure, report, and draw the figure."""
    duals = kernels(10_000 if quick else DRAWS)
    lazy = lazy_networks((((1_000, 10_000), 2),) if quick else LAZY)
    seeds, particles = (2, 20_000) if quick else (CRITICAL_SEEDS, 250_000)
    approach = {
        name: converge(
            experiment(1.0, antisymmetric), widths[-2:] if quick else widths, seeds,
            initial=initial, particles=particles, inputs=GRID,
        ).to_dict()
        for name, antisymmetric, initial, widths in (
            ("drawn", False, "random", CRITICAL),
            ("antisymmetric", True, "random", CRITICAL),
            ("quadrature", True, "quadrature", PLACED),
        )
    }  # fmt: skip
    born, gathered = lines(), condensed(300 if quick else 1000)
    resolved = resolved_limit(RESOLUTIONS[:1] if quick else RESOLUTIONS, 1e-3)
    resolved += resolved_limit((100_000,), 1e-4)
    change = resolved[-2]["relative_change"]
    scatter = sampling(change, 4 if quick else SEEDS, tuple(PUBLISHED)[: 2 if quick else None])
    data = {
        "kernels": duals, "lazy": lazy, "approach": approach, "mean_field": resolved,
        "sampling": scatter, "lines": born, "condensed": gathered,
    }  # fmt: skip
    report("limits", _tables(data), data, quick)
    if not quick:
        from .limits_figure import draw

        draw(data, RESULTS)


def _tables(data: dict[str, Any]) -> list[Table]:
    duals = Table("E sigma sigma and E sigma' sigma' at the samples",
                  ["activation", "largest deviation from Monte Carlo, standard errors",
                   "from the quadrature, closed forms"])  # fmt: skip
    for line in data["kernels"]:
        closed = "-" if line["closed_form"] is None else f"{line['closed_form']:.1e}"
        duals.rows.append([line["activation"], f"{line['standard_errors']:.2f}", closed])
    rates = Table("Distances from the limit: powers of m",
                  ["networks", "what", "power", "95 %"])  # fmt: skip
    named = {"gamma = 0.5, antisymmetric": data["lazy"]}
    named |= {f"gamma = 1, {name}": found for name, found in data["approach"].items()}
    for name, found in named.items():
        for measure, fit in found["rates"].items():
            between = (
                "-" if fit["interval"] is None else "{:.2f} to {:.2f}".format(*fit["interval"])
            )
            rates.rows.append([name, measure, f"{fit['slope']:.3f}", between])
    limit = Table("The mean-field limit, gamma = 1: particles",
                  ["particles", "rtol", "RD", "change of f", "change of RD", "s"])  # fmt: skip
    for line in data["mean_field"]:
        changes = [f"{line[key]:.1e}" if key in line else "-"
                   for key in ("change_of_f", "change_of_rd")]  # fmt: skip
        limit.rows.append([f"{line['particles']:,}", f"{line['rtol']:.0e}",
                           f"{line['relative_change']:.7f}", *changes,
                           f"{line['seconds']:.0f}"])  # fmt: skip
    scatter = data["sampling"]
    published = Table(
        "RD of drawn networks around that limit, and the published values",
        ["m", "mean RD", "sampling error", "published", "deviation, standard errors"],
        note=f"Power of m of |RD - limit|: {scatter['slope']:.3f} "
        "[{:.3f}, {:.3f}], of its root mean square {:.3f}. Standard error: sampling and 1 % of "
        "reading the figure.".format(*scatter["interval"], scatter["slope_of_rms"]),
    )
    for row in scatter["rows"]:
        published.rows.append([f"{row['width']:,}", f"{row['mean']:.4f}",
                               f"{row['sampling_error']:.4f}", f"{row['published']:.3f}",
                               f"{row['deviations']:+.2f}"])  # fmt: skip
    born = Table("Lines at the birth of condensation, five inputs, m = 50",
                 ["activation", "lines", "predicted", "neurons on each", "cosine, least",
                  "median"])  # fmt: skip
    for line in data["lines"]:
        shares = ", ".join(f"{share:.0%}" for share in line["shares"])
        cosines = [f"{line[key]:.6f}" for key in ("least_cosine", "median_cosine")]
        counts = [f"{line['lines']:g}", str(line["predicted"])]
        born.rows.append([line["activation"], *counts, shares, *cosines])
    gathered = data["condensed"]
    gathering = Table(f"Orientations at gamma = 1.75, m = {gathered['width']:,}",
                 ["", "orientations", "amplitude in the two leading"])  # fmt: skip
    gathering.rows.append(["start", f"{gathered['start']['number']:g}",
                      f"{gathered['start']['two_leading']:.1%}"])  # fmt: skip
    gathering.rows.append(["end", f"{gathered['number']:g}", f"{gathered['two_leading']:.1%}"])
    return [duals, rates, limit, published, born, gathering]
