"""The CPU backend's own exp, expm1, log1p, tanh and erf: accuracy, special values, equal bits."""

import ctypes
import math
import re

import mpmath
import numba
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy import exp as exp_by_name

from flowsim.kernels.activations import ACTIVATIONS, Activation, erf
from flowsim.kernels.cpu import elementary
from flowsim.kernels.cpu.activations import compile_activation
from flowsim.kernels.cpu.elementary import INSTEAD

DTYPES = ("float64", "float32")
FUNCTIONS = {
    name: Activation(name, value, lambda z: z)
    for name, value in {
        "exp": lambda z: np.exp(z),
        "expm1": lambda z: np.expm1(z),
        "log1p": lambda z: np.log1p(z),
        "tanh": lambda z: np.tanh(z),
        "erf": lambda z: erf(z),
    }.items()
}
# Largest errors found over four million points, rounded up, in units in the last place.
LIMITS = {"exp": 1.1, "expm1": 2.5, "log1p": 1.5, "tanh": 3.0, "erf": 1.5}
SMOOTH = sorted(name for name, a in ACTIVATIONS.items() if not a.kinked)


def apply(activation, z, which="both"):
    """Value and derivative of compiled code; ``which`` of the two block functions."""
    z = np.ascontiguousarray(z)
    s, ds = np.empty_like(z), np.empty_like(z)
    real = np.ctypeslib.as_ctypes_type(z.dtype)
    arrays = [z, s, ds] if which == "both" else [z, s]
    kinds = [ctypes.c_void_p] * len(arrays)
    address = getattr(compile_activation(activation, z.dtype), which)
    function = ctypes.CFUNCTYPE(None, *kinds, ctypes.c_ssize_t, real)(address)
    function(*(array.ctypes.data for array in arrays), len(z), 1.0)
    return (s, ds) if which == "both" else s


def ulps(name, z):
    """Errors of a function in units in the last place of the exact result, where it is finite."""
    found = apply(FUNCTIONS[name], z, "value")
    errors = []
    with mpmath.workprec(150):
        for x, y in zip(z, found, strict=True):
            exact = getattr(mpmath, name)(mpmath.mpf(float(x)))
            unit = float(np.spacing(abs(z.dtype.type(float(exact)))))
            if math.isfinite(unit):
                errors.append(abs(float((mpmath.mpf(float(y)) - exact) / unit)))
    return np.array(errors)


def points(name, dtype, size=150):
    """Both signs, every size, and the borders between ways to compute."""
    draw = np.random.default_rng(5)
    with np.errstate(over="ignore", under="ignore"):
        sizes = 10.0 ** draw.uniform(-310.0 if dtype == "float64" else -44.0, 2.9, size)
        borders = np.log(2.0) * (np.arange(-40, 40) / 2.0)
        z = np.concatenate([
            sizes, -sizes, draw.normal(size=4 * size), draw.uniform(-750.0, 715.0, size),
            borders, np.nextafter(borders, 1e3), [1.0, -1.0, np.sqrt(2.0) - 1.0, 0.0],
        ]).astype(dtype)  # fmt: skip
    if name == "log1p":
        z = np.abs(z) - (z < 0) * np.floor(np.abs(z)) - (z < 0).astype(dtype)  # > -1
        z = np.concatenate([z[z > -1], [1e30, 3e38]]).astype(dtype)
    finite = 80.0 if dtype == "float32" else 700.0
    return z[z < finite] if name in ("exp", "expm1") else z


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_are_a_few_units_in_the_last_place(name, dtype):
    assert np.max(ulps(name, points(name, dtype))) <= LIMITS[name]


@pytest.mark.parametrize("name", FUNCTIONS)
@settings(deadline=None, max_examples=15)
@example(values=[-1.0 + 2**-24, -745.0, -103.0, 88.0, 5e-324, -87.5, 5.9])
@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=40))
def test_errors_are_small_wherever_one_looks(name, values):
    for dtype in DTYPES:
        with np.errstate(over="ignore", under="ignore"):
            moderate = [math.fmod(value, 30.0) for value in values]
            z = np.array(values + moderate).astype(dtype)
        z = z[np.isfinite(z) & (z > (-1.0 if name == "log1p" else -np.inf))]
        if name in ("exp", "expm1"):
            z = z[z < (88.0 if dtype == "float32" else 709.0)]
        assert not len(z) or np.max(ulps(name, z)) <= LIMITS[name]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("exp", [(-np.inf, 0.0), (np.inf, np.inf), (0.0, 1.0), (-1e30, 0.0), (1e30, np.inf)]),
        ("expm1", [(-np.inf, -1.0), (np.inf, np.inf), (-0.0, -0.0), (0.0, 0.0), (1e30, np.inf)]),
        ("log1p", [(-1.0, -np.inf), (-1.5, np.nan), (-np.inf, np.nan), (np.inf, np.inf),
                   (-0.0, -0.0), (0.0, 0.0)]),
        ("tanh", [(-np.inf, -1.0), (np.inf, 1.0), (-0.0, -0.0), (0.0, 0.0), (1e30, 1.0)]),
        ("erf", [(-np.inf, -1.0), (np.inf, 1.0), (-0.0, -0.0), (0.0, 0.0), (1e30, 1.0)]),
    ],
)  # fmt: skip
def test_infinities_zeros_and_nan(name, pairs, dtype):
    z, expected = np.array([*pairs, (np.nan, np.nan)], dtype).T
    found = apply(FUNCTIONS[name], z, "value")
    np.testing.assert_array_equal(found, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found[numbers]), np.signbit(expected[numbers]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["tanh", "erf"])
def test_odd_functions_are_odd_to_the_last_bit(name, dtype):
    z = points(name, dtype)
    found = apply(FUNCTIONS[name], z, "value")
    assert (-found).tobytes() == apply(FUNCTIONS[name], -z, "value").tobytes()
    assert np.all(np.abs(found) <= 1.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SMOOTH)
def test_bits_depend_neither_on_the_place_nor_on_the_neighbours(name, dtype):
    z = np.random.default_rng(6).normal(scale=2.0, size=133).astype(dtype)
    whole, slopes = apply(ACTIVATIONS[name], z)
    assert whole.tobytes() == apply(ACTIVATIONS[name], z, "value").tobytes()
    singles = [apply(ACTIVATIONS[name], z[k : k + 1]) for k in range(len(z))]
    assert whole.tobytes() == b"".join(s.tobytes() for s, _ in singles)
    assert slopes.tobytes() == b"".join(ds.tobytes() for _, ds in singles)


@pytest.mark.parametrize("name", SMOOTH)
def test_float32_is_as_accurate_as_numpy_in_float32(name):
    z = np.random.default_rng(7).normal(scale=2.0, size=2000).astype("float32")
    activation = ACTIVATIONS[name]
    functions = (activation.value, activation.derivative)
    for found, function in zip(apply(activation, z), functions, strict=True):
        exact = np.asarray(function(z.astype("float64")), np.float64)
        by_numpy = np.max(np.abs(function(z) - exact) / (1.0 + np.abs(exact)))
        assert np.max(np.abs(found - exact) / (1.0 + np.abs(exact))) <= 2.0 * by_numpy + 1e-7


def test_constants_of_a_users_function_have_the_precision_of_its_argument():
    factor = 0.1

    def value(z, shift=0.7):
        return (z * factor + shift) * (z - 0.3)

    z = np.random.default_rng(8).normal(size=100).astype("float32")
    found = apply(Activation("own", value, lambda z: exp_by_name(0.3 * z)), z)
    assert found[0].tobytes() == value(z).tobytes()
    expected = apply(Activation("exp", lambda z: np.exp(z), lambda z: z), np.float32(0.3) * z)
    assert found[1].tobytes() == expected[0].tobytes()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_function_of_the_library_is_called(name):
    function = INSTEAD.get(getattr(np, name, None), elementary.erf)

    @numba.njit(error_model="numpy")
    def loop(z):
        for k in range(len(z)):
            z[k] = function(z[k])

    loop(np.zeros(3))
    (code,) = loop.inspect_llvm().values()
    called = set(re.findall(r"call .*?@(?:llvm\.)?([a-z]\w*)", code))
    assert called.isdisjoint({"exp", "expm1", "log", "log1p", "tanh", "erf"})
    assert "fma" in called
