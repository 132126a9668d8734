"""A desk with two exchanges and a few symbols: answers at once, waits where told, keeps what it was asked."""

import fnmatch
from decimal import Decimal

import msgspec
import trio

from mmd.domain.errors import MmdError
from mmd.shell.desk import (
    AlertLine,
    Caller,
    CaseLine,
    CaseState,
    ChangeResult,
    CheckLine,
    EventAnswer,
    EventLine,
    EventQuery,
    ExchangeStatus,
    Explanation,
    FlattenPreview,
    LedgerLine,
    OrderLine,
    Outcome,
    PlanLine,
    PlanResult,
    PositionLine,
    ProtectionLine,
    ReloadResult,
    ShadowStatus,
    SideStatus,
    Status,
    StepLine,
    SwitchLine,
    SymbolResult,
    SymbolStatus,
    TotalLine,
)
from mmd.shell.history import matcher

NOW = 1_767_225_600.0
LONG_OPTION = "BTC-25DEC26-120000-C"
LONGEST = "XRP_USDC-30JUN27-0d625-C"
SYMBOLS = ("BTC-PERPETUAL", LONG_OPTION, LONGEST, "ETH-PERPETUAL")
FAILING = CheckLine("book_fresh", False, "no book for 12.3 s", "a book younger than 10 s")


def side(price: str | None, size: str | None, withheld: str | None = None) -> SideStatus:
    return SideStatus(
        price=None if price is None else Decimal(price),
        size=None if size is None else Decimal(size),
        phase="EMPTY" if price is None else "LIVE",
        order_id=None if price is None else "ETH-584849853",
        label=None if price is None else "mmd-mmd-BTC-PERPETUAL-b-t4k2-1z",
        withheld=withheld,
    )


def symbol_status(symbol: str, **changes: object) -> SymbolStatus:
    quoted = SymbolStatus(
        symbol=symbol,
        exchange="deribit",
        state="ACTIVE",
        shown="ACTIVE",
        reason="resumed",
        detail="",
        by="root",
        since=NOW - 125,
        mode="live",
        resting=2,
        open_cases=0,
        bid=side("64010.5", "50"),
        ask=side("64031.0", "50"),
        market_bid=Decimal("64015.0"),
        market_ask=Decimal("64015.5"),
        fair=64015.25,
        position=Decimal("-120"),
        min_position=Decimal("-1000"),
        max_position=Decimal("1000"),
        pnl_usd=12.345,
        data_age_seconds=0.21,
        refusal=None,
        shadow=None,
    )
    if "state" in changes:
        changes.setdefault("shown", changes["state"])
    return msgspec.structs.replace(quoted, **changes)


def make_symbols() -> dict[str, SymbolStatus]:
    none = side(None, None, "not_active")
    return {
        "BTC-PERPETUAL": symbol_status("BTC-PERPETUAL"),
        LONG_OPTION: symbol_status(
            LONG_OPTION,
            bid=side("0.0005", "0.1"),
            ask=side(None, None, "no_ask"),
            market_bid=Decimal("0.0004"),
            market_ask=None,
            fair=None,
            position=Decimal("0"),
            pnl_usd=None,
        ),
        LONGEST: symbol_status(
            LONGEST,
            state="PAUSED",
            reason="exchange_disconnected",
            detail="data link: connection reset by peer",
            by="market data",
            bid=none,
            ask=none,
            market_bid=None,
            market_ask=None,
            resting=0,
            position=Decimal("12345.678"),
            pnl_usd=-1234.5,
            data_age_seconds=7300.0,
        ),
        "ETH-PERPETUAL": symbol_status(
            "ETH-PERPETUAL",
            state="HALTED",
            shown="HALTING (1 order)",
            reason="drawdown",
            detail="lost 5123.40 USD since 09:00, the limit is 5000",
            by="portfolio",
            bid=none,
            ask=none,
            resting=1,
            data_age_seconds=None,
        ),
    }


def alert(name: str, severity: str, **changes: object) -> AlertLine:
    line = AlertLine(
        name=name,
        severity=severity,
        exchange=None,
        symbol=None,
        summary="profit fell too far below its high-water mark",
        detail="lost 5123.40 USD since 09:00, the limit is 5000",
        runbook="Read `mmdctl ledger`: where was it lost?",
        since=NOW - 300,
    )
    return msgspec.structs.replace(line, **changes)


def case_line(number: int, kind: str = "position", **changes: object) -> CaseLine:
    line = CaseLine(
        number=number,
        symbol="BTC-PERPETUAL",
        exchange="deribit",
        kind=kind,
        subject="",
        ours="-120",
        theirs="-100",
        since=NOW - 300,
        state=CaseState.OPEN,
        closed=None,
        by="",
        reason="",
    )
    return msgspec.structs.replace(line, **changes)


def make_cases() -> list[CaseLine]:
    agreed = {"state": CaseState.EXPLAINED, "closed": NOW - 3600, "by": "mmd", "reason": "the numbers agree"}
    return [
        case_line(
            6,
            "average",
            symbol="ETH-PERPETUAL",
            ours="average 3012.5",
            theirs="average 3011",
            since=NOW - 7200,
            **agreed,
        ),
        case_line(7),
    ]


def shadow_status(**changes: object) -> ShadowStatus:
    shadow = ShadowStatus(
        pessimistic_position=Decimal("0.2"),
        optimistic_position=Decimal("0.5"),
        pessimistic_fills=1,
        optimistic_fills=3,
        pessimistic_pnl_usd=-1.2,
        optimistic_pnl_usd=3.4,
    )
    return msgspec.structs.replace(shadow, **changes)


def ledger_line(symbol: str, ledger: str, **changes: object) -> LedgerLine:
    line = LedgerLine(
        symbol=symbol,
        exchange="deribit",
        ledger=ledger,
        currency="BTC",
        position=Decimal("-120"),
        opening=Decimal("0"),
        cash=Decimal("0.00187500000000000000000001"),
        value=Decimal("-0.00187"),
        spread=Decimal("0.0000051"),
        inventory=Decimal("-0.000001"),
        fees=Decimal("0.0000009"),
        funding=Decimal("0"),
        settlement=Decimal("0"),
        imbalance=Decimal("0"),
        fills=14,
        foreign_fees={},
        pnl=Decimal("0.000005"),
        pnl_usd=0.32,
        day_pnl_usd=0.12,
        drawdown_usd=0.02,
    )
    return msgspec.structs.replace(line, **changes)


def left_line(symbol: str, **changes: object) -> PositionLine:
    """A position whose symbol was removed."""
    line = PositionLine(
        symbol=symbol,
        exchange="deribit",
        position=Decimal("-40"),
        average_price=None,
        mark_price=None,
        pnl_usd=-1.5,
        realized_usd=None,
        unrealized_usd=None,
        fees_usd=None,
        coins=-0.0125,
        left="removed",
    )
    return msgspec.structs.replace(line, **changes)


def preview_of(row: SymbolStatus, asked: Decimal | None, **changes: object) -> FlattenPreview:
    """30 of the position are out of reach."""
    whole = abs(row.position)
    wanted = min(whole, whole if asked is None else asked)
    reach = min(wanted, max(whole - 30, Decimal(0)))
    preview = FlattenPreview(
        symbol=row.symbol,
        exchange=row.exchange,
        position=row.position,
        side="bid" if row.position < 0 else "ask" if row.position else None,
        size=reach,
        left=wanted - reach,
        orders=2,
        average_price=Decimal("64016.123456789012345"),
        worst_price=Decimal("64017.5"),
        limit_price=Decimal("64335.5"),
        mid=Decimal("64015.25"),
        cost=Decimal("0.00000021999999999"),
        fee=Decimal("0.0000007"),
        currency="BTC",
        refused=None,
    )
    return msgspec.structs.replace(preview, **changes)


class FakeDesk:
    """`gate`: changes wait for it when set. `calls`: (method, what was asked)."""

    def __init__(self) -> None:
        self.symbols = make_symbols()
        self.calls: list[tuple[object, ...]] = []
        self.events: list[EventLine] = []
        self.more = trio.Event()
        self.gate: trio.Event | None = None
        self.fault: Exception | None = None
        self.outcome = Outcome.DONE
        self.config_error: str | None = None
        self.confirm_deadline: float | None = None
        self.plan_errors: list[str] = []
        self.alert_lines = [alert("drawdown", "critical", exchange="deribit", symbol="ETH-PERPETUAL")]
        self.preview: dict[str, object] = {}  # what a preview says instead
        self.closes = Decimal(10**6)  # how much of the position a flatten finds at most
        self.frozen_until: float | None = None
        self.detail: str | None = None  # of changes
        self.cut = ""
        self.books = make_cases()
        self.row_detail = "1 check failed"
        self.left: list[PositionLine] = []

    def happen(self, name: str, **fields: object) -> None:
        line = EventLine(seq=len(self.events) + 1, time=NOW, name=name, symbol=None, exchange=None, detail="", by=None)
        self.events.append(msgspec.structs.replace(line, **fields))
        self.more.set()
        self.more = trio.Event()

    def matching(self, patterns: list[str]) -> list[SymbolStatus]:
        if self.fault is not None:
            raise self.fault
        found = []
        for pattern in patterns:
            names = [
                status
                for status in self.symbols.values()
                if pattern == "all"
                or fnmatch.fnmatchcase(status.symbol, pattern)
                or fnmatch.fnmatchcase(f"{status.exchange}/{status.symbol}", pattern)
            ]
            if not names:
                raise KeyError(pattern)
            found += [status for status in names if status not in found]
        return found

    def status(self, symbols: list[str]) -> Status:
        return Status(
            service="mmd",
            version="0.1.0",
            phase="running",
            mode="live",
            started=NOW - 7300,
            uptime_seconds=7300,
            config_hash="3f2a9c1b77aa",
            config_generation=4,
            config_error=self.config_error,
            confirm_deadline=self.confirm_deadline,
            orders_placed=1204,
            orders_amended=8800,
            orders_cancelled=300,
            orders_rejected=3,
            fills=14,
            pnl_usd=-1222.16,
            day_pnl_usd=-12.5,
            drawdown_usd=5123.4,
            alerts=self.alert_lines,
            exposure={"BTC": 0.3512, "ETH": 2.0},
            notional_usd=123456.7,
            exchanges=[
                ExchangeStatus(
                    name="deribit",
                    network="sandbox",
                    data_link=True,
                    trade_link=True,
                    cancel_on_disconnect=True,
                    subscriptions=12,
                    round_trip_ms=1.24,
                )
            ],
            symbols=self.matching(symbols),
            left_behind=self.left,
        )

    def explain(self, symbols: list[str]) -> list[Explanation]:
        return [
            Explanation(
                symbol=status.symbol,
                exchange=status.exchange,
                state=status.state,
                reason=status.reason,
                detail=status.detail,
                quoting=status.state == "ACTIVE",
                steps=[
                    StepLine("fair", "microprice of 64015.0 x 1200 / 64015.5 x 400", "64015.375", "64015.375"),
                    StepLine("half_width", "10 bps of fair, both sides", "63983.37", "64047.38"),
                    StepLine("inventory", "-120 of 1000: both prices 3.84 up", "63987.21", "64051.22"),
                    StepLine("grid", "tick 0.5: bid floors, ask ceils", "63987.0", "64051.5"),
                ],
                bid="50 at 63987.0",
                ask="50 at 64051.5",
                gate_bid="passes",
                gate_ask="refused: position: worst case -1050, at most -1000",
                checks=[CheckLine("trade_link", True, "up", "up"), FAILING],
            )
            for status in self.matching(symbols)
        ]

    def orders(self, symbols: list[str]) -> list[OrderLine]:
        return [
            OrderLine(
                symbol=status.symbol,
                exchange=status.exchange,
                side=name,
                phase=our.phase,
                price=our.price,
                size=our.size,
                order_id=our.order_id,
                label=our.label or "",
                age_seconds=75.0,
                mode=status.mode,
            )
            for status in self.matching(symbols)
            for name, our in (("bid", status.bid), ("ask", status.ask))
            if our.price is not None
        ]

    def positions(self, symbols: list[str]) -> list[PositionLine]:
        return [
            PositionLine(
                symbol=status.symbol,
                exchange=status.exchange,
                position=status.position,
                average_price=Decimal("64000.25") if status.position else None,
                mark_price=status.fair,
                pnl_usd=status.pnl_usd,
                realized_usd=3.5,
                unrealized_usd=None,
                fees_usd=-0.25,
                coins=0.00187,
            )
            for status in self.matching(symbols)
        ] + self.left

    async def change(self, name: str, symbols: list[str], reason: str, caller: Caller, state: str) -> ChangeResult:
        found = self.matching(symbols)
        self.calls.append((name, symbols, reason, caller))
        if self.gate is not None and name != "halt":
            await self.gate.wait()
        checks = [FAILING] if self.outcome is Outcome.REFUSED else []
        rows = []
        for status in found:
            if self.outcome is Outcome.DONE:
                self.symbols[status.symbol] = msgspec.structs.replace(
                    status, state=state, shown=state, reason="operator"
                )
            rows.append(
                SymbolResult(
                    symbol=status.symbol,
                    outcome=self.outcome,
                    state=self.symbols[status.symbol].state,
                    detail="" if self.outcome is Outcome.DONE else self.row_detail,
                    checks=checks,
                )
            )
        detail = f"{len(rows)} symbols" if self.detail is None else self.detail
        return ChangeResult(outcome=self.outcome, detail=detail, symbols=rows)

    async def pause(self, symbols: list[str], reason: str, caller: Caller, timeout_seconds: float) -> ChangeResult:
        return await self.change("pause", symbols, reason, caller, "PAUSED")

    async def resume(self, symbols: list[str], reason: str, caller: Caller, timeout_seconds: float) -> ChangeResult:
        return await self.change("resume", symbols, reason, caller, "ACTIVE")

    async def halt(self, symbols: list[str], reason: str, caller: Caller, timeout_seconds: float) -> ChangeResult:
        return await self.change("halt", symbols, reason, caller, "HALTED")

    async def reset(self, symbols: list[str], reason: str, caller: Caller, timeout_seconds: float) -> ChangeResult:
        return await self.change("reset", symbols, reason, caller, "PAUSED")

    async def shadow(
        self, symbols: list[str], on: bool, reason: str, caller: Caller, timeout_seconds: float
    ) -> ChangeResult:
        return await self.change(f"shadow {on}", symbols, reason, caller, "ACTIVE")

    def risk(self) -> list[TotalLine]:
        return [
            TotalLine(
                scope="portfolio",
                target="",
                unit="USD",
                used=123456.7,
                worst=180000.0,
                limit=200000.0,
                oversubscribed=2.5,
                key="limits.portfolio.max_notional_usd",
            ),
            TotalLine(
                scope="underlying",
                target="BTC",
                unit="coins",
                used=None,
                worst=None,
                limit=10.0,
                oversubscribed=None,
                key="limits.portfolio.per_underlying.BTC.max_exposure",
            ),
        ]

    def ledger(self, symbols: list[str]) -> list[LedgerLine]:
        lines = []
        for row in self.matching(symbols):
            lines.append(ledger_line(row.symbol, "real"))
            if row.shadow is not None:
                lines.append(ledger_line(row.symbol, "shadow pessimistic", pnl_usd=-1.2))
                lines.append(ledger_line(row.symbol, "shadow optimistic", pnl_usd=3.4))
        return lines

    def switches(self) -> list[SwitchLine]:
        calm = SwitchLine(
            switch="clock_skew",
            scope="exchange",
            response="pause",
            thresholds=["kill_switches.clock_skew.max_ms = 500"],
            trips=0,
            last=None,
            last_detail="",
            tripped=[],
            runbook="`timedatectl`",
        )
        once = msgspec.structs.replace(calm, switch="self_trade", trips=1, last=NOW - 7200, last_detail="trade 77")
        held = msgspec.structs.replace(
            once,
            switch="drawdown",
            scope="portfolio",
            response="halt",
            tripped=["deribit/ETH-PERPETUAL"],
            last=NOW - 300,
            last_detail="lost 5123.40 USD",
            runbook="Read `mmdctl ledger`",
        )
        return [calm, once, held]

    def alerts(self) -> list[AlertLine]:
        return self.alert_lines

    def protection(self) -> list[ProtectionLine]:
        return [
            ProtectionLine(
                exchange="deribit",
                underlying="BTC",
                armed=True,
                detail="quantity 5 in 1 s, frozen for 10 s",
                frozen_until=self.frozen_until,
                checked=NOW - 3,
            )
        ]

    async def reset_protection(self, exchange: str, underlying: str, reason: str, caller: Caller) -> ProtectionLine:
        self.calls.append(("protection_reset", exchange, underlying, reason, caller))
        if (exchange, underlying) != ("deribit", "BTC"):
            raise MmdError(f"{exchange} has no maker protection for {underlying}")
        return self.protection()[0]

    def one(self, symbol: str) -> SymbolStatus:
        """A desk takes names here, not globs."""
        (row,) = [row for row in self.symbols.values() if symbol == f"{row.exchange}/{row.symbol}"]
        return row

    def flatten_preview(self, symbol: str, size: Decimal | None, slippage_bps: float) -> FlattenPreview:
        self.calls.append(("flatten_preview", symbol, size, slippage_bps))
        return preview_of(self.one(symbol), size, **self.preview)

    async def flatten(
        self,
        symbol: str,
        size: Decimal | None,
        limit_price: Decimal,
        reason: str,
        caller: Caller,
        timeout_seconds: float,
    ) -> ChangeResult:
        self.calls.append(("flatten", symbol, size, limit_price, reason, caller))
        row = self.one(symbol)
        if self.outcome is Outcome.DONE:
            closed = min(abs(row.position) if size is None else size, self.closes)
            left = row.position - closed if row.position > 0 else row.position + closed
            self.symbols[row.symbol] = msgspec.structs.replace(row, position=left)
            detail = f"closed {closed}, {left} left"
        else:
            detail = "refused by collar: 64335.5, limit 64300 (mmd.yaml:31: limits.per_symbol.collar_bps)"
        line = SymbolResult(symbol=row.symbol, outcome=self.outcome, state=row.state, detail=detail, checks=[])
        return ChangeResult(outcome=self.outcome, detail=detail, symbols=[line])

    def cases(self, symbols: list[str], closed: bool) -> list[CaseLine]:
        self.calls.append(("cases", symbols, closed))
        keys = {f"{row.exchange}/{row.symbol}" for row in self.matching(symbols)}
        found = [case for case in self.books if f"{case.exchange}/{case.symbol}" in keys]
        return [case for case in found if closed or case.state is CaseState.OPEN]

    async def accept(self, number: int, reason: str, caller: Caller, timeout_seconds: float) -> ChangeResult:
        self.calls.append(("accept", number, reason, caller))
        case = next((case for case in self.books if case.number == number), None)
        if case is None:
            raise MmdError(f"there is no case {number}: `mmdctl cases` has the open ones")
        row = self.symbols[case.symbol]
        detail = "is ACTIVE: pause it first"
        if self.outcome is Outcome.DONE:
            detail = f"accepted: the exchange's position {case.theirs} is adopted; nothing is resumed"
            over = msgspec.structs.replace(
                case, state=CaseState.ACCEPTED, closed=NOW, by=f"{caller.name} (uid {caller.uid})", reason=reason
            )
            self.books = [over if each is case else each for each in self.books]
        line = SymbolResult(symbol=row.symbol, outcome=self.outcome, state=row.state, detail=detail, checks=[])
        return ChangeResult(outcome=self.outcome, detail="1 symbols", symbols=[line])

    async def plan(self) -> PlanResult:
        if self.plan_errors:
            return PlanResult(
                ok=False, errors=self.plan_errors, lines=[], added=[], removed=[], changed=[], unchanged=[]
            )
        return PlanResult(
            ok=True,
            errors=[],
            lines=[
                PlanLine(
                    path="spreads.perp.spread_bps", effect="requote", old="10", new="12", symbols=["BTC-PERPETUAL"]
                ),
                PlanLine(path="service.log_level", effect="live", old=None, new="debug", symbols=[]),
            ],
            added=["deribit/SOL_USDC-PERPETUAL"],
            removed=[],
            changed=["deribit/BTC-PERPETUAL"],
            unchanged=["deribit/ETH-PERPETUAL", f"deribit/{LONGEST}"],
        )

    async def reload(self, confirm_seconds: float | None, caller: Caller) -> ReloadResult:
        self.calls.append(("reload", confirm_seconds, caller))
        if self.gate is not None:
            await self.gate.wait()
        outcome = Outcome.REFUSED if self.plan_errors else Outcome.DONE
        plan = await self.plan()
        return ReloadResult(outcome=outcome, detail="generation 5 is in force", generation=5, plan=plan)

    async def confirm(self, caller: Caller) -> ReloadResult:
        self.calls.append(("confirm", caller))
        return ReloadResult(outcome=Outcome.DONE, detail="kept", generation=5, plan=await self.plan())

    def config(self) -> str:
        return "version: 1\nservice:\n  name: mmd\n"

    def set_log_level(self, level: str, caller: Caller) -> str:
        self.calls.append(("log_level", level, caller))
        return f"log level is {level}, was info"

    def events_since(self, seq: int, limit: int) -> list[EventLine]:
        return self.events[seq : seq + limit]

    async def find_events(self, query: EventQuery) -> EventAnswer:
        self.calls.append(("find_events", query))
        wanted = matcher(query)
        found = [line for line in self.events_since(query.above, 10**6) if wanted(line) and line.time >= query.since]
        newest = self.events[-1].seq if self.events else 0
        return EventAnswer(newest=newest, events=found[-query.lines :] if query.lines else [], cut=self.cut)

    async def wait_event(self, seq: int) -> None:
        while len(self.events) <= seq:
            await self.more.wait()
