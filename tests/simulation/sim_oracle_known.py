"""Once it is calm, every order of ours at the exchange is one that the daemon knows, and the other way round."""

from sim_judge import Oracle, glance
from sim_world_type import World

from mmd.domain.reasons import Mode


class Known(Oracle):
    promise = "no unknown order"

    def settled(self, world: World) -> None:
        sides = glance(world)
        for worker in world.workers():
            machine = worker.machine
            states = machine.own.strays.values() if machine.mode is Mode.SHADOW else machine.own.every()
            slots = {state.label: state.slot for state in states if state.label}
            there = {order.label: order for order in sides[worker.symbol].bids + sides[worker.symbol].asks}
            if sorted(slots) != sorted(there):
                raise self.broken(f"we know {sorted(slots)}, there are {sorted(there)}", worker.symbol)
            for label, order in there.items():
                slot, instrument = slots[label], machine.instrument
                ours = (instrument.grid.price(slot.price_ticks), instrument.amount(slot.total_lots - slot.filled_lots))
                if ours != (order.price, order.remaining):
                    raise self.broken(f"{label} is {ours}, there {order.price}, {order.remaining}", worker.symbol)
        served = {worker.symbol for worker in world.workers()}
        for symbol, side in sides.items():
            if symbol not in served and (side.bids or side.asks):
                raise self.broken(f"nobody minds {symbol}, and orders of ours rest there", symbol)
