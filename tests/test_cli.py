"""The command line: what it prints, writes and returns."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest

import flowsim as fs
from flowsim.cli import main


@pytest.fixture(scope="module")
def sweep_folder(tmp_path_factory):
    import conftest

    folder = tmp_path_factory.mktemp("sweep")
    grid = folder / "grid-in.toml"
    grid.write_text(conftest.QUICK_TOML + conftest.QUICK_GRID)
    assert main(["sweep", str(grid), "-o", str(folder / "out"), "--quiet", "--workers", "1"]) == 0
    return folder / "out"


def test_help(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for command in ("run", "sweep", "classify", "plot", "info"):
        assert command in out
        assert main([command, "-h"]) == 0
        assert f"flowsim {command}" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"flowsim {fs.__version__}"


def test_nothing_asked_shows_help(capsys):
    assert main([]) == 2
    assert "Usage" in capsys.readouterr().err


def test_run(experiment_file, tmp_path, capsys):
    path = tmp_path / "run.h5"
    command = ["run", str(experiment_file), "-o", str(path), "--set", "network.width=30"]
    assert main([*command, "--set", "scaling.gamma=0.75", "--threads", "1"]) == 0
    out, err = capsys.readouterr()
    assert "complete" in out and "stop_loss" in out and "relative change: input" in out
    assert not err, "no bar where there is no terminal"
    with fs.open(path) as run:
        assert run.attributes["width"] == 30
        assert run.attributes["gamma"] == 0.75
        assert len(run.final["output_weights"]) == 30


def test_run_overwrites_only_when_told(experiment_file, run_file, capsys):
    command = ["run", str(experiment_file), "-o", str(run_file)]
    before = run_file.read_bytes()
    assert main([*command, "--set", "network.seed=1"]) == 2
    assert run_file.read_bytes() == before
    assert main([*command, "--overwrite", "--set", "network.seed=1"]) == 0
    assert run_file.read_bytes() != before


def test_quiet_is_quiet(experiment_file, tmp_path, capsys):
    assert main(["run", str(experiment_file), "-o", str(tmp_path / "a.h5"), "-q"]) == 0
    assert capsys.readouterr() == ("", "")


def test_error_estimate_is_reported(experiment_file, tmp_path, capsys):
    command = ["run", str(experiment_file), "-o", str(tmp_path / "a.h5"), "--estimate-error"]
    assert main(command) == 0
    assert "estimated error" in capsys.readouterr().out


def test_failed_run_is_kept_and_returns_1(experiment_file, tmp_path, capsys):
    path = tmp_path / "run.h5"
    changes = ["integrate.method=gradient-descent", "integrate.step=1e300"]
    command = ["run", str(experiment_file), "-o", str(path)]
    code = main([*command, *(word for change in changes for word in ("--set", change))])
    with fs.open(path) as run:
        assert run.status == "failed" and run.stop_reason
    assert code == 1
    assert "failed" in capsys.readouterr().out


def test_run_interrupted_by_ctrl_c_is_kept(experiment_file, tmp_path):
    path = tmp_path / "run.h5"
    code = "import sys; from flowsim.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "run", str(experiment_file), "-o", str(path)]
    endless = ["--set", "integrate.method='gradient-descent'", "--set", "integrate.step=1e-9"]
    endless += ["--set", "record.flush.seconds=0.1"]
    process = subprocess.Popen(
        [*command, *endless], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not path.with_name("run.h5.part").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    time.sleep(1.0)
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 75, stderr
    assert "Traceback" not in stderr
    with fs.open(path) as run:
        assert run.status == "preempted" and run.stop_reason.startswith("interrupted")


def test_sweep_and_continue(grid_file, tmp_path, capsys):
    command = ["sweep", str(grid_file), "-o", str(tmp_path / "out"), "--workers", "1"]
    assert main(command) == 0
    assert "8 runs carried out, 0 finished before, 0 failed" in capsys.readouterr().out
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "0 runs carried out, 8 finished before" in out and not err


def test_sweep_takes_changes(grid_file, tmp_path, capsys):
    command = ["sweep", str(grid_file), "-o", str(tmp_path / "out"), "--workers", "1"]
    assert main([*command, "--set", "integrate.stop_loss=2e-3", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    (file, *_) = (tmp_path / "out" / "runs").iterdir()
    with fs.open(file) as runs:
        assert runs[0].config["integrate"]["stop_loss"] == 2e-3


def test_sweep_refuses_changes_without_effect(grid_file, tmp_path, capsys):
    command = ["sweep", str(grid_file), "-o", str(tmp_path / "out")]
    assert main([*command, "--set", "network.width=50"]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("error:") == 1
    assert "network.width = 50" in err and """--set 'grid."network.width"=[50]'""" in err
    assert not (tmp_path / "out").exists()


def test_classify_of_damaged_files_only(tmp_path, capsys):
    for name in ("a.h5", "b.h5"):
        (tmp_path / name).write_text("no run")
    assert main(["classify", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert not out and len(lines) == 2
    assert all(line.count(name) == 1 for line, name in zip(lines, ("a.h5", "b.h5"), strict=True))
    assert all(line.startswith("error:") and "not a run file" in line for line in lines)


def test_classify_prints_a_table(sweep_folder, capsys):
    assert main(["classify", str(sweep_folder)]) == 0
    out = capsys.readouterr().out
    for word in ("gamma", "widths", "20, 40", "input", "output", "all", "predicted", "0.75"):
        assert word in out


def test_classify_prints_json_and_nothing_else(sweep_folder, capsys):
    assert main(["classify", "--json", str(sweep_folder)]) == 0
    out, err = capsys.readouterr()
    assert not err
    result = json.loads(out)
    assert {"points", "zero_line"} <= set(result)
    assert [point["gamma"] for point in result["points"]] == [0.75, 1.25]
    point = result["points"][0]
    assert point["widths"] == [20, 40] and point["seeds"] == 2
    assert set(point["layers"]) == {"input", "output", "all"}
    keys = {"slope", "ci", "regime", "predicted_regime", "relative_change"}
    assert keys <= set(point["layers"]["input"])
    assert result == fs.classify(sweep_folder).to_dict()


@pytest.mark.parametrize("kind", ["phase", "rd", "loss"])
def test_plot_sweep(sweep_folder, tmp_path, kind):
    figure, data = tmp_path / "figure.png", tmp_path / "figure.csv"
    command = ["plot", kind, str(sweep_folder), "-o", str(figure), "--data", str(data)]
    assert main(command) == 0
    assert figure.read_bytes().startswith(b"\x89PNG")
    with data.open(newline="") as lines:
        assert len(list(csv.reader(lines))) > 1


@pytest.mark.parametrize("kind", ["loss", "features", "function"])
def test_plot_run(run_file, tmp_path, kind):
    assert main(["plot", kind, str(run_file), "-o", str(tmp_path / "figure.pdf")]) == 0
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")


def test_plot_names_every_figure(capsys):
    from flowsim.analysis.figures import FIGURES

    assert main(["plot", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(kind in out for kind in FIGURES)


def test_info(run_file, capsys):
    assert main(["info", str(run_file)]) == 0
    out = capsys.readouterr().out
    for word in ("complete", "stop_loss", "two-layer", "width = 40", "relu", "gamma = 1"):
        assert word in out
    for word in ("kappa", "steps", "loss", "relative change", "input", "numpy", "flowsim/1"):
        assert word in out


def test_faults_are_told_without_a_traceback(experiment_file, tmp_path, monkeypatch, capsys):
    import flowsim.config

    def broken(*_: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(flowsim.config, "load_experiment", broken)
    assert main(["run", str(experiment_file), "-o", str(tmp_path / "run.h5")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "out of order" in line
    monkeypatch.setenv("FLOWSIM_DEBUG", "1")
    with pytest.raises(RuntimeError):
        main(["run", str(experiment_file), "-o", str(tmp_path / "run.h5")])
