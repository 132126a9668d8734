"""What withholds a quote is named in every state, with what would end it."""

from decimal import Decimal

import pytest
from control_desk import FAILING, FakeDesk, side, symbol_status
from msgspec.structs import replace

from mmd.control.verdict import RUNBOOKS, explained, with_verdict
from mmd.domain.reasons import MARKET_DATA_REASONS, State, Why

CALM = replace(FakeDesk().explain(["BTC-PERPETUAL"])[0], gate_ask="passes", checks=[])


def verdict(explanation=CALM, **status):
    row = symbol_status("BTC-PERPETUAL", **status)
    return with_verdict(replace(explanation, state=row.state, reason=row.reason), row)


def test_nothing_withholds_a_quote_that_passes():
    got = verdict()
    assert (got.withheld_bid, got.withheld_ask, got.ends, got.refusal) == (None, None, "", None)


@pytest.mark.parametrize(
    ("explanation", "rule"),
    [
        pytest.param({"ask": "withheld: no_bid", "gate_ask": "nothing to judge"}, "quoting: no_bid", id="the pipeline"),
        pytest.param(
            {"gate_ask": "refused by collar: 120 bps, limit 100 bps (mmd.yaml:31: limits.per_symbol.collar_bps)"},
            "gate: refused by collar: 120 bps, limit 100 bps (mmd.yaml:31: limits.per_symbol.collar_bps)",
            id="the gate, with number, limit and where it was written",
        ),
        pytest.param(
            {"ask": "withheld: no_room", "gate_ask": "nothing to judge"},
            "quoting: no_room: position -1000, allowed -1000 to 1000 "
            "(limits.per_symbol.max_position, or less where a total says so: `mmdctl risk`)",
            id="no room has its numbers",
        ),
    ],
)
def test_active_names_the_rule_of_the_side(explanation, rule):
    got = verdict(replace(CALM, **explanation), position=Decimal("-1000"))
    assert (got.withheld_bid, got.withheld_ask, got.ends) == (None, rule, "")


def test_active_names_what_the_machine_holds_back_although_the_pipeline_wants_it():
    assert verdict(bid=side(None, None, "refused: insufficient funds")).withheld_bid == (
        "quoting: refused: insufficient funds"
    )
    assert verdict(bid=side("64010.5", "50", "refused: post only")).withheld_bid is None


@pytest.mark.parametrize(
    ("state", "shown", "reason", "ends"),
    [
        (
            "PAUSED",
            "PAUSED",
            "operator",
            "`mmdctl resume deribit/BTC-PERPETUAL` once every check passes; none fails",
        ),
        ("PAUSED", "PAUSED", "stale_book", "(by itself where auto_resume says so)"),
        ("PAUSED", "PAUSED", "clock_skew", "chronyc tracking"),
        ("HALTED", "HALTED", "drawdown", "`mmdctl reset deribit/BTC-PERPETUAL --reason TEXT`, then `mmdctl resume"),
        ("HALTED", "HALTING (3 orders)", "operator", "It is HALTING (3 orders): the exchange has not said"),
        ("DRAINING", "DRAINING (1 order)", "removed", "then it is GONE"),
        ("GONE", "GONE", "expired", "a reload of a file that lists it"),
    ],
)
def test_every_other_state_withholds_both_sides_and_says_what_ends_it(state, shown, reason, ends):
    got = verdict(state=state, shown=shown, reason=reason, detail="so it is", refusal="refused by grid: 1, limit 2")
    assert got.withheld_bid == got.withheld_ask == f"state: {shown} ({reason}): so it is"
    assert ends in got.ends
    assert got.refusal == "refused by grid: 1, limit 2"


def test_a_paused_symbol_names_the_checks_that_fail():
    got = verdict(replace(CALM, checks=[FAILING]), state="PAUSED", reason="operator")
    assert f"failing now: book_fresh (found {FAILING.found}, wanted {FAILING.wanted})" in got.ends


@pytest.mark.parametrize("why", Why)
@pytest.mark.parametrize("state", State)
def test_no_state_and_reason_is_without_a_word(state, why):
    got = verdict(state=state, reason=why)
    assert bool(got.ends) == bool(got.withheld_bid) == (state is not State.ACTIVE)


def test_the_first_switch_of_a_reason_speaks_for_it_and_market_data_for_itself():
    assert "charged in full" in RUNBOOKS[Why.OUTCOME_UNKNOWN]
    assert not RUNBOOKS.keys() & MARKET_DATA_REASONS


def test_rows_and_explanations_meet_by_exchange_and_symbol():
    desk = FakeDesk()
    got = explained(desk.explain(["all"]), desk.status(["all"]).symbols[::-1])
    assert [(item.symbol, item.shown) for item in got] == [(row.symbol, row.shown) for row in desk.symbols.values()]
