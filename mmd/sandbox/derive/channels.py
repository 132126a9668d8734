"""Derive's subscription channels: what a notice does to each, what it sends."""

from collections.abc import Callable, Sequence
from typing import Any

from mmd.sandbox import contracts
from mmd.sandbox.accounts import LedgerRow
from mmd.sandbox.channels import Channel, RowsChannel, Topic
from mmd.sandbox.derive import margin
from mmd.sandbox.derive.render import Json, book_json, trade_json
from mmd.sandbox.derive.render_account import order_json, user_trade_json
from mmd.sandbox.derive.rpc import plain
from mmd.sandbox.derive.tickets import Tickets
from mmd.sandbox.floor import Floor
from mmd.sandbox.listing import Listing
from mmd.sandbox.model import Direction
from mmd.sandbox.notices import AccountChanged, Notice, TradesPrinted
from mmd.sandbox.orders import ZERO

BOOK_MS = 100
QUIET_MS = 1000
UPDATE_TYPES = {"trade": "trade", "delivery": "option_settlement", "settlement": "perp_settlement"}


class BookChannel(Channel):
    """`orderbook.{i}.{group}.{depth}`: always the whole book, every 100 ms if it changed and every second if not.

    Both periods are assumed. `number` gives the next publish_id of the instrument, `late_ms` how much too old
    the book's time is.
    """

    timed = True
    is_book = True

    def __init__(
        self,
        name: str,
        floor: Floor,
        listing: Listing,
        group: int,
        depth: int,
        number: Callable[[], int],
        late_ms: Callable[[], int],
    ) -> None:
        instrument = listing.instrument.instrument_name
        super().__init__(name, floor, [("book", instrument)], BOOK_MS)
        self.instrument_name = instrument
        self._listing = listing
        self._group, self._depth = group, depth
        self._number = number
        self._late_ms = late_ms
        self._changed = False
        self._sent_ms = 0

    def first(self, now_ms: int) -> list[Any]:
        return [self._book(now_ms)]

    def note(self, notice: Notice) -> None:
        self._changed = True

    def take(self, now_ms: int) -> list[Any]:
        if not self._changed and now_ms - self._sent_ms < QUIET_MS:
            return []
        return [self._book(now_ms)]

    def _book(self, now_ms: int) -> Json:
        self._changed, self._sent_ms = False, now_ms
        return book_json(self._listing, self._group, self._depth, self._number(), now_ms - self._late_ms())

    def broken(self, message: Any) -> Any:
        """With a number that is older than the last one's."""
        return message | {"publish_id": message["publish_id"] - 2}


class TradesChannel(RowsChannel):
    """`trades.*`: what was printed."""

    def rows(self, notice: Notice) -> list[Any]:
        assert isinstance(notice, TradesPrinted)
        return [trade_json(entry) for entry in notice.prints]


class OrdersChannel(RowsChannel):
    """`{subaccount}.orders`: an order at every change."""

    is_market_data = False

    def __init__(self, name: str, floor: Floor, topics: Sequence[Topic], tickets: Tickets) -> None:
        super().__init__(name, floor, topics, 0)
        self._tickets = tickets

    def rows(self, notice: Notice) -> list[Any]:
        assert isinstance(notice, AccountChanged)
        return [order_json(self._tickets, order) for order in notice.orders]


class UserTradesChannel(RowsChannel):
    """`{subaccount}.trades`: own executions."""

    is_market_data = False

    def rows(self, notice: Notice) -> list[Any]:
        assert isinstance(notice, AccountChanged)
        return [user_trade_json(trade) for trade in notice.trades]


class BalancesChannel(RowsChannel):
    """`{subaccount}.balances`: what the rows of the ledger did to cash and positions; no snapshot."""

    is_market_data = False

    def __init__(self, name: str, floor: Floor, topics: Sequence[Topic], account: str) -> None:
        super().__init__(name, floor, topics, 0)
        self._ledger = floor.accounts[account].ledger
        self._told = self._ledger[-1].row_id if self._ledger else 0

    def rows(self, notice: Notice) -> list[Any]:
        ledger = self._floor_rows()
        return [row for entry in ledger for row in _balances(entry)]

    def _floor_rows(self) -> list[LedgerRow]:
        """Those that are not told yet, oldest first."""
        fresh: list[LedgerRow] = []
        for row in reversed(self._ledger):
            if row.row_id <= self._told:
                break
            fresh.append(row)
        if fresh:
            self._told = fresh[0].row_id
        return fresh[::-1]


def _balances(row: LedgerRow) -> list[Json]:
    told = UPDATE_TYPES[row.kind]
    rows = [_balance(margin.USDC, plain(row.balance), plain(row.balance - row.change), told)]
    before = row.position
    if row.kind == "trade":
        direction = Direction.BUY if row.side.endswith("buy") else Direction.SELL
        before -= contracts.signed(direction, row.amount)
    elif row.kind == "delivery":
        before = row.amount if row.side == "long" else -row.amount
    if before != row.position or row.kind == "delivery":
        after = ZERO if row.kind == "delivery" else row.position
        rows.append(_balance(row.instrument_name, plain(after), plain(before), told))
    return rows


def _balance(name: str, new: str, previous: str, told: str) -> Json:
    return {"name": name, "new_balance": new, "previous_balance": previous, "update_type": told}
