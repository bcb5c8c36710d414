# %% [markdown]
# # Pinned neurons
#
# To a ReLU neuron a sample is a hyperplane, on which its velocity jumps. With one input the
# hyperplane of x_i is met where the neuron's kink, the point -bias/weight, is at x_i. Where both
# sides push the kink towards the sample it stays there: the neuron is pinned, and slides along the
# plane as its other weights grow. In the condensed regime most neurons end like this.

# %%
import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

import flowsim as fs
from flowsim.analysis.figures.style import PALETTE, RC, THEORY

QUICK = "--quick" in sys.argv
FOLDER = Path("pinned_neurons")
FOLDER.mkdir(exist_ok=True)

x = np.array([-0.9, -0.3, 0.4, 1.0])
y = np.array([0.3, -0.5, 0.6, -0.2])

# %% [markdown]
# The method `kinks` passes every kink by itself. Its observables say how many neurons are held.

# %%
run = fs.simulate(
    network={"width": 200 if QUICK else 1000},
    scaling={"gamma": 1.25, "gamma_prime": 0.0},
    x=x,
    y=y,
    integrate={"method": "kinks", "stop_loss": 1e-7},
    record={"snapshots": {"schedule": "log", "per_decade": 20 if QUICK else 60}},
    output=FOLDER / "run.h5",
    overwrite=True,
)
seen = run.observables
print(f"{run.status}, {run.stop_reason}")
held, passes = seen["pinned_neurons"][-1], seen["n_passes"][-1]
print(f"{passes} passes, {seen['kink_crossings'][-1]} kinks met, {held} neurons pinned at the end")

# %% [markdown]
# Where each neuron's kink is, in time: lines end on the data, drawn in black. Those that end
# elsewhere belong to neurons that no sample reaches any more, or that all samples do.

# %%
snapshots = run.group("snapshots")
times, w = (snapshots.array(name).values for name in ("time_snapshot", "input_weights"))
kinks = -w[:, 1] / w[:, 0]
kinks[np.abs(kinks) > 3.0] = np.nan  # on the way through infinity
shown = np.linspace(0, w.shape[2] - 1, 120).astype(int)
grid = np.linspace(-1.3, 1.3, 401)

with matplotlib.rc_context(RC):
    figure, (paths, share, function) = plt.subplots(
        1, 3, figsize=(7.0, 2.6), layout="constrained", width_ratios=(1.5, 1.0, 1.0)
    )
    for x_i in x:
        paths.axhline(x_i, color=THEORY, lw=0.8)
    paths.plot(times, kinks[:, shown], color=PALETTE[0], lw=0.5, alpha=0.6)
    paths.set(
        xscale="symlog", xlim=(0.0, times[-1]), ylim=(-1.6, 1.6), xlabel=r"$\tau$",
        ylabel="kink, $-b_k/w_k$", title="neurons lock onto data points",
    )  # fmt: skip
    share.plot(run.time, seen["pinned_neurons"] / w.shape[2], color=PALETTE[1])
    share.set(
        xscale="symlog", xlim=(0.0, times[-1]), ylim=(0.0, 1.0), xlabel=r"$\tau$",
        ylabel="share of neurons pinned",
    )  # fmt: skip
    function.plot(grid, run.predict(grid[:, None]), color=PALETTE[0], label="$f$")
    function.plot(x, y, "o", color="black", ms=3.5, label="data")
    function.set(xlabel="$x$", title="kinks of $f$ at samples")
    function.legend(loc="lower left", fontsize="x-small")
    figure.savefig(FOLDER / "pinned_neurons.png", dpi=200)
print(FOLDER / "pinned_neurons.png")

# %% [markdown]
# A method that takes the jumps as they come needs many more passes for fewer digits.

# %%
for method, rtol in (("kinks", 1e-3), ("heun", 1e-3), ("tsit54", 1e-3)):
    other = fs.simulate(run.config, x=x, y=y, integrate={"method": method, "rtol": rtol})
    print(f"{method:<7} RD of w = {other.relative_change['input']:.6f}   "
          f"{other.observables['n_passes'][-1]} passes")  # fmt: skip
