"""A symbol's machine that sees everything there is to see, sensible or not, and keeps a log of it.

Every step takes two numbers below 100 and makes of them what it needs; the same steps do the same.
"""

import random
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from core_kit import ASK, BID, INVERSE, LINEAR, NS, OPTION, PLAIN, START_NS, changed, settings

from mmd.core.machine import HANDLERS, SymbolMachine
from mmd.core.orders import Amending, Cancelling, Empty, Placing
from mmd.core.own import SideState
from mmd.domain import events as ev
from mmd.domain.actions import AmendOrder, Decision, PlaceOrder, ReduceOrder
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import CaseKind, CashKind, Fault, Mode, Response, Rule, Switch, Why
from mmd.domain.settings import Fair, Requote, Style, SymbolSettings, VolatilityWidth

MOVING = VolatilityWidth(multiplier=2.0, fast_seconds=3.0, slow_seconds=20.0)
LOOSE = {"max_position": Decimal(60), "max_rejects": 10_000, "max_fills": 300, "max_filled": Decimal(1_000_000)}


def given(size: int = 10, **more: Any) -> SymbolSettings:
    """Settings under which a machine is not halted by the first thing that happens."""
    data = {"max_jump_bps": 1e6, "max_jump_ticks": 10**6, "auto_resume": True, "stale_seconds": 30.0}
    limits = {**LOOSE, **more.pop("limits", {})}
    made = settings(size=Decimal(size), limits=limits, data={**data, **more.pop("data", {})}, **more)
    return changed(made, sources={"collar_bps": "limits.per_symbol.collar_bps (mmd.yaml:71)"})


# Instrument, settings, a price in ticks.
SETUPS: dict[str, tuple[Instrument, SymbolSettings, int]] = {
    "plain": (PLAIN, given(), 1000),
    "jumpy": (PLAIN, given(data={"max_jump_bps": 10.0, "max_jump_ticks": 1, "auto_resume_seconds": 1.0}), 1000),
    "volatile": (PLAIN, given(volatility=MOVING, fair=Fair.MICROPRICE), 1000),
    "shadow": (LINEAR, given(1, mode=Mode.SHADOW, limits={"max_position": Decimal(5)}), 40_000),
    "inverse": (
        INVERSE,
        given(100, requote=Requote.REPLACE, style=Style.IMPROVE, limits={"max_position": Decimal(900)}),
        60_000,
    ),
    "option": (
        changed(OPTION, maker_fee=Decimal("0.0003"), expiry_ns=START_NS + 900 * NS),
        given(1, style=Style.JOIN, spread_bps=500.0, limits={"collar_vol_points": 10.0, "max_position": Decimal(3)}),
        200,
    ),
    "protected": (PLAIN, changed(given(skew_bps=30.0), protected=True), 1000),
}
Step = tuple[str, int, int]
Outcome = list[Decision] | str


def outcome(machine: SymbolMachine, events: tuple[ev.Mail, ...], now_ns: int) -> Outcome:
    """The actions, or what it raised."""
    try:
        return machine.handle(events, now_ns)
    except (AssertionError, ArithmeticError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def order_id_of(slot: Any) -> str:
    """The id that the exchange gave it, or will."""
    return getattr(slot, "order_id", "") or f"id-{slot.label}"


class Wild:
    """One machine and whatever may happen to it. `log`: batches with their times and outcomes."""

    def __init__(self, setup: str) -> None:
        instrument, self.given, self.centre = SETUPS[setup]
        self.now_ns, self.number, self.epochs = START_NS, 0, 0
        self.machine = SymbolMachine(instrument, self.given, "ep0", START_NS)
        self.log: list[tuple[tuple[ev.Mail, ...], int, Outcome]] = []
        self.told_fills: list[ev.OrderFilled] = []
        self.begin(0, 0)

    def run(self, steps: list[Step]) -> None:
        for name, a, b in steps:
            getattr(self, name)(a, b)

    def post(self, *events: ev.Mail) -> None:
        found = outcome(self.machine, events, self.now_ns)
        self.log.append((events, self.now_ns, found))
        for action in found if isinstance(found, list) else ():
            if isinstance(action, PlaceOrder | AmendOrder | ReduceOrder):
                self.machine.exposure(action)  # as the gate does: a look that changes nothing

    def next(self) -> int:
        self.number += 1
        return self.number

    @property
    def instrument(self) -> Instrument:
        return self.machine.instrument

    def price(self, ticks: int) -> Decimal:
        return self.instrument.grid.price(max(1, ticks))

    def orders(self) -> list[SideState]:
        return [state for state in self.machine.own.every() if not isinstance(state.slot, Empty)]

    def pick(self, a: int) -> SideState | None:
        orders = self.orders()
        return orders[a % len(orders)] if orders else None

    # --- what it takes to trade ---

    def begin(self, a: int, b: int) -> None:
        now = self.now_ns
        self.post(ev.DataLinkUp(now), ev.TradeLinkUp(True, now))
        self.post(
            ev.OrdersReported((), now),
            ev.ProtectionReported(True, "armed", now),
            ev.PositionReported(self.machine.position.lots, Decimal(0), now),
            ev.BoundsSet(self.next(), -(10**6), 10**6, now),
        )
        self.book(50, 30)
        self.resume(0, 0)

    def resume(self, a: int, b: int) -> None:
        now = self.now_ns
        self.post(ev.ResetRequested(self.next(), "root", "go on", now))
        self.post(ev.ResumeRequested(self.next(), "root", "go on", now))

    def back_to_work(self, a: int, b: int) -> None:
        """Everything is well again."""
        machine, now = self.machine, self.now_ns
        for switch in list(machine.held):
            self.post(ev.SwitchCleared(switch, now))
        self.post(ev.TradeLinkUp(True, now), ev.DataLinkUp(now), ev.ProtectionReported(True, "armed", now))
        for _ in range(3):
            for state in self.orders():
                self.post(ev.OrderClosed(state.label, order_id_of(state.slot), "user_request", 0, now))
        for kind, subject in list(machine.cases):
            self.post(ev.CaseAccepted(self.next(), kind, subject, "root", "looked at", now))
        self.post(ev.OrdersReported((), now), ev.PositionReported(machine.position.lots, Decimal(0), now))
        self.book(50, 30)
        self.resume(0, 0)

    # --- market ---

    def book(self, a: int, b: int) -> None:
        self.centre = max(60, self.centre + (a - 50) * self.centre // 20_000 + (a % 3 - 1))
        width = 1 + b * self.centre // 20_000
        bids = tuple((self.centre - width - i, 7 + a) for i in range(1 + b % 3))
        asks = tuple((self.centre + width + i, 9 + b) for i in range(1 + a % 3))
        self.post(ev.BookTop(bids, asks, self.next(), self.now_ns, self.now_ns))

    def bad_book(self, a: int, b: int) -> None:
        mid, now = self.centre, self.now_ns
        tops = [((), ((mid, 5),)), (((mid, 5),), ()), (((mid, 5),), ((mid, 5),)), (((mid + 9, 5),), ((mid, 5),))]
        if a % 5 == 4:
            self.post(ev.BookBroken(Why.BOOK_GAP, f"gap {b}", now))
        else:
            self.post(ev.BookTop(*tops[a % 5], self.next(), now, now))

    def ticker(self, a: int, b: int) -> None:
        mark = float(self.price(self.centre)) * (1.0 + (a - 50) / 5000.0)
        low, high = (mark * 0.5, mark * 1.7) if b % 4 else (0.0, 0.0)
        iv = 60.0 + b / 7.0
        index = 50_000.0 + a / 3.0
        self.post(ev.Ticker(mark, index, index * 1.01, low, high, iv, 0.4, self.now_ns, self.now_ns, mark, mark))

    def printed(self, a: int, b: int) -> None:
        self.post(ev.TradePrinted(self.centre + a - 50, 1 + b, BID if a % 2 else ASK, self.now_ns, self.now_ns))

    def instrument_state(self, a: int, b: int) -> None:
        self.post(ev.InstrumentStateChanged("open" if a % 3 else "halted", bool(a % 3), a == 99, self.now_ns))

    def links(self, a: int, b: int) -> None:
        now = self.now_ns
        kinds = (ev.DataLinkDown(f"reset {b}", now), ev.TradeLinkDown(f"reset {b}", now))
        self.post(*(kinds[:1], kinds[1:], kinds)[a % 3])

    # --- answers ---

    def answer(self, a: int, b: int) -> None:
        """The answer that is waited for, now and then another one."""
        state = self.pick(a)
        if state is None:
            return
        slot, now, label = state.slot, self.now_ns, state.label
        if b >= 90:
            self.post(ev.RequestLost(label, "timeout", now))
        elif b >= 80:
            fault = list(Fault)[a % len(Fault)]
            self.post(ev.OrderRefused(label, fault, str(10_000 + a), "no", b >= 87, now))
        elif isinstance(slot, Cancelling):
            self.post(ev.OrderClosed(label, slot.order_id, "user_request", slot.filled_lots + b // 70, now, now))
        else:
            moved = isinstance(slot, Amending)
            price, total = (slot.to_price_ticks, slot.to_total_lots) if moved else (slot.price_ticks, slot.total_lots)
            left = max(0, total - slot.filled_lots)
            self.post(ev.OrderAcked(label, order_id_of(slot), price + b // 70, left, total, now, now * (b % 2)))

    def answer_all(self, a: int, b: int) -> None:
        for n, state in enumerate(self.orders()):
            if isinstance(state.slot, Placing | Amending | Cancelling):
                self.answer(n, 0)

    def ended(self, a: int, b: int) -> None:
        state = self.pick(a)
        if state is not None:
            cause = ("user_request", "maintenance", "cancelled", "expired")[b % 4]
            self.post(
                ev.OrderClosed(
                    state.label, order_id_of(state.slot), cause, state.slot.filled_lots + b // 80, self.now_ns
                )
            )

    def absent(self, a: int, b: int) -> None:
        state = self.pick(a)
        if state is not None:
            self.post(ev.OrderAbsent(state.label, self.now_ns))

    def gate_says_no(self, a: int, b: int) -> None:
        state = self.pick(a)
        if state is not None:
            rule = list(Rule)[b % len(Rule)]
            self.post(ev.GateRefused(state.label, state.side, rule, str(a), str(b), "collar_bps", self.now_ns))

    def filled(self, a: int, b: int) -> None:
        """A part or all of an order; told twice now and then, or late; fees in another coin; both sides of one id."""
        state = self.pick(a)
        if b >= 95 and self.told_fills:
            told = self.told_fills[a % len(self.told_fills)]
            self.post(told if a % 2 else changed(told, side=ASK if told.side is BID else BID))
            return
        label, side = (state.label, state.side) if state is not None else ("", (BID, ASK)[a % 2])
        price = state.slot.price_ticks if state is not None else self.centre
        order_id = order_id_of(state.slot) if state is not None else "x"
        currency = self.instrument.settlement if b % 3 else "DOGE"
        fee = Decimal(a - 40).scaleb(-6)
        number = self.next()
        made = 100_000 + number - (0, 0, 4)[a % 3]  # some are told after later ones
        name, at_ns, lots = f"t{made}-{number + 10_000}", START_NS + made * NS if b % 11 else 0, 1 + b % 7
        fill = ev.OrderFilled(
            label, order_id, name, side, self.price(price), lots, fee, currency, True, 100.0, at_ns, self.now_ns
        )
        self.told_fills.append(fill)
        self.post(fill)

    def shadow_filled(self, a: int, b: int) -> None:
        state, bound = self.pick(a), (ev.Bound.PESSIMISTIC, ev.Bound.OPTIMISTIC)[b % 2]
        if state is not None:
            price = self.price(state.slot.price_ticks)
            self.post(ev.ShadowFilled(state.label, bound, state.side, price, 1, self.next(), self.now_ns))

    def cash(self, a: int, b: int) -> None:
        option = self.instrument.is_option
        kind = CashKind.FUNDING if a % 3 else CashKind.SETTLEMENT
        currency = "DOGE" if b > 90 else self.instrument.settlement
        closed = self.machine.position.lots if kind is CashKind.SETTLEMENT and (option or b > 60) else 0
        number = self.number if b > 80 else self.next()
        self.post(ev.CashMoved(f"e{number}", kind, Decimal(a - 50).scaleb(-4), currency, closed, 0, self.now_ns))

    # --- reports ---

    def orders_reported(self, a: int, b: int) -> None:
        """What we know, other quantities, or orders that are not ours."""
        found = []
        for n, state in enumerate(self.orders()):
            slot = state.slot
            if (a + n) % 5 == 4:
                continue
            total = slot.total_lots + (1 if b >= 70 else 0)
            left = max(1, total - slot.filled_lots)
            found.append(ev.OpenOrder(slot.label, order_id_of(slot), state.side, slot.price_ticks, left, total))
        if a % 4 == 3:
            epoch = "ep0" if b % 2 else "zz"
            label = f"mmd-test-{self.instrument.symbol}-{'b' if b % 3 else 'a'}-{epoch}-z{b}"
            found.append(ev.OpenOrder(label, "y", BID if b % 3 else ASK, self.centre - 9, 3, 5))
        for _ in range(1 + a % 2):
            self.post(ev.OrdersReported(tuple(found), self.now_ns))

    def stray_acked(self, a: int, b: int) -> None:
        label = f"mmd-test-{self.instrument.symbol}-b-{self.machine.epoch}-y{a}"
        self.post(ev.OrderAcked(label, "y", self.centre - a, 1 + b, 2 + b, self.now_ns))

    def position_reported(self, a: int, b: int) -> None:
        lots = self.machine.position.lots + (0 if a % 3 else b % 5 - 2)
        average = self.price(self.centre + b - 50) if lots else Decimal(0)
        profit = Decimal(b).scaleb(-3) if b % 2 else None
        report = ev.PositionReported(lots, average, self.now_ns, float(self.price(self.centre)), profit)
        for _ in range(1 + (a % 5 == 0)):
            self.post(report)

    def journal_doubted(self, a: int, b: int) -> None:
        self.post(ev.JournalDoubted(f"cut at {a}", self.now_ns))

    def accepted(self, a: int, b: int) -> None:
        cases = [*self.machine.cases, (CaseKind.AVERAGE, "")]
        kind, subject = cases[a % len(cases)]
        self.post(ev.CaseAccepted(self.next(), kind, subject, "root", "looked at", self.now_ns))

    def protection(self, a: int, b: int) -> None:
        if a % 3:
            self.post(ev.ProtectionReported(bool(b % 2), f"read {b}", self.now_ns))
        else:
            self.post(ev.ProtectionTripped("quantity", 0, self.now_ns))

    # --- people and the house ---

    def operator(self, a: int, b: int) -> None:
        now, n = self.now_ns, self.next()
        match a % 4:
            case 0:
                self.post(ev.PauseRequested(n, "root", "test", now))
            case 1:
                self.post(ev.HaltRequested(n, list(Why)[b % len(Why)], "root", "test", now))
            case _:
                self.resume(a, b)

    def flatten(self, a: int, b: int) -> None:
        """Paused, nothing out there, and a position: it is closed in parts."""
        lots, now = abs(self.machine.position.lots), self.now_ns
        self.post(ev.PauseRequested(self.next(), "root", "test", now))
        for state in self.orders():
            self.post(ev.OrderClosed(state.label, order_id_of(state.slot), "user_request", 0, now))
        self.post(ev.FlattenRequested(self.next(), "root", "", max(1, lots * (1 + b) // 100), self.centre, now))

    def switch(self, a: int, b: int) -> None:
        switch = list(Switch)[a % len(Switch)]
        if b % 4:
            self.post(ev.SwitchTripped(switch, list(Response)[b % 3], f"found {b}", self.now_ns))
        else:
            self.post(ev.SwitchCleared(switch, self.now_ns))

    def bounds(self, a: int, b: int) -> None:
        self.post(ev.BoundsSet(self.next(), -a, b, self.now_ns))

    def settings_change(self, a: int, b: int) -> None:
        profile = changed(
            self.given.profile,
            tolerance_bps=(0.0, 1.0, 50.0)[b % 3],
            volatility=(None, MOVING, self.given.profile.volatility)[a % 3],
        )
        mode = (Mode.LIVE, Mode.SHADOW)[a % 2] if b > 80 else self.given.mode
        limits = changed(self.given.limits, drift_window_seconds=(60.0, 7.0)[b % 2])
        new = changed(self.given, profile=profile, limits=limits, mode=mode)
        self.post(ev.SettingsChanged(new, self.now_ns))

    def wait(self, a: int, b: int) -> None:
        self.now_ns += int((0.01, 0.06, 0.3, 1.1, 2.1, 11.0)[a % 6] * NS)
        self.post(ev.TimerFired(self.now_ns))

    def restart(self, a: int, b: int) -> None:
        """Another process: its machine takes over what the old one left."""
        self.epochs += 1
        instrument = changed(self.instrument, maker_fee=Decimal(b).scaleb(-6)) if a % 2 else self.instrument
        old, self.machine = self.machine, SymbolMachine(instrument, self.given, f"ep{self.epochs}", self.now_ns)
        self.machine.inherit(old, self.now_ns)
        self.log = []
        self.begin(0, 0)

    def removal(self, a: int, b: int) -> None:
        self.post(ev.RemovalRequested(Why.EXPIRED if b % 2 else Why.REMOVED, self.now_ns))


# How often each step is drawn: mostly trading, now and then trouble.
WEIGHTS = {
    "book": 14,
    "answer": 12,
    "answer_all": 12,
    "filled": 10,
    "wait": 8,
    "back_to_work": 5,
    "ticker": 5,
    "shadow_filled": 4,
    "ended": 3,
    "orders_reported": 3,
    "position_reported": 3,
    "cash": 2,
    "absent": 2,
    "gate_says_no": 2,
    "switch": 2,
    "stray_acked": 2,
    "flatten": 2,
    "bounds": 2,
    "settings_change": 1,
    "operator": 1,
    "protection": 1,
    "printed": 1,
    "bad_book": 1,
    "links": 1,
    "instrument_state": 1,
    "accepted": 1,
    "journal_doubted": 1,
}
STEPS = [name for name, weight in WEIGHTS.items() for _ in range(weight)]


def drawn(seed: int, count: int) -> list[Step]:
    draw = random.Random(seed)
    return [(draw.choice(STEPS), draw.randrange(100), draw.randrange(100)) for _ in range(count)]


def driven(setup: str, seed: int, count: int, after: Callable[[Wild], None] | None = None) -> Wild:
    """A long history; `after` every step."""
    wild = Wild(setup)
    for step in drawn(seed, count):
        wild.run([step])
        if after is not None:
            after(wild)
    return wild


def unhandled() -> set[type]:
    """Events that no step here ever makes."""
    seen: set[type] = set()
    for seed, setup in enumerate([*SETUPS, *SETUPS]):
        wild = driven(setup, seed, 400)
        wild.removal(0, 0)
        seen |= {type(event) for events, _, _ in wild.log for event in events}
    return set(HANDLERS) - seen
