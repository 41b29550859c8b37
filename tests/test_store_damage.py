"""A store whose file was damaged gives back the bits it was given or nothing."""

import contextlib
import itertools
import os
import random
import sqlite3
import subprocess

import numpy as np
import pytest
from store_cells import (
    PROGRAM,
    assert_right,
    block,
    cells,
    child,
    filled,
    flip,
    program,
    warnings_allowed,
)

from toymodels.errors import InputError
from toymodels.sweeps.store.rows import Identity
from toymodels.sweeps.store.store import Store, Verification


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
    """Damage to the pages that say which row is which can put a row under another key."""
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
    """The bit may lie in the pages that lead to the rows. Then the rest of the file is searched."""
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
    """The disk has no room for the copy, or none for the journal of the repair beside the copy."""
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
