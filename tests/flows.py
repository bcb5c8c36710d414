"""Small flows that several test modules integrate."""

from dataclasses import dataclass, field

import numpy as np

from flowsim.kernels.activations import ACTIVATIONS
from flowsim.networks.two_layer import TwoLayerFlow, TwoLayerNetwork
from flowsim.scaling import Scaling
from flowsim.steppers import KINK_RESOLVING
from flowsim.steppers.driver import Observer

PUBLISHED_X = np.array([[-0.5, 1.0], [-1 / 6, 1.0], [1 / 6, 1.0], [0.5, 1.0]])
PUBLISHED_Y = PUBLISHED_X[:, 0] ** 2


def make_network(width=50, activation="tanh", gamma=1.0, gamma_prime=0.0, **options):
    beta2 = options.pop("beta2", 1.0)
    scaling = Scaling(width, gamma, gamma_prime, beta2)
    return TwoLayerNetwork(scaling, ACTIVATIONS[activation], **options)


def suiting(method, activation):
    """The activation, or a kinked one for methods that are for no others."""
    return "relu" if method in KINK_RESOLVING else activation


def make_flow(network=None, x=PUBLISHED_X, y=PUBLISHED_Y, **options):
    return TwoLayerFlow(network or make_network(), x, y, **options)


@dataclass
class Trace(Observer):
    """An observer that keeps times and losses."""

    times: list = field(default_factory=list)
    losses: list = field(default_factory=list)
    steps: list = field(default_factory=list)

    def start(self, point):
        self.times[:] = [point.time]
        self.losses[:] = [point.loss]
        self.steps[:] = []

    def step(self, before, attempt, after, counters):
        self.times.append(after.time)
        self.losses.append(after.loss)
        self.steps.append(attempt.step)
