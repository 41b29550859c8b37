"""A store gives back the bits it was given or nothing, whatever happens to its file."""

import contextlib
import itertools
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from store_cells import PROGRAM, RECORD, block

from toymodels.errors import InputError
from toymodels.sweeps.store import rows
from toymodels.sweeps.store import store as module
from toymodels.sweeps.store.refusals import StoreError
from toymodels.sweeps.store.rows import Identity
from toymodels.sweeps.store.store import Difference, Store, Verification

PARTS = {"program": "9f86d0", "width": "8", "versions": "jax=0.10.1", "platform": "cpu"}
AXES = ("density", "rate")
PATH = os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])
IMPORTS = """
import os, random, sys, time, warnings
from store_cells import PROGRAM, block
from toymodels.sweeps.store.refusals import StoreError
from toymodels.sweeps.store.store import Store
"""


def program(parts=PARTS, *, title="phase_diagram", axes=AXES, record=RECORD):
    return Identity.of(parts, title=title, axes=axes, record=record)


def cells(count, seed=0):
    return block(seed, count)


def filled(path, count=200):
    """A store file of one program with `count` cells, which are returned."""
    written = cells(count)
    with Store(path) as store:
        for start in range(0, count, 50):
            store.write(PROGRAM, *(column[start : start + 50] for column in written))
    return written


def assert_right(found, records, expected):
    """What is found is as it was written."""
    assert records[found].tobytes() == expected[found].tobytes()


def child(script, *arguments, **options):
    """A process that runs a script."""
    command = [sys.executable, "-c", IMPORTS + textwrap.dedent(script), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": PATH}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, **options)


def flip(path, position, bit=0):
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One open store and, for each use, a number never used before."""
    with Store(tmp_path_factory.mktemp("shared") / "store.db") as store:
        yield store, itertools.count()


layouts = st.builds(
    lambda fields, order, align: np.dtype(fields, align=align).newbyteorder(order),
    st.lists(
        st.tuples(
            st.text("abc", min_size=1, max_size=3),
            st.sampled_from(["float32", "float64", "int32", "uint8", "bool"]),
            hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4),
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda field: field[0],
    ),
    st.sampled_from("<>"),
    st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_bits_come_back(shared, data):
    store, unused = shared
    layout = data.draw(layouts)
    seeds = np.array(data.draw(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True)), np.int64)
    axes = data.draw(st.sampled_from([(), ("a",), ("a", "b")]))
    finite = st.floats(allow_nan=False, allow_infinity=False)
    numbers = data.draw(hnp.arrays(np.float64, (len(seeds), len(axes)), elements=finite))
    records = data.draw(hnp.arrays(layout, len(seeds)))  # with NaN, of any sign and payload
    this = program({"number": str(next(unused))}, axes=axes, record=layout)
    absent, _ = store.read(this, seeds, numbers)
    store.write(this, seeds, numbers, records)
    present, read = store.read(this, seeds, np.where(numbers == 0, -numbers, numbers))
    assert not absent.any()
    assert present.all()
    assert read.dtype == this.record
    for name in layout.names:
        assert read[name].tobytes() == records[name].astype(read[name].dtype).tobytes()


def test_a_store_survives_being_closed(path):
    seeds, numbers, records = filled(path)
    with Store(path) as store:
        found, read = store.read(PROGRAM, seeds, numbers)
        assert found.all()
        assert_right(found, read, records)
        assert store.verify() == Verification(200, 0, ())
    assert [file.name for file in path.parent.iterdir()] == ["store.db"]


def test_only_what_was_written_is_found_in_any_order(path):
    seeds, numbers, records = cells(100)
    with Store(path) as store:
        store.write(PROGRAM, seeds[::2], numbers[::2], records[::2])
        found, read = store.read(PROGRAM, seeds[::-1], numbers[::-1])
        np.testing.assert_array_equal(found, np.arange(100)[::-1] % 2 == 0)
        assert_right(found, read, records[::-1])
        assert not read[~found].view(np.uint8).any()
        assert not store.read(PROGRAM, seeds + 1, numbers)[0].any()
        assert not store.read(PROGRAM, seeds, numbers[:, ::-1])[0].any()
        assert not store.read(PROGRAM, seeds, np.nextafter(numbers, 2))[0].any()


def test_the_first_to_write_a_cell_stays(path):
    seeds, numbers, records = cells(10)
    with Store(path) as store:
        store.write(PROGRAM, seeds, numbers, records)
        store.write(PROGRAM, seeds, numbers, records[::-1])
        assert_right(*store.read(PROGRAM, seeds, numbers), records)


CHANGED = {
    **{name: program({**PARTS, name: "other"}) for name in PARTS},
    "one less": program({name: text for name, text in PARTS.items() if name != "platform"}),
    "one more": program({**PARTS, "flags": ""}),
    "text moved": program({**PARTS, "width": "8 cpu", "platform": ""}),
    "names swapped": program({**PARTS, "width": PARTS["platform"], "platform": PARTS["width"]}),
    "order of axes": program(axes=AXES[::-1]),
    "name of an axis": program(axes=("density", "learning_rate")),
    "type": program(record=np.dtype([("loss", "i4"), ("weights", "f4", (2, 5))])),
    "shape": program(record=np.dtype([("loss", "f4"), ("weights", "f4", (5, 2))])),
    "name of an output": program(record=np.dtype([("lose", "f4"), ("weights", "f4", (2, 5))])),
    "order of outputs": program(record=np.dtype([("weights", "f4", (2, 5)), ("loss", "f4")])),
}


@pytest.mark.parametrize("change", CHANGED)
def test_another_program_has_other_cells(path, change):
    seeds, numbers, records = cells(10)
    other = CHANGED[change]
    with Store(path) as store:
        store.write(program(), seeds, numbers, records)
        assert not store.read(other, seeds, numbers)[0].any()
        store.write(other, seeds, numbers, np.zeros(10, other.record))
        assert_right(*store.read(program(), seeds, numbers), records)
        assert [held.cells for held in store.programs()] == [10, 10]


def test_title_order_of_parts_and_byte_order_do_not_matter(path):
    seeds, numbers, records = cells(10)
    same = program(dict(reversed(PARTS.items())), title="renamed", record=RECORD.newbyteorder(">"))
    with Store(path) as store:
        store.write(program(), seeds, numbers, records)
        found, read = store.read(same, seeds, numbers)
        assert found.all()
        assert_right(found, read, records)


def test_records_of_another_type_are_refused(path):
    seeds, numbers, records = cells(10)
    wide = records.astype([("loss", "f8"), ("weights", "f4", (2, 5))])
    with Store(path) as store:
        with pytest.raises(ValueError, match="f8"):
            store.write(PROGRAM, seeds, numbers, wide)
        with pytest.raises(ValueError, match="3 numbers: give 2"):
            store.read(PROGRAM, seeds, np.zeros((10, 3)))


@pytest.mark.parametrize("type_", [object, "U3", ml_dtypes.bfloat16])
def test_what_numpy_cannot_name_is_refused(type_):
    with pytest.raises(InputError, match=r"output 'y'.*float32"):
        program(record=np.dtype([("y", type_)]))


def test_differences_name_what_changed(path):
    block_8, block_16 = {**PARTS, "width": "8"}, {**PARTS, "width": "16"}
    newer = {**block_16, "versions": "jax=0.10.2", "flags": "--fast"}
    with Store(path) as store:
        assert store.difference(program()) is None
        store.write(program(block_8), *cells(20))
        store.write(program(PARTS, title="another"), *cells(30, seed=1))
        assert store.difference(program(block_8)) is None
        assert store.difference(program(block_16)) == Difference(50, {"width": ("8", "16")})
        assert store.difference(program(block_16, title="unknown")) is None
        assert store.difference(program(newer)) == Difference(
            50,
            {
                "width": ("8", "16"),
                "versions": ("jax=0.10.1", "jax=0.10.2"),
                "flags": (None, "--fast"),
            },
        )
        store.write(program(block_16), *cells(5))  # now the nearer one
        assert store.difference(program(newer)) == Difference(
            5, {"versions": ("jax=0.10.1", "jax=0.10.2"), "flags": (None, "--fast")}
        )
        store.write(program({**PARTS, "width": "32"}), *cells(6))
        newest = store.difference(program({**PARTS, "width": "64"}))
        assert newest == Difference(6, {"width": ("32", "64")})
        others = store.difference(program(block_16, axes=("a", "b"), record=RECORD[["loss"]]))
        assert others is not None
        assert others.cells == 5
        assert others.changed["axes"] == ("density, rate", "a, b")
        assert others.changed.keys() == {"axes", "layout"}


def test_a_clock_that_runs_backwards_changes_nothing(path, monkeypatch):
    with Store(path) as store:
        for hour, width in enumerate("1234"):
            monkeypatch.setattr(time, "time", lambda hour=hour: 1e9 - 3600 * hour)
            store.write(program({"width": width}), *cells(10))
        assert [held.identity.parts["width"] for held in store.programs()] == list("1234")
        created = [held.created for held in store.programs()]
        assert created == sorted(created, reverse=True)
        nearest = store.difference(program({"width": "5"}))
        assert nearest == Difference(10, {"width": ("4", "5")})


def test_programs_tell_all_that_was_given(path):
    with Store(path) as store:
        store.write(program(), *cells(10))
        (held,) = store.programs()
    assert held.identity == program()
    assert (held.cells, held.damaged) == (10, 0)


def test_one_flipped_bit_costs_one_cell(path):
    seeds, numbers, records = filled(path)
    flip(path, path.read_bytes().index(records[70].tobytes()) + 13, bit=5)
    with Store(path) as store:
        cell = f"1 of 200 cells .* seed=0 density={numbers[70, 0]} rate={numbers[70, 1]}"
        with pytest.warns(UserWarning, match=cell):
            found, read = store.read(PROGRAM, seeds, numbers)
        np.testing.assert_array_equal(np.flatnonzero(~found), [70])
        assert_right(found, read, records)
        (held,) = store.programs()
        assert (held.cells, held.damaged) == (199, 1)
        store.write(PROGRAM, seeds[70:71], numbers[70:71], records[70:71])
        found, read = store.read(PROGRAM, seeds, numbers)
        assert found.all()
        assert_right(found, read, records)
        assert store.verify() == Verification(200, 0, ())


def test_verify_finds_what_nobody_reads(path):
    _, _, records = filled(path)
    for place in (3, 99, 150):
        flip(path, path.read_bytes().index(records[place].tobytes()))
    with Store(path) as store:
        assert store.verify() == Verification(197, 3, ())
        assert store.verify() == Verification(197, 0, ())


@pytest.mark.parametrize(
    ("change", "seed", "other"),
    [("program = ?", 0, program().number), ("seed = ?", 7, 7), ("checksum = ?", 0, None)],
)
def test_a_row_under_another_key_is_not_believed(path, change, seed, other):
    """As after damage to the pages that say which row is which."""
    seeds, numbers, _ = filled(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"UPDATE cells SET {change}", (other,))
        db.commit()
    this = program() if "program" in change else PROGRAM
    this = Identity.of(this.parts, title="", axes=this.axes, record=this.record)
    with Store(path) as store:
        with pytest.warns(UserWarning, match="200 of 200 cells are damaged"):
            found, _ = store.read(this, seeds + seed, numbers)
        assert not found.any()
        assert sum(held.damaged for held in store.programs()) == 200


def test_what_stands_around_a_smashed_row_is_kept(path):
    """SQLite gives up a page at the first row whose length makes no sense."""
    seeds, numbers, records = filled(path)
    data = bytearray(path.read_bytes())
    end = data.index(records[90].tobytes())
    data[end - 40 : end] = b"\xff" * 40  # its key, its length, and the end of another row
    path.write_bytes(data)
    with Store(path) as store:
        with pytest.warns(UserWarning, match="was damaged"):
            found, read = store.read(PROGRAM, seeds, numbers)
        assert_right(found, read, records)
        assert 1 <= np.sum(~found) <= 3  # Python reads one row ahead, from both ends


def test_any_flipped_bit_gives_right_cells_or_none(path):
    """Also in the pages that lead to the rows: what is left of the file is searched."""
    seeds, numbers, records = filled(path)
    whole = path.read_bytes()
    random_ = random.Random(0)
    lost = []
    for _ in range(80):
        for file in path.parent.iterdir():
            file.unlink()
        path.write_bytes(whole)
        flip(path, random_.randrange(100, len(whole)), random_.randrange(8))
        with warnings_allowed(), Store(path) as store:
            found, read = store.read(PROGRAM, seeds, numbers)
            assert_right(found, read, records)
            lost.append(np.sum(~found))
            store.write(PROGRAM, seeds, numbers, records)
            store.verify()
            assert store.verify().quarantined == 0
            assert_right(*store.read(PROGRAM, seeds, numbers), records)
    assert max(lost) < 150  # those of one page
    assert np.median(lost) <= 1


def test_a_flipped_bit_in_the_header_gives_right_cells_or_an_error(path):
    seeds, numbers, records = filled(path, 60)
    whole = path.read_bytes()
    for position in range(100):
        for file in path.parent.iterdir():
            file.unlink()
        path.write_bytes(whole)
        flip(path, position, position % 8)
        with warnings_allowed(), contextlib.suppress(InputError), Store(path) as store:
            found, read = store.read(PROGRAM, seeds, numbers)
            assert found.all()
            assert_right(found, read, records)


@pytest.mark.parametrize("record_size", [44, 20_000])
def test_what_a_cut_left_over_is_kept(path, record_size):
    """Rows on whole pages must all be found, though half the pages that led to them are gone."""
    count = 2000 if record_size < 100 else 60
    this = program(record=np.dtype([("y", "f4", record_size // 4)]))
    seeds, numbers = np.zeros(count, int), np.random.default_rng(0).random((count, 2))
    records = np.zeros(count, this.record)
    records["y"] = np.random.default_rng(1).random(records["y"].shape)
    with Store(path) as store:
        for start in range(0, count, count // 20):
            part = slice(start, start + count // 20)
            store.write(this, seeds[part], numbers[part], records[part])
    whole = path.read_bytes()
    lengths = [0, 99, 100, 511, 4095, 4096, 4097, len(whole) - 1]
    lengths += [int(len(whole) * fraction) for fraction in np.linspace(0.02, 0.98, 8)]
    for length in lengths:
        for file in path.parent.iterdir():
            file.unlink()
        path.write_bytes(whole[:length])
        with warnings_allowed() as caught, Store(path) as store:
            found, read = store.read(this, seeds, numbers)
            assert_right(found, read, records)
            pages = whole[: length // 4096 * 4096]
            must = [record.tobytes() in pages for record in records]
            assert found[must].all()
            damaged = path.with_name("store.db.damaged")
            if 0 < length < len(whole) - 4096:
                assert damaged.read_bytes() == whole[:length]
                assert str(damaged) in str(caught[0].message)
                assert f"{found.sum()} cells" in str(caught[0].message)
            store.write(this, seeds, numbers, records)
            assert store.verify() == Verification(count, 0, tuple(store.copies))


def test_damage_is_noticed_while_a_store_is_open_and_copies_are_numbered(path):
    seeds, numbers, records = filled(path, 2000)
    with Store(path) as store:
        for number in range(2):
            size = path.stat().st_size
            os.truncate(path, size - 4096 * 12)
            with pytest.warns(UserWarning, match="was damaged") as caught:
                found, read = store.read(PROGRAM, seeds, numbers)
            assert 0 < found.sum() < 2000
            assert_right(found, read, records)
            copy = path.with_name(f"store.db.damaged{number or ''}")
            assert copy.stat().st_size == size - 4096 * 12
            assert str(copy) in str(caught[0].message)
            store.write(PROGRAM, seeds, numbers, records)
        assert len(store.copies) == 2
        assert store.read(PROGRAM, seeds, numbers)[0].all()


def test_a_damaged_description_hides_no_cells(path):
    seeds, numbers, records = filled(path)
    flip(path, path.read_bytes().index(PROGRAM.text.encode()) + 20)
    with warnings_allowed(), Store(path) as store:
        (held,) = store.programs()
        assert (held.identity, held.cells) == (None, 200)
        assert store.read(PROGRAM, seeds, numbers)[0].all()
        store.write(PROGRAM, seeds, numbers, records)
        (held,) = store.programs()
        assert (held.identity, held.cells) == (PROGRAM, 200)


def test_a_store_that_another_repaired_or_removed_is_opened_again(path):
    seeds, numbers, records = filled(path, 1000)
    with Store(path) as one:
        os.truncate(path, path.stat().st_size // 2)
        with pytest.warns(UserWarning, match="was damaged"):
            Store(path).close()
        one.write(PROGRAM, seeds + 1, numbers, records)
        assert one.read(PROGRAM, seeds + 1, numbers)[0].all()
        assert one.copies == []
        with Store(path) as other:
            assert other.read(PROGRAM, seeds + 1, numbers)[0].all()
        path.unlink()
        one.write(PROGRAM, seeds, numbers, records)
        with Store(path) as other:
            assert other.read(PROGRAM, seeds, numbers)[0].all()


def test_processes_that_find_damage_at_once_repair_it_once(path):
    seeds, numbers, records = filled(path, 4000)
    os.truncate(path, path.stat().st_size * 3 // 4)
    script = """
        warnings.simplefilter("ignore")
        print("ready", flush=True)
        sys.stdin.readline()
        store = Store(sys.argv[1])
        store.write(PROGRAM, *block(1 + int(sys.argv[2])))
    """
    children = [child(script, path, number, stdin=subprocess.PIPE) for number in range(4)]
    for process in children:
        process.stdout.readline()
    for process in children:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in children:
        process.communicate()
        assert process.returncode == 0
    with Store(path) as store:
        found, read = store.read(PROGRAM, seeds, numbers)
        assert found.sum() > 1000
        assert_right(found, read, records)
        for number in range(4):
            assert store.read(PROGRAM, *block(1 + number)[:2])[0].all()
    assert sorted(file.name for file in path.parent.iterdir()) == ["store.db", "store.db.damaged"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_writer_leaves_what_it_reported_and_nothing_wrong(path):
    script = """
        for turn in range(50):
            come, go = os.pipe()
            if not (pid := os.fork()):
                store = Store(sys.argv[1])
                for number in range(1000 * turn, 1000 * (turn + 1)):
                    store.write(PROGRAM, *block(number))
                    os.write(go, f"{number}\\n".encode())
            os.close(go)
            first = os.read(come, 1)
            time.sleep(random.Random(turn).uniform(0, 0.02))
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            os.write(1, first + os.read(come, 100_000))
            os.close(come)
            if os.path.exists(sys.argv[1] + "-journal"):
                os.write(1, b"in the middle\\n")
    """
    output, _ = child(script, path).communicate()
    lines = output.splitlines()
    reported = {int(line) for line in lines if line.isdigit()}
    assert len(reported) >= 50
    assert "in the middle" in lines
    with Store(path) as store:
        assert store.verify().quarantined == 0
        present = set()
        for turn in range(50):
            for number in itertools.count(1000 * turn):
                seeds, numbers, records = block(number)
                found, read = store.read(PROGRAM, seeds, numbers)
                assert found.all() or not found.any()
                assert_right(found, read, records)
                if not found.any():
                    break
                present.add(number)
    assert reported <= present
    assert len(present) <= len(reported) + 50  # one a turn was written and not yet reported


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_repair_loses_nothing(path):
    seeds, numbers, records = filled(path, 4000)
    os.truncate(path, path.stat().st_size * 3 // 4)
    script = """
        warnings.simplefilter("ignore")
        for turn in range(30):
            if not (pid := os.fork()):
                Store(sys.argv[1])
                os._exit(0)
            time.sleep(turn / 300)
            os.kill(pid, 9)
            os.waitpid(pid, 0)
    """
    pages = path.read_bytes()[: path.stat().st_size // 4096 * 4096]
    must = [record.tobytes() in pages for record in records]
    child(script, path).communicate()
    with warnings_allowed(), Store(path) as store:
        found, read = store.read(PROGRAM, seeds, numbers)
        assert found[must].all()
        assert_right(found, read, records)
        assert store.verify().quarantined == 0


@pytest.mark.parametrize("room", [0.5, 1.001])
def test_a_repair_without_room_changes_nothing(path, room):
    """Neither for the copy, nor beside the copy for the journal of the repair."""
    pytest.importorskip("resource")
    filled(path, 2000)
    os.truncate(path, path.stat().st_size // 2)
    before = path.read_bytes()
    script = """
        import resource
        limit = int(os.path.getsize(sys.argv[1]) * float(sys.argv[2]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            Store(sys.argv[1])
        except StoreError as error:
            print(error)
    """
    message = child(script, path, room).communicate()[0]
    assert "is damaged and cannot be repaired" in message
    assert "make room beside it" in message
    with contextlib.closing(sqlite3.connect(path)) as db, contextlib.suppress(sqlite3.Error):
        db.execute("SELECT * FROM cells").fetchone()  # undoes what was begun
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["store.db"]
    with pytest.warns(UserWarning, match="cells could be read"):
        Store(path).close()


def test_two_processes_write_one_store(path):
    script = """
        with Store(sys.argv[1]) as store:
            for number in range(int(sys.argv[2]), int(sys.argv[2]) + 150):
                store.write(PROGRAM, *block(number))
    """
    children = [child(script, path, start) for start in (0, 75)]
    for process in children:
        process.communicate()
        assert process.returncode == 0
    with Store(path) as store:
        for number in range(225):
            seeds, numbers, records = block(number)
            found, read = store.read(PROGRAM, seeds, numbers)
            assert found.all()
            assert_right(found, read, records)
        assert store.verify() == Verification(225 * 16, 0, ())
        assert len(store.programs()) == 1


def test_a_store_that_another_process_does_not_let_go(path, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    written = filled(path)
    with Store(path) as store, contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match=r"is locked; end the process.*cells are kept"):
            store.write(PROGRAM, *cells(10, seed=1))
        with pytest.raises(StoreError, match="is locked"):
            Store(path)
        other.rollback()
        assert store.read(PROGRAM, *written[:2])[0].all()
        store.write(PROGRAM, *cells(10, seed=1))


def test_looking_at_a_file_does_not_drop_its_locks(path, monkeypatch):
    """As POSIX does when a process closes any handle of a file."""
    monkeypatch.setattr(module, "PATIENCE", 0)
    filled(path)
    script = """
        import sqlite3
        try:
            sqlite3.connect(sys.argv[1], timeout=0).execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            print(error)
    """
    with contextlib.closing(sqlite3.connect(path)) as ours:
        ours.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="is locked"):
            Store(path)
        assert child(script, path).communicate()[0] == "database is locked\n"


def test_a_file_that_may_not_grow(path):
    """The limit of the system on the size of a file: a write fails in the middle."""
    filled(path)
    script = """
        import resource
        store = Store(sys.argv[1])
        size = os.path.getsize(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 30_000,) * 2)
        try:
            for number in range(1, 1000):
                store.write(PROGRAM, *block(number))
                print(number, flush=True)
        except StoreError as error:
            print(error)
    """
    resource = pytest.importorskip("resource")
    assert resource.RLIMIT_FSIZE is not None
    *numbers, message = child(script, path).communicate()[0].splitlines()
    assert str(path) in message
    assert "free space and run the same sweep again: finished cells are kept" in message
    assert numbers
    assert_keeps(path, range(1, 1 + len(numbers)), 1 + len(numbers))


@pytest.fixture
def connections(monkeypatch):
    """The connections to databases that stores open."""
    opened, connect = [], rows.connect

    def recorded(*arguments, **options):
        opened.append(connect(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(rows, "connect", recorded)
    return opened


def test_a_full_disk(path, connections):
    filled(path)
    with Store(path) as store:
        pages = connections[-1].execute("PRAGMA page_count").fetchone()[0]
        connections[-1].execute(f"PRAGMA max_page_count = {pages + 5}")
        full = "cannot write .*store.db: database or disk is full; free some space and run"
        number = 1
        with contextlib.suppress(StoreError):
            while True:
                store.write(PROGRAM, *block(number))
                number += 1
        with pytest.raises(StoreError, match=full):
            store.write(PROGRAM, *block(number))
        assert store.read(PROGRAM, *block(1)[:2])[0].all()
    assert number > 2
    assert_keeps(path, range(1, number), number)


def assert_keeps(path, kept, not_kept):
    """Transactions before an error are whole, the last left nothing, and more can follow."""
    with Store(path) as store:
        assert store.verify().copies == ()
        for number in kept:
            seeds, numbers, records = block(number)
            found, read = store.read(PROGRAM, seeds, numbers)
            assert found.all()
            assert_right(found, read, records)
        seeds, numbers, records = block(not_kept)
        assert not store.read(PROGRAM, seeds, numbers)[0].any()
        store.write(PROGRAM, seeds, numbers, records)
        assert store.read(PROGRAM, seeds, numbers)[0].all()


def test_an_interrupted_write_leaves_nothing(path, connections):
    seeds, numbers, records = cells(5000)
    with Store(path) as store:
        connections[-1].set_progress_handler(lambda: 1, 50_000)
        with pytest.raises(StoreError, match="interrupted"):
            store.write(PROGRAM, seeds, numbers, records)
        connections[-1].set_progress_handler(None, 0)
        assert not store.read(PROGRAM, seeds, numbers)[0].any()
        store.write(PROGRAM, seeds, numbers, records)
        assert store.read(PROGRAM, seeds, numbers)[0].all()


@pytest.mark.parametrize(
    "content",
    [b"x", b"SQ", b"density,loss\n", b"SQLite format 4 " + bytes(500), bytes(5000)],
    ids=["one byte", "two bytes", "text", "not quite", "zeros"],
)
def test_a_file_of_another_kind_is_left_as_it_is(path, content):
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"store.db is no store .*: give another path"):
        Store(path)
    assert path.read_bytes() == content
    assert len(list(path.parent.iterdir())) == 1


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_the_database_of_another_program_is_left_as_it_is(path, mode):
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA journal_mode = {mode}")
        db.execute("CREATE TABLE cells (important)")
        db.commit()
        before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
        with pytest.raises(InputError, match="is no store"):
            Store(path)
        assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_a_store_of_a_later_format_is_left_as_it_is(path):
    filled(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {rows.FORMAT + 1}")
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"has format 2, and this version .* knows 1: install"):
        Store(path)
    assert path.read_bytes() == before


def test_an_empty_file_becomes_a_store_and_folders_are_made(tmp_path):
    (tmp_path / "empty.db").touch()
    for path in (tmp_path / "empty.db", tmp_path / "a" / "b c?#%" / "store.db"):
        filled(path)
        with Store(path, create=False) as store:
            assert store.programs()[0].cells == 200


def test_a_store_that_must_be_there(path):
    with pytest.raises(InputError, match=r"there is no store .*store.db: run a sweep"):
        Store(path, create=False)
    assert not path.exists()


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(InputError, match="is a folder: give the path of a file in it"):
        Store(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/store.db: .*: give the path of a file in a folder"):
        Store(tmp_path / "file" / "store.db")
    with pytest.raises(InputError, match=r"file/a/store.db: .*: give the path of a file in a fold"):
        Store(tmp_path / "file" / "a" / "store.db")


@pytest.mark.parametrize(
    ("folder_mode", "file_mode", "expected"),
    [
        pytest.param(0o555, None, "make the file and its folder writable", id="folder"),
        pytest.param(0o755, 0o444, "make the file and its folder writable", id="file"),
        pytest.param(0o555, 0o644, "make the file and its folder writable", id="no journal"),
        pytest.param(0o755, 0o000, "give the path of a file in a folder", id="unreadable"),
        pytest.param(0o000, 0o644, "give the path of a file in a folder", id="closed folder"),
    ],
)
def test_what_may_not_be_written(folder_mode, file_mode, expected):
    with tempfile.TemporaryDirectory() as name:  # others may enter its parents, unlike tmp_path
        path = Path(name, "store.db")
        if file_mode is not None:
            filled(path)
        with unprivileged(Path(name)):
            if file_mode is not None:
                path.chmod(file_mode)
            Path(name).chmod(folder_mode)
            try:
                with pytest.raises(InputError, match=expected) as caught:
                    Store(path)
                assert str(path) in str(caught.value)
            finally:
                Path(name).chmod(0o755)
        if file_mode is not None:
            path.chmod(0o644)
            with Store(path) as store:
                assert store.verify() == Verification(200, 0, ())


@contextlib.contextmanager
def unprivileged(folder):
    """Permissions do not bind root: be nobody for a while."""
    if os.geteuid():
        yield
        return
    for path in (folder, *folder.iterdir()):
        os.chown(path, 65534, 65534)
    try:
        os.seteuid(65534)
    except OSError:
        pytest.skip("cannot be another user")
    try:
        if not os.access(folder, os.X_OK, effective_ids=True):
            pytest.skip("temporary folders are closed to other users")
        yield
    finally:
        os.seteuid(0)


def test_a_change_of_folder_and_a_closed_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Store("store.db") as store:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        store.write(PROGRAM, *cells(10))
    assert not list(Path().iterdir())
    with pytest.raises(RuntimeError, match="closed"):
        store.write(PROGRAM, *cells(10))


def test_a_child_needs_no_jax():
    assert child("print('jax' in sys.modules)").communicate()[0] == "False\n"


@contextlib.contextmanager
def warnings_allowed():
    """For damage that is noticed only sometimes."""
    import warnings

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


@pytest.mark.parametrize("kind", ["pipe", "device", "loop", "dangling link", "nul", "long"])
def test_what_is_no_file_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "cells.db"
    given = {"device": "/dev/null", "nul": "a\0b", "long": "n" * 300}
    if kind == "pipe":
        os.mkfifo(path)  # to open it would wait for a writer
    elif kind in ("loop", "dangling link"):
        path.symlink_to(path if kind == "loop" else tmp_path / "gone" / "cells.db")
    with pytest.raises(ValueError, match="give"):
        Store(given.get(kind, path))


def test_the_home_folder_may_be_short(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    Store("~/cells.db").close()
    assert (tmp_path / "cells.db").is_file()


REMADE = {
    "trigger": "CREATE TRIGGER t BEFORE INSERT ON cells BEGIN SELECT RAISE(IGNORE); END",
    "added column": "ALTER TABLE cells ADD COLUMN note TEXT",
    "view": "ALTER TABLE cells RENAME TO old; CREATE VIEW cells AS SELECT * FROM old",
    "no key": "CREATE TABLE c AS SELECT * FROM cells; DROP TABLE cells; "
    "ALTER TABLE c RENAME TO cells",
    "smaller pages": "PRAGMA page_size = 1024; VACUUM",
    "log beside it": "PRAGMA journal_mode = WAL; DELETE FROM damaged",
    "foreign table": "CREATE TABLE mine (a)",
}


@pytest.mark.parametrize("change", REMADE)
@pytest.mark.filterwarnings("ignore:.*was damaged:UserWarning")
def test_changed_tables_lose_no_cell_and_take_new_ones(tmp_path, change):
    path = tmp_path / "cells.db"
    written = cells(40)
    with Store(path) as store:
        store.write(PROGRAM, *(column[:30] for column in written))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript(REMADE[change])
    with Store(path) as store:
        store.write(PROGRAM, *(column[30:] for column in written))
        found, records = store.read(PROGRAM, *written[:2])
        assert store.verify()[:2] == (40, 0)
    assert found.all()
    assert_right(found, records, written[2])
