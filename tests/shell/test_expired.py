"""What expired while nobody ran: whom it is told of, with what was left there and what the exchange says."""

from decimal import Decimal

import msgspec
import pytest
from shell_kit import BTC, START_NS, FakeExchange, instrument, settings

from mmd.config.select import Expired, Resolution, Resolved
from mmd.core.machine import SymbolMachine
from mmd.domain.errors import ExchangeRefused, LinkLost, MmdError
from mmd.domain.events import CashMoved, JournalDoubted
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import CashKind
from mmd.journal.records import Note
from mmd.shell.clock import Clock
from mmd.shell.diary import Diary
from mmd.shell.expired import EVENT, UNASKED, gone, tell
from mmd.shell.heritage import NO_PAST, Past

NAME = "BTC-14NOV23"
KEY = f"deribit/{NAME}"
NONE_LEFT = Resolution({}, [])
BEFORE_NS = START_NS - 1


class Venue(FakeExchange):
    def __init__(self, *deliveries: CashMoved, error: MmdError | None = None) -> None:
        super().__init__()
        self.found, self.error = list(deliveries), error

    async def deliveries(self, instrument: Instrument) -> list[CashMoved]:
        if self.error is not None:
            raise self.error
        return self.found


def machine(lots: int | None = 0, *, expiry_ns: int | None = BEFORE_NS) -> SymbolMachine:
    """One that the last process had; `lots` None: its position was not known."""
    made = SymbolMachine(instrument(NAME, expiry_ns=expiry_ns, index="btc_usd", base="BTC"), settings(), "ep", 1)
    if lots is not None:
        made.position.adopt(lots, Decimal(40_000), 40_000.0)
    return made


def past(made: SymbolMachine, doubt: str = "") -> Past:
    return msgspec.structs.replace(NO_PAST, machines={KEY: made}, doubts={KEY: doubt} if doubt else {})


def named() -> Resolution:
    return Resolution({}, [], {KEY: Expired("deribit", NAME, BEFORE_NS, "instruments[1]")})


def doubtful() -> SymbolMachine:
    made = machine()
    made.handle([JournalDoubted("torn", 2)], 2)
    return made


@pytest.mark.parametrize(
    ("made", "resolution", "doubt", "told"),
    [
        pytest.param(machine(), named(), "", True, id="it is named"),
        pytest.param(machine(expiry_ns=START_NS + 1), named(), "", True, id="the exchange let it go before its time"),
        pytest.param(machine(), NONE_LEFT, "", False, id="nothing was left there"),
        pytest.param(machine(5), NONE_LEFT, "", True, id="a position was left, and a selection moved on"),
        pytest.param(machine(5, expiry_ns=START_NS), NONE_LEFT, "", True, id="just now"),
        pytest.param(machine(5, expiry_ns=START_NS + 1), NONE_LEFT, "", False, id="it lives, and is not configured"),
        pytest.param(machine(5, expiry_ns=None), NONE_LEFT, "", False, id="it lives for ever"),
        pytest.param(machine(), NONE_LEFT, "the replay differs", True, id="in doubt"),
        pytest.param(doubtful(), NONE_LEFT, "", True, id="an open case"),
    ],
)
def test_of_whom_it_is_told(made: SymbolMachine, resolution: Resolution, doubt: str, told: bool) -> None:
    assert bool(gone(past(made, doubt), resolution, START_NS, "deribit")) is told


def note(detail: str, **changes: object) -> Note:
    told = Note(seq=1, at=1, number=1, name=EVENT, detail=detail, symbol=NAME, exchange="deribit")
    return msgspec.structs.replace(told, **changes)


@pytest.mark.parametrize(
    ("said", "again"),
    [
        pytest.param(note("a position of 5; the exchange settled it"), False, id="told"),
        pytest.param(note(f"a position of 5; {UNASKED}: gone"), True, id="the exchange could not be asked"),
        pytest.param(note("a position of 5", symbol="BTC-15NOV23"), True, id="another symbol"),
        pytest.param(note("a position of 5", exchange="other"), True, id="another exchange"),
        pytest.param(note("a position of 5", name="order.filled"), True, id="another event"),
    ],
)
def test_it_is_told_once(said: Note, again: bool) -> None:
    """The old machine is read back at every start until its records are behind a whole set of states."""
    before = msgspec.structs.replace(past(machine(5)), notes=[said])
    assert bool(gone(before, NONE_LEFT, START_NS, "deribit")) is again
    assert bool(gone(before, named(), START_NS, "deribit")) is again


def test_who_is_in_service_is_not_gone() -> None:
    made = machine(5)
    back = Resolution({KEY: Resolved(made.instrument, made.settings, "instruments[1]")}, [])
    assert gone(past(made), back, START_NS, "deribit") == []


DELIVERY = CashMoved("1", CashKind.SETTLEMENT, Decimal("-0.0012500"), "BTC", 5, START_NS, START_NS)
LEFT = "expired at 2023-11-14 22:13 UTC, when no daemon ran, and is left out; the last process left a position of 50"


@pytest.mark.parametrize(
    ("venue", "says"),
    [
        pytest.param(
            Venue(DELIVERY),
            "the exchange settled a position of 50 for -0.00125 BTC at 2023-11-14 22:13 UTC, which is in no ledger",
            id="settled",
        ),
        pytest.param(Venue(), "the exchange lists no delivery: it held nothing", id="nothing"),
        pytest.param(Venue(error=LinkLost("gone")), "does not say what became of it: gone", id="no link"),
        pytest.param(Venue(error=ExchangeRefused(1, "no")), "does not say what became of it: no (1)", id="a no"),
    ],
)
async def test_what_was_left_and_what_became_of_it(venue: Venue, says: str) -> None:
    diary = Diary(Clock(lambda: START_NS))
    await tell(gone(past(machine(5), "torn"), named(), START_NS, "deribit"), {"deribit": venue}, diary)
    (line,) = diary.since(0, 9)
    assert (line.name, line.symbol, line.exchange) == ("instrument.expired", NAME, "deribit")
    assert line.detail.startswith(f"{LEFT} at 40000 on average") and "; in doubt: torn; " in line.detail
    assert says in line.detail


async def test_a_position_that_nobody_knew_is_said_to_be_unknown() -> None:
    diary = Diary(Clock(lambda: START_NS))
    await tell(gone(past(machine(None)), named(), START_NS, "deribit"), {"deribit": Venue()}, diary)
    assert "the last process did not know its position" in diary.since(0, 9)[0].detail
    assert BTC not in diary.since(0, 9)[0].detail
