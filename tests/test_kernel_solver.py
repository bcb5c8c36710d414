"""The n x n side: Woodbury's identity and functions of K against dense algebra in all weights."""

import numpy as np
import pytest
from deep_flows import make_flow as make_deep_flow
from deep_flows import make_network as make_deep_network
from flows import make_flow, make_network
from linear_algebra import jacobian_of, moved, phi_of
from scipy.linalg import expm

from flowsim.steppers.kernel_solver import KernelSolver


def two_layers(loss="square"):
    y = np.array([1.0, -1.0, -1.0, 1.0])
    return make_flow(make_network(6, "tanh", 0.8, 0.2), y=y, loss=loss), None


FLOWS = {
    "two layers": two_layers,
    "logistic": lambda: two_layers("logistic"),
    "deep": lambda: make_deep_flow(make_deep_network(2, 5, "tanh")),
    "factored": lambda: make_deep_flow(make_deep_network(2, 5, "tanh"), way=("cpu", "factored")),
}


def at_state(name):
    """A flow, a state, the diagonal Hessian there (n,) and the solver."""
    flow, theta = FLOWS[name]()
    theta = flow.initial.copy() if theta is None else theta
    curvature = flow.curvature(flow.residual(theta))
    hessian = np.ones(flow.n_samples) if curvature is None else curvature
    solver = KernelSolver(flow.tangent_kernel(theta).matrix, flow.n_samples, curvature)
    return flow, theta, hessian, solver


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("size", [0.1, 30.0, 1e4])
def test_woodbury(name, size):
    """(I - s J)^-1 v = v - (s/n) M Phi H (I + s K H/n)^-1 Phi^T v, all weights against n x n."""
    flow, theta, hessian, solver = at_state(name)
    phi, mobilities = phi_of(flow, theta)
    v = np.sin(np.arange(len(phi)))
    expected = np.linalg.solve(np.eye(len(phi)) - size * jacobian_of(flow, theta, hessian), v)
    solver.factorise(size)
    inner = hessian * solver.solve(phi.T @ v)
    found = v - size / flow.n_samples * mobilities * (phi @ inner)
    assert np.max(np.abs(found - expected)) < 1e-11 * np.max(np.abs(v))


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("time", [0.3, 4.0])
def test_functions_of_the_jacobian(name, time):
    """M Phi F(H K/n) g = F(-J) M Phi g for F(z) = exp(-t z)."""
    flow, theta, hessian, solver = at_state(name)
    phi, mobilities = phi_of(flow, theta)
    g = np.cos(np.arange(float(flow.n_samples)))
    expected = expm(time * jacobian_of(flow, theta, hessian)) @ (mobilities * (phi @ g))
    found = mobilities * (phi @ solver.filtered(lambda rates: np.exp(-time * rates), g))
    assert np.max(np.abs(found - expected)) < 1e-11 * np.max(np.abs(mobilities * (phi @ g)))
    moved_f = phi.T @ (mobilities * (phi @ g)) * (-time / flow.n_samples)
    np.testing.assert_allclose(solver.change(g, time), moved_f, rtol=0, atol=1e-12)
    rates = np.sort(np.linalg.eigvals(-jacobian_of(flow, theta, hessian)).real)
    np.testing.assert_allclose(solver.eigenvalues, rates[-len(g) :], rtol=0, atol=1e-11 * rates[-1])


def test_several_outputs_are_one_vector():
    network = make_deep_network(1, 6, "tanh", n_outputs=3)
    y = np.eye(3)[[0, 2, 1, 1]]
    x = np.column_stack([np.linspace(-1, 1, 4), np.ones(4)])
    flow, theta = make_deep_flow(network, (x, y), loss="softmax")
    hessian = flow.curvature(flow.residual(theta))
    solver = KernelSolver(flow.tangent_kernel(theta).matrix, 4, hessian)
    v = np.sin(np.arange(12.0)).reshape(4, 3)
    solver.factorise(2.5)
    system = np.eye(12) + 2.5 / 4 * flow.tangent_kernel(theta).matrix * hessian.reshape(-1)
    np.testing.assert_allclose(system @ solver.solve(v).reshape(-1), v.reshape(-1), atol=1e-12)
    turned = np.eye(12) + 2.5 / 4 * hessian.reshape(-1)[:, None] * flow.tangent_kernel(theta).matrix
    found = solver.filtered(lambda rates: 1.0 / (1.0 + 2.5 * rates), v)
    np.testing.assert_allclose(turned @ found.reshape(-1), v.reshape(-1), atol=1e-11)


def test_factors_are_kept_for_the_same_size():
    _, _, _, solver = at_state("two layers")
    solver.factorise(2.0)
    factor = solver._factor
    solver.factorise(2.0)
    assert solver._factor is factor
    v = np.arange(4.0)
    first = solver.solve(v)
    solver.factorise(3.0)
    assert solver._factor is not factor
    assert not np.allclose(solver.solve(v), first)


def test_what_cannot_be_factorised_is_an_error():
    flow, _ = two_layers()
    grams = flow.tangent_kernel(flow.initial).grams
    with pytest.raises(np.linalg.LinAlgError):
        KernelSolver(flow.make_kernel(np.full_like(grams, np.nan)).matrix, 4)
    solver = KernelSolver(flow.make_kernel(-grams).matrix, 4)
    with pytest.raises(np.linalg.LinAlgError):
        solver.factorise(1e6)
    good = KernelSolver(flow.make_kernel(grams).matrix, 4)
    with np.errstate(invalid="ignore"), pytest.raises(np.linalg.LinAlgError):
        good.factorise(np.inf)


def test_flat_samples_are_no_division_by_zero():
    """A sample fitted so well that its Hessian underflows."""
    flow, _ = two_layers()
    kernel = flow.tangent_kernel(flow.initial)
    solver = KernelSolver(kernel.matrix, 4, np.array([0.25, 0.0, 1e-300, 0.1]))
    solver.factorise(1e3)
    assert np.isfinite(solver.solve(np.ones(4))).all()
    assert np.isfinite(solver.filtered(lambda rates: 1.0 / (1.0 + rates), np.ones(4))).all()


def test_the_helper_moves_along_a_dense_slope():
    flow, _ = two_layers()
    phi, _ = phi_of(flow, flow.initial)
    direction = np.cos(np.arange(len(phi)))
    ends = [flow.residual(moved(flow, flow.initial, s * direction)) for s in (1e-6, -1e-6)]
    np.testing.assert_allclose((ends[0] - ends[1]) / 2e-6, phi.T @ direction, rtol=1e-6, atol=1e-8)
