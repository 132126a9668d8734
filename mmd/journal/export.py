"""Records of the journal to rows: the life of every order, every execution, every change of state.

Pure: records in, in their order, rows out. Every record must be passed in, also those before the range
that is asked for: what a later one means depends on them.
"""

from collections.abc import Callable, Iterable, Iterator
from fnmatch import translate
from re import compile as compiled
from typing import Any

import msgspec

from mmd.domain import actions as do
from mmd.domain import events as ev
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import CaseKind, State
from mmd.domain.totals import ClearSwitch, TripSwitch
from mmd.journal import records as rec
from mmd.journal.context import AssumedFee, Peek, Symbol
from mmd.journal.orderlife import OrderLife
from mmd.journal.rows import KINDS, AlertRow, CommandRow, NoteRow, Row, StateRow

LATE_NS = 3_600_000_000_000  # clocks are set back by less than this
_json = msgspec.json.Encoder().encode


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows. Records numbered `first` to `last` and of times from `since_ns` to `until_ns`, both ends included.

    `symbol`: a glob for `symbol` or `exchange/symbol`; rows of no symbol are left out where one is given.
    """

    what: str = "all"
    first: int = 0
    last: int | None = None
    since_ns: int = 0
    until_ns: int | None = None
    symbol: str = "*"


class Before(msgspec.Struct, frozen=True, kw_only=True):
    """What was in force, and the instruments by key."""

    version: str = ""
    config_sha256: str = ""
    instruments: dict[str, Instrument] = {}


NOTHING_BEFORE = Before()


def export(
    records: Iterable[tuple[str, rec.Record]],
    selection: Selection,
    *,
    peek: Peek,
    fee: AssumedFee,
    before: Before = NOTHING_BEFORE,
) -> Iterator[Row]:
    """The rows that are asked for, in the journal's order.

    `records`: hash and record, oldest first. `before`: what else is known of the journal before the first of them.
    """
    exporter = Exporter(peek, fee, before)
    kinds = tuple(KINDS.values()) if selection.what == "all" else (KINDS[selection.what],)
    like = None if selection.symbol == "*" else compiled(translate(selection.symbol)).match
    for hash_, record in records:
        rows = exporter.take(hash_, record)
        if selection.last is not None and record.seq > selection.last:
            return
        if selection.until_ns is not None and record.at > selection.until_ns:
            if record.at > selection.until_ns + LATE_NS:
                return
            continue
        if record.seq < selection.first or record.at < selection.since_ns:
            continue
        for row in rows:
            if isinstance(row, kinds) and (
                like is None or (row.symbol and (like(row.symbol) or like(f"{row.exchange}/{row.symbol}")))
            ):
                yield row


class Exporter(OrderLife):
    """Remembers what earlier records said; `take` is the only way in."""

    def __init__(self, peek: Peek, fee: AssumedFee, before: Before = NOTHING_BEFORE) -> None:
        super().__init__(fee)
        self._peek = peek
        self._symbols = {key: Symbol(key, instrument) for key, instrument in before.instruments.items()}
        self._stamp["version"] = before.version
        self._stamp["config_sha256"] = before.config_sha256

    def take(self, hash_: str, record: rec.Record) -> list[Row]:
        """The rows of the next record."""
        self._hash, self._seq, self._at = hash_, record.seq, record.at
        self._rows = []
        handler = RECORDS.get(type(record))
        if handler is not None:
            handler(self, record)
        return self._rows

    def _symbol(self, key: str) -> Symbol:
        found = self._symbols.get(key)
        if found is None:
            found = self._symbols[key] = Symbol(key, None)
        return found

    # --- the daemon's life -----------------------------------------------------------------------

    def segment(self, record: rec.Segment) -> None:
        self._stamp["service"] = record.service
        self._stamp["version"] = self._stamp["version"] or record.version

    def snapshot(self, record: rec.Snapshot | rec.Unclaimed) -> None:
        """Only where the records before it are not there any more, or were not read."""
        found = self._symbols.get(record.key)
        if record.key and record.state != rec.NO_STATE and (found is None or not found.begun):
            inherited = self._peek(bytes(record.state))
            if inherited is not None:
                self._symbol(record.key).take_over(inherited)
                for trade_id, side in inherited.told:
                    self._told.add((record.key, trade_id, side))

    def torn(self, record: rec.Torn) -> None:
        self._state("journal_torn", detail=f"{record.file}: {record.size} bytes of a line that was cut short")

    def lost(self, record: rec.Lost) -> None:
        self._state("journal_lost", detail=f"{record.records} records could not be written")

    def started(self, record: rec.Started) -> None:
        self._stamp["version"] = record.version
        for symbol in self._symbols.values():
            symbol.resumed_by = symbol.closing_by = ""
        self._state("started", detail=f"pid {record.pid} on {record.host}")

    def configured(self, record: rec.Configured) -> None:
        self._stamp["config_sha256"] = record.sha256
        self._state("configured", old=record.old_sha256, new=record.sha256, by=record.by)

    def joined(self, record: rec.Joined) -> None:
        symbol = self._symbol(record.key)
        symbol.instrument = record.instrument
        symbol.begun = True
        if not record.inherits:
            symbol.lots = None
            symbol.drift = 0
            symbol.imagined = dict.fromkeys(ev.Bound, 0)
        self._state("joined", symbol, detail=f"{record.settings.mode}, epoch {record.epoch}")

    def left(self, record: rec.Left) -> None:
        self._state("left", self._symbol(record.key))

    def stopped(self, record: rec.Stopped) -> None:
        left = ", ".join(f"{name}: {'unknown' if n is None else n}" for name, n in record.left.items())
        self._state("stopped", detail=f"orders left: {left or 'none was begun'}")

    def taken_out(self, record: rec.TakenOut) -> None:
        self._state("taken_out", self._symbol(record.key), new=State.HALTED, detail=record.detail)

    def totals(self, record: rec.Totals) -> None:
        for action in record.actions:
            if isinstance(action, TripSwitch | ClearSwitch):
                exchange, _, name = action.target.partition("/")
                self._state(
                    "switch_tripped" if isinstance(action, TripSwitch) else "switch_cleared",
                    Symbol(action.target, None) if name else None,
                    exchange=exchange,
                    switch=action.switch,
                    scope=action.scope,
                    detail=action.detail if isinstance(action, TripSwitch) else "",
                )

    # --- people ----------------------------------------------------------------------------------

    def note(self, record: rec.Note) -> None:
        self._rows.append(
            NoteRow(
                **self._head(record.exchange, record.symbol),
                number=record.number,
                name=record.name,
                detail=record.detail,
                by=record.by or "",
            )
        )

    def commanded(self, record: rec.Commanded) -> None:
        self._rows.append(
            CommandRow(
                **self._head(None, None),
                method=record.method,
                uid=record.uid,
                pid=record.pid,
                name=record.name,
                params=_json(record.params).decode(),
                outcome=record.outcome,
                config_sha256=self._stamp["config_sha256"],
            )
        )

    def alerted(self, record: rec.Alerted) -> None:
        self._rows.append(
            AlertRow(
                **self._head(record.exchange, record.symbol),
                name=record.name,
                state=record.state,
                severity=record.severity,
                summary=record.summary,
                detail=record.detail,
            )
        )

    # --- a machine's turn ------------------------------------------------------------------------

    def batch(self, record: rec.Batch) -> None:
        symbol = self._symbol(record.key)
        self._shadow = record.shadow
        for event in record.events:
            told = EVENTS.get(type(event))
            if told is not None:
                told(self, symbol, event)
        for action in record.actions:
            done = ACTIONS.get(type(action))
            if done is not None:
                done(self, symbol, action)
        if record.error or record.called_off:
            self._state("fault", symbol, detail=record.error or "stopped from outside")

    # --- what moves a symbol ---------------------------------------------------------------------

    def on_switch(self, symbol: Symbol, event: ev.SwitchTripped) -> None:
        self._state("switch_told", symbol, switch=event.switch, response=event.response, detail=event.detail)

    def on_switch_cleared(self, symbol: Symbol, event: ev.SwitchCleared) -> None:
        self._state("switch_over", symbol, switch=event.switch)

    def do_move(self, symbol: Symbol, action: do.StateChanged) -> None:
        symbol.resumed_by = action.by if action.new is State.ACTIVE else ""
        self._state(
            "state",
            symbol,
            old=action.old,
            new=action.new,
            why=action.why,
            by=action.by,
            detail=action.detail,
        )

    def do_trip(self, symbol: Symbol, action: do.Tripped) -> None:
        self._state(
            "switch_tripped",
            symbol,
            switch=action.switch,
            scope=action.scope,
            response=action.response,
            detail=action.detail,
        )

    def do_open_case(self, symbol: Symbol, action: do.CaseOpened) -> None:
        self._state(
            "case_opened", symbol, case=action.case, subject=action.subject, ours=action.ours, theirs=action.theirs
        )

    def do_close_case(self, symbol: Symbol, action: do.CaseClosed) -> None:
        if action.case is CaseKind.POSITION and action.by != "mmd":
            symbol.adopt()
        self._state("case_closed", symbol, case=action.case, subject=action.subject, by=action.by, detail=action.reason)

    def _state(self, event: str, symbol: Symbol | None = None, exchange: str = "", **more: Any) -> None:
        head = self._head(symbol.exchange if symbol else exchange, symbol.name if symbol else "")
        self._rows.append(StateRow(**head, event=event, **self._stamp, **more))


RECORDS: dict[type, Callable[[Exporter, Any], None]] = {
    rec.Segment: Exporter.segment,
    rec.Snapshot: Exporter.snapshot,
    rec.Unclaimed: Exporter.snapshot,
    rec.Torn: Exporter.torn,
    rec.Lost: Exporter.lost,
    rec.Started: Exporter.started,
    rec.Configured: Exporter.configured,
    rec.Joined: Exporter.joined,
    rec.Left: Exporter.left,
    rec.Stopped: Exporter.stopped,
    rec.Batch: Exporter.batch,
    rec.TakenOut: Exporter.taken_out,
    rec.Totals: Exporter.totals,
    rec.Note: Exporter.note,
    rec.Commanded: Exporter.commanded,
    rec.Alerted: Exporter.alerted,
}
EVENTS: dict[type, Callable[[Exporter, Symbol, Any], None]] = {
    ev.OrderAcked: Exporter.on_acked,
    ev.OrdersReported: Exporter.on_reported,
    ev.OrderRefused: Exporter.on_refused,
    ev.GateRefused: Exporter.on_withheld,
    ev.OrderClosed: Exporter.on_closed,
    ev.OrderAbsent: Exporter.on_absent,
    ev.RequestLost: Exporter.on_lost,
    ev.TradeLinkDown: Exporter.on_link_down,
    ev.OrderFilled: Exporter.on_filled,
    ev.ShadowFilled: Exporter.on_shadow_filled,
    ev.CashMoved: Exporter.on_cash,
    ev.PositionReported: Exporter.on_position,
    ev.Ticker: Exporter.on_ticker,
    ev.FlattenRequested: Exporter.on_flatten,
    ev.SwitchTripped: Exporter.on_switch,
    ev.SwitchCleared: Exporter.on_switch_cleared,
}
ACTIONS: dict[type, Callable[[Exporter, Symbol, Any], None]] = {
    do.PlaceOrder: Exporter.do_place,
    do.AmendOrder: Exporter.do_amend,
    do.CancelOrder: Exporter.do_cancel,
    do.ReduceOrder: Exporter.do_reduce,
    do.QueryOrder: Exporter.do_ask,
    do.Noted: Exporter.do_note,
    do.StateChanged: Exporter.do_move,
    do.Tripped: Exporter.do_trip,
    do.CaseOpened: Exporter.do_open_case,
    do.CaseClosed: Exporter.do_close_case,
}
