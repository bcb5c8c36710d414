"""The file format ``flowsim/1`` in one place: names, attributes, limits.

================  ========================================================================
place             contents
================  ========================================================================
attributes        format, format_version, status, stop_reason, config (resolved TOML),
                  config_hash, seed, versions, hardware, backend, dtype, method, created,
                  convention, and the numbers of the scaling at this width
/observables      time (time,) = tau; step, loss, residual (time, sample), relative_change
                  (time, layer), norm (time, layer), dt, counters, ...
/series_NAME      one observable with a schedule of its own: time, NAME
/snapshots        time_snapshot; output_weights (time_snapshot, neuron), input_weights
                  (time_snapshot, input, neuron)
/kernel           time_kernel; eigenvalues (time_kernel, mode), distance
/data             x (sample, input), y (sample,); x_test, y_test
/final            weights in float64, residual, loss, time, relative_change (layer,),
                  sup_relative_change (layer,), counters; error estimates if asked for
================  ========================================================================

Weights are in normalised variables: unit-normal initial values. Every axis has a dimension scale.
"""

from __future__ import annotations

FORMAT = "flowsim/1"
FORMAT_VERSION = 1

CONVENTION = (
    "f(x) = (1/alpha) sum_k a_k sigma(w_k.x), R = 1/(2n) sum_i e_i^2, d theta/dt = -grad R; "
    "weights are normalised, a = beta1 a_bar, w = beta2 w_bar; "
    "time is tau = t/alpha = kappa t_bar; "
    "kappa = beta1 beta2/alpha = m^-gamma, kappa_prime = beta1/beta2 = m^-gamma_prime; "
    "relative_change is |theta(t)-theta(0)|/|theta(0)| of the first copy of the neurons"
)

STATUSES = ("running", "complete", "failed", "preempted")

LAYERS = ("input", "output", "all")
"""Groups of weights that relative changes are given for."""

PARTIAL_SUFFIX = ".part"
"""Of a file that is still being written."""
