"""A daemon's journal, exported: its rows agree with the exchange's own books and with what the daemon counted."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import jsonschema
import pytest
import trio
from still import BTC, CONFIG, ETH, OPERATOR, START_NS, House, StillMarket

from mmd.cli import mmd as program
from mmd.config.load import load_text
from mmd.config.model import ExchangeConfig
from mmd.journal.reader import lines
from mmd.sandbox.model import Direction
from mmd.sandbox.serve import Sandbox
from mmd.shell import wiring
from mmd.shell.daemon import Daemon
from mmd.shell.desk import EventQuery, Outcome, ShadowStatus

AMENDING = CONFIG.replace("size: 10}", "size: 10, requote: amend}")
Rows = list[dict[str, str]]
SCHEMA = Path(__file__).parents[2] / "schemas" / "event.schema.json"


@asynccontextmanager
async def kept(
    monkeypatch: pytest.MonkeyPatch, state: Path, text: str = AMENDING, later: int = 0
) -> AsyncIterator[House]:
    """A daemon that keeps its journal; `later`: seconds after START_NS."""
    market = StillMarket()
    made: list[Sandbox] = []

    def make_sandbox(config: ExchangeConfig, wall_ns: Callable[[], int]) -> Sandbox:
        made.append(Sandbox(market, wall_clock_ns=wall_ns))
        return made[-1]

    monkeypatch.setattr(wiring, "make_sandbox", make_sandbox)
    daemon = Daemon(load_text(text), Path("mmd.yaml"), lambda: START_NS + later * 10**9, state=state)
    house = House(daemon, made[0], market)
    async with trio.open_nursery() as nursery:
        await nursery.start(daemon.run)
        yield house
        await house.stop()
        nursery.cancel_scope.cancel()


def exported(state: Path, capsys: pytest.CaptureFixture[str], *words: str) -> Rows:
    capsys.readouterr()
    assert program.main(["journal", "export", "--state-dir", str(state), "--format", "jsonl", *words]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def happened(rows: Rows, symbol: str) -> Counter[str]:
    return Counter(row["event"] for row in rows if row["symbol"] == symbol)


def sell_to_us(house: House, name: str, amount: int = 10) -> None:
    """Through the only anonymous bid up to ours."""
    house.set_book(name, [(-1, 10)], [(1, 1000)])
    house.take(name, Direction.SELL, 10 + amount)


def buy_from_us(house: House, name: str) -> None:
    house.set_book(name, [(-1, 1000)], [(1, 10)])
    house.take(name, Direction.BUY, 20)


async def trade(house: House) -> None:
    """Quotes, fills on both sides, a market that moves, a halt."""
    await house.quote()
    house.set_book(BTC, [(99, 1000)], [(101, 1000)])
    await house.until(lambda: house.daemon.counters.symbols[f"deribit/{BTC}"].amended > 1)
    house.set_book(BTC, [(-1, 1000)], [(1, 1000)])
    await trio.sleep(2)
    sell_to_us(house, BTC)
    await house.until(lambda: house.row(BTC).position == 10)
    house.set_book(BTC, [(-1, 1000)], [(1, 1000)])
    await house.until(lambda: house.both_live(BTC))
    buy_from_us(house, BTC)
    buy_from_us(house, ETH)
    await house.until(lambda: (house.row(BTC).position, house.row(ETH).position) == (0, -10))
    assert (await house.daemon.halt(["all"], "enough", OPERATOR, 10.0)).outcome is Outcome.DONE


async def test_the_rows_agree_with_the_exchange_and_the_counters(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], autojump_clock: object
) -> None:
    async with kept(monkeypatch, tmp_path) as house:
        await trade(house)
        positions = {name: house.position(name) for name in (BTC, ETH)}
        counted = {name: house.daemon.counters.symbols[f"deribit/{name}"] for name in (BTC, ETH)}
        told = len(house.events("order.filled"))
        sha256 = house.daemon.in_force.sha256

    orders, fills = exported(tmp_path, capsys), exported(tmp_path, capsys, "--what", "fills")
    assert len(fills) == told == len({(row["trade_id"], row["side"]) for row in fills}) > 2
    for name in (BTC, ETH):
        events = happened(orders, name)
        assert events["place"] - events["withheld"] == counted[name].placed
        assert events["amend"] == counted[name].amended
        assert events["cancel"] == counted[name].cancelled
        mine = [row for row in fills if row["symbol"] == name]
        assert events["filled"] == len(mine) == counted[name].fills
        signed = [Decimal(row["size"]) * (1 if row["side"] == "bid" else -1) for row in mine]
        assert sum(signed) == positions[name] == Decimal(mine[-1]["position_after"])
        assert {row["authorised_by"] for row in mine} == {"tester (uid 1000)"}
    assert {row["config_sha256"] for row in [*orders, *fills]} == {sha256}
    assert all(row["mode"] == "live" and row["label"].startswith("mmd-still-") for row in orders)

    states = [row for row in exported(tmp_path, capsys, "--what", "states") if row.get("symbol") == BTC]
    moves = [(row["old"], row["new"], row["why"]) for row in states if row["event"] == "state"]
    assert moves[:2] == [("PAUSED", "ACTIVE", "resumed"), ("ACTIVE", "HALTED", "operator")]


async def test_every_line_of_its_journal_validates(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, autojump_clock: object
) -> None:
    async with kept(monkeypatch, tmp_path) as house:
        await trade(house)
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    kinds = Counter()
    for line in lines(tmp_path / "journal"):
        record = json.loads(line.body)
        kinds[record["kind"]] += 1
        if kinds[record["kind"]] <= 40:
            validator.validate({"hash": line.hash, **record})
    assert {
        "segment",
        "started",
        "configured",
        "began",
        "joined",
        "batch",
        "totals",
        "snapshot",
        "note",
    } <= kinds.keys()


def imagined(house: House) -> ShadowStatus:
    shadow = house.row(BTC).shadow
    assert shadow is not None
    return shadow


async def test_what_stays_in_the_house_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], autojump_clock: object
) -> None:
    text = AMENDING.replace("mode: live", "mode: shadow").replace("spread_bps: 20", "spread_bps: 0.1")
    async with kept(monkeypatch, tmp_path, text) as house:
        await house.quote(BTC)
        for _ in range(5):  # at the touch, behind a queue that others take away
            await trio.sleep(1)
            house.set_book(BTC, [(-1, 1000)], [(1, 1000)])
            house.take(BTC, Direction.SELL, 990)
        await house.until(lambda: imagined(house).optimistic_fills > 0)
        shadow = imagined(house)
    rows = exported(tmp_path, capsys, "--what", "fills")
    assert {row["ledger"] for row in rows} <= {"shadow optimistic", "shadow pessimistic"}
    last = [row for row in rows if row["ledger"] == "shadow optimistic"][-1]
    assert Decimal(last["position_after"]) == shadow.optimistic_position
    assert {row["mode"] for row in exported(tmp_path, capsys)} == {"shadow"}


async def test_events_of_the_life_before_are_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], autojump_clock: object
) -> None:
    async with kept(monkeypatch, tmp_path) as house:
        await trade(house)
        before = house.daemon.events_since(0, 10_000)
    async with kept(monkeypatch, tmp_path, later=3600) as house:
        answer = await house.daemon.find_events(EventQuery(lines=10_000))
        assert [event.seq for event in answer.events] == list(range(1, answer.newest + 1))
        assert answer.events[: len(before)] == before
        filled = await house.daemon.find_events(EventQuery(lines=10_000, name="order.filled", symbol=f"*/{ETH}"))
        assert [event.seq for event in filled.events] == [
            line.seq for line in before if line.name == "order.filled" and line.symbol == ETH
        ]
        late = await house.daemon.find_events(EventQuery(lines=10_000, since=(START_NS + 1800 * 10**9) * 1e-9))
        assert late.events and late.events[0].seq > len(before)
    notes = exported(tmp_path, capsys, "--what", "notes")
    assert [row["number"] for row in notes[: len(before)]] == [line.seq for line in before]
