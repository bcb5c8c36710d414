"""A file that a killed process has left, shown to HDF5 as one that was closed.

HDF5 opens such a file only as one that is being written (SWMR), and then takes whatever fails its
checksum for a write in progress: it reads it again, waiting twice as long each time, for ever.
Where no process is left that could be writing, the file is read through this view instead. It
clears the flag in the bytes that HDF5 gets to see, the file itself is not touched, and what is
damaged is an error at once.
"""

from __future__ import annotations

import atexit
import io
import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import h5py

from flowsim.recording.superblock import cleared

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_OPEN: weakref.WeakValueDictionary[str, h5py.File] = weakref.WeakValueDictionary()
_VIEWS: weakref.WeakValueDictionary[str, SettledFile] = weakref.WeakValueDictionary()
"""By the names that HDF5 has for them; h5py cannot hash what is damaged."""


def open_settled(path: Path) -> h5py.File:
    """Open for reading a file whose writer is gone.

    Parameters
    ----------
    path : Path
    """
    view = SettledFile(path)
    try:
        file = h5py.File(view, "r")
    except BaseException:
        view.close()
        raise
    _OPEN[file.filename] = file
    _VIEWS[file.filename] = view
    return file


@atexit.register
def _close_all() -> None:
    # HDF5 closes what is still open after the interpreter, and the view with it, has gone.
    for file in list(_OPEN.values()):
        file.close()


def descriptor(file: h5py.File) -> int:
    """The file descriptor beneath an open file.

    Parameters
    ----------
    file : h5py.File
    """
    if file.driver == "fileobj":
        return _VIEWS[file.filename].fileno()
    return int(file.id.get_vfd_handle())


class SettledFile(io.RawIOBase):
    """The bytes of a file, but for its superblock: that says that the file is closed.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._size = os.fstat(self._handle).st_size
        self._head = cleared(os.pread(self._handle, 64, 0), self._size)
        self._position = 0

    def fileno(self) -> int:
        """File descriptor."""
        return self._handle

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def seekable(self) -> bool:
        """Whether it has positions."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read as many bytes as there are and fit."""
        view = memoryview(buffer).cast("B")
        count = os.preadv(self._handle, [view], self._position)
        head = self._head[self._position : self._position + count]
        view[: len(head)] = head
        self._position += count
        return count

    def close(self) -> None:
        """Let go of the file."""
        if not self.closed:
            os.close(self._handle)
        super().close()
