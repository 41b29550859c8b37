"""Refusals of a cell before it runs: wrong names and numbers, impurity, and the line at fault."""

import functools
import gc
import math
import re
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import no_blocks, sweep

import toymodels as tm
from toymodels.errors import InputError
from toymodels.sweeps import cells

pytestmark = pytest.mark.as_users_compile

AXES = {"axes": {"d": [2, 3]}}


def test_no_garbage_is_looked_for_while_a_cell_is_traced():
    found = []

    def cell(key, *, d):
        found.append(gc.isenabled())
        return {"a": d}

    sweep(cell, axes={"d": [2, 3]}, width=2)
    assert not any(found)
    assert gc.isenabled()


def test_a_sweep_compiles_its_own_program_and_no_other(caplog):
    jax.clear_caches()
    with jax.log_compiles():
        sweep(lambda key, *, d: {"a": d * jax.random.normal(key)}, axes={"d": [2, 3]}, width=2)
    compiled = re.findall(r"Finished XLA compilation of jit\((\w+)\)", caplog.text)
    assert compiled == ["call"]


def branches(key, *, d):
    return {"a": 1.0 if d > 2.5 else 0.0}


def numpy_root(key, *, d):
    return {"a": np.sqrt(d)}


def math_root(key, *, d):
    return {"a": math.sqrt(d)}


def length(key, *, d):
    return {"a": jnp.zeros(d).sum()}


def layer(key, *, d):
    return {"a": nn.Dense(d).init(key, jnp.zeros(3))["params"]["kernel"]}


def loop(key, *, d):
    return {"a": sum(1.0 for _ in range(d))}


def place(key, *, d):
    return {"a": [1.0, 2.0, 3.0, 4.0][d]}


def schedule(key, *, d):
    return {"a": optax.cosine_decay_schedule(1.0, d)(jnp.zeros(()))}


@pytest.mark.parametrize(
    ("cell", "remedy"),
    [
        (branches, "jnp.where"),
        (numpy_root, "jnp in place of np"),
        (math_root, "jnp in place of math"),
        (length, "'d': sweep it with static="),
        (layer, "'d': sweep it with static="),
        (loop, "'d': sweep it with static="),
        (place, "'d': sweep it with static="),
        (schedule, "'d': sweep it with static="),
    ],
)
def test_a_plain_number_where_there_is_none_names_line_axis_and_remedy(cell, remedy):
    with pytest.raises(InputError, match="plain number for axis 'd'") as error:
        sweep(cell, **AXES)
    message = str(error.value)
    assert message.startswith(f"test_cells.py:{cell.__code__.co_firstlineno + 1}: ")
    assert remedy in message
    assert "\n" not in message
    assert error.value.__cause__ is not None


def test_an_error_of_the_cells_own_is_left_as_it_is():
    with pytest.raises(TypeError, match="incompatible shapes"):
        sweep(lambda key: {"a": jnp.zeros(3) + jnp.zeros(4)})


def counted(key, *, d):
    counted.calls += 1
    return {"a": d * counted.calls}


counted.calls = 0


@pytest.mark.parametrize(
    "cell",
    [
        lambda key, *, d: {"a": np.random.rand() * d},  # noqa: NPY002
        lambda key, *, d: {"a": jnp.asarray(np.random.rand(3)) * d},  # noqa: NPY002
        lambda key, *, d: {"a": jnp.ones(np.random.randint(1, 10**6)) * d},  # noqa: NPY002
        lambda key, *, d: {
            "a": d
            + jax.lax.scan(lambda c, _: (c + time.perf_counter() % 1, None), 0.0, length=2)[0]
        },
        counted,
    ],
)
def test_a_cell_that_is_not_pure_is_refused(cell):
    with no_blocks(), pytest.raises(InputError, match=r"test_cells.py:\d+: .*not a pure function"):
        sweep(cell, **AXES)


def trains(key, *, density):
    task = tm.Task(tm.SparseUniform(3, density))
    return {
        "loss": tm.train(
            key, tm.ReLUOutput(2), task, optimizer=optax.adam(0.01), steps=2, batch=4, evaluation=4
        ).loss
    }


@pytest.mark.parametrize("cell", [trains, tm.jit(trains)])
def test_a_cell_that_trains_is_the_same_each_time(cell):
    assert np.isfinite(sweep(cell, axes={"density": [0.5]}).loss).all()


NAMES = iter("ab")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (lambda d, key: {"a": d}, "first argument of the cell, 'd', is given the key"),
        (lambda: {"a": 1.0}, "takes no key"),
        (lambda *, d: {"a": d}, "takes no key"),
        (lambda key, *, d: d, "returns an array"),
        (lambda key, *, d: 1.0, "returns a float"),
        (max, "give a function of a key"),
        (lambda key, *, d: {next(NAMES): d}, "returns a, and b when called again"),
        (functools.partial(tm.jit(lambda key, *, d, e: {"a": d + e}), e=1.0), "leave it out"),
        (lambda key, *, d: {"a": tm.jit(jnp.sin)(d)}, "test_cells.py:.*leave it out"),
        (lambda key, *, d: {"\ud800": d}, "cannot be saved under that name"),
    ],
)
def test_a_cell_of_another_form_is_refused(cell, message):
    with pytest.raises(InputError, match=message) as error:
        sweep(cell, **AXES)
    assert "\n" not in str(error.value)


class Doubling:
    def __call__(self, key, *, d):
        return {"a": 2 * d}

    def method(self, key, *, d):
        return {"a": 2 * d}


@pytest.mark.parametrize(
    "cell",
    [
        Doubling(),
        Doubling().method,
        functools.partial(lambda key, *, d, factor: {"a": factor * d}, factor=2),
        jax.jit(lambda key, *, d: {"a": 2 * d}),
        lambda key, **numbers: {"a": 2 * numbers["d"]},
    ],
)
def test_whatever_can_be_called_is_a_cell(cell):
    np.testing.assert_array_equal(sweep(cell, **AXES)["a"][:, 0], [4, 6])


def test_an_axis_may_have_the_name_key_where_the_first_argument_has_another():
    results = sweep(lambda first, *, key: {"a": key}, axes={"key": [1.0, 2.0]})
    np.testing.assert_array_equal(results["a"][:, 0], [1, 2])
    with pytest.raises(InputError, match="'key', is given the key and is an axis"):
        sweep(lambda key, **numbers: {"a": 1.0}, axes={"key": [1.0]})


@pytest.mark.parametrize(
    ("axis", "cell", "wrong"),
    [
        ([0.9, 0.5, 0.0], lambda key, *, d: tm.SparseUniform(2, 1 - d), None),
        ([0.9, 1.0, 0.5], lambda key, *, d: tm.SparseUniform(2, 1 - d), "density is 0,"),
        ([1.0, 0.5, 2.0], lambda key, *, d: tm.SparseUniform(2, jnp.full(2, d)), "density is 2,"),
        ([0.5, 2.0], lambda key, *, d: tm.SparseUniform(2, jnp.sin(d) ** 2 + d), "density is 2.8"),
    ],
)
def test_numbers_are_checked_at_every_point_also_what_is_computed_of_them(axis, cell, wrong):
    def sampled(key, *, d):
        return {"x": cell(key, d=d).sample(key, 3)}

    if wrong is None:
        sweep(sampled, axes={"d": axis})
        return
    with pytest.raises(InputError, match=wrong):
        sweep(sampled, axes={"d": axis})


def test_nothing_of_a_trace_outlives_it():
    def cell(key, *, d):
        return {"x": tm.SparseUniform(2, d).sample(key, 3)}

    with jax.checking_leaks():
        sweep(cell, axes={"d": [0.5]}, width=2)


def test_there_is_a_sign_of_life_before_the_cell_is_called(capfd):
    seen = []

    def cell(key):
        seen.append(capfd.readouterr().err)
        return {"x": 1.0}

    tm.sweep(cell, width=2)
    assert seen[0].endswith("cell: tracing\n")
    assert capfd.readouterr().err.splitlines()[0].endswith("cell: compiling")


def test_numbers_take_the_precision_of_what_they_meet():
    def cell(key, *, d):
        half = jnp.bfloat16(2) * d
        assert half.dtype == jnp.bfloat16
        return {"half": half, "float16": jnp.float16(2) * d, "own": d}

    results = sweep(cell, **AXES)
    types = [results[name].dtype for name in ("half", "float16", "own")]
    assert types == [np.float32, np.float16, np.float32]  # files do not know bfloat16
    np.testing.assert_array_equal(results["half"][:, 0], [4, 6])


def test_half_precision_parameters_train_with_any_swept_number():
    class Half(nn.Module):
        @nn.compact
        def __call__(self, x):
            weights = self.param("w", lambda key, shape: jnp.ones(shape, jnp.bfloat16), (2, 3))
            return weights.T @ (weights @ x.astype(jnp.bfloat16))

    def cell(key, *, b1):
        trained = tm.train(
            key,
            Half(),
            tm.Task(tm.SparseUniform(3, 0.5)),
            optimizer=optax.adam(1e-2, b1=b1),
            steps=2,
            batch=8,
            evaluation=8,
        )
        assert trained.params["w"].dtype == jnp.bfloat16
        return {"loss": trained.loss}

    swept = sweep(cell, axes={"b1": [0.9, 0.5]})["loss"]
    alone = cell(jax.random.key(0), b1=0.9)["loss"]
    np.testing.assert_allclose(swept.sel(b1=0.9, seed=0), alone, rtol=2e-2)


def named_cell(key):
    return {"a": 1.0}


@pytest.mark.parametrize(
    ("cell", "title"),
    [
        (named_cell, "test_cells.named_cell"),
        (tm.jit(named_cell), "test_cells.named_cell"),
        (functools.partial(named_cell), "test_cells.named_cell"),
        (Doubling(), "test_cells.Doubling"),
        (Doubling().method, "test_cells.Doubling.method"),
    ],
)
def test_a_title_is_the_name_of_the_function(cell, title):
    assert cells.title(cell) == title


def test_an_edited_cell_of_a_notebook_is_known_by_its_name(tmp_path):
    """A notebook names the file of a cell after its text, so an edit changes the file."""

    def typed(factor):
        space = {"__name__": "__main__"}
        source = f"def cell(key, *, d): return {{'a': d * {factor}}}"
        exec(compile(source, f"ipykernel_9/{hash(source)}.py", "exec"), space)
        return space["cell"]

    store = tmp_path / "notebook.db"
    assert cells.title(typed(2)) == "cell"
    sweep(typed(2), **AXES, store=store)
    with pytest.warns(UserWarning, match="2 cells of 'cell' .* something changed: program was"):
        sweep(typed(3), **AXES, store=store)
