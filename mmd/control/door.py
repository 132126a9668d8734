"""The socket in the file system: made safely, held by one daemon, removed at the end."""

import contextlib
import errno
import fcntl
import grp
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from mmd.domain.errors import MmdError
from mmd.shell import logs

PATH_MAX_BYTES = 107
BACKLOG = 64
log = logs.get("control")


class DoorError(MmdError):
    """The socket cannot be made; the message names the path and the cause."""


@contextlib.contextmanager
def open_door(path: Path, *, group_id: int | None) -> Iterator[socket.socket]:
    """A listening Unix socket at `path`, mode 0660, of group `group_id` (None: ours); unlinked at exit.

    A missing parent directory is made, mode 0750. A socket file is replaced only if nothing answers
    there and no other daemon holds `path`.lock. Raises DoorError.
    """
    if len(os.fsencode(path)) > PATH_MAX_BYTES:
        raise DoorError(f"socket path {path} is longer than {PATH_MAX_BYTES} bytes")
    with contextlib.ExitStack() as stack:
        try:
            _make_parent(path.parent, group_id)
            stack.enter_context(_lock(path))
            _remove_stale(path)
            door = stack.enter_context(_bind(path, group_id))
            stack.callback(_unlink, path, path.lstat().st_ino)
        except OSError as error:
            raise DoorError(f"cannot make the socket {path}: {error.strerror or error}") from error
        yield door


def group_id(name: str | None) -> int | None:
    """The number of a group, None if there is no such group (said in the log)."""
    if name is None:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        log.warning("control.group_missing", group=name)
        return None


def _make_parent(parent: Path, group_id: int | None) -> None:
    if parent.is_dir():
        return
    parent.mkdir(parents=True)
    parent.chmod(0o750)
    _give_to_group(parent, group_id)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Two daemons starting at once must not both find the same socket stale."""
    lock_path = path.with_name(path.name + ".lock")
    descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DoorError(f"another mmd holds {lock_path}: is it running already?") from error
        yield
    finally:
        os.close(descriptor)


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise DoorError(f"{path} exists and is no socket: move it away or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(os.fspath(path))
    if code != errno.ECONNREFUSED:
        raise DoorError(f"another mmd answers at {path}")
    path.unlink()


def _bind(path: Path, group_id: int | None) -> socket.socket:
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Nobody may connect before the group is set.
    before = os.umask(0o177)
    try:
        door.bind(os.fspath(path))
    except OSError:
        door.close()
        raise
    finally:
        os.umask(before)
    try:
        _give_to_group(path, group_id)
        path.chmod(0o660)
        door.listen(BACKLOG)
    except OSError:
        door.close()
        path.unlink()
        raise
    return door


def _unlink(path: Path, inode: int) -> None:
    """Remove the socket unless somebody has put another one there."""
    with contextlib.suppress(FileNotFoundError):
        if path.lstat().st_ino == inode:
            path.unlink()


def _give_to_group(path: Path, group_id: int | None) -> None:
    if group_id is None or path.stat().st_gid == group_id:
        return
    try:
        os.chown(path, -1, group_id)
    except PermissionError:
        log.warning("control.group_refused", path=str(path), gid=group_id, hint="the daemon is not a member of it")
