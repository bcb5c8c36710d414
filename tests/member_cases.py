"""Runs that are carried out as members of ensembles, for the tests of every backend that does."""

import flowsim as fs

BASE = {
    "network": {"width": 100},
    "scaling": {"gamma": 1.0, "gamma_prime": 0.0},
    "data": {"kind": "points", "x": [[-0.5], [-0.1], [0.2], [0.5]], "y": [0.25, 0.0, 0.1, 0.3]},
    "integrate": {"stop_loss": 1e-4, "max_steps": 3000},
}


def experiment(seed=0, base=BASE, **overrides):
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return fs.load_experiment(base, overrides={"network.seed": seed, **dotted})


CASES = {
    "default": {},
    "antisymmetric": {"network__antisymmetric": True, "scaling__gamma": 1.5},
    "lazy": {"scaling__gamma": 0.5, "scaling__gamma_prime": 0.2},
    "euler": {"integrate__method": "euler"},
    "late steps": {"integrate__method": "euler", "integrate__step_fraction": 1.0,
                   "integrate__late_step_fraction": 1.9, "network__antisymmetric": True},
    "float32": {"integrate__dtype": "float32"},
    "leaky": {"network__activation": "leaky_relu"},
    "linear": {"network__activation": "linear", "integrate__method": "heun",
               "integrate__max_steps": 25},
    "several blocks": {"network__width": 1100},
    "one neuron": {"network__width": 1, "integrate__max_steps": 100},
    "t_max": {"integrate__t_max": 20.0},
    "max_steps": {"integrate__max_steps": 30},
    "solved at once": {"integrate__stop_loss": 10.0},
    "steady": {"integrate__steady_min_time": 1.0, "integrate__steady_slope": 0.5},
    "frozen": {"network__mobility": {"input": 0.0}},
    "linear rows": {"record__observables": {"schedule": "linear", "every": 0.7},
                    "integrate__t_max": 40.0},
    "no rows": {"record__observables": {"schedule": "none"},
                "record__snapshots": {"schedule": "none"}},
    "rows from a start": {"record__observables": {"schedule": "log", "per_decade": 7,
                                                  "start": 0.5}},
    "dense snapshots": {"record__snapshots": {"schedule": "log", "per_decade": 9,
                                              "dtype": "float64"}},
    "some observables": {"record__observables": {"names": ["loss", "relative_change"]}},
}  # fmt: skip
