"""Orders under a former name: ours until every exchange has said that none is left."""

import trio
from shell_kit import BTC, START_NS, FakeExchange
from trio.testing import MockClock, wait_all_tasks_blocked

from mmd.domain.events import OpenOrder
from mmd.domain.reasons import Side
from mmd.shell.clock import Clock
from mmd.shell.diary import Diary
from mmd.shell.renamed import AGAIN_SECONDS, lay_to_rest, merged

LATE = 2.5


class Venue(FakeExchange):
    """Remembers which names it was told."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.told: list[tuple[str, ...]] = []

    def also_ours(self, services: tuple[str, ...]) -> None:
        self.told.append(tuple(services))

    def rest(self, *services: str) -> None:
        labels = [f"mmd-{service}-{BTC}-b-abc-1" for service in services]
        self.resting = {BTC: [OpenOrder(label, label[-5:], Side.BID, 1, 1, 1) for label in labels]}


class Rest:
    def __init__(self, nursery: trio.Nursery, **former: tuple[str, ...]) -> None:
        self.venues = {name: Venue(name) for name in former}
        self.diary = Diary(Clock(lambda: START_NS))
        self.proven = 0
        nursery.start_soon(lay_to_rest, former, LATE, self.venues, self.diary, self.prove)

    def prove(self) -> None:
        self.proven += 1

    @property
    def asked(self) -> list[int]:
        return [venue.asked for venue in self.venues.values()]


def test_names_from_the_file_and_from_the_journal_are_one_list() -> None:
    found = merged({"one": ("b", "a")}, {"one": ("a", "c"), "two": ("a",)}, {})
    assert found == {"one": ("b", "a", "c"), "two": ("a",)}
    assert merged({}, {}) == {}


async def test_nothing_is_proven_before_the_last_order_can_have_arrived(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    rest = Rest(nursery, one=("old",))
    await trio.sleep(LATE - 0.1)
    assert (rest.asked, rest.proven, rest.venues["one"].told) == ([0], 0, [])
    await trio.sleep(0.2)
    assert (rest.asked, rest.proven, rest.venues["one"].told) == ([1], 1, [()])
    assert [line.detail for line in rest.diary.since(0, 9)] == ["nothing rests under old any more"]


async def test_an_exchange_is_asked_until_it_says_so_and_no_other_waits_for_it(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    rest = Rest(nursery, one=("old", "older"), two=("old",), three=("old",))
    one, two, three = rest.venues.values()
    one.rest("kit", "older")
    two.rest("kit", "oldest")  # another name, though it begins so
    three.silent = True
    await trio.sleep(LATE + 1)
    assert ([venue.told for venue in (one, two, three)], rest.proven) == ([[], [()], []], 0)
    one.rest("kit")
    await trio.sleep(AGAIN_SECONDS)
    assert ([venue.told for venue in (one, two, three)], rest.proven) == ([[()], [()], []], 0)
    three.silent = False
    await trio.sleep(AGAIN_SECONDS)
    await wait_all_tasks_blocked()
    assert (rest.proven, rest.asked) == (1, [2, 1, 3])
