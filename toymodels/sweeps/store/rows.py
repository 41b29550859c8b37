"""What stands in a store file: programs, cells, and how a row shows that it is whole.

A cell is found by all that its bits depend on: its program, its seed and its point. A program
is described in full once and known by a digest everywhere else. Every cell brings a checksum of
the whole of its row, so a row that checks is right wherever it was found.
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
"""In the header of our files, at byte 68."""
FORMAT = 1
"""Changes with the tables and the checksum."""
PAGE = 4096
"""Bytes in a page of a file."""
_TABLES = """
CREATE TABLE IF NOT EXISTS programs
    (id INTEGER PRIMARY KEY, number INTEGER UNIQUE, title TEXT, identity TEXT, created TEXT);
CREATE TABLE IF NOT EXISTS cells
    (program INTEGER, seed INTEGER, point BLOB, record BLOB, checksum BLOB,
     UNIQUE (program, seed, point));
CREATE TABLE IF NOT EXISTS damaged
    (program INTEGER, seed INTEGER, point BLOB, record BLOB, checksum BLOB);
"""


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
        number = _digest(identity)
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


def connect(path: str | os.PathLike[str], *, patience: float = 0) -> sqlite3.Connection:
    """Where transactions begin and end only by command; a damaged text need not be UTF-8."""
    db = sqlite3.connect(path, timeout=patience, isolation_level=None)
    db.text_factory = lambda text: text.decode(errors="replace")
    db.execute(f"PRAGMA page_size = {PAGE}")
    return db


def create_tables(db: sqlite3.Connection) -> None:
    """Those that are missing; writes even where none is."""
    for statement in _TABLES.split(";"):
        db.execute(statement)
    db.execute(f"PRAGMA application_id = {APPLICATION}")
    db.execute(f"PRAGMA user_version = {FORMAT}")


def has_our_tables(db: sqlite3.Connection) -> bool:
    """Whether the tables are as `create_tables` makes them, and no trigger interferes.

    A trigger, a view or a table without its unique key would lose or double cells silently.
    """
    ours = {" ".join(table.replace("IF NOT EXISTS ", "").split()) for table in _TABLES.split(";")}
    found = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    names = {"programs", "cells", "damaged"}
    tables = {" ".join(str(sql).split()) for kind, _, _, sql in found if kind == "table"}
    return ours - {""} <= tables and not any(
        kind == "trigger" and table in names for kind, _, table, _ in found
    )


def keys(
    program: Program, seeds: Int[np.ndarray, " cells"], points: Float64[np.ndarray, "cells axes"]
) -> list[tuple[int, int, bytes]]:
    """Program, seed and point of each cell as they stand in its row."""
    if points.shape[1] != len(program.axes):
        raise ValueError(f"points have {points.shape[1]} numbers: give {len(program.axes)}")
    little = (points + 0.0).astype("<f8")  # -0.0 is the same point as 0.0
    return [(program.number, int(s), p.tobytes()) for s, p in zip(seeds, little, strict=True)]


def cells(
    program: Program,
    seeds: Int[np.ndarray, " cells"],
    points: Float64[np.ndarray, "cells axes"],
    records: Shaped[np.ndarray, " cells"],
) -> list[tuple[int, int, bytes, bytes, bytes]]:
    """The rows of finished cells."""
    if _fields(records.dtype) != _fields(program.layout):  # a cast would change numbers
        raise ValueError(f"records are {records.dtype}: the program has {program.layout}")
    packed = [record.tobytes() for record in records.astype(program.layout)]
    return [
        (*key, record, _checksum(*key, record))
        for key, record in zip(keys(program, seeds, points), packed, strict=True)
    ]


def intact(program: Any, seed: Any, point: Any, record: Any, checksum: Any) -> bool:
    """Whether the row of a cell is as it was written, whatever it holds now."""
    try:
        return _checksum(program, seed, point, record) == checksum
    except (TypeError, struct.error):
        return False


def describes(identity: Any, number: Any) -> bool:
    """Whether the description of a program is as it was written, whatever it is now."""
    return isinstance(identity, str) and _digest(identity) == number


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


def _digest(identity: str) -> int:
    digest = hashlib.sha256(identity.encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def _checksum(program: int, seed: int, point: bytes, record: bytes) -> bytes:
    """64 bits, for a damaged file is searched for rows that check among many that need not."""
    row = struct.pack("<qq", program, seed) + point + record
    return hashlib.blake2b(row, digest_size=8).digest()
