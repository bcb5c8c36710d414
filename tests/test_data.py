"""Data sets: what the generators give, and how damaged or hostile files are refused."""

import io
import os
import re
import warnings
import zipfile

import h5py
import numpy as np
import pytest

from flowsim import data
from flowsim.data import generated
from flowsim.errors import ConfigError, DataWarning
from flowsim.kernels.activations import ACTIVATIONS

X = np.array([[-0.5, 1.0], [0.25, 2.0], [0.5, 3.0]])
Y = np.array([1.0, 2.0, 3.0])


def problems_of(call, *args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        call(*args, **kwargs)
    assert all("\n" not in problem for problem in caught.value.problems)
    return caught.value.problems


# Arrays


def test_bias_is_the_last_column():
    dataset = data.from_arrays(X, Y, X[:2], Y[:2])
    np.testing.assert_array_equal(dataset.x, np.c_[X, np.ones(3)])
    np.testing.assert_array_equal(dataset.x_test, np.c_[X[:2], np.ones(2)])
    assert dataset.bias and dataset.kind == "arrays"
    assert (dataset.n_samples, dataset.n_inputs) == (3, 3)
    np.testing.assert_array_equal(data.from_arrays(X, Y, bias=False).x, X)


def test_one_input_may_be_a_vector():
    dataset = data.from_arrays([1, 2], [3, 4], bias=False)
    np.testing.assert_array_equal(dataset.x, [[1.0], [2.0]])


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.longdouble])
def test_everything_is_contiguous_float64_and_a_copy(dtype):
    x, y = np.asfortranarray(X.astype(dtype)), np.arange(3).astype(dtype)
    for bias in (True, False):
        dataset = data.from_arrays(x, y, bias=bias)
        for array in (dataset.x, dataset.y):
            assert array.dtype == np.float64 and array.flags.c_contiguous
        assert not np.shares_memory(dataset.x, x) and not np.shares_memory(dataset.y, y)


def test_targets_of_one_column_are_a_vector_and_of_more_a_matrix():
    assert data.from_arrays(X, Y[:, None]).y.shape == (3,)
    assert data.from_arrays(X, np.c_[Y, Y]).y.shape == (3, 2)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((X, Y[:2]), "y: has 2 values but x has 3 samples"),
        (([[1.0], [np.nan]], [1, 2]), r"x\[1\]\[0\] = nan: not finite; correct or remove"),
        (([1.0, 2.0], [np.inf, np.nan]), r"y\[0\] = inf: not finite \(as are 1 others\)"),
        (([[1.0], [1.0, 2.0]], [1, 2]), "x: is not rectangular"),
        ((["a"], [1]), "x: holds .* values, not real numbers"),
        (([1j], [1]), "x: holds complex128 values"),
        (([10**400], [1]), "x: holds object values"),
        (([np.longdouble("1e4000")], [1]), r"x\[0\] = inf: not finite"),
        (([], []), "x: is empty"),
        ((np.empty((3, 0)), Y), "x: is empty"),
        ((1.0, [1.0]), r"x: has shape \(\); reshape"),
        ((X[None], Y), r"x: has shape \(1, 3, 2\); reshape"),
        ((X, Y, X), "y_test: missing beside x_test; give both or neither"),
        ((X, Y, None, Y), "x_test: missing beside y_test"),
        ((X, Y, X[:, :1], Y), "x_test: has 1 columns but x has 2"),
        ((X, Y, X, Y[:1]), "y_test: has 1 values but x_test has 3 samples"),
    ],
)
def test_wrong_arrays(arguments, expected):

    (problem, *_) = problems_of(data.from_arrays, *arguments)
    assert re.match(expected, problem), problem
    assert ";" in problem  # a remedy


def test_all_problems_of_arrays_at_once():
    problems = problems_of(data.from_arrays, [np.nan], ["a"], [[1.0], [2.0, 3.0]], [])
    assert [problem.split(":")[0].split(" ")[0] for problem in problems] == [
        "x[0]", "y", "x_test", "y_test",
    ]  # fmt: skip


def test_digest_tells_data_apart():
    base = data.from_arrays(X, Y)
    others = [
        data.from_arrays(X, Y + 1),
        data.from_arrays(X, Y, bias=False),
        data.from_arrays(X, Y, X, Y),
        data.from_arrays(X.reshape(2, 3)[:, :2], Y[:2]),
    ]
    assert base.digest() == data.from_arrays(X.copy(), Y.copy()).digest()
    assert len({dataset.digest() for dataset in (base, *others)}) == 5
    assert base.section() == {
        "kind": "arrays", "sha256": base.digest(), "n_samples": 3, "bias": True,
    }  # fmt: skip


# Contradictions


def test_same_input_with_different_targets_warns():
    with pytest.warns(DataWarning, match="samples 1 and 2 have the same input.*cannot reach 0"):
        data.from_arrays([1.0, 0.0, -0.0], [1.0, 2.0, 3.0])


def test_true_duplicates_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.from_arrays([1.0, 1.0, 2.0], [3.0, 3.0, 3.0])
        data.from_arrays([[1.0, 2.0], [2.0, 4.0]], [1.0, 1.0])


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([[1.0, 0.3], [3.0, 0.9]], [1.0, 2.0], "samples 0 and 1 are parallel"),
        ([[0.0, 0.0], [1.0, 0.0]], [1.0, 2.0], "sample 0 is the zero vector"),
        ([[1.0, 0.3], [3.0, 0.9]], [1.0, 3.0], None),
        ([[1.0, 0.3], [-3.0, -0.9]], [1.0, 2.0], None),
        ([[0.0, 0.0], [1.0, 0.0]], [0.0, 2.0], None),
    ],
)
def test_parallel_inputs_without_bias(x, y, message):
    dataset = data.from_arrays(x, y, bias=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset.warn_of_parallel_inputs()
        data.from_arrays(x, y, bias=True).warn_of_parallel_inputs()
    assert len(caught) == (message is not None)
    assert message is None or message in str(caught[0].message)


# Functions and teachers


def test_function_on_a_grid():
    dataset = data.from_function("x**2", 5, -1.0, 1.0, n_test=3)
    np.testing.assert_array_equal(dataset.x[:, 0], [-1.0, -0.5, 0.0, 0.5, 1.0])
    np.testing.assert_array_equal(dataset.y, [1.0, 0.25, 0.0, 0.25, 1.0])
    np.testing.assert_array_equal(dataset.x_test[:, 0], [-1.0, 0.0, 1.0])
    assert dataset.kind == "function"


def test_function_at_random_inputs():
    def make(**options):
        return data.from_function("x0*x1", 50, -2.0, 3.0, n_inputs=2, sampling="random", **options)

    plain = make(seed=1)
    assert plain.x.shape == (50, 3) and plain.x_test is None
    assert plain.x[:, :2].min() >= -2.0 and plain.x[:, :2].max() <= 3.0
    np.testing.assert_array_equal(plain.y, plain.x[:, 0] * plain.x[:, 1])
    noisy, tested = make(seed=1, noise=0.1, n_test=7), make(seed=1, n_test=7)
    np.testing.assert_array_equal(plain.x, noisy.x)
    np.testing.assert_array_equal(noisy.x_test, tested.x_test)
    np.testing.assert_array_equal(noisy.y_test, tested.y_test)
    assert 0.05 < np.std(noisy.y - plain.y) < 0.2
    assert not np.array_equal(plain.x, make(seed=2).x)


def test_teacher_is_a_two_layer_network():
    dataset = data.from_teacher(ACTIVATIONS["tanh"].value, 3, 20, n_inputs=2, seed=4, n_test=6)
    generator = np.random.default_rng(4)
    a, w = generator.normal(size=3), generator.normal(size=(3, 3))
    np.testing.assert_array_equal(dataset.x[:, :2], generator.normal(size=(20, 2)))
    for x, y in ((dataset.x, dataset.y), (dataset.x_test, dataset.y_test)):
        np.testing.assert_allclose(y, np.tanh(x @ w) @ a / np.sqrt(3), rtol=1e-14)
    assert dataset.y_test.shape == (6,)


def test_teacher_in_blocks_gives_the_same(monkeypatch):
    relu = ACTIVATIONS["relu"].value
    whole = data.from_teacher(relu, 7, 23, n_inputs=3)
    monkeypatch.setattr(generated, "_BLOCK", 14)
    np.testing.assert_allclose(data.from_teacher(relu, 7, 23, n_inputs=3).y, whole.y, rtol=1e-13)


def test_teacher_on_the_sphere_without_bias():
    dataset = data.from_teacher(
        np.tanh, 2, 9, n_inputs=4, input_distribution="sphere", bias=False, n_test=2
    )
    assert dataset.x.shape == (9, 4)
    np.testing.assert_allclose(np.linalg.norm(dataset.x, axis=1), 1.0, rtol=1e-14)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: data.from_function("x", 0, 0.0, 1.0), "n_samples = 0: must be 1 or larger"),
        (lambda: data.from_function("x", 2, 0.0, 1.0, n_test=-1), "n_test = -1: must be 0 or"),
        (lambda: data.from_function("x", 2, 1.0, 1.0), "low = 1: must be finite and less than"),
        (lambda: data.from_function("x", 2, -np.inf, 1.0), "low = -inf: must be finite"),
        (lambda: data.from_function("x0", 2, 0.0, 1.0, n_inputs=2), 'sampling = "grid": is for'),
        (lambda: data.from_function("y", 2, 0.0, 1.0), 'function = "y": unknown name `y`'),
        (lambda: data.from_function("log(x)", 3, -1.0, 1.0), 'function = "log(x)": is nan at (-1'),
        (lambda: data.from_function("1/x", 3, -1.0, 1.0), 'function = "1/x": is inf at (0)'),
        (lambda: data.from_function("x", 10**12, 0.0, 1.0), "n_samples = 1000000000000: makes"),
        (lambda: data.from_teacher(np.tanh, 0, 5), "width = 0: must be 1"),
        (lambda: data.from_teacher(np.tanh, 5, 5, n_inputs=10**12), "n_inputs = 1000000000000"),
    ],
)  # fmt: skip
def test_wrong_arguments(call, expected):
    (problem, *_) = problems_of(call)
    assert problem.startswith(expected), problem
    assert ";" in problem


# Files


@pytest.fixture(params=["npz", "compressed npz", "hdf5"])
def save(request, tmp_path):
    """Write arrays into a file of each format; the names of the files do not tell which."""

    def write(**arrays):
        path = tmp_path / "samples.bin"
        if request.param == "hdf5":
            with h5py.File(path, "w") as file:
                for name, array in arrays.items():
                    file[name] = array
        else:
            write_npz = np.savez if request.param == "npz" else np.savez_compressed
            with path.open("wb") as file:
                write_npz(file, **arrays)
        return path

    return write


def test_file(save):
    path = save(inputs=X, y=Y.astype(np.float32), tx=X[:1], ty=Y[:1])
    dataset = data.from_file(path, x="inputs", x_test="tx", y_test="ty")
    np.testing.assert_array_equal(dataset.x, np.c_[X, np.ones(3)])
    np.testing.assert_array_equal(dataset.y, Y)
    np.testing.assert_array_equal(dataset.y_test, Y[:1])
    assert dataset.kind == "file"


def test_file_without_the_arrays(save):
    assert problems_of(data.from_file, save(a=X, b=Y)) == [
        'x = "x": no such array; the file has a, b',
        'y = "y": no such array; the file has a, b',
    ]


def test_file_with_text_instead_of_numbers(save):
    (problem,) = problems_of(data.from_file, save(x=np.array([b"a", b"b"]), y=Y[:2]))
    assert problem.startswith('x = "x": holds |S1 values, not real numbers')


def test_file_with_bad_samples(save):
    (problem,) = problems_of(data.from_file, save(x=[np.nan, 1.0], y=Y[:2]))
    assert problem.startswith("x[0] = nan: not finite")


def test_truncated_file(save):
    path = save(x=np.arange(1000.0), y=np.arange(1000.0))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (problem,) = problems_of(data.from_file, path)
    assert problem.startswith(f'path = "{path}": ')


def test_no_such_file(tmp_path):
    (tmp_path / "samples.npz").write_bytes(b"")
    (problem,) = problems_of(data.from_file, tmp_path / "sample.npz")
    assert problem.endswith("no such file; did you mean `samples.npz`?")
    (problem,) = problems_of(data.from_file, tmp_path / "x" / "y.npz")
    assert problem.endswith("no such file; check the path")
    (problem,) = problems_of(data.from_file, tmp_path)
    assert "not a file" in problem
    (problem,) = problems_of(data.from_file, tmp_path / "samples.npz")
    assert problem.endswith("neither npz nor HDF5; save it with numpy.savez(path, x=x, y=y)")
    problems_of(data.from_file, "a\0b")


def test_fifo_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (problem,) = problems_of(data.from_file, tmp_path / "fifo")
    assert "not a file" in problem


def test_pickle_is_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was loaded",))

    np.savez(tmp_path / "bomb.npz", x=np.array([Bomb()], dtype=object), y=Y[:1])
    (problem,) = problems_of(data.from_file, tmp_path / "bomb.npz")
    assert problem.startswith('x = "x": holds object values, not real numbers')


def write_npz_with_header(path, shape, dtype="<f8", payload=b""):
    member = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(member, header)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", member.getvalue() + payload)
        good = io.BytesIO()
        np.save(good, Y)
        archive.writestr("y.npy", good.getvalue())


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((2**40,), "declares 1099511627776 numbers; at most"), ((2**24,), "than the file can hold")],
)
def test_npz_of_absurd_size(tmp_path, shape, expected):
    write_npz_with_header(tmp_path / "x.npz", shape)
    (problem,) = problems_of(data.from_file, tmp_path / "x.npz")
    assert expected in problem


def test_npz_with_less_data_than_declared(tmp_path):
    write_npz_with_header(tmp_path / "x.npz", (3,), payload=b"12345678")
    (problem,) = problems_of(data.from_file, tmp_path / "x.npz")
    assert "cannot be read" in problem and problem.endswith("write the file again")


def test_zip_that_is_no_npz(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("x.npy", "nothing of the kind")
        archive.writestr("y.npy", "")
    (problem,) = problems_of(data.from_file, tmp_path / "x.zip")
    assert "cannot be read" in problem


def test_hdf5_inside_groups(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["train/x"], file["train/y"] = X, Y
    dataset = data.from_file(tmp_path / "x.h5", x="train/x", y="/train/y")
    np.testing.assert_array_equal(dataset.y, Y)
    for name, expected in {
        "train": "a group, not an array",
        "/": "a group, not an array",
        "train/z": "the file has x, y",
        "train/x/z": "no such array",
        "..": "no such array",
        "test/x": "the file has train",
    }.items():
        (problem,) = problems_of(data.from_file, tmp_path / "x.h5", x=name, y="train/y")
        assert expected in problem


def make_external_link(file, other):
    file["x"] = h5py.ExternalLink(other, "x")


def make_external_link_of_a_group(file, other):
    file["g"] = h5py.ExternalLink(other, "/")


def make_soft_link(file, other):
    file["elsewhere"] = X
    file["x"] = h5py.SoftLink("/elsewhere")


def make_dangling_link(file, other):
    file["x"] = h5py.SoftLink("/nowhere")


def make_virtual_dataset(file, other):
    layout = h5py.VirtualLayout(shape=X.shape, dtype=X.dtype)
    layout[:] = h5py.VirtualSource(other, "x", shape=X.shape)
    file.create_virtual_dataset("x", layout)


def make_external_storage(file, other):
    file.create_dataset("x", X.shape, X.dtype, external=[(other, 0, X.nbytes)])


def make_absurd_size(file, other):
    file.create_dataset("x", (2**40,), "f8", chunks=(1024,))


def make_empty_promise(file, other):
    file.create_dataset("x", (2**26,), "f8", chunks=(1024,))


def make_absurd_chunks(file, other):
    file.create_dataset("x", (3,), "u1", maxshape=(None,), chunks=(2**29,))


def make_null_dataset(file, other):
    file["x"] = h5py.Empty("f8")


def make_compound(file, other):
    file["x"] = np.zeros(3, [("a", "f8")])


def make_references(file, other):
    file.create_dataset("x", (3,), h5py.ref_dtype)


def make_committed_type(file, other):
    file["x"] = np.dtype("f8")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (make_external_link, "a soft or external link, which is not followed"),
        (make_external_link_of_a_group, "a soft or external link, which is not followed"),
        (make_soft_link, "a soft or external link, which is not followed"),
        (make_dangling_link, "a soft or external link, which is not followed"),
        (make_virtual_dataset, "keeps its values in other files"),
        (make_external_storage, "keeps its values in other files"),
        (make_absurd_size, "declares 1099511627776 numbers; at most"),
        (make_empty_promise, "than the file can hold"),
        (make_absurd_chunks, "declares 536870912 numbers; at most"),
        (make_null_dataset, "not real numbers"),
        (make_compound, "not real numbers"),
        (make_references, "not real numbers"),
        (make_committed_type, "a group, not an array"),
    ],
)
def test_hostile_hdf5(tmp_path, make, expected):
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["x"] = X
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["y"] = Y
        make(file, str(other))
    name = "g/x" if make is make_external_link_of_a_group else "x"
    (problem,) = problems_of(data.from_file, tmp_path / "x.h5", x=name)
    assert problem.startswith(f'x = "{name}": ') and expected in problem, problem
