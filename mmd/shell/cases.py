"""Placeholder until its author's is here: numbers the cases, in memory."""

from pathlib import Path
from typing import TYPE_CHECKING

from mmd.domain.actions import CaseClosed, CaseOpened
from mmd.shell.worker import Worker

if TYPE_CHECKING:
    from mmd.shell.pump import Pump


class CaseBook:
    def __init__(self, state: Path | None, pump: "Pump") -> None:
        self._pump = pump

    def opened(self, worker: Worker, action: CaseOpened) -> None:
        detail = f"{action.case} {action.subject}: ours {action.ours}, theirs {action.theirs}"
        self._pump.diary.note("case.opened", detail, symbol=worker.symbol, exchange=worker.exchange)

    def closed(self, worker: Worker, action: CaseClosed) -> None:
        self._pump.diary.note("case.closed", action.reason, symbol=worker.symbol, exchange=worker.exchange)

    def restored(self, worker: Worker) -> None:
        """Nothing yet."""
