"""Certificates of lowest losses against exact rational numbers, samples of models, and descents."""

import itertools
from fractions import Fraction
from math import factorial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

import toymodels as tm
from toymodels.theory import enclosures
from toymodels.theory.moments import Moment, moments

PAIR = np.array([[1.0, -1.0]])


def rational(couplings, bias, powers, degree):
    """Return E prod x_j^s_j ReLU(z)^k / k!

    of active features, one integral after the other. The terms have both signs, so this loses
    digits in floating point, but not in fractions.
    """
    if not couplings:
        return Fraction(max(bias, 0)) ** degree / factorial(degree) if bias >= 0 else Fraction(0)
    (*rest, coupling), (*others, power) = couplings, powers
    at_one = rational(rest, bias + coupling, others, degree + 1)
    if power:
        at_zero = power * rational(couplings, bias, [*others, power - 1], degree + 1)
    else:
        at_zero = rational(rest, bias, others, degree + 1)
    return (at_one - at_zero) / coupling


@pytest.mark.parametrize("features", [1, 2, 3])
def test_moments_are_rational_numbers_to_the_last_digits(features):
    rng = np.random.default_rng(features)
    couplings = rng.integers(-(2**20), 2**20, (features, 12)) / 2**19
    couplings[0, :4] /= 2**15  # weak couplings lose digits where terms cancel
    bias = rng.integers(-(2**20), 2**20, 12) / 2**19
    every = itertools.product(range(3), repeat=features)
    wanted = [Moment(s, k) for s in every if sum(s) <= 2 for k in range(3)]
    found = moments(list(couplings), bias, [1.0] * features, wanted)
    for moment, values in zip(wanted, found, strict=True):
        exact = [
            float(factorial(moment.degree) * rational([*map(Fraction, g)], Fraction(b), *moment))
            for g, b in zip(couplings.T, bias, strict=True)
        ]
        np.testing.assert_allclose(np.broadcast_to(values, 12), exact, rtol=0, atol=1e-14)


def test_moments_rise_with_every_coupling_and_with_the_bias():
    rng = np.random.default_rng(0)
    low = rng.normal(size=(4, 2000))
    high = low + rng.exponential(size=low.shape) * (rng.uniform(size=low.shape) < 0.5)
    wanted = [
        Moment((0, 0, 0), 2),
        Moment((0, 1, 0), 1),
        Moment((1, 1, 0), 0),
        Moment((0, 0, 2), 0),
    ]
    ends = [moments(list(end[:3]), end[3], [0.2, 0.7, 1.0], wanted) for end in (low, high)]
    for below, above in zip(*ends, strict=True):
        assert (above >= below - 1e-14).all()


def test_a_feature_without_a_coupling_is_not_there():
    bias = np.linspace(-1, 1, 9)
    (with_it,) = moments([np.array(0.0), np.array(-0.7)], bias, [0.3, 0.6], [Moment((0, 0), 2)])
    (alone,) = moments([np.array(-0.7)], bias, [0.6], [Moment((0,), 2)])
    np.testing.assert_allclose(with_it, alone, atol=1e-15)


@pytest.fixture(scope="module")
def exact_loss():
    """Return the exact losses and slopes of many models of two features, computed by JAX."""

    def value(flat, density, importance):
        return tm.theory.expected_loss(flat[:2][None], flat[2:], density, importance)

    mapped = jax.jit(jax.vmap(jax.value_and_grad(value), (0, None, None)))

    def losses(points, density, importance=(1.0, 1.0)):
        with jax.enable_x64(True):
            return [np.asarray(x) for x in mapped(points, density, jnp.array(importance))]

    return losses


@pytest.mark.parametrize("width", [0.02, 0.3, 1.5])
def test_boxes_enclose_the_losses_and_slopes_of_the_models_in_them(exact_loss, width):
    rng = np.random.default_rng(int(100 * width))
    problem = enclosures.Problem(np.full(2, 0.4), np.array([1.0, 0.6]), 1, alike=False)
    low = enclosures.on_grid(rng.uniform(-1.5, 1.5, (60, 4)), enclosures.GRID)
    high = enclosures.on_grid(low + width, enclosures.GRID)
    weights_low, weights_high = (each[:, None, :2] for each in (low, high))
    at = enclosures.corners(weights_low, weights_high, low[:, 2:], high[:, 2:])
    lowest = 0.0
    for i, importance in enumerate(problem.importance):
        edges = np.stack([at.bias_low[i], at.bias_high[i]], axis=1)
        lowest += importance * enclosures.sliced(problem, i, at.low[i], at.high[i], edges)[0][:, 0]
    down, up = enclosures.slopes(problem, weights_low, weights_high, at)
    for point in range(50):
        inside = low + rng.uniform(size=low.shape) * (high - low)
        losses, slopes = exact_loss(inside, 0.4, (1.0, 0.6))
        assert (losses >= lowest - 1e-12).all(), point
        assert (slopes >= down).all(), point
        assert (slopes <= up).all(), point


@pytest.mark.parametrize(("density", "importance"), [(0.3, 1.0), (0.95, 0.8)])
def test_no_model_is_below_a_certificate_and_the_optimum_is_within_its_gap(
    exact_loss, density, importance
):
    importances = (1.0, importance)
    found = tm.theory.optimum(2, 1, density, np.array(importances))
    certificate = tm.theory.certify(found.weights, found.bias, density, np.array(importances))
    assert certificate.lower <= found.loss <= certificate.upper + 1e-12
    assert certificate.upper - certificate.lower <= 1e-3 * certificate.upper
    rng = np.random.default_rng(0)
    near = np.concatenate([found.weights[0], found.bias])
    scale = np.geomspace(1e-3, 3, 4000)[:, None]
    losses, _ = exact_loss(near + scale * rng.normal(size=(4000, 4)), density, importances)
    assert losses.min() >= certificate.lower
    weights = found.weights[0] * np.where(found.weights[0, 0] < 0, -1, 1)
    low, high = certificate.remaining[:, 0, 0], certificate.remaining[:, 1, 0]
    assert ((low <= weights + 1e-5) & (weights - 1e-5 <= high)).all(axis=1).any()


def test_a_model_that_is_not_optimal_is_refuted():
    given = tm.theory.expected_loss(PAIR, np.zeros(2), 0.5, np.array([1.0, 0.3]))
    certificate = tm.theory.certify(PAIR, np.zeros(2), 0.5, np.array([1.0, 0.3]))
    ignored = 0.3 * tm.theory.feature_variance(0.5)  # the best of the models with W_2 = 0
    assert certificate.lower <= ignored <= certificate.upper + 1e-12 < given
    assert np.abs(certificate.remaining[:, :, 0, 1]).max() < 0.2


@pytest.mark.as_users_compile  # checks of types take twice as long as this long search
def test_three_features_in_one_dimension_beat_a_pair_that_ignores_the_third():
    weights, bias = np.array([[1.063, -0.999, 0.354]]), np.array([-0.153, -0.002, 0.027])
    certificate = tm.theory.certify(weights, bias, 0.1, gap=0.5)
    pair = tm.theory.certify(PAIR, np.zeros(2), 0.1)
    assert certificate.upper < pair.lower + tm.theory.feature_variance(0.1)
    assert certificate.lower >= 0.5 * certificate.upper


def test_a_certificate_of_a_search_that_ended_early_holds():
    certificate = tm.theory.certify(PAIR, np.zeros(2), 0.5, max_boxes=20)
    assert certificate.lower <= 0.0762824 <= certificate.upper


@pytest.mark.parametrize("squared_length", [1.0, 1.5, 4.0, 30.0])
def test_the_best_fit_of_a_feature_that_is_too_long_is_a_closed_form(squared_length):
    u = (np.arange(4000) + 0.5) / 4000

    def loss(bias):
        return ((u - np.maximum(bias + squared_length * u, 0)) ** 2).mean()

    best = optimize.minimize_scalar(loss, bounds=(-squared_length, 0), options={"xatol": 1e-9})
    closed_form = ((squared_length - 1) / (squared_length + 1)) ** 2 / 3
    np.testing.assert_allclose(best.fun, closed_form, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": np.ones((1, 4)), "bias": np.zeros(4)}, "4 features are more than the 3"),
        ({"weights": np.eye(2)}, "2 hidden dimensions hold 2 features"),
        ({"density": 0.0}, "density is 0"),
        ({"importance": 0.0}, "importance is 0"),
        ({"gap": 0.0}, "gap is 0"),
        ({"max_boxes": 0}, "max_boxes is 0"),
        ({"density": np.full(3, 0.1)}, r"density has shape \(3,\)"),
    ],
)
def test_bad_input_is_refused(change, message):
    arguments = {
        "weights": PAIR,
        "bias": np.zeros(2),
        "density": 0.5,
        "importance": 1.0,
        "gap": 0.1,
    }
    with pytest.raises(tm.InputError, match=message):
        tm.theory.certify(**{**arguments, **change})


def test_a_loss_that_bounds_no_length_is_refused():
    weights, importance = np.array([[1.0, -1.0, 0.0]]), np.array([1, 1, 0.01])
    with pytest.raises(tm.InputError, match="weights of any length could be better"):
        tm.theory.certify(weights, np.zeros(3), 1.0, importance)
