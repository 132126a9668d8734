"""Limits, accounts, switches, protection and the preview of a flatten, as people see them."""

from decimal import Decimal

import pytest
from control_desk import NOW, FakeDesk, ledger_line, preview_of, shadow_status, symbol_status
from msgspec.structs import replace

from mmd.cli import risk_views
from mmd.cli.tables import Page, Style

WIDE = Page(width=120, colour=False)
COLOURED = Page(width=160, colour=True)


# --- risk ------------------------------------------------------------------------------------------


def test_risk_shows_each_total_with_its_share_and_its_key():
    assert risk_views.risk_lines(Page(150, False), FakeDesk().risk()) == [
        "SCOPE       TARGET  UNIT        USED   WORST   LIMIT    %  OVERSUBSCRIBED  KEY",
        "portfolio           USD     123456.7  180000  200000  90%            2.5x  limits.portfolio.max_notional_usd",
        "underlying  BTC     coins  not known       -      10    -               -  "
        "limits.portfolio.per_underlying.BTC.max_exposure",
    ]
    assert risk_views.risk_lines(WIDE, []) == ["no totals"]


@pytest.mark.parametrize(
    ("changes", "share", "style"),
    [
        pytest.param({"worst": 100.0, "limit": 200.0}, 0.5, None, id="half"),
        pytest.param({"worst": 160.0, "limit": 200.0}, 0.8, Style.WARN, id="near"),
        pytest.param({"worst": 200.0, "limit": 200.0}, 1.0, Style.BAD, id="full"),
        pytest.param({"used": 50.0, "worst": None, "limit": 200.0}, 0.25, None, id="no worst case: what is used"),
        pytest.param({"used": None, "worst": 1.0, "limit": 200.0}, 0.005, Style.BAD, id="not known is bad"),
        pytest.param({"used": 1.0, "worst": 1.0, "limit": 0.0}, None, None, id="no limit to divide by"),
    ],
)
def test_the_share_of_a_limit(changes, share, style):
    row = replace(FakeDesk().risk()[0], oversubscribed=None, **changes)
    assert risk_views.share(row) == share
    text = risk_views.risk_lines(COLOURED, [row])[1]
    assert [s for s in (Style.WARN, Style.BAD) if f"\x1b[{s}m" in text] == ([style] if style else [])


# --- ledger ----------------------------------------------------------------------------------------


def test_real_and_shadow_ledgers_are_apart_each_with_its_total():
    desk = FakeDesk()
    desk.symbols = {
        "BTC-PERPETUAL": symbol_status("BTC-PERPETUAL"),
        "ETH-PERPETUAL": symbol_status("ETH-PERPETUAL", shadow=shadow_status()),
    }
    lines = risk_views.ledger_lines(WIDE, desk.ledger(["all"]))
    assert lines[:9] == [
        "REAL LEDGER",
        "SYMBOL         CURRENCY  POSITION  OPENING      CASH     VALUE       PNL  PNL USD  TODAY USD  DRAWDOWN USD",
        "BTC-PERPETUAL  BTC           -120        0  0.001875  -0.00187  0.000005    +0.32      +0.12          0.02",
        "ETH-PERPETUAL  BTC           -120        0  0.001875  -0.00187  0.000005    +0.32      +0.12          0.02",
        "",
        "SYMBOL         FILLS     SPREAD  INVENTORY       FEES  FUNDING  SETTLEMENT  IMBALANCE",
        "BTC-PERPETUAL     14  0.0000051  -0.000001  0.0000009        0           0          0",
        "ETH-PERPETUAL     14  0.0000051  -0.000001  0.0000009        0           0          0",
        "total, real: +0.64 USD, today +0.24 USD",
    ]
    shadow = lines[9:]
    assert [line for line in shadow if "LEDGER" in line or line.startswith("total")] == [
        "SHADOW OPTIMISTIC LEDGER: imagined fills, no money moved",
        "total, shadow optimistic: +3.40 USD, today +0.12 USD",
        "SHADOW PESSIMISTIC LEDGER: imagined fills, no money moved",
        "total, shadow pessimistic: -1.20 USD, today +0.12 USD",
    ]
    assert not any("BTC-PERPETUAL" in line for line in shadow)


def test_a_ledger_without_a_mark_or_a_price_says_so():
    rows = [
        ledger_line("A", "real"),
        ledger_line("B", "real", value=None, pnl=None, pnl_usd=None, day_pnl_usd=None, drawdown_usd=None),
    ]
    lines = risk_views.ledger_lines(WIDE, rows)
    assert lines[3].split() == ["B", "BTC", "-120", "0", "0.001875", "no", "mark", "-", "-", "-", "-"]
    assert lines[-1] == "total, real: +0.32 USD, today +0.12 USD; 1 symbol without a price left out"
    assert risk_views.ledger_lines(WIDE, rows[1:])[-1] == "total, real: - USD; 1 symbol without a price left out"
    assert risk_views.ledger_lines(WIDE, []) == ["no ledgers"]


def test_symbols_in_which_nothing_happened_are_counted():
    nothing = {name: Decimal(0) for name in ("position", "cash", "value", "spread", "inventory", "fees", "pnl")}
    still = ledger_line("STILL", "real", fills=0, pnl_usd=0.0, day_pnl_usd=0.0, **nothing)
    lines = risk_views.ledger_lines(WIDE, [ledger_line("A", "real"), still])
    assert not any("STILL" in line for line in lines)
    assert lines[-1] == "total, real: +0.32 USD, today +0.12 USD; 1 symbol without a fill or a position not listed"
    assert risk_views.ledger_lines(WIDE, [still]) == [
        "REAL LEDGER",
        "total, real: +0.00 USD, today +0.00 USD; 1 symbol without a fill or a position not listed",
    ]


def test_an_imbalance_and_fees_in_other_coins_are_seen():
    row = ledger_line(
        "A", "real", imbalance=Decimal("1E-12"), foreign_fees={"USDC": Decimal("-0.10"), "BTC": Decimal(0)}
    )
    lines = risk_views.ledger_lines(Page(140, False), [row])
    assert lines[-2].endswith("  1e-12  0 BTC, -0.1 USDC")


# --- switches and protection -----------------------------------------------------------------------


def test_tripped_switches_come_first_with_what_they_hold_and_what_to_do():
    assert risk_views.switch_lines(Page(130, False), FakeDesk().switches(), NOW) == [
        "SWITCH      SCOPE      RESPONSE  NOW      TRIPS  LAST  DETAIL",
        "drawdown    portfolio  halt      TRIPPED      1    5m  holds deribit/ETH-PERPETUAL; lost 5123.40 USD; -> Read "
        "`mmdctl ledger`",
        "self_trade  exchange   pause     ok           1    2h  kill_switches.clock_skew.max_ms = 500; last: trade 77",
        "clock_skew  exchange   pause     ok           0     -  kill_switches.clock_skew.max_ms = 500",
    ]
    assert risk_views.switch_lines(WIDE, [], NOW) == ["no kill switches"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "yes no 3s"),
        ({"armed": False, "checked": None}, "NO no never"),
        ({"frozen_until": 0.0}, "yes UNTIL RESET 3s"),
        ({"frozen_until": NOW - 1}, "yes until now 3s"),
    ],
)
def test_protection_in_words(changes, words):
    (line,) = FakeDesk().protection()
    text = risk_views.protection_lines(WIDE, [replace(line, **changes)], NOW)[1]
    assert " ".join(text.split()) == f"deribit BTC {words} quantity 5 in 1 s, frozen for 10 s"


def test_a_freeze_has_its_end():
    (line,) = FakeDesk().protection()
    assert " until 20" in risk_views.protection_lines(WIDE, [replace(line, frozen_until=NOW + 9)], NOW)[1]
    assert risk_views.protection_lines(WIDE, [], NOW) == ["no maker protection"]


# --- flatten ---------------------------------------------------------------------------------------


def test_a_preview_is_the_cost_in_a_few_lines():
    preview = preview_of(symbol_status("BTC-PERPETUAL"), None)
    assert risk_views.preview_lines(WIDE, preview) == [
        "flatten deribit/BTC-PERPETUAL: nothing is sent yet",
        "  position       -120",
        "  order          buy 90, reduce-only",
        "  orders         2",
        "  average price  64016.12345679",
        "  worst price    64017.5",
        "  limit price    64335.5",
        "  mid            64015.25",
        "  cost           0.00000022 BTC against the mid",
        "  fee            0.0000007 BTC as taker",
        "  position after -30",
        "  out of reach   30 within the limit price",
    ]


def test_a_preview_without_prices_or_without_a_position():
    row = symbol_status("BTC-PERPETUAL", position=Decimal("50"))
    lines = risk_views.preview_lines(WIDE, preview_of(row, None, mid=None, cost=None, fee=None, refused="is ACTIVE"))
    assert lines[2] == "  order          sell 20, reduce-only"
    assert lines[-5:] == [
        "  cost           not known",
        "  fee            not known",
        "  position after 30",
        "  out of reach   30 within the limit price",
        "  refused        is ACTIVE",
    ]
    refused = preview_of(row, None, limit_price=None, refused="is ACTIVE: pause it first")
    assert risk_views.preview_lines(WIDE, refused)[1:] == [
        "  position       50",
        "  refused        is ACTIVE: pause it first",
    ]
    flat = preview_of(replace(row, position=Decimal(0)), None)
    assert risk_views.preview_lines(WIDE, flat)[1:] == ["  position       0"]
