"""The L2 book: joining, gaps, malformed levels, the top, and equality under any split."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmd.domain.events import BookBroken, BookTop
from mmd.domain.instruments import Contract, Instrument, Kind
from mmd.domain.reasons import Why
from mmd.domain.units import Grid
from mmd.exchanges.deribit.book import L2Book
from mmd.exchanges.deribit.codec import decode_book

ETH = Instrument(
    exchange="deribit",
    symbol="ETH_USDC-PERPETUAL",
    kind=Kind.PERPETUAL,
    contract=Contract.LINEAR,
    base="ETH",
    quote="USDC",
    settlement="USDC",
    index="eth_usdc",
    grid=Grid(Decimal("0.05")),
    lot=Decimal("0.01"),
    min_lots=1,
    contract_size=Decimal("0.01"),
)


def book_data(**fields: Any) -> Any:
    base: dict[str, Any] = {"timestamp": 1, "instrument_name": "ETH_USDC-PERPETUAL", "bids": [], "asks": []}
    return decode_book(json.dumps(base | fields).encode())


def snapshot(change_id: int, bids: list[Any], asks: list[Any]) -> Any:
    return book_data(
        type="snapshot",
        change_id=change_id,
        bids=[["new", *level] for level in bids],
        asks=[["new", *level] for level in asks],
    )


def test_example_sequence_ends_in_a_gap(examples: dict[str, dict[str, Any]]) -> None:
    notes = [note for note in examples if "(sequence X" in note]
    book = L2Book(ETH)
    first, second, third = [
        book.apply(decode_book(json.dumps(examples[note]["params"]["data"]).encode()), 5) for note in notes
    ]
    assert isinstance(first, BookTop)
    assert first.bids == ((61008, 120), (61007, 400), (60998, 1275))
    assert first.asks == ((61009, 80), (61012, 650))
    assert (first.sequence, first.exchange_ns, first.received_ns) == (77000100, 1798700000123_000_000, 5)
    assert isinstance(second, BookTop)
    assert second.bids == ((61008, 70), (61007, 400))
    assert second.asks == ((61009, 80), (61010, 200), (61012, 650))
    assert third == BookBroken(Why.BOOK_GAP, "change 77000125 follows 77000121, the book is at 77000117", 5)
    assert not book.live
    assert book.apply(book_data(type="change", change_id=9, prev_change_id=77000125), 6) is None


def test_every_recorded_book_joins(recorded: list[dict[str, Any]], listed: dict[str, Instrument]) -> None:
    books: dict[str, L2Book] = {}
    events = 0
    for message in recorded:
        params = message.get("params", {})
        if params.get("channel", "").startswith("book."):
            name = params["data"]["instrument_name"]
            book = books.setdefault(name, L2Book(listed[name]))
            event = book.apply(decode_book(json.dumps(params["data"]).encode()), 1)
            assert not isinstance(event, BookBroken)
            assert book.live
            events += event is not None
    assert len(books) == 10
    assert events > 10
    empty_sides = [name for name, book in books.items() if not book.bids.top or not book.asks.top]
    assert empty_sides  # real option books look like that


def test_payload_of_2019_without_type() -> None:
    book = L2Book(ETH)
    assert book.apply(book_data(change_id=1, bids=[["new", 1.0, 0.5]]), 0) is not None
    top = book.apply(book_data(change_id=2, prev_change_id=1, bids=[["change", 1.0, 0.25]]), 0)
    assert isinstance(top, BookTop)
    assert top.bids == ((20, 25),)


def test_only_a_change_of_the_top_is_told() -> None:
    book = L2Book(ETH, top_levels=2)
    book.apply(snapshot(1, [[10, 1], [9, 1], [8, 1]], [[11, 1]]), 0)
    assert book.apply(book_data(type="change", change_id=2, prev_change_id=1, bids=[["change", 8, 5]]), 0) is None
    top = book.apply(book_data(type="change", change_id=3, prev_change_id=2, bids=[["delete", 10, 0]]), 0)
    assert isinstance(top, BookTop)
    assert top.bids == ((180, 100), (160, 500))


def test_a_crossed_book_is_handed_out() -> None:
    top = L2Book(ETH).apply(snapshot(1, [[10, 1]], [[9, 1]]), 0)
    assert isinstance(top, BookTop)
    assert top.bids[0][0] > top.asks[0][0]


def test_delete_of_an_unknown_level_is_counted() -> None:
    book = L2Book(ETH)
    book.apply(snapshot(1, [[10, 1]], []), 0)
    assert book.apply(book_data(type="change", change_id=2, prev_change_id=1, asks=[["delete", 12, 0]]), 0) is None
    assert (book.unknown_deletes, book.live) == (1, True)


@pytest.mark.parametrize(
    "level",
    [
        pytest.param([10.01, 1], id="price off the grid"),
        pytest.param([10, 0.005], id="amount off the lot grid"),
        pytest.param([-10, 1], id="negative price"),
        pytest.param([0, 1], id="price zero"),
        pytest.param([10, -1], id="negative amount"),
        pytest.param([1e300, 1], id="absurd price"),
        pytest.param(["NaN", 1], id="not a number"),
        pytest.param(["Infinity", 1], id="infinite"),
    ],
)
def test_a_bad_level_breaks_the_book(level: list[Any]) -> None:
    book = L2Book(ETH)
    book.apply(snapshot(1, [[10, 1]], [[11, 1]]), 0)
    event = book.apply(book_data(type="change", change_id=2, prev_change_id=1, bids=[["new", *level]]), 7)
    assert isinstance(event, BookBroken)
    assert (event.why, event.received_ns, book.live) == (Why.BOOK_MALFORMED, 7, False)
    assert isinstance(book.apply(snapshot(3, [[10, 1]], []), 8), BookTop)


# --- properties ----------------------------------------------------------------------------------

LEVEL = st.tuples(st.integers(1, 12), st.integers(0, 5))
STEPS = st.lists(st.tuples(st.lists(LEVEL, max_size=4), st.lists(LEVEL, max_size=4)), min_size=1, max_size=12)


def wire_levels(levels: list[tuple[int, int]]) -> list[list[Any]]:
    return [["change" if size else "delete", str(price), str(size)] for price, size in levels]


def fold(steps: list[Any]) -> list[dict[int, int]]:
    """The same book by the simplest means: bids and asks."""
    sides: list[dict[int, int]] = [{}, {}]
    for step in steps:
        for side, levels in zip(sides, step, strict=True):
            side.update(levels)
    return [{price: size for price, size in side.items() if size} for side in sides]


def run(book: L2Book, start: Any, changes: list[Any], first_id: int) -> list[Any]:
    """Apply a snapshot (the fold of `start`) and changes; ids go up by 7."""
    bids, asks = fold(start)
    message = snapshot(
        first_id, [[str(p), str(s)] for p, s in bids.items()], [[str(p), str(s)] for p, s in asks.items()]
    )
    events = [book.apply(message, 0)]
    for number, (bid_levels, ask_levels) in enumerate(changes):
        previous = first_id + 7 * number
        change = book_data(
            type="change",
            change_id=previous + 7,
            prev_change_id=previous,
            bids=wire_levels(bid_levels),
            asks=wire_levels(ask_levels),
        )
        events.append(book.apply(change, 0))
    return events


@settings(deadline=None)
@given(STEPS, st.data())
def test_any_split_gives_the_same_book(steps: list[Any], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(steps)))
    book = L2Book(ETH, top_levels=3)
    events = run(book, steps[:cut], steps[cut:], 100)
    bids, asks = fold(steps)
    ticks, lots = 20, 100  # one whole unit of price and amount
    assert book.bids.levels() == [(p * ticks, bids[p] * lots) for p in sorted(bids, reverse=True)]
    assert book.asks.levels() == [(p * ticks, asks[p] * lots) for p in sorted(asks)]
    last = [event for event in events if event is not None][-1]
    assert isinstance(last, BookTop)
    assert last.bids == tuple(book.bids.levels()[:3])
    assert last.asks == tuple(book.asks.levels()[:3])


@settings(deadline=None)
@given(STEPS.filter(lambda steps: len(steps) >= 2), st.data())
def test_any_lost_change_is_noticed(steps: list[Any], data: st.DataObject) -> None:
    lost = data.draw(st.integers(0, len(steps) - 2))
    book = L2Book(ETH)
    book.apply(snapshot(0, [], []), 0)
    events = []
    for number, (bid_levels, ask_levels) in enumerate(steps):
        if number == lost:
            continue
        change = book_data(
            type="change",
            change_id=7 * (number + 1),
            prev_change_id=7 * number,
            bids=wire_levels(bid_levels),
            asks=wire_levels(ask_levels),
        )
        events.append(book.apply(change, 0))
    assert [event.why for event in events if isinstance(event, BookBroken)] == [Why.BOOK_GAP]
    assert not book.live
