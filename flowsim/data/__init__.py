"""Data sets: arrays, sampled functions, teacher networks, files.

Inputs carry the bias coordinate: with ``bias`` a constant 1 is appended to every sample, as the
last column, so that nothing behind this package needs to know of biases. `samples` is what a data
set is, `checks` what it must fulfil, `generated` computes one, `files` reads one.
"""

from flowsim.data.files import from_file
from flowsim.data.generated import from_function, from_teacher
from flowsim.data.samples import Dataset, from_arrays, with_bias

__all__ = ["Dataset", "from_arrays", "from_file", "from_function", "from_teacher", "with_bias"]
