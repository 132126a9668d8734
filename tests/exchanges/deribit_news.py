"""Orders and trades as the scripted exchange tells them, and the way requests go to it."""

from typing import Any

from deribit_peer import START_NS, Stage

from mmd.domain.ids import base36

BTC = "BTC-PERPETUAL"
ETH = "ETH_USDC-PERPETUAL"
EPOCH = base36(START_NS // 1_000_000)
BID = f"mmd-svc-{BTC}-b-{EPOCH}-1"
ASK = f"mmd-svc-{BTC}-a-{EPOCH}-2"
START_MS = START_NS // 1_000_000


def order(**fields: Any) -> dict[str, Any]:
    return {
        "order_id": "o1",
        "order_state": "open",
        "instrument_name": BTC,
        "direction": "buy",
        "price": 100.0,
        "amount": 50,
        "filled_amount": 0,
        "label": BID,
        "last_update_timestamp": START_MS,
    } | fields


def trade(number: int, at_ms: int, **fields: Any) -> dict[str, Any]:
    return {
        "trade_id": f"t{number}",
        "order_id": "o1",
        "instrument_name": BTC,
        "timestamp": at_ms,
        "direction": "buy",
        "price": 100.0,
        "amount": 10,
        "label": BID,
        "fee": -0.00000012,
        "fee_currency": "BTC",
        "liquidity": "M",
        "index_price": 100.5,
    } | fields


def news(orders: list[Any] | None = None, trades: list[Any] | None = None) -> dict[str, Any]:
    return {"instrument_name": BTC, "orders": orders or [], "trades": trades or [], "positions": []}


async def tell(stage: Stage, orders: list[Any] | None = None, trades: list[Any] | None = None) -> None:
    await stage.peer.trade.notify("user.changes.any.any.raw", news(orders, trades))
    await stage.settle()


async def send(stage: Stage, *requests: Any) -> None:
    stage.deribit.submit([(BTC, request) for request in requests])
    await stage.deribit.flush()
    await stage.settle()


def kinds(stage: Stage, symbol: str = BTC) -> list[type]:
    return [type(event) for name, event in stage.sink.posted if name == symbol]


async def started(stage: Stage, *symbols: str) -> None:
    await stage.start(*(symbols or (BTC,)))
    stage.sink.clear()
