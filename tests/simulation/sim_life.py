"""One life of the daemon: started on a state directory, ended by an orderly stop or by a crash at any step.

From the instant of a crash nothing that the dead daemon still does has any effect: its bytes vanish, and
what it writes goes into a directory that is not looked at again. The next life begins with a copy that was
taken at that instant.
"""

import inspect
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio
from sim_disk import SimDisk
from sim_exact import here
from sim_operator import Operator
from sim_story import Violation
from sim_world_type import World

from mmd.config.load import load_text
from mmd.domain.errors import MmdError
from mmd.domain.reasons import State
from mmd.exchanges.connection import LoginRefused
from mmd.journal.statefile import JournalFailed
from mmd.shell.daemon import Daemon
from mmd.shell.desk import EventLine
from mmd.shell.diary import Diary

STOP_SECONDS = 60.0
HALT_WRITTEN_NS = 1_000_000_000
COUNTED = ("symbol.halted", "symbol.paused", "case.opened")
LOGIN_SKEW_NS = 50_000_000_000  # signatures of a clock that is further off are refused
SEAMS = frozenset(inspect.signature(Daemon.__init__).parameters)


class Life:
    """`run` until its end; `ended` says how."""

    def __init__(self, world: World, number: int, directory: Path) -> None:
        self.number = number
        self.directory = directory
        self.next_directory = directory.with_name(f"state-{number + 1:04}")
        self.dead = False
        self.ended = ""
        self.over = trio.Event()
        self.daemon: Daemon | None = None
        self.disk = SimDisk(world.plan.stream(f"disk/{number}"), world.platter)
        self.steps_left: int | None = None
        self.writes_left: int | None = None
        self.operator = Operator(world, self)
        self.nursery: trio.Nursery
        self.scope = trio.CancelScope()
        self._world = world
        self._told = True
        self._counter: StepCounter | None = None  # of a life that has begun

    @property
    def up(self) -> bool:
        """There is a daemon, and it has not ended in any way."""
        return self.daemon is not None and not self.dead and not self.ended

    # --- from start to end -----------------------------------------------------------------------

    async def run(self) -> None:
        world = self._world
        self._counter = StepCounter(self)
        if self.steps_left is not None:
            trio.lowlevel.add_instrument(self._counter)
        try:
            with self.scope:
                async with trio.open_nursery() as nursery:
                    self.nursery = nursery
                    nursery.start_soon(self._daemon)
                    nursery.start_soon(self.operator.attend)
        except BaseExceptionGroup as group:
            if not self.dead:
                raise
            # A process that is gone has no opinion about what it could not do any more.
            rest = group.split(Exception)[1]
            if rest is not None:
                raise rest from None
        finally:
            self.forgive()
        world.last_head = ""
        if not self.dead:
            world.farewell = self.daemon.farewell if self.daemon is not None else None
            if self.ended == "stopped" and self.daemon is not None and self.daemon.journal is not None:
                world.last_head = self.daemon.journal.head
            self.disk.copied(self.directory, self.next_directory, power_lost=False)
        shutil.rmtree(self.directory)

    async def _daemon(self) -> None:
        world = self._world
        try:
            daemon = self._made()
            self.daemon = daemon
            self.disk.before_write = self._before_write
            await daemon.run()
            self.ended = self.ended or "stopped"
        except (JournalFailed, LoginRefused, MmdError, ExceptionGroup) as error:
            if self.dead:
                raise
            self._fell(error)
        except Exception as bug:  # whatever ends the daemon breaks the promise
            if self.dead:
                raise
            raise Violation("the daemon stays up", "".join(traceback.format_exception(bug))) from bug
        world.tell(f"life {self.number} ends: {self.ended}")
        self.over.set()
        self.nursery.cancel_scope.cancel()

    def _fell(self, error: Exception) -> None:
        """An error that the daemon may end with, and that a service manager answers with a restart."""
        leaf: BaseException = error
        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]
        world = self._world
        excused = isinstance(leaf, JournalFailed) and self.disk.refused
        excused = excused or (isinstance(leaf, LoginRefused) and abs(world.host_offset_ns) > LOGIN_SKEW_NS)
        if not excused:
            raise Violation("the daemon stays up", "".join(traceback.format_exception(error))) from error
        self.ended = f"{type(leaf).__name__}: {leaf}"
        world.story.count("ended by itself")

    def _made(self) -> Daemon:
        world = self._world
        seams: dict[str, Any] = {}
        if "disk" in SEAMS:
            seams["disk"] = self.disk
        if "in_thread" in SEAMS:
            seams["in_thread"] = here
        world.dialling = self.number
        config = load_text(world.config_path.read_text())
        world.variant = world.variants[config.sha256]
        daemon = Daemon(config, world.config_path, world.host_ns, self.directory, **seams)
        daemon.diary.note = self._overheard(daemon.diary)  # type: ignore[method-assign]  # the story listens
        return daemon

    def _overheard(self, diary: Diary) -> Callable[..., None]:
        note = diary.note

        def told(name: str, detail: str, **more: Any) -> None:
            note(name, detail, **more)
            if not self.dead:
                self._world.tell(f"[{name}] {detail}", more.get("symbol") or "")
                if name in COUNTED:
                    self._world.story.count(f"{name} {detail.partition(': ')[2].partition(',')[0]}")

        return told

    def events(self) -> list[EventLine]:
        return self.daemon.events_since(0, 10_000) if self.daemon is not None else []

    def _note_halted(self) -> None:
        """Who is HALTED now, and has been for long enough that it is on disk."""
        assert self.daemon is not None
        written_ns = self.daemon.clock.now_ns() - HALT_WRITTEN_NS
        for worker in self.daemon.pump.workers.values():
            machine = worker.machine
            if machine.state is State.HALTED and machine.since_ns <= written_ns:
                self._world.halted.add(worker.symbol)
            elif machine.orders_seen:
                self._world.halted.discard(worker.symbol)

    async def stop(self) -> None:
        """An orderly stop, as by the service manager."""
        if self.up and self.daemon is not None:
            self._world.tell(f"life {self.number} is asked to stop")
            self._note_halted()
            self.daemon.stop()
            with trio.move_on_after(STOP_SECONDS) as waited:
                await self.over.wait()
            if waited.cancelled_caught:
                raise Violation("a stop ends", f"still {self.daemon.phase} after {STOP_SECONDS:g} s")

    # --- crashes ---------------------------------------------------------------------------------

    def crash(self, how: str, *, power_lost: bool = False, told: bool = True) -> None:
        """Now. `told`: the kernel closes the connections; else the exchange hears nothing."""
        if self.dead or self.ended:
            return
        if self.daemon is not None and not self.daemon._stop_requested.is_set():
            self._note_halted()
        self.dead = True
        self.over.set()
        world = self._world
        running = self.daemon.phase if self.daemon is not None else "not made yet"
        self.ended = f"crash {how} ({running})"
        world.tell(f"life {self.number}: {self.ended}, {'' if told else 'not '}told" + (", power" * power_lost))
        world.story.count("crash")
        world.story.count(f"crash {how.split()[0]}")
        self.disk.copied(self.directory, self.next_directory, power_lost=power_lost)
        for link in world.wire.standing(self.number):
            link.die(told=told)
        self.scope.cancel()

    def crash_after(self, steps: int, *, told: bool) -> None:
        """At the daemon's n-th step from now: any await of it is such a place."""
        self._told = told
        if self.steps_left is None and self._counter is not None:
            trio.lowlevel.add_instrument(self._counter)
        self.steps_left = steps

    def forgive(self) -> None:
        """No crash is due any more."""
        if self.steps_left is not None and self._counter is not None:
            trio.lowlevel.remove_instrument(self._counter)
        self.steps_left = self.writes_left = None

    def crash_at_write(self, writes: int, *, told: bool) -> None:
        """Before the n-th write to the state directory from now."""
        self.writes_left = writes
        self._told = told

    def stepped(self) -> None:
        assert self.steps_left is not None
        self.steps_left -= 1
        if self.steps_left <= 0:
            self.forgive()
            self.crash("step", told=self._told)

    def _before_write(self, size: int) -> None:
        if self.dead or self.writes_left is None:
            return
        self.writes_left -= 1
        if self.writes_left <= 0:
            self.writes_left = None
            self.crash("write", told=self._told)


class StepCounter(trio.abc.Instrument):
    """Counts the steps of a life's tasks while somebody wants to know."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._root = trio.lowlevel.current_task()
        self._belongs: dict[trio.lowlevel.Task, bool] = {}

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._life.steps_left is None:
            return
        known = self._belongs.get(task)
        if known is None:
            known = self._belongs[task] = self._is_of_life(task)
        if known:
            self._life.stepped()

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self._belongs.pop(task, None)

    def _is_of_life(self, task: trio.lowlevel.Task) -> bool:
        at: trio.lowlevel.Task | None = task
        while at is not None:
            if at is self._root:
                return True
            at = at.parent_nursery.parent_task if at.parent_nursery is not None else None
        return False
