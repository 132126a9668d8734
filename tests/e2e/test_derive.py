"""`mmd run` on Derive, end to end: quotes rest, a halt and a stop leave nothing, a kill is reaped and inherited."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from house import ENTRIES, MMD, PATIENCE_SECONDS, WIDE, Daemon, DeriveExchange, Program, environment, write_config
from house import KEYS as ENV
from rigged_exchange import RiggedDerive

from mmd.sandbox.derive.known import SUBACCOUNT, WALLET

PERP = "ETH-PERP"
EXAMPLE = Path(__file__).parents[2] / "etc" / "examples" / "derive.yaml"


class Pair:
    """An exchange in a process of its own, and daemons that come and go on it."""

    def __init__(self, folder: Path, programs: list[Program], exchange: DeriveExchange) -> None:
        self.folder = folder
        self.programs = programs
        self.exchange = exchange
        programs.append(exchange)
        network = f'{{url: "{self.exchange.url}", chain: mainnet}}'
        self.config = write_config(folder / "mmd.yaml", exchange="derive", network=network, mode="live")

    def daemon(self) -> Daemon:
        daemon = Daemon(self.folder, self.config)
        self.programs.append(daemon)
        return daemon.ready()

    def reap(self, *words: str) -> tuple[int, Any]:
        """Exit status and certificate."""
        command = [*MMD, "reap", "-c", str(self.config), "--state-dir", str(self.folder / "state"), "--json", *words]
        ran = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment(ENV), timeout=2 * PATIENCE_SECONDS
        )
        return ran.returncode, json.loads(ran.stdout)

    def replayed(self) -> int:
        """How many decisions were the same as in the journal, which is whole: all of them."""
        state = ["--state-dir", str(self.folder / "state"), "--json"]
        for command in ("verify", "replay"):
            ran = subprocess.run(
                [*MMD, command, *state], capture_output=True, text=True, check=False, env=environment({})
            )
            assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"
        found = json.loads(ran.stdout)
        assert found["same"] and not found["skipped"] and not found["stops"], found
        return int(found["compared"])


@pytest.fixture
def pair(tmp_path: Path, programs: list[Program]) -> Pair:
    return Pair(tmp_path, programs, DeriveExchange(tmp_path))


def known(daemon: Daemon) -> dict[str, tuple[str, float, float]]:
    """What the daemon says of its orders: side, price and size by label."""
    sides = {"bid": "buy", "ask": "sell"}
    return {
        line["label"]: (sides[line["side"]], line["price"], line["size"]) for line in daemon.ask("orders")["orders"]
    }


def resting(exchange: DeriveExchange) -> dict[str, tuple[str, float, float]]:
    """The same of the exchange, where an order that was replaced has another id."""
    return {
        order["label"]: (
            order["direction"],
            float(order["limit_price"]),
            float(order["amount"]) - float(order["filled_amount"]),
        )
        for order in exchange.open_orders().values()
    }


def same_orders(daemon: Daemon, exchange: DeriveExchange) -> bool:
    """Both say the same, twice: nothing was under way in between."""
    return known(daemon) == resting(exchange) == known(daemon)


def example(folder: Path) -> Path:
    """The example's configuration, live in a sandbox of the daemon's own."""
    text = EXAMPLE.read_text().replace("network: testnet", "network: sandbox").replace("mode: shadow", "mode: live")
    kept = [line for line in text.splitlines() if "DERIVE_" not in line and "subaccount:" not in line]
    config = folder / "mmd.yaml"
    config.write_text("\n".join(kept).replace("name: mmd ", "name: mmd\n  metrics: {listen: null} "))
    return config


def test_the_example_quotes_in_the_sandbox(tmp_path: Path, programs: list[Program]) -> None:
    config = example(tmp_path)
    daemon = Daemon(tmp_path, config)
    programs.append(daemon)
    daemon.ready()
    symbols = daemon.symbols()
    assert len(symbols) == 7 and {row["state"] for row in symbols.values()} == {"PAUSED"}
    daemon.until(lambda: daemon.ask("resume", symbols=["all"])["outcome"] == "done", "resume")
    daemon.until(lambda: {row["state"] for row in daemon.symbols().values()} == {"ACTIVE"}, "all to be active")
    daemon.until(lambda: len(known(daemon)) >= 10, "quotes")
    assert daemon.ctl("halt", "all").status == 0  # returns once it is proven that nothing rests
    assert {state for state, _ in daemon.states().values()} == {"HALTED"}
    assert known(daemon) == {}
    assert daemon.stop() == 0


def test_the_exchange_holds_exactly_the_orders_that_mmdctl_shows(pair: Pair) -> None:
    daemon, exchange = pair.daemon(), pair.exchange
    assert resting(exchange) == {}
    daemon.start_quoting()
    daemon.until(lambda: len(known(daemon)) == 4 and same_orders(daemon, exchange), "the same four orders")
    assert daemon.ctl("pause", PERP).status == 0
    assert len(resting(exchange)) == 2
    assert daemon.ctl("halt", "all").status == 0
    assert resting(exchange) == {}
    assert daemon.stop() == 0


def test_a_stop_leaves_nothing_and_the_next_process_goes_on(pair: Pair) -> None:
    daemon, exchange = pair.daemon(), pair.exchange
    daemon.start_quoting()
    daemon.until(lambda: len(resting(exchange)) == 4, "four orders")
    assert daemon.stop() == 0
    assert resting(exchange) == {}
    again = pair.daemon()
    assert again.states() == dict.fromkeys(WIDE["derive"], ("PAUSED", "startup"))
    again.start_quoting()
    again.until(lambda: len(known(again)) == 4 and same_orders(again, exchange), "four orders again")
    assert again.stop() == 0


def test_a_killed_daemon_is_reaped_and_inherited_from(pair: Pair) -> None:
    daemon, exchange = pair.daemon(), pair.exchange
    daemon.start_quoting()
    daemon.until(lambda: len(resting(exchange)) == 4, "four orders")
    daemon.kill()
    status, certificate = pair.reap()
    assert (status, certificate["proven"]) == (0, True), certificate
    (line,) = certificate["exchanges"]
    assert line["account"] == f"{WALLET}/{SUBACCOUNT}"
    assert resting(exchange) == {}
    again = pair.daemon()
    again.start_quoting()
    again.until(lambda: len(known(again)) == 4 and same_orders(again, exchange), "four orders again")
    assert not again.events("case.opened")
    assert again.stop() == 0


def test_the_journal_of_a_killed_daemon_verifies_and_replays(pair: Pair) -> None:
    """Bit for bit, over the kill and the next life."""
    daemon = pair.daemon()
    daemon.start_quoting()
    daemon.kill()
    first = pair.replayed()
    again = pair.daemon()
    again.start_quoting()
    assert again.stop() == 0
    assert pair.replayed() > first > 0


def test_the_reaper_cancels_what_the_exchange_left_and_nobody_elses(tmp_path: Path, programs: list[Program]) -> None:
    """Its cancel-on-disconnect is armed, and fails."""
    exchange = RiggedDerive(tmp_path, str(SUBACCOUNT), 3)
    pair = Pair(tmp_path, programs, exchange)
    exchange.rig("keep", on=True)
    foreign = {
        exchange.rig("foreign", account=str(SUBACCOUNT), symbol=PERP, share=0.9, label=label)
        for label in (f"mmd-other-{PERP}-b-abc123-1", "by-hand")
    }
    daemon = pair.daemon()
    daemon.start_quoting()
    daemon.until(lambda: len(exchange.open_orders()) == 6, "four orders more")
    daemon.kill()
    assert len(exchange.open_orders()) == 6
    status, certificate = pair.reap()
    (line,) = certificate["exchanges"]
    assert (status, line["before"], line["cancelled"], line["after"], line["proven"]) == (0, 4, 4, 0, True)
    assert set(exchange.open_orders()) == foreign
    exchange.hang_up()


def test_a_look_of_the_reaper_cancels_nothing_beside_a_daemon(pair: Pair) -> None:
    """A socket that logs in and closes would cancel the whole wallet."""
    daemon, exchange = pair.daemon(), pair.exchange
    daemon.start_quoting()
    before = daemon.until(lambda: same_orders(daemon, exchange) and resting(exchange), "all orders")
    status, certificate = pair.reap("--dry-run", "--even-if-running")
    (line,) = certificate["exchanges"]
    assert (status, line["before"]) == (1, 4)
    assert resting(exchange).keys() == before.keys()
    assert daemon.stop() == 0


def test_a_second_daemon_of_the_wallet_does_not_start(pair: Pair, tmp_path: Path) -> None:
    first = pair.daemon()
    second = Daemon(tmp_path, pair.config, state=tmp_path / "elsewhere", socket=tmp_path / "second.sock")
    pair.programs.append(second)
    assert second.ended() == 70
    assert f"account {WALLET} of exchange derive" in second.err and "is in use" in second.err
    assert first.stop() == 0


def test_one_daemon_on_both_exchanges(tmp_path: Path, programs: list[Program]) -> None:
    config = write_config(tmp_path / "mmd.yaml", mode="live")
    text = config.read_text()
    for before, more in (
        ("market_data:", ENTRIES["derive"].format(network="sandbox")),
        ("instruments:", "  one: {fair: mid, style: around, spread_bps: 200, band_bps: 500, size: 1}\n"),
        ("limits:", "  - {exchange: derive, symbol: ETH-PERP, spread: one}\n"),
    ):
        text = text.replace(f"\n{before}", f"\n{more}{before}")
    config.write_text(text)
    daemon = Daemon(tmp_path, config)
    programs.append(daemon)
    daemon.ready()
    daemon.start_quoting()
    rows = daemon.status()["symbols"]
    assert {(row["exchange"], row["symbol"]) for row in rows} == {
        ("derive", "ETH-PERP"),
        ("deribit", "BTC-PERPETUAL"),
        ("deribit", "ETH-PERPETUAL"),
    }
    assert daemon.ctl("halt", "all").status == 0
    assert daemon.stop() == 0
