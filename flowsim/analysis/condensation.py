"""How far neurons have gathered in a few directions, read from a run's weights.

A neuron's amplitude is A_k = |a_k| |w_k|, its direction u_k = w_k/|w_k|; of a layer in the middle
of a deep network the norms are those of its input and output weights (biases of later layers left
out). Neurons of zero norm have no direction and are left out.

Orientations are counted by caps. Every neuron has the cap of all directions within ``angle`` of its
own; the first orientation is the cap that holds the most amplitude, the next the one that holds the
most of what is left, and so on. The number of orientations is how many it takes to hold ``share``
of all the amplitude.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flowsim.analysis.collect import has_bias, is_deep
from flowsim.errors import ConfigError, FileFormatError

if TYPE_CHECKING:
    from flowsim.recording.reader import RunFile

Array = npt.NDArray[np.float64]

ANGLE, SHARE = 10.0, 0.95
"""Half-angle of a cap in degrees, and the share of the amplitude that counts as all."""

PINNED = 1e-3
"""Angle in radians between a neuron's kink and a sample, within which it sits there."""

_CANDIDATES = 512
_AT_ONCE = 2**26
"""Cosines between candidates and neurons that are held at once: of wide layers fewer candidates."""


@dataclass(frozen=True)
class Orientations:
    """Orientations of one layer, the one that holds the most amplitude first.

    Attributes
    ----------
    directions : (d, k) float64 array
        Unit vectors of the neurons in whose caps they are.
    shares : (k,) float64 array
        Of the amplitude in each; what is in two caps counts for the first.
    number : float
        How many hold the share that was asked for; infinity if all that were looked at do not.
    """

    directions: Array
    shares: Array
    number: float

    @property
    def effective_number(self) -> float:
        """1 / sum of squared shares, the amplitude outside all caps counting as spread out."""
        squares = float(np.sum(self.shares**2))
        return 1.0 / squares if squares > 0.0 else math.nan

    def leading(self, count: int) -> float:
        """Share of the amplitude in the ``count`` leading orientations."""
        return float(np.sum(self.shares[:count]))


def directions(inwards: npt.ArrayLike, outwards: npt.ArrayLike) -> tuple[Array, Array]:
    """Return directions (d, k) and amplitudes (k,) of the neurons that have them.

    Parameters
    ----------
    inwards : (d, m) array
        Input weights as columns.
    outwards : (m,) or (m, q) array
        Output weights.
    """
    w = np.asarray(inwards, np.float64)
    a = np.asarray(outwards, np.float64).reshape(w.shape[1], -1)
    lengths, levers = np.linalg.norm(w, axis=0), np.linalg.norm(a, axis=1)
    used = np.isfinite(lengths) & (lengths > 0.0)
    return w[:, used] / lengths[used], (lengths * levers)[used]


def find_orientations(
    units: Array,
    amplitudes: Array,
    *,
    angle: float = ANGLE,
    share: float = SHARE,
    lines: bool = False,
    most: int = 64,
) -> Orientations:
    """Count orientations by the rule at the head of this module.

    Parameters
    ----------
    units : (d, m) array
        Directions.
    amplitudes : (m,) array
    angle : float
        Half-angle of a cap in degrees, 0 to 90.
    share : float
        Of the amplitude, up to 1.
    lines : bool
        Count opposite directions as one, as for odd or even activations.
    most : int
        Orientations looked for at the most. Caps stand on the 512 neurons of the largest amplitude
        (fewer in layers of more than 131,072).

    Raises
    ------
    ConfigError
        ``angle`` or ``share`` out of range.
    """
    if not 0.0 < angle <= 90.0:
        raise ConfigError(f"angle = {angle}: degrees, above 0 and up to 90; try {ANGLE:g}")
    if not 0.0 < share <= 1.0:
        raise ConfigError(f"share = {share}: above 0 and up to 1; try {SHARE:g}")
    total = float(amplitudes.sum())
    if not total > 0.0:
        return Orientations(units[:, :0], np.zeros(0), math.inf)
    count = max(16, min(_CANDIDATES, _AT_ONCE // max(len(amplitudes), 1)))
    candidates = np.argsort(-amplitudes, kind="stable")[:count]
    cosines = units[:, candidates].T @ units
    inside = (np.abs(cosines) if lines else cosines) >= math.cos(math.radians(angle))
    left = amplitudes / total
    leaders: list[int] = []
    shares: list[float] = []
    while len(leaders) < most and sum(shares) < share - 1e-12:
        held = inside @ left
        best = int(np.argmax(held))
        if not held[best] > 0.0:
            break
        leaders.append(best)
        shares.append(float(held[best]))
        left = np.where(inside[best], 0.0, left)
    number = float(len(leaders)) if sum(shares) >= share - 1e-12 else math.inf
    return Orientations(units[:, candidates[leaders]], np.array(shares), number)


def sorted_cosines(units: Array) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return cosines between neurons, sorted by the matrix's leading eigenvector, and the order.

    Parameters
    ----------
    units : (d, m) array
        Directions.

    Returns
    -------
    matrix : (m, m) float64 array
    order : (m,) int64 array
        Which neuron each row belongs to.
    """
    # The eigenvector of u^T u from that of the small u u^T.
    _, vectors = np.linalg.eigh(units @ units.T)
    order = np.argsort(vectors[:, -1] @ units, kind="stable")
    arranged = units[:, order]
    return arranged.T @ arranged, order.astype(np.int64)


def pinned_share(inwards: npt.ArrayLike, x: npt.ArrayLike, tolerance: float = PINNED) -> float:
    """Share of the neurons whose kink w.x = 0 goes through a sample, within ``tolerance`` radians.

    Parameters
    ----------
    inwards : (d, m) array
    x : (n, d) array
        Inputs, bias coordinate included.
    tolerance : float
    """
    w, samples = np.asarray(inwards, np.float64), np.asarray(x, np.float64)
    sizes, lengths = np.linalg.norm(samples, axis=1), np.linalg.norm(w, axis=0)
    nearest = np.full(w.shape[1], np.inf)
    for sample in samples[sizes > 0.0] / sizes[sizes > 0.0, None]:
        np.minimum(nearest, np.abs(sample @ w), out=nearest)
    return float(np.mean(nearest <= tolerance * lengths)) if w.shape[1] else math.nan


@dataclass(frozen=True)
class Condensation:
    """One hidden layer at one time.

    Attributes
    ----------
    time : float
        tau.
    layer : int
        From 1.
    number, effective_number : float
        Of orientations, see `Orientations`.
    leading : tuple of float
        Shares of the amplitude in the 1, 2, ... leading orientations together.
    pinned : float
        Share of the neurons pinned to samples, of the first layer; NaN of the others.
    """

    time: float
    layer: int
    number: float
    effective_number: float
    leading: tuple[float, ...]
    pinned: float


def condensation(
    run: RunFile,
    *,
    angle: float = ANGLE,
    share: float = SHARE,
    lines: bool = False,
    leading: int = 4,
) -> list[Condensation]:
    """Measure every hidden layer at every snapshot and at the end.

    Parameters
    ----------
    run : RunFile
        An open run.
    angle, share, lines
        See `find_orientations`.
    leading : int
        How many of the leading orientations' shares are wanted.

    Raises
    ------
    ConfigError
        ``angle`` or ``share`` out of range.
    FileFormatError
        A run that holds no weights.
    """
    found = []
    x = run.data["x"]
    for time, layers in states(run):
        for number, (inwards, outwards) in enumerate(layers, start=1):
            one = find_orientations(
                *directions(inwards, outwards), angle=angle, share=share, lines=lines
            )
            shares = tuple(one.leading(k) for k in range(1, leading + 1))
            pinned = pinned_share(inwards, x) if number == 1 else math.nan
            found.append(
                Condensation(time, number, one.number, one.effective_number, shares, pinned)
            )
    return found


def states(run: RunFile) -> Iterator[tuple[float, list[tuple[Any, Any]]]]:
    """Yield tau and the hidden layers' input and output weights, snapshot by snapshot, and the end.

    Of networks with antisymmetric initial values the first copy.

    Raises
    ------
    FileFormatError
        A run that holds no weights.
    """
    names = _names(run)
    snapshots = run.snapshots
    # Row by row: all the snapshots of a wide network may not fit into memory.
    rows = snapshots.shape("time_snapshot")[0] if names[0] in snapshots else 0
    times: Any = snapshots["time_snapshot"] if rows else []
    for row, time in enumerate(times):
        yield float(time), _layers(run, [snapshots.row(name, row) for name in names])
    at_end = names[0] in run.final
    if at_end and not (rows and times[-1] == run.final["time"]):
        yield float(run.final["time"]), _layers(run, [run.final[name] for name in names])
    if not (rows or at_end):
        raise FileFormatError(
            f"{run.path}: holds no weights, neither snapshots nor an end; record snapshots"
        )


def _names(run: RunFile) -> list[str]:
    """Names of the arrays of weights from the input layer on."""
    if not is_deep(run):
        return ["input_weights", "output_weights"]
    hidden = int(run.attributes["hidden_layers"])
    return [
        "input_weights", *(f"hidden_weights_{k}" for k in range(2, hidden + 1)), "output_weights"
    ]  # fmt: skip


def _layers(run: RunFile, weights: list[Any]) -> list[tuple[Any, Any]]:
    if not is_deep(run):
        count = int(run.attributes["width"])
        return [(weights[0][:, :count], weights[1][:count])]
    return list(zip(weights[:-1], weights[1:], strict=True))


def one_input(run: RunFile) -> bool:
    """Whether directions are angles: one input and a bias."""
    return int(run.attributes["n_inputs"]) == 2 and has_bias(run)
