"""Derive's book of snapshots: the top, older messages, late ones, levels that are none. Messages are composed."""

import json
import random
from decimal import Decimal
from typing import Any

import pytest

from mmd.domain.errors import ExchangeMalformed
from mmd.domain.events import BookBroken, BookTop
from mmd.domain.instruments import Contract, Instrument, Kind
from mmd.domain.reasons import Why
from mmd.domain.units import Grid
from mmd.exchanges.derive.book import LATE_NS, MS, REPEAT_NS, SURE_NS, SnapshotBook, positive
from mmd.exchanges.derive.codec import decode_book
from mmd.exchanges.levels import KNOWN_TEXTS, Numbers

ETH = Instrument(
    exchange="derive",
    symbol="ETH-PERP",
    kind=Kind.PERPETUAL,
    contract=Contract.LINEAR,
    base="ETH",
    quote="USDC",
    settlement="USDC",
    index="ETH-USD",
    grid=Grid(Decimal("0.1")),
    lot=Decimal("0.1"),
    min_lots=1,
    contract_size=Decimal(1),
)
NOW_MS = 1795305600321
BIDS = [["3100.2", "4.5"], ["3100.1", "10"]]
ASKS = [["3100.6", "2"]]


def now_ms() -> int:
    """The exchange's clock."""
    return NOW_MS


def snapshot(publish_id: int, timestamp: int | str = NOW_MS, **fields: Any) -> Any:
    raw = {
        "instrument_name": "ETH-PERP",
        "publish_id": publish_id,
        "timestamp": timestamp,
        "bids": BIDS,
        "asks": ASKS,
    }
    return decode_book(json.dumps(raw | fields).encode())


def test_the_documents_example() -> None:
    top = SnapshotBook(ETH, now_ms).apply(snapshot(48213), 5)
    assert top == BookTop(((31002, 45), (31001, 100)), ((31006, 20),), 48213, NOW_MS * MS, 5)


def test_every_message_replaces_the_whole_book() -> None:
    book = SnapshotBook(ETH, now_ms)
    book.apply(snapshot(1), 5)
    top = book.apply(snapshot(2, NOW_MS + 1, bids=[["3100", "1"]], asks=[]), 6)
    assert top == BookTop(((31000, 10),), (), 2, (NOW_MS + 1) * MS, 6)


def test_a_top_that_did_not_change_is_no_news_but_keeps_the_book_young() -> None:
    book = SnapshotBook(ETH, now_ms, top_levels=1)
    assert book.apply(snapshot(1), 5)
    assert book.apply(snapshot(2, NOW_MS + 400, bids=[BIDS[0], ["3099", "7"]]), 6) is None
    assert (book.publish_id, book.exchange_ns) == (2, (NOW_MS + 400) * MS)
    assert book.live


def test_that_nothing_changed_is_news_once_a_second() -> None:
    book = SnapshotBook(ETH, now_ms)
    assert book.apply(snapshot(1), 5)
    assert book.apply(snapshot(2), REPEAT_NS + 4) is None
    again = book.apply(snapshot(3, NOW_MS + 1000), REPEAT_NS + 5)
    assert isinstance(again, BookTop) and (again.sequence, again.received_ns) == (3, REPEAT_NS + 5)
    assert book.apply(snapshot(4), REPEAT_NS + 6) is None


def test_an_empty_book_is_news_once() -> None:
    book = SnapshotBook(ETH, now_ms)
    assert book.apply(snapshot(1, bids=[], asks=[]), 5) == BookTop((), (), 1, NOW_MS * MS, 5)
    assert book.apply(snapshot(2, bids=[], asks=[]), 6) is None


@pytest.mark.parametrize(
    ("publish_id", "timestamp", "taken"),
    [
        pytest.param(11, NOW_MS + 1, True, id="newer"),
        pytest.param(11, NOW_MS - 1, True, id="newer by its number"),
        pytest.param(10, NOW_MS, False, id="the same again"),
        pytest.param(9, NOW_MS - 1, False, id="older"),
        pytest.param(9, NOW_MS, False, id="older of the same millisecond"),
        pytest.param(1, NOW_MS + 1000, True, id="the feed began anew"),
    ],
)
def test_older_messages_are_dropped(publish_id: int, timestamp: int, taken: bool) -> None:
    book = SnapshotBook(ETH, now_ms)
    book.apply(snapshot(10), 5)
    late = book.apply(snapshot(publish_id, timestamp, bids=[["3000", "1"]]), 6)
    assert (late is not None) is taken
    assert (book.bids == ((30000, 10),)) is taken


def test_the_order_of_levels_is_not_relied_on() -> None:
    bids = [[f"{3100 - number / 10:.1f}", "1"] for number in range(10)]
    asks = [[f"{3101 + number / 10:.1f}", "1"] for number in range(10)]
    random.Random(1).shuffle(bids)
    random.Random(2).shuffle(asks)
    top = SnapshotBook(ETH, now_ms).apply(snapshot(1, bids=bids, asks=asks), 5)
    assert isinstance(top, BookTop)
    assert [price for price, _ in top.bids] == [31000, 30999, 30998, 30997, 30996]
    assert [price for price, _ in top.asks] == [31010, 31011, 31012, 31013, 31014]


def test_levels_as_the_specification_has_them() -> None:
    def objects(levels: list[list[str]]) -> list[dict[str, str]]:
        return [{"price": price, "amount": amount} for price, amount in levels]

    assert snapshot(1, bids=objects(BIDS), asks=objects(ASKS)) == snapshot(1)
    assert snapshot(1, bids=[], asks=objects(ASKS)) == snapshot(1, bids=[])


BROKEN = [
    pytest.param({"bids": [["3100.25", "1"]]}, "not a multiple", id="price off the grid"),
    pytest.param({"asks": [["3100.6", "0.05"]]}, "not a multiple", id="amount off the grid"),
    pytest.param({"asks": [["3100.6", "0"]]}, "0 is not positive", id="no amount"),
    pytest.param({"asks": [["3100.6", "-1"]]}, "-1 is not positive", id="negative amount"),
    pytest.param({"asks": [["0", "1"]]}, "0 is not positive", id="no price"),
    pytest.param({"bids": [["3100", "1"], ["3100.0", "2"]]}, "two levels at 31000 ticks", id="one price twice"),
    pytest.param({"bids": [["dear", "1"]]}, "snapshot 2", id="words"),
    pytest.param({"bids": [["NaN", "1"]]}, "snapshot 2", id="not a number"),
    pytest.param({"bids": [["1e999999", "1"]]}, "snapshot 2", id="absurd exponent"),
    pytest.param({"bids": [["1" * 65, "1"]]}, "a number of 65 characters", id="absurdly long"),
    pytest.param({"instrument_name": "BTC-PERP"}, "a book of BTC-PERP", id="another instrument"),
]


@pytest.mark.parametrize(("fields", "wanted"), BROKEN)
def test_what_cannot_be_read_breaks_the_book_until_the_next_message(fields: dict[str, Any], wanted: str) -> None:
    book = SnapshotBook(ETH, now_ms)
    book.apply(snapshot(1), 5)
    broken = book.apply(snapshot(2, **fields), 6)
    assert isinstance(broken, BookBroken)
    assert (broken.why, broken.received_ns) == (Why.BOOK_MALFORMED, 6)
    assert wanted in broken.detail
    assert (book.live, book.bids, book.asks) == (False, (), ())
    assert book.apply(snapshot(1), 7) is None  # what came before cannot mend it
    assert isinstance(book.apply(snapshot(3), 8), BookTop)


@pytest.mark.parametrize(
    "fields",
    [
        {"bids": None},
        {"bids": [["3100", "1", "new"]]},
        {"bids": [[3100, 1]]},
        {"timestamp": "1"},
        {"bids": [{"price": "1"}]},
    ],
)
def test_what_has_not_the_shape_of_a_book(fields: dict[str, Any]) -> None:
    with pytest.raises(ExchangeMalformed):
        snapshot(1, **fields)


def test_a_crossed_book_is_handed_out_as_it_is() -> None:
    top = SnapshotBook(ETH, now_ms).apply(snapshot(1, asks=[["3100.0", "1"]]), 5)
    assert isinstance(top, BookTop)
    assert top.asks[0] == (31000, 10)


def test_snapshots_that_go_on_coming_late_are_no_book() -> None:
    """Once on a subscription; the next begins with that, and the first that is in time ends it."""
    book = SnapshotBook(ETH, now_ms)
    late_ms = NOW_MS - LATE_NS // MS - 1
    first_ns, sure_ns = NOW_MS * MS, NOW_MS * MS + SURE_NS
    assert isinstance(book.apply(snapshot(1, late_ms), first_ns), BookTop)  # it may be a clock that was set
    assert book.apply(snapshot(2, late_ms), sure_ns - 1) is None  # the same top
    broken = book.apply(snapshot(3, late_ms), sure_ns)
    assert broken == BookBroken(Why.STALE_BOOK, "its snapshots come 5.0 s late, allowed 5 s", sure_ns)
    assert book.apply(snapshot(4, late_ms), sure_ns + 1) is None and not book.live
    book.clear()
    assert isinstance(book.apply(snapshot(5, late_ms), sure_ns + 2), BookBroken)
    assert isinstance(book.apply(snapshot(6, late_ms + 1), sure_ns + 3), BookTop)  # the same top is news after that
    assert isinstance(book.apply(snapshot(7, late_ms, bids=[]), sure_ns + 4), BookTop)  # times may go back a little


def test_a_new_subscription_begins_anew() -> None:
    book = SnapshotBook(ETH, now_ms)
    book.apply(snapshot(10), 5)
    book.clear()
    assert not book.live
    assert isinstance(book.apply(snapshot(1, NOW_MS - 5000), 6), BookTop)


def test_what_is_remembered_is_bounded() -> None:
    numbers = Numbers(Decimal("0.1"), positive)
    for count in range(1, 3 * KNOWN_TEXTS):
        assert numbers.read(f"{count / 10:.1f}") == count
        assert len(numbers.known) <= KNOWN_TEXTS
