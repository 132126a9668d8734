"""Levers on what everybody sees: books, tickers and trades that are late, lost, wrong or far away. See `levers`."""

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import msgspec

from mmd.sandbox import contracts
from mmd.sandbox.listing import Listing
from mmd.sandbox.orders import ZERO
from mmd.sandbox.truth import Truth

NUDGE_SECONDS = 0.25


class MarketLevers(Truth):
    """Of the market data, and of the market."""

    def silence(self, instrument: str | None = None) -> None:
        """Send no book, quote, ticker or trades channel of an instrument (None: no market data) until `speak`."""
        if instrument is None:
            self._panel.faults.all_silent = True
        else:
            self._panel.faults.silence(instrument)

    def speak(self, instrument: str | None = None) -> None:
        """End `silence`; what changed meanwhile is lost, so incremental books have a gap."""
        if instrument is None:
            self._panel.faults.all_silent = False
        else:
            self._panel.faults.speak(instrument)

    def gap(self, instrument: str) -> None:
        """Lose one message of every incremental book channel; the one that shows the gap comes within half a second."""
        self._panel.want(instrument)
        faults, amount = self._panel.faults, self._panel.engine.instrument(instrument).min_trade_amount
        faults.drop_change(instrument)
        faults.nudge(instrument, amount, self._panel.now_ms)
        self._panel.later(NUDGE_SECONDS, lambda: faults.nudge(instrument, ZERO, self._panel.now_ms))

    def break_chain(self, instrument: str) -> None:
        """The next message of every incremental book channel claims to follow one that was never sent."""
        self._panel.want(instrument)
        faults, amount = self._panel.faults, self._panel.engine.instrument(instrument).min_trade_amount
        faults.break_chain(instrument)
        faults.nudge(instrument, amount, self._panel.now_ms)
        self._panel.later(NUDGE_SECONDS, lambda: faults.nudge(instrument, ZERO, self._panel.now_ms))

    def repeat_changes(self, instrument: str, count: int = 1) -> None:
        """Send the next messages of every incremental book channel twice."""
        self._panel.faults.duplicate_change(instrument, count)

    def cross(self, instrument: str) -> None:
        """Show a bid above the best ask, in a correct chain of changes, until `uncross`. Nobody trades with it."""
        self._panel.want(instrument)
        self._panel.faults.cross(instrument, self._panel.now_ms)

    def uncross(self, instrument: str) -> None:
        """End `cross`."""
        self._panel.faults.uncross(instrument, self._panel.now_ms)

    def jump(self, instrument: str, percent: Decimal | int) -> None:
        """Move index, mark, band and the whole anonymous book by so many percent at once.

        Orders of accounts that stand in the way are traded with. A market that lives by itself returns to its
        own price unless `pause_market` was pulled before; one that stands still stays.
        """
        self._panel.want(instrument)
        engine, now_ms = self._panel.engine, self._panel.now_ms
        listing = engine.floor.listing(instrument)
        factor = 1 + Decimal(percent) / 100
        index_name = listing.instrument.price_index
        index = (engine.floor.index_price(index_name) * factor).quantize(Decimal("0.01"))
        engine.set_index(index_name, index, now_ms)
        if listing.reference is not None:
            old = listing.reference
            reference = msgspec.structs.replace(
                old,
                index_price=index,
                mark_price=(old.mark_price * factor).quantize(Decimal("1e-6")),
                min_price=_moved(listing, old.min_price, factor, ROUND_FLOOR),
                max_price=_moved(listing, old.max_price, factor, ROUND_CEILING),
            )
            engine.set_reference(instrument, reference, now_ms)
        old_bids, old_asks = engine.anonymous_levels(instrument)
        bids = {_moved(listing, price, factor, ROUND_FLOOR): amount for price, amount in old_bids.items()}
        asks = {_moved(listing, price, factor, ROUND_CEILING): amount for price, amount in old_asks.items()}
        engine.set_levels(instrument, bids, asks, now_ms, snapshot=True)
        self._panel.publish()

    def pause_market(self) -> None:
        """Let the market stand still until `resume_market`; accounts still trade."""
        self._panel.faults.pause_market()

    def resume_market(self) -> None:
        """End `pause_market`."""
        self._panel.faults.resume_market()


def _moved(listing: Listing, price: Decimal, factor: Decimal, rounding: str) -> Decimal:
    """A price times a factor, on the tick, at least one tick."""
    tick = contracts.tick_at(listing.instrument, price * factor)
    return max(tick, (price * factor / tick).to_integral_value(rounding) * tick)
