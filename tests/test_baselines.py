"""Components and factors against scikit-learn: which directions they find and miss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import normal
from sklearn.decomposition import PCA

from toymodels import errors
from toymodels.analysis import baselines, dictionaries

KEY = jax.random.key(0)


def features(seed, *shape, density):
    """Draw independent features that are zero with probability 1 - density, else uniform."""
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.random(shape) * (rng.random(shape) < density), jnp.float32)


def orthonormal(seed, hidden, count):
    return jnp.linalg.qr(normal(seed, hidden, hidden))[0][:, :count]


def test_principal_components_are_those_of_scikit_learn():
    rows = normal(0, 40, 5) @ normal(1, 5, 5) + 3
    dictionary, variance = jax.jit(baselines.principal_components, static_argnums=1)(rows, 3)
    expected = PCA(3).fit(np.asarray(rows, np.float64))
    cosines = jnp.abs(jnp.sum(dictionary * expected.components_.T, axis=0))
    np.testing.assert_allclose(cosines, 1, atol=1e-5)
    # Scikit-learn divides by one example less.
    np.testing.assert_allclose(variance, expected.explained_variance_ * 39 / 40, rtol=1e-4)


def test_independent_components_find_oblique_features_and_principal_ones_do_not():
    weights = normal(0, 4, 4) * jnp.array([[1.0, 2.0, 0.5, 1.0]])
    activations = features(1, 8_000, 4, density=0.2) @ weights.T + 1
    found = baselines.independent_components(KEY, activations, 4)
    assert dictionaries.mcc(found, weights) > 0.998
    components, _ = baselines.principal_components(activations, 4)
    assert dictionaries.mcc(components, weights) < 0.9


def test_principal_components_of_equal_variance_are_arbitrary():
    weights = orthonormal(0, 4, 4)
    activations = features(1, 8_000, 4, density=0.2) @ weights.T
    independent = baselines.independent_components(KEY, activations, 4)
    assert dictionaries.mcc(independent, weights) > 0.998
    components, variance = baselines.principal_components(activations, 4)
    p = 0.2
    # A variance has a relative error of about sqrt((kurtosis - 1) / examples), which is 0.02.
    np.testing.assert_allclose(variance, p / 3 - p**2 / 4, rtol=0.1)
    assert dictionaries.mcc(components, weights) < 0.95
    # The principal components are the features if these have different variances.
    scaled = weights * jnp.array([[1.0, 2.0, 3.0, 4.0]])
    activations = features(1, 8_000, 4, density=0.2) @ scaled.T
    components, _ = baselines.principal_components(activations, 4)
    assert dictionaries.mcc(components, weights) > 0.99


def test_fewer_features_than_dimensions_are_found_in_their_span():
    weights = orthonormal(0, 6, 3)
    activations = features(1, 8_000, 3, density=0.2) @ weights.T
    found = baselines.independent_components(KEY, activations, 3)
    assert dictionaries.mcc(found, weights) > 0.998


def test_in_superposition_as_many_features_are_found_as_there_are_dimensions():
    hidden, num_features = 3, 6
    weights = normal(0, hidden, num_features)
    activations = features(1, 2_000, num_features, density=0.3) @ weights.T
    components, _ = baselines.principal_components(activations, hidden)
    found = baselines.independent_components(KEY, activations, hidden)
    directions = weights / jnp.linalg.norm(weights, axis=0)[None, :]
    # The trace norm bounds the sum of |cos| of any directions with orthogonal components; for a
    # tight frame it is the bound of Cauchy and Schwarz.
    bound = jnp.linalg.norm(directions, ord="nuc") / hidden
    assert dictionaries.mcc(components, weights) <= bound
    for dictionary in (components, found):
        over_all = dictionaries.mcc(dictionary, weights) * hidden / num_features
        assert over_all <= hidden / num_features


def test_nonnegative_factors_are_the_parts():
    weights = jnp.array([[1.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 1, 0], [0, 0, 1]])
    activations = features(0, 200, 3, density=0.3) @ weights.T
    found = baselines.nonnegative_factors(KEY, activations, 3)
    assert (found >= 0).all()
    assert dictionaries.mcc(found, weights) > 0.998
    # One component is the leading singular vector, by Perron and Frobenius.
    (first,) = baselines.nonnegative_factors(KEY, activations, 1).T
    leading = np.linalg.svd(np.asarray(activations, np.float64))[2][0]
    np.testing.assert_allclose(first / jnp.linalg.norm(first), abs(leading), atol=1e-3)
    assert baselines.nonnegative_factors(KEY, activations[:6], 7).shape == (5, 7)


def test_what_has_no_components_is_refused():
    rows = normal(0, 10, 4)
    for find in (
        baselines.principal_components,
        lambda rows, size: baselines.independent_components(KEY, rows, size),
    ):
        with pytest.raises(errors.InputError, match="components is 5: there are at most 4"):
            find(rows, 5)
        with pytest.raises(errors.InputError, match="3 examples of 4 dimensions"):
            find(rows[:3], 2)
    with pytest.raises(errors.InputError, match="outside"):
        baselines.nonnegative_factors(KEY, rows, 2)
    with pytest.raises(errors.InputError, match="3 examples of 4 dimensions"):
        baselines.nonnegative_factors(KEY, jnp.abs(rows[:3]), 2)
