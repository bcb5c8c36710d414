"""Bad input at the command line: one line a problem, exit code 2, nothing written."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from flowsim.cli import main

HEAD = """\
[network]
width = 20
[scaling]
gamma = 1.0
gamma_prime = 0.0
"""
DATA = """\
[data]
kind = "points"
x = [[-0.5], [0.5]]
y = [0.25, 0.5]
"""
INTEGRATE = """\
[integrate]
stop_loss = 1e-2
"""


@pytest.fixture
def refuse(tmp_path, capfd):
    """Run a file that must be refused and return the lines of standard error."""

    def run(text: str, *options: str, command: str = "run") -> list[str]:
        file = tmp_path / "input.toml"
        file.write_text(text, encoding="utf-8")
        before = sorted(tmp_path.rglob("*"))
        assert main([command, str(file), "-o", str(tmp_path / "out.h5"), *options]) == 2
        assert sorted(tmp_path.rglob("*")) == before, "something was written"
        out, err = capfd.readouterr()
        assert not out
        lines = err.splitlines()
        assert lines and all(line.startswith("error: ") for line in lines), err
        return lines

    return run


def named(lines: list[str], *words: str) -> bool:
    """Tell whether one line names all of ``words``."""
    return any(all(word in line for word in words) for line in lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD.replace("width", "widht") + DATA, ("network.widht", "did you mean", "width")),
        (HEAD.replace("[scaling]", "[scalling]") + DATA, ("scalling", "did you mean", "scaling")),
        (HEAD.replace("20", "-20") + DATA, ("network.width", "-20")),
        (HEAD.replace("20", "0") + DATA, ("network.width", "0")),
        (HEAD.replace("20", "2.5") + DATA, ("network.width", "2.5")),
        (HEAD.replace("20", '"many"') + DATA, ("network.width", "many")),
        (HEAD.replace("20", "true") + DATA, ("network.width",)),
        (HEAD.replace("width = 20", "seed = 1") + DATA, ("network.width",)),
        (HEAD.replace("20", '20\nactivation = "rellu"') + DATA, ("rellu", "did you mean", "relu")),
        (HEAD.replace("20", '20\nkind = "three-layer"') + DATA, ("network.kind", "three-layer")),
        (HEAD.replace("20", "20\nseed = -1") + DATA, ("network.seed", "-1")),
        (HEAD.replace("20", "20\nmobility = {input = -1.0}") + DATA, ("mobility", "-1")),
        (HEAD.replace("1.0", "nan") + DATA, ("scaling.gamma", "nan")),
        (HEAD.replace("1.0", "inf") + DATA, ("scaling.gamma", "inf")),
        (HEAD.replace("gamma = 1.0", "alpha = 1.0") + DATA, ("scaling",)),
        (HEAD.replace("gamma = 1.0", 'scheme = "ntk"') + DATA, ("scaling",)),
        (HEAD + DATA.replace("0.5]", "nan]"), ("data.x",)),
        (HEAD + DATA.replace("0.25", "inf"), ("data.y",)),
        (HEAD + DATA.replace("0.25, 0.5", "0.25"), ("data.y", "2", "1")),
        (HEAD + DATA.replace("[[-0.5], [0.5]]", "[]").replace("[0.25, 0.5]", "[]"), ("data.x",)),
        (HEAD + DATA.replace("[0.5]]", "[0.5, 1.0]]"), ("data.x",)),
        (HEAD + DATA.replace("points", "pionts"), ("data.kind", "pionts", "points")),
        (HEAD + DATA + "[integrate]\nrtol = 1e-15", ("integrate.rtol", "1e-15", "float64")),
        (HEAD + DATA + '[integrate]\nrtol = 1e-9\ndtype = "float32"', ("integrate.rtol", "1e-09")),
        (HEAD + DATA + "[integrate]\nrtol = 0", ("integrate.rtol", "0")),
        (HEAD + DATA + "[integrate]\nstop_loss = -1.0", ("integrate.stop_loss", "-1")),
        (HEAD + DATA + '[integrate]\nmethod = "rk45"', ("integrate.method", "rk45")),
        (HEAD + DATA + "[integrate]\nt_max = -1", ("integrate.t_max", "-1")),
        (HEAD + DATA + '[record]\nobservables = {schedule = "lgo"}', ("record.observables", "lgo")),
        (HEAD + DATA + "[network]\nwidth = 1", ("line",)),
        (HEAD + DATA + "[integrate\n", ("line",)),
        ("", ("network",)),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value),
)
def test_one_line_names_key_and_value(refuse, text, words):
    lines = refuse(text)
    assert named(lines, *words), lines


def test_everything_wrong_is_told_at_once(refuse):
    text = HEAD.replace("20", "-20").replace("gamma_prime", "gamma_pirme")
    lines = refuse(text + DATA + "[integrate]\nrtol = 1e-15\nstop_los = 1e-3")
    for word in ("network.width", "gamma_pirme", "integrate.rtol", "stop_los"):
        assert named(lines, word), lines


@pytest.mark.parametrize(
    "function",
    ["__import__('os').system('true')", "x.__class__", "().__class__", "open('f')", "x**", "z + 1"],
)
def test_functions_are_never_evaluated_as_python(refuse, function):
    data = f'[data]\nkind = "function"\nfunction = "{function}"\nn_samples = 4\nlow = -1\nhigh = 1'
    assert named(refuse(HEAD + data), "data.function")


def test_pickled_arrays_are_refused(refuse, tmp_path):
    values = np.array([{"a": 1}, None], dtype=object)
    np.savez(tmp_path / "data.npz", x=values, y=np.zeros(2))
    assert named(refuse(HEAD + '[data]\nkind = "file"\npath = "data.npz"'), "data.x", "object")


@pytest.mark.parametrize("name", ["absent.npz", "input.toml", "."])
def test_data_files_that_are_none(refuse, name):
    assert named(refuse(HEAD + f'[data]\nkind = "file"\npath = "{name}"'), "data.path", name)


def test_wrong_array_name(refuse, tmp_path):
    np.savez(tmp_path / "data.npz", inputs=np.zeros((2, 1)), y=np.zeros(2))
    lines = refuse(HEAD + '[data]\nkind = "file"\npath = "data.npz"')
    assert named(lines, "data.x", "inputs"), lines


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "network.widht=3"], ("network.widht", "did you mean")),
        (["--set", "network.width=-3"], ("network.width", "-3")),
        (["--set", "network.width"], ("network.width", "=")),
        (["--set", "=3"], ("=3",)),
        (["--threads", "0"], ("--threads", "0")),
        (["--threads", "two"], ("--threads", "two")),
        (["--overwrit"], ("--overwrit", "--overwrite")),
        (["--estimate-eror"], ("--estimate-eror", "--estimate-error")),
        (["surplus"], ("surplus",)),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_options(refuse, options, words):
    lines = refuse(HEAD + DATA, *options)
    assert named(lines, *words), lines


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rnu"], ("rnu", "did you mean", "run")),
        (["swep", "x"], ("swep", "did you mean", "sweep")),
        (["xyz"], ("xyz", "classify")),
        (["run"], ("EXPERIMENT",)),
        (["run", "a.toml"], ("--output",)),
        (["run", "absent.toml", "-o", "run.h5"], ("absent.toml",)),
        (["run", ".", "-o", "run.h5"], (".",)),
        (["sweep", "absent.toml", "-o", "sweep"], ("absent.toml",)),
        (["classify", "absent"], ("absent",)),
        (["classify", "--json", "absent"], ("absent",)),
        (["classify", "."], ("no run",)),
        (["info", "absent.h5"], ("absent.h5",)),
        (["info", "."], (".",)),
        (["plot", "phaze", ".", "-o", "a.png"], ("phaze", "did you mean", "phase")),
        (["plot", "phase", ".", "-o", "a.gif"], ("gif", "png")),
        (["plot", "phase", ".", "-o", "a.png", "--set", "layer"], ("layer",)),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_command_lines(tmp_path, monkeypatch, capfd, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert not out and len(lines) == 1 and lines[0].startswith("error: "), err
    assert named(lines, *words), err
    assert not list(tmp_path.iterdir())


def test_existing_output_is_kept(refuse, tmp_path):
    (tmp_path / "out.h5").write_text("precious")
    assert named(refuse(HEAD + DATA), "out.h5", "--overwrite")
    assert (tmp_path / "out.h5").read_text() == "precious"


def test_output_in_a_folder_that_is_not_there(refuse, tmp_path):
    lines = refuse(HEAD + DATA, "-o", str(tmp_path / "absent" / "run.h5"))
    assert named(lines, "absent")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
@pytest.mark.parametrize("command", ["run", "sweep"])
def test_unwritable_folder(refuse, tmp_path, command):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    text = HEAD + DATA + ("[grid]\nseeds = 1" if command == "sweep" else "")
    lines = refuse(text, "-o", str(folder / "out"), command=command)
    assert named(lines, "locked")


def test_folder_that_cannot_be_made(refuse):
    """Not even root can make a folder in /proc."""
    if not os.path.isdir("/proc"):
        pytest.skip("no /proc here")
    assert named(
        refuse(HEAD + DATA + "[grid]\nseeds = 1", "-o", "/proc/sweep", command="sweep"), "/proc"
    )
    assert named(refuse(HEAD + DATA, "-o", "/proc/run.h5"), "/proc")


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_files_that_are_no_runs(tmp_path, capfd, content):
    file = tmp_path / "run.h5"
    file.write_bytes(content)
    for arguments in (["info"], ["plot", "loss", "-o", str(tmp_path / "a.png")]):
        assert main([*arguments, str(file)]) == 2
        lines = capfd.readouterr().err.splitlines()
        assert len(lines) == 1 and named(lines, "error: ", "run.h5"), lines
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ('"scaling.gama" = [1.0]', ("scaling.gama", "did you mean")),
        ('"scaling.gamma" = 1.0', ("scaling.gamma", "[1.0]")),
        ('"scaling.gamma" = []', ("scaling.gamma", "[]")),
        ('"network.width" = [10, -10, 20]', ("network.width", "-10")),
        ('"network.width" = [10, 20.5]', ("network.width", "20.5")),
        ('"scaling.gamma" = [1.0, nan]', ("scaling.gamma", "nan")),
        ("seeds = 0", ("seeds", "0")),
        ("seeds = -1", ("seeds", "-1")),
        ("seeds = [0, -1]", ("seed", "-1")),
        ('seeds = "three"', ("seeds", "three")),
        ("seeds = []", ("seeds", "[]")),
        ("seeds = 2.5", ("seeds", "2.5")),
        ("", ("grid", "add")),
    ],
)
def test_grids(refuse, grid, words):
    lines = refuse(HEAD + DATA + f"[grid]\n{grid}", command="sweep")
    assert named(lines, *words), lines


def test_grid_problems_come_all_at_once_and_once(refuse):
    grid = '[grid]\n"network.width" = [-1, -2]\n"scaling.gamma" = [0.5, inf]\nseeds = 5'
    lines = refuse(HEAD + DATA + grid, command="sweep")
    assert len(lines) == len(set(lines)) == 3, lines
    assert named(lines, "-1") and named(lines, "-2") and named(lines, "inf")


def test_a_grid_is_not_an_experiment(refuse):
    assert named(refuse(HEAD + DATA + "[grid]\nseeds = 2"), "grid", "sweep")


def test_unreachable_loss_is_a_warning(tmp_path, capfd):
    file = tmp_path / "input.toml"
    data = DATA.replace("[[-0.5], [0.5]]", "[[0.5], [0.5]]")
    file.write_text(HEAD + data + INTEGRATE + "t_max = 1.0", encoding="utf-8")
    assert main(["run", str(file), "-o", str(tmp_path / "run.h5"), "--quiet"]) == 0
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and named(lines, "warning: ", "loss"), lines


def test_a_closed_pipe_leaves_no_traceback(run_file):
    code = f"import sys; from flowsim.cli import main; sys.exit(main(['info', {str(run_file)!r}]))"
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as closed:
        done = subprocess.run([sys.executable, "-c", code], stdout=closed, stderr=subprocess.PIPE)
    assert not done.stderr
