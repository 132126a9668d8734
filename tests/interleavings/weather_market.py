"""Three instruments in the words of both houses, the engine that trades them, and what an operator allows.

An inverse perpetual, a linear perpetual and an inverse option of one coin, on one exchange: they share
every total. Prices move within 0.9 % of where they began: less than the drift that grants allow for.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec

from mmd.domain.instruments import Contract, Instrument, Kind
from mmd.domain.reasons import Mode, Response, Switch
from mmd.domain.settings import (
    DataRules,
    KillSwitches,
    PortfolioLimits,
    Profile,
    Requote,
    ScopeLimits,
    SymbolLimits,
    SymbolSettings,
)
from mmd.domain.switches import DEFAULT_RESPONSES
from mmd.domain.units import Grid, GridStep
from mmd.sandbox.engine import Engine
from mmd.sandbox.model import Greeks, Reference, SandboxInstrument, TickStep

NS = 1_000_000_000
START_NS = 1_795_000_000 * NS  # 2026-11-18T11:06:40Z
EXPIRY_MS = 1_798_185_600_000
EXCHANGE = "sandbox"
ACCOUNT = "maker"
SERVICE = "weather"
PERP, LINEAR, OPTION = "BTC-PERPETUAL", "BTC_USDC-PERPETUAL", "BTC-25DEC26-90000-C"
SYMBOLS = (PERP, LINEAR, OPTION)
# Where the middle of each book begins and how far it may go from there, in ticks.
CENTRE = {PERP: 160_000, LINEAR: 16_000, OPTION: 45}
REACH = {PERP: 1_400, LINEAR: 140, OPTION: 3}
HALF = {PERP: 250, LINEAR: 25, OPTION: 5}
LATENCY_NS = 2 * NS  # nothing that was sent has an effect later than that


def D(text: str) -> Decimal:
    return Decimal(text)


INSTRUMENTS = {
    PERP: Instrument(
        exchange=EXCHANGE,
        symbol=PERP,
        kind=Kind.PERPETUAL,
        contract=Contract.INVERSE,
        base="BTC",
        quote="USD",
        settlement="BTC",
        index="btc_usd",
        grid=Grid(D("0.5")),
        lot=D("10"),
        min_lots=1,
        contract_size=D("10"),
    ),
    LINEAR: Instrument(
        exchange=EXCHANGE,
        symbol=LINEAR,
        kind=Kind.PERPETUAL,
        contract=Contract.LINEAR,
        base="BTC",
        quote="USDC",
        settlement="USDC",
        index="btc_usdc",
        grid=Grid(D("5")),
        lot=D("0.001"),
        min_lots=1,
        contract_size=D("0.001"),
        maker_fee=D("-0.0001"),
    ),
    OPTION: Instrument(
        exchange=EXCHANGE,
        symbol=OPTION,
        kind=Kind.CALL,
        contract=Contract.INVERSE,
        base="BTC",
        quote="BTC",
        settlement="BTC",
        index="btc_usd",
        grid=Grid(D("0.0001"), (GridStep(50, 5),)),
        lot=D("0.1"),
        min_lots=1,
        contract_size=D("1"),
        strike=D("90000"),
        expiry_ns=EXPIRY_MS * 1_000_000,
        maker_fee=D("0.0003"),
        taker_fee=D("0.0003"),
    ),
}


def listed(name: str, number: int, **changes: Any) -> SandboxInstrument:
    ours = INSTRUMENTS[name]
    keys: dict[str, Any] = {
        "instrument_name": name,
        "instrument_id": number,
        "kind": "option" if ours.is_option else "future",
        "instrument_type": "linear" if ours.contract is Contract.LINEAR else "reversed",
        "base_currency": ours.base,
        "quote_currency": ours.quote,
        "counter_currency": "USD",
        "settlement_currency": ours.settlement,
        "settlement_period": "perpetual",
        "price_index": ours.index,
        "tick_size": ours.grid.tick,
        "min_trade_amount": ours.lot,
        "contract_size": ours.contract_size,
        "maker_commission": ours.maker_fee,
        "taker_commission": D("0.0005"),
        "creation_timestamp": START_NS // 1_000_000 - 86_400_000,
        "expiration_timestamp": 32_503_708_800_000,
    }
    return SandboxInstrument(**(keys | changes))


LISTED = (
    listed(PERP, 1),
    listed(LINEAR, 2),
    listed(
        OPTION,
        3,
        settlement_period="month",
        tick_size_steps=(TickStep(D("0.005"), D("0.0005")),),
        taker_commission=D("0.0003"),
        strike=D("90000"),
        option_type="call",
        expiration_timestamp=EXPIRY_MS,
    ),
)
GREEKS = Greeks(0.12, 0.00001, 45.0, -20.0, 5.0)


# Lots at each level of the book: where a market that moves meets our order it fills a part of it, or all.
DEPTHS = {PERP: (150, 1_000, 5_000), LINEAR: (20, 100, 500), OPTION: (1, 3, 20)}


def levels(name: str, centre: int, width: int, lots: int) -> tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]:
    """Two levels a side around the centre."""
    ours = INSTRUMENTS[name]
    grid, size = ours.grid, ours.lot * lots
    bids = [grid.floor(centre - width), grid.floor(centre - 2 * width)]
    asks = [grid.ceil(centre + width), grid.ceil(centre + 2 * width)]
    return ({grid.price(at): size for at in bids if at > 0}, {grid.price(at): size for at in asks})


def reference(name: str, centre: int, index: Decimal) -> Reference:
    mark = INSTRUMENTS[name].grid.price(centre)
    option = INSTRUMENTS[name].is_option
    return Reference(
        mark_price=mark,
        index_price=index,
        min_price=mark / 2,
        max_price=mark * 2,
        underlying_price=index if option else None,
        mark_iv=55.0 if option else None,
        greeks=GREEKS if option else None,
    )


def make_engine() -> Engine:
    """Instruments listed, nothing in the books yet."""
    engine = Engine()
    for one in LISTED:
        engine.floor.list_instrument(one)
    return engine


# --- what an operator allows ---------------------------------------------------------------------

# By symbol: size, maximum position, maximum order, spread in bps. Orders are large: they fill the room there is.
SIZES = {
    PERP: ("12000", "15000", "14000", 20.0),
    LINEAR: ("0.16", "0.2", "0.18", 20.0),
    OPTION: ("0.4", "0.5", "0.5", 1500.0),
}
# Nothing here ends a run early by itself: the switches of losses, fills and links have their own tests.
SWITCHES = KillSwitches(
    responses=DEFAULT_RESPONSES | {Switch.ACK_TIMEOUT: Response.PAUSE},
    max_ack_timeouts=50,
    max_disconnects=1000,
)


def settings(symbol: str, setup: "Setup", **changes: Any) -> SymbolSettings:
    """`changes`: of the profile, the limits or the data rules, by their own names."""
    size, most, order, spread = SIZES[symbol]
    profile: dict[str, Any] = {
        "name": "p",
        "size": D(size),
        "spread_bps": spread,
        "skew_bps": setup.skew_bps,
        "tolerance_bps": 0.0,
        "refresh_seconds": 0.2,
        "requote": setup.requote,
        "band_bps": 9000.0,
    }
    limits: dict[str, Any] = {
        "max_position": D(most),
        "max_order_size": D(order),
        "collar_bps": 5000.0 if symbol == OPTION else 100.0,
        "max_fills": 10_000,
        "max_filled": D(most) * 1000,
        "max_rejects": 1000,
        "max_places_per_second": 1000.0,
        "max_amends_per_second": 1000.0,
    }
    data: dict[str, Any] = {"auto_resume": setup.auto_resume, "require_cancel_on_disconnect": setup.armed}
    for key, value in changes.items():
        (profile if key in Profile.__struct_fields__ else limits)[key] = value
    return SymbolSettings(
        service=SERVICE,
        mode=Mode.LIVE,
        profile=Profile(**profile),
        limits=SymbolLimits(**limits),
        data=DataRules(**data),
        switches=SWITCHES,
    )


def totals(**changes: Any) -> PortfolioLimits:
    keys: dict[str, Any] = {
        "max_exposure": {"BTC": D("0.6")},
        "max_notional_usd": D("60000"),
        "max_drawdown_usd": D("1000000"),
        "max_open_orders": 6,
    }
    return PortfolioLimits(**(keys | changes))


@dataclass(frozen=True)
class Setup:
    """`remembers`: the exchange still knows an order that was cancelled without a fill."""

    totals: PortfolioLimits
    requote: Requote = Requote.AMEND
    skew_bps: float = 0.0
    auto_resume: bool = False
    armed: bool = True
    remembers: bool = True


SETUPS = {
    "roomy": Setup(totals(max_exposure={"BTC": D("10")}, max_notional_usd=D("10000000"))),
    "forgetful": Setup(totals(max_exposure={"BTC": D("10")}, max_notional_usd=D("10000000")), remembers=False),
    "oversubscribed": Setup(totals(max_exposure={"BTC": D("0.4")}), skew_bps=8.0),
    "replace": Setup(totals(max_notional_usd=D("30000")), requote=Requote.REPLACE, auto_resume=True, remembers=False),
    "unarmed": Setup(totals(max_open_orders=4), armed=False, auto_resume=True),
    "contracts": Setup(
        totals(
            max_contracts=D("1200"),
            per_exchange={EXCHANGE: ScopeLimits(max_notional_usd=D("50000"), max_open_orders=5)},
            per_underlying={"BTC": ScopeLimits(max_contracts=D("1000"))},
        ),
        skew_bps=8.0,
        remembers=False,
    ),
}


def changed(value: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(value, **changes)
