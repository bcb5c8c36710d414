"""CIFAR-10 from its files on disk: the binary version, or the python version.

A record of the binary version is one byte for the label and 3072 for the pixels: 32 rows of 32 in
red, then in green, then in blue. A batch of the python version is a pickled dictionary with the
same pixels as one array ``data``, and a list ``labels``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flowsim.data.checks import MAX_VALUES
from flowsim.data.disk import check_file, find_in, missing, problem, unreadable
from flowsim.data.labelled import LabelledSamples, check_labels
from flowsim.data.pickled_arrays import PickledArray, PickleRefusedError
from flowsim.data.unpickling import unpickle

N_PIXELS = 3072
"""Numbers of an image: 3 colours of 32 x 32."""

_RECORD = 1 + N_PIXELS
_BATCHES = {"train": [f"data_batch_{k}" for k in range(1, 6)], "test": ["test_batch"]}


def locate_cifar10(folder: Path, part: str) -> list[Path]:
    """Find the batches of the training or the test set, binary ones first.

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
    for name in _BATCHES[part]:
        path = find_in(folder, [f"{name}.bin", name])
        if path is None:
            raise missing(folder, f"{name}.bin or {name}")
        found.append(path)
    return found


def read_cifar10(paths: list[Path]) -> LabelledSamples:
    """Read batches of images and their labels 0 to 9.

    Parameters
    ----------
    paths : list of path
        As from `locate_cifar10`.

    Raises
    ------
    ConfigError
        If a file is damaged, or a pickle with anything in it but arrays and plain containers.
    """
    size = 0
    for path in paths:
        check_file(path, "a batch of CIFAR-10")
        size += path.stat().st_size
    if size > MAX_VALUES:
        raise problem(
            paths[0].parent, f"has batches of {size} bytes; at most {MAX_VALUES} are read"
        )
    batches = [
        _read_binary(path) if path.suffix == ".bin" else _read_pickle(path) for path in paths
    ]
    return LabelledSamples(
        np.concatenate([batch.x for batch in batches]),
        np.concatenate([batch.labels for batch in batches]),
    )


def to_grey(x: np.ndarray) -> np.ndarray:
    """Return the brightness of colour images, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).

    Parameters
    ----------
    x : (n, 3 d) array
        All of red, then of green, then of blue.

    Returns
    -------
    (n, d) float64 array
    """
    weights = np.array([0.299, 0.587, 0.114])
    return np.einsum("c,ncd->nd", weights, x.reshape(len(x), 3, -1))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def _read_binary(path: Path) -> LabelledSamples:
    content = _content(path)
    if not content or len(content) % _RECORD:
        raise problem(
            path,
            f"has {len(content)} bytes, which is no multiple of the {_RECORD} of a record; copy or "
            "download it again",
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    check_labels(path, records[:, 0])
    return LabelledSamples(records[:, 1:], records[:, 0].astype(np.int64))


def _read_pickle(path: Path) -> LabelledSamples:
    try:
        batch = unpickle(_content(path))
    except PickleRefusedError as error:
        raise problem(path, f"{error}; take the binary version of CIFAR-10") from error
    x, labels = (_entry(batch, name) for name in ("data", "labels"))
    x = x.values if isinstance(x, PickledArray) else None
    if x is None or x.dtype != np.uint8 or x.ndim != 2 or x.shape[1] != N_PIXELS or not len(x):
        raise problem(
            path, f"has no array `data` of bytes (images, {N_PIXELS}); take a batch of CIFAR-10"
        )
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise problem(path, "has no list `labels` of integers; take a batch of CIFAR-10")
    if len(labels) != len(x):
        raise problem(
            path, f"has {len(labels)} labels for {len(x)} images; copy or download it again"
        )
    check_labels(path, labels)
    return LabelledSamples(x, np.array(labels, np.int64))


def _entry(batch: object, name: str) -> object:
    """Return an entry of a dictionary whose keys Python 2 or 3 has written."""
    if not isinstance(batch, dict):
        return None
    return batch.get(name.encode(), batch.get(name))
