"""A file that is written whole: what is no file is written into, and a link stays one."""

import os
from pathlib import Path

import pytest

from mmd.journal.statefile import JournalFailed, StateFile


def test_a_links_target_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link.json"
    link.symlink_to("there/x.json")
    file = StateFile(link, list[int])
    for value in ([1], [1, 2]):
        file.write(value)
        assert link.is_symlink() and StateFile(tmp_path / "there" / "x.json", list[int]).read() == value
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["link.json", "there", "x.json"]


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        StateFile(pipe, list[int]).write([1, 2])
        assert os.read(reader, 1000).split() == [b"[", b"1,", b"2", b"]"]
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_a_device_stays_one(tmp_path: Path) -> None:
    link = tmp_path / "terminal.json"
    master, slave = os.openpty()  # a device that nothing can take the place of, whatever the program does
    try:
        link.symlink_to(os.ttyname(slave))
        StateFile(link, list[int]).write([1])
        assert link.is_symlink() and link.is_char_device()
        assert os.read(master, 1000).split() == [b"[", b"1", b"]"]
    finally:
        os.close(master)
        os.close(slave)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalFailed, match="Is a directory"):
        StateFile(tmp_path, list[int]).write([1])
