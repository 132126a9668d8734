"""A second pair of eyes: a thread that sees when one machine does not come back, and calls it off.

Everything else of the daemon is one thread. A machine caught in a loop would stop everybody, the
control socket and the halt command included. The thread watches the pump's turn counter; when one
machine has run for longer than any may, it sends a signal to the main thread, whose handler raises
inside that machine. The pump's supervisor then halts that symbol and goes on with the others.
A call that does not return to Python cannot be called off: there the watchdog of systemd ends the process.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mmd.shell.pump import Pump

PATIENCE_SECONDS = 0.5
LOOKS = 5
SIGNAL = signal.SIGUSR2


class MachineStuck(Exception):
    """Raised inside a machine that has run for too long."""


class Sentinel:
    """Looks at the pump from its own thread; changes nothing but by the signal."""

    def __init__(self, pump: Pump, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._pump = pump
        self._patience = patience_seconds
        self._main = threading.get_ident()
        self._end = threading.Event()

    def watch(self) -> None:
        """Until `stop`. Counts its own looks, not seconds: a machine that slept, slept for the worker too."""
        seen, looks = -1, 0
        while not self._end.wait(self._patience / LOOKS):
            handled = self._pump.handled
            if self._pump.handling is None or handled != seen:
                seen, looks = handled, 0
                continue
            looks += 1
            if looks >= LOOKS:
                looks = 0
                signal.pthread_kill(self._main, SIGNAL)

    def stop(self) -> None:
        self._end.set()

    def call_off(self, number: int, frame: FrameType | None) -> None:
        """The handler: runs in the main thread, between two steps of whatever runs there."""
        worker = self._pump.handling
        if worker is not None:
            self._pump.handling = None  # once
            raise MachineStuck(f"no decision within {self._patience:g} s")


@contextmanager
def sentinel(pump: Pump, patience_seconds: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Watch over this pump; only in the main thread."""
    guard = Sentinel(pump, patience_seconds)
    before = signal.signal(SIGNAL, guard.call_off)
    thread = threading.Thread(target=guard.watch, name="mmd-sentinel", daemon=True)
    thread.start()
    try:
        yield
    finally:
        guard.stop()
        thread.join()
        signal.signal(SIGNAL, before)
