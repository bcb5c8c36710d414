"""Samples with labels: which of them are taken, and which numbers stand for their classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flowsim.data.checks import MAX_VALUES, Array
from flowsim.data.disk import problem
from flowsim.data.samples import Dataset, from_arrays
from flowsim.errors import ConfigError

Labels = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]

MAX_CLASSES = 1000
"""Most classes there may be: more different labels are numbers that stand for something else."""

N_CLASSES = 10
"""Classes of every set in `flowsim.data.images`: labels are 0 to 9."""


@dataclass(frozen=True, eq=False)
class LabelledSamples:
    """Samples as they come out of a file.

    Attributes
    ----------
    x : (n, d) array
        Inputs without the bias coordinate, of any real type.
    labels : (n,) int64 array
        Class of every sample.

    Raises
    ------
    ConfigError
        If there is not one whole number for every sample.
    """

    x: np.ndarray
    labels: Labels

    def __post_init__(self) -> None:
        for name in ("x", "labels"):
            if not isinstance(value := getattr(self, name), np.ndarray):
                raise ConfigError(f"{name}: is a {type(value).__name__}; give a NumPy array")
        if self.labels.ndim != 1 or self.labels.dtype.kind not in "iu":
            raise ConfigError(
                f"labels: {self.labels.dtype} of shape {self.labels.shape}; give one whole number "
                "for every sample"
            )
        if self.x.ndim != 2 or len(self.x) != len(self.labels):
            raise ConfigError(
                f"x: has shape {self.x.shape}, but there are {len(self.labels)} labels; give a row "
                "for every label"
            )

    def take(self, rows: Rows) -> LabelledSamples:
        """Return some of the samples."""
        return LabelledSamples(self.x[rows], self.labels[rows])


@dataclass(frozen=True)
class Choice:
    """Which samples are taken, and how their classes are encoded as targets.

    Attributes
    ----------
    classes : sequence of int, optional
        All there are by default. Their order is that of the targets.
    n_samples : int, optional
        Training samples; all by default.
    n_test : int, optional
        Test samples. They come from a test set of its own, by default all of it, or else from
        the samples that are not trained on, by default none.
    balanced : bool
        The same number of every class.
    seed : int
        Draws the training samples, then the test samples. The samples keep the order of the
        file; with the same seed fewer of them are a part of more.
    target : str
        One of `ENCODINGS`: ``"sign"``, -1 for the first and +1 for the second of two classes, or
        +1 for ``positive_class`` and -1 for all others; ``"label"``, the label as a number;
        ``"one-hot"``, a vector with a 1 in the place of the class among ``classes``.
    positive_class : int, optional
        For ``"sign"``.
    """

    classes: Sequence[int] | None = None
    n_samples: int | None = None
    n_test: int | None = None
    balanced: bool = False
    seed: int = 0
    target: str = "sign"
    positive_class: int | None = None

    def __post_init__(self) -> None:
        if problems := [*_choice_problems(self)]:
            raise ConfigError(problems)


def _choice_problems(choice: Choice) -> Iterator[str]:
    """Values of a wrong type, which a script can give and an experiment file cannot."""
    classes: Any = choice.classes
    if classes is not None and (isinstance(classes, str) or not isinstance(classes, Iterable)):
        yield f"classes = {classes!r:.60}: wanted a list of whole numbers, such as [0, 1]"
    for key in ("n_samples", "n_test", "seed", "positive_class"):
        value = getattr(choice, key)
        number = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not number and (value is not None or key == "seed"):
            yield f"{key} = {value!r:.60}: must be a whole number; for example {key} = 10"
        elif number and key == "seed" and value < 0:
            yield f"seed = {value}: must be 0 or larger; the default is 0"
    balanced: Any = choice.balanced
    if not isinstance(balanced, bool | np.bool_):
        yield f"balanced = {balanced!r:.60}: must be True or False; the default is False"


def _signs(labels: Labels, classes: Sequence[int], positive: int | None) -> Array:
    return np.where(labels == (classes[1] if positive is None else positive), 1.0, -1.0)


def _values(labels: Labels, classes: Sequence[int], positive: int | None) -> Array:
    return labels.astype(np.float64)


def _one_hot(labels: Labels, classes: Sequence[int], positive: int | None) -> Array:
    return (labels[:, None] == np.asarray(classes)).astype(np.float64)


ENCODINGS: dict[str, Callable[[Labels, Sequence[int], int | None], Array]] = {
    "sign": _signs,
    "label": _values,
    "one-hot": _one_hot,
}
"""Targets (n,) or (n, classes) from labels, classes and the positive class, by name."""


def from_labelled(
    train: LabelledSamples,
    test: LabelledSamples | None = None,
    choice: Choice | None = None,
    *,
    bias: bool = True,
    normalise: str = "none",
    full_scale: float | None = None,
    prepare: Callable[[np.ndarray], np.ndarray] | None = None,
    kind: str = "arrays",
) -> Dataset:
    """Make a data set of labelled samples.

    Parameters
    ----------
    train, test : LabelledSamples
        What there is to choose from; without ``test`` the test samples are taken from ``train``.
    choice : Choice, optional
    bias, normalise, full_scale, kind
        See `from_arrays`.
    prepare : callable, optional
        Is applied to the inputs that were taken, before they are normalised.

    Returns
    -------
    Dataset
        y is (n, classes) with the target ``"one-hot"``, otherwise (n,).

    Raises
    ------
    ConfigError
        If there are no such classes, not so many samples of them, or the target does not fit.
    """
    choice = Choice() if choice is None else choice
    classes = _classes(choice, train.labels)
    other = None if test is None else test.labels
    train_rows, test_rows = _rows(choice, classes, train.labels, other)
    taken = train.take(train_rows)
    tested = (train if test is None else test).take(test_rows) if len(test_rows) else None

    def arrays(part: LabelledSamples) -> tuple[np.ndarray, Array]:
        x = part.x if prepare is None else prepare(part.x)
        return x, ENCODINGS[choice.target](part.labels, classes, choice.positive_class)

    x, y = arrays(taken)
    x_test, y_test = (None, None) if tested is None else arrays(tested)
    dataset = from_arrays(
        x, y, x_test, y_test, bias, kind=kind, normalise=normalise, full_scale=full_scale
    )
    notes: dict[str, str | int] = {"classes": _listed(classes), "target": choice.target}
    if choice.positive_class is not None:
        notes["positive_class"] = choice.positive_class
    return replace(dataset, notes=notes)


def check_labels(path: Path, labels: np.ndarray | Sequence[int]) -> None:
    """Check that all labels of a file are classes, 0 to 9.

    Raises
    ------
    ConfigError
    """
    for index, label in enumerate(labels.tolist() if isinstance(labels, np.ndarray) else labels):
        if not 0 <= label < N_CLASSES:
            shown = str(label) if abs(label) < 10**20 else "of more than 20 digits"
            raise problem(
                path,
                f"has the label {shown} at sample {index}, but classes are 0 to {N_CLASSES - 1}; "
                "take the right file",
            )


def _classes(choice: Choice, labels: Labels) -> list[int]:
    """Return the classes in their order, or raise with all that is wrong with them."""
    present = np.unique(labels).tolist()
    classes = present if choice.classes is None else list(choice.classes)
    if not classes:
        raise ConfigError("classes = []: names none; give at least one, such as classes = [0, 1]")
    if len(classes) > MAX_CLASSES:
        raise ConfigError(
            f"classes: are {len(classes)}, at most {MAX_CLASSES} are possible; choose some of them"
        )
    problems = []
    for label in dict.fromkeys(classes):
        if label not in present:
            problems.append(
                f"classes = [{_shown(classes)}]: there is no sample of class {label}; choose from "
                f"{_shown(present)}"
            )
        if classes.count(label) > 1:
            problems.append(f"classes = [{_shown(classes)}]: has {label} twice; remove one")
    problems += _target_problems(choice, classes)
    if choice.target == "one-hot" and len(labels) * len(classes) > MAX_VALUES:
        problems.append(
            f'target = "one-hot": makes more than {MAX_VALUES} numbers of {len(labels)} samples; '
            "choose fewer classes"
        )
    if choice.balanced and choice.n_samples is None:
        problems.append("balanced = true: needs a number of samples; give n_samples")
    for key, count in (("n_samples", choice.n_samples), ("n_test", choice.n_test)):
        if choice.balanced and count and count % len(classes):
            more = count + len(classes) - count % len(classes)
            problems.append(
                f"{key} = {count}: cannot be the same number of {len(classes)} classes, as "
                f"balanced = true wants; try {key} = {more}"
            )
    if problems:
        raise ConfigError(problems)
    return classes


def _target_problems(choice: Choice, classes: list[int]) -> list[str]:
    """Say what is wrong with the encoding of the targets."""
    target, positive = choice.target, choice.positive_class
    if target not in ENCODINGS:
        names = ", ".join(f'"{name}"' for name in ENCODINGS)
        return [f'target = "{target}": unknown; choose from {names}']
    if target != "sign":
        if positive is None:
            return []
        return [f'positive_class = {positive}: has a meaning with target = "sign" only; remove it']
    if positive is None and len(classes) != 2:
        return [
            f'target = "sign": is for two classes, not for {len(classes)}; name two in classes, '
            'give the positive_class, or take target = "label" or "one-hot"'
        ]
    if positive is not None and positive not in classes:
        return [
            f"positive_class = {positive}: is none of the classes; choose from {_shown(classes)}"
        ]
    return []


def _rows(
    choice: Choice, classes: list[int], train: Labels, test: Labels | None
) -> tuple[Rows, Rows]:
    """Draw the rows to train on and those to test on, of ``train`` if there is no ``test``."""
    generator = np.random.default_rng(choice.seed)
    groups = _shuffled(generator, train, classes, choice.balanced)
    there = _room(groups)
    test_groups, left = groups, 0
    if test is not None:
        test_groups = _shuffled(generator, test, classes, choice.balanced)
        left = _room(test_groups)
    n_test = left if choice.n_test is None else choice.n_test
    n_samples = choice.n_samples
    if n_samples is None:
        n_samples = there - (n_test if test is None else 0)
    if test is None:
        left = there - n_samples
    problems = [] if choice.n_samples is None else _count_problems("n_samples", n_samples, there)
    if n_test and not problems:
        # Something must be left to train on, too.
        problems += _count_problems("n_test", n_test, left if n_samples > 0 else there - 1)
    if problems:
        raise ConfigError(problems)
    share, test_share = n_samples // len(groups), n_test // len(groups)
    rows = [group[:share] for group in groups]
    # From the other end: which samples are trained on does not depend on those of the test.
    test_rows = [group[len(group) - test_share :] for group in test_groups]
    return np.sort(np.concatenate(rows)), np.sort(np.concatenate(test_rows))


def _shuffled(
    generator: np.random.Generator, labels: Labels, classes: list[int], balanced: bool
) -> list[Rows]:
    """Return all rows of some classes in random order, together or class by class."""
    order = generator.permutation(np.flatnonzero(np.isin(labels, classes)))
    return [order[labels[order] == label] for label in classes] if balanced else [order]


def _room(groups: list[Rows]) -> int:
    """Number of rows of which every group can give the same share."""
    return len(groups) * min(len(group) for group in groups)


def _count_problems(key: str, count: int, at_most: int) -> list[str]:
    if count < (key == "n_samples"):
        return [f"{key} = {count}: must be {int(key == 'n_samples')} or larger; try {key} = 10"]
    if count > at_most:
        return [f"{key} = {count}: there are {at_most} to choose from; take fewer, or more classes"]
    return []


def _shown(values: Sequence[int]) -> str:
    """Return some numbers as they are shown in messages, of one line."""
    return _listed(values[:12]) + (", ..." if len(values) > 12 else "")


def _listed(values: Iterable[int]) -> str:
    return ", ".join(str(value) for value in values)
