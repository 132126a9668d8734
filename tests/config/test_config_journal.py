"""Journal, reconciliation, and what the reaper and late orders need: written, built, compared, advised on."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from config_samples import GOOD, NOW_NS, make_listing

from mmd.config.advise import advise
from mmd.config.load import load_text
from mmd.config.model import Config, Credentials
from mmd.config.plan import Plan, diff
from mmd.config.render import to_yaml, to_yaml_masked
from mmd.config.schema import definition, follow, schema
from mmd.config.secrets import Secret, Source
from mmd.config.select import Resolution, resolve
from mmd.domain.errors import ConfigError
from mmd.domain.reasons import Response, Switch
from mmd.domain.settings import FsyncPolicy, JournalSettings, Reconciliation

PERP = "deribit/BTC-PERPETUAL"
REAPER = "reaper_credentials: {client_id: {env: REAPER_ID}, client_secret: {credential: reaper}}"
Make = Callable[..., Config]


def with_text(text: str) -> Config:
    return load_text(GOOD + text)


def of_exchange(text: str, base: str = GOOD) -> Config:
    return load_text(base.replace("    network: sandbox\n", f"    network: sandbox\n    {text}\n"))


def resolved(config: Config) -> Resolution:
    return resolve(config, {"deribit": make_listing()}, {("deribit", "BTC"): 32_200.0}, NOW_NS)


def plan_to(new: Config) -> Plan:
    old = load_text(GOOD)
    return diff(old, resolved(old), new, resolved(new))


def warnings(config: Config) -> list[str]:
    return advise(config, {}).warnings


# --- what is written is what the daemon gets -------------------------------------------------------


def test_what_is_not_written_is_the_default_of_the_structs() -> None:
    config = load_text(GOOD)
    assert config.journal == JournalSettings()
    assert config.reconciliation == Reconciliation()
    assert config.exchanges["deribit"].reaper is None
    assert config.exchanges["deribit"].order_valid_ms == 2000
    assert config.switches.responses[Switch.RECONCILIATION] is Response.PAUSE


def test_everything_can_be_written() -> None:
    config = with_text("""\
journal: {fsync: always, fsync_seconds: 0.01, segment_mib: 0.1, segment_hours: 0.5, compress: false, keep_days: 2.5,
  keep_gib: 0.001, reserve_mib: 0}
reconciliation: {interval_seconds: 1.5, average_tolerance_bps: 0.25}
kill_switches: {reconciliation: {response: halt}}
""")
    assert config.journal == JournalSettings(
        fsync=FsyncPolicy.ALWAYS,
        fsync_seconds=0.01,
        segment_mib=0.1,
        segment_hours=0.5,
        compress=False,
        keep_days=2.5,
        keep_gib=0.001,
        reserve_mib=0.0,
    )
    assert config.reconciliation == Reconciliation(interval_seconds=1.5, average_tolerance_bps=Decimal("0.25"))
    assert config.switches.responses[Switch.RECONCILIATION] is Response.HALT
    again = load_text(to_yaml(config))
    assert (again.journal, again.reconciliation) == (config.journal, config.reconciliation)
    assert again.sha256 == config.sha256


@pytest.mark.parametrize("key", ["journal", "reconciliation"])
def test_every_key_of_the_structs_is_a_key_of_the_schema(key: str) -> None:
    struct = {"journal": JournalSettings, "reconciliation": Reconciliation}[key]
    assert set(schema()["properties"][key]["properties"]) == set(struct.__struct_fields__)


@pytest.mark.parametrize(("written", "tolerance"), [("0", Decimal(0)), ("7.5", Decimal("7.5")), ("null", None)])
def test_the_tolerance_reaches_every_symbol(written: str, tolerance: Decimal | None) -> None:
    found = resolved(with_text(f"reconciliation: {{average_tolerance_bps: {written}}}\n"))
    assert len(found.symbols) == 9
    assert {each.settings.average_tolerance_bps for each in found.symbols.values()} == {tolerance}


def test_the_reaper_may_have_a_key_of_its_own() -> None:
    exchange = of_exchange(REAPER).exchanges["deribit"]
    assert exchange.reaper == Credentials(
        client_id=Secret(Source.ENV, "REAPER_ID"), client_secret=Secret(Source.CREDENTIAL, "reaper")
    )
    assert exchange.credentials != exchange.reaper
    assert of_exchange("reaper_credentials: null").exchanges["deribit"].reaper is None


def test_the_reapers_key_has_the_shape_of_the_daemons() -> None:
    node = definition("deribit")["properties"]
    ours, reapers = follow(node["credentials"]), follow(node["reaper_credentials"])
    assert set(ours["properties"]) == set(reapers["properties"]) == set(ours["required"]) == set(reapers["required"])


@pytest.mark.parametrize(("written", "valid"), [("100", 100), ("null", None)])
def test_how_long_an_order_is_valid(written: str, valid: int | None) -> None:
    assert of_exchange(f"order_valid_ms: {written}").exchanges["deribit"].order_valid_ms == valid


@pytest.mark.parametrize("key", ["credentials", "reaper_credentials"])
@pytest.mark.parametrize("value", ["hunter2", "[hunter2]", "{client_id: hunter2, client_secret: hunter2}"])
def test_a_secret_in_the_wrong_place_is_not_repeated(key: str, value: str) -> None:
    bare = GOOD[: GOOD.index("    credentials")] + GOOD[GOOD.index("spreads:") :]
    with pytest.raises(ConfigError) as caught:
        of_exchange(f"{key}: {value}", bare)
    assert "hunter2" not in str(caught.value)
    assert key in str(caught.value)


# --- what does not fit together --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "place", "least"),
    [
        ("keep_gib: 0.14", "keep_gib", "0.140625"),
        ("segment_mib: 4096", "segment_mib", "16.015625"),
        ("keep_gib: 0.004, segment_mib: 1, reserve_mib: 1", "keep_gib", "0.0048828125"),
        ("segment_mib: 3000, reserve_mib: 100", "segment_mib", "11.81640625"),
    ],
)
def test_what_is_kept_must_hold_what_a_start_needs(written: str, place: str, least: str) -> None:
    with pytest.raises(ConfigError, match=rf"journal\.{place}: keep_gib is .*; allowed: {least} or more"):
        with_text(f"journal: {{{written}}}\n")
    enough = written if "keep_gib" not in written else ", ".join(written.split(", ")[1:])
    with_text(f"journal: {{{f'{enough}, ' if enough else ''}keep_gib: {least}}}\n")


@pytest.mark.parametrize("fsync", ["always", "never"])
def test_an_interval_that_nobody_keeps_is_warned_of(fsync: str) -> None:
    wrong = warnings(with_text(f"journal: {{fsync: {fsync}, fsync_seconds: 2}}\n"))
    assert any(line.endswith(f"journal.fsync_seconds: has no effect with fsync {fsync}") for line in wrong)
    for fine in (f"journal: {{fsync: {fsync}}}\n", "journal: {fsync: interval, fsync_seconds: 2}\n"):
        assert not any("fsync" in line for line in warnings(with_text(fine)))


def test_segments_that_outlast_what_is_kept_are_warned_of() -> None:
    wrong = warnings(with_text("journal: {keep_days: 0.5, segment_hours: 13}\n"))
    assert any("journal.keep_days: is 0.5 and shorter than a segment may last, 13 hours" in line for line in wrong)
    assert not any(
        "keep_days" in line for line in warnings(with_text("journal: {keep_days: 0.5, segment_hours: 12}\n"))
    )


def test_orders_that_may_be_taken_after_they_were_given_up_are_warned_of() -> None:
    wrong = warnings(of_exchange("order_valid_ms: 2001"))
    assert any(
        "order_valid_ms: is 2001 and longer than ack_timeout_seconds 2 of instruments[0]" in line for line in wrong
    )
    narrowed = GOOD.replace("{max_position: 1}", "{max_position: 1, ack_timeout_seconds: 1.5}")
    assert any("ack_timeout_seconds 1.5 of instruments[1]" in line for line in warnings(load_text(narrowed)))
    for fine in (GOOD, GOOD.replace("collar_bps: 200}", "collar_bps: 200, ack_timeout_seconds: 3}")):
        assert not any("order_valid_ms" in line for line in warnings(load_text(fine)))


def test_orders_that_are_valid_for_ever_are_noted_where_they_are_sent() -> None:
    def noted(text: str) -> bool:
        return any(
            "order_valid_ms: null" in line for line in advise(of_exchange("order_valid_ms: null", text), {}).notes
        )

    assert noted(GOOD.replace("mode: shadow", "mode: live"))
    assert not noted(GOOD)


def test_a_disk_that_cannot_hold_what_is_to_be_kept_is_warned_of(tmp_path: Path) -> None:
    def said(keep_gib: str, directory: Path) -> bool:
        config = load_text(
            GOOD.replace("mode: shadow,", f"mode: shadow, state_dir: {directory},")
            + f"journal: {{keep_gib: {keep_gib}, segment_mib: 1, reserve_mib: 0}}\n"
        )
        return any(f"journal.keep_gib: is {keep_gib}, and the file system of" in line for line in warnings(config))

    assert said("1048576", tmp_path)
    assert not said("0.004", tmp_path)
    assert not said("1048576", tmp_path / "nowhere")


def test_secrets_of_the_reaper_are_looked_at_by_a_check(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("hunter2")
    key.chmod(0o644)
    config = of_exchange(f"reaper_credentials: {{client_id: {{env: ID}}, client_secret: {{file: {key}}}}}")
    (line,) = advise(config, {}).exposed
    assert f"exchanges.deribit.reaper_credentials.client_secret: {key}: has mode 0644" in line
    assert "hunter2" not in line


# --- reload ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "path", "effect", "symbols"),
    [
        pytest.param("journal: {fsync: always}\n", "journal.fsync", "live", 0, id="fsync"),
        pytest.param("journal: {keep_days: 3}\n", "journal.keep_days", "live", 0, id="keep"),
        pytest.param("journal: {reserve_mib: 1}\n", "journal.reserve_mib", "restart", 0, id="reserve"),
        pytest.param(
            "reconciliation: {interval_seconds: 5}\n", "reconciliation.interval_seconds", "live", 0, id="often"
        ),
        pytest.param(
            "reconciliation: {average_tolerance_bps: null}\n",
            "reconciliation.average_tolerance_bps",
            "live",
            9,
            id="tolerance",
        ),
    ],
)
def test_what_a_reload_does(change: str, path: str, effect: str, symbols: int) -> None:
    plan = plan_to(with_text(change))
    assert [(line.path, line.effect, len(line.symbols)) for line in plan.lines] == [(path, effect, symbols)]
    assert len(plan.changed) == symbols
    assert (plan.refusal is not None) == (effect == "restart")


def test_the_reapers_key_changes_under_a_running_daemon() -> None:
    plan = plan_to(of_exchange(REAPER))
    (line,) = plan.lines
    assert (line.path, line.effect, line.symbols) == ("exchanges.deribit.reaper_credentials", "live", [])
    assert plan.refusal is None
    assert plan_to(of_exchange("order_valid_ms: 1000")).restart == ["exchanges.deribit.order_valid_ms"]


def test_the_address_of_a_receiver_is_not_shown_to_whoever_asks() -> None:
    config = with_text("""\
alerts: {webhooks: [{url: "https://hooks.example.com/services/T0/B1/secretpart"}],
  heartbeat: {url: "https://ping.example.com/0f3a-uuid", seconds: 60}}
""")
    assert "secretpart" in to_yaml(config), "mmd check --effective is for whoever can read the file"
    shown = to_yaml_masked(config)
    assert "secretpart" not in shown and "0f3a" not in shown
    assert "https://hooks.example.com/***" in shown and "BTC-PERPETUAL" in shown
