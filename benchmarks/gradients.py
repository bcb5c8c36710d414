"""Rates of random deep networks against PyTorch's autograd: ``python -m benchmarks gradients``.

Every activation with every loss, one output and several, with and without biases and a second
copy of the network, rates written out and kept as factors. The error of a layer is its largest one
relative to its largest rate.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from flowsim.deep_scaling import DeepScaling
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.kernels.losses import LOSSES
from flowsim.networks.deep import DeepFlow, DeepNetwork

from .common import Table, number, report, version

ONE = np.array([1.0])
ALLOWED = 1e-12
"""What the project asks for."""


def _targets(loss: str, outputs: int, n: int, generator: np.random.Generator) -> np.ndarray:
    if loss == "square":
        return generator.normal(size=n if outputs == 1 else (n, outputs))
    labels = generator.integers(max(outputs, 2), size=n)
    return 2.0 * labels - 1.0 if loss == "logistic" else np.eye(outputs)[labels]


def _random_flow(
    activation: str, loss: str, generator: np.random.Generator, passes: str
) -> tuple[DeepFlow, Any]:
    """A network of random shape and scales on random data, and a state."""
    n, d = int(generator.integers(1, 41)), int(generator.integers(1, 9))
    hidden = int(generator.integers(2 if passes == "factored" else 1, 5))
    outputs = {"square": (1, 8), "logistic": (1, 2), "softmax": (2, 11)}[loss]
    n_outputs = int(generator.integers(*outputs))
    # Multipliers near those that keep signals of size 1, each its own; so with the mobilities.
    exponents = [
        (0.5 * (layer > 0) + generator.uniform(-0.1, 0.1), 0.0, generator.uniform(-0.5, 0.5))
        for layer in range(hidden + 1)
    ]
    network = DeepNetwork(
        DeepScaling.from_exponents(int(generator.integers(1, 151)), exponents),
        ACTIVATIONS[activation],
        relative_widths=tuple(generator.uniform(0.5, 1.5, hidden)),
        antisymmetric=bool(generator.integers(2)),
        biases=bool(generator.integers(2)),
        seed=int(generator.integers(2**31)),
        n_outputs=n_outputs,
    )
    x = np.column_stack([generator.normal(size=(n, d)), np.ones(n)])
    y = _targets(loss, n_outputs, n, generator)
    flow = DeepFlow(network, x, y, loss=loss, passes=passes)
    initial = network.initial_values(d + 1)
    state = initial + 0.3 * generator.normal(size=initial.shape)  # biases are 0, copies mirrored
    # Outputs of size 1 at most: at 1e6, which some activations reach, exp(-y f) has lost six digits
    # before anything is differentiated.
    f = flow.residual(flow.kernels.array(state)) + flow.y
    state[:, flow.field.layout.bounds[-2] :] /= max(1.0, float(np.max(np.abs(f))))
    return flow, flow.kernels.array(state)


def _rate(flow: DeepFlow, theta: Any, residual: np.ndarray) -> np.ndarray:
    """d theta / d time written out (copies, parameters)."""
    slopes, out, zero = flow.empty(1), flow.empty(), np.zeros(np.shape(theta))
    flow.rate(theta, residual, slopes[0])
    flow.combine(flow.kernels.array(zero), slopes, ONE, 1.0, out)
    return np.asarray(out)


def errors(activation: str, loss: str, passes: str, networks: int) -> dict[str, Any]:
    """Largest errors over random networks."""
    from .peers.torch_gradients import TorchNetwork

    seed = [sorted(ACTIVATIONS).index(activation), sorted(LOSSES).index(loss), len(passes)]
    generator = np.random.default_rng(seed)
    rates, risks, parameters = [], [], 0
    for _ in range(networks):
        flow, theta = _random_flow(activation, loss, generator, passes)
        residual, dense = flow.residual(theta), np.asarray(theta)
        peer = TorchNetwork(flow.field, dense, flow.y, loss)
        wanted = peer.rates()
        difference = np.abs(_rate(flow, theta, residual) - wanted)
        for first, last in pairwise(flow.field.layout.bounds):
            # A layer behind dead neurons does not move at all.
            size = float(np.max(np.abs(wanted[:, first:last]))) or 1.0
            rates.append(float(np.max(difference[:, first:last])) / size)
        risks.append(abs(flow.loss(residual) - peer.risk) / max(1.0, peer.risk))
        parameters += dense.size
    return {
        "activation": activation, "loss": loss, "passes": passes, "networks": networks,
        "parameters": parameters, "rate": max(rates), "risk": max(risks),
    }  # fmt: skip


def main(quick: bool = False) -> None:
    """Measure, print and write."""
    if version("torch") is None:
        print("gradients: PyTorch is not installed; pip install 'flowsim[bench]'")
        return
    networks = 3 if quick else 25
    data = [
        errors(activation, loss, passes, networks)
        for activation in ACTIVATIONS
        for loss in LOSSES
        for passes in ("dense", "factored")
    ]
    worst = max(entry["rate"] for entry in data)
    table = Table(
        "Rates against PyTorch's autograd: largest error of a layer over its largest rate",
        ["activation", *(f"{loss}, {way}" for loss in LOSSES for way in ("dense", "factored"))],
        note=f"{networks} random networks a cell: 1 to 4 hidden layers (2 to 4 where rates are "
        "kept as factors) of 1 to 225 neurons, 1 to 40 samples, 1 to 7 outputs (logistic 1, "
        "softmax 2 to 10) of size 1 at most, half of them with biases, half with a second copy. "
        f"{sum(entry['parameters'] for entry in data):,} entries in all; the worst is "
        f"{number(worst)}, R itself differs by at most "
        f"{number(max(entry['risk'] for entry in data))} (relative to R, or to 1 where R is "
        f"smaller). The project asks for {ALLOWED:g}: {'holds' if worst <= ALLOWED else 'FAILS'}.",
    )
    for activation in ACTIVATIONS:
        cells = [number(entry["rate"]) for entry in data if entry["activation"] == activation]
        table.rows.append([activation, *cells])
    report("gradients", [table], data, quick, ("torch",))
