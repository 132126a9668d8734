"""What one symbol is worth to the portfolio, read off its machine; nothing changes."""

from mmd.core.machine import SymbolMachine
from mmd.core.pnl import usd_value
from mmd.domain.totals import Valued


def pnl_usd(machine: SymbolMachine) -> float | None:
    """Realised + unrealised - fees + funding in USD; None where a position cannot be valued."""
    profit = machine.position.profit(machine.mark_price)
    return None if profit is None else usd_value(machine.instrument, profit.total, machine.market.index)


def valued(machine: SymbolMachine, now_ns: int) -> Valued | None:
    """Its numbers; None while its position is not known: that is none that could be told.

    A position whose mark is stale has no value: by the last one known every loss would be as it was then.
    """
    position, market = machine.position, machine.market
    if not position.known:
        return None
    key, lots = machine.instrument.key, position.lots
    if lots and market.mark_is_stale(now_ns, machine.rules):
        return Valued(key, lots, 0.0, 0.0, None)
    return Valued(key, lots, machine.mark_price, market.index, pnl_usd(machine))
