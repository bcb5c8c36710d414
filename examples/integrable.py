# %% [markdown]
# # Which scales train a deep network, and with which activation
#
# Hajjar, Chizat & Giraud (arXiv 2110.15596): a network of L = 6 hidden layers in the integrable
# parametrisation (IP: W_l = m^-1 w_l with w_l of order 1) starts at a stationary point as its width
# m grows, and does not move. One first step at large learning rates (IP-LLR) gets it away, where
# the activation lets it: gelu, elu and tanh train, relu does not. muP trains with all of them.
#
# The published protocol, smaller: scikit-learn's digits in the place of MNIST, softmax
# cross-entropy, a fixed number of steps of gradient descent on mini-batches, weights of variance 2,
# 4, 1 and 1 for relu, gelu, elu and tanh, and the first step of IP-LLR calibrated layer by layer.
# m = 256 instead of 1024, batches of 128 instead of 512, 3 trials instead of 5; learning rate 0.05
# instead of 0.01, because an image has 64 pixels instead of 784 and the first layer moves with
# |x|^2. With `--quick` everything is smaller. Runs that are in the folder already are not carried
# out again, and one that was stopped goes on where it was.

# %%
import json
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import flowsim as fs
from flowsim import data

QUICK = "--quick" in sys.argv
FOLDER = Path("integrable")
FOLDER.mkdir(exist_ok=True)

WIDTH, STEPS, BATCH, TRIALS = (16, 20, 32, 1) if QUICK else (256, 600, 128, 3)
LEARNING_RATE = 0.05
SCHEMES = {"ip": "IP", "ip-llr": "IP-LLR", "mup": "µP"}
VARIANCES = {"relu": 2.0, "gelu": 4.0, "elu": 1.0, "tanh": 1.0}

digits = data.from_images(
    "digits",
    n_samples=100 if QUICK else 1500,
    n_test=50 if QUICK else 297,
    target="one-hot",
    normalise="standardise-global",
)


# %%
def train(scheme, activation, seed):
    scaling = {"scheme": scheme, "init_scale": VARIANCES[activation] ** 0.5}
    if scheme == "ip-llr":
        scaling |= {"calibrate": True, "first_step": LEARNING_RATE}
    return fs.simulate(
        network={
            "kind": "deep", "width": WIDTH, "hidden_layers": 6, "activation": activation,
            "seed": seed,
        },
        scaling=scaling,
        dataset=digits,
        integrate={
            "loss": "softmax", "method": "gradient-descent", "step": LEARNING_RATE,
            "batch_size": BATCH, "max_steps": STEPS, "stop_loss": 0.0, "dtype": "float32",
        },
        record={
            "observables": {"schedule": "steps", "every": STEPS // 20},
            "snapshots": {"schedule": "none"},
        },
        output=FOLDER / f"{scheme}_{activation}_{seed}.h5",
    )  # fmt: skip


started = time.perf_counter()
runs = {
    (scheme, activation): [train(scheme, activation, seed) for seed in range(TRIALS)]
    for activation in VARIANCES
    for scheme in SCHEMES
}
print(f"{TRIALS * len(runs)} runs in {time.perf_counter() - started:.0f} s")

# %% [markdown]
# What came of it, over the trials: the loss on the training set, the share of the test set that is
# classified correctly (chance is 0.1), and how far the weights of the second layer have moved.

# %%
for (scheme, activation), trials in runs.items():
    accuracy = [run.observables["test_accuracy"][-1] for run in trials]
    print(
        f"{SCHEMES[scheme]:<7} {activation:<5} R = "
        + ", ".join(f"{run.final['loss']:.3f}" for run in trials)
        + f"   accuracy {min(accuracy):.2f} to {max(accuracy):.2f}"
        + f"   RD of W_2 {np.mean([run.relative_change['hidden_2'] for run in trials]):.1e}"
    )
    if scheme == "ip-llr":
        first = json.loads(trials[0].attributes["first_step"])["learning_rates"]
        print("        learning rates of its first step: " + ", ".join(f"{x:.3g}" for x in first))

# %%
LOOKS = {  # Okabe and Ito's colours, and lines that differ without them
    "ip": ("#999999", ":"),
    "ip-llr": ("#D55E00", "--"),
    "mup": ("#0072B2", "-"),
}
figure, panels = plt.subplots(
    2, len(VARIANCES), figsize=(10, 4.6), sharex=True, sharey="row", layout="constrained"
)
for column, activation in enumerate(VARIANCES):
    for scheme, name in SCHEMES.items():
        colour, line = LOOKS[scheme]
        for row, observable in enumerate(("loss", "test_accuracy")):
            axes = panels[row, column]
            for number, run in enumerate(runs[scheme, activation]):
                values = run.observables[observable]
                label = name if number == 0 else None
                axes.plot(run.observables["step"], values, line, color=colour, lw=1.3, label=label)
    panels[0, column].set_title(activation)
    panels[1, column].axhline(0.1, color="black", lw=0.6)
    panels[1, column].set_xlabel("step")
panels[0, 0].set(yscale="log", ylabel="$R$, softmax cross-entropy")
panels[1, 0].set(ylim=(0.0, 1.02), ylabel="accuracy on the test set\n(line: chance)")
panels[1, 0].legend(fontsize=8, loc="center right")
figure.savefig(FOLDER / "integrable.png", dpi=150)
