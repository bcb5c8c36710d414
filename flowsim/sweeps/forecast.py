"""What a sweep will take, before it is begun: points, memory, hours."""

from __future__ import annotations

from pathlib import Path

from flowsim.config.source import Overrides
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.preparation import make_network, memory_of, resolve_method
from flowsim.sweeps.costs import CostModel, show_seconds
from flowsim.sweeps.folder import SweepFolder
from flowsim.sweeps.given import base_and_grid, check_workers, in_shard, parse_shard
from flowsim.sweeps.grid import Member, expand


def forecast(
    grid: Path,
    output: Path | None = None,
    *,
    overrides: Overrides = (),
    workers: int | None = None,
    shard: str | None = None,
) -> str:
    """Return the lines of ``flowsim sweep --dry-run``; nothing is written.

    Parameters
    ----------
    grid : path
        A grid file.
    output : path, optional
        A folder whose measured times correct the estimate.
    overrides, workers, shard
        See `flowsim.sweep`; ``shard`` as text, ``i/N``.

    Raises
    ------
    ConfigError
        As the sweep itself would.
    """
    workers = check_workers(workers)
    base, axes = base_and_grid(grid, None, overrides)
    everything = expand(base, axes)
    members = in_shard(everything, None if shard is None else parse_shard(shard))
    times = None if output is None else SweepFolder(output).times_file
    costs = CostModel(times)
    seconds = costs.seconds_for(members)
    basis = f"{costs.n_runs} measured runs" if costs.n_runs else "sizes and method alone"
    largest = max(members, key=lambda member: member.cost, default=None)
    lines = [
        f"{len({m.point for m in members})} points, {len(members)} runs"
        + ("" if shard is None else f" of {len(everything)} (shard {shard})"),
        *(
            f"{key}: {len(values)} values"
            for key, values in axes.items()
            if isinstance(values, list)
        ),
    ]
    if largest is not None:
        needed = _memory(largest) / 2**20
        lines.append(
            f"memory: {needed:.3g} MiB for the largest state, "
            f"{workers * needed:.3g} MiB for {workers} of them side by side"
        )
    lines.append(
        f"time: about {show_seconds(seconds / workers)} with {workers} workers, "
        f"{seconds / 3600:.3g} core hours (from {basis})"
    )
    return "\n".join(lines)


def _memory(member: Member) -> float:
    """Bytes that the states of a run take."""
    experiment = member.experiment
    dataset = experiment.make_dataset()
    network = make_network(experiment, dataset, ACTIVATIONS[experiment.network.activation])
    return memory_of(experiment, network, dataset, resolve_method(experiment, network, dataset))
