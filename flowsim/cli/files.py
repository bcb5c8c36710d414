"""The commands on run files: ``info``, ``repair``, ``export``."""

from __future__ import annotations

from pathlib import Path

import click

from flowsim.cli.commands import INPUT_FILE, OUTPUT_FILE, cli, making_sense_of, refuse_existing


@cli.command()
@click.argument("path", metavar="RUN", type=INPUT_FILE)
@click.option("--member", type=click.IntRange(min=0), help="One run of an ensemble.")
def info(path: Path, member: int | None) -> int:
    """Show what a run file holds: its state, network, results, rows, and whether it is intact.

    RUN may be finished, growing (run.h5 stands for run.h5.part) or killed. Exit code 1: damaged.
    """
    from flowsim.cli.report import ensemble_info
    from flowsim.cli.report import info as describe
    from flowsim.recording.reader import Ensemble, open_runs

    with making_sense_of(path), open_runs(path) as runs:
        if isinstance(runs, Ensemble) and member is None and len(runs) != 1:
            text, intact = ensemble_info(runs)
        else:
            if not 0 <= (member or 0) < len(runs):
                raise click.UsageError(f"--member {member}: {path} holds {len(runs)} runs")
            text, intact = describe(runs[member or 0])
        click.echo(text)
    return 0 if intact else 1


@cli.command()
@click.argument("path", metavar="RUN", type=INPUT_FILE)
@click.option("--output", "-o", type=OUTPUT_FILE, help="File to write; by default run.h5.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
def repair(path: Path, output: Path | None, overwrite: bool) -> None:
    """Make an ordinary file of one that a killed run has left behind (run.h5.part).

    What was committed is kept; `flowsim run` continues the run as before.
    """
    from flowsim.recording.repair import repair as make_ordinary

    click.echo(f"wrote {make_ordinary(path, output, overwrite)}")


@cli.command()
@click.argument("path", metavar="RUN", type=INPUT_FILE)
@click.option("--to", required=True, metavar="FORMAT", help="npz, csv or h5md.")
@click.option(
    "--output", "-o", type=OUTPUT_FILE, help="By default RUN with the format as its ending."
)
@click.option("--group", default="observables", show_default=True, help="For csv: which rows.")
@click.option("--member", type=click.IntRange(min=0), help="One run of an ensemble.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
def export(
    path: Path,
    to: str,
    output: Path | None,
    group: str,
    member: int | None,
    overwrite: bool,
) -> None:
    """Write a run in another format, for programs that do not read HDF5 or expect H5MD."""
    from flowsim.recording.export import export as write
    from flowsim.recording.reader import RunFile

    # H5MD files are HDF5: the name of the run itself is taken.
    ending = ".h5md.h5" if to == "h5md" else f".{to}"
    target = output or path.with_name(path.name.removesuffix(".part").removesuffix(".h5") + ending)
    refuse_existing(target, overwrite)
    with making_sense_of(path), RunFile(path, member) as run:
        click.echo(f"wrote {write(run, to, target, group)}")
