"""Results of cells: their seeds, titles and labels, marks of divergence, and names that clash."""

import inspect
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from helpers import fitted_weight, no_blocks, sweep

import toymodels as tm
from toymodels.errors import InputError

pytestmark = pytest.mark.as_users_compile

AXES = {"axes": {"d": [2, 3]}}


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

    with pytest.raises(
        InputError, match=r"^test_cell_results.py:\d+: .*density=1 - sparsity"
    ) as error:
        sweep(cell, **AXES)
    assert "\n" not in str(error.value)
