"""The trading floor: books, accounts, executions. Price-time matching without any rule of order entry.

Every public operation of the engine ends in `commit`, which turns what was touched into notices.
"""

import copy
import random
from collections import deque
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Protocol

from mmd.sandbox import contracts, funding
from mmd.sandbox.accounts import STARTING_BALANCES, Account
from mmd.sandbox.book import Anonymous
from mmd.sandbox.listing import IndexPrice, Listing
from mmd.sandbox.model import Direction, SandboxInstrument, Trade
from mmd.sandbox.notices import (
    AccountChanged,
    InstrumentCreated,
    Notice,
    ProtectionTriggered,
    TopChanged,
    TradesPrinted,
)
from mmd.sandbox.orders import ZERO, CancelReason, Order, OrderState, Refuse, Refused, SelfTrading, UserTrade
from mmd.sandbox.tape import Print

# What was delivered stays listed until so many others were delivered after it.
DELIVERED_KEPT = 2_000


class Touched:
    """What the operation that runs now has done to one account on one instrument."""

    def __init__(self) -> None:
        self.orders: dict[str, Order] = {}
        self.trades: list[UserTrade] = []
        self.position_ended = False


class Names(Protocol):
    """Makes ids, each once: same seed, same ids."""

    def order(self, instrument: SandboxInstrument) -> str: ...

    def trade(self, instrument: SandboxInstrument) -> str: ...


class CountedNames:
    """Numbers from a random start, with the currency before them where it is not BTC."""

    def __init__(self, chance: random.Random) -> None:
        self._order = chance.randrange(10_000_000, 90_000_000)
        self._trade = chance.randrange(100_000_000, 300_000_000)

    def order(self, instrument: SandboxInstrument) -> str:
        self._order += 1
        return f"{_prefix(instrument)}{self._order}"

    def trade(self, instrument: SandboxInstrument) -> str:
        self._trade += 1
        return f"{_prefix(instrument)}{self._trade}"


def _prefix(instrument: SandboxInstrument) -> str:
    group = contracts.currency_group(instrument)
    return "" if group == "BTC" else f"{group}-"


class Floor:
    """All state of the exchange. Ids are counted from a seeded start: same seed, same ids."""

    def __init__(self, *, seed: int, balances: Mapping[str, Decimal] = STARTING_BALANCES) -> None:
        self.listings: dict[str, Listing] = {}
        self.by_id: dict[int, str] = {}
        self.perpetuals: list[Listing] = []
        self.indexes: dict[str, IndexPrice] = {}
        self.accounts: dict[str, Account] = {}
        self.notices: list[Notice] = []
        self.max_open: dict[tuple[str, str, Direction], int] = {}
        """Most orders of an account ever open at once on one side of an instrument."""
        self.balances = balances
        self.given_balances: dict[str, Mapping[str, Decimal]] = {}
        self.without_mmp: frozenset[str] = frozenset()
        """Accounts that open without the right to market maker protection."""
        self.locked_indices: set[str] = set()
        """Indexes whose instruments take no orders; cancels pass."""
        self.trade_lag_ms = 0
        """How late queries list executions; a fault."""
        self._next_row = 0
        self._random = random.Random(seed)
        self.names: Names = CountedNames(self._random)
        """What orders and trades are called; replaced before the first one is."""
        self._open_sides: dict[tuple[str, str, Direction], int] = {}
        self._touched: dict[tuple[str, str], Touched] = {}
        self._prints: dict[str, list[Print]] = {}
        self._dirty: dict[str, Listing] = {}
        self._tripped: list[tuple[Account, str]] = []
        self._delivered: deque[str] = deque()

    # --- what there is -------------------------------------------------------------------------

    def list_instrument(self, instrument: SandboxInstrument) -> None:
        """Add an instrument to the list; a name that is listed already stays as it is."""
        name = instrument.instrument_name
        if name in self.listings:
            return
        listing = self.listings[name] = Listing(instrument, self._random.randrange(1_000_000_000, 9_000_000_000))
        if instrument.is_perpetual:
            self.perpetuals.append(listing)
        self.by_id[instrument.instrument_id] = name
        self.notices.append(InstrumentCreated(instrument))

    def delivered(self, name: str) -> None:
        """It has expired, and stays listed until `forget_delivered` finds enough that expired after it."""
        self._delivered.append(name)

    def forget_delivered(self) -> None:
        """Of what expired long ago nothing is left: no listing, no order, no row of any history.

        Not while there are notices: they may be about it.
        """
        if len(self._delivered) <= DELIVERED_KEPT + DELIVERED_KEPT // 10:  # some at a time: histories are long
            return
        gone = frozenset(self._delivered.popleft() for _ in range(len(self._delivered) - DELIVERED_KEPT))
        for old in gone:
            listing = self.listings.pop(old)
            self.by_id.pop(listing.instrument.instrument_id, None)
        self.perpetuals = [listing for listing in self.perpetuals if listing.instrument.instrument_name not in gone]
        for account in self.accounts.values():
            account.forget(gone)
        for counts in (self.max_open, self._open_sides):
            for key in [key for key in counts if key[1] in gone]:
                del counts[key]

    def listing(self, name: str) -> Listing:
        """Refused (invalid instrument) for a name that is not listed."""
        found = self.listings.get(name)
        if found is None:
            raise Refused(Refuse.BAD_INSTRUMENT)
        return found

    def account(self, account_id: str, now_ms: int) -> Account:
        """The account of this id, opened with the starting balances at first sight."""
        found = self.accounts.get(account_id)
        if found is None:
            balances = self.given_balances.get(account_id, self.balances)
            found = Account(account_id, 10_000 + len(self.accounts), balances, now_ms)
            found.mmp_enabled = account_id not in self.without_mmp
            self.accounts[account_id] = found
        return found

    def index_price(self, index_name: str) -> Decimal:
        """Zero for an index nobody has set."""
        found = self.indexes.get(index_name)
        return found.price if found is not None else ZERO

    def new_order_id(self, instrument: SandboxInstrument) -> str:
        return self.names.order(instrument)

    def new_row_id(self) -> int:
        """Ids of the transaction log, rising over all accounts."""
        self._next_row += 1
        return self._next_row

    # --- matching ------------------------------------------------------------------------------

    def entries(self, listing: Listing, direction: Direction, limit: Decimal | None) -> Iterator[Anonymous | Order]:
        """What an order of this direction and limit would meet, in turn."""
        return (entry for _, entry in listing.book.other(direction).entries(limit))

    def match(
        self, listing: Listing, taker: Order | None, direction: Direction, amount: Decimal, limit: Decimal, now_ms: int
    ) -> tuple[list[Trade], Decimal]:
        """Execute against the other side, best price and oldest first; `taker` None is anonymous.

        Returns the trades and what is left of `amount`. Resting orders of the taker's own account in the way
        are cancelled (the caller has refused before where the account wants that instead), or met where it may.
        """
        trades: list[Trade] = []
        side = listing.book.other(direction)
        while amount:
            price = side.best()
            if price is None or not side.reached_by(limit, price):
                break
            entry = side.levels[price].queue[0]
            if isinstance(entry, Anonymous):
                size = min(amount, entry.amount)
                maker = None
            else:
                if taker is not None and taker.account == entry.account and not self._may_self_trade(entry):
                    self.close(entry, OrderState.CANCELLED, CancelReason.SELF_TRADE, now_ms)
                    continue
                size = min(amount, entry.remaining)
                if entry.reduce_only:
                    size = min(size, self.reducible(entry))
                if not size:
                    self.close(entry, OrderState.CANCELLED, CancelReason.REDUCE_ONLY, now_ms)
                    continue
                maker = entry
            self._dirty[listing.instrument.instrument_name] = listing
            side.fill_first(price, size)
            trades.append(self._execute(listing, maker, taker, direction, price, size, now_ms))
            amount -= size
        return trades, amount

    def _may_self_trade(self, order: Order) -> bool:
        return self.accounts[order.account].self_trading is SelfTrading.ALLOW

    def execute_resting(self, order: Order, amount: Decimal, now_ms: int) -> Trade:
        """Execute a resting order at its price with somebody anonymous, wherever it stands in the queue."""
        listing = self.listings[order.instrument_name]
        self.mark_dirty(listing)
        listing.book.side(order.direction).fill_order(order, amount)
        taken = direction_against(order.direction)
        return self._execute(listing, order, None, taken, order.price, amount, now_ms)

    def execute_closed(self, order: Order, amount: Decimal, now_ms: int) -> Trade:
        """Execute an order that was closed before, as if its fill had been found late; its amount grows if need be."""
        order.amount = max(order.amount, order.filled + amount)
        listing = self.listings[order.instrument_name]
        taken = direction_against(order.direction)
        return self._execute(listing, order, None, taken, order.price, amount, now_ms)

    def accrue(self, listing: Listing, now_ms: int) -> None:
        """Book the funding of a perpetual up to now, at the rate that was published last."""
        if not listing.instrument.is_perpetual:
            return
        span_ms = now_ms - listing.accrued_ms if listing.accrued_ms is not None else 0
        listing.accrued_ms = now_ms
        rate = funding.rate_of(listing.reference)
        if rate and span_ms > 0:
            self.pay_interest(listing, rate, span_ms)

    def pay_interest(self, listing: Listing, rate: Decimal, span_ms: int) -> None:
        """Give every position of a perpetual what it receives (negative: owes) at this 8-hour rate for so long."""
        instrument = listing.instrument
        index = self.index_price(instrument.price_index)
        for account in self.accounts.values():
            position = account.positions.get(instrument.instrument_name)
            if position is not None and position.size:
                gain = funding.received(instrument, position.size, index, rate, span_ms)
                position.funding += gain
                account.wallet(instrument.settlement_currency).session_rpl += gain

    def reducible(self, order: Order) -> Decimal:
        """How much of this order would still reduce its account's position."""
        position = self.accounts[order.account].positions.get(order.instrument_name)
        size = position.size if position is not None else ZERO
        return max(ZERO, -contracts.signed(order.direction, size))

    def _execute(
        self,
        listing: Listing,
        maker: Order | None,
        taker: Order | None,
        direction: Direction,
        price: Decimal,
        amount: Decimal,
        now_ms: int,
    ) -> Trade:
        instrument = listing.instrument
        self.accrue(listing, now_ms)
        listing.trade_seq += 1
        trade = Trade(
            trade_id=self.names.trade(instrument),
            trade_seq=listing.trade_seq,
            instrument_name=instrument.instrument_name,
            timestamp=now_ms,
            direction=direction,
            price=price,
            amount=amount,
            maker_is_account=maker is not None,
            taker_is_account=taker is not None,
        )
        index = self.index_price(instrument.price_index)
        reference = listing.reference
        entry = Print(
            trade=trade,
            mark_price=listing.mark_price,
            index_price=index,
            iv=reference.mark_iv if reference is not None else None,
            tick_direction=listing.tape.tick_direction(price),
        )
        volume = contracts.coins(instrument, amount, price)
        listing.tape.add(entry, volume, volume * (index or price))
        self._prints.setdefault(instrument.instrument_name, []).append(entry)
        self_trade = maker is not None and taker is not None and maker.account == taker.account
        if maker is not None:
            self._book_fill(listing, maker, entry, maker=True, self_trade=self_trade)
        else:
            listing.anonymous_position -= contracts.signed(direction, amount)
        if taker is not None:
            self._book_fill(listing, taker, entry, maker=False, self_trade=self_trade)
        else:
            listing.anonymous_position += contracts.signed(direction, amount)
        return trade

    def _book_fill(self, listing: Listing, order: Order, entry: Print, *, maker: bool, self_trade: bool) -> None:
        """Give one side of an execution to its order and account."""
        trade, instrument = entry.trade, listing.instrument
        account = self.accounts[order.account]
        order.filled += trade.amount
        order.cost += trade.amount * trade.price
        order.last_update_timestamp = trade.timestamp
        gain = account.position(trade.instrument_name).trade(instrument, order.direction, trade.amount, trade.price)
        fill = UserTrade(
            trade_id=trade.trade_id,
            trade_seq=trade.trade_seq,
            account=order.account,
            order_id=order.order_id,
            label=order.label,
            instrument_name=trade.instrument_name,
            timestamp=trade.timestamp,
            direction=order.direction,
            price=trade.price,
            amount=trade.amount,
            fee=contracts.trade_fee(instrument, trade.price, trade.amount, entry.index_price, maker=maker),
            fee_currency=instrument.settlement_currency,
            maker=maker,
            state=OrderState.OPEN if order.remaining else OrderState.FILLED,
            order_type=order.order_type,
            post_only=order.post_only,
            reduce_only=order.reduce_only,
            mmp=order.mmp,
            profit_loss=gain,
            mark_price=entry.mark_price,
            index_price=entry.index_price,
            underlying_price=listing.reference.underlying_price if listing.reference is not None else None,
            iv=entry.iv,
            tick_direction=entry.tick_direction,
            self_trade=self_trade,
        )
        order.fees += fill.fee
        account.record(fill, instrument, self.new_row_id())
        self.touch(order).trades.append(fill)
        if order.mmp:
            self._protect(account, listing, order, trade)
        if not order.remaining:
            if order.order_id in account.open_orders:
                self._leave(order, OrderState.FILLED)
            order.state = OrderState.FILLED

    def _protect(self, account: Account, listing: Listing, order: Order, trade: Trade) -> None:
        index = listing.instrument.price_index
        protection = account.protections.get(index)
        if protection is None:
            return
        quantity = float(contracts.coins(listing.instrument, trade.amount, trade.price))
        sign = 1.0 if order.direction is Direction.BUY else -1.0
        greeks = listing.reference.greeks if listing.reference is not None else None
        delta = 1.0
        if contracts.is_option(listing.instrument):
            price_in_coins = float(listing.mark_price) if contracts.is_inverse(listing.instrument) else 0.0
            delta = (greeks.delta if greeks is not None else 0.0) - price_in_coins
        vega = greeks.vega if greeks is not None else 0.0
        if protection.add(quantity, sign * quantity * delta, sign * quantity * vega, trade.timestamp):
            self._tripped.append((account, index))

    # --- the life of an order ------------------------------------------------------------------

    def open(self, order: Order) -> None:
        """An order exists from now on (it rests, is held, or is about to match)."""
        account = self.accounts[order.account]
        account.open_orders[order.order_id] = order
        key = (order.account, order.instrument_name, order.direction)
        self._open_sides[key] = count = self._open_sides.get(key, 0) + 1
        self.max_open[key] = max(count, self.max_open.get(key, 0))
        self.touch(order)

    def rest(self, listing: Listing, order: Order) -> None:
        """Put what is left of an order at the back of its level."""
        self._dirty[order.instrument_name] = listing
        listing.book.side(order.direction).add(order)
        self.touch(order)

    def unrest(self, listing: Listing, order: Order) -> None:
        self._dirty[order.instrument_name] = listing
        listing.book.side(order.direction).remove(order)

    def close(self, order: Order, state: OrderState, reason: CancelReason, now_ms: int) -> None:
        """Take an order off its book (if it rests) and close it."""
        listing = self.listings[order.instrument_name]
        level = listing.book.side(order.direction).levels.get(order.price)
        if level is not None and order in level.queue:
            self.unrest(listing, order)
        order.last_update_timestamp = now_ms
        order.cancel_reason = reason
        self._leave(order, state)

    def _leave(self, order: Order, state: OrderState) -> None:
        order.state = state
        self.touch(order)
        self.accounts[order.account].close(order)
        self._open_sides[order.account, order.instrument_name, order.direction] -= 1

    def touch(self, order: Order) -> Touched:
        """Report this order at the end of the operation."""
        key = (order.account, order.instrument_name)
        touched = self._touched.get(key)
        if touched is None:
            touched = self._touched[key] = Touched()
        touched.orders[order.order_id] = order
        return touched

    def touch_position(self, account: str, name: str) -> None:
        """Report at the end of the operation that a position ended without a trade."""
        self._touched.setdefault((account, name), Touched()).position_ended = True

    def trip(self, account: Account, index_name: str, now_ms: int) -> None:
        """Let an account's protection on an index fire at the end of the operation. KeyError: it has none."""
        account.protections[index_name].trip(now_ms)
        self._tripped.append((account, index_name))

    def fills_of(self, order: Order) -> tuple[UserTrade, ...]:
        """What the operation that runs now has executed of this order."""
        touched = self._touched.get((order.account, order.instrument_name))
        return tuple(fill for fill in touched.trades if fill.order_id == order.order_id) if touched is not None else ()

    def mark_dirty(self, listing: Listing) -> None:
        self._dirty[listing.instrument.instrument_name] = listing

    # --- the end of an operation ---------------------------------------------------------------

    def commit(self, now_ms: int) -> None:
        """Turn what was touched into notices: trades, books, accounts."""
        if self._tripped:
            self._fire_protections(now_ms)
        for name, prints in self._prints.items():
            self.notices.append(TradesPrinted(name, tuple(prints)))
            self.listings[name].open_interest = self._open_interest(name)
        for name, listing in self._dirty.items():
            change = listing.book.change(now_ms)
            if change is not None:
                self.notices.append(change)
                top = listing.best()
                if top != listing.top:
                    listing.top = top
                    self.notices.append(TopChanged(name))
        for (account, name), touched in self._touched.items():
            orders = tuple(copy.copy(order) for order in touched.orders.values())
            fills = tuple(touched.trades)
            moved = bool(fills) or touched.position_ended
            self.notices.append(AccountChanged(account, name, orders, fills, position_changed=moved))
        self._prints.clear()
        self._dirty.clear()
        self._touched.clear()

    def _open_interest(self, name: str) -> Decimal:
        sizes = [account.positions[name].size for account in self.accounts.values() if name in account.positions]
        return (sum((abs(size) for size in sizes), ZERO) + abs(self.listings[name].anonymous_position)) / 2

    def _fire_protections(self, now_ms: int) -> None:
        for account, index in self._tripped:
            for order in list(account.open_orders.values()):
                if order.mmp and self.listings[order.instrument_name].instrument.price_index == index:
                    self.close(order, OrderState.CANCELLED, CancelReason.MMP_TRIGGER, now_ms)
            frozen_until = account.protections[index].frozen_until or 0
            self.notices.append(ProtectionTriggered(account.account_id, index, frozen_until))
        self._tripped.clear()

    def drain(self) -> list[Notice]:
        """The notices since the last call, oldest first."""
        notices, self.notices = self.notices, []
        return notices


def direction_against(direction: Direction) -> Direction:
    return Direction.SELL if direction is Direction.BUY else Direction.BUY
