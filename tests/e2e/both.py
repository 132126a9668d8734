"""A Deribit and a Derive in a process each, and one daemon that quotes fifty symbols of each."""

import re
import subprocess
import urllib.request
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from house import (
    CLIENT_ID,
    ENTRIES,
    MMD,
    PATIENCE_SECONDS,
    Daemon,
    DeriveExchange,
    Exchange,
    Program,
    environment,
    until,
)
from rigged_exchange import Rigged, RiggedDerive

from mmd.sandbox.derive.known import SUBACCOUNT

T = TypeVar("T")
EACH = 50
TYPES = ("deribit", "derive")
SEED = 5
MARKET = ("--market", "generated", "--seed", str(SEED), "--no-rate-limits")
ACCOUNTS = {"deribit": CLIENT_ID, "derive": str(SUBACCOUNT)}  # as the levers call them

# Quotes far from the market that follow it closely: they move all the time, and nobody trades with them.
CONFIG = """\
version: 1
service: {{name: e2e, mode: live, metrics: {{listen: "127.0.0.1:0"}}}}
exchanges:
{exchanges}
market_data: {{stale_seconds: {stale_seconds}, max_jump_bps: 100000, max_jump_ticks: 1000000, auto_resume: true,
  auto_resume_seconds: 0.5}}
spreads:
  perp: {{style: around, spread_bps: 300, band_bps: 1000, size: 10, tolerance_bps: 0.1, refresh_seconds: 0.1}}
  option: {{style: around, spread_bps: 5000, band_bps: 10000, size: 1, tolerance_bps: 5, refresh_seconds: 0.5}}
instruments:
  - {{exchange: deribit, symbol: BTC-PERPETUAL, spread: perp}}
  - {{exchange: deribit, symbol: ETH-PERPETUAL, spread: perp}}
  - {{exchange: derive, symbol: BTC-PERP, spread: perp, size: 0.1}}
  - {{exchange: derive, symbol: ETH-PERP, spread: perp, size: 1}}
  - {{select: {{exchange: deribit, underlying: BTC, {options}}}, spread: option}}
  - {{select: {{exchange: derive, underlying: ETH, contract: linear, {options}}}, spread: option}}
limits:
  per_symbol: {{max_position: 1000, max_order_size: 100, max_order_value_usd: 1000000, collar_bps: 100000,
    max_drift_bps: 100000, max_drift_ticks: 1000000}}
  portfolio: {{max_exposure: {{BTC: 1000, ETH: 1000}}, max_notional_usd: 100000000, max_drawdown_usd: 1000000}}
kill_switches: {{ack_timeout: {{max_timeouts: 1000}}, disconnect_storm: {{max_disconnects: 1000}}}}
reconciliation: {{interval_seconds: 5}}
"""
PERPETUALS = "".join(line for line in CONFIG.splitlines(keepends=True) if "select:" not in line)
OPTIONS = "expiries: {nearest: 4}, strikes: {nearest_to_money: 6}, kinds: [call, put]"


class Both:
    """Both exchanges, the daemon beside them, and what each says. Symbols by exchange."""

    def __init__(
        self,
        folder: Path,
        programs: list[Program],
        exchanges: Sequence[Exchange],
        stale_seconds: float,
        *,
        text: str = CONFIG,
        each: int = EACH,
    ) -> None:
        """`text`: the configuration, with `each` symbols on each exchange."""
        self.folder = folder
        self.each = each
        self.programs = programs
        self.exchanges = dict(zip(TYPES, exchanges, strict=True))
        programs += exchanges
        urls = {name: exchange.url for name, exchange in self.exchanges.items()}
        entries = (
            ENTRIES["deribit"].format(network=f'{{url: "{urls["deribit"]}"}}')
            + ENTRIES["derive"].format(network=f'{{url: "{urls["derive"]}", chain: mainnet}}')
        ).rstrip()
        config = folder / "mmd.yaml"
        config.write_text(text.format(exchanges=entries, options=OPTIONS, stale_seconds=stale_seconds))
        self.daemon = Daemon(folder, config)
        programs.append(self.daemon)

    # --- looking ---------------------------------------------------------------------------------

    def rows(self, name: str) -> dict[str, dict[str, Any]]:
        """What the daemon says of the symbols of an exchange."""
        return {row["symbol"]: row for row in self.daemon.status()["symbols"] if row["exchange"] == name}

    def states(self, name: str) -> set[tuple[str, str]]:
        return {(row["state"], row["reason"]) for row in self.rows(name).values()}

    def since(self, name: str) -> dict[str, float]:
        """When each symbol came into its state."""
        return {symbol: row["since"] for symbol, row in self.rows(name).items()}

    def known(self, name: str) -> set[str]:
        """Labels of the orders that the daemon knows of there. They stay when an order moves."""
        return {line["label"] for line in self.daemon.ask("orders")["orders"] if line["exchange"] == name}

    def resting(self, name: str) -> set[str]:
        """The same of the exchange itself."""
        return {order["label"] for order in self.exchanges[name].open_orders().values()}

    def same_orders(self, name: str) -> bool:
        """Both say the same, twice: nothing came or went in between."""
        return len(self.known(name)) == 2 * self.each and self.known(name) == self.resting(name) == self.known(name)

    def positions(self, name: str) -> dict[str, Decimal]:
        """Those of the daemon that are not flat."""
        found = {symbol: Decimal(str(row["position"])) for symbol, row in self.rows(name).items()}
        return {symbol: position for symbol, position in found.items() if position}

    def exchange_positions(self, name: str) -> dict[str, Decimal]:
        """The same of a rigged exchange."""
        exchange = self.exchanges[name]
        assert isinstance(exchange, Rigged)
        found = exchange.rig("books", account=ACCOUNTS[name], since=0)["positions"]
        return {symbol: Decimal(size) for symbol, size in found.items()}

    def answered(self, name: str) -> int:
        """How many requests an exchange has answered."""
        with urllib.request.urlopen(f"{self.daemon.metrics_url}/metrics", timeout=PATIENCE_SECONDS) as answer:
            text = answer.read().decode()
        found = re.search(rf'^mmd_round_trip_seconds_count{{exchange="{name}"}} (\S+)$', text, re.MULTILINE)
        return int(float(found[1])) if found else 0

    def links(self, name: str) -> tuple[bool, bool]:
        (line,) = (line for line in self.daemon.status()["exchanges"] if line["name"] == name)
        return line["data_link"], line["trade_link"]

    # --- doing -----------------------------------------------------------------------------------

    def until(self, condition: Callable[[], T], what: str, seconds: float = PATIENCE_SECONDS) -> T:
        return self.daemon.until(condition, what, seconds)

    def quoting(self, name: str) -> bool:
        """Both sides of every symbol there rest, and all are ACTIVE."""
        rows = self.rows(name)
        assert len(rows) == self.each, sorted(rows)
        return all(
            row["state"] == "ACTIVE" and row[side]["phase"] == "LIVE"
            for row in rows.values()
            for side in ("bid", "ask")
        )

    def start(self) -> None:
        """All quote on both sides."""
        self.daemon.ready()
        self.until(lambda: all(len(self.rows(name)) == self.each for name in TYPES), f"{self.each} symbols of each")
        self.until(lambda: self.daemon.ask("resume", symbols=["all"])["outcome"] == "done", "resume")
        self.until(lambda: all(self.quoting(name) for name in TYPES), "both sides of every symbol")

    def end(self) -> None:
        """Nothing is left at either, no case was ever opened, and the journal verifies and replays."""
        assert not self.daemon.ask("cases", symbols=["all"], closed=True)["cases"]
        said = self.daemon.ctl("halt", "all")
        assert said.status == 0, said
        assert {name: self.resting(name) for name in TYPES} == {name: set() for name in TYPES}
        assert self.daemon.stop() == 0
        for words in (("verify",), ("replay", "--quiet")):
            ran = self.mmd(*words, "--state-dir", str(self.folder / "state"))
            assert ran.returncode == 0, f"{words}: {ran.stdout[-3000:]}{ran.stderr[-3000:]}"

    def mmd(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([*MMD, *words], capture_output=True, text=True, check=False, env=environment({}))


def plain(folder: Path, programs: list[Program], *, text: str = CONFIG, each: int = EACH) -> Both:
    """Two exchanges that can be killed, and started anew on their ports."""
    made = [Exchange(folder, *MARKET), DeriveExchange(folder, *MARKET)]
    return Both(folder, programs, made, 20.0, text=text, each=each)


def again(both: Both, name: str) -> Exchange:
    """The same exchange, in a new process that remembers nothing."""
    kind = {"deribit": Exchange, "derive": DeriveExchange}[name]
    both.exchanges[name] = kind(both.folder, *MARKET, port=both.exchanges[name].port)
    both.programs.append(both.exchanges[name])
    return both.exchanges[name]


class _Rig(Rigged):
    """That hangs up when it is cleared away."""

    def clear(self) -> None:
        self.hang_up()
        super().clear()


class _RigDerive(_Rig, RiggedDerive):
    """The same, of Derive."""


def rigged(
    folder: Path, programs: list[Program], stale_seconds: float, *, text: str = CONFIG, each: int = EACH
) -> Both:
    """Two exchanges that can be provoked: `Rigged.rig`."""
    places = [folder / name for name in TYPES]
    for place in places:
        place.mkdir()
    kinds = (_Rig, _RigDerive)
    made = [kind(place, ACCOUNTS[name], SEED) for kind, place, name in zip(kinds, places, TYPES, strict=True)]
    return Both(folder, programs, made, stale_seconds, text=text, each=each)


def pace(both: Both, name: str, seconds: float) -> float:
    """Requests that an exchange answers in a second, over about so many."""
    before, began = both.answered(name), monotonic()
    until(lambda: monotonic() - began >= seconds, "the end of the measurement", 2 * seconds)
    return (both.answered(name) - before) / (monotonic() - began)
