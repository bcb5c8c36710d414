"""Rosenbrock-W methods: order by all W-trees, with any Jacobian; the tangent kernel's stages."""

from dataclasses import replace

import numpy as np
import pytest
from deep_flows import make_flow as make_deep_flow
from deep_flows import make_network as make_deep_network
from flows import Trace, make_flow, make_network
from linear_algebra import block_diagonal, jacobian_of, moved, rate_of, straightened
from scipy.integrate import solve_ivp
from test_tableaux import rooted_trees

from flowsim.kernels.activations import ACTIVATIONS
from flowsim.kernels.reference_blocks import ReferenceNeuronBlocks
from flowsim.steppers.base import Point
from flowsim.steppers.driver import integrate
from flowsim.steppers.events import StopRules
from flowsim.steppers.methods import METHODS, MethodOptions
from flowsim.steppers.rosenbrock import RosenbrockW
from flowsim.steppers.tableau import lower
from flowsim.steppers.tableaux.ros2 import ROS2
from flowsim.steppers.tableaux.ros34pw2 import ROS34PW2

TABLEAUX = [ROS2, ROS34PW2]
F, J = "f", "J"
BLOCKS = ["tanh", "x_tanh_x", "logistic"]


def w_trees(order):
    """Trees (kind, subtrees): every rooted tree, with J where a vertex has one branch, or not.

    A vertex of kind J stands for the matrix that is given for the Jacobian (Hairer & Wanner II,
    IV.7): it has exactly one branch.
    """
    found = []
    for tree in rooted_trees(order):
        found += marked(tree)
    return found


def marked(tree):
    """All ways to mark the vertices of a rooted tree, alike ones once."""
    choices = [()]
    for subtree in tree:
        choices = [(*rest, one) for rest in choices for one in marked(subtree)]
    unique = sorted({tuple(sorted(branches, key=repr)) for branches in choices}, key=repr)
    kinds = (F, J) if len(tree) == 1 else (F,)
    return [(kind, branches) for branches in unique for kind in kinds]


def test_number_of_w_trees():
    """Hairer & Wanner II, IV.7: 1, 2, 5 conditions, where 1, 1, 2 trees have no J."""
    assert [len(w_trees(order)) for order in (1, 2, 3)] == [1, 2, 5]


def plain(tree):
    """The rooted tree without marks; None if one is J."""
    kind, branches = tree
    parts = [plain(branch) for branch in branches]
    return None if kind == J or None in parts else tuple(parts)


def stage_weights(tree, a, gammas):
    kind, branches = tree
    if kind == J:
        return gammas @ stage_weights(branches[0], a, gammas)
    weights = np.ones(len(a))
    for branch in branches:
        weights = weights * (a @ stage_weights(branch, a, gammas))
    return weights


def size(tree):
    return 1 + sum(size(branch) for branch in tree)


def density(tree):
    product = size(tree)
    for branch in tree:
        product *= density(branch)
    return product


def defect(weights, tableau, order, fraction=1.0):
    """Largest violation of the conditions up to ``order``: trees with a J add up to nothing."""
    worst = 0.0
    for n in range(1, order + 1):
        for tree in w_trees(n):
            bare = plain(tree)
            wanted = 0.0 if bare is None else fraction**n / density(bare)
            found = weights @ stage_weights(tree, tableau.a, tableau.gammas)
            worst = max(worst, abs(found - wanted))
    return worst


@pytest.mark.parametrize("tableau", TABLEAUX, ids=lambda t: t.name)
def test_weights_have_their_order_with_any_jacobian_and_no_more(tableau):
    weights, order = tableau.embedded
    for b, p in ((tableau.b, tableau.order), (weights, order)):
        assert defect(b, tableau, p) < 1e-13
        assert defect(b, tableau, p + 1) > 1e-6
    assert order == tableau.order - 1


@pytest.mark.parametrize("tableau", TABLEAUX, ids=lambda t: t.name)
@pytest.mark.parametrize("fraction", [0.1, 0.37, 0.5, 0.9, 1.0])
def test_dense_output_has_its_order(tableau, fraction):
    rounding = 2.3e-16 * np.abs(tableau.dense).sum()
    weights = tableau.dense_weights(fraction)
    assert defect(weights, tableau, tableau.dense_order, fraction) < 1e-14 + 10 * rounding


@pytest.mark.parametrize("tableau", TABLEAUX, ids=lambda t: t.name)
def test_it_is_l_stable(tableau):
    s = tableau.stages
    both, ones = tableau.a + tableau.gammas, np.ones(s)

    def growth(z):
        return 1.0 + z * tableau.b @ np.linalg.solve(np.eye(s) - z * both, ones)

    left = [growth(z) for z in -np.geomspace(1e-3, 1e6, 200)]
    assert np.max(np.abs(left)) < 1.0
    assert np.max(np.abs([growth(1j * y) for y in np.geomspace(1e-3, 1e6, 200)])) <= 1.0 + 1e-12
    assert abs(left[-1]) < 1e-5


def test_the_last_stage_of_ros34pw2_is_its_new_state():
    last = ROS34PW2.a[-1] + ROS34PW2.gammas[-1]
    np.testing.assert_allclose(last, ROS34PW2.b, rtol=0, atol=1e-15)


def dense_step(tableau, f, jacobian, u, h):
    """The method as its definition has it: every stage one linear system in all unknowns.

    Returns the new state, the embedded one, and the stages.
    """
    slopes = []
    system = np.eye(len(u)) - h * tableau.gamma * jacobian
    for i in range(tableau.stages):
        at = u + h * sum((w * k for w, k in zip(tableau.a[i], slopes, strict=False)), 0.0 * u)
        mixed = sum((w * k for w, k in zip(tableau.gammas[i], slopes, strict=False)), 0.0 * u)
        slopes.append(np.linalg.solve(system, f(at) + h * jacobian @ mixed))
    stages = np.array(slopes)
    return u + h * tableau.b @ stages, u + h * tableau.embedded[0] @ stages, stages


@pytest.mark.parametrize("tableau", TABLEAUX, ids=lambda t: t.name)
@pytest.mark.parametrize("seed", [0, 1])
def test_order_by_slope_with_a_random_jacobian(tableau, seed):
    matrix = np.random.default_rng(seed).normal(size=(3, 3))

    def f(u):
        return np.array([u[1] * u[2], -u[0] * u[2], -0.51 * u[0] * u[1]])

    start = np.array([0.3, 1.0, 0.9])
    exact = solve_ivp(lambda _, u: f(u), (0, 1), start, "DOP853", rtol=1e-13, atol=1e-14).y[:, -1]
    errors = []
    for steps in (100, 200):
        ends = [start, start]
        for _ in range(steps):
            ends = [dense_step(tableau, f, matrix, u, 1 / steps)[k] for k, u in enumerate(ends)]
        errors.append([np.linalg.norm(end - exact) for end in ends])
    slopes = np.log2(np.array(errors[0]) / errors[1])
    assert abs(slopes[0] - tableau.order) < 0.1
    assert abs(slopes[1] - tableau.embedded[1]) < 0.1


@pytest.mark.parametrize(
    ("tableau", "exact", "order"), [(ROS2, True, 2), (ROS2, False, 1), (ROS34PW2, False, 2)]
)
def test_order_reduction_by_prothero_and_robinson(tableau, exact, order):
    """y' = l (y - sin t) + cos t, l = -1e6: what is left of the order, the forcing in J or not."""
    rate = -1e6

    def f(u):
        return np.array([1.0, rate * (u[1] - np.sin(u[0])) + np.cos(u[0])])

    errors = []
    for steps in (40, 80):
        u = np.zeros(2)
        for _ in range(steps):
            forcing = -rate * np.cos(u[0]) - np.sin(u[0])
            jacobian = np.array([[0.0, 0.0], [forcing if exact else 0.0, rate]])
            u = dense_step(tableau, f, jacobian, u, 1.0 / steps)[0]
        errors.append(abs(u[1] - np.sin(1.0)))
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.1
    # Stiffly accurate, and with it the error falls with the stiffness.
    assert (errors[0] < 1e-9) == (tableau is ROS34PW2)


def without_blocks(network):
    """The same network, whose neurons' own blocks of the Jacobian nobody knows."""
    return replace(network, activation=replace(network.activation, second_derivative=None))


def flows(name):
    if name == "gauss-newton":
        return make_flow(without_blocks(make_network(7, "tanh", 0.9, 0.1))), None
    if name == "logistic":
        y = np.array([1.0, -1.0, -1.0, 1.0])
        return make_flow(make_network(7, "tanh", 0.9, 0.1), y=y, loss="logistic"), None
    if name in ("tanh", "x_tanh_x", "relu"):
        return make_flow(make_network(7, name, 0.9, 0.1, antisymmetric=True)), None
    if name == "softmax":
        x = np.column_stack([np.linspace(-1, 1, 4), np.ones(4)])
        network = make_deep_network(1, 5, "tanh", n_outputs=3)
        return make_deep_flow(network, (x, np.eye(3)[[0, 2, 1, 1]]), loss="softmax")
    return make_deep_flow(make_deep_network(2, 5, "tanh", biases=True), way=("cpu", name))


def attempt_of(flow, theta, step, rtol=1e30, tableau=ROS34PW2):
    """A step of a given size, whatever its error."""
    theta = flow.initial.copy() if theta is None else theta
    point = Point.of(flow, 0.0, theta, flow.residual(theta))
    stepper = RosenbrockW(tableau, rtol, 0.0, step)
    stepper.start(flow, point)
    return point, stepper, stepper.attempt(flow, point, np.inf)


@pytest.mark.parametrize("name", [*BLOCKS, "gauss-newton", "relu", "softmax", "dense", "factored"])
@pytest.mark.parametrize("step", [0.1, 2.0])
@pytest.mark.parametrize("tableau", TABLEAUX, ids=lambda t: t.name)
def test_a_step_is_that_of_dense_algebra(tableau, name, step):
    flow, theta = flows(name)
    point, stepper, attempt = attempt_of(flow, theta, step, tableau=tableau)
    curvature = flow.curvature(point.residual)
    hessian = np.ones(flow.n_samples) if curvature is None else curvature
    jacobian = jacobian_of(flow, point.theta, hessian)
    start = np.array(point.theta, np.float64)
    if name in BLOCKS:
        gradient = flow.gradient(point.residual)
        own = ReferenceNeuronBlocks(flow.field).derivatives(point.theta, gradient)
        straightened(flow.field, own, step * tableau.gamma)
        assert np.max(np.abs(own)) > 0.1 * np.max(np.abs(jacobian))
        jacobian = jacobian + block_diagonal(own)

    def f(u):
        return rate_of(flow, moved(flow, point.theta, u))

    new, embedded, stages = dense_step(tableau, f, jacobian, np.zeros(start.size), step)
    assert np.max(np.abs(new)) > 5e-3
    for u, state in (
        (new, attempt.point.theta),
        (step * tableau.dense_weights(0.3) @ stages, attempt.interpolate(0.3)[0]),
    ):
        expected = start.reshape(-1) + u
        error = np.asarray(state).reshape(-1) - expected
        assert np.max(np.abs(error)) < 1e-11 * np.max(np.abs(expected))
    np.testing.assert_allclose(
        attempt.point.residual, flow.residual(attempt.point.theta), rtol=0, atol=1e-12
    )
    # The error: of the weights the embedded solution's, of e what follows to first order.
    sizes, base = flow.layer_norms(point.theta), moved(flow, point.theta, 0.0 * new)
    slope = flow.empty(1)
    if name not in ("factored",):
        slope[0][...] = (new - embedded).reshape(start.shape)
        layers = flow.combination_norms(slope, np.ones(1), 1.0)
        own = np.sqrt(np.mean(flow.jvp(base, slope[0]) ** 2))
        scale = max(flow.residual_size(e) for e in (point.residual, attempt.point.residual))
        error = max(np.max(layers / sizes), own / scale)
        for rtol, accepted in ((0.999 * error, False), (1.001 * error, True)):
            theta = flow.state(start)
            again = attempt_of(flow, theta, step, rtol, tableau)[2]
            assert (again.point is not None) == accepted


@pytest.mark.parametrize("tableau", TABLEAUX, ids=lambda t: t.name)
def test_order_by_slope(tableau):
    x = np.column_stack([np.linspace(-1, 1, 3), np.ones(3)])
    flow = make_flow(make_network(20, "x_tanh_x"), x, 4.0 * np.sin(3 * x[:, 0]))

    def rate(_, theta):
        return rate_of(flow, flow.state(theta.reshape(flow.initial.shape)))

    exact = solve_ivp(rate, (0, 1), flow.initial.ravel(), "DOP853", rtol=1e-13, atol=1e-13).y[:, -1]
    errors = []
    for steps in (100, 200):
        theta = flow.initial.copy()
        for _ in range(steps):
            attempt = attempt_of(flow, theta, 1.0 / steps, tableau=tableau)[2]
            theta = attempt.point.theta.copy()
        errors.append(np.linalg.norm(theta.ravel() - exact))
    assert abs(np.log2(errors[0] / errors[1]) - tableau.order) < 0.1


def stiff_tanh(width=200):
    x = np.linspace(-1, 1, 16)
    y = np.sin(3 * x) + 0.3 * np.sin(9 * x)
    return make_flow(make_network(width, "tanh"), np.column_stack([x, np.ones(16)]), y)


@pytest.mark.parametrize("method", ["ros2", "ros34pw2"])
def test_a_stiff_tail_at_the_price_of_few_gradients(method):
    """SciPy's RK45 takes 262,000 on a like problem, and its step is held to 3.3 / lambda_max."""
    flow, end = stiff_tanh(), 1.3e5
    rate = flow.tangent_kernel(flow.initial).largest_rate
    assert 6 * end * rate / 3.3 > 1.5e5
    rules = StopRules(stop_loss=0.0, steady_slope=0.0, t_max=end)
    outcome = integrate(flow, METHODS[method](MethodOptions(atol=1e-14)), rules, Trace())
    assert outcome.stop_reason.startswith("t_max")
    assert flow.n_rhs < 262_000 / 50
    assert outcome.point.loss < 1e-25


@pytest.mark.parametrize("method", ["ros2", "ros34pw2"])
def test_a_stiff_run_is_as_accurate_as_asked(method):
    flow, rules = stiff_tanh(), StopRules(stop_loss=0.0, steady_slope=0.0, t_max=1e3)
    exact = integrate(flow, METHODS["dop853"](MethodOptions(rtol=1e-9, atol=1e-14)), rules, Trace())
    errors = []
    for rtol in (1e-3, 1e-4, 1e-5):
        point = integrate(flow, METHODS[method](MethodOptions(rtol=rtol)), rules, Trace()).point
        errors.append(np.linalg.norm(point.residual - exact.point.residual))
        errors[-1] /= np.linalg.norm(exact.point.residual)
        assert errors[-1] < 5 * rtol
    assert errors[0] > 5 * errors[1] > 25 * errors[2]


@pytest.mark.parametrize("value", [np.nan, -1e9])
@pytest.mark.parametrize("known", [True, False], ids=["blocks", "gauss-newton"])
def test_what_cannot_be_factorised_rejects_the_step(value, known):
    network = make_network(20, "tanh")
    flow = make_flow(network if known else without_blocks(network))
    kernel = flow.tangent_kernel(flow.initial)
    wrong = flow.make_kernel(np.full_like(kernel.grams, value))
    flow.tangent_kernel = lambda theta: wrong
    if known:
        blocks = flow.neuron_blocks()
        blocks.prepare = lambda theta, gradient, size: wrong.matrix
        blocks.takes_steps = False
        flow.neuron_blocks = lambda: blocks
    point, stepper, attempt = attempt_of(flow, None, 1.0)
    assert (attempt.point, attempt.rejection) == (None, "non-finite")
    assert stepper.step < 1.0
    # What is not finite stays so; a negative K of a wrong flow lets tiny steps pass.
    if np.isnan(value):
        outcome = integrate(flow, stepper, StopRules(t_max=1.0), Trace())
        assert outcome.status == "failed"
        assert outcome.stop_reason.startswith("non_finite")


@pytest.mark.parametrize(
    ("tableau", "known", "passes", "rates"),
    [(ROS2, False, 5, 3), (ROS34PW2, False, 11, 7), (ROS2, True, 3, 2), (ROS34PW2, True, 7, 4)],
)
def test_passes_of_a_step(tableau, known, passes, rates):
    """Three a stage after the first and the new state, or two a stage less one; K is one more."""
    network = make_network(20, "tanh")
    flow = make_flow(network if known else without_blocks(network))
    point, stepper, attempt = attempt_of(flow, None, 0.1, tableau=tableau)
    flow.n_passes = flow.n_rhs = flow.n_grams = 0
    stepper.attempt(flow, attempt.point, np.inf)
    assert (flow.n_passes, flow.n_rhs, flow.n_grams) == (passes + 1, rates, 1)


@pytest.mark.parametrize(("known", "built"), [(True, 1), (False, 0)])
def test_a_shorter_try_builds_no_second_kernel_unless_it_depends_on_the_step(known, built):
    network = make_network(20, "tanh")
    flow = make_flow(network if known else without_blocks(network))
    point, stepper, attempt = attempt_of(flow, None, 50.0, rtol=1e-6)
    assert attempt.rejection == "error"
    while attempt.point is None:
        flow.n_grams = 0
        attempt = stepper.attempt(flow, point, np.inf)
        assert flow.n_grams == built
    flow.n_grams = 0
    stepper.attempt(flow, attempt.point, np.inf)
    assert flow.n_grams == 1


def test_exact_jacobians_take_longer_steps():
    """Where the weights' own curvature limits the step of Gauss and Newton: the same error, 1/3."""
    x = np.linspace(-1, 1, 16)
    y = np.sin(3 * x) + 0.3 * np.sin(9 * x)
    network, steps = make_network(200, "tanh"), []
    for one in (network, without_blocks(network)):
        flow = make_flow(one, np.column_stack([x, np.ones(16)]), y)
        trace = Trace()
        integrate(flow, METHODS["ros34pw2"](MethodOptions()), StopRules(t_max=1e4), trace)
        steps.append(len(trace.steps))
    assert 3 * steps[0] < steps[1]


def test_blocks_are_for_few_inputs_and_smooth_activations_with_known_second_derivatives():
    def blocks(activation, d=2):
        x = np.cos(np.arange(4.0 * d)).reshape(4, d)
        return make_flow(replace(make_network(5), activation=activation), x).neuron_blocks()

    tanh = ACTIVATIONS["tanh"]
    assert blocks(tanh) is not None and blocks(tanh, 8) is not None and blocks(tanh, 9) is None
    assert blocks(ACTIVATIONS["linear"]) is not None and blocks(ACTIVATIONS["relu"]) is None
    assert blocks(replace(tanh, second_derivative=None)) is None
    assert make_deep_flow(make_deep_network(1, 5, "tanh"))[0].neuron_blocks() is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": ROS34PW2.a.T}, "strictly lower triangular"),
        ({"gammas": ROS34PW2.gammas + lower([[0.1], [], [], []])}, "one number on its diagonal"),
        ({"b": 1.1 * ROS34PW2.b}, "sum to 1"),
        ({"dense": 1.1 * ROS34PW2.dense}, "does not end in b"),
        ({"b": ROS34PW2.b[:-1]}, "different stage counts"),
    ],
)
def test_a_wrong_tableau_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(ROS34PW2, **change)
