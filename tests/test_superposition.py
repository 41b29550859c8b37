"""Measures of superposition against arrangements of known geometry, and formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from arrangements import icosahedron, rotation
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toymodels.analysis import geometry, superposition
from toymodels.theory import bounds, frames

properties = settings(max_examples=30)

quarters = st.integers(-8, 8).map(lambda number: number / 4)  # dot products are exact in float32
weight_matrices = hnp.arrays(
    np.float32, st.sampled_from([(1, 6), (2, 6), (3, 6), (4, 2)]), elements=quarters
)
seeds = st.integers(0, 2**32 - 1)

PER_FEATURE = (
    superposition.absolute_interference,
    superposition.squared_interference,
    superposition.feature_polysemanticity,
)
PER_NEURON = (superposition.neuron_polysemanticity, superposition.squared_neuron_polysemanticity)
PER_MODEL = (
    superposition.effective_rank,
    superposition.participation_ratio,
    superposition.capacity_saturation,
    superposition.coherence,
    superposition.excess_coherence,
)
ALL = (*PER_FEATURE, *PER_NEURON, *PER_MODEL)
GEOMETRY = (geometry.superposition, geometry.eigenvector_residual)


@jax.jit  # all at once: one program to compile for each shape
def compiled(weights):
    return tuple(measure(weights) for measure in (*ALL, *GEOMETRY))


def on(measure, weights):
    results = compiled(jnp.asarray(weights, jnp.float32))
    return np.asarray(results[(*ALL, *GEOMETRY).index(measure)])


def tight_frame(seed, hidden, features):
    """Return orthogonal rows of one length, whose columns have different lengths."""
    return rotation(seed, features)[:hidden] * 1.5


# W, |G_ij| over the others, G_ij^2 over the others, coherence, its excess
ARRANGEMENTS = [
    pytest.param(np.eye(3), 0, 0, 0, 0, id="orthogonal"),
    pytest.param([[1, -1]], 1, 1, 1, 0, id="antipodal pair"),
    pytest.param(np.kron(np.eye(2), [1, -1]), 1, 1, 1, 1, id="two antipodal pairs"),
    pytest.param(frames.regular_polygon(3), 1, 1 / 2, 1 / 2, 0, id="triangle"),
    pytest.param(frames.simplex(3), 1, 1 / 3, 1 / 3, 0, id="tetrahedron"),
    pytest.param(frames.simplex(5), 1, 1 / 5, 1 / 5, 0, id="simplex in five dimensions"),
    # 2 (cos 36 + cos 72) = sqrt(5); Rankin's bound for more than three lines in the plane
    pytest.param(
        frames.regular_polygon(5),
        np.sqrt(5),
        3 / 2,
        np.cos(np.pi / 5),
        (np.cos(np.pi / 5) - np.sqrt(1 / 2)) / (1 - np.sqrt(1 / 2)),
        id="pentagon",
    ),
    # of an octagon one half: two mutually unbiased bases, which attain Rankin's bound
    pytest.param(
        frames.regular_polygon(8)[:, :4], np.sqrt(2), 1, np.sqrt(1 / 2), 0, id="half an octagon"
    ),
    pytest.param(icosahedron(), np.sqrt(5), 1, np.sqrt(1 / 5), 0, id="icosahedron"),
]


@pytest.mark.parametrize(("weights", "absolute", "squared", "coherence", "excess"), ARRANGEMENTS)
def test_tight_frames_of_unit_vectors(weights, absolute, squared, coherence, excess):
    hidden, features = np.shape(weights)
    # Columns of zeros, so that few shapes are compiled: they must not count.
    turned = np.pad(rotation(3, hidden) @ weights, ((0, 0), (0, 6 - features)))
    absolute, squared = (
        np.repeat([value, 0], [features, 6 - features]) for value in (absolute, squared)
    )
    close = {"rtol": 1e-5, "atol": 1e-5}  # a dozen roundings in float32
    np.testing.assert_allclose(on(superposition.absolute_interference, turned), absolute, **close)
    np.testing.assert_allclose(on(superposition.squared_interference, turned), squared, **close)
    np.testing.assert_allclose(
        on(superposition.feature_polysemanticity, turned), np.sqrt(squared), **close
    )
    np.testing.assert_allclose(on(superposition.coherence, turned), coherence, **close)
    np.testing.assert_allclose(on(superposition.excess_coherence, turned), excess, **close)
    # sum_j G_ij^2 = n/m in any unit tight frame
    np.testing.assert_allclose(squared[0], features / hidden - 1, rtol=1e-12, atol=1e-12)
    for measure in (superposition.effective_rank, superposition.participation_ratio):
        np.testing.assert_allclose(on(measure, turned), hidden, rtol=1e-5)
    np.testing.assert_allclose(on(superposition.capacity_saturation, turned), 1, rtol=1e-5)


@properties
@given(seeds, st.sampled_from([(2, 6), (3, 6)]))
def test_planted_tight_frames_use_all_dimensions_whatever_their_norms(seed, shape):
    weights = tight_frame(seed, *shape)
    for measure, expected in (
        (superposition.effective_rank, shape[0]),
        (superposition.participation_ratio, shape[0]),
        (superposition.capacity_saturation, 1),
    ):
        np.testing.assert_allclose(on(measure, weights), expected, rtol=1e-4)


def test_two_tight_frames_of_different_strength():
    """Saturation does not see the difference.

    The other two measures count the weaker frame less.
    """
    weights = np.kron(np.diag([2.0, 1.0, 0.0]), [1, -1])  # singular values 2 sqrt(2), sqrt(2), 0
    np.testing.assert_allclose(on(superposition.capacity_saturation, weights), 2 / 3, rtol=1e-6)
    np.testing.assert_allclose(
        on(superposition.effective_rank, weights), 3 / 2 ** (2 / 3), rtol=1e-5
    )  # exp H(2/3, 1/3)
    np.testing.assert_allclose(on(superposition.participation_ratio, weights), 25 / 17, rtol=1e-6)


@properties
@given(weight_matrices)
def test_measures_are_their_formulas_in_float64(weights):
    """The formulas are computed feature by feature and neuron by neuron, with SciPy."""
    wide = weights.astype(np.float64)
    products = wide.T @ wide
    for i, others in enumerate(np.abs(products)):
        rest = np.delete(others, i)
        norm = np.linalg.norm(wide[:, i])
        expected = [rest.sum(), (rest**2).sum(), np.linalg.norm(rest) / norm if norm else 0]
        actual = [on(measure, weights)[i] for measure in PER_FEATURE]
        np.testing.assert_allclose(actual, expected, rtol=1e-5)
    for row, linear, squared in zip(
        np.abs(wide), *(on(measure, weights) for measure in PER_NEURON), strict=True
    ):
        alive = row.any()
        assert abs(linear - alive * (1 - row.max() / max(row.sum(), 1e-9))) < 1e-6
        assert abs(squared - alive * (1 - row.max() ** 2 / max((row**2).sum(), 1e-9))) < 1e-6
    values = scipy.linalg.svdvals(wide)
    rank = np.linalg.matrix_rank(wide)
    effective, ratio, saturation = (on(measure, weights) for measure in PER_MODEL[:3])
    if rank == 0:
        assert effective == ratio == saturation == 0
        return
    # A singular value that rounding leaves at 1e-6 of the sum adds 1e-5 to the entropy.
    entropy = scipy.stats.entropy(values[:rank])
    np.testing.assert_allclose(effective, np.exp(entropy), rtol=1e-4)
    eigenvalues = scipy.linalg.eigvalsh(wide @ wide.T)
    expected = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
    np.testing.assert_allclose(ratio, expected, rtol=1e-5)


@properties
@given(weight_matrices)
def test_measures_stay_within_their_bounds(weights):
    effective, ratio, saturation, coherence, excess = (on(m, weights) for m in PER_MODEL)
    rank = np.linalg.matrix_rank(weights)
    assert min(rank, 1) <= ratio + 1e-5
    assert ratio <= effective + 1e-4
    assert effective <= rank + 1e-3  # see the entropy of rounding above
    assert 0 <= saturation <= rank / len(weights) + 1e-5
    norms = np.linalg.norm(weights.astype(np.float64), axis=0)
    if rank > 0:
        least = bounds.min_frame_potential(norms, len(weights))
        assert ratio <= (norms**2).sum() ** 2 / least * (1 + 1e-5)
    assert -1e-5 <= excess <= coherence + 1e-5 <= 1 + 2e-5
    present = int(np.sum(norms > 0))
    if present:
        assert coherence >= bounds.min_coherence(present, len(weights)) - 1e-5
    linear, squared = (on(measure, weights) for measure in PER_NEURON)
    assert np.all(squared <= linear + 1e-6)
    assert 0 <= squared.min() <= linear.max() <= 1 - 1 / weights.shape[1] + 1e-6


@properties
@given(weight_matrices)
def test_saturation_needs_full_rank_and_eigenvectors(weights):
    residual = on(geometry.eigenvector_residual, weights).max()
    rank = np.linalg.matrix_rank(weights)
    missing = rank / len(weights) - on(superposition.capacity_saturation, weights)
    assert (missing > 1e-4) == (residual > 1e-3)  # quarters leave at least 1e-3 and 1e-2


@properties
@given(weight_matrices, seeds)
def test_rotations_of_hidden_space_and_signs_of_features_change_nothing(weights, seed):
    signs = np.random.default_rng(seed).choice([-1, 1], weights.shape[1])
    changed = rotation(seed, len(weights)) @ weights * signs
    for measure in (*PER_FEATURE, *PER_MODEL):
        np.testing.assert_allclose(on(measure, changed), on(measure, weights), rtol=1e-3, atol=1e-4)


@properties
@given(weight_matrices, seeds)
def test_order_and_signs_of_neurons_and_features_only_relabel(weights, seed):
    random = np.random.default_rng(seed)
    neurons, features = random.permutation(len(weights)), random.permutation(weights.shape[1])
    signs = random.choice([-1, 1], weights.shape)
    shuffled = weights[neurons][:, features]
    for measure in PER_FEATURE:
        expected = on(measure, weights)[features]
        np.testing.assert_allclose(on(measure, shuffled), expected, rtol=1e-5)
    for measure in PER_NEURON:
        expected = on(measure, weights)[neurons]
        np.testing.assert_allclose(on(measure, signs * shuffled), expected, rtol=1e-5, atol=1e-7)
    for measure in PER_MODEL:
        expected = on(measure, weights)
        np.testing.assert_allclose(on(measure, shuffled), expected, rtol=1e-4, atol=1e-5)


@properties
@given(weight_matrices, st.sampled_from([2.0**-40, 2.0, 2.0**10]))
def test_measures_scale_as_their_formulas_do(weights, scale):
    """Scales are powers of 2, so that the scaled numbers are exact."""
    for measure, power in zip(PER_FEATURE, (2, 4, 1), strict=True):
        if scale < 1 and power == 4:
            continue  # underflows
        expected = np.float64(scale) ** power * on(measure, weights)
        np.testing.assert_allclose(on(measure, scale * weights), expected, rtol=1e-5)
    for measure in (*PER_NEURON, *PER_MODEL):
        np.testing.assert_allclose(
            on(measure, scale * weights), on(measure, weights), rtol=1e-4, atol=1e-5
        )
    for measure in PER_NEURON:  # squares of 2^-80 underflow
        np.testing.assert_array_equal(on(measure, 2.0**-80 * weights), on(measure, weights))


@properties
@given(weight_matrices)
def test_interference_is_superposition_of_features_of_their_length(weights):
    norms = np.linalg.norm(weights, axis=0)
    expected = norms**2 * on(geometry.superposition, weights)
    actual = on(superposition.squared_interference, weights)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_interference_is_the_worst_and_the_variance_of_what_others_bring():
    weights = np.random.default_rng(5).normal(size=(2, 6))
    products = weights.T @ weights
    signs = np.stack(np.meshgrid(*[[-1, 1]] * 6), axis=-1).reshape(-1, 6)
    brought = signs @ (products - np.diag(products.diagonal()))  # of independent signs, all cases
    np.testing.assert_allclose(
        on(superposition.absolute_interference, weights), brought.max(axis=0), rtol=1e-5
    )
    np.testing.assert_allclose(
        on(superposition.squared_interference, weights), brought.var(axis=0), rtol=1e-5
    )


def test_neurons_of_one_feature_of_several_alike_and_of_none():
    weights = [[0, -3, 0, 0], [1, 1, -1, 0], [0, 0, 0, 0], [3, 1, 0, 0]]
    expected = [0, 2 / 3, 0]
    np.testing.assert_allclose(
        on(superposition.neuron_polysemanticity, weights), [*expected, 1 / 4], rtol=1e-6
    )
    np.testing.assert_allclose(
        on(superposition.squared_neuron_polysemanticity, weights), [*expected, 1 / 10], rtol=1e-6
    )


amounts = hnp.arrays(np.float32, 6, elements=st.integers(0, 8).map(lambda number: number / 4))
effective_number = jax.jit(superposition.effective_number)


@properties
@given(amounts, seeds)
def test_the_effective_number_is_the_exponential_of_the_entropy(parts, seed):
    """The number has bounds, and does not depend on order, scale or empty parts.

    It doubles if all parts are split in two.
    """
    number = float(effective_number(parts))
    if not parts.any():
        assert number == 0
        return
    np.testing.assert_allclose(number, np.exp(scipy.stats.entropy(parts)), rtol=1e-5)
    assert 1 - 1e-5 <= number <= np.count_nonzero(parts) + 1e-5
    order = np.random.default_rng(seed).permutation(6)
    same = (1e-20 * parts[order], 1e20 * parts, np.append(parts, np.zeros(3, np.float32)))
    np.testing.assert_allclose([effective_number(other) for other in same], number, rtol=1e-5)
    np.testing.assert_allclose(effective_number(np.repeat(parts / 2, 2)), 2 * number, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_equal_parts_are_counted(count):
    parts = 0.3 * (np.arange(6) < count).astype(np.float32)
    np.testing.assert_allclose(effective_number(parts), count, rtol=1e-6)


def test_a_half_and_two_quarters():
    np.testing.assert_allclose(
        effective_number(np.array([2, 1, 1, 0, 0, 0], np.float32)), 2**1.5, rtol=1e-6
    )


def test_features_of_a_pentagon_are_five_and_those_of_its_hidden_layer_two():
    """The latents are those of the true dictionary.

    Each example has one feature, and all features are equally frequent.
    """
    features = np.concatenate([np.eye(5), np.eye(5) / 2]).astype(np.float32)
    latents = jnp.asarray(features)
    np.testing.assert_allclose(superposition.effective_features(latents), 5, rtol=1e-6)
    split = jnp.concatenate([latents, -latents], axis=1)
    np.testing.assert_allclose(superposition.effective_features(split), 10, rtol=1e-6)
    # The corners add up to 0, so this is of the covariance; the sixth example is of no feature.
    hidden = np.pad(frames.regular_polygon(5), ((0, 0), (0, 1)))
    np.testing.assert_allclose(on(superposition.participation_ratio, hidden), 2, rtol=1e-5)


def test_effective_features_of_unit_directions_weigh_norms_by_activity():
    random = np.random.default_rng(2)
    weights = random.normal(size=(3, 5))
    features = random.normal(size=(40, 5)) * (random.random((40, 5)) < [0.9, 0.5, 0.3, 0.1, 0.05])
    norms = np.linalg.norm(weights, axis=0)
    expected = np.exp(scipy.stats.entropy(norms * np.abs(features).mean(axis=0)))
    latents = jnp.asarray(features * norms, jnp.float32)
    np.testing.assert_allclose(superposition.effective_features(latents), expected, rtol=1e-5)


def test_all_map_over_models_and_have_finite_gradients_without_weights():
    models = np.zeros((3, 2, 6), np.float32)
    models[1, :, :2] = np.eye(2)
    models[2, 0, :2] = 1, -1

    def total(weights):
        results = compiled(weights)
        return sum(jnp.sum(values) for values in results), results

    (_, together), gradients = jax.jit(jax.vmap(jax.value_and_grad(total, has_aux=True)))(models)
    for measure, values in zip(ALL, together, strict=False):
        for model, value in zip(models, values, strict=True):
            np.testing.assert_allclose(value, on(measure, model), rtol=1e-6)
        np.testing.assert_array_equal(values[0], 0)
    assert np.all(np.isfinite(gradients))


def test_coherence_of_one_feature_and_of_those_represented():
    one = 2 * np.eye(2, 6, 1) * [[1], [0]]
    assert on(superposition.coherence, one) == on(superposition.excess_coherence, one) == 0
    # Columns of zeros leave the bound of the other three, not that of six.
    weights = np.pad(frames.regular_polygon(3), ((0, 0), (2, 1)))
    np.testing.assert_allclose(on(superposition.excess_coherence, weights), 0, atol=1e-6)


def test_in_one_dimension_all_are_on_one_line():
    excess = jax.jit(jax.value_and_grad(superposition.excess_coherence))
    value, gradient = excess(jnp.array([[1.0, -2.0, 0.0]]))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)
