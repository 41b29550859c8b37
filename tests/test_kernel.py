"""The kernel of a card against the ordinary path, interpreted on a CPU; no card runs the tests."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.interpreters import mlir
from losses import assert_equal_to_rounding, ordinary

import toymodels as tm
from toymodels.engine import elements, examples, fuse, kernel
from toymodels.sweeps.program import export_for

EXAMPLES = 2 * kernel.THREADS
SCALES = jnp.array([0.5, 1.0, 2.0])


def tied(scale):
    """The loss of a tied model with ReLU; the number `scale` may be swept."""

    def loss(params, x):
        output = jax.nn.relu(params["w"].T @ (params["w"] @ x) + params["b"])
        return jnp.sum((scale * x - output) ** 2)

    return loss


def numbers(key, *lead):
    keys = jax.random.split(jax.random.key(key), 3)
    w, b = (jax.random.normal(k, (*lead, *s)) for k, s in zip(keys, ((2, 3), (3,)), strict=False))
    return {"w": w, "b": b}, jax.random.uniform(keys[2], (*lead, EXAMPLES, 3))


@pytest.mark.parametrize(
    ("params_lead", "batch_lead"),
    [
        pytest.param((), (), id="one model"),
        pytest.param((3,), (), id="models that share a batch"),
        pytest.param((3,), (3,), id="models with batches of their own"),
        pytest.param((), (3,), id="one model on three batches"),
    ],
)
def test_the_kernel_has_the_value_and_the_gradient_of_the_mean(params_lead, batch_lead):
    params, batch = numbers(0, *params_lead)[0], numbers(1, *batch_lead)[1]

    def of(route):
        def one(scale, params, batch):
            return route(tied(scale))(params, batch)

        axes = (0, 0 if params_lead else None, 0 if batch_lead else None)
        return jax.vmap(one, axes) if params_lead or batch_lead else one

    arguments = SCALES if params_lead or batch_lead else SCALES[0], params, batch
    with kernel.in_kernels(True):
        traced = jax.jit(of(fuse.value_and_grad)).trace(*arguments)
        assert str(traced.jaxpr).count("pallas_call[") == 1
        actual = traced.lower().compile()(*arguments)
    assert_equal_to_rounding(actual, jax.jit(of(ordinary))(*arguments))


def trained(key, *, density):
    """Train a model of 2 features for a few steps."""
    task, adam = tm.Task(tm.SparseUniform(2, density)), optax.adam(1e-2)
    how = {"steps": 2, "batch": EXAMPLES, "evaluation": 0, "points": 2}
    trained = tm.train(key, tm.ReLUOutput(hidden=1), task, optimizer=adam, **how)
    return {"curve": trained.history.loss, **trained.params}


def test_training_in_a_kernel_is_training_to_rounding():
    """Models of one key share their random words, and each has a density of its own."""
    of_seed = jax.vmap(jax.random.key)
    arguments = of_seed(jnp.array([0, 0, 1])), jnp.array([0.1, 0.7, 0.7])

    def models(keys, densities):
        return jax.vmap(lambda key, density: trained(key, density=density))(keys, densities)

    with kernel.in_kernels(True):
        actual = tm.jit(lambda *inputs: models(*inputs))(*arguments)
    assert_equal_to_rounding(actual, tm.jit(models)(*arguments))


def test_a_card_gets_kernels_only_where_they_are_asked_for():
    """The gradient and the loss for the curve are one kernel."""

    def kernels(platform="cuda"):
        exported = export_for(platform, trained, {"density": np.float32([0.1])}, width=4)
        with mlir.make_ir_context():
            return str(exported.mlir_module(serialized=False)).count("@mosaic_gpu_v2")

    assert kernels() == 0
    with kernel.in_kernels(True):
        assert kernels() == 1
        assert kernels("tpu") == 0


UNIFORM = jax.random.uniform(jax.random.key(0), (3, 8))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda u: jnp.maximum(0.0, 1 - u / 0.3).T, id="elementwise"),
        pytest.param(lambda u: u.T.reshape(8, 1, 3, 1), id="axes of one entry"),
        pytest.param(lambda u: (u * jnp.array([1.0, 2.0, 3.0])[:, None]).T, id="by feature"),
    ],
)
def test_one_example_is_that_of_the_batch(make):
    one = examples.of_one(jax.make_jaxpr(make)(UNIFORM), batch=8)
    for place, expected in enumerate(make(UNIFORM)):
        (actual,) = one([UNIFORM[:, place]])
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda u: (u - u.mean(1, keepdims=True)).T, "'reduce_sum', which could mix"),
        (lambda u: lax.sort(u).T, "'sort', which could mix"),
        (lambda u: u.reshape(8, 3), "'reshape', which could mix"),
        (lambda u: (u * np.ones((1, 8), np.float32)).T, "as long as the batch"),
        (lambda u: jnp.broadcast_to(u[:, None], (3, 8, 8))[0], "2 axes of an array"),
    ],
)
def test_a_sampler_that_could_mix_examples_is_refused(make, reason):
    with pytest.raises(elements.NotFusableError, match=reason):
        examples.of_one(jax.make_jaxpr(make)(UNIFORM), batch=8)


def squares(w, x):
    return jnp.sum((w * x[0]) ** 2)


@pytest.mark.parametrize(
    ("size", "w", "loss", "reason"),
    [
        (100, jnp.ones(2), squares, "100 examples are no multiple of 128"),
        (128, jnp.ones(112), squares, "113 sums over the batch are more than 112"),
        (128, jnp.ones(2, jnp.float16), squares, "reads no float16 numbers"),
        (128, jnp.ones(2), lambda w, x: squares(w, x) ** 2.5, "'pow' is not known to the comp"),
    ],
)
def test_a_loss_without_a_kernel_takes_another_path(size, w, loss, reason):
    batch = jax.random.uniform(jax.random.key(0), (size, 1), w.dtype)
    finish = jax.make_jaxpr(lambda x: x)(batch)
    with pytest.raises(elements.NotFusableError, match=reason):
        kernel.mean(jax.grad, finish, jax.make_jaxpr(loss)(w, batch[0]), w, batch, jnp.int32(0))
    with kernel.in_kernels(True):
        actual = fuse.value_and_grad(loss)(w, batch)
    assert_equal_to_rounding(actual, ordinary(loss)(w, batch))
