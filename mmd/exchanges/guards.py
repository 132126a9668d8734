"""An exchange's maker protection as managed state: set, read back, watched; freezes told and ended.

One configuration for each key that the exchange has for it (a price index, a currency); a protected
underlying has those of its watched instruments, each with the whole limits. Setting one may lift a
freeze there, so it is read first, and set only where it differs and nothing is frozen.

While a key is frozen its symbols hear that it is not armed: no order would be taken.
"""

from collections.abc import Iterator, Sequence
from time import gmtime, strftime
from typing import Protocol

import msgspec
import trio

from mmd.domain.errors import ExchangeRefused
from mmd.domain.events import ProtectionReported, ProtectionTripped
from mmd.domain.instruments import Instrument
from mmd.domain.settings import Protection, Reset
from mmd.exchanges.api import ProtectionStatus
from mmd.exchanges.channels import Subscriptions, subscribe
from mmd.exchanges.connection import FAILURES, Connection, House

MS = 1_000_000
CHECK_SECONDS = 60.0
RETRY_SECONDS = 5.0  # after an answer that did not come, could not be read, or contradicts the clock
FROZEN_SECONDS = 5.0
PAST_FREEZE_SECONDS = 0.2  # look this long after a freeze should have ended
PULLED = "mmp_trigger"  # the cause under which an order is told to be closed that maker protection pulled


class Standing(msgspec.Struct, frozen=True):
    """What stands there. `off`: what of it is not as wanted, with both values; empty if it is. `frozen_ms`: until
    when it is frozen, Unix ms by the exchange's clock, 0 = until it is reset, None = it is not."""

    off: str
    frozen_ms: int | None


class Sign(msgspec.Struct, frozen=True):
    """The exchange told of a freeze, or of its end (None)."""

    key: str
    frozen_ms: int | None


class ProtectionCalls(Protocol):
    """How an exchange's maker protection is set and read; those that ask raise as `Connection.call` does.

    `frozen_code`: an order was refused by a freeze; `required_code`: because the account has no maker protection.
    0 where there is no such code.
    """

    frozen_code: int
    required_code: int

    def key(self, instrument: Instrument) -> str:
        """What the instrument's maker protection is set for."""

    def check(self, wanted: Protection) -> None:
        """Raises ValueError where the exchange cannot be asked for that."""

    def channel(self, key: str) -> str:
        """On which freezes are told; empty where there is none."""

    def told(self, channel: str, data: msgspec.Raw) -> Sign | None:
        """A message; None: of another channel, or not for us. ExchangeMalformed."""

    async def read(self, connection: Connection, key: str, wanted: Protection) -> Standing:
        """What stands there."""

    async def push(self, connection: Connection, key: str, wanted: Protection) -> Standing:
        """Set it, and read it back."""

    async def reset(self, connection: Connection, key: str) -> None:
        """End a freeze."""


def until(frozen_ms: int) -> str:
    """A freeze in words."""
    if not frozen_ms:
        return "frozen until it is reset"
    try:
        return f"frozen until {strftime('%H:%M:%S', gmtime(frozen_ms // 1000))} UTC"
    except (OverflowError, OSError, ValueError):
        return f"frozen until {frozen_ms} ms, which is no date"


class Guard:
    """One key. `due_at` and `reset_at` by trio's clock; freezes in ms by the exchange's."""

    def __init__(self, key: str, wanted: Protection) -> None:
        self.key = key
        self.wanted = wanted
        self.checked_ns = 0
        self.frozen_ms: int | None = None
        self.tripped = False  # told, and not yet seen to be over
        self.trips = 0  # grows with every sign of a freeze
        self.reset_at: float | None = None
        self.begin("not read yet")

    def begin(self, detail: str) -> None:
        """What stands there is not known: it is read, and set where it differs."""
        self.looked = False  # there is something to tell
        self.known = False
        self.subscribed = False
        self.repushed = False
        self.armed = False
        self.detail = detail
        self.due_at = float("-inf")


class Protections:
    """One per exchange; survives connections, so that a freeze is told once."""

    def __init__(self, house: House, calls: ProtectionCalls, channels: Subscriptions) -> None:
        self._house = house
        self._calls = calls
        self._channels = channels
        self._wanted: dict[str, Protection] = {}  # by underlying
        self._guards: dict[str, Guard] = {}  # by key
        self._told: dict[str, tuple[bool, str]] = {}  # by symbol, on this connection
        self._wake = trio.Event()
        self._busy = trio.Lock()

    # --- what is wanted ---

    def protect(self, wanted: Sequence[Protection]) -> None:
        """From now on these and no others."""
        before, self._wanted = self._wanted, {each.underlying: each for each in wanted}
        for underlying in before.keys() - self._wanted.keys():
            self._house.sink.report(
                "protection.released", f"{underlying}: no longer managed; what is set at the exchange stays there"
            )
        self.wake()

    def covers(self, symbol: str) -> bool:
        """Orders of this symbol are for maker protection to pull."""
        instrument = self._house.instruments.get(symbol)
        return instrument is not None and instrument.base in self._wanted

    @property
    def any_wanted(self) -> bool:
        return bool(self._wanted)

    def statuses(self) -> list[ProtectionStatus]:
        """One for each underlying: armed where all its keys are, frozen where one is."""
        return [self._status(underlying) for underlying in self._wanted]

    def _status(self, underlying: str) -> ProtectionStatus:
        guards = [guard for guard in self._guards.values() if guard.wanted.underlying == underlying]
        freezes = [guard.frozen_ms for guard in guards if guard.frozen_ms is not None]
        frozen_ms = (0 if 0 in freezes else max(freezes)) if freezes else None
        return ProtectionStatus(
            underlying=underlying,
            armed=bool(guards) and all(guard.armed for guard in guards),
            detail="; ".join(f"{guard.key}: {guard.detail}" for guard in guards)
            or "none of its instruments is watched",
            frozen_until_ns=None if frozen_ms is None else frozen_ms * MS,
            checked_ns=min((guard.checked_ns for guard in guards), default=0),
        )

    def _align(self) -> None:
        """A guard for each key of a protected underlying that is watched."""
        house = self._house
        wanted_by_key: dict[str, Protection] = {}
        for symbol in house.watched:
            instrument = house.instruments.get(symbol)
            if instrument is not None and instrument.base in self._wanted:
                wanted_by_key[self._calls.key(instrument)] = self._wanted[instrument.base]
        for key in self._guards.keys() - wanted_by_key.keys():
            del self._guards[key]
        for key, wanted in wanted_by_key.items():
            guard = self._guards.get(key)
            if guard is None:
                self._guards[key] = Guard(key, wanted)
            elif guard.wanted != wanted:
                guard.wanted = wanted
                guard.begin("changed, not set yet")
        for symbol in self._told.keys() - set(self._symbols()):
            del self._told[symbol]

    def _symbols(self, only: str = "") -> Iterator[str]:
        """The watched symbols of one key that is guarded, or of all."""
        for symbol in self._house.watched:
            guard = self._guard(symbol)
            if guard is not None and only in ("", guard.key):
                yield symbol

    def _guard(self, symbol: str) -> Guard | None:
        instrument = self._house.instruments.get(symbol)
        return None if instrument is None else self._guards.get(self._calls.key(instrument))

    # --- signs of a freeze, from the reading task ---

    def notified(self, channel: str, data: msgspec.Raw) -> bool:
        """A message; False: not about this."""
        sign = self._calls.told(channel, data)
        if sign is None:
            return False
        guard = self._guards.get(sign.key)
        if guard is not None and sign.frozen_ms is not None:
            guard.frozen_ms = sign.frozen_ms
            self._trip(guard, f"{guard.key}: {until(sign.frozen_ms)}")
            self._freeze_seen(guard)
            self._tell()
        return True

    def suspect(self, symbol: str, detail: str) -> None:
        """An order's fate says that its key is frozen: told at once, and looked up; until then it is not armed."""
        guard = self._guard(symbol)
        if guard is not None:
            self._trip(guard, f"{guard.key}: {detail}")
            if guard.frozen_ms is None:
                guard.looked, guard.armed, guard.detail = True, False, f"{detail}; whether it is frozen is asked"
            self._tell()

    def refused(self, symbol: str, code: int, detail: str) -> None:
        """An order was refused: by a freeze, or because the account has no maker protection."""
        if code == self._calls.frozen_code:
            self.suspect(symbol, f"an order was refused: {detail}")
        elif code == self._calls.required_code:
            guard = self._guard(symbol)
            if guard is not None:
                guard.looked, guard.armed, guard.detail, guard.due_at = True, False, detail, float("-inf")
                self._tell()
                self._wake.set()

    def _trip(self, guard: Guard, detail: str) -> None:
        guard.trips += 1
        guard.due_at = float("-inf")
        self._wake.set()
        if guard.tripped:
            return
        guard.tripped = True
        house = self._house
        until_ns = (guard.frozen_ms or 0) * MS
        house.sink.report("protection.tripped", detail)
        for symbol in self._symbols(guard.key):
            house.sink.post(symbol, ProtectionTripped(detail, until_ns, house.wall_clock_ns()))

    def _freeze_seen(self, guard: Guard) -> None:
        """`frozen_ms` is known: not armed, and an end of our own where that is the policy."""
        assert guard.frozen_ms is not None, "no freeze"
        guard.looked, guard.armed, guard.detail = True, False, until(guard.frozen_ms)
        if guard.frozen_ms == 0 and guard.wanted.reset is Reset.AUTOMATIC and guard.reset_at is None:
            guard.reset_at = trio.current_time() + guard.wanted.interval_seconds

    # --- looking ---

    def wake(self) -> None:
        """What is wanted or watched changed. Who leaves and returns at once is told anew."""
        for symbol in self._told.keys() - set(self._house.watched):
            del self._told[symbol]
        self._wake.set()

    def forget(self, symbol: str) -> None:
        """It heard that its link is down: it is told again what is known."""
        if self._told.pop(symbol, None) is not None:
            self._wake.set()

    def forget_link(self) -> None:
        """The connection is gone; whoever watches heard of that."""
        self._told.clear()
        for guard in self._guards.values():
            guard.begin("the trade link is down")

    async def serve(self, connection: Connection) -> None:
        """Set, read back and look again until cancelled."""
        while True:
            self._wake = trio.Event()
            async with self._busy:
                self._align()
                for guard in list(self._guards.values()):
                    if guard.due_at <= trio.current_time():
                        await self._check(connection, guard)
            self._tell()
            await self._house.sink.deliver()
            next_at = min((guard.due_at for guard in self._guards.values()), default=float("inf"))
            with trio.move_on_at(next_at):
                await self._wake.wait()

    async def reset(self, connection: Connection, underlying: str) -> None:
        """End a freeze now and read what stands. Raises as Connection.call does; ExchangeRefused if not ours."""
        async with self._busy:
            guards = [guard for guard in self._guards.values() if guard.wanted.underlying == underlying]
            if not guards:
                raise ExchangeRefused(self._calls.required_code, f"{underlying}: no maker protection is managed here")
            for guard in guards:
                await self._calls.reset(connection, guard.key)
                await self._check(connection, guard)
        self._tell()
        await self._house.sink.deliver()
        self._wake.set()  # the times to look at may be others

    async def _check(self, connection: Connection, guard: Guard) -> None:
        """Read the freeze and the configuration, set it where it may and must be."""
        trips = guard.trips
        guard.looked = True
        guard.due_at = trio.current_time() + CHECK_SECONDS
        try:
            self._calls.check(guard.wanted)
        except ValueError as error:
            guard.armed, guard.detail = False, str(error)
            return
        try:
            await self._subscribe(connection, guard)
            await self._reset_when_due(connection, guard)
            found = await self._calls.read(connection, guard.key, guard.wanted)
            mine = found.off and found.frozen_ms is None and guard.trips == trips
            if mine and self._may_push(guard, found.off):
                found = await self._calls.push(connection, guard.key, guard.wanted)
        except FAILURES as error:
            guard.armed, guard.detail = False, str(error)
            if not isinstance(error, ExchangeRefused) or error.code in self._house.errors.throttled:
                guard.due_at = trio.current_time() + RETRY_SECONDS
            return
        guard.known = True
        guard.checked_ns = self._house.wall_clock_ns()
        if guard.trips != trips:
            guard.due_at = float("-inf")  # it tripped meanwhile: what was read is older than that
        else:
            self._judge(guard, found.frozen_ms, found.off)

    def _judge(self, guard: Guard, frozen_ms: int | None, off: str) -> None:
        guard.frozen_ms = frozen_ms
        if frozen_ms is None:
            guard.tripped, guard.reset_at = False, None
            guard.armed, guard.detail = not off, off or "as configured"
            return
        if not guard.tripped:  # before we looked
            self._trip(guard, f"{guard.key}: {until(frozen_ms)}")
        self._freeze_seen(guard)
        if off:
            guard.detail += f"; {off}"
        now = trio.current_time()
        # Where no channel tells of freezes, nothing tells of their end either.
        guard.due_at = now + (CHECK_SECONDS if self._calls.channel(guard.key) else FROZEN_SECONDS)
        if frozen_ms:
            left_seconds = (frozen_ms - self._house.clock.now_ms()) / 1000
            pause = left_seconds + PAST_FREEZE_SECONDS if left_seconds > 0 else RETRY_SECONDS
            guard.due_at = min(guard.due_at, now + pause)
        elif guard.reset_at is not None:
            guard.due_at = min(guard.due_at, guard.reset_at)

    def _may_push(self, guard: Guard, off: str) -> bool:
        """Always the first time on a connection; of what drifts later, the first drift is mended."""
        if not guard.known:
            return True
        if guard.armed:
            self._house.sink.report("protection.drifted", f"{guard.key}: {off}")
        guard.armed, guard.detail = False, off
        self._tell()
        again, guard.repushed = not guard.repushed, True
        return again

    async def _subscribe(self, connection: Connection, guard: Guard) -> None:
        if guard.subscribed:
            return
        channel = self._calls.channel(guard.key)
        if channel and await subscribe(connection, self._channels, [channel]):
            # A freeze still shows in the orders it pulls and refuses.
            self._house.sink.report("subscription.refused", channel)
        guard.subscribed = True

    async def _reset_when_due(self, connection: Connection, guard: Guard) -> None:
        if guard.reset_at is None or trio.current_time() < guard.reset_at:
            return
        guard.reset_at = None
        await self._calls.reset(connection, guard.key)
        self._house.sink.report("protection.reset", f"{guard.key}: by itself, as configured")

    def _tell(self) -> None:
        """Every watched symbol hears what is known of its key, once and when it changes."""
        house = self._house
        for symbol in house.watched:
            guard = self._guard(symbol)
            if guard is None or not guard.looked:
                continue
            news = (guard.armed, guard.detail)
            if self._told.get(symbol) != news:
                self._told[symbol] = news
                house.sink.post(symbol, ProtectionReported(*news, house.wall_clock_ns()))
