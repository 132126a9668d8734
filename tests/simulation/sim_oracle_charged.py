"""Whatever of ours may still fill at the exchange is charged in full by the gate: in flight, unknown, or a leftover.

Nor is a fill forgotten on its way between the two: what a position may become at the exchange is no more than
what we hold and charge, whether or not we have been told of it yet. That is so at every instant, near a limit or not,
as soon as a life has compared its position with the exchange's: what the last one placed and had not yet made durable
when the power went, nobody knows before.
"""

from decimal import Decimal

from sim_judge import Oracle, Side, shown
from sim_world_type import World

from mmd.domain import reasons
from mmd.sandbox.orders import ZERO, Order


class Charged(Oracle):
    promise = "what may fill is charged"

    def __init__(self) -> None:
        self._compared: set[tuple[str, str]] = set()  # symbol and epoch of the machine

    def look(self, world: World, sides: dict[str, Side]) -> None:
        for worker in world.workers():
            machine, there = worker.machine, sides[worker.symbol]
            if not machine.orders_seen:
                continue  # it may place nothing before the first list of open orders
            held, amount = machine.position, machine.instrument.amount
            bids, asks = (machine.own.worst(side) for side in (reasons.Side.BID, reasons.Side.ASK))
            self._charged(worker.symbol, amount(bids), there.bids)
            self._charged(worker.symbol, amount(asks), there.asks)
            if machine.told_here and machine.drift is None:
                self._compared.add((worker.symbol, machine.epoch))
            if (worker.symbol, machine.epoch) not in self._compared:
                continue
            if there.high > amount(held.lots + bids):
                self._more(worker.symbol, there.high, amount(held.lots), amount(bids), there.bids)
            if there.low < amount(held.lots - asks):
                self._more(worker.symbol, there.low, amount(held.lots), amount(asks), there.asks)

    def _charged(self, symbol: str, charged: Decimal, orders: list[Order]) -> None:
        left = sum((order.remaining for order in orders), ZERO)
        if charged < left:
            raise self.broken(f"{charged} is charged, there rests {shown(orders)}", symbol)

    def _more(self, symbol: str, most: Decimal, held: Decimal, charged: Decimal, orders: list[Order]) -> None:
        rests = shown(orders) or "nothing"
        raise self.broken(f"could become {most}, we hold {held} and charge {charged}; there rests {rests}", symbol)
