"""Every kernel of the CUDA backend is compiled for two architectures, without any device.

The backend itself says which kernels it asks for: its passes run with a CuPy of sorts that computes
nothing. NVRTC's report then tells what each kernel takes.
"""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from two_layer_fields import make_field

from flowsim.errors import ConfigError
from flowsim.kernels.activations import ACTIVATIONS, Activation
from flowsim.kernels.cuda import few, matrix, nvrtc, sums
from flowsim.kernels.cuda.activations import CODE, activation_source
from flowsim.kernels.cuda.choice import MOST_INPUTS, choose_way
from flowsim.kernels.cuda.compiler import options, source
from flowsim.kernels.cuda.device import device_problem, use_device

ARCHITECTURES = ("sm_80", "sm_90")
MOST_REGISTERS = 232
"""A thread; two blocks of 128 threads are then at home on a multiprocessor."""
MOST_SPILLED = 48
"""Bytes a thread: what ptxas puts by of addresses, to have one block more. An array would be more
than that, and have its place in the stack frame besides."""

needs_nvrtc = pytest.mark.skipif(
    nvrtc.library_path() is None,
    reason="no NVRTC; pip install nvidia-cuda-nvrtc installs it",
)


class States:
    """A state, or a stack of them, that is nowhere."""

    strides, shape, nbytes, dtype = (8, 8, 8), (1, 1, 1), 0, np.dtype("float64")
    data = SimpleNamespace(ptr=0)

    def __getitem__(self, key):
        return self

    def __setitem__(self, key, value):
        """Nothing to be written to."""

    def __len__(self):
        return 1

    def get(self):
        return np.zeros((2, 1, 1))


class Asked:
    """Stands for `compiler.kernel`: notes what is asked for."""

    def __init__(self):
        self.specs = {}

    def __call__(self, name, names, macros, activation=None, shared=0):
        code, given = source(names, activation), options(macros)
        self.specs[name, code, given] = shared
        return lambda *arguments: None


class NoSums(sums.Sums):
    """Sums that are zero."""

    def __init__(self):
        """Nothing to be kept."""

    def room(self, rows, width):
        return States()

    def total(self, rows, width):
        return np.zeros(width)

    def largest(self, count):
        return 0.0

    def runs(self, lengths):
        return np.zeros(len(lengths))


CUPY = SimpleNamespace(
    empty=lambda *a: States(), zeros=lambda *a: States(), asarray=lambda *a: States()
)
NOTHING = SimpleNamespace(
    forward=lambda *a: None, backward=lambda *a: None, add_gram=lambda *a: None
)


def stages(passes, slopes, errors):
    """What an explicit pair with so many slopes asks for, and what Euler does."""
    s, e = States(), np.ones(passes.field.x.shape[0])
    passes.sweep(s)
    passes.sweep(s, e, slope=s, outputs=False)
    passes.sweep(s, e, s, s, None, np.ones(1), None, s)
    passes.sweep(None, base=s, slopes=s, weights=np.ones(slopes + 1), out=s)
    passes.sweep(None, e, s, s, np.ones(1), np.ones(2), s, None)
    last_stage(passes, slopes)
    passes.errors(s, e, s, np.ones((errors, slopes + 1)), s)


def last_stage(passes, slopes):
    """The kernel that does the most of all but the errors."""
    s, e = States(), np.ones(passes.field.x.shape[0])
    w = np.ones(slopes + 1)
    passes.sweep(None, e, s, s, np.ones(slopes), w, s, s, others=w, other=s)


def retraced(passes):
    """What a pair asks for whose slopes are made again."""
    most, n = passes.most_retraced, passes.field.x.shape[0]
    for stages in (1, most - 1):
        passes.retrace(States(), np.ones((stages, n)), np.ones((stages, stages)), States())
    rows = np.ones((most - 1, most - 1))
    passes.retrace_errors(States(), np.ones((most, n)), rows, np.ones((1, most)))


def others(passes):
    """What the other methods and the recorder ask for."""
    s, e = States(), np.ones(passes.field.x.shape[0])
    passes.registers(s, e, s, s, s, np.ones(5), True)
    passes.recurrence(s, e, s, s, s, np.ones(4), s)
    passes.tangent(s, s)
    passes.activity(s)


def few_passes(n, d, dtype, activation):
    field = make_field(n, d, activation)
    assert choose_way(field, np.dtype(dtype), "auto") == "few"
    return few.FewPasses(field, 1 << 20, np.dtype(dtype), CUPY, NoSums())


def ask(case):
    """Run the passes of a case."""
    kind, *rest = case
    if kind == "pair":
        *rest, slopes, errors = rest
        stages(few_passes(*rest), slopes, errors)
    elif kind == "all":
        passes = few_passes(*rest)
        stages(passes, 6, 1)
        others(passes)
        if passes.most_retraced:
            retraced(passes)
        if passes.field.x.shape[0] <= few.MOST_GRAM_SAMPLES:
            passes.grams(States())
    elif kind == "stage":
        last_stage(few_passes(*rest), 5)
    else:
        n, d, dtype, activation = rest
        passes = matrix.MatrixPasses(
            make_field(n, d, activation), 1000, np.dtype(dtype), CUPY, NoSums()
        )
        passes.sweep(None, np.ones(n), States(), States(), np.ones(3), np.ones(4), None, States())
        others(passes)
        passes.grams(States())


CASES = [
    ("all", 4, 2, "float64", "relu"),
    ("all", 40, 3, "float32", "tanh"),
    ("pair", 4, 2, "float32", "relu", 6, 1),
    ("pair", 4, 2, "float64", "relu", 12, 2),
    ("pair", 1, 1, "float64", "relu", 4, 2),
    ("pair", 64, MOST_INPUTS["float64"], "float64", "relu", 1, 1),
    ("pair", 8, MOST_INPUTS["float32"], "float32", "erf", 1, 1),
    *(("stage", 3, 2, "float64", name) for name in sorted(CODE)),
    ("matrix", 300, 785, "float64", "relu"),
    ("matrix", 300, 785, "float32", "gelu"),
]


@cache
def compiled(code, given, architecture):
    """What NVRTC makes of a source; that of sums, and some of other passes, is asked for again."""
    return nvrtc.compile_source(code, given, architecture)


@needs_nvrtc
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_kernel_compiles_into_registers(case, monkeypatch):
    asked = Asked()
    for module in (few, matrix, sums):
        monkeypatch.setattr(module, "kernel", asked)
    monkeypatch.setattr(matrix, "Products", lambda *a: NOTHING)
    ask(case)
    sums.squares(NoSums(), np.zeros((2, 3, 8)), np.ones(2))
    sums.invariant_drift(NoSums(), np.zeros((3, 8)), np.zeros((3, 8)), 1.0, 1.0)
    assert len(asked.specs) > 1
    for (name, code, given), shared in asked.specs.items():
        for architecture in ARCHITECTURES:
            binary, found = compiled(code, given, architecture)
            assert binary[:4] == b"\x7fELF"
            kernel = found[name]
            where = f"{name} {given} {architecture}: {kernel}"
            assert kernel.registers <= MOST_REGISTERS, where
            assert kernel.spilled <= MOST_SPILLED, where
            assert kernel.stack <= kernel.spilled + 16, where  # no array in local memory
            assert kernel.shared + shared <= 2 * few.MOST_SHARED_BYTES, where


@needs_nvrtc
def test_the_compiler_reports_an_error_and_what_a_kernel_takes():
    with pytest.raises(nvrtc.CompilationError, match="undefined"):
        nvrtc.compile_source('extern "C" __global__ void f() { g(); }', [], "sm_90")
    code = """extern "C" __global__ void f(int* p) {
        int local[64]; for (int i = 0; i < 64; ++i) local[(7 * i + p[64]) % 64] = p[i];
        p[0] = local[p[1] % 64]; }"""
    _, found = nvrtc.compile_source(code, [], "sm_90")
    assert found["f"].stack >= 256 and found["f"].registers > 4


def test_every_activation_has_its_code():
    assert set(CODE) == set(ACTIVATIONS)
    with pytest.raises(ConfigError, match='"own": has no CUDA code; set integrate.backend = "cpu"'):
        activation_source(Activation("own", np.tanh, np.tanh))


def test_no_source_includes_a_header():
    for name in ("neurons", "stage", "retrace", "registers", "errors", "products", "grams",
                 "matrix", "sums"):  # fmt: skip
        assert "#include" not in source([name])


def test_without_a_device_one_line_says_what_to_do():
    problem = device_problem()
    if not problem:
        pytest.skip("there is a device")
    assert "\n" not in problem
    assert "pip install 'flowsim[cuda13]'" in problem or 'backend = "cpu"' in problem
    with pytest.raises(ConfigError, match='^integrate.backend = "cuda": finds no'):
        use_device()


@pytest.mark.parametrize("n", [1, 7, 16, 17, 64, 500])
@pytest.mark.parametrize("cheap", [True, False])
def test_layouts_hold_all_samples(n, cheap):
    layout = few.layout_for(n, 3, 8, cheap)
    assert layout.padded >= n
    assert layout.one_chunk == (layout.chunks == 1 and few.shared_bytes(layout, 3, 8) == 0)
    if not layout.one_chunk:
        assert layout.samples & (layout.samples - 1) == 0
        assert layout.padded - n < layout.samples


def test_ways_by_a_rule():
    double = np.dtype("float64")
    assert choose_way(make_field(4, 2), double, "auto") == "few"
    assert choose_way(make_field(4, 2), double, "matrix") == "matrix"
    assert choose_way(make_field(4, 13), double, "few") == "matrix"
    assert choose_way(make_field(10_000, 2), double, "auto") == "matrix"


@pytest.mark.parametrize("columns", [64, 300])
def test_columns_keep_z_small(columns):
    for n in (1, 100, 256, 5000):
        assert matrix.columns_for(n, 8) * n * 8 <= max(1 << 25, 1024 * n * 8)
