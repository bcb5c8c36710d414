"""Kinks passed neuron by neuron: planes, boosts, pins, windows, whole runs."""

import numpy as np
import pytest
from scipy.linalg import expm
from scipy.optimize import lsq_linear
from two_layer_fields import make_field, state

import flowsim as fs
from flowsim.kernels.cpu.boosts import travel
from flowsim.kernels.cpu.kinks import CpuKinks
from flowsim.kernels.cpu.pins import decide
from flowsim.kernels.hyperplanes import Hyperplanes
from flowsim.kernels.kink_interface import CROSSED, FAILED, PINNED
from flowsim.kernels.kink_reference import ReferenceKinks
from flowsim.kernels.reference import ReferenceKernels
from flowsim.steppers.collocation import LinearWindow, RadauIIA

NODES = RadauIIA(3).nodes


def lined_up(activation, n=7, d=3):
    """A field with samples on one line through 0, in both directions, and one at 0."""
    field = make_field(n, d, activation)
    field.x[1], field.x[2], field.x[3] = 2.0 * field.x[0], -0.5 * field.x[0], 0.0
    return field


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_planes_say_what_samples_say(activation):
    field = lined_up(activation)
    planes, theta = Hyperplanes.of(field), state(field, 40)
    assert planes.n_planes == 4
    kernels = ReferenceKernels(field, 40, np.dtype("float64"))
    u, w = planes.ratio * theta[0], theta[1:]
    z = planes.normals.T @ w
    sums = np.concatenate([np.maximum(z, 0.0) @ u, w @ u])
    np.testing.assert_allclose(planes.outputs(sums), kernels.outputs(theta), rtol=1e-13)
    residual, slope = np.random.default_rng(2).normal(size=7), np.empty_like(theta)
    kernels.rate(theta, residual, slope)
    below, above = planes.forces(residual)
    pull = planes.normals @ np.where(z > 0.0, above[:, None], below[:, None])
    np.testing.assert_allclose(-(pull * w).sum(axis=0), planes.ratio * slope[0], rtol=1e-12)
    np.testing.assert_allclose(-u * pull, slope[1:], rtol=1e-12, atol=1e-15)


def move(force, start, end, u, w):
    out = np.empty_like(w)
    return np.append(travel(u, w, force, start, end, np.empty((2, len(w))), out), out)


@pytest.mark.parametrize("size", [1e-9, 0.3, 3.0, 30.0])
def test_a_constant_force_is_followed_exactly(size):
    generator = np.random.default_rng(0)
    g, z = generator.normal(size=3), generator.normal(size=4)
    g *= size / np.linalg.norm(g)
    generator_matrix = np.zeros((4, 4))
    generator_matrix[0, 1:] = generator_matrix[1:, 0] = -g
    moved = move(np.column_stack([g, 0.0 * g, 0.0 * g]), 0.0, 1.0, z[0], z[1:])
    np.testing.assert_allclose(moved, expm(generator_matrix) @ z, rtol=1e-13 * max(1.0, size))


def test_a_turning_force_is_followed_to_order_4_and_invariants_to_rounding():
    force = np.array([[1.0, -0.7, 0.2], [0.3, 1.1, -0.4]])
    z = np.array([0.4, -1.0, 0.7])

    def after(pieces):
        point, ends = z, np.linspace(0.0, 1.0, pieces + 1)
        for start, end in zip(ends, ends[1:], strict=False):
            point = move(force, start, end, point[0], point[1:])
        return point

    exact = after(256)
    errors = [np.abs(after(pieces) - exact).max() for pieces in (2, 4, 8)]
    slopes = np.diff(np.log2(errors))
    np.testing.assert_allclose(slopes, -4.0, atol=0.35)
    for pieces in (1, 8):
        point = after(pieces)
        assert point[0] ** 2 - point[1:] @ point[1:] == pytest.approx(
            z[0] ** 2 - z[1:] @ z[1:], rel=1e-13
        )


@pytest.mark.parametrize("dependent", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_who_touches_planes_moves_by_the_shortest_vector(seed, dependent):
    generator = np.random.default_rng(seed)
    d, n_planes, touched = (2, 5, 4) if dependent else (4, 5, 3)
    normals = generator.normal(size=(d, n_planes))
    normals /= np.linalg.norm(normals, axis=0)
    forces = np.sort(generator.normal(size=(2, n_planes, 1)), axis=0)  # both sides push to them
    pattern = np.ones(n_planes, np.int8)
    room = np.empty((2 * n_planes + 10, n_planes + d))
    length = decide(
        pattern, np.arange(n_planes), touched, np.zeros(n_planes, np.int8), -1, 0, normals,
        forces, 0.0, 1.0, room,
    )  # fmt: skip
    away = normals[:, touched:] @ forces[1, touched:, 0]
    bounds = forces[0, :touched, 0], forces[1, :touched, 0]
    best = lsq_linear(normals[:, :touched], -away, bounds, tol=1e-14)
    shortest = normals[:, :touched] @ best.x + away
    np.testing.assert_allclose(room[4, :d], shortest, atol=1e-9)
    scale = max(np.linalg.norm(away), np.abs(forces[:, :touched]).max())
    assert length == pytest.approx(np.linalg.norm(shortest) / scale, abs=1e-9)
    # Who is let go on a side moves to that side, and who is held does not move across.
    speed = -normals[:, :touched].T @ shortest
    assert (speed * pattern[:touched] >= -1e-9).all()
    assert np.abs(speed[pattern[:touched] == 0]).max(initial=0.0) < 1e-9


def windows(field, theta, kinks, forces, nodes=NODES, pattern=None):
    out = np.empty_like(theta)
    pattern = kinks.planes.sides(theta[1:]) if pattern is None else pattern
    after = np.empty_like(pattern)
    sums, counts = kinks.pass_window(theta, pattern, forces, nodes, out, after)
    return sums, counts, out, after


def a_path(field, size, seed=3):
    """Forces of a window along a path of residuals that turns."""
    path = np.random.default_rng(seed).normal(size=(len(field.x), 3)) * [1.0, 0.5, 0.3]
    return size * Hyperplanes.of(field).forces(path)


@pytest.mark.parametrize(
    ("activation", "n", "d", "size"),
    [("relu", 4, 2, 6.0), ("relu", 9, 3, 8.0), ("leaky_relu", 4, 2, 6.0), ("relu", 1, 1, 3.0)],
)
def test_windows_agree_with_a_great_many_small_steps(activation, n, d, size):
    field = make_field(n, d, activation)
    theta, forces = state(field, 45), a_path(field, size)
    sums, counts, out, after = windows(field, theta, CpuKinks(field, 45, 1), forces)
    assert counts[FAILED] == 0
    assert counts[CROSSED] + counts[PINNED] >= (5 if n > 1 else 1)
    expected, _, right, there = windows(field, theta, ReferenceKinks(field), forces)
    np.testing.assert_allclose(out, right, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(sums, expected, rtol=2e-3, atol=3e-2)
    assert (after == there).mean() > 0.95  # who has just come to a plane is to the oracle not on it
    held = np.argwhere(after == 0)
    z = Hyperplanes.of(field).normals.T @ out[1:]
    assert all(abs(z[h, k]) < 1e-13 for h, k in held)


def test_pins_are_met_and_left():
    """One neuron, two samples: it comes to a kink, slides along it, and is let go."""
    field = make_field(2, 2)
    field.x[:] = [[0.0, 1.0], [1.0, 0.2]]
    planes = Hyperplanes.of(field)
    theta = np.array([[1.0], [0.5], [0.05]])
    theta[0] /= planes.ratio
    forces = np.zeros((2, 2, 3))
    forces[1, 0] = [1.0, -2.4, 0.0]  # pushes down while it is active, and later does not
    forces[1, 1] = [-0.5, 0.0, 0.0]  # pushes up
    ends = []
    for end in (0.3, 0.9):
        _, counts, out, after = windows(
            field, theta, CpuKinks(field, 1, 1), forces, np.array([0.5 * end, end])
        )
        ends.append((counts[:3].tolist(), after[:, 0].tolist(), abs(out[2, 0]) < 1e-15))
    assert ends == [([0, 1, 0], [0, 1], True), ([0, 1, 1], [1, 1], False)]


def test_the_kernel_of_held_neurons_leaves_out_what_they_cannot_do():
    field = lined_up("relu")
    theta, kinks = state(field, 45), CpuKinks(field, 45, 1)
    pattern = kinks.planes.sides(theta[1:])
    pattern[np.random.default_rng(0).random(pattern.shape) < 0.2] = 0
    np.testing.assert_allclose(
        kinks.gram(theta, pattern), ReferenceKinks(field).gram(theta, pattern), rtol=1e-12
    )


def test_any_number_of_threads_gives_the_same_bits():
    field = make_field(5, 2)
    theta, forces = state(field, 3001), a_path(field, 4.0)
    one, three = (windows(field, theta, CpuKinks(field, 3001, k), forces) for k in (1, 3))
    for a, b in zip(one, three, strict=True):
        assert a.tobytes() == b.tobytes()
    alone = windows(field, theta[:, 2990:].copy(), CpuKinks(field, 11, 1), forces)
    assert alone[2].tobytes() == one[2][:, 2990:].tobytes()


def test_collocation_is_that_of_radau():
    method = RadauIIA(3)
    root = np.sqrt(6.0)
    np.testing.assert_allclose(method.nodes, [(4 - root) / 10, (4 + root) / 10, 1.0], rtol=1e-14)
    assert method.a[-1] == pytest.approx([(16 - root) / 36, (16 + root) / 36, 1 / 9])
    kernel = np.diag([0.0, 0.3, 1e7])
    window = LinearWindow(method, kernel, np.zeros((3, 3)), 1.0)
    end = window.solve(np.ones((3, 3)))[-1]
    assert end == pytest.approx([1.0, np.exp(-0.3), 0.0], abs=3e-6)


# Whole runs.

X, Y = np.array([-0.9, -0.3, 0.4, 1.0]), np.array([0.3, -0.5, 0.6, -0.2])


def run(width=300, integrate=(), network=(), scaling=(), x=X, y=Y, **options):
    return fs.simulate(
        network={"width": width, **dict(network)},
        scaling={"gamma": 1.0, "gamma_prime": 0.0, **dict(scaling)},
        integrate={"method": "kinks", "stop_loss": 1e-8, **dict(integrate)},
        record={"observables": {"schedule": "steps", "every": 1}},
        x=x,
        y=y,
        **options,
    )


def test_the_reference_problem_in_few_passes():
    """RD of ``two_layer.md``, Euler's limit: explicit pairs are 0.5 % off after 6,000 passes."""
    generator = np.random.default_rng(0)
    a, w = generator.normal(size=1000), generator.normal(size=(2, 1000))
    result = run(1000, initial={"output_weights": a, "input_weights": w})
    seen = result.observables
    assert result.relative_change["input"] == pytest.approx(1.26977, rel=2e-5)
    assert seen["n_passes"][-1] <= 100
    assert (np.diff(seen["loss"]) <= 0.0).all()
    assert seen["invariant_drift"].max() < 1e-13
    assert seen["pinned_neurons"][-1] > 300
    assert seen["kink_crossings"][-1] > 500
    assert seen["newton_iterations"][-1] >= seen["step"][-1]


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_copies_and_leaks_agree_with_small_steps(activation):
    network = {"activation": activation, "antisymmetric": True}
    ours = run(200, {"rtol": 1e-4, "stop_loss": 1e-5}, network)
    euler = {"method": "euler", "step_fraction": 0.02, "max_relative_change": 1e-3}
    theirs = run(200, {**euler, "stop_loss": 1e-5}, network)
    for layer in ("input", "output"):
        assert ours.relative_change[layer] == pytest.approx(theirs.relative_change[layer], rel=2e-3)


def test_neurons_that_begin_on_kinks_or_with_nothing():
    """w = 0, a = 0, both, and preactivations that are 0: the runs end, the loss never rises."""
    generator = np.random.default_rng(1)
    a, w = generator.normal(size=60), generator.normal(size=(2, 60))
    w[:, :10] = 0.0
    a[5:15] = 0.0
    w[:, 15:20] = 0.0
    w[0, 20:25], w[1, 20:25] = 1.0, 0.9  # on the plane of x = -0.9
    w[0, 25:30], w[1, 25:30] = -1.0, 0.4
    result = run(60, initial={"output_weights": a, "input_weights": w})
    assert result.status == "complete"
    assert (np.diff(result.observables["loss"]) <= 0.0).all()
    after = result.weights()
    assert (after[1][:, 5:10] == 0.0).all()  # nothing pulls where both are 0
    assert (after[0][5:10] == 0.0).all()


def test_a_neuron_on_a_repelling_kink_takes_the_inactive_side():
    x, y = np.array([[1.0]]), np.array([1.0])
    data = {"kind": "points", "x": x.tolist(), "y": y.tolist(), "bias": False}
    result = fs.simulate(
        network={"width": 2},
        scaling={"gamma": 0.0, "gamma_prime": 0.0},
        data=data,
        integrate={"method": "kinks", "stop_loss": 1e-8},
        initial={"output_weights": [1.0, 1.0], "input_weights": [[0.1, 0.0]]},
    )
    a, w = result.weights()
    assert w[0, 1] == 0.0
    assert a[1] == 1.0
    assert w[0, 0] * a[0] == pytest.approx(1.0, abs=1e-3)


def test_samples_on_one_line_and_samples_twice():
    data = {
        "kind": "points", "bias": False, "y": [0.5, 1.0, -0.3, 0.2, 0.5],
        "x": [[1.0, 0.5], [2.0, 1.0], [-1.0, -0.5], [0.3, -1.0], [1.0, 0.5]],
    }  # fmt: skip
    result = fs.simulate(
        network={"width": 200},
        scaling={"gamma": 1.0, "gamma_prime": 0.0},
        data=data,
        integrate={"method": "kinks", "stop_loss": 1e-7},
    )
    assert result.status == "complete"
    assert result.loss[-1] < result.loss[0]


@pytest.mark.parametrize(
    ("changed", "remedy"),
    [
        ({"network": {"activation": "tanh"}}, "piecewise linear"),
        ({"integrate": {"dtype": "float32", "rtol": 1e-3}}, 'set dtype = "float64"'),
        ({"integrate": {"loss": "logistic"}, "y": np.sign(Y)}, 'set loss = "square"'),
        ({"network": {"mobility": {"input": 0.0}}}, "network.mobility.input"),
        ({"integrate": {"atol": 1e-3}}, "does not use it"),
    ],
)
def test_what_it_is_not_made_for_is_refused_in_a_line(changed, remedy):
    with pytest.raises(fs.FlowsimError, match=remedy) as caught:
        run(50, **changed)
    assert "integrate" in str(caught.value)
