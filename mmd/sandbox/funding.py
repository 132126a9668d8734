"""Funding of perpetuals: what a position receives for a span of time. Pure formulas over Decimal.

As on Deribit: rate x size in coins x time / 8 hours, accruing all the time into the session's profit
(docs.deribit.com, ticker fields current_funding and funding_8h); a positive rate is paid by longs to
shorts. Simplified: between two publications of the rate it is constant, dollars become coins at the
index of that moment, the rate is capped at FUNDING_CAP for every underlying, and anonymous holders
neither pay nor receive.
"""

from decimal import Decimal

from mmd.sandbox import contracts
from mmd.sandbox.model import Reference, SandboxInstrument

PERIOD_MS = 8 * 3_600_000
FUNDING_CAP = Decimal("0.005")  # of the position, in 8 hours


def rate_of(reference: Reference | None) -> Decimal:
    """The 8-hour rate that holds now, capped; 0 where none is published."""
    if reference is None or not reference.current_funding:
        return Decimal(0)
    return capped(Decimal(repr(reference.current_funding)))


def capped(rate: Decimal) -> Decimal:
    return max(-FUNDING_CAP, min(FUNDING_CAP, rate))


def received(
    instrument: SandboxInstrument, size: Decimal, index_price: Decimal, rate: Decimal, span_ms: int
) -> Decimal:
    """What a position of this signed size receives (negative: pays) in the settlement currency, not rounded."""
    if not index_price:
        return Decimal(0)
    value = contracts.coins(instrument, size, index_price)
    if not contracts.is_inverse(instrument):
        value *= index_price
    return -value * rate * span_ms / PERIOD_MS
