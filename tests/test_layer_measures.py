"""Ranks, orientations, and what each layer's kernel has to do with the targets."""

import numpy as np
import pytest
from deep_flows import make_flow, make_inputs, make_network
from flows import make_flow as make_two_layer_flow
from flows import make_network as make_two_layer_network

import flowsim as fs
from flowsim.networks.layer_measures import effective_ranks, mean_cosines
from flowsim.networks.tangent_kernel import TangentKernel

NAMES = (
    *("effective_rank", "mean_cosine", "mean_squared_cosine", "kernel_alignment"),
    *("centred_kernel_alignment", "kernel_distance"),
)


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def by_definition(weights):
    values = np.concatenate([np.linalg.svd(one, compute_uv=False) for one in weights])
    shares = values[values > 0.0] / values.sum()
    return np.prod(shares**-shares)


@pytest.mark.parametrize("shapes", [[(3, 40), (40, 1)], [(30, 8), (8, 9), (9, 1)]])
def test_effective_ranks_are_those_of_the_singular_values(shapes):
    matrices = [random(*shape, seed=k) for k, shape in enumerate(shapes)]
    expected = [by_definition([one]) for one in matrices] + [by_definition(matrices)]
    np.testing.assert_allclose(effective_ranks(matrices), expected, rtol=1e-7)


def test_effective_rank_counts_equal_singular_values():
    rotation = np.linalg.qr(random(12, 12))[0]
    for rank in (1, 5, 12):
        matrix = 7.0 * rotation[:, :rank] @ np.linalg.qr(random(30, 12))[0][:, :rank].T
        assert effective_ranks([matrix])[0] == pytest.approx(rank, rel=1e-6)
    assert np.array_equal(effective_ranks([np.zeros((4, 5))]), [0.0, 0.0])
    assert np.isnan(effective_ranks([np.full((2, 3), np.inf)])).all()


@pytest.mark.parametrize(("d", "m", "q"), [(3, 20, 1), (20, 7, 4)])
@pytest.mark.parametrize("power", [1, 2])
def test_mean_cosines_are_sums_over_pairs_of_neurons(d, m, q, power):
    inwards, outwards = random(d, m), random(m, q, seed=1)
    inwards[:, 2] = outwards[4] = 0.0
    total = weight = 0.0
    for k in range(m):
        for other in range(m):
            lengths = [np.linalg.norm(inwards[:, j]) for j in (k, other)]
            levers = [np.linalg.norm(outwards[j]) for j in (k, other)]
            pair = np.prod(lengths) * np.prod(levers)
            if pair > 0.0:
                cosine = inwards[:, k] @ inwards[:, other] / np.prod(lengths)
                total += pair * cosine**power
            weight += pair
    assert mean_cosines(inwards, outwards, power) == pytest.approx(total / weight, rel=1e-12)


def test_neurons_that_have_gathered_have_cosine_one():
    direction, sizes = random(6), np.linspace(-1.0, 2.0, 10)
    inwards, outwards = np.outer(direction, np.abs(sizes)), random(10, 1)
    assert mean_cosines(inwards, outwards, 1) == pytest.approx(1.0)
    inwards = np.outer(direction, sizes)
    assert mean_cosines(inwards, outwards, 2) == pytest.approx(1.0)
    assert mean_cosines(inwards, outwards, 1) < 0.9
    isotropic = mean_cosines(random(4, 40_000), random(40_000, 1, seed=1), 2)
    assert isotropic == pytest.approx(0.25, abs=2e-3)
    assert mean_cosines(np.zeros((3, 5)), random(5, 1), 2) == 0.0


def test_alignment_is_a_cosine_between_matrices():
    grams = np.array([one @ one.T for one in random(3, 7, 5)])
    kernel, y = TangentKernel(grams, np.array([0.3, 2.0, 0.0])), random(7, seed=2)
    centring = np.eye(7) - 1.0 / 7.0
    for centred, left in ((False, np.eye(7)), (True, centring)):
        expected = []
        for gram in (*grams, 0.3 * grams[0] + 2.0 * grams[1]):
            one, other = left @ gram @ left, np.outer(left @ y, left @ y)
            expected.append(np.sum(one * other) / np.linalg.norm(one) / np.linalg.norm(other))
        np.testing.assert_allclose(kernel.alignments(y, centred), expected, rtol=1e-12)
    perfect = TangentKernel(np.outer(y, y)[None], np.ones(1))
    np.testing.assert_allclose(perfect.alignments(y), 1.0)
    assert np.array_equal(kernel.alignments(np.ones(7), centred=True), np.zeros(4))
    np.testing.assert_allclose(TangentKernel(3.0 * grams, kernel.mobilities).distances(kernel), 2.0)


@pytest.mark.parametrize("passes", ["dense", "factored"])
def test_flows_give_the_measures_of_their_first_copy(passes):
    network = make_network(3, 12, biases=True, antisymmetric=True)
    flow, theta = make_flow(network, make_inputs(6), way=("cpu", passes))
    arrays = flow.parameters(theta)
    names = ("input_weights", "hidden_weights_2", "hidden_weights_3", "output_weights")
    weights = [arrays[name].reshape(len(arrays[name]), -1) for name in names]
    np.testing.assert_allclose(flow.effective_ranks(theta), effective_ranks(weights))
    expected = [mean_cosines(*pair, 2) for pair in zip(weights, weights[1:], strict=False)]
    np.testing.assert_allclose(flow.mean_cosines(theta, 2), expected, rtol=1e-12)
    slopes, out = flow.empty(1), flow.empty()
    flow.advance(theta, flow.residual(theta), theta, slopes, np.ones(1), 0.1, out, slopes[0])
    before = flow.effective_ranks(out)
    flow.settle(out)
    assert np.array_equal(flow.effective_ranks(out), before)


def test_two_layers_give_the_measures_of_their_first_copy():
    flow = make_two_layer_flow(make_two_layer_network(30, "relu", antisymmetric=True))
    a, w = flow.initial[0, :30], flow.initial[1:, :30]
    np.testing.assert_allclose(flow.effective_ranks(flow.initial), effective_ranks([w, a[:, None]]))
    np.testing.assert_allclose(flow.mean_cosines(flow.initial, 1), [mean_cosines(w, a[:, None], 1)])


@pytest.mark.parametrize("kind", ["two-layer", "deep"])
def test_they_are_saved_where_they_are_named(kind, tmp_path):
    """With rows of the kernel at other times, in a file, and the same when continued."""
    network = {"kind": kind, "width": 64, "seed": 2}
    scaling = {"gamma": 1.5, "gamma_prime": 0.0} if kind == "two-layer" else {"gamma_3": 2.4}
    separate = {"kernel_distance": {"schedule": "steps", "every": 4}}
    record = {
        "observables": {"names": ["loss", *NAMES[:-1]], "schedule": "linear", "every": 1.0},
        "kernel": {"schedule": "linear", "every": 1.0},
        "separate": separate,
    }
    x = np.array([-0.5, -0.1, 0.2, 0.5])

    def simulate(path, **integrate):
        return fs.simulate(
            network=network, scaling=scaling, x=x, y=x**2, record=record,
            integrate={"stop_loss": 1e-5, "threads": 1} | integrate, output=path,
        )  # fmt: skip

    run = simulate(tmp_path / "run.h5")
    rows, layers = len(run.observables["time"]), 3 if kind == "two-layer" else 4
    for name in NAMES[:-1]:
        columns = layers - 2 if "cosine" in name else layers
        assert run.observables[name].shape == (rows, columns)
        assert np.all(np.isfinite(run.observables[name]))
    distance = run.group("series_kernel_distance")["kernel_distance"]
    assert np.array_equal(distance[0], np.zeros(layers)) and np.all(distance[-1][:-2] > 0.0)
    assert distance[-1, -1] == pytest.approx(run.group("kernel")["distance"][-1])
    cosines = run.observables["mean_squared_cosine"]
    assert cosines[-1, 0] > cosines[0, 0] + 0.05  # condensed: the input weights gather
    simulate(tmp_path / "parts.h5", max_steps=20)
    simulate(tmp_path / "parts.h5")
    with fs.open(tmp_path / "run.h5") as whole, fs.open(tmp_path / "parts.h5") as parts:
        for name in ("observables", "series_kernel_distance"):
            for key in (*NAMES, "time"):
                if key in whole.group(name):
                    ends = [run.group(name)[key] for run in (whole, parts)]
                    assert ends[0][-1].tobytes() == ends[1][-1].tobytes(), key
