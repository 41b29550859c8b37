"""Losses of linear students over time, against gradient descent in small steps and limits."""

import numpy as np
import pytest

from toymodels.errors import InputError
from toymodels.theory import gradient_flow as theory

RNG = np.random.default_rng(0)
VARIANCE, GAIN = RNG.uniform(0.2, 2, 5), RNG.normal(size=5)
EMBEDDING = RNG.normal(size=(3, 5))
TIMES = np.array([0.0, 0.1, 0.4])


def descended(embedding, time, step=1e-5):
    """Return the loss after gradient descent in small steps, written out with matrices."""
    matrix = np.zeros((len(embedding), len(embedding)))
    second = np.diag(VARIANCE)
    for _ in range(round(time / step)):
        error = embedding.T @ matrix @ embedding - np.diag(GAIN)
        matrix -= step * 2 * embedding @ error @ second @ embedding.T
    error = embedding.T @ matrix @ embedding - np.diag(GAIN)
    return np.trace(error @ second @ error.T)


@pytest.mark.parametrize("embedding", [EMBEDDING, np.eye(5)], ids=["bottleneck", "none"])
def test_gradient_descent_in_small_steps_follows_the_curve(embedding):
    curve = theory.bottleneck_curve(TIMES, embedding, VARIANCE, GAIN)
    expected = [descended(embedding, time) for time in TIMES]
    np.testing.assert_allclose(curve.excess + curve.floor, expected, rtol=1e-3)  # 1e-5 x rates


def test_an_embedding_without_a_bottleneck_learns_each_feature_on_its_own():
    rotation = np.linalg.qr(RNG.normal(size=(5, 5)))[0]
    rotated = theory.bottleneck_curve(TIMES, rotation, VARIANCE, GAIN)
    plain = theory.feature_curve(TIMES, VARIANCE, GAIN)
    np.testing.assert_allclose(rotated.excess, plain.excess, rtol=1e-12)
    np.testing.assert_allclose(rotated.floor, 0, atol=1e-12)


def test_the_floor_is_the_best_that_least_squares_can_do():
    """The student is linear in its matrix, so its best is a projection."""
    columns = np.kron(EMBEDDING.T, (EMBEDDING * np.sqrt(VARIANCE)).T)
    target = (np.diag(GAIN) * np.sqrt(VARIANCE)).ravel()
    left = target - columns @ np.linalg.lstsq(columns, target, rcond=None)[0]
    floor = theory.bottleneck_curve(TIMES, EMBEDDING, VARIANCE, GAIN).floor
    np.testing.assert_allclose(floor, left @ left, rtol=1e-10)


@pytest.mark.parametrize(("falling", "gains"), [(1.5, 0.5), (2.0, 0.0), (2.0, 1.0)])
def test_many_features_fall_with_the_exponent_of_the_formula(falling, gains):
    """The sum over ranks becomes an integral, up to 1 / rank of the features being learned."""
    rank = np.arange(1, 2_000_001.0)
    times = np.array([1e3, 1e4])
    losses = theory.feature_curve(times, rank**-falling, rank ** (-gains / 2)).excess
    slope = np.log10(losses[0] / losses[1])
    np.testing.assert_allclose(slope, theory.exponent_of_features(falling, gains), atol=0.01)


@pytest.mark.parametrize(
    ("times", "variance", "message"),
    [(-TIMES, VARIANCE, "a time is -0.1"), (TIMES, -VARIANCE, "a variance is -")],
)
def test_what_is_never_negative_is_refused_if_it_is(times, variance, message):
    for call in (
        lambda: theory.feature_curve(times, variance, GAIN),
        lambda: theory.bottleneck_curve(times, EMBEDDING, variance, GAIN),
    ):
        with pytest.raises(InputError, match=message):
            call()
