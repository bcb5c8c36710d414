"""The CUDA backend on a GPU: every kernel and stepper, results to the bit, files.

``python -m pytest -m gpu`` runs what is here; without a GPU it is skipped. For the memory checker
``compute-sanitizer python -m pytest -m gpu -n0 -k "quick"`` takes the small ones.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from kernel_cases import CASES, Operations, compare, make_kernels
from two_layer_fields import make_field

import flowsim as fs
from flowsim.errors import ConfigError, FlowsimError
from flowsim.kernels import two_layer_kernels
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.networks.two_layer import TwoLayerFlow, TwoLayerNetwork
from flowsim.scaling import Scaling
from flowsim.steppers import METHOD_NAMES
from flowsim.steppers.base import Point
from flowsim.steppers.methods import METHODS, MethodOptions

pytestmark = pytest.mark.gpu

QUICK = [(1000, 4, 2, "relu", 1.0, "auto"), (600, 40, 5, "tanh", 0.7, "auto"),
         (300, 6, 20, "silu", 0.7, "matrix")]  # fmt: skip
POINTS = {
    "kind": "points",
    "x": [[-0.5], [-1 / 6], [1 / 6], [0.5]],
    "y": [0.25, 1 / 36, 1 / 36, 0.25],
}


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_all_operations_agree_with_the_reference(case, dtype, tolerance):
    """The same cases as the CPU's, in ``test_kernels.py``."""
    compare("cuda", case, dtype, tolerance)


@pytest.mark.parametrize("case", QUICK, ids=str)
def test_quick_operations_give_the_same_bits_again(case):
    first, second = (Operations(make_kernels("cuda", case, "float64"), case) for _ in range(2))
    for name, values in first.found.items():
        assert np.array_equal(values, second.found[name]), name


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_quick_products_that_are_kept_are_those_of_the_state(dtype):
    """After its outputs a state's rate takes one product less, and has the same bits."""
    case = (5000, 6, 20, "relu", 1.0, "matrix")
    keeping, other = make_kernels("cuda", case, dtype), make_kernels("cuda", case, dtype)
    values = np.random.default_rng(3).normal(size=(2, 21, 5000)).astype(dtype)
    e, weights = np.linspace(-1.0, 1.0, 6), np.array([1.0])
    theta, slope, base = keeping.array(values[0]), keeping.empty(), keeping.array(values[1])
    keeping.outputs(theta)

    def agree():
        keeping.rate(theta, e, slope)
        found = other.empty()
        other.rate(other.array(keeping.host(theta)), e, found)
        assert np.array_equal(keeping.host(slope), other.host(found))

    agree()
    keeping.advance(theta, e, theta, keeping.empty(0), weights, 0.1, theta)
    agree()
    keeping.combine(base, slope[None], weights, 0.1, theta)
    agree()
    keeping.vjp(base, e, theta)  # a pass that makes no outputs of what it writes
    agree()


@pytest.mark.parametrize("passes", ["auto", "matrix"])
def test_relu_has_no_slope_at_the_kink(passes):
    field = make_field(3, 2, seed=5)
    kernels = two_layer_kernels("cuda", field, 1, np.dtype("float64"), passes=passes)
    theta, slope = kernels.array(np.array([[1.0], [0.0], [0.0]])), kernels.empty(1)[0]
    kernels.rate(theta, np.ones(3), slope)
    assert not np.any(kernels.host(slope))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("passes", ["auto", "matrix"])
@pytest.mark.parametrize("frozen", ["output_mobility", "input_mobility"])
def test_a_frozen_layer_stays_where_it_is(frozen, passes, dtype):
    field = replace(make_field(4, 2, "tanh", seed=6), **{frozen: 0.0})
    kernels = two_layer_kernels("cuda", field, 300, np.dtype(dtype), passes=passes)
    values = np.random.default_rng(0).normal(size=(3, 300)).astype(dtype)
    theta, base, e = kernels.array(values), kernels.array(values), np.ones(4)
    registers = kernels.empty(2)
    registers[...] = 0.0
    for _ in range(3):
        factors = np.array([0.3, 0.7, 0.7, 0.1, 0.4])
        kernels.advance_registers(theta, e, registers[0], base, registers[1], factors)
        factors = np.array([1.9, -0.7, 0.1, -0.2])
        kernels.advance_recurrence(theta, e, base, base, registers[1], factors, theta)
    rows = slice(0, 1) if frozen == "output_mobility" else slice(1, None)
    assert np.array_equal(kernels.host(theta)[rows], values[rows])
    assert not np.array_equal(kernels.host(theta), values)


def simulate(width=400, backend="cuda", output=None, activation="tanh", data=POINTS, **integrate):
    return fs.simulate(
        network={"width": width, "activation": activation},
        scaling={"gamma": 1.0, "gamma_prime": 0.0},
        data=data,
        integrate={"backend": backend, "stop_loss": 1e-4, "t_max": 200.0, **integrate},
        output=output,
    )


# Steps near a kink depend on the last bit: those with ReLU are compared by what they come to. So
# does whether gradient descent begins anew: where R stands still it rises by a rounding, or not.
OPTIONS = {
    "gradient-descent": {"step": 0.05, "t_max": 5.0, "restart": False},
    "rkc2": {"rtol": 1e-4},
    "switching": {"rtol": 1e-4},
}


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_runs_agree_with_those_of_the_cpu(method):
    options = {"method": method, **OPTIONS.get(method, {})}
    cpu, cuda = simulate(backend="cpu", **options), simulate(**options)
    assert cuda.status == cpu.status == "complete"
    assert cuda.attributes["backend"] == "cuda"
    # Rosenbrock methods have another Jacobian there, and other steps; all have their tolerance.
    close = 1e-6 if "ros" not in cpu.attributes["method"] and method != "switching" else 3e-3
    for name in ("input", "output", "all"):
        assert cuda.relative_change[name] == pytest.approx(cpu.relative_change[name], rel=close)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("method", ["auto", "euler", "rdpk35", "tsit54"])
def test_relu_runs_agree_with_those_of_the_cpu(method, dtype):
    options = {"method": method, "activation": "relu", "dtype": dtype}
    cpu, cuda = simulate(backend="cpu", **options), simulate(**options)
    assert cuda.status == cpu.status
    assert cuda.relative_change["all"] == pytest.approx(cpu.relative_change["all"], rel=1e-2)


def test_momentum_and_batches():
    options = {"method": "gradient-descent", "step": 0.02, "momentum": 0.5, "batch_size": 2,
               "max_steps": 40}  # fmt: skip
    cpu, cuda = simulate(backend="cpu", **options), simulate(**options)
    assert cuda.relative_change["all"] == pytest.approx(cpu.relative_change["all"], rel=1e-9)


@pytest.mark.parametrize("begins", [True, False])
def test_slopes_made_again_lead_to_the_same_points(begins):
    """As slopes that are read, whether or not the last stage begins the error."""
    network = TwoLayerNetwork(
        scaling=Scaling.from_exponents(3000, 1.0, 0.0), activation=ACTIVATIONS["relu"]
    )
    x, y = np.array([[-0.5, 1.0], [0.1, 1.0], [0.5, 1.0]]), np.array([0.2, -0.1, 0.4])
    paths = []
    for retraced in (True, False):
        flow = TwoLayerFlow(network, x, y, backend="cuda")
        assert flow.most_retraced and flow.begins_errors
        if not retraced:
            flow.most_retraced, flow.begins_errors = 0, begins
        stepper = METHODS["tsit54"](MethodOptions(rtol=1e-4, atol=1e-9))
        theta = flow.initial.copy()
        point, seen = Point.of(flow, 0.0, theta, flow.residual(theta)), []
        stepper.start(flow, point)
        while len(seen) < 12:
            attempt = stepper.attempt(flow, point, np.inf)
            if attempt.point is None:
                continue
            middle, e = attempt.interpolate(0.4)
            point = attempt.point
            seen.append((point.time, flow.host(point.theta), flow.host(middle), e))
        paths.append(seen)
    for one, other in zip(*paths, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("method", ["tsit54", "heun", "rdpk35"])
def test_a_run_gives_the_same_bits_again(method):
    first, second = simulate(method=method), simulate(method=method)
    assert np.array_equal(first.final["input_weights"], second.final["input_weights"])
    assert np.array_equal(first.observables["loss"], second.observables["loss"])


def test_quick_files_hold_all_that_those_of_the_cpu_do(tmp_path):
    runs = [simulate(backend=name, activation="relu", output=tmp_path / f"{name}.h5")
            for name in ("cpu", "cuda")]  # fmt: skip
    cpu, cuda = (fs.open(tmp_path / f"{name}.h5") for name in ("cpu", "cuda"))
    assert [run.status for run in runs] == ["complete", "complete"]
    assert set(cuda.observables) == set(cpu.observables)
    assert set(cuda.final) == set(cpu.final)
    assert cuda.final["input_weights"].dtype == np.float64
    first = cuda.snapshots.row("input_weights", 0)
    assert np.array_equal(first, cpu.snapshots.row("input_weights", 0))
    assert np.nanmax(cuda.observables["invariant_drift"]) < 1.0
    dead = cuda.observables["dead_neurons"][0]
    assert dead == cpu.observables["dead_neurons"][0]


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("method", ["tsit54", "heun", "rdpk35", "rkc2", "gradient-descent"])
def test_a_run_goes_on_to_the_same_bits(tmp_path, method, activation):
    options = {
        "method": method, "t_max": 20.0, "stop_loss": 0.0, "steady_slope": 1e-9,
        "activation": activation,
    }  # fmt: skip
    if method == "gradient-descent":
        options |= {"step": 0.05, "momentum": 0.5}
    whole = simulate(**options)
    path = tmp_path / "run.h5"
    simulate(output=path, **{**options, "max_steps": 7})
    again = simulate(output=path, **options)
    assert int(again.final["n_steps"]) == int(whole.final["n_steps"]) > 7
    assert np.array_equal(again.final["input_weights"], whole.final["input_weights"])


def test_layers_of_many_inputs():
    generator = np.random.default_rng(0)
    data = {"x": generator.normal(size=(30, 40)), "y": generator.normal(size=30)}
    runs = [
        fs.simulate(
            network={"width": 500}, scaling={"gamma": 0.5, "gamma_prime": 0.5}, x=data["x"],
            y=data["y"], integrate={"backend": name, "stop_loss": 1e-3},
        )
        for name in ("cpu", "cuda")
    ]  # fmt: skip
    assert runs[1].status == "complete"
    change = [run.relative_change["all"] for run in runs]
    assert change[1] == pytest.approx(change[0], rel=1e-3)


def test_auto_takes_the_gpu_for_long_passes_only():
    assert simulate(backend="auto", max_steps=1).attributes["backend"] == "cpu"
    large = simulate(width=3_000_000, backend="auto", max_steps=1, method="euler")
    assert large.attributes["backend"] == "cuda"


def test_what_does_not_fit_is_refused_with_the_figure():
    with pytest.raises(FlowsimError, match="GiB.*the device has .* free"):
        simulate(width=10**10)


def test_a_device_that_is_not_there():
    with pytest.raises(ConfigError, match="integrate.device below"):
        simulate(device=200)


def test_an_activation_without_cuda_code():
    own = fs.Activation("own", np.tanh, lambda z: 1.0 - np.tanh(z) ** 2)
    with pytest.raises(ConfigError, match='"own": has no CUDA code'):
        fs.simulate(
            network={"width": 10},
            scaling={"gamma": 1.0, "gamma_prime": 0.0},
            data=POINTS,
            activation=own,
            integrate={"backend": "cuda"},
        )
