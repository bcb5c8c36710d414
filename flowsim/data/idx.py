"""MNIST, and sets that come in the same files: IDX, plain or gzip.

An IDX file is two zero bytes, the type of its numbers, the number of axes, the length of every
axis as a big-endian integer of 32 bits, and the numbers.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np

from flowsim.data.checks import MAX_VALUES
from flowsim.data.disk import BEST_COMPRESSION, check_file, find_in, missing, problem, unreadable
from flowsim.data.labelled import LabelledSamples, check_labels
from flowsim.errors import ConfigError

_UNSIGNED_BYTES = 0x08
_PREFIXES = {"train": "train", "test": "t10k"}
_GZIP = b"\x1f\x8b"


def locate_mnist(folder: Path, part: str) -> list[Path]:
    """Find the images and the labels of the training or the test set.

    Parameters
    ----------
    folder : path
    part : {"train", "test"}

    Raises
    ------
    ConfigError
        If one of them is missing.
    """
    found = []
    for content, axes in (("images", 3), ("labels", 1)):
        stem = f"{_PREFIXES[part]}-{content}"
        # Some programs that unpack archives put a dot where the name has a hyphen.
        names = [f"{stem}-idx{axes}-ubyte", f"{stem}.idx{axes}-ubyte"]
        path = find_in(folder, [*names, *(f"{name}.gz" for name in names)])
        if path is None:
            raise missing(folder, f"{names[0]} or {names[0]}.gz")
        found.append(path)
    return found


def read_mnist(paths: list[Path]) -> LabelledSamples:
    """Read images and their labels 0 to 9.

    Parameters
    ----------
    paths : list of path
        As from `locate_mnist`.

    Raises
    ------
    ConfigError
        If a file is damaged, or they do not belong together.
    """
    images_path, labels_path = paths
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise problem(
            labels_path,
            f"has {len(labels)} labels, but {images_path.name} has {len(images)} images; take two "
            "files that belong together",
        )
    check_labels(labels_path, labels)
    return LabelledSamples(images.reshape(len(images), -1), labels.astype(np.int64))


def read_idx(path: Path, n_axes: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes.

    Parameters
    ----------
    path : path
        Plain or gzip, told by the content.
    n_axes : int

    Returns
    -------
    uint8 array of ``n_axes`` dimensions

    Raises
    ------
    ConfigError
        If it is no such file, or its size is not what it declares.
    """
    check_file(path, "an IDX file")
    try:
        with path.open("rb") as file:
            if file.read(2) != _GZIP:
                file.seek(0)
                return _read_stream(path, file, n_axes, path.stat().st_size)
        with gzip.open(path) as stream:
            return _read_stream(
                path, cast(IO[bytes], stream), n_axes, BEST_COMPRESSION * path.stat().st_size
            )
    except ConfigError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error


def _read_stream(path: Path, stream: IO[bytes], n_axes: int, at_most: int) -> np.ndarray:
    """Read header and numbers; ``at_most`` bytes can be in the file."""
    expected = bytes((0, 0, _UNSIGNED_BYTES, n_axes))
    header = stream.read(4 + 4 * n_axes)
    if header[:4] != expected:
        raise problem(
            path,
            f"begins with the bytes {header[:4].hex(' ') or '(none)'}, an IDX file of bytes with "
            f"{n_axes} axes with {expected.hex(' ')}; take the right file",
        )
    if len(header) < 4 + 4 * n_axes:
        raise problem(path, "ends within its header; copy or download it again")
    shape = struct.unpack(f">{n_axes}I", header[4:])
    count = math.prod(shape)
    if count == 0:
        raise problem(path, f"declares no samples or no pixels, shape {shape}; take another file")
    if count > MAX_VALUES:
        raise problem(path, f"declares {count} numbers; at most {MAX_VALUES} are read")
    # Before anything is allocated, and then never more than one byte beyond what is declared.
    content = stream.read(count + 1) if count <= at_most else b""
    if len(content) != count:
        held = "more" if len(content) > count else "fewer"
        raise problem(
            path, f"declares {count} numbers, but holds {held}; copy or download it again"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)
