"""What tests can make go wrong: lost, late and refused answers, gaps, silence, crossed books, cut links.

Everything is armed by a call and counts down; nothing here is random. Reached as `Sandbox.faults`.
"""

from collections.abc import Callable
from decimal import Decimal
from enum import StrEnum

from mmd.sandbox.engine import Engine


class AnswerFault(StrEnum):
    """What becomes of one request. LOSE_REQUEST: it never arrived; LOSE_ANSWER: it had its effect."""

    NONE = "none"
    DELAY = "delay"
    LOSE_ANSWER = "lose_answer"
    LOSE_REQUEST = "lose_request"
    REFUSE = "refuse"
    CUT = "cut"  # it had its effect, and the link dies instead of the answer


class BookFault(StrEnum):
    """What becomes of one message of an incremental book channel."""

    NONE = "none"
    DROP = "drop"
    DUPLICATE = "duplicate"


class ArmedAnswer:
    """A fault for the next `left` requests whose method starts with `method`."""

    def __init__(self, fault: AnswerFault, count: int, method: str) -> None:
        self.fault = fault
        self.left = count
        self.method = method
        self.delay_ms = 0
        self.code = 0
        self.message = ""


class ArmedBook:
    """A fault for the next `count` messages of every incremental book channel of an instrument."""

    def __init__(self, fault: BookFault, count: int) -> None:
        self.fault = fault
        self.count = count
        self.used: dict[str, int] = {}


NO_FAULT = ArmedAnswer(AnswerFault.NONE, 0, "")


class Faults:
    """Armed faults of one sandbox."""

    def __init__(self, engine: Engine, publish: Callable[[], None], cut: Callable[[str | None], int]) -> None:
        self.notifications_first = False
        """Whether what a request caused is sent before its answer."""
        self.market_paused = False
        self.maintenance = False
        """Every call is answered 11051."""
        self._engine = engine
        self._publish = publish
        self._cut = cut
        self._answers: list[ArmedAnswer] = []
        self._books: dict[str, list[ArmedBook]] = {}
        self._silent: set[str] = set()
        self._phantoms: dict[str, Decimal] = {}

    # --- answers -------------------------------------------------------------------------------

    def delay_answers(self, count: int, delay_ms: int, method: str = "private/") -> None:
        """The requests have their effect at once; their answers come late (and so out of order)."""
        self._arm(AnswerFault.DELAY, count, method).delay_ms = delay_ms

    def lose_answers(self, count: int, method: str = "private/") -> None:
        self._arm(AnswerFault.LOSE_ANSWER, count, method)

    def lose_requests(self, count: int, method: str = "private/") -> None:
        self._arm(AnswerFault.LOSE_REQUEST, count, method)

    def cut_answers(self, count: int, method: str = "private/") -> None:
        self._arm(AnswerFault.CUT, count, method)

    def refuse(self, count: int, code: int, message: str, method: str = "private/") -> None:
        """Answer with this error instead of doing anything."""
        armed = self._arm(AnswerFault.REFUSE, count, method)
        armed.code, armed.message = code, message

    def _arm(self, fault: AnswerFault, count: int, method: str) -> ArmedAnswer:
        armed = ArmedAnswer(fault, count, method)
        self._answers.append(armed)
        return armed

    def next_answer(self, method: str) -> ArmedAnswer:
        """The fault for this request, counted down."""
        for armed in self._answers:
            if method.startswith(armed.method):
                armed.left -= 1
                if armed.left <= 0:
                    self._answers.remove(armed)
                return armed
        return NO_FAULT

    # --- books ---------------------------------------------------------------------------------

    def drop_change(self, instrument_name: str, count: int = 1) -> None:
        """Leave out the next change of every incremental book channel: a gap."""
        self._books.setdefault(instrument_name, []).append(ArmedBook(BookFault.DROP, count))

    def duplicate_change(self, instrument_name: str, count: int = 1) -> None:
        self._books.setdefault(instrument_name, []).append(ArmedBook(BookFault.DUPLICATE, count))

    def silence(self, instrument_name: str) -> None:
        """Send no book, quote or ticker of it until `speak`; changes meanwhile are lost."""
        self._silent.add(instrument_name)

    def speak(self, instrument_name: str) -> None:
        self._silent.discard(instrument_name)

    def is_silent(self, instrument_name: str) -> bool:
        return instrument_name in self._silent

    def book_fault(self, instrument_name: str, channel: str) -> BookFault:
        """The fault for the next message of this channel, counted down for this channel."""
        if instrument_name in self._silent:
            return BookFault.DROP
        for armed in self._books.get(instrument_name, ()):
            used = armed.used.get(channel, 0)
            if used < armed.count:
                armed.used[channel] = used + 1
                return armed.fault
        return BookFault.NONE

    def cross(self, instrument_name: str, now_ms: int) -> None:
        """Show a bid at the best ask's price plus a tick: a crossed book with a correct change chain."""
        self.uncross(instrument_name, now_ms)
        listing = self._engine.floor.listing(instrument_name)
        ask = listing.book.asks.best()
        if ask is None:
            raise ValueError(f"{instrument_name}: no ask to cross")
        price = ask + listing.instrument.tick_size
        listing.book.bids.set_phantom(price, listing.instrument.min_trade_amount)
        self._phantoms[instrument_name] = price
        self._show(instrument_name, now_ms)

    def uncross(self, instrument_name: str, now_ms: int) -> None:
        price = self._phantoms.pop(instrument_name, None)
        if price is not None:
            self._engine.floor.listing(instrument_name).book.bids.set_phantom(price, Decimal(0))
            self._show(instrument_name, now_ms)

    def _show(self, instrument_name: str, now_ms: int) -> None:
        self._engine.floor.mark_dirty(self._engine.floor.listing(instrument_name))
        self._engine.floor.commit(now_ms)
        self._publish()

    # --- links and market ----------------------------------------------------------------------

    def disconnect(self, account: str | None = None) -> int:
        """Cut the connections of an account (None: all) without a closing handshake; returns how many."""
        return self._cut(account)

    def pause_market(self) -> None:
        """No further step of the market until `resume_market`."""
        self.market_paused = True

    def resume_market(self) -> None:
        self.market_paused = False
