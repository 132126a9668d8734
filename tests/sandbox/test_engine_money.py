"""Fees, positions, profit, settlement and delivery: the money adds up."""

from decimal import Decimal

import msgspec
import pytest
from static_market import EXPIRY_MS, LINEAR, OPTION, PERP, START_MS, D, make_engine

from mmd.sandbox import contracts
from mmd.sandbox.deribit.render_account import equity
from mmd.sandbox.listing import IndexPrice, next_settlement
from mmd.sandbox.model import Direction, InstrumentState, Reference
from mmd.sandbox.orders import NewOrder

BUY, SELL = Direction.BUY, Direction.SELL
NOW = START_MS
START = {"BTC": D("100"), "USDC": D("1000000")}


@pytest.fixture
def engine():
    return make_engine(balances=START)


def trade(engine, direction, price, amount, name=PERP, account="a"):
    placed = engine.place(
        NewOrder(account=account, instrument_name=name, direction=direction, amount=D(amount), price=D(price)), NOW
    )
    assert sum((fill.amount for fill in placed.trades), Decimal(0)) == D(amount)
    return placed.trades


def mark(engine, name, price):
    engine.set_reference(
        name,
        Reference(mark_price=D(price), index_price=D(price), min_price=D("0.0001"), max_price=D("999999")),
        NOW,
    )


@pytest.mark.parametrize(
    ("name", "price", "amount", "maker", "fee"),
    [
        pytest.param(PERP, "80000", "800", False, "0.000005", id="inverse future: in coin"),
        pytest.param(PERP, "80000", "800", True, "0", id="inverse future, maker free"),
        pytest.param(LINEAR, "3000", "2", False, "3", id="linear future: of the notional"),
        pytest.param(LINEAR, "3000", "2", True, "-0.6", id="a rebate is negative"),
        pytest.param(OPTION, "0.0050", "2", False, "0.0006", id="inverse option: of the coin"),
        pytest.param(OPTION, "0.0001", "1", False, "0.0000125", id="inverse option: capped at 12.5 % of its price"),
    ],
)
def test_fees(engine, name, price, amount, maker, fee):
    found = contracts.trade_fee(engine.instrument(name), D(price), D(amount), D("80000"), maker=maker)
    assert found == D(fee)


def test_linear_option_fees_follow_the_index(engine):
    linear = msgspec.structs.replace(engine.instrument(OPTION), instrument_type="linear")
    assert contracts.trade_fee(linear, D("500"), D("2"), D("80000"), maker=False) == D("48")
    assert contracts.trade_fee(linear, D("100"), D("2"), D("80000"), maker=False) == D("25")


def test_an_inverse_position_averages_harmonically(engine):
    trade(engine, BUY, "80000.5", "800")
    trade(engine, BUY, "80001.5", "800")
    position = engine.floor.accounts["a"].positions[PERP]
    assert position.size == D("1600")
    assert abs(position.average_price - 2 / (1 / D("80000.5") + 1 / D("80001.5"))) < D("1e-15")


def test_profit_is_realised_in_the_session_and_paid_at_settlement(engine):
    trade(engine, BUY, "80000.5", "800")
    fees = engine.floor.accounts["a"].wallets["BTC"].fees
    fills = trade(engine, SELL, "80000.0", "400")
    wallet = engine.floor.accounts["a"].wallets["BTC"]
    loss = (D("400") / D("80000.5") - D("400") / D("80000")).quantize(D("1e-10"))
    assert fills[0].profit_loss == wallet.session_rpl == loss
    assert wallet.balance == D("100") - wallet.fees
    assert fees < wallet.fees
    mark(engine, PERP, "81000")
    before = equity(engine.floor, engine.floor.accounts["a"], "BTC")
    engine.settle(NOW)
    assert wallet.session_rpl == 0
    assert abs(wallet.balance - before) < D("1e-9")
    assert engine.floor.accounts["a"].positions[PERP].average_price == D("80000.5")
    assert abs(equity(engine.floor, engine.floor.accounts["a"], "BTC") - before) < D("1e-9")
    assert [row.kind for row in engine.floor.accounts["a"].ledger] == ["trade", "trade", "settlement"]


def test_turning_a_position_around(engine):
    trade(engine, BUY, "3000.10", "1", LINEAR)
    trade(engine, SELL, "3000.00", "3", LINEAR)
    position = engine.floor.accounts["a"].positions[LINEAR]
    assert (position.size, position.average_price, position.realized) == (D("-2"), D("3000.00"), D("-0.10"))


def test_option_premiums_move_cash_at_once(engine):
    trade(engine, BUY, "0.0050", "2", OPTION)
    account = engine.floor.accounts["a"]
    fee = D("0.0003") * 2
    assert account.wallets["BTC"].balance == D("100") - D("0.0100") - fee
    assert equity(engine.floor, account, "BTC") == D("100") - fee - D("0.0005") * 2  # bought 0.0005 above the mark


@pytest.mark.parametrize(("delivery", "payoff"), [("100000", "0.1"), ("90000", "0"), ("80000", "0")])
def test_options_are_delivered_in_coin(engine, delivery, payoff):
    trade(engine, BUY, "0.0050", "2", OPTION)
    wallet = engine.floor.accounts["a"].wallets["BTC"]
    before = wallet.balance
    engine.deliver(OPTION, D(delivery), EXPIRY_MS)
    assert wallet.balance - before == 2 * D(payoff)
    assert OPTION not in engine.floor.accounts["a"].positions
    assert engine.floor.listing(OPTION).state is InstrumentState.DELIVERED
    assert engine.touch(OPTION) == (None, None)
    engine.deliver(OPTION, D("200000"), EXPIRY_MS + 1)
    assert wallet.balance - before == 2 * D(payoff)


def test_futures_are_delivered_against_their_session_price(engine):
    trade(engine, BUY, "80000.5", "800")
    wallet = engine.floor.accounts["a"].wallets["BTC"]
    before = wallet.balance
    engine.deliver(PERP, D("100000"), NOW)
    assert wallet.balance - before == (D("800") / D("80000.5") - D("0.008")).quantize(D("1e-10"))


def test_next_settlement():
    eight = EXPIRY_MS
    assert next_settlement(eight - 1) == eight
    assert next_settlement(eight) == eight + 86_400_000


def test_the_delivery_price_is_the_average_of_the_last_half_hour():
    start = EXPIRY_MS - 30 * 60_000
    index = IndexPrice(D("100"), start - 3_600_000)
    assert index.average(start - 1_800_000) == D("100")
    index.set(D("200"), start - 60_000)
    index.set(D("100"), start + 15 * 60_000)
    assert index.average(start + 20 * 60_000) == D("175")
    assert index.average(EXPIRY_MS) == D("150")
