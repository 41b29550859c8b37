"""Weights are drawn as they are: spokes end at columns, signs have colours, poses are rotations."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgba

from toymodels import plotting
from toymodels.errors import InputError
from toymodels.theory.frames import regular_polygon

WEIGHTS = np.array([[1.0, 0.0, -1.0], [0.0, 0.5, 0.25]])
LABELLED = xr.DataArray(WEIGHTS.T, dims=("feature", "hidden"))


def spokes(weights, **options):
    _, axes = plotting.figure()
    plotting.spokes(axes, weights, **options)
    lines, dots = axes.collections
    return np.array(lines.get_segments()), np.asarray(dots.get_offsets()), lines, axes


@pytest.mark.parametrize("weights", [WEIGHTS, LABELLED, LABELLED.T], ids=["array", "turned", "T"])
def test_spokes_go_from_the_origin_to_the_columns(weights):
    segments, ends, _, axes = spokes(weights, color=["red", "blue", "black"])
    np.testing.assert_array_equal(segments[:, 0], 0)
    np.testing.assert_array_equal(segments[:, 1], WEIGHTS.T)
    np.testing.assert_array_equal(ends, WEIGHTS.T)
    assert axes.get_aspect() == 1
    assert axes.get_xlim()[1] > np.linalg.norm(WEIGHTS, axis=0).max()  # nothing leaves the picture


def test_spokes_have_the_colours_of_their_features_where_one_is_missing():
    weights = np.where(np.arange(3) == 1, np.nan, WEIGHTS)
    _, ends, lines, _ = spokes(weights, color=["red", "blue", "black"])
    np.testing.assert_array_equal(ends, WEIGHTS.T[[0, 2]])
    np.testing.assert_array_equal(lines.get_colors(), [to_rgba("red"), to_rgba("black")])


def test_a_collapsed_pair_is_marked():
    texts = [text.get_text() for text in spokes(np.array([[1, 1, 0, 0], [0, 0, 1, 0.0]]))[3].texts]
    assert texts == ["x2"]
    assert not spokes(np.zeros((2, 3)))[3].texts  # features that are not represented share nothing


@pytest.mark.parametrize(("apart", "marks"), [(0.005, ["x2"]), (0.03, [])])
def test_only_ends_that_cannot_be_told_apart_are_marked(apart, marks):
    """The picture is 1.2 to each side, and a dot is about 0.1 wide."""
    texts = spokes(np.array([[1, 1], [0, apart]]))[3].texts
    assert [text.get_text() for text in texts] == marks


def test_the_most_important_feature_is_yellow():
    colors = plotting.importance_colors(np.array([1.0, 0.1, 0.5]))
    np.testing.assert_allclose(colors[0], plotting.IMPORTANCE_MAP(1.0))
    np.testing.assert_allclose(colors[1], plotting.IMPORTANCE_MAP(0.0))


def test_overlaps_stand_before_a_gap_and_the_bias():
    _, axes = plotting.figure()
    image = plotting.gram(axes, LABELLED, xr.DataArray([0.1, 0.2, 0.3], dims="feature"))
    shown = image.get_array().filled(np.nan)
    np.testing.assert_allclose(shown[:, :3], WEIGHTS.T @ WEIGHTS)
    assert np.isnan(shown[:, 3]).all()
    np.testing.assert_allclose(shown[:, 4], [0.1, 0.2, 0.3])
    red, blue = image.to_rgba([1.0, -1.0])
    assert red[0] > red[2]
    assert blue[2] > blue[0]


def test_features_of_one_polytope_stand_together():
    weights = np.zeros((3, 6))
    weights[:2, [0, 2, 4]] = regular_polygon(3)
    weights[2, [1, 5]] = 1, -1
    order = plotting.by_component(weights)
    np.testing.assert_array_equal(order, [0, 2, 4, 1, 5, 3])
    _, axes = plotting.figure()
    shown = plotting.gram(axes, weights, order=order).get_array()
    np.testing.assert_allclose(shown[:3, 3:], 0, atol=1e-12)


def test_numbers_are_written_into_a_matrix_where_they_are_large_enough():
    _, axes = plotting.figure()
    plotting.signed_matrix(axes, np.array([[0.5, -0.25], [0.01, 1.0]]), numbers=".2f", smallest=0.1)
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts == {(0, 0): ".50", (1, 0): "-.25", (1, 1): "1.00"}
    with pytest.raises(InputError, match=r"table has shape \(2, 2, 2\)"):
        plotting.signed_matrix(axes, np.zeros((2, 2, 2)))


@given(st.floats(0, 2 * np.pi), st.integers(0, 4))
def test_turning_puts_a_feature_up_and_changes_no_angle(turn, feature):
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    pentagon = rotation @ regular_polygon(5)
    up = plotting.turned(pentagon, feature)
    np.testing.assert_allclose(up[:, feature], [0, 1], atol=1e-12)
    np.testing.assert_allclose(up.T @ up, pentagon.T @ pentagon, atol=1e-12)


@given(st.integers(0, 2**32 - 1))
def test_a_point_set_has_one_pose_however_it_lies(seed):
    # A pentagon with a pole: its axis differs from the others, and it is its own mirror image.
    points = np.vstack([regular_polygon(5), np.zeros(5)])
    points = np.hstack([points, [[0.0], [0.0], [2.0]]])
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    pose = plotting.upright(rotation @ points)
    np.testing.assert_allclose(pose.T @ pose, points.T @ points, atol=1e-9)
    np.testing.assert_allclose(np.abs(pose[:, -1]), [0, 0, 2], atol=1e-9)


def test_pairs_have_one_pose_whatever_their_order_rotation_and_mirror():
    angles = np.radians([70, 110, 200, 260, -50, -20])  # gaps of 40, 60 and 30 degrees
    weights = np.stack([np.cos(angles), np.sin(angles)])
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    mirrored = np.diag([1, -1]) @ weights
    found = []
    for table in (weights, turn @ weights[:, [4, 5, 0, 1, 2, 3]], mirrored):
        _, axes = plotting.figure()
        plotting.pair_spokes(axes, table)
        ends = axes.collections[1].get_offsets().reshape(3, 2, 2)
        np.testing.assert_allclose(ends[0].sum(axis=0)[0], 0, atol=1e-12)  # the widest points up
        assert ends[0].sum(axis=0)[1] > 0
        assert ends[1].sum(axis=0)[0] < 0  # and the next is on the left
        found.append({tuple(np.round(end, 9)) for end in ends.reshape(-1, 2)})
    assert found[0] == found[1] == found[2]
    with pytest.raises(InputError, match="3 features"):
        plotting.pair_spokes(axes, WEIGHTS)
