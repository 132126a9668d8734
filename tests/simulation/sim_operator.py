"""The person at the desk: mostly sensible, now and then not; every change has a reason."""

from typing import TYPE_CHECKING, Any

import trio
from sim_world_type import World

from mmd.domain.errors import MmdError
from mmd.shell.desk import Caller, ChangeResult, Outcome
from mmd.shell.reload import ReloadResult

if TYPE_CHECKING:
    from sim_life import Life

CALLER = Caller(uid=1000, pid=1, name="operator")
PATIENCE_SECONDS = 10.0
SLIPPAGE_BPS = 1000.0  # one tick of a cheap option is hundreds
ASIDE = ("pause", "resume", "halt", "reset", "flatten", "shadow", "reload", "bad_reload", "confirm")


class Operator:
    """Of one life."""

    def __init__(self, world: World, life: "Life") -> None:
        self._world = world
        self._life = life
        self.reset: set[str] = set()  # symbols that were asked to be reset
        self._chance = world.plan.stream(f"operator/{life.number}")

    @property
    def _desk(self) -> Any:
        return self._life.daemon

    async def attend(self) -> None:
        """Look every few seconds and do what is sensible."""
        while True:
            mild = self._world.mild
            await trio.sleep(self._chance.uniform(0.8, 2.0) if mild else self._chance.uniform(1.0, 6.0))
            desk = self._desk
            if desk is None or desk.phase != "running":
                continue
            try:
                await self._tidy(always=self._world.mild)
            except (MmdError, LookupError) as refused:
                self._world.tell(f"operator: refused: {refused}")

    async def _tidy(self, *, always: bool) -> None:
        """Reset what is HALTED, accept what differs, resume what is PAUSED."""
        desk, chance = self._desk, self._chance
        rows = desk.status(["all"]).symbols
        halted = [row.symbol for row in rows if row.state == "HALTED"]
        if always and any(row.reason == "exposure" for row in rows):
            await self._lower()
        served = {row.symbol for row in rows if row.state != "DRAINING"}
        if always and len(served) == len(rows) and served != set(self._world.variant.symbols):
            await self._reload(self._world.plan.variants.index(self._world.variant), None)  # an undone one took some
        if halted and (always or chance.random() < 0.8):
            await self._change("reset", halted)
        await self._accept()
        for line in desk.protection():
            if line.frozen_until is not None and (always or chance.random() < 0.7):
                await desk.reset_protection(line.exchange, line.underlying, "looked at it", CALLER)
        if always and self._world.shadowed:
            self._world.shadowed = False
            await desk.shadow(["all"], False, "enough", CALLER, PATIENCE_SECONDS)
        paused = [row.symbol for row in desk.status(["all"]).symbols if row.state == "PAUSED"]
        if not paused or not (always or chance.random() < 0.85):
            return
        result = await self._change("resume", paused)
        for row in result.symbols:
            failing = {check.name for check in row.checks if not check.ok}
            if failing == {"bounds"} and chance.random() < 0.5:
                await self._flatten(row.symbol)

    async def _lower(self) -> None:
        """More is held than is allowed, perhaps on a symbol that left: bring all back, and close every position."""
        if self._world.variant is not self._world.plan.variants[0]:
            await self._reload(0, None)
        for line in self._desk.positions(["all"]):
            if line.position:
                await self._flatten(line.symbol)

    async def _accept(self) -> None:
        """Take the exchange's word in open cases that do not explain themselves."""
        desk, world = self._desk, self._world
        for case in desk.cases(["all"], False):
            states = {row.symbol: row.state for row in desk.status(["all"]).symbols}
            if case.symbol not in states:
                continue  # it left, and its case waits until it is back
            if states[case.symbol] == "ACTIVE":
                await self._change("pause", [case.symbol])
            result = await desk.accept(case.number, "the exchange is right", CALLER, PATIENCE_SECONDS)
            world.story.count(f"case accepted ({case.kind})")
            world.tell(f"operator: accept {case.kind}: {result.outcome}: {result.symbols[0].detail}", case.symbol)

    async def _change(self, name: str, symbols: list[str]) -> ChangeResult:
        world = self._world
        if name == "reset":
            self.reset.update(world.plan.symbols if symbols == ["all"] else symbols)
        result: ChangeResult = await getattr(self._desk, name)(symbols, "simulated", CALLER, PATIENCE_SECONDS)
        world.story.count(name)
        rows = "; ".join(f"{row.symbol} {row.outcome}: {row.detail}" for row in result.symbols)
        world.tell(f"operator: {name}: {rows}")
        if name == "halt" and result.outcome is Outcome.DONE:
            world.story.count("proven halt")
        return result

    async def _flatten(self, symbol: str) -> None:
        desk, world = self._desk, self._world
        preview = desk.flatten_preview(symbol, None, SLIPPAGE_BPS)
        if preview.limit_price is None or preview.refused:
            return
        result = await desk.flatten(symbol, None, preview.limit_price, "too much", CALLER, PATIENCE_SECONDS)
        world.story.count("flatten")
        world.tell(f"operator: flatten: {result.symbols[0].outcome}: {result.symbols[0].detail}", symbol)

    # --- by the plan -----------------------------------------------------------------------------

    async def command(self, kind: str, a: float, b: float) -> None:
        """What the plan wants done now, sensible or not."""
        desk, world = self._desk, self._world
        if desk is None or not self._life.up:
            return
        symbols = world.plan.symbols
        pick = ["all"] if b < 0.3 else [symbols[int(a * len(symbols))]]
        try:
            match kind:
                case "pause" | "resume" | "halt" | "reset":
                    await self._change(kind, pick)
                case "flatten":
                    await self._change("pause", [symbols[int(a * len(symbols))]])
                    await self._flatten(symbols[int(a * len(symbols))])
                case "shadow":
                    world.shadowed = True
                    await desk.shadow(pick, b < 0.7, "for a while", CALLER, PATIENCE_SECONDS)
                    world.tell(f"operator: shadow {pick} {'on' if b < 0.7 else 'off'}")
                    world.story.count("shadow")
                case "reload":
                    await self._reload(int(a * len(world.plan.variants)), 3.0 if b < 0.2 else None)
                case "bad_reload":
                    await self._bad_reload()
                case "confirm":
                    world.story.count("confirm")
                    await desk.confirm(CALLER)
        except (MmdError, LookupError) as refused:
            world.tell(f"operator: {kind} {pick}: {type(refused).__name__}: {refused}")

    async def _reload(self, number: int, confirm_seconds: float | None) -> None:
        world = self._world
        before = world.config_path.read_text()
        world.config_path.write_text(world.plan.variants[number].text)
        result: ReloadResult = await self._desk.reload(confirm_seconds, CALLER)
        world.tell(f"operator: reload of variant {number}: {result.outcome}: {result.detail}")
        world.story.count("reload" if result.outcome is Outcome.DONE else "reload refused")
        if result.outcome is Outcome.REFUSED:
            world.config_path.write_text(before)

    async def _bad_reload(self) -> None:
        world = self._world
        before = world.config_path.read_text()
        world.config_path.write_text(before.replace('"version": 1', '"version": 1, "colour": "blue"'))
        try:
            result: ReloadResult = await self._desk.reload(None, CALLER)
        finally:
            world.config_path.write_text(before)
        assert result.outcome is Outcome.REFUSED, result
        world.story.count("bad_reload")
