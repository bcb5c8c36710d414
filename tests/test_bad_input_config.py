"""Bad experiments get one line a mistake, with key, value and remedy, all at once."""

import datetime
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowsim.config import SECTIONS, load_experiment, load_grid
from flowsim.config.forms import keys_of
from flowsim.errors import ConfigError

GOOD = {
    "network": {"width": 10},
    "scaling": {"gamma": 1.0, "gamma_prime": 0.0},
    "data": {"kind": "points", "x": [0.0, 1.0], "y": [1.0, 2.0]},
}


def problems_of(source, *overrides, load=load_experiment):
    with pytest.raises(ConfigError) as caught:
        load(source, overrides)
    problems = caught.value.problems
    assert problems and all("\n" not in problem for problem in problems)
    assert str(caught.value) == "\n".join(problems)
    return problems


def with_section(name, values):
    return {**GOOD, name: values}


POINTS = {"kind": "points", "x": [0.0, 1.0], "y": [1.0, 2.0]}
FUNCTION = {"kind": "function", "function": "x", "n_samples": 3, "low": 0.0, "high": 1.0}
TEACHER = {"kind": "teacher", "width": 3, "n_samples": 4, "n_inputs": 2}

CASES = [
    # unknown keys
    ("network", {"width": 10, "widht": 3}, "network.widht = 3: unknown key; did you mean `width`?"),
    ("network", {"width": 10, "zzz": 3}, "network.zzz = 3: unknown key; the keys here are kind, w"),
    ("network", {"width": 10, "gamma": 3}, "network.gamma = 3: unknown key here; it belongs into "),
    ("network", {"width": 10, "mobility": {"inptu": 1}}, "network.mobility.inptu = 1: unknown key"),
    ("scaling", {"gamma": 1, "gama_prime": 0}, "scaling.gama_prime = 0: unknown key; did you mean"),
    ("scaling", {"shceme": "ntk"}, "scaling.shceme = \"ntk\": unknown key; did you mean `scheme`?"),
    ("data", {**POINTS, "function": "x"}, 'data.function = "x": unknown key; the keys here are'),
    ("record", {"observable": {}}, "record.observable = {}: unknown key; did you mean `observable"),
    # missing keys
    ("network", {}, "network.width: missing; add width = 1000"),
    ("scaling", {}, "scaling: missing; give (gamma, gamma_prime)"),
    ("scaling", {"gamma": 1}, "scaling.gamma_prime: missing; add gamma_prime = 0.0"),
    ("scaling", {"scheme": "e"}, 'scaling.beta: missing; scheme "e" needs it, for example beta = '),
    ("data", {}, 'data.kind: missing; add kind = "points"'),
    ("data", {"kind": "points", "x": [1]}, "data.y: missing; add y = "),
    ("data", {"kind": "file"}, 'data.path: missing; add path = "data.npz"'),
    ("record", {"kernel": {"schedule": "steps"}}, "record.kernel.every: missing; schedule \"steps"),
    # wrong types
    ("network", {"width": "10"}, 'network.width = "10": must be a whole number; for example width'),
    ("network", {"width": 10.5}, "network.width = 10.5: must be a whole number"),
    ("network", {"width": True}, "network.width = true: must be a whole number"),
    ("network", {"width": [10]}, "network.width = [10]: must be a whole number"),
    ("network", {"width": 10, "seed": 0.5}, "network.seed = 0.5: must be a whole number; the defa"),
    ("network", {"width": 10, "antisymmetric": 1}, "network.antisymmetric = 1: must be true or fa"),
    ("network", {"width": 10, "activation": 1}, "network.activation = 1: must be text in quotes; "),
    ("network", {"width": 10, "mobility": 1}, "network.mobility = 1: must be a table"),
    ("network", 3, "network = 3: must be a table; write [network]"),
    ("scaling", {"gamma": "1", "gamma_prime": 0}, 'scaling.gamma = "1": must be a number'),
    ("scaling", {"gamma": True, "gamma_prime": 0}, "scaling.gamma = true: must be a number"),
    ("data", {**POINTS, "x": "0 1"}, 'data.x = "0 1": must be a list of numbers'),
    ("data", {**POINTS, "x": [0, "1"]}, 'data.x = [0, "1"]: entry 1 is not a number'),
    ("data", {**POINTS, "y": [0, True]}, "data.y = [0, true]: entry 1 is not a number"),
    ("data", {**POINTS, "x": [10**400, 1]}, "data.x = [an integer of more than 20 digits, 1]: ent"),
    ("integrate", {"t_max": datetime.date(2020, 1, 1)}, "integrate.t_max = 2020-01-01: must be a "),
    ("record", {"observables": "log"}, 'record.observables = "log": must be a table'),
    ("record", {"observables": {"names": "loss"}}, 'record.observables.names = "loss": must be a '),
    ("record", {"separate": {"a b": 1}}, 'record.separate."a b" = 1: must be a table'),
    # out of range
    ("network", {"width": 0}, "network.width = 0: must be 1 or larger; for example width = 1000"),
    ("network", {"width": -5}, "network.width = -5: must be 1 or larger"),
    ("network", {"width": 10**30}, "network.width = an integer of more than 20 digits: must be 1e"),
    ("network", {"width": 10, "seed": -1}, "network.seed = -1: must be 0 or larger"),
    ("network", {"width": 10, "mobility": {"input": -1}}, "network.mobility.input = -1: must be 0"),
    ("network", {"width": 10, "mobility": {"input": 0, "output": 0}}, "network.mobility.output = "),
    ("scaling", {"gamma": float("nan"), "gamma_prime": 0}, "scaling.gamma = nan: must be finite"),
    ("scaling", {"gamma": 1, "gamma_prime": float("inf")}, "scaling.gamma_prime = inf: must be fi"),
    ("scaling", {"gamma": 500, "gamma_prime": 0}, "scaling.gamma = 500: kappa leaves the range"),
    ("scaling", {"alpha": -1, "beta1": 1, "beta2": 1}, "scaling.alpha = -1: must be larger than 0"),
    ("scaling", {"scheme": "ntk", "beta": 1}, 'scaling.beta = 1: scheme "ntk" has no such paramet'),
    ("scaling", {"gamma": 1, "scheme": "ntk"}, 'scaling: has both gamma = 1 and scheme = "ntk"; k'),
    ("integrate", {"rtol": 0}, "integrate.rtol = 0: must be larger than 0; the default is 0.001"),
    ("integrate", {"rtol": 1}, "integrate.rtol = 1: must be smaller than 1"),
    ("integrate", {"rtol": 1e-14}, "integrate.rtol = 1e-14: float64 holds no less than 1e-13; set"),
    ("integrate", {"rtol": 1e-7, "dtype": "float32"}, "integrate.rtol = 1e-07: float32 holds no l"),
    ("integrate", {"stop_loss": -1}, "integrate.stop_loss = -1: must be 0 or larger"),
    ("integrate", {"t_max": 0}, "integrate.t_max = 0: must be larger than 0; for example t_max = "),
    ("integrate", {"max_steps": 0}, "integrate.max_steps = 0: must be 1 or larger; for example"),
    ("integrate", {"threads": 0}, "integrate.threads = 0: must be 1 or larger; for example thread"),
    ("integrate", {"step": 0.1}, 'integrate.step = 0.1: method "auto" does not use it; remove it'),
    ("integrate", {"method": "dp54", "late_step_fraction": 0.1},
     "integrate.late_step_fraction = 0.1: method"),
    ("integrate", {"method": "dp54", "step_fraction": 0.1}, "integrate.step_fraction = 0.1: metho"),
    ("integrate", {"stop_loss": 0, "steady_slope": 0}, "integrate.steady_slope = 0: nothing would"),
    ("record", {"observables": {"per_decade": 0}}, "record.observables.per_decade = 0: must be la"),
    ("record", {"kernel": {"schedule": "steps", "every": 1.5}}, "record.kernel.every = 1.5: must "),
    ("record", {"kernel": {"schedule": "log", "every": 2}}, "record.kernel.every = 2: unknown key"),
    ("record", {"snapshots": {"schedule": "none", "start": 2}}, "record.snapshots.start = 2: unkn"),
    # unknown choices
    ("network", {"width": 10, "kind": "depe"}, 'network.kind = "depe": unknown; choose from "two-'),
    ("network", {"width": 10, "activation": "rellu"}, 'network.activation = "rellu": unknown; did'),
    ("network", {"width": 10, "activation": "RELU"}, 'network.activation = "RELU": unknown; did y'),
    ("scaling", {"scheme": "nkt"}, 'scaling.scheme = "nkt": unknown; choose from "lecun",'),
    ("data", {"kind": "point"}, 'data.kind = "point": unknown; choose from "points", "function"'),
    ("data", {"kind": ["points"]}, 'data.kind = ["points"]: unknown; choose from "points", "funct'),
    ("data", {**TEACHER, "activation": "relu6"}, 'data.activation = "relu6": unknown; did you mea'),
    ("integrate", {"method": "rk45"}, 'integrate.method = "rk45": unknown; did you mean "rdpk35"?'),
    ("integrate", {"dtype": "float16"}, 'integrate.dtype = "float16": unknown; choose from "float'),
    ("integrate", {"backend": "gpu"}, 'integrate.backend = "gpu": unknown; choose from "auto"'),
    ("integrate", {"device": 0}, 'integrate.device = 0: backend = "cpu" computes on none; remove'),
    ("integrate", {"device": -1}, "integrate.device = -1: must be 0 or larger"),
    ("record", {"kernel": {"schedule": "lin"}}, 'record.kernel.schedule = "lin": unknown; choose'),
    # data
    ("data", {**POINTS, "x": [0.0, float("nan")]}, "data.x[1] = nan: not finite; correct or remov"),
    ("data", {**POINTS, "y": [float("-inf"), 1.0]}, "data.y[0] = -inf: not finite; correct or rem"),
    ("data", {**POINTS, "y": [1.0]}, "data.y: has 1 values but x has 2 samples; give one target"),
    ("data", {**POINTS, "x": [[1], [1, 2]]}, "data.x: is not rectangular; give every sample"),
    ("data", {**POINTS, "x": [], "y": []}, "data.x: is empty"),
    ("data", {**POINTS, "y": [[1, 2], [3, 4]]}, "data.y: has 2 columns, but the network h"),
    ("data", {**POINTS, "x_test": [1]}, "data.y_test: missing beside x_test; give both or neither"),
    ("data", {**FUNCTION, "function": "eval('x')"}, "data.function = \"eval('x')\": unknown funct"),
    ("data", {**FUNCTION, "n_samples": 0}, "data.n_samples = 0: must be 1 or larger; for example"),
    ("data", {**FUNCTION, "high": 0.0}, "data.high = 0.0: must be larger than low = 0; exchange t"),
    ("data", {**FUNCTION, "noise": -1}, "data.noise = -1: must be 0 or larger; the default is 0.0"),
    ("data", {**FUNCTION, "function": "x0", "n_inputs": 2}, 'data.sampling: "grid" is for n_input'),
    ("data", {**FUNCTION, "function": "x", "n_inputs": 2, "sampling": "random"}, "data.function ="),
    ("data", {**TEACHER, "width": -3}, "data.width = -3: must be 1 or larger; for example width ="),
    ("data", {"kind": "arrays", "sha256": "0", "n_samples": 1}, 'data.sha256 = "0": '),
]  # fmt: skip


@pytest.mark.parametrize(("section", "values", "expected"), CASES)
def test_message(section, values, expected):
    problems = problems_of(with_section(section, values))
    matching = [problem for problem in problems if problem.startswith(expected)]
    assert matching, "\n".join(problems)
    assert len(problems) <= 3


@pytest.mark.parametrize("section", ["network", "scaling", "data"])
def test_missing_section(section):
    (problem,) = problems_of({key: GOOD[key] for key in GOOD if key != section})
    assert re.match(rf"{section}[.:]", problem) and "missing" in problem


def test_unknown_and_misplaced_sections():
    assert problems_of({**GOOD, "netwrok": {}, "width": 3, "foo": 4, "rtol": 1e-3, "a\nb": 1}) == [
        "netwrok: unknown section; did you mean `network`?",
        "width = 3: outside of any section; move it into [network] or [data]",
        "foo = 4: unknown section; the sections are network, scaling, data, integrate, record",
        "rtol = 0.001: outside of any section; move it into [integrate]",
        '"a\\nb" = 1: unknown section; the sections are network, scaling, data, integrate, record',
    ]


def test_width_one_has_no_scheme():
    (problem,) = problems_of(
        {**GOOD, "network": {"width": 1}, "scaling": {"alpha": 2, "beta1": 1, "beta2": 1}}
    )
    assert problem.startswith("network.width = 1: log m = 0")


def test_all_mistakes_at_once(tmp_path):
    problems = problems_of(
        {
            "network": {"widht": -3, "activation": "rellu"},
            "scaling": {"gamma": "a"},
            "data": {"kind": "file", "path": str(tmp_path / "none.npz")},
            "integrate": {"rtol": 1e-20, "dtpye": "float32"},
            "record": {"snapshots": {"schedule": "often"}},
            "recrod": {},
        },
        "network.width.x.y=3",
        "nonsense",
    )
    keys = [re.match(r'[\w."]+', problem).group() for problem in problems]
    assert keys == [
        '"nonsense"', "recrod", "network.width", "network.activation", "network.widht",
        "scaling.gamma", "scaling.gamma_prime", "integrate.rtol", "integrate.dtpye",
        "record.snapshots.schedule", "data.path",
    ]  # fmt: skip


def test_data_file_mistakes_come_with_the_others(tmp_path):
    np.savez(tmp_path / "d.npz", x=[1.0, np.nan], y=["a", "b"])
    sections = {**GOOD, "data": {"kind": "file", "path": str(tmp_path / "d.npz")}}
    expected = ['data.y = "y": holds <U1 values, not real numbers; save a float64 array']
    assert problems_of({**sections, "network": {"width": 0}})[1:] == expected
    with pytest.raises(ConfigError) as caught:
        load_experiment(sections).make_dataset()
    assert caught.value.problems == expected


# Overrides and files


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("scaling.gamma", '"scaling.gamma": must be key=value, such as scaling.gamma=1.2'),
        ("=3", '"=3": must be key=value'),
        ("network.width.x=3", "network.width.x = 3: network.width is no table"),
        ("network.widht=3", "network.widht = 3: unknown key; did you mean `width`?"),
        ("network.width=ten", 'network.width = "ten": must be a whole number'),
        ("network.width=", 'network.width = "": must be a whole number'),
        ("network.width=1\nseed=3", 'network.width = "1\\nseed=3": must be a whole number'),
        ("width=3", "width = 3: outside of any section"),
        ("network=3", "network = 3: must be a table"),
        ("..=3", '"": unknown section'),
        ("network.seed=1e400", "network.seed = inf: must be a whole number"),
        ("network.seed=" + "9" * 5000, 'network.seed = "9999'),
    ],
)
def test_wrong_overrides(override, expected):
    (problem,) = problems_of(GOOD, override)
    assert problem.startswith(expected), problem


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[network]\nwidth = \n", "not valid TOML: .*line 2.*; mend that line"),
        (b"[network]\n[network]\n", "not valid TOML: .*line 2"),
        (b"width = 1\nwidth = 2\n", "not valid TOML: .*line 2"),
        (b"a = 1\nb = '\xff'\n", "line 2: not UTF-8 text; save the file as UTF-8"),
        (b"a = " + b"[" * 100000, "nested too deeply|not valid TOML"),
        (b"a = " + b"9" * 5000, "holds a number too long"),
        (b".".join([b"a"] * 5000) + b" = 1", "experiment: nested more than"),
        (b"\x89HDF\r\n\x1a\n", "not UTF-8"),
    ],
)
def test_wrong_files(tmp_path, content, expected):
    path = tmp_path / "e.toml"
    path.write_bytes(content)
    for load in (load_experiment, load_grid):
        (problem,) = problems_of(path, load=load)
        assert re.search(expected, problem), problem


def test_unreadable_files(tmp_path):
    assert problems_of(tmp_path / "no.toml") == [
        f"{tmp_path}/no.toml: cannot be read (No such file or directory); check the path"
    ]
    assert "Is a directory" in problems_of(tmp_path)[0]
    assert "null byte" in problems_of("a\0b")[0]


def test_oversized_file(tmp_path):
    path = tmp_path / "e.toml"
    with path.open("wb") as file:
        file.truncate(2**26 + 1)
    assert "keep large data in an npz file" in problems_of(path)[0]


def test_other_sources():
    circle = {}
    circle["network"] = circle
    assert "nested more than" in problems_of(circle)[0]


# Garbage

KEYS = sorted(
    {key for section in SECTIONS for key in keys_of(section)} | {"input", "every", "names"}
)
CHOICES = ["relu", "ntk", "e", "points", "function", "teacher", "file", "arrays", "log", "steps",
           "none", "float32", "euler", "x**2", "a.npz", "two-layer", "", "a\nb"]  # fmt: skip
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-3, 40),
    st.sampled_from([2**63, -(10**30), 10**400]),
    st.floats(),
    st.sampled_from(CHOICES),
    st.text(max_size=5),
    st.dates(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
TABLES = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), VALUES, max_size=6)
GARBAGE = st.dictionaries(
    st.sampled_from([*SECTIONS, "grid"]) | st.text(max_size=4), TABLES | VALUES, max_size=6
)
NEARLY_GOOD = st.fixed_dictionaries(
    {},
    optional={
        "network": TABLES.map(lambda table: {"width": 10, **table}),
        "scaling": TABLES.map(lambda table: {"scheme": "ntk", **table}) | TABLES,
        "data": TABLES.map(lambda table: {**POINTS, **table})
        | TABLES.map(lambda table: {**FUNCTION, **table})
        | TABLES.map(lambda table: {**TEACHER, **table}),
        "integrate": TABLES,
        "record": TABLES,
    },
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(GARBAGE | NEARLY_GOOD.map(lambda sections: {**GOOD, **sections}))
def test_garbage_gives_nothing_but_config_errors(sections):
    try:
        experiment = load_experiment(sections)
        load_grid(sections)
    except ConfigError as error:
        assert error.problems
        assert all(problem and "\n" not in problem for problem in error.problems)
    else:
        assert load_experiment(experiment.to_dict()) == experiment


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80) | st.text(alphabet='ab.=[]{}"\n1e,-#', max_size=60).map(str.encode))
def test_garbage_files_give_nothing_but_config_errors(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "garbage.toml"
    path.write_bytes(content)
    problems_of(path)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20), st.sampled_from(["network.width=", "scaling.", "data.x=", ""]))
def test_garbage_overrides_give_nothing_but_config_errors(text, start):
    try:
        load_experiment(GOOD, [start + text])
    except ConfigError as error:
        assert all("\n" not in problem for problem in error.problems)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (None, 'network.kind: missing; add kind = "deep"'),
        ("dep", "network.kind = \"dep\": must be 'deep' beside these keys; for example kind = "),
        (["deep"], "network.kind = [\"deep\"]: must be 'deep' beside these keys"),
    ],
)
def test_a_forgotten_kind_of_network_is_the_only_mistake(kind, wrong):
    network = {"width": 5, "hidden_layers": 2, "kind": kind}
    (problem,) = problems_of({**GOOD, "network": network, "scaling": {"scheme": "mup"}})
    assert problem.startswith(wrong)
