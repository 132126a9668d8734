"""Deribit's market maker protection as managed state: set, read back, watched; freezes told and ended.

One configuration for each price index; a protected underlying has those of its watched instruments
(BTC: btc_usd and, for linear contracts, btc_usdc), each with the whole limits. Setting one lifts a
freeze there, so it is read first, and set only where it differs and nothing is frozen.

While an index is frozen its symbols hear that it is not armed: no order would be taken.
Source: docs.deribit.com, "Market Maker Protection" and private/set_mmp_config, September 2026.
"""

from collections.abc import Iterator, Sequence
from decimal import ROUND_DOWN, Decimal, InvalidOperation
from time import gmtime, strftime

import msgspec
import trio

from mmd.domain.errors import ExchangeAmbiguous, ExchangeMalformed, ExchangeRefused
from mmd.domain.events import ProtectionReported, ProtectionTripped
from mmd.domain.settings import Protection, Reset
from mmd.exchanges.api import ProtectionStatus
from mmd.exchanges.channels import subscribe
from mmd.exchanges.connection import Connection, House
from mmd.exchanges.deribit import codec
from mmd.exchanges.deribit.dialect import PRIVATE
from mmd.exchanges.deribit.messages import IndexParams, MmpConfig, MmpParams, MmpStatus
from mmd.exchanges.jsonrpc import Decoder

MS = 1_000_000
CHECK_SECONDS = 60.0
RETRY_SECONDS = 5.0  # after an answer that did not come or could not be read
PAST_FREEZE_SECONDS = 0.2  # look this long after a freeze should have ended
PLACES = Decimal("0.0001")  # the exchange takes four decimals
LIMITS = ("quantity_limit", "delta_limit", "vega_limit", "max_quote_quantity")
FIELDS = ("interval", "frozen_time", *LIMITS)
MMP_TRIGGER, MMP_REQUIRED = 13030, 13040
_FAILURES = (ExchangeRefused, ExchangeAmbiguous, ExchangeMalformed)

_decode_configs: Decoder[list[MmpConfig]] = Decoder(list[MmpConfig])
_decode_statuses: Decoder[list[MmpStatus]] = Decoder(list[MmpStatus])
_decode_status: Decoder[MmpStatus] = Decoder(MmpStatus)


# --- pure ----------------------------------------------------------------------------------------


def mmp_params(index: str, wanted: Protection) -> MmpParams:
    """What is set at the exchange: coins and seconds as here, limits cut to four decimals.

    The exchange also wants the most that may rest on one side of one book (`max_quote_quantity`):
    what may trade in one interval, `max_quantity` or else `max_delta`. ValueError where a limit
    would be cut to nothing.
    """
    found = {"max_quantity": wanted.max_quantity, "max_delta": wanted.max_delta, "max_vega": wanted.max_vega}
    limits = {name: None if value is None else value.quantize(PLACES, ROUND_DOWN) for name, value in found.items()}
    for name, value in limits.items():
        if value is not None and value <= 0:
            raise ValueError(f"{name} {found[name]} is too small, the least is {PLACES}")
    quantity, delta = limits["max_quantity"], limits["max_delta"]
    return MmpParams(
        index_name=index,
        interval=wanted.interval_seconds,
        frozen_time=wanted.frozen_seconds,
        quantity_limit=quantity,
        delta_limit=delta,
        vega_limit=limits["max_vega"],
        max_quote_quantity=delta if quantity is None else quantity,
    )


def difference(found: MmpConfig | None, wanted: MmpParams) -> str:
    """The fields in which what stands there is not what is wanted, with both values; empty if it is."""
    if found is None:
        return "nothing is set there"
    texts = []
    for name in FIELDS:
        there, here = getattr(found, name), getattr(wanted, name)
        if name in LIMITS and there is not None:
            there = _cut(there)
        if there != here:
            texts.append(f"{name} is {_text(there)}, wanted {_text(here)}")
    return "; ".join(texts)


def _cut(value: Decimal) -> Decimal:
    """To the places that the exchange takes; what is too large for that, or no number, stays as it is."""
    try:
        return value.quantize(PLACES)
    except InvalidOperation:
        return value


def _text(value: Decimal | int | None) -> str:
    if value is None:
        return "off"
    text = f"{value:f}" if isinstance(value, Decimal) else str(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def read_config(raw: msgspec.Raw | bytes, index: str) -> MmpConfig | None:
    """The configuration for orders (not of a group, not for block RFQ) out of private/get_mmp_config."""
    for row in _decode_configs(raw):
        if row.index_name == index and not row.mmp_group and not row.block_rfq and row.interval:
            return row
    return None


def read_freeze(raw: msgspec.Raw | bytes, index: str, now_ms: int) -> int | None:
    """Until when it is frozen, ms (0 = until reset), out of private/get_mmp_status; None = it is not."""
    for row in _decode_statuses(raw):
        if row.index_name == index and not row.mmp_group and not row.block_rfq:
            return _freeze(row, now_ms)
    return None


def _freeze(row: MmpStatus, now_ms: int) -> int | None:
    return None if row.frozen_until is None or 0 < row.frozen_until <= now_ms else row.frozen_until


def _until(frozen_ms: int) -> str:
    if not frozen_ms:
        return "frozen until it is reset"
    try:
        return f"frozen until {strftime('%H:%M:%S', gmtime(frozen_ms // 1000))} UTC"
    except (OverflowError, OSError, ValueError):
        return f"frozen until {frozen_ms} ms, which is no date"


# --- state ---------------------------------------------------------------------------------------


class Guard:
    """One index. `due_at` and `reset_at` by trio's clock; freezes in ms by the exchange's."""

    def __init__(self, index: str, wanted: Protection) -> None:
        self.index = index
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

    def __init__(self, house: House) -> None:
        self._house = house
        self._wanted: dict[str, Protection] = {}  # by underlying
        self._guards: dict[str, Guard] = {}  # by index
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
        """One for each underlying: armed where all its indexes are, frozen where one is."""
        return [self._status(underlying) for underlying in self._wanted]

    def _status(self, underlying: str) -> ProtectionStatus:
        guards = [guard for guard in self._guards.values() if guard.wanted.underlying == underlying]
        freezes = [guard.frozen_ms for guard in guards if guard.frozen_ms is not None]
        frozen_ms = (0 if 0 in freezes else max(freezes)) if freezes else None
        return ProtectionStatus(
            underlying=underlying,
            armed=bool(guards) and all(guard.armed for guard in guards),
            detail="; ".join(f"{guard.index}: {guard.detail}" for guard in guards)
            or "none of its instruments is watched",
            frozen_until_ns=None if frozen_ms is None else frozen_ms * MS,
            checked_ns=min((guard.checked_ns for guard in guards), default=0),
        )

    def _align(self) -> None:
        """A guard for each index of a protected underlying that is watched."""
        house = self._house
        indexes: dict[str, Protection] = {}
        for symbol in house.watched:
            instrument = house.instruments.get(symbol)
            if instrument is not None and instrument.base in self._wanted:
                indexes[instrument.index] = self._wanted[instrument.base]
        for index in self._guards.keys() - indexes.keys():
            del self._guards[index]
        for index, wanted in indexes.items():
            guard = self._guards.get(index)
            if guard is None:
                self._guards[index] = Guard(index, wanted)
            elif guard.wanted != wanted:
                guard.wanted = wanted
                guard.begin("changed, not set yet")
        for symbol in self._told.keys() - set(self._symbols()):
            del self._told[symbol]

    def _symbols(self, index: str = "") -> Iterator[str]:
        """The watched symbols of one guarded index, or of all."""
        for symbol in self._house.watched:
            instrument = self._house.instruments.get(symbol)
            if instrument is not None and instrument.index in self._guards and index in ("", instrument.index):
                yield symbol

    # --- signs of a freeze, from the reading task ---

    def notified(self, channel: str, data: msgspec.Raw) -> None:
        """A message of user.mmp_trigger.*"""
        guard = self._guards.get(channel.removeprefix(codec.MMP_TRIGGER))
        row = _decode_status(data)
        if guard is None or row.mmp_group or row.block_rfq:
            return
        frozen_ms = _freeze(row, self._house.clock.now_ms())
        if frozen_ms is None:
            return
        guard.frozen_ms = frozen_ms
        self._trip(guard, f"{guard.index}: {_until(frozen_ms)}")
        self._freeze_seen(guard)
        self._tell()

    def suspect(self, symbol: str, detail: str) -> None:
        """An order's fate says that its index is frozen: told at once, and looked up."""
        instrument = self._house.instruments.get(symbol)
        guard = self._guards.get(instrument.index) if instrument is not None else None
        if guard is not None:
            self._trip(guard, f"{guard.index}: {detail}")

    def refused(self, symbol: str, code: int, detail: str) -> None:
        """An order was refused: by a freeze, or because the account has no maker protection."""
        if code == MMP_TRIGGER:
            self.suspect(symbol, f"an order was refused: {detail}")
        elif code == MMP_REQUIRED:
            instrument = self._house.instruments.get(symbol)
            guard = self._guards.get(instrument.index) if instrument is not None else None
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
        for symbol in self._symbols(guard.index):
            house.sink.post(symbol, ProtectionTripped(detail, until_ns, house.wall_clock_ns()))

    def _freeze_seen(self, guard: Guard) -> None:
        """`frozen_ms` is known: not armed, and an end of our own where that is the policy."""
        assert guard.frozen_ms is not None, "no freeze"
        guard.looked, guard.armed, guard.detail = True, False, _until(guard.frozen_ms)
        if guard.frozen_ms == 0 and guard.wanted.reset is Reset.AUTOMATIC and guard.reset_at is None:
            guard.reset_at = trio.current_time() + guard.wanted.interval_seconds

    # --- looking ---

    def wake(self) -> None:
        """What is wanted or watched changed."""
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
                raise ExchangeRefused(MMP_REQUIRED, f"{underlying}: no maker protection is managed here")
            for guard in guards:
                await connection.call("private/reset_mmp", IndexParams(guard.index))
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
            params = mmp_params(guard.index, guard.wanted)
        except ValueError as error:
            guard.armed, guard.detail = False, str(error)
            return
        try:
            await self._subscribe(connection, guard)
            await self._reset_when_due(connection, guard)
            frozen_ms = await self._read_freeze(connection, guard)
            off = difference(await self._read_config(connection, guard), params)
            if off and frozen_ms is None and guard.trips == trips and self._may_push(guard, off):
                await connection.call("private/set_mmp_config", params)
                off = difference(await self._read_config(connection, guard), params)
                frozen_ms = await self._read_freeze(connection, guard)
        except _FAILURES as error:
            guard.armed, guard.detail = False, str(error)
            if not isinstance(error, ExchangeRefused):
                guard.due_at = trio.current_time() + RETRY_SECONDS
            return
        guard.known = True
        guard.checked_ns = self._house.wall_clock_ns()
        if guard.trips != trips:
            guard.due_at = float("-inf")  # it tripped meanwhile: what was read is older than that
        else:
            self._judge(guard, frozen_ms, off)

    def _judge(self, guard: Guard, frozen_ms: int | None, off: str) -> None:
        guard.frozen_ms = frozen_ms
        if frozen_ms is None:
            guard.tripped, guard.reset_at = False, None
            guard.armed, guard.detail = not off, off or "as configured"
            return
        if not guard.tripped:  # before we looked
            self._trip(guard, f"{guard.index}: {_until(frozen_ms)}")
        self._freeze_seen(guard)
        if off:
            guard.detail += f"; {off}"
        now = trio.current_time()
        guard.due_at = now + CHECK_SECONDS
        if frozen_ms:
            end = now + max(0, frozen_ms - self._house.clock.now_ms()) / 1000 + PAST_FREEZE_SECONDS
            guard.due_at = min(guard.due_at, end)
        elif guard.reset_at is not None:
            guard.due_at = min(guard.due_at, guard.reset_at)

    def _may_push(self, guard: Guard, off: str) -> bool:
        """Always the first time on a connection; of what drifts later, the first drift is mended."""
        if not guard.known:
            return True
        if guard.armed:
            self._house.sink.report("protection.drifted", f"{guard.index}: {off}")
        guard.armed, guard.detail = False, off
        self._tell()
        again, guard.repushed = not guard.repushed, True
        return again

    async def _subscribe(self, connection: Connection, guard: Guard) -> None:
        if guard.subscribed:
            return
        channel = codec.MMP_TRIGGER + guard.index
        if await subscribe(connection, PRIVATE, [channel]):
            # A freeze still shows in the orders it pulls and refuses.
            self._house.sink.report("subscription.refused", channel)
        guard.subscribed = True

    async def _reset_when_due(self, connection: Connection, guard: Guard) -> None:
        if guard.reset_at is None or trio.current_time() < guard.reset_at:
            return
        guard.reset_at = None
        await connection.call("private/reset_mmp", IndexParams(guard.index))
        self._house.sink.report("protection.reset", f"{guard.index}: by itself, as configured")

    async def _read_freeze(self, connection: Connection, guard: Guard) -> int | None:
        raw = await connection.call("private/get_mmp_status", IndexParams(guard.index))
        return read_freeze(raw, guard.index, self._house.clock.now_ms())

    async def _read_config(self, connection: Connection, guard: Guard) -> MmpConfig | None:
        raw = await connection.call("private/get_mmp_config", IndexParams(guard.index))
        return read_config(raw, guard.index)

    def _tell(self) -> None:
        """Every watched symbol hears what is known of its index, once and when it changes."""
        house = self._house
        for symbol in self._symbols():
            guard = self._guards[house.instruments[symbol].index]
            if not guard.looked:
                continue
            news = (guard.armed, guard.detail)
            if self._told.get(symbol) != news:
                self._told[symbol] = news
                house.sink.post(symbol, ProtectionReported(*news, house.wall_clock_ns()))
