"""Fair values: what one unit is worth, from the book without our own orders or from the exchange's references.

All in ticks as floats: a model value, rounded only where it becomes a quote.
Sources: quoting mathematics D.2; Stoikov, "The micro-price", Quant. Finance 18(12), 2018.
"""

from mmd.core.book import Touch
from mmd.domain.reasons import Missing
from mmd.domain.settings import Fair

# The adjustment g(I, spread) is symmetric by construction and smaller than half the spread; this
# shape (cubic in the imbalance) is the usual closed-form stand-in for the estimated table.
MICRO_LINEAR = 0.5


def mid(touch: Touch) -> float:
    """Half way between best bid and best ask."""
    return (touch.bid_ticks + touch.ask_ticks) * 0.5


def weighted_mid(touch: Touch) -> float:
    """I * ask + (1 - I) * bid with I = bid size / (bid size + ask size)."""
    weight = touch.bid_lots / (touch.bid_lots + touch.ask_lots)
    return weight * touch.ask_ticks + (1.0 - weight) * touch.bid_ticks


def microprice(touch: Touch) -> float:
    """mid + g(I, spread): the mid shifted towards the thin side, by less than the weighted mid does.

    g = spread/2 * (c x + (1 - c) x^3), x = 2 I - 1, c = 1/2: odd in x (a martingale needs g
    symmetric around balance), within half the spread, flat near balance where size is noise.
    """
    x = (touch.bid_lots - touch.ask_lots) / (touch.bid_lots + touch.ask_lots)
    half = (touch.ask_ticks - touch.bid_ticks) * 0.5
    return mid(touch) + half * (MICRO_LINEAR * x + (1.0 - MICRO_LINEAR) * x * x * x)


FROM_BOOK = {Fair.MID: mid, Fair.WEIGHTED_MID: weighted_mid, Fair.MICROPRICE: microprice}


def fair_value(kind: Fair, touch: Touch, mark_ticks: float, index_ticks: float) -> float | Missing:
    """The fair value in ticks, or which input is missing. Mark and index: 0.0 = not known."""
    if kind is Fair.MARK:
        return mark_ticks if mark_ticks > 0.0 else Missing.NO_MARK
    if kind is Fair.INDEX:
        return index_ticks if index_ticks > 0.0 else Missing.NO_INDEX
    if touch.bid_lots <= 0:
        return Missing.NO_BOOK if touch.ask_lots <= 0 else Missing.NO_BID
    if touch.ask_lots <= 0:
        return Missing.NO_ASK
    return FROM_BOOK[kind](touch)
