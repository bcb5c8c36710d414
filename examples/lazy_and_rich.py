# %% [markdown]
# # Lazy against rich, on one page
#
# The same network on the same four points, from three initial scales. At gamma = 1/2 the neurons
# hardly move and the tangent kernel K stays what it was: kernel regression. At gamma = 1 both move
# by a finite amount however wide the network is: mean field. At gamma = 1.75 the neurons forget
# where they started and gather in two directions: condensation.

# %%
import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

import flowsim as fs
from flowsim.analysis.condensation import condensation
from flowsim.analysis.figures.style import PALETTE, RC, THEORY
from flowsim.analysis.kernels import kernel_history

QUICK = "--quick" in sys.argv
FOLDER = Path("lazy_and_rich")
FOLDER.mkdir(exist_ok=True)

GAMMAS = {0.5: "linear", 1.0: "critical", 1.75: "condensed"}
x = np.array([-0.5, -1 / 6, 1 / 6, 0.5])
y = x**2

# %% [markdown]
# Snapshots for the neurons, and K twenty times a decade.

# %%
runs = {
    gamma: fs.simulate(
        network={"width": 200 if QUICK else 2000, "antisymmetric": True},
        scaling={"gamma": gamma, "gamma_prime": 0.0},
        x=x,
        y=y,
        record={
            "snapshots": {"schedule": "log", "per_decade": 2},
            "kernel": {"schedule": "log", "per_decade": 20},
        },
        output=FOLDER / f"gamma_{gamma:g}.h5",
        overwrite=True,
    )
    for gamma in GAMMAS
}
for gamma, run in runs.items():
    end = condensation(run)[-1]
    print(
        f"gamma = {gamma:<5} RD of w = {run.relative_change['input']:.3g}"
        f"   |K - K(0)|/|K(0)| = {kernel_history(run).distance[-1]:.3g}"
        f"   amplitude in two orientations: {end.leading[1]:.0%}"
    )

# %%
grid = np.linspace(-0.75, 0.75, 301)
with matplotlib.rc_context(RC):
    figure, panels = plt.subplots(3, 3, figsize=(7.0, 6.2), layout="constrained", sharey="row")
    for column, (gamma, regime) in enumerate(GAMMAS.items()):
        run = runs[gamma]
        function, neurons, kernel = panels[:, column]
        function.plot(grid, grid**2, color=THEORY, lw=0.8, label="$x^2$")
        function.plot(grid, run.predict(grid[:, None]), color=PALETTE[0], label="$f$")
        function.plot(x, y, "o", color="black", ms=3.5)
        function.set(xlabel="$x$", title=rf"$\gamma = {gamma:g}$, {regime}")

        for (a, w), colour, label in (
            (run.weights(t=0.0), "0.6", "initial"),
            (run.weights(), PALETTE[1], "final"),
        ):
            amplitude = np.abs(a) * np.linalg.norm(w, axis=0)
            neurons.plot(
                np.arctan2(w[1], w[0]), amplitude / amplitude.max(), ".", color=colour, ms=2.0,
                label=label, rasterized=True,
            )  # fmt: skip
        neurons.set_xticks([-np.pi, 0, np.pi], [r"$-\pi$", "$0$", r"$\pi$"])
        neurons.set(xlabel="orientation of $w_k$")

        history = kernel_history(run)
        kernel.plot(history.time[1:], history.distance[1:], color=PALETTE[2])
        kernel.set(xscale="log", yscale="log", xlabel=r"$\tau$")
    panels[0, 0].set_ylabel("$f(x)$")
    panels[1, 0].set_ylabel("amplitude / largest")
    panels[2, 0].set_ylabel("$|K-K(0)|/|K(0)|$")
    panels[0, 0].legend(loc="upper center")
    panels[1, 0].legend(loc="upper right", markerscale=3)
    figure.savefig(FOLDER / "lazy_and_rich.png")
    figure.savefig(FOLDER / "lazy_and_rich.pdf")
print(FOLDER / "lazy_and_rich.png")
