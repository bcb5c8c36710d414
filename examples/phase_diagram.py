# %% [markdown]
# # The phase diagram of two-layer ReLU networks
#
# At each point (gamma, gamma') a few widths and seeds are run until R < 1e-5. The slope S_w of
# log RD against log m says which regime the input weights are in as m grows: linear below 0,
# condensed above, critical at 0. The line S_w = 0 is found by interpolation in gamma and compared
# with theory (Luo, Xu, Ma & Zhang 2021).
#
# The grid is that of `phase_diagram.toml`; with `--quick` it is thinned out.

# %%
import sys
import tomllib
from pathlib import Path

import flowsim as fs

QUICK = "--quick" in sys.argv
FOLDER = Path("phase_diagram")
FOLDER.mkdir(exist_ok=True)

experiment = tomllib.loads((Path(__file__).parent / "phase_diagram.toml").read_text())
grid = experiment.pop("grid")
if QUICK:
    grid |= {
        "scaling.gamma": [0.6, 0.9, 1.1, 1.3, 1.6],
        "scaling.gamma_prime": [-0.2, 0.0, 0.2],
        "network.width": [1000, 2000, 4000],
    }

# %% [markdown]
# Runs that are in the folder already are not carried out again.

# %%
result = fs.sweep(experiment, FOLDER / "sweep", grid=grid, progress=True)
print(f"{result.n_run} runs carried out, {result.n_skipped} finished before")

# %%
classification = fs.classify(result)
for point in classification.points:
    verdict = point.layers["input"]
    print(
        f"gamma = {point.gamma:<5} gamma' = {point.gamma_prime:<5} S_w = {verdict.slope:+.3f}"
        f"  {verdict.regime:<12} predicted {verdict.predicted_slope:+.3f}"
        f" {verdict.predicted_regime}"
    )

# %% [markdown]
# Theory puts the critical line at gamma = 1 for gamma' <= 0, at gamma = 1 + gamma' above.

# %%
for zero in classification.zero_line:
    theory = 1.0 + max(0.0, zero.gamma_prime)
    print(f"gamma' = {zero.gamma_prime:<5} S_w = 0 at gamma = {zero.gamma:.3f}, theory {theory:g}")

# %%
print(fs.plot("phase", result, FOLDER / "phase.png"))
