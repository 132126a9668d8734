"""What is wrong with one exchange as a whole: its clock, its connection, its event bus. Pure."""

import math

import msgspec

from mmd.core.window import Window
from mmd.domain.reasons import Switch
from mmd.domain.settings import KillSwitches

NS = 1_000_000_000
# A switch that tripped on a measure is over once the measure is back under this part of its limit.
CALM = 0.5


class Finding(msgspec.Struct, frozen=True):
    """A switch that trips now, or (`over`) whose cause is gone."""

    switch: Switch
    detail: str
    over: bool = False


class ExchangeWatch:
    """Each cause is reported once when it comes and once when it goes."""

    def __init__(self, settings: KillSwitches) -> None:
        self.settings = settings
        self.active: dict[Switch, str] = {}
        self._lost = Window(int(settings.disconnect_window_seconds * NS))
        self._lost_ns = 0

    def change(self, settings: KillSwitches) -> None:
        """New thresholds; what they mean for the past is judged at the next look."""
        self.settings = settings
        self._lost.length_ns = int(settings.disconnect_window_seconds * NS)

    def disconnected(self, now_ns: int) -> list[Finding]:
        """A link broke. Those that break within a second of each other broke together."""
        if now_ns - self._lost_ns >= NS:
            self._lost.add(now_ns)
            self._lost_ns = now_ns
        return self._storm(now_ns)

    def look(self, now_ns: int, skew_ms: float, lag_seconds: float | None) -> list[Finding]:
        """The measures as they are now. `lag_seconds` None: there is no event bus."""
        found = self._storm(now_ns)
        found += self._measure(Switch.CLOCK_SKEW, abs(skew_ms), self.settings.max_skew_ms, "ms between the clocks")
        if lag_seconds is not None:
            limit = self.settings.max_event_lag_seconds
            found += self._measure(Switch.EVENT_LAG, lag_seconds, limit, "s behind the event bus")
        return found

    def reset(self) -> None:
        """An operator has looked: broken links are counted from here again."""
        self._lost.clear()
        self.active.pop(Switch.DISCONNECT_STORM, None)

    def _storm(self, now_ns: int) -> list[Finding]:
        limit = self.settings.max_disconnects
        count = self._lost.count(now_ns)
        window = f"{self.settings.disconnect_window_seconds:g} s"
        return self._judge(Switch.DISCONNECT_STORM, count > limit, f"{count} disconnects in {window}, allowed {limit}")

    def _measure(self, switch: Switch, value: float, limit: float, what: str) -> list[Finding]:
        """A measure that cannot be had is beyond every limit."""
        if switch in self.active and limit * CALM < value <= limit:
            return []
        bad = not math.isfinite(value) or value > limit
        return self._judge(switch, bad, f"{value:.1f} {what}, allowed {limit:g}")

    def _judge(self, switch: Switch, bad: bool, detail: str) -> list[Finding]:
        if bad and switch not in self.active:
            self.active[switch] = detail
            return [Finding(switch, detail)]
        if not bad and switch in self.active:
            del self.active[switch]
            return [Finding(switch, detail, over=True)]
        return []
