"""Finished cells of sweeps in one SQLite file that outlives crashes, copies and bad disks.

A cell is found by all that its bits depend on: its program, its seed and its point. SQLite
brings transactions, locks and the undoing of a write that was cut off. Every row brings a
checksum of the whole of it, so a row that checks is right wherever it was found: that is why
a damaged file can be searched page by page for what is left. A file is never deleted.
"""

import contextlib
import hashlib
import itertools
import json
import os
import sqlite3
import struct
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float64, Int, Shaped
from numpy.typing import NDArray

from toymodels.errors import InputError

T = TypeVar("T")

APPLICATION = int.from_bytes(b"toym")
"""In the header of our files, at byte 68."""
FORMAT = 1
"""Changes with the tables and the checksum."""
PATIENCE = 60
"""Seconds to wait for other processes, whose transactions take milliseconds, or for a reader."""
_PAGE = 4096
_TABLES = """
CREATE TABLE IF NOT EXISTS programs
    (id INTEGER PRIMARY KEY, number INTEGER UNIQUE, title TEXT, identity TEXT, created TEXT);
CREATE TABLE IF NOT EXISTS cells
    (program INTEGER, seed INTEGER, point BLOB, record BLOB, checksum BLOB,
     UNIQUE (program, seed, point));
CREATE TABLE IF NOT EXISTS damaged
    (program INTEGER, seed INTEGER, point BLOB, record BLOB, checksum BLOB);
"""
_INSERT = "INSERT OR IGNORE INTO cells VALUES (?, ?, ?, ?, ?)"
# The last is for tables that are not as we made them.
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
_REMEDIES = {
    sqlite3.SQLITE_FULL: "free some space",
    sqlite3.SQLITE_IOERR: "look after the disk and its free space",
    sqlite3.SQLITE_BUSY: f"end the process that has used it for {PATIENCE} s",
}


class StoreError(OSError):
    """The disk or another process is in the way. All that was written before is kept."""


class _DamagedError(StoreError):
    """A reason to salvage."""


class Program(NamedTuple):
    """All that the bits of a cell may depend on beside its seed and its point.

    Attributes:
        title: what people call it; not part of the identity.
        parts: name to text: hash of the program, block width, versions, processor, ...
        axes: names of the numbers that make a point.
        layout: what one cell returns, packed and little-endian on every machine.
        identity: canonical text of all but the title.
        number: first 64 bits of the digest of `identity`.
    """

    title: str
    parts: Mapping[str, str]
    axes: tuple[str, ...]
    layout: np.dtype[np.void]
    identity: str
    number: int

    @staticmethod
    def of(
        parts: Mapping[str, str], *, title: str, axes: Sequence[str], layout: np.dtype[Any]
    ) -> "Program":
        """Digest the parts; `layout` is a structured type with one field per output."""
        fields = _fields(layout)
        described = {"axes": list(axes), "layout": fields, "parts": dict(parts)}
        identity = json.dumps(described, sort_keys=True, separators=(",", ":"))
        number = _number(identity)
        return Program(title, dict(parts), tuple(axes), np.dtype(fields), identity, number)

    @staticmethod
    def stored(title: str, identity: str) -> "Program":
        """The program that was described by `identity`."""
        described = json.loads(identity)
        fields = [(name, code, tuple(shape)) for name, code, shape in described["layout"]]
        parts, axes = described["parts"], described["axes"]
        return Program.of(parts, title=title, axes=axes, layout=np.dtype(fields))

    def aspects(self) -> dict[str, str]:
        """The parts, and the rest of the identity as if it were parts."""
        return {"axes": ", ".join(self.axes), "layout": str(self.layout), **self.parts}


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
        self.path = Path(path).absolute()
        self.copies: list[Path] = []
        if not create and not os.path.exists(self.path):
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
        keys = _keys(program, seeds, points)

        def work() -> tuple[dict[int, bytes], dict[int, tuple[int, Any]]]:
            whole: dict[int, bytes] = {}
            bad: dict[int, tuple[int, Any]] = {}
            find = "SELECT rowid, record, checksum FROM cells WHERE (program,seed,point)=(?,?,?)"
            for place, key in enumerate(keys):
                for row, record, checksum in self._db.execute(find, key):
                    if _intact(*key, record, checksum):
                        whole[place] = record
                    else:
                        bad[place] = row, checksum
            return whole, bad

        whole, bad = self._transact("DEFERRED", work)
        stored, records = np.zeros(len(keys), np.bool_), np.zeros(len(keys), program.layout)
        stored[list(whole)] = True
        records[stored] = np.ndarray(len(whole), program.layout, b"".join(whole.values()))
        if bad:
            self._set_aside(list(bad.values()))
            first = min(bad)
            point = zip(program.axes, points[first], strict=True)
            cell = " ".join([f"seed={seeds[first]}", *(f"{name}={x}" for name, x in point)])
            warnings.warn(
                f"{self.path}: {len(bad)} of {len(keys)} cells are damaged and set aside, to be "
                f"run again; the first is {cell}",
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
        if _fields(records.dtype) != _fields(program.layout):  # a cast would change numbers
            raise ValueError(f"records are {records.dtype}: the program has {program.layout}")
        pieces = _pieces(records.astype(program.layout))
        rows = [
            (*key, record, _checksum(*key, record))
            for key, record in zip(_keys(program, seeds, points), pieces, strict=True)
        ]
        created = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time()))

        def work() -> None:
            self._db.execute(
                "INSERT INTO programs (number, title, identity, created) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET title = excluded.title, identity = excluded.identity "
                "WHERE identity IS NOT excluded.identity",  # it was damaged
                (program.number, program.title, program.identity, created),
            )
            self._db.executemany(_INSERT, rows)

        self._transact("IMMEDIATE", work)

    def programs(self) -> list[Holding]:
        """What the store holds, in the order in which it came."""

        def work() -> list[Holding]:
            cells, damaged = (
                dict(self._db.execute(f"SELECT program, count(*) FROM {table} GROUP BY program"))
                for table in ("cells", "damaged")
            )
            described = {
                number: (Program.stored(_text(title), _text(identity)), _text(created))
                for number, title, identity, created in self._db.execute(
                    "SELECT number, title, identity, created FROM programs ORDER BY id"
                )
                if number == _number(_text(identity))
            }
            return [
                Holding(program, cells.get(number, 0), damaged.get(number, 0), created)
                for number in dict.fromkeys([*described, *cells, *damaged])
                for program, created in (described.get(number, (None, "")),)
            ]

        return self._transact("DEFERRED", work)

    def differences(self, program: Program) -> Difference | None:
        """What changed since cells of the same title were stored, if none of these are.

        Of several such programs the one with the fewest changes, and of those the newest.
        """
        nearest: Difference | None = None
        now = program.aspects()
        for other, cells, *_ in reversed(self.programs()):
            if other is None or not cells:
                continue
            if other.number == program.number:
                return None
            then = other.aspects()
            names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
            if other.title == program.title and (
                nearest is None or len(names) < len(nearest.changed)
            ):
                changed = {name: (then.get(name), now.get(name)) for name in names}
                nearest = Difference(cells, changed)
        return nearest

    def verify(self) -> Verified:
        """Check every row, and the file as SQLite sees it; set aside what is wrong."""

        def work() -> tuple[int, list[tuple[int, Any]]]:
            if self._db.execute("PRAGMA integrity_check").fetchone() != (b"ok",):
                raise _DamagedError(f"{self.path} is damaged")
            rows = self._db.execute("SELECT rowid, * FROM cells")
            bad = [(row, cell[-1]) for row, *cell in rows if not _intact(*cell)]
            return self._db.execute("SELECT count(*) FROM cells").fetchone()[0] - len(bad), bad

        cells, bad = self._transact("DEFERRED", work)
        self._set_aside(bad)
        return Verified(cells, len(bad), tuple(self.copies))

    def _set_aside(self, rows: Sequence[tuple[int, Any]]) -> None:
        """Move rows, given with their checksums lest another process has just put new ones."""

        def work() -> None:
            these = "FROM cells WHERE rowid = ? AND checksum IS ?"
            self._db.executemany(f"INSERT INTO damaged SELECT * {these}", rows)
            self._db.executemany(f"DELETE {these}", rows)

        if rows:
            self._transact("IMMEDIATE", work)

    def _transact(self, kind: str, work: Callable[[], T]) -> T:
        """All of `work` or nothing; again if the file was damaged and could be repaired."""
        if self._moved():
            self.close()
            self._open()
        try:
            return self._attempt(kind, work)
        except _DamagedError:
            self._salvage()
        return self._attempt(kind, work)

    def _attempt(self, kind: str, work: Callable[[], T]) -> T:
        try:
            self._db.execute(f"BEGIN {kind}")
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
        except OSError as error:
            raise InputError(
                f"cannot use {self.path}: {error}: give the path of a file in a folder that is "
                "yours to write"
            ) from error

        def work() -> None:
            """Writes even where nothing is missing, to learn now whether we may."""
            if os.path.getsize(self.path) % _PAGE:
                raise _DamagedError(f"{self.path} is cut off")
            _create(self._db)

        self._connect()
        try:
            self._transact("IMMEDIATE", work)
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        try:
            self._db = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)
        except sqlite3.Error as error:
            raise _refusal(self.path, error) from error
        self._inode = os.stat(self.path).st_ino
        self._db.text_factory = bytes  # a damaged text need not be UTF-8
        self._db.execute(f"PRAGMA page_size = {_PAGE}")

    def _moved(self) -> bool:
        """Whether the path no longer leads to the file that is open."""
        try:
            return os.stat(self.path).st_ino != self._inode
        except OSError:
            return True

    def _salvage(self) -> None:
        """Keep a copy of a damaged file, and leave in it what could be read.

        In place and in one transaction of SQLite's: a new file under the old name would share
        its journal with the old file, which other processes may have open.
        """
        copy, kept, lost = None, 0, 0
        try:
            # To close a file is to drop its locks, so it stays open to the end.
            with open(self.path, "r+b", buffering=0) as file, contextlib.closing(self._db):
                before = self._lock_damaged(file)
                if not self._sound():  # by another process, while we waited for the lock
                    with contextlib.closing(sqlite3.connect("", isolation_level=None)) as new:
                        kept, lost = _insert(new, _rows(before))
                        copy = _free_name(self.path)
                        try:
                            copy.write_bytes(before)
                            new.backup(self._db)
                        except (OSError, sqlite3.Error):
                            copy.unlink(missing_ok=True)
                            raise
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"{self.path} is damaged and cannot be repaired: {error}; make room beside it, "
                "end what else uses it, or give another path"
            ) from error
        self._connect()
        if copy:
            self.copies.append(copy)
            warnings.warn(
                f"{self.path} was damaged: {kept} cells could be read and are kept, {lost} rows "
                f"were wrong and are not; {copy} is the file as it was",
                stacklevel=2,
            )

    def _lock_damaged(self, file: FileIO) -> bytes:
        """Keep other processes off until the connection is closed; what the file holds."""
        head = file.read(100)
        self._db.execute("PRAGMA writable_schema = ON")  # or a cut file cannot be locked
        try:
            self._db.execute("BEGIN EXCLUSIVE")
        except sqlite3.DatabaseError as error:
            if _code(error) != sqlite3.SQLITE_NOTADB:
                raise
            # A header to lock it by, which says that pages are missing.
            file.seek(0)
            file.write(_first_page(2**31 - 1)[:100])
            self._db.execute("BEGIN EXCLUSIVE")
        else:
            file.seek(0)
            head = file.read(100)
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")  # from now on, beyond transactions
        self._db.execute("ROLLBACK")
        file.seek(100)
        return head + file.read()

    def _sound(self) -> bool:
        self._db.execute("PRAGMA writable_schema = OFF")
        try:
            sound = self._db.execute("PRAGMA integrity_check").fetchone() == (b"ok",)
        except sqlite3.DatabaseError:
            return False
        finally:
            self._db.execute("PRAGMA writable_schema = ON")
        return sound and os.path.getsize(self.path) % _PAGE == 0


def _create(db: sqlite3.Connection) -> None:
    for statement in _TABLES.split(";"):
        db.execute(statement)
    db.execute(f"PRAGMA application_id = {APPLICATION}")
    db.execute(f"PRAGMA user_version = {FORMAT}")


def _insert(db: sqlite3.Connection, rows: Iterator[tuple[Any, ...]]) -> tuple[int, int]:
    """Make a store of the rows of any tables that are right; how many cells were, and were not."""
    db.execute(f"PRAGMA page_size = {_PAGE}")
    db.execute("BEGIN")
    _create(db)
    lost = 0
    for row, *columns in rows:
        first, number, _, identity, _ = columns
        if first is None and number == _number(_text(identity)):
            insert = "INSERT OR IGNORE INTO programs VALUES (?, ?, ?, ?, ?)"
            db.execute(insert, (row, *columns[1:]))
        elif _intact(*columns):
            db.execute(_INSERT, columns)
        else:
            lost += 1
    db.execute("COMMIT")
    return db.execute("SELECT count(*) FROM cells").fetchone()[0], lost


def _code(error: sqlite3.Error) -> int:
    """Without what SQLite adds in the upper bits; 0 for an error that is not SQLite's."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _refusal(path: Path, error: sqlite3.Error) -> Exception:
    """What to raise for what SQLite raised."""
    code = _code(error)
    if not code:  # the store is closed, or of another thread
        return RuntimeError(f"cannot use {path}: {error}")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return InputError(
            f"cannot write {path}: {error}: make the file and its folder writable, or give "
            "another path"
        )
    kind = _DamagedError if code in _DAMAGE else StoreError
    remedy = _REMEDIES.get(code, "look after the disk")
    return kind(
        f"cannot write {path}: {error}; {remedy} and run the same sweep again: finished cells "
        "are kept"
    )


def _number(identity: str) -> int:
    """First 64 bits of the digest."""
    digest = hashlib.sha256(identity.encode(errors="replace")).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def _fields(layout: np.dtype[Any]) -> list[tuple[str, str, tuple[int, ...]]]:
    """Name, type and shape of each field: text and numbers that say all of a packed layout."""
    fields: list[tuple[str, str, tuple[int, ...]]] = []
    for name in layout.names or ():
        base, shape = layout[name].base, layout[name].shape
        if base.kind not in "biufc":
            raise InputError(
                f"output {name!r} has type {base}, which a store cannot keep: return booleans, "
                "integers or floats that numpy has, such as float32"
            )
        fields.append((name, base.newbyteorder("<").str, shape))
    return fields


def _keys(
    program: Program, seeds: Int[np.ndarray, " cells"], points: Float64[np.ndarray, "cells axes"]
) -> list[tuple[int, int, bytes]]:
    """Program, seed and point of each cell as they stand in a row."""
    if points.shape[1] != len(program.axes):
        raise ValueError(f"points have {points.shape[1]} numbers: give {len(program.axes)}")
    pieces = _pieces((points + 0.0).astype("<f8"))  # -0.0 is the same point as 0.0
    return [(program.number, s, p) for s, p in zip(seeds.tolist(), pieces, strict=True)]


def _pieces(array: NDArray[Any]) -> list[bytes]:
    """The bytes of each element along the first axis."""
    raw, size = array.tobytes(), array.nbytes // max(len(array), 1)
    return [raw[place * size : (place + 1) * size] for place in range(len(array))]


def _checksum(program: int, seed: int, point: bytes, record: bytes) -> bytes:
    """64 bits, for a damaged file is searched for rows that check among many that need not."""
    row = struct.pack("<qq", program, seed) + point + record
    return hashlib.blake2b(row, digest_size=8).digest()


def _intact(program: Any, seed: Any, point: Any, record: Any, checksum: Any) -> bool:
    """Whether a row is as it was written, whatever it holds now."""
    try:
        return _checksum(program, seed, point, record) == checksum
    except (TypeError, struct.error):
        return False


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def _check_ours(path: Path) -> None:
    """Refuse a file of another kind, or of a later format, and leave it as it is.

    Looks without a lock and without writing; through SQLite where that can read the file, for
    to close it otherwise would drop the locks that another `Store` of this process has on it.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the path of a file in it")
    if not path.exists() or not path.stat().st_size:
        return
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
            db.execute("PRAGMA writable_schema = ON")  # or a cut file would not answer
            application, version, pages = (
                db.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("application_id", "user_version", "page_count")
            )
    except sqlite3.DatabaseError:
        application, version, pages = 0, 0, 0
    if not pages or path.stat().st_size < 100:
        head = path.read_bytes()[:100]
        cut = len(head) < 72 and b"SQLite format 3\0".startswith(head[:16])
        application = APPLICATION if cut else int.from_bytes(head[68:72])
    if application != APPLICATION:
        raise InputError(
            f"{path} is no store of finished cells and is left as it is: give another path"
        )
    if version > FORMAT:
        raise InputError(
            f"{path} has format {version}, and this version of toymodels knows {FORMAT}: install "
            "the version that wrote it, or give another path"
        )


def _free_name(path: Path) -> Path:
    names = (f"{path}.damaged{number or ''}" for number in itertools.count())
    return next(Path(name) for name in names if not os.path.exists(name))


def _first_page(count: int) -> bytes:
    """Of an empty database that says it has `count` pages."""
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.execute(f"PRAGMA page_size = {_PAGE}")
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        page = db.serialize()
    return page[:28] + count.to_bytes(4, "big") + page[32:]


def _rows(pages: bytes) -> Iterator[tuple[Any, ...]]:
    """Number and columns of all rows on any page of a file, whatever else is damaged.

    Python has no SQLite that can do this by itself. So each leaf page becomes the root of a
    table of its own, in a schema that stands on a new first page.
    """
    count = -(-len(pages) // _PAGE)
    pages = pages.ljust(count * _PAGE, b"\0")
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.deserialize(_first_page(count) + pages[_PAGE:])
        leaves = [(n,) for n in range(2, count + 1) if pages[(n - 1) * _PAGE] == 13]
        db.text_factory = bytes
        db.execute("PRAGMA writable_schema = ON")
        db.executemany(
            "INSERT INTO sqlite_master VALUES ('table', 'leaf' || ?1, 'leaf' || ?1, ?1, "
            "'CREATE TABLE leaf' || ?1 || ' (a, b, c, d, e)')",
            leaves,
        )
        db.execute("PRAGMA writable_schema = RESET")
        for (leaf,) in leaves:
            found: dict[tuple[Any, ...], None] = {}
            for order in ("ASC", "DESC"):  # to what is damaged, from both ends
                try:
                    for row in db.execute(
                        f"SELECT rowid, * FROM leaf{leaf} ORDER BY rowid {order}"
                    ):
                        found[row] = None
                    break
                except sqlite3.DatabaseError:
                    continue
            yield from found
