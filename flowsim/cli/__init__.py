"""The command line: ``flowsim run | sweep | classify | compare | converge | plot | info | ...``.

Nothing but click is imported before a command is carried out, so that help is immediate.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import TextIO

import click

from flowsim.cli import converge as converge  # registers its command
from flowsim.cli import doctor as doctor  # registers its command
from flowsim.cli import files as files  # registers its commands
from flowsim.cli import sweeps as sweeps  # registers its commands
from flowsim.cli.commands import EXIT_STORAGE, cli
from flowsim.errors import ConfigError, DataWarning, FlowsimError, StorageError

EXIT_COMPLETE = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command line and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the process.

    Returns
    -------
    int
        0 done; 1 a run failed (its file is kept); 2 bad input, told in one line a problem on
        standard error; 74 what was reached cannot be saved; 75 a run was stopped by a signal or
        a time limit and can be continued; 130 stopped by Ctrl-C. A fault of flowsim itself gives
        1 as well.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", DataWarning)
            warnings.showwarning = _show_warning
            code = cli.main(
                args=None if arguments is None else list(arguments),
                prog_name="flowsim",
                standalone_mode=False,
            )
        # Buffered output meets a closed pipe here, while it can still be answered.
        sys.stdout.flush()
        return code if isinstance(code, int) else EXIT_COMPLETE
    except ConfigError as error:
        return _fail(error.problems)
    except StorageError as error:
        _fail([str(error)])
        return EXIT_STORAGE
    except FlowsimError as error:
        return _fail([str(error)])
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        return EXIT_BAD_INPUT
    except click.UsageError as error:
        hint = "" if error.ctx is None else f" (see {error.ctx.command_path} --help)"
        return _fail([error.format_message().rstrip(".") + hint])
    except click.ClickException as error:
        return _fail([error.format_message()])
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has seen enough; the interpreter must not flush into the void.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_COMPLETE
    except OSError as error:
        name = "" if error.filename is None else f"{error.filename}: "
        return _fail([f"{name}{error.strerror or error}"])
    except Exception as error:
        if os.environ.get("FLOWSIM_DEBUG"):
            raise
        click.echo(
            f"error: {type(error).__name__}: {error} (a fault of flowsim, not of the input: please "
            "report it with the traceback that FLOWSIM_DEBUG=1 shows)",
            err=True,
        )
        return EXIT_FAILED


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning like an error: on one line, without the place in the code."""
    click.echo(f"warning: {message}", err=True)


def _fail(problems: Iterable[str]) -> int:
    for problem in problems:
        click.echo(f"error: {' '.join(problem.split())}", err=True)
    return EXIT_BAD_INPUT
