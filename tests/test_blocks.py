"""Blocks: their width, their keys, what identifies them, and that each core runs one."""

import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import around_blocks
from hypothesis import given
from hypothesis import strategies as st

import toymodels as tm
from toymodels.engine import devices as devices_module
from toymodels.engine import memory_maps
from toymodels.engine.compiling import environment
from toymodels.engine.devices import devices, least_busy
from toymodels.engine.programs import largest_array
from toymodels.sweeps import blocks, executables, program
from toymodels.sweeps.program import compile_program, run_serialized

pytestmark = pytest.mark.as_users_compile


def largest(num_features, batch, steps=10):
    def cell(key):
        trained = tm.train(
            key,
            tm.ReLUOutput(2),
            tm.Task(tm.SparseUniform(num_features, 0.1)),
            optimizer=optax.adam(1e-3),
            steps=steps,
            batch=batch,
            evaluation=batch,
        )
        return {"loss": trained.loss}

    return largest_array(jax.make_jaxpr(cell)(jax.random.key(0)).jaxpr)


def test_the_largest_array_is_the_batch_of_words_whatever_the_steps():
    assert largest(5, 1024) == 5 * 1024 * 4
    assert largest(5, 1024, steps=100_000) == 5 * 1024 * 4
    assert largest(400, 1024) == 400 * 1024 * 4


def test_without_loops_every_array_counts():
    traced = jax.make_jaxpr(lambda x: jnp.sum(jnp.outer(x, x)))(jnp.zeros(100))
    assert largest_array(traced.jaxpr) == 100 * 100 * 4


@given(st.integers(0, 2**40))
def test_width_is_a_power_of_two_that_fits_and_never_one(size):
    width = program.default_width(size)
    assert width in (2, 4, 8, 16, 32, 64)
    assert width == 2 or width * size <= program.LANE_BYTES
    assert width == 64 or 2 * width * size > program.LANE_BYTES


def test_key_of_a_seed_is_that_of_jax():
    seeds = np.array([0, 1, 2**31 - 1, 2**31, 2**32 - 1])
    data = compile_program(lambda key: {"data": jax.random.key_data(key)}, {}, width=5)
    ours = data.run_block(seeds, {}).outputs["data"]
    for seed, words in zip(seeds, ours, strict=True):
        np.testing.assert_array_equal(words, jax.random.key_data(jax.random.key(int(seed))))


def compiled(factor=1.0, width=4):
    def cell(key, *, a):
        return {"y": factor * a + jax.random.uniform(key)}

    return compile_program(cell, {"a": np.zeros(1)}, width=width)


def test_provenance_is_that_of_the_program_not_of_its_place():
    provenance = compiled().provenance
    assert provenance == compiled().provenance
    for other in (compiled(factor=2.0), compiled(width=8)):
        assert other.provenance is not None
        assert other.provenance["program"] != provenance["program"]


def test_number_of_devices_is_no_part_of_the_environment(monkeypatch):
    before = environment()
    devices = "--xla_force_host_platform_device_count=8"
    monkeypatch.setenv("XLA_FLAGS", f"{before['XLA_FLAGS']} {devices}")
    assert environment() == before
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    assert environment() != before


def test_bytes_of_a_program_give_the_same_bits():
    ours = compiled()
    seeds, numbers = np.arange(4), {"a": np.linspace(0, 1, 4)}
    here = ours.run_block(seeds, numbers)
    there = run_serialized(ours.serialized(), ours.wide_floats, ours.side_by_side, seeds, numbers)
    np.testing.assert_array_equal(here.outputs["y"], there.outputs["y"])
    assert there.environment == environment()


def test_wide_floats_reach_every_thread(x64):
    results = tm.sweep(
        lambda key, *, a: {"y": a / 3}, axes={"a": [1.0, 2.0]}, num_seeds=3, progress=False
    )
    assert results["y"].dtype == np.float64
    assert results["y"].values[0, 0] == 1 / 3


@pytest.mark.parametrize("shares", [1, 3, 12])
def test_lanes_of_a_seed_share_their_draws_and_get_their_own(shares):
    """Each of twelve lanes gets the samples of its own key, if the lanes have 12, 4 or 1 seeds."""

    def cell(key, *, a):
        fitted = tm.fit(
            key,
            jnp.zeros(3),
            lambda w, x: jnp.sum((w - a * x) ** 2),
            lambda key, batch: jax.random.normal(key, (batch, 3)),
            optimizer=optax.sgd(0.1),
            steps=20,
            batch=4,
        )
        return {"w": fitted.params}

    seeds = np.arange(12) // shares
    values = {"a": np.linspace(1, 2, 12)}
    many = compile_program(cell, values, width=12).run_block(seeds, values).outputs["w"]
    for lane in range(12):
        key = jax.random.key(int(seeds[lane]))
        alone = tm.jit(lambda key, a: cell(key, a=a)["w"])(key, values["a"][lane])
        np.testing.assert_allclose(many[lane], alone, rtol=1e-5, atol=1e-6)


def test_blocks_with_decompositions_run_side_by_side():
    """Each core runs one block at a time, and the numbers are those of NumPy."""

    def cell(key, *, a):
        return {"values": jnp.linalg.svd(a * jax.random.normal(key, (3, 4)), compute_uv=False)}

    values = {"a": np.arange(1.0, 5.0)}
    with_lapack = compile_program(cell, values, width=4)
    assert with_lapack.steps == 1  # the loop over the lanes is none of the cell's
    ours = with_lapack.run_block(np.arange(4), values).outputs["values"]
    for seed, a in enumerate(values["a"]):
        matrix = a * np.asarray(jax.random.normal(jax.random.key(seed), (3, 4)))
        np.testing.assert_allclose(ours[seed], np.linalg.svd(matrix)[1], atol=1e-5)


def test_the_least_busy_device_is_lent(monkeypatch):
    monkeypatch.setattr(devices_module, "_devices", lambda: ["first", "second"])
    with least_busy() as one, least_busy() as two, least_busy() as three:
        assert (one, two, three) == (0, 1, 0)
    with least_busy() as one:
        assert one == 0


def test_no_device_is_lent_that_has_no_room_for_the_program(monkeypatch):
    """A sweep in another thread keeps the first device busy, and only that one has room."""
    monkeypatch.setattr(executables, "devices", lambda: [*devices(), devices()[0]])
    ours = compiled()
    ours.executables.num_devices = 1
    with least_busy():
        ours.run_block(np.arange(4), {"a": np.zeros(4)})
    assert ours.executables.num_compiled == 1


def small(key, *, density):
    """Train models whose loops XLA hands to the thread of the device."""
    recipe = tm.Recipe(steps=300, batch=1024, learning_rate=1e-2)
    task = tm.Task(tm.SparseUniform(5, density))
    return recipe.train(key, tm.ReLUOutput(hidden=2), task, evaluation=0).params


def ticks_of_threads():
    """Return the processor time of each thread of this process, in hundredths of a second."""
    stats = [path.read_text() for path in Path("/proc/self/task").glob("*/stat")]
    fields = [(text.split()[0], text.rpartition(")")[2].split()) for text in stats]
    return {thread: int(rest[11]) for thread, rest in fields}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="asks Linux about threads")
def test_two_blocks_run_in_two_threads():
    """Blocks of one device would wait for the thread of the device, which does all the work."""
    if len(devices()) == 1:
        pytest.skip("needs two cores")
    numbers = {"density": np.linspace(0.1, 0.9, 64, dtype=np.float32)}
    ours = compile_program(small, numbers, width=64)

    def run(_):
        ours.run_block(np.zeros(64, int), numbers)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(run, range(2)))  # the second device loads the program
        before = ticks_of_threads()
        list(threads.map(run, range(12)))
        spent = {name: ticks - before.get(name, 0) for name, ticks in ticks_of_threads().items()}
    assert sorted(spent.values())[-2] > 0.2 * sum(spent.values())


def test_other_cores_join_a_sweep_that_lasts(monkeypatch):
    """Cores that have to load the program need longer for that than a short sweep takes."""
    numbers = {"density": np.linspace(0.1, 0.9, 64, dtype=np.float32)}

    def num_devices(seconds):
        monkeypatch.setattr(executables, "LOADING_SECONDS", seconds)
        ours = compile_program(small, numbers, width=2)
        used = []
        with around_blocks(lambda run, _, *block: (run(*block), used.append(compiled_on(ours)))[0]):
            blocks.run(ours, np.zeros(64, int), numbers, lambda *_: None)
        assert compiled_on(ours) == 1  # the memory of the others is free again
        return max(used)

    def compiled_on(program):
        return program.executables.num_compiled

    assert num_devices(1e9) == 1
    assert (num_devices(0.0) > 1) == (len(devices()) > 1)


def test_other_cores_wait_for_as_long_as_they_compile_where_nothing_is_cached(monkeypatch):
    monkeypatch.setattr(executables, "LOADING_SECONDS", 0.0)
    assert compiled().executables.loading_seconds == 0
    monkeypatch.setattr(program, "keeps_programs", lambda: False)
    assert compiled().executables.loading_seconds > 0


@pytest.mark.skipif(not memory_maps.MAPS.exists(), reason="only Linux counts memory maps")
def test_programs_that_are_forgotten_free_their_memory_maps():
    """The programs stay on the first device, and most maps of the second are free again."""
    if len(devices()) == 1:
        pytest.skip("needs two cores")
    kept = [compile_program(small, {"density": np.ones(1)}, width=width) for width in (2, 3, 4)]
    before, loaded = memory_maps.in_use(), 0
    for each in kept:
        start = memory_maps.in_use()
        each.executables.on(1)
        loaded += memory_maps.in_use() - start
        each.executables.keep_first()
    gc.collect()
    assert loaded > 150
    assert memory_maps.in_use() - before < 0.6 * loaded


def test_no_more_devices_load_a_program_than_memory_maps_allow(monkeypatch, tmp_path):
    """Each copy takes at least 500 maps, and half of those that are left may be used."""
    monkeypatch.setattr(executables, "devices", lambda: devices()[:1] * 64)
    monkeypatch.setattr(memory_maps, "LIMIT", tmp_path / "limit")

    def num_devices(left):
        (tmp_path / "limit").write_text(f"{memory_maps.in_use() + left}\n")
        return compile_program(lambda key: {"y": jnp.ones(())}, {}, width=2).executables.num_devices

    assert num_devices(10**6) == 64
    assert num_devices(5500) in (5, 6)
    assert num_devices(0) == 1
    monkeypatch.setattr(memory_maps, "MAPS", tmp_path / "none")  # another system than Linux
    assert num_devices(0) == 64
