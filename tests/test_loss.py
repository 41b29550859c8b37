"""The exact loss against rational arithmetic, quadrature, samples and known minima."""

import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from arrangements import random_model
from jax.test_util import check_grads
from jaxtyping import TypeCheckError

import toymodels as tm
from toymodels.theory.boxes import all_boxes, mean_output
from toymodels.theory.loss import (
    expected_loss,
    expected_loss_linear,
    expected_loss_one_active,
    expected_loss_signed,
)


def rational_loss(weights, bias, density, importance, least=0):
    """Return the loss in exact arithmetic, as a sum over corners and over products of couplings.

    Features are uniform on (least, 1]. The repeated integrals of ReLU at corners make a node
    (c, w, r) two nodes of order r + 1 for every active feature.
    """
    num_features = len(bias)
    weights, bias, density, importance = (
        np.vectorize(Fraction, otypes=[object])(np.asarray(values))
        for values in (weights, bias, density, importance)
    )
    density = np.broadcast_to(density, num_features)
    importance = np.broadcast_to(importance, num_features)
    couplings, width = weights.T @ weights, 1 - least

    def integral(order, c):
        return max(c, 0) ** order / Fraction(math.factorial(order))

    total = Fraction(0)
    for i in range(num_features):
        nodes = [(bias[i], Fraction(1), 0)]
        for j in range(num_features):
            g, p = couplings[i, j], density[j]
            if j != i and g:
                nodes = [
                    node
                    for c, w, r in nodes
                    for node in (
                        (c, w * (1 - p), r),
                        (c + g, w * p / (width * g), r + 1),
                        (c + least * g, -w * p / (width * g), r + 1),
                    )
                ]
        g, p = couplings[i, i], density[i]
        silent = active = product = Fraction(0)
        for c, w, r in nodes:
            silent += 2 * w * integral(r + 2, c)
            if g:
                high, low = c + g, c + least * g
                third = integral(r + 3, high) - integral(r + 3, low)
                second = integral(r + 2, high) - least * integral(r + 2, low)
                active += 2 * w * third / (width * g)
                product += w * (second / g - third / g**2) / width
            else:
                active += 2 * w * integral(r + 2, c)
                product += w * integral(r + 1, c) * Fraction(1 + least, 2)
        third = Fraction(1, 3)
        total += importance[i] * ((1 - p) * silent + p * (third + active - 2 * product))
    return total


def sampled_loss(weights, bias, density, importance, *, least=0, linear=False, examples=100_000):
    rng = np.random.default_rng(1)
    shape = (examples, len(bias))
    x = rng.uniform(least, 1, shape) * (rng.random(shape) < density)
    y = x @ weights.T @ weights + bias
    errors = (x - (y if linear else np.maximum(y, 0))) ** 2 @ np.broadcast_to(importance, len(bias))
    return errors.mean(), errors.std() / examples**0.5


def quadrature_loss(weights, bias, density, importance, *, least=0, points=80):
    """Return the loss by Gauss-Legendre quadrature over every set of active features."""
    roots, chances = np.polynomial.legendre.leggauss(points)
    roots, chances = least + (1 - least) * (roots + 1) / 2, chances / 2
    total = 0.0
    for active in itertools.product((False, True), repeat=len(bias)):
        axes = [
            (roots, chances * p) if on else ([0.0], [1 - p])
            for on, p in zip(active, density, strict=True)
        ]
        x = np.stack([grid.ravel() for grid in np.meshgrid(*(a for a, _ in axes))])
        chance = np.prod([grid.ravel() for grid in np.meshgrid(*(c for _, c in axes))], axis=0)
        y = np.maximum(weights.T @ (weights @ x) + bias[:, None], 0)
        total += importance @ (x - y) ** 2 @ chance
    return total


MODELS = [
    pytest.param(*random_model(0, 2, 1), id="2 in 1"),
    pytest.param(*random_model(1, 3, 2), id="3 in 2"),
    pytest.param(*random_model(2, 3, 3)[:2], np.ones(3), np.ones(3), id="dense"),
    pytest.param(*random_model(3, 3, 2)[:2], np.full(3, 1e-3), np.ones(3), id="tiny density"),
]


@pytest.mark.parametrize(("weights", "bias", "density", "importance"), MODELS)
@pytest.mark.parametrize(("loss", "least"), [(expected_loss, 0), (expected_loss_signed, -1)])
def test_the_loss_is_the_integral(loss, least, weights, bias, density, importance):
    actual = loss(weights, bias, density, importance)
    expected = quadrature_loss(weights, bias, density, importance, least=least)
    np.testing.assert_allclose(actual, expected, rtol=5e-5)  # of the kink, with 80 points
    expected = float(rational_loss(weights, bias, density, importance, least))
    np.testing.assert_allclose(actual, expected, rtol=1e-13)


@pytest.mark.parametrize(
    ("num_features", "hidden", "density"), [(5, 2, 0.2), (5, 3, 1.0), (6, 2, 0.05), (6, 6, None)]
)
def test_the_loss_is_the_mean_over_samples(num_features, hidden, density):
    weights, bias, densities, importance = random_model(num_features, num_features, hidden)
    density = densities if density is None else density
    mean, standard_error = sampled_loss(weights, bias, density, importance)
    actual = expected_loss(weights, bias, density, importance)
    np.testing.assert_allclose(actual, mean, rtol=0, atol=4 * standard_error)


def test_signed_and_linear_are_the_means_over_samples():
    model = random_model(7, 5, 3)
    mean, error = sampled_loss(*model, least=-1)
    np.testing.assert_allclose(expected_loss_signed(*model), mean, rtol=0, atol=4 * error)
    mean, error = sampled_loss(*model, linear=True)
    np.testing.assert_allclose(expected_loss_linear(*model), mean, rtol=0, atol=4 * error)


@pytest.mark.parametrize("coupling", [0.0, 1e-12, 1e-9, 1e-6, 1e-3, 0.03])
@pytest.mark.parametrize(("loss", "least"), [(expected_loss, 0), (expected_loss_signed, -1)])
def test_small_couplings_lose_no_digits(loss, least, coupling):
    rng = np.random.default_rng(0)
    weights = np.eye(3) + coupling * rng.normal(size=(3, 3))
    bias = coupling * rng.normal(size=3)  # as small: the kink is inside the boxes
    if loss is expected_loss:
        expected = float(rational_loss(weights, bias, 0.7, 1.0, least))
        # The loss is the small rest of terms of order 1.
        np.testing.assert_allclose(loss(weights, bias, 0.7, 1.0), expected, rtol=1e-13, atol=5e-16)
    small = (coupling or 1e-12) ** 0.5 * rng.normal(size=(2, 3))
    expected = float(rational_loss(small, bias, 0.7, 1.0, least))
    np.testing.assert_allclose(loss(small, bias, 0.7, 1.0), expected, rtol=1e-13)


def test_small_couplings_far_from_the_kink_lose_no_digits():
    """The sum over corners in float64 is wrong by many times this loss."""
    weights, bias, density, importance = random_model(6, 6, 2, scale=1e-2)
    bias = np.abs(bias) + 0.1
    expected = float(rational_loss(weights, bias, density, importance))
    np.testing.assert_allclose(
        expected_loss(weights, bias, density, importance), expected, rtol=1e-13
    )


@pytest.mark.parametrize("coupling", [0.0, 1e-12, 1e-6, 1e-2])
def test_gradients_at_small_couplings_lose_no_digits(coupling, x64):
    rng = np.random.default_rng(0)
    weights = np.eye(3) * np.array([1.0, 0.8, 0.0]) + coupling * rng.normal(size=(3, 3))
    bias, density = np.array([-0.1, 0.05, 0.2]), np.array([0.5, 1.0, 0.3])
    step = Fraction(1, 10**20)  # rational differences do not cancel
    exactly = np.vectorize(Fraction, otypes=[object])(weights)

    def slope(row, column):
        change = np.zeros((3, 3), object)
        change[row, column] = step
        up, down = (rational_loss(exactly + s * change, bias, density, 1.0) for s in (1, -1))
        return float((up - down) / (2 * step))

    actual = GRADIENT(jnp.asarray(weights), jnp.asarray(bias), jnp.asarray(density), jnp.ones(3))
    expected = [[slope(row, column) for column in range(3)] for row in range(3)]
    np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-14)


GRADIENT = jax.jit(jax.grad(expected_loss))


def test_first_and_second_derivatives_are_right(x64):
    arguments = tuple(jnp.asarray(values) for values in random_model(0, 2, 1))
    check_grads(jax.jit(expected_loss), arguments, order=2, modes=["rev"], rtol=1e-5)


def test_derivatives_of_the_other_losses_are_right(x64):
    weights, bias, density, importance = (jnp.asarray(v) for v in random_model(0, 2, 1))
    for loss, arguments in (
        (expected_loss_signed, (weights, bias, density, importance)),
        (expected_loss_linear, (weights, bias, density, importance)),
        (expected_loss_one_active, (weights, bias, importance)),
    ):
        check_grads(jax.jit(loss), arguments, order=1, modes=["rev"], rtol=1e-5)


@pytest.mark.parametrize("loss", [expected_loss, expected_loss_signed, expected_loss_linear])
def test_rotations_and_relabelling_change_no_loss(loss):
    weights, bias, density, importance = random_model(4, 5, 3)
    expected = loss(weights, bias, density, importance)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = loss(rotation @ weights, bias, density, importance)
    np.testing.assert_allclose(turned, expected, rtol=1e-13)
    order = [3, 0, 4, 2, 1]
    relabelled = loss(weights[:, order], bias[order], density[order], importance[order])
    np.testing.assert_allclose(relabelled, expected, rtol=1e-13)
    scaled = loss(weights, bias, density, 3 * importance)
    np.testing.assert_allclose(scaled, 3 * expected, rtol=1e-13)


def test_an_unrepresented_feature_costs_what_its_bias_costs():
    """The cost is the integral of (x - b)^2 for an active feature, and b^2 for a silent one."""
    weights, bias, density, importance = random_model(4, 5, 3)
    weights[:, 0], bias[0] = 0, 0.3
    p = density[0]
    own = importance[0] * (p * (1 / 3 - 0.3 + 0.09) + (1 - p) * 0.09)
    rest = expected_loss(weights[:, 1:], bias[1:], density[1:], importance[1:])
    actual = expected_loss(weights, bias, density, importance)
    np.testing.assert_allclose(actual, own + rest, rtol=1e-13)


def test_a_feature_that_is_never_active_disturbs_no_other():
    weights, bias, density, importance = random_model(4, 5, 3)
    density[0], importance[0] = 0, 0  # its output hears the others
    rest = expected_loss(weights[:, 1:], bias[1:], density[1:], importance[1:])
    actual = expected_loss(weights, bias, density, importance)
    np.testing.assert_allclose(actual, rest, rtol=1e-13)


def test_losses_have_their_limits():
    bias, p = np.array([0.3, -0.2, 0.1, 0.0, 0.5]), 0.3
    output, zero = np.maximum(bias, 0), np.zeros((2, 5))
    expected = np.sum(p * (1 / 3 - output) + output**2)
    np.testing.assert_allclose(expected_loss(zero, bias, p, 1.0), expected, rtol=1e-14)
    weights = random_model(0, 5, 2)[0]
    np.testing.assert_allclose(expected_loss(weights, bias, 0.0, 1.0), output @ output, rtol=1e-14)
    # An identity reconstructs everything; with signs, only the positive half.
    np.testing.assert_allclose(expected_loss(np.eye(5), 0 * bias, p, 1.0), 0, atol=1e-15)
    signed = expected_loss_signed(np.eye(5), 0 * bias, p, 1.0)
    np.testing.assert_allclose(signed, 5 * p / 6, rtol=1e-14)
    # The mean of each feature as its bias leaves its variance.
    dropped = expected_loss(zero, np.full(5, p / 2), p, 1.0)
    np.testing.assert_allclose(dropped, 5 * (p / 3 - p**2 / 4), rtol=1e-14)


def test_a_relu_that_never_acts_is_linear():
    weights, bias, density, importance = random_model(3, 5, 3)
    bias = bias + 10
    linear = expected_loss_linear(weights, bias, density, importance)
    np.testing.assert_allclose(
        expected_loss(weights, bias, density, importance), linear, rtol=1e-12
    )


def test_the_sparse_limit_is_the_loss_of_one_active_feature():
    """The ratio of loss / p to n H is off by a term of order p if no bias is positive."""
    weights, bias, _, importance = random_model(1, 3, 2)
    bias = -np.abs(bias)
    limit = 3 * expected_loss_one_active(weights, bias, importance)
    errors = [expected_loss(weights, bias, p, importance) / p / limit - 1 for p in (1e-4, 1e-6)]
    np.testing.assert_allclose(errors[1], errors[0] / 100, rtol=1e-2)
    assert abs(errors[1]) < 1e-5
    silent = importance @ np.maximum(np.abs(bias), 0) ** 2
    actual = expected_loss(weights, -bias, 1e-6, importance) - (1 - 1e-6) ** 3 * silent
    expected = 3e-6 * expected_loss_one_active(weights, -bias, importance)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_a_vmap_is_a_loop_and_single_precision_is_enough_for_five_digits():
    models = [random_model(seed, 3, 2) for seed in range(4)]
    expected = [expected_loss(*model) for model in models]
    stacked = [jnp.asarray(np.stack(values), jnp.float32) for values in zip(*models, strict=True)]
    actual = jax.jit(jax.vmap(expected_loss))(*stacked)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_a_trained_model_has_the_loss_that_training_reports():
    task = tm.Task(tm.SparseUniform(5, 0.2), importance=tm.geometric_importance(5, 0.9))
    model = tm.ReLUOutput(hidden=2)
    trained = tm.jit(
        lambda key: tm.train(
            key, model, task, optimizer=optax.adam(1e-2), steps=300, batch=256, evaluation=2**17
        )
    )(jax.random.key(0))
    weights, bias = trained.params["weights"], trained.params["bias"]
    importance = tm.geometric_importance(5, 0.9)
    actual = expected_loss(weights, bias, 0.2, importance)
    _, error = sampled_loss(np.asarray(weights), np.asarray(bias), 0.2, np.asarray(importance))
    np.testing.assert_allclose(actual, trained.loss, rtol=1e-5, atol=4 * error * (2 / 1.3) ** 0.5)


@pytest.mark.parametrize("loss", [expected_loss, expected_loss_signed])
@pytest.mark.parametrize("smallest", [1e-8, 1e-14, 1e-80])
def test_a_tiny_coupling_has_a_finite_gradient(loss, smallest):
    """The square of such a range of preactivations underflows, in single precision or in both."""
    with jax.enable_x64(True):
        gradient = jax.grad(lambda w, b: loss(w, b, 0.3, 1.0), argnums=(0, 1))
        for bias in (0.0, -smallest):
            single, double = (
                np.concatenate(
                    [
                        slopes.ravel()
                        for slopes in gradient(
                            jnp.array([[1.0, smallest]], dtype), jnp.array([0.0, bias], dtype)
                        )
                    ]
                )
                for dtype in (np.float32, np.float64)
            )
            assert np.isfinite(double).all()
            assert np.isfinite(single).all()
            if smallest == 1e-8:  # the others are like zero in single precision
                np.testing.assert_allclose(single, double, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("loss", "least"), [(expected_loss, 0), (expected_loss_signed, -1)])
def test_untied_models_are_the_means_over_samples(loss, least):
    weights, bias, density, importance = random_model(8, 4, 2)
    decoder = random_model(9, 4, 2)[0]
    rng = np.random.default_rng(0)
    x = rng.uniform(least, 1, (200_000, 4)) * (rng.random((200_000, 4)) < density)
    errors = (x - np.maximum(x @ weights.T @ decoder + bias, 0)) ** 2 @ importance
    actual = loss(weights, bias, density, importance, decoder=decoder)
    error = errors.std() / len(errors) ** 0.5
    np.testing.assert_allclose(actual, errors.mean(), rtol=0, atol=4 * error)


def test_a_decoder_of_the_same_weights_is_a_tied_model():
    weights, bias, density, importance = random_model(8, 4, 2)
    tied = expected_loss(weights, bias, density, importance)
    untied = expected_loss(2 * weights, bias, density, importance, decoder=weights / 2)
    np.testing.assert_allclose(untied, tied, rtol=1e-14)
    with pytest.raises((ValueError, TypeCheckError), match="decoder"):
        expected_loss(weights, bias, density, importance, decoder=weights.T)
    with pytest.raises(ValueError, match="decoder is nan"):
        expected_loss(weights, bias, density, importance, decoder=np.nan * weights)


@pytest.mark.parametrize("density", [0.2, 1.0])
def test_mean_of_an_output_of_an_antipodal_pair(density, x64):
    r"""$E\,\mathrm{ReLU}(x_1 - x_2) = p (1 - p) / 2 + p^2 / 6$; with a bias of 1 it is 1."""
    couplings, present = jnp.array([1.0, -1.0]), jnp.full(2, density)
    boxes = all_boxes(2, 2)
    mean = mean_output(couplings, jnp.array(0.0), present, boxes, signed=False)
    np.testing.assert_allclose(mean, density * (1 - density) / 2 + density**2 / 6, rtol=1e-12)
    always = mean_output(couplings, jnp.array(1.0), present, boxes, signed=False)
    np.testing.assert_allclose(always, 1, rtol=1e-12)
