"""Finished cells of sweeps in one SQLite file that outlives crashes, copies and bad disks.

SQLite brings transactions, locks and the undoing of a write that was cut off. `rows` says what
makes a cell and how it is checked, `salvage` what becomes of a damaged file. A file is never
deleted.
"""

import contextlib
import os
import sqlite3
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float64, Int, Shaped

from toymodels.errors import InputError
from toymodels.sweeps.store import rows, salvage
from toymodels.sweeps.store.rows import Program

T = TypeVar("T")

PATIENCE = 60
"""Seconds to wait for other processes, whose transactions take milliseconds, or for a reader."""
# The last is for tables that are not as we made them.
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
_REMEDIES = {
    sqlite3.SQLITE_FULL: "free some space",
    sqlite3.SQLITE_BUSY: f"end the process that has used it for {PATIENCE} s",
}


class StoreError(OSError):
    """The disk or another process is in the way. All that was written before is kept."""


class _DamagedError(StoreError):
    """A reason to salvage."""


class Difference(NamedTuple):
    """What changed since `cells` cells were stored: name to old and new text, None for none."""

    cells: int
    changed: dict[str, tuple[str | None, str | None]]


class Holding(NamedTuple):
    """What a store holds of one program, which is None if its description was damaged."""

    program: Program | None
    cells: int
    damaged: int
    created: str


class Verified(NamedTuple):
    """Cells that check, cells set aside now, copies made of the file since it was opened."""

    cells: int
    set_aside: int
    copies: tuple[Path, ...]


class Store:
    """An open store. Processes and threads may share the file, each with a `Store` of its own.

    Attributes:
        path: the file.
        copies: what it was copied to where it was found damaged.
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool = True):
        """Open the file, or make it and its folder.

        Raises:
            InputError: a path that cannot be used, or whose file is not ours to touch.
            StoreError: the disk is full, or another process does not let go.
        """
        # Not every caller checks types.
        named = isinstance(path, str | os.PathLike)  # pyright: ignore[reportUnnecessaryIsInstance]
        if not named or "\0" in os.fsdecode(path):
            raise InputError(f"the store is {path!r}: give the path of a file")
        self.path = Path(path).expanduser().absolute()
        self.copies: list[Path] = []
        if not create and not os.path.lexists(self.path):
            raise InputError(f"there is no store {self.path}: run a sweep that writes it first")
        self._open()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; nothing waits to be written."""
        self._db.close()

    def read(
        self,
        program: Program,
        seeds: Int[np.ndarray, " cells"],
        points: Float64[np.ndarray, "cells axes"],
    ) -> tuple[Bool[np.ndarray, " cells"], Shaped[np.ndarray, " cells"]]:
        """Which of these cells are stored, and their records: zeros where they are not.

        A row that is damaged is set aside, with a warning, and counts as not stored.
        """
        keys = rows.keys(program, seeds, points)

        def work() -> tuple[dict[int, bytes], dict[int, int]]:
            whole: dict[int, bytes] = {}
            damaged: dict[int, int] = {}
            find = "SELECT rowid, record, checksum FROM cells WHERE (program,seed,point)=(?,?,?)"
            for place, key in enumerate(keys):
                for row, record, checksum in self._db.execute(find, key):
                    if rows.intact(*key, record, checksum):
                        whole[place] = record
                    else:
                        damaged[place] = row
            self._set_aside([*damaged.values()])
            return whole, damaged

        whole, damaged = self._transact(work)
        stored, records = np.zeros(len(keys), np.bool_), np.zeros(len(keys), program.layout)
        stored[[*whole]] = True
        records[stored] = np.ndarray(len(whole), program.layout, b"".join(whole.values()))
        if damaged:
            first = min(damaged)
            point = zip(program.axes, points[first], strict=True)
            cell = " ".join([f"seed={seeds[first]}", *(f"{name}={x}" for name, x in point)])
            warnings.warn(
                f"{self.path}: {len(damaged)} of {len(keys)} cells are damaged and set aside, to "
                f"be run again; the first is {cell}",
                stacklevel=2,
            )
        return stored, records

    def write(
        self,
        program: Program,
        seeds: Int[np.ndarray, " cells"],
        points: Float64[np.ndarray, "cells axes"],
        records: Shaped[np.ndarray, " cells"],
    ) -> None:
        """Keep finished cells: all of them or, after an error, none.

        A cell that is there already stays: another process had the same numbers sooner.
        """
        cells = rows.cells(program, seeds, points, records)
        created = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time()))

        def work() -> None:
            self._db.execute(
                "INSERT INTO programs (number, title, identity, created) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET title = excluded.title, identity = excluded.identity "
                "WHERE identity IS NOT excluded.identity",  # it was damaged
                (program.number, program.title, program.identity, created),
            )
            self._db.executemany("INSERT OR IGNORE INTO cells VALUES (?, ?, ?, ?, ?)", cells)

        self._transact(work)

    def programs(self) -> list[Holding]:
        """What the store holds, in the order in which it came."""

        def work() -> list[Holding]:
            programs: dict[int, Program] = {}
            since: dict[int, str] = {}
            for number, title, identity, created in self._db.execute(
                "SELECT number, CAST(title AS TEXT), CAST(identity AS TEXT), CAST(created AS TEXT) "
                "FROM programs ORDER BY id"  # damage can change the type, too
            ):
                if rows.describes(identity, number):
                    programs[number] = Program.stored(title, identity)
                    since[number] = created
            cells, damaged = (
                dict(self._db.execute(f"SELECT program, count(*) FROM {table} GROUP BY program"))
                for table in ("cells", "damaged")
            )
            return [
                Holding(programs.get(n), cells.get(n, 0), damaged.get(n, 0), since.get(n, ""))
                for n in dict.fromkeys([*programs, *cells, *damaged])
            ]

        return self._transact(work)

    def differences(self, program: Program) -> Difference | None:
        """What changed since cells of the same title were stored, if none of these are.

        Of several such programs the one with the fewest changes, and of those the newest.
        """
        differences: list[Difference] = []
        now = program.aspects()
        for other, cells, *_ in reversed(self.programs()):
            if other is None or not cells:
                continue
            if other.number == program.number:
                return None
            if other.title == program.title:
                then = other.aspects()
                pairs = {name: (then.get(name), now.get(name)) for name in {**then, **now}}
                changed = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
                differences.append(Difference(cells, changed))
        return min(differences, key=lambda difference: len(difference.changed), default=None)

    def verify(self) -> Verified:
        """Check every row, and the file as SQLite sees it; set aside what is wrong."""

        def work() -> Verified:
            if self._db.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                raise _DamagedError(f"{self.path} is damaged")
            cells = self._db.execute("SELECT rowid, * FROM cells")
            damaged = [row for row, *cell in cells if not rows.intact(*cell)]
            self._set_aside(damaged)
            (whole,) = self._db.execute("SELECT count(*) FROM cells").fetchone()
            return Verified(whole, len(damaged), tuple(self.copies))

        return self._transact(work)

    def _set_aside(self, damaged: Sequence[int]) -> None:
        """Move rows, in the transaction that found them, out of the way of new ones."""
        numbers = [(row,) for row in damaged]
        self._db.executemany("INSERT INTO damaged SELECT * FROM cells WHERE rowid = ?", numbers)
        self._db.executemany("DELETE FROM cells WHERE rowid = ?", numbers)

    def _transact(self, work: Callable[[], T]) -> T:
        """All of `work` or nothing; again if the file was damaged and could be repaired."""
        if self._moved():
            self.close()
            self._open()
        try:
            return self._attempt(work)
        except _DamagedError:
            self._repair()
        return self._attempt(work)

    def _attempt(self, work: Callable[[], T]) -> T:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            result = work()
            self._db.execute("COMMIT")
        except BaseException as error:
            # Where undoing fails as well, the journal stays and the next to open the file undoes.
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise _refusal(self.path, error) from error
            raise
        return result

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _check_ours(self.path)
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"cannot use {self.path}: {reason}: give the path of a file in a folder that is "
                "yours to write"
            ) from error

        def work() -> None:
            """Writes even where nothing is missing, to learn now whether we may."""
            (page,) = self._db.execute("PRAGMA page_size").fetchone()
            if os.path.getsize(self.path) % page:
                raise _DamagedError(f"{self.path} is cut off")
            rows.create_tables(self._db)
            if not rows.has_our_tables(self._db):
                raise _DamagedError(f"the tables of {self.path} were changed")

        self._connect()
        try:
            self._transact(work)
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        try:
            self._db = rows.connect(self.path, patience=PATIENCE)
        except sqlite3.Error as error:
            raise _refusal(self.path, error) from error
        # A log beside the file would be left behind by whoever copies or salvages the file.
        with contextlib.suppress(sqlite3.Error):
            if self._db.execute("PRAGMA journal_mode").fetchone() == ("wal",):
                self._db.execute("PRAGMA journal_mode = DELETE")
        self._inode = os.stat(self.path).st_ino

    def _moved(self) -> bool:
        """Whether the path no longer leads to the file that is open."""
        try:
            return os.stat(self.path).st_ino != self._inode
        except OSError:
            return True

    def _repair(self) -> None:
        self.close()
        try:
            copy = salvage.salvage(self.path, patience=PATIENCE)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"{self.path} is damaged and cannot be repaired: {error}; make room beside it, "
                "end what else uses it, or give another path"
            ) from error
        self._connect()
        self.copies += [copy] if copy else []


def _check_ours(path: Path) -> None:
    """Refuse a file of another kind, or of a later format, and leave it as it is.

    Looks without a lock and without writing; through SQLite, for to close the file otherwise
    would drop the locks that another `Store` of this process has on it.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the path of a file in it")
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path} is a link that leads to no file: give another path")
    # To open a pipe would wait for ever, and a device has no cells.
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is a pipe, a socket or a device: give the path of a file")
    if not path.exists() or not path.stat().st_size:
        return
    uri = f"{path.as_uri()}?mode=ro&immutable=1"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
        db.execute("PRAGMA writable_schema = ON")  # or a cut file would not answer
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


def _refusal(path: Path, error: sqlite3.Error) -> Exception:
    """What to raise for what SQLite raised."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the details in upper bits
    if not code:  # the store is closed, or of another thread
        return RuntimeError(f"cannot use {path}: {error}")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return InputError(
            f"cannot write {path}: {error}: make the file and its folder writable, or give "
            "another path"
        )
    kind = _DamagedError if code in _DAMAGE else StoreError
    remedy = _REMEDIES.get(code, "look after the disk and its free space")
    return kind(
        f"cannot write {path}: {error}; {remedy} and run the same sweep again: finished cells "
        "are kept"
    )
