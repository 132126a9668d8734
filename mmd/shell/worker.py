"""One symbol in the shell: its machine, its bounded mailbox, its counters, its timer."""

import msgspec
import trio

from mmd.core.budget import Budget
from mmd.core.machine import SymbolMachine
from mmd.core.shadow import ShadowBook
from mmd.domain.events import BookBroken, BookTop, DataLinkDown, Mail, Ticker, TradePrinted
from mmd.domain.reasons import Mode
from mmd.domain.settings import SymbolSettings
from mmd.shell.counters import SymbolCounters

MAILBOX = 1000
# Market data: an older one says nothing that the newer does not.
NEWEST_WINS = frozenset({BookTop, Ticker, TradePrinted})


class Rate:
    """One symbol's own rate of one kind of message; a second's worth may be sent at once."""

    __slots__ = ("_budget",)

    def __init__(self, per_second: float) -> None:
        self._budget = Budget(per_second, max(1.0, per_second), 0.0)

    def allows(self, per_second: float, now_ns: int) -> bool:
        """Whether one more may leave at this rate, which may have changed since."""
        budget = self._budget
        if budget.rate_per_second != per_second:
            budget.set_limits(per_second, max(1.0, per_second), 0.0)
        return budget.allows(now_ns)

    def spend(self, now_ns: int) -> None:
        self._budget.spend(now_ns)


class MailboxFull(Exception):
    """More events than a worker may have waiting: a fault of this worker."""


class Worker:
    """`post` and `take` are the mailbox: market data is conflated, newest wins; nothing else ever is."""

    def __init__(self, machine: SymbolMachine, counters: SymbolCounters) -> None:
        self.machine = machine
        self.key = machine.instrument.key
        self.exchange = machine.instrument.exchange
        self.symbol = machine.instrument.symbol
        self.counters = counters
        self.shadow = ShadowBook(machine.instrument)
        self.places = Rate(machine.rules.max_places_per_second)
        self.amends = Rate(machine.rules.max_amends_per_second)
        self.fills_before = machine.position.fills  # of earlier processes: counters count from here
        self.proven = False  # the exchange itself said that nothing of ours rests, since it halted
        self.mode = machine.mode  # as the shell last saw it
        self.configured_mode = machine.settings.mode
        self.shadowed = False  # an operator's word, stronger than the config until it is taken back
        self.fault: str | None = None
        self.broken = False  # its machine cannot even be halted and is not run any more
        self.pulled_ns = 0  # when its orders were last pulled without it
        self.gone = trio.Event()
        self.timer_ns = 0
        self.timer_moved = trio.Event()
        self.ready = False  # in the pump's list of workers with mail
        self._mail: list[Mail] = []
        self._newest: dict[type, int] = {}  # where the newest of its kind waits

    def effective(self, settings: SymbolSettings) -> SymbolSettings:
        """The settings with the operator's shadow order applied."""
        mode = Mode.SHADOW if self.shadowed else self.configured_mode
        return msgspec.structs.replace(settings, mode=mode)

    @property
    def depth(self) -> int:
        return len(self._mail)

    def post(self, event: Mail) -> None:
        """Put an event in; MailboxFull when it cannot be conflated and there is no room."""
        kind = type(event)
        mail = self._mail
        if kind in NEWEST_WINS:
            at = self._newest.get(kind)
            if at is not None:
                mail[at] = event
                self.counters.conflated += 1
                return
            self._newest[kind] = len(mail)
        elif kind is BookBroken or kind is DataLinkDown:
            self._newest.clear()  # what comes after must not be moved before it
        if len(mail) >= MAILBOX:
            self.counters.overflows += 1
            raise MailboxFull(f"{self.key}: {MAILBOX} events wait")
        mail.append(event)

    def take(self) -> list[Mail]:
        """Everything that waits, in order; the mailbox is empty afterwards."""
        mail = self._mail
        self._mail = []
        if self._newest:
            self._newest.clear()
        return mail

    def set_timer(self, at_ns: int) -> None:
        """Wake the symbol's timer task at this time; it replaces the one before."""
        self.timer_ns = at_ns
        self.timer_moved.set()
