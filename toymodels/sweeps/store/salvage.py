"""Repair a damaged store file page by page.

SQLite gives up at the first page that makes no sense, although nearly all rows of the file may
be intact. A row with the right checksum can be trusted however it was found. So each page that
could hold rows is read as a table of its own, and the intact rows are kept.

The damaged file is copied beside itself before anything in it changes. Then one transaction of
SQLite replaces its content by the rows that were kept; a process that dies in the middle leaves
the damaged file as it was. The repair writes into the same file, which stays locked from
beginning to end. A new file under the old name would be wrong: it would share its journal with
the old file, which other processes may have open.
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
    """Copy a damaged file, keep in the file only the rows that are intact, and warn.

    Args:
        path: the file. This thread must have no other connection to it.
        patience: for how many seconds to wait for other processes.

    Returns:
        The path of the copy; None if another process repaired the file while this one waited.

    Raises:
        OSError: there is no room for the copy.
        sqlite3.Error: there is no room for the journal, another process does not release the
            file, or the header of the file is lost.
    """
    # Closing any handle of a file drops all locks of this process on it. So this handle is
    # closed after the connection.
    with (
        open(path, "rb") as file,
        contextlib.closing(rows.connect(path, patience=patience)) as db,
        contextlib.closing(rows.connect("")) as new,
    ):
        db.execute("PRAGMA writable_schema = ON")  # without it, a cut file cannot be locked
        db.execute("BEGIN EXCLUSIVE")
        db.execute("PRAGMA locking_mode = EXCLUSIVE")  # from now on, also between transactions
        db.execute("ROLLBACK")
        pages = file.read()
        if _sound(pages):
            return None
        kept, wrong = _copy_intact_rows(_rows(pages), new)
        copy = _free_name(path)
        try:
            copy.write_bytes(pages)
            new.backup(db)
        except (OSError, sqlite3.Error):
            copy.unlink(missing_ok=True)
            raise
    warnings.warn(
        f"{path} was damaged: {kept} cells could be read and are kept, {wrong} rows were wrong "
        f"and are dropped; {copy} is a copy of the damaged file",
        stacklevel=3,
    )
    return copy


def _sound(pages: bytes) -> bool:
    """Return whether the content of a file is that of a whole store."""
    # Another program may have rewritten the file with pages of another size; the header says so.
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
    """Yield the number and the columns of all rows on any page of a damaged file.

    The SQLite that comes with Python has no command for this. So the first page is replaced by a
    new one, whose schema makes each leaf page the root of a table of its own.
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
            for order in ("ASC", "DESC"):  # up to the damaged row, from both ends
                with contextlib.suppress(sqlite3.DatabaseError):
                    for row in db.execute(
                        f"SELECT rowid, * FROM leaf{leaf} ORDER BY rowid {order}"
                    ):
                        found[row] = None
            yield from found


def _first_page(count: int) -> bytes:
    """Return the first page of an empty database that claims to have `count` pages."""
    with contextlib.closing(rows.connect(":memory:")) as db:
        db.execute(f"PRAGMA application_id = {rows.APPLICATION}")
        page = db.serialize()
    return page[:28] + count.to_bytes(4, "big") + page[32:]


def _copy_intact_rows(found: Iterator[tuple[Any, ...]], db: sqlite3.Connection) -> tuple[int, int]:
    """Make a store of the intact rows, and return the numbers of its cells and of wrong rows."""
    db.execute("BEGIN")
    rows.create_tables(db)
    wrong = 0
    for row, *columns in found:
        first, number, _, text, _ = columns
        if first is None and rows.is_description(text, number):
            columns[0] = row  # SQLite stores this column as the number of the row
            db.execute("INSERT OR IGNORE INTO programs VALUES (?, ?, ?, ?, ?)", columns)
        elif rows.is_intact(*columns):
            db.execute("INSERT OR IGNORE INTO cells VALUES (?, ?, ?, ?, ?)", columns)
        else:
            wrong += 1
    db.execute("COMMIT")
    return db.execute("SELECT count(*) FROM cells").fetchone()[0], wrong


def _free_name(path: Path) -> Path:
    names = (f"{path}.damaged{number or ''}" for number in itertools.count())
    return next(Path(name) for name in names if not os.path.exists(name))
