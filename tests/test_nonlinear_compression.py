"""Errors of compressing two numbers into one: limits, samples, and networks of ReLUs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import nonlinear_compression as compression

widths = st.floats(0.01, 1.0)
segments = st.integers(2, 6)
variants = st.sampled_from([compression.INSIDE, compression.EVERY])


@given(widths, segments, variants)
def test_the_closed_form_is_the_integral(width, segments, variant):
    expected = compression.quadrature(width, segments, variant)
    actual = compression.closed_form(width, segments, variant)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@pytest.mark.parametrize("variant", [compression.INSIDE, compression.EVERY])
@pytest.mark.parametrize(("width", "segments"), [(0.1, 3), (0.6, 2)])
def test_the_closed_form_is_the_mean_over_samples(width, segments, variant):
    x, y = np.random.default_rng(0).random((2, 200_000))
    code = compression.encode(x, y, width, segments, variant)
    x_out, y_out = compression.decode(code, width, segments, variant)
    squares = (x - x_out) ** 2 + (y - y_out) ** 2
    expected = compression.closed_form(width, segments, variant)
    assert abs(squares.mean() - expected) < 4 * squares.std() / x.size**0.5
    assert 0 <= code.min() <= code.max() <= 1


@given(segments, variants)
def test_jumps_lose_only_the_place_within_a_segment(segments, variant):
    expected = 1 / (12 * segments**2)
    np.testing.assert_allclose(
        compression.closed_form(0.0, segments, variant), expected, rtol=1e-15
    )


@given(st.floats(0.05, 1.0), segments, st.integers(0, 2**32 - 1))
def test_the_network_is_the_function(width, segments, seed):
    inputs = np.random.default_rng(seed).random((2, 50))
    layers = compression.network(width, segments)
    expected = compression.decode(compression.encode(*inputs, width, segments), width, segments)
    # Both layers have slopes of 1 / width, which magnify rounding.
    np.testing.assert_allclose(compression.through(layers, inputs), expected, atol=1e-11)
    assert layers[0].shape[0] + layers[3].shape[0] == 4 * segments - 2
    assert layers[2].shape[0] == 1  # all goes through one number
