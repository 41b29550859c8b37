"""Colours stay apart for readers without red or green cones, and figures can be read when small."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from toymodels import plotting
from toymodels.errors import InputError

# Machado, Oliveira and Fernandes (2009), "A Physiologically-based Model for Simulation of Color
# Vision Deficiency", of full severity, for linear red, green and blue.
SIGHT = {
    "all cones": np.eye(3),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
}
# IEC 61966-2-1, from linear sRGB to XYZ; the row sums are the white of CIE D65.
TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def lab(color, sight):
    """Return the CIELAB coordinates of a colour as a reader with a given colour vision sees it."""
    coded = np.array(to_rgb(color))
    linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    share = TO_XYZ @ np.clip(sight @ linear, 0, 1) / TO_XYZ.sum(axis=1)
    x, y, z = np.where(share > (6 / 29) ** 3, np.cbrt(share), share / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def smallest_distance(colors, sight):
    seen = [lab(color, sight) for color in colors]
    return min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))


def test_distances_of_colours_are_those_of_cielab():
    black, white, red = (lab(color, np.eye(3)) for color in ("black", "white", "red"))
    np.testing.assert_allclose(np.linalg.norm(white - black), 100, atol=0.01)
    np.testing.assert_allclose(red, [53.24, 80.09, 67.20], atol=0.02)  # as tables have it


@pytest.mark.parametrize("name", SIGHT)
def test_any_two_colours_of_lines_and_of_phases_differ(name):
    # A distance of 2.3 is just noticeable side by side. Of matplotlib's own first seven colours the
    # closest two are 4.6 apart in protanopia.
    assert smallest_distance(plotting.CYCLE, SIGHT[name]) > 15
    assert smallest_distance(plotting.PHASE_COLORS, SIGHT[name]) > 25


def test_every_colour_of_lines_has_a_marker_of_its_own():
    assert len(set(plotting.MARKERS)) == len(plotting.CYCLE) == len(set(plotting.CYCLE))


def test_only_importance_ends_in_yellow():
    def yellow(color):
        red, green, blue = color[:3]
        return min(red, green) - blue > 0.5

    assert yellow(plotting.IMPORTANCE_MAP(1.0))
    maps = plotting.SUPERPOSITION_MAP, plotting.VALUE_MAP, plotting.WEIGHT_MAP
    for colors in maps:
        assert not any(yellow(colors(place)) for place in np.linspace(0, 1, 50))


@pytest.mark.parametrize("name", SIGHT)
def test_scales_of_one_direction_grow_darker_or_lighter_all_the_way(name):
    for colors in (plotting.VALUE_MAP, plotting.SUPERPOSITION_MAP, plotting.IMPORTANCE_MAP):
        lightness = np.array(
            [lab(colors(place), SIGHT[name])[0] for place in np.linspace(0, 1, 20)]
        )
        steps = np.diff(lightness) * np.sign(lightness[-1] - lightness[0])
        assert steps.min() > 0


def test_lines_have_the_colours_of_the_house_only_inside_of_its_style():
    with plotting.style():
        _, axes = plotting.figure()
        assert axes.plot([0, 1])[0].get_color() == plotting.CYCLE[0]
    _, axes = plotting.figure()
    assert axes.plot([0, 1])[0].get_color() != plotting.CYCLE[0]


def test_a_figure_in_house_style_can_be_read():
    with plotting.style():
        figure, axes = plotting.figure(size=(plotting.WIDEST, 3))
        axes.plot([0, 1], label="line")
        axes.legend()
        axes.set(xlabel="x", title="title")
    plotting.check_figure(figure)


def test_a_figure_that_cannot_be_read_is_refused():
    figure, axes = plotting.figure(size=(9, 3))
    hidden = axes.text(0, 0, "hidden", fontsize=3)
    hidden.set_visible(False)
    axes.text(0, 0, " ", fontsize=3)  # nothing to read
    plotting.check_figure(figure)
    axes.tick_params(labelsize=6.5)
    with pytest.raises(InputError, match=r"writes '.*' in 6\.5 points: take at least 7"):
        plotting.check_figure(figure)
    figure.set_size_inches(9.5, 3)
    with pytest.raises(InputError, match=r"a figure of 9\.5 inches is too wide.*take at most 9"):
        plotting.check_figure(figure)
    for make in (plotting.figure, plotting.figure_of_parts):
        with pytest.raises(InputError, match=r"a figure of 10 inches is too wide"):
            make(1, 2, size=(10, 3))
