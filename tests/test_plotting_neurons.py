"""Neurons, circuits, curves and dictionaries are drawn from their numbers."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_rgba

from toymodels import plotting
from toymodels.errors import InputError


def axes():
    return plotting.figure()[1]


def test_a_rectangle_has_the_number_of_its_feature_where_it_is_high_enough():
    panel = axes()
    weights = xr.DataArray([[1.0, 0.0], [0.25, -0.5]], dims=("feature", "neuron"))
    plotting.neuron_stacks(panel, weights, ["black", "white"], numbers_above=0.3)
    texts = {text.get_position(): text.get_text() for text in panel.texts}
    assert texts == {(0, 0.5): "0", (1, -0.25): "1"}
    assert [text.get_color() for text in panel.texts] == ["white", "black"]  # on black, on white
    with pytest.raises(InputError, match="tint has 1 colours for 2 neurons"):
        plotting.neuron_stacks(panel, weights, ["black", "white"], tint=["red"])


def test_the_key_of_stacks_names_every_colour():
    panel = axes()
    plotting.stacks_key(panel, {"alone": "blue", "shared": "red"})
    assert {"alone", "shared"} <= {text.get_text() for text in panel.texts}
    assert len(panel.patches) == 3  # the weights of the neuron


def test_neurons_stand_in_the_order_of_their_features():
    weights = np.array([[0.1, -1.0], [2.0, 0.5], [0.0, 1.5], [3.0, 1.0]])
    np.testing.assert_array_equal(plotting.by_feature(weights), [3, 1, 2, 0])


def test_neurons_of_one_feature_come_before_those_of_a_code():
    """Neuron 2 alone is monosemantic; 3 fires for features 1 and 2, 0 for feature 1, 1 for 2."""
    code = np.array([[0.0, 0.8, -0.7], [0.0, -0.7, 0.8], [1.0, 0.0, 0.0], [0.0, 0.8, 0.8]])
    np.testing.assert_array_equal(plotting.by_code(code), [2, 3, 0, 1])
    np.testing.assert_array_equal(plotting.by_code(np.eye(3)[::-1]), [2, 1, 0])


def test_a_circuit_has_an_edge_for_each_weight_as_wide_as_it_is_large():
    into, out = np.array([[2.0, -1.0], [0.0, 1.0]]), np.array([[0.5, -2.0], [0.0, 0.0]])
    panel = axes()
    plotting.circuit(panel, into, out, inputs="AB", outputs="CD", numbers=".1f")
    edges = {
        tuple(np.ravel(edge.get_segments())): edge.get_linewidths()[0] for edge in panel.collections
    }
    assert len(edges) == 5
    assert edges[0, 1, 1, 1] == 2 * edges[0, 0, 1, 1]
    colors = {tuple(np.ravel(e.get_segments())): e.get_colors()[0] for e in panel.collections}
    assert colors[0, 1, 1, 1][0] > colors[0, 1, 1, 1][2]  # positive: red
    assert colors[0, 0, 1, 1][0] < colors[0, 0, 1, 1][2]  # negative: blue
    assert {"A", "B", "C", "D", "2.0", "-1.0"} <= {text.get_text() for text in panel.texts}
    with pytest.raises(InputError, match=r"weights have shapes \(2, 2\) and \(2, 2\) for 1 inputs"):
        plotting.circuit(panel, into, out, inputs="A", outputs="CD")
    with pytest.raises(InputError, match="neurons has 1 names for 2 neurons"):
        plotting.circuit(panel, into, out, inputs="AB", outputs="CD", neurons="n")


def test_the_curve_of_a_feature_is_that_of_the_model():
    weights, bias = np.array([[1.0, -0.5], [0.5, 0.5]]), np.array([-0.25, 0.0])
    panel = axes()
    plotting.input_output(panel, weights, bias, 0, density=0.0)
    x, y = panel.get_lines()[0].get_data()
    np.testing.assert_allclose(y, np.maximum(1.25 * x - 0.25, 0), atol=1e-12)
    for shading in panel.collections:  # nobody else is there at density 0
        height = shading.get_paths()[0].vertices
        np.testing.assert_allclose(height[:, 1], np.interp(height[:, 0], x, y), atol=1e-12)
    with pytest.raises(InputError, match="feature is 2, with weights of shape"):
        plotting.input_output(panel, weights, bias, 2, density=0.1)


def test_the_front_is_what_no_dictionary_beats_with_fewer_latents():
    names = {"architecture": ["ReLU", "TopK"]}
    dims = ("architecture", "setting")
    l0 = xr.DataArray([[4.0, 1.0, 2.0, 3.0], [1.0, np.nan, 2.0, 3.0]], dims=dims, coords=names)
    explained = xr.DataArray([[0.9, 0.2, 0.6, 0.5], [0.3, 0.4, 0.8, 0.7]], dims=dims, coords=names)
    panel = axes()
    plotting.pareto(panel, l0, explained.T, true_l0=2.5)
    fronts = {str(line.get_label()): line.get_data() for line in panel.get_lines()}
    np.testing.assert_array_equal(fronts["ReLU"], [[1, 2, 4], [0.2, 0.6, 0.9]])
    np.testing.assert_array_equal(fronts["TopK"], [[1, 2], [0.3, 0.8]])
    colors = [line.get_color() for line in panel.get_lines()[:4]]
    assert colors == [plotting.CYCLE[0]] * 2 + [plotting.CYCLE[1]] * 2
    assert to_rgba(colors[0]) != to_rgba(colors[2])
    with pytest.raises(InputError, match="l0 has dimensions"):
        plotting.pareto(panel, l0.isel(setting=0), explained)
