"""A start after something has changed: an option has expired, the service has another name, the journal is long."""

import json
import random
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import killing_plan
import pytest
import trio
import trio.testing
from house import CLIENT_SECRET, MMD, Daemon, Exchange, Program, until, write_config
from rigged_exchange import EXCHANGES

from mmd.cli.reap import EXIT_PROVEN
from mmd.cli.run import only_cause
from mmd.config.load import load
from mmd.config.model import ExchangeConfig
from mmd.domain.errors import ConfigError
from mmd.exchanges.derive.signing import TESTNET
from mmd.sandbox.derive.known import SUBACCOUNT
from mmd.sandbox.derive.options import DeriveOptions
from mmd.sandbox.derive.universe import derive_market
from mmd.sandbox.markets import generated_market
from mmd.sandbox.model import Direction
from mmd.sandbox.serve import Exchange as Speech
from mmd.sandbox.serve import Sandbox, SandboxOptions
from mmd.shell import daemon as daemon_module
from mmd.shell.accounts import SANDBOX_KEY
from mmd.shell.daemon import Daemon as Process
from mmd.shell.desk import Caller, Outcome
from mmd.shell.exchange_types import TYPES, Way
from mmd.shell.keeper import inline
from mmd.shell.wiring import Wired

PERP = "BTC-PERPETUAL"
NOW_NS = 1_798_700_000 * 10**9
ANN = Caller(uid=1, pid=1, name="ann")


# --- an option expires while nobody runs ---------------------------------------------------------

TEXT = """\
version: 1
service: {{name: again, mode: live, metrics: {{listen: null}}}}
exchanges: {{here: {{type: {spoken.type}, network: sandbox}}}}
spreads:
  perp: {{fair: mid, style: around, spread_bps: 200, band_bps: 500, size: {spoken.size}, tolerance_bps: 100}}
  option: {{fair: mark, style: around, spread_bps: 200, band_bps: 9000, size: 0.1, tolerance_bps: 100}}
instruments:
  - {{exchange: here, symbol: {spoken.perp}, spread: perp}}
  - {{exchange: here, symbol: {option}, spread: option}}
limits:
  per_symbol: {{max_position: 1000, max_order_size: 100, collar_bps: 9000}}
  portfolio: {{max_exposure: {{BTC: 50}}, max_notional_usd: 10000000, max_drawdown_usd: 500000}}
"""


@dataclass(frozen=True)
class Spoken:
    """What differs. `paid`: for an option on a tenth of a coin whose index ends at twice its strike."""

    type: str
    account: str
    perp: str
    size: str
    coin: str
    paid: Callable[[Decimal], str]


DERIBIT = Spoken("deribit", SANDBOX_KEY[0], PERP, "10", "BTC", lambda strike: "0.05 BTC")
DERIVE = Spoken("derive", str(SUBACCOUNT), "BTC-PERP", "0.01", "USDC", lambda strike: f"{strike / 10:f} USDC")


class Place:
    """One exchange on mock time, and processes that come and go on it with one state directory."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, spoken: Spoken) -> None:
        self.spoken = spoken
        self.path, self.state = folder / "mmd.yaml", folder / "state"
        self.state.mkdir()
        now_ms = NOW_NS // 1_000_000
        if spoken is DERIVE:
            options = SandboxOptions(seed=3, exchange=Speech.DERIVE, derive=DeriveOptions(chain_id=TESTNET.chain_id))
            market = derive_market(3, now_ms=now_ms)
        else:
            options, market = SandboxOptions(seed=3), generated_market(3, now_ms=now_ms)
        self.sandbox = Sandbox(market, options, wall_clock_ns=self.wall_ns)
        listed = [listing.instrument for listing in self.sandbox.engine.floor.listings.values()]
        self.option = next(
            one.instrument_name
            for one in sorted(listed, key=lambda one: one.expiration_timestamp)
            if (one.option_type, one.base_currency, one.settlement_currency) == ("call", "BTC", spoken.coin)
        )
        self.write(self.option)
        monkeypatch.setattr(daemon_module, "wire", self.wire)

    @staticmethod
    def wall_ns() -> int:
        return NOW_NS + int(trio.current_time() * 1e9)

    def write(self, option: str) -> None:
        self.path.write_text(TEXT.format(option=option, spoken=self.spoken))

    def wire(self, config: ExchangeConfig, service: str, started_ns: int, now_ns: Callable[[], int]) -> Wired:
        kind = TYPES[config.type]
        way = Way(
            service=service,
            network="test",
            url=kind.url(config),
            dial=self.sandbox.connect,
            rng=random.Random(started_ns),
            now_ns=now_ns,
        )
        return Wired(kind.make(config, way, started_ns), None, "test", self.spoken.account)

    def process(self) -> Process:
        return Process(load(self.path), self.path, self.wall_ns, self.state, in_thread=inline)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Process]:
        """Until it crashes at the end of the block."""
        process = self.process()
        async with trio.open_nursery() as nursery:
            await nursery.start(process.run)
            yield process
            nursery.cancel_scope.cancel()

    def said(self, process: Process, name: str) -> list[str]:
        return [line.detail for line in process.events_since(0, 9999) if line.name == name]

    async def expire(self, option: str, index: Decimal) -> None:
        """At eight o'clock, by the name of the option where the exchange is asked for no more than that."""
        levers = self.sandbox.levers
        if self.spoken is DERIVE:
            levers.pause_market()
            expiry_ms = self.sandbox.engine.floor.listings[option].instrument.expiration_timestamp
            await trio.sleep((expiry_ms - self.sandbox.now_ms) / 1000 - 1)
        levers.expire(option, index)
        await trio.sleep(60)


async def wait(condition: Callable[[], object]) -> None:
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110 - mock time, and what is waited for has no event
            await trio.sleep(0.05)


@pytest.fixture(params=[pytest.param(spoken, id=spoken.type) for spoken in (DERIBIT, DERIVE)])
async def place(
    request: pytest.FixtureRequest, tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Place]:
    place = Place(tmp_path, monkeypatch, request.param)
    await nursery.start(place.sandbox.run)
    yield place
    nursery.cancel_scope.cancel()


async def at_once(function: Callable[..., object], *words: object) -> object:
    """In place of a thread: mock time would run away while it works."""
    await trio.lowlevel.checkpoint()
    return function(*words)


async def test_an_option_that_expired_meanwhile_is_left_out_with_its_last_words(
    autojump_clock: trio.testing.MockClock, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", at_once)
    option = place.option
    async with place.running() as first:
        assert (await first.resume([option], "", ANN, 10.0)).outcome is Outcome.DONE
        worker = first.pump.workers[f"here/{option}"]
        await wait(lambda: worker.machine.own.bid.slot.phase == "LIVE")
        place.sandbox.levers.fill_quote(place.spoken.account, option, Direction.BUY)
        await wait(lambda: worker.machine.position.lots)
    strike = worker.machine.instrument.strike or Decimal(0)
    await place.expire(option, strike * 2)
    async with place.running() as second:
        assert list(second.pump.workers) == [f"here/{place.spoken.perp}"]
        await wait(lambda: place.said(second, "instrument.expired"))
        (told,) = place.said(second, "instrument.expired")
        assert "the last process left a position of 0.1 at " in told
        assert f"the exchange settled a position of 0.1 for {place.spoken.paid(strike)} at " in told
        (note,) = place.said(second, "config.note")
        assert re.fullmatch(rf"instruments\[1\]\.symbol: {option} expired on [0-9-]+: left out", note)
        status = second.status(["all"])
        assert status.left_out == [note] and status.config_error is None
        place.path.write_text(
            place.path.read_text().replace("spread_bps: 200, band_bps: 500", "spread_bps: 300, band_bps: 500")
        )
        result = await second.reload(None, ANN)
        assert (result.outcome, result.plan.changed) == (Outcome.DONE, [f"here/{place.spoken.perp}"])
        assert place.said(second, "config.note") == [note]


async def test_a_name_that_never_was_refuses_the_start_with_its_place(
    autojump_clock: trio.testing.MockClock, place: Place
) -> None:
    place.write(place.option.replace("-C", "-X"))
    process = place.process()
    with pytest.raises(BaseExceptionGroup) as ended:
        await process.run()
    refused = only_cause(ended.value)
    assert isinstance(refused, ConfigError)
    (line,) = refused.lines
    assert line.startswith(f"{place.path}:9:30: instruments[1].symbol: here lists no {place.option[:-1]}X; close to")
    assert process.journal is not None
    process.journal.close()


# --- another name --------------------------------------------------------------------------------


def leave(exchange: Exchange, label: str, below: int) -> str:
    """An order that no connection's end cancels; its id."""
    mark = exchange.call("public/ticker", instrument_name=PERP)["mark_price"]
    price = round(mark * 0.98) - below
    words = {"instrument_name": PERP, "amount": 10, "type": "limit", "price": price, "post_only": "true"}
    return str(exchange.call("private/buy", label=label, **words)["order"]["order_id"])


@pytest.mark.parametrize(
    "spoken",
    [
        pytest.param(killing_plan.DERIBIT, id="deribit"),
        pytest.param(killing_plan.DERIVE, id="derive", marks=pytest.mark.slow),
    ],
)
def test_orders_of_a_former_name_are_cancelled_by_the_next_daemon_and_no_others(
    spoken: killing_plan.Spoken, tmp_path: Path, programs: list[Program]
) -> None:
    exchange, config = EXCHANGES[spoken](tmp_path, spoken.account, 7), tmp_path / "mmd.yaml"
    programs.append(exchange)
    network, perp = spoken.network.format(url=exchange.url), spoken.perp

    def daemon(name: str) -> Daemon:
        write_config(config, network=network, exchange=spoken.exchange, mode="live", symbols=[perp], service=name)
        found = Daemon(tmp_path, config, env={"E2E_ID": spoken.account})
        programs.append(found)
        return found.ready()

    first = daemon("e2e")
    exchange.rig("keep", on=True)  # cancel on disconnect is armed, and fails
    first.start_quoting()
    first.kill()
    assert exchange.open_orders()
    foreign = {
        exchange.rig("foreign", account=spoken.account, symbol=perp, share=0.96, label=label)
        for label in (f"mmd-other-{perp}-b-abc123-1", "by-hand")
    }
    second = daemon("renamed")
    remembered = tmp_path / "state" / "exchanges.json"
    second.until(lambda: set(exchange.open_orders()) == foreign, "the leftover's end")
    assert second.ask("cases", symbols=["all"], closed=False)["cases"] == []
    second.until(lambda: not json.loads(remembered.read_text())["former"], "the proof that nothing is left")
    told = [event["detail"] for event in second.events("service.renamed")]
    assert told == ["orders under e2e are ours as well, until none is left", "nothing rests under e2e any more"]
    second.start_quoting()
    assert set(second.states().values()) == {("ACTIVE", "resumed")}
    assert second.stop() == 0
    assert set(exchange.open_orders()) == foreign
    exchange.hang_up()


@pytest.mark.slow
def test_the_reaper_looks_under_a_former_name_too(
    tmp_path: Path, programs: list[Program], shared_exchange: Exchange
) -> None:
    """The daemon under the new name died before it had proven anything."""
    exchange, config = shared_exchange, tmp_path / "mmd.yaml"
    exchange.account = tmp_path.name
    env = {"E2E_ID": tmp_path.name, "E2E_SECRET": CLIENT_SECRET}
    for name in ("e2e", "renamed"):
        write_config(config, network=f'{{url: "{exchange.url}"}}', mode="live", symbols=[PERP], service=name)
        daemon = Daemon(tmp_path, config, env=env)
        programs.append(daemon)
        daemon.ready().kill()
    ours = {leave(exchange, f"mmd-{name}-{PERP}-b-abc123-1", 1) for name in ("e2e", "renamed")}
    foreign = leave(exchange, f"mmd-other-{PERP}-b-abc123-1", 2)
    assert set(exchange.open_orders()) == {*ours, foreign}
    words = ["reap", "-c", str(config), "--state-dir", str(tmp_path / "state"), "--json"]
    reaper = Program([*MMD, *words], tmp_path, "reap", env=env)
    programs.append(reaper)
    assert reaper.ended() == EXIT_PROVEN, reaper.err
    assert [line["service"] for line in json.loads(reaper.out)["exchanges"]] == ["renamed", "e2e"]
    assert set(exchange.open_orders()) == {foreign}
    assert not (tmp_path / "state" / "exchanges.json").exists()


# --- a word to systemd ---------------------------------------------------------------------------


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """What systemd holds at the other end."""
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(name)
        server.settimeout(30)
        yield server, name


def test_systemd_hears_that_the_journal_is_read_before_it_hears_ready(
    tmp_path: Path, programs: list[Program], manager: tuple[socket.socket, str]
) -> None:
    server, name = manager
    daemon = Daemon(tmp_path, write_config(tmp_path / "mmd.yaml"), env={"NOTIFY_SOCKET": name})
    programs.append(daemon)
    heard = []
    while not heard or b"READY=1" not in heard[-1]:
        heard.append(server.recv(4096))
    assert heard[0] == b"EXTEND_TIMEOUT_USEC=60000000\nSTATUS=reading the journal"
    assert daemon.stop() == 0
    assert until(lambda: not daemon.alive, "its end")
