"""`python -m bench.memory`: what it costs to save a machine's state and to load it again, and how many bytes it is."""

import statistics
import time
import zlib
from collections.abc import Callable
from decimal import Decimal

import msgspec

from bench.micro import Stage
from mmd.core.machine import SymbolMachine
from mmd.core.pnl import REMEMBERED
from mmd.core.portfolio import PortfolioMachine
from mmd.domain.events import OrderFilled
from mmd.domain.ids import base36
from mmd.domain.reasons import Side
from mmd.domain.settings import KillSwitches, PortfolioLimits
from mmd.domain.totals import SymbolJoined, Valued
from mmd.replay.memory import load, save

SECOND_NS = 1_000_000_000
SYMBOLS = 100
TICKS = 50


class Cost(msgspec.Struct):
    """Of one machine: medians in ms, bytes as they are and after zlib's level 6."""

    name: str
    save_ms: float
    load_ms: float
    size: int
    packed: int


def traded(fills: int) -> SymbolMachine:
    """ACTIVE, both quotes live, and so many executions of as many orders, one a second."""
    stage = Stage()
    for _ in range(TICKS):
        stage.tick()
    machine = stage.machine
    for number in range(1, fills + 1):
        stage.now_ns += SECOND_NS
        side = Side.BID if number % 2 else Side.ASK
        label = f"mmd-bench-BTC-PERPETUAL-{'b' if number % 2 else 'a'}-lz3k9a1b-{base36(number)}"
        fill = OrderFilled(
            label=label,
            order_id=str(70_000_000_000 + number),
            trade_id=str(310_000_000 + 7 * number),
            side=side,
            price=Decimal(60_000 + number % 50),
            size_lots=1,
            fee=Decimal("-0.00000016"),
            fee_currency="BTC",
            maker=True,
            index=60_000.0,
            exchange_ns=stage.now_ns,
            received_ns=stage.now_ns,
        )
        machine.handle([fill], stage.now_ns)
    assert machine.position.fills == fills
    return machine


def portfolio() -> PortfolioMachine:
    """With a hundred symbols that are valued and have their share."""
    instrument = Stage().instrument
    names = [msgspec.structs.replace(instrument, symbol=f"{instrument.symbol}-{n}") for n in range(SYMBOLS)]
    limits = PortfolioLimits(
        max_exposure={instrument.base: Decimal(100)},
        max_notional_usd=Decimal(10_000_000),
        max_drawdown_usd=Decimal(10_000),
    )
    machine = PortfolioMachine(limits, KillSwitches(), SECOND_NS)
    machine.handle([SymbolJoined(each, 1000) for each in names], SECOND_NS)
    machine.handle([Valued(each.key, 10, 60_000.0, 60_000.0, 1.25) for each in names], SECOND_NS)
    return machine


def timed(step: Callable[[], object], repeats: int) -> float:
    """ms of one call, the median."""
    found = []
    for _ in range(repeats):
        started = time.perf_counter_ns()
        step()
        found.append((time.perf_counter_ns() - started) / 1e6)
    return statistics.median(found)


def cost(name: str, machine: SymbolMachine | PortfolioMachine, repeats: int) -> Cost:
    data = save(machine)
    assert save(load(data)) == data, "what was loaded is what was saved"
    saving, loading = timed(lambda: save(machine), repeats), timed(lambda: load(data), repeats)
    return Cost(name, saving, loading, len(data), len(zlib.compress(data, 6)))


def measure(*, repeats: int) -> list[Cost]:
    """200 repeats take about five seconds."""
    return [
        cost("symbol, no fills yet", traded(0), repeats),
        cost("symbol, 1,000 fills", traded(1_000), repeats),
        cost(f"symbol, {REMEMBERED:,} fills: all that is remembered", traded(REMEMBERED), max(1, repeats // 10)),
        cost(f"portfolio of {SYMBOLS} symbols", portfolio(), repeats),
    ]


def main() -> None:
    print("| state | save | load | bytes | packed |\n| --- | --- | --- | --- | --- |")
    for each in measure(repeats=200):
        print(f"| {each.name} | {each.save_ms:.2f} ms | {each.load_ms:.2f} ms | {each.size:,} | {each.packed:,} |")


if __name__ == "__main__":
    main()
