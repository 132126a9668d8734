"""The market's side of the engine: anonymous liquidity, reference prices, states, settlement and delivery."""

from decimal import Decimal

from mmd.sandbox import contracts
from mmd.sandbox.accounts import Account, LedgerRow, Position
from mmd.sandbox.book import Anonymous
from mmd.sandbox.floor import Floor
from mmd.sandbox.listing import IndexPrice, Listing
from mmd.sandbox.model import Direction, InstrumentState, Reference, SandboxInstrument, Trade
from mmd.sandbox.notices import CashChanged, IndexChanged, Notice, ReferenceChanged, StateChanged
from mmd.sandbox.orders import ZERO, CancelReason, OrderState, TimeInForce


class EngineVenue:
    """Implements `Venue` (mmd.sandbox.model) over a floor."""

    def __init__(self, floor: Floor) -> None:
        self.floor = floor

    def drain(self) -> list[Notice]:
        """The notices since the last call, oldest first."""
        return self.floor.drain()

    def instrument(self, name: str) -> SandboxInstrument:
        return self.floor.listing(name).instrument

    # --- anonymous liquidity -------------------------------------------------------------------

    def set_levels(
        self, name: str, bids: dict[Decimal, Decimal], asks: dict[Decimal, Decimal], now_ms: int, *, snapshot: bool
    ) -> list[Trade]:
        """Set anonymous sizes. Size that crosses account orders trades with them; stale anonymous size it

        crosses is dropped without a trade, so that the book is never crossed. Nothing happens to a closed book.
        """
        listing = self.floor.listing(name)
        if listing.state not in (InstrumentState.OPEN, InstrumentState.LOCKED):
            return []
        self.floor.mark_dirty(listing)
        book = listing.book
        grown: list[tuple[Direction, Decimal, Decimal]] = []
        for direction, wanted in ((Direction.BUY, bids), (Direction.SELL, asks)):
            side = book.side(direction)
            if snapshot:
                for price in [price for price in side.prices if price not in wanted]:
                    side.set_anonymous(price, ZERO)
            for price, amount in wanted.items():
                level = side.levels.get(price)
                if amount > (level.anonymous if level is not None else ZERO):
                    grown.append((direction, price, amount))
                else:
                    side.set_anonymous(price, amount)
        grown.sort(key=lambda entry: -entry[1] if entry[0] is Direction.BUY else entry[1])
        trades: list[Trade] = []
        for direction, price, amount in grown:
            left = self._cross(listing, direction, price, amount, trades, now_ms)
            book.side(direction).set_anonymous(price, left)
        self.floor.commit(now_ms)
        return trades

    def _cross(
        self, listing: Listing, direction: Direction, limit: Decimal, amount: Decimal, trades: list[Trade], now_ms: int
    ) -> Decimal:
        """Trade new anonymous size with the account orders in its way; returns what is left to rest."""
        side = listing.book.other(direction)
        while amount:
            price = side.best()
            if price is None or not side.reached_by(limit, price):
                break
            entry = side.levels[price].queue[0]
            if isinstance(entry, Anonymous):
                side.set_anonymous(price, ZERO)
                continue
            done, _ = self.floor.match(listing, None, direction, min(amount, entry.remaining), price, now_ms)
            trades.extend(done)
            amount -= sum((trade.amount for trade in done), ZERO)
        return amount

    def take(self, name: str, direction: Direction, amount: Decimal, limit: Decimal, now_ms: int) -> list[Trade]:
        listing = self.floor.listing(name)
        if listing.state is not InstrumentState.OPEN or listing.instrument.price_index in self.floor.locked_indices:
            return []
        trades, _ = self.floor.match(listing, None, direction, amount, limit, now_ms)
        self.floor.commit(now_ms)
        return trades

    def anonymous_levels(self, name: str) -> tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]:
        book = self.floor.listing(name).book
        bids = {price: level.anonymous for price, level in book.bids.levels.items() if level.anonymous}
        asks = {price: level.anonymous for price, level in book.asks.levels.items() if level.anonymous}
        return bids, asks

    def touch(self, name: str) -> tuple[Decimal | None, Decimal | None]:
        book = self.floor.listing(name).book
        return book.bids.best(), book.asks.best()

    # --- reference prices and states -----------------------------------------------------------

    def set_reference(self, name: str, reference: Reference, now_ms: int) -> None:
        listing = self.floor.listing(name)
        self.floor.accrue(listing, now_ms)
        if listing.settlement_price is None:
            listing.settlement_price = reference.mark_price
        listing.reference = reference
        listing.reference_ms = now_ms
        self.floor.notices.append(ReferenceChanged(name))

    def set_index(self, index_name: str, price: Decimal, now_ms: int) -> None:
        index = self.floor.indexes.get(index_name)
        if index is None:
            self.floor.indexes[index_name] = IndexPrice(price, now_ms)
        else:
            index.set(price, now_ms)
        self.floor.notices.append(IndexChanged(index_name, price, now_ms))

    def set_state(self, name: str, state: InstrumentState, now_ms: int) -> None:
        """Change an instrument's state. Settlement cancels good-til-day orders, the final states all orders."""
        listing = self.floor.listing(name)
        if listing.state is state:
            return
        listing.state = state
        if state is InstrumentState.SETTLEMENT:
            self._cancel_all_on(listing, now_ms, only_day=True)
        elif state in (InstrumentState.DELIVERED, InstrumentState.INACTIVE, InstrumentState.ARCHIVIZED):
            self._cancel_all_on(listing, now_ms, only_day=False)
        self.floor.notices.append(StateChanged(name, state, now_ms))
        self.floor.commit(now_ms)

    def _cancel_all_on(self, listing: Listing, now_ms: int, *, only_day: bool) -> None:
        for account in self.floor.accounts.values():
            for order in account.orders_on(listing.instrument.instrument_name):
                if not only_day or order.time_in_force is TimeInForce.GOOD_TIL_DAY:
                    self.floor.close(order, OrderState.CANCELLED, CancelReason.SETTLEMENT, now_ms)

    # --- settlement ----------------------------------------------------------------------------

    def accrue_funding(self, now_ms: int) -> None:
        """Bring the funding of all perpetuals up to now; it stays in the session."""
        for listing in self.floor.perpetuals:
            self.floor.accrue(listing, now_ms)

    def pay_funding(self, now_ms: int) -> None:
        """Pay what funding has accrued into the balances, one row of the log for each position; no other profit."""
        self.accrue_funding(now_ms)
        for account in self.floor.accounts.values():
            for name, position in account.positions.items():
                interest = position.funding.quantize(contracts.SATOSHI)
                if not interest:
                    continue
                listing = self.floor.listings[name]
                wallet = account.wallet(listing.instrument.settlement_currency)
                wallet.balance += interest
                wallet.session_rpl -= interest
                self._log(account, listing, position, listing.mark_price, interest, "settlement", now_ms, interest)
                position.funding -= interest  # less than a satoshi waits for the next time
                position.funding_settled += interest

    def settle(self, now_ms: int) -> None:
        """The daily settlement: futures profit and funding are paid into balances, good-til-day orders go."""
        self.accrue_funding(now_ms)
        for listing in self.floor.listings.values():
            if listing.state in (InstrumentState.OPEN, InstrumentState.LOCKED):
                listing.settlement_price = listing.mark_price
        for account in self.floor.accounts.values():
            for order in list(account.open_orders.values()):
                if order.time_in_force is TimeInForce.GOOD_TIL_DAY:
                    self.floor.close(order, OrderState.CANCELLED, CancelReason.SETTLEMENT, now_ms)
            for name, position in account.positions.items():
                listing = self.floor.listings[name]
                if not contracts.is_option(listing.instrument):
                    self._pay_session(account, listing, position, listing.mark_price, "settlement", now_ms)
        self.floor.commit(now_ms)

    def _pay_session(
        self, account: Account, listing: Listing, position: Position, price: Decimal, kind: str, now_ms: int
    ) -> None:
        """Move the session's profit of one future into the balance; its session starts anew at `price`."""
        wallet = account.wallet(listing.instrument.settlement_currency)
        floating = contracts.profit(listing.instrument, position.size, position.session_price, price)
        interest = position.funding.quantize(contracts.SATOSHI)
        gain = floating + position.realized + interest
        if not gain and not position.size:
            return
        wallet.balance += gain
        wallet.session_rpl -= position.realized + interest
        self._log(account, listing, position, price, gain, kind, now_ms, interest, position.realized, floating)
        position.realized = ZERO
        position.funding -= interest  # less than a satoshi waits for the next time
        position.funding_settled += interest
        position.profit_settled += gain - interest
        position.session_price = price if position.size else ZERO

    def deliver(self, name: str, delivery_price: Decimal, now_ms: int) -> None:
        """Expiry. A second delivery of the same instrument does nothing."""
        listing = self.floor.listing(name)
        if listing.state is InstrumentState.DELIVERED:
            return
        listing.delivery_price = delivery_price
        instrument = listing.instrument
        book = listing.book
        for side in (book.bids, book.asks):
            for price in list(side.prices):
                side.set_anonymous(price, ZERO)
        self.floor.mark_dirty(listing)
        self.set_state(name, InstrumentState.DELIVERED, now_ms)
        for account in self.floor.accounts.values():
            position = account.positions.pop(name, None)
            if position is None:
                continue
            if position.size:
                self.floor.touch_position(account.account_id, name)
            if contracts.is_option(instrument):
                cash = position.size * contracts.payoff(instrument, delivery_price)
                cash = cash.quantize(contracts.CENT_OF_A_SATOSHI)
                wallet = account.wallet(instrument.settlement_currency)
                wallet.balance += cash
                wallet.options_cash += cash
                if position.size:
                    self._log(account, listing, position, delivery_price, cash, "delivery", now_ms)
            else:
                self._pay_session(account, listing, position, delivery_price, "delivery", now_ms)
        listing.anonymous_position = ZERO
        self.floor.commit(now_ms)
        self.floor.delivered(name)

    def _log(
        self,
        account: Account,
        listing: Listing,
        position: Position,
        price: Decimal,
        cash: Decimal,
        kind: str,
        now_ms: int,
        interest: Decimal = ZERO,
        realized: Decimal = ZERO,
        floating: Decimal = ZERO,
    ) -> None:
        """Write one row of `cash` paid; its parts are `interest` (funding), `realized` and `floating` profit."""
        instrument = listing.instrument
        wallet = account.wallet(instrument.settlement_currency)
        row = LedgerRow(
            row_id=self.floor.new_row_id(),
            user_seq=account.next_user_seq(),
            timestamp=now_ms,
            kind=kind,
            currency=instrument.settlement_currency,
            instrument_name=instrument.instrument_name,
            side="long" if position.size > 0 else "short" if position.size < 0 else "-",
            amount=abs(position.size),
            price=price,
            position=ZERO if kind == "delivery" else position.size,
            change=cash,
            cashflow=cash,
            commission=ZERO,
            balance=wallet.balance,
            mark_price=listing.mark_price,
            index_price=self.floor.index_price(instrument.price_index),
            average_price=position.average_price,
            interest_pl=interest,
            total_interest_pl=interest,
            session_rpl=realized,
            session_upl=floating,
            profit_as_cashflow=True,
        )
        account.ledger.append(row)
        self.floor.notices.append(CashChanged(account.account_id))
