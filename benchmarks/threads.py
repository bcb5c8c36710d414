"""What a second thread gains, pass by pass: ``python -m benchmarks threads``.

One thread and one a usable core take turns on the same network. Beside the kernels a plain copy
of a large array shows what the memory alone allows: where a copy gains nothing from another core,
neither can a pass that only waits for memory.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from flowsim.kernels.cpu.threads import usable_cores

from .common import RESULTS, Table, report
from .fields import Passes
from .timing import Call, Copy, ratio, take_turns

SHAPES = tuple(
    (m, n, d) for n, d in ((4, 2), (32, 3), (64, 10)) for m in (100_000, 1_000_000, 10_000_000)
)
LARGEST = 1_000_000_000
"""Multiply-adds of a pass: what is larger tells nothing new and takes seconds."""
COPIED = 256 << 20
"""Bytes of the array that is copied."""
DTYPES = ("float64", "float32")
PASSES = ("outputs", "rate", "advance", "copy")
ROUNDS, BUDGET = 9, 0.06


@dataclass
class Row:
    """Seconds with one thread and with all, and how much faster all of them are."""

    shape: tuple[int, int, int]
    dtype: str
    threads: int
    one: dict[str, float]
    all: dict[str, float]
    gain: dict[str, float]


def measure(shape: tuple[int, int, int], dtype: str, rounds: int) -> Row:
    """All passes with one thread and with one a core, in turns."""
    threads = usable_cores()
    calls: dict[str, Call] = {}
    shared = None
    for count in (1, threads):
        passes = Passes(shape, dtype, count)
        shared = passes.kernels.empty() if shared is None else shared
        calls[f"outputs {count}"] = passes.outputs
        calls[f"rate {count}"] = passes.rate_into(shared)
        calls[f"advance {count}"] = passes.euler
        calls[f"copy {count}"] = Copy(COPIED, count)
    times = take_turns(calls, rounds, BUDGET)
    one, all_ = ({name: times[f"{name} {count}"] for name in PASSES} for count in (1, threads))
    return Row(
        shape=shape,
        dtype=dtype,
        threads=threads,
        one={name: float(min(one[name])) for name in PASSES},
        all={name: float(min(all_[name])) for name in PASSES},
        gain={name: ratio(one[name], all_[name]) for name in PASSES},
    )


def main(quick: bool = False) -> None:
    """Measure, report, and draw the figure."""
    if usable_cores() < 2:
        print("threads: this machine has one usable core; nothing to measure")
        return
    shapes = [(m, n, d) for m, n, d in SHAPES if m * n * d <= LARGEST]
    chosen = [(100_000, 4, 2)] if quick else shapes
    rows = [measure(shape, dtype, 3 if quick else ROUNDS) for shape in chosen for dtype in DTYPES]
    table = Table(
        f"Gain from {usable_cores()} threads over one",
        ["m", "n", "d", "dtype", *(f"{name} ns" for name in PASSES[:-1]), "copy GB/s", *PASSES],
        note="ns: a neuron with one thread, the least of the rounds; GB/s: read and written by a "
        f"copy of {COPIED >> 20} MiB with one thread. Gains are medians of ratios within a round.",
    )
    for row in rows:
        ns = [f"{1e9 * row.one[name] / row.shape[0]:.2f}" for name in PASSES[:-1]]
        ns.append(f"{2e-9 * COPIED / row.one['copy']:.1f}")
        gains = [f"{row.gain[name]:.2f}" for name in PASSES]
        table.rows.append([*map(str, row.shape), row.dtype, *ns, *gains])
    report("threads", [table], [asdict(row) for row in rows], quick)
    if not quick:
        from .figures import draw_threads

        draw_threads(rows, RESULTS)
