"""Data sets: arrays, sampled functions, teacher networks, files, images.

Inputs carry the bias coordinate: with ``bias`` a constant 1 is appended to every sample, as the
last column, so that nothing behind this package needs to know of biases.

`samples` is what a data set is, `checks` what it must fulfil, `normalisation` what can be done to
its inputs. `generated` computes one, `files` reads arrays. `labelled` chooses samples of classes
and encodes them, `images` is the table of sets of images; `idx` and `cifar` read their files,
`unpickling` and `pickled_arrays` those that are pickles.
"""

from flowsim.data.files import from_file
from flowsim.data.generated import from_function, from_random, from_teacher
from flowsim.data.images import from_images
from flowsim.data.labelled import Choice, LabelledSamples, from_labelled
from flowsim.data.normalisation import Normalisation
from flowsim.data.samples import Dataset, from_arrays, with_bias

__all__ = [
    "Choice",
    "Dataset",
    "LabelledSamples",
    "Normalisation",
    "from_arrays",
    "from_file",
    "from_function",
    "from_images",
    "from_labelled",
    "from_random",
    "from_teacher",
    "with_bias",
]
