"""Members of ensembles on a GPU: the code for both targets, and runs beside those of the CPU.

What is marked ``gpu`` is skipped where no device is; the code is compiled in any case.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from member_cases import BASE, CASES, experiment

import flowsim as fs
from flowsim.ensemble_plans import plan_members
from flowsim.ensembles import run_members
from flowsim.errors import ConfigError
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.kernels.cpu.member_data import ENDING, N_RHS, N_ROWS, N_SNAPSHOTS, N_STEPS, Problem
from flowsim.kernels.cuda import compiler, members, nvrtc
from flowsim.kernels.cuda.compiler import options, source
from flowsim.kernels.cuda.device import device_problem
from flowsim.many import run_together
from flowsim.steppers.interruption import Interruption


def results(experiments):
    """Of members on a GPU."""
    first = experiments[0]
    plan = plan_members(first, first.make_dataset(), ACTIVATIONS[first.network.activation])
    assert plan is not None
    (finished,) = run_members(replace(plan, backend="cuda"), experiments, 1)
    return finished.results


def problem_of(n, d, leak, dtype):
    x = np.ones((n, d))
    return Problem(x.astype(dtype), x, np.ones(n), x @ x.T, leak, (0,) * d, 1)


# Shape, leak, dtype, stages, neurons, and whether the states are in shared memory.
SHAPES = [
    ((4, 2), 0.0, "float64", 2, 2000, True),
    ((4, 2), 0.01, "float32", 1, 400, True),
    ((11, 3), 0.0, "float64", 2, 20000, False),
    ((32, 2), 0.01, "float64", 2, 100, True),
]


@pytest.mark.skipif(nvrtc.library_path() is None, reason="needs the wheel nvidia-cuda-nvrtc")
@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_code_compiles_and_stays_in_registers(shape, target):
    (n, d), leak, dtype, stages, neurons, in_shared = shape
    macros = members.macros(problem_of(n, d, leak, dtype), stages, neurons, in_shared)
    _, kernels = nvrtc.compile_source(source(members.SOURCES), options(macros), target)
    found = kernels["run_members"]
    assert found.spilled == found.stack == 0
    assert found.shared <= members.static_bytes(n)


def test_threads_of_a_block_depend_on_the_network_alone():
    widths = [1, 256, 257, 2000, 10**6]
    assert [members.threads_of(width) for width in widths] == [32, 32, 64, 256, 256]


def test_what_a_function_is_allowed_does_not_become_less(monkeypatch):
    """Kernels compiled alike, for states of several sizes, are one function to the driver."""
    driver = SimpleNamespace(launchKernel=None, CUDADriverError=RuntimeError)
    for name in ("cupy", "cupy.cuda"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(driver=driver))
    monkeypatch.setattr(compiler, "_ALLOWED", {})
    function = SimpleNamespace(kernel=SimpleNamespace(ptr=7), max_dynamic_shared_size_bytes=None)
    allowed = []
    for shared in (0, 4800, 48, 48_000):
        compiler.Kernel(function, shared)
        allowed.append(function.max_dynamic_shared_size_bytes)
    assert allowed == [None, 4800, 4800, 48_000]


@pytest.mark.skipif(not device_problem(), reason="there is a device")
def test_without_a_device_a_list_is_refused_with_the_remedy():
    with pytest.raises(ConfigError, match='backend = "cuda": finds no'):
        fs.simulate([experiment(integrate__backend="cuda")])


def assert_same_bits(ours, theirs):
    for name in ("theta", "residual", "numbers", "counters", "change", "sup_change"):
        assert getattr(ours, name).tobytes() == getattr(theirs, name).tobytes(), name
    for member, counted in enumerate(theirs.counters):
        for name, column in (("rows", N_ROWS), ("snapshots", N_SNAPSHOTS)):
            mine, other = (getattr(one, name)[member, : counted[column]] for one in (ours, theirs))
            assert mine.tobytes() == other.tobytes(), name


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_bits_depend_on_nothing_but_the_member(dtype, monkeypatch):
    many = [
        experiment(seed, scaling__gamma=0.6 + 0.1 * (seed % 9), integrate__dtype=dtype)
        for seed in range(40)
    ]
    once = results(many)
    assert (once.counters[:, ENDING] == 1).all() and len(set(once.counters[:, N_STEPS])) > 20
    assert_same_bits(results(many), once)
    results([experiment(0, network__width=3, integrate__dtype=dtype)])  # the same code, less room
    # Alone, from launch to launch, from portion to portion, out of shared memory.
    alone = results(many[7:8])
    assert_same_bits(alone, type(once)(*(one[7:8] for one in once)))
    monkeypatch.setattr(members, "_FIRST_STEPS", 1)
    monkeypatch.setattr(members, "_SHORT", 0.0)
    assert_same_bits(results(many[:10]), type(once)(*(one[:10] for one in once)))
    monkeypatch.undo()
    monkeypatch.setattr(members, "_SHARE", 0.0)
    assert_same_bits(results(many[:3]), type(once)(*(one[:3] for one in once)))
    monkeypatch.setattr(members, "static_bytes", lambda n: 1 << 30)
    assert_same_bits(results(many[:3]), type(once)(*(one[:3] for one in once)))


COMPARED = sorted(set(CASES) - {"float32", "some observables"})
"""The first has a test of its own, of the second less is left than is compared."""


def run_of(experiment_, backend="cuda"):
    """One member as a run, and the run that the ordinary driver makes of it in NumPy."""
    place = run_together([with_backend(experiment_, backend)], None, None, Interruption())[0]
    assert place is not None, "not carried out as a member"
    return fs.Run(place[0].contents(place[1])), fs.simulate(with_backend(experiment_, "reference"))


def with_backend(experiment_, backend):
    return fs.load_experiment(experiment_, overrides={"integrate.backend": backend})


COUNTED = ("step", "n_rhs", "n_passes", "n_rejected", "active_neurons", "dead_neurons")
ROUNDED = ("time", "loss", "dt", "relative_change", "norm")


def assert_alike(ours, exact, snapshots=1e-5):
    """A float64 member against a run in NumPy: the same steps and rows, numbers to rounding."""
    assert ours.attributes["backend"] == "cuda"
    assert ours.stop_reason == exact.stop_reason
    for name in COUNTED:
        if name in exact.observables:
            np.testing.assert_array_equal(ours.observables[name], exact.observables[name], name)
    for name in ROUNDED:
        if name in exact.observables:
            mine, other = ours.observables[name], exact.observables[name]
            np.testing.assert_allclose(mine, other, 1e-9, 1e-13, err_msg=name)
    for mine, other in ((ours.observables, exact.observables), (ours.final, exact.final)):
        np.testing.assert_allclose(mine["residual"], other["residual"], 0.0, 1e-11)
    drift = [run.observables["invariant_drift"] for run in (ours, exact)]
    np.testing.assert_allclose(*drift, 0.0, 1e-9)
    if "snapshots" in exact.contents().groups:
        times = [run.snapshots["time_snapshot"] for run in (ours, exact)]
        np.testing.assert_allclose(*times, 1e-9)
        for name in ("input_weights", "output_weights"):
            mine, other = (run.snapshots[name] for run in (ours, exact))
            np.testing.assert_allclose(mine, other, snapshots, snapshots)
    for name in ("input_weights", "output_weights"):
        np.testing.assert_allclose(ours.final[name], exact.final[name], 0.0, 1e-10)
    for name in ("relative_change", "sup_relative_change"):
        np.testing.assert_allclose(ours.final[name], exact.final[name], 1e-9)


@pytest.mark.gpu
@pytest.mark.parametrize("case", COMPARED)
def test_members_agree_with_the_driver_in_numpy(case):
    assert_alike(*run_of(experiment(1, **CASES[case])), 1e-10 if "dense" in case else 1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("n", "d", "activation"),
    [(1, 1, "relu"), (5, 4, "leaky_relu"), (8, 8, "relu"), (11, 3, "leaky_relu"),
     (32, 2, "relu")],
)  # fmt: skip
def test_members_agree_for_any_number_of_samples_and_inputs(n, d, activation):
    # Sums are taken in groups of samples; the last group is filled up, and one sample is zero.
    x = np.random.default_rng(n).normal(size=(n, d))
    x[0] *= n == 1
    data = {"kind": "points", "x": x.tolist(), "y": (0.5 * x[:, 0]).tolist(), "bias": False}
    base = BASE | {"data": data, "network": {"width": 150, "activation": activation}}
    assert_alike(*run_of(experiment(1, base, integrate__max_steps=60)))


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["heun", "euler"])
def test_float32_members_agree_to_their_rounding(method):
    some = experiment(1, integrate__dtype="float32", integrate__method=method)
    ours, exact = run_of(some)
    assert ours.status == exact.status
    np.testing.assert_allclose(ours.final["relative_change"], exact.final["relative_change"], 1e-4)
    np.testing.assert_allclose(ours.final["input_weights"], exact.final["input_weights"], 0.0, 1e-3)


@pytest.mark.gpu
def test_lists_are_carried_out_there_in_order_and_saved(tmp_path):
    some = [experiment(seed, integrate__backend="cuda") for seed in (4, 1, 3)]
    runs = fs.simulate([*some, experiment(2, integrate__backend="reference")])
    assert [run.attributes["backend"] for run in runs] == ["cuda"] * 3 + ["reference"]
    assert [run.seed for run in runs] == [4, 1, 3, 2]
    runs[:3].save(tmp_path / "runs.h5")
    with fs.open(tmp_path / "runs.h5") as ensemble:
        assert [run.relative_change for run in ensemble] == [
            run.relative_change for run in runs[:3]
        ]


@pytest.mark.gpu
def test_results_are_those_of_a_small_step():
    """Not only equal to the CPU's: right."""
    ours = results([experiment(seed) for seed in range(3)])
    fine = {"integrate__method": "heun", "integrate__max_relative_change": 1e-3,
            "integrate__step_fraction": 0.1, "integrate__max_steps": 10**6}  # fmt: skip
    exact = results([experiment(seed, **fine) for seed in range(3)])
    assert (exact.counters[:, N_RHS] > 5 * ours.counters[:, N_RHS]).all()
    assert np.max(np.abs(ours.change[:, 0] / exact.change[:, 0] - 1.0)) < 5e-3


@pytest.mark.gpu
def test_a_long_member_goes_the_ordinary_way(monkeypatch):
    monkeypatch.setattr("flowsim.ensembles._PATIENCE", 1e6)
    one = experiment(integrate__backend="cuda")
    assert run_together([one], None, None, Interruption()) == [None]


@pytest.mark.gpu
def test_times_beyond_the_list_of_moments_go_the_ordinary_way(monkeypatch):
    monkeypatch.setattr("flowsim.ensemble_plans._DECADES", (-12, 1))
    one = experiment(integrate__backend="cuda")
    assert run_together([one], None, None, Interruption()) == [None]


@pytest.mark.gpu
def test_a_signal_stops_members_at_work(monkeypatch):
    monkeypatch.setattr("flowsim.ensembles._PATIENCE", 1e18)
    # Steps so short that billions of them would be needed.
    endless = {"integrate__max_steps": None, "integrate__backend": "cuda", "network__width": 2000,
               "integrate__method": "heun", "integrate__max_relative_change": 1e-9}  # fmt: skip
    compiled = experiment(**endless | {"integrate__max_steps": 1})
    assert run_together([compiled], None, None, Interruption()) != [None]
    interruption = Interruption()
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with interruption.listening():
        found = run_together([experiment(**endless)], None, None, interruption)
        timer.join()
    assert interruption.name == "SIGTERM"
    assert found == [None]
