"""The estimator against known coefficients, and against integrals at finite temperature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special

from toymodels.analysis.learning_coefficient import learning_coefficient
from toymodels.theory import expected_loss_one_active, k_gons


def estimate(loss, params, *, temperature, localization=1.0, seed=0, chains=64, **numbers):
    sizes = {"warmup": 200, "steps": 300, "leapfrog": 12, **numbers}

    @jax.jit
    def run(key):
        return learning_coefficient(
            key,
            loss,
            params,
            inverse_temperature=temperature,
            localization=localization,
            chains=chains,
            **sizes,
        )

    return run(jax.random.key(seed))


def assert_near(actual, expected, slack=0.0):
    """Fail unless an estimate lies within four standard errors, which must be small."""
    error = float(actual.standard_error)
    assert error < 0.03 * (1 + expected)
    assert abs(float(actual.coefficient) - expected) < 4 * error + slack
    assert 0.7 < actual.acceptance < 0.9


@pytest.mark.parametrize("temperature", [3.0, 1e4])
def test_a_regular_minimum_has_half_its_dimension(temperature):
    """Each curvature $h$ counts $n beta h / (n beta h + gamma)$ of 1/2 at a finite temperature."""
    curvatures = np.array([0.5, 1.0, 2.0, 5.0, 8.0])
    actual = estimate(
        lambda w: jnp.sum(jnp.asarray(curvatures, w.dtype) * w**2) / 2,
        jnp.zeros(5),
        temperature=temperature,
    )
    stiff = temperature * curvatures
    assert_near(actual, np.sum(stiff / (stiff + 1)) / 2)
    assert actual.lowest >= 0


def test_flat_directions_do_not_count():
    actual = estimate(lambda w: w[0] ** 2 + 0 * w.sum(), jnp.zeros(4), temperature=1e4)
    assert_near(actual, 1 / 2)


@pytest.mark.parametrize("temperature", [1e2, 1e6])
def test_crossing_lines_have_one_half_with_multiplicity_two(temperature):
    r"""The loss $w_1^2 w_2^2$ has $\lambda = 1/2$ of multiplicity 2, so the estimate rises late.

    It is 1/2 - 1/log. The integral over $w$ is a Bessel function, $Z = t^{-1/2} e^z K_0(z)$
    with $z = 1/(8t)$.
    """

    def log_integral(log_t):
        return -log_t / 2 + np.log(special.kve(0, np.exp(-log_t) / 8))

    center, step = np.log(temperature), 1e-4
    slope = (log_integral(center + step) - log_integral(center - step)) / (2 * step)
    assert 1 / 2 - 2 / center < -slope < 1 / 2
    actual = estimate(
        lambda w: w[0] ** 2 * w[1] ** 2, jnp.zeros(2), temperature=temperature, steps=600
    )
    assert_near(actual, -slope)


def test_lines_of_different_order_have_one_quarter():
    r"""The loss $w_1^2 w_2^4$ has $\lambda = 1/4$. One integral is left after that over $w_1$."""
    temperature = 1e5

    def integral(power):
        # w_1 is normal of precision 1 + 2 t w_2^4, and the loss is half of 1 less 1 / precision.
        def density(w):
            stiff = 2 * temperature * w**4
            share = (stiff / (1 + stiff) / 2) ** power
            return share * np.exp(-(w**2) / 2) / np.sqrt(1 + stiff)

        return integrate.quad(density, 0, 0.1, limit=200)[0] + integrate.quad(density, 0.1, 9)[0]

    expected = integral(1) / integral(0)
    assert expected == pytest.approx(1 / 4, abs=0.05)
    actual = estimate(
        lambda w: w[0] ** 2 * w[1] ** 4, jnp.zeros(2), temperature=temperature, steps=600
    )
    assert_near(actual, expected)


def bent_pair():
    """Return a configuration as good as the antipodal pair, and near it.

    Its silent columns lean away from both features.
    """
    weights, bias = k_gons.configuration(6, 2, 0, dead_bias=-0.5)
    weights[:, 1] = np.cos(2.1), np.sin(2.1)
    weights[:, 2:] = -0.3 * weights[:, :2].sum(axis=1, keepdims=True)
    return weights, bias


def test_polygons_have_the_coefficients_that_are_counted(x64):
    minima = [(6, 0), (5, 0), (4, 1), (3, 0), (2, 0)]
    found = [k_gons.configuration(6, *minimum, dead_bias=-0.5) for minimum in minima[:-1]]
    weights, bias = map(jnp.stack, zip(*found, bent_pair(), strict=True))

    @jax.jit
    @jax.vmap
    def run(key, weights, bias):
        return learning_coefficient(
            key,
            lambda params: expected_loss_one_active(*params, 1.0),
            (weights, bias),
            inverse_temperature=3e5,
            localization=200.0,
            chains=32,
            warmup=80,
            steps=60,
            leapfrog=10,
        )

    together = run(jax.random.split(jax.random.key(0), len(minima)), weights, bias)
    for index, minimum in enumerate(minima):
        actual = jax.tree.map(lambda leaf, index=index: leaf[index], together)
        # What is left of the limit at this temperature: directions of weak curvature.
        assert_near(actual, k_gons.learning_coefficient(6, *minimum), slack=0.15)
        assert actual.lowest > -1e-9


def test_scaling_the_loss_is_scaling_the_temperature():
    @jax.jit
    @jax.vmap
    def run(scale):
        return learning_coefficient(
            jax.random.key(0),
            lambda w: scale * (jnp.sum(w**2) + w[0] ** 4),
            jnp.zeros(3),
            inverse_temperature=1000 / scale,
            localization=1.0,
            chains=4,
            warmup=100,
            steps=20,
            leapfrog=5,
        )

    scaled, expected = run(jnp.array([4.0, 1.0])).coefficient
    # A scale of a power of two changes only the order of rounding.
    np.testing.assert_allclose(scaled, expected, rtol=1e-3)


def test_other_coordinates_do_not_change_it():
    """The change $w = A sinh(v)$ is a diffeomorphism, so it does not change the coefficient."""
    mixing = jnp.array([[1.0, 0.5, 0.0], [0.0, 0.7, 0.3], [0.2, 0.0, 1.5]])

    def loss(w):
        return w[0] ** 2 + w[1] ** 2

    for changed in (loss, lambda v: loss(mixing @ jnp.sinh(v))):
        actual = estimate(changed, jnp.zeros(3), temperature=1e5)
        assert_near(actual, 1.0, slack=0.01)


def test_the_parameters_of_a_model_and_a_shifted_minimum():
    """Linear regression on a data set is regular, so its 4 parameters make a coefficient of 2."""
    x = np.random.default_rng(0).normal(size=(200, 3))
    x = jnp.asarray(x)

    def loss(params):
        return jnp.mean((x @ params["slope"] + params["intercept"] - 1) ** 2) + 7

    params = {"slope": jnp.zeros(3), "intercept": jnp.ones(())}
    assert_near(estimate(loss, params, temperature=1e3), 2.0, slack=0.01)


def test_leaving_a_saddle_shows():
    actual = estimate(
        lambda w: w[0] ** 2 - w[1] ** 2 + w[1] ** 4, jnp.zeros(2), temperature=1e3, steps=50
    )
    assert actual.lowest < -0.2  # the minimum is -1/4
    assert actual.coefficient < 0


def test_walls_are_refused_and_counted_as_such():
    """Half of a parabola still has 1/2, because half of the volume scales in the same way."""
    actual = estimate(
        lambda w: jnp.where(w[0] >= 0, w[0] ** 2, jnp.nan), jnp.zeros(1), temperature=1e3
    )
    error = float(actual.standard_error)
    assert abs(float(actual.coefficient) - 0.5) < 4 * error


def test_standard_errors_cover():
    """The spread of estimates of different seeds is the standard error that each one gives."""

    @jax.jit
    @jax.vmap
    def run(key):
        return learning_coefficient(
            key,
            lambda w: jnp.sum(w**2),
            jnp.zeros(2),
            inverse_temperature=1e3,
            localization=1.0,
            chains=8,
            warmup=100,
            steps=30,
            leapfrog=5,
        )

    many = run(jax.random.split(jax.random.key(1), 100))
    spread = np.std(np.asarray(many.coefficient))
    # A standard deviation of 100 draws is known to 7 %.
    assert np.sqrt(np.mean(many.standard_error**2)) == pytest.approx(spread, rel=0.3)
    assert np.mean(many.coefficient) == pytest.approx(1.0, abs=float(4 * spread / 10))


NUMBERS = {"inverse_temperature": 10.0, "localization": 1.0}


@pytest.mark.parametrize(
    ("loss", "params", "numbers", "message"),
    [
        (jnp.sum, jnp.zeros(2), {"inverse_temperature": 0.0}, "inverse temperature is 0"),
        (jnp.sum, jnp.zeros(2), {"localization": -1.0}, "localization is -1"),
        (jnp.sum, jnp.zeros(2), {"chains": 1}, "chains is 1"),
        (jnp.sum, jnp.zeros(2), {"leapfrog": 0}, "leapfrog is 0"),
        (jnp.sum, jnp.zeros(2, int), {}, "give floats"),
        (jnp.sum, {}, {}, "give floats"),
        (jnp.square, jnp.zeros(2), {}, r"shape \(2,\)"),
        (lambda w: jnp.sum(w) + jnp.nan, jnp.zeros(2), {}, "loss at params is not finite"),
        (lambda w: jnp.sqrt(w[0]), jnp.zeros(2), {}, "gradient of the loss at params"),
    ],
)
def test_bad_input_is_refused(loss, params, numbers, message):
    sizes = {"chains": 2, "warmup": 1, "steps": 1, "leapfrog": 1}
    with pytest.raises(ValueError, match=message):
        learning_coefficient(jax.random.key(0), loss, params, **{**NUMBERS, **sizes, **numbers})


def test_nothing_is_known_at_parameters_that_diverged():
    """The parameters are traced, as in a sweep. Every step from them is refused, as from a wall."""

    @jax.jit
    def run(params):
        numbers = {"inverse_temperature": 1e3, "localization": 1.0, "chains": 2}
        sizes = {"warmup": 2, "steps": 2, "leapfrog": 1}
        key, loss = jax.random.key(0), lambda w: jnp.sum(w**2)
        return learning_coefficient(key, loss, params, **numbers, **sizes)

    assert np.isnan(run(jnp.array([1.0, jnp.nan]))).all()
