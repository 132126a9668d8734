"""Who may run: one daemon for a state directory, and one for an account, on this machine.

The state directory's lock is a lock on `mmd.lock`, whose content is the holder's process id. An account's
is an abstract Unix socket, so that it does not matter which directory, service or user a daemon has: the
kernel keeps the name as long as the process lives, and tells whoever connects which process that is.
Both end with the process, however it ends. Network namespaces are worlds of their own: a daemon in a
container is not seen from outside.
"""

import errno
import fcntl
import hashlib
import os
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO
from urllib.parse import urlsplit

import msgspec

from mmd.config.model import ExchangeConfig, NetworkKind
from mmd.shell.exchange_types import TYPES

FILE = "mmd.lock"
NOBODY_KNOWN = 0
"""Instead of a process id, where the holder is in another process namespace or does not tell."""

_FLOCK = struct.Struct("hhqqi0q")  # struct flock: type, whence, start, length, process
_UCRED = struct.Struct("iII")
_BACKLOG = 64  # questions between two calls of `answer`; more find the line busy, which says enough


# --- the state directory -------------------------------------------------------------------------


class StateLock:
    """Holds a state directory until it is closed."""

    def __init__(self, directory: Path) -> None:
        """Raises OSError: held by somebody else, or a directory that cannot be used."""
        self.path = directory / FILE
        self._file = _take(self.path)

    def fileno(self) -> int:
        return self._file.fileno()

    def lost(self) -> str:
        """Why the lock does not protect the directory any more; empty while it does.

        A directory that was removed or replaced leaves the lock on a file that nobody else can find.
        """
        try:
            there = self.path.stat()
        except OSError as error:
            return f"{self.path}: {error.strerror}"
        here = os.fstat(self.fileno())
        if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
            return f"{self.path} is another file now: the state directory was replaced while mmd ran"
        return ""

    def renew(self) -> None:
        """Take the lock of what stands there now. Raises OSError; the old file stays locked then."""
        fresh = _take(self.path)
        self._file.close()
        self._file = fresh

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def lock_state(directory: Path) -> StateLock:
    """One daemon per state directory, which is made if it is missing. Raises OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return StateLock(directory)


def state_holder(directory: Path) -> int | None:
    """The process that holds the directory (NOBODY_KNOWN: it does not tell), None for none. Takes nothing.

    Raises OSError where it cannot be asked; a directory that is not there is held by nobody.
    """
    try:
        file = (directory / FILE).open()
    except (FileNotFoundError, NotADirectoryError):
        return None
    with file:
        question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, *_ = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_OFD_GETLK, question))
        if kind == fcntl.F_UNLCK:
            return None
        text = file.read(32).strip()
    return int(text) if text.isdecimal() else NOBODY_KNOWN


def _take(path: Path) -> TextIO:
    """The file, open and locked, with our process id in it."""
    file = path.open("a")
    try:
        # The kind of lock that belongs to the open file: another one of this process does not share it,
        # closing another one does not end it, and it can be asked for without being taken.
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
    except BlockingIOError:
        file.close()
        holder = path.read_text().strip() or "unknown"
        raise OSError(f"{path} is held: another mmd uses this state directory (pid {holder})") from None
    except OSError as error:
        with suppress(OSError):  # what could not be written cannot be written now either
            file.close()
        raise OSError(error.errno, error.strerror, str(path)) from error
    return file


# --- accounts ------------------------------------------------------------------------------------


class AccountName(msgspec.Struct, frozen=True):
    """An account as this machine sees it: two keys of one account at Deribit are two names, those of a wallet one."""

    exchange: str
    type: str
    server: str
    account: str

    def __str__(self) -> str:
        return f"account {self.account} of exchange {self.exchange} ({self.server})"

    @property
    def address(self) -> bytes:
        """The abstract socket; the configuration's own name for the exchange does not matter."""
        text = "\n".join((self.type, self.server, self.account))
        return b"\0mmd-account-" + hashlib.sha256(text.encode()).hexdigest()[:40].encode()


def account_name(config: ExchangeConfig, account: str) -> AccountName:
    """Not for the sandbox inside this process, whose accounts nobody else can reach."""
    kind = TYPES[config.type]
    return AccountName(config.name, config.type, urlsplit(kind.url(config)).netloc.lower(), kind.locked(account))


class AccountLock:
    """Holds an account until it is closed."""

    def __init__(self, name: AccountName) -> None:
        """Raises OSError that names the holder."""
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._socket.bind(name.address)
            self._socket.listen(_BACKLOG)
        except OSError as error:
            self._socket.close()
            if error.errno != errno.EADDRINUSE:
                raise
            holder = account_holder(name) or "unknown"
            raise OSError(f"{name} is in use: another daemon on this machine trades on it (pid {holder})") from None

    def answer(self) -> None:
        """Let go who asked; the kernel has told them all they wanted."""
        while True:
            try:
                self._socket.accept()[0].close()
            except BlockingIOError:
                return

    def close(self) -> None:
        self._socket.close()


class AccountLocks:
    """All accounts of a configuration, until closed."""

    def __init__(self, names: Iterable[AccountName]) -> None:
        """Raises OSError if one is held, by another process or by another exchange of this configuration."""
        self._locks: list[AccountLock] = []
        try:
            for name in names:
                for held in self._locks:
                    if held.name.address == name.address:
                        raise OSError(f"{name}: exchange {held.name.exchange} of this configuration trades on it too")
                self._locks.append(AccountLock(name))
        except OSError:
            self.close()
            raise

    def answer(self) -> None:
        for lock in self._locks:
            lock.answer()

    def close(self) -> None:
        for lock in self._locks:
            lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def lock_accounts(exchanges: Iterable[ExchangeConfig]) -> AccountLocks:
    """One daemon per account on this machine. Raises OSError that names the holder, CredentialError."""
    return AccountLocks(
        account_name(config, TYPES[config.type].account(config))
        for config in exchanges
        if config.network is not NetworkKind.SANDBOX
    )


def account_holder(name: AccountName) -> int | None:
    """The process that holds an account (NOBODY_KNOWN: it cannot be told), None for none. Takes nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as asking:
        try:
            asking.connect(name.address)
        except ConnectionRefusedError:
            return None
        except BlockingIOError:
            return NOBODY_KNOWN  # so many ask at once
        pid, _, _ = _UCRED.unpack(asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(pid)
