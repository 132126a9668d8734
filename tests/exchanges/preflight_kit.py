"""What a configuration may want of an exchange, without a configuration."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from mmd.domain.instruments import Instrument
from mmd.domain.settings import Profile, Style
from mmd.exchanges.preflight import Choice, Finding, Quoted, Wanted

PROFILE = Profile(name="p", style=Style.AROUND, spread_bps=20, size=Decimal(1), refresh_seconds=1)


class Chooser:
    """Chooses these symbols of what is listed, and remembers what it was given."""

    def __init__(self, symbols: Iterable[str], profile: Profile = PROFILE) -> None:
        self.symbols = tuple(symbols)
        self.profile = profile
        self.listed: Mapping[str, Instrument] = {}
        self.prices: Mapping[str, float] = {}
        self.ends: Mapping[str, int] = {}

    def __call__(
        self, listed: Mapping[str, Instrument], prices: Mapping[str, float], ends: Mapping[str, int]
    ) -> Choice:
        self.listed, self.prices, self.ends = listed, prices, ends
        missing = [symbol for symbol in self.symbols if symbol not in listed and symbol not in ends]
        return Choice(
            quoted=tuple(Quoted(listed[symbol], self.profile) for symbol in self.symbols if symbol in listed),
            problems=tuple(f"lists no {symbol}" for symbol in missing),
        )


def wanted(chooser: Chooser, **changes: Any) -> Wanted:
    values: dict[str, Any] = {
        "max_skew_ms": 1000.0,
        "coins": tuple(dict.fromkeys(symbol.split("-")[0] for symbol in chooser.symbols)),
        "named": chooser.symbols,
        "protections": (),
        "needs_cancel_on_disconnect": True,
        "choose": chooser,
    }
    return Wanted(**(values | changes))


def of(findings: Iterable[Finding], check: str) -> list[tuple[str, str]]:
    """(grade, what was found) of one check."""
    return [(each.grade.value, each.found) for each in findings if each.check == check]


def grades(findings: Iterable[Finding]) -> dict[str, list[str]]:
    """Grades by check."""
    told: dict[str, list[str]] = {}
    for each in findings:
        told.setdefault(each.check, []).append(each.grade.value)
    return told
