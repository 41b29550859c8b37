"""Refusals of a store: paths that lead to no store, and errors of SQLite with a remedy."""

import contextlib
import sqlite3
from pathlib import Path

from toymodels.errors import InputError
from toymodels.sweeps.store import rows

PATIENCE = 60
"""The seconds to wait for another process, whose transactions take milliseconds."""
_DAMAGE = (
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_ERROR,  # the tables are not as we made them
)
_REMEDIES = {
    sqlite3.SQLITE_FULL: "free some space",
    sqlite3.SQLITE_BUSY: f"end the process that has used it for {PATIENCE} s",
}


class StoreError(OSError):
    """The disk or another process prevents the use of a store. Cells written before are kept."""


class DamagedError(StoreError):
    """The file is damaged and can be salvaged."""


def check_path(path: Path) -> None:
    """Raise `InputError` for a file of another kind or of a later format.

    The file is read through SQLite, without a lock and without writing. To open and close it in
    another way would drop the locks that another `Store` of this process has on it.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the path of a file in it")
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path} is a link that leads to no file: give another path")
    # Opening a pipe would wait for ever.
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is a pipe, a socket or a device: give the path of a file")
    if not path.exists() or not path.stat().st_size:
        return
    uri = f"{path.as_uri()}?mode=ro&immutable=1"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
        db.execute("PRAGMA writable_schema = ON")  # without it, a cut file does not answer
        try:
            (application,) = db.execute("PRAGMA application_id").fetchone()
            (version,) = db.execute("PRAGMA user_version").fetchone()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_NOTADB:
                raise
            application, version = 0, 0
    if application != rows.APPLICATION:
        raise InputError(
            f"{path} is no store of finished cells and is left as it is: give another path"
        )
    if version > rows.FORMAT:
        raise InputError(
            f"{path} has format {version}, and this version of toymodels knows {rows.FORMAT}: "
            "install the version that wrote it, or give another path"
        )


def translated(path: Path, error: sqlite3.Error) -> Exception:
    """Return the exception to raise in place of an error of SQLite."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the upper bits hold details
    if not code:  # the store is closed, or belongs to another thread
        return RuntimeError(f"cannot use {path}: {error}")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return InputError(
            f"cannot write {path}: {error}: make the file and its folder writable, or give "
            "another path"
        )
    kind = DamagedError if code in _DAMAGE else StoreError
    remedy = _REMEDIES.get(code, "check the disk and its free space")
    return kind(
        f"cannot write {path}: {error}; {remedy} and run the same sweep again: finished cells "
        "are kept"
    )
