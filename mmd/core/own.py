"""All orders of ours on one instrument: the bid slot, the ask slot, and strays that should not be there.

A stray is an order with our label that no slot expects: a leftover of an earlier run, or an
answer that came after we were told "absent". It is charged, cancelled, and never quoted with.

A label is given to one order only. Where a second one rests with it, somebody else made one of the two: it is
a stray under a key of its own (`twin_key`). Whoever names an order id means the order with that id; who names
only the label may mean either, and both are moved.
"""

from mmd.core.orders import (
    EMPTY,
    Amending,
    Cancelling,
    Empty,
    IllegalTransition,
    Live,
    Occupied,
    Placing,
    Slot,
    Unknown,
    advance,
    doubted,
    inherited,
    lost,
    worst_lots,
)
from mmd.core.quoting import Quoted, Withheld
from mmd.core.trail import Rest, noted, rested
from mmd.domain.events import (
    Level,
    Mail,
    OpenOrder,
    OrderAbsent,
    OrderAcked,
    OrderClosed,
    OrderFilled,
    OrderRefused,
    OrdersReported,
)
from mmd.domain.reasons import Missing, Rule, Side

# Labels of finished orders that are remembered, so that a late answer is not taken for a stray.
FINISHED = 256
# How long the book may lag behind the answer to our own request, where the exchange does not say of when it is.
GHOST_NS = 250_000_000

InFlight = Placing | Amending | Cancelling
Moving = Amending | Cancelling


class SideState:
    """One slot and what goes with it. `hold_*`: no place or amend (cancel) before that time."""

    __slots__ = (
        "cancel_tries",
        "changed_ns",
        "failures",
        "ghost",
        "ghost_ns",
        "hold_cancel_ns",
        "hold_detail",
        "hold_ns",
        "label",
        "owed",
        "sent_ns",
        "side",
        "slot",
        "told",
        "trail",
        "wanted",
    )

    def __init__(self, side: Side) -> None:
        self.side = side
        self.slot: Slot = EMPTY
        self.label = ""
        self.changed_ns = 0
        self.sent_ns = 0  # when what rests was sent; of two that may be, the earlier
        self.hold_ns = 0
        self.hold_detail = ""
        self.hold_cancel_ns = 0
        self.cancel_tries = 0  # of the order that rests
        self.owed = 0  # answers about this order that were overdue and may come yet
        self.failures = 0
        self.told: Rule | None = None  # the gate's last refusal that was noted since an order passed
        self.wanted: Quoted = Withheld(Missing.NOT_ACTIVE)
        self.ghost: Level = (0, 0)
        self.ghost_ns = 0
        self.trail: tuple[Rest, ...] = ()  # ends with what rests now; empty = not known since when

    def shown(self, now_ns: int, book_ns: int) -> tuple[tuple[Level, ...], ...]:
        """Where a book of this time may show our order: as it was told, then as a request in flight may have it.

        `book_ns` by the exchange's clock. Market data and order answers come over different links: a book that
        is a little older than our cancel still shows the order, and improving on it would be climbing our own
        price. Where the exchange does not tell times, the old place counts for a while by our clock.
        """
        slot = self.slot
        told = rested(self.trail, book_ns)
        if told is None:
            told = ()
            if not isinstance(slot, Empty | Placing):
                told = ((slot.price_ticks, slot.total_lots - slot.filled_lots),)
            if now_ns < self.ghost_ns:
                told = (*told, self.ghost)
        if isinstance(slot, Empty | Live):
            return (told,)
        lots = slot.total_lots - slot.filled_lots
        if isinstance(slot, Placing):
            return (told, ((slot.price_ticks, lots),))
        if isinstance(slot, Amending):
            return (told, ((slot.to_price_ticks, slot.to_total_lots - slot.filled_lots),))
        if isinstance(slot, Cancelling):
            return (told, ())
        return (told, (), ((slot.price_ticks, lots),), ((slot.to_price_ticks or slot.price_ticks, lots),))

    def note(self, event: Mail, before: Occupied) -> None:
        """Whether and where the order rests from the event's time on; an event without a time ends what is known.

        `before`: the slot that it found. One whose place was refused never rested: what is known stays.
        """
        if isinstance(event, OrderAcked):
            resting = (event.price_ticks, event.remaining_lots)
        elif isinstance(event, OrderClosed):
            resting = (0, 0)
        elif isinstance(event, OrderFilled):
            if isinstance(before, Placing) or (isinstance(before, Unknown) and before.ended):
                return  # nobody told us yet that it rests, or it has ended: its end was told, with its time
            left = before.total_lots - before.filled_lots - event.size_lots
            resting = (before.price_ticks, left) if left > 0 else (0, 0)
        else:
            if isinstance(self.slot, Empty) and not isinstance(before, Placing):
                self.trail = ()
            return
        self.trail = noted(self.trail, event.exchange_ns, *resting) if event.exchange_ns else ()

    def is_behind(self, event: OrderAcked) -> bool:
        """Word of an earlier time than what is known, by the exchange's clock: an answer that was long under way."""
        return bool(self.trail) and 0 < event.exchange_ns < self.trail[-1][0]

    def hold(self, until_ns: int, detail: str) -> None:
        self.hold_ns = max(self.hold_ns, until_ns)
        self.hold_detail = detail


class OwnOrders:
    """The only owner of the slots. Pure: the machine passes events and times in."""

    __slots__ = ("_finished", "ask", "bid", "latency_ns", "strays")

    def __init__(self, latency_ns: int) -> None:
        self.bid = SideState(Side.BID)
        self.ask = SideState(Side.ASK)
        self.strays: dict[str, SideState] = {}
        self.latency_ns = latency_ns
        # By key, how many lots of it had filled when nothing was left by our count; None = the exchange told its end.
        self._finished: dict[str, int | None] = {}

    def every(self) -> tuple[SideState, ...]:
        """Both slots, then the strays."""
        return (self.bid, self.ask, *self.strays.values()) if self.strays else (self.bid, self.ask)

    def find(self, label: str, order_id: str = "") -> SideState | None:
        """Who has the order with this label, and with this id where both are known; no label is nobody's."""
        if not label:
            return None
        if order_id and self.strays:
            twin = self.strays.get(twin_key(label, order_id))
            if twin is not None:
                return twin
        if self.bid.label == label:
            found = self.bid
        elif self.ask.label == label:
            found = self.ask
        elif label in self.strays:
            found = self.strays[label]
        else:
            return None if order_id or not self.strays else next(iter(self._twins(label)), None)
        if order_id:
            slot = found.slot
            known = "" if isinstance(slot, Empty | Placing) else slot.order_id
            return found if known in ("", order_id) else None
        return found

    def _twins(self, label: str) -> list[SideState]:
        """Strays of this label beside the order that has it."""
        return [
            stray
            for key, stray in self.strays.items()
            if key != label and not isinstance(stray.slot, Empty) and stray.slot.label == label
        ]

    def is_doubled(self, label: str) -> bool:
        """More than one order rests, or may, with this label."""
        return bool(self.strays) and bool(self._twins(label))

    def put(self, state: SideState, slot: Slot, now_ns: int) -> None:
        """Install a slot's successor; an emptied stray is forgotten."""
        before = state.slot
        state.slot = slot
        is_stray = bool(self.strays) and self.strays.get(state.label) is state  # its key stays
        if isinstance(slot, Moving):
            if not is_stray:
                state.label = slot.label
            return
        if isinstance(before, Live | Moving):
            state.ghost = (before.price_ticks, before.total_lots - before.filled_lots)
            state.ghost_ns = now_ns + GHOST_NS
        if isinstance(slot, Empty):
            label, state.label = state.label, ""
            if self.strays:
                self._leave(label, is_stray)
            state.owed = 0
            state.cancel_tries = state.hold_cancel_ns = 0  # the next order's cancels have no history
            state.changed_ns = now_ns
        else:
            if not is_stray:
                state.label = slot.label
            if isinstance(slot, Placing):
                state.sent_ns = slot.sent_ns
            if isinstance(slot, Live) and isinstance(before, Placing | Amending):
                state.changed_ns = now_ns

    def _leave(self, key: str, is_stray: bool) -> None:
        """An order is over: a stray's key is gone, and the label belongs to the other order that rests with it."""
        if is_stray:
            del self.strays[key]
        for twin in self._twins(key)[:1]:
            del self.strays[twin.label]
            twin.label = key
            self.strays[key] = twin

    def take(self, event: Mail, label: str, now_ns: int) -> IllegalTransition | None:
        """Move the slot that carries this label; an event the table does not know is returned."""
        order_id = id_of(event)
        state = self.find(label, order_id)
        if state is None:
            if isinstance(event, OrderClosed) and self._finished.get(label) is not None:
                self._finished[label] = None
            return None
        twins = [] if order_id or not self.strays else self._twins(label)
        illegal = self._move(state, event, now_ns)
        for twin in twins:
            if twin is not state:
                self._move(twin, event, now_ns)
        return illegal

    def _move(self, state: SideState, event: Mail, now_ns: int) -> IllegalTransition | None:
        """Move this slot."""
        slot = state.slot
        if isinstance(slot, Empty):
            return None
        after: Slot | IllegalTransition
        if isinstance(slot, Unknown) and isinstance(event, OrderAcked) and state.is_behind(event):
            after = doubted(slot, event, now_ns, self.latency_ns)
            if isinstance(after, Unknown):
                self.put(state, after, now_ns)
                return None  # nothing new is known of where it rests
        else:
            after = advance(slot, event, now_ns, self.latency_ns)
        if state.owed and isinstance(event, OrderRefused) and isinstance(slot, Moving) and isinstance(after, Live):
            state.owed -= 1
            after = lost(slot, now_ns)  # the no may be to an earlier request: this one may be carried out
        if isinstance(after, IllegalTransition):
            return after
        if isinstance(after, Empty):
            if isinstance(event, OrderClosed) or (isinstance(slot, Unknown) and slot.ended):
                self._finish(state.label, None)
            elif isinstance(event, OrderFilled):
                self._finish(state.label, slot.filled_lots + event.size_lots)
        self.put(state, after, now_ns)
        state.note(event, slot)
        if isinstance(slot, Amending) and isinstance(after, Live) and isinstance(event, OrderAcked):
            state.sent_ns = slot.sent_ns
            state.cancel_tries = state.hold_cancel_ns = 0  # what refused its cancels takes requests again
        return None

    def _finish(self, key: str, filled_lots: int | None) -> None:
        self._finished[key] = filled_lots
        if len(self._finished) > FINISHED:
            del self._finished[next(iter(self._finished))]

    def finished(self, label: str, total_lots: int = 0) -> bool:
        """The exchange has told us the end of this order, or as many lots of it have filled by our count."""
        if label not in self._finished:
            return False
        filled = self._finished[label]
        return filled is None or total_lots <= filled

    def is_news(self, order: OpenOrder | OrderAcked) -> bool:
        """Whether an order that nobody has rests there; else this is late word of one that has ended."""
        key = twin_key(order.label, order.order_id)
        return not self.finished(order.label, order.total_lots) and not self.finished(key, order.total_lots)

    def adopt(self, order: OpenOrder | OrderAcked, side: Side, now_ns: int, counted_lots: int = 0) -> None:
        """An open order that no slot expects becomes a stray; `counted_lots` of its fills are in the position.

        A report comes after the fills it knows of; an answer may be ahead of them: all but the counted are charged.
        Of an order that had seemed to be over we have counted the fills ourselves.
        """
        stray = SideState(side)
        key, told = order.label, isinstance(order, OpenOrder)
        filled = order.total_lots - order.remaining_lots if told else counted_lots
        if self.find(key) is not None:
            key = twin_key(order.label, order.order_id)
            filled = filled if told else 0  # what was counted for the label is the other order's
        else:
            counted = self._finished.get(key)
            filled = filled if counted is None else counted
        stray.slot = Live(order.label, order.order_id, order.price_ticks, order.total_lots, filled, now_ns)
        stray.label = key
        self.strays[key] = stray

    def inherit(self, state: SideState, now_ns: int) -> None:
        """An order that another process's machine had out: it may rest, and is asked about and cancelled."""
        assert not isinstance(state.slot, Empty), "a label means that there is an order"
        stray = SideState(state.side)
        stray.slot = inherited(state.slot, now_ns)
        stray.label = state.label
        self.strays[state.label] = stray

    def remember(self, other: "OwnOrders") -> None:
        """Orders whose end that one was told: late word of them is no news here either."""
        self._finished = dict(other._finished)

    def try_again(self) -> None:
        """Whatever stood in the way of a cancel may be over: it is tried at once, and counted from here."""
        for state in self.every():
            state.cancel_tries = state.hold_cancel_ns = 0

    def forget_ended(self, now_ns: int, only: str = "") -> None:
        """Orders, or the one, that are over and whose fills never came: a position that was adopted has them in it."""
        for state in self.every():
            if isinstance(state.slot, Unknown) and state.slot.ended and only in ("", state.label):
                self._finish(state.label, None)
                self.put(state, EMPTY, now_ns)

    def link_lost(self, now_ns: int) -> None:
        """Nothing is known for sure any more, and no answer comes over that link."""
        for state in self.every():
            state.owed = 0
            if not isinstance(state.slot, Empty):
                self.put(state, lost(state.slot, now_ns), now_ns)

    def reported(self, event: OrdersReported, now_ns: int) -> list[str]:
        """Compare with all open orders as the exchange lists them; returns the labels of new strays.

        Only slots whose answer is not under way are judged: those could have changed since.
        """
        there: dict[str, OpenOrder] = {}
        others: list[OpenOrder] = []
        for order in event.orders:
            state = self.find(order.label, order.order_id)
            if state is None or there.setdefault(state.label, order).order_id != order.order_id:
                others.append(order)
        for state, row in [(state, there.get(state.label)) for state in self.every()]:
            self._compare(state, row, event.received_ns, now_ns)
        strays = [order for order in others if self.is_news(order)]
        for order in strays:
            self.adopt(order, order.side, now_ns)
        return [order.label for order in strays]

    def _compare(self, state: SideState, order: OpenOrder | None, received_ns: int, now_ns: int) -> None:
        """What a list of all open orders, in which this is ours, says of a slot.

        It says nothing of the fills that an order which has ended still owes us. An order that is larger than
        ours can fill with more than we charge: that is not left to a second look.
        """
        slot = state.slot
        if not isinstance(slot, Live | Unknown):
            return
        if order is None:
            if not (isinstance(slot, Unknown) and slot.ended):
                self._move(state, OrderAbsent(slot.label, received_ns), now_ns)
        elif isinstance(slot, Unknown) or order.total_lots > slot.total_lots:
            size = (order.remaining_lots, order.total_lots)
            self._move(state, OrderAcked(slot.label, order.order_id, order.price_ticks, *size, received_ns), now_ns)

    def worst(self, side: Side, besides: str = "") -> int:
        """Lots on this side that may still fill, strays included, one label left out."""
        own = self.bid if side is Side.BID else self.ask
        total = 0 if besides and own.label == besides else worst_lots(own.slot)
        if self.strays:
            total += sum(
                worst_lots(stray.slot)
                for stray in self.strays.values()
                if stray.side is side and stray.label != besides
            )
        return total

    def may_explain(self, off_lots: int) -> bool:
        """Whether fills that nobody told us yet of orders of unknown outcome can be this difference, signed lots."""
        side = Side.BID if off_lots > 0 else Side.ASK
        unknown = [state.slot for state in self.every() if state.side is side and isinstance(state.slot, Unknown)]
        return abs(off_lots) <= sum(map(worst_lots, unknown))

    def stray_lots(self, side: Side) -> int:
        if not self.strays:
            return 0
        return sum(worst_lots(stray.slot) for stray in self.strays.values() if stray.side is side)

    def others_on_side(self, side: Side, label: str) -> int:
        """How many orders other than this label's may rest on the side."""
        own = self.bid if side is Side.BID else self.ask
        count = 1 if own.label and own.label != label else 0
        if self.strays:
            count += sum(1 for stray in self.strays.values() if stray.side is side and stray.label != label)
        return count

    @property
    def resting(self) -> int:
        """Orders of ours that are or may be at the exchange."""
        return (1 if self.bid.label else 0) + (1 if self.ask.label else 0) + len(self.strays)

    @property
    def unknown(self) -> int:
        return sum(1 for state in self.every() if isinstance(state.slot, Unknown))

    def in_flight_since(self, slot: Occupied) -> int | None:
        """When the request in flight was sent; None if there is none."""
        return slot.sent_ns if isinstance(slot, InFlight) else None


def twin_key(label: str, order_id: str) -> str:
    """The key among the strays of an order whose label another one has."""
    return f"{label} {order_id}"


def id_of(event: Mail) -> str:
    """The order id that the event names; empty where it names none."""
    return event.order_id if isinstance(event, OrderAcked | OrderClosed | OrderFilled) else ""
