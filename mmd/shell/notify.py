"""Words to systemd: ready, status, reloading, stopping, watchdog; silence where nobody listens.

Protocol: sd_notify(3). Every message is one datagram; a message that cannot be sent is dropped
(`False` is returned), because no word to a supervisor is worth a blocked event loop.
"""

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Protocol, cast

import sdnotify

# systemd advises half of its limit; a third leaves room for one late turn of the loop.
WATCHDOG_DIVISOR = 3
STATUS_MAX = 200
PULSE_SECONDS = 1.0


class Transport(Protocol):
    socket: socket.socket

    def notify(self, state: str) -> None:
        """Send one datagram; raises OSError when that is impossible."""


def connect() -> Transport | None:
    """The supervisor's socket from NOTIFY_SOCKET (paths and abstract names), or None where there is none."""
    if not os.environ.get("NOTIFY_SOCKET"):
        return None
    try:
        transport = sdnotify.SystemdNotifier(debug=True)
    except OSError:
        return None
    transport.socket.setblocking(False)
    return cast("Transport", transport)


class Notifier:
    """Tells the service manager how the daemon is; without one every call does nothing.

    Every method returns whether the message left.
    """

    def __init__(self, transport: Transport | None) -> None:
        self.transport = transport

    def ready(self, status: str = "") -> bool:
        """Start or reload is over."""
        return self.send("READY=1", *status_lines(status))

    def status(self, text: str) -> bool:
        """One sentence for `systemctl status`."""
        return self.send(*status_lines(text))

    def reloading(self) -> bool:
        """A reload begins; `ready` ends it, also where the new file was refused."""
        # The clock and the word must be in one datagram: systemd >= 253 tells this reload from an older one by it.
        return self.send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str = "") -> bool:
        return self.send("STOPPING=1", *status_lines(status))

    def watchdog(self) -> bool:
        """The loop turns and every worker makes progress."""
        return self.send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> bool:
        """Ask for this much time from now on, while starting, reloading or stopping."""
        return self.send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def busy(self, status: str, seconds: float) -> bool:
        """`extend_timeout`, and what it is that takes so long."""
        return self.send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}", *status_lines(status))

    def close(self) -> None:
        """Let go of the socket; later calls do nothing."""
        if self.transport is not None:
            self.transport.socket.close()
            self.transport = None

    def send(self, *lines: str) -> bool:
        """Send `lines` as one datagram."""
        if self.transport is None or not lines:
            return False
        try:
            # sdnotify encodes latin-1; this hands it UTF-8 bytes unharmed.
            self.transport.notify("\n".join(lines).encode().decode("latin-1"))
        except OSError:
            return False
        return True


class Pulse:
    """For work that cannot wait in between: called often, it asks for more time once a second."""

    def __init__(
        self, notifier: Notifier, status: str, seconds: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        """`seconds`: what is asked for, from each time on; the last of it is left for what follows the work."""
        self._notifier = notifier
        self._status = status
        self._seconds = seconds
        self._now = now
        self._next_at = float("-inf")

    def __call__(self) -> None:
        now = self._now()
        if now >= self._next_at:
            self._next_at = now + PULSE_SECONDS
            self._notifier.busy(self._status, self._seconds)


def status_lines(text: str) -> list[str]:
    """The STATUS= line of a text, on one line; none for an empty text."""
    flat = " ".join(text.split())
    return [f"STATUS={flat[:STATUS_MAX]}"] if flat else []


def watchdog_interval(environ: Mapping[str, str] | None = None) -> float | None:
    """Seconds between two `watchdog` messages: a third of systemd's limit; None where it does not watch us.

    WATCHDOG_PID names the process that is watched; a number that cannot be read counts as not watched.
    """
    environ = os.environ if environ is None else environ
    limit, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", str(os.getpid()))
    if not (limit.isascii() and limit.isdigit()) or pid != str(os.getpid()) or int(limit) == 0:
        return None
    return int(limit) / 1e6 / WATCHDOG_DIVISOR
