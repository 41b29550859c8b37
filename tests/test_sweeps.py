"""A sweep gives each cell its own numbers and labels; `test_promise` compares the last bits."""

import itertools
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr
from helpers import around_blocks, fitted_weight, no_blocks, sweep
from hypothesis import given, settings
from hypothesis import strategies as st

import toymodels as tm
from toymodels.engine.devices import devices
from toymodels.errors import InputError
from toymodels.sweeps import executables, variants
from toymodels.sweeps.program import compile_program

pytestmark = pytest.mark.as_users_compile


def noisy_sum(key, *, a, b):
    return {"y": 10 * a + b + jax.random.uniform(key), "pair": jnp.stack([a, b])}


def test_each_cell_equals_the_function_on_its_own():
    results = sweep(noisy_sum, axes={"a": (1.0, 2.0), "b": (3.0, 4.0, 5.0)}, num_seeds=3)
    for a, b, seed in itertools.product((1.0, 2.0), (3.0, 4.0, 5.0), range(3)):
        alone = noisy_sum(jax.random.key(seed), a=a, b=b)
        cell = results.sel(a=a, b=b, seed=seed)
        np.testing.assert_allclose(cell["y"], alone["y"], rtol=1e-6)
        np.testing.assert_array_equal(cell["pair"], alone["pair"])


RATES = {number: 3.7 + number / 100 for number in range(1, 30)}


def logistic_map(key, *, rate):
    """A chaotic cell, in which the last bit of the start decides the end."""
    start = jax.random.uniform(key)
    return {"x": jax.lax.fori_loop(0, 200, lambda _, x: rate * x * (1 - x), start)}


@pytest.fixture(scope="module")
def finest():
    return sweep(logistic_map, axes={"rate": list(RATES.values())}, num_seeds=3)


@settings(max_examples=8)
@given(
    st.lists(st.sampled_from(range(1, 30)), min_size=1, max_size=20, unique=True),
    st.integers(1, 3),
)
def test_any_grid_is_a_part_of_the_finest(finest, numbers, num_seeds):
    some = sweep(logistic_map, axes={"rate": [RATES[n] for n in numbers]}, num_seeds=num_seeds)
    xr.testing.assert_equal(some, finest.sel(some.coords))


def test_whole_numbers_are_no_other_type():
    """A cell must not depend on whether its axis holds a fraction elsewhere."""

    def cell(key, *, a):
        return {"half": a / 2, "type": jnp.issubdtype(jnp.asarray(a).dtype, jnp.floating)}

    whole, mixed = (sweep(cell, axes={"a": axis}) for axis in ([1, 2], [1, 2.5]))
    assert whole["type"].all()
    xr.testing.assert_equal(whole.sel(a=1, drop=True), mixed.sel(a=1, drop=True))


def test_a_cell_is_called_twice_whatever_the_grid():
    """The first call records the program, and the second checks that it is repeated."""
    calls = []

    def counted(key, *, a):
        calls.append(a)
        return {"y": a}

    sweep(counted, axes={"a": np.linspace(0, 1, 40)}, num_seeds=3)
    assert len(calls) == 2


def test_zipped_axes_move_together():
    results = sweep(noisy_sum, axes={("a", "b"): [(1.0, 4.0), (2.0, 5.0)]})
    assert results["y"].dims == ("a", "seed")
    np.testing.assert_array_equal(results["pair"][:, 0], [[1, 4], [2, 5]])
    np.testing.assert_array_equal(results["b"], [4, 5])


def test_static_axes_are_compiled_apart_and_padded():
    def cell(key, *, hidden, activation, scale):
        return {"h": scale * activation(jnp.arange(-1.0, hidden - 1)), "size": hidden}

    results = sweep(
        cell,
        axes={"scale": [1.0, 2.0]},
        static={"hidden": [2, 4], "activation": {"relu": jax.nn.relu, "none": lambda x: x}},
        dims={"h": ("neuron",)},
    )
    assert results["h"].dims == ("hidden", "activation", "scale", "seed", "neuron")
    short = results["h"].sel(hidden=2, activation="none", scale=2.0, seed=0)
    np.testing.assert_array_equal(short, [-2, 0, np.nan, np.nan])
    full = results["h"].sel(hidden=4, activation="relu", scale=2.0, seed=0)
    np.testing.assert_array_equal(full, [0, 0, 2, 4])
    np.testing.assert_array_equal(results["size"].sel(hidden=4), np.full((2, 2, 1), 4))


def test_no_axes_is_one_cell_per_seed():
    results = sweep(lambda key: {"u": jax.random.uniform(key)}, num_seeds=3)
    expected = [jax.random.uniform(jax.random.key(seed)) for seed in range(3)]
    np.testing.assert_allclose(results["u"], expected, rtol=1e-6)


def test_results_survive_a_file(tmp_path):
    results = sweep(noisy_sum, axes={"a": [0.9], "b": [1.0, 2.0]}, units={"y": "metres", "a": "s"})
    results.to_netcdf(tmp_path / "results.nc", engine="h5netcdf")
    loaded = xr.load_dataset(tmp_path / "results.nc", engine="h5netcdf")
    xr.testing.assert_identical(loaded, results)
    assert loaded["y"].attrs["units"] == "metres"
    assert loaded["a"].attrs["units"] == "s"
    assert "jax=" in loaded.attrs["versions"]
    assert float(loaded["a"][0]) == 0.9  # the axis as given, not as rounded for the device


def test_a_diverged_cell_is_nan_and_named_and_does_not_stop_the_sweep():
    def cell(key, *, learning_rate):
        return {"w": fitted_weight(key, learning_rate, steps=100), "kind": jnp.int32(7)}

    with pytest.warns(UserWarning, match=r"2 of 6 cells diverged .* learning_rate=50.0 seed=0"):
        results = sweep(cell, axes={"learning_rate": [0.1, 0.2, 50.0]}, num_seeds=2)
    assert results.attrs["diverged_cells"] == 2
    assert np.isnan(results.sel(learning_rate=50.0).to_array()).all()
    np.testing.assert_array_equal(results["kind"].sel(learning_rate=[0.1, 0.2]), np.full((2, 2), 7))
    np.testing.assert_allclose(results["w"].sel(learning_rate=0.1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("cell", "arguments", "message"),
    [
        (noisy_sum, {"axes": {"a": [], "b": [1.0]}}, "axis 'a' is empty"),
        (noisy_sum, {"axes": {"a": ["x"], "b": [1.0]}}, "axis 'a' holds 'x'.*static="),
        (noisy_sum, {"axes": {"a": [np.nan], "b": [1.0]}}, "axis 'a' holds nan"),
        (noisy_sum, {"axes": {"a": [2**24 + 1], "b": [1.0]}}, "16777217.*round to 16777216"),
        (noisy_sum, {"axes": {"a": [1.0], "density": [1.0]}}, "no argument 'density'.*a, b"),
        (noisy_sum, {"axes": {"a": [1.0]}}, "needs 'b'"),
        (noisy_sum, {"axes": {("a", "b"): [(1.0,)]}}, "give 2 numbers"),
        (noisy_sum, {"axes": {"a": [1.0], ("b", "a"): [(1.0, 2.0)]}}, "'a' is given twice"),
        (noisy_sum, {"axes": {"a": [1.0], "b": [1.0]}, "num_seeds": 0}, "num_seeds is 0"),
        (noisy_sum, {"axes": {"a": [1.0], "b": [1.0]}, "width": 1}, "width is 1"),
        (noisy_sum, {"axes": {"a": [1.0], "b": [1.0]}, "width": 10**9}, "width is 1000000000"),
        (noisy_sum, {"axes": {"a": [1.0], "b": [1.0]}, "dims": {"z": ()}}, "dims names 'z'"),
        (noisy_sum, {"axes": {"a": [1.0], "b": [1.0]}, "dims": {"y": ("n",)}}, "dims of 'y'"),
        (noisy_sum, {"axes": {"a": [1.0], "b": [1.0]}, "units": {"z": "m"}}, "units names 'z'"),
        (noisy_sum, {"axes": {"a": [1.0]}, "static": {"b": []}}, "static axis 'b' is empty"),
        (noisy_sum, {"axes": {"a": [1.0]}, "static": {"b": [print]}}, "dict of label to value"),
        (lambda key: jnp.zeros(2), {}, "return a dict"),
        (lambda key: {"a": "text"}, {}, "'a' .* is a str"),
        (lambda key: {"a": None}, {}, "'a' .* is None"),
        (lambda key: {}, {}, "empty dict"),
        (lambda key: {1: 2.0}, {}, "named 1"),
        (lambda key: {"encoder/kernel": 2.0}, {}, "'encoder/kernel' cannot be saved"),
        (lambda key: {"a": {"b.c": 2.0}}, {}, "points stand between"),
        (lambda key: {"a.b": 1.0, "a": {"b": 2.0}}, {}, "two outputs are named 'a.b'"),
        (lambda key: {"k": key}, {}, "'k' .* is a key"),
        (lambda key, *, a: {"a": a}, {"axes": {"a": [1.0]}}, "'a' has the name of an axis"),
        (lambda key, *, seed: {"y": seed}, {"axes": {"seed": [1.0]}}, "named 'seed'"),
        (
            noisy_sum,
            {"axes": {"a": [1.0], "b": [1.0]}, "dims": {"pair": ("seed",)}},
            "a name of its own, none of a, b, seed",
        ),
        (
            lambda key: {"x": jnp.zeros(2), "y": jnp.zeros(3)},
            {"dims": {"x": ("n",), "y": ("n",)}},
            "dimension 'n' has length 2 and, in output 'y', 3",
        ),
        (
            lambda key, *, n: {"y": jnp.zeros(n)},
            {"static": {"n": [1, 2]}},
            "'y' changes its shape .*dims=",
        ),
        (
            lambda key, *, density: {"x": tm.SparseUniform(2, density).sample(key, 3)},
            {"axes": {"density": [0.5, 1.5]}},
            r"density is 1.5, outside \(0, 1\]",
        ),
        (
            lambda key, *, steps: {
                "y": optax.cosine_decay_schedule(1.0, steps)(jnp.zeros(()))  # as Optax checks it
            },
            {"axes": {"steps": [10, 20]}},
            "plain number for axis 'steps'.*static=",
        ),
    ],
)
def test_bad_input_names_the_value_and_the_remedy(cell, arguments, message):
    with pytest.raises(InputError, match=message) as error:
        sweep(cell, **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "wrong", [{"dims": {"z": ()}}, {"dims": {"y": ("n",)}}, {"units": {"z": "m"}}]
)
def test_wrong_names_come_to_light_before_anything_runs(wrong):
    with no_blocks(), pytest.raises(InputError):
        sweep(noisy_sum, axes={"a": [1.0], "b": [1.0]}, **wrong)


def test_a_sweep_inside_a_trace_is_refused():
    with pytest.raises(InputError, match="plain Python"):
        jax.jit(lambda: sweep(noisy_sum, axes={"a": [1.0], "b": [1.0]}))()


def test_ctrl_c_keeps_what_was_finished(monkeypatch):
    def interrupted(run, number, *block):
        if number >= 3:
            raise KeyboardInterrupt
        return run(*block)

    monkeypatch.setattr(executables, "devices", lambda: devices()[:1])
    grid = {"axes": {"a": np.arange(20.0), "b": [1.0, 2.0]}, "num_seeds": 2, "width": 8}
    with (
        around_blocks(interrupted),
        pytest.raises(tm.SweepInterrupted, match="24 of 80 cells finished") as interrupt,
    ):
        sweep(noisy_sum, **grid)
    results = interrupt.value.results
    assert int(results["y"].notnull().sum()) == 24
    whole = sweep(noisy_sum, **grid)
    xr.testing.assert_equal(results["y"], whole["y"].where(results["y"].notnull()))


def test_an_impure_cell_is_caught():
    """Copies of one cell in a block must be equal, which the block checks without any cost."""

    def noisy(run, number, seeds, numbers):
        answer = run(seeds, numbers)
        noise = np.arange(len(seeds))
        return answer._replace(outputs={n: out + noise for n, out in answer.outputs.items()})

    with (
        around_blocks(noisy),
        pytest.raises(tm.SweepError, match="fault of the machine or of toymodels"),
    ):
        sweep(lambda key, *, a: {"y": a}, axes={"a": [1.0, 2.0]})


def test_an_impure_callback_is_named():
    """The cell calls a counter in Python, which JAX cannot see."""
    calls = itertools.count()

    def cell(key, *, a):
        kind = jax.ShapeDtypeStruct((), jnp.float32)
        number = jax.pure_callback(
            lambda _: np.float32(next(calls)), kind, a, vmap_method="sequential"
        )
        return {"y": a + number}

    with pytest.raises(tm.SweepError, match="calls back to Python"):
        sweep(cell, axes={"a": [1.0, 2.0, 3.0]})


def test_a_program_is_forgotten_when_its_variant_has_run(monkeypatch):
    """Each program takes 10 MB on each core."""
    programs, alive = [], []

    def compiled(*arguments, **options):
        made = compile_program(*arguments, **options)
        programs.append(weakref.ref(made))
        return made

    def counted(run, number, *block):
        alive.append(sum(each() is not None for each in programs))
        return run(*block)

    monkeypatch.setattr(variants, "compile_program", compiled)
    with around_blocks(counted):
        sweep(lambda key, *, a, b: {"y": a + b}, axes={"a": [1.0]}, static={"b": [1, 2, 3, 4]})
    assert len(programs) == 4
    assert max(alive) <= 2  # that of a thread that has not ended yet


def test_the_ends_of_an_axis_have_what_arrays_have():
    def cell(key, *, a):
        return {"y": a.astype(jnp.int32) + jnp.isfinite(1 / (a - 1))}

    results = sweep(cell, axes={"a": jnp.asarray([1.0, 2.0])})
    assert results["y"].values.tolist() == [[1], [3]]


def test_a_cell_that_is_jitted_already_is_the_cell():
    grid = {"axes": {"a": [1.0, 2.0], "b": [3.0]}, "num_seeds": 2}
    xr.testing.assert_equal(sweep(tm.jit(noisy_sum), **grid), sweep(noisy_sum, **grid))


def test_an_error_without_words_in_a_block_keeps_what_was_finished(monkeypatch):
    def failing(run, number, *block):
        if number >= 1:
            raise RuntimeError
        return run(*block)

    monkeypatch.setattr(executables, "devices", lambda: devices()[:1])
    with around_blocks(failing), pytest.raises(tm.SweepError, match="RuntimeError") as stop:
        sweep(noisy_sum, axes={"a": np.arange(8.0), "b": [1.0]}, width=4)
    assert int(stop.value.results["y"].notnull().sum()) == 4
