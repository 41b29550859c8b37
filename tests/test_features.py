"""Distributions have the probabilities, moments, independence and bounds of their definitions.

Samples are large and the keys fixed: see `samples`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import EXAMPLES, UNLIKELY, assert_mean, constant_words, every_density
from scipy import stats

import toymodels
from toymodels import (
    AnticorrelatedSets,
    Binary,
    CorrelatedSets,
    Features,
    SignedSparseUniform,
    SparseUniform,
    checks,
)
from toymodels.errors import InputError

DISTRIBUTIONS = (SparseUniform, SignedSparseUniform, Binary)

every_distribution = pytest.mark.parametrize("distribution", DISTRIBUTIONS)
properties = settings(max_examples=30)
densities = st.floats(2.0**-14, 1, width=32)


def draw(distribution, density, *, features=3, seed=0, examples=EXAMPLES):
    return np.asarray(distribution(features, density).sample(jax.random.key(seed), examples))


@every_distribution
@every_density
def test_each_feature_is_not_zero_with_probability_density(distribution, density):
    present = draw(distribution, density) != 0
    for count in present.sum(axis=0):
        assert stats.binomtest(int(count), EXAMPLES, density).pvalue > UNLIKELY


@every_density
@pytest.mark.parametrize(
    ("distribution", "low"),
    [
        pytest.param(SparseUniform, 0, id="SparseUniform"),
        pytest.param(SignedSparseUniform, -1, id="SignedSparseUniform"),
    ],
)
def test_values_that_are_not_zero_are_uniform(distribution, low, density):
    values = draw(distribution, density, features=20)
    values = values[values != 0]
    assert stats.kstest(values, stats.uniform(low, 1 - low).cdf).pvalue > UNLIKELY


def test_binary_values_are_zero_and_one():
    assert set(np.unique(draw(Binary, 0.5))) == {0, 1}


@every_density
def test_moments_of_sparse_uniform(density):
    values = draw(SparseUniform, density)
    second, fourth = density / 3, density / 5
    assert_mean(values, density / 2, np.sqrt(second - density**2 / 4))
    assert_mean(values**2, second, np.sqrt(fourth - second**2))


@every_density
def test_moments_of_signed_sparse_uniform(density):
    values = draw(SignedSparseUniform, density)
    second, fourth = density / 3, density / 5
    assert_mean(values, 0, np.sqrt(second))
    assert_mean(values**2, second, np.sqrt(fourth - second**2))


@every_distribution
def test_features_are_independent(distribution):
    first, second = draw(distribution, 0.4, features=2).T
    # Equal thirds of what is not zero, and zero: a table of counts tests more than a
    # correlation does.
    edges = [-1.01, -1 / 3, -1e-9, 1e-9, 1 / 3, 2 / 3, 1.01]
    counts = np.histogram2d(first, second, edges)[0]
    counts = counts[counts.sum(axis=1) > 0][:, counts.sum(axis=0) > 0]
    assert stats.chi2_contingency(counts).pvalue > UNLIKELY


@every_distribution
def test_examples_are_independent(distribution):
    values = draw(distribution, 0.4, features=1)[:, 0]
    for lag in (1, 2, 3):
        assert stats.pearsonr(values[lag:], values[:-lag]).pvalue > UNLIKELY


@every_distribution
def test_each_feature_can_have_a_density_of_its_own(distribution):
    densities = np.array([1.0, 0.5, 0.01])
    present = draw(distribution, jnp.asarray(densities)) != 0
    assert_mean(present, densities, np.sqrt(densities * (1 - densities)))


@every_distribution
def test_equal_densities_are_one_density(distribution):
    one, several = (draw(distribution, density) for density in (0.3, jnp.full(3, 0.3)))
    np.testing.assert_array_equal(one, several)


@pytest.mark.parametrize("word", [0, 1, 2**31, 2**32 - 1])
def test_bounds_hold_for_the_extreme_random_words(word):
    key = jax.random.key(0, impl=constant_words(word))
    uniform = SparseUniform(1, 1.0).sample(key, 1)
    assert 0 < uniform <= 1
    assert Binary(1, 1.0).sample(key, 1) == 1
    assert -1 <= SignedSparseUniform(1, 1.0).sample(key, 1) <= 1
    for distribution in DISTRIBUTIONS:
        assert abs(distribution(1, 1e-6).sample(key, 1)) <= 1


@pytest.mark.parametrize("density", [1e-7, 3.3e-6, 1e-3])
@pytest.mark.parametrize("distribution", [SparseUniform, Binary])
def test_as_many_words_mean_a_feature_as_the_density_says(distribution, density):
    words = np.ceil(np.float64(np.float32(density)) * 2**32)  # all below it
    present = [
        distribution(1, density).sample(jax.random.key(0, impl=constant_words(int(word))), 1)[0, 0]
        for word in (0, words - 1, words, 2 * words)
    ]
    np.testing.assert_array_equal(np.greater(present, 0), [True, True, False, False])
    assert 0 <= words / 2**32 / density - 1 < 0.0024


@pytest.mark.parametrize(
    "features",
    [
        SparseUniform(2, 1e-9),
        SignedSparseUniform(2, np.array([0.5, 1e-10])),
        Binary(2, 9e-8),
        CorrelatedSets(1, 2, 1e-9),
        AnticorrelatedSets(1, 20, 1e-6),
        toymodels.Concepts((2, 20), 1e-6),
        toymodels.Circles(1, 1e-9),
        toymodels.Hierarchy((-1, 0), 1e-9, exclusive=False),
        toymodels.Hierarchy((-1, 0, 0), np.array([1.0, 0.5, 1e-6]), exclusive=True),
        toymodels.GaussianCopula(1e-6, np.eye(2)),
    ],
    ids=lambda features: type(features).__name__,
)
def test_densities_that_random_numbers_do_not_resolve_are_refused_also_while_tracing(features):
    with pytest.raises(InputError, match="random numbers are too coarse for less"):
        jax.eval_shape(lambda key: features.sample(key, 4), jax.random.key(0))


@pytest.mark.parametrize(
    ("distribution", "spacing"),
    [
        # A word has 32 bits, of which a density of 1e-3 leaves 22.
        pytest.param(SparseUniform, 2.0**-20, id="SparseUniform"),
        # The sign takes one of these bits.
        pytest.param(SignedSparseUniform, 2.0**-19, id="SignedSparseUniform"),
    ],
)
def test_rare_values_keep_their_resolution(distribution, spacing):
    values = np.unique(draw(distribution, 1e-3, features=50))
    assert np.diff(values).min() <= spacing


@properties
@given(st.integers(0, 2**32 - 1), densities, densities)
def test_with_common_random_numbers_more_density_is_more_of_everything(seed, one, other):
    sparse, dense = sorted((one, other))
    for distribution in DISTRIBUTIONS:
        less, more = (
            draw(distribution, density, seed=seed, examples=200) for density in (sparse, dense)
        )
        assert np.all(np.abs(less) <= np.abs(more))
        assert np.all(less * more >= 0)


@every_distribution
def test_a_key_decides_the_sample(distribution):
    np.testing.assert_array_equal(draw(distribution, 0.5), draw(distribution, 0.5))
    assert np.any(draw(distribution, 0.5) != draw(distribution, 0.5, seed=1))


@every_distribution
def test_a_swept_density_gives_the_samples_of_each_density(distribution):
    densities = jnp.array([0.05, 0.3, 1.0])

    def sample(density):
        return distribution(3, density).sample(jax.random.key(0), 100)

    swept = jax.jit(jax.vmap(sample))(densities)
    for density, samples in zip(densities, swept, strict=True):
        # A compiler may divide or multiply by the reciprocal: two roundings of 1 - u/p,
        # where u/p is at most 1.
        np.testing.assert_allclose(samples, sample(density), atol=3e-7)


@every_distribution
def test_the_density_alone_is_a_leaf(distribution):
    features = distribution(3, 0.25)
    assert jax.tree.leaves(features) == [0.25]
    assert jax.tree.map(lambda density: 2 * density, features) == distribution(3, 0.5)


@every_distribution
def test_samples_have_the_default_precision(distribution, x64):
    sample = distribution(3, 0.5).sample(jax.random.key(0), EXAMPLES)
    assert sample.dtype == jnp.float64
    assert stats.binomtest(int((sample != 0).sum()), sample.size, 0.5).pvalue > UNLIKELY
    assert jnp.abs(sample).max() <= 1


@every_distribution
def test_distributions_are_features(distribution):
    assert isinstance(distribution(3, 0.5), Features)


@every_distribution
@pytest.mark.parametrize(
    ("num_features", "density", "batch", "message"),
    [
        (3, 0.0, 1, r"^density is 0, outside \(0, 1\]: it is the probability 1 - S .*$"),
        (3, 1.5, 1, r"^density is 1.5, outside \(0, 1\]: .*$"),
        (3, -0.5, 1, r"^density is -0.5, outside \(0, 1\]: .*$"),
        (3, float("nan"), 1, r"^density is nan, outside \(0, 1\]: .*$"),
        (3, jnp.array([0.5, 0.5, 2.0]), 1, r"^density is 2, outside \(0, 1\]: .*$"),
        (3, jnp.array([0.5, 0.5]), 1, r"^density has shape \(2,\): give one number or 3, .*$"),
        (0, 0.5, 1, r"^num_features is 0: give a whole number, 1 or more$"),
        (3, 0.5, 0, r"^batch is 0: give a whole number, 1 or more$"),
    ],
)
def test_what_makes_no_sense_is_refused(distribution, num_features, density, batch, message):
    with pytest.raises(InputError, match=message):
        distribution(num_features, density).sample(jax.random.key(0), batch)


def test_a_traced_density_is_not_looked_at():
    @jax.jit
    def sample(density):
        return SparseUniform(3, density).sample(jax.random.key(0), 2)

    assert sample(2.0).shape == (2, 3)


@pytest.mark.parametrize("value", [0, -1, 2.5, 3.0, True, "3", None])
def test_a_number_of_things_is_a_whole_number(value):
    with pytest.raises(InputError, match=r"^num_features is .*: give a whole number, 1 or more"):
        checks.count("num_features", value)


def test_a_traced_number_of_features_is_refused_with_the_remedy():
    # The check is called by itself, because the type checker of the tests would come before it.
    with pytest.raises(InputError, match=r"num_features decides shapes.*static="):
        jax.jit(lambda value: checks.count("num_features", value))(3)


@struct.dataclass
class OneHot:
    """A distribution with exactly one feature present, whose size may be swept."""

    num_features: int = struct.field(pytree_node=False)
    size: float = 1.0

    def sample(self, key, batch):
        return self.size * jax.nn.one_hot(
            jax.random.randint(key, (batch,), 0, self.num_features), self.num_features
        )


def test_a_distribution_of_the_user_is_trained_on():
    features = OneHot(3, size=0.5)
    assert isinstance(features, Features)

    @toymodels.jit
    def run(key):
        return toymodels.train(
            key,
            toymodels.LinearOutput(hidden=2),
            toymodels.Task(features),
            optimizer=optax.adam(0.05),
            steps=300,
            batch=32,
            evaluation=320,
        )

    # The three vectors lie in a plane, which two hidden dimensions and a bias span.
    assert run(jax.random.key(0)).loss < 1e-4
