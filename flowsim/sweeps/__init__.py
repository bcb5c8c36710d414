"""Sweeps: a grid of experiments, carried out by several processes, into one folder."""

from flowsim.sweeps.result import SweepResult
from flowsim.sweeps.run import SweepStopped, sweep

__all__ = ["SweepResult", "SweepStopped", "sweep"]
