"""From a tripped kill switch to an alert, and to its end."""

from mmd.domain.actions import Tripped
from mmd.domain.reasons import Severity, Switch
from mmd.domain.switches import SWITCHES
from mmd.shell.alerts import Alerts, scope_of, switch_alert
from mmd.shell.clock import Clock
from mmd.shell.counters import Counters
from mmd.shell.diary import Diary
from mmd.shell.worker import Worker

RESTORED = "MmdHaltRestored"


class Last:
    """One switch since the start: how often, when and why last."""

    __slots__ = ("at_ns", "detail", "trips")

    def __init__(self) -> None:
        self.trips = 0
        self.at_ns = 0
        self.detail = ""


class Alarm:
    """Counts trips, writes them down, raises and ends alerts. Never waits."""

    def __init__(self, alerts: Alerts, diary: Diary, counters: Counters, clock: Clock) -> None:
        self.alerts = alerts
        self.last: dict[Switch, Last] = {switch: Last() for switch in SWITCHES}
        self._diary = diary
        self._counters = counters
        self._clock = clock

    def raise_(self, tripped: Tripped) -> None:
        exchange, symbol = scope_of(tripped)
        last = self.last[tripped.switch]
        last.trips += 1
        last.at_ns, last.detail = self._clock.now_ns(), tripped.detail
        self._counters.count_trip(tripped.switch, tripped.scope)
        detail = f"{tripped.switch}: {tripped.detail}, response {tripped.response}"
        self._diary.note("switch.tripped", detail, symbol=symbol, exchange=exchange)
        self.alerts.fire_switch(tripped)

    def restored(self, worker: Worker, detail: str) -> None:
        """A symbol that was HALTED when the last process ended is HALTED still."""
        runbook = "Read why in `mmdctl status`, deal with it, then reset with a reason and resume."
        self.alerts.fire(
            RESTORED,
            Severity.WARNING,
            f"{worker.symbol}: HALTED since before a restart",
            detail,
            runbook,
            exchange=worker.exchange,
            symbol=worker.symbol,
        )

    def clear(self, switch: Switch, worker: Worker) -> None:
        """One symbol's alert of this switch is over."""
        self.alerts.clear(switch_alert(switch), exchange=worker.exchange, symbol=worker.symbol)

    def clear_scope(self, switch: Switch, exchange: str | None) -> None:
        """What an exchange as a whole, or (None) the portfolio had is over."""
        self.alerts.clear(switch_alert(switch), exchange=exchange)

    def clear_symbol(self, worker: Worker) -> None:
        """Somebody has dealt with this symbol: none of its alerts lasts."""
        self.alerts.clear(exchange=worker.exchange, symbol=worker.symbol)
