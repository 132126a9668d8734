"""Kill switches, maker protection, totals of a part, alerts: what is written becomes what the daemon gets."""

from decimal import Decimal

import msgspec
import pytest
from config_samples import GOOD, NOW_NS, make_listing

from mmd.config.load import load_text
from mmd.config.model import AlertSettings, Config, Heartbeat, Webhook, WebhookFormat
from mmd.config.render import to_json, to_yaml
from mmd.config.schema import at, schema
from mmd.config.secrets import Secret, Source
from mmd.config.select import resolve
from mmd.domain.errors import ConfigError
from mmd.domain.reasons import Response, Severity, Switch
from mmd.domain.settings import KillSwitches, Protection, Reset, ScopeLimits
from mmd.domain.switches import SWITCHES

SCHEMA = schema()["properties"]["kill_switches"]["properties"]
THRESHOLDS = {
    "ack_timeout": {"max_timeouts", "window_seconds"},
    "orders_left": {"max_cancel_tries"},
    "clock_skew": {"max_ms"},
    "disconnect_storm": {"max_disconnects", "window_seconds"},
    "event_lag": {"max_seconds"},
    "valuation": {"max_seconds"},
}


def with_text(text: str) -> Config:
    return load_text(GOOD + text)


def of_exchange(text: str) -> Config:
    return load_text(GOOD.replace("    network: sandbox\n", f"    network: sandbox\n    {text}\n"))


# --- kill switches ---------------------------------------------------------------------------------


def test_the_schema_has_a_key_for_each_switch_of_the_table() -> None:
    assert set(SCHEMA) == set(SWITCHES) == set(Switch)


@pytest.mark.parametrize("switch", list(Switch))
def test_the_schema_lets_each_switch_do_what_its_row_allows(switch: Switch) -> None:
    row, node = SWITCHES[switch], SCHEMA[switch]
    response = node["properties"]["response"]
    assert response["enum"] == [str(each) for each in row.responses]
    assert response["default"] == row.responses[0]
    assert set(node["properties"]) - {"response"} == THRESHOLDS.get(switch, set())
    own = [key for key in row.thresholds if key.startswith("kill_switches.")]
    assert {key.split(".")[-1] for key in own} <= set(node["properties"])
    for each in node["properties"].values():
        assert each["x-reload"] == "live"


@pytest.mark.parametrize("key", sorted({key for row in SWITCHES.values() for key in row.thresholds}))
def test_every_threshold_of_the_table_is_a_key(key: str) -> None:
    assert at([*key.split(".")]) is not None


def test_the_defaults_are_those_of_the_table() -> None:
    config = load_text(GOOD)
    assert config.switches == KillSwitches()
    assert all(entry.settings.switches == config.switches for entry in config.entries)


def test_each_threshold_reaches_the_symbols() -> None:
    config = with_text("""\
kill_switches:
  ack_timeout: {response: pause, max_timeouts: 1, window_seconds: 2}
  orders_left: {max_cancel_tries: 3}
  clock_skew: {response: halt, max_ms: 4.5}
  disconnect_storm: {max_disconnects: 6, window_seconds: 7}
  event_lag: {max_seconds: 8}
  valuation: {max_seconds: 9}
""")
    wanted = KillSwitches(
        responses=KillSwitches().responses | {Switch.ACK_TIMEOUT: Response.PAUSE, Switch.CLOCK_SKEW: Response.HALT},
        max_ack_timeouts=1,
        ack_timeout_window_seconds=2.0,
        max_cancel_tries=3,
        max_skew_ms=4.5,
        max_disconnects=6,
        disconnect_window_seconds=7.0,
        max_event_lag_seconds=8.0,
        max_unvalued_seconds=9.0,
    )
    assert config.switches == wanted
    found = resolve(config, {"deribit": make_listing()}, {("deribit", "BTC"): 32_200.0}, NOW_NS)
    assert len(found.symbols) == 9
    assert all(each.settings.switches == wanted for each in found.symbols.values())


@pytest.mark.parametrize("switch", list(Switch))
def test_a_response_that_the_table_does_not_allow_is_refused(switch: Switch) -> None:
    for response in Response:
        text = f"kill_switches: {{{switch}: {{response: {response}}}}}\n"
        if response in SWITCHES[switch].responses:
            assert with_text(text).switches.responses[switch] is response
        else:
            with pytest.raises(ConfigError, match=rf"kill_switches\.{switch}\.response: is '{response}'; allowed: "):
                with_text(text)


# --- maker protection and totals -------------------------------------------------------------------


def test_maker_protection_of_an_exchange() -> None:
    text = """maker_protection:
      - {underlying: BTC, interval_seconds: 5, frozen_seconds: 0, max_quantity: 2.5, max_vega: "500"}
      - {underlying: ETH, interval_seconds: 1, frozen_seconds: 30, max_delta: 10, reset: automatic}"""
    config = of_exchange(text)
    assert config.exchanges["deribit"].protections == (
        Protection(
            underlying="BTC",
            interval_seconds=5,
            frozen_seconds=0,
            max_quantity=Decimal("2.5"),
            max_vega=Decimal(500),
        ),
        Protection(
            underlying="ETH", interval_seconds=1, frozen_seconds=30, max_delta=Decimal(10), reset=Reset.AUTOMATIC
        ),
    )
    assert load_text(GOOD).exchanges["deribit"].protections == ()


def test_totals_of_a_part() -> None:
    more = """max_drawdown_usd: 5000, max_daily_loss_usd: 100, max_contracts: 40, day_starts_hour: 8,
    per_exchange: {deribit: {max_notional_usd: 5000, max_open_orders: 30}}, per_underlying: {BTC: {max_contracts: 2.5}}}
"""
    portfolio = load_text(GOOD.replace("max_drawdown_usd: 5000}\n", more)).portfolio
    assert (portfolio.max_daily_loss_usd, portfolio.max_contracts, portfolio.day_starts_hour) == (100, 40, 8)
    assert portfolio.per_exchange == {"deribit": ScopeLimits(max_notional_usd=Decimal(5000), max_open_orders=30)}
    assert portfolio.per_underlying == {"BTC": ScopeLimits(max_contracts=Decimal("2.5"))}
    assert load_text(GOOD).portfolio.per_exchange == {}


# --- alerts ----------------------------------------------------------------------------------------

ALERTS = """\
alerts:
  webhooks:
    - {url: "http://127.0.0.1:9093/api/v2/alerts"}
    - {name: pager, url: "https://pager.example/?y=1", format: webhook, min_severity: critical, bearer: {env: PAGER}}
    - {url: "https://[::1]:8443", min_severity: info, bearer: null}
  heartbeat: {url: "https://watch.example/mmd", bearer: {credential: watch}}
  repeat_seconds: 600
  labels: {site: fra1, team: "options desk"}
"""


def test_alerts_are_what_is_written() -> None:
    assert with_text(ALERTS).alerts == AlertSettings(
        webhooks=(
            Webhook(
                name="webhook-1",
                url="http://127.0.0.1:9093/api/v2/alerts",
                format=WebhookFormat.ALERTMANAGER,
                min_severity=Severity.WARNING,
                bearer=None,
            ),
            Webhook(
                name="pager",
                url="https://pager.example/?y=1",
                format=WebhookFormat.WEBHOOK,
                min_severity=Severity.CRITICAL,
                bearer=Secret(Source.ENV, "PAGER"),
            ),
            Webhook(
                name="webhook-3",
                url="https://[::1]:8443",
                format=WebhookFormat.ALERTMANAGER,
                min_severity=Severity.INFO,
                bearer=None,
            ),
        ),
        heartbeat=Heartbeat(
            url="https://watch.example/mmd",
            seconds=60.0,
            format=WebhookFormat.ALERTMANAGER,
            bearer=Secret(Source.CREDENTIAL, "watch"),
        ),
        repeat_seconds=600.0,
        labels={"site": "fra1", "team": "options desk"},
    )
    assert load_text(GOOD).alerts == AlertSettings()


def test_what_is_printed_means_the_same() -> None:
    config = with_text(ALERTS + "kill_switches: {clock_skew: {max_ms: 50}}\n")
    again = load_text(to_yaml(config))
    assert again.sha256 == config.sha256
    assert (again.alerts, again.switches) == (config.alerts, config.switches)
    printed = msgspec.json.decode(to_json(config))
    assert printed["alerts"]["webhooks"][1]["bearer"] == {"env": "PAGER"}
    assert printed["alerts"]["webhooks"][2]["name"] == "webhook-3"


def test_a_token_is_read_when_it_is_needed_and_kept_nowhere() -> None:
    config = with_text(ALERTS)
    bearer = config.alerts.webhooks[1].bearer
    assert bearer is not None
    assert bearer.reveal({"PAGER": "hunter2"}) == "hunter2"
    assert "hunter2" not in repr(config)


def test_the_daemons_own_labels_cannot_be_written() -> None:
    for name in ("alertname", "severity", "service", "exchange", "symbol"):
        with pytest.raises(ConfigError, match=f"'{name}' is no name"):
            with_text(f"alerts: {{labels: {{{name}: x}}}}\n")
    assert with_text("alerts: {labels: {symbols: x}}\n").alerts.labels == {"symbols": "x"}
