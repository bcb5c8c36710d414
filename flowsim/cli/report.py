"""What the commands print: summaries as plain lines, tables through rich."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flowsim.errors import FlowsimError
from flowsim.recording.places import RunPlaces
from flowsim.recording.reader import RunFile

if TYPE_CHECKING:
    from flowsim.analysis import Classification, LayerVerdict
    from flowsim.recording.reader import Ensemble

_WIDE = 200
"""Columns where there is no terminal: a file or a pipe does not wrap."""

_COLOURS = {"linear": "cyan", "critical": "yellow", "condensed": "magenta"}


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False)


def _number(value: Any) -> str:
    """Return four digits; an em dash for what is not known."""
    return "—" if value is None or not np.isfinite(value) else f"{float(value):.4g}"


def _last(run: RunFile, name: str) -> float | None:
    """Return the last value of an observable, if it was recorded."""
    if name not in run.observables or len(run.observables[name]) == 0:
        return None
    return float(run.observables[name][-1])


def _by_layer(run: RunFile, name: str) -> str:
    if name not in run.final:
        return "—"
    values = zip(run.layers, run.final[name], strict=True)
    return ", ".join(f"{layer} {_number(value)}" for layer, value in values)


def run_summary(run: RunFile, output: Path) -> str:
    """Return three lines: how a run ended, where it got, and what came out."""
    lines = [
        f"{output}: {run.status}, {run.stop_reason}",
        "loss {} at time {} after {} steps ({} rejected), {} s".format(
            *(_number(value) for value in (_final(run, "loss"), _final(run, "time"))),
            *(_count(run, name) for name in ("n_steps", "n_rejected")),
            _number(_last(run, "wall_seconds")),
        ),
        f"relative change: {_by_layer(run, 'relative_change')}",
    ]
    return "\n".join([*lines, *_error_estimate(run)])


def _final(run: RunFile, name: str) -> float | None:
    return float(run.final[name]) if name in run.final else _last(run, name)


def _count(run: RunFile, name: str) -> str:
    value = _final(run, name)
    return "—" if value is None else str(int(value))


def _error_estimate(run: RunFile) -> Iterator[str]:
    """Yield what --estimate-error has found, if it was asked for."""
    if "error_relative_change" in run.final:
        yield (
            f"estimated error: relative change {_by_layer(run, 'error_relative_change')}; "
            f"f {_number(_final(run, 'error_outputs'))}"
        )


def print_classification(result: Classification) -> None:
    """Print one line for each layer of each point, then the zeros of S_w, then what to know."""
    other = sorted({key for point in result.points for key in point.other})
    names = [*dict.fromkeys(point.axes for point in result.points)]
    headings = [" or ".join(_shown_axis(one[axis]) for one in names) for axis in (0, 1)]
    headings += [*other, "widths", "seeds"]
    headings += ["layer", "S", "interval", "regime", "confidence", "S predicted", "predicted"]
    table = Table(*headings)
    for point in result.points:
        where = [_number(point.gamma), _number(point.gamma_prime)]
        where += [str(point.other.get(key, "—")) for key in other]
        where += [_widths(point.widths), str(point.seeds)]
        for row, (layer, verdict) in enumerate(point.layers.items()):
            first = where if row == 0 else [""] * len(where)
            table.add_row(*first, layer, *_verdict(verdict))
        table.add_section()
    console = _console()
    console.print(table)
    for zero in result.zero_line:
        at = zero.to_dict()
        if zero.band is not None:
            at["band"] = "{} .. {}".format(*map(_number, zero.band))
        console.print(_mapping_line("S of the input weights is zero at", at))
    for note in _notes(result):
        console.print(note, markup=False)


def _shown_axis(name: str) -> str:
    return "gamma'" if name == "gamma_prime" else name


def _widths(widths: Iterable[int]) -> str:
    return ", ".join(str(width) for width in widths)


def _verdict(verdict: LayerVerdict) -> list[str]:
    interval = "—" if verdict.ci is None else "{} .. {}".format(*map(_number, verdict.ci))
    colour = _COLOURS.get(verdict.regime, "dim")
    return [
        _number(verdict.slope),
        interval,
        f"[{colour}]{verdict.regime}[/{colour}]",
        _number(verdict.confidence),
        _number(verdict.predicted_slope),
        verdict.predicted_regime,
    ]


def _mapping_line(title: str, values: Mapping[str, Any]) -> str:
    shown = (
        f"{key} = {_number(value) if isinstance(value, float) else value}"
        for key, value in values.items()
        if value is not None
    )
    return f"{title} {', '.join(shown)}"


def _notes(result: Classification) -> Iterator[str]:
    """Yield the reasons behind undetermined layers, remarks on points, and skipped files."""
    for point in result.points:
        first, second = map(_shown_axis, point.axes)
        here = f"{first} = {_number(point.gamma)}, {second} = {_number(point.gamma_prime)}"
        for layer, verdict in point.layers.items():
            if verdict.regime == "undetermined":
                yield f"undetermined: {here}, {layer}: {verdict.reason}"
        if point.note:
            yield f"note: {here}: {point.note}"
    for name, reason in result.skipped.items():
        yield f"skipped: {name}: {reason}"


def info(run: RunFile) -> tuple[str, bool]:
    """Return what a run file holds, a line a subject, and whether all of it can be read."""
    problems = run.verify()
    rows = [*_info_rows(run), *_integrity(problems, run.status == "running")]
    return "\n".join(f"{subject:<20}{text}" for subject, text in rows), not problems


def _integrity(problems: list[str], growing: bool = False) -> Iterator[tuple[str, str]]:
    if not problems:
        sums = "checksums of what grows come at the end" if growing else "checksums match"
        yield "integrity", f"every array read, {sums}"
    for problem in problems:
        yield "DAMAGED", problem


def ensemble_info(runs: Ensemble[Any]) -> tuple[str, bool]:
    """Return what an ensemble file holds, a line a run, and whether all of it can be read."""
    lines = [f"{'file':<20}{runs.path} ({runs.attributes.get('format')}, ensemble of {len(runs)})"]
    problems = []
    for member, run in enumerate(runs):
        problems += run.verify()
        change = _by_layer(run, "relative_change")
        lines.append(
            f"{f'run {member}':<20}seed {run.seed}, {run.state}, {run.stop_reason.split(';')[0]}; "
            f"relative change: {change}"
        )
    lines.append(f"{'':<20}--member K shows one of them in full")
    lines += [f"{subject:<20}{text}" for subject, text in _integrity(problems)]
    return "\n".join(lines), not problems


def _info_rows(run: RunFile) -> Iterator[tuple[str, str]]:
    attributes = run.attributes

    def shown(*names: str) -> str:
        pairs = ((name, attributes.get(name)) for name in names)
        return ", ".join(
            f"{name} = {_number(value) if isinstance(value, float) else value}"
            for name, value in pairs
            if value is not None
        )

    yield "file", f"{run.path} ({attributes.get('format')}, created {attributes.get('created')})"
    yield "state", _state(run)
    if run.stop_reason:
        yield "stop reason", str(run.stop_reason)
    yield (
        "network",
        f"{attributes.get('network')}, "
        + shown(
            "width", "activation", "antisymmetric", "seed", "n_samples", "n_inputs", "n_outputs"
        ),
    )
    about = run.data.attributes
    of_data = ("kind", "classes", "target", "positive_class", "normalisation")
    if said := [f"{name} = {about[name]}" for name in of_data if name in about]:
        yield "data", ", ".join(said)
    if "layers" in attributes:
        yield "", shown("hidden_layers", "widths", "biases")
        yield "scaling", shown("gamma_1", "gamma_2", "gamma_3", "kappa", "alpha")
        yield "", shown("multipliers", "mobilities")
        if "first_step" in attributes:
            yield "first step", str(attributes["first_step"])
    else:
        yield "scaling", shown("gamma", "gamma_prime", "kappa", "kappa_prime")
        yield "", shown("alpha", "beta1", "beta2")
    yield "integration", shown("method", "backend", "dtype", "loss")
    if "steps_of_method" in run.observables:
        counts = run.observables["steps_of_method"][-1]
        shares = zip(str(attributes["methods"]).split(), counts / max(sum(counts), 1), strict=True)
        yield "", ", ".join(f"{name} {share:.0%}" for name, share in shares) + " of the steps"
    yield "loss", f"{_number(_final(run, 'loss'))} at time {_number(_final(run, 'time'))}"
    for name in ("accuracy", "test_accuracy"):
        if name in run.observables:
            yield name.replace("_", " "), _number(_last(run, name))
    yield "relative change", _by_layer(run, "relative_change")
    if "operator_change" in run.final:
        yield "in operator norm", _by_layer(run, "operator_change")
    yield "its largest value", _by_layer(run, "sup_relative_change")
    for line in _error_estimate(run):
        yield "", line
    names = {"n_steps": "steps", "n_rejected": "rejected", "n_rhs": "right-hand sides"}
    names |= {"n_passes": "passes"}
    counts = [f"{label} {_count(run, name)}" for name, label in names.items()]
    yield "counters", ", ".join([*counts, f"{_number(_last(run, 'wall_seconds'))} s"])
    rows = f"{_length(run.observables)} of observables, {_length(run.snapshots)} snapshots"
    yield "rows", f"{rows}, {run.n_bytes:,} bytes"
    yield from _beside(run)
    yield "versions", _versions(attributes.get("versions"))


def _state(run: RunFile) -> str:
    if run.state == "running":
        return f"running, written by {run.writer}"
    if run.state == "killed":
        return "killed; `flowsim run` continues it, `flowsim repair` makes an ordinary file of it"
    return str(run.status)


def _beside(run: RunFile) -> Iterator[tuple[str, str]]:
    """What goes on from a run that stays in its place until then."""
    part = RunPlaces.of(run.path).part
    if not part.is_file() or part == Path(run.path):
        return
    try:
        with RunFile(part) as more:
            kind, state = "another run", more.state
            if more.attributes.get("fingerprint") == run.attributes.get("fingerprint"):
                kind = "this run, asked for more"
            rows = f"{_length(more.observables)} rows"
        yield "beside it", f"{part}: {kind}, {state}, {rows}; the command that began it continues"
    except FlowsimError as error:
        yield "beside it", str(error)


def _length(group: Mapping[str, np.ndarray]) -> int:
    times = [len(group[name]) for name in group if name.startswith("time")]
    return max(times, default=0)


def _versions(versions: Any) -> str:
    try:
        table = json.loads(versions) if isinstance(versions, str) else versions
    except (ValueError, RecursionError):
        table = None
    if not isinstance(table, Mapping):
        return "—"
    return ", ".join(f"{name} {version}" for name, version in table.items())


def print_diagnosis(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Print what `flowsim.cli.diagnosis.diagnose` has found, a line a subject."""
    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=18, no_wrap=True)
    table.add_column(overflow="fold")
    for subject, text in _diagnosis_rows(found):
        table.add_row(escape(subject), text)
    _console().print(table)


def _diagnosis_rows(found: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for part, rows in _DIAGNOSES.items():
        content = found[part]
        if set(content) == {"error"}:
            yield part, f"[red]not known[/red]: {escape(content['error'])}"
        else:
            yield from rows(content)


def _rows_of_versions(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    first = ("flowsim", "python", "system")
    yield "flowsim", f"{content['flowsim']}, Python {content['python']}, {content['system']}"
    rest = (f"{name} {version or '—'}" for name, version in content.items() if name not in first)
    yield "versions", escape(", ".join(rest))


def _rows_of_backends(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, state in content.items():
        verdict = "[green]available[/green]" if state["available"] else "[yellow]no[/yellow]"
        yield f"backend {name}", ": ".join(filter(None, [verdict, escape(state["reason"])]))


def _rows_of_processor(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "processor", escape(f"{content['model']} (LLVM: {content['llvm_name'] or '—'})")
    yield (
        "cores",
        f"{content['usable_cores']} usable of {content['cores']}; "
        f"{content['default_threads']} threads by default",
    )
    yield "vectors", ", ".join(content["vector"]) or "none known: kernels may be slow"
    caches = (f"L{one['level']} {_size(one['bytes'])}" for one in content["caches"])
    yield "caches", ", ".join(caches) or "—"


def _rows_of_memory(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    limit = "" if content["limit"] is None else f", limited to {_size(content['limit'])}"
    yield "memory", f"{_size(content['total'])}, {_size(content['available'])} available{limit}"


def _rows_of_blas(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    libraries = dict.fromkeys(
        f"{one['library']} {one['version'] or '—'}, kernels {one['kernels'] or '—'}, "
        f"{one['threads']} threads"
        for one in content["libraries"]
    )
    yield "BLAS", escape("; ".join(libraries)) or "none found"


def _rows_of_compiled(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if content["folder"] is None:
        yield "compiled kernels", "—"
        return
    there = f"{content['functions']} functions" if content["functions"] else "none yet"
    yield "compiled kernels", escape(f"{there}, in {content['folder']}")
    if not content["writable"]:
        remedy = "set NUMBA_CACHE_DIR to a folder that can, or every process compiles anew"
        yield "", f"[red]cannot be written[/red]: {remedy}"


def _rows_of_gpu(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    listed = (
        f"{one['name']}, {one['memory']}, driver {one['driver']}" for one in content["listed"]
    )
    yield "GPU", escape("; ".join(listed)) or "none found"
    if "version" in content["cupy"]:
        devices = (
            f"{one['name']} ({_size(one['memory'])}, compute capability "
            f"{one['compute_capability']})"
            for one in content["cupy"]["devices"]
        )
        yield "CuPy", escape(f"{content['cupy']['version']}: {', '.join(devices) or 'no device'}")


def _rows_of_environment(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if content:
        yield "environment", escape(", ".join(f"{name}={value}" for name, value in content.items()))


def _size(n_bytes: int | None) -> str:
    """Return a size with three digits and a binary unit."""
    if n_bytes is None:
        return "—"
    size, units = float(n_bytes), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.3g} {units[0]}"


_DIAGNOSES: dict[str, Callable[[Mapping[str, Any]], Iterator[tuple[str, str]]]] = {
    "versions": _rows_of_versions,
    "backends": _rows_of_backends,
    "processor": _rows_of_processor,
    "memory": _rows_of_memory,
    "blas": _rows_of_blas,
    "compiled": _rows_of_compiled,
    "gpu": _rows_of_gpu,
    "environment": _rows_of_environment,
}
