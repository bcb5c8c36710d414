"""The command ``doctor``: what this machine offers, and what is missing."""

from __future__ import annotations

import click

from flowsim.cli.commands import cli


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
def doctor(as_json: bool) -> None:
    """Report what flowsim finds on this machine: versions, backends, processor, memory, GPU.

    What is missing is named with the command that installs it; a report of a fault is of more use
    with these lines.
    """
    from flowsim.cli.diagnosis import diagnose

    found = diagnose()
    if as_json:
        import json

        click.echo(json.dumps(found, indent=2))
        return
    from flowsim.cli.report import print_diagnosis

    print_diagnosis(found)
