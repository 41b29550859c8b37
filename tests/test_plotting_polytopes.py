"""Polytopes have the edges that theory knows, and strips stand where their levels are."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_rgba

from toymodels import plotting
from toymodels.errors import InputError
from toymodels.theory.frames import regular_polygon

OCTAHEDRON = np.hstack([np.eye(3), -np.eye(3)])
CUBE = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]).T
BIPYRAMID = np.zeros((3, 5))
BIPYRAMID[:2, :3], BIPYRAMID[2, 3:] = regular_polygon(3), (1, -1)
ROTATION, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))


def drawn(points, **options):
    _, axes = plotting.figure()
    plotting.polytope(axes, points, **options)
    return axes


def test_edges_join_vertices_and_those_behind_are_paler():
    axes = drawn(ROTATION @ OCTAHEDRON)
    edges = next(part for part in axes.collections if len(part.get_segments()) == 12)
    places = np.asarray(axes.collections[-1].get_offsets())
    for end in np.concatenate(edges.get_segments()):
        assert np.linalg.norm(places - end, axis=1).min() < 1e-12
    shades = edges.get_colors()[:, 0]
    assert set(np.round(shades, 2)) == {0.35, 0.8}  # an octahedron has edges on both sides


def test_an_edge_inside_of_a_component_has_its_colour():
    colors = plotting.shape_colors_of(BIPYRAMID)
    np.testing.assert_allclose(colors[0], to_rgba(plotting.SHAPE_COLORS["triangle"]))
    np.testing.assert_allclose(colors[3], to_rgba(plotting.SHAPE_COLORS["digon"]))
    lines = [part for part in drawn(BIPYRAMID, color=colors).collections if part.get_zorder() == 1]
    green = np.isclose(lines[0].get_colors()[:, :3], colors[0, :3]).all(axis=1)
    assert green.sum() == 3  # of 9 edges


def test_points_of_a_plane_are_spokes_also_in_space():
    pentagon = regular_polygon(5)
    for points in (pentagon, ROTATION[:, :2] @ pentagon):
        lines = drawn(points).collections[0]
        lengths = np.linalg.norm(np.array(lines.get_segments())[:, 1], axis=1)
        np.testing.assert_allclose(lengths, 1)


def test_points_at_one_place_are_counted():
    doubled = np.hstack([OCTAHEDRON, OCTAHEDRON[:, :1]])
    assert [text.get_text() for text in drawn(doubled).texts] == ["x2"]
    with pytest.raises(InputError, match=r"points has shape \(4, 5\): give 2 or 3 dimensions"):
        plotting.polytope(plotting.figure()[1], np.zeros((4, 5)))


def test_features_that_overlap_are_neighbours_in_the_graph():
    weights = np.zeros((2, 4))
    weights[0, :2], weights[1, 2:] = (1, -1), (1, -1)
    _, axes = plotting.figure()
    plotting.overlap_graph(axes, xr.DataArray(weights, dims=("hidden", "feature")))
    lines, dots = axes.collections
    x = np.asarray(dots.get_offsets())
    assert len(lines.get_segments()) == 2
    across = np.linalg.norm(x[[0, 0]] - x[[2, 3]], axis=1).min()
    assert np.linalg.norm(x[0] - x[1]) < across


def test_every_feature_stands_at_its_level_in_the_column_of_its_density():
    density, shares = [0.1, 1.0], [[[0.5, 0.5], [0.4, np.nan]], [[1.0, 0.0], [1.0, 0.0]]]
    values = xr.DataArray(
        shares, dims=("density", "seed", "feature"), coords={"density": density}, name="D"
    )
    _, axes = plotting.figure()
    plotting.dimension_strip(axes, values.transpose("feature", "density", "seed"))
    (dots,) = axes.get_lines()
    x, y = dots.get_data()
    near = np.where(np.abs(np.log(x)) < 1, 1.0, 0.1)
    for place, level in ((1.0, [1.0, 0.0, 1.0, 0.0]), (0.1, [0.5, 0.5, 0.4, np.nan])):
        np.testing.assert_array_equal(y[near == place], level)
    names = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert names["digon"] == 0.5
    assert names["square antiprism"] < names["pentagon"] - 0.04  # too close for two names
    assert axes.get_xlabel() == plotting.INVERSE_DENSITY
    with pytest.raises(InputError, match=r"D has dimensions \('density', 'seed'\): give 'density'"):
        plotting.dimension_strip(axes, values.isel(feature=0))


def test_shares_of_shapes_are_stacked_in_their_colours_and_empty_ones_left_out():
    shares = xr.DataArray(
        [[0.25, 1.0], [0.75, 0.0], [0.0, 0.0]],
        dims=("shape", "density"),
        coords={"shape": ["digon", "pentagon", "triangle"], "density": [0.5, 1.0]},
    )
    _, axes = plotting.figure()
    plotting.shape_shares(axes, shares, winners=[("digon", 1.0, 2.0)])
    areas = {area.get_label(): area for area in axes.collections}
    assert list(areas) == ["digon", "pentagon"]
    color = to_rgba(plotting.SHAPE_COLORS["digon"])
    np.testing.assert_allclose(areas["digon"].get_facecolor()[0], color)
    heights = areas["digon"].get_paths()[0].vertices
    assert heights[np.isclose(heights[:, 0], 2.0), 1].max() == 0.25
    (strip,) = axes.patches
    assert (strip.get_x(), strip.get_width()) == (1.0, 1.0)
    with pytest.raises(InputError, match="shares has dimensions"):
        plotting.shape_shares(axes, shares.expand_dims("seed"))


def test_strips_refuse_what_has_no_place_or_no_colour_on_them():
    _, axes = plotting.figure()
    shares = xr.DataArray(
        np.full((2, 2), 0.5),
        dims=("density", "shape"),
        coords={"density": [0.0, 0.1], "shape": ["digon", "blob"]},
    )
    with pytest.raises(InputError, match="'density' holds 0, which has no place on a log axis"):
        plotting.shape_shares(axes, shares)
    with pytest.raises(InputError, match="dimension 'density' has no coordinates"):
        plotting.dimension_strip(axes, xr.DataArray(np.ones((2, 3)), dims=("density", "feature")))
    sparse = shares.assign_coords(density=[0.2, 0.1])
    with pytest.raises(InputError, match="the shape 'blob' has no colour: give it one in colors="):
        plotting.shape_shares(axes, sparse)
    with pytest.raises(InputError, match="the shape 'ball' has no colour"):
        plotting.shape_shares(axes, sparse.sel(shape=["digon"]), winners=[("ball", 1.0, 2.0)])
