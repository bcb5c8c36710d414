"""Which backend a run gets, and how much memory it has there."""

from __future__ import annotations

import math
import os

from flowsim.config import Experiment
from flowsim.config.sections import Integrate
from flowsim.data import Dataset
from flowsim.networks.network import Network
from flowsim.networks.two_layer import TwoLayerNetwork

_LEAST_WORK = 2e7
"""Multiply-adds of a pass, neurons x samples x inputs, from which ``auto`` takes a GPU: below, a
pass is over on the CPU before the launches of one and the way back of the sums are worth it."""

_SHARE = 0.9
"""Of a device's memory that states may take; the rest is for partial sums and matrices."""


def resolve_backend(experiment: Experiment, network: Network, dataset: Dataset) -> Experiment:
    """Return the experiment with ``auto`` resolved for this machine.

    ``auto`` is ``cuda`` where CuPy finds the device, the network has two layers, its activation
    has CUDA code, and a pass is long enough; else ``cpu``.

    Parameters
    ----------
    experiment : Experiment
    network : Network
    dataset : Dataset

    Raises
    ------
    ConfigError
        If the backend is ``cuda`` and cannot be used; its text says what installs it.
    """
    section = experiment.integrate
    if section.backend == "cuda":
        from flowsim.kernels.cuda.activations import activation_source
        from flowsim.kernels.cuda.device import use_device

        activation_source(network.activation)
        use_device(section.device or 0)
    if section.backend != "auto":
        return experiment
    if section.on_cpu_only:
        return experiment.with_backend("cpu")
    return experiment.with_backend("cuda" if _worth_a_gpu(section, network, dataset) else "cpu")


def _worth_a_gpu(section: Integrate, network: Network, dataset: Dataset) -> bool:
    n, d = dataset.x.shape
    long = isinstance(network, TwoLayerNetwork) and network.neurons * n * d >= _LEAST_WORK
    if not long:
        return False
    from flowsim.kernels.cuda.activations import CODE
    from flowsim.kernels.cuda.device import device_problem

    return network.activation.name in CODE and not device_problem(section.device or 0)


def memory_for(section: Integrate) -> float:
    """Bytes of memory that states have, used or not; infinity where the machine does not tell.

    Not those that are free: what ``auto`` chooses is not to depend on the hour.

    Parameters
    ----------
    section : Integrate
        With its backend resolved.
    """
    if section.backend == "cuda":
        from flowsim.kernels.cuda.device import total_memory

        return _SHARE * total_memory(section.device or 0)
    return machine_memory()


def free_memory_for(section: Integrate) -> float:
    """Bytes that states may take now: on a GPU what is free of it, else the machine's memory."""
    if section.backend == "cuda":
        from flowsim.kernels.cuda.device import free_memory

        return min(free_memory(section.device or 0), memory_for(section))
    return machine_memory()


def machine_memory() -> float:
    """Bytes of memory that the machine has, used or not; infinity where it does not tell."""
    if not hasattr(os, "sysconf"):
        return math.inf
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
