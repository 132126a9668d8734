"""Pure translation: instruments, market data, requests, errors, login; on recorded and composed messages."""

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from mmd.domain.actions import AmendOrder, CancelOrder, PlaceOrder
from mmd.domain.errors import ExchangeMalformed
from mmd.domain.events import OrderAcked, OrderClosed, OrderFilled
from mmd.domain.instruments import Contract, Instrument, Kind
from mmd.domain.reasons import Fault, Side
from mmd.exchanges.channels import chunks
from mmd.exchanges.deribit import codec, orders
from mmd.exchanges.deribit.dialect import PUBLIC
from mmd.exchanges.deribit.errors import ERRORS
from mmd.exchanges.deribit.instruments import Refused, decode_instruments
from mmd.exchanges.deribit.messages import Limits
from mmd.exchanges.jsonrpc import Request, decode_head

FUTURE = {
    "instrument_name": "BTC-25DEC26",
    "kind": "future",
    "instrument_type": "reversed",
    "base_currency": "BTC",
    "quote_currency": "USD",
    "settlement_currency": "BTC",
    "settlement_period": "month",
    "price_index": "btc_usd",
    "tick_size": 0.5,
    "min_trade_amount": 10,
    "contract_size": 10,
    "expiration_timestamp": 1798185600000,
}
OPTION = FUTURE | {
    "instrument_name": "BTC-25DEC26-78000-C",
    "kind": "option",
    "quote_currency": "BTC",
    "option_type": "call",
    "strike": 78000.0,
    "tick_size": 0.0001,
    "tick_size_steps": [{"above_price": 0.005, "tick_size": 0.0005}],
    "min_trade_amount": 0.1,
    "contract_size": 1,
    "maker_commission": 0.0003,
    "a_field_of_2027": [1, 2],
}
LINEAR = FUTURE | {
    "instrument_name": "SOL_USDC-25DEC26-78d5-P",
    "kind": "option",
    "instrument_type": "linear",
    "base_currency": "SOL",
    "quote_currency": "USDC",
    "settlement_currency": "USDC",
    "price_index": "sol_usdc",
    "option_type": "put",
    "strike": 78.5,
    "tick_size": 0.01,
    "min_trade_amount": 10,
    "contract_size": 10,
}


def read(*rows: Any) -> tuple[dict[str, Instrument], list[Refused]]:
    return decode_instruments(json.dumps(rows).encode(), "deribit")


def one(row: dict[str, Any]) -> Instrument:
    listed, refused = read(row)
    assert not refused
    return next(iter(listed.values()))


# --- instruments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "kind", "contract", "lot", "min_lots", "tick", "usd_amount"),
    [
        pytest.param(FUTURE, Kind.FUTURE, Contract.INVERSE, "10", 1, "0.5", True, id="inverse future"),
        pytest.param(
            FUTURE | {"settlement_period": "perpetual", "min_trade_amount": 50},
            Kind.PERPETUAL,
            Contract.INVERSE,
            "10",
            5,
            "0.5",
            True,
            id="inverse perpetual, minimum above the lot",
        ),
        pytest.param(OPTION, Kind.CALL, Contract.INVERSE, "0.1", 1, "0.0001", False, id="inverse option"),
        pytest.param(LINEAR, Kind.PUT, Contract.LINEAR, "10", 1, "0.01", False, id="linear option"),
        pytest.param(
            LINEAR | {"kind": "future", "min_trade_amount": 1, "qty_tick_size": 0.1},
            Kind.FUTURE,
            Contract.LINEAR,
            "0.1",
            10,
            "0.01",
            False,
            id="linear future with a size step",
        ),
        pytest.param(
            LINEAR | {"kind": "future", "min_trade_amount": 0.01, "contract_size": 0.001},
            Kind.FUTURE,
            Contract.LINEAR,
            "0.001",
            10,
            "0.01",
            False,
            id="linear future, counted in contracts",
        ),
        pytest.param(
            LINEAR | {"kind": "future", "min_trade_amount": 0.01, "contract_size": 0.004},
            Kind.FUTURE,
            Contract.LINEAR,
            "0.01",
            1,
            "0.01",
            False,
            id="linear future whose least order is no whole contracts",
        ),
        pytest.param(
            FUTURE | {"instrument_type": "", "future_type": "reversed"},
            Kind.FUTURE,
            Contract.INVERSE,
            "10",
            1,
            "0.5",
            True,
            id="the deprecated twin",
        ),
        pytest.param(
            FUTURE | {"tick_size": 0.05, "tick_size_steps": [{"above_price": 1, "tick_size": 0.12}]},
            Kind.FUTURE,
            Contract.INVERSE,
            "10",
            1,
            "0.01",
            True,
            id="base tick is the common divisor",
        ),
    ],
)
def test_units(row: Any, kind: Kind, contract: Contract, lot: str, min_lots: int, tick: str, usd_amount: bool) -> None:
    instrument = one(row)
    assert (instrument.kind, instrument.contract) == (kind, contract)
    assert (instrument.lot, instrument.min_lots) == (Decimal(lot), min_lots)
    assert instrument.grid.tick == Decimal(tick)
    assert instrument.amount_is_usd is usd_amount
    assert (instrument.expiry_ns is None) is (kind is Kind.PERPETUAL)


def test_price_dependent_ticks() -> None:
    grid = one(OPTION).grid
    assert [grid.ceil(ticks) for ticks in (49, 50, 51, 55)] == [49, 50, 55, 55]
    assert [grid.floor(ticks) for ticks in (49, 51, 59)] == [49, 50, 55]


def test_fields_of_an_example(examples: dict[str, Any]) -> None:
    rows = examples["instrument: linear option with decimal strike and tick steps"]["result"]
    instrument = one(rows[0])
    assert instrument.strike == Decimal("2.75")
    assert (instrument.lot, instrument.contract_size) == (1000, 1000)
    assert [(step.from_ticks, step.step_ticks) for step in instrument.grid.steps] == [(0, 1), (250, 5)]
    assert instrument.grid.tick == Decimal("0.0002")
    assert (instrument.maker_fee, instrument.index, instrument.key) == (
        Decimal("0.0003"),
        "xrp_usdc",
        "deribit/XRP_USDC-26MAR27-2d75-P",
    )


def test_instruments_of_2021(listed: dict[str, Instrument]) -> None:
    perpetual = listed["BTC-PERPETUAL"]
    assert (perpetual.kind, perpetual.contract, perpetual.index) == (Kind.PERPETUAL, Contract.INVERSE, "btc_usd")
    option = listed["BTC-24SEP21-8000-P"]
    assert (option.kind, option.strike, option.lot) == (Kind.PUT, 8000, Decimal("0.1"))
    assert (option.settlement, option.index, option.tradable) == ("BTC", "btc_usd", True)
    linear = listed["DOGE_USDC-PERPETUAL"]
    assert (linear.contract, linear.settlement, linear.lot) == (Contract.LINEAR, "USDC", 100)
    assert linear.grid.tick == Decimal("0.00001")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"quote_currency": "EUR"}, "units unknown", id="inverse future in EUR"),
        pytest.param({"settlement_currency": "USDC"}, "units unknown", id="inverse, settled in USDC"),
        pytest.param({"instrument_type": "quanto"}, "known are reversed, linear", id="unknown contract"),
        pytest.param({"instrument_type": "linear"}, "units unknown", id="linear in USD, settled in BTC"),
        pytest.param({"tick_size": 0}, "tick size 0 is out of range", id="no tick"),
        pytest.param({"tick_size": "1e-999999"}, "out of range", id="absurd tick"),
        pytest.param({"contract_size": -10}, "contract_size -10 is out of range", id="negative contract"),
        pytest.param({"min_trade_amount": 15}, "15 is not a multiple of 10", id="minimum between lots"),
        pytest.param({"kind": "option"}, "option without strike", id="option without strike"),
        pytest.param(
            {"kind": "option", "strike": 1, "option_type": "both"}, "option_type 'both'", id="no call, no put"
        ),
        pytest.param({"tick_size": []}, "row 1", id="wrong type"),
        pytest.param({"tick_size": "NaN"}, "X", id="not a number"),
        *(
            pytest.param({"tick_size_steps": [{"above_price": text, "tick_size": 1}]}, "X: ", id=f"above {text}")
            for text in ("NaN", "sNaN", "Infinity", "-Infinity", "-1", "1e13")
        ),
        *(
            pytest.param({name: text}, f"X: {name} {text}", id=f"{name} {text}")
            for name in ("maker_commission", "taker_commission", "contract_size", "min_trade_amount")
            for text in ("NaN", "sNaN", "Infinity")
        ),
        pytest.param(
            {"kind": "option", "quote_currency": "BTC", "strike": "NaN", "option_type": "call"},
            "strike NaN",
            id="a strike that is no number",
        ),
    ],
)
def test_what_is_refused_and_why(change: dict[str, Any], reason: str) -> None:
    listed, refused = read(FUTURE, FUTURE | {"instrument_name": "X"} | change, OPTION)
    assert set(listed) == {"BTC-25DEC26", "BTC-25DEC26-78000-C"}
    assert reason in f"{refused[0].symbol}: {refused[0].reason}"


def test_spot_and_combos_are_left_out() -> None:
    assert read(FUTURE | {"kind": "spot"}, FUTURE | {"kind": "option_combo"}) == ({}, [])


def test_not_even_a_list() -> None:
    with pytest.raises(ExchangeMalformed):
        decode_instruments(b'{"a":1}', "deribit")


@pytest.mark.parametrize(("state", "tradable"), [("open", True), ("locked", False), ("", True), ("new_word", False)])
def test_tradable(state: str, tradable: bool) -> None:
    assert one(FUTURE | {"state": state}).tradable is tradable
    assert one(FUTURE | {"state": state, "is_active": False}).tradable is False


# --- market data ---------------------------------------------------------------------------------


def test_recorded_tickers(recorded: list[dict[str, Any]]) -> None:
    seen = 0
    for message in recorded:
        params = message.get("params", {})
        if params.get("channel", "").startswith("ticker."):
            head = decode_head(json.dumps(message).encode())
            assert head.params is not None
            ticker, state = codec.read_ticker(head.params.data, 5)
            assert (ticker.mark, ticker.delta) == (params["data"]["mark_price"], params["data"]["greeks"]["delta"])
            assert (ticker.index, ticker.underlying) == (
                params["data"]["index_price"],
                params["data"]["underlying_price"],
            )
            assert ticker.exchange_ns == params["data"]["timestamp"] * 1_000_000
            assert state == "open"
            seen += 1
    assert seen >= 10


def test_null_and_zero_are_no_price() -> None:
    raw = b'{"timestamp":7,"mark_price":null,"index_price":0.0,"greeks":null,"stats":{"low":null}}'
    ticker, state = codec.read_ticker(raw, 1)
    assert (ticker.mark, ticker.index, ticker.underlying, ticker.mark_iv, ticker.delta, state) == (0, 0, 0, 0, 0, "")


def test_public_trades(examples: dict[str, Any]) -> None:
    rows = examples["public trades"]["params"]["data"]
    instrument = one(FUTURE | {"instrument_name": "BTC-PERPETUAL"})
    (printed,) = codec.read_trades(json.dumps(rows).encode(), instrument, 9)
    assert (printed.price_ticks, printed.size_lots, printed.taker) == (162489, 300, Side.ASK)
    off_book = [rows[0] | {"block_trade_id": "b1"}, rows[0] | {"combo_id": "c"}, rows[0] | {"block_rfq_id": 7}]
    assert codec.read_trades(json.dumps(off_book).encode(), instrument, 9) == []
    with pytest.raises(ExchangeMalformed, match="not a multiple"):
        codec.read_trades(json.dumps([rows[0] | {"price": 81244.51}]).encode(), instrument, 9)


@pytest.mark.parametrize(
    ("state", "tradable", "terminal"),
    [
        ("open", True, False),
        ("started", True, False),
        ("locked", False, False),
        ("halted", False, False),
        ("settlement", False, False),
        ("inactive", False, False),
        ("delivered", False, True),
        ("archivized", False, True),
        ("never heard", False, False),
    ],
)
def test_states(state: str, tradable: bool, terminal: bool) -> None:
    assert (state in codec.OPEN_STATES, state in codec.TERMINAL_STATES) == (tradable, terminal)


@pytest.mark.parametrize(
    "example",
    ["platform maintenance notice", "instrument leaves trading at expiry", "option ticker with an empty bid side"],
)
def test_other_notifications_decode(examples: dict[str, Any], example: str) -> None:
    raw = json.dumps(examples[example]["params"]["data"]).encode()
    if "maintenance" in example:
        assert codec.decode_platform_state(raw).maintenance is True
    elif "expiry" in example:
        assert codec.decode_instrument_state(raw).state == "delivered"
    else:
        ticker, _ = codec.read_ticker(raw, 1)
        assert (ticker.mark, ticker.mark_iv, ticker.max_price) == (0.0008, 58.92, 0.0125)


# --- orders --------------------------------------------------------------------------------------

CALL = one(OPTION | {"instrument_name": "BTC-26MAR27-90000-C", "tick_size_steps": []})
LABEL = "mmd-svc-BTC-26MAR27-90000-C-b-abc-1"


@pytest.mark.parametrize(
    ("action", "method", "params"),
    [
        pytest.param(
            PlaceOrder(LABEL, Side.BID, 415, 25),
            "private/buy",
            '{"instrument_name":"BTC-26MAR27-90000-C","amount":2.5,"price":0.0415,"label":"'
            + LABEL
            + '","type":"limit",'
            '"time_in_force":"good_til_cancelled","post_only":true,"reject_post_only":true}',
            id="buy",
        ),
        pytest.param(
            AmendOrder(LABEL, "ETH-7", Side.ASK, 420, 30, 20),
            "private/edit",
            '{"order_id":"ETH-7","amount":3.0,"price":0.0420,"post_only":true,"reject_post_only":true}',
            id="the new total, not the rest",
        ),
        pytest.param(CancelOrder(LABEL, "7", Side.BID), "private/cancel", '{"order_id":"7"}', id="cancel"),
        pytest.param(
            CancelOrder(LABEL, "", Side.BID),
            "private/cancel_by_label",
            f'{{"currency":"BTC","label":"{LABEL}"}}',
            id="cancel by label",
        ),
    ],
)
def test_requests(action: Any, method: str, params: str) -> None:
    found, struct = codec.order_request(CALL, action)
    assert found == method
    text = codec.encode(Request(12, method, struct)).decode()
    assert text == f'{{"id":12,"method":"{method}","params":{params},"jsonrpc":"2.0"}}'


def test_a_sell_and_its_deadline() -> None:
    method, struct = codec.order_request(CALL, PlaceOrder(LABEL, Side.ASK, 1, 1), valid_until_ms=1798700000500)
    assert method == "private/sell"
    body = json.loads(codec.encode(Request(1, method, struct)))["params"]
    assert (body["valid_until"], body["price"], body["amount"]) == (1798700000500, 0.0001, 0.1)


def test_order_answer_of_the_examples(examples: dict[str, Any]) -> None:
    head = decode_head(json.dumps(examples["buy response, resting"]).encode())
    (event,) = orders.reply(PlaceOrder(LABEL, Side.BID, 415, 25), head.result, CALL, 3)
    assert event == OrderAcked(LABEL, "90011001", 415, 25, 25, 3, 1798700000123_000_000)
    assert (head.us_in, head.us_out) == (1798700000000000, 1798700000000640)


def test_changes_of_the_examples(examples: dict[str, Any]) -> None:
    data = examples["user.changes raw: partial fill then MMP cancel of the rest"]["params"]["data"]
    changes = orders.decode_changes(json.dumps(data).encode())
    fill = orders.filled(changes.trades[0], CALL, 4)
    assert isinstance(fill, OrderFilled)
    assert (fill.trade_id, fill.price, fill.size_lots, fill.fee) == (
        "310200777",
        Decimal("0.0415"),
        10,
        Decimal("0.0003"),
    )
    assert (fill.maker, fill.index, fill.exchange_ns) == (True, 81250.4, 1798700004123_000_000)
    assert orders.order_state(changes.orders[0], CALL, 4) == OrderClosed(
        "mmd-7f3a-000042", "90011001", "mmp_trigger", 10, 4, 1798700004126_000_000
    )


@pytest.mark.parametrize(
    ("size", "direction", "lots"), [("2.5", "buy", 25), ("-2.5", "sell", -25), ("2.5", "sell", -25), ("0.0", "zero", 0)]
)
def test_positions_are_signed(size: str, direction: str, lots: int) -> None:
    (row,) = orders.decode_positions(
        f'[{{"instrument_name":"x","size":{size},"direction":"{direction}","average_price":null}}]'.encode()
    )
    assert orders.position(row, CALL, 1).position_lots == lots


TRADE = {
    "trade_id": "t1",
    "order_id": "o1",
    "instrument_name": CALL.symbol,
    "timestamp": 7,
    "direction": "buy",
    "price": 0.0415,
    "amount": 1,
    "fee": 0.0003,
    "fee_currency": "BTC",
}
POSITION = {"instrument_name": CALL.symbol, "size": 1, "direction": "buy", "average_price": 0.04, "mark_price": 0.05}


@pytest.mark.parametrize(
    "odd",
    [
        *({name: text} for name in ("price", "amount", "fee") for text in ("NaN", "sNaN", "Infinity", "-Infinity")),
        *({name: number} for name in ("price", "amount") for number in (0, -1)),
    ],
    ids=str,
)
def test_a_trade_with_numbers_that_cannot_be_is_malformed(odd: dict[str, Any]) -> None:
    """A decimal may be read from the text "NaN", and one that was counted would never leave the ledger again."""
    (trade,) = orders.decode_changes(json.dumps({"trades": [TRADE | {"fee": -1}]}).encode()).trades
    assert orders.filled(trade, CALL, 1).fee == -1  # a rebate
    (trade,) = orders.decode_changes(json.dumps({"trades": [TRADE | odd]}).encode()).trades
    with pytest.raises(ExchangeMalformed, match=f"trade t1 of {CALL.symbol}: "):
        orders.filled(trade, CALL, 1)


@pytest.mark.parametrize("direction", ["buy", "sell"])
@pytest.mark.parametrize(
    "odd",
    [
        *(
            {name: text}
            for name in ("size", "average_price", "total_profit_loss")
            for text in ("NaN", "sNaN", "Infinity", "-Infinity")
        ),
        {"average_price": -1},
    ],
    ids=str,
)
def test_a_position_with_numbers_that_cannot_be_is_malformed(odd: dict[str, Any], direction: str) -> None:
    row = POSITION | {"direction": direction, "total_profit_loss": -0.5}
    (known,) = orders.decode_positions(json.dumps([row]).encode())
    assert orders.position(known, CALL, 1).profit == Decimal("-0.5")
    (known,) = orders.decode_positions(json.dumps([row | odd]).encode())
    with pytest.raises(ExchangeMalformed, match=f"position of {CALL.symbol}: "):
        orders.position(known, CALL, 1)


@pytest.mark.parametrize("name", ["equity", "balance", "initial_margin", "maintenance_margin"])
def test_an_account_with_numbers_that_cannot_be_is_malformed(name: str) -> None:
    for text in ("NaN", "sNaN", "Infinity"):
        told = orders.decode_summaries(json.dumps({"summaries": [{"currency": "BTC", name: text}]}).encode())
        with pytest.raises(ExchangeMalformed, match="account in BTC: "):
            orders.accounts(told)


def test_errors_of_the_examples(examples: dict[str, Any]) -> None:
    band = decode_head(json.dumps(examples["buy rejected: price band, limit in the message"]).encode())
    assert band.error is not None
    event = ERRORS.refused(PlaceOrder(LABEL, Side.BID, 1, 1), band.error, 2)
    assert (type(event).__name__, event.detail) == ("OrderRefused", "price_too_high 0.0455 (10007)")


@pytest.mark.parametrize(
    ("code", "name", "fault", "gone"),
    [
        (10001, "error", Fault.AMBIGUOUS, False),
        (10004, "order_not_found", Fault.STATE, True),
        (10010, "already_closed", Fault.STATE, True),
        (10028, "too_many_requests", Fault.RATE_LIMIT, False),
        (10041, "settlement_in_progress", Fault.RETRY, False),
        (11008, "already_filled", Fault.STATE, True),
        (11044, "not_open_order", Fault.STATE, True),
        (11054, "post_only_reject", Fault.ORDER, False),
        (11094, "internal_server_error", Fault.AMBIGUOUS, False),
        (13009, "unauthorized", Fault.AUTH, False),
        (13666, "request_cancelled_by_user", Fault.INFO, False),
        (13888, "timed_out", Fault.INFO, False),
        (-32602, "invalid_params", Fault.CONFIG, False),
        (77777, "code_77777", Fault.AMBIGUOUS, False),
    ],
)
def test_error_table(code: int, name: str, fault: Fault, gone: bool) -> None:
    told = ERRORS.meaning(code)
    assert (told.name, told.fault, told.gone) == (name, fault, gone)


def test_error_table_is_whole() -> None:
    assert len(ERRORS.known) > 110
    assert {told.fault for told in ERRORS.known.values()} == set(Fault)


# --- login, subscriptions, limits ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "signature"),
    [
        ("", "dc51af8b3e6fad17f64610003f9fac386492699152c14e35c83b11e158e9ea1a"),
        ("ctx", "faaac1469480b3788de2343a36db92184ef63897d0abb874763730c22ac26fcc"),
    ],
)
def test_signature_vectors(data: str, signature: str) -> None:
    assert codec.sign("mmd-test-secret", 1767225600000, "n0nce-01", data) == signature


def test_signature_request_of_the_examples(examples: dict[str, Any]) -> None:
    wanted = examples["auth request, client_signature (secret mmd-test-secret)"]
    params = codec.signature_auth(
        "mmdTestId", "mmd-test-secret", wanted["params"]["scope"], timestamp_ms=1767225600000, nonce="n0nce-01"
    )
    assert json.loads(codec.encode(Request(1, "public/auth", params))) == wanted


def test_subscription_diff(examples: dict[str, Any]) -> None:
    result = examples["subscribe response where one of three asked channels was refused"]["result"]
    granted = PUBLIC.granted(msgspec.Raw(json.dumps(result).encode()))
    assert granted == {"book.ETH_USDC-PERPETUAL.100ms", "ticker.ETH_USDC-PERPETUAL.100ms"}


def test_recorded_subscription_answer(recorded: list[dict[str, Any]]) -> None:
    head = decode_head(json.dumps(recorded[0]).encode())
    assert PUBLIC.granted(head.result) == set(recorded[0]["result"])


def test_chunks_of_channels() -> None:
    short = [f"c{n}" for n in range(1201)]
    found = list(chunks(short))
    assert [len(chunk) for chunk in found] == [500, 500, 201]
    assert [channel for chunk in found for channel in chunk] == short
    long = ["x" * 400 + str(n) for n in range(300)]
    requests = [codec.encode(Request(10**9, "private/subscribe", codec.channels(c))) for c in chunks(long)]
    assert max(len(request) for request in requests) <= 32_000
    assert list(chunks([])) == []


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        pytest.param({"matching_engine": {"rate": 5, "burst": 20}}, (5, 20), id="old"),
        pytest.param({"matching_engine": {"trading": {"total": {"rate": 30, "burst": 100}}}}, (30, 100), id="total"),
        pytest.param(
            {
                "limits_per_currency": True,
                "matching_engine": {
                    "btc": {"trading": {"total": {"rate": 30, "burst": 50}}},
                    "eth": {"trading": {"total": {"rate": 20, "burst": 100}}},
                    "maximum_quotes": {"rate": 500, "burst": 500},
                },
            },
            (20, 50),
            id="per currency: the tightest",
        ),
        pytest.param({"matching_engine": {}}, None, id="nothing"),
        pytest.param({"matching_engine": {"rate": 0, "burst": 0}}, None, id="old: zero is no limit"),
        pytest.param({"matching_engine": {"rate": 5, "burst": 0.5}}, None, id="old: not one request"),
        pytest.param({"matching_engine": {"trading": {"total": {"rate": 0, "burst": 0}}}}, None, id="zero is no limit"),
    ],
)
def test_limits(limits: dict[str, Any], expected: tuple[float, float] | None) -> None:
    assert codec.matching_limits(msgspec.json.decode(json.dumps(limits).encode(), type=Limits)) == expected


@pytest.mark.parametrize(
    ("asked", "granted", "missing"),
    [
        ("connection trade:read_write", "connection trade:read_write mainaccount", []),
        ("trade:read_write account:read", "trade:read account:read_write", ["trade:read_write"]),
        ("trade:read wallet:none", "account:read", ["trade:read"]),
        ("trade:read_write", "", []),
    ],
)
def test_scopes(asked: str, granted: str, missing: list[str]) -> None:
    assert codec.missing_scopes(asked, granted) == missing
