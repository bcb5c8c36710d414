"""One file for a phase diagram: the same answers as the folder, and xarray's axes."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import xarray
from synthetic_runs import make_sweep

from flowsim.analysis import classify
from flowsim.analysis.phase_file import is_phase_file
from flowsim.cli import main
from flowsim.errors import FileFormatError
from flowsim.scaling import predicted_slope

LAYERS = ["input", "output", "all"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = make_sweep(
        tmp_path_factory.mktemp("phase") / "sweep",
        gammas=[0.5, 1.0, 1.75],
        gamma_primes=[-0.2, 0.3],
        widths=[100, 400],
        seeds=2,
    )
    next(iter(sorted((folder / "runs").glob("g1.0_p0.3_m400_s1.h5")))).unlink()
    assert main(["sweep", "collect", str(folder), "-o", str(folder.parent / "phase.h5")]) == 0
    return folder


@pytest.fixture(scope="module")
def collected(sweep):
    return sweep.parent / "phase.h5"


def test_it_answers_as_the_folder_does(sweep, collected):
    assert is_phase_file(collected) and not is_phase_file(sweep)
    there, here = (classify(source).to_dict() for source in (sweep, collected))
    assert here == there and len(here["points"]) == 6


def test_xarray_opens_it_with_all_axes(sweep, collected):
    result = classify(sweep)
    with xarray.open_dataset(collected, engine="h5netcdf") as data:
        assert data.relative_change.dims == ("gamma", "gamma_prime", "width", "seed", "layer")
        assert list(data.gamma) == [0.5, 1.0, 1.75] and list(data.layer) == LAYERS
        missing = data.relative_change.isnull().sum()
        assert missing == 3 and (data.ending == "").sum() == 1
        for point in result.points:
            at = data.sel(gamma=point.gamma, gamma_prime=point.gamma_prime)
            for layer, verdict in point.layers.items():
                one = at.sel(layer=layer)
                assert float(one.slope) == verdict.slope and one.regime == verdict.regime
                assert (float(one.slope_low), float(one.slope_high)) == verdict.ci
                expected = predicted_slope(point.gamma, point.gamma_prime, layer)
                assert float(one.predicted) == pytest.approx(expected)
        zeros = [zero.gamma for zero in result.zero_line]
        assert zeros and data.zero_gamma.values.tolist() == zeros
        assert (data.zero_low < data.zero_gamma).all()


def test_figures_are_drawn_from_it(sweep, collected, tmp_path):
    texts = []
    for source in (sweep, collected):
        figure, data = tmp_path / "phase.png", tmp_path / "phase.csv"
        assert main(["plot", "phase", str(source), "-o", str(figure), "--data", str(data)]) == 0
        texts.append((figure.read_bytes(), data.read_text()))
    assert texts[0] == texts[1]


def test_an_existing_file_is_not_replaced_unasked(sweep, collected, capsys):
    before = collected.read_bytes()
    assert main(["sweep", "collect", str(sweep), "-o", str(collected)]) == 2
    assert "--overwrite" in capsys.readouterr().err and collected.read_bytes() == before


def test_what_has_no_place_on_one_grid_is_refused(tmp_path, capsys):
    folder = make_sweep(tmp_path / "s", gammas=[0.5], widths=[100, 200], seeds=1)
    tanh = {"network.activation": "tanh"}
    make_sweep(tmp_path / "s" / "more", gammas=[0.5], widths=[100, 200], seeds=1, overrides=tanh)
    assert main(["sweep", "collect", str(folder), "-o", str(tmp_path / "phase.h5")]) == 2
    assert "network.activation" in capsys.readouterr().err
    assert not (tmp_path / "phase.h5").exists()


def test_damage_is_told_in_one_line(collected, tmp_path):
    broken = tmp_path / "broken.h5"
    for name in ("layer", "ending", "predicted", "config"):
        broken.write_bytes(collected.read_bytes())
        with h5py.File(broken, "r+") as file:
            if name in file:
                del file[name]
            else:
                file.attrs["config"] = "[" * 10
        with pytest.raises(FileFormatError, match="collect the sweep again") as caught:
            classify(broken)
        assert "\n" not in str(caught.value)
    broken.write_bytes(collected.read_bytes())
    with h5py.File(broken, "r+") as file:
        del file["relative_change"]
        file["relative_change"] = np.zeros(3)
    with pytest.raises(FileFormatError, match="axes"):
        classify(broken)
