"""Exchanges come one by one at a start: who is there, who is awaited, and what waits for whom.

Stages and what moves them: docs/adr/0022-exchanges-start-one-by-one.md.
"""

from collections.abc import Iterable
from enum import StrEnum

import trio

from mmd.config.model import Entry, Named, Selection
from mmd.domain.reasons import Severity
from mmd.shell.alerts import Alerts
from mmd.shell.desk import WaitingLine
from mmd.shell.heritage import Past

ANSWER_SECONDS = 10.0  # how long the exchanges that answer wait for the others
ALERT = "MmdExchangeAbsent"
RUNBOOK = (
    "`mmdctl status` says why it waits: look at the exchange's status page and the network, or correct the file and "
    "reload. Its symbols come into service PAUSED, by themselves, once it answers and its entries fit."
)


class Stage(StrEnum):
    """Of an exchange since the start."""

    ABSENT = "absent"
    JOINING = "joining"
    REFUSED = "refused"
    SERVED = "served"


MOVES: dict[Stage, frozenset[Stage]] = {
    Stage.ABSENT: frozenset({Stage.JOINING, Stage.REFUSED}),
    Stage.JOINING: frozenset({Stage.SERVED}),
    Stage.REFUSED: frozenset({Stage.JOINING, Stage.REFUSED}),
    Stage.SERVED: frozenset({Stage.REFUSED, Stage.JOINING}),  # an undone reload went back to entries that do not fit
}


class Arrivals:
    """One for each start. `past`: what the last process left, for saying what is at stake."""

    def __init__(self, exchanges: Iterable[str], past: Past, alerts: Alerts) -> None:
        self.stages = dict.fromkeys(exchanges, Stage.ABSENT)
        self._answered = {name: trio.Event() for name in self.stages}
        self._one = trio.Event()
        self._why: dict[str, str] = {}
        self._past = past
        self._alerts = alerts
        self._late = False
        self._heard: set[str] = set()  # which have told what the last process left there

    # --- what is heard ---------------------------------------------------------------------------

    def answered(self, exchange: str) -> None:
        """Its instruments are listed and both links are up."""
        self._answered[exchange].set()
        self._one.set()

    @property
    def here(self) -> list[str]:
        """Those that have answered."""
        return [name for name, event in self._answered.items() if event.is_set()]

    async def gather(self) -> list[str]:
        """Wait for all exchanges; once one is there, only a while longer. Returns who is there."""
        await self._one.wait()
        with trio.move_on_after(ANSWER_SECONDS):
            for event in self._answered.values():
                await event.wait()
        self._late = True
        return self.here

    async def wait(self, exchange: str) -> None:
        """Until it answers."""
        await self._answered[exchange].wait()

    def refuses_login(self, exchange: str, detail: str) -> None:
        """It is there and does not take the key. Before the first exchange was there that ends the start."""
        why = f"does not let us in: {detail}"
        if self._late and self.stages[exchange] is Stage.ABSENT and self._why.get(exchange) != why:
            self._why[exchange] = why
            self._alarm(exchange, Severity.CRITICAL)

    # --- moves -----------------------------------------------------------------------------------

    def _move(self, exchange: str, to: Stage) -> None:
        assert to in MOVES[self.stages[exchange]], f"{exchange}: {self.stages[exchange]} to {to}"
        self.stages[exchange] = to

    def late(self, exchange: str) -> None:
        """The others go on without it."""
        if exchange not in self._why:
            self._why[exchange] = "has not answered since the start"
            self._alarm(exchange, Severity.WARNING if self.is_clear(exchange) else Severity.CRITICAL)

    def joining(self, exchange: str) -> None:
        """Its symbols are in service."""
        self._move(exchange, Stage.JOINING)
        self._why.pop(exchange, None)

    def refused(self, exchange: str, detail: str) -> None:
        """It is there, and entries of it do not fit."""
        self._move(exchange, Stage.REFUSED)
        self._why[exchange] = f"its entries do not fit: {detail}"
        self._alarm(exchange, Severity.CRITICAL)

    def served(self, exchange: str) -> None:
        """It has told what we have there, or had its time for it."""
        self._move(exchange, Stage.SERVED)
        self._heard.add(exchange)
        self._alerts.clear(ALERT, exchange=exchange)

    def _alarm(self, exchange: str, severity: Severity) -> None:
        detail = f"{self._why[exchange]}; {self.at_stake(exchange)}"
        self._alerts.fire(ALERT, severity, f"{exchange}: not in service", detail, RUNBOOK, exchange=exchange)

    # --- what is shown ---------------------------------------------------------------------------

    @property
    def awaited(self) -> list[str]:
        """Exchanges whose symbols are not in service."""
        return [name for name, stage in self.stages.items() if stage in (Stage.ABSENT, Stage.REFUSED)]

    def why(self, exchange: str) -> str:
        """Why its symbols are not in service; empty where they are."""
        return "" if exchange not in self.awaited else self._why.get(exchange, "is coming into service")

    def may_rest(self, exchange: str) -> list[str]:
        """Labels of orders of the last process that may be out there, of which nobody has heard yet."""
        return [] if exchange in self._heard else [label for label, _ in self._past.may_rest(exchange)]

    def _is_known(self, exchange: str) -> bool:
        """Whether anybody can say what is held there."""
        return exchange in self._heard or self._past.awaited(exchange).known

    def is_clear(self, exchange: str) -> bool:
        """The journal says that nothing of the last process rests there. One that does not know does not say so."""
        return self._is_known(exchange) and not self.may_rest(exchange)

    def nothing_begun(self, exchange: str) -> bool:
        """Nothing of this process was ever sent there, and the journal says that nothing of the last one rests."""
        return exchange not in self._heard and exchange in self.awaited and self.is_clear(exchange)

    def at_stake(self, exchange: str) -> str:
        """What follows for orders and totals while it is awaited."""
        labels = self.may_rest(exchange)
        texts = [f"orders of the last process may rest there: {', '.join(labels)}"] if labels else []
        if not self._is_known(exchange):
            texts.append("the journal does not say what is held there, so no symbol of any exchange gets room")
        return "; ".join(texts) or "nothing of ours rests there; what is held counts as last known"

    def waiting(self, entries: Iterable[Entry]) -> list[WaitingLine]:
        """The entries that wait, as they are shown."""
        return [
            WaitingLine(
                symbol=shown(entry.target),
                exchange=exchange,
                entry=entry.path,
                reason=f"{exchange} {self.why(exchange)}",
            )
            for entry in entries
            for exchange in [entry.target.exchange]
        ]


def shown(target: Named | Selection) -> str:
    """A symbol's name, or what is selected."""
    return target.symbol if isinstance(target, Named) else f"selection of {target.underlying}"
