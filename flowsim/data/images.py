"""Images of ten classes: scikit-learn's digits, and sets of which the user has the files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flowsim.data.cifar import locate_cifar10, read_cifar10, to_grey
from flowsim.data.disk import file_digest
from flowsim.data.idx import locate_mnist, read_mnist
from flowsim.data.labelled import Choice, LabelledSamples, from_labelled
from flowsim.data.samples import Dataset
from flowsim.errors import ConfigError


@dataclass(frozen=True)
class ImageSet:
    """Where a set of images comes from.

    Attributes
    ----------
    read : callable
        From the files of a part, training or test, to its samples.
    locate : callable or None
        From the user's folder and the part, ``"train"`` or ``"test"``, to its files. None for a
        set that comes with a library and has no test part: ``read`` gets no files.
    full_scale : float
        Largest value a pixel can have.
    colour : bool
        The pixels are all of red, then of green, then of blue.
    """

    read: Callable[[list[Path]], LabelledSamples]
    locate: Callable[[Path, str], list[Path]] | None = None
    full_scale: float = 255.0
    colour: bool = False


def _read_digits(files: list[Path]) -> LabelledSamples:
    """Return the 1797 images of 8 x 8 pixels, 0 to 16, that come with scikit-learn."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ConfigError(
            'kind = "digits": needs scikit-learn; install it with pip install "flowsim[data]"'
        ) from error
    x, labels = load_digits(return_X_y=True)
    return LabelledSamples(x, labels.astype(np.int64))


IMAGE_SETS: dict[str, ImageSet] = {
    "digits": ImageSet(_read_digits, full_scale=16.0),
    "mnist": ImageSet(read_mnist, locate_mnist),
    "cifar10": ImageSet(read_cifar10, locate_cifar10, colour=True),
}
"""Sets of images by name; a new one needs an entry here and nothing else."""


def from_images(
    kind: str,
    path: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[int] | None = None,
    n_samples: int | None = None,
    n_test: int = 0,
    balanced: bool = False,
    seed: int = 0,
    target: str = "sign",
    positive_class: int | None = None,
    grey: bool = False,
    bias: bool = True,
    normalise: str = "unit-scale",
) -> Dataset:
    """Make a data set of images, each a row of pixels.

    Parameters
    ----------
    kind : str
        A key of `IMAGE_SETS`.
    path : path, optional
        Folder with the files, as they are distributed: for ``"mnist"`` (and other sets in such
        files, as Fashion-MNIST) IDX files, plain or .gz; for ``"cifar10"`` the batches of the
        binary or of the python version.
    classes, n_samples, n_test, balanced, seed, target, positive_class
        See `flowsim.data.labelled.Choice`.
    grey : bool
        Take the brightness of colour images.
    bias : bool
    normalise : str
        See `from_arrays`.

    Raises
    ------
    ConfigError
        If a file is missing or damaged, or what was chosen is not there.

    Examples
    --------
    >>> zeros_and_ones = from_images("digits", classes=[0, 1], n_samples=20)  # doctest: +SKIP
    """
    images = _image_set(kind, path)
    if grey and not images.colour:
        raise ConfigError(
            f'grey = true: has no meaning for "{kind}", which has no colours; remove it'
        )
    choice = Choice(classes, n_samples, n_test, balanced, seed, target, positive_class)
    train, test = (
        images.read(files) if files is not None else None for files in _parts(images, path, n_test)
    )
    assert train is not None  # there are always files to train on
    return from_labelled(
        train,
        test,
        choice,
        bias=bias,
        normalise=normalise,
        full_scale=images.full_scale,
        prepare=to_grey if grey else None,
        kind=kind,
    )


def digest_of_images(kind: str, path: str | os.PathLike[str] | None, n_test: int = 0) -> str:
    """Return the SHA-256 (hexadecimal) of the files that a data set is made of.

    Parameters
    ----------
    kind, path, n_test
        See `from_images`. The set that comes with a library is always the same, and has none.

    Raises
    ------
    ConfigError
        If a file is missing or cannot be read.
    """
    state = hashlib.sha256()
    for files in _parts(_image_set(kind, path), path, n_test):
        for file in files or []:
            state.update(file_digest(file).encode())
    return state.hexdigest()


def _image_set(kind: str, path: str | os.PathLike[str] | None) -> ImageSet:
    if not isinstance(kind, str) or kind not in IMAGE_SETS:
        choices = ", ".join(f'"{name}"' for name in IMAGE_SETS)
        raise ConfigError(
            f"kind = {json.dumps(kind, default=repr)}: unknown; choose from {choices}"
        )
    images = IMAGE_SETS[kind]
    if images.locate is not None and path is None:
        raise ConfigError('path: missing; add path = "folder", the one with the files of this set')
    if images.locate is None and path is not None:
        raise ConfigError(f'path = "{path}": has no meaning for "{kind}"; remove it')
    return images


def _parts(
    images: ImageSet, path: str | os.PathLike[str] | None, n_test: int
) -> list[list[Path] | None]:
    """Return the files of the training and of the test part; None for a part that is not read."""
    if images.locate is None or path is None:
        return [[], None]
    folder = Path(path)
    return [images.locate(folder, "train"), images.locate(folder, "test") if n_test else None]
