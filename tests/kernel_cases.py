"""Everything that kernels do, on one list of cases: for the tests of every backend."""

from __future__ import annotations

import numpy as np
from two_layer_fields import make_field

from flowsim.kernels import BACKENDS, two_layer_kernels
from flowsim.kernels.activations import ACTIVATIONS

HOST_BACKENDS = sorted(set(BACKENDS) - {"cuda"})
"""Backends whose states are arrays of NumPy."""

# Neurons, samples, inputs, activation, scale, passes.
OF_ACTIVATIONS = [(600, 3, 2, name, 0.7, "auto") for name in sorted(ACTIVATIONS)]
"""Of these only the products are looked at: the rest is the same code."""

CASES = [
    (1, 1, 1, "relu", 1.0, "auto"),
    (1000, 4, 2, "relu", 1.0, "auto"),
    (1001, 4, 2, "relu", 1.0, "auto"),
    (70000, 4, 2, "relu", 1.0, "auto"),
    (4096, 11, 3, "leaky_relu", 1.0, "auto"),
    (999, 20, 3, "linear", 1.0, "auto"),
    (5000, 33, 2, "relu", 1.0, "auto"),
    (2050, 64, 10, "relu", 1.0, "auto"),
    *OF_ACTIVATIONS,
    (514, 13, 5, "gelu", 1.3, "auto"),
    (300, 40, 12, "tanh", 0.7, "auto"),
    (1000, 7, 20, "silu", 0.7, "matrix"),
    (33000, 20, 30, "relu", 1.0, "matrix"),
    (2000, 64, 50, "x_tanh_x", 0.7, "matrix"),
    (129, 5, 3, "erf", 1.3, "matrix"),
]


def make_kernels(backend, case, dtype):
    """The kernels of a case on a backend."""
    neurons, n, d, activation, scale, passes = case
    field = make_field(n, d, activation, seed=n + d, scale=scale)
    return two_layer_kernels(backend, field, neurons, np.dtype(dtype), passes=passes)


class Operations:
    """All that a backend does with the states of a case, by name: what comes back to the host.

    States and slopes are drawn by a seed; what is written to them is among the results.
    """

    def __init__(self, kernels, case, seed=1):
        self.kernels, self.found = kernels, {}
        self.neurons, n, d, *_ = case
        generator = np.random.default_rng(seed)
        self.values = generator.normal(size=(4, 1 + d, self.neurons)).astype(kernels.dtype)
        self.rates = generator.normal(size=(5, 1 + d, self.neurons)).astype(kernels.dtype)
        self.residual = generator.normal(size=n)
        groups = (
            self.products, self.stages, self.ends, self.begun, self.retraced, self.low_storage,
            self.measures,
        )  # fmt: skip
        for group in groups[:1] if case in OF_ACTIVATIONS else groups:
            group()

    def states(self):
        return [self.kernels.array(values) for values in self.values]

    def slopes(self, turned=False):
        """A stack of slopes; turned, it lies backwards where the backend can read that."""
        if turned and self.kernels.turns:
            return self._stack(self.rates[::-1])[::-1]
        return self._stack(self.rates)

    def _stack(self, rates):
        stack = self.kernels.empty(len(rates))
        for slope, values in zip(stack, rates, strict=True):
            slope[...] = self.kernels.array(values)
        return stack

    def keep(self, name, *results):
        for place, result in enumerate(results):
            values = result if isinstance(result, np.ndarray) else self.kernels.host(result)
            self.found[f"{name} {place}"] = np.array(values, np.float64)

    def products(self):
        kernels, (theta, direction, *_), slopes = self.kernels, self.states(), self.slopes()
        self.keep("outputs", kernels.outputs(theta))
        kernels.rate(theta, self.residual, slopes[1])
        self.keep("rate", slopes[1])
        for mobilities in (True, False):
            kernels.vjp(theta, self.residual, slopes[2], mobilities)
            self.keep(f"vjp {mobilities}", slopes[2])
        self.keep("jvp", kernels.jvp(theta, direction))

    def stages(self):
        kernels, e = self.kernels, self.residual
        theta, out, base, _ = self.states()
        weights, here = np.array([0.3, -0.2, 0.5]), np.array([0.2, -0.1])
        for turned in (False, True):
            slopes = self.slopes(turned)
            f = kernels.combine(base, slopes, weights, 0.3, out)
            self.keep(f"combine {turned}", f, out)
            self.keep(
                f"combine, nowhere {turned}", kernels.combine(base, slopes, weights, 0.3, None)
            )
            f = kernels.combine(base, slopes, weights, 0.3, slopes[1])
            self.keep(f"combine in place {turned}", f, slopes)
            slopes = self.slopes(turned)
            f = kernels.advance(theta, e, base, slopes, weights, 0.3, out, slopes[2])
            self.keep(f"advance {turned}", f, out, slopes)
            f = kernels.advance(None, e, base, slopes, weights, 0.3, None, slopes[3], here)
            self.keep(f"advance from slopes {turned}", f, slopes)
            f = kernels.advance(theta, e, base, slopes, weights, 0.3, slopes[0])
            self.keep(f"advance in place {turned}", f, slopes)
        f = kernels.advance(theta, e, theta, kernels.empty(0), weights[:1], 0.3, out)
        self.keep("descent", f, out)
        f = kernels.advance(theta, e, theta, kernels.empty(0), weights[:1], 0.3, theta)
        self.keep("descent in place", f, theta)

    def ends(self):
        theta, *_ = self.states()
        for errors in (1, 2):
            weights = np.random.default_rng(errors).normal(size=(errors, len(self.rates)))
            slopes = self.slopes()
            f, squares = self.kernels.rate_and_errors(theta, self.residual, slopes, weights, 0.2)
            self.keep(f"errors {errors}", f, squares, slopes)

    def begun(self):
        """An error that the pass before has begun; what of it a backend does not know is left."""
        kernels, e = self.kernels, self.residual
        if not kernels.begins_errors:
            return
        theta, out, base, other = self.states()
        slopes, here = self.slopes(), np.array([0.2, -0.1])
        weights, others = np.array([0.3, -0.2, 0.5]), np.array([0.03, 0.01, -0.02])
        f = kernels.advance(
            None, e, base, slopes, weights, 0.3, out, slopes[3], here, others, other
        )
        self.keep("begun", f, out, slopes, other)
        f, squares = kernels.end_error(theta, e, slopes[4], -0.4, 0.3, other)
        self.keep("ended", f, squares, slopes)

    def retraced(self):
        """Slopes made again: one alone, as many as there may be, and the errors after them."""
        kernels, base, out = self.kernels, *self.states()[:2]
        most = min(kernels.most_retraced, 7)
        generator = np.random.default_rng(7)
        residuals, rows = generator.normal(size=(7, len(self.residual))), np.tril(np.ones((7, 7)))
        rows *= generator.normal(size=(7, 7))
        for stages in (1, 3, most)[: 3 * (most > 0)]:
            for where in (None, out):
                f = kernels.retrace(base, residuals[:stages], rows[:stages, :stages], 0.1, where)
                self.keep(f"retraced {stages} {where is out}", f, out)
            for errors in (1, 2)[: 2 * (stages > 1)]:
                weights = generator.normal(size=(errors, stages))
                known = rows[: stages - 1, : stages - 1]
                f, squares = kernels.retrace_errors(base, residuals[:stages], known, weights, 0.1)
                self.keep(f"retraced errors {errors} {stages}", f, squares)

    def low_storage(self):
        kernels, e = self.kernels, self.residual
        theta, memory, base, error = self.states()
        for fresh, factors in (
            (True, [0.3, 0.2, 0.7, 0.1, 0.4]),
            (False, [-0.4, 1.1, 0.6, -0.2, 1.0]),
        ):
            f = kernels.advance_registers(theta, e, memory, base, error, np.array(factors), fresh)
            self.keep(f"registers {fresh}", f, theta, memory, error)
        theta, previous, base, out = self.states()
        first, factors = self.slopes()[0], np.array([1.9, -0.8, 0.1, -0.2])
        for where in (out, previous):
            f = kernels.advance_recurrence(theta, e, previous, base, first, factors, where)
            self.keep(f"recurrence {where is out}", f, where)

    def measures(self):
        kernels, (theta, other, *_) = self.kernels, self.states()
        for count in sorted({1, self.neurons // 2 or 1, self.neurons}):
            self.keep(f"norms of {count}", kernels.squared_norms(theta, None, count))
            self.keep(f"distances of {count}", kernels.squared_norms(theta, other, count))
        weights = np.array([0.3, -0.2, 0.5])
        self.keep("combination", kernels.squared_combination(self.slopes(turned=True), weights))
        self.keep("grams", *kernels.grams(theta))
        self.keep("drift", np.array(kernels.invariant_drift(theta, other)))
        self.keep("no drift", np.array(kernels.invariant_drift(theta, theta)))
        if kernels.dtype == np.float64:  # else a neuron may be just this side of a kink
            self.keep("activity", np.array(kernels.activity(theta)))


def compare(backend, case, dtype, tolerance):
    """All results of a backend beside those of the reference, to a tolerance of the largest."""
    kernels, oracle = make_kernels(backend, case, dtype), make_kernels("reference", case, dtype)
    found = Operations(kernels, case).found
    oracle.begins_errors, oracle.most_retraced = kernels.begins_errors, kernels.most_retraced
    expected = Operations(oracle, case).found
    assert found.keys() == expected.keys()
    wrong = {}
    for name, values in expected.items():
        size = max(float(np.max(np.abs(values))), 1e-300)
        off = float(np.max(np.abs(found[name] - values))) / size
        if not off <= tolerance:
            wrong[name] = off
    assert not wrong
