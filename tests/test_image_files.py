"""Sets of images: files in the true format, damaged ones, and the way from [data] to a run."""

import gzip
import io
import os
import pickle
import struct
import tracemalloc

import h5py
import numpy as np
import pickles
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import flowsim as fs
from flowsim import data
from flowsim.data.cifar import read_cifar10
from flowsim.data.idx import read_idx
from flowsim.errors import ConfigError

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 4, 3)).astype(np.uint8)
LABELS = np.arange(20) % 10
TEST_IMAGES = np.random.default_rng(1).integers(0, 256, (10, 4, 3)).astype(np.uint8)
TEST_LABELS = np.arange(10)
COLOURS = np.random.default_rng(2).integers(0, 256, (5, 4, 3072)).astype(np.uint8)
COLOUR_LABELS = np.arange(20).reshape(5, 4) % 10
BATCHES = [f"data_batch_{k}" for k in range(1, 6)]


def idx(values, kind=8):
    """An IDX file of ``values``."""
    shape = struct.pack(f">{values.ndim}I", *values.shape)
    return bytes((0, 0, kind, values.ndim)) + shape + values.astype(np.uint8).tobytes()


def zipped(content):
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb") as file:
        file.write(content)
    return stream.getvalue()


@pytest.fixture(params=["plain", "gzip", "dotted", "gzip that is not called so"])
def mnist(request, tmp_path):
    """A folder with MNIST's files, of 20 and 10 small images."""
    for part, images, labels in (
        ("train", IMAGES, LABELS),
        ("t10k", TEST_IMAGES, TEST_LABELS),
    ):
        for stem, values in (("images-idx3", images), ("labels-idx1", labels)):
            name = f"{part}-{stem}-ubyte"
            content = idx(values)
            if request.param == "dotted":
                name = name.replace("-idx", ".idx")
            if "gzip" in request.param:
                content = zipped(content)
            if request.param == "gzip":
                name += ".gz"
            (tmp_path / name).write_bytes(content)
    return tmp_path


def binary(x, labels):
    return b"".join(bytes([label]) + row.tobytes() for label, row in zip(labels, x, strict=True))


def python_2(x, labels):
    return pickles.cifar_batch(x, labels.tolist())


def python_3(x, labels):
    batch = {b"batch_label": b"1", b"labels": labels.tolist(), b"data": x, b"filenames": [b"a"]}
    return pickle.dumps(batch)


@pytest.fixture(params=[binary, python_2, python_3])
def cifar(request, tmp_path):
    """A folder with CIFAR-10's files, of 4 images each."""
    write, suffix = request.param, ".bin" if request.param is binary else ""
    for name, x, labels in zip(BATCHES, COLOURS, COLOUR_LABELS, strict=True):
        (tmp_path / f"{name}{suffix}").write_bytes(write(x, labels))
    (tmp_path / f"test_batch{suffix}").write_bytes(write(COLOURS[0][::-1], COLOUR_LABELS[0][::-1]))
    return tmp_path


def problem_of(call, *args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        call(*args, **kwargs)
    (problem,) = caught.value.problems
    assert "\n" not in problem and ";" in problem
    return problem


# What is in the files


def test_mnist(mnist):
    read = data.from_images("mnist", mnist, target="label", n_test=10)
    np.testing.assert_array_equal(read.x[:, :12], IMAGES.reshape(20, 12) / 255.0)
    np.testing.assert_array_equal(read.x[:, 12], 1.0)
    np.testing.assert_array_equal(read.y, LABELS)
    np.testing.assert_array_equal(read.x_test[:, :12], TEST_IMAGES.reshape(10, 12) / 255.0)
    np.testing.assert_array_equal(read.y_test, TEST_LABELS)
    assert read.kind == "mnist" and read.normalisation.name == "unit-scale"


def test_the_test_files_are_needed_only_for_test_samples(mnist):
    for path in mnist.glob("t10k*"):
        path.unlink()
    read = data.from_images("mnist", mnist, classes=[3, 8], bias=False, normalise="none")
    assert read.x_test is None and read.x.shape == (4, 12)
    np.testing.assert_array_equal(read.y, [-1.0, 1.0, -1.0, 1.0])
    problem = problem_of(data.from_images, "mnist", mnist, classes=[3, 8], n_test=1)
    assert "there is no t10k-images-idx3-ubyte or t10k-images-idx3-ubyte.gz in this" in problem


def test_cifar10(cifar):
    read = data.from_images("cifar10", cifar, target="one-hot", n_test=4, bias=False)
    np.testing.assert_array_equal(read.x, COLOURS.reshape(20, 3072) / 255.0)
    np.testing.assert_array_equal(read.y, np.eye(10)[COLOUR_LABELS.ravel()])
    np.testing.assert_array_equal(read.x_test, COLOURS[0][::-1] / 255.0)
    assert read.n_outputs == 10


def test_grey_is_the_brightness(cifar):
    read = data.from_images("cifar10", cifar, target="label", bias=False, grey=True, n_test=1)
    red, green, blue = COLOURS.reshape(20, 3, 1024).transpose(1, 0, 2) / 255.0
    np.testing.assert_allclose(read.x, 0.299 * red + 0.587 * green + 0.114 * blue, rtol=1e-12)
    assert read.x_test.shape == (1, 1024) and read.x.max() <= 1.0


def test_digits():
    read = data.from_images("digits", target="label", normalise="none", bias=False)
    assert read.x.shape == (1797, 64) and (read.x.min(), read.x.max()) == (0.0, 16.0)
    assert set(read.y) == set(range(10))
    scaled = data.from_images("digits", target="label", n_samples=100)
    assert scaled.x[:, :-1].max() == 1.0


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    problem = problem_of(data.from_images, "digits")
    assert problem.startswith('kind = "digits": needs scikit-learn; install it with pip install')


# Files that are damaged, or not what they should be

IDX_DAMAGE = {
    "empty": (b"", "begins with the bytes (none)"),
    "labels for images": (idx(LABELS), "begins with the bytes 00 00 08 01"),
    "floats": (idx(IMAGES, kind=13), "begins with the bytes 00 00 0d 03"),
    "no header": (idx(IMAGES)[:11], "ends within its header"),
    "truncated": (idx(IMAGES)[:-1], "declares 240 numbers, but holds fewer"),
    "too long": (idx(IMAGES) + b"a", "declares 240 numbers, but holds more"),
    "no images": (idx(IMAGES[:0]), "declares no samples or no pixels, shape (0, 4, 3)"),
    "absurd": (bytes((0, 0, 8, 3)) + 12 * b"\xff", "at most 268435456 are read"),
    "implausible": (
        bytes((0, 0, 8, 3)) + struct.pack(">3I", 2**12, 2**8, 2**8) + b"a",
        "declares 268435456 numbers, but holds fewer",
    ),
}


@pytest.mark.parametrize("pack", [bytes, zipped])
@pytest.mark.parametrize(("content", "expected"), IDX_DAMAGE.values(), ids=IDX_DAMAGE)
def test_damaged_idx_files(tmp_path, content, expected, pack):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(pack(content))
    tracemalloc.start()
    problem = problem_of(read_idx, path, 3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert problem.startswith(f'path = "{path}": ') and expected in problem
    assert peak < 10**6


def test_gzip_that_unpacks_to_more_than_it_declares(tmp_path):
    path = tmp_path / "bomb"
    path.write_bytes(zipped(idx(IMAGES) + bytes(10**7)))
    tracemalloc.start()
    assert "but holds more" in problem_of(read_idx, path, 3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10**6


@pytest.mark.parametrize("length", [2, 9, 40, -1])
def test_truncated_gzip(tmp_path, length):
    path = tmp_path / "images.gz"
    path.write_bytes(zipped(idx(IMAGES))[:length])
    assert "cannot be read" in problem_of(read_idx, path, 3)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(min_size=1, max_size=4), st.integers(0, 300), st.booleans())
def test_idx_files_with_damage_anywhere(tmp_path, damage, place, packed):
    content = zipped(idx(IMAGES)) if packed else idx(IMAGES)
    place = min(place, len(content))
    path = tmp_path / "images"
    path.write_bytes(content[:place] + damage + content[place + len(damage) :])
    try:
        assert read_idx(path, 3).ndim == 3
    except ConfigError as error:
        assert len(error.problems) == 1 and "\n" not in error.problems[0]


def test_images_and_labels_that_do_not_belong_together(mnist):
    for name in ("train-labels-idx1-ubyte", "train-labels.idx1-ubyte"):
        for path in mnist.glob(f"{name}*"):
            path.write_bytes(idx(LABELS[:-1]))
            assert "has 19 labels, but train-images" in problem_of(data.from_images, "mnist", mnist)
            path.write_bytes(idx(np.where(LABELS == 3, 10, LABELS)))
            problem = problem_of(data.from_images, "mnist", mnist)
            assert "has the label 10 at sample 3, but classes are 0 to 9" in problem


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "has 0 bytes, which is no multiple of the 3073 of a record"),
        (bytes(3072), "has 3072 bytes, which is no multiple"),
        (bytes(3 * 3073 + 1), "no multiple"),
        (b"\x0a" + bytes(3072), "has the label 10 at sample 0"),
        (bytes(3073) + b"\xff" + bytes(3072), "has the label 255 at sample 1"),
    ],
)
def test_damaged_binary_batches(tmp_path, content, expected):
    path = tmp_path / "test_batch.bin"
    path.write_bytes(content)
    problem = problem_of(read_cifar10, [path])
    assert problem.startswith(f'path = "{path}": ') and expected in problem


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was carried out",))


X = COLOURS[0]


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (Bomb(), "refers to _pytest.outcomes"),
        ({b"data": X, b"labels": [1, 2, 3, Bomb()]}, "refers to _pytest.outcomes"),
        ({b"data": X.astype(object), b"labels": [1, 2, 3, 4]}, "array of 'O8', not of real"),
        ([X, [1, 2, 3, 4]], "has no array `data`"),
        ({b"labels": [1, 2, 3, 4]}, "has no array `data` of bytes (images, 3072)"),
        ({b"data": X.astype(float), b"labels": [1, 2, 3, 4]}, "has no array `data` of bytes"),
        ({b"data": X[:, 1:], b"labels": [1, 2, 3, 4]}, "has no array `data` of bytes"),
        ({b"data": X[:0], b"labels": []}, "has no array `data` of bytes"),
        ({b"data": X}, "has no list `labels` of integers"),
        ({b"data": X, b"labels": [1, 2, 3, True]}, "has no list `labels` of integers"),
        ({b"data": X, b"labels": np.arange(4)}, "has no list `labels` of integers"),
        ({b"data": X, b"labels": [1, 2, 3]}, "has 3 labels for 4 images"),
        ({b"data": X, b"labels": [1, 2, 3, -1]}, "has the label -1 at sample 3"),
        ({b"data": X, b"labels": [1, 2, 3, 10**5000]}, "label of more than 20 digits at sample 3"),
    ],
)
def test_python_batches_that_are_none(tmp_path, batch, expected):
    path = tmp_path / "test_batch"
    path.write_bytes(pickle.dumps(batch))
    problem = problem_of(read_cifar10, [path])
    assert problem.startswith(f'path = "{path}": ') and expected in problem


def test_batches_that_are_too_large_are_not_read(tmp_path):
    with (tmp_path / "test_batch.bin").open("wb") as file:
        file.truncate(2**40)  # a file with a hole, which takes no room
    assert "at most" in problem_of(read_cifar10, [tmp_path / "test_batch.bin"])


def test_folders_that_are_none(tmp_path):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for name, expected in {
        "minst": "no such folder; did you mean `mnist`?",
        "elsewhere": "no such folder; check the path",
        "file": "not a folder; give the one",
        "mnist": "train-images-idx3-ubyte.gz in this folder; it is empty",
        ".": "in this folder; it has file, mnist",
        "a\0b": "check the path",
    }.items():
        assert expected in problem_of(data.from_images, "mnist", tmp_path / name), name
    for kind in ("mnist", "cifar10"):
        assert problem_of(data.from_images, kind).startswith("path: missing; add path = ")


@pytest.mark.parametrize("kind", ["mnist", "cifar10"])
def test_a_pipe_or_a_folder_in_place_of_a_file(tmp_path, kind):
    name = {"mnist": "train-images-idx3-ubyte", "cifar10": "data_batch_1.bin"}[kind]
    others = ["train-labels-idx1-ubyte", *(f"{batch}.bin" for batch in BATCHES[1:])]
    for other in others:
        (tmp_path / other).write_bytes(b"")
    os.mkfifo(tmp_path / name)
    assert "not a file" in problem_of(data.from_images, kind, tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    assert "not a file" in problem_of(data.from_images, kind, tmp_path)


# From [data] to a run


def experiment(**section):
    return {
        "network": {"width": 20},
        "scaling": {"gamma": 1.0, "gamma_prime": 0.0},
        "data": section,
        "integrate": {"max_steps": 3, "threads": 1},
    }


def test_a_run_on_images_says_what_they_are(mnist, tmp_path):
    section = {
        "kind": "mnist", "path": str(mnist), "classes": [8, 3, 4], "positive_class": 3,
        "n_samples": 5, "n_test": 2, "normalise": "standardise", "seed": 1,
    }  # fmt: skip
    fs.simulate(experiment(**section), output=tmp_path / "run.h5")
    del section["kind"], section["path"]
    wanted = data.from_images("mnist", mnist, **section)
    with h5py.File(tmp_path / "run.h5") as file:
        group = file["data"]
        assert dict(group.attrs) == {
            "bias": True, "kind": "mnist", "normalisation": "standardise",
            "classes": "8, 3, 4", "target": "sign", "positive_class": 3,
        }  # fmt: skip
        pixels = group["x"][:] * group["input_scale"][:] + group["input_shift"][:]
        assert {tuple(row) for row in pixels[:, :-1].round()} <= {
            tuple(row) for row in IMAGES.reshape(20, 12)
        }
        np.testing.assert_allclose(pixels[:, :-1], pixels[:, :-1].round(), atol=1e-10)
        np.testing.assert_array_equal(pixels[:, -1], 1.0)
        for name in ("x", "y", "x_test", "y_test"):
            np.testing.assert_array_equal(group[name][:], getattr(wanted, name))
    assert fs.open(tmp_path / "run.h5").data.attributes["classes"] == "8, 3, 4"


def test_digits_from_an_experiment(tmp_path):
    run = fs.simulate(experiment(kind="digits", classes=[0, 1], n_samples=6, balanced=True))
    assert sorted(run.data["y"]) == [-1.0] * 3 + [1.0] * 3
    assert run.data.attributes["normalisation"] == "unit-scale"


def test_the_hash_is_of_the_content_of_mnist(mnist):
    check_hash("mnist", mnist)


def test_the_hash_is_of_the_content_of_cifar10(cifar):
    check_hash("cifar10", cifar)


def check_hash(kind, folder):
    """Changes of files that are read change the hash; moving them, or changes of others, do not."""
    section = {"kind": kind, "path": str(folder), "target": "label"}
    plain = fs.load_experiment(experiment(**section))
    tested = plain.with_overrides({"data.n_test": 2})
    before = plain.hash(), tested.hash()
    moved = folder.with_name("moved")
    folder.rename(moved)
    assert plain.with_overrides({"data.path": str(moved)}).hash() == before[0]
    with pytest.raises(ConfigError, match="data.path = .*: no such folder"):
        plain.hash()
    moved.rename(folder)
    for part, which in (("t10k*images*", 1), ("test_batch*", 1), ("train*labels*", 0),
                        ("data_batch_5*", 0)):  # fmt: skip
        for path in folder.glob(part):
            content = path.read_bytes()
            path.write_bytes(content + b"\0")
            after = plain.hash(), tested.hash()
            assert after[1] != before[1] and (after[0] == before[0]) == bool(which)
            path.write_bytes(content)


def test_paths_are_relative_to_the_experiment_file(mnist, tmp_path):
    path = mnist / "experiment.toml"
    path.write_text(
        '[network]\nwidth = 10\n[scaling]\nscheme = "ntk"\n'
        '[data]\nkind = "mnist"\npath = "."\ntarget = "label"\n'
    )
    assert fs.load_experiment(path).make_dataset().n_samples == 20


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"kind": "mnist"}, 'data.path: missing; add path = "folder"'),
        ({"kind": "digits", "path": "a"}, "data.path = "),
        ({"kind": "digits", "grey": True}, 'data.grey = true: "digits" has no colours; remove it'),
        (
            {"kind": "digits", "classes": [1, 0.5]},
            "data.classes[1] = 0.5: must be a whole number; f",
        ),
        ({"kind": "digits", "classes": 1}, "data.classes = 1: must be a list; for example classes"),
        ({"kind": "digits", "classes": [10**5000]}, "data.classes[0] = an integer of more than 20"),
        ({"kind": "digits", "n_samples": 0}, "data.n_samples = 0: must be 1 or larger; for exam"),
        ({"kind": "digits", "target": "signs"}, 'data.target = "signs": unknown; choose from'),
        ({"kind": "digits", "normalise": "unit"}, 'data.normalise = "unit": unknown; choose from'),
        ({"kind": "digits", "clases": [1]}, "data.clases = [1]: unknown key; did you mean `classe"),
    ],
)
def test_sections_that_are_refused(section, expected):
    assert problem_of(fs.load_experiment, experiment(**section)).startswith(expected)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({}, 'data.target = "sign": is for two classes, not for 10; name two in classes, give'),
        ({"classes": []}, "data.classes = []: names none; give at least one"),
        ({"classes": [1, 11]}, "data.classes = [1, 11]: there is no sample of class 11; choose"),
        ({"classes": [1, -1]}, "data.classes = [1, -1]: there is no sample of class -1; choose"),
        ({"classes": [1, 1]}, "data.classes = [1, 1]: has 1 twice; remove one"),
        ({"classes": [1, 2], "positive_class": 3}, "data.positive_class = 3: is none of the clas"),
        ({"target": "label", "positive_class": 3}, "data.positive_class = 3: has a meaning with"),
        ({"target": "label", "n_samples": 1798}, "data.n_samples = 1798: there are 1797 to choose"),
        ({"target": "label", "n_test": 1797}, "data.n_test = 1797: there are 1796 to choose"),
        ({"target": "label", "balanced": True}, "data.balanced = true: needs a number of samples"),
        (
            {"positive_class": 0, "balanced": True, "n_samples": 15},
            "data.n_samples = 15: cannot",
        ),
        ({"target": "one-hot"}, "data.y: has 10 columns, but the network has one output"),
    ],
)
def test_choices_that_are_refused(section, expected):
    made = fs.load_experiment(experiment(kind="digits", **section))
    assert problem_of(made.make_dataset).startswith(expected)
