"""A scripted Deribit over trio memory streams (wsproto on its side), and a sink that writes down what it gets."""

import contextlib
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import trio
import trio.testing
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Request, TextMessage

from mmd.domain.events import Mail
from mmd.exchanges.deribit.session import Deribit

START_NS = 1_798_700_000_000_000_000
HOUR_MS = 3_600_000
SILENT = object()  # a handler's way not to answer

PERP = {
    "instrument_name": "BTC-PERPETUAL",
    "kind": "future",
    "instrument_type": "reversed",
    "base_currency": "BTC",
    "quote_currency": "USD",
    "settlement_currency": "BTC",
    "settlement_period": "perpetual",
    "price_index": "btc_usd",
    "tick_size": 0.5,
    "min_trade_amount": 10,
    "contract_size": 10,
    "expiration_timestamp": 32503708800000,
    "is_active": True,
    "state": "open",
}
LINEAR = PERP | {
    "instrument_name": "ETH_USDC-PERPETUAL",
    "instrument_type": "linear",
    "base_currency": "ETH",
    "quote_currency": "USDC",
    "settlement_currency": "USDC",
    "price_index": "eth_usdc",
    "tick_size": 0.05,
    "min_trade_amount": 0.01,
    "contract_size": 0.01,
}


class Refuse(Exception):
    """A handler's way to answer with an error."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message} | ({} if data is None else {"data": data})


class Wire:
    """One accepted connection, seen from the exchange."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.ws = WSConnection(ConnectionType.SERVER)
        self.role = ""
        self.requests: list[dict[str, Any]] = []
        self.open = True
        self.writing = trio.Lock()

    async def send_raw(self, data: bytes) -> None:
        async with self.writing:
            await self.stream.send_all(data)

    async def send_text(self, text: str) -> None:
        await self.send_raw(self.ws.send(TextMessage(text)))

    async def send_bytes(self, data: bytes) -> None:
        await self.send_raw(self.ws.send(BytesMessage(data)))

    async def answer(self, request: dict[str, Any], result: object) -> None:
        await self.send_text(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result} | self.times()))

    async def refuse(self, request: dict[str, Any], refuse: Refuse) -> None:
        await self.send_text(json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": refuse.error}))

    async def notify(self, channel: str, data: object) -> None:
        message = {"jsonrpc": "2.0", "method": "subscription", "params": {"channel": channel, "data": data}}
        await self.send_text(json.dumps(message))

    async def drop(self) -> None:
        self.open = False
        await trio.aclose_forcefully(self.stream)

    def times(self) -> dict[str, object]:
        now_us = START_NS // 1000 + int(trio.current_time() * 1e6)
        return {"usIn": now_us, "usOut": now_us, "usDiff": 0, "testnet": True}

    def asked(self, method: str) -> list[dict[str, Any]]:
        """Params of every request of this method so far."""
        return [request.get("params", {}) for request in self.requests if request["method"] == method]


Handler = Callable[[Wire, dict[str, Any]], Any]


class Peer:
    """The exchange. `on` replaces a method's answer: a value, SILENT, or a callable (wire, params)."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.wires: list[Wire] = []
        self.refuse_dial = ""
        self.dials = 0
        self.rows: list[dict[str, Any]] = [PERP, LINEAR]
        self.open_orders: list[dict[str, Any]] = []
        self.positions: dict[str, float] = {}
        self.trades: list[dict[str, Any]] = []
        self.forbidden: set[str] = set()
        self.mmp: dict[str, dict[str, Any]] = {}  # configurations by index
        self.frozen: dict[str, int] = {}  # ms by index, 0 = until reset
        self.log: list[dict[str, Any]] = []  # the transaction log, oldest first
        self.beats = False  # send heartbeats as asked
        self.books: dict[str, dict[str, Any]] = {}
        self.handlers: dict[str, Any] = {
            "public/auth": lambda wire, params: self._auth(wire, params),
            "public/set_heartbeat": self._set_heartbeat,
            "public/test": {"version": "1"},
            "public/status": {"locked": "false", "locked_indices": []},
            "public/get_instruments": lambda wire, params: self.rows,
            "public/subscribe": self._subscribe,
            "private/subscribe": self._subscribe,
            "public/unsubscribe": lambda wire, params: params["channels"],
            "public/get_index_price": {"index_price": 81250.4, "estimated_delivery_price": 81250.4},
            "private/enable_cancel_on_disconnect": "ok",
            "private/get_cancel_on_disconnect": {"scope": "connection", "enabled": True},
            "private/get_account_summaries": {"summaries": []},
            "private/get_open_orders": lambda wire, params: self.open_orders,
            "private/get_open_orders_by_instrument": self._orders_of,
            "private/get_order_state_by_label": [],
            "private/get_open_orders_by_label": [],
            "private/get_positions": self._positions,
            "private/get_user_trades_by_instrument_and_time": self._trades,
            "private/cancel_by_label": 1,
            "private/set_mmp_config": self._set_mmp,
            "private/get_mmp_config": lambda wire, params: _rows(self.mmp, params),
            "private/get_mmp_status": lambda wire, params: _rows(
                {index: {"index_name": index, "frozen_until": until} for index, until in self.frozen.items()}, params
            ),
            "private/reset_mmp": self._reset_mmp,
            "private/get_transaction_log": self._log,
        }

    # --- access ---

    async def dial(self) -> trio.abc.Stream:
        self.dials += 1
        if self.refuse_dial:
            raise OSError(self.refuse_dial)
        ours, theirs = trio.testing.memory_stream_pair()
        wire = Wire(theirs)
        self.wires.append(wire)
        self.nursery.start_soon(self._serve, wire)
        return ours

    @property
    def data(self) -> Wire:
        return [wire for wire in self.wires if wire.role == "data" and wire.open][-1]

    @property
    def trade(self) -> Wire:
        return [wire for wire in self.wires if wire.role == "trade" and wire.open][-1]

    def on(self, method: str, answer: Any) -> None:
        self.handlers[method] = answer

    # --- service ---

    async def _serve(self, wire: Wire) -> None:
        while True:
            try:
                data = await wire.stream.receive_some(65536)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if not data:
                wire.open = False
                return
            wire.ws.receive_data(data)
            for event in wire.ws.events():
                try:
                    await self._take(wire, event)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    wire.open = False
                    return

    async def _take(self, wire: Wire, event: object) -> None:
        match event:
            case Request():
                assert event.target == "/ws/api/v2"
                await wire.stream.send_all(wire.ws.send(AcceptConnection()))
            case TextMessage():
                await self._answer(wire, json.loads(event.data))
            case Ping():
                await wire.stream.send_all(wire.ws.send(event.response()))
            case CloseConnection():
                wire.open = False

    async def _answer(self, wire: Wire, request: dict[str, Any]) -> None:
        wire.requests.append(request)
        handler = self.handlers.get(request["method"], Refuse(-32601, "Method not found"))
        try:
            result = handler(wire, request.get("params", {})) if callable(handler) else handler
            if isinstance(result, Awaitable):
                result = await result
            if isinstance(result, Refuse):
                raise result
        except Refuse as refuse:
            await wire.refuse(request, refuse)
            return
        if result is not SILENT:
            await wire.answer(request, result)
        if request["method"].endswith("/subscribe"):
            for channel in request["params"]["channels"]:
                if channel in self.books and channel not in self.forbidden:
                    await wire.notify(channel, self.books[channel])

    def _auth(self, wire: Wire, params: dict[str, Any]) -> dict[str, Any]:
        wire.role = "trade" if "trade:read_write" in params["scope"] else "data"
        return {
            "access_token": "AT-secret",
            "refresh_token": "RT",
            "expires_in": 31536000,
            "scope": params["scope"],
            "token_type": "bearer",
        }

    def _set_heartbeat(self, wire: Wire, params: dict[str, Any]) -> str:
        if self.beats:
            self.nursery.start_soon(self._beat, wire, params["interval"])
        return "ok"

    async def _beat(self, wire: Wire, seconds: float) -> None:
        while wire.open:
            await trio.sleep(seconds)
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await wire.send_text('{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"test_request"}}')

    def _subscribe(self, wire: Wire, params: dict[str, Any]) -> list[str]:
        return [channel for channel in params["channels"] if channel not in self.forbidden]

    def _orders_of(self, wire: Wire, params: dict[str, Any]) -> list[dict[str, Any]]:
        return [row for row in self.open_orders if row["instrument_name"] == params["instrument_name"]]

    def _positions(self, wire: Wire, params: dict[str, Any]) -> list[dict[str, Any]]:
        settled = {row["instrument_name"]: row["settlement_currency"] for row in self.rows}
        return [
            {
                "instrument_name": name,
                "size": size,
                "direction": "buy" if size > 0 else "sell" if size < 0 else "zero",
                "average_price": 81000.0,
            }
            for name, size in self.positions.items()
            if settled[name] == params["currency"]
        ]

    def _set_mmp(self, wire: Wire, params: dict[str, Any]) -> dict[str, Any]:
        self.mmp[params["index_name"]] = dict(params)
        self.frozen.pop(params["index_name"], None)
        return params

    def _reset_mmp(self, wire: Wire, params: dict[str, Any]) -> str:
        self.frozen.pop(params["index_name"], None)
        return "ok"

    async def trip(self, index: str, until_ms: int = 0) -> None:
        """Maker protection fires."""
        self.frozen[index] = until_ms
        await self.trade.notify(f"user.mmp_trigger.{index}", {"index_name": index, "frozen_until": until_ms})

    def _log(self, wire: Wire, params: dict[str, Any]) -> dict[str, Any]:
        """Newest first, two rows a page."""
        rows = [
            row
            for row in reversed(self.log)
            if row["currency"] == params["currency"]
            and params["query"] in row["type"]
            and params["start_timestamp"] <= row["timestamp"] <= params["end_timestamp"]
            and row["id"] < params.get("continuation", 1 << 60)
        ]
        page = rows[:2]
        return {"logs": page, "continuation": page[-1]["id"] if len(rows) > 2 else None}

    def _trades(self, wire: Wire, params: dict[str, Any]) -> dict[str, Any]:
        """Two drawers: the last day's, and, after an hour, the older ones."""
        now_ms = START_NS // 1_000_000 + int(trio.current_time() * 1000)
        since_ms, until_ms = (0, now_ms - HOUR_MS) if params["historical"] else (now_ms - 24 * HOUR_MS, 1 << 60)
        rows = [
            row
            for row in self.trades
            if row["instrument_name"] == params["instrument_name"]
            and params["start_timestamp"] <= row["timestamp"] <= params["end_timestamp"]
            and since_ms <= row["timestamp"] <= until_ms
        ]
        count = min(params["count"], 3)  # small pages: the reader has to ask again
        return {"trades": rows[:count], "has_more": len(rows) > count}


def _rows(table: dict[str, dict[str, Any]], params: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for index, row in table.items() if params.get("index_name", index) == index]


class Recorder:
    """A Sink."""

    def __init__(self) -> None:
        self.posted: list[tuple[str, Mail]] = []
        self.reports: list[tuple[str, str]] = []
        self.trips: list[float] = []
        self.delivered = 0
        self.symbols: list[str] = []

    def post(self, symbol: str, event: Mail) -> None:
        self.posted.append((symbol, event))

    def post_all(self, event: Mail) -> None:
        self.posted.append(("*", event))

    async def deliver(self) -> None:
        self.delivered += 1
        await trio.lowlevel.checkpoint()

    def round_trip(self, seconds: float) -> None:
        self.trips.append(seconds)

    def report(self, name: str, detail: str) -> None:
        self.reports.append((name, detail))

    def of(self, kind: type, symbol: str | None = None) -> list[Any]:
        return [event for name, event in self.posted if isinstance(event, kind) and symbol in (None, name)]

    def named(self, name: str) -> list[str]:
        return [detail for found, detail in self.reports if found == name]

    def clear(self) -> None:
        self.posted.clear()
        self.reports.clear()


class Stage:
    """Exchange adapter, peer and sink together."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.peer = Peer(nursery)
        self.sink = Recorder()
        self.deribit = make_deribit(self.peer)

    async def start(self, *symbols: str) -> None:
        await self.nursery.start(lambda task_status: self.deribit.run(self.sink, task_status=task_status))
        if symbols:
            self.deribit.watch(symbols)
            await self.settle()

    async def settle(self) -> None:
        """Until nothing moves any more at this moment of mock time."""
        for _ in range(20):
            await trio.testing.wait_all_tasks_blocked(0.0)

    async def until(self, condition: Callable[[], object], seconds: float = 120.0) -> None:
        """Let mock time pass until the condition holds."""
        with trio.fail_after(seconds):
            while not condition():  # noqa: ASYNC110 - mock time, and what is waited for has no event
                await trio.sleep(0.05)


def wall_clock_ns() -> int:
    return START_NS + int(trio.current_time() * 1e9)


def make_deribit(peer: Peer, **changes: Any) -> Deribit:
    values: dict[str, Any] = {
        "name": "deribit",
        "service": "svc",
        "dial": peer.dial,
        "host": "test.example",
        "client_id": "mmdTestId",
        "client_secret": "mmd-test-secret",
        "rng": random.Random(7),
        "started_ns": START_NS,
        "wall_clock_ns": wall_clock_ns,
    }
    return Deribit(**(values | changes))
