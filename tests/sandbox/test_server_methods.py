"""Every method answers: the right thing to a right call, an error to a wrong one, and never nothing."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from static_market import EXPIRY_MS, LINEAR, OPTION, PERP, START_MS, StaticMarket
from ws_client import CallFailed, running

from mmd.sandbox.deribit.dialect import METHODS
from mmd.sandbox.deribit.link import Link
from mmd.sandbox.limits import Budgets
from mmd.sandbox.serve import Sandbox, SandboxOptions

SPAN = {"start_timestamp": START_MS - 1000, "end_timestamp": EXPIRY_MS}
ON = {"instrument_name": PERP}
BTC = {"currency": "BTC"}
CALLS = {
    "public/auth": {"grant_type": "client_credentials", "client_id": "a", "client_secret": "b"},
    "public/hello": {"client_name": "x", "client_version": "1"},
    "public/set_heartbeat": {"interval": 30},
    "public/subscribe": {"channels": [f"quote.{PERP}"]},
    "public/unsubscribe": {"channels": [f"quote.{PERP}"]},
    "private/subscribe": {"channels": ["user.lock"]},
    "private/unsubscribe": {"channels": ["user.lock"]},
    "public/get_instruments": BTC,
    "public/get_instrument": ON,
    "public/get_contract_size": ON,
    "public/get_expirations": BTC | {"kind": "any"},
    "public/get_order_book": ON,
    "public/get_order_book_by_instrument_id": {"instrument_id": None},
    "public/ticker": ON,
    "public/get_book_summary_by_currency": BTC,
    "public/get_book_summary_by_instrument": ON,
    "public/get_last_trades_by_instrument": ON,
    "public/get_last_trades_by_instrument_and_time": ON | SPAN,
    "public/get_last_trades_by_currency": BTC,
    "public/get_last_trades_by_currency_and_time": BTC | SPAN,
    "public/get_index_price": {"index_name": "btc_usd"},
    "public/get_index": BTC,
    "public/get_volatility_index_data": BTC | SPAN | {"resolution": "3600"},
    "public/get_historical_volatility": BTC,
    "public/get_tradingview_chart_data": ON | SPAN | {"resolution": "1"},
    "public/get_funding_rate_value": ON | SPAN,
    "public/get_funding_rate_history": ON | SPAN,
    "public/get_funding_chart_data": ON | {"length": "8h"},
    "public/get_delivery_prices": {"index_name": "btc_usd"},
    "private/buy": ON | {"amount": 10, "type": "market"},
    "private/sell": ON | {"contracts": 1, "price": 80010.0},
    "private/edit": {"order_id": None, "amount": 20, "price": 79990.0},
    "private/edit_by_label": ON | {"label": "rest", "amount": 30},
    "private/close_position": ON | {"type": "market"},
    "private/cancel": {"order_id": None},
    "private/cancel_by_label": {"label": "rest"},
    "private/cancel_all_by_instrument": ON,
    "private/cancel_all_by_currency": BTC,
    "private/cancel_all_by_currency_pair": {"currency_pair": "btc_usd"},
    "private/cancel_all_by_kind_or_type": {"currency": ["BTC", "ETH"], "type": "limit"},
    "private/get_open_orders_by_currency": BTC,
    "private/get_open_orders_by_instrument": ON,
    "private/get_open_orders_by_label": BTC | {"label": "rest"},
    "private/get_order_state": {"order_id": None},
    "private/get_order_state_by_label": BTC | {"label": "rest"},
    "private/get_order_history_by_currency": BTC,
    "private/get_order_history_by_instrument": ON,
    "private/get_user_trades_by_currency": BTC,
    "private/get_user_trades_by_currency_and_time": BTC | SPAN,
    "private/get_user_trades_by_instrument": ON,
    "private/get_user_trades_by_instrument_and_time": ON | SPAN,
    "private/get_user_trades_by_order": {"order_id": None},
    "private/get_position": ON,
    "private/get_account_summary": BTC | {"extended": True},
    "private/get_account_summaries": {"extended": True},
    "private/get_subaccounts": {"with_portfolio": True},
    "private/get_margins": ON | {"amount": 10, "price": 80000},
    "private/get_order_margin_by_ids": {"ids": None},
    "private/get_transaction_log": BTC | SPAN,
    "private/get_settlement_history_by_currency": BTC,
    "private/get_settlement_history_by_instrument": ON,
    "private/set_self_trading_config": {"mode": "cancel_maker", "extended_to_subaccounts": False},
    "private/set_mmp_config": {"index_name": "btc_usd", "interval": 5, "frozen_time": 0, "max_quote_quantity": 3},
    "private/reset_mmp": {"index_name": "btc_usd"},
}
"""Good parameters; None is filled in by the test. Methods that are not here need none."""
REFUSED = {"private/mass_quote": 13902, "private/cancel_quotes": 13902}


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"private/logout"}))
async def test_every_method_answers(autojump_clock, method):
    async with running() as house:
        client = await house.client()
        await client.login()
        await client.call("private/buy", **ON, amount=30, type="market")
        rest = await client.call("private/buy", **ON, amount=40, price=79999.0, label="rest")
        params = dict(CALLS.get(method, {}))
        for name, value in params.items():
            if value is None and name == "instrument_id":
                params[name] = house.engine.instrument(PERP).instrument_id
            elif value is None:
                order_id = rest["order"]["order_id"]
                params[name] = [order_id] if name == "ids" else order_id
        if method in REFUSED:
            with pytest.raises(CallFailed) as refused:
                await client.call(method, **params)
            assert refused.value.code == REFUSED[method]
        else:
            await client.call(method, **params)


async def test_queries_agree_with_what_happened(autojump_clock):
    async with running() as house:
        client = await house.client()
        await client.login()
        taken = await client.call("private/buy", **ON, amount=900, type="market", label="t")
        kept = await client.call("private/sell", instrument_name=OPTION, amount=2, price=0.01, label="k")
        gone = await client.call("private/buy", instrument_name=LINEAR, amount=1, price=2950.0)
        await client.call("private/cancel", order_id=gone["order"]["order_id"])
        assert len(taken["trades"]) == 2
        assert taken["order"]["average_price"] == pytest.approx((800 * 80000.5 + 100 * 80001.5) / 900)
        assert await client.call("private/get_open_orders") == [kept["order"]]
        assert await client.call("private/get_open_orders", kind="future") == []
        assert await client.call("private/get_order_state", order_id=taken["order"]["order_id"]) == taken["order"]
        assert await client.call("private/get_order_state_by_label", currency="BTC", label="t") == [taken["order"]]
        history = await client.call("private/get_order_history_by_currency", currency="USDC")
        assert history == []  # it never filled
        history = await client.call("private/get_order_history_by_currency", currency="USDC", include_unfilled=True)
        assert [order["order_state"] for order in history] == ["cancelled"]
        newest = await client.call("private/get_user_trades_by_currency", currency="BTC", count=1)
        assert newest == {"trades": [taken["trades"][1]], "has_more": True}
        oldest = await client.call(
            "private/get_user_trades_by_instrument", **ON, sorting="asc", start_seq=taken["trades"][0]["trade_seq"]
        )
        assert oldest == {"trades": taken["trades"], "has_more": False}
        public = await client.call("public/get_last_trades_by_instrument", **ON, sorting="asc")
        assert [row["trade_id"] for row in public["trades"]] == [row["trade_id"] for row in taken["trades"]]
        (position,) = await client.call("private/get_positions", currency="any")
        assert (position["size"], position["direction"], position["kind"]) == (900.0, "buy", "future")
        assert position["size_currency"] == pytest.approx(900 / 80000.25)
        chart = await client.call("public/get_tradingview_chart_data", **ON, **SPAN, resolution="1")
        assert (chart["open"], chart["close"], chart["status"]) == ([80000.5], [80001.5], "ok")
        stats = (await client.call("public/ticker", **ON))["stats"]
        assert (stats["high"], stats["low"]) == (80001.5, 80000.5)
        groups = await client.call("private/cancel_all", detailed=True)
        assert [(row["instrument_name"], len(row["result"])) for row in groups] == [(OPTION, 1)]
        limits = (await client.call("private/get_account_summary", currency="BTC", extended=True))["limits"]
        assert limits["non_matching_engine"] == {"rate": 20.0, "burst": 100.0}


async def test_labels_must_be_unique_only_to_edit_by_them(autojump_clock):
    async with running() as house:
        client = await house.client()
        await client.login()
        for _ in range(2):
            await client.call("private/buy", **ON, amount=10, price=79999.0, label="same")
        with pytest.raises(CallFailed) as refused:
            await client.call("private/edit_by_label", **ON, label="same", amount=20)
        assert refused.value.code == 13032
        assert await client.call("private/cancel_by_label", label="same", currency="ETH") == 0
        assert await client.call("private/cancel_by_label", label="same", currency="BTC") == 2
        with pytest.raises(CallFailed) as refused:
            await client.call("private/edit_by_label", **ON, label="same", amount=20)
        assert refused.value.code == 10004


@pytest.mark.parametrize(
    ("params", "code", "param"),
    [
        ({"amount": 10, "contracts": 2, "price": 79999}, -32602, "contracts"),
        ({"price": 79999}, -32602, "amount"),
        ({"amount": 10}, -32602, "price"),
        ({"amount": 10, "price": 79999, "label": "x" * 65}, -32602, "label"),
        ({"amount": 10, "price": 79999, "type": "wish"}, -32602, "type"),
        ({"amount": 10, "price": 79999, "time_in_force": "ever"}, -32602, "time_in_force"),
        ({"amount": 10, "price": 79999, "post_only": "yes"}, -32602, "post_only"),
        ({"amount": 10, "price": 79999, "reject_post_only": True}, -32602, "reject_post_only"),
        ({"amount": 10, "price": 79999, "type": "stop_limit"}, 10033, "type"),
    ],
)
async def test_bad_orders(autojump_clock, params, code, param):
    async with running() as house:
        client = await house.client()
        await client.login()
        with pytest.raises(CallFailed) as refused:
            await client.call("private/buy", **ON, **params)
        assert (refused.value.code, refused.value.data["param"]) == (code, param)


# --- anything at all -----------------------------------------------------------------------------

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=10),
    st.lists(st.text(max_size=5), max_size=3),
    st.sampled_from([PERP, OPTION, "BTC", "any", "btc_usd", "limit", "market", 10, 80000.0, "all", "asc", 0, -1]),
)
NAMES = sorted({name for params in CALLS.values() for name in params} | {"kind", "count", "depth", "sorting", "offset"})


@settings(max_examples=400, deadline=None)
@given(method=st.sampled_from(sorted(METHODS)), params=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6))
def test_whatever_is_asked_is_answered(method, params):
    sandbox = Sandbox(
        StaticMarket(), SandboxOptions(budgets=Budgets(enforced=False)), wall_clock_ns=lambda: START_MS * 1_000_000
    )
    link = Link(1, websocket=True)
    login = {"id": 0, "method": "public/auth", "params": CALLS["public/auth"]}
    sandbox.server.dialect.handle(link, json.dumps(login))
    merged = dict(CALLS.get(method, {})) | params
    sandbox.server.dialect.handle(link, json.dumps({"id": 1, "method": method, "params": merged}))
    answers = [message for message in map(json.loads, link.take()) if message.get("id") == 1]
    assert len(answers) == (0 if link.logged_out else 1)
