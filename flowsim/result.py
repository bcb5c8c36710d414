"""A finished run as users hold it: the arrays of its file, and predictions from its weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flowsim.errors import ConfigError
from flowsim.kernels.activations import ACTIVATIONS, Activation
from flowsim.networks.deep_outputs import deep_outputs
from flowsim.recording.hdf5 import file_image
from flowsim.recording.places import as_path, put
from flowsim.recording.reader import RunFile
from flowsim.scaling import Scaling


class Run(RunFile):
    """One run: `flowsim.recording.reader.RunFile` and what needs the network besides.

    Parameters
    ----------
    source : path or RunContents
        A file, or a run that was kept in memory.
    member : int, optional
        Which run of an ensemble.
    """

    @property
    def scaling(self) -> Scaling:
        """Width and exponents of a two-layer network.

        Raises
        ------
        ConfigError
            If it is a deep one.
        """
        self._check_two_layer("scaling", 'attributes["exponents"]')
        read = self.attributes
        return Scaling(int(read["width"]), read["gamma"], read["gamma_prime"], float(read["beta2"]))

    @property
    def deep(self) -> bool:
        """Whether the network has layers between the input and the output weights, by kind."""
        return str(self.attributes["network"]) == "deep"

    def _check_two_layer(self, what: str, instead: str) -> None:
        if self.deep:
            raise ConfigError(f"{what}: is for two-layer networks; use {instead}")

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the run to a file of its own, whole or not at all.

        Raises
        ------
        ConfigError
            If there is such a file and ``overwrite`` is not set, or ``path`` is none.
        StorageError
            If it cannot be written.
        """
        path = as_path(path)
        if path.exists() and not overwrite:
            raise ConfigError(f"path = {path}: exists already; pass overwrite=True")
        put(path, file_image(self.contents()))

    def weights(
        self, t: float | None = None, normalisation: str = "normalised"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Output weights (neurons,) and input weights (d, neurons) at tau = ``t``.

        Parameters
        ----------
        t : float, optional
            tau. Between two snapshots the weights are interpolated linearly; at a snapshot and
            at the end (the default) they are exact, up to the snapshots' dtype.
        normalisation : {"normalised", "original"}
            Unit-normal initial values, or with the standard deviations beta_1 and beta_2.

        Raises
        ------
        ConfigError
            If ``t`` is outside the run, or there are no snapshots to interpolate.
        """
        if normalisation not in ("normalised", "original"):
            raise ConfigError(
                f"normalisation = {normalisation!r}: unknown; use 'normalised' or 'original'"
            )
        self._check_two_layer("weights", "parameters")
        arrays = self.parameters(t)
        a, w = arrays["output_weights"], arrays["input_weights"]
        if normalisation == "original":
            scaling = self.scaling
            return scaling.beta1 * a, scaling.beta2 * w
        return a, w

    def parameters(self, t: float | None = None) -> dict[str, np.ndarray]:
        """All parameter arrays by name, normalised, at tau = ``t``.

        Parameters
        ----------
        t : float, optional
            See `weights`.

        Raises
        ------
        ConfigError
            See `weights`.
        """
        if t is not None and not isinstance(t, int | float | np.number):
            raise ConfigError(f"t = {t!r:.60}: must be a number, tau; leave it out for the end")
        names = [name for name in self.final if "_weights" in name or "_bias" in name]
        end = float(self.final["time"])
        if t is None or t == end:
            return {name: self.final[name] for name in names}
        if "time_snapshot" not in self.snapshots:
            raise ConfigError(
                f"t = {t:g}: the run kept no snapshots; record some, or leave t out for the end"
            )
        times = self.snapshots["time_snapshot"]
        if not times[0] <= t <= times[-1]:
            raise ConfigError(f"t = {t:g}: outside the run, which covers tau = 0 to {times[-1]:g}")
        after = int(np.searchsorted(times, t))
        before = max(after - 1, 0)
        span = times[after] - times[before]
        share = (t - times[before]) / span if span > 0.0 else 0.0

        def blend(name: str) -> np.ndarray:
            first = self.snapshots.row(name, before).astype(np.float64)
            last = self.snapshots.row(name, after).astype(np.float64)
            return last if share == 1.0 else (1.0 - share) * first + share * last

        return {name: blend(name) for name in names}

    def predict(
        self,
        x: np.ndarray,
        t: float | None = None,
        activation: Activation | None = None,
    ) -> np.ndarray:
        """The network's function f at inputs ``x``.

        Parameters
        ----------
        x : (k,) or (k, inputs) array
            Without the bias coordinate; it is added if the run's data has one. If the run's inputs
            were normalised, so must these be (`Dataset.normalisation`).
        t : float, optional
            tau; the end of the run by default. See `weights` for times between snapshots.
        activation : Activation, optional
            For a run with a script's own activation, which no file can hold.

        Returns
        -------
        (k,) float64 array, or (k, o) with several outputs

        Raises
        ------
        ConfigError
            If ``x`` does not fit, ``t`` is outside the run, or the activation is missing.
        """
        try:
            x = np.atleast_1d(np.asarray(x, np.float64))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"x: is no array of numbers ({error}); give one") from None
        x = x[:, None] if x.ndim == 1 else x
        if self.data.attributes.get("bias", False):
            x = np.hstack([x, np.ones((len(x), 1))])
        n_inputs = int(self.attributes["n_inputs"])
        if x.ndim != 2 or x.shape[1] != n_inputs:
            raise ConfigError(
                f"x: {x.shape[-1]} input coordinates, bias included; wanted {n_inputs}"
            )
        name = str(self.attributes["activation"])
        activation = activation or ACTIVATIONS.get(name)
        if activation is None:
            raise ConfigError(f"activation = {name!r}: a script's own; pass activation=")
        arrays = self.parameters(t)
        if self.deep:
            return deep_outputs(arrays, x, self.attributes, activation)
        a, w = arrays["output_weights"], arrays["input_weights"]
        scaling = self.scaling
        scale = 1.0 if activation.homogeneous else scaling.beta2
        # In slices, so that samples x neurons stays small.
        slices = np.array_split(np.arange(len(x)), max(1, x.shape[0] * a.size // 2**22))
        parts = [
            np.asarray(activation.value(scale * (x[rows] @ w)), np.float64) @ a for rows in slices
        ]
        return scaling.kappa / scale * np.concatenate(parts)
