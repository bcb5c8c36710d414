"""The first bytes of an HDF5 file, where it says whether somebody has it open for writing.

A process that is killed leaves that flag set, and HDF5 then opens the file only as one that is
being written (SWMR). The flag is cleared by a process that holds the run's lock, and by nothing
else. The file may then be longer than these bytes say, with parts of an index that lead there:
what is written next must not be put over it. Layout: HDF5 file format specification, superblock
versions 2 and 3.
"""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

from flowsim.errors import FileFormatError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_VERSIONS = (2, 3)
_FLAGS = 11
_END = 28
_CHECKSUM = 44
_SIZE = 48
_MASK = 0xFFFFFFFF

PAGE = 4096
"""A file that was cut off is made to end at a multiple of so many bytes."""


def read_flags(path: str | Path) -> int | None:
    """The consistency flags: 0 for a file that was closed; None if this is no such file.

    Parameters
    ----------
    path : path

    Raises
    ------
    OSError
        If the file cannot be read.
    FileFormatError
        If it is no file: a pipe would be waited for.
    """
    check_regular(path)
    with open(path, "rb") as file:
        head = file.read(_SIZE)
    return head[_FLAGS] if _is_known(head) else None


def check_regular(path: str | Path) -> None:
    """Refuse a pipe or a device, whose opening may wait forever.

    Raises
    ------
    OSError
        If there is nothing.
    FileFormatError
    """
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # of a folder the system itself complains
        raise FileFormatError(f"{path}: a pipe or a device, not a file; name a run file")


def clear_flags(path: str | Path) -> None:
    """Say that nobody is writing the file, and where it ends; the caller knows that.

    Parameters
    ----------
    path : path

    Raises
    ------
    OSError
        If the file cannot be read or written.
    """
    with open(path, "rb+") as file:
        head = file.read(_SIZE)
        size = os.fstat(file.fileno()).st_size
        longer = _is_known(head) and size > _end(head)
        end = -(-size // PAGE) * PAGE if longer else size
        settled = cleared(head, end)
        if settled == head:
            return
        if longer:
            file.truncate(end)
        file.seek(0)
        file.write(settled)
        file.flush()
        os.fsync(file.fileno())


def cleared(head: bytes, end: int) -> bytes:
    """The beginning of a file as it would be if the file had been closed.

    Parameters
    ----------
    head : bytes
        The first bytes of the file, at least 48; returned as they are if they are not of a file
        that is being written.
    end : int
        Where the file ends, if that is beyond what it says itself.
    """
    if not _is_known(head[:_SIZE]) or head[_FLAGS] == 0:
        return head
    settled = bytearray(head)
    settled[_FLAGS] = 0
    struct.pack_into("<Q", settled, _END, max(end, _end(head)))
    struct.pack_into("<I", settled, _CHECKSUM, lookup3(bytes(settled[:_CHECKSUM])))
    return bytes(settled)


def _end(head: bytes) -> int:
    (end,) = struct.unpack_from("<Q", head, _END)
    return int(end)


def _is_known(head: bytes | bytearray) -> bool:
    # Offsets of 8 bytes, as in every file flowsim writes: the fields lie where we look for them.
    return len(head) == _SIZE and head[:8] == _SIGNATURE and head[8] in _VERSIONS and head[9] == 8


def _rotate(value: int, by: int) -> int:
    return ((value << by) | (value >> (32 - by))) & _MASK


def lookup3(content: bytes) -> int:
    """Bob Jenkins' hash lookup3 (little-endian, initial value 0), HDF5's checksum of metadata."""
    a = b = c = (0xDEADBEEF + len(content)) & _MASK
    position = 0
    while len(content) - position > 12:
        words = struct.unpack_from("<III", content, position)
        a, b, c = (a + words[0]) & _MASK, (b + words[1]) & _MASK, (c + words[2]) & _MASK
        for by in (4, 6, 8, 16, 19, 4):
            a = ((a - c) & _MASK) ^ _rotate(c, by)
            c = (c + b) & _MASK
            a, b, c = b, c, a
        position += 12
    rest = content[position:]
    if not rest:
        return c
    words = struct.unpack("<III", rest.ljust(12, b"\0"))
    a, b, c = (a + words[0]) & _MASK, (b + words[1]) & _MASK, (c + words[2]) & _MASK
    for by in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - _rotate(b, by)) & _MASK
        a, b, c = b, c, a
    # Seven rounds have turned the roles once round and one further.
    return b
