"""The trade link of Derive's room before a small exchange in memory, and the machine's own table of orders behind."""

import json
import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import msgspec
import trio
import trio.testing
from derive_engine import LISTED, SUBACCOUNT, SYMBOL, Engine, amount, now_ms, wall_clock_ns

from mmd.core.budget import Budget
from mmd.core.orders import Amending, Cancelling, Empty, Live, Placing, Unknown
from mmd.core.own import OwnOrders, SideState
from mmd.domain.actions import AmendOrder, CancelOrder, PlaceOrder, QueryOrder
from mmd.domain.events import Mail, OrderAcked, OrderFilled, OrdersReported
from mmd.domain.ids import base36, parse_label
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Side
from mmd.exchanges.connection import House
from mmd.exchanges.derive import codec
from mmd.exchanges.derive.errors import ERRORS
from mmd.exchanges.derive.keys import Identity, SessionKey
from mmd.exchanges.derive.questions import DeriveQuestions
from mmd.exchanges.derive.room import Room
from mmd.exchanges.derive.signing import MAINNET
from mmd.exchanges.derive.trading import DeriveOrders
from mmd.exchanges.jsonrpc import Head, Request, RpcError, Sent, Waiter
from mmd.exchanges.known import Known
from mmd.exchanges.rows import OrderListing, OrderRow
from mmd.exchanges.trading import TradeCalls, Trading
from mmd.sandbox.derive.known import SESSION_SECRET, WALLET

VALID_MS = 1000
PRICE = 300_000
LATENCY_NS = (VALID_MS + 100) * 1_000_000  # no request arrives later than that
SECOND = 1_000_000_000


def head(answer: dict[str, Any]) -> Head:
    return msgspec.json.decode(json.dumps({"id": 1} | answer).encode(), type=Head)


class NoProtection:
    """Implements ProtectionCalls, as far as a link without any needs it."""

    frozen_code = required_code = 0

    def key(self, instrument: Instrument) -> str:
        return instrument.base

    def told(self, channel: str, data: msgspec.Raw) -> None:
        return None


class Wire:
    """Stands for a Connection. Orders wait to be carried out; questions are answered at once, or `cut` them."""

    ready = True

    def __init__(self, nursery: trio.Nursery, engine: Engine) -> None:
        self.nursery = nursery
        self.engine = engine
        self.requests: deque[tuple[Sent, dict[str, Any]]] = deque()  # not carried out yet
        self.answers: deque[tuple[Sent, dict[str, Any]]] = deque()  # not delivered yet
        self.unread: list[str] = []
        self.asked: list[str] = []

    def request(self, method: str, params: object, context: object, deadline_seconds: float) -> None:
        body = json.loads(codec.encode(Request(1, method, params)))
        self.requests.append((Sent(1, method, context, 0.0, deadline_seconds), body["params"]))

    async def call(self, method: str, params: object, *, apply: Any = None) -> msgspec.Raw:
        await trio.lowlevel.checkpoint()
        self.asked.append(method)
        body = json.loads(codec.encode(Request(1, method, params)))
        waiter = Waiter(method, apply)
        waiter.answered(head(self.engine.answer(method, body["params"])))
        return await waiter.wait()

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()

    def malformed(self, detail: str) -> None:
        self.unread.append(detail)

    def drop(self, why: str) -> None:
        raise AssertionError(why)


class World:
    """One process after the other: `restart` begins the next, which knows of the last what a journal tells.

    The machine's part is played by its own table of orders: bids only, one at a time.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.engine = Engine()
        self.counted: dict[str, int] = {}  # lots by trade id
        self.reports: list[tuple[str, str]] = []
        self.heard: list[Mail] = []
        self.stale: list[tuple[Sent, dict[str, Any]]] = []  # requests of dead links that may arrive yet
        self._labels = 0
        self.own = OwnOrders(LATENCY_NS)
        self.begin()

    def begin(self) -> None:
        house = House(
            name="derive", service="svc", errors=ERRORS, wall_clock_ns=wall_clock_ns, rng=random.Random(1),
            started_ns=wall_clock_ns(), budget=Budget(100.0, 100.0, 10.0), order_valid_ms=VALID_MS,
        )  # fmt: skip
        house.sink = self
        house.instruments[SYMBOL] = LISTED.instrument
        house.watched = (SYMBOL,)
        self.room = Room(
            house, Identity(SessionKey(SESSION_SECRET), WALLET, SUBACCOUNT), MAINNET, order_life_seconds=600
        )
        self.room.listed[SYMBOL] = LISTED
        self.known = Known()
        self.known.recover({SYMBOL: now_ms() - 60_000 if self.counted else 1}, {})
        self.known.align([SYMBOL])
        self.questions = DeriveQuestions(self.room)
        calls = TradeCalls(
            channels=None, orders=DeriveOrders(self.room), questions=self.questions, protection=NoProtection(),
            account=None, cash=SimpleNamespace(settled=None), most_cancels=float("inf"),
        )  # fmt: skip
        self.trading = Trading(house, self.known, calls)
        self.connect()

    def connect(self) -> None:
        self.wire = Wire(self.nursery, self.engine)
        self.looked = False
        self.settled_ms = now_ms() + VALID_MS  # no request of the link before comes later
        self.trading.connection = self.wire

    # --- Sink ---

    def post(self, symbol: str, event: Mail) -> None:
        self.heard.append(event)
        now_ns = wall_clock_ns()
        if isinstance(event, OrderFilled):
            if event.trade_id in self.counted:
                return
            self.counted[event.trade_id] = event.size_lots
        if isinstance(event, OrdersReported):
            self.own.reported(event, now_ns)
            return
        label = event.label
        if isinstance(event, OrderAcked) and self.own.find(label, event.order_id) is None:
            if event.remaining_lots > 0 and self.own.is_news(event):
                self.own.adopt(event, Side.BID, now_ns)
            return
        illegal = self.own.take(event, label, now_ns)
        assert illegal is None, f"{illegal} by {event}"

    def post_all(self, event: Mail) -> None:
        self.own.link_lost(wall_clock_ns())

    async def deliver(self) -> None:
        await trio.lowlevel.checkpoint()

    def round_trip(self, seconds: float) -> None:
        pass

    def report(self, name: str, detail: str) -> None:
        self.reports.append((name, detail))

    # --- the machine's side ---

    @property
    def bid(self) -> SideState:
        return self.own.bid

    def place(self, price: int, lots: int) -> str:
        self._labels += 1
        label = f"mmd-svc-{SYMBOL}-b-{base36(wall_clock_ns() // 1_000_000)}-{base36(self._labels)}"
        self.own.put(self.bid, Placing(label, price, lots, 0, wall_clock_ns()), wall_clock_ns())
        self.trading.submit([(SYMBOL, PlaceOrder(label, Side.BID, price, lots))])
        return label

    def amend(self, price: int, lots: int) -> None:
        slot = self.bid.slot
        assert isinstance(slot, Live)
        total = slot.filled_lots + lots
        rest = (slot.price_ticks, slot.total_lots, slot.filled_lots)
        after = Amending(slot.label, slot.order_id, *rest, price, total, wall_clock_ns())
        self.own.put(self.bid, after, wall_clock_ns())
        self.trading.submit([(SYMBOL, AmendOrder(slot.label, slot.order_id, Side.BID, price, total, lots))])

    def cancel(self, state: SideState) -> None:
        slot = state.slot
        assert isinstance(slot, Live | Unknown)
        if isinstance(slot, Live):
            after = Cancelling(*msgspec.structs.astuple(slot)[:-1], wall_clock_ns())
            self.own.put(state, after, wall_clock_ns())
        self.trading.submit([(SYMBOL, CancelOrder(slot.label, slot.order_id, Side.BID))])

    def ask(self) -> None:
        for state in self.own.every():
            slot = state.slot
            if isinstance(slot, Unknown):
                self.trading.submit([(SYMBOL, QueryOrder(slot.label, slot.order_id))])

    async def audit(self) -> bool:
        """The fills since, and all open orders, where nothing of ours is on its way.

        As the session does it: at once on a new link, and again only when nothing of the last one can come any more.
        """
        if self.looked and now_ms() <= self.settled_ms:
            return False
        self.looked = True
        record = self.trading.record
        await self.trading.inquiry.catch_up(self.wire, SYMBOL)
        before = record.activity[SYMBOL]

        def take(listing: OrderListing) -> None:
            assert not listing.unread
            settled = listing.told_us // 1000 > record.unsettled_until_ms(SYMBOL)
            if record.activity[SYMBOL] == before and settled:
                why = self.trading.inquiry.report_orders(SYMBOL, listing.rows)
                assert not why, why

        await self.questions.open_orders(self.wire, take)
        self.engine.late_trades = 0  # until the second look at the latest
        return True

    # --- the exchange's side ---

    def carry_out(self) -> None:
        """The next request arrives there."""
        sent, params = self.wire.requests.popleft()
        self.wire.answers.append((sent, self.engine.answer(sent.method, params)))

    def carry_out_stale(self) -> None:
        sent, params = self.stale.pop(0)
        self.engine.answer(sent.method, params)

    def hear_answer(self) -> None:
        sent, answer = self.wire.answers.popleft()
        self.trading.answered(sent, head(answer), wall_clock_ns())

    def hear(self, topic: str) -> None:
        queue = self.engine.tell_orders if topic == "orders" else self.engine.tell_trades
        self.tell(topic, queue.popleft())

    def tell(self, topic: str, *rows: dict[str, Any]) -> None:
        raw = msgspec.Raw(json.dumps(rows).encode())
        self.trading.notified(f"{SUBACCOUNT}.{topic}", raw, wall_clock_ns())

    def give_up_answers(self) -> None:
        """The answers to all requests are overdue; they may come late."""
        for sent, _ in [*self.wire.answers, *self.wire.requests]:
            if not sent.expired:
                sent.expired = True
                self.trading.lost(sent, "overdue")

    def cut(self) -> None:
        """The link is gone, with all that was on it; requests that left may arrive yet."""
        for sent, _ in [*self.wire.answers, *self.wire.requests]:
            if not sent.expired:
                self.trading.lost(sent, "cut")
        self.stale += self.wire.requests
        self.engine.tell_orders.clear()
        self.engine.tell_trades.clear()
        self.trading.stats.up = True
        self.trading.down("cut")
        self.connect()

    def restart(self) -> None:
        """The process is gone; the next one has its journal."""
        self.cut()
        old, self.own = self.own, OwnOrders(LATENCY_NS)
        self.own.remember(old)
        for state in old.every():
            if not isinstance(state.slot, Empty):
                self.own.inherit(state, wall_clock_ns())
        self.begin()

    def error(self, code: int) -> Head:
        return Head(id=1, error=RpcError(code, "no"))

    # --- what must hold ---

    def may_come(self) -> int:
        """Lots by which requests that did not arrive may yet make the open orders more."""
        open_lots = sum(self.engine.remaining(row) for row in self.engine.open())
        most = open_lots
        rests = {row["order_id"]: self.engine.remaining(row) for row in self.engine.open()}
        for sent, params in [*self.stale, *self.wire.requests]:
            if now_ms() > params.get("reject_timestamp", 2**63):
                continue
            lots = int(Decimal(params.get("amount", "0")) / LISTED.instrument.lot)
            if sent.method == "private/order":
                open_lots += lots
            elif sent.method == "private/replace" and (old_id := params["order_id_to_cancel"]) in rests:
                known = Decimal(params["expected_filled_amount"])
                open_lots -= rests.pop(old_id)
                if known == Decimal(self.engine.orders[old_id]["filled_amount"]):
                    open_lots += lots  # else it makes none
            most = max(most, open_lots)
        return most

    def check(self) -> None:
        """Charged is all that may still fill; no label has two orders; nothing could not be read."""
        worst = sum(self.counted.values()) + self.own.worst(Side.BID)
        least = self.engine.position + self.may_come()
        assert worst >= least, f"charged for {worst}, may become {least}: {self.bid.slot} {self.own.strays}"
        assert not self.wire.unread, self.wire.unread
        for state in self.own.every():
            assert not self.own.is_doubled(state.label), f"two orders believed under {state.label}"
        for event in self.heard:
            label = getattr(event, "label", "")
            order_id = getattr(event, "order_id", label)
            assert not label or parse_label(label) is None or order_id == label, f"an order by its own id: {event}"

    async def come_to_rest(self) -> None:
        """Everything arrives, is told, and what is not known is asked for, until all is known."""
        self.engine.late_trades = 0
        for _ in range(40):
            while self.wire.requests:
                self.carry_out()
            while self.stale:
                self.carry_out_stale()
            for topic, queue in (("orders", self.engine.tell_orders), ("trades", self.engine.tell_trades)):
                while queue:
                    self.hear(topic)
            while self.wire.answers:
                self.hear_answer()
            self.check()
            self.ask()
            await trio.sleep(1.0)
            audited = await self.audit()
            self.check()
            if (
                audited
                and all(isinstance(state.slot, Empty | Live) for state in self.own.every())
                and not self.wire.requests
            ):
                return
        raise AssertionError(f"not known after 40 s: {[state.slot for state in self.own.every()]}")

    def agree(self) -> None:
        """What is believed is what is there."""
        assert sum(self.counted.values()) == self.engine.position
        believed = {state.slot.label: state.slot for state in self.own.every() if isinstance(state.slot, Live)}
        there = {row["label"]: row for row in self.engine.open()}
        assert believed.keys() == there.keys()
        for label, slot in believed.items():
            row = there[label]
            assert slot.filled_lots == self.engine.filled(label)
            assert slot.total_lots - slot.filled_lots == self.engine.remaining(row)
            assert slot.price_ticks == LISTED.instrument.grid.ticks(Decimal(row["limit_price"]))


# --- scenes -----------------------------------------------------------------------------------


@asynccontextmanager
async def playing() -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        await world.trading.inquiry.catch_up(world.wire, SYMBOL)
        world.wire.asked.clear()
        yield world
        nursery.cancel_scope.cancel()


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


def params(world: World) -> dict[str, Any]:
    """Of the last request that left."""
    return world.wire.requests[-1][1]


def resting(world: World, lots: int = 100) -> str:
    """An order that rests, as everybody knows. Returns its label."""
    label = world.place(PRICE, lots)
    world.carry_out()
    world.hear_answer()
    world.engine.tell_orders.clear()
    assert isinstance(world.bid.slot, Live)
    world.heard.clear()
    return label


def replaced(world: World, lots: int = 100) -> None:
    """It was replaced; nobody heard of that on a channel."""
    world.amend(PRICE + 1, lots)
    world.carry_out()
    world.hear_answer()
    world.engine.tell_orders.clear()
    world.heard.clear()


def fill(world: World, label: str, lots: int) -> None:
    """Of the order that rests; the trade is told, the order's change is not."""
    (row,) = world.engine.open(label)
    world.engine.fill(row, lots)
    world.engine.tell_orders.clear()
    world.hear("trades")


def twin(world: World, label: str) -> dict[str, Any]:
    """Somebody else's order with our label."""
    terms = {"direction": "buy", "amount": amount(7), "limit_price": "2999", "time_in_force": "gtc"}
    return world.engine.make(terms | {"label": label, "nonce": "77"})


async def listing(world: World) -> OrderListing:
    found: list[OrderListing] = []
    await world.questions.open_orders(world.wire, found.append)
    return found[-1]


async def asked(world: World, label: str) -> list[OrderRow]:
    found: list[OrderRow] = []
    await world.questions.order(world.wire, SYMBOL, label, found.append)
    return found
