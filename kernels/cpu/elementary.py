"""Elementary functions that LLVM turns into vector instructions: exp, expm1, log1p, tanh, erf.

A call of the C library takes one number at a time. These functions are nothing but arithmetic
without branches, so that a loop over an array computes as many at a time as the processor has
lanes. Each reduces its argument and evaluates a polynomial (Muller, Elementary Functions, 3rd ed.
2016, is about such methods). In float32 all of it is float32, with shorter polynomials.

Every fused multiply-add is one by name (`_fma`), and nothing else is fused or reordered: the bits
of a result depend neither on its place in the loop nor on the processor. Processors without that
instruction call the C library for it, and are slow.

The coefficients are minimax, by Remez's exchange in 50 digits for the error relative to the result
and rounded afterwards; where a leading term is 1 or 2 it is added apart, so that its rounding is
the result's only one. Largest errors found in four million points, in units in the last place
(``tests/test_elementary.py`` holds the functions to little more):

======= ==== ===== ===== ==== ====
dtype   exp  expm1 log1p tanh erf
======= ==== ===== ===== ==== ====
float64 1.02 2.12  0.82  2.50 1.19
float32 1.04 1.56  1.38  2.52 1.25
======= ==== ===== ===== ==== ====
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from . import precision
from .precision import Constant, in_own_precision

FINGERPRINT = hashlib.sha256(
    b"".join(Path(file).read_bytes() for file in (__file__, precision.__file__))
).hexdigest()
"""Of this file and `precision`: part of the key under which code is cached that these functions are
compiled into, as Numba looks at the file of the caller only."""


def _layout(kind) -> tuple[ir.Type, int, int]:
    """Integer type, bits of the fraction and bias of the exponent of a float type."""
    return (ir.IntType(64), 52, 1023) if kind.bitwidth == 64 else (ir.IntType(32), 23, 127)


@intrinsic
def _fma(typingctx, a, b, c):
    """a b + c, rounded once."""
    return a(a, a, a), lambda context, builder, signature, arguments: builder.fma(*arguments)


@intrinsic
def _select(typingctx, condition, yes, no):
    """One of two numbers, both of them computed."""
    return yes(condition, yes, yes), lambda context, builder, signature, arguments: builder.select(
        *arguments
    )


def _called(name):
    """An intrinsic function of LLVM of one or two floats."""

    def codegen(context, builder, signature, arguments):
        kind = arguments[0].type
        function = builder.module.declare_intrinsic(
            name, [kind], ir.FunctionType(kind, [kind] * len(arguments))
        )
        return builder.call(function, arguments)

    return codegen


@intrinsic
def _magnitude(typingctx, x):
    """|x|."""
    return x(x), _called("llvm.fabs")


@intrinsic
def _with_sign(typingctx, x, of):
    """|x| with the sign of the other, that of a zero or NaN too."""
    return x(x, x), _called("llvm.copysign")


@intrinsic
def _power_of_two(typingctx, shifted):
    """2^k from k + `_SHIFT`, whose lowest bits are k in two's complement; normal results only."""

    def codegen(context, builder, signature, arguments):
        integer, fraction, bias = _layout(signature.args[0])
        k = builder.shl(builder.bitcast(arguments[0], integer), integer(fraction))
        return builder.bitcast(builder.add(k, integer(bias << fraction)), arguments[0].type)

    return shifted(shifted), codegen


def _above_root(builder, x, kind):
    """Bits of x > 0, moved so that the exponent grows at sqrt(1/2) 2^k and not at 2^k."""
    integer, fraction, bias = _layout(kind)
    root = np.sqrt(0.5).astype(f"f{kind.bitwidth // 8}").view(f"i{kind.bitwidth // 8}")
    moved = builder.add(builder.bitcast(x, integer), integer((bias << fraction) - int(root)))
    return integer, fraction, bias, int(root), moved


@intrinsic
def _exponent(typingctx, x):
    """The k of x = 2^k m, sqrt(1/2) <= m < sqrt(2), as a float; for normal x > 0."""

    def codegen(context, builder, signature, arguments):
        integer, fraction, bias, _, moved = _above_root(builder, arguments[0], signature.args[0])
        # Few processors convert whole vectors of integers: k goes into the lowest bits of 2^52.
        one = (bias + fraction) << fraction
        k = builder.or_(builder.lshr(moved, integer(fraction)), integer(one))
        shifted = builder.bitcast(k, arguments[0].type)
        return builder.fsub(shifted, ir.Constant(shifted.type, float(2**fraction + bias)))

    return x(x), codegen


@intrinsic
def _mantissa(typingctx, x):
    """The m of x = 2^k m, sqrt(1/2) <= m < sqrt(2); for normal x > 0."""

    def codegen(context, builder, signature, arguments):
        integer, fraction, _, root, moved = _above_root(builder, arguments[0], signature.args[0])
        lowest = builder.and_(moved, integer((1 << fraction) - 1))
        return builder.bitcast(builder.add(lowest, integer(root)), arguments[0].type)

    return x(x), codegen


def _polynomial(double, single):
    """A polynomial by Horner's rule; coefficients in either precision, the constant one first."""

    @intrinsic
    def polynomial(typingctx, x):
        def codegen(context, builder, signature, arguments):
            (z,) = arguments
            numbers = double if signature.args[0].bitwidth == 64 else single
            constants = [ir.Constant(z.type, c) for c in numbers]
            total = constants.pop()
            while constants:
                total = builder.fma(total, z, constants.pop())
            return total

        return x(x), codegen

    return polynomial


_expm1_rest = _polynomial(
    # (e^r - 1 - r) / r^2 for |r| <= log(2) / 2; error of e^r - 1 2^-55.6 (single 2^-26.2)
    (0.5000000000000006, 0.1666666666666659, 0.04166666666657668, 0.008333333333389112,
     0.0013888888931589205, 0.00019841269720257895, 2.4801505244249357e-05,
     2.7557406154639223e-06, 2.7626049836711956e-07, 2.5054300931601365e-08),
    (0.4999999701976776, 0.1666654348373413, 0.04166719689965248, 0.008366522379219532,
     0.0013882871717214584),
)  # fmt: skip
_log_rest = _polynomial(
    # (log((1 + w) / (1 - w)) - 2 w) / w^3, of w^2, for |w| <= 0.1716; error 2^-58.6 (2^-29.4)
    (0.666666666666671, 0.39999999999516245, 0.2857142873026741, 0.22222198975275012,
     0.18183578152326768, 0.15312982962240565, 0.14812434245500736),
    (0.6666677594184875, 0.3997601866722107, 0.29927298426628113),
)  # fmt: skip
_erf_rest = _polynomial(
    # erf(x) / x - 1, of x^2, for |x| <= 1; error of erf 2^-56.9 (2^-29.6)
    (0.12837916709551256, -0.3761263890318352, 0.112837916709442, -0.026866170643113415,
     0.005223977606130842, -0.0008548325929766229, 0.00012055293586936552,
     -1.492471243952805e-05, 1.6447132699711598e-06, -1.6206318752446298e-07,
     1.3710988702111699e-08, -7.779462968166381e-10),
    (0.12837916612625122, -0.3761262595653534, 0.1128358542919159, -0.026853814721107483,
     0.005188330542296171, -0.0008010202436707914, 7.853849820094183e-05),
)  # fmt: skip
_erfcx = _polynomial(
    # erfc(x) exp(x^2), of 1 / (x + _ERFC_POLE), for x >= 1; error of erf 2^-61.3 (2^-34.6)
    (2.0550423658629278e-05, 0.5630231306610549, 1.7221692403975013, 4.3577567596426405,
     16.781598001626474, 7.233378344939453, 133.75851665828924, 257.6378384256648,
     -2027.6787282528696, 10318.365041447067, -26046.68019963302, 30839.77910885341,
     -14266.403800661757),
    (0.0018180650658905506, 0.5194776058197021, 1.5866814851760864, -0.5138747692108154,
     10.183780670166016, -7.3835368156433105),
)  # fmt: skip
_ERFC_POLE = Constant(3.0, 2.0)

_SHIFT = Constant(1.5 * 2.0**52, 1.5 * 2.0**23)
"""What is added to this is rounded to an integer, which is then in the lowest bits."""
_LOG2_HIGH = Constant(
    math.ldexp(round(math.ldexp(math.log(2.0), 42)), -42),
    math.ldexp(round(math.ldexp(math.log(2.0), 16)), -16),
)
"""log 2 with few enough bits that its product with any exponent is exact ..."""
_LOG2_LOW = Constant(5.497923018708371e-14, 1.4286068203094173e-06)
"""... and the rest of it."""
_INVERSE_LOG2 = Constant(1.0 / math.log(2.0), 1.0 / math.log(2.0))
_LEAST_EXP = Constant(-746.0, -104.0)
_MOST_EXP = Constant(710.0, 89.0)
"""exp is 0 below the one and infinity above the other."""
_MOST_TANH = 22.0
"""tanh is 1 above."""
_ALL_INTEGERS = Constant(2.0**54, 2.0**25)
"""1 + x is x above."""


def _clamped(x):
    """Where exp is between 0 and infinity; NaN stays NaN."""
    x = _select(x > _MOST_EXP, _MOST_EXP, x)
    return _select(x < _LEAST_EXP, _LEAST_EXP, x)


def _multiple(x):
    """The integer nearest to x / log 2, plus `_SHIFT`."""
    return _fma(x, _INVERSE_LOG2, _SHIFT)


def _reduced_expm1(x, k):
    """e^r - 1 for r = x - k log 2, the product in two parts (Cody & Waite)."""
    r = _fma(-k, _LOG2_LOW, _fma(-k, _LOG2_HIGH, x))
    return _fma(r * r, _expm1_rest(r), r)


def exp(x):
    """e^x = 2^k e^r with k = round(x / log 2).

    2^k is a product of two powers, as neither 2^1024 nor 2^-1074 is a normal number; results below
    the normal numbers are rounded once.
    """
    x = _clamped(x)
    k = _multiple(x) - _SHIFT
    half = _fma(k, 0.5, _SHIFT)
    one, other = _power_of_two(half), _power_of_two(k - (half - _SHIFT) + _SHIFT)
    return (1.0 + _reduced_expm1(x, k)) * one * other


def expm1(x):
    """e^x - 1 = 2^k (e^r - 1) + 2^k - 1, with k and powers as in `exp`; k = 0 near 0."""
    sign = x
    x = _clamped(x)
    k = _multiple(x) - _SHIFT
    half = _fma(k, 0.5, _SHIFT)
    rest = k - (half - _SHIFT)
    one, other = _power_of_two(half), _power_of_two(rest + _SHIFT)
    difference = one - _power_of_two(_SHIFT - rest)  # exact, unless 1 is nothing beside 2^k
    return _with_sign(_fma(_reduced_expm1(x, k), one, difference) * other, sign)


def tanh(x):
    """tanh x = E / (E + 2), E = e^2|x| - 1, or 1 - 2 / (E + 2) where that rounds less; odd.

    What rounding loses in e^r - 1 is added to E again: E has to be better than `expm1`, as there
    is more to be rounded.
    """
    double = 2.0 * _magnitude(x)
    double = _select(double > 2.0 * _MOST_TANH, 2.0 * _MOST_TANH, double)
    shifted = _multiple(double)
    k, power = shifted - _SHIFT, _power_of_two(shifted)
    part = _fma(-k, _LOG2_HIGH, double)  # exact
    r = _fma(-k, _LOG2_LOW, part)
    square = r * r * _expm1_rest(r)
    change = r + square
    lost = (square - (change - r)) + _fma(-k, _LOG2_LOW, part - r)
    change = _fma(change, power, power - 1.0) + lost * power
    large = change > 2.0
    value = _select(large, -2.0, change) / (change + 2.0)
    return _with_sign(_select(large, 1.0 + value, value), x)


def log1p(x):
    """log(1 + x) = k log 2 + log(1 + f), 1 + x = 2^k (1 + f), sqrt(1/2) <= 1 + f < sqrt(2).

    What rounding 1 + x loses is known exactly (Knuth's sum) and goes into f, which is x if k = 0.
    log(1 + f) = log((1 + w) / (1 - w)), w = f / (2 + f), is written as f minus something small, as
    in the C library of FreeBSD.
    """
    y = 1.0 + x
    back = y - 1.0
    lost = (1.0 - (y - back)) + (x - back)
    k = _exponent(y)
    # Beyond, 2^-k may be no normal number, and nothing is lost.
    lost = _select(x < _ALL_INTEGERS, lost * _power_of_two(_SHIFT - k), 0.0)
    f = (_mantissa(y) - 1.0) + lost
    w = f / (2.0 + f)
    z, half = w * w, 0.5 * f * f
    small = half - _fma(w, half + z * _log_rest(z), k * _LOG2_LOW)
    value = _with_sign(_fma(k, _LOG2_HIGH, f - small), x)
    value = _select(x > -1.0, value, _select(x == -1.0, -np.inf, np.nan))
    return _select(x == np.inf, x, value)


def erf(x):
    """Error function: x times a polynomial of x^2 up to 1, then 1 - exp(-x^2) erfcx(|x|).

    Both are computed, and one is taken. Beyond 1, erfc is at most a sixth of erf: its errors, of
    the rounded square in the exponent among them, count for as much less.
    """
    square = x * x
    near = _fma(x, _erf_rest(square), x)
    t = 1.0 / (_magnitude(x) + _ERFC_POLE)
    far = _with_sign(_fma(exp(-square), -_erfcx(t), 1.0), x)
    return _select(_magnitude(x) > 1.0, far, near)


INSTEAD = {np.exp: exp, np.expm1: expm1, np.log1p: log1p, np.tanh: tanh}
"""What compiled activations call instead of NumPy's functions."""

for _function in (
    _clamped, _multiple, _reduced_expm1, exp, expm1, tanh, log1p, erf,
):  # fmt: skip
    in_own_precision(_function)
