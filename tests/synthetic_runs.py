"""Small made-up ``run.h5`` files in the format ``flowsim/1``, for tests that only read files.

Nothing is integrated: the relative changes follow a prescribed power of the width, so that a test
knows which slope and which regime must come out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tomli_w

LAYERS = ("input", "output", "all")
X_POINTS = ((-0.5,), (-1.0 / 6.0,), (1.0 / 6.0,), (0.5,))
Y_POINTS = (0.25, 1.0 / 36.0, 1.0 / 36.0, 0.25)
REACHED = "stop_loss: the loss 9.7e-06 is below 1e-05"


def experiment(
    *,
    width: int = 100,
    gamma: float = 1.0,
    gamma_prime: float = 0.0,
    seed: int = 0,
    scaling: Mapping[str, Any] | None = None,
    antisymmetric: bool = False,
    bias: bool = True,
    x: Sequence[Sequence[float]] = X_POINTS,
    y: Sequence[float] = Y_POINTS,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Return a resolved experiment as nested dictionaries; ``overrides`` has dotted keys."""
    config: dict[str, dict[str, Any]] = {
        "network": {
            "kind": "two-layer",
            "width": width,
            "activation": "relu",
            "antisymmetric": antisymmetric,
            "seed": seed,
            "mobility": {"input": 1.0, "output": 1.0},
        },
        "scaling": dict(scaling)
        if scaling is not None
        else {"gamma": gamma, "gamma_prime": gamma_prime, "beta2": 1.0},
        "data": {
            "kind": "points",
            "x": [list(map(float, row)) for row in x],
            "y": [float(value) for value in y],
            "bias": bias,
        },
        "integrate": {"method": "auto", "rtol": 1e-3, "stop_loss": 1e-5, "steady_slope": 1e-4},
        "record": {"observables": {"schedule": "log", "per_decade": 20}},
    }
    for key, value in (overrides or {}).items():
        section, name = key.split(".", 1)
        config[section][name] = value
    return config


def write_run(
    path: str | Path,
    *,
    relative_change: Sequence[float] = (0.1, 0.2, 0.15),
    status: str = "complete",
    stop_reason: str = REACHED,
    kappa: float | None = None,
    kappa_prime: float | None = None,
    n_times: int = 40,
    n_snapshots: int = 3,
    final: bool = True,
    **experiment_keys: Any,
) -> Path:
    """Write one run and return its path.

    Parameters
    ----------
    path : path
        The file; its folder must exist.
    relative_change : sequence of 3 floats
        RD at the stop of the input weights, the output weights and all.
    status, stop_reason : str
        The root attributes of the same names.
    kappa, kappa_prime : float, optional
        Needed when ``scaling`` is not given by exponents.
    n_times, n_snapshots : int
        Rows of ``/observables`` and ``/snapshots``.
    final : bool
        Whether the run has a ``/final`` group (a killed run has none).
    **experiment_keys
        Passed to `experiment`.
    """
    config = experiment(**experiment_keys)
    width, seed = config["network"]["width"], config["network"]["seed"]
    scaling = config["scaling"]
    if kappa is None:
        kappa = float(width) ** -scaling["gamma"]
    if kappa_prime is None:
        kappa_prime = float(width) ** -scaling["gamma_prime"]
    x = np.array(config["data"]["x"], dtype=np.float64)
    y = np.array(config["data"]["y"], dtype=np.float64)
    if config["data"]["bias"]:
        x = np.column_stack([x, np.ones(len(x))])
    path = Path(path)
    with h5py.File(path, "w") as file:
        _root(file, config, status, stop_reason, kappa, kappa_prime, x.shape[1])
        change = np.array(relative_change, dtype=np.float64)
        residual = _observables(file, change, y, n_times)
        copies = 2 if config["network"]["antisymmetric"] else 1
        generator = np.random.default_rng([width, seed])
        initial = _weights(generator, x.shape[1], copies * width)
        last = _condense(*initial, strength=min(1.0, change[0] / 2.0))
        _snapshots(file, initial, last, n_snapshots)
        _kernel(file, y)
        data = file.create_group("data")
        data.create_dataset("x", data=x)
        data.create_dataset("y", data=y)
        data.attrs["bias"] = config["data"]["bias"]
        if final:
            group = file.create_group("final")
            group["output_weights"], group["input_weights"] = last
            group["relative_change"] = change
            group["sup_relative_change"] = 1.1 * change
            group["loss"] = 0.5 * np.mean(residual**2)
            group["time"] = 100.0
            group["residual"] = residual
    return path


def make_sweep(
    folder: str | Path,
    *,
    gammas: Iterable[float] = (0.5, 1.0, 1.75),
    gamma_primes: Iterable[float] = (0.0,),
    widths: Iterable[int] = (100, 200, 400),
    seeds: int = 3,
    slope: Callable[[float, float, str], float] | None = None,
    scatter: float = 0.02,
    **run_keys: Any,
) -> Path:
    """Write a sweep folder ``folder/runs/*.h5`` with a ``grid.toml`` and return ``folder``.

    Parameters
    ----------
    folder : path
        Made when it does not exist.
    gammas, gamma_primes, widths : iterables
        The grid.
    seeds : int
        Seeds 0 .. seeds - 1 at every width.
    slope : callable of (gamma, gamma_prime, layer), optional
        True slope of log RD against log m; default: ``flowsim.scaling.predicted_slope``.
    scatter : float
        Standard deviation of log RD between seeds.
    **run_keys
        Passed to `write_run`.
    """
    if slope is None:
        from flowsim.scaling import predicted_slope

        slope = predicted_slope
    folder = Path(folder)
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    gammas, gamma_primes, widths = list(gammas), list(gamma_primes), list(widths)
    grid = {
        "grid": {
            "scaling.gamma": gammas,
            "scaling.gamma_prime": gamma_primes,
            "network.width": widths,
            "seeds": seeds,
        }
    }
    (folder / "grid.toml").write_text(tomli_w.dumps(experiment() | grid), encoding="utf-8")
    generator = np.random.default_rng(7)
    small = {"n_times": 12, "n_snapshots": 1} | run_keys
    for gamma in gammas:
        for gamma_prime in gamma_primes:
            for width in widths:
                for seed in range(seeds):
                    noise = np.exp(scatter * generator.standard_normal(3))
                    change = [
                        0.3 * float(width / 1000.0) ** slope(gamma, gamma_prime, layer)
                        for layer in LAYERS
                    ]
                    write_run(
                        folder / "runs" / f"g{gamma}_p{gamma_prime}_m{width}_s{seed}.h5",
                        width=width,
                        gamma=gamma,
                        gamma_prime=gamma_prime,
                        seed=seed,
                        relative_change=list(np.array(change) * noise),
                        **small,
                    )
    return folder


def put_together(folder: str | Path, into: str | Path) -> Path:
    """Put the runs of `make_sweep` that differ in their seed only into ensembles, as sweeps do."""
    from flowsim.recording.ensemble import write_ensemble
    from flowsim.recording.reader import open_run

    points: dict[str, list[Any]] = {}
    for path in sorted((Path(folder) / "runs").glob("*.h5")):
        with open_run(path) as run:
            contents = run.contents()
        contents.attributes["format_version"] = 2
        points.setdefault(path.stem.rpartition("_s")[0], []).append(contents)
    runs = Path(into) / "runs"
    runs.mkdir(parents=True)
    for name, members in points.items():
        write_ensemble(runs / f"{name}.h5", members)
    return Path(into)


def _root(
    file: h5py.File,
    config: dict[str, dict[str, Any]],
    status: str,
    stop_reason: str,
    kappa: float,
    kappa_prime: float,
    n_inputs: int,
) -> None:
    network = config["network"]
    text = tomli_w.dumps(config)
    log_width = np.log(network["width"]) if network["width"] > 1 else 1.0
    beta2 = config["scaling"].get("beta2", 1.0)
    file.attrs.update(
        {
            "format": "flowsim/1",
            "format_version": 1,
            "status": status,
            "stop_reason": stop_reason,
            "config": text,
            "config_hash": hashlib.sha256(text.encode()).hexdigest(),
            "seed": network["seed"],
            "versions": json.dumps({"flowsim": "0"}),
            "hardware": json.dumps({"cpu": "none"}),
            "backend": "cpu",
            "dtype": "float64",
            "created": "2024-01-01T00:00:00+00:00",
            "convention": "made up",
            "network": network["kind"],
            "method": config["integrate"]["method"],
            "width": network["width"],
            "n_samples": len(config["data"]["y"]),
            "n_inputs": n_inputs,
            "activation": network["activation"],
            "antisymmetric": network["antisymmetric"],
            "gamma": config["scaling"].get("gamma", -np.log(kappa) / log_width),
            "gamma_prime": config["scaling"].get("gamma_prime", -np.log(kappa_prime) / log_width),
            "kappa": kappa,
            "kappa_prime": kappa_prime,
            "alpha": kappa_prime * beta2**2 / kappa,
            "beta1": kappa_prime * beta2,
            "beta2": beta2,
        }
    )


def _observables(file: h5py.File, change: np.ndarray, y: np.ndarray, n_times: int) -> np.ndarray:
    """Write an exponential decay from f = 0 to R = 1e-5; return the last residual."""
    time = np.concatenate([[0.0], np.geomspace(1e-3, 100.0, n_times - 1)])
    rate = np.log(0.5 * np.mean(y**2) / 0.97e-5) / 200.0
    residual = -y[None, :] * np.exp(-rate * time)[:, None]
    group = file.create_group("observables")
    scales = {
        "time": time,
        "layer": np.array([name.encode() for name in LAYERS]),
        "sample": np.arange(len(y)),
    }
    for name, values in scales.items():
        group.create_dataset(name, data=values).make_scale(name)
    series: dict[str, tuple[np.ndarray, tuple[str, ...]]] = {
        "step": (np.arange(n_times), ("time",)),
        "loss": (0.5 * np.mean(residual**2, axis=1), ("time",)),
        "residual": (residual, ("time", "sample")),
        "relative_change": (change * (time / time[-1])[:, None], ("time", "layer")),
    }
    for name, (values, axes) in series.items():
        dataset = group.create_dataset(name, data=values)
        for axis, scale in enumerate(axes):
            dataset.dims[axis].attach_scale(group[scale])
    return residual[-1]


def _kernel(file: h5py.File, y: np.ndarray) -> None:
    """Write a spectrum that falls, its least eigenvalue being the rate of `_observables`."""
    rate = np.log(0.5 * np.mean(y**2) / 0.97e-5) / 200.0
    group = file.create_group("kernel")
    group["time_kernel"] = np.array([0.0, 1.0, 100.0])
    group["eigenvalues"] = rate * len(y) * np.array([[1.0, 3.0], [1.0, 2.5], [1.0, 2.0]])
    group["distance"] = np.array([0.0, 0.1, 0.3])


def _snapshots(
    file: h5py.File,
    initial: tuple[np.ndarray, np.ndarray],
    last: tuple[np.ndarray, np.ndarray],
    n_snapshots: int,
) -> None:
    group = file.create_group("snapshots")
    output, inputs = initial
    sizes = {"neuron": output.shape[0], "input": inputs.shape[0]}
    group.create_dataset("time_snapshot", data=np.linspace(0.0, 100.0, n_snapshots))
    group["time_snapshot"].make_scale("time_snapshot")
    for name, size in sizes.items():
        group.create_dataset(name, data=np.arange(size)).make_scale(name)
    share = np.linspace(0.0, 1.0, n_snapshots) if n_snapshots > 1 else np.zeros(n_snapshots)
    mixed_output = np.array([(1 - s) * initial[0] + s * last[0] for s in share])
    mixed_input = np.array([(1 - s) * initial[1] + s * last[1] for s in share])
    axes = ("time_snapshot", "neuron")
    output_data = group.create_dataset(
        "output_weights", data=mixed_output.reshape(n_snapshots, *output.shape).astype(np.float32)
    )
    input_data = group.create_dataset(
        "input_weights",
        data=mixed_input.reshape(n_snapshots, *inputs.shape).astype(np.float32),
    )
    for axis, scale in enumerate(axes):
        output_data.dims[axis].attach_scale(group[scale])
    for axis, scale in enumerate((axes[0], "input", axes[1])):
        input_data.dims[axis].attach_scale(group[scale])


def _weights(
    generator: np.random.Generator, n_inputs: int, neurons: int
) -> tuple[np.ndarray, np.ndarray]:
    return generator.standard_normal(neurons), generator.standard_normal((n_inputs, neurons))


def _condense(
    output: np.ndarray, inputs: np.ndarray, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Turn every neuron towards the nearer of two directions and let it grow."""
    directions = np.zeros((inputs.shape[0], 2))
    directions[0] = (1.0, -1.0)
    directions[-1] += 0.35
    directions /= np.linalg.norm(directions, axis=0)
    cosine = directions.T @ inputs
    target = directions[:, np.argmax(cosine, axis=0)] * np.linalg.norm(inputs, axis=0)
    turned = (1.0 - strength) * inputs + strength * target
    return output * (1.0 + 2.0 * strength), turned * (1.0 + 2.0 * strength)
