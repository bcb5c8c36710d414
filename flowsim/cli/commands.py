"""The commands; each imports what it needs when it is carried out."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

EXIT_STORAGE = 74
EXIT_CONTINUE = 75
"""As in sysexits.h: EX_IOERR, and EX_TEMPFAIL, which batch systems can be told to requeue."""

OUTPUT_FILE = click.Path(dir_okay=False, path_type=Path)
OUTPUT_FOLDER = click.Path(file_okay=False, path_type=Path)
INPUT_FILE = click.Path(path_type=Path)


def refuse_existing(target: Path, overwrite: bool) -> None:
    """Raise a usage error if there is a file already that is not to be replaced."""
    if target.exists() and not overwrite:
        raise click.UsageError(f"{target}: exists already; use --overwrite or --output")


@contextmanager
def making_sense_of(path: Path) -> Iterator[None]:
    """Tell of a file that can be read, but in which nothing is what it should be.

    What is expected of a file is checked where it is read; this is for what nobody has thought
    of. FLOWSIM_DEBUG=1 shows the traceback.

    Raises
    ------
    FileFormatError
    """
    from flowsim.errors import FileFormatError, FlowsimError

    try:
        yield
    except (FlowsimError, click.ClickException, OSError):
        raise
    except Exception as error:
        if os.environ.get("FLOWSIM_DEBUG"):
            raise
        reason = " ".join(str(error).split())[:120]
        raise FileFormatError(
            f"{path}: makes no sense as a run ({type(error).__name__}: {reason}); damaged or not "
            "written by flowsim"
        ) from error


class Group(click.Group):
    """A group that guesses which command was meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of a name, or say which is close to it."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            close = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            remedy = (
                f"did you mean {close[0]!r}?"
                if close
                else f"choose from {', '.join(self.list_commands(ctx))}"
            )
            raise click.UsageError(f"no command {name!r}; {remedy}", ctx)
        return super().resolve_command(ctx, args)


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from flowsim import __version__

        click.echo(f"flowsim {__version__}")
        ctx.exit()


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version,
    help="Show the version and exit.",
)  # fmt: skip
def cli() -> None:
    """Integrate the gradient flow of wide neural networks and read off their regimes."""


set_option = click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True,
    help="Change one setting, such as scaling.gamma=1.2; may be given several times.",
)  # fmt: skip
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace what the output holds already."
)
quiet_option = click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")


@cli.command()
@click.argument("experiment", type=INPUT_FILE)
@click.option("--output", "-o", type=OUTPUT_FILE, required=True, help="File to write, run.h5.")
@set_option
@overwrite_option
@click.option(
    "--resume", type=click.Choice(["auto", "never", "must"]), default="auto", show_default=True,
    help="Where the output holds this very run, go on with it; or refuse to; or insist on it.",
)  # fmt: skip
@click.option(
    "--max-hours", type=click.FloatRange(min=0.0, min_open=True),
    help="Save a checkpoint and stop after this time, with exit code 75.",
)  # fmt: skip
@click.option("--no-lock", is_flag=True, help="For file systems on which locks do not work.")
@click.option(
    "--scratch", metavar="FOLDER", type=OUTPUT_FOLDER,
    help="Let the file grow on this local disk, and copy it at each checkpoint.",
)  # fmt: skip
@click.option(
    "--estimate-error", is_flag=True,
    help="Run again with half the step (or a tenth of rtol) and report what changes.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), help="Threads; default one a core.")
@quiet_option
def run(
    experiment: Path,
    output: Path,
    overrides: tuple[str, ...],
    overwrite: bool,
    resume: str,
    max_hours: float | None,
    no_lock: bool,
    scratch: Path | None,
    estimate_error: bool,
    threads: int | None,
    quiet: bool,
) -> int:
    """Integrate the network described in the file EXPERIMENT.

    The same command starts a run and continues one that was stopped; a finished run goes on if it
    is asked for more (a lower stop_loss, a larger t_max).

    Exit code 0: complete; 1: the numbers failed (the file is kept and says why); 2: bad input;
    74: the disk is full or gone (what was saved is kept); 75: stopped by a signal or a time limit,
    the same command continues it.
    """
    from flowsim.config import load_experiment

    more = [f"integrate.threads={threads}"] if threads is not None else []
    more += ["integrate.estimate_error=true"] if estimate_error else []
    more += [f"integrate.max_seconds={3600.0 * max_hours}"] if max_hours is not None else []
    resolved = load_experiment(experiment, [*overrides, *more])

    from flowsim.api import run_experiment
    from flowsim.cli.report import run_summary

    result, _ = run_experiment(
        resolved,
        output,
        overwrite=overwrite,
        resume=resume,
        lock=not no_lock,
        scratch=scratch,
        progress=not quiet,
    )
    with result:
        status, reason = result.status, result.stop_reason
        where = Path(result.path)
        if not quiet:
            click.echo(run_summary(result, where))
    if quiet and status != "complete":
        click.echo(f"{where}: {status}, {reason}", err=True)
    if where.name != output.name:
        click.echo(f"{output}: still the run as it ended before", err=True)
    if reason.startswith("storage"):
        return EXIT_STORAGE
    return {"complete": 0, "failed": 1}.get(status, EXIT_CONTINUE)


@cli.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=INPUT_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
@click.option("--margin", type=float, default=0.05, show_default=True,
              help="Slopes within this of zero count as zero.")  # fmt: skip
@click.option("--confidence", type=float, default=0.95, show_default=True,
              help="Coverage of the intervals.")  # fmt: skip
def classify(paths: tuple[Path, ...], as_json: bool, margin: float, confidence: float) -> None:
    """Read the regime of every layer off the runs in PATH..., folders or files."""
    from flowsim.analysis import classify as classify_runs

    result = classify_runs(
        paths[0] if len(paths) == 1 else list(paths), margin=margin, confidence=confidence
    )
    if as_json:
        import json

        click.echo(json.dumps(result.to_dict(), indent=2))
        return
    from flowsim.cli.report import print_classification

    print_classification(result)


@cli.command()
@click.argument("path", type=INPUT_FILE)
@click.argument("table", type=INPUT_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
def compare(path: Path, table: Path, as_json: bool) -> None:
    """Compare the slopes of the runs in PATH with those in the CSV file TABLE, and with theory.

    The first line of TABLE names its columns: gamma, gamma_prime, slope and, if it is not input,
    layer. Lines that begin with # do not count.
    """
    from flowsim.analysis import classify as classify_runs
    from flowsim.analysis import compare as compare_slopes

    result = compare_slopes(classify_runs(path), table)
    if as_json:
        import json

        click.echo(json.dumps(result.to_dict(), indent=2))
        return
    worst = result.largest
    missing = f", {result.missing} of the table are not in {path}" if result.missing else ""
    click.echo(f"{len(result.rows)} slopes compared{missing}")
    click.echo(
        f"to {table}: largest difference {abs(worst.difference):.4f} (gamma = {worst.gamma:g}, "
        f"gamma_prime = {worst.gamma_prime:g}: {worst.measured:.3f} measured, "
        f"{worst.published:.3f} there), RMS {result.rms:.4f}"
    )
    click.echo(
        f"to theory: largest difference {result.largest_to_theory:.4f}, "
        f"RMS {result.rms_to_theory:.4f}"
    )


@cli.command()
@click.argument("kind")
@click.argument("path", type=INPUT_FILE)
@click.option("--output", "-o", type=OUTPUT_FILE, required=True,
              help="Figure to write; .png, .pdf or .svg.")  # fmt: skip
@click.option("--data", type=OUTPUT_FILE, help="CSV file for the plotted numbers.")
@click.option("--set", "settings", metavar="NAME=VALUE", multiple=True,
              help="An option of the figure, such as layer=output; may be repeated.")  # fmt: skip
@quiet_option
def plot(
    kind: str, path: Path, output: Path, data: Path | None, settings: tuple[str, ...], quiet: bool
) -> None:
    """Draw a figure from the run or the sweep in PATH.

    KIND is phase, rd, loss, features, condensation, cosines, kernel or function.
    """
    from flowsim.plotting import plot as draw

    with making_sense_of(path):
        draw(kind, path, output, data=data, **_figure_options(settings))
    if not quiet:
        for file in filter(None, (output, data)):
            click.echo(f"wrote {file}", err=True)


def _figure_options(settings: tuple[str, ...]) -> dict[str, Any]:
    """Read NAME=VALUE; a value that is not TOML (a number, true, a list) is a string."""
    import tomllib

    options: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name.strip():
            raise click.UsageError(f"--set {setting}: must be NAME=VALUE")
        try:
            options[name.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            options[name.strip()] = text
    return options
