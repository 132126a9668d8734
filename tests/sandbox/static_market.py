"""A market of three instruments that stands still, and a way to make engines and sandboxes of it."""

from decimal import Decimal

import trio

from mmd.sandbox.engine import Engine
from mmd.sandbox.model import Greeks, Reference, SandboxInstrument, TickStep, Venue
from mmd.sandbox.serve import Sandbox, SandboxOptions

PERP, LINEAR, OPTION = "BTC-PERPETUAL", "ETH_USDC-PERPETUAL", "BTC-25DEC26-90000-C"
START_MS = 1_795_000_000_000  # 2026-11-18T11:06:40Z
EXPIRY_MS = 1_798_185_600_000  # 2026-12-25T08:00Z


def D(text: str) -> Decimal:
    return Decimal(text)


def instrument(name: str, **changes: object) -> SandboxInstrument:
    base = {
        "instrument_name": name,
        "instrument_id": len(name) * 1000 + sum(map(ord, name)),
        "kind": "future",
        "instrument_type": "reversed",
        "base_currency": "BTC",
        "quote_currency": "USD",
        "counter_currency": "USD",
        "settlement_currency": "BTC",
        "settlement_period": "perpetual",
        "price_index": "btc_usd",
        "tick_size": D("0.5"),
        "min_trade_amount": D("10"),
        "contract_size": D("10"),
        "maker_commission": D("0"),
        "taker_commission": D("0.0005"),
        "creation_timestamp": START_MS - 86_400_000,
        "expiration_timestamp": 32_503_708_800_000,
    }
    return SandboxInstrument(**(base | changes))


INSTRUMENTS = [
    instrument(PERP),
    instrument(
        LINEAR,
        instrument_type="linear",
        base_currency="ETH",
        quote_currency="USDC",
        counter_currency="USDC",
        settlement_currency="USDC",
        price_index="eth_usdc",
        tick_size=D("0.05"),
        min_trade_amount=D("0.01"),
        contract_size=D("0.01"),
        maker_commission=D("-0.0001"),
    ),
    instrument(
        OPTION,
        kind="option",
        quote_currency="BTC",
        settlement_period="month",
        tick_size=D("0.0001"),
        tick_size_steps=(TickStep(D("0.005"), D("0.0005")),),
        min_trade_amount=D("0.1"),
        contract_size=D("1"),
        maker_commission=D("0.0003"),
        taker_commission=D("0.0003"),
        strike=D("90000"),
        option_type="call",
        expiration_timestamp=EXPIRY_MS,
    ),
]
BOOKS = {
    PERP: ({D("80000.0"): D("1000"), D("79999.5"): D("500")}, {D("80000.5"): D("800"), D("80001.5"): D("2000")}),
    LINEAR: ({D("3000.00"): D("5"), D("2999.50"): D("1.5")}, {D("3000.10"): D("2")}),
    OPTION: ({D("0.0040"): D("10")}, {D("0.0050"): D("5"), D("0.0060"): D("20")}),
}
REFERENCES = {
    PERP: Reference(
        mark_price=D("80000.25"),
        index_price=D("80000"),
        min_price=D("78000"),
        max_price=D("82000"),
        current_funding=0.0,
        funding_8h=0.0001,
    ),
    LINEAR: Reference(mark_price=D("3000.05"), index_price=D("3000"), min_price=D("2900"), max_price=D("3100")),
    OPTION: Reference(
        mark_price=D("0.0045"),
        index_price=D("80000"),
        min_price=D("0.0001"),
        max_price=D("0.03"),
        underlying_price=D("80500"),
        underlying_index="BTC-25DEC26",
        mark_iv=55.0,
        greeks=Greeks(0.12, 0.00001, 45.0, -20.0, 5.0),
    ),
}


class StaticMarket:
    """Implements Market: books appear when wanted and never move by themselves."""

    def __init__(self) -> None:
        self.venue: Venue | None = None
        self.steps = 0
        self.period_ms = 1000
        self.more: list[SandboxInstrument] = []

    def instruments(self) -> list[SandboxInstrument]:
        return INSTRUMENTS + self.more

    def start(self, venue: Venue, now_ms: int) -> None:
        self.venue = venue
        venue.set_index("btc_usd", D("80000"), now_ms)
        venue.set_index("eth_usdc", D("3000"), now_ms)
        for name, reference in REFERENCES.items():
            venue.set_reference(name, reference, now_ms)

    def want(self, name: str, now_ms: int) -> None:
        if name in BOOKS:
            bids, asks = BOOKS[name]
            self.venue.set_levels(name, bids, asks, now_ms, snapshot=True)

    def step(self, now_ms: int) -> int:
        self.steps += 1
        return now_ms + self.period_ms


def make_engine(**options: object) -> Engine:
    """An engine with the static books in place."""
    engine = Engine(**options)
    market = StaticMarket()
    for one in market.instruments():
        engine.floor.list_instrument(one)
    market.start(engine, START_MS)
    for name in BOOKS:
        market.want(name, START_MS)
    engine.drain()
    return engine


def make_sandbox(**options: object) -> Sandbox:
    """A sandbox whose clock is trio's, starting at START_MS."""
    begin = trio.current_time()
    return Sandbox(
        StaticMarket(),
        SandboxOptions(**options),
        wall_clock_ns=lambda: START_MS * 1_000_000 + round((trio.current_time() - begin) * 1e9),
    )
