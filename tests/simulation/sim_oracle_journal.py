"""The journal of all lives is one whole chain, and whatever reached the exchange was in it before.

Write comes before act: whenever bytes leave for the exchange, no order waits in the journal's buffer.
"""

import re

from sim_judge import Oracle
from sim_world_type import World

from mmd.journal.reader import verify
from mmd.journal.segments import DIRECTORY

INTENT = re.compile(rb'"type":"(?:Place|Amend|Reduce)Order"')


class JournalKept(Oracle):
    promise = "the journal verifies"

    def over(self, world: World) -> None:
        report = verify(world.state_directory / DIRECTORY)
        if not report.whole:
            raise self.broken(str(report.fault))
        world.story.count("records", report.records)
        world.story.count("journal bytes", report.size)
        head = world.last_head
        if head and report.head != head:
            raise self.broken(f"it ends with {report.head}, and the daemon said {head}")


class WrittenFirst(Oracle):
    promise = "write before act"

    def leaving(self, world: World) -> None:
        """Bytes of the daemon leave for the exchange."""
        daemon = world.daemon
        if daemon is None or daemon.journal is None or daemon.journal.failing:
            return
        for line in daemon.journal._buffer:
            if INTENT.search(line):
                raise self.broken(f"bytes leave, and this waits to be written: {line[:300].decode()}")
