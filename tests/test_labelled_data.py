"""Choice of samples, encoding of classes, normalisation, and what is computed at random."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

import flowsim as fs
from flowsim import data
from flowsim.config.data_section import DATA_KINDS
from flowsim.data.generated import DISTRIBUTIONS
from flowsim.data.labelled import Choice, LabelledSamples, from_labelled
from flowsim.data.normalisation import NORMALISATIONS, find_normalisation
from flowsim.errors import ConfigError
from flowsim.kernels.activations import ACTIVATIONS


def numbered(labels):
    """Samples whose input is their number."""
    return LabelledSamples(np.arange(len(labels))[:, None], np.asarray(labels))


def choose(train, test=None, **choice):
    return from_labelled(train, test, Choice(**choice), bias=False)


def problems_of(call, *args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        call(*args, **kwargs)
    assert all("\n" not in problem and ";" in problem for problem in caught.value.problems)
    return caught.value.problems


def rows(x):
    return x[:, 0].astype(int).tolist()


# Which samples


@st.composite
def choices(draw):
    labels = draw(st.lists(st.integers(0, 3), min_size=4, max_size=40))
    classes = draw(st.permutations(sorted(set(labels))).map(lambda c: c[: 1 + len(c) // 2]))
    balanced = draw(st.booleans())
    counts = [labels.count(c) for c in classes]
    room = len(classes) * min(counts) if balanced else sum(counts)
    unit = len(classes) if balanced else 1
    n_samples = unit * draw(st.integers(1, room // unit))
    n_test = unit * draw(st.integers(0, (room - n_samples) // unit))
    seed = draw(st.integers(0, 5))
    return labels, {
        "classes": classes, "n_samples": n_samples, "n_test": n_test, "balanced": balanced,
        "seed": seed, "target": "label",
    }  # fmt: skip


@settings(deadline=None)
@given(choices())
def test_samples_that_are_chosen(drawn):
    labels, choice = drawn
    train = numbered(labels)
    chosen = choose(train, **choice)
    taken = rows(chosen.x)
    assert len(taken) == choice["n_samples"] and taken == sorted(set(taken))
    np.testing.assert_array_equal(chosen.y, np.asarray(labels)[taken])
    assert set(chosen.y) <= set(choice["classes"])
    tested = [] if chosen.x_test is None else rows(chosen.x_test)
    assert len(tested) == choice["n_test"] and not set(tested) & set(taken)
    if choice["balanced"]:
        share = choice["n_samples"] // len(choice["classes"])
        assert all(np.sum(chosen.y == label) == share for label in choice["classes"])
    # The same again; and without test samples, or with test samples of their own.
    assert choose(train, **choice).digest() == chosen.digest()
    assert rows(choose(train, **choice | {"n_test": 0}).x) == taken
    apart = choose(train, numbered(labels), **choice)
    assert rows(apart.x) == taken
    assert (apart.x_test is None) == (choice["n_test"] == 0)


@settings(deadline=None)
@given(choices())
def test_fewer_samples_are_a_part_of_more(drawn):
    labels, choice = drawn
    unit = len(choice["classes"]) if choice["balanced"] else 1
    assume(choice["n_samples"] > unit)
    more = choose(numbered(labels), **choice | {"n_test": 0})
    fewer = choose(
        numbered(labels), **choice | {"n_test": 0, "n_samples": choice["n_samples"] - unit}
    )
    assert set(rows(fewer.x)) < set(rows(more.x))


def test_everything_by_default_but_what_is_tested_on():
    labels = np.arange(30) % 3
    everything = choose(numbered(labels), target="label")
    assert rows(everything.x) == list(range(30)) and everything.x_test is None
    split = choose(numbered(labels), target="label", n_test=10)
    assert sorted(rows(split.x) + rows(split.x_test)) == list(range(30))
    own = choose(numbered(labels), numbered(labels), target="label", n_test=10)
    assert rows(own.x) == list(range(30)) and len(own.x_test) == 10


def test_the_seed_draws_the_samples():
    labels = np.zeros(100, int)
    first, second = (
        rows(choose(numbered(labels), n_samples=10, seed=seed, target="label").x) for seed in (0, 1)
    )
    assert first != second


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"n_samples": 0}, "n_samples = 0: must be 1 or larger"),
        ({"n_samples": 31}, "n_samples = 31: there are 30 to choose from; take fewer"),
        ({"n_test": -1}, "n_test = -1: must be 0 or larger"),
        ({"n_test": 30}, "n_test = 30: there are 29 to choose from"),
        ({"n_samples": 20, "n_test": 11}, "n_test = 11: there are 10 to choose from"),
        ({"classes": [0, 1], "n_samples": 21}, "n_samples = 21: there are 20 to choose from"),
        ({"balanced": True}, "balanced = true: needs a number of samples; give n_samples"),
        ({"balanced": True, "n_samples": 4}, "n_samples = 4: cannot be the same number of 3"),
        ({"balanced": True, "n_samples": 3, "n_test": 1}, "n_test = 1: cannot be the same number"),
        ({"target": "labels"}, 'target = "labels": unknown; choose from "sign", "label"'),
        ({"target": "sign"}, 'target = "sign": is for two classes, not for 3'),
    ],
)
def test_wrong_choices(choice, expected):
    samples = numbered(np.arange(30) % 3)
    (problem,) = problems_of(choose, samples, **{"target": "label"} | choice)
    assert problem.startswith(expected)


def test_too_few_of_a_separate_test_set():
    train, test = numbered(np.arange(30) % 3), numbered(np.arange(6) % 3)
    (problem,) = problems_of(choose, train, test, classes=[0, 1], n_test=5)
    assert problem.startswith("n_test = 5: there are 4 to choose from")


def test_all_problems_of_a_choice_at_once():
    problems = problems_of(choose, numbered([0, 1]), classes=[0, 0, 7], target="no", balanced=True)
    assert [problem.split(" = ")[0] for problem in problems] == [
        "classes", "classes", "target", "balanced",
    ]  # fmt: skip


def test_numbers_that_are_too_many_to_be_classes():
    samples = numbered(np.arange(50_000))
    (problem,) = problems_of(choose, samples, target="label")
    assert problem == "classes: are 50000, at most 1000 are possible; choose some of them"
    (problem,) = problems_of(choose, samples, target="label", classes=[0] * 10**5)
    assert problem.startswith("classes: are 100000, at most 1000")
    (problem,) = problems_of(choose, samples, target="label", classes=[*range(20), 60_000])
    assert problem == (
        "classes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ...]: there is no sample of class 60000; "
        "choose from 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ..."
    )
    assert len(choose(samples, target="label", classes=[7, 40_000]).y) == 2


def test_one_hot_targets_that_would_fill_the_memory():
    labels = np.arange(10**6) % 1000
    samples = LabelledSamples(np.broadcast_to(0.0, (10**6, 1)), labels)
    (problem,) = problems_of(choose, samples, target="one-hot")
    assert problem.startswith('target = "one-hot": makes more than 268435456 numbers of 1000000')


def test_labels_and_samples_must_go_together():
    with pytest.raises(ConfigError, match="labels: float64 of shape"):
        LabelledSamples(np.zeros((2, 1)), np.zeros(2))
    with pytest.raises(ConfigError, match="x: has shape .3, 1., but there are 2 labels"):
        LabelledSamples(np.zeros((3, 1)), np.zeros(2, int))


# Which targets


@pytest.mark.parametrize(
    ("choice", "targets"),
    [
        ({"classes": [5, 2]}, [-1.0, 1.0, -1.0]),
        ({"classes": [2, 5]}, [1.0, -1.0, 1.0]),
        ({"positive_class": 7}, [-1.0, -1.0, -1.0, 1.0]),
        ({"classes": [7, 2], "positive_class": 7}, [-1.0, 1.0]),
        ({"target": "label"}, [5.0, 2.0, 5.0, 7.0]),
        ({"target": "one-hot"}, [[0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        ({"target": "one-hot", "classes": [7, 5]}, [[0, 1], [0, 1], [1, 0]]),
        ({"target": "one-hot", "classes": [5]}, [1.0, 1.0]),
    ],
)
def test_encodings(choice, targets):
    chosen = choose(numbered([5, 2, 5, 7]), **choice)
    np.testing.assert_array_equal(chosen.y, targets)
    assert chosen.n_outputs == (1 if np.ndim(targets) == 1 else np.shape(targets)[1])
    assert chosen.notes["target"] == choice.get("target", "sign")
    assert chosen.notes.get("positive_class") == choice.get("positive_class")


def test_test_samples_are_encoded_alike():
    chosen = choose(numbered([1, 2]), numbered([2, 1]), n_test=2)
    np.testing.assert_array_equal(chosen.y_test, [1.0, -1.0])
    assert chosen.notes["classes"] == "1, 2"


# Normalisation

X = np.array([[1.0, 5.0, 2.0], [3.0, 5.0, -2.0], [5.0, 5.0, 6.0]])
X_TEST = np.array([[2.0, 6.0, 0.0]])


def normalised(name, **options):
    return data.from_arrays(X, [0, 1, 2], X_TEST, [1], normalise=name, **options)


def test_standardise():
    made = normalised("standardise")
    np.testing.assert_allclose(made.x[:, :3].mean(axis=0), 0.0, atol=1e-15)
    np.testing.assert_allclose(made.x[:, [0, 2]].std(axis=0), 1.0, rtol=1e-15)
    np.testing.assert_array_equal(made.x[:, 1], 0.0)  # a constant has no scale
    np.testing.assert_allclose(
        made.x_test, [[(2 - 3) / np.sqrt(8 / 3), 1.0, (0 - 2) / np.sqrt(32 / 3), 1.0]], rtol=1e-14
    )


def test_standardise_global():
    made = normalised("standardise-global", bias=False)
    np.testing.assert_allclose(made.x, (X - X.mean()) / X.std(), rtol=1e-14)
    np.testing.assert_allclose(made.x_test, (X_TEST - X.mean()) / X.std(), rtol=1e-14)


def test_unit_norm():
    made = data.from_arrays([[3.0, 4.0], [0.0, 0.0], [1e200, 0.0], [0.0, -1e-300]], [0, 1, 2, 3],
                            [[0.0, 5.0]], [1], False, normalise="unit-norm")  # fmt: skip
    np.testing.assert_allclose(made.x, [[0.6, 0.8], [0, 0], [1, 0], [0, -1]], rtol=1e-15)
    np.testing.assert_array_equal(made.x_test, [[0.0, 1.0]])
    assert made.normalisation.shift is None


def test_unit_scale_is_of_what_a_pixel_can_be():
    made = normalised("unit-scale", full_scale=10.0, bias=False)
    np.testing.assert_array_equal(made.x, X / 10.0)
    of_bytes = data.from_arrays(X.astype(np.uint8), [0, 1, 2], bias=False, normalise="unit-scale")
    np.testing.assert_array_equal(of_bytes.x, X.astype(np.uint8) / 255.0)
    (problem,) = problems_of(normalised, "unit-scale")
    assert problem.startswith('normalise = "unit-scale": is for images')


def test_the_bias_stays_1():
    for name in ("none", "standardise", "standardise-global", "unit-norm"):
        np.testing.assert_array_equal(normalised(name).x[:, 3], 1.0)


def test_inputs_that_cannot_be_normalised():
    (problem,) = problems_of(data.from_arrays, [[1e200], [-1e200]], [0, 1], normalise="standardise")
    assert problem.startswith('normalise = "standardise": the variance is beyond float64')
    (problem,) = problems_of(data.from_arrays, X, [0, 1, 2], normalise="standardize")
    assert problem.startswith('normalise = "standardize": unknown; choose from "none"')


@settings(deadline=None)
@given(
    st.sampled_from(sorted(NORMALISATIONS)),
    st_numpy.arrays(
        np.float64, st.tuples(st.integers(1, 6), st.integers(1, 4)), elements=st.floats(-1e6, 1e6)
    ),
)
def test_normalised_inputs_are_finite_and_can_be_had_again(name, x):
    found = find_normalisation(name, x, 255.0)
    done = found.apply(x)
    assert done.shape == x.shape and np.isfinite(done).all()
    if found.shift is not None:
        back = done * found.scale + found.shift
        np.testing.assert_allclose(back, x, rtol=1e-12, atol=1e-12 * (1 + np.abs(x).max()))
    # A sample by itself is treated as it is among the others.
    np.testing.assert_array_equal(found.apply(x[:1]), done[:1])


def section(**given):
    return {"network": {"width": 5}, "scaling": {"scheme": "ntk"}, "data": given}


FUNCTION = {"kind": "function", "function": "x", "n_samples": 4, "low": 0.0, "high": 4.0}


@pytest.mark.parametrize(
    "given",
    [
        {"kind": "points", "x": [[1.0, 2.0], [3.0, 5.0]], "y": [0.0, 1.0]},
        FUNCTION,
        {"kind": "teacher", "width": 3, "n_samples": 6, "n_inputs": 2},
        {"kind": "random", "n_samples": 6, "n_inputs": 2},
    ],
)
def test_every_kind_can_be_normalised(given):
    plain = fs.load_experiment(section(**given))
    made = plain.with_overrides({"data.normalise": "standardise"})
    assert made.hash() != plain.hash() and "normalise" not in plain.to_toml()
    before, after = plain.make_dataset(), made.make_dataset()
    np.testing.assert_array_equal(before.y, after.y)
    np.testing.assert_allclose(after.x[:, :-1].std(axis=0), 1.0, rtol=1e-12)
    with pytest.raises(ConfigError, match='data.normalise = "unit-scale": is for images'):
        plain.with_overrides({"data.normalise": "unit-scale"}).make_dataset()


def test_arrays_of_a_file_can_be_normalised(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, y=[0, 1, 2])
    made = fs.load_experiment(
        section(kind="file", path=str(tmp_path / "a.npz"), normalise="standardise-global")
    )
    np.testing.assert_allclose(made.make_dataset().x[:, :3].std(), 1.0, rtol=1e-12)


def test_arrays_of_a_script_are_normalised_if_the_section_says_so():
    options = {
        "network": {"width": 5}, "scaling": {"scheme": "ntk"}, "data": {"normalise": "unit-norm"},
        "integrate": {"max_steps": 1, "threads": 1},
    }  # fmt: skip
    run = fs.simulate(**options, x=[[3.0, 4.0]], y=[1.0])
    np.testing.assert_array_equal(run.data["x"], [[0.6, 0.8, 1.0]])
    assert run.data.attributes["normalisation"] == "unit-norm"
    swept = fs.sweep(options, grid={"seeds": 2}, x=[[3.0, 4.0]], y=[1.0], workers=1)
    np.testing.assert_array_equal(swept.runs[1].data["x"], [[0.6, 0.8, 1.0]])
    with pytest.raises(ConfigError, match="normalise = .*: unknown; choose from"):
        fs.simulate(**options | {"data": {"normalise": ["unit-norm"]}}, x=[1.0], y=[1.0])


# Files with labels


@pytest.fixture
def images(tmp_path):
    """A file with images as bytes and labels, as Keras's mnist.npz has them."""
    pixels = np.arange(60 * 6).reshape(60, 2, 3) % 256
    np.savez(
        tmp_path / "images.npz", x_train=pixels.astype(np.uint8), y_train=np.arange(60) % 10,
        x_test=pixels[:20].astype(np.uint8), y_test=np.arange(20) % 10,
        column=np.arange(60.0)[:, None] % 10, flags=np.arange(60) % 2 == 1, none=np.arange(60) / 4,
        no_images=np.zeros((0, 2, 3)),
        matrix=np.zeros((60, 2)), nan=np.full(60, np.nan), empty=np.zeros(0),
    )  # fmt: skip
    return section(kind="file", path=str(tmp_path / "images.npz"), x="x_train", y="y_train")


TESTED = {"data.x_test": "x_test", "data.y_test": "y_test"}


def test_labels_of_a_file(images):
    made = fs.load_experiment(
        images,
        {"data.target": "sign", "data.classes": [3, 8], "data.normalise": "unit-scale", **TESTED},
    ).make_dataset()
    assert made.x.shape == (12, 7) and made.x_test.shape == (4, 7)
    np.testing.assert_array_equal(made.x[0, :6] * 255.0, np.arange(18, 24))
    np.testing.assert_array_equal(made.y, [-1.0, 1.0] * 6)
    np.testing.assert_array_equal(made.y_test, [-1.0, 1.0] * 2)
    assert made.kind == "file" and made.notes["classes"] == "3, 8"
    split = fs.load_experiment(
        images, {"data.target": "label", "data.n_samples": 20, "data.n_test": 10,
                 "data.balanced": True, "data.seed": 1},
    ).make_dataset()  # fmt: skip
    assert sorted(split.y) == sorted([*range(10)] * 2) and sorted(split.y_test) == [*range(10)]


def test_images_of_a_file_become_rows_with_other_targets_too(images):
    made = fs.load_experiment(images, {"data.y": "none"}).make_dataset()
    assert made.x.shape == (60, 7) and made.y[1] == 0.25


@pytest.mark.parametrize(("name", "classes"), [("column", "0, 1, 2"), ("flags", "0, 1")])
def test_labels_of_other_types(images, name, classes):
    made = fs.load_experiment(images, {"data.y": name, "data.target": "label"}).make_dataset()
    assert made.notes["classes"].startswith(classes)


@pytest.mark.parametrize("name", ["none", "matrix", "nan", "empty"])
def test_labels_that_are_none(images, name):
    made = fs.load_experiment(images, {"data.y": name, "data.target": "label"})
    (problem,) = problems_of(made.make_dataset)
    assert problem.startswith(f'data.y = "{name}": holds no labels; give a whole number')


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"data.classes": [1]}, "data.classes = [1]: is for labels; say what stands for them"),
        ({"data.n_samples": 3}, "data.n_samples = 3: is for labels"),
        ({"data.seed": 3}, "data.seed = 3: is for labels"),
        ({"data.target": "signs"}, 'data.target = "signs": unknown; choose from "sign", "label"'),
    ],
)
def test_choices_without_labels(images, change, expected):
    (problem,) = problems_of(fs.load_experiment, images, change)
    assert problem.startswith(expected)


def test_test_arrays_of_a_file_go_together(images):
    made = fs.load_experiment(images, {"data.target": "label", "data.x_test": "x_test"})
    assert problems_of(made.make_dataset) == [
        "data.y_test: missing beside x_test; give both or neither"
    ]
    made = fs.load_experiment(images, {"data.target": "label", "data.y": "y_test"})
    (problem,) = problems_of(made.make_dataset)
    assert problem.startswith("data.x: has shape (60, 6), but there are 20 labels")
    for target in ({}, {"data.target": "label"}):
        made = fs.load_experiment(images, {"data.x": "no_images", **target})
        (problem,) = problems_of(made.make_dataset)
        assert problem.startswith("data.x: has shape (0, 2, 3)")


# Functions, teachers and targets at random


@pytest.mark.parametrize("n_inputs", [1, 2, 50])
def test_random_inputs(n_inputs):
    generator = np.random.default_rng(0)
    sphere = DISTRIBUTIONS["sphere"](generator, 2000, n_inputs)
    np.testing.assert_allclose(np.linalg.norm(sphere, axis=1), 1.0, rtol=1e-14)
    gaussian = DISTRIBUTIONS["gaussian"](generator, 2000, n_inputs)
    for x, variance in ((sphere, 1.0 / n_inputs), (gaussian, 1.0)):
        # Five standard errors.
        assert np.abs(x.mean(axis=0)).max() < 5.0 * np.sqrt(variance / 2000)
        assert np.abs(x.var() / variance - 1.0) < 5.0 * np.sqrt(2.0 / 2000)


@pytest.mark.parametrize("sampling", sorted(DISTRIBUTIONS))
def test_a_function_of_random_inputs(sampling):
    made = fs.load_experiment(
        section(kind="function", function="x0*x1", n_inputs=3, n_samples=5, sampling=sampling,
                n_test=2, seed=3)
    ).make_dataset()  # fmt: skip
    np.testing.assert_array_equal(made.y, made.x[:, 0] * made.x[:, 1])
    expected = DISTRIBUTIONS[sampling](np.random.default_rng(3), 5, 3)
    np.testing.assert_array_equal(made.x[:, :3], expected)
    assert made.x_test.shape == (2, 4)


def test_an_interval_belongs_to_some_samplings_only():
    refused = [
        ({"low": None}, "data.low: missing; add low = -1.0"),
        ({"high": None}, "data.high: missing; add high = 1.0"),
        ({"sampling": "sphere", "high": None}, "data.low = 0.0: has no meaning with sampling ="),
        ({"sampling": "spheres"}, 'data.sampling = "spheres": unknown; choose from "grid", "rand'),
    ]
    for change, expected in refused:
        (problem,) = problems_of(fs.load_experiment, section(**FUNCTION | change))
        assert problem.startswith(expected)
    assert problems_of(data.from_function, "x", 3) == [
        "low: missing; give both ends of the interval"
    ]
    (problem,) = problems_of(data.from_function, "x", 3, 0.0, 1.0, sampling="gaussian")
    assert problem.startswith('low, high: have no meaning with sampling = "gaussian"; remove')
    (problem,) = problems_of(data.from_function, "x", 3, sampling="normal")
    assert problem.startswith('sampling = "normal": unknown; choose from "grid", "random", "gau')


TANH = ACTIVATIONS["tanh"].value


def test_a_deep_teacher_of_several_outputs():
    made = data.from_teacher(TANH, 4, 30, n_inputs=2, depth=3, n_outputs=2, seed=1, n_test=5)
    generator = np.random.default_rng(1)
    a, w = generator.normal(size=(4, 2)), generator.normal(size=(3, 4))
    inner = [generator.normal(size=(4, 4)) for _ in range(2)]
    for x, y in ((made.x, made.y), (made.x_test, made.y_test)):
        h = np.tanh(x @ w)
        for weights in inner:
            h = np.tanh(h @ weights / 2.0)
        np.testing.assert_allclose(y, h @ a / 2.0, rtol=1e-13)
    assert made.y.shape == (30, 2) and made.n_outputs == 2


def test_noise_of_a_teacher_changes_the_training_targets_alone():
    plain, noisy = (
        data.from_teacher(TANH, 5, 400, n_inputs=2, n_test=3, noise=noise) for noise in (0.0, 0.5)
    )
    for name in ("x", "x_test", "y_test"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(noisy, name))
    assert 0.4 < np.std(noisy.y - plain.y) < 0.6


def test_random_targets():
    signs = data.from_random(1000, n_inputs=3, n_test=4, seed=2)
    assert set(signs.y) == {-1.0, 1.0} and abs(signs.y.mean()) < 5.0 / np.sqrt(1000)
    assert signs.x.shape == (1000, 4) and signs.y_test.shape == (4,) and signs.kind == "random"
    np.testing.assert_array_equal(signs.x, data.from_random(1000, n_inputs=3, seed=2).x)
    values = data.from_random(
        1000, n_inputs=3, target="gaussian", n_outputs=2, input_distribution="sphere"
    )
    assert values.y.shape == (1000, 2) and abs(values.y.std() - 1.0) < 0.1


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: data.from_teacher(TANH, 3, 3, depth=0), "depth = 0: must be 1 or larger"),
        (lambda: data.from_teacher(TANH, 10**4, 3, depth=9), "depth = 9: makes more than"),
        (lambda: data.from_teacher(TANH, 3, 3, n_outputs=0), "n_outputs = 0: must be 1"),
        (lambda: data.from_teacher(TANH, 3, 3, n_outputs=10**9), "n_outputs = 1000000000: makes"),
        (
            lambda: data.from_teacher(TANH, 3, 3, input_distribution="cube"),
            'input_distribution = "cube": unknown; choose from "gaussian", "sphere"',
        ),
        (lambda: data.from_random(3, bias="no"), "bias = 'no': wanted true or false"),
        (lambda: data.from_images(["digits"]), 'kind = ["digits"]: unknown; choose from "digits"'),
        (lambda: data.from_random(0), "n_samples = 0: must be 1 or larger"),
        (lambda: data.from_random(10**10), "n_samples = 10000000000: makes more than"),
        (lambda: data.from_random(3, target="signs"), 'target = "signs": unknown; choose from'),
        (lambda: data.from_random(3, n_outputs=0), "n_outputs = 0: must be 1 or larger"),
    ],
)
def test_wrong_arguments(call, expected):
    (problem,) = problems_of(call)
    assert problem.startswith(expected)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"kind": "random"}, "data.n_samples: missing; add n_samples = 100"),
        ({"kind": "random", "n_samples": 3, "n_inputs": 2, "target": "a"}, 'data.target = "a": '),
        (
            {"kind": "teacher", "width": 3, "n_samples": 3, "n_inputs": 2, "depth": 0},
            "data.depth = 0: must be 1 or larger; for example depth = 2",
        ),
        (
            {"kind": "teacher", "width": 3, "n_samples": 3, "n_inputs": 2, "noise": -1.0},
            "data.noise = -1.0: must be 0 or larger; for example noise = 0.1",
        ),
    ],
)
def test_sections_that_are_refused(given, expected):
    with pytest.raises(ConfigError) as caught:
        fs.load_experiment(section(**given))
    assert caught.value.problems[0].startswith(expected)


# The table of the README

README = Path(__file__).parents[1] / "README.md"
DOCUMENTED = re.findall(
    r"^\| `(\w+)` \| .* \| `({kind = .*})` \|$", README.read_text("utf-8"), re.M
)


def test_every_kind_is_in_the_readme():
    assert [name for name, _ in DOCUMENTED] == [kind for kind in DATA_KINDS if kind != "arrays"]


@pytest.mark.parametrize(("kind", "example"), DOCUMENTED, ids=[name for name, _ in DOCUMENTED])
def test_the_examples_of_the_readme(kind, example):
    given = tomllib.loads(f"data = {example}")["data"]
    assert given["kind"] == kind
    if "path" not in given:
        assert fs.load_experiment(section(**given)).make_dataset().kind == kind
        return
    # The files are not here; everything else must be right.
    (problem,) = problems_of(fs.load_experiment(section(**given)).make_dataset)
    assert problem.startswith("data.path = ")


@pytest.mark.parametrize(
    ("choice", "wrong"),
    [
        ({"n_samples": "5"}, "n_samples = '5': must be a whole number; for example"),
        ({"n_samples": 5.0}, "n_samples = 5.0: must be a whole number"),
        ({"n_samples": True}, "n_samples = True: must be a whole number"),
        ({"n_test": 2.5}, "n_test = 2.5: must be a whole number"),
        ({"classes": 3}, "classes = 3: wanted a list of whole numbers"),
        ({"classes": "38"}, "classes = '38': wanted a list of whole numbers"),
        ({"seed": -1}, "seed = -1: must be 0 or larger; the default is 0"),
        ({"seed": None}, "seed = None: must be a whole number"),
        ({"balanced": "no"}, "balanced = 'no': must be True or False"),
    ],
)
def test_a_choice_of_wrong_types(choice, wrong):
    with pytest.raises(ConfigError, match=f"^{wrong}"):
        Choice(**choice)


def test_labelled_samples_want_arrays():
    with pytest.raises(ConfigError, match="^labels: is a list; give a NumPy array"):
        LabelledSamples(x=np.eye(2), labels=[0, 1])
