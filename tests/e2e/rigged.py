"""`mmd sandbox` with a second port: the levers of its process, a taker, and its own books, for a judge outside.

Started as the program itself (`python rigged.py sandbox ...`); the second port is written to the file that
RIGGED_PORT names. One JSON object a line in, one a line out.
"""

import json
import os
import random
import sys
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import trio

from mmd.cli import sandbox as program
from mmd.cli.mmd import main
from mmd.domain.errors import MmdError
from mmd.sandbox.answering import Deferred
from mmd.sandbox.engine import Engine
from mmd.sandbox.levers import ORDERS_AND_EDITS
from mmd.sandbox.link import Link
from mmd.sandbox.model import Direction
from mmd.sandbox.orders import Order, Refused
from mmd.sandbox.serve import Exchange, Sandbox

OUR_LABEL = "mmd-e2e-"
HOME_SHARE = 0.75  # of the taker's trades bring the position home
IDLE_SECONDS = 0.05
TOKEN_SECONDS = 5.0


class Rig:
    """What the judge may do to the exchange and read from it."""

    def __init__(self, sandbox: Sandbox, seed: int) -> None:
        self.sandbox = sandbox
        self.levers = sandbox.levers
        self.random = random.Random(seed)
        self.per_second = 0.0
        self.account = ""
        self.keeps = False
        # What has reached the exchange is carried out, also when who sent it is dead by then.
        self.outlived, self.late = 0, False
        self.under_way: list[Link] = []  # one entry for each thing that is deferred
        dialect: Any = sandbox.server.dialect
        self._carry = dialect.carry
        dialect.carry = self._carry_on  # no lever for it
        if sandbox.options.exchange is Exchange.DERIVE:
            self._rig_derive(dialect)
        else:
            self._rig_deribit(dialect.context.registry)

    # As on an exchange whose cancel-on-disconnect is armed, read back as ever, and fails: no lever for that.

    def _rig_derive(self, dialect: Any) -> None:
        disconnected = dialect.disconnected
        dialect.disconnected = lambda wallet: 0 if self.keeps else disconnected(wallet)

    def _rig_deribit(self, registry: Any) -> None:
        cancel_link, link_closed = Engine.cancel_link, registry.link_closed

        def cancel_unless_kept(engine: Engine, link: int, now_ms: int) -> int:
            return 0 if self.keeps else cancel_link(engine, link, now_ms)

        def close_later(link: int) -> None:
            self.sandbox.later(TOKEN_SECONDS, partial(link_closed, link))

        registry.link_closed = close_later  # its token was looked at when it came
        Engine.cancel_link = cancel_unless_kept  # type: ignore[method-assign]  # as above

    def _carry_on(self, link: Link, asked: Any) -> Deferred | None:
        """As the dialect's own, but what is deferred does not end with the connection."""
        deferred: Deferred | None = self._carry(link, asked)
        if deferred is not None:
            self._defer(deferred, link)
        return None

    def _defer(self, deferred: Deferred, link: Link) -> None:
        self.under_way.append(link)
        self.sandbox.later(deferred.seconds, partial(self._finish, deferred, link))

    def _finish(self, deferred: Deferred, link: Link) -> None:
        self.under_way.remove(link)
        self.outlived += link.ended and self.late
        following = deferred.finish()
        if following is not None:
            self._defer(following, link)

    # --- what can be asked -------------------------------------------------------------------------

    def keep(self, on: bool) -> None:
        self.keeps = on

    def refuse(self, on: bool) -> None:
        """Cut every connection and take none, as a network that is gone; what rests is the engine's."""
        if on:
            self.levers.refuse_connections()
            self.levers.cut()
        else:
            self.levers.accept_connections()

    def pace(self, account: str, per_second: float) -> None:
        """How often somebody trades with one of the account's orders of our label."""
        self.account, self.per_second = account, per_second

    def weather(self, requests_ms: int, answers_ms: int) -> None:
        """Every order and edit arrives so much later; every answer to one comes so much later."""
        self.levers.disarm()
        self.late = requests_ms > 0
        if requests_ms:
            self.levers.delay_requests(None, requests_ms, ORDERS_AND_EDITS)
        if answers_ms:
            self.levers.delay_answers(None, answers_ms, ORDERS_AND_EDITS)

    def hit(self, account: str, count: int) -> int:
        """Trade with up to so many of our orders at once; how many there were."""
        return sum(self.hit_one(account) for _ in range(count))

    def elsewhere(self, account: str, symbol: str, side: str, amount: str) -> int:
        """A person trades by hand on the account, at market; the number of executions."""
        return len(self.levers.take(symbol, Direction(side), Decimal(amount), account=account))

    def foreign(self, account: str, symbol: str, share: float, label: str) -> str:
        """An order of somebody else, at this share of the mark; its id."""
        listing = self.sandbox.engine.floor.listing(symbol)
        tick, price = listing.instrument.tick_size, float(listing.mark_price) * share
        on_grid = Decimal(int(price / float(tick))) * tick
        amount = listing.instrument.min_trade_amount
        side = Direction.BUY if share < 1 else Direction.SELL
        return self.levers.foreign_order(account, symbol, side, amount, on_grid, label, post_only=True).order_id

    def books(self, account: str, since: int) -> dict[str, Any]:
        """Everything at one moment: positions, open orders, and the executions from number `since` on."""
        found = self.sandbox.engine.floor.account(account, self.sandbox.now_ms)
        trades = self.levers.trades(account)
        return {
            "positions": {name: str(position.size) for name, position in found.positions.items() if position.size},
            "orders": [order_row(order) for order in found.open_orders.values()],
            "trades": [
                {
                    "id": trade.trade_id,
                    "symbol": trade.instrument_name,
                    "side": trade.direction.value,
                    "price": str(trade.price),
                    "size": str(trade.amount),
                    "label": trade.label,
                    "order_id": trade.order_id,
                }
                for trade in trades[since:]
            ],
            "traded": len(trades),
            "outlived": self.outlived,
            "coming": sum(link.ended for link in self.under_way),
        }

    # --- the taker ---------------------------------------------------------------------------------

    def hit_one(self, account: str) -> bool:
        """Somebody trades with one of our orders, whatever stands before it; with most of them towards flat."""
        found = [order for order in self.levers.open_orders(account) if order.label.startswith(OUR_LABEL)]
        if not found:
            return False
        home = [order for order in found if self._brings_home(account, order)]
        order = self.random.choice(home if home and self.random.random() < HOME_SHARE else found)
        lot = self.sandbox.engine.instrument(order.instrument_name).min_trade_amount
        lots = int(order.remaining / lot)
        amount = order.remaining if lots < 2 or self.random.random() < 0.3 else lot * self.random.randint(1, lots)
        self.levers.fill_order(account, order.order_id, amount)
        return True

    def _brings_home(self, account: str, order: Order) -> bool:
        position = self.levers.position(account, order.instrument_name)
        return position > 0 if order.direction is Direction.SELL else position < 0

    async def take(self) -> None:
        while True:
            if self.per_second > 0:
                await trio.sleep(self.random.expovariate(self.per_second))
                if self.per_second > 0:
                    self.hit_one(self.account)
            else:
                await trio.sleep(IDLE_SECONDS)

    # --- the port ----------------------------------------------------------------------------------

    async def serve(self, stream: trio.SocketStream) -> None:
        words = ("keep", "refuse", "pace", "weather", "hit", "elsewhere", "foreign", "books")
        known: dict[str, Callable[..., Any]] = {name: getattr(self, name) for name in words}
        rest = b""
        async for piece in stream:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                asked = json.loads(line)
                try:
                    said = {"said": known[asked.pop("do")](**asked)}
                except (ValueError, MmdError, Refused) as error:
                    said = {"error": f"{error}"}
                await stream.send_all(json.dumps(said).encode() + b"\n")


def order_row(order: Order) -> dict[str, str]:
    return {
        "id": order.order_id,
        "symbol": order.instrument_name,
        "side": order.direction.value,
        "price": str(order.price),
        "size": str(order.amount),
        "filled": str(order.filled),
        "label": order.label,
    }


async def serve_rigged(
    serve: Callable[..., Any], where: Path, seed: int, sandbox: Sandbox, host: str, port: int
) -> None:
    rig = Rig(sandbox, seed)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await trio.Path(where).write_text(str(listeners[0].socket.getsockname()[1]))
        nursery.start_soon(trio.serve_listeners, rig.serve, listeners)
        nursery.start_soon(rig.take)
        await serve(sandbox, host, port)
        nursery.cancel_scope.cancel()


def run(words: list[str]) -> int:
    seed = int(words[words.index("--seed") + 1]) if "--seed" in words else 0
    program.serve = partial(serve_rigged, program.serve, Path(os.environ["RIGGED_PORT"]), seed)
    return main(words)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
