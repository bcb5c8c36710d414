"""A batch script that spreads a sweep over the nodes of a cluster with Slurm."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path

from flowsim.errors import ConfigError

_SCRIPT = """\
#!/bin/bash
#SBATCH --job-name=flowsim
#SBATCH --array=1-{shards}
#SBATCH --cpus-per-task={cores}
#SBATCH --time={limit}
{partition}#SBATCH --signal=B:USR1@120
#SBATCH --open-mode=append
#SBATCH --requeue

# Two minutes before the end of its time a job saves its runs, and queues itself again.
part="${{SLURM_ARRAY_TASK_ID:-1}}/{shards}"
{command} --shard "$part" &
sweep=$!
trap 'kill -USR1 "$sweep" 2>/dev/null' USR1 TERM
wait "$sweep"; code=$?
while kill -0 "$sweep" 2>/dev/null; do wait "$sweep"; code=$?; done
if [ "$code" -eq 75 ]; then
    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$code"
"""


def batch_script(
    grid: Path,
    output: Path,
    *,
    shards: int,
    cores: int = 1,
    hours: float = 24.0,
    partition: str | None = None,
    overrides: Sequence[str] = (),
) -> str:
    """Return the script; ``sbatch`` runs it as an array of jobs.

    Parameters
    ----------
    grid, output : path
        As for ``flowsim sweep``; made absolute.
    shards : int
        Jobs, each for a part of the grid.
    cores : int
        Of each job.
    hours : float
        Time limit of each.
    partition : str, optional
    overrides : sequence of str
        ``key=value``.

    Raises
    ------
    ConfigError
        If the grid is none, or the name of the partition would end its line.
    """
    from flowsim.sweeps.given import base_and_grid
    from flowsim.sweeps.grid import expand

    if partition is not None and not partition.replace("-", "").replace("_", "").isalnum():
        raise ConfigError(f"partition = {partition!r}: not a name; letters, digits, - and _")
    expand(*base_and_grid(grid, None, overrides))
    minutes = max(1, math.ceil(60.0 * hours))
    command = ["flowsim", "sweep", "run", str(grid.absolute()), "-o", str(output.absolute())]
    command += ["--workers", str(cores), "--quiet"]
    for override in overrides:
        command += ["--set", override]
    return _SCRIPT.format(
        shards=shards,
        cores=cores,
        limit=f"{minutes // 60:02d}:{minutes % 60:02d}:00",
        partition="" if partition is None else f"#SBATCH --partition={partition}\n",
        command=shlex.join(command),
    )
