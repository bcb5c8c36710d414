"""What is checked of a file before HDF5 may follow what the file says.

HDF5 checks the checksums of its metadata, but not everything: it waits forever for a damaged heap
of texts to end, allocates whatever a file declares, and reads zeros beyond the end of one that
was truncated while it was being written.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator

import h5py
import numpy as np

from flowsim.errors import FileFormatError
from flowsim.recording.settled import descriptor

_SMALL = 1 << 26
"""Bytes that an array may always declare (64 MiB)."""

_MOST_COMPRESSED = 1100
"""No filter of HDF5 makes of one byte more than about a thousand."""

_FILTERS = {
    h5py.h5z.FILTER_DEFLATE,
    h5py.h5z.FILTER_SHUFFLE,
    h5py.h5z.FILTER_FLETCHER32,
    h5py.h5z.FILTER_LZF,
}
"""Others would have HDF5 look for plug-ins."""

_LARGEST_CHUNK = 1 << 26
"""Bytes of one chunk of an array; flowsim's own are of 4 MiB."""

_LARGEST_PIECE = 1 << 24
"""Bytes that are read at a time where an array is only to be looked at."""

_KINDS = "biufSO"

_HEAP = b"GCOL\x01\0\0\0"
_HEAP_HEAD = len(_HEAP) + 8
_SMALLEST_HEAP = 4096
_OBJECT_HEAD = 16
_OVERLAP = 1 << 26
"""Bytes of heaps within heaps; a text that was replaced may leave some behind."""

_PIECE = 1 << 20


def file_size(file: h5py.File) -> int:
    """Bytes that there are, whatever the file says."""
    return os.fstat(descriptor(file)).st_size


def check_dataset(path: str, dataset: h5py.Dataset, size: int) -> None:
    """Check what an array declares against what the file holds.

    Parameters
    ----------
    path : str
        For messages.
    dataset : h5py.Dataset
    size : int
        Of the file in bytes.

    Raises
    ------
    FileFormatError
        If values lie outside of the file or beyond its end, take filters or types that flowsim
        does not write, or more memory than there can be values.
    """
    name = f"{path}: {dataset.name}"
    properties = dataset.id.get_create_plist()
    if properties.get_layout() == h5py.h5d.VIRTUAL or properties.get_external_count():
        raise FileFormatError(f"{name} lies in another file; refused")
    filters = {properties.get_filter(k)[0] for k in range(properties.get_nfilters())}
    if not filters <= _FILTERS:
        raise FileFormatError(f"{name} is packed with filters that flowsim does not use; refused")
    if dataset.shape is None or dataset.dtype.kind not in _KINDS or dataset.dtype.fields:
        raise FileFormatError(f"{name} holds neither numbers nor text; refused")
    if dataset.dtype.kind == "O" and (h5py.check_string_dtype(dataset.dtype) is None):
        raise FileFormatError(f"{name} holds neither numbers nor text; refused")
    held = dataset.id.get_storage_size()
    declared = math.prod(dataset.shape) * dataset.dtype.itemsize
    if dataset.chunks is not None and held:
        piece = math.prod(dataset.chunks) * dataset.dtype.itemsize
        if piece > _LARGEST_CHUNK:
            raise FileFormatError(f"{name} comes in chunks of {piece} bytes; refused")
        declared = max(declared, piece)
    if declared > max(_SMALL, _MOST_COMPRESSED * held) or held > size:
        raise FileFormatError(f"{name} declares {declared} bytes and holds {held}; refused")
    if any(start + length > size for start, length in _extents(dataset)):
        raise FileFormatError(f"{name} lies beyond the end of the file, which is truncated")


def check_heaps(path: str, file: h5py.File) -> None:
    """Check the structure of the heaps in which HDF5 keeps texts and references.

    They have no checksums, and no pointers to them can be read without following them: so they
    are looked for wherever the file does not have the values of its arrays. Few may lie within
    others: every byte is looked at about once.

    Parameters
    ----------
    path : str
        For messages.
    file : h5py.File

    Raises
    ------
    FileFormatError
    """
    handle = descriptor(file)
    size = file_size(file)
    groups = [file, *groups_of(path, file).values()]
    datasets = [dataset for group in groups for dataset in arrays_of(group).values()]
    taken = sorted(extent for dataset in datasets for extent in _extents(dataset))
    start, left = 0, size + _OVERLAP
    for begin, length in [*taken, (size, 0)]:
        for place in _search(handle, start, min(begin, size)):
            heap = _sound_length(handle, place, size, left)
            left -= heap
            if not heap:
                raise FileFormatError(f"{path}: damaged at byte {place}, where its texts are")
        start = max(start, begin + length)


def pieces(
    dataset: h5py.Dataset, rows: int | None = None, within: tuple[int, ...] = ()
) -> Iterator[np.ndarray]:
    """The values of an array in C order, never more than a few megabytes of them at a time.

    Parameters
    ----------
    dataset : h5py.Dataset
    rows : int, optional
        How many along the first axis that is not fixed; by default all.
    within : tuple of int
        Indices along the first axes.
    """
    shape = dataset.shape[len(within) :]
    if not shape:
        yield np.asarray(dataset[within])
        return
    rows = shape[0] if rows is None else rows
    n_bytes = math.prod(shape[1:]) * dataset.dtype.itemsize
    if n_bytes > _LARGEST_PIECE:
        for row in range(rows):
            yield from pieces(dataset, None, (*within, row))
        return
    step = max(1, _LARGEST_PIECE // max(n_bytes, 1))
    for start in range(0, rows, step):
        yield np.asarray(dataset[(*within, slice(start, min(start + step, rows)))])


def arrays_of(group: h5py.Group) -> dict[str, h5py.Dataset]:
    """The datasets of a group by name; links, which may lead anywhere, do not exist for us."""
    return {
        name: item
        for name in group
        if _is_here(group, name) and isinstance(item := group[name], h5py.Dataset)
    }


def groups_of(path: str, file: h5py.File) -> dict[str, h5py.Group]:
    """The groups of a file by name.

    Parameters
    ----------
    path : str
        For messages.
    file : h5py.File

    Raises
    ------
    FileFormatError
        If there are links in their place: they may lead out of the file, or in circles.
    """
    for name in file:
        if not _is_here(file, name):
            raise FileFormatError(f"{path}: /{name} is a link to another place; refused")
    items = {name: file[name] for name in file}
    return {name: item for name, item in items.items() if isinstance(item, h5py.Group)}


def _is_here(group: h5py.Group, name: str) -> bool:
    # Not `group.get`, which takes what cannot be read for what is not there.
    return group.id.links.get_info(name.encode()).type == h5py.h5l.TYPE_HARD


def _extents(dataset: h5py.Dataset) -> list[tuple[int, int]]:
    """Where the values lie: first byte and number of bytes of each piece."""
    if dataset.chunks is None:
        start, held = dataset.id.get_offset(), dataset.id.get_storage_size()
        return [] if start is None or not held else [(start, held)]
    found: list[tuple[int, int]] = []
    if dataset.id.get_storage_size():
        dataset.id.chunk_iter(lambda chunk: found.append((chunk.byte_offset, chunk.size)))
    return found


def _search(handle: int, start: int, stop: int) -> Iterator[int]:
    """Where a heap begins between two places."""
    while stop - start >= _HEAP_HEAD:
        piece = os.pread(handle, min(_PIECE, stop - start), start)
        if len(piece) < _HEAP_HEAD:
            return
        found = piece.find(_HEAP)
        while found >= 0:
            yield start + found
            found = piece.find(_HEAP, found + 1)
        start += len(piece) - len(_HEAP) + 1


def _sound_length(handle: int, place: int, size: int, most: int) -> int:
    """Length of one heap; 0 if it has not entries up to its end, or is longer than ``most``."""
    head = os.pread(handle, _HEAP_HEAD, place)
    length = int.from_bytes(head[len(_HEAP) :], "little")
    if not _SMALLEST_HEAP <= length <= min(size - place, most):
        return 0
    content = os.pread(handle, length, place)
    position, seen = _HEAP_HEAD, set()
    while length - position >= _OBJECT_HEAD:
        index, _, reserved, n_bytes = struct.unpack_from("<HHIQ", content, position)
        # The free entry counts its head; others are padded to multiples of 8 bytes.
        step = n_bytes if index == 0 else _OBJECT_HEAD + -(-n_bytes // 8) * 8
        if reserved or index in seen or not _OBJECT_HEAD <= step <= length - position:
            return 0
        seen.add(index)
        position += step
    return length
