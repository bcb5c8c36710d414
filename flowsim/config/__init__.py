"""Experiments: read from TOML files or dictionaries, checked, and made into objects.

`sections`, `scaling_section` and `data_section` say what an experiment file may hold, `forms` puts
them together, `problems` words the mistakes, `source` reads files and overrides.
"""

from flowsim.config.data_section import DataSection
from flowsim.config.experiment import Experiment, load_experiment
from flowsim.config.forms import SECTIONS
from flowsim.config.scaling_section import ScalingSection
from flowsim.config.sections import Integrate, Network, Record, Schedule
from flowsim.config.source import load_grid

__all__ = [
    "SECTIONS",
    "DataSection",
    "Experiment",
    "Integrate",
    "Network",
    "Record",
    "ScalingSection",
    "Schedule",
    "load_experiment",
    "load_grid",
]
