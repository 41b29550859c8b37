"""The fused loop is right, or hands the program over and names what it does not know.

The oracle is JAX itself: `jax.value_and_grad` of the mean of the mapped loss.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from haste import in_haste
from losses import (
    EXAMPLES,
    WEIGHTS,
    assert_equal_to_rounding,
    cast,
    is_the_loop,
    ordinary,
    score,
)
from zoo import ZOO, sine_with_slope_seven, sine_with_slope_x

from toymodels.engine import fuse

pytestmark = pytest.mark.as_users_compile


@pytest.mark.parametrize(("loss", "params", "batch", "refused"), ZOO)
def test_right_or_handed_over_by_name(loss, params, batch, refused, dtype):
    params, batch = cast(params, dtype), cast(batch, dtype)
    path = fuse.explain(loss, params, batch)
    assert path.fused is (refused is None), path.reason
    assert refused is None or refused in path.reason
    traced = in_haste(
        lambda *arguments: (fuse.value_and_grad(loss)(*arguments), ordinary(loss)(*arguments))
    ).trace(params, batch)
    assert is_the_loop(traced.jaxpr) is path.fused
    actual, expected = traced.lower().compile()(params, batch)
    assert_equal_to_rounding(actual, expected)


def test_single_precision_among_double(x64):
    """Literals and defaults are wider than the numbers of the loss."""
    params, batch = cast((WEIGHTS, EXAMPLES), jnp.float32)

    def loss(w, x):
        m = w * x[None]
        return score(jnp.where(m > 0.1, 2.0 * m + 1, jnp.sqrt(2.5)) ** 3)

    assert fuse.explain(loss, params, batch).fused
    assert_equal_to_rounding(
        in_haste(fuse.value_and_grad(loss))(params, batch), in_haste(ordinary(loss))(params, batch)
    )


@pytest.mark.parametrize(
    ("declared", "slope"),
    [
        pytest.param(sine_with_slope_seven, lambda x: 7 + 0 * x, id="forward"),
        pytest.param(sine_with_slope_x, lambda x: x, id="backward"),
    ],
)
def test_a_declared_derivative_is_the_derivative(declared, slope):
    """The declared derivative is used even if it is wrong on purpose."""
    value, gradient = jax.jit(fuse.value_and_grad(lambda p, x: declared(p) * x))(
        0.5, EXAMPLES[:, 0]
    )
    mean = np.mean(EXAMPLES[:, 0])
    np.testing.assert_allclose(value, np.sin(0.5) * mean, rtol=1e-5)  # six additions in float32
    np.testing.assert_allclose(gradient, slope(0.5) * mean, rtol=1e-5)


def test_constant_filled_in_is_not_an_element_without_jit():
    """The indices are plain numbers outside jit.

    The constant must not pass for a sum of all elements.
    """

    def loss(w, x):
        return score(w * x.at[np.array([0, 7, 1])].get(mode="fill", fill_value=1.0)[None])

    params, batch = cast((WEIGHTS, EXAMPLES), jnp.float32)
    assert_equal_to_rounding(
        fuse.value_and_grad(loss)(params, batch), in_haste(ordinary(loss))(params, batch)
    )


def test_accepts_the_numbers_of_python_and_numpy():
    gradient = fuse.value_and_grad(lambda p, x: p["a"] * x * p["b"])
    value, gradients = gradient({"a": 2.0, "b": np.float64(3.0)}, np.array([1.0, 2.0, 6.0]))
    np.testing.assert_array_equal(value, 18)
    np.testing.assert_array_equal([gradients["a"], gradients["b"]], [9, 6])
