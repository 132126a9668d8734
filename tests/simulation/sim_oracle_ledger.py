"""cash + value - opening = spread + inventory + fees + funding + settlement, exactly, in every ledger."""

from sim_judge import Oracle
from sim_world_type import World


class Ledger(Oracle):
    promise = "ledger identity"

    def calm(self, world: World) -> None:
        for worker in world.workers():
            machine = worker.machine
            ledgers = {
                "real": machine.position,
                "pessimistic": machine.imagined.pessimistic,
                "optimistic": machine.imagined.optimistic,
            }
            for name, ledger in ledgers.items():
                if not ledger.balanced:
                    raise self.broken(f"the {name} ledger is off by {ledger.imbalance}", worker.symbol)
            statement = machine.position.statement(machine.mark_price)
            if statement.value is None:
                continue
            parts = statement.spread + statement.inventory + statement.fees + statement.funding + statement.settlement
            off = statement.cash + statement.value - statement.opening - parts
            if abs(off) > abs(statement.value) * world.tiny + world.tiny:
                raise self.broken(f"the statement is off by {off}: {statement}", worker.symbol)
