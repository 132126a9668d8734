"""How a machine's state looks as JSON: the register of all classes that may occur, to JSON and back, exactly.

    {"format": 1, "code": "…", "instruments": […], "machine": {"@": "SymbolMachine", "instrument": …}}

An object is its class under "@" and every field by name; the class must be listed here, nothing is
imported or run because a file names it. Text, true, false, null, integers of any size and finite floats
(they have a point or an exponent) are themselves. Everything else is an array that begins with its kind:

    ["decimal", "1.50"]  ["Side", "bid"]  ["tuple", 1, 2]  ["deque", null, …]  ["map", {"text": …}]
    ["dict", [key, value], …]  ["columns", [keys], [different values], [which of them]]
    ["instrument", 0] of the table at the top  ["same", 0]: the object that has "#": 0

The same state gives the same bytes, in every process: no hash, no address and no set's order gets in.
What can be made anew is left out (`MADE_ANEW`). Source: docs/adr/0013-machine-state-in-the-journal.md.
"""

import hashlib
import math
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from itertools import chain
from types import NoneType
from typing import Any

import msgspec

from mmd.core.book import Touch
from mmd.core.imagined import Imagined
from mmd.core.ledger import Holdings, Ledger, Sources
from mmd.core.losses import Account, Losses
from mmd.core.machine import SymbolMachine
from mmd.core.market import MarketState
from mmd.core.orders import Amending, Cancelling, Empty, Live, Placing, Unknown
from mmd.core.own import OwnOrders, SideState
from mmd.core.pnl import Cost, Execution, Position
from mmd.core.portfolio import PortfolioMachine
from mmd.core.quoting import Wanted, Withheld
from mmd.core.rules import Rules
from mmd.core.symbol import Closing, Difference, Latch
from mmd.core.totals import Share
from mmd.core.volatility import Volatility
from mmd.core.window import PriceRange, Window
from mmd.domain import reasons, settings
from mmd.domain.errors import MmdError
from mmd.domain.events import BookTop, GateRefused, TradePrinted
from mmd.domain.instruments import Contract, Instrument, Kind
from mmd.domain.totals import LossLimits, TripSwitch
from mmd.domain.units import Grid, GridStep

FORMAT = 1
Machine = SymbolMachine | PortfolioMachine

MACHINES: tuple[type, ...] = (SymbolMachine, PortfolioMachine)
OBJECTS: tuple[type, ...] = (
    *MACHINES,
    Account,
    Holdings,
    Imagined,
    Ledger,
    Losses,
    MarketState,
    OwnOrders,
    Position,
    PriceRange,
    Share,
    SideState,
    Sources,
    Volatility,
    Window,
)
"""They change: who holds the same one before holds the same one after."""
STRUCTS: tuple[type[msgspec.Struct], ...] = (
    Amending,
    BookTop,
    Cancelling,
    Closing,
    Cost,
    Difference,
    Latch,
    Empty,
    Execution,
    GateRefused,
    Grid,
    GridStep,
    Instrument,
    Live,
    LossLimits,
    Placing,
    Rules,
    Touch,
    TradePrinted,
    TripSwitch,
    Unknown,
    Wanted,
    Withheld,
    settings.DataRules,
    settings.KillSwitches,
    settings.PortfolioLimits,
    settings.Profile,
    settings.ScopeLimits,
    settings.SymbolLimits,
    settings.SymbolSettings,
    settings.VolatilityWidth,
)
"""Frozen values: who holds the same one does not matter."""
ENUMS: tuple[type[Enum], ...] = (
    Contract,
    Kind,
    reasons.CaseKind,
    reasons.Missing,
    reasons.Mode,
    reasons.Phase,
    reasons.Response,
    reasons.Rule,
    reasons.Scope,
    reasons.Side,
    reasons.State,
    reasons.Switch,
    reasons.Why,
    settings.Fair,
    settings.Requote,
    settings.Style,
)
MADE_ANEW: dict[type, dict[str, Callable[[], object]]] = {
    SymbolMachine: {"_out": list},  # the actions of the last batch: they are out of the house
    MarketState: {"_vol_key": lambda: (0, 0.0), "_vol_collar": lambda: (0.0, 0.0)},  # a cache for the gate
    PortfolioMachine: {"_rooms": list},  # made from limits and shares at the next division
    Share: {"rooms": list},
}
"""Fields that are not saved, and what they begin with. `handle` never decides by what they held before; and
a look from outside may fill them, which must not make two equal machines differ."""


class CannotLoad(MmdError):
    """A saved state that does not fit this program; says what and where. Nothing was changed."""


# --- the register ---------------------------------------------------------------------------------


def samples() -> tuple[Machine, ...]:
    """Machines without a history: what a class without slots has is what its `__init__` sets."""
    tick = Grid(Decimal(1))
    instrument = Instrument(
        exchange="x",
        symbol="x",
        kind=Kind.PERPETUAL,
        contract=Contract.LINEAR,
        base="x",
        quote="x",
        settlement="x",
        index="x",
        grid=tick,
        lot=Decimal(1),
        min_lots=1,
        contract_size=Decimal(1),
    )
    given = settings.SymbolSettings(
        service="x",
        mode=reasons.Mode.SHADOW,
        profile=settings.Profile(name="x", size=Decimal(1)),
        limits=settings.SymbolLimits(max_position=Decimal(1), max_order_size=Decimal(1), collar_bps=1.0),
        data=settings.DataRules(),
    )
    totals = settings.PortfolioLimits(max_exposure={}, max_notional_usd=Decimal(1), max_drawdown_usd=Decimal(1))
    return SymbolMachine(instrument, given, "0", 0), PortfolioMachine(totals, settings.KillSwitches(), 0)


def all_fields(cls: type, like: dict[type, object]) -> tuple[str, ...]:
    """Names of what an instance holds, base classes first."""
    if issubclass(cls, msgspec.Struct):
        return cls.__struct_fields__
    slots = [name for base in reversed(cls.__mro__) for name in vars(base).get("__slots__", ())]
    return (*slots, *(vars(like[cls]) if cls in like else ()))


def saved_fields() -> dict[type, tuple[str, ...]]:
    """By class: what of it is saved."""
    like: dict[type, object] = {type(each): each for each in samples()}
    return {
        cls: tuple(name for name in all_fields(cls, like) if name not in MADE_ANEW.get(cls, {}))
        for cls in (*OBJECTS, *STRUCTS)
    }


def fingerprint() -> str:
    """Of the register: two programs with the same one read each other's states."""
    lines = [f"{cls.__name__}({','.join(names)})" for cls, names in FIELDS.items()]
    lines += [f"enum {cls.__name__}" for cls in ENUMS]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


FIELDS = saved_fields()
CLASSES: dict[str, type] = {cls.__name__: cls for cls in FIELDS}
MEMBERS: dict[str, dict[object, Enum]] = {cls.__name__: {each.value: each for each in cls} for cls in ENUMS}
CODE = fingerprint()
assert len({*CLASSES, *MEMBERS}) == len(OBJECTS) + len(STRUCTS) + len(ENUMS), "two classes of one name"

AS_IT_IS = frozenset({str, int, bool, NoneType})
MUTABLE = frozenset(OBJECTS)
WITH_DICT = frozenset(MACHINES)
KINDS = frozenset(ENUMS)
encode = msgspec.json.Encoder().encode


# --- out ------------------------------------------------------------------------------------------


class Writer:
    """Values to what JSON knows; one for each document."""

    def __init__(self) -> None:
        self.instruments: list[Any] = []
        self._known: dict[int, int] = {}  # an instrument's address: its place in the table
        self._places: dict[bytes, int] = {}  # its text: the same
        self._objects: dict[int, dict[str, Any]] = {}  # an object's address: what became of it
        self._shared = 0

    def write(self, value: Any) -> Any:
        kind = type(value)
        if kind in AS_IT_IS:
            return value
        if kind is float:
            return value if math.isfinite(value) else ["float", repr(value)]
        if kind is Decimal:
            return ["decimal", str(value)]
        if kind in KINDS:
            return [kind.__name__, value.value]
        if kind is tuple:
            return ["tuple", *map(self.write, value)]
        if kind is Instrument:
            return ["instrument", self._instrument(value)]
        fields = FIELDS.get(kind)
        if fields is None:
            return self._container(kind, value)
        if kind in MUTABLE:
            return self._object(kind, fields, value)
        node = {"@": kind.__name__}
        for name in fields:
            node[name] = self.write(getattr(value, name))
        return node

    def _object(self, kind: type, fields: tuple[str, ...], value: Any) -> Any:
        """One that is met again gets a number."""
        before = self._objects.get(id(value))
        if before is not None:
            if "#" not in before:
                before["#"] = self._shared
                self._shared += 1
            return ["same", before["#"]]
        if kind in WITH_DICT and len(vars(value)) != len(fields) + len(MADE_ANEW.get(kind, {})):
            raise TypeError(f"{kind.__name__} has other attributes than `__init__` gave it: {sorted(vars(value))}")
        node = self._objects[id(value)] = {"@": kind.__name__}
        for name in fields:
            node[name] = self.write(getattr(value, name))
        return node

    def _instrument(self, value: Instrument) -> int:
        """Its place in the table; equal ones, to the last digit, have one."""
        place = self._known.get(id(value))
        if place is None:
            node = {"@": "Instrument"} | {name: self.write(getattr(value, name)) for name in FIELDS[Instrument]}
            place = self._places.setdefault(encode(node), len(self.instruments))
            if place == len(self.instruments):
                self.instruments.append(node)
            self._known[id(value)] = place
        return place

    def _container(self, kind: type, value: Any) -> list[Any]:
        if kind is dict:
            return self._dict(value)
        if kind is list:
            return ["list", *map(self.write, value)]
        if kind is deque:
            return ["deque", value.maxlen, *map(self.write, value)]
        if kind is set or kind is frozenset:
            return [kind.__name__, *sorted(map(self.write, value), key=encode)]
        raise TypeError(f"{kind.__module__}.{kind.__qualname__} is not listed in mmd.replay.memory")

    def _dict(self, value: dict[Any, Any]) -> list[Any]:
        """In order. Thousands of entries take no step of Python each."""
        if not set(map(type, value)) <= {str}:
            return ["dict", *([self.write(key), self.write(each)] for key, each in value.items())]
        kinds = set(map(type, value.values()))
        if kinds <= AS_IT_IS:
            return ["map", value]
        if kinds == {tuple}:
            inside = set(map(type, chain.from_iterable(value.values())))
            # Equal tuples of one enum are the same; of numbers, 1 and 1.0 and True would be equal too.
            if len(inside) == 1 and inside <= KINDS:
                places = {each: place for place, each in enumerate(dict.fromkeys(value.values()))}
                which = list(map(places.__getitem__, value.values()))
                return ["columns", list(value), list(map(self.write, places)), which]
        return ["map", {key: self.write(each) for key, each in value.items()}]


# --- in -------------------------------------------------------------------------------------------


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The outermost level."""

    format: int
    code: str
    instruments: list[Any]
    machine: Any


def parse(data: bytes) -> Document:
    """CannotLoad where it is no saved state at all."""
    try:
        document = msgspec.json.decode(data, type=Document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CannotLoad(f"no saved state: {error}") from error
    if document.format != FORMAT:
        raise CannotLoad(f"format {document.format}, this version reads {FORMAT}")
    return document


class Misfit(Exception):
    """A part that cannot be read; the reader's path says which."""


def clipped(node: Any) -> str:
    """The beginning of a part, for people."""
    return encode(node)[:80].decode(errors="replace")


class Reader:
    """What JSON knows to values, every part as it was written or not at all."""

    def __init__(self, document: Document) -> None:
        self.path: list[str] = []
        self._shared: dict[int, Any] = {}
        self._instruments: list[Any] = []
        self._instruments = [self.guarded(node) for node in document.instruments]

    def guarded(self, node: Any) -> Any:
        """As `read`, for callers who have no way on. CannotLoad."""
        try:
            return self.read(node)
        except Misfit as error:
            raise CannotLoad(f"{self.where}: {error}") from error
        except RecursionError as error:
            raise CannotLoad("nested too deeply") from error

    @property
    def where(self) -> str:
        return ".".join(self.path) or "state"

    def read(self, node: Any) -> Any:
        """Misfit where it cannot be."""
        kind = type(node)
        if kind is list:
            return self._tagged(node)
        if kind is dict:
            name = node.get("@")
            cls = CLASSES.get(name) if type(name) is str else None
            if cls is None:
                raise Misfit(f"class {name!r} is not known here")
            return self._value(cls, node) if issubclass(cls, msgspec.Struct) else self._object(cls, node)
        return node

    def _tagged(self, node: list[Any]) -> Any:
        try:
            tag = node[0]
            members = MEMBERS.get(tag)
            if members is not None:
                return members[node[1]]
            return READERS[tag](self, node)
        except (LookupError, TypeError, ValueError, ArithmeticError) as error:
            raise Misfit(f"{clipped(node)} cannot be read") from error

    def _fields(self, cls: type, node: dict[str, Any]) -> dict[str, Any]:
        names = FIELDS[cls]
        if len(names) != len(node) - 1 - ("#" in node) or not all(name in node for name in names):
            found = node.keys() - {"@", "#"}
            missing, more = sorted(set(names) - found), sorted(found - set(names))
            raise Misfit(f"{cls.__name__} without {missing or 'nothing missing'}, with {more or 'nothing more'}")
        path, values = self.path, {}
        for name in names:
            path.append(name)
            values[name] = self.read(node[name])
            path.pop()
        return values

    def _value(self, cls: type, node: dict[str, Any]) -> Any:
        return cls(**self._fields(cls, node))

    def _object(self, cls: type, node: dict[str, Any]) -> Any:
        made: Any = object.__new__(cls)
        if "#" in node:
            self._share(node["#"], made)
        for name, value in self._fields(cls, node).items():
            setattr(made, name, value)
        for name, fresh in MADE_ANEW.get(cls, {}).items():
            setattr(made, name, fresh())
        return made

    def _share(self, number: Any, made: Any) -> None:
        if type(number) is not int or number in self._shared:
            raise Misfit(f"{number!r} is no number of an object")
        self._shared[number] = made

    def _map(self, node: list[Any]) -> dict[str, Any]:
        entries: dict[str, Any] = node[1]
        if type(entries) is not dict:
            raise ValueError("a map holds an object")
        if set(map(type, entries.values())) <= AS_IT_IS:
            return entries
        return {key: self.read(each) for key, each in entries.items()}

    def _columns(self, node: list[Any]) -> dict[str, Any]:
        _, keys, values, which = node
        different = list(map(self.read, values))
        return dict(zip(keys, map(different.__getitem__, which), strict=True))

    def _deque(self, node: list[Any]) -> deque[Any]:
        return deque(map(self.read, node[2:]), node[1])

    def _same(self, node: list[Any]) -> Any:
        return self._shared[node[1]]

    def _instrument(self, node: list[Any]) -> Any:
        return self._instruments[node[1]]


READERS: dict[str, Callable[[Reader, list[Any]], Any]] = {
    "float": lambda reader, node: float(node[1]),
    "decimal": lambda reader, node: Decimal(node[1]),
    "tuple": lambda reader, node: tuple(map(reader.read, node[1:])),
    "list": lambda reader, node: list(map(reader.read, node[1:])),
    "set": lambda reader, node: set(map(reader.read, node[1:])),
    "frozenset": lambda reader, node: frozenset(map(reader.read, node[1:])),
    "dict": lambda reader, node: {reader.read(key): reader.read(value) for key, value in node[1:]},
    "map": Reader._map,
    "columns": Reader._columns,
    "deque": Reader._deque,
    "same": Reader._same,
    "instrument": Reader._instrument,
}
