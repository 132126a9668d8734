"""An exchange-side peer's Deribit: enough methods for mmd's adapter and a bare script, answered at once, never a fill.

Market: inverse perpetuals, all alike, whose book shifts by one dollar at every update. The best
bid is half a dollar below the mid and the best ask half a dollar above it, `LEVELS` deep.
"""

import time
from collections.abc import Callable

import msgspec

BASE = 60_000  # the mid at the start, USD
RAMP = 100  # the mid walks up and down between BASE and BASE + RAMP, one dollar an update
LEVELS = 100
LIMITS = {"matching_engine": {"trading": {"total": {"rate": 1_000_000, "burst": 1_000_000}}}}


def symbol_name(number: int) -> str:
    """The instruments by their place in the listing."""
    return "BTC-PERPETUAL" if number == 0 else f"BTC-BENCH{number:03d}"


class Params(msgspec.Struct):
    """All parameters of the methods known here."""

    order_id: str = ""
    instrument_name: str = ""
    amount: float = 0.0
    price: float = 0.0
    label: str = ""
    channels: list[str] = []


class Request(msgspec.Struct):
    id: int
    method: str
    params: Params = msgspec.field(default_factory=Params)


decode_request = msgspec.json.Decoder(Request).decode
encode = msgspec.json.Encoder().encode


class Order(msgspec.Struct):
    order_id: str
    symbol: str
    direction: str
    label: str
    price: float
    amount: float
    state: str = "open"

    def to_json(self) -> bytes:
        """As the exchange shows it."""
        now_ms = time.time_ns() // 1_000_000
        return (
            f'{{"web":false,"triggered":false,"trigger":null,"time_in_force":"good_til_cancelled","replaced":true,'
            f'"reduce_only":false,"price":{self.price},"post_only":true,"reject_post_only":true,'
            f'"order_type":"limit","order_state":"{self.state}","order_id":"{self.order_id}","mmp":false,'
            f'"max_show":{self.amount},"last_update_timestamp":{now_ms},"label":"{self.label}",'
            f'"is_liquidation":false,"instrument_name":"{self.symbol}","filled_amount":0.0,'
            f'"direction":"{self.direction}","creation_timestamp":{now_ms},"average_price":0.0,"api":true,'
            f'"amount":{self.amount}}}'
        ).encode()


class Market:
    """One instrument: where its book stands, and the next change."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.step = 0
        self._id = 1000
        self._channel = f'{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"book.{symbol}.raw","data":'

    @property
    def mid(self) -> int:
        """A whole number of dollars."""
        return BASE + RAMP - abs(self.step % (2 * RAMP) - RAMP)

    def snapshot(self) -> bytes:
        low, high = self.mid - 0.5, self.mid + 0.5
        bids = [["new", low - level, 500.0] for level in range(LEVELS)]
        asks = [["new", high + level, 500.0] for level in range(LEVELS)]
        data = {
            "type": "snapshot",
            "timestamp": time.time_ns() // 1_000_000,
            "instrument_name": self.symbol,
            "change_id": self._id,
            "bids": bids,
            "asks": asks,
        }
        return self._channel.encode() + encode(data) + b"}}"

    def advance(self) -> bytes:
        """The change by one dollar up or down, as a message."""
        before = self.mid
        self.step += 1
        if self.mid > before:
            joined, left = before + 0.5, before - 0.5 - (LEVELS - 1)
            bids = f'[["new",{joined},500.0],["delete",{left},0.0]]'
            asks = f'[["delete",{joined},0.0],["new",{before + 0.5 + LEVELS},500.0]]'
        else:
            joined, left = before - 0.5, before + 0.5 + (LEVELS - 1)
            bids = f'[["delete",{joined},0.0],["new",{before - 0.5 - LEVELS},500.0]]'
            asks = f'[["new",{joined},500.0],["delete",{left},0.0]]'
        self._id += 1
        text = (
            f'{self._channel}{{"type":"change","timestamp":{time.time_ns() // 1_000_000},'
            f'"prev_change_id":{self._id - 1},"instrument_name":"{self.symbol}","change_id":{self._id},'
            f'"bids":{bids},"asks":{asks}}}}}}}'
        )
        return text.encode()

    def ticker(self) -> bytes:
        mark = BASE + RAMP / 2
        data = {
            "timestamp": time.time_ns() // 1_000_000,
            "state": "open",
            "instrument_name": self.symbol,
            "mark_price": mark,
            "index_price": mark,
            "min_price": mark * 0.9,
            "max_price": mark * 1.1,
        }
        return notification(f"ticker.{self.symbol}.100ms", encode(data))


def notification(channel: str, data: bytes) -> bytes:
    head = f'{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"{channel}","data":'
    return head.encode() + data + b"}}"


def listing(symbols: list[str]) -> bytes:
    """Rows of public/get_instruments."""
    row = {
        "kind": "future",
        "base_currency": "BTC",
        "quote_currency": "USD",
        "settlement_currency": "BTC",
        "settlement_period": "perpetual",
        "instrument_type": "reversed",
        "price_index": "btc_usd",
        "tick_size": 0.5,
        "min_trade_amount": 10,
        "contract_size": 10,
        "expiration_timestamp": 32503708800000,
        "maker_commission": 0.0,
        "taker_commission": 0.0005,
        "is_active": True,
        "state": "open",
    }
    return encode([{"instrument_name": symbol, **row} for symbol in symbols])


class Account:
    """One client's orders, and a market of its own, by symbol; all of its connections share it."""

    def __init__(self, symbols: list[str]) -> None:
        self.markets = {symbol: Market(symbol) for symbol in symbols}
        self.orders: dict[str, Order] = {}
        self.user_changes = False


class Venue:
    """Answers requests."""

    def __init__(self, symbols: list[str]) -> None:
        self._listing = listing(symbols)
        self._made = 0

    def answer(self, request: Request, account: Account, books: set[str]) -> list[bytes]:
        """The messages that answer a request; `books` collects the symbols whose book is subscribed."""
        us_in = time.time_ns() // 1000
        name = request.method.partition("/")[2]
        if name in ("edit", "buy", "sell", "cancel", "cancel_by_label"):
            result, after = self._order(name, request.params, account)
        elif name == "subscribe":
            result, after = self._subscribe(request.params.channels, account, books)
        elif name == "unsubscribe":
            books.difference_update(channel.split(".")[1] for channel in request.params.channels)
            result, after = encode(request.params.channels), []
        else:
            result, after = self._ask(name, account), []
        us_out = time.time_ns() // 1000
        head = f'{{"jsonrpc":"2.0","id":{request.id},"result":'.encode()
        tail = f',"usIn":{us_in},"usOut":{us_out},"usDiff":{us_out - us_in},"testnet":true}}'.encode()
        return [head + result + tail, *after]

    def _ask(self, name: str, account: Account) -> bytes:
        """Questions and the login. KeyError for a method that is not known here."""
        if name == "get_instruments":
            return self._listing
        if name == "get_open_orders":
            return b"[" + b",".join(order.to_json() for order in account.orders.values()) + b"]"
        return ANSWERS[name]()

    def _subscribe(self, channels: list[str], account: Account, books: set[str]) -> tuple[bytes, list[bytes]]:
        after: list[bytes] = []
        for channel in channels:
            kind, _, rest = channel.partition(".")
            symbol = rest.partition(".")[0]
            if kind == "book":
                books.add(symbol)
                after.append(account.markets[symbol].snapshot())
            elif kind == "ticker":
                after.append(account.markets[symbol].ticker())
            elif kind == "user":
                account.user_changes = True
        return encode(channels), after

    def _order(self, name: str, params: Params, account: Account) -> tuple[bytes, list[bytes]]:
        if name in ("buy", "sell"):
            self._made += 1
            order = Order(f"BTC-{self._made}", params.instrument_name, name, params.label, params.price, params.amount)
            account.orders[order.order_id] = order
        elif name == "cancel_by_label":
            found = [order for order in account.orders.values() if order.label == params.label]
            for order in found:
                del account.orders[order.order_id]
            return b"%d" % len(found), []
        else:
            order = account.orders[params.order_id]
            if name == "cancel":
                order.state = "cancelled"
                del account.orders[params.order_id]
            else:
                order.price, order.amount = params.price, params.amount
        shown = order.to_json()
        after = []
        if account.user_changes:
            changes = f'{{"trades":[],"positions":[],"orders":[{shown.decode()}],"instrument_name":"{order.symbol}"}}'
            after.append(notification("user.changes.any.any.raw", changes.encode()))
        return (shown if name == "cancel" else b'{"trades":[],"order":' + shown + b"}"), after


def _constant(value: object) -> Callable[[], bytes]:
    encoded = encode(value)
    return lambda: encoded


ANSWERS: dict[str, Callable[[], bytes]] = {
    "auth": _constant(
        {
            "access_token": "x",
            "expires_in": 31536000,
            "refresh_token": "x",
            "scope": "connection account:read_write trade:read_write wallet:none",
            "token_type": "bearer",
        }
    ),
    "set_heartbeat": _constant("ok"),
    "test": _constant({"version": "1.2.26"}),
    "status": _constant({"locked": False, "locked_indices": []}),
    "enable_cancel_on_disconnect": _constant("ok"),
    "get_cancel_on_disconnect": _constant({"enabled": True, "scope": "connection"}),
    "get_account_summaries": _constant(
        {"summaries": [{"currency": "BTC", "equity": 1000.0, "balance": 1000.0, "limits": LIMITS}]}
    ),
    "get_positions": _constant([]),
    "get_user_trades_by_instrument_and_time": _constant({"trades": [], "has_more": False}),
    "get_open_orders_by_instrument": _constant([]),
    "get_order_state_by_label": _constant([]),
    "get_open_orders_by_label": _constant([]),
    "get_transaction_log": _constant({"logs": [], "continuation": None}),
    "get_index_price": _constant({"index_price": BASE + RAMP / 2}),
}
