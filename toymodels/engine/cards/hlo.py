"""The kernels and loops of a compiled program, read from its text.

The text is XLA's optimised HLO, in which every instruction of a loop is one kernel, apart from
those that only name or regroup arrays. An instruction reads its operands from the memory of the
card and writes its outputs there.
"""

import math
import re
from typing import NamedTuple

# Instructions that start no kernel. Loops, branches and calls start the kernels inside them.
_FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast after-all while conditional call".split()
)
_BITS = {"pred": 8, "s4": 4, "u4": 4, "c64": 64, "c128": 128}


class Kernel(NamedTuple):
    """One kernel of a program.

    Attributes:
        name: its name in the machine code.
        traffic: the bytes that it reads and writes. An array of which it takes single rows counts
            with these rows.
        library: the library that it belongs to, such as cuBLAS; empty if XLA wrote it.
    """

    name: str
    traffic: int
    library: str


class Loop(NamedTuple):
    """A loop of a program, or the whole program, which is run once.

    Attributes:
        turns: the number of turns; None if it is known only when the program runs. The card then
            waits for the host after every turn.
        kernels: the kernels of one turn, without those of inner loops and of branches.
        loops: the loops inside it.
        branches: the branches of one turn, each of which waits for the host.
    """

    turns: int | None
    kernels: list[Kernel]
    loops: list["Loop"]
    branches: int


class _Instruction(NamedTuple):
    """One instruction of a program, with its whole line as `text`."""

    name: str
    shape: str
    kind: str
    operands: list[str]
    text: str

    @property
    def bytes(self) -> int:
        """The bytes of its output."""
        return sum(_size(kind, dims) for kind, dims in re.findall(r"(\w+)\[([\d,]*)\]", self.shape))

    def called(self, attribute: str) -> str:
        """Return the name of the computation that it calls as its "body", for example."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.text)
        assert found is not None, self.text
        return found[1]


def read(text: str) -> Loop:
    """Return the loops and kernels of a program from the text of its optimised HLO."""
    parts = _computations(text)
    entry = re.search(r"^ENTRY %?([\w.\-]+)", text, re.MULTILINE)
    assert entry is not None
    return _loop(parts, entry[1], turns=1)


def _loop(parts: dict[str, list[_Instruction]], name: str, turns: int | None) -> Loop:
    """Return the loop whose body is the computation with this name."""
    loop = Loop(turns, [], [], 0)
    sizes = {instruction.name: instruction.bytes for instruction in parts[name]}
    for instruction in parts[name]:
        if instruction.kind == "while":
            known = re.search(r'known_trip_count":\{"n":"(\d+)"', instruction.text)
            inner = _loop(parts, instruction.called("body"), int(known[1]) if known else None)
            loop.loops.append(inner)
        elif instruction.kind == "call":
            inner = _loop(parts, instruction.called("to_apply"), turns)
            loop.kernels.extend(inner.kernels)
            loop.loops.extend(inner.loops)
            loop = loop._replace(branches=loop.branches + inner.branches)
        elif instruction.kind == "conditional":
            loop = loop._replace(branches=loop.branches + 1)
        elif instruction.kind not in _FREE:
            loop.kernels.append(_kernel(parts, instruction, sizes))
    return loop


def _kernel(
    parts: dict[str, list[_Instruction]], instruction: _Instruction, sizes: dict[str, int]
) -> Kernel:
    """Return the kernel of an instruction; `sizes` are the bytes of its operands by name."""
    read = [sizes[operand] for operand in instruction.operands]
    written = instruction.bytes
    if instruction.kind == "fusion":
        read, written = _partial(parts[instruction.called("calls")], read, written)
    same = re.search(r'deduplicated_name="([\w.\-]+)"', instruction.text)
    library = re.search(r'custom_call_target="([^"]+)"', instruction.text)
    return Kernel(
        name=re.sub(r"\W", "_", same[1] if same else instruction.name),
        traffic=sum(read) + written,
        library=library[1] if library else "",
    )


def _partial(body: list[_Instruction], read: list[int], written: int) -> tuple[list[int], int]:
    """Count only the rows of arrays that a fusion takes rows from, or puts rows into."""
    sizes = {instruction.name: instruction.bytes for instruction in body}
    for instruction in body:
        if instruction.kind == "parameter":
            users = [each for each in body if instruction.name in each.operands]
            rows = [_rows(each, instruction.name, sizes) for each in users]
            place = int(re.findall(r"parameter\((\d+)\)", instruction.text)[0])
            read[place] = min(read[place], sum(rows))
        elif instruction.kind == "dynamic-update-slice":
            written -= instruction.bytes - sizes[instruction.operands[1]]
    return read, max(written, 0)


def _rows(user: _Instruction, name: str, sizes: dict[str, int]) -> int:
    """Return the bytes that an instruction of a fusion reads of the array with this name."""
    if user.kind in ("dynamic-slice", "gather") and user.operands[0] == name:
        return user.bytes
    if user.kind == "dynamic-update-slice" and user.operands[0] == name:
        return 0
    return sizes[name]


def _computations(text: str) -> dict[str, list[_Instruction]]:
    """Return the instructions of each computation of a program by its name."""
    found: dict[str, list[_Instruction]] = {}
    lines: list[_Instruction] = []
    for line in text.splitlines():
        if head := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            lines = found[head[1]] = []
        elif body := re.match(
            r"  (?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\(([^)]*)\)", line
        ):
            name, shape, kind, operands = body.groups()
            names = re.findall(r"%([\w.\-]+)", operands)
            lines.append(_Instruction(name, shape, kind, names, line))
    return found


def _size(kind: str, dims: str) -> int:
    """Return the bytes of an array, such as 12 for ("f32", "3")."""
    bits = _BITS.get(kind) or int((re.findall(r"\d+", kind) or ["0"])[0])
    return math.prod(int(number) for number in dims.split(",") if number) * bits // 8
