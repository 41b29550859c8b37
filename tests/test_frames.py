"""Frames against the angles and the frame operator that they must have."""

import numpy as np
import pytest

from toymodels.theory import frames


def norms(weights):
    return np.linalg.norm(weights, axis=0)


@pytest.mark.parametrize("hidden", [1, 2, 3, 5])
def test_a_simplex_has_equal_angles(hidden):
    vertices = frames.simplex(hidden)
    expected = np.full((hidden + 1, hidden + 1), -1 / hidden)
    np.fill_diagonal(expected, 1)
    np.testing.assert_allclose(vertices.T @ vertices, expected, rtol=0, atol=1e-12)


def test_a_square_pyramid_is_a_unit_tight_frame_with_one_apex():
    vertices = frames.square_pyramid()
    np.testing.assert_allclose(norms(vertices), 1)
    np.testing.assert_allclose(vertices @ vertices.T, 5 / 3 * np.eye(3), rtol=0, atol=1e-12)
    cosines = (vertices.T @ vertices)[np.triu_indices(5, 1)]
    expected = np.repeat([-2 / 3, -(6**-0.5), 1 / 6], [2, 4, 4])
    np.testing.assert_allclose(np.sort(cosines), expected)


@pytest.mark.parametrize(("num_features", "hidden"), [(2, 1), (5, 2), (6, 3), (8, 4)])
def test_direct_sums_are_different_and_tight(num_features, hidden):
    sums = list(frames.direct_sums(num_features, hidden))
    for frame in sums:
        lengths = norms(frame)
        np.testing.assert_allclose(lengths[lengths > 0], 1)
        # Every feature is an eigenvector of the frame operator: each block is tight.
        operator = frame @ frame.T
        stretched = (frame * (operator @ frame)).sum(axis=0)
        np.testing.assert_allclose(operator @ frame, stretched * frame, rtol=0, atol=1e-12)
    grams = {tuple(np.round(frame.T @ frame, 9).ravel() + 0.0) for frame in sums}
    assert len(grams) == len(sums)
