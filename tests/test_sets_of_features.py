"""Sets of features, of which all members or exactly one are present, are as their definitions say.

Samples are large and the keys fixed: see `samples`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import EXAMPLES, UNLIKELY, assert_mean, constant_words, every_density
from scipy import stats

from toymodels import (
    AnticorrelatedSets,
    CorrelatedSets,
    SparseUniform,
)
from toymodels.errors import InputError

# Samples are examples x sets x members.


def draw_sets(distribution, density, *, sets=2, size=3, seed=0):
    sample = distribution(sets, size, density).sample(jax.random.key(seed), EXAMPLES)
    return np.asarray(sample).reshape(EXAMPLES, sets, size)


every_kind_of_sets = pytest.mark.parametrize("distribution", [CorrelatedSets, AnticorrelatedSets])


@every_kind_of_sets
@every_density
def test_sets_are_present_with_probability_density(distribution, density):
    for count in np.any(draw_sets(distribution, density) != 0, axis=2).sum(axis=0):
        assert stats.binomtest(int(count), EXAMPLES, density).pvalue > UNLIKELY


@every_kind_of_sets
def test_sets_are_independent_of_each_other(distribution):
    present = np.any(draw_sets(distribution, 0.4) != 0, axis=2)
    counts = np.histogram2d(*present.T.astype(float), bins=2)[0]
    assert stats.chi2_contingency(counts).pvalue > UNLIKELY


@every_density
def test_a_correlated_set_is_present_as_a_whole_with_values_of_their_own(density):
    values = draw_sets(CorrelatedSets, density)
    present = values != 0
    np.testing.assert_array_equal(present.all(axis=2), present.any(axis=2))
    first, second, third = values[present.all(axis=2)].T
    for member in (first, second, third):
        assert stats.kstest(member, stats.uniform.cdf).pvalue > UNLIKELY
    for one, other in ((first, second), (first, third), (second, third)):
        assert stats.pearsonr(one, other).pvalue > UNLIKELY


@every_density
def test_of_an_anticorrelated_set_one_member_is_present_each_as_likely(density):
    values = draw_sets(AnticorrelatedSets, density)
    present = values != 0
    assert present.sum(axis=2).max() == 1
    for set_members in present.sum(axis=0):
        assert stats.chisquare(set_members).pvalue > UNLIKELY
    for member in range(3):
        sizes = values[..., member][present[..., member]]
        assert stats.kstest(sizes, stats.uniform.cdf).pvalue > UNLIKELY


@pytest.mark.parametrize("word", [0, 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7])
def test_a_set_that_is_surely_present_has_one_member_for_the_extreme_words(word, size):
    key = jax.random.key(0, impl=constant_words(word))
    sample = np.asarray(AnticorrelatedSets(1, size, 1.0).sample(key, 1))
    assert np.sum(sample > 0) == 1
    assert sample.max() <= 1


def test_anticorrelated_sets_of_one_are_independent_features():
    key = jax.random.key(0)
    np.testing.assert_allclose(
        AnticorrelatedSets(3, 1, 0.3).sample(key, 100),
        SparseUniform(3, 0.3).sample(key, 100),
        atol=3e-7,  # two roundings of 1 - u/p
    )


@every_kind_of_sets
def test_each_set_can_have_a_density_of_its_own(distribution):
    densities = np.array([1.0, 0.1])
    present = np.any(draw_sets(distribution, jnp.asarray(densities)) != 0, axis=2)
    assert_mean(present, densities, np.sqrt(densities * (1 - densities)))


@every_kind_of_sets
@pytest.mark.parametrize(
    ("sets", "size", "density", "message"),
    [
        (0, 2, 0.5, r"^num_sets is 0: give a whole number, 1 or more$"),
        (2, 0, 0.5, r"^size is 0: give a whole number, 1 or more$"),
        (2, 2, 0.0, r"^density is 0, outside \(0, 1\]: .* that a set is not zero$"),
        (2, 2, jnp.ones(4), r"^density has shape \(4,\): give one number or 2, one per set$"),
    ],
)
def test_sets_that_make_no_sense_are_refused(distribution, sets, size, density, message):
    with pytest.raises(InputError, match=message):
        distribution(sets, size, density).sample(jax.random.key(0), 1)
