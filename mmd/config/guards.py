"""What the schema cannot say about limits, maker protection and alerts. Works on values it may have refused."""

from decimal import Decimal
from pathlib import PurePath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from mmd.config.limits import TIGHTER, Given, Limits, Tighter, given, is_wider, kinds_of, narrowed, reach_of, widest
from mmd.config.loose import mapping, number, sequence
from mmd.config.model import DERIVE
from mmd.config.nodes import Finding, Node, Step, key_place, place_at
from mmd.config.render import scalar
from mmd.config.schema import schema
from mmd.config.validate import finding, nearest, shown_path

PROTECTED_LIFE_SECONDS = 900
KEPT_SEGMENTS = 4
MIB_IN_GIB = 1024


def default_webhook_name(index: int) -> str:
    """The name of a webhook that has none; `index` counts from 0."""
    return f"webhook-{index + 1}"


def check_guards(data: dict[str, Any], root: Node) -> list[Finding]:
    """Findings about one merged configuration."""
    limits = mapping(data.get("limits"))
    findings = _check_portfolio(mapping(limits.get("portfolio")), data.get("exchanges"), root)
    for index, entry in enumerate(sequence(data.get("instruments"))):
        if isinstance(entry, dict):
            findings += _check_narrowing(entry, limits, ["instruments", index], root)
            findings += _check_size(entry, data, ["instruments", index], root)
    for name, exchange in mapping(data.get("exchanges")).items():
        findings += _check_protections(mapping(exchange), ["exchanges", name], root)
        findings += _check_url(mapping(mapping(exchange).get("network")), ["exchanges", name, "network"], root)
    alerts = mapping(data.get("alerts"))
    findings += _check_webhooks(sequence(alerts.get("webhooks")), root)
    findings += _check_journal(mapping(data.get("journal")), root)
    return findings + _check_url(mapping(alerts.get("heartbeat")), ["alerts", "heartbeat"], root)


def _check_narrowing(entry: dict[str, Any], limits: dict[str, Any], path: list[Step], root: Node) -> list[Finding]:
    """An entry may not widen a limit. Wider for some of its kinds only: resolution keeps the tighter one there."""
    by_kind: list[Limits] = [given(limits, kind) for kind in kinds_of(entry)]
    findings = []
    for key, value in mapping(entry.get("limits")).items():
        if key not in TIGHTER or not all(is_wider(key, value, outer) for outer in by_kind):
            continue
        most = widest(key, by_kind)
        place = _written(most[key], root)
        reach = reach_of(key, most)
        bound = "at least" if TIGHTER[key] is Tighter.HIGHER else "at most"
        of = " (five times max_position)" if most[key].value is None else ""
        text = f"is {scalar(value)}, wider than {most[key].path} ({place}); allowed: {bound} {reach}{of}"
        findings.append(finding(root, [*path, "limits", key], f"{text}; only limits: itself can widen it"))
    return findings


def _written(limit: Given, root: Node) -> str:
    """File and line of a limit of `limits:`, or that it is a default."""
    steps = limit.path.split(".")
    parent, place = place_at(root, [*steps[:-1]]), place_at(root, [*steps])
    return "default" if parent == place else f"{PurePath(place.file).name}:{place.line}"


def _check_size(entry: dict[str, Any], data: dict[str, Any], path: list[Step], root: Node) -> list[Finding]:
    """An order larger than the largest order would be refused every time."""
    name = entry.get("spread")
    spread = mapping(mapping(data.get("spreads")).get(name)) if isinstance(name, str) else {}
    size = number(entry.get("size", spread.get("size")))
    largest = _most_of(entry, mapping(data.get("limits")), shown_path(path), "max_order_size")
    if size is None or not largest or size <= largest:
        return []
    place: list[Step] = [*path, "size"] if "size" in entry else ["spreads", str(name), "size"]
    text = f"is {size} and above max_order_size, {largest}, of {shown_path(path)}; allowed: at most {largest}"
    return [finding(root, place, text)]


def _most_of(entry: dict[str, Any], limits: dict[str, Any], path: str, key: str) -> Decimal | None:
    """The largest value of a limit among the kinds that an entry can have; None where one is no number."""
    reaches = [reach_of(key, narrowed(limits, entry, path, kind)[0]) for kind in kinds_of(entry)]
    known = [reach for reach in reaches if reach is not None]
    return max(known) if len(known) == len(reaches) else None


def _check_portfolio(portfolio: dict[str, Any], exchanges: Any, root: Node) -> list[Finding]:
    """A total over a name that nobody has would hold nothing."""
    findings = []
    for key, known, what in (
        ("per_exchange", exchanges, "unknown exchange"),
        ("per_underlying", portfolio.get("max_exposure"), "no line in max_exposure for"),
    ):
        for name in mapping(portfolio.get(key)):
            if not isinstance(known, dict) or name in known:
                continue
            near = nearest(name, list(known))
            hint = f"; did you mean {near}?" if near else ";"
            path: list[Step] = ["limits", "portfolio", key]
            text = f"{what} {name[:60]!r}{hint} allowed: {', '.join(known) or 'none is defined'}"
            findings.append(Finding(key_place(root, path, name), shown_path([*path, name]), text))
    return findings


class _Terms(NamedTuple):
    """How a type of exchange names the parts of its maker protection."""

    subject: str
    amounts: tuple[str, ...]
    freeze: str
    least: str


_TERMS = {
    "deribit": _Terms("underlying", ("max_quantity", "max_delta", "max_vega"), "frozen_seconds", "1 second"),
    DERIVE: _Terms("currency", ("max_amount", "max_delta"), "frozen_ms", "1 millisecond"),
}


def _check_protections(exchange: dict[str, Any], parent: list[Step], root: Node) -> list[Finding]:
    kind = exchange.get("type")
    terms = _TERMS.get(kind) if isinstance(kind, str) else None
    if terms is None:
        return []
    path: list[Step] = [*parent, "maker_protection"]
    protections = sequence(exchange.get("maker_protection"))
    findings = _check_life(exchange, parent, root) if protections else []
    seen: dict[str, int] = {}
    for index, protection in enumerate(protections):
        if not isinstance(protection, dict):
            continue
        here = [*path, index]
        if all(protection.get(key) is None for key in terms.amounts):
            text = f"limits nothing; allowed: at least one of {', '.join(terms.amounts)}"
            findings.append(finding(root, here, text))
        if protection.get("reset") == "automatic" and protection.get(terms.freeze) == 0:
            text = f"is automatic, and {terms.freeze} 0 freezes until it is reset; allowed: manual, or {terms.least}"
            findings.append(finding(root, [*here, "reset"], f"{text} and above"))
        coin = protection.get(terms.subject)
        if isinstance(coin, str) and seen.setdefault(coin, index) != index:
            text = f"{coin} is protected by {shown_path([*path, seen[coin]])} already; allowed: one entry for each"
            findings.append(finding(root, [*here, terms.subject], text))
    return findings


def _check_life(exchange: dict[str, Any], path: list[Step], root: Node) -> list[Finding]:
    """Derive takes no protected order that lives longer than a quarter of an hour."""
    life = number(exchange.get("order_life_seconds"))
    if life is None or life <= PROTECTED_LIFE_SECONDS:
        return []
    text = f"is {life}, and no protected order may rest that long"
    text += f"; allowed: at most {PROTECTED_LIFE_SECONDS} with maker_protection"
    return [finding(root, [*path, "order_life_seconds"], text)]


def _check_journal(journal: dict[str, Any], root: Node) -> list[Finding]:
    """What is kept must hold what a start needs: the last complete state may be a segment back."""
    nodes = schema()["properties"]["journal"]["properties"]
    keep, segment, reserve = (
        number(journal.get(key, nodes[key]["default"])) for key in ("keep_gib", "segment_mib", "reserve_mib")
    )
    if keep is None or segment is None or reserve is None:
        return []
    least = KEPT_SEGMENTS * segment + reserve
    if keep * MIB_IN_GIB >= least:
        return []
    key = next(key for key in ("keep_gib", "segment_mib", "reserve_mib") if key in journal)
    text = (
        f"keep_gib is {keep:f} and holds less than {KEPT_SEGMENTS} segments of {segment:f} MiB and the reserve of "
        f"{reserve:f} MiB; allowed: {least / MIB_IN_GIB:f} or more"
    )
    return [finding(root, ["journal", key], text)]


def _check_webhooks(webhooks: list[Any], root: Node) -> list[Finding]:
    """Names tell them apart in the log and the metrics."""
    findings = []
    seen: dict[str, int] = {}
    for index, webhook in enumerate(webhooks):
        findings += _check_url(mapping(webhook), ["alerts", "webhooks", index], root)
        name = mapping(webhook).get("name", default_webhook_name(index))
        if isinstance(webhook, dict) and isinstance(name, str) and seen.setdefault(name, index) != index:
            text = f"{name[:60]} is the name of alerts.webhooks[{seen[name]}]; allowed: one name for each"
            findings.append(finding(root, ["alerts", "webhooks", index, "name"], text))
    return findings


def _check_url(parent: dict[str, Any], path: list[Step], root: Node) -> list[Finding]:
    """An address that looks like one and is none. It is not shown: a token may be in it."""
    url = parent.get("url")
    if not isinstance(url, str):
        return []
    try:
        parts = urlsplit(url)
        _ = parts.port
        (parts.hostname or "").encode("idna")  # as DNS will have it
    except UnicodeError:
        text = "has a host name that can be none; allowed: parts of 1 to 63 characters with one dot between two"
    except ValueError:
        text = "is no address; allowed: a host name, or an IPv6 address in brackets, and a port up to 65535"
    else:
        return []
    return [finding(root, [*path, "url"], text)]
