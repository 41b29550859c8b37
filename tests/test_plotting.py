"""Drawings have the places, lengths and colours of their numbers, and missing numbers are blank."""

import inspect
import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis.extra import numpy as hnp
from matplotlib.colors import to_rgba

from toymodels import plotting
from toymodels.errors import InputError
from toymodels.theory.phases import Phase

tables = hnp.arrays(np.int8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5))


def labelled(values, x, y):
    return xr.DataArray(values, dims=("y", "x"), coords={"x": x, "y": y})


def drawn(values, **names):
    _, axes = plotting.figure()
    # Unwrapped of the tests' own checks of types, as a user calls it.
    mesh = inspect.unwrap(plotting.log_image)(axes, values, **({"x": "x", "y": "y"} | names))
    corners = mesh.get_coordinates()
    return corners[0, :, 0], corners[:, 0, 1], mesh, axes


@given(tables)
def test_stacks_of_neurons_are_as_high_as_their_weights(table):
    weights = table / 8  # exact in floating point, as are the sums
    _, axes = plotting.figure()
    plotting.neuron_stacks(axes, weights, np.zeros((weights.shape[1], 3)))
    assert len(axes.patches) == np.count_nonzero(weights)
    for place, neuron in enumerate(weights):
        drawn = [patch for patch in axes.patches if round(patch.get_x() + 0.4) == place]
        ends = [patch.get_y() + patch.get_height() for patch in drawn]
        assert max([0, *ends]) == neuron.clip(min=0).sum()
        assert min([0, *ends]) == neuron.clip(max=0).sum()


@pytest.mark.parametrize(
    ("centres", "exponents"),
    [
        pytest.param([0.01, 0.1, 1.0], [-2.5, -1.5, -0.5, 0.5], id="even"),
        pytest.param([1.0, 0.1, 0.01], [-2.5, -1.5, -0.5, 0.5], id="descending"),
        pytest.param([0.1, 0.001, 1.0], [-4, -2, -0.5, 0.5], id="uneven and unsorted"),
        pytest.param([0.1], [-1 - np.log10(2) / 2, -1 + np.log10(2) / 2], id="one"),
    ],
)
def test_cells_end_half_way_on_a_log_axis(centres, exponents):
    values = labelled(np.arange(len(centres) * 2).reshape(2, -1), centres, [1.0, 10.0])
    x, y, mesh, axes = drawn(values)
    np.testing.assert_allclose(np.log10(x), exponents)
    np.testing.assert_allclose(np.log10(y), [-0.5, 0.5, 1.5])
    np.testing.assert_allclose(axes.get_xlim(), [x[0], x[-1]])  # and to the right they grow
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    np.testing.assert_array_equal(mesh.get_array(), values.sortby("x").values)


def test_labels_and_not_the_order_say_which_axis_is_which():
    phases = labelled(np.array([[0, 1], [2, 3]]), [1.0, 2.0], [1.0, 2.0])
    colors = plotting.phase_colors(phases)
    for values in (colors, colors.transpose("channel", "x", "y")):
        cells = drawn(values)[2].get_array()
        for row, column in np.ndindex(2, 2):
            expected = to_rgba(plotting.PHASE_COLORS[2 * row + column])
            np.testing.assert_allclose(cells[row, column], expected)
    turned = drawn(phases, x="y", y="x")[2].get_array()
    np.testing.assert_array_equal(turned, phases.values.T)


def test_what_is_missing_is_blank():
    phases = labelled(np.array([[0.0, np.nan], [2.0, 1.0]]), [1.0, 2.0], [1.0, 2.0])
    opacity = drawn(plotting.phase_colors(phases))[2].get_array()[..., 3]
    np.testing.assert_array_equal(opacity, [[1, 0], [1, 1]])
    norm, shared = np.array([1.0, np.nan, 1.0, 0.0]), np.array([0.0, 0.0, np.nan, 1.0])
    colors = plotting.norm_and_superposition(norm, shared)
    np.testing.assert_array_equal(colors[:, 3], [1, 0, 0, 1])
    np.testing.assert_allclose(colors[0], to_rgba(plotting.DEDICATED))
    np.testing.assert_allclose(colors[3], to_rgba(plotting.NOT_REPRESENTED))
    rgb = xr.DataArray(np.ones((2, 2, 3)), dims=("y", "x", "rgb"), coords=phases.coords)
    rgb[0, 0, 1] = np.nan
    np.testing.assert_array_equal(drawn(rgb)[2].get_array()[..., 3], [[0, 1], [1, 1]])


def test_pictures_of_a_model_that_diverged_are_empty():
    missing = np.full((2, 3), np.nan)
    _, axes = plotting.figure()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        colors = plotting.importance_colors(np.array([np.nan, 1.0, 0.5]))
        plotting.spokes(axes, missing, color=colors)
        plotting.importance_bar(axes, missing[0])
        plotting.norm_bars(axes, missing[0], missing[0])
        plotting.gram(axes, missing, missing[0])
        plotting.neuron_stacks(axes, missing, np.zeros((3, 3)))
        values = xr.DataArray(missing, dims=("bar", "group"), coords={"bar": ["a", "b"]})
        values = values.assign_coords(group=["one", "two", "three"])
        values[0, 1] = 2.0
        _, axes = plotting.figure()
        plotting.grouped_bars(axes, values, groups="group", bars="bar")
        assert [patch.get_height() for patch in axes.patches] == [2.0]


def test_a_mean_and_its_range_reach_from_the_lowest_to_the_highest_value():
    values = xr.DataArray([[1.0, 2.0, 6.0], [5.0, 5.0, 5.0]], dims=("x", "seed"))
    mean, (below, above) = plotting.mean_and_range(values)
    np.testing.assert_array_equal(mean - below, [1, 5])
    np.testing.assert_array_equal(mean + above, [6, 5])


def test_a_band_of_seeds_reaches_from_the_lowest_to_the_highest_around_the_median():
    values = xr.DataArray([[1.0, 2.0, 6.0], [5.0, 5.0, 8.0]], dims=("x", "seed"))
    _, axes = plotting.figure()
    plotting.range_band(axes, values.assign_coords(x=[1, 2]), x="x", color="C0", label="loss")
    np.testing.assert_array_equal(axes.get_lines()[0].get_ydata(), [2, 5])
    corners = {tuple(corner) for corner in axes.collections[0].get_paths()[0].vertices}
    assert corners >= {(1, 1), (1, 6), (2, 5), (2, 8)}
    with pytest.raises(InputError, match="'x' has no coordinates of numbers"):
        plotting.range_band(axes, values, x="x", color="C0")


def test_horizontal_bars_begin_at_the_top_and_say_their_medians():
    rates = xr.DataArray([[1.0, 3.0], [2.0, 4.0], [9.0, 5.0]], dims=("round", "who"))
    _, axes = plotting.figure()
    plotting.horizontal_bars(axes, rates.assign_coords(who=["a", "b"]), bars="who", unit="s")
    assert [bar.get_width() for bar in axes.patches] == [2, 4]
    assert [text.get_text() for text in axes.texts] == ["2 s", "4 s"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert axes.yaxis_inverted()


def test_figures_are_pictures_in_a_notebook():
    figure, axes = plotting.figure(size=(1, 1))
    axes.plot([0, 1], [0, 1])
    assert figure._repr_png_().startswith(b"\x89PNG\r\n")


SQUARE = labelled(np.zeros((2, 2)), [1.0, 2.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param(np.zeros((2, 2)), "values is a ndarray: give an xarray", id="no labels"),
        pytest.param(SQUARE.rename(x="z"), r"dimensions \('y', 'z'\): give 'x', 'y'", id="name"),
        pytest.param(
            SQUARE.expand_dims(seed=2, run=2), r"select one of the others with \.sel", id="seeds"
        ),
        pytest.param(SQUARE.expand_dims(seed=2), "'seed' has 2 entries: colours have", id="seed"),
        pytest.param(SQUARE.drop_vars("x"), "'x' has no coordinates of numbers", id="no numbers"),
        pytest.param(
            SQUARE.assign_coords(x=["a", "b"]), "'x' has no coordinates of numbers", id="words"
        ),
        pytest.param(SQUARE.assign_coords(y=[0.0, 1.0]), "'y' holds 0, which has no", id="zero"),
    ],
)
def test_what_is_no_image_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        drawn(values)


def test_wrong_shapes_are_refused():
    _, axes = plotting.figure()
    rates = xr.DataArray(np.ones(2), dims="who", coords={"who": ["a", "b"]})
    with pytest.raises(InputError, match=r"values has dimensions \('who',\): give 'who' and one"):
        plotting.horizontal_bars(axes, rates, bars="who")
    with pytest.raises(InputError, match="give 'contender' and one other"):
        plotting.horizontal_bars(axes, rates.expand_dims(round=2), bars="contender")
    with pytest.raises(InputError, match=r"phase holds 1\.5: give values of Phase"):
        plotting.phase_colors(np.array([0.0, 1.5]))
    assert len(plotting.PHASE_COLORS) == len(Phase)
    with pytest.raises(InputError, match=r"weights has shape \(3, 2\)"):
        plotting.spokes(axes, np.ones((3, 2)))
    with pytest.raises(InputError, match=r"color has 3 colours for 2 features"):
        plotting.spokes(axes, np.ones((2, 2)), color=["red"] * 3)
    with pytest.raises(InputError, match=r"bias has shape \(2,\) for 3 features"):
        plotting.gram(axes, np.ones((2, 3)), np.ones(2))
    with pytest.raises(InputError, match=r"weights has dimensions \('seed', 'hidden', 'feature'"):
        plotting.gram(axes, xr.DataArray(np.ones((2, 2, 3)), dims=("seed", "hidden", "feature")))
    with pytest.raises(InputError, match=r"norm has shape \(2,\)"):
        inspect.unwrap(plotting.norm_bars)(axes, np.ones(2), np.ones(3))
    with pytest.raises(InputError, match=r"weights has shape \(2, 3\) for 2 colors"):
        inspect.unwrap(plotting.neuron_stacks)(axes, np.ones((2, 3)), np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("bar", "low", "labels"),
    [(plotting.superposition_bar, 0, ["0", "≥ 1"]), (plotting.weight_bar, -1, ["-1", "1"])],
)
def test_bars_of_a_scale_show_its_ends(bar, low, labels):
    """Numbers beyond an end of the scale have the colour of that end."""
    figure, (left, right) = plotting.figure(1, 2)
    made = bar([left, right])
    figure.draw_without_rendering()
    assert [text.get_text() for text in made.ax.get_yticklabels()] == labels
    colors = made.mappable
    np.testing.assert_array_equal(colors.to_rgba(1.0), colors.to_rgba(2.0))
    assert not np.array_equal(colors.to_rgba(float(low)), colors.to_rgba(1.0))
