"""Files that are written whole or not at all: under another name in their folder, then renamed.

If a full disk, a crash or a second process disturbs a write, the old file stays as it was. Text is
UTF-8, whatever the locale.
"""

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Generator
from pathlib import Path

from toymodels.errors import InputError


@contextlib.contextmanager
def whole(path: Path) -> Generator[Path]:
    """Give a temporary name to write to; its file becomes `path` if the block raises no error.

    A reader that holds the old file open keeps it. A link still points to the same place.
    """
    path = _target(path)
    temporary = _beside(path)
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())  # otherwise a power cut can leave an empty file
        if path.exists():
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write(path: Path, contents: str | bytes) -> None:
    """Write a file whole. Text is written in UTF-8."""
    if isinstance(contents, str):
        # Python holds names of files that are not UTF-8 as surrogates; they become bytes again.
        contents = contents.encode("utf-8", "surrogateescape")
    with whole(path) as temporary:
        temporary.write_bytes(contents)


def read(path: Path) -> str:
    """Read a text file in UTF-8.

    Raises:
        ValueError: the file is missing, cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: save it in that encoding") from error


def check_writable(path: Path) -> None:
    """Make the folder of `path` and write to it, so that an obstacle is found before a run.

    Raises:
        ValueError: no file with that name can be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        target = _target(path)
        probe = _beside(target)
        try:
            probe.write_bytes(bytes(4096))
        finally:
            probe.unlink(missing_ok=True)
        if target.exists():
            os.replace(target, target)  # Windows refuses this while another program has it open
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror}; mend that, or choose another folder"
        ) from error


def _target(path: Path) -> Path:
    """Return the file that `path` leads to through all links; OSError if it is not writable."""
    target = Path(os.path.realpath(path))
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(target.stat().st_mode):
            raise IsADirectoryError(errno.EISDIR, "a folder has this name", str(path))
        if not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, "the file is read-only", str(path))
    return target


def _beside(path: Path) -> Path:
    # The name is hidden, and its length is fixed, so that a long name does not become too long.
    return path.with_name(f".toymodels-{secrets.token_hex(8)}{path.suffix}")
