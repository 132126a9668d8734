"""The kill switches as a table: scope, threshold, what they may do, what they say, what to do then.

Printed as docs/kill-switches.md. Not being able to compute what a switch looks at is a trip.
"""

import msgspec

from mmd.domain.reasons import Response, Scope, Switch, Why

PAUSE_OR_HALT = (Response.PAUSE, Response.HALT)
ONLY_HALT = (Response.HALT,)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """`responses`: what the configuration may choose, the default first. `thresholds`: keys of the configuration.

    `why`: the reason that the symbols in its scope show, where it is not the market's own.
    """

    scope: Scope
    responses: tuple[Response, ...]
    why: Why
    thresholds: tuple[str, ...]
    alert: str
    runbook: str


SWITCHES: dict[Switch, Row] = {
    Switch.EXPOSURE: Row(
        scope=Scope.PORTFOLIO,
        responses=ONLY_HALT,
        why=Why.EXPOSURE,
        thresholds=("limits.portfolio", "limits.portfolio.per_exchange", "limits.portfolio.per_underlying"),
        alert="positions exceed a total",
        runbook="Compare `mmdctl positions` with the exchange. Flatten or raise the limit, then reset.",
    ),
    Switch.DRAWDOWN: Row(
        scope=Scope.PORTFOLIO,
        responses=ONLY_HALT,
        why=Why.DRAWDOWN,
        thresholds=("limits.portfolio.max_drawdown_usd", "limits.per_symbol.max_drawdown_usd"),
        alert="profit fell too far below its high-water mark",
        runbook="Read `mmdctl ledger`: where was it lost? A reset counts from here again.",
    ),
    Switch.DAILY_LOSS: Row(
        scope=Scope.PORTFOLIO,
        responses=ONLY_HALT,
        why=Why.DAILY_LOSS,
        thresholds=("limits.portfolio.max_daily_loss_usd", "limits.per_symbol.max_daily_loss_usd"),
        alert="lost more than a day may cost",
        runbook="Read `mmdctl ledger`. After a reset the same day's loss trips again unless the limit is raised.",
    ),
    Switch.VALUATION: Row(
        scope=Scope.PORTFOLIO,
        responses=PAUSE_OR_HALT,
        why=Why.VALUATION,
        thresholds=("kill_switches.valuation.max_seconds",),
        alert="a position cannot be valued",
        runbook="Mark or index is missing: see data_link in `mmdctl status`. Resume once it is back.",
    ),
    Switch.MARKET_HALT: Row(
        scope=Scope.SYMBOL,
        responses=PAUSE_OR_HALT,
        why=Why.MARKET_HALTED,
        thresholds=(),
        alert="the exchange halted the instrument",
        runbook="Wait for the exchange to open it again, look at the price, resume.",
    ),
    Switch.MARKET_DATA: Row(
        scope=Scope.SYMBOL,
        responses=PAUSE_OR_HALT,
        why=Why.STALE_BOOK,
        thresholds=("market_data.stale_seconds", "market_data.max_jump_bps", "market_data.max_jump_ticks"),
        alert="market data is stale, broken, crossed, or jumped, or a link is down",
        runbook="`mmdctl explain SYMBOL` shows which. Resume once every check passes.",
    ),
    Switch.EVENT_LAG: Row(
        scope=Scope.EXCHANGE,
        responses=PAUSE_OR_HALT,
        why=Why.EVENT_LAG,
        thresholds=("kill_switches.event_lag.max_seconds",),
        alert="the exchange's event bus is behind",
        runbook="Find out why the consumer is behind; resume when the lag is gone.",
    ),
    Switch.REJECTION_STORM: Row(
        scope=Scope.SYMBOL,
        responses=ONLY_HALT,
        why=Why.REJECTION_STORM,
        thresholds=("limits.per_symbol.max_rejects", "limits.per_symbol.reject_window_seconds"),
        alert="the exchange refuses order after order",
        runbook="The codes are in `mmdctl events`: balance, rights, grid, rate. Mend it, then reset.",
    ),
    Switch.REPEATED_FILLS: Row(
        scope=Scope.SYMBOL,
        responses=ONLY_HALT,
        why=Why.REPEATED_FILLS,
        thresholds=(
            "limits.per_symbol.max_fills",
            "limits.per_symbol.max_filled",
            "limits.per_symbol.fill_window_seconds",
        ),
        alert="filled too often or too much in a short time",
        runbook="Somebody takes every quote: is the price wrong? Only a reset by a person goes on.",
    ),
    Switch.ACK_TIMEOUT: Row(
        scope=Scope.SYMBOL,
        responses=(Response.HALT, Response.PAUSE),
        why=Why.ACK_TIMEOUT,
        thresholds=(
            "limits.per_symbol.ack_timeout_seconds",
            "kill_switches.ack_timeout.max_timeouts",
            "kill_switches.ack_timeout.window_seconds",
        ),
        alert="answers to orders do not come",
        runbook="The exchange or the network is slow. See round_trip in `mmdctl status`; reset when it is well.",
    ),
    Switch.OUTCOME_UNKNOWN: Row(
        scope=Scope.SYMBOL,
        responses=PAUSE_OR_HALT,
        why=Why.OUTCOME_UNKNOWN,
        thresholds=("limits.per_symbol.unknown_timeout_seconds",),
        alert="an order's fate is unknown past its deadline",
        runbook="It is charged in full and asked for again. Look for its label at the exchange.",
    ),
    Switch.POSITION_DRIFT: Row(
        scope=Scope.SYMBOL,
        responses=ONLY_HALT,
        why=Why.POSITION_DRIFT,
        thresholds=(),
        alert="the exchange's position is not ours",
        runbook="Find the trade that is missing here or there. A reset adopts the exchange's number.",
    ),
    Switch.FOREIGN_ORDERS: Row(
        scope=Scope.SYMBOL,
        responses=(Response.HALT, Response.PAUSE),
        why=Why.FOREIGN_ORDERS,
        thresholds=("service.name",),
        alert="an order carries our label and is not ours, or somebody cancels ours",
        runbook="A second daemon runs under the same service name on this account. Stop it, then reset.",
    ),
    Switch.CLOCK_SKEW: Row(
        scope=Scope.EXCHANGE,
        responses=PAUSE_OR_HALT,
        why=Why.CLOCK_SKEW,
        thresholds=("kill_switches.clock_skew.max_ms",),
        alert="our clock and the exchange's differ",
        runbook="`timedatectl` and `chronyc tracking`; resume when the clock is right.",
    ),
    Switch.DISCONNECT_STORM: Row(
        scope=Scope.EXCHANGE,
        responses=(Response.HALT, Response.PAUSE),
        why=Why.DISCONNECT_STORM,
        thresholds=("kill_switches.disconnect_storm.max_disconnects", "kill_switches.disconnect_storm.window_seconds"),
        alert="the connection breaks again and again",
        runbook="Network, exchange status page, or a second session that logs us out. Reset when it is stable.",
    ),
    Switch.MAKER_PROTECTION: Row(
        scope=Scope.SYMBOL,
        responses=PAUSE_OR_HALT,
        why=Why.MAKER_PROTECTION,
        thresholds=("exchanges.NAME.maker_protection",),
        alert="the exchange's maker protection tripped or is not as configured",
        runbook="Many fills in a moment: look at the price first. `mmdctl protection --reset`, then resume.",
    ),
    Switch.SELF_TRADE: Row(
        scope=Scope.SYMBOL,
        responses=(Response.HALT, Response.PAUSE),
        why=Why.SELF_TRADE,
        thresholds=(),
        alert="we traded with ourselves",
        runbook="Another strategy on this account? Set the account's self-trade prevention. Then reset.",
    ),
    Switch.LEDGER: Row(
        scope=Scope.SYMBOL,
        responses=ONLY_HALT,
        why=Why.LEDGER,
        thresholds=(),
        alert="the ledger does not add up",
        runbook="A defect: keep the journal, report it. The position is still a fold over trade ids.",
    ),
    Switch.RECONCILIATION: Row(
        scope=Scope.SYMBOL,
        responses=PAUSE_OR_HALT,
        why=Why.RECONCILIATION,
        thresholds=("reconciliation.interval_seconds", "reconciliation.average_tolerance_bps"),
        alert="orders or averages differ from the exchange's",
        runbook="`mmdctl cases` has both numbers. It ends by itself once they agree, or by `mmdctl accept`.",
    ),
    Switch.WORKER_FAULT: Row(
        scope=Scope.SYMBOL,
        responses=ONLY_HALT,
        why=Why.WORKER_FAULT,
        thresholds=(),
        alert="a defect in one symbol's worker",
        runbook="The trace is in the log under worker.raised. Report it; the others go on.",
    ),
    Switch.INBOX_OVERFLOW: Row(
        scope=Scope.SYMBOL,
        responses=ONLY_HALT,
        why=Why.INBOX_OVERFLOW,
        thresholds=(),
        alert="more events than a worker can hold",
        runbook="The machine is too slow for what arrives: fewer symbols, or a faster processor. Then reset.",
    ),
    Switch.JOURNAL_FAILURE: Row(
        scope=Scope.PORTFOLIO,
        responses=ONLY_HALT,
        why=Why.JOURNAL_FAILURE,
        thresholds=("service.state_dir",),
        alert="the state directory cannot be written",
        runbook="`df -h` and the rights of the state directory. Make room, then reset.",
    ),
    Switch.ORDERS_LEFT: Row(
        scope=Scope.SYMBOL,
        responses=(Response.WARN,),
        why=Why.OUTCOME_UNKNOWN,
        thresholds=("kill_switches.orders_left.max_cancel_tries",),
        alert="a halt cannot prove that the book is empty",
        runbook="Cancel by hand at the exchange: the labels are in `mmdctl orders`. It goes on asking by itself.",
    ),
}

DEFAULT_RESPONSES: dict[Switch, Response] = {switch: row.responses[0] for switch, row in SWITCHES.items()}
