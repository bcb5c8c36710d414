"""How contents are laid out in HDF5: chunks, filters, dimension scales, checksums.

* Arrays that do not grow are contiguous; arrays that grow by small rows have chunks of many rows.
  Both carry a checksum (attribute ``checksum``), written when the run ends.
* Arrays that grow by large rows have chunks within one row, each written once, with HDF5's own
  Fletcher checksum and, if asked for, compression. Chunks that are written again as they fill up
  must have neither: a process killed in the middle of a write would take earlier rows with it.

Every object is created before the first row is written, so that the file can be in SWMR mode
(single writer, multiple readers) from then on: whatever happens to the process, what was flushed
can be read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from flowsim.recording.contents import Array, GroupContents, RunContents
from flowsim.recording.format import layers_of
from flowsim.recording.integrity import pieces

VERSIONS = ("v110", "v110")
"""Of the library that can read the file: the first with SWMR."""

ROWS_IN_CHUNK = 256
"""Most rows of a small array in one chunk."""

_SMALL_CHUNK = 1 << 16
"""Bytes of a chunk that holds several rows, at most."""

_LARGE_ROW = 1 << 13
"""Bytes of a row from which on a chunk holds (a part of) one row only. An index of few chunks is
made of records that fit in a page of the operating system's (`flowsim.recording.aligned`)."""

_LARGEST_CHUNK = 1 << 22
"""Bytes."""

CHECKSUM = "checksum"
ATTRIBUTES_CHECKSUM = "attributes_checksum"
_CHECKSUM_TYPE = h5py.string_dtype("utf-8", 32)
_TEXT = {"status": h5py.string_dtype("utf-8", 16), "stop_reason": h5py.string_dtype("utf-8", 480)}
"""Attributes that change while a run lasts have a fixed size: they are rewritten in place."""

COMPRESSIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "lzf": {"compression": "lzf", "shuffle": True},
    "gzip": {"compression": "gzip", "compression_opts": 1, "shuffle": True},
}
"""Filters by name; they apply to large rows."""


def create_file(path: Path | None) -> h5py.File:
    """Create a file that is written in one go; in memory without a path.

    Locks are flowsim's own (`flowsim.recording.lock`): HDF5's fail on network file systems.
    """
    if path is None:
        return h5py.File.in_memory(libver=VERSIONS, track_order=True)
    return h5py.File(path, "w", libver=VERSIONS, track_order=True, locking=False)


def file_image(contents: RunContents, compression: str = "none") -> bytes:
    """Return the bytes of a file with these contents."""
    with create_file(None) as file:
        write_contents(file, contents, compression)
        file.flush()
        return bytes(file.id.get_file_image())


def write_contents(file: h5py.File, contents: RunContents, compression: str = "none") -> None:
    """Write all attributes and groups; checksums of finished arrays included."""
    write_attributes(file, contents.attributes)
    for name, group in contents.groups.items():
        write_group(file, name, group, compression)


def write_attributes(file: h5py.File, attributes: Mapping[str, Any]) -> None:
    """Write attributes of a file; those in `_TEXT` so that they can be rewritten in place.

    HDF5 keeps texts of any length in a place that it does not check: all others are checked by a
    checksum of their own.
    """
    file.attrs[ATTRIBUTES_CHECKSUM] = attributes_checksum(attributes)
    for name, value in attributes.items():
        if name in _TEXT:
            file.attrs.create(name, _cut(value, _TEXT[name]), dtype=_TEXT[name])
        else:
            file.attrs[name] = value


def attributes_checksum(attributes: Mapping[str, Any]) -> str:
    """Checksum of all attributes but those that change while a run lasts."""
    fixed = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in attributes.items()
        if name not in (*_TEXT, ATTRIBUTES_CHECKSUM)
    }
    text = json.dumps(fixed, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def set_text(file: h5py.File, name: str, value: str) -> None:
    """Rewrite a text attribute in place, which is allowed in SWMR mode."""
    file.attrs.modify(name, _cut(value, _TEXT[name]))


def _cut(text: str, dtype: np.dtype) -> str:
    """Shorten a text to what fits, without cutting a character in half."""
    return text.encode()[: dtype.itemsize].decode(errors="ignore")


def write_group(
    file: h5py.File,
    name: str,
    contents: GroupContents,
    compression: str = "none",
    sealed: bool = True,
) -> h5py.Group:
    """Create a group with its arrays and axes.

    Parameters
    ----------
    file, name, contents
        The name ``/`` stands for the file itself.
    compression : str
        One of `COMPRESSIONS`.
    sealed : bool
        The values are final: write their checksums. Otherwise room is left for them, see
        `set_checksum`.
    """
    group = file if name == "/" else file.create_group(name, track_order=True)
    for key, value in contents.attributes.items():
        group.attrs[key] = value
    for key, array in contents.arrays.items():
        growing = bool(contents.time_name) or _is_large_ensemble(array)
        dataset = _create_dataset(group, key, array, growing, compression)
        if key == contents.time_name:
            dataset.make_scale(key)
        else:
            _name_axes(group, dataset, array.dims)
        _describe(dataset, key, array, sealed)
    return group


def _describe(dataset: h5py.Dataset, key: str, array: Array, sealed: bool) -> None:
    dataset.attrs["units"] = array.units
    dataset.attrs["long_name"] = array.long_name or key.replace("_", " ")
    if not dataset.fletcher32:
        value = checksum(array.values) if sealed else ""
        dataset.attrs.create(CHECKSUM, value, dtype=_CHECKSUM_TYPE)


def replace_arrays(group: h5py.Group, names: Iterable[str], arrays: Mapping[str, Array]) -> None:
    """Remove arrays from a group and create others, whose values are not final.

    The file must not be in SWMR mode.

    Parameters
    ----------
    group : h5py.Group
    names : iterable of str
        To be removed, if they are there.
    arrays : mapping
        To be created.
    """
    for name in names:
        if name in group:
            for dimension in group[name].dims:
                for scale in list(dimension.values()):
                    dimension.detach_scale(scale)
            del group[name]
    for key, array in arrays.items():
        dataset = _create_fixed(group, key, np.asarray(array.values))
        _name_axes(group, dataset, array.dims)
        _describe(dataset, key, array, sealed=False)


def _is_large_ensemble(array: Array) -> bool:
    """Whether single runs are to be read from an array without checking those of all others."""
    return array.dims[:1] == ("run",) and array.values.nbytes > _LARGEST_CHUNK


def _create_dataset(
    group: h5py.Group, name: str, array: Array, growing: bool, compression: str
) -> h5py.Dataset:
    values = np.asarray(array.values)
    if values.dtype.kind in "OU":
        return group.create_dataset(name, data=values.astype(object), dtype=h5py.string_dtype())
    if not growing:
        return _create_fixed(group, name, values)
    shape = values.shape[1:]
    options: dict[str, Any] = {"maxshape": (None, *shape)}
    if 0 in shape:
        return group.create_dataset(name, data=values, chunks=True, **options)
    row = int(np.prod(shape, dtype=np.int64)) * values.itemsize
    if row < _LARGE_ROW:
        rows = min(ROWS_IN_CHUNK, _SMALL_CHUNK // row)
        return group.create_dataset(name, data=values, chunks=(rows, *shape), **options)
    chunk = _chunk(shape, values.itemsize)
    options |= {"fletcher32": True, **COMPRESSIONS[compression]}
    return group.create_dataset(name, data=values, chunks=chunk, **options)


def _chunk(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """A chunk within one row of this shape: the last axes are cut until it is small enough."""
    chunk = [1, *shape]
    for axis in reversed(range(1, len(chunk))):
        parts = -(-int(np.prod(chunk, dtype=np.int64)) * itemsize // _LARGEST_CHUNK)
        chunk[axis] = -(-chunk[axis] // parts)
    return tuple(chunk)


def _create_fixed(group: h5py.Group, name: str, values: np.ndarray) -> h5py.Dataset:
    """Create a contiguous dataset, its space allocated from the start.

    A full disk cannot keep the end of a run from being written.
    """
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    alike = values.size > 1 and not any(values.strides)
    if alike:  # one number, broadcast: HDF5 fills it in without a copy of the whole
        properties.set_fill_value(np.array(values.flat[0]))
    kind = h5py.h5t.py_create(values.dtype, logical=True)
    space = (
        h5py.h5s.create_simple(values.shape) if values.shape else h5py.h5s.create(h5py.h5s.SCALAR)
    )
    dataset = h5py.Dataset(h5py.h5d.create(group.id, name.encode(), kind, space, properties))
    if values.size and not alike:
        dataset[...] = values
    return dataset


def _name_axes(group: h5py.Group, dataset: h5py.Dataset, dims: tuple[str, ...]) -> None:
    """Attach a dimension scale to every axis, making those that are missing."""
    for axis, dim in enumerate(dims):
        home = group.file if dim == "run" else group
        if dim not in home:
            size = dataset.shape[axis]
            if dim == "layer":
                names = list(layers_of(group.file.attrs))
                scale = home.create_dataset(dim, data=names, dtype=h5py.string_dtype())
                scale.make_scale(dim)
            else:
                # netCDF's mark of an axis without coordinate values; takes no space.
                scale = home.create_dataset(dim, shape=(size,), dtype="float32")
                scale.make_scale(f"This is a netCDF dimension but not a netCDF variable. {size:9d}")
        dataset.dims[axis].attach_scale(home[dim])


def checksum(values: np.ndarray) -> str:
    """Checksum of an array's values (BLAKE2b, 128 bits), as in the attribute ``checksum``."""
    values = np.asarray(values)
    if values.dtype.kind in "OU":
        values = np.frombuffer("\0".join(map(str, values.ravel().tolist())).encode(), np.uint8)
    return checksum_of_pieces([values])


def checksum_of_pieces(pieces: Iterable[np.ndarray]) -> str:
    """The same of an array of numbers whose values come in pieces, in C order."""
    digest = hashlib.blake2b(digest_size=16)
    for values in pieces:
        digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def clear_checksum(dataset: h5py.Dataset) -> None:
    """Say that the values are not final; possible in SWMR mode."""
    if CHECKSUM in dataset.attrs:
        dataset.attrs.modify(CHECKSUM, "")


def set_checksum(dataset: h5py.Dataset) -> None:
    """Write the checksum of a dataset as it is now; possible in SWMR mode."""
    if CHECKSUM in dataset.attrs:
        if h5py.check_string_dtype(dataset.dtype) is not None:
            value = checksum(np.asarray(dataset.asstr()[...]))
        else:
            value = checksum_of_pieces(pieces(dataset))
        dataset.attrs.modify(CHECKSUM, value)
