"""Entries of the configuration to instruments of the exchanges: named ones looked up, selections resolved.

Pure: what is listed, the index prices and the time come in. Everything that does not fit an
instrument is reported at once, with its place in the file.
"""

import difflib
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from types import MappingProxyType

import msgspec

from mmd.config.limits import narrowed, symbol_limits
from mmd.config.model import (
    AllExpiries,
    AllStrikes,
    Config,
    Entry,
    Expiries,
    Named,
    NearestExpiries,
    NearestToMoney,
    Selection,
    WithinDays,
)
from mmd.config.nodes import Finding
from mmd.domain.errors import ConfigError
from mmd.domain.instruments import Instrument, Kind
from mmd.domain.settings import SymbolSettings

NS_PER_SECOND = 1_000_000_000
NS_PER_DAY = 86_400 * NS_PER_SECOND
SHOWN_MAX = 12

Listed = Mapping[str, Mapping[str, Instrument]]
"""Exchange name to symbol to instrument."""

IndexPrices = Mapping[tuple[str, str], float]
"""(exchange name, coin) to USD."""

Ended = Mapping[tuple[str, str], int]
"""(exchange name, symbol) of what is named, was listed and is no more: when it expired, Unix ns."""

NONE_ENDED: Ended = MappingProxyType({})


class Resolved(msgspec.Struct, frozen=True):
    """One symbol that is to be quoted, its limits final; `entry` is the path of what asked for it."""

    instrument: Instrument
    settings: SymbolSettings
    entry: str


class Expired(msgspec.Struct, frozen=True):
    """An instrument that is named and has expired; `entry` is the path of what names it."""

    exchange: str
    symbol: str
    expiry_ns: int
    entry: str

    def __str__(self) -> str:
        return f"{self.entry}.symbol: {self.symbol} expired on {_day(self.expiry_ns)}: left out"


class Resolution(msgspec.Struct, frozen=True):
    """By instrument key, entries in file order, symbols of a selection by kind, expiry and strike.

    `expired`, by key too: what is left out because its time is over. `notes` tells of that as well.
    `awaited`: entries whose exchange has not said what it lists.
    """

    symbols: dict[str, Resolved]
    notes: list[str]
    expired: dict[str, Expired] = {}
    awaited: tuple[Entry, ...] = ()

    def completed(self, part: "Resolution", exchange: str) -> "Resolution":
        """With what an awaited exchange has turned out to list; `part` is about its entries alone."""
        awaited = tuple(entry for entry in self.awaited if entry.target.exchange != exchange)
        symbols, expired = self.symbols | part.symbols, self.expired | part.expired
        return Resolution(symbols, [*self.notes, *part.notes], expired, awaited)


def resolve(
    config: Config, listed: Listed, index_prices: IndexPrices, now_ns: int, ended: Ended = NONE_ENDED
) -> Resolution:
    """Every symbol to quote. Raises ConfigError with one line for each thing that does not fit.

    Entries of an exchange that is not in `listed` are awaited: nothing is said of them.
    What has expired is left out with a note: a configuration does not become wrong by the passing of time.
    A name that is neither listed nor `ended` does not fit.
    """
    work = _Work(config, listed, index_prices, now_ns, ended)
    found = [(entry, work.find(entry)) for entry in config.entries if entry.target.exchange in listed]
    named = {
        instrument.key: entry.path
        for entry, instruments in found
        if isinstance(entry.target, Named)
        for instrument in instruments
    }
    symbols: dict[str, Resolved] = {}
    for entry, instruments in found:
        kept = [
            instrument
            for instrument in instruments
            if isinstance(entry.target, Named) or not work.taken(entry, instrument, named, symbols)
        ]
        settings = {instrument.key: work.settings(entry, instrument) for instrument in kept}
        work.check_fit(entry, kept, settings)
        work.note_limits(entry, kept, settings)
        for instrument in kept:
            symbols[instrument.key] = Resolved(instrument, settings[instrument.key], entry.path)
    if work.findings:
        raise ConfigError([str(finding) for finding in sorted(set(work.findings))])
    awaited = tuple(entry for entry in config.entries if entry.target.exchange not in listed)
    return Resolution(symbols, work.notes, work.expired, awaited)


def expiry_day(instrument: Instrument) -> date | None:
    """The day (UTC) on which it expires."""
    return None if instrument.expiry_ns is None else _day(instrument.expiry_ns)


def _day(at_ns: int) -> date:
    return datetime.fromtimestamp(at_ns // NS_PER_SECOND, UTC).date()


def is_allowed(patterns: tuple[str, ...] | None, exchange: str, symbol: str) -> bool:
    """Whether `limits.allowed` names an instrument: by name, by pattern, or with the exchange before it."""
    if patterns is None:
        return True
    return any(fnmatchcase(symbol, pattern) or fnmatchcase(f"{exchange}/{symbol}", pattern) for pattern in patterns)


class _Work:
    """One resolution under way: the inputs, and what was found wrong so far."""

    def __init__(self, config: Config, listed: Listed, index_prices: IndexPrices, now_ns: int, ended: Ended) -> None:
        self.config = config
        self.listed = listed
        self.index_prices = index_prices
        self.now_ns = now_ns
        self.ended = ended
        self.expired: dict[str, Expired] = {}
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        self._settings: dict[tuple[str, Kind, bool, bool], SymbolSettings] = {}
        self._too_wide: dict[tuple[str, Kind], list[str]] = {}

    def wrong(self, path: str, text: str) -> None:
        self.findings.append(Finding(self.config.where(path), path, text))

    def find(self, entry: Entry) -> list[Instrument]:
        """What the entry asks for; nothing, and a finding, where it cannot be had."""
        if isinstance(entry.target, Named):
            return self.look_up(entry, entry.target)
        return self.select(entry, entry.target)

    def look_up(self, entry: Entry, target: Named) -> list[Instrument]:
        path = f"{entry.path}.symbol"
        known = self.listed.get(target.exchange, {})
        instrument = known.get(target.symbol)
        ended_ns = self.ended.get((target.exchange, target.symbol))
        if instrument is not None and instrument.expiry_ns is not None and instrument.expiry_ns <= self.now_ns:
            ended_ns = instrument.expiry_ns
        if ended_ns is not None:
            gone = Expired(target.exchange, target.symbol, ended_ns, entry.path)
            self.expired[f"{target.exchange}/{target.symbol}"] = gone
            self.notes.append(str(gone))
            return []
        if instrument is None:
            close = difflib.get_close_matches(target.symbol.upper(), known, n=3)
            hint = f"; close to it: {', '.join(close)}" if close else f"; it lists {len(known)} instruments"
            self.wrong(path, f"{target.exchange} lists no {target.symbol}{hint}")
            return []
        if not instrument.tradable:
            self.notes.append(f"{entry.path}: {instrument.key} takes no orders at the exchange now")
        return [instrument]

    def taken(
        self, entry: Entry, instrument: Instrument, named: Mapping[str, str], symbols: Mapping[str, Resolved]
    ) -> bool:
        """Whether another entry has this symbol: one that names it wins, a second selection is refused."""
        key = instrument.key
        if key in named:
            self.notes.append(f"{entry.path}: {key} is quoted as {named[key]} says, which names it")
            return True
        if key in symbols:
            text = (
                f"finds {instrument.symbol}, which {symbols[key].entry} finds too; allowed: one entry for each symbol"
            )
            self.wrong(f"{entry.path}.select", text)
            return True
        return False

    # --- selections ------------------------------------------------------------------------------

    def select(self, entry: Entry, target: Selection) -> list[Instrument]:
        path = f"{entry.path}.select"
        alive = [
            instrument
            for instrument in self.listed.get(target.exchange, {}).values()
            if instrument.base == target.underlying
            and instrument.kind in target.kinds
            and (instrument.expiry_ns is None or instrument.expiry_ns > self.now_ns)
        ]
        matching = [instrument for instrument in alive if instrument.contract is target.contract]
        if not matching:
            others = sorted({str(instrument.contract) for instrument in alive})
            kinds = ", ".join(target.kinds)
            hint = f"; there are {others[0]} ones: write contract: {others[0]}" if others else ""
            self.wrong(path, f"{target.exchange} lists no {target.contract} {kinds} of {target.underlying}{hint}")
            return []
        dated = [instrument for instrument in matching if instrument.expiry_ns is not None]
        days = self.expiry_days(path, target.expiries, dated)
        within = [instrument for instrument in matching if expiry_day(instrument) in {None, *days}]
        options = [instrument for instrument in within if instrument.is_option]
        strikes = self.strikes(path, target, options)
        chosen = [i for i in within if not i.is_option or (expiry_day(i), i.strike) in strikes]
        closed = [instrument.symbol for instrument in chosen if not instrument.tradable]
        if closed:
            self.notes.append(f"{entry.path}: left out, no orders taken there now: {_listing(closed)}")
        kept = [instrument for instrument in chosen if instrument.tradable]
        if not kept and not self.findings and not self.is_over(target.expiries):
            self.wrong(path, "selects nothing that takes orders now")
        return sorted(kept, key=_order)

    def expiry_days(self, path: str, wanted: Expiries, dated: list[Instrument]) -> set[date]:
        """The days that are meant, of those listed."""
        listed = sorted({day for instrument in dated if (day := expiry_day(instrument)) is not None})
        match wanted:
            case AllExpiries():
                return set(listed)
            case NearestExpiries(count=count):
                if count > len(listed):
                    self.notes.append(f"{path}: {count} expiries are asked for, {len(listed)} listed")
                return set(listed[:count])
            case WithinDays(days=days):
                end_ns = self.now_ns + int(days * NS_PER_DAY)
                found = {
                    day
                    for instrument in dated
                    if (instrument.expiry_ns or 0) <= end_ns and (day := expiry_day(instrument)) is not None
                }
                if not found:
                    self.wrong(f"{path}.expiries", f"nothing expires within {days} days; listed: {_listing(listed)}")
                return found
        for day in wanted:
            if day in listed:
                continue
            key = "expiry" if f"{path}.expiry" in self.config.origins else "expiries"
            if day <= self.today:
                self.notes.append(f"{path}.{key}: what expired on {day} is left out")
            else:
                self.wrong(f"{path}.{key}", f"nothing expires on {day}; listed: {_listing(listed)}")
        return set(wanted)

    @property
    def today(self) -> date:
        return _day(self.now_ns)

    def is_over(self, wanted: Expiries) -> bool:
        """Whether these are days, and none of them is to come."""
        return isinstance(wanted, tuple) and bool(wanted) and max(wanted) <= self.today

    def strikes(
        self, path: str, target: Selection, options: list[Instrument]
    ) -> set[tuple[date | None, Decimal | None]]:
        """(day, strike) pairs that are meant, of those listed."""
        by_day: dict[date | None, set[Decimal]] = {}
        for option in options:
            if option.strike is not None:
                by_day.setdefault(expiry_day(option), set()).add(option.strike)
        match target.strikes:
            case AllStrikes():
                return {(day, strike) for day, strikes in by_day.items() for strike in strikes}
            case NearestToMoney() if not by_day:
                return set()
            case NearestToMoney(count=count):
                index = self.index_prices.get((target.exchange, target.underlying), 0.0)
                if not index > 0:
                    text = f"no index price of {target.underlying} is known, so nothing is near the money"
                    self.wrong(f"{path}.strikes", f"{text}; allowed: a list of strikes or all")
                    return set()
                return {
                    (day, strike)
                    for day, strikes in by_day.items()
                    for strike in sorted(strikes, key=lambda each: (abs(float(each) - index), each))[:count]
                }
        available = set().union(*by_day.values())
        for strike in target.strikes if by_day else ():
            lacking = [str(day) for day in sorted(by_day, key=str) if strike not in by_day[day]]
            if strike not in available:
                nearest = sorted(available, key=lambda each: (abs(each - strike), each))[:6]
                self.wrong(f"{path}.strikes", f"no strike {strike} is listed; the nearest: {_listing(sorted(nearest))}")
            elif lacking:
                self.notes.append(f"{path}: strike {strike} is not listed for {_listing(lacking)}")
        return {(day, strike) for day, strikes in by_day.items() for strike in strikes & set(target.strikes)}

    # --- the settings of each symbol -----------------------------------------------------------------

    def settings(self, entry: Entry, instrument: Instrument) -> SymbolSettings:
        """The entry's settings with the limits of this instrument's kind; one value for all symbols alike."""
        config = self.config
        exchange = config.exchanges[instrument.exchange]
        protected = any(each.underlying == instrument.base for each in exchange.protections)
        allowed = is_allowed(config.allowed, instrument.exchange, instrument.symbol)
        key = (entry.path, instrument.kind, protected, allowed)
        if key not in self._settings:
            raw = config.effective["instruments"][entry.index]
            found, self._too_wide[key[:2]] = narrowed(config.effective["limits"], raw, entry.path, instrument.kind)
            paths = {name: each.path for name, each in found.items()}
            paths |= {"allowed": "limits.allowed", "max_open_orders": "limits.portfolio.max_open_orders"}
            life_seconds = exchange.order_life_seconds
            self._settings[key] = msgspec.structs.replace(
                entry.settings,
                limits=msgspec.structs.replace(symbol_limits(found), allowed=allowed),
                protected=protected,
                # A float, as the journal reads it back: a machine's state must not differ in the spelling of a number.
                order_life_seconds=None if life_seconds is None else float(life_seconds),
                sources={name: config.source(path) for name, path in paths.items()},
            )
        return self._settings[key]

    def note_limits(self, entry: Entry, instruments: list[Instrument], settings: Mapping[str, SymbolSettings]) -> None:
        """Says which of the entry's limits do not count, and whom `limits.allowed` leaves out."""
        kept: dict[tuple[str, str], list[str]] = {}
        for instrument in instruments:
            for key in self._too_wide[entry.path, instrument.kind]:
                source = settings[instrument.key].sources[key]
                kept.setdefault((key, source), []).append(instrument.symbol)
        for (key, source), symbols in kept.items():
            self.notes.append(f"{entry.path}.limits.{key}: too wide, {source} is kept for {_listing(symbols)}")
        outside = [each.symbol for each in instruments if not settings[each.key].limits.allowed]
        if outside:
            text = "limits.allowed does not name them, no order will be sent"
            self.notes.append(f"{entry.path}: {text}: {_listing(outside)}")

    # --- do the figures fit the instruments? --------------------------------------------------------

    def check_fit(
        self, entry: Entry, instruments: Iterable[Instrument], settings: Mapping[str, SymbolSettings]
    ) -> None:
        """Sizes and limits on each instrument's grid; one finding for all symbols with the same trouble."""
        troubles: dict[tuple[str, str], list[str]] = {}
        for instrument in instruments:
            mine = settings[instrument.key]
            for key, text in _troubles(mine, instrument, self.config):
                path = self.place_of(entry, key, mine.sources)
                troubles.setdefault((path, text), []).append(instrument.symbol)
        for (path, text), symbols in troubles.items():
            more = f" and {len(symbols) - 1} more" if len(symbols) > 1 else ""
            self.wrong(path, f"{text} ({symbols[0]}{more})")

    def place_of(self, entry: Entry, key: str, sources: Mapping[str, str]) -> str:
        """The path at which a symbol's value of this key was written."""
        if key in sources:
            return sources[key].partition(" ")[0]
        if key == "max_exposure":
            return "limits.portfolio.max_exposure"
        own = f"{entry.path}.{key}"
        return own if own in self.config.origins else f"spreads.{entry.spread}.{key}"


def _troubles(settings: SymbolSettings, instrument: Instrument, config: Config) -> list[tuple[str, str]]:
    """(key, what is wrong) for one instrument."""
    troubles = []
    lot, smallest = instrument.lot, instrument.amount(max(1, instrument.min_lots))
    size, limits = settings.profile.size, settings.limits
    if size < smallest:
        troubles.append(("size", f"is {size}; allowed: at least {smallest}, the least amount of the exchange"))
    elif size % lot:
        below = size - size % lot
        troubles.append(("size", f"is {size}; allowed: multiples of {lot}, as {below} or {below + lot}"))
    elif size > limits.max_order_size >= smallest:
        text = f"is {size}; allowed: at most {limits.max_order_size}, which is"
        troubles.append(("size", f"{text} {settings.sources['max_order_size']}"))
    if limits.max_position < smallest:
        text = f"is {limits.max_position}; allowed: at least {smallest}, else nothing can ever be quoted"
        troubles.append(("max_position", text))
    if limits.max_order_size < smallest:
        text = f"is {limits.max_order_size}; allowed: at least {smallest}, the least amount of the exchange"
        troubles.append(("max_order_size", text))
    if instrument.base not in config.portfolio.max_exposure:
        text = f"has no line for {instrument.base}; a symbol without a limit is refused"
        troubles.append(("max_exposure", text))
    return troubles


def _order(instrument: Instrument) -> tuple[int, int, Decimal, str]:
    """Perpetuals, futures, then options by expiry and strike."""
    rank = {Kind.PERPETUAL: 0, Kind.FUTURE: 1}.get(instrument.kind, 2)
    return rank, instrument.expiry_ns or 0, instrument.strike or Decimal(0), instrument.symbol


def _listing(values: Iterable[object]) -> str:
    """The first few, and how many more."""
    texts = [str(value) for value in values]
    if not texts:
        return "none"
    more = f" and {len(texts) - SHOWN_MAX} more" if len(texts) > SHOWN_MAX else ""
    return ", ".join(texts[:SHOWN_MAX]) + more
