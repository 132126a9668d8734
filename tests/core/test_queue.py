"""The queue model: a table for every rule, bounds that hold in any market, and a truth that lies between them."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmd.core.queue import NO_FILLS, SETTLE_NS, Fill, QueueModel, shown_at
from mmd.domain.events import BookTop, Bound, Level, TradePrinted
from mmd.domain.reasons import Side

BID, ASK = Side.BID, Side.ASK
MS = 1_000_000
LATE_NS = 10 * MS
DELAY_NS = 3 * MS  # a change's second message comes so much later than its first
START_NS = 1_700_000_000_000 * MS
SETTLED_MS = SETTLE_NS // MS
MID = 1000  # prices of the tables are distances from here, mirrored for asks; our order is mostly at 0
Step = tuple[Any, ...]


class Tape:
    """A market told in milliseconds, seen by one model. `mirror` plays the same story for the other side."""

    def __init__(self, mirror: bool = False, latency_ns: int = LATE_NS) -> None:
        self.model = QueueModel(latency_ns)
        self.mirror = mirror
        self.side = ASK if mirror else BID
        self.ms = 0
        self.fills: list[Fill] = []

    @property
    def now_ns(self) -> int:
        return START_NS + self.ms * MS

    def price(self, away: int) -> int:
        """Ticks of a price so far above the origin, as a bid sees it."""
        return MID - away if self.mirror else MID + away

    def levels(self, *levels: Level) -> tuple[Level, ...]:
        return tuple([(self.price(away), lots) for away, lots in levels])

    def at(self, ms: int) -> "Tape":
        self.ms = ms
        return self

    def book(self, *ours: Level, other: Sequence[Level] = ((10, 50),), dated: int | None = None) -> None:
        """`ours`: our side's levels, `other`: the opposite ones, as (distance, lots), best first."""
        own, opposite = self.levels(*ours), self.levels(*other)
        bids, asks = (opposite, own) if self.mirror else (own, opposite)
        dated_ns = START_NS + (self.ms if dated is None else dated) * MS
        self.fills += self.model.on_book(BookTop(bids, asks, 0, dated_ns, self.now_ns), self.now_ns)

    def print(self, away: int, lots: int, *, same: bool = False, dated: int | None = None) -> None:
        """A trade; `same`: its taker stands on our side."""
        taker = self.side if same else (BID if self.mirror else ASK)
        dated_ns = START_NS + (self.ms if dated is None else dated) * MS
        trade = TradePrinted(self.price(away), lots, taker, dated_ns, self.now_ns)
        self.fills += self.model.on_trade(trade, self.now_ns)

    def place(self, away: int = 0, lots: int = 10) -> None:
        self.model.place("x", self.side, self.price(away), lots, self.now_ns)

    def blind(self) -> None:
        self.model.blind(self.now_ns)

    def amend(self, away: int, total: int) -> None:
        self.model.amend(self.model.orders["x"], self.price(away), total, self.now_ns)

    def filled(self, bound: Bound) -> int:
        return sum(fill.size_lots for fill in self.fills if fill.bound is bound)

    @property
    def bounds(self) -> tuple[int, int]:
        """(pessimistic, optimistic) lots filled so far."""
        return (self.filled(Bound.PESSIMISTIC), self.filled(Bound.OPTIMISTIC))


# name of the method, then arguments; a leading number is the time in ms.
JOINED: list[Step] = [(0, "book", (0, 30), (-1, 40)), (0, "place")]
ALONE: list[Step] = [(0, "book", (-1, 40), (-2, 40)), (0, "place")]
HIDDEN: list[Step] = [(0, "book", (2, 30), (1, 40)), (0, "place")]


def play(tape: Tape, steps: Sequence[Step]) -> Tape:
    for ms, name, *arguments in steps:
        options = arguments.pop() if arguments and isinstance(arguments[-1], dict) else {}
        getattr(tape.at(ms), name)(*arguments, **options)
    return tape


@pytest.mark.parametrize("mirror", [False, True], ids=["bid", "ask"])
@pytest.mark.parametrize(
    ("steps", "pessimistic", "optimistic"),
    [
        pytest.param(JOINED, 0, 0, id="nothing happens"),
        pytest.param([*JOINED, (20, "print", 0, 30)], 0, 0, id="a print that takes those in front"),
        pytest.param([*JOINED, (20, "print", 0, 34)], 4, 4, id="a print larger than the queue in front"),
        pytest.param([*JOINED, (20, "print", 0, 20), (21, "print", 0, 15)], 5, 5, id="prints add up"),
        pytest.param([*JOINED, (20, "print", 0, 99)], 10, 10, id="never more than the order"),
        pytest.param([*JOINED, (20, "print", 1, 99)], 0, 0, id="a print at a better price is not for us"),
        pytest.param([*JOINED, (20, "print", -1, 3)], 3, 10, id="a print through fills its size, or all"),
        pytest.param([*JOINED, (20, "print", -1, 3), (21, "print", 0, 4)], 7, 10, id="after it nobody is in front"),
        pytest.param([*JOINED, (20, "print", 0, 5, {"same": True})], 0, 10, id="our side's taker at our price"),
        pytest.param([*JOINED, (20, "print", -1, 5, {"same": True})], 0, 10, id="our side's taker paid less than us"),
        pytest.param([*JOINED, (20, "print", 1, 5, {"same": True})], 0, 0, id="our side's taker elsewhere"),
        # cancels
        pytest.param(
            [*JOINED, (20, "book", (0, 5)), (21, "print", 0, 9)], 0, 4, id="who vanished was in front, or not"
        ),
        pytest.param(
            [*JOINED, (20, "book", (0, 60)), (21, "book", (0, 40)), (22, "print", 0, 25)],
            0,
            10,
            id="joiners stand behind; cancels of 20 were behind us, or in front",
        ),
        pytest.param(
            [*JOINED, (20, "print", 0, 20), (21, "book", (0, 10)), (22, "print", 0, 11)],
            1,
            1,
            id="what a print took is no cancel",
        ),
        pytest.param(
            [*JOINED, (20, "book", (0, 10)), (21, "print", 0, 20), (22, "print", 0, 14)],
            4,
            10,
            id="the book came before its print: pessimistic counts it once",
        ),
        pytest.param(
            [*JOINED, (20, "book", (0, 5)), (20 + SETTLED_MS, "print", 0, 9)],
            4,
            4,
            id="a thinner book caps the queue once its prints must be here",
        ),
        pytest.param(
            [*JOINED, (20, "book", (0, 5)), (19 + SETTLED_MS, "print", 0, 9)], 0, 4, id="and not a moment earlier"
        ),
        pytest.param(
            [
                *JOINED,
                (20, "book", (0, 5)),
                (200, "book", (0, 25)),
                (20 + SETTLED_MS, "book", (0, 26)),
                (21 + SETTLED_MS, "print", 0, 9),
            ],
            4,
            4,
            id="the cap of an earlier book holds though others joined since",
        ),
        pytest.param(
            [
                *JOINED,
                (20, "book", (0, 25)),
                (200, "book", (0, 5)),
                (20 + SETTLED_MS, "print", 0, 1),
                (200 + SETTLED_MS, "print", 0, 6),
            ],
            1,
            2,
            id="then the later one's, and what was printed meanwhile is not taken off again",
        ),
        pytest.param(
            [
                *JOINED,
                (20, "book", (0, 25)),
                (200, "book", (0, 5)),
                (20 + SETTLED_MS, "print", 0, 1),
                (300, "book", (0, 26)),
                (200 + SETTLED_MS, "print", 0, 9),
            ],
            4,
            5,
            id="and that one holds as well though others joined since",
        ),
        # on the way
        pytest.param([*JOINED, (9, "print", 0, 34)], 0, 4, id="printed before we were there"),
        pytest.param([*JOINED, (10, "print", 0, 34)], 4, 4, id="printed when we were there"),
        pytest.param([*JOINED, (9, "print", -1, 34)], 0, 10, id="through before we were there"),
        pytest.param(
            [*JOINED, (5, "book", (0, 45)), (20, "print", 0, 49)], 4, 10, id="who joins meanwhile is in front"
        ),
        pytest.param(
            [*JOINED, (5, "book", (0, 45)), (6, "book", (0, 20)), (20, "print", 0, 49)],
            4,
            10,
            id="and does not leave meanwhile",
        ),
        pytest.param(
            [*JOINED, (5, "book", (0, 45)), (6, "book", (0, 20)), (10 + SETTLED_MS, "print", 0, 24)],
            4,
            10,
            id="but is gone when the book still says so later",
        ),
        pytest.param(
            [*JOINED, (5, "book", (0, 45)), (6, "book", (0, 20)), (9 + SETTLED_MS, "print", 0, 24)],
            0,
            10,
            id="later: counted from when we were there",
        ),
        pytest.param(
            [*JOINED, (5, "book", (0, 20)), (20, "print", 0, 35, {"dated": 0})],
            0,
            0,
            id="dated no later than the book that we knew",
        ),
        pytest.param(
            [*JOINED, (5, "book", (-1, 20), {"other": ((0, 7),)}), (12, "print", 0, 99)],
            0,
            10,
            id="crossed on the way: it sets out anew",
        ),
        # alone, and out of sight
        pytest.param([*ALONE, (20, "print", 0, 3)], 3, 3, id="alone at a better price: first"),
        pytest.param([*ALONE, (20, "print", -1, 3)], 3, 10, id="alone, and a print through"),
        pytest.param(
            [(0, "book"), (0, "place"), (20, "print", 0, 3)], 3, 3, id="an empty side: whoever comes is first"
        ),
        pytest.param(
            [(0, "book", (0, 30), {"other": ((9, 5), (10, 5))}), (0, "place", -1), (20, "print", -1, 3)],
            3,
            3,
            id="below the last level of a side that shows all it has",
        ),
        pytest.param([*HIDDEN, (20, "print", 0, 99)], 0, 10, id="out of sight: nobody in front, or everybody"),
        pytest.param([*HIDDEN, (20, "print", -1, 4)], 4, 10, id="out of sight, and a print through"),
        pytest.param([(0, "place"), (20, "print", 0, 99)], 0, 10, id="no book yet: as out of sight"),
        pytest.param(
            [*HIDDEN, (20, "book", (0, 30), (-1, 1)), (20 + SETTLED_MS, "print", 0, 33)],
            3,
            10,
            id="it comes into sight: no more than that in front",
        ),
        pytest.param(
            [*JOINED, (20, "book", (2, 1), (1, 1)), (40, "book", (0, 30), (-1, 1)), (41, "print", 0, 33)],
            3,
            10,
            id="out of sight for a while",
        ),
        pytest.param(
            [*JOINED, (5, "book", (2, 1), (1, 1)), (20, "book", (0, 30), (-1, 1)), (21, "print", 0, 33)],
            0,
            10,
            id="out of sight while on the way: who knows who joined",
        ),
        pytest.param([*JOINED, (20, "blind"), (21, "print", 0, 33)], 3, 10, id="a book that broke"),
        # the other side of the book
        pytest.param([*JOINED, (20, "book", (-1, 9), {"other": ((0, 4),)})], 0, 10, id="the other side at our price"),
        pytest.param([*JOINED, (20, "book", (-2, 9), {"other": ((-1, 4),)})], 4, 10, id="through us: what it offers"),
        pytest.param(
            [*JOINED, (20, "book", (-3, 9), {"other": ((-2, 2), (-1, 3), (0, 4))})], 5, 10, id="all levels through us"
        ),
        pytest.param(
            [*JOINED, *[(ms, "book", (-2, 9), {"other": ((-1, 4),)}) for ms in (20, 21, 22)]],
            4,
            10,
            id="the same offer again",
        ),
        pytest.param(
            [*JOINED, *[(20 + n, "book", (-2, 9), {"other": ((-1, n),)}) for n in (2, 1, 4)]],
            4,
            10,
            id="only what is more than ever offered",
        ),
        pytest.param([*JOINED, (20, "book", (0, 9), {"other": ((-1, 4),)})], 0, 0, id="a book that crosses itself"),
        # amends
        pytest.param(
            [*JOINED, (20, "print", 0, 30), (21, "amend", 0, 8), (22, "print", 0, 9)],
            8,
            8,
            id="smaller keeps its place",
        ),
        pytest.param(
            [*JOINED, (20, "print", 0, 30), (21, "amend", 0, 11), (40, "print", 0, 30)],
            0,
            0,
            id="larger goes to the end",
        ),
        pytest.param(
            [*JOINED, (20, "amend", -1, 10), (40, "print", -1, 45)], 5, 5, id="another price has another queue"
        ),
        pytest.param(
            [*JOINED, (20, "print", 0, 34), (21, "amend", -1, 10), (40, "print", -1, 99)],
            10,
            10,
            id="what is filled counts in the size",
        ),
        pytest.param(
            [
                *JOINED,
                (20, "book", (0, 5), (-1, 40)),
                (21, "amend", -1, 10),
                (19 + SETTLED_MS, "book", (0, 5), (-1, 41)),
                (20 + SETTLED_MS, "print", -1, 45),
            ],
            5,
            5,
            id="another price is not capped by what the old one showed",
        ),
        pytest.param([*JOINED, (20, "amend", -1, 10), (29, "print", -1, 45)], 0, 5, id="an amend is on the way too"),
        pytest.param(
            [*JOINED, (20, "print", 0, 2, {"same": True}), (21, "amend", 0, 4), (22, "print", 0, 99)],
            4,
            10,
            id="smaller than what may have filled: nothing is taken back",
        ),
    ],
)
def test_a_rule(steps: Sequence[Step], pessimistic: int, optimistic: int, mirror: bool) -> None:
    assert play(Tape(mirror), steps).bounds == (pessimistic, optimistic)


@pytest.mark.parametrize(
    ("levels", "price", "side", "depth", "shown"),
    [
        pytest.param(((100, 5), (99, 7)), 99, BID, 2, 7, id="its own level"),
        pytest.param(((100, 5), (98, 7)), 99, BID, 2, 0, id="between levels"),
        pytest.param(((100, 5), (99, 7)), 101, BID, 2, 0, id="better than all"),
        pytest.param(((100, 5), (99, 7)), 98, BID, 2, None, id="below what is shown"),
        pytest.param(((100, 5), (99, 7)), 98, BID, 3, 0, id="below all there is"),
        pytest.param(((100, 5), (101, 7)), 102, ASK, 2, None, id="above what is shown"),
        pytest.param(((100, 5), (102, 7)), 101, ASK, 2, 0, id="between asks"),
        pytest.param((), 101, ASK, 1, 0, id="an empty side"),
    ],
)
def test_what_a_book_shows_at_a_price(
    levels: tuple[Level, ...], price: int, side: Side, depth: int, shown: int | None
) -> None:
    assert shown_at(levels, price, side, depth) == shown


def test_the_optimistic_fill_is_told_first() -> None:
    tape = play(Tape(), [*JOINED, (20, "print", 0, 34)])
    assert [fill.bound for fill in tape.fills] == [Bound.OPTIMISTIC, Bound.PESSIMISTIC]
    assert tape.fills[1] == Fill("x", Bound.PESSIMISTIC, BID, MID, 4)


def test_who_stands_in_front_can_be_read() -> None:
    tape = play(Tape(), [*JOINED, (20, "book", (0, 12))])
    assert tape.model.orders["x"].ahead == (12, 30)
    assert play(Tape(), HIDDEN).model.orders["x"].ahead == (0, None)


def test_what_would_take() -> None:
    model = QueueModel()
    assert not model.crosses(BID, 10**9)
    model.on_book(BookTop(((99, 1),), ((101, 1),), 0, 0, 0), 0)
    assert [model.crosses(BID, price) for price in (100, 101, 102)] == [False, True, True]
    assert [model.crosses(ASK, price) for price in (100, 99, 98)] == [False, True, True]
    model.on_book(BookTop((), (), 0, 0, 0), 0)
    assert not model.crosses(BID, 102) and not model.crosses(ASK, 98)


def test_nothing_rests_and_nothing_is_made() -> None:
    model = QueueModel()
    assert model.on_trade(TradePrinted(100, 1, ASK, 0, 0), 0) is NO_FILLS
    assert model.on_book(BookTop(((99, 1),), ((101, 1),), 0, 0, 0), 0) is NO_FILLS


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="latency_ns is -1, allowed: 0 or more"):
        QueueModel(-1)
    tape = play(Tape(), [*ALONE, (20, "print", 0, 4)])
    with pytest.raises(AssertionError, match="4 lots of which 4 filled"):
        tape.amend(0, 4)


# --- any market at all ---------------------------------------------------------------------------

PRICES = st.integers(995, 1005)
LOTS = st.integers(1, 30)
SIDES = st.sampled_from([BID, ASK])


@st.composite
def books(draw: st.DrawFn) -> Step:
    """Up to three levels a side; now and then they cross."""
    bids = sorted(draw(st.sets(st.integers(995, 1001), max_size=3)), reverse=True)
    asks = sorted(draw(st.sets(st.integers(1000, 1005), max_size=3)))
    return ("book", tuple((price, draw(LOTS)) for price in bids), tuple((price, draw(LOTS)) for price in asks))


STEPS = st.one_of(
    books(),
    st.tuples(st.just("trade"), PRICES, LOTS, SIDES, st.integers(-2, 0)),
    st.tuples(st.just("place"), SIDES, PRICES, LOTS),
    st.tuples(st.just("amend"), SIDES, PRICES, LOTS),
    st.tuples(st.just("cancel"), SIDES),
    st.tuples(st.just("wait"), st.sampled_from([1, 5, 12, SETTLED_MS])),
    st.tuples(st.just("blind")),
)


class Judge:
    """Runs a trace against the model and holds it to its promises after every step."""

    def __init__(self, latency_ns: int) -> None:
        self.model = QueueModel(latency_ns)
        self.now_ns = START_NS
        self.labels: dict[Side, str] = {}
        self.most: dict[str, int] = {}  # the largest size that an order ever had
        self.told: list[Fill] = []
        self.sums: dict[tuple[str, Bound], int] = {}
        self.placed = 0

    def step(self, step: Step) -> None:
        model, now_ns = self.model, self.now_ns
        match step:
            case ("wait", ms):
                self.now_ns += ms * MS
            case ("blind",):
                model.blind(now_ns)
            case ("book", bids, asks):
                self.take(model.on_book(BookTop(bids, asks, 0, now_ns, now_ns), now_ns))
            case ("trade", price, lots, taker, dated):
                fills = model.on_trade(TradePrinted(price, lots, taker, now_ns + dated * MS, now_ns), now_ns)
                self.take(fills)
                for side in (BID, ASK):
                    assert self.pessimistic(fills, side) <= lots
            case ("place", side, price, lots) if self.resting(side) is None:
                self.placed += 1
                label = self.labels[side] = f"{side}{self.placed}"
                model.place(label, side, price, lots, now_ns)
                self.most[label] = lots
            case ("amend", side, price, lots) if (order := self.resting(side)) is not None:
                model.amend(order, price, order.filled_lots + lots, now_ns)
                self.most[order.label] = max(self.most[order.label], order.total_lots)
            case ("cancel", side) if (order := self.resting(side)) is not None:
                model.remove(order.label)
        for order in list(model.orders.values()):
            if order.remaining_lots == 0:
                model.remove(order.label)

    @staticmethod
    def pessimistic(fills: Sequence[Fill], side: Side) -> int:
        return sum(fill.size_lots for fill in fills if fill.side is side and fill.bound is Bound.PESSIMISTIC)

    def resting(self, side: Side) -> Any:
        return self.model.orders.get(self.labels.get(side, ""))

    def take(self, fills: Sequence[Fill]) -> None:
        for fill in fills:
            assert fill.size_lots > 0
            self.told.append(fill)
            key = (fill.label, fill.bound)
            self.sums[key] = self.sums.get(key, 0) + fill.size_lots
            pessimistic = self.sums.get((fill.label, Bound.PESSIMISTIC), 0)
            optimistic = self.sums.get((fill.label, Bound.OPTIMISTIC), 0)
            assert pessimistic <= optimistic <= self.most[fill.label]
        for order in self.model.orders.values():
            assert order.filled_lots == self.sums.get((order.label, Bound.PESSIMISTIC), 0) <= order.total_lots
            optimistic, pessimistic_ahead = order.ahead
            assert optimistic >= 0
            if pessimistic_ahead is not None and order.optimistic_lots < order.total_lots:
                assert optimistic <= pessimistic_ahead


@given(st.lists(STEPS, max_size=60), st.sampled_from([0, LATE_NS]))
def test_bounds_are_ordered_and_sizes_are_kept_in_any_market(steps: list[Step], latency_ns: int) -> None:
    """A queue of orders on both sides, amended and cancelled at will; the same trace gives the same fills."""
    judge, again = Judge(latency_ns), Judge(latency_ns)
    for step in steps:
        judge.step(step)
    for step in steps:
        again.step(step)
    assert judge.told == again.told


# --- a truth between the bounds ------------------------------------------------------------------


class OneLevel:
    """One price level, first come first served, where somebody knows who stands before us.

    The same as the model sees: what is shown and what is printed. Our order is a ghost in it: what a
    print takes from behind our place would have been ours.
    """

    def __init__(self, lots: list[int], size: int, latency_ns: int, hidden: bool) -> None:
        self.queue = [(n, True) for n in lots]  # lots, whether it came before us
        self.size = size
        self.filled = 0
        self.now_ns = START_NS
        self.hidden = hidden
        self.model = QueueModel(latency_ns)
        self.model.on_book(self.book(), self.now_ns)
        self.order = self.model.place("x", BID, MID, size, self.now_ns)
        self.arrive()

    def book(self) -> BookTop:
        """Two levels a side at most; hidden: better bids cover our price."""
        shown = sum(lots for lots, _ in self.queue)
        if self.hidden:
            bids: tuple[Level, ...] = ((MID + 2, 5), (MID + 1, 5))
        else:
            bids = ((MID, shown), (MID - 1, 1000)) if shown else ((MID - 1, 1000), (MID - 2, 1000))
        return BookTop(bids, ((MID + 10, 5), (MID + 11, 5)), 0, self.now_ns, self.now_ns)

    def step(self, step: Step, wait_ms: int, book_first: bool) -> None:
        self.now_ns += wait_ms * MS
        prints: list[TradePrinted] = []
        match step:
            case ("join", lots):
                self.queue.append((lots, self.now_ns < self.arrives_ns))
            case ("leave", at) if self.queue:
                del self.queue[at % len(self.queue)]
            case ("hide", hidden):
                self.hidden = hidden
            case ("resize", more) if self.order.remaining_lots:
                self.resize(max(self.order.filled_lots + 1, self.size + more))
            case ("sell", lots) if not self.hidden:
                prints = self.sell(lots)
        if book_first:
            self.model.on_book(self.book(), self.now_ns)
        for at, trade in enumerate(prints):
            self.model.on_trade(trade, self.now_ns + (DELAY_NS if book_first else at))
        if not book_first:
            self.model.on_book(self.book(), self.now_ns + DELAY_NS)
        self.now_ns += DELAY_NS

    def resize(self, size: int) -> None:
        """A larger order goes behind everybody."""
        self.model.amend(self.order, MID, size, self.now_ns)
        if size > self.size:
            self.queue = [(lots, True) for lots, _ in self.queue]
            self.arrive()
        self.size = size

    def arrive(self) -> None:
        """A round trip less the way back."""
        self.arrives_ns = self.now_ns + max(0, self.model.latency_ns - DELAY_NS)

    def sell(self, lots: int) -> list[TradePrinted]:
        """Take from the front; what the level cannot give is taken from the next one."""
        ahead = sum(lots for lots, before in self.queue if before)
        here = min(lots, sum(lots for lots, _ in self.queue))
        if self.now_ns >= self.arrives_ns:
            ours = max(0, here - ahead) + (lots - here)
            self.filled += min(max(0, self.size - self.filled), ours)
        left = here
        while left:
            first, before = self.queue.pop(0)
            if first > left:
                self.queue.insert(0, (first - left, before))
            left -= min(first, left)
        prints = [TradePrinted(MID, here, ASK, self.now_ns, self.now_ns)] if here else []
        if lots > here:
            prints.append(TradePrinted(MID - 1, lots - here, ASK, self.now_ns, self.now_ns))
        return prints


EVENTS = st.one_of(
    st.tuples(st.just("join"), LOTS),
    st.tuples(st.just("leave"), st.integers(0, 9)),
    st.tuples(st.just("sell"), LOTS),
    st.tuples(st.just("hide"), st.booleans()),
    st.tuples(st.just("resize"), st.integers(-20, 20)),
)


@given(
    st.lists(LOTS, max_size=4),
    st.integers(1, 60),
    st.sampled_from([0, LATE_NS, 100 * MS]),
    st.booleans(),
    st.lists(st.tuples(EVENTS, st.sampled_from([1, 4, 40, SETTLED_MS]), st.booleans()), max_size=40),
)
def test_the_truth_lies_between_the_bounds(
    lots: list[int], size: int, latency_ns: int, hidden: bool, events: list[tuple[Step, int, bool]]
) -> None:
    """In a market where everybody's place is known: pessimistic <= what our place would have got <= optimistic."""
    level = OneLevel(lots, size, latency_ns, hidden)
    order = level.order
    for step, wait_ms, book_first in events:
        level.step(step, wait_ms, book_first)
        assert order.filled_lots <= level.filled <= order.optimistic_lots


def test_the_bounds_are_not_idle() -> None:
    """The pessimistic one does fill, and the truth differs from both."""
    level = OneLevel([5, 5], 10, LATE_NS, hidden=False)
    for step in [("join", 9), ("leave", 2), ("leave", 0), ("join", 9), ("sell", 7), ("sell", 5)]:
        level.step(step, 20, True)
    order = level.order
    assert (order.filled_lots, level.filled, order.optimistic_lots) == (2, 7, 10)
