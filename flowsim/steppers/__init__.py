"""Integration methods: one a file, registered by name in `flowsim.steppers.methods`."""

METHOD_NAMES = (
    "auto",
    "euler",
    "heun",
    "bs32",
    "dp54",
    "tsit54",
    "dop853",
    "rdpk35",
    "rkc2",
    "ros2",
    "ros34pw2",
    "implicit-euler",
    "exponential",
    "switching",
    "kinks",
    "gradient-descent",
)
"""Every value of ``integrate.method``; kept apart so that checking a file compiles nothing."""

LOW_STORAGE = ("rdpk35", "rkc2")
"""Methods whose registers are states, so that they need rates that are states."""

KERNEL_BOUNDED = ("euler", "heun")
"""Methods whose steps the tangent kernel bounds."""

ROSENBROCK = ("ros2", "ros34pw2")
"""Linearly implicit methods."""

KERNEL_FILTERED = ("implicit-euler", "exponential")
"""Methods that filter the gradient by the tangent kernel."""

NEED_KERNEL = (*KERNEL_BOUNDED, *ROSENBROCK, *KERNEL_FILTERED, "kinks")
"""Methods that need the tangent kernel."""

PARTS = {"switching": ("tsit54", "rkc2", "ros34pw2", "exponential")}
"""Methods that are made of several: explicit, stabilised, linearly implicit, exponential."""

KINK_RESOLVING = ("kinks",)
"""Methods that pass kinks neuron by neuron: for two layers with a piecewise linear activation."""

TALLIES = {"kinks": ("kink_crossings", "newton_iterations", "pinned_neurons")}
"""What methods count of themselves, see `flowsim.recording.observables`."""
