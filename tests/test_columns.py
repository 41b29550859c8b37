"""Examples as columns: `vmap` with the batch as the last axis, and its derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from haste import in_haste
from jax.test_util import check_grads

from toymodels import models
from toymodels.engine import columns

pytestmark = pytest.mark.as_users_compile

BATCH = 7


def autoencoder(weights, bias, x):
    return jnp.sum((x - jax.nn.relu(weights.T @ (weights @ x) + bias)) ** 2)


def rows_times(weights, bias, x):
    return jnp.sum(jnp.tanh(x @ weights.T) * 2.0) + bias[0]


def outer(weights, bias, x):
    return jnp.sum(jnp.outer(x, x) * jnp.eye(x.size)) + jnp.max(bias) + weights[0, 0]


def of_one_number(weights, bias, x):
    largest = jnp.max(x)
    return jnp.where(largest > 0, largest, 0.0) * jnp.sum(bias) + jnp.sum(weights) * x[0]


def batched_product(weights, bias, x):
    pairs = jnp.stack([weights, 2 * weights])
    return jnp.sum(jnp.einsum("phf,f->ph", pairs, x) ** 2) + jnp.sum(bias * x)


def sorted_and_gathered(weights, bias, x):
    return jnp.sum(jnp.sort(x)[::2]) + jnp.sum(jnp.cumsum(x)[jnp.array([0, 2])] * bias[:2])


def loops(weights, bias, x):
    total, _ = jax.lax.scan(lambda total, w: (total + jnp.sum(w * x), None), 0.0, weights)
    return total + bias[0]


ALL = [
    autoencoder,
    rows_times,
    outer,
    of_one_number,
    batched_product,
    sorted_and_gathered,
    loops,
]


@pytest.fixture
def arguments():
    rng = np.random.default_rng(0)
    return tuple(
        jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((3, 5), (5,), (5, BATCH))
    )


def as_columns(function, weights, bias, x):
    traced = jax.make_jaxpr(function)(weights, bias, x[:, 0])
    shared = [columns.Columns(weights, many=False), columns.Columns(bias, many=False)]
    (output,) = columns.evaluate(
        traced.jaxpr, traced.consts, [*shared, columns.Columns(x, many=True)], batch=BATCH
    )
    return jnp.broadcast_to(output.array, (BATCH,)) if not output.many else output.array


@pytest.mark.parametrize("function", ALL)
def test_equal_to_vmap_with_its_derivatives(function, arguments):
    def by_vmap(weights, bias, x):
        return jax.vmap(function, in_axes=(None, None, -1))(weights, bias, x)

    def by_columns(weights, bias, x):
        return as_columns(function, weights, bias, x)

    ours, theirs = (in_haste(f)(*arguments) for f in (by_columns, by_vmap))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    ours, theirs = (
        in_haste(jax.jacrev(f, argnums=(0, 1, 2)))(*arguments) for f in (by_columns, by_vmap)
    )
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(our, their, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["int8", "int64", "uint8", "bool", "float16", "bfloat16"])
def test_numbers_of_any_type(kind, arguments, x64):
    """A matrix, a mask and examples of small whole numbers are exact in every type."""
    weights, bias, x = (jnp.round(argument) for argument in arguments)
    signs = jnp.asarray(weights > 0).astype(kind)

    def squares(weights, bias, x):
        return jnp.sum((signs @ (x * bias)) ** 2) + jnp.sum((weights @ x.astype(kind)) ** 2)

    def total(function):
        return lambda weights, bias: jnp.sum(function(weights, bias, x))

    by_vmap = total(jax.vmap(squares, in_axes=(None, None, -1)))
    by_columns = total(lambda *a: as_columns(squares, *a))
    actual, expected = (
        in_haste(jax.value_and_grad(f, (0, 1)))(weights, bias) for f in (by_columns, by_vmap)
    )
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_derivatives_of_the_product_are_finite_differences(arguments, x64):
    weights, bias, x = (jnp.asarray(a, jnp.float64) for a in arguments)

    def mean(weights, bias):
        return jnp.mean(
            as_columns(lambda w, b, x: jnp.sum(jnp.tanh(w.T @ (w @ x) + b)), weights, bias, x)
        )

    check_grads(jax.jit(mean), (weights, bias), order=2, modes=("fwd", "rev"))


@pytest.mark.parametrize("output", [models.ReLUOutput, models.LinearOutput])
def test_a_model_is_the_same(output, arguments):
    _, _, x = arguments
    model = output(hidden=3)
    params = model.init(jax.random.key(0), x[:, 0])["params"]
    weights, bias = params["weights"], jnp.ones(5)

    def reconstruct(weights, bias, x):
        return jnp.sum(model.apply({"params": {**params, "weights": weights}}, x) * bias)

    expected = [in_haste(reconstruct)(weights, bias, column) for column in x.T]
    actual = in_haste(lambda *arguments: as_columns(reconstruct, *arguments))(weights, bias, x)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
