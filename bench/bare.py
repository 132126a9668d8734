"""The script that mmd is measured against: trio-websocket and msgspec, the same quotes, and nothing else.

No gate, no metrics, no order state, no logging: decode, keep the book, send two edits, ignore
the answers. It is what a trader writes first. `python -m bench.bare PORT`; ends with its connection.
"""

import math
import sys
from bisect import bisect_left, insort

import msgspec
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

HALF_SPREAD = 5e-4
SYMBOL = "BTC-PERPETUAL"


class BookData(msgspec.Struct):
    type: str
    change_id: int
    timestamp: int
    bids: list[tuple[str, float, float]]
    asks: list[tuple[str, float, float]]


class Params(msgspec.Struct):
    channel: str
    data: BookData


class Message(msgspec.Struct):
    """A book message, or an answer (then `params` is None)."""

    params: Params | None = None


class OrderData(msgspec.Struct):
    order_id: str


class OrderResult(msgspec.Struct):
    order: OrderData


class OrderAnswer(msgspec.Struct):
    result: OrderResult


class EditParams(msgspec.Struct):
    order_id: str
    amount: float
    price: float
    post_only: bool = True
    reject_post_only: bool = True


class Edit(msgspec.Struct):
    id: int
    params: EditParams
    method: str = "private/edit"
    jsonrpc: str = "2.0"


def apply(prices: list[float], sizes: dict[float, float], changes: list[tuple[str, float, float]]) -> None:
    """Changes into one side of the book."""
    for action, price, size in changes:
        if action == "delete":
            if price in sizes:
                del sizes[price]
                del prices[bisect_left(prices, price)]
        else:
            if price not in sizes:
                insort(prices, price)
            sizes[price] = size


async def ask(ws: WebSocketConnection, number: int, method: str, params: dict[str, object]) -> str:
    request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    await ws.send_message(msgspec.json.encode(request).decode())
    return str(await ws.get_message())


async def place(ws: WebSocketConnection, number: int, method: str, price: float) -> str:
    params: dict[str, object] = {"instrument_name": SYMBOL, "amount": 10.0, "price": price, "label": method}
    answer = await ask(ws, number, method, params)
    return msgspec.json.decode(answer, type=OrderAnswer).result.order.order_id


async def quote(ws: WebSocketConnection) -> None:
    await ask(ws, 1, "public/auth", {"grant_type": "client_credentials", "client_id": "x", "client_secret": "x"})
    bid_id = await place(ws, 2, "private/buy", 50_000.0)
    ask_id = await place(ws, 3, "private/sell", 70_000.0)
    await ask(ws, 4, "public/subscribe", {"channels": [f"book.{SYMBOL}.raw"]})
    decode = msgspec.json.Decoder(Message).decode
    encode = msgspec.json.Encoder().encode
    bids: list[float] = []
    asks: list[float] = []
    bid_sizes: dict[float, float] = {}
    ask_sizes: dict[float, float] = {}
    number = 5
    while True:
        params = decode(await ws.get_message()).params
        if params is None:
            continue
        data = params.data
        apply(bids, bid_sizes, data.bids)
        apply(asks, ask_sizes, data.asks)
        mid = (bids[-1] + asks[0]) / 2
        bid_price = math.floor(mid * (1 - HALF_SPREAD) * 2) / 2
        ask_price = math.ceil(mid * (1 + HALF_SPREAD) * 2) / 2
        await ws.send_message(encode(Edit(number, EditParams(bid_id, 10.0, bid_price))).decode())
        await ws.send_message(encode(Edit(number + 1, EditParams(ask_id, 10.0, ask_price))).decode())
        number += 2


async def main(port: int) -> None:
    try:
        async with open_websocket_url(f"ws://127.0.0.1:{port}/bare") as ws:
            await quote(ws)
    except* ConnectionClosed:
        pass  # the peer is done with us


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
