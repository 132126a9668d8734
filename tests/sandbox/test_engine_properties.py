"""What holds after any sequence of operations: nothing is lost, nothing crosses, deltas rebuild the book."""

from decimal import Decimal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from static_market import OPTION, PERP, START_MS, D, make_engine

from mmd.sandbox.book import BookChanged
from mmd.sandbox.model import Direction
from mmd.sandbox.notices import AccountChanged, TradesPrinted
from mmd.sandbox.orders import NewOrder, OrderChange, OrderState, Refused, SelfTrading, TimeInForce

ACCOUNTS = st.sampled_from(["a", "b", "c"])
DIRECTIONS = st.sampled_from(list(Direction))
PRICES = st.integers(-8, 8).map(lambda ticks: D("80000") + ticks * D("0.5"))
AMOUNTS = st.integers(1, 60).map(lambda contracts: D(10 * contracts))
LEVELS = st.dictionaries(PRICES, st.integers(0, 60).map(lambda contracts: D(10 * contracts)), max_size=4)


class Trading(RuleBasedStateMachine):
    """Three accounts and an anonymous crowd on one book."""

    @initialize(bump=st.sampled_from([0, 5]))
    def begin(self, bump):
        self.engine = make_engine(speed_bump_ms=bump)
        self.now = START_MS
        self.ids: list[tuple[str, str]] = []
        self.limits: dict[str, tuple[Direction, Decimal]] = {}
        book = self.engine.floor.listing(PERP).book
        self.mirror = {"bids": dict(book.bids.shown_levels()), "asks": dict(book.asks.shown_levels())}
        self.change_id = book.change_id
        self.printed = Decimal(0)
        self.engine.floor.account("c", self.now).self_trading = SelfTrading.CANCEL_MAKER

    @rule(
        account=ACCOUNTS,
        direction=DIRECTIONS,
        price=PRICES,
        amount=AMOUNTS,
        tif=st.sampled_from(list(TimeInForce)),
        post_only=st.booleans(),
        reject=st.booleans(),
        reduce_only=st.booleans(),
    )
    def place(self, account, direction, price, amount, tif, post_only, reject, reduce_only):
        new = NewOrder(
            account=account,
            instrument_name=PERP,
            direction=direction,
            amount=amount,
            price=price,
            time_in_force=tif,
            post_only=post_only,
            reject_post_only=post_only and reject,
            reduce_only=reduce_only,
        )
        try:
            order = self.engine.place(new, self.now).order
        except Refused:
            return
        self.ids.append((account, order.order_id))
        self.limits[order.order_id] = (direction, order.price)
        if post_only:
            assert not order.filled

    @rule(data=st.data(), price=st.none() | PRICES, amount=st.none() | AMOUNTS)
    def edit(self, data, price, amount):
        open_ids = [
            (name, order_id) for name, account in self.engine.floor.accounts.items() for order_id in account.open_orders
        ]
        if open_ids:
            account, order_id = data.draw(st.sampled_from(open_ids))
            try:
                order = self.engine.edit(account, order_id, OrderChange(price=price, amount=amount), self.now).order
            except Refused:
                return
            self.limits[order_id] = (order.direction, order.price)

    @rule(data=st.data())
    def cancel(self, data):
        if self.ids:
            account, order_id = data.draw(st.sampled_from(self.ids))
            try:
                self.engine.cancel(account, order_id, self.now)
            except Refused:
                pass

    @rule(bids=LEVELS, asks=LEVELS, snapshot=st.booleans())
    def crowd_quotes(self, bids, asks, snapshot):
        self.engine.set_levels(PERP, bids, asks, self.now, snapshot=snapshot)

    @rule(direction=DIRECTIONS, amount=AMOUNTS, limit=PRICES)
    def crowd_takes(self, direction, amount, limit):
        for trade in self.engine.take(PERP, direction, amount, limit, self.now):
            assert trade.price <= limit if direction is Direction.BUY else trade.price >= limit

    @rule(milliseconds=st.integers(1, 7))
    def time_passes(self, milliseconds):
        self.now += milliseconds
        self.engine.release(self.now)

    # --- what must hold ------------------------------------------------------------------------

    @invariant()
    def notices_tell_the_truth(self):
        for notice in self.engine.drain():
            match notice:
                case BookChanged():
                    assert notice.prev_change_id == self.change_id < notice.change_id
                    self.change_id = notice.change_id
                    self.apply("bids", notice.bids)
                    self.apply("asks", notice.asks)
                case TradesPrinted(_, prints):
                    self.printed += sum(entry.trade.amount for entry in prints)
                case AccountChanged():
                    for fill in notice.trades:
                        direction, limit = self.limits.get(fill.order_id, (fill.direction, fill.price))
                        assert fill.price <= limit if direction is Direction.BUY else fill.price >= limit
        book = self.engine.floor.listing(PERP).book
        assert self.mirror == {"bids": dict(book.bids.shown_levels()), "asks": dict(book.asks.shown_levels())}

    def apply(self, side, changes):
        levels = self.mirror[side]
        for action, price, amount in ((row.action, row.price, row.amount) for row in changes):
            assert (price in levels) == (action != "new")
            assert (amount == 0) == (action == "delete")
            if amount:
                levels[price] = amount
            else:
                del levels[price]

    @invariant()
    def nothing_is_lost(self):
        floor = self.engine.floor
        sizes = [account.positions[PERP].size for account in floor.accounts.values() if PERP in account.positions]
        assert sum(sizes, Decimal(0)) + floor.listing(PERP).anonymous_position == 0
        for account in floor.accounts.values():
            filled = {order.order_id: order.filled for order in account.open_orders.values()}
            filled |= {order.order_id: order.filled for order in account.closed_orders.values()}
            for trade in account.trades:
                filled[trade.order_id] -= trade.amount
            assert not any(filled.values())

    @invariant()
    def never_crossed(self):
        bid, ask = self.engine.touch(PERP)
        assert bid is None or ask is None or bid < ask

    @invariant()
    def levels_are_the_sum_of_their_queue(self):
        book = self.engine.floor.listing(PERP).book
        resting = {}
        for side in (book.bids, book.asks):
            assert side.prices == sorted(side.levels)
            for level in side.levels.values():
                crowd = sum((entry.amount for entry in level.queue if not hasattr(entry, "order_id")), Decimal(0))
                orders = [entry for entry in level.queue if hasattr(entry, "order_id")]
                assert level.anonymous == crowd
                assert level.total == crowd + sum((order.remaining for order in orders), Decimal(0))
                assert level.total > 0
                resting |= {order.order_id: order for order in orders}
        opened = {
            order_id
            for account in self.engine.floor.accounts.values()
            for order_id, order in account.open_orders.items()
            if order.state is OrderState.OPEN
        }
        assert set(resting) == opened

    @invariant()
    def nobody_else_is_touched(self):
        assert self.engine.floor.listing(OPTION).anonymous_position == 0


Trading.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestTrading = Trading.TestCase
