"""What it means that two runs, or the files of two sweeps, are the same."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from flowsim.recording.reader import RunFile, open_runs


def assert_same(
    one: RunFile,
    other: RunFile,
    attributes_left_out: Collection[str] = (),
    arrays_left_out: Collection[str] = (),
) -> None:
    """Two runs are the same, byte for byte."""
    for name in {*one.attributes, *other.attributes} - {"layout", *attributes_left_out}:
        assert one.attributes[name] == other.attributes[name], name
    assert set(one.groups) == set(other.groups)
    # The names of the layers belong to the axis, which only files have.
    left_out = {"layer", *arrays_left_out}
    for name in one.groups:
        here, there = one.group(name), other.group(name)
        assert set(here) - left_out == set(there) - left_out
        assert here.attributes == there.attributes
        for key in set(here) - left_out:
            first, second = here.array(key), there.array(key)
            assert first.values.dtype == second.values.dtype, key
            assert first.values.shape == second.values.shape, key
            assert first.values.tobytes() == second.values.tobytes(), key
            assert (first.dims, first.units) == (second.dims, second.units), key
            assert first.long_name in ("", second.long_name), key


def assert_same_files(one: Path, other: Path) -> None:
    """The runs of two sweeps are the same, but for when and how fast they were carried out."""
    names = [sorted(path.name for path in (folder / "runs").iterdir()) for folder in (one, other)]
    assert names[0] == names[1]
    for name in names[0]:
        with open_runs(one / "runs" / name) as here, open_runs(other / "runs" / name) as there:
            assert here.seeds == there.seeds
            for first, second in zip(here, there, strict=True):
                assert_same(first, second, ("created",), ("wall_seconds",))
