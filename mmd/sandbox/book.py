"""The order book of everybody: price levels in time order, anonymous size and account orders in one queue.

Every change of a level's total is remembered until `change` turns them into one numbered book change.
Levels may also carry phantom size: shown, never traded; a fault that tests use to cross a book.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from decimal import Decimal

import msgspec

from mmd.sandbox.model import Direction
from mmd.sandbox.orders import ZERO, Order


class LevelChange(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One tuple of a book message: "new", "change" or "delete"; `amount` is the new total."""

    action: str
    price: Decimal
    amount: Decimal


class BookChanged(msgspec.Struct, frozen=True):
    """Levels whose total changed in one operation. `change_id` follows `prev_change_id` directly."""

    instrument_name: str
    timestamp: int
    change_id: int
    prev_change_id: int
    bids: tuple[LevelChange, ...]
    asks: tuple[LevelChange, ...]


class Anonymous:
    """A run of anonymous size in a level's queue."""

    __slots__ = ("amount",)

    def __init__(self, amount: Decimal) -> None:
        self.amount = amount


class Level:
    """One price: a queue in time order, its total and the anonymous part of it."""

    __slots__ = ("anonymous", "queue", "total")

    def __init__(self) -> None:
        self.queue: list[Anonymous | Order] = []
        self.total = ZERO
        self.anonymous = ZERO


class BookSide:
    """Bids or asks. `prices` ascends; the best bid is the last, the best ask the first."""

    def __init__(self, direction: Direction) -> None:
        self.direction = direction
        self.is_bid = direction is Direction.BUY
        self.levels: dict[Decimal, Level] = {}
        self.prices: list[Decimal] = []
        self.phantom: dict[Decimal, Decimal] = {}
        self.before: dict[Decimal, Decimal] = {}  # total shown when the level first changed since the last message

    def best(self) -> Decimal | None:
        if not self.prices:
            return None
        return self.prices[-1] if self.is_bid else self.prices[0]

    def best_first(self) -> Iterator[Decimal]:
        return reversed(self.prices) if self.is_bid else iter(self.prices)

    def reached_by(self, limit: Decimal | None, price: Decimal) -> bool:
        """Whether an incoming order of the other side with this limit trades at this price; None = at any."""
        if limit is None:
            return True
        return price >= limit if self.is_bid else price <= limit

    def shown(self, price: Decimal) -> Decimal:
        level = self.levels.get(price)
        total = level.total if level is not None else ZERO
        return total + self.phantom[price] if price in self.phantom else total

    def shown_levels(self, depth: int | None = None) -> list[tuple[Decimal, Decimal]]:
        """(price, total) best first, phantom size included."""
        if not self.phantom:
            count = len(self.prices) if depth is None else depth
            chosen = self.prices[: -count - 1 : -1] if self.is_bid else self.prices[:count]
            return [(price, self.levels[price].total) for price in chosen]
        prices = sorted(set(self.prices) | set(self.phantom), reverse=self.is_bid)
        return [(price, self.shown(price)) for price in prices[:depth]]

    def entries(self, limit: Decimal | None) -> Iterator[tuple[Decimal, Anonymous | Order]]:
        """Everything an incoming order with this limit would meet, in the order it would meet it."""
        for price in self.best_first():
            if not self.reached_by(limit, price):
                return
            for entry in self.levels[price].queue:
                yield price, entry

    # --- changes -------------------------------------------------------------------------------

    def _touch(self, price: Decimal) -> None:
        if price not in self.before:
            self.before[price] = self.shown(price)

    def _level(self, price: Decimal) -> Level:
        self._touch(price)
        level = self.levels.get(price)
        if level is None:
            level = self.levels[price] = Level()
            insort(self.prices, price)
        return level

    def _drop_if_empty(self, price: Decimal) -> None:
        if not self.levels[price].queue:
            del self.levels[price]
            del self.prices[bisect_left(self.prices, price)]

    def add(self, order: Order) -> None:
        """Put an order at the back of its level."""
        level = self._level(order.price)
        level.queue.append(order)
        level.total += order.remaining

    def remove(self, order: Order) -> None:
        """Take a resting order out; KeyError or ValueError if it does not rest here."""
        level = self.levels[order.price]
        self._touch(order.price)
        level.queue.remove(order)
        level.total -= order.remaining
        self._drop_if_empty(order.price)

    def shrink(self, order: Order, amount: Decimal) -> None:
        """Lower a resting order's total in place: it keeps its turn."""
        self._touch(order.price)
        self.levels[order.price].total -= order.amount - amount
        order.amount = amount

    def fill_order(self, order: Order, amount: Decimal) -> None:
        """Execute this much of a resting order wherever it queues; `filled` is the caller's to raise, after."""
        level = self.levels[order.price]
        self._touch(order.price)
        if order.remaining == amount:
            level.queue.remove(order)
        level.total -= amount
        self._drop_if_empty(order.price)

    def fill_first(self, price: Decimal, amount: Decimal) -> None:
        """Execute this much of the first entry at `price`; an order's `filled` is the caller's to raise, after."""
        level = self.levels[price]
        self._touch(price)
        level.total -= amount
        first = level.queue[0]
        if isinstance(first, Order):
            if first.remaining == amount:
                del level.queue[0]
        else:
            level.anonymous -= amount
            first.amount -= amount
            if not first.amount:
                del level.queue[0]
        self._drop_if_empty(price)

    def set_anonymous(self, price: Decimal, amount: Decimal) -> None:
        """Set the anonymous size at a price. More queues at the back; less leaves from the back.

        Leaving from the back is the careful reading: an account's order never gains a turn by a cancel it
        did not see.
        """
        level = self.levels.get(price)
        difference = amount - (level.anonymous if level is not None else ZERO)
        if not difference:
            return
        level = self._level(price)
        level.total += difference
        level.anonymous += difference
        if difference > 0:
            last = level.queue[-1] if level.queue else None
            if isinstance(last, Anonymous):
                last.amount += difference
            else:
                level.queue.append(Anonymous(difference))
            return
        for at in range(len(level.queue) - 1, -1, -1):
            entry = level.queue[at]
            if not isinstance(entry, Anonymous):
                continue
            cut = min(entry.amount, -difference)
            entry.amount -= cut
            difference += cut
            if not entry.amount:
                del level.queue[at]
            if not difference:
                break
        self._drop_if_empty(price)

    def set_phantom(self, price: Decimal, amount: Decimal) -> None:
        """Show `amount` more at a price than is there (0 ends it)."""
        self._touch(price)
        if amount:
            self.phantom[price] = amount
        else:
            self.phantom.pop(price, None)

    def take_changes(self) -> tuple[LevelChange, ...]:
        """Levels whose shown total differs from the last message; forgets them."""
        changes = []
        for price, old in self.before.items():
            new = self.shown(price)
            if new != old:
                action = "delete" if not new else ("change" if old else "new")
                changes.append(LevelChange(action, price, new))
        self.before.clear()
        return tuple(changes)


class Book:
    """Both sides and the number of the last change."""

    def __init__(self, instrument_name: str, change_id: int) -> None:
        self.instrument_name = instrument_name
        self.change_id = change_id
        self.changed_ms = 0
        self.bids = BookSide(Direction.BUY)
        self.asks = BookSide(Direction.SELL)

    def side(self, direction: Direction) -> BookSide:
        return self.bids if direction is Direction.BUY else self.asks

    def other(self, direction: Direction) -> BookSide:
        return self.asks if direction is Direction.BUY else self.bids

    def change(self, now_ms: int) -> BookChanged | None:
        """One message of all levels that changed since the last one; None if none did."""
        if not self.bids.before and not self.asks.before:
            return None
        bids, asks = self.bids.take_changes(), self.asks.take_changes()
        if not bids and not asks:
            return None
        previous = self.change_id
        self.change_id += 1 + len(bids) + len(asks)  # numbers of a book are increasing, not consecutive
        self.changed_ms = now_ms
        return BookChanged(self.instrument_name, now_ms, self.change_id, previous, bids, asks)
