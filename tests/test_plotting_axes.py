"""Labelled results say where they are drawn; axes get names and numbers that can be read."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import Normalize, to_rgba

from toymodels import plotting
from toymodels.errors import InputError
from toymodels.theory.phases import Phase

# The grid of the ten lines in README: coarse, and in no order that an axis has.
COARSE = {"density": [1.0, 0.3, 0.1], "importance": [0.1, 1.0, 10.0]}
TABLE = xr.DataArray(
    [[0.0, 1.0, 2.0], [1.0, 2.0, 0.0], [np.nan, 0.0, 1.0]], dims=list(COARSE), coords=COARSE
)


def axes():
    return plotting.figure()[1]


def tick_texts(axis):
    axis.axes.figure.draw_without_rendering()
    return [label.get_text() for label in axis.get_ticklabels()]


@pytest.mark.parametrize("values", [TABLE, TABLE.T], ids=["as is", "transposed"])
def test_a_heat_map_has_even_cells_in_the_order_of_their_coordinates(values):
    panel = axes()
    image = plotting.heat_map(panel, values, x="importance", y="density", norm=Normalize(0, 2))
    corners = image.get_coordinates()
    np.testing.assert_array_equal(corners[0, :, 0], [-0.5, 0.5, 1.5, 2.5])
    np.testing.assert_array_equal(corners[:, 0, 1], [-0.5, 0.5, 1.5, 2.5])
    shown = np.ma.filled(image.get_array(), np.nan)
    np.testing.assert_array_equal(shown, TABLE.values[::-1])  # density grows upwards
    assert tick_texts(panel.xaxis) == ["0.1", "1", "10"]
    assert tick_texts(panel.yaxis) == ["0.1", "0.3", "1"]
    assert panel.get_ylabel() == plotting.DENSITY
    assert panel.patch.get_hatch()  # under the cell of NaN


def test_numbers_stand_in_their_cells_and_can_be_read_on_their_colour():
    values = xr.DataArray([[0.0, np.nan, 1.0]], dims=("y", "x"), name="v")
    panel = axes()
    plotting.heat_map(panel, values, x="x", y="y", numbers=".1f")
    texts = {text.get_position(): (text.get_text(), text.get_color()) for text in panel.texts}
    assert texts == {(0, 0): ("0.0", "black"), (2, 0): ("1.0", "white")}
    with pytest.raises(InputError, match=r"values has dimensions \('y', 'x', 'z'\): give 'x',"):
        plotting.heat_map(panel, values.expand_dims(z=3, axis=2), x="x", y="y")


def test_words_keep_their_order_in_a_heat_map():
    names = {"kind": ["two", "one"], "x": [2, 1]}
    values = xr.DataArray([[1.0, 2.0], [3.0, 4.0]], dims=("kind", "x"), coords=names)
    panel = axes()
    image = plotting.heat_map(panel, values, x="x", y="kind")
    assert tick_texts(panel.yaxis) == ["two", "one"]
    np.testing.assert_array_equal(image.get_array(), [[2, 1], [4, 3]])


@pytest.mark.parametrize("phases", [TABLE, TABLE.T], ids=["as is", "transposed"])
def test_a_phase_diagram_of_a_coarse_grid_has_equal_cells_and_names_its_phases(phases):
    panel = axes()
    image = plotting.phase_diagram(panel, phases)
    corners = np.log10(image.get_coordinates())
    np.testing.assert_allclose(corners[0, :, 0], [-1.5, -0.5, 0.5, 1.5], atol=1e-12)
    across = np.diff(corners[:, 0, 1])
    np.testing.assert_allclose(
        across, [np.log10(3), np.log10(10) / 2, np.log10(10 / 3)], atol=1e-12
    )
    colors = image.get_array()
    np.testing.assert_allclose(colors[2, 1], to_rgba(plotting.PHASE_COLORS[1]))
    assert colors[0, 0, 3] == 0  # missing
    names = [text.get_text() for text in panel.get_legend().get_texts()]
    assert names == ["not represented", "dedicated", "in superposition"]
    assert len(plotting.PHASE_NAMES) == len(plotting.PHASE_COLORS) == len(Phase)


def test_a_colour_bar_writes_plain_numbers_without_an_outline():
    panel = axes()
    image = plotting.heat_map(panel, TABLE, x="importance", y="density")
    bar = plotting.color_bar(image, "loss", ticks=(0.05, 2))
    assert not bar.outline.get_visible()
    assert tick_texts(bar.ax.yaxis) == ["0.05", "2"]
    assert bar.ax.get_ylabel() == "loss"


@pytest.mark.parametrize(
    ("limits", "texts"),
    [
        ((0.1, 1), ["0.1", "0.2", "0.5", "1"]),
        ((1, 6), ["1", "1.5", "2", "3", "4", "6"]),
        ((0.001, 1), ["0.001", "0.003", "0.01", "0.03", "0.1", "0.3", "1"]),
        ((1, 1e6), ["1", "10", "100", "1000", "10000", "100000", "$10^{6}$"]),
        ((1e-6, 1), ["$10^{-6}$", "$10^{-5}$", "0.0001", "0.001", "0.01", "0.1", "1"]),
    ],
)
def test_log_axes_have_plain_numbers(limits, texts):
    panel = axes()
    plotting.density_axis(panel)
    panel.set_xlim(limits)
    assert tick_texts(panel.xaxis) == texts
    assert panel.get_xlabel() == plotting.DENSITY


def test_given_ticks_leave_the_limits_alone():
    panel = axes()
    panel.set(xscale="symlog", xlim=(0, 1))
    plotting.plain_ticks(panel, "x", (0, 0.5, 7))
    assert panel.get_xlim() == (0, 1)
    with pytest.raises(InputError, match="along is 'z': give 'x' or 'y'"):
        plotting.plain_ticks(panel, "z")
    plotting.density_axis(panel, "y", inverse=True)
    assert (panel.get_yscale(), panel.get_ylabel()) == ("log", plotting.INVERSE_DENSITY)


def test_names_of_axes_come_from_the_results():
    values = xr.DataArray([1.0], dims="number_of_steps", name="number_of_steps")
    assert plotting.name_of(values) == "number of steps"
    assert plotting.name_of(values.assign_attrs(long_name="time", units="s")) == "time, s"
    assert plotting.name_of(values.rename("density")) == plotting.DENSITY


SEEDS = xr.DataArray(
    [[[1.0, 2.0, 6.0], [2.0, 3.0, 4.0]], [[5.0, 5.0, 5.0], [0.0, 1.0, np.nan]]],
    dims=("model", "density", "seed"),
    coords={"model": ["one", "two"], "density": [0.1, 1.0]},
)


def test_every_seed_is_a_dot_and_the_line_is_their_median():
    panel = axes()
    plotting.every_seed(panel, SEEDS.T, x="density", lines="model")
    lines = {line.get_label(): line for line in panel.get_lines()}
    np.testing.assert_array_equal(lines["one"].get_ydata(), [2, 3])
    np.testing.assert_array_equal(lines["two"].get_ydata(), [5, 0.5])  # NaN is no seed
    dots = [line for line in panel.get_lines() if line.get_linestyle() == "None"]
    drawn = np.array([line.get_ydata() for line in dots if len(line.get_ydata())])
    np.testing.assert_array_equal(drawn, np.concatenate([SEEDS[0].T, SEEDS[1].T]))
    texts = [text.get_text() for text in panel.get_legend().get_texts()]
    assert texts == ["one", "two", "each of 3 seeds", "median of seeds"]
    assert lines["one"].get_marker() != lines["two"].get_marker()


def test_a_chosen_line_says_what_it_is_and_calls_go_on_through_the_colours():
    panel = axes()
    first, second = SEEDS
    for values, name in ((first, "first"), (second, "second")):
        lowest = values.min("seed")
        plotting.every_seed(panel, values, x="density", chosen=lowest, choice="best", label=name)
    lines = {line.get_label(): line for line in panel.get_lines()}
    np.testing.assert_array_equal(lines["first"].get_ydata(), [1, 2])
    assert lines["first"].get_color() == plotting.CYCLE[0]
    assert lines["second"].get_color() == plotting.CYCLE[1]
    texts = [text.get_text() for text in panel.get_legend().get_texts()]
    assert texts == ["first", "second", "each of 3 seeds", "best"]


def test_one_seed_is_called_one_seed():
    panel = axes()
    plotting.every_seed(panel, SEEDS[0, :, :1].rename(seed="run"), x="density", seed="run")
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["one seed"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (SEEDS, r"values has dimensions \('model', 'density', 'seed'\): give 'density', 'seed'"),
        (SEEDS[0].assign_coords(density=["a", "b"]), "'density' has no coordinates of numbers"),
    ],
)
def test_seeds_of_other_dimensions_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        plotting.every_seed(axes(), values, x="density")


def test_names_stand_at_the_ends_of_their_lines_and_apart():
    panel = axes()
    for height, name in ((0.50, "low"), (0.51, "high"), (0.0, "far")):
        panel.plot([0, 1, np.nan], [0, height, np.nan], label=name)
    panel.plot(0.5, 0.5, ".", label="dot")
    panel.legend()
    plotting.direct_labels(panel)
    panel.figure.draw_without_rendering()
    places = {text.get_text(): text.get_window_extent() for text in panel.texts}
    assert places.keys() == {"low", "high", "far"}
    assert places["low"].y1 <= places["high"].y0 + 1
    end = panel.transData.transform((1, 0.0))
    assert places["far"].y0 < end[1] < places["far"].y1
    assert all(place.x0 > end[0] for place in places.values())
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["dot"]
