"""The markets that the sandbox offers: a recorded one, a generated one, and one for load tests.

Listings depend on the day (expiries lie ahead, names carry dates), so making a market needs the
time. Pass `now_ms` (Unix ms) wherever the clock is not the wall's; it should be the time at which
the market starts.
"""

import time
from pathlib import Path

from mmd.sandbox.assets import assumptions
from mmd.sandbox.burst import BurstMarket
from mmd.sandbox.feed import read_feed
from mmd.sandbox.generator import GeneratedMarket, GeneratorSettings
from mmd.sandbox.model import Market
from mmd.sandbox.replay import RecordedMarket
from mmd.sandbox.universe import built_in, days_until, moved, read_instruments

DATA = Path(__file__).parent / "data"
RECORDED_FEED = DATA / "feed.jsonl"
RECORDED_INSTRUMENTS = DATA / "instruments.json"

__all__ = ["BurstMarket", "GeneratorSettings", "generated_market", "recorded_market", "recorded_start_ms"]


def recorded_market(
    feed: Path | None,
    instruments: Path | None,
    seed: int,
    as_recorded: bool,
    *,
    settings: GeneratorSettings | None = None,
    now_ms: int | None = None,
) -> Market:
    """A recorded feed, replayed now and continued by the generator; None means the packaged files.

    All dates move by the smallest number of whole days that brings the recorded moment to now or
    later: so every expiry that was ahead of the recording is ahead of now. Messages start when the
    market starts. `as_recorded` keeps names and times: for a clock that starts in the recording.
    Raises ConfigError where a file is wrong.
    """
    recording = read_feed(feed or RECORDED_FEED)
    listed = read_instruments(instruments or RECORDED_INSTRUMENTS)
    now_ms = wall_ms() if now_ms is None else now_ms
    days = 0 if as_recorded else days_until(recording.first_ms, now_ms)
    return RecordedMarket(
        recording, moved(listed, days, now_ms), seed, settings or GeneratorSettings(), days=days, keep_times=as_recorded
    )


def generated_market(
    seed: int,
    instruments: Path | None = None,
    *,
    settings: GeneratorSettings | None = None,
    now_ms: int | None = None,
) -> Market:
    """A market that was never there: the instruments of this file (moved so that none has expired), or built-in ones.

    Raises ConfigError where the file is wrong.
    """
    now_ms = wall_ms() if now_ms is None else now_ms
    if instruments is None:
        table = assumptions()
        prices = {base: row.price for base, row in table.items()}
        listed = built_in(now_ms, prices, {base: row.volatility for base, row in table.items()})
    else:
        rows = read_instruments(instruments)
        soonest = min((row.expiration_timestamp for row in rows if not row.is_perpetual), default=now_ms + 1)
        listed = list(moved(rows, max(0, days_until(soonest, now_ms + 1)), now_ms).values())
    return GeneratedMarket({one.instrument_name: one for one in listed}, seed, settings or GeneratorSettings())


def recorded_start_ms(feed: Path | None) -> int:
    """When this feed was recorded (Unix ms): where the clock of an `as_recorded` market has to start."""
    return read_feed(feed or RECORDED_FEED).first_ms


def wall_ms() -> int:
    return time.time_ns() // 1_000_000
