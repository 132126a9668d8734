"""Help for the market tests: a venue that only remembers, and a tiny maker of fixed width on the real engine."""

import math
from decimal import Decimal

from mmd.sandbox.engine import Engine
from mmd.sandbox.makers import grid_of
from mmd.sandbox.model import Direction, InstrumentState, Market, Reference, SandboxInstrument, Trade
from mmd.sandbox.notices import AccountChanged
from mmd.sandbox.orders import NewOrder, Refused

SECOND = 1000
ZERO = Decimal(0)


class FakeVenue:
    """A `Venue` with anonymous levels only; everything that was done to it is in `log`."""

    def __init__(self) -> None:
        self.books: dict[str, tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]] = {}
        self.references: dict[str, Reference] = {}
        self.indices: dict[str, Decimal] = {}
        self.log: list[tuple] = []

    def instrument(self, name: str) -> SandboxInstrument:
        raise KeyError(name)

    def set_levels(self, name, bids, asks, now_ms, *, snapshot):
        book = self.books.setdefault(name, ({}, {}))
        for side, changes in zip(book, (bids, asks), strict=True):
            if snapshot:
                side.clear()
            side.update(changes)
            for price in [price for price, amount in side.items() if not amount]:
                del side[price]
        self.log.append(("levels", name, now_ms, dict(bids), dict(asks), snapshot))
        return []

    def take(self, name, direction, amount, limit, now_ms) -> list[Trade]:
        self.log.append(("take", name, now_ms, direction, amount, limit))
        bids, asks = self.books[name]
        side, best = (asks, min) if direction is Direction.BUY else (bids, max)
        while amount and side:
            price = best(side)
            if (price > limit) if direction is Direction.BUY else (price < limit):
                break
            done = min(amount, side[price])
            amount -= done
            side[price] -= done
            if not side[price]:
                del side[price]
        return []

    def anonymous_levels(self, name):
        bids, asks = self.books.get(name, ({}, {}))
        return dict(bids), dict(asks)

    def touch(self, name):
        bids, asks = self.books.get(name, ({}, {}))
        return max(bids, default=None), min(asks, default=None)

    def set_reference(self, name, reference, now_ms):
        self.references[name] = reference
        self.log.append(("reference", name, now_ms, reference))

    def set_index(self, index_name, price, now_ms):
        self.indices[index_name] = price
        self.log.append(("index", index_name, now_ms, price))

    def set_state(self, name, state: InstrumentState, now_ms):
        self.log.append(("state", name, now_ms, state))

    def deliver(self, name, delivery_price, now_ms):
        self.log.append(("deliver", name, now_ms, delivery_price))

    def entries(self, kind: str, name: str) -> list[tuple]:
        return [entry for entry in self.log if entry[0] == kind and entry[1] == name]


def run(market: Market, from_ms: int, to_ms: int) -> None:
    """Step as a server does: whenever the market says that something is due."""
    now_ms = from_ms
    while now_ms < to_ms:
        now_ms = min(max(market.step(now_ms), now_ms + 1), to_ms)
    market.step(to_ms)


def engine_for(market: Market, now_ms: int) -> Engine:
    engine = Engine(seed=1)
    for instrument in market.instruments():
        engine.floor.list_instrument(instrument)
    market.start(engine, now_ms)
    engine.drain()
    return engine


class FixedSpreadMaker:
    """One bid and one ask, `width` price units apart around the anonymous mid, moved every `every_ms`.

    Every fill is valued `HOLD_MS` later at the anonymous mid, as if handed on there: this leaves
    what the fill itself was worth, not where the market wandered. No fees. It holds at most `most`
    in either direction: a side that would go beyond is taken away.
    """

    HOLD_MS = 5_000

    def __init__(self, engine: Engine, name: str, width: float, amount: Decimal, most: Decimal) -> None:
        self.engine, self.name, self.width, self.amount, self.most = engine, name, width, amount, most
        self.instrument = engine.instrument(name)
        self.grid = grid_of(self.instrument)
        self.orders: dict[Direction, str] = {}
        self.position = ZERO
        self.profit = 0.0  # in the settlement currency
        self.fills = 0
        self.held: list[tuple[int, Decimal, float]] = []  # until when, signed amount, price

    def mid(self) -> float | None:
        bids, asks = self.engine.anonymous_levels(self.name)
        return float(max(bids) + min(asks)) / 2 if bids and asks else None

    def read(self, now_ms: int) -> None:
        for notice in self.engine.drain():
            if isinstance(notice, AccountChanged):
                for trade in notice.trades:
                    signed = trade.amount if trade.direction is Direction.BUY else -trade.amount
                    self.position += signed
                    self.held.append((trade.timestamp + self.HOLD_MS, signed, float(trade.price)))
                    self.fills += 1
        mid = self.mid()
        while mid is not None and self.held and self.held[0][0] <= now_ms:
            _, signed, price = self.held.pop(0)
            self.profit += self.value(signed, mid) - self.value(signed, price)
            self.position -= signed

    def value(self, amount: Decimal, price: float) -> float:
        """Of a long position; inverse futures in coin, so that buying low gains coin."""
        if self.instrument.kind == "future" and self.instrument.instrument_type == "reversed":
            return -float(amount) / price
        return float(amount) * price

    def quote(self, now_ms: int) -> None:
        self.read(now_ms)
        mid = self.mid()
        tick = float(self.instrument.tick_size)
        for direction in Direction:
            sign = 1 if direction is Direction.BUY else -1
            room = abs(self.position + sign * self.amount) <= self.most
            if mid is None or not room:
                self.pull(direction, now_ms)
                continue
            raw = (mid - sign * self.width / 2) / tick
            price = self.grid.price(self.grid.floor(raw) if sign > 0 else self.grid.ceil(raw))
            self.put(direction, price, now_ms)

    def put(self, direction: Direction, price: Decimal, now_ms: int) -> None:
        order = self.orders.get(direction)
        try:
            if order is not None:
                known = self.engine.floor.account("maker", now_ms).open_orders.get(order)
                if known is not None and known.price == price and known.amount - known.filled == self.amount:
                    return
                self.pull(direction, now_ms)
            self.orders[direction] = self.engine.place(
                NewOrder(
                    account="maker", instrument_name=self.name, direction=direction, amount=self.amount,
                    price=price, post_only=True, reject_post_only=True,
                ), now_ms,
            ).order.order_id  # fmt: skip
        except Refused:
            self.orders.pop(direction, None)

    def pull(self, direction: Direction, now_ms: int) -> None:
        order = self.orders.pop(direction, None)
        if order is not None and order in self.engine.floor.account("maker", now_ms).open_orders:
            self.engine.cancel("maker", order, now_ms)


def make_for(market: Market, maker: FixedSpreadMaker, from_ms: int, seconds: int, every_ms: int) -> float:
    """Let the maker quote for so long; its profit."""
    for now_ms in range(from_ms, from_ms + seconds * SECOND, every_ms):
        run_to = now_ms + every_ms
        maker.quote(now_ms)
        run(market, now_ms, run_to)
    maker.read(from_ms + seconds * SECOND)
    return maker.profit


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Mean and its standard error."""
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
