"""What the benchmarks share: the published problem, the machine they ran on, tables, files."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import flowsim as fs

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
GAMMAS = (0.5, 1.0, 1.5, 1.75)
WIDTHS = (1_000, 10_000)
STOP_LOSS = 1e-5
LOAD = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
"""Processes running when this one started: next to others a timing is good for little."""
X = np.array([-1 / 2, -1 / 6, 1 / 6, 1 / 2])
INPUTS = np.column_stack([X, np.ones(4)])
TARGETS = X**2


def solve(gamma: float, width: int, **integrate: Any) -> fs.Run:
    """Integrate the published problem (Luo et al. 2021; gamma' = 0, seed 0) to R < 1e-5."""
    return fs.simulate(
        network=dict(width=width, activation="relu", antisymmetric=True, seed=0),
        scaling=dict(gamma=gamma, gamma_prime=0.0),
        data=dict(kind="points", x=X[:, None].tolist(), y=TARGETS.tolist()),
        integrate=dict(stop_loss=STOP_LOSS, threads=2) | integrate,
        record=dict(observables=dict(schedule="none"), snapshots=dict(schedule="none")),
    )


def machine() -> dict[str, Any]:
    """Cores, processor and versions: what a timing depends on."""
    import numba
    import scipy

    from flowsim.kernels.cpu.threads import usable_cores

    return {
        "cores": usable_cores(),
        "processor": _processor(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{module.__name__: module.__version__ for module in (fs, np, scipy, numba)},
        "blas": blas(),
    }


def blas() -> str:
    """The linear algebra of NumPy: library, version, the kernels it has chosen, threads."""
    from threadpoolctl import threadpool_info

    found = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    if not found:
        return "unknown"
    pool = found[0]
    kernels = f"{pool.get('architecture') or 'kernels unknown'}, {pool['num_threads']} threads"
    return f"{pool['internal_api']} {pool['version']} ({kernels})"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.machine()


@dataclass
class Table:
    """A table with a title; cells are strings as they are printed."""

    title: str
    header: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    note: str = ""

    def markdown(self) -> str:
        """The table in Markdown, its columns lined up to be read as plain text too."""
        lines = [list(self.header), *map(list, self.rows)]
        widths = [max(len(line[k]) for line in lines) for k in range(len(self.header))]

        def joined(cells: Sequence[str]) -> str:
            padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
            return f"| {' | '.join(padded)} |"

        rule = joined(["-" * width for width in widths])
        body = "\n".join([joined(lines[0]), rule, *map(joined, lines[1:])])
        return f"### {self.title}\n\n{body}\n" + (f"\n{self.note}\n" if self.note else "")


def number(value: float | None, digits: int = 2) -> str:
    """A number in a cell: scientific, a dash for None."""
    return "-" if value is None else f"{value:.{digits - 1}e}"


def report(
    name: str, tables: Sequence[Table], data: Any, quick: bool, packages: Sequence[str] = ()
) -> None:
    """Print tables; unless quick, write them and the data under ``results/``.

    ``packages`` are those whose versions belong to the measurement besides those of `machine`.
    """
    versions = {package: version(package) or "not installed" for package in packages}
    where = machine() | versions | {"load before": round(LOAD, 1)}
    line = ", ".join(f"{key} {value}" for key, value in where.items())
    command = f"python -m benchmarks {name}"
    text = f"## {name}\n\n`{command}` on: {line}\n\n" + "\n".join(t.markdown() for t in tables)
    print(text)
    if quick:
        return
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    write_json(RESULTS / f"{name}.json", {"command": command, "machine": where, "data": data})


def version(package: str) -> str | None:
    """The installed version of a package; None without it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def write_json(path: Path, content: Any) -> None:
    """Write JSON with a final newline."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
