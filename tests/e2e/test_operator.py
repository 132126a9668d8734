"""A day of an operator: `mmd run` in its own process, everything through mmdctl."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from house import MMDCTL, WIDE, Daemon, Program, environment, until, write_config
from prometheus_client.parser import text_string_to_metric_families

REQUIRED = {
    "symbol",
    "exchange",
    "state",
    "reason",
    "mode",
    "bid",
    "ask",
    "position",
    "pnl_usd",
    "data_age_seconds",
}


@pytest.fixture
def daemon(tmp_path: Path, programs: list[Program]) -> Daemon:
    """Ready, two symbols, shadow mode, the sandbox in its own process."""
    found = Daemon(tmp_path, write_config(tmp_path / "mmd.yaml"))
    programs.append(found)
    return found.ready()


def order_ids(rows: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    return {name: [row["bid"]["order_id"], row["ask"]["order_id"]] for name, row in rows.items()}


def test_everything_starts_paused_and_status_has_the_promised_shape(daemon: Daemon) -> None:
    said = daemon.ctl("status", "--json")
    assert (said.status, said.err) == (0, "")
    assert [row["symbol"] for row in said.json["symbols"]] == list(WIDE["deribit"])
    for row in said.json["symbols"]:
        assert row.keys() >= REQUIRED
        assert (row["state"], row["reason"], row["mode"]) == ("PAUSED", "startup", "shadow")
        for side in (row["bid"], row["ask"]):
            assert side.keys() >= {"price", "size", "phase"}
            assert (side["price"], side["size"], side["phase"]) == (None, None, "EMPTY")
        assert (row["exchange"], row["position"], row["pnl_usd"]) == ("deribit", 0, 0.0)
        assert 0 <= row["data_age_seconds"] < 20
    table = daemon.ctl("status")
    assert table.status == 0
    assert all(len(line) <= 100 for line in table.out.splitlines())
    assert re.search(r"BTC-PERPETUAL +PAUSED", table.out)


def test_an_operators_day(daemon: Daemon, tmp_path: Path) -> None:
    """Resume, explain, plan, reload, a broken file, pause, halt, reset, shadow, stop: one after the other."""
    said = daemon.ctl("resume", "all", "--reason", "first look", "--json")
    assert (said.status, said.json["outcome"]) == (0, "done")
    rows = daemon.until(daemon.quoting, "quotes on both sides")
    for row in rows.values():
        assert row["state"] == "ACTIVE"
        assert row["bid"]["price"] < row["market_bid"] <= row["market_ask"] < row["ask"]["price"]
        assert row["bid"]["size"] == row["ask"]["size"] == 10

    said = daemon.ctl("explain", "BTC-PERPETUAL", "--json")
    explained = said.json["symbols"][0]
    assert explained["quoting"] and explained["gate_bid"] == explained["gate_ask"] == "passes"
    assert len(explained["steps"]) > 5 and all(check["ok"] for check in explained["checks"])

    assert daemon.ctl("plan").out.startswith("nothing would change")

    # --- a reload moves one symbol only ---
    first = order_ids(daemon.symbols())
    config = tmp_path / "mmd.yaml"
    good = config.read_text()
    edited = good.replace("ETH-PERPETUAL, spread: wide}", "ETH-PERPETUAL, spread: wide, size: 30}")
    config.write_text(edited)
    plan = daemon.ctl("plan", "--json").json
    assert (plan["ok"], plan["changed"], plan["unchanged"]) == (
        True,
        ["deribit/ETH-PERPETUAL"],
        ["deribit/BTC-PERPETUAL"],
    )
    assert daemon.status()["config_generation"] == 1
    assert daemon.ctl("reload").status == 0
    moved = daemon.until(
        lambda: (rows := daemon.quoting()) and rows["ETH-PERPETUAL"]["bid"]["size"] == 30 and rows, "the larger quote"
    )
    assert order_ids(moved)["BTC-PERPETUAL"] == first["BTC-PERPETUAL"]
    assert daemon.status()["config_generation"] == 2

    # --- a broken file changes nothing and says why ---
    config.write_text(edited.replace("max_position: 1000", "max_positon: 1000"))
    for word in ("plan", "reload"):
        said = daemon.ctl(word)
        assert said.status == 1
        assert re.search(r"mmd\.yaml:[0-9]+:[0-9]+: .*max_positon", said.err), said
    status = daemon.status()
    assert status["config_generation"] == 2 and "max_positon" in status["config_error"]
    assert order_ids(daemon.symbols())["BTC-PERPETUAL"] == first["BTC-PERPETUAL"]
    config.write_text(edited)
    assert daemon.ctl("reload").status == 0
    assert daemon.status()["config_error"] is None

    # --- pause, resume, halt, reset ---
    said = daemon.ctl("pause", "ETH-*", "--json")
    assert (said.status, daemon.states()["ETH-PERPETUAL"]) == (0, ("PAUSED", "operator"))
    assert daemon.symbols()["ETH-PERPETUAL"]["resting"] == 0
    assert daemon.states()["BTC-PERPETUAL"][0] == "ACTIVE"
    said = daemon.ctl("halt", "all", "--reason", "bad fills")
    assert said.status == 0
    assert set(daemon.states().values()) == {("HALTED", "operator")}
    assert all(row["resting"] == 0 for row in daemon.symbols().values())
    said = daemon.ctl("resume", "all", "--json")
    assert (said.status, said.json["outcome"]) == (1, "refused")
    assert "reset it first" in said.json["symbols"][0]["detail"]
    assert daemon.ctl("reset", "all").status == 2  # without a reason it is no command
    assert set(daemon.states().values()) == {("HALTED", "operator")}
    assert daemon.ctl("reset", "all", "--reason", "fills reviewed").status == 0
    assert set(daemon.states().values()) == {("PAUSED", "reset")}
    assert daemon.ctl("resume", "all").status == 0

    # --- unknown names, and who did what ---
    said = daemon.ctl("pause", "DOGE-*")
    assert said.status == 1 and "DOGE-*" in said.err
    commands = {event["name"]: event for event in daemon.events() if event["name"].startswith("command.")}
    assert commands["command.halt"]["by"] and "bad fills" in commands["command.halt"]["detail"]

    # --- stop ---
    before = set(tmp_path.iterdir())
    assert daemon.stop() == 0
    assert "service.stopped orders_left=0" in daemon.err
    assert set(tmp_path.iterdir()) == before - {daemon.socket}
    assert daemon.ctl("status").status == 3


def test_shadow_keeps_a_live_symbols_orders_here(tmp_path: Path, programs: list[Program]) -> None:
    daemon = Daemon(tmp_path, write_config(tmp_path / "mmd.yaml", mode="live"))
    programs.append(daemon)
    daemon.ready().start_quoting()
    assert {line["mode"] for line in daemon.ask("orders")["orders"]} == {"live"}
    assert daemon.ctl("shadow", "BTC-PERPETUAL", "--reason", "careful").status == 0
    modes = {name: row["mode"] for name, row in daemon.symbols().items()}
    assert modes == {"BTC-PERPETUAL": "shadow", "ETH-PERPETUAL": "live"}
    rows = daemon.until(daemon.quoting, "imagined quotes")
    assert rows["BTC-PERPETUAL"]["bid"]["order_id"].startswith("shadow-")
    assert daemon.ctl("reload").status == 0  # the operator's word outlives a reload
    assert daemon.symbols()["BTC-PERPETUAL"]["mode"] == "shadow"
    assert daemon.ctl("shadow", "BTC-PERPETUAL", "--off").status == 0
    rows = daemon.until(daemon.quoting, "real quotes")
    assert not rows["BTC-PERPETUAL"]["bid"]["order_id"].startswith("shadow-")
    assert daemon.stop(signal.SIGINT) == 0


def test_a_reload_that_nobody_confirms_undoes_itself(daemon: Daemon, tmp_path: Path) -> None:
    daemon.start_quoting()
    config = tmp_path / "mmd.yaml"
    good = config.read_text()
    first = order_ids(daemon.symbols())
    config.write_text(good.replace("ETH-PERPETUAL, spread: wide}", "ETH-PERPETUAL, spread: wide, size: 20}"))
    assert daemon.ctl("reload", "--confirm", "1").status == 0
    assert daemon.status()["confirm_deadline"] > time.time()
    assert daemon.ask("show", what="config")["config"].count("size: 20") == 1
    daemon.until(lambda: daemon.status()["config_generation"] == 3, "the way back")
    assert "size: 20" not in daemon.ask("show", what="config")["config"]
    assert daemon.status()["confirm_deadline"] is None
    assert order_ids(daemon.symbols())["BTC-PERPETUAL"] == first["BTC-PERPETUAL"]
    assert daemon.ctl("confirm").status == 1  # nothing waits any more
    assert daemon.ctl("reload", "--confirm", "30").status == 0
    assert daemon.ctl("confirm").status == 0
    assert daemon.status()["confirm_deadline"] is None
    assert daemon.stop() == 0


def test_sighup_reloads_and_log_and_statistics_follow_the_file(daemon: Daemon, tmp_path: Path) -> None:
    config = tmp_path / "mmd.yaml"
    good = config.read_text()
    config.write_text(good.replace("mode: shadow", "mode: shadow, log: {level: warning, format: json}"))
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(lambda: daemon.status()["config_generation"] == 2, "second generation")
    said = daemon.ctl("log-level", "debug", "--json")
    assert (said.status, said.json) == (0, {"detail": "debug, was warning"})
    config.write_text(good.replace("spread_bps: 200", "spread_bps: -1"))
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(lambda: daemon.status()["config_error"], "the refusal")
    assert daemon.status()["config_generation"] == 2
    config.write_text(good.replace("mode: shadow", "mode: shadow, statistics_seconds: 1, log: {format: json}"))
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(lambda: '"statistics.written"' in daemon.err, "a statistics line as JSON")
    assert "statistics.written orders" not in daemon.err
    assert daemon.stop() == 0


def test_events_stream_and_metrics_of_a_living_daemon(daemon: Daemon) -> None:
    follower = subprocess.Popen(
        [*MMDCTL, "--socket", str(daemon.socket), "events", "--follow", "--json", "--lines", "1"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment({}),
    )
    try:
        assert follower.stdout is not None
        seen = [json.loads(follower.stdout.readline())]
        daemon.start_quoting()
        while seen[-1]["name"] != "symbol.active":
            seen.append(json.loads(follower.stdout.readline()))
        assert [event["seq"] for event in seen] == list(range(seen[0]["seq"], seen[0]["seq"] + len(seen)))
        follower.send_signal(signal.SIGINT)
        follower.stdout.read()
        assert follower.wait(30) == 0
    finally:
        follower.kill()
        follower.wait()
        follower.stdout.close()

    page = httpx.get(f"{daemon.metrics_url}/metrics").text
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]

    def number(name: str, **labels: str) -> float:
        found = [one.value for one in samples if one.name == name and labels.items() <= one.labels.items()]
        assert len(found) == 1, (name, labels, found)
        return found[0]

    row = daemon.symbols()["BTC-PERPETUAL"]
    assert number("mmd_symbol_state", symbol="BTC-PERPETUAL", state="ACTIVE") == 1
    assert number("mmd_quote_price", symbol="BTC-PERPETUAL", side="bid") == row["bid"]["price"]
    assert number("mmd_orders_total", symbol="BTC-PERPETUAL", outcome="placed") >= 2
    assert number("mmd_ready") == 1
    assert httpx.get(f"{daemon.metrics_url}/-/ready").status_code == 200
    assert daemon.stop() == 0


def test_mmdctl_says_when_the_daemon_is_gone(tmp_path: Path) -> None:
    ran = subprocess.run([*MMDCTL, "--socket", str(tmp_path / "none.sock"), "status"], capture_output=True, check=False)
    assert ran.returncode == 3
    assert until(lambda: b"no daemon answers" in ran.stderr, "its words", 1)
