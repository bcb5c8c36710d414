"""Pickles made instruction by instruction: those of Python 2, which none can write any more."""

from __future__ import annotations

import struct

import numpy as np


def text(value: bytes) -> bytes:
    """A text of Python 2."""
    if len(value) < 256:
        return b"U" + bytes([len(value)]) + value
    return b"T" + struct.pack("<i", len(value)) + value


def integer(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    return (
        b"M" + struct.pack("<H", value) if 0 <= value < 2**16 else b"J" + struct.pack("<i", value)
    )


def array(values: np.ndarray) -> bytes:
    """An array as NumPy 1 has Python 2 pickle it."""
    shape = b"(" + b"".join(map(integer, values.shape)) + b"t"
    kind = values.dtype.str
    return b"".join(
        [
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R",
            b"(K\x01" + shape,
            b"cnumpy\ndtype\n" + text(kind[1:].encode()) + b"K\x00K\x01\x87R",
            b"(K\x03" + text(kind[0].encode()) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
            b"\x89" + text(values.tobytes()) + b"tb",
        ]
    )


def cifar_batch(x: np.ndarray, labels: list[int]) -> bytes:
    """A batch of CIFAR-10's python version.

    Parameters
    ----------
    x : (n, 3072) uint8 array
    labels : list of int
    """
    names = [f"image_s_{k:06}.png".encode() for k in range(len(labels))]
    return b"".join(
        [
            b"\x80\x02}q\x01(",
            text(b"batch_label") + b"q\x02" + text(b"training batch 1 of 5") + b"q\x03",
            text(b"labels") + b"q\x04]q\x05(" + b"".join(map(integer, labels)) + b"e",
            text(b"data") + b"q\x06" + array(x),
            text(b"filenames") + b"q\x0c](" + b"".join(map(text, names)) + b"e",
            b"u.",
        ]
    )
