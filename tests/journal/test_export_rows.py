"""The export judged against a story whose rows are known: orders, fills with positions, states, people."""

import json
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from export_story import (
    ANN,
    ASK,
    BID,
    BOB,
    CLOSING,
    KEY,
    OPTION,
    PERPETUAL,
    SHA1,
    SHA2,
    SHADOW,
    STRAY,
    Story,
    begin,
    quote,
    tell,
)

from mmd.core.imagined import maker_fee
from mmd.domain import actions as do
from mmd.domain import events as ev
from mmd.domain.reasons import Side
from mmd.journal import records as rec
from mmd.journal.context import ORDERS_KEPT, Recent
from mmd.journal.export import Exporter, Selection, export
from mmd.journal.reader import lines
from mmd.journal.records import DECODER
from mmd.journal.rows import KINDS, FillRow, OrderRow, Row, StateRow, cells, columns, utc
from mmd.replay.peek import peek

SECOND = "mmd-t-BTC-PERPETUAL-b-e1-4"
ORDERS = [
    # record, event, label, mode, price, size, what else is in the row
    (8, "place", BID, "live", "63995.0", "100", {"authorised_by": ANN, "order_type": "post-only limit"}),
    (8, "place", ASK, "live", "64010.0", "100", {"side": "ask"}),
    (9, "withheld", ASK, "live", "64010.0", "100", {"rule": "collar", "found": "64010", "limit": "64000"}),
    (10, "acked", BID, "live", "63995.0", "100", {"order_id": "77", "remaining": "100"}),
    (12, "amend", BID, "live", "63996.0", "100", {"order_id": "77"}),
    (13, "refused", BID, "live", "63996.0", "100", {"fault": "rate_limit", "code": "10028"}),
    (14, "filled", BID, "live", "63995.0", "40", {"trade_id": "T1", "fee": "-0.00000016", "liquidity": "maker"}),
    (15, "cancel", BID, "live", "63995.0", "100", {"order_id": "77"}),  # the refused amend did not move it
    (16, "closed", BID, "live", "63995.0", "100", {"detail": "cancelled, 40 filled"}),
    (17, "place", SECOND, "live", "63990.0", "60", {}),
    (18, "lost", SECOND, "live", "63990.0", "60", {"detail": "the trading link is down: reset by peer"}),
    (19, "unknown", SECOND, "live", "63990.0", "60", {"detail": "no answer to PLACING"}),
    (19, "asked", SECOND, "live", "63990.0", "60", {}),
    (20, "absent", SECOND, "live", "63990.0", "60", {}),
    (21, "reported", STRAY, "live", "63500.0", "20", {"order_id": "55", "authorised_by": ""}),
    (21, "cancel", STRAY, "live", "63500.0", "20", {}),
    (22, "lost", STRAY, "live", "63500.0", "20", {"detail": "timeout"}),
    (25, "reduce", CLOSING, "live", "63950.0", "50", {"authorised_by": BOB, "side": "ask"}),
    (26, "filled", CLOSING, "live", "63990.5", "50", {"liquidity": "taker", "authorised_by": BOB}),
    (26, "closed", CLOSING, "live", "63950.0", "50", {}),
    (28, "place", SHADOW, "shadow", "0.0250", "0.3", {"size_unit": "BTC", "price_unit": "BTC"}),
    (29, "acked", SHADOW, "shadow", "0.0250", "0.3", {}),
    (30, "filled", SHADOW, "shadow", "0.025", "0.3", {"ledger": "shadow optimistic"}),
    (30, "filled", SHADOW, "shadow", "0.025", "0.2", {"ledger": "shadow pessimistic"}),
]
FILLS = [
    # record, ledger, side, price, size, position after, fee, who
    (14, "real", "bid", "63995.0", "40", "70", "-0.00000016", ANN),  # 30 were there, by the exchange's report
    (26, "real", "ask", "63990.5", "50", "40", "0.0000000391", BOB),  # ann had accepted 90
    (30, "shadow optimistic", "bid", "0.025", "0.3", "0.3", "0.00009", ""),
    (30, "shadow pessimistic", "bid", "0.025", "0.2", "0.2", "0.00006", ""),
]
STATES = [
    (2, "started", "", {"detail": "pid 77 on h", "version": "1.1"}),
    (3, "configured", "", {"new": SHA1, "old": ""}),
    (5, "joined", "BTC-PERPETUAL", {"detail": "live, epoch e1"}),
    (6, "joined", "BTC-25DEC26-120000-C", {"detail": "shadow, epoch e1"}),
    (8, "state", "BTC-PERPETUAL", {"old": "PAUSED", "new": "ACTIVE", "by": ANN, "why": "resumed"}),
    (18, "state", "BTC-PERPETUAL", {"new": "PAUSED", "by": "mmd", "why": "exchange_disconnected"}),
    (23, "case_opened", "BTC-PERPETUAL", {"case": "position", "ours": "70", "theirs": "90"}),
    (24, "case_closed", "BTC-PERPETUAL", {"case": "position", "by": ANN, "detail": "a trade by hand"}),
    (31, "switch_tripped", "", {"switch": "drawdown", "scope": "portfolio", "detail": "lost 5100 of 5000"}),
    (32, "switch_told", "BTC-PERPETUAL", {"switch": "drawdown", "response": "halt"}),
    (32, "state", "BTC-PERPETUAL", {"new": "HALTED", "why": "drawdown"}),
    (33, "configured", "", {"old": SHA1, "new": SHA2, "by": ANN}),
    (37, "left", "BTC-25DEC26-120000-C", {}),
    (38, "stopped", "", {"detail": "orders left: deribit: 0, derive: unknown"}),
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("story") / "journal"
    tell(path)
    return path


def pairs(directory: Path) -> list[tuple[str, rec.Record]]:
    return [(line.hash, DECODER.decode(line.body)) for line in lines(directory)]


def rows_of(directory: Path, **selection: object) -> list[Row]:
    return list(export(pairs(directory), Selection(**selection), peek=peek, fee=maker_fee))


def has(row: Row, more: dict[str, object]) -> dict[str, object]:
    return {name: getattr(row, name) for name in more}


def test_every_step_of_every_order(directory: Path) -> None:
    rows = rows_of(directory, what="orders")
    assert all(isinstance(row, OrderRow) for row in rows)
    found = [(row.seq, row.event, row.label, row.mode, row.price, row.size) for row in rows]
    assert found == [row[:6] for row in ORDERS]
    for row, wanted in zip(rows, ORDERS, strict=True):
        assert has(row, wanted[6]) == wanted[6], wanted
        assert (row.service, row.version, row.config_sha256) == ("t", "1.1", SHA1)
        assert row.side in ("bid", "ask")


def test_every_execution_once_with_the_position_after_it(directory: Path) -> None:
    rows = rows_of(directory, what="fills")
    assert [
        (r.seq, r.ledger, r.side, r.price, r.size, r.position_after, r.fee, r.authorised_by)
        for r in rows
        if isinstance(r, FillRow)
    ] == FILLS


def test_every_change_of_state(directory: Path) -> None:
    rows = rows_of(directory, what="states")
    assert all(isinstance(row, StateRow) for row in rows)
    assert [(row.seq, row.event, row.symbol) for row in rows] == [wanted[:3] for wanted in STATES]
    for row, (*_, more) in zip(rows, STATES, strict=True):
        assert has(row, more) == more


def test_people_alerts_and_notes(directory: Path) -> None:
    (command,) = rows_of(directory, what="commands")
    assert (command.uid, command.name, command.method, command.outcome) == (1002, "bob", "flatten", "done: closed 50")
    assert json.loads(command.params) == {"symbol": KEY, "size": "50", "reason": 'say "when", then\ngo'}
    (alert,) = rows_of(directory, what="alerts")
    assert (alert.name, alert.state, alert.symbol) == ("drawdown", "raised", "BTC-PERPETUAL")
    notes = rows_of(directory, what="notes")
    assert [(note.number, note.name, note.by) for note in notes] == [
        (1, "symbol.halted", "mmd"),
        (2, "config.applied", ANN),
    ]


def test_all_is_everything_in_the_order_of_the_journal(directory: Path) -> None:
    rows = rows_of(directory)
    assert [row.seq for row in rows] == sorted(row.seq for row in rows)
    counted = Counter(type(row) for row in rows)
    assert counted == {kind: len(rows_of(directory, what=what)) for what, kind in KINDS.items()}
    names = columns("all")
    assert len(names) == len(set(names)) and names[:3] == ["what", "time", "seq"]
    for row in rows:
        assert dict(zip(names, cells(row, names), strict=True))["seq"] == row.seq


def test_each_row_names_the_record_that_is_its_evidence(directory: Path) -> None:
    known = {line.seq: line for line in lines(directory)}
    for row in rows_of(directory):
        assert row.hash == known[row.seq].hash
        assert row.time == utc(msgspec.json.decode(known[row.seq].body)["at"])


@pytest.mark.parametrize(
    ("selection", "wanted"),
    [
        ({"first": 14, "last": 16}, [14, 15, 16]),
        ({"since_ns": 1_795_000_000_000_000_000 + 25 * 10**9}, [26, 26, 28, 29, 30, 30]),
        ({"until_ns": 1_795_000_000_000_000_000 + 8 * 10**9}, [8, 8, 9]),
        ({"symbol": "BTC-25DEC*"}, [28, 29, 30, 30]),
        ({"symbol": "deribit/BTC-P*", "first": 22}, [22, 25, 26, 26]),
        ({"symbol": "derive/*"}, []),
        ({"first": 1000}, []),
    ],
)
def test_a_range_and_a_symbol(directory: Path, selection: dict[str, object], wanted: list[int]) -> None:
    rows = rows_of(directory, what="orders", **selection)
    assert [row.seq for row in rows] == wanted
    # What came before the range is known in it: nothing in a row depends on the range.
    assert rows == [row for row in rows_of(directory, what="orders") if row.seq in wanted]


def test_rows_of_no_symbol_are_left_out_where_one_is_asked_for(directory: Path) -> None:
    assert {row.symbol for row in rows_of(directory, symbol="*PERP*")} == {"BTC-PERPETUAL"}


def test_a_clock_that_was_set_back_ends_nothing(tmp_path: Path) -> None:
    story = Story(tmp_path / "journal")
    begin(story)
    limit = story.now_ns
    story.tick()
    story.put(rec.Left, key=KEY)
    story.now_ns = limit - 10**9
    story.put(rec.Left, key=OPTION)
    story.close()
    rows = rows_of(tmp_path / "journal", what="states", until_ns=limit)
    assert [row.symbol for row in rows if isinstance(row, StateRow) and row.event == "left"] == ["BTC-25DEC26-120000-C"]


def test_the_position_is_not_known_before_the_exchange_has_said_it(tmp_path: Path) -> None:
    story = Story(tmp_path / "journal")
    begin(story)
    fill = ev.OrderFilled(BID, "77", "T1", Side.BID, PERPETUAL.grid.price(9), 4, PERPETUAL.lot, "BTC", True, 0.0, 0, 5)
    story.batch([fill], [])
    story.close()
    (row,) = rows_of(tmp_path / "journal", what="fills")
    assert isinstance(row, FillRow)
    assert (row.position_after, row.exchange_time, row.price, row.fee) == ("", "", "4.5", "10")


def test_a_delivery_ends_a_position_and_a_machine_made_anew_forgets_it(tmp_path: Path) -> None:
    story = Story(tmp_path / "journal")
    begin(story)
    quote(story)
    cash = ev.CashMoved("E1", ev.CashKind.SETTLEMENT, PERPETUAL.lot, "BTC", 7, 1, 1)
    story.batch([cash, cash], [])

    def filled(trade: str) -> ev.OrderFilled:
        return ev.OrderFilled("", "1", trade, Side.BID, PERPETUAL.lot, 1, PERPETUAL.lot, "BTC", True, 0.0, 1, 1)

    story.batch([filled("T5")], [])
    joined = {"key": KEY, "instrument": PERPETUAL, "settings": DECODER.decode(joined_body(story)).settings}
    story.put(rec.Joined, **joined, epoch="e2", inherits=True)
    story.batch([filled("T6")], [])
    story.put(rec.Joined, **joined, epoch="e3")
    story.batch([filled("T7")], [])
    story.close()
    rows = rows_of(tmp_path / "journal", what="fills")
    assert [row.position_after for row in rows if isinstance(row, FillRow)] == ["70", "10", "20", ""]


def joined_body(story: Story) -> bytes:
    story.journal.commit()
    return next(line.body for line in lines(story.journal.directory) if b'"joined"' in line.body[:20])


def test_what_a_machine_raised_is_a_fault(tmp_path: Path) -> None:
    story = Story(tmp_path / "journal")
    begin(story)
    story.batch([ev.TimerFired(1)], [], error="ZeroDivisionError()")
    story.batch([ev.TimerFired(1)], [], called_off=True)
    story.put(rec.TakenOut, key=KEY, detail="twice")
    story.put(rec.Torn, file="journal-00000001.jsonl", offset=9, size=3, sha256="ab")
    story.put(rec.Lost, records=5)
    story.close()
    rows = rows_of(tmp_path / "journal", what="states")[-5:]
    assert [(row.event, row.detail) for row in rows if isinstance(row, StateRow)] == [
        ("fault", "ZeroDivisionError()"),
        ("fault", "stopped from outside"),
        ("taken_out", "twice"),
        ("journal_torn", "journal-00000001.jsonl: 3 bytes of a line that was cut short"),
        ("journal_lost", "5 records could not be written"),
    ]


def test_orders_that_are_over_are_not_lost_with_the_link(tmp_path: Path) -> None:
    """Filled whole, closed, absent, not listed any more, imagined: none of them can be out."""
    story = Story(tmp_path / "journal")
    begin(story)
    labels = [f"mmd-t-BTC-PERPETUAL-b-e1-{n}" for n in range(1, 6)]
    at = story.now_ns
    story.batch([], [do.PlaceOrder(label, Side.BID, 100, 2) for label in labels])
    story.batch([ev.OrderAcked(label, label[-1], 100, 2, 2, at) for label in labels], [])
    story.batch([], [do.PlaceOrder(SHADOW, Side.BID, 250, 3)], OPTION, shadow=True)

    def fill(trade: str) -> ev.OrderFilled:
        return ev.OrderFilled(labels[0], "1", trade, Side.BID, PERPETUAL.lot, 1, PERPETUAL.lot, "BTC", True, 0.0, 1, 1)

    story.batch([fill("A"), fill("B"), ev.OrderClosed(labels[1], "2", "cancelled", 0, at)], [])
    listed = tuple(ev.OpenOrder(label, label[-1], Side.BID, 100, 2, 2) for label in labels[3:])
    story.batch([ev.OrdersReported(listed, at), ev.OrderAbsent(labels[3], at)], [])
    for key in (KEY, OPTION):
        story.batch([ev.TradeLinkDown("gone", at)], [], key)
    story.close()
    lost = [
        row.label
        for row in rows_of(tmp_path / "journal", what="orders")
        if isinstance(row, OrderRow) and row.event == "lost"
    ]
    assert lost == [labels[4]]


def test_what_is_remembered_is_bounded() -> None:
    recent: Recent[int] = Recent(3)
    assert [recent.add(n) for n in (1, 2, 1, 3, 4, 1, 2)] == [True, True, False, True, True, False, True]
    exporter = Exporter(peek, maker_fee)
    for n in range(2 * ORDERS_KEPT):
        action = do.PlaceOrder(f"mmd-t-X-b-e-{n}", Side.BID, 1, 1)
        exporter.take("", rec.Batch(seq=n, at=1, key="d/X", events=(), digest="", actions=(action,)))
    assert len(exporter._symbols["d/X"].orders) == ORDERS_KEPT


def test_times_have_nanoseconds_and_a_zone() -> None:
    assert utc(1_795_000_000_000_000_001) == "2026-11-18T11:06:40.000000001Z"
    assert utc(0) == ""
