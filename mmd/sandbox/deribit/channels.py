"""Deribit's subscription channels: what a notice does to each, what it sends."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from mmd.sandbox import contracts
from mmd.sandbox.book import BookChanged
from mmd.sandbox.channels import Channel, RowsChannel, Topic
from mmd.sandbox.deribit import render
from mmd.sandbox.deribit.render_account import order_json, portfolio_json, position_json, user_trade_json
from mmd.sandbox.floor import Floor
from mmd.sandbox.listing import Listing
from mmd.sandbox.notices import (
    AccountChanged,
    InstrumentCreated,
    Notice,
    ProtectionTriggered,
    StateChanged,
    TradesPrinted,
)

# By price: whether the subscribers know the level, and its new total.
Pending = dict[Decimal, tuple[bool, Decimal]]


class BookChannel(Channel):
    """`book.{i}.{interval}`: a snapshot, then numbered changes; batches merge what happened to a level."""

    is_book = True

    def __init__(self, name: str, floor: Floor, listing: Listing, interval_ms: int) -> None:
        instrument = listing.instrument.instrument_name
        super().__init__(name, floor, [("book", instrument)], interval_ms)
        self.instrument_name = instrument
        self._listing = listing
        self._sent_id = self._noted_id = listing.book.change_id
        self._noted_ms = 0
        self._bids: Pending = {}
        self._asks: Pending = {}

    def first(self, now_ms: int) -> list[Any]:
        return [render.snapshot_json(self._listing)]

    def note(self, notice: Notice) -> None:
        assert isinstance(notice, BookChanged)
        if notice.change_id <= self._noted_id:
            return  # from before there was this channel: it is in the snapshot
        self._noted_id, self._noted_ms = notice.change_id, notice.timestamp
        for pending, changes in ((self._bids, notice.bids), (self._asks, notice.asks)):
            for change in changes:
                existed = pending[change.price][0] if change.price in pending else change.action != "new"
                pending[change.price] = (existed, change.amount)

    def take(self, now_ms: int) -> list[Any]:
        """As of the last notice, not as the book is now: later changes come with notices of their own."""
        if self._noted_id == self._sent_id:
            return []
        data = {
            "type": "change",
            "timestamp": self._noted_ms,
            "instrument_name": self.instrument_name,
            "prev_change_id": self._sent_id,
            "change_id": self._noted_id,
            "bids": _level_changes(self._bids),
            "asks": _level_changes(self._asks),
        }
        self._sent_id = self._noted_id
        self._bids.clear()
        self._asks.clear()
        return [data]

    def broken(self, message: Any) -> Any:
        return message | {"prev_change_id": message["prev_change_id"] + 1}


def _level_changes(pending: Pending) -> list[Any]:
    changes: list[Any] = []
    for price, (existed, total) in pending.items():
        if total:
            changes.append(("change" if existed else "new", price, total))
        elif existed:
            changes.append(("delete", price, 0.0))
    return changes


class IncrementalTicker(Channel):
    """`incremental_ticker.{i}`: all keys first, then only those that changed, at most once a second."""

    def __init__(self, name: str, floor: Floor, topics: Sequence[Topic], look: Any) -> None:
        super().__init__(name, floor, topics, 1000)
        self._look = look
        self._last: dict[str, Any] = {}

    def first(self, now_ms: int) -> list[Any]:
        data = self._look(now_ms)
        if not self.links or not self._last:
            self._last = data
        return [{"type": "snapshot"} | data]

    def take(self, now_ms: int) -> list[Any]:
        data = self._look(now_ms)
        changed = {key: value for key, value in data.items() if self._last.get(key, self) != value}
        self._last = data
        if not changed:
            return []
        always = {"instrument_name": data["instrument_name"], "timestamp": data["timestamp"]}
        return [{"type": "change"} | changed | always]


class TradesChannel(RowsChannel):
    """`trades.*`: an array of what was printed."""

    def rows(self, notice: Notice) -> list[Any]:
        assert isinstance(notice, TradesPrinted)
        listing = self.floor.listings[notice.instrument_name]
        return [render.trade_json(listing, entry) for entry in notice.prints]


class UserOrdersChannel(Channel):
    """`user.orders.*`: raw sends one object an order, batches an array."""

    is_market_data = False

    def __init__(self, name: str, floor: Floor, topics: Sequence[Topic], interval_ms: int) -> None:
        super().__init__(name, floor, topics, interval_ms)
        self._rows: dict[str, Any] = {}

    def note(self, notice: Notice) -> None:
        assert isinstance(notice, AccountChanged)
        for order in notice.orders:
            self._rows[order.order_id] = order_json(self.floor, order)

    def take(self, now_ms: int) -> list[Any]:
        rows = list(self._rows.values())
        self._rows.clear()
        if not self.interval_ms:
            return rows
        return [rows] if rows else []


class UserTradesChannel(RowsChannel):
    """`user.trades.*`: an array of own executions."""

    is_market_data = False

    def rows(self, notice: Notice) -> list[Any]:
        assert isinstance(notice, AccountChanged)
        return [user_trade_json(self.floor, trade) for trade in notice.trades]


class UserChangesChannel(Channel):
    """`user.changes.*`: orders, trades and positions of one instrument together."""

    is_market_data = False

    def __init__(self, name: str, floor: Floor, topics: Sequence[Topic], interval_ms: int) -> None:
        super().__init__(name, floor, topics, interval_ms)
        self._notices: dict[str, list[AccountChanged]] = {}

    def note(self, notice: Notice) -> None:
        assert isinstance(notice, AccountChanged)
        self._notices.setdefault(notice.instrument_name, []).append(notice)

    def take(self, now_ms: int) -> list[Any]:
        messages = []
        for name, notices in self._notices.items():
            orders = {order.order_id: order for notice in notices for order in notice.orders}
            account = self.floor.accounts[notices[0].account]
            moved = any(notice.position_changed for notice in notices)
            messages.append(
                {
                    "instrument_name": name,
                    "orders": [order_json(self.floor, order) for order in orders.values()],
                    "trades": [user_trade_json(self.floor, trade) for notice in notices for trade in notice.trades],
                    "positions": [position_json(self.floor, account, self.floor.listings[name])] if moved else [],
                }
            )
        self._notices.clear()
        return messages


class PortfolioChannel(Channel):
    """`user.portfolio.{currency}`: once a second while something in it moves; `any` sends one object a currency."""

    timed = True
    is_market_data = False

    def __init__(self, name: str, floor: Floor, account: str, currency: str) -> None:
        super().__init__(name, floor, [("wallet", account)], 1000)
        self._account = account
        self._currency = currency
        self._last: dict[str, Any] = {}

    def _rows(self) -> dict[str, Any]:
        account = self.floor.accounts[self._account]
        names = sorted(account.wallets) if self._currency == "ANY" else [self._currency]
        return {name: portfolio_json(self.floor, account, name) for name in names}

    def first(self, now_ms: int) -> list[Any]:
        return list(self._rows().values())

    def take(self, now_ms: int) -> list[Any]:
        rows = self._rows()
        changed = [row for name, row in rows.items() if self._last.get(name) != row]
        self._last = rows
        return changed


class EventChannel(Channel):
    """Passes certain notices on, rendered one by one."""

    is_market_data = False

    def __init__(self, name: str, floor: Floor, topics: Sequence[Topic], opening: Any = None) -> None:
        super().__init__(name, floor, topics, 0)
        self._rows: list[Any] = []
        self._opening = opening

    def first(self, now_ms: int) -> list[Any]:
        return [] if self._opening is None else [self._opening]

    def note(self, notice: Notice) -> None:
        match notice:
            case StateChanged():
                row: Any = {
                    "timestamp": notice.timestamp,
                    "state": notice.state,
                    "instrument_name": notice.instrument_name,
                }
            case ProtectionTriggered():
                row = {"index_name": notice.index_name, "frozen_until": notice.frozen_until}
            case InstrumentCreated(instrument):
                row = render.instrument_json(instrument, self.floor.listings[instrument.instrument_name].state)
            case _:
                return
        self._rows.append(row)

    def take(self, now_ms: int) -> list[Any]:
        rows, self._rows = self._rows, []
        return rows


def instrument_topics(listing: Listing) -> tuple[Topic, ...]:
    """The (kind, currency) pairs under which an instrument is found."""
    kind, currency = listing.instrument.kind, contracts.currency_group(listing.instrument)
    return ((kind, currency), (kind, "any"), ("any", currency), ("any", "any"))
