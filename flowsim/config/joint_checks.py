"""What the sections must agree on with ``[integrate]``: backend, passes, scheme, targets."""

from __future__ import annotations

import numpy as np

from flowsim.config.scaling_section import DeepNamedScheme
from flowsim.config.sections import DeepNetworkSection, Integrate, Network
from flowsim.data import Dataset
from flowsim.deep_scaling import DEEP_SCHEMES
from flowsim.kernels import DEEP_PASSES, PASSES
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.kernels.losses import SQUARE
from flowsim.steppers import KINK_RESOLVING, LOW_STORAGE


def backend_problems(network: Network | DeepNetworkSection, integrate: Integrate) -> list[str]:
    """Check that the backend knows the network, and that there is a device to be named."""
    problems, backend = [], integrate.backend
    if backend == "cuda" and isinstance(network, DeepNetworkSection):
        problems.append(
            'integrate.backend = "cuda": is for two-layer networks; set backend = "cpu" or "auto"'
        )
    if integrate.device is not None and backend not in ("auto", "cuda"):
        problems.append(
            f'integrate.device = {integrate.device}: backend = "{backend}" computes on none; '
            'remove it, or set backend = "cuda"'
        )
    return problems


def passes_problems(network: Network | DeepNetworkSection, integrate: Integrate) -> list[str]:
    """Check that the network can be passed over as it was asked for."""
    deep = isinstance(network, DeepNetworkSection)
    known, key = DEEP_PASSES if deep else PASSES, f'integrate.passes = "{integrate.passes}"'
    if integrate.passes not in known:
        kind = "deep" if deep else "two-layer"
        return [f"{key}: not for a {kind} network; choose from {', '.join(known)}"]
    if integrate.passes != "factored":
        return []
    if integrate.method in LOW_STORAGE:
        return [f'{key}: method "{integrate.method}" needs dense rates; set passes = "dense"']
    if integrate.momentum:
        return [f'{key}: momentum needs dense rates; set passes = "dense"']
    if integrate.backend not in ("auto", "cpu"):
        return [f'{key}: is for backend = "cpu"; set passes = "dense"']
    if isinstance(network, DeepNetworkSection) and network.hidden_layers < 2:
        return [f'{key}: needs network.hidden_layers of at least 2; set passes = "dense"']
    return []


def kinks_problems(network: Network | DeepNetworkSection, integrate: Integrate) -> list[str]:
    """Check that a method that passes kinks neuron by neuron has the network that it needs."""
    if integrate.method not in KINK_RESOLVING:
        return []
    key, problems = f'integrate.method = "{integrate.method}"', []
    if isinstance(network, DeepNetworkSection):
        return [f'{key}: is for two-layer networks; set method = "auto"']
    known = ACTIVATIONS.get(network.activation)
    if known is not None and not (known.kinked and known.leak is not None):
        problems.append(
            f'{key}: is for piecewise linear activations, not for "{network.activation}"; set '
            'method = "auto"'
        )
    frozen = [name for name in ("input", "output") if getattr(network.mobility, name) == 0.0]
    if frozen:
        problems.append(
            f"{key}: needs layers that move, and network.mobility.{frozen[0]} = 0; set method = "
            '"auto"'
        )
    for name, value, wanted in (
        ("dtype", integrate.dtype, ("float64",)),
        ("backend", integrate.backend, ("auto", "cpu", "reference")),
        ("loss", integrate.loss or SQUARE, (SQUARE,)),
    ):
        if value not in wanted:
            problems.append(
                f'{key}: not with {name} = "{value}"; set {name} = "{wanted[0]}", or method = '
                '"auto"'
            )
    return problems


def scheme_problems(
    network: DeepNetworkSection, scaling: DeepNamedScheme, integrate: Integrate
) -> list[str]:
    """Check that a scheme has the network and the time that it needs."""
    problems, scheme = [], scaling.scheme
    if DEEP_SCHEMES[scheme].needs_biases and not network.biases:
        problems.append(f'scaling.scheme = "{scheme}": needs network.biases = true')
    first, t_max = scaling.first_step, integrate.t_max
    if first is not None and t_max is not None and t_max < first:
        problems.append(
            f"integrate.t_max = {t_max:g}: lies within the first step of the scheme, which is "
            f"scaling.first_step = {first:g} long; take a later one"
        )
    return problems


def floor_problems(dataset: Dataset, integrate: Integrate) -> list[str]:
    """Check that rounding lets R come down to ``stop_loss``: e is never less than it, for long.

    Only in float32, and for the square loss: in float64 R falls to 0 or to a steady state, and the
    other losses fall without bound where outputs grow.
    """
    stop, dtype = integrate.stop_loss, integrate.dtype
    if dtype == "float64" or stop == 0.0 or integrate.loss not in (None, SQUARE):
        return []
    # One rounding of outputs as large as the targets.
    floor = 0.5 * float(np.finfo(dtype).eps) ** 2 * float(np.sum(dataset.y**2)) / dataset.n_samples
    if stop >= floor:
        return []
    return [
        f"integrate.stop_loss = {stop:g}: with these targets {dtype} leaves R = {floor:.2g} to "
        f'rounding; set a larger stop_loss, or dtype = "float64"'
    ]
