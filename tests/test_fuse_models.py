"""The losses of the toy models are fused and right, and a loss that diverged shows it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from haste import in_haste
from losses import (
    assert_equal_to_rounding,
    is_the_loop,
    ordinary,
)

from toymodels import features, models, tasks
from toymodels.engine import compiling, fuse
from toymodels.training import train as training

pytestmark = pytest.mark.as_users_compile

MODELS = [
    pytest.param(models.LinearOutput(hidden=2), tasks.identity, id="LinearOutput"),
    pytest.param(models.ReLUOutput(hidden=2), tasks.identity, id="ReLUOutput"),
    pytest.param(models.ReLUOutput(hidden=2, activation=nn.gelu), tasks.identity, id="gelu"),
    pytest.param(models.ReLUOutput(hidden=2, activation=jnp.tanh), tasks.identity, id="tanh"),
    pytest.param(
        models.ReLUOutput(hidden=2, activation=nn.leaky_relu), tasks.identity, id="leaky_relu"
    ),
    pytest.param(models.ReLUHidden(hidden=2), tasks.identity, id="ReLUHidden"),
    pytest.param(models.ReLUHidden(hidden=2, activation=nn.silu), tasks.identity, id="silu"),
    pytest.param(models.ReLUHidden(hidden=2, activation=nn.elu), tasks.identity, id="elu"),
    pytest.param(models.TwoLayer(hidden=2), jnp.abs, id="TwoLayer"),
    pytest.param(models.TwoLayer(hidden=2, activation=nn.softplus), jnp.abs, id="softplus"),
]


def model_case(model, target, dtype):
    batch = features.SignedSparseUniform(5, 0.5).sample(jax.random.key(0), 16).astype(dtype)
    task = tasks.Task(
        features.SignedSparseUniform(5, 0.5),
        target=target,
        importance=tasks.geometric_importance(5, 0.9).astype(dtype),
    )
    params = model.init(jax.random.key(1), batch[0])["params"]
    bias = jnp.linspace(-0.1, 0.3, 5, dtype=dtype)
    params = {**jax.tree.map(lambda leaf: leaf.astype(dtype), params), "bias": bias}
    return training.task_loss(model, task), params, batch


@pytest.mark.parametrize(("model", "target"), MODELS)
def test_models_are_fused_and_right(model, target, dtype):
    loss, params, batch = model_case(model, target, dtype)
    path = fuse.explain(loss, params, batch)
    assert path.fused, path.reason
    traced = compiling.jit(fuse.value_and_grad(loss)).trace(params, batch)
    assert is_the_loop(traced.jaxpr)
    assert_equal_to_rounding(
        traced.lower().compile()(params, batch), in_haste(ordinary(loss))(params, batch)
    )


@pytest.mark.parametrize(("model", "target"), MODELS[1:4] + MODELS[-2:-1])
def test_models_are_right_without_jit(model, target):
    loss, params, batch = model_case(model, target, jnp.dtype("float32"))
    assert_equal_to_rounding(
        fuse.value_and_grad(loss)(params, batch), in_haste(ordinary(loss))(params, batch)
    )


@pytest.mark.parametrize(("model", "target"), [MODELS[0], MODELS[1], MODELS[-2]])
def test_divergence_shows_under_fast_math(model, target):
    loss, params, batch = model_case(model, target, jnp.dtype("float32"))
    fast = compiling.jit(lambda *a: classified(fuse.value_and_grad(loss)(*a)[0]))
    exact = in_haste(lambda *a: classified(ordinary(loss)(*a)[0]))
    for wrong in (np.nan, np.inf, -np.inf):
        cases = [(params, batch.at[3, 1].set(wrong))]
        for name, leaf in params.items():
            cases.append(({**params, name: leaf.at[..., 1].set(wrong)}, batch))
        for case in cases:
            np.testing.assert_array_equal(fast(*case), exact(*case))
            assert not np.isnan(wrong) or fast(*case)[0]


def classified(value):
    return jnp.isnan(value), jnp.isinf(value)
