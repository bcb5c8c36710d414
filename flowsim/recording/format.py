"""The file format ``flowsim/1`` in one place: names, attributes, limits.

================  ========================================================================
place             contents
================  ========================================================================
attributes        format, format_version, status, stop_reason, config (resolved TOML),
                  config_hash, fingerprint, seed, versions, hardware, backend, dtype, method,
                  created, convention, and the numbers of the scaling at this width
/observables      time (time,) = tau; step, loss, residual (time, sample), relative_change
                  (time, layer), norm (time, layer), dt, counters, ...
/series_NAME      one observable with a schedule of its own: time, NAME
/snapshots        time_snapshot; output_weights (time_snapshot, neuron), input_weights
                  (time_snapshot, input, neuron)
/kernel           time_kernel; eigenvalues (time_kernel, mode), distance
/data             x (sample, input), y (sample,); x_test, y_test
/final            weights in float64, residual, loss, time, relative_change (layer,),
                  sup_relative_change (layer,), counters; error estimates if asked for. NaN as
                  long as the run has not come to an end: it counts once its time is a number
================  ========================================================================

Weights are in normalised variables: unit-normal initial values. Every axis has a dimension scale,
every array ``units`` and ``long_name``. Rows of a group that lie beyond its times do not count.
Arrays have a ``checksum`` (see `flowsim.recording.hdf5`) once the run has ended.

An ensemble has attribute ``layout`` = "ensemble" and a leading axis ``run`` in every array but
those of /data; what differs between its runs and is an attribute of a single run is an array
(run,) of that name at the root. ``n_rows`` (run,) of each group tells how many rows of a run
count; the others are NaN, or -1 in arrays of integers.

Versions: 1 had no checksums and no ensembles; 2 is the present one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FORMAT = "flowsim/1"
FORMAT_VERSION = 2

CONVENTION = (
    "f(x) = (1/alpha) sum_k a_k sigma(w_k.x), R = 1/(2n) sum_i e_i^2, d theta/dt = -grad R; "
    "weights are normalised, a = beta1 a_bar, w = beta2 w_bar; "
    "time is tau = t/alpha = kappa t_bar; "
    "kappa = beta1 beta2/alpha = m^-gamma, kappa_prime = beta1/beta2 = m^-gamma_prime; "
    "relative_change is |theta(t)-theta(0)|/|theta(0)| of the first copy of the neurons"
)

DEEP_CONVENTION = (
    "A_0 = x, A_l = sigma(M_l A_(l-1) W_l + N_l b_l), f = M_(L+1) A_L W_(L+1) + N_(L+1) b_(L+1), "
    "R = 1/(2n) sum_i e_i^2, d theta_l/dtau = -mobility_l dR/dtheta_l; weights are normalised, of "
    "unit variance at tau = 0, and multipliers and mobilities those of normalised weights; t = "
    "alpha tau; with s_l the standard deviation of the original weights of layer l and learning "
    "rates 1 in all layers, three layers have s_1 s_2 s_3/alpha = m^-gamma_3, s_3/s_2 = "
    "m^-gamma_1, s_3/s_1 = m^-gamma_2; relative_change is |theta(t)-theta(0)|/|theta(0)| of the "
    "first copy, Frobenius norms, operator_change the same in operator norms"
)

STATUSES = ("running", "complete", "failed", "preempted")

LAYERS = ("input", "output", "all")
"""Groups of weights that relative changes are given for, in a two-layer network."""


def layers_of(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Groups of weights that a file gives relative changes for.

    Parameters
    ----------
    attributes : mapping
        Of the file; ``layers`` names them, separated by blanks, where they are not `LAYERS`.
    """
    named = attributes.get("layers")
    return LAYERS if named is None else tuple(str(named).split())


ESTIMATES = ("error_relative_change", "error_outputs")
"""Arrays of /final that a run has if it was asked for an estimate of its error."""

PARTIAL_SUFFIX = ".part"
"""Of a file that is still being written."""
