"""Arrays from npz and HDF5 files that may have been made to do harm.

Nothing is unpickled, nothing outside the file is followed, and an array is allocated only after
its declared size has been found plausible.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from flowsim.data.checks import MAX_VALUES, both_or_neither
from flowsim.data.disk import BEST_COMPRESSION, check_file, problem, unreadable
from flowsim.data.labelled import Choice, LabelledSamples, from_labelled
from flowsim.data.samples import Dataset, from_arrays
from flowsim.errors import ConfigError

_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class _Refused(Exception):
    """An array that is not read; the text says why and what to do."""


def from_file(
    path: str | os.PathLike[str],
    x: str = "x",
    y: str = "y",
    x_test: str | None = None,
    y_test: str | None = None,
    bias: bool = True,
    normalise: str = "none",
    choice: Choice | None = None,
) -> Dataset:
    """Read arrays from an npz or HDF5 file, which need not be trusted.

    Parameters
    ----------
    path : path
    x, y : str
        Names of the arrays; in an HDF5 file possibly inside groups, as in ``"train/x"``. Inputs
        of more than two dimensions, such as images, become rows.
    x_test, y_test : str, optional
        Names of the test arrays; both or neither.
    bias : bool
    normalise : str
        See `from_arrays`.
    choice : Choice, optional
        The targets are labels, whole numbers: which samples are taken, and how they are encoded.

    Raises
    ------
    ConfigError
        If the file or an array cannot be read, or the arrays do not fit (`from_arrays`).
    """
    names = {"x": x, "y": y, "x_test": x_test, "y_test": y_test}
    wanted = {key: name for key, name in names.items() if name is not None}
    arrays = read_arrays(path, wanted)
    for key in ("x", "x_test"):
        if key in arrays and arrays[key].ndim > 2 and arrays[key].size:
            arrays[key] = arrays[key].reshape(len(arrays[key]), -1)
    if choice is not None:
        return from_labelled(
            *_labelled(arrays, names), choice, bias=bias, normalise=normalise, kind="file"
        )
    x_given, y_given, x_tested, y_tested = (arrays.get(key) for key in names)
    assert x_given is not None and y_given is not None  # else read_arrays has raised
    return from_arrays(x_given, y_given, x_tested, y_tested, bias, kind="file", normalise=normalise)


def _labelled(
    arrays: Mapping[str, np.ndarray], names: Mapping[str, str | None]
) -> tuple[LabelledSamples, LabelledSamples | None]:
    """Return arrays as training samples and, if there are any, test samples with labels."""
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise ConfigError(both_or_neither("x_test" in arrays))
    parts = []
    for suffix in ("", "_test") if "x_test" in arrays else ("",):
        x, labels = arrays[f"x{suffix}"], arrays[f"y{suffix}"]
        labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
        labels = labels.astype(np.int64) if labels.dtype == bool else labels
        # Whole numbers may have been saved as floats, of which nan and 1e300 are no labels.
        whole = (np.abs(labels) < 2**53) & (labels == np.trunc(labels))
        if labels.ndim != 1 or not labels.size or not whole.all():
            raise ConfigError(
                f'y{suffix} = "{names[f"y{suffix}"]}": holds no labels; give a whole number for '
                "every sample, or leave out target"
            )
        x = x[:, None] if x.ndim == 1 else x
        parts.append(LabelledSamples(x, labels.astype(np.int64)))
    return parts[0], parts[1] if len(parts) == 2 else None


def read_arrays(path: str | os.PathLike[str], names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Read arrays of real numbers from an npz or an HDF5 file.

    Parameters
    ----------
    path : path
        The format is told by the content, not by the name.
    names : mapping
        Names of the arrays in the file, by the key under which to return them.

    Returns
    -------
    dict of arrays
        By key.

    Raises
    ------
    ConfigError
        If the file cannot be read; or with one line for every array that is missing, is not
        numeric, points outside the file, or declares an implausible size.
    """
    path = Path(path)
    read = _reader(path)
    try:
        return read(path, names)
    except ConfigError:
        raise
    # h5py and zipfile raise many kinds of error on damaged files.
    except Exception as error:
        raise unreadable(path, error) from error


def _reader(path: Path) -> Callable[[Path, Mapping[str, str]], dict[str, np.ndarray]]:
    """Return the function that reads this file."""
    import h5py

    check_file(path, "the path of an npz or HDF5 file")
    if zipfile.is_zipfile(path):
        return _read_npz
    if h5py.is_hdf5(path):
        return _read_hdf5
    raise problem(path, "neither npz nor HDF5; save it with numpy.savez(path, x=x, y=y)")


def _collect(names: Mapping[str, str], read: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
    """Read every array, or raise with everything that is wrong with any."""
    arrays, problems = {}, []
    for key, name in names.items():
        try:
            arrays[key] = read(name)
        except _Refused as refusal:
            problems.append(f'{key} = "{name}": {refusal}'.replace("\n", " "))
    if problems:
        raise ConfigError(problems)
    return arrays


def _read_npz(path: Path, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        members = [member.removesuffix(".npy") for member in archive.namelist()]

        def read(name: str) -> np.ndarray:
            if name not in members:
                raise _Refused(_no_such_array(members))
            with archive.open(f"{name}.npy") as stream:
                _check_npy_header(stream, size)
            with archive.open(f"{name}.npy") as stream:
                return np.lib.format.read_array(stream, allow_pickle=False)

        return _collect(names, read)


def _check_npy_header(stream: IO[bytes], file_size: int) -> None:
    version = np.lib.format.read_magic(stream)
    if version not in _HEADER_READERS:
        raise _Refused(f"npy version {version} has no plain numbers; save float64 arrays")
    shape, _, dtype = _HEADER_READERS[version](stream)
    _check_declaration(shape, dtype, file_size)


def _read_hdf5(path: Path, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    import h5py

    size = path.stat().st_size
    with h5py.File(path, "r") as file:

        def read(name: str) -> np.ndarray:
            dataset = _own_dataset(file, name)
            _check_declaration(dataset.shape, dataset.dtype, size)
            if dataset.chunks is not None:
                _check_declaration(dataset.chunks, dataset.dtype)
            return dataset[()]

        return _collect(names, read)


def _own_dataset(file: Any, name: str) -> Any:
    """Return a dataset that is stored in this very file, reached through no link out of it."""
    import h5py

    node = file
    for part in filter(None, name.split("/")):
        if not isinstance(node, h5py.Group) or part not in node.keys():  # noqa: SIM118 - `in node` follows links
            raise _Refused(_no_such_array(list(node) if isinstance(node, h5py.Group) else []))
        if not isinstance(node.get(part, getlink=True), h5py.HardLink):
            raise _Refused("a soft or external link, which is not followed; store the array here")
        node = node[part]
    if not isinstance(node, h5py.Dataset):
        raise _Refused("a group, not an array; name an array inside it")
    if node.is_virtual or node.external:
        raise _Refused("keeps its values in other files; store the array here")
    return node


def _check_declaration(
    shape: tuple[int, ...] | None, dtype: np.dtype, file_size: int | None = None
) -> None:
    """Refuse what is not numbers, too many of them, or more than the file can hold."""
    if shape is None or dtype.kind not in "biuf":
        raise _Refused(f"holds {dtype} values, not real numbers; save a float64 array")
    count = 1
    for length in shape:
        count *= length
    if count > MAX_VALUES:
        raise _Refused(f"declares {count} numbers; at most {MAX_VALUES} are read")
    if file_size is not None and count * dtype.itemsize > BEST_COMPRESSION * file_size:
        raise _Refused(f"declares more numbers ({count}) than the file can hold; save it again")


def _no_such_array(present: list[str]) -> str:
    if not present:
        return "no such array; the file is empty there"
    shown = ", ".join(sorted(present)[:8]) + (", ..." if len(present) > 8 else "")
    return f"no such array; the file has {shown}"
