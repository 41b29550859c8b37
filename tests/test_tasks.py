"""The loss of a task against its formula in float64 and its symmetries, and its refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toymodels import SparseUniform, Task, geometric_importance
from toymodels.errors import InputError

properties = settings(max_examples=50)

quarters = st.integers(-12, 12).map(lambda k: k / 4)  # all arithmetic below is exact in float32


@st.composite
def three_vectors(draw):
    """Draw features, outputs and importances of equal length."""
    length = draw(st.integers(1, 4))
    features, outputs, importance = (
        draw(hnp.arrays(np.float64, length, elements=quarters)) for _ in range(3)
    )
    return features, outputs, np.abs(importance)


def loss(features, outputs, importance=1.0, **options):
    task = Task(SparseUniform(len(features), 0.5), importance=importance, **options)
    return task.loss(jnp.asarray(features, jnp.float32), jnp.asarray(outputs, jnp.float32))


@properties
@given(three_vectors())
def test_loss_is_the_weighted_sum_of_squared_errors(vectors):
    features, outputs, importance = vectors
    expected = sum(i * (x - y) ** 2 for x, y, i in zip(*vectors, strict=True))
    assert loss(features, outputs, jnp.asarray(importance)) == expected


@properties
@given(three_vectors(), quarters.map(abs))
def test_one_importance_is_the_same_for_all_outputs(vectors, importance):
    features, outputs, _ = vectors
    several = jnp.full(len(features), importance)
    assert loss(features, outputs, importance) == loss(features, outputs, several)


@properties
@given(three_vectors())
def test_loss_is_zero_exactly_if_all_that_matters_is_right(vectors):
    features, outputs, importance = vectors
    right = np.all((features == outputs) | (importance == 0))
    assert (loss(features, outputs, jnp.asarray(importance)) == 0) == right
    assert loss(features, features, jnp.asarray(importance)) == 0


@properties
@given(three_vectors(), quarters.map(abs))
def test_loss_is_proportional_to_importance(vectors, factor):
    features, outputs, importance = vectors
    scaled = loss(features, outputs, jnp.asarray(factor * importance))
    assert scaled == factor * loss(features, outputs, jnp.asarray(importance))


def test_loss_of_the_notebook_is_the_loss_over_the_number_of_features():
    generator = np.random.default_rng(0)
    features, outputs = generator.uniform(size=(2, 64, 5))
    importance = 0.9 ** np.arange(5)
    mean = np.mean(importance * (np.abs(features) - outputs) ** 2)  # over batch and features
    task = Task(SparseUniform(5, 0.5), importance=jnp.asarray(importance))
    losses = jax.vmap(task.loss)(jnp.asarray(features), jnp.asarray(outputs))
    np.testing.assert_allclose(losses.mean() / 5, mean, rtol=1e-6)


def test_an_absolute_value_is_asked_for():
    assert loss([-1, 2, -3], [1, 2, 3], target=jnp.abs) == 0
    assert loss([-1, 2, -3], [-1, 2, 3], jnp.array([0.5, 1, 1]), target=jnp.abs) == 2


def test_a_target_may_have_fewer_outputs_than_features():
    assert loss([1, 2, 3], [4, 5], jnp.array([1.0, 10.0]), target=lambda x: x[1:]) == 4 + 40


def test_a_sequence_has_the_sum_of_the_losses_of_its_positions():
    generator = np.random.default_rng(0)
    sequence, outputs = generator.integers(-3, 4, (2, 4, 3)).astype(float)
    importance = jnp.array([1.0, 2.0, 0.5])
    expected = sum(loss(*pair, importance) for pair in zip(sequence, outputs, strict=True))
    task = Task(SparseUniform(3, 0.5), importance=importance)
    assert task.loss(jnp.asarray(sequence), jnp.asarray(outputs)) == expected
    whole = Task(SparseUniform(3, 0.5), importance=jnp.tile(importance, (4, 1)))
    assert whole.loss(jnp.asarray(sequence), jnp.asarray(outputs)) == expected


def test_an_example_with_a_label_needs_a_target():
    example = {"inputs": jnp.ones(3), "label": jnp.array([2.0])}
    task = Task(SparseUniform(3, 0.5), target=lambda example: example["label"])
    assert task.loss(example, jnp.array([5.0])) == 9
    with pytest.raises(InputError, match=r"^the target is \{'inputs': .*: give the task a target="):
        Task(SparseUniform(3, 0.5)).loss(example, jnp.array([5.0]))


def test_gradient_of_the_loss():
    gradient = jax.grad(lambda y: loss([1.0, 2.0], y, jnp.array([1.0, 3.0])))(jnp.zeros(2))
    np.testing.assert_array_equal(gradient, [-2, -12])  # -2 I (x - y)


def test_importance_is_a_leaf_and_target_is_not():
    task = Task(SparseUniform(3, 0.25), target=jnp.abs, importance=0.5)
    assert jax.tree.leaves(task) == [0.25, 0.5]
    assert jax.tree.map(lambda number: number, task) == task


def test_a_swept_importance_gives_each_loss():
    ratios = jnp.array([0.0, 0.5, 2.0])
    features, outputs = jnp.array([1.0, 2.0, 4.0]), jnp.zeros(3)
    swept = jax.vmap(lambda r: loss(features, outputs, geometric_importance(3, r)))(ratios)
    np.testing.assert_array_equal(swept, [1, 1 + 2 + 4, 1 + 8 + 64])


@properties
@given(st.integers(1, 6), st.floats(0, 4, width=32))
def test_geometric_importance_is_a_power(num_features, ratio):
    expected = np.float64(ratio) ** np.arange(num_features)
    # One rounding for each of at most five products; the smallest float32 are flushed to 0.
    tiny = np.finfo(np.float32).tiny
    actual = geometric_importance(num_features, ratio)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=tiny)


@pytest.mark.parametrize("num_features", [1, 2, 4])
def test_geometric_importance_at_zero(num_features):
    first, second = np.arange(num_features) == 0, np.arange(num_features) == 1
    power = jax.tree_util.Partial(geometric_importance, num_features)
    np.testing.assert_array_equal(power(0.0), first)
    np.testing.assert_array_equal(jax.jacrev(power)(0.0), second)
    np.testing.assert_array_equal(jax.jacfwd(power)(0.0), second)


@pytest.mark.parametrize(
    ("importance", "message"),
    [
        (-1.0, r"^importance is -1, outside \[0, inf\]: give weights of 0 or more$"),
        (jnp.array([1.0, 1.0, -0.5]), r"^importance is -0.5, outside .*$"),
        (float("nan"), r"^importance is nan, outside .*$"),
        (jnp.ones(2), r"^importance has shape \(2,\): .* one for each of the 3 outputs$"),
        (jnp.ones((3, 1)), r"^importance has shape \(3, 1\): .*$"),
    ],
)
def test_importance_that_makes_no_sense_is_refused(importance, message):
    with pytest.raises(InputError, match=message):
        loss([1, 2, 3], [1, 2, 3], importance)


def test_a_target_unlike_the_outputs_is_refused():
    with pytest.raises(InputError, match=r"target has shape \(1,\) but the model gives \(2,\).*"):
        loss([1, 2], [1, 2], target=lambda x: x[:1])


@pytest.mark.parametrize("ratio", [-0.5, float("nan")])
def test_a_ratio_that_makes_no_sense_is_refused(ratio):
    with pytest.raises(InputError, match=f"^importance ratio is {ratio}, outside"):
        geometric_importance(3, ratio)


def test_an_importance_of_no_feature_is_refused():
    with pytest.raises(InputError, match=r"^num_features is 0: give a whole number, 1 or more$"):
        geometric_importance(0, 0.5)
