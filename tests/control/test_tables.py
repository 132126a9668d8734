"""Tables as people see them: snapshots, widths, alignment, ages, and text that others wrote."""

import io
from decimal import Decimal

import pytest
from control_desk import LONG_OPTION, LONGEST, NOW, FakeDesk, alert, left_line, shadow_status, symbol_status
from msgspec.structs import replace

from mmd.cli import risk_views, status_views, views
from mmd.cli.tables import Cell, Column, Page, Style, age, amount, clean, draw, money, number, page_of
from mmd.control.verdict import explained
from mmd.shell.desk import ChangeResult, Outcome, WaitingLine

WIDE = Page(width=100, colour=False)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def explanations(*patterns):
    desk = FakeDesk()
    return explained(desk.explain(list(patterns)), desk.status(list(patterns)).symbols)


def status(**changes):
    return replace(FakeDesk().status(["all"]), **changes)


def test_status_fits_100_columns():
    lines = status_views.status_lines(WIDE, status(), NOW)
    assert lines == [
        "mmd 0.1.0, live, up 2h, config generation 4 (3f2a9c1b77aa)",
        "2 ACTIVE, 1 HALTING, 1 PAUSED",
        "orders: 1204 placed, 8800 amended, 300 cancelled, 3 rejected, 14 filled",
        "pnl -1,222.16 USD, today -12.50 USD, drawdown 5,123.40 USD",
        "notional 123,457 USD, exposure 0.3512 BTC, 2 ETH",
        "deribit (sandbox): data up, orders up, cancel on disconnect armed, 1.2 ms there and back",
        "1 alert: 1 critical",
        "  CRITICAL drawdown deribit/ETH-PERPETUAL, 5m: profit fell too far below its high-water mark: lost",
        "  5123.40 USD since 09:00, the limit is 5000",
        "    -> Read `mmdctl ledger`: where was it lost?",
        "",
        "SYMBOL                    STATE                  BID      ASK   POSITION    PNL USD  DATA",
        "BTC-PERPETUAL             ACTIVE             64010.5  64031.0       -120     +12.35   <1s",
        "BTC-25DEC26-120000-C      ACTIVE              0.0005   no ask          0          -   <1s",
        "XRP_USDC-30JUN27-0d625-C  PAUSED                   -        -  12345.678  -1,234.50    2h",
        "    exchange disconnected",
        "ETH-PERPETUAL             HALTING (1 order)        -        -       -120     +12.35     -",
        "    drawdown",
    ]


def test_status_on_60_columns_drops_columns_and_keeps_names_prices_and_reasons():
    proven = [replace(row, shown=row.state, resting=0) for row in status().symbols]
    lines = status_views.status_lines(Page(60, False), status(symbols=proven), NOW)
    table = lines[lines.index("") + 1 :]
    assert table == [
        "SYMBOL                    STATE       BID      ASK",
        "BTC-PERPETUAL             ACTIVE  64010.5  64031.0",
        "BTC-25DEC26-120000-C      ACTIVE   0.0005   no ask",
        "XRP_USDC-30JUN27-0d625-C  PAUSED        -        -",
        "    exchange disconnected",
        "ETH-PERPETUAL             HALTED        -        -",
        "    drawdown",
    ]


def test_orders_that_may_rest_are_named_where_the_state_does_not_show_them():
    paused = symbol_status("BTC-PERPETUAL", state="PAUSED", reason="operator", resting=2)
    assert status_views.status_lines(WIDE, status(symbols=[paused]), NOW)[-1].endswith(
        "operator; 2 orders may still rest"
    )


def test_the_worst_alerts_come_first_and_the_rest_are_counted():
    alerts = [
        alert("cheap", "info"),
        alert("late", "critical", since=NOW - 10, runbook=""),
        alert("soon", "warning", symbol="deribit/X", exchange="deribit"),
        alert("early", "critical", since=NOW - 7200, exchange="deribit"),
    ]
    lines = status_views.status_lines(Page(200, False), status(alerts=alerts, symbols=[]), NOW)
    start = lines.index("4 alerts: 2 critical, 1 warning, 1 info")
    heads = [line.split(":")[0] for line in lines[start:] if line.startswith("  ") and not line.startswith("    ")]
    assert heads == [
        "  CRITICAL early deribit, 2h",
        "  CRITICAL late, 10s",
        "  WARNING soon deribit/X, 5m",
        "  and 1 more",
    ]
    rows = status_views.alert_lines(Page(200, False), alerts, NOW)
    table, meanings = rows[1 : rows.index("")], rows[rows.index("") :]
    assert [row.split()[1] for row in table] == ["early", "late", "soon", "cheap"]
    assert [row.split(":")[0] for row in meanings if row and not row.startswith(" ")] == [
        row.split()[1] for row in table
    ]
    assert status_views.alert_lines(WIDE, [], NOW) == ["no alerts"]


def test_many_alerts_of_one_name_take_one_line_of_the_status_and_one_of_what_to_do():
    alerts = [alert("stale", "warning", exchange="deribit", symbol=f"S{n}", detail=f"{n} s old") for n in range(20)]
    alerts.append(alert("loss", "critical"))
    lines = status_views.status_lines(Page(200, False), status(alerts=alerts, symbols=[]), NOW)
    assert sum("stale" in line for line in lines) == 1
    assert any(line.startswith("  WARNING stale deribit/S0 and 19 more, ") for line in lines)
    assert not any(line.endswith("mmdctl alerts") for line in lines)
    rows = status_views.alert_lines(WIDE, alerts, NOW)
    assert sum("s old" in row for row in rows) == 20
    assert sum(row.startswith("    -> ") for row in rows) == 2


def test_unknown_results_are_not_shown_as_nothing():
    text = "\n".join(status_views.status_lines(WIDE, status(pnl_usd=None, day_pnl_usd=None, drawdown_usd=None), NOW))
    assert "pnl - USD, today - USD, drawdown not known" in text


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        pytest.param({"alerts": [], "symbols": [symbol_status("A")]}, [], id="all well"),
        pytest.param(
            {"alerts": [], "symbols": [symbol_status("A", state="HALTED", reason="operator")]},
            ["deribit/A is HALTED: operator"],
            id="halted",
        ),
        pytest.param(
            {"alerts": [], "symbols": [symbol_status("A", state="HALTED", shown="HALTING (3 orders)")]},
            ["deribit/A is HALTING (3 orders): resumed, and nothing proves that none of our orders rests"],
            id="unproven",
        ),
        pytest.param(
            {"alerts": [alert("w", "warning"), alert("c", "critical", detail="")], "symbols": [symbol_status("A")]},
            ["alert c: profit fell too far below its high-water mark"],
            id="critical alerts, no warnings",
        ),
        pytest.param(
            {"alerts": [], "symbols": [symbol_status("A", open_cases=2), symbol_status("B", open_cases=1)]},
            ["3 open cases: see `mmdctl cases`"],
            id="open cases, whatever the state",
        ),
    ],
)
def test_what_a_check_shouts_about(changes, faults):
    assert status_views.degradations(status(**changes)) == faults


@pytest.mark.parametrize(
    ("asked", "count"), [(["all"], 2), (["A"], 1)], ids=["all alerts", "those of the service and of A"]
)
def test_a_check_of_some_symbols_leaves_out_alerts_of_others(asked, count):
    alerts = [alert("x", "critical", exchange="deribit", symbol="B"), alert("y", "critical")]
    few = status(alerts=alerts, symbols=[symbol_status("A")])
    assert len(status_views.degradations(few, asked)) == count


# --- what symbols left behind ----------------------------------------------------------------------


def test_a_position_that_a_symbol_left_is_marked_in_status_and_positions():
    left = [left_line("SOL_USDC-PERPETUAL"), left_line("OLD", position=Decimal("0.5"), pnl_usd=None, coins=None)]
    lines = status_views.status_lines(Page(160, False), status(left_behind=left), NOW)
    assert (
        "held and not looked after, as last known: deribit/SOL_USDC-PERPETUAL -40 (removed), "
        "deribit/OLD 0.5 (removed): `mmdctl positions`" in lines
    )
    desk = FakeDesk()
    desk.left = left
    *_, sol, old = views.position_lines(Page(170, False), desk.positions(["all"]))
    assert sol.split()[:9] == ["SOL_USDC-PERPETUAL", "-40", "-", "-", "-0.0125", "-1.50", "-", "-", "-"]
    assert sol.endswith("  removed: as last known, without later fills")
    assert old.split()[:6] == ["OLD", "0.5", "-", "-", "-", "-"] and old.endswith("without later fills")
    narrow = " ".join(views.position_lines(Page(40, False), desk.positions(["all"])))
    assert narrow.count("removed: as last known") == 2 and "-40" in narrow
    desk.left = []
    assert "SERVICE" not in views.position_lines(WIDE, desk.positions(["all"]))[0]
    assert not any("looked after" in line for line in status_views.status_lines(WIDE, status(), NOW))


# --- what waits for its exchange -------------------------------------------------------------------


def awaited(**changes):
    """Derive has not come; two entries wait for it."""
    (there,) = status().exchanges
    derive = replace(
        there, name="derive", data_link=False, trade_link=False, waiting="has not answered since the start"
    )
    rows = [
        WaitingLine(symbol=name, exchange="derive", entry=entry, reason="derive has not answered since the start")
        for name, entry in (("ETH-PERP", "instruments[4]"), ("selection of BTC", "instruments[5]"))
    ]
    return status(exchanges=[there, derive], waiting=rows, **changes)


def test_what_waits_for_its_exchange_has_a_row_and_the_exchange_says_why():
    lines = status_views.status_lines(Page(160, False), awaited(), NOW)
    assert "2 ACTIVE, 1 HALTING, 1 PAUSED, 2 WAITING" in lines
    at = next(at for at, line in enumerate(lines) if line.startswith("derive (sandbox): data DOWN, orders DOWN"))
    assert lines[at + 1] == "derive has not answered since the start: its symbols wait for it"
    *_, perpetual, selection = lines
    assert perpetual.split()[:3] == ["ETH-PERP", "derive", "WAITING"]
    assert perpetual.endswith("-  instruments[4]: derive has not answered since the start")
    assert selection.startswith("selection of BTC  ") and "instruments[5]: derive has not" in selection
    nobody = status_views.status_lines(Page(160, False), awaited(symbols=[]), NOW)
    assert nobody[-1].startswith("selection of BTC") and "no symbols" not in nobody


def test_a_check_shouts_about_an_exchange_that_is_not_in_service():
    faults = status_views.degradations(awaited(alerts=[], symbols=[]))
    assert faults[-1] == "derive: its symbols are not in service: it has not answered since the start"


def test_a_change_of_no_symbol_is_its_detail_and_no_done():
    none = ChangeResult(outcome=Outcome.REFUSED, detail="the daemon is stopping: it cancels every order", symbols=[])
    assert views.change_lines(WIDE, none) == ["the daemon is stopping: it cancels every order"]
    assert views.change_lines(WIDE, replace(none, detail="0 symbols", outcome=Outcome.DONE)) == ["0 symbols: done"]


# --- shadow ----------------------------------------------------------------------------------------


def test_shadow_figures_are_marked_and_stand_in_no_real_column():
    real = symbol_status("BTC-PERPETUAL", mode="shadow", position=Decimal("0"), pnl_usd=None)
    dreaming = replace(real, shadow=shadow_status())
    page = Page(160, False)
    *head, _, row = status_views.status_lines(page, status(mode="shadow", symbols=[real], alerts=[]), NOW)
    *shadow_head, _, shadow_row = status_views.status_lines(
        page, status(mode="shadow", symbols=[dreaming], alerts=[]), NOW
    )
    assert shadow_row == row + "  shadow +0.2..+0.5, pnl -1.20..+3.40 USD"
    assert [line for line in shadow_head if line not in head] == [
        "shadow, imagined and in none of the figures above: 1 symbol, 1..3 fills, pnl -1.20..+3.40 USD"
    ]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "shadow +0.2..+0.5, pnl -1.20..+3.40 USD"),
        ({"pessimistic_position": Decimal("0.5")}, "shadow +0.5, pnl -1.20..+3.40 USD"),
        ({"optimistic_position": Decimal("-3")}, "shadow -3..+0.2, pnl -1.20..+3.40 USD"),
        ({"optimistic_pnl_usd": None}, "shadow +0.2..+0.5, pnl -1.20..- USD"),
    ],
)
def test_shadow_bounds_in_words(changes, text):
    assert status_views.shadow_text(shadow_status(**changes)) == text


def test_shadow_without_a_price_is_counted():
    rows = [
        symbol_status("A", shadow=shadow_status(optimistic_pnl_usd=None)),
        symbol_status("B", shadow=shadow_status()),
    ]
    text = " ".join(status_views.status_lines(Page(200, False), status(symbols=rows), NOW))
    assert "2 symbols, 2..6 fills, pnl -2.40..+3.40 USD, 1 symbol without a price" in text


def test_show_has_both_bounds_and_the_last_refusal():
    row = symbol_status("A", shadow=shadow_status(), refusal="refused by collar: 120 bps, limit 100 (mmd.yaml:31)")
    lines = status_views.symbol_lines(WIDE, [row], NOW)
    assert "  last refusal refused by collar: 120 bps, limit 100 (mmd.yaml:31)" in lines
    assert "  shadow       pessimistic: position +0.2, 1 fill, pnl -1.20 USD" in lines
    assert "  shadow       optimistic: position +0.5, 3 fills, pnl +3.40 USD" in lines


def test_what_is_wrong_with_the_service_is_said_first():
    troubled = status(config_error="mmd.yaml:3:5: bad", confirm_deadline=NOW + 34.2)
    text = "\n".join(status_views.status_lines(WIDE, troubled, NOW))
    assert "the configuration on disk is refused: mmd.yaml:3:5: bad" in text
    assert "the last reload undoes itself in 34s: `mmdctl confirm` keeps it" in text


def test_exchange_and_mode_are_columns_only_where_they_differ():
    other = symbol_status("ETH_USDT", exchange="tradex", mode="shadow")
    lines = status_views.status_lines(WIDE, status(symbols=[symbol_status("BTC-PERPETUAL"), other]), NOW)
    assert lines[-3].split()[:4] == ["SYMBOL", "EXCHANGE", "STATE", "MODE"]
    assert lines[-1].split()[:4] == ["ETH_USDT", "tradex", "ACTIVE", "shadow"]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 200])
def test_no_line_is_wider_than_the_page_where_the_longest_name_fits(width):
    desk = FakeDesk()
    names = [LONG_OPTION, LONGEST, *(f"BTC-25DEC26-{strike}000-P" for strike in range(100, 298))]
    many = status(symbols=[symbol_status(name, state="PAUSED", reason="exchange_disconnected") for name in names])
    page = Page(width, False)
    lines = status_views.status_lines(page, many, NOW)
    lines += views.explain_lines(page, explanations("all"))
    lines += views.order_lines(page, desk.orders(["all"]))
    lines += views.position_lines(page, desk.positions(["all"]))
    lines += risk_views.ledger_lines(page, desk.ledger(["all"]))
    lines += risk_views.switch_lines(page, desk.switches(), NOW)
    lines += risk_views.risk_lines(page, desk.risk())
    lines += risk_views.protection_lines(page, desk.protection(), NOW)
    lines += status_views.alert_lines(page, desk.alerts(), NOW)
    lines += risk_views.preview_lines(page, desk.flatten_preview("deribit/BTC-PERPETUAL", None, 50.0))
    assert all(any(line.startswith(name) for line in lines) for name in names)
    if width >= 60:
        assert max(map(len, lines)) <= width


def test_explain_shows_steps_quote_gate_and_checks():
    assert views.explain_lines(WIDE, explanations("BTC-PERPETUAL")) == [
        "deribit/BTC-PERPETUAL: ACTIVE (resumed), quoting",
        "ask withheld by gate: refused: position: worst case -1050, at most -1000",
        "STEP              BID        ASK  HOW",
        "fair        64015.375  64015.375  microprice of 64015.0 x 1200 / 64015.5 x 400",
        "half width   63983.37   64047.38  10 bps of fair, both sides",
        "inventory    63987.21   64051.22  -120 of 1000: both prices 3.84 up",
        "grid          63987.0    64051.5  tick 0.5: bid floors, ask ceils",
        "",
        "SIDE  WANTED         GATE",
        "bid   50 at 63987.0  passes",
        "ask   50 at 64051.5  refused: position: worst case -1050, at most -1000",
        "",
        "CHECK       RESULT  FOUND, WANTED",
        "trade link  pass    found up, wanted up",
        "book fresh  FAIL    found no book for 12.3 s, wanted a book younger than 10 s",
    ]


def test_explain_says_a_withheld_reason_once():
    (item,) = explanations("ETH-PERPETUAL")
    lines = views.explain_lines(WIDE, [replace(item, bid="withheld: HALTING (1 order): drawdown")])
    assert sum("drawdown)" in line for line in lines[1:]) == 1
    assert "bid   withheld       passes" in lines


def test_a_table_without_rows_says_so():
    assert views.order_lines(WIDE, []) == ["no orders"]
    assert views.position_lines(WIDE, []) == ["no positions"]
    assert draw(WIDE, [Column("A")], []) == []
    assert status_views.status_lines(WIDE, status(symbols=[]), NOW)[-1] == "no symbols"


def test_colours_do_not_move_columns():
    columns = [Column("A"), Column("B", right=True), Column("C", words=True)]
    rows = [[Cell("x", Style.BAD), Cell("1"), Cell("words " * 30)], [Cell("yyyy"), Cell("100", Style.GOOD), Cell("z")]]
    plain = draw(Page(60, False), columns, rows)
    coloured = draw(Page(60, True), columns, rows)
    for style in Style:
        coloured = [line.replace(f"\x1b[{style}m", "") for line in coloured]
    assert [line.replace("\x1b[0m", "") for line in coloured] == plain
    assert any("\x1b[31;1mx   \x1b[0m" in line for line in draw(Page(60, True), columns, rows))


def test_what_others_wrote_cannot_steer_the_terminal():
    hostile = "\x1b]0;owned\x07\x9b31m\nsecond\u202e"
    assert clean(hostile) == "?]0;owned??31m second?"
    desk = FakeDesk()
    desk.happen(hostile, detail=hostile)
    assert views.event_line(WIDE, desk.events[0]).isprintable()
    shown = symbol_status("BTC-PERPETUAL", state="PAUSED", detail=hostile, by=hostile, reason=hostile)
    for lines in (
        status_views.symbol_lines(WIDE, [shown], NOW),
        status_views.status_lines(WIDE, status(symbols=[shown]), NOW),
    ):
        assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.0, "<1s"), (3.9, "3s"), (59.9, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (200_000, "2d")],
)
def test_ages(seconds, text):
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (Decimal("64010.50"), "64010.50"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1E-8"), "0.00000001"),
        (64015.25, "64015.25"),
        (0.1 + 0.2, "0.3"),
        (1e-9, "0.000000001"),
        (123456789.0, "123456790"),
        (0.0, "0"),
        (-2.50, "-2.5"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (Decimal("0.00187500000000000000000001"), "0.001875"),
        (Decimal("-1E+3"), "-1000"),
        (Decimal("100"), "100"),
        (Decimal("0.123456785000001"), "0.12345679"),
        (Decimal("0E-12"), "0"),
    ],
)
def test_amounts_have_at_most_eight_places(value, text):
    assert amount(value) == text


def test_money_is_signed_and_to_the_cent():
    assert (money(None), money(-1234.567), money(0.004)) == ("-", "-1,234.57", "+0.00")


@pytest.mark.parametrize(
    ("stream", "environment", "page"),
    [
        (io.StringIO(), {}, Page(100, False)),
        (io.StringIO(), {"COLUMNS": "72", "TERM": "xterm"}, Page(72, False)),
        (io.StringIO(), {"COLUMNS": "wide"}, Page(100, False)),
        (Terminal(), {"TERM": "xterm"}, Page(72, True)),
        (Terminal(), {"TERM": "dumb"}, Page(72, False)),
        (Terminal(), {}, Page(72, False)),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, Page(72, False)),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": ""}, Page(72, True)),
    ],
)
def test_the_page_follows_terminal_and_environment(monkeypatch, stream, environment, page):
    monkeypatch.setenv("COLUMNS", "72")  # what the terminal says of itself
    assert page_of(stream, environment) == page


def test_a_long_list_of_symbols_is_cut_in_words():
    assert views.names([str(n) for n in range(14)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more"
