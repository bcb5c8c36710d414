# %% [markdown]
# # A first run
#
# One two-layer ReLU network of 1,000 neurons in the condensed regime, fitted to four points of
# y = x^2: what the run returns, what its file holds, and three pictures.

# %%
import sys
from pathlib import Path

import numpy as np

import flowsim as fs

QUICK = "--quick" in sys.argv
FOLDER = Path("first_run")
FOLDER.mkdir(exist_ok=True)

x = np.array([-0.5, -1 / 6, 1 / 6, 0.5])
y = x**2

# %% [markdown]
# Everything not said here has a default. Without `output` the run would stay in memory.

# %%
run = fs.simulate(
    network={"width": 300 if QUICK else 1000, "antisymmetric": True},
    scaling={"gamma": 1.75, "gamma_prime": 0.2},
    x=x,
    y=y,
    output=FOLDER / "run.h5",
    overwrite=True,
    progress=True,
)
print(f"{run.status}, {run.stop_reason}")
print("relative change:", {layer: round(rd, 3) for layer, rd in run.relative_change.items()})

# %% [markdown]
# The arrays are NumPy's, read from the file when they are asked for.

# %%
print("observables:", *run.observables)
print(f"R falls from {run.loss[0]:.3g} to {run.loss[-1]:.3g} in {len(run.time)} rows")

# %% [markdown]
# The learnt function at any input and at any time, and the weights in both normalisations.

# %%
print("f(0.25) at the end: ", run.predict([0.25]))
print("f(0.25) at tau = 10:", run.predict([0.25], t=10.0))
a, w = run.weights()
a_original, w_original = run.weights(normalisation="original")
print(f"largest output weight: {a.max():.3g} normalised, {a_original.max():.3g} original")

# %% [markdown]
# Loss against time, orientation of the neurons against their amplitude, function against data. The
# neurons start anywhere and gather in a few directions as they grow: condensation.

# %%
print(fs.plot("loss", run, FOLDER / "loss.png"))
print(fs.plot("features", run, FOLDER / "features.png", scale="log"))
print(fs.plot("function", run, FOLDER / "function.png"))
