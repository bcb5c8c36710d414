"""Checks of samples: shapes, finite numbers, sizes, and targets that contradict one another."""

from __future__ import annotations

import hashlib
import warnings

import numpy as np
import numpy.typing as npt

from flowsim.errors import DataWarning

Array = npt.NDArray[np.float64]
Samples = tuple[Array, Array]

MAX_VALUES = 2**28
"""Most numbers an array of samples may have (2 GiB in float64)."""


def checked_samples(
    x: npt.ArrayLike, y: npt.ArrayLike, suffix: str, problems: list[str]
) -> Samples | None:
    """Convert one set of samples to float64, or say what is wrong with it.

    Parameters
    ----------
    x : (n, d) or (n,) array
    y : (n,), (n, 1) or (n, o) array
    suffix : str
        Of the names x and y in messages: empty, or ``"_test"``.
    problems : list of str
        What is wrong is appended here.

    Returns
    -------
    x (n, d), y (n,) or (n, o)
        None if anything is wrong.
    """
    inputs = _numbers(f"x{suffix}", x, problems)
    targets = _numbers(f"y{suffix}", y, problems)
    if inputs is None or targets is None:
        return None
    if len(inputs) != len(targets):
        problems.append(
            f"y{suffix}: has {len(targets)} values but x{suffix} has {len(inputs)} samples; "
            "give one target for every sample"
        )
        return None
    if inputs.ndim == 1:
        inputs = inputs[:, None]
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    return inputs, targets


def check_flag(name: str, value: object, problems: list[str]) -> None:
    """Append to the problems if a value is neither true nor false, such as ``"no"``."""
    if not isinstance(value, bool | np.bool_):
        problems.append(f"{name} = {value!r:.60}: wanted true or false; give one of them")


def both_or_neither(inputs: bool) -> str:
    """Say which of x_test and y_test is missing beside the other, ``inputs`` or not."""
    given, absent = ("x_test", "y_test") if inputs else ("y_test", "x_test")
    return f"{absent}: missing beside {given}; give both or neither"


def column_problems(train: Samples, test: Samples) -> list[str]:
    """Say which of x and y have other columns in the test set than in the training set."""
    return [
        f"{name}_test: has {_columns(tested)} columns but {name} has {_columns(trained)}; "
        "give both the same"
        for name, trained, tested in zip("xy", train, test, strict=True)
        if trained.shape[1:] != tested.shape[1:]
    ]


def count_problems(**counts: int) -> list[str]:
    """Say which counts of samples and the like are negative, or too many to be held in memory.

    Parameters
    ----------
    **counts : int
        By name. ``n_test`` may be 0; all but ``n_inputs`` are numbers of rows of ``n_inputs``.
    """
    problems = []
    columns = counts["n_inputs"]
    if columns > MAX_VALUES:
        return [f"n_inputs = {columns}: at most {MAX_VALUES} are possible; take fewer"]
    for name, count in counts.items():
        least = 0 if name == "n_test" else 1
        if count < least:
            problems.append(f"{name} = {count}: must be {least} or larger; try {name} = 10")
        elif name != "n_inputs" and count * columns > MAX_VALUES:
            problems.append(
                f"{name} = {count}: makes more than {MAX_VALUES} numbers with {columns} inputs; "
                "take fewer"
            )
    return problems


def warn_of_duplicates(x: Array, y: Array) -> None:
    """Warn if samples with the same input have different targets.

    Parameters
    ----------
    x : (n, d) array
    y : (n,) or (n, o) array

    Warns
    -----
    DataWarning
    """
    pair = _contradiction(x, y)
    if pair is not None:
        _warn(f"samples {pair[0]} and {pair[1]} have the same input but different targets")


def warn_of_parallel_inputs(x: Array, y: Array) -> None:
    """Warn if different inputs contradict each other for a 1-homogeneous network.

    sigma(c z) = c sigma(z) makes f(c x) = c f(x) for c > 0, and f(0) = 0.

    Parameters
    ----------
    x : (n, d) array
        The bias coordinate included, if there is one.
    y : (n,) or (n, o) array

    Warns
    -----
    DataWarning
        If parallel inputs have targets that are not in the same ratio.
    """
    targets = y.reshape(len(y), -1)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    at_zero = norms[:, 0] == 0.0
    contradicted = np.flatnonzero(at_zero & targets.any(axis=1))
    if len(contradicted):
        _warn(f"sample {contradicted[0]} is the zero vector, where f = 0, but its target is not")
    rows = np.flatnonzero(~at_zero)
    # Rounded, since x and c x point in the same direction only up to rounding.
    directions, scaled = ((values[rows] / norms[rows]).round(12) for values in (x, targets))
    pair = _contradiction(directions, scaled)
    if pair is None:
        return
    first, second = rows[pair[0]], rows[pair[1]]
    if not np.array_equal(x[first], x[second]):  # else it is a duplicate
        _warn(f"samples {first} and {second} are parallel, but their targets are not in ratio")


def _numbers(name: str, values: npt.ArrayLike, problems: list[str]) -> Array | None:
    """Convert to a finite float64 array of one or two dimensions."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, OverflowError):
        problems.append(f"{name}: is not rectangular; give every sample as many numbers")
        return None
    problem = _shape_problem(array)
    if problem is not None:
        problems.append(f"{name}: {problem}")
        return None
    with np.errstate(over="ignore"):  # a longdouble beyond float64 becomes infinite: see below
        array = array.astype(np.float64)
    bad = np.argwhere(~np.isfinite(array))
    if len(bad) == 0:
        return array
    where = "".join(f"[{index}]" for index in bad[0])
    others = f" (as are {len(bad) - 1} others)" if len(bad) > 1 else ""
    value = array[tuple(bad[0])]
    problems.append(f"{name}{where} = {value}: not finite{others}; correct or remove the sample")
    return None


def _shape_problem(array: np.ndarray) -> str | None:
    if array.dtype.kind not in "biuf" and array.size:
        return f"holds {array.dtype} values, not real numbers; convert them to float"
    if array.ndim not in (1, 2):
        return f"has shape {array.shape}; reshape it to (samples, columns)"
    if array.size == 0:
        return f"is empty, of shape {array.shape}; give at least one sample of one number"
    return None


def _columns(array: Array) -> int:
    return 1 if array.ndim == 1 else array.shape[1]


def _contradiction(x: Array, y: Array) -> tuple[int, int] | None:
    """Return two rows of equal ``x`` and unequal ``y``, if there are such."""
    first_with: dict[bytes, int] = {}
    for row, inputs in enumerate(x):
        # The hash stands for the inputs, which would be there twice; -0.0 becomes 0.0.
        key = hashlib.blake2b((inputs + 0.0).tobytes(), digest_size=16).digest()
        first = first_with.setdefault(key, row)
        if first != row and np.any(y[first] != y[row]):
            return first, row
    return None


def _warn(what: str) -> None:
    warnings.warn(
        f"data: {what}; the loss cannot reach 0, so mend the data or expect a steady state",
        DataWarning,
        stacklevel=4,
    )
