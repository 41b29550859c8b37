"""Theorems about losses, optima and arrangements, and inequalities that training cannot break."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrangements import orthoplex, random_model, variance
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from toymodels import features
from toymodels.analysis import geometry
from toymodels.theory import bounds, minima
from toymodels.theory.loss import (
    expected_loss,
    expected_loss_linear,
    expected_loss_one_active,
)
from toymodels.theory.minima import optimum
from toymodels.theory.starts import starts

properties = settings(max_examples=60)
few = settings(max_examples=3)

seeds = st.integers(0, 2**32 - 1)
numbers = st.floats(0.05, 0.95)
triples = st.tuples(numbers, numbers, numbers)


def orthonormal_columns(seed, rows, columns):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(rows, columns)))[0]


def direct_sum(*models):
    weights = linalg.block_diag(*(weights for weights, *_ in models))
    return weights, *(np.concatenate([model[part] for model in models]) for part in (1, 2, 3))


# Symmetries and exact values.


@pytest.mark.parametrize("seed", range(3))
def test_a_loss_knows_only_dot_products(seed):
    """Unused dimensions and rotations change nothing."""
    weights, bias, density, importance = random_model(seed, 4, 2)
    elsewhere = orthonormal_columns(seed, 5, 2) @ weights
    for loss in (
        lambda w: expected_loss(w, bias, density, importance),
        lambda w: expected_loss_one_active(w, bias, importance),
    ):
        np.testing.assert_allclose(loss(elsewhere), loss(weights), rtol=1e-13)


def test_with_one_active_feature_the_names_of_features_do_not_matter():
    weights, bias, _, importance = random_model(0, 5, 2)
    order = [3, 0, 4, 2, 1]
    np.testing.assert_allclose(
        expected_loss_one_active(weights[:, order], bias[order], importance[order]),
        expected_loss_one_active(weights, bias, importance),
        rtol=1e-13,
    )


@pytest.mark.parametrize(("hidden", "num_features"), [(2, 2), (5, 4)])
def test_with_a_dimension_for_each_feature_nothing_is_lost(hidden, num_features):
    """The columns are any orthonormal frame, which is [I; 0] up to a rotation."""
    weights = orthonormal_columns(0, hidden, num_features)
    for density in (0.1, 1.0):
        for frame in (weights, np.eye(hidden, num_features)):
            loss = expected_loss(frame, np.zeros(num_features), density, 1.0)
            np.testing.assert_allclose(loss, 0, atol=1e-14)


@pytest.mark.parametrize("hidden", [1, 2])
def test_antipodal_pairs_lose_nothing_until_both_of_a_pair_are_active(hidden):
    """Each output of an active pair misses by the smaller of the two, and E min(U, U')^2 = 1/6."""
    weights, bias = orthoplex(hidden), np.zeros(2 * hidden)
    np.testing.assert_allclose(expected_loss_one_active(weights, bias, 1.0), 0, atol=1e-15)
    density, importance = random_model(hidden, 2 * hidden, 1)[2:]
    both = density[:hidden] * density[hidden:]
    expected = (importance[:hidden] + importance[hidden:]) @ both / 6
    actual = expected_loss(weights, bias, density, importance)
    np.testing.assert_allclose(actual, expected, rtol=1e-13)
    uniform = np.random.default_rng(0).random((2, 400_000)).min(axis=0) ** 2
    error = uniform.std() / np.sqrt(uniform.size)
    np.testing.assert_allclose(uniform.mean(), 1 / 6, rtol=0, atol=4 * error)


def test_a_little_bias_always_helps_an_antipodal_pair(x64):
    r"""$\partial L / \partial b_i = -2 E[x_j; x_j < x_i] = -p_i p_j / 3$ at $b = 0$."""
    weights = jnp.array([[1.0, -1.0]])
    density, importance = jnp.array([0.4, 0.7]), jnp.array([1.0, 2.5])

    def loss(bias):
        return expected_loss(weights, bias, density, importance)

    expected = -importance * density.prod() / 3
    slope = jax.jit(jax.grad(loss))(jnp.zeros(2))
    np.testing.assert_allclose(slope, expected, rtol=1e-13)
    step = 1e-6  # from above: the loss is once differentiable
    ahead = [(loss(step * axis) - loss(np.zeros(2))) / step for axis in np.eye(2)]
    np.testing.assert_allclose(ahead, expected, rtol=1e-5)


@pytest.mark.parametrize("density", [0.01, 0.3, 0.6, 0.9, 0.99])
def test_a_pair_is_better_than_one_feature_of_two_equal_ones(density):
    r"""The pair wins at every density below 1, and not only below 4/7.

    A pair of unit length without bias wins below 4/7. With length $1/\sqrt2$ and the mean as
    bias the linear model is as good as one feature, and the ReLU cuts off outputs below 0,
    where no target is.
    """
    weights, bias = np.array([[1.0, -1.0]]) / np.sqrt(2), np.full(2, density / 2)
    one = variance(density)
    np.testing.assert_allclose(expected_loss_linear(weights, bias, density, 1.0), one, rtol=1e-13)
    assert expected_loss(weights, bias, density, 1.0) < one * (1 - 1e-10)  # by 1e-8 at 0.99


@properties
@given(seeds, st.sampled_from([(3, 1), (4, 2)]))
def test_a_rectifier_helps_every_model_of_positive_features(seed, shape):
    """A target is not negative, so it is nearer to an output cut off at 0: for each input."""
    model = random_model(seed, *shape)
    assert expected_loss(*model) <= expected_loss_linear(*model) * (1 + 1e-13)


@properties
@given(seeds)
def test_models_that_do_not_interfere_add(seed):
    blocks = [random_model(seed, 1, 1), random_model(seed + 1, 3, 1)]
    for loss in (expected_loss, expected_loss_linear):
        together = loss(*direct_sum(*blocks))
        np.testing.assert_allclose(together, sum(loss(*block) for block in blocks), rtol=1e-12)
    # One active feature is in one of the blocks: the outputs of the others hear nothing.
    shares = [
        bias.size * expected_loss_one_active(weights, bias, importance)
        + (4 - bias.size) * importance @ np.maximum(bias, 0) ** 2
        for weights, bias, _, importance in blocks
    ]
    weights, bias, _, importance = direct_sum(*blocks)
    together = 4 * expected_loss_one_active(weights, bias, importance)
    np.testing.assert_allclose(together, sum(shares), rtol=1e-12)


@properties
@given(seeds, st.sampled_from([(3, 1), (4, 2), (5, 2)]))
def test_only_acute_angles_cost_while_one_feature_is_active(seed, shape):
    r"""$n H = \sum_{i \ne j} \mathrm{ReLU}(\cos)^2 / 3$ at unit length and no bias.

    More than 2 m features cannot all be at right angles or more.
    """
    num_features, hidden = shape
    weights = np.random.default_rng(seed).normal(size=(hidden, num_features))
    weights /= np.linalg.norm(weights, axis=0)
    cosines = (weights.T @ weights)[~np.eye(num_features, dtype=bool)]
    expected = np.sum(np.maximum(cosines, 0) ** 2) / 3
    actual = num_features * expected_loss_one_active(weights, np.zeros(num_features), 1.0)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)
    assert num_features <= 2 * hidden or actual > 1e-6


# The linear model.


@properties
@given(seeds, st.sampled_from([(2, 1), (4, 1), (4, 2), (4, 3)]))
def test_no_linear_model_beats_the_principal_components(seed, shape):
    """The smallest variances are lost, for any weights and bias (Eckart and Young)."""
    weights, bias, density, importance = random_model(seed, *shape)
    lost = np.sort(importance * variance(density))[: shape[0] - shape[1]]
    least = lost.sum()
    assert expected_loss_linear(weights, bias, density, importance) >= least * (1 - 1e-13)
    best = (density - weights.T @ weights @ density) / 2
    assert expected_loss_linear(weights, best, density, importance) >= least * (1 - 1e-13)


@pytest.mark.parametrize("hidden", [1, 2, 3])
def test_equal_features_may_be_mixed_by_a_linear_model_at_no_cost(hidden):
    """All projections of one rank are as good, so only unequal features are kept apart."""
    density = 0.4
    weights = orthonormal_columns(0, 5, hidden).T
    bias = density / 2 * (1 - weights.T @ weights @ np.ones(5))
    np.testing.assert_allclose(
        expected_loss_linear(weights, bias, density, 1.0),
        (5 - hidden) * variance(density),
        rtol=1e-13,
    )
    assert np.abs(weights).min() > 0.01  # mixed


@functools.cache
def linear_descents():
    """Return compiled descents from random weights, which minimise the linear loss."""

    def lowest(weights, bias, density, importance):
        return minima.descend(weights, bias, density, importance, loss=expected_loss_linear)

    return jax.jit(jax.vmap(lowest, (0, 0, None, None)))


@few
@given(seeds)
def test_unequal_features_are_never_superposed_by_a_linear_model(seed):
    r"""The optimal $W^\top W$ projects on the features of most importance times variance."""
    rng = np.random.default_rng(seed)
    density = rng.uniform(0.1, 1, 4)
    worth = rng.permutation([0.3, 0.5, 0.8, 1.2])
    with jax.enable_x64(True):
        begin = 0.7 * rng.normal(size=(8, 2, 4)), 0.3 * rng.normal(size=(8, 4))
        ends = linear_descents()(*begin, density, worth / variance(density))
    weights, _, loss, _ = map(np.asarray, ends)
    best = weights[loss.argmin()]
    np.testing.assert_allclose(best.T @ best, np.diag(worth > 0.6), atol=1e-5)
    np.testing.assert_allclose(loss.min(), 0.8, rtol=1e-9)  # 0.3 + 0.5


# Optima.


@few
@given(triples, triples)
def test_an_optimum_is_subadditive(density, importance):
    """Splitting features and dimensions in two parts is one way to arrange them."""
    density, importance = np.array(density), np.array(importance)
    dropped = importance * variance(density)
    three_in_two = optimum(3, 2, density, importance).loss
    for alone in range(3):
        pair = np.delete(np.arange(3), alone)
        two_in_one = optimum(2, 1, density[pair], importance[pair]).loss
        assert two_in_one <= dropped[pair].min() + 1e-12  # one for one, and one for none
        assert three_in_two <= two_in_one + 1e-12  # two for one, and one for one


@few
@given(triples, triples, triples)
def test_an_optimum_is_concave_in_the_importances(density, first, second):
    """The optimum is the least of functions that are linear in the importances."""
    density, first, second = map(np.array, (density, first, second))
    ends = [optimum(3, 2, density, importance).loss for importance in (first, second)]
    middle = optimum(3, 2, density, (first + second) / 2)
    assert middle.loss >= np.mean(ends) - 1e-12
    tangent = expected_loss(middle.weights, middle.bias, density, first)
    assert ends[0] <= tangent + 1e-12


def penalties(weights):
    """Return the interference and the weight decay."""
    couplings = weights.T @ weights
    interference = jnp.sum(couplings**2) - jnp.sum(jnp.diagonal(couplings) ** 2)
    return jnp.stack([interference, jnp.sum(weights**2)])


@functools.cache
def penalised_descents():
    def lowest(weights, bias, price):
        def loss(weights, bias, density, importance):
            exact = expected_loss(weights, bias, density, importance)
            return exact + price @ penalties(weights)

        return minima.descend(weights, bias, jnp.full(2, 0.3), jnp.ones(2), loss=loss)

    each_start = jax.vmap(lowest, (0, 0, None))
    return jax.jit(jax.vmap(each_start, (None, None, 0)))


@pytest.mark.parametrize("penalty", [0, 1], ids=["interference", "weight decay"])
def test_a_dearer_penalty_buys_less_of_it_at_a_higher_loss(penalty):
    r"""The minimum of $L + \lambda R$ is concave in $\lambda$.

    With $\lambda$ the penalty $R$ falls and $L$ rises.
    """
    prices = np.array([0, 0.01, 0.02, 0.05, 0.2])
    with jax.enable_x64(True):
        begin = starts(jax.random.key(0), 1, jnp.full(2, 0.3), jnp.ones(2), 12)
        ends = penalised_descents()(*begin, prices[:, None] * np.eye(2)[penalty])
        chosen = jax.tree.map(
            lambda values: np.asarray(values)[np.arange(prices.size), np.argmin(ends.loss, axis=1)],
            ends,
        )
    assert chosen.slope.max() < 1e-6
    spent = np.array([penalties(weights)[penalty] for weights in chosen.weights])
    loss = np.array(
        [
            expected_loss(weights, bias, 0.3, 1.0)
            for weights, bias in zip(chosen.weights, chosen.bias, strict=True)
        ]
    )
    assert np.all(np.diff(spent) <= 1e-6)
    assert np.all(np.diff(loss) >= -1e-6)
    assert spent[-1] < spent[0] - 0.1  # it does something
    np.testing.assert_allclose(chosen.loss, loss + prices * spent, rtol=1e-6)
    slopes = np.diff(chosen.loss) / np.diff(prices)
    assert np.all(np.diff(slopes) <= 1e-6)
    # The slope of an interval lies between the penalties that are paid at its two ends.
    assert np.all(slopes <= spent[:-1] + 1e-6)
    assert np.all(slopes >= spent[1:] - 1e-6)


@pytest.mark.parametrize("shape", [(2, 1), (3, 2)])
@pytest.mark.parametrize("density", [0.05, 0.3, 0.7])
def test_minima_obey_the_bounds(shape, density):
    """The bounds are those of rank, of coherence, and of the cost of features not represented."""
    num_features, hidden = shape
    importance = np.array([1.0, 0.8, 0.5])[:num_features]
    for minimum in optimum(*shape, density, importance).minima:
        norms = np.linalg.norm(minimum.weights, axis=0)
        kept = minimum.weights[:, norms > 1e-3] / norms[norms > 1e-3]
        cosines = (kept.T @ kept)[~np.eye(kept.shape[1], dtype=bool)]
        represented = kept.shape[1]
        shares = geometry.feature_dimensionality(jnp.asarray(minimum.weights, jnp.float32))
        assert shares.sum() <= hidden + 1e-5
        if represented > 1:
            cap = min(np.abs(cosines).max(), 1.0)  # not 1 + rounding
            assert represented <= bounds.max_features(hidden, cap)
            if cosines.max() <= 0:
                assert represented <= 2 * hidden
        cost = variance(density) * np.sort(importance)[: num_features - represented]
        assert minimum.loss >= cost.sum() - 1e-12


# Arrangements.


@properties
@given(seeds, st.integers(1, 5), st.integers(1, 12))
def test_frame_potential_is_least_only_for_tight_frames(seed, hidden, more):
    r"""Features of unit length exceed $n^2/m$ by $\lVert F - \tfrac nm 1 \rVert^2$."""
    num_features = hidden + more
    weights = np.random.default_rng(seed).normal(size=(hidden, num_features))
    weights /= np.linalg.norm(weights, axis=0)
    operator = weights @ weights.T
    above = np.sum((weights.T @ weights) ** 2) - bounds.min_frame_potential(
        np.ones(num_features), hidden
    )
    distance = np.sum((operator - num_features / hidden * np.eye(hidden)) ** 2)
    np.testing.assert_allclose(above, distance, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("hidden", "examples"), [(10, 3), (2, 20), (10, 500)])
def test_examples_share_the_dimensions_like_features(hidden, examples):
    """The columns of W X: however many examples, their dimensionalities add up to the rank."""
    x = features.SparseUniform(50, 0.05).sample(jax.random.key(0), examples)
    x = np.asarray(x, np.float64)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    hidden_vectors = np.random.default_rng(0).normal(size=(hidden, 50)) @ x.T
    twice = np.concatenate([hidden_vectors] * 2, axis=1)
    shares, halves = (
        np.asarray(jax.jit(geometry.feature_dimensionality)(jnp.asarray(vectors, jnp.float32)))
        for vectors in (hidden_vectors, twice)
    )
    assert shares.sum() <= np.linalg.matrix_rank(hidden_vectors) * (1 + 1e-5)
    # Each copy of an example that comes twice has half of its dimensionality.
    np.testing.assert_allclose(halves, np.tile(shares, 2) / 2, rtol=1e-4)
