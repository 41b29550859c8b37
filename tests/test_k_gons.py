"""The critical points against the exact potential: its value, gradient, Hessian and minima."""

import functools

import jax
import numpy as np
import pytest
from haste import COMPILED_WITH_CARE
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from toymodels.theory import expected_loss_one_active, k_gons, posterior

properties = settings(max_examples=60)

TEN_MINIMA = {
    (6, 0): 0.048192,
    (5, 1): 0.061799,
    (5, 0): 0.068744,
    (4, 2): 7 / 72,
    (4, 1): 5 / 48,
    (4, 0): 1 / 9,
    (3, 0): 1 / 6,
    (2, 0): 2 / 9,
    (1, 0): 5 / 18,
    (0, 0): 1 / 3,
}
"""Of six features: a list by Chen et al., its values by a solver of another kind."""

CONFIGURATIONS = [
    (c, k, s)
    for c in (2, 5, 6, 7)
    for k in range(c + 1)
    for s in range(c - k + 1)
    if not (k == 1 and s)
]


def flat(num_features, vertices, positive):
    chosen = k_gons.configuration(num_features, vertices, positive, dead_bias=-0.4)
    return np.concatenate([chosen.weights.ravel(), chosen.bias])


@jax.jit
def loss(params):
    """Return $H$ of parameters that stand in one row."""
    features = params.size // 3
    weights, bias = params[: 2 * features].reshape(2, features), params[2 * features :]
    return expected_loss_one_active(weights, bias, 1.0)


gradient, hessian = jax.jit(jax.grad(loss)), jax.jit(jax.hessian(loss))
loss_and_gradient = jax.jit(jax.value_and_grad(loss))


@pytest.mark.parametrize(("num_features", "vertices", "positive"), CONFIGURATIONS)
def test_the_potential_is_the_exact_loss_and_its_gradient_is_zero(
    num_features, vertices, positive, x64
):
    params = flat(num_features, vertices, positive)
    expected = k_gons.potential(num_features, vertices, positive)
    np.testing.assert_allclose(loss(params), expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(gradient(params), 0, atol=1e-11)


@pytest.mark.parametrize("vertices", [*range(1, 8), 9, 11])
def test_a_polygon_is_the_best_of_all_lengths_and_biases(vertices, x64):
    angles = 2 * np.pi * np.arange(vertices) / vertices
    directions = np.stack([np.cos(angles), np.sin(angles)])

    def cost(lengths):
        length, bias = lengths
        params = np.concatenate([(length * directions).ravel(), np.full(vertices, bias)])
        return vertices * float(loss(params))

    best = k_gons.polygon(vertices)
    np.testing.assert_allclose(cost(best[:2]), best.loss, rtol=1e-13, atol=1e-15)
    starts = [(1.0, 0.1), (0.7, -0.2), (1.3, -0.6), (1.6, -1.5)]
    fits = [optimize.minimize(cost, start, method="Nelder-Mead") for start in starts]
    assert min(fit.fun for fit in fits) == pytest.approx(best.loss, rel=1e-5, abs=1e-8)
    lowest = min(fits, key=lambda fit: fit.fun)
    np.testing.assert_allclose(lowest.x, best[:2], atol=2e-3)  # square root of 1e-6 in the loss


def test_the_decagon_has_the_golden_ratio():
    golden = (1 + 5**0.5) / 2
    np.testing.assert_allclose(k_gons.polygon(10), [golden, -golden, 5 / 3], rtol=1e-12)


@pytest.mark.parametrize(("vertices", "positive"), TEN_MINIMA)
def test_six_features_have_the_published_minima(vertices, positive):
    assert k_gons.is_minimum(6, vertices, positive)
    expected = TEN_MINIMA[vertices, positive]
    assert k_gons.potential(6, vertices, positive) == pytest.approx(expected, abs=5e-7)


def test_random_starts_end_in_these_minima_and_no_others(x64):
    rng = np.random.default_rng(0)
    listed = np.array(list(TEN_MINIMA.values()))
    found = []
    for _ in range(20):
        start = np.concatenate([0.7 * rng.normal(size=12), 0.3 * rng.normal(size=6) - 0.1])
        fit = optimize.minimize(
            lambda params: tuple(map(np.asarray, loss_and_gradient(params))),
            start,
            jac=True,
            method="L-BFGS-B",
            options={"ftol": 1e-14, "gtol": 1e-9, "maxiter": 1000},
        )
        found.append(np.abs(listed - fit.fun).argmin())
        # Kinks slow the solver down: 1e-5 of the least distance of two, 0.007, is enough.
        np.testing.assert_allclose(fit.fun, listed[found[-1]], rtol=0, atol=1e-5)
    assert len(set(found)) >= 4


@pytest.mark.parametrize(
    ("num_features", "vertices", "positive"),
    [
        *((k, k, 0) for k in range(5, 10)),
        *((k + 1, k, 1) for k in range(5, 9)),
        (6, 5, 0),
        (8, 5, 3),
        (9, 6, 0),
        (12, 9, 3),
    ],
)
def test_curved_directions_are_counted_by_the_hessian(num_features, vertices, positive, x64):
    """The potential is twice differentiable at its minima for pentagons and larger polygons."""
    assert k_gons.is_minimum(num_features, vertices, positive)
    curvatures = np.linalg.eigvalsh(hessian(flat(num_features, vertices, positive)))
    assert curvatures.min() > -1e-9  # rounding
    expected = k_gons.learning_coefficient(num_features, vertices, positive)
    assert np.sum(curvatures > 1e-5) / 2 == expected


@pytest.mark.parametrize(
    ("num_features", "vertices", "positive"),
    [(7, 5, 1), (8, 5, 2), (8, 6, 1), *((k, k, 0) for k in (10, 12))],
)
def test_saddles_have_a_direction_of_negative_curvature(num_features, vertices, positive, x64):
    assert not k_gons.is_minimum(num_features, vertices, positive)
    assert np.linalg.eigvalsh(hessian(flat(num_features, vertices, positive))).min() < -1e-5
    with pytest.raises(ValueError, match="saddle"):
        k_gons.learning_coefficient(num_features, vertices, positive)


@functools.partial(jax.jit, compiler_options=COMPILED_WITH_CARE)
@jax.vmap
def descend(params):
    """Return the potential after gradient descent."""

    def step(params, _):
        return params - 0.3 * jax.grad(loss)(params), None

    return loss(jax.lax.scan(step, params, length=3000)[0])


@pytest.mark.parametrize(
    ("num_features", "vertices", "positive"),
    [
        *((6, *chosen) for chosen in TEN_MINIMA),
        (6, 3, 1),
        (6, 3, 3),
        (6, 2, 1),
        (6, 0, 1),
    ],
)
def test_descent_leaves_saddles_and_stays_at_minima(num_features, vertices, positive, x64):
    """Descent decides even if there is no Hessian."""
    params = flat(num_features, vertices, positive)
    rng = np.random.default_rng(1)
    starts = params + 3e-3 * rng.normal(size=(30, params.size))
    ends = np.asarray(descend(starts))
    expected = k_gons.potential(num_features, vertices, positive)
    if k_gons.is_minimum(num_features, vertices, positive):
        np.testing.assert_allclose(ends, expected, atol=1e-5)  # not below it, nor far above
        assert ends.min() > expected - 1e-12
    else:
        assert np.median(ends) < expected - 1e-4


def test_the_minima_of_six_features_are_listed_by_rising_potential():
    assert k_gons.minima(6) == list(TEN_MINIMA)
    assert len(k_gons.critical_points(6)) == 28 - 5  # no vertex of one with positive columns
    with pytest.raises(ValueError, match="not settled"):
        k_gons.minima(7)


def test_the_nearest_point_is_that_of_the_nearest_potential():
    listed = k_gons.minima(6)
    exact = np.array(list(TEN_MINIMA.values()))
    found = k_gons.nearest(6, 1.01 * exact[None], listed)
    np.testing.assert_array_equal(found.place, [range(10)])
    np.testing.assert_allclose(found.deviation, 0.01, atol=1e-4)


def test_the_potential_below_a_disturbed_minimum_is_its_own():
    params = flat(6, 5, 0) + 3e-3 * np.random.default_rng(2).normal(size=18)
    below = jax.jit(lambda w, b: k_gons.potential_below(w, b, steps=1000))(
        params[:12].reshape(2, 6), params[12:]
    )
    assert below == pytest.approx(TEN_MINIMA[5, 0], abs=1e-5)


def test_two_silent_columns_can_pull_a_square_apart(x64):
    """The function `is_minimum` does not answer for such squares.

    This one has nine features and two silent columns of positive bias.
    """
    params = flat(9, 4, 2)
    rng = np.random.default_rng(0)

    def lowest(start):
        bounds = [(value - 0.02, value + 0.02) for value in params]
        return optimize.minimize(
            lambda params: tuple(map(np.asarray, loss_and_gradient(params))),
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"ftol": 1e-15, "maxiter": 200},
        ).fun

    ends = [lowest(params + 0.01 * rng.normal(size=params.size)) for _ in range(8)]
    assert min(ends) < k_gons.potential(9, 4, 2) - 1e-7
    with pytest.raises(ValueError, match="not settled"):
        k_gons.is_minimum(9, 4, 2)


@pytest.mark.parametrize(
    ("vertices", "positive", "expected"),
    [(6, 0, 8.5), (5, 1, 8.5), (5, 0, 7), (4, 2, 8.5), (4, 1, 8), (4, 0, 7.5), (3, 0, 6)],
)
def test_learning_coefficients_of_six_features(vertices, positive, expected):
    """The expected coefficients are computed by hand.

    `test_learning_coefficient` finds them by sampling.
    """
    assert k_gons.learning_coefficient(6, vertices, positive) == expected


@properties
@given(st.integers(2, 12), st.integers(0, 9), st.data())
def test_a_better_bias_lowers_the_potential_and_holds_more_directions(c, k, data):
    k = min(c - 1, k)
    s = data.draw(st.integers(0, c - k - 1)) if k != 1 else 0
    if k != 1:
        gain = k_gons.potential(c, k, s) - k_gons.potential(c, k, s + 1)
        assert gain == pytest.approx(1 / (4 * c**2))
    assert 0 <= k_gons.potential(c, k, s) <= 1 / 3 + 1e-15
    if 5 <= k <= 9 or (k == 4 and s == 0):
        silent = k_gons.learning_coefficient(c, k, 0)
        assert silent < k_gons.learning_coefficient(c, k, c - k) <= 3 * c / 2 - 1 / 2


def test_crossover_is_where_free_energies_meet():
    phases = [(5, 0), (6, 0)]
    potentials = tuple(k_gons.potential(6, *phase) for phase in phases)
    coefficients = tuple(k_gons.learning_coefficient(6, *phase) for phase in phases)
    for noise_variance, expected in ((1.0, 1010), (0.5, 445)):
        number = posterior.crossover(potentials, coefficients, noise_variance=noise_variance)
        assert number == pytest.approx(expected, abs=0.5)
        pentagon, hexagon = (
            posterior.free_energy(
                h, c, number * np.array([0.9, 1, 1.1]), noise_variance=noise_variance
            )
            for h, c in zip(potentials, coefficients, strict=True)
        )
        np.testing.assert_array_equal(np.sign((hexagon - pentagon).round(9)), [1, 0, -1])


def test_crossover_without_a_price_is_at_once():
    assert posterior.crossover((0.2, 0.1), (3.0, 3.0), noise_variance=1.0) == 1
    # a = 2 / 0.75 < e: n > a log n for every n
    assert posterior.crossover((0.75, 0.0), (0.0, 1.0), noise_variance=1.0) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: k_gons.polygon(0), "vertices is 0"),
        (lambda: k_gons.potential(6, 5, 2), "more than 6 features"),
        (lambda: k_gons.potential(6, 1, 1), "no critical point"),
        (lambda: k_gons.configuration(6, 5, 1, dead_bias=0.1), "dead_bias is 0.1"),
        (lambda: k_gons.is_minimum(15, 13, 0), "not settled"),
        (lambda: k_gons.learning_coefficient(6, 3, 1), "saddle"),
        (lambda: posterior.free_energy(0.1, 2.0, 0, noise_variance=1.0), "num_examples is 0"),
        (lambda: posterior.free_energy(0.1, 2.0, 9, noise_variance=0.0), "noise variance is 0"),
        (lambda: posterior.crossover((0.1, 0.2), (3.0, 4.0), noise_variance=1.0), "do not cross"),
    ],
)
def test_impossible_numbers_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_phases_that_only_touch_do_not_cross():
    """The equation n = e log n holds at n = e alone."""
    assert posterior.crossover((1.0, 0.0), (0.0, np.e / 2), noise_variance=1.0) == 1
