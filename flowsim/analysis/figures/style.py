"""What all figures share: look, symbols, sources, saving to reproducible files."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from flowsim.analysis.collect import Source, find_runs, opened
from flowsim.errors import ConfigError, FlowsimError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from flowsim.analysis.classification import Point
    from flowsim.recording.reader import RunFile

P = ParamSpec("P")
R = TypeVar("R")
Row: TypeAlias = dict[str, Any]

# STIX ships with matplotlib: the same letters on every machine, close to those of a paper.
RC: Any = {
    "font.family": "STIXGeneral",
    "mathtext.fontset": "stix",
    "font.size": 10.0,
    "axes.labelsize": 11.0,
    "axes.labelpad": 2.0,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "axes.linewidth": 0.7,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "figure.dpi": 150.0,
    "savefig.dpi": 300.0,
    "pdf.fonttype": 42,
    "svg.hashsalt": "flowsim figure",
    "axes.unicode_minus": True,
}
THEORY = "black"
"""Of everything that is predicted, in all figures."""
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
"""Okabe and Ito's colours, told apart by the colour-blind, for what is measured."""
_HIDDEN = re.compile(r"hidden_(\d+)(_frobenius)?")
SYMBOLS = {"input": "w", "output": "a", "all": r"\theta"}
# The prime of STIX is already raised; as a superscript it would float above its letter.
GAMMA_PRIME = r"$\gamma\prime$"
KEY_SYMBOLS = {
    "scaling.gamma": r"$\gamma$",
    "scaling.gamma_prime": GAMMA_PRIME,
    "scaling.gamma_1": r"$\gamma_1$",
    "scaling.gamma_2": r"$\gamma_2$",
    "scaling.gamma_3": r"$\gamma_3$",
    "network.width": "$m$",
    "network.seed": "seed",
}
# Neither date nor version may enter a file: the same runs give the same bytes.
_METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "ModDate": None},
    ".svg": {"Date": None},
}


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Run a drawing function with the parameters of `RC`, leaving the user's own alone."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib

        with matplotlib.rc_context(RC):
            return function(*args, **kwargs)

    return wrapper


def new_figure(width: float = 3.5, height: float = 2.8) -> tuple[Figure, Axes]:
    """Return a figure (inches; 3.5 is one column of a paper) with one pair of axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def panels(count: int, width: float = 7.0, height: float = 2.5) -> tuple[Figure, list[Axes]]:
    """Return a figure (inches; 7 is the width of a page) with so many axes side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def time_axis(axes: Axes, times: npt.ArrayLike) -> None:
    """Lay out an axis of tau: logarithmic, with 0 at the left where there is a row of it."""
    positive = np.asarray(times, np.float64)
    positive = positive[positive > 0.0]
    if positive.size > 1 and positive.max() > 20.0 * positive.min():
        axes.set_xscale("symlog", linthresh=float(positive.min()), linscale=0.4)
        axes.set_xlim(0.0, float(positive.max()))
        # A decade too near to the linear part would run into its 0.
        first, last = np.ceil(np.log10(4.0 * positive.min())), np.floor(np.log10(positive.max()))
        axes.set_xticks([0.0, *10.0 ** np.arange(first, last + 1.0)])
        axes.xaxis.set_minor_locator(_no_ticks())
    axes.set_xlabel(r"$\tau$")


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()


def colours(count: int) -> list[tuple[float, float, float, float]]:
    """Return ``count`` colours of growing brightness, told apart by the colour-blind."""
    import matplotlib

    # The bright end of viridis is too pale for thin lines on white.
    palette = matplotlib.colormaps["viridis"]
    return [palette(0.86 * k / max(count - 1, 1)) for k in range(count)]


def check_layer(layer: str, points: Sequence[Point] = ()) -> str:
    """Return ``layer``, or raise ConfigError when it names no group of weights.

    Parameters
    ----------
    layer : str
    points : sequence of Point
        That are to have it; without points any name is good that some network might have.
    """
    known = list(dict.fromkeys(name for point in points for name in point.layers)) or [*SYMBOLS]
    missing = any(layer not in point.layers for point in points)
    if missing or not (layer in SYMBOLS or _HIDDEN.fullmatch(layer)):
        raise ConfigError(
            f"layer = {layer!r}: no such group of weights; choose from {', '.join(known)}"
        )
    return layer


def check_hidden_layer(layer: int, count: int) -> None:
    """Raise ConfigError unless ``layer`` is one of ``count`` hidden layers, counted from 1."""
    if layer not in range(1, count + 1):
        raise ConfigError(f"layer = {layer!r}: no such hidden layer; choose from 1 to {count}")


def layer_symbol(layer: str) -> str:
    """Symbol of a layer's weights, for formulas."""
    hidden = _HIDDEN.fullmatch(layer)
    if hidden is None:
        return SYMBOLS[layer]
    return f"W_{{{hidden[1]}{', F' if hidden[2] else ''}}}"


def number(value: float) -> str:
    """Return a number as a label shows it: up to four digits, powers of ten written out."""
    mantissa, _, exponent = f"{value:.4g}".partition("e")
    mantissa = mantissa.replace("-", "\N{MINUS SIGN}")
    if not exponent:
        return mantissa
    factor = {"1": "", "\N{MINUS SIGN}1": r"-"}.get(mantissa, rf"{mantissa} \times ")
    return rf"${factor}10^{{{int(exponent)}}}$"


def signed(value: float) -> str:
    """Return a slope with its sign and two digits; what rounds to 0 has no sign."""
    shown = f"{value:+.2f}"
    return "0.00" if float(shown) == 0.0 else shown.replace("-", "\N{MINUS SIGN}")


def key_symbol(key: str) -> str:
    """Return the symbol of a dotted configuration key, or its last part."""
    return KEY_SYMBOLS.get(key, key.rsplit(".", 1)[-1])


def key_label(key: str, value: Any) -> str:
    """Return "symbol = value" for a dotted configuration key."""
    shown = number(value) if isinstance(value, float) else str(value)
    return f"{key_symbol(key)} = {shown}"


@contextlib.contextmanager
def one_run(source: Source, member: int | None = None) -> Iterator[RunFile]:
    """Open the one run that a figure is about; an open run passes through.

    Parameters
    ----------
    source : see `flowsim.analysis.collect.find_runs`
    member : int, optional
        Position of the run in an ensemble that has several.
    """
    found = list(find_runs(source))
    with contextlib.ExitStack() as stack:
        if len(found) == 1:
            runs = stack.enter_context(opened(*found[0]))
        elif any(isinstance(item, (str, os.PathLike)) for _, item in found):
            raise ConfigError(
                f"path = {source!s:.80}: holds {len(found)} files and this figure shows one run; "
                "give one run file"
            )
        else:
            runs = [
                (name, item) for name, item in found if not isinstance(item, (str, os.PathLike))
            ]
        if member is None and len(runs) > 1:
            raise ConfigError(
                f"path = {source!s:.80}: holds {len(runs)} runs and this figure shows one; choose "
                f"it with member = 0 (--set member=0) up to {len(runs) - 1}"
            )
        position = 0 if member is None else member
        if isinstance(position, bool) or position not in range(len(runs)):
            raise ConfigError(f"member = {member!r}: no such run; choose from 0 to {len(runs) - 1}")
        yield runs[position][1]


def warn_skipped(skipped: Mapping[str, str]) -> None:
    """Warn, in one line, about files that a figure leaves out."""
    if skipped:
        name, reason = next(iter(skipped.items()))
        more = f" and {len(skipped) - 1} more" if len(skipped) > 1 else ""
        warnings.warn(f"left out of the figure: {name} ({reason}){more}", stacklevel=3)


def check_writable(path: Path) -> None:
    """Raise FlowsimError when ``path`` cannot be written, leaving no trace of the test."""
    if path.is_dir():
        raise FlowsimError(f"{path}: is a folder; give the name of a file in it")
    folder = path.parent
    if not folder.is_dir():
        raise FlowsimError(f"{path}: the folder {folder} does not exist; make it first")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise FlowsimError(f"{path}: cannot be written (no permission); choose another folder")


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format of its suffix, the same bytes every time."""
    import matplotlib

    suffix = path.suffix.lower()
    buffer = io.BytesIO()
    with matplotlib.rc_context(RC):
        figure.savefig(buffer, format=suffix[1:], metadata=_METADATA[suffix])
    _write(path, buffer.getvalue())


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write the plotted numbers: one column a key, floats in full, nothing for None."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    _write(path, text.getvalue().encode("utf-8"))


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise FlowsimError(
            f"{path}: cannot be written ({error.strerror or error}); choose another place"
        ) from error
