"""A disk that is full, closed or damaged costs no finished cell and gives no wrong number."""

import contextlib
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import tempfile
import warnings
from pathlib import Path

import jax
import pytest
from faults import CELLS, bits, child, held, output, right, say, sweep
from helpers import around_blocks, slowly

import toymodels as tm
from toymodels.errors import InputError
from toymodels.sweeps.store import store as module
from toymodels.sweeps.store.refusals import StoreError
from toymodels.sweeps.store.store import Store


def wide_cell(key, *, a, b):
    """A cell whose outputs take 2 kB."""
    x = a + b * jax.random.uniform(key, (512,))
    return {"x": x, "y": x.sum()}


def runs_out_of_room(path, limit):
    """Sweep in a process whose system lets no file grow beyond `limit`."""
    import resource

    expected = sweep(wide_cell, width=2)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        with around_blocks(slowly):
            sweep(wide_cell, width=2, store=path)
    except tm.SweepError as error:
        say(str(error), right(error.results, expected))


def assert_full(message, path, finished):
    assert f"cannot write {path}: " in message
    assert "free some space" in message or "check the disk and its free space" in message
    assert "run the same sweep again: finished cells are kept" in message
    assert f"{finished} of {CELLS} cells finished" in message


@pytest.mark.parametrize("limit", [50_000, 85_000])
def test_a_limit_on_the_size_of_a_file_loses_no_stored_cell(path, limit, ran):
    pytest.importorskip("resource")
    process = child(runs_out_of_room, str(path), limit, JAX_ENABLE_COMPILATION_CACHE="0")
    (line,) = output(process)
    message, finished = json.loads(line)
    assert_full(message, path, finished)
    stored = held(path)
    assert 0 < stored < finished < CELLS
    results = sweep(wide_cell, width=2, store=path)
    assert len(ran) == CELLS - stored
    assert bits(results) == bits(sweep(wide_cell, width=2))


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 120 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=120k", "none", str(disk)]
    with contextlib.suppress(OSError):
        if not subprocess.run(mount, capture_output=True).returncode:
            yield disk
            subprocess.run(["umount", "--lazy", str(disk)], check=True)
            return
    pytest.skip("may not mount a small disk")


def test_a_full_disk_loses_no_stored_cell(small_disk, ran, slow):
    path = small_disk / "store.db"
    expected = sweep(wide_cell, width=2)
    stored = 0
    for _ in range(2):
        ran.clear()
        with pytest.raises(tm.SweepError) as caught:
            sweep(wide_cell, width=2, store=path)
        finished = right(caught.value.results, expected)
        assert finished == stored + len(ran)
        assert_full(str(caught.value), path, finished)
        assert 0 < held(path) < finished < CELLS
        assert held(path) >= stored
        stored = held(path)
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    ran.clear()
    assert bits(sweep(wide_cell, width=2, store=path)) == bits(expected)
    assert len(ran) == CELLS - stored
    assert [file.name for file in small_disk.iterdir()] == ["store.db"]


def test_a_disk_without_any_room_is_noticed_before_anything_runs(small_disk, ran):
    with contextlib.suppress(OSError):
        (small_disk / "other").write_bytes(bytes(200_000))
    with pytest.raises(StoreError, match=f"cannot write {small_disk}/store.db: .*space"):
        sweep(store=small_disk / "store.db")
    assert ran == []


def test_a_message_does_not_say_that_cells_are_stored_that_are_not(path, monkeypatch):
    def full(self, *_):
        raise StoreError(f"cannot write {self.path}")

    monkeypatch.setattr(Store, "write", full)
    with pytest.raises(tm.SweepError) as caught:
        sweep(store=path)
    assert held(path) == 0
    assert f"those that are in {path}" in str(caught.value)  # whichever they are


@contextlib.contextmanager
def nobody(*closed):
    """Be another user, who may not write the closed paths; permissions do not bind root."""
    for path, mode in closed:
        path.chmod(mode)
    root = not os.geteuid()
    if root:
        try:
            os.seteuid(65534)
        except OSError:
            pytest.skip("cannot be another user")
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for path, _ in closed:
            path.chmod(0o755)


@pytest.mark.parametrize(
    ("folder_mode", "file_mode"), [(0o555, None), (0o555, 0o666), (0o777, 0o444)]
)
def test_what_may_not_be_written_is_refused_before_anything_runs(
    folder_mode, file_mode, ran, undisturbed
):
    with tempfile.TemporaryDirectory() as name:  # others may enter its parents, unlike tmp_path
        folder, closed = Path(name), [(Path(name), folder_mode)]
        path = folder / "store.db"
        if file_mode is not None:
            sweep(store=path, num_seeds=1)
            closed.append((path, file_mode))
        ran.clear()
        with nobody(*closed), pytest.raises(InputError) as caught:
            sweep(store=path)
        assert f"cannot write {path}: " in str(caught.value)
        assert "make the file and its folder writable, or give another path" in str(caught.value)
        assert ran == []
        assert bits(sweep(store=path)) == bits(undisturbed)
        assert len(ran) == (CELLS if file_mode is None else CELLS // 2)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("folder", "folder is a folder: give the path of a file in it"),
        ("file/store.db", "file/store.db: .*: give the path of a file in a folder that is yours"),
        ("file", "file is no store of finished cells and is left as it is: give another path"),
        ("database", "database is no store of finished cells .*: give another path"),
    ],
)
def test_a_path_that_leads_to_something_else_is_refused_before_anything_runs(
    tmp_path, ran, place, message
):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("density,loss\n0.1,0.2\n")
    with contextlib.closing(sqlite3.connect(tmp_path / "database")) as database:
        database.execute("CREATE TABLE cells (important)")
        database.commit()
    before = {file: file.is_file() and file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(InputError, match=message) as caught:
        sweep(store=tmp_path / place)
    assert str(tmp_path / place) in str(caught.value)
    assert ran == []
    assert {file: file.is_file() and file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_file_that_another_process_holds_is_refused_before_anything_runs(
    path, ran, monkeypatch, undisturbed
):
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    sweep(store=path, num_seeds=1)
    ran.clear()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match=f"{path}: database is locked; end the process"):
            sweep(store=path)
    assert ran == []
    assert bits(sweep(store=path)) == bits(undisturbed)


def test_a_truncated_store_is_filled_again(path, undisturbed, ran):
    for fraction in (0.2, 0.5, 0.8, 0.99):
        sweep(store=path)
        os.truncate(path, int(path.stat().st_size * fraction))
        ran.clear()
        with pytest.warns(UserWarning, match="was damaged: [0-9]+ cells could be read") as caught:
            assert bits(sweep(store=path)) == bits(undisturbed)
        (warning,) = caught
        kept = int(re.search(r"(\d+) cells could be read", str(warning.message))[1])
        assert len(ran) == CELLS - kept
        assert kept < CELLS or fraction > 0.5
        assert held(path) == CELLS


def test_a_flipped_bit_is_run_again(path, undisturbed, ran):
    sweep(store=path)
    flipped = undisturbed.isel(a=2, b=1, seed=1)
    data = bytearray(path.read_bytes())
    data[data.index(flipped["x"].values.tobytes()) + 5] ^= 4
    path.write_bytes(data)
    ran.clear()
    named = f"1 of 48 cells are damaged .* is seed=1 a={float(flipped.a)} b={float(flipped.b)}"
    with pytest.warns(UserWarning, match=named) as caught:
        assert bits(sweep(store=path)) == bits(undisturbed)
    assert len(caught) == 1
    assert len(ran) == 1
    assert held(path) == CELLS
    assert bits(sweep(store=path)) == bits(undisturbed)


def test_any_flipped_bit_gives_the_same_sweep(path, undisturbed):
    sweep(store=path)
    whole = path.read_bytes()
    chance = random.Random(0)
    for _ in range(8):
        data = bytearray(whole)
        for _ in range(5):
            data[chance.randrange(100, len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        with warnings.catch_warnings():  # for what is hit may be empty
            warnings.simplefilter("ignore")
            assert bits(sweep(store=path)) == bits(undisturbed)
            with Store(path) as store:
                store.verify()  # finds damage where no cell is read, and repairs
            assert bits(sweep(store=path)) == bits(undisturbed)
        assert held(path) == CELLS
