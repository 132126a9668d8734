"""The recorded feed: what is read, in which order and at what times; what is refused."""

import json
from decimal import Decimal

import pytest

from mmd.domain.errors import ConfigError
from mmd.sandbox.feed import BookMessage, IndexMessage, TickerMessage, final_books, read_feed
from mmd.sandbox.markets import RECORDED_FEED

FIRST_S = 1_700_000_000.0
FIRST_MS = 1_700_000_000_000


def notification(channel: str, **data) -> dict:
    return {"jsonrpc": "2.0", "method": "subscription", "params": {"channel": channel, "data": data}}


def book(at: int, change_id: int, previous: int | None = None, bids=(), asks=(), name="BTC-PERPETUAL") -> dict:
    data = {"instrument_name": name, "timestamp": at, "change_id": change_id, "bids": list(bids), "asks": list(asks)}
    if previous is not None:
        data["prev_change_id"] = previous
    return notification(f"book.{name}.raw", **data)


@pytest.fixture
def write(tmp_path):
    def write(*messages: dict, every_s: float = 0.1):
        path = tmp_path / "feed.jsonl"
        lines = [{"received_s": FIRST_S + n * every_s, "message": message} for n, message in enumerate(messages)]
        path.write_text("\n".join(json.dumps(line) for line in lines))
        return path

    return write


def test_the_packaged_feed_is_complete():
    recording = read_feed(RECORDED_FEED)
    kinds = [type(message) for message in recording.messages]
    assert (kinds.count(BookMessage), kinds.count(TickerMessage), recording.skipped) == (46, 89, 1)
    assert recording.first_ms == 1_626_993_723_804
    assert 30_000 < recording.end_ms - recording.first_ms < 31_000
    assert len(recording.names()) == 10
    times = [message.at_ms for message in recording.messages]
    assert times == sorted(times) and times[0] == recording.first_ms


def test_final_books_are_the_raw_messages_folded_by_hand():
    expected: dict[str, tuple[dict, dict]] = {}
    for line in RECORDED_FEED.read_text().splitlines():
        params = json.loads(line)["message"].get("params")
        if params and params["channel"].startswith("book."):
            data = params["data"]
            if data["type"] == "snapshot":
                expected[data["instrument_name"]] = ({}, {})
            for side, rows in zip(expected[data["instrument_name"]], (data["bids"], data["asks"]), strict=True):
                for action, price, amount in rows:
                    if action == "delete":
                        side.pop(price)
                    else:
                        side[price] = amount
    found = {
        name: tuple({float(price): float(amount) for price, amount in side.items()} for side in sides)
        for name, sides in final_books(read_feed(RECORDED_FEED)).items()
    }
    assert found == expected


def test_a_message_happens_at_its_exchange_time_in_order(write):
    path = write(
        book(FIRST_MS - 3_000, 1, bids=[["new", 1.5, 2.0]]),  # a snapshot of an older change
        book(FIRST_MS + 400, 2, 1, bids=[["change", 1.5, 3.0]]),
        book(FIRST_MS + 300, 9, name="ETH-PERPETUAL"),
        book(FIRST_MS + 350, 3, 2, bids=[["delete", 1.5, 0.0]]),  # out of order in time: not before the one ahead
        book(FIRST_MS + 9_000_000, 4, 3),  # a broken clock
    )
    messages = read_feed(path).messages
    assert [(message.name[:3], message.at_ms - FIRST_MS) for message in messages] == [
        ("BTC", 0), ("ETH", 300), ("BTC", 400), ("BTC", 400), ("BTC", 400),
    ]  # fmt: skip
    assert [message.snapshot for message in messages if isinstance(message, BookMessage)] == [
        True, True, False, False, False,
    ]  # fmt: skip
    assert messages[0].bids == {Decimal("1.5"): Decimal(2)}


def test_after_a_gap_changes_wait_for_the_next_snapshot(write):
    path = write(book(FIRST_MS, 1), book(FIRST_MS, 3, 2), book(FIRST_MS, 4, 3), book(FIRST_MS, 5), book(FIRST_MS, 6, 5))
    recording = read_feed(path)
    assert [message.snapshot for message in recording.messages if isinstance(message, BookMessage)] == [
        True, True, False,
    ]  # fmt: skip
    assert recording.skipped == 2


def test_grouped_books_indices_and_unknown_fields(write):
    grouped = notification(
        "book.BTC-PERPETUAL.none.10.100ms",
        instrument_name="BTC-PERPETUAL", timestamp=FIRST_MS, change_id=1, bids=[[1.5, 2]], asks=[], surprise={},
    )  # fmt: skip
    index = notification("deribit_price_index.btc_usd", index_name="btc_usd", timestamp=FIRST_MS, price=32201.67)
    recording = read_feed(write(grouped, index, {"id": 7, "result": "ok"}, notification("announcements", id=1)))
    assert recording.messages == (
        BookMessage(at_ms=FIRST_MS, name="BTC-PERPETUAL", bids={Decimal("1.5"): Decimal(2)}, asks={}, snapshot=True),
        IndexMessage(at_ms=FIRST_MS, name="btc_usd", price=Decimal("32201.67")),
    )
    assert recording.skipped == 2


def test_every_wrong_line_is_named(tmp_path):
    path = tmp_path / "feed.jsonl"
    good = json.dumps({"received_s": FIRST_S, "message": book(FIRST_MS, 1)})
    bad = json.dumps({"received_s": FIRST_S, "message": book(FIRST_MS, 1, bids=[["new", "cheap", 1]])})
    path.write_text(f"{good}\nnonsense\n\n{bad}\n")
    with pytest.raises(ConfigError) as raised:
        read_feed(path)
    assert [line.split(": ")[0] for line in raised.value.lines] == [f"{path}:2", f"{path}:4"]


@pytest.mark.parametrize("text", ["", '{"received_s": 1.0, "message": {"id": 1, "result": []}}'])
def test_nothing_to_replay_is_refused(tmp_path, text):
    path = tmp_path / "feed.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match="holds no book"):
        read_feed(path)


def test_an_absent_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_feed(tmp_path / "absent.jsonl")
