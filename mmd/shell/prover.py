"""Proof that a halted book is empty: the exchange itself is asked, until it says so.

A symbol is proven once nothing of ours is in flight, live or unknown, and a list of all open orders
with our label, asked for after that, shows none of it. Until then `mmdctl status` says HALTING, the
command waits, and past its time an alert says it loudly.
"""

import trio

from mmd.core.orders import Live
from mmd.domain.actions import CancelOrder, QueryState, Tripped
from mmd.domain.errors import MmdError
from mmd.domain.events import OpenOrder
from mmd.domain.reasons import Response, Scope, State, Switch
from mmd.shell import logs
from mmd.shell.pump import Pump
from mmd.shell.worker import Worker

ASK_SECONDS = 5.0
AGAIN_SECONDS = 1.0
log = logs.get("mmd.prover")


class Prover:
    """One question for all symbols of an exchange that wait for their proof."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._told: set[str] = set()

    def unproven(self) -> list[Worker]:
        return [
            worker
            for worker in self._pump.workers.values()
            if worker.machine.state is State.HALTED and not worker.proven
        ]

    async def run(self) -> None:
        """Prove what is not proven, for ever."""
        while True:
            waiting = self.unproven()
            if not waiting:
                await self._pump.wait_turn()
                continue
            if await self.prove(waiting):
                await trio.sleep(AGAIN_SECONDS)  # asked in vain: not at once again
                continue
            with trio.move_on_after(AGAIN_SECONDS):
                await self._pump.wait_turn()

    @staticmethod
    def _ripe(worker: Worker) -> bool:
        """Nothing rests as far as we know; a machine that does not run any more knows nothing."""
        return worker.broken or worker.machine.own.resting == 0

    @staticmethod
    def _is_late(worker: Worker, now_ns: int) -> bool:
        """Its time is up, or a cancel was refused as often as it may be tried."""
        machine = worker.machine
        refused = any(
            isinstance(state.slot, Live) and state.cancel_tries >= machine.rules.max_cancel_tries
            for state in machine.own.every()
        )
        return refused or now_ns - machine.since_ns >= machine.rules.unknown_timeout_ns

    async def prove(self, waiting: list[Worker]) -> bool:
        """Ask every exchange once for those whose slots are empty; say loudly who is overdue.

        True if one was asked and did not give proof.
        """
        in_vain = False
        for name in self._pump.exchanges:
            ripe = [worker for worker in waiting if worker.exchange == name and self._ripe(worker)]
            if ripe:
                await self._ask(name, ripe)
                in_vain = in_vain or not all(worker.proven for worker in ripe)
        now_ns = self._pump.clock.now_ns()
        for worker in waiting:
            if worker.proven or worker.machine.state is not State.HALTED:
                self._told.discard(worker.key)
            elif self._is_late(worker, now_ns):
                self._tell(worker)
        return in_vain

    async def _ask(self, name: str, ripe: list[Worker]) -> None:
        marks = {worker.key: worker.machine.since_ns for worker in ripe}
        orders: dict[str, list[OpenOrder]] = {}
        with trio.move_on_after(ASK_SECONDS) as asking:
            try:
                orders = await self._pump.exchanges[name].open_orders()
            except MmdError as failed:
                log.warning("orders.unproven", exchange=name, detail=str(failed))
                return
        if asking.cancelled_caught:
            log.warning("orders.unproven", exchange=name, detail=f"no answer in {ASK_SECONDS:g} s")
            return
        now_ns = self._pump.clock.now_ns()
        for worker in ripe:
            machine = worker.machine
            if machine.state is not State.HALTED or machine.since_ns != marks[worker.key] or not self._ripe(worker):
                continue
            left = orders.get(worker.symbol, [])
            if left and worker.broken:
                for order in left:
                    self._pump.outbox.order(worker, CancelOrder(order.label, order.order_id, order.side), now_ns)
            elif left:
                self._pump.outbox.query(worker, QueryState(), now_ns)  # they become strays and are pulled
            if left:
                continue
            worker.proven = True
            self._pump.alarm.clear(Switch.ORDERS_LEFT, worker)
            self._pump.diary.note(
                "symbol.proven", "the exchange lists no order of ours", symbol=worker.symbol, exchange=name
            )
        await self._pump.deliver()
        self._pump.turned.unpark_all()

    def _tell(self, worker: Worker) -> None:
        if worker.key in self._told:
            return
        self._told.add(worker.key)
        self._pump.trip(Tripped(Switch.ORDERS_LEFT, Scope.SYMBOL, worker.key, Response.WARN, orders_left(worker)))


def orders_left(worker: Worker) -> str:
    """What may still rest there, by label."""
    labels = [state.label for state in worker.machine.own.every() if state.label]
    if labels:
        return f"{len(labels)} orders may still rest: {', '.join(labels)}"
    return "the exchange did not confirm that nothing of ours rests"
