"""The slot table: every pair is listed or refused, and no order of events frees room that may still fill."""

from typing import Any

import msgspec
import pytest
from core_kit import BID, NS, acked, closed, fill, refused
from hypothesis import given
from hypothesis import strategies as st

from mmd.core.orders import (
    EMPTY,
    TRANSITIONS,
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
    lost,
    resting_prices,
    worst_lots,
)
from mmd.core.own import OwnOrders, SideState
from mmd.domain import events as ev
from mmd.domain.reasons import Fault, Phase, Rule

LATENCY = 2 * NS
NOW = 1000 * NS
SLOTS: dict[Phase, Occupied] = {
    Phase.PLACING: Placing("L", 995, 10, 0, NOW),
    Phase.LIVE: Live("L", "id", 995, 10, 0, NOW),
    Phase.AMENDING: Amending("L", "id", 995, 10, 0, 990, 15, NOW),
    Phase.CANCELLING: Cancelling("L", "id", 995, 10, 0, NOW),
    Phase.UNKNOWN: Unknown("L", "id", 995, 10, 0, Phase.LIVE, NOW, 0, 0),
}
# Every event about a label, in the variants that matter.
EVENTS: dict[type, list[ev.Mail]] = {
    ev.OrderAcked: [acked("L", 995, 10), acked("L", 990, 15), acked("L", 990, 5, total=15)],
    ev.OrderRefused: [refused("L"), refused("L", gone=True), refused("L", Fault.STATE)],
    ev.GateRefused: [ev.GateRefused("L", BID, Rule.COLLAR, "", "", "", NOW)],
    ev.OrderClosed: [closed("L"), closed("L", 10), closed("L", 4)],
    ev.OrderFilled: [fill("L", "t", BID, 4), fill("L", "t", BID, 10), fill("L", "t", BID, 15)],
    ev.OrderAbsent: [ev.OrderAbsent("L", NOW)],
    ev.RequestLost: [ev.RequestLost("L", "", NOW)],
    ev.OrdersReported: [ev.OrdersReported((), NOW)],
    ev.TimerFired: [ev.TimerFired(NOW)],
    ev.BookTop: [ev.BookTop((), (), 0, 0, NOW)],
}


@pytest.mark.parametrize("kind", list(EVENTS), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("phase", list(SLOTS))
def test_every_pair_is_listed_or_refused(phase: Phase, kind: type) -> None:
    allowed = TRANSITIONS.get((phase, kind))
    for event in EVENTS[kind]:
        for now in (NOW, NOW + 3 * NS):
            after = advance(SLOTS[phase], event, now, LATENCY)
            if allowed is None:
                assert after == IllegalTransition(phase, kind.__name__)
            else:
                assert not isinstance(after, IllegalTransition) and after.phase in allowed


def test_every_listed_successor_is_reached() -> None:
    """No dead entries: each phase that the table allows is the result of some event."""
    second = msgspec.structs.replace(SLOTS[Phase.UNKNOWN], absent=1)
    placed = msgspec.structs.replace(SLOTS[Phase.UNKNOWN], was=Phase.PLACING)
    amended = msgspec.structs.replace(SLOTS[Phase.UNKNOWN], to_price_ticks=1, to_total_lots=1)
    starts = [*SLOTS.values(), second, placed, amended]
    reached = set()
    for slot in starts:
        for kind, events in EVENTS.items():
            for event in events:
                after = advance(slot, event, NOW + 3 * NS, LATENCY)
                if not isinstance(after, IllegalTransition):
                    reached.add((slot.phase, kind, after.phase))
    listed = {(phase, kind, after) for (phase, kind), afters in TRANSITIONS.items() for after in afters}
    assert reached == listed


def test_the_table_knows_only_occupied_phases() -> None:
    assert {phase for phase, _ in TRANSITIONS} == set(SLOTS)
    assert Phase.EMPTY not in SLOTS


A = SLOTS[Phase.AMENDING]


@pytest.mark.parametrize(
    ("slot", "event", "expected"),
    [
        pytest.param(SLOTS[Phase.PLACING], acked("L", 995, 10), Live("L", "id-L", 995, 10, 0, NOW), id="placed"),
        pytest.param(
            SLOTS[Phase.PLACING],
            acked("L", 995, 4, total=10),
            Live("L", "id-L", 995, 10, 0, NOW),
            id="an answer ahead of its fills: only fills count fills",
        ),
        pytest.param(SLOTS[Phase.PLACING], fill("L", "t", BID, 10), EMPTY, id="filled before the answer"),
        pytest.param(A, acked("L", 990, 15), Live("L", "id-L", 990, 15, 0, NOW), id="amended"),
        pytest.param(A, acked("L", 995, 10), A, id="a second word about the placing"),
        pytest.param(A, refused("L"), Live("L", "id", 995, 10, 0, NOW), id="an amend refused: as before"),
        pytest.param(
            A,
            refused("L", gone=True),
            Unknown("L", "id", 995, 15, 0, Phase.AMENDING, NOW, 0, 0, 990, 15),
            id="gone is not an outcome",
        ),
        pytest.param(
            A,
            fill("L", "t", BID, 15),
            Amending("L", "id", 995, 10, 15, 990, 15, NOW),
            id="filled while amending: wait for the answer",
        ),
        pytest.param(SLOTS[Phase.CANCELLING], fill("L", "t", BID, 10), EMPTY, id="the fill won the race"),
        pytest.param(
            SLOTS[Phase.CANCELLING], refused("L"), Live("L", "id", 995, 10, 0, NOW), id="the cancel was refused"
        ),
        pytest.param(
            SLOTS[Phase.LIVE],
            closed("L", 4),
            Unknown("L", "id-L", 995, 4, 0, Phase.LIVE, NOW, 0, 1, ended=True),
            id="the end ahead of its fills: they are charged",
        ),
        pytest.param(
            Unknown("L", "id", 995, 4, 0, Phase.LIVE, NOW, 0, 1), fill("L", "t", BID, 4), EMPTY, id="here they are"
        ),
        pytest.param(
            Unknown("L", "", 995, 10, 0, Phase.PLACING, NOW, 0, 0), refused("L"), EMPTY, id="a late no to the placing"
        ),
        pytest.param(
            Unknown("L", "id", 995, 15, 0, Phase.AMENDING, NOW, 0, 0, 990, 15),
            acked("L", 995, 10),
            Unknown("L", "id", 995, 15, 0, Phase.AMENDING, NOW, 0, 0, 990, 15, 1),
            id="word that may be older than the amend: the larger total stays charged",
        ),
        pytest.param(
            Unknown("L", "id", 995, 15, 0, Phase.AMENDING, NOW - LATENCY, 0, 0, 990, 15, 1),
            acked("L", 995, 10),
            Live("L", "id-L", 995, 10, 0, NOW),
            id="the same word past the latency: the amend never was",
        ),
        pytest.param(
            Unknown("L", "id", 995, 15, 0, Phase.AMENDING, NOW, 0, 0, 990, 15),
            acked("L", 990, 15),
            Live("L", "id-L", 990, 15, 0, NOW),
            id="the amend was done",
        ),
        pytest.param(
            SLOTS[Phase.LIVE],
            acked("L", 995, 6),
            Unknown("L", "id", 995, 10, 0, Phase.LIVE, NOW, 0, 0, 995, 6),
            id="word that contradicts what we know: which is older, the exchange must say",
        ),
    ],
)
def test_single_steps(slot: Occupied, event: ev.Mail, expected: Slot) -> None:
    assert advance(slot, event, NOW, LATENCY) == expected


@pytest.mark.parametrize(
    ("seconds", "empty"), [pytest.param(1.9, False, id="too soon"), pytest.param(2.0, True, id="past the latency")]
)
def test_twice_absent_is_absent_past_the_latency(seconds: float, empty: bool) -> None:
    slot: Any = lost(SLOTS[Phase.PLACING], NOW)
    slot = advance(slot, ev.OrderAbsent("L", 0), NOW, LATENCY)
    assert slot.phase is Phase.UNKNOWN and worst_lots(slot) == 10
    slot = advance(slot, ev.OrderAbsent("L", 0), NOW + int(seconds * NS), LATENCY)
    assert isinstance(slot, Empty) is empty


@pytest.mark.parametrize(
    ("slot", "lots", "prices"),
    [
        pytest.param(EMPTY, 0, (), id="empty"),
        pytest.param(SLOTS[Phase.PLACING], 10, (995,), id="placing counts in full"),
        pytest.param(Live("L", "id", 995, 10, 4, 0), 6, (995,), id="live counts what is left"),
        pytest.param(A, 15, (995, 990), id="amending counts the larger, at both prices"),
        pytest.param(SLOTS[Phase.CANCELLING], 10, (995,), id="cancelling may still fill"),
        pytest.param(lost(A, NOW), 15, (995, 990), id="unknown counts all that it may have been"),
    ],
)
def test_worst_case(slot: Slot, lots: int, prices: tuple[int, ...]) -> None:
    assert worst_lots(slot) == lots
    assert resting_prices(slot) == prices


class Truth:
    """The order as the exchange has it, and what it has said that we have not heard yet, in order."""

    def __init__(self) -> None:
        self.price, self.total, self.filled, self.open = 995, 10, 0, False
        self.heard = 0
        self.told: list[ev.Mail] = []

    def tell(self, event: ev.Mail) -> None:
        self.told.append(event)

    def rests(self) -> None:
        self.tell(acked("L", self.price, self.total - self.filled, total=self.total))


STEPS = ["process", "process", "hear", "hear", "hear", "trade", "amend", "cancel", "lose", "overdue", "end", "twice"]


@given(steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(1, 12)), max_size=60))
def test_the_accounting_is_conservative(steps: list[tuple[str, int]]) -> None:
    """Fills heard + worst case of the slot never less than what the exchange has filled + may still fill.

    The link keeps order; requests may be lost, answers late and repeated, the end told before its fills.
    """
    truth, slot, now, trades = Truth(), SLOTS[Phase.PLACING], NOW, 0
    requests: list[tuple[str, int]] = [("place", 10)]
    current: Slot = slot
    for step, number in steps:
        now += NS // 10
        if step == "process" and requests:
            what, total = requests.pop(0)
            if what == "place":
                truth.open = True
                truth.rests()
            elif not truth.open:
                truth.tell(refused("L", gone=True))
            elif what == "cancel" or total <= truth.filled:
                truth.open = False
                truth.tell(closed("L", truth.filled))
            else:
                truth.total, truth.price = total, truth.price - 1
                truth.rests()
        elif step == "lose" and requests:
            requests.pop(0)
        elif step == "twice" and truth.told:
            truth.told.insert(1, truth.told[0]) if not isinstance(truth.told[0], ev.OrderFilled) else None
        elif step == "trade" and truth.open:
            lots = min(number, truth.total - truth.filled)
            truth.filled += lots
            trades += 1
            told: list[ev.Mail] = [fill("L", f"t{trades}", BID, lots)] if lots else []
            if truth.filled == truth.total:
                truth.open = False
                told.insert(number % 2, closed("L", truth.filled, "filled"))
            truth.told += told
        elif step == "end" and truth.open:
            truth.open = False
            truth.tell(closed("L", truth.filled, "expelled"))
        elif isinstance(current, Live) and step == "amend":
            total = current.filled_lots + number
            current = Amending(
                "L", "id", current.price_ticks, current.total_lots, current.filled_lots, truth.price - 1, total, now
            )
            requests.append(("amend", total))
        elif isinstance(current, Live) and step == "cancel":
            current = Cancelling("L", "id", current.price_ticks, current.total_lots, current.filled_lots, now)
            requests.append(("cancel", 0))
        elif step == "overdue" and not isinstance(current, Empty | Live):
            current = lost(current, now)
        elif step == "hear" and truth.told:
            event = truth.told.pop(0)
            if isinstance(event, ev.OrderFilled):
                truth.heard += event.size_lots
            if not isinstance(current, Empty):
                after = advance(current, event, now, LATENCY)
                current = current if isinstance(after, IllegalTransition) else after
        remaining = truth.total - truth.filled if truth.open else 0
        assert truth.heard + worst_lots(current) >= truth.filled + remaining


def test_a_process_whose_clock_was_ahead_leaves_no_order_that_waits_for_that_time() -> None:
    hours_ns = 7_200_000_000_000
    own = OwnOrders(1_000_000_000)
    left = SideState(BID)
    left.slot, left.label = Unknown("label", "", 100, 5, 0, Phase.PLACING, hours_ns, hours_ns, 0), "label"
    own.inherit(left, 1_000)
    slot = own.strays["label"].slot
    assert isinstance(slot, Unknown) and (slot.since_ns, slot.asked_ns) == (1_000, 1_000)
    own.take(ev.OrderAbsent("label", 1), "label", 2_000)
    own.take(ev.OrderAbsent("label", 1), "label", 1_000_002_000)
    assert not own.strays
