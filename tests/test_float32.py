"""States in float32: what methods with n x n algebra make of them."""

import numpy as np
import pytest
from flows import make_flow, make_network

import flowsim as fs
from flowsim.steppers.base import Point
from flowsim.steppers.kernel_solver import KernelSolver

X = np.linspace(-1.0, 1.0, 12)
Y = np.sin(3.0 * X) + 0.3 * np.sin(9.0 * X)
POINTS = np.column_stack([X, np.ones(12)])


def flow_in(dtype, width=200):
    return make_flow(make_network(width, "tanh"), POINTS, Y, dtype=dtype)


def test_the_kernel_is_made_and_solved_with_in_float64():
    """In float32 the smallest eigenvalues of a K of this condition would be rounding."""
    flow, exact = flow_in("float32"), flow_in("float64")
    kernel, wanted = (f.tangent_kernel(f.initial) for f in (flow, exact))
    values = kernel.eigenvalues
    assert kernel.matrix.dtype == np.float64
    assert values[0] < np.finfo(np.float32).eps * values[-1]
    assert np.linalg.eigvalsh(kernel.matrix)[0] > -1e-14 * values[-1]
    np.testing.assert_allclose(kernel.matrix, wanted.matrix, rtol=1e-5)
    solver = KernelSolver(kernel.matrix, 12)
    solver.factorise(1e12 / values[-1])
    assert solver.solve(Y).dtype == np.float64


def test_residuals_and_neuron_blocks_are_in_float64():
    flow = flow_in("float32")
    point = Point.of(flow, 0.0, flow.initial.copy(), flow.residual(flow.initial))
    assert point.theta.dtype == np.float32 and point.residual.dtype == np.float64
    kernel = flow.neuron_blocks().prepare(point.theta, point.residual, 1.0)
    assert kernel.dtype == np.float64
    rates = np.linalg.eigvalsh(kernel)
    assert rates[0] > -1e-14 * rates[-1]


STIFF = ("rkc2", "ros2", "ros34pw2", "implicit-euler", "exponential", "switching")


@pytest.mark.parametrize("method", STIFF)
def test_the_loss_comes_down_to_a_hundred_squared_roundings(method):
    """R of 1e-12 for targets of size 1, in a tail of which no explicit pair would see the end."""
    runs = [
        fs.simulate(
            network={"width": 100, "activation": "tanh"},
            scaling={"gamma": 0.75, "gamma_prime": 0.0},
            integrate={"method": method, "dtype": dtype, "stop_loss": 1e-12, "steady_slope": 0.0,
                       "max_steps": 3000},
            record={"snapshots": {"schedule": "none"}},
            x=X[::2], y=Y[::2],
        )
        for dtype in ("float32", "float64")
    ]  # fmt: skip
    assert 100.0 * np.finfo(np.float32).eps ** 2 * np.mean(Y**2) < 1e-12
    assert [run.stop_reason.partition(":")[0] for run in runs] == ["stop_loss"] * 2
    found, wanted = (run.final["relative_change"] for run in runs)
    np.testing.assert_allclose(found, wanted, rtol=1e-3)


@pytest.mark.parametrize("method", [*STIFF, "tsit54", "auto"])
def test_a_tolerance_below_rounding_is_refused_with_a_remedy(method):
    with pytest.raises(fs.ConfigError) as refused:
        fs.simulate(
            network={"width": 5, "activation": "tanh"},
            scaling={"gamma": 1.0, "gamma_prime": 0.0},
            integrate={"method": method, "dtype": "float32", "rtol": 1e-8},
            x=X, y=Y,
        )  # fmt: skip
    assert refused.value.problems == [
        "integrate.rtol = 1e-08: float32 holds no less than 1e-06; set rtol = 1e-06 or larger or "
        'dtype = "float64"'
    ]


def test_a_stop_loss_below_rounding_is_refused_with_a_remedy():
    """In every form that data come in, and for the square loss alone."""
    floor = 0.5 * float(np.finfo(np.float32).eps) ** 2 * np.mean(Y**2)

    def problems(**integrate):
        integrate = {"dtype": "float32", "max_steps": 1} | integrate
        try:
            fs.simulate(network={"width": 50, "activation": "tanh"},
                        scaling={"gamma": 1.0, "gamma_prime": 0.0},
                        x=POINTS, y=Y, integrate=integrate)  # fmt: skip
        except fs.ConfigError as refused:
            return refused.problems
        return []

    assert problems(stop_loss=0.99 * floor) == [
        f"integrate.stop_loss = {0.99 * floor:g}: with these targets float32 leaves R = "
        f'{floor:.2g} to rounding; set a larger stop_loss, or dtype = "float64"'
    ]
    assert not problems(stop_loss=1.01 * floor) and not problems(stop_loss=0.0, t_max=1.0)
    assert not problems(stop_loss=0.99 * floor, dtype="float64")
    points = {"kind": "points", "x": [0.5, 1.0], "y": [1.0, -1.0]}
    experiment = {"network": {"width": 50}, "scaling": {"gamma": 1.0, "gamma_prime": 0.0}}
    low = {"dtype": "float32", "stop_loss": 1e-20}
    with pytest.raises(fs.ConfigError, match="leaves R = 7.1e-15 to rounding"):
        fs.load_experiment(experiment | {"data": points, "integrate": low})
