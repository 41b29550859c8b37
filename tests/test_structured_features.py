"""Trees, copulas, circles, concepts, data sets and activations are as their definitions say.

Samples are large and the keys fixed: a right sampler would fail one of these about once in ten
thousand keys.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import EXAMPLES, UNLIKELY
from scipy import stats

import toymodels as tm
from toymodels.errors import InputError

# A root with two children, of which the first has two, and a second tree of two.
FOREST = (-1, 0, 0, 1, 1, -1, 5)
DENSITY = np.array([0.6, 0.5, 0.3, 0.7, 0.25, 0.9, 0.4])


def draw(features, seed=0, examples=EXAMPLES):
    return np.asarray(features.sample(jax.random.key(seed), examples))


def assert_frequency(happened, probability):
    assert stats.binomtest(int(happened.sum()), happened.size, probability).pvalue > UNLIKELY


def forest(exclusive, smallest=0.0):
    return tm.Hierarchy(FOREST, jnp.asarray(DENSITY), exclusive, smallest)


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_child_is_present_with_its_density_among_examples_with_its_parent(exclusive):
    present = draw(forest(exclusive)) != 0
    for feature, parent in enumerate(FOREST):
        among = present if parent < 0 else present[present[:, parent]]
        assert_frequency(among[:, feature], DENSITY[feature])
        if parent >= 0:
            assert not np.any(present[~present[:, parent], feature])


@pytest.mark.parametrize("exclusive", [False, True])
def test_siblings_exclude_each_other_or_are_independent(exclusive):
    present = draw(forest(exclusive)) != 0
    for parent, one, other in ((0, 1, 2), (1, 3, 4)):
        both = present[present[:, parent]][:, [one, other]].all(axis=1)
        if exclusive:
            assert not both.any()
        else:
            assert_frequency(both, DENSITY[one] * DENSITY[other])
    roots = present[:, 0] & present[:, 5]
    assert_frequency(roots, DENSITY[0] * DENSITY[5])


@pytest.mark.parametrize("smallest", [0.0, 0.5])
@pytest.mark.parametrize("exclusive", [False, True])
def test_values_in_a_tree_are_uniform_and_independent_of_the_parent(exclusive, smallest):
    values = draw(forest(exclusive, smallest))
    for feature, parent in enumerate(FOREST):
        present = values[values[:, feature] != 0]
        distribution = stats.uniform(smallest, 1 - smallest)
        assert stats.kstest(present[:, feature], distribution.cdf).pvalue > UNLIKELY
        if parent >= 0:
            assert stats.pearsonr(present[:, feature], present[:, parent]).pvalue > UNLIKELY


@pytest.mark.parametrize("exclusive", [False, True])
def test_with_one_as_the_smallest_value_features_are_present_or_not(exclusive):
    assert set(np.unique(draw(forest(exclusive, 1.0)))) == {0, 1}


def test_exclusive_siblings_whose_densities_add_up_to_one_leave_no_parent_alone():
    sample = draw(tm.Hierarchy((-1, 0, 0, 0), jnp.array([0.5, 0.2, 0.3, 0.5]), True))
    present = sample != 0
    np.testing.assert_array_equal(present[:, 1:].sum(axis=1), present[:, 0])


def test_a_forest_of_roots_is_independent_features():
    roots = tm.Hierarchy((-1, -1, -1), 0.3, False)
    independent = tm.SparseUniform(3, 0.3)
    np.testing.assert_allclose(draw(roots), draw(independent), atol=3e-7)  # roundings of 1 - u/p


@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 3))
def test_a_balanced_tree_has_the_children_it_says(num_roots, branching, depth):
    parents = np.array(tm.balanced_tree(num_roots, branching=branching, depth=depth))
    sizes = num_roots * branching ** np.arange(depth + 1)
    assert parents.size == sizes.sum()
    assert np.sum(parents < 0) == num_roots
    children = np.bincount(parents[parents >= 0], minlength=parents.size)
    np.testing.assert_array_equal(children[: sizes[:-1].sum()], branching)
    np.testing.assert_array_equal(children[sizes[:-1].sum() :], 0)


def correlation_of(rho):
    return np.array([[1, rho, 0], [rho, 1, 0], [0, 0, 1]], np.float64)


@pytest.mark.parametrize("rho", [-0.9, -0.4, 0.0, 0.7, 0.999])
def test_a_copula_keeps_each_feature_and_joins_two_as_a_normal_does(rho):
    density = np.array([0.3, 0.1, 0.5])
    mixing = np.linalg.cholesky(correlation_of(rho))
    values = draw(tm.GaussianCopula(jnp.asarray(density), jnp.asarray(mixing, jnp.float32)))
    for column, probability in zip(values.T, density, strict=True):
        assert_frequency(column != 0, probability)
        assert stats.kstest(column[column != 0], stats.uniform.cdf).pvalue > UNLIKELY
    quantiles = stats.norm.ppf(density)
    for one, other in ((0, 1), (0, 2)):
        covariance = correlation_of(rho)[np.ix_([one, other], [one, other])]
        together = stats.multivariate_normal(cov=covariance).cdf(quantiles[[one, other]])
        assert_frequency((values[:, one] != 0) & (values[:, other] != 0), together)


def test_features_without_correlation_are_independent_and_those_of_one_source_are_equal():
    alone = draw(tm.GaussianCopula(0.3, jnp.eye(2)))
    assert stats.pearsonr(*alone.T).pvalue > UNLIKELY
    together = draw(tm.GaussianCopula(0.3, jnp.ones((2, 1)), smallest=1.0))
    np.testing.assert_array_equal(together[:, 0], together[:, 1])
    assert set(np.unique(together)) == {0, 1}


@settings(max_examples=20)
@given(st.floats(2.0**-14, 1, width=32), st.floats(0, 3, width=32))
def test_zipf_densities_fall_by_one_power(largest, exponent):
    density = np.asarray(tm.zipf_density(9, largest=largest, exponent=exponent), np.float64)
    np.testing.assert_allclose(density[0], largest, rtol=1e-6)
    slopes = np.diff(np.log(density)) / np.diff(np.log(np.arange(1, 10)))
    np.testing.assert_allclose(slopes, -exponent, atol=1e-4)  # float32 powers


@pytest.mark.parametrize("density", [1.0, 0.3])
def test_a_circle_that_is_present_has_length_one_and_a_uniform_angle(density):
    points = draw(tm.Circles(2, density)).reshape(EXAMPLES, 2, 2)
    lengths = np.linalg.norm(points, axis=2)
    for circle in range(2):
        assert_frequency(lengths[:, circle] > 0, density)
        present = points[lengths[:, circle] > 0, circle]
        np.testing.assert_allclose(np.linalg.norm(present, axis=1), 1, atol=1e-6)
        angles = np.arctan2(*present.T) / (2 * np.pi) + 0.5
        assert stats.kstest(angles, stats.uniform.cdf).pvalue > UNLIKELY
    both = lengths.all(axis=1) if density < 1 else np.zeros(0, bool)
    assert density == 1 or stats.binomtest(int(both.sum()), EXAMPLES, density**2).pvalue > UNLIKELY


@pytest.mark.parametrize("density", [1.0, 0.3])
def test_a_concept_that_applies_takes_one_value_each_as_likely(density):
    sizes = (3, 1, 4)
    sample = draw(tm.Concepts(sizes, density))
    assert set(np.unique(sample)) <= {0, 1}
    for values in np.split(sample, np.cumsum(sizes)[:-1], axis=1):
        applies = values.any(axis=1)
        assert values.sum(axis=1).max() == 1
        assert_frequency(applies, density)
        assert (
            stats.chisquare(values.sum(axis=0)).pvalue > UNLIKELY if values.shape[1] > 1 else True
        )


def test_concepts_are_independent():
    sample = draw(tm.Concepts((3, 4), 0.5))
    counts = np.histogram2d(sample[:, :3] @ [1, 2, 3], sample[:, 3:] @ [1, 2, 3, 4], (4, 5))[0]
    assert stats.chi2_contingency(counts).pvalue > UNLIKELY


@pytest.mark.parametrize("size", [2, 3, 5])
def test_values_of_a_concept_form_a_regular_simplex(size):
    vectors = np.unique(draw(tm.Concepts((size,), 1.0), examples=1000), axis=0)
    centred = vectors - vectors.mean(axis=0)
    cosines = np.corrcoef(centred)
    np.testing.assert_allclose(cosines[~np.eye(size, dtype=bool)], -1 / (size - 1), atol=1e-6)


def test_a_data_set_gives_its_examples_all_as_often():
    examples = jnp.arange(12.0).reshape(4, 3)
    sample = draw(tm.FiniteData(examples))
    rows, counts = np.unique(sample, axis=0, return_counts=True)
    np.testing.assert_array_equal(rows, examples)
    assert stats.chisquare(counts).pvalue > UNLIKELY


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
def test_a_data_set_of_whole_numbers_is_trained_on_as_one_of_floats(dtype):
    examples = np.eye(3, dtype=dtype)

    def params(examples):
        task = tm.Task(tm.FiniteData(examples))
        model, adam = tm.ReLUOutput(hidden=2), optax.adam(0.01)
        return tm.train(
            jax.random.key(0), model, task, optimizer=adam, steps=5, batch=4, evaluation=4
        ).params

    run = jax.jit(params)
    for own, expected in zip(*map(jax.tree.leaves, map(run, (examples, np.eye(3)))), strict=True):
        np.testing.assert_array_equal(own, expected)


def test_a_data_set_may_have_examples_of_any_shape_and_labels():
    examples = {"inputs": jnp.arange(24.0).reshape(4, 3, 2), "label": jnp.array([3, 1, 4, 5])}
    sample = tm.FiniteData(examples).sample(jax.random.key(0), 50)
    assert sample["label"].dtype == jnp.int32
    for inputs, label in zip(sample["inputs"], sample["label"], strict=True):
        (row,) = np.flatnonzero(examples["label"] == label)
        np.testing.assert_array_equal(inputs, examples["inputs"][row])


def test_one_as_a_whole_number_is_a_density():
    mixing = np.array([[0.6, 0.8], [1.0, 0.0]])
    one, whole = (tm.GaussianCopula(density, mixing) for density in (1.0, 1))
    np.testing.assert_array_equal(draw(one), draw(whole))


def test_bad_numbers_are_refused_also_while_tracing():
    for features in (
        tm.Hierarchy((-1, 0, 0), 0.6, True),
        tm.GaussianCopula(0.5, 2 * np.eye(2)),
    ):
        with pytest.raises(InputError, match=r"siblings|length of a row"):
            jax.eval_shape(lambda key, own=features: own.sample(key, 4), jax.random.key(0))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (lambda p: tm.AnticorrelatedSets(1, 4, p), r"^density of a set over its number of values"),
        (lambda p: tm.Concepts((2, 3), p), r"^density of a concept over its number of values is"),
        (lambda p: tm.Hierarchy((-1, 0, 0), 2e5 * p, True), r"^sum of the densities of siblings"),
        (lambda p: tm.GaussianCopula(0.5, p * jnp.eye(2)), r"^length of a row of mixing is"),
    ],
)
def test_bad_numbers_of_an_axis_are_refused_before_the_sweep_runs(features, message):
    def cell(key, *, p):
        return {"sample": features(p).sample(key, 2)}

    with pytest.raises(InputError, match=message):
        tm.sweep(cell, axes={"p": (4e-6, 2e-7)}, progress=False)


def test_activations_are_what_the_model_computes():
    model, features = tm.ReLUHidden(hidden=2), tm.SparseUniform(3, 0.5)
    params = model.init(jax.random.key(1), jnp.zeros(3))["params"]
    hidden = tm.Activations(model, params, features, "hidden")
    assert hidden.num_features == 2
    inputs = draw(features, examples=50)
    expected = np.maximum(inputs @ np.asarray(params["weights"]).T, 0)
    np.testing.assert_allclose(draw(hidden, examples=50), expected, atol=1e-6)


def test_a_cell_trains_a_model_and_then_another_on_its_activations():
    # The second model has as many dimensions as the first hidden layer, so it can be exact.
    def cell(key, *, density):
        key_first, key_second = jax.random.split(key)
        features = tm.SparseUniform(4, density)
        optimizer = optax.adam(0.02)
        settings = {"optimizer": optimizer, "steps": 300, "batch": 32, "evaluation": 320}
        model = tm.LinearOutput(hidden=2)
        first = tm.train(key_first, model, tm.Task(features), **settings)
        hidden = tm.Activations(model, first.params, features, "hidden")
        second = tm.train(key_second, tm.LinearOutput(hidden=2), tm.Task(hidden), **settings)
        return {"first": first.loss, "second": second.loss}

    results = tm.sweep(cell, axes={"density": (0.2, 1.0)}, num_seeds=2, progress=False)
    assert np.all(results["second"] < 1e-3 * results["first"])


class Nested(nn.Module):
    @nn.compact
    def __call__(self, features):
        return tm.Site(name="square")(jnp.outer(features, features)).sum(axis=0)


class Total(nn.Module):
    @nn.compact
    def __call__(self, features):
        return tm.Site(name="total")(features.sum())


NUMBER = tm.Activations(Total(), {}, tm.SparseUniform(2, 0.5), "total")
NO_SITE = tm.Activations(Nested(), {}, tm.SparseUniform(2, 0.5), "hidden")


def test_of_a_site_of_several_vectors_each_is_drawn_as_often():
    # Row i of the outer product of (a, 1) with itself is (a, 1) times its i-th entry.
    data = tm.FiniteData(np.array([[3.0, 1.0], [5.0, 1.0]]))
    vectors = tm.Activations(Nested(), {}, data, "square")
    assert vectors.num_features == 2
    rows, counts = np.unique(draw(vectors), axis=0, return_counts=True)
    np.testing.assert_array_equal(rows, [[3, 1], [5, 1], [9, 3], [25, 5]])
    assert stats.chisquare(counts).pvalue > UNLIKELY


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (tm.Hierarchy((1, -1), 0.5, False), r"^the parent of feature 0 is 1: give -1 for a root"),
        (tm.Hierarchy((-1, -2), 0.5, False), r"^the parent of feature 1 is -2: .*before it$"),
        (tm.Hierarchy((), 0.5, False), r"^num_features is 0: give a whole number"),
        (tm.Hierarchy((-1, 0), jnp.ones(3), False), r"^density has shape \(3,\): give one .* 2"),
        (tm.Hierarchy((-1, 0, 0), 0.6, True), r"^sum of the densities of siblings is 1.2, .*"),
        (tm.Hierarchy((-1, 0), 0.5, False, 1.5), r"^smallest is 1.5, outside \[0, 1\]"),
        (tm.GaussianCopula(0.5, 2 * jnp.eye(2)), r"^length of a row of mixing is 2, .* divide"),
        (tm.GaussianCopula(0.0, jnp.eye(2)), r"^density is 0, outside \(0, 1\]"),
        (tm.Circles(0, 0.5), r"^num_circles is 0: give a whole number"),
        (tm.Circles(1, 1.5), r"^density is 1.5, .* a circle is not zero$"),
        (tm.Concepts((2, 0), 0.5), r"^size of a concept is 0: give a whole number"),
        (tm.Concepts((2, 2), jnp.ones(4)), r"^density has shape \(4,\): .* 2, one per concept$"),
        (tm.FiniteData(jnp.zeros((0, 3))), r"^number of examples is 0: give a whole number"),
        (
            tm.FiniteData((jnp.zeros(2), jnp.zeros(3))),
            r"^shapes of the examples are \(2,\), \(3,\)",
        ),
        (tm.FiniteData(np.array([[1.0, np.nan]])), r"^the examples hold NaN or infinity: take"),
        (NUMBER, r"^site 'total' has shape \(\): choose one that holds vectors$"),
        (NO_SITE, r"^no site 'hidden' in this model: it has square$"),
    ],
)
def test_what_makes_no_sense_is_refused(features, message):
    with pytest.raises(InputError, match=message):
        features.sample(jax.random.key(0), 4)


@pytest.mark.parametrize("largest", [0.0, 1.5])
def test_a_largest_density_is_a_probability(largest):
    with pytest.raises(InputError, match=r"^largest density is .*, outside \(0, 1\]: "):
        tm.zipf_density(3, largest=largest, exponent=1.0)
