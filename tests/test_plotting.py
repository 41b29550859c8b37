"""Drawn lengths are those of the numbers."""

import numpy as np
from hypothesis import given
from hypothesis.extra import numpy as hnp

from toymodels import plotting

tables = hnp.arrays(np.int8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5))


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
