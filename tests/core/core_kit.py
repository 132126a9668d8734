"""Instruments, settings and events that the tests of the core share."""

from decimal import Decimal
from typing import Any

import msgspec

from mmd.core.machine import SymbolMachine
from mmd.domain import events as ev
from mmd.domain.instruments import Contract, Instrument, Kind
from mmd.domain.reasons import Fault, Mode, Side
from mmd.domain.settings import DataRules, Profile, SymbolLimits, SymbolSettings
from mmd.domain.units import Grid, GridStep

NS = 1_000_000_000
START_NS = 1_700_000_000 * NS
EPOCH = "ep"
BID, ASK = Side.BID, Side.ASK

# Amounts in USD, paid in coin: BTC-PERPETUAL.
INVERSE = Instrument(
    exchange="deribit",
    symbol="BTC-PERPETUAL",
    kind=Kind.PERPETUAL,
    contract=Contract.INVERSE,
    base="BTC",
    quote="USD",
    settlement="BTC",
    index="btc_usd",
    grid=Grid(Decimal("0.5")),
    lot=Decimal(10),
    min_lots=1,
    contract_size=Decimal(10),
)
# Amounts and price in coin, ticks that depend on the price.
OPTION = Instrument(
    exchange="deribit",
    symbol="BTC-31DEC21-34000-C",
    kind=Kind.CALL,
    contract=Contract.INVERSE,
    base="BTC",
    quote="BTC",
    settlement="BTC",
    index="btc_usd",
    grid=Grid(Decimal("0.0001"), (GridStep(from_ticks=50, step_ticks=5),)),
    lot=Decimal("0.1"),
    min_lots=1,
    contract_size=Decimal(1),
    strike=Decimal(34000),
    expiry_ns=START_NS + 86_400 * NS,
)
# Amounts in coin, price and settlement in dollars.
LINEAR = Instrument(
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
# A price of 100 is 1000 ticks of 0.1: the numbers of the atomizer's example. One lot is one contract.
PLAIN = msgspec.structs.replace(
    LINEAR, symbol="PLAIN", grid=Grid(Decimal("0.1")), lot=Decimal(1), contract_size=Decimal(1)
)

PROFILE = Profile(name="test", size=Decimal(10), spread_bps=100.0, tolerance_bps=1.0, refresh_seconds=1.0)
LIMITS = SymbolLimits(max_position=Decimal(100), max_order_size=Decimal(50), collar_bps=2000.0)


def changed(struct: Any, **fields: Any) -> Any:
    """A copy with other fields."""
    return msgspec.structs.replace(struct, **fields)


def profile(**fields: Any) -> Profile:
    return changed(PROFILE, **fields)


def settings(
    *,
    mode: Mode = Mode.LIVE,
    limits: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    order_life_seconds: float | None = None,
    **fields: Any,
) -> SymbolSettings:
    """Settings of a plain symbol; `fields` go to the profile."""
    return SymbolSettings(
        service="test",
        mode=mode,
        profile=profile(**fields),
        limits=changed(LIMITS, **(limits or {})),
        data=DataRules(**(data or {})),
        order_life_seconds=order_life_seconds,
    )


def machine(
    instrument: Instrument = PLAIN, given: SymbolSettings | None = None, now_ns: int = START_NS, epoch: str = EPOCH
) -> SymbolMachine:
    return SymbolMachine(instrument, given or settings(), epoch, now_ns)


def label(side: Side, n: int, symbol: str = "PLAIN") -> str:
    """The label of the machine's order number n (below 36)."""
    digit = "0123456789abcdefghijklmnopqrstuvwxyz"[n]
    return f"mmd-test-{symbol}-{'b' if side is BID else 'a'}-{EPOCH}-{digit}"


def book(bid: int, ask: int, at_ns: int, *, lots: int = 100, bid_lots: int | None = None) -> ev.BookTop:
    """One level a side, in ticks; 0 = that side is empty."""
    bids = ((bid, lots if bid_lots is None else bid_lots),) if bid else ()
    asks = ((ask, lots),) if ask else ()
    return ev.BookTop(bids, asks, 0, at_ns, at_ns)


def ticker(at_ns: int, mark: float = 100.0, index: float = 100.0, low: float = 0.0, high: float = 0.0) -> ev.Ticker:
    return ev.Ticker(mark, index, index, low, high, 0.0, 0.0, at_ns, at_ns)


def acked(
    label: str, price: int, lots: int, at_ns: int = 0, *, total: int | None = None, order_id: str = "", since: int = 0
) -> Any:
    total = lots if total is None else total
    return ev.OrderAcked(label, order_id or f"id-{label}", price, lots, total, at_ns, since)


def refused(label: str, fault: Fault = Fault.ORDER, *, gone: bool = False, code: str = "no") -> ev.OrderRefused:
    return ev.OrderRefused(label, fault, code, "", gone, 0)


def closed(label: str, filled: int = 0, cause: str = "user_request", since: int = 0) -> ev.OrderClosed:
    return ev.OrderClosed(label, f"id-{label}", cause, filled, 0, since)


def fill(
    label: str, trade: str, side: Side, lots: int, price: str = "100", *, fee: str = "0", currency: str = "USDC"
) -> ev.OrderFilled:
    return ev.OrderFilled(
        label, f"id-{label}", trade, side, Decimal(price), lots, Decimal(fee), currency, True, 100.0, 0, 0
    )


def resting(label: str, side: Side, price: int, lots: int, *, total: int | None = None) -> ev.OpenOrder:
    return ev.OpenOrder(label, f"id-{label}", side, price, lots, lots if total is None else total)
