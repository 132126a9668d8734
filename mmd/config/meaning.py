"""What the schema cannot say: names that must exist, symbols named once, keys that need each other.

Works on values the schema may already have refused, so that one run reports everything.
"""

from datetime import date
from typing import Any

from mmd.config.guards import check_guards
from mmd.config.loose import mapping, number, parse_date, sequence
from mmd.config.nodes import Finding, Node, Step, key_place
from mmd.config.schema import definition
from mmd.config.validate import finding, nearest, shown_path

OPTION_KINDS = ("call", "put")
DATED_KINDS = (*OPTION_KINDS, "future")
SPREAD_KEYS = tuple(definition("spread")["properties"])


def check_meaning(data: Any, root: Node) -> list[Finding]:
    """Findings about one merged configuration; `data` is any plain value."""
    if not isinstance(data, dict):
        return []
    findings = _check_exchanges(mapping(data.get("exchanges")), root)
    for name, spread in mapping(data.get("spreads")).items():
        findings += _check_spread(mapping(spread), ["spreads", name], root)
    findings += _check_entries(data, root)
    return findings + check_guards(data, root)


def _check_exchanges(exchanges: dict[str, Any], root: Node) -> list[Finding]:
    findings = []
    for name, exchange in exchanges.items():
        network = mapping(exchange).get("network")
        if network is None or network == "sandbox" or not isinstance(exchange, dict) or "credentials" in exchange:
            continue
        text = "is missing: only network sandbox works without; allowed: {client_id: …, client_secret: …}"
        findings.append(finding(root, ["exchanges", name, "credentials"], text))
    return findings


def _check_spread(spread: dict[str, Any], path: list[Step], root: Node) -> list[Finding]:
    volatility = mapping(spread.get("volatility"))
    fast, slow = number(volatility.get("fast_seconds", 30)), number(volatility.get("slow_seconds", 300))
    if volatility and fast is not None and slow is not None and slow < fast:
        key = "slow_seconds" if "slow_seconds" in volatility else "fast_seconds"
        text = f"slow_seconds is {slow} and below fast_seconds, {fast}; allowed: {fast} or more"
        return [finding(root, [*path, "volatility", key], text)]
    return []


def _check_entries(data: dict[str, Any], root: Node) -> list[Finding]:
    findings: list[Finding] = []
    seen: dict[tuple[str, str], int] = {}
    for index, entry in enumerate(sequence(data.get("instruments"))):
        if not isinstance(entry, dict):
            continue
        path: list[Step] = ["instruments", index]
        findings += _check_name(entry.get("spread"), data.get("spreads"), [*path, "spread"], "spread profile", root)
        findings += _check_spread(entry, path, root)
        if isinstance(entry.get("select"), dict):
            findings += _check_selection(entry, data, path, root)
            continue
        exchange, symbol = entry.get("exchange"), entry.get("symbol")
        findings += _check_name(exchange, data.get("exchanges"), [*path, "exchange"], "exchange", root)
        if isinstance(exchange, str) and isinstance(symbol, str):
            first = seen.setdefault((exchange, symbol), index)
            if first != index:
                text = f"{symbol} is quoted by instruments[{first}] already; allowed: one entry for each symbol"
                findings.append(finding(root, [*path, "symbol"], text))
    return findings


def _check_name(name: Any, known: Any, path: list[Step], what: str, root: Node) -> list[Finding]:
    if not isinstance(name, str) or not isinstance(known, dict) or name in known:
        return []
    near = nearest(name, list(known))
    hint = f"; did you mean {near}?" if near else ";"
    return [finding(root, path, f"unknown {what} {name[:60]!r}{hint} allowed: {', '.join(known) or 'none is defined'}")]


def _check_selection(entry: dict[str, Any], data: dict[str, Any], path: list[Step], root: Node) -> list[Finding]:
    select = entry["select"]
    here = [*path, "select"]
    findings = _check_name(select.get("exchange"), data.get("exchanges"), [*here, "exchange"], "exchange", root)
    if "exchange" in entry:
        place = key_place(root, path, "exchange")
        findings.append(
            Finding(place, shown_path([*path, "exchange"]), "belongs into select; allowed: with symbol only")
        )
    kinds = [kind for kind in sequence(select.get("kinds", list(OPTION_KINDS))) if isinstance(kind, str)]
    findings += _check_needs(select, kinds, here, root)
    findings += _check_dates(select, here, root)
    exposure = mapping(mapping(data.get("limits")).get("portfolio")).get("max_exposure")
    coin = select.get("underlying")
    if isinstance(exposure, dict) and isinstance(coin, str) and coin.isupper() and coin not in exposure:
        text = f"has no line for {coin}, which {shown_path(here)} quotes; a symbol without a limit is refused"
        findings.append(finding(root, ["limits", "portfolio", "max_exposure"], text))
    return findings


def _check_needs(select: dict[str, Any], kinds: list[str], here: list[Step], root: Node) -> list[Finding]:
    findings = []
    dated = [kind for kind in kinds if kind in DATED_KINDS]
    options = [kind for kind in kinds if kind in OPTION_KINDS]
    if "expiry" in select and "expiries" in select:
        findings.append(finding(root, [*here, "expiries"], "stands beside expiry; allowed: one of the two"))
    if dated and "expiry" not in select and "expiries" not in select:
        text = f"is missing: {', '.join(dated)} need expiry or expiries; allowed: a date, a list of dates, "
        findings.append(finding(root, [*here, "expiries"], text + "{nearest: N}, {within_days: N} or all"))
    if options and "strikes" not in select:
        text = f"is missing: {', '.join(options)} need it; allowed: a list of strikes, {{nearest_to_money: N}} or all"
        findings.append(finding(root, [*here, "strikes"], text))
    if kinds and not options and "strikes" in select:
        findings.append(finding(root, [*here, "strikes"], f"{', '.join(kinds)} have no strikes; leave it out"))
    if kinds and not dated:
        for key in ("expiry", "expiries"):
            if key in select:
                findings.append(finding(root, [*here, key], "a perpetual has no expiry; leave it out"))
    return findings


def _check_dates(select: dict[str, Any], here: list[Step], root: Node) -> list[Finding]:
    dates: list[tuple[list[Step], Any]] = []
    if "expiry" in select:
        dates.append(([*here, "expiry"], select["expiry"]))
    for index, value in enumerate(sequence(select.get("expiries"))):
        dates.append(([*here, "expiries", index], value))
    findings = []
    seen: set[date] = set()
    for path, value in dates:
        day = parse_date(value)
        if day is None:
            if isinstance(value, int | str) and len(str(value).replace("-", "")) == 8:
                findings.append(finding(root, path, f"{value} is no day of the calendar; allowed: as in 2026-12-25"))
        elif day in seen:
            findings.append(finding(root, path, f"{day} is in the list already"))
        else:
            seen.add(day)
    return findings
