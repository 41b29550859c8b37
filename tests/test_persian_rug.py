"""The Gaussian theory by other routes: samples, quadrature, exact losses, limits."""

import jax
import numpy as np
import pytest
from arrangements import variance
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from toymodels.theory import expected_loss, persian_rug

properties = settings(max_examples=60)
densities = st.floats(-4, 0).map(lambda exponent: 10**exponent)
ratios = st.floats(-3, 0).map(lambda exponent: 10**exponent)


def noise(density, ratio):
    return np.sqrt(variance(density) * (1 / ratio - 1))


def quadrature(gain, bias, density, ratio):
    """Integrate by midpoints in the noise, and by Gauss-Legendre in the feature.

    The midpoints are of second order at the kink and reach 1e-7.
    """
    points, weights = np.polynomial.legendre.leggauss(40)
    z = np.linspace(-9, 9, 6001)
    chance = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()

    def error(x):
        return (np.maximum(gain * (x + noise(density, ratio) * z) + bias, 0) - x) ** 2 @ chance

    active = weights @ [error(x) for x in (points + 1) / 2] / 2
    return (1 - density) * error(0.0) + density * active


CASES = [
    (0.3, 0.05, 0.1, 0.3),
    (0.7, -0.35, 0.05, 0.1),
    (1.3, -0.4, 0.05, 0.3),
    (1.0, 0.2, 0.9, 0.7),
]


@pytest.mark.parametrize("case", CASES)
def test_the_loss_is_that_of_gaussian_noise_by_quadrature(case):
    # The kink of 40 nodes in x is smoothed by the noise, 0.1 or more.
    np.testing.assert_allclose(persian_rug.rug_loss(*case), quadrature(*case), rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_loss_is_that_of_gaussian_noise_on_samples(case):
    gain, bias, density, ratio = case
    rng = np.random.default_rng(0)
    x = np.where(rng.random(400_000) < density, rng.random(400_000), 0)
    output = np.maximum(gain * (x + noise(density, ratio) * rng.normal(size=x.size)) + bias, 0)
    errors = (x - output) ** 2
    standard_error = errors.std() / np.sqrt(errors.size)
    assert abs(persian_rug.rug_loss(*case) - errors.mean()) < 4 * standard_error


@pytest.mark.parametrize(
    ("density", "ratio", "loss"),
    [
        (0.05, 0.05, 0.014758),
        (0.05, 0.1, 0.012219),
        (0.05, 0.5, 0.001903),
        (0.2, 0.3, 0.033233),
        (0.2, 0.8, 0.004846),
        (0.01, 0.02, 0.003042),
        (0.01, 0.1, 0.000996),
        (0.5, 0.3, 0.071238),
    ],
)
def test_the_optimum_is_that_of_a_search_by_quadrature(density, ratio, loss):
    fits = [
        optimize.minimize(
            lambda params: quadrature(*params, density, ratio),
            start,
            method="Nelder-Mead",
            options={"xatol": 1e-4, "fatol": 1e-9},
        )
        for start in [(ratio, (1 - ratio) * density / 2), (1.3, -0.4)]
    ]
    found = min(fits, key=lambda fit: fit.fun)
    best = persian_rug.best_rug(density, ratio)
    np.testing.assert_allclose(best.loss, loss, atol=5.1e-7)  # six digits, an independent search
    np.testing.assert_allclose(best.loss, found.fun, rtol=1e-5)
    np.testing.assert_allclose([best.gain, best.bias], found.x, atol=3e-3)


@properties
@given(densities, ratios)
def test_no_gain_and_bias_near_by_are_better(density, ratio):
    best = persian_rug.best_rug(density, ratio)
    same = persian_rug.rug_loss(best.gain, best.bias, density, ratio)
    # Rounding of third moments, see `rug_loss`; the sizes are up to 500 in these units.
    np.testing.assert_allclose(same, best.loss, atol=1e-10)
    for factor, shift in [(1.01, 0), (0.99, 0), (1, 0.003), (1, -0.003), (1.01, -0.003)]:
        near = persian_rug.rug_loss(best.gain * factor, best.bias + shift, density, ratio)
        assert near >= best.loss - 1e-10


@pytest.mark.parametrize(("density", "ratio"), [(0.05, 0.1), (0.2, 0.5), (0.01, 0.9), (1.0, 0.3)])
def test_the_gradient_vanishes_at_the_optimum(density, ratio, x64):
    best = persian_rug.best_rug(density, ratio)
    gradient = jax.grad(persian_rug.rug_loss, (0, 1))(*map(float, best[1:]), density, ratio)
    np.testing.assert_allclose(gradient, 0, atol=1e-12)


def test_derivatives_are_those_of_the_optimum(x64):
    step = 1e-4
    for name in ("loss", "gain", "bias"):

        def part(density, ratio, name=name):
            return getattr(persian_rug.best_rug(density, ratio), name)

        actual = jax.jacfwd(part, (0, 1))(0.05, 0.1)
        expected = [
            (part(0.05 + step, 0.1) - part(0.05 - step, 0.1)) / (2 * step),
            (part(0.05, 0.1 + step) - part(0.05, 0.1 - step)) / (2 * step),
        ]
        np.testing.assert_allclose(actual, expected, rtol=1e-3)  # second order in 0.002 of 0.05


def test_a_map_over_a_grid_gives_the_same_numbers(x64):
    losses = jax.vmap(persian_rug.best_rug, (0, None))(np.array([0.05, 0.2]), 0.3).loss
    single = [persian_rug.best_rug(density, 0.3).loss for density in (0.05, 0.2)]
    np.testing.assert_allclose(losses, single, rtol=1e-13)


@properties
@given(densities, ratios)
def test_the_relu_never_loses_to_a_linear_model(density, ratio):
    """Targets are not negative, so cutting an output at zero brings it nearer."""
    loss = persian_rug.best_rug(density, ratio).loss
    assert -1e-12 <= loss <= persian_rug.loss_of_linear(density, ratio) + 1e-10


@properties
@given(densities, ratios, st.floats(0.1, 1))
def test_more_dimensions_never_hurt(density, ratio, factor):
    """Fewer dimensions mean more noise, which is less noise and a random bias.

    One of the values of that bias is at least as good as their mean.
    """
    fewer = persian_rug.best_rug(density, ratio * factor).loss
    assert persian_rug.best_rug(density, ratio).loss <= fewer + 1e-8


@given(densities)
@properties
def test_limits_of_no_and_of_all_dimensions(density):
    full = persian_rug.best_rug(density, 1.0)
    np.testing.assert_allclose(full, [0, 1, 0], atol=1e-12)
    nearly = persian_rug.best_rug(density, 1 - 1e-6)
    assert nearly.loss < 2e-6 * variance(density)  # above the linear one it cannot be
    none = persian_rug.best_rug(density, 1e-3 * density)
    np.testing.assert_allclose(none.loss, variance(density), rtol=1.1e-3)


@pytest.mark.parametrize(
    ("density", "ratio"),
    [(0.1, 0.26797), (0.05, 0.18487), (0.02, 0.10233), (0.01, 0.06173), (0.001, 0.0094)],
)
def test_half_of_the_variance_is_lost_at_the_known_ratio(density, ratio):
    half = persian_rug.ratio_of_half_loss(density)
    np.testing.assert_allclose(half, ratio, rtol=5e-4)
    np.testing.assert_allclose(
        persian_rug.best_rug(density, half).loss, variance(density) / 2, rtol=1e-9
    )


def test_a_linear_model_needs_half_of_the_dimensions_for_that():
    assert persian_rug.ratio_of_half_loss(1.0) < 0.5
    assert persian_rug.ratio_of_half_loss(1.0) > 0.49  # without zeros there is little to gain


@pytest.mark.parametrize("load", [0.9, 1.244, 3.0, 30.0])
def test_the_sparse_limit_is_the_best_line_above_the_threshold(load):
    x = (np.arange(100_000) + 0.5) / 100_000
    threshold = np.sqrt(2 / (3 * load))
    seen = np.maximum(x - threshold, 0)
    gain = (x @ seen) / (seen @ seen)
    left = np.mean((x - gain * seen) ** 2) / np.mean(x**2)
    np.testing.assert_allclose(persian_rug.sparse_limit(load), left, rtol=1e-6)


def test_the_sparse_limit_is_approached_as_a_logarithm():
    for load in (0.4, 0.8, 2.0, 5.0):
        gaps = []
        for density in (1e-2, 1e-24):
            ratio = load * density * np.log(1 / density)
            relative = persian_rug.best_rug(density, ratio).loss / variance(density)
            gaps.append(abs(relative - persian_rug.sparse_limit(load)))
        assert gaps[1] < min(gaps[0], 0.01)  # ln ln / ln is 0.07 at 1e-24


def test_constants_of_the_sparse_limit():
    assert persian_rug.sparse_limit(2 / 3) == 1
    assert persian_rug.sparse_limit(0.7) < 1
    np.testing.assert_allclose(persian_rug.sparse_limit((2 + np.sqrt(3)) / 3), 0.5, rtol=1e-14)
    # L = p^2 ln(1/p) / 6r is kappa L / v = 1/2.
    np.testing.assert_allclose(1e6 * persian_rug.sparse_limit(1e6), 0.5, rtol=1e-3)
    ratios = [persian_rug.ratio_of_half_loss(p) / (p * np.log(1 / p)) for p in (1e-6, 1e-12, 1e-24)]
    assert ratios == sorted(ratios, reverse=True)
    np.testing.assert_allclose(ratios[-1], (2 + np.sqrt(3)) / 3, rtol=0.015)


@pytest.mark.parametrize("density", [0.05, 0.3, 0.57, 0.9])
@pytest.mark.parametrize(("pairs", "dropped", "dedicated"), [(3, 2, 0), (4, 0, 0), (2, 0, 4)])
def test_pairs_have_the_exact_loss(density, pairs, dropped, dedicated):
    num_features, hidden = 2 * pairs + dropped + dedicated, pairs + dedicated
    if density < 4 / 7:
        weights = np.zeros((hidden, num_features))
        for pair in range(pairs):
            weights[pair, [2 * pair, 2 * pair + 1]] = 1, -1
        weights[pairs:, 2 * pairs : 2 * pairs + dedicated] = np.eye(dedicated)
        bias = np.where(np.any(weights != 0, axis=0), 0.0, density / 2)
    else:
        weights = np.eye(hidden, num_features)
        bias = np.where(np.arange(num_features) < hidden, 0.0, density / 2)
    np.testing.assert_allclose(
        expected_loss(weights, bias, density, 1.0) / num_features,
        persian_rug.loss_of_pairs(density, hidden / num_features),
        rtol=1e-12,
    )


@properties
@given(st.floats(0.001, 0.549))
def test_at_half_the_dimensions_pairs_beat_the_rug(density):
    assert persian_rug.loss_of_pairs(density, 0.5) < persian_rug.best_rug(density, 0.5).loss


def test_pairs_are_never_worse_at_middling_densities():
    for ratio in np.geomspace(0.01, 0.99, 30):
        for density in (0.1, 0.2, 0.35):
            rug = persian_rug.best_rug(density, ratio).loss
            assert persian_rug.loss_of_pairs(density, ratio) < rug


def test_with_few_dimensions_and_sparse_features_the_rug_beats_pairs():
    assert persian_rug.best_rug(0.01, 0.1).loss < 0.4 * persian_rug.loss_of_pairs(0.01, 0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: persian_rug.best_rug(0.0, 0.5), "density is 0"),
        (lambda: persian_rug.best_rug(0.5, 0.0), "ratio is 0"),
        (lambda: persian_rug.loss_of_linear(0.5, 1.5), "ratio is 1.5"),
        (lambda: persian_rug.loss_of_pairs(1.5, 0.5), "density is 1.5"),
        (lambda: persian_rug.ratio_of_half_loss(0.0), "density is 0"),
        (lambda: persian_rug.rug_loss(0.0, 0.0, 0.5, 0.5), "gain is 0"),
        (lambda: persian_rug.rug_loss(1.0, np.inf, 0.5, 0.5), "bias is inf"),
        (lambda: persian_rug.sparse_limit(-1.0), "load is -1"),
    ],
)
def test_impossible_numbers_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_too_few_dimensions_to_be_seen_are_refused():
    with pytest.raises(ValueError, match="ratio is 1e-07, below"):
        persian_rug.best_rug(0.9, 1e-7)


def test_pairs_have_a_derivative_in_the_ratio():
    slope = jax.grad(lambda ratio: persian_rug.loss_of_pairs(0.1, ratio))(0.3)
    np.testing.assert_allclose(slope, -(2 * (0.1 / 3 - 0.01 / 4) - 0.01 / 3), rtol=1e-5)
