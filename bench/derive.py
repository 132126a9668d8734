"""`python -m bench.derive`: tick to order on Derive, from a book snapshot to both signed orders; signing's share of it.

The real machine, gate and room, warm, in this process, without sockets or tasks. A tick is one snapshot of ten
levels a side that moves both quotes, and the two replaces that it causes. Each tick is timed whole, and its steps by
themselves; the answers come between the ticks. What the pump and a socket add is the same for every exchange:
`python -m bench` has it.
"""

import argparse
import random
import statistics
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import msgspec
import trio

from bench import report
from bench.micro import SETTINGS, frame_steps
from bench.signing import ASSET, OWNER, SECRET
from mmd.core.gate import Room as Space
from mmd.core.gate import review
from mmd.core.machine import SymbolMachine
from mmd.domain import actions as do
from mmd.domain import events as ev
from mmd.domain.ids import base36
from mmd.domain.reasons import Side
from mmd.exchanges.connection import House
from mmd.exchanges.derive import codec
from mmd.exchanges.derive.account import first_budget
from mmd.exchanges.derive.book import SnapshotBook
from mmd.exchanges.derive.errors import ERRORS
from mmd.exchanges.derive.instruments import decode_instruments
from mmd.exchanges.derive.keys import Identity, SessionKey
from mmd.exchanges.derive.requests import OrderParams
from mmd.exchanges.derive.room import Room
from mmd.exchanges.derive.signing import MAINNET
from mmd.exchanges.derive.trading import DeriveOrders
from mmd.exchanges.jsonrpc import Request, decode_head

SYMBOL = "ETH-PERP"
SUBACCOUNT = 30769
START_NS = 1_795_305_600_000_000_000
TICK_NS = 5_000_000
MIDDLE, WALK, LEVELS = 300_000, 100, 10  # in ticks of 0.01 USDC
TICKS, WARM_UP = 20_000, 2_000
STEPS = ("decode and book", "decide", "gate", "sign and make the requests", "encode")

LISTED = {
    "instrument_name": SYMBOL,
    "instrument_type": "perp",
    "base_currency": "ETH",
    "quote_currency": "USDC",
    "tick_size": "0.01",
    "amount_step": "0.01",
    "minimum_amount": "0.1",
    "maximum_amount": "10000",
    "base_asset_address": ASSET,
    "base_asset_sub_id": "0",
    "maker_fee_rate": "0.0001",
    "taker_fee_rate": "0.0003",
    "base_fee": "0.01",
    "is_active": True,
    "perp_details": {"index": "ETH-USD"},
}


class Spread(msgspec.Struct):
    """µs."""

    p50: float
    p99: float


class Figures(msgspec.Struct):
    """`tick`: frame in to the bytes of both requests, timed whole. `steps`: p50 of each. `sign_two`: of both orders.

    `share`: signing's of `tick` at p50. `frames`: unpacking one frame, and packing and writing two. All in µs.
    """

    machine: report.Machine
    ticks: int
    tick: Spread
    steps: dict[str, float]
    sign_two: Spread
    share: float
    frames: tuple[float, float]


def spread(taken: Sequence[int]) -> Spread:
    ordered = sorted(taken)
    return Spread(ordered[len(ordered) // 2] / 1000, ordered[len(ordered) * 99 // 100] / 1000)


class Stage:
    """One symbol, ACTIVE, both quotes live, and a market that moves."""

    def __init__(self) -> None:
        self.now_ns = START_NS
        house = House(
            name="derive",
            service="bench",
            errors=ERRORS,
            wall_clock_ns=lambda: self.now_ns,
            rng=random.Random(1),
            started_ns=START_NS,
            budget=first_budget(),
            order_valid_ms=1000,
        )
        identity = Identity(SessionKey(SECRET), OWNER, SUBACCOUNT)
        self.room = Room(house, identity, MAINNET, order_life_seconds=600)
        page = msgspec.json.encode({"instruments": [LISTED], "pagination": {"count": 1, "num_pages": 1}})
        self.room.listed = decode_instruments(page, "derive").listed
        self.instrument = self.room.listed[SYMBOL].instrument
        house.instruments[SYMBOL] = self.instrument
        self.room.indexes[SYMBOL] = MIDDLE / 100
        self.orders = DeriveOrders(self.room)
        self.book = SnapshotBook(self.instrument, lambda: self.now_ns // 1_000_000)
        self.machine = SymbolMachine(self.instrument, SETTINGS, base36(START_NS // 1_000_000), START_NS)
        self._ids = self._step = 0
        self._resting: dict[str, dict[str, object]] = {}  # by label, as the exchange has them
        self._begin()

    def _begin(self) -> None:
        price = MIDDLE / 100
        first: list[ev.Mail] = [
            ev.DataLinkUp(self.now_ns),
            self.top(self.message()),
            ev.Ticker(price, price, 0.0, price * 0.9, price * 1.1, 0.0, 0.0, self.now_ns, self.now_ns),
            ev.OrdersReported((), self.now_ns),
            ev.PositionReported(0, Decimal(0), self.now_ns),
            ev.TradeLinkUp(True, self.now_ns),
            ev.BoundsSet(1, -10_000, 10_000, self.now_ns),
            ev.ResumeRequested(1, "bench", "bench", self.now_ns),
        ]
        self.settle(orders_of(self.machine.handle(first, self.now_ns)))

    # --- the exchange ---

    def message(self) -> bytes:
        """The next snapshot: the middle goes up or down by two ticks."""
        self._step += 1
        self.now_ns += TICK_NS
        middle = MIDDLE + 2 * (WALK - abs(self._step % (2 * WALK) - WALK))
        bids, asks = (
            [[f"{(middle + way * (1 + level)) / 100:.2f}", f"{10 + level}.5"] for level in range(LEVELS)]
            for way in (-1, 1)
        )
        data = {
            "timestamp": self.now_ns // 1_000_000,
            "instrument_name": SYMBOL,
            "publish_id": self._step,
            "bids": bids,
            "asks": asks,
        }
        params = {"channel": f"orderbook.{SYMBOL}.1.10", "data": data}
        return msgspec.json.encode({"method": "subscription", "params": params})

    def settle(self, wanted: Sequence[do.Order]) -> None:
        """The exchange takes all of these."""
        for order in wanted:
            method, params = self.orders.request(self.instrument, order, None, mmp=False)
            self.answer(order, method, params)

    def answer(self, order: do.Order, method: str, params: object) -> None:
        assert isinstance(params, OrderParams), f"both quotes rest, and move: {method}"
        self._ids += 1
        made = {
            "subaccount_id": SUBACCOUNT,
            "order_id": f"order-{self._ids}",
            "instrument_name": SYMBOL,
            "direction": params.direction,
            "amount": params.amount,
            "filled_amount": "0",
            "limit_price": params.limit_price,
            "order_status": "open",
            "label": params.label,
            "nonce": params.nonce,
            "signature_expiry_sec": params.signature_expiry_sec,
            "creation_timestamp": self.now_ns // 1_000_000,
            "last_update_timestamp": self.now_ns // 1_000_000,
        }
        result: dict[str, object] = {"order": made, "trades": []}
        if method == "private/replace":
            old = self._resting[params.label]
            result["cancelled_order"] = {**old, "order_status": "cancelled", "cancel_reason": "user_request"}
        self._resting[params.label] = made
        raw = msgspec.Raw(msgspec.json.encode(result))
        events = self.orders.reply(order, raw, self.instrument, self.now_ns)
        assert events is not None, "it is what was asked for"
        for event in events:
            self.machine.handle([event], self.now_ns)

    # --- the daemon ---

    def top(self, message: bytes) -> ev.BookTop:
        params = decode_head(message).params
        assert params is not None, "a notification"
        found = self.book.take(params.data, self.now_ns)
        assert isinstance(found, ev.BookTop), f"the book is whole, and new: {found}"
        return found

    def tick(self, marks: list[int]) -> list[bytes]:
        """Bytes in, bytes out; `marks` gets the time after each step. The answers are taken afterwards."""
        message = self.message()
        clock, now_ns, machine = time.perf_counter_ns, self.now_ns, self.machine
        marks.append(clock())
        top = self.top(message)
        marks.append(clock())
        wanted = orders_of(machine.handle([top], now_ns))
        marks.append(clock())
        for order in wanted:
            if not isinstance(order, do.CancelOrder):
                review(order, machine.exposure(order), Space(True, True))
        marks.append(clock())
        until_ms = now_ns // 1_000_000 + 1000
        requests = [self.orders.request(self.instrument, order, until_ms, mmp=False) for order in wanted]
        marks.append(clock())
        sent = [codec.encode(Request(self._ids + number, *found)) for number, found in enumerate(requests)]
        marks.append(clock())
        assert [method for method, _ in requests] == ["private/replace"] * 2, f"both quotes follow: {wanted}"
        for order, (method, params) in zip(wanted, requests, strict=True):
            self.answer(order, method, params)
        return sent


def orders_of(decisions: Sequence[do.Decision]) -> list[do.Order]:
    return [one for one in decisions if isinstance(one, do.PlaceOrder | do.AmendOrder | do.CancelOrder)]


def sign_two(stage: Stage, ticks: int) -> list[int]:
    """ns for what of a tick is signing: nonces, hashes, signatures, and the texts of what was signed."""
    size_lots, fee = 1000, stage.room.listed[SYMBOL].tick_e18
    taken = []
    for number in range(ticks):
        stage.now_ns += TICK_NS
        price_ticks = MIDDLE + number % WALK
        began = time.perf_counter_ns()
        for side in Side:
            stage.room.sign(SYMBOL, side, price_ticks, size_lots, fee, mmp=False)
        taken.append(time.perf_counter_ns() - began)
    return taken


def measure(ticks: int) -> Figures:
    stage, on = Stage(), report.machine()
    walked: list[list[int]] = []
    sent: list[list[bytes]] = []
    for number in range(WARM_UP + ticks):
        marks: list[int] = []
        out = stage.tick(marks)
        if number >= WARM_UP:
            walked.append(marks)
            sent.append(out)
    whole = spread([marks[-1] - marks[0] for marks in walked])
    steps = {
        name: statistics.median(marks[at + 1] - marks[at] for marks in walked) / 1000 for at, name in enumerate(STEPS)
    }
    signing = spread(sign_two(stage, ticks))
    messages = [stage.message() for _ in sent[:400]]
    frames = trio.run(frame_steps, messages, sent[: len(messages)], 15)
    return Figures(on, ticks, whole, steps, signing, signing.p50 / whole.p50, frames)


def table(found: Figures) -> str:
    on = found.machine
    rows = [
        f"{on.cpu}, {on.cores} cores, Linux {on.kernel}, load before {on.load_before:.2f}, Python {on.python}",
        f"{found.ticks:,} ticks; µs",
        "",
        f"{'a snapshot in, both signed orders out: p50 / p99':<52} {found.tick.p50:8.1f} {found.tick.p99:8.1f}",
        *(f"  {name:<50} {taken:8.1f}" for name, taken in found.steps.items()),
        f"{'signing both orders: p50 / p99':<52} {found.sign_two.p50:8.1f} {found.sign_two.p99:8.1f}",
        f"{'  one order':<52} {found.sign_two.p50 / 2:8.1f} {found.sign_two.p99 / 2:8.1f}",
        f"{'  share of tick to order':<52} {found.share:8.0%}",
        f"{'a frame in / two frames out':<52} {found.frames[0]:8.1f} {found.frames[1]:8.1f}",
    ]
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.derive", description="Tick to order on Derive.")
    parser.add_argument("--ticks", metavar="N", type=int, default=TICKS, help="how many are timed")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every figure there as well")
    args = parser.parse_args()
    found = measure(args.ticks)
    print(table(found))
    if args.json is not None:
        args.json.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")


if __name__ == "__main__":
    main()
