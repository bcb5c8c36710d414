"""The sections ``[network]``, ``[integrate]`` and ``[record]``: keys, defaults and limits."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from flowsim.config.fields import Count, Name, NonNegative, Positive, Section, Seed, one_of
from flowsim.config.problems import unknown_choice
from flowsim.deep_scaling import layer_names
from flowsim.kernels import BACKEND_NAMES, DEEP_PASSES, PASSES
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.kernels.losses import LOSSES
from flowsim.steppers import KERNEL_BOUNDED, KERNEL_FILTERED, KINK_RESOLVING, METHOD_NAMES

DTYPES = {"float64": 1e-13, "float32": 1e-6}
"""Dtypes of the state, with the least rtol that each can hold."""

_DESCENT = ("gradient-descent",)
_OTHERS = ("auto", *_DESCENT, *KERNEL_BOUNDED, *KERNEL_FILTERED, *KINK_RESOLVING)
_PAIRS = tuple(name for name in METHOD_NAMES if name not in _OTHERS)
_METHODS_WITH = {
    "atol": ("auto", *_PAIRS, *KERNEL_FILTERED),
    "first_step": ("auto", *_PAIRS, *KINK_RESOLVING),
    "step": _DESCENT,
    "batch_size": _DESCENT,
    "momentum": _DESCENT,
    "restart": _DESCENT,
    "step_fraction": ("auto", *KERNEL_BOUNDED, *KERNEL_FILTERED),
    "max_relative_change": ("auto", *KERNEL_BOUNDED, *KERNEL_FILTERED),
    "late_step_fraction": ("auto", *KERNEL_BOUNDED),
}
"""Keys of ``[integrate]`` that only some methods know."""

_SCHEDULES = {
    "log": ("per_decade", "start"),
    "linear": ("every",),
    "steps": ("every",),
    "none": (),
}
"""Schedules, with their keys."""


class Mobility(Section):
    """Factors of the layers' mobilities; 0 freezes a layer."""

    input: NonNegative = 1.0
    output: NonNegative = 1.0

    @field_validator("output")
    @classmethod
    def _something_moves(cls, output: float, info: ValidationInfo) -> float:
        if output == 0.0 and info.data.get("input") == 0.0:
            raise ValueError("both layers are frozen; give one of them a mobility such as 1.0")
        return output


class NetworkSection(Section):
    """``[network]``: what every network has."""

    kind: Annotated[str, one_of(("two-layer", "deep"))] = "two-layer"
    width: Annotated[int, Field(ge=1, le=10**10, examples=[1000])]
    activation: str = "relu"
    antisymmetric: bool = False
    seed: Seed = 0

    @field_validator("activation")
    @classmethod
    def _is_registered(cls, activation: str, info: ValidationInfo) -> str:
        names = (*ACTIVATIONS, *(info.context or {}).get("activations", ()))
        if activation not in names:
            raise ValueError(unknown_choice(activation, names))
        return activation


class Network(NetworkSection):
    """``[network]`` of a two-layer network."""

    mobility: Mobility = Mobility()


class DeepNetworkSection(NetworkSection):
    """``[network]`` of a network with several hidden layers."""

    kind: Annotated[Literal["deep"], Field(examples=["deep"])]
    width: Annotated[int, Field(ge=1, le=10**6, examples=[1000])]
    hidden_layers: Annotated[int, Field(ge=1, le=64)] = 2
    relative_widths: list[Positive] | None = Field(default=None, examples=[[1.0, 0.5]])
    biases: bool = False
    mobility: dict[str, NonNegative] = Field(default_factory=dict)

    @field_validator("relative_widths")
    @classmethod
    def _one_a_layer(cls, ratios: list[float] | None, info: ValidationInfo) -> list[float] | None:
        layers = info.data.get("hidden_layers")
        if ratios is not None and layers is not None and len(ratios) != layers:
            raise ValueError(
                f"has {len(ratios)} entries; give one for each of the {layers} hidden layers"
            )
        return ratios

    @field_validator("mobility")
    @classmethod
    def _names_layers(cls, factors: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        names = layer_names(info.data.get("hidden_layers", 2))
        for name in factors:
            if name not in names:
                raise ValueError(f"{name}: {unknown_choice(name, names)}")
        if all(factors.get(name, 1.0) == 0.0 for name in names):
            raise ValueError("all layers are frozen; give one of them a mobility such as 1.0")
        return factors


class Integrate(Section):
    """``[integrate]``: which flow is integrated, how, and when it stops.

    The ``loss`` is here, and not among the data, which a script may replace as a whole.
    ``atol`` is by default what rounding leaves of the residuals, whatever ``stop_loss``: where a
    run is to end must not change its steps.
    """

    # None is in no configuration, so that runs from before keep their hash: the square loss.
    loss: Annotated[str, one_of(LOSSES)] | None = Field(default=None, examples=["softmax"])
    method: Annotated[str, one_of(METHOD_NAMES)] = "auto"
    dtype: Annotated[str, one_of(DTYPES)] = "float64"
    backend: Annotated[str, one_of(BACKEND_NAMES)] = "cpu"
    # None is in no configuration: the first GPU.
    device: int | None = Field(default=None, ge=0, le=255, examples=[0])
    threads: int | None = Field(default=None, ge=1, le=4096, examples=[1])
    passes: Annotated[str, one_of(tuple(dict.fromkeys((*PASSES, *DEEP_PASSES))))] = "auto"
    rtol: Annotated[Positive, Field(lt=1.0)] = 1e-3
    atol: NonNegative | None = Field(default=None, examples=[1e-6])
    first_step: Positive | None = Field(default=None, examples=[1e-3])
    step: Positive | None = Field(default=None, examples=[0.1])
    step_fraction: Positive | None = Field(default=None, examples=[0.5])
    max_relative_change: Positive | None = Field(default=None, examples=[0.1])
    late_step_fraction: Positive | None = Field(default=None, examples=[1.5])
    batch_size: Count | None = Field(default=None, examples=[512])
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] | None = Field(default=None, examples=[0.9])
    restart: bool | None = Field(default=None, examples=[False])
    stop_loss: NonNegative = 1e-5
    t_max: Positive | None = Field(default=None, examples=[1e4])
    max_steps: Count | None = Field(default=None, examples=[100000])
    max_seconds: Positive | None = Field(default=None, examples=[60.0])
    steady_slope: NonNegative = 1e-4
    steady_min_time: NonNegative = 1e4
    estimate_error: bool = False

    @property
    def on_cpu_only(self) -> bool:
        """Whether the method is one that no GPU carries out."""
        return self.method in KINK_RESOLVING

    @field_validator("rtol")
    @classmethod
    def _dtype_holds(cls, rtol: float, info: ValidationInfo) -> float:
        dtype = info.data.get("dtype")
        if dtype is not None and rtol < DTYPES[dtype]:
            wider = ' or dtype = "float64"' if dtype != "float64" else ""
            raise ValueError(
                f"{dtype} holds no less than {DTYPES[dtype]:g}; "
                f"set rtol = {DTYPES[dtype]:g} or larger{wider}"
            )
        return rtol

    @field_validator(*_METHODS_WITH)
    @classmethod
    def _method_knows(cls, value: float | None, info: ValidationInfo) -> float | None:
        method, methods = info.data.get("method"), _METHODS_WITH[info.field_name or ""]
        if value is not None and method is not None and method not in methods:
            raise ValueError(
                f'method "{method}" does not use it; remove it, or set method to one of '
                + ", ".join(methods)
            )
        return value

    @field_validator("restart", "estimate_error")
    @classmethod
    def _full_batches(cls, value: bool | None, info: ValidationInfo) -> bool | None:
        if value and info.data.get("batch_size") is not None:
            raise ValueError("needs full batches, but batch_size is set; remove one of them")
        return value

    @field_validator("steady_slope")
    @classmethod
    def _something_stops(cls, steady_slope: float, info: ValidationInfo) -> float:
        limits = ("stop_loss", "t_max", "max_steps", "max_seconds")
        known = all(name in info.data for name in limits)
        if steady_slope == 0.0 and known and not any(info.data[name] for name in limits):
            raise ValueError("nothing would end the run; set t_max or another limit")
        return steady_slope


class Schedule(Section):
    """When something is saved: every so often in time (log, linear) or in steps."""

    DENSITY: ClassVar[float] = 20.0

    schedule: Annotated[str, one_of(_SCHEDULES)] = "log"
    per_decade: Positive | None = Field(default=None, le=1e6, validate_default=True, examples=[20])
    start: Positive | None = Field(default=None, examples=[1e-3])
    every: Positive | None = Field(default=None, validate_default=True, examples=[10])

    @field_validator("per_decade", "start", "every")
    @classmethod
    def _belongs_to_schedule(cls, value: float | None, info: ValidationInfo) -> float | None:
        schedule, key = info.data.get("schedule"), info.field_name or ""
        if schedule is None:
            return value
        keys = _SCHEDULES[schedule]
        if value is not None and key not in keys:
            known = f"has {' and '.join(keys)}" if keys else "takes nothing else"
            raise ValueError(f'unknown key here; schedule "{schedule}" {known}')
        if value is None and key == "every" and key in keys:
            raise ValueError(f'missing; schedule "{schedule}" needs it, for example every = 10')
        if value is not None and schedule == "steps" and value != int(value):
            raise ValueError("must be a whole number of steps; for example every = 10")
        return cls.DENSITY if value is None and key == "per_decade" and key in keys else value


class ObservableSchedule(Schedule):
    """Schedule of the observables; ``names`` restricts them."""

    names: list[Name] | None = Field(default=None, examples=[["loss", "relative_change"]])


class SnapshotSchedule(Schedule):
    """Schedule of the snapshots, and their dtype in the file."""

    DENSITY: ClassVar[float] = 2.0

    dtype: Annotated[str, one_of(DTYPES)] = "float32"


class Flush(Section):
    """When rows go to the file: after so many seconds, or so many rows."""

    seconds: NonNegative = 10.0
    rows: Count = 4096


class CheckpointEvery(Section):
    """When it is saved where the run can be continued from."""

    seconds: NonNegative = 60.0


COMPRESSIONS = ("none", "lzf", "gzip")
"""Compression of large rows in the file."""


class Record(Section):
    """``[record]``: what is saved, and when."""

    observables: ObservableSchedule = ObservableSchedule()
    snapshots: SnapshotSchedule = SnapshotSchedule()
    kernel: Schedule = Schedule(schedule="none")
    separate: dict[str, Schedule] = Field(default_factory=dict)
    flush: Flush = Flush()
    checkpoint: CheckpointEvery = CheckpointEvery()
    compression: Annotated[str, one_of(COMPRESSIONS)] = "none"
