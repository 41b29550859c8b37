"""A store shares its file with other processes, and leaves files that are no store alone."""

import contextlib
import os
import sqlite3
import tempfile
from pathlib import Path

import pytest
from store_cells import (
    PROGRAM,
    assert_right,
    block,
    cells,
    child,
    filled,
)

from toymodels.errors import InputError
from toymodels.sweeps.store import rows
from toymodels.sweeps.store import store as module
from toymodels.sweeps.store.refusals import StoreError
from toymodels.sweeps.store.store import Store, Verification


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
    """POSIX drops all locks of a process on a file when the process closes any handle of it."""
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


def test_a_limit_on_the_size_of_a_file_keeps_all_transactions(path):
    """The limit of the system on the size of a file makes a write fail in the middle."""
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
    """Return the connections to databases that stores open."""
    opened, connect = [], rows.connect

    def recorded(*arguments, **options):
        opened.append(connect(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(rows, "connect", recorded)
    return opened


def test_a_full_disk_keeps_all_transactions(path, connections):
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
    """Fail unless transactions before an error are whole.

    The last one must have left nothing, and more must be able to follow.
    """
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


def test_paths_that_are_no_files_are_refused(tmp_path):
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
def test_folders_and_files_without_permission_are_refused(folder_mode, file_mode, expected):
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
    """Be the user nobody for a while, because permissions do not bind root."""
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
