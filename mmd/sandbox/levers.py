"""Levers: everything a scripted provocation can do to the exchange, and what a judge may ask it. `Sandbox.levers`.

Call them from the sandbox's own thread while it runs. Amounts and prices are in the exchange's own
units, `instrument` is its name there, `account` the client id that logged in. Levers that arm something
count down requests or fills in the order in which they come; `count` None means until `disarm`.
What the exchange's clients see follows at once: every lever publishes what it did.
"""

import copy
from decimal import Decimal

import trio

from mmd.sandbox import funding
from mmd.sandbox.faults import FillFault, Methods
from mmd.sandbox.market_levers import MarketLevers
from mmd.sandbox.model import Direction, InstrumentState
from mmd.sandbox.notices import AccountChanged
from mmd.sandbox.orders import (
    CancelReason,
    NewOrder,
    Order,
    OrderState,
    OrderType,
    Placed,
    SelfTrading,
    TimeInForce,
    UserTrade,
)

ORDERS: Methods = ("private/buy", "private/sell", "private/order")
ORDERS_AND_EDITS: Methods = (*ORDERS, "private/edit", "private/replace")
CANCELS: Methods = "private/cancel"  # and all that begin so: cancel_by_label, cancel_all, ...
LOGINS: Methods = ("public/auth", "public/login")
AGGRESSOR = "aggressor"
HOUR_MS = 3_600_000


class Levers(MarketLevers):
    """ValueError for what cannot be done now; Refused for an unknown instrument or an order the engine refuses."""

    # Errors by which levers refuse where the test names none, as Deribit has them: code and message.
    ORDER_REFUSED = (11030, "other_reject")
    CANCEL_REFUSED = (10012, "book_closed")
    CANCEL_MISSED = (10004, "order_not_found")

    # --- clock ---------------------------------------------------------------------------------

    def shift_clock(self, milliseconds: int) -> None:
        """Let the exchange's clock be so far ahead of ours (negative: behind; 0: right again).

        Every time it tells moves: usIn and usOut, public/get_time, timestamps of books, orders and trades.
        """
        self._panel.engine.accrue_funding(self._panel.now_ms)
        difference = milliseconds - self._panel.clock.offset_ms
        self._panel.clock.shift(milliseconds)
        for listing in self._panel.engine.floor.perpetuals:
            if listing.accrued_ms is not None:
                listing.accrued_ms += difference  # a wrong clock costs nobody funding

    # --- instruments and platform --------------------------------------------------------------

    def set_state(self, instrument: str, state: InstrumentState) -> None:
        """Any state; told on instrument.state.*, shown in the ticker. SETTLEMENT and later ones cancel orders."""
        self._panel.engine.set_state(instrument, state, self._panel.now_ms)
        self._panel.publish()

    def halt(self, instrument: str) -> None:
        """State halted: orders, edits and cancels are refused (10012); resting orders stay."""
        self.set_state(instrument, InstrumentState.HALTED)

    def lock(self, instrument: str) -> None:
        """State locked: orders and edits are refused (10019), cancels pass; resting orders stay."""
        self.set_state(instrument, InstrumentState.LOCKED)

    def reopen(self, instrument: str) -> None:
        """State open again, after `halt` or `lock`."""
        self.set_state(instrument, InstrumentState.OPEN)

    def lock_platform(self, index_name: str | None = None) -> None:
        """Lock trading on an index (None: on all): orders and edits are refused with 10019, cancels pass.

        Told on platform_state and public/status, not on instrument.state.
        """
        self._lock_platform(index_name, locked=True)

    def unlock_platform(self, index_name: str | None = None) -> None:
        """End `lock_platform`."""
        self._lock_platform(index_name, locked=False)

    def _lock_platform(self, index_name: str | None, *, locked: bool) -> None:
        floor = self._panel.engine.floor
        for name in sorted(floor.indexes) if index_name is None else [index_name]:
            if name not in floor.indexes:
                raise ValueError(f"no index {name}; there are {', '.join(sorted(floor.indexes))}")
            if locked:
                floor.locked_indices.add(name)
            else:
                floor.locked_indices.discard(name)
            self._panel.publisher.broadcast("platform_state", {"price_index": name, "locked": locked})

    def begin_maintenance(self) -> None:
        """Announce maintenance on platform_state and answer every call with 11051. Links stay up: see `cut`."""
        self._panel.publisher.broadcast("platform_state", {"maintenance": True})
        self._panel.faults.maintenance = True

    def end_maintenance(self) -> None:
        """Answer again."""
        self._panel.faults.maintenance = False

    def expire(self, instrument: str, price: Decimal | None = None) -> None:
        """Expiry now: orders are cancelled, positions end in cash at this price of the index (None: as it stands)."""
        floor = self._panel.engine.floor
        index = floor.index_price(floor.listing(instrument).instrument.price_index)
        self._panel.deliver(instrument, index if price is None else price, self._panel.now_ms)
        self._panel.publish()

    def settle(self) -> None:
        """The daily settlement now: futures profit and funding go into balances, and into the transaction log."""
        self._panel.settle(self._panel.now_ms, daily=True)

    def pay_funding(self, instrument: str | None = None, rate: Decimal | None = None, hours: int = 8) -> None:
        """Charge `hours` of funding at this 8-hour rate (capped; None: only what has accrued) and pay it now.

        With a rate, `instrument` names the perpetual. Each position gets one row of type settlement.
        """
        engine = self._panel.engine
        if rate is not None:
            listing = engine.floor.listings.get(instrument or "")
            if listing is None or not listing.instrument.is_perpetual:
                raise ValueError(f"{instrument} is no perpetual")
            engine.floor.pay_interest(listing, funding.capped(rate), hours * HOUR_MS)
        engine.pay_funding(self._panel.now_ms)
        self._panel.publish()

    # --- answers and requests ------------------------------------------------------------------

    def lose_answers(self, count: int | None = 1, methods: Methods = ORDERS) -> None:
        """The next such requests are carried out; their answers never come."""
        self._panel.faults.lose_answers(count, methods)

    def lose_requests(self, count: int | None = 1, methods: Methods = ORDERS) -> None:
        """The next such requests never arrive, so no answer comes either."""
        self._panel.faults.lose_requests(count, methods)

    def delay_answers(self, count: int | None, milliseconds: int, methods: Methods = ORDERS_AND_EDITS) -> None:
        """The next such requests are carried out at once; their answers come so much later."""
        self._panel.faults.delay_answers(count, milliseconds, methods)

    def delay_requests(
        self, count: int | None, milliseconds: int, methods: Methods = ORDERS_AND_EDITS, *, answered: bool = True
    ) -> None:
        """The next such requests reach the engine so much later. Not `answered`: and their answers never come."""
        self._panel.faults.delay_requests(count, milliseconds, methods, answered=answered)

    def refuse_orders(
        self,
        count: int | None = 1,
        code: int | None = None,
        message: str = "",
        methods: Methods = ORDERS_AND_EDITS,
    ) -> None:
        """The next such requests are answered with this error (None: ORDER_REFUSED) and do nothing."""
        code, message = (code, message) if code is not None else self.ORDER_REFUSED
        self._panel.faults.refuse(count, code, message, methods)

    def refuse_cancels(
        self, count: int | None = None, code: int | None = None, message: str = "", methods: Methods = CANCELS
    ) -> None:
        """The next cancels (None: all) are answered with this error (None: CANCEL_REFUSED); the orders rest on."""
        code, message = (code, message) if code is not None else self.CANCEL_REFUSED
        self._panel.faults.refuse(count, code, message, methods)

    def fill_before_cancels(self, count: int | None = 1, code: int | None = None, message: str = "") -> None:
        """The orders that the next cancels mean are filled just before, so that the fill wins the race.

        private/cancel is answered with `code` (None: CANCEL_MISSED; 0: what the engine says of a filled order);
        cancels by label, instrument or currency count 0, as on the exchange.
        """
        code, message = (code, message) if code is not None else self.CANCEL_MISSED
        self._panel.faults.race(count, code, message, CANCELS)

    def cut_answers(self, count: int | None = 1, methods: Methods = ORDERS) -> None:
        """The next such requests are carried out; instead of their answers their links are cut."""
        self._panel.faults.cut_answers(count, methods)

    def repeat_answers(self, count: int | None = 1, methods: Methods = ORDERS_AND_EDITS) -> None:
        """The next such requests are answered twice."""
        self._panel.faults.repeat_answers(count, methods)

    def disarm(self) -> None:
        """Forget every armed fault of requests, fills, user channels and book messages."""
        self._panel.faults.disarm()

    # --- fills ---------------------------------------------------------------------------------

    def repeat_fills(self, count: int = 1, account: str | None = None) -> None:
        """The next fills are told twice on every user channel, with the same trade id; queries show them once."""
        self._panel.faults.fault_fills(FillFault.REPEAT, count, account)

    def delay_fills(self, count: int, milliseconds: int, account: str | None = None) -> None:
        """The next fills are told so much later on user channels; queries and the books know them at once."""
        self._panel.faults.fault_fills(FillFault.DELAY, count, account, milliseconds)

    def lose_fills(self, count: int = 1, account: str | None = None) -> None:
        """The next fills are never told on user channels; queries show them."""
        self._panel.faults.fault_fills(FillFault.LOSE, count, account)

    def split_fills(self, count: int, milliseconds: int, account: str | None = None) -> None:
        """Of the next fills the orders are told at once, filled, and the trades so much later; queries know both."""
        self._panel.faults.fault_fills(FillFault.SPLIT, count, account, milliseconds)

    def tell_orders_late(self, count: int, milliseconds: int, account: str | None = None) -> None:
        """The other way round: of the next fills the trades are told at once, and the orders so much later."""
        self._panel.faults.fault_fills(FillFault.ORDERS_LATE, count, account, milliseconds)

    def list_trades_late(self, milliseconds: int) -> None:
        """Queries list executions only so long after they happened (0: at once); orders and positions show them."""
        self._panel.engine.floor.trade_lag_ms = milliseconds

    def fault_news(self, fault: FillFault, count: int, milliseconds: int = 0, account: str | None = None) -> None:
        """The same faults for whatever is told next on user channels, fill or not: a cancel, an edit, a closing."""
        self._panel.faults.fault_news(fault, count, account, milliseconds)

    def repeat_fill(self, account: str, trade_id: str | None = None) -> str:
        """Tell a fill again that was told before (None: the last one). Returns its trade id."""
        for trade in reversed(self._account(account).trades):
            if trade_id in (None, trade.trade_id):
                change = AccountChanged(account, trade.instrument_name, (), (trade,), position_changed=True)
                self._panel.publisher.publish([change], self._panel.now_ms)
                return trade.trade_id
        raise ValueError(f"{account} has no trade {trade_id or 'at all'}")

    def fill_closed_order(self, account: str, order_id: str, amount: Decimal) -> str:
        """A fill of an order that was closed long ago turns up: true, told, and in the position. Returns its id."""
        order = self._account(account).closed_orders.get(order_id)
        if order is None:
            raise ValueError(f"{account} has no closed order {order_id}")
        trade_id = self._panel.engine.fill_closed(order, amount, self._panel.now_ms)
        self._panel.publish()
        return trade_id

    def fill_order(self, account: str, order_id: str, amount: Decimal | None = None) -> str:
        """Somebody trades with this resting order (None: all of it), whatever stands before it. The trade id."""
        order = self._account(account).open_orders.get(order_id)
        if order is None:
            raise ValueError(f"{account} has no open order {order_id}")
        trade_id = self._panel.engine.hit(order, amount, self._panel.now_ms)
        self._panel.publish()
        return trade_id

    def fill_quote(self, account: str, instrument: str, side: Direction, amount: Decimal | None = None) -> str:
        """The same for the account's best resting order of this side (BUY: its bid)."""
        orders = [order for order in self._account(account).orders_on(instrument) if order.direction is side]
        if not orders:
            raise ValueError(f"{account} has no {side} order on {instrument}")
        best = (max if side is Direction.BUY else min)(orders, key=lambda order: order.price)
        return self.fill_order(account, best.order_id, amount)

    def take(
        self, instrument: str, side: Direction, amount: Decimal, *, times: int = 1, account: str = AGGRESSOR
    ) -> list[UserTrade]:
        """Another account buys or sells so much at market, `times` times at once; no speed bump. Its executions."""
        trades: list[UserTrade] = []
        self._panel.want(instrument)
        for _ in range(times):
            new = NewOrder(
                account=account,
                instrument_name=instrument,
                direction=side,
                amount=amount,
                order_type=OrderType.MARKET,
                time_in_force=TimeInForce.IMMEDIATE_OR_CANCEL,
            )
            trades += self._panel.engine.place(new, self._panel.now_ms, bumped=False).trades
        self._panel.publish()
        return trades

    # --- the account from behind ---------------------------------------------------------------

    def foreign_order(
        self,
        account: str,
        instrument: str,
        side: Direction,
        amount: Decimal,
        price: Decimal,
        label: str = "",
        *,
        post_only: bool = False,
        mmp: bool = False,
    ) -> Order:
        """Somebody else places an order on this account, over a connection of his own, with any label."""
        self._panel.want(instrument)
        new = NewOrder(
            account=account,
            instrument_name=instrument,
            direction=side,
            amount=amount,
            price=price,
            label=label,
            post_only=post_only,
            mmp=mmp,
        )
        placed: Placed = self._panel.engine.place(new, self._panel.now_ms, bumped=False)
        self._panel.publish()
        return copy.copy(placed.order)

    def drift_position(self, account: str, instrument: str, amount: Decimal) -> None:
        """Let every report of this position be off by so much (0: right again); the position itself is not moved.

        Reported by queries from now on, and told once on user.changes.
        """
        self._panel.engine.floor.listing(instrument)
        found = self._account(account)
        found.reported_drift.pop(instrument, None)
        if amount:
            found.reported_drift[instrument] = amount
        change = AccountChanged(account, instrument, (), (), position_changed=True)
        self._panel.publisher.publish([change], self._panel.now_ms)

    def allow_self_trades(self, account: str, mode: SelfTrading = SelfTrading.ALLOW) -> None:
        """Switch self-trade prevention: ALLOW lets two orders of the account trade, both sides with one trade id."""
        self._account(account).self_trading = mode

    def self_trade(self, account: str, instrument: str, side: Direction, amount: Decimal) -> list[UserTrade]:
        """The account takes from the book itself, at market, its own orders included. Its executions, both sides.

        `side` is the taker's: SELL meets the account's bids, as far as they stand best.
        """
        found = self._account(account)
        mode, found.self_trading = found.self_trading, SelfTrading.ALLOW
        before = len(found.trades)
        try:
            self.take(instrument, side, amount, account=account)
        finally:
            found.self_trading = mode
        return list(found.trades)[before:]

    def trip_protection(self, account: str, index_name: str) -> None:
        """Market maker protection fires now: its orders are cancelled, the freeze begins, user.mmp_trigger tells."""
        self._panel.engine.trip_protection(account, index_name, self._panel.now_ms)
        self._panel.publish()

    def grant_protection(self, account: str, granted: bool) -> None:
        """Give an account the right to market maker protection, or take it: 13040 for its methods and mmp orders."""
        self._account(account).mmp_enabled = granted

    # --- connections ---------------------------------------------------------------------------

    def cut(self, account: str | None = None) -> int:
        """Cut the connections of an account (None: all) now, without goodbye. Returns how many there were."""
        return self._panel.faults.disconnect(account)

    def cut_repeatedly(self, times: int, every_seconds: float, account: str | None = None) -> None:
        """Cut now and again, `times` times in all."""
        self.cut(account)
        for turn in range(1, times):
            self._panel.later(turn * every_seconds, lambda: self.cut(account))

    def cut_logins(self, count: int) -> None:
        """The next connections that log in are cut instead of being answered."""
        self._panel.faults.cut_answers(count, LOGINS)

    def lose_orders(self, *, told: bool, forget: bool = False) -> int:
        """The matching engine falls over and is back at once: connections stand, and no open order has survived.

        `told`: on user channels, as cancelled. Queries show cancelled orders or, with `forget`, none. Positions and
        trades survive. Returns how many orders were lost.
        """
        floor, now_ms = self._panel.engine.floor, self._panel.now_ms
        self._panel.publish()
        lost = [order for account in floor.accounts.values() for order in account.open_orders.values()]
        for order in lost:
            floor.close(order, OrderState.CANCELLED, CancelReason.NONE, now_ms)
            if forget:
                del floor.accounts[order.account].closed_orders[order.order_id]
        floor.commit(now_ms)
        notices = self._panel.engine.drain()
        self._panel.publisher.publish([row for row in notices if told or not isinstance(row, AccountChanged)], now_ms)
        return len(lost)

    def restart(self, seconds: float, *, forget: bool = False) -> int:
        """The exchange falls over and is back after so long: `lose_orders` without a word, and connections are cut."""
        self.refuse_connections(seconds)
        lost = self.lose_orders(told=False, forget=forget)
        self.cut()
        return lost

    def refuse_connections(self, seconds: float | None = None) -> None:
        """Drop every new connection at once, for so long (None: until `accept_connections`). Standing ones stay."""
        until = float("inf") if seconds is None else trio.current_time() + seconds
        self._panel.server.refused_until = until

    def accept_connections(self) -> None:
        """End `refuse_connections`."""
        self._panel.server.refused_until = 0.0

    def stall_connections(self, account: str | None = None) -> int:
        """Half-open: connections stand, nothing passes in either direction, heartbeats included. New ones work.

        Returns how many. The exchange closes a stalled link that owes it a heartbeat, as it would any.
        """
        return self._panel.server.stall(account)

    def resume_connections(self, account: str | None = None) -> int:
        """End `stall_connections`: what was sent meanwhile arrives, both ways. Returns how many."""
        return self._panel.server.resume(account)
