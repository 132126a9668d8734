"""The machinery of what tests can make go wrong: armed by a call, counted down, never random.

Lost, late and refused answers, gaps, silence, crossed books, late and repeated fills. `Sandbox.levers`
(mmd.sandbox.levers) is the documented front of it, together with everything that is no fault of a message.
"""

from collections.abc import Callable
from decimal import Decimal
from enum import StrEnum
from functools import partial

from mmd.sandbox.engine import Engine
from mmd.sandbox.notices import AccountChanged, Notice


class AnswerFault(StrEnum):
    """What becomes of one request. LOSE_REQUEST: it never arrived; LOSE_ANSWER: it had its effect.

    RACE: the orders that it means to end are filled before it is carried out.
    """

    NONE = "none"
    DELAY = "delay"
    DELAY_REQUEST = "delay_request"
    RACE = "race"
    LOSE_ANSWER = "lose_answer"
    LOSE_REQUEST = "lose_request"
    REFUSE = "refuse"
    CUT = "cut"  # it had its effect, and the link dies instead of the answer
    REPEAT = "repeat"  # answered twice
    UNCONFIRMED = "unconfirmed"  # it had its effect, and the answer is an error


class BookFault(StrEnum):
    """What becomes of one message of an incremental book channel."""

    NONE = "none"
    DROP = "drop"
    DUPLICATE = "duplicate"
    BREAK = "break"  # it follows another message than the one before


class FillFault(StrEnum):
    """What becomes of the notifications of one fill. The exchange's own books are right in any case.

    SPLIT: orders are told at once, trades late. ORDERS_LATE: the other way round.
    """

    REPEAT = "repeat"
    DELAY = "delay"
    LOSE = "lose"
    SPLIT = "split"
    ORDERS_LATE = "orders_late"


Methods = str | tuple[str, ...]


class ArmedAnswer:
    """A fault for the next `left` requests (None: all) whose method starts with (one of) `method`."""

    def __init__(self, fault: AnswerFault, count: int | None, method: Methods) -> None:
        self.fault = fault
        self.left = count
        self.method = method
        self.delay_ms = 0
        self.code = 0
        self.message = ""
        self.steps: int | None = None
        self.answered = True


class ArmedFill:
    """A fault for the next `left` notices of an account (None: of any), of fills or `whatever` is told of it."""

    def __init__(self, fault: FillFault, count: int, account: str | None, delay_ms: int, *, whatever: bool) -> None:
        self.fault = fault
        self.whatever = whatever
        self.left = count
        self.account = account
        self.delay_ms = delay_ms


class ArmedBook:
    """A fault for the next `count` messages of every incremental book channel of an instrument."""

    def __init__(self, fault: BookFault, count: int) -> None:
        self.fault = fault
        self.count = count
        self.used: dict[str, int] = {}


NO_FAULT = ArmedAnswer(AnswerFault.NONE, 0, "")
UNANSWERED = ArmedAnswer(AnswerFault.LOSE_ANSWER, 0, "")


class Faults:
    """Armed faults of one sandbox.

    `publish` tells what the engine has reported, `send` these notices; `later` runs something after so
    many seconds; `cut` drops the connections of an account.
    """

    def __init__(
        self,
        engine: Engine,
        publish: Callable[[], None],
        send: Callable[[list[Notice]], None],
        later: Callable[[float, Callable[[], object]], None],
        cut: Callable[[str | None], int],
    ) -> None:
        self.notifications_first = False
        """Whether what a request caused is sent before its answer."""
        self.market_paused = False
        self.maintenance = False
        """Every call is answered with the dialect's error for it."""
        self.all_silent = False
        """Whether no market data is sent at all."""
        self._engine = engine
        self._publish = publish
        self._send = send
        self._later = later
        self._cut = cut
        self._fills: list[ArmedFill] = []
        self._answers: list[ArmedAnswer] = []
        self._books: dict[str, list[ArmedBook]] = {}
        self._silent: set[str] = set()
        self._phantoms: dict[str, Decimal] = {}

    # --- answers -------------------------------------------------------------------------------

    def delay_answers(self, count: int | None, delay_ms: int, method: Methods = "private/") -> None:
        """The requests have their effect at once; their answers come late (and so out of order)."""
        self._arm(AnswerFault.DELAY, count, method).delay_ms = delay_ms

    def lose_answers(self, count: int | None, method: Methods = "private/") -> None:
        self._arm(AnswerFault.LOSE_ANSWER, count, method)

    def lose_requests(self, count: int | None, method: Methods = "private/") -> None:
        self._arm(AnswerFault.LOSE_REQUEST, count, method)

    def cut_answers(self, count: int | None, method: Methods = "private/") -> None:
        self._arm(AnswerFault.CUT, count, method)

    def repeat_answers(self, count: int | None, method: Methods = "private/") -> None:
        self._arm(AnswerFault.REPEAT, count, method)

    def refuse(self, count: int | None, code: int, message: str, method: Methods = "private/") -> None:
        """Answer with this error instead of doing anything."""
        armed = self._arm(AnswerFault.REFUSE, count, method)
        armed.code, armed.message = code, message

    def confirm_with_error(self, count: int | None, code: int, message: str, method: Methods = "private/") -> None:
        """The requests have their effect; where that is no error by itself, they are answered with this one."""
        armed = self._arm(AnswerFault.UNCONFIRMED, count, method)
        armed.code, armed.message = code, message

    def delay_requests(
        self, count: int | None, delay_ms: int, method: Methods = "private/", *, answered: bool = True
    ) -> None:
        """The requests are on their way for so much longer: they have their effect late. `answered`: and an answer."""
        armed = self._arm(AnswerFault.DELAY_REQUEST, count, method)
        armed.delay_ms, armed.answered = delay_ms, answered

    def race(
        self,
        count: int | None,
        code: int = 0,
        message: str = "",
        method: Methods = "private/cancel",
        steps: int | None = None,
    ) -> None:
        """The orders that a request means are filled just before it, at most so many least steps of each (None: all).

        `code` answers private/cancel (0: the engine).
        """
        armed = self._arm(AnswerFault.RACE, count, method)
        armed.code, armed.message, armed.steps = code, message, steps

    def disarm(self) -> None:
        """Forget every fault of requests, fills and books that is still armed."""
        self._answers.clear()
        self._fills.clear()
        self._books.clear()

    def _arm(self, fault: AnswerFault, count: int | None, method: Methods) -> ArmedAnswer:
        if count is not None and count < 1:
            raise ValueError(f"count must be at least 1 or None, got {count}")
        armed = ArmedAnswer(fault, count, method)
        self._answers.append(armed)
        return armed

    def next_answer(self, method: str) -> ArmedAnswer:
        """The fault for this request, counted down."""
        for armed in self._answers:
            if method.startswith(armed.method):
                if armed.left is not None:
                    armed.left -= 1
                    if armed.left <= 0:
                        self._answers.remove(armed)
                return armed
        return NO_FAULT

    # --- fills ---------------------------------------------------------------------------------

    def fault_fills(self, fault: FillFault, count: int, account: str | None, delay_ms: int = 0) -> None:
        """Arm a fault for the notifications of the next fills; one notice is what one operation did to a symbol."""
        self._arm_fill(ArmedFill(fault, count, account, delay_ms, whatever=False))

    def fault_news(self, fault: FillFault, count: int, account: str | None, delay_ms: int = 0) -> None:
        """The same for whatever is told next of an account."""
        self._arm_fill(ArmedFill(fault, count, account, delay_ms, whatever=True))

    def _arm_fill(self, armed: ArmedFill) -> None:
        if armed.left < 1:
            raise ValueError(f"count must be at least 1, got {armed.left}")
        self._fills.append(armed)

    def reshape(self, notices: list[Notice]) -> list[Notice]:
        """The notices as they go out now; what is late follows by itself."""
        if not self._fills:
            return notices
        told: list[Notice] = []
        for notice in notices:
            armed = self._next_fill(notice)
            if armed is None:
                told.append(notice)
            elif armed.fault is FillFault.REPEAT:
                told += [notice, notice]
            elif armed.fault is FillFault.DELAY:
                self._later(armed.delay_ms / 1000, partial(self._send, [notice]))
            elif armed.fault is not FillFault.LOSE:
                assert isinstance(notice, AccountChanged)  # or no fault would have been armed for it
                orders = AccountChanged(notice.account, notice.instrument_name, notice.orders, (), False)
                trades = AccountChanged(notice.account, notice.instrument_name, (), notice.trades, True)
                now, late = (orders, trades) if armed.fault is FillFault.SPLIT else (trades, orders)
                told.append(now)
                self._later(armed.delay_ms / 1000, partial(self._send, [late]))
        return told

    def _next_fill(self, notice: Notice) -> ArmedFill | None:
        if not isinstance(notice, AccountChanged):
            return None
        for armed in self._fills:
            if armed.account in (None, notice.account) and (armed.whatever or notice.trades):
                armed.left -= 1
                if not armed.left:
                    self._fills.remove(armed)
                return armed
        return None

    # --- books ---------------------------------------------------------------------------------

    def drop_change(self, instrument_name: str, count: int = 1) -> None:
        """Leave out the next change of every incremental book channel: a gap."""
        self._books.setdefault(instrument_name, []).append(ArmedBook(BookFault.DROP, count))

    def duplicate_change(self, instrument_name: str, count: int = 1) -> None:
        self._books.setdefault(instrument_name, []).append(ArmedBook(BookFault.DUPLICATE, count))

    def break_chain(self, instrument_name: str, count: int = 1) -> None:
        """Let the next change of every incremental book channel follow a message that was never sent."""
        self._books.setdefault(instrument_name, []).append(ArmedBook(BookFault.BREAK, count))

    def silence(self, instrument_name: str) -> None:
        """Send no book, quote or ticker of it until `speak`; changes meanwhile are lost."""
        self._silent.add(instrument_name)

    def speak(self, instrument_name: str) -> None:
        self._silent.discard(instrument_name)

    def is_silent(self, instrument_name: str) -> bool:
        return self.all_silent or instrument_name in self._silent

    def book_fault(self, instrument_name: str, channel: str) -> BookFault:
        """The fault for the next message of this channel, counted down for this channel."""
        if self.is_silent(instrument_name):
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

    def nudge(self, instrument_name: str, amount: Decimal, now_ms: int) -> None:
        """Change the book where nobody trades: show this much one tick above zero (0: no more)."""
        listing = self._engine.floor.listing(instrument_name)
        listing.book.bids.set_phantom(listing.instrument.tick_size, amount)
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
