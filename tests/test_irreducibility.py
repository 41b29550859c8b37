"""Circles, lines, grids and Gaussians, whose indices are integrals known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from toymodels import errors
from toymodels.analysis import irreducibility

separability_index = jax.jit(irreducibility.separability_index, static_argnames="num_bins")
mixture_index = jax.jit(irreducibility.mixture_index)

turns = 2 * np.pi * (np.arange(20_000) + 0.5) / 20_000
circle = jnp.asarray(np.stack([np.cos(turns), np.sin(turns)], axis=1), jnp.float32)
quarter = jnp.arange(8) * jnp.pi / 16  # a quarter turn in eight steps
lattice = np.stack(np.meshgrid(np.arange(20), np.arange(20)), axis=-1).reshape(-1, 2)


def rotated(values, angle):
    cosine, sine = np.cos(angle), np.sin(angle)
    return jnp.asarray(values @ np.array([[cosine, -sine], [sine, cosine]]).T, jnp.float32)


def information_of_a_circle(num_bins):
    """Return the mutual information of the two coordinates of a circle, in bins.

    It follows from the arcs between the angles at which a coordinate crosses the edge of a bin.
    """
    edges = np.linspace(-1, 1, num_bins + 1)
    crossings = [np.arccos(edges), -np.arccos(edges), np.arcsin(edges), np.pi - np.arcsin(edges)]
    ends = np.unique(np.mod(np.concatenate(crossings), 2 * np.pi))
    ends = np.append(ends, ends[0] + 2 * np.pi)
    middles, arcs = (ends[1:] + ends[:-1]) / 2, np.diff(ends) / (2 * np.pi)
    joint = np.histogram2d(np.cos(middles), np.sin(middles), [edges, edges], weights=arcs)[0]
    independent = np.outer(joint.sum(axis=1), joint.sum(axis=0))
    return stats.entropy(joint.ravel(), independent.ravel(), base=2)


@pytest.mark.parametrize(("num_bins", "bits"), [(10, 1.50), (20, 2.21), (40, 3.03)])
def test_a_circle_is_not_separable(num_bins, bits):
    expected = information_of_a_circle(num_bins)
    np.testing.assert_allclose(expected, bits, atol=5e-3)
    # 20 000 points, of which a few fall into the wrong bin.
    actual = separability_index(circle, quarter, num_bins=num_bins)
    np.testing.assert_allclose(actual, expected, atol=5e-3)


@pytest.mark.parametrize("angle", [0.0, 3 * np.pi / 16])
def test_independent_coordinates_are_found_at_any_angle(angle):
    values = rotated(lattice, -angle)
    found = separability_index(values, quarter, num_bins=10)
    np.testing.assert_allclose(found, 0, atol=1e-5)  # two of 20 values in each of 10 bins
    diamond = separability_index(values, quarter[:1] + angle + jnp.pi / 4, num_bins=10)
    assert diamond > 0.1


def test_coordinates_that_determine_each_other_have_all_bits():
    line = jnp.stack([jnp.arange(640.0), jnp.arange(640.0)], axis=1)
    np.testing.assert_allclose(separability_index(line, jnp.zeros(1), num_bins=64), 6, atol=1e-5)
    np.testing.assert_allclose(separability_index(line, jnp.zeros(1), num_bins=1), 0, atol=1e-6)
    np.testing.assert_allclose(
        separability_index(lattice * 1.0, jnp.zeros(1), num_bins=5), 0, atol=1e-6
    )


def test_independent_numbers_have_the_known_bias_of_a_histogram():
    uniform = jnp.asarray(np.random.default_rng(0).uniform(size=(20_000, 2)), jnp.float32)
    bits = separability_index(uniform, jnp.zeros(1), num_bins=10)
    # Twice the log likelihood ratio is chi-squared with (bins - 1)^2 degrees of freedom.
    assert abs(2 * 20_000 * np.log(2) * bits - 81) < 4 * np.sqrt(2 * 81)
    assert separability_index(uniform, quarter, num_bins=10) <= bits


def test_a_circle_is_not_a_mixture():
    offsets = jnp.linspace(-1.2, 1.2, 4801)
    # The best interval ends at the edge: (1 - c)^2 = epsilon^2 (1/2 + c^2).
    epsilon = 0.1
    c = np.roots([1 - epsilon**2, -2, 1 - epsilon**2 / 2]).min()
    expected = np.arccos(2 * c - 1) / np.pi
    np.testing.assert_allclose([c, expected], [0.8866, 0.2187], atol=5e-5)
    directions = jnp.array([[1.0, 0.0], [0.6, 0.8]])
    # A step of the grid is worth a share of the root of its size at the edge.
    actual = mixture_index(circle, directions, offsets, epsilon=epsilon)
    np.testing.assert_allclose(actual, expected, atol=2e-3)
    centred = mixture_index(circle, directions, jnp.zeros(1), epsilon=epsilon)
    np.testing.assert_allclose(centred, 2 / np.pi * np.arcsin(epsilon / 2**0.5), atol=2e-4)


@pytest.mark.parametrize("epsilon", [0.1, 0.3])
def test_a_gaussian_is_not_a_mixture(epsilon):
    quantiles = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    values = jnp.asarray(5 * quantiles[:, None], jnp.float32)  # the scale does not matter
    offsets = jnp.linspace(-15, 15, 301)
    expected = 2 * stats.norm.cdf(epsilon) - 1
    actual = mixture_index(values, jnp.array([[-2.0]]), offsets, epsilon=epsilon)
    np.testing.assert_allclose(actual, expected, atol=3e-4)


def test_features_that_do_not_occur_together_are_a_mixture():
    lengths = np.arange(1, 101) / 100
    cross = np.concatenate([np.outer(lengths, [1, 0]), np.outer(lengths, [0, 1])])
    directions = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    # Off half of the time, and below 0.1 sqrt(E x^2), about 0.041, in 4 of 100 other cases.
    actual = mixture_index(jnp.asarray(cross, jnp.float32), directions, jnp.zeros(1), epsilon=0.1)
    np.testing.assert_allclose(actual, 1 / 2 + 0.04 / 2, rtol=1e-6)
    diagonal = mixture_index(
        jnp.asarray(cross, jnp.float32), directions[2:], jnp.zeros(1), epsilon=0.1
    )
    assert diagonal < 0.1


def test_a_sparse_feature_is_a_mixture_with_nothing():
    values = jnp.concatenate([jnp.zeros((70, 2)), circle[::700]])
    actual = mixture_index(values, jnp.eye(2), jnp.zeros(1), epsilon=0.01)
    assert actual >= 70 / len(values)


def test_the_mixture_index_moves_with_the_feature():
    offsets = jnp.linspace(0.5, 1.2, 15)
    before = mixture_index(circle, jnp.eye(2), offsets, epsilon=0.1)
    after = mixture_index(circle + 3, jnp.eye(2), offsets - 3, epsilon=0.1)
    np.testing.assert_allclose(after, before, atol=1e-3)


def test_a_constant_is_near_nothing_but_itself():
    # |c| < epsilon |c| has no solution.
    offsets = jnp.array([-3.0, 0.0, 1.0])
    assert mixture_index(jnp.ones((5, 1)), jnp.ones((1, 1)), offsets, epsilon=0.5) == 0
    pair = jnp.array([[1.0], [-1.0]])  # both at a distance of the root mean square, not nearer
    assert mixture_index(pair, jnp.ones((1, 1)), jnp.zeros(1), epsilon=1.0) == 0
    with pytest.raises(errors.InputError, match="epsilon"):
        irreducibility.mixture_index(circle, jnp.eye(2), jnp.zeros(1), epsilon=1.5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_makes_no_index(bad):
    values = jnp.asarray(np.random.default_rng(0).normal(size=(50, 2))).at[3, 1].set(bad)
    angles = offsets = jnp.zeros(1)
    assert np.isnan(irreducibility.separability_index(values, angles, num_bins=4))
    index = irreducibility.mixture_index(values, jnp.eye(2), offsets, epsilon=0.1)
    assert np.isnan(index)
