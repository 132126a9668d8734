"""Who is at the other end of a Unix socket, as the kernel says, and what they may do."""

import functools
import pwd
import socket
import struct

import msgspec
import trio

from mmd.control.protocol import Role

_UCRED = struct.Struct("iII")
_GROUP = struct.Struct("I")
# Linux's number on every architecture we ship for; socket.SO_PEERGROUPS does not exist in Python.
_SO_PEERGROUPS = 59
_GROUPS_BYTES = 1024  # the most that getsockopt() takes


class Peer(msgspec.Struct, frozen=True):
    """The process that connected, at that moment. `groups` holds primary and supplementary ones."""

    uid: int
    pid: int
    groups: frozenset[int]


def identify(connection: trio.socket.SocketType) -> Peer:
    """SO_PEERCRED and SO_PEERGROUPS. Raises OSError on anything but a connected Unix socket."""
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    try:
        packed = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
        more = frozenset(number for (number,) in _GROUP.iter_unpack(packed))
    except OSError:  # more than 256 groups, or a kernel before 4.13: the primary group counts alone
        more = frozenset()
    return Peer(uid=uid, pid=pid, groups=more | {gid})


def role_of(peer: Peer, *, daemon_uid: int, admin_group_id: int | None) -> Role:
    """root, the daemon's own user and the admin group may change things; who else can connect may look."""
    if peer.uid in (0, daemon_uid):
        return Role.ADMIN
    if admin_group_id is not None and admin_group_id in peer.groups:
        return Role.ADMIN
    return Role.VIEWER


@functools.lru_cache(maxsize=1024)
def user_name(uid: int) -> str:
    """The login name, or the number as text. May ask the network (NSS): call it in a thread."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
