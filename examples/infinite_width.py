# %% [markdown]
# # Infinitely wide networks, and how fast finite ones get there
#
# Two limits can be computed without any network. In the linear regime f follows kernel gradient
# flow, in closed form in time. In the critical one the distribution of the neurons moves; it is
# integrated here as particles that are placed by a rule instead of drawn, so that no sampling noise
# is left. Networks approach both like m^(-1/2); placed neurons approach faster.

# %%
import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

import flowsim as fs
from flowsim.analysis.figures.style import PALETTE, RC, THEORY, signed
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.limits.convergence import converge
from flowsim.limits.linear import LinearLimit
from flowsim.networks.two_layer import TwoLayerNetwork

QUICK = "--quick" in sys.argv
FOLDER = Path("infinite_width")
FOLDER.mkdir(exist_ok=True)

WIDTHS = [100, 2000] if QUICK else [100, 1000, 10_000]
SEEDS = 2 if QUICK else 5
PARTICLES = 10_000 if QUICK else 60_000
x = np.array([-0.5, -1 / 6, 1 / 6, 0.5])
y = x**2
grid = np.linspace(-0.75, 0.75, 41)


def experiment(gamma, **integrate):
    return {
        "network": {"width": 1000, "antisymmetric": True},
        "scaling": {"gamma": gamma, "gamma_prime": 0.0},
        "data": {"kind": "points", "x": x[:, None].tolist(), "y": y.tolist()},
        "integrate": integrate,
    }


# %% [markdown]
# The kernel's prediction at the end of training, beside networks of growing width. (Inputs as a
# network sees them have the bias coordinate 1.)

# %%
inputs, points = (np.column_stack([values, np.ones(len(values))]) for values in (x, grid))
network = TwoLayerNetwork(fs.Scaling(WIDTHS[-1], 0.5, 0.0), ACTIVATIONS["relu"], antisymmetric=True)
limit = LinearLimit(network, inputs, y)
predicted = limit.predict(points, [1e9])[0]
learnt = {
    m: fs.simulate(
        experiment(0.5), network={"width": m}, integrate={"stop_loss": 1e-8}
    ).predict(grid[:, None])
    for m in WIDTHS
}  # fmt: skip
for m, f in learnt.items():
    print(f"m = {m:<6} largest distance from the kernel's f: {np.abs(f - predicted).max():.2g}")

# %% [markdown]
# Distances over all of training, for networks drawn and networks placed. `flowsim converge` does
# the same from the command line.

# %%
accurate = {"method": "tsit54", "rtol": 1e-3 if QUICK else 1e-4}
found = {
    r"linear, $\gamma = 1/2$": converge(experiment(0.5, **accurate), WIDTHS, SEEDS, inputs=grid),
    r"mean field, $\gamma = 1$": converge(
        experiment(1.0), WIDTHS, SEEDS, inputs=grid, particles=PARTICLES
    ),
    "mean field, placed": converge(
        experiment(1.0), WIDTHS, initial="quadrature", inputs=grid, particles=PARTICLES
    ),
}
for name, result in found.items():
    print(f"{name:<28} function m^{result.rates['function'].slope:.2f}")

# %%
with matplotlib.rc_context(RC):
    figure, (functions, distances) = plt.subplots(1, 2, figsize=(7.0, 2.9), layout="constrained")
    for (m, f), colour in zip(learnt.items(), ("#56B4E9", "#0072B2", "#004B76"), strict=False):
        functions.plot(grid, f, color=colour, lw=1.0, label=f"$m = {m}$")
    functions.plot(grid, predicted, "--", color=THEORY, lw=1.2, label=r"$m = \infty$")
    functions.plot(x, y, "o", color="black", ms=4.0)
    functions.set(xlabel="$x$", ylabel="$f(x)$")
    functions.legend()
    for (name, result), colour in zip(found.items(), PALETTE, strict=False):
        m = [row.width for row in result.rows]
        distance = [row.distances["function"] for row in result.rows]
        fit = result.rates["function"]
        label = f"{name}: $m^{{{signed(fit.slope)}}}$"
        distances.plot(m, distance, "o", color=colour, ms=3.0, label=label)
        distances.plot(fit.widths, fit(fit.widths), color=colour, lw=0.9)
    ends = np.array([WIDTHS[0], WIDTHS[-1]], float)
    distances.plot(ends, 0.6 * ends**-0.5, "--", color=THEORY, lw=0.9, label="$m^{-1/2}$")
    distances.set(
        xscale="log", yscale="log", xlabel="width $m$",
        ylabel=r"$\sup_{\tau, x}\,|f_m - f_\infty|$",
    )  # fmt: skip
    distances.legend(fontsize=7.5)
    figure.savefig(FOLDER / "infinite_width.png")
    figure.savefig(FOLDER / "infinite_width.pdf")
print(FOLDER / "infinite_width.png")
