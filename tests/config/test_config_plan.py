"""The difference of two configurations: each key with its effect, each symbol that is touched."""

from collections.abc import Callable

import pytest
from config_samples import GOOD, NOW_NS, make_listing

from mmd.config.load import load_text
from mmd.config.model import Config
from mmd.config.plan import Effect, Plan, diff
from mmd.config.select import Resolution, resolve

PERP = "deribit/BTC-PERPETUAL"
Make = Callable[..., Config]


def resolved(config: Config, index: float = 32_200.0) -> Resolution:
    return resolve(config, {"deribit": make_listing()}, {("deribit", "BTC"): index}, NOW_NS)


def plan_of(new: Config, index: float = 32_200.0) -> Plan:
    old = load_text(GOOD)
    return diff(old, resolved(old), new, resolved(new, index))


def rows(plan: Plan) -> list[tuple[str, str, str | None, str | None, int]]:
    return [(line.path, line.effect.value, line.old, line.new, len(line.symbols)) for line in plan.lines]


def test_nothing_changed(config_with: Make) -> None:
    reworded = GOOD.replace("max_position: 100,", 'max_position: "100.0",').replace("mode: shadow, ", "")
    plan = plan_of(load_text(reworded))
    assert plan.is_empty
    assert plan.refusal is None
    assert len(plan.unchanged) == 9


@pytest.mark.parametrize(
    ("change", "expected", "changed"),
    [
        (("spread_bps: 10,", "spread_bps: 12,"), [("spreads.perp.spread_bps", "requote", "10", "12", 1)], 1),
        (("size: 0.1}", "size: 0.2}"), [("spreads.options.size", "requote", "0.1", "0.2", 8)], 8),
        (("size: 10}", "size: 10, tolerance_bps: 3}"), [("spreads.perp.tolerance_bps", "live", "1", "3", 1)], 1),
        (
            ("{max_position: 1}", "{max_position: 2}"),
            [("instruments[1].limits.max_position", "requote", "1", "2", 8)],
            8,
        ),
        (("spread: perp}", "spread: perp, size: 20}"), [("instruments[0].size", "requote", None, "20", 1)], 1),
        (
            ("max_position: 100,", "max_position: 200,"),
            [("limits.per_symbol.max_position", "requote", "100", "200", 1)],
            1,
        ),
        (
            ("{BTC: 10}", "{BTC: 5, ETH: 1}"),
            [
                ("limits.portfolio.max_exposure.BTC", "live", "10", "5", 0),
                ("limits.portfolio.max_exposure.ETH", "live", None, "1", 0),
            ],
            0,
        ),
        (("mode: shadow", "mode: live"), [("service.mode", "drain", "shadow", "live", 9)], 9),
    ],
)
def test_one_change(config_with: Make, change: tuple[str, str], expected: list[object], changed: int) -> None:
    plan = plan_of(config_with(change))
    assert rows(plan) == expected
    assert len(plan.changed) == changed
    assert len(plan.unchanged) == 9 - changed
    assert plan.added == plan.removed == []
    assert plan.refusal is None


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (("name: mmd", "name: desk"), "service.name"),
        (("127.0.0.1:9464", "127.0.0.1:9465"), "service.metrics.listen"),
        (("mode: shadow", "control: {socket: /tmp/s}"), "service.control.socket"),
        (("network: sandbox", "network: testnet"), "exchanges.deribit.network"),
        (("{env: DERIBIT_CLIENT_ID}", "{env: OTHER}"), "exchanges.deribit.credentials.client_id"),
        (("type: deribit", "grant: client_credentials\n    type: deribit"), "exchanges.deribit.grant"),
        (("spreads:", "  second: {type: deribit, network: sandbox}\nspreads:"), "exchanges.second"),
    ],
)
def test_a_restart_refuses_the_whole(config_with: Make, change: tuple[str, str], path: str) -> None:
    plan = plan_of(config_with(change, ("spread_bps: 10,", "spread_bps: 12,")))
    assert plan.restart == [path]
    assert plan.refusal is not None
    assert path in plan.refusal
    assert "restart" in plan.refusal
    assert "spreads.perp.spread_bps" not in plan.refusal


PROTECTION = "maker_protection: [{underlying: BTC, interval_seconds: 5, frozen_seconds: 0, max_delta: 1}]"


@pytest.mark.parametrize(
    ("change", "expected", "changed"),
    [
        pytest.param(
            ("collar_bps: 200}", "collar_bps: 200}\n  per_kind: {option: {collar_bps: 9000}}"),
            [("limits.per_kind.option", "requote", None, "{collar_bps: 9000}", 8)],
            8,
            id="a kind",
        ),
        pytest.param(
            ("collar_bps: 200}", "collar_bps: 200}\n  per_kind: {call: {max_rejects: 3}}"),
            [("limits.per_kind.call", "requote", None, "{max_rejects: 3}", 4)],
            4,
            id="calls",
        ),
        pytest.param(
            ("collar_bps: 200}", "collar_bps: 200, max_daily_loss_usd: 7}"),
            [("limits.per_symbol.max_daily_loss_usd", "live", None, "7", 9)],
            9,
            id="a nullable limit",
        ),
        pytest.param(
            ("collar_bps: 200}", "collar_bps: 200}\n  allowed: [BTC-PERPETUAL]"),
            [("limits.allowed", "requote", None, "[BTC-PERPETUAL]", 8)],
            8,
            id="allowed",
        ),
        pytest.param(
            ("max_drawdown_usd: 5000}", "max_drawdown_usd: 5000, per_exchange: {deribit: {max_contracts: 5}}}"),
            [("limits.portfolio.per_exchange.deribit", "live", None, None, 0)],
            0,
            id="a total of a part",
        ),
        pytest.param(
            ("max_drawdown_usd: 5000}", "max_drawdown_usd: 5000, day_starts_hour: 8}"),
            [("limits.portfolio.day_starts_hour", "live", "0", "8", 0)],
            0,
            id="the day",
        ),
        pytest.param(
            ("limits:\n  per", "kill_switches: {self_trade: {response: pause}}\nlimits:\n  per"),
            [("kill_switches.self_trade.response", "live", "halt", "pause", 9)],
            9,
            id="a kill switch",
        ),
        pytest.param(
            ("    network: sandbox", f"    network: sandbox\n    {PROTECTION}"),
            [("exchanges.deribit.maker_protection", "live", "[]", None, 9)],
            9,
            id="maker protection",
        ),
        pytest.param(
            (
                "limits:\n  per",
                "alerts: {heartbeat: {url: 'https://a.example/', bearer: {env: TOKEN}}}\nlimits:\n  per",
            ),
            [("alerts.heartbeat", "live", None, None, 0)],
            0,
            id="alerts",
        ),
    ],
)
def test_the_guards_change_without_a_restart(
    config_with: Make, change: tuple[str, str], expected: list[tuple[object, ...]], changed: int
) -> None:
    plan = plan_of(config_with(change))
    assert plan.refusal is None
    assert len(plan.changed) == changed
    for row, wanted in zip(rows(plan), expected, strict=True):
        shown = row[3] if wanted[3] is not None else None  # longer texts are not repeated here
        assert (*row[:3], shown, row[4]) == wanted


def test_lines_that_only_moved_change_nothing(config_with: Make) -> None:
    config = load_text("# moved\n\n" + GOOD.replace("limits:\n  per", "\nlimits:\n\n  per"))
    plan = plan_of(config)
    assert plan.is_empty
    before, after = resolved(load_text(GOOD)).symbols[PERP], resolved(config).symbols[PERP]
    assert before.settings.sources["max_position"] == "limits.per_symbol.max_position (mmd.yaml:17)"
    assert after.settings.sources["max_position"] == "limits.per_symbol.max_position (mmd.yaml:21)"


def test_the_same_limit_written_elsewhere_changes_no_symbol(config_with: Make) -> None:
    plan = plan_of(config_with(("limits: {max_position: 1}", "limits: {max_position: 1, max_rejects: 20}")))
    assert plan.changed == []
    assert rows(plan) == [("instruments[1].limits.max_rejects", "live", None, "20", 0)]


def test_a_symbol_that_comes_and_one_that_goes(config_with: Make) -> None:
    plan = plan_of(config_with(("symbol: BTC-PERPETUAL", "symbol: BTC-25DEC26")))
    assert plan.added == ["deribit/BTC-25DEC26"]
    assert plan.removed == [PERP]
    assert rows(plan) == [
        ("instruments[0]", "live", None, "deribit/BTC-25DEC26", 1),
        ("instruments[0]", "drain", PERP, None, 1),
    ]
    assert len(plan.unchanged) == 8


def test_moving_an_entry_changes_nothing(config_with: Make) -> None:
    line = "  - {exchange: deribit, symbol: BTC-PERPETUAL, spread: perp}\n"
    moved = GOOD.replace(line, "").replace("limits:\n  per", f"{line}limits:\n  per")
    plan = plan_of(load_text(moved))
    assert plan.is_empty


def test_a_selection_that_finds_others_because_the_market_moved(config_with: Make) -> None:
    plan = plan_of(load_text(GOOD), index=35_000.0)
    assert len(plan.added) == len(plan.removed) == 4
    assert [(line.path, line.effect) for line in plan.lines] == [
        ("instruments[1].select", Effect.LIVE),
        ("instruments[1].select", Effect.DRAIN),
    ]
    assert plan.lines[0].symbols == plan.added
    assert plan.lines[1].symbols == plan.removed
    assert len(plan.unchanged) == 5


def test_the_last_entry_goes(config_with: Make) -> None:
    text = GOOD[: GOOD.index("instruments:")] + "instruments: []\n" + GOOD[GOOD.index("limits:\n") :]
    plan = plan_of(load_text(text))
    assert len(plan.removed) == 9
    assert {line.effect for line in plan.lines} == {Effect.DRAIN}


def test_renaming_a_profile_keeps_the_orders_but_says_so(config_with: Make) -> None:
    plan = plan_of(config_with(("  perp:  ", "  perp2: "), ("spread: perp}", "spread: perp2}")))
    assert ("instruments[0].spread", "requote", "perp", "perp2", 1) in rows(plan)
    assert [line.effect for line in plan.lines if line.path.startswith("spreads.")] == [Effect.LIVE, Effect.LIVE]
