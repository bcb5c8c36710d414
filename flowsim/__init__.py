"""Gradient flow of wide neural networks, integrated as a system of interacting particles.

Everything that users need hangs on this module and is imported when it is first used, so that
``import flowsim`` costs next to nothing:

>>> import flowsim as fs
>>> run = fs.simulate("experiment.toml", output="run.h5")  # doctest: +SKIP
>>> result = fs.sweep("grid.toml", "sweep/")  # doctest: +SKIP
>>> fs.classify(result)  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_LAZY = {
    "Activation": "flowsim.kernels.activations",
    "ConfigError": "flowsim.errors",
    "DataWarning": "flowsim.errors",
    "Dataset": "flowsim.data",
    "Experiment": "flowsim.config",
    "FileFormatError": "flowsim.errors",
    "FlowsimError": "flowsim.errors",
    "Run": "flowsim.result",
    "Scaling": "flowsim.scaling",
    "StorageError": "flowsim.errors",
    "SweepResult": "flowsim.sweeps",
    "classify": "flowsim.analysis",
    "load_experiment": "flowsim.config",
    "open": "flowsim.api",
    "plot": "flowsim.plotting",
    "simulate": "flowsim.api",
    "sweep": "flowsim.sweeps",
}
"""Public names and the modules they are imported from on first use."""

__all__ = sorted([*_LAZY, "__version__"])

if TYPE_CHECKING:
    from flowsim.analysis import classify as classify
    from flowsim.api import open as open
    from flowsim.api import simulate as simulate
    from flowsim.config import Experiment as Experiment
    from flowsim.config import load_experiment as load_experiment
    from flowsim.data import Dataset as Dataset
    from flowsim.errors import ConfigError as ConfigError
    from flowsim.errors import DataWarning as DataWarning
    from flowsim.errors import FileFormatError as FileFormatError
    from flowsim.errors import FlowsimError as FlowsimError
    from flowsim.errors import StorageError as StorageError
    from flowsim.kernels.activations import Activation as Activation
    from flowsim.plotting import plot as plot
    from flowsim.result import Run as Run
    from flowsim.scaling import Scaling as Scaling
    from flowsim.sweeps import SweepResult as SweepResult
    from flowsim.sweeps import sweep as sweep


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'flowsim' has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
