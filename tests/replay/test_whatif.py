"""What other settings would have quoted: the same settings the same, wider ones wider, and nobody quotes against us."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from core_kit import ASK, INVERSE, NS, OPTION, START_NS, book, changed, settings, ticker
from replay_kit import STEPS, House, exact

from mmd.core.machine import SymbolMachine
from mmd.domain import events as ev
from mmd.domain.actions import AmendOrder, CancelOrder, Decision, PlaceOrder
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Mode, State, Why
from mmd.domain.settings import Style, SymbolSettings
from mmd.journal import records as rec
from mmd.journal.reader import records
from mmd.replay.imagine import Imaginary
from mmd.replay.whatif import Comparison, Outcome, WhatIf, changes, external, figures, market_of, rows, without

PERP = INVERSE.key
PLAIN_SETTINGS = exact(settings(size=100, limits={"max_position": 1000, "max_order_size": 500}))
MID = 120_000  # ticks of 0.5


def other(
    given: SymbolSettings = PLAIN_SETTINGS, limits: dict[str, Any] | None = None, **profile: Any
) -> SymbolSettings:
    """The same but for this."""
    found: SymbolSettings = changed(given, profile=changed(given.profile, **profile))
    return changed(found, limits=changed(found.limits, **(limits or {})))  # type: ignore[no-any-return]  # a copy


class Tape:
    """Writes records for one symbol whose machine is driven by hand."""

    def __init__(self, given: SymbolSettings = PLAIN_SETTINGS, instrument: Instrument = INVERSE) -> None:
        self.at = START_NS
        self.records: list[rec.AnyRecord] = []
        self.key = instrument.key
        self.machine = SymbolMachine(instrument, given, "ep", self.at)
        self.put(rec.Joined, key=self.key, instrument=instrument, settings=given, epoch="ep")

    def put(self, kind: Any, **fields: Any) -> None:
        self.records.append(kind(seq=len(self.records) + 1, at=self.at, **fields))

    def post(self, *events: ev.Mail) -> None:
        """One batch, and the answers of an exchange that says yes."""
        while events:
            actions = self.machine.handle(events, self.at)
            self.put(rec.Batch, key=self.key, events=events, digest="", actions=tuple(actions))
            events = tuple(answer for action in actions for answer in self.answer(action))

    def answer(self, action: Decision) -> list[ev.Mail]:
        match action:
            case PlaceOrder(label=label, price_ticks=price, size_lots=lots):
                return [ev.OrderAcked(label, f"id-{label}", price, lots, lots, self.at)]
            case AmendOrder(label=label, order_id=order, price_ticks=price, total_lots=lots):
                return [ev.OrderAcked(label, order, price, lots, lots, self.at)]
            case CancelOrder(label=label, order_id=order):
                return [ev.OrderClosed(label, order, "user_request", 0, self.at)]
        return []

    def up(self, bounds: int = 100) -> None:
        """Connected, priced, bounds granted, ACTIVE."""
        at = self.at
        self.post(ev.DataLinkUp(at), ev.TradeLinkUp(True, at))
        self.post(ev.OrdersReported((), at), ev.PositionReported(0, Decimal(0), at))
        self.post(book(MID - 1, MID + 1, at, lots=1000), ticker(at, 60_000.0, 60_000.0))
        self.post(ev.BoundsSet(1, -bounds, bounds, at))
        self.post(ev.ResumeRequested(1, "root", "test", at))
        assert self.machine.state is State.ACTIVE

    def wait(self, seconds: float, shift: int = 0) -> None:
        """Time passes, and then there is a book, and a ticker whose mark stays."""
        self.at += int(seconds * NS)
        self.post(book(MID - 1 + shift, MID + 1 + shift, self.at, lots=1000), ticker(self.at, 60_000.0, 60_000.0))


def compared(
    stream: list[rec.AnyRecord],
    others: Callable[[Instrument], SymbolSettings | None],
    wanted: Callable[[str], bool] = lambda key: True,
    since: Callable[[rec.AnyRecord], bool] = lambda record: True,
) -> tuple[list[Comparison], WhatIf]:
    found = WhatIf(others, wanted, since)
    for record in stream:
        found.feed(record)
    return found.finish(), found


def one(stream: list[rec.AnyRecord], given: SymbolSettings | None) -> tuple[Outcome, Outcome]:
    (found,), _ = compared(stream, lambda instrument: given)
    assert found.after is not None
    return found.before, found.after


def value(outcome: Outcome, name: str, unit: str) -> float | None:
    return figures([outcome], INVERSE)[name, unit][0]


# --- the same and not the same --------------------------------------------------------------------------


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "journal")
    made.steps = [step for step in STEPS if step != "settings_change"]
    made.run(150)
    made.restart()
    made.run(100, 2)
    made.journal.commit()
    yield made
    made.journal.close()


def test_the_same_settings_do_the_same(house: House) -> None:
    by_key = {rig.key: rig.given for rig in house.rigs()}
    found, _ = compared(list(records(house.directory)), lambda instrument: by_key[instrument.key])
    assert [each.key for each in found] == list(by_key)
    for each in found:
        assert each.after is not None
        assert each.before.tally == each.after.tally and each.before.pnl_usd == each.after.pnl_usd
        assert each.changes == ()
    assert sum(each.before.tally.placed for each in found) > 20
    assert all(each.before.tally.active_ns for each in found)


def test_twice_the_spread_is_twice_as_far_from_mid() -> None:
    tape = Tape()
    tape.up()
    for _ in range(20):
        tape.wait(0.5)
    before, after = one(tape.records, other(spread_bps=200.0))
    assert value(before, "half spread", "bps") == pytest.approx(50.0, abs=0.1)
    assert value(after, "half spread", "bps") == pytest.approx(100.0, abs=0.1)
    for outcome, away in ((before, 50.0), (after, 100.0)):
        assert value(outcome, "bid below mid", "bps") == pytest.approx(away, abs=0.1)
        assert value(outcome, "ask above mid", "bps") == pytest.approx(away, abs=0.1)
        assert value(outcome, "both sides quoted", "%") == pytest.approx(100.0)
        assert value(outcome, "recorded ACTIVE", "h") == pytest.approx(10 / 3600)


def test_size_is_counted_in_the_amount_and_in_dollars() -> None:
    tape = Tape()
    tape.up()
    tape.wait(5)
    before, after = one(tape.records, other(size=Decimal(300)))
    assert (value(before, "size a side", "USD"), value(after, "size a side", "USD")) == (100.0, 300.0)
    assert before.tally.size_lots == 2 * 10 * before.tally.both_ns


def test_messages_are_counted_by_their_kind_and_by_the_second() -> None:
    tape = Tape()
    tape.up()
    for step in range(1, 9):
        tape.wait(2, shift=50 * step)
    before, after = one(tape.records, other(tolerance_bps=1000.0))
    assert (before.tally.placed, before.tally.amended) == (2, 16)
    assert (after.tally.placed, after.tally.amended) == (2, 0)
    assert before.tally.busiest_second == 2
    tape.post(ev.PauseRequested(2, "root", "test", tape.at))
    before, _ = one(tape.records, other())
    assert before.tally.cancelled == 2


def test_fills_volume_position_and_profit_come_from_the_queue_model() -> None:
    tape = Tape()
    tape.up()
    tape.wait(1)
    tape.at += NS
    print_at = MID - 100  # through a bid at 10 bps, not through one at 50
    tape.post(ev.TradePrinted(print_at - 300, 1000, ASK, tape.at, tape.at))
    tape.wait(1, shift=-100)
    before, after = one(tape.records, other(spread_bps=20.0))
    assert before.tally.pessimistic.count == 0
    for fills in (after.tally.pessimistic, after.tally.optimistic):
        assert fills.count == 1 and fills.most_lots == 10 and fills.least_lots == 0
        assert fills.volume_usd == pytest.approx(100.0)
    pessimistic, optimistic = after.pnl_usd
    assert pessimistic is not None and optimistic is not None
    assert before.pnl_usd == (0.0, 0.0) and pessimistic != 0.0


def test_what_differs_is_listed_without_where_it_was_written() -> None:
    ours = changed(PLAIN_SETTINGS, sources={"max_position": "a"})
    theirs = changed(other(spread_bps=12.0, style=Style.JOIN), sources={"max_position": "b"})
    assert changes(ours, theirs) == ("profile.style: around -> join", "profile.spread_bps: 100.0 -> 12.0")


# --- following the record -------------------------------------------------------------------------------


def test_only_the_time_that_the_record_was_active_counts() -> None:
    tape = Tape()
    tape.up()
    tape.wait(10)
    tape.post(ev.PauseRequested(2, "root", "test", tape.at))
    tape.wait(100)
    tape.post(ev.ResumeRequested(3, "root", "test", tape.at))
    assert tape.machine.state is State.ACTIVE
    tape.wait(5)
    before, after = one(tape.records, other(spread_bps=200.0))
    for outcome in (before, after):
        assert outcome.tally.active_ns == 15 * NS
        assert outcome.tally.both_ns == 15 * NS
        assert outcome.tally.cancelled == 2


def test_between_two_processes_nothing_is_quoted() -> None:
    tape = Tape()
    tape.up()
    tape.wait(10)
    tape.at += 1000 * NS  # crashed after the last record, started much later
    tape.put(rec.Started, version="1", pid=2, host="h")
    tape.machine = SymbolMachine(INVERSE, PLAIN_SETTINGS, "e2", tape.at)
    tape.put(rec.Joined, key=PERP, instrument=INVERSE, settings=PLAIN_SETTINGS, epoch="e2")
    tape.wait(50)
    tape.up()
    tape.wait(10)
    before, _ = one(tape.records, other())
    assert before.tally.active_ns == 20 * NS == before.tally.both_ns
    assert before.tally.out_ns == 0


def test_a_halt_of_its_own_is_counted_and_resumed() -> None:
    tape = Tape()
    tape.up()
    for step in range(1, 6):
        tape.wait(2)
        tape.post(ev.TradePrinted(MID - 30 * step - 500, 10_000, ASK, tape.at, tape.at))
    tape.wait(3)
    _, after = one(tape.records, other(spread_bps=20.0, limits={"max_fills": 1}))
    assert after.tally.trips["repeated_fills"] >= 1
    assert tape.machine.state is State.ACTIVE
    assert after.tally.both_ns > 0 and after.tally.active_ns == 13 * NS


def test_recorded_settings_are_followed_by_a_and_not_by_b() -> None:
    tape = Tape()
    tape.up()
    tape.wait(10)
    tape.post(ev.SettingsChanged(other(spread_bps=300.0), tape.at))
    tape.wait(10)
    before, after = one(tape.records, other())
    assert value(before, "half spread", "bps") == pytest.approx(100.0, abs=0.5)
    assert value(after, "half spread", "bps") == pytest.approx(50.0, abs=0.1)


def test_bounds_are_in_proportion_to_the_own_limit() -> None:
    tape = Tape()
    tape.up(bounds=5)  # of 100 lots
    tape.wait(5)
    before, after = one(tape.records, other(limits={"max_position": Decimal(2000)}))
    assert value(before, "size a side", "USD") == 50.0
    assert value(after, "size a side", "USD") == 100.0


def test_a_market_trouble_stops_both() -> None:
    tape = Tape()
    tape.up()
    tape.wait(10)
    tape.post(ev.BookBroken(Why.BOOK_GAP, "test", tape.at))
    assert tape.machine.state is State.PAUSED
    tape.at += 30 * NS
    tape.post(ev.TimerFired(tape.at))
    before, after = one(tape.records, other(spread_bps=50.0))
    assert before.tally.active_ns == after.tally.active_ns == 10 * NS


# --- which symbols, from when ---------------------------------------------------------------------------


def test_a_symbol_that_the_other_file_does_not_quote_has_one_column() -> None:
    tape = Tape()
    tape.up()
    tape.wait(5)
    (found,), _ = compared(tape.records, lambda instrument: None)
    assert found.after is None and found.before.tally.both_ns == 5 * NS
    assert all(row.after is None for row in rows([found.before], [], INVERSE))


def test_settings_that_do_not_fit_are_told() -> None:
    tape = Tape()
    tape.up()
    found, whatif = compared(tape.records, lambda instrument: other(size=Decimal("0.5")))
    assert not found and "size" in whatif.troubles[PERP]


def test_only_wanted_symbols(house: House) -> None:
    found, _ = compared(list(records(house.directory)), lambda i: None, wanted=lambda key: key == PERP)
    assert [each.key for each in found] == [PERP]


def test_it_may_begin_in_the_middle_and_knows_the_market_there() -> None:
    tape = Tape()
    tape.up()
    tape.wait(60)
    middle = len(tape.records)
    for _ in range(5):
        tape.wait(1)
    (found,), whatif = compared(tape.records, lambda i: other(), since=lambda record: record.seq >= middle)
    assert whatif.first_at == tape.at - 5 * NS
    assert found.before.tally.active_ns == 5 * NS == found.before.tally.both_ns


def test_totals_add_up() -> None:
    outcomes = []
    for steps in (2, 6):
        tape = Tape()
        tape.up()
        for _ in range(steps):
            tape.wait(5)
        outcomes.append(one(tape.records, other())[0])
    found = figures(outcomes, None)
    assert found["recorded ACTIVE", "symbol-h"][0] == pytest.approx(40 / 3600)
    assert found["placed", "/h a symbol"][0] == pytest.approx(4 / (40 / 3600))
    assert found["both sides quoted", "%"][0] == pytest.approx(100.0)


# --- never against our own recorded orders --------------------------------------------------------------


def test_our_recorded_orders_are_taken_out_of_the_book() -> None:
    """Who joins the best price would else join our own, and follow it wherever it goes."""
    tape = Tape(other(style=Style.IMPROVE, improve_by=Decimal("0.5"), spread_bps=0.0))
    tape.up()
    for _ in range(4):
        tape.at += NS
        slots: list[Any] = [tape.machine.own.bid.slot, tape.machine.own.ask.slot]
        bid, ask = (slot.price_ticks for slot in slots)
        tape.post(ev.BookTop(((bid, 10), (MID - 60, 500)), ((ask, 10), (MID + 60, 500)), 0, tape.at, tape.at))
    assert bid == MID - 59, "the recorded machine improves the best price of others"
    _, whatif = compared(tape.records, lambda i: other(style=Style.JOIN, spread_bps=0.0))
    quoted: Any = whatif.pairs[PERP].each[1].machine.own
    assert (quoted.bid.slot.price_ticks, quoted.ask.slot.price_ticks) == (MID - 60, MID + 60)


def test_levels_without_ours() -> None:
    levels = ((100, 10), (99, 30), (98, 5))
    assert without(levels, ()) == levels
    assert without(levels, ((100, 10),)) == ((99, 30), (98, 5))
    assert without(levels, ((99, 10), (99, 20))) == ((100, 10), (99, 10), (98, 5)), "alternatives, not both"
    assert without(levels, ((98, 9),)) == levels, "a level smaller than ours cannot hold it"


def test_orders_that_stay_in_the_house_are_in_no_book() -> None:
    tape = Tape(changed(PLAIN_SETTINGS, mode=Mode.SHADOW))
    tape.up()
    assert tape.machine.own.bid.label
    book = tape.machine.market.book
    assert book is not None and external(tape.machine, book, tape.at) == book


# --- the imagined machine itself ------------------------------------------------------------------------


def test_it_never_sends_anything_that_could_leave() -> None:
    imaginary = Imaginary(INVERSE, PLAIN_SETTINGS, START_NS)
    assert imaginary.machine.mode is Mode.SHADOW and not imaginary.machine.rules.protected


def test_timers_fire_at_their_time() -> None:
    tape = Tape()
    tape.up()
    imaginary = Imaginary(INVERSE, other(requote="amend"), tape.at)
    imaginary.market(market_of(tape.machine, tape.at))
    imaginary.bounds(1, -100, 100)
    imaginary.follow(active=True)
    stale_ns = imaginary.machine.rules.stale_ns
    imaginary.advance(tape.at + 2 * stale_ns)
    assert imaginary.tally.trips["market_data"] == 1
    assert imaginary.tally.active_ns == 2 * stale_ns
    assert imaginary.tally.out_ns == pytest.approx(stale_ns, abs=NS)
    assert imaginary.machine.state is State.PAUSED and imaginary.machine.own.resting == 0


def test_an_option_is_valued_in_dollars() -> None:
    given = exact(settings(size=1, spread_bps=500.0, limits={"max_position": 5, "collar_bps": 10_000.0}))
    tape = Tape(given, OPTION)
    at = tape.at
    tape.post(ev.DataLinkUp(at), ev.TradeLinkUp(True, at))
    tape.post(ev.OrdersReported((), at), ev.PositionReported(0, Decimal(0), at))
    tape.post(ticker(at, 0.05, 60_000.0), book(490, 510, at))
    tape.post(ev.BoundsSet(1, -50, 50, at))
    tape.post(ev.ResumeRequested(1, "root", "test", at))
    tape.at += NS
    tape.post(book(490, 510, tape.at))
    (found,), _ = compared(tape.records, lambda i: given)
    assert figures([found.before], OPTION)["size a side", "BTC"][0] == pytest.approx(1.0)
    assert figures([found.before], OPTION)["size a side", "USD"][0] == pytest.approx(60_000.0)
