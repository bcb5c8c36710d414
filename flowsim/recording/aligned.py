"""Files that grow, so laid out that a process killed while it writes cannot damage them.

Of the write in which its process is killed the operating system has carried out whole pages and no
others. HDF5 has a checksum in each of its records, and a reader that finds half a record takes the
file for damaged. Therefore each record begins with a page: one of up to 4 KiB is written entirely
or not at all. Larger ones are the blocks of an index from some thousand chunks of one array on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py

from flowsim.recording.hdf5 import VERSIONS
from flowsim.recording.opening import open_file
from flowsim.recording.places import copy, put, rename
from flowsim.recording.superblock import PAGE, clear_flags

_OF_SCALES = {"DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME"}
"""Attributes in which HDF5 keeps what axis has what scale."""


def open_growing(path: Path | None, mode: str) -> h5py.File:
    """Open a file that is going to be in SWMR mode.

    Locks are flowsim's own (`flowsim.recording.lock`): HDF5's fail on network file systems.

    Parameters
    ----------
    path : Path or None
        None for one in memory.
    mode : {"w", "r+"}
        Create it, or open one that was created so.
    """
    options: dict[str, Any] = {"libver": VERSIONS, "alignment_threshold": 1}
    options["alignment_interval"] = PAGE
    if mode == "w":
        options["track_order"] = True
    if path is None:
        return h5py.File.in_memory(**options)
    return h5py.File(path, mode, locking=False, **options)


def make_growing(source: Path, target: Path, keep: bool = True) -> None:
    """Make a file that can grow of a run's, which may have been written in one go.

    Parameters
    ----------
    source, target : Path
    keep : bool
        Whether the source stays. Otherwise it is renamed where that is enough.

    Raises
    ------
    FileFormatError
        If the source cannot be read.
    StorageError
        If the target cannot be written.
    """
    found, old = open_file(source)
    with old:
        image = None if _is_aligned(old) else _laid_out_anew(old)
    if image is not None:
        put(target, image)
    elif keep or found != source:
        copy(found, target)
    else:
        rename(found, target)
    clear_flags(target)
    if not keep:
        source.unlink(missing_ok=True)


def _is_aligned(file: h5py.File) -> bool:
    records = [item for group in file.values() for item in _addresses(group)]
    return all(address % PAGE == 0 for address in (*_addresses(file), *records))


def _addresses(group: h5py.Group) -> list[int]:
    """Where the headers of a group's members are."""
    return [group.id.links.get_info(name.encode()).u for name in group]


def _laid_out_anew(old: h5py.File) -> bytes:
    """The same contents where they can grow; what was written in one go fits in memory."""
    with open_growing(None, "w") as new:
        _copy_attributes(old, new)
        for name in old:
            group = new.create_group(name, track_order=True)
            _copy_attributes(old[name], group)
            for key, dataset in old[name].items():
                old.copy(dataset, group, key, without_attrs=True)
                _copy_attributes(dataset, group[key])
            _copy_scales(old[name], group)
        new.flush()
        return bytes(new.id.get_file_image())


def _copy_attributes(old: h5py.HLObject, new: h5py.HLObject) -> None:
    for name, value in old.attrs.items():
        if name not in _OF_SCALES:
            new.attrs.create(name, value, dtype=old.attrs.get_id(name).dtype)


def _copy_scales(old: h5py.Group, new: h5py.Group) -> None:
    for key, dataset in old.items():
        if dataset.is_scale:
            new[key].make_scale(h5py.h5ds.get_scale_name(dataset.id))
    for key, dataset in old.items():
        if dataset.is_scale:
            continue
        for axis, dimension in enumerate(dataset.dims):
            for scale in dimension.values():
                new[key].dims[axis].attach_scale(new[scale.name.rpartition("/")[2]])
