"""A live daemon killed again and again beside an exchange in another process, and what each next life must know.

One seed draws every round: at which moment, how long after its beginning, whether what is left rests on, how
often it is traded with while nobody is there, and whether `mmd reap` comes first. When exactly the signal
hits depends on the machine.
"""

import json
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from threading import Thread
from typing import Any

from house import CLIENT_SECRET, MMD, PATIENCE_SECONDS, Daemon, Exchange, Program, environment, until

from mmd.cli import mmd as mmd_program
from mmd.domain.errors import MmdError
from mmd.domain.events import OrderFilled
from mmd.journal.reader import records, verify
from mmd.journal.records import Batch

RIGGED = Path(__file__).with_name("rigged.py")
PERP = "BTC-PERPETUAL"
OUR_LABEL = "mmd-e2e-"
REAP_STATUS = {"proven": True, "ended": "", "dry_run": False}

CONFIG = """\
version: 1
service: {{name: e2e, mode: live}}
exchanges:
  deribit:
    type: deribit
    network: {{url: "{url}"}}
    order_valid_ms: 500
    credentials: {{client_id: {{env: E2E_ID}}, client_secret: {{env: E2E_SECRET}}}}
market_data: {{stale_seconds: 30, max_jump_bps: 100000, max_jump_ticks: 100000}}
spreads:
  perp: {{style: around, spread_bps: {width}, band_bps: 1000, size: {size}, tolerance_bps: 0.3, refresh_seconds: 0.1}}
  option: {{style: around, spread_bps: 400, band_bps: 8000, size: 0.5, tolerance_bps: 20, refresh_seconds: 0.1,
    requote: replace}}
instruments:
  - {{exchange: deribit, symbol: BTC-PERPETUAL, spread: perp}}
{eth}
  - {{exchange: deribit, symbol: {option}, spread: option}}
limits:
  per_symbol: {{max_position: 100000, max_order_size: 1000, collar_bps: 2000, max_fills: 100000, max_rejects: 1000}}
  per_kind: {{option: {{max_position: 20, max_order_size: 1, collar_bps: 20000}}}}
  portfolio: {{max_exposure: {{BTC: 200, ETH: 500}}, max_notional_usd: 50000000, max_drawdown_usd: 500000}}
kill_switches: {{ack_timeout: {{max_timeouts: 1000}}, disconnect_storm: {{max_disconnects: 1000}}}}
reconciliation: {{interval_seconds: 2}}
journal: {{segment_mib: 0.25, reserve_mib: 1, fsync: {fsync}}}
"""
ETH = "  - {exchange: deribit, symbol: ETH-PERPETUAL, spread: perp}"


class Moment(StrEnum):
    """In the middle of what it is killed."""

    START = "start-up"
    RESUME = "resume"
    TRADE = "trading"
    SNAPSHOT = "snapshots"
    RELOAD = "reload"
    HALT = "halt"
    STOP = "stop"


# The longest wait between the beginning of it and the signal.
WINDOW_SECONDS = {
    Moment.START: 3.5,
    Moment.RESUME: 0.1,
    Moment.TRADE: 0.1,
    Moment.SNAPSHOT: 0.02,
    Moment.RELOAD: 0.25,
    Moment.HALT: 0.05,
    Moment.STOP: 0.15,
}
DECK = (*Moment, Moment.TRADE, Moment.START, Moment.RELOAD)  # some more often than others


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One round as the seed has it."""

    number: int
    moment: Moment
    share: float  # of the moment's window
    kept: bool  # cancel-on-disconnect is without effect
    dead_hits: int  # so often what rests is traded with while nobody is there
    pace: float  # trades with our orders a second, while the next life begins
    by_hand: bool  # a person trades on the account meanwhile
    reap: bool
    requests_ms: int  # how late requests arrive, and answers
    answers_ms: int
    fills: int  # to wait for in this life


def draws(seed: str, count: int, reap_every: int = 4) -> list[Draw]:
    """Every moment about as often as the deck has it, half of the rounds with orders left over."""
    drawn, deck = random.Random(seed), list[Moment]()
    kept = [number % 2 == 0 for number in range(count)]
    reaps = [number % reap_every == 0 for number in range(count)]
    drawn.shuffle(kept)
    drawn.shuffle(reaps)
    rounds = []
    for number in range(count):
        if not deck:
            deck = drawn.sample(DECK, len(DECK))
        late = drawn.choice([(0, 0), (0, 0), (drawn.randint(5, 80), 0), (0, drawn.randint(5, 80))])
        rounds.append(
            Draw(
                number=number,
                moment=deck.pop(),
                share=drawn.random(),
                kept=kept[number],
                dead_hits=drawn.choice([0, 1, 2, 4]),
                pace=drawn.choice([0.0, 3.0, 10.0]),
                by_hand=drawn.random() < 0.15,
                reap=reaps[number],
                requests_ms=late[0],
                answers_ms=late[1],
                fills=drawn.choice([1, 2, 4]),
            )
        )
    return rounds


@dataclass
class Seen:
    """What happened in one round."""

    draw: Draw
    alive: int = 0  # executions until the kill
    dead: int = 0  # between the kill and the next word of a daemon
    starting: int = 0  # while the next life began
    left: int = 0  # orders of ours that rested after the kill
    reaped: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


class Rigged(Exchange):
    """`rigged.py` and its second port."""

    def __init__(self, folder: Path, account: str, seed: int) -> None:
        words = ["sandbox", "--listen", "127.0.0.1:0", "--market", "generated", "--seed", str(seed), "--no-rate-limits"]
        where = folder / "rigged.port"
        Program.__init__(self, [sys.executable, str(RIGGED), *words], folder, "sandbox", env={"RIGGED_PORT": str(where)})
        self.url = self.until(lambda: self.out.partition("\n")[0] if "\n" in self.out else "", "ready line")
        self.port = int(self.url.partition("127.0.0.1:")[2].partition("/")[0])
        self.account = account
        self._socket = socket.create_connection(("127.0.0.1", int(where.read_text())), PATIENCE_SECONDS)
        self._answers = self._socket.makefile("rb")

    def rig(self, do: str, **params: Any) -> Any:
        """One command to the rig; AssertionError with its complaint."""
        self._socket.sendall(json.dumps({"do": do, **params}).encode() + b"\n")
        said = json.loads(self._answers.readline())
        assert "error" not in said, (do, params, said)
        return said["said"]

    def hang_up(self) -> None:
        self._answers.close()
        self._socket.close()

    def option(self) -> str:
        """A call near the money that lives for a week."""
        index = self.call("public/get_index_price", index_name="btc_usd")["index_price"]
        listed = self.call("public/get_instruments", currency="BTC", kind="option", expired="false")
        soon = (time.time() + 7 * 86400) * 1000
        calls = [row for row in listed if row["option_type"] == "call" and row["expiration_timestamp"] > soon]
        calls.sort(key=lambda row: (row["expiration_timestamp"], abs(row["strike"] - index)))
        return str(calls[0]["instrument_name"])


class World:
    """One exchange, one account, one state directory, and daemon after daemon."""

    def __init__(self, folder: Path, programs: list[Program], seed: str) -> None:
        self.folder = folder
        self.programs = programs
        self.seed = seed
        self.account = "killing"
        self.exchange = Rigged(folder, self.account, random.Random(seed).randrange(2**31))
        programs.append(self.exchange)
        self.config = folder / "mmd.yaml"
        self.state = folder / "state"
        self.journal = self.state / "journal"
        self.option = self.exchange.option()
        self.fsync = random.Random(seed).choice(["always", "interval", "never"])
        self.generation = 0
        self.daemon: Daemon | None = None
        self.seen: list[Seen] = []
        self.halted = False  # a halt was confirmed: it outlives the process
        self.trades: list[dict[str, Any]] = []  # the exchange's list of the account's executions
        self._journalled: set[tuple[str, str]] = set()
        self._read = 0  # the last record that was read
        self.foreign = {
            self.exchange.rig("foreign", account=self.account, symbol=PERP, share=share, label=label)
            for share, label in ((0.95, "by-hand"), (1.05, ""), (0.96, f"mmd-other-{PERP}-b-abc123-1"))
        }
        self.write()

    # --- the parts -----------------------------------------------------------------------------------

    def write(self) -> None:
        """A configuration, different each time; every third has a symbol less."""
        self.generation += 1
        text = CONFIG.format(
            url=self.exchange.url,
            width=(6, 8, 10)[self.generation % 3],
            size=(100, 150)[self.generation % 2],
            eth="" if self.generation % 3 == 2 else ETH,
            option=self.option,
            fsync=self.fsync,
        )
        self.config.write_text(text)

    def spawn(self) -> Daemon:
        self.daemon = Daemon(self.folder, self.config, env={"E2E_ID": self.account})
        self.programs.append(self.daemon)
        return self.daemon

    def bury(self, daemon: Daemon) -> None:
        daemon.kill()
        self.programs.remove(daemon)
        self.daemon = None

    def rig(self, do: str, **params: Any) -> Any:
        return self.exchange.rig(do, account=self.account, **params)

    def books(self) -> dict[str, Any]:
        """The exchange's own, now; its new executions are added to `trades`."""
        found: dict[str, Any] = self.rig("books", since=len(self.trades))
        self.trades += found["trades"]
        return found

    def ours(self) -> dict[str, dict[str, Any]]:
        """Open orders of our label, by id."""
        return {order["id"]: order for order in self.books()["orders"] if order["label"].startswith(OUR_LABEL)}

    def until(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
        assert self.daemon is not None
        return self.daemon.until(condition, what, seconds)

    # --- one round -----------------------------------------------------------------------------------

    def round(self, draw: Draw) -> Seen:
        """Live, die, come back, be judged. AssertionError with what is wrong."""
        began, seen = time.monotonic(), Seen(draw)
        self.seen.append(seen)
        self.exchange.rig("keep", on=draw.kept)
        self.exchange.rig("weather", requests_ms=draw.requests_ms, answers_ms=draw.answers_ms)
        traded = self.books()["traded"]
        self.live(draw)
        seen.alive = self.books()["traded"] - traded
        self.lie_dead(draw, seen)
        traded = len(self.trades)
        self.rig("pace", per_second=draw.pace)
        self.spawn().ready()
        self.rig("pace", per_second=0)
        seen.starting = self.books()["traded"] - traded
        self.judge(draw)
        seen.seconds = time.monotonic() - began
        return seen

    def live(self, draw: Draw) -> None:
        """From ready to killed."""
        daemon = self.daemon
        assert daemon is not None
        pause = draw.share * WINDOW_SECONDS[draw.moment]
        if draw.moment is Moment.RESUME:
            self.reset()
            self.asked(daemon, "resume", symbols=["all"])
        else:
            self.quote()
            self.rig("pace", per_second=12)
            target = len(self.trades) + draw.fills
            self.until(lambda: self.books()["traded"] >= target, "fills")
        match draw.moment:
            case Moment.SNAPSHOT:
                number = self.segment()
                self.until(lambda: self.segment() > number, "the next segment")
            case Moment.RELOAD:
                self.write()
                daemon.process.send_signal(signal.SIGHUP)
            case Moment.HALT:
                self.asked(daemon, "halt", symbols=["all"])
            case Moment.STOP:
                daemon.process.send_signal(signal.SIGTERM)
            case Moment.START:
                self.bury(daemon)
                daemon = self.spawn()
            case _:
                pass
        time.sleep(pause)  # the moment itself: nothing is waited for
        self.bury(daemon)
        self.rig("pace", per_second=0)

    def asked(self, daemon: Daemon, method: str, **params: Any) -> None:
        """Ask, and do not wait for an answer, which may never come."""

        def ask() -> None:
            with suppress(MmdError):
                outcome = daemon.ask(method, **params)["outcome"]
                self.halted = self.halted or (method, outcome) == ("halt", "done")

        thread = Thread(target=ask, daemon=True)
        thread.start()
        self.asking = thread
