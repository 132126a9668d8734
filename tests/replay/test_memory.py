"""A machine's state as JSON: exact, the same in every process, closed; and what is said where it cannot be read."""

import os
import subprocess
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator
from copy import deepcopy
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from core_kit import BID, NS, PLAIN, START_NS, changed, fill, machine, settings
from core_playbook import Play
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from memory_kit import SETUPS, driven
from portfolio_kit import MARKET, Book, limits
from test_portfolio_properties import TIGHT, WILD, act, random_steps

from mmd.core.machine import SymbolMachine
from mmd.core.orders import Slot
from mmd.core.portfolio import PortfolioMachine
from mmd.core.quoting import Quoted
from mmd.core.window import Window
from mmd.domain.errors import MmdError
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Mode, Rule, Side, State, Switch, Why
from mmd.journal import records as rec
from mmd.replay import form
from mmd.replay.memory import CODE, CannotLoad, load, save

BUILTIN = (str, int, float, bool, type(None), Decimal, tuple, list, dict, deque, set, frozenset)


def through(value: Any) -> Any:
    """One value to JSON and back."""
    writer = form.Writer()
    node = writer.write(value)
    text = form.encode({"format": 1, "code": "", "instruments": writer.instruments, "machine": node})
    document = form.parse(text)
    return form.Reader(document).guarded(document.machine)


def same(left: Any, right: Any) -> bool:
    """Equal, of equal type, all the way down, in the same order, to the last digit."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float | Decimal):
        return repr(left) == repr(right)
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, set | frozenset):
        return bool(left == right)
    if isinstance(left, list | tuple | deque):
        ends = getattr(left, "maxlen", None) == getattr(right, "maxlen", None)
        return ends and len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


# --- values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        *(0, -1, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**60, True, False, None),
        *(0.0, -0.0, 1.0, 0.1, 1e16, 1e22, 5e-324, 1.7976931348623157e308, 1 / 3),
        *(float("inf"), float("-inf"), float("nan")),
        *map(Decimal, ("0", "-0", "1.50", "1.5", "1E+7", "1E-50", "NaN", "-Infinity", "12345678901234567890.1")),
        *("", 'ä€\u2028\x00\\"', "@", "decimal", "map"),
        *((), (1, 1.0, True, None), [], [[]], ["tuple", 1], (("dict",),)),
        *({}, {"@": 1, "#": 2}, {"b": 1, "a": 2}, {"a": 1.5, "b": float("inf")}, {1: 2, "1": 3}, {(1, "a"): [2]}),
        *({"x": (Side.BID,), "y": (Side.ASK, Side.BID), "z": (Side.BID,), "w": ()}, {"x": (1,), "y": (True,)}),
        *({"x": (Side.BID,), "y": (State.PAUSED,)}, {"x": ()}, {Switch.LEDGER: "x", "ledger": "y"}),
        *(deque(), deque([1, (2, 3)]), deque([1, 2], maxlen=2), set(), {1, 2, 3}, frozenset({"b", "a"})),
        *(Side.BID, Why.STALE_BOOK, [Mode.LIVE, Rule.COLLAR], PLAIN.grid, settings()),
    ],
    ids=repr,
)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    assert same(through(value), value)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.decimals(allow_nan=False)
    | st.sampled_from([*Side, *State])
)
hashables = st.recursive(
    scalars, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=4
)
values = st.recursive(
    hashables,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(), inner)
        | st.dictionaries(hashables, inner, max_size=4)
        | st.dictionaries(st.text(), st.lists(st.sampled_from(Side)).map(tuple))
        | st.lists(inner).map(deque)
        | st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=8,
)


@hypothesis_settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(values)
def test_any_value_comes_back_as_it_was(value: Any) -> None:
    assert same(through(value), value)


def test_an_object_in_two_places_stays_one() -> None:
    """Nothing in a machine is shared today; what will be stays so."""
    play = Play().quoting()
    play.machine.rejects = play.machine.fills = play.machine.vanished
    play.machine.vanished.add(play.now_ns, 3)
    twin = load(save(play.machine))
    assert isinstance(twin, SymbolMachine)
    assert twin.rejects is twin.fills is twin.vanished is not twin.timeouts
    assert (twin.rejects.amount, type(twin.rejects)) == (3, Window)
    assert save(twin) == save(play.machine)


def test_two_objects_stay_two() -> None:
    twin = load(save(machine()))
    assert isinstance(twin, SymbolMachine)
    assert len({id(each) for each in (twin.rejects, twin.fills, twin.timeouts, twin.vanished)}) == 4
    assert twin.imagined.pessimistic is not twin.imagined.optimistic


def test_instruments_that_are_equal_but_written_otherwise_are_two() -> None:
    """Decimal('1') == Decimal('1.0'), and people are shown the difference."""
    wild = driven("plain", 1, 30)
    wild.run([("restart", 0, 0)])
    wild.machine.instrument = changed(wild.machine.instrument, lot=Decimal("1.0"))
    assert wild.machine.instrument == wild.machine.position.instrument
    twin = load(save(wild.machine))
    assert isinstance(twin, SymbolMachine)
    assert (str(twin.instrument.lot), str(twin.position.instrument.lot)) == ("1.0", "1")


# --- the same state, the same bytes -------------------------------------------------------------------


def histories() -> Iterator[bytes]:
    """Portfolio and symbols with a past; the same in every process."""
    for seed, setup in enumerate(SETUPS):
        wild = driven(setup, seed, 120)
        yield save(wild.machine)
        wild.run([("stray_acked", n, 0) for n in range(20)] + [("restart", seed, 5)])
        assert len(wild.machine.heirlooms) > 10
        yield save(wild.machine)
    book = Book(TIGHT["all tight"])
    for step in random_steps(WILD, 3, 150):
        act(book, step)
    yield save(book.machine)


@pytest.mark.parametrize("hash_seed", ["0", "1", "4711"])
def test_no_hash_gets_into_the_bytes(hash_seed: str) -> None:
    here = Path(__file__).parent
    paths = [str(here), str(here.parent / "core"), str(here.parents[1])]
    program = "import sys, test_memory\nfor each in test_memory.histories(): sys.stdout.buffer.write(each + b'\\n')"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(paths)}
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False)
    assert found.returncode == 0, found.stderr.decode()
    assert found.stdout.splitlines() == list(histories())


def test_equal_states_give_equal_bytes() -> None:
    """Built apart, with no object in common."""
    pairs = zip(histories(), histories(), strict=True)
    assert all(first == second for first, second in pairs)
    apart = SymbolMachine(changed(PLAIN, grid=changed(PLAIN.grid)), settings(), "ep", START_NS)
    assert save(apart) == save(machine())


def test_every_difference_is_seen() -> None:
    """One changed field anywhere changes the bytes."""
    data = save(driven("plain", 4, 100).machine)
    tree = msgspec.json.decode(data)["machine"]
    leaves = 0

    def changes(node: Any, put: Callable[[Any], None]) -> Iterator[bytes]:
        nonlocal leaves
        if isinstance(node, dict):
            for key in [key for key in node if key != "@"]:
                yield from changes(node[key], lambda new, key=key: node.__setitem__(key, new))  # type: ignore[misc]  # a key of its own
        elif type(node) is int:
            leaves += 1
            put(node + 1)
            document = msgspec.json.decode(data)
            document["machine"] = tree
            yield save(load(msgspec.json.encode(document)))
            put(node)

    found = list(changes(tree, lambda new: None))
    assert leaves > 60
    assert len({data, *found}) == leaves + 1


def test_a_line_fits_into_a_record() -> None:
    data = save(driven("shadow", 2, 50).machine)
    assert b"\n" not in data
    record = rec.Snapshot(seq=1, at=2, key="x/y", state=msgspec.Raw(data))
    read = rec.DECODER.decode(msgspec.json.encode(record))
    assert isinstance(read, rec.Snapshot) and bytes(read.state) == data


# --- the register is closed ---------------------------------------------------------------------------


def inside(value: Any) -> Iterator[Any]:
    """What a value holds directly, whatever its class says is saved."""
    if isinstance(value, dict):
        yield from value.keys()
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset | deque):
        yield from value
    elif isinstance(value, msgspec.Struct):
        yield from (getattr(value, name) for name in value.__struct_fields__)
    elif not isinstance(value, Enum | str | int | float | Decimal | types.NoneType | type):
        slots = [name for base in type(value).__mro__ for name in vars(base).get("__slots__", ())]
        for name in [*slots, *getattr(value, "__dict__", ())]:
            if name not in form.MADE_ANEW.get(type(value), {}):
                yield getattr(value, name)


def walk(root: Any) -> Iterator[tuple[Any, bool]]:
    """Everything that is held, each object once for each holder; and whether within a frozen value."""
    waiting = [(root, False)]
    while waiting:
        value, frozen = waiting.pop()
        yield value, frozen
        waiting += [(each, frozen or isinstance(value, msgspec.Struct)) for each in inside(value)]


def strangers(root: Any) -> set[str]:
    """Classes that are held and not registered."""
    listed = {*form.OBJECTS, *form.STRUCTS, *form.ENUMS, *BUILTIN}
    return {type(value).__name__ for value, _ in walk(root)} - {cls.__name__ for cls in listed}


def twice_held(root: Any) -> list[str]:
    """Containers that change and have two holders: a copy would have two containers."""
    found = [value for value, frozen in walk(root) if not frozen and isinstance(value, list | dict | set | deque)]
    return [repr(value)[:80] for value in found if sum(value is other for other in found) > 1]


def check_register(root: Any) -> None:
    assert strangers(root) == set(), "not registered in mmd.replay.form"
    assert twice_held(root) == [], "held twice"


@pytest.mark.parametrize("setup", sorted(SETUPS))
def test_all_that_a_symbol_holds_is_registered(setup: str) -> None:
    for seed in range(2):
        wild = driven(setup, seed, 300, lambda wild: check_register(wild.machine) if wild.number % 5 == 0 else None)
        wild.run([("restart", 1, 1)])
        check_register(wild.machine)


@pytest.mark.parametrize("which", sorted(TIGHT))
def test_all_that_a_portfolio_holds_is_registered(which: str) -> None:
    book = Book(TIGHT[which])
    for n, step in enumerate(random_steps(WILD, 7, 200)):
        act(book, step)
        if n % 5 == 0:
            check_register(book.machine)
    check_register(PortfolioMachine(limits(), book.switches, START_NS, book.machine.carried()))


def named_in(hint: Any) -> Iterator[type]:
    """Classes that a type hint names."""
    inner = get_args(hint)
    if isinstance(hint, type) and not inner:
        yield hint
    for each in inner:
        yield from named_in(each)


def test_what_a_registered_value_may_hold_is_registered() -> None:
    """By the types: also what no history here has reached."""
    hints = [hint for cls in form.STRUCTS for hint in get_type_hints(cls).values()]
    named = {cls for hint in [*hints, Slot, Quoted] for cls in named_in(hint)}
    assert named - {*form.STRUCTS, *form.ENUMS, *BUILTIN} == set()
    assert len(named) > 20


class Novelty(msgspec.Struct, frozen=True):
    """A class that somebody adds to the state."""

    number: int


class Thing:
    """Another one, that changes."""


@pytest.mark.parametrize(
    "value", [Novelty(1), Thing(), len, object(), b"", 1j, State], ids=lambda value: repr(value)[:9]
)
def test_what_is_not_registered_is_refused_and_found(value: Any) -> None:
    fresh = machine()
    fresh.cases[("x", "y")] = value  # type: ignore[index]  # as a later version might
    assert strangers(fresh) == {type(value).__name__}
    with pytest.raises(TypeError, match=f"{type(value).__qualname__} is not listed"):
        save(fresh)


def test_a_container_with_two_holders_is_found() -> None:
    fresh = machine()
    fresh.own.strays = fresh.position._by_label = {}
    assert len(twice_held(fresh)) == 2


def test_an_attribute_that_init_does_not_know_is_refused() -> None:
    fresh = machine()
    fresh.afterthought = 1  # type: ignore[attr-defined]  # that is the point
    with pytest.raises(TypeError, match="afterthought"):
        save(fresh)


def test_what_is_made_anew_was_argued_for() -> None:
    """One more name here is one thing less that a restored machine knows: say why it may not decide by it."""
    assert {(cls.__name__, name) for cls, fields in form.MADE_ANEW.items() for name in fields} == {
        ("SymbolMachine", "_out"),
        ("MarketState", "_vol_key"),
        ("MarketState", "_vol_collar"),
        ("PortfolioMachine", "_rooms"),
        ("Share", "rooms"),
    }


def test_what_is_made_anew_exists_and_is_as_in_a_new_machine() -> None:
    like: dict[type, object] = {type(each): each for each in form.samples()}
    for cls, fields in form.MADE_ANEW.items():
        assert fields.keys() <= set(form.all_fields(cls, like))
        assert not fields.keys() & set(form.FIELDS[cls])
    fresh, twin = machine(), load(save(machine()))
    assert isinstance(twin, SymbolMachine)
    assert (twin._out, twin.market._vol_key, twin.market._vol_collar) == (
        fresh._out,
        fresh.market._vol_key,
        fresh.market._vol_collar,
    )


# --- what cannot be read ------------------------------------------------------------------------------


def edited(edit: Callable[[dict[str, Any]], Any], data: bytes | None = None) -> bytes:
    """A saved state, changed by hand."""
    document = msgspec.json.decode(data or save(driven("plain", 1, 60).machine))
    edit(document)
    return msgspec.json.encode(document)


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def edit(document: dict[str, Any]) -> None:
        *where, last = path.split(".")
        node = document
        for name in where:
            node = node[name]
        node[last] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        pytest.param(put("code", "0" * 16), f"code {'0' * 16}, this one has {CODE}", id="another version"),
        pytest.param(put("format", 2), "format 2, this version reads 1", id="format"),
        pytest.param(lambda d: d.pop("instruments"), "missing required field `instruments`", id="no table"),
        pytest.param(put("more", 1), "unknown field `more`", id="outermost"),
        pytest.param(put("machine", None), "a NoneType, allowed: SymbolMachine, PortfolioMachine", id="nothing"),
        pytest.param(put("machine", ["Side", "bid"]), "a Side, allowed", id="no machine"),
        pytest.param(put("machine.@", "os.system"), "class 'os.system' is not known here", id="class"),
        pytest.param(put("machine.@", ["x"]), "class ['x'] is not known here", id="class is a list"),
        pytest.param(put("machine.market.@", "Market"), "market: class 'Market' is not known", id="class inside"),
        pytest.param(lambda d: d["machine"].pop("drift"), "SymbolMachine without ['drift']", id="missing"),
        pytest.param(
            put("machine.own.bid.more", 1), "own.bid: SideState without nothing missing, with ['more']", id="more"
        ),
        pytest.param(
            put("machine.state", ["State", "ASLEEP"]), 'state: ["State","ASLEEP"] cannot be read', id="member"
        ),
        pytest.param(put("machine.position.fees", ["decimal", "x"]), 'position.fees: ["decimal","x"]', id="decimal"),
        pytest.param(put("machine.instrument", ["instrument", 7]), 'instrument: ["instrument",7]', id="table"),
        pytest.param(put("machine.held", ["same", 0]), 'held: ["same",0] cannot be read', id="number of nothing"),
        pytest.param(put("machine.own.bid.#", "x"), "own.bid: 'x' is no number of an object", id="number"),
        pytest.param(put("machine.held", ["zip", {}]), 'held: ["zip",{}] cannot be read', id="kind"),
        pytest.param(put("machine.held", []), "held: [] cannot be read", id="no kind"),
        pytest.param(put("machine.held", [{}]), "held: [{}] cannot be read", id="kind is an object"),
        pytest.param(put("machine.held", ["dict", [["list"], 1]]), "held: ", id="key that cannot be one"),
        pytest.param(
            put("machine.position._seen", ["columns", ["a", "b"], [1], [0]]), "position._seen: ", id="column too short"
        ),
    ],
)
def test_it_says_what_does_not_fit(edit: Callable[[dict[str, Any]], Any], words: str) -> None:
    with pytest.raises(CannotLoad) as found:
        load(edited(edit))
    assert words in str(found.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"1", b"\xff", b'{"format":1}', b"[" * 100_000, b'{"a":' * 500])
def test_what_is_no_state_is_refused(data: bytes) -> None:
    with pytest.raises(CannotLoad, match="no saved state"):
        load(data)


def test_a_state_that_is_nested_without_end_is_refused() -> None:
    nested: Any = 1
    for _ in range(450):
        nested = ["list", nested]
    data = edited(put("machine.held", nested))
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000)  # As our processes have it; eth-account's parts raise it.
    try:
        with pytest.raises(CannotLoad, match="nested too deeply"):
            load(data)
    finally:
        sys.setrecursionlimit(before)


def test_the_error_is_one_of_ours() -> None:
    assert issubclass(CannotLoad, MmdError)


JUNK = (None, 0, -1, "x", [], {}, ["tuple"], ["Side", "bid"], {"@": "Window"}, ["same", 0], ["map", 1], ["list", {}])
junk = st.sampled_from(JUNK).map(deepcopy)


def places(node: Any) -> list[tuple[Any, Any]]:
    """Every place in a tree where something may be put."""
    pairs = list(node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ())
    return [(node, key) for key, _ in pairs] + [place for _, inner in pairs for place in places(inner)]


@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(where=st.integers(0, 10**6), what=junk, drop=st.booleans())
def test_a_spoiled_state_is_read_or_refused(where: int, what: Any, drop: bool) -> None:
    """Never anything else: who reads a journal must be able to say what is wrong with it."""

    def spoil(document: dict[str, Any]) -> None:
        found = places(document)
        node, key = found[where % len(found)]
        if drop:
            del node[key]
        else:
            node[key] = what

    try:
        load(edited(spoil, SPOILED))
    except CannotLoad as error:
        assert str(error)


SPOILED = save(driven("volatile", 2, 80).machine)


# --- the fingerprint ----------------------------------------------------------------------------------


def test_the_code_names_every_class_and_field(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(CODE) == 16 and int(CODE, 16) >= 0
    assert form.fingerprint() == CODE
    cls = next(iter(form.FIELDS))
    for fields in (form.FIELDS[cls][1:], (*form.FIELDS[cls], "more"), tuple(reversed(form.FIELDS[cls]))):
        with monkeypatch.context() as patch:
            patch.setitem(form.FIELDS, cls, fields)
            assert form.fingerprint() != CODE
    for name in ("STRUCTS", "OBJECTS"):
        assert {cls.__name__ for cls in getattr(form, name)} <= form.CLASSES.keys()
    with monkeypatch.context() as patch:
        patch.delitem(form.FIELDS, cls)
        assert form.fingerprint() != CODE


def test_thousands_of_fills_stay_in_order() -> None:
    """As many as are remembered; the oldest is forgotten first, also after a restart."""
    play = Play(
        settings(limits={"max_fills": 10**6, "max_filled": Decimal(10**9)}, data={"stale_seconds": 1e6})
    ).quoting()
    position = play.machine.position
    for n in range(20_000):
        position._seen[f"t{n}"] = (Side.ASK, BID) if n % 997 == 0 else (BID,)
        position._by_label[f"label-{n}"] = n
        position._entries[f"e{n}"] = None
    twin = load(save(play.machine))
    assert isinstance(twin, SymbolMachine)
    for mine, theirs in (
        (twin.position._seen, position._seen),
        (twin.position._by_label, position._by_label),
        (twin.position._entries, position._entries),
    ):
        assert same(mine, theirs)
    assert twin.position._seen["t997"] == (Side.ASK, Side.BID)


def test_a_late_fill_counts_in_its_place_after_a_restart() -> None:
    play = Play().connected()
    for number, lots, price in ((1, 10, "100"), (3, 5, "110")):
        play.sees(changed(fill("", f"t{number}", BID, lots, price), exchange_ns=play.now_ns + number))
    twin = load(save(play.machine))
    assert isinstance(twin, SymbolMachine)
    late = changed(fill("", "t2", Side.ASK, 5, "90"), exchange_ns=play.now_ns + 2)
    twin.handle([late], play.now_ns)
    play.sees(late)
    assert (twin.position.lots, twin.position.average, twin.position.realized) == (10, Decimal(105), Decimal(-50))
    assert save(twin) == save(play.machine)


def test_the_register_has_no_instrument_by_name_only() -> None:
    """All that refer to it share the one that was read."""
    twin = load(save(driven("option", 3, 60).machine))
    assert isinstance(twin, SymbolMachine) and isinstance(twin.instrument, Instrument)
    holders = [value for value, _ in walk(twin) if isinstance(value, Instrument)]
    assert len(holders) > 10 and all(each is twin.instrument for each in holders)
    assert twin.instrument.expiry_ns == START_NS + 900 * NS
    assert MARKET  # the portfolio's instruments are other ones
