"""A file is whole or as it was before, whatever goes wrong while it is written."""

import os
import stat
import threading

import pytest

from toymodels.errors import InputError
from toymodels.experiment import files

root_writes_anywhere = pytest.mark.skipif(
    getattr(os, "geteuid", lambda: 1)() == 0, reason="the permissions of files do not bind root"
)


def test_what_was_there_stays_if_the_write_fails(tmp_path):
    path = tmp_path / "page.md"
    files.write(path, "before")

    def fail():
        with files.whole(path) as temporary:
            temporary.write_text("half of it")
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["page.md"]


def test_a_reader_sees_one_whole_version(tmp_path):
    path = tmp_path / "page.md"
    versions = [letter * 100_000 for letter in "abcd"]
    files.write(path, versions[0])
    writers = [threading.Thread(target=files.write, args=(path, text)) for text in versions]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert path.read_text() in versions
    assert os.listdir(tmp_path) == ["page.md"]


def test_links_and_permissions_stay(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "data").write_text("before")
    (disk / "data").chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(disk / "data")
    files.write(link, "after")
    assert link.is_symlink()
    assert (disk / "data").read_text() == "after"
    assert stat.S_IMODE((disk / "data").stat().st_mode) == 0o640


def test_text_is_utf_8_and_keeps_names_that_are_not(tmp_path):
    files.write(tmp_path / "page", "≥ é")
    assert (tmp_path / "page").read_bytes() == b"\xe2\x89\xa5 \xc3\xa9"
    files.write(tmp_path / "page", os.fsdecode(b"caf\xe9"))
    assert (tmp_path / "page").read_bytes() == b"caf\xe9"
    with pytest.raises(InputError, match="is not UTF-8"):
        files.read(tmp_path / "page")


def test_what_cannot_be_written_is_found_before(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    for path, what in (
        ("file/data.nc", "ot a directory|File exists"),
        ("folder", "a folder has this name"),
        ("x" * 300, "File name too long"),
        ("loop", "symbolic links"),
        (f"{'x' * 300}/data.nc", "File name too long"),
    ):
        with pytest.raises(InputError, match=what):
            files.check_writable(tmp_path / path)
    files.check_writable(tmp_path / "new" / "folder" / "data.nc")
    assert os.listdir(tmp_path / "new" / "folder") == []


@root_writes_anywhere
def test_permissions_are_asked_before(tmp_path):
    (tmp_path / "data").write_text("before")
    (tmp_path / "data").chmod(0o444)
    with pytest.raises(InputError, match="read-only"):
        files.check_writable(tmp_path / "data")
    (tmp_path / "folder").mkdir(0o555)
    with pytest.raises(InputError, match="Permission denied"):
        files.check_writable(tmp_path / "folder" / "data")
