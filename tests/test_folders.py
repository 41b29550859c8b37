"""Results in a folder: the same numbers, part by part, in a memory that does not grow."""

import json
import shutil
import tracemalloc
import weakref

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from faults import bits, cell, sweep
from helpers import around_blocks

import toymodels as tm
from toymodels.engine import memory_maps
from toymodels.errors import InputError
from toymodels.sweeps import parts, variants
from toymodels.sweeps.program import compile_program


@pytest.fixture(autouse=True, scope="module")
def small_parts():
    """Parts of at most eight cells, so that a small sweep has several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "PART_CELLS", 8)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_parts):
    """A finished sweep in a folder, and its results."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, sweep(folder=folder)


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of a finished folder."""
    return shutil.copytree(finished[0], tmp_path / "folder")


def as_floats(results):
    """The results with numbers that can be missing."""
    return results.map(lambda a: a.astype(np.result_type(a.dtype, np.float32)))


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_has_the_numbers_of_a_sweep(finished, undisturbed):
    folder, results = finished
    assert bits(results) == bits(as_floats(undisturbed))
    assert {name: str(results[name].attrs) for name in results} == {
        name: str(undisturbed[name].attrs) for name in results
    }
    assert results.attrs["program"] == undisturbed.attrs["program"]
    assert results.attrs["diverged_cells"] == 0
    # 6 x 4 points of 2 seeds in parts of 2 x 4 points of 1 seed
    names = [f"part-{number:06}.nc" for number in range(6)]
    assert files(folder) == [*names, "results.nc"]
    with xr.open_dataset(folder / names[0], engine="h5netcdf") as part:
        assert dict(part.sizes) == {"a": 2, "b": 4, "seed": 1, "x_0": 4}


def test_numbers_are_read_when_they_are_used(folder, undisturbed):
    first = {"a": slice(2), "seed": [0]}
    with xr.open_dataset(folder / "results.nc", engine="h5netcdf") as results:
        for number in range(1, 6):
            (folder / f"part-{number:06}.nc").unlink()  # is not read
        np.testing.assert_array_equal(results["x"].isel(first), undisturbed["x"].isel(first))


def test_a_part_that_is_missing_reads_as_nan_and_is_run_again(folder, undisturbed, ran):
    (folder / "part-000002.nc").unlink()
    with xr.open_dataset(folder / "results.nc", engine="h5netcdf") as results:
        assert int(results["count"].isnull().sum()) == 8
    damaged = folder / "part-000004.nc"
    damaged.write_bytes(damaged.read_bytes()[:500])
    with (
        xr.open_dataset(folder / "results.nc", engine="h5netcdf") as results,
        pytest.raises(OSError, match="truncated file"),
    ):
        results["count"].load()
    assert bits(sweep(folder=folder)) == bits(as_floats(undisturbed))
    assert len(ran) == 16
    ran.clear()
    assert bits(sweep(folder=folder)) == bits(as_floats(undisturbed))
    assert not ran


def test_static_axes_and_padding(tmp_path):
    def widths(key, *, a, hidden):
        return {"w": a * jnp.arange(hidden), "large": a > 1}

    request = {
        "axes": {"a": [0.5, 1.5, 2.5]},
        "static": {"hidden": [1, 3]},
        "dims": {"w": ("h",)},
        "num_seeds": 5,
        "width": 2,
        "units": {"w": "m", "a": "s"},
        "progress": False,
    }
    expected = tm.sweep(widths, **request)
    results = tm.sweep(widths, folder=tmp_path, **request)
    assert bits(results) == bits(as_floats(expected))
    assert len(files(tmp_path)) == 5 + 1  # each part has one seed of both choices
    assert results.h_size.values.tolist() == [1, 3]
    assert (results.w.attrs["units"], results.a.attrs["units"]) == ("m", "s")
    assert json.loads(results.w.attrs["cell_dims"]) == ["h"]


def test_cells_that_diverge_are_counted_over_all_parts(tmp_path):
    def diverging(key, *, a):
        return {"y": jnp.where(a > 3, jnp.nan, a)}

    with pytest.warns(UserWarning, match="2 of 6 cells diverged") as caught:
        results = tm.sweep(
            diverging, axes={"a": range(6)}, num_seeds=2, width=2, progress=False, folder=tmp_path
        )
    assert len(caught) == 2  # one for each part
    assert results.attrs["diverged_cells"] == 4


@pytest.mark.parametrize(
    "change", [{"num_seeds": 3}, {"width": 16}, {"axes": {"a": [1], "b": [2]}}]
)
def test_a_folder_holds_one_sweep(finished, change, ran):
    folder, _ = finished
    before = files(folder)
    with pytest.raises(InputError, match=r"belongs to another sweep: .*: give another folder"):
        sweep(folder=folder, **change)
    assert not ran
    assert files(folder) == before


def test_what_cannot_be_a_folder_is_refused(tmp_path, ran):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file: File exists: give the path of a folder"):
        sweep(folder=tmp_path / "file")
    assert not ran


def test_complex_numbers_are_refused_before_anything_runs(tmp_path):
    with pytest.raises(InputError, match="output 'z' is complex"):
        tm.sweep(
            lambda key, *, a: {"z": a * jnp.complex64(1j)},
            axes={"a": [1.0]},
            folder=tmp_path,
            progress=False,
        )
    assert files(tmp_path) == []


def test_a_process_that_writes_the_same_part_does_not_disturb(tmp_path):
    path = tmp_path / "part.nc"

    def write(file):
        file.write_text("half")
        parts._replace(path, lambda other: other.write_text("that of another process"))
        file.write_text("whole")

    parts._replace(path, write)
    assert path.read_text() == "whole"
    assert files(tmp_path) == ["part.nc"]


def test_a_block_that_fails_keeps_the_parts_before_it(tmp_path, undisturbed, monkeypatch):
    def fails(run, number, seeds, numbers):
        if seeds[0] == 1:
            raise MemoryError
        return run(seeds, numbers)

    with around_blocks(fails), pytest.raises(tm.SweepError, match="24 of 48 cells") as caught:
        sweep(folder=tmp_path)
    assert f"run the same sweep again to go on with those that are in {tmp_path}" in str(
        caught.value
    )
    partial = caught.value.results
    assert bits(partial) == bits(as_floats(undisturbed).where(undisturbed.seed == 0))
    assert bits(sweep(folder=tmp_path)) == bits(as_floats(undisturbed))


def test_a_folder_and_a_store(tmp_path, undisturbed, ran):
    sweep(store=tmp_path / "store.db", num_seeds=1)
    ran.clear()
    results = sweep(store=tmp_path / "store.db", folder=tmp_path / "folder")
    assert len(ran) == 24
    assert bits(results) == bits(as_floats(undisturbed))


def test_memory_does_not_grow_with_the_number_of_cells(tmp_path, monkeypatch):
    """Eight times as many cells need the memory of one part, and in memory eight times as much."""
    monkeypatch.setattr(parts, "PART_CELLS", 2**13)

    def traced(run, number, *block):
        if not tracemalloc.is_tracing():  # the first block; to trace the cell is slow
            tracemalloc.start()
        return run(*block)

    def peak(num_seeds, **folder):
        request = {"axes": {"a": np.linspace(0, 1, 64), "b": np.linspace(1, 2, 64)}, "width": 4096}
        try:
            with around_blocks(traced):
                tm.sweep(cell, num_seeds=num_seeds, progress=False, **request, **folder)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = peak(4, folder=tmp_path / "few"), peak(16, folder=tmp_path / "many")
    assert many < 1.3 * few
    assert peak(16) > 1.5 * few


def test_programs_of_many_static_values_are_forgotten_when_memory_maps_are_scarce(
    monkeypatch, tmp_path
):
    """Linux would end a process that has a program for each of many static values."""

    def powers(key, *, a, b, power):
        return {"y": a**power + b}

    def numbers(limit):
        """Return the results, and the largest number of older programs when one was compiled."""
        (tmp_path / "limit").write_text(f"{limit}\n")
        made, older = [], []

        def recorded(*arguments, **options):
            older.append(sum(program() is not None for program in made))
            program = compile_program(*arguments, **options)
            made.append(weakref.ref(program))
            return program

        monkeypatch.setattr(variants, "compile_program", recorded)
        results = sweep(powers, static={"power": [1, 2, 3]}, folder=tmp_path / f"{limit}")
        return bits(results), max(older)

    monkeypatch.setattr(memory_maps, "MAPS", tmp_path / "maps")
    (tmp_path / "maps").write_text("a map\n" * 10)
    monkeypatch.setattr(memory_maps, "LIMIT", tmp_path / "limit")
    kept, together = numbers(10**6)
    forgotten, alone = numbers(20)
    assert together == 2
    assert alone == 0
    assert forgotten == kept
