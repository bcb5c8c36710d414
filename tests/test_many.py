"""Lists of runs: members in compiled code are the runs of the ordinary driver, bit by bit."""

import os
import signal
import threading

import numpy as np
import pytest
from comparing import assert_same
from hypothesis import given, settings
from hypothesis import strategies as st
from member_cases import BASE, CASES, experiment

import flowsim as fs
from flowsim.ensemble_plans import plan_members
from flowsim.ensembles import run_members
from flowsim.errors import ConfigError
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.many import run_together
from flowsim.steppers.interruption import Interruption


def together(experiments):
    """The members that compiled code carries out; None for others."""
    return run_together(experiments, None, None, Interruption())


def same_as_alone(experiments):
    """Every member against the run that the ordinary driver makes of it, whole files."""
    for one, place in zip(experiments, together(experiments), strict=True):
        assert place is not None, "not in compiled code"
        ours, alone = fs.Run(place[0].contents(place[1])), fs.simulate(one)
        assert_same(ours, alone, ("created",), ("wall_seconds",))


@pytest.mark.parametrize("case", sorted(CASES))
def test_members_are_the_runs_of_the_driver(case):
    same_as_alone([experiment(seed, **CASES[case]) for seed in range(2)])


@settings(max_examples=12, deadline=None)
@given(
    width=st.integers(1, 600),
    gamma=st.floats(0.4, 1.8),
    gamma_prime=st.floats(-0.4, 0.4),
    seed=st.integers(0, 10**6),
    method=st.sampled_from(["heun", "euler"]),
    steps=st.integers(1, 400),
)
def test_members_are_the_runs_of_the_driver_whatever_they_are(
    width, gamma, gamma_prime, seed, method, steps
):
    same_as_alone(
        [
            experiment(
                seed,
                network__width=width,
                scaling__gamma=gamma,
                scaling__gamma_prime=gamma_prime,
                integrate__method=method,
                integrate__max_steps=steps,
            )
        ]
    )


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
@pytest.mark.parametrize("n", range(1, 10))
def test_members_are_the_runs_of_the_driver_for_any_number_of_samples(n, activation):
    # Samples go through a pass in groups; the last group is filled up, and one sample is zero.
    x = np.random.default_rng(n).normal(size=(n, 2))
    x[0] = 0.0
    data = {"kind": "points", "x": x.tolist(), "y": (0.5 * x[:, 0]).tolist(), "bias": False}
    base = BASE | {"data": data, "network": {"width": 150, "activation": activation}}
    same_as_alone([fs.load_experiment(base, overrides={"integrate.max_steps": 60})])


def test_a_member_does_not_depend_on_its_company_or_on_threads():
    many = [experiment(seed, scaling__gamma=0.6 + 0.1 * (seed % 9)) for seed in range(40)]
    plan = plan_members(many[0], many[0].make_dataset(), ACTIVATIONS["relu"])
    assert plan is not None
    alone = [run_members(plan, [one], 1)[0].results for one in many]
    for threads in (1, 2, 3):
        (company,) = run_members(plan, many, threads)
        assert company.done.all()
        for member, own in enumerate(alone):
            for name in ("theta", "residual", "numbers", "counters", "change", "sup_change"):
                ours, theirs = getattr(company.results, name)[member], getattr(own, name)[0]
                assert ours.tobytes() == theirs.tobytes(), (threads, member, name)


def test_a_list_gives_its_runs_in_order_and_saves_them(tmp_path):
    alike = [experiment(seed) for seed in range(3)]
    other = experiment(7, network__activation="tanh", integrate__max_steps=20)
    runs = fs.simulate([alike[0], other, *alike[1:]])
    assert [int(run.attributes["seed"]) for run in runs] == [0, 7, 1, 2]
    assert runs[1].attributes["activation"] == "tanh"
    assert len(runs[1:]) == 3
    changes = runs.relative_change
    assert changes["input"].tolist() == [run.relative_change["input"] for run in runs]
    same = fs.simulate(alike)
    same.save(tmp_path / "runs.h5")
    with fs.open(tmp_path / "runs.h5") as ensemble:
        assert [run.relative_change for run in ensemble] == [run.relative_change for run in same]


def test_a_list_takes_what_a_single_run_takes():
    x = np.array([-0.5, 0.1, 0.5])
    sections = [{"network": {"width": 50, "seed": seed}} for seed in range(2)]
    scaling = {"gamma": 1.0, "gamma_prime": 0.0}
    runs = fs.simulate(sections, scaling=scaling, x=x, y=x**2)
    one = fs.simulate(sections[1], scaling=scaling, x=x, y=x**2)
    assert runs[1].relative_change == one.relative_change
    assert fs.simulate([], scaling=scaling).relative_change["input"].shape == (0,)


def test_a_list_has_no_output():
    with pytest.raises(ConfigError, match=r"output: for a single run only; .*save\(\)"):
        fs.simulate([experiment()], output="run.h5")


@pytest.mark.parametrize(
    "overrides",
    [
        {"network__activation": "tanh"},
        {"integrate__method": "tsit54"},
        {"integrate__estimate_error": True},
        {"integrate__backend": "reference"},
        {"integrate__max_seconds": 100.0},
        {"record__kernel": {"schedule": "log"}},
        {"record__observables": {"schedule": "steps", "every": 5}},
        {"network__width": 10**6},
    ],
)
def test_what_does_not_qualify_goes_the_ordinary_way(overrides):
    assert together([experiment(**overrides, integrate__max_steps=2)]) == [None]


def test_a_long_member_goes_the_ordinary_way(monkeypatch):
    monkeypatch.setattr("flowsim.ensembles._PATIENCE", 1e6)
    one = experiment()
    assert together([one]) == [None]
    assert fs.simulate([one])[0].status == "complete"


def test_times_beyond_the_list_of_moments_go_the_ordinary_way(monkeypatch):
    monkeypatch.setattr("flowsim.ensemble_plans._DECADES", (-12, 1))
    assert together([experiment()]) == [None]


def test_a_signal_stops_members_at_work():
    endless = {"integrate__stop_loss": 0.0, "integrate__steady_slope": 0.0,
               "integrate__t_max": 1e12, "integrate__max_steps": None,
               "network__width": 2000}  # fmt: skip
    interruption = Interruption()
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with interruption.listening():
        found = run_together([experiment(**endless)], None, None, interruption)
    timer.join()
    assert interruption.name == "SIGTERM"
    assert found == [None]


def test_results_are_those_of_a_small_step(tmp_path):
    """Not only equal to the driver's: right."""
    runs = fs.simulate([experiment(seed) for seed in range(3)])
    fine = [
        fs.simulate(experiment(seed, integrate__method="heun", integrate__max_relative_change=1e-3,
                               integrate__step_fraction=0.1, integrate__max_steps=10**6))
        for seed in range(3)
    ]  # fmt: skip
    exact = np.array([run.relative_change["input"] for run in fine])
    assert np.max(np.abs(runs.relative_change["input"] / exact - 1.0)) < 5e-3


def test_seeds_are_a_list_of_the_same_experiment():
    runs = fs.simulate(experiment(3), seeds=2)
    assert [int(run.attributes["seed"]) for run in runs] == [3, 4]
    assert runs[1].relative_change == fs.simulate(experiment(4)).relative_change
    assert runs[1].attributes["config"] == fs.simulate(experiment(4)).attributes["config"]
    chosen = fs.simulate(experiment(), seeds=[9, 5])
    assert [int(run.attributes["seed"]) for run in chosen] == [9, 5]


@pytest.mark.parametrize("seeds", [0, -1, True, "2", 1.5, [-1], [0.5]])
def test_bad_seeds_are_refused(seeds):
    with pytest.raises(ConfigError, match="seed"):
        fs.simulate(experiment(), seeds=seeds)
