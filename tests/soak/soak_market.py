"""A market of many symbols at a steady pace: books that move, marks that follow, takers on both sides.

What has expired makes room for what is new, as on an exchange: `list_more`, `delist`.
"""

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from random import Random

import msgspec

from mmd.sandbox.model import Direction, Greeks, Reference, SandboxInstrument, TickStep, Venue

D = Decimal
START_NS = 1_795_000_000_000_000_000  # 2026-11-18T11:06:40Z
EXPIRIES = {"27NOV26": 1_795_766_400_000, "25DEC26": 1_798_185_600_000}  # 08:00Z
FOREVER_MS = 32_503_708_800_000
STEP_MS = 200
OPTION_TICK, OPTION_STEP = D("0.0001"), TickStep(D("0.005"), D("0.0005"))
LEVELS = 5
REACH = 0.05  # how far prices go, as a share


class Pace(msgspec.Struct, frozen=True):
    """Events a second of one symbol: changes of its book, new marks (a ticker each), takers."""

    books: float = 0.08
    marks: float = 0.05
    takers: float = 0.12


class Kind(msgspec.Struct, frozen=True):
    """One instrument. `depth`: the amount at a level; `lot`: what takers take some of."""

    listed: SandboxInstrument
    price: Decimal
    step: Decimal
    lot: Decimal
    depth: Decimal

    @property
    def name(self) -> str:
        return self.listed.instrument_name


def perpetual(number: int, base: str, price: str, tick: str, lot: str, *, linear: bool) -> Kind:
    """Inverse: amounts in USD, paid in coin. Linear: amounts in coin, paid in USDC."""
    money = "USDC" if linear else "USD"
    listed = SandboxInstrument(
        instrument_name=f"{base}_USDC-PERPETUAL" if linear else f"{base}-PERPETUAL",
        instrument_id=number,
        kind="future",
        instrument_type="linear" if linear else "reversed",
        base_currency=base,
        quote_currency=money,
        counter_currency=money,
        settlement_currency="USDC" if linear else base,
        settlement_period="perpetual",
        price_index=f"{base.lower()}_{money.lower()}",
        tick_size=D(tick),
        min_trade_amount=D(lot),
        contract_size=D(lot),
        maker_commission=D("-0.0001") if linear else D(0),
        taker_commission=D("0.0005"),
        creation_timestamp=0,
        expiration_timestamp=FOREVER_MS,
    )
    return Kind(listed, D(price), D(tick), D(lot), D(lot) * 50)


def option(number: int, date: str, expiry_ms: int, strike: int, letter: str, price: str) -> Kind:
    """On BTC, amounts and prices in BTC."""
    listed = SandboxInstrument(
        instrument_name=f"BTC-{date}-{strike}-{letter}",
        instrument_id=number,
        kind="option",
        instrument_type="reversed",
        base_currency="BTC",
        quote_currency="BTC",
        counter_currency="USD",
        settlement_currency="BTC",
        settlement_period="month",
        price_index="btc_usd",
        tick_size=OPTION_TICK,
        tick_size_steps=(OPTION_STEP,),
        min_trade_amount=D("0.1"),
        contract_size=D(1),
        maker_commission=D("0.0003"),
        taker_commission=D("0.0003"),
        creation_timestamp=0,
        expiration_timestamp=expiry_ms,
        strike=D(strike),
        option_type="call" if letter == "C" else "put",
    )
    return Kind(listed, D(price), D("0.0005"), D("0.1"), D(5))


PERPETUALS = (
    ("BTC", "80000", "0.5", "10", False),
    ("ETH", "3000", "0.05", "1", False),
    ("BTC", "80000", "1", "0.001", True),
    ("ETH", "3000", "0.1", "0.01", True),
    ("SOL", "150", "0.01", "0.1", True),
    ("XRP", "2.5", "0.0001", "1", True),
    ("DOGE", "0.2", "0.00001", "10", True),
    ("AVAX", "30", "0.001", "0.1", True),
    ("LINK", "15", "0.001", "0.1", True),
    ("LTC", "90", "0.01", "0.01", True),
)


def first_kinds(symbols: int) -> list[Kind]:
    """A fifth of them perpetuals, the rest options of two expiries, calls and puts."""
    kinds = [
        perpetual(number, base, price, tick, lot, linear=linear)
        for number, (base, price, tick, lot, linear) in enumerate(PERPETUALS[: max(2, symbols // 5)], 1)
    ]
    strike = 60_000
    while len(kinds) < symbols:
        for date, expiry_ms in EXPIRIES.items():
            for letter in "CP":
                price = f"{0.02 + (strike - 60_000) / 2_000_000 + (0.02 if date == '25DEC26' else 0):.4f}"
                kinds.append(option(len(kinds) + 1, date, expiry_ms, strike, letter, price))
        strike += 2_000
    return kinds[:symbols]


class Crowd:
    """Implements Market: every symbol has its turn, as often as the pace says, at random within a step."""

    def __init__(self, symbols: int, pace: Pace, seed: int) -> None:
        self.pace = pace
        self.takes = 0
        self._chance = Random(seed)
        self._kinds = {kind.name: kind for kind in first_kinds(symbols)}
        self._mids = {name: kind.price for name, kind in self._kinds.items()}
        self._alive: list[str] = []
        self._owed = {"books": 0.0, "marks": 0.0, "takers": 0.0}
        self._numbers = symbols
        self._venue: Venue

    # --- the Market protocol -----------------------------------------------------------------------

    def instruments(self) -> list[SandboxInstrument]:
        return [kind.listed for kind in self._kinds.values()]

    def start(self, venue: Venue, now_ms: int) -> None:
        self._venue = venue
        for kind in self._kinds.values():
            self._mark(kind, now_ms)

    def want(self, name: str, now_ms: int) -> None:
        self._alive.append(name)
        self._show(self._kinds[name], now_ms)

    def step(self, now_ms: int) -> int:
        for what, act in (("books", self._move), ("marks", self._mark), ("takers", self._take)):
            self._owed[what] += getattr(self.pace, what) * len(self._alive) * STEP_MS / 1000
            while self._alive and self._owed[what] >= 1.0:
                self._owed[what] -= 1.0
                act(self._kinds[self._chance.choice(self._alive)], now_ms)
        return now_ms + STEP_MS

    # --- what comes and goes -----------------------------------------------------------------------

    def list_more(self, expiry_ms: int) -> SandboxInstrument:
        """One more option, of an expiry of its own."""
        self._numbers += 1
        kind = option(self._numbers, "18NOV26", expiry_ms, 60_000 + 500 * self._numbers, "C", "0.0400")
        self._kinds[kind.name], self._mids[kind.name] = kind, kind.price
        return kind.listed

    def mark(self, name: str, now_ms: int) -> None:
        """A reference for what was listed just now."""
        self._mark(self._kinds[name], now_ms)

    def delist(self, name: str) -> None:
        """It has expired."""
        self._alive.remove(name)
        del self._kinds[name], self._mids[name]

    # --- life ----------------------------------------------------------------------------------------

    def _move(self, kind: Kind, now_ms: int) -> None:
        """A few basis points, and not far from where it began."""
        away = float(self._mids[kind.name] / kind.price) - 1.0
        moved = float(self._mids[kind.name]) * self._chance.gauss(0.0, 3e-4)
        ticks = round(moved / float(kind.step)) or self._chance.choice((-1, 0, 1))
        if abs(away) > REACH:
            ticks = -abs(ticks) if away > 0 else abs(ticks)
        self._mids[kind.name] += ticks * kind.step
        self._show(kind, now_ms)

    def _show(self, kind: Kind, now_ms: int) -> None:
        mid, draw = self._mids[kind.name], self._chance.choice
        half = max(kind.step, _on_grid(mid * draw((2, 4, 8)) / 10_000, kind.step, ROUND_CEILING))
        step = max(kind.step, _on_grid(mid / 10_000, kind.step, ROUND_CEILING))
        bids = {mid - half - at * step: kind.depth * draw((1, 2, 3)) for at in range(LEVELS)}
        asks = {mid + half + at * step: kind.depth * draw((1, 2, 3)) for at in range(LEVELS)}
        self._venue.set_levels(kind.name, bids, asks, now_ms, snapshot=True)

    def _take(self, kind: Kind, now_ms: int) -> None:
        """Somebody takes the best price, and more than is there of it only now and then."""
        direction = self._chance.choice((Direction.BUY, Direction.SELL))
        bid, ask = self._venue.touch(kind.name)
        best = ask if direction is Direction.BUY else bid
        if best is not None:
            amount = kind.lot * self._chance.choice((1, 1, 2, 5))
            self.takes += len(self._venue.take(kind.name, direction, amount, best, now_ms))

    def _mark(self, kind: Kind, now_ms: int) -> None:
        mid, one = self._mids[kind.name], kind.listed
        is_option = one.kind == "option"
        if not is_option:
            self._venue.set_index(one.price_index, mid, now_ms)
        index = self._mids["BTC-PERPETUAL"] if is_option else mid
        reference = Reference(
            mark_price=mid + self._chance.choice((-1, 0, 1)) * (OPTION_TICK if is_option else kind.step),
            index_price=index,
            min_price=_on_grid(mid * D("0.7"), kind.step, ROUND_CEILING),
            max_price=_on_grid(mid * D("1.3"), kind.step, ROUND_FLOOR),
            underlying_price=index if is_option else None,
            underlying_index=one.instrument_name.rsplit("-", 2)[0] if is_option else None,
            mark_iv=55.0 if is_option else None,
            greeks=Greeks(0.4, 0.00001, 45.0, -20.0, 5.0) if is_option else None,
            current_funding=None if is_option else 0.0001,
            funding_8h=None if is_option else 0.0001,
        )
        self._venue.set_reference(kind.name, reference, now_ms)


def _on_grid(price: Decimal, tick: Decimal, rounding: str) -> Decimal:
    return (price / tick).to_integral_value(rounding) * tick
