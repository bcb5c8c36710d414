"""The structures that a launch of ``members.cu`` is given, field by field as ``member_data.cu``."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from flowsim.kernels.cpu import member_data

MOST_SAMPLES = 32
"""n up to which a member's side of size n fits a warp."""

MOST_INPUTS = 8
"""d up to which a neuron fits the registers of a thread."""

_NUMBER, _COUNT, _POINTER = ctypes.c_double, ctypes.c_int64, ctypes.c_void_p
_REALS = {"float64": ctypes.c_double, "float32": ctypes.c_float}


def _structure(name: str, **fields: Any) -> type[ctypes.Structure]:
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})


Rules = _structure("Rules", **dict.fromkeys(member_data.Rules._fields, _NUMBER))

Schedule = _structure(
    "Schedule", moments=_POINTER, count=_COUNT, first=_NUMBER, least=_NUMBER, most=_NUMBER
)

Schedules = _structure("Schedules", series=Schedule * 2)

ARRAYS = (
    "theta", "initial", "spare", "scales", "residual", "numbers", "counters", "change",
    "sup_change", "rows", "snapshot_times", "snapshots", "kept",
)  # fmt: skip
"""Arrays of all members."""

Members = _structure(
    "Members",
    **dict.fromkeys(ARRAYS, _POINTER),
    **dict.fromkeys(("count", "row_room", "snapshot_room"), _COUNT),
)


def kept_words(n: int) -> int:
    """Words of 8 bytes that are kept of a member between launches, besides its results."""
    return 15 + n + 2 * n * n


def padded(n: int) -> int:
    """Samples that a launch is given, with those that only fill up a group."""
    return n if n <= 4 else (n + 7) // 8 * 8


def make_problem(
    problem: member_data.Problem, neurons: int, x: Any, y: Any, inner: Any
) -> ctypes.Structure:
    """The problem of all members.

    Parameters
    ----------
    problem : Problem
        As the CPU has it.
    neurons : int
    x, y, inner
        Its arrays in float64, on the device.
    """
    n, d = problem.x.shape
    points = np.zeros((padded(n), d), problem.x.dtype)
    points[:n] = problem.x
    rows = _REALS[points.dtype.name] * d * len(points)
    kind = _structure(
        "Problem",
        **dict.fromkeys(("x", "y", "inner"), _POINTER),
        leak=_NUMBER,
        **dict.fromkeys(("neurons", "width"), _COUNT),
        points=rows,
    )
    arrays = (one.data.ptr for one in (x, y, inner))
    return kind(*arrays, problem.leak, neurons, problem.width, rows.from_buffer_copy(points))


def make_control(control: member_data.Control) -> ctypes.Structure:
    """The method: the numbers of its control and its tableau."""
    stages = len(control.b)
    if stages > 2 or control.dense.shape != (stages, stages):
        raise ValueError(f"no code for {stages} stages with a dense output of this degree")
    numbers, square = _NUMBER * stages, _NUMBER * stages * stages
    kind = _structure(
        "Control",
        **dict.fromkeys(
            ("fraction", "change", "late_fraction", "late", "max_drift", "at_rest"), _NUMBER
        ),
        **dict.fromkeys(("max_age", "max_rejections", "max_passes"), _COUNT),
        first=_NUMBER,
        b=numbers,
        dense=square,
    )
    return kind(
        control.fraction, control.change, control.late_fraction, control.late,
        control.max_drift, control.at_rest,
        control.max_age, control.max_rejections, control.max_passes,
        control.a[1, 0] if stages == 2 else 0.0,
        numbers(*control.b),
        square(*(numbers(*row) for row in control.dense)),
    )  # fmt: skip


def make_schedule(schedule: member_data.Schedule, moments: Any) -> ctypes.Structure:
    """When a series has rows; ``moments`` are on the device."""
    return Schedule(
        moments.data.ptr, len(schedule.moments), schedule.first, schedule.least, schedule.most
    )
