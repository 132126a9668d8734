"""The adapter against a scripted exchange on mock time: login, links, data, resync, malformed input."""

import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
from deribit_peer import LINEAR, PERP, SILENT, Refuse, Stage, make_deribit

from mmd.domain.errors import ExchangeRefused, LinkLost
from mmd.domain.events import (
    BookBroken,
    BookTop,
    DataLinkDown,
    DataLinkUp,
    InstrumentStateChanged,
    OrdersReported,
    PositionReported,
    Ticker,
    TradeLinkDown,
    TradeLinkUp,
    TradePrinted,
)
from mmd.domain.reasons import Why
from mmd.exchanges.connection import LoginRefused

BTC = "BTC-PERPETUAL"
ETH = "ETH_USDC-PERPETUAL"
Clock = trio.testing.MockClock


@pytest.fixture
async def stage(nursery: trio.Nursery) -> AsyncIterator[Stage]:
    yield Stage(nursery)
    nursery.cancel_scope.cancel()


def book(change_id: int, bid: float = 100.0, **extra: Any) -> dict[str, Any]:
    kind = "change" if "prev_change_id" in extra else "snapshot"
    return {
        "type": kind,
        "timestamp": 1_798_700_000_001,
        "instrument_name": BTC,
        "change_id": change_id,
        "bids": [["new", bid, 50]],
        "asks": [["new", bid + 1, 20]],
        **extra,
    }


# --- login ---------------------------------------------------------------------------------------


async def test_login_arms_and_reads_back(autojump_clock: Clock, stage: Stage) -> None:
    await stage.start()
    trade = stage.peer.trade
    methods = [request["method"] for request in trade.requests]
    assert methods[:5] == [
        "public/auth",
        "public/set_heartbeat",
        "private/enable_cancel_on_disconnect",
        "private/get_cancel_on_disconnect",
        "private/subscribe",
    ]
    assert trade.asked("public/set_heartbeat") == [{"interval": 10}]
    assert trade.asked("private/enable_cancel_on_disconnect") == [{"scope": "connection"}]
    assert trade.asked("private/subscribe") == [{"channels": ["user.changes.any.any.raw"]}]
    assert stage.peer.data.asked("public/set_heartbeat") == [{"interval": 10}]
    auth = trade.asked("public/auth")[0]
    assert auth["grant_type"] == "client_signature"
    assert "client_secret" not in auth
    assert set(stage.deribit.instruments) == {BTC, ETH}
    assert stage.deribit.stats["data"].up and stage.deribit.stats["trade"].up


async def test_watch_subscribes_reconciles_and_then_says_up(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.books["book.BTC-PERPETUAL.raw"] = book(1)
    stage.peer.positions = {BTC: -30.0}
    await stage.start()
    assert not stage.sink.of(TradeLinkUp)
    stage.deribit.watch([BTC])
    await stage.settle()
    kinds = [type(event) for name, event in stage.sink.posted if name == BTC]
    assert kinds.index(DataLinkUp) < kinds.index(BookTop)
    assert kinds.index(OrdersReported) < kinds.index(PositionReported) < kinds.index(TradeLinkUp)
    assert stage.sink.of(PositionReported)[0].position_lots == -3
    assert stage.sink.of(TradeLinkUp)[0].cancel_on_disconnect is True
    assert stage.deribit.subscriptions == 3
    stage.deribit.watch([ETH])
    await stage.settle()
    assert stage.peer.data.asked("public/unsubscribe") == [
        {"channels": ["book.BTC-PERPETUAL.raw", "ticker.BTC-PERPETUAL.100ms", "trades.BTC-PERPETUAL.100ms"]}
    ]
    assert len(stage.sink.of(TradeLinkUp, ETH)) == 1


@pytest.mark.parametrize(
    "answer", [Refuse(10049, "cancel_on_disconnect_failed"), {"scope": "connection", "enabled": False}]
)
async def test_cancel_on_disconnect_that_is_not_armed_is_told(autojump_clock: Clock, stage: Stage, answer: Any) -> None:
    stage.peer.on("private/get_cancel_on_disconnect", answer)
    await stage.start(BTC)
    assert [event.cancel_on_disconnect for event in stage.sink.of(TradeLinkUp)] == [False]


async def test_what_is_refused_for_now_is_asked_for_by_the_next_connection(autojump_clock: Clock, stage: Stage) -> None:
    """Maintenance began between the login and the question."""
    good = stage.peer.handlers["private/get_cancel_on_disconnect"]
    stage.peer.on("private/get_cancel_on_disconnect", Refuse(11051, "system_maintenance"))
    stage.deribit.watch([BTC])
    stage.nursery.start_soon(stage.deribit.run, stage.sink)
    await stage.until(lambda: any("system_maintenance" in line for line in stage.sink.named("link.lost")))
    assert not stage.sink.of(TradeLinkUp)
    stage.peer.on("private/get_cancel_on_disconnect", good)
    await stage.until(lambda: stage.sink.of(TradeLinkUp))
    assert stage.sink.of(TradeLinkUp)[0].cancel_on_disconnect is True


async def test_a_link_that_can_be_armed_later_begins_anew_armed(autojump_clock: Clock, stage: Stage) -> None:
    good = stage.peer.handlers["private/get_cancel_on_disconnect"]
    stage.peer.on("private/get_cancel_on_disconnect", Refuse(10049, "cancel_on_disconnect_failed"))
    await stage.start(BTC)
    assert [event.cancel_on_disconnect for event in stage.sink.of(TradeLinkUp)] == [False]
    await trio.sleep(200)
    assert [event.cancel_on_disconnect for event in stage.sink.of(TradeLinkUp)] == [False]
    stage.peer.on("private/get_cancel_on_disconnect", good)
    await stage.until(lambda: stage.sink.of(TradeLinkUp)[-1].cancel_on_disconnect)
    assert any("can be armed now" in line for line in stage.sink.named("link.lost"))


async def test_wrong_key_ends_the_start(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.on("public/auth", Refuse(13004, "invalid_credentials"))
    with pytest.raises(LoginRefused) as caught:
        await stage.deribit.run(stage.sink)
    assert caught.value.code == 13004
    assert any("invalid_credentials" in line for line in stage.sink.named("login.refused"))


async def test_wrong_key_later_is_reported_and_tried_again(autojump_clock: Clock, stage: Stage) -> None:
    await stage.start(BTC)
    good = stage.peer.handlers["public/auth"]
    stage.peer.on("public/auth", Refuse(13004, "invalid_credentials"))
    await stage.peer.trade.drop()
    await stage.until(lambda: stage.sink.named("login.refused"))
    stage.peer.on("public/auth", good)
    stage.sink.clear()
    await stage.until(lambda: stage.sink.of(TradeLinkUp))


async def test_a_wrong_key_that_is_endured_is_tried_again(autojump_clock: Clock, stage: Stage) -> None:
    """The others went on without this exchange: its key ends nothing any more."""
    good = stage.peer.handlers["public/auth"]
    stage.peer.on("public/auth", Refuse(13004, "invalid_credentials"))
    stage.deribit.endure()
    stage.nursery.start_soon(stage.deribit.run, stage.sink)
    await stage.until(lambda: len(stage.sink.named("login.refused")) > 2)
    stage.peer.on("public/auth", good)
    await stage.until(lambda: stage.deribit.stats["trade"].up)


async def test_no_user_changes_no_trading(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.forbidden = {"user.changes.any.any.raw", "user.changes.any.any.100ms"}
    stage.nursery.start_soon(stage.deribit.run, stage.sink)
    await stage.until(lambda: any("fills would not be seen" in line for line in stage.sink.named("link.lost")))
    assert not stage.deribit.stats["trade"].up


async def test_user_changes_fall_back_to_100ms(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.forbidden = {"user.changes.any.any.raw"}
    await stage.start()
    assert stage.peer.trade.asked("private/subscribe")[-1] == {"channels": ["user.changes.any.any.100ms"]}


async def test_narrowed_scope_is_reported(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.on("public/auth", lambda wire, params: stage.peer._auth(wire, params) | {"scope": "trade:read"})
    await stage.start()
    assert any("account:read_write trade:read_write" in line for line in stage.sink.named("login.scope_narrowed"))


async def test_logs_in_again_before_the_token_dies(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.on("public/auth", lambda wire, params: stage.peer._auth(wire, params) | {"expires_in": 100})
    stage.peer.beats = True
    await stage.start()
    await trio.sleep(85)
    logins = stage.peer.trade.asked("public/auth")
    assert len(logins) == 2
    assert logins[0]["nonce"] != logins[1]["nonce"]


async def test_budget_and_skew_come_from_the_exchange(autojump_clock: Clock, stage: Stage) -> None:
    limits = {
        "limits_per_currency": False,
        "non_matching_engine": {"rate": 10000, "burst": 50000},
        "matching_engine": {"trading": {"total": {"rate": 20, "burst": 50}}, "cancel_all": {"rate": 5, "burst": 20}},
    }
    row = {"currency": "BTC", "equity": 1.25, "balance": 1.2, "initial_margin": 0, "maintenance_margin": 0}
    stage.peer.on("private/get_account_summaries", {"summaries": [row | {"limits": limits}]})
    stage.deribit = make_deribit(stage.peer, wall_clock_ns=lambda: 1_798_699_999_000_000_000)
    await stage.start()
    assert (stage.deribit.budget.rate_per_second, stage.deribit.budget.burst) == (20, 50)
    assert stage.deribit.budget.reserve > 0
    assert stage.deribit.clock_skew_ms == pytest.approx(1000.0)
    account = (await stage.deribit.accounts())[0]
    assert (account.currency, str(account.equity)) == ("BTC", "1.25")
    assert await stage.deribit.index_price("btc_usd") == 81250.4
    stage.peer.on("public/get_index_price", Refuse(-32602, "Invalid params", {"param": "index_name"}))
    with pytest.raises(ExchangeRefused, match="index_name"):
        await stage.deribit.index_price("nope")


async def test_secrets_are_nowhere(autojump_clock: Clock, stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(1)
    stage.deribit = make_deribit(stage.peer, grant="client_credentials")
    stage.peer.on("public/auth", lambda wire, params: {"expires_in": "a-wrong-type", "access_token": "AT-secret"})
    stage.nursery.start_soon(stage.deribit.run, stage.sink)
    await stage.until(lambda: stage.sink.named("link.lost"))
    assert stage.peer.wires[0].asked("public/auth")[0]["client_secret"] == "mmd-test-secret"
    shown = repr(stage.deribit) + repr(stage.deribit._credentials) + caplog.text + repr(stage.sink.reports)
    shown += repr(stage.deribit._credentials.params("", 0, random.Random(1)))
    assert "mmd-test-secret" not in shown
    assert "AT-secret" not in shown


async def test_unknown_grant(stage: Stage) -> None:
    with pytest.raises(ValueError, match="wanted client_signature or client_credentials"):
        make_deribit(stage.peer, grant="password")


# --- links ---------------------------------------------------------------------------------------


async def test_test_request_is_answered_at_once(autojump_clock: Clock, stage: Stage) -> None:
    await stage.start()
    wire = stage.peer.trade
    await wire.send_text(json.dumps({"jsonrpc": "2.0", "method": "heartbeat", "params": {"type": "test_request"}}))
    await stage.settle()
    assert len(wire.asked("public/test")) == 1
    await wire.send_text(json.dumps({"jsonrpc": "2.0", "method": "heartbeat", "params": {"type": "heartbeat"}}))
    await stage.settle()
    assert len(wire.asked("public/test")) == 1


async def test_silence_is_a_lost_link(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.books["book.BTC-PERPETUAL.raw"] = book(1)
    await stage.start(BTC)
    answer = stage.peer.handlers["private/get_open_orders"]
    stage.peer.handlers["private/get_open_orders"] = SILENT
    began = trio.current_time()
    await stage.until(lambda: stage.sink.of(TradeLinkDown))
    assert trio.current_time() - began == pytest.approx(20, abs=1)
    assert "silent for 20 s" in stage.sink.of(TradeLinkDown)[0].detail
    stage.peer.handlers["private/get_open_orders"] = answer
    stage.sink.clear()
    await stage.until(lambda: stage.sink.of(TradeLinkUp, BTC))
    await stage.until(lambda: stage.sink.of(DataLinkDown))
    assert "silent for 20 s" in stage.sink.of(DataLinkDown)[0].detail


async def test_reconnects_with_growing_pauses(autojump_clock: Clock, stage: Stage) -> None:
    await stage.start(BTC)
    stage.peer.refuse_dial = "connection refused"
    dials = stage.peer.dials
    await stage.peer.data.drop()
    await stage.peer.trade.drop()
    began = trio.current_time()
    await trio.sleep(60)
    tries = stage.peer.dials - dials
    assert 4 <= tries / 2 <= 12
    assert any("connection refused" in line for line in stage.sink.named("link.lost"))
    assert len(stage.sink.of(DataLinkDown)) == len(stage.sink.of(TradeLinkDown)) == 1
    stage.peer.refuse_dial = ""
    stage.sink.clear()
    await stage.until(lambda: stage.sink.of(DataLinkUp, BTC) and stage.sink.of(TradeLinkUp, BTC))
    assert trio.current_time() - began < 95
    with pytest.raises(LinkLost):
        stage.peer.data.open = True
        await stage.peer.data.drop()
        await stage.settle()
        await stage.deribit.index_price("btc_usd")


async def test_rate_limited_and_closed_waits(autojump_clock: Clock, stage: Stage) -> None:
    await stage.start(BTC)
    stage.peer.on("public/get_index_price", Refuse(10028, "too_many_requests"))
    with pytest.raises(ExchangeRefused):
        await stage.deribit.index_price("btc_usd")
    dials = stage.peer.dials
    await stage.peer.data.drop()
    await trio.sleep(9)
    assert stage.peer.dials == dials
    assert stage.sink.named("exchange.rate_limited")
    await stage.until(lambda: stage.peer.dials > dials)


# --- data ----------------------------------------------------------------------------------------


async def test_market_data_arrives_as_events(autojump_clock: Clock, stage: Stage, examples: dict[str, Any]) -> None:
    await stage.start(BTC)
    wire = stage.peer.data
    await wire.notify("book.BTC-PERPETUAL.raw", book(1))
    await wire.notify("book.BTC-PERPETUAL.raw", book(2, 100.5, prev_change_id=1))
    await wire.notify("trades.BTC-PERPETUAL.100ms", examples["public trades"]["params"]["data"])
    ticker = {"timestamp": 5, "state": "open", "mark_price": 100.25, "index_price": 100.5, "min_price": 99}
    await wire.notify("ticker.BTC-PERPETUAL.100ms", ticker)
    await wire.notify("book.SOL-PERPETUAL.raw", book(3))  # nobody asked for it
    await stage.settle()
    tops = stage.sink.of(BookTop, BTC)
    assert [top.bids[0] for top in tops] == [(200, 5), (201, 5)]
    assert [top.asks[0] for top in tops] == [(202, 2), (202, 2)]
    assert stage.sink.of(TradePrinted, BTC)[0].size_lots == 300
    assert stage.sink.of(Ticker, BTC)[0].mark == 100.25
    assert stage.sink.of(InstrumentStateChanged, BTC)[0].tradable


async def test_one_chunk_is_delivered_once(autojump_clock: Clock, stage: Stage) -> None:
    await stage.start(BTC)
    before = stage.sink.delivered
    from wsproto.events import TextMessage

    messages = [book(1), *(book(n, 100.0 + n / 2, prev_change_id=n - 1) for n in range(2, 30))]
    chunk = b"".join(
        stage.peer.data.ws.send(
            TextMessage(
                json.dumps(
                    {
                        "jsonrpc": "2.0",
                        "method": "subscription",
                        "params": {"channel": "book.BTC-PERPETUAL.raw", "data": message},
                    }
                )
            )
        )
        for message in messages
    )
    await stage.peer.data.stream.send_all(chunk)
    await stage.settle()
    assert len(stage.sink.of(BookTop)) == 29
    assert stage.sink.delivered - before == 1


async def test_raw_books_refused_fall_back_to_100ms(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.forbidden = {"book.BTC-PERPETUAL.raw"}
    stage.peer.books["book.BTC-PERPETUAL.100ms"] = book(1)
    await stage.start(BTC)
    assert stage.sink.of(BookTop, BTC)
    assert not stage.sink.named("subscription.refused")


async def test_raw_needs_authorisation(autojump_clock: Clock, stage: Stage) -> None:
    def subscribe(wire: Any, params: dict[str, Any]) -> Any:
        if any(channel.endswith(".raw") for channel in params["channels"]):
            return Refuse(13778, "raw_subscriptions_not_available_for_unauthorized")
        return params["channels"]

    stage.peer.on("public/subscribe", subscribe)
    stage.peer.books["book.BTC-PERPETUAL.100ms"] = book(1)
    await stage.start(BTC)
    assert stage.sink.of(BookTop, BTC)


async def test_refused_channels_are_reported(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.forbidden = {"ticker.BTC-PERPETUAL.100ms"}
    await stage.start(BTC)
    assert stage.sink.named("subscription.refused") == ["ticker.BTC-PERPETUAL.100ms"]


async def test_gap_resyncs_that_book_alone(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.books["book.BTC-PERPETUAL.raw"] = book(10)
    await stage.start(BTC, ETH)
    dials = stage.peer.dials
    stage.sink.clear()
    await stage.peer.data.notify("book.BTC-PERPETUAL.raw", book(12, prev_change_id=11))
    await stage.peer.data.notify("book.BTC-PERPETUAL.raw", book(13, prev_change_id=12))
    await stage.settle()
    kinds = [type(event) for name, event in stage.sink.posted if name == BTC]
    assert kinds == [BookBroken, BookTop]
    assert stage.sink.of(BookBroken)[0].why is Why.BOOK_GAP
    last = [request["method"] for request in stage.peer.data.requests[-2:]]
    assert last == ["public/unsubscribe", "public/subscribe"]
    assert stage.peer.dials == dials
    assert stage.deribit.stats["data"].resyncs == 1


async def test_gaps_without_end_are_spaced(autojump_clock: Clock, stage: Stage) -> None:
    await stage.start(BTC)
    wire = stage.peer.data
    stage.peer.books["book.BTC-PERPETUAL.raw"] = book(10)
    await wire.notify("book.BTC-PERPETUAL.raw", book(10))
    began = trio.current_time()
    while trio.current_time() - began < 120:
        await wire.notify("book.BTC-PERPETUAL.raw", book(12, prev_change_id=11))
        await wire.send_text(json.dumps({"jsonrpc": "2.0", "method": "heartbeat", "params": {"type": "heartbeat"}}))
        await trio.sleep(0.1)
    assert 5 <= stage.deribit.stats["data"].resyncs <= 12


async def test_resyncs_are_capped_over_all(autojump_clock: Clock, stage: Stage) -> None:
    names = [f"BTC-{n}JAN27" for n in range(1, 21)]
    stage.peer.rows = [
        PERP | {"instrument_name": name, "settlement_period": "month", "expiration_timestamp": 1_800_000_000_000}
        for name in names
    ]
    for name in names:
        stage.peer.books[f"book.{name}.raw"] = book(1) | {"instrument_name": name}
    await stage.start(*names)
    wire = stage.peer.data
    for name in names:
        await wire.notify(f"book.{name}.raw", book(9, prev_change_id=8))
    await trio.sleep(3)
    assert stage.deribit.stats["data"].resyncs <= 10
    await trio.sleep(5)
    assert stage.deribit.stats["data"].resyncs == 20


async def test_a_snapshot_that_never_comes_is_asked_for_again(autojump_clock: Clock, stage: Stage) -> None:
    await stage.start(BTC)
    await trio.sleep(12)
    assert stage.deribit.stats["data"].resyncs >= 1
    stage.peer.books["book.BTC-PERPETUAL.raw"] = book(1)
    await stage.until(lambda: stage.sink.of(BookTop, BTC))


async def test_states_of_instrument_index_and_platform(autojump_clock: Clock, stage: Stage) -> None:
    await stage.start(BTC, ETH)
    wire = stage.peer.data

    async def told(channel: str, data: Any) -> list[tuple[str, str, bool, bool]]:
        stage.sink.clear()
        await wire.notify(channel, data)
        await stage.settle()
        return [
            (name, event.state, event.tradable, event.terminal)
            for name, event in stage.sink.posted
            if isinstance(event, InstrumentStateChanged)
        ]

    state = {"timestamp": 1, "instrument_name": BTC, "state": "halted"}
    assert await told("instrument.state.any.any", state) == [(BTC, "halted", False, False)]
    assert stage.deribit.instruments[BTC].tradable is False
    assert await told("instrument.state.any.any", state | {"state": "open"}) == [(BTC, "open", True, False)]
    assert await told("instrument.state.any.any", state | {"state": "brand_new"}) == [(BTC, "brand_new", False, False)]
    assert await told("instrument.state.any.any", state | {"state": "delivered"}) == [(BTC, "delivered", False, True)]
    assert await told("instrument.state.any.any", state | {"instrument_name": "SOL_USDC-PERPETUAL"}) == []
    locked = {"price_index": "eth_usdc", "locked": True}
    assert await told("platform_state", locked) == [(ETH, "locked", False, False)]
    assert await told("ticker.ETH_USDC-PERPETUAL.100ms", {"timestamp": 1, "state": "open"}) == []
    assert await told("platform_state", locked | {"locked": False}) == [(ETH, "open", True, False)]
    assert await told("platform_state", {"maintenance": True}) == [(ETH, "maintenance", False, False)]  # BTC is over
    created = LINEAR | {"instrument_name": "SOL_USDC-PERPETUAL", "base_currency": "SOL"}
    await told("instrument.creation.any.any", created)
    assert "SOL_USDC-PERPETUAL" in stage.deribit.instruments


async def test_watching_the_unlisted_is_reported(autojump_clock: Clock, stage: Stage) -> None:
    await stage.start(BTC, "BTC-30FEB27")
    assert stage.sink.named("watch.not_listed") == ["deribit: BTC-30FEB27"]
    assert stage.sink.of(TradeLinkUp, BTC)


async def test_many_symbols_are_subscribed_in_chunks(autojump_clock: Clock, stage: Stage) -> None:
    names = [f"BTC-25DEC26-{strike}-C" for strike in range(10_000, 10_400)]
    option = PERP | {"kind": "option", "quote_currency": "BTC", "option_type": "call", "settlement_period": "month"}
    option |= {
        "tick_size": 0.0001,
        "min_trade_amount": 0.1,
        "contract_size": 1,
        "expiration_timestamp": 1_800_000_000_000,
    }
    stage.peer.rows = [option | {"instrument_name": name, "strike": n} for n, name in enumerate(names, 1)]
    await stage.start(*names)
    await stage.until(lambda: len(stage.sink.of(TradeLinkUp)) == 400)
    calls = [params["channels"] for params in stage.peer.data.asked("public/subscribe")]
    assert max(len(channels) for channels in calls) <= 500
    assert sum(len(channels) for channels in calls) == 3 * 400 + 3
    assert max(len(json.dumps(channels)) for channels in calls) < 32_000
    assert stage.deribit.subscriptions == 1200


# --- malformed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("link", ["data", "trade"])
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("garbage", id="no JSON"),
        pytest.param("[]", id="a list"),
        pytest.param("{}", id="an empty object"),
        pytest.param("[" * 100_000, id="deep"),
        pytest.param('{"jsonrpc":"2.0","method":7}', id="wrong type"),
        pytest.param('{"jsonrpc":"2.0","id":999999,"result":1}', id="answer to nothing"),
        pytest.param('{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}', id="no id"),
        pytest.param('{"method":"subscription","params":{"channel":"platform_state","data":[1]}}', id="wrong data"),
        pytest.param('{"method":"subscription","params":{"channel":"user.changes.any.any.raw","data":7}}', id="fills"),
    ],
)
async def test_malformed_messages_are_counted_and_survived(
    autojump_clock: Clock, stage: Stage, link: str, text: str
) -> None:
    await stage.start(BTC)
    wire = stage.peer.data if link == "data" else stage.peer.trade
    dials = stage.peer.dials
    channel_of_other_link = ("platform_state" in text) != (link == "data") and "subscription" in text
    await wire.send_text(text)
    await stage.settle()
    assert stage.deribit.stats[link].malformed == (0 if channel_of_other_link else 1)
    assert stage.peer.dials == dials
    if not channel_of_other_link:
        assert len(stage.sink.named("message.malformed")) == 1


async def test_invalid_utf8_and_binary_are_survived(autojump_clock: Clock, stage: Stage) -> None:
    await stage.start(BTC)
    wire = stage.peer.data
    await wire.send_bytes(b"\x00\x01")
    await wire.stream.send_all(b"\x81\x04\xff\xfe{}")
    await stage.settle()
    assert stage.deribit.stats["data"].malformed == 2
    assert stage.deribit.stats["data"].up


async def test_a_flood_of_garbage_is_one_line(autojump_clock: Clock, stage: Stage) -> None:
    await stage.start(BTC)
    for _ in range(500):
        await stage.peer.data.send_text("garbage")
    await stage.settle()
    assert stage.deribit.stats["data"].malformed == 500
    assert len(stage.sink.named("message.malformed")) == 1


async def test_a_huge_message_costs_the_link_only(autojump_clock: Clock, stage: Stage) -> None:
    await stage.start(BTC)
    await stage.peer.data.stream.send_all(b"\x81\x7f" + (1 << 40).to_bytes(8, "big"))
    await stage.until(lambda: stage.sink.of(DataLinkDown))
    assert "1099511627776 bytes" in stage.sink.of(DataLinkDown)[0].detail
    stage.sink.clear()
    await stage.until(lambda: stage.sink.of(DataLinkUp, BTC))


async def test_an_unreadable_book_message_breaks_that_book(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.books["book.BTC-PERPETUAL.raw"] = book(1)
    await stage.start(BTC)
    stage.sink.clear()
    await stage.peer.data.notify("book.BTC-PERPETUAL.raw", {"change_id": "x"})
    await stage.settle()
    assert [type(event) for _, event in stage.sink.posted] == [BookBroken, BookTop]
    assert stage.sink.of(BookBroken)[0].why is Why.BOOK_MALFORMED


async def test_unreadable_fills_are_asked_for(autojump_clock: Clock, stage: Stage) -> None:
    await stage.start(BTC)
    stage.sink.clear()
    await stage.peer.trade.notify("user.changes.any.any.raw", {"instrument_name": BTC, "trades": "?"})
    await stage.settle()
    assert stage.peer.trade.asked("private/get_user_trades_by_instrument_and_time")
    assert [type(event) for _, event in stage.sink.posted] == [OrdersReported, PositionReported]


async def test_a_listing_with_bad_rows_loses_only_those(autojump_clock: Clock, stage: Stage) -> None:
    stage.peer.rows = [PERP, {"instrument_name": 7}, PERP | {"instrument_name": "X", "quote_currency": "EUR"}]
    await stage.start()
    assert set(stage.deribit.instruments) == {BTC}
    assert "units unknown" in stage.sink.named("instruments.refused")[0]


async def test_a_handshake_refusal_is_named(autojump_clock: Clock, stage: Stage) -> None:
    async def busy() -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        await theirs.send_all(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")
        return ours

    deribit = make_deribit(stage.peer, dial=busy)
    stage.nursery.start_soon(deribit.run, stage.sink)
    await stage.until(lambda: stage.sink.named("link.lost"))
    assert "429" in stage.sink.named("link.lost")[0]


async def test_a_silent_listener_is_given_up(autojump_clock: Clock, stage: Stage) -> None:
    async def mute() -> trio.abc.Stream:
        return trio.testing.memory_stream_pair()[0]

    deribit = make_deribit(stage.peer, dial=mute)
    stage.nursery.start_soon(deribit.run, stage.sink)
    await stage.until(lambda: stage.sink.named("link.lost"))
    assert "no connection within 10 s" in stage.sink.named("link.lost")[0]
    assert SILENT is not None
