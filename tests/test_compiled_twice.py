"""Results are the same bits whether code was compiled in this process or comes from the cache."""

import os
import subprocess
import sys

import pytest

RUN = """
import hashlib, sys
import numpy as np
import flowsim as fs

network, methods = sys.argv[1], sys.argv[2:]
for method in methods:
    run = fs.simulate(
        network={"width": 300, "activation": "tanh", "kind": network},
        scaling={"gamma_3": 1.5} if network == "deep" else {"gamma": 1.0, "gamma_prime": 0.0},
        data={"kind": "points", "x": [[-0.5], [-0.1], [0.5]], "y": [0.25, 0.0, 0.3]},
        integrate={"method": method, "max_steps": 20},
        record={"snapshots": {"schedule": "none"}},
    )
    for name in ("input_weights", "output_weights"):
        print(method, name, hashlib.sha256(np.asarray(run.final[name]).tobytes()).hexdigest())
"""


@pytest.mark.parametrize(
    ("network", "methods"), [("two-layer", ("rdpk35", "bs32")), ("deep", ("heun",))]
)
def test_code_from_the_cache_gives_the_bits_of_code_just_compiled(tmp_path, network, methods):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (
        subprocess.run(
            [sys.executable, "-c", RUN, network, *methods],
            env=environment, capture_output=True, text=True, check=True,
        ).stdout
        for _ in range(2)
    )  # fmt: skip
    assert first.count("\n") == 2 * len(methods)
    assert first == second
