"""Accounts: cash, positions, orders and history of one client. No margin: nothing is refused for lack of funds.

Cash works as on Deribit: option premiums and fees move at once; the profit of futures is held in the
session until the daily settlement pays it, and so is the funding of perpetuals.
"""

from collections import deque
from collections.abc import Mapping
from decimal import Decimal

import msgspec

from mmd.sandbox import contracts
from mmd.sandbox.model import Direction, SandboxInstrument
from mmd.sandbox.orders import ZERO, Order, SelfTrading, UserTrade
from mmd.sandbox.protection import Freeze

HISTORY_ORDERS = 20_000
HISTORY_TRADES = 50_000
HISTORY_ROWS = 50_000

STARTING_BALANCES: Mapping[str, Decimal] = {
    "BTC": Decimal(100),
    "ETH": Decimal(1_000),
    "SOL": Decimal(10_000),
    "USDC": Decimal(1_000_000),
    "USDT": Decimal(1_000_000),
}


class Wallet(msgspec.Struct):
    """Cash of one currency; `session_rpl` is futures profit and funding not yet settled into the balance."""

    balance: Decimal
    session_rpl: Decimal = ZERO
    fees: Decimal = ZERO
    options_cash: Decimal = ZERO  # premiums received minus paid, payoffs included


class Position(msgspec.Struct):
    """A signed size in the amount unit. `session_price` is the average price since the last settlement."""

    size: Decimal = ZERO
    average_price: Decimal = ZERO
    session_price: Decimal = ZERO
    realized: Decimal = ZERO  # of this session, in the settlement currency, without funding
    funding: Decimal = ZERO  # received (negative: paid) since it was last settled
    funding_settled: Decimal = ZERO  # received before that, ever
    profit_settled: Decimal = ZERO  # paid out as profit, without funding, ever
    fees: Decimal = ZERO  # paid, ever

    def trade(self, instrument: SandboxInstrument, direction: Direction, amount: Decimal, price: Decimal) -> Decimal:
        """Apply an execution; returns the profit it realised against the session price."""
        change = contracts.signed(direction, amount)
        gain = ZERO
        if self.size and (self.size > 0) != (change > 0):
            closed = min(abs(change), abs(self.size)).copy_sign(self.size)
            gain = contracts.profit(instrument, closed, self.session_price, price)
            self.size -= closed
            change += closed
            self.realized += gain
        if change:
            self.average_price = contracts.blend(instrument, self.size, self.average_price, change, price)
            self.session_price = contracts.blend(instrument, self.size, self.session_price, change, price)
            self.size += change
        if not self.size:
            self.average_price = self.session_price = ZERO
        return gain


class LedgerRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the transaction log. `change` is what it did to the balance.

    `interest_pl` is funding; every bit of it stands on exactly one row (type settlement), so that
    a sum over rows counts nothing twice. `total_interest_pl` is the session's running total. `average_price`: of
    what was held, not on trades.
    """

    row_id: int
    user_seq: int
    timestamp: int
    kind: str  # trade, delivery, settlement
    currency: str
    instrument_name: str
    side: str
    amount: Decimal
    price: Decimal
    position: Decimal
    change: Decimal
    cashflow: Decimal
    commission: Decimal
    balance: Decimal
    mark_price: Decimal
    index_price: Decimal
    trade_id: str = ""
    order_id: str = ""
    user_role: str = ""  # maker or taker, trades only
    interest_pl: Decimal = ZERO
    total_interest_pl: Decimal = ZERO
    session_rpl: Decimal = ZERO
    session_upl: Decimal = ZERO
    profit_as_cashflow: bool = False
    average_price: Decimal = ZERO


class Account:
    """Everything of one client."""

    def __init__(self, account_id: str, user_id: int, balances: Mapping[str, Decimal], created_ms: int) -> None:
        self.account_id = account_id
        self.user_id = user_id
        self.created_ms = created_ms
        self.wallets: dict[str, Wallet] = {name: Wallet(balance) for name, balance in balances.items()}
        self.positions: dict[str, Position] = {}
        self.open_orders: dict[str, Order] = {}
        self.closed_orders: dict[str, Order] = {}
        self.trades: deque[UserTrade] = deque(maxlen=HISTORY_TRADES)
        self.ledger: deque[LedgerRow] = deque(maxlen=HISTORY_ROWS)
        self.self_trading = SelfTrading.REJECT_TAKER
        self.self_trading_extended = False
        self.protections: dict[str, Freeze] = {}
        self.cancel_on_disconnect = False  # of connections opened from now on
        self.mmp_enabled = True
        """Whether the exchange has granted this account market maker protection."""
        self.reported_drift: dict[str, Decimal] = {}
        """What position reports are off by; a fault, the positions themselves are right."""
        self._rows = 0

    def wallet(self, currency: str) -> Wallet:
        found = self.wallets.get(currency)
        if found is None:
            found = self.wallets[currency] = Wallet(ZERO)
        return found

    def position(self, instrument_name: str) -> Position:
        found = self.positions.get(instrument_name)
        if found is None:
            found = self.positions[instrument_name] = Position()
        return found

    def reported_size(self, instrument_name: str) -> Decimal:
        """The size of a position as reports show it: with the drift that a test may have put on it."""
        position = self.positions.get(instrument_name)
        drift = self.reported_drift.get(instrument_name, ZERO)
        return (position.size if position is not None else ZERO) + drift

    def order(self, order_id: str) -> Order | None:
        return self.open_orders.get(order_id) or self.closed_orders.get(order_id)

    def orders_on(self, instrument_name: str) -> list[Order]:
        return [order for order in self.open_orders.values() if order.instrument_name == instrument_name]

    def close(self, order: Order) -> None:
        """Move an order to the history."""
        self.open_orders.pop(order.order_id, None)
        self.closed_orders[order.order_id] = order
        if len(self.closed_orders) > HISTORY_ORDERS:
            del self.closed_orders[next(iter(self.closed_orders))]

    def forget(self, names: frozenset[str]) -> None:
        """Drop these instruments from the histories."""
        for order_id in [key for key, order in self.closed_orders.items() if order.instrument_name in names]:
            del self.closed_orders[order_id]
        self.trades = deque((row for row in self.trades if row.instrument_name not in names), self.trades.maxlen)
        self.ledger = deque((row for row in self.ledger if row.instrument_name not in names), self.ledger.maxlen)

    def next_user_seq(self) -> int:
        """Number of the next row of the transaction log, from 1."""
        self._rows += 1
        return self._rows

    def record(self, trade: UserTrade, instrument: SandboxInstrument, row_id: int) -> None:
        """Book an execution: cash, trade list, ledger. The position has moved before."""
        wallet = self.wallet(instrument.settlement_currency)
        position = self.position(instrument.instrument_name)
        cashflow = ZERO
        if contracts.is_option(instrument):
            cashflow = -contracts.signed(trade.direction, trade.amount) * trade.price
            wallet.balance += cashflow
            wallet.options_cash += cashflow
        else:
            wallet.session_rpl += trade.profit_loss
        wallet.balance -= trade.fee
        wallet.fees += trade.fee
        position.fees += trade.fee
        self.trades.append(trade)
        self.ledger.append(
            LedgerRow(
                row_id=row_id,
                user_seq=self.next_user_seq(),
                timestamp=trade.timestamp,
                kind="trade",
                currency=instrument.settlement_currency,
                instrument_name=trade.instrument_name,
                side=f"{_opening(position.size, trade)} {trade.direction}",
                amount=trade.amount,
                price=trade.price,
                position=position.size,
                change=cashflow - trade.fee,
                cashflow=cashflow,
                commission=trade.fee,
                balance=wallet.balance,
                mark_price=trade.mark_price,
                index_price=trade.index_price,
                trade_id=trade.trade_id,
                order_id=trade.order_id,
                user_role="maker" if trade.maker else "taker",
                total_interest_pl=position.funding,
                session_rpl=position.realized,
                session_upl=contracts.profit(instrument, position.size, position.session_price, trade.mark_price),
            )
        )


def _opening(size_after: Decimal, trade: UserTrade) -> str:
    before = size_after - contracts.signed(trade.direction, trade.amount)
    return "open" if abs(size_after) > abs(before) else "close"
