"""What goes wrong, by name. Each trouble is pulled once with two numbers; most of them end by themselves.

`clear` ends all of them. Connections that are half-open stay so until somebody notices: that is what they are.
"""

from collections.abc import Callable
from decimal import Decimal

import trio
from sim_market import KINDS
from sim_operator import ASIDE
from sim_plan import Storm, Trouble
from sim_wire import Link
from sim_world_type import World

from mmd.sandbox.faults import Methods
from mmd.sandbox.model import Direction
from mmd.sandbox.orders import CancelReason, Refused


class Weather:
    """Owns what is wrong now."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._undo: list[Callable[[], object]] = []
        self._nursery: trio.Nursery | None = None
        self._ground = world.plan.ground

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let troubles end, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    async def storm(self, storm: Storm) -> None:
        """All troubles of one storm at their times."""
        began = trio.current_time()
        self._world.tell(f"--- storm of {storm.seconds:.0f} s, {storm.mood}")
        for trouble in storm.troubles:
            await trio.sleep_until(began + trouble.at)
            self.pull(trouble)
        await trio.sleep_until(began + storm.seconds)

    def pull(self, trouble: Trouble) -> None:
        world, kind = self._world, trouble.kind
        if kind in ASIDE:
            if world.life is not None and world.life.up:
                world.life.nursery.start_soon(world.life.operator.command, kind, trouble.a, trouble.b)
            return
        try:
            told = getattr(self, f"_{kind}")(trouble.a, trouble.b)
        except (ValueError, Refused) as cannot:
            told = f"cannot: {cannot}"
        if told is not None and not str(told).startswith("cannot"):
            world.story.count(kind)
        world.tell(f"* {kind}" + (f": {told}" if told else ""))

    def clear(self) -> None:
        """Everything is as it should be again."""
        undo, self._undo = self._undo, []
        for end in undo:
            end()
        world = self._world
        world.wire.calm()
        world.sandbox.levers.disarm()
        world.sandbox.faults.notifications_first = False
        world.platter.tearing = 0

    def _until(self, seconds: float, end: Callable[[], object]) -> None:
        assert self._nursery is not None
        self._undo.append(end)

        async def wait() -> None:
            await trio.sleep(seconds)
            if end in self._undo:
                self._undo.remove(end)
                end()

        self._nursery.start_soon(wait)

    def _symbol(self, a: float) -> str:
        symbols = self._world.plan.symbols
        return symbols[int(a * len(symbols))]

    # --- the network -----------------------------------------------------------------------------

    def _link(self, a: float) -> Link:
        links = self._world.wire.standing()
        if not links:
            raise ValueError("nobody is connected")
        return links[int(a * len(links))]

    def _cut(self, a: float, b: float) -> str:
        links = self._world.wire.standing() if b > 0.8 else [self._link(a)]
        for link in links:
            link.cut("reset by peer", keep=link.down if b < 0.3 else link.up if b < 0.5 else None)
        return ", ".join(f"link {link.number}" for link in links)

    def _cut_midway(self, a: float, b: float) -> str:
        link = self._link(a)
        way = link.up if b < 0.5 else link.down
        way.fuse = int(b * 10_000) % 900
        return f"link {link.number}, {'up' if way.upward else 'down'}, after {way.fuse} bytes"

    def _half_open(self, a: float, b: float) -> str:
        link = self._link(a)
        link.vanish(up=b < 0.67, down=b > 0.33)
        return f"link {link.number}, up {'lost' if b < 0.67 else 'kept'}, down {'lost' if b > 0.33 else 'kept'}"

    def _slow_reader(self, a: float, b: float) -> str:
        link, wire = self._link(a), self._world.wire
        way = link.up if b < 0.3 else link.down
        way.sip = 1 + int(b * 300)
        wire.window = 1500

        def end() -> None:
            way.sip, wire.window = None, 64 * 1024
            way.wake()

        self._until(3 + b * 15, end)
        return f"link {link.number}: {way.sip} bytes at a time"

    def _latency(self, a: float, b: float) -> str:
        wire = self._world.wire
        wire.extra_seconds = 0.05 + a * a * 3.0
        self._until(2 + b * 10, lambda: setattr(wire, "extra_seconds", 0.0))
        return f"{wire.extra_seconds:.2f} s more each way"

    def _refuse_connections(self, a: float, b: float) -> str:
        wire = self._world.wire
        wire.refusing = True
        self._until(1 + a * 15, lambda: setattr(wire, "refusing", False))
        return self._cut(a, 0.4 + 0.6 * b)

    def _swallow_connections(self, a: float, b: float) -> str:
        wire = self._world.wire
        wire.swallowing = True
        self._until(1 + a * 15, lambda: setattr(wire, "swallowing", False))
        return self._cut(a, 0.4 + 0.6 * b)

    def _spoil(self, a: float, b: float) -> str:
        self._world.wire.spoiling += 1 + int(a * 3)
        return "the next messages of the exchange end too early"

    # --- answers and requests --------------------------------------------------------------------

    def _method(self, b: float) -> Methods:
        methods = self._ground.methods
        return methods[int(b * len(methods))]

    def _lose_answers(self, a: float, b: float) -> str:
        self._world.sandbox.levers.lose_answers(1 + int(a * 3), self._method(b))
        return str(self._method(b))

    def _lose_requests(self, a: float, b: float) -> str:
        self._world.sandbox.levers.lose_requests(1 + int(a * 3), self._method(b))
        return str(self._method(b))

    def _delay_answers(self, a: float, b: float) -> str:
        delay_ms = 50 + int(a * a * 7000)
        self._world.sandbox.levers.delay_answers(1 + int(a * 4), delay_ms, self._method(b))
        return f"{delay_ms} ms: {self._method(b)}"

    def _delay_requests(self, a: float, b: float) -> str:
        delay_ms = 50 + int(a * a * 7000)
        self._world.sandbox.levers.delay_requests(1 + int(a * 4), delay_ms, self._method(b))
        return f"{delay_ms} ms: {self._method(b)}"

    def _cut_answers(self, a: float, b: float) -> str:
        self._world.sandbox.faults.cut_answers(1, self._method(b))
        return str(self._method(b))

    def _refuse_orders(self, a: float, b: float) -> str:
        code, message = self._ground.refusals[int(b * len(self._ground.refusals))]
        self._world.sandbox.levers.refuse_orders(1 + int(a * 6), code, message)
        return message

    def _refuse_cancels(self, a: float, b: float) -> str:
        self._world.sandbox.levers.refuse_cancels(1 + int(a * 4))
        return "book_closed"

    def _fill_before_cancels(self, a: float, b: float) -> str:
        self._world.sandbox.levers.fill_before_cancels(1 + int(a * 3), self._ground.missed if b < 0.6 else 0)
        return f"{1 + int(a * 3)}"

    # --- fills -----------------------------------------------------------------------------------

    def _repeat_fills(self, a: float, b: float) -> str:
        self._world.sandbox.levers.repeat_fills(1 + int(a * 4), self._ground.account)
        return f"{1 + int(a * 4)}"

    def _delay_fills(self, a: float, b: float) -> str:
        self._world.sandbox.levers.delay_fills(1 + int(a * 4), 50 + int(b * b * 8000), self._ground.account)
        return f"{50 + int(b * b * 8000)} ms"

    def _lose_fills(self, a: float, b: float) -> str:
        self._world.sandbox.levers.lose_fills(1 + int(a * 3), self._ground.account)
        return f"{1 + int(a * 3)}"

    def _old_fill(self, a: float, b: float) -> str:
        trades = self._world.account.trades
        wanted = trades[int(a * len(trades))].trade_id if trades else None
        return self._world.sandbox.levers.repeat_fill(self._ground.account, wanted)

    def _fill_quote(self, a: float, b: float) -> str:
        symbol, side = self._symbol(a), Direction.BUY if b < 0.5 else Direction.SELL
        amount = KINDS[symbol].takes if b % 0.1 < 0.07 else None
        self._world.sandbox.levers.fill_quote(self._ground.account, symbol, side, amount)
        return f"{symbol} {side}"

    def _sweep(self, a: float, b: float) -> str:
        symbol, side = self._symbol(a), Direction.BUY if b < 0.5 else Direction.SELL
        self._world.sandbox.levers.take(symbol, side, KINDS[symbol].depth * 3)
        return f"{symbol} {side}"

    # --- the exchange ----------------------------------------------------------------------------

    def _expel(self, a: float, b: float) -> str | None:
        """Somebody at the exchange cancels one of our orders."""
        world = self._world
        orders = list(world.account.open_orders.values())
        if not orders:
            return None
        chosen = orders[int(a * len(orders))]
        world.sandbox.engine.cancel_where(
            self._ground.account, lambda order: order is chosen, world.sandbox.now_ms, CancelReason.USER_REQUEST
        )
        world.sandbox.publish()
        return chosen.label

    def _news_first(self, a: float, b: float) -> str:
        faults = self._world.sandbox.faults
        faults.notifications_first = True
        self._until(5 + a * 20, lambda: setattr(faults, "notifications_first", False))
        return "notifications before answers"

    def _gap(self, a: float, b: float) -> str:
        self._world.sandbox.levers.gap(self._symbol(a))
        return self._symbol(a)

    def _repeat_changes(self, a: float, b: float) -> str:
        self._world.sandbox.levers.repeat_changes(self._symbol(a), 1 + int(b * 4))
        return self._symbol(a)

    def _cross(self, a: float, b: float) -> str:
        levers, symbol = self._world.sandbox.levers, self._symbol(a)
        levers.cross(symbol)
        self._until(0.5 + b * 8, lambda: levers.uncross(symbol))
        return symbol

    def _silence(self, a: float, b: float) -> str:
        levers, symbol = self._world.sandbox.levers, None if b > 0.7 else self._symbol(a)
        levers.silence(symbol)
        self._until(1 + b * 20, lambda: levers.speak(symbol))
        return symbol or "all"

    def _jump(self, a: float, b: float) -> str:
        symbol, percent = self._symbol(a), Decimal(round((b - 0.5) * 60)) / 10
        self._world.sandbox.levers.jump(symbol, percent)
        return f"{symbol} by {percent} %"

    def _close_book(self, a: float, b: float) -> str:
        levers, symbol = self._world.sandbox.levers, self._symbol(a)
        levers.halt(symbol)
        self._until(1 + b * 12, lambda: levers.reopen(symbol))
        return symbol

    def _lock(self, a: float, b: float) -> str:
        levers, symbol = self._world.sandbox.levers, self._symbol(a)
        if b < 0.4:
            levers.lock_platform()
            self._until(1 + b * 20, levers.unlock_platform)
            return "the platform"
        levers.lock(symbol)
        self._until(1 + b * 12, lambda: levers.reopen(symbol))
        return symbol

    def _maintenance(self, a: float, b: float) -> str:
        levers = self._world.sandbox.levers
        levers.begin_maintenance()
        if a < 0.5:
            levers.cut()
        self._until(2 + b * 15, levers.end_maintenance)
        return f"{2 + b * 15:.0f} s"

    def _skew(self, a: float, b: float) -> str:
        levers, milliseconds = self._world.sandbox.levers, int((a - 0.5) * (400 if b < 0.5 else 8000))
        levers.shift_clock(milliseconds)
        self._until(3 + b * 15, lambda: levers.shift_clock(0))
        return f"{milliseconds} ms"

    def _restart(self, a: float, b: float) -> str:
        levers = self._world.sandbox.levers
        lost = levers.restart(1 + a * 10, forget=b < 0.5)
        self._until(1 + a * 10, levers.accept_connections)
        return f"{lost} orders lost, {'and forgotten' if b < 0.5 else 'known as cancelled'}"

    def _funding(self, a: float, b: float) -> str:
        self._world.sandbox.levers.pay_funding()
        return "paid"

    def _settle(self, a: float, b: float) -> str:
        self._world.sandbox.levers.settle()
        return "the day"

    def _protection(self, a: float, b: float) -> str | None:
        if not self._world.plan.maker_protection:
            return None
        index = KINDS[self._symbol(a)].index
        self._world.sandbox.levers.trip_protection(self._ground.account, index)
        return index

    # --- the daemon's life -----------------------------------------------------------------------

    def _crash(self, a: float, b: float) -> str | None:
        life = self._world.life
        if life is None or not life.up:
            return None
        life.crash_after(1 + int(a * a * 600), told=b < 0.7)
        return f"in {1 + int(a * a * 600)} steps"

    def _crash_soon(self, a: float, b: float) -> str | None:
        """Now, and again while it starts, and perhaps once more."""
        self._world.crash_at_start = [1 + int(a * 900), 1 + int(b * 900)][: 1 + int(b * 2)]
        return self._crash(0.0, a)

    def _crash_write(self, a: float, b: float) -> str | None:
        life = self._world.life
        if life is None or not life.up:
            return None
        life.crash_at_write(1 + int(a * 60), told=b < 0.7)
        return f"at write {1 + int(a * 60)}"

    def _power_cut(self, a: float, b: float) -> str | None:
        life = self._world.life
        if life is None or not life.up:
            return None
        life.crash("power cut", power_lost=True, told=False)
        return "at once"

    def _stop(self, a: float, b: float) -> str | None:
        life = self._world.life
        if life is None or not life.up:
            return None
        life.nursery.start_soon(life.stop)
        return "orderly"

    # --- the disk --------------------------------------------------------------------------------

    def _disk_full(self, a: float, b: float) -> str:
        return self._disk("full", a)

    def _disk_error(self, a: float, b: float) -> str:
        return self._disk("failing", a)

    def _disk(self, what: str, a: float) -> str:
        platter = self._world.platter
        setattr(platter, what, True)
        self._until(0.5 + a * 8, lambda: setattr(platter, what, False))
        return f"{0.5 + a * 8:.1f} s"

    def _disk_torn(self, a: float, b: float) -> str:
        self._world.platter.tearing = 1 + int(a * 3)
        return f"{1 + int(a * 3)} writes"
