"""The table of the file format lists what files hold, and nothing else."""

import re
from pathlib import Path

import h5py
import pytest

import flowsim as fs
from flowsim.networks.two_layer import TwoLayerFlow
from flowsim.recording.observables import possible_names
from flowsim.steppers import TALLIES

TABLE = Path(__file__).parents[1] / "flowsim" / "recording" / "FORMAT.md"


def documented():
    rows = {}
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 6 and cells[1].startswith("`"):
            rows[cells[0], cells[1].strip("`")] = tuple(cells[2:5])
    return rows


def test_every_array_is_in_the_table_with_its_axes_type_and_units(tmp_path):
    record = {
        "observables": {"names": possible_names(TwoLayerFlow, True, True)},
        "kernel": {"schedule": "log", "per_decade": 3},
        "separate": {"norm": {"schedule": "steps", "every": 3}},
    }
    for separate in ({}, record["separate"]):
        fs.simulate(
            network={"width": 40, "antisymmetric": True},
            scaling={"gamma": 1.0, "gamma_prime": 0.0},
            integrate={"estimate_error": True, "method": "switching"},
            record=record | {"separate": separate},
            data={
                "kind": "function",
                "function": "x**2",
                "n_samples": 5,
                "low": -1.0,
                "high": 1.0,
                "n_test": 4,
                "normalise": "standardise",
            },
            output=tmp_path / "run.h5",
            overwrite=True,
        )
        rows, found = documented(), {}
        with fs.open(tmp_path / "run.h5") as run:
            for name in run.groups:
                for key in run.group(name):
                    array = run.group(name).array(key)
                    axes = ", ".join(array.dims) or "scalar"
                    found[f"/{name}", key] = axes, str(array.values.dtype), array.units
        if not separate:
            others = {name for names in TALLIES.values() for name in names}
            assert found == {
                key: row
                for key, row in rows.items()
                if "NAME" not in key[0] and key[1] not in others
            }
        else:
            assert ("/series_norm", "norm") in found and ("/series_norm", "time") in found


@pytest.mark.parametrize("method", TALLIES)
def test_what_a_method_counts_is_in_the_table(method):
    run = fs.simulate(
        network={"width": 10},
        scaling={"gamma": 1.0, "gamma_prime": 0.0},
        integrate={"method": method, "max_steps": 2},
        x=[0.0, 1.0],
        y=[0.0, 1.0],
    )
    for name in TALLIES[method]:
        array = run.group("observables").array(name)
        row = ", ".join(array.dims), str(array.values.dtype), array.units
        assert documented()["/observables", name] == row


def test_every_attribute_is_in_the_table(tmp_path):
    fs.simulate(
        network={"width": 10},
        scaling={"gamma": 1.0, "gamma_prime": 0.0},
        x=[0.0, 1.0],
        y=[0.0, 1.0],
        output=tmp_path / "run.h5",
    )
    text = TABLE.read_text(encoding="utf-8")
    with h5py.File(tmp_path / "run.h5") as file:
        names = [*file.attrs, *file["data"].attrs]
    missing = [name for name in names if f"`{name}`" not in text]
    assert not missing
