"""Measures of condensation, on directions that are known and on runs."""

import numpy as np
import pytest
from flows import PUBLISHED_X, PUBLISHED_Y

import flowsim as fs
from flowsim.analysis.condensation import (
    condensation,
    directions,
    find_orientations,
    pinned_share,
    sorted_cosines,
)
from flowsim.errors import ConfigError, FileFormatError

RANDOM = np.random.default_rng(2)


def at(degrees):
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


def test_orientations_are_counted_by_caps():
    units = at(np.array([0.0, 3.0, -4.0, 90.0, 95.0, 180.0]))
    amplitudes = np.array([4.0, 1.0, 1.0, 2.0, 1.0, 1.0])
    found = find_orientations(units, amplitudes)
    np.testing.assert_allclose(found.shares, [0.6, 0.3, 0.1])
    assert found.number == 3
    np.testing.assert_allclose(found.directions[:, 2], units[:, 5])
    assert found.effective_number == pytest.approx(1.0 / 0.46)
    assert found.leading(2) == pytest.approx(0.9)
    assert find_orientations(units, amplitudes, share=0.85).number == 2
    assert find_orientations(units, amplitudes, lines=True).number == 2
    assert find_orientations(units, amplitudes, angle=2.0).number == 6


def test_the_count_does_not_depend_on_order_or_size():
    units = at(RANDOM.uniform(0.0, 360.0, size=200))
    amplitudes = RANDOM.exponential(size=200)
    first = find_orientations(units, amplitudes)
    order = RANDOM.permutation(200)
    again = find_orientations(units[:, order], 7.0 * amplitudes[order])
    np.testing.assert_allclose(again.shares, first.shares, rtol=1e-12)
    assert again.number == first.number


def test_what_is_spread_out_has_no_number():
    units = RANDOM.normal(size=(40, 400))
    units /= np.linalg.norm(units, axis=0)
    assert find_orientations(units, np.ones(400)).number == np.inf
    assert find_orientations(units[:, :0], np.zeros(0)).number == np.inf


@pytest.mark.parametrize("options", [{"angle": 0.0}, {"angle": 100.0}, {"share": 0.0}])
def test_a_rule_that_makes_no_sense_is_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        find_orientations(at(np.zeros(1)), np.ones(1), **options)


def test_directions_leave_out_neurons_of_zero_norm():
    w = np.array([[3.0, 0.0, 0.0], [4.0, 0.0, 2.0]])
    units, amplitudes = directions(w, np.array([1.0, 5.0, -2.0]))
    np.testing.assert_allclose(units, [[0.6, 0.0], [0.8, 1.0]])
    np.testing.assert_allclose(amplitudes, [5.0, 4.0])
    several = directions(w, np.array([[3.0, 4.0], [0.0, 0.0], [0.0, 1.0]]))[1]
    np.testing.assert_allclose(several, [25.0, 2.0])


def test_sorted_cosines_bring_groups_together():
    group = RANDOM.permutation(np.repeat([0, 1], 10))
    units = at(np.where(group == 0, 10.0, 170.0) + RANDOM.normal(size=20))
    matrix, order = sorted_cosines(units)
    assert sorted(order) == list(range(20))
    assert abs(np.diff(group[order])).sum() == 1
    np.testing.assert_allclose(matrix, units[:, order].T @ units[:, order], atol=1e-14)


def test_pinned_neurons_have_their_kink_on_a_sample():
    x = np.array([[0.5, 1.0], [-0.2, 1.0]])
    w = np.array([[2.0, 1.0, 2.0], [-1.0, 0.2, -1.01]])  # kinks at 0.5, -0.2, 0.505
    assert pinned_share(w, x) == pytest.approx(2 / 3)
    assert pinned_share(w, x, tolerance=0.1) == 1.0
    assert pinned_share(w, np.zeros((1, 2))) == 0.0


@pytest.fixture(scope="module")
def condensed():
    return fs.simulate(
        network={"width": 200, "antisymmetric": True},
        scaling={"gamma": 1.75, "gamma_prime": 0.0},
        x=PUBLISHED_X[:, :1],
        y=PUBLISHED_Y,
        integrate={"stop_loss": 1e-4, "threads": 1},
        record={"snapshots": {"schedule": "log", "per_decade": 3}},
    )


def test_a_condensed_run_gathers_in_two_orientations(condensed):
    found = condensation(condensed)
    assert [one.time for one in found] == [
        *condensed.snapshots["time_snapshot"][:-1], float(condensed.final["time"])
    ]  # fmt: skip
    first, last = found[0], found[-1]
    assert first.number > 10
    assert first.effective_number > 10
    assert last.number == 2
    assert last.leading[1] > 0.95
    assert all(low <= high for low, high in zip(last.leading, last.leading[1:], strict=False))


def test_deep_runs_are_measured_layer_by_layer():
    run = fs.simulate(
        network={"kind": "deep", "width": 12, "hidden_layers": 2, "antisymmetric": True},
        scaling={"scheme": "mup"},
        x=PUBLISHED_X[:, :1],
        y=PUBLISHED_Y,
        integrate={"max_steps": 3, "threads": 1},
    )
    found = condensation(run)[-2:]
    assert [one.layer for one in found] == [1, 2]
    assert np.isnan(found[1].pinned)
    w2, a = run.final["hidden_weights_2"], run.final["output_weights"]
    units, amplitudes = directions(w2, a)
    assert found[1].number == find_orientations(units, amplitudes).number


def test_a_run_without_weights_is_refused(condensed):
    contents = condensed.contents()
    from dataclasses import replace

    groups = {name: group for name, group in contents.groups.items() if name in ("data",)}
    with pytest.raises(FileFormatError, match="no weights"):
        condensation(fs.Run(replace(contents, groups=groups)))


def test_the_figures_of_condensation_take_a_layer(condensed, tmp_path):
    for kind in ("condensation", "cosines"):
        data = tmp_path / f"{kind}.csv"
        fs.plot(kind, condensed, tmp_path / f"{kind}.png", data)
        assert len(data.read_text(encoding="utf-8").splitlines()) > 5
        with pytest.raises(ConfigError, match="layer = 2"):
            fs.plot(kind, condensed, tmp_path / "no.png", layer=2)
