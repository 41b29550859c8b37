"""Planted polytopes are found whatever hides them, and what is no polytope stays unknown."""

import jax.numpy as jnp
import numpy as np
import pytest
from arrangements import (
    CUBE,
    SQUARE_PYRAMID,
    antiprism,
    diplo_simplex,
    direct_sum,
    polygon,
    rotation,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from known_polytopes import KNOWN, identify

from toymodels.analysis.polytopes import Shape
from toymodels.theory import polytopes

properties = settings(max_examples=60)
seeds = st.integers(0, 2**32 - 1)
DIAGONAL = np.full((6, 1), 6**-0.5)
SEVEN_DIGONS = np.hstack([np.eye(6), DIAGONAL, -np.eye(6), -DIAGONAL])
# The cosines with the apex are 0.2, and those of two opposite vertices -0.92.
LOW_PYRAMID = np.vstack([np.sqrt(1.152) * SQUARE_PYRAMID[:2], [[0.2] * 4 + [-1.0]]])


def shapes(weights, **thresholds):
    return [found.shape for found in identify(np.asarray(weights), **thresholds).components]


@properties
@given(
    st.lists(st.sampled_from(sorted(KNOWN)), min_size=1, max_size=5),
    seeds,
    st.sampled_from([0.0, 1e-4, 0.02]),
)
def test_planted_polytopes_are_found(names, seed, noise):
    generator = np.random.default_rng(seed)
    blocks = [generator.uniform(0.8, 1.3) * KNOWN[name][0] for name in names]
    spare = int(generator.integers(4))
    clean = direct_sum(blocks, spare)
    features = clean.shape[1]
    order = generator.permutation(features)
    weights = (rotation(generator, len(clean)) @ clean)[:, order]
    weights += noise * generator.normal(size=weights.shape)

    place = np.argsort(order)  # of each planted feature
    ends = np.cumsum([block.shape[1] for block in blocks])
    planted = {
        (tuple(sorted(place[end - block.shape[1] : end].tolist())), *KNOWN[name][1:])
        for name, block, end in zip(names, blocks, ends, strict=True)
    }
    found = identify(weights)
    assert {component[:3] for component in found.components} == planted
    assert found.not_represented == tuple(sorted(place[ends[-1] :].tolist()))
    # Noise s moves every dot product of k features by at most some 1.4 s times a few.
    assert max(component.residual for component in found.components) < max(5 * noise, 1e-6)


@properties
@given(
    seeds,
    st.integers(1, 6),
    st.integers(1, 14),
    st.sampled_from([(0.05, 0.05), (0.05, 0.3), (0.5, 0.5)]),
)
def test_rotation_and_permutation_change_nothing_and_every_feature_comes_once(
    seed, hidden, features, overlap
):
    generator = np.random.default_rng(seed)
    weights = generator.normal(size=(hidden, features)) / np.sqrt(hidden)
    order = generator.permutation(features)
    first = identify(weights, overlap=overlap)
    second = identify((rotation(generator, hidden) @ weights)[:, order], overlap=overlap)

    listed = [i for component in first.components for i in component.features]
    assert sorted([*listed, *first.not_represented]) == list(range(features))
    firsts = [component.features[0] for component in first.components]
    assert firsts == sorted(firsts)

    def named(found, names):
        return {
            (frozenset(names[i] for i in component.features), *component[1:3])
            for component in found.components
        }

    assert named(first, np.arange(features)) == named(second, order)
    residuals = [sorted(c.residual for c in found.components) for found in (first, second)]
    np.testing.assert_allclose(*residuals, rtol=1e-6, atol=1e-6)


@properties
@given(seeds, st.floats(0.3, 3))
def test_a_common_factor_changes_only_who_is_represented(seed, scale):
    weights = np.random.default_rng(seed).normal(size=(4, 9))
    plain, scaled = (identify(c * weights, norm=0.5 * c, overlap=(0.2, 0.4)) for c in (1.0, scale))
    assert [c[:3] for c in plain.components] == [c[:3] for c in scaled.components]
    assert plain.not_represented == scaled.not_represented


@pytest.mark.parametrize("density", [0.25, 0.15])
def test_the_optimal_antiprism_is_one(density):
    weights = polytopes.arrangement(polytopes.SQUARE_ANTIPRISM, density).weights
    (found,) = identify(np.asarray(weights)).components
    assert found.shape is Shape.SQUARE_ANTIPRISM
    assert found.residual < 1e-12


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        pytest.param(np.hstack([np.eye(3), -np.eye(3)]), [Shape.DIGON] * 3, id="octahedron"),
        pytest.param(polygon(4), [Shape.DIGON] * 2, id="square"),
        pytest.param(
            direct_sum([polygon(3), np.array([[1.0, -1.0]])]),
            [Shape.TRIANGLE, Shape.DIGON],
            id="triangular bipyramid",
        ),
        pytest.param(
            direct_sum([np.array([[1.0, -1.0]]), polygon(5)]),
            [Shape.DIGON, Shape.PENTAGON],
            id="pentagonal bipyramid",
        ),
        pytest.param(np.zeros((3, 4)), [], id="nothing represented"),
        pytest.param(np.zeros((3, 0)), [], id="no features"),
    ],
)
def test_direct_sums_come_apart(weights, expected):
    assert shapes(weights) == expected
    assert shapes(jnp.asarray(weights, jnp.float32)) == expected


@pytest.mark.parametrize(
    "weights",
    [
        pytest.param([[1.0, 1.0]], id="two features one way"),
        pytest.param([[1.0, -0.6]], id="unequal lengths"),
        pytest.param([[1.0, -1.0, 1.0, -1.0]], id="two digons on one axis"),
        pytest.param(np.array([[1.0, -1.0] * 4]), id="an antiprism without squares"),
        pytest.param(LOW_PYRAMID, id="a pyramid with a base nearly as low as a square"),
        pytest.param(CUBE, id="cube"),
        pytest.param(SEVEN_DIGONS, id="a digon across six orthogonal ones"),
        pytest.param(np.delete(polygon(5), 0, axis=1), id="pentagon with a gap"),
        pytest.param(np.delete(polygon(7), 0, axis=1), id="heptagon with a gap"),
        pytest.param(np.hstack([polygon(3), 0.98 * polygon(3)]), id="two triangles, one plane"),
        pytest.param(np.hstack([polygon(5), [[0.0], [1.0]]]), id="pentagon and a stray"),
        pytest.param([[1.0, 0.8], [0.0, 0.6]], id="an acute angle"),
        pytest.param(
            [
                [1.0, -0.5, -0.5, 0.6, -0.6],
                [0, 0.75**0.5, -(0.75**0.5), 0, 0],
                [0, 0, 0, 0.8, -0.8],
            ],
            id="a digon leans into the plane of a triangle",
        ),
    ],
)
def test_what_has_no_name_is_unknown(weights):
    (found,) = identify(np.asarray(weights)).components
    assert found.shape is Shape.UNKNOWN
    assert found.residual > 0.2


@properties
@given(seeds, st.integers(3, 10), st.integers(2, 4))
def test_random_directions_are_unknown(seed, hidden, ratio):
    weights = np.random.default_rng(seed).normal(size=(hidden, ratio * hidden))
    weights /= np.linalg.norm(weights, axis=0)
    for component in identify(weights).components:
        # A few features can lie far from all others, or near a small polytope, by chance.
        assert component.shape is Shape.UNKNOWN or len(component.features) <= 3


def test_overlap_joins_only_above_it():
    weights = np.array([[1.0, 0.6], [0.0, 0.8]])
    assert shapes(weights, overlap=(0.6 + 1e-9,) * 2) == [Shape.DEDICATED] * 2
    (joined,) = identify(weights, overlap=(0.6 - 1e-9,) * 2).components
    assert joined.features == (0, 1)
    assert shapes(np.eye(3), overlap=(0.0, 0.0)) == [Shape.DEDICATED] * 3
    # What has no name is cut at the higher overlap, not above it.
    assert shapes(weights, overlap=(0.0, 0.6 + 1e-9)) == [Shape.DEDICATED] * 2
    assert shapes(weights, overlap=(0.0, 0.6 - 1e-9)) == [Shape.UNKNOWN]


@pytest.mark.parametrize("dimensions", [4, 8, 11, 19])
def test_diplo_simplices_are_found_whole_and_in_parts(dimensions):
    weights = diplo_simplex(dimensions)
    edge = 1 / dimensions  # the overlap of any two of its digons
    count = 2 * dimensions + 2
    (whole,) = identify(weights, overlap=(edge - 1e-9, 1.0)).components
    assert whole[:3] == (tuple(range(count)), Shape.DIPLO_SIMPLEX, dimensions)
    assert whole.residual < 1e-12
    apart = identify(weights, overlap=(edge + 1e-9, 1.0)).components
    assert [component.features for component in apart] == [(i, i + 1) for i in range(0, count, 2)]


def test_only_the_weakest_joints_are_cut_and_components_stay_in_order():
    # A pentagon leans on a diplo-simplex by less than its digons overlap; one feature lies between.
    weights = direct_sum([polygon(5), np.ones((1, 1)), diplo_simplex(8)])
    weights[:, 0] += 0.08 * weights[:, 6]
    order = np.roll(np.arange(weights.shape[1]), -1)  # the pentagon is first and last
    found = identify(weights[:, order]).components
    expected = [Shape.PENTAGON, Shape.DEDICATED, Shape.DIPLO_SIMPLEX]
    assert [component.shape for component in found] == expected
    assert found[0].features == (0, 1, 2, 3, weights.shape[1] - 1)
    between = identify(np.roll(weights[:, order], 1, axis=1)[:, ::-1]).components
    assert [component.shape for component in between] == expected[::-1]
    assert [component.features[0] for component in between] == [0, 18, 19]


@pytest.mark.parametrize("lean", [0.08, 0.14])
def test_polytopes_that_lean_on_each_other_are_taken_apart_and_no_further(lean):
    blocks = [diplo_simplex(4), polygon(5), antiprism(np.sqrt(1 / 3)), diplo_simplex(9)]
    weights = direct_sum(blocks)
    # A vertex of each of the first three leans into another one. In the last, overlaps are 1/9.
    for first, second in ((0, 10), (10, 15)):
        weights[:, first] += lean * weights[:, second]
    expected = [Shape.DIPLO_SIMPLEX, Shape.PENTAGON, Shape.SQUARE_ANTIPRISM, Shape.DIPLO_SIMPLEX]
    assert shapes(weights) == expected
    assert shapes(weights, overlap=(0.05, 0.05)) == [Shape.UNKNOWN, Shape.DIPLO_SIMPLEX]
    assert shapes(weights, overlap=(0.15, 0.15)) == [*expected[:-1], *[Shape.DIGON] * 10]


def test_norm_represents_only_above_it():
    assert identify(np.eye(2) * 0.5) == ((), (0, 1))
    assert identify(np.diag([0.51, 0.49])).not_represented == (1,)
    # A feature that is not represented joins no others.
    assert shapes([[1.0, 0.0, 0.2], [0.0, 1.0, 0.2]]) == [Shape.DEDICATED] * 2


def test_tolerance_is_the_largest_residual_of_a_shape():
    weights = [[1.0, -0.9]]
    (found,) = identify(np.asarray(weights)).components
    assert shapes(weights, tolerance=found.residual) == [Shape.DIGON]
    assert shapes(weights, tolerance=found.residual * (1 - 1e-9)) == [Shape.UNKNOWN]


@pytest.mark.parametrize(("cosine", "dimension"), [(0.59, 2), (0.61, 1)])
def test_dimension_counts_singular_values_above_half_the_largest(cosine, dimension):
    # The squared singular values are 1 + c and 1 - c: one is four times the other at c = 0.6.
    weights = np.array([[1.0, cosine], [0.0, np.sqrt(1 - cosine**2)]])
    (found,) = identify(weights).components
    assert found.dimension == dimension


def test_a_pentagon_slightly_out_of_its_plane_is_still_one():
    weights = np.vstack([polygon(5), [0.25, -0.25, 0.0, 0.0, 0.0]])
    assert shapes(weights) == [Shape.PENTAGON]


def test_without_a_polytope_of_that_size_the_residual_is_infinite():
    (found,) = identify(CUBE[:, :7]).components
    assert found.shape is Shape.UNKNOWN
    assert found.dimension == 3
    assert found.residual == np.inf


@pytest.mark.parametrize(
    ("weights", "thresholds", "words"),
    [
        ([[1.0, np.nan]], {}, "weights holds NaN"),
        ([[1.0, -1.0]], {"norm": -0.1}, "norm is -0.1"),
        ([[1.0, -1.0]], {"overlap": (0.1, 1.5)}, "overlap is 1.5"),
        ([[1.0, -1.0]], {"overlap": (0.2, 0.1)}, "the lower one first"),
        ([[1.0, -1.0]], {"tolerance": -1.0}, "tolerance is -1"),
    ],
)
def test_bad_input_is_named(weights, thresholds, words):
    with pytest.raises(ValueError, match=words):
        identify(np.array(weights), **thresholds)
