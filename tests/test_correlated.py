"""The exact loss of sets of features against samples, closed forms and the independent case."""

import arrangements
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from jaxtyping import TypeCheckError

import toymodels as tm
from toymodels.theory import (
    expected_loss,
    expected_loss_anticorrelated,
    expected_loss_correlated,
    expected_loss_one_active,
)

LOSSES = {
    tm.CorrelatedSets: expected_loss_correlated,
    tm.AnticorrelatedSets: expected_loss_anticorrelated,
}
both_kinds = pytest.mark.parametrize("loss", LOSSES.values())
properties = settings(max_examples=15)
probabilities = st.floats(0, 1)
seeds = st.integers(0, 2**16)


def random_model(seed, num_features):
    """Return weights, bias and importance; sets have densities of their own."""
    weights, bias, _, importance = arrangements.random_model(seed, num_features, 2)
    return weights, bias, importance


@pytest.mark.parametrize("features", LOSSES)
@pytest.mark.parametrize(("sets", "size"), [(2, 2), (1, 4)])
def test_the_loss_of_sets_is_the_mean_over_samples(features, sets, size):
    weights, bias, importance = random_model(sets, sets * size)
    density = np.linspace(0.7, 0.2, sets)
    with jax.enable_x64(True):
        sample = features(sets, size, jnp.asarray(density)).sample(jax.random.key(0), 400_000)
    x = np.asarray(sample)
    outputs = np.maximum(x @ weights.T @ weights + bias, 0)
    errors = (x - outputs) ** 2 @ importance
    actual = LOSSES[features](weights, bias, density, importance, num_sets=sets)
    assert abs(errors.mean() - actual) < 4 * errors.std() / len(x) ** 0.5


@both_kinds
@properties
@given(seeds, st.lists(probabilities, min_size=4, max_size=4))
def test_sets_of_one_are_independent(loss, seed, density):
    weights, bias, importance = random_model(seed, 4)
    density = np.array(density)
    np.testing.assert_allclose(
        loss(weights, bias, density, importance, num_sets=4),
        expected_loss(weights, bias, density, importance),
        rtol=1e-12,
    )


@properties
@given(seeds)
def test_correlated_sets_that_are_always_present_are_independent(seed):
    weights, bias, importance = random_model(seed, 4)
    np.testing.assert_allclose(
        expected_loss_correlated(weights, bias, 1.0, importance, num_sets=2),
        expected_loss(weights, bias, 1.0, importance),
        rtol=1e-12,
    )


@properties
@given(seeds)
def test_one_anticorrelated_set_has_one_active_feature(seed):
    weights, bias, importance = random_model(seed, 4)
    np.testing.assert_allclose(
        expected_loss_anticorrelated(weights, bias, 1.0, importance, num_sets=1),
        expected_loss_one_active(weights, bias, importance),
        rtol=1e-12,
    )


@both_kinds
@properties
@given(seeds, probabilities, probabilities)
def test_a_set_is_present_or_not(loss, seed, density, other):
    """The loss is affine in the density of each set."""
    weights, bias, importance = random_model(seed, 4)

    def at(density):
        numbers = np.array([density, other])
        return loss(weights, bias, numbers, importance, num_sets=2)

    np.testing.assert_allclose(at(density), (1 - density) * at(0.0) + density * at(1.0), rtol=1e-11)


@both_kinds
@properties
@given(seeds, st.permutations(range(2)), st.permutations(range(2)), st.permutations(range(2)))
def test_members_and_sets_may_change_places(loss, seed, sets, first, second):
    weights, bias, importance = random_model(seed, 4)
    density = np.array([0.7, 0.2])
    order = np.array([first, second])[sets] + 2 * np.array(sets)[:, None]
    order = order.ravel()
    np.testing.assert_allclose(
        loss(weights[:, order], bias[order], density[sets], importance[order], num_sets=2),
        loss(weights, bias, density, importance, num_sets=2),
        rtol=1e-12,
    )


@pytest.mark.parametrize("density", [1e-3, 0.05, 0.3, 1.0])
@pytest.mark.parametrize(("sets", "size"), [(2, 2), (2, 3)])
def test_a_direction_for_each_set_leaves_the_other_principal_components(sets, size, density):
    """Each of the `size - 1` that a set loses has the variance 1/12 where the set is present."""
    weights = np.kron(np.eye(sets), np.ones(size)) / size**0.5
    actual = expected_loss_correlated(weights, np.zeros(sets * size), density, num_sets=sets)
    np.testing.assert_allclose(actual, sets * (size - 1) * density / 12, rtol=1e-12)


@pytest.mark.parametrize("density", [1e-3, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("size", [2, 3])
def test_opposite_features_of_two_sets_are_wrong_only_where_both_are_present(size, density):
    """Two opposite features a and b are both wrong by min(a, b), whose mean square is 1/6."""
    weights = np.hstack([np.eye(size), -np.eye(size)])  # for 3, an octahedron
    actual = expected_loss_correlated(weights, np.zeros(2 * size), density, num_sets=2)
    np.testing.assert_allclose(actual, size * density**2 / 3, rtol=1e-12)


@given(st.tuples(probabilities, probabilities))
@properties
def test_opposite_features_of_an_anticorrelated_set_cost_nothing(density):
    weights = np.kron(np.eye(2), [1.0, -1.0])
    loss = expected_loss_anticorrelated(weights, np.zeros(4), np.array(density), num_sets=2)
    assert abs(loss) < 1e-15


@both_kinds
def test_tracing_changes_nothing(loss, x64):
    weights, bias, importance = random_model(0, 4)
    expected = [loss(weights, bias, p, importance, num_sets=2) for p in (0.0, 0.3, 1.0)]
    traced = jax.jit(
        jax.vmap(lambda p: loss(weights, bias, p, importance, num_sets=2))
    )(jnp.array([0.0, 0.3, 1.0]))  # fmt: skip
    np.testing.assert_allclose(traced, expected, rtol=1e-13)


@both_kinds
def test_slopes_are_those_of_differences(loss, x64):
    weights, bias, importance = random_model(1, 2)
    check_grads(
        lambda weights, bias, density: loss(weights, bias, density, importance, num_sets=1),
        (jnp.asarray(weights), jnp.asarray(bias), jnp.asarray(0.4)),
        order=1, modes="rev",
    )  # fmt: skip


def test_plain_numbers_are_computed_in_float64():
    weights, bias, _ = random_model(2, 4)
    loss = expected_loss_correlated(weights.astype(np.float32), bias.astype(np.float32), 0.3,
                                    num_sets=2)  # fmt: skip
    assert isinstance(loss, np.ndarray)
    assert loss.dtype == np.float64


@both_kinds
@pytest.mark.parametrize(
    ("features", "density", "sets", "message"),
    [
        (4, 1.5, 2, r"^density is 1\.5, outside \[0, 1\]: .* that a set is not zero$"),
        (4, np.array([0.1, -0.1]), 2, r"^density is -0\.1"),
        (4, np.array([0.1, 0.2, 0.1, 0.1]), 2, r"^density is .*give one number per set$"),
        (4, np.full(3, 0.1), 2, r"^density has shape \(3,\): give one number or 2, one per set$"),
        (4, 0.1, 3, r"^4 features do not make 3 equal sets"),
        (4, 0.1, 0, r"^num_sets is 0"),
        (14, 0.1, 7, r"^14 features are more than the 12 .*toymodels\.evaluate$"),
    ],
)
def test_sets_that_make_no_sense_are_refused(loss, features, density, sets, message):
    weights, bias, _ = random_model(0, features)
    with pytest.raises(ValueError, match=message):
        loss(weights, bias, density, num_sets=sets)


@both_kinds
def test_a_bad_model_is_refused(loss):
    weights, bias, _ = random_model(0, 4)
    with pytest.raises((ValueError, TypeCheckError), match="bias"):
        loss(weights, bias[:3], 0.5, num_sets=2)
    with pytest.raises(ValueError, match="importance is -1"):
        loss(weights, bias, 0.5, -1.0, num_sets=2)
