"""The tables of docs/orders.md, docs/states.md, docs/gate.md, docs/limits.md and docs/quoting.md, made by the code.

`python tests/core/core_tables.py` writes them into the documents; a test holds them in step.
"""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
from core_kit import ASK, BID, INVERSE, OPTION, PLAIN, START_NS, changed, machine, settings

from mmd.core.gate import Exposure, Refused, Room, review
from mmd.core.orders import TRANSITIONS
from mmd.core.portfolio import PortfolioMachine
from mmd.core.rules import rules_for
from mmd.core.states import MOVES
from mmd.domain.actions import PlaceOrder, ReduceOrder
from mmd.domain.instruments import Kind
from mmd.domain.reasons import Missing, Phase, Rule, State, Why
from mmd.domain.settings import KillSwitches, PortfolioLimits
from mmd.domain.totals import BoundsAcked, LimitChanged, PortfolioEvent, SymbolJoined, Valued
from mmd.domain.units import Grid, GridStep

DOCS = Path(__file__).parents[2] / "docs"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def slots() -> str:
    """Phases down, events across; a dot is an event without meaning there, which changes nothing."""
    kinds = list(dict.fromkeys(kind for _, kind in TRANSITIONS))
    rows = []
    for phase in Phase:
        if phase is Phase.EMPTY:
            continue
        cells = [" or ".join(TRANSITIONS.get((phase, kind), (".",))) for kind in kinds]
        rows.append([f"**{phase}**", *cells])
    return table(["in", *(kind.__name__ for kind in kinds)], rows)


def states() -> str:
    rows = []
    for old, allowed in MOVES.items():
        rows.append([f"**{old}**", *("yes" if new in allowed else "." for new in State)])
    return table(["from \\ to", *State], rows)


def names(kind: type[Why] | type[Missing]) -> str:
    return ", ".join(f"`{name}`" for name in kind)


def checks() -> str:
    """What `resume` asks for, in this order."""
    return ", ".join(f"`{check.name}`" for check in machine().checks(START_NS))


# --- the gate ------------------------------------------------------------------------------------


class Breach(msgspec.Struct, frozen=True, kw_only=True):
    """What breaks one rule: fields of the order, the exposure, its rules and the room. `asks`: what the rule wants."""

    rule: Rule
    asks: str
    order: Mapping[str, Any] = {}
    exposure: Mapping[str, Any] = {}
    rules: Mapping[str, Any] = {}
    room: Mapping[str, Any] = {}


LIMITS = {"max_order_size": Decimal(50), "max_order_value_usd": Decimal(10_000)}
GOOD_ROOM = Room(budget=True, rate=True, orders=0, max_orders=40, key="max_open_orders")
GOOD = Exposure(
    state=State.ACTIVE,
    rules=rules_for(PLAIN, settings(limits=LIMITS)),
    position_lots=0,
    position_known=True,
    min_lots=-100,
    max_lots=100,
    other_lots=0,
    others_on_side=0,
    own_lots=0,
    reference_ticks=1000.0,
    drift_low=1000.0,
    drift_high=1000.0,
    lot_usd=100.0,
    vol_low=0.0,
    vol_high=0.0,
)
QUOTE = PlaceOrder("L", BID, 995, 10)
CLOSING = ReduceOrder("L", ASK, 995, 10)
LONG = changed(GOOD, state=State.HALTED, position_lots=8)

# In the order in which the gate asks for a new order.
BREACHES = (
    Breach(rule=Rule.JOURNAL, asks="what is decided can be written down", room={"journal": False}),
    Breach(rule=Rule.STATE, asks="ACTIVE; to close a position, PAUSED or HALTED", exposure={"state": State.PAUSED}),
    Breach(rule=Rule.INSTRUMENT, asks="the instrument is one of `limits.allowed`", rules={"allowed": False}),
    Breach(rule=Rule.COLLAR, asks="price within `collar_bps` of the reference", order={"price_ticks": 799}),
    Breach(
        rule=Rule.DRIFT,
        asks="the reference within `max_drift_bps`, or `max_drift_ticks`, of where it was within the window",
        exposure={"drift_low": 700.0},
    ),
    Breach(
        rule=Rule.VOL_COLLAR,
        asks="options: implied volatility within `collar_vol_points` of the mark's",
        exposure={"vol_low": 996.0, "vol_high": 1060.0},
        rules={"collar_vol_points": 10.0},
    ),
    Breach(
        rule=Rule.GRID,
        asks="the price is one that the exchange takes",
        rules={"grid": Grid(Decimal("0.1"), (GridStep(from_ticks=500, step_ticks=10),))},
    ),
    Breach(rule=Rule.ORDER_SIZE, asks="the exchange's minimum .. `max_order_size`", order={"size_lots": 51}),
    Breach(rule=Rule.ORDER_VALUE, asks="worth at most `max_order_value_usd`", exposure={"lot_usd": 1000.1}),
    Breach(rule=Rule.ONE_ORDER, asks="nothing else of ours may rest on that side", exposure={"others_on_side": 1}),
    Breach(rule=Rule.OPEN_ORDERS, asks="a place only: room in every `max_open_orders`", room={"orders": 40}),
    Breach(rule=Rule.POSITION, asks="the worst-case position inside the bounds", exposure={"position_lots": 95}),
    Breach(
        rule=Rule.BUDGET,
        asks="a credit at the exchange above the cancels' reserve and the turns of who waits longer",
        room={"budget": False},
    ),
    Breach(rule=Rule.MESSAGE_RATE, asks="the symbol's own rate of messages is kept", room={"rate": False}),
)
CLOSING_ONLY = Breach(rule=Rule.REDUCE_ONLY, asks="to close a position: no more than it, on the other side")


def judged(breaches: tuple[Breach, ...]) -> Refused:
    """What the gate says to an order that breaks all of these."""
    order, exposure, room, rules = QUOTE, GOOD, GOOD_ROOM, GOOD.rules
    for breach in breaches:
        order, room, rules = (
            changed(order, **breach.order),
            changed(room, **breach.room),
            changed(rules, **breach.rules),
        )
        exposure = changed(exposure, **breach.exposure)
    verdict = review(order, changed(exposure, rules=rules), room)
    assert isinstance(verdict, Refused), breaches
    return verdict


def gate_rules() -> str:
    """Each rule, and a refusal that the gate itself gave."""
    closing = review(CLOSING, LONG, GOOD_ROOM)
    assert isinstance(closing, Refused)
    rows = []
    for breach, found in [*((each, judged((each,))) for each in BREACHES), (CLOSING_ONLY, closing)]:
        assert found.rule is breach.rule, found
        rows.append([f"`{found.rule}`", breach.asks, f"{found.number}, limit {found.limit}"])
    return table(["rule", "asks", "a refusal reads"], rows)


# --- totals become bounds ------------------------------------------------------------------------

CALL, PUT = (
    changed(OPTION, symbol=f"BTC-27DEC30-60000-{letter}", kind=kind, expiry_ns=2 * START_NS)
    for letter, kind in (("C", Kind.CALL), ("P", Kind.PUT))
)
MARKETS = {"perpetual": (INVERSE, 50_000.0, 40_000), "call": (CALL, 0.05, 40), "put": (PUT, 0.05, 40)}
INDEX = 50_000.0


class Example:
    """The portfolio machine with three symbols; a row after each step."""

    def __init__(self) -> None:
        limits = PortfolioLimits(
            max_exposure={"BTC": Decimal(10)}, max_notional_usd=Decimal(2_000_000), max_drawdown_usd=Decimal(5000)
        )
        self.machine = PortfolioMachine(limits, KillSwitches(), START_NS)
        self.rows: list[list[str]] = []
        joined = [SymbolJoined(instrument, lots) for instrument, _, lots in MARKETS.values()]
        self.machine.handle(joined, START_NS)

    def step(self, what: str, *events: PortfolioEvent) -> None:
        """Take the events; the row is what holds then."""
        self.machine.handle(events, START_NS)
        shares = [self.machine.shares[instrument.key] for instrument, _, _ in MARKETS.values()]
        bounds = [f"{share.granted * share.instrument.lot:,}" for share in shares]
        totals = self.machine.totals()
        self.rows.append([what, *bounds, f"{totals.exposure['BTC']:.2f}", f"{totals.worst_exposure['BTC']:.2f}"])

    def holds(self, name: str, lots: int) -> Valued:
        instrument, mark, _ = MARKETS[name]
        return Valued(instrument.key, lots, mark, INDEX, 0.0)

    def acknowledges(self, name: str) -> BoundsAcked:
        key = MARKETS[name][0].key
        return BoundsAcked(key, self.machine.shares[key].version)

    def all_acknowledge(self) -> None:
        """Without a row of its own."""
        self.machine.handle([self.acknowledges(name) for name in MARKETS], START_NS)


def bounds() -> str:
    example = Example()
    example.step("start: nothing held, prices known", *(example.holds(name, 0) for name in MARKETS))
    example.all_acknowledge()
    example.step("a reload narrows the perpetual to 100,000 USD", LimitChanged(INVERSE.key, 10_000))
    example.step("the perpetual acknowledges", example.acknowledges("perpetual"))
    example.all_acknowledge()
    example.step("6 calls are found at the exchange", example.holds("call", 60))
    example.step("all have acknowledged", *(example.acknowledges(name) for name in MARKETS))
    head = ["step", "perpetual, USD", "call, BTC", "put, BTC", "held, BTC", "at worst, BTC"]
    return table(head, example.rows)


BLOCKS: dict[str, tuple[str, Callable[[], str]]] = {
    "slots": ("orders.md", slots),
    "moves": ("states.md", states),
    "reasons": ("states.md", lambda: names(Why)),
    "checks": ("states.md", checks),
    "rules": ("gate.md", gate_rules),
    "bounds": ("limits.md", bounds),
    "missing": ("quoting.md", lambda: names(Missing)),
}


def with_block(text: str, name: str, body: str) -> str:
    """The document with the part between its two markers replaced; ValueError where they are missing."""
    pattern = re.compile(rf"(<!-- {name}: generated -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"no block named {name}")
    return pattern.sub(lambda found: found[1] + body + "\n" + found[2], text)


def main() -> None:
    for name, (document, render) in BLOCKS.items():
        path = DOCS / document
        path.write_text(with_block(path.read_text(), name, render()))


if __name__ == "__main__":
    main()
