"""A story that a journal tells, made by hand: every record at a known number and time, so that its rows are known."""

from decimal import Decimal
from pathlib import Path

import msgspec

from mmd.core.imagined import maker_fee
from mmd.domain import actions as do
from mmd.domain import events as ev
from mmd.domain.instruments import Contract, Instrument, Kind
from mmd.domain.reasons import CaseKind, Fault, Mode, Response, Rule, Scope, Side, State, Switch, Why
from mmd.domain.settings import (
    DataRules,
    JournalSettings,
    KillSwitches,
    PortfolioLimits,
    Profile,
    SymbolLimits,
    SymbolSettings,
)
from mmd.domain.totals import TripSwitch
from mmd.domain.units import Grid
from mmd.journal import records as rec
from mmd.journal.writer import Journal

D = Decimal
START_NS = 1_795_000_000_000_000_000  # 2026-11-18T11:06:40Z
SECOND_NS = 1_000_000_000
KEY, OPTION = "deribit/BTC-PERPETUAL", "deribit/BTC-25DEC26-120000-C"
BID, ASK = "mmd-t-BTC-PERPETUAL-b-e1-1", "mmd-t-BTC-PERPETUAL-a-e1-2"
CLOSING = "mmd-t-BTC-PERPETUAL-a-e1-3"
SHADOW = "mmd-t-BTC-25DEC26-120000-C-b-e1-1"
STRAY = "mmd-t-BTC-PERPETUAL-b-e0-9"
ANN, BOB = "ann (uid 1001)", "bob (uid 1002)"
SHA1, SHA2 = "1" * 64, "2" * 64

PERPETUAL = Instrument(
    exchange="deribit",
    symbol="BTC-PERPETUAL",
    kind=Kind.PERPETUAL,
    contract=Contract.INVERSE,
    base="BTC",
    quote="USD",
    settlement="BTC",
    index="btc_usd",
    grid=Grid(D("0.5")),
    lot=D(10),
    min_lots=1,
    contract_size=D(10),
    maker_fee=D(0),
    taker_fee=D("0.0005"),
)
CALL = Instrument(
    exchange="deribit",
    symbol="BTC-25DEC26-120000-C",
    kind=Kind.CALL,
    contract=Contract.INVERSE,
    base="BTC",
    quote="BTC",
    settlement="BTC",
    index="btc_usd",
    grid=Grid(D("0.0001")),
    lot=D("0.1"),
    min_lots=1,
    contract_size=D(1),
    strike=D(120000),
    expiry_ns=START_NS + 30 * 86_400 * SECOND_NS,
    maker_fee=D("0.0003"),
    taker_fee=D("0.0003"),
)


def settings(mode: Mode) -> SymbolSettings:
    return SymbolSettings(
        service="t",
        mode=mode,
        profile=Profile(name="p", size=D(10)),
        limits=SymbolLimits(max_position=D(1000), max_order_size=D(100), collar_bps=500.0),
        data=DataRules(),
    )


class Story:
    """Writes one journal, a second between two records; `seq` of the last."""

    def __init__(self, directory: Path, **changes: object) -> None:
        self.now_ns = START_NS
        rules = msgspec.structs.replace(JournalSettings(reserve_mib=0.0), **changes)
        self.journal = Journal(
            directory, rules, service="t", version="1.0", code="none", now_ns=START_NS, clock_ns=lambda: self.now_ns
        )

    @property
    def seq(self) -> int:
        return self.journal.seq

    def tick(self) -> int:
        self.now_ns += SECOND_NS
        return self.now_ns

    def put(self, kind: type[rec.Record], **fields: object) -> int:
        self.journal.put(kind, self.tick(), **fields)
        return self.seq

    def batch(self, events: list[object], actions: list[object], key: str = KEY, **more: object) -> int:
        self.journal.batch(key, self.tick(), events, actions, **more)
        return self.seq

    def rotate(self) -> None:
        self.journal.rotate(self.tick())

    def close(self) -> None:
        self.journal.close()


def book(story: Story) -> ev.BookTop:
    return ev.BookTop(((128000, 5),), ((128010, 5),), 7, story.now_ns, story.now_ns)


def begin(story: Story) -> None:
    story.put(rec.Started, version="1.1", pid=77, host="h")
    story.put(rec.Configured, generation=1, sha256=SHA1, old_sha256="", effective={"service": {"name": "t"}})
    limits = PortfolioLimits(max_exposure={"BTC": D(5)}, max_notional_usd=D(10**6), max_drawdown_usd=D(5000))
    story.put(rec.Began, limits=limits, switches=KillSwitches())
    story.put(rec.Joined, key=KEY, instrument=PERPETUAL, settings=settings(Mode.LIVE), epoch="e1")
    story.put(rec.Joined, key=OPTION, instrument=CALL, settings=settings(Mode.SHADOW), epoch="e1")


def quote(story: Story) -> None:
    """Resumed by ann: a bid is placed, amended, filled in part; an ask is withheld; the bid is cancelled."""
    at = story.now_ns
    story.batch([ev.PositionReported(3, D("63000"), at), ev.TradeLinkUp(True, at)], [])
    story.batch(
        [ev.ResumeRequested(1, ANN, "go", at), book(story)],
        [
            do.StateChanged(State.PAUSED, State.ACTIVE, Why.RESUMED, ANN, "go"),
            do.PlaceOrder(BID, Side.BID, 127990, 10),
            do.PlaceOrder(ASK, Side.ASK, 128020, 10),
        ],
    )
    story.batch([ev.GateRefused(ASK, Side.ASK, Rule.COLLAR, "64010", "64000", "limits.per_symbol.collar_bps", at)], [])
    story.batch([ev.OrderAcked(BID, "77", 127990, 10, 10, at + 5)], [do.SetTimer(at + SECOND_NS)])
    story.batch([book(story)], [do.SetTimer(at + 2 * SECOND_NS)])  # nothing that an export tells
    story.batch([book(story)], [do.AmendOrder(BID, "77", Side.BID, 127992, 10, 10)])
    story.batch([ev.OrderRefused(BID, Fault.RATE_LIMIT, "10028", "too_many_requests", False, at + 6)], [])
    fill = ev.OrderFilled(
        BID, "77", "T1", Side.BID, D("63995.0"), 4, D("-0.00000016"), "BTC", True, 64000.0, at + 7, at + 8
    )
    story.batch([fill], [do.Noted("order.filled", "bid 40 at 63995.0")])
    story.batch([fill, book(story)], [do.CancelOrder(BID, "77", Side.BID)])  # told again
    story.batch([ev.OrderClosed(BID, "77", "cancelled", 4, at + 9)], [])


def trouble(story: Story) -> None:
    """The link breaks while an order is out; an unknown fate; a stray; a case that an operator accepts."""
    at = story.now_ns
    second = "mmd-t-BTC-PERPETUAL-b-e1-4"
    story.batch([book(story)], [do.PlaceOrder(second, Side.BID, 127980, 6)])
    story.batch(
        [ev.TradeLinkDown("reset by peer", at)],
        [do.StateChanged(State.ACTIVE, State.PAUSED, Why.EXCHANGE_DISCONNECTED, "mmd", "reset by peer")],
    )
    story.batch(
        [ev.TimerFired(at)], [do.Noted("order.unknown", f"{second}: no answer to PLACING"), do.QueryOrder(second, "")]
    )
    story.batch([ev.OrderAbsent(second, at)], [])
    stray = ev.OpenOrder(STRAY, "55", Side.BID, 127000, 2, 2)
    story.batch([ev.OrdersReported((stray,), at)], [do.CancelOrder(STRAY, "55", Side.BID)])
    story.batch([ev.RequestLost(STRAY, "timeout", at)], [])
    story.batch([ev.PositionReported(9, D("63900"), at)], [do.CaseOpened(CaseKind.POSITION, "", "70", "90")])
    story.batch(
        [ev.CaseAccepted(3, CaseKind.POSITION, "", ANN, "a trade by hand", at)],
        [do.CaseClosed(CaseKind.POSITION, "", ANN, "a trade by hand")],
    )


def flatten(story: Story) -> None:
    """Bob closes 50 of 90: an order that takes."""
    at = story.now_ns
    story.batch([ev.FlattenRequested(2, BOB, "expiry", 5, 127900, at)], [do.ReduceOrder(CLOSING, Side.ASK, 127900, 5)])
    fill = ev.OrderFilled(
        CLOSING, "78", "T2", Side.ASK, D("63990.5"), 5, D("0.0000000391"), "BTC", False, 64000.0, at, at
    )
    story.batch([fill, ev.OrderClosed(CLOSING, "78", "filled", 5, at)], [])
    story.put(
        rec.Commanded,
        uid=1002,
        pid=4,
        name="bob",
        method="flatten",
        params={"symbol": KEY, "size": "50", "reason": 'say "when", then\ngo'},
        outcome="done: closed 50",
    )


def imagine(story: Story) -> None:
    """The option is in shadow mode: both bounds of one imagined bid."""
    at = story.now_ns
    story.batch([book(story)], [do.PlaceOrder(SHADOW, Side.BID, 250, 3)], OPTION, shadow=True)
    story.batch([ev.OrderAcked(SHADOW, "shadow-" + SHADOW[4:], 250, 3, 3, at)], [], OPTION, shadow=True)
    story.batch(
        [
            ev.ShadowFilled(SHADOW, ev.Bound.OPTIMISTIC, Side.BID, D("0.025"), 3, 1, at),
            ev.ShadowFilled(SHADOW, ev.Bound.PESSIMISTIC, Side.BID, D("0.025"), 2, 2, at),
        ],
        [do.Noted("shadow.filled", "bid 0.2 at 0.025")],
        OPTION,
        shadow=True,
    )


def end(story: Story) -> None:
    """A portfolio switch, another configuration, an alert, notes, a stop."""
    story.journal.totals(
        story.tick(), [], (KEY, OPTION), [TripSwitch(Switch.DRAWDOWN, Scope.PORTFOLIO, "", "lost 5100 of 5000")]
    )
    at = story.now_ns
    story.batch(
        [ev.SwitchTripped(Switch.DRAWDOWN, Response.HALT, "lost 5100 of 5000", at)],
        [do.StateChanged(State.PAUSED, State.HALTED, Why.DRAWDOWN, "mmd", "lost 5100 of 5000")],
    )
    story.put(rec.Configured, generation=2, sha256=SHA2, old_sha256=SHA1, effective={}, by=ANN)
    story.put(
        rec.Alerted,
        name="drawdown",
        state="raised",
        severity="critical",
        summary="too much",
        symbol="BTC-PERPETUAL",
        exchange="deribit",
    )
    story.put(
        rec.Note,
        number=1,
        name="symbol.halted",
        detail="drawdown",
        symbol="BTC-PERPETUAL",
        exchange="deribit",
        by="mmd",
    )
    story.put(rec.Note, number=2, name="config.applied", detail="1 change", by=ANN)
    story.put(rec.Left, key=OPTION)
    story.put(rec.Stopped, left={"deribit": 0, "derive": None})


def tell(directory: Path) -> Story:
    """The whole of it, closed."""
    story = Story(directory)
    begin(story)
    quote(story)
    trouble(story)
    flatten(story)
    imagine(story)
    end(story)
    story.close()
    return story


fee = maker_fee
