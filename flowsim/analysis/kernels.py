"""The tangent kernel along a run, and what it says of the loss, read from the run's file.

For the square loss dR/dtau = -e.K e/n^2, so that the rate at which log R falls lies between
2 lambda_min(K)/n and 2 lambda_max(K)/n at any moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flowsim.errors import FileFormatError

if TYPE_CHECKING:
    from flowsim.recording.reader import RunFile

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class KernelHistory:
    """K along a run.

    Attributes
    ----------
    time : (rows,) float64 array
        tau.
    rates : (rows, modes) float64 array
        Eigenvalues of K/n, ascending, in 1/tau.
    distance : (rows,) float64 array
        |K - K(0)| / |K(0)|.
    alignment : (rows, layers) float64 array or None
        Cosine of each layer's K, and last of K, with y y^T; None if it was not recorded.
    alignment_time : (rows,) float64 array or None
        tau of these.
    """

    time: Array
    rates: Array
    distance: Array
    alignment: Array | None = None
    alignment_time: Array | None = None


@dataclass(frozen=True)
class LossDecay:
    """How fast R falls, beside what K allows.

    Attributes
    ----------
    time : (rows,) float64 array
        tau, the middle between two rows.
    rate : (rows,) float64 array
        -d log R/dtau between them.
    least, most : (rows,) float64 arrays
        2 lambda_min/n and 2 lambda_max/n there, linear between the moments at which K was kept.
    """

    time: Array
    rate: Array
    least: Array
    most: Array


def kernel_history(run: RunFile) -> KernelHistory:
    """Read K's history.

    Parameters
    ----------
    run : RunFile
        An open run.

    Raises
    ------
    FileFormatError
        If it recorded no kernel.
    """
    if "eigenvalues" not in run.kernel:
        raise FileFormatError(
            f"{run.path}: has no tangent kernel; record it with record.kernel.schedule"
        )
    n = int(run.attributes["n_samples"])
    alignment = time = None
    for group in (run.observables, run.group("series_kernel_alignment")):
        if "kernel_alignment" in group:
            alignment, time = group["kernel_alignment"], group["time"]
    return KernelHistory(
        run.kernel["time_kernel"],
        run.kernel["eigenvalues"] / n,
        run.kernel["distance"],
        alignment,
        time,
    )


def loss_decay(run: RunFile) -> LossDecay:
    """Compare the decay of R with the spectrum of K.

    Parameters
    ----------
    run : RunFile
        An open run with the square loss.

    Raises
    ------
    FileFormatError
        If it recorded no kernel, or its loss is another one.
    """
    history = kernel_history(run)
    if "loss" in run.attributes:
        raise FileFormatError(
            f"{run.path}: trained with the loss {run.attributes['loss']}; the rates of K are those "
            "of the square loss"
        )
    time, loss = run.observables["time"], run.observables["loss"]
    # Rows of one moment, and R at rounding, have no rate.
    used = np.append(np.diff(time) > 0.0, True) & (loss > 0.0)
    time, loss = time[used], loss[used]
    middle = 0.5 * (time[1:] + time[:-1])
    rate = -np.diff(np.log(loss)) / np.diff(time)
    least, most = (
        2.0 * np.interp(middle, history.time, history.rates[:, mode]) for mode in (0, -1)
    )
    return LossDecay(middle, rate, least, most)
