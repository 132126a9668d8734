"""A house of real machines that writes a real journal: scenes of the core's tests, a portfolio, restarts.

What the pump and the treasury do is done here in their order: a batch is written before anything that
reads the machine, and the portfolio's word reaches the symbols as an event.
"""

import random
from pathlib import Path
from typing import Any

import msgspec
from core_exchange import Rig
from core_kit import START_NS, changed
from portfolio_kit import limits
from test_machine_model import SETUPS, STEPS, Scene

from mmd.core.machine import SymbolMachine
from mmd.core.portfolio import PortfolioMachine
from mmd.domain import events as ev
from mmd.domain.actions import Decision
from mmd.domain.settings import JournalSettings, KillSwitches, SymbolSettings
from mmd.domain.totals import BoundsAcked, GrantBounds, LossLimits, PortfolioAction, SymbolJoined, SymbolLeft
from mmd.journal import records as rec
from mmd.journal.writer import Journal
from mmd.replay import memory
from mmd.replay.forced import take_out
from mmd.replay.valuing import valued

NAMES = ("plain", "inverse", "option", "linear")
VERSION = "1.2.3"
SMALL = JournalSettings(reserve_mib=0.0, compress=False)


class RecordedRig(Rig):
    """Every batch goes to the journal."""

    def __init__(self, house: "House", name: str) -> None:
        instrument, given, _ = SETUPS[name]
        super().__init__(instrument, exact(given))
        self.house = house
        self.now_ns = self.born_ns = house.now_ns
        self.recorded = 0
        self.join(inherits=False)

    @property
    def key(self) -> str:
        return self.instrument.key

    def join(self, *, inherits: bool) -> None:
        old = self.machine
        epoch = f"ep{self.epochs}"
        self.machine = SymbolMachine(self.instrument, self.given, epoch, self.now_ns)
        self.house.journal.put(
            rec.Joined,
            self.now_ns,
            key=self.key,
            instrument=self.instrument,
            settings=self.given,
            epoch=epoch,
            inherits=inherits,
        )
        if inherits:
            self.machine.inherit(old, self.now_ns)
        self.log, self.answers, self.recorded = [], [], 0

    def post(self, *events: ev.Mail) -> list[Decision]:
        seen = super().post(*events)
        pairs = list(zip(self.log, self.answers, strict=True))[self.recorded :]
        self.recorded = len(self.log)
        for (at, batch), actions in pairs:
            self.house.journal.batch(self.key, at, batch, actions)
        self.house.now_ns = max(self.house.now_ns, self.now_ns)
        return seen

    def check(self) -> None:
        """The core's tests judge what is decided; here it is only repeated."""

    def restart(self) -> None:
        """One step of a scene: here the house restarts as a whole."""

    def reborn(self) -> None:
        """A new process on the same exchange."""
        self.epochs += 1
        if self.link_up:
            self.link_up = False
            self.to_exchange.clear()
            self.to_machine.clear()
        self.timer_ns = 0
        self.now_ns = self.house.now_ns
        self.join(inherits=True)
        self.bounds, self.acked_version = {0: (0, 0)}, 0

    def up(self) -> None:
        self.post(ev.DataLinkUp(self.now_ns))
        self.connect()
        self.process()
        self.deliver(10)

    def set_bounds(self, low: int, high: int) -> None:
        """Only the portfolio says."""

    def grant(self, action: GrantBounds) -> None:
        self.bounds[action.version] = (action.min_lots, action.max_lots)
        self.now_ns = max(self.now_ns, self.house.now_ns)
        self.post(ev.BoundsSet(action.version, action.min_lots, action.max_lots, self.now_ns))


class RecordedScene(Scene):
    """The same steps."""

    def __init__(self, house: "House", name: str) -> None:
        _, given, self.centre = SETUPS[name]
        self.given = exact(given)
        self.unit = self.centre // 400 + 1
        self.rig = RecordedRig(house, name)

    def settings_change(self, a: int, b: int) -> None:
        super().settings_change(a, b)
        assert self.rig.machine.settings == exact(self.rig.machine.settings)

    def trade(self) -> None:
        rig, width = self.rig, 5 * self.unit
        rig.now_ns = max(rig.now_ns, rig.house.now_ns)
        rig.post(ev.Ticker(self.price, self.price, self.price, 0.0, 0.0, 60.0, 0.0, rig.now_ns, rig.now_ns))
        rig.post(ev.BookTop(((self.centre - width, 50),), ((self.centre + width, 50),), 0, rig.now_ns, rig.now_ns))
        rig.ask(ev.ResumeRequested)

    @property
    def price(self) -> float:
        return float(self.rig.instrument.grid.price(self.centre))


class House:
    """`run` it, then close it and read what it wrote in `directory`."""

    def __init__(self, directory: Path, names: tuple[str, ...] = NAMES, settings: JournalSettings = SMALL) -> None:
        self.directory = directory
        self.settings = settings
        self.now_ns = START_NS
        self.scenes: dict[str, RecordedScene] = {}
        self.notes = 0
        self.steps = STEPS
        self._open()
        self.journal.put(rec.Started, self.now_ns, version=VERSION, pid=1, host="h")
        self.begin(None)
        for name in names:
            scene = RecordedScene(self, name)
            self.scenes[scene.rig.key] = scene
        self.serve()

    def _open(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.journal = Journal(
            self.directory, self.settings, service="test", version=VERSION, code=memory.CODE, now_ns=self.now_ns
        )

    def begin(self, carried: Any) -> None:
        given, switches = limits(btc="1", eth="50", usd="200000"), KillSwitches()
        self.portfolio = PortfolioMachine(given, switches, self.now_ns, carried)
        self.journal.put(rec.Began, self.now_ns, limits=given, switches=switches, carried=carried)

    def serve(self) -> None:
        """Everybody joins the portfolio, connects, and quotes."""
        joined = [
            SymbolJoined(rig.instrument, rig.machine.rules.max_position_lots, LossLimits()) for rig in self.rigs()
        ]
        self.totals(tuple(joined), ())
        for rig in self.rigs():
            rig.up()
        for scene in self.scenes.values():
            scene.trade()
        self.totals((), None)
        for scene in self.scenes.values():
            scene.trade()

    def rigs(self) -> list[RecordedRig]:
        return [scene.rig for scene in self.scenes.values()]

    # --- what happens ---------------------------------------------------------------------------------

    def totals(self, told: tuple[Any, ...], keys: tuple[str, ...] | None) -> None:
        at = max([self.now_ns, *(rig.now_ns for rig in self.rigs())])
        self.now_ns = at
        values = [valued(self.scenes[key].rig.machine, at) for key in (self.scenes if keys is None else keys)]
        actions = self.portfolio.handle([*told, *(value for value in values if value is not None)], at)
        self.journal.totals(at, told, keys, actions)
        self.act(actions)

    def act(self, actions: list[PortfolioAction]) -> None:
        for action in actions:
            if isinstance(action, GrantBounds) and action.key in self.scenes:
                self.scenes[action.key].rig.grant(action)
        acks = [BoundsAcked(rig.key, rig.acked_version) for rig in self.rigs() if rig.acked_version]
        if actions and acks:
            self.totals(tuple(acks), ())

    def run(self, steps: int, seed: int = 1) -> None:
        rng = random.Random(seed)
        for _ in range(steps):
            scene = self.scenes[rng.choice(list(self.scenes))]
            scene.rig.now_ns = max(scene.rig.now_ns, self.now_ns)
            scene.run([(rng.choice(self.steps), rng.randrange(100), rng.randrange(100))])
            if rng.random() < 0.2:
                self.totals((), None)
            self.journal.commit()

    def note(self, text: str = "noted") -> None:
        self.notes += 1
        self.journal.put(rec.Note, self.now_ns, number=self.notes, name="test", detail=text)

    def leave(self, key: str) -> None:
        rig = self.scenes[key].rig
        self.totals((), (key,))
        self.totals((SymbolLeft(key, rig.machine.position.lots),), ())
        del self.scenes[key]
        self.journal.put(rec.Left, self.now_ns, key=key)

    def take_out(self, key: str, detail: str) -> None:
        rig = self.scenes[key].rig
        take_out(rig.machine, detail, self.now_ns)
        self.journal.put(rec.TakenOut, self.now_ns, key=key, detail=detail)

    def change(self, key: str, given: SymbolSettings) -> None:
        rig = self.scenes[key].rig
        rig.given = given
        rig.post(ev.SettingsChanged(given, rig.now_ns))

    def restart(self) -> None:
        """The process dies and another one begins: the same file goes on."""
        self.journal.close()
        self.now_ns = max([self.now_ns, *(rig.now_ns for rig in self.rigs())]) + 1_000_000_000
        self._open()
        self.journal.put(rec.Started, self.now_ns, version=VERSION, pid=2, host="h")
        self.begin(self.portfolio.carried())
        for rig in self.rigs():
            rig.reborn()
        self.serve()

    def rotate(self, between: int = 0, accounts: dict[str, str] | None = None, note: int = 0) -> None:
        """A new file; its snapshots are trickled, with steps of the scenes between them."""
        self.journal.rotate(self.now_ns)
        for rig in self.rigs():
            self.journal.put(rec.Snapshot, self.now_ns, key=rig.key, state=raw(rig.machine))
            self.run(between, seed=between)
        self.journal.put(rec.Snapshot, self.now_ns, key="", state=raw(self.portfolio))
        self.journal.put(rec.SnapshotsDone, self.now_ns, accounts=accounts or {}, note=note)
        self.journal.commit()

    def states(self) -> dict[str, bytes]:
        """What a recovery must come to."""
        found = {rig.key: memory.save(rig.machine) for rig in self.rigs()}
        return found | {"": memory.save(self.portfolio)}


def exact(given: SymbolSettings) -> SymbolSettings:
    """With the types that it declares, as a configuration's are."""
    return msgspec.json.decode(msgspec.json.encode(given), type=SymbolSettings)


def raw(machine: SymbolMachine | PortfolioMachine) -> Any:
    return msgspec.Raw(memory.save(machine))


__all__ = ["NAMES", "SETUPS", "SMALL", "STEPS", "VERSION", "House", "RecordedRig", "changed", "raw"]
