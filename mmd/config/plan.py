"""The difference of two configurations as a Plan: every changed key with its effect, every symbol touched.

Effects, from the schema's `x-reload`: `live` takes effect at once, `requote` moves or resizes
orders, `drain` pulls the orders of the symbols first, `restart` needs a new process and so
refuses the whole reload. Symbols that did not change keep their orders.
"""

from enum import StrEnum
from typing import Any

import msgspec

from mmd.config.limits import LAYERS
from mmd.config.model import Config, Entry, Named
from mmd.config.nodes import Step, join
from mmd.config.render import scalar
from mmd.config.schema import reload_effect
from mmd.config.select import Resolution, Resolved


class Effect(StrEnum):
    LIVE = "live"
    REQUOTE = "requote"
    DRAIN = "drain"
    RESTART = "restart"


class PlanLine(msgspec.Struct, frozen=True, kw_only=True):
    """One changed key; None for old or new where there was, or will be, nothing."""

    path: str
    effect: Effect
    old: str | None
    new: str | None
    symbols: list[str]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Symbols are instrument keys. `changed` ones get new settings; `unchanged` ones keep all they have."""

    lines: list[PlanLine]
    added: list[str]
    removed: list[str]
    changed: list[str]
    unchanged: list[str]

    @property
    def restart(self) -> list[str]:
        """Paths that only a new process can take over."""
        return [line.path for line in self.lines if line.effect is Effect.RESTART]

    @property
    def refusal(self) -> str | None:
        """Why this plan cannot be applied by a reload, None if it can."""
        if not self.restart:
            return None
        return f"nothing was applied: {', '.join(self.restart)} can only change with a restart of the daemon"

    @property
    def is_empty(self) -> bool:
        return not (self.lines or self.added or self.removed or self.changed)


def diff(old: Config, old_resolution: Resolution, new: Config, new_resolution: Resolution) -> Plan:
    """What a reload from `old` to `new` would do."""
    before, after = old_resolution.symbols, new_resolution.symbols
    added = [key for key in after if key not in before]
    removed = [key for key in before if key not in after]
    both = [key for key in after if key in before]
    changed = [key for key in both if _without_places(before[key]) != _without_places(after[key])]
    touched = _Touched(old, old_resolution, new, new_resolution, set(changed))
    lines: list[PlanLine] = []
    top = [*new.effective, *(key for key in old.effective if key not in new.effective)]
    for key in top:
        if key != "instruments":
            lines += _value_lines([key], old.effective.get(key), new.effective.get(key), touched)
    lines += _entry_lines(old, new, touched, added, removed)
    return Plan(
        lines=lines,
        added=added,
        removed=removed,
        changed=changed,
        unchanged=[key for key in both if key not in set(changed)],
    )


def _without_places(resolved: Resolved) -> object:
    """What makes a symbol another one: not the line that a limit stands at, nor the entry's place in the list."""
    return resolved.instrument, msgspec.structs.replace(resolved.settings, sources={})


class _Touched:
    """Which symbols a key is about."""

    def __init__(
        self, old: Config, old_resolution: Resolution, new: Config, new_resolution: Resolution, changed: set[str]
    ) -> None:
        self.changed = [key for key in new_resolution.symbols if key in changed]
        self.old = _by_entry(old_resolution)
        self.new = _by_entry(new_resolution)
        self.spreads = {entry.path: entry.spread for entry in new.entries}
        found = [*old_resolution.symbols.items(), *new_resolution.symbols.items()]
        self.kinds = {key: each.instrument.kind for key, each in found}
        self.protected = sorted({key for key, each in found if each.settings.protected})
        self.old_exchanges = {key: found.instrument.exchange for key, found in old_resolution.symbols.items()}

    def by(self, path: list[Step]) -> list[str]:
        match path:
            case ["exchanges", str() as name, "maker_protection", *_]:
                return [key for key in self.protected if key.startswith(f"{name}/")]
            case ["exchanges", str(), "reaper_credentials" | "reaper_session_key", *_]:
                return []
            case ["exchanges", str() as name, *_]:
                return [key for key, exchange in self.old_exchanges.items() if exchange == name]
            case ["spreads", str() as name, *_]:
                using = [key for path, keys in self.new.items() if self.spreads[path] == name for key in keys]
                return [key for key in self.changed if key in set(using)]
            case ["limits", "per_kind", str() as layer, *_]:
                return [key for key in self.changed if layer in LAYERS[self.kinds[key]]]
            case ["service", "mode"] | ["market_data" | "kill_switches", *_] | ["limits", "per_symbol" | "allowed", *_]:
                return list(self.changed)
            case ["reconciliation", "average_tolerance_bps"]:
                return list(self.changed)
        return []


def _by_entry(resolution: Resolution) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, resolved in resolution.symbols.items():
        found.setdefault(resolved.entry, []).append(key)
    return found


def _value_lines(path: list[Step], old: Any, new: Any, touched: _Touched) -> list[PlanLine]:
    """One line for each leaf that differs; lists and secrets' sources are compared whole."""
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict) and not _is_secret(old, new):
        lines = []
        for key in [*new, *(key for key in old if key not in new)]:
            lines += _value_lines([*path, key], old.get(key), new.get(key), touched)
        return lines
    line = PlanLine(
        path=_shown(path),
        effect=_effect(path, old, new),
        old=None if old is None else scalar(old),
        new=None if new is None else scalar(new),
        symbols=touched.by(path),
    )
    return [line]


def _effect(path: list[Step], old: Any, new: Any) -> Effect:
    """A profile that comes or goes is nothing by itself: the symbols that use it have their own lines."""
    if path[0] == "spreads" and len(path) == 2 and (old is None or new is None):
        return Effect.LIVE
    return Effect(reload_effect(path))


def _is_secret(old: dict[str, Any], new: dict[str, Any]) -> bool:
    sources = {"credential", "file", "env"}
    return len(old) == 1 and len(new) == 1 and set(old) | set(new) <= sources


def _shown(path: list[Step]) -> str:
    text = ""
    for step in path:
        text = join(text, step)
    return text


def _identity(entry: Entry) -> object:
    """What makes two entries the same one although it moved in the list."""
    return entry.target


def _entry_lines(old: Config, new: Config, touched: _Touched, added: list[str], removed: list[str]) -> list[PlanLine]:
    """Entries are matched by what they quote, not by their place in the list."""
    waiting: dict[object, list[Entry]] = {}
    for entry in old.entries:
        waiting.setdefault(_identity(entry), []).append(entry)
    lines: list[PlanLine] = []
    for entry in new.entries:
        same = waiting.get(_identity(entry))
        symbols = touched.new.get(entry.path, [])
        if not same:
            lines.append(
                PlanLine(path=entry.path, effect=Effect.LIVE, old=None, new=_target_text(entry), symbols=symbols)
            )
            continue
        before = same.pop(0)
        lines += _changed_entry_lines(old, before, new, entry, touched)
        lines += _moved_lines(entry, touched.old.get(before.path, []), symbols, added, removed)
    for left in waiting.values():
        for entry in left:
            symbols = touched.old.get(entry.path, [])
            lines.append(
                PlanLine(path=entry.path, effect=Effect.DRAIN, old=_target_text(entry), new=None, symbols=symbols)
            )
    return lines


def _changed_entry_lines(old: Config, before: Entry, new: Config, after: Entry, touched: _Touched) -> list[PlanLine]:
    """The keys of one entry that differ; paths are those of the new file."""
    was, now = _content(old, before), _content(new, after)
    symbols = [key for key in touched.changed if key in set(touched.new.get(after.path, []))]
    lines = []
    for key in [*now, *(key for key in was if key not in now)]:
        path: list[Step] = ["instruments", after.index, key]
        for line in _value_lines(path, was.get(key), now.get(key), touched):
            lines.append(msgspec.structs.replace(line, symbols=symbols))
    return lines


def _moved_lines(entry: Entry, was: list[str], now: list[str], added: list[str], removed: list[str]) -> list[PlanLine]:
    """A selection that finds other instruments than before, though its words are the same.

    What is named and has expired is said by whoever knows when.
    """
    if isinstance(entry.target, Named):
        return []
    came = [key for key in now if key in set(added)]
    went = [key for key in was if key in set(removed)]
    lines = []
    path = f"{entry.path}.select"
    if came:
        lines.append(PlanLine(path=path, effect=Effect.LIVE, old=None, new="now selected", symbols=came))
    if went:
        lines.append(PlanLine(path=path, effect=Effect.DRAIN, old="no longer selected", new=None, symbols=went))
    return lines


def _content(config: Config, entry: Entry) -> dict[str, Any]:
    """The entry as written, without the words that make up its identity."""
    raw: dict[str, Any] = config.effective["instruments"][entry.index]
    return {key: value for key, value in raw.items() if key not in ("exchange", "symbol", "select")}


def _target_text(entry: Entry) -> str:
    if isinstance(entry.target, Named):
        return f"{entry.target.exchange}/{entry.target.symbol}"
    return f"selection of {entry.target.underlying} on {entry.target.exchange}"
