"""Where a tick's time goes inside one process: each step of the hot path alone, in µs, without sockets or tasks.

A tick is one book change that moves both quotes, and the answers to the two amends it causes.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from decimal import Decimal

import msgspec
import trio

from bench.frames import frame, upgrade
from bench.venue import Account, Params, Request, Venue, decode_request
from mmd.core.budget import Budget
from mmd.core.gate import Room, review
from mmd.core.machine import SymbolMachine
from mmd.domain import actions as do
from mmd.domain import events as ev
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Mode
from mmd.domain.settings import DataRules, PortfolioLimits, Profile, SymbolLimits, SymbolSettings
from mmd.exchanges.deribit import codec, orders
from mmd.exchanges.deribit.book import L2Book
from mmd.exchanges.deribit.instruments import decode_instruments
from mmd.exchanges.jsonrpc import Request as RpcRequest
from mmd.exchanges.jsonrpc import decode_head
from mmd.exchanges.link import Link
from mmd.shell.alerts import Alerts
from mmd.shell.clock import Clock
from mmd.shell.counters import Counters, SymbolCounters
from mmd.shell.diary import Diary
from mmd.shell.pump import Pump
from mmd.shell.worker import Worker

SYMBOL = "BTC-PERPETUAL"
TICK_NS = 1_000_000
TICKS = 400

SETTINGS = SymbolSettings(
    service="bench",
    mode=Mode.LIVE,
    profile=Profile(name="bench", spread_bps=10, band_bps=2000, size=Decimal(10), tolerance_bps=0, refresh_seconds=0),
    limits=SymbolLimits(
        max_position=Decimal(1000),
        max_order_size=Decimal(100),
        collar_bps=1000,
        max_places_per_second=1e6,
        max_amends_per_second=1e6,
    ),
    data=DataRules(stale_seconds=600),
)


class Micro(msgspec.Struct):
    """µs per tick (both quotes, both answers); `tick_path` is the sum from frame to frame."""

    frame_in: float
    decode_and_book: float
    decide: float
    gate: float
    encode: float
    frame_out: float
    decode_answers: float
    decide_answers: float
    pump: float

    @property
    def tick_path(self) -> float:
        return self.frame_in + self.decode_and_book + self.decide + self.gate + self.encode + self.frame_out


class NoExchange:
    """Takes what the outbox hands over; nothing leaves."""

    def __init__(self) -> None:
        self.budget = Budget(1e9, 1e9, 0)
        self.requests: list[tuple[str, do.Request]] = []
        self.dirty = False

    def submit(self, requests: Sequence[tuple[str, do.Request]]) -> None:
        self.requests = list(requests)


class Stage:
    """One symbol, ACTIVE, both quotes live, and a market that moves."""

    def __init__(self) -> None:
        self.venue = Venue([SYMBOL])
        self.account = Account([SYMBOL])
        self.market = self.account.markets[SYMBOL]
        self.instrument = read_instrument(self.venue, self.account)
        self.book = L2Book(self.instrument)
        self.now_ns = 1_700_000_000_000_000_000
        self.machine = SymbolMachine(self.instrument, SETTINGS, "epoch", self.now_ns)
        self._id = 0
        ticker, _ = codec.read_ticker(data_of(self.market.ticker()), self.now_ns)
        opening: list[ev.Mail] = [
            ev.DataLinkUp(self.now_ns),
            self.top(self.market.snapshot()),
            ticker,
            ev.OrdersReported((), self.now_ns),
            ev.PositionReported(0, Decimal(0), self.now_ns),
            ev.TradeLinkUp(True, self.now_ns),
            ev.BoundsSet(1, -100, 100, self.now_ns),
            ev.ResumeRequested(1, "bench", "bench", self.now_ns),
        ]
        placed = self.machine.handle(opening, self.now_ns)
        self.machine.handle(self.events(self.answers(self.requests(placed))), self.now_ns)
        self.tick()

    def top(self, message: bytes) -> ev.BookTop:
        found = self.book.apply(codec.decode_book(data_of(message)), self.now_ns)
        assert isinstance(found, ev.BookTop), f"the peer's book is whole: {found}"
        return found

    def requests(self, decisions: Sequence[do.Decision]) -> list[do.Order]:
        return [d for d in decisions if isinstance(d, do.PlaceOrder | do.AmendOrder | do.CancelOrder)]

    def encode(self, wanted: Sequence[do.Order]) -> list[bytes]:
        out = []
        for order in wanted:
            self._id += 1
            out.append(codec.encode(RpcRequest(self._id, *codec.order_request(self.instrument, order))))
        return out

    def answers(self, wanted: Sequence[do.Order]) -> list[tuple[do.Order, bytes]]:
        """What the venue says to these orders."""
        encoded = zip(wanted, self.encode(wanted), strict=True)
        return [(order, self.venue.answer(decode_request(raw), self.account, set())[0]) for order, raw in encoded]

    def events(self, answers: Sequence[tuple[do.Order, bytes]]) -> list[ev.Mail]:
        found: list[ev.Mail] = []
        for order, raw in answers:
            found += orders.reply(order, decode_head(raw).result, self.instrument, self.now_ns)
        return found

    def tick(self) -> tuple[bytes, ev.BookTop, list[do.Order], list[tuple[do.Order, bytes]], list[ev.Mail]]:
        """One whole tick: message, top, orders, their answers raw and as events."""
        self.now_ns += TICK_NS
        message = self.market.advance()
        top = self.top(message)
        wanted = self.requests(self.machine.handle([top], self.now_ns))
        answers = self.answers(wanted)
        events = self.events(answers)
        for event in events:
            self.machine.handle([event], self.now_ns)
        assert [type(order) for order in wanted] == [do.AmendOrder, do.AmendOrder], f"both quotes follow: {wanted}"
        return message, top, wanted, answers, events


def data_of(message: bytes) -> msgspec.Raw:
    params = decode_head(message).params
    assert params is not None, "a notification"
    return params.data


def read_instrument(venue: Venue, account: Account) -> Instrument:
    """As the adapter reads it from the venue's listing."""
    raw = venue.answer(Request(1, "public/get_instruments", Params()), account, set())[0]
    return decode_instruments(decode_head(raw).result, "deribit")[0][SYMBOL]


def timed(step: Callable[[int], None], repeats: int) -> float:
    """µs of one call: the median over the repeats of the mean over the ticks."""
    found = []
    for _ in range(repeats):
        started = time.perf_counter_ns()
        for number in range(TICKS):
            step(number)
        found.append((time.perf_counter_ns() - started) / TICKS / 1000)
    return statistics.median(found)


class Wire(trio.abc.Stream):
    """The link's stream: a frame at every read, and what is written goes nowhere."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self._request = b""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return self.frames.pop() if self.frames else upgrade(self._request)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._request = bytes(data)

    async def wait_send_all_might_not_block(self) -> None:
        """It never does."""

    async def aclose(self) -> None:
        """Nothing to close."""


async def frame_steps(messages: list[bytes], requests: list[list[bytes]], repeats: int) -> tuple[float, float]:
    """A frame in; two frames out in one write."""
    wire = Wire()
    link = Link(wire, "127.0.0.1", "/")
    await link.handshake()
    reads: list[float] = []
    writes: list[float] = []
    for _ in range(repeats):
        wire.frames = [frame(message) for message in messages]
        started = time.perf_counter_ns()
        for _ in messages:
            await link.receive()
        read = time.perf_counter_ns()
        for pair in requests:
            for payload in pair:
                link.send(payload)
            await link.flush()
        reads.append((read - started) / len(messages) / 1000)
        writes.append((time.perf_counter_ns() - read) / len(requests) / 1000)
    return statistics.median(reads), statistics.median(writes)


def decide_steps(repeats: int) -> tuple[float, float]:
    """The machine alone: the tick, and its two answers one by one."""
    decide: list[float] = []
    settle: list[float] = []
    stage = Stage()
    machine = stage.machine
    for _ in range(repeats):
        tick_ns = settle_ns = 0
        for _ in range(TICKS):
            stage.now_ns += TICK_NS
            now_ns = stage.now_ns
            top = stage.top(stage.market.advance())
            started = time.perf_counter_ns()
            decisions = machine.handle([top], now_ns)
            tick_ns += time.perf_counter_ns() - started
            events = stage.events(stage.answers(stage.requests(decisions)))
            started = time.perf_counter_ns()
            for event in events:
                machine.handle([event], now_ns)
            settle_ns += time.perf_counter_ns() - started
        decide.append(tick_ns / TICKS / 1000)
        settle.append(settle_ns / TICKS / 1000)
    return statistics.median(decide), statistics.median(settle)


def gate_step(repeats: int) -> float:
    stage = Stage()
    wanted = stage.tick()[2]
    machine = stage.machine

    def step(number: int) -> None:
        for order in wanted:
            if not isinstance(order, do.CancelOrder):
                review(order, machine.exposure(order), Room(True, True))

    return timed(step, repeats)


async def pump_step(repeats: int) -> float:
    """What the pump, the mailbox, the gate, the outbox and the counters add to the machine's own time."""
    stage = Stage()
    exchange = NoExchange()
    clock = Clock(lambda: stage.now_ns)
    diary, counters = Diary(clock), Counters()
    alerts = Alerts(clock, diary, counters, "bench")
    pump = Pump(clock, diary, counters, {"deribit": exchange}, alerts)  # type: ignore[dict-item]  # only its budget is used
    pump.outbox.limits = PortfolioLimits(
        max_exposure={}, max_notional_usd=Decimal(1), max_drawdown_usd=Decimal(1), max_open_orders=1000
    )
    worker = Worker(stage.machine, SymbolCounters())
    pump.add(worker)
    found = []
    for _ in range(repeats):
        spent_ns = 0
        for _ in range(TICKS):
            top = stage.top(stage.market.advance())
            started = time.perf_counter_ns()
            pump.post(worker, top)
            pump.run()
            spent_ns += time.perf_counter_ns() - started
            wanted = stage.requests([request for _, request in exchange.requests])
            for event in stage.events(stage.answers(wanted)):
                pump.post(worker, event)
            pump.run()
        found.append(spent_ns / TICKS / 1000)
    return statistics.median(found)


def measure(*, repeats: int) -> Micro:
    """All steps; 15 repeats take about ten seconds."""
    stage = Stage()
    ticks = [stage.tick() for _ in range(TICKS)]
    messages = [message for message, *_ in ticks]
    wanted = [found for _, _, found, _, _ in ticks]
    answers = [found for _, _, _, found, _ in ticks]
    frame_in, frame_out = trio.run(frame_steps, messages, [stage.encode(found) for found in wanted], repeats)

    def encode(number: int) -> None:
        stage.encode(wanted[number])

    def decode_answers(number: int) -> None:
        stage.events(answers[number])

    decide, settle = decide_steps(repeats)
    gate = gate_step(repeats)
    return Micro(
        frame_in=frame_in,
        decode_and_book=book_step(repeats),
        decide=decide,
        gate=gate,
        encode=timed(encode, repeats),
        frame_out=frame_out,
        decode_answers=timed(decode_answers, repeats),
        decide_answers=settle,
        pump=trio.run(pump_step, repeats) - decide - gate,
    )


def book_step(repeats: int) -> float:
    """Bytes of a change to the new top of the book."""
    found = []
    for _ in range(repeats):
        stage = Stage()
        messages = [stage.market.advance() for _ in range(TICKS)]
        started = time.perf_counter_ns()
        for message in messages:
            stage.top(message)
        found.append((time.perf_counter_ns() - started) / TICKS / 1000)
    return statistics.median(found)
