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
    "gradient-descent",
)
"""Every value of ``integrate.method``; kept apart so that checking a file compiles nothing."""

LOW_STORAGE = ("rdpk35", "rkc2")
"""Methods whose registers are states, so that they need rates that are states."""
