"""Tests of sam/system/files.py; /dev/full acts as a full disk."""

import errno
import os
from pathlib import Path

import pytest

from sam.system.files import naming, replaced


def test_replaced_file_is_the_old_one_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replaced(path) as file:
        file.write("new é\n")
        assert path.read_text() == "old"
    assert path.read_bytes() == "new é\n".encode()
    with replaced(path, "wb") as file:
        file.write(b"\x00")
    assert path.read_bytes() == b"\x00"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_replaced_file_on_a_full_disk_stays_and_no_other_file_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    (tmp_path / "a.txt.unfinished").symlink_to("/dev/full")
    with (
        pytest.raises(OSError, match=r"No space left on device: '.*/a\.txt\.unfinished'$"),
        replaced(path) as file,
    ):
        file.write("new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_replaced_file_stays_if_the_writer_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replaced(path) as file:
        file.write(str(1 / 0))
    assert path.read_text() == "old"


def test_naming_adds_the_file_to_an_error_that_names_none() -> None:
    path = Path("a.txt")
    with pytest.raises(OSError, match=r"^\[Errno 24\] Too many open files: 'a\.txt'$"), naming(path):
        raise OSError(errno.EMFILE, "Too many open files")
    with pytest.raises(OSError, match=r"Permission denied: 'b\.txt'$"), naming(path):
        raise OSError(errno.EACCES, "Permission denied", "b.txt")
    with pytest.raises(OSError, match=r"^of no number$"), naming(path):
        raise OSError("of no number")
