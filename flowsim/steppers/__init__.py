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
    "ros2",
    "ros34pw2",
    "implicit-euler",
    "exponential",
    "gradient-descent",
)
"""Every value of ``integrate.method``; kept apart so that checking a file compiles nothing."""

LOW_STORAGE = ("rdpk35",)
"""Methods whose registers are states, so that they need rates that are states."""

ROSENBROCK = ("ros2", "ros34pw2")
"""Linearly implicit methods."""

KERNEL_FILTERED = ("implicit-euler", "exponential")
"""Methods that filter the gradient by the tangent kernel."""

NEED_KERNEL = ("euler", "heun", *ROSENBROCK, *KERNEL_FILTERED)
"""Methods that need the tangent kernel."""
