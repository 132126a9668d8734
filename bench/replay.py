"""`python -m bench.replay`: how fast a journal is replayed, and how long a start takes against its length.

Real machines quote on a market that walks at random, in simulated time: ten books a second and symbol, every
order acknowledged, an execution now and then, the portfolio valued four times a second, files of 32 MiB with
the state of every machine, as the daemon writes them.
"""

import argparse
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from random import Random

import msgspec

from bench import report
from mmd.core.machine import SymbolMachine
from mmd.core.portfolio import PortfolioMachine
from mmd.domain import events as ev
from mmd.domain.actions import AmendOrder, CancelOrder, Decision, PlaceOrder
from mmd.domain.instruments import Contract, Instrument, Kind
from mmd.domain.reasons import Mode, Side, State
from mmd.domain.settings import (
    DataRules,
    FsyncPolicy,
    JournalSettings,
    KillSwitches,
    PortfolioLimits,
    Profile,
    SymbolLimits,
    SymbolSettings,
)
from mmd.domain.totals import BoundsAcked, GrantBounds, PortfolioEvent, SymbolJoined, Told
from mmd.domain.units import Grid
from mmd.journal import records as rec
from mmd.journal.reader import lines
from mmd.journal.writer import Journal
from mmd.replay.collector import no_collector
from mmd.replay.memory import CODE, load, save
from mmd.replay.recover import recover
from mmd.replay.replayer import Replayer, decode, moves
from mmd.replay.valuing import valued

NS = 1_000_000_000
MIB = 1 << 20
START_NS = 1_790_000_000 * NS
BOOKS_PER_SECOND = 10
VALUED_EVERY_NS = NS // 4
FILL_CHANCE = 0.002
SETTINGS = SymbolSettings(
    service="bench",
    mode=Mode.LIVE,
    profile=Profile(
        name="bench", spread_bps=10.0, band_bps=2000.0, size=Decimal(10), tolerance_bps=0.2, refresh_seconds=0.2
    ),
    limits=SymbolLimits(
        max_position=Decimal(10_000_000), max_order_size=Decimal(100), collar_bps=1000.0, max_fills=1_000_000
    ),
    data=DataRules(stale_seconds=600.0),
)
TOTALS = PortfolioLimits(
    max_exposure={"BTC": Decimal(10_000_000)},
    max_notional_usd=Decimal(10**12),
    max_drawdown_usd=Decimal(10**12),
)


class Lane:
    """One symbol: its machine, a market, and an exchange that says yes."""

    def __init__(self, number: int, now_ns: int) -> None:
        self.instrument = Instrument(
            exchange="deribit",
            symbol=f"BTC-{number}",
            kind=Kind.PERPETUAL,
            contract=Contract.INVERSE,
            base="BTC",
            quote="USD",
            settlement="BTC",
            index="btc_usd",
            grid=Grid(Decimal("0.5")),
            lot=Decimal(10),
            min_lots=1,
            contract_size=Decimal(10),
        )
        self.key = self.instrument.key
        self.machine = SymbolMachine(self.instrument, SETTINGS, "bench", now_ns)
        self.mid = 130_000
        self.orders = 31_415_926_535
        self.trades = 0

    def book(self, chance: Random, now_ns: int) -> ev.BookTop:
        draw = chance.randrange
        self.mid += draw(-8, 9)
        bids = tuple((self.mid - 1 - 2 * level, draw(1, 20_000)) for level in range(5))
        asks = tuple((self.mid + 1 + 2 * level, draw(1, 20_000)) for level in range(5))
        return ev.BookTop(bids, asks, self.orders + now_ns // NS, now_ns - 2_000_000, now_ns)

    def ticker(self, now_ns: int) -> ev.Ticker:
        price = self.mid * 0.5
        return ev.Ticker(price, price, price, price * 0.9, price * 1.1, 0.0, 0.0, now_ns - 2_000_000, now_ns)

    def answer(self, actions: list[Decision], now_ns: int) -> list[ev.Mail]:
        told: list[ev.Mail] = []
        for action in actions:
            match action:
                case PlaceOrder(label=label, price_ticks=price, size_lots=size):
                    self.orders += 1
                    told.append(ev.OrderAcked(label, str(self.orders), price, size, size, now_ns))
                case AmendOrder(label=label, order_id=order, price_ticks=price, total_lots=total, remaining_lots=left):
                    told.append(ev.OrderAcked(label, order, price, left, total, now_ns))
                case CancelOrder(label=label, order_id=order):
                    told.append(ev.OrderClosed(label, order, "user_request", 0, now_ns))
        return told

    def filled(self, now_ns: int) -> list[ev.Mail]:
        """One lot of the bid or the ask."""
        side = Side.BID if self.machine.position.lots <= 0 else Side.ASK
        state = self.machine.own.bid if side is Side.BID else self.machine.own.ask
        if not state.label:
            return []
        self.trades += 1
        price = self.instrument.grid.price(self.mid)
        told = (state.label, str(self.orders), f"t{self.trades}", side, price, 1, Decimal(0), "BTC", True, float(price))
        return [ev.OrderFilled(*told, now_ns - 1_000_000, now_ns)]


class Plant:
    """Writes a journal as the daemon does."""

    def __init__(self, directory: Path, symbols: int) -> None:
        self.now_ns = START_NS
        self.chance = Random(1)
        self.batches = self.quotes = 0
        settings = JournalSettings(fsync=FsyncPolicy.NEVER, reserve_mib=0.0, compress=False)
        self.journal = Journal(directory, settings, service="bench", version="bench", code=CODE, now_ns=START_NS)
        self.lanes = {lane.key: lane for lane in (Lane(number, START_NS) for number in range(symbols))}
        self.portfolio = PortfolioMachine(TOTALS, KillSwitches(), START_NS)
        self.journal.put(rec.Started, START_NS, version="bench", pid=1, host="bench")
        self.journal.put(rec.Began, START_NS, limits=TOTALS, switches=KillSwitches())
        for lane in self.lanes.values():
            self.journal.put(
                rec.Joined, START_NS, key=lane.key, instrument=lane.instrument, settings=SETTINGS, epoch="bench"
            )
        self._open()

    def _open(self) -> None:
        joined = tuple(
            SymbolJoined(lane.instrument, lane.machine.rules.max_position_lots) for lane in self.lanes.values()
        )
        self.value(joined, ())
        for lane in self.lanes.values():
            now = self.now_ns
            known: list[ev.Mail] = [ev.OrdersReported((), now), ev.PositionReported(0, Decimal(0), now)]
            links = [ev.DataLinkUp(now), ev.TradeLinkUp(True, now), *known]
            self.batch(lane, [*links, lane.book(self.chance, now), lane.ticker(now)])
        self.value((), None)
        for lane in self.lanes.values():
            self.batch(lane, [ev.ResumeRequested(1, "bench", "bench", self.now_ns)])
            assert lane.machine.state is State.ACTIVE, "nothing would be quoted"

    def batch(self, lane: Lane, events: list[ev.Mail]) -> None:
        """Decide, write, and let the exchange answer until it has nothing to say."""
        while events:
            actions = lane.machine.handle(events, self.now_ns)
            self.journal.batch(lane.key, self.now_ns, events, actions)
            self.batches += 1
            self.quotes += sum(isinstance(action, PlaceOrder | AmendOrder) for action in actions)
            events = lane.answer(actions, self.now_ns)

    def value(self, told: tuple[Told, ...], keys: tuple[str, ...] | None) -> None:
        looked_at = self.lanes if keys is None else keys
        values = [valued(self.lanes[key].machine, self.now_ns) for key in looked_at]
        events: list[PortfolioEvent] = [*told, *(value for value in values if value is not None)]
        actions = self.portfolio.handle(events, self.now_ns)
        self.journal.totals(self.now_ns, told, keys, actions)
        acked: list[Told] = []
        for action in actions:
            if isinstance(action, GrantBounds):
                lane = self.lanes[action.key]
                self.batch(lane, [ev.BoundsSet(action.version, action.min_lots, action.max_lots, self.now_ns)])
                acked.append(BoundsAcked(action.key, action.version))
        if acked:
            self.value(tuple(acked), ())

    def run(self, size: int) -> None:
        """Until it has written so many bytes in all."""
        valued_ns = self.now_ns
        step_ns = NS // (BOOKS_PER_SECOND * len(self.lanes))
        while self.journal.bytes_written < size:
            for lane in self.lanes.values():
                self.now_ns += step_ns
                events: list[ev.Mail] = [lane.book(self.chance, self.now_ns)]
                if self.chance.random() < FILL_CHANCE:
                    events += lane.filled(self.now_ns)
                self.batch(lane, events)
                if self.now_ns - valued_ns >= VALUED_EVERY_NS:
                    valued_ns = self.now_ns
                    self.value((), None)
                self.journal.commit()
            if self.journal.due(self.now_ns):
                self.rotate()
        self.journal.commit()

    def rotate(self) -> None:
        self.journal.rotate(self.now_ns)
        for lane in self.lanes.values():
            self.journal.put(rec.Snapshot, self.now_ns, key=lane.key, state=msgspec.Raw(save(lane.machine)))
        self.journal.put(rec.Snapshot, self.now_ns, key="", state=msgspec.Raw(save(self.portfolio)))
        self.journal.put(rec.SnapshotsDone, self.now_ns)


class Replayed(msgspec.Struct):
    """One whole replay, the chain proven on the way."""

    mib: float
    records: int
    seconds: float
    cpu_seconds: float
    recorded_seconds: float
    differences: int


class Start(msgspec.Struct):
    """What recovery takes of a start. `read`: records that it went through."""

    mib: float
    hours: float
    files: int
    read: int
    seconds: float
    cpu_seconds: float


class Figures(msgspec.Struct):
    machine: report.Machine
    symbols: int
    bytes_per_batch: float
    bytes_per_quote: float
    replay: Replayed
    starts: list[Start]
    load_ms: float


def replayed(directory: Path) -> Replayed:
    """As `mmd replay` does it."""
    replayer = Replayer()
    first = last = records = size = differences = 0
    began, worked = time.perf_counter(), time.process_time()
    with no_collector():
        for line in lines(directory):
            records += 1
            size += len(line.body)
            if moves(line.body):
                record = decode(line.body, line.seq)
                first, last = first or record.at, record.at
                differences += replayer.feed(record) is not None
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - worked
    return Replayed(size / MIB, records, seconds, cpu_seconds, (last - first) / NS, differences)


def started(plant: Plant, directory: Path) -> Start:
    began, worked = time.perf_counter(), time.process_time()
    found = recover(directory)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - worked
    assert not found.differences and not found.broken, "the recovery is not what was"
    hours = (plant.now_ns - START_NS) / NS / 3600.0
    written = plant.journal.bytes_written / MIB
    return Start(written, hours, plant.journal.segment, found.records, seconds, cpu_seconds)


def measure(place: Path, symbols: int, mib: list[int]) -> Figures:
    """Journals of these sizes, each a part of the next."""
    with tempfile.TemporaryDirectory(dir=place) as directory:
        path = Path(directory) / "journal"
        plant = Plant(path, symbols)
        starts = []
        replay = None
        for size in mib:
            say(f"writing up to {size} MiB")
            plant.run(size * MIB)
            starts.append(started(plant, path))
            if replay is None or size <= 128:
                replay = replayed(path)
        state = save(next(iter(plant.lanes.values())).machine)
        began = time.perf_counter()
        for _ in range(20):
            load(state)
        load_ms = (time.perf_counter() - began) / 20 * 1e3
        written = plant.journal.bytes_written
        plant.journal.close()
        assert replay is not None, "there is a size"
        return Figures(
            report.machine(), symbols, written / plant.batches, written / plant.quotes, replay, starts, load_ms
        )


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def table(found: Figures) -> str:
    on, replay = found.machine, found.replay
    said = [
        f"{on.cpu}, {on.cores} cores, Linux {on.kernel}, Python {on.python}, load before {on.load_before:.2f}",
        f"{found.symbols} symbols, {BOOKS_PER_SECOND} books a second each: {found.bytes_per_batch:.0f} bytes a batch, "
        f"{found.bytes_per_quote:.0f} a quote; state of one symbol, loaded: {found.load_ms:.2f} ms",
        "",
        f"replay of {replay.mib:.0f} MiB, {replay.recorded_seconds:.0f} s, proven and compared: "
        f"{replay.differences} differences",
    ]
    for name, seconds in (("clock", replay.seconds), ("CPU", replay.cpu_seconds)):
        said.append(
            f"  by {name:<6} {replay.records / seconds:>8,.0f} records/s {replay.recorded_seconds / seconds:>6,.0f} x "
            f"real time {seconds / replay.mib * 100.0:>6.1f} s for 100 MiB"
        )
    said += ["", f"{'journal':>10} {'minutes':>8} {'files':>6} {'read at start':>14} {'recovery':>10} {'CPU':>8}"]
    for start in found.starts:
        said.append(
            f"{start.mib:>6.0f} MiB {start.hours * 60.0:>8.1f} {start.files:>6} {start.read:>14,} "
            f"{start.seconds:>8.2f} s {start.cpu_seconds:>6.2f} s"
        )
    return "\n".join(said)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.replay", description=__doc__)
    parser.add_argument("--symbols", type=int, default=50)
    parser.add_argument("--mib", type=int, nargs="+", default=[8, 31, 100, 250], help="journals of these sizes")
    parser.add_argument("--directory", type=Path, default=Path(), help="where to write them")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every figure there as well")
    args = parser.parse_args()
    found = measure(args.directory, args.symbols, sorted(args.mib))
    print(table(found))
    if args.json is not None:
        args.json.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")


if __name__ == "__main__":
    main()
