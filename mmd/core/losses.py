"""Profit over time, of one symbol and of everything: high-water mark, drawdown, and what the day has brought.

Gains are in USD and count from the first time that a profit was known: a position that was found
under water is no loss of this watch. The day is a UTC day that begins at a configured hour.
"""

from decimal import Decimal

import msgspec

from mmd.domain.totals import Carried, LossLimits

DAY_NS = 86_400 * 1_000_000_000
HOUR_NS = DAY_NS // 24


def day_start_ns(now_ns: int, starts_hour: int) -> int:
    """When the day began that this moment lies in, Unix nanoseconds."""
    shift_ns = starts_hour * HOUR_NS
    return (now_ns - shift_ns) // DAY_NS * DAY_NS + shift_ns


class Losses:
    """One account's gain, its highest value, and its value when the day began."""

    __slots__ = ("day_start_usd", "day_started_ns", "gain_usd", "high_usd")

    def __init__(self, day_ns: int, carried: Carried | None = None) -> None:
        """`day_ns`: when the current day began. `carried`: what an earlier run had counted."""
        self.gain_usd = 0.0
        self.high_usd = carried.drawdown_usd if carried else 0.0
        self.day_started_ns = carried.day_started_ns if carried else day_ns
        self.day_start_usd = -carried.day_usd if carried else 0.0
        self.roll(day_ns)

    @property
    def drawdown_usd(self) -> float:
        """How far the gain is below its highest value; never negative."""
        return self.high_usd - self.gain_usd

    @property
    def day_usd(self) -> float:
        """Gain since the day began; negative = lost."""
        return self.gain_usd - self.day_start_usd

    def roll(self, day_ns: int) -> None:
        """A new day starts from the last gain known before it. An earlier start than the current one is no new day."""
        if day_ns > self.day_started_ns:
            self.day_started_ns = day_ns
            self.day_start_usd = self.gain_usd

    def see(self, gain_usd: float) -> None:
        self.gain_usd = gain_usd
        if gain_usd > self.high_usd:
            self.high_usd = gain_usd

    def count_anew(self) -> None:
        """The drawdown counts from here; the day does not."""
        self.high_usd = self.gain_usd

    def carried(self) -> Carried:
        return Carried(day_started_ns=self.day_started_ns, day_usd=self.day_usd, drawdown_usd=self.drawdown_usd)


class Account:
    """One symbol's losses over every time that it joined; a profit that is reported anew starts where it left off."""

    __slots__ = ("_offset_usd", "expiry_ns", "limits", "losses")

    def __init__(self, losses: Losses, limits: LossLimits, expiry_ns: int | None) -> None:
        """`expiry_ns`: when its instrument ends, and nothing can be gained or lost with it any more; None = never."""
        self.losses = losses
        self.limits = limits
        self.expiry_ns = expiry_ns
        self._offset_usd: float | None = None

    def rejoin(self, limits: LossLimits, expiry_ns: int | None) -> None:
        self.limits = limits
        self.expiry_ns = expiry_ns
        self._offset_usd = None

    def see(self, pnl_usd: float) -> None:
        """The symbol's own profit, as it counts it since it joined."""
        if self._offset_usd is None:
            self._offset_usd = self.losses.gain_usd - pnl_usd
        self.losses.see(pnl_usd + self._offset_usd)

    def carried(self) -> Carried:
        return msgspec.structs.replace(self.losses.carried(), expiry_ns=self.expiry_ns)


def drawdown_breach(losses: Losses, limit: Decimal | None, key: str) -> str | None:
    """What to say if the drawdown has reached its limit (at exactly the limit it has); None if not."""
    if limit is None or losses.drawdown_usd < float(limit):
        return None
    return f"{losses.drawdown_usd:.2f} USD below the high-water mark, allowed {limit:.2f} USD ({key})"


def daily_breach(losses: Losses, limit: Decimal | None, key: str, starts_hour: int) -> str | None:
    """What to say if the day's loss has reached its limit (at exactly the limit it has); None if not."""
    if limit is None or -losses.day_usd < float(limit):
        return None
    return f"{-losses.day_usd:.2f} USD lost since {starts_hour:02d}:00 UTC, allowed {limit:.2f} USD ({key})"
