"""What of ours rested on a side, by the exchange's own clock.

Market data and order answers come over different links, and either may be late. A book carries the
time as of which it is true: what of ours it shows is what rested then, whatever we know by now.
"""

from mmd.domain.events import Level

Rest = tuple[int, int, int]
"""(since when by the exchange's clock in ns, price in ticks, lots that may still fill; 0 lots = nothing rests)"""

# Changes that are remembered. A book from before all of them is read as if no times were told.
LENGTH = 16


def noted(trail: tuple[Rest, ...], since_ns: int, price_ticks: int, lots: int) -> tuple[Rest, ...]:
    """The trail with one more change at its end.

    Word of an earlier time comes late, or the exchange's clock was set back: no time is known then, until the next.
    """
    if trail and since_ns < trail[-1][0]:
        return ()
    if trail and trail[-1] == (since_ns, price_ticks, lots):
        return trail
    return (*trail[-LENGTH + 1 :], (since_ns, price_ticks, lots))


def rested(trail: tuple[Rest, ...], book_ns: int) -> tuple[Level, ...] | None:
    """Where a book of this time (exchange's clock, ns) may show us: alternatives; None = older than what is known.

    A change of the same time may be in the book or not.
    """
    found: tuple[Level, ...] = ()
    for since_ns, price_ticks, lots in reversed(trail):
        if since_ns <= book_ns:
            found = (*found, (price_ticks, lots)) if lots else found
            if since_ns < book_ns:
                return found
    return None
