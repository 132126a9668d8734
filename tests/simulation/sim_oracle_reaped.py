"""What the reaper has proven to be empty is empty, and stays so until the next life begins."""

from sim_judge import Oracle, Side, all_ours, shown
from sim_world_type import World


class Reaped(Oracle):
    promise = "what is reaped is empty"

    def look(self, world: World, sides: dict[str, Side]) -> None:
        if world.reaped and (left := list(all_ours(sides))):
            raise self.broken(f"after a proof of the reaper rests {shown(left)}", left[0].instrument_name)
