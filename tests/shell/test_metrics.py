"""Metrics: real output through promtool and over real sockets, and what each number says."""

import itertools
import shutil
import subprocess
import timeit
from collections.abc import AsyncIterator, Iterator, Mapping
from decimal import Decimal
from pathlib import Path

import h11
import httpx
import pytest
import trio
import trio.testing
from prometheus_client.parser import text_string_to_metric_families

from mmd.domain.reasons import Scope, Severity, State, Switch
from mmd.domain.switches import SWITCHES
from mmd.exchanges.api import LinkStats
from mmd.shell import scrape
from mmd.shell.counters import DECISION_BOUNDS, Counters, Histogram, count
from mmd.shell.desk import (
    AlertLine,
    ExchangeStatus,
    JournalStatus,
    LedgerLine,
    ProtectionLine,
    SideStatus,
    Status,
    SymbolStatus,
    TotalLine,
)
from mmd.shell.families import SLICE_SAMPLES
from mmd.shell.metrics import DaemonCollector, process_families, slices, spread_bps, watch_loop_lag
from mmd.shell.statistics import SENTENCE_MAX, Totals, sentence, statistics, totals

ROOT = Path(__file__).parents[2]


def side(price: str | None, withheld: str | None = None) -> SideStatus:
    return SideStatus(
        price=None if price is None else Decimal(price),
        size=None if price is None else Decimal(10),
        phase="LIVE" if price else "EMPTY",
        order_id=None,
        label=None,
        withheld=withheld,
    )


def symbol(name: str, state: State = State.ACTIVE, bid: str | None = "99", ask: str | None = "101") -> SymbolStatus:
    return SymbolStatus(
        symbol=name,
        exchange="deribit",
        state=state,
        shown=state,
        reason="operator",
        detail="",
        by="uid 0",
        since=1_700_000_000.0,
        mode="live",
        resting=2,
        open_cases=1,
        bid=side(bid, None if bid else "no_bid"),
        ask=side(ask),
        market_bid=Decimal("99.5"),
        market_ask=None,
        fair=100.0,
        position=Decimal("-30"),
        min_position=Decimal(-100),
        max_position=None,
        pnl_usd=-1.25,
        data_age_seconds=0.125,
        refusal=None,
        shadow=None,
    )


def alert(name: str, exchange: str | None = None, symbol: str | None = None) -> AlertLine:
    return AlertLine(
        name=name,
        severity="critical",
        exchange=exchange,
        symbol=symbol,
        summary="",
        detail="",
        runbook="",
        since=1_700_000_000.0,
    )


def ledger_line(symbol: str, ledger: str = "real", usd: float | None = 12.5) -> LedgerLine:
    return LedgerLine(
        symbol=symbol,
        exchange="deribit",
        ledger=ledger,
        currency="BTC",
        position=Decimal(10),
        opening=Decimal(0),
        cash=Decimal("0.002"),
        value=Decimal("0.001"),
        spread=Decimal("0.004"),
        inventory=Decimal("-0.002"),
        fees=Decimal("-0.0005"),
        funding=Decimal("0.0015"),
        settlement=Decimal(0),
        imbalance=Decimal("0"),
        fills=3,
        foreign_fees={},
        pnl=Decimal("0.003"),
        pnl_usd=usd,
        day_pnl_usd=usd,
        drawdown_usd=usd,
    )


JOURNAL = JournalStatus(
    head="412ffc39a65e" + "d4" * 26,
    seq=4067,
    synced_seq=4060,
    segment=2,
    segment_bytes=1_700_000,
    bytes_written=90_000,
    pending_records=0,
    lost_records=0,
    failing="",
)


def daemon_status(*symbols: SymbolStatus, error: str | None = None, link: bool = True) -> Status:
    return Status(
        service="mmd",
        version="0.1.0",
        phase="running",
        mode="live",
        started=1_700_000_000.0,
        uptime_seconds=61.4,
        config_hash="ab" * 32,
        config_generation=3,
        config_error=error,
        confirm_deadline=None,
        orders_placed=10,
        orders_amended=20,
        orders_cancelled=5,
        orders_rejected=1,
        fills=4,
        pnl_usd=-1.256,
        day_pnl_usd=-3.5,
        drawdown_usd=7.25,
        alerts=[alert("MmdDailyLoss"), alert("MmdAckTimeout", "deribit", "BTC-PERPETUAL")],
        exposure={"BTC": 0.5},
        notional_usd=12_345.6,
        exchanges=[
            ExchangeStatus(
                name="deribit",
                network="sandbox",
                data_link=link,
                trade_link=True,
                cancel_on_disconnect=True,
                subscriptions=3,
                round_trip_ms=12.0,
            )
        ],
        symbols=list(symbols),
        journal=JOURNAL,
    )


class View:
    """A daemon that stands still."""

    def __init__(self, *symbols: SymbolStatus) -> None:
        self.answer = daemon_status(*symbols)
        self.counters = Counters()
        self.why = ""
        self.ledgers_made = 0

    def status(self, symbols: list[str]) -> Status:
        assert symbols == ["all"]
        return self.answer

    def links(self) -> Mapping[str, Mapping[str, LinkStats]]:
        return {"deribit": {"data": LinkStats(connects=3, up=True, resyncs=2), "trade": LinkStats()}}

    def mailbox_depths(self) -> Mapping[str, int]:
        return {f"{row.exchange}/{row.symbol}": 7 for row in self.answer.symbols}

    def not_ready(self) -> str:
        return self.why

    def ledger_lines(self) -> Iterator[LedgerLine]:
        for row in self.answer.symbols:
            self.ledgers_made += 1
            yield ledger_line(row.symbol)
            yield ledger_line(row.symbol, "shadow pessimistic", None)

    def risk(self) -> list[TotalLine]:
        shape = {"used": 0.5, "worst": 0.75, "limit": 2.0, "oversubscribed": None, "key": "limits.portfolio"}
        return [
            TotalLine(scope="underlying", target="BTC", unit="coins", **shape),
            TotalLine(scope="portfolio", target="", unit="USD", **{**shape, "used": None}),
        ]

    def protection(self) -> list[ProtectionLine]:
        shape = {"exchange": "deribit", "detail": "", "checked": 1.0}
        return [
            ProtectionLine(underlying="BTC", armed=True, frozen_until=0.0, **shape),
            ProtectionLine(underlying="ETH", armed=False, frozen_until=None, **shape),
        ]

    def clock_skews(self) -> Mapping[str, float]:
        return {"deribit": -0.002}


def busy_view() -> View:
    """Every family has at least one sample."""
    view = View(symbol("BTC-PERPETUAL"), symbol('ODD"\\\n', State.HALTED, bid=None))
    counters = view.counters.symbol("deribit/BTC-PERPETUAL")
    counters.placed, counters.fills = 3, 2
    count(counters.refused, "collar")
    count(counters.refused, "collar")
    count(counters.rejected, "rate_limit")
    counters.decisions.observe(30e-6)
    view.counters.exchange("deribit").round_trips.observe(0.004)
    view.counters.loop_lag.observe(0.0)
    view.counters.count_trip(Switch.DRAWDOWN, Scope.SYMBOL)
    view.counters.alerts[("MmdDailyLoss", Severity.CRITICAL)] = 2
    hook = view.counters.webhook("pager")
    hook.waiting, hook.dropped = 4, 1
    count(hook.posts, "delivered")
    view.counters.heartbeat_at = 1_700_000_050.0
    return view


def samples(view: View) -> dict[tuple[str, ...], float]:
    """Everything a scrape says: (name, label values in the order of label names) -> number."""
    text = b"".join(slices(DaemonCollector(view))).decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_promtool_accepts_every_name() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian package prometheus): metric names go unchecked")
    text = b"".join(slices(DaemonCollector(busy_view())))
    run = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")
    bad = subprocess.run([promtool, "check", "metrics"], input=b"x_ms 1\n", capture_output=True, check=False)
    assert bad.returncode != 0


def test_a_scrape_says_what_the_daemon_knows() -> None:
    found = samples(busy_view())
    perp = ("deribit", "BTC-PERPETUAL")
    odd = ("deribit", 'ODD"\\\n')
    states = {key[2]: value for key, value in found.items() if key[0] == "mmd_symbol_state" and key[3] == perp[1]}
    assert states == {"ACTIVE": 1, "PAUSED": 0, "HALTED": 0, "DRAINING": 0, "GONE": 0}
    expected = {
        ("mmd_symbol_reason", "deribit", "operator", perp[1]): 1,
        ("mmd_position", *perp): -30,
        ("mmd_position_bound", "min", *perp): -100,
        ("mmd_quote_price", "deribit", "bid", perp[1]): 99,
        ("mmd_quote_size", "deribit", "ask", perp[1]): 10,
        ("mmd_quote_spread_bps", *perp): 200,
        ("mmd_quote_withheld", "deribit", "no_bid", "bid", odd[1]): 1,
        ("mmd_symbol_pnl_usd", *perp): -1.25,
        ("mmd_data_age_seconds", *perp): 0.125,
        ("mmd_orders_total", "deribit", "placed", perp[1]): 3,
        ("mmd_orders_total", "deribit", "refused", perp[1]): 2,
        ("mmd_orders_total", "deribit", "rejected", perp[1]): 1,
        ("mmd_gate_refusals_total", "deribit", "collar", perp[1]): 2,
        ("mmd_order_rejects_total", "deribit", "rate_limit", perp[1]): 1,
        ("mmd_fills_total", *perp): 2,
        ("mmd_mailbox_depth", *perp): 7,
        ("mmd_link_up", "deribit", "data"): 1,
        ("mmd_link_up", "deribit", "trade"): 0,
        ("mmd_link_reconnects_total", "deribit", "data"): 2,
        ("mmd_link_reconnects_total", "deribit", "trade"): 0,
        ("mmd_link_resyncs_total", "deribit", "data"): 2,
        ("mmd_config_generation",): 3,
        ("mmd_config_info", "ab" * 32): 1,
        ("mmd_config_last_reload_successful",): 1,
        ("mmd_exposure_coins", "BTC"): 0.5,
        ("mmd_ready",): 1,
        ("mmd_round_trip_seconds_count", "deribit"): 1,
        ("mmd_drawdown_usd",): 7.25,
        ("mmd_day_pnl_usd",): -3.5,
        ("mmd_total_used", "underlying", "BTC", "coins"): 0.5,
        ("mmd_total_worst", "underlying", "BTC", "coins"): 0.75,
        ("mmd_total_limit", "portfolio", "", "USD"): 2,
        ("mmd_switch_trips_total", "symbol", "drawdown"): 1,
        ("mmd_switch_trips_total", "portfolio", "drawdown"): 0,
        ("mmd_protection_armed", "deribit", "BTC"): 1,
        ("mmd_protection_armed", "deribit", "ETH"): 0,
        ("mmd_protection_frozen", "deribit", "BTC"): 1,
        ("mmd_protection_frozen", "deribit", "ETH"): 0,
        ("mmd_clock_skew_seconds", "deribit"): -0.002,
        ("mmd_ledger_amount", "BTC", "deribit", "real", "spread", perp[1]): 0.004,
        ("mmd_ledger_amount", "BTC", "deribit", "real", "inventory", perp[1]): -0.002,
        ("mmd_ledger_amount", "BTC", "deribit", "real", "fees", perp[1]): -0.0005,
        ("mmd_ledger_amount", "BTC", "deribit", "real", "funding", perp[1]): 0.0015,
        ("mmd_ledger_amount", "BTC", "deribit", "real", "settlement", perp[1]): 0,
        ("mmd_ledger_amount", "BTC", "deribit", "shadow_pessimistic", "spread", perp[1]): 0.004,
        ("mmd_ledger_imbalance", "BTC", "deribit", "real", perp[1]): 0,
        ("mmd_ledger_pnl_usd", "deribit", "real", perp[1]): 12.5,
        ("mmd_ledger_day_pnl_usd", "deribit", "real", perp[1]): 12.5,
        ("mmd_ledger_drawdown_usd", "deribit", "real", perp[1]): 12.5,
        ("mmd_alerts_total", "MmdDailyLoss", "critical"): 2,
        ("mmd_alert_active", "", "MmdDailyLoss", "critical", ""): 1,
        ("mmd_alert_active", "deribit", "MmdAckTimeout", "critical", perp[1]): 1,
        ("mmd_alerts_dropped_total",): 0,
        ("mmd_webhook_posts_total", "delivered", "pager"): 1,
        ("mmd_webhook_queue", "pager"): 4,
        ("mmd_webhook_dropped_total", "pager"): 1,
        ("mmd_heartbeat_timestamp_seconds",): 1_700_000_050,
    }
    assert {key: found.get(key) for key in expected} == expected


def test_what_is_unknown_is_absent_not_zero() -> None:
    found = samples(busy_view())
    names = {key[0] for key in found}
    assert "mmd_market_spread_bps" not in names  # the market has no ask
    assert "mmd_config_confirm_deadline_timestamp_seconds" not in names
    assert ("mmd_position_bound", "max", "deribit", "BTC-PERPETUAL") not in found
    assert ("mmd_quote_spread_bps", "deribit", 'ODD"\\\n') not in found
    assert ("mmd_total_used", "portfolio", "", "USD") not in found
    assert ("mmd_ledger_pnl_usd", "deribit", "shadow_pessimistic", "BTC-PERPETUAL") not in found
    assert "mmd_heartbeat_timestamp_seconds" not in {key[0] for key in samples(View())}  # never well so far


def test_every_switch_counts_from_zero() -> None:
    found = samples(View())
    counted = {(key[2], key[1]) for key in found if key[0] == "mmd_switch_trips_total"}
    assert counted == {(str(switch), str(row.scope)) for switch, row in SWITCHES.items()}


def test_ledgers_are_made_while_they_are_read() -> None:
    """110 symbols' ledgers in one go would hold the loop; they are made as the parts go out."""
    view = View(*(symbol(f"S{n}") for n in range(110)))
    made = []
    for piece in slices(DaemonCollector(view)):
        if piece.count(b"\nmmd_ledger_amount{") > 1:
            made.append(view.ledgers_made)
    assert made[0] <= SLICE_SAMPLES and made[-1] == 110
    assert max(after - before for before, after in itertools.pairwise(made)) <= SLICE_SAMPLES // 5


def test_a_daemon_without_symbols_can_be_scraped() -> None:
    assert samples(View())[("mmd_config_generation",)] == 3


def test_every_documented_name_is_exported_and_the_other_way_round() -> None:
    documented = {
        line.split("`")[1].partition("{")[0]
        for line in (ROOT / "docs" / "metrics.md").read_text().splitlines()
        if line.startswith("| `")
    }
    view = busy_view()
    view.answer = daemon_status(symbol("BTC-PERPETUAL"), symbol("Y", bid=None))
    families = list(DaemonCollector(view).collect())
    assert documented == {family.name + ("_total" if family.type == "counter" else "") for family in families}
    assert len(families) == len(documented)


def test_the_journals_head_survives_being_a_number() -> None:
    """docs/metrics.md says how it is turned back."""
    found = samples(busy_view())
    assert f"{int(found['mmd_journal_head',]):012x}" == JOURNAL.head[:12]
    assert found["mmd_journal_seq",] == JOURNAL.seq


def test_slices_hold_one_header_per_family() -> None:
    view = View(*(symbol(f"S{n}") for n in range(SLICE_SAMPLES)))
    pieces = list(slices(DaemonCollector(view)))
    assert b"".join(pieces).count(b"# TYPE mmd_symbol_state gauge\n") == 1
    assert max(piece.count(b"\n") for piece in pieces) <= SLICE_SAMPLES + 2
    assert sum(key[0] == "mmd_symbol_state" for key in samples(view)) == SLICE_SAMPLES * len(State)


def test_histogram_buckets_are_inclusive_and_cumulative() -> None:
    view = View(symbol("X"))
    decisions = view.counters.symbol("deribit/X").decisions
    for seconds in (0.0, DECISION_BOUNDS[0], DECISION_BOUNDS[0] * 1.01, 5.0):
        decisions.observe(seconds)
    found = samples(view)
    name = "mmd_decision_duration_seconds"
    assert found[(f"{name}_bucket", "deribit", "1e-05", "X")] == 2
    assert found[(f"{name}_bucket", "deribit", "2.5e-05", "X")] == 3
    assert found[(f"{name}_bucket", "deribit", "0.1", "X")] == 3
    assert found[(f"{name}_bucket", "deribit", "+Inf", "X")] == 4
    assert found[(f"{name}_count", "deribit", "X")] == 4
    assert found[(f"{name}_sum", "deribit", "X")] == pytest.approx(5.0 + DECISION_BOUNDS[0] * 2.01)


def test_an_observation_costs_next_to_nothing() -> None:
    histogram = Histogram(DECISION_BOUNDS)
    best = min(timeit.repeat(lambda: histogram.observe(3e-4), number=20_000, repeat=7)) / 20_000
    assert best < 2e-6  # 0.1 µs on the machine it was written on; the margin is for a busy one


def test_process_numbers_come_from_a_proc_that_shows_only_processes() -> None:
    numbers = {family.name: family.samples[0].value for family in process_families()}
    assert 1e6 < numbers["process_resident_memory_bytes"] < numbers["process_virtual_memory_bytes"]
    assert numbers["process_cpu_seconds"] > 0
    assert 3 <= numbers["process_open_fds"] < numbers["process_max_fds"]


@pytest.mark.parametrize(
    ("bid", "ask", "bps"),
    [
        pytest.param(99.0, 101.0, 200.0, id="two per cent"),
        pytest.param(101.0, 99.0, -200.0, id="crossed shows"),
        pytest.param(None, 1.0, None, id="no bid"),
        pytest.param(0.0, 0.0, None, id="no price"),
    ],
)
def test_spread(bid: float | None, ask: float | None, bps: float | None) -> None:
    assert spread_bps(bid, ask) == bps


# --- over the wire -------------------------------------------------------------------------------


@pytest.fixture
def view() -> View:
    return busy_view()


@pytest.fixture
async def client(view: View) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server on a free loopback port."""
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(scrape.serve, view, "127.0.0.1", 0)
        port = listener.socket.getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            yield client
        nursery.cancel_scope.cancel()


async def test_the_endpoint_serves_metrics_over_one_kept_connection(view: View, client: httpx.AsyncClient) -> None:
    for _ in range(3):
        response = await client.get("/metrics")
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert 'mmd_position{exchange="deribit",symbol="BTC-PERPETUAL"} -30.0' in response.text
    assert "mmd_scrapes_total 3.0" in response.text


async def test_health_and_readiness(view: View, client: httpx.AsyncClient) -> None:
    assert (await client.get("/-/healthy")).status_code == 200
    assert (await client.get("/-/ready")).status_code == 200
    view.why = "reconciling deribit"
    response = await client.get("/-/ready?x=1")
    assert (response.status_code, response.text) == (503, "mmd is not ready: reconciling deribit\n")
    assert (await client.get("/-/healthy")).status_code == 200


async def test_nothing_can_be_changed(client: httpx.AsyncClient) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        response = await client.request(method, "/metrics", content=b"x" * 1000)
        assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")
    assert (await client.get("/-/reload")).status_code == 404
    head = await client.head("/metrics")
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"GARBAGE\r\n\r\n", b"400", id="no HTTP"),
        pytest.param(b"GET /metrics HTTP/1.1\r\n\r\n", b"400", id="no host"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 20_000, b"431", id="endless headers"),
        pytest.param(
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n" + b"z" * 100_000, b"413", id="big body"
        ),
        pytest.param(b"", b"", id="nothing"),
        pytest.param(b"GET /met", b"400", id="half a request"),
    ],
)
async def test_bad_requests_get_a_clear_answer(view: View, sent: bytes, status: bytes) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scrape.converse, view, theirs)
        await ours.send_all(sent)
        await ours.send_eof()
        answer = b"".join([piece async for piece in ours])
    assert answer.startswith(b"HTTP/1.1 " + status if status else b"")
    assert bool(answer) == bool(status)


async def test_a_silent_client_is_hung_up_on(view: View, autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(b"GET /metrics HTTP/1.1\r\n")
    await scrape.converse(view, theirs)
    assert trio.current_time() == pytest.approx(scrape.EXCHANGE_SECONDS)


async def test_a_client_that_leaves_halfway_harms_nobody(view: View) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n" * 3)
    await ours.aclose()
    await scrape.converse(view, theirs)


async def test_the_loop_turns_while_a_large_scrape_is_rendered() -> None:
    view = View(*(symbol(f"S{n}") for n in range(100)))
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_turns)
        nursery.start_soon(scrape.converse, view, theirs)
        await ours.send_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method="GET", target="/metrics", headers=[("host", "x")]))
        async for piece in ours:
            parser.receive_data(piece)
        nursery.cancel_scope.cancel()
    assert turns > 100 * 20 / SLICE_SAMPLES


async def test_too_many_connections_are_turned_away(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "CONNECTIONS_MAX", 1)
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(scrape.serve, view, "127.0.0.1", 0)
        first = await trio.testing.open_stream_to_socket_listener(listener)
        await first.send_all(b"GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await first.receive_some()).startswith(b"HTTP/1.1 200")
        second = await trio.testing.open_stream_to_socket_listener(listener)
        with trio.fail_after(5):
            try:
                assert await second.receive_some() == b""
            except trio.BrokenResourceError:
                pass
        await first.aclose()
        await second.aclose()
        nursery.cancel_scope.cancel()


async def test_loop_lag_is_measured(autojump_clock: trio.testing.MockClock) -> None:
    counters = Counters()
    with trio.move_on_after(10):
        await watch_loop_lag(counters)
    assert sum(counters.loop_lag.counts) in (39, 40)
    assert counters.loop_lag.total == pytest.approx(0.0, abs=1e-6)


# --- one line ------------------------------------------------------------------------------------


def test_the_statistics_line_counts_since_the_last_one() -> None:
    now = daemon_status(symbol("A"), symbol("B", State.PAUSED), symbol("C", State.HALTED))
    assert statistics(now, Totals(placed=4, amended=20)) == {
        "placed": 6,
        "amended": 0,
        "cancelled": 5,
        "rejected": 1,
        "filled": 4,
        "orders_resting": 6,
        "symbols_active": 1,
        "symbols_paused": 1,
        "symbols_halted": 1,
        "pnl_usd": -1.26,
        "uptime_seconds": 61,
    }
    assert statistics(now, totals(now))["placed"] == 0


@pytest.mark.parametrize(
    ("status", "text"),
    [
        pytest.param(daemon_status(), "quoting 0 of 0 symbols, generation 3", id="empty"),
        pytest.param(
            daemon_status(symbol("A"), symbol("B", State.PAUSED), error="line 3"),
            "quoting 1 of 2 symbols, 1 paused, generation 3, file on disk refused",
            id="refused file",
        ),
        pytest.param(
            daemon_status(symbol("C", State.HALTED), link=False),
            "quoting 0 of 1 symbols, 1 halted, generation 3, deribit down",
            id="halted and down",
        ),
    ],
)
def test_the_sentence_for_systemctl(status: Status, text: str) -> None:
    assert sentence(status) == text
    assert len(text) <= SENTENCE_MAX
