"""Lint, format and types, so that one command runs every check."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECKED = [name for name in ("flowsim", "kernels", "tests", "benchmarks", "examples")]


def run_tool(name: str, *arguments: str, folder: Path = ROOT) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed; pip install -e '.[dev]' installs it")
    done = subprocess.run(
        [sys.executable, "-m", name, *arguments], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, f"\n{done.stdout}{done.stderr}"


def test_lint():
    run_tool("ruff", "check", "--no-cache", *CHECKED)


def test_format():
    run_tool("ruff", "format", "--check", "--no-cache", *CHECKED)


def test_types():
    run_tool("mypy", "flowsim", "kernels")


def test_types_as_installed(tmp_path):
    """With kernels/ where it is installed, mypy sees both sides of every call into it."""
    shutil.copytree(ROOT / "flowsim", tmp_path / "flowsim")
    shutil.copytree(ROOT / "kernels", tmp_path / "flowsim" / "kernels")
    if (known := ROOT / ".mypy_cache").exists():  # what it has found out of other packages
        shutil.copytree(known, tmp_path / ".mypy_cache")
    config = str(ROOT / "pyproject.toml")
    run_tool("mypy", "--config-file", config, "-p", "flowsim", folder=tmp_path)


def test_no_module_is_too_long_to_read():
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in ("flowsim", "kernels")
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert not long


def test_ci_runs_the_test_command_of_the_readme():
    command = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1]
    assert command.endswith("python -m pytest")
    assert command in (ROOT / "README.md").read_text(encoding="utf-8")
