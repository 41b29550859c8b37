"""Whatever ends a sweep: what was finished is kept, and to run it again gives the same bits."""

import concurrent.futures
import contextlib
import hashlib
import importlib.metadata
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import toymodels as tm
from toymodels.engine import compiling
from toymodels.errors import InputError
from toymodels.sweeps import blocks
from toymodels.sweeps.store import store as module
from toymodels.sweeps.store.store import Store, StoreError

AXES = {"a": np.linspace(0.0, 1.0, 6), "b": np.geomspace(0.1, 10.0, 4)}
GRID = {"axes": AXES, "num_seeds": 2, "width": 8}
CELLS = 48
# So many blocks of so few cells that a process is mostly killed while it writes.
MANY = {"axes": {"a": np.linspace(0.0, 1.0, 250), "b": [0.5, 2.0]}, "num_seeds": 2, "width": 2}
KILLS = 26  # of each of two processes


def cell(key, *, a, b):
    """Chaotic, so that one wrong bit of the key or a number would show in the end."""
    start = jax.random.uniform(key, (4,))
    x = jax.lax.fori_loop(0, 50, lambda _, x: (3.7 + 0.2 * a) * x * (1 - x), start)
    return {"x": b * x, "y": b * x.sum(), "count": jnp.int32(jnp.round(100 * a))}


def changed_cell(key, *, a, b):
    return {**cell(key, a=a, b=b), "count": jnp.int32(7)}


changed_cell.__qualname__ = "cell"  # the same function, edited


def wide_cell(key, *, a, b):
    """Of 2 kB."""
    x = a + b * jax.random.uniform(key, (512,))
    return {"x": x, "y": x.sum()}


def sweep(cell=cell, **arguments):
    return tm.sweep(cell, **{"progress": False, **GRID, **arguments})


def bits(results):
    """Dimensions, type and bytes of all variables and coordinates."""
    return {
        str(name): (variable.dims, str(variable.dtype), variable.values.tobytes())
        for name, variable in results.variables.items()
    }


def digest(results):
    return hashlib.sha256(repr(sorted(bits(results).items())).encode()).hexdigest()


def right(results, expected):
    """How many cells finished, all of which are as in an undisturbed sweep."""
    finished = results["y"].notnull()
    assert bits(results) == bits(expected if finished.all() else expected.where(finished))
    return int(finished.sum())


def held(path):
    """How many cells a store holds, all of which check."""
    with Store(path, create=False) as store:
        cells, set_aside, copies = store.verify()
    assert set_aside == 0
    assert copies == ()
    return cells


def child(function, *arguments, **environment):
    """A process that calls a function of this file."""
    return subprocess.Popen(
        [sys.executable, "-c", f"import test_faults\ntest_faults.{function}(*{arguments!r})"],
        env={**os.environ, "PYTHONPATH": os.path.dirname(__file__), **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output(process):
    """What it printed, line by line, after it ended well."""
    with process:
        lines = list(process.stdout)  # `communicate` would miss what has been read ahead
        assert process.wait() == 0, process.stderr.read()
    return lines


def say(*values):
    """At once and whole, from any thread."""
    os.write(1, f"{json.dumps(values)}\n".encode())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


@pytest.fixture(scope="module")
def undisturbed():
    return sweep()


@pytest.fixture
def ran(monkeypatch):
    """Seed and numbers of each lane that was run, twice if it was run in two blocks."""
    lanes_run = []
    call = blocks.Program.__call__

    def counted(self, number, seeds, lanes):
        numbers = [lanes[name].tolist() for name in sorted(lanes)]
        lanes_run.extend(dict.fromkeys(zip(seeds.tolist(), *numbers, strict=True)))
        assert len(seeds) == self.width
        return call(self, number, seeds, lanes)

    monkeypatch.setattr(blocks.Program, "__call__", counted)
    return lanes_run


@pytest.fixture
def slow(ran, monkeypatch):
    """Blocks that take their time, so that some have not begun when others are stored."""
    call = blocks.Program.__call__

    def slowed(self, *block):
        time.sleep(0.02)
        return call(self, *block)

    monkeypatch.setattr(blocks.Program, "__call__", slowed)


# Killed.


def sweeps_until_killed(path, tell):
    """Tells when it starts and when the first block runs."""
    call = blocks.Program.__call__

    def telling(self, *block):
        os.write(tell, b"running\n")
        blocks.Program.__call__ = call
        return call(self, *block)

    blocks.Program.__call__ = telling
    os.write(tell, b"started\n")
    sweep(**MANY, store=path)
    os._exit(0)


def is_killed_again_and_again(folder, seed):
    """Forks before JAX starts anything, so that a turn does not cost an import."""
    warnings.simplefilter("ignore")  # of JAX about the fork
    chance = random.Random(seed)
    number = kills = 0
    while True:
        path = Path(folder, f"{number}.db")
        listen, tell = os.pipe()
        if not (process := os.fork()):
            sweeps_until_killed(path, tell)
        os.close(tell)
        with os.fdopen(listen) as phases:
            phases.readline()
            if chance.random() < 0.75:
                phases.readline()

            if kills < KILLS:
                time.sleep(chance.uniform(0, 0.3))
                os.kill(process, signal.SIGKILL)
            _, status = os.waitpid(process, 0)
        killed = os.WIFSIGNALED(status)
        assert killed or status == 0
        say(number, killed, *looked_at(path))
        kills += killed
        if not killed and kills >= KILLS:
            return
        number += not killed  # it was done before it could be killed


def looked_at(path):
    """Whether it was cut off in a write, and its cells: of a copy, for to look is to repair."""
    if not path.exists():
        return False, 0
    journal = Path(f"{path}-journal")
    with tempfile.TemporaryDirectory() as folder:
        for file in (path, journal):
            if file.exists():
                shutil.copy(file, folder)
        with Store(Path(folder, path.name)) as copy:
            cells, set_aside, copies = copy.verify()
    assert set_aside == 0
    assert copies == ()
    return journal.exists(), cells


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_that_is_killed_loses_no_stored_cell(tmp_path, ran):
    expected = sweep(**MANY)
    assert len(ran) == 1000
    ran.clear()
    processes = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        # A cache of its own, for it is killed while it writes that as well.
        cache = {
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        processes.append(child("is_killed_again_and_again", str(folder), seed, **cache))
    kills = in_a_write = 0
    for seed, process in enumerate(processes):
        turns = [json.loads(line) for line in output(process)]
        before = {}
        for number, killed, cut, cells in turns:
            assert before.get(number, 0) <= cells
            before[number] = cells
            kills += killed
            in_a_write += cut
        assert set(before.values()) == {1000}
        for number in before:
            path = tmp_path / str(seed) / f"{number}.db"
            assert held(path) == 1000
            assert bits(sweep(**MANY, store=path)) == bits(expected)
        names = {file.name for file in (tmp_path / str(seed)).iterdir()}
        assert names == {"compiled", *(f"{number}.db" for number in before)}
    assert kills >= 50
    assert in_a_write > 0
    assert ran == []


def compiles_from_a_damaged_cache(folder):
    """Cut off, as by the kill of a process that wrote it: JAX writes it in place."""
    digests = [digest(sweep())]
    for file in Path(folder).glob("*-cache"):
        os.truncate(file, file.stat().st_size // 2)
    jax.clear_caches()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        digests.append(digest(sweep()))
    say(*digests, *(str(warning.message) for warning in caught))


def test_a_damaged_cache_of_compiled_programs_changes_no_number(tmp_path, undisturbed):
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    (line,) = output(child("compiles_from_a_damaged_cache", str(tmp_path), **cache))
    before, after, *messages = json.loads(line)
    assert before == after == digest(undisturbed)
    assert messages
    assert all("Error reading persistent compilation cache" in message for message in messages)


# Interrupted.


def is_interrupted(path, quick_blocks, seconds):
    """Says when a block begins and ends, and what is left; later blocks are slow."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` ignores it
    call = blocks.Program.__call__

    def slow(self, number, *block):
        say("begins", number)
        time.sleep(seconds if number >= quick_blocks else 0.05)
        answer = call(self, number, *block)
        say("ends", number)
        return answer

    blocks.Program.__call__ = slow
    try:
        sweep(store=path)
    except tm.SweepInterrupted as interrupt:
        blocks.Program.__call__ = call
        say("interrupted", str(interrupt), digest(interrupt.results))
        raise


def wait_for(stream, *words):
    """The lines up to the one that has all words."""
    lines = []
    for line in stream:
        lines.append(line)
        if all(word in line for word in words):
            return lines
    raise AssertionError(f"ended without {words}: {lines}")


def test_ctrl_c_waits_for_the_blocks_that_run(path, ran, undisturbed):
    with child("is_interrupted", str(path), 0, 0.5) as process:
        lines = wait_for(process.stdout, "ends")  # two more have begun, two have not
        process.send_signal(signal.SIGINT)
        said = [json.loads(line) for line in [*lines, *process.stdout]]
        told = process.stderr.read()
    assert process.returncode == 1
    assert re.search(r"finishing \d blocks that are running \([^)]*\d+ s[^)]*\); Ctrl-C", told)
    assert "toymodels.sweeps.sweep.SweepInterrupted: interrupted; " in told
    begun, ended = ({number for word, number, *_ in said if word == w} for w in ("begins", "ends"))
    assert begun == ended
    (message, seen) = said[-1][1:]
    cells = 8 * len(begun)
    assert cells < CELLS
    assert f"{cells} of {CELLS} cells finished" in message
    assert f"run the same sweep again to go on with those that are in {path}" in message
    assert held(path) == cells
    assert bits(sweep(store=path)) == bits(undisturbed)
    assert len(ran) == CELLS - cells
    finished = np.ones((2, 24), bool)
    for lane in ran:
        finished[lane[0], list_of_points().index(lane[1:])] = False
    partial = undisturbed.where(as_results(finished, undisturbed))
    assert seen == digest(partial)


def list_of_points():
    return [(np.float32(a), np.float32(b)) for a in AXES["a"] for b in AXES["b"]]


def as_results(finished, results):
    shaped = finished.reshape(2, 6, 4).transpose(1, 2, 0)
    return results["y"].copy(data=shaped)


@pytest.fixture(scope="module")
def interrupted_twice(tmp_path_factory):
    """Store, message, digest, seconds to the exception and to the end of the process."""
    path = tmp_path_factory.mktemp("twice") / "store.db"
    with child("is_interrupted", str(path), 3, 4.0) as process:
        wait_for(process.stdout, "begins", "4")  # after three quick ones: two at once
        process.send_signal(signal.SIGINT)
        wait_for(process.stderr, "Ctrl-C again goes on without")
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        started = time.perf_counter()
        *_, line = wait_for(process.stdout, "interrupted")
        raised = time.perf_counter() - started
        process.wait()
        exited = time.perf_counter() - started
    return path, *json.loads(line)[1:], raised, exited


def test_ctrl_c_twice_leaves_the_blocks_that_run(interrupted_twice, ran, undisturbed):
    path, message, _, raised, _ = interrupted_twice
    assert raised < 1.5
    assert f"24 of {CELLS} cells finished" in message
    assert held(path) == 24
    assert bits(sweep(store=path)) == bits(undisturbed)
    assert len(ran) == 24


def test_ctrl_c_without_a_store_keeps_what_was_finished(monkeypatch, ran, undisturbed):
    call = blocks.Program.__call__

    def interrupted(self, number, *block):
        if number == 4:
            raise KeyboardInterrupt
        return call(self, number, *block)

    monkeypatch.setattr(blocks.Program, "__call__", interrupted)
    with pytest.raises(
        tm.SweepInterrupted, match=r"of 48 cells finished.*others are NaN"
    ) as caught:
        sweep()
    assert right(caught.value.results, undisturbed) in range(24, len(ran) + 1)


def test_an_interrupt_before_a_block_is_listened_to_loses_nothing(monkeypatch, slow):
    """As Ctrl-C may come between the start of a block and the call that waits for its end."""
    add = concurrent.futures.Future.add_done_callback

    def interrupted(self, callback):
        monkeypatch.setattr(concurrent.futures.Future, "add_done_callback", add)
        raise KeyboardInterrupt

    monkeypatch.setattr(concurrent.futures.Future, "add_done_callback", interrupted)
    with pytest.raises(tm.SweepInterrupted, match=r"of 48 cells finished"):
        sweep()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer")
# Python drops an interrupt that comes within a callback of its collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_at_any_moment(path, ran, slow):
    """Also in the middle of a transaction: the timer raises it wherever Python is."""
    grid = {"axes": {**AXES, "a": np.linspace(0, 1, 20)}, "width": 2}  # 80 blocks
    expected = sweep(**grid)
    chance = random.Random(0)
    cells, interrupts = 0, 0
    slowed = blocks.Program.__call__

    def interrupt(*_):
        raise KeyboardInterrupt

    def armed(self, *block):
        blocks.Program.__call__ = slowed
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-3, 0.2))
        return slowed(self, *block)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        while True:
            blocks.Program.__call__ = armed
            try:
                results = sweep(**grid, store=path)
                break
            except tm.SweepInterrupted as interrupted:
                partial = interrupted.results
            except KeyboardInterrupt:  # after the last block
                continue
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                blocks.Program.__call__ = slowed
            interrupts += 1
            assert right(partial, expected) == held(path) >= cells
            cells = held(path)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert interrupts > 3
    assert bits(results) == bits(expected)
    assert held(path) == 160


# No room.


def runs_out_of_room(path, limit):
    """The system lets no file grow beyond `limit`."""
    import resource

    expected = sweep(wide_cell, width=2)
    call = blocks.Program.__call__
    blocks.Program.__call__ = lambda *block: (time.sleep(0.02), call(*block))[1]
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        sweep(wide_cell, width=2, store=path)
    except tm.SweepError as error:
        say(str(error), right(error.results, expected))


def assert_full(message, path, finished):
    assert f"cannot write {path}: " in message
    assert "free some space" in message or "look after the disk and its free space" in message
    assert "run the same sweep again: finished cells are kept" in message
    assert f"{finished} of {CELLS} cells finished" in message


@pytest.mark.parametrize("limit", [50_000, 85_000])
def test_a_file_that_may_not_grow(path, limit, ran):
    pytest.importorskip("resource")
    process = child("runs_out_of_room", str(path), limit, JAX_ENABLE_COMPILATION_CACHE="0")
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
    """Of 120 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=120k", "none", str(disk)]
    with contextlib.suppress(OSError):
        if not subprocess.run(mount, capture_output=True).returncode:
            yield disk
            subprocess.run(["umount", "--lazy", str(disk)], check=True)
            return
    pytest.skip("may not mount a small disk")


def test_a_full_disk(small_disk, ran, slow):
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


# Paths that cannot be used.


@contextlib.contextmanager
def nobody(*closed):
    """What belongs to another, and may not be written; permissions do not bind root."""
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


# Shared.


def sweeps_when_told(path):
    say("ready")
    sys.stdin.readline()
    say(digest(sweep(store=path)))


def test_two_processes_sweep_into_one_store(path, undisturbed, ran):
    processes = [child("sweeps_when_told", str(path)) for _ in range(2)]
    for process in processes:
        wait_for(process.stdout, "ready")
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        assert json.loads(output(process)[-1]) == [digest(undisturbed)]
    assert held(path) == CELLS
    with Store(path) as store:
        assert len(store.programs()) == 1
    assert bits(sweep(store=path)) == bits(undisturbed)
    assert ran == []


# Damaged.


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


# Blocks that fail.


def hungry_cell(key, *, a, b, size):
    """Sorts a square of numbers: one of 2**22 by 2**22 needs 64 TiB, more than there are."""
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


def test_a_block_without_memory_does_not_advise_its_own_width():
    with pytest.raises(tm.SweepError, match="ran out of memory") as caught:
        sweep(hungry_cell, static={"size": [2**22]}, width=2)
    assert "give sweep(width=2)" not in str(caught.value)


def test_a_variant_that_cannot_be_traced_loses_nothing_of_those_before():
    """It is refused before anything runs, or what ran is in `results`."""
    ran_before = []

    def cell(key, *, a, b, kind):
        return {"y": a if kind == "good" or a > b else b}

    call = blocks.Program.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            blocks.Program, "__call__", lambda *block: (ran_before.append(1), call(*block))[1]
        )
        with pytest.raises((InputError, tm.SweepError)) as caught:
            sweep(cell, static={"kind": ["good", "bad"]})
    assert not ran_before or hasattr(caught.value, "results")


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


# Changed.


@contextlib.contextmanager
def changed(what, monkeypatch):
    """Another way to sweep, which may differ in bits."""
    environment, version = blocks.environment, importlib.metadata.version
    with monkeypatch.context() as patch:
        arguments = {}
        match what:
            case "program":
                arguments = {"cell": changed_cell}
            case "width":
                arguments = {"width": 16}
            case "axes":
                arguments = {"axes": dict(reversed(AXES.items()))}
            case "processor":
                patch.setattr(blocks, "environment", lambda: {**environment(), what: "Z80"})
            case "version":
                other = {"optax": "9.9.9"}
                patch.setattr(
                    importlib.metadata, "version", lambda name: other.get(name) or version(name)
                )
            case "flags":
                patch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_min_max=true")
            case "number of devices":
                patch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=7")
            case "options":
                slow = {"cpu": {"xla_cpu_enable_fast_math": False}}
                patch.setattr(compiling, "_OPTIONS", slow)
        yield arguments


@pytest.mark.parametrize(
    ("what", "names", "then", "now"),
    [
        ("program", {"program"}, "", ""),
        ("width", {"block width", "program"}, "8", "16"),
        ("axes", {"axes"}, "a, b", "b, a"),
        ("processor", {"processor"}, "86", "Z80"),
        ("version", {"versions"}, "optax=", "optax=9.9.9"),
        ("flags", {"XLA_FLAGS"}, "", "--xla_cpu_enable_fast_min_max=true"),
        ("options", {"compiler options"}, "true", "false"),
    ],
)
def test_what_changes_bits_is_named_and_never_mixed(
    what, names, then, now, path, ran, monkeypatch, undisturbed
):
    sweep(store=path)
    ran.clear()
    with changed(what, monkeypatch) as arguments:
        kept = "48 cells of 'test_faults.cell' that are kept and not used, for something changed"
        with pytest.warns(UserWarning, match=kept) as caught:
            other = sweep(**arguments, store=path)
        (warning,) = caught
        _, changes = str(warning.message).split("something changed: ")
        parts = [part.partition(" was ") for part in changes.split("; ")]
        assert {name for name, *_ in parts} == names
        (values,) = [values for name, _, values in parts if name == min(names)]
        before, after = values.split(", is ")
        assert then in before
        assert now in after
        assert len(ran) == CELLS
        ran.clear()
        assert bits(sweep(**arguments, store=path)) == bits(other)
        assert ran == []
        assert bits(sweep(**arguments)) == bits(other)
    ran.clear()
    assert bits(sweep(store=path)) == bits(undisturbed)
    assert ran == []
    assert held(path) == 2 * CELLS


def test_what_changes_no_bits_changes_nothing(path, ran, monkeypatch, undisturbed):
    sweep(store=path)
    ran.clear()
    with changed("number of devices", monkeypatch):
        assert bits(sweep(store=path)) == bits(undisturbed)
    assert ran == []


def test_a_sweep_that_grows_runs_only_what_is_missing(path, ran, undisturbed):
    a, b = AXES.values()
    grown = [
        ({"axes": {"a": a[:2], "b": b[1:3]}, "num_seeds": 1}, 4),
        ({"axes": {"a": a[1:4], "b": b[1:3]}, "num_seeds": 1}, 4),
        ({"axes": {"a": a[1:4], "b": b[1:3]}, "num_seeds": 2}, 6),
        ({"axes": {"a": a[3::-1], "b": b[2:0:-1]}, "num_seeds": 2}, 2),
        ({"axes": {"a": a[3::-1], "b": b[2:0:-1]}, "num_seeds": 1}, 0),
        ({"axes": AXES, "num_seeds": 2}, CELLS - 16),
        ({"axes": {"a": a[::-1], "b": b[::-1]}, "num_seeds": 2}, 0),
        ({"axes": {("a", "b"): list(zip(a[:4], b, strict=True))}, "num_seeds": 2}, 0),
    ]
    seen = set()
    for arguments, missing in grown:
        results = sweep(**arguments, store=path)
        assert len(ran) == missing
        assert not seen & set(ran)
        seen |= set(ran)
        ran.clear()
        if len(arguments["axes"]) == 2:
            assert bits(results) == bits(undisturbed.sel(results.coords))
        else:
            diagonal = undisturbed.sel(a=results["a"], b=results["b"])
            np.testing.assert_array_equal(results["y"], diagonal["y"])
    assert held(path) == CELLS
