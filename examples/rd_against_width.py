# %% [markdown]
# # Relative change against width
#
# The three lines of Luo, Xu, Ma & Zhang (2021): at gamma = 0.5, 1 and 1.75 (gamma' = 0) the
# relative change RD of the input weights falls, stays and grows with the width m. The slope of
# log RD against log m tells the regime.
#
# All of it: 3 values of gamma x 5 widths x 5 seeds = 75 runs. With `--quick`: 3 widths, 2 seeds.

# %%
import sys
import time
from pathlib import Path

import numpy as np

import flowsim as fs

QUICK = "--quick" in sys.argv
FOLDER = Path("rd_against_width")
FOLDER.mkdir(exist_ok=True)

GAMMAS = [0.5, 1.0, 1.75]
WIDTHS = [1000, 2000, 5000] if QUICK else [1000, 5000, 10000, 20000, 40000]
SEEDS = 2 if QUICK else 5

# Read off the published figure: RD at each width, and the slope.
PUBLISHED = {
    0.5: ([8.85e-3, 3.76e-3, 2.74e-3, 1.92e-3, 1.36e-3], -0.50),
    1.0: ([0.262, 0.270, 0.269, 0.263, 0.272], 0.00),
    1.75: ([7.98, 13.4, 18.4, 23.9, 31.0], 0.38),
}

# %% [markdown]
# Four points of y = x^2, two copies of the neurons with opposite output weights (f = 0 at first),
# and the loss followed down to R = 1e-5. Only the ends are kept.

# %%
x = np.array([-0.5, -1 / 6, 1 / 6, 0.5])
started = time.perf_counter()
result = fs.sweep(
    {
        "network": {"width": 1000, "antisymmetric": True},
        "scaling": {"gamma": 1.0, "gamma_prime": 0.0},
        "data": {"kind": "points", "x": x[:, None].tolist(), "y": (x**2).tolist()},
        "integrate": {"stop_loss": 1e-5},
        "record": {"observables": {"schedule": "none"}, "snapshots": {"schedule": "none"}},
    },
    grid={"scaling.gamma": GAMMAS, "network.width": WIDTHS, "seeds": SEEDS},
)
seconds = time.perf_counter() - started
print(f"{len(result)} runs in {seconds:.1f} s")

# %%
classification = fs.classify(result)
for point in classification.points:
    verdict = point.layers["input"]
    published, slope = PUBLISHED[point.gamma]
    low, high = verdict.ci
    print(
        f"gamma = {point.gamma:<5} S = {verdict.slope:+.3f} [{low:+.3f}, {high:+.3f}]"
        f"  (published {slope:+.2f})  {verdict.regime}, predicted {verdict.predicted_regime}"
    )
    if not QUICK:
        for width, change, expected in zip(
            point.widths, verdict.relative_change, published, strict=True
        ):
            print(
                f"    m = {width:>6}  RD = {change:.4g}"
                f"  published {expected:.4g}  {change / expected - 1:+.1%}"
            )

# %%
print(fs.plot("rd", list(result), FOLDER / "rd_against_width.png"))
