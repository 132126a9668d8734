"""Provocations at the edge of the machine: bugs, floods, disks; and halts that cannot be proven."""

from collections.abc import Sequence
from decimal import Decimal, localcontext
from functools import partial

import trio
from arena import ALL, BUY, HERE, HERE_ALL, HERE_BTC, Arena, Provocation, connected, fill_the_book
from still import BTC, D

from mmd.core.ledger import CONTEXT
from mmd.core.machine import SymbolMachine
from mmd.domain.actions import Decision
from mmd.domain.events import Mail
from mmd.domain.reasons import Scope, Switch, Why
from mmd.sandbox.notices import AccountChanged
from mmd.sandbox.orders import NewOrder, OrderType, TimeInForce
from mmd.shell.desk import Outcome
from mmd.shell.worker import MAILBOX

# --- the machine ---------------------------------------------------------------------------------


class Bug:
    """Makes a machine do something else on its next batch, or ("loop for ever") on each."""

    def __init__(self, machine: SymbolMachine) -> None:
        self.what = ""
        self.calls = 0  # that went wrong
        self.real = machine.handle
        machine.handle = self.handle  # type: ignore[method-assign]  # the bug that is provoked

    def handle(self, events: Sequence[Mail], now_ns: int) -> list[Decision]:
        what = self.what
        if not what:
            return self.real(events, now_ns)
        self.calls += 1
        if what != "loop for ever":
            self.what = ""
        if what == "raise":
            raise ZeroDivisionError("a bug of ours")
        while True:
            pass


async def bug(found: Arena, what: str) -> float:
    hurt = Bug(found.worker(HERE_BTC).machine)
    began = trio.current_time()
    hurt.what = what
    found.set_book(BTC, [(-1, 500)], [(1, 500)])
    return began


async def corrupt(found: Arena) -> float:
    """One accumulator of the ledger is changed behind its back; the next fill shows it."""
    change_spread(found, D("0.001"))
    began = trio.current_time()
    found.levers.fill_quote(found.account, BTC, BUY, D(10))
    return began


async def mend_ledger(found: Arena) -> None:
    change_spread(found, D("-0.001"))


def change_spread(found: Arena, amount: Decimal) -> None:
    with localcontext(CONTEXT):  # no digit may be lost on the way
        found.worker(HERE_BTC).machine.position.ledger.sources.spread += amount


async def flood(found: Arena) -> float:
    """Somebody else on the account sweeps the book; one message tells more fills than a mailbox holds."""
    sandbox = found.sandboxes[HERE]
    found.set_book(BTC, [(-1, 500)], [(at, 10) for at in range(1, FLOOD + 1)])
    await found.until(lambda: found.quoted(HERE_BTC))
    for part in range(FLOOD // 300):  # in a few milliseconds: no page of trades holds them all
        sweep = NewOrder(
            account=found.account,
            instrument_name=BTC,
            direction=BUY,
            amount=D(3000),
            order_type=OrderType.MARKET,
            time_in_force=TimeInForce.IMMEDIATE_OR_CANCEL,
        )
        sandbox.engine.place(sweep, sandbox.now_ms + part, bumped=False)
    notices = sandbox.engine.drain()
    ours = [notice for notice in notices if isinstance(notice, AccountChanged) and notice.account == found.account]
    fills = tuple(trade for notice in ours for trade in notice.trades)
    began = trio.current_time()
    sandbox.send([AccountChanged(found.account, BTC, (), fills, position_changed=True)])
    sandbox.send([notice for notice in notices if notice not in ours])
    return began


FLOOD = 1200


async def all_counted(found: Arena) -> None:
    """What was in the mailbox when it overflowed is asked for again."""
    await fill_the_book(found)
    there = found.levers.position(found.account, BTC)
    assert there == 10 * FLOOD
    machine = found.worker(HERE_BTC).machine
    await found.until(lambda: found.row(HERE_BTC).position == there and machine.drift is None)


async def lose_the_directory(found: Arena) -> float:
    """A file stands where the state directory was."""
    began = trio.current_time()
    found.state_dir.rename(found.state_dir.with_suffix(".away"))
    found.state_dir.touch()
    return began


async def find_the_directory(found: Arena) -> None:
    found.state_dir.unlink()
    found.state_dir.with_suffix(".away").rename(found.state_dir)
    await found.until(lambda: not found.daemon.register.failed)


FRESH = ("probe.new", "halts.new", "losses.new")  # every file is written beside the old one first


async def fill_the_disk(found: Arena) -> float:
    """What is written to the state directory finds no space."""
    began = trio.current_time()
    for name in FRESH:
        (found.state_dir / name).symlink_to("/dev/full")
    return began


async def make_room(found: Arena) -> None:
    for name in FRESH:
        (found.state_dir / name).unlink()
    await found.until(lambda: not found.daemon.register.failed)


MACHINE = [
    Provocation(
        Switch.LEDGER,
        "an accumulator is corrupted, then a fill",
        corrupt,
        mend_ledger,
        detail="off by",
    ),
    Provocation(
        Switch.WORKER_FAULT, "a machine raises", partial(bug, what="raise"), detail="ZeroDivisionError: a bug of ours"
    ),
    Provocation(
        Switch.WORKER_FAULT,
        "a machine loops for ever: the sentinel calls it off after 0.5 s",
        partial(bug, what="loop"),
        detail="no decision within 0.5 s",
    ),
    Provocation(
        Switch.INBOX_OVERFLOW,
        f"{FLOOD} fills in one message",
        flood,
        all_counted,
        detail=f"{MAILBOX} events wait",
        config={
            "spreads": {"plain": {"spread_bps": 200}},
            "limits": {"per_symbol": {"max_fills": 100_000, "max_filled": 1_000_000, "max_position": 100_000}},
        },
    ),
    Provocation(
        Switch.JOURNAL_FAILURE,
        "a file where the state directory was",
        lose_the_directory,
        find_the_directory,
        scope=ALL,
        of=Scope.PORTFOLIO,
        detail="Not a directory",
    ),
    Provocation(
        Switch.JOURNAL_FAILURE,
        "the disk is full",
        fill_the_disk,
        make_room,
        scope=ALL,
        of=Scope.PORTFOLIO,
        detail="No space left on device",
    ),
]

# --- halts that cannot be proven -----------------------------------------------------------------


async def halt_without_cancels(found: Arena) -> float:
    """Every cancel is refused; somebody halts."""
    found.levers.refuse_cancels()
    began = trio.current_time()
    await is_not_done(found, (HERE_BTC,))
    assert len(found.resting(HERE_BTC)) == 2
    return began + UNKNOWN_SECONDS


async def halt_without_link(found: Arena) -> float:
    """The links are cut and do not come back; somebody halts. The exchange pulled the orders, nobody knows."""
    found.levers.refuse_connections()
    found.levers.cut()
    await found.until(lambda: all(not found.worker(key).machine.market.trade_link for key in HERE_ALL))
    began = trio.current_time()
    await is_not_done(found, HERE_ALL)
    return began + UNKNOWN_SECONDS


async def halt_with_a_dead_link(found: Arena) -> float:
    """Nothing passes in either direction; somebody halts, and the orders rest."""
    found.levers.stall_connections()
    began = trio.current_time()
    await is_not_done(found, HERE_ALL)
    assert [len(found.resting(key)) for key in HERE_ALL] == [2, 2]
    return began + UNKNOWN_SECONDS


async def is_not_done(found: Arena, keys: tuple[str, ...]) -> None:
    """The command says that it could not prove it, and names the orders."""
    result = await found.halt(keys, UNKNOWN_SECONDS)
    assert result.outcome is Outcome.TIMED_OUT
    for row in result.symbols:
        assert (row.outcome, row.state) == (Outcome.TIMED_OUT, "HALTED")
        assert row.detail.startswith("2 orders may still rest: mmd-kill-")


async def let_cancels_pass(found: Arena) -> None:
    found.levers.disarm()


async def accept(found: Arena) -> None:
    found.levers.accept_connections()
    await connected(found)


async def unstall(found: Arena) -> None:
    assert found.levers.resume_connections() == 2


UNKNOWN_SECONDS = 0.2
IMPATIENT = {"limits": {"per_symbol": {"unknown_timeout_seconds": UNKNOWN_SECONDS}}}

HALTS = [
    Provocation(
        Switch.ORDERS_LEFT,
        "every cancel is refused, and somebody halts",
        halt_without_cancels,
        let_cancels_pass,
        why=Why.OPERATOR,
        detail="2 orders may still rest: mmd-kill-",
        unproven=True,
        config=IMPATIENT,
    ),
    Provocation(
        Switch.ORDERS_LEFT,
        "the links are down, and somebody halts",
        halt_without_link,
        accept,
        scope=HERE_ALL,
        why=Why.OPERATOR,
        detail="2 orders may still rest: mmd-kill-",
        unproven=True,
        config=IMPATIENT,
    ),
    Provocation(
        Switch.ORDERS_LEFT,
        "nothing passes on the links, and somebody halts",
        halt_with_a_dead_link,
        unstall,
        scope=HERE_ALL,
        why=Why.OPERATOR,
        detail="2 orders may still rest: mmd-kill-",
        unproven=True,
        config=IMPATIENT,
    ),
]
