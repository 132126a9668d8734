"""What expired while no daemon ran: what the last process left there, and what the exchange says became of it.

Nothing inherits it any more, so its last words are an event of their own.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal

import msgspec

from mmd.config.select import Resolution
from mmd.core.machine import SymbolMachine
from mmd.domain.errors import MmdError
from mmd.domain.events import CashMoved
from mmd.domain.instruments import Instrument
from mmd.exchanges.api import Exchange
from mmd.shell.diary import Diary
from mmd.shell.heritage import Past, may_rest

EVENT = "instrument.expired"
UNASKED = "the exchange does not say what became of it"


class Gone(msgspec.Struct, frozen=True):
    """A machine of an earlier process whose instrument is no more. `doubt`: what of it could not be read back."""

    machine: SymbolMachine
    doubt: str = ""


def gone(past: Past, resolution: Resolution, now_ns: int, exchange: str) -> list[Gone]:
    """Whom nobody inherits from because the instrument expired: those that are named, and those that held something.

    Of one exchange, which `resolution` is about (among others).
    Not whom a process before told of, and could ask: the machine is read back for as long as its records are.
    """
    found = []
    notes = (note for note in past.notes if note.name == EVENT and UNASKED not in note.detail)
    told = {f"{note.exchange}/{note.symbol}" for note in notes}
    for key, machine in past.machines.items():
        if key in told or machine.instrument.exchange != exchange:
            continue
        expiry_ns, doubt = machine.instrument.expiry_ns, past.doubts.get(key, "")
        over = expiry_ns is not None and expiry_ns <= now_ns and key not in resolution.symbols
        held = machine.position.lots or machine.cases or may_rest(machine) or doubt
        if key in resolution.expired or (over and held):
            found.append(Gone(machine, doubt))
    return found


async def tell(found: Iterable[Gone], exchanges: Mapping[str, Exchange], diary: Diary) -> None:
    """One event for each, once its exchange has said, or could not say, what became of the position."""
    for one in found:
        instrument = one.machine.instrument
        try:
            said = delivered(instrument, await exchanges[instrument.exchange].deliveries(instrument))
        except MmdError as error:
            said = f"{UNASKED}: {error}"
        diary.note(EVENT, f"{left(one)}; {said}", symbol=instrument.symbol, exchange=instrument.exchange)


def left(one: Gone) -> str:
    """What the last process knew."""
    machine, position, instrument = one.machine, one.machine.position, one.machine.instrument
    words = [f"expired at {_moment(instrument.expiry_ns or 0)}, when no daemon ran, and is left out"]
    if not position.known:
        words.append("the last process did not know its position")
    else:
        held = instrument.amount_text(position.lots)
        average = f" at {_number(position.average)} on average" if position.lots else ""
        ledger = {"realized": position.realized, "fees": position.fees, "funding": position.funding}
        moved = ", ".join(f"{name} {_number(amount)}" for name, amount in ledger.items() if amount)
        booked = f"; its ledger: {position.fills} fills, {moved} {instrument.settlement}" if moved else ""
        words.append(f"the last process left a position of {held}{average}{booked}")
    if orders := may_rest(machine):
        words.append(f"orders that may have filled since: {', '.join(orders)}")
    if machine.cases:
        words.append(f"{len(machine.cases)} open cases")
    if one.doubt:
        words.append(f"in doubt: {one.doubt}")
    return "; ".join(words)


def delivered(instrument: Instrument, found: list[CashMoved]) -> str:
    """What the exchange says."""
    if not found:
        return "the exchange lists no delivery: it held nothing for us at the end, or has not settled it yet"
    texts = [
        f"a position of {instrument.amount_text(one.closed_lots)} for {_number(one.amount)} {one.currency} "
        f"at {_moment(one.exchange_ns)}"
        for one in found
    ]
    return f"the exchange settled {', '.join(texts)}, which is in no ledger of ours"


def _number(value: Decimal) -> str:
    """Without exponent and trailing zeros, and no more digits than anybody reads."""
    text = f"{value:.10f}"
    return text.rstrip("0").rstrip(".")


def _moment(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M UTC")
