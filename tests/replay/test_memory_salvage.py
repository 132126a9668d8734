"""What can be saved of a state that another version of mmd wrote: the position above all; and what is missing."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from core_kit import ASK, BID, acked, changed, label, resting, settings
from core_playbook import Play
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from memory_kit import SETUPS, STEPS, Step, Wild, driven
from portfolio_kit import Book, limits
from test_memory import edited, junk, places, put

from mmd.core.machine import SymbolMachine
from mmd.core.orders import EMPTY
from mmd.domain import events as ev
from mmd.domain.actions import QueryOrder
from mmd.domain.reasons import Mode, Phase, State, Why
from mmd.replay.form import Writer, encode
from mmd.replay.memory import CannotLoad, Salvager, salvage, save

FEW = hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
numbers = st.integers(0, 99)
histories = st.lists(st.tuples(st.sampled_from([*STEPS, "restart"]), numbers, numbers), min_size=1, max_size=60)
OTHER = "feedfacefeedface"


def text(value: Any) -> bytes:
    """To compare what changes, to the last digit."""
    return encode(Writer().write(value))


def quoting() -> Wild:
    """Both orders live, a bid partly filled, a fee in another coin, funding, a case, a finished order."""
    wild = Wild("plain")
    wild.run([("answer_all", 0, 0), ("filled", 0, 1), ("filled", 1, 3), ("cash", 1, 0), ("ticker", 60, 0)])
    wild.run([("filled", 0, 2), ("wait", 4, 0), ("ticker", 70, 0), ("journal_doubted", 1, 1)])
    position = wild.machine.position
    assert position.lots and position.foreign_fees and position._entries and wild.machine.cases
    return wild


def older(*edits: Callable[[dict[str, Any]], Any], wild: Wild | None = None) -> tuple[SymbolMachine, list[str]]:
    """Salvaged from the state as another version would have written it."""

    def edit(document: dict[str, Any]) -> None:
        document["code"] = OTHER
        for each in edits:
            each(document)

    return salvage(edited(edit, save((wild or quoting()).machine)))


def drop(path: str) -> Callable[[dict[str, Any]], None]:
    def edit(document: dict[str, Any]) -> None:
        *where, last = path.split(".")
        node = document
        for name in where:
            node = node[name]
        del node[last]

    return edit


def renamed(path: str, new: str) -> Callable[[dict[str, Any]], None]:
    def edit(document: dict[str, Any]) -> None:
        *where, last = path.split(".")
        node = document
        for name in where:
            node = node[name]
        node[new] = node.pop(last)

    return edit


def check_taken(found: SymbolMachine, old: SymbolMachine) -> None:
    for name in Salvager.TAKEN:
        assert getattr(found, name) == getattr(old, name), name
    for name in ("instrument", "settings", "rules", "position", "imagined", "own"):
        if name != "own":
            assert text(getattr(found, name)) == text(getattr(old, name)), name
    for mine, theirs in ((found.own.bid, old.own.bid), (found.own.ask, old.own.ask)):
        assert text(mine) == text(theirs)
    assert text(found.own.strays) == text(old.own.strays)
    assert found.own._finished == old.own._finished


# --- nothing is missing -------------------------------------------------------------------------------


@FEW
@given(setup=st.sampled_from(sorted(SETUPS)), history=histories)
def test_a_state_of_the_same_form_is_taken_over_whole(setup: str, history: list[Step]) -> None:
    wild = Wild(setup)
    wild.run(history)
    found, notes = older(wild=wild)
    assert [note for note in notes if not note.startswith("closing: was under way")] == []
    assert bool(notes) == (wild.machine.closing is not None)
    check_taken(found, wild.machine)


@pytest.mark.parametrize("setup", sorted(SETUPS))
def test_a_long_history_is_taken_over_whole(setup: str) -> None:
    """The comparison of the ledger with the profit by average price holds at every moment."""

    def look(wild: Wild) -> None:
        if len(wild.log) % 7 == 0:
            found, notes = older(wild=wild)
            assert len(notes) == (wild.machine.closing is not None), notes
            check_taken(found, wild.machine)

    driven(setup, 3, 300, look)


def test_what_belongs_to_the_moment_starts_anew() -> None:
    wild = quoting()
    found, notes = older(wild=wild)
    assert (wild.machine.market.data_link, found.market.data_link) == (True, False)
    assert (found.bounds_version, found.reconciled, found.orders_seen, found.timer_ns) == (0, False, False, 0)
    assert notes == []


def test_another_process_inherits_from_it() -> None:
    """That is what it is for."""
    wild = quoting()
    found, _ = older(renamed("machine.position.variation", "margin"), wild=wild)
    new = SymbolMachine(wild.instrument, wild.given, "ep9", wild.now_ns)
    new.inherit(found, wild.now_ns)
    assert new.position.lots == wild.machine.position.lots
    assert {state.label for state in new.own.every() if state.label} == {
        state.label for state in wild.machine.own.every() if state.label
    }
    assert [state.slot.phase for state in new.own.strays.values()] == [Phase.UNKNOWN] * 2
    asked = new.handle([ev.TradeLinkUp(True, wild.now_ns), ev.TimerFired(wild.now_ns)], wild.now_ns)
    assert {action.label for action in asked if isinstance(action, QueryOrder)} == new.own.strays.keys()


# --- renamed, missing, added --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edits", "notes"),
    [
        pytest.param(
            [renamed("machine.position.variation", "margin")],
            ["position.variation: missing, stays 0", "position.margin: is not known here: left out"],
            id="renamed",
        ),
        pytest.param(
            [drop("machine.position.foreign_cash")], ["position.foreign_cash: missing, stays {}"], id="missing"
        ),
        pytest.param(
            [put("machine.own.bid.priority", 3)], ["own.bid.priority: is not known here: left out"], id="added"
        ),
        pytest.param(
            [put("machine.own.parked", {"@": "Parked"})], ["own.parked: is not known here: left out"], id="added order"
        ),
        pytest.param(
            [put("machine.forecast", {"@": "Forecast", "mean": 1.5})],
            ["forecast: is not known here: left out"],
            id="a class that is not known",
        ),
        pytest.param(
            [put("machine.instrument", ["instrument", 0]), put("machine.settings.more", ["Novel", 1])],
            ["settings.more: is not known here: left out"],
            id="added to a value",
        ),
        pytest.param(
            [drop("machine.settings.data.auto_resume_seconds")],
            ["settings.data.auto_resume_seconds: missing: has its default"],
            id="missing in a value",
        ),
        pytest.param(
            [put("machine.settings.limits.max_fills", "many")],
            ['settings.limits.max_fills: "many" does not fit: has its default'],
            id="another type in a value",
        ),
        pytest.param(
            [put("machine.why", ["Why", "boredom"])],
            ['why: ["Why","boredom"] cannot be read: left out, stays startup'],
            id="a reason that is not known",
        ),
        pytest.param(
            [put("machine.position._entries", ["map", {"e1": 1}])],
            ['position._entries: ["map",{"e1":1}] does not fit: left out, stays {}'],
            id="another type in a container",
        ),
        pytest.param(
            [put("machine.by", None)], ["by: null does not fit: left out, stays mmd"], id="nothing instead of a text"
        ),
        pytest.param(
            [put("machine.own.bid.told", 7)], ["own.bid.told: 7 does not fit: left out, stays None"], id="no rule"
        ),
        pytest.param(
            [put("machine.own.bid.ghost", ["tuple", 1, 2, 3])],
            ['own.bid.ghost: ["tuple",1,2,3] does not fit: left out, stays (0, 0)'],
            id="a longer tuple",
        ),
        pytest.param(
            [put("machine.imagined.@", "Imaginary"), drop("machine.imagined.optimistic")],
            ["imagined.optimistic: missing, starts at nothing"],
            id="half of what was imagined",
        ),
        pytest.param(
            [put("machine.imagined", 0)],
            ["imagined: missing: both ledgers start at nothing"],
            id="nothing of what was imagined",
        ),
    ],
)
def test_what_does_not_fit_is_named_and_the_rest_is_taken(edits: list[Any], notes: list[str]) -> None:
    wild = quoting()
    found, told = older(*edits, wild=wild)
    assert told == notes
    old = wild.machine
    assert (found.position.lots, found.position.average, found.state) == (
        old.position.lots,
        old.position.average,
        old.state,
    )
    assert found.position.balanced and found.position._seen == old.position._seen
    assert text(found.own.ask) == text(old.own.ask)
    assert found.own.bid.slot == old.own.bid.slot
    assert save(found)


def test_a_state_that_is_not_known_is_halted() -> None:
    found, notes = older(put("machine.state", ["State", "ASLEEP"]))
    assert found.state is State.HALTED
    assert notes == [
        'state: ["State","ASLEEP"] cannot be read: left out, stays PAUSED',
        "state: is HALTED, because nothing else can be ruled out",
    ]
    assert older(drop("machine.state"))[0].state is State.HALTED


def test_a_halt_stays_with_its_reason() -> None:
    wild = quoting()
    wild.post(ev.HaltRequested(1, Why.DRAWDOWN, "root", "too much", wild.now_ns))
    found, notes = older(drop("machine.position.variation"), wild=wild)
    assert (found.state, found.why, found.by, found.detail) == (State.HALTED, Why.DRAWDOWN, "root", "too much")
    assert found.since_ns == wild.now_ns and len(notes) == 1


def test_a_label_is_not_used_twice() -> None:
    wild = quoting()
    found, _ = older(wild=wild)
    assert (found.epoch, found._orders_made) == (wild.machine.epoch, wild.machine._orders_made) == ("ep0", 2)


def test_imagined_orders_stay_imagined() -> None:
    wild = Wild("shadow")
    found, _ = older(wild=wild)
    assert found.mode is Mode.SHADOW and found.own.bid.label
    new = SymbolMachine(wild.instrument, wild.given, "ep9", wild.now_ns)
    new.inherit(found, wild.now_ns)
    assert new.own.resting == 0


def test_live_orders_stay_live_where_the_settings_say_shadow_now() -> None:
    """The mode changes once nothing rests: until then it is not what the settings say."""
    wild = quoting()
    wild.post(ev.SettingsChanged(changed(wild.given, mode=Mode.SHADOW), wild.now_ns))
    found, notes = older(wild=wild)
    assert (found.mode, found.settings.mode, found.rules.mode) == (Mode.LIVE, Mode.SHADOW, Mode.SHADOW)
    assert notes == [] and found.own.bid.label


def test_what_was_inherited_keeps_the_instrument_it_was_counted_in() -> None:
    wild = quoting()
    wild.run([("restart", 1, 7)])
    assert wild.machine.imagined.instrument != wild.machine.instrument
    found, notes = older(wild=wild)
    assert notes == []
    check_taken(found, wild.machine)


# --- orders -------------------------------------------------------------------------------------------


def test_an_order_that_cannot_be_read_is_named_by_its_label() -> None:
    wild = quoting()
    bid = wild.machine.own.bid.label
    found, notes = older(put("machine.own.bid.slot.@", "Parked"), wild=wild)
    assert found.own.bid.slot == EMPTY and found.own.bid.label == ""
    assert text(found.own.ask) == text(wild.machine.own.ask)
    assert notes == [
        "own.bid.slot: class 'Parked' is not known here: left out, stays Empty()",
        f"own.bid: order {bid} cannot be read: left out",
    ]


def test_an_order_without_a_number_is_no_order() -> None:
    found, notes = older(drop("machine.own.ask.slot.total_lots"))
    assert found.own.ask.slot == EMPTY
    assert "needs total_lots: missing" in notes[0] and "cannot be read" in notes[1]


def test_an_order_on_the_other_side_is_no_order() -> None:
    found, notes = older(put("machine.own.ask.side", ["Side", "bid"]))
    assert found.own.ask.slot == EMPTY and found.own.ask.side is ASK
    assert len(notes) == 1 and notes[0].startswith("own.ask: order mmd-test-PLAIN-a-ep0")


def strayed() -> Wild:
    wild = quoting()
    orders = [resting(label(BID, 33), BID, 900, 3), resting(label(ASK, 34), ASK, 1100, 4)]
    wild.post(ev.OrdersReported(tuple(orders), wild.now_ns))
    assert len(wild.machine.own.strays) == 2
    return wild


def test_each_stray_stands_for_itself() -> None:
    wild = strayed()
    lost, kept = label(BID, 33), label(ASK, 34)

    def edit(document: dict[str, Any]) -> None:
        del document["machine"]["own"]["strays"][1][lost]["slot"]["price_ticks"]

    found, notes = older(edit, wild=wild)
    assert text(found.own.strays) == text({kept: wild.machine.own.strays[kept]})
    assert notes[-1] == f"own.strays.{lost}: order {lost} cannot be read: left out"


@pytest.mark.parametrize(
    ("edit", "note"),
    [
        pytest.param(put("machine.own.strays", 3), "own.strays: is no list of orders: left out", id="no list"),
        pytest.param(
            put("machine.own.strays", ["map", {"x": {}}]), "own.strays.x: has no side: left out", id="no side"
        ),
        pytest.param(put("machine.own", None), "own: missing: no order of ours is known", id="nothing"),
    ],
)
def test_strays_that_cannot_be_read_are_named(edit: Callable[[dict[str, Any]], None], note: str) -> None:
    found, notes = older(edit, wild=strayed())
    assert found.own.strays == {}
    assert note in notes


# --- ledgers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(drop("machine.position.ledger.sources.spread"), id="a source"),
        pytest.param(put("machine.position.ledger.holdings.cash", "1"), id="cash is a text"),
        pytest.param(renamed("machine.position.ledger", "books"), id="all of it"),
        pytest.param(drop("machine.position.realized"), id="the other account of it"),
        pytest.param(put("machine.position.ledger.sources.@", "Origins"), id="a class"),
    ],
)
def test_a_ledger_that_does_not_add_up_begins_anew(edit: Callable[[dict[str, Any]], None]) -> None:
    """The position stays, and no fill that was counted is counted again."""
    wild = quoting()
    found, notes = older(edit, wild=wild)
    ours, theirs = found.position, wild.machine.position
    assert notes[-1] == "position: its ledger does not add up as read: profit counts from here"
    assert (ours.lots, ours.average, ours.known) == (theirs.lots, theirs.average, True)
    assert ours.balanced and ours.ledger.sources.total() == 0
    assert (ours._seen, ours._by_label, ours._entries, ours.fills) == (
        theirs._seen,
        theirs._by_label,
        theirs._entries,
        theirs.fills,
    )
    assert ours.fill(wild.told_fills[0], 0.0).value == "repeated"


def test_a_ledger_of_something_imagined_begins_anew_by_itself() -> None:
    wild = driven("shadow", 1, 150)
    assert wild.machine.imagined.pessimistic.ledger.sources.spread
    found, notes = older(drop("machine.imagined.pessimistic.ledger.sources.spread"), wild=wild)
    assert notes[-1] == "imagined.pessimistic: its ledger does not add up as read: profit counts from here"
    assert found.imagined.pessimistic.lots == wild.machine.imagined.pessimistic.lots
    assert text(found.imagined.optimistic) == text(wild.machine.imagined.optimistic)
    assert text(found.position) == text(wild.machine.position)


def test_a_position_that_was_not_known_stays_so() -> None:
    play = Play().sees(ev.DataLinkUp(1), ev.TradeLinkUp(True, 1))
    data = edited(drop("machine.position.realized"), save(play.machine))
    found, notes = salvage(data)
    assert not found.position.known and notes == ["position.realized: missing, stays 0"]


def test_where_fills_that_made_it_are_missing_late_ones_count_after_them() -> None:
    """As in a state from before they were remembered."""
    wild = quoting()
    position = wild.machine.position
    assert position._recent
    found, notes = older(drop("machine.position._recent"), drop("machine.position._base"), wild=wild)
    assert notes[0].startswith("position._base: missing") and notes[1] == "position._recent: missing, stays []"
    assert notes[2:] == ["position: which fills made it cannot be told: one that is told late counts after them"]
    ours = found.position
    assert (ours.lots, ours.average, ours.realized) == (position.lots, position.average, position.realized)
    assert ours.refolds and not ours._recent and ours._base.lots == ours.lots


@pytest.mark.parametrize("price", ["0", "NaN", "-5"])
def test_fills_that_cannot_be_folded_again_are_left_out(price: str) -> None:
    wild = quoting()

    def edit(document: dict[str, Any]) -> None:
        document["machine"]["position"]["_recent"][1]["price"] = ["decimal", price]

    found, notes = older(edit, wild=wild)
    assert notes == ["position: which fills made it cannot be told: one that is told late counts after them"]
    assert found.position.refolds and found.position.average == wild.machine.position.average


# --- what must be there -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        pytest.param(drop("machine.instrument"), "instrument: missing", id="instrument"),
        pytest.param(put("machine.instrument", 3), "instrument: 3 is no Instrument", id="no instrument"),
        pytest.param(lambda d: d["instruments"][0].pop("lot"), "Instrument needs lot: missing", id="no lot"),
        pytest.param(drop("machine.settings"), "settings: missing", id="settings"),
        pytest.param(drop("machine.settings.profile.size"), "Profile needs size: missing", id="no size"),
        pytest.param(put("machine.settings.profile.size", ["decimal", "0.1"]), "size 0.1 is below", id="off the grid"),
        pytest.param(drop("machine.position"), "position.lots: missing", id="position"),
        pytest.param(drop("machine.position.lots"), "position.lots: missing", id="no lots"),
        pytest.param(put("machine.position.lots", True), "position.lots: true is no int", id="lots of another type"),
        pytest.param(put("machine.position.@", "Holding"), "position: a Holding, allowed: Position", id="class"),
        pytest.param(put("machine.@", "Robot"), "a Robot, allowed: SymbolMachine", id="no machine"),
        pytest.param(put("machine", 1), "a None, allowed: SymbolMachine", id="nothing"),
        pytest.param(put("format", 2), "format 2, this version reads 1", id="format"),
    ],
)
def test_without_the_essential_there_is_no_machine(edit: Callable[[dict[str, Any]], Any], words: str) -> None:
    with pytest.raises(CannotLoad) as found:
        older(edit)
    assert words in str(found.value)


def test_a_portfolio_is_no_symbol() -> None:
    with pytest.raises(CannotLoad, match="a PortfolioMachine, allowed: SymbolMachine"):
        salvage(save(Book(limits()).machine))


def test_figures_without_a_point_are_figures() -> None:
    """An operator writes 10 where 10.0 is meant."""
    given = settings(spread_bps=100)
    play = Play(changed(given, profile=changed(given.profile, size=10)))
    found, notes = salvage(save(play.machine))
    assert notes == [] and type(found.settings.profile.spread_bps) is int


# --- anything at all ----------------------------------------------------------------------------------

WHOLE = msgspec.json.decode(save(strayed().machine))


@hypothesis_settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(edits=st.lists(st.tuples(st.integers(0, 10**6), junk, st.sampled_from(["drop", "put", "rename"])), max_size=4))
def test_a_spoiled_state_gives_a_sound_machine_or_none(edits: list[tuple[int, Any, str]]) -> None:
    document = msgspec.json.decode(msgspec.json.encode(WHOLE))
    for where, what, how in edits:
        found = places(document)
        node, key = found[where % len(found)]
        if how == "put":
            node[key] = what
        elif how == "drop" or not isinstance(node, dict):
            del node[key]
        else:
            node[f"{key}_"] = node.pop(key)
    try:
        machine, notes = salvage(msgspec.json.encode(document))
    except CannotLoad as error:
        assert str(error)
        return
    assert all(note.partition(": ")[0] and note.partition(": ")[2] for note in notes)
    assert machine.position.balanced
    salvage(save(machine))
    now_ns = machine.since_ns + 1
    new = SymbolMachine(machine.instrument, machine.settings, "next", now_ns)
    new.inherit(machine, now_ns)
    new.handle([ev.TradeLinkUp(True, now_ns), ev.PositionReported(0, Decimal(0), now_ns)], now_ns)
    for state in new.own.every():
        if state.label:
            new.handle([acked(state.label, 1000, 5)], now_ns)
    new.handle([ev.OrdersReported((), now_ns), ev.TimerFired(now_ns)], now_ns)
    assert save(new)
