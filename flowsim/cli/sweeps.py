"""The commands on sweeps: ``sweep GRID``, and ``sweep status | collect | submit | report``."""

from __future__ import annotations

from pathlib import Path

import click

from flowsim.cli.commands import (
    EXIT_CONTINUE,
    INPUT_FILE,
    OUTPUT_FILE,
    OUTPUT_FOLDER,
    Group,
    cli,
    overwrite_option,
    quiet_option,
    refuse_existing,
    set_option,
)

_FOLDER = click.Path(file_okay=False, path_type=Path)


class _SweepGroup(Group):
    """A group whose first command is meant where none is named: ``flowsim sweep grid.toml``."""

    default = "run"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command in front of what is none."""
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = [self.default, *args]
        return super().parse_args(ctx, args)


@cli.group(cls=_SweepGroup, subcommand_metavar="GRID -o FOLDER | COMMAND ...")
def sweep() -> None:
    """Carry out the grid of experiments in a file: ``flowsim sweep GRID -o FOLDER``.

    That is short for ``flowsim sweep run``, whose options ``flowsim sweep run --help`` lists. The
    same command continues a sweep, and several of them, on any machines, share a folder.
    """


@sweep.command()
@click.argument("grid", type=INPUT_FILE)
@click.option("--output", "-o", type=OUTPUT_FOLDER, help="Folder of the sweep.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes; default one a core.")
@click.option("--shard", metavar="I/N", help="The I-th of N parts of the grid only.")
@click.option(
    "--dask", metavar="ADDRESS",
    help="Scheduler of a Dask cluster whose workers see the folder, tcp://host:8786; or local.",
)  # fmt: skip
@click.option(
    "--dry-run", is_flag=True, help="Print points, memory and hours, and carry nothing out."
)
@click.option("--retry-failed", is_flag=True, help="Try again also runs that were given up.")
@set_option
@overwrite_option
@quiet_option
def run(
    grid: Path,
    output: Path | None,
    workers: int | None,
    shard: str | None,
    dask: str | None,
    dry_run: bool,
    retry_failed: bool,
    overrides: tuple[str, ...],
    overwrite: bool,
    quiet: bool,
) -> int:
    """Carry out every experiment of the grid in the file GRID.

    Runs that are finished in the output folder are not carried out again, and one that was stopped
    goes on where it was: the same command continues a sweep. Several may share a folder, each
    point is carried out by one of them. Exit code 1: some runs failed; 130: stopped by Ctrl-C; 75:
    by another signal.
    """
    if dry_run:
        from flowsim.sweeps.forecast import forecast

        click.echo(forecast(grid, output, overrides=overrides, workers=workers, shard=shard))
        return 0
    if output is None:
        raise click.UsageError("--output: missing; name the folder of the sweep, -o FOLDER")
    from flowsim.sweeps import SweepStopped
    from flowsim.sweeps import sweep as carry_out_sweep
    from flowsim.sweeps.given import parse_shard

    try:
        result = carry_out_sweep(
            grid,
            output,
            workers=workers,
            dask=dask,
            shard=None if shard is None else parse_shard(shard),
            retry_failed=retry_failed,
            overrides=overrides,
            overwrite=overwrite,
            progress=not quiet,
        )
    except SweepStopped as stopped:
        click.echo(
            f"interrupted: finished runs are kept in {output}; "
            "the same command (without --overwrite) continues",
            err=True,
        )
        return 130 if stopped.signal == "SIGINT" else EXIT_CONTINUE

    if not quiet:
        click.echo(
            f"{result.folder}: {result.n_run} runs carried out, {result.n_skipped} finished "
            f"before, {len(result.failed)} failed"
        )
    for identity, reason in result.failed:
        point, _, seed = identity.partition("-")
        click.echo(f"{output}/runs/{point}.h5, seed {seed}: {reason}", err=True)
    return 1 if result.failed else 0


@sweep.command()
@click.argument("folder", type=_FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
def status(folder: Path, as_json: bool) -> int:
    """Say which runs of the sweep in FOLDER are done, failed, running or open, and the time left.

    Read off its files, whoever is at work there. Exit code 0: all are done; 1: some have failed
    and nothing else is left; 75: some are open or running.
    """
    from flowsim.sweeps.status import sweep_status

    found = sweep_status(folder)
    if as_json:
        import json

        click.echo(json.dumps(found.to_dict(), indent=2))
    else:
        click.echo(found.text())
    if found.counts["open"] or found.counts["running"]:
        return EXIT_CONTINUE
    return 1 if found.counts["failed"] else 0


@sweep.command()
@click.argument("grid", type=INPUT_FILE)
@click.option("--output", "-o", type=OUTPUT_FOLDER, required=True, help="Folder of the sweep.")
@click.option("--shards", type=click.IntRange(min=1), default=10, show_default=True,
              help="Jobs of the array, each for a part of the grid.")  # fmt: skip
@click.option("--cores", type=click.IntRange(min=1), default=1, show_default=True,
              help="Cores a job.")  # fmt: skip
@click.option("--hours", type=click.FloatRange(min=0.0, min_open=True), default=24.0,
              show_default=True, help="Time limit of a job.")  # fmt: skip
@click.option("--partition", help="Of the cluster.")
@set_option
def submit(
    grid: Path,
    output: Path,
    shards: int,
    cores: int,
    hours: float,
    partition: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Print a batch script for Slurm that carries out the grid in the file GRID.

    It is an array of jobs; one whose time is up saves its runs and queues itself again. Use it as
    in: flowsim sweep submit grid.toml -o sweep/ > sweep.sbatch && sbatch sweep.sbatch
    """
    from flowsim.sweeps.slurm import batch_script

    click.echo(
        batch_script(
            grid,
            output,
            shards=shards,
            cores=cores,
            hours=hours,
            partition=partition,
            overrides=overrides,
        ),
        nl=False,
    )


@sweep.command()
@click.argument("folder", type=INPUT_FILE)
@click.option("--output", "-o", type=OUTPUT_FILE, required=True, help="File to write, phase.h5.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@quiet_option
def collect(folder: Path, output: Path, overwrite: bool, quiet: bool) -> None:
    """Put all runs of the sweep in FOLDER into one file over the axes of its grid.

    xarray opens it, and `flowsim classify`, `compare` and `plot phase` take it in place of the
    folder.
    """
    from flowsim.analysis.regimes import collect_runs

    refuse_existing(output, overwrite)
    skipped = collect_runs(folder, output)
    for name, reason in skipped.items():
        click.echo(f"{name}: left out, {reason}", err=True)
    if not quiet:
        click.echo(f"wrote {output}")


@sweep.command()
@click.argument("folder", type=_FOLDER)
@click.option("--output", "-o", type=OUTPUT_FILE, required=True, help="File to write, .html.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@quiet_option
def report(folder: Path, output: Path, overwrite: bool, quiet: bool) -> None:
    """Write one HTML page on the sweep in FOLDER: maps, slopes, points to look at, time spent.

    It needs no other file and no network.
    """
    from flowsim.reports import write_report

    refuse_existing(output, overwrite)
    write_report(folder, output)
    if not quiet:
        click.echo(f"wrote {output}")
