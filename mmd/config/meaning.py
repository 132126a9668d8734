"""What the schema cannot say: names that must exist, symbols named once, keys that need each other.

Works on values the schema may already have refused, so that one run reports everything.
"""

import re
from datetime import date
from typing import Any

from mmd.config.guards import check_guards
from mmd.config.loose import mapping, number, parse_date, sequence
from mmd.config.model import DERIVE
from mmd.config.nodes import Finding, Node, Step, key_place
from mmd.config.schema import definition
from mmd.config.validate import finding, nearest, shown_path
from mmd.domain.addresses import ADDRESS_WANTED, parse_address

NEEDED = {
    "deribit": {"credentials": "{client_id: …, client_secret: …}"},
    DERIVE: {
        "wallet": f"{ADDRESS_WANTED}, or {{env: NAME}}",
        "session_key": "{credential: NAME}, {file: /PATH} or {env: NAME}",
        "subaccount": "the number of a subaccount, from 1",
    },
}
"""What an exchange of each type needs, all of it, but in the sandbox: keys, with what may stand there."""

ADDRESS = re.compile(definition("derive")["properties"]["wallet"]["oneOf"][0]["pattern"])
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
        if not isinstance(exchange, dict):
            continue
        path: list[Step] = ["exchanges", name]
        kind = exchange.get("type")
        keys = NEEDED.get(kind, {}) if isinstance(kind, str) else {}
        is_some_written = any(key in exchange for key in keys)
        if is_some_written or exchange.get("network") not in (None, "sandbox"):
            reason = "" if is_some_written else " only network sandbox works without;"
            for key in keys:
                if key not in exchange:
                    text = f"is missing:{reason} allowed: {keys[key]}"
                    findings.append(finding(root, [*path, key], text))
        findings += _check_wallet(exchange.get("wallet"), [*path, "wallet"], root)
    return findings


def _check_wallet(wallet: Any, path: list[Step], root: Node) -> list[Finding]:
    """What has the form of an address and is none: the schema has seen to the form."""
    if not isinstance(wallet, str) or not ADDRESS.fullmatch(wallet):
        return []
    try:
        parse_address(wallet)
    except ValueError:
        text = f"is {wallet}, whose upper and lower case do not fit its digits: a letter or a digit is wrong"
        return [finding(root, path, f"{text}; allowed: the address as the wallet shows it, or all of it in lower case")]
    return []


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
    findings += _check_offered(select, kinds, data, here, root)
    exposure = mapping(mapping(data.get("limits")).get("portfolio")).get("max_exposure")
    coin = select.get("underlying")
    if isinstance(exposure, dict) and isinstance(coin, str) and coin.isupper() and coin not in exposure:
        text = f"has no line for {coin}, which {shown_path(here)} quotes; a symbol without a limit is refused"
        findings.append(finding(root, ["limits", "portfolio", "max_exposure"], text))
    return findings


def _check_offered(
    select: dict[str, Any], kinds: list[str], data: dict[str, Any], here: list[Step], root: Node
) -> list[Finding]:
    """What an exchange never lists."""
    name = select.get("exchange")
    exchange = mapping(mapping(data.get("exchanges")).get(name)) if isinstance(name, str) else {}
    if exchange.get("type") != DERIVE:
        return []
    findings = []
    contract = select.get("contract", definition("selection")["properties"]["contract"]["default"])
    if contract in ("inverse", None):
        text = "is inverse" if "contract" in select else "is missing, so it is inverse"
        findings.append(finding(root, [*here, "contract"], f"{text}; allowed on derive: linear"))
    if "future" in kinds:
        findings.append(finding(root, [*here, "kinds"], "derive lists no future; allowed: call, put, perpetual"))
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
