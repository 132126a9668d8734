"""The socket file: made with the right mode and group, never taken from somebody who answers."""

import os
import socket
import stat
from pathlib import Path

import pytest

from mmd.control.door import DoorError, group_id, open_door

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_socket_has_its_mode_and_the_missing_parent_too(tmp_path):
    path = tmp_path / "run" / "mmd" / "mmd.sock"
    with open_door(path, group_id=None):
        assert path.is_socket()
        assert (mode_of(path), mode_of(path.parent)) == (0o660, 0o750)
    assert not path.exists()


def test_the_mode_of_an_existing_parent_stays(tmp_path):
    tmp_path.chmod(0o755)
    with open_door(tmp_path / "s", group_id=None):
        assert mode_of(tmp_path) == 0o755


@AS_ROOT
def test_socket_and_new_parent_belong_to_the_group(tmp_path):
    path = tmp_path / "run" / "mmd.sock"
    with open_door(path, group_id=65534):
        assert (path.stat().st_gid, path.parent.stat().st_gid) == (65534, 65534)


def test_the_umask_is_left_as_it_was(tmp_path):
    before = os.umask(0o027)
    try:
        with open_door(tmp_path / "s", group_id=None):
            assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_a_stale_socket_is_replaced(tmp_path):
    path = tmp_path / "mmd.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with open_door(path, group_id=None), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_socket_that_answers_is_left_alone(tmp_path):
    path = tmp_path / "mmd.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(DoorError, match=f"another mmd answers at {path}"), open_door(path, group_id=None):
            pytest.fail("opened")
        assert path.is_socket()


def test_two_daemons_do_not_share_a_path(tmp_path):
    path = tmp_path / "mmd.sock"
    with open_door(path, group_id=None):
        with pytest.raises(DoorError, match="another mmd holds"), open_door(path, group_id=None):
            pytest.fail("opened")
        assert path.is_socket()
    with open_door(path, group_id=None):
        assert path.is_socket()


def test_a_file_that_is_no_socket_is_not_removed(tmp_path):
    path = tmp_path / "mmd.sock"
    path.write_text("precious")
    with pytest.raises(DoorError, match="is no socket"), open_door(path, group_id=None):
        pytest.fail("opened")
    assert path.read_text() == "precious"


def test_a_path_too_long_for_the_kernel_is_named(tmp_path):
    with pytest.raises(DoorError, match="longer than 107 bytes"), open_door(tmp_path / ("x" * 108), group_id=None):
        pytest.fail("opened")


def test_a_parent_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DoorError, match="cannot make the socket"), open_door(tmp_path / "file/s", group_id=None):
        pytest.fail("opened")


def test_at_the_end_the_socket_of_somebody_else_stays(tmp_path):
    path = tmp_path / "mmd.sock"
    with socket.socket(socket.AF_UNIX) as other:
        with open_door(path, group_id=None):
            other.bind(str(tmp_path / "other"))
            (tmp_path / "other").replace(path)
        assert path.is_socket()


def test_an_error_of_the_body_is_not_disguised(tmp_path):
    with pytest.raises(FileNotFoundError), open_door(tmp_path / "s", group_id=None):
        raise FileNotFoundError("of the body")


@pytest.mark.parametrize(("name", "number"), [(None, None), ("no-such-group", None), ("root", 0)])
def test_groups_by_name(name, number):
    assert group_id(name) == number
