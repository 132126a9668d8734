"""A small Derive in memory: one subaccount, one instrument, orders that replace each other; told when the test says.

Requests are carried out one by one, each makes an answer and rows for the channels, and all three wait in queues of
their own: what comes before what is the test's choice.
"""

import json
from collections import deque
from decimal import Decimal
from typing import Any

import trio
from test_derive_codec import PERP, one

SUBACCOUNT = 30769
START_NS = 1_795_305_600_000_000_000
LISTED = one(PERP)
SYMBOL = LISTED.instrument.symbol
LOT = LISTED.instrument.lot
LATE_MS = 500  # at most, until the history has a trade
PAGE_ROWS = 3  # so that histories have pages


def wall_clock_ns() -> int:
    return START_NS + int(trio.current_time() * 1e9)


def now_ms() -> int:
    return wall_clock_ns() // 1_000_000


def amount(lots: int) -> str:
    return f"{LOT * lots}"


class No(Exception):
    """An error answer."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code


class Engine:
    """`failing`: codes with which the next replaces fail half. `late_trades`: the newest are not listed yet.

    `mistaken`: codes that the next requests which make an order are answered with, although it is made.
    """

    def __init__(self) -> None:
        self.orders: dict[str, dict[str, Any]] = {}
        self.trades: list[dict[str, Any]] = []
        self.tell_orders: deque[dict[str, Any]] = deque()
        self.tell_trades: deque[dict[str, Any]] = deque()
        self.failing: list[int] = []
        self.mistaken: list[int] = []
        self.late_trades = 0
        self._listed = 0  # of `trades`: what was listed once stays listed
        self._count = 0

    # --- what is there ---

    def open(self, label: str | None = None) -> list[dict[str, Any]]:
        return [row for row in self.orders.values() if row["order_status"] == "open" and label in (None, row["label"])]

    def remaining(self, row: dict[str, Any]) -> int:
        return int((Decimal(row["amount"]) - Decimal(row["filled_amount"])) / LOT)

    def filled(self, label: str) -> int:
        return sum(int(Decimal(row["trade_amount"]) / LOT) for row in self.trades if row["label"] == label)

    @property
    def position(self) -> int:
        return sum(int(Decimal(row["trade_amount"]) / LOT) for row in self.trades)

    # --- what happens ---

    def _told(self, row: dict[str, Any]) -> None:
        row["last_update_timestamp"] = now_ms()
        self.tell_orders.append(dict(row))

    def end(self, row: dict[str, Any], status: str = "cancelled", reason: str = "user_request") -> None:
        row.update(order_status=status, cancel_reason=reason)
        self._told(row)

    def fill(self, row: dict[str, Any], lots: int) -> None:
        """Somebody takes as much of it as is left."""
        lots = min(lots, self.remaining(row))
        self._count += 1
        row["filled_amount"] = f"{Decimal(row['filled_amount']) + LOT * lots}"
        trade = {
            "trade_id": f"t{self._count}",
            "order_id": row["order_id"],
            "instrument_name": SYMBOL,
            "subaccount_id": SUBACCOUNT,
            "timestamp": now_ms(),
            "direction": row["direction"],
            "trade_price": row["limit_price"],
            "trade_amount": amount(lots),
            "trade_fee": "0.1",
            "liquidity_role": "maker",
            "label": row["label"],
            "index_price": "3000",
            "batch_status": None,
        }
        self.trades.append(trade)
        self.tell_trades.append(dict(trade))
        if not self.remaining(row):
            self.end(row, "filled", "")
        else:
            self._told(row)

    def make(self, params: dict[str, Any]) -> dict[str, Any]:
        """An order that rests."""
        if now_ms() > params.get("reject_timestamp", 2**63):
            raise No(11022)
        self._count += 1
        row = {
            "subaccount_id": SUBACCOUNT,
            "order_id": f"o{self._count}",
            "instrument_name": SYMBOL,
            "direction": params["direction"],
            "amount": params["amount"],
            "filled_amount": "0",
            "limit_price": params["limit_price"],
            "order_status": "open",
            "cancel_reason": "",
            "label": params["label"],
            "time_in_force": params["time_in_force"],
            "nonce": params["nonce"],
            "creation_timestamp": now_ms(),
        }
        self.orders[row["order_id"]] = row
        self._told(row)
        return row

    # --- requests ---

    def answer(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """An answer as it stands in the message."""
        try:
            return {"result": json.loads(json.dumps(self._carry_out(method, params)))}
        except No as no:
            return {"error": {"code": no.code, "message": "no"}}

    def _carry_out(self, method: str, params: dict[str, Any]) -> Any:
        match method:
            case "private/order":
                row = self.make(params)
                if self.mistaken:
                    raise No(self.mistaken.pop(0))
                return {"order": row, "trades": []}
            case "private/replace":
                return self._replace(params)
            case "private/cancel":
                row = self._rests(params["order_id"])
                self.end(row)
                return row
            case "private/cancel_by_label":
                found = self.open(params["label"])
                for row in found:
                    self.end(row)
                return {"cancelled_orders": len(found)}
            case "private/get_subaccount":
                return {"open_orders": self.open(), "positions": [self._position()], "failed_to_fetch": False}
            case "private/get_order":
                if params["order_id"] not in self.orders:
                    raise No(11006)
                return self.orders[params["order_id"]]
            case "private/get_order_history":
                rows = [row | {"replaced_order_id": None} for row in self.orders.values() if row not in self.open()]
                return self._page("orders", rows, "last_update_timestamp", params)
            case "private/get_trade_history":
                old = sum(row["timestamp"] <= now_ms() - LATE_MS for row in self.trades)
                self._listed = max(self._listed, len(self.trades) - self.late_trades, old)
                return self._page("trades", self.trades[: self._listed], "timestamp", params)
        raise No(-32601)

    def _rests(self, order_id: str) -> dict[str, Any]:
        row = self.orders.get(order_id)
        if row is None:
            raise No(11006)
        if row["order_status"] != "open":
            raise No(11003)
        return row

    def _replace(self, params: dict[str, Any]) -> dict[str, Any]:
        old = self._rests(params["order_id_to_cancel"])
        self.end(old)
        if Decimal(params["expected_filled_amount"]) != Decimal(old["filled_amount"]):
            raise No(11028)
        data: dict[str, Any] = {"cancelled_order": old, "order": None, "trades": None, "create_order_error": None}
        try:
            if self.failing:
                raise No(self.failing.pop(0))
            row = self.make(params)
            if self.mistaken:
                raise No(self.mistaken.pop(0))
            data |= {"order": row, "trades": []}
        except No as no:
            data["create_order_error"] = {"code": no.code, "message": "no"}
        return data

    def _position(self) -> dict[str, Any]:
        return {
            "instrument_name": SYMBOL,
            "instrument_type": "perp",
            "amount": amount(self.position),
            "average_price": "3000",
            "mark_price": "3000",
        }

    def _page(self, name: str, rows: list[dict[str, Any]], time: str, params: dict[str, Any]) -> dict[str, Any]:
        first, last = params["from_timestamp"], params.get("to_timestamp", 2**63)
        found = [row for row in reversed(rows) if first <= row[time] <= last]
        begin = (params["page"] - 1) * PAGE_ROWS
        pages = -(-len(found) // PAGE_ROWS)
        return {name: found[begin : begin + PAGE_ROWS], "pagination": {"count": len(found), "num_pages": pages}}
