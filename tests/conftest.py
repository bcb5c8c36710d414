"""Experiments that take a fraction of a second, for every test that needs one."""

from __future__ import annotations

import copy
import gc
import os
from collections import Counter
from typing import Any

import pytest
from hypothesis import settings

# The same examples on every run of continuous integration; new ones wherever else.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_collection_finish():
    """Look for cycles seldom: what Numba's compiler makes lives on, and is searched every time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


LONG_FILES = (
    "test_kernels", "test_deep", "test_cuda_compile", "test_compiled_twice", "test_quality",
    "test_packaging", "test_examples", "test_neuron_blocks", "test_many", "test_kinks",
    "test_sweep_sharing", "test_dense_rates", "test_limits_mean_field", "test_limits_convergence",
    "test_refine", "test_limits_early", "test_limits_kernels",
)  # fmt: skip
"""Those that take long, some with few tests: begun first, none of them is waited for at the end."""


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also the tests marked slow")


def pytest_collection_modifyitems(config, items):
    """Order the files; skip what needs a GPU where there is none, and what is slow."""
    if not config.getoption("--slow"):
        reason = "slow: the suite is to take less than 15 minutes on 2 cores; add --slow"
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason=reason))
    tests = Counter(item.path for item in items)
    early = {name: place for place, name in enumerate(LONG_FILES)}
    last = len(early)
    items.sort(key=lambda item: (early.get(item.path.stem, last), -tests[item.path]))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        from flowsim.kernels.cuda.device import device_problem

        if problem := device_problem():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=f"the backend cuda {problem}"))


QUICK = {
    "network": {"width": 40, "seed": 0},
    "scaling": {"gamma": 1.0, "gamma_prime": 0.0},
    "data": {"kind": "points", "x": [[-0.5], [0.5]], "y": [0.25, 0.5]},
    "integrate": {"stop_loss": 1e-3, "threads": 1},
}

QUICK_TOML = """\
[network]
width = 40

[scaling]
gamma = 1.0
gamma_prime = 0.0

[data]
kind = "points"
x = [[-0.5], [0.5]]
y = [0.25, 0.5]

[integrate]
stop_loss = 1e-3
threads = 1
"""

QUICK_GRID = """
[grid]
"scaling.gamma" = [0.75, 1.25]
"network.width" = [20, 40]
seeds = 2
"""


@pytest.fixture
def experiment() -> dict[str, Any]:
    """A small experiment as nested dictionaries, for the test to change."""
    return copy.deepcopy(QUICK)


@pytest.fixture
def experiment_file(tmp_path):
    """The same experiment as a file."""
    path = tmp_path / "experiment.toml"
    path.write_text(QUICK_TOML, encoding="utf-8")
    return path


@pytest.fixture
def grid_file(tmp_path):
    """Eight runs: two points, two widths, two seeds."""
    path = tmp_path / "grid.toml"
    path.write_text(QUICK_TOML + QUICK_GRID, encoding="utf-8")
    return path


@pytest.fixture
def run_file(experiment_file, tmp_path):
    """A finished run."""
    from flowsim.cli import main

    path = tmp_path / "run.h5"
    assert main(["run", str(experiment_file), "-o", str(path), "--quiet"]) == 0
    return path
