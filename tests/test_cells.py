"""Refusals of a cell before it runs: wrong names and numbers, impurity, and the line at fault."""

import functools
import gc
import inspect
import math
import pickle
import re
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr
from helpers import fitted_weight, no_blocks, sweep

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


def test_the_seeds_named_are_those_of_the_count():
    def cell(key, *, d):
        return {"u": d * jax.random.uniform(key)}

    some = sweep(cell, **AXES, seeds=[7, 3])
    xr.testing.assert_identical(some.u, sweep(cell, **AXES, num_seeds=8).u.sel(seed=[7, 3]))
    big = sweep(cell, **AXES, seeds=[2**32 - 1])
    expected = 2 * jax.random.uniform(jax.random.key(2**32 - 1))
    np.testing.assert_allclose(big["u"].values[0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("seeds", [[-1], [3, 3], [], [2**32]])
def test_other_seeds_are_refused(seeds):
    with pytest.raises(InputError, match="seeds"):
        sweep(lambda key: {"u": 1.0}, seeds=seeds)


def test_one_number_of_seeds_is_not_a_list_of_them():
    """The user says whether 3 means three seeds or the seed 3; the sweep does not guess."""
    unchecked = inspect.unwrap(tm.sweep)  # the suite's own type check would refuse it before
    with pytest.raises(InputError, match=r"^seeds is 3: give a list such as \[3\], or num_seeds=3"):
        unchecked(lambda key: {"u": 1.0}, seeds=3)


def test_seeds_and_their_number_are_not_both_given():
    with pytest.raises(InputError, match="give one of them"):
        sweep(lambda key: {"u": 1.0}, seeds=[1], num_seeds=1)


@pytest.mark.parametrize("kind", [tm.SweepError, tm.SweepInterrupted])
def test_an_error_with_results_travels_between_processes(kind):
    """A pool of processes that cannot unpickle an error breaks, and all its jobs with it."""
    again = pickle.loads(pickle.dumps(kind("words", xr.Dataset({"y": 1}))))
    assert type(again) is kind
    assert str(again) == "words"
    assert int(again.results.y) == 1


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


def test_counts_of_diverged_parameters_are_no_numbers():
    """A count of comparisons looks healthy for NaN, because a comparison with NaN is false."""

    def cell(key, *, rate):
        weights = fitted_weight(key, rate, start=jnp.full(3, 2.0))
        return {"count": jnp.sum(jnp.abs(weights) > 0.5), "dead": jnp.mean(weights == 0)}

    with pytest.warns(UserWarning, match="1 of 2 cells diverged .*: rate=50.0 seed=0"):
        results = sweep(cell, axes={"rate": [0.1, 50.0]})
    np.testing.assert_array_equal(results["count"][:, 0], [3, np.nan])
    np.testing.assert_array_equal(results["dead"][:, 0], [0, np.nan])


@pytest.mark.parametrize("around", ["jit", "vmap", "scan", "cond", "while", "remat"])
def test_marks_are_found_wherever_training_is_called(around):
    def train(rate):
        return jnp.abs(fitted_weight(jax.random.key(0), rate)) > 0.5

    def cell(key, *, rate):
        counts = {
            "jit": lambda: jax.jit(train)(rate),
            "vmap": lambda: jax.vmap(train)(jnp.stack([rate, 0.1])).sum(),
            "scan": lambda: jax.lax.map(train, jnp.stack([0.1, rate, 0.1])).sum(),
            "cond": lambda: jax.lax.cond(rate > 1, lambda: train(rate), lambda: True),
            "while": lambda: jax.lax.while_loop(
                lambda c: c[0] < 3.0, lambda c: (c[0] + 2, train(rate)), (rate * 0, False)
            )[1],
            "remat": lambda: jax.checkpoint(train)(rate),
        }
        return {"count": counts[around]()}

    with pytest.warns(UserWarning, match="1 of 2 cells diverged"):
        results = sweep(cell, axes={"rate": [0.1, 50.0]}, width=2)
    np.testing.assert_array_equal(np.isnan(results["count"][:, 0]), [False, True])


def test_an_output_that_is_not_finite_beside_finite_parameters_costs_nothing_else():
    """The area under the curve is such an output for a label that never occurs."""

    def cell(key, *, d):
        weight = fitted_weight(key, 0.1, steps=5)
        return {"w": weight, "score": jnp.where(d > 2, jnp.nan, 1.0), "kind": jnp.int32(7)}

    with pytest.warns(UserWarning, match=r"1 of 2 cells .* not finite \(score\): d=3 seed=0"):
        results = sweep(cell, **AXES)
    assert results.attrs["diverged_cells"] == 0
    assert results.attrs["not_finite_cells"] == 1
    assert np.isfinite(results["w"]).all()
    assert results["kind"].dtype == np.int32
    np.testing.assert_array_equal(results["score"][:, 0], [1, np.nan])


@pytest.mark.parametrize(
    ("outputs", "arguments", "message"),
    [
        ({"loss": jnp.zeros(2), "loss_0": 1.0}, {}, "'loss_0' has the name of a dimension"),
        ({"n": jnp.zeros(2), "f": jnp.zeros((2, 2))}, {"dims": {"n": ("f",)}}, "'f' has the name"),
        ({"n": jnp.zeros(2)}, {"dims": {"n": "feature"}}, "give a tuple of names"),
        ({"n": jnp.zeros(2)}, {"dims": {"n": ("a/b",)}}, "files cannot hold"),
        ({"n": jnp.zeros(2)}, {"dims": {"n": ("a\0",)}}, "files cannot hold"),
        ({"n": jnp.zeros(2)}, {"dims": {"n": ("seed",)}}, "'seed' is an axis of the sweep already"),
    ],
)
def test_names_that_clash_are_refused_before_anything_runs(outputs, arguments, message):
    with no_blocks(), pytest.raises(InputError, match=message) as error:
        sweep(lambda key: outputs, **arguments)
    assert "\n" not in str(error.value)


def test_the_labels_of_a_dimension_are_the_same_in_every_cell():
    def cell(key, *, d):
        return {"curve": jnp.stack([d, d]), "step": jnp.stack([d, 2 * d])}

    with pytest.raises(InputError, match=r"'step' .* not the same in every cell"):
        sweep(cell, **AXES, dims={"curve": ("step",)})


def test_a_variant_that_fails_when_its_turn_comes_costs_nothing_of_the_first():
    @jax.custom_batching.custom_vmap
    def alone(x):
        return x

    @alone.def_vmap
    def _(size, batched, x):
        raise NotImplementedError("no rule for many")

    def cell(key, *, d, kind):
        return {"a": d if kind == "plain" else alone(d)}

    with pytest.raises(tm.SweepError, match=r"no rule for many; 2 of 4 cells") as error:
        sweep(cell, **AXES, static={"kind": ["plain", "alone"]})
    found = error.value.results["a"].sel(kind="plain", seed=0)
    np.testing.assert_array_equal(found, [2, 3])


def test_a_name_that_is_not_there_suggests_the_nearest():
    with pytest.raises(AttributeError, match="did you mean 'sweep'"):
        tm.swep  # noqa: B018
    assert tm.InputError is InputError
    assert tm.__version__


def test_arguments_that_a_function_does_not_take_are_explained_in_one_line():
    """The user wrote the function, because the tests check the types of our own ones."""

    def features(density):
        return jnp.full(3, density)

    def cell(key, *, d):
        return {"x": features(sparsity=1 / d)}

    with pytest.raises(InputError, match=r"^test_cells.py:\d+: .*density=1 - sparsity") as error:
        sweep(cell, **AXES)
    assert "\n" not in str(error.value)
