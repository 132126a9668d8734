"""The tape of one instrument: recent trades, minute candles, 24-hour statistics."""

from collections import deque
from decimal import Decimal

import msgspec

from mmd.sandbox.model import Trade
from mmd.sandbox.orders import ZERO

MINUTE_MS = 60_000
DAY_MS = 86_400_000
TAPE_TRADES = 2_000
TAPE_CANDLES = 2_880


class Print(msgspec.Struct, frozen=True):
    """A public trade with what the exchange showed at that moment. `tick_direction` 0..3 as on Deribit."""

    trade: Trade
    mark_price: Decimal
    index_price: Decimal
    iv: float | None
    tick_direction: int


class Candle(msgspec.Struct):
    """One bar; `volume` in coins, `cost` in the notional currency."""

    start_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal = ZERO
    cost: Decimal = ZERO

    def add(self, price: Decimal, volume: Decimal, cost: Decimal) -> None:
        self.high = max(self.high, price)
        self.low = min(self.low, price)
        self.close = price
        self.volume += volume
        self.cost += cost


class Stats(msgspec.Struct, frozen=True):
    """The last 24 hours; None without trades. `price_change` in percent."""

    volume: Decimal | None = None
    volume_usd: Decimal | None = None
    volume_notional: Decimal | None = None
    high: Decimal | None = None
    low: Decimal | None = None
    price_change: Decimal | None = None


NO_STATS = Stats()


class Tape:
    """Trades newest last, bounded; candles by the minute, bounded to two days."""

    def __init__(self) -> None:
        self.prints: deque[Print] = deque(maxlen=TAPE_TRADES)
        self.candles: deque[Candle] = deque(maxlen=TAPE_CANDLES)
        self.last_price: Decimal | None = None
        self._tick_direction = 0
        self._stats = NO_STATS
        self._stats_minute = -1

    def tick_direction(self, price: Decimal) -> int:
        """0 plus, 1 zero-plus, 2 minus, 3 zero-minus, against the price before."""
        if self.last_price is not None and price != self.last_price:
            self._tick_direction = 0 if price > self.last_price else 2
        elif self.last_price is not None:
            self._tick_direction |= 1
        return self._tick_direction

    def add(self, entry: Print, volume: Decimal, cost: Decimal) -> None:
        """Record a trade: `volume` in coins, `cost` its notional in the quote of the index (USD)."""
        trade = entry.trade
        self.prints.append(entry)
        self.last_price = trade.price
        start = trade.timestamp - trade.timestamp % MINUTE_MS
        if not self.candles or self.candles[-1].start_ms < start:
            self.candles.append(Candle(start, trade.price, trade.price, trade.price, trade.price))
        self.candles[-1].add(trade.price, volume, cost)
        self._stats_minute = -1

    def stats(self, now_ms: int) -> Stats:
        """Figures of the last 24 hours, by whole minutes."""
        minute = now_ms // MINUTE_MS
        if minute != self._stats_minute:
            self._stats_minute = minute
            self._stats = self._count(now_ms - DAY_MS)
        return self._stats

    def _count(self, since_ms: int) -> Stats:
        day = [candle for candle in self.candles if candle.start_ms > since_ms]
        if not day:
            return NO_STATS
        cost = sum((candle.cost for candle in day), ZERO)
        return Stats(
            volume=sum((candle.volume for candle in day), ZERO).quantize(Decimal("1e-8")),
            volume_usd=cost.quantize(Decimal("0.01")),
            volume_notional=cost.quantize(Decimal("0.01")),
            high=max(candle.high for candle in day),
            low=min(candle.low for candle in day),
            price_change=((day[-1].close / day[0].open - 1) * 100).quantize(Decimal("0.0001")),
        )

    def bars(self, start_ms: int, end_ms: int, width_ms: int) -> list[Candle]:
        """Candles of `width_ms` that begin in [start, end], gaps left out."""
        bars: list[Candle] = []
        for minute in self.candles:
            begin = minute.start_ms - minute.start_ms % width_ms
            if not start_ms - width_ms < begin <= end_ms:
                continue
            if not bars or bars[-1].start_ms != begin:
                bars.append(Candle(begin, minute.open, minute.high, minute.low, minute.close))
            bar = bars[-1]
            bar.high, bar.low, bar.close = max(bar.high, minute.high), min(bar.low, minute.low), minute.close
            bar.volume, bar.cost = bar.volume + minute.volume, bar.cost + minute.cost
        return bars
