"""The exchange's engine: the rules of order entry over the trading floor. Pure; time (ms) is passed in.

What an operation changed is in `drain()` afterwards. A refusal raises `Refused` and changes nothing.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal

from mmd.sandbox import contracts
from mmd.sandbox.accounts import STARTING_BALANCES, Account
from mmd.sandbox.floor import Floor
from mmd.sandbox.listing import Listing
from mmd.sandbox.model import Direction, InstrumentState, SandboxInstrument
from mmd.sandbox.orders import (
    ZERO,
    CancelReason,
    NewOrder,
    Order,
    OrderChange,
    OrderState,
    OrderType,
    Placed,
    Refuse,
    Refused,
    SelfTrading,
    TimeInForce,
)
from mmd.sandbox.protection import Protection, ProtectionConfig
from mmd.sandbox.venue import EngineVenue

ENTRY_REFUSED = {
    InstrumentState.LOCKED: Refuse.LOCKED,
    InstrumentState.SETTLEMENT: Refuse.SETTLEMENT,
    InstrumentState.DELIVERED: Refuse.EXPIRED_BOOK,
    InstrumentState.ARCHIVIZED: Refuse.EXPIRED_BOOK,
    InstrumentState.INACTIVE: Refuse.BOOK_CLOSED,
    InstrumentState.HALTED: Refuse.BOOK_CLOSED,
}
CANCEL_REFUSED = {
    InstrumentState.SETTLEMENT: Refuse.SETTLEMENT,
    InstrumentState.HALTED: Refuse.BOOK_CLOSED,
}
AT_ONCE = frozenset({TimeInForce.FILL_OR_KILL, TimeInForce.IMMEDIATE_OR_CANCEL})


class Engine(EngineVenue):
    """Order entry and queries for accounts; the market's side of it is in EngineVenue."""

    def __init__(
        self, *, seed: int = 0, balances: Mapping[str, Decimal] = STARTING_BALANCES, speed_bump_ms: int = 0
    ) -> None:
        super().__init__(Floor(seed=seed, balances=balances))
        self.speed_bump_ms = speed_bump_ms
        self._held: list[Order] = []

    # --- placing -------------------------------------------------------------------------------

    def place(self, new: NewOrder, now_ms: int, *, bumped: bool = True) -> Placed:
        """Buy or sell. Raises Refused; an order that only found part of what it wanted is no refusal.

        A reduce-only order asks for no more than the position has; `bumped` False skips the speed bump.
        """
        listing = self._open_for_entry(new.instrument_name)
        instrument = listing.instrument
        if new.valid_until is not None and now_ms > new.valid_until:
            raise Refused(Refuse.TIMED_OUT)
        account = self.floor.account(new.account, now_ms)
        at_once = new.order_type is not OrderType.LIMIT or new.time_in_force in AT_ONCE
        if new.post_only and at_once:
            raise Refused(Refuse.POST_ONLY_NOT_ALLOWED)
        _check_amount(instrument, new.amount)
        amount = self._reducing_amount(account, new) if new.reduce_only else new.amount
        price = self._entry_price(listing, new)
        if new.post_only:
            price = _post_only_price(listing, new.direction, price, reject=new.reject_post_only)
        if new.mmp:
            self._check_protection(account, listing, now_ms)
            self._check_quoted(account, listing, new.direction, amount, price, None)
        self._check_own(listing, account, new.direction, amount, price)
        order = Order(
            order_id=self.floor.new_order_id(instrument),
            account=new.account,
            instrument_name=new.instrument_name,
            direction=new.direction,
            order_type=new.order_type,
            price=price,
            amount=amount,
            time_in_force=new.time_in_force,
            label=new.label,
            post_only=new.post_only,
            reject_post_only=new.reject_post_only,
            reduce_only=new.reduce_only,
            mmp=new.mmp,
            creation_timestamp=now_ms,
            last_update_timestamp=now_ms,
            link=new.link,
        )
        return self._enter(listing, account, order, now_ms, bumped=bumped)

    def edit(self, account_id: str, order_id: str, change: OrderChange, now_ms: int) -> Placed:
        """Change price, total amount or flags of an open order; it keeps its id.

        Keeps its turn only if the price is the same and the amount not larger. An edit that would take under
        reject_post_only cancels the order (edit_post_only_reject) and is no refusal.
        """
        account, order = self._own_open_order(account_id, order_id, now_ms)
        listing = self._open_for_entry(order.instrument_name)
        instrument = listing.instrument
        if change.valid_until is not None and now_ms > change.valid_until:
            raise Refused(Refuse.TIMED_OUT)
        if order.state is OrderState.SPEED_BUMPED:
            raise Refused(Refuse.NOT_OPEN)
        amount = order.amount if change.amount is None else change.amount
        price = order.price if change.price is None else change.price
        post_only = order.post_only if change.post_only is None else change.post_only
        reject = order.reject_post_only if change.reject_post_only is None else change.reject_post_only
        _check_amount(instrument, amount)
        if amount <= order.filled:
            raise Refused(Refuse.INVALID_AMOUNT)
        if price != order.price:
            _check_price(listing, order.direction, price)
        rejected = post_only and reject and _would_take(listing, order.direction, price)
        if post_only and not rejected:
            price = _post_only_price(listing, order.direction, price, reject=False)
        if order.mmp:
            self._check_quoted(account, listing, order.direction, amount - order.filled, price, order)
        if not rejected:
            self._check_own(listing, account, order.direction, amount - order.filled, price)
        order.replaced = True
        order.post_only, order.reject_post_only = post_only, reject
        order.reduce_only = order.reduce_only if change.reduce_only is None else change.reduce_only
        order.last_update_timestamp = now_ms
        if rejected:
            self.floor.close(order, OrderState.CANCELLED, CancelReason.EDIT_POST_ONLY_REJECT, now_ms)
        elif price == order.price and amount <= order.amount:
            self.floor.mark_dirty(listing)
            listing.book.side(order.direction).shrink(order, amount)
            self.floor.touch(order)
        else:
            self.floor.unrest(listing, order)
            order.price, order.amount = price, amount
            return self._enter(listing, account, order, now_ms)
        self.floor.commit(now_ms)
        return Placed(order)

    def close_position(
        self,
        account_id: str,
        instrument_name: str,
        order_type: OrderType,
        price: Decimal | None,
        now_ms: int,
        link: int | None,
    ) -> Placed:
        """A reduce-only order over the whole position; Refused (other_reject) when there is none."""
        account = self.floor.account(account_id, now_ms)
        position = account.positions.get(instrument_name)
        if position is None or not position.size:
            raise Refused(Refuse.OTHER_REJECT, "already_closed")
        new = NewOrder(
            account=account_id,
            instrument_name=instrument_name,
            direction=Direction.SELL if position.size > 0 else Direction.BUY,
            amount=abs(position.size),
            price=price,
            order_type=order_type,
            reduce_only=True,
            link=link,
        )
        return self.place(new, now_ms)

    def _enter(self, listing: Listing, account: Account, order: Order, now_ms: int, *, bumped: bool = True) -> Placed:
        """Send a checked order to the book, or hold it for the speed bump."""
        if order.order_id not in account.open_orders:
            self.floor.open(order)
        if bumped and self._is_bumped(listing, order):
            order.state = OrderState.SPEED_BUMPED
            order.release_ms = now_ms + self.speed_bump_ms
            self._held.append(order)
            return Placed(order)
        return self._execute(listing, order, now_ms)

    def _execute(self, listing: Listing, order: Order, now_ms: int) -> Placed:
        order.state = OrderState.OPEN
        if order.reduce_only:  # an edit or the speed bump: the position may be another by now
            room = self.floor.reducible(order)
            if not room:
                self.floor.close(order, OrderState.CANCELLED, CancelReason.REDUCE_ONLY, now_ms)
                self.floor.commit(now_ms)
                return Placed(order)
            order.amount = min(order.amount, order.filled + room)
        left = order.remaining
        if order.time_in_force is not TimeInForce.FILL_OR_KILL or self._fillable(listing, order) >= left:
            _, left = self.floor.match(listing, order, order.direction, left, order.price, now_ms)
        if left:
            if order.time_in_force in AT_ONCE or order.order_type is OrderType.MARKET:
                self.floor.close(order, OrderState.CANCELLED, CancelReason.NOT_FILLED, now_ms)
            else:
                self.floor.rest(listing, order)
        fills = self.floor.fills_of(order)
        self.floor.commit(now_ms)
        return Placed(order, fills)

    # --- the speed bump ------------------------------------------------------------------------

    def _is_bumped(self, listing: Listing, order: Order) -> bool:
        """Aggressive orders outside the inverse BTC and ETH perpetuals wait before they reach the book."""
        if not self.speed_bump_ms or order.post_only:
            return False
        instrument = listing.instrument
        exempt = instrument.is_perpetual and contracts.is_inverse(instrument)
        if exempt and instrument.base_currency in ("BTC", "ETH"):
            return False
        return _would_take(listing, order.direction, order.price)

    def release(self, now_ms: int) -> list[Placed]:
        """Let the held orders whose time has come into the book, oldest first."""
        placed = []
        while self._held and self._held[0].release_ms <= now_ms:
            order = self._held.pop(0)
            if order.state is not OrderState.SPEED_BUMPED:
                continue
            listing = self.floor.listings[order.instrument_name]
            placed.append(self._execute(listing, order, now_ms))
        return placed

    @property
    def next_release_ms(self) -> int | None:
        return self._held[0].release_ms if self._held else None

    # --- cancelling ----------------------------------------------------------------------------

    def cancel(self, account_id: str, order_id: str, now_ms: int) -> Order:
        """Cancel one order of this account."""
        _, order = self._own_open_order(account_id, order_id, now_ms)
        refused = CANCEL_REFUSED.get(self.floor.listings[order.instrument_name].state)
        if refused is not None:
            raise Refused(refused)
        self._cancel_now(order, CancelReason.USER_REQUEST, now_ms)
        self.floor.commit(now_ms)
        return order

    def cancel_where(
        self,
        account_id: str,
        chosen: Callable[[Order], bool],
        now_ms: int,
        reason: CancelReason = CancelReason.USER_REQUEST,
    ) -> list[Order]:
        """Cancel every open order that `chosen` picks; orders that cannot be cancelled now are skipped."""
        cancelled = []
        for order in list(self.floor.account(account_id, now_ms).open_orders.values()):
            if chosen(order) and self.floor.listings[order.instrument_name].state not in CANCEL_REFUSED:
                self._cancel_now(order, reason, now_ms)
                cancelled.append(order)
        self.floor.commit(now_ms)
        return cancelled

    def expire(self, order: Order, now_ms: int) -> None:
        """An open order has come to the end of its life, whatever state its book is in."""
        self.floor.close(order, OrderState.EXPIRED, CancelReason.NONE, now_ms)
        self.floor.commit(now_ms)

    def cancel_link(self, link: int, now_ms: int) -> int:
        """Cancel on disconnect: everything placed over this connection. Returns how many."""
        count = 0
        for account_id in list(self.floor.accounts):
            chosen = self.cancel_where(
                account_id, lambda order: order.link == link, now_ms, CancelReason.CANCEL_ON_DISCONNECT
            )
            count += len(chosen)
        return count

    def _cancel_now(self, order: Order, reason: CancelReason, now_ms: int) -> None:
        if order.state is OrderState.SPEED_BUMPED:  # a held order cannot be pulled: it may still fill, once
            order.time_in_force = TimeInForce.IMMEDIATE_OR_CANCEL
            return
        self.floor.close(order, OrderState.CANCELLED, reason, now_ms)

    # --- executions out of turn ----------------------------------------------------------------

    def hit(self, order: Order, amount: Decimal | None, now_ms: int) -> str:
        """Somebody anonymous trades with this resting order (None: all of it), whatever stands before it.

        Returns the trade id. ValueError for an order that does not rest or an amount it does not have.
        """
        level = self.floor.listings[order.instrument_name].book.side(order.direction).levels.get(order.price)
        if level is None or order not in level.queue:
            raise ValueError(f"order {order.order_id} does not rest")
        size = order.remaining if amount is None else amount
        if not ZERO < size <= order.remaining:
            raise ValueError(f"order {order.order_id} has {order.remaining} left, asked to fill {size}")
        trade = self.floor.execute_resting(order, size, now_ms)
        self.floor.commit(now_ms)
        return trade.trade_id

    def hit_some(self, order: Order, steps: int | None, now_ms: int) -> None:
        """The same with at most so many least steps of its instrument."""
        step = contracts.amount_step(self.instrument(order.instrument_name))
        self.hit(order, None if steps is None else min(order.remaining, steps * step), now_ms)

    def fill_closed(self, order: Order, amount: Decimal, now_ms: int) -> str:
        """A fill of an order that is closed turns up: a true execution, in every book of the exchange.

        Returns the trade id. ValueError for an order that is open, or an amount that is not positive.
        """
        if order.order_id in self.floor.accounts[order.account].open_orders or amount <= 0:
            raise ValueError(f"order {order.order_id} must be closed and the amount above 0")
        trade = self.floor.execute_closed(order, amount, now_ms)
        self.floor.commit(now_ms)
        return trade.trade_id

    # --- protection ----------------------------------------------------------------------------

    def trip_protection(self, account_id: str, index_name: str, now_ms: int) -> None:
        """Let market maker protection fire now. ValueError where none is configured."""
        account = self.floor.account(account_id, now_ms)
        if index_name not in account.protections:
            raise ValueError(f"{account_id} has no protection on {index_name}")
        self.floor.trip(account, index_name, now_ms)
        self.floor.commit(now_ms)

    def set_protection(self, account_id: str, config: ProtectionConfig, now_ms: int) -> None:
        """Set (and so reset) market maker protection on an index; interval 0 removes it."""
        protections = self.floor.account(account_id, now_ms).protections
        protections.pop(config.index_name, None)
        if config.interval:
            protections[config.index_name] = Protection(config)

    # --- rules ---------------------------------------------------------------------------------

    def _open_for_entry(self, name: str) -> Listing:
        listing = self.floor.listing(name)
        if listing.state is not InstrumentState.OPEN:
            raise Refused(ENTRY_REFUSED[listing.state])
        if listing.instrument.price_index in self.floor.locked_indices:
            raise Refused(Refuse.LOCKED)
        return listing

    def _own_open_order(self, account_id: str, order_id: str, now_ms: int) -> tuple[Account, Order]:
        account = self.floor.account(account_id, now_ms)
        order = account.open_orders.get(order_id)
        if order is not None:
            return account, order
        closed = account.closed_orders.get(order_id)
        if closed is not None:
            raise Refused(Refuse.ALREADY_FILLED if closed.state is OrderState.FILLED else Refuse.ALREADY_CLOSED)
        if any(other.order(order_id) is not None for other in self.floor.accounts.values()):
            raise Refused(Refuse.NOT_OWNER)
        raise Refused(Refuse.ORDER_NOT_FOUND)

    def _entry_price(self, listing: Listing, new: NewOrder) -> Decimal:
        """The limit an order works with; market orders work with the price band."""
        if new.order_type is OrderType.LIMIT:
            if new.price is None:
                raise Refused(Refuse.INVALID_PRICE)
            _check_price(listing, new.direction, new.price)
            return new.price
        best = listing.book.other(new.direction).best()
        if new.order_type is OrderType.MARKET_LIMIT:
            if best is None:
                raise Refused(Refuse.OTHER_REJECT, "no_liquidity")
            return best
        reference = listing.reference
        if reference is None:
            worst = next(reversed(list(listing.book.other(new.direction).best_first())), None)
            return worst if worst is not None else listing.instrument.tick_size
        return reference.max_price if new.direction is Direction.BUY else reference.min_price

    def _reducing_amount(self, account: Account, new: NewOrder) -> Decimal:
        position = account.positions.get(new.instrument_name)
        size = -contracts.signed(new.direction, position.size) if position is not None else ZERO
        if size <= 0:
            raise Refused(Refuse.OTHER_REJECT, "reduce_only_without_position")
        return min(new.amount, size)

    def _check_protection(self, account: Account, listing: Listing, now_ms: int) -> None:
        if not account.mmp_enabled:
            raise Refused(Refuse.MMP_REQUIRED)
        protection = account.protections.get(listing.instrument.price_index)
        if protection is not None and protection.is_frozen(now_ms):
            raise Refused(Refuse.MMP_FROZEN)

    def _check_quoted(
        self,
        account: Account,
        listing: Listing,
        direction: Direction,
        amount: Decimal,
        price: Decimal,
        instead_of: Order | None,
    ) -> None:
        """Refuse what would take the open protected size of one side of an instrument over max_quote_quantity."""
        protection = account.protections.get(listing.instrument.price_index)
        most = protection.max_quote_quantity if protection is not None else None
        if most is None:
            return
        size = contracts.coins(listing.instrument, amount, price)
        for order in account.orders_on(listing.instrument.instrument_name):
            if order.mmp and order.direction is direction and order is not instead_of:
                size += contracts.coins(listing.instrument, order.remaining, order.price)
        if float(size) > most + 1e-12:
            raise Refused(Refuse.OTHER_REJECT, "max_quote_quantity")

    def _check_own(
        self, listing: Listing, account: Account, direction: Direction, amount: Decimal, price: Decimal
    ) -> None:
        """Refuse an order that would reach a resting one of the same account, where the account wants that."""
        if account.self_trading is not SelfTrading.REJECT_TAKER:
            return
        for entry in self.floor.entries(listing, direction, price):
            if amount <= 0:
                return
            if isinstance(entry, Order):
                if entry.account == account.account_id:
                    raise Refused(Refuse.ORDER_OVERLAP)
                amount -= entry.remaining
            else:
                amount -= entry.amount

    def _fillable(self, listing: Listing, order: Order) -> Decimal:
        total = ZERO
        account = self.floor.accounts[order.account]
        for entry in self.floor.entries(listing, order.direction, order.price):
            if not isinstance(entry, Order):
                total += entry.amount
            elif entry.account != order.account or account.self_trading is SelfTrading.ALLOW:
                total += min(entry.remaining, self.floor.reducible(entry)) if entry.reduce_only else entry.remaining
        return total


def _check_amount(instrument: SandboxInstrument, amount: Decimal) -> None:
    if amount < instrument.min_trade_amount:
        raise Refused(Refuse.QTY_TOO_LOW)
    if amount % contracts.amount_step(instrument):
        future = not contracts.is_option(instrument)
        raise Refused(Refuse.NOT_WHOLE_CONTRACTS if future else Refuse.INVALID_AMOUNT)


def _check_price(listing: Listing, direction: Direction, price: Decimal) -> None:
    """The tick, and the side of the price band that would cost its sender money."""
    if price <= 0:
        raise Refused(Refuse.INVALID_PRICE)
    if not contracts.is_on_tick(listing.instrument, price):
        raise Refused(Refuse.WRONG_TICK)
    reference = listing.reference
    if reference is None:
        return
    if direction is Direction.BUY and reference.max_price and price > reference.max_price:
        raise Refused(Refuse.PRICE_TOO_HIGH, str(reference.max_price))
    if direction is Direction.SELL and price < reference.min_price:
        raise Refused(Refuse.PRICE_TOO_LOW, str(reference.min_price))


def _would_take(listing: Listing, direction: Direction, price: Decimal) -> bool:
    side = listing.book.other(direction)
    best = side.best()
    return best is not None and side.reached_by(price, best)


def _post_only_price(listing: Listing, direction: Direction, price: Decimal, *, reject: bool) -> Decimal:
    """The price at which a post-only order may rest: its own, or one tick away from the other side's best."""
    if not _would_take(listing, direction, price):
        return price
    if reject:
        raise Refused(Refuse.POST_ONLY_REJECT)
    best = listing.book.other(direction).best()
    assert best is not None  # it would take: there is something to take
    if direction is Direction.SELL:
        return contracts.next_above(listing.instrument, best)
    lower = contracts.next_below(listing.instrument, best)
    if lower <= 0:
        raise Refused(Refuse.NO_ROOM_TO_SLIDE)
    return lower
