"""Blocks that fail and cells that diverge: the message says how to go on, and nothing is lost."""

import queue
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from faults import CELLS, bits, held, sweep
from helpers import around_blocks

import toymodels as tm
from toymodels.errors import InputError

pytestmark = pytest.mark.as_users_compile


def hungry_cell(key, *, a, b, size):
    """A cell that sorts a square of numbers.

    A square of 2**22 by 2**22 numbers needs 64 TiB, which no machine has.
    """
    line = jnp.arange(float(size))
    square = jnp.sin(jax.random.uniform(key) * (a * line[:, None] + b * line[None]))
    return {"y": jnp.sort(square, axis=0)[-1].sum()}


def test_a_block_without_memory_names_its_width(path, ran):
    few = sweep(hungry_cell, static={"size": [4]})
    ran.clear()
    for store, run in ((None, CELLS), (path, CELLS), (path, 0)):
        with pytest.raises(tm.SweepError) as caught:
            sweep(hungry_cell, static={"size": [4, 2**22]}, store=store)
        message = str(caught.value)
        assert "a block of 8 cells ran out of memory: give sweep(width=4) or less" in message
        assert "RESOURCE_EXHAUSTED" in message
        assert f"{CELLS} of {2 * CELLS} cells finished" in message
        results = caught.value.results
        assert bits(results.sel(size=[4])) == bits(few)
        assert results.sel(size=2**22)["y"].isnull().all()
        assert results.attrs["block_width"] == 8
        assert len([lane for lane in ran if len(lane) == 3]) >= run
        ran.clear()
    assert held(path) == CELLS


def test_a_block_that_fails_as_an_empty_queue_does_ends_the_sweep():
    """A worker that waits for its work in a queue may raise this error, too."""
    caught = []

    def fail(run, number, *block):
        raise queue.Empty

    def ended():
        try:
            sweep()
        except tm.SweepError as error:
            caught.append(error)

    with around_blocks(fail):
        thread = threading.Thread(target=ended, daemon=True)  # which would wait for ever
        thread.start()
        thread.join(60)
    assert len(caught) == 1


def test_a_block_without_memory_does_not_advise_its_own_width():
    with pytest.raises(tm.SweepError, match="ran out of memory") as caught:
        sweep(hungry_cell, static={"size": [2**22]}, width=2)
    assert "give sweep(width=2)" not in str(caught.value)


def test_a_variant_that_cannot_be_traced_loses_nothing_of_those_before(ran):
    """The variant is refused before anything runs, or the results of what ran are kept."""

    def cell(key, *, a, b, kind):
        return {"y": a if kind == "good" or a > b else b}

    with pytest.raises((InputError, tm.SweepError)) as caught:
        sweep(cell, static={"kind": ["good", "bad"]})
    assert not ran or hasattr(caught.value, "results")


def test_a_cell_that_prints_runs_and_is_not_stored(path, capfd):
    def cell(key, *, a, b):
        jax.debug.print("a is {}", a)
        return {"y": a + b}

    with pytest.raises(InputError, match=r"calls back to Python.*sweep without store="):
        sweep(cell, store=path)
    results = sweep(cell)
    np.testing.assert_array_equal(results["y"].sel(a=1.0, b=10.0), [11, 11])
    assert "a is 0.2" in capfd.readouterr().out


def diverging_cell(key, *, learning_rate):
    trained = tm.fit(
        key,
        jnp.array(2.0),
        lambda w, x: (w * x - 1) ** 2,
        lambda key, batch: 1 + 0.1 * jax.random.normal(key, (batch,)),
        optimizer=optax.sgd(learning_rate),
        steps=100,
        batch=4,
    )
    return {"y": trained.params, "kind": jnp.int32(7)}


def test_a_diverging_cell_is_stored_as_it_is(path, ran):
    grid = {"axes": {"learning_rate": [0.05, 0.1, 50.0]}, "width": 4}
    calm = sweep(diverging_cell, **{**grid, "axes": {"learning_rate": [0.05, 0.1]}})
    named = r"2 of 6 cells diverged and are NaN .*: learning_rate=50.0 seed=0; .*=50.0 seed=1$"
    ran.clear()
    seen = []
    for run in (6, 0, 0):
        with pytest.warns(UserWarning, match=named) as caught:
            seen.append(bits(sweep(diverging_cell, **grid, store=path)))
        assert len(caught) == 1
        assert len(ran) == run
        ran.clear()
    assert seen[0] == seen[1] == seen[2]
    assert held(path) == 6
    assert bits(sweep(diverging_cell, **{**grid, "axes": {"learning_rate": [0.05, 0.1]}})) == bits(
        calm
    )
    ran.clear()
    few = {**grid, "axes": {"learning_rate": [0.1, 0.05]}}
    stored = sweep(diverging_cell, **few, store=path)
    assert bits(stored.isel(learning_rate=[1, 0])) == bits(calm)
    assert ran == []


def test_a_clock_that_runs_backwards(path, monkeypatch, undisturbed, capfd):
    for name in ("time", "perf_counter", "monotonic"):
        clock = iter(range(10**9, 0, -100))
        monkeypatch.setattr(time, name, lambda clock=clock: float(next(clock)))
    results = sweep(store=path, progress=True)
    again = sweep(store=path)
    monkeypatch.undo()
    assert bits(results) == bits(again) == bits(undisturbed)
    assert held(path) == CELLS
