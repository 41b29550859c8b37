"""The loss at given capacities against enumeration and samples, and what more capacity brings."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from toymodels import features
from toymodels.theory import capacity

properties = settings(max_examples=100)
kurtoses = st.floats(1.05, 30)


def three_valued_loss(weights, coefficients, density):
    """Return the variance of the error over all inputs of zeros and signs, of variance 1."""
    values = np.array([-1.0, 0.0, 1.0]) / np.sqrt(density)
    chances = np.array([density / 2, 1 - density, density / 2])
    n = len(coefficients)
    x = np.array(list(itertools.product(values, repeat=n)))
    chance = np.array(list(itertools.product(chances, repeat=n))).prod(axis=1)
    error = ((x @ weights.T) ** 2).sum(axis=1) - x**2 @ coefficients
    return chance @ error**2 - (chance @ error) ** 2


@pytest.mark.parametrize("density", [1.0, 0.6, 1 / 3, 0.1])
@pytest.mark.parametrize(("n", "hidden"), [(1, 1), (2, 1), (3, 2), (4, 2)])
def test_loss_is_that_of_all_inputs_enumerated(n, hidden, density):
    random = np.random.default_rng(0)
    weights, coefficients = random.normal(size=(hidden, n)), random.uniform(0, 2, n)
    kurtosis = capacity.sparse_kurtosis(density, capacity.SIGN_KURTOSIS)
    np.testing.assert_allclose(
        capacity.quadratic_loss(weights, coefficients, kurtosis),
        three_valued_loss(weights, coefficients, density),
        rtol=1e-11,  # rounding of the 3^n inputs
    )


def test_loss_is_that_of_samples_of_any_distribution_of_the_kurtosis():
    random = np.random.default_rng(1)
    weights, coefficients = random.normal(size=(2, 4)) / 2, np.array([1.0, 0.7, 0.5, 0.2])
    size = (400_000, 4)
    samples = {
        "normal": (random.normal(size=size), 3.0),
        "uniform": (random.uniform(-(3**0.5), 3**0.5, size), 9 / 5),
        "Laplace": (random.laplace(scale=0.5**0.5, size=size), 6.0),
        "skewed": (random.exponential(size=size) - 1, 9.0),
        "sparse normal": (random.normal(size=size) * (random.random(size) < 0.25) * 2, 12.0),
    }
    for name, (x, kurtosis) in samples.items():
        outputs = ((x @ weights.T) ** 2).sum(axis=1) - x**2 @ coefficients
        # The bias at its optimum, from the theory: its square is part of the mean.
        errors = (outputs + np.sum(coefficients) - np.sum(weights**2)) ** 2
        expected = capacity.quadratic_loss(weights, coefficients, kurtosis)
        z = (errors.mean() - expected) / (errors.std() / np.sqrt(len(errors)))
        assert abs(z) < 4, name


def test_gradient_vmap_and_jit_of_the_loss(x64):
    random = np.random.default_rng(2)
    weights, coefficients = random.normal(size=(2, 3)), np.array([1.0, 0.5, 0.2])
    step = random.normal(size=weights.shape)

    def loss(weights):
        return capacity.quadratic_loss(weights, coefficients, 7.0)

    slope = np.sum(jax.jit(jax.grad(loss))(jnp.asarray(weights)) * step)
    h = 1e-5
    difference = (loss(weights + h * step) - loss(weights - h * step)) / (2 * h)
    np.testing.assert_allclose(slope, difference, rtol=1e-7)  # h^2 and rounding / h
    stacked = jax.vmap(loss)(jnp.stack([weights, 2 * weights]))
    np.testing.assert_allclose(stacked, [loss(weights), loss(2 * weights)], rtol=1e-12)


def test_plain_numbers_are_computed_in_float64():
    weights = jnp.array([[0.3, 0.7]], jnp.float32)
    assert capacity.quadratic_loss(weights, jnp.ones(2), 5.0).dtype == np.float64


@pytest.mark.parametrize("density", [0.2, 1.0])
def test_kurtosis_of_signed_sparse_uniform_is_that_of_its_samples(density):
    distribution = features.SignedSparseUniform(1, density)
    x = np.asarray(distribution.sample(jax.random.key(0), 400_000), np.float64)
    expected = capacity.sparse_kurtosis(density, capacity.UNIFORM_KURTOSIS)
    excess = x**4 - expected * density / 3 * x**2  # of mean 0, for E x^2 = p/3
    assert abs(excess.mean()) < 4 * excess.std() / np.sqrt(len(x))


@pytest.mark.parametrize(
    ("active", "density", "expected"),
    [
        (capacity.SIGN_KURTOSIS, 0.1, 10),
        (capacity.UNIFORM_KURTOSIS, 0.6, 3),  # sparser than this, and features share
        (capacity.GAUSSIAN_KURTOSIS, 1.0, 3),
        (capacity.GAUSSIAN_KURTOSIS, 0.25, 12),
    ],
)
def test_kurtosis_of_sparse_features(active, density, expected):
    np.testing.assert_allclose(capacity.sparse_kurtosis(density, active), expected, rtol=1e-14)


@properties
@given(st.floats(0.001, 1), kurtoses)
def test_feature_loss_is_the_least_over_the_size_of_a_feature(share, kurtosis):
    """A feature of size g and capacity C has interference g^2 (1/C - 1): a parabola in g."""
    fit = optimize.minimize_scalar(
        lambda g: (kurtosis - 1) * (g - 1) ** 2 + 2 * g**2 * (1 / share - 1)
    )
    np.testing.assert_allclose(
        capacity.feature_loss(share, kurtosis), fit.fun, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("kurtosis", [1.1, 2.0, 3.0, 5.0, 30.0])
def test_feature_loss_falls_from_all_to_nothing(kurtosis):
    share = np.linspace(0, 1, 101)
    loss = capacity.feature_loss(share, kurtosis)
    np.testing.assert_allclose(loss[[0, -1]], [kurtosis - 1, 0])
    assert np.all(np.diff(loss) < 0)
    bend = np.diff(loss, 2)
    if kurtosis == 3:
        np.testing.assert_allclose(bend, 0, atol=1e-14)
    else:  # convex above 3, concave below
        assert np.all(np.sign(bend) == np.sign(kurtosis - 3))


@properties
@given(st.floats(0.01, 0.99), kurtoses)
def test_marginal_benefit_is_the_slope_of_the_loss(share, kurtosis):
    h = 1e-6
    above, below = (capacity.feature_loss(share + sign * h, kurtosis) for sign in (1, -1))
    # Rounding, eps k / h, and the third derivative, at most k^4 h^2.
    np.testing.assert_allclose(
        capacity.marginal_benefit(share, kurtosis), (below - above) / (2 * h), rtol=1e-5
    )


@properties
@given(kurtoses)
def test_marginal_benefit_at_the_ends(kurtosis):
    ends = capacity.marginal_benefit(np.array([0.0, 1.0]), kurtosis)
    np.testing.assert_allclose(ends, [(kurtosis - 1) ** 2 / 2, 2], rtol=1e-12)
