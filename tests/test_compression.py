"""Errors of compressing two numbers into one: limits, samples, and networks of ReLUs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toymodels.errors import InputError
from toymodels.theory import compression

widths = st.floats(0.01, 1.0)
segments = st.integers(2, 6)


@given(widths, segments, st.booleans())
def test_the_closed_form_is_the_integral(width, segments, last_ramp):
    expected = compression.squared_error_by_quadrature(width, segments, last_ramp=last_ramp)
    actual = compression.squared_error(width, segments, last_ramp=last_ramp)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@pytest.mark.parametrize("last_ramp", [False, True])
@pytest.mark.parametrize(("width", "segments"), [(0.1, 3), (0.6, 2)])
def test_the_closed_form_is_the_mean_over_samples(width, segments, last_ramp):
    x, y = np.random.default_rng(0).random((2, 200_000))
    code = compression.encode(x, y, width, segments, last_ramp=last_ramp)
    x_out, y_out = compression.decode(code, width, segments, last_ramp=last_ramp)
    squares = (x - x_out) ** 2 + (y - y_out) ** 2
    expected = compression.squared_error(width, segments, last_ramp=last_ramp)
    assert abs(squares.mean() - expected) < 4 * squares.std() / x.size**0.5
    assert 0 <= code.min() <= code.max() <= 1


@given(segments, st.booleans())
def test_jumps_lose_only_the_place_within_a_segment(segments, last_ramp):
    expected = 1 / (12 * segments**2)
    actual = compression.squared_error(0.0, segments, last_ramp=last_ramp)
    np.testing.assert_allclose(actual, expected, rtol=1e-15)


@given(st.floats(0.05, 1.0), segments, st.integers(0, 2**32 - 1))
def test_the_network_is_the_function(width, segments, seed):
    inputs = np.random.default_rng(seed).random((2, 50))
    network = compression.network(width, segments)
    expected = compression.decode(compression.encode(*inputs, width, segments), width, segments)
    # Both layers have slopes of 1 / width, which magnify rounding.
    np.testing.assert_allclose(network(inputs), expected, atol=1e-11)
    assert network.num_relus == 4 * segments - 2
    assert network.weights_to_code.shape[0] == 1  # all goes through one number


def test_what_is_no_width_or_number_of_segments_is_refused():
    with pytest.raises(InputError, match="width is 2"):
        compression.squared_error(2.0, 3)
    with pytest.raises(InputError, match="segments is 1"):
        compression.network(0.1, 1)
