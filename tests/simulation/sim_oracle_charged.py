"""Whatever of ours may still fill at the exchange is charged in full by the gate: in flight, unknown, or a leftover."""

from sim_judge import Oracle, Side, shown
from sim_world_type import World

from mmd.domain import reasons
from mmd.sandbox.orders import ZERO


class Charged(Oracle):
    promise = "what may fill is charged"

    def look(self, world: World, sides: dict[str, Side]) -> None:
        for worker in world.workers():
            machine, there = worker.machine, sides[worker.symbol]
            if not machine.orders_seen:
                continue  # it may place nothing before the first list of open orders
            for side, orders in ((reasons.Side.BID, there.bids), (reasons.Side.ASK, there.asks)):
                if not orders:
                    continue
                left = sum((order.remaining for order in orders), ZERO)
                charged = machine.instrument.amount(machine.own.worst(side))
                if charged < left:
                    raise self.broken(f"{charged} is charged, there rests {shown(orders)}", worker.symbol)
