"""Closing a position by hand: what it would cost against the book as it is, and doing it."""

import math
from decimal import Decimal

import msgspec
import trio

from mmd.domain.errors import OffGrid
from mmd.domain.events import BookTop, FlattenRequested, Level
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Side
from mmd.domain.units import whole
from mmd.shell.desk import ChangeResult, FlattenPreview, Outcome, SymbolResult
from mmd.shell.office import Office
from mmd.shell.views import number
from mmd.shell.worker import Worker

TAKEN_DIGITS = Decimal("1e-12")


class Taking(msgspec.Struct, frozen=True):
    """What the visible book gives within the limit: lots, their average and worst price in ticks."""

    lots: int
    average_ticks: float
    worst_ticks: int


def take(levels: tuple[Level, ...], side: Side, limit_ticks: int, lots: int) -> Taking:
    """Walk the levels of the other side, best first."""
    got, paid, worst = 0, 0, 0
    for price_ticks, size_lots in levels:
        beyond = price_ticks > limit_ticks if side is Side.BID else price_ticks < limit_ticks
        if beyond or got == lots:
            break
        part = min(size_lots, lots - got)
        got, paid, worst = got + part, paid + part * price_ticks, price_ticks
    return Taking(got, paid / got if got else 0.0, worst)


def limit_ticks(instrument: Instrument, side: Side, reference_ticks: float, slippage_bps: float) -> int:
    """The worst price that is accepted: never further from the reference than asked."""
    if side is Side.BID:
        return instrument.grid.floor(reference_ticks * (1.0 + slippage_bps * 1e-4))
    return instrument.grid.ceil(reference_ticks * (1.0 - slippage_bps * 1e-4))


def cost(instrument: Instrument, lots: int, price: Decimal, against: Decimal) -> Decimal:
    """What it costs to trade at `price` instead of `against`, settlement currency; lots and result positive."""
    amount = instrument.amount(lots)
    apart = abs(1 / price - 1 / against) if instrument.amount_is_usd else abs(price - against)
    return (amount * apart).quantize(TAKEN_DIGITS)


def fee(instrument: Instrument, lots: int, price: Decimal) -> Decimal:
    """The taker's fee on the notional, settlement currency: an estimate, caps are not applied."""
    amount = instrument.amount(lots)
    if instrument.amount_is_usd:
        notional = amount / price
    elif instrument.is_option and instrument.settlement == instrument.base:
        notional = amount
    else:
        notional = amount * price
    return (notional * instrument.taker_fee).quantize(TAKEN_DIGITS)


def preview(worker: Worker, size: Decimal | None, slippage_bps: float) -> FlattenPreview:
    """Against the book as it is now; nothing is sent."""
    machine = worker.machine
    instrument, position = machine.instrument, machine.position.lots
    side = Side.ASK if position > 0 else Side.BID
    refused = machine.cannot_close()
    wanted = abs(position)
    if size is not None:
        try:
            wanted = whole(size, instrument.lot)
        except OffGrid as off:
            refused = refused or str(off)
        if not 0 < wanted <= abs(position):
            refused = refused or f"{size} is not within the position of {instrument.amount_text(position)}"
    reference, book = machine.reference_ticks, machine.market.book
    if not refused and (book is None or reference <= 0.0):
        refused = "there is no book or no reference price"
    if refused or book is None:
        return nothing(worker, None if not position else side, refused)
    limit = limit_ticks(instrument, side, reference, slippage_bps)
    taking = take(book.bids if side is Side.ASK else book.asks, side, limit, wanted)
    mid = (book.bids[0][0] + book.asks[0][0]) / 2 if book.bids and book.asks else reference
    tick = instrument.grid.tick
    average = tick * Decimal(repr(taking.average_ticks)) if taking.lots else None
    against = tick * Decimal(repr(mid))
    worth = machine.market.lot_usd
    most = min(machine.rules.max_order_lots, int(machine.rules.max_order_usd / worth) if worth > 0.0 else 0)
    return FlattenPreview(
        symbol=worker.symbol,
        exchange=worker.exchange,
        position=number(instrument.amount(position)),
        side=side,
        size=number(instrument.amount(taking.lots)),
        left=number(instrument.amount(wanted - taking.lots)),
        orders=-(-taking.lots // max(1, most)),
        average_price=average,
        worst_price=number(tick * taking.worst_ticks) if taking.lots else None,
        limit_price=number(tick * limit),
        mid=number(against),
        cost=cost(instrument, taking.lots, average, against) if average else None,
        fee=fee(instrument, taking.lots, average) if average else None,
        currency=instrument.settlement,
        refused=None if taking.lots else out_of_reach(instrument, book, side, reference),
    )


def out_of_reach(instrument: Instrument, book: BookTop, side: Side, reference_ticks: float) -> str:
    """Nothing can be had within the limit: what would have to be allowed for the best there is."""
    levels = book.bids if side is Side.ASK else book.asks
    if not levels:
        return "the other side of the book is empty"
    best = levels[0][0]
    apart = math.ceil(abs(best - reference_ticks) / reference_ticks * 1e4)
    best_text = f"{number(instrument.grid.tick * best):f}"
    return (
        f"the visible book offers nothing within the limit price: its best, {best_text}, takes --slippage-bps {apart}"
    )


def nothing(worker: Worker, side: Side | None, refused: str) -> FlattenPreview:
    instrument = worker.machine.instrument
    position = number(instrument.amount(worker.machine.position.lots))
    return FlattenPreview(
        symbol=worker.symbol,
        exchange=worker.exchange,
        position=position,
        side=side,
        size=Decimal(0),
        left=abs(position),
        orders=0,
        average_price=None,
        worst_price=None,
        limit_price=None,
        mid=None,
        cost=None,
        fee=None,
        currency=instrument.settlement,
        refused=refused,
    )


async def flatten(
    office: Office, worker: Worker, size: Decimal | None, limit_price: Decimal, reason: str, by: str, timeout: float
) -> ChangeResult:
    """Ask the machine, wait until nothing of it is in flight, and tell what came of it."""
    machine, pump = worker.machine, office.pump
    instrument = machine.instrument
    before = machine.position.lots
    try:
        lots = abs(before) if size is None else whole(size, instrument.lot)
        ticks = instrument.grid.ticks(limit_price)
    except OffGrid as off:
        return refusal(worker, str(off))

    def make(request: int, key: str) -> FlattenRequested:
        return FlattenRequested(request, by, reason, lots, ticks, pump.clock.now_ns())

    started_ns = pump.clock.now_ns()
    reply = office.ask([worker], make)[worker.key]
    if not reply.ok:
        return refusal(worker, reply.detail)
    with trio.move_on_after(max(0.0, timeout)) as waiting:
        await pump.deliver()
        while machine.closing is not None:
            await pump.wait_turn()
    closed = abs(before) - abs(machine.position.lots)
    amount = instrument.amount_text
    detail = f"{amount(closed)} of {amount(lots)} closed, position {amount(machine.position.lots)}"
    if waiting.cancelled_caught:
        detail += "; an order is still on its way"
    if closed < lots and machine.refusal is not None and machine.refusal.received_ns >= started_ns:
        detail += f"; {machine.refusal_text(machine.refusal)}"
    outcome = Outcome.DONE if closed >= lots else Outcome.TIMED_OUT
    return result(worker, outcome, detail)


def refusal(worker: Worker, detail: str) -> ChangeResult:
    return result(worker, Outcome.REFUSED, detail)


def result(worker: Worker, outcome: Outcome, detail: str) -> ChangeResult:
    row = SymbolResult(symbol=worker.symbol, outcome=outcome, state=worker.machine.state, detail=detail, checks=[])
    return ChangeResult(outcome=outcome, detail=detail, symbols=[row])
