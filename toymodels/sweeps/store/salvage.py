"""Repair a damaged store file page by page.

SQLite gives up at the first page that makes no sense, though nearly all rows of the file are as
they were. A row that checks is right however it was found, so each page that could hold rows is
read as a table of its own, and the rows that check are kept. The damaged file is copied beside
itself before anything in it changes. What was kept then replaces its content in one transaction
of SQLite's: a process that dies in the middle leaves the damaged file. It stays the same file,
locked from first to last, for a new one under its name would share its journal with the old one,
which other processes may have open.
"""

import contextlib
import itertools
import os
import sqlite3
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toymodels.sweeps.store import rows


def salvage(path: Path, *, patience: float) -> Path | None:
    """Keep a copy of a damaged file, leave in it what could be read, and warn.

    Args:
        path: the file; this thread has no other connection to it.
        patience: seconds to wait for other processes.

    Returns:
        The copy; None if another process repaired the file while we waited.

    Raises:
        OSError: there is no room for the copy.
        sqlite3.Error: there is no room for the journal, another process does not let go, or
            the header of the file is lost.
    """
    # To close a file is to drop all locks on it, so this handle is closed after the connection.
    with (
        open(path, "rb") as file,
        contextlib.closing(rows.connect(path, patience=patience)) as db,
        contextlib.closing(rows.connect("")) as new,
    ):
        db.execute("PRAGMA writable_schema = ON")  # or a cut file cannot be locked
        db.execute("BEGIN EXCLUSIVE")
        db.execute("PRAGMA locking_mode = EXCLUSIVE")  # from now on, beyond transactions
        db.execute("ROLLBACK")
        pages = file.read()
        if _sound(pages):
            return None
        kept, wrong = _fill(new, _rows(pages))
        copy = _free_name(path)
        try:
            copy.write_bytes(pages)
            new.backup(db)
        except (OSError, sqlite3.Error):
            copy.unlink(missing_ok=True)
            raise
    warnings.warn(
        f"{path} was damaged: {kept} cells could be read and are kept, {wrong} rows were wrong "
        f"and are not; {copy} is the file as it was",
        stacklevel=3,
    )
    return copy


def _sound(pages: bytes) -> bool:
    # A file that was rewritten with pages of another size holds that size in its header.
    size = int.from_bytes(pages[16:18], "big")
    if not pages or len(pages) % (65536 if size == 1 else size or rows.PAGE):
        return False
    with contextlib.closing(rows.connect(":memory:")) as db:
        db.deserialize(pages)
        try:
            whole = db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            return whole and rows.has_our_tables(db)
        except sqlite3.DatabaseError:
            return False


def _rows(pages: bytes) -> Iterator[tuple[Any, ...]]:
    """Number and columns of all rows on any page of a file, whatever else is damaged.

    Python has no SQLite that can do this by itself. So each leaf page becomes the root of a
    table of its own, in a schema that stands on a new first page.
    """
    count = -(-len(pages) // rows.PAGE)
    pages = pages.ljust(count * rows.PAGE, b"\0")
    with contextlib.closing(rows.connect(":memory:")) as db:
        db.deserialize(_first_page(count) + pages[rows.PAGE :])
        leaves = [page for page in range(2, count + 1) if pages[(page - 1) * rows.PAGE] == 13]
        db.execute("PRAGMA writable_schema = ON")
        db.executemany(
            "INSERT INTO sqlite_master VALUES ('table', 'leaf' || ?1, 'leaf' || ?1, ?1, "
            "'CREATE TABLE leaf' || ?1 || ' (a, b, c, d, e)')",
            [(leaf,) for leaf in leaves],
        )
        db.execute("PRAGMA writable_schema = RESET")
        for leaf in leaves:
            found: dict[tuple[Any, ...], None] = {}
            for order in ("ASC", "DESC"):  # to what is damaged, from both ends
                with contextlib.suppress(sqlite3.DatabaseError):
                    for row in db.execute(
                        f"SELECT rowid, * FROM leaf{leaf} ORDER BY rowid {order}"
                    ):
                        found[row] = None
            yield from found


def _first_page(count: int) -> bytes:
    """Of an empty database that says it has `count` pages."""
    with contextlib.closing(rows.connect(":memory:")) as db:
        db.execute(f"PRAGMA application_id = {rows.APPLICATION}")
        page = db.serialize()
    return page[:28] + count.to_bytes(4, "big") + page[32:]


def _fill(db: sqlite3.Connection, found: Iterator[tuple[Any, ...]]) -> tuple[int, int]:
    """Make a store of those rows of any tables that are right; how many cells, and wrong rows."""
    db.execute("BEGIN")
    rows.create_tables(db)
    wrong = 0
    for row, *columns in found:
        first, number, _, identity, _ = columns
        if first is None and rows.describes(identity, number):
            columns[0] = row  # the table leaves it out of its columns
            db.execute("INSERT OR IGNORE INTO programs VALUES (?, ?, ?, ?, ?)", columns)
        elif rows.intact(*columns):
            db.execute("INSERT OR IGNORE INTO cells VALUES (?, ?, ?, ?, ?)", columns)
        else:
            wrong += 1
    db.execute("COMMIT")
    return db.execute("SELECT count(*) FROM cells").fetchone()[0], wrong


def _free_name(path: Path) -> Path:
    names = (f"{path}.damaged{number or ''}" for number in itertools.count())
    return next(Path(name) for name in names if not os.path.exists(name))
