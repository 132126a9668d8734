"""What one symbol knows of its market, and whether it is good enough to quote on.

Trouble is latched where it must be looked at by somebody (a jump) and momentary where the next
message can cure it (crossed, locked, gap). Staleness is a matter of time and asked with `now`.

Book and ticker watch each other: whichever is silent while the other shows another touch has died. One
that is silent and agrees is a quiet market. Both have our own orders in them.
"""

from mmd.core.book import Touch
from mmd.core.options.black76 import DAYS_PER_YEAR, OptionType, price
from mmd.core.rules import NS, Rules
from mmd.domain.events import BookBroken, BookTop, InstrumentStateChanged, Ticker, TradePrinted
from mmd.domain.instruments import Contract, Instrument, Kind
from mmd.domain.reasons import Why

Trouble = tuple[Why, str]
NS_PER_YEAR = DAYS_PER_YEAR * 86400 * NS
NO_TOUCH = Touch(0, 0, 0, 0)
MARK_AGES = 3  # a mark that is older than this many times `stale_seconds` is none
# Reference prices outside are no prices: what they would be used for overflows.
LEAST, MOST = 1e-9, 1e12


class MarketState:
    """Fed by the machine's handlers; read by its decisions."""

    __slots__ = (
        "_vol_collar",
        "_vol_key",
        "awaited_ns",
        "behind_ns",
        "book",
        "book_trouble",
        "cod_armed",
        "data_link",
        "data_ns",
        "differs_ns",
        "index",
        "index_ticks",
        "instrument",
        "instrument_state",
        "jump",
        "last_mid",
        "last_trade",
        "link_detail",
        "lot_usd",
        "mark",
        "mark_iv",
        "mark_ticks",
        "max_ticks",
        "min_ticks",
        "terminal",
        "tick",
        "ticker_ns",
        "ticker_touch",
        "tradable",
        "trade_link",
        "underlying",
    )

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.tick = float(instrument.grid.tick)
        self.book: BookTop | None = None
        self.book_trouble: Trouble | None = None
        self.jump: Trouble | None = None
        self.last_mid = 0.0
        self.last_trade: TradePrinted | None = None
        self.data_ns = 0
        self.ticker_ns = 0
        self.awaited_ns = 0  # since when a ticker is due: the last one, or the return of link or market
        self.ticker_touch: tuple[float, float] | None = None  # the book's when it came, where it tells none
        self.differs_ns = 0  # since when a silent book is not the ticker's; 0 = it is
        self.behind_ns = 0  # since when a silent ticker is not the book's; 0 = it is
        self.mark = self.index = self.underlying = self.mark_iv = 0.0
        self.lot_usd = float(instrument.lot) if instrument.amount_is_usd else 0.0  # 0.0 = not known
        self._vol_key = (0, 0.0)
        self._vol_collar = (0.0, 0.0)
        self.mark_ticks = self.index_ticks = self.min_ticks = self.max_ticks = 0.0
        self.tradable = instrument.tradable
        self.terminal = False
        self.instrument_state = "open" if instrument.tradable else "closed"
        self.data_link = False
        self.trade_link = False
        self.cod_armed = False
        self.link_detail = "not connected yet"

    def on_book(self, event: BookTop, rules: Rules) -> None:
        self.book = event
        self.data_ns = event.received_ns
        self.differs_ns = 0
        if self.ticker_ns:
            self.behind_ns = 0 if self._agree() else self.behind_ns or event.received_ns
        self.book_trouble = None
        if not event.bids or not event.asks:
            return
        bid, ask = event.bids[0][0], event.asks[0][0]
        if bid >= ask:
            shown = self.instrument.grid.price
            why = Why.CROSSED_BOOK if bid > ask else Why.LOCKED_BOOK
            self.book_trouble = (why, f"best bid {shown(bid)}, best ask {shown(ask)}")
            return
        mid = (bid + ask) * 0.5
        last = self.last_mid
        self.last_mid = mid
        if last and self.jump is None:
            moved = abs(mid - last)
            if moved > rules.max_jump_ticks and moved > last * rules.max_jump_bps * 1e-4:
                found = f"mid moved {moved / last * 1e4:.0f} bps and {moved:.1f} ticks in one update"
                limit = f"allowed {rules.max_jump_bps:g} bps or {rules.max_jump_ticks} ticks"
                self.jump = (Why.PRICE_JUMP, f"{found}; {limit}")

    def on_broken(self, event: BookBroken) -> None:
        self.book_trouble = (event.why, event.detail)
        self.book = None
        self.last_mid = 0.0

    def on_ticker(self, event: Ticker) -> None:
        self.data_ns = self.ticker_ns = self.awaited_ns = event.received_ns
        told = event.best_bid or event.best_ask
        self.ticker_touch = (event.best_bid, event.best_ask) if told else None
        self.behind_ns = 0
        self.differs_ns = 0 if self._agree() else self.differs_ns or event.received_ns
        self.mark, self.index = usable(event.mark), usable(event.index)
        self.underlying, self.mark_iv = usable(event.underlying), usable(event.mark_iv)
        if not self.instrument.amount_is_usd:
            self.lot_usd = self.instrument.usd_per_lot(self.index) if self.index else 0.0
        self.mark_ticks = self.mark / self.tick
        self.min_ticks = usable(event.min_price) / self.tick
        self.max_ticks = usable(event.max_price) / self.tick
        # The index is in dollars: a price of this instrument only where its price is in dollars too.
        self.index_ticks = 0.0 if self.instrument.is_option else self.index / self.tick

    def _agree(self) -> bool:
        """The last ticker's touch is the book's. One that tells none is taken to mean the book's as it was then."""
        book = self.book
        if book is None:
            return True  # nothing to compare
        bid = book.bids[0][0] * self.tick if book.bids else 0.0
        ask = book.asks[0][0] * self.tick if book.asks else 0.0
        if self.ticker_touch is None:
            self.ticker_touch = (bid, ask)
            return True
        near = self.tick * 0.5
        return abs(bid - self.ticker_touch[0]) < near and abs(ask - self.ticker_touch[1]) < near

    def on_trade(self, event: TradePrinted) -> None:
        self.last_trade = event
        self.data_ns = max(self.data_ns, event.received_ns)

    def on_state(self, event: InstrumentStateChanged) -> None:
        if event.tradable and not self.tradable:
            self.awaited_ns = event.received_ns
        self.tradable = event.tradable
        self.terminal = self.terminal or event.terminal
        self.instrument_state = event.state

    def on_data_up(self, received_ns: int) -> None:
        self.data_link = True
        self.awaited_ns = received_ns

    def on_data_lost(self, detail: str) -> None:
        self.data_link = False
        self.link_detail = detail
        self.book = None
        self.behind_ns = 0
        self.last_mid = 0.0

    def clear_latches(self) -> None:
        """A human (or the config's auto_resume) looked: forget the jump."""
        self.jump = None

    def trouble(self, now_ns: int, rules: Rules) -> Trouble | None:
        """Why not to quote on this market now; None if it is good. An empty side is no trouble."""
        if not self.data_link or not self.trade_link:
            which = "market data" if not self.data_link else "trading"
            return (Why.EXCHANGE_DISCONNECTED, f"{which} link down: {self.link_detail}")
        if not self.tradable:
            return (Why.MARKET_HALTED, f"instrument is {self.instrument_state}")
        if self.book_trouble is not None:
            return self.book_trouble
        if self.jump is not None:
            return self.jump
        if self.book is None:
            return (Why.STALE_BOOK, "no order book yet")
        age_ns = now_ns - self.data_ns
        if age_ns > rules.stale_ns:
            return (Why.STALE_BOOK, f"no market data for {age_ns / NS:.1f} s, allowed {rules.stale_ns / NS:g} s")
        if self.differs_ns and now_ns - self.differs_ns > rules.stale_ns:
            apart = f"{(now_ns - self.differs_ns) / NS:.1f} s"
            return (Why.STALE_BOOK, f"no word of the book for {apart} although the ticker shows other prices")
        if self.behind_ns and now_ns - self.behind_ns > rules.stale_ns:
            apart = f"{(now_ns - self.behind_ns) / NS:.1f} s"
            return (Why.STALE_BOOK, f"no ticker for {apart} although the book shows other prices")
        return None

    def stale_at_ns(self, rules: Rules) -> int:
        """When silence will be trouble."""
        since_ns = self.data_ns
        if 0 < self.differs_ns < since_ns:
            since_ns = self.differs_ns
        if 0 < self.behind_ns < since_ns:
            since_ns = self.behind_ns
        return since_ns + rules.stale_ns + 1

    def mark_is_stale(self, now_ns: int, rules: Rules) -> bool:
        """What mark and index are now is not known: the book has left the ticker behind, or it is silent for long.

        Where none can come (the link is down, the market closed or over) the last ones stay: that is told as such.
        """
        expiry_ns = self.instrument.expiry_ns
        if not (self.ticker_ns and self.data_link and self.tradable) or (expiry_ns and now_ns >= expiry_ns):
            return False
        behind = self.behind_ns and now_ns - self.behind_ns > rules.stale_ns
        return bool(behind) or now_ns - self.awaited_ns > MARK_AGES * rules.stale_ns

    def vol_collar(self, points: float) -> tuple[float, float]:
        """Lowest and highest price, in ticks, within `points` of volatility from the mark's; (0.0, 0.0) = unknown.

        Rounded outwards to the grid: an option worth less than a tick is quoted at one.
        """
        key = (self.ticker_ns, points)
        if key != self._vol_key:
            self._vol_key = key
            self._vol_collar = self._prices_at(self.mark_iv - points, self.mark_iv + points)
        return self._vol_collar

    def _prices_at(self, low_iv: float, high_iv: float) -> tuple[float, float]:
        """Prices in ticks at two volatilities in percent."""
        instrument, forward = self.instrument, self.underlying
        if not (self.mark_iv > 0.0 and forward > 0.0 and instrument.strike and instrument.expiry_ns):
            return (0.0, 0.0)
        option = OptionType.CALL if instrument.kind is Kind.CALL else OptionType.PUT
        years = max(0.0, (instrument.expiry_ns - self.ticker_ns) / NS_PER_YEAR)
        unit = self.tick * forward if instrument.contract is Contract.INVERSE else self.tick
        strike = float(instrument.strike)
        low, high = (price(option, forward, strike, years, max(0.0, iv) / 100.0) / unit for iv in (low_iv, high_iv))
        grid = instrument.grid
        return (float(grid.floor(low)), float(grid.ceil(high)))

    def reference_ticks(self, fair: float) -> float:
        """What band and collar are measured from: the exchange's mark, else our fair value; 0.0 = neither."""
        return self.mark_ticks if self.mark_ticks > 0.0 else fair


def usable(value: float) -> float:
    """0.0 = unknown: for what is no number, infinite, or so small or large that nothing can be computed from it."""
    return value if LEAST <= value <= MOST else 0.0
