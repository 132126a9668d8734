"""Derive's listing, market data and error table; on messages composed from the documented fields, none recorded."""

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from mmd.domain.errors import ExchangeMalformed
from mmd.domain.instruments import Contract, Kind
from mmd.domain.reasons import Fault, Side
from mmd.domain.units import Grid
from mmd.exchanges.derive import codec, messages
from mmd.exchanges.derive.errors import ERRORS
from mmd.exchanges.derive.instruments import Listed, Page, Refused, decode_instrument, decode_instruments
from mmd.exchanges.jsonrpc import Decoder, Request, decode_head

NEVER = 9223372036854775807
PERP: dict[str, Any] = {
    "instrument_name": "ETH-PERP",
    "instrument_type": "perp",
    "scheduled_activation": 1701840228,
    "scheduled_deactivation": NEVER,
    "is_active": True,
    "tick_size": "0.01",
    "minimum_amount": "1",
    "maximum_amount": "10000",
    "amount_step": "0.01",
    "mark_price_fee_rate_cap": "0",
    "maker_fee_rate": "0.0001",
    "taker_fee_rate": "0.0003",
    "base_fee": "0.01",
    "base_currency": "ETH",
    "quote_currency": "USDC",
    "option_details": None,
    "perp_details": {
        "index": "ETH-USD",
        "max_rate_per_hour": "0.004",
        "min_rate_per_hour": "-0.004",
        "static_interest_rate": "0.0000125",
        "aggregate_funding": "10538.574363381759146829",
        "funding_rate": "-0.0000125",
        "srm_perp_margin_requirements": {"im_perp_req": "0.05", "mm_perp_req": "0.03", "max_leverage": "20"},
    },
    "erc20_details": None,
    "base_asset_address": "0xAf65752C4643E25C02F693f9D4FE19cF23a095E3",
    "base_asset_sub_id": "0",
    "pro_rata_fraction": "0",
    "fifo_min_allocation": "0",
    "pro_rata_amount_step": "0.1",
    "a_field_of_2027": {"more": [1]},
}
OPTION: dict[str, Any] = PERP | {
    "instrument_name": "ETH-20261225-3600-C",
    "instrument_type": "option",
    "tick_size": "0.1",
    "minimum_amount": "0.1",
    "amount_step": "0.1",
    "mark_price_fee_rate_cap": "0.125",
    "scheduled_deactivation": 1798185540,
    "perp_details": None,
    "option_details": {
        "expiry": 1798185600,
        "index": "ETH-USD",
        "option_type": "C",
        "strike": "3600",
        "settlement_price": None,
    },
    "base_asset_address": "0x4BB4C3CDc7562f08e9910A0C7D8bB7e108861eB4",
    "base_asset_sub_id": "39614082803320395358570160768",
}
FRACTION = OPTION | {
    "instrument_name": "XRP-20261225-0_5-P",
    "base_currency": "XRP",
    "option_details": OPTION["option_details"] | {"option_type": "P", "strike": "0.5", "index": "XRP-USD"},
}
SPOT = PERP | {"instrument_name": "ETH-USDC", "instrument_type": "erc20", "perp_details": None}


def read(*rows: Any, count: int = 1, pages: int = 1) -> Page:
    answer = {"instruments": list(rows), "pagination": {"count": count, "num_pages": pages}}
    return decode_instruments(json.dumps(answer).encode(), "derive")


def one(row: dict[str, Any]) -> Listed:
    page = read(row)
    assert not page.refused
    return page.listed[row["instrument_name"]]


# --- instruments ---------------------------------------------------------------------------------


def test_a_perpetual() -> None:
    found = one(PERP)
    instrument = found.instrument
    assert (instrument.key, instrument.kind, instrument.contract) == (
        "derive/ETH-PERP",
        Kind.PERPETUAL,
        Contract.LINEAR,
    )
    assert (instrument.base, instrument.quote, instrument.settlement, instrument.index) == (
        "ETH",
        "USDC",
        "USDC",
        "ETH-USD",
    )
    assert (instrument.grid, instrument.lot, instrument.min_lots) == (Grid(Decimal("0.01")), Decimal("0.01"), 100)
    assert (instrument.strike, instrument.expiry_ns, instrument.tradable) == (None, None, True)
    assert (instrument.maker_fee, instrument.taker_fee) == (Decimal("0.0001"), Decimal("0.0003"))
    assert (found.tick_e18, found.lot_e18, found.max_lots) == (10**16, 10**16, 1_000_000)
    assert (found.base_fee, found.asset.sub_id) == (Decimal("0.01"), 0)
    assert not instrument.amount_is_usd
    assert instrument.usd_per_lot(3000.0) == 30.0


def test_an_option() -> None:
    found = one(OPTION)
    instrument = found.instrument
    assert (instrument.kind, instrument.strike, instrument.expiry_ns) == (
        Kind.CALL,
        Decimal(3600),
        1798185600 * 10**9,
    )
    assert (instrument.grid.tick, instrument.lot, instrument.min_lots) == (Decimal("0.1"), Decimal("0.1"), 1)
    assert found.asset.address == OPTION["base_asset_address"]
    assert found.asset.sub_id == 39614082803320395358570160768
    assert found.fee_cap == Decimal("0.125")
    assert found.tick_e18 * 1453 == 145_300_000_000_000_000_000


def test_a_strike_below_one_has_an_underscore_in_its_name() -> None:
    instrument = one(FRACTION).instrument
    assert (instrument.kind, instrument.strike, instrument.base) == (Kind.PUT, Decimal("0.5"), "XRP")


@pytest.mark.parametrize("quote", ["USDC", "USD"])
def test_dollars_are_usdc(quote: str) -> None:
    instrument = one(PERP | {"quote_currency": quote}).instrument
    assert (instrument.quote, instrument.settlement) == ("USDC", "USDC")


def test_one_that_is_not_active_is_not_tradable() -> None:
    assert not one(PERP | {"is_active": False}).instrument.tradable


def test_the_end_of_a_perpetual_may_be_rounded_as_a_double_is() -> None:
    assert one(PERP | {"scheduled_deactivation": 9223372036854776000}).instrument.expiry_ns is None


def test_a_bad_row_loses_only_itself() -> None:
    page = read(PERP, {"instrument_name": "X"}, SPOT, OPTION | {"tick_size": "0"}, count=4321, pages=5)
    assert set(page.listed) == {"ETH-PERP"}
    assert [entry.symbol for entry in page.refused] == ["row 1", "ETH-20261225-3600-C"]
    assert (page.count, page.pages) == (4321, 5)


REFUSED = [
    pytest.param(PERP, {"quote_currency": "EUR"}, "ETH quoted in EUR: units unknown", id="quote"),
    pytest.param(PERP, {"base_currency": "USDC"}, "USDC quoted in USDC", id="base"),
    pytest.param(PERP, {"perp_details": None}, "without perp_details", id="no perp details"),
    pytest.param(PERP, {"tick_size": "0"}, "tick_size 0 is out of range", id="no tick"),
    pytest.param(PERP, {"tick_size": "-0.1"}, "tick_size -0.1 is out of range", id="negative tick"),
    pytest.param(PERP, {"tick_size": "0.0000000000001"}, "more than 12 decimals", id="too fine a tick"),
    pytest.param(PERP, {"tick_size": "NaN"}, "", id="tick not a number"),
    pytest.param(PERP, {"amount_step": "1e-13"}, "more than 12 decimals", id="too fine a step"),
    pytest.param(PERP, {"amount_step": "1e13"}, "amount_step 1E+13 is out of range", id="too large a step"),
    pytest.param(PERP, {"minimum_amount": "0.015"}, "not a multiple", id="minimum off the grid"),
    pytest.param(PERP, {"minimum_amount": "0"}, "amounts from 0 to 10000", id="no minimum"),
    pytest.param(PERP, {"maximum_amount": "0.5"}, "amounts from 1 to 0.5", id="maximum below the minimum"),
    pytest.param(PERP, {"maximum_amount": "Infinity"}, "", id="no maximum"),
    pytest.param(PERP, {"maker_fee_rate": "NaN"}, "are no numbers", id="fee not a number"),
    pytest.param(OPTION, {"mark_price_fee_rate_cap": "NaN"}, "are no numbers", id="cap not a number"),
    pytest.param(PERP, {"base_asset_address": "0xAf65"}, "is no address", id="asset"),
    pytest.param(
        PERP,
        {"base_asset_address": "0xaf65752C4643E25C02F693f9D4FE19cF23a095E3"},
        "upper and lower case",
        id="asset's checksum",
    ),
    pytest.param(PERP, {"base_asset_sub_id": "0x1"}, "is no number", id="sub id"),
    pytest.param(PERP, {"base_asset_sub_id": "-1"}, "is no number", id="negative sub id"),
    pytest.param(PERP, {"base_asset_sub_id": str(2**128)}, "128 bits", id="sub id beyond 128 bits"),
    pytest.param(OPTION, {"option_details": None}, "without option_details", id="no option details"),
    pytest.param(OPTION, {"instrument_name": "ETH-20261225-3700-C"}, "the name says", id="another strike"),
    pytest.param(OPTION, {"instrument_name": "ETH-20261225-3600-P"}, "the name says", id="another kind"),
    pytest.param(OPTION, {"instrument_name": "BTC-20261225-3600-C"}, "the name says", id="another coin"),
    pytest.param(OPTION, {"instrument_name": "ETH-25DEC26-3600-C"}, "no name of an option", id="another form"),
    pytest.param(
        OPTION, {"option_details": OPTION["option_details"] | {"option_type": "X"}}, "known are C, P", id="option type"
    ),
    pytest.param(OPTION, {"option_details": OPTION["option_details"] | {"expiry": 0}}, "out of range", id="no expiry"),
    pytest.param(
        OPTION,
        {
            "instrument_name": "ETH-20261225-0-C",
            "option_details": OPTION["option_details"] | {"strike": "0"},
        },
        "strike 0, expiry 1798185600: out of range",
        id="no strike",
    ),
]


@pytest.mark.parametrize(("row", "change", "wanted"), REFUSED)
def test_what_does_not_fit_is_refused(row: dict[str, Any], change: dict[str, Any], wanted: str) -> None:
    page = read(row | change)
    assert page.listed == {}
    (refused,) = page.refused
    assert refused.symbol == (row | change)["instrument_name"]
    assert refused.reason
    assert wanted in refused.reason


@pytest.mark.parametrize("change", [{"tick_size": True}, {"is_active": "yes"}, {"base_asset_sub_id": 0}])
def test_a_known_field_of_another_type_is_refused(change: dict[str, Any]) -> None:
    (refused,) = read(PERP | change).refused
    assert refused.symbol == "row 0"
    assert refused.reason.startswith("no InstrumentData")


def test_one_instrument_is_answered_bare() -> None:
    assert isinstance(decode_instrument(json.dumps(OPTION).encode(), "derive"), Listed)
    found = decode_instrument(json.dumps(OPTION | {"tick_size": "0"}).encode(), "derive")
    assert isinstance(found, Refused)
    with pytest.raises(ExchangeMalformed):
        decode_instruments(b'{"instruments": []}', "derive")


# --- channels ------------------------------------------------------------------------------------


def test_channels() -> None:
    assert codec.book_channel("ETH-PERP") == "orderbook.ETH-PERP.1.10"
    assert codec.ticker_channel("XRP-20261225-0_5-P") == "ticker_slim.XRP-20261225-0_5-P.100"
    assert codec.trades_channel("ETH-PERP") == "trades.ETH-PERP"
    request = json.loads(codec.encode(Request(7, "subscribe", codec.channels(["trades.ETH-PERP"]))))
    assert request == {"id": 7, "jsonrpc": "2.0", "method": "subscribe", "params": {"channels": ["trades.ETH-PERP"]}}


# --- ticker and trades ---------------------------------------------------------------------------

SLIM: dict[str, Any] = {
    "t": 1795305600300,
    "A": "4.2",
    "a": "146.1",
    "B": "0",
    "b": "0",
    "f": None,
    "I": "3100.11",
    "M": "145.35",
    "minp": "100.2",
    "maxp": "190.4",
    "option_pricing": {
        "d": "0.31",
        "g": "0.0004",
        "v": "3.2",
        "t": "-2.1",
        "r": "0.5",
        "i": "0.51",
        "bi": "0",
        "ai": "0.512",
        "f": "3120.5",
        "m": "145.35",
        "df": "0.999",
    },
    "stats": {"c": "12", "v": "400", "pr": "9", "n": 3, "oi": "900", "h": "150", "l": "140", "p": "0.01"},
}


def slim(**change: Any) -> bytes:
    return json.dumps({"timestamp": 1795305600321, "instrument_ticker": SLIM | change}).encode()


def test_a_ticker_of_an_option() -> None:
    ticker = codec.read_ticker(slim(), 5)
    assert (ticker.mark, ticker.index, ticker.underlying) == (145.35, 3100.11, 3120.5)
    assert (ticker.min_price, ticker.max_price) == (100.2, 190.4)
    assert (ticker.mark_iv, ticker.delta) == (51.0, 0.31)  # percent, as everywhere in mmd
    assert (ticker.best_bid, ticker.best_ask) == (0.0, 146.1)
    assert (ticker.exchange_ns, ticker.received_ns) == (1795305600300_000_000, 5)
    assert codec.read_ticker_answer(json.dumps(SLIM).encode(), 5) == ticker


def test_a_ticker_of_a_perpetual() -> None:
    ticker = codec.read_ticker(slim(option_pricing=None, f="0.00001", b="3100.1"), 5)
    assert (ticker.underlying, ticker.mark_iv, ticker.delta, ticker.best_bid) == (0.0, 0.0, 0.0, 3100.1)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"M": "NaN"}, id="mark not a number"),
        pytest.param({"I": "Infinity"}, id="infinite index"),
        pytest.param({"maxp": "1e999"}, id="no float"),
        pytest.param({"M": "dear"}, id="words"),
        pytest.param({"t": "now"}, id="time"),
        pytest.param({"option_pricing": SLIM["option_pricing"] | {"i": "NaN"}}, id="volatility"),
        pytest.param({"option_pricing": SLIM["option_pricing"] | {"i": "1e308"}}, id="volatility in percent"),
        pytest.param({"option_pricing": []}, id="pricing"),
    ],
)
def test_a_ticker_that_is_none(change: dict[str, Any]) -> None:
    with pytest.raises(ExchangeMalformed):
        codec.read_ticker(slim(**change), 5)


TRADE: dict[str, Any] = {
    "trade_id": "5f249af2",
    "instrument_name": "ETH-PERP",
    "timestamp": 1795305600400,
    "trade_price": "3100.25",
    "trade_amount": "1.5",
    "mark_price": "3100.2",
    "index_price": "3100.11",
    "direction": "sell",
    "quote_id": None,
    "rfq_id": None,
}


def trades(*rows: dict[str, Any]) -> Any:
    return codec.read_trades(json.dumps(rows).encode(), one(PERP).instrument, 5)


def test_trades() -> None:
    sold, bought = trades(TRADE, TRADE | {"trade_id": "2", "direction": "buy", "trade_amount": "0.01"})
    assert (sold.price_ticks, sold.size_lots, sold.taker) == (310025, 150, Side.ASK)
    assert (sold.exchange_ns, sold.received_ns) == (1795305600400_000_000, 5)
    assert (bought.size_lots, bought.taker) == (1, Side.BID)


def test_one_row_of_a_trade_counts_and_none_of_an_rfq() -> None:
    maker = TRADE | {"liquidity_role": "maker", "direction": "buy"}
    taker = TRADE | {"liquidity_role": "taker"}
    assert [trade.taker for trade in trades(maker, taker)] == [Side.ASK]
    assert len(trades(TRADE, TRADE)) == 1
    assert trades(TRADE | {"rfq_id": "r"}, TRADE | {"quote_id": "q"}) == []


@pytest.mark.parametrize(
    "change",
    [
        {"trade_price": "3100.255"},
        {"trade_amount": "0.001"},
        {"trade_price": "NaN"},
        {"instrument_name": "BTC-PERP"},
        {"direction": "up"},
    ],
)
def test_a_trade_that_does_not_fit(change: dict[str, Any]) -> None:
    with pytest.raises(ExchangeMalformed):
        trades(TRADE | change)


def test_the_clock() -> None:
    assert codec.read_time(b"1795305600321") == 1795305600321_000_000


# --- other messages ------------------------------------------------------------------------------


def test_an_order_record() -> None:
    raw = {
        "subaccount_id": 30769,
        "order_id": "0e9b2b1c-0000-4000-8000-5b0e5f9d2d11",
        "instrument_name": "ETH-PERP",
        "direction": "buy",
        "label": "mmd-mm-ETH-PERP-b-x-1",
        "amount": "1.5",
        "filled_amount": "0.5",
        "average_price": "3100.25",
        "limit_price": "3100.25",
        "signed_limit_price": None,
        "max_fee": "6.2",
        "order_fee": "0.1",
        "extra_fee": "0",
        "order_type": "limit",
        "time_in_force": "post_only",
        "order_status": "a_status_of_2027",
        "cancel_reason": "",
        "mmp": True,
        "is_transfer": False,
        "nonce": "1795305600000000001",
        "signature": "0x00",
        "signature_expiry_sec": 1795306500,
        "signer": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
        "creation_timestamp": 1795305600321,
        "last_update_timestamp": 1795305600321,
        "replaced_order_id": None,
        "quote_id": None,
    }
    order = Decoder[messages.OrderData](messages.OrderData)(json.dumps(raw).encode())
    assert (order.amount, order.filled_amount, order.nonce) == (Decimal("1.5"), Decimal("0.5"), raw["nonce"])
    assert (order.order_status, order.signed_limit_price, order.mmp) == ("a_status_of_2027", None, True)
    # A replace that half failed: the old order is gone, and there is no new one.
    answer = {
        "cancelled_order": raw,
        "order": None,
        "trades": None,
        "create_order_error": {"code": 11008, "message": "Post only order would cross", "data": {"x": 1}},
    }
    replaced = Decoder[messages.ReplaceResult](messages.ReplaceResult)(json.dumps(answer).encode())
    assert replaced.order is None
    assert replaced.create_order_error is not None
    assert ERRORS.meaning(replaced.create_order_error.code).name == "post_only_reject"


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        pytest.param(
            messages.TradeData,
            {
                "trade_id": "t",
                "order_id": "o",
                "instrument_name": "ETH-PERP",
                "subaccount_id": 1,
                "timestamp": 1,
                "direction": "buy",
                "trade_price": "3100.25",
                "trade_amount": "1",
                "trade_fee": "-0.3",
                "liquidity_role": "maker",
                "batch_status": None,
                "tx_hash": "",
            },
            id="trade",
        ),
        pytest.param(
            messages.Subaccount,
            {
                "subaccount_id": 1,
                "margin_type": "PM2",
                "currency": ["ETH", "BTC"],
                "subaccount_value": "100",
                "initial_margin": "80",
                "maintenance_margin": "90",
                "open_orders_margin": "-5",
                "positions": [{"instrument_name": "ETH-PERP", "instrument_type": "perp", "amount": "-1.5"}],
                "collaterals": [{"asset_name": "USDC", "asset_type": "erc20", "amount": "100"}],
                "open_orders": [],
            },
            id="subaccount",
        ),
        pytest.param(
            messages.AccountData,
            {
                "subaccount_ids": [1, 2],
                "cancel_on_disconnect": True,
                "websocket_matching_tps": 5,
                "websocket_non_matching_tps": 25,
                "fee_info": {"option_maker_fee": None, "perp_maker_fee": "0.0001"},
                "per_endpoint_tps": {"private/cancel_all": 1},
            },
            id="account",
        ),
        pytest.param(
            messages.SessionKeys,
            {"public_session_keys": [{"public_session_key": "0x00", "expiry_sec": 1, "protocol_scopes": ["admin"]}]},
            id="session keys",
        ),
        pytest.param(
            list[messages.MmpConfig],
            [{"subaccount_id": 1, "currency": "ETH", "mmp_interval": 1000, "mmp_frozen_time": 0, "is_frozen": True}],
            id="maker protection",
        ),
        pytest.param(messages.TradePage, {"trades": [], "pagination": {"count": 0, "num_pages": 0}}, id="page"),
        pytest.param(messages.CancelledCount, {"cancelled_orders": -1}, id="cancelled"),
        pytest.param(
            messages.Incidents, {"incidents": [{"label": "x", "severity": "low", "since": 1}]}, id="incidents"
        ),
    ],
)
def test_records_with_only_what_they_need(kind: Any, raw: Any) -> None:
    found = Decoder[Any](kind)(json.dumps(raw).encode())
    first = found[0] if isinstance(found, list) else found
    for name, value in (raw[0] if isinstance(raw, list) else raw).items():
        told = getattr(first, name)
        assert isinstance(told, list | msgspec.Struct | dict | None) or told == value or told == Decimal(value)


def test_an_error_may_carry_an_object() -> None:
    head = decode_head(b'{"id":1,"error":{"code":11013,"message":"Limit price","data":{"limit":"1","bandwidth":"2"}}}')
    assert head.error is not None
    assert head.error.text == 'Limit price {"limit":"1","bandwidth":"2"}'


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "name", "fault", "gone"),
    [
        (-32000, "rate_limit_exceeded", Fault.RATE_LIMIT, False),
        (-32100, "too_many_connections", Fault.RATE_LIMIT, False),
        (-32603, "internal_error", Fault.AMBIGUOUS, False),
        (-32602, "invalid_params", Fault.ORDER, False),
        (9000, "order_confirmation_timeout", Fault.AMBIGUOUS, False),
        (9001, "engine_confirmation_timeout", Fault.AMBIGUOUS, False),
        (11000, "insufficient_funds", Fault.ORDER, False),
        (11006, "order_not_found", Fault.STATE, True),
        (11008, "post_only_reject", Fault.ORDER, False),
        (11011, "signature_expiry_out_of_bounds", Fault.CONFIG, False),
        (11015, "mmp_frozen", Fault.MARKET, False),
        (11017, "nonce_used", Fault.AMBIGUOUS, False),
        (11022, "reject_timestamp_passed", Fault.INFO, False),
        (11028, "filled_amount_differs", Fault.STATE, True),
        (14014, "wrong_signature", Fault.AUTH, False),
        (14038, "session_key_expires_first", Fault.AUTH, False),
        # Not in the table.
        (-32650, "code_-32650", Fault.CONFIG, False),
        (-32001, "code_-32001", Fault.AMBIGUOUS, False),
        (402, "code_402", Fault.AUTH, False),
        (8123, "code_8123", Fault.AMBIGUOUS, False),
        (9003, "code_9003", Fault.AMBIGUOUS, False),
        (10014, "code_10014", Fault.ORDER, False),
        (11030, "code_11030", Fault.AMBIGUOUS, False),
        (11199, "code_11199", Fault.AMBIGUOUS, False),
        (12999, "code_12999", Fault.CONFIG, False),
        (13001, "code_13001", Fault.CONFIG, False),
        (14999, "code_14999", Fault.AUTH, False),
        (15000, "code_15000", Fault.AMBIGUOUS, False),
        (16002, "code_16002", Fault.AUTH, False),
        (0, "code_0", Fault.AMBIGUOUS, False),
    ],
)
def test_what_errors_mean(code: int, name: str, fault: Fault, gone: bool) -> None:
    told = ERRORS.meaning(code)
    assert (told.name, told.fault, told.gone) == (name, fault, gone)


def test_what_is_gone_is_known_to_be() -> None:
    assert {code for code, told in ERRORS.known.items() if told.gone} == {11003, 11004, 11005, 11006, 11016, 11028}
    assert all(told.fault is Fault.STATE for told in ERRORS.known.values() if told.gone)


def test_the_index_of_a_currency() -> None:
    assert codec.read_spot(b'{"currency":"ETH","spot_price":"3000.5"}') == 3000.5


@pytest.mark.parametrize("price", ['"0"', "null", '"NaN"', '"1e999"'])
def test_a_currency_without_an_index(price: str) -> None:
    with pytest.raises(ExchangeMalformed):
        codec.read_spot(b'{"spot_price":%b}' % price.encode())
