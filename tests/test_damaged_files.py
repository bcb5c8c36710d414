"""Files that are truncated, bit-flipped, foreign or hostile: a clear line, and nothing else.

Whatever is done to a file, it reads as before or is refused; no traceback, no hang, no huge
allocation, and it is never altered.
"""

import random
import zipfile

import h5py
import numpy as np
import pytest

import flowsim as fs
from flowsim.cli import main
from flowsim.recording.hdf5 import ATTRIBUTES_CHECKSUM

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


def refused(path, folder, capsys):
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
