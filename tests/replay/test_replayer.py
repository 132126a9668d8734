"""The same events lead to the same actions, from whichever file the replay begins; and what differs is named."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from replay_kit import House

from mmd.core.machine import HANDLERS, SymbolMachine
from mmd.core.portfolio import PortfolioMachine
from mmd.domain import events as ev
from mmd.domain.actions import Noted
from mmd.domain.reasons import Side, State, Why
from mmd.domain.totals import LimitChanged, OperatorReset, TotalsChanged
from mmd.journal import records as rec
from mmd.journal.reader import records
from mmd.replay import form, memory
from mmd.replay import replayer as replaying
from mmd.replay.differing import between, first_difference, words
from mmd.replay.replayer import SALVAGED, Difference, Replayer

PERP, OPTION = "deribit/BTC-PERPETUAL", "deribit/BTC-31DEC21-34000-C"
Feed = tuple[Replayer, list[Difference]]


def fed(stream: Iterator[rec.AnyRecord] | list[rec.AnyRecord]) -> Feed:
    replayer = Replayer()
    found = [replayer.feed(record) for record in stream]
    return replayer, [difference for difference in found if difference is not None]


def read(house: House, since: int = 0) -> list[rec.AnyRecord]:
    house.journal.commit()
    return list(records(house.directory, since))


def states(replayer: Replayer) -> dict[str, bytes]:
    assert replayer.portfolio is not None
    found = {key: memory.save(machine) for key, machine in replayer.machines.items()}
    return found | {"": memory.save(replayer.portfolio)}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "journal")
    yield made
    made.journal.close()


def small(tmp_path: Path) -> House:
    """Two symbols and not much."""
    made = House(tmp_path / "journal", ("inverse", "option"))
    made.run(40)
    return made


# --- the promise ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_a_journal_of_several_lives_replays_without_a_difference(house: House, seed: int) -> None:
    house.run(150, seed)
    house.rotate(between=3)
    house.run(60, seed + 100)
    house.restart()
    house.run(60, seed + 200)
    house.rotate()
    house.run(40, seed + 300)
    replayer, differences = fed(read(house))
    assert not differences and not replayer.broken and not replayer.stops and not replayer.skipped
    assert replayer.compared > 400
    assert states(replayer) == house.states()
    assert list(replayer.machines) == list(house.scenes)


@pytest.mark.parametrize("between", [0, 4], ids=["snapshots at once", "snapshots among batches"])
def test_a_replay_may_begin_with_any_file(house: House, between: int) -> None:
    house.run(80, 7)
    house.rotate(between)
    house.run(40, 8)
    house.restart()
    house.run(40, 9)
    house.rotate(between)
    house.run(40, 10)
    for first in [record.seq for record in read(house) if isinstance(record, rec.Segment)]:
        replayer, differences = fed(read(house, first))
        assert not differences and not replayer.broken and not replayer.unseen, first
        assert states(replayer) == house.states()


def test_until_its_snapshot_a_symbol_is_skipped_and_no_difference(house: House) -> None:
    house.run(60)
    house.journal.rotate(house.now_ns)
    begun = house.journal.seq
    house.run(120, 2)
    replayer, differences = fed(read(house, begun))
    assert not differences and not replayer.broken and not replayer.compared
    assert replayer.waiting and replayer.skipped > 20
    assert set(replayer.unseen) == {*house.scenes, ""}


def test_a_process_that_died_while_it_began_leaves_the_others_to_the_past(house: House) -> None:
    house.run(60)
    before = house.states()
    house.journal.put(rec.Started, house.now_ns, version="2", pid=3, host="h")
    first, *rest = house.rigs()
    first.now_ns = house.now_ns
    first.join(inherits=True)
    replayer, differences = fed(read(house))
    assert not differences
    assert list(replayer.machines) == [first.key] and set(replayer.past) == {rig.key for rig in rest}
    assert {key: memory.save(machine) for key, machine in replayer.past.items()} == {
        rig.key: before[rig.key] for rig in rest
    }
    assert replayer.portfolio is None and replayer.past_portfolio is not None


def test_a_symbol_that_left_is_gone_and_may_come_back_as_another(house: House) -> None:
    house.run(60)
    house.leave(PERP)
    house.run(30, 3)
    replayer, differences = fed(read(house))
    assert not differences and PERP not in replayer.machines
    assert states(replayer) == house.states()


def test_operators_totals_and_limits_are_followed(house: House) -> None:
    house.run(30)
    portfolio = house.portfolio
    tighter = msgspec.structs.replace(portfolio.limits, max_notional_usd=portfolio.limits.max_notional_usd / 2)
    house.totals((TotalsChanged(tighter, portfolio.switches), LimitChanged(PERP, 5)), ())
    house.totals((OperatorReset((PERP,)),), ())
    house.run(30, 4)
    replayer, differences = fed(read(house))
    assert not differences
    assert states(replayer) == house.states()


# --- what differs is named -----------------------------------------------------------------------------


def changed(stream: list[rec.AnyRecord], index: int, **fields: Any) -> list[rec.AnyRecord]:
    altered: rec.AnyRecord = msgspec.structs.replace(stream[index], **fields)
    return [*stream[:index], altered, *stream[index + 1 :]]


def place(stream: list[rec.AnyRecord], fits: Callable[[Any], bool]) -> int:
    return next(n for n, record in enumerate(stream) if fits(record))


def with_actions(record: Any) -> bool:
    return isinstance(record, rec.Batch) and record.key == PERP and len(record.actions) > 2


def test_another_action_is_named_with_its_number_and_the_events(tmp_path: Path) -> None:
    stream = read(small(tmp_path))
    at = place(stream, with_actions)
    record: Any = stream[at]
    other = (record.actions[0], Noted("never", "said"), *record.actions[2:])
    replayer, (difference,) = fed(changed(stream, at, actions=other, digest="0" * 16))
    count = len(record.actions)
    assert (difference.seq, difference.at, difference.key) == (record.seq, record.at, PERP)
    assert difference.where == f"action 2 ({count} recorded, {count} replayed)"
    assert difference.recorded == "Noted name=never detail=said"
    assert difference.replayed.startswith(type(record.actions[1]).__name__)
    assert difference.events == tuple(words(event) for event in record.events)
    assert replayer.broken == {
        PERP: f"it differs from the record: {difference.where}",
        "": f"it hears of {PERP}: it differs from the record: {difference.where}",
    }


def test_after_a_difference_the_others_are_still_compared(tmp_path: Path) -> None:
    stream = read(small(tmp_path))
    at = place(stream, with_actions)
    whole, _ = fed(stream)
    replayer, (difference,) = fed(changed(stream, at, digest="0" * 16))
    assert difference.where == "the digest, not the actions"
    later = [r for r in stream[at + 1 :] if isinstance(r, rec.Batch)]
    mine = sum(record.key == PERP for record in later)
    assert mine and len(later) > mine, "both have more to say"
    assert replayer.skipped >= mine
    assert OPTION not in replayer.broken
    assert replayer.compared < whole.compared
    assert replayer.stops[0].key == PERP and replayer.stops[0].seq == difference.seq


def test_a_changed_event_shows_in_what_follows_from_it(tmp_path: Path) -> None:
    stream = read(small(tmp_path))

    def fills(record: Any) -> bool:
        return isinstance(record, rec.Batch) and any(isinstance(event, ev.OrderFilled) for event in record.events)

    at = place(stream, fills)
    record: Any = stream[at]
    events = tuple(
        msgspec.structs.replace(event, size_lots=event.size_lots + 1) if isinstance(event, ev.OrderFilled) else event
        for event in record.events
    )
    _, (difference, *_) = fed(changed(stream, at, events=events))
    assert difference.seq == record.seq and difference.key == record.key


def test_a_different_decision_of_the_portfolio_is_named(tmp_path: Path) -> None:
    stream = read(small(tmp_path))
    at = place(stream, lambda record: isinstance(record, rec.Totals) and record.actions)
    record: Any = stream[at]
    replayer, (difference,) = fed(changed(stream, at, actions=record.actions[1:], digest="0" * 16))
    assert difference.key == "" and difference.seq == record.seq
    assert difference.replayed.startswith("GrantBounds key=")
    assert set(replayer.broken) == {""}


def test_another_state_is_named_by_its_path_and_taken_from_the_snapshot(tmp_path: Path) -> None:
    house = small(tmp_path)
    house.rotate()
    stream = read(house)
    at = place(stream, lambda record: isinstance(record, rec.Snapshot) and record.key == PERP)
    record: Any = stream[at]
    state = msgspec.json.decode(record.state)
    state["machine"]["detail"], was = "another", state["machine"]["detail"]
    replayer, (difference,) = fed(changed(stream, at, state=msgspec.Raw(msgspec.json.encode(state))))
    assert difference.where == "state: detail"
    assert (difference.recorded, difference.replayed) == ('"another"', f'"{was}"')
    assert replayer.machines[PERP].detail == "another"
    assert not replayer.broken, "its state is known again"


def test_a_machine_that_forgets_something_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted bug: the replaying program does not count what it is filled."""
    stream = read(small(tmp_path))
    monkeypatch.setitem(HANDLERS, ev.OrderFilled, lambda machine, event, now_ns: None)
    _, differences = fed(stream)
    fills = {r.seq for r in stream if isinstance(r, rec.Batch) and any(isinstance(e, ev.OrderFilled) for e in r.events)}
    assert differences and differences[0].seq == min(fills)


# --- machines that raised, were stopped, were taken out ------------------------------------------------


def raising(machine: SymbolMachine, event: ev.TradePrinted, now_ns: int) -> None:
    machine.rejects.add(now_ns)  # half of the work is done
    raise ValueError(f"no price {event.price_ticks}")


def printed(at: int) -> ev.TradePrinted:
    return ev.TradePrinted(5, 1, Side.BID, at, at)


def with_a_fault(tmp_path: Path, error: str, *, called_off: bool = False) -> House:
    """A batch during which the machine raised, and life after it."""
    house = small(tmp_path)
    rig = house.scenes[PERP].rig
    event = printed(rig.now_ns)
    with pytest.raises(ValueError):
        rig.machine.handle([event], rig.now_ns)
    house.journal.batch(PERP, rig.now_ns, [event], [], error=error, called_off=called_off)
    rig.ask(ev.HaltRequested, why=Why.WORKER_FAULT)
    house.totals((), None)
    return house


def test_an_error_is_repeated_with_what_was_done_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HANDLERS, ev.TradePrinted, raising)
    house = with_a_fault(tmp_path, "ValueError: no price 5")
    replayer, differences = fed(read(house))
    assert not differences and not replayer.broken
    assert states(replayer) == house.states()


def test_another_error_and_no_error_are_differences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as live:
        live.setitem(HANDLERS, ev.TradePrinted, raising)
        stream = read(with_a_fault(tmp_path, "ValueError: no price 6"))
        _, (difference,) = fed(stream)
    assert (difference.where, difference.recorded, difference.replayed) == (
        "raising",
        "ValueError: no price 6",
        "ValueError: no price 5",
    )
    _, (difference,) = fed(stream)
    assert difference.replayed == "nothing raised"


def test_one_that_raises_only_in_the_replay_is_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = small(tmp_path)
    rig = house.scenes[PERP].rig
    rig.post(printed(rig.now_ns))
    monkeypatch.setitem(HANDLERS, ev.TradePrinted, raising)
    replayer, (difference,) = fed(read(house))
    assert difference.recorded == "nothing raised" and difference.replayed == "ValueError: no price 5"
    assert "raising" in replayer.broken[PERP]


def test_one_that_was_called_off_is_compared_again_after_its_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as live:
        live.setitem(HANDLERS, ev.TradePrinted, raising)
        house = with_a_fault(tmp_path, "Overdue: too long", called_off=True)
    replayer, differences = fed(read(house))
    assert not differences
    assert "stopped from outside" in replayer.broken[PERP] and PERP in replayer.broken[""]
    house.rotate()
    house.run(20, 5)
    replayer, differences = fed(read(house))
    assert not differences and not replayer.broken and replayer.stops
    assert states(replayer) == house.states()


def test_a_machine_that_was_taken_out_stays_as_it_was_put(tmp_path: Path) -> None:
    house = small(tmp_path)
    house.take_out(PERP, "it cannot even be halted")
    house.run(0)
    house.totals((), None)
    replayer, differences = fed(read(house))
    machine = replayer.machines[PERP]
    assert not differences
    assert (machine.state, machine.why, machine.detail) == (
        State.HALTED,
        Why.WORKER_FAULT,
        "it cannot even be halted",
    )
    assert states(replayer) == house.states()


def test_after_lost_records_nothing_is_compared_until_a_snapshot(tmp_path: Path) -> None:
    house = small(tmp_path)
    house.journal.put(rec.Lost, house.now_ns, records=7)
    house.run(20, 5)
    replayer, differences = fed(read(house))
    assert not differences
    assert set(replayer.broken) == {PERP, OPTION, ""} and "7 records" in replayer.broken[PERP]
    house.rotate()
    house.run(20, 6)
    replayer, differences = fed(read(house))
    assert not differences and not replayer.broken


def test_a_symbol_that_nobody_introduced_is_no_difference_but_is_named(tmp_path: Path) -> None:
    stream = [r for r in read(small(tmp_path)) if not (isinstance(r, rec.Joined) and r.key == PERP)]
    replayer, differences = fed(stream)
    assert not differences
    assert "no machine of it" in replayer.broken[PERP] and PERP in replayer.broken[""]
    assert OPTION not in replayer.broken


# --- from one process to the next ----------------------------------------------------------------------


def test_what_cannot_be_inherited_is_a_difference(tmp_path: Path) -> None:
    house = small(tmp_path)
    house.restart()
    stream = read(house)
    joined = [n for n, record in enumerate(stream) if isinstance(record, rec.Joined) and record.key == PERP]
    record: Any = stream[joined[1]]
    other = msgspec.structs.replace(record.instrument, lot=record.instrument.lot * 2)
    replayer, differences = fed(changed(stream, joined[1], instrument=other))
    assert differences[0].where == "joining" and "the instrument was" in differences[0].replayed
    assert "cannot inherit" in replayer.broken[PERP]


def test_settings_that_this_version_refuses_are_a_difference(tmp_path: Path) -> None:
    stream = read(small(tmp_path))
    at = place(stream, lambda record: isinstance(record, rec.Joined) and record.key == PERP)
    record: Any = stream[at]
    profile = msgspec.structs.replace(record.settings.profile, size=record.instrument.lot / 3)
    given = msgspec.structs.replace(record.settings, profile=profile)
    replayer, differences = fed(changed(stream, at, settings=given))
    assert (differences[0].where, differences[0].recorded) == ("joining", "joined")
    assert "cannot be made" in replayer.broken[PERP] and PERP not in replayer.machines


def test_a_portfolio_that_raises_is_a_difference_and_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = small(tmp_path)
    stream = read(house)

    def broken(machine: PortfolioMachine, events: Any, now_ns: int) -> None:
        raise KeyError("nobody")

    monkeypatch.setattr(PortfolioMachine, "handle", broken)
    replayer, differences = fed(stream)
    assert (differences[0].key, differences[0].where, differences[0].replayed) == ("", "raising", "KeyError: 'nobody'")
    assert "" in replayer.broken


def test_who_inherits_from_nobody_is_not_compared(tmp_path: Path) -> None:
    house = small(tmp_path)
    house.restart()
    stream = read(house)
    second = [n for n, record in enumerate(stream) if isinstance(record, rec.Started)][1]
    replayer, differences = fed(stream[second:])
    assert not differences
    assert "inherits from a machine of an earlier process" in replayer.broken[PERP]


# --- other versions ------------------------------------------------------------------------------------


def test_the_state_of_another_version_is_salvaged_and_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = small(tmp_path)
    house.rotate()
    house.run(20, 5)
    first = [record.seq for record in read(house) if isinstance(record, rec.Segment)][1]
    for module in (memory, form):
        monkeypatch.setattr(module, "CODE", "another program")
    replayer, differences = fed(read(house, first))
    assert replayer.other_code and not differences
    assert replayer.broken[PERP] == replayer.broken[OPTION] == SALVAGED
    assert replayer.portfolio is None and "snapshot cannot be read" in replayer.broken[""]
    assert replayer.machines[PERP].position.lots == house.scenes[PERP].rig.machine.position.lots
    assert replayer.version == "1.2.3"


# --- in words ------------------------------------------------------------------------------------------


def test_records_about_people_move_nothing(house: House) -> None:
    for kind in (rec.Note, rec.Commanded, rec.Alerted, rec.Configured, rec.Torn):
        assert kind not in replaying.HANDLERS
        body = f'{{"kind":"{kind.__name__.lower()}","seq":1'.encode()
        assert not replaying.moves(body)
    for kind in replaying.HANDLERS:
        assert replaying.moves(f'{{"kind":"{kind.__name__.lower()}","seq":1'.encode())


@pytest.mark.parametrize(
    ("recorded", "replayed", "found"),
    [
        pytest.param({"a": 1}, {"a": 1}, None, id="equal"),
        pytest.param({"a": 1}, {"a": 2}, ("a", "1", "2"), id="a value"),
        pytest.param({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}, ("a[1].b", "2", "3"), id="deep inside"),
        pytest.param({"a": [1]}, {"a": [1, 2]}, ("a[1]", "nothing", "2"), id="one more"),
        pytest.param({"a": 1}, {}, ("a", "1", "nothing"), id="a key that is missing"),
        pytest.param({"a": 1}, {"a": 1.0}, ("a", "1", "1.0"), id="another type"),
        pytest.param({"a": [1]}, {"a": {"b": 1}}, ("a", "[1]", '{"b":1}'), id="another shape"),
        pytest.param({"machine": {"a": None}}, {"machine": {"a": 0}}, ("a", "null", "0"), id="below machine"),
    ],
)
def test_the_first_difference_of_two_states(recorded: Any, replayed: Any, found: Any) -> None:
    assert first_difference(recorded, replayed) == found


def test_actions_that_are_missing_or_too_many_are_named() -> None:
    one, two = Noted("a", "x"), Noted("b", "y")
    assert between([one, two], [one]) == ("action 2 (2 recorded, 1 replayed)", "Noted name=b detail=y", "nothing more")
    assert between([], [one]) == ("action 1 (0 recorded, 1 replayed)", "nothing more", "Noted name=a detail=x")
