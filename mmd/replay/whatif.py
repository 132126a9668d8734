"""What other settings would have quoted: two imagined machines for each symbol, over what the journal recorded.

A has the recorded settings, B the other ones; everything else is the same for both, and both are in
shadow mode, so that what differs between them is the settings. What this cannot know is in `CAVEATS`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from mmd.core.machine import SymbolMachine
from mmd.core.symbol import SymbolState
from mmd.domain import events as ev
from mmd.domain.events import Level
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Mode, State
from mmd.domain.settings import SymbolSettings
from mmd.journal import records as rec
from mmd.replay.imagine import Fills, Imaginary, Tally
from mmd.replay.replayer import Replayer

CAVEATS = (
    "Both columns are imagined: A is the recorded settings run again in shadow mode, not what was earned.",
    "The market does not react: nobody is outbid, follows, or trades less because of quotes that were never there.",
    "Books and prints are as the mailbox had them: of several that came at once only the newest was recorded.",
    "Fills are the queue model's, between its pessimistic and its optimistic bound; docs/shadow.md.",
    "Orders of ours that really rested are taken out of the recorded books; trades that hit them are in the prints.",
    "Both start flat, and are resumed at once after a pause or halt of their own (counted as trips).",
    "Bounds follow the recorded grants in proportion to the symbol's own limit; credits and totals are not modelled.",
)
NS_PER_HOUR = 3_600_000_000_000
MARKET = (
    ev.BookBroken,
    ev.TradePrinted,
    ev.InstrumentStateChanged,
    ev.DataLinkUp,
    ev.DataLinkDown,
    ev.TradeLinkUp,
    ev.TradeLinkDown,
)
Others = Callable[[Instrument], SymbolSettings | None]
"""What the other configuration gives an instrument; None: it does not quote it."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a comparison. `pnl_usd` by `Bound`; None where it could not be marked."""

    tally: Tally
    pnl_usd: tuple[float | None, ...]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One symbol. `after` None: the other configuration does not quote it. `changes`: settings that differ."""

    key: str
    instrument: Instrument
    before: Outcome
    after: Outcome | None
    changes: tuple[str, ...]


class Pair:
    """A and B of one symbol."""

    def __init__(self, instrument: Instrument, recorded: SymbolSettings, other: SymbolSettings | None, at: int) -> None:
        """Raises ValueError where the settings do not fit the instrument's grid."""
        self.instrument = instrument
        self.recorded = recorded
        self.other = other
        self.each = [Imaginary(instrument, given, at) for given in (recorded, other) if given is not None]
        self._version = 0

    def advance(self, at: int) -> None:
        for one in self.each:
            one.advance(at)

    def market(self, events: Sequence[ev.Mail]) -> None:
        for one in self.each:
            one.market(events)

    def change(self, recorded: SymbolSettings) -> None:
        """The record's settings are others now."""
        self.recorded = recorded
        self.each[0].settings(recorded)

    def grant(self, low: int, high: int) -> None:
        """Position bounds as recorded, for each in proportion to its own limit."""
        self._version += 1
        base = self.each[0].machine.rules.max_position_lots
        for one in self.each:
            own = one.machine.rules.max_position_lots
            one.bounds(self._version, -(-low * own // base), high * own // base)

    def follow(self, *, active: bool) -> None:
        for one in self.each:
            one.follow(active=active)

    def comparison(self) -> Comparison:
        outcomes = [
            Outcome(tally=one.tally, pnl_usd=tuple(one.pnl_usd(bound) for bound in ev.Bound)) for one in self.each
        ]
        return Comparison(
            key=self.instrument.key,
            instrument=self.instrument,
            before=outcomes[0],
            after=outcomes[1] if len(outcomes) > 1 else None,
            changes=changes(self.recorded, self.other) if self.other is not None else (),
        )


class WhatIf:
    """`feed` it every record in order, then `comparisons`."""

    def __init__(self, others: Others, wanted: Callable[[str], bool], since: Callable[[rec.AnyRecord], bool]) -> None:
        """`wanted`: which symbols, by key. `since`: whether a record is where the comparison may begin."""
        self.replayer = Replayer()
        self.pairs: dict[str, Pair] = {}
        self.troubles: dict[str, str] = {}  # symbols that cannot be compared, and why
        self.first_at = self.last_at = 0
        self._others = others
        self._wanted = wanted
        self._since = since
        self._began = False

    def feed(self, record: rec.AnyRecord) -> None:
        """Follow the record, and let both imagined machines see what its market did."""
        books = self._books(record) if isinstance(record, rec.Batch) else []
        self.replayer.feed(record)
        if not self._began:
            self._began = self._since(record)
            if not self._began:
                return
            self.first_at = record.at
            for key in self.replayer.machines:
                self._meet(key, record.at)
        before, self.last_at = self.last_at or record.at, max(self.last_at, record.at)
        match record:
            case rec.Batch(key=key) if key in self.pairs:
                self._batch(self.pairs[key], record, books)
            case rec.Batch(key=key) | rec.Joined(key=key) | rec.Snapshot(key=key) if key:
                self._meet(key, record.at)
            case rec.Left(key=key) | rec.TakenOut(key=key) if key in self.pairs:
                self._rest(self.pairs[key], record.at)
            case rec.Started():
                for pair in self.pairs.values():
                    self._rest(pair, before)  # whether it stopped or crashed: nothing was quoted any more

    def finish(self) -> list[Comparison]:
        """All symbols, in the order in which they were met."""
        for pair in self.pairs.values():
            pair.advance(self.last_at)
        return [pair.comparison() for pair in self.pairs.values()]

    # --- one symbol --------------------------------------------------------------------------------

    def _books(self, record: rec.Batch) -> list[ev.BookTop]:
        """The books of this batch less our real orders, as far as these were known before it."""
        machine = self.replayer.machines.get(record.key)
        books = [event for event in record.events if isinstance(event, ev.BookTop)]
        return [external(machine, book, record.at) for book in books] if machine is not None else books

    def _meet(self, key: str, at: int) -> None:
        """A symbol's machine is there: the imagined ones begin with what it knows of its market."""
        machine = self.replayer.machines.get(key)
        if machine is None or not self._wanted(key) or key in self.troubles:
            return
        pair = self.pairs.get(key)
        if pair is not None:  # a new process, or a snapshot of what is known
            pair.advance(at)
            if pair.recorded != machine.settings:
                pair.change(machine.settings)
            return
        try:
            pair = Pair(machine.instrument, machine.settings, self._others(machine.instrument), at)
        except ValueError as wrong:
            self.troubles[key] = str(wrong)
            return
        self.pairs[key] = pair
        known = market_of(machine, at)
        if known:
            pair.market(known)
        if machine.bounds_version:
            pair.grant(machine.min_lots, machine.max_lots)
        pair.follow(active=machine.state is State.ACTIVE)

    def _batch(self, pair: Pair, record: rec.Batch, books: list[ev.BookTop]) -> None:
        pair.advance(record.at)
        seen: list[ev.Mail] = []
        others = iter(books)
        for event in record.events:
            if isinstance(event, ev.BookTop):
                seen.append(next(others))
            elif isinstance(event, ev.Ticker):
                # Our real orders may be its touch, and they are not in the imagined book.
                seen.append(msgspec.structs.replace(event, best_bid=0.0, best_ask=0.0))
            elif isinstance(event, MARKET):
                seen.append(event)
            elif isinstance(event, ev.BoundsSet):
                pair.grant(event.min_lots, event.max_lots)
            elif isinstance(event, ev.SettingsChanged):
                pair.change(event.settings)
        if seen:
            pair.market(seen)
        machine = self.replayer.machines.get(record.key)
        pair.follow(active=machine is not None and machine.state is State.ACTIVE)

    def _rest(self, pair: Pair, at: int) -> None:
        """The recorded machine is gone, for now or for good."""
        pair.advance(at)
        pair.follow(active=False)
        detail = "the recorded process ended"
        pair.market([ev.DataLinkDown(detail, at), ev.TradeLinkDown(detail, at)])


def external(machine: SymbolState, book: ev.BookTop, now_ns: int) -> ev.BookTop:
    """The book less our real orders, wherever it may show them; all of it for a machine in shadow mode."""
    if machine.mode is Mode.SHADOW:
        return book
    own = machine.own
    sides = []
    for state, levels in ((own.bid, book.bids), (own.ask, book.asks)):
        shown: tuple[Level, ...] = ()
        for each in (state, *(stray for stray in own.strays.values() if stray.side is state.side)):
            shown = (*shown, *(level for one in each.shown(now_ns, book.exchange_ns) for level in one))
        sides.append(without(levels, shown))
    return msgspec.structs.replace(book, bids=sides[0], asks=sides[1])


def without(levels: tuple[Level, ...], own: tuple[Level, ...]) -> tuple[Level, ...]:
    """The levels less our own orders, by the rule of `mmd.core.book.best_external`."""
    if not own:
        return levels
    left = []
    for price_ticks, size_lots in levels:
        ours = max((lots for at, lots in own if at == price_ticks and lots <= size_lots), default=0)
        if size_lots > ours:
            left.append((price_ticks, size_lots - ours))
    return tuple(left)


def market_of(machine: SymbolMachine, at: int) -> list[ev.Mail]:
    """What a machine knows of its market, as the events that would tell it."""
    market, tick = machine.market, machine.market.tick
    told: list[ev.Mail] = []
    if market.data_link:
        told.append(ev.DataLinkUp(at))
    if market.trade_link:
        told.append(ev.TradeLinkUp(market.cod_armed, at))
    told.append(ev.InstrumentStateChanged(market.instrument_state, market.tradable, market.terminal, at))
    if market.ticker_ns:
        told.append(
            ev.Ticker(
                market.mark,
                market.index,
                market.underlying,
                market.min_ticks * tick,
                market.max_ticks * tick,
                market.mark_iv,
                0.0,
                market.ticker_ns,
                market.ticker_ns,
            )
        )
    if market.book is not None:
        told.append(external(machine, market.book, at))
    return told


# --- in trading terms ---------------------------------------------------------------------------------


def changes(recorded: Any, other: Any) -> tuple[str, ...]:
    """Settings that differ, as `profile.spread_bps: 10.0 -> 12.0`; not where they were written."""
    flat = [dict(_flat(msgspec.to_builtins(given), "")) for given in (recorded, other)]
    found = []
    for path in dict.fromkeys([*flat[0], *flat[1]]):
        ours, theirs = flat[0].get(path), flat[1].get(path)
        if ours != theirs and not path.startswith(("sources", "mode", "service")):
            found.append(f"{path}: {_plain(ours)} -> {_plain(theirs)}")
    return tuple(found)


def _flat(value: Any, path: str) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(path, value)]
    return [pair for name, inner in value.items() for pair in _flat(inner, f"{path}.{name}".lstrip("."))]


def _plain(value: Any) -> str:
    return "none" if value is None else str(value)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the comparison; None: it does not apply or cannot be said. `places` after the point."""

    name: str
    unit: str
    before: float | None
    after: float | None
    places: int = 2


def rows(before: Sequence[Outcome], after: Sequence[Outcome], instrument: Instrument | None) -> list[Row]:
    """Sums over at least one symbol; sizes and positions in the amount of the instrument, if it is one."""
    ours = figures(before, instrument)
    theirs = figures(after, instrument) if after else {}
    return [
        Row(name=name, unit=unit, before=value, after=theirs.get((name, unit), (None, 0))[0], places=places)
        for (name, unit), (value, places) in ours.items()
    ]


Figures = dict[tuple[str, str], tuple[float | None, int]]


def figures(outcomes: Sequence[Outcome], instrument: Instrument | None) -> Figures:
    """By name and unit: the value, and how many digits of it matter."""
    tallies = [outcome.tally for outcome in outcomes]

    def total(name: str) -> float:
        return float(sum(getattr(tally, name) for tally in tallies))

    def share(name: str, of: str, times: float = 1.0) -> float | None:
        return total(name) / total(of) * times if total(of) else None

    def fills(bound: ev.Bound) -> list[Fills]:
        return [tally.of(bound) for tally in tallies]

    found: Figures = {}
    hours = total("active_ns") / NS_PER_HOUR
    each = "" if instrument is not None else " a symbol"
    found["recorded ACTIVE", "h" if instrument is not None else "symbol-h"] = (hours, 3)
    found["both sides quoted", "%"] = (share("both_ns", "active_ns", 100.0), 2)
    found["out by itself", "%"] = (share("out_ns", "active_ns", 100.0), 2)
    found["half spread", "bps"] = (share("half_spread_bps", "half_spread_ns"), 3)
    found["bid below mid", "bps"] = (share("bid_away_bps", "bid_away_ns"), 3)
    found["ask above mid", "bps"] = (share("ask_away_bps", "ask_away_ns"), 3)
    if instrument is not None:
        lot = float(instrument.lot)
        size = share("size_lots", "side_ns")
        found["size a side", _unit(instrument)] = (None if size is None else size * lot, 4)
    found["size a side", "USD"] = (share("size_usd", "side_ns"), 0)
    for name in ("placed", "amended", "cancelled", "refused"):
        found[name, f"/h{each}"] = (total(name) / hours if hours else None, 1)
    messages = total("placed") + total("amended") + total("cancelled")
    found["messages", f"/s{each}"] = (messages / hours / 3600.0 if hours else None, 3)
    if instrument is not None:
        found["messages, busiest second", ""] = (total("busiest_second"), 0)
    for bound in ev.Bound:
        found[f"fills, {bound}", ""] = (float(sum(each.count for each in fills(bound))), 0)
    for bound in ev.Bound:
        found[f"volume, {bound}", "USD"] = (sum(each.volume_usd for each in fills(bound)), 0)
    if instrument is not None:
        for bound in ev.Bound:
            least, most = min(f.least_lots for f in fills(bound)), max(f.most_lots for f in fills(bound))
            found[f"lowest position, {bound}", _unit(instrument)] = (least * lot, 4)
            found[f"highest position, {bound}", _unit(instrument)] = (most * lot, 4)
    for index, bound in enumerate(ev.Bound):
        known = [outcome.pnl_usd[index] for outcome in outcomes]
        sure = [value for value in known if value is not None]
        found[f"profit, {bound}", "USD"] = (sum(sure) if len(sure) == len(known) else None, 2)
    found["trips", ""] = (float(sum(sum(tally.trips.values()) for tally in tallies)), 0)
    return found


def _unit(instrument: Instrument) -> str:
    return "USD" if instrument.amount_is_usd else instrument.base
