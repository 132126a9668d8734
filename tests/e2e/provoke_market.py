"""Provocations of the totals and of the market."""

import trio
from arena import (
    ALL,
    BUY,
    DERIBIT,
    DERIVE,
    HERE,
    HERE_ALL,
    HERE_BTC,
    NUDGE,
    SELL,
    Arena,
    Ground,
    Provocation,
    connected,
    halts,
)
from still import BTC, PRICES, D

from mmd.domain.reasons import Scope, Switch, Why

# --- totals --------------------------------------------------------------------------------------


async def trade_elsewhere(found: Arena) -> float:
    """Somebody else on this account buys what nobody here ordered."""
    began = trio.current_time()
    found.levers.take(BTC, BUY, D(5000), account=found.account)
    return began


async def trade_back(found: Arena) -> None:
    found.levers.take(BTC, SELL, D(5000), account=found.account)
    await found.until(lambda: found.row(HERE_BTC).position == 0)


HOLDING = 1000  # USD, one whole quote


async def hold(found: Arena) -> None:
    """Our whole bid is filled, and quoting goes on."""
    found.levers.fill_quote(found.account, BTC, BUY)
    await found.until(lambda: found.row(HERE_BTC).position == HOLDING and found.quoted(HERE_BTC))


async def fall(found: Arena) -> float:
    """The mark of what we hold falls by 2 %; the book stays."""
    await hold(found)
    began = trio.current_time()
    found.refer(BTC, mark=PRICES[BTC] * D("0.98"))
    return began


async def crash(found: Arena) -> float:
    """Book, mark and index fall by 3 %, through our bid."""
    began = trio.current_time()
    found.move(BTC, -3)
    return began


async def rise_again(found: Arena) -> None:
    found.move(BTC, 0)
    await found.until(lambda: (found.daemon.ledger([HERE_BTC])[0].day_pnl_usd or 0.0) > -5.0)


async def lose_the_index(found: Arena) -> float:
    await hold(found)
    began = trio.current_time()
    found.refer(BTC, index=D(0))
    return began + VALUATION_SECONDS


async def find_the_index(found: Arena) -> None:
    found.refer(BTC, index=PRICES[BTC])
    await found.until(lambda: found.daemon.ledger([HERE_BTC])[0].day_pnl_usd is not None)
    await found.until(lambda: not any(Switch.VALUATION in found.worker(key).machine.held for key in ALL))


def exposed(ground: Ground, coins: float, dollars: float) -> list[Provocation]:
    """The totals of positions; 5000 are dollars on Deribit and coins on Derive."""
    return [
        Provocation(
            Switch.EXPOSURE,
            f"5000 bought by somebody else on the account, allowed {coins:,g} coins",
            trade_elsewhere,
            trade_back,
            scope=ALL,
            of=Scope.PORTFOLIO,
            detail="limits.portfolio.max_exposure.BTC",
            config={"limits": {"portfolio": {"max_exposure": {"BTC": coins}}}},
            spoken=(ground.type,),
        ),
        Provocation(
            Switch.EXPOSURE,
            f"the same, over the total of one exchange, allowed {dollars:,g} USD",
            trade_elsewhere,
            trade_back,
            scope=HERE_ALL,
            of=Scope.EXCHANGE,
            detail=f"limits.portfolio.per_exchange.{HERE}.max_notional_usd",
            config={"limits": {"portfolio": {"per_exchange": {HERE: {"max_notional_usd": dollars}}}}},
            spoken=(ground.type,),
        ),
    ]


VALUATION_SECONDS = 0.2

TOTALS = [
    *exposed(DERIBIT, coins=0.05, dollars=4000),
    *exposed(DERIVE, coins=4000, dollars=360_000_000),
    Provocation(
        Switch.DRAWDOWN,
        "the mark falls 2 %, limit of the symbol",
        fall,
        detail="USD below the high-water mark, allowed 5.00 USD (limits.per_symbol.max_drawdown_usd",
        config={"limits": {"per_symbol": {"max_drawdown_usd": 5}}},
    ),
    Provocation(
        Switch.DRAWDOWN,
        "the market falls 3 % through our bid, limit of the portfolio",
        crash,
        scope=ALL,
        of=Scope.PORTFOLIO,
        detail="allowed 5.00 USD (limits.portfolio.max_drawdown_usd)",
        config={"limits": {"portfolio": {"max_drawdown_usd": 5}}},
    ),
    Provocation(
        Switch.DAILY_LOSS,
        "the mark falls 2 %, limit of the symbol",
        fall,
        rise_again,
        detail="USD lost since 00:00 UTC, allowed 5.00 USD (limits.per_symbol.max_daily_loss_usd",
        config={"limits": {"per_symbol": {"max_daily_loss_usd": 5}}},
    ),
    Provocation(
        Switch.DAILY_LOSS,
        "the market falls 3 % through our bid, limit of the portfolio",
        crash,
        rise_again,
        scope=ALL,
        of=Scope.PORTFOLIO,
        detail="allowed 5.00 USD (limits.portfolio.max_daily_loss_usd)",
        config={"limits": {"portfolio": {"max_daily_loss_usd": 5}}},
    ),
    Provocation(
        Switch.VALUATION,
        f"no index for {VALUATION_SECONDS:g} s while a position is held",
        lose_the_index,
        find_the_index,
        scope=ALL,
        of=Scope.PORTFOLIO,
        detail=f"{HERE_BTC}: index missing",
        config={"kill_switches": {"valuation": {"max_seconds": VALUATION_SECONDS}}},
    ),
]

# --- the market ----------------------------------------------------------------------------------


async def lock(found: Arena) -> float:
    began = trio.current_time()
    found.levers.lock(BTC)
    return began


async def lock_platform(found: Arena) -> float:
    began = trio.current_time()
    found.levers.lock_platform("btc_usd")
    return began


async def lock_and_refuse(found: Arena) -> float:
    """No channel tells of it: the first order that is refused does."""
    found.levers.lock(BTC)
    began = trio.current_time()
    found.move(BTC, NUDGE)
    return began


async def reopen(found: Arena) -> None:
    found.levers.unlock_platform()
    found.levers.reopen(BTC)
    await found.until(lambda: found.worker(HERE_BTC).machine.market.tradable)


async def cross(found: Arena) -> float:
    began = trio.current_time()
    found.levers.cross(BTC)
    return began


async def uncross(found: Arena) -> None:
    found.levers.uncross(BTC)
    await found.until(lambda: found.worker(HERE_BTC).machine.market.book_trouble is None)


async def gap(found: Arena) -> float:
    """The second message shows that one is missing."""
    found.levers.gap(BTC)
    began = trio.current_time()
    found.set_book(BTC, [(-1, 500)], [(1, 500)])
    return began


async def whole_again(found: Arena) -> None:
    await found.until(lambda: found.worker(HERE_BTC).machine.market.book is not None)


async def silence(found: Arena) -> float:
    found.levers.silence(BTC)
    return found.worker(HERE_BTC).machine.market.data_ns * 1e-9 - clock_offset(found) + STALE_SECONDS


def clock_offset(found: Arena) -> float:
    """What to take off a time of the daemon's clock to have trio's."""
    return found.daemon.clock.now_ns() * 1e-9 - trio.current_time()


async def speak(found: Arena) -> None:
    found.levers.speak(BTC)
    found.set_book(BTC, [(-1, 500)], [(1, 500)])
    machine, clock = found.worker(HERE_BTC).machine, found.daemon.clock
    await found.until(lambda: machine.market.trouble(clock.now_ns(), machine.rules) is None)


async def jump(found: Arena) -> float:
    began = trio.current_time()
    found.move(BTC, 12)
    return began


async def cut(found: Arena) -> float:
    began = trio.current_time()
    assert found.levers.cut() == 2
    return began


STALE_SECONDS = 0.3

MARKET = [
    Provocation(
        Switch.MARKET_HALT,
        "the instrument is locked: cancels pass",
        lock,
        reopen,
        detail="instrument is locked",
        blocked="market_data",
        spoken=(DERIBIT.type,),
    ),
    Provocation(
        Switch.MARKET_HALT,
        "the platform is locked, response halt",
        lock_platform,
        reopen,
        detail="instrument is locked",
        config=halts(Switch.MARKET_HALT),
        spoken=(DERIBIT.type,),
    ),
    Provocation(
        Switch.MARKET_HALT,
        "the instrument is not live, and only a refused order tells of that",
        lock_and_refuse,
        reopen,
        detail="instrument is not_live",
        blocked="market_data",
        spoken=(DERIVE.type,),
    ),
    Provocation(
        Switch.MARKET_HALT,
        "the same, response halt",
        lock_and_refuse,
        reopen,
        detail="instrument is not_live",
        config=halts(Switch.MARKET_HALT),
        spoken=(DERIVE.type,),
    ),
    Provocation(
        Switch.MARKET_DATA,
        "a crossed book",
        cross,
        uncross,
        why=Why.CROSSED_BOOK,
        detail="best bid",
        blocked="market_data",
    ),
    Provocation(Switch.MARKET_DATA, "a gap in the book", gap, whole_again, why=Why.BOOK_GAP, spoken=(DERIBIT.type,)),
    Provocation(
        Switch.MARKET_DATA,
        f"silence for stale_seconds = {STALE_SECONDS:g}",
        silence,
        speak,
        detail="no market data for 0.3 s",
        blocked="market_data",
        config={"market_data": {"stale_seconds": STALE_SECONDS}},
    ),
    Provocation(Switch.MARKET_DATA, "the price jumps by 12 %", jump, why=Why.PRICE_JUMP, detail="mid moved 1200 bps"),
    Provocation(
        Switch.MARKET_DATA,
        "the same, response halt",
        jump,
        why=Why.PRICE_JUMP,
        detail="mid moved 1200 bps",
        config=halts(Switch.MARKET_DATA),
    ),
    Provocation(
        Switch.MARKET_DATA,
        "both links are cut",
        cut,
        connected,
        scope=HERE_ALL,
        why=Why.EXCHANGE_DISCONNECTED,
        detail="link down",
        blocked="data_link",
    ),
]
