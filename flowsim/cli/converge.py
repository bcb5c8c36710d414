"""The command ``flowsim converge``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowsim.cli.commands import INPUT_FILE, OUTPUT_FILE, cli, quiet_option, set_option

if TYPE_CHECKING:
    from flowsim.limits.convergence import Convergence


@cli.command()
@click.argument("experiment", type=INPUT_FILE)
@click.option("--widths", default="100,1000,10000", show_default=True,
              help="Widths, separated by commas.")  # fmt: skip
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True,
              help="Networks a width.")  # fmt: skip
@click.option("--limit", type=click.Choice(["auto", "linear", "mean-field"]), default="auto",
              show_default=True, help="Limit; auto goes by the exponents.")  # fmt: skip
@click.option("--initial", type=click.Choice(["random", "quadrature"]), default="random",
              show_default=True, help="Initial weights: drawn, or placed by a rule.")  # fmt: skip
@click.option("--particles", type=click.IntRange(min=16), default=100_000, show_default=True,
              help="Of the mean-field limit.")  # fmt: skip
@click.option("--output", "-o", type=OUTPUT_FILE, help="JSON file for all distances and rates.")
@set_option
@quiet_option
def converge(
    experiment: Path,
    widths: str,
    seeds: int,
    limit: str,
    initial: str,
    particles: int,
    output: Path | None,
    overrides: tuple[str, ...],
    quiet: bool,
) -> None:
    """Measure how fast the networks of the file EXPERIMENT approach infinite width.

    Distances in function, in the distribution of neurons and, for the mean-field limit, in the
    relative change, with the powers of m by which they fall.
    """
    import json

    from flowsim.config import load_experiment
    from flowsim.limits.convergence import converge as measure

    try:
        sizes = [int(float(part)) for part in widths.split(",")]
    except (ValueError, OverflowError):
        raise click.UsageError(f"--widths {widths}: wanted numbers, as in 100,1000,1e4") from None
    resolved = load_experiment(experiment, overrides)
    found = measure(resolved, sizes, seeds, limit=limit, initial=initial, particles=particles)
    if output is not None:
        output.write_text(json.dumps(found.to_dict(), indent=1) + "\n", encoding="utf-8")
    if not quiet:
        _show(found)


def _show(found: Convergence) -> None:
    """Print medians a width, and the rates."""
    import numpy as np
    from rich.table import Table

    from flowsim.cli.report import _console, _number
    from flowsim.limits.convergence import MEASURES

    names = list(found.rows[0].distances)
    table = Table("m", "networks", *names, title=f"distance from the limit {found.limit}")
    for width in sorted({row.width for row in found.rows}):
        rows = [row for row in found.rows if row.width == width]
        medians = [np.median([row.distances[name] for row in rows]) for name in names]
        table.add_row(str(width), str(len(rows)), *map(_number, medians))
    console = _console()
    console.print(table)
    for name, fit in found.rates.items():
        between = "" if fit.interval is None else " [{:.2f}, {:.2f}]".format(*fit.interval)
        console.print(f"{MEASURES[name]}: m^{fit.slope:.2f}{between}", markup=False)
