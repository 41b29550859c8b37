"""Virtual weights are a real part and interference, with an exact effect on the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from arrangements import rotation
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toymodels.analysis import virtual_weights
from toymodels.theory import frames

properties = settings(max_examples=30)

quarters = st.integers(-8, 8).map(lambda number: number / 4)  # dot products are exact in float32
seeds = st.integers(0, 2**32 - 1)


maps = hnp.arrays(np.float32, (3, 4), elements=quarters)
split = jax.jit(virtual_weights.real_and_interference)


@pytest.mark.parametrize("count", [3, 5])
def test_virtual_weights_of_a_regular_polygon(count):
    """G has the diagonal 1 and |G|^2 = n^2/m, so reconstruction explains m/n of it."""
    weights = frames.regular_polygon(count).astype(np.float32)
    parts = split(weights.T @ weights, np.eye(count, dtype=np.float32))
    np.testing.assert_allclose(parts.gain, 1, rtol=1e-5)
    np.testing.assert_allclose(parts.explained, 2 / count, rtol=1e-5)
    np.testing.assert_allclose(np.diagonal(parts.interference), 0, atol=1e-5)


@properties
@given(maps, maps)
def test_real_and_interference_are_orthogonal_and_explain_by_least_squares(virtual, true_map):
    gain, real, interference, explained = map(np.asarray, split(virtual, true_map))
    np.testing.assert_allclose(real + interference, virtual, atol=1e-5)
    np.testing.assert_allclose(real, gain * true_map, rtol=1e-6)
    if not true_map.any() or not virtual.any():
        assert explained == 0
        return
    column = true_map.astype(np.float64).reshape(-1, 1)
    fitted, residue, *_ = scipy.linalg.lstsq(column, virtual.astype(np.float64).ravel())
    np.testing.assert_allclose(gain, fitted[0], atol=1e-5)
    np.testing.assert_allclose(explained, 1 - residue / (virtual**2).sum(), atol=1e-5)
    # the first definition of interference weights counts shrinkage as well
    shrinkage = (gain - 1) ** 2 * (true_map**2).sum()
    np.testing.assert_allclose(
        ((virtual - true_map) ** 2).sum(), shrinkage + (interference**2).sum(), rtol=1e-4, atol=1e-4
    )


@properties
@given(seeds, st.floats(0.1, 3))
def test_a_map_without_superposition_is_all_real(seed, gain):
    """Directions are orthonormal in the two layers.

    The map between them is any one, and rotations do not matter.
    """
    random = np.random.default_rng(seed)
    true_map = random.normal(size=(3, 4))
    directions_in, directions_out = rotation(seed, 4), rotation(seed + 1, 3)
    hidden_map = gain * directions_out @ true_map @ directions_in.T
    virtual = directions_out.T @ hidden_map @ directions_in
    parts = split(jnp.asarray(virtual, jnp.float32), jnp.asarray(true_map, jnp.float32))
    np.testing.assert_allclose(parts.gain, gain, rtol=1e-5)
    np.testing.assert_allclose(parts.explained, 1, rtol=1e-5)
    np.testing.assert_allclose(parts.interference, 0, atol=1e-5)


def test_dropping_a_term_of_a_linear_output():
    """The loss rises by v V (2 T - V), where v is the variance of independent features."""
    random = np.random.default_rng(1)
    virtual, true_map = random.normal(size=(2, 3, 4)).astype(np.float32)
    features = np.sqrt(0.3) * np.stack(np.meshgrid(*[[-1, 1]] * 4), axis=-1).reshape(-1, 4)

    def loss(weights):
        errors = jnp.asarray(features, jnp.float32) @ (weights - true_map).T
        return jnp.mean(jnp.sum(errors**2, axis=1))

    np.testing.assert_allclose(
        virtual_weights.loss_contributions(jnp.asarray(virtual), loss),
        0.3 * virtual * (2 * true_map - virtual),
        rtol=1e-4,
        atol=1e-5,
    )


def test_an_antipodal_pair_needs_its_interference_not():
    """A pair of features of 0 or 1 is wrong only if both are on, and then without V_ii as well."""
    density = 0.3
    features = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    chances = jnp.array([(1 - density) ** 2, *[density * (1 - density)] * 2, density**2])

    def loss(virtual):
        outputs = jax.nn.relu(features @ virtual.T)
        return chances @ jnp.sum((features - outputs) ** 2, axis=1)

    worth = virtual_weights.loss_contributions(jnp.array([[1.0, -1.0], [-1.0, 1.0]]), loss)
    real, interference = density - density**2, -(density**2)
    expected = [[real, interference], [interference, real]]
    np.testing.assert_allclose(worth, expected, rtol=1e-5)
