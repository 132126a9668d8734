"""What one symbol is worth to the portfolio, read off its machine; nothing changes."""

from mmd.core.machine import SymbolMachine
from mmd.core.pnl import usd_value
from mmd.domain.totals import Valued


def pnl_usd(machine: SymbolMachine) -> float | None:
    """Realised + unrealised - fees + funding in USD; None where a position cannot be valued."""
    profit = machine.position.profit(machine.mark_price)
    return None if profit is None else usd_value(machine.instrument, profit.total, machine.market.index)


def valued(machine: SymbolMachine) -> Valued | None:
    """Its numbers; None while its position is not known: that is none that could be told."""
    if not machine.position.known:
        return None
    return Valued(
        machine.instrument.key, machine.position.lots, machine.mark_price, machine.market.index, pnl_usd(machine)
    )
