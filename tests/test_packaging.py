"""The wheel: what is in it, and that it works in an environment of its own, elsewhere."""

from __future__ import annotations

import email
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import flowsim

ROOT = Path(__file__).parents[1]
SOURCES = ("flowsim", "kernels", "pyproject.toml", "README.md", "LICENSE")

pytest.importorskip("build", reason="python -m build makes the wheel")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel built from a copy, so that the tree stays as it is."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / name, source / name)
    target = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", target]
    done = subprocess.run([*map(str, command), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A clean environment with the wheel; the dependencies are borrowed from this one.

    A path in a .pth file is searched but its own .pth files are not read, so this environment's
    editable flowsim, if there is one, does not come along.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps"]
    done = subprocess.run(
        [*map(str, command), "--no-index", str(wheel)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (site,) = folder.glob("lib/python*/site-packages")
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "borrowed.pth").write_text("\n".join(sorted(paths)), encoding="utf-8")
    return folder


def call(environment: Path, program: str, *arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [str(environment / "bin" / program), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={"PATH": str(environment / "bin"), "MPLBACKEND": "Agg", "HOME": str(folder)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_package_list_equals_the_tree():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = {
        ".".join((name, *path.relative_to(ROOT / folder).parent.parts))
        for folder, name in (("flowsim", "flowsim"), ("kernels", "flowsim.kernels"))
        for path in (ROOT / folder).rglob("*.py")
    }
    assert sorted(found) == settings["tool"]["setuptools"]["packages"]
    for name in found:
        folder = ROOT / name.replace("flowsim.kernels", "kernels").replace(".", "/")
        assert (folder / "__init__.py").exists(), f"{name} is no package"


def test_wheel_holds_every_module_and_no_other_package(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert top == {"flowsim", f"flowsim-{flowsim.__version__}.dist-info"}
    expected = {f"flowsim/{path.relative_to(ROOT / 'flowsim')}" for path in python("flowsim")}
    expected |= {
        f"flowsim/kernels/{path.relative_to(ROOT / 'kernels')}" for path in python("kernels")
    }
    sources = {f"flowsim/kernels/cuda/{path.name}" for path in (ROOT / "kernels/cuda").glob("*.cu")}
    assert sources
    found = {name for name in names if "dist-info" not in name}
    others = {"flowsim/py.typed", "flowsim/report.html.jinja"}
    assert expected | sources | others == found


def python(folder: str) -> list[Path]:
    return list((ROOT / folder).rglob("*.py"))


def test_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Version"] == flowsim.__version__
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    extras = set(metadata.get_all("Provides-Extra"))
    assert extras == {"cuda12", "cuda13", "data", "xarray", "dask", "bench", "dev"}
    required = metadata.get_all("Requires-Dist")
    for major in (12, 13):
        assert any(
            r.startswith(f"cupy-cuda{major}x[ctk]") and f"cuda{major}" in r for r in required
        )


def test_installed_command_runs_from_another_folder(environment, experiment_file, tmp_path):
    assert "classify" in call(environment, "flowsim", "--help", folder=tmp_path)
    assert flowsim.__version__ in call(environment, "flowsim", "--version", folder=tmp_path)
    output = call(
        environment, "flowsim", "run", str(experiment_file), "-o", "run.h5", folder=tmp_path
    )
    assert "complete" in output
    assert "stop_loss" in call(environment, "flowsim", "info", "run.h5", folder=tmp_path)


def test_kernels_install_inside_the_package(environment, tmp_path):
    code = (
        "import flowsim.kernels, importlib.util; "
        "print(flowsim.kernels.__file__, importlib.util.find_spec('kernels'))"
    )
    file, spec = call(environment, "python", "-c", code, folder=tmp_path).split()
    assert Path(file).is_relative_to(environment), "another flowsim was imported"
    assert spec == "None"
