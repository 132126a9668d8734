"""A day of trading leaves nothing behind: memory, collections, queues, journal and disk stay as they are documented."""

from pathlib import Path

import pytest
from soak_census import Size, collections_of
from soak_market import Pace
from soak_plan import Plan
from soak_run import Played, Sample, play
from soak_verdict import Finding, growing, judge, memory, slope

from mmd.core.window import Window
from mmd.journal.reader import verify
from mmd.shell.office import Office

SMOKE = Plan(
    hours=0.1,
    symbols=24,
    pace=Pace(books=0.2, marks=0.1, takers=0.05),
    sample_seconds=30.0,
    reload_seconds=50.0,
    reconnect_seconds=130.0,
    roll_seconds=60.0,
    segment_mib=0.7,
    keep_gib=0.0038,
)


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


@pytest.mark.slow
@pytest.mark.judgement
def test_two_hours(tmp_path: Path) -> None:
    played = play(Plan(hours=2.0), tmp_path)
    assert bad(judge(played)) == []
    assert played.cpu_speed >= 30.0, "an hour a minute, with room for a slow machine"


# --- the judge himself -------------------------------------------------------------------------------


def made(grows: dict[str, float], rss_mib: float = 0.0) -> Played:
    """Four hours in which these collections grow so much an hour, and memory too."""
    samples = [
        Sample(
            at_hours=at / 10,
            real_seconds=at * 6.0,
            cpu_seconds=at * 6.0,
            rss=round((100 + rss_mib * at / 10) * (1 << 20)) + (1 << 19) * (at % 3),
            blocks=800_000 + 100 * (at % 5),
            tasks=140 + at % 2,
            tracked={},
            collections={name: Size(1, 1000 + round(more * at / 10) + at % 3) for name, more in grows.items()},
            active=50,
            symbols=50,
            ticks=at,
            requests=at,
            fills=at,
            changes=0,
            journal=at,
            snapshots=0,
            disk=0,
            files=1,
        )
        for at in range(41)
    ]
    return Played(plan=Plan(), samples=samples, peaks={}, bytes={}, lines={}, seen={}, done={}, segments=1)


def test_growth_is_found() -> None:
    found = list(growing(made({"Flat.rows": 0.0, "Leak.rows": 20.0})))
    assert [(one.ok, one.found.split()[0]) for one in found] == [(False, "Leak.rows")]
    assert bad(list(growing(made({"Flat.rows": 0.0})))) == []


@pytest.mark.parametrize(("mib_an_hour", "ok"), [(-3.0, True), (0.0, True), (0.5, True), (2.0, False)])
def test_memory_that_grows_is_found(mib_an_hour: float, ok: bool) -> None:
    assert [one.ok for one in memory(made({}, mib_an_hour)) if one.what == "RSS flat"] == [ok]


def test_one_bad_moment_is_no_slope() -> None:
    samples = made({}).samples
    values = [5.0] * len(samples)
    values[30] = 500.0
    assert slope(samples, values) == 0.0


def test_the_census_goes_everywhere() -> None:
    office, window = Office.__new__(Office), Window(60)
    window.add(1)
    office.__dict__.update({"by_name": {"a": [window], "b": []}, "call": window.add, "late": lambda: window})
    sizes = collections_of(office)
    assert sizes["Office.by_name"] == Size(2, 2)
    assert sizes["Office.by_name[]"] == Size(1, 1)
    assert sizes["Window._events"] == Size(1, 1)
