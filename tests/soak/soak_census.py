"""What a daemon holds: every collection reachable from it, by owner and name, and how many objects there are.

The walk goes through attributes of our own classes and through what collections contain. It stops at the
sandbox, which is the other party. Objects are those of the whole process: the sandbox, trio and the caches of
Python's own modules are in it, and so their bounds are in `soak_bounds` as well.
"""

import ctypes
import gc
import re
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from types import BuiltinMethodType, FunctionType, MethodType, ModuleType
from typing import Any

import msgspec
import trio

COLLECTIONS = (dict, list, set, deque, bytearray)
PAGE_BYTES = 4096
CACHE = type(lru_cache(int))


class Size(msgspec.Struct):
    """Of all collections of one name: entries in the fullest, and in all of them together."""

    most: int = 0
    total: int = 0


def collections_of(root: object) -> dict[str, Size]:
    """Sizes by `Class.attribute`, of whatever hangs on `root`."""
    found: dict[str, Size] = {}
    seen: set[int] = set()
    todo: list[object] = [root]
    while todo:
        owner = todo.pop()
        if id(owner) in seen:
            continue
        seen.add(id(owner))
        for name, value in attributes(owner):
            _look(f"{type(owner).__name__}.{name}", value, found, seen, todo)
    return found


def _look(name: str, value: Any, found: dict[str, Size], seen: set[int], todo: list[object]) -> None:
    """Count a collection and go on with what is in it; collections in collections count under the same name."""
    if isinstance(value, COLLECTIONS):
        if id(value) in seen:
            return
        seen.add(id(value))
        size = found.setdefault(name, Size())
        size.most, size.total = max(size.most, len(value)), size.total + len(value)
        if not isinstance(value, bytearray):
            for inner in list(value.values()) if isinstance(value, dict) else list(value):
                _look(f"{name}[]", inner, found, seen, todo)
    elif isinstance(value, tuple):
        for inner in value:
            _look(f"{name}[]", inner, found, seen, todo)
    elif isinstance(value, MethodType):
        todo.append(value.__self__)
    elif isinstance(value, partial):
        todo.extend(part for part in value.args if is_ours(part))
    elif isinstance(value, FunctionType) and value.__closure__:
        todo.extend(cell.cell_contents for cell in value.__closure__ if is_ours(cell.cell_contents))
    elif is_ours(value):
        todo.append(value)


def is_ours(value: object) -> bool:
    """An instance of a class of the daemon's."""
    room = type(value).__module__
    if isinstance(value, type | ModuleType | FunctionType | BuiltinMethodType):
        return False
    return room.startswith("mmd.") and not room.startswith("mmd.sandbox")


def attributes(owner: object) -> Iterator[tuple[str, Any]]:
    """Of an instance, whether they lie in a dict, in slots or in a struct."""
    names = dict.fromkeys(getattr(owner, "__dict__", {}))
    for cls in type(owner).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        names |= dict.fromkeys([slots] if isinstance(slots, str) else slots)
    names |= dict.fromkeys(getattr(type(owner), "__struct_fields__", ()))
    for name in names:
        if name not in ("__dict__", "__weakref__"):
            value = getattr(owner, name, None)
            if value is not None:
                yield name, value


def rss_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def blocks() -> int:
    """Objects that Python's allocator holds, whoever owns them."""
    return sys.getallocatedblocks()


MALLINFO = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class MallInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc 2.33 and later."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in MALLINFO)


def heap_bytes() -> int:
    """What malloc has given out, to Python for large objects and to libraries; 0 where it does not say."""
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if ask is None:
        return 0
    ask.restype = MallInfo
    found = ask()
    return int(found.uordblks + found.hblkhd)


def empty_caches() -> None:
    """Of functions, where they have a bound, and of regular expressions: they take days to fill."""
    re.purge()
    for each in gc.get_objects():
        if isinstance(each, CACHE) and each.cache_parameters()["maxsize"] is not None:
            each.cache_clear()


def tracked_by_owner() -> Mapping[str, int]:
    """Objects under the garbage collector's eye: the daemon's, the sandbox's, everybody else's."""
    counts = {"daemon": 0, "sandbox": 0, "other": 0}
    for each in gc.get_objects():
        room = type(each).__module__
        if not isinstance(room, str) or not room.startswith("mmd."):
            counts["other"] += 1
        else:
            counts["sandbox" if room.startswith("mmd.sandbox") else "daemon"] += 1
    return counts


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living
