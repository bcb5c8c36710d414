# %% [markdown]
# # Three layers, each in its own regime
#
# f(x) = (1/alpha) a^T relu(W_2 relu(W_1 x)): with s_1, s_2, s_3 the initial standard deviations
# from the input to the output, kappa = s_1 s_2 s_3 / alpha = m^-gamma_3, s_3/s_2 = m^-gamma_1 and
# s_3/s_1 = m^-gamma_2 (sign and pairing are flowsim's own choice). Usual schemes have gamma_1 = 0.
#
# The slope S of log RD against log m tells the regime of every layer: below 0 linear, 0 critical,
# above 0 condensed. W_2, the one square matrix, is judged by the operator norm of its change; in
# the Frobenius norm, which is shown beside it, it moves m^-1/2 less.
#
# First the slopes at five points against values measured elsewhere; then the map of all three
# layers over (gamma_3, gamma_2). With `--quick` everything is smaller.
#
# Three seeds, but not in the linear regime: there RD is proportional to the initial residual, which
# without antisymmetric initial values is as random as f itself. With three seeds and widths the
# slope has a standard error of 0.2 there.

# %%
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import flowsim as fs
from flowsim.analysis import zero_crossings
from flowsim.deep_predictions import predicted_zero

QUICK = "--quick" in sys.argv
FOLDER = Path("three_layer_phase")
FOLDER.mkdir(exist_ok=True)

WIDTHS = [40, 120] if QUICK else [100, 300, 1000]
SEEDS = 2 if QUICK else 3
SEEDS_LINEAR = 2 if QUICK else 60

LAYERS = ("input", "hidden_2", "hidden_2_frobenius", "output")
# (gamma_3, gamma_2): slopes of these four.
KNOWN = {
    (0.9, 0.0): (-0.58, -0.57, -1.08, -0.56),
    (1.5, 0.0): (0.00, -0.01, -0.51, -0.06),
    (2.1, 0.0): (0.25, 0.26, -0.25, 0.19),
    (3.0, 0.0): (0.53, 0.51, 0.01, 0.48),
    # Condensed, with a larger first layer: steps bounded by the tangent kernel alone overshoot the
    # escape from small weights here and give -0.22.
    (3.0, 0.5): (0.22, None, None, None),
}

x = np.array([-0.5, -1 / 6, 1 / 6, 0.5])
EXPERIMENT = {
    "network": {"kind": "deep", "width": 100, "hidden_layers": 2},
    "scaling": {"gamma_3": 1.5, "gamma_2": 0.0},
    "data": {"kind": "points", "x": x[:, None].tolist(), "y": (x**2).tolist()},
    "integrate": {"stop_loss": 1e-5},
    "record": {"observables": {"schedule": "none"}, "snapshots": {"schedule": "none"}},
}

# %% [markdown]
# The table. Runs that are in the folder already are not carried out again.


# %%
def sweep(name, gamma_3, gamma_2, widths, seeds):
    started = time.perf_counter()
    grid = {
        "scaling.gamma_3": gamma_3,
        "scaling.gamma_2": gamma_2,
        "network.width": widths,
        "seeds": seeds,
    }
    result = fs.sweep(EXPERIMENT, FOLDER / name, grid=grid)
    seconds = time.perf_counter() - started
    print(f"{name}: {result.n_run} runs in {seconds:.0f} s, {result.n_skipped} finished before")
    return result


points = []
for gamma_3, gamma_2 in list(KNOWN)[: 2 if QUICK else None]:
    seeds = SEEDS_LINEAR if gamma_3 < 1.0 else SEEDS
    result = sweep(f"table_{gamma_3:g}_{gamma_2:g}", [gamma_3], [gamma_2], WIDTHS, seeds)
    points += fs.classify(result).points

largest = 0.0
for point in points:
    known = KNOWN[point.gamma, point.gamma_prime]
    print(f"gamma_3 = {point.gamma:g}, gamma_2 = {point.gamma_prime:g}")
    for layer, expected in zip(LAYERS, known, strict=True):
        verdict = point.layers[layer]
        line = f"    {layer:<19} S = {verdict.slope:+.3f}  predicted {verdict.predicted_slope:+.2f}"
        if expected is not None:
            line += f"  known {expected:+.2f}  difference {verdict.slope - expected:+.3f}"
            largest = max(largest, abs(verdict.slope - expected))
        print(line)
print(f"largest difference from the known slopes: {largest:.3f}")

# %% [markdown]
# The map: a panel a layer. The black line is the prediction, the dashed one where the measured
# slope, interpolated in gamma_3, is 0; where the two part, both are there.

# %%
GAMMA_3 = [1.0, 2.0] if QUICK else [1.0, 1.3, 1.6, 1.9, 2.2, 2.6]
GAMMA_2 = [0.0, 0.5] if QUICK else [-0.5, -0.25, 0.0, 0.25, 0.5, 0.75]
result = sweep("map", GAMMA_3, GAMMA_2, WIDTHS, 1 if QUICK else 2)
found = {(point.gamma, point.gamma_prime): point for point in fs.classify(result).points}

# %%
figure, panels = plt.subplots(1, 3, figsize=(9.5, 3.2), sharey=True, layout="constrained")
for axes, layer, name in zip(
    panels, ("input", "hidden_2", "output"), ("$W_1$", "$W_2$, operator norm", "$a$"), strict=True
):
    slopes = np.array([[found[g3, g2].layers[layer].slope for g3 in GAMMA_3] for g2 in GAMMA_2])
    coloured = axes.pcolormesh(GAMMA_3, GAMMA_2, slopes, cmap="RdBu_r", vmin=-0.8, vmax=0.8)
    axes.set(xlim=(GAMMA_3[0] - 0.1, GAMMA_3[-1] + 0.1), ylim=(GAMMA_2[0] - 0.1, GAMMA_2[-1] + 0.1))
    heights = np.linspace(*axes.get_ylim(), 101)
    theory = [predicted_zero(layer, 0.0, at) for at in heights]
    axes.plot(theory, heights, "k-", label="predicted")
    rows = zip(GAMMA_2, slopes, strict=True)
    zeros = [(g3, g2) for g2, row in rows for g3 in zero_crossings(GAMMA_3, row)]
    for g3, g2 in zeros:
        expected = predicted_zero(layer, 0.0, g2)
        print(
            f"{layer}: gamma_2 = {g2:+.2f}, S = 0 at gamma_3 = {g3:.2f}, predicted {expected:.2f}"
        )
    if zeros:
        axes.plot(*np.transpose(zeros), "k--o", markersize=4, label="measured")
    axes.set(title=name, xlabel=r"$\gamma_3$")
panels[0].legend(fontsize=8, loc="upper right")
panels[0].set_ylabel(r"$\gamma_2$")
figure.colorbar(coloured, ax=panels, label="$S$", extend="both")
figure.savefig(FOLDER / "three_layer_phase.png", dpi=150)
