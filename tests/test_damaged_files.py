"""Files that are truncated, bit-flipped, foreign or hostile: a clear line, and nothing else.

Whatever is done to a file, it reads as before or is refused; no traceback, no hang, no huge
allocation, and it is never altered.
"""

import os
import random
import shutil
import struct
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest

import flowsim as fs
from flowsim.cli import main
from flowsim.recording.checkpoint import load_checkpoint
from flowsim.recording.expected import ARRAYS
from flowsim.recording.hdf5 import ATTRIBUTES_CHECKSUM, checksum, checksum_of_pieces
from flowsim.recording.integrity import pieces
from flowsim.recording.stream import RunStream

DAMAGED = 80


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """A run with everything in it, and its values."""
    path = tmp_path_factory.mktemp("intact") / "run.h5"
    x = np.linspace(-1.0, 1.0, 5)
    fs.simulate(
        network={"width": 60},
        scaling={"gamma": 1.0, "gamma_prime": 0.0},
        record={"kernel": {"schedule": "log", "per_decade": 3}},
        x=x,
        y=x**2,
        output=path,
    )
    return path, read_all(path)


def read_all(path):
    values = {}
    with fs.open(path) as run:
        values["attributes"] = run.attributes
        for name in run.groups:
            group = run.group(name)
            values |= {f"{name}/{key}": group[key].tobytes() for key in group}
    return values


def commands(path, folder):
    yield ["info", str(path)]
    yield ["classify", str(path)]
    yield ["plot", "loss", str(path), "-o", str(folder / "figure.png"), "--quiet"]


def more_commands(path, folder):
    yield from commands(path, folder)
    for kind in ("features", "function"):
        yield ["plot", kind, str(path), "-o", str(folder / "figure.png"), "--quiet"]
    for to in ("csv", "npz", "h5md"):
        yield ["export", str(path), "--to", to, "-o", str(folder / to), "--overwrite"]
    yield ["repair", str(path), "-o", str(folder / "repaired.h5"), "--overwrite"]


def refused(path, folder, capsys, commands=commands):
    """The one line that every command says of a file; empty if all of them read it."""
    before = path.read_bytes(), path.stat().st_mtime_ns
    said = set()
    for command in commands(path, folder):
        code = main(command)
        err = capsys.readouterr().err
        assert code in (0, 1, 2)
        assert "Traceback" not in err and "a fault of flowsim" not in err, err
        for line in err.splitlines():
            assert line.startswith(("error: ", "skipped: ", "warning: ")), err
        if code:
            said.add(err or "damaged")
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    return "".join(said)


def damage(content, generator):
    content = bytearray(content)
    kind = generator.random()
    if kind < 0.3:
        return content[: generator.randrange(len(content))]
    if kind < 0.8:
        for _ in range(generator.choice([1, 1, 4, 30])):
            span = generator.choice([len(content), 20_000])
            content[generator.randrange(min(span, len(content)))] ^= 1 << generator.randrange(8)
        return content
    start, size = generator.randrange(len(content)), generator.choice([8, 64, 4096])
    content[start : start + size] = generator.randbytes(len(content[start : start + size]))
    return content


@pytest.mark.parametrize("seed", range(DAMAGED))
def test_damage_is_told_or_has_changed_nothing(intact, tmp_path, capsys, seed):
    path, values = intact
    file = tmp_path / "damaged.h5"
    file.write_bytes(damage(path.read_bytes(), random.Random(seed)))
    try:
        read = read_all(file)
    except fs.FlowsimError as error:
        assert "\n" not in str(error) and "damaged.h5" in str(error)
        refused(file, tmp_path, capsys)
    else:
        assert read == values
        assert not refused(file, tmp_path, capsys)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """What a killed process has left, every record of it a multiple of 4 KiB from the start."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:

        def leave(stream, *arguments):
            shutil.copy(stream.path, folder / "left.h5.part")
            stream.close()
            raise KeyboardInterrupt

        patch.setattr(RunStream, "finish", leave)
        with pytest.raises(KeyboardInterrupt):
            fs.simulate(
                network={"width": 60},
                scaling={"gamma": 1.0, "gamma_prime": 0.0},
                data={"kind": "points", "x": [[-0.5], [0.5]], "y": [0.25, 0.5]},
                record={"flush": {"rows": 5}},
                output=folder / "run.h5",
            )
    return (folder / "left.h5.part").read_bytes()


@pytest.mark.parametrize("seed", range(DAMAGED // 2))
def test_a_damaged_file_of_a_killed_run_is_told_or_read(killed, tmp_path, capsys, seed):
    # HDF5 takes what is damaged in such a file for a write in progress, and waits for its end.
    generator = random.Random(1000 + seed)
    content = bytearray(killed)
    places = range(0, len(content), 4096)
    for place in generator.sample(places, len(places) // 3):
        content[place + generator.randrange(256)] ^= 1 << generator.randrange(8)
    file = tmp_path / "damaged.h5.part"
    file.write_bytes(content)
    try:
        read_all(file)
    except fs.FlowsimError as error:
        assert "\n" not in str(error) and "damaged.h5" in str(error)
    refused(file, tmp_path, capsys)


def foreign(path):
    """Files that are no runs at all, or runs that mean harm; each with a word of the refusal."""

    def hdf5(name, make):
        with h5py.File(path / name, "w", libver=("v110", "v110")) as file:
            file.attrs["format"], file.attrs["format_version"] = "flowsim/1", 2
            file.attrs["status"], file.attrs["stop_reason"] = "complete", "t_max: 1"
            file.attrs["config"] = ""
            group = file.create_group("observables")
            group["time"] = np.arange(3.0)
            make(file, group)

    def external_values(file, group):
        group.create_dataset("loss", (3,), "f8", external=[("/etc/passwd", 0, 24)])

    def virtual(file, group):
        layout = h5py.VirtualLayout(shape=(3,), dtype="f8")
        layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(3,))
        group.create_virtual_dataset("loss", layout)

    def huge(file, group):
        group.create_dataset("loss", (1 << 45,), "f8", chunks=(1 << 16,))

    def links(file, group):
        group["loss"] = h5py.ExternalLink("/etc/passwd", "/x")
        file["final"] = h5py.SoftLink("/final")

    def circle(file, group):
        group["loss"] = h5py.SoftLink("/observables/loss")
        group["observables"] = group

    def endless_config(file, group):
        file.attrs["config"] = "a = " + "[" * 30_000

    hdf5("external.h5", external_values)
    hdf5("virtual.h5", virtual)
    hdf5("huge.h5", huge)
    hdf5("links.h5", links)
    hdf5("circle.h5", circle)
    hdf5("config.h5", endless_config)
    hdf5("newer.h5", lambda file, group: file.attrs.modify("format_version", 99))
    hdf5("status.h5", lambda file, group: file.attrs.modify("status", "splendid"))
    with h5py.File(path / "other.h5", "w") as file:
        file["x"] = np.arange(3)
    with open(path / "npz.h5", "wb") as file:
        np.savez(file, x=np.arange(3))
    with open(path / "pickle.h5", "wb") as file:
        np.save(file, np.array([{"a": 1}], object), allow_pickle=True)
    (path / "text.h5").write_text("[network]\nwidth = 3\n")
    (path / "empty.h5").write_bytes(b"")
    (path / "signature.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (path / "bytes.h5").write_bytes(random.Random(0).randbytes(5000))
    with zipfile.ZipFile(path / "zip.h5", "w") as archive:
        archive.writestr("x", "y")


def test_foreign_and_hostile_files(tmp_path, capsys):
    folder = tmp_path / "files"
    folder.mkdir()
    foreign(folder)
    files = sorted(folder.iterdir())
    assert len(files) >= 16
    for file in files:
        assert refused(file, tmp_path, capsys), file.name
    assert "newer than" in refused(folder / "newer.h5", tmp_path, capsys)
    assert "another file" in refused(folder / "external.h5", tmp_path, capsys)
    assert "another file" in refused(folder / "virtual.h5", tmp_path, capsys)
    assert "declares" in refused(folder / "huge.h5", tmp_path, capsys)
    # All of them together: each is named with its reason, none takes the others down.
    assert main(["classify", str(folder)]) == 2
    err = capsys.readouterr().err
    assert all(file.name in err for file in files)


def test_what_is_no_file_at_all(tmp_path, capsys):
    assert main(["info", str(tmp_path)]) == 2
    assert "a folder" in capsys.readouterr().err
    assert main(["info", str(tmp_path / "none.h5")]) == 2
    assert "no such file" in capsys.readouterr().err
    with pytest.raises(fs.FileFormatError, match="not a path"):
        fs.open(None)


def test_a_checksum_is_there_to_be_wrong(intact, tmp_path):
    """A value that HDF5 itself has changed, so that its own checksums are right."""
    path, _ = intact
    file = tmp_path / "run.h5"
    file.write_bytes(path.read_bytes())
    with h5py.File(file, "r+") as changed:
        changed["observables/loss"][0] += 1.0
    with fs.open(file) as run:
        with pytest.raises(fs.FileFormatError, match="observables/loss is damaged"):
            run.observables["loss"]
        assert len(run.verify()) == 1
    with h5py.File(file, "r+") as changed:
        assert ATTRIBUTES_CHECKSUM in changed.attrs
        changed.attrs.modify("width", 61)
    with pytest.raises(fs.FileFormatError, match="attributes are damaged"):
        fs.open(file)


def put(file, place, **values):
    if place in file:
        del file[place]
    file.create_dataset(place, **values)


def rows_of(file):
    return len(file["observables/time"])


def no_rows(file):
    for dataset in file["observables"].values():
        if dataset.maxshape[:1] == (None,):
            dataset.resize(0, axis=0)


def deep_texts(file):
    file.attrs["versions"] = "[" * 60_000
    file.attrs["hardware"] = "no JSON"


def ensemble(**seed):
    def make(file):
        file.attrs["layout"] = "ensemble"
        file.create_dataset("seed", **seed)

    return make


NONSENSE = {
    "layout": lambda f: f.attrs.create("layout", ["a", "b"], dtype=h5py.string_dtype()),
    "status": lambda f: f.attrs.create("status", ["a", "b"], dtype=h5py.string_dtype()),
    "other texts": lambda f: f.attrs.create("own", ["a", "b"], dtype=h5py.string_dtype()),
    "empty": lambda f: f.attrs.create("own", h5py.Empty("f8")),
    "reference": lambda f: f.attrs.create("own", f["final"].ref, dtype=h5py.ref_dtype),
    "bias": lambda f: f["data"].attrs.create("bias", h5py.Empty("f8")),
    "n_inputs text": lambda f: f.attrs.create("n_inputs", "two"),
    "n_inputs NaN": lambda f: f.attrs.create("n_inputs", np.nan),
    "n_inputs vector": lambda f: f.attrs.create("n_inputs", np.arange(3)),
    "gamma text": lambda f: f.attrs.create("gamma", "one"),
    "gamma vector": lambda f: f.attrs.create("gamma", np.arange(3.0)),
    "gamma empty": lambda f: f.attrs.create("gamma", h5py.Empty("f8")),
    "versions": lambda f: f.attrs.create("versions", "{{{"),
    "deep": deep_texts,
    "config": lambda f: f.attrs.create("config", "network = 3\nintegrate = [1]\ndata = 1\n"),
    "end": lambda f: put(f, "final/time", data="soon"),
    "loss text": lambda f: put(f, "final/loss", data="small"),
    "loss vector": lambda f: put(f, "final/loss", data=np.zeros(7)),
    "loss empty": lambda f: put(f, "final/loss", data=h5py.Empty("f8")),
    "RD of 4": lambda f: put(f, "final/relative_change", data=np.zeros(4)),
    "RD text": lambda f: put(f, "final/relative_change", data=["a", "b", "c"]),
    "n_steps inf": lambda f: put(f, "final/n_steps", data=np.inf),
    "n_steps NaN": lambda f: put(f, "final/n_steps", data=np.nan),
    "error": lambda f: put(f, "final/error_outputs", data=np.zeros(4)),
    "seconds": lambda f: put(f, "observables/wall_seconds", data=["1"] * rows_of(f)),
    "loss 3-d": lambda f: put(f, "observables/loss", data=np.zeros((rows_of(f), 2, 2))),
    "snapshot": lambda f: put(f, "snapshots/input_weights", data=np.zeros((9, 7))),
    "x": lambda f: put(f, "data/x", data=["a"]),
    "no rows": no_rows,
    "seed texts": ensemble(data=["a", "b"]),
    "seed numbers": ensemble(data=np.zeros((2, 2), int)),
    "seed group": lambda f: (f.attrs.create("layout", "ensemble"), f.create_group("seed")),
    "seeds": ensemble(shape=(4 * 10**8,), dtype="i8", chunks=(1024,)),
    "chunk": lambda f: put(f, "final/own", data=np.zeros(10**7), chunks=(10**7,),
                           compression="gzip"),
}  # fmt: skip


@pytest.mark.parametrize("what", NONSENSE)
def test_a_file_that_hdf5_reads_well_and_that_makes_no_sense(intact, tmp_path, capsys, what):
    file = tmp_path / "nonsense.h5"
    file.write_bytes(intact[0].read_bytes())
    with h5py.File(file, "r+") as changed:
        del changed.attrs[ATTRIBUTES_CHECKSUM]
        for group in changed.values():
            for dataset in group.values():
                dataset.attrs.pop("checksum", None)
        NONSENSE[what](changed)
    refused(file, tmp_path, capsys, more_commands)


def test_the_known_arrays_are_those_of_the_format(intact):
    """Every array that a run writes is expected as it is."""
    with fs.open(intact[0]) as run:
        for name in run.groups:
            assert set(run.group(name)) <= set(ARRAYS[name])
        assert not run.verify()


def test_what_is_large_is_looked_at_in_pieces(tmp_path):
    """Many times more values than bytes: they are not held at once, and the sum is the same."""
    values = np.zeros((40, 500, 1000))
    values[:, ::7, ::11] = 1.0
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=(1, 500, 1000), compression="gzip")
        dataset = file["x"]
        sizes = [part.nbytes for part in pieces(dataset)]
        assert max(sizes) <= 1 << 24 and sum(sizes) == values.nbytes
        assert checksum_of_pieces(pieces(dataset)) == checksum(values)
        assert sum(part.size for part in pieces(dataset, 3)) == 3 * 500_000
        assert sum(part.size for part in pieces(dataset, 3, (2,))) == 3 * 1000


def test_heaps_within_heaps_do_not_take_for_ever(intact, tmp_path, capsys, monkeypatch):
    """Not by the clock: by how many times over the file is read."""
    content = bytearray(1 << 22)
    for place in range(0, len(content) - 4096, 64):
        left = len(content) - place
        content[place : place + 16] = b"GCOL\1\0\0\0" + struct.pack("<Q", left)
        content[place + 16 : place + 32] = struct.pack("<HHIQ", 0, 0, 0, left - 16)
    file = tmp_path / "heaps.h5"
    file.write_bytes(intact[0].read_bytes() + content)
    read = []
    pread = os.pread

    def counting(handle, size, place):
        found = pread(handle, size, place)
        read.append(len(found))
        return found

    monkeypatch.setattr(os, "pread", counting)
    with pytest.raises(fs.FileFormatError, match="damaged at byte"):
        fs.open(file)
    # Each of the 65,000 heaps to its end would be 33,000 times the file; the bound is 64 MiB.
    assert sum(read) < 40 * file.stat().st_size


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_nobody_waits_for_a_pipe(intact, tmp_path):
    """In processes of their own, which can be given up."""
    pipe, run, output = tmp_path / "pipe.h5", tmp_path / "run.h5", tmp_path / "figures"
    output.mkdir()
    os.mkfifo(pipe)
    run.write_bytes(intact[0].read_bytes())
    os.mkfifo(f"{run}.lock")
    calls = [(2, command) for command in more_commands(pipe, output)] + [(0, ["info", str(run)])]
    script = f"""
import json, sys
from flowsim.cli import main
assert [main(command) for _, command in {calls!r}] == {[code for code, _ in calls]!r}
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("a pipe or a device") == len(calls) - 1


def test_pipes_are_no_outputs_and_no_checkpoints(experiment, tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes on this system")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(fs.ConfigError, match="is a pipe or a device"):
        fs.simulate(experiment, output=tmp_path / "pipe")
    os.mkfifo(tmp_path / "run.h5.checkpoint")
    assert load_checkpoint(tmp_path / "run.h5.checkpoint") is None


@pytest.mark.parametrize("lock", ["[" * 1000, '{"host": "a", "pid": Infinity}', "[]", "\0"])
def test_a_lock_file_may_say_anything(intact, tmp_path, capsys, lock):
    file = tmp_path / "run.h5"
    file.write_bytes(intact[0].read_bytes())
    (tmp_path / "run.h5.lock").write_text(lock)
    assert not refused(file, tmp_path, capsys)


def test_nothing_is_written_over_a_run(intact, tmp_path, capsys):
    source, other, link = (tmp_path / name for name in ("run.h5", "other.h5", "link.csv"))
    for path in (source, other):
        path.write_bytes(intact[0].read_bytes())
    (tmp_path / "other.h5.checkpoint").write_bytes(b"checkpoint")
    link.symlink_to(source)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for target in (source, other, link, f"{other}.checkpoint", f"{other}.part"):
        for command in (
            ["export", str(source), "--to", "csv", "--overwrite", "-o", str(target)],
            ["plot", "loss", str(source), "-o", str(tmp_path / "a.png"), "--data", str(target)],
        ):
            assert main(command) == 2
            err = capsys.readouterr().err
            assert "holds a run" in err or "belongs to the run" in err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    for _ in range(2):  # an exported file is none
        command = ["export", str(source), "--to", "h5md", "--overwrite"]
        assert main([*command, "-o", str(tmp_path / "a.h5md.h5")]) == 0
