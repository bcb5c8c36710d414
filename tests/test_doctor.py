"""``flowsim doctor``: what it finds, and that nothing which is missing stops it."""

from __future__ import annotations

import json
import os
import sys
import types

import pytest

import flowsim as fs
from flowsim.cli import diagnosis, main
from flowsim.kernels import BACKENDS
from flowsim.kernels.cpu.threads import usable_cores


def asked(capsys, *arguments: str) -> str:
    assert main(["doctor", *arguments]) == 0
    out, err = capsys.readouterr()
    assert not err
    return out


def test_prints_a_line_a_subject(capsys):
    lines = asked(capsys).splitlines()
    subjects = {line[:20].strip() for line in lines}
    assert {"flowsim", "processor", "cores", "memory", "BLAS", "GPU"} <= subjects
    assert {f"backend {name}" for name in BACKENDS} <= subjects
    out = "\n".join(lines)
    assert fs.__version__ in out and f"{usable_cores()} threads by default" in out


def test_json_and_nothing_else(capsys):
    found = json.loads(asked(capsys, "--json"))
    parts = {"versions", "backends", "processor", "memory", "blas", "compiled", "gpu"}
    assert found.keys() == parts | {"environment"}
    assert not [name for name, part in found.items() if "error" in part]
    assert found["versions"]["flowsim"] == fs.__version__
    assert found["backends"]["cpu"] == {"available": True, "reason": ""}
    assert found["processor"]["usable_cores"] == usable_cores()
    assert found["memory"]["total"] > 1 << 28
    assert isinstance(found["compiled"]["writable"], bool)


def test_a_part_that_fails_leaves_the_others(capsys, monkeypatch):
    def broken():
        raise RuntimeError("no [such] thing")

    for name in ("versions", "processor", "blas", "gpu", "compiled", "memory"):
        monkeypatch.setattr(diagnosis, name, broken)
    out = asked(capsys)
    assert out.count("not known: RuntimeError: no [such] thing") == 6
    assert "backend cpu" in out


def test_without_what_linux_tells(capsys, monkeypatch, tmp_path):
    for name in ("_SYSTEM", "_CGROUP", "_MEMORY", "_PROCESSOR"):
        monkeypatch.setattr(diagnosis, name, tmp_path / "missing")
    assert "caches" in asked(capsys)
    assert diagnosis.processor()["caches"] == []
    assert diagnosis.memory()["available"] is None


def test_limit_of_a_container(monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(diagnosis, "_CGROUP", limit)
    limit.write_text("max\n")
    assert diagnosis.memory()["limit"] is None
    limit.write_text("1073741824\n")
    assert diagnosis.memory()["limit"] == 1 << 30


def make_cupy(count: int) -> types.ModuleType:
    properties = {"name": b"Card", "totalGlobalMem": 8 << 30, "major": 9, "minor": 0}

    def device_count() -> int:
        if count < 0:
            raise RuntimeError("no driver")
        return count

    runtime = types.SimpleNamespace(
        getDeviceCount=device_count, getDeviceProperties=lambda _: properties
    )
    cupy = types.ModuleType("cupy")
    cupy.__version__ = "14.0"
    cupy.cuda = types.SimpleNamespace(runtime=runtime)
    return cupy


@pytest.mark.parametrize(("count", "expected"), [(1, "Card"), (0, "no device"), (-1, "no driver")])
def test_cupy(capsys, monkeypatch, count, expected):
    monkeypatch.setitem(sys.modules, "cupy", make_cupy(count))
    monkeypatch.setattr(diagnosis, "find_spec", lambda _: True)
    assert expected in asked(capsys)


@pytest.mark.parametrize(("driver", "extra"), [("550.54", "cuda12"), ("580.65", "cuda13")])
def test_names_the_extra_that_fits_the_driver(capsys, monkeypatch, driver, extra):
    listed = [{"name": "Card", "memory": "8192 MiB", "driver": driver}]
    monkeypatch.setattr(diagnosis, "_listed_gpus", lambda: listed)
    monkeypatch.setattr(diagnosis, "find_spec", lambda _: None)
    out = asked(capsys)
    assert f"pip install 'flowsim[{extra}]'" in out and f"Card, 8192 MiB, driver {driver}" in out


def test_lists_gpus_of_the_driver(monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'Card, 8192 MiB, 580.65'\necho garbage\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert diagnosis._listed_gpus() == [{"name": "Card", "memory": "8192 MiB", "driver": "580.65"}]
    program.write_text("#!/no/such/interpreter\n")
    assert diagnosis._listed_gpus() == []


def test_folder_that_cannot_be_written(capsys, monkeypatch):
    monkeypatch.setattr(diagnosis, "_writable", lambda _: False)
    assert "NUMBA_CACHE_DIR" in asked(capsys)


def test_shows_what_is_set(capsys, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Zen")
    assert "OPENBLAS_CORETYPE=Zen" in asked(capsys)
