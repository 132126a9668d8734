"""A day of trading leaves nothing behind: memory, collections, queues, journal and disk stay as they are documented."""

from functools import lru_cache
from pathlib import Path

import msgspec
import pytest
from soak_census import Size, collections_of, empty_caches, heap_bytes
from soak_market import Pace
from soak_plan import Plan
from soak_run import Played, Sample, play
from soak_verdict import Finding, growing, judge, memory, pairs_of, second_half, shows_slopes, slope

from mmd.core.window import Window
from mmd.domain.actions import Order, PlaceOrder
from mmd.exchanges.connection import Connection
from mmd.exchanges.trading import Trading
from mmd.journal.reader import verify
from mmd.shell.office import Office

SMOKE = Plan(
    hours=0.1,
    symbols=24,
    pace=Pace(books=0.4, marks=0.2, takers=0.2),
    sample_seconds=30.0,
    reload_seconds=50.0,
    reconnect_seconds=130.0,
    roll_seconds=60.0,
    segment_mib=0.3,
    keep_gib=0.0022,
)
CLEAN_HOURS = 3.0
HOURS = Plan(hours=1.5 * CLEAN_HOURS, symbols=14)


def bad(found: list[Finding]) -> list[Finding]:
    return [one for one in found if not one.ok]


def test_six_minutes(tmp_path: Path) -> None:
    played = play(SMOKE, tmp_path)
    assert bad(judge(played)) == []
    assert min(played.done[what] for what in ("reloads", "reconnects", "rolls", "webhook posts")) >= 2
    assert played.seen["OrderFilled"] > 50
    assert played.segments >= 3
    assert played.samples[-1].files < played.segments, "some were deleted"
    assert verify(tmp_path / "state" / "journal").fault is None


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Three hours as they are, and half of that again in which each order and each change of symbols leaves a bit."""
    left: list[object] = []  # nothing of the daemon's leads to it
    late = False
    send, rewatch = Trading._send_order, Trading.rewatch

    def told(sample: Sample) -> None:
        nonlocal late
        late = sample.at_hours >= CLEAN_HOURS

    def leaking_send(self: Trading, connection: Connection, symbol: str, request: Order) -> None:
        send(self, connection, symbol, request)
        if late and isinstance(request, PlaceOrder):
            left.append(object())

    def leaking_rewatch(self: Trading) -> None:
        rewatch(self)
        if late:
            self.__dict__.setdefault("ever", set()).update(self._house.watched)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trading, "_send_order", leaking_send)
        patch.setattr(Trading, "rewatch", leaking_rewatch)
        return play(HOURS, tmp_path_factory.mktemp("soak"), told)


def between(played: Played, begin_hours: float, end_hours: float) -> Played:
    """As if there had been nothing before and after."""
    samples = [sample for sample in played.samples if begin_hours - 0.01 < sample.at_hours < end_hours + 0.01]
    plan = msgspec.structs.replace(played.plan, hours=end_hours - begin_hours)
    return msgspec.structs.replace(played, plan=plan, samples=samples)


@pytest.mark.slow
def test_three_hours(played: Played) -> None:
    assert bad(judge(between(played, 0.0, CLEAN_HOURS))) == []
    assert played.cpu_speed >= 30.0, "an hour a minute, with room for a slow machine"


@pytest.mark.slow
def test_the_smallest_leaks_are_found(played: Played) -> None:
    """One object for each order, which is all that differs from the hours before; and a set of names, by its own."""
    leaking = between(played, CLEAN_HOURS / 2, HOURS.hours)
    found = {one.what: one.found for one in bad([*memory(leaking), *growing(leaking)])}
    assert len(found) == 2
    assert "objects flat" in found
    assert [text.split()[0] for what, text in found.items() if what.endswith("collections flat")] == ["Trading.ever"]
    first, last = second_half(leaking)[0], leaking.samples[-1]
    placed = last.placed - first.placed
    assert 0.7 * placed < last.blocks - first.blocks < 1.5 * placed


# --- the judge himself -------------------------------------------------------------------------------


def made(grows: dict[str, float], rss_mib: float = 0.0, heap_kib: float = 0.0, objects: float = 0.0) -> Played:
    """Four hours in which these collections grow so much an hour, and memory too; at noon of a cycle there is more."""
    plan = Plan(hours=4.0, sample_seconds=360.0, reload_seconds=720.0, reconnect_seconds=1440.0, roll_seconds=720.0)
    samples = [
        Sample(
            at_hours=at / 10,
            real_seconds=at * 6.0,
            cpu_seconds=at * 6.0,
            rss=round((100 + rss_mib * at / 10) * (1 << 20)) + (1 << 19) * (at % 3),
            heap=round((10_000 + heap_kib * at / 10) * 1024) + 10_000 * (at % 3),
            blocks=800_000 + round(objects * at / 10) + 30 * (at % 5) + 20_000 * (at % 4),
            tasks=140 + at % 2,
            tracked={},
            collections={name: Size(1, 1000 + round(more * at / 10) + 100 * (at % 4)) for name, more in grows.items()},
            active=50,
            symbols=50,
            ticks=at,
            requests=at,
            placed=40 * at,
            fills=at,
            changes=0,
            journal=at,
            snapshots=0,
            disk=0,
            files=1,
        )
        for at in range(41)
    ]
    return Played(plan=plan, samples=samples, peaks={}, bytes={}, lines={}, seen={}, done={}, segments=1)


def test_growth_is_found() -> None:
    found = list(growing(made({"Flat.rows": 0.0, "Leak.rows": 20.0, "Position._seen": 20.0})))
    assert [(one.ok, one.found.split()[0]) for one in found] == [(False, "Leak.rows")]
    found = list(growing(made({"Position._seen": 2000.0})))  # more than all of its bounds together: there are too many
    assert [(one.ok, one.found.split()[0]) for one in found] == [(False, "Position._seen")]
    assert bad(list(growing(made({"Flat.rows": 0.0})))) == []


@pytest.mark.parametrize(
    ("what", "grows", "ok"),
    [
        pytest.param("RSS", {"rss_mib": -3.0}, True, id="memory shrinks"),
        pytest.param("RSS", {"rss_mib": 3.0}, True, id="memory moves"),
        pytest.param("RSS", {"rss_mib": 10.0}, False, id="memory grows"),
        pytest.param("bytes", {"heap_kib": 50.0}, True, id="malloc flat"),
        pytest.param("bytes", {"heap_kib": 200.0}, False, id="malloc grows"),
        pytest.param("objects", {"objects": 100.0}, True, id="objects flat"),
        pytest.param("objects", {"objects": 400.0}, False, id="one object for each of 400 orders an hour"),
    ],
)
def test_memory_that_grows_is_found(what: str, grows: dict[str, float], ok: bool) -> None:
    found = bad(list(memory(made({}, **grows))))
    assert [one.what.split()[0] for one in found] == ([] if ok else [what])


def test_only_looks_that_are_whole_cycles_apart_are_compared() -> None:
    played = made({})
    cycle = played.plan.cycle_hours
    assert cycle == pytest.approx(0.4)
    hours = {round(apart, 6) for _, _, apart in pairs_of(played.samples, range(41), cycle)}
    assert hours == {round(0.4 * count, 6) for count in range(1, 11)}


def test_one_bad_moment_is_no_slope() -> None:
    played = made({})
    values = [5.0] * len(played.samples)
    values[30] = 500.0
    assert slope(pairs_of(played.samples, values, played.plan.cycle_hours)) == 0.0


@pytest.mark.parametrize(("hours", "shown"), [(1.9, False), (2.0, True)])
def test_a_short_soak_shows_no_slope(hours: float, shown: bool) -> None:
    assert Plan().cycle_hours == pytest.approx(1 / 6)
    assert shows_slopes(Plan(hours=hours)) == shown


def test_caches_are_emptied_but_those_without_a_bound() -> None:
    bounded, unbounded = lru_cache(10)(str), lru_cache(None)(str)
    bounded(1), unbounded(1)
    empty_caches()
    assert (bounded.cache_info().currsize, unbounded.cache_info().currsize) == (0, 1)


def test_the_census_goes_everywhere() -> None:
    office, window = Office.__new__(Office), Window(60)
    window.add(1)
    office.__dict__.update({"by_name": {"a": [window], "b": []}, "call": window.add, "late": lambda: window})
    sizes = collections_of(office)
    assert sizes["Office.by_name"] == Size(2, 2)
    assert sizes["Office.by_name[]"] == Size(1, 1)
    assert sizes["Window._events"] == Size(1, 1)


def test_large_blocks_are_seen() -> None:
    before = heap_bytes()
    if not before:
        pytest.skip("this C library does not say what it has given out")
    block = bytearray(3 << 20)
    assert heap_bytes() - before >= len(block)
