"""Every example in its quick form, in a folder of its own, as a user would start it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flowsim.config import load_experiment, load_grid
from flowsim.sweeps.grid import expand

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"), key=lambda path: path.name)
FILES = sorted(EXAMPLES.glob("*.toml"), key=lambda path: path.name)
FIGURES = {
    "birth_of_condensation": {"lines.png"},
    "infinite_width": {"infinite_width.png"},
    "integrable": {"integrable.png"},
    "lazy_and_rich": {"lazy_and_rich.png"},
    "loading_files": {"loaded.png"},
    "first_run": {"loss.png", "features.png", "function.png"},
    "phase_diagram": {"phase.png"},
    "pinned_neurons": {"pinned_neurons.png"},
    "rd_against_width": {"rd_against_width.png"},
    "three_layer_phase": {"three_layer_phase.png"},
}
PNG = b"\x89PNG\r\n\x1a\n"


def name_of(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize(
    "script",
    [
        path if path.stem == "first_run" else pytest.param(path, marks=pytest.mark.slow)
        for path in SCRIPTS
    ],
    ids=name_of,
)
def test_an_example_runs_and_leaves_its_figures(script, tmp_path):
    done = subprocess.run(
        [sys.executable, str(script), "--quick"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONWARNINGS": "error::UserWarning"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    folder = tmp_path / script.stem
    assert {path.name for path in folder.glob("*.png")} == FIGURES[script.stem]
    for figure in folder.glob("*.png"):
        assert figure.read_bytes().startswith(PNG)
    # Everything goes into the example's own folder.
    assert [path.name for path in tmp_path.iterdir()] == [script.stem]


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_an_example_is_in_percent_format_and_explains_itself(script):
    lines = script.read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["# %% [markdown]", lines[1]]
    assert lines[1].startswith("# # ")
    assert "# %%" in lines


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_an_experiment_or_grid_file_is_valid(file):
    base, grid = load_grid(file)
    if grid:
        assert expand(base, grid)
    else:
        assert load_experiment(file).make_dataset().n_samples == 4


def test_the_main_job_has_enough_points_for_a_map():
    _, grid = load_grid(EXAMPLES / "phase_diagram.toml")
    assert len(grid["scaling.gamma"]) >= 7
    assert len(grid["scaling.gamma_prime"]) >= 5
    assert len(grid["network.width"]) >= 3


def test_the_scripts_of_the_readme(tmp_path):
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    scripts = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert len(scripts) == 5
    for number, script in enumerate(scripts):  # in this order: the last one reads a file
        path = tmp_path / f"script_{number}.py"
        path.write_text(script, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, path.name],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=os.environ | {"MPLBACKEND": "Agg"},
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "run.h5").exists()
