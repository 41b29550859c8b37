"""Files are written whole or not at all: under another name in their folder, then renamed.

Whatever is in the way of a write, a full disk, a crash, a second process, what was there before
stays as it was. Text is UTF-8, whatever the locale.
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
    """Give a name to write to, whose file becomes `path` when the block ends without an error.

    A reader that holds the old file open keeps it; a link keeps pointing where it did.
    """
    path = _target(path)
    temporary = _beside(path)
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())  # or a power cut leaves the new name with no contents
        if path.exists():
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write(path: Path, contents: str | bytes) -> None:
    """Write a file whole; text in UTF-8."""
    if isinstance(contents, str):
        # Names of files that are not UTF-8 come as surrogates and go back to their bytes.
        contents = contents.encode("utf-8", "surrogateescape")
    with whole(path) as temporary:
        temporary.write_bytes(contents)


def read(path: Path) -> str:
    """Read a text file in UTF-8.

    Raises:
        ValueError: there is no such file, it cannot be read, or it is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: save it in that encoding") from error


def check_writable(path: Path) -> None:
    """Make the folder of `path` and write to it, so that what is wrong is found before a run.

    Raises:
        ValueError: no file of that name can be written there.
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
    """The file that is to be replaced, through all links; an OSError if that must not be."""
    target = Path(os.path.realpath(path))
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(target.stat().st_mode):
            raise IsADirectoryError(errno.EISDIR, "a folder has this name", str(path))
        if not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, "the file is read-only", str(path))
    return target


def _beside(path: Path) -> Path:
    # Hidden, and of fixed length: a long name must not become too long by it.
    return path.with_name(f".toymodels-{secrets.token_hex(8)}{path.suffix}")
