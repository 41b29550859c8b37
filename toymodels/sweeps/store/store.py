"""A store: the finished cells of sweeps in one SQLite file that survives crashes and bad disks.

SQLite provides transactions, locks, and the undoing of a write that was cut off. `rows` says
what identifies a cell and how its row is checked; `salvage` repairs a damaged file. A store never
deletes a file.
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
from toymodels.sweeps.store.refusals import (
    PATIENCE,
    DamagedError,
    StoreError,
    check_path,
    translated,
)
from toymodels.sweeps.store.rows import Identity

_T = TypeVar("_T")


class Difference(NamedTuple):
    """The difference between the program of stored cells and another one of the same title.

    Attributes:
        cells: the number of stored cells of that program.
        changed: the stored text and the new text of each part that differs, by the name of the
            part. None stands for a part that one of the programs does not have.
    """

    cells: int
    changed: dict[str, tuple[str | None, str | None]]


class StoredProgram(NamedTuple):
    """The cells that a store holds of one program.

    Attributes:
        identity: the identity of the program; None if its description was damaged.
        cells: the number of stored cells.
        damaged: the number of damaged rows in quarantine.
        created: the time at which the first cell was stored, in UTC.
    """

    identity: Identity | None
    cells: int
    damaged: int
    created: str


class Verification(NamedTuple):
    """The result of a check of a whole store.

    Attributes:
        cells: the number of intact cells.
        quarantined: the number of damaged rows that this check moved out of the way.
        copies: the copies that were made of the file, because it was damaged, since it was opened.
    """

    cells: int
    quarantined: int
    copies: tuple[Path, ...]


class Store:
    """An open store. Processes and threads may share the file, each with a `Store` of its own.

    Attributes:
        path: the file.
        copies: the copies that were made of the file because it was damaged.
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool = True):
        """Open the file, or make it and its folder.

        Args:
            path: the file.
            create: whether to make the file if it does not exist.

        Raises:
            InputError: the path cannot be used, or its file is no store.
            StoreError: the disk is full, or another process does not release the file.
        """
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
        """Release the file. Everything was written before."""
        self._db.close()

    def read(
        self,
        identity: Identity,
        seeds: Int[np.ndarray, " cells"],
        numbers: Float64[np.ndarray, "cells axes"],
    ) -> tuple[Bool[np.ndarray, " cells"], Shaped[np.ndarray, " cells"]]:
        """Return which of these cells are stored, and their records.

        The record of a cell that is not stored is zero. A damaged row is quarantined, with a
        warning, and counts as not stored.
        """
        keys = rows.keys(identity, seeds, numbers)

        def work() -> tuple[dict[int, bytes], dict[int, int]]:
            whole: dict[int, bytes] = {}
            damaged: dict[int, int] = {}
            find = "SELECT rowid, record, checksum FROM cells WHERE (program,seed,point)=(?,?,?)"
            for place, key in enumerate(keys):
                for row, record, checksum in self._db.execute(find, key):
                    if rows.is_intact(*key, record, checksum):
                        whole[place] = record
                    else:
                        damaged[place] = row
            self._quarantine([*damaged.values()])
            return whole, damaged

        whole, damaged = self._transact(work)
        stored, records = np.zeros(len(keys), np.bool_), np.zeros(len(keys), identity.record)
        stored[[*whole]] = True
        records[stored] = np.ndarray(len(whole), identity.record, b"".join(whole.values()))
        if damaged:
            first = min(damaged)
            labels = zip(identity.axes, numbers[first], strict=True)
            cell = " ".join([f"seed={seeds[first]}", *(f"{name}={x}" for name, x in labels)])
            warnings.warn(
                f"{self.path}: {len(damaged)} of {len(keys)} cells are damaged and will be run "
                f"again; the first is {cell}",
                stacklevel=2,
            )
        return stored, records

    def write(
        self,
        identity: Identity,
        seeds: Int[np.ndarray, " cells"],
        numbers: Float64[np.ndarray, "cells axes"],
        records: Shaped[np.ndarray, " cells"],
    ) -> None:
        """Store finished cells: all of them or, after an error, none.

        A cell that is stored already stays as it is: another process has run it, too.
        """
        cells = rows.cells(identity, seeds, numbers, records)
        created = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time()))

        def work() -> None:
            self._db.execute(
                "INSERT INTO programs (number, title, identity, created) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET title = excluded.title, identity = excluded.identity "
                "WHERE identity IS NOT excluded.identity",  # the stored description is damaged
                (identity.number, identity.title, identity.text, created),
            )
            self._db.executemany("INSERT OR IGNORE INTO cells VALUES (?, ?, ?, ?, ?)", cells)

        self._transact(work)

    def programs(self) -> list[StoredProgram]:
        """Return what the store holds of each program, the first that was stored first."""

        def work() -> list[StoredProgram]:
            described: dict[int, tuple[Identity, str]] = {}
            for number, title, text, created in self._db.execute(
                "SELECT number, CAST(title AS TEXT), CAST(identity AS TEXT), CAST(created AS TEXT) "
                "FROM programs ORDER BY id"  # damage can change the type of a column
            ):
                if rows.is_description(text, number):
                    described[number] = (Identity.from_text(title, text), created)
            cells, damaged = (
                dict(self._db.execute(f"SELECT program, count(*) FROM {table} GROUP BY program"))
                for table in ("cells", "damaged")
            )
            stored: list[StoredProgram] = []
            for number in dict.fromkeys([*described, *cells, *damaged]):
                identity, created = described.get(number, (None, ""))
                counts = cells.get(number, 0), damaged.get(number, 0)
                stored.append(StoredProgram(identity, *counts, created))
            return stored

        return self._transact(work)

    def difference(self, identity: Identity) -> Difference | None:
        """Return what changed since cells of the same title were stored.

        If several programs have cells of this title, the one with the fewest changes counts, and
        of several such programs the newest.

        Returns:
            None if cells of this very program are stored, or no cells of this title.
        """
        differences: list[Difference] = []
        now = identity.aspects()
        for other, cells, *_ in reversed(self.programs()):
            if other is None or not cells:
                continue
            if other.number == identity.number:
                return None
            if other.title == identity.title:
                then = other.aspects()
                pairs = {name: (then.get(name), now.get(name)) for name in {**then, **now}}
                changed = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
                differences.append(Difference(cells, changed))
        return min(differences, key=lambda difference: len(difference.changed), default=None)

    def verify(self) -> Verification:
        """Check every row and the structure of the file, and quarantine damaged rows."""

        def work() -> Verification:
            if self._db.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                raise DamagedError(f"{self.path} is damaged")
            cells = self._db.execute("SELECT rowid, * FROM cells")
            damaged = [row for row, *cell in cells if not rows.is_intact(*cell)]
            self._quarantine(damaged)
            (intact,) = self._db.execute("SELECT count(*) FROM cells").fetchone()
            return Verification(intact, len(damaged), tuple(self.copies))

        return self._transact(work)

    def _quarantine(self, damaged: Sequence[int]) -> None:
        """Move damaged rows out of the way of new rows, in the transaction that found them."""
        numbers = [(row,) for row in damaged]
        self._db.executemany("INSERT INTO damaged SELECT * FROM cells WHERE rowid = ?", numbers)
        self._db.executemany("DELETE FROM cells WHERE rowid = ?", numbers)

    def _transact(self, work: Callable[[], _T]) -> _T:
        """Do all of `work` in one transaction or, after an error, nothing of it.

        If the file turns out to be damaged and can be repaired, the work is done again.
        """
        if self._moved():
            self.close()
            self._open()
        try:
            return self._attempt(work)
        except DamagedError:
            self._repair()
        return self._attempt(work)

    def _attempt(self, work: Callable[[], _T]) -> _T:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            result = work()
            self._db.execute("COMMIT")
        except BaseException as error:
            # If this fails, too, the journal stays, and whoever opens the file next undoes the
            # transaction.
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise translated(self.path, error) from error
            raise
        return result

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            check_path(self.path)
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"cannot use {self.path}: {reason}: give the path of a file in a folder that is "
                "yours to write"
            ) from error

        def work() -> None:
            """Write even if no table is missing, to learn now whether the file can be written."""
            (page,) = self._db.execute("PRAGMA page_size").fetchone()
            if os.path.getsize(self.path) % page:
                raise DamagedError(f"{self.path} is cut off")
            rows.create_tables(self._db)
            if not rows.has_our_tables(self._db):
                raise DamagedError(f"the tables of {self.path} were changed")

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
            raise translated(self.path, error) from error
        # In this mode a part of the cells is in a second file, which a copy or a repair of the
        # first would miss.
        with contextlib.suppress(sqlite3.Error):
            if self._db.execute("PRAGMA journal_mode").fetchone() == ("wal",):
                self._db.execute("PRAGMA journal_mode = DELETE")
        self._inode = os.stat(self.path).st_ino

    def _moved(self) -> bool:
        """Return whether the path no longer leads to the file that is open."""
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
