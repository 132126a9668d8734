"""Keeps the journal: durable in time, in files of bearable size, each of which a replay can begin with.

A new file begins with its `segment` record; then every machine's state is written, one a turn so that
nobody waits for them, the portfolio's last. Closed files are compressed and old ones deleted in a thread.
"""

import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

import msgspec
import trio

from mmd.core.machine import SymbolMachine
from mmd.core.portfolio import PortfolioMachine
from mmd.domain.settings import FsyncPolicy, JournalSettings
from mmd.journal.disk import Disk
from mmd.journal.keeping import Kept, tidy
from mmd.journal.records import NO_STATE, Snapshot, SnapshotsDone, Unclaimed
from mmd.journal.statefile import JournalFailed
from mmd.journal.writer import Journal
from mmd.replay.memory import save
from mmd.shell.pump import Pump

LOOK_SECONDS = 0.1
REST = 9.0  # times as long as it worked a thread rests that others must not notice
BEHIND_REST = 1.0  # the same, once files are closed faster than they are compressed
PORTFOLIO = ""
NO_ACCOUNTS: Mapping[str, str] = MappingProxyType({})


class InThread(Protocol):
    """Runs slow work where it keeps nobody waiting; what it raises comes back."""

    async def __call__(self, work: Callable[[], None], /) -> None: ...


class Orphan(msgspec.Struct, frozen=True):
    """What an earlier process left of a symbol that nobody has inherited from yet. `doubt`: as `Unclaimed` has it."""

    machine: SymbolMachine | None
    doubt: str = ""


def no_orphans() -> dict[str, Orphan]:
    """Until somebody knows of any."""
    return {}


def begun() -> None:
    """Until somebody has something to write into every file."""


async def inline(work: Callable[[], None], /) -> None:
    """Instead of a thread, where time is not real."""
    work()


class Unhurried:
    """Keeps slow work in a thread from taking more than a tenth of a processor, or of the interpreter.

    Of half of it while it is `behind`: what waits to be done takes room on the disk. Called by that thread after each
    small piece of it. A machine may have one processor only: a piece that takes milliseconds is a decision that comes
    so much later. Whoever works `inline` rests for nobody.
    """

    def __init__(self, ending: threading.Event, behind: Callable[[], bool]) -> None:
        """Made where the work must not be noticed. `ending`: set when nothing is to be gone on with."""
        self._ending = ending
        self._behind = behind
        self._disturbed = threading.get_ident()
        self._worked = 0.0

    def __call__(self) -> bool:
        """Rest a while; then whether to end."""
        if threading.get_ident() == self._disturbed:
            return self._ending.is_set()
        before, self._worked = self._worked, time.thread_time()
        rest = BEHIND_REST if self._behind() else REST
        return self._ending.wait(rest * max(0.0, self._worked - before) if before else 0.0)


class Keeper:
    """One for each journal; `run` for as long as the daemon lives."""

    def __init__(
        self,
        journal: Journal,
        settings: JournalSettings,
        pump: Pump,
        in_thread: InThread,
        disk: Disk | None = None,
        accounts: Mapping[str, str] = NO_ACCOUNTS,
    ) -> None:
        """`accounts`: whose machines they are, by exchange."""
        self._disk = disk
        self._accounts = dict(accounts)
        self.settings = settings
        self._journal = journal
        self._pump = pump
        self._in_thread = in_thread
        self.opened: Callable[[], None] = begun  # called when a new file has begun
        self.orphans: Callable[[], Mapping[str, Orphan]] = no_orphans  # by symbol's key
        self._waiting: list[str] = []  # keys of machines that are to be written
        self._round = False
        self._tidying = False
        self._ending = threading.Event()

    def ending(self) -> bool:
        """Whether nothing slow may be begun or gone on with any more."""
        return self._ending.is_set()

    def begin_round(self) -> None:
        """Write every machine's state from here on."""
        self._waiting = [*self._pump.workers, *self.orphans(), PORTFOLIO]
        self._round = True

    async def run(self, portfolio: PortfolioMachine) -> None:
        """Look ten times a second, for ever."""
        self.begin_round()
        synced_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tidy)
            try:
                while True:
                    if self._rotated():
                        nursery.start_soon(self._tidy)
                    self._snapshot(portfolio)
                    await self._pump.deliver()  # what was put on record outside a turn is written now
                    if (
                        self.settings.fsync is FsyncPolicy.INTERVAL
                        and trio.current_time() - synced_at >= self.settings.fsync_seconds
                    ):
                        synced_at = trio.current_time()
                        await self._sync()
                    await trio.sleep(0 if self._waiting and not self._journal.failing else LOOK_SECONDS)
            finally:
                self._ending.set()  # a stop must not wait until everything is compressed

    def _rotated(self) -> bool:
        """A file that was removed or cut under us halts everybody, and the next one is begun at once."""
        now_ns = self._pump.clock.now_ns()
        try:
            self._journal.look()
        except JournalFailed as failed:
            self._pump.journal_failed(str(failed))
        if not self._journal.due(now_ns):
            return False
        try:
            self._journal.rotate(now_ns)
        except JournalFailed as failed:
            self._pump.journal_failed(str(failed))
            return False
        self.opened()
        self.begin_round()
        return True

    def _snapshot(self, portfolio: PortfolioMachine) -> None:
        """The next machine's state; its own records before and after it are what it is compared with."""
        if not self._round or self._journal.failing:
            return
        now_ns = self._pump.clock.now_ns()
        while self._waiting:
            key = self._waiting.pop(0)
            worker = self._pump.workers.get(key)
            if key == PORTFOLIO:
                self._journal.put(Snapshot, now_ns, key=key, state=msgspec.Raw(save(portfolio)))
                return
            if worker is not None:
                self._journal.put(Snapshot, now_ns, key=key, state=msgspec.Raw(save(worker.machine)))
                return
            if (orphan := self.orphans().get(key)) is not None:
                machine, account = orphan.machine, self._accounts.get(key.partition("/")[0], "")
                state = NO_STATE if machine is None else msgspec.Raw(save(machine))
                self._journal.put(Unclaimed, now_ns, key=key, account=account, state=state, doubt=orphan.doubt)
                return
        self._round = False
        self._journal.put(SnapshotsDone, now_ns, accounts=self._accounts, note=self._pump.diary.last)

    async def _sync(self) -> None:
        try:
            await self._in_thread(self._journal.sync)
        except JournalFailed as failed:
            self._pump.journal_failed(str(failed))

    async def _tidy(self) -> None:
        """Compress closed files, delete what is too old or too much; the next start goes on where a stop ended it."""
        if self._tidying:
            return
        self._tidying = True
        current, now_ns, kept = self._journal.segment, self._pump.clock.now_ns(), Kept()

        # It is about to begin with the files below `current`: another one was closed since, so they are too many.
        stop = Unhurried(self._ending, lambda: self._journal.segment > current)

        def work() -> None:
            nonlocal kept
            directory = self._journal.directory
            kept = tidy(directory, current, self.settings, now_ns, disk=self._disk, stop=stop)

        try:
            await self._in_thread(work)
        finally:
            self._tidying = False
        for line in kept.done:
            self._pump.diary.note("journal.tidied", line)
        for line in kept.failed:
            self._pump.diary.note("journal.untidy", line)
