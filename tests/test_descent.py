"""Descents against minima that are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import toymodels as tm
from toymodels.theory import minimise


def rosenbrock(point):
    x, y = point
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def test_a_quadratic_is_minimised_where_its_linear_equations_say():
    rng = np.random.default_rng(0)
    root, target = rng.normal(size=(4, 4)), rng.normal(size=4)
    matrix = root @ root.T + np.eye(4)

    def loss(params):
        flat = jnp.concatenate([params["a"], params["b"].ravel()])
        return flat @ matrix @ flat / 2 - target @ flat

    found = minimise(loss, {"a": np.zeros(2), "b": np.zeros((1, 2))})
    assert found.params["b"].shape == (1, 2)
    flat = np.concatenate([found.params["a"], found.params["b"].ravel()])
    solution = np.linalg.solve(matrix, target)
    np.testing.assert_allclose(flat, solution, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.loss, -target @ solution / 2, rtol=1e-14)
    # The square of the gradient is at most 2 L (loss - lowest loss), where L is the largest
    # curvature, and a descent sees no difference of losses that is below a few roundings.
    curvature = np.linalg.eigvalsh(matrix)[-1]
    assert found.slope**2 <= 2 * curvature * 4 * np.spacing(abs(found.loss))


def test_a_curved_valley_is_followed_from_every_start():
    with jax.enable_x64(True):
        starts = np.array([[-1.2, 1.0], [0.0, 0.0], [3.0, -2.0]])
        found = jax.jit(jax.vmap(lambda start: minimise(rosenbrock, start)))(starts)
    np.testing.assert_allclose(found.params, 1.0, rtol=1e-8)
    np.testing.assert_allclose(found.loss, 0.0, rtol=0, atol=1e-20)


@pytest.mark.parametrize("scale", [1e-12, 1e6])
def test_losses_of_any_size_are_minimised_as_exactly(scale):
    start = np.array([-1.2, 1.0])
    found = minimise(lambda point: scale * rosenbrock(point), start, scale=scale)
    np.testing.assert_allclose(found.params, 1.0, rtol=1e-8)


def test_a_symmetric_start_ends_in_the_symmetric_critical_point():
    """The double well has its minima at -1 and 1; the start at 0 has no reason to prefer one."""
    found = minimise(lambda x: (x**2 - 1) ** 2, np.zeros(()))
    assert found.params == 0
    assert found.loss == 1


def test_a_loss_that_is_not_finite_at_the_start_gives_nan():
    found = minimise(jnp.log, np.array(-1.0))
    assert np.isnan(found.loss)
    assert np.isnan(found.slope)


def test_float32_is_refused_with_the_remedy():
    with pytest.raises(tm.InputError, match=r"float64, not float32: work inside"):
        jax.vmap(lambda start: minimise(rosenbrock, start))(np.ones((2, 2), np.float32))
