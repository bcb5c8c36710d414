"""A run as arrays in memory: what a file holds, without a file.

The writer collects a run in this form, `flowsim.recording.hdf5` lays it out in HDF5, and the
reader serves from it as it serves from a file. A short run is written in one go from here;
members of a sweep travel between processes and into ensemble files like this.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Array:
    """Values with the names of their axes.

    Attributes
    ----------
    values : ndarray
        Numbers, or text as an array of str.
    dims : tuple of str
        One name an axis.
    long_name, units : str
    """

    values: np.ndarray
    dims: tuple[str, ...] = ()
    long_name: str = ""
    units: str = "1"


@dataclass
class GroupContents:
    """One group of a file.

    Attributes
    ----------
    arrays : dict of str to Array
        The time axis first, if there is one.
    time_name : str
        The array that is the axis along which all others grow; empty for a group that does not
        grow.
    attributes : dict
    """

    arrays: dict[str, Array] = field(default_factory=dict)
    time_name: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class RunContents:
    """A whole run: attributes (numbers and text) and groups by name."""

    attributes: dict[str, Any]
    groups: dict[str, GroupContents]
