"""Alerts as other programs read them: the two JSON formats of the Prometheus Alertmanager.

ALERTMANAGER is what its API takes (POST /api/v2/alerts, a list), WEBHOOK what it sends to receivers (one
group, version 4). Source: prometheus.io/docs/alerting, alertmanager's api/v2/openapi.yaml and notify/webhook.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from urllib.parse import quote

import msgspec

from mmd.config.model import WebhookFormat
from mmd.domain.reasons import Severity

# What the Alertmanager writes for an alert that has not ended.
NOT_ENDED = "0001-01-01T00:00:00Z"
SEVERITIES = (Severity.INFO, Severity.WARNING, Severity.CRITICAL)

Key = tuple[str, Severity, str | None, str | None]
Labels = dict[str, str]


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to say of one alert. Unix nanoseconds; `ended_ns` 0: it lasts and nobody knows until when."""

    name: str
    severity: Severity
    exchange: str | None
    symbol: str | None
    summary: str
    detail: str
    runbook: str
    started_ns: int
    ended_ns: int = 0
    resolved: bool = False

    @property
    def key(self) -> Key:
        """Equal for notices that tell of the same alert; the severity is a label, so it is part of it."""
        return self.name, self.severity, self.exchange, self.symbol


class Sender(msgspec.Struct, frozen=True):
    """Who speaks: the service, the labels that go with every alert, and to which receiver."""

    service: str
    labels: Mapping[str, str]
    receiver: str


def rfc3339(at_ns: int) -> str:
    """UTC with milliseconds."""
    return datetime.fromtimestamp(at_ns * 1e-9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def labels_of(notice: Notice, sender: Sender) -> Labels:
    """What tells this alert from others; configured labels cannot replace ours."""
    ours = {
        "alertname": notice.name,
        "severity": str(notice.severity),
        "service": sender.service,
        "exchange": notice.exchange,
        "symbol": notice.symbol,
    }
    return {**sender.labels, **{name: value for name, value in ours.items() if value}}


def annotations_of(notice: Notice) -> Labels:
    """What people read."""
    texts = {"summary": notice.summary, "description": notice.detail, "runbook": notice.runbook}
    return {name: text for name, text in texts.items() if text}


def origin(notice: Notice, sender: Sender) -> str:
    """A URI that names the cause: mmd://service/exchange/symbol."""
    return "mmd://" + "/".join(
        quote(part, safe="") for part in (sender.service, notice.exchange, notice.symbol) if part
    )


def fingerprint(labels: Labels) -> str:
    """Sixteen hexadecimal digits, equal for equal labels."""
    return blake2b(msgspec.json.encode(labels, order="sorted"), digest_size=8).hexdigest()


def alertmanager_body(notices: Sequence[Notice], sender: Sender) -> bytes:
    """For an Alertmanager's /api/v2/alerts. Without `endsAt` its own resolve_timeout counts."""
    rows = []
    for notice in notices:
        row: dict[str, object] = {
            "labels": labels_of(notice, sender),
            "annotations": annotations_of(notice),
            "startsAt": rfc3339(notice.started_ns),
            "generatorURL": origin(notice, sender),
        }
        if notice.ended_ns:
            row["endsAt"] = rfc3339(notice.ended_ns)
        rows.append(row)
    return msgspec.json.encode(rows)


def webhook_body(notices: Sequence[Notice], sender: Sender) -> bytes:
    """For a receiver of the Alertmanager's own webhooks: one group per service, which holds what waits now."""
    all_labels = [labels_of(notice, sender) for notice in notices]
    all_annotations = [annotations_of(notice) for notice in notices]
    rows = [
        {
            "status": status(notice),
            "labels": labels,
            "annotations": annotations,
            "startsAt": rfc3339(notice.started_ns),
            "endsAt": rfc3339(notice.ended_ns) if notice.resolved else NOT_ENDED,
            "generatorURL": origin(notice, sender),
            "fingerprint": fingerprint(labels),
        }
        for notice, labels, annotations in zip(notices, all_labels, all_annotations, strict=True)
    ]
    return msgspec.json.encode(
        {
            "version": "4",
            "groupKey": f"{{}}:{{service={msgspec.json.encode(sender.service).decode()}}}",
            "truncatedAlerts": 0,
            "status": "resolved" if all(notice.resolved for notice in notices) else "firing",
            "receiver": sender.receiver,
            "groupLabels": {"service": sender.service},
            "commonLabels": common(all_labels),
            "commonAnnotations": common(all_annotations),
            "externalURL": f"mmd://{quote(sender.service, safe='')}",
            "alerts": rows,
        }
    )


def status(notice: Notice) -> str:
    return "resolved" if notice.resolved else "firing"


def common(tables: Sequence[Labels]) -> Labels:
    """The entries that all of them have."""
    first, *others = tables
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


BODIES: dict[WebhookFormat, Callable[[Sequence[Notice], Sender], bytes]] = {
    WebhookFormat.ALERTMANAGER: alertmanager_body,
    WebhookFormat.WEBHOOK: webhook_body,
}
