"""The tables of a store file: what identifies a program and a cell, and how a row is checked.

A cell is found by everything that its bits depend on: its program, its seed and its numbers. The
full description of a program is stored once; everywhere else a digest stands for it. Each row of
a cell has a checksum of the whole row. So a row whose checksum is right can be trusted wherever
in the file it was found.
"""

import hashlib
import json
import os
import sqlite3
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int, Shaped

from toymodels.errors import InputError

APPLICATION = int.from_bytes(b"toym")
"""The number in the header of a store file that says that the file is a store."""
FORMAT = 1
"""The version of the tables and of the checksum; it changes with them."""
PAGE = 4096
"""The number of bytes in a page of a store file."""
_TABLES = """
CREATE TABLE IF NOT EXISTS programs
    (id INTEGER PRIMARY KEY, number INTEGER UNIQUE, title TEXT, identity TEXT, created TEXT);
CREATE TABLE IF NOT EXISTS cells
    (program INTEGER, seed INTEGER, point BLOB, record BLOB, checksum BLOB,
     UNIQUE (program, seed, point));
CREATE TABLE IF NOT EXISTS damaged
    (program INTEGER, seed INTEGER, point BLOB, record BLOB, checksum BLOB);
"""


class Identity(NamedTuple):
    """Everything that the bits of a cell depend on besides its seed and its numbers.

    Attributes:
        title: the name of the sweep for people; it is not part of the identity.
        parts: text by name: the hash of the program, the block width, versions, processor, ...
        axes: the names of the numbers of a cell.
        record: the type of the outputs of a cell, packed and little-endian on every machine.
        text: everything but the title, as one canonical text.
        number: the first 64 bits of the digest of `text`.
    """

    title: str
    parts: Mapping[str, str]
    axes: tuple[str, ...]
    record: np.dtype[np.void]
    text: str
    number: int

    @staticmethod
    def of(
        parts: Mapping[str, str], *, title: str, axes: Sequence[str], record: np.dtype[Any]
    ) -> "Identity":
        """Make the identity of a program.

        Args:
            parts: as in the class.
            title: as in the class.
            axes: as in the class.
            record: a structured type with one field for each output.
        """
        fields = _fields(record)
        described = {"axes": list(axes), "layout": fields, "parts": dict(parts)}
        text = json.dumps(described, sort_keys=True, separators=(",", ":"))
        return Identity(title, dict(parts), tuple(axes), np.dtype(fields), text, _digest(text))

    @staticmethod
    def from_text(title: str, text: str) -> "Identity":
        """Make the identity that a canonical text describes."""
        described = json.loads(text)
        fields = [(name, code, tuple(shape)) for name, code, shape in described["layout"]]
        parts, axes = described["parts"], described["axes"]
        return Identity.of(parts, title=title, axes=axes, record=np.dtype(fields))

    def aspects(self) -> dict[str, str]:
        """Return the parts, and the axes and the record as if they were parts."""
        return {"axes": ", ".join(self.axes), "layout": str(self.record), **self.parts}


def connect(path: str | os.PathLike[str], *, patience: float = 0) -> sqlite3.Connection:
    """Open a database in which only our own commands begin and end transactions.

    Text that damage has made invalid is read with replacement characters.

    Args:
        path: the file, or ":memory:" for a database in memory.
        patience: for how many seconds to wait for a lock of another process.
    """
    db = sqlite3.connect(path, timeout=patience, isolation_level=None)
    db.text_factory = lambda text: text.decode(errors="replace")
    db.execute(f"PRAGMA page_size = {PAGE}")
    return db


def create_tables(db: sqlite3.Connection) -> None:
    """Create the tables that are missing. This writes to the file even if no table is missing."""
    for statement in _TABLES.split(";"):
        db.execute(statement)
    db.execute(f"PRAGMA application_id = {APPLICATION}")
    db.execute(f"PRAGMA user_version = {FORMAT}")


def has_our_tables(db: sqlite3.Connection) -> bool:
    """Return whether the tables are as `create_tables` makes them and no trigger changes them.

    A trigger, a view in the place of a table, or a table without its unique key would silently
    lose cells or store them twice.
    """
    ours = {" ".join(table.replace("IF NOT EXISTS ", "").split()) for table in _TABLES.split(";")}
    found = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    names = {"programs", "cells", "damaged"}
    tables = {" ".join(str(sql).split()) for kind, _, _, sql in found if kind == "table"}
    return ours - {""} <= tables and not any(
        kind == "trigger" and table in names for kind, _, table, _ in found
    )


def keys(
    identity: Identity,
    seeds: Int[np.ndarray, " cells"],
    numbers: Float64[np.ndarray, "cells axes"],
) -> list[tuple[int, int, bytes]]:
    """Return the first three columns of the row of each cell: program, seed and numbers."""
    if numbers.shape[1] != len(identity.axes):
        raise ValueError(f"a cell has {numbers.shape[1]} numbers: give {len(identity.axes)}")
    little = (numbers + 0.0).astype("<f8")  # -0.0 is stored as 0.0
    return [(identity.number, int(s), n.tobytes()) for s, n in zip(seeds, little, strict=True)]


def cells(
    identity: Identity,
    seeds: Int[np.ndarray, " cells"],
    numbers: Float64[np.ndarray, "cells axes"],
    records: Shaped[np.ndarray, " cells"],
) -> list[tuple[int, int, bytes, bytes, bytes]]:
    """Return the rows of finished cells."""
    if _fields(records.dtype) != _fields(identity.record):  # a cast would change the outputs
        raise ValueError(f"records are {records.dtype}: the program has {identity.record}")
    packed = [record.tobytes() for record in records.astype(identity.record)]
    return [
        (*key, record, _checksum(*key, record))
        for key, record in zip(keys(identity, seeds, numbers), packed, strict=True)
    ]


def is_intact(program: Any, seed: Any, numbers: Any, record: Any, checksum: Any) -> bool:
    """Return whether the row of a cell still is as it was written.

    Damage can give a column any value of any type.
    """
    try:
        return _checksum(program, seed, numbers, record) == checksum
    except (TypeError, struct.error):
        return False


def is_description(text: Any, number: Any) -> bool:
    """Return whether the description of a program still is as it was written."""
    return isinstance(text, str) and _digest(text) == number


def _fields(record: np.dtype[Any]) -> list[tuple[str, str, tuple[int, ...]]]:
    """Return the name, type and shape of each field of a packed structure."""
    fields: list[tuple[str, str, tuple[int, ...]]] = []
    for name in record.names or ():
        base, shape = record[name].base, record[name].shape
        if base.kind not in "biufc":
            raise InputError(
                f"output {name!r} has type {base}, which a store cannot keep: return booleans, "
                "integers or floats that numpy has, such as float32"
            )
        fields.append((name, base.newbyteorder("<").str, shape))
    return fields


def _digest(text: str) -> int:
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def _checksum(program: int, seed: int, numbers: bytes, record: bytes) -> bytes:
    """Return a checksum of 64 bits.

    So many bits tell real rows from chance matches when `salvage` searches a damaged file.
    """
    row = struct.pack("<qq", program, seed) + numbers + record
    return hashlib.blake2b(row, digest_size=8).digest()
