"""A machine's whole state to bytes and back, exactly; and what can be saved of a state of another version of mmd.

A restored machine decides bit for bit like the saved one for ever after. How it looks: `mmd.replay.form`.
"""

import types
from collections.abc import Mapping
from decimal import Decimal, localcontext
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

from mmd.core.imagined import Imagined
from mmd.core.ledger import CONTEXT, ROUNDING, ZERO, Holdings, Sources, gain
from mmd.core.machine import SymbolMachine
from mmd.core.orders import Empty, Placing, Slot
from mmd.core.own import OwnOrders, SideState, twin_key
from mmd.core.pnl import Execution, Position
from mmd.core.portfolio import PortfolioMachine
from mmd.core.quoting import Quoted
from mmd.core.symbol import Difference, Latch
from mmd.core.trail import Rest
from mmd.domain.events import Level
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import CaseKind, Rule, Side, State
from mmd.domain.settings import SymbolSettings
from mmd.replay.form import (
    CODE,
    FIELDS,
    FORMAT,
    MACHINES,
    MUTABLE,
    CannotLoad,
    Machine,
    Misfit,
    Reader,
    Writer,
    clipped,
    encode,
    parse,
)

__all__ = ["CODE", "CannotLoad", "load", "salvage", "save"]


def save(machine: Machine) -> bytes:
    """JSON without a line break; nothing of the machine changes. TypeError naming a class that is not registered."""
    writer = Writer()
    tree = writer.write(machine)
    return encode({"format": FORMAT, "code": CODE, "instruments": writer.instruments, "machine": tree})


def load(data: bytes) -> Machine:
    """What `save` wrote. CannotLoad for anything else, the states of another CODE included.

    Classes, fields and kinds are checked, not the type of each value: the journal's chain says that
    the text is as it was written.
    """
    document = parse(data)
    if document.code != CODE:
        raise CannotLoad(f"written by a program of code {document.code}, this one has {CODE}")
    machine = Reader(document).guarded(document.machine)
    if not isinstance(machine, SymbolMachine | PortfolioMachine):
        raise CannotLoad(f"a {type(machine).__name__}, allowed: {', '.join(cls.__name__ for cls in MACHINES)}")
    return machine


def salvage(data: bytes) -> tuple[SymbolMachine, list[str]]:
    """A symbol's machine from the state of any CODE, as far as names and types fit; and what does not fit.

    Taken over: instrument, settings, mode, position with its ledger, imagined ledgers, orders of ours, state
    and its reason, open cases, labels. Everything else starts anew: market, bounds, counts, what was held.
    A state that cannot be read is HALTED. A ledger that does not add up as read begins anew with the
    position it has. CannotLoad where instrument, settings or position cannot be read.
    """
    salvager = Salvager(parse(data))
    return salvager.machine(), salvager.notes


# --- what fits ------------------------------------------------------------------------------------

# Where the value of a fresh machine does not tell the type.
HINTS: dict[tuple[type, str], Any] = {
    (Holdings, "price"): Decimal | None,
    (OwnOrders, "_finished"): dict[str, int | None],
    (Position, "_by_label"): dict[str, int],
    (Position, "_entries"): dict[str, None],
    (Position, "_recent"): list[Execution],
    (Position, "_seen"): dict[str, tuple[Side, ...]],
    (Position, "foreign_cash"): dict[str, Decimal],
    (Position, "foreign_fees"): dict[str, Decimal],
    (SideState, "ghost"): Level,
    (SideState, "slot"): Slot,
    (SideState, "told"): Rule | None,
    (SideState, "trail"): tuple[Rest, ...],
    (SideState, "wanted"): Quoted,
    (Sources, "price"): Decimal | None,
    (SymbolMachine, "latch"): Latch | None,
    (SymbolMachine, "cases"): dict[tuple[CaseKind, str], Difference],
}
# An operator's figures may have been written without a point.
WIDER: dict[type, tuple[type, ...]] = {float: (float, int), Decimal: (Decimal, int)}


def fits(value: Any, hint: Any) -> bool:
    """Whether the value is of the type, all the way down."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind is None:
        return value is None if hint is None else type(value) in WIDER.get(hint, (hint,))
    if kind is Union or kind is types.UnionType:
        return any(fits(value, each) for each in inner)
    if type(value) is not kind:
        return False
    if kind is dict:
        return all(fits(key, inner[0]) and fits(each, inner[1]) for key, each in value.items())
    if kind is list or inner[-1] is Ellipsis:
        return all(fits(each, inner[0]) for each in value)
    return len(value) == len(inner) and all(map(fits, value, inner))


@cache
def struct_fields(cls: type[msgspec.Struct]) -> Mapping[str, tuple[Any, bool]]:
    """By name: the type, and whether it must be given."""
    hints = get_type_hints(cls)
    return {field.name: (hints[field.name], field.required) for field in msgspec.structs.fields(cls)}


# --- another version's state ----------------------------------------------------------------------


class Salvager(Reader):
    """Reads what it can, and notes the rest in words for an operator."""

    KNOWN = ("latch", "agreed_ns", "counts_from_ns", "told_ns")
    TAKEN = ("mode", "state", "why", "detail", "by", "since_ns", "cases", "epoch", "_orders_made", *KNOWN)

    def __init__(self, document: Any) -> None:
        self.notes: list[str] = []
        self._root = document.machine
        super().__init__(document)

    def machine(self) -> SymbolMachine:
        node = self._root
        name = node.get("@") if type(node) is dict else None
        if name != SymbolMachine.__name__:
            raise CannotLoad(f"a {name}, allowed: {SymbolMachine.__name__}")
        instrument = self._needed(node, "instrument", Instrument)
        settings = self._needed(node, "settings", SymbolSettings)
        try:
            machine = SymbolMachine(instrument, settings, "", 0)
        except (ValueError, ArithmeticError) as error:
            raise CannotLoad(f"settings: {error}") from error
        for field in self.TAKEN:
            if not self._take(machine, field, node) and field == "state":
                machine.state = State.HALTED
                self._note("is HALTED, because nothing else can be ruled out", "state")
        place = node.get("position")
        self._needed(place, "lots", int, "position")
        if place.get("@") != Position.__name__:
            raise CannotLoad(f"position: a {place.get('@')}, allowed: {Position.__name__}")
        self._position(machine, "position", node)
        self._imagined(machine.imagined, node.get("imagined"))
        self._own(machine.own, node.get("own"))
        if node.get("closing") is not None:
            self._note("was under way and is not gone on with", "closing")
        for more in sorted(node.keys() - {"@", "#"} - set(FIELDS[SymbolMachine])):
            self._note("is not known here: left out", more)
        return machine

    def _note(self, text: str, *where: str) -> None:
        self.notes.append(f"{'.'.join((*self.path, *where))}: {text}")

    def _needed(self, node: Any, field: str, cls: type, *where: str) -> Any:
        """CannotLoad where it is not there or is no such thing."""
        self.path = [*where, field]
        if type(node) is not dict or field not in node:
            raise CannotLoad(f"{self.where}: missing")
        value = self.guarded(node[field])
        if not fits(value, cls):
            raise CannotLoad(f"{self.where}: {clipped(node[field])} is no {cls.__name__}")
        self.path = []
        return value

    def _take(self, owner: Any, field: str, node: dict[str, Any]) -> bool:
        """Set one field of an object; False, and a note, where it is missing or does not fit."""
        fresh = getattr(owner, field)
        depth = len(self.path)
        if field not in node:
            self._note(f"missing, stays {shown(fresh)}", field)
            return False
        self.path.append(field)
        try:
            value = self.read(node[field])
            if not fits(value, HINTS.get((type(owner), field), type(fresh))):
                raise Misfit(f"{clipped(node[field])} does not fit")
        except Misfit as error:
            self._note(f"{error}: left out, stays {shown(fresh)}")
            return False
        finally:
            del self.path[depth:]
        setattr(owner, field, value)
        return True

    def _fill(self, owner: Any, node: Any) -> None:
        """Set every field of an object and of what it holds that can be read."""
        cls = type(owner)
        if type(node) is not dict or node.get("@") != cls.__name__:
            self._note(f"is no {cls.__name__}: left out")
            return
        if "#" in node:
            self._share(node["#"], owner)
        for field in FIELDS[cls]:
            inner = getattr(owner, field)
            if type(inner) in MUTABLE:
                self.path.append(field)
                self._fill(inner, node.get(field))
                self.path.pop()
            else:
                self._take(owner, field, node)
        for more in sorted(node.keys() - {"@", "#"} - set(FIELDS[cls])):
            self._note("is not known here: left out", more)

    def _value(self, cls: type, node: dict[str, Any]) -> Any:
        """A frozen value: what is missing or does not fit has its default, or the whole does not fit."""
        fields, values = struct_fields(cls), {}
        for name, (hint, required) in fields.items():
            depth = len(self.path)
            self.path.append(name)
            try:
                if name not in node:
                    raise Misfit("missing")
                value = self.read(node[name])
                if not fits(value, hint):
                    raise Misfit(f"{clipped(node[name])} does not fit")
                values[name] = value
            except Misfit as error:
                if required:
                    raise Misfit(f"{cls.__name__} needs {name}: {error}") from error
                del self.path[depth + 1 :]
                self._note(f"{error}: has its default")
            finally:
                del self.path[depth:]
        for more in sorted(node.keys() - {"@"} - fields.keys()):
            self._note("is not known here: left out", more)
        return cls(**values)

    def _object(self, cls: type, node: dict[str, Any]) -> Any:
        raise Misfit(f"a {cls.__name__} is not expected here")

    # --- parts ------------------------------------------------------------------------------------

    def _position(self, owner: Any, field: str, node: dict[str, Any]) -> None:
        """One position of the owner; where its books disagree as read, profit begins anew."""
        position: Position = getattr(owner, field)
        self.path.append(field)
        self._fill(position, node.get(field))
        if not adds_up(position):
            self._note("its ledger does not add up as read: profit counts from here")
            setattr(owner, field, begun_anew(position))
        elif not position.refolds:
            self._note("which fills made it cannot be told: one that is told late counts after them")
            position.rebase()
        self.path.pop()

    def _imagined(self, imagined: Imagined, node: Any) -> None:
        """Each bound by itself."""
        self.path = ["imagined"]
        if type(node) is not dict:
            self._note("missing: both ledgers start at nothing")
        else:
            self._take(imagined, "instrument", node)
            for bound in ("pessimistic", "optimistic"):
                if bound in node:
                    self._position(imagined, bound, node)
                else:
                    self._note("missing, starts at nothing", bound)
        self.path = []

    def _own(self, own: OwnOrders, node: Any) -> None:
        """Each order by itself: one that cannot be read is looked for at the exchange, by its label."""
        self.path = ["own"]
        if type(node) is not dict:
            self._note("missing: no order of ours is known")
            node = {}
        own.bid = self._side(Side.BID, node.get("bid"), "bid")
        own.ask = self._side(Side.ASK, node.get("ask"), "ask")
        strays = node.get("strays")
        listed = type(strays) is list and strays[:1] == ["map"] and type(strays[-1]) is dict
        if not listed:
            self._note("is no list of orders: left out", "strays")
        for label, each in strays[-1].items() if listed else ():
            for side in Side:
                if type(each) is dict and each.get("side") == ["Side", side.value]:
                    stray = self._side(side, each, "strays", label)
                    if stray.label == label:
                        own.strays[label] = stray
                    break
            else:
                self._note("has no side: left out", "strays", label)
        self._take(own, "_finished", node)
        for more in sorted(node.keys() - {"@", "#"} - set(FIELDS[OwnOrders])):
            self._note("is not known here: left out", more)
        self.path = []

    def _side(self, side: Side, node: Any, *where: str) -> SideState:
        """A slot whose order cannot be read is empty."""
        state = SideState(side)
        self.path += where
        self._fill(state, node)
        slot = state.slot
        found = "" if isinstance(slot, Empty) else slot.label
        beside = "" if isinstance(slot, Empty | Placing) else twin_key(slot.label, slot.order_id)
        if state.label not in (found, beside) or state.side is not side:
            self._note(f"order {state.label or found} cannot be read: left out")
            state = SideState(side)
        del self.path[-len(where) :]
        return state


def shown(value: Any) -> str:
    """A value for people."""
    return value.value if hasattr(value, "value") else str(value) or "empty"


def adds_up(position: Position) -> bool:
    """The ledger's books agree with each other and with the profit by average price, at the last price."""
    ledger = position.ledger
    if not position.balanced:
        return False
    if position.lots and (ledger.price is None or not position.average):
        return True  # of unknown value: there is nothing to compare yet
    with localcontext(CONTEXT):
        price = ledger.price or ZERO
        unrealized = gain(position.instrument, position.lots, position.average, price)
        by_average = position.realized + unrealized - position.fees + position.funding - position.inherited
        return abs(by_average - ledger.sources.total()) <= ledger.gross * ROUNDING


def begun_anew(old: Position) -> Position:
    """The same lots at the same average; what was counted is not counted again, and profit is none yet."""
    fresh = Position(old.instrument)
    for name in ("_seen", "_entries", "_by_label", "fills"):
        setattr(fresh, name, getattr(old, name))
    if old.known:
        last = old.ledger.price
        fresh.adopt(old.lots, old.average, float(last) if last else 0.0)
    return fresh
