"""Distributions that condition on the number of active features, and standardised features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import toymodels as tm
from toymodels import OneActive, SomeActive, StandardisedSparse

NUM_FEATURES = 5
EXAMPLES = 2**16


@pytest.fixture(params=[1.0, 0.3, 0.01], ids="p={}".format)
def density(request):
    return request.param


def draw(density):
    def sample(key, density):
        return SomeActive(NUM_FEATURES, density).sample(key, EXAMPLES)

    return np.asarray(tm.jit(sample)(jax.random.key(0), jnp.asarray(density)), float)


def test_some_feature_is_active_and_the_others_are_independent(density):
    """The conditional probabilities are P(i) = p / q and P(i and j) = p^2 / q."""
    active = draw(density) != 0
    assert active.any(axis=1).all()
    some = 1 - (1 - density) ** NUM_FEATURES
    np.testing.assert_allclose(SomeActive(NUM_FEATURES, density).probability, some, rtol=1e-5)
    both = active.T.astype(float) @ active / EXAMPLES
    expected = np.where(np.eye(NUM_FEATURES), density / some, density**2 / some)
    error = np.sqrt(expected * (1 - expected) / EXAMPLES)
    np.testing.assert_array_less(abs(both - expected), 5 * error + 1e-6)


def test_active_features_are_uniform_with_either_sign(density):
    values = draw(density)
    values = values[values != 0]
    moments = np.array([np.mean(values**power) for power in (1, 2, 3, 4)])
    error = np.array([1 / 3, 1 / 5 - 1 / 9, 1 / 7, 1 / 9 - 1 / 25]) ** 0.5 / len(values) ** 0.5
    np.testing.assert_array_less(abs(moments - [0, 1 / 3, 0, 1 / 5]), 5 * error)


def test_the_loss_with_the_empty_example_is_that_of_all_examples(density):
    rng = np.random.default_rng(0)
    weights_in, weights_out = rng.normal(size=(2, 3, NUM_FEATURES))
    bias = rng.normal(size=NUM_FEATURES)

    def losses(features):
        hidden = np.maximum(features @ weights_in.T, 0)
        outputs = np.maximum(hidden @ weights_out + bias, 0)
        return ((abs(features) - outputs) ** 2).sum(axis=1)

    whole = np.zeros((EXAMPLES, NUM_FEATURES))
    present = rng.random(whole.shape) < density
    whole[present] = rng.uniform(-1, 1, present.sum())
    some = float(SomeActive(NUM_FEATURES, density).probability)
    each = some * losses(draw(density)) + (1 - some) * losses(np.zeros((1, NUM_FEATURES)))
    difference = each.mean() - losses(whole).mean()
    error = np.hypot(each.std(), losses(whole).std()) / EXAMPLES**0.5
    assert abs(difference) < 4 * error


def test_exactly_one_feature_is_active_each_as_likely_and_uniform():
    values = np.asarray(OneActive(NUM_FEATURES).sample(jax.random.key(0), EXAMPLES))
    assert ((values != 0).sum(axis=1) == 1).all()
    assert stats.chisquare((values != 0).sum(axis=0)).pvalue > 1e-4
    assert stats.kstest(values.sum(axis=1), "uniform").pvalue > 1e-4
    assert values.min() == 0
    assert values.max() <= 1


@pytest.mark.parametrize(("signs", "kurtosis"), [(True, 1.0), (True, 4.0), (False, 1.8)])
def test_standardised_features_have_the_moments_that_they_are_named_after(signs, kurtosis):
    distribution = StandardisedSparse(3, kurtosis, signs)
    values = np.asarray(distribution.sample(jax.random.key(0), EXAMPLES), float)
    deviation = [1, (kurtosis - 1) ** 0.5]  # of x and of x^2, whose means are 0 and 1
    for power, expected in ((1, 0), (2, 1)):
        error = deviation[power - 1] / EXAMPLES**0.5
        np.testing.assert_allclose((values**power).mean(axis=0), expected, atol=5 * error + 1e-6)
    # The eighth moment of +-1/sqrt(p) is p^-3, and of uniform values 3^4/9 at density 1.
    error = ((kurtosis**3 if signs else 9) - kurtosis**2) ** 0.5 / EXAMPLES**0.5
    np.testing.assert_allclose((values**4).mean(axis=0), kurtosis, atol=5 * error + 1e-6)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (OneActive(0), "num_features is 0"),
        (SomeActive(3, 1.5), "density is 1.5"),
        (StandardisedSparse(3, 0.5, True), "density is 2"),
    ],
)
def test_what_makes_no_sense_is_refused(features, message):
    with pytest.raises(tm.InputError, match=message):
        features.sample(jax.random.key(0), 4)
