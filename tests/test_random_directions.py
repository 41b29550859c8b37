"""Random directions against sampled ones and against symmetry, and the variance that is left."""

import numpy as np
import pytest

from toymodels import errors
from toymodels.theory import widths


def sampled(gain, bias, density, num_features, hidden):
    """Return the mean loss of many random models on many inputs, and its standard error."""
    random, losses = np.random.default_rng(0), []
    for _ in range(400):
        weights = random.normal(size=(hidden, num_features))
        weights /= np.linalg.norm(weights, axis=0)
        active = random.random((500, num_features)) < density
        x = active * random.random((500, num_features))
        output = np.maximum(gain * x @ weights.T @ weights + bias, 0)
        losses.append(np.mean(np.sum((x - output) ** 2, axis=1)))
    return np.mean(losses), np.std(losses) / len(losses) ** 0.5


@pytest.mark.parametrize("hidden", [2, 3, 6])
def test_the_loss_is_the_mean_over_random_models(hidden):
    size = {"num_features": 20, "hidden": hidden}
    mean, error = sampled(1.1, -0.1, 0.1, **size)
    exact = widths.random_directions_loss(1.1, -0.1, 0.1, **size)
    assert abs(exact - mean) < 4 * error


def test_noise_on_absent_features_is_half_of_its_variance():
    """The gain is 1 and there is no bias, so the loss is n (1 - p) (n - 1) p / 6m."""
    n, p = 50, 1e-4
    for hidden in (2, 7, 40):
        loss = widths.random_directions_loss(1.0, 0.0, p, num_features=n, hidden=hidden)
        absent = n * (1 - p) * (n - 1) * p / (6 * hidden)
        np.testing.assert_allclose(loss, absent, rtol=1e-3)  # two at once are rare


def test_many_dimensions_have_no_noise():
    loss = widths.random_directions_loss(1.0, 0.0, 0.1, num_features=5, hidden=10**6)
    assert loss < 1e-5
    loss = widths.random_directions_loss(0.0, 0.0, 0.1, num_features=5, hidden=2)
    np.testing.assert_allclose(loss, 5 * 0.1 / 3, rtol=1e-6)  # an output of 0 always


def test_the_best_is_a_minimum_and_falls_with_width():
    size = {"num_features": 64, "hidden": 16}
    best = widths.best_random_directions(1 / 64, **size)
    for gain, bias in ((1.02, 0), (0.98, 0), (1, 0.01), (1, -0.01)):
        near = widths.random_directions_loss(best.gain * gain, best.bias + bias, 1 / 64, **size)
        assert near > best.loss
    assert best.loss < widths.loss_without_superposition(np.full(64, 1 / 64), 0)
    wider = widths.best_random_directions(1 / 64, num_features=64, hidden=32)
    assert wider.loss < best.loss


def test_the_tail_is_a_variance():
    density = np.array([0.5, 0.2, 0.1])
    x = np.random.default_rng(1).random((400_000, 3))
    x *= np.random.default_rng(2).random(x.shape) < density
    for kept in range(4):
        tail = widths.loss_without_superposition(density, kept)
        np.testing.assert_allclose(tail, np.var(x[:, kept:], axis=0).sum(), rtol=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: widths.loss_without_superposition(0.1, 0), "one number for each feature"),
        (lambda: widths.loss_without_superposition([0.1, 0.1], 3), "no more features"),
        (lambda: widths.best_random_directions(0.1, num_features=5, hidden=1), "hidden is 1"),
        (lambda: widths.best_random_directions(2.0, num_features=5, hidden=2), "density is 2"),
    ],
)
def test_numbers_that_make_no_sense(call, message):
    with pytest.raises(errors.InputError, match=message):
        call()
