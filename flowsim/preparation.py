"""From what the user gives to what is integrated: experiment, data, network, initial weights."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from h5py import is_hdf5

from flowsim import backends
from flowsim.arguments import argument_problems
from flowsim.config import Experiment, load_experiment
from flowsim.config.sections import DeepNetworkSection, Integrate
from flowsim.data import Dataset, from_arrays
from flowsim.deep_scaling import DeepScaling
from flowsim.errors import ConfigError, FlowsimError
from flowsim.kernels import choose_deep_passes
from flowsim.kernels.activations import ACTIVATIONS, Activation
from flowsim.kernels.cpu.threads import usable_cores
from flowsim.kernels.losses import SQUARE
from flowsim.networks.deep import DeepFlow, DeepNetwork
from flowsim.networks.network import Network
from flowsim.networks.two_layer import TwoLayerFlow, TwoLayerNetwork
from flowsim.recording.places import RunPlaces, check_name
from flowsim.result import Run
from flowsim.scaling import Scaling
from flowsim.steppers import KERNEL_FILTERED, LOW_STORAGE, NEED_KERNEL, ROSENBROCK
from flowsim.steppers.methods import MethodOptions, choose_method, states_of

Source = str | Path | Mapping[str, Any] | Experiment
Initial = Mapping[str, np.ndarray] | str | Path | Run


def resolve(
    experiment: Source | None,
    sections: Mapping[str, Mapping[str, Any]],
    dataset: Dataset | None,
    arrays: Mapping[str, np.ndarray],
    activation: Activation | None,
) -> tuple[Experiment, Dataset]:
    """Merge a file, sections and arrays into a valid experiment and its data."""
    if problems := argument_problems(sections, dataset, arrays, activation):
        raise ConfigError(problems)
    whole = {name: dict(section) for name, section in sections.items()}
    if dataset is None and arrays:
        given = whole.pop("data", {})
        missing = [name for name in ("x", "y") if name not in arrays]
        if missing:
            raise ConfigError(f"{missing[0]}: missing; x and y go together")
        dataset = from_arrays(
            arrays["x"],
            arrays["y"],
            arrays.get("x_test"),
            arrays.get("y_test"),
            bias=given.get("bias", True),
            normalise=given.get("normalise", "none"),
        )
    if dataset is not None:
        whole["data"] = dataset.section()
    # Data replace data; the other sections add key by key.
    overrides: dict[str, Any] = {"data": whole.pop("data")} if "data" in whole else {}
    for name, section in whole.items():
        overrides |= {f"{name}.{key}": value for key, value in section.items()}
    own: tuple[str, ...] = ()
    if activation is not None:
        overrides["network.activation"] = activation.name
        own = (activation.name,)
    resolved = load_experiment(experiment or {}, overrides=overrides, activations=own)
    if dataset is None:
        return resolved, resolved.make_dataset()
    resolved.check_targets(dataset)
    homogeneous = (activation or ACTIVATIONS[resolved.network.activation]).homogeneous
    if homogeneous and resolved.integrate.loss in (None, SQUARE):
        dataset.warn_of_parallel_inputs()  # outputs in ratio may well be of one class
    return resolved, dataset


def check_output(
    output: str | Path | None, overwrite: bool, scratch: str | Path | None = None
) -> RunPlaces | None:
    """Check that an output may be written; what it holds already is looked at later.

    Raises
    ------
    ConfigError
        If it is no place for a run, or its folder does not exist or is not writable.
    """
    if output is None:
        if scratch is not None:
            raise ConfigError(f"scratch = {scratch}: a run in memory needs none; remove it")
        return None
    target = Path(output)
    if target.is_dir():
        raise ConfigError(f"output = {target}: is a folder; name a file in it, e.g. run.h5")
    check_name("output", target)
    if target.exists() and not target.is_file():
        raise ConfigError(f"output = {target}: is a pipe or a device; name a file, e.g. run.h5")
    # A damaged run may go; an experiment file that was named by mistake may not.
    run_file = target.suffix in (".h5", ".hdf5") or (target.exists() and is_hdf5(target))
    if target.exists() and overwrite and not run_file:
        raise ConfigError(
            f"output = {target}: exists and is no run file; remove it yourself or use another name"
        )
    _check_folder("output", target, target.parent)
    if scratch is not None:
        _check_folder("scratch", Path(scratch), Path(scratch))
    return RunPlaces(target, None if scratch is None else Path(scratch))


def _check_folder(key: str, path: Path, folder: Path) -> None:
    if not folder.is_dir():
        raise ConfigError(f"{key} = {path}: there is no folder {folder}; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"{key} = {path}: the folder {folder} is not writable; choose another")


_SHARE = 0.8
"""Of the machine's memory that ``auto`` means to fill with copies of the state at the most."""


_MANY_OUTPUTS = 2048
"""Rows of K up to which ``auto`` takes a method that needs it, where samples have several outputs:
its largest eigenvalue then costs about as much as a hundred passes at width 1,000."""


_FIRST_STEP = 4
"""Copies of the state that a first step with learning rates of its own makes, and then drops."""


def _kept_states(section: Integrate) -> int:
    """Copies of the state besides the method's: the initial one, and what outlives a first run."""
    # Its end and where it could be continued, while it is carried out again to estimate its error.
    return 3 if section.estimate_error else 1


def _needs_dense_rates(method: str, section: Integrate) -> bool:
    """Whether rates are added up from step to step: then their rank is not n."""
    return method in LOW_STORAGE or bool(section.momentum)


def _factored(network: Network, dataset: Dataset, section: Integrate) -> bool:
    """Whether rates of hidden matrices are kept as factors, whatever the method."""
    if not isinstance(network, DeepNetwork) or _needs_dense_rates(section.method, section):
        return False
    way = choose_deep_passes(section.passes, section.backend, len(dataset.x), network.widths)
    return way == "factored"


def resolve_method(experiment: Experiment, network: Network, dataset: Dataset) -> str:
    """Name of the method of an experiment, ``auto`` resolved for this machine.

    Parameters
    ----------
    experiment : Experiment
    network : Network
    dataset : Dataset
    """
    section = experiment.integrate
    if section.method != "auto":
        return section.method
    room = (
        _SHARE * backends.memory_for(section) / network.state_bytes(dataset.n_inputs, section.dtype)
    )
    if _factored(network, dataset, section):
        room = math.inf  # every method works in two copies of the largest matrix
    kinked = network.activation.kinked
    many = dataset.n_outputs > 1 and dataset.y.size > _MANY_OUTPUTS
    if many:
        kinked = False  # K would cost more than what embedded pairs spend on kinks
    return choose_method(kinked, section.rtol, room - _kept_states(section), stiff=not many)


def check_memory(experiment: Experiment, network: Network, dataset: Dataset, method: str) -> None:
    """Refuse a network that cannot fit, before the machine begins to thrash.

    Parameters
    ----------
    experiment : Experiment
    network : Network
    dataset : Dataset
    method : str
        With ``auto`` resolved.

    Raises
    ------
    FlowsimError
        If the state's copies alone take more than the machine's memory, or K does.
    """
    section = experiment.integrate
    _check_kernel(experiment, network, dataset, method)
    needed = memory_of(experiment, network, dataset, method)
    room = backends.free_memory_for(section)
    if needed > room:
        where = "the device has {} free" if section.backend == "cuda" else "the machine has {}"
        raise FlowsimError(
            f"network.width = {network.width}: needs at least {needed / 2**30:.3g} GiB with "
            f'integrate.method = "{method}", {where.format(f"{room / 2**30:.3g}")}; take a smaller '
            'width, dtype = "float32" or a method with fewer copies of the state'
        )


def memory_of(experiment: Experiment, network: Network, dataset: Dataset, method: str) -> float:
    """Return the bytes that the copies of a run's state take together.

    Parameters
    ----------
    experiment, network, dataset, method
        See `check_memory`.
    """
    section = experiment.integrate
    options = MethodOptions(batch_size=section.batch_size, momentum=section.momentum or 0.0)
    states: float = states_of(method, options)
    kept = _kept_states(section)
    if method not in LOW_STORAGE and _factored(network, dataset, section):
        states = 1
    if isinstance(network, DeepNetwork) and network.scaling.first is not None:
        states += _FIRST_STEP
    if section.backend == "cuda":
        states += 0.5  # preactivations of few samples with many inputs
    return (states + kept) * network.state_bytes(dataset.n_inputs, section.dtype)


def _check_kernel(experiment: Experiment, network: Network, dataset: Dataset, method: str) -> None:
    """Refuse a method or a record that needs K where K cannot fit."""
    section, kept = experiment.integrate, experiment.record.kernel.schedule != "none"
    # A step of descent is chosen on the first batch.
    samples = dataset.n_samples if kept else min(dataset.n_samples, section.batch_size or 2**63)
    size = samples * dataset.n_outputs
    needs = method in NEED_KERNEL or (method == "gradient-descent" and section.step is None)
    if not (needs or kept):
        return
    # The layers' Gram matrices, K, and what its eigenvalues, or its factors, are found in.
    copies = 4 if method in (*KERNEL_FILTERED, *ROSENBROCK) else 2
    needed, machine = 8.0 * size**2 * (len(network.layers) + copies), backends.machine_memory()
    if needed > machine:
        remedy = (
            f'another method than "{method}", such as "tsit54"' if needs else "no record.kernel"
        )
        raise FlowsimError(
            f"data: K of {samples} samples with {dataset.n_outputs} outputs needs at "
            f"least {needed / 2**30:.3g} GiB, the machine has {machine / 2**30:.3g}; take fewer "
            f"samples or {remedy}"
        )


def make_network(
    experiment: Experiment, dataset: Dataset, activation: Activation
) -> TwoLayerNetwork | DeepNetwork:
    """Build the network of an experiment.

    Parameters
    ----------
    experiment : Experiment
    dataset : Dataset
    activation : Activation

    Returns
    -------
    TwoLayerNetwork or DeepNetwork
    """
    section, scaling = experiment.network, experiment.make_scaling(dataset.x.shape[1])
    if isinstance(section, DeepNetworkSection):
        assert isinstance(scaling, DeepScaling)
        return DeepNetwork(
            scaling=scaling,
            activation=activation,
            relative_widths=tuple(section.relative_widths or ()),
            antisymmetric=section.antisymmetric,
            seed=section.seed,
            biases=section.biases,
            mobility=section.mobility,
            n_outputs=dataset.n_outputs,
        )
    assert isinstance(scaling, Scaling)
    return TwoLayerNetwork(
        scaling=scaling,
        activation=activation,
        antisymmetric=section.antisymmetric,
        seed=section.seed,
        mobility=section.mobility.model_dump(),
    )


def make_flow(
    network: TwoLayerNetwork | DeepNetwork,
    dataset: Dataset,
    section: Integrate,
    method: str,
    initial: np.ndarray | None = None,
) -> TwoLayerFlow | DeepFlow:
    """Bind a network to its data, on the backend that ``[integrate]`` names.

    Parameters
    ----------
    network : TwoLayerNetwork or DeepNetwork
    dataset : Dataset
    section : Integrate
    method : str
        With ``auto`` resolved.
    initial : array, optional
        Initial state; drawn from the seed if absent.
    """
    x, y = dataset.x, network_targets(dataset.y)
    options: dict[str, Any] = {
        "initial": initial,
        "loss": section.loss or SQUARE,
        "backend": section.backend,
        "dtype": section.dtype,
        "threads": section.threads or usable_cores(),
        "passes": section.passes,
        "device": section.device or 0,
    }
    if isinstance(network, DeepNetwork):
        if _needs_dense_rates(method, section):
            options["passes"] = "dense"
        return DeepFlow(network, x, y, **options)
    return TwoLayerFlow(network, x, y, **options)


def network_targets(y: np.ndarray) -> np.ndarray:
    """Targets as a flow takes them: (n,) of one output, (n, o) of several.

    Parameters
    ----------
    y : (n,) or (n, o) array
    """
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def initial_state(
    network: TwoLayerNetwork | DeepNetwork, dataset: Dataset, initial: Initial
) -> np.ndarray:
    """Lay given weights out as a state.

    Raises
    ------
    ConfigError
        If shapes or values do not fit the network.
    """
    if isinstance(initial, str | Path):
        initial = Run(initial)
    arrays = initial.parameters() if isinstance(initial, Run) else initial
    if not isinstance(arrays, Mapping):
        raise ConfigError(
            f"initial = {arrays!r:.60}: wanted a dictionary of arrays, a run or its file"
        )
    if isinstance(network, DeepNetwork):
        return _deep_initial_state(network, dataset, arrays)
    keys = ("output_weights", "input_weights")
    if set(arrays) != set(keys):
        raise ConfigError(f"initial = {sorted(arrays)}: wanted the two arrays {', '.join(keys)}")
    a, w = (np.asarray(arrays[key], np.float64) for key in keys)
    sizes = {network.width, network.neurons}
    inputs = dataset.x.shape[1]
    if a.ndim != 1 or len(a) not in sizes or w.shape != (inputs, len(a)):
        raise ConfigError(
            f"initial: output_weights {a.shape} and input_weights {w.shape}; wanted "
            f"({network.width},) and ({inputs}, {network.width}), bias weights last"
        )
    if not (np.isfinite(a).all() and np.isfinite(w).all()):
        raise ConfigError("initial: has values that are not finite; remove them")
    return network.stack(a, w, copy=len(a) != network.neurons)


def _deep_initial_state(
    network: DeepNetwork, dataset: Dataset, arrays: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Lay given weights of a deep network out as a state."""
    inputs = dataset.x.shape[1]
    shapes = network.parameter_shapes(inputs)
    every = tuple(network.parameter_dims())
    if set(arrays) not in ({*shapes}, {*every}):
        raise ConfigError(f"initial = {sorted(arrays)}: wanted the arrays {', '.join(shapes)}")
    problems = []
    for name, values in arrays.items():
        wanted, values = shapes[name.removeprefix("second_")], np.asarray(values)
        if values.shape != wanted:
            problems.append(f"initial: {name} has shape {values.shape}; wanted {wanted}")
        elif not np.isfinite(values).all():
            problems.append(f"initial: {name} has values that are not finite; remove them")
    if problems:
        raise ConfigError(problems)
    return network.stack(arrays, inputs)
