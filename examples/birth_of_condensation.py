# %% [markdown]
# # The birth of condensation
#
# From small weights, and before f is of any size, every neuron turns by itself to one of a few
# lines that depend on the data and on how the activation begins at 0: sigma(z) = c z^p + ... The
# lines are where |H(u)|, H(u) = (1/n) sum y_i (u.x_i)^p, is largest: one for tanh (p = 1), two for
# x tanh x (p = 2), up to three here for x^2 tanh x (p = 3). After Zhou, Zhou, Luo & Xu (2022):
# y = sum_k 3.5 sin(5 x_k + 1), 80 samples in [-4, 2]^5, 50 neurons of standard deviation 0.005.

# %%
import sys
from pathlib import Path

import numpy as np

from flowsim.analysis.condensation import find_orientations, sorted_cosines
from flowsim.analysis.figures.cosines import draw_matrices
from flowsim.analysis.figures.style import save
from flowsim.kernels.activations import ACTIVATIONS
from flowsim.limits.early import grow, multiplicity, orientations
from flowsim.networks.two_layer import TwoLayerNetwork
from flowsim.scaling import Scaling

QUICK = "--quick" in sys.argv
FOLDER = Path("birth_of_condensation")
FOLDER.mkdir(exist_ok=True)

random = np.random.default_rng(1)
points = random.uniform(-4.0, 2.0, size=(80, 5))
y = np.sum(3.5 * np.sin(5.0 * points + 1.0), axis=1)
x = np.column_stack([points, np.ones(80)])

# %% [markdown]
# Each neuron is followed until it has grown a thousandfold: above p = 1 they blow up one after the
# other, and in a network the first would change the residual before others have moved.

# %%
TITLES = {
    "tanh": "tanh, $p = 1$",
    "x_tanh_x": r"$x\,$tanh$\,x$, $p = 2$",
    "x2_tanh_x": r"$x^2\,$tanh$\,x$, $p = 3$",
}
matrices = {}
for name, title in TITLES.items():
    scaling = Scaling.from_standard_deviations(50, alpha=1.0, beta1=0.005, beta2=0.005)
    network = TwoLayerNetwork(scaling, ACTIVATIONS[name], seed=1)
    start = network.initial_values(n_inputs=6)
    grown = grow(network, x, y, start[0], start[1:], factor=30.0 if QUICK else 1000.0)
    arrived = grown.input_weights[:, np.isfinite(grown.time)]
    units = arrived / np.linalg.norm(arrived, axis=0)
    predicted = orientations(x, y, multiplicity(ACTIVATIONS[name])[0])
    counted = find_orientations(units, np.ones(units.shape[1]), lines=True)
    nearest = np.abs(predicted.directions.T @ units).max(axis=0)
    print(
        f"{name:<10} {counted.number:g} lines, {predicted.lines} predicted;"
        f" median cosine with the nearest {np.median(nearest):.4f}"
    )
    matrices[title] = sorted_cosines(units)[0]

# %%
figure = draw_matrices(matrices)
for suffix in ("png", "pdf"):
    save(figure, FOLDER / f"lines.{suffix}")
print(FOLDER / "lines.png")
