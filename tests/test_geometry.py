"""Facts about arrangements of vectors, and the formulas in float64, one feature at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrangements import direct_sum, polygon, rotation, simplex
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toymodels.analysis import geometry

properties = settings(max_examples=60)

# Each shape costs compilations, so there are few: one row, one column, wide, tall and square.
weight_matrices = hnp.arrays(
    np.float32,
    st.sampled_from([(1, 1), (1, 5), (2, 4), (3, 6), (4, 1), (4, 4), (5, 2)]),
    elements=st.integers(-8, 8).map(lambda k: k / 4),  # dot products are exact in float32
)
seeds = st.integers(0, 2**32 - 1)


def padded(weights):
    """Return weights of one shape for all, which compiles once; zeros count for nothing."""
    hidden, features = weights.shape
    return np.pad(weights, [(0, 16 - hidden), (0, 28 - features)])


def on(measure, weights):
    return np.asarray(jax.jit(measure)(jnp.asarray(weights, jnp.float32)))


tight_frames = st.one_of(
    st.just(np.ones((1, 1))),
    st.just(np.array([[1.0, -1.0]])),
    st.integers(3, 7).map(polygon),
    st.integers(3, 4).map(simplex),
)


@properties
@given(weight_matrices)
def test_formulas_one_feature_at_a_time(weights):
    norms = on(geometry.feature_norms, weights)
    superposition = on(geometry.superposition, weights)
    dimensionality = on(geometry.feature_dimensionality, weights)
    columns = weights.T.astype(np.float64)
    for i, column in enumerate(columns):
        norm = np.sqrt(column @ column)
        np.testing.assert_allclose(norms[i], norm, rtol=1e-6)
        if norm == 0:
            assert superposition[i] == dimensionality[i] == 0
            continue
        squares = [(column / norm @ other) ** 2 for other in columns]
        others = sum(squares[:i] + squares[i + 1 :])
        np.testing.assert_allclose(superposition[i], others, rtol=1e-5, atol=1e-12)
        np.testing.assert_allclose(dimensionality[i], norm**2 / sum(squares), rtol=1e-5)


@properties
@given(weight_matrices)
def test_gram_holds_the_dot_products(weights):
    actual = on(geometry.gram, weights)
    for i, j in np.ndindex(actual.shape):
        assert actual[i, j] == sum(weights[:, i] * weights[:, j])


@pytest.mark.parametrize(
    ("weights", "dimensionality", "superposition"),
    [
        pytest.param(np.eye(3), 1, 0, id="orthogonal"),
        pytest.param([[1, -1]], 1 / 2, 1, id="antipodal pair"),
        pytest.param(polygon(3), 2 / 3, 1 / 2, id="triangle"),
        pytest.param(simplex(3), 3 / 4, 1 / 3, id="tetrahedron"),
        pytest.param(polygon(5), 2 / 5, 3 / 2, id="pentagon"),
    ],
)
def test_regular_arrangements(weights, dimensionality, superposition):
    hidden, features = np.shape(weights)
    np.testing.assert_allclose(
        on(geometry.feature_dimensionality, weights), dimensionality, rtol=1e-5
    )
    np.testing.assert_allclose(
        on(geometry.superposition, weights), superposition, rtol=1e-5, atol=1e-12
    )
    np.testing.assert_allclose(
        on(geometry.dimensions_per_feature, weights), hidden / features, rtol=1e-6
    )


@properties
@given(weight_matrices)
def test_features_share_at_most_the_rank(weights):
    dimensionality = on(geometry.feature_dimensionality, weights)
    assert dimensionality.min() >= 0
    assert dimensionality.max() <= 1 + 1e-6
    assert dimensionality.sum() <= np.linalg.matrix_rank(weights) + 1e-4


@properties
@given(st.lists(tight_frames, min_size=1, max_size=4), seeds)
def test_orthogonal_tight_frames_share_the_whole_rank(frames, seed):
    scales = np.random.default_rng(seed).uniform(0.5, 2, len(frames))
    weights = direct_sum([scale * frame for scale, frame in zip(scales, frames, strict=True)])
    weights = rotation(seed, len(weights)) @ weights
    expected = np.concatenate([np.full(f.shape[1], f.shape[0] / f.shape[1]) for f in frames])
    actual = on(geometry.feature_dimensionality, padded(weights))[: expected.size]
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    np.testing.assert_allclose(actual.sum(), np.linalg.matrix_rank(weights), rtol=1e-5)


def test_unequal_neighbours_waste_some_of_the_rank():
    weights = [[1, 1], [0, 1]]  # rank 2, but no frame
    np.testing.assert_allclose(
        on(geometry.feature_dimensionality, weights), [1 / 2, 4 / 5], rtol=1e-6
    )


@properties
@given(weight_matrices, seeds)
def test_rotating_hidden_space_changes_nothing(weights, seed):
    rotated = rotation(seed, len(weights)) @ weights
    for measure in (
        geometry.gram,
        geometry.feature_norms,
        geometry.superposition,
        geometry.feature_dimensionality,
    ):
        np.testing.assert_allclose(on(measure, rotated), on(measure, weights), rtol=1e-4, atol=1e-5)


@properties
@given(weight_matrices, seeds)
def test_relabelling_features_relabels_the_answers(weights, seed):
    order = np.random.default_rng(seed).permutation(weights.shape[1])
    for measure in (
        geometry.feature_norms,
        geometry.superposition,
        geometry.feature_dimensionality,
    ):
        np.testing.assert_allclose(
            on(measure, weights[:, order]), on(measure, weights)[order], rtol=1e-5
        )


@properties
@given(weight_matrices, st.sampled_from([1e-12, 0.1, 1e3]))
def test_scale_changes_superposition_but_no_dimensionality(weights, scale):
    np.testing.assert_allclose(
        on(geometry.feature_dimensionality, scale * weights),
        on(geometry.feature_dimensionality, weights),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        on(geometry.superposition, scale * weights),
        scale**2 * on(geometry.superposition, weights),
        rtol=1e-5,
    )


@properties
@given(weight_matrices)
def test_superposition_is_zero_exactly_for_orthogonal_features(weights):
    products = weights.T.astype(np.float64) @ weights
    np.fill_diagonal(products, 0)
    np.testing.assert_array_equal(
        on(geometry.superposition, weights) == 0, np.all(products == 0, axis=1)
    )


def test_frobenius_norm_counts_features():
    weights = np.eye(3, 5)
    np.testing.assert_allclose(on(geometry.dimensions_per_feature, weights), 1)
    np.testing.assert_allclose(on(geometry.dimensions_per_feature, 2 * weights), 1 / 4)
    assert on(geometry.dimensions_per_feature, np.zeros((3, 5))) == np.inf
    assert np.isnan(on(geometry.dimensions_per_feature, np.diag([np.inf, 1.0])))


@pytest.mark.parametrize(("threshold", "count"), [(0.0, 3), (0.25, 2), (0.5, 1), (1.0, 0)])
def test_features_above_the_threshold_are_counted(threshold, count):
    weights = jnp.array([[0.0, 0.0, 0.5, 0.0], [0.0, 1.0, 0.0, -0.25]])
    assert geometry.num_represented(weights, threshold=threshold) == count


def test_a_negative_threshold_is_refused():
    with pytest.raises(ValueError, match="threshold is -1"):
        geometry.num_represented(jnp.eye(2), threshold=-1.0)


@pytest.mark.parametrize(
    "measure", [geometry.feature_norms, geometry.superposition, geometry.feature_dimensionality]
)
@pytest.mark.parametrize("weights", [[[1.0, 0.0, -1.0]], [[0.0, 0.0], [0.0, 0.0]]])
def test_a_zero_column_counts_for_nothing_and_has_a_finite_gradient(measure, weights):
    weights = jnp.array(weights)
    zero = np.all(weights == 0, axis=0)
    np.testing.assert_array_equal(on(measure, weights)[zero], 0)
    for derivative in (jax.jacrev(measure), jax.jacfwd(measure)):
        gradient = np.asarray(jax.jit(derivative)(weights))
        assert np.all(np.isfinite(gradient))
        np.testing.assert_array_equal(gradient[:, :, zero], 0)


@properties
@given(st.lists(st.tuples(tight_frames, st.floats(0.5, 2)), min_size=1, max_size=4), seeds)
def test_features_of_tight_frames_are_eigenvectors(frames, seed):
    weights = direct_sum([scale * frame for frame, scale in frames])
    turned = rotation(seed, weights.shape[0]) @ weights
    np.testing.assert_allclose(on(geometry.eigenvector_residual, padded(turned)), 0, atol=1e-5)


@properties
@given(weight_matrices)
def test_dimensions_are_all_used_only_by_eigenvectors(weights):
    """The residual is the sine of an angle.

    It is 0 for all features exactly if the dimensionalities add up to the rank.
    """
    wide = weights.astype(np.float64)
    frame = wide @ wide.T
    moved, squares = frame @ wide, np.sum(wide**2, axis=0)
    cosine = np.sum(wide * moved, axis=0) / np.maximum(
        np.linalg.norm(moved, axis=0) * np.sqrt(squares), 1e-300
    )
    expected = np.where(squares > 0, np.sqrt(np.maximum(1 - cosine**2, 0)), 0)
    actual = on(geometry.eigenvector_residual, weights)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    shared = np.sum((wide.T @ wide) ** 2, axis=0)
    shares = squares**2 / np.where(shared > 0, shared, 1)
    assert (np.linalg.matrix_rank(wide) - shares.sum() > 1e-10) == (expected.max() > 1e-5)


def test_eigenvector_residual_of_two_directions():
    """Two directions at 45 degrees are each 22.5 degrees from a bisector.

    The bisectors are the eigenvectors of F.
    """
    weights = np.array([[1, 1], [0, 1]]) / [1, np.sqrt(2)]
    ratio = (2 - np.sqrt(2)) / (2 + np.sqrt(2))  # of the eigenvalues, 1 -+ cos
    turned = np.arctan(ratio * np.tan(np.pi / 8))
    np.testing.assert_allclose(
        on(geometry.eigenvector_residual, weights), np.sin(np.pi / 8 - turned), rtol=1e-5
    )


@pytest.mark.parametrize("scale", [1e-15, 1e-5, 1e5, 1e15])
def test_eigenvector_residual_does_not_depend_on_scale(scale):
    weights = np.array([[1, 1, 0], [0, 1, 0]], np.float32)
    np.testing.assert_allclose(
        on(geometry.eigenvector_residual, scale * weights),
        on(geometry.eigenvector_residual, weights),
        rtol=1e-5,
    )


def test_a_column_that_is_not_a_number_has_no_norm():
    norms = on(geometry.feature_norms, np.array([[np.nan, 1.0]]))
    np.testing.assert_array_equal(norms, [np.nan, 1.0])


def test_unit_columns_have_length_one_and_keep_their_direction():
    weights = np.array([[3.0, 0.0, 1e-30], [4.0, 0.0, 0.0]])
    unit = geometry.unit_columns(jnp.asarray(weights, jnp.float32))
    np.testing.assert_allclose(unit, [[0.6, 0, 1], [0.8, 0, 0]], rtol=1e-6)
