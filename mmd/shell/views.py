"""The daemon's state in the shapes of the desk: statuses, orders, positions, explanations. Only looks."""

from decimal import Context, Decimal

import msgspec

from mmd.core import quoting
from mmd.core.gate import Refused, review
from mmd.core.orders import Empty, Live, Unknown, worst_lots
from mmd.core.own import SideState
from mmd.core.pnl import Position, usd_value
from mmd.core.quoting import Quoted, Step, Wanted, Withheld
from mmd.core.totals import Share
from mmd.domain.actions import PlaceOrder
from mmd.domain.reasons import Missing, Mode, Side, State
from mmd.replay.valuing import pnl_usd
from mmd.shell.desk import (
    CheckLine,
    Explanation,
    LedgerLine,
    OrderLine,
    PositionLine,
    ShadowStatus,
    SideStatus,
    StepLine,
    SymbolStatus,
)
from mmd.shell.outbox import Outbox
from mmd.shell.worker import Worker

# Wider than what ledgers are kept in: nothing that is shown is rounded by showing it.
EVERY_DIGIT = Context(prec=100)


def number(value: Decimal) -> Decimal:
    """Without trailing zeros and without an exponent, so that JSON shows 32200 and 0.0005."""
    value = value.normalize(EVERY_DIGIT)
    return value if value.as_tuple().exponent in (0, None) else Decimal(format(value, "f"))


def side_status(worker: Worker, state: SideState) -> SideStatus:
    instrument = worker.machine.instrument
    slot = state.slot
    withheld = None
    if isinstance(state.wanted, Withheld):
        withheld = str(state.wanted.why)
        if state.hold_detail and state.wanted.why == "refused":
            withheld = f"{withheld}: {state.hold_detail}"
    if isinstance(slot, Empty):
        return SideStatus(price=None, size=None, phase=slot.phase, order_id=None, label=None, withheld=withheld)
    return SideStatus(
        price=number(instrument.grid.price(slot.price_ticks)),
        size=number(instrument.amount(worst_lots(slot))),
        phase=slot.phase,
        order_id=getattr(slot, "order_id", None) or None,
        label=slot.label,
        withheld=withheld,
    )


ING = {State.PAUSED: "PAUSING", State.HALTED: "HALTING", State.DRAINING: "DRAINING"}


def shown_state(worker: Worker) -> str:
    """The state for people: what is not proven yet is still under way."""
    machine = worker.machine
    resting = 0 if worker.broken and worker.proven else machine.own.resting
    if resting and machine.state in ING:
        return f"{ING[machine.state]} ({resting} order{'s' if resting > 1 else ''})"
    if machine.state is State.HALTED and not worker.proven:
        return "HALTING (unproven)"
    return machine.state


def symbol_status(worker: Worker, now_ns: int, shadow: ShadowStatus | None) -> SymbolStatus:
    """`shadow`: what shadow orders did, for a symbol in shadow mode."""
    machine = worker.machine
    instrument, market = machine.instrument, machine.market
    low, high = machine.bounds()
    granted = machine.bounds_version > 0
    touch, grid = machine.touch, instrument.grid
    return SymbolStatus(
        symbol=worker.symbol,
        exchange=worker.exchange,
        state=machine.state,
        shown=shown_state(worker),
        reason=machine.why,
        detail=machine.detail if worker.fault is None else worker.fault,
        by=machine.by,
        since=machine.since_ns * 1e-9,
        mode=machine.mode,
        resting=machine.own.resting,
        open_cases=len(machine.cases),
        bid=side_status(worker, machine.own.bid),
        ask=side_status(worker, machine.own.ask),
        market_bid=number(grid.price(touch.bid_ticks)) if touch.bid_lots else None,
        market_ask=number(grid.price(touch.ask_ticks)) if touch.ask_lots else None,
        fair=machine.fair * market.tick if isinstance(machine.fair, float) else None,
        position=number(instrument.amount(machine.position.lots)),
        min_position=number(instrument.amount(low)) if granted else None,
        max_position=number(instrument.amount(high)) if granted else None,
        pnl_usd=pnl_usd(worker.machine),
        data_age_seconds=max(0.0, (now_ns - market.data_ns) * 1e-9) if market.data_ns else None,
        refusal=machine.refusal_text(machine.refusal) if machine.refusal is not None else None,
        shadow=shadow,
    )


def order_lines(worker: Worker, now_ns: int) -> list[OrderLine]:
    machine = worker.machine
    lines: list[OrderLine] = []
    for state in machine.own.every():
        slot = state.slot
        if isinstance(slot, Empty):
            continue
        began_ns: int = slot.since_ns if isinstance(slot, Live | Unknown) else slot.sent_ns
        lines.append(
            OrderLine(
                symbol=worker.symbol,
                exchange=worker.exchange,
                side=state.side,
                phase=slot.phase,
                price=number(machine.instrument.grid.price(slot.price_ticks)),
                size=number(machine.instrument.amount(worst_lots(slot))),
                order_id=getattr(slot, "order_id", None) or None,
                label=slot.label,
                age_seconds=max(0.0, (now_ns - began_ns) * 1e-9),
                mode=machine.mode if state.label not in machine.own.strays else Mode.LIVE,
            )
        )
    return lines


def position_line(worker: Worker) -> PositionLine:
    machine = worker.machine
    instrument, position = machine.instrument, machine.position
    mark = machine.mark_price
    profit = position.profit(mark)
    index = machine.market.index
    try:
        coins: float | None = position.lots * instrument.coins_per_lot(mark) if position.lots else 0.0
    except ValueError:
        coins = None

    def usd(amount: float) -> float | None:
        return usd_value(instrument, amount, index)

    return PositionLine(
        symbol=worker.symbol,
        exchange=worker.exchange,
        position=number(instrument.amount(position.lots)),
        average_price=number(position.average) if position.lots else None,
        mark_price=mark or None,
        pnl_usd=pnl_usd(worker.machine),
        realized_usd=usd(profit.realized) if profit else None,
        unrealized_usd=usd(profit.unrealized) if profit else None,
        fees_usd=usd(profit.fees) if profit else None,
        coins=coins,
    )


def left_line(share: Share, why: str) -> PositionLine:
    """A position whose symbol is not in service, `why`: as the totals still count it."""
    instrument = share.instrument
    coins, _, _ = share.latest
    return PositionLine(
        symbol=instrument.symbol,
        exchange=instrument.exchange,
        position=number(instrument.amount(share.lots)),
        average_price=None,
        mark_price=None,
        pnl_usd=share.pnl_usd if share.pnl_known else None,
        realized_usd=None,
        unrealized_usd=None,
        fees_usd=None,
        coins=share.lots * coins if coins else None,
        left=why,
    )


def without_rounding(line: LedgerLine, position: Position) -> LedgerLine:
    """The books of this position agree, but for rounding (`mmd.core.ledger.ROUNDING`): then that is not shown."""
    return msgspec.structs.replace(line, imbalance=Decimal(0)) if line.imbalance and position.balanced else line


def explanation(worker: Worker, outbox: Outbox, now_ns: int) -> Explanation:
    """Run the pipeline once more, with its trace; the machine is not touched."""
    machine = worker.machine
    trace: list[Step] = []
    view = machine.view()
    quote = quoting.quote(view, machine.rules, trace)
    grid = machine.instrument.grid

    def price(ticks: float) -> str:
        return f"{float(grid.tick) * ticks:.10g}"

    steps = [book_line(worker), market_line(worker)]
    fair = machine.fair
    if not isinstance(fair, float):
        steps.append(StepLine("fair", f"{machine.rules.fair} cannot be computed: {fair}", "-", "-"))
    steps += [StepLine(step.name, step.detail, price(step.bid), price(step.ask)) for step in trace]
    return Explanation(
        symbol=worker.symbol,
        exchange=worker.exchange,
        state=machine.state,
        reason=machine.why,
        detail=machine.detail,
        quoting=machine.state is State.ACTIVE,
        steps=steps,
        bid=verdict_on(worker, machine.own.bid, quote.bid, now_ns),
        ask=verdict_on(worker, machine.own.ask, quote.ask, now_ns),
        gate_bid=gate_says(worker, Side.BID, quote.bid, outbox, now_ns),
        gate_ask=gate_says(worker, Side.ASK, quote.ask, outbox, now_ns),
        checks=[CheckLine(c.name, c.ok, c.found, c.wanted) for c in machine.checks(now_ns)],
    )


def book_line(worker: Worker) -> StepLine:
    """The touch without our own orders."""
    machine = worker.machine
    touch, instrument = machine.touch, machine.instrument
    bid = str(number(instrument.grid.price(touch.bid_ticks))) if touch.bid_lots else "none"
    ask = str(number(instrument.grid.price(touch.ask_ticks))) if touch.ask_lots else "none"
    sizes = f"{number(instrument.amount(touch.bid_lots))} x {number(instrument.amount(touch.ask_lots))} without ours"
    return StepLine("book", sizes, bid, ask)


def market_line(worker: Worker) -> StepLine:
    """Spread, volatility and last trade, as measured here."""
    machine = worker.machine
    touch, market, instrument = machine.touch, machine.market, machine.instrument
    parts: list[str] = []
    if touch.two_sided:
        width = (touch.ask_ticks - touch.bid_ticks) / ((touch.ask_ticks + touch.bid_ticks) * 0.5) * 1e4
        parts.append(f"spread {width:.2f} bps")
    sigma = machine.volatility
    parts.append(f"volatility {sigma.annual():.0%} a year" if sigma.ready else "volatility not known yet")
    if market.mark > 0.0:
        parts.append(f"mark {market.mark:.8g}")
    trade = market.last_trade
    if trade is not None:
        size = number(instrument.amount(trade.size_lots))
        side = "bought" if trade.taker is Side.BID else "sold"
        parts.append(f"last trade {side} {size} at {number(instrument.grid.price(trade.price_ticks))}")
    return StepLine("market", ", ".join(parts), "-", "-")


def quoted(worker: Worker, side: Quoted) -> str:
    instrument = worker.machine.instrument
    if isinstance(side, Withheld):
        return f"withheld: {side.why}"
    return f"{number(instrument.amount(side.size_lots))} at {number(instrument.grid.price(side.price_ticks))}"


def verdict_on(worker: Worker, state: SideState, wanted: Quoted, now_ns: int) -> str:
    """The quote that the pipeline wants, or the first thing that stands against it, in every state."""
    machine = worker.machine
    if machine.state is not State.ACTIVE:
        by = f", by {machine.by}" if machine.by else ""
        return f"withheld: {shown_state(worker)}: {machine.why}, {machine.detail}{by}; {WAY_BACK[machine.state]}"
    if machine.mode is not machine.rules.mode:
        return f"withheld: {Missing.MODE_CHANGE}: orders of mode {machine.mode} are being pulled"
    if machine.own.strays:
        return f"withheld: {Missing.STRAY_ORDER}: {', '.join(machine.own.strays)} must be gone first"
    if machine.drift is not None or not machine.position.known:
        return f"withheld: {Missing.POSITION_UNKNOWN}: the exchange is asked again"
    if not machine.rules.allowed:
        return f"withheld: {Missing.NOT_ALLOWED}: not in limits.allowed"
    if isinstance(wanted, Wanted) and state.hold_ns > now_ns:
        return f"withheld: {state.hold_detail}, again in {(state.hold_ns - now_ns) * 1e-9:.2f} s"
    if isinstance(wanted, Wanted) and isinstance(state.wanted, Withheld) and state.wanted.why is Missing.SELF_CROSS:
        return f"withheld: {Missing.SELF_CROSS}: our order on the other side must move first"
    return quoted(worker, wanted)


WAY_BACK = {
    State.PAUSED: "ends with `mmdctl resume`",
    State.HALTED: "ends with `mmdctl reset`, then `mmdctl resume`",
    State.DRAINING: "it leaves when nothing of ours rests",
    State.GONE: "it has left",
}


def gate_says(worker: Worker, side: Side, wanted: Quoted, outbox: Outbox, now_ns: int) -> str:
    """What the gate would say to this quote now."""
    if not isinstance(wanted, Wanted):
        return "nothing to judge"
    machine = worker.machine
    state = machine.own.bid if side is Side.BID else machine.own.ask
    order = PlaceOrder(state.label, side, wanted.price_ticks, wanted.size_lots)
    verdict = review(order, machine.exposure(order), outbox.room(worker, order, now_ns))
    if isinstance(verdict, Refused):
        where = machine.settings.sources.get(verdict.key, verdict.key)
        return f"refused by {verdict.rule}: {verdict.number}, limit {verdict.limit}" + (f" ({where})" if where else "")
    return "passes"
