"""Alerts: once however often they are fired, their end, what each webhook is told and when, the heartbeat."""

import itertools
import logging
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import httpx
import msgspec
import pytest
import trio
from alert_kit import SERVICE, START_NS, House, Receivers, heartbeat, webhook
from trio.testing import MockClock

from mmd.config.model import AlertSettings, WebhookFormat
from mmd.config.secrets import ExposedSecret, Secret, Source
from mmd.domain.actions import Tripped
from mmd.domain.errors import ConfigError, CredentialError
from mmd.domain.reasons import Response, Scope, Severity, Switch
from mmd.domain.switches import SWITCHES
from mmd.shell import alerts as alerts_module
from mmd.shell import logs, webhooks
from mmd.shell.alerts import PULSE_SECONDS, scope_of, switch_alert, switch_severity
from mmd.shell.webhooks import GATHER_SECONDS, POST_SECONDS, RETRY_MAX_SECONDS, retry_after

DOCS = Path(__file__).parents[2] / "docs"
CRITICAL, WARNING, INFO = Severity.CRITICAL, Severity.WARNING, Severity.INFO


@pytest.fixture
def receivers() -> Receivers:
    return Receivers()


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Iterator[list[tuple[int, str, dict[str, object]]]]:
    """(level, event, fields) of what is logged."""
    caplog.set_level(logging.DEBUG, logger="mmd")  # whatever another test left it at
    found: list[tuple[int, str, dict[str, object]]] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            entry = logs.entry_of(record)
            found.append((entry.level, entry.event, dict(entry.fields)))

    ear = Ear()
    logging.getLogger("mmd").addHandler(ear)
    yield found
    logging.getLogger("mmd").removeHandler(ear)


def of(records: list[tuple[int, str, dict[str, object]]], event: str) -> list[tuple[int, dict[str, object]]]:
    return [(level, fields) for level, name, fields in records if name == event]


async def settle() -> None:
    """Let what waits for GATHER_SECONDS go out."""
    await trio.sleep(GATHER_SECONDS * 2)


# --- fire and clear ------------------------------------------------------------------------------


async def test_a_first_firing_is_told_everywhere_and_a_second_only_counts(
    autojump_clock: MockClock, receivers: Receivers, records: list[tuple[int, str, dict[str, object]]]
) -> None:
    house = House(receivers)
    house.fire(exchange="deribit", symbol="A")
    await trio.sleep(3)
    house.fire(exchange="deribit", symbol="A", detail="6 > 3")
    (line,) = house.alerts.active()
    assert (line.name, line.severity, line.exchange, line.symbol) == ("MmdTest", "critical", "deribit", "A")
    assert (line.summary, line.detail, line.runbook, line.since) == ("too much", "6 > 3", "look at it", START_NS * 1e-9)
    assert house.counters.alerts == {("MmdTest", CRITICAL): 2}
    assert house.events("alert.fired") == ["MmdTest (critical): too much: 5 > 3"]
    ((level, fields),) = of(records, "alert.raised")
    assert level == logging.ERROR
    assert fields == {
        "alert": "MmdTest",
        "severity": "critical",
        "exchange": "deribit",
        "symbol": "A",
        "summary": "too much",
        "detail": "5 > 3",
        "runbook": "look at it",
    }


async def test_a_warning_is_logged_as_one(
    autojump_clock: MockClock, receivers: Receivers, records: list[tuple[int, str, dict[str, object]]]
) -> None:
    House(receivers).fire(severity=WARNING)
    assert [level for level, _ in of(records, "alert.raised")] == [logging.WARNING]


@pytest.mark.parametrize(
    ("clear", "left"),
    [
        pytest.param({"name": "X"}, ["X/d/None", "X/d/A", "Y/d/A"], id="the portfolio's"),
        pytest.param({"name": "X", "exchange": "d"}, ["X/None/None", "X/d/A", "Y/d/A"], id="the exchange's"),
        pytest.param(
            {"name": "X", "exchange": "d", "symbol": "A"}, ["X/None/None", "X/d/None", "Y/d/A"], id="the symbol's"
        ),
        pytest.param({"exchange": "d", "symbol": "A"}, ["X/None/None", "X/d/None"], id="all of a symbol"),
        pytest.param({"exchange": "d"}, ["X/None/None", "X/d/A", "Y/d/A"], id="all of an exchange as a whole"),
        pytest.param({}, ["X/d/None", "X/d/A", "Y/d/A"], id="all of the portfolio"),
        pytest.param({"name": "Z"}, ["X/None/None", "X/d/None", "X/d/A", "Y/d/A"], id="none"),
    ],
)
async def test_clear_ends_exactly_what_it_names(
    autojump_clock: MockClock, receivers: Receivers, clear: dict[str, str], left: list[str]
) -> None:
    house = House(receivers)
    house.fire("X")
    house.fire("X", exchange="d")
    house.fire("X", exchange="d", symbol="A")
    house.fire("Y", exchange="d", symbol="A")
    house.alerts.clear(**clear)
    assert [f"{line.name}/{line.exchange}/{line.symbol}" for line in house.alerts.active()] == left
    assert len(house.events("alert.cleared")) == 4 - len(left)


async def test_the_severity_follows_upwards_only(autojump_clock: MockClock, receivers: Receivers) -> None:
    house = House(receivers)
    house.configure(webhook())
    async with house.running():
        house.fire(severity=WARNING)
        await settle()
        house.fire(severity=CRITICAL)
        house.fire(severity=WARNING, detail="later")
        await settle()
    (line,) = house.alerts.active()
    assert (line.severity, line.detail) == ("critical", "later")
    told = [(alert["labels"]["severity"], alert["status"]) for post in receivers.posts for alert in post.alerts]
    # The severity is a label: for a receiver these are two alerts, and the first one is over.
    assert sorted(told) == [("critical", "firing"), ("warning", "firing"), ("warning", "resolved")]


async def test_memory_is_bounded(
    autojump_clock: MockClock, receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts_module, "ACTIVE_MAX", 3)
    house = House(receivers)
    for number in range(5):
        house.fire(symbol=str(number))
    assert [line.symbol for line in house.alerts.active()] == ["0", "1", "2"]
    assert house.counters.alerts_dropped == 2
    assert len(house.events("alert.fired")) == 5  # the diary has them all
    house.fire("Long", detail="x" * 100_000)
    house.alerts.clear(symbol="0")
    house.fire("Long", detail="x" * 100_000)
    assert len(house.alerts.active()[-1].detail) == alerts_module.TEXT_MAX


async def test_firing_costs_microseconds_whatever_the_webhooks_do(
    autojump_clock: MockClock, receivers: Receivers
) -> None:
    house = House(receivers)
    receivers.silent = {"dead"}
    house.configure(webhook("dead", "http://dead/"), webhook("pager"))
    async with house.running():
        house.fire("First")
        await settle()
        before, began = trio.current_time(), time.perf_counter()
        for _ in range(2_000):
            house.fire("First", detail="the same")
        assert (time.perf_counter() - began) / 2_000 < 100e-6  # 2 µs on a quiet machine
        assert trio.current_time() == before


# --- the switches --------------------------------------------------------------------------------


@pytest.mark.parametrize("switch", SWITCHES)
async def test_every_switch_has_its_alert(autojump_clock: MockClock, receivers: Receivers, switch: Switch) -> None:
    house = House(receivers)
    row = SWITCHES[switch]
    target = {Scope.SYMBOL: "deribit/A", Scope.EXCHANGE: "deribit", Scope.PORTFOLIO: ""}[row.scope]
    house.alerts.fire_switch(Tripped(switch, row.scope, target, row.responses[0], "7 > 5"))
    (line,) = house.alerts.active()
    assert line.name == switch_alert(switch) and line.detail == "7 > 5" and line.runbook == row.runbook
    assert row.alert in line.summary
    assert (line.exchange, line.symbol) == {
        Scope.SYMBOL: ("deribit", "A"),
        Scope.EXCHANGE: ("deribit", None),
        Scope.PORTFOLIO: (None, None),
    }[row.scope]
    assert f"`{line.name}`" in (DOCS / "alerts.md").read_text()


def test_names_and_severities() -> None:
    assert switch_alert(Switch.DAILY_LOSS) == "MmdDailyLoss"
    assert len({switch_alert(switch) for switch in Switch}) == len(Switch)
    assert switch_severity(Switch.DRAWDOWN, Response.HALT) is CRITICAL
    assert switch_severity(Switch.MARKET_DATA, Response.PAUSE) is WARNING
    assert switch_severity(Switch.ORDERS_LEFT, Response.WARN) is CRITICAL
    assert scope_of(Tripped(Switch.DRAWDOWN, Scope.SYMBOL, "d/A", Response.HALT, "")) == ("d", "A")


# --- delivery ------------------------------------------------------------------------------------


async def test_what_happens_together_is_posted_together_and_its_end_too(
    autojump_clock: MockClock, receivers: Receivers
) -> None:
    house = House(receivers)
    house.configure(webhook(), labels={"team": "quant", "severity": "none"})
    async with house.running():
        house.fire(exchange="deribit", symbol="A")
        house.fire(exchange="deribit", symbol="B", severity=WARNING, detail="")
        await settle()
        await trio.sleep(10)
        house.alerts.clear(exchange="deribit", symbol="A")
        await settle()
        await house.alerts.wait_delivered()
    first, second = receivers.posts
    assert first.headers["content-type"] == "application/json"
    assert first.at == pytest.approx(GATHER_SECONDS)
    body = first.body
    assert (body["version"], body["status"], body["receiver"]) == ("4", "firing", "pager")
    assert body["groupKey"] == '{}:{service="mm1"}' and body["groupLabels"] == {"service": SERVICE}
    assert body["truncatedAlerts"] == 0 and body["externalURL"] == "mmd://mm1"
    assert body["commonLabels"] == {"alertname": "MmdTest", "service": SERVICE, "exchange": "deribit", "team": "quant"}
    assert body["commonAnnotations"] == {"summary": "too much", "runbook": "look at it"}
    one, other = first.alerts
    assert one == {
        "status": "firing",
        "labels": {
            "alertname": "MmdTest",
            "severity": "critical",
            "service": SERVICE,
            "exchange": "deribit",
            "symbol": "A",
            "team": "quant",
        },
        "annotations": {"summary": "too much", "description": "5 > 3", "runbook": "look at it"},
        "startsAt": "2027-01-15T08:00:00.000Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "mmd://mm1/deribit/A",
        "fingerprint": one["fingerprint"],
    }
    assert other["labels"]["severity"] == "warning" and "description" not in other["annotations"]
    assert one["fingerprint"] != other["fingerprint"]
    assert second.body["status"] == "resolved"
    (ended,) = second.alerts
    assert ended["status"] == "resolved" and ended["fingerprint"] == one["fingerprint"]
    assert (ended["startsAt"], ended["endsAt"]) == ("2027-01-15T08:00:00.000Z", "2027-01-15T08:00:10.200Z")


async def test_an_alertmanager_gets_a_list_again_within_a_minute_until_it_ends(
    autojump_clock: MockClock, receivers: Receivers
) -> None:
    house = House(receivers)
    house.configure(webhook(form=WebhookFormat.ALERTMANAGER), repeat_seconds=3600.0)
    async with house.running():
        house.fire(exchange="deribit")
        await trio.sleep(150)
        house.fire(exchange="deribit", detail="newer")
        await trio.sleep(40)
        house.alerts.clear("MmdTest", exchange="deribit")
        await trio.sleep(600)
    assert [round(post.at) for post in receivers.posts] == [0, 55, 110, 165, 190]
    bodies = [post.body for post in receivers.posts]
    assert bodies[0] == bodies[1] == bodies[2]
    assert bodies[0] == [
        {
            "labels": {"alertname": "MmdTest", "severity": "critical", "service": SERVICE, "exchange": "deribit"},
            "annotations": {"summary": "too much", "description": "5 > 3", "runbook": "look at it"},
            "startsAt": "2027-01-15T08:00:00.000Z",
            "generatorURL": "mmd://mm1/deribit",
        }
    ]
    assert bodies[3][0]["annotations"]["description"] == "newer"
    assert bodies[4][0]["endsAt"] == "2027-01-15T08:03:10.000Z"


async def test_other_receivers_hear_again_after_repeat_seconds(autojump_clock: MockClock, receivers: Receivers) -> None:
    house = House(receivers)
    house.configure(webhook(), repeat_seconds=1000.0)
    async with house.running():
        house.fire("A")
        await trio.sleep(50)
        house.fire("B")
        await trio.sleep(400)
        house.fire("C")
        await trio.sleep(1500)
    # What was said at nearly the same time is said again together.
    assert [(round(p.at), p.names) for p in receivers.posts] == [
        (0, ["A"]),
        (50, ["B"]),
        (450, ["C"]),
        (1000, ["A", "B"]),
        (1450, ["C"]),
    ]


async def test_a_webhook_hears_what_is_severe_enough(autojump_clock: MockClock, receivers: Receivers) -> None:
    house = House(receivers)
    house.configure(webhook("loud", "http://loud/", severity=CRITICAL), webhook("all", "http://all/", severity=INFO))
    async with house.running():
        house.fire("A", INFO)
        house.fire("B", WARNING)
        house.fire("C", CRITICAL)
        await settle()
    assert [post.names for post in receivers.at("loud")] == [["C"]]
    assert [post.names for post in receivers.at("all")] == [["C", "B", "A"]]  # the most severe first


async def test_failures_are_tried_again_ever_more_slowly(
    autojump_clock: MockClock, receivers: Receivers, records: list[tuple[int, str, dict[str, object]]]
) -> None:
    house = House(receivers)
    broken = httpx.ConnectError("connection refused")
    receivers.script["pager"] = [(500, {}), broken, (408, {}), (429, {}), *[(503, {})] * 8]
    house.configure(webhook())
    async with house.running():
        house.fire()
        assert house.counters.webhook("pager").waiting == 1
        await house.alerts.wait_delivered()
    times = [post.at for post in receivers.posts]
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert len(pauses) == 12
    for number, pause in enumerate(pauses):
        longest = min(RETRY_MAX_SECONDS, 2.0**number)
        assert longest / 2 <= pause - GATHER_SECONDS <= longest
    assert house.posts_of("pager") == {"failed": 12, "delivered": 1}
    assert house.counters.webhook("pager").waiting == 0
    assert [level for level, _ in of(records, "webhook.failed")] == [logging.WARNING]  # said once
    assert of(records, "webhook.failed")[0][1] == {"webhook": "pager", "detail": "status 500: because"}
    assert len(of(records, "webhook.recovered")) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 413, 301])
async def test_a_refusal_is_not_tried_again(
    autojump_clock: MockClock, receivers: Receivers, records: list[tuple[int, str, dict[str, object]]], status: int
) -> None:
    house = House(receivers)
    receivers.script["pager"] = [(status, {"location": "http://elsewhere/"})] * 2
    house.configure(webhook(), repeat_seconds=3600.0)
    async with house.running():
        house.fire()
        await house.alerts.wait_delivered()
        await trio.sleep(3000)
        assert len(receivers.posts) == 1
        await trio.sleep(7200)  # it is said again all the same when it is due
    assert house.posts_of("pager") == {"refused": 2, "delivered": 1}
    assert of(records, "webhook.refused") == [
        (logging.ERROR, {"webhook": "pager", "detail": f"status {status}: because"})
    ]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        pytest.param("120", 120.0, id="seconds"),
        pytest.param(formatdate(START_NS / 1e9 + 300, usegmt=True), 300.0, id="a date"),
        pytest.param(formatdate(START_NS / 1e9 - 300, usegmt=True), 0.0, id="a date that is over"),
        pytest.param("999999999", 3600.0, id="not for ever"),
        pytest.param("-5", 0.0, id="negative"),
        pytest.param("soon", 0.0, id="nonsense"),
        pytest.param("", 0.0, id="none"),
    ],
)
async def test_retry_after(autojump_clock: MockClock, receivers: Receivers, header: str, seconds: float) -> None:
    house = House(receivers)
    assert retry_after(header, house.clock) == pytest.approx(seconds, abs=1)
    receivers.script["pager"] = [(503, {"retry-after": header})]
    house.configure(webhook())
    async with house.running():
        house.fire()
        await house.alerts.wait_delivered()
    first, second = receivers.posts
    assert max(0.5, seconds - 1) <= second.at - first.at <= max(1.2, seconds + 1)


async def test_a_receiver_that_never_answers_delays_nobody_else(
    autojump_clock: MockClock, receivers: Receivers
) -> None:
    house = House(receivers)
    receivers.silent = {"dead"}
    house.configure(webhook("dead", "http://dead/"), webhook("pager"), heartbeat=heartbeat())
    async with house.running():
        for number in range(5):
            before = trio.current_time()
            house.fire(f"A{number}")
            assert trio.current_time() == before
            await trio.sleep(1)
        assert [round(post.at, 1) for post in receivers.at("pager")] == [0.1, 1.1, 2.1, 3.1, 4.1]
        assert house.posts_of("dead") == {}
        await trio.sleep(POST_SECONDS)
        assert house.posts_of("dead") == {"failed": 1}
        assert receivers.at("snitch")
        receivers.silent.clear()
        await house.alerts.wait_delivered()
    assert receivers.at("dead")[-1].names == ["A0", "A1", "A2", "A3", "A4"]


async def test_a_full_queue_lets_the_oldest_go_and_counts(
    autojump_clock: MockClock,
    receivers: Receivers,
    monkeypatch: pytest.MonkeyPatch,
    records: list[tuple[int, str, dict[str, object]]],
) -> None:
    monkeypatch.setattr(webhooks, "QUEUE_MAX", 3)
    house = House(receivers)
    receivers.script["pager"] = [(500, {})]
    house.configure(webhook(), repeat_seconds=100.0)
    async with house.running():
        for number in range(5):
            house.fire(f"A{number}")
        counters = house.counters.webhook("pager")
        assert (counters.waiting, counters.dropped) == (3, 2)
        await house.alerts.wait_delivered()
        assert receivers.posts[-1].names == ["A2", "A3", "A4"]
        await trio.sleep(200)
    assert receivers.posts[2].names[:2] == ["A0", "A1"]  # they last: said when they are due
    assert len(of(records, "webhook.overflowed")) == 1


async def test_a_queue_keeps_the_newest_of_each_alert(autojump_clock: MockClock, receivers: Receivers) -> None:
    house = House(receivers)
    receivers.script["pager"] = [(500, {})]
    house.configure(webhook())
    async with house.running():
        house.fire("A")
        house.fire("B")
        await settle()
        for _ in range(50):
            house.alerts.clear("A")
            house.fire("A")
        house.alerts.clear("B")
        assert house.counters.webhook("pager").waiting == 2
        await house.alerts.wait_delivered()
    assert [(a["labels"]["alertname"], a["status"]) for a in receivers.posts[-1].alerts] == [
        ("A", "firing"),
        ("B", "resolved"),
    ]


async def test_what_changes_while_it_is_posted_is_posted_after(autojump_clock: MockClock, receivers: Receivers) -> None:
    receivers.seconds = 1.0
    house = House(receivers)
    house.configure(webhook())
    async with house.running():
        house.fire("A")
        house.fire("B")
        await trio.sleep(0.5)
        assert len(receivers.posts) == 1  # on its way
        house.fire("B", detail="newer")  # no reason to post again
        house.alerts.clear("A")  # this is
        await house.alerts.wait_delivered()
    assert [[(a["labels"]["alertname"], a["status"]) for a in post.alerts] for post in receivers.posts] == [
        [("A", "firing"), ("B", "firing")],
        [("A", "resolved")],
    ]


async def test_a_large_number_goes_out_in_parts(autojump_clock: MockClock, receivers: Receivers) -> None:
    house = House(receivers)
    house.configure(webhook())
    async with house.running():
        for number in range(250):
            house.fire(symbol=f"S{number}")
        await house.alerts.wait_delivered()
    assert [len(post.alerts) for post in receivers.posts] == [100, 100, 50]


# --- reload --------------------------------------------------------------------------------------


async def test_a_reload_keeps_what_did_not_change_and_tells_the_new_what_lasts(
    autojump_clock: MockClock, receivers: Receivers
) -> None:
    house = House(receivers)
    house.configure(webhook("a", "http://a/"), webhook("b", "http://b/"), webhook("c", "http://c/"))
    async with house.running():
        house.fire("A")
        house.fire("B")
        await house.alerts.wait_delivered()
        receivers.posts.clear()
        house.configure(webhook("a", "http://a/"), webhook("b", "http://b2/"), webhook("d", "http://d/"))
        house.alerts.clear("B")
        await house.alerts.wait_delivered()
        house.fire("C")
        await house.alerts.wait_delivered()
    assert [post.names for post in receivers.at("a")] == [["B"], ["C"]]
    assert [post.names for post in receivers.at("b2")] == [["A", "B"], ["C"]]
    assert [post.names for post in receivers.at("d")] == [["A", "B"], ["C"]]
    assert receivers.at("b") == receivers.at("c") == []
    assert sorted(house.counters.webhooks) == ["a", "b", "d"]


async def test_what_waits_survives_a_new_address(autojump_clock: MockClock, receivers: Receivers) -> None:
    house = House(receivers)
    receivers.silent = {"old"}
    house.configure(webhook(url="http://old/"))
    async with house.running():
        house.fire("A")
        await settle()
        house.alerts.clear("A")
        house.configure(webhook(url="http://new/"))
        await house.alerts.wait_delivered()
    assert [alert["status"] for alert in receivers.at("new")[0].alerts] == ["resolved"]


async def test_bad_settings_change_nothing(
    autojump_clock: MockClock, receivers: Receivers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("bearer-of-news")
    key.chmod(0o644)
    monkeypatch.delenv("MMD_NO_TOKEN", raising=False)
    monkeypatch.setenv("MMD_ODD_TOKEN", "schlüssel")
    missing, odd = Secret(Source.ENV, "MMD_NO_TOKEN"), Secret(Source.ENV, "MMD_ODD_TOKEN")
    cases = [
        ((webhook(bearer=missing),), None, CredentialError, "alerts.webhooks.pager.bearer: .*MMD_NO_TOKEN"),
        ((webhook(bearer=odd),), None, CredentialError, "printable ASCII"),
        ((webhook(bearer=Secret(Source.FILE, str(key))),), None, ExposedSecret, "pager.bearer: .*others can read"),
        ((), heartbeat(bearer=missing), CredentialError, "alerts.heartbeat.bearer"),
        ((webhook(url="ftp://user:geheim@host/"),), None, ConfigError, "pager.url: must begin with http"),
        ((webhook(url="https:///path"),), None, ConfigError, "name a host"),
        ((), heartbeat(url="http://host\n/"), ConfigError, "alerts.heartbeat.url: .*not an address"),
        ((), heartbeat(url="http://host:99999/"), ConfigError, "alerts.heartbeat.url: port 99999"),
        ((webhook(), webhook()), None, ConfigError, "pager: the name is taken"),
    ]
    house = House(receivers)
    house.configure(webhook("kept"))
    for hooks, beat, error, text in cases:
        with pytest.raises(error, match=text) as raised:
            house.alerts.configure(AlertSettings(webhooks=hooks, heartbeat=beat))
        assert "geheim" not in str(raised.value)
    async with house.running():
        house.fire()
        await house.alerts.wait_delivered()
    assert len(receivers.posts) == 1


# --- the heartbeat -------------------------------------------------------------------------------


async def test_the_heartbeat_beats_while_the_daemon_is_well(autojump_clock: MockClock, receivers: Receivers) -> None:
    well = [True]
    house = House(receivers, lambda: well[0], heartbeat=heartbeat())
    async with house.running():
        await trio.sleep(95)
        assert [round(post.at) for post in receivers.posts] == [0, 30, 60, 90]
        assert house.counters.heartbeat_at == pytest.approx(START_NS * 1e-9 + 90, abs=PULSE_SECONDS)
        well[0] = False
        await trio.sleep(300)
        assert len(receivers.posts) == 4
        assert house.counters.heartbeat_at < START_NS * 1e-9 + 95 + PULSE_SECONDS
        well[0] = True
        await trio.sleep(30)
        assert len(receivers.posts) == 5
        house.configure()
        await trio.sleep(300)
        assert len(receivers.posts) == 5
    (alert,) = receivers.posts[0].alerts
    assert alert["labels"] == {"alertname": "MmdHeartbeat", "severity": "info", "service": SERVICE}
    assert alert["status"] == "firing"
    assert house.alerts.active() == []  # it is nobody's alert


async def test_an_alertmanager_is_told_when_the_heartbeat_is_overdue(
    autojump_clock: MockClock, receivers: Receivers
) -> None:
    beat = msgspec.structs.replace(heartbeat(), format=WebhookFormat.ALERTMANAGER)
    house = House(receivers, heartbeat=beat)
    async with house.running():
        await trio.sleep(40)
    assert [post.body[0]["endsAt"] for post in receivers.posts] == [
        "2027-01-15T08:01:30.000Z",
        "2027-01-15T08:02:00.000Z",
    ]


async def test_without_knowing_whether_the_daemon_is_well_nothing_beats(
    autojump_clock: MockClock, receivers: Receivers
) -> None:
    house = House(receivers, heartbeat=heartbeat())
    house.alerts.healthy = alerts_module.never
    async with house.running():
        await trio.sleep(300)
    assert receivers.posts == [] and house.counters.heartbeat_at == 0.0


async def test_a_beat_that_fails_is_tried_again_until_the_next_one(
    autojump_clock: MockClock, receivers: Receivers
) -> None:
    house = House(receivers, heartbeat=heartbeat(seconds=10.0))
    receivers.script["snitch"] = [(500, {}), (200, {}), (400, {})]
    async with house.running():
        await trio.sleep(25)
        assert [round(post.at, -1) for post in receivers.posts] == [0, 0, 10, 20]
        assert house.posts_of("heartbeat") == {"failed": 1, "delivered": 2, "refused": 1}
        receivers.silent = {"snitch"}
        await trio.sleep(30)
        assert house.posts_of("heartbeat")["failed"] == 3
        receivers.silent.clear()
        await trio.sleep(10)
        assert house.posts_of("heartbeat")["delivered"] >= 3


# --- secrets -------------------------------------------------------------------------------------


async def test_the_token_is_sent_and_never_shown(
    autojump_clock: MockClock,
    receivers: Receivers,
    monkeypatch: pytest.MonkeyPatch,
    records: list[tuple[int, str, dict[str, object]]],
) -> None:
    monkeypatch.setenv("MMD_TOKEN", "bearer-of-bad-news")
    secret = Secret(Source.ENV, "MMD_TOKEN")
    house = House(receivers)
    receivers.script["pager"] = [
        httpx.ConnectError("refused: bearer-of-bad-news"),
        (500, {"retry-after": "bearer-of-bad-news"}),
        (400, {}),
    ]
    house.configure(webhook(bearer=secret), heartbeat=heartbeat(bearer=secret))
    async with house.running():
        house.fire(detail="somebody said bearer-of-bad-news")
        await house.alerts.wait_delivered()
    assert {post.headers["authorization"] for post in receivers.posts} == {"Bearer bearer-of-bad-news"}
    assert of(records, "webhook.failed") and of(records, "webhook.refused")
    shown = [repr(records), repr(house.diary.since(0, 100)), repr(house.alerts.active())]
    shown += [str(vars(channel)) for channel in house.alerts._channels.values()]
    shown += [str(post.body) for post in receivers.posts]
    assert not [text for text in shown if "bad-news" in text]


async def test_without_a_token_there_is_no_header(autojump_clock: MockClock, receivers: Receivers) -> None:
    house = House(receivers)
    house.configure(webhook())
    async with house.running():
        house.fire()
        await house.alerts.wait_delivered()
    assert "authorization" not in receivers.posts[0].headers
