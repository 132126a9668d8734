"""A live daemon killed again and again beside an exchange in another process, and what each next life must know.

`killing_plan.py` draws the rounds. When exactly the signal hits depends on the machine.
"""

import json
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from threading import Event, Thread
from typing import Any

from house import KEYS, MMD, PATIENCE_SECONDS, Daemon, Program, environment, until
from killing_plan import DERIBIT, WINDOW_SECONDS, Draw, Moment, Seen, Spoken, draws
from rigged_exchange import EXCHANGES

from mmd.domain.errors import MmdError
from mmd.domain.events import OrderFilled
from mmd.journal.reader import records, verify
from mmd.journal.records import Batch, Note

OUR_LABEL = "mmd-e2e-"
JUDGE_SECONDS = 15.0
SIDES = {"buy": "bid", "sell": "ask"}
REAP_STATUS = {"proven": True, "ended": "", "dry_run": False}


class World:
    """One exchange, one account, one state directory, and daemon after daemon."""

    def __init__(self, folder: Path, programs: list[Program], seed: str, spoken: Spoken = DERIBIT) -> None:
        self.folder = folder
        self.programs = programs
        self.seed = seed
        self.spoken = spoken
        self.account = spoken.account
        self.exchange = EXCHANGES[spoken](folder, self.account, random.Random(seed).randrange(2**31))
        programs.append(self.exchange)
        self.config = folder / "mmd.yaml"
        self.state = folder / "state"
        self.journal = self.state / "journal"
        self.option = self.exchange.option()
        self.fsync = random.Random(seed).choice(["always", "interval", "never"])
        self.generation = 0
        self.daemon: Daemon | None = None
        self.seen: list[Seen] = []
        self.asking: Thread | None = None
        self.halted = False  # a halt was confirmed: it outlives the process
        self.trades: list[dict[str, Any]] = []  # the exchange's list of the account's executions
        self._journalled: set[tuple[str, str]] = set()
        self._excused: set[tuple[str, str]] = set()  # executions in a symbol that no daemon was told to trade
        self.cases: list[str] = []  # that were ever opened
        self._read = 0  # the last record that was read
        self.foreign: set[str] = set()  # orders of others on the account
        self.plant()
        self.write()

    def plant(self) -> None:
        """Orders of others."""
        perp = self.spoken.perp
        self.foreign = {
            self.rig("foreign", symbol=perp, share=share, label=label)
            for share, label in ((0.95, "by-hand"), (1.05, ""), (0.96, f"mmd-other-{perp}-b-abc123-1"))
        }

    # --- the parts -----------------------------------------------------------------------------------

    def write(self) -> None:
        self.generation += 1
        text = self.spoken.config(
            url=self.exchange.url, generation=self.generation, option=self.option, fsync=self.fsync
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
        before = self.books()
        self.live(draw)
        seen.alive = self.books()["traded"] - before["traded"]
        self.lie_dead(draw, seen)
        traded = len(self.trades)
        self.rig("pace", per_second=draw.pace)
        self.spawn().ready()
        books = self.books()
        assert not books["coming"], f"ready, and {books['coming']} requests of the dead one have not arrived"
        self.rig("pace", per_second=0)
        books = self.books()
        seen.starting, seen.outlived = books["traded"] - traded, books["outlived"] - before["outlived"]
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
        if draw.outlive_ms:
            self.exchange.rig("weather", requests_ms=draw.outlive_ms, answers_ms=0)
            self.rig("hit", count=2)  # so that new orders are on their way
        with suppress(subprocess.TimeoutExpired):
            daemon.process.wait(pause)  # a stop may be over before
        self.bury(daemon)
        self.rig("pace", per_second=0)
        if self.asking is not None:
            self.asking.join(PATIENCE_SECONDS)
            self.asking = None

    def asked(self, daemon: Daemon, method: str, **params: Any) -> None:
        """Ask, and do not wait for an answer, which may never come."""

        def ask() -> None:
            with suppress(MmdError):
                outcome = daemon.ask(method, **params)["outcome"]
                self.halted = self.halted or (method, outcome) == ("halt", "done")

        self.asking = Thread(target=ask, daemon=True)
        self.asking.start()

    def segment(self) -> int:
        """The newest file's number."""
        return max(int(path.name[8:16]) for path in self.journal.glob("journal-*"))

    def has_every_state(self) -> bool:
        """Recovery would begin with the newest file, and that is not the first."""
        number = self.segment()
        newest = self.journal / f"journal-{number:08}.jsonl"
        return number > 1 and newest.exists() and b'"kind":"snapshotsdone"' in newest.read_bytes()

    def reset(self) -> None:
        """What was halted is released by a person."""
        assert self.daemon is not None
        halted = [name for name, (state, _) in self.daemon.states().items() if state == "HALTED"]
        if halted:
            said = self.daemon.ask("reset", symbols=halted, reason="looked at it")
            assert said["outcome"] == "done", said
        self.halted = False

    def quote(self) -> None:
        """An order of every symbol rests."""
        daemon = self.daemon
        assert daemon is not None
        self.reset()
        self.until(lambda: daemon.ask("resume", symbols=["all"])["outcome"] == "done", "resume")
        names = set(daemon.symbols())
        self.until(lambda: {order["symbol"] for order in self.ours().values()} == names, "an order of every symbol")

    # --- nobody is there -----------------------------------------------------------------------------

    def lie_dead(self, draw: Draw, seen: Seen) -> None:
        """What rests is traded with; a person trades; perhaps the reaper comes."""
        traded = len(self.trades)
        if draw.kept:
            seen.left = len(self.ours())
        else:
            # Requests that were on their way may still arrive; of those, nobody cancels anything.
            with suppress(AssertionError):
                until(lambda: not self.ours(), "cancel on disconnect", 0.5)
            seen.left = len(self.ours())
        self.rig("hit", count=draw.dead_hits)
        if draw.by_hand:
            side = ("buy", "sell")[draw.number % 2]
            assert self.rig("elsewhere", symbol=self.spoken.perp, side=side, amount=self.spoken.by_hand)
        if draw.reap:
            seen.reaped = self.reap()
        seen.dead = self.books()["traded"] - traded

    def reap(self) -> int:
        """`mmd reap`: its certificate says 0 left, and the exchange's own book says so too. How many it cancelled."""
        words = [*MMD, "reap", "-c", str(self.config), "--state-dir", str(self.state), "--json"]
        env = environment({**KEYS, "E2E_ID": self.account})
        ran = subprocess.run(words, capture_output=True, text=True, check=False, env=env, timeout=2 * PATIENCE_SECONDS)
        assert ran.returncode == 0, f"reap: {ran.returncode} {ran.stderr} {ran.stdout}"
        certificate = json.loads(ran.stdout)
        coming = self.books()["coming"]
        assert not coming, f"certified, and {coming} requests of the dead daemon have not arrived"
        assert REAP_STATUS.items() <= certificate.items(), certificate
        assert [line["after"] for line in certificate["exchanges"]] == [0], certificate
        assert self.ours() == {}, f"certified as empty: {self.ours()}"
        return int(certificate["exchanges"][0]["cancelled"])

    # --- the judge -----------------------------------------------------------------------------------

    def judge(self, draw: Draw) -> None:
        """The exchange's books against the daemon's, once it says that it is ready."""
        self.states(draw)
        different: list[str] = []

        def agree() -> bool:
            different[:] = self.differences()
            return not different

        try:
            self.until(agree, "the same books", JUDGE_SECONDS)
        except AssertionError as late:
            raise AssertionError(f"{different}\n{late}") from None
        self.states(draw)
        assert not self.cases, f"nothing was wrong, and yet: {self.cases}"
        report = verify(self.journal)
        assert report.whole, report
        rows = self.daemon.symbols() if self.daemon is not None else {}
        self._excused.update(self.mark(trade) for trade in self.trades if trade["symbol"] not in rows)
        gone = self.foreign - {order["id"] for order in self.books()["orders"]}
        if gone == self.foreign and self.spoken.derive and not draw.kept:
            self.plant()
        else:
            assert not gone, f"orders of others are gone: {gone}"

    def states(self, draw: Draw) -> None:
        """Everything is PAUSED, or HALTED where an operator did it."""
        assert self.daemon is not None
        allowed = {"HALTED"} if self.halted else {"PAUSED", "HALTED"} if draw.moment is Moment.HALT else {"PAUSED"}
        for name, row in self.daemon.symbols().items():
            assert row["state"] in allowed, f"{name}: {row['state']} ({row['reason']}: {row['detail']}), not {allowed}"
            assert row["state"] == "PAUSED" or row["reason"] == "operator", row

    def differences(self) -> list[str]:
        """Between the exchange's books and the daemon's; empty if there is none."""
        daemon = self.daemon
        assert daemon is not None
        rows = daemon.symbols()
        ours, books = self.known_orders(), self.books()
        found: list[str] = []
        labelled = [(order["id"], order["label"]) for order in books["orders"]]
        theirs = sorted((self.spoken.shown(*row), row[1]) for row in labelled if row[1].startswith(OUR_LABEL))
        if ours != theirs or self.known_orders() != ours:
            found.append(f"orders: the daemon's {ours}, the exchange's {theirs}")
        for line in daemon.ask("positions")["positions"]:
            position = Decimal(books["positions"].get(line["symbol"], 0))
            if Decimal(str(line["position"])) != position:
                found.append(f"{line['symbol']}: position {line['position']}, the exchange's {position}")
        if set(books["positions"]) - set(rows) - {self.spoken.other}:
            found.append(f"positions of {sorted(books['positions'])}, symbols {sorted(rows)}")
        found += [f"open: {case}" for case in daemon.ask("cases")["cases"]]
        self.read_journal()
        known = self._journalled | self._excused
        lost = [trade for trade in self.trades if trade["symbol"] in rows and self.mark(trade) not in known]
        return found + [f"lost: {trade}" for trade in lost]

    def known_orders(self) -> list[tuple[str, str]]:
        """What the daemon says of its orders: id and label; one of unknown fate has no id."""
        assert self.daemon is not None
        return sorted((line["order_id"] or "", line["label"]) for line in self.daemon.ask("orders")["orders"])

    def mark(self, trade: dict[str, Any]) -> tuple[str, str]:
        """One execution of one order."""
        return self.spoken.mark(trade["id"], trade["order_id"], SIDES[trade["side"]])

    def read_journal(self) -> None:
        """What is new in it."""
        for record in records(self.journal, self._read + 1):
            self._read = record.seq
            if isinstance(record, Batch):
                fills = [event for event in record.events if isinstance(event, OrderFilled)]
                self._journalled.update(self.spoken.mark(fill.trade_id, fill.order_id, fill.side) for fill in fills)
            elif isinstance(record, Note) and record.name == "case.opened":
                self.cases.append(record.detail)

    # --- the end -------------------------------------------------------------------------------------

    def finish(self) -> None:
        """A clean stop; then the whole journal: verified, replayed, and its fills are the exchange's."""
        assert self.daemon is not None
        self.quote()
        assert self.daemon.stop() == 0, self.daemon.err
        assert self.ours() == {}
        assert verify(self.journal).tail is None
        state = ["--state-dir", str(self.state)]
        self.mmd("verify", *state)
        self.mmd("replay", *state, "--quiet")
        rows = [
            json.loads(line)
            for line in self.mmd("journal", "export", *state, "--format", "jsonl", "--what", "fills").splitlines()
        ]
        mark = self.spoken.mark
        fills = Counter(
            (
                *mark(row["trade_id"], row["order_id"], row["side"]),
                row["symbol"],
                row["side"],
                Decimal(row["price"]),
                Decimal(row["size"]),
            )
            for row in rows
        )
        trades = Counter(
            (*self.mark(trade), trade["symbol"], SIDES[trade["side"]], Decimal(trade["price"]), Decimal(trade["size"]))
            for trade in self.trades
        )
        assert fills - trades == Counter(), f"counted twice, or never happened: {fills - trades}"
        lost = {key: count for key, count in (trades - fills).items() if key[:2] not in self._excused}
        assert not lost, f"lost: {lost}"

    def mmd(self, *words: str) -> str:
        """A command that must succeed; what it printed."""
        ran = subprocess.run([*MMD, *words], capture_output=True, text=True, check=False, env=environment({}))
        assert ran.returncode == 0, f"{words}: {ran.returncode}\n{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}"
        return ran.stdout


# --- many rounds ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What came of one seed."""

    seed: str
    worlds: list[World]
    seconds: float

    @property
    def rounds(self) -> list[Seen]:
        return [seen for world in self.worlds for seen in world.seen]


OUTCOMES: list[Outcome] = []


def run(world: World, rounds: list[Draw], failed: Event) -> None:
    """These rounds, and the end; no more after `failed`. AssertionError names seed and round."""
    try:
        world.spawn().ready()
        for draw in rounds:
            if failed.is_set():
                return
            world.round(draw)
        world.finish()
    except (AssertionError, MmdError, OSError, subprocess.SubprocessError, ValueError) as wrong:
        failed.set()
        last = world.seen[-1].draw if world.seen else "before the first round"
        raise AssertionError(f"seed {world.seed}: {last}\nin {world.folder}:\n{wrong}") from wrong
    finally:
        world.exchange.hang_up()


def run_all(
    folder: Path, programs: list[Program], seed: str, count: int, worlds: int = 2, spoken: Spoken = DERIBIT
) -> Outcome:
    """So many rounds in so many worlds at once; the first AssertionError, if any."""
    began, rounds = time.monotonic(), draws(seed, count)
    made, failed = [], Event()
    for number in range(worlds):
        place = folder / f"world-{number}"
        place.mkdir()
        made.append(World(place, programs, f"{seed}, world {number}", spoken))
    with ThreadPoolExecutor(worlds) as threads:
        ends = [threads.submit(run, world, rounds[number::worlds], failed) for number, world in enumerate(made)]
    for end in ends:
        end.result()
    outcome = Outcome(seed, made, time.monotonic() - began)
    OUTCOMES.append(outcome)
    return outcome


def table(outcome: Outcome) -> list[str]:
    """One line for each moment, and what is true of all rounds."""
    head = [
        "killed in",
        "rounds",
        "orders rest on",
        "fills before",
        "dead",
        "starting",
        "left",
        "late",
        "reaps",
        "reaped",
        "s",
    ]
    rows = []
    for name in (*Moment, None):
        seen = [one for one in outcome.rounds if name in (None, one.draw.moment)]
        reaps = [one for one in seen if one.draw.reap]
        rows.append(
            [
                name or "all",
                f"{len(seen)}",
                f"{sum(one.draw.kept for one in seen)}",
                f"{sum(one.alive for one in seen)}",
                f"{sum(one.dead for one in seen)}",
                f"{sum(one.starting for one in seen)}",
                f"{sum(one.left for one in seen)}",
                f"{sum(one.outlived for one in seen)}",
                f"{len(reaps)}",
                f"{sum(one.reaped for one in reaps)}",
                f"{sum(one.seconds for one in seen) / max(1, len(seen)):.1f}",
            ]
        )
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    lines = [
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [head, *rows]
    ]
    trades = sum(len(world.trades) for world in outcome.worlds)
    files = sum(world.segment() for world in outcome.worlds)
    return [
        f"{outcome.worlds[0].spoken.exchange}, seed {outcome.seed}: {len(outcome.rounds)} rounds in "
        f"{len(outcome.worlds)} worlds, {outcome.seconds:.0f} s, {trades} executions, {files} journal files",
        *lines,
    ]
