"""The journal fed to fresh machines leads to the same decisions, record by record, over all lives."""

from sim_judge import Oracle
from sim_world_type import World

from mmd.journal.reader import records
from mmd.journal.segments import DIRECTORY
from mmd.replay.replayer import Replayer


class ReplayEqual(Oracle):
    promise = "replay digest equal"

    def over(self, world: World) -> None:
        replayer = Replayer()
        for record in records(world.state_directory / DIRECTORY):
            difference = replayer.feed(record)
            if difference is not None:
                raise self.broken(str(difference), difference.key.partition("/")[2])
            world.story.count("replayed")
