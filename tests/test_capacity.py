"""The capacity theory against enumeration, samples, and a minimiser that knows only the model."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import optimize

from toymodels.analysis import geometry
from toymodels.theory import capacity

properties = settings(max_examples=100)
kurtoses = st.floats(1.05, 30)
some_coefficients = hnp.arrays(
    np.float64, st.integers(1, 7), elements=st.just(0.0) | st.floats(0.01, 1)
)


@st.composite
def models(draw):
    """Draw coefficients, hidden dimensions and a kurtosis; ties and zeros are likely."""
    coefficients = draw(some_coefficients)
    hidden = draw(st.integers(0, coefficients.size))
    return coefficients, hidden, draw(kurtoses | st.just(3.0))


@pytest.mark.parametrize(
    ("kurtosis", "ratio", "share", "loss"),
    [
        (5.0, 0.525, 0.96721, 1.09917),
        (5.0, 1.0, 0.5, 2.66667),
        (9.0, 0.2625, 0.98680, 0.54992),
        (9.0, 1.0, 0.5, 3.2),
    ],
)
def test_two_features_in_one_dimension(kurtosis, ratio, share, loss):
    """The expected values come from an independent minimisation over W, to all digits."""
    coefficients = np.array([1.0, ratio])
    actual = capacity.optimal_capacities(coefficients, 1, kurtosis)
    np.testing.assert_allclose(actual, [share, 1 - share], atol=5e-6)
    np.testing.assert_allclose(capacity.optimal_loss(coefficients, 1, kurtosis), loss, atol=5e-6)


@properties
@given(st.floats(3.01, 30), st.floats(0.01, 1))
def test_two_features_in_one_dimension_in_closed_form(kurtosis, ratio):
    first = ((kurtosis - 1) - 2 * ratio) / ((kurtosis - 3) * (1 + ratio))
    np.testing.assert_allclose(
        capacity.optimal_capacities(np.array([1.0, ratio]), 1, kurtosis)[0],
        min(first, 1),
        rtol=1e-11,  # eps / (k - 3)
    )


@pytest.mark.parametrize(
    ("n", "hidden", "loss"),
    [
        (4, 2, 6.769231),
        (6, 3, 10.153846),
        (5, 2, 11.785714),
        (3, 2, 2.75),
        (8, 4, 13.538462),
        (8, 0, 88.0),
        (8, 8, 0.0),
    ],
)
def test_equal_features_share_equally(n, hidden, loss):
    """The loss of n features in m dimensions is n F(m / n), here for a kurtosis of 12."""
    np.testing.assert_allclose(capacity.optimal_capacities(np.ones(n), hidden, 12.0), hidden / n)
    np.testing.assert_allclose(capacity.optimal_loss(np.ones(n), hidden, 12.0), loss, atol=5e-7)


def min_loss(coefficients, signs, kurtosis, starts):
    """Return the lowest minimum over W of the variance of the error of x' W' diag(signs) W x."""
    n, hidden, random = len(coefficients), len(signs), np.random.default_rng(0)
    itself = np.eye(n, dtype=bool)

    def loss_and_gradient(flat):
        weights = flat.reshape(hidden, n)
        signed = np.array(signs)[:, None] * weights
        error = weights.T @ signed - np.diag(coefficients)
        cost = np.where(itself, kurtosis - 1, 2.0)
        return np.sum(cost * error**2), (4 * signed @ (cost * error)).ravel()

    fits = [
        optimize.minimize(loss_and_gradient, start, jac=True, options={"gtol": 1e-9})
        for start in random.normal(0, 0.5, (starts, hidden * n))
    ]
    return min(fit.fun for fit in fits)


@settings(max_examples=25)
@given(st.data())
def test_no_weights_are_better_than_water_filling(data):
    n = data.draw(st.integers(2, 5))
    hidden = data.draw(st.integers(1, n - 1))
    coefficients = data.draw(hnp.arrays(np.float64, n, elements=st.floats(0.1, 1)))
    kurtosis = data.draw(st.floats(1.3, 15))
    optimal = capacity.optimal_loss(coefficients, hidden, kurtosis)
    # Below a kurtosis of 3 every choice of `hidden` features is a minimum.
    found = min_loss(coefficients, [1] * hidden, kurtosis, starts=6 if kurtosis > 3 else 30)
    np.testing.assert_allclose(found, optimal, rtol=1e-6)
    signs = [-1] + [1] * (hidden - 1)
    assert min_loss(coefficients, signs, kurtosis, starts=6) >= optimal * (1 - 1e-6)


@properties
@given(models())
def test_optimal_weights_attain_the_optimum(model):
    coefficients, hidden, kurtosis = model
    weights = capacity.optimal_weights(coefficients, hidden, kurtosis)
    assert weights.shape == (hidden, coefficients.size)
    np.testing.assert_allclose(
        capacity.quadratic_loss(weights, coefficients, kurtosis),
        capacity.optimal_loss(coefficients, hidden, kurtosis),
        rtol=1e-10,
        atol=1e-10,
    )
    # Weights of one shape for all compile once; zeros count for nothing.
    padded = np.pad(weights, [(0, 7 - hidden), (0, 7 - coefficients.size)])
    with jax.enable_x64(True):
        measured = jax.jit(geometry.feature_dimensionality)(padded)[: coefficients.size]
    np.testing.assert_allclose(
        measured, capacity.optimal_capacities(coefficients, hidden, kurtosis), atol=1e-9
    )


def test_optimal_weights_show_their_blocks():
    """A feature of capacity 1 is exactly alone on an axis, and one of capacity 0 is exactly 0."""
    random = np.random.default_rng(0)
    for _ in range(100):
        coefficients = random.exponential(size=11)
        kurtosis = 3 + random.exponential(6)
        shares = capacity.optimal_capacities(coefficients, 6, kurtosis)
        gram = np.square(capacity.optimal_weights(coefficients, 6, kurtosis)).T
        gram = gram @ gram.T  # of squares: nothing cancels
        assert not gram[shares == 0].any()
        np.testing.assert_array_equal(np.count_nonzero(gram[shares == 1], axis=1), 1)


@properties
@given(models())
def test_capacities_obey_the_conditions_of_an_optimum(model):
    """The conditions of Karush, Kuhn and Tucker hold.

    They are sufficient for a kurtosis above 3, where the loss is convex.
    """
    coefficients, hidden, kurtosis = model
    shares = capacity.optimal_capacities(coefficients, hidden, kurtosis)
    assert shares.min() >= 0
    assert shares.max() <= 1
    budget = min(hidden, np.count_nonzero(coefficients))
    np.testing.assert_allclose(shares.sum(), budget, atol=1e-12)
    if kurtosis < 3:
        assert set(shares) <= {0, 1}
        return
    benefit = coefficients**2 * capacity.marginal_benefit(shares, kurtosis)
    # Who could give must not value it less than anyone who could take does.
    gives, takes = benefit[shares > 1e-9], benefit[shares < 1 - 1e-9]
    if gives.size and takes.size:
        assert gives.min() >= takes.max() * (1 - 1e-6)


@properties
@given(models(), st.randoms(use_true_random=False), st.floats(0.001, 1000))
def test_order_and_scale_of_the_coefficients_do_not_matter(model, random, scale):
    coefficients, hidden, kurtosis = model
    order = np.array(random.sample(range(coefficients.size), coefficients.size))
    loss = capacity.optimal_loss(coefficients, hidden, kurtosis)
    permuted = capacity.optimal_loss(scale * coefficients[order], hidden, kurtosis)
    np.testing.assert_allclose(permuted, scale**2 * loss, rtol=1e-9, atol=1e-12)
    if kurtosis > 3.05:  # unique
        np.testing.assert_allclose(
            capacity.optimal_capacities(scale * coefficients[order], hidden, kurtosis),
            capacity.optimal_capacities(coefficients, hidden, kurtosis)[order],
            atol=1e-9,
        )


@properties
@given(models())
def test_more_dimensions_and_more_kurtosis(model):
    """One more dimension cannot hurt, and the loss of fixed weights grows with the kurtosis."""
    coefficients, hidden, kurtosis = model
    loss = capacity.optimal_loss(coefficients, hidden, kurtosis)
    if hidden < coefficients.size:
        assert capacity.optimal_loss(coefficients, hidden + 1, kurtosis) <= loss + 1e-12
    assert capacity.optimal_loss(coefficients, hidden, kurtosis + 1) >= loss - 1e-12


@properties
@given(some_coefficients, st.data())
def test_gaussian_features_are_a_truncated_singular_value_decomposition(coefficients, data):
    hidden = data.draw(st.integers(0, coefficients.size))
    lost = np.sort(coefficients)[: coefficients.size - hidden]  # Eckart and Young
    for kurtosis in (3.0, 3.0 + 1e-9):
        np.testing.assert_allclose(
            capacity.optimal_loss(coefficients, hidden, kurtosis),
            2 * np.sum(lost**2),
            rtol=1e-8,
            atol=1e-12,
        )


@properties
@given(some_coefficients, st.data())
def test_below_a_kurtosis_of_3_the_greatest_have_a_dimension_each(coefficients, data):
    hidden = data.draw(st.integers(0, coefficients.size))
    kurtosis = data.draw(st.floats(1.05, 2.99))
    lost = np.sort(coefficients)[: coefficients.size - hidden]
    np.testing.assert_allclose(
        capacity.optimal_loss(coefficients, hidden, kurtosis),
        (kurtosis - 1) * np.sum(lost**2),
        rtol=1e-12,
        atol=1e-15,
    )


def test_in_the_sparse_limit_capacity_is_proportional_to_the_coefficient():
    coefficients = np.array([0.9, 0.7, 0.5, 0.3])
    shares = capacity.optimal_capacities(coefficients, 2, 1e9)
    np.testing.assert_allclose(shares, 2 * coefficients / coefficients.sum(), rtol=1e-7)


@properties
@given(kurtoses, st.integers(1, 4), st.floats(0.001, 0.5))
def test_superposition_begins_at_the_sharing_ratio(kurtosis, hidden, distance):
    boundary = capacity.sharing_ratio(kurtosis)
    for ratio in (boundary * (1 - distance), min(boundary * (1 + distance), 1.0)):
        coefficients = np.array([*(4.0, 3.0, 2.0, 1.0)[-hidden:], min(ratio, 1), 0.01])
        shares = capacity.optimal_capacities(coefficients, hidden, kurtosis)
        superposed = np.any((shares > 1e-12) & (shares < 1 - 1e-12))
        assert superposed == (ratio > boundary)


@properties
@given(st.floats(1.1, 2.9), st.floats(0.1, 0.9))
def test_below_a_kurtosis_of_3_a_lesser_feature_can_lock_out_a_greater_one(kurtosis, lesser):
    """Weights of the lesser feature alone are a minimum up to the boundary.

    They are a minimum if a small weight of the greater feature raises the loss.
    """
    boundary = capacity.sharing_ratio(kurtosis)
    weights = np.array([[1e-4, np.sqrt(lesser)]])
    for greater in (lesser * (boundary - 0.05), lesser * (boundary + 0.05)):
        coefficients = np.array([greater, lesser])
        there = capacity.quadratic_loss(weights, coefficients, kurtosis)
        before = capacity.quadratic_loss(weights * [[0, 1]], coefficients, kurtosis)
        assert (there > before) == (greater / lesser < boundary)


def test_extreme_coefficients_are_no_special_case():
    coefficients = np.array([1e307, 1e-300, 5e-324, 1e307])
    shares = capacity.optimal_capacities(coefficients, 1, 10.0)
    np.testing.assert_allclose(shares, [0.5, 0, 0, 0.5], atol=1e-15)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: capacity.sparse_kurtosis(0.0, 3.0), "density is 0"),
        (lambda: capacity.sparse_kurtosis(0.5, 0.9), "kurtosis is 0.9"),
        (lambda: capacity.quadratic_loss(np.ones((1, 2)), np.ones(2), 0.5), "kurtosis is 0.5"),
        (lambda: capacity.quadratic_loss(np.ones((1, 2)), np.ones(3), 5.0), r"give \(2,\)"),
        (lambda: capacity.feature_loss(1.1, 5.0), "capacity is 1.1"),
        (lambda: capacity.marginal_benefit(0.5, 1.0), "kurtosis is 1, outside"),
        (lambda: capacity.sharing_ratio(1.0), "a bias predicts it"),
        (lambda: capacity.optimal_loss(np.array([1.0, -1.0]), 1, 5.0), "coefficient is -1"),
        (lambda: capacity.optimal_loss(np.array([1.0, np.nan]), 1, 5.0), "coefficient is nan"),
        (lambda: capacity.optimal_loss(np.ones(2), 3, 5.0), "hidden is 3, more than the 2"),
        (lambda: capacity.optimal_loss(np.ones(2), -1, 5.0), "hidden is -1"),
        (lambda: capacity.optimal_weights(np.ones(2), 1, 0.5), "kurtosis is 0.5"),
    ],
)
def test_impossible_numbers_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
