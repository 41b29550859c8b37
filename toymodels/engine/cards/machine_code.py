"""The machine code of kernels: instructions, registers, and registers kept in slow memory."""

import re
import subprocess
import tempfile
from collections.abc import Collection, Iterable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from toymodels.errors import InputError

INSTALL = "pip install 'toymodels[gpu-inspect]'"


class Code(NamedTuple):
    """The machine code of one kernel.

    Attributes:
        instructions: how many a warp of 32 threads issues from start to end, where those of a
            loop inside the kernel count once.
        registers: the number of registers of a thread.
        spills: the bytes of a thread that found no register and are stored in memory.
    """

    instructions: int
    registers: int
    spills: int


def of_kernels(programs: Iterable[str], names: Collection[str]) -> dict[str, Code]:
    """Translate programs in PTX to machine code.

    Args:
        programs: the text of one kernel each, as XLA writes it.
        names: the names of the kernels that are wanted.

    Returns:
        The code of each kernel by its name.

    Raises:
        InputError: the assembler or the disassembler is not installed.
    """
    assembler = _tool("nvidia-cuda-nvcc-cu12", "ptxas")
    disassembler = _tool("nvidia-cuda-nvdisasm", "nvdisasm")
    found: dict[str, Code] = {}
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        for program in programs:
            wanted = [name for name in re.findall(r"\.entry (\w+)", program) if name in names]
            if not wanted:
                continue
            source.write_text(program)
            card = re.findall(r"^\.target (\w+)", program, re.MULTILINE)[0]
            said = _run(assembler, "-v", f"-arch={card}", str(source), "-o", str(binary))
            listing = _run(disassembler, "-c", str(binary))
            found |= dict.fromkeys(wanted, read(said, listing))
    return found


def read(said: str, listing: str) -> Code:
    """Read what the assembler said of a kernel, and the listing of its instructions."""
    instructions = re.findall(r"^\s*/\*[0-9a-f]{4,}\*/\s+(.*?);", listing, re.MULTILINE)
    # The code ends with a jump to itself and with padding, which no warp reaches.
    ends = [place for place, each in enumerate(instructions) if re.search(r"\bEXIT\b", each)]
    return Code(
        instructions=1 + max(ends, default=-1),
        registers=int((re.findall(r"Used (\d+) registers", said) or ["0"])[0]),
        spills=sum(map(int, re.findall(r"(\d+) bytes spill", said))),
    )


def _tool(package: str, name: str) -> Path:
    """Return the path of a program that a package has installed."""
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == name:
            return Path(str(file.locate()))
    raise InputError(f"{name} is not installed: {INSTALL}")


def _run(*command: str | Path) -> str:
    """Run a command and return all that it prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr
